"""Symbols, concepts and codes: what a trained SCAN computes, on the scale of the prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from eeg.pooling import Pooling
from eeg.symbols import Symbols
from neuro.errors import ContractError, InputError

if TYPE_CHECKING:
    from neuro.nn.scan import Recombinator, SymbolNetwork

Floats = NDArray[np.float32]

RULES = ("decoder", "kl")
_POOLING = ("mean", "between", "within", "scale", "kept")


@dataclass
class Concepts:
    """A trained SCAN without its encoder.

    Attributes
    ----------
    symbols : Symbols
    pooling : Pooling
        From the codes of trials to those of units.
    network : SymbolNetwork
    recombinator : Recombinator, optional
    """

    symbols: Symbols
    pooling: Pooling
    network: SymbolNetwork
    recombinator: Recombinator | None = None

    def posterior(self, codes: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return mean and log variance of asked labels ``(row, label)``: (row, latent) each."""
        return self._encode(self.symbols.k_hot(codes)[0])

    def singles(self) -> tuple[Floats, Floats]:
        """Return mean and log variance of every symbol alone, (symbol, latent) each."""
        return self._encode(np.eye(len(self.symbols), dtype=np.float32))

    def _encode(self, vectors: Floats) -> tuple[Floats, Floats]:
        import torch

        with torch.inference_mode():
            mean, log_variance = self.network.encode(torch.from_numpy(vectors)[None])
        return mean[0].numpy(), log_variance[0].numpy()

    # Signal to label ----------------------------------------------------------------------

    def read(
        self, mean: Floats, variance: Floats, unit: NDArray[np.int64], rule: str,
        condition: ArrayLike | None = None,
    ) -> Floats:  # fmt: skip
        """Return the probabilities of all symbols, see `SCAN.read_codes`: (unit, symbol)."""
        if rule not in RULES:
            raise InputError(f"rule is {rule!r}; expected one of {', '.join(RULES)}")
        center, spread = self.pooling.pool(mean, variance, unit, condition)
        score = self._by_decoder(center) if rule == "decoder" else self._by_kl(center, spread)
        out = np.empty_like(score)
        for part in self.symbols.slices.values():
            inside = np.exp(score[:, part] - score[:, part].max(1, keepdims=True))
            out[:, part] = inside / inside.sum(1, keepdims=True)
        return out

    def _by_decoder(self, center: Floats) -> Floats:
        import torch

        with torch.inference_mode():
            logits = self.network.decode(torch.from_numpy(center)[None])[0]
            return torch.nn.functional.logsigmoid(logits).numpy()

    def _by_kl(self, center: Floats, spread: Floats) -> Floats:
        import torch

        from neuro.nn.scan import forward_kl

        mean, log_variance = (torch.from_numpy(a)[None] for a in self.singles())
        signal = torch.from_numpy(center)[:, None], torch.from_numpy(np.log(spread))[:, None]
        return -forward_kl(signal, (mean, log_variance)).sum(-1).numpy()

    # What a latent says -------------------------------------------------------------------

    def interpret(self, kept: NDArray[np.bool_]) -> xr.Dataset:
        """Say which latents carry which label, see `SCAN.interpret`."""
        n_latents = self.pooling.n_latents
        kept = np.tile(kept, len(self.pooling.parts))
        mean, log_variance = self.singles()
        variance = np.exp(log_variance)
        parts = self.symbols.slices.values()
        distance = np.stack([_distance(mean[part], variance[part]) for part in parts])
        best = np.where(kept if kept.any() else True, distance, -1).argmax(1)
        pair = ("symbol", "latent")
        return xr.Dataset(
            {
                "mean": (pair, mean),
                "variance": (pair, variance),
                "specificity": (pair, 0.5 * (mean**2 + variance - log_variance - 1)),
                "distance": (("label", "latent"), distance),
                "best": ("label", best),
                "latent_of": ("label", best % n_latents),
                "kept": ("latent", kept),
            },
            coords={
                "symbol": self.symbols.names,
                "label": self.symbols.labels,
                "latent": np.arange(mean.shape[1]) % n_latents,
                "part": ("latent", np.repeat(self.pooling.parts, n_latents)),
            },
        )

    # Files --------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all weights and the scale of the codes by name."""
        networks = {"network": self.network, "recombinator": self.recombinator}
        weights = {
            f"{name}.{key}": tensor.numpy()
            for name, module in networks.items()
            if module is not None
            for key, tensor in module.state_dict().items()
        }
        pooling = {f"pooling.{k}": np.asarray(getattr(self.pooling, k)) for k in _POOLING}
        return {**weights, **pooling}

    @classmethod
    def from_arrays(
        cls,
        arrays: dict[str, NDArray[Any]],
        symbols: Symbols,
        conditions: Sequence[str] = (),
        *,
        n_hidden: int,
        n_hidden_operator: int | None,
    ) -> Concepts:
        """Rebuild from `to_arrays`; without an operator where its width is None."""
        from neuro.nn.scan import Recombinator, SymbolNetwork

        scale = {name: arrays[f"pooling.{name}"] for name in _POOLING}
        pooling = Pooling(**scale, conditions=tuple(conditions))
        network = SymbolNetwork(len(symbols), len(pooling.mean), n_hidden)
        operator = None if n_hidden_operator is None else Recombinator(n_hidden_operator)
        _load(network, "network", arrays)
        if operator is not None:
            _load(operator, "recombinator", arrays)
        return cls(symbols, pooling, network, operator)


def _load(module: Any, name: str, arrays: dict[str, NDArray[Any]]) -> None:
    import torch

    weights = {
        key.removeprefix(f"{name}."): torch.from_numpy(array)
        for key, array in arrays.items()
        if key.startswith(f"{name}.")
    }
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ContractError(f"the weights are not those of this {name}: {error}") from error
    module.eval()


def _distance(mean: Floats, variance: Floats) -> Floats:
    """Return the largest standardised distance between two values' posteriors, per latent."""
    gap = np.abs(mean[:, None] - mean[None])
    pooled = np.sqrt((variance[:, None] + variance[None]) / 2)
    return (gap / pooled).max((0, 1))
