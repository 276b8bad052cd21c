"""Folders that appear whole or not at all, and the files of a saved encoder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ContractError, InputError, StoreError

FORMAT = 1
CONFIG, WEIGHTS, PREPROCESSING, CARD = (
    "config.json",
    "model.safetensors",
    "preprocessing.json",
    "README.md",
)


@contextmanager
def new_folder(folder: str | Path, *, mark: str | None = None) -> Iterator[Path]:
    """Write into a temporary sibling that takes the folder's place at the end.

    Parameters
    ----------
    folder : path
        The final place. An older folder there is replaced.
    mark : str, optional
        A file that the older folder must hold, else it isn't ours to replace.

    Raises
    ------
    InputError
        Where something else lies there.
    StoreError
        Where it can't be written.
    """
    folder = Path(os.path.realpath(folder))
    if mark and folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise InputError(f"{folder} exists and has no {mark}; {listing(folder)}; pick another name")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder is to be written here")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"{folder.parent}: can't write here ({error})") from error
        yield temporary
        _take_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, folder: Path) -> None:
    old = temporary.with_name(temporary.name + ".old")
    if folder.exists():
        # A directory can't be renamed over a full one: the old one steps aside first.
        os.replace(folder, old)
    try:
        os.replace(temporary, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def listing(folder: Path) -> str:
    """Say what a folder holds, for an error message."""
    if not folder.is_dir():
        return f"{folder} is no folder either"
    names = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    return f"{folder} holds {shown}" if names else f"{folder} is empty"


def write_encoder(
    folder: str | Path,
    config: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    preprocessing: dict[str, Any],
    card: str,
) -> None:
    """Write the four files of an encoder folder in one rename."""
    from safetensors.numpy import save

    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise InputError(f"tensor '{name}' is no array of numbers: {type(array).__name__}")
    contents = {
        WEIGHTS: save({name: np.array(a, order="C") for name, a in arrays.items()}),
        PREPROCESSING: _dump(preprocessing, PREPROCESSING),
    }
    checksums = {name: _sha(content) for name, content in contents.items()}
    config = {"format": FORMAT, **config, "checksums": checksums}
    config["checksums"][CONFIG] = _config_sha(config)
    contents[CONFIG] = _dump(config, CONFIG)
    contents[CARD] = card.encode()
    with new_folder(folder, mark=CONFIG) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)


def read_encoder(
    folder: Path,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Any]]:
    """Read and check an encoder folder.

    Returns
    -------
    config, arrays, preprocessing

    Raises
    ------
    ContractError
        Where the folder is no encoder, is of another format, or was damaged or changed.
    """
    _refuse_no_encoder(folder)
    config = _json(folder / CONFIG)
    _check_format(folder, config)
    if config["checksums"].get(CONFIG) != _config_sha(config):
        raise ContractError(f"{folder / CONFIG} was changed after it was saved; {_AGAIN}")
    for name in (WEIGHTS, PREPROCESSING):
        if config["checksums"].get(name) != _sha((folder / name).read_bytes()):
            raise ContractError(
                f"{folder / name} was changed or cut short after it was saved; {_AGAIN}"
            )
    from safetensors.numpy import load

    return config, load((folder / WEIGHTS).read_bytes()), _json(folder / PREPROCESSING)


_AGAIN = "copy the whole folder again or save the encoder anew"


def _refuse_no_encoder(folder: Path) -> None:
    if not folder.exists():
        raise ContractError(f"{folder}: no such encoder folder; {listing(folder.parent)}")
    if not folder.is_dir():
        raise ContractError(f"{folder} is a file; expected an encoder's folder")
    missing = [n for n in (CONFIG, WEIGHTS, PREPROCESSING) if not (folder / n).is_file()]
    if missing:
        inside = [str(c.parent) for c in sorted(folder.glob(f"*/{CONFIG}"))]
        hint = f"; did you mean {' or '.join(inside)}?" if inside else ""
        raise ContractError(
            f"{folder} is no encoder: {', '.join(missing)} missing; {listing(folder)}{hint}"
        )


def _check_format(folder: Path, config: dict[str, Any]) -> None:
    found = config.get("format")
    if found != FORMAT:
        raise ContractError(
            f"{folder / CONFIG}: the format is {found!r}, this version reads {FORMAT}; "
            "install the version of neuro-representations that wrote it "
            f"({config.get('libraries', {}).get('neuro-representations', 'unknown')})"
        )
    lacking = [k for k in ("encoder", "params", "checksums") if k not in config]
    if lacking:
        raise ContractError(f"{folder / CONFIG}: {', '.join(lacking)} missing; {_AGAIN}")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ContractError(f"{path} is no JSON ({error}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ContractError(f"{path} holds {type(content).__name__}, expected an object; {_AGAIN}")
    return content


def _dump(content: dict[str, Any], name: str) -> bytes:
    try:
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}; an encoder stores JSON values only") from error


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _config_sha(config: dict[str, Any]) -> str:
    """Digest the config without its own checksum."""
    checksums = {k: v for k, v in config["checksums"].items() if k != CONFIG}
    return _sha(json.dumps({**config, "checksums": checksums}, sort_keys=True).encode())
