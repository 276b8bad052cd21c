"""Fields of every stage that cuts runs into blocks of parcels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuro.stage import File, Files, Params


class ParcelCutting(Params):
    """Atlas or mask, and where a block begins and ends."""

    atlas: File | None = None
    """Label image, probabilistic maps or .dlabel.nii; null takes every voxel of mask_img for a
    parcel (data of a few hundred voxels)."""
    atlas_table: File | None = None
    """Values, names and networks of the atlas."""
    mask_img: File | None = None
    """With atlas null: which voxels."""
    regions: Files | None = None
    """With atlas null: masks that become sets of parcels, by the names of their files."""
    prefix: str = ""
    """Beginning of those names that is left away."""
    t_r: float | None = Field(None, gt=0)
    """s, where the header doesn't tell."""
    subject: str | None = None
    """Where the files' names don't tell."""
    tmin: float = 4.0
    """A block begins at the onset + tmin, s."""
    tmax: float = 10.0
    """A block ends before until + tmax, s."""
    until: Literal["onset", "offset"] = "onset"
    """What tmax is counted from."""
    high_pass: float | None = None
    """Hz; null takes a linear trend out."""
    stimulus: str | None = None
    """Column of the events that says what was shown."""
