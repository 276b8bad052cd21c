"""New recordings through a fitted encoder: one result each, resumable (``neuro decode``).

The folder of results holds, for each recording, ``<name>.zarr`` (everything) and ``<name>.tsv``
(one line per trial, for a spreadsheet), and ``decoded.tsv``, the index that says what came of
every recording. The index is what a later call reads to skip what is done.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from pydantic import BaseModel

    from neuro.encoder import Encoder

INDEX = "decoded.tsv"
COMPRESSED = (".gz", ".bz2", ".xz")


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
    n_trials, n_in_training : int
        Trials decoded, and how many of them the encoder was trained on.
    subject_in_training : bool
        Whether the encoder was trained on other trials of a subject of this recording.
    digest, encoder, options : str
        Content of the recording, of the encoder, and the options: all must agree for a skip.
    error : str
        Why it failed.
    """

    name: str
    source: str
    status: str
    n_trials: int = 0
    n_in_training: int = 0
    subject_in_training: bool = False
    digest: str = ""
    encoder: str = ""
    options: str = "{}"
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """What `decode` did with one recording: its row, and whether it stood already."""

    row: Row
    skipped: bool = False


def decode(
    encoder: Encoder,
    files: Sequence[Path],
    out: Path,
    options: BaseModel,
    *,
    identity: str,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Decode recordings one by one; a bad one is noted and the others go on.

    Parameters
    ----------
    encoder : Encoder
        A fitted encoder.
    files : sequence of Path
        Recordings.
    out : Path
        Folder of the results; made where it does not exist.
    options : BaseModel
        An instance of the encoder's ``DecodeOptions``.
    identity : str
        Digest of the encoder's folder, see `folder_digest`.
    told : callable, optional
        Called with every outcome as it comes.

    Returns
    -------
    list of Outcome
        In the order of `files`.
    """
    from filelock import FileLock, Timeout

    out = Path(out)
    make_folder(out)
    try:
        with FileLock(out / ".decoded.lock", timeout=0):
            return _decode_all(encoder, files, out, options, identity, told)
    except Timeout as error:
        raise InputError(
            f"another `neuro decode` is writing to {out}; name another --out"
        ) from error


def _decode_all(
    encoder: Encoder,
    files: Sequence[Path],
    out: Path,
    options: BaseModel,
    identity: str,
    told: Callable[[Outcome], None],
) -> list[Outcome]:
    index = read_index(out)
    text = json.dumps(options.model_dump(mode="json"), sort_keys=True)
    outcomes: list[Outcome] = []
    for path in files:
        asked = Row("", str(path.absolute()), "failed", encoder=identity, options=text)
        taken = {outcome.row.name for outcome in outcomes}
        outcome = _decode_one(encoder, path, out, options, asked, index, taken)
        index[outcome.row.name] = outcome.row
        if not outcome.skipped:
            write_index(out, index)
        told(outcome)
        outcomes.append(outcome)
    return outcomes


def companions(encoder: Encoder, path: Path) -> list[Path]:
    """List the files that belong to a recording besides the one named (headers, markers).

    An encoder knows them by its own method ``companions``; one without has none.
    """
    known = getattr(encoder, "companions", None)
    return [Path(item) for item in known(path)] if callable(known) else []


def _named(asked: Row, index: dict[str, Row], taken: set[str]) -> Row:
    """Name the result after the file; two files of one name get their folder's name before it."""
    path = Path(asked.source)
    longer = f"{path.parent.name}_{stem(path)}"
    numbered = (f"{longer}-{number}" for number in itertools.count(2))
    for name in itertools.chain((stem(path), longer), numbered):
        held = index.get(name)
        if name not in taken and (held is None or _same_recording(held, asked)):
            return replace(asked, name=name)
    raise AssertionError  # the numbers don't end


def stem(path: Path) -> str:
    """Return a file's name without its suffix, and without the two of ``scan.nii.gz``."""
    name = path.name
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).stem


def _same_recording(held: Row, asked: Row) -> bool:
    return held.source == asked.source or (asked.digest != "" and held.digest == asked.digest)


def _decode_one(
    encoder: Encoder,
    path: Path,
    out: Path,
    options: BaseModel,
    asked: Row,
    index: dict[str, Row],
    taken: set[str],
) -> Outcome:
    try:
        digest = content_digest([path, *companions(encoder, path)])
        asked = _named(replace(asked, digest=digest), index, taken)
        held = index.get(asked.name)
        if held is not None and _stands(held, asked, out):
            return Outcome(replace(held, source=asked.source), skipped=True)
        result = encoder.decode(path, options)
        write_result(result, out, asked.name)
    except Exception as error:  # one bad file must not lose the night's work
        asked = asked if asked.name else _named(asked, index, taken)
        _remove(out, asked.name)  # else an older result would pass for this one's
        return Outcome(replace(asked, error=one_line(error)))
    return Outcome(replace(asked, status="done", **_counts(result)))


def _remove(out: Path, name: str) -> None:
    shutil.rmtree(out / f"{name}.zarr", ignore_errors=True)
    (out / f"{name}.tsv").unlink(missing_ok=True)


def _stands(held: Row, asked: Row, out: Path) -> bool:
    same = all(getattr(held, k) == getattr(asked, k) for k in ("digest", "encoder", "options"))
    return (
        held.status == "done"
        and same
        and all((out / f"{asked.name}{end}").exists() for end in (".zarr", ".tsv"))
    )


def _counts(result: xr.Dataset) -> dict[str, Any]:
    trial = result.coords.get("trial_in_training")
    subject = result.coords.get("subject_in_training")
    return {
        "n_trials": int(result.sizes["trial"]),
        "n_in_training": 0 if trial is None else int(trial.values.sum()),
        "subject_in_training": False if subject is None else bool(subject.values.any()),
    }


def complaints(outcomes: Sequence[Outcome]) -> list[str]:
    """Say in lines which recordings failed, and which the encoder knows from its training."""
    rows = [outcome.row for outcome in outcomes]
    lines = [f"Error: {row.source}: {row.error}" for row in rows if row.status == "failed"]
    for row in rows:
        if row.n_in_training:
            lines.append(
                f"Warning: {row.source}: the encoder was trained on {row.n_in_training} of its "
                f"{row.n_trials} trials, so what it says about them is no test"
            )
        elif row.subject_in_training:
            lines.append(f"Warning: {row.source}: the encoder was trained on a subject in it")
    return lines


def summary(outcomes: Sequence[Outcome], out: Path) -> str:
    """Count in one line what was done, and say where the index is."""
    failed = sum(outcome.row.status == "failed" for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    done = len(outcomes) - failed - skipped
    return f"{done} decoded, {skipped} skipped (done before), {failed} failed: {out / INDEX}"


def one_line(error: BaseException) -> str:
    """Write an error as one line of text, its type before it unless it is one of ours."""
    from neuro.errors import NeuroError

    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, NeuroError) else f"{type(error).__name__}: {text}"


def write_result(result: xr.Dataset, out: Path, name: str) -> None:
    """Write ``<name>.zarr`` and ``<name>.tsv``; each appears whole or not at all."""
    from neuro.data import save_dataset

    save_dataset(result, out / f"{name}.zarr")
    table = to_table(result)
    _replace(out / f"{name}.tsv", table.to_csv(sep="\t", index=False, float_format="%.9g"))


def to_table(result: xr.Dataset) -> pd.DataFrame:
    """Lay a decoded dataset out with one line per trial.

    Coordinates and variables on ``trial`` become columns; variables on ``trial`` and one more
    dimension become a column per entry (``latent``'s own names where it has some). What has more
    dimensions stays in the Zarr store.

    Parameters
    ----------
    result : xarray.Dataset
        Dimension ``trial`` and any other.

    Returns
    -------
    pandas.DataFrame
        ``n_trials`` lines.
    """
    import pandas as pd

    columns: dict[str, Any] = {"trial": range(result.sizes["trial"])}
    for name, coord in result.coords.items():
        if coord.dims == ("trial",) and name != "trial":
            columns[str(name)] = coord.values
    single = sum(variable.ndim == 2 for variable in result.data_vars.values()) == 1
    for name, variable in result.data_vars.items():
        if variable.dims == ("trial",):
            columns[str(name)] = variable.values
        elif variable.ndim == 2 and variable.dims[0] == "trial":
            for label, values in _entries(variable):
                columns[label if single else f"{name}_{label}"] = values
    return pd.DataFrame(columns)


def _entries(variable: xr.DataArray) -> Iterable[tuple[str, Any]]:
    dim = variable.dims[1]
    if dim in variable.coords:
        labels = [str(label) for label in variable.coords[dim].values]
    else:
        labels = [str(number) for number in range(variable.sizes[dim])]
    for number, label in enumerate(labels):
        yield (f"{dim}{label}" if label.isdigit() else label), variable.values[:, number]


def expand(patterns: Sequence[str]) -> list[Path]:
    """Turn paths and quoted globs into the recordings they name, each once, in order.

    Parameters
    ----------
    patterns : sequence of str
        Paths, or globs (``**`` goes into folders).

    Raises
    ------
    InputError
        Where a path does not exist or a glob matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.exists() else [Path(p) for p in _glob(pattern)]
        if not matches:
            fault = "no file matches" if glob.has_magic(pattern) else "no such file:"
            raise InputError(f"{fault} '{pattern}' (in {Path.cwd()})")
        found.update(dict.fromkeys(matches))
    if not found:
        raise InputError("no files given: name recordings, or a glob such as 'new/*.fif'")
    return list(found)


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(os.path.expanduser(pattern), recursive=True))


def content_digest(paths: Iterable[Path]) -> str:
    """Hash the content of files (and of every file in a folder), names included, places not."""
    total = hashlib.sha256()
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            total.update(str(file.relative_to(path.parent)).encode())
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:32]


def folder_digest(folder: Path) -> str:
    """Hash an encoder's folder: another model decodes anew. The model card does not count."""
    parts = ("config.json", "preprocessing.json", "model.safetensors")
    return content_digest(Path(folder) / name for name in parts if (Path(folder) / name).exists())


def make_folder(out: Path) -> None:
    """Make the folder of results.

    Raises
    ------
    InputError
        Where it is a file or can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: can't make this folder ({error.strerror})") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: this folder can't be written; name another")


def read_index(out: Path) -> dict[str, Row]:
    """Read ``decoded.tsv`` as rows by name; a missing or foreign file counts as empty."""
    path = out / INDEX
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream, delimiter="\t"))
    if lines and set(lines[0]) != {field.name for field in fields(Row)}:
        raise InputError(f"{path} is no index of decoded recordings; name another --out")
    return {line["name"]: _row(line) for line in lines}


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = dict(line)
    values["n_trials"] = int(line["n_trials"])
    values["n_in_training"] = int(line["n_in_training"])
    values["subject_in_training"] = line["subject_in_training"] == "True"
    return Row(**values)


def write_index(out: Path, index: dict[str, Row]) -> None:
    """Write ``decoded.tsv`` in one rename, in the order of names."""
    text = io.StringIO()
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(text, names, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(index[name]) for name in sorted(index))
    _replace(out / INDEX, text.getvalue())


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
