"""Stages in words, from their docstrings, types and pydantic fields (``neuro stages``)."""

from __future__ import annotations

from neuro.runner.registry import stages
from neuro.stage import Input, Stage


def summaries() -> list[tuple[str, str, str, str]]:
    """List every stage: name, what it takes, what it gives, first line of its docstring."""
    return [
        (name, _takes(stage), stage.returns, (stage.help.splitlines() or [""])[0])
        for name, stage in sorted(stages().items())
    ]


def heading(stage: Stage) -> str:
    """Return a stage's docstring under a line with its name, version, inputs and result."""
    inputs = [f"  {entry.name}: ${{...}}  {_kind(entry)}" for entry in stage.inputs.values()]
    takes = ["", "Inputs:", *inputs] if inputs else []
    title = f"{stage.name} (version {stage.version}) -> {stage.returns}"
    return "\n".join([title, "", stage.help.strip(), *takes, "", "Fields:"])


def _kind(entry: Input) -> str:
    members = f"list of {entry.kind}s, the members of a sweep"
    kind = members if entry.many else entry.kind
    kind = f"{entry.kind}, or {members}" if entry.either else kind
    return kind if entry.required else f"{kind}, may be left out"


def _takes(stage: Stage) -> str:
    names = [f"{e.name}: {'list of ' if e.many else ''}{e.kind}" for e in stage.inputs.values()]
    return ", ".join(names) or "-"
