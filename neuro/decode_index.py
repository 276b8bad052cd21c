"""The index of a folder of decoded recordings: a line for each, read to skip what is done."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from neuro.errors import InputError

INDEX = "decoded.tsv"


@dataclass(frozen=True)
class Row:
    """What came of one recording: a line of ``decoded.tsv``.

    Attributes
    ----------
    name : str
        Of ``<name>.zarr`` and ``<name>.tsv``.
    source : str
        The recording's absolute path.
    status : str
        ``"done"`` or ``"failed"``.
    n_trials, n_seen_trials : int
        Trials decoded, and how many of them the encoder was trained on.
    seen_subject : bool
        Whether the encoder was trained on other trials of a subject of this recording.
    digest, encoder, options : str
        Content of the recording, of the encoder, and the options: all must agree for a skip.
    error : str
        Why it failed.
    note : str
        What to know of the result, in the encoder's words: voxels that were missing.
    """

    name: str
    source: str
    status: str
    n_trials: int = 0
    n_seen_trials: int = 0
    seen_subject: bool = False
    digest: str = ""
    encoder: str = ""
    options: str = "{}"
    error: str = ""
    note: str = ""


def read_index(out: Path) -> dict[str, Row]:
    """Read ``decoded.tsv`` as rows by name; a missing or foreign file counts as empty."""
    path = out / INDEX
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream, delimiter="\t"))
    known = {field.name for field in fields(Row)}
    if lines and not known - {"note"} <= set(lines[0]) <= known:
        raise InputError(f"{path} is no index of decoded recordings; name another --out")
    return {line["name"]: _row(line) for line in lines}


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = dict(line)
    values["n_trials"] = int(line["n_trials"])
    values["n_seen_trials"] = int(line["n_seen_trials"])
    values["seen_subject"] = line["seen_subject"] == "True"
    return Row(**values)


def write_index(out: Path, index: dict[str, Row]) -> None:
    """Write ``decoded.tsv`` in one rename, in the order of names."""
    text = io.StringIO()
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(text, names, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(index[name]) for name in sorted(index))
    replace_text(out / INDEX, text.getvalue())


def replace_text(path: Path, text: str) -> None:
    """Write a text file in one rename."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
