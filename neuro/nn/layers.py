"""Layers that hold one network or several members side by side.

Every parameter has a leading axis ``member``. One network is an ensemble of one; joining the
parameters of S networks along that axis gives a layer that computes all of them at once, by
batched matrix products and grouped convolutions. The initialisation is PyTorch's own
(He et al. 2015 with a = sqrt(5)), drawn from a generator that the caller gives.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """``y = x W + b`` for every member.

    Parameters
    ----------
    n_in, n_out : int
    generator : torch.Generator
        Draws the initial weights.

    Examples
    --------
    >>> layer = Linear(3, 5, torch.Generator().manual_seed(0))
    >>> layer(torch.zeros(1, 7, 3)).shape  # (member, batch, features)
    torch.Size([1, 7, 5])
    """

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        # (in, out), unlike torch.nn.Linear: the gradient then needs no transposed copy.
        self.weight = _uniform((1, n_in, n_out), n_in, generator)
        self.bias = _uniform((1, 1, n_out), n_in, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(member, batch, n_in)`` to ``(member, batch, n_out)``."""
        if len(self.weight) > 1:
            return torch.baddbmm(self.bias, x, self.weight)
        # Squeezing is free; indexing would fill a gradient with zeros first.
        bias, x, weight = self.bias.squeeze(0), x.squeeze(0), self.weight.squeeze(0)
        return torch.addmm(bias, x, weight).unsqueeze(0)


class Conv1d(nn.Module):
    """Strided convolution that divides the time axis by its stride, for every member.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    stride : int
        Even; the kernel is twice as wide.
    generator : torch.Generator
        Draws the initial weights.
    transposed : bool
        Multiply the time axis instead (`torch.nn.ConvTranspose1d`).

    Examples
    --------
    >>> layer = Conv1d(3, 5, 4, torch.Generator().manual_seed(0))
    >>> layer(torch.zeros(7, 3, 16)).shape  # (batch, member x channel, time)
    torch.Size([7, 5, 4])
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        stride: int,
        generator: torch.Generator,
        *,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.transposed = stride, transposed
        width = 2 * stride
        shape = (n_in, n_out, width) if transposed else (n_out, n_in, width)
        fan_in = shape[1] * width  # as torch counts it, for both kinds
        self.weight = _uniform((1, *shape), fan_in, generator)
        self.bias = _uniform((1, n_out), fan_in, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, member x n_in, time)`` to ``(batch, member x n_out, time')``."""
        members = len(self.weight)
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        pad = self.stride // 2
        if self.transposed:
            return F.conv_transpose1d(x, weight, bias, self.stride, pad, groups=members)
        return F.conv1d(x, weight, bias, self.stride, pad, groups=members)


def members_to_channels(x: Tensor) -> Tensor:
    """Turn ``(member, batch, channel, time)`` into ``(batch, member x channel, time)``."""
    if len(x) == 1:
        return x.squeeze(0)
    return x.transpose(0, 1).reshape(x.shape[1], -1, x.shape[-1])


def channels_to_members(x: Tensor, members: int) -> Tensor:
    """Turn ``(batch, member x channel, time)`` into ``(member, batch, channel, time)``."""
    if members == 1:
        return x.unsqueeze(0)
    return x.unflatten(1, (members, -1)).transpose(0, 1)


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    bound = 1 / math.sqrt(max(fan_in, 1))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
