"""Augmentation of training bursts on their device: noise, random short filters, drawn channels.

Everything is drawn and computed by torch where the bursts are, so that on a GPU the simulator's
channels run inside the training loop.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timeseries.rf.channels import PROFILES, Taps, pass_through, profile

__all__ = ["AUGMENTATIONS", "DRAWN", "augment", "unit_power"]

DRAWN = tuple(name for name in PROFILES if name != "los")
"""Channel profiles that a burst can be sent through."""

AUGMENTATIONS = ("none", "awgn", "fir", "awgn_fir", "channel", "awgn_channel", *DRAWN)
FIR_TAPS = 9


def augment(
    x: Tensor,
    kind: str,
    generator: torch.Generator,
    snr: tuple[float, float] = (5.0, 29.0),
    spread: tuple[float, float] = (0.1, 0.5),
) -> Tensor:
    """Disturb bursts at random and bring them back to unit power.

    Parameters
    ----------
    x : Tensor, shape (batch, 2, time)
    kind : {"none", "awgn", "fir", "awgn_fir", "channel", "awgn_channel"} or one of `DRAWN`
        White noise at an SNR drawn for each burst; nine complex Gaussian taps drawn for each
        burst; the filter, then the noise; a channel of a profile drawn for each burst, of the
        profile of that name, or of any, then the noise.
    generator : torch.Generator
        On the device of `x`.
    snr : tuple of two floats
        Range, dB.
    spread : tuple of two floats
        Range of the channels' root mean square delay spread, in samples.

    Returns
    -------
    Tensor, shape (batch, 2, time)
    """
    if kind == "none":
        return x
    if "fir" in kind:
        x = _filtered(x, generator)
    if "channel" in kind or kind in DRAWN:
        names = (kind,) if kind in DRAWN else DRAWN
        x = _faded(x, names, generator, spread)
    if "awgn" in kind:
        x = _noisy(x, generator, snr)
    return unit_power(x)


def unit_power(x: Tensor) -> Tensor:
    """Divide records ``(batch, 2, time)`` by their root mean square."""
    return x / x.square().sum(1, keepdim=True).mean(-1, keepdim=True).sqrt().clamp(min=1e-12)


def _noisy(x: Tensor, generator: torch.Generator, snr: tuple[float, float]) -> Tensor:
    low, high = snr
    drawn = torch.rand((len(x), 1, 1), generator=generator, device=x.device, dtype=x.dtype)
    level = 10 ** (-(low + (high - low) * drawn) / 20)
    power = x.square().sum(1, keepdim=True).mean(-1, keepdim=True) / 2
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + level * power.sqrt() * noise


@lru_cache
def _table(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return delays (of a spread of 1) and powers (profile, tap), and lines of sight (profile,)."""
    all_ = [profile(name, 1.0) for name in names]
    n = max(len(one.delays) for one in all_)
    delays, powers = (np.zeros((len(all_), n), np.float32) for _ in range(2))
    for row, one in enumerate(all_):  # taps that a profile lacks have no power
        delays[row, : len(one.delays)], powers[row, : len(one.powers)] = one.delays, one.powers
    return delays, powers, np.array([one.line_of_sight for one in all_], np.float32)


def _faded(
    x: Tensor, names: tuple[str, ...], generator: torch.Generator, spread: tuple[float, float]
) -> Tensor:
    """Send bursts through channels that are drawn where they are."""
    delays, powers, line_of_sight = (
        torch.as_tensor(part, device=x.device, dtype=x.dtype) for part in _table(names)
    )
    n, how = len(x), dict[str, Any](generator=generator, device=x.device)
    chosen = torch.randint(len(names), (n,), **how)
    real, imag = torch.randn((2, n, delays.shape[1]), dtype=x.dtype, **how)
    gains = torch.complex(real, imag) * (powers[chosen] / 2).sqrt()
    angle = 2 * torch.pi * torch.rand(n, dtype=x.dtype, **how)
    first = torch.polar(line_of_sight[chosen].sqrt(), angle)
    gains = torch.cat([gains[:, :1] + first[:, None], gains[:, 1:]], 1)
    low, high = spread
    width = low + (high - low) * torch.rand((n, 1), dtype=x.dtype, **how)
    faded = pass_through(torch.complex(x[:, 0], x[:, 1]), Taps(gains, delays[chosen] * width), 1.0)
    return torch.stack([faded.real, faded.imag], 1)


def _filtered(x: Tensor, generator: torch.Generator) -> Tensor:
    taps = torch.randn((len(x), 2, FIR_TAPS), generator=generator, device=x.device, dtype=x.dtype)
    n = x.shape[-1]
    size = n + FIR_TAPS - 1
    signal = torch.fft.fft(torch.complex(x[:, 0], x[:, 1]), size)
    found = torch.fft.ifft(signal * torch.fft.fft(torch.complex(taps[:, 0], taps[:, 1]), size))
    # As long as the record, the middle tap at its place.
    kept = found[:, FIR_TAPS // 2 : FIR_TAPS // 2 + n] / (2 * FIR_TAPS) ** 0.5
    return torch.stack([kept.real, kept.imag], 1)
