"""Cleaning removes what was chosen and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from neuro.errors import InputError
from neuro.runner import clean
from neuro.runner.store import Ref, Store

DAY = 86400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A cache with three results (one in a run, one old) and a killed process's leftovers."""
    store = Store(tmp_path / "runs/.cache")
    for stage, key, size in (("read", "k1", 10), ("read", "k2", 20), ("fit", "k3", 30)):
        ref = Ref(stage, key)
        with store.lock(ref), store.write(ref, {"returns": "table"}) as folder:
            (folder / "table.parquet").write_bytes(b"x" * size)
    run = tmp_path / "runs/.history/t1/stages"
    run.mkdir(parents=True)
    (run / "read").symlink_to(store.folder(Ref("read", "k1")) / "table.parquet")
    (tmp_path / "runs/study").symlink_to(tmp_path / "runs/.history/t1")
    left = store.cache / "results/fit/k4.tmp-1-abc"
    left.mkdir()
    (store.cache / "scratch/k4").mkdir(parents=True)
    (store.cache / "scratch/k4/last.ckpt").write_bytes(b"x" * 5)
    old = time.time() - 10 * DAY
    os.utime(store.folder(Ref("read", "k2")), (old, old))
    return store


def names(found: list[clean.Entry]) -> set[str]:
    return {entry.path.name for entry in found}


def test_entries_know_what_runs_show(store: Store) -> None:
    found = clean.entries(store, store.cache.parent)
    assert names(found) == {"k1", "k2", "k3", "k4.tmp-1-abc", "k4"}
    assert names([entry for entry in found if entry.used]) == {"k1"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, set()),
        ({"everything": True}, {"k1", "k2", "k3", "k4.tmp-1-abc", "k4"}),
        ({"unused": True}, {"k2", "k3", "k4.tmp-1-abc", "k4"}),
        ({"stages": ["read"]}, {"k1", "k2"}),
        ({"stages": ["read"], "unused": True}, {"k2"}),
        ({"older": "7d"}, {"k2"}),
        ({"older": "7d", "stages": ["fit"]}, set()),
    ],
)
def test_select(store: Store, asked: dict[str, object], expected: set[str]) -> None:
    found = clean.entries(store, store.cache.parent)
    assert names(clean.select(found, **asked)) == expected  # type: ignore[arg-type]


def test_remove_takes_only_what_was_chosen(store: Store) -> None:
    store.count_scored(Ref("fit", "k3"), {"split": 2})
    found = clean.entries(store, store.cache.parent)
    chosen = clean.select(found, unused=True)
    assert clean.remove(store, chosen) == sum(entry.n_bytes for entry in chosen) > 50
    again = Store(store.cache)
    assert again.refs() == [Ref("read", "k1")]
    assert list((store.cache / "results").rglob("*.old-*")) == []
    assert names(clean.entries(again, store.cache.parent)) == {"k1"}
    assert again.scored() == {"split": 2}


def test_what_is_being_computed_stays(store: Store) -> None:
    found = clean.select(clean.entries(store, store.cache.parent), everything=True)
    with store.lock(Ref("fit", "k4")):
        clean.remove(Store(store.cache), found)
    assert names(clean.entries(Store(store.cache), store.cache.parent)) == {"k4.tmp-1-abc", "k4"}


def test_an_empty_cache(tmp_path: Path) -> None:
    assert clean.entries(Store(tmp_path / "none"), tmp_path) == []
    assert clean.by_stage([]) == []


def test_by_stage_sums_up(store: Store) -> None:
    rows = {row[0]: row for row in clean.by_stage(clean.entries(store, store.cache.parent))}
    assert rows["read"][1] == 2
    assert rows["read"][2] > rows["read"][3] > 0
    assert rows["(unfinished)"][2] == 5


@pytest.mark.parametrize(("age", "expected"), [("2", 2 * DAY), ("12h", DAY / 2), ("1w", 7 * DAY)])
def test_ages(age: str, expected: float) -> None:
    assert clean.seconds(age) == expected


def test_wrong_input(store: Store) -> None:
    found = clean.entries(store, store.cache.parent)
    with pytest.raises(InputError, match="'soon' is no age"):
        clean.select(found, older="soon")
    with pytest.raises(InputError, match="did you mean 'read'"):
        clean.select(found, stages=["raed"])
