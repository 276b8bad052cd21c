"""The engine shares the cores, hands jobs on as plain values, and trusts only the store."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.runner import engine
from neuro.runner.cores import share, thread_variables
from neuro.runner.engine import Engine
from neuro.runner.tasks import resolve, value_of
from neuro.runner.work import Job
from neuro.runner.workflow import Compute

counts = st.integers(1, 200)


@given(n_jobs=counts, n_tasks=counts, cpus=st.none() | counts, n_cores=counts)
def test_processes_times_threads_never_exceed_the_cores(n_jobs, n_tasks, cpus, n_cores):
    workers, threads = share(n_jobs, n_tasks, cpus, n_cores)
    assert workers >= 1
    assert threads >= 1
    assert workers * threads <= n_cores
    assert workers <= min(n_jobs, n_tasks)


def test_a_job_goes_through_json_unchanged(study):
    values = {}
    loaded = study.load("bursts.noise=100 uV")
    study.run("bursts.noise=100 uV", until="scaled")
    for node in loaded.until("encoder"):
        parts = resolve(node, values, study.store)
        values[node.name] = value_of(parts)
        tasks = tuple(task for part in parts for task in part.tasks)
        job = Job("cache", node.name, node.stage.name, tasks, 2, True, 1.5)
        assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_threads_are_set_for_processes_and_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with thread_variables(3):
        assert os.environ["OMP_NUM_THREADS"] == "1"  # fewer was asked for outside
        assert os.environ["MKL_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_processes_see_the_gpus_of_their_driver(monkeypatch):
    monkeypatch.setattr(engine.threading, "Thread", lambda **kwargs: _Thread())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine._settle({"pid": 1, "cuda": None})
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    engine._settle({"pid": 1, "cuda": "0,1"})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


class _Thread:
    name = "none"

    def start(self):
        pass


def test_compute_is_handed_on_to_slurm():
    wanted = Compute(cpus=4, gpus=1, memory="8 GB", time="2 h")
    assert engine._settings(wanted, "slurm") == {
        "cluster": "slurm",
        "cpus_per_task": 4,
        "gpus_per_node": 1,
        "mem_gb": 8.0,
        "timeout_min": 120,
    }
    assert engine._settings(wanted, "local")["timeout_min"] > 60 * 24 * 30


@pytest.mark.parametrize(("srun", "place"), [("/usr/bin/srun", "slurm"), (None, "local")])
def test_auto_is_slurm_where_there_is_one(monkeypatch, srun, place):
    monkeypatch.setattr(engine.shutil, "which", lambda name: srun)
    assert engine._place("auto") == place


def test_members_with_the_same_inputs_are_trained_together(study):
    study.run(until="scaled")
    loaded = study.load()
    values = {}
    for node in loaded.until("encoder"):
        parts = resolve(node, values, study.store)
        values[node.name] = value_of(parts)
    tasks = [task for part in parts for task in part.tasks]
    assert [len(group) for group in engine._together(node, tasks)] == [2]
    assert Engine(study.store).compute(node, [*tasks, *tasks]) == []  # given twice: made once


def test_one_job_can_run_in_a_process_of_its_own(study):
    study.run(until="bursts")
    loaded = study.load()
    (part,) = resolve(loaded.nodes["bursts"], {}, study.store)
    values = {"bursts": value_of([part])}
    (scaled,) = resolve(loaded.nodes["scaled"], values, study.store)
    task = scaled.tasks[0]
    job = Job(str(study.store.cache), "scaled", "toy-scale", (task,), 1)
    with Engine(study.store) as made:
        assert made._elsewhere(loaded.nodes["scaled"], [job], 1, "local") == []
    assert study.store.has(task.ref)
    assert list((study.store.cache / "engine").iterdir()) == []


def test_the_error_cache_of_exca_can_not_come_back(study):
    """Errors travel as data: exca caches a job that failed, and its folder is gone anyway."""
    study.run(until="bursts")
    loaded = study.load("scaled.fail_on=device0")
    (part,) = resolve(loaded.nodes["bursts"], {}, study.store)
    (scaled,) = resolve(loaded.nodes["scaled"], {"bursts": value_of([part])}, study.store)
    task = scaled.tasks[0]
    job = Job(str(study.store.cache), "scaled", "toy-scale", (task,), 1)
    order = json.dumps({"uid": task.ref.key, "driver": None, "job": job.to_json()})
    (failure,) = json.loads(engine.carry_out(order))
    assert failure["message"] == "device0 can't be scaled; leave it out"
    assert "DataError" in failure["trace"]
    assert not study.store.has(task.ref)
