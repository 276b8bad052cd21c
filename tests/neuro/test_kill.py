"""Kill at random moments and run again; Ctrl-C ends everything at once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

RUN = (
    "import sys, neuro;"
    "neuro.run(sys.argv[1], out=sys.argv[2], n_jobs=int(sys.argv[3]), sets=sys.argv[4:])"
)


def start(study, out, n_jobs, *sets, program=(sys.executable, "-c", RUN)):
    command = [*program, str(study.path), str(out), str(n_jobs), *sets]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def processes_of(folder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def results(study, out) -> dict:
    folder = out / "toy"
    provenance = json.loads((folder / "provenance.json").read_text())
    keys = {name: stage["keys"] for name, stage in provenance["stages"].items()}
    return {"metrics": json.loads((folder / "metrics.json").read_text()), "keys": keys}


def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(study, tmp_path):
    study.text = study.text.split("  table:")[0] + "  spread:" + study.text.split("  spread:")[1]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(study, tmp_path / "warm", 1).wait(120) == 0  # compiles what is imported
    began = time.monotonic()
    assert start(study, whole, 1).wait(120) == 0
    usual = time.monotonic() - began
    moments = random.Random(5)
    killed = 0
    for _ in range(4):
        process = start(study, broken, 1)
        time.sleep(moments.uniform(0.1, 0.8) * usual)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    last = start(study, broken, 1)
    assert last.wait(120) == 0, last.stderr.read()
    assert killed > 0
    assert results(study, broken) == results(study, whole)
    assert not list((broken / ".cache" / "scratch").glob("*"))


def test_scratch_survives_a_kill(study):
    study.run(until="scaled")
    process = start(study, study.out, 1, "encoder.die=kill")
    assert process.wait(120) == -signal.SIGKILL
    found = list((study.out / ".cache" / "scratch").glob("*/checkpoint"))
    assert [path.read_text() for path in found] == ["half"] * len(found)
    assert found


def test_processes_end_when_their_driver_is_killed(study, tmp_path):
    trace = tmp_path / "trace"
    process = start(study, study.out, 2, f"scaled.trace={trace}", "scaled.wait=120")
    assert wait_until(trace.exists)
    process.kill()
    process.wait()
    assert wait_until(lambda: not processes_of(tmp_path), 20)
    plan = study.plan(f"scaled.trace={trace}", "scaled.wait=120")
    assert plan["bursts"] == ("cached", "")
    assert plan["scaled"] == ("run", "interrupted last time")


@pytest.mark.parametrize("n_jobs", ["1", "2"])
def test_ctrl_c_ends_quickly_and_keeps_what_was_done(study, tmp_path, n_jobs):
    trace = tmp_path / "trace"
    sets = ["--set", f"scaled.trace={trace}", "--set", "scaled.wait=120"]
    command = [sys.executable, "-c", "from neuro.cli import main; main()", "run", str(study.path)]
    process = subprocess.Popen(
        [*command, "--out", str(study.out), "-j", n_jobs, *sets],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert wait_until(trace.exists)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)  # the stage itself would take two minutes
    assert process.returncode == 128 + signal.SIGINT
    assert "Interrupted. What was finished is kept" in told
    assert "Traceback" not in told
    assert wait_until(lambda: not processes_of(tmp_path), 20)
    assert study.plan()["bursts"][0] == "cached"
    assert not list((study.out / ".cache" / "results").glob("*/*.tmp-*"))


def test_two_runs_at_once_share_their_work(study, tmp_path):
    trace = tmp_path / "trace"
    study.text = study.text.split("  encoder:")[0]
    sets = (f"scaled.trace={trace}", "scaled.wait=0.5")
    both = [start(study, study.out, 1, *sets) for _ in range(2)]
    for process in both:
        assert process.wait(120) == 0, process.stderr.read()
    assert sorted(trace.read_text().split()) == ["device0", "device1", "device2"]
    assert len(list((study.out / ".history").iterdir())) == 2
