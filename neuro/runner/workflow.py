"""What a validated workflow is: stages with parameters, wired to one another."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from neuro.stage import Params, Stage

_GIGABYTES = {"": 1.0, "GB": 1.0, "G": 1.0, "MB": 1e-3, "M": 1e-3, "TB": 1e3, "T": 1e3}
_MINUTES = {"": 1.0, "min": 1.0, "h": 60.0, "s": 1 / 60, "d": 1440.0}


def _in_units(units: dict[str, float], example: str) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", value)
        if match is None or match[2] not in units:
            raise ValueError(f"expected a number with its unit, such as '{example}'")
        return float(match[1]) * units[match[2]]

    return BeforeValidator(read)


class Compute(BaseModel):
    """Where a stage runs; never a part of a result's identity."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    cpus: int | None = Field(None, ge=1)
    """Cores for each job."""
    gpus: int | None = Field(None, ge=0)
    """GPUs for each job."""
    memory: Annotated[float | None, _in_units(_GIGABYTES, "8 GB")] = None
    """Memory for each job: `8 GB`, or a number of GB."""
    time: Annotated[float | None, _in_units(_MINUTES, "2 h")] = None
    """Time limit for each job: `2 h`, `30 min`, or a number of minutes."""
    cluster: Literal["local", "slurm", "auto"] | None = None
    """Where the jobs run."""


@dataclass(frozen=True)
class Member:
    """One variant of a stage: a point of its sweep (a stage without sweep has one)."""

    label: dict[str, Any]
    params: Params


@dataclass(frozen=True)
class Each:
    """What a stage is mapped over.

    Attributes
    ----------
    over : str
        ``"items"`` of a dataset, ``"members"`` of a list, or ``"files"``.
    field : str
        The input (or, for files, the parameter) that receives one of them.
    source : str or None
        The upstream stage.
    files : tuple of Path
        The files.
    written : str or list of str
        As it stands in the file.
    """

    over: Literal["items", "members", "files"]
    field: str
    source: str | None = None
    files: tuple[Path, ...] = ()
    written: Any = None


@dataclass(frozen=True)
class Wire:
    """What one input of a stage is connected to."""

    sources: tuple[str, ...]
    many: bool  # the stage takes a list
    aligned: bool = False  # takes the member that belongs to the one `each` hands over


@dataclass(frozen=True)
class Node:
    """One stage of a workflow.

    Attributes
    ----------
    many : bool
        Downstream receives a list: the stage is swept, mapped over a list, or makes one encoder
        per item.
    """

    name: str
    stage: Stage
    members: tuple[Member, ...]
    wires: dict[str, Wire]
    each: Each | None = None
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)
    many: bool = False

    @property
    def upstream(self) -> list[str]:
        """The names of the stages this one needs, each once."""
        names = [source for wire in self.wires.values() for source in wire.sources]
        if self.each is not None and self.each.source is not None:
            names.append(self.each.source)
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Workflow:
    """A validated workflow; `nodes` stand in the order in which they run."""

    name: str
    version: int
    seed: int | None
    path: Path
    text: str
    nodes: dict[str, Node]
    sets: tuple[str, ...] = ()

    @property
    def stages(self) -> dict[str, Node]:
        """The stages by name, in the order in which they run."""
        return self.nodes

    def until(self, name: str | None) -> list[Node]:
        """Return the nodes to run, up to and including one."""
        if name is None:
            return list(self.nodes.values())
        wanted, todo = set(), [name]
        while todo:
            current = todo.pop()
            if current not in wanted:
                wanted.add(current)
                todo += self.nodes[current].upstream
        return [node for node in self.nodes.values() if node.name in wanted]
