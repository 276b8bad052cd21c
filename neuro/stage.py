"""What a stage is: a typed, versioned function from datasets and encoders to one result.

A package declares its stages in a module ``stages.py`` that an entry point of the group
``neuro.stages`` names. That module stays quick to import: heavy libraries are imported inside
the functions.

>>> from neuro.stage import Context, Dataset, Params, stage
>>> class ScaleParams(Params):
...     factor: float = 2.0
>>> @stage("demo-scale", version=1)
... def scale(data: Dataset, params: ScaleParams, context: Context) -> Dataset:
...     \"\"\"Multiply the signal.\"\"\"
...     return data.assign(signal=data.signal * params.factor)
>>> scale.stage.name, list(scale.stage.inputs)
('demo-scale', ['data'])
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pandas import DataFrame as Table
    from xarray import Dataset

    from neuro.encoder import Encoder
    from neuro.report import Block
else:

    class Dataset:
        """Marks an input or result that is an `xarray.Dataset` of trials."""

    class Encoder:
        """Marks an input or result that is a fitted `neuro.Encoder`."""

    class Table:
        """Marks an input or result that is a `pandas.DataFrame`."""


KINDS = {"Dataset": "dataset", "Encoder": "encoder", "Table": "table"}
RESERVED = ("use", "each", "sweep", "compute")


@dataclass(frozen=True)
class PathKind:
    """Marks a parameter as a path: the runner resolves it and fingerprints the content."""

    kind: str  # "file", "files", "folder" or "tree"


File = Annotated[Path, PathKind("file")]
Files = Annotated[list[Path], PathKind("files")]
Folder = Annotated[Path, PathKind("folder")]
Tree = Annotated[Path, PathKind("tree")]  # a folder of which only what `Params.reads` names counts


class Params(BaseModel):
    """Base of every stage's parameters: unknown fields are refused, values don't change.

    Fields typed `File`, `Files` or `Folder` are resolved by the runner (relative to the YAML
    file, or to the working directory when given by ``--set``) and enter the key by content. A
    `Tree` is a large folder that is resolved alike, but only the files of it that `reads` names
    enter the key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def reads(self) -> list[Path]:
        """Name further files that the stage reads (companions of a header, side-cars)."""
        return []


class Context(Protocol):
    """What the runner hands to a stage besides its inputs and parameters.

    Attributes
    ----------
    name : str
        The stage's name in the workflow.
    key : str
        The address of the result.
    scratch : Path
        A folder that survives a kill: checkpoints go here. It is removed when the result is in.
    n_jobs : int
        Cores this stage may use (torch threads are set to it already).
    members : dict of str to list of dict
        For each input that is a list from a sweep, the parameters of every member.
    """

    name: str
    key: str
    scratch: Path
    n_jobs: int
    members: dict[str, list[dict[str, Any]]]

    def metric(
        self,
        name: str,
        value: float | None,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
        n_unit: str | None = None,
        chance: float | None = None,
        p: float | None = None,
        p_corrected: float | None = None,
        baseline: float | None = None,
        unit: str | None = None,
    ) -> None:
        """Record one number of ``metrics.json`` under a dotted name."""

    def predictions(self, table: Any) -> None:
        """Add rows to ``predictions.parquet``: item, unit, fold, target, truth, score."""

    def section(self, title: str, *blocks: Block) -> None:
        """Add a section of figures, tables and texts to the report."""

    def method(self, sentence: str, *citations: str) -> None:
        """Add a sentence to the methods paragraph, with BibTeX keys of `neuro.report.BIBTEX`."""

    def warn(self, message: str) -> None:
        """Show a warning now and in the report."""

    def mark(self, text: str) -> None:
        """Say what a reader must know of this result and of all that is made of it.

        It stands on top of every section of this stage and of the stages behind it, and in the
        summary: what came of a network with random weights, for example.
        """

    def scored(self, split: str) -> None:
        """Count one more scoring of the test split of that identity."""

    def progress(self, items: Iterable[_T], label: str, total: int | None = None) -> Iterator[_T]:
        """Iterate with a bar (plain lines when not at a terminal)."""


_T = TypeVar("_T")


@dataclass(frozen=True)
class Input:
    """One upstream input of a stage."""

    name: str
    kind: str  # "dataset", "encoder" or "table"
    many: bool  # a list: the members of a sweep
    required: bool
    either: bool = False  # one, or a list where a sweep is wired to it


@dataclass(frozen=True)
class Stage:
    """A declared stage.

    Attributes
    ----------
    name : str
        The name used in YAML.
    version : int
        Raised by hand when the code's results change; part of the key.
    function : callable
        ``function(**inputs, params=..., context=...)``.
    params : type
        The pydantic model of its parameters.
    inputs : dict of str to Input
        The upstream inputs by argument name.
    returns : str
        ``"dataset"``, ``"encoder"`` or ``"table"``.
    together : callable or None
        ``together(inputs, [params...], [context...]) -> [result...]`` computes several members
        of a sweep at once (a trained ensemble).
    """

    name: str
    version: int
    function: Callable[..., Any]
    params: type[Params]
    inputs: dict[str, Input]
    returns: str
    together: Callable[..., list[Any]] | None = None

    @property
    def help(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.function) or ""


def stage(
    name: str, *, version: int, together: Callable[..., list[Any]] | None = None
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a function as a stage; the function stays callable and gains ``.stage``.

    Parameters
    ----------
    name : str
        The name used in YAML, for example ``"eeg-epochs"``.
    version : int
        Raise it whenever the code's results change.
    together : callable, optional
        Computes several members of a sweep at once, see `Stage`.

    Raises
    ------
    TypeError
        Where the signature is not ``(inputs..., params, context) -> kind``.
    """

    def declare(function: Callable[..., Any]) -> Any:
        function.stage = _describe(function, name, version, together)  # type: ignore[attr-defined]
        return function

    return declare


def _describe(
    function: Callable[..., Any],
    name: str,
    version: int,
    together: Callable[..., list[Any]] | None,
) -> Stage:
    hints = typing.get_type_hints(function)
    signature = inspect.signature(function)
    params = hints.get("params")
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise TypeError(f"stage '{name}': the argument 'params' must be annotated with a Params")
    if "context" not in signature.parameters:
        raise TypeError(f"stage '{name}': the argument 'context' is missing")
    inputs = {
        arg: _input(name, arg, hints[arg], parameter)
        for arg, parameter in signature.parameters.items()
        if arg not in ("params", "context")
    }
    taken = set(inputs) & set(params.model_fields) | {
        field for field in [*inputs, *params.model_fields] if field in RESERVED
    }
    if taken:
        raise TypeError(f"stage '{name}': names used twice or reserved: {sorted(taken)}")
    returns, many, _ = _kind(hints.get("return"))
    if returns is None or many:
        raise TypeError(f"stage '{name}': must return a Dataset, an Encoder or a Table")
    return Stage(name, version, function, params, inputs, returns, together)


def _input(stage_name: str, arg: str, hint: Any, parameter: inspect.Parameter) -> Input:
    kind, many, optional = _kind(hint)
    either = many is None
    if kind is None:
        raise TypeError(
            f"stage '{stage_name}': the input '{arg}' must be annotated as Dataset, Encoder, "
            f"Table or a list of one of them, not {hint!r}"
        )
    required = not optional and parameter.default is parameter.empty
    return Input(arg, kind, bool(many), required, either)


def _kind(hint: Any) -> tuple[str | None, bool | None, bool]:
    """Return (kind, is a list, is optional) of an annotation; None for one or a list."""
    args = typing.get_args(hint)
    found = {_kind(arg)[:2] for arg in args} if isinstance(hint, types.UnionType) else set()
    if {many for _, many in found} == {True, False} and len({kind for kind, _ in found}) == 1:
        return next(iter(found))[0], None, False
    if type(None) in args:
        (inner,) = (a for a in args if a is not type(None))
        kind, many, _ = _kind(inner)
        return kind, many, True
    if typing.get_origin(hint) is list:
        return _kind(args[0])[0], True, False
    return KINDS.get(getattr(hint, "__name__", "")), False, False
