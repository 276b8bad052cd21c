"""Augmentation of training bursts on their device: noise of random level, random short filters."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["AUGMENTATIONS", "augment", "unit_power"]

AUGMENTATIONS = ("none", "awgn", "fir", "awgn_fir")
FIR_TAPS = 9


def augment(
    x: Tensor, kind: str, generator: torch.Generator, snr: tuple[float, float] = (5.0, 29.0)
) -> Tensor:
    """Disturb bursts at random and bring them back to unit power.

    Parameters
    ----------
    x : Tensor, shape (batch, 2, time)
    kind : {"none", "awgn", "fir", "awgn_fir"}
        White noise at an SNR drawn for each burst; nine complex Gaussian taps drawn for each
        burst; the filter, then the noise.
    generator : torch.Generator
    snr : tuple of two floats
        Range, dB.

    Returns
    -------
    Tensor, shape (batch, 2, time)
    """
    if kind == "none":
        return x
    if "fir" in kind:
        x = _filtered(x, generator)
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


def _filtered(x: Tensor, generator: torch.Generator) -> Tensor:
    taps = torch.randn((len(x), 2, FIR_TAPS), generator=generator, device=x.device, dtype=x.dtype)
    n = x.shape[-1]
    size = n + FIR_TAPS - 1
    signal = torch.fft.fft(torch.complex(x[:, 0], x[:, 1]), size)
    found = torch.fft.ifft(signal * torch.fft.fft(torch.complex(taps[:, 0], taps[:, 1]), size))
    # As long as the record, the middle tap at its place.
    kept = found[:, FIR_TAPS // 2 : FIR_TAPS // 2 + n] / (2 * FIR_TAPS) ** 0.5
    return torch.stack([kept.real, kept.imag], 1)
