"""What a run would do with each stage, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from neuro.errors import InputError
from neuro.runner.document import nearest
from neuro.runner.store import Ref, Store
from neuro.runner.tasks import Part, Task, Unknown, Values, record, resolve, value_of
from neuro.runner.workflow import Node, Workflow

_PLAIN_INPUT = re.compile(r"input changed: [^;]*")


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Attributes
    ----------
    name, stage : str
        The stage's name in the workflow, and the registered stage it uses.
    key : str or None
        The address of its result, of the first member where it is swept; None where it is known
        only after an upstream stage has run.
    status : str
        ``"cached"`` or ``"run"``.
    reason : str
        Why it runs.
    n_tasks, n_missing : int
        Results it is made of (members, items), and how many of them are not there.
    """

    name: str
    stage: str
    key: str | None
    status: str
    reason: str
    n_tasks: int = 1
    n_missing: int = 0
    parts: tuple[Part, ...] = field(default=(), repr=False)
    missing: tuple[Task, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Plan:
    """The steps of a workflow in the order in which they run."""

    steps: list[Step]


def make_plan(
    workflow: Workflow, store: Store, until: str | None = None, force: Sequence[str] = ()
) -> Plan:
    """Say for every stage whether it is cached, or why it runs; nothing runs.

    Parameters
    ----------
    workflow : Workflow
        A validated workflow.
    store : Store
        The results there are.
    until : str, optional
        Leave out what comes after this stage.
    force : sequence of str
        Stages to compute anew.

    Raises
    ------
    InputError
        Where `until` or `force` name no stage.
    """
    check_names(workflow, until, force)
    values: Values = {}
    runs: dict[str, str] = {}
    steps = []
    for node in workflow.until(until):
        step = _foresee(node, values, runs, workflow, store, node.name in force)
        values[node.name] = value_of(list(step.parts)) if step.key is not None else None
        if step.status == "run":
            runs[node.name] = step.reason
        steps.append(step)
    return Plan(steps)


def check_names(workflow: Workflow, until: str | None, force: Iterable[str]) -> None:
    """Check that names of stages given on the command line exist.

    Raises
    ------
    InputError
        With the nearest name.
    """
    for option, name in [("--until", until), *(("--force", name) for name in force)]:
        if name is not None and name not in workflow.nodes:
            hint = nearest(name, workflow.nodes)
            raise InputError(f"{option} {name}: '{workflow.name}' has no such stage{hint}")


def _foresee(
    node: Node,
    values: Values,
    runs: dict[str, str],
    workflow: Workflow,
    store: Store,
    forced: bool,
) -> Step:
    changing = [name for name in node.upstream if name in runs]
    try:
        # the items of a result that is made anew may be others than those of the old one
        known = {
            name: None if name in runs and node.each and node.each.source == name else value
            for name, value in values.items()
        }
        step = assess(node, resolve(node, known, store), workflow, store, forced)
    except Unknown as unknown:
        waits = f"input changes: {unknown.source} (its items are known when it has run)"
        never = not store.last(workflow.name, node.name)
        return Step(node.name, node.stage.name, None, "run", "new" if never else waits)
    if not changing:
        return step
    if step.status == "cached" or _PLAIN_INPUT.fullmatch(step.reason):
        return replace(step, status="run", reason=f"input changes: {', '.join(changing)}")
    return step


def assess(
    node: Node, parts: list[Part], workflow: Workflow, store: Store, forced: bool = False
) -> Step:
    """Compare the parts of a stage with what the store has.

    Parameters
    ----------
    node : Node
        The stage.
    parts : list of Part
        What it is made of.
    workflow : Workflow
        Its workflow, under whose name the store remembers how it was made last time.
    store : Store
        The results there are.
    forced : bool
        Compute it anew in any case.
    """
    tasks = [task for part in parts for task in part.tasks]
    missing = tasks if forced else [task for task in tasks if not fresh(store, task.ref)]
    unjoined = [part for part in parts if part.joined and not fresh(store, part.ref)]
    status = "run" if missing or unjoined else "cached"
    reason = ""
    if status == "run":
        last = store.last(workflow.name, node.name)
        reason = "forced" if forced else _reason(last, record(parts, node), missing, len(tasks))
    key = parts[0].ref.key if parts else ""
    return Step(
        node.name,
        node.stage.name,
        key,
        status,
        reason,
        len(tasks),
        len(missing),
        tuple(parts),
        tuple(missing),
    )


def fresh(store: Store, ref: Ref) -> bool:
    """Tell whether a result is there and was made from its inputs as they are now.

    A forced stage may give other content under the same key; what was made from the old content
    is then made again.
    """
    manifest = store.manifest(ref)
    if manifest is None:
        return False
    for stage, key, content in manifest.get("made_from", []):
        upstream = store.manifest(Ref(stage, key))
        if upstream is not None and upstream["digest"] != content:
            return False
    return True


# -- why ---------------------------------------------------------------------------------------


def _reason(last: dict[str, Any], now: dict[str, Any], missing: list[Task], n_tasks: int) -> str:
    failed, done = last.get("failed"), last.get("done")
    if isinstance(failed, dict) and _same_made(failed.get("record"), now):
        return f"failed last time: {failed.get('message', '')}".strip()
    if not isinstance(done, dict):
        return "interrupted last time" if last.get("started") else "new"
    why = _differences(done, now)
    if why:
        return "; ".join(why)
    if last.get("started"):
        return "interrupted last time"
    some = f" ({len(missing)} of {n_tasks})" if 0 < len(missing) < n_tasks else ""
    return f"its result was removed{some}"


def _same_made(one: Any, other: dict[str, Any]) -> bool:
    if not isinstance(one, dict) or set(one.get("members", {})) != set(other["members"]):
        return False
    return all(
        one["members"][label]["key"] == member["key"] for label, member in other["members"].items()
    )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if old["stage"] != new["stage"]:
        return [f"uses {old['stage']} → {new['stage']}"]
    if old["version"] != new["version"]:
        return [f"code version {old['version']} → {new['version']}"]
    found: list[str] = []
    added = [label for label in new["members"] if label not in old["members"]]
    if added and old["members"]:
        common = [label for label in new["members"] if label in old["members"]]
        if common or len(new["members"]) > 1:
            found.append(f"new: {', '.join(added[:4])}{' …' if len(added) > 4 else ''}")
    pairs = [(old["members"][k], v) for k, v in new["members"].items() if k in old["members"]]
    if not pairs and old["members"] and new["members"]:
        pairs = [(next(iter(old["members"].values())), next(iter(new["members"].values())))]
    for before, after in pairs:
        found += _member_differences(before, after)
    return list(dict.fromkeys(found))


def _member_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = _parameter_differences(old["params"], new["params"])
    changed = [n for n, keys in new["inputs"].items() if old["inputs"].get(n, keys) != keys]
    if changed:
        found.append(f"input changed: {', '.join(changed)}")
    found += _file_differences(old["files"], new["files"])
    return found + (_item_differences(old["items"], new["items"]) if not found else [])


def _parameter_differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += _parameter_differences(before, after, f"{path}{name}.")
        else:
            found.append(f"parameter {path}{name}: {_short(before)} → {_short(after)}")
    return found


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)} values"
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"…{text[-57:]}"


def _file_differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    changed = [path for path, content in new.items() if old.get(path, content) != content]
    return [f"input changed: {_named(changed)}"] if changed else []


def _item_differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    added = [item for item in new if item not in old]
    changed = [item for item, key in new.items() if old.get(item, key) != key]
    gone = [item for item in old if item not in new]
    kinds = ((added, "new"), (changed, "changed"), (gone, "removed"))
    parts = [f"{word}: {_named(names)}" for names, word in kinds if names]
    return [f"items of {len(new)} {'; '.join(parts)}"] if parts else []


def _named(names: list[str]) -> str:
    shown = ", ".join(name.rsplit("/", 1)[-1] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
