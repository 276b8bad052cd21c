r"""The network of the diffusion prior: from a brain's tokens to those of the seen image.

A bidirectional transformer reads the brain's tokens, one token that tells the time, and the noisy
tokens of the image, and predicts the image's tokens without noise (x0). Attention is PyTorch's
scaled-dot-product attention.

MindEye's network has parts inherited from a text-to-image prior (one key and value for all
heads, rotary embeddings, relative biases), which are not needed where every position has a vector
of its own; they are left out.

References
----------
Ramesh et al., "Hierarchical text-conditional image generation with CLIP latents" (2022).
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PriorSizes:
    """Shape of a `PriorNetwork`.

    Attributes
    ----------
    n_width : int, optional
        Of the transformer; by default that of the tokens, without projections in and out.
    depth, n_heads : int
    dropout : float
        Of attention and feed-forward layers.
    condition_dropout : float
        Share of training rows whose brain tokens, and of those whose image tokens, are replaced
        by learned null tokens.
    skip : bool
        Predict the difference from a first estimate, from 0 on (ours, for few trials). The first
        estimate are the brain's tokens.
    n_first : int
        Width of an MLP over all of the brain's tokens at once that betters the first estimate; 0
        is none (ours, with `skip`). Few trials teach it sooner than attention how the tokens of
        real images hang together.
    first_dropout : float
        Inside that MLP.
    """

    n_width: int | None = None
    depth: int = 6
    n_heads: int = 12
    dropout: float = 0.0
    condition_dropout: float = 0.2
    skip: bool = False
    n_first: int = 0
    first_dropout: float = 0.3


PRIORS: dict[str, PriorSizes] = {
    "mindeye1": PriorSizes(),
    "mindeye2": PriorSizes(n_heads=32),
    "small": PriorSizes(n_width=64, depth=2, n_heads=4, dropout=0.1, skip=True, n_first=256),
}


class PriorNetwork(nn.Module):
    """Predict an image's tokens from noisy ones and a brain's tokens.

    Parameters
    ----------
    n_tokens, n_features : int
    sizes : PriorSizes

    Examples
    --------
    >>> network = PriorNetwork(4, 8, PriorSizes(depth=1, n_heads=2))
    >>> x = torch.zeros(2, 4, 8)
    >>> network(x, torch.tensor([0, 99]), x).shape
    torch.Size([2, 4, 8])
    """

    def __init__(self, n_tokens: int, n_features: int, sizes: PriorSizes) -> None:
        super().__init__()
        width = sizes.n_width or n_features
        self.sizes, self.n_tokens, self.width = sizes, n_tokens, width
        same = width == n_features
        self.brain_in: nn.Module = nn.Identity() if same else nn.Linear(n_features, width)
        self.image_in: nn.Module = nn.Identity() if same else nn.Linear(n_features, width)
        self.first = _first(n_tokens * n_features, sizes) if sizes.n_first else None
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.position = nn.Parameter(torch.randn(2 * n_tokens + 1, width) / math.sqrt(width))
        self.null_brain = nn.Parameter(torch.randn(n_tokens, width) / math.sqrt(width))
        self.null_image = nn.Parameter(torch.randn(n_tokens, width) / math.sqrt(width))
        self.layers = nn.ModuleList(
            _Layer(width, sizes.n_heads, sizes.dropout) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, n_features, bias=False)
        if sizes.skip:
            nn.init.zeros_(self.out.weight)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        brain: Tensor,
        *,
        keep_brain: Tensor | None = None,
        keep_image: Tensor | None = None,
    ) -> Tensor:
        """Return the predicted image tokens.

        Parameters
        ----------
        noisy, brain : Tensor, shape (batch, token, feature)
        time : Tensor of int64, shape (batch,)
            Steps of the noise.
        keep_brain, keep_image : Tensor of bool, shape (batch,), optional
            False where the learned null tokens stand in; all True by default.

        Returns
        -------
        Tensor, shape (batch, token, feature)
        """
        start = self.first_estimate(brain)
        if keep_brain is not None:
            start = start * keep_brain[:, None, None]
        brain = _kept(self.brain_in(brain), self.null_brain, keep_brain)
        image = _kept(self.image_in(noisy), self.null_image, keep_image)
        moment = self.time(time_embedding(time, self.width).to(brain.dtype))[:, None]
        x = torch.cat([brain, moment, image], 1) + self.position
        for layer in self.layers:
            x = layer(x)
        return start + self.out(self.norm(x[:, -self.n_tokens :]))

    def first_estimate(self, brain: Tensor) -> Tensor:
        """Return what the prediction starts from: 0 without `skip`.

        Parameters
        ----------
        brain : Tensor, shape (batch, token, feature)

        Returns
        -------
        Tensor, shape (batch, token, feature) or ()
        """
        if not self.sizes.skip:
            return torch.zeros((), device=brain.device)
        if self.first is None:
            return brain
        return brain + self.first(brain.flatten(1)).view_as(brain)

    def mean(self, brain: Tensor, time: int = 99) -> Tensor:
        """Estimate the mean of the image's tokens: what is predicted without seeing noisy ones.

        The learned null tokens, known from the condition dropout, stand in for the image.

        Parameters
        ----------
        brain : Tensor, shape (batch, token, feature)
        time : int
            The step of pure noise, the last one.

        Returns
        -------
        Tensor, shape (batch, token, feature)
        """
        hidden = torch.zeros(len(brain), dtype=torch.bool, device=brain.device)
        moment = torch.full((len(brain),), time, device=brain.device)
        return self(torch.zeros_like(brain), moment, brain, keep_image=hidden)

    def guided(self, noisy: Tensor, time: Tensor, brain: Tensor, scale: float = 1.0) -> Tensor:
        """Predict with guidance, ``null + scale (conditional - null)``.

        With the scale 1, MindEye's, the network is called once.
        """
        if scale == 1:
            return self(noisy, time, brain)
        null = torch.zeros(len(brain), dtype=torch.bool, device=brain.device)
        return guide(self(noisy, time, brain), self(noisy, time, brain, keep_brain=null), scale)


def guide(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Return ``null + scale (conditional - null)`` (classifier-free guidance).

    >>> guide(torch.tensor(2.0), torch.tensor(1.0), 3.0).item()
    4.0
    """
    return null + scale * (conditional - null)


def add_noise(clean: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    r"""Return ``sqrt(a) z_0 + sqrt(1 - a) e``.

    Parameters
    ----------
    clean, noise : Tensor, shape (batch, token, feature)
    kept : Tensor, shape (batch,)
        The share a of the signal's variance that is left at each row's time.
    """
    a = kept.to(clean.dtype).reshape(-1, *[1] * (clean.ndim - 1))
    return a.sqrt() * clean + (1 - a).sqrt() * noise


def time_embedding(time: Tensor, width: int) -> Tensor:
    """Return sines and cosines of ``(batch,)`` times, shape ``(batch, width)``."""
    half = (width + 1) // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
    angles = time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]


def _kept(tokens: Tensor, null: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return tokens
    return torch.where(keep[:, None, None], tokens, null.to(tokens.dtype))


def _first(size: int, sizes: PriorSizes) -> nn.Sequential:
    n, drop = sizes.n_first, nn.Dropout(sizes.first_dropout)
    last = nn.Linear(n, size)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(size, n), nn.GELU(), drop, nn.Linear(n, n), nn.GELU(), drop, last
    )


class _Layer(nn.Module):
    """Pre-norm attention and a SwiGLU feed-forward layer."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 8 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.norm1(x))
        value, gate = self.widen(self.norm2(x)).chunk(2, -1)
        inner = F.dropout(value * F.silu(gate), self.dropout, self.training)
        return x + self.narrow(inner)

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        return self.merge(mixed.transpose(1, 2).reshape(batch, length, width))
