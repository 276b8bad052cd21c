"""What lies in a cache, what of it no run shows any more, and its removal (``neuro clean``)."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from neuro.errors import InputError
from neuro.runner.document import nearest
from neuro.runner.files import size_of, writing
from neuro.runner.store import Ref, Store

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([dhwm]?)")
_SECONDS = {"": 86400, "d": 86400, "h": 3600, "w": 7 * 86400, "m": 30 * 86400}
_LEFT = re.compile(r"\.(tmp|old)-")


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Attributes
    ----------
    path : Path
        Its folder.
    stage : str
        The stage that made it; ``"(unfinished)"`` for what a killed process left.
    n_bytes : int
        Its size.
    age : float
        Seconds since it was made.
    used : bool
        Whether a run folder shows it.
    ref : Ref or None
        Its address; None for what is unfinished.
    """

    path: Path
    stage: str
    n_bytes: int
    age: float
    used: bool
    ref: Ref | None = None


def entries(store: Store, out: Path) -> list[Entry]:
    """List every result of a cache, and what killed processes left there.

    Parameters
    ----------
    store : Store
        The cache.
    out : Path
        Where run folders are; what they link to is in use.
    """
    shown = shown_by_runs(out)
    found = [_entry(store.folder(ref), ref.stage, shown, ref) for ref in store.refs()]
    return found + [_entry(path, "(unfinished)", shown) for path in _unfinished(store)]


def _entry(path: Path, stage: str, shown: set[Path], ref: Ref | None = None) -> Entry:
    age = time.time() - path.stat().st_mtime
    return Entry(path, stage, size_of(path), age, path.resolve() in shown, ref)


def _unfinished(store: Store) -> list[Path]:
    results = [p for p in (store.cache / "results").glob("*/*") if p.is_dir()]
    left = [
        path
        for path in results
        if _LEFT.search(path.name) or not store.has(Ref(path.parent.name, path.name))
    ]
    return sorted(left) + sorted((store.cache / "scratch").glob("*"))


def shown_by_runs(out: Path) -> set[Path]:
    """Return the result folders that links in run folders (and in their history) lead into."""
    shown: set[Path] = set()
    for folder, inside, files in os.walk(out):
        if Path(folder) == out:
            inside[:] = [name for name in inside if name != ".cache"]
        for name in [*inside, *files]:
            path = Path(folder, name)
            if path.is_symlink():
                target = path.resolve()
                shown.update((target, *target.parents))
    return shown


def select(
    found: Sequence[Entry],
    *,
    stages: Sequence[str] = (),
    unused: bool = False,
    older: str | None = None,
    everything: bool = False,
) -> list[Entry]:
    """Choose what fits every condition given.

    Parameters
    ----------
    found : sequence of Entry
    stages : sequence of str
        Results of these stages.
    unused : bool
        What no run folder shows.
    older : str, optional
        An age: ``30d``, ``12h``, ``2w``, or a number of days.
    everything : bool
        All of it; may stand alone.

    Raises
    ------
    InputError
        Where a stage has no result here, or the age can't be read.
    """
    known = sorted({entry.stage for entry in found})
    for stage in stages:
        if stage not in known:
            raise InputError(f"the cache has no result of a stage '{stage}'{nearest(stage, known)}")
    if not (stages or unused or older or everything):
        return []
    least = seconds(older) if older else 0.0
    return [
        entry
        for entry in found
        if (not stages or entry.stage in stages)
        and not (unused and entry.used)
        and entry.age >= least
    ]


def seconds(age: str) -> float:
    """Read an age.

    Examples
    --------
    >>> seconds("2d"), seconds("12h"), seconds("1")
    (172800.0, 43200.0, 86400.0)
    """
    match = _AGE.fullmatch(age.strip())
    if match is None:
        raise InputError(f"'{age}' is no age: write 30d, 12h, 2w, 3m (months) or a number of days")
    return float(match[1]) * _SECONDS[match[2]]


def remove(store: Store, chosen: Iterable[Entry]) -> int:
    """Remove results, each under its lock, and return the bytes freed.

    What another process is just computing stays. How often test splits have been scored is
    kept: it stays true when the results are gone.

    Raises
    ------
    StoreError
        Where the cache can't be written.
    """
    return sum(_remove(store, entry) for entry in chosen)


class _BusyError(Exception):
    """Another process is computing this result."""


def _busy() -> None:
    raise _BusyError


def _remove(store: Store, entry: Entry) -> int:
    ref = entry.ref or Ref(entry.path.parent.name, entry.path.name.split(".")[0])
    try:
        with store.lock(ref, waiting=_busy), writing(store.cache):
            # Renamed first: a result is either there or not, also when this is interrupted.
            gone = entry.path.with_name(f"{entry.path.name}.old-clean-{os.getpid()}")
            if not entry.path.exists():
                return 0
            os.replace(entry.path, gone)
            shutil.rmtree(gone)
            return entry.n_bytes
    except _BusyError:
        return 0


def by_stage(found: Iterable[Entry]) -> list[tuple[str, int, int, int, datetime]]:
    """Sum up by stage: name, results, bytes, bytes that no run shows, newest; largest first."""
    sums: dict[str, list[Entry]] = {}
    for entry in found:
        sums.setdefault(entry.stage, []).append(entry)
    rows = [
        (
            stage,
            len(group),
            sum(e.n_bytes for e in group),
            sum(e.n_bytes for e in group if not e.used),
            datetime.fromtimestamp(time.time() - min(e.age for e in group)),
        )
        for stage, group in sums.items()
    ]
    return sorted(rows, key=lambda row: -row[2])
