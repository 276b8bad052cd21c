"""Pydantic fields as people read them, and as they write them on a command line.

The command line shows the fields of stages and of encoders it has never heard of; everything it
says about them comes from here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from neuro import units
from neuro.errors import InputError
from neuro.runner.document import nearest
from neuro.stage import PathKind

_PATHS = {
    "file": "file",
    "files": "glob or list of files",
    "folder": "folder",
    "tree": "folder",
}
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Field:
    """One field of a model, in words.

    Attributes
    ----------
    name : str
        Dotted where the field is inside another (``simulate.n_subjects``).
    type : str
        The type as a person writes it in YAML.
    default : str
        The default as YAML, or ``"required"``.
    doc : str
        The field's docstring.
    """

    name: str
    type: str
    default: str
    doc: str


def describe(model: type[BaseModel], prefix: str = "") -> list[Field]:
    """List a model's fields, those of models inside it under dotted names.

    Parameters
    ----------
    model : type
        A pydantic model.
    prefix : str, optional
        Put before every name.

    Examples
    --------
    >>> class Filter(BaseModel):
    ...     h_freq: units.Hertz | None = 30.0
    >>> describe(Filter)
    [Field(name='h_freq', type='number (Hz) or null', default='30.0', doc='')]
    """
    return list(_describe(model, prefix))


def _describe(model: type[BaseModel], prefix: str) -> Iterator[Field]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        text = type_text(field.annotation, field.metadata)
        default = "(below)" if inner and not field.is_required() else _default(field)
        if inner and field.default is None:
            default = "null"
        doc = " ".join((field.description or "").split())
        yield Field(prefix + name, text, default, doc)
        if inner is not None and inner is not model:
            yield from _describe(inner, f"{prefix}{name}.")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return yaml_text(field.get_default(call_default_factory=True, validated_data={}))


def yaml_text(value: Any) -> str:
    """Write a value as one line of YAML (flow style)."""
    import json

    return json.dumps(_plain(value), ensure_ascii=False).strip('"')


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def type_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Say a type in words: ``number (V) or null``, ``"conv" or "mlp"``, ``list of file``.

    Parameters
    ----------
    annotation : object
        A type as pydantic's ``FieldInfo.annotation`` holds it.
    metadata : iterable
        What stood beside it in ``Annotated``.
    """
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *inner = typing.get_args(annotation)
        metadata = [*inner, *metadata]
    metadata = list(metadata)
    for kind in metadata:
        if isinstance(kind, PathKind):
            return _or_null(_PATHS[kind.kind], annotation)
    return _bare(annotation, _unit(metadata)) + _bounds(metadata)


def _or_null(text: str, annotation: Any) -> str:
    return f"{text} or null" if type(None) in typing.get_args(annotation) else text


def _unit(metadata: list[Any]) -> str:
    for name, unit in (("Volts", "V"), ("Seconds", "s"), ("Hertz", "Hz")):
        if typing.get_args(getattr(units, name))[1] in metadata:
            return unit
    return ""


def _bounds(metadata: list[Any]) -> str:
    found = [
        f"{sign} {getattr(item, name):g}"
        for item in metadata
        for name, sign in _BOUNDS.items()
        if isinstance(getattr(item, name, None), int | float)
    ]
    return f" {' and '.join(found)}" if found else ""


def _bare(annotation: Any, unit: str) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        null = [type_text(arg) for arg in args if arg is type(None)]
        return " or ".join([*(type_text(a) for a in args if a is not type(None)), *null])
    if origin is Literal:
        return " or ".join(yaml_text(arg) for arg in args)
    if origin is tuple and Ellipsis not in args:
        return f"[{', '.join(type_text(arg) for arg in args)}]"
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_text(args[0])}"
    if origin is dict:
        return f"mapping of {type_text(args[0])} to {type_text(args[1])}"
    return _word(annotation, unit)


def _word(annotation: Any, unit: str) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    words = {
        type(None): "null",
        bool: "true or false",
        int: "integer",
        float: f"number ({unit})" if unit else "number",
        str: "text",
        Path: "path",
        Any: "anything",
        list: "list",
        dict: "mapping",
    }
    return words.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
        for arg in typing.get_args(annotation):
            if found := _model_in(arg):
                return found
    return None


def split_options(
    tokens: list[str], model: type[BaseModel], own: Iterable[str] = ()
) -> tuple[list[str], BaseModel]:
    """Split a command line's words into plain words and a validated model of the options.

    Parameters
    ----------
    tokens : list of str
        Words; ``--name value``, ``--name=value``, and for truth values ``--name``/``--no-name``.
    model : type
        The pydantic model that names the options.
    own : iterable of str
        Options of the command itself, for the nearest name only.

    Returns
    -------
    words : list of str
        What is no option.
    options : BaseModel
        An instance of `model`.

    Raises
    ------
    InputError
        Where an option is unknown, lacks its value or has a wrong one.

    Examples
    --------
    >>> class Options(BaseModel):
    ...     batch_size: int = 64
    ...     align: bool = False
    >>> split_options(["a.fif", "--batch-size", "8", "--align"], Options)
    (['a.fif'], Options(batch_size=8, align=True))
    """
    words: list[str] = []
    values: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token.startswith("--"):
            name, value = _option(token, rest, model, own)
            _put(values, name, value, model)
        elif token.startswith("-") and token[1:] and not Path(token).exists():
            raise InputError(f"unknown option '{token}'{nearest(token, model.model_fields)}")
        else:
            words.append(token)
    return words, _validated(model, values)


def _option(
    token: str, rest: list[str], model: type[BaseModel], own: Iterable[str]
) -> tuple[str, Any]:
    written, equals, value = token[2:].partition("=")
    name = written.replace("-", "_")
    fields = model.model_fields
    if name.startswith("no_") and name[3:] in fields and name not in fields and not equals:
        return name[3:], False
    if name not in fields:
        known = [*(f.replace("_", "-") for f in fields), *own]
        raise InputError(f"unknown option '--{written}'{nearest(written, known)}")
    if equals:
        return name, value
    if fields[name].annotation is bool:
        spoken = rest and rest[0].lower() in _TRUE | _FALSE
        return name, rest.pop(0) if spoken else True
    if not rest:
        raise InputError(f"option '--{written}' lacks its value ({type_text_of(fields[name])})")
    return name, rest.pop(0)


def type_text_of(field: FieldInfo) -> str:
    """Say a field's type in words."""
    return type_text(field.annotation, field.metadata)


def _put(values: dict[str, Any], name: str, value: Any, model: type[BaseModel]) -> None:
    kind = type_text_of(model.model_fields[name])
    if isinstance(value, str) and value in ("null", "none") and kind.endswith("null"):
        values[name] = None
    elif isinstance(value, str) and kind.startswith(("list", "[", "mapping", "glob")):
        found = _parsed(name, value)
        if isinstance(found, list) and isinstance(values.get(name), list):
            found = values[name] + found
        values[name] = found
    else:
        values[name] = value


def _parsed(name: str, text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"option '--{name}': '{text}' is no YAML value ({error})") from error
    return value if isinstance(value, list | dict) else [value]


def _validated(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "options"
        field = model.model_fields.get(str(first["loc"][0])) if first["loc"] else None
        expected = f"; expected {type_text_of(field)}" if field else ""
        raise InputError(
            f"option '--{name.replace('_', '-')}': found {first.get('input')!r}, "
            f"{first['msg']}{expected}"
        ) from error
