"""Recordings as CSV tables (one row per sample) by a documented column map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eeg.steps import ColumnMap
from neuro.errors import DataError

if TYPE_CHECKING:
    import mne
    import pandas as pd

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
STIM = "Marker"
_TO_VOLT = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}


def is_csv(path: Path) -> bool:
    """Tell whether a file is read by its columns."""
    return path.name.lower().endswith(CSV_ENDINGS)


def read_csv(path: Path, columns: ColumnMap) -> mne.io.RawArray:
    """Read a table of samples as a recording.

    Parameters
    ----------
    path : Path
        ``.csv`` or ``.tsv``, gzipped or not, with a header row.
    columns : ColumnMap
        Which column is what, in which unit, at which rate.

    Returns
    -------
    mne.io.RawArray
        EEG channels in volts, and the marker column as the stimulus channel ``Marker``.

    Raises
    ------
    DataError
        Where a column is missing, the rate is not given or does not fit the timestamps, or the
        table is empty, cut short or not numeric.
    """
    import mne

    if columns.sfreq is None:
        raise DataError(
            f"{path}: a CSV recording does not tell its sampling rate; give it as csv.sfreq, "
            "for example csv: {sfreq: 256}"
        )
    table = _table(path, columns)
    names = _channels(path, table, columns)
    marker = next((name for name in columns.marker if name in table), None)
    _check_rate(path, table, columns)
    data = table[names].to_numpy(float).T * _TO_VOLT[columns.unit]
    types = ["eeg"] * len(names)
    if marker is not None:
        codes = np.nan_to_num(table[marker].to_numpy(float))
        data = np.vstack([data, codes])
        names, types = [*names, STIM], [*types, "stim"]
    info = mne.create_info(names, columns.sfreq, types)
    return mne.io.RawArray(data, info, verbose="error")


def _table(path: Path, columns: ColumnMap) -> pd.DataFrame:
    import pandas as pd

    tab = path.name.lower().endswith((".tsv", ".tsv.gz"))
    table = pd.read_csv(path, sep=columns.separator or ("\t" if tab else ","))
    if table.empty:
        raise DataError(f"{path}: the table has a header and no samples; export it again")
    doubled = [name for name in table.columns if str(name).endswith(".1")]
    if doubled and doubled[0][:-2] in table:
        raise DataError(f"{path}: the column '{doubled[0][:-2]}' stands there twice; rename one")
    if table.iloc[-1].isna().any() and not table.iloc[:-1].isna().any(axis=1).all():
        short = [str(name) for name in table.columns[table.iloc[-1].isna()]]
        if not table[short].iloc[-2:-1].isna().all(axis=None):
            raise DataError(
                f"{path}: the last row (sample {len(table)}) has no value for {', '.join(short)}: "
                "the file was cut short; export it again or delete its last line"
            )
    return table


def _channels(path: Path, table: pd.DataFrame, columns: ColumnMap) -> list[str]:
    """Return the channel columns, all numeric."""
    found = [str(name) for name in table.columns]
    other = {columns.time, *columns.ignore, *columns.marker}
    names = columns.channels or [name for name in found if name not in other]
    missing = [name for name in names if name not in found]
    if columns.time is not None and columns.time not in found:
        missing.append(columns.time)
    if missing or not names:
        raise DataError(
            f"{path}: expected the columns {', '.join(missing) or 'of at least one channel'}, "
            f"found {', '.join(found)}; say in 'csv' which column is what"
        )
    text = [name for name in names if table[name].dtype.kind not in "fiu"]
    if text:
        raise DataError(
            f"{path}: the columns {', '.join(text)} hold text where numbers were expected; "
            "name them in csv.ignore, or set csv.separator"
        )
    return names


def _check_rate(path: Path, table: pd.DataFrame, columns: ColumnMap) -> None:
    """Refuse a rate that the timestamps contradict; they may be rounded and may jitter."""
    if columns.time is None or len(table) < 3 or columns.sfreq is None:
        return
    times = table[columns.time].to_numpy(float)
    # The mean step is right where timestamps are rounded to 1 ms; the median step is not.
    found = (len(times) - 1) / (times[-1] - times[0]) if times[-1] > times[0] else np.nan
    if not abs(found / columns.sfreq - 1) < 0.05:
        raise DataError(
            f"{path}: csv.sfreq says {columns.sfreq:g} Hz, but {len(times)} samples in "
            f"{times[-1] - times[0]:.6g} s of '{columns.time}' make {found:.5g} Hz; correct "
            "csv.sfreq, or look for gaps (times must be in seconds)"
        )
