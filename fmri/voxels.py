"""Where voxels are: indices and affine in a dataset's coordinates and attributes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError

__all__ = [
    "affine_of",
    "as_affine",
    "common_voxels",
    "places",
    "rows_of",
    "same_affine",
    "voxel_hash",
]

Affine = NDArray[np.float64]
Places = NDArray[np.int64]

_TOLERANCE = 1e-3  # mm: far below a voxel, above what single precision headers lose


def places(data: xr.Dataset | xr.DataArray) -> Places:
    """Return the indices of the voxels, shape (voxel, 3).

    Raises
    ------
    DataError
        Where the data have no coordinates ``i``, ``j`` and ``k``.
    """
    missing = [name for name in "ijk" if name not in data.coords]
    if missing:
        raise DataError(
            f"the data have no coordinate {', '.join(missing)} on 'voxel', found "
            f"{sorted(map(str, data.coords))}; read them with fmri.read, which keeps places"
        )
    return np.column_stack([data[name].values for name in "ijk"]).astype(np.int64)


def as_affine(affine: ArrayLike | str | None) -> Affine | None:
    """Return a 4 x 4 matrix from an array, its JSON or nothing ("null" for no positions).

    Raises
    ------
    DataError
        Where it is no finite 4 x 4 matrix.

    Examples
    --------
    >>> as_affine("null") is None, as_affine(np.eye(4).tolist()).shape
    (True, (4, 4))
    """
    value = json.loads(affine) if isinstance(affine, str) else affine
    if value is None:
        return None
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError(f"an affine is a finite 4 x 4 matrix, found shape {matrix.shape}")
    return matrix


def affine_of(data: xr.Dataset | xr.DataArray) -> Affine | None:
    """Return the affine in the attributes, None where positions are not known."""
    return as_affine(data.attrs.get("affine"))


def same_affine(one: Affine | None, other: Affine | None) -> bool:
    """Compare affines within a thousandth of a millimetre; None equals None only.

    Examples
    --------
    >>> same_affine(np.eye(4), np.eye(4) + 1e-6), same_affine(np.eye(4), None)
    (True, False)
    """
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, rtol=0, atol=_TOLERANCE))


def voxel_hash(ijk: Places, shape: Sequence[int], affine: Affine | None) -> str:
    """Digest a set of voxels in their order, with grid and affine: the ``mask_hash``.

    Examples
    --------
    >>> ijk = np.array([[0, 0, 1], [0, 1, 0]])
    >>> voxel_hash(ijk, (2, 2, 2), None) == voxel_hash(ijk[::-1], (2, 2, 2), None)
    False
    """
    grid = None if affine is None else (np.round(affine, 3) + 0.0).tolist()  # no -0.0
    digest = hashlib.blake2b(json.dumps([list(map(int, shape)), grid]).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(ijk, dtype="<i8").tobytes())
    return digest.hexdigest()


def rows_of(wanted: Places, found: Places) -> NDArray[np.int64]:
    """Return for every wanted voxel its number among those found, -1 where it is missing.

    Examples
    --------
    >>> rows_of(np.array([[0, 0, 1], [5, 0, 0]]), np.array([[9, 9, 9], [0, 0, 1]])).tolist()
    [1, -1]
    """
    if not len(found) or not len(wanted):
        return np.full(len(wanted), -1)
    stacked = np.concatenate([found, wanted])
    low = stacked.min(axis=0)
    codes = np.ravel_multi_index(tuple((stacked - low).T), tuple(stacked.max(axis=0) - low + 1))
    known, asked = codes[: len(found)], codes[len(found) :]
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known[order], asked), len(found) - 1)
    return np.where(known[order][at] == asked, order[at], -1)


def common_voxels(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Keep the voxels that all parts have, in the order of the first.

    Parameters
    ----------
    parts : sequence of Dataset
        Runs or sessions of one subject.

    Returns
    -------
    list of Dataset
        With the ``mask_hash`` of the intersection.

    Raises
    ------
    DataError
        Where grid or affine differ, or no voxel is in all parts.
    """
    first, ijk = parts[0], places(parts[0])
    keep = np.ones(len(ijk), dtype=bool)
    for number, part in enumerate(parts[1:], start=1):
        _check_grid(first, part, number)
        keep &= rows_of(ijk, places(part)) >= 0
    if not keep.any():
        raise DataError(
            f"no voxel is in all of the {len(parts)} runs ({[p.sizes['voxel'] for p in parts]} "
            "voxels); check that their masks belong to the same brain"
        )
    return [_take(part, rows_of(ijk[keep], places(part)), ijk[keep]) for part in parts]


def _check_grid(first: xr.Dataset, other: xr.Dataset, number: int) -> None:
    mine, theirs = affine_of(first), affine_of(other)
    found: list[tuple[str, Any, Any]] = []
    if first.attrs.get("shape") != other.attrs.get("shape"):
        found.append(("shape", other.attrs.get("shape"), first.attrs.get("shape")))
    if not same_affine(mine, theirs):
        found.append(("affine", theirs, mine))
    for what, there, here in found:
        there, here = (v.tolist() if isinstance(v, np.ndarray) else v for v in (there, here))
        raise DataError(
            f"run {number} has the {what} {there}, run 0 has {here}; bring all runs of a subject "
            "to one space before (fMRIPrep: one of its --output-spaces)"
        )


def _take(part: xr.Dataset, rows: NDArray[np.int64], ijk: Places) -> xr.Dataset:
    shape = json.loads(part.attrs.get("shape", "[]"))
    found = part
    if not np.array_equal(rows, np.arange(part.sizes["voxel"])):
        found = part.isel(voxel=rows)
    return found.assign_attrs(mask_hash=voxel_hash(ijk, shape, affine_of(part)))
