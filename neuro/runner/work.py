"""Compute tasks in this process: open the inputs, call the stage, keep the result."""

from __future__ import annotations

import contextlib
import errno
import platform
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neuro.errors import NeuroError, StageError, StoreError
from neuro.runner import kinds
from neuro.runner.context import RunContext
from neuro.runner.cores import torch_threads
from neuro.runner.files import store_error
from neuro.runner.keys import canonical
from neuro.runner.memory import PeakMemory
from neuro.runner.plan import fresh
from neuro.runner.progress import Reporter
from neuro.runner.registry import get_stage
from neuro.runner.store import Ref, Store
from neuro.runner.tasks import Part, Source, Task, label_text
from neuro.runner.workflow import Node
from neuro.stage import Stage

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Job:
    """Tasks of one stage that are computed in one go (several: by its ``together``)."""

    cache: str
    node: str
    stage: str
    tasks: tuple[Task, ...]
    threads: int
    force: bool = False
    since: float = 0.0  # with force: a result made after this time counts

    def to_json(self) -> dict[str, Any]:
        """Return plain values, so that a job can go to another process without a pickle."""
        tasks = [
            {
                "key": task.ref.key,
                "params": task.params.model_dump(mode="json", round_trip=True),
                "inputs": {name: source.to_json() for name, source in task.inputs.items()},
                "files": task.files,
                "label": canonical(task.label),
                "item": task.item,
            }
            for task in self.tasks
        ]
        return {**vars(self), "tasks": tasks}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """Read back what `to_json` gave."""
        stage = get_stage(value["stage"])
        tasks = tuple(
            Task(
                Ref(stage.name, task["key"]),
                stage.params.model_validate(task["params"]),
                {name: Source.from_json(source) for name, source in task["inputs"].items()},
                task["files"],
                task["label"],
                task["item"],
            )
            for task in value["tasks"]
        )
        return cls(**{**value, "tasks": tasks})


@dataclass(frozen=True)
class Failure:
    """Why one task has no result."""

    label: str
    message: str
    trace: str = ""


def compute(job: Job, store: Store, reporter: Reporter) -> list[Failure]:
    """Compute the tasks of a job that have no result yet.

    Returns
    -------
    list of Failure
        Empty where all went well. Only Ctrl-C and the like are raised.
    """
    stage = get_stage(job.stage)
    labels = [label_text(task.label) for task in job.tasks]
    try:
        with contextlib.ExitStack() as locks:
            for task in sorted(job.tasks, key=lambda t: t.ref):
                locks.enter_context(store.lock(task.ref, _waiting(job, task, reporter)))
            missing = [task for task in job.tasks if not _is_done(job, task, store)]
            if missing:
                _make(job, stage, missing, store, reporter)
    except Exception as error:
        told = error.__cause__ if isinstance(error, _Failed) and error.__cause__ else error
        trace = "".join(traceback.format_exception(told))
        return [Failure(label, _message(told), trace) for label in labels]
    return []


def _waiting(job: Job, task: Task, reporter: Reporter) -> Any:
    named = f" {label_text(task.label)}" if task.label else ""
    return lambda: reporter.line(f"  {job.node}{named}: another run computes it; waiting")


def _is_done(job: Job, task: Task, store: Store) -> bool:
    if not fresh(store, task.ref):
        return False
    return not job.force or store.get(task.ref).get("finished", 0) >= job.since


class _Failed(Exception):
    """The stage's own function raised; keeps its errors apart from those of the store."""


def _make(job: Job, stage: Stage, tasks: list[Task], store: Store, reporter: Reporter) -> None:
    manifests = [_manifest(job, stage, task, store) for task in tasks]
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(store.write(task.ref, manifest))
            for task, manifest in zip(tasks, manifests, strict=True)
        ]
        contexts = [
            RunContext(
                job.node, t.ref.key, folder, store.scratch(t.ref), job.threads,
                {n: list(s.labels) for n, s in t.inputs.items() if s.many}, reporter,
            )
            for t, folder in zip(tasks, folders, strict=True)
        ]  # fmt: skip
        started = time.monotonic()
        with (
            PeakMemory() as memory,
            torch_threads(job.threads),
            _warnings_to(contexts[0]),
        ):
            results = _call(stage, tasks, contexts, store)
        spent = (time.monotonic() - started) / len(tasks)
        for result, folder, manifest in zip(results, folders, manifests, strict=True):
            kinds.save(result, stage.returns, folder)
            manifest.update(kinds.describe(folder, stage.returns))
            manifest.update(duration=spent, peak_memory=memory.peak, finished=time.time())
        scored = [context.finish() for context in contexts]
    for task, counts in zip(tasks, scored, strict=True):
        store.count_scored(task.ref, counts)


def _call(stage: Stage, tasks: list[Task], contexts: list[RunContext], store: Store) -> list[Any]:
    opened: dict[Ref, Any] = {}
    inputs = [_inputs(stage, task, store, opened) for task in tasks]
    try:
        if len(tasks) == 1 or stage.together is None:
            return [
                stage.function(**given, params=task.params, context=context)
                for given, task, context in zip(inputs, tasks, contexts, strict=True)
            ]
        results = stage.together(inputs[0], [task.params for task in tasks], contexts)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise store_error(store.cache, error) from error
        raise _Failed from error
    if len(results) != len(tasks):
        raise StageError(f"'{stage.name}' gave {len(results)} results for {len(tasks)} members")
    return list(results)


@contextlib.contextmanager
def _warnings_to(context: RunContext) -> Iterator[None]:
    """Show the warnings of a stage's own code as the run's, each text once."""
    told: set[str] = set()

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        text = str(message)
        if issubclass(category, UserWarning) and text not in told:
            told.add(text)
            context.warn(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _inputs(stage: Stage, task: Task, store: Store, opened: dict[Ref, Any]) -> dict[str, Any]:
    inputs = {name: _open(source, store, opened) for name, source in task.inputs.items()}
    for wanted in stage.inputs.values():
        if wanted.name not in inputs and not _has_default(stage, wanted.name):
            inputs[wanted.name] = [] if wanted.many else None
    return inputs


def _has_default(stage: Stage, name: str) -> bool:
    import inspect

    parameter = inspect.signature(stage.function).parameters[name]
    return parameter.default is not inspect.Parameter.empty


def _open(source: Source, store: Store, opened: dict[Ref, Any]) -> Any:
    for ref in source.refs:
        if ref not in opened:
            opened[ref] = store.open(ref)
    values = [opened[ref] for ref in source.refs]
    if source.item is not None:
        return kinds.select(values[0], source.item)
    return values if source.many else values[0]


def _manifest(job: Job, stage: Stage, task: Task, store: Store) -> dict[str, Any]:
    made_from = [
        [ref.stage, ref.key, store.get(ref)["digest"]]
        for source in task.inputs.values()
        if source.item is None
        for ref in source.refs
    ]
    return {
        "version": stage.version,
        "returns": stage.returns,
        "params": canonical(task.params),
        "inputs": {name: source.to_json() for name, source in task.inputs.items()},
        "made_from": made_from,
        "files": task.files,
        "label": canonical(task.label),
        "item": task.item,
        "python": platform.python_version(),
    }


def join(job_name: str, part: Part, returns: str, store: Store) -> None:
    """Put the results of a part's items together.

    Raises
    ------
    StageError
        Where they don't fit together, or no item has a trial left.
    """
    with store.lock(part.ref):
        if fresh(store, part.ref):
            return
        parts = [[t.item, t.ref.stage, t.ref.key] for t in part.tasks]
        made_from = [[t.ref.stage, t.ref.key, store.get(t.ref)["digest"]] for t in part.tasks]
        manifest: dict[str, Any] = {"returns": returns, "parts": parts, "made_from": made_from}
        with store.write(part.ref, manifest) as folder:
            started = time.monotonic()
            kinds.save(_joined(job_name, part, returns, store), returns, folder)
            manifest.update(kinds.describe(folder, returns))
            manifest["duration"] = time.monotonic() - started


def _joined(name: str, part: Part, returns: str, store: Store) -> Any:
    values = [store.open(task.ref) for task in part.tasks]
    if not values:
        raise StageError(f"{name}: there is no item to work on")
    if returns == "dataset" and all(value.sizes.get("trial", 1) == 0 for value in values):
        raise StageError(
            f"{name}: no trials are left in any of the {len(values)} items; "
            f"the report of each says why"
        )
    try:
        return kinds.join(values, returns)
    except NeuroError as error:
        raise StageError(f"{name}: the items don't fit together: {error}") from error


def _message(error: BaseException) -> str:
    if isinstance(error, NeuroError | StoreError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def raise_failures(node: Node, failures: list[Failure], total: int) -> None:
    """Raise one error that names what failed in a stage.

    Raises
    ------
    StageError
        With every failure's item or member and message; ``error.failures`` holds them.
    """
    if not failures:
        return
    several = total > 1
    lines = [f"  {f.label}: {f.message}" if f.label else f.message for f in failures[:20]]
    if len(failures) > 20:
        lines.append(f"  ... and {len(failures) - 20} more")
    head = (
        f"stage '{node.name}' ({node.stage.name}) failed for {len(failures)} of {total}; "
        f"the results of the others are kept:\n"
        if several
        else f"stage '{node.name}' ({node.stage.name}) failed: "
    )
    error = StageError(head + "\n".join(lines))
    error.failures = failures  # type: ignore[attr-defined]
    raise error
