"""Path parameters of a stage: which fields they are, and the files that a glob names."""

from __future__ import annotations

import glob
import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from neuro.stage import PathKind

Where = tuple[str, ...]


def path_fields(model: type[BaseModel]) -> dict[Where, str]:
    """Return the fields of a model that hold paths, nested models included.

    Returns
    -------
    dict of tuple of str to str
        ``{("files",): "files", ("mask", "image"): "file"}``.
    """
    found: dict[Where, str] = {}
    for name, info in model.model_fields.items():
        kinds = [m.kind for m in info.metadata if isinstance(m, PathKind)]
        kinds += [a.kind for a in _annotations(info.annotation) if isinstance(a, PathKind)]
        if kinds:
            found[(name,)] = kinds[0]
        for inner in _annotations(info.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= {(name, *rest): kind for rest, kind in path_fields(inner).items()}
    return found


def _annotations(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in typing.get_args(annotation):
        if typing.get_origin(annotation) is not list or isinstance(inner, PathKind):
            yield from _annotations(inner)


def get(values: Any, where: Where) -> Any:
    """Return what stands at a nested place of a model or mapping, None where nothing does."""
    for name in where:
        if values is None:
            return None
        values = values.get(name) if isinstance(values, dict) else getattr(values, name, None)
    return values


def expand(pattern: str, base: Path) -> list[Path]:
    """Return the existing paths that a text names, sorted.

    Parameters
    ----------
    pattern : str
        A path or glob; ``~`` is expanded and a relative one starts at `base`.
    base : Path
        The folder of the YAML file, or the working directory.

    Raises
    ------
    FileNotFoundError
        Where nothing matches.
    """
    full = os.path.abspath(base / os.path.expanduser(pattern))
    if os.path.exists(full):
        return [Path(full)]
    found = sorted(glob.glob(full, recursive=True))
    if not found:
        raise FileNotFoundError(full)
    return [Path(path) for path in found]


def expand_all(value: Any, base: Path, kind: str) -> Any:
    """Expand the value of a path field of the given kind.

    Raises
    ------
    FileNotFoundError, ValueError
        Where nothing matches, or a single path is wanted and more match.
    """
    if value is None:
        return None
    patterns = value if isinstance(value, list) else [value]
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"expected a path as text, found {pattern!r}")
    paths = list(dict.fromkeys(path for p in patterns for path in expand(p, base)))
    if kind == "files":
        return paths
    if len(paths) != 1:
        raise ValueError(f"expected one {kind}, '{value}' matches {len(paths)}")
    if kind in ("folder", "tree") and not paths[0].is_dir():
        raise ValueError(f"expected a folder, {paths[0]} is a file")
    return paths[0]
