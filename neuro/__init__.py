"""Neuro-signal and time-series representations: the shared ground floor.

Public names: `load` (an encoder from its folder), `run` (a workflow), `Encoder`,
`open_dataset`, `save_dataset` and the exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuro.errors import (
    ContractError,
    DataError,
    InputError,
    NeuroError,
    StageError,
    StoreError,
)

if TYPE_CHECKING:
    from neuro.data import open_dataset, save_dataset
    from neuro.encoder import Encoder, load
    from neuro.runner.run import run

__version__ = "0.1.0"

_LATE = {
    "Encoder": "neuro.encoder",
    "load": "neuro.encoder",
    "open_dataset": "neuro.data",
    "save_dataset": "neuro.data",
    "run": "neuro.runner.run",
}

__all__ = [
    "ContractError",
    "DataError",
    "Encoder",
    "InputError",
    "NeuroError",
    "StageError",
    "StoreError",
    "load",
    "open_dataset",
    "run",
    "save_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'neuro' has no attribute '{name}'")
