"""A plan says what runs, and why."""

from __future__ import annotations

import os

import pytest

from neuro.errors import InputError, StageError

ALL = ["bursts", "scaled", "encoder", "table", "spread"]


def test_at_first_all_is_new_and_then_all_is_cached(study):
    assert study.plan() == dict.fromkeys(ALL, ("run", "new"))
    study.run()
    assert study.plan() == dict.fromkeys(ALL, ("cached", ""))


def test_until_and_force_must_name_stages(study):
    assert list(study.plan(until="scaled")) == ["bursts", "scaled"]
    with pytest.raises(InputError, match=r"--until scald: .*did you mean 'scaled'"):
        study.plan(until="scald")
    with pytest.raises(InputError, match=r"--force scald: .*did you mean 'scaled'"):
        study.plan(force=["scald"])


def test_a_parameter_is_named_with_both_values(study):
    study.run()
    plan = study.plan("scaled.factor=3", "bursts.shape.n_times=16")
    assert plan["bursts"] == ("cached", "")
    assert plan["scaled"] == ("run", "parameter factor: 2.0 → 3.0")
    assert plan["encoder"] == ("run", "input changes: scaled")
    plan = study.plan("bursts.shape.n_times=8")
    assert plan["bursts"] == ("run", "parameter shape.n_times: 16 → 8")
    assert plan["scaled"][1].startswith("input changes: bursts (its items are known when")


def test_new_members_of_a_sweep_are_named_and_the_others_kept(study):
    study.run()
    plan = study.plan("encoder.sweep.gain=[1, 2, 4]")
    assert plan["encoder"] == ("run", "new: gain=4")
    assert plan["spread"][0] == "run"
    assert study.plan("encoder.sweep.gain=[2]")["encoder"] == ("cached", "")


def test_new_items_are_counted_and_the_others_kept(study):
    study.run(until="scaled")
    study.run("bursts.n_devices=5", until="bursts")
    plan = study.plan("bursts.n_devices=5")
    assert plan["scaled"] == ("run", "items of 5 new: device3, device4")


def test_a_changed_file_is_named_and_a_moved_one_costs_reading_only(study, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    files = f"bursts.files={tmp_path}/*.txt"
    study.run(files)
    assert study.plan(files)["bursts"] == ("cached", "")
    (tmp_path / "b.txt").write_text("longer")
    assert study.plan(files)["bursts"] == ("run", "input changed: b.txt")
    (tmp_path / "b.txt").write_text("b")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a", "b"):
        os.rename(tmp_path / f"{name}.txt", moved / f"{name}.txt")
    there = f"bursts.files={moved}/*.txt"
    assert study.plan(there)["bursts"][1].startswith("parameter files:")
    study.run(there, until="bursts")
    assert {step for step, _ in study.plan(there).values()} == {"cached"}


def test_a_companion_counts(study, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    files = f"bursts.files={tmp_path}/*.txt"
    (tmp_path / "a.side").write_text("1")
    study.run(files, until="bursts")
    (tmp_path / "a.side").write_text("2")
    assert study.plan(files)["bursts"] == ("run", "input changed: a.side")


def test_the_code_version_counts(study, monkeypatch):
    from dataclasses import replace

    from neuro.runner import registry

    study.run(until="bursts")
    found = registry.stages()
    monkeypatch.setitem(found, "toy-bursts", replace(found["toy-bursts"], version=2))
    assert study.plan()["bursts"] == ("run", "code version 1 → 2")


def test_force_and_what_follows_from_it(study):
    study.run()
    plan = study.plan(force=["encoder"])
    assert plan["encoder"] == ("run", "forced")
    assert plan["scaled"] == ("cached", "")


def test_a_failure_is_told_and_not_kept(study):
    with pytest.raises(StageError):
        study.run("scaled.fail_on=device1")
    assert study.plan("scaled.fail_on=device1")["scaled"] == (
        "run",
        "failed last time: device1 can't be scaled; leave it out",
    )
    study.run()
    assert study.plan()["scaled"] == ("cached", "")


def test_a_removed_result_is_told(study):
    import shutil

    study.run()
    shutil.rmtree(study.out / ".cache" / "results" / "toy-bursts")
    plan = study.plan()
    assert plan["bursts"] == ("run", "its result was removed")


def test_planning_changes_nothing(study):
    study.plan()
    assert not study.out.exists()
