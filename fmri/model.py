"""The networks of a fitted MindEye: applied batch by batch, stored as named arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuro.device import device_of
from neuro.errors import ContractError
from neuro.nn.brain import BrainNetwork
from neuro.nn.mindeye import PriorScale
from neuro.nn.prior import PriorNetwork

Floats = NDArray[np.float32]
Voxels = tuple[str, Floats]

_BATCH = 256  # trials at once


@dataclass
class Start:
    """What gives a new subject's first layer its start (see `fmri.fitting`).

    Attributes
    ----------
    basis : Tensor, shape (k, token * feature)
    offset : Tensor, shape (token * feature,)
        Components of the targets.
    codes : Tensor, shape (k + 1, n_hidden)
        From scores (and 1) to what the first layers of the trained subjects gave.
    """

    basis: Tensor
    offset: Tensor
    codes: Tensor


@dataclass
class Model:
    """Backbone, prior and scale of one MindEye.

    Attributes
    ----------
    network : BrainNetwork
    prior : PriorNetwork or None
    scale : PriorScale
    start : Start or None
    """

    network: BrainNetwork
    prior: PriorNetwork | None
    scale: PriorScale
    start: Start | None = None

    @property
    def latent(self) -> tuple[int, int, int] | None:
        """Shape of the image latent, where there is a low-level branch."""
        branch = self.network.low_level
        return None if branch is None else branch.shape

    def embed(self, voxels: Voxels, device: str) -> Floats:
        """Return the projector's output ``(trial, token, feature)``, not normalised."""

        def function(code: Tensor, _: slice) -> Tensor:
            return self.network.project(code, self.network.tokens(code))

        return self._run(voxels, device, function)

    def tokens(self, voxels: Voxels, device: str) -> Floats:
        """Return the backbone's tokens."""
        return self._run(voxels, device, lambda code, _: self.network.tokens(code))

    def low_level(self, voxels: Voxels, device: str) -> Floats:
        """Return the image latent ``(trial, channel, row, column)``."""
        branch = self.network.low_level
        assert branch is not None  # noqa: S101 - for the type checker
        return self._run(voxels, device, lambda code, _: branch(code)[0])

    def sample(self, voxels: Voxels, keys: list[str], device: str, **options: Any) -> Floats:
        """Return samples of the prior, in the space of the targets."""
        from fmri.prior import sample

        prior = self.prior
        assert prior is not None  # noqa: S101 - for the type checker

        def function(code: Tensor, rows: slice) -> Tensor:
            brain = self.scale(self.network.tokens(code))
            return self.scale.inverse(sample(prior, brain, keys=keys[rows], **options))

        return self._run(voxels, device, function)

    def _run(
        self, voxels: Voxels, device: str, function: Callable[[Tensor, slice], Tensor]
    ) -> Floats:
        subject, values = voxels
        target = device_of(device, fallback=True)
        modules = [m for m in (self.network, self.prior, self.scale) if m is not None]
        parts = []
        try:
            for module in modules:
                module.to(target).eval()
            with torch.inference_mode():
                for start in range(0, len(values), _BATCH):
                    rows = slice(start, start + _BATCH)
                    x = torch.from_numpy(np.ascontiguousarray(values[rows])).to(target)
                    parts.append(function(self.network.code({subject: x}), rows).float().cpu())
        finally:
            for module in modules:
                module.cpu()
        return torch.cat(parts).numpy()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return every tensor by a prefixed name."""
        arrays: dict[str, NDArray[Any]] = {}
        for prefix, module in self._modules().items():
            arrays |= {f"{prefix}.{k}": t.numpy() for k, t in module.state_dict().items()}
        if self.start is not None:
            arrays |= {f"start.{k}": v.numpy() for k, v in vars(self.start).items()}
        return arrays

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take tensors back; strict about names and shapes.

        Raises
        ------
        ContractError
            Where they are of another network.
        """
        for prefix, module in self._modules().items():
            own = _under(arrays, prefix)
            try:
                module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in own.items()})
            except RuntimeError as error:
                raise ContractError(f"the weights are not of this network: {error}") from error
        found = _under(arrays, "start")
        if found:
            self.start = Start(
                *(torch.from_numpy(found[k].copy()) for k in ("basis", "offset", "codes"))
            )

    def _modules(self) -> dict[str, nn.Module]:
        named = {"network": self.network, "prior": self.prior, "scale": self.scale}
        return {name: module for name, module in named.items() if module is not None}


def _under(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(f"{prefix}."): array
        for name, array in arrays.items()
        if name.startswith(f"{prefix}.")
    }
