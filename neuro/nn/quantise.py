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

import torch
from torch import Tensor, nn


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


def decayed(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
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
    groups: list[dict[str, object]] = [{"params": weights, "weight_decay": weight_decay}]
    if rest:
        groups.append({"params": rest, "weight_decay": 0.0})
    return groups
