"""What is installed and what is missing, with what to do about it (``neuro doctor``)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

DISTRIBUTION = "neuro-representations"
GROUPS = ("neuro.stages", "neuro.encoders")
LOW_DISK = 5e9  # bytes; a study's cache outgrows less than this
LOW_MEMORY = 3e9  # bytes; what the shipped workflows may need

Status = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer.

    Attributes
    ----------
    what : str
        The thing looked at.
    found : str
        What is there.
    status : {"ok", "note", "missing"}
        ``missing`` needs doing before a workflow can run; ``note`` is good to know.
    advice : str
        What to do.
    """

    what: str
    found: str
    status: Status = "ok"
    advice: str = ""


def examine(out: Path, cache: Path) -> list[Finding]:
    """Look at everything; a check that itself breaks becomes a finding.

    Parameters
    ----------
    out, cache : Path
        Where runs and results go; they need not exist.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        versions,
        extras,
        entry_points,
        devices,
        cores,
        lambda: disk("runs", out),
        lambda: disk("cache", cache),
        data_folder,
    ]
    return [finding for check in checks for finding in _guarded(check)]


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # the doctor must answer most where things are most broken
        name = getattr(check, "__name__", "check")
        yield Finding(name, f"{type(error).__name__}: {error}", "missing", "reinstall the package")


def versions() -> Iterator[Finding]:
    """Python, this package and its dependencies against the floors it declares."""
    import neuro

    python = f"{sys.version.split()[0]} ({sys.executable})"
    yield Finding("python", python)
    yield Finding("neuro", f"{neuro.__version__} ({Path(neuro.__file__).parent})")
    requirements, lacking = _requirements(extra=None)
    good = [text for text, fault in requirements if not fault]
    yield Finding("dependencies", ", ".join(good))
    for text, fault in lacking:
        yield Finding(text.split()[0], fault, "missing", f"pip install --upgrade {DISTRIBUTION}")


def extras() -> Iterator[Finding]:
    """Optional parts: which of them are not installed."""
    for extra in metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        if extra == "test":
            continue
        found, lacking = _requirements(extra)
        if lacking:
            advice = f"pip install '{DISTRIBUTION}[{extra}]' if you want it"
            yield Finding(f"extra {extra}", "not installed", "note", advice)
        else:
            yield Finding(f"extra {extra}", ", ".join(text for text, _ in found))


def _requirements(extra: str | None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (all, those at fault) as (name and version, fault)."""
    from packaging.requirements import Requirement

    rows = []
    for text in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        if plain if extra else not plain:
            continue
        if extra and not (marker and marker.evaluate({"extra": extra})):
            continue
        rows.append(_installed(requirement.name, requirement.specifier))
    return rows, [row for row in rows if row[1]]


def _installed(name: str, specifier: object) -> tuple[str, str]:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, f"not installed, expected {specifier}"
    fits = specifier.contains(version, prereleases=True)  # type: ignore[attr-defined]
    return f"{name} {version}", "" if fits else f"version {version}, expected {specifier}"


def entry_points() -> Iterator[Finding]:
    """Stages and encoders that packages declare, and files that hide those packages."""
    for group in GROUPS:
        points = list(metadata.entry_points(group=group))
        if not points:
            advice = f"reinstall: pip install --force-reinstall {DISTRIBUTION}"
            yield Finding(group, "none found", "missing", advice)
        for point in points:
            hidden = hidden_by(point)
            yield hidden or _loaded(group, point)


def hidden_by(point: metadata.EntryPoint) -> Finding | None:
    """Say which file hides the package of one of our own entry points.

    A lab may have an ``eeg.py`` beside its script; Python then finds that one first.
    """
    import neuro

    if point.dist is not None and point.dist.name != DISTRIBUTION:
        return None
    package = point.module.split(".")[0]
    spec = util.find_spec(package)
    ours = Path(neuro.__file__).resolve().parent.parent / package / "__init__.py"
    found = Path(spec.origin).resolve() if spec and spec.origin else None
    if found == ours:
        return None
    if found is None:
        return Finding(package, "package not found", "missing", f"reinstall {DISTRIBUTION}")
    advice = f"rename it, or take its folder off PYTHONPATH; it hides {ours.parent}"
    return Finding(f"package {package}", f"hidden by {found}", "missing", advice)


def _loaded(group: str, point: metadata.EntryPoint) -> Finding:
    kind = "stages" if group == GROUPS[0] else "encoder"
    origin = point.dist.name if point.dist is not None else "unknown"
    try:
        point.load()
    except Exception as error:
        fault = f"{point.value} of {origin} breaks: {type(error).__name__}: {error}"
        return Finding(f"{kind} {point.name}", fault, "missing", f"repair or remove {origin}")
    return Finding(f"{kind} {point.name}", f"{point.value} ({origin})")


def devices() -> Iterator[Finding]:
    """What torch can compute on."""
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"gpu {index}", f"{properties.name}, {_size(properties.total_memory)}")
    if torch.cuda.device_count():
        return
    if torch.backends.mps.is_available():
        yield Finding("gpu", "Apple MPS")
    elif shutil.which("nvidia-smi"):
        advice = f"torch {torch.__version__} sees no GPU: install a build for your driver"
        yield Finding("gpu", "a driver, but no device", "note", advice)
    else:
        yield Finding("gpu", "none; training runs on the processor", "note")


def cores() -> Iterator[Finding]:
    """Cores, threads and memory."""
    import psutil
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [
        f"{k}={os.environ[k]}" for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if k in os.environ
    ]
    text = f"{usable} usable of {os.cpu_count()}, torch uses {torch.get_num_threads()} threads"
    yield Finding("cores", ", ".join([text, *limits]))
    memory = psutil.virtual_memory()
    low = memory.available < LOW_MEMORY
    advice = f"shipped workflows need up to {_size(LOW_MEMORY)}" if low else ""
    found = f"{_size(memory.available)} free of {_size(memory.total)}"
    yield Finding("memory", found, "note" if low else "ok", advice)


def disk(what: str, folder: Path) -> Iterator[Finding]:
    """Free space, and whether the folder can be written."""
    folder = folder.absolute()
    there = next(path for path in [folder, *folder.parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        option = "--cache or NEURO_CACHE" if what == "cache" else "--out"
        advice = f"make it writable, or name another with {option}"
        yield Finding(what, f"{folder}: {there} can't be written", "missing", advice)
        return
    free = shutil.disk_usage(there).free
    low = free < LOW_DISK
    advice = "`neuro clean --unused` lists what can go" if low else ""
    yield Finding(what, f"{folder}, {_size(free)} free", "note" if low else "ok", advice)


def data_folder() -> Iterator[Finding]:
    """Where real recordings are (``NEURO_DATA``)."""
    named = os.environ.get("NEURO_DATA")
    advice = "export NEURO_DATA=FOLDER; workflows named after a data set need it"
    if not named:
        yield Finding("NEURO_DATA", "not set", "note", advice)
    elif not Path(named).is_dir():
        yield Finding("NEURO_DATA", f"{named} is no folder", "missing", advice)
    else:
        count = sum(1 for path in Path(named).iterdir() if path.is_dir())
        yield Finding("NEURO_DATA", f"{named}, {count} data sets")


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
