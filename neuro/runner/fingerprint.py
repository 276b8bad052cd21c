"""Content hashes of files, remembered so that an unchanged file is not read again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from neuro.errors import InputError

_BLOCK = 1 << 20
# A file touched this recently could change again within one tick of the clock of its file
# system: same size, same time, other content. Its hash is used but not remembered.
_RECENT_NS = 2_000_000_000


class Fingerprints:
    """Content hashes of files and folders.

    Parameters
    ----------
    memo : Path or None
        The JSON file that remembers hashes by path, size, times and inode; None remembers
        nothing on disk. A damaged memo is ignored: it only costs reading the files again.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = path.write_text("one")
    >>> prints = Fingerprints(None)
    >>> before = prints.of(path)
    >>> _ = path.write_text("two")
    >>> prints.of(path) == before
    False
    """

    def __init__(self, memo: Path | None) -> None:
        self._memo = memo
        self._known = self._load()
        self._new: dict[str, list[object]] = {}

    def _load(self) -> dict[str, list[object]]:
        try:
            known = json.loads(self._memo.read_text("utf-8")) if self._memo else {}
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def of(self, path: Path) -> str:
        """Return the hash of a file's content, or of a folder's names and contents.

        Raises
        ------
        InputError
            Where the path can't be read.
        """
        try:
            return self._folder(path) if path.is_dir() else self._file(path)
        except OSError as error:
            raise InputError(
                f"{path}: can't be read ({error.strerror or error}); check the path and its rights"
            ) from error

    def of_all(self, paths: Iterable[Path]) -> dict[str, str]:
        """Return ``{path: hash}`` and remember the new ones."""
        found = {str(path): self.of(path) for path in paths}
        self.save()
        return found

    def _folder(self, path: Path) -> str:
        total = hashlib.blake2b(digest_size=16)
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            total.update(f"{inner.relative_to(path).as_posix()}\0{self._file(inner)}\n".encode())
        return total.hexdigest()

    def _file(self, path: Path) -> str:
        name, before = os.path.abspath(path), _state(path)
        known = self._new.get(name) or self._known.get(name)
        if isinstance(known, list) and len(known) == 2 and known[0] == before:
            return str(known[1])
        content = _hash(path)
        if _state(path) == before and time.time_ns() - max(before[1], before[2]) > _RECENT_NS:
            self._new[name] = [before, content]
        return content

    def save(self) -> None:
        """Write the memo in one rename; what another process wrote meanwhile is kept."""
        if self._memo is None or not self._new:
            return
        merged = {**self._load(), **self._new}
        temporary = self._memo.with_name(f"{self._memo.name}.{os.getpid()}.tmp")
        try:
            self._memo.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(merged), "utf-8")
            os.replace(temporary, self._memo)
        except OSError:  # without a memo the files are only read again
            temporary.unlink(missing_ok=True)
        self._known, self._new = merged, {}


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash(path: Path) -> str:
    total = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()
