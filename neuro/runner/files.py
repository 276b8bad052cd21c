"""Writing that survives a kill: whole files by rename, and folders flushed to the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuro.errors import StoreError

_WHY = {
    errno.ENOSPC: "the disk is full; free space, run 'neuro clean', or give another --cache",
    errno.EDQUOT: "the disk quota is used up; free space, run 'neuro clean', or give another "
    "--cache",
    errno.EFBIG: "the file size limit is reached; raise it (ulimit -f) or give another --cache",
    errno.EROFS: "the file system is read-only; give another folder with --cache",
    errno.EACCES: "there is no right to write; change the rights or give another --cache",
    errno.EPERM: "there is no right to write; change the rights or give another --cache",
}


def store_error(path: Path, error: OSError) -> StoreError:
    """Turn an `OSError` into one that says what to do."""
    why = _WHY.get(error.errno or 0, f"{error.strerror or error}; give another folder with --cache")
    return StoreError(f"{path}: can't be written: {why}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn every `OSError` of writing below a folder into a `StoreError`.

    Raises
    ------
    StoreError
        With the folder, the reason, and what to do.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno not in _WHY:
            raise
        raise store_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise store_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8
        text = json.dumps(value, indent=1)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; None where it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def checksum(path: Path) -> str:
    """Return the hash of one file: 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def listing(folder: Path) -> dict[str, list[Any]]:
    """Return ``{relative path: [size, checksum]}`` of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, checksum(path)] for path in files
    }


def flush(folder: Path) -> None:
    """Have the disk keep every file and folder below."""
    for path in [*folder.rglob("*"), folder]:
        with contextlib.suppress(PermissionError):  # some file systems refuse it for folders
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(descriptor)


def swap_in(temporary: Path, target: Path) -> None:
    """Put a finished folder in the place of another (or of none)."""
    old = target.with_name(f"{target.name}.old-{uuid.uuid4().hex[:8]}")
    if target.exists():
        os.replace(target, old)
    os.replace(temporary, target)
    flush_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Have the disk keep a rename in a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size_of(path: Path) -> int:
    """Return the bytes below a path."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
