"""Items of a dataset (recordings, or trials): addressed by name, digested by content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import InputError

_HELD_BYTES = 1 << 30
_NOT_CONTENT = ("path",)  # where a file lies says nothing about what is in it


def item_digests(data: xr.Dataset) -> list[tuple[str, str]]:
    """Name every item and digest what a stage would see of it.

    Parameters
    ----------
    data : Dataset
        ``attrs["item"]`` names the coordinate that splits it; without, every trial is an item.

    Returns
    -------
    list of (str, str)
        Item and digest, in the order of first appearance. The digest covers all values of the
        item's trials, what all trials share, and the attributes; it leaves out the coordinate
        ``path``, and other items.

    Examples
    --------
    >>> import xarray as xr
    >>> data = xr.Dataset({"signal": ("trial", [1.0, 2.0, 3.0])}, attrs={"item": "recording"})
    >>> data = data.assign_coords(recording=("trial", ["a", "b", "a"]))
    >>> [name for name, digest in item_digests(data)]
    ['a', 'b']
    """
    own, shared = {}, hashlib.sha256()
    for name in sorted(map(str, data.variables)):
        variable = data.variables[name]
        if name in _NOT_CONTENT:
            continue
        if "trial" in variable.dims:
            # Read once what fits; larger signals stay on disk until their item is digested.
            held = variable.nbytes <= _HELD_BYTES
            own[name] = xr.Variable(variable.dims, variable.values) if held else variable
        else:
            _feed(shared, name, variable)
    return [
        (item, _digest(data, item, rows, own, shared.copy())) for item, rows in _rows(data).items()
    ]


def select_item(data: xr.Dataset, item: str) -> xr.Dataset:
    """Return the trials of one item, and of ``quality`` only its own rows.

    Parameters
    ----------
    data : Dataset
    item : str
        As named by `item_digests`.

    Raises
    ------
    InputError
        Where there is no such item.

    Examples
    --------
    >>> import xarray as xr
    >>> data = xr.Dataset({"signal": ("trial", [1.0, 2.0])}, attrs={"item": "recording"})
    >>> data = data.assign_coords(recording=("trial", ["a", "b"]))
    >>> select_item(data, "b").signal.values.tolist()
    [2.0]
    """
    rows = _rows(data)
    if item not in rows:
        raise InputError(f"no item '{item}' in the dataset; found {list(rows)[:20]}")
    part = data.isel(trial=rows[item])
    part.attrs = _item_attrs(data, item)
    return part


def trial_hashes(X: NDArray[Any]) -> list[str]:
    """Hash the content of every row.

    Parameters
    ----------
    X : ndarray, shape (trial, ...)

    Returns
    -------
    list of str
        16 hexadecimal digits each.

    Examples
    --------
    >>> import numpy as np
    >>> a, b, c = trial_hashes(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]], dtype="float32"))
    >>> a == c, a == b
    (True, False)
    """
    X = np.ascontiguousarray(X)
    return [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in X]


def _rows(data: xr.Dataset) -> dict[str, NDArray[np.intp]]:
    """Trial numbers of every item, items in order of first appearance."""
    name = data.attrs.get("item")
    if name is not None and name not in data.coords:
        raise InputError(
            f"the dataset's items are '{name}', but its coordinates are "
            f"{sorted(map(str, data.coords))}"
        )
    n_trials = data.sizes.get("trial", 0)
    if name is None:
        column = data["trial"].values if "trial" in data.coords else np.arange(n_trials)
    else:
        column = np.asarray(data[name].values)
    values, first, inverse = np.unique(column.astype(str), return_index=True, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    return {str(values[i]): members[i] for i in np.argsort(first)} if n_trials else {}


def _item_attrs(data: xr.Dataset, item: str) -> dict[str, Any]:
    attrs = dict(data.attrs)
    if "quality" in attrs:
        rows = json.loads(attrs["quality"])
        kept = [row for row in rows if str(row.get("recording", item)) == item]
        attrs["quality"] = json.dumps(kept)
    return attrs


def _digest(
    data: xr.Dataset,
    item: str,
    rows: NDArray[np.intp],
    own: dict[str, xr.Variable],
    digest: Any,
) -> str:
    for name, variable in own.items():
        _feed(digest, name, variable.isel(trial=rows))
    attrs = _item_attrs(data, item)
    digest.update(json.dumps(attrs, sort_keys=True, default=_listed).encode())
    return str(digest.hexdigest())


def _feed(digest: Any, name: str, variable: xr.Variable) -> None:
    values = np.asarray(variable.values)
    if values.dtype.kind in "OUT":
        # The width of a text column depends on the other items, so it must not count.
        content = json.dumps(values.astype(str).tolist()).encode()
        kind = "text"
    else:
        values = np.ascontiguousarray(_canonical(values))
        content, kind = values.tobytes(), values.dtype.str
    digest.update(json.dumps([name, list(variable.dims), list(values.shape), kind]).encode())
    digest.update(content)


def _canonical(values: NDArray[Any]) -> NDArray[Any]:
    """Integers as float64 where that is exact: one missing value elsewhere turns a column float."""
    if values.ndim == 1 and values.dtype.kind in "iu" and np.all(np.abs(values) < 2.0**53):
        return values.astype(np.float64)
    return values


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
