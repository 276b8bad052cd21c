"""Encoder-decoder networks over ``(channel, time)``, for one model or several members at once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn.layers import Conv1d, Linear, channels_to_members, members_to_channels

_STRIDE = 4
_WIDTHS = (32, 64)
_SPAN = _STRIDE ** len(_WIDTHS)  # the time axis must be a multiple of it


class ConvVAE(nn.Module):
    """Two strided convolutions and two dense layers each way.

    Any number of channels and of time points works: the time axis is padded with zeros (the
    mean of standardised data) to a multiple of 16 and cropped again.

    Parameters
    ----------
    n_channels, n_times, n_latents, n_hidden : int
    seed : int
        Of the initial weights.

    Examples
    --------
    >>> network = ConvVAE(3, 50, n_latents=4)
    >>> mean, log_variance = network.encode(torch.zeros(1, 8, 3, 50))
    >>> mean.shape, network.decode(mean).shape
    (torch.Size([1, 8, 4]), torch.Size([1, 8, 3, 50]))
    """

    def __init__(
        self, n_channels: int, n_times: int, n_latents: int, n_hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        first, second = _WIDTHS
        self.n_channels, self.n_times = n_channels, n_times
        self.padding = -n_times % _SPAN
        flat = second * ((n_times + self.padding) // _SPAN)
        self.down_1 = Conv1d(n_channels, first, _STRIDE, g)
        self.down_2 = Conv1d(first, second, _STRIDE, g)
        self.into = Linear(flat, n_hidden, g)
        self.posterior = Linear(n_hidden, 2 * n_latents, g)
        self.outof = Linear(n_latents, n_hidden, g)
        self.spread = Linear(n_hidden, flat, g)
        self.up_1 = Conv1d(second, first, _STRIDE, g, transposed=True)
        self.up_2 = Conv1d(first, n_channels, _STRIDE, g, transposed=True)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(member, batch, channel, time)`` to mean and log variance of the posterior."""
        members = len(x)
        h = members_to_channels(F.pad(x, (0, self.padding)) if self.padding else x)
        h = F.relu(self.down_2(F.relu(self.down_1(h))))
        h = channels_to_members(h, members).flatten(2)
        mean, log_variance = self.posterior(F.relu(self.into(h))).chunk(2, -1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Map ``(member, batch, latent)`` to ``(member, batch, channel, time)``."""
        members = len(z)
        h = F.relu(self.spread(F.relu(self.outof(z))))
        h = members_to_channels(h.unflatten(-1, (_WIDTHS[-1], -1)))
        h = self.up_2(F.relu(self.up_1(h)))
        h = channels_to_members(h, members)
        # A slice of everything would still cost a copy in the backward pass.
        return h[..., : self.n_times] if self.padding else h


class MLPVAE(nn.Module):
    """Two dense layers each way, on the flattened signal.

    Parameters
    ----------
    n_channels, n_times, n_latents, n_hidden : int
        The outer hidden layer is twice as wide as `n_hidden`.
    seed : int
        Of the initial weights.

    Examples
    --------
    >>> network = MLPVAE(3, 50, n_latents=4)
    >>> network.decode(network.encode(torch.zeros(1, 8, 3, 50))[0]).shape
    torch.Size([1, 8, 3, 50])
    """

    def __init__(
        self, n_channels: int, n_times: int, n_latents: int, n_hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.shape = (n_channels, n_times)
        flat, outer = math.prod(self.shape), 2 * n_hidden
        self.inner = nn.ModuleList(Linear(*s, g) for s in ((flat, outer), (outer, n_hidden)))
        self.posterior = Linear(n_hidden, 2 * n_latents, g)
        self.outer = nn.ModuleList(
            Linear(*s, g) for s in ((n_latents, n_hidden), (n_hidden, outer))
        )
        self.output = Linear(outer, flat, g)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(member, batch, channel, time)`` to mean and log variance of the posterior."""
        h = x.flatten(2)
        for layer in self.inner:
            h = F.relu(layer(h))
        mean, log_variance = self.posterior(h).chunk(2, -1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Map ``(member, batch, latent)`` to ``(member, batch, channel, time)``."""
        h = z
        for layer in self.outer:
            h = F.relu(layer(h))
        return self.output(h).unflatten(-1, self.shape)


NETWORKS: dict[str, type[ConvVAE] | type[MLPVAE]] = {"conv": ConvVAE, "mlp": MLPVAE}
