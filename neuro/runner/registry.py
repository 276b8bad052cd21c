"""Stages and encoders that installed packages declare through entry points."""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuro.errors import InputError
from neuro.runner.document import nearest
from neuro.stage import Stage

OWN_DISTRIBUTION = "neuro-representations"


@lru_cache(maxsize=1)
def _load() -> tuple[dict[str, Stage], dict[str, str]]:
    found: dict[str, Stage] = {}
    broken: dict[str, str] = {}
    for entry in _entries("neuro.stages"):
        try:
            _check_own(entry)
            declared = _declared(importlib.import_module(entry.value))
        except InputError:
            raise
        except Exception as error:  # a plugin's own code may fail in any way
            broken[f"{entry.name} ({entry.value})"] = f"{type(error).__name__}: {error}"
            continue
        for stage in declared:
            if stage.name in found and found[stage.name] is not stage:
                here, there = entry.value, found[stage.name].function.__module__
                broken[f"{entry.name} ({here})"] = (
                    f"the stage '{stage.name}' is already declared in {there}"
                )
                continue
            found[stage.name] = stage
    return found, broken


def _entries(group: str) -> list[EntryPoint]:
    unique = {(entry.name, entry.value): entry for entry in entry_points(group=group)}
    return [unique[key] for key in sorted(unique)]


def _declared(module: Any) -> list[Stage]:
    values = (getattr(value, "stage", None) for value in vars(module).values())
    return [value for value in values if isinstance(value, Stage)]


def _check_own(entry: EntryPoint) -> None:
    """Refuse a module of ours that a file of the user's hides (an ``eeg.py`` beside a script)."""
    if entry.dist is None or entry.dist.name != OWN_DISTRIBUTION:
        return
    top = entry.value.split(":")[0].split(".")[0]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    spec = None if loaded else find_spec(top)
    origin = loaded or (spec.origin if spec else None)
    home = Path(__file__).resolve().parents[2]
    if origin is not None and Path(origin).resolve().parent.parent != home:
        raise InputError(
            f"{origin} hides the package '{top}' that belongs to neuro ({home / top}); "
            f"rename your file or run from another folder"
        )


def stages() -> dict[str, Stage]:
    """Return every stage that installed packages declare, by name.

    A package that can't be imported is left out and named by `broken`.

    Returns
    -------
    dict of str to Stage

    Raises
    ------
    InputError
        Where a file of the user's hides one of this project's packages.
    """
    return _load()[0]


def broken() -> dict[str, str]:
    """Return the packages whose stages could not be loaded, with the reason."""
    return _load()[1]


def get_stage(name: str) -> Stage:
    """Return one stage.

    Raises
    ------
    InputError
        Where no package declares it; the nearest name and broken packages are in the message.
    """
    found = stages()
    if name not in found:
        raise InputError(f"no stage is called '{name}'{nearest(name, found)}{broken_note()}")
    return found[name]


def broken_note() -> str:
    """Return a note on packages that could not be loaded, or nothing."""
    if not broken():
        return ""
    notes = "; ".join(f"{name}: {why}" for name, why in broken().items())
    return f" (not loaded: {notes})"


def encoders() -> dict[str, EntryPoint]:
    """Return the entry points of every registered encoder by name; ``.load()`` gives the class."""
    found = {}
    for entry in _entries("neuro.encoders"):
        found[entry.name] = entry
    return found


def forget() -> None:
    """Look the packages up again at the next call."""
    _load.cache_clear()
