"""Columns of whole-brain trials: runs, items, embeddings, folds; what is missing is said."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError
from neuro.validation import Fold, grouped_folds

__all__ = [
    "block_values", "column_of", "embedding_rows", "embedding_table", "folds_of", "item_of",
    "labels_along", "mean_blocks",
]  # fmt: skip

Floats = NDArray[np.float32]


def column_of(data: xr.Dataset, name: str) -> NDArray[np.str_]:
    """Return a column of the trials as text; a run of two sessions or people is two runs.

    Raises
    ------
    DataError
        Where the trials have no such column.
    """
    if name not in data.coords or data[name].dims != ("trial",):
        own = [str(k) for k, c in data.coords.items() if c.dims == ("trial",)]
        raise DataError(f"the trials have no '{name}', only {', '.join(own)}")
    values = data[name].values.astype(str)
    if name == "run":
        for outer in ("session", "subject"):  # run-1 of two sessions are two runs
            if outer in data.coords and data[outer].dims == ("trial",):
                values = np.char.add(np.char.add(data[outer].values.astype(str), "/"), values)
    return np.asarray(values)


def item_of(data: xr.Dataset) -> str:
    """Return the column that says what was shown: item, or stimulus."""
    return next(
        (k for k in ("item", "stimulus") if k in data.coords and data[k].dims == ("trial",)), "item"
    )


def labels_along(data: xr.Dataset, dim: str) -> NDArray[np.str_]:
    """Return the names along a dimension: of the coordinate of its name, or the only other one."""
    own = {str(k): c for k, c in data.coords.items() if c.dims == (dim,)}
    found = own.get(dim, next(iter(own.values()), None))
    return np.asarray(np.arange(data.sizes[dim]) if found is None else found.values).astype(str)


def embedding_table(data: xr.Dataset, name: str = "target") -> tuple[Floats, NDArray[np.str_]]:
    """Return the embeddings of the items, and their names.

    Raises
    ------
    DataError
        Where the data hold none by item.
    """
    if name not in data or data[name].ndim != 2:
        raise DataError(f"the data hold no '{name}' (item, feature): an embedding of each item")
    target = data[name]
    return target.values.astype(np.float32), labels_along(data, str(target.dims[0]))


def embedding_rows(data: xr.Dataset, items: NDArray[np.str_], name: str = "target") -> Floats:
    """Return the embedding of each item.

    Raises
    ------
    DataError
        Where one has none.
    """
    table, known = embedding_table(data, name)
    at = {one: n for n, one in enumerate(known.tolist())}
    missing = sorted(set(items.tolist()) - set(at))
    if missing:
        raise DataError(f"{len(missing)} items have no embedding, the first is '{missing[0]}'")
    return np.asarray(table[[at[one] for one in items.tolist()]])


def folds_of(data: xr.Dataset, units: NDArray[np.str_]) -> list[Fold]:
    """Take the split that the data bring (part), else leave out one unit, or a fifth of many."""
    if "part" in data.coords and data["part"].dims == ("trial",):
        part = data["part"].values.astype(str)
        test = part == "test"
        if test.any() and not test.all():
            return [(np.flatnonzero(part == "train"), np.flatnonzero(test))]
    n = len(np.unique(units))
    return grouped_folds(units, n_splits=None if n <= 12 else 5)


def block_values(data: xr.Dataset) -> Floats:
    """Return ``(trial, parcel, time)``."""
    return np.asarray(data["signal"].transpose("trial", "parcel", "time").values, np.float32)


def mean_blocks(data: xr.Dataset) -> Floats:
    """Average blocks over the times that were recorded, shape (trial, parcel, 1)."""
    values = block_values(data)
    if "mask" not in data:
        return values.mean(2, keepdims=True)
    mask = data["mask"].transpose("trial", "time").values.astype(np.float32)[:, None]
    counts = np.maximum(mask.sum(2, keepdims=True), 1)
    return np.asarray((values * mask).sum(2, keepdims=True) / counts, np.float32)
