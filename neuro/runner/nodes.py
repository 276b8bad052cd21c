"""One entry under ``stages:`` becomes a checked draft: its parameters, not yet its wires."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import yaml

from neuro.errors import InputError
from neuro.runner import document, paths
from neuro.runner.document import SET, Problems, Reference, RefNode, Scope, items, nearest
from neuro.runner.fields import explain
from neuro.runner.registry import get_stage
from neuro.runner.workflow import Compute, Member
from neuro.stage import RESERVED, Params, Stage

MAX_MEMBERS = 10_000
Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


@dataclass
class Draft:
    """A stage as written, its parameters validated."""

    name: str
    stage: Stage
    key: yaml.Node
    fields: dict[str, yaml.Node]
    wires: dict[str, yaml.Node] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)  # inputs that are null
    each: yaml.Node | None = None
    files: tuple[Path, ...] = ()
    file_field: str = ""
    members: tuple[Member, ...] = ()
    swept: bool = False  # also where the sweep as written is wrong
    unread: frozenset[str] = frozenset()  # fields whose references mean nothing
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)


@dataclass(frozen=True)
class _Site:
    """Where a draft's values are read: problems, and where relative paths start."""

    problems: Problems
    home: Path
    cwd: Path

    def base(self, node: yaml.Node) -> Path:
        return self.cwd if str(node.start_mark.name).startswith(SET) else self.home


def draft_stage(
    name: str,
    key: yaml.Node,
    node: yaml.Node,
    extra: Pairs,
    scope: Scope,
    bases: tuple[Path, Path],
) -> Draft | None:
    """Check one stage; None where it can't be understood at all.

    Parameters
    ----------
    name : str
        The stage's name in the workflow.
    key, node : yaml.Node
        The name and the mapping as written.
    extra : dict
        Defaults and seed, for the fields that the stage declares and doesn't give.
    scope : Scope
        What references mean; collects the problems.
    bases : tuple of Path
        The folder of the YAML file and the working directory.
    """
    problems, path = scope.problems, f"stages.{name}"
    if not isinstance(node, yaml.MappingNode):
        problems.add(node, path, "expected the fields of a stage, 'use: <stage name>' first")
        return None
    stage = _used(node, key, path, scope)
    if stage is None:
        return None
    pairs = {k: v for k, v in extra.items() if k in stage.params.model_fields} | items(node)
    resolved, unread = _resolved(pairs, path, scope)
    draft = Draft(name, stage, key, {}, unread=unread, swept="sweep" in pairs)
    for field_name, value in resolved.items():
        _sort(draft, field_name, pairs[field_name][0], value, problems)
    site = _Site(problems, *bases)
    _read_compute(draft, resolved.get("compute"), problems)
    _read_each(draft, site)
    _read_members(draft, resolved.get("sweep"), site)
    return draft


def _resolved(pairs: Pairs, path: str, scope: Scope) -> tuple[dict[str, yaml.Node], frozenset[str]]:
    """Replace references; also name the fields where that was not possible."""
    resolved, unread = {}, set()
    for name, (_, node) in pairs.items():
        before = len(scope.problems.found)
        if name != "use":
            resolved[name] = scope.resolve(node, f"{path}.{name}")
        if len(scope.problems.found) > before:
            unread.add(name)
    return resolved, frozenset(unread)


def _used(node: yaml.MappingNode, key: yaml.Node, path: str, scope: Scope) -> Stage | None:
    pairs = items(node)
    if "use" not in pairs:
        scope.problems.add(key, path, "the field 'use: <stage name>' is missing")
        return None
    written = scope.resolve(pairs["use"][1], f"{path}.use")
    try:
        return get_stage(str(written.value))
    except InputError as error:
        scope.problems.add(pairs["use"][1], f"{path}.use", str(error))
        return None


def _sort(draft: Draft, name: str, key: yaml.Node, value: yaml.Node, problems: Problems) -> None:
    """Put a field where it belongs: reserved, an input, or a parameter."""
    if name == "each":
        draft.each = None if document.is_null(value) else value
    elif name in draft.stage.inputs:
        if document.is_null(value):
            draft.left_out.add(name)
        else:
            draft.wires[name] = value
    elif name in draft.stage.params.model_fields:
        draft.fields[name] = value
    elif name not in RESERVED:
        known = [*draft.stage.params.model_fields, *draft.stage.inputs, *RESERVED]
        problems.add(
            key,
            f"stages.{draft.name}.{name}",
            f"unknown field of '{draft.stage.name}'{nearest(name, known)}",
        )


def _read_compute(draft: Draft, node: yaml.Node | None, problems: Problems) -> None:
    if node is None or document.is_null(node):
        return
    path = f"stages.{draft.name}.compute"
    try:
        draft.compute = Compute.model_validate(document.value_of(node, problems, path))
    except pydantic.ValidationError as error:
        explain(error, Compute, node, path, problems)


def _read_each(draft: Draft, site: _Site) -> None:
    """Resolve the glob of an ``each:`` over files; one over a stage is wired later."""
    if draft.each is None or isinstance(draft.each, RefNode) or "each" in draft.unread:
        return
    path = f"stages.{draft.name}.each"
    kinds = paths.path_fields(draft.stage.params)
    free = [w[0] for w, kind in kinds.items() if kind == "file" and w[0] not in draft.fields]
    draft.file_field = "file" if "file" in free else (free[0] if len(free) == 1 else "")
    if not draft.file_field:
        site.problems.add(
            draft.each,
            path,
            f"'{draft.stage.name}' has no parameter 'file' to receive one file; "
            f"each: takes ${{stage}} here",
        )
        return
    draft.files = tuple(_paths(draft.each, "files", path, site) or ())


def _paths(node: yaml.Node, kind: str, path: str, site: _Site) -> Any:
    value = document.value_of(node, site.problems, path)
    first = node.value[0] if isinstance(node, yaml.SequenceNode) and node.value else node
    try:
        return paths.expand_all(value, site.base(first), kind)
    except FileNotFoundError as error:
        site.problems.add(node, path, f"no file matches '{error.args[0]}'")
    except ValueError as error:
        site.problems.add(node, path, str(error))
    return None


def _read_members(draft: Draft, sweep: yaml.Node | None, site: _Site) -> None:
    path = f"stages.{draft.name}"
    draft.sweep = _sweep(draft, sweep, site.problems) if sweep is not None else {}
    members = []
    for point in itertools.product(*draft.sweep.values()):
        label = dict(zip(draft.sweep, point, strict=True))
        before = len(site.problems.found)
        params = _params(draft, label, sweep, path, site)
        if params is not None:
            members.append(Member(label, params))
        if len(site.problems.found) > before:
            break
    draft.members = tuple(members)


def _sweep(draft: Draft, node: yaml.Node, problems: Problems) -> dict[str, list[Any]]:
    path = f"stages.{draft.name}.sweep"
    if not isinstance(node, yaml.MappingNode):
        problems.add(node, path, "expected fields with a list of values each, as beta: [1, 4]")
        return {}
    found, known, size = {}, draft.stage.params.model_fields, 1
    for name, (key, values) in items(node).items():
        if name.split(".")[0] not in known:
            hint = nearest(name, known)
            problems.add(key, f"{path}.{name}", f"unknown field of '{draft.stage.name}'{hint}")
        elif not isinstance(values, yaml.SequenceNode) or not values.value:
            problems.add(values, f"{path}.{name}", "expected a list of values, as [1, 4]")
        else:
            found[name] = document.value_of(values, problems, f"{path}.{name}")
            size *= len(found[name])
            if any(value in found[name][:i] for i, value in enumerate(found[name])):
                problems.add(values, f"{path}.{name}", "a value is given twice")
    if size > MAX_MEMBERS:
        problems.add(node, path, f"{size} variants; at most {MAX_MEMBERS} are taken")
        return {}
    return found


def _params(
    draft: Draft, label: dict[str, Any], sweep: yaml.Node | None, path: str, site: _Site
) -> Params | None:
    problems, before = site.problems, len(site.problems.found)
    nodes = dict(draft.fields)
    values = {k: document.value_of(v, problems, f"{path}.{k}") for k, v in nodes.items()}
    for dotted, value in label.items():
        _put(values, dotted.split("."), value)
        if sweep is not None:
            nodes[dotted] = items(sweep)[dotted][1]
    if draft.files:
        values[draft.file_field] = draft.files[0]
    _refuse_references(values, nodes, path, problems)
    _expand_paths(draft, values, path, site)
    _expand_swept(draft, label, sweep, values, path, site)
    no_file = draft.each is not None and not isinstance(draft.each, RefNode) and not draft.files
    if len(problems.found) > before or no_file:
        return None
    try:
        return draft.stage.params.model_validate(values)
    except pydantic.ValidationError as error:
        tree = _tree(nodes, draft.key)
        explain(error, draft.stage.params, tree, path, problems, draft.unread)
    return None


def _put(values: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, dict) else {}
        values = values[name]
    values[names[-1]] = value


def _tree(nodes: dict[str, yaml.Node], key: yaml.Node) -> yaml.MappingNode:
    pairs = [(document.text_of(name, node), node) for name, node in nodes.items()]
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, key.start_mark, key.end_mark)


def _refuse_references(
    values: dict[str, Any], nodes: dict[str, yaml.Node], path: str, problems: Problems
) -> None:
    for name, value in values.items():
        for found in _references(value):
            problems.add(
                nodes.get(name),
                f"{path}.{name}",
                f"expected a value; '${{{found.name}}}' is a stage and '{name}' is no input",
            )


def _references(value: Any) -> list[Reference]:
    if isinstance(value, Reference):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for each in inner for found in _references(each)]


def _expand_paths(draft: Draft, values: dict[str, Any], path: str, site: _Site) -> None:
    for where, kind in paths.path_fields(draft.stage.params).items():
        node = _node_at(draft.fields, where)
        if where[0] in draft.unread:
            continue
        if node is None or document.is_null(node) or isinstance(paths.get(values, where), Path):
            continue
        found = _paths(node, kind, f"{path}.{'.'.join(where)}", site)
        if found is not None:
            _put(values, list(where), found)


def _expand_swept(
    draft: Draft,
    label: dict[str, Any],
    sweep: yaml.Node | None,
    values: dict[str, Any],
    path: str,
    site: _Site,
) -> None:
    for where, kind in paths.path_fields(draft.stage.params).items():
        dotted = ".".join(where)
        if sweep is None or dotted not in label:
            continue
        node = items(sweep)[dotted][1]
        try:
            found = paths.expand_all(label[dotted], site.base(node), kind)
            _put(values, list(where), found)
        except FileNotFoundError as error:
            site.problems.add(node, f"{path}.sweep.{dotted}", f"no file matches '{error.args[0]}'")
        except ValueError as error:
            site.problems.add(node, f"{path}.sweep.{dotted}", str(error))


def _node_at(nodes: dict[str, yaml.Node], where: tuple[str, ...]) -> yaml.Node | None:
    node = nodes.get(where[0])
    for name in where[1:]:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = items(node).get(name, (None, None))[1]
    return node
