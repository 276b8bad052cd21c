"""Running a workflow: what is computed, what is kept, and the folder that comes out."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

from neuro.errors import InputError, StageError, StoreError
from neuro.runner.run import rebuild_report
from neuro.runner.store import Ref, Store


def read(path):
    return json.loads(path.read_text())


def lines(path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_run_folder_holds_everything(study):
    import neuro

    folder = study.run()
    assert folder == study.out / "toy"
    assert folder.is_symlink()
    assert {path.name for path in folder.iterdir()} == {
        "bursts",
        "encoder",
        "methods.md",
        "metrics.json",
        "predictions.parquet",
        "provenance.json",
        "report.html",
        "resolved.yaml",
        "scaled",
        "spread",
        "table.parquet",
    }
    assert neuro.open_dataset(folder / "scaled").sizes["trial"] == 12
    encoder = folder / "encoder" / "gain=2"
    assert not encoder.is_symlink()
    assert neuro.load(encoder).gain == 2
    table = pd.read_parquet(folder / "table.parquet")
    assert table["gain"].tolist() == [1, 2]
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert set(predictions["unit"]) == {"device0", "device1", "device2"}


def test_metrics_are_one_flat_mapping_with_all_fields(study):
    metrics = read(study.run() / "metrics.json")
    fields = [
        "value",
        "low",
        "high",
        "n",
        "n_unit",
        "chance",
        "p",
        "p_corrected",
        "baseline",
        "unit",
    ]
    assert all(list(entry) == fields for entry in metrics.values())
    assert metrics["toy.spread"]["n_unit"] == "member"
    assert {"toy.one.spread[gain=1]", "toy.one.spread[gain=2]"} <= set(metrics)


def test_provenance_tells_how_it_was_made(study, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    told = read(study.run(f"bursts.files={tmp_path}/a.txt") / "provenance.json")
    assert told["status"] == "done"
    assert told["seed"] == 3
    assert {"python", "neuro", "numpy", "torch"} <= set(told["versions"])
    bursts = told["stages"]["bursts"]
    assert bursts["seeds"] == [3]
    assert list(bursts["files"]) == [str(tmp_path / "a.txt")]
    assert bursts["peak_memory"] > 1e6
    assert told["stages"]["encoder"]["results"] == 2
    assert told["scored"] == {"devices": 1}


def test_a_rerun_computes_nothing_and_reports_the_same(study, tmp_path):
    trace = tmp_path / "trace"
    sets = (f"scaled.trace={trace}", f"encoder.trace={trace}")
    first = study.run(*sets).resolve()
    calls = lines(trace)
    assert sorted(calls) == ["device0", "device1", "device2", "together 2"]
    second = study.run(*sets).resolve()
    assert lines(trace) == calls
    assert first != second
    for name in ("metrics.json", "resolved.yaml", "report.html", "methods.md"):
        assert (first / name).read_text() == (second / name).read_text()
    assert (first / "predictions.parquet").read_bytes() == (
        second / "predictions.parquet"
    ).read_bytes()


def test_one_new_item_and_one_new_member_cost_only_themselves(study, tmp_path):
    trace = tmp_path / "trace"
    sets = (f"scaled.trace={trace}", f"encoder.trace={trace}")
    study.run(*sets, until="encoder")
    trace.unlink()
    study.run(*sets, "bursts.n_devices=4", until="scaled")
    assert lines(trace) == ["device3"]
    trace.unlink()
    study.run(*sets, "encoder.sweep.gain=[1, 2, 3]", until="encoder")
    assert lines(trace) == []  # one member alone is trained by itself, not together


def test_each_over_files(study, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    study.text = "version: 1\nname: toy\nstages:\n  read:\n    use: toy-read\n    each: '*.txt'\n"
    import neuro

    data = neuro.open_dataset(study.run() / "read")
    assert data.subject.values.tolist() == ["a"] * 4 + ["b"] * 4
    provenance = read(study.out / "toy" / "provenance.json")
    assert provenance["stages"]["read"]["results"] == 2


def test_processes_give_the_same_as_one(study, tmp_path):
    one = study.run(out=tmp_path / "one", cache=tmp_path / "c1", until="scaled")
    two = study.run(out=tmp_path / "two", cache=tmp_path / "c2", until="scaled", n_jobs=2)
    stages = [read(run / "provenance.json")["stages"] for run in (one, two)]
    assert stages[0]["scaled"]["keys"] == stages[1]["scaled"]["keys"]
    (key,) = stages[0]["scaled"]["keys"].values()
    digests = [Store(tmp_path / c).get(Ref("toy-scale", key))["digest"] for c in ("c1", "c2")]
    assert digests[0] == digests[1]
    assert list((tmp_path / "c2" / "engine").iterdir()) == []


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_in_one_item_keeps_the_others(study, tmp_path, n_jobs):
    trace = tmp_path / "trace"
    sets = (f"scaled.trace={trace}",)
    with pytest.raises(StageError) as caught:
        study.run(*sets, "scaled.fail_on=device1", n_jobs=n_jobs)
    text = str(caught.value)
    assert "stage 'scaled' (toy-scale) failed for 1 of 3" in text
    assert "item=device1: device1 can't be scaled; leave it out" in text
    assert sorted(lines(trace)) == ["device0", "device1", "device2"]
    (history,) = (study.out / ".history").iterdir()
    assert read(history / "provenance.json")["status"] == "failed"
    assert "DataError" in next((history / "errors").iterdir()).read_text()
    assert not (study.out / "toy").exists()


def test_an_error_is_not_kept_for_the_next_run(study, tmp_path):
    trace, fail = tmp_path / "trace", "scaled.fail_on=device1"
    for expected in (3, 4):  # the two good items are kept, the bad one is tried again
        with pytest.raises(StageError):
            study.run(f"scaled.trace={trace}", fail, n_jobs=2)
        assert len(lines(trace)) == expected


def test_a_worker_that_dies_is_told_and_the_others_are_kept(study):
    with pytest.raises(StageError, match="ended without a result"):
        study.run("scaled.kill_on=device1", until="scaled", n_jobs=2)
    assert len(study.store.refs()) >= 2  # the bursts, and what the other process made


def test_a_forced_stage_with_other_content_is_followed_by_what_hangs_on_it(study, tmp_path):
    source, trace = tmp_path / "hidden", tmp_path / "trace"
    study.text = (
        "version: 1\nname: toy\nstages:\n"
        f"  hidden:\n    use: toy-hidden\n    source: {source}\n"
        f"  scaled:\n    use: toy-scale\n    data: ${{hidden}}\n    trace: {trace}\n"
    )
    source.write_text("1")
    study.run()
    study.run(force=["hidden"])
    assert len(lines(trace)) == 1  # the same content came out
    source.write_text("2")
    study.run()
    assert len(lines(trace)) == 1  # it can't be seen: the stage does not declare the file
    study.run(force=["hidden"])
    assert len(lines(trace)) == 2


def test_cleaning_the_cache_keeps_the_encoders_of_a_run(study):
    import shutil

    import neuro

    folder = study.run()
    shutil.rmtree(study.out / ".cache")
    assert neuro.load(folder / "encoder" / "gain=1").gain == 1


def test_a_list_must_not_be_empty_of_trials(study):
    with pytest.raises(StageError, match="no trials are left in any of the 3 items"):
        study.run("bursts.shape.n_bursts=2", "scaled.keep=0")


def test_the_report_is_built_again_from_the_store(study):
    folder = study.run()
    report = folder / "report.html"
    report.write_text("")
    assert rebuild_report(folder).read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(InputError, match="is no run folder"):
        rebuild_report(study.folder)


def test_a_read_only_cache_is_told_before_anything_runs(study):
    file = study.folder / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="give another folder with --cache"):
        study.run(cache=file / "cache")
    assert not study.out.exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"n_jobs": 0}, "-j 0"), ({"cluster": "mars"}, "--cluster mars: expected local")],
)
def test_wrong_settings_of_the_engine_are_told(study, settings, says):
    with pytest.raises(InputError, match=says):
        study.run(**settings)


def test_slurm_that_is_not_there_is_told(study, monkeypatch):
    monkeypatch.setenv("PATH", str(study.folder))
    with pytest.raises(InputError, match="no SLURM was found here"):
        study.run(cluster="slurm")


def test_a_real_folder_in_the_way_is_not_removed(study):
    (study.out / "toy").mkdir(parents=True)
    (study.out / "toy" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"toy is in the way"):
        study.run()
    assert (study.out / "toy" / "mine.txt").read_text() == "precious"


def test_lines_tell_each_stage_and_a_cached_rerun_loads_nothing_heavy(study):
    code = (
        "import sys; import neuro; neuro.run(sys.argv[1], out=sys.argv[2]);"
        "print(','.join(sorted({'torch', 'mne', 'xarray', 'pandas', 'exca'} & set(sys.modules))))"
    )
    for first in (True, False):
        told = subprocess.run(
            [sys.executable, "-c", code, str(study.path), str(study.out)],
            capture_output=True,
            text=True,
            check=True,
        )
        stages = [line.split()[0] for line in told.stderr.splitlines() if " cached" in line]
        assert stages == ([] if first else ["bursts", "scaled", "encoder", "table", "spread"])
    assert told.stdout.strip() == ""
