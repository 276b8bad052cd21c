"""Values, places and grid of any image file: what runs and betas have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmri.mask import Mask, read_mask
from fmri.surfaces import is_surface, read_column_mask, read_columns
from fmri.tables import entities
from fmri.volumes import open_volumes, read_voxels
from fmri.voxels import voxel_hash
from neuro.errors import DataError, InputError

Floats = NDArray[np.float32]
Grid = dict[str, Any]
"""``affine``, ``shape`` and ``notes``, for surfaces ``structure``."""

_BLOCK = 1 << 22  # values looked at together


def name_of(path: Any) -> str:
    """Name a source in messages."""
    if isinstance(path, list | tuple):
        return ", ".join(map(name_of, path))
    return str(path) if isinstance(path, str | Path) else "the image"


def labels_of(
    path: Any, subject: str | None, session: str | None, run: str | None
) -> dict[str, str]:
    """Return subject, session and run: as given, of the file name, or the first."""
    found = entities(path[0] if isinstance(path, list | tuple) else path)
    given = {"subject": ("sub", subject), "session": ("ses", session), "run": ("run", run)}
    default = {"sub": "sub-01", "ses": "ses-01", "run": "run-01"}
    return {
        name: value
        if value is not None
        else f"{key}-{found[key]}"
        if key in found
        else default[key]
        for name, (key, value) in given.items()
    }


def read_signal(
    path: Any,
    mask: Any,
    labels: Sequence[int] | None,
    smoothing_fwhm: float | None = None,
) -> tuple[Floats, NDArray[np.int64], Grid, float | None]:
    """Return values, places, what is known of the grid, and the repetition time."""
    first = path[0] if isinstance(path, list | tuple) and len(path) else path
    if is_surface(first):
        if smoothing_fwhm is not None:
            raise InputError(
                f"{name_of(path)}: has no volume to smooth; leave smoothing_fwhm away, or smooth "
                "along the surface before"
            )
        columns = read_columns(path)
        keep = slice(None) if mask is None else read_column_mask(mask, columns, labels)
        grid: Grid = {"affine": None, "shape": [len(columns.ijk), 1, 1], "notes": []}
        grid["structure"] = columns.structure[keep]
        return columns.values[:, keep], columns.ijk[keep], grid, columns.t_r
    volumes = open_volumes(path, name=name_of(path))
    chosen: Mask | None = None
    if mask is not None:
        chosen = read_mask(mask, labels=labels, like=(volumes.shape, volumes.affine))
    values, flat = read_voxels(volumes, None if chosen is None else chosen.flat, smoothing_fwhm)
    ijk = np.column_stack(np.unravel_index(flat, volumes.shape, order="F"))
    notes = (
        ["no mask: voxels that are not 0 in the first volume"] if chosen is None else chosen.notes
    )
    grid = {"affine": volumes.affine, "shape": list(volumes.shape), "notes": list(notes)}
    return values, ijk, grid, volumes.t_r


def place_coords(ijk: NDArray[np.int64], grid: Grid) -> dict[str, Any]:
    """Return the coordinates on ``voxel``."""
    coords: dict[str, Any] = {name: ("voxel", ijk[:, n]) for n, name in enumerate("ijk")}
    if "structure" in grid and len(grid["structure"]) == len(ijk):
        coords["structure"] = ("voxel", grid["structure"])
    return coords


def grid_attrs(ijk: NDArray[np.int64], grid: Grid) -> dict[str, Any]:
    """Return the attributes that say where the voxels lie."""
    affine = grid["affine"]
    return {
        "affine": json.dumps(None if affine is None else affine.tolist()),
        "shape": json.dumps([int(n) for n in grid["shape"]]),
        "mask_hash": voxel_hash(ijk, grid["shape"], affine),
        "notes": list(grid["notes"]),
    }


def usable(
    values: Floats, ijk: NDArray[np.int64], name: str
) -> tuple[Floats, NDArray[np.int64], dict[str, int]]:
    """Leave out voxels that are constant or hold NaN, without a second copy of the data."""
    finite, moving = np.empty(len(ijk), bool), np.empty(len(ijk), bool)
    step = max(1, _BLOCK // max(len(values), 1))
    for start in range(0, len(ijk), step):
        block = values[:, start : start + step]
        low, high = block.min(axis=0), block.max(axis=0)  # NaN goes through both
        finite[start : start + step] = np.isfinite(low) & np.isfinite(high)
        moving[start : start + step] = high > low
    keep = finite & (moving | (len(values) < 2))
    excluded = {"nan": int((~finite).sum()), "constant": int((finite & ~keep).sum())}
    if not keep.any():
        raise DataError(
            f"{name}: of {len(ijk)} voxels {excluded['nan']} hold NaN and {excluded['constant']} "
            "are constant; none is left. Is the mask that of these data?"
        )
    if keep.all():
        return values, ijk, excluded
    return _compact(values, keep), ijk[keep], excluded


def _compact(values: Floats, keep: NDArray[np.bool_]) -> Floats:
    """Move the kept columns together in place: what is written lies before what is still read."""
    if not (values.flags.c_contiguous and values.flags.writeable):
        return np.ascontiguousarray(values[:, keep])
    n, width = len(values), int(keep.sum())
    flat = values.reshape(-1)
    for row in range(n):
        flat[row * width : (row + 1) * width] = values[row, keep]
    return flat[: n * width].reshape(n, width)
