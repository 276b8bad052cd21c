"""Cleaning removes what was chosen and nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from neuro.errors import InputError
from neuro.runner import clean
from neuro.runner.store import Ref, Store

DAY = 86400


def add(store: Store, stage: str, key: str, size: int, **manifest: Any) -> Ref:
    ref = Ref(stage, key)
    with store.lock(ref), store.write(ref, {"returns": "table", **manifest}) as folder:
        (folder / "table.parquet").write_bytes(b"x" * size)
    return ref


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A cache: k1 was joined from i1 and is in a run, k2 is old, k3 in no run; and leftovers."""
    store = Store(tmp_path / "runs/.cache")
    add(store, "read", "i1", 3, inputs={"data": {"refs": [["read", "i0"]]}})
    add(store, "read", "k1", 10, parts=[["item", "read", "i1"]])
    add(store, "read", "k2", 20)
    add(store, "fit", "k3", 30)
    run = tmp_path / "runs/study"
    run.mkdir()
    stages = {"recordings": {"use": "read", "keys": {"": "k1"}}}
    told = {"cache": str(store.cache), "stages": stages}
    (run / "provenance.json").write_text(json.dumps(told))
    (store.cache / "results/fit/k4.tmp-1-abc").mkdir()
    (store.cache / "scratch/k4").mkdir(parents=True)
    (store.cache / "scratch/k4/last.ckpt").write_bytes(b"x" * 5)
    old = time.time() - 10 * DAY
    os.utime(store.folder(Ref("read", "k2")), (old, old))
    return store


def names(found: list[clean.Entry]) -> set[str]:
    return {entry.path.name for entry in found}


def test_entries_know_what_runs_show(store: Store) -> None:
    found = clean.entries(store, store.cache.parent)
    assert names(found) == {"i1", "k1", "k2", "k3", "k4.tmp-1-abc", "k4"}
    assert names([entry for entry in found if entry.used]) == {"i1", "k1"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, set()),
        ({"everything": True}, {"i1", "k1", "k2", "k3", "k4.tmp-1-abc", "k4"}),
        ({"unused": True}, {"k2", "k3", "k4.tmp-1-abc", "k4"}),
        ({"stages": ["read"]}, {"i1", "k1", "k2"}),
        ({"stages": ["read"], "unused": True}, {"k2"}),
        ({"older": "7d"}, {"k2"}),
        ({"older": "7d", "stages": ["fit"]}, set()),
    ],
)
def test_select(store: Store, asked: dict[str, object], expected: set[str]) -> None:
    found = clean.entries(store, store.cache.parent)
    assert names(clean.select(found, **asked)) == expected  # type: ignore[arg-type]


def test_what_the_next_run_would_find_is_in_use(store: Store) -> None:
    member = {"key": "k3", "items": {"a": "i9"}}
    store.remember("other", "fit", {"done": {"stage": "fit", "members": {"": member}}})
    used = clean.used_keys(Store(store.cache), store.cache.parent)
    assert used == {"k1", "i1", "i0", "k3", "i9"}


def test_a_run_of_another_cache_uses_nothing_here(store: Store, tmp_path: Path) -> None:
    assert clean.used_keys(Store(tmp_path / "other"), store.cache.parent) == set()


def test_remove_takes_only_what_was_chosen(store: Store) -> None:
    store.count_scored(Ref("fit", "k3"), {"split": 2})
    found = clean.entries(store, store.cache.parent)
    chosen = clean.select(found, unused=True)
    assert clean.remove(store, chosen) == sum(entry.n_bytes for entry in chosen) > 50
    again = Store(store.cache)
    assert again.refs() == [Ref("read", "i1"), Ref("read", "k1")]
    assert list((store.cache / "results").rglob("*.old-*")) == []
    assert names(clean.entries(again, store.cache.parent)) == {"i1", "k1"}
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
    assert rows["read"][1] == 3
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
