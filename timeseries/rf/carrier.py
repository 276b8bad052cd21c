"""The carrier of bursts: how fast they turn, found from their own repetitions, and turning them.

A preamble repeats itself, so that its later part is its earlier part, turned by its carrier.
The same functions take NumPy arrays and torch tensors.
"""

from __future__ import annotations

from typing import Any

from timeseries.rf.twin import library

__all__ = ["phase_step", "turned_by"]

_ALIKE = 0.5  # correlation from which two parts of a burst count as repetitions


def phase_step(x: Any) -> Any:
    """Return the mean phase that a burst turns by in a sample, from its own repetitions.

    Parameters
    ----------
    x : complex ndarray or Tensor, shape (burst, time)

    Returns
    -------
    ndarray or Tensor, shape (burst,)
        rad per sample; where nothing repeats, from one sample to the next, which holds the mean
        frequency of the content too.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.tile(np.exp(1j * np.arange(32.0) ** 2), 8) * np.exp(0.01j * np.arange(256))
    >>> round(float(phase_step(x[None])[0]), 4)
    0.01
    """
    xp = library(x)
    n = x.shape[1]
    rows, lags = xp.arange(len(x), device=x.device), xp.arange(n, device=x.device)
    spectrum = xp.abs(xp.fft.fft(x, n=2 * n)) ** 2
    like = xp.fft.ifft(spectrum)[:, :n] / (n - lags)
    like = like / xp.clip(xp.abs(like[:, :1]), 1e-20, None)
    inner = xp.abs(like[:, n // 16 : n // 2])
    best = xp.amax(inner, 1)
    # The first of the lags that are about as good: the offset is least ambiguous there.
    good = (inner >= 0.95 * best[:, None]) * 1
    lag = xp.where(best > _ALIKE, good.argmax(1) + n // 16, xp.ones_like(rows))
    return xp.angle(like[rows, lag]) / lag


def turned_by(x: Any, step: Any) -> Any:
    """Turn bursts by a constant step, about their middle.

    Parameters
    ----------
    x : complex ndarray or Tensor, shape (burst, time)
    step : ndarray or Tensor, shape (burst,)
        rad per sample.

    Returns
    -------
    complex ndarray or Tensor, shape (burst, time)
    """
    xp = library(x)
    place = xp.arange(x.shape[1], device=x.device) - x.shape[1] / 2
    return x * xp.exp(1j * step[:, None] * place)
