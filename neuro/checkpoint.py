"""Checkpoints of a training: one safetensors file, JSON in its header, written in one rename."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuro.ensemble import plain_optimizers
from neuro.errors import StoreError

NAME = "checkpoint.safetensors"
_FORMAT = 1


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint that replaces the last one whole or not at all.

    Raises
    ------
    StoreError
        Where the folder can't be written.
    """
    temporary = folder / f".{NAME}.{os.getpid()}"
    content = _own(tensors)
    try:
        save_file(content, temporary, {"state": json.dumps({"format": _FORMAT, **state})})
        os.replace(temporary, folder / NAME)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{folder / NAME}: the checkpoint can't be written ({error})") from error


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU, of which none shares memory with another."""
    content: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        content[name] = own.clone() if storage in seen else own
        seen.add(storage)
    return content


def read_checkpoint(
    folder: Path, signature: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the checkpoint of a training, or None where there is none to continue from.

    A damaged file, or one of another training, is set aside with a warning.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as stored:
            state = json.loads((stored.metadata() or {}).get("state", "{}"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        warnings.warn(f"{path} is damaged ({error}): training starts anew", stacklevel=2)
        return None
    if state.get("format") != _FORMAT or state.get("signature") != signature:
        warnings.warn(f"{path} is of another training: this one starts anew", stacklevel=2)
        return None
    return tensors, state


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the optimisers' state as named tensors."""
    plain = [one for optimizer in optimizers for one in plain_optimizers(optimizer)]
    return {
        f"optimizer/{number}/{index}/{name}": torch.as_tensor(value)
        for number, one in enumerate(plain)
        for index, entry in one.state_dict()["state"].items()
        for name, value in entry.items()
        if value is not None
    }


def load_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Give the optimisers their state back."""
    plain = [one for optimizer in optimizers for one in plain_optimizers(optimizer)]
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in plain]
    for key, tensor in tensors.items():
        kind, *rest = key.split("/")
        if kind == "optimizer":
            number, index, name = rest
            states[int(number)].setdefault(int(index), {})[name] = tensor
    for one, state in zip(plain, states, strict=True):
        groups = one.state_dict()["param_groups"]
        one.load_state_dict({"state": state, "param_groups": groups})


def part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the tensors stored under a kind, by their own names."""
    prefix = kind + "/"
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
