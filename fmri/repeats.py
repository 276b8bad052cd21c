"""The repeats of a stimulus: outputs averaged at test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import InputError

__all__ = ["average_repeats"]


def average_repeats(
    Z: xr.DataArray, *, by: Sequence[str] = ("subject", "stimulus")
) -> xr.DataArray:
    """Average outputs over the repeats of a stimulus, as MindEye2 does at test.

    Parameters
    ----------
    Z : DataArray (trial, ...)
        What `transform` or `predict_tokens` gave; codes of retrieval are brought back to unit
        length.
    by : sequence of str
        Coordinates that repeats share; those that are missing are left out.

    Returns
    -------
    DataArray (trial, ...)
        One trial per stimulus (and subject), in the order in which they first come, with the
        coordinates that all its repeats share and ``n_repeats``.

    Examples
    --------
    >>> Z = xr.DataArray([[1.0], [3.0], [5.0]], dims=("trial", "feature"),
    ...                  coords={"stimulus": ("trial", ["a", "b", "a"])})
    >>> average_repeats(Z).values.tolist()
    [[3.0], [3.0]]
    """
    names = [name for name in by if name in Z.coords and Z[name].dims == ("trial",)]
    if "stimulus" not in names:
        raise InputError("the outputs have no coordinate 'stimulus', by which repeats are known")
    keys = ["\0".join(map(str, row)) for row in zip(*(Z[n].values for n in names), strict=True)]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    order = {key: number for number, key in enumerate(sorted(first, key=first.__getitem__))}
    group = np.array([order[key] for key in keys])
    count = np.bincount(group)
    total = np.zeros((len(order), *Z.shape[1:]), np.float64)
    np.add.at(total, group, Z.values)
    mean = (total / count.reshape(-1, *[1] * (Z.ndim - 1))).astype(Z.dtype)
    out = Z.isel(trial=sorted(first.values())).copy(data=_unit(mean, Z.attrs.get("space")))
    differing = [
        name for name, c in Z.coords.items()
        if c.dims == ("trial",) and (c.values != out[name].values[group]).any()
    ]  # fmt: skip
    return out.drop_vars(differing).assign_coords(n_repeats=("trial", count))


def _unit(values: NDArray[Any], space: str | None) -> NDArray[Any]:
    if space != "retrieval":
        return values
    length = np.sqrt(np.square(values).sum(tuple(range(1, values.ndim)), keepdims=True))
    return values / np.maximum(length, 1e-12)
