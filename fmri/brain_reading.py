"""How runs become blocks, kept with an encoder: atlas, names, window, cleaning.

A `Reading` travels in the dataset of blocks (the atlas as the variable ``atlas``, the rules as
JSON), and from there into the folder of the encoder, so that new scans are read as those of the
training were, on a machine that has neither the atlas nor its table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.parcel_blocks import cut_blocks
from fmri.parcel_series import parcel_series, voxel_series
from fmri.parcels import read_atlas_table
from fmri.surfaces import is_surface
from fmri.volumes import load_image
from neuro.errors import ContractError, InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Reading"]

ATLAS_DIMS = ("atlas_i", "atlas_j", "atlas_k")
RULES: dict[str, Any] = {
    "tmin": 4.0, "tmax": 10.0, "until": "onset", "high_pass": None, "stimulus": None, "t_r": None,
    "confounds": False,
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """Atlas and rules.

    Attributes
    ----------
    kind : {"labels", "voxels", "file"}
        A label image; a mask whose every voxel is a parcel; or an atlas that is too large to be
        kept (probabilistic maps, CIFTI), which is given again and known by its digest.
    rules : dict
        ``tmin``, ``tmax``, ``until``, ``high_pass``, ``stimulus``, ``t_r`` as for
        `fmri.cut_blocks`; ``confounds``: whether confounds were taken out.
    table : list of list
        Value, name and network of each parcel.
    labels : ndarray of int32, shape (i, j, k), or None
        Cut to what isn't 0.
    affine : ndarray, shape (4, 4), or None
    digest : str
        Of the atlas file.
    """

    kind: str
    rules: dict[str, Any]
    table: list[list[Any]] = field(default_factory=list)
    labels: NDArray[np.int32] | None = None
    affine: NDArray[np.float64] | None = None
    digest: str = ""

    @classmethod
    def of(
        cls,
        atlas: Any = None,
        table: str | Path | pd.DataFrame | None = None,
        *,
        mask_img: Any = None,
        **rules: Any,
    ) -> Reading:
        """Take up what `fmri.parcel_series` or `fmri.voxel_series` is given.

        Parameters
        ----------
        atlas, table
            As for `fmri.parcel_series`.
        mask_img : path or image, optional
            As for `fmri.voxel_series`, with `atlas` None.
        **rules
            See the class; what is left out has the default of the stage ``brain-parcels``.

        Raises
        ------
        InputError
            Where a rule isn't known, or there is neither atlas nor mask.
        """
        unknown = sorted(set(rules) - set(RULES))
        if unknown or (atlas is None and mask_img is None):
            raise InputError(
                f"a reading needs an atlas or a mask_img, and knows the rules {', '.join(RULES)}"
                + (f"; not {', '.join(unknown)}" if unknown else "")
            )
        rules = {**RULES, **rules}
        if atlas is None:
            return cls("voxels", rules, [], *_volume(mask_img))
        rows = _rows(table)
        image = None if is_surface(atlas) else load_image(atlas, str(atlas))
        if image is None or len([n for n in image.shape[3:] if n > 1]):
            if not isinstance(atlas, str | Path):
                raise InputError("maps and CIFTI atlases are given as a file, known by its content")
            return cls("file", rules, rows, digest=_digest(atlas))
        return cls("labels", rules, rows, *_volume(image))

    def series(
        self, bold: Any, *, atlas: str | Path | None = None, subject: str | None = None
    ) -> xr.Dataset:
        """Read a run as the training's were read: ``signal (time, parcel)``.

        Raises
        ------
        ContractError
            Where the atlas is to be given again and isn't, or is another one.
        DataError
            Where the run can't be read, or atlas and run don't overlap.
        """
        import pandas as pd

        common: dict[str, Any] = {"t_r": self.rules["t_r"], "subject": subject}
        if self.kind == "voxels":
            return voxel_series(bold, self._image(), **common)
        table = pd.DataFrame(self.table, columns=["index", "name", "network"])
        own = table if len(table) else None
        if self.kind == "labels":
            return parcel_series(bold, self._image(), own, **common)
        if atlas is None:
            raise ContractError(
                "the atlas of this encoder (maps or CIFTI) is too large to be kept with it; give "
                "it again: neuro decode ... --atlas FILE"
            )
        if _digest(atlas) != self.digest:
            raise ContractError(f"{atlas} is another atlas than the one of the training")
        return parcel_series(bold, atlas, own, **common)

    def blocks(self, series: xr.Dataset, events: Any, confounds: Any = None) -> xr.Dataset:
        """Cut a block for each event, by the rules."""
        keys = ("tmin", "tmax", "until", "high_pass", "stimulus")
        return cut_blocks(
            series, events, confounds=confounds, **{key: self.rules[key] for key in keys}
        )

    # Kept with data and encoders ----------------------------------------------------------

    def into(self, data: xr.Dataset) -> xr.Dataset:
        """Return the blocks with this reading."""
        if self.labels is not None:
            data = data.assign(atlas=(ATLAS_DIMS, self.labels))
        return data.assign_attrs(reading=json.dumps(self.to_dict()))

    @classmethod
    def within(cls, data: xr.Dataset) -> Reading | None:
        """Take the reading out of blocks; None where they have none."""
        stored = data.attrs.get("reading")
        if not isinstance(stored, str):
            return None
        return cls.from_parts(json.loads(stored), data["atlas"].values if "atlas" in data else None)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the atlas as JSON values."""
        return {
            "kind": self.kind, "rules": self.rules, "table": self.table, "digest": self.digest,
            "affine": None if self.affine is None else self.affine.tolist(),
        }  # fmt: skip

    @classmethod
    def from_parts(cls, stored: Mapping[str, Any], labels: NDArray[Any] | None) -> Reading:
        """Rebuild from `to_dict` and the atlas."""
        affine = stored["affine"]
        return cls(
            stored["kind"], dict(stored["rules"]), [list(row) for row in stored["table"]],
            None if labels is None else np.asarray(labels, np.int32),
            None if affine is None else np.asarray(affine, float), stored["digest"],
        )  # fmt: skip

    def _image(self) -> Any:
        import nibabel

        return nibabel.Nifti1Image(np.asarray(self.labels, np.int32), self.affine)


def _volume(image: Any) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return whole numbers, cut to the box around what isn't 0, and the affine of that box."""
    loaded = load_image(image, str(image))
    values = np.rint(np.asanyarray(loaded.dataobj)).astype(np.int32)
    values = values.reshape(values.shape[:3])
    inside = np.argwhere(values)
    if not len(inside):
        raise InputError(f"{image}: holds nothing but 0")
    low, high = inside.min(0), inside.max(0) + 1
    affine = np.array(loaded.affine, dtype=np.float64)
    affine[:3, 3] += affine[:3, :3] @ low
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return np.ascontiguousarray(values[box]), affine


def _rows(table: Any) -> list[list[Any]]:
    if table is None:
        return []
    found = table if hasattr(table, "columns") else read_atlas_table(table)
    network = found["network"].astype(str) if "network" in found else [""] * len(found)
    return [
        [int(index), str(name), str(one)]
        for index, name, one in zip(found["index"], found["name"], network, strict=True)
    ]


def _digest(path: str | Path) -> str:
    content = Path(path).read_bytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
