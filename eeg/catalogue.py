"""Find recordings, and join them with what is known about their participants."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eeg.companions import companions
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from eeg.steps import ColumnMap

_ENTITY = re.compile(r"(?:^|_)(sub|ses|task|run)-([^_.]+)")
_SUFFIX = re.compile(r"([-_](eeg|epo|raw|ave))?(\.[A-Za-z0-9]+)+$")
_OWN = ("recording", "path", "digest", "subject", "session", "run", "task", "condition")
_ID_COLUMNS = ("participant_id", "file", "filename")


def find_recordings(
    files: Sequence[Path | str] | None = None,
    participants: Path | str | None = None,
    *,
    bids_root: Path | str | None = None,
    task: str | None = None,
    session: str | None = None,
    run: str | None = None,
    labels: Sequence[str] | None = None,
    channels: Literal["same", "common"] = "same",
    csv: ColumnMap | None = None,
) -> xr.Dataset:
    """List recordings with their subjects and labels, without reading their signals.

    Parameters
    ----------
    files : sequence of Path, optional
        Recordings. Subject, session and run are taken from names like ``sub-01_ses-2_run-3``.
    participants : Path, optional
        Table (``.tsv`` or ``.csv``) with a column ``participant_id`` (``sub-x``, ``x`` or a file
        name); its other columns become labels. In a BIDS study it is found by itself.
    bids_root : Path, optional
        A BIDS study, in place of `files`.
    task, session, run : str, optional
        Keep only these recordings of the study (or of `files`).
    labels : sequence of str, optional
        Columns of `participants` to keep; all of them by default.
    channels : {"same", "common"}
        ``"common"`` reads all headers and keeps the channels that every recording has.
    csv : ColumnMap, optional
        Layout of CSV recordings, needed for ``channels="common"``.

    Returns
    -------
    xarray.Dataset
        The catalogue: one ``trial`` per recording with the coordinates ``recording, path,
        digest, subject, session, run`` and one per label. `catalogue_warnings` lists
        participants without recordings and the reverse.

    Raises
    ------
    InputError, DataError
        Where there is nothing to read, or the table does not fit.
    """
    rows = _rows(_paths(files, bids_root, task), task=task, session=session, run=run)
    if not rows:
        raise InputError(
            f"no recording is left after the selection task={task}, session={session}, run={run}; "
            "check these fields against the file names"
        )
    if participants is None and bids_root is not None:
        beside = Path(bids_root) / "participants.tsv"
        participants = beside if beside.is_file() else None
    columns, warnings = _labels(rows, participants, labels)
    if channels == "common":
        columns["channels"] = [json.dumps(_common_channels(rows, csv))] * len(rows)
    return _catalogue(rows, columns, warnings)


def catalogue_warnings(catalogue: xr.Dataset) -> list[str]:
    """Return what did not fit between recordings and participants."""
    rows = json.loads(catalogue.attrs.get("quality", "[]"))
    return [text for row in rows if not row["recording"] for text in row["warnings"]]


def entities(path: Path) -> dict[str, str]:
    """Return ``sub``, ``ses``, ``task`` and ``run`` of a file name, as far as they are there.

    >>> entities(Path("sub-01_ses-2_task-rest_run-3_eeg.edf"))
    {'sub': '01', 'ses': '2', 'task': 'rest', 'run': '3'}
    """
    return dict(_ENTITY.findall(path.name))


def stem(path: Path) -> str:
    """Return the name of a recording: the file's without endings.

    >>> stem(Path("sub-co2a0000364_epo.fif")), stem(Path("sub-01_run-01_eeg.csv.gz"))
    ('sub-co2a0000364', 'sub-01_run-01')
    """
    return _SUFFIX.sub("", path.name) or path.name


def content_digest(path: Path, companions: Sequence[Path] = ()) -> str:
    """Return the hash of a recording's content and of the files that belong to it."""
    total = hashlib.blake2b(digest_size=16)
    for file in [path, *companions]:
        if file.is_file():
            total.update(file.name.encode())
            with file.open("rb") as opened:
                total.update(hashlib.file_digest(opened, "blake2b").digest())
    return total.hexdigest()


def _paths(
    files: Sequence[Path | str] | None, bids_root: Path | str | None, task: str | None
) -> list[Path]:
    if (files is None) == (bids_root is None):
        raise InputError("give either files or bids_root, the one or the other")
    if files is not None:
        return sorted({Path(file).absolute() for file in files})
    root = Path(bids_root or ".").absolute()
    if not root.is_dir():
        raise InputError(f"bids_root: there is no folder {root}")
    import mne_bids

    found = mne_bids.find_matching_paths(
        root,
        datatypes="eeg",
        suffixes="eeg",
        tasks=task,
        extensions=[".vhdr", ".edf", ".bdf", ".set"],
    )
    if not found:
        tasks = mne_bids.get_entity_vals(root, "task", include_match="sub-*/")
        raise InputError(
            f"bids_root {root}: no EEG recording of task {task!r}; tasks there: "
            f"{', '.join(tasks) or 'none'}. Expected sub-*/[ses-*/]eeg/*_eeg.vhdr|edf|bdf|set"
        )
    return sorted(path.fpath for path in found)


def _rows(paths: list[Path], **wanted: str | None) -> list[dict[str, Any]]:
    counts = Counter(stem(path) for path in paths)
    rows = []
    for path in paths:
        parts = entities(path)
        row = {
            "recording": stem(path)
            if counts[stem(path)] == 1
            else f"{path.parent.name}/{path.name}",
            "path": str(path),
            "subject": parts.get("sub", stem(path)),
            "session": parts.get("ses", ""),
            "run": parts.get("run", ""),
            "task": parts.get("task", ""),
        }
        if all(value is None or row[key] in (value, "") for key, value in wanted.items()):
            rows.append(row)
    twice = [name for name, n in Counter(row["recording"] for row in rows).items() if n > 1]
    if twice:
        raise InputError(f"two recordings bear the name {twice[0]}; rename one of the files")
    return rows


def _labels(
    rows: list[dict[str, Any]], participants: Path | str | None, labels: Sequence[str] | None
) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the label columns, aligned with the rows, and what did not match."""
    if participants is None:
        if labels:
            raise InputError(f"labels {list(labels)} need a participants table")
        return {}, []
    path = Path(participants)
    table, key = _read_table(path)
    known = [name for name in table.columns if name != key and name not in _OWN]
    missing = [name for name in labels or [] if name not in known]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; columns there: {', '.join(known)}"
        )
    place = {_short(value): at for at, value in enumerate(table[key])}
    at = [_match(row, place) for row in rows]
    chosen = list(labels) if labels is not None else known
    columns = {name: _aligned(table[name], at) for name in chosen}
    return columns, _unmatched(path, rows, at, [str(value) for value in table[key]])


def _read_table(path: Path) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    if not path.is_file():
        raise InputError(f"participants: there is no file {path}")
    separator = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        table = pd.read_csv(path, sep=separator, na_values=["n/a"], keep_default_na=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a table with a header row: {error}") from error
    key = next((name for name in _ID_COLUMNS if name in table), None)
    if key is None:
        raise DataError(
            f"{path}: expected a column participant_id (or file), found "
            f"{', '.join(map(str, table.columns))}"
        )
    table[key] = pd.read_csv(path, sep=separator, dtype=str)[key]  # '01' stays '01'
    twice = table[key].map(_short).duplicated()
    if twice.any():
        raise DataError(f"{path}: {table[key][twice].iloc[0]} stands in two rows of {key}")
    return table, key


def _short(identifier: object) -> str:
    text = str(identifier).strip()
    return stem(Path(text)) if "." in text else text.removeprefix("sub-")


def _match(row: dict[str, Any], place: dict[str, int]) -> int | None:
    names = (row["recording"], row["recording"].removeprefix("sub-"), row["subject"])
    return next((place[name] for name in names if name in place), None)


def _aligned(column: pd.Series, at: list[int | None]) -> list[Any]:
    """Values by recording: numbers stay numbers (NaN missing), text is text ("" missing)."""
    if column.dtype.kind in "fiu":
        return [float("nan") if i is None else float(column.iloc[i]) for i in at]
    missing = column.isna()
    return ["" if i is None or missing.iloc[i] else str(column.iloc[i]) for i in at]


def _unmatched(
    path: Path, rows: list[dict[str, Any]], at: list[int | None], ids: list[str]
) -> list[str]:
    lonely = sorted({row["subject"] for row, i in zip(rows, at, strict=True) if i is None})
    absent = [name for i, name in enumerate(ids) if i not in at]
    if len(lonely) == len({row["subject"] for row in rows}):
        raise DataError(
            f"{path}: none of its participants ({', '.join(ids[:5])} ...) is a subject of the "
            f"recordings ({', '.join(lonely[:5])} ...); they must have the same names"
        )
    warnings = []
    if lonely:
        warnings.append(f"{path.name} does not know the subjects {', '.join(lonely)}: no labels")
    if absent:
        warnings.append(f"{path.name} lists participants without recording: {', '.join(absent)}")
    return warnings


def _common_channels(rows: list[dict[str, Any]], csv: ColumnMap | None) -> list[str]:
    from eeg.read import read_recording

    sets = [read_recording(row["path"], csv=csv).ch_names for row in rows]
    common = [name for name in sets[0] if all(name in names for names in sets)]
    if not common:
        raise DataError(
            f"no channel is common to all recordings: {rows[0]['path']} has {sets[0][:5]} ..., "
            f"{rows[-1]['path']} has {sets[-1][:5]} ..."
        )
    return common


def _catalogue(
    rows: list[dict[str, Any]], columns: dict[str, list[Any]], warnings: list[str]
) -> xr.Dataset:
    import xarray as xr

    values: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in rows[0]}
    values["digest"] = [content_digest(Path(row["path"]), companions(row["path"])) for row in rows]
    values |= columns
    attrs = {
        "kind": "eeg-catalogue",
        "item": "recording",
        "labels": [name for name in columns if name != "channels"],
        # In 'quality' under no recording's name: what is amiss between table and recordings must
        # not enter the identity of every single recording.
        "quality": json.dumps([{"recording": "", "warnings": warnings}]),
    }
    return xr.Dataset(coords={k: ("trial", v) for k, v in values.items()}, attrs=attrs)
