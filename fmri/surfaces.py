"""Data without a voxel grid: GIFTI surfaces and CIFTI grayordinates, as rows of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmri.volumes import load_image
from neuro.errors import ContractError, DataError

__all__ = ["Columns", "is_surface", "read_column_mask", "read_columns"]

Floats = NDArray[np.float32]

_GIFTI = (".gii", ".gii.gz")
_CIFTI = tuple(f".{kind}.nii" for kind in ("dtseries", "dscalar", "dlabel", "ptseries", "pscalar"))
_HEMISPHERES = {"CortexLeft": 0, "CortexRight": 1}
_UNIT = {"SECOND": 1.0}


@dataclass(frozen=True)
class Columns:
    """Rows of time points or maps, columns of vertices or grayordinates.

    Attributes
    ----------
    values : ndarray of float32, shape (row, column)
    ijk : ndarray of int, shape (column, 3)
        ``i`` is the vertex or the grayordinate; ``j`` is 1 on a right hemisphere's GIFTI, else 0.
    structure : ndarray of str, shape (column,)
        ``CORTEX_LEFT`` and the like.
    t_r : float or None
        s.
    """

    values: Floats
    ijk: NDArray[np.int64]
    structure: NDArray[np.str_]
    t_r: float | None = None
    notes: tuple[str, ...] = field(default=())


def is_surface(path: Any) -> bool:
    """Say whether a file is GIFTI or CIFTI, by its name.

    Examples
    --------
    >>> is_surface("sub-01_hemi-L_bold.func.gii"), is_surface("a.dtseries.nii"), is_surface("a.nii")
    (True, True, False)
    """
    return isinstance(path, str | Path) and str(path).lower().endswith((*_GIFTI, *_CIFTI))


def read_columns(paths: Any) -> Columns:
    """Read a CIFTI file, or GIFTI files of one or both hemispheres side by side.

    Parameters
    ----------
    paths : path or sequence of path

    Returns
    -------
    Columns

    Raises
    ------
    DataError
        Where a file can't be read, or hemispheres differ in length.
    """
    files: Sequence[Any] = [paths] if isinstance(paths, str | Path) else list(paths)
    parts = [_read(Path(path)) for path in files]
    lengths = [len(part.values) for part in parts]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{', '.join(map(str, files))}: have {lengths} time points; files that are read side "
            "by side are the hemispheres of one run"
        )
    if len(parts) == 1:
        return parts[0]
    return Columns(
        np.concatenate([p.values for p in parts], axis=1),
        np.concatenate([p.ijk for p in parts]),
        np.concatenate([p.structure for p in parts]),
        parts[0].t_r,
    )


def _read(path: Path) -> Columns:
    image = load_image(path, str(path))
    try:
        return _gifti(image, path) if path.name.lower().endswith(_GIFTI) else _cifti(image, path)
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: can't be read ({error}); copy it again") from error


def _gifti(image: Any, path: Path) -> Columns:
    arrays = [array.data for array in image.darrays]
    if not arrays:
        raise DataError(f"{path}: holds no data array")
    if len({array.shape for array in arrays}) > 1:
        raise DataError(f"{path}: is a mesh, not data; expected a .func.gii or .shape.gii")
    values = np.stack(arrays).astype(np.float32, copy=False)
    if values.ndim == 3 and len(arrays) == 1:
        values = np.ascontiguousarray(values[0].T)  # one array of (vertex, time)
    name = _structure(image, path)
    ijk = np.zeros((values.shape[1], 3), np.int64)
    ijk[:, 0], ijk[:, 1] = np.arange(values.shape[1]), _HEMISPHERES.get(name, 0)
    step = [a.meta.get("TimeStep") for a in image.darrays[:1]] + [image.meta.get("TimeStep")]
    t_r = next((float(s) for s in step if s), None)
    if t_r is not None and t_r >= 100:  # GIFTI writers put ms there
        t_r /= 1000
    label = {"CortexLeft": "CORTEX_LEFT", "CortexRight": "CORTEX_RIGHT"}.get(name, name)
    return Columns(values, ijk, np.full(values.shape[1], label), t_r)


def _structure(image: Any, path: Path) -> str:
    for meta in (image.meta, *(array.meta for array in image.darrays[:1])):
        if meta.get("AnatomicalStructurePrimary"):
            return str(meta["AnatomicalStructurePrimary"])
    for mark, name in (("hemi-L", "CortexLeft"), ("hemi-R", "CortexRight")):
        if mark in path.name:
            return name
    head = path.name.lower()
    return {"lh.": "CortexLeft", "rh.": "CortexRight"}.get(head[:3], "surface")


def _cifti(image: Any, path: Path) -> Columns:
    rows, columns = (image.header.get_axis(n) for n in (0, 1))
    values = np.asarray(image.dataobj, dtype=np.float32)
    if values.ndim != 2:
        raise DataError(f"{path}: has the shape {values.shape}, expected (row, grayordinate)")
    ijk = np.zeros((values.shape[1], 3), np.int64)
    ijk[:, 0] = np.arange(values.shape[1])
    names = getattr(columns, "name", np.full(values.shape[1], "parcel"))
    structure = np.array([str(n).removeprefix("CIFTI_STRUCTURE_") for n in names], dtype=str)
    step = getattr(rows, "step", None)
    t_r = float(step) * _UNIT[rows.unit] if step and rows.unit in _UNIT else None
    return Columns(values, ijk, structure, t_r)


def read_column_mask(source: Any, columns: Columns, labels: Sequence[int] | None) -> NDArray[Any]:
    """Return which columns a mask keeps.

    Parameters
    ----------
    source : array_like of bool or int, path, or list of path
        GIFTI or CIFTI of the same columns, or one value for each.
    columns : Columns
    labels : sequence of int, optional
        Values that are kept; by default all but 0.

    Returns
    -------
    ndarray of bool, shape (column,)

    Raises
    ------
    ContractError
        Where the mask has another length or other places.
    DataError
        Where nothing is kept.
    """
    first = source[0] if isinstance(source, list | tuple) and len(source) else source
    if is_surface(first):
        mask = read_columns(source)
        if mask.ijk.shape != columns.ijk.shape or (mask.ijk != columns.ijk).any():
            raise ContractError(
                f"the mask has {len(mask.ijk)} columns, the data {len(columns.ijk)}, or their "
                "hemispheres differ; both must be on one surface"
            )
        values = mask.values[0]
    else:
        values = np.asarray(source).ravel()
    if len(values) != len(columns.ijk):
        raise ContractError(f"the mask has {len(values)} columns, expected {len(columns.ijk)}")
    keep = np.isin(values, list(labels)) if labels is not None else np.nan_to_num(values) != 0
    if not keep.any():
        raise DataError("the mask keeps no column of the data; check its labels")
    return keep
