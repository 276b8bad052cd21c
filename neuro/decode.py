"""New recordings through a fitted encoder: one result each, resumable (``neuro decode``).

The folder of results holds, for each recording, ``<name>.zarr`` (everything) and ``<name>.tsv``
(one line per trial, for a spreadsheet), and ``decoded.tsv``, the index that says what came of
every recording. The index is what a later call reads to skip what is done. Where the encoder has
something to show, ``<name>.html`` and a contact sheet over all recordings lie beside them.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.decode_index import INDEX, Row, read_index, replace_text, write_index
from neuro.errors import InputError
from neuro.runner.fingerprint import Fingerprints
from neuro.sheet import write_page, write_sheet

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from pydantic import BaseModel

    from neuro.encoder import Encoder

ENCODER_PARTS = ("config.json", "preprocessing.json", "model.safetensors")
COMPRESSED = (".gz", ".bz2", ".xz")


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
    check = getattr(encoder, "check_decoding", None)
    if callable(check):
        check(options)
    make_folder(out)
    try:
        with FileLock(out / ".decoded.lock", timeout=0):
            job = _Job(encoder, out, options, identity)
            outcomes = [job.one(path, told) for path in files]
            if job.shows is not None:
                write_sheet(out, table(job.index.values()), f"Decoded by {encoder.name}")
            return outcomes
    except Timeout as error:
        raise InputError(
            f"another `neuro decode` is writing to {out}; name another --out"
        ) from error


class _Job:
    """One call of `decode`: the index as it grows, and the names this call has given."""

    def __init__(self, encoder: Encoder, out: Path, options: BaseModel, identity: str) -> None:
        self.encoder, self.out, self.options = encoder, out, options
        self.shows = getattr(encoder, "show_decoded", None)
        self.ends = (".zarr", ".tsv", *([".html"] if self.shows is not None else []))
        self.prints = Fingerprints(out / ".fingerprints.json")
        self.blank = Row("", "", "failed", encoder=identity, options=self._options_text())
        self.index = read_index(out)
        self.taken: set[str] = set()

    def _options_text(self) -> str:
        """Write the options as JSON, files and folders with what they hold: it may change."""
        values = self.options.model_dump(mode="json")
        for name, value in self.options:
            if isinstance(value, Path) and value.exists():
                values[name] = f"{value} {content_digest([value], self.prints)}"
        return json.dumps(values, sort_keys=True)

    def one(self, path: Path, told: Callable[[Outcome], None]) -> Outcome:
        outcome = self._outcome(path, replace(self.blank, source=str(path.absolute())))
        self.taken.add(outcome.row.name)
        if self.index.get(outcome.row.name) != outcome.row:
            self.index[outcome.row.name] = outcome.row
            write_index(self.out, self.index)
        self.prints.save()
        told(outcome)
        return outcome

    def _outcome(self, path: Path, asked: Row) -> Outcome:
        try:
            digest = content_digest([path, *companions(self.encoder, path)], self.prints)
            asked = self._named(replace(asked, digest=digest))
            held = self.index.get(asked.name)
            if held is not None and self._stands(held, asked):
                return Outcome(replace(held, source=asked.source), skipped=True)
            result = self.encoder.decode(path, self.options)
            write_result(result, self.out, asked.name)
            if self.shows is not None:
                blocks = self.shows(result, self.options)
                write_page(self.out / f"{asked.name}.html", asked.name, blocks)
        except Exception as error:  # one bad file must not lose the night's work
            asked = asked if asked.name else self._named(asked)
            self._remove(asked.name)  # else an older result would pass for this one's
            return Outcome(replace(asked, error=one_line(error)))
        return Outcome(replace(asked, status="done", **_counts(result)))

    def _named(self, asked: Row) -> Row:
        """Name it after the file; two files of one name get their folder's name before it."""
        path = Path(asked.source)
        longer = f"{path.parent.name}_{stem(path)}"
        numbered = (f"{longer}-{number}" for number in itertools.count(2))
        names = itertools.chain((stem(path), longer), numbered)
        return replace(asked, name=next(name for name in names if self._is_free(name, asked)))

    def _is_free(self, name: str, asked: Row) -> bool:
        held = self.index.get(name)
        if name in self.taken or held is None:
            return name not in self.taken
        return held.source == asked.source or (asked.digest != "" and held.digest == asked.digest)

    def _stands(self, held: Row, asked: Row) -> bool:
        same = all(getattr(held, k) == getattr(asked, k) for k in ("digest", "encoder", "options"))
        there = all((self.out / f"{asked.name}{end}").exists() for end in self.ends)
        return held.status == "done" and same and there

    def _remove(self, name: str) -> None:
        shutil.rmtree(self.out / f"{name}.zarr", ignore_errors=True)
        for end in (".tsv", ".html"):
            (self.out / f"{name}{end}").unlink(missing_ok=True)


def companions(encoder: Encoder, path: Path) -> list[Path]:
    """List the files that belong to a recording besides the one named (headers, markers).

    An encoder knows them by its own method ``companions``; one without has none.
    """
    known = getattr(encoder, "companions", None)
    return [Path(item) for item in known(path)] if callable(known) else []


def stem(path: Path) -> str:
    """Return a file's name without its suffix, and without the two of ``scan.nii.gz``."""
    name = path.name
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).stem


def _counts(result: xr.Dataset) -> dict[str, Any]:
    trial, subject = result.coords.get("seen_trial"), result.coords.get("seen_subject")
    return {
        "n_trials": int(result.sizes["trial"]),
        "n_seen_trials": 0 if trial is None else int(trial.values.sum()),
        "seen_subject": False if subject is None else bool(subject.values.any()),
        "note": str(result.attrs.get("note", "")),
    }


def table(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Say for people what came of recordings: a line for each."""
    return [
        {
            "name": row.name, "status": row.status, "trials": row.n_trials,
            "trained on": row.n_seen_trials, "note": row.note or row.error,
        }
        for row in rows
    ]  # fmt: skip


def complaints(outcomes: Sequence[Outcome]) -> list[str]:
    """Say in lines which recordings failed, and which the encoder knows from its training."""
    rows = [outcome.row for outcome in outcomes]
    lines = [f"Error: {_naming(row)}" for row in rows if row.status == "failed"]
    for row in rows:
        if row.n_seen_trials:
            lines.append(
                f"Warning: {row.source}: the encoder was trained on {row.n_seen_trials} of its "
                f"{row.n_trials} trials, so what it says about them is no test"
            )
        elif row.seen_subject:
            lines.append(f"Warning: {row.source}: the encoder was trained on a subject in it")
    return lines


def _naming(row: Row) -> str:
    """Put the file before its error, unless the error names it already."""
    named = Path(row.source).name in row.error
    return row.error if named else f"{row.source}: {row.error}"


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
    replace_text(out / f"{name}.tsv", table.to_csv(sep="\t", index=False, float_format="%.9g"))


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


def content_digest(paths: Iterable[Path], prints: Fingerprints) -> str:
    """Hash files (or folders) by name and content; where they lie makes no difference."""
    parts = [f"{path.name}\0{prints.of(path)}" for path in paths]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def folder_digest(folder: Path) -> str:
    """Hash an encoder's folder: another model decodes anew. The model card does not count."""
    parts = [Path(folder) / name for name in ENCODER_PARTS]
    return content_digest([part for part in parts if part.exists()], Fingerprints(None))


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
