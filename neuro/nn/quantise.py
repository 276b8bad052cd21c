"""Latent quantisation: every dimension of a code takes one of a few scalar values.

References
----------
Hsu, Dorrell, Whittington, Wu and Finn, "Disentanglement via latent quantization" (NeurIPS 2023,
arXiv 2305.18378), section 3. Whether the dimensions share one codebook is an option: Hsu et al.
find a shared one worse, Baykal, Kandemir and Unal, "Disentanglement with factor quantized
variational autoencoders" (arXiv 2409.14851), better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro.nn.objective import Objective, Phase, State
from neuro.nn.sequences import make_decoder, make_encoder


@dataclass
class Quantised:
    """A batch of quantised codes.

    Attributes
    ----------
    values : Tensor, shape (..., n_latents)
        What is decoded. Its gradient goes straight through to the continuous code.
    codes : Tensor of int64, shape (..., n_latents)
        Positions in the codebooks.
    quantisation, commitment : Tensor, scalar
        Mean squared distance of value and code; the first moves the values, the second the code.
    """

    values: Tensor
    codes: Tensor
    quantisation: Tensor
    commitment: Tensor


class LatentQuantiser(nn.Module):
    """Take each dimension to the nearest value of its own scalar codebook.

    Memory is ``n_latents * n_values`` floats: the product of the codebooks is never built.

    Parameters
    ----------
    n_latents : int
    n_values : int
        Of each codebook; they begin evenly spaced from -0.5 to 0.5.
    shared : bool
        One codebook for all dimensions.

    Examples
    --------
    >>> quantiser = LatentQuantiser(2, 3)
    >>> quantiser(torch.tensor([[-0.4, 0.1]])).codes.tolist()
    [[0, 1]]
    """

    def __init__(self, n_latents: int, n_values: int = 10, *, shared: bool = False) -> None:
        super().__init__()
        if n_latents < 1 or n_values < 2:
            raise ValueError(
                f"{n_latents} latents of {n_values} values; expected 1 and 2 of them at least"
            )
        self.n_latents, self.n_values, self.shared = n_latents, n_values, shared
        start = torch.linspace(-0.5, 0.5, n_values).repeat(1 if shared else n_latents, 1)
        self.codebooks = nn.Parameter(start)

    @property
    def books(self) -> Tensor:
        """The codebook of each dimension, ``(n_latents, n_values)``."""
        return self.codebooks.expand(self.n_latents, self.n_values)

    def forward(self, z: Tensor) -> Quantised:
        """Quantise ``(..., n_latents)``."""
        codes = self.encode(z)
        nearest = self.decode(codes)
        return Quantised(
            values=z + (nearest - z).detach(),
            codes=codes,
            quantisation=(nearest - z.detach()).square().mean(),
            commitment=(z - nearest.detach()).square().mean(),
        )

    def encode(self, z: Tensor) -> Tensor:
        """Return the positions of the nearest values, ``(..., n_latents)``."""
        with torch.no_grad():
            return (z[..., None] - self.books).abs().argmin(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values at these positions, ``(..., n_latents)``."""
        flat = codes.reshape(-1, self.n_latents)
        return self.books.gather(1, flat.T).T.reshape(codes.shape)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes that are uniform and independent, ``(n, n_latents)``."""
        device = self.codebooks.device
        shape = (n, self.n_latents)
        return torch.randint(self.n_values, shape, generator=generator, device=device)


def decayed(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters for AdamW: weights decay; biases, norms and codebooks do not.

    A bias or a norm's scale has fewer than two axes; a codebook belongs to a `LatentQuantiser`.

    Parameters
    ----------
    module : Module
    weight_decay : float
        Hsu et al. take 0.1 on three data sets and 0.001 on a fourth.

    Returns
    -------
    list of dict
        For ``torch.optim.AdamW``.
    """
    books = {id(part.codebooks) for part in module.modules() if isinstance(part, LatentQuantiser)}
    parameters = [p for p in module.parameters() if p.requires_grad]
    weights = [p for p in parameters if p.ndim > 1 and id(p) not in books]
    kept = {id(p) for p in weights}
    rest = [p for p in parameters if id(p) not in kept]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": weight_decay}]
    if rest:
        groups.append({"params": rest, "weight_decay": 0.0})
    return groups


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips each entry of the weights' gradients to -1..1, as Hsu et al. do.

    Of the first group only: biases, norms and codebooks are not clipped.
    """

    def step(self, closure: Any = None) -> Any:
        """Clip, and step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.clamp_(-1, 1)
        super().step()
        return loss


class QuantisedAutoencoder(nn.Module):
    """An encoder of series, a quantiser, and a decoder.

    Parameters
    ----------
    kind : {"mlp", "conv", "fcn", "tcn", "lstm", "gru"}
    n_channels, n_times, n_latents, n_values, n_hidden : int
    shared : bool
        One codebook for all latents.
    """

    def __init__(
        self,
        kind: str,
        n_channels: int,
        n_times: int,
        n_latents: int,
        n_values: int = 10,
        n_hidden: int = 128,
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(kind, n_channels, n_times, n_latents, n_hidden)
        self.quantiser = LatentQuantiser(n_latents, n_values, shared=shared)
        self.decoder = make_decoder(kind, n_latents, n_channels, n_times, n_hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Quantised:
        """Encode and quantise ``(batch, channel, time)``."""
        found: Quantised = self.quantiser(self.encoder(x, mask))
        return found

    def decode(self, values: Tensor) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``."""
        out: Tensor = self.decoder(values)
        return out


class QLAEObjective(Objective):
    """Squared error, with the two losses of the quantiser (Hsu et al. 2023, eq. 4).

    All three are means over their entries, the error over the standardised real samples; the
    paper has a mean cross entropy over pixels there.

    Parameters
    ----------
    network : QuantisedAutoencoder
    quantisation, commitment : float
        Weights of the quantiser's losses.
    weight_decay : float
        Decoupled; of weights only.
    learning_rate : float
    """

    def __init__(
        self,
        network: QuantisedAutoencoder,
        *,
        quantisation: float = 0.01,
        commitment: float = 0.01,
        weight_decay: float = 0.1,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.network = network
        self.quantisation, self.commitment = quantisation, commitment
        self.weight_decay, self.learning_rate = weight_decay, learning_rate

    def phases(self) -> list[Phase]:
        """Return one optimiser: AdamW with the right parts decayed and clipped."""

        def make(parameters: Any, member: int) -> torch.optim.Optimizer:
            return ClippedAdamW(decayed(self, self.weight_decay), lr=self.learning_rate)

        return [Phase("qlae", make)]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss``, ``reconstruction``, ``quantisation`` and ``commitment``.

        Parameters
        ----------
        batch : dict
            ``x (batch, channel, time)``, standardised; optionally ``mask (batch, time)``.
        state : State
        """
        x, mask = batch["x"], batch.get("mask")
        found = self.network(x, mask)
        squared = (self.network.decode(found.values) - x).square()
        if mask is None:
            error = squared.mean()
        else:
            real = mask[:, None].to(x.dtype)
            error = (squared * real).sum() / (real.sum() * x.shape[1])
        loss = error + self.quantisation * found.quantisation + self.commitment * found.commitment
        parts = {"quantisation": found.quantisation, "commitment": found.commitment}
        return {"loss": loss, "reconstruction": error.detach()} | {
            name: value.detach() for name, value in parts.items()
        }

    def signature(self) -> dict[str, Any]:
        """Return the hyper-parameters."""
        return {
            "quantisation": self.quantisation, "commitment": self.commitment,
            "weight_decay": self.weight_decay, "learning_rate": self.learning_rate,
            "shared": self.network.quantiser.shared,
        }  # fmt: skip
