"""What whole-brain blocks are aligned with: embeddings of pictures and texts, or categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.mindeye import fingerprint_of
from neuro.errors import DataError, InputError

__all__ = ["Aim", "item_column", "match_aim", "targets_in", "text_size"]

Floats = NDArray[np.float32]
ITEM = ("item", "stimulus")


@dataclass(frozen=True)
class Aim:
    """Targets of a fit, one row for every item that the trials show.

    Attributes
    ----------
    names : ndarray of str, shape (item,)
    rows : ndarray of int, shape (trial,)
    image : ndarray of float32, shape (item, token, feature)
    text : ndarray of float32, shape (item, feature), or None
    words : list of str or None
        The texts themselves, for soft prompts.
    facts : dict
        ``fingerprint``, ``shape``, ``scale``, ``random_weights``, ``kind`` of the images' targets.
    """

    names: NDArray[np.str_]
    rows: NDArray[np.int64]
    image: Floats
    text: Floats | None
    words: list[str] | None
    facts: dict[str, Any]


def item_column(X: xr.DataArray) -> NDArray[np.str_] | None:
    """Return what each trial shows: the coordinate item or stimulus; None where there is none."""
    for name in ITEM:
        if name in X.coords and X[name].dims == ("trial",):
            return np.asarray(X[name].values).astype(str)
    return None


def match_aim(X: xr.DataArray, y: Any, text: Any = None) -> Aim:
    """Find the targets of every trial.

    Parameters
    ----------
    X : DataArray (trial, parcel, time)
        With ``item`` or ``stimulus`` on trial where targets are by item.
    y : Dataset, DataArray or array_like
        Embeddings by item, ``(item, feature)`` or tokens ``(trial, token, feature)`` with their
        names as coordinate; an array ``(trial, feature)``, a row for each trial; or the category
        of each trial, ``(trial,)`` of text.
    text : DataArray, mapping or array_like, optional
        Embeddings of texts, ``(item, feature)`` with names, or an array in the order of `y`; or
        the texts themselves, by item.

    Raises
    ------
    DataError
        Where an item has no target or no text, or targets hold NaN.
    """
    items = item_column(X)
    if _is_text(y):
        names, rows = np.unique(np.asarray(y).astype(str), return_inverse=True)
        if len(rows) != X.sizes["trial"] or len(names) < 2:
            raise DataError(
                f"{len(rows)} categories are given for {X.sizes['trial']} trials, {len(names)} "
                "different ones; expected one for each trial, and at least two"
            )
        # The corners of a simplex: all categories are equally far from one another.
        code = np.eye(len(names), dtype=np.float32) - 1 / len(names)
        return _aim(names, rows, code[:, None], text, {"kind": "categories"})
    if isinstance(y, xr.Dataset | xr.DataArray):
        known, values, facts = _labelled(y)
    else:
        known, values = _by_trial(y, X, items)
        items = known if items is None else items
        known, first = np.unique(items, return_index=True)
        values, facts = values[first], {}
    if items is None:
        raise DataError("the trials have no 'item' or 'stimulus', by which they find their target")
    at = {name: n for n, name in enumerate(known.tolist())}
    names, rows = np.unique(items, return_inverse=True)
    missing = [name for name in names.tolist() if name not in at]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} items have no target: {', '.join(missing[:8])}; there "
            f"are targets for {', '.join(list(at)[:4])}, ... ({len(at)})"
        )
    order = np.array([at[name] for name in names.tolist()])
    if isinstance(text, np.ndarray) and text.ndim == 2:
        if len(text) != len(at):
            raise DataError(f"there are {len(text)} texts for {len(at)} targets; give one for each")
        text = text[order]
    return _aim(names, rows, values[order], text, {"kind": "embeddings", **facts})


def targets_in(X: Any, y: Any, text: Any) -> tuple[Any, Any]:
    """Take the targets that a dataset brings along, where none are given."""
    if isinstance(X, xr.Dataset):
        y = X["target"] if y is None and "target" in X else y
        text = X["text_target"] if text is None and "text_target" in X else text
    if y is None:
        raise InputError("fit needs targets: y, or a 'target' (item, feature) in the dataset")
    return y, text


def text_size(aim: Aim, prompts: Any) -> int | None:
    """Return the size of the texts' embeddings; None without texts."""
    if aim.text is not None:
        return int(aim.text.shape[1])
    if aim.words is None:
        return None
    if prompts is None:
        raise InputError("texts need a tower that embeds them: prompts=, or give their embeddings")
    return int(prompts.n_features)


# Inside ---------------------------------------------------------------------------------------


def _is_text(y: Any) -> bool:
    if isinstance(y, xr.Dataset):
        return False
    found = np.asarray(y)
    return found.ndim == 1 and found.dtype.kind in "UOT"


def _labelled(y: xr.Dataset | xr.DataArray) -> tuple[NDArray[np.str_], Floats, dict[str, Any]]:
    """Return names, tokens and facts of targets that carry their names."""
    if isinstance(y, xr.Dataset):
        name = next((n for n in ("signal", "target") if n in y), None)
        if name is None:
            raise DataError(f"the targets have no 'signal' or 'target', only {list(y.data_vars)}")
        signal = y[name]
    else:
        signal = y
    values = np.asarray(signal.values, np.float32)
    if values.ndim not in (2, 3):
        raise DataError(f"the targets are {signal.dims}; expected (item, feature) or tokens of it")
    names = names_along(signal, str(signal.dims[0]))
    if len(set(names.tolist())) < len(names):
        raise DataError("the targets name an item twice; keep one row of each")
    facts = {
        "fingerprint": fingerprint_of(y) if isinstance(y, xr.Dataset) else None,
        "scale": float(y.attrs.get("scale", 1.0)),
        "random_weights": bool(y.attrs.get("random_weights", 0)),
    }
    return names, values if values.ndim == 3 else values[:, None], facts


def names_along(data: xr.DataArray, dim: str) -> NDArray[np.str_]:
    """Return names along a dimension: of item, stimulus or its own coordinate, else numbers."""
    own = {str(k): c for k, c in data.coords.items() if c.dims == (dim,)}
    for name in (*ITEM, "prompt", dim, *own):
        if name in own:
            return np.asarray(own[name].values).astype(str)
    return np.arange(data.sizes[dim]).astype(str)


def _by_trial(
    y: Any, X: xr.DataArray, items: NDArray[np.str_] | None
) -> tuple[NDArray[np.str_], Floats]:
    values = np.asarray(y, np.float32)
    if values.ndim not in (2, 3) or len(values) != X.sizes["trial"]:
        raise DataError(
            f"y has the shape {values.shape} for {X.sizes['trial']} trials; expected (trial, "
            "feature), or embeddings by item as a DataArray with their names"
        )
    values = values if values.ndim == 3 else values[:, None]
    if items is None:
        return np.arange(len(values)).astype(str), values
    _, first, inverse = np.unique(items, return_index=True, return_inverse=True)
    if not np.array_equal(values, values[first][inverse]):
        raise DataError("trials of one item have different targets in y; give one for each item")
    return items, values


def _aim(names: ArrayLike, rows: ArrayLike, image: Floats, text: Any, facts: dict[str, Any]) -> Aim:
    found = np.asarray(names).astype(str)
    if not np.isfinite(image).all():
        raise DataError("the targets hold NaN or infinity; encode them again")
    values, words = _texts(text, found)
    facts = {"fingerprint": None, "scale": 1.0, "random_weights": False, **facts}
    return Aim(
        found, np.asarray(rows, np.int64), np.ascontiguousarray(image, np.float32), values, words,
        {**facts, "shape": list(image.shape[1:])},
    )  # fmt: skip


def _texts(text: Any, names: NDArray[np.str_]) -> tuple[Floats | None, list[str] | None]:
    if text is None:
        return None, None
    if isinstance(text, Mapping) and not isinstance(text, xr.Dataset):
        _refuse_unmatched(names, list(text))
        return None, [str(text[name]) for name in names.tolist()]
    if isinstance(text, xr.Dataset | xr.DataArray):
        known, values, _ = _labelled(text)
        _refuse_unmatched(names, known.tolist())
        at = {name: n for n, name in enumerate(known.tolist())}
        found = values[[at[name] for name in names.tolist()]].reshape(len(names), -1)
    else:
        found = np.asarray(text, np.float32)
        if found.ndim != 2 or len(found) != len(names):
            raise InputError(
                f"text has the shape {np.shape(text)} for {len(names)} items; expected (item, "
                "feature), or texts by the name of their item"
            )
    if not np.isfinite(found).all():
        raise DataError("the embeddings of the texts hold NaN or infinity")
    return np.ascontiguousarray(found, np.float32), None


def _refuse_unmatched(names: NDArray[np.str_], known: list[str]) -> None:
    missing = sorted(set(names.tolist()) - set(known))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} items have no text: {', '.join(missing[:8])}; there "
            f"are texts for {', '.join(known[:4])}, ... ({len(known)})"
        )
