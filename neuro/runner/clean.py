"""What lies in a cache, what of it is in use no more, and its removal (``neuro clean``)."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from neuro.errors import InputError
from neuro.runner.document import nearest
from neuro.runner.files import read_json, size_of, writing
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
        Whether a run shows it or would find it, see `used_keys`.
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
        Where run folders are; what they show is in use.
    """
    used = used_keys(store, out)
    found = [_entry(store.folder(ref), ref.stage, ref.key in used, ref) for ref in store.refs()]
    return found + [_entry(path, "(unfinished)", False) for path in _unfinished(store)]


def _entry(path: Path, stage: str, used: bool, ref: Ref | None = None) -> Entry:
    age = time.time() - path.stat().st_mtime
    return Entry(path, stage, size_of(path), age, used, ref)


def _unfinished(store: Store) -> list[Path]:
    results = [p for p in (store.cache / "results").glob("*/*") if p.is_dir()]
    left = [
        path
        for path in results
        if _LEFT.search(path.name) or not store.has(Ref(path.parent.name, path.name))
    ]
    return sorted(left) + sorted((store.cache / "scratch").glob("*"))


def used_keys(store: Store, out: Path) -> set[str]:
    """Return the keys of results in use, and of all that they were made from.

    In use is what the latest run of a name under `out` shows, and what the next run of a
    workflow would find (the store remembers what each stage was last made of).
    """
    todo, used = _shown(store, out) | _remembered(store), set()
    while todo:
        ref = todo.pop()
        if ref.key not in used:
            used.add(ref.key)
            todo |= _made_from(store.manifest(ref) or {})
    return used


def _made_from(manifest: dict[str, Any]) -> set[Ref]:
    sources = manifest.get("inputs", {}).values()
    parts = {Ref(stage, key) for _, stage, key in manifest.get("parts", [])}
    return parts | {Ref(*ref) for source in sources for ref in source["refs"]}


def _shown(store: Store, out: Path) -> set[Ref]:
    found = set()
    for path in out.glob("*/provenance.json"):
        told = read_json(path)
        if isinstance(told, dict) and told.get("cache") == str(store.cache):
            for stage in told["stages"].values():
                found |= {Ref(stage["use"], key) for key in stage["keys"].values()}
    return found


def _remembered(store: Store) -> set[Ref]:
    found = set()
    for path in (store.cache / "last").glob("*/*.json"):
        told = read_json(path) or {}
        for record in (told.get("done"), (told.get("failed") or {}).get("record")):
            if record is None:
                continue
            for member in record["members"].values():
                keys = [member["key"], *member["items"].values()]
                found |= {Ref(record["stage"], key) for key in keys}
    return found


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
        What is not in use.
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
    """Sum up by stage: name, results, bytes, bytes not in use, newest; largest first."""
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
