"""Read series: .ts, CSV (wide and long), Parquet, NPZ, NetCDF, Zarr, WAV; aeon's arrays and lists.

Every reader returns `Recording`s; `timeseries.windows.cut_windows` makes trials of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuro.errors import DataError, InputError
from timeseries.recording import Recording, Span, regular_rate
from timeseries.series_index import read_npz

__all__ = ["Columns", "from_arrays", "read_series"]

SUFFIXES = (".ts", ".csv", ".parquet", ".npz", ".nc", ".zarr", ".wav")


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    Attributes
    ----------
    time : str
        Seconds, or dates.
    values : tuple of str
        Wide: the channels; () takes every numeric column that has no other role.
    variable, value : str or None
        Long: the column with the channel's name and that with its value; None is a wide table.
    recording, subject, label : str or None
        Columns that tell recordings, persons and classes apart; None where there is none.
    """

    time: str = "time"
    values: tuple[str, ...] = ()
    variable: str | None = None
    value: str | None = None
    recording: str | None = None
    subject: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        """Refuse half a long form."""
        if (self.variable is None) != (self.value is None):
            raise InputError("a long table needs both 'variable' and 'value', a wide one neither")


def read_series(
    path: str | Path,
    *,
    sfreq: float | None = None,
    columns: Columns | None = None,
    label: str | None = "class",
) -> list[Recording]:
    """Read the recordings of one file.

    Parameters
    ----------
    path : path
        By its suffix: ``.ts`` (aeon), ``.csv``, ``.parquet``, ``.npz`` (see `read_npz`), ``.nc``
        and ``.zarr`` (a variable ``signal`` with a dimension ``time``), ``.wav``.
    sfreq : float, optional
        Hz, where the file doesn't tell it.
    columns : Columns, optional
        Of tables.
    label : str or None
        Name of the array of classes in an indexed ``.npz``; None reads none.

    Returns
    -------
    list of Recording

    Raises
    ------
    DataError
        Where the file can't be read, its channels are inconsistent, or its times are no grid.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".npz":
        return read_npz(path, sfreq=sfreq, label=label)
    if path.suffix == ".ts":
        return _read_ts(path, sfreq)
    if path.suffix in (".csv", ".parquet"):
        return _read_table(path, columns or Columns())
    if path.suffix in (".nc", ".zarr"):
        return _read_xarray(path)
    if path.suffix == ".wav":
        return [_read_wav(path)]
    raise DataError(f"{path}: series are read from {', '.join(SUFFIXES)}")


def from_arrays(
    arrays: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    sfreq: float = 1.0,
    y: Sequence[Any] | None = None,
    subject: Sequence[Any] | None = None,
) -> list[Recording]:
    """Take aeon's ``numpy3D`` or its list of arrays ``(channel, time)``.

    Parameters
    ----------
    arrays : ndarray, shape (case, channel, time), or sequence of ndarray (channel, time)
    sfreq : float
        Hz.
    y, subject : sequence, optional
        Class and person of each case.

    Examples
    --------
    >>> [r.signal.shape for r in from_arrays([np.ones((2, 5)), np.ones((2, 3))])]
    [(2, 5), (2, 3)]
    """
    for name, given in (("y", y), ("subject", subject)):
        if given is not None and len(given) != len(arrays):
            raise DataError(f"{name} has {len(given)} values for {len(arrays)} cases")
    found = []
    for k, array in enumerate(arrays):
        signal = np.atleast_2d(np.asarray(array, dtype=np.float32))
        names = tuple(f"x{c + 1}" for c in range(len(signal)))
        spans = () if y is None else (Span(0, signal.shape[1], str(y[k])),)
        who = "" if subject is None else str(subject[k])
        found.append(Recording(signal, sfreq, names, f"case-{k}", who, spans))
    return found


def _read_ts(path: Path, sfreq: float | None) -> list[Recording]:
    """Read aeon's text format: a header of @ lines, then one case for each line."""
    header: dict[str, str] = {}
    cases: list[str] = []
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("@"):
            key, _, value = text[1:].partition(" ")
            header[key.lower()] = value.strip()
        elif text and not text.startswith("#"):
            cases.append(text)
    if "data" not in header or not cases:
        raise DataError(f"{path}: expected a @data line and cases below it, found {len(cases)}")
    if header.get("timestamps", "false").lower() == "true":
        raise DataError(f"{path}: .ts with timestamps isn't read; write it as a long CSV")
    labelled = header.get("classlabel", "false").lower().startswith("true")
    found = [_ts_case(path, k, case, labelled, sfreq or 1.0) for k, case in enumerate(cases)]
    counts = {len(recording.channels) for recording in found}
    if len(counts) > 1:
        usual = len(found[0].channels)
        k = next(k for k, r in enumerate(found) if len(r.channels) != usual)
        raise DataError(
            f"{path}: case {k + 1} has {len(found[k].channels)} channels, expected {usual} as in "
            "the first case"
        )
    return found


def _ts_case(path: Path, k: int, case: str, labelled: bool, sfreq: float) -> Recording:
    parts = case.split(":")
    values, label = (parts[:-1], parts[-1].strip()) if labelled else (parts, "")
    try:
        rows = [
            np.array(
                [np.nan if v.strip() in ("?", "NaN", "") else float(v) for v in row.split(",")]
            )
            for row in values
        ]
    except ValueError as error:
        raise DataError(f"{path}: case {k + 1} holds text among its numbers ({error})") from error
    sizes = {len(row) for row in rows}
    if len(sizes) != 1:
        raise DataError(
            f"{path}: the channels of case {k + 1} have {sorted(sizes)} samples, expected one "
            "length within a case"
        )
    signal = np.array(rows, dtype=np.float32)
    names = tuple(f"x{c + 1}" for c in range(len(rows)))
    spans = (Span(0, signal.shape[1], label),) if labelled else ()
    return Recording(signal, sfreq, names, f"{path.stem}-{k}", "", spans)


def _read_table(path: Path, columns: Columns) -> list[Recording]:
    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: the table can't be read ({error})") from error
    roles = [columns.time, columns.variable, columns.value, columns.recording, columns.subject]
    wanted = [name for name in (*roles, columns.label, *columns.values) if name]
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        raise DataError(
            f"{path}: no column {', '.join(absent)}; found {', '.join(map(str, table.columns))}; "
            "give the columns' names"
        )
    if columns.recording is None:
        return [_table_recording(table, columns, path.stem, path)]
    groups = table.groupby(columns.recording, sort=False)
    return [_table_recording(rows, columns, f"{path.stem}-{key}", path) for key, rows in groups]


def _table_recording(rows: pd.DataFrame, columns: Columns, name: str, path: Path) -> Recording:
    where = f"{path} ({name})"
    about = rows
    taken = {columns.time, columns.recording, columns.subject, columns.label}
    if columns.variable and columns.value:
        twice = rows.duplicated([columns.time, columns.variable])
        if twice.any():
            row = rows[twice].iloc[0]
            raise DataError(
                f"{where}: the time {row[columns.time]} occurs twice for "
                f"'{row[columns.variable]}'; drop one of the two rows"
            )
        about = rows.drop_duplicates(columns.time)
        wide = rows.pivot(index=columns.time, columns=columns.variable, values=columns.value)
        values = wide.loc[about[columns.time]]
    else:
        numeric = [c for c in rows.select_dtypes("number").columns if c not in taken]
        values = rows[list(columns.values) or numeric]
    if values.shape[1] == 0:
        text = ", ".join(str(c) for c in rows.columns if c not in taken)
        found = f"; columns that hold text: {text}" if text else ""
        raise DataError(f"{where}: there is no numeric column beside time{found}")
    times = about[columns.time]
    if times.dtype.kind not in "iufM":
        times = pd.to_datetime(times, errors="coerce")
    sfreq = regular_rate(times.to_numpy(), where)
    try:
        signal = values.to_numpy(dtype=np.float32).T
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a value column holds text ({error})") from error
    subject = "" if columns.subject is None else _one(about[columns.subject], where)
    spans = () if columns.label is None else _runs(about[columns.label])
    channels = tuple(map(str, values.columns))
    return Recording(np.ascontiguousarray(signal), sfreq, channels, name, subject, spans)


def _one(column: pd.Series[Any], where: str) -> str:
    found = column.unique()
    if len(found) != 1:
        raise DataError(
            f"{where}: one recording names {len(found)} subjects ({', '.join(map(str, found[:3]))})"
            "; tell recordings apart by a column"
        )
    return str(found[0])


def _runs(labels: pd.Series[Any]) -> tuple[Span, ...]:
    """Return the stretches of equal labels; missing labels make none."""
    text = np.where(labels.isna(), "", labels.astype(str))
    edges = [0, *(np.flatnonzero(text[1:] != text[:-1]) + 1).tolist(), len(text)]
    return tuple(Span(a, b, str(text[a])) for a, b in pairwise(edges) if text[a] != "")


def _read_xarray(path: Path) -> list[Recording]:
    with _opened(path) as data:
        if "signal" not in data or "time" not in data["signal"].dims or "time" not in data.coords:
            raise DataError(
                f"{path}: expected a variable 'signal' with a coordinate 'time', found "
                f"{sorted(map(str, data.variables))}"
            )
        signal = data["signal"].load()
    sfreq = regular_rate(signal["time"].values, str(path))
    order = [d for d in ("trial", "channel", "time") if d in signal.dims]
    if set(order) != set(signal.dims):
        raise DataError(f"{path}: dims {signal.dims}, expected trial, channel and time")
    signal = signal.transpose(*order)
    for dim in ("channel", "trial"):
        if dim not in signal.dims:
            signal = signal.expand_dims(dim)
    signal = signal.transpose("trial", "channel", "time")
    names = (
        signal["channel"].values if "channel" in signal.coords else range(1, signal.shape[1] + 1)
    )
    channels = tuple(map(str, names))
    length = _lengths(signal)
    return [
        Recording(
            row[:, :n].astype(np.float32), sfreq, channels,
            _coordinate(signal, "recording", k) or f"{path.stem}-{k}",
            _coordinate(signal, "subject", k), _class(signal, k, n),
        )
        for k, (row, n) in enumerate(zip(signal.values, length, strict=True))
    ]  # fmt: skip


def _opened(path: Path) -> Any:
    """Open a NetCDF or Zarr without reading it."""
    import xarray as xr

    try:
        return xr.open_zarr(path, chunks=None) if path.suffix == ".zarr" else xr.open_dataset(path)
    except Exception as error:
        advice = ""
        if path.suffix == ".nc" and path.read_bytes()[:4] == b"\x89HDF":
            advice = "; a NetCDF-4 needs h5netcdf: pip install 'neuro-representations[netcdf]'"
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: not a {path.suffix[1:]} that can be read ({text}){advice}"
        ) from error


def _lengths(signal: Any) -> list[int]:
    """Return the real samples of each trial: a padded dataset says how many."""
    if "length" in signal.coords:
        return [int(n) for n in signal["length"].values]
    return [signal.shape[-1]] * signal.shape[0]


def _coordinate(signal: Any, name: str, k: int) -> str:
    known = name in signal.coords and signal[name].dims == ("trial",)
    return str(signal[name].values[k]) if known else ""


def _class(signal: Any, k: int, length: int) -> tuple[Span, ...]:
    label = _coordinate(signal, "class", k)
    return (Span(0, length, label),) if label else ()


def _read_wav(path: Path) -> Recording:
    """Read a sound; its folder's name is the class."""
    from scipy.io import wavfile

    try:
        rate, samples = wavfile.read(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a WAV file that can be read ({error})") from error
    rows = np.atleast_2d(samples.T)
    if rows.dtype.kind == "u":
        rows = (rows.astype(np.float32) - 128) / 128
    elif rows.dtype.kind == "i":
        rows = rows / np.float32(np.iinfo(rows.dtype).max + 1)
    names = tuple(f"x{k + 1}" for k in range(len(rows)))
    span = Span(0, rows.shape[1], path.parent.name)
    return Recording(rows.astype(np.float32), float(rate), names, path.stem, "", (span,))
