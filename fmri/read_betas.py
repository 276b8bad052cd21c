"""Read betas that were estimated elsewhere: images or arrays, with a table of their trials."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.arrays import is_array, read_array
from fmri.mask import read_mask
from fmri.signals import Grid, grid_attrs, labels_of, name_of, place_coords, read_signal, usable
from fmri.surfaces import is_surface
from fmri.tables import entities, trial_table
from fmri.trials import join_trials, with_labels
from neuro.errors import DataError, InputError

__all__ = ["NSD_SCALE", "read_betas", "table_beside"]

Floats = NDArray[np.float32]

NSD_SCALE = 1 / 300  # the NSD's int16 betas are percent signal change x 300


def read_betas(
    path: Any,
    trials: Any = None,
    *,
    mask: Any = None,
    labels: Sequence[int] | None = None,
    scale: float = 1.0,
    units: str | None = None,
    variable: str | None = None,
    axes: str | None = None,
    stimulus: str | None = None,
    subject: str | None = None,
    session: str | None = None,
) -> xr.Dataset:
    """Read betas that were estimated elsewhere, with their table of trials.

    Parameters
    ----------
    path : path or sequence of path
        One file for each session: NIfTI with trials along the fourth axis, CIFTI or GIFTI with
        maps as trials, or an array (``.npy``, ``.mat`` 5 and 7.3, HDF5) of ``(trial, voxel)``.
        Sessions keep the voxels that all of them have.
    trials : path, DataFrame, or sequence of those, optional
        Rows for the trials of each file, or one table for all in their order. ``stimulus`` is
        needed; ``subject``, ``session``, ``run``, ``condition``, ``category``, ``onset`` and
        ``duration`` are kept. By default ``X_trials.tsv`` beside ``X_betas.nii.gz``, else trials
        are numbered.
    mask, labels
        As for `read_bold`; for 4-D arrays too, on the same grid.
    scale : float
        The numbers are multiplied by it; 1/300 for the int16 betas of the NSD (`NSD_SCALE`).
    units : str, optional
        "psc" by default where `scale` is that of the NSD, else "beta".
    variable : str, optional
        Name in a MATLAB or HDF5 file.
    axes : str, optional
        Order of an array's axes in the letters ``t`` (trial), ``v`` (voxel) or ``i j k``. By
        default "tv"; "ijkt" for 4-D ``.npy`` and ``.mat``, "tkji" for 4-D HDF5, as the NSD has.
    stimulus : str, optional
        The column that says what was shown.
    subject, session : str, optional
        By default those of the table or the file name.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        Where a file can't be read, tables and data differ in length, grids differ, or no voxel is
        left.
    """
    many = isinstance(path, list | tuple) and not _is_hemispheres(path)
    files = list(path) if many else [path]
    if not files:
        raise InputError("no file of betas was given")
    parts = [_read_part(file, mask, labels, variable, axes, scale) for file in files]
    tables = _tables(trials, parts, files, stimulus)
    unit = units or ("psc" if np.isclose(scale, NSD_SCALE) else "beta")
    labelled = [
        with_labels(table, _session_labels(file, subject, session, n if many else None))
        for n, (table, file) in enumerate(zip(tables, files, strict=True))
    ]
    return join_trials(parts, labelled, unit, {"read": {"scale": float(scale)}})


def _session_labels(
    file: Any, subject: str | None, session: str | None, number: int | None
) -> dict[str, str]:
    """Number the sessions where neither the file's name nor the user names them."""
    if session is None and number is not None and "ses" not in entities(file):
        session = f"ses-{number + 1:02d}"
    return labels_of(file, subject, session, None)


def _is_hemispheres(paths: Sequence[Any]) -> bool:
    marks = {entities(p).get("hemi") or Path(str(p)).name[:2] for p in paths}
    return len(paths) == 2 and all(map(is_surface, paths)) and len(marks) == 2


def _read_part(
    path: Any, mask: Any, labels: Any, variable: str | None, axes: str | None, scale: float
) -> xr.Dataset:
    if is_array(path):
        values, ijk, grid = _from_array(path, mask, labels, variable, axes)
    else:
        values, ijk, grid, _ = read_signal(path, mask, labels)
    if scale != 1:
        values = values * np.float32(scale)
    values, ijk, excluded = usable(values, ijk, name_of(path))
    attrs = {**grid_attrs(ijk, grid), "excluded": excluded}
    return xr.Dataset({"signal": (("trial", "voxel"), values)}, place_coords(ijk, grid), attrs)


def _from_array(
    path: Any, mask: Any, labels: Any, variable: str | None, axes: str | None
) -> tuple[Floats, NDArray[np.int64], Grid]:
    array = read_array(path, variable)
    order = axes or _default_axes(array, Path(path))
    if sorted(order) not in (sorted("tv"), sorted("tijk")) or len(order) != array.ndim:
        raise DataError(
            f"{path}: has the shape {array.shape}, which the axes '{order}' don't fit; expected "
            "(trial, voxel), or four axes; say their order with axes, for example 'vt' or 'ijkt'"
        )
    if array.ndim == 4:
        return _from_grid(array.transpose([order.index(a) for a in "tijk"]), path, mask, labels)
    table = array.transpose([order.index(a) for a in "tv"])
    ijk = np.zeros((table.shape[1], 3), np.int64)
    ijk[:, 0] = np.arange(table.shape[1])
    keep = _flat_mask(mask, labels, table.shape[1], path)
    grid = {"affine": None, "shape": [table.shape[1], 1, 1], "notes": []}
    return np.array(table[:, keep], np.float32, order="C"), ijk[keep], grid


def _default_axes(array: NDArray[Any], path: Path) -> str:
    if array.ndim != 4:
        return "tv"
    return "tkji" if path.suffix.lower().startswith(".h") else "ijkt"


def _flat_mask(mask: Any, labels: Any, n: int, path: Any) -> Any:
    if mask is None:
        return slice(None)
    values = np.asarray(mask)
    if values.ndim != 1 or len(values) != n:
        raise DataError(
            f"{path}: has {n} columns and no voxel grid; a mask for it is one value for each, "
            f"found {type(mask).__name__} of shape {values.shape}"
        )
    keep = np.isin(values, list(labels)) if labels is not None else values != 0
    if not keep.any():
        raise DataError(f"{path}: the mask keeps none of the {n} columns")
    return keep


def _from_grid(
    array: NDArray[Any], path: Any, mask: Any, labels: Any
) -> tuple[Floats, NDArray[np.int64], Grid]:
    shape, notes = array.shape[1:], []
    affine: NDArray[Any] | None = None
    if mask is None:
        notes = ["no mask: voxels that are not 0 in the first trial"]
        ijk = np.argwhere(np.nan_to_num(array[0]) != 0)
    else:
        chosen = read_mask(mask, labels=labels)
        if chosen.shape != shape:
            raise DataError(
                f"{path}: has the grid {shape}, the mask {chosen.shape}; an array has no affine, "
                "so the mask must be on its grid. Are the axes in another order (axes)?"
            )
        ijk, affine = chosen.ijk, chosen.affine
    if not len(ijk):
        raise DataError(f"{path}: the first trial is 0 everywhere; give a mask")
    grid = {"affine": affine, "shape": list(shape), "notes": notes}
    values = np.empty((len(array), len(ijk)), np.float32)
    for row, volume in zip(values, array, strict=True):
        row[:] = volume[tuple(ijk.T)]
    return values, ijk, grid


def _tables(
    trials: Any, parts: list[xr.Dataset], files: list[Any], stimulus: str | None
) -> list[pd.DataFrame]:
    counts = [part.sizes["trial"] for part in parts]
    if trials is None:
        found = [table_beside(file) for file in files]
        if any(path is None for path in found):
            names = [f"trial-{number:05d}" for number in range(sum(counts))]
            return _cut(pd.DataFrame({"stimulus": names}), counts)
        trials = found
    if not isinstance(trials, list | tuple):
        whole = trial_table(trials, sum(counts), stimulus=stimulus, name=_table_name(trials))
        return _cut(whole, counts)
    if len(trials) != len(files):
        raise DataError(f"{len(trials)} trial tables for {len(files)} files; give one for each")
    return [
        trial_table(table, n, stimulus=stimulus, name=_table_name(table))
        for table, n in zip(trials, counts, strict=True)
    ]


def _cut(table: pd.DataFrame, counts: list[int]) -> list[pd.DataFrame]:
    ends = np.cumsum([0, *counts])
    return [table.iloc[a:b] for a, b in pairwise(ends.tolist())]


def _table_name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the trial table"


def table_beside(file: Any) -> Path | None:
    """Return the trial table ``X_trials.tsv`` or ``.csv`` beside ``X_betas.nii.gz``, if any."""
    if not isinstance(file, str | Path):
        return None
    path = Path(file)
    stem = path.name.split(".")[0].removesuffix("_betas")
    for ending in ("tsv", "csv"):
        table = path.with_name(f"{stem}_trials.{ending}")
        if table.is_file():
            return table
    return None
