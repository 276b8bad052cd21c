"""Content hashes are remembered, and never wrongly."""

from __future__ import annotations

import os

import pytest

from neuro.errors import InputError
from neuro.runner import fingerprint
from neuro.runner.fingerprint import Fingerprints


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture
def aged(monkeypatch):
    """Files count as old at once (their change time can't be set)."""
    monkeypatch.setattr(fingerprint, "_RECENT_NS", -(10**18))


def reads(monkeypatch) -> list:
    seen = []
    real = fingerprint._hash
    monkeypatch.setattr(fingerprint, "_hash", lambda path: (seen.append(path), real(path))[1])
    return seen


def test_an_unchanged_file_is_read_once(tmp_path, old_file, aged, monkeypatch):
    seen, memo = reads(monkeypatch), tmp_path / "cache" / "memo.json"
    first = Fingerprints(memo).of_all([old_file])
    assert Fingerprints(memo).of_all([old_file]) == first
    assert len(seen) == 1


def test_a_file_just_written_is_not_remembered(tmp_path, old_file, monkeypatch):
    seen, memo = reads(monkeypatch), tmp_path / "memo.json"
    Fingerprints(memo).of_all([old_file])
    Fingerprints(memo).of_all([old_file])
    assert len(seen) == 2


def test_same_size_and_time_with_other_content_is_seen(tmp_path, old_file, aged):
    memo = tmp_path / "memo.json"
    before = Fingerprints(memo).of_all([old_file])
    old_file.write_bytes(b"two")
    os.utime(old_file, ns=(10**18, 10**18))
    assert Fingerprints(memo).of_all([old_file]) != before


def test_the_content_counts_and_not_the_place(tmp_path, old_file):
    other = tmp_path / "b.bin"
    other.write_bytes(b"one")
    prints = Fingerprints(None)
    assert prints.of(other) == prints.of(old_file)


def test_folders_count_names_and_contents(tmp_path):
    folder = tmp_path / "x.ds"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a").write_text("1")
    prints = Fingerprints(None)
    first = prints.of(folder)
    (folder / "in" / "a").rename(folder / "in" / "b")
    second = prints.of(folder)
    (folder / "in" / "b").write_text("2")
    assert len({first, second, prints.of(folder)}) == 3


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 3}'])
def test_a_damaged_memo_costs_only_reading(tmp_path, old_file, text):
    memo = tmp_path / "memo.json"
    memo.write_text(text)
    assert Fingerprints(memo).of(old_file) == Fingerprints(None).of(old_file)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"gone\.bin: can't be read"):
        Fingerprints(None).of(tmp_path / "gone.bin")
