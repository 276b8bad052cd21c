"""The bytes of a compressed image file in one pass: through isal where it is installed."""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from neuro.errors import DataError

__all__ = ["GzipStream", "open_stream"]

_BLOCK = 1 << 20  # bytes of compressed file read at once: gzip's own default is 8 KiB
_GZIP = 31  # zlib's code for a gzip header and its checksum


class GzipStream:
    """Read a gzip file forwards; several members in a row are one stream.

    Parameters
    ----------
    path : path

    Examples
    --------
    >>> import gzip, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.gz").write_bytes(gzip.compress(b"hel") + gzip.compress(b"lo"))
    ...     with GzipStream(f"{folder}/a.gz") as stream:
    ...         stream.readinto(memoryview(bytearray(4))), stream.readinto(memoryview(bytearray(9)))
    (4, 1)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._codec = _codec()
        self._file: BinaryIO = self.path.open("rb")
        self._member: Any = None
        self._rest = b""

    def readinto(self, target: memoryview) -> int:
        """Fill `target` and return the bytes written, fewer only at the end of the file.

        Raises
        ------
        EOFError
            Where the file ends inside a member.
        DataError
            Where it is damaged.
        """
        filled = 0
        while filled < len(target):
            piece = self._piece(len(target) - filled)
            if not piece:
                break
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def _piece(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end only."""
        while True:
            if not self._rest:
                self._rest = self._file.read(_BLOCK)
            if self._member is None and not self._next_member():
                return b""
            ended, piece = not self._rest, self._decompress(size)
            if piece:
                return piece
            if ended and self._member is not None:
                raise EOFError(f"{self.path}: the file ends inside its compressed data")

    def _next_member(self) -> bool:
        self._rest = self._rest.lstrip(b"\0")  # gzip allows zeros between members
        if self._rest:
            self._member = self._codec.decompressobj(_GZIP)
        return bool(self._rest)

    def _decompress(self, size: int) -> bytes:
        try:
            piece: bytes = self._member.decompress(self._rest, size)
        except (zlib.error, self._codec.error) as error:
            raise DataError(
                f"{self.path}: the compressed data are damaged ({error}); copy the file again "
                "from its source"
            ) from error
        self._rest = self._member.unconsumed_tail
        if self._member.eof:
            self._rest, self._member = self._member.unused_data, None
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> GzipStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _codec() -> Any:
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def open_stream(path: str | Path) -> Any:
    """Open a compressed file for one pass: gzip by `GzipStream`, others by nibabel.

    Returns
    -------
    object
        A context manager with ``readinto``.
    """
    if str(path).lower().endswith(".gz"):
        return GzipStream(path)
    from nibabel.openers import Opener

    return Opener(str(path))
