"""Encoders and decoders over ``(batch, channel, time)`` for series of unequal length.

A mask ``(batch, time)`` marks real samples. Padding never changes a code: padded samples are
zeroed wherever a layer could see them, convolutions run on a fixed number of time points, and
recurrent and causal networks are read at the last real sample.

References
----------
Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks
for sequence modeling" (2018): the TCN. Wang, Yan and Oates, "Time series classification from
scratch with deep neural networks" (IJCNN 2017): the FCN.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIDE = 4
_KERNEL = 2 * _STRIDE
_WIDTHS = (32, 64)
_SPAN = _STRIDE ** len(_WIDTHS)
_DILATIONS = (1, 2, 4, 8, 16, 32)


def fit_time(x: Tensor, mask: Tensor | None, n_times: int) -> tuple[Tensor, Tensor]:
    """Zero what is padding, and bring the time axis to a fixed length.

    Parameters
    ----------
    x : Tensor, shape (batch, channel, time)
    mask : Tensor, shape (batch, time), optional
        True or 1 where a sample is real; all are without it.
    n_times : int

    Returns
    -------
    x : Tensor, shape (batch, channel, n_times)
    mask : Tensor, shape (batch, n_times)
        In the dtype of `x`.

    Raises
    ------
    ValueError
        Where a real sample lies beyond `n_times`, or the mask has another shape.
    """
    if mask is None:
        mask = x.new_ones(x.shape[0], x.shape[-1])
    if mask.shape != (x.shape[0], x.shape[-1]):
        raise ValueError(f"mask {tuple(mask.shape)} does not fit x {tuple(x.shape)}")
    mask = mask.to(x.dtype)
    x = x * mask[:, None]
    extra = n_times - x.shape[-1]
    if extra < 0 and bool(mask[:, n_times:].any()):
        raise ValueError(f"real samples lie beyond the {n_times} time points of this network")
    # A negative pad crops.
    return (F.pad(x, (0, extra)), F.pad(mask, (0, extra))) if extra else (x, mask)


def last_real(h: Tensor, mask: Tensor) -> Tensor:
    """Take the state at the last real sample of each series.

    Parameters
    ----------
    h : Tensor, shape (batch, time, feature)
    mask : Tensor, shape (batch, time)

    Returns
    -------
    Tensor, shape (batch, feature)

    Examples
    --------
    >>> h = torch.arange(4.0).reshape(1, 4, 1)
    >>> last_real(h, torch.tensor([[1, 1, 0, 0]])).item()
    1.0
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (positions * (mask > 0)).amax(1)
    return h.gather(1, last[:, None, None].expand(-1, 1, h.shape[-1])).squeeze(1)


class MLPEncoder(nn.Module):
    """Two dense layers on the flattened series."""

    def __init__(self, n_channels: int, n_times: int, n_outputs: int, n_hidden: int) -> None:
        super().__init__()
        self.n_times = n_times
        self.layers = nn.Sequential(
            nn.Linear(n_channels * n_times, 2 * n_hidden), nn.ReLU(),
            nn.Linear(2 * n_hidden, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_outputs),
        )  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(batch, channel, time)`` to ``(batch, n_outputs)``."""
        return self.layers(fit_time(x, mask, self.n_times)[0].flatten(1))


class ConvEncoder(nn.Module):
    """Two strided convolutions and two dense layers."""

    def __init__(self, n_channels: int, n_times: int, n_outputs: int, n_hidden: int) -> None:
        super().__init__()
        first, second = _WIDTHS
        self.n_times = n_times + -n_times % _SPAN
        self.down_1 = nn.Conv1d(n_channels, first, _KERNEL, _STRIDE, _STRIDE // 2)
        self.down_2 = nn.Conv1d(first, second, _KERNEL, _STRIDE, _STRIDE // 2)
        self.into = nn.Linear(second * (self.n_times // _SPAN), n_hidden)
        self.out = nn.Linear(n_hidden, n_outputs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(batch, channel, time)`` to ``(batch, n_outputs)``."""
        x, mask = fit_time(x, mask, self.n_times)
        for layer in (self.down_1, self.down_2):
            mask = F.max_pool1d(mask[:, None], _STRIDE).squeeze(1)
            x = F.relu(layer(x)) * mask[:, None]
        return self.out(F.relu(self.into(x.flatten(1))))


class FCNEncoder(nn.Module):
    """Three strided convolutions, read on average and in place.

    The average, as in the fully convolutional network of Wang, Yan and Oates (2017), tells what
    happens wherever it happens, such as the shape of a wave; the dense layer tells where.
    """

    def __init__(self, n_channels: int, n_times: int, n_outputs: int, n_hidden: int) -> None:
        super().__init__()
        self.n_times = n_times + -n_times % 8
        widths = (n_channels, max(4, n_hidden // 2), n_hidden, n_hidden)
        self.down = nn.ModuleList(
            nn.Conv1d(n_in, n_out, 5, 2, 2) for n_in, n_out in itertools.pairwise(widths)
        )
        self.into = nn.Linear(n_hidden * (self.n_times // 8), n_hidden)
        self.out = nn.Linear(2 * n_hidden, n_outputs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(batch, channel, time)`` to ``(batch, n_outputs)``."""
        x, mask = fit_time(x, mask, self.n_times)
        for layer in self.down:
            mask = F.max_pool1d(mask[:, None], 2).squeeze(1)
            x = F.relu(layer(x)) * mask[:, None]
        average = x.sum(-1) / mask.sum(-1, keepdim=True).clamp(min=1)
        return self.out(torch.cat([average, F.relu(self.into(x.flatten(1)))], 1))


class _CausalBlock(nn.Module):
    """Two dilated convolutions that see the past only, and a path around them."""

    def __init__(self, n_in: int, n_out: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.first = nn.Conv1d(n_in, n_out, 3, dilation=dilation)
        self.second = nn.Conv1d(n_out, n_out, 3, dilation=dilation)
        self.around = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(F.pad(x, (self.pad, 0))))
        h = F.relu(self.second(F.pad(h, (self.pad, 0))))
        return F.relu(self.around(x) + h)


def _causal_stack(n_in: int, width: int, n_times: int) -> nn.Sequential:
    blocks, reach = [], 1
    for dilation in _DILATIONS:
        blocks.append(_CausalBlock(n_in, width, dilation))
        n_in, reach = width, reach + 4 * dilation
        if reach >= n_times:
            break
    return nn.Sequential(*blocks)


class TCNEncoder(nn.Module):
    """Dilated causal convolutions (Bai et al. 2018), read at the last real sample and on average.

    The average tells what the last sample's reach no longer covers.
    """

    def __init__(self, n_channels: int, n_times: int, n_outputs: int, n_hidden: int) -> None:
        super().__init__()
        self.n_times = n_times
        self.blocks = _causal_stack(n_channels, max(8, n_hidden // 2), n_times)
        self.out = nn.Linear(2 * max(8, n_hidden // 2), n_outputs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(batch, channel, time)`` to ``(batch, n_outputs)``."""
        x, mask = fit_time(x, mask, self.n_times)
        h = self.blocks(x)
        average = (h * mask[:, None]).sum(-1) / mask.sum(-1, keepdim=True).clamp(min=1)
        return self.out(torch.cat([last_real(h.mT, mask), average], -1))


class RecurrentEncoder(nn.Module):
    """One recurrent layer, read at the last real sample.

    Parameters
    ----------
    cell : {nn.LSTM, nn.GRU}
    n_channels, n_times, n_outputs, n_hidden : int
    """

    def __init__(
        self, cell: Any, n_channels: int, n_times: int, n_outputs: int, n_hidden: int
    ) -> None:
        super().__init__()
        self.n_times = n_times
        self.cell = cell(n_channels, n_hidden, batch_first=True)
        self.out = nn.Linear(n_hidden, n_outputs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(batch, channel, time)`` to ``(batch, n_outputs)``."""
        x, mask = fit_time(x, mask, self.n_times)
        return self.out(last_real(self.cell(x.mT)[0], mask))


class MLPDecoder(nn.Module):
    """Two dense layers to the flattened series."""

    def __init__(self, n_latents: int, n_channels: int, n_times: int, n_hidden: int) -> None:
        super().__init__()
        self.shape = (n_channels, n_times)
        self.layers = nn.Sequential(
            nn.Linear(n_latents, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 2 * n_hidden),
            nn.ReLU(), nn.Linear(2 * n_hidden, n_channels * n_times),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``."""
        return self.layers(z).unflatten(-1, self.shape)


class ConvDecoder(nn.Module):
    """Two dense layers and two strided convolutions that multiply the time axis."""

    def __init__(self, n_latents: int, n_channels: int, n_times: int, n_hidden: int) -> None:
        super().__init__()
        first, second = _WIDTHS
        self.n_times = n_times
        n_seeds = (n_times + -n_times % _SPAN) // _SPAN
        self.into = nn.Linear(n_latents, n_hidden)
        self.spread = nn.Linear(n_hidden, second * n_seeds)
        self.up_1 = nn.ConvTranspose1d(second, first, _KERNEL, _STRIDE, _STRIDE // 2)
        self.up_2 = nn.ConvTranspose1d(first, n_channels, _KERNEL, _STRIDE, _STRIDE // 2)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``."""
        h = F.relu(self.spread(F.relu(self.into(z)))).unflatten(-1, (_WIDTHS[-1], -1))
        return self.up_2(F.relu(self.up_1(h)))[..., : self.n_times]


class TCNDecoder(nn.Module):
    """The latents beside a clock at every time point, then dilated causal convolutions."""

    clock: Tensor

    def __init__(self, n_latents: int, n_channels: int, n_times: int, n_hidden: int) -> None:
        super().__init__()
        width = max(8, n_hidden // 2)
        self.register_buffer("clock", _clock(n_times), persistent=False)
        self.blocks = _causal_stack(n_latents + len(self.clock), width, n_times)
        self.out = nn.Conv1d(width, n_channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``."""
        repeated = z[..., None].expand(-1, -1, self.clock.shape[-1])
        clock = self.clock.to(z.dtype).expand(len(z), -1, -1)
        return self.out(self.blocks(torch.cat([repeated, clock], 1)))


class RecurrentDecoder(nn.Module):
    """The latents at every time point, one recurrent layer, a linear map to the channels.

    Parameters
    ----------
    cell : {nn.LSTM, nn.GRU}
    n_latents, n_channels, n_times, n_hidden : int
    """

    def __init__(
        self, cell: Any, n_latents: int, n_channels: int, n_times: int, n_hidden: int
    ) -> None:
        super().__init__()
        self.n_times = n_times
        self.cell = cell(n_latents, n_hidden, batch_first=True)
        self.out = nn.Linear(n_hidden, n_channels)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``."""
        repeated = z[:, None].expand(-1, self.n_times, -1)
        return self.out(self.cell(repeated)[0]).mT


KINDS = ("mlp", "conv", "fcn", "tcn", "lstm", "gru")
_CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
_ENCODERS = {"mlp": MLPEncoder, "conv": ConvEncoder, "fcn": FCNEncoder, "tcn": TCNEncoder}
_DECODERS = {"mlp": MLPDecoder, "conv": ConvDecoder, "fcn": ConvDecoder, "tcn": TCNDecoder}


def make_encoder(
    kind: str, n_channels: int, n_times: int, n_outputs: int, n_hidden: int = 128
) -> nn.Module:
    """Build an encoder: ``encoder(x, mask)`` maps ``(batch, channel, time)`` to a vector.

    Parameters
    ----------
    kind : {"mlp", "conv", "fcn", "tcn", "lstm", "gru"}
    n_channels, n_times : int
        Of the longest series.
    n_outputs : int
        Size of the vector; twice the latents for a Gaussian posterior.
    n_hidden : int

    Returns
    -------
    Module

    Examples
    --------
    >>> encoder = make_encoder("gru", 3, 50, n_outputs=8, n_hidden=16)
    >>> encoder(torch.zeros(4, 3, 50)).shape
    torch.Size([4, 8])
    """
    _known(kind)
    if kind in _CELLS:
        return RecurrentEncoder(_CELLS[kind], n_channels, n_times, n_outputs, n_hidden)
    return _ENCODERS[kind](n_channels, n_times, n_outputs, n_hidden)


def make_decoder(
    kind: str, n_latents: int, n_channels: int, n_times: int, n_hidden: int = 128
) -> nn.Module:
    """Build a decoder: ``decoder(z)`` maps ``(batch, latent)`` to ``(batch, channel, time)``.

    Parameters
    ----------
    kind : {"mlp", "conv", "fcn", "tcn", "lstm", "gru"}
    n_latents, n_channels, n_times, n_hidden : int

    Returns
    -------
    Module
        It draws `n_times` points; the mask of the likelihood leaves out those beyond a series.

    Examples
    --------
    >>> make_decoder("conv", 8, 3, 50)(torch.zeros(4, 8)).shape
    torch.Size([4, 3, 50])
    """
    _known(kind)
    if kind in _CELLS:
        return RecurrentDecoder(_CELLS[kind], n_latents, n_channels, n_times, n_hidden)
    return _DECODERS[kind](n_latents, n_channels, n_times, n_hidden)


class SegmentEncoder(nn.Module):
    """Encoders side by side, one for each group of latents.

    What one group must not tell is then not learned for another in the same layers.
    """

    def __init__(self, encoders: list[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(batch, channel, time)`` to the means of all groups, then the log variances."""
        halves = [encoder(x, mask).chunk(2, -1) for encoder in self.encoders]
        return torch.cat([half[side] for side in (0, 1) for half in halves], -1)


class SequenceVAE(nn.Module):
    """An encoder to mean and log variance, and a decoder.

    Parameters
    ----------
    kind : {"mlp", "conv", "fcn", "tcn", "lstm", "gru"}
    n_channels, n_times, n_latents, n_hidden : int
    decoder : str, optional
        Kind of the decoder; as the encoder by default.
    segments : tuple of int, optional
        Sizes of groups of latents that add up to `n_latents`; each has an encoder of its own.

    Examples
    --------
    >>> network = SequenceVAE("conv", 3, 50, n_latents=4)
    >>> mean, log_variance = network.encode(torch.zeros(8, 3, 50))
    >>> mean.shape, network.decode(mean).shape
    (torch.Size([8, 4]), torch.Size([8, 3, 50]))
    """

    def __init__(
        self,
        kind: str,
        n_channels: int,
        n_times: int,
        n_latents: int,
        n_hidden: int = 128,
        decoder: str | None = None,
        segments: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.n_latents = n_latents
        each = [
            make_encoder(kind, n_channels, n_times, 2 * n, n_hidden)
            for n in segments or (n_latents,)
        ]
        self.encoder = SegmentEncoder(each) if segments else each[0]
        self.decoder = make_decoder(decoder or kind, n_latents, n_channels, n_times, n_hidden)

    def encode(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``(batch, channel, time)`` to mean and log variance, ``(batch, latent)`` each."""
        mean, log_variance = self.encoder(x, mask).chunk(2, -1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``."""
        return self.decoder(z)


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"network '{kind}' is none of {', '.join(KINDS)}")


def _clock(n_times: int, n_pairs: int = 4) -> Tensor:
    """Return sines and cosines of octaves, and a ramp: ``(2 n_pairs + 1, time)``."""
    t = torch.linspace(0, 1, n_times)
    angles = math.pi * 2.0 ** torch.arange(n_pairs)[:, None] * t
    return torch.cat([angles.sin(), angles.cos(), t[None]])
