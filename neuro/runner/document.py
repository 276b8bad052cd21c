"""A YAML file as nodes that remember where they were written.

Nothing is executed or imported: `yaml.SafeLoader` composes the nodes, and the expanded size is
bounded, so that a file of aliases of aliases is refused at once.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from neuro.errors import InputError

MAX_NODES = 100_000
MAX_BYTES = 5_000_000
REFERENCE = re.compile(r"(?<!\$)\$\{([^}]*)\}")
SET = "--set "


class RefNode(yaml.ScalarNode):
    """A whole scalar ``${stage}``: a reference to another stage."""


@dataclass(frozen=True)
class Reference:
    """The value of a `RefNode`."""

    name: str


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a workflow file."""

    where: str
    field: str
    message: str

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.field}: {self.message}"
            if self.field
            else (f"{self.where}: {self.message}")
        )


@dataclass
class Problems:
    """Collects everything wrong with one file, so that it is told at once."""

    name: str
    found: list[Problem] = field(default_factory=list)

    def add(self, at: yaml.Node | yaml.Mark | None, path: str, message: str) -> None:
        """Note one problem at a node or mark."""
        problem = Problem(place(at, self.name), path, message)
        if problem not in self.found:
            self.found.append(problem)

    def stop(self) -> None:
        """Raise when there are any.

        Raises
        ------
        InputError
            With every problem on its own line; ``error.problems`` holds them as a list.
        """
        if not self.found:
            return
        count = f"{len(self.found)} problem{'s' if len(self.found) > 1 else ''}"
        lines = "\n".join(f"  {problem}" for problem in self.found)
        error = InputError(f"{count} in {self.name}:\n{lines}")
        error.problems = list(self.found)  # type: ignore[attr-defined]
        raise error


def place(at: yaml.Node | yaml.Mark | None, name: str) -> str:
    """Return ``file:line:column`` (or the ``--set`` text) of a node."""
    mark = at.start_mark if isinstance(at, yaml.Node) else at
    if mark is None:
        return f"{name}:1:1"
    if str(mark.name).startswith(SET):
        return str(mark.name)
    return f"{mark.name}:{mark.line + 1}:{mark.column + 1}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` or the list of what is known.

    >>> nearest("bta", ["beta", "n_latents"])
    "; did you mean 'beta'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def compose(text: str, name: str) -> yaml.Node | None:
    """Compose one YAML document.

    Parameters
    ----------
    text : str
        The document.
    name : str
        What to call it in messages.

    Returns
    -------
    yaml.Node or None
        None for an empty document.

    Raises
    ------
    InputError
        Where the text is no YAML, or grows beyond the bounds when its aliases are expanded.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{name}: the file has {len(text)} characters; a workflow is far smaller")
    loader = yaml.SafeLoader(text)
    loader.name = name
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"{place(mark, name)}: not valid YAML: {error.problem or error.context}"
            f"{_flow_hint(text, mark)}"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{name}: not valid YAML: {str(error).splitlines()[0]}") from error
    if node is not None:
        _check_size(node, name)
    return node


def _flow_hint(text: str, mark: yaml.Mark | None) -> str:
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and "${" in lines[mark.line]:
        return ' (inside [ ] and { } a reference must be quoted: "${name}")'
    return ""


def _check_size(root: yaml.Node, name: str) -> None:
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise InputError(f"{place(node, name)}: an alias (*name) contains itself")
        open_nodes.add(id(node))
        total = 1 + sum(size(child) for child in children(node))
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        if total > MAX_NODES:
            raise InputError(
                f"{place(node, name)}: with its aliases expanded the file has more than "
                f"{MAX_NODES} values; write fewer aliases (*name)"
            )
        return total

    try:
        size(root)
    except RecursionError as error:
        raise InputError(f"{name}: nested too deeply") from error


def children(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the nodes directly below."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def flatten(node: yaml.Node, problems: Problems, path: str = "") -> None:
    """Note duplicate keys and merge ``<<: *anchor`` in place, in the whole tree."""
    if isinstance(node, yaml.MappingNode):
        _check_duplicates(node, problems, path)
        try:
            yaml.SafeLoader("").flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            problems.add(error.problem_mark, path, f"{error.problem}")
        for key, value in node.value:
            flatten(value, problems, join(path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            flatten(child, problems, f"{path}[{index}]")


def _check_duplicates(node: yaml.MappingNode, problems: Problems, path: str) -> None:
    seen: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        text = str(key.value)
        if text in seen:
            first = seen[text].start_mark.line + 1
            problems.add(key, join(path, text), f"the key is given twice (first in line {first})")
        seen[text] = key


def join(path: str, name: str) -> str:
    """Join a dotted path."""
    return f"{path}.{name}" if path else name


def items(node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Return ``{key: (key node, value node)}`` of a mapping, the last of equal keys.

    A key that was merged from an anchor comes first and is overridden.
    """
    return {str(key.value): (key, value) for key, value in node.value}


def put(mapping: yaml.MappingNode, key: str, value: yaml.Node) -> None:
    """Set one key of a mapping node."""
    mark = value.start_mark
    pair = (yaml.ScalarNode("tag:yaml.org,2002:str", key, mark, mark), value)
    places = [i for i, (k, _) in enumerate(mapping.value) if str(k.value) == key]
    if places:  # in its place: the order of stages and of a sweep means something
        mapping.value = [pair if i == places[-1] else p for i, p in enumerate(mapping.value)]
    else:
        mapping.value = [*mapping.value, pair]


def is_null(node: yaml.Node) -> bool:
    """Tell whether a node is YAML's null."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def value_of(node: yaml.Node, problems: Problems, path: str) -> Any:
    """Turn a node into Python values; a `RefNode` becomes a `Reference`."""
    if isinstance(node, RefNode):
        return Reference(node.value)
    if isinstance(node, yaml.MappingNode):
        return {
            _scalar(key, problems, path): value_of(value, problems, join(path, str(key.value)))
            for key, value in node.value
        }
    if isinstance(node, yaml.SequenceNode):
        return [value_of(n, problems, f"{path}[{i}]") for i, n in enumerate(node.value)]
    return _scalar(node, problems, path)


def _scalar(node: yaml.Node, problems: Problems, path: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        problems.add(node, path, "a key must be a single value")
        return str(node.value)
    try:
        return yaml.SafeLoader("").construct_object(node)
    except yaml.MarkedYAMLError as error:
        problems.add(node, path, f"not understood: {error.problem}")
    except ValueError as error:
        problems.add(node, path, f"not understood: {error}")
    return None


def text_of(text: str, source: yaml.Node) -> yaml.ScalarNode:
    """Make a text node that was written where `source` was."""
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, source.start_mark, source.end_mark)


@dataclass
class Scope:
    """What ``${name}`` can mean in one file."""

    inputs: dict[str, yaml.Node]
    stages: set[str]
    problems: Problems
    resolving: list[str] = field(default_factory=list)

    def resolve(self, node: yaml.Node, path: str) -> yaml.Node:
        """Return the node with every reference to inputs and environment replaced."""
        if isinstance(node, yaml.MappingNode):
            pairs = [(k, self.resolve(v, join(path, str(k.value)))) for k, v in node.value]
            return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            nodes = [self.resolve(n, f"{path}[{i}]") for i, n in enumerate(node.value)]
            return yaml.SequenceNode(node.tag, nodes, node.start_mark, node.end_mark)
        if isinstance(node, RefNode) or "${" not in node.value:
            return node
        whole = REFERENCE.fullmatch(node.value)
        return self._look_up(whole[1], node, path) if whole else self._fill_in(node, path)

    def _look_up(self, name: str, node: yaml.Node, path: str) -> yaml.Node:
        name = name.strip()
        if name.startswith("env:"):
            return self._environment(name.removeprefix("env:"), node, path)
        if name in self.inputs:
            return self._input(name, node, path)
        if name in self.stages:
            return RefNode("!ref", name, node.start_mark, node.end_mark)
        known = [*self.inputs, *self.stages]
        self.problems.add(
            node, path, f"'${{{name}}}' names no stage and no input{nearest(name, known)}"
        )
        return text_of("", node)

    def _input(self, name: str, node: yaml.Node, path: str) -> yaml.Node:
        if name in self.resolving:
            chain = " -> ".join([*self.resolving, name])
            self.problems.add(node, path, f"the inputs refer to one another: {chain}")
            return text_of("", node)
        self.resolving.append(name)
        found = self.resolve(self.inputs[name], f"inputs.{name}")
        self.resolving.pop()
        return found

    def _environment(self, variable: str, node: yaml.Node, path: str) -> yaml.Node:
        if variable not in os.environ:
            self.problems.add(
                node,
                path,
                f"the environment variable {variable} is not set; set it "
                f"(export {variable}=...) or give the value with --set",
            )
        return text_of(os.environ.get(variable, ""), node)

    def _fill_in(self, node: yaml.Node, path: str) -> yaml.Node:
        origin: list[yaml.Node] = []

        def text(match: re.Match[str]) -> str:
            found = self._look_up(match[1], node, path)
            if isinstance(found, RefNode):
                self.problems.add(
                    node, path, f"the stage '${{{found.value}}}' can't be a part of a text"
                )
            if match.start() == 0:
                origin.append(found)
            return str(found.value) if isinstance(found, yaml.ScalarNode) else ""

        filled = REFERENCE.sub(text, node.value).replace("$${", "${")
        return text_of(filled, origin[0] if origin else node)


def read_text(path: Path) -> str:
    """Read a workflow file.

    Raises
    ------
    InputError
        Where it is missing, no text, or can't be read.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such workflow file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a YAML text file: {error}") from error
