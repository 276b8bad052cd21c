"""Whole-brain encoders by name and size, and what their making needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmri.brain_encoders import BrainEncoder, CausalEncoder, CausalSizes, LinearEncoder
from fmri.brain_masked import MaskedEncoder, MaskedSizes
from fmri.brain_volumes import VolumeSizes, VolumetricEncoder, paint
from neuro.errors import DataError, InputError

__all__ = ["KINDS", "PRESETS", "BrainShape", "make_encoder", "sizes_of"]

KINDS = ("causal", "masked", "volumetric", "linear")


@dataclass(frozen=True)
class LinearSizes:
    """Shape of a linear encoder."""

    width: int = 768


Sizes = CausalSizes | MaskedSizes | VolumeSizes | LinearSizes

PRESETS: dict[str, dict[str, Sizes]] = {
    "paper": {
        "causal": CausalSizes(), "masked": MaskedSizes(), "volumetric": VolumeSizes(),
        "linear": LinearSizes(),
    },
    "small": {
        "causal": CausalSizes(
            width=96, depth=2, n_heads=4, n_positions=256, pool="mean", predicts="all"
        ),
        "masked": MaskedSizes(
            width=64, depth=2, patch=4, hidden=0.5, decoder_width=32, decoder_depth=1,
            norm="pre", value_kernel=0, pool="parcel", place_scale=50.0,
        ),
        "volumetric": VolumeSizes(width=96, n_hidden=256, n_blocks=2, kernel=2, pool=4),
        "linear": LinearSizes(width=96),
    },
}  # fmt: skip
"""Sizes of the papers, and ours for a few hundred trials on a CPU."""


@dataclass(frozen=True)
class BrainShape:
    """What an encoder must know of the data.

    Attributes
    ----------
    n_parcels : int
    t_r : float
        s.
    places : ndarray of float32, shape (parcel, 3), or None
        mm.
    voxels : ndarray of int, shape (parcel, 3), or None
        Indices, where every parcel is a voxel of the scan.
    """

    n_parcels: int
    t_r: float
    places: NDArray[np.float32] | None = None
    voxels: NDArray[np.int64] | None = None


def sizes_of(kind: str, preset: str, changes: Mapping[str, Any] | None = None) -> Sizes:
    """Return the sizes of a preset, some of them changed.

    Raises
    ------
    InputError
        Where the kind, the preset or a size isn't known.

    Examples
    --------
    >>> sizes_of("linear", "paper", {"width": 512})
    LinearSizes(width=512)
    """
    if kind not in KINDS or preset not in PRESETS:
        raise InputError(
            f"encoder is {kind!r} and preset {preset!r}; expected one of {', '.join(KINDS)} and "
            f"one of {', '.join(PRESETS)}"
        )
    found = PRESETS[preset][kind]
    known = [field.name for field in fields(found)]
    unknown = sorted(set(changes or {}) - set(known))
    if unknown:
        raise InputError(f"'{kind}' has no size {', '.join(unknown)}; it has {', '.join(known)}")
    return replace(found, **(changes or {}))


def make_encoder(kind: str, sizes: Sizes, shape: BrainShape) -> BrainEncoder:
    """Make an encoder with new weights, from PyTorch's generator.

    Raises
    ------
    DataError
        Where it needs the places of parcels and they aren't known.
    """
    import torch

    if isinstance(sizes, CausalSizes):
        return CausalEncoder(shape.n_parcels, shape.t_r, sizes)
    if isinstance(sizes, LinearSizes):
        return LinearEncoder(shape.n_parcels, sizes.width)
    if shape.places is None and (shape.voxels is None or isinstance(sizes, MaskedSizes)):
        raise DataError(
            f"the '{kind}' encoder needs the places of parcels: coordinates x, y, z (mm) on "
            "parcel. fmri.parcel_series gives them for NIfTI atlases; assign them, or take "
            "encoder='causal'"
        )
    if isinstance(sizes, MaskedSizes):
        return MaskedEncoder(torch.from_numpy(np.array(shape.places, np.float32)), sizes)
    return VolumetricEncoder(torch.from_numpy(_grid(shape)), sizes)


def _grid(shape: BrainShape) -> NDArray[np.int64]:
    """Take the scan's own voxels, else cells of about half the distance between parcels."""
    if shape.voxels is not None:
        return paint(shape.voxels.astype(np.float64))
    from scipy.spatial import cKDTree

    places = np.asarray(shape.places, np.float64)
    apart = cKDTree(places).query(places, k=2)[0][:, 1] if len(places) > 1 else np.array([10.0])
    return paint(places, float(np.clip(np.median(apart) / 2, 2.0, 20.0)))


def as_dict(sizes: Sizes) -> dict[str, Any]:
    """Return the sizes as JSON values."""
    return asdict(sizes)
