"""What has to be computed for one stage: its members and items, each with its address."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuro.errors import InputError
from neuro.runner import paths
from neuro.runner.keys import canonical, digest, result_key
from neuro.runner.store import Ref, Store
from neuro.runner.workflow import Each, Member, Node, Wire
from neuro.stage import Params


@dataclass(frozen=True)
class Source:
    """What one input of a task receives."""

    refs: tuple[Ref, ...]
    many: bool = False
    item: str | None = None
    labels: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        refs = [[ref.stage, ref.key] for ref in self.refs]
        return {"refs": refs, "many": self.many, "item": self.item, "labels": list(self.labels)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Source:
        """Read back what `to_json` gave."""
        refs = tuple(Ref(*ref) for ref in value["refs"])
        return cls(refs, value["many"], value["item"], tuple(value["labels"]))


@dataclass(frozen=True)
class Task:
    """One result to compute."""

    ref: Ref
    params: Params
    inputs: dict[str, Source]
    files: dict[str, str]
    label: dict[str, Any] = field(default_factory=dict)
    item: str | None = None


@dataclass(frozen=True)
class Part:
    """One member of a stage's value: one task, or the items that are put together."""

    label: dict[str, Any]
    ref: Ref
    tasks: tuple[Task, ...]
    joined: bool


@dataclass(frozen=True)
class Value:
    """What a stage hands downstream: addresses, one for each member."""

    refs: tuple[Ref, ...]
    labels: tuple[dict[str, Any], ...]


Values = dict[str, "Value | None"]


class Unknown(Exception):
    """The tasks can't be known before an upstream stage has run."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(source)


def value_of(parts: list[Part]) -> Value:
    """Return what downstream sees of a stage's parts."""
    return Value(tuple(part.ref for part in parts), tuple(part.label for part in parts))


def resolve(node: Node, values: Values, store: Store) -> list[Part]:
    """Return the parts of a stage.

    Parameters
    ----------
    node : Node
        The stage.
    values : dict of str to Value
        What its upstream stages gave; None where that is not known yet.
    store : Store
        Knows the items of upstream datasets and remembers content hashes.

    Raises
    ------
    Unknown
        Where the items or members upstream are known only after it ran.
    """
    for name in node.upstream:
        if values[name] is None:
            raise Unknown(name)
    resolver = _Resolver(node, values, store)
    if node.each is None:
        return [resolver.single(member, None) for member in node.members]
    if node.each.over == "members":
        return list(resolver.over_members(node.each))
    return list(resolver.over_items(node.each))


@dataclass
class _Resolver:
    node: Node
    values: Values
    store: Store

    def single(self, member: Member, place: tuple[str, int] | None) -> Part:
        label = member.label
        inputs = {name: self._source(wire, place) for name, wire in self.node.wires.items()}
        if place is not None and self.node.each is not None:
            upstream = self._value(place[0])
            inputs[self.node.each.field] = Source((upstream.refs[place[1]],))
            label = {**upstream.labels[place[1]], **label}
        task = self._task(member.params, inputs, label)
        return Part(label, task.ref, (task,), joined=False)

    def over_members(self, each: Each) -> Iterator[Part]:
        source = str(each.source)
        for index in range(len(self._value(source).refs)):
            for member in self.node.members:
                yield self.single(member, (source, index))

    def over_items(self, each: Each) -> Iterator[Part]:
        items = list(self._items(each))
        for member in self.node.members:
            tasks = [self._item_task(each, member, item) for item in items]
            if self.node.stage.returns == "encoder":
                for task in tasks:
                    yield Part(task.label, task.ref, (task,), joined=False)
                continue
            key = digest(["joined", [[task.item, task.ref.key] for task in tasks]])
            ref = Ref(self.node.stage.name, key)
            yield Part(member.label, ref, tuple(tasks), joined=True)

    def _items(self, each: Each) -> Iterator[tuple[str, Any]]:
        if each.over == "files":
            yield from zip(_short_names(each.files), each.files, strict=True)
            return
        (upstream,) = self._value(str(each.source)).refs
        if not self.store.has(upstream):
            raise Unknown(str(each.source))
        yield from self.store.items(upstream)

    def _item_task(self, each: Each, member: Member, item: tuple[str, Any]) -> Task:
        name, content = item
        inputs = {key: self._source(wire, None) for key, wire in self.node.wires.items()}
        label = {**member.label, "item": name}
        if each.over == "files":
            params = member.params.model_copy(update={each.field: content})
            return self._task(params, inputs, label, item=name)
        (upstream,) = self._value(str(each.source)).refs
        inputs[each.field] = Source((upstream,), item=name)
        return self._task(member.params, inputs, label, item=name, content=content)

    def _source(self, wire: Wire, place: tuple[str, int] | None) -> Source:
        if wire.aligned and place is not None:
            return Source((self._value(wire.sources[0]).refs[place[1]],))
        refs: list[Ref] = []
        labels: list[dict[str, Any]] = []
        for name in wire.sources:
            value = self._value(name)
            refs += value.refs
            named = {} if len(wire.sources) == 1 else {"stage": name}
            labels += [{**named, **label} for label in value.labels]
        return Source(tuple(refs), wire.many, None, tuple(labels) if wire.many else ())

    def _value(self, name: str) -> Value:
        value = self.values[name]
        if value is None:
            raise Unknown(name)
        return value

    def _task(
        self,
        params: Params,
        inputs: dict[str, Source],
        label: dict[str, Any],
        item: str | None = None,
        content: str | None = None,
    ) -> Task:
        stage = self.node.stage
        files = self.store.fingerprints.of_all(_read_by(params, self.node.name))
        keys = {name: _input_key(source, content) for name, source in inputs.items()}
        key = result_key(stage.name, stage.version, params, keys, files)
        return Task(Ref(stage.name, key), params, inputs, files, label, item)


def _input_key(source: Source, content: str | None) -> Any:
    if source.item is not None:
        return {"item": content}
    if source.many:  # the labels reach the stage through its context, so they count
        return [[label, ref.key] for label, ref in zip(source.labels, source.refs, strict=True)]
    return source.refs[0].key


def _read_by(params: Params, stage: str) -> list[Path]:
    """Return every file that a stage reads according to its parameters."""
    found: list[Path] = []
    for where, kind in paths.path_fields(type(params)).items():
        if kind == "tree":  # large; the stage names what it reads of it
            continue
        value = paths.get(params, where)
        found += value if isinstance(value, list) else [value] if value is not None else []
    try:
        return [*found, *params.reads()]
    except (OSError, ValueError) as error:
        raise InputError(f"stage '{stage}': what it reads can't be listed: {error}") from error


def _short_names(files: tuple[Path, ...]) -> list[str]:
    """Name files by what tells them apart: the path below their common folder."""
    if len(files) == 1:
        return [files[0].name]
    common = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(common).as_posix() for file in files]


def record(parts: list[Part], node: Node) -> dict[str, Any]:
    """Return what a stage is made of, to tell later why it runs again."""
    members = {}
    for part in parts:
        first = part.tasks[0] if part.tasks else None
        members[label_text(part.label)] = {
            "key": part.ref.key,
            "params": canonical(first.params) if first else {},
            "inputs": {} if first is None else _record_inputs(first.inputs, node),
            "files": {} if first is None else first.files,
            "items": {str(task.item): task.ref.key for task in part.tasks} if part.joined else {},
        }
    return {"stage": node.stage.name, "version": node.stage.version, "members": members}


def _record_inputs(inputs: dict[str, Source], node: Node) -> dict[str, list[str]]:
    """Return the keys of what came in, by the names of the stages that it came from."""
    found = {}
    for name, source in inputs.items():
        wire = node.wires.get(name)
        names = wire.sources if wire is not None else (str(node.each and node.each.source),)
        if source.item is None:
            found[", ".join(names)] = [ref.key for ref in source.refs]
    return found


def label_text(label: dict[str, Any]) -> str:
    """Write a member's parameters in one line.

    >>> label_text({"beta": 4, "seed": 0})
    'beta=4,seed=0'
    """
    return ",".join(f"{name}={_label_value(value)}" for name, value in label.items())


def _label_value(value: Any) -> str:
    return value if isinstance(value, str) else str(canonical(value))
