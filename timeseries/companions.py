"""What belongs to captures: the other half of a SigMF pair, the README of their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["data_files", "readmes"]

_OTHER_HALF = {".sigmf-meta": ".sigmf-data", ".sigmf-data": ".sigmf-meta"}


def data_files(paths: Sequence[Path]) -> list[Path]:
    """Return the data files of SigMF metadata, and the metadata of data files."""
    beside = [path.with_suffix(other) for path in paths if (other := _OTHER_HALF.get(path.suffix))]
    return [path for path in beside if path.is_file()]


def readmes(paths: Sequence[Path]) -> list[Path]:
    """Return the README of every folder that captures lie in.

    Examples
    --------
    >>> readmes([Path("nowhere/a.cu8")])
    []
    """
    folders = dict.fromkeys(path.parent for path in paths)
    return [file for folder in folders if (file := folder / "README.md").is_file()]
