"""Single-trial responses with their table: one dataset for one subject."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.tables import COLUMNS, as_names, count_repeats
from fmri.voxels import common_voxels

__all__ = ["betas_dataset", "join_trials", "with_labels"]


def betas_dataset(
    signal: NDArray[Any],
    table: pd.DataFrame,
    *,
    coords: dict[str, Any],
    attrs: dict[str, Any],
    units: str,
    steps: Any,
) -> xr.Dataset:
    """Put betas and their table into a dataset.

    Parameters
    ----------
    signal : ndarray, shape (trial, voxel)
    table : DataFrame
        ``stimulus``, ``subject``, ``session``, ``run`` and what else is known of each trial.
    coords : dict
        On ``voxel``.
    attrs : dict
        ``affine``, ``shape``, ``mask_hash``.
    units : str
    steps : JSON-able
        How the betas were made.

    Returns
    -------
    Dataset
    """
    found: dict[str, Any] = dict(coords)
    for name in ("stimulus", *COLUMNS):
        if name in table:
            column = table[name]
            times = name in ("onset", "duration")
            found[name] = ("trial", column.to_numpy(float) if times else as_names(column))
    found["repeat"] = ("trial", count_repeats(table["stimulus"], table["subject"]))
    labels = [name for name in ("condition", "category") if name in table]
    meta = {
        "kind": "fmri", "units": units, **attrs, "labels": labels,
        "preprocessing": json.dumps(steps),
    }  # fmt: skip
    if "recording" in table:
        meta["item"] = "recording"
    values = np.ascontiguousarray(signal, dtype=np.float32)
    return xr.Dataset({"signal": (("trial", "voxel"), values)}, found, meta)


def with_labels(table: pd.DataFrame, given: dict[str, str]) -> pd.DataFrame:
    """Add the columns that a table lacks."""
    return table.assign(**{name: v for name, v in given.items() if name not in table})


def join_trials(
    parts: list[xr.Dataset], tables: list[pd.DataFrame], units: str, steps: dict[str, Any]
) -> xr.Dataset:
    """Join runs or sessions on the voxels that all of them have.

    Parameters
    ----------
    parts : list of Dataset
        ``signal (trial, voxel)`` with places, grid, ``excluded`` and ``notes``.
    tables : list of DataFrame
        Of their trials, with subject, session and run.
    units : str
    steps : dict
        How the responses were made.

    Returns
    -------
    Dataset
        ``excluded`` counts the voxels of the worst part; ``notes`` say what else was left out.
    """
    common = common_voxels(parts) if len(parts) > 1 else parts
    values = [part["signal"].values for part in common]
    first = common[0]
    lost = max(part.sizes["voxel"] for part in parts) - first.sizes["voxel"]
    notes = list(dict.fromkeys(note for part in parts for note in part.attrs["notes"]))
    if lost:
        notes.append(f"{lost} voxels that not all of the {len(parts)} files have were left out")
    worst = {k: max(p.attrs["excluded"][k] for p in parts) for k in ("nan", "constant")}
    attrs = {k: first.attrs[k] for k in ("affine", "shape", "mask_hash")}
    return betas_dataset(
        values[0] if len(values) == 1 else np.concatenate(values),
        pd.concat(tables, ignore_index=True),
        coords={str(n): c for n, c in first.coords.items() if c.dims == ("voxel",)},
        attrs={**attrs, "excluded": worst, "notes": notes},
        units=units,
        steps=steps,
    )
