"""A YAML file becomes a validated `Workflow`, or one error that names everything wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml

from neuro.errors import InputError
from neuro.runner import document
from neuro.runner.document import SET, Problems, Scope, items, join, nearest
from neuro.runner.jsonschema import json_schema
from neuro.runner.nodes import Draft, draft_stage
from neuro.runner.wiring import connect
from neuro.runner.workflow import Workflow

__all__ = ["find_workflow", "json_schema", "load_workflow", "shipped_workflows"]

TOP = ("version", "name", "seed", "defaults", "inputs", "stages")
TYPES = ("str", "int", "float", "bool", "path", "list", "any")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def shipped_workflows() -> dict[str, Path]:
    """Return the workflows that come with the package, by name."""
    inside = Path(str(package_files("neuro"))) / "workflows"
    folder = inside if inside.is_dir() else inside.parents[1] / "workflows"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_workflow(name: str | Path) -> Path:
    """Return the file of a shipped workflow, or of a path.

    Parameters
    ----------
    name : str or Path
        The name of a shipped workflow, or a path (with a folder or the ending ``.yaml``).

    Raises
    ------
    InputError
        Where there is neither; the nearest name is in the message.
    """
    path, shipped = Path(name).expanduser(), shipped_workflows()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        known = [*shipped, *(str(p) for p in path.parent.glob("*.y*ml"))]
        raise InputError(f"there is no workflow file '{name}'{nearest(str(name), known)}")
    if str(name) in shipped:
        return shipped[str(name)]
    raise InputError(f"no shipped workflow is called '{name}'{nearest(str(name), shipped)}")


def load_workflow(
    path_or_name: str | Path, sets: Sequence[str] = (), cwd: str | Path | None = None
) -> Workflow:
    """Read and validate a workflow whole; nothing runs.

    Parameters
    ----------
    path_or_name : str or Path
        A YAML file or the name of a shipped workflow.
    sets : sequence of str
        ``"stage.field=value"``, ``"input=value"``, ``"seed=1"`` or ``"defaults.field=value"``,
        the value a YAML scalar.
    cwd : str or Path, optional
        Where relative paths in `sets` start; the working directory by default.

    Returns
    -------
    Workflow

    Raises
    ------
    InputError
        With every problem found, each with file:line:column, the path to the field, what was
        expected and the nearest valid name.
    """
    path = find_workflow(path_or_name).absolute()
    name = str(path_or_name) if Path(path_or_name).is_file() else str(path)
    text = document.read_text(path)
    problems = Problems(name)
    root = document.compose(text, name)
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{name}:1:1: expected a mapping with the keys {', '.join(TOP)}")
    document.flatten(root, problems)
    _apply_sets(root, sets, problems)
    _check_top(root, problems)
    scope = _scope(root, problems)
    drafts = _drafts(root, scope, path.parent, Path(cwd or Path.cwd()).absolute())
    nodes = connect(drafts, problems)
    settings = _settings(root, scope, path)
    problems.stop()
    return Workflow(**settings, path=path, text=text, nodes=nodes, sets=tuple(sets))


def _apply_sets(root: yaml.MappingNode, sets: Iterable[str], problems: Problems) -> None:
    for text in sets:
        dotted, equals, written = text.partition("=")
        mark = yaml.Mark(f"{SET}{text}", 0, 0, 0, None, 0)
        names = dotted.strip().split(".")
        if not equals or not all(names):
            problems.add(mark, "", "expected --set path=value, for example stage.field=3")
            continue
        target = _target(root, names, mark, problems)
        if target is not None:
            document.put(*target, _set_value(written, mark))


def _set_value(written: str, mark: yaml.Mark) -> yaml.Node:
    name = str(mark.name)
    try:
        node = document.compose(written, name)
    except InputError:  # a text such as *.fif is no YAML and is meant as it stands
        node = yaml.ScalarNode("tag:yaml.org,2002:str", written, mark, mark)
    return node or yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)


def _target(
    root: yaml.MappingNode, names: list[str], mark: yaml.Mark, problems: Problems
) -> tuple[yaml.MappingNode, str] | None:
    """Return the mapping and key that a dotted path means; its last parts may be new."""
    top = items(root)
    inputs, stages = _mapping(top, "inputs"), _mapping(top, "stages")
    if names[0] in ("inputs", "stages") and len(names) > 1:
        names = names[1:]
    if len(names) == 1:
        if inputs is not None and names[0] in items(inputs):
            return _input_default(inputs, names[0])
        if names[0] in ("seed", "name"):
            return root, names[0]
    elif names[0] == "defaults":
        if _mapping(top, "defaults") is None:
            document.put(root, "defaults", yaml.MappingNode(_MAP, [], mark, mark))
        return _descend(root, names, mark)
    elif stages is not None and names[0] in items(stages):
        return _descend(stages, names, mark)
    known = [*(items(inputs) if inputs else ()), *(items(stages) if stages else ())]
    hint = nearest(names[0], [*known, "seed", "name", "defaults"])
    what = "'s field (stage.field=value)" if names[0] in known else f", input or setting{hint}"
    problems.add(mark, "", f"'{'.'.join(names)}' names no stage{what}")
    return None


_MAP = "tag:yaml.org,2002:map"


def _mapping(top: dict[str, tuple[yaml.Node, yaml.Node]], key: str) -> yaml.MappingNode | None:
    node = top[key][1] if key in top else None
    return node if isinstance(node, yaml.MappingNode) else None


def _input_default(inputs: yaml.MappingNode, name: str) -> tuple[yaml.MappingNode, str]:
    declared = items(inputs)[name][1]
    return (declared, "default") if isinstance(declared, yaml.MappingNode) else (inputs, name)


def _descend(
    node: yaml.MappingNode, names: list[str], mark: yaml.Mark
) -> tuple[yaml.MappingNode, str]:
    for name in names[:-1]:
        inner = items(node).get(name, (None, None))[1]
        if not isinstance(inner, yaml.MappingNode):
            inner = yaml.MappingNode(_MAP, [], mark, mark)
        else:  # an anchored mapping is shared: what is set here must not reach the others
            inner = yaml.MappingNode(inner.tag, list(inner.value), inner.start_mark, inner.end_mark)
        document.put(node, name, inner)
        node = inner
    return node, names[-1]


def _check_top(root: yaml.MappingNode, problems: Problems) -> None:
    top = items(root)
    for name, (key, _) in top.items():
        if name not in TOP:
            problems.add(key, name, f"unknown key{nearest(name, TOP)}")
    for name in ("inputs", "stages", "defaults"):
        if name in top and not document.is_null(top[name][1]):
            node = top[name][1]
            if not isinstance(node, yaml.MappingNode):
                problems.add(node, name, "expected a mapping of names")
    for name in ("version", "stages"):
        if name not in top:
            problems.add(root, name, "the key is missing")
    if "version" in top and document.value_of(top["version"][1], problems, "version") != 1:
        problems.add(top["version"][1], "version", "expected 1, the only version there is")


def _scope(root: yaml.MappingNode, problems: Problems) -> Scope:
    top = items(root)
    stages, inputs = _mapping(top, "stages"), _mapping(top, "inputs")
    names = items(stages) if stages is not None else {}
    for name, (key, _) in names.items():
        _check_name(name, key, f"stages.{name}", problems)
    found: dict[str, yaml.Node] = {}
    scope = Scope(found, set(names), problems)
    for name, (key, node) in (items(inputs) if inputs is not None else {}).items():
        _check_name(name, key, f"inputs.{name}", problems)
        if name in names:
            problems.add(key, f"inputs.{name}", "a stage has the same name; rename one of them")
        found[name] = _input_value(name, key, node, problems)
    for name, node in found.items():
        _check_input_type(name, node, inputs, scope)
    return scope


def _check_name(name: str, key: yaml.Node, path: str, problems: Problems) -> None:
    if not _NAME.fullmatch(name) or name in TOP or name == "env":
        problems.add(
            key, path, f"'{name}' can't be a name: letters, digits, _ and -; not {', '.join(TOP)}"
        )


def _input_value(name: str, key: yaml.Node, node: yaml.Node, problems: Problems) -> yaml.Node:
    if not isinstance(node, yaml.MappingNode):
        return node
    declared = items(node)
    for field, (field_key, _) in declared.items():
        if field not in ("type", "default", "help"):
            hint = nearest(field, ["type", "default", "help"])
            problems.add(field_key, f"inputs.{name}.{field}", f"unknown field{hint}")
    if "default" in declared:
        return declared["default"][1]
    problems.add(key, f"inputs.{name}", f"has no default; give it with --set {name}=value")
    return document.text_of("", key)


def _check_input_type(
    name: str, node: yaml.Node, inputs: yaml.MappingNode | None, scope: Scope
) -> None:
    declared = items(inputs)[name][1] if inputs is not None else None
    if not isinstance(declared, yaml.MappingNode) or "type" not in items(declared):
        return
    written = items(declared)["type"][1]
    kind = str(written.value)
    path = f"inputs.{name}"
    if kind not in TYPES:
        scope.problems.add(written, f"{path}.type", f"unknown type '{kind}'{nearest(kind, TYPES)}")
        return
    before = len(scope.problems.found)
    value = document.value_of(scope.resolve(node, path), scope.problems, path)
    if len(scope.problems.found) == before and not _has_type(value, kind):
        scope.problems.add(node, path, f"expected {kind}, found {value!r}")


def _has_type(value: Any, kind: str) -> bool:
    if value is None or kind == "any":
        return True
    if kind == "int":
        return type(value) is int
    if kind == "float":
        return type(value) in (int, float)
    wanted: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "bool": (bool,),
        "path": (str, list),
        "list": (list,),
    }
    return isinstance(value, wanted[kind])


def _drafts(root: yaml.MappingNode, scope: Scope, home: Path, cwd: Path) -> dict[str, Draft]:
    top = items(root)
    stages, defaults = _mapping(top, "stages"), _mapping(top, "defaults")
    extra = {k: (v[0], v[1]) for k, v in items(defaults).items()} if defaults is not None else {}
    if "seed" in top and "seed" not in extra and not document.is_null(top["seed"][1]):
        extra["seed"] = top["seed"]
    drafts = {}
    for name, (key, node) in (items(stages) if stages is not None else {}).items():
        draft = draft_stage(name, key, node, extra, scope, (home, cwd))
        if draft is not None:
            drafts[name] = draft
    if stages is not None and not stages.value:
        scope.problems.add(stages, "stages", "there is no stage; a workflow needs at least one")
    if len(drafts) == len(scope.stages):  # a stage that is not known may have the field
        _check_defaults(defaults, drafts, scope.problems)
    return drafts


def _check_defaults(
    defaults: yaml.MappingNode | None, drafts: dict[str, Draft], problems: Problems
) -> None:
    known = {field for draft in drafts.values() for field in draft.stage.params.model_fields}
    for name, (key, _) in (items(defaults) if defaults is not None else {}).items():
        if name not in known and drafts:
            path = join("defaults", name)
            problems.add(key, path, f"no stage here has this field{nearest(name, known)}")


def _settings(root: yaml.MappingNode, scope: Scope, path: Path) -> dict[str, Any]:
    top, problems = items(root), scope.problems
    values = {
        key: document.value_of(scope.resolve(top[key][1], key), problems, key)
        for key in ("name", "seed")
        if key in top
    }
    name, seed = values.get("name") or path.stem, values.get("seed")
    if not isinstance(name, str) or not _RUN_NAME.fullmatch(name):
        problems.add(top["name"][1], "name", f"{name!r} can't be the name of a folder")
    if not (seed is None or type(seed) is int):
        problems.add(top["seed"][1], "seed", f"expected a whole number, found {seed!r}")
    return {"name": name, "version": 1, "seed": seed}
