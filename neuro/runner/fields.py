"""Turn pydantic's errors into problems with a place in the file and the nearest valid name."""

from __future__ import annotations

import typing
from collections.abc import Collection
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel

from neuro.runner.document import Problems, items, nearest


def explain(
    error: pydantic.ValidationError,
    model: type[BaseModel],
    node: yaml.Node,
    path: str,
    problems: Problems,
    skip: Collection[str] = (),
) -> None:
    """Add every error of a validation to the problems.

    Parameters
    ----------
    error : pydantic.ValidationError
        What pydantic found.
    model : type
        The model that was filled.
    node : yaml.Node
        The mapping that filled it.
    path : str
        The path to that mapping.
    problems : Problems
        Where to add.
    skip : collection of str
        Fields whose problem is noted already.
    """
    for one in error.errors(include_url=False):
        if one["loc"] and one["loc"][0] in skip:
            continue
        names = [part for part in one["loc"] if _is_written(part)]
        at, shown = _find(node, names)
        inside = ".".join(str(name) for name in (shown or names[:1]))
        problems.add(at, f"{path}.{inside}" if inside else path, _message(one, model))


def _is_written(part: Any) -> bool:
    return isinstance(part, int) or ("[" not in part and "(" not in part)


def _find(node: yaml.Node, names: list[Any]) -> tuple[yaml.Node, list[Any]]:
    """Return the deepest node on the way, and the part of the path that exists."""
    at, shown = node, []
    for name in names:
        inner: yaml.Node | None = None
        if isinstance(at, yaml.MappingNode):
            inner = items(at).get(str(name), (None, None))[1]
        elif isinstance(at, yaml.SequenceNode) and isinstance(name, int) and name < len(at.value):
            inner = at.value[name]
        if inner is None:
            continue  # a tag of a union, or a field that was not written
        at = inner
        shown.append(name)
    return at, shown


def _message(one: Any, model: type[BaseModel]) -> str:
    kind, loc, found = one["type"], one["loc"], one.get("input")
    if kind == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        return f"unknown field '{loc[-1]}'{nearest(str(loc[-1]), known)}"
    if kind == "missing":
        return f"the field '{loc[-1]}' is missing"
    if kind == "literal_error":
        known = _literals(one["ctx"]["expected"])
        hint = _quotes(found) or nearest(str(found), known)
        return f"expected one of {', '.join(known)}, found {found!r}{hint}"
    text = str(one["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return f"{text} (found {_short(found)})"
    hint = _quotes(found) if kind == "string_type" else ""
    return f"{text[:1].lower()}{text[1:]}, found {_short(found)}{hint}"


def _quotes(found: Any) -> str:
    if isinstance(found, bool):
        return "; YAML reads yes, no, on and off as true and false: put it in quotes"
    return "; put it in quotes" if isinstance(found, int | float) else ""


def _literals(expected: str) -> list[str]:
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    for name in loc:
        info = model.model_fields.get(str(name))
        inner = _models(info.annotation) if info is not None else []
        if inner:
            model = inner[0]
    return list(model.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in typing.get_args(annotation) for model in _models(arg)]
