"""Results addressed by what made them; a result appears in one rename or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro.errors import StoreError
from neuro.runner import kinds
from neuro.runner.files import (
    checksum,
    flush,
    listing,
    read_json,
    store_error,
    swap_in,
    write_json,
    writing,
)
from neuro.runner.fingerprint import Fingerprints
from neuro.runner.keys import digest

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_VERIFY_BYTES = 2 << 30  # larger results are checked by size only when they are opened
_RESULT_FILES = ("metrics.json", "predictions.parquet", "notes.json", "report/")


@dataclass(frozen=True, order=True)
class Ref:
    """The address of one result."""

    stage: str
    key: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.key}"


class Store:
    """A cache folder.

    Parameters
    ----------
    cache : path
        The folder; made when the first result is written.

    Notes
    -----
    ``results/<stage>/<key>`` holds the artefact, what the stage reported, and ``manifest.json``
    with checksums, written last. ``scratch/<key>`` survives a kill and is removed when the result
    is in. ``last/`` remembers what each stage of each workflow was made of, to say why it runs
    again. ``scored.json`` counts how often each test split has been scored.
    """

    def __init__(self, cache: str | Path) -> None:
        self.cache = Path(cache).expanduser().absolute()
        self.fingerprints = Fingerprints(self.cache / "fingerprints.json")
        self._manifests: dict[Ref, dict[str, Any]] = {}
        self._verified: set[Ref] = set()

    # -- where things are ---------------------------------------------------------------------

    def folder(self, ref: Ref) -> Path:
        """Return the folder of a result, whether it exists or not."""
        return self.cache / "results" / ref.stage / ref.key

    def scratch(self, ref: Ref) -> Path:
        """Return the scratch folder of a result."""
        return self.cache / "scratch" / ref.key

    def ensure_writable(self) -> None:
        """Check that results can be written.

        Raises
        ------
        StoreError
            Where the folder is read-only, no folder, or the disk is full.
        """
        probe = self.cache / f".probe-{uuid.uuid4().hex[:8]}"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            probe.write_text("writable")
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
            raise store_error(self.cache, error) from error

    # -- reading ------------------------------------------------------------------------------

    def manifest(self, ref: Ref) -> dict[str, Any] | None:
        """Return the manifest of a complete result, None where there is none.

        A result counts as complete when its manifest can be read and every file in it is there
        with its size.
        """
        if ref not in self._manifests:
            folder = self.folder(ref)
            found = read_json(folder / MANIFEST)
            if not _is_complete(found, ref, folder):
                return None
            self._manifests[ref] = found
        return self._manifests[ref]

    def forget(self, ref: Ref) -> None:
        """Look at the disk again: another process may have made or replaced the result."""
        self._manifests.pop(ref, None)
        self._verified.discard(ref)

    def has(self, ref: Ref) -> bool:
        """Tell whether a result is there and complete."""
        return self.manifest(ref) is not None

    def get(self, ref: Ref) -> dict[str, Any]:
        """Return the manifest of a result that must be there.

        Raises
        ------
        StoreError
            Where it is missing or damaged.
        """
        found = self.manifest(ref)
        if found is None:
            raise StoreError(f"{self.folder(ref)}: the result is missing or damaged; run again")
        return found

    def open(self, ref: Ref) -> Any:
        """Open a result: a Dataset (lazily), an Encoder or a Table.

        Raises
        ------
        StoreError
            Where it is missing, or its content does not match its checksums.
        """
        manifest = self.get(ref)
        self.verify(ref, below=_VERIFY_BYTES)
        return kinds.load(self.folder(ref), manifest["returns"])

    def verify(self, ref: Ref, below: float = float("inf")) -> None:
        """Compare every file of a result with its checksum, once for each process.

        Raises
        ------
        StoreError
            Naming the first file that differs.
        """
        checksums = self.get(ref)["checksums"]
        if ref in self._verified or sum(size for size, _ in checksums.values()) > below:
            return
        for name, (_, expected) in checksums.items():
            path = self.folder(ref) / name
            if checksum(path) != expected:
                raise StoreError(
                    f"{path}: the content does not match its checksum; the disk or another "
                    f"program changed it. Remove {self.folder(ref)} and run again"
                )
        self._verified.add(ref)

    def artefact(self, ref: Ref) -> Path:
        """Return the file or folder of the result itself."""
        return self.folder(ref) / kinds.FILES[self.get(ref)["returns"]]

    def items(self, ref: Ref) -> list[tuple[str, str]]:
        """Return the items of a dataset with the digest of each one's content."""
        known = self.get(ref).get("items")
        if known is None:
            side = self.cache / "items" / f"{ref.key}.json"
            kept = read_json(side)
            if isinstance(kept, dict) and kept.get("digest") == self.get(ref)["digest"]:
                known = kept["items"]
            else:
                known = kinds.items(self.open(ref))
                write_json(side, {"digest": self.get(ref)["digest"], "items": known})
            self.get(ref)["items"] = known
        return [(str(name), str(content)) for name, content in known]

    # -- writing ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, ref: Ref, waiting: Any = None) -> Iterator[None]:
        """Hold the lock of one result; call `waiting` when another process holds it."""
        from filelock import FileLock, Timeout

        path = self.cache / "locks" / f"{ref.key}.lock"
        with writing(self.cache):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if waiting is not None:
                    waiting()
                lock.acquire()
        try:
            self._manifests.pop(ref, None)
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def write(self, ref: Ref, manifest: dict[str, Any]) -> Iterator[Path]:
        """Give a temporary folder that becomes the result when the block ends without error.

        The caller holds the lock of the key.

        Parameters
        ----------
        ref : Ref
            The address.
        manifest : dict
            What to note beside schema version, address, checksums and time. It may be filled
            inside the block.

        Raises
        ------
        StoreError
            Where the disk is full or read-only; nothing half-written stays.
        """
        target = self.folder(ref)
        temporary = target.with_name(f"{ref.key}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        with writing(self.cache):
            self.sweep_out(ref)
            temporary.mkdir(parents=True)
            try:
                yield temporary
                self._finish(ref, temporary, manifest)
                swap_in(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self._manifests.pop(ref, None)
        self._verified.discard(ref)
        shutil.rmtree(self.scratch(ref), ignore_errors=True)

    def _finish(self, ref: Ref, folder: Path, manifest: dict[str, Any]) -> None:
        checksums = listing(folder)
        content = {
            name: entry for name, entry in checksums.items() if not name.startswith(_RESULT_FILES)
        }
        whole = {
            "schema_version": SCHEMA_VERSION,
            "stage": ref.stage,
            "key": ref.key,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **manifest,
            "checksums": checksums,
            "digest": digest(content),
        }
        flush(folder)
        write_json(folder / MANIFEST, whole)

    def sweep_out(self, ref: Ref) -> None:
        """Remove what a killed process left beside a result; the caller holds its lock."""
        target = self.folder(ref)
        for pattern in (f"{ref.key}.tmp-*", f"{ref.key}.old-*"):
            for left in target.parent.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        if target.exists() and not self.has(ref):
            shutil.rmtree(target, ignore_errors=True)

    def tidy(self, ref: Ref) -> None:
        """Remove what a killed process left of a result, unless another one is making it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.cache / "locks" / f"{ref.key}.lock")
        with contextlib.suppress(Timeout, OSError), lock.acquire(timeout=0):
            self.sweep_out(ref)

    # -- what is remembered beside the results --------------------------------------------------

    def _last(self, workflow: str, node: str) -> Path:
        return self.cache / "last" / workflow / f"{node}.json"

    def last(self, workflow: str, node: str) -> dict[str, Any]:
        """Return what a stage of a workflow was made of when it last ran: done, failed."""
        found = read_json(self._last(workflow, node))
        return found if isinstance(found, dict) else {}

    def remember(self, workflow: str, node: str, record: dict[str, Any]) -> None:
        """Remember what a stage of a workflow was made of."""
        if self.last(workflow, node) != record:
            write_json(self._last(workflow, node), record)

    def count_scored(self, ref: Ref, scored: dict[str, int]) -> None:
        """Count the scorings of test splits that one result made (again counts once)."""
        if not scored:
            return
        from filelock import FileLock

        path = self.cache / "scored.json"
        with writing(self.cache), FileLock(self.cache / "scored.lock"):
            counts = read_json(path) or {}
            for split, times in scored.items():
                counts.setdefault(split, {})[str(ref)] = times
            write_json(path, counts)

    def scored(self) -> dict[str, int]:
        """Return how often each test split has been scored, over all results ever made here."""
        counts = read_json(self.cache / "scored.json") or {}
        return {split: sum(by_result.values()) for split, by_result in sorted(counts.items())}

    def refs(self) -> list[Ref]:
        """Return the address of every complete result."""
        folders = (self.cache / "results").glob("*/*")
        refs = [Ref(path.parent.name, path.name) for path in sorted(folders) if path.is_dir()]
        return [ref for ref in refs if "." not in ref.key and self.has(ref)]


def _is_complete(manifest: Any, ref: Ref, folder: Path) -> bool:
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        return False
    if (manifest.get("stage"), manifest.get("key")) != (ref.stage, ref.key):
        return False
    checksums = manifest.get("checksums")
    if not isinstance(checksums, dict):
        return False
    try:
        return all(
            os.stat(os.path.join(folder, name)).st_size == size
            for name, (size, _) in checksums.items()
        )
    except (OSError, TypeError, ValueError):
        return False
