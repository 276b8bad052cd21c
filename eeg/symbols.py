"""Clinical labels as symbols: k-hot vectors with one symbol for each value of each label.

A label with few values (text, or numbers) has a symbol per value: ``depressed=yes``,
``depressed=no``. A continuous label (numbers with more distinct values than bins) is cut into
bins at quantiles of the training participants, each participant counted once: ``age=below 31``,
``age=31 to 48``, ``age=48 or more``. A missing label has no symbol and is masked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bins = int | Sequence[float]

MISSING = -1
_NO_VALUE = {"", "n/a", "nan", "none", "<na>"}


@dataclass(frozen=True)
class Group:
    """The symbols of one label.

    Attributes
    ----------
    label : str
    values : tuple of str
        One symbol each.
    edges : tuple of float
        Inner edges of the bins; a value on an edge belongs to the bin above. Empty: no bins.

    Examples
    --------
    >>> Group("age", ("below 30", "30 or more"), (30.0,)).codes([25, 30, float("nan")]).tolist()
    [0, 1, -1]
    """

    label: str
    values: tuple[str, ...]
    edges: tuple[float, ...] = ()

    def codes(self, column: ArrayLike) -> Ints:
        """Number the values of a column; `MISSING` where there is none.

        Raises
        ------
        InputError
            Where a value has no symbol; those there are, are named.
        """
        column = np.asarray(column)
        absent = is_missing(column)
        if self.edges:
            numbers = _numbers(np.where(absent, "nan", column.astype(str)), self.label)
            return np.where(absent, MISSING, np.searchsorted(self.edges, numbers, side="right"))
        place = {value: code for code, value in enumerate(self.values)}
        texts = ["" if gone else _text(v) for v, gone in zip(column, absent, strict=True)]
        unknown = sorted({t for t in texts if t and t not in place})
        if unknown:
            raise InputError(
                f"the label '{self.label}' has no value {', '.join(map(repr, unknown))}; its "
                f"symbols are {', '.join(map(repr, self.values))}"
            )
        return np.array([place.get(t, MISSING) for t in texts], dtype=np.int64)


class Symbols:
    """All symbols, in a fixed order, and the coding of labels by them.

    Parameters
    ----------
    groups : sequence of Group

    Attributes
    ----------
    labels : list of str
    names : list of str
        ``label=value`` of every symbol.
    slices : dict of str to slice
        Where a label's symbols stand.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"depressed": ["yes", "no", ""], "age": [20.0, 35.0, 60.0]})
    >>> symbols = Symbols.learn(table, bins=2)
    >>> symbols.names
    ['depressed=no', 'depressed=yes', 'age=below 35', 'age=35 or more']
    >>> vectors, mask = symbols.k_hot(symbols.codes(table))
    >>> vectors[0].tolist(), mask[2].tolist()
    ([0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self.labels = [group.label for group in self.groups]
        self.names = [f"{g.label}={value}" for g in self.groups for value in g.values]
        ends = np.cumsum([0, *(len(group.values) for group in self.groups)])
        self.slices = {
            name: slice(int(a), int(b))
            for name, (a, b) in zip(self.labels, pairwise(ends), strict=True)
        }
        self._starts: Ints = ends[:-1].astype(np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def learn(
        cls, table: pd.DataFrame | Mapping[str, ArrayLike], bins: Bins | Mapping[str, Bins] = 3
    ) -> Symbols:
        """Learn the values, and the edges of bins, from the training participants.

        Parameters
        ----------
        table : DataFrame or mapping of str to array-like
            A column per label, a row per participant.
        bins : int or mapping of str to int or sequence of float
            Bins of a continuous label; by label also their inner edges.

        Raises
        ------
        DataError
            Where a label has no value at all, or the same one for all.
        """
        names = [str(name) for name in table]
        if not names:
            raise InputError("there is no label to make symbols of")
        per_label = bins if isinstance(bins, Mapping) else {}
        unknown = sorted(set(per_label) - set(names))
        if unknown:
            raise InputError(
                f"bins are given for {', '.join(unknown)}, which is no label; the labels are "
                f"{', '.join(names)}"
            )
        default = bins if isinstance(bins, int) else 3
        return cls(
            [
                _learn_group(name, np.asarray(table[name]), per_label.get(name), default)
                for name in names
            ]
        )

    def codes(self, table: pd.DataFrame) -> Ints:
        """Number the values of every label: ``(row, label)``, `MISSING` where there is none."""
        absent = [name for name in self.labels if name not in table]
        if absent:
            raise InputError(
                f"the labels {', '.join(absent)} are not in the table, which has "
                f"{', '.join(map(str, table.columns))}"
            )
        return np.stack([g.codes(table[g.label].to_numpy()) for g in self.groups], axis=1)

    def ask(self, labels: Mapping[str, Any]) -> Ints:
        """Number what a user asks for: ``{"depressed": "yes", "age": 35}``, shape (label,).

        Raises
        ------
        InputError
            Where a label or a value was never seen; those there are, are named.
        """
        codes = np.full(len(self.groups), MISSING, dtype=np.int64)
        for name, value in labels.items():
            if name not in self.labels:
                close = difflib.get_close_matches(str(name), self.labels, 1)
                hint = f" (did you mean '{close[0]}'?)" if close else ""
                raise InputError(
                    f"there is no label '{name}'{hint}; the labels are {', '.join(self.labels)}"
                )
            codes[self.labels.index(name)] = self._ask_one(name, value)
        return codes

    def _ask_one(self, name: str, value: Any) -> int:
        group = self.groups[self.labels.index(name)]
        if isinstance(value, str) and value in group.values:
            return group.values.index(value)
        if group.edges and isinstance(value, str) and not _is_number(value):
            raise InputError(
                f"the label '{name}' has no value '{value}'; its symbols are "
                f"{', '.join(map(repr, group.values))}, or give a number"
            )
        code = int(group.codes(np.array([value]))[0])
        if code == MISSING:
            raise InputError(
                f"the label '{name}' has no value {value!r}; its symbols are "
                f"{', '.join(map(repr, group.values))}"
            )
        return code

    def k_hot(self, codes: Ints) -> tuple[Floats, Floats]:
        """Turn codes into k-hot vectors and masks, both (row, symbol); unknown labels are 0."""
        known = codes != MISSING
        vectors = np.zeros((len(codes), len(self)), dtype=np.float32)
        rows, columns = np.nonzero(known)
        vectors[rows, self._starts[columns] + codes[rows, columns]] = 1
        sizes = [len(group.values) for group in self.groups]
        return vectors, np.repeat(known, sizes, axis=1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {g.label: {"values": list(g.values), "edges": list(g.edges)} for g in self.groups}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Symbols:
        """Rebuild from `to_dict`."""
        return cls(
            [Group(name, tuple(g["values"]), tuple(g["edges"])) for name, g in stored.items()]
        )


def is_missing(column: ArrayLike) -> NDArray[np.bool_]:
    """Mark missing values: NaN, None, and the texts "", "n/a", "nan" and "none".

    Examples
    --------
    >>> is_missing(["yes", "", "n/a"]).tolist(), is_missing([1.0, float("nan")]).tolist()
    ([False, True, True], [False, True])
    """
    column = np.asarray(column)
    if column.dtype.kind in "iub":
        return np.zeros(column.shape, dtype=bool)
    if column.dtype.kind == "f":
        return np.isnan(column)
    return np.array([str(value).strip().lower() in _NO_VALUE for value in column], dtype=bool)


def _learn_group(label: str, column: NDArray[Any], bins: Bins | None, default: int) -> Group:
    present = column[~is_missing(column)]
    if not len(present):
        raise DataError(
            f"the label '{label}' is missing for every participant; leave it out, or check the "
            "names of the participants"
        )
    if bins is not None or _is_continuous(present, default):
        numbers = _numbers(present, label)
        edges = _edges(label, numbers, default if bins is None else bins)
        group = Group(label, _bin_names(edges), edges)
        empty = set(range(len(group.values))) - set(group.codes(numbers).tolist())
        if empty:
            names = ", ".join(repr(group.values[i]) for i in sorted(empty))
            raise DataError(f"no participant is in the bin {names} of '{label}'; choose other bins")
        return group
    values = list(dict.fromkeys(_text(v) for v in np.sort(present)))
    if len(values) < 2:
        raise DataError(
            f"the label '{label}' is '{values[0]}' for all of {len(present)} participants that "
            "have it; there is nothing to tell apart, leave it out"
        )
    return Group(label, tuple(values))


def _is_continuous(present: NDArray[Any], bins: int) -> bool:
    return present.dtype.kind in "fiu" and len(np.unique(present)) > max(bins, 2)


def _edges(label: str, numbers: NDArray[np.float64], bins: Bins) -> tuple[float, ...]:
    if isinstance(bins, int | np.integer):
        if bins < 2:
            raise InputError(f"bins of '{label}' are {bins}; expected at least 2")
        edges = np.quantile(numbers, np.arange(1, bins) / bins)
    else:
        edges = np.asarray(bins, dtype=float)
    # An edge at the minimum would leave the bin below it empty.
    edges = np.unique(edges[edges > numbers.min()]) if isinstance(bins, int) else edges
    if not len(edges) or (np.diff(edges) <= 0).any():
        raise InputError(
            f"the bins of '{label}' have the edges {np.asarray(bins).tolist()}, expected rising "
            f"numbers inside {numbers.min():g} to {numbers.max():g}"
        )
    return tuple(float(edge) for edge in edges)


def _bin_names(edges: Sequence[float]) -> tuple[str, ...]:
    between = [f"{a:g} to {b:g}" for a, b in pairwise(edges)]
    return (f"below {edges[0]:g}", *between, f"{edges[-1]:g} or more")


def _text(value: Any) -> str:
    """Write a value as its symbol says it: 1.0 and 1 are one value."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | float | np.number):
        return f"{value:g}"
    return str(value).strip()


def _numbers(column: NDArray[Any], label: str) -> NDArray[np.float64]:
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the label '{label}' is cut into bins, expected numbers: {error}"
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
