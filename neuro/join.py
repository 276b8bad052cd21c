"""Joining datasets along ``trial``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError


def concat(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join datasets along ``trial``.

    Channels are put in the first dataset's order. A label that one of them lacks is missing there
    (``""`` or NaN). The ``quality`` lists are joined.

    Parameters
    ----------
    datasets : sequence of Dataset

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        Where channels, times, rate, units or preprocessing differ; both sides are named.

    Examples
    --------
    >>> import xarray as xr
    >>> parts = [xr.Dataset({"signal": ("trial", x)}) for x in ([1.0, 2.0], [3.0])]
    >>> concat(parts).signal.values.tolist()
    [1.0, 2.0, 3.0]
    """
    if not datasets:
        raise DataError("there is no dataset to join")
    first = plain_text(datasets[0])
    aligned = [first] + [_aligned(first, plain_text(other)) for other in datasets[1:]]
    aligned = _same_columns(aligned)
    joined = xr.concat(
        aligned,
        dim="trial",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    joined.attrs = _joined_attrs(datasets)
    return joined


def _name(data: xr.Dataset) -> str:
    """Name a dataset in an error by its recordings or subjects."""
    for coord in ("recording", "subject"):
        if coord in data.coords and data[coord].size:
            names = list(dict.fromkeys(np.atleast_1d(data[coord].values).astype(str).tolist()))
            return f"{coord} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
    return f"a dataset of {data.sizes.get('trial', 0)} trials"


def _aligned(first: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return `other` in the channel order of `first`, or say how they differ."""
    both = f"{_name(first)} and {_name(other)} can't be joined"
    for name in ("kind", "units", "sfreq", "preprocessing"):
        left, right = first.attrs.get(name), other.attrs.get(name)
        if left != right:
            raise DataError(f"{both}: '{name}' is {_short(left)} against {_short(right)}")
    for dim in first.dims:
        if dim == "trial" or dim not in first.coords:
            continue
        if dim not in other.coords:
            raise DataError(f"{both}: the second has no '{dim}'")
        left, right = first[dim].values, other[dim].values
        if left.dtype.kind == "U":
            other = _in_order(left, right, other, str(dim), both)
        elif left.shape != right.shape or not np.allclose(left, right, rtol=0, atol=1e-6):
            raise DataError(f"{both}: '{dim}' is {_span(left)} against {_span(right)}")
    return other


def _in_order(
    left: NDArray[Any], right: NDArray[Any], other: xr.Dataset, dim: str, both: str
) -> xr.Dataset:
    only_left, only_right = sorted(set(left) - set(right)), sorted(set(right) - set(left))
    if only_left or only_right or len(left) != len(right):
        raise DataError(
            f"{both}: {dim}s only in the first: {list(map(str, only_left))}, only in the second: "
            f"{list(map(str, only_right))} ({len(left)} against {len(right)} {dim}s); pick the "
            "same ones in both"
        )
    return other if np.array_equal(left, right) else other.sel({dim: left})


def _span(values: NDArray[Any]) -> str:
    return f"{values[0]:g} to {values[-1]:g} ({len(values)})" if len(values) else "empty"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + " ..."


def _same_columns(datasets: list[xr.Dataset]) -> list[xr.Dataset]:
    """Give every dataset the same trial coordinates; a missing label is ``""`` or NaN."""
    columns: dict[Any, Any] = {}
    for data in datasets:
        for name, coord in data.coords.items():
            if coord.dims == ("trial",):
                columns.setdefault(name, coord.dtype.kind)
    filled = []
    for data in datasets:
        n = data.sizes.get("trial", 0)
        missing = {
            name: ("trial", np.full(n, "") if kind == "U" else np.full(n, np.nan))
            for name, kind in columns.items()
            if name not in data.coords
        }
        filled.append(data.assign_coords(missing))
    return filled


def _joined_attrs(datasets: Sequence[xr.Dataset]) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for data in datasets:
        attrs = {**data.attrs, **attrs}
    labels = [label for data in datasets for label in data.attrs.get("labels", [])]
    if labels:
        attrs["labels"] = list(dict.fromkeys(labels))
    if "quality" in attrs:
        rows = [json.loads(data.attrs.get("quality", "[]")) for data in datasets]
        attrs["quality"] = json.dumps([row for part in rows for row in part])
    return attrs


def plain_text(data: xr.Dataset) -> xr.Dataset:
    """Return the dataset with text of Python objects as fixed-length text (None is ``""``)."""
    changed = {
        name: (variable.dims, _text(variable.values, str(name)), variable.attrs)
        for name, variable in data.variables.items()
        if variable.dtype.kind in "OT"
    }
    return data.assign({k: v for k, v in changed.items() if k in data.data_vars}).assign_coords(
        {k: v for k, v in changed.items() if k in data.coords}
    )


def _text(values: NDArray[Any], name: str) -> NDArray[np.str_]:
    flat = ["" if v is None or v != v else v for v in values.ravel().tolist()]
    for value in flat:
        if not isinstance(value, str):
            raise DataError(
                f"'{name}' holds {type(value).__name__} ({value!r}) among Python objects; "
                "expected text or a numeric array"
            )
    return np.asarray(flat, dtype=str).reshape(values.shape)
