"""Networks of whole-brain encoders: applied batch by batch, stored as named arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmri.brain_blocks import Blocks
from fmri.brain_encoders import BrainEncoder
from neuro.device import device_of
from neuro.errors import ContractError

__all__ = ["apply_in_batches", "load_arrays", "pooled_of", "to_arrays"]

Floats = NDArray[np.float32]

_TOKENS = 1 << 16  # parcels x volumes x trials at once


def apply_in_batches(
    modules: list[nn.Module],
    blocks: Blocks,
    device: str,
    function: Callable[[Tensor, Tensor, slice], Tensor],
) -> Floats:
    """Apply a function of ``(x, mask, rows)`` to batches of trials, in evaluation mode."""
    target = device_of(device, fallback=True)
    size = int(np.clip(_TOKENS // max(int(np.prod(blocks.x.shape[1:])), 1), 8, 256))
    parts = []
    try:
        for module in modules:
            module.to(target).eval()
        with torch.inference_mode():
            for start in range(0, len(blocks.x), size):
                rows = slice(start, start + size)
                x = torch.from_numpy(blocks.x[rows]).to(target)
                mask = torch.from_numpy(blocks.mask[rows]).to(target)
                parts.append(function(x, mask, rows).float().cpu())
    finally:
        for module in modules:
            module.cpu()
    return torch.cat(parts).numpy()


def pooled_of(encoder: BrainEncoder, blocks: Blocks, device: str) -> Floats:
    """Return pooled vectors, shape (trial, width)."""
    return apply_in_batches([encoder], blocks, device, lambda x, mask, _: encoder(x, mask))


def to_arrays(modules: Mapping[str, nn.Module]) -> dict[str, NDArray[Any]]:
    """Return every tensor by its name behind that of its module."""
    return {
        f"{prefix}.{name}": tensor.detach().cpu().numpy()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def load_arrays(modules: Mapping[str, nn.Module], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take tensors back; strict about names and shapes.

    Raises
    ------
    ContractError
        Where they are of another network.
    """
    for prefix, module in modules.items():
        own = {
            name.removeprefix(f"{prefix}."): torch.from_numpy(np.array(array))
            for name, array in arrays.items()
            if name.startswith(f"{prefix}.")
        }
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise ContractError(f"the weights are not of this network: {error}") from error
        module.eval()
