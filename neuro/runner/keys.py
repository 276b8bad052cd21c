"""The address of a result: a hash of everything that made it, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

KEY_VERSION = 1


def canonical(value: Any) -> Any:
    """Reduce values to JSON types in one way only.

    Parameters
    ----------
    value : object
        Models, mappings, sequences, sets, paths, enums, numbers, text or None.

    Returns
    -------
    object
        Mappings sorted by key when dumped, sets sorted, paths as text.

    Raises
    ------
    TypeError
        For anything else: it can't be a part of a key.
    """
    if isinstance(value, BaseModel):
        return {name: canonical(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, Mapping):
        return {_text(key): canonical(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((canonical(inner) for inner in value), key=dumps)
    if isinstance(value, (list, tuple)):
        return [canonical(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return canonical(value.tolist())
    raise TypeError(f"a {type(value).__name__} can't be a parameter: {value!r}")


def _text(key: Any) -> str:
    return key if isinstance(key, str) else f"{type(key).__name__}:{key}"


def dumps(value: Any) -> str:
    """Write canonical values as JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the hash of any canonical value: 32 hexadecimal digits."""
    return hashlib.blake2b(
        dumps(canonical(value)).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def result_key(
    stage: str,
    version: int,
    params: Any,
    inputs: Mapping[str, Any],
    files: Mapping[str, str],
) -> str:
    """Return the key of a result.

    Parameters
    ----------
    stage : str
        The registered name of the stage.
    version : int
        Its version.
    params : Params or mapping
        Its parameters; absolute paths are a part of them.
    inputs : mapping
        For each input the key upstream, a list of keys, or ``{"item": digest}``.
    files : mapping of str to str
        Content hashes of the files it reads, by path.

    Returns
    -------
    str
        32 hexadecimal digits. Neither the workflow's nor the stage's name in it, nor ``compute``
        enter.
    """
    return digest([KEY_VERSION, stage, version, canonical(params), dict(inputs), dict(files)])
