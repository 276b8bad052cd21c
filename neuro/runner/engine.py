"""Run jobs here, in local processes, or on a cluster: the only file that imports exca.

exca addresses its own cache by configuration, caches errors and can't see whether our result is
complete. So its folder is new for every run and removed afterwards, and whether a job is done is
judged by our store alone.
"""

# No `from __future__ import annotations` here: exca reads the annotation of a mapped method.

import contextlib
import json
import logging
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import exca
import psutil
import pydantic

from neuro.errors import InputError
from neuro.runner.cores import cores, share, thread_variables
from neuro.runner.files import writing
from neuro.runner.plan import fresh
from neuro.runner.progress import Reporter
from neuro.runner.store import Ref, Store
from neuro.runner.tasks import Task, label_text
from neuro.runner.work import Failure, Job, compute
from neuro.runner.workflow import Compute, Node

# submitit ends jobs after two (local) or five (SLURM) minutes unless told otherwise
_YEAR_MIN = 365 * 24 * 60
_DAY_MIN = 24 * 60
_DAY_S = 24 * 3600
_POLL_S = 0.5


logging.getLogger("exca").setLevel(logging.WARNING)


def _uid(order: str) -> str:
    return str(json.loads(order)["uid"])


class _One(pydantic.BaseModel):
    """One job; its address is the key of its first result."""

    uid: str
    order: str
    infra: exca.TaskInfra = exca.TaskInfra(version="1")
    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("order",)

    @infra.apply
    def outcome(self) -> str:
        return carry_out(self.order)


class _Many(pydantic.BaseModel):
    """Jobs of one stage."""

    stage: str
    infra: exca.MapInfra = exca.MapInfra(version="1")

    @infra.apply(item_uid=_uid)
    def outcomes(self, orders: Sequence[str]) -> Iterator[str]:
        for order in orders:
            yield carry_out(order)


def carry_out(order: str) -> str:
    """Compute one job in the process in which an executor started it.

    Parameters
    ----------
    order : str
        JSON of the job, and of what the process must know of its driver.

    Returns
    -------
    str
        JSON of the failures; errors are told as data, so that the other jobs of the process go on
        and no error is ever cached.
    """
    told = json.loads(order)
    _settle(told["driver"])
    job = Job.from_json(told["job"])
    failures = compute(job, Store(job.cache), Reporter())
    return json.dumps([vars(failure) for failure in failures])


def _settle(driver: dict[str, Any] | None) -> None:
    """Take over the driver's view of the GPUs, and end when it is gone (local processes)."""
    if driver is None:
        return
    if driver["cuda"] is None:  # submitit hides all GPUs from local jobs that asked for none
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = driver["cuda"]
    if not any(thread.name == "neuro-driver" for thread in threading.enumerate()):
        threading.Thread(
            target=_end_with, args=(driver["pid"],), name="neuro-driver", daemon=True
        ).start()


def _end_with(pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        driver = psutil.Process(pid)
        while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)  # results appear whole or not at all


class Engine:
    """Computes the tasks of stages.

    Parameters
    ----------
    store : Store
        Where results go.
    n_jobs : int
        Local processes at most; jobs times threads never exceed the cores.
    cluster : str or None
        ``"local"`` (or None), ``"slurm"`` or ``"auto"``.
    reporter : Reporter
        Where progress goes.
    """

    def __init__(
        self, store: Store, n_jobs: int = 1, cluster: str | None = None, reporter: Any = None
    ) -> None:
        if n_jobs < 1:
            raise InputError(f"-j {n_jobs}: expected at least 1 job")
        if cluster not in (None, "local", "slurm", "auto"):
            raise InputError(f"--cluster {cluster}: expected local, slurm or auto")
        self.store, self.n_jobs, self.cluster = store, n_jobs, cluster
        self.reporter = reporter or Reporter()
        self._folder: Path | None = None
        self._guard: Any = None

    def compute(self, node: Node, tasks: Sequence[Task], force: bool = False) -> list[Failure]:
        """Compute tasks of one stage; what could be computed is in the store afterwards.

        Returns
        -------
        list of Failure
            One for each task without a result.
        """
        where = _place(node.compute.cluster or self.cluster or "local")
        unique = list({task.ref: task for task in tasks}.values())
        groups = _together(node, unique)
        workers, threads = len(groups), node.compute.cpus or 1
        if where == "local":
            workers, threads = share(self.n_jobs, len(groups), node.compute.cpus, cores())
        since = time.time()
        jobs = [
            Job(
                str(self.store.cache), node.name, node.stage.name, tuple(group),
                threads, force, since,
            )
            for group in groups
        ]  # fmt: skip
        if where == "local" and workers == 1:
            failures = self._here(node, jobs)
        else:
            failures = self._elsewhere(node, jobs, workers, where)
        for task in tasks:
            self.store.forget(task.ref)
        return failures

    def _here(self, node: Node, jobs: list[Job]) -> list[Failure]:
        several = len(jobs) > 1
        tracked = self.reporter.track(jobs, node.name) if several else iter(jobs)
        failures: list[Failure] = []
        for job in tracked:
            failures += compute(job, self.store, self.reporter)
        return failures

    # -- other processes ------------------------------------------------------------------------

    def _elsewhere(self, node: Node, jobs: list[Job], workers: int, where: str) -> list[Failure]:
        here = {"pid": os.getpid(), "cuda": os.environ.get("CUDA_VISIBLE_DEVICES")}
        driver = here if where == "local" else None
        orders = [
            json.dumps({"uid": job.tasks[0].ref.key, "driver": driver, "job": job.to_json()})
            for job in jobs
        ]
        if where != "local":
            self.reporter.line(f"  {node.name}: passed on to '{where}', which is not proven yet")
        settings = _settings(node.compute, where)
        with (
            self._watched(node, jobs),
            thread_variables(jobs[0].threads) if where == "local" else contextlib.nullcontext(),
            self._tidied(jobs),
            self._children(),
        ):
            try:
                told = self._submit(node, orders, workers, settings)
            except Exception as error:
                return self._lost(jobs, error, where)
        return [Failure(**failure) for one in told for failure in json.loads(one)]

    def _submit(
        self, node: Node, orders: list[str], workers: int, settings: dict[str, Any]
    ) -> list[str]:
        folder = self._own_folder()
        if len(orders) == 1:
            infra = {"folder": folder, "mode": "retry", **settings}
            one = _One(uid=_uid(orders[0]), order=orders[0], infra=infra)
            return [one.outcome()]
        infra = {"folder": folder, "max_jobs": workers, "keep_in_ram": False, **settings}
        many = _Many(stage=node.stage.name, infra=infra)
        return list(many.outcomes(orders))

    def _lost(self, jobs: list[Job], error: Exception, where: str) -> list[Failure]:
        """Tell which tasks have no result after a process ended without an answer."""
        if (
            where != "local"
            and isinstance(error, (RuntimeError, FileNotFoundError))
            and ("srun" in str(error) or "sbatch" in str(error) or "slurm" in str(error).lower())
        ):
            raise InputError(
                f"--cluster {where}: no SLURM was found here ({str(error).splitlines()[0]}); "
                f"run on a cluster's login node, or use --cluster local"
            ) from error
        missing = [
            task
            for job in jobs
            for task in job.tasks
            if not fresh(self.store, task.ref)
            or (job.force and self.store.get(task.ref).get("finished", 0) < job.since)
        ]
        first = str(error).strip().splitlines()
        message = (
            f"its process ended without a result ({type(error).__name__}: "
            f"{first[-1] if first else ''}); out of memory, killed, or broken"
        )
        return [Failure(label_text(task.label), message, str(error)) for task in missing]

    def _own_folder(self) -> Path:
        if self._folder is None:
            from filelock import FileLock

            engine = self.store.cache / "engine"
            with writing(self.store.cache):
                _tidy(engine)
                folder = engine / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
                folder.mkdir(parents=True)
                self._guard = FileLock(folder / "driver.lock")
                self._guard.acquire()
            self._folder = folder
        return self._folder

    @contextlib.contextmanager
    def _tidied(self, jobs: list[Job]) -> Iterator[None]:
        """Remove what processes that were killed left half-written."""
        try:
            yield
        finally:
            for job in jobs:
                for task in job.tasks:
                    self.store.tidy(task.ref)

    @contextlib.contextmanager
    def _watched(self, node: Node, jobs: list[Job]) -> Iterator[None]:
        """Show how many results are in while other processes make them."""
        end = threading.Event()
        refs = [task.ref for job in jobs for task in job.tasks]

        def arrivals() -> Iterator[Ref]:
            left = list(refs)
            while left and not end.is_set():
                here = [r for r in left if (self.store.folder(r) / "manifest.json").exists()]
                yield from here
                left = [ref for ref in left if ref not in here]
                end.wait(_POLL_S)

        def watch() -> None:
            for _ in self.reporter.track(arrivals(), node.name, len(refs)):
                pass

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join(5)

    @contextlib.contextmanager
    def _children(self) -> Iterator[None]:
        """End the processes started inside the block when it is left by Ctrl-C or an error."""
        before = {child.pid for child in psutil.Process().children()}
        try:
            yield
        except BaseException:
            started = [c for c in psutil.Process().children() if c.pid not in before]
            tree = [p for child in started for p in [child, *_below(child)]]
            for process in tree:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(tree, timeout=3)
            raise

    def close(self) -> None:
        """Remove the engine's folder."""
        if self._folder is not None:
            self._guard.release()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def _place(wanted: str) -> str:
    """Decide what ``auto`` means: SLURM where it is installed, else this machine."""
    if wanted == "auto":
        return "slurm" if shutil.which("srun") else "local"
    return wanted


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _together(node: Node, tasks: Sequence[Task]) -> list[list[Task]]:
    """Group the members that a stage computes at once: same inputs, no items."""
    if node.stage.together is None or node.each is not None:
        return [[task] for task in tasks]
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        inputs = json.dumps({name: s.to_json() for name, s in task.inputs.items()}, default=str)
        groups.setdefault(inputs, []).append(task)
    return list(groups.values())


def _settings(wanted: Compute, where: str) -> dict[str, Any]:
    if where == "local":
        return {"cluster": where, "timeout_min": _YEAR_MIN}
    settings: dict[str, Any] = {"cluster": where, "timeout_min": _DAY_MIN}
    if wanted.cpus is not None:
        settings["cpus_per_task"] = wanted.cpus
    if wanted.gpus is not None:
        settings["gpus_per_node"] = wanted.gpus
    if wanted.memory is not None:
        settings["mem_gb"] = wanted.memory
    if wanted.time is not None:
        settings["timeout_min"] = max(1, round(float(wanted.time)))
    return settings


def _tidy(engine: Path) -> None:
    """Remove the folders of drivers that were killed long ago."""
    from filelock import FileLock, Timeout

    for folder in engine.glob("*"):
        with contextlib.suppress(OSError, Timeout):
            if time.time() - folder.stat().st_mtime > _DAY_S:
                with FileLock(folder / "driver.lock").acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
