"""Tables of trials and events: CSV or TSV, with the names that BIDS and labs give columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError

__all__ = [
    "count_repeats",
    "entities",
    "read_events",
    "read_table",
    "stimulus_column",
    "trial_table",
]

STIMULUS = ("stimulus", "stimulus_id", "stim_file", "image", "image_id", "trial_type")
COLUMNS = ("subject", "session", "run", "recording", "condition", "category", "onset", "duration")
_ENTITY = re.compile(r"(?:^|[_/])(sub|ses|run|task|space|hemi|desc|acq|echo|res)-([A-Za-z0-9]+)")
_NSD_SESSION = re.compile(r"session(\d+)")


def entities(path: Any) -> dict[str, str]:
    """Return the BIDS entities of a path, those of the file name first.

    Examples
    --------
    >>> entities("ds/sub-01/ses-02/func/sub-01_ses-02_task-see_run-3_bold.nii.gz")
    {'sub': '01', 'ses': '02', 'task': 'see', 'run': '3'}
    >>> entities("betas_session07.nii.gz")
    {'ses': '07'}
    """
    if not isinstance(path, str | Path):
        return {}
    text = Path(path).as_posix()
    found: dict[str, str] = dict(_ENTITY.findall(text))
    session = _NSD_SESSION.search(Path(path).name)
    if "ses" not in found and session:
        found["ses"] = session[1]
    return found


def read_table(source: Any, name: str = "the table") -> pd.DataFrame:
    """Read a table: a DataFrame, ``.csv``, ``.tsv`` or ``.txt`` with a header.

    Raises
    ------
    DataError
        Where the file is missing, empty or no table.
    """
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{path}: there is no such table; check the path")
    try:
        separator = "," if path.suffix.lower() == ".csv" else "\t"
        # No text becomes a missing value: a condition may be called "NA" or "null".
        table = pd.read_csv(
            path, sep=separator, keep_default_na=False, na_values=["n/a", "nan", ""]
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as {name} ({error})") from error
    if not len(table):
        raise DataError(f"{path}: has no rows")
    return table


def stimulus_column(table: pd.DataFrame, wanted: str | None, name: str) -> str:
    """Return the column that says which stimulus was shown.

    Raises
    ------
    DataError
        Where there is none.
    """
    names = (wanted,) if wanted else STIMULUS
    for column in names:
        if column in table:
            return column
    raise DataError(
        f"{name}: has the columns {', '.join(map(str, table.columns))}; expected "
        f"{' or '.join(names)} to say which stimulus was shown"
    )


def read_events(source: Any, n_volumes: int, t_r: float, *, name: str = "") -> pd.DataFrame:
    """Read the events of a run and hold them against its length.

    Parameters
    ----------
    source : DataFrame or path
        ``onset`` and ``duration`` in s from the first volume, and what was shown.
    n_volumes : int
    t_r : float
        s.
    name : str
        For messages.

    Returns
    -------
    DataFrame
        In the order of onsets.

    Raises
    ------
    DataError
        Where a column is missing, a time is no number, or an event lies outside the run.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the events")
    table = read_table(source, "events").copy()
    missing = [column for column in ("onset", "duration") if column not in table]
    if missing:
        raise DataError(
            f"{name}: has no column {', '.join(missing)}, only "
            f"{', '.join(map(str, table.columns))}; expected BIDS events"
        )
    for column in ("onset", "duration"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    table["duration"] = table["duration"].fillna(0.0)
    bad = ~np.isfinite(table["onset"].to_numpy(float))
    if bad.any():
        raise DataError(f"{name}: row {int(np.argmax(bad)) + 1} has no onset")
    end = n_volumes * t_r
    outside = ((table["onset"] < 0) | (table["onset"] >= end)).to_numpy()
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"{name}: row {row + 1} begins at {table['onset'].iloc[row]:g} s, outside of the run "
            f"of {n_volumes} volumes x {t_r:g} s = {end:g} s; {int(outside.sum())} of "
            f"{len(table)} events do. Check onsets, t_r and whether run and table belong together"
        )
    return table.sort_values("onset", kind="stable").reset_index(drop=True)


def trial_table(
    source: Any, n: int, *, stimulus: str | None = None, name: str = "the trial table"
) -> pd.DataFrame:
    """Read a trial table and hold it against the number of trials.

    Raises
    ------
    DataError
        Where the number of rows differs, or no column says what was shown.
    """
    table = read_table(source, name).copy()
    if len(table) != n:
        raise DataError(
            f"{name}: has {len(table)} rows for {n} trials in the data; expected one row for each, "
            "in their order"
        )
    column = stimulus_column(table, stimulus, name)
    values = table[column]
    if values.isna().any():
        raise DataError(f"{name}: row {int(np.argmax(values.isna())) + 1} has no {column}")
    table["stimulus"] = as_names(values)
    return table


def as_names(values: Any) -> NDArray[np.str_]:
    """Return text; whole numbers without a decimal point.

    Examples
    --------
    >>> as_names(pd.Series([3.0, 4.0])).tolist(), as_names(["a"]).tolist()
    (['3', '4'], ['a'])
    """
    array = np.asarray(values)
    if array.dtype.kind == "f" and np.array_equal(array, np.floor(array)):
        array = array.astype(np.int64)
    return array.astype(str)


def count_repeats(stimulus: ArrayLike, subject: ArrayLike | None = None) -> NDArray[np.int64]:
    """Number the trials of each stimulus, from 0, for each subject.

    Examples
    --------
    >>> count_repeats(["a", "b", "a"]).tolist()
    [0, 0, 1]
    """
    names = pd.DataFrame({"stimulus": np.asarray(stimulus).astype(str)})
    names["subject"] = "" if subject is None else np.asarray(subject).astype(str)
    counted = names.groupby(["subject", "stimulus"], sort=False).cumcount()
    return np.asarray(counted, dtype=np.int64)
