"""Labels of trials, from tables of any form; one value of each label for each participant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eeg.symbols import is_missing
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

_ID_COLUMNS = ("participant_id", "subject")


def read_labels(y: Any, X: Any, subject: NDArray[np.str_] | None, n: int) -> pd.DataFrame:
    """Lay labels out with one row per trial.

    Parameters
    ----------
    y : None, str, list of str, DataFrame, mapping, Dataset, array-like or path
        Names of coordinates of `X` (None: those that its attribute ``labels`` names); columns
        on trials; or a table of participants (a ``.tsv`` or ``.csv`` file, or a frame whose
        column or index is ``participant_id`` or ``subject``). A plain array is one label,
        ``label``.
    X : DataArray or other
        The trials.
    subject : ndarray of str, shape (trial,), optional
    n : int
        Number of trials.

    Returns
    -------
    DataFrame
        ``n`` rows; participants that the table doesn't know have missing labels.

    Raises
    ------
    InputError
        Where a label is not there or the lengths differ.
    DataError
        Where a table of participants knows none of the subjects, or contradicts itself.

    Warns
    -----
    UserWarning
        Listing the participants of the table without trials, and the reverse.
    """
    import pandas as pd

    if isinstance(y, str | Path) and Path(y).suffix.lower() in (".tsv", ".csv"):
        y = _read_file(Path(y))
    if y is None or isinstance(y, str) or _are_names(y):
        return _from_coordinates(y, X)
    if isinstance(y, xr.Dataset):
        names = y.attrs.get("labels") or [v for v in y.data_vars if y[v].dims == ("trial",)]
        y = {name: y[name].values for name in names}
    if isinstance(y, pd.DataFrame):
        key = _key(y)
        if key is not None:
            flat = y.reset_index() if key not in y else y
            if not _same_rows(flat[key], subject):
                return _join(flat, key, subject)
            y = flat.drop(columns=[key])
        y = {str(name): y[name].to_numpy() for name in y.columns}
    if not isinstance(y, Mapping):
        y = {str(getattr(y, "name", None) or "label"): np.asarray(y)}
    wrong = {name: np.shape(column) for name, column in y.items() if np.shape(column) != (n,)}
    if wrong:
        raise InputError(f"the labels have the shapes {wrong}, expected one value for each of {n}")
    return pd.DataFrame({str(k): np.asarray(v) for k, v in y.items()})


def refuse_contradictions(
    table: pd.DataFrame, subject: NDArray[np.str_], within: Sequence[str] = ()
) -> None:
    """Refuse two values of one label for one participant; both are named.

    Parameters
    ----------
    table : DataFrame
        A row per trial.
    subject : ndarray of str, shape (trial,)
    within : sequence of str
        Labels that may vary inside a participant (a condition).

    Raises
    ------
    DataError
    """
    for name in table.columns:
        if name in within:
            continue
        column = table[name].to_numpy()
        known = ~is_missing(column)
        pairs = list(dict.fromkeys(zip(subject[known], column[known].tolist(), strict=True)))
        first: dict[str, Any] = {}
        for who, value in pairs:
            if first.setdefault(who, value) != value:
                raise DataError(
                    f"the label '{name}' of the participant '{who}' is both {first[who]!r} and "
                    f"{value!r}; correct the table, or name the label in `within` where it "
                    "varies between trials"
                )


def _from_coordinates(y: str | Sequence[str] | None, X: Any) -> pd.DataFrame:
    import pandas as pd

    coords = X.coords if isinstance(X, xr.DataArray) else {}
    if y is None:
        y = [name for name in getattr(X, "attrs", {}).get("labels", ()) if name in coords]
        if not y:
            raise InputError(
                "there are no labels: give y (a table, or names of coordinates), or trials whose "
                "attribute 'labels' names their labels"
            )
    names = [y] if isinstance(y, str) else list(y)
    known = [str(k) for k, c in coords.items() if c.dims == ("trial",)]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(
            f"the trials have no label {', '.join(missing)}; their coordinates are "
            f"{', '.join(known) or 'none'}"
        )
    return pd.DataFrame({name: X[name].values for name in names})


def _are_names(y: Any) -> bool:
    """Tell names of coordinates from the values of one label: a list against an array."""
    return isinstance(y, list | tuple) and bool(y) and all(isinstance(name, str) for name in y)


def _read_file(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise InputError(f"labels: there is no file {path}")
    separator = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        table = pd.read_csv(path, sep=separator, na_values=["n/a"])
        text = pd.read_csv(path, sep=separator, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a table with a header row: {error}") from error
    key = _key(table)
    if key is None:
        raise DataError(
            f"{path}: expected a column participant_id, found {', '.join(map(str, table.columns))}"
        )
    table[key] = text[key]  # '01' stays '01'
    return table


def _key(table: pd.DataFrame) -> str | None:
    named = [*map(str, table.columns), str(table.index.name)]
    return next((name for name in _ID_COLUMNS if name in named), None)


def _same_rows(ids: pd.Series, subject: NDArray[np.str_] | None) -> bool:
    if subject is None or len(ids) != len(subject):
        return False
    return bool((_short(ids.to_numpy()) == _short(subject)).all())


def _join(table: pd.DataFrame, key: str, subject: NDArray[np.str_] | None) -> pd.DataFrame:
    """Give every trial the labels of its participant."""
    import pandas as pd

    if subject is None:
        raise DataError(
            "the labels are of participants, but the trials don't tell theirs; pass subject="
        )
    ids = _short(table[key].to_numpy())
    labels = table.drop(columns=[key]).reset_index(drop=True)
    refuse_contradictions(labels, ids)
    for name in labels.columns:
        labels[name] = labels[name].where(~is_missing(labels[name].to_numpy()))
    merged = labels.groupby(ids, sort=False).first()  # the first value that isn't missing
    there, known = _short(subject), set(merged.index)
    lonely, absent = sorted(set(there) - known), sorted(known - set(there))
    if len(lonely) == len(set(there)):
        raise DataError(
            f"none of the participants of the labels ({', '.join(sorted(known)[:5])} ...) is a "
            f"subject of the trials ({', '.join(lonely[:5])} ...); they must have the same names"
        )
    if lonely:
        warnings.warn(f"the labels do not know the subjects {', '.join(lonely)}", stacklevel=4)
    if absent:
        warnings.warn(
            f"the labels list participants without trials: {', '.join(absent)}", stacklevel=4
        )
    return pd.DataFrame(merged.reindex(there).reset_index(drop=True))


def _short(names: Any) -> NDArray[np.str_]:
    return np.array([str(name).strip().removeprefix("sub-") for name in names])
