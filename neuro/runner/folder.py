"""The run folder: what a run made, gathered under the stages' names."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from neuro.errors import InputError
from neuro.runner.files import read_json, write_json, write_text, writing
from neuro.runner.keys import canonical, digest
from neuro.runner.plan import Step
from neuro.runner.store import Ref, Store
from neuro.runner.tasks import label_text
from neuro.runner.workflow import Node, Workflow

PREDICTIONS_VERSION = 1


@dataclass
class Done:
    """One stage of a run that is done."""

    node: Node
    step: Step
    status: str  # "cached" or "run"
    reason: str
    seconds: float = 0.0

    def results(self) -> list[tuple[dict[str, Any], Ref]]:
        """Return every result that a stage function reported into: members, and items."""
        return [(task.label, task.ref) for part in self.step.parts for task in part.tasks]


@dataclass
class RunFolder:
    """Assembles one run's folder.

    Parameters
    ----------
    workflow : Workflow
        What was run.
    store : Store
        Where the results are.
    out : Path
        The folder of runs: this run goes to ``out/.history/TIME-NAME-...``, and ``out/NAME`` shows
        it when it is complete.
    """

    workflow: Workflow
    store: Store
    out: Path
    started: float = field(default_factory=time.time)
    done: list[Done] = field(default_factory=list)

    def __post_init__(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(self.started))
        name = f"{stamp}-{self.workflow.name}-{uuid.uuid4().hex[:6]}"
        self.path = self.out.expanduser().absolute() / ".history" / name

    @property
    def latest(self) -> Path:
        """Where the latest run of this workflow is shown."""
        return self.path.parents[1] / self.workflow.name

    def begin(self) -> None:
        """Make the folder, with the resolved workflow in it.

        Raises
        ------
        InputError
            Where something that is no run stands in the place of ``out/NAME``.
        """
        latest = self.latest
        is_run = latest.is_symlink() or (latest / "provenance.json").exists()
        if latest.exists() and not is_run and (latest.is_file() or any(latest.iterdir())):
            raise InputError(
                f"{latest} is in the way and is no run; move it, or give another --out"
            )
        with writing(self.path.parents[1]):
            self.path.mkdir(parents=True)
        write_text(self.path / "resolved.yaml", resolved_yaml(self.workflow))

    def finish(self, status: str, error: str | None = None) -> None:
        """Write all that the run made; show it as the latest when it is complete."""
        metrics = gather_metrics(self.done, self.store)
        write_json(self.path / "metrics.json", metrics)
        write_json(self.path / "provenance.json", self._provenance(status, error))
        self._predictions()
        for done in self.done:
            self._show(done)
        if status == "done":
            write_text(self.path / "methods.md", methods_text(self.done, self.store))

    def show_latest(self) -> Path:
        """Let ``out/NAME`` show this run, in one rename; copy it where links are not possible."""
        latest, link = self.latest, Path(".history") / self.path.name
        temporary = latest.with_name(f".{latest.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.symlink_to(link, target_is_directory=True)
        except OSError:
            shutil.copytree(self.path, temporary, symlinks=True)
        if latest.is_dir() and not latest.is_symlink():
            shutil.rmtree(latest)  # an earlier copy, see `begin`
        os.replace(temporary, latest)
        return latest

    # -- contents -------------------------------------------------------------------------------

    def _show(self, done: Done) -> None:
        """Put a stage's artefacts under its name: encoders copied, everything else linked."""
        place = self.path / done.node.name
        for part in done.step.parts:
            source = self.store.artefact(part.ref)
            ending = ".parquet" if done.node.stage.returns == "table" else ""
            target = place / _file_name(label_text(part.label)) if done.node.many else place
            target = target.with_name(target.name + ending)
            target.parent.mkdir(parents=True, exist_ok=True)
            if done.node.stage.returns == "encoder":
                shutil.copytree(source, target)
            else:
                _link(source, target)

    def _predictions(self) -> None:
        sources = [
            (done.node.name, label_text(label), self.store.folder(ref) / "predictions.parquet", ref)
            for done in self.done
            for label, ref in done.results()
        ]
        sources = [source for source in sources if source[2].exists()]
        if not sources:
            return
        named = [
            [PREDICTIONS_VERSION, name, label, str(ref), self.store.get(ref)["checksums"]]
            for name, label, _, ref in sources
        ]
        kept = self.store.cache / "merged" / f"{digest(named)}.parquet"
        if not kept.exists():
            _merge_predictions([source[:3] for source in sources], kept)
        shutil.copyfile(kept, self.path / "predictions.parquet")

    def _provenance(self, status: str, error: str | None) -> dict[str, Any]:
        from neuro.runner.provenance import code_state, machine, versions

        workflow = self.workflow
        return {
            "schema_version": 1,
            "name": workflow.name,
            "status": status,
            **({"error": error} if error else {}),
            "workflow": str(workflow.path),
            "set": list(workflow.sets),
            "seed": workflow.seed,
            "started": _time(self.started),
            "finished": _time(time.time()),
            "duration": round(time.time() - self.started, 3),
            "versions": versions(),
            "machine": machine(),
            "git": code_state(workflow.path),
            "cache": str(self.store.cache),
            "stages": {done.node.name: _stage_provenance(done, self.store) for done in self.done},
            "scored": self.store.scored(),
        }


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def _stage_provenance(done: Done, store: Store) -> dict[str, Any]:
    manifests = [store.get(ref) for _, ref in done.results()]
    joined = [store.get(part.ref) for part in done.step.parts if part.joined]
    seeds = {m["params"].get("seed") for m in manifests} - {None}
    return {
        "use": done.node.stage.name,
        "version": done.node.stage.version,
        "status": done.status,
        "reason": done.reason,
        "keys": {label_text(part.label): part.ref.key for part in done.step.parts},
        "seeds": sorted(seeds, key=str),
        "duration": round(sum(m.get("duration", 0) for m in [*manifests, *joined]), 3),
        "peak_memory": max((m.get("peak_memory", 0) for m in manifests), default=0),
        "results": len(manifests),
        "created": max((m["created"] for m in manifests), default=None),
        "files": {path: content for m in manifests for path, content in m["files"].items()},
    }


def gather_metrics(done: list[Done], store: Store) -> dict[str, Any]:
    """Return the flat mapping of ``metrics.json``.

    A number of one member or item carries its parameters behind the name, as in
    ``erp.denoised.r[beta=4]``; where two stages use one name, the stage's name stands before it.
    """
    found: list[tuple[str, str, str, Any]] = []
    for one in done:
        for label, ref in one.results():
            read = read_json(store.folder(ref) / "metrics.json") or {}
            ending = f"[{label_text(label)}]" if label else ""
            found += [(one.node.name, name, name + ending, entry) for name, entry in read.items()]
    makers: dict[str, set[str]] = {}
    for stage, name, _, _ in found:
        makers.setdefault(name, set()).add(stage)
    return {
        (f"{stage}.{full}" if len(makers[name]) > 1 else full): entry
        for stage, name, full, entry in found
    }


def notes(done: Done, store: Store) -> dict[str, Any]:
    """Return the methods sentences, warnings and marks of a stage, each once."""
    methods: dict[str, list[str]] = {}
    warnings: dict[str, None] = {}
    marks: dict[str, None] = {}
    for label, ref in done.results():
        read = read_json(store.folder(ref) / "notes.json") or {}
        methods.update(dict(read.get("methods", [])))
        prefix = f"{label['item']}: " if "item" in label else ""
        warnings.update({f"{prefix}{text}": None for text in read.get("warnings", [])})
        marks.update(dict.fromkeys(read.get("marks", [])))
    return {"methods": list(methods.items()), "warnings": list(warnings), "marks": list(marks)}


def methods_text(done: list[Done], store: Store) -> str:
    """Return the methods paragraph, the citation keys in brackets."""
    sentences = []
    for one in done:
        for sentence, cited in notes(one, store)["methods"]:
            keys = f" [{'; '.join(f'@{key}' for key in cited)}]" if cited else ""
            sentences.append(sentence.rstrip(".") + keys + ".")
    return " ".join(sentences) + "\n"


def _merge_predictions(sources: list[tuple[str, str, Path]], path: Path) -> None:
    import pandas as pd

    from neuro.runner.context import write_predictions

    tables = []
    for name, label, file in sources:
        table = pd.read_parquet(file)
        tables.append(table.assign(stage=name, member=label))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.parquet")
    write_predictions(tables, temporary)
    os.replace(temporary, path)


def resolved_yaml(workflow: Workflow) -> str:
    """Return the workflow with everything filled in, as YAML that runs by itself."""
    stages = {}
    for node in workflow.nodes.values():
        base = _escaped(canonical(node.members[0].params))
        if node.each is not None and node.each.over == "files":
            base.pop(node.each.field, None)
        entry: dict[str, Any] = {"use": node.stage.name}
        if node.each is not None:
            files = [str(path) for path in node.each.files]
            entry["each"] = files or node.each.written
        if node.sweep:
            entry["sweep"] = _escaped(canonical(node.sweep))
        if node.compute != type(node.compute)():
            entry["compute"] = node.compute.model_dump(exclude_none=True)
        for name, wire in node.wires.items():
            refs = [f"${{{source}}}" for source in wire.sources]
            entry[name] = refs[0] if len(refs) == 1 else refs
        swept = {dotted.split(".")[0] for dotted in node.sweep if "." not in dotted}
        entry |= {key: value for key, value in base.items() if key not in swept}
        stages[node.name] = entry
    whole = {"version": workflow.version, "name": workflow.name, "stages": stages}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=100)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def _file_name(text: str) -> str:
    cleaned = "".join(c if c.isalnum() or c in "=,._-" else "_" for c in text)
    return cleaned[:120] or "all"


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:  # a file system without links
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, target)
