"""Connect the drafts of a workflow: inputs, `each`, kinds, lists and cycles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import yaml

from neuro.runner import document
from neuro.runner.document import Problems, RefNode
from neuro.runner.nodes import Draft
from neuro.runner.workflow import Each, Node, Wire
from neuro.stage import Input


def connect(drafts: dict[str, Draft], problems: Problems) -> dict[str, Node]:
    """Return the nodes in the order in which they run.

    Parameters
    ----------
    drafts : dict of str to Draft
        The stages in the order written.
    problems : Problems
        Receives wrong kinds, missing inputs, lists where one is wanted, and cycles.
    """
    order = _order(drafts, problems)
    wiring = _Wiring(drafts, problems, {}, {})
    for name in order:
        wiring.add(drafts[name])
    return wiring.nodes


def _order(drafts: dict[str, Draft], problems: Problems) -> list[str]:
    graph = {name: {n for n in _mentioned(d) if n in drafts} for name, d in drafts.items()}
    try:
        return _stable(graph)
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        first = next(name for name in drafts if name in cycle)
        turn = cycle.index(first)
        shown = " -> ".join([*cycle[turn:-1], *cycle[:turn], first])
        problems.add(drafts[first].key, f"stages.{first}", f"the stages form a circle: {shown}")
        return []


def _stable(graph: dict[str, set[str]]) -> list[str]:
    """Sort topologically, in the order written where there is a choice."""
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    place = {name: i for i, name in enumerate(graph)}
    ready, order = list(sorter.get_ready()), []
    while ready:
        ready.sort(key=place.__getitem__)
        name = ready.pop(0)
        order.append(name)
        sorter.done(name)
        ready += sorter.get_ready()
    return order


def _mentioned(draft: Draft) -> Iterator[str]:
    nodes = [*draft.wires.values(), *([draft.each] if draft.each is not None else [])]
    for node in nodes:
        for inner in [node, *document.children(node)]:
            if isinstance(inner, RefNode):
                yield inner.value


@dataclass
class _Wiring:
    drafts: dict[str, Draft]
    problems: Problems
    nodes: dict[str, Node]
    origins: dict[str, str]  # the stage whose sweep a list goes back to

    def add(self, draft: Draft) -> None:
        each = self._each(draft)
        wires = {
            name: wire
            for name, node in draft.wires.items()
            if (wire := self._wire(draft, draft.stage.inputs[name], node, each)) is not None
        }
        self._check_missing(draft, each)
        over_list = each is not None and (
            each.over == "members" or draft.stage.returns == "encoder"
        )
        many = draft.swept or over_list
        inherits = each is not None and each.over == "members" and not draft.swept
        self.origins[draft.name] = (
            self.origins[each.source] if inherits and each and each.source else draft.name
        )
        self.nodes[draft.name] = Node(
            draft.name, draft.stage, draft.members, wires, each, draft.sweep, draft.compute, many
        )

    def _note(self, at: yaml.Node, draft: Draft, field: str, message: str) -> None:
        self.problems.add(at, f"stages.{draft.name}.{field}", message)

    def _each(self, draft: Draft) -> Each | None:
        node = draft.each
        if node is None:
            return None
        if "each" in draft.unread:
            return Each("items", "", None)
        if not isinstance(node, RefNode):
            written = document.value_of(node, self.problems, f"stages.{draft.name}.each")
            return Each("files", draft.file_field, None, draft.files, written)
        source = self.nodes.get(node.value)
        if source is None:  # its own problem is already noted
            return Each("items", "", None)
        field = self._each_field(draft, source, node)
        if not source.many and source.stage.returns != "dataset":
            self._note(
                node,
                draft,
                "each",
                f"'{source.name}' gives one {source.stage.returns}: "
                f"each: takes a dataset or the members of a sweep",
            )
        return Each(
            "members" if source.many else "items", field, source.name, (), f"${{{source.name}}}"
        )

    def _each_field(self, draft: Draft, source: Node, node: yaml.Node) -> str:
        kind = source.stage.returns
        free = [
            i.name
            for i in draft.stage.inputs.values()
            if i.kind == kind and not i.many and i.name not in draft.wires
            and (i.required or i.name not in draft.left_out)
        ]  # fmt: skip
        required = [name for name in free if draft.stage.inputs[name].required]
        fits = free if len(free) == 1 else required
        if len(fits) == 1:
            return fits[0]
        have = (
            f"several do: {', '.join(free)}; wire all but one, or set them to null"
            if free
            else "none is left"
        )
        self._note(
            node,
            draft,
            "each",
            f"one item of '{source.name}' goes to the input of '{draft.stage.name}' that takes "
            f"one {kind} and is not given otherwise; {have}",
        )
        return ""

    def _wire(self, draft: Draft, wanted: Input, node: yaml.Node, each: Each | None) -> Wire | None:
        if wanted.name in draft.unread:
            return None
        refs = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(ref, RefNode) for ref in refs) or not refs:
            self._note(
                node, draft, wanted.name, f"expected a {wanted.kind} of another stage: ${{stage}}"
            )
            return None
        sources = [self.nodes[ref.value] for ref in refs if ref.value in self.nodes]
        for ref, source in zip(refs, sources, strict=False):
            self._check_kind(draft, wanted, ref, source)
        listed = len(sources) > 1 or any(s.many and not self._aligned(s, each) for s in sources)
        if wanted.many or len(sources) != len(refs) or (wanted.either and listed):
            return Wire(tuple(source.name for source in sources), True)
        return self._single(draft, wanted, node, sources, each)

    def _aligned(self, source: Node, each: Each | None) -> bool:
        """Whether members of a source go along with those of `each`."""
        return (
            source.many
            and each is not None
            and each.over == "members"
            and each.source is not None
            and self.origins[source.name] == self.origins[each.source]
        )

    def _single(
        self, draft: Draft, wanted: Input, node: yaml.Node, sources: list[Node], each: Each | None
    ) -> Wire:
        (source, *others) = sources
        aligned = self._aligned(source, each)
        if others:
            self._note(node, draft, wanted.name, f"expected one {wanted.kind}, found a list")
        elif source.many and not aligned:
            self._note(
                node,
                draft,
                wanted.name,
                f"expected one {wanted.kind}; '{source.name}' gives a list "
                f"(write each: ${{{source.name}}} to run once for each)",
            )
        return Wire((source.name,), False, aligned)

    def _check_kind(self, draft: Draft, wanted: Input, at: yaml.Node, source: Node) -> None:
        returns = source.stage.returns
        if returns == wanted.kind:
            return
        fits = [n.name for n in self.nodes.values() if n.stage.returns == wanted.kind]
        hint = f"; of that kind: {', '.join(fits)}" if fits else ""
        self._note(
            at,
            draft,
            wanted.name,
            f"expected a {wanted.kind}; '{source.name}' ({source.stage.name}) gives a "
            f"{returns}{hint}",
        )

    def _check_missing(self, draft: Draft, each: Each | None) -> None:
        for wanted in draft.stage.inputs.values():
            given = wanted.name in draft.wires or (
                each is not None and (each.field == wanted.name or not each.field)
            )
            if wanted.required and not given:
                self._note(
                    draft.key,
                    draft,
                    wanted.name,
                    f"the input is missing; expected a {wanted.kind} of another stage: "
                    f"{wanted.name}: ${{stage}}",
                )
