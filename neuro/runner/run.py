"""Run a workflow: resolve, compute what is missing, gather it in a run folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import InputError, NeuroError, StageError
from neuro.runner.files import read_json, write_text, writing
from neuro.runner.folder import Done, RunFolder, notes
from neuro.runner.plan import Step, assess, check_names
from neuro.runner.progress import Reporter, duration_text
from neuro.runner.schema import load_workflow
from neuro.runner.store import Ref, Store
from neuro.runner.tasks import Part, Values, label_text, record, resolve, value_of
from neuro.runner.work import Failure, join, raise_failures
from neuro.runner.workflow import Node, Workflow

if TYPE_CHECKING:
    from neuro.runner.engine import Engine

REPORT = "report.html"


def run(
    workflow: str | Path | Workflow,
    *,
    sets: Sequence[str] = (),
    until: str | None = None,
    force: Sequence[str] = (),
    n_jobs: int = 1,
    cluster: str | None = None,
    cache: str | Path | None = None,
    out: str | Path = "runs",
    progress: bool = True,
) -> Path:
    """Run a workflow; what is in the store already is not computed again.

    Parameters
    ----------
    workflow : str, Path or Workflow
        A shipped workflow's name, a YAML file, or a workflow that is loaded already.
    sets : sequence of str
        ``"stage.field=value"`` and the like, see `neuro.runner.schema.load_workflow`.
    until : str, optional
        Stop when this stage's result is in.
    force : sequence of str
        Stages to compute anew.
    n_jobs : int
        Items or members at once, in processes of their own.
    cluster : {"local", "slurm", "auto"}, optional
        Where stages are computed; SLURM is passed on to the engine and not proven yet.
    cache : path, optional
        Where results are kept; ``$NEURO_CACHE`` or ``<out>/.cache`` by default.
    out : path
        Where run folders go.
    progress : bool
        Show one line for each stage, and bars, on standard error.

    Returns
    -------
    Path
        The run folder ``<out>/<name>``.

    Raises
    ------
    InputError
        Where the workflow or an argument is wrong; nothing has run then.
    StageError
        Where a stage failed; the results before it are kept.
    StoreError
        Where the cache can't be written.
    KeyboardInterrupt
        After Ctrl-C; processes are ended and what was finished is kept.
    """
    if not isinstance(workflow, Workflow):
        workflow = load_workflow(workflow, sets)
    check_names(workflow, until, force)
    out = Path(out).expanduser()
    store = Store(cache or os.environ.get("NEURO_CACHE") or out / ".cache")
    store.ensure_writable()
    reporter = Reporter(progress)
    folder = RunFolder(workflow, store, out)
    folder.begin()
    runner = _Runner(workflow, store, reporter, folder, (n_jobs, cluster), tuple(force))
    try:
        runner.run(until)
    except BaseException as error:
        _note_failure(folder, error)
        raise
    return _conclude(folder, reporter)


class _Runner:
    """Goes through the stages in order; the engine is loaded when something must be computed."""

    def __init__(
        self,
        workflow: Workflow,
        store: Store,
        reporter: Reporter,
        folder: RunFolder,
        engine: tuple[int, str | None],
        force: tuple[str, ...],
    ) -> None:
        self.workflow, self.store, self.reporter, self.folder = workflow, store, reporter, folder
        self._settings, self.force = engine, force
        self._engine: Engine | None = None
        self.values: Values = {}

    def run(self, until: str | None) -> None:
        """Run the stages up to and including one."""
        width = max(len(name) for name in self.workflow.nodes)
        with contextlib.ExitStack() as stack:
            self._stack = stack
            for node in self.workflow.until(until):
                self._stage(node, width)

    def _stage(self, node: Node, width: int) -> None:
        started = time.monotonic()
        parts = resolve(node, self.values, self.store)
        step = assess(node, parts, self.workflow, self.store, node.name in self.force)
        if step.status == "run":
            some = f", {step.n_missing} of {step.n_tasks}" if step.n_tasks > 1 else ""
            self.reporter.line(f"{node.name:<{width}}  runs: {step.reason}{some}")
            with self._remembered(node, parts):
                self._compute(node, step)
        else:
            self._remember(node, {"done": record(parts, node)})
        spent = time.monotonic() - started
        self.values[node.name] = value_of(parts)
        self.folder.done.append(Done(node, step, step.status, step.reason, spent))
        end = f"done in {duration_text(spent)}" if step.status == "run" else "cached"
        self.reporter.line(f"{node.name:<{width}}  {end}")

    def _compute(self, node: Node, step: Step) -> None:
        if step.missing:
            engine = self._get_engine()
            failures = engine.compute(node, step.missing, node.name in self.force)
            self._keep_traces(node, failures)
            raise_failures(node, failures, step.n_tasks)
        for part in step.parts:
            if part.joined:
                join(node.name, part, node.stage.returns, self.store)

    def _get_engine(self) -> Engine:
        if self._engine is None:
            from neuro.runner.engine import Engine

            n_jobs, cluster = self._settings
            self._engine = Engine(self.store, n_jobs, cluster, self.reporter)
            self._stack.enter_context(self._engine)
        return self._engine

    def _keep_traces(self, node: Node, failures: list[Failure]) -> None:
        for number, failure in enumerate(failures):
            name = f"{node.name}-{number}.txt"
            write_text(
                self.folder.path / "errors" / name,
                f"{failure.label}\n{failure.message}\n\n{failure.trace}",
            )

    @contextlib.contextmanager
    def _remembered(self, node: Node, parts: list[Part]) -> Iterator[None]:
        """Remember what was started, done or failed, to tell the reason next time."""
        made = record(parts, node)
        before = {"done": self.store.last(self.workflow.name, node.name).get("done")}
        self._remember(node, {**before, "started": True})
        try:
            yield
        except Exception as error:
            failed = {"record": made, "message": _first_line(error)}
            with contextlib.suppress(NeuroError):
                self._remember(node, {**before, "failed": failed})
            raise
        self._remember(node, {"done": made})

    def _remember(self, node: Node, what: dict[str, Any]) -> None:
        self.store.remember(self.workflow.name, node.name, what)


def _first_line(error: Exception) -> str:
    failures = getattr(error, "failures", None)
    text = failures[0].message if failures else str(error)
    lines = text.strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= 120 else f"{lines[0][:117]}..."


def _note_failure(folder: RunFolder, error: BaseException) -> None:
    interrupted = isinstance(error, KeyboardInterrupt)
    with contextlib.suppress(Exception):
        folder.finish("interrupted" if interrupted else "failed", str(error) or None)
    if isinstance(error, StageError) and (folder.path / "errors").is_dir():
        error.add_note(f"Tracebacks are in {folder.path / 'errors'}")


def _conclude(folder: RunFolder, reporter: Reporter) -> Path:
    kept = folder.store.cache / "reports" / f"{folder.workflow.name}.html"
    with writing(folder.path):
        folder.finish("done")
        build_report(folder.path, folder.store, folder.done, kept)
        latest = folder.show_latest()
    reporter.line(f"results in {latest}")
    return latest


# -- the report ----------------------------------------------------------------------------------


def build_report(path: Path, store: Store, done: list[Done], kept: Path | None) -> Path:
    """Write a run's ``report.html``; an earlier one with the same content is used again."""
    from neuro.report import build_report as build

    provenance = read_json(path / "provenance.json") or {}
    report = build(
        path / REPORT,
        title=provenance.get("name", path.name),
        stages=_stage_reports(done, store),
        metrics=read_json(path / "metrics.json"),
        scored=store.scored(),
        workflow=(path / "resolved.yaml").read_text("utf-8"),
        provenance=provenance,
        reuse=kept,
    )
    if kept is not None:
        write_text(kept, report.read_text("utf-8"))
    return report


def _stage_reports(done: list[Done], store: Store) -> list[Any]:
    """Return what the report shows of each stage; marks are handed on to what is made of it."""
    reports: dict[str, Any] = {}
    for one in done:
        sources = [name for wire in one.node.wires.values() for name in wire.sources]
        inherited = [text for name in sources if name in reports for text in reports[name].marks]
        reports[one.node.name] = _stage_report(one, store, inherited)
    return list(reports.values())


def _stage_report(done: Done, store: Store, inherited: Sequence[str]) -> Any:
    from neuro.report import StageReport

    told = notes(done, store)
    manifests = [store.get(ref) for _, ref in done.results()]
    return StageReport(
        name=done.node.name,
        use=done.node.stage.name,
        status=done.status,
        reason=done.reason,
        duration=sum(m.get("duration", 0.0) for m in manifests),
        peak_memory=max((m.get("peak_memory", 0) for m in manifests), default=None),
        folders={label_text(lab): store.folder(ref) / "report" for lab, ref in done.results()},
        methods=told["methods"],
        warnings=told["warnings"],
        marks=list(dict.fromkeys([*inherited, *told["marks"]])),
    )


def rebuild_report(run_folder: str | Path) -> Path:
    """Build the report of a finished run again from what the store holds.

    Parameters
    ----------
    run_folder : path
        The run's folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        Where the folder is no run, or its results have been removed from the cache.
    """
    path = Path(run_folder).resolve()
    provenance = read_json(path / "provenance.json")
    if not isinstance(provenance, dict) or not (path / "resolved.yaml").exists():
        raise InputError(f"{run_folder} is no run folder: provenance.json is missing")
    store = Store(provenance["cache"])
    workflow = load_workflow(path / "resolved.yaml")
    done, values = [], Values()
    for node in workflow.nodes.values():
        if node.name not in provenance["stages"]:
            continue
        told = provenance["stages"][node.name]
        step = assess(node, resolve(node, values, store), workflow, store)
        if step.status == "run":
            raise InputError(
                f"{run_folder}: the result of '{node.name}' is not in the cache {store.cache} "
                f"any more; run the workflow again"
            )
        values[node.name] = value_of(list(step.parts))
        done.append(Done(node, step, told["status"], told["reason"]))
    return build_report(path, store, done, None)


__all__ = ["Ref", "build_report", "rebuild_report", "run"]
