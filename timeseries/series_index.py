"""NPZ folders of series: named arrays with a table of labels, or one array with an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neuro.errors import DataError
from timeseries.recording import Recording, Span

__all__ = ["files_inside", "read_npz", "tables_beside"]

_SUFFIXES = (".npz", ".ts", ".csv", ".parquet", ".nc", ".wav", ".zarr")
_TABLES = ("labels.csv", "activity_labels.txt")
_INDEX = ("signal", "start", "length")


def read_npz(
    path: Path, *, sfreq: float | None = None, label: str | None = "class"
) -> list[Recording]:
    """Read one ``.npz`` of series; pickles are refused.

    Parameters
    ----------
    path : Path
        Either *indexed*: ``signal (time,)`` or ``(time, channel)`` with ``start`` and ``length``
        of each series in samples, ``sample_rate`` in Hz and one array by the name `label`; or one
        array ``(time, channel)`` for each recording. Then ``labels.csv`` beside it, where there is
        one, has the columns exp, user, activity, start, end (samples from 1, end included) and
        ``activity_labels.txt`` their names; names end in the numbers of user (the file's) and
        experiment (the array's).
    sfreq : float, optional
        Hz, where the file doesn't tell it.
    label : str or None
        Name of the array of classes of the indexed form; None reads none.

    Returns
    -------
    list of Recording
        The file's stem is the subject.

    Raises
    ------
    DataError
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected an .npz of plain arrays ({error})") from error
    if set(_INDEX) <= set(arrays):
        return _indexed(path, arrays, sfreq, label)
    if sfreq is None:
        raise DataError(f"{path}: the file tells no sampling rate; give sfreq in Hz")
    return [_whole(path, name, array, sfreq) for name, array in arrays.items()]


def tables_beside(paths: Sequence[Path]) -> list[Path]:
    """Return the tables of labels that `read_npz` uses beside the files."""
    folders = {path.parent for path in paths if path.suffix == ".npz"}
    named = (folder / name for folder in sorted(folders) for name in _TABLES)
    return [path for path in named if path.is_file()]


def files_inside(paths: Sequence[Path]) -> list[Path]:
    """Return files, with the readable files of a folder in the place of the folder.

    Raises
    ------
    DataError
        Where a folder holds none.
    """
    found = []
    for path in paths:
        if not path.is_dir() or path.suffix == ".zarr":
            found.append(path)
            continue
        inside = [p for p in sorted(path.rglob("*")) if p.suffix in _SUFFIXES
                  and p.name not in _TABLES and not _in_zarr(p, path)]  # fmt: skip
        if not inside:
            raise DataError(f"{path}: a folder without series ({', '.join(_SUFFIXES)})")
        found += inside
    return found


def _in_zarr(path: Path, root: Path) -> bool:
    return any(part.endswith(".zarr") for part in path.relative_to(root).parts[:-1])


def _indexed(
    path: Path, arrays: dict[str, np.ndarray], sfreq: float | None, label: str | None
) -> list[Recording]:
    rate = float(arrays["sample_rate"]) if "sample_rate" in arrays else sfreq
    if rate is None:
        raise DataError(f"{path}: there is no 'sample_rate'; give sfreq in Hz")
    if label is not None and label not in arrays:
        raise DataError(f"{path}: no array '{label}' of classes; found {sorted(arrays)}")
    signal = arrays["signal"]
    scale = np.iinfo(signal.dtype).max + 1 if signal.dtype.kind == "i" else 1
    rows = np.atleast_2d(signal.T) / np.float32(scale)
    start, stop = arrays["start"], arrays["start"] + arrays["length"]
    if (start < 0).any() or (stop > rows.shape[1]).any() or (stop <= start).any():
        raise DataError(f"{path}: the index points outside the signal of {rows.shape[1]} samples")
    names = tuple(f"x{k + 1}" for k in range(len(rows)))
    classes = [""] * len(start) if label is None else arrays[label]
    return [
        Recording(
            rows[:, a:b].astype(np.float32), rate, names, f"{path.stem}-{k}", path.stem,
            (Span(0, int(b - a), str(value)),),
        )
        for k, (a, b, value) in enumerate(zip(start, stop, classes, strict=True))
    ]  # fmt: skip


def _whole(path: Path, name: str, array: np.ndarray, sfreq: float) -> Recording:
    if array.ndim != 2:
        raise DataError(f"{path}: '{name}' has the shape {array.shape}, expected (time, channel)")
    channels = tuple(f"x{k + 1}" for k in range(array.shape[1]))
    spans = _spans(path, name)
    return Recording(
        np.ascontiguousarray(array.T, dtype=np.float32), sfreq, channels, f"{path.stem}-{name}",
        path.stem, spans,
    )  # fmt: skip


def _spans(path: Path, name: str) -> tuple[Span, ...]:
    table = path.parent / "labels.csv"
    if not table.is_file():
        return ()
    labels = pd.read_csv(table)
    wanted = {"exp", "user", "activity", "start", "end"}
    if not wanted <= set(labels.columns):
        raise DataError(f"{table}: columns {list(labels.columns)}, expected {sorted(wanted)}")
    rows = labels[(labels["user"] == _number(path.stem)) & (labels["exp"] == _number(name))]
    names = _activities(path.parent / "activity_labels.txt")
    table_rows = rows[["start", "end", "activity"]].to_numpy(dtype=int).tolist()
    return tuple(Span(a - 1, b, names.get(kind, str(kind))) for a, b, kind in table_rows)


def _number(name: str) -> int:
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits) if digits else -1


def _activities(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    pairs = (line.split() for line in path.read_text().splitlines() if line.strip())
    return {int(number): name for number, name in pairs}
