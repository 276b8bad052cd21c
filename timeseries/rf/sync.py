"""Carrier frequency offset, start and phase of bursts against a known preamble, all bursts at once.

Coarse: hypotheses of the offset are tried, each by one FFT correlation with the template. Fine:
the phase that repeated symbols turn by. Phase: that of the product with the template.

References
----------
Xie et al., "Disentangled Representation Learning for RF Fingerprint Extraction under Unknown
Channel Statistics" (IEEE Trans. Commun. 2023), preprocessing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.errors import InputError

__all__ = ["Sync", "coarse_cfo", "fine_cfo", "phase_offset", "synchronise", "turned"]

Complex = NDArray[np.complex64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sync:
    """What the synchronisation found, one value for each burst.

    Attributes
    ----------
    start : ndarray of int
        Sample at which the preamble begins.
    cfo : ndarray
        Carrier frequency offset, Hz.
    phase : ndarray
        rad, at the start of the preamble.
    score : ndarray
        Correlation with the template, 0 to 1, after the coarse step.
    """

    start: NDArray[np.intp]
    cfo: Floats
    phase: Floats
    score: Floats


def turned(x: Complex, cfo: Floats, sfreq: float, phase: Floats | float = 0.0) -> Complex:
    """Take a frequency offset (Hz) and a phase (rad) off bursts ``(burst, time)``."""
    n = np.arange(x.shape[1])
    angle = 2 * np.pi * np.asarray(cfo)[:, None] / sfreq * n + np.reshape(phase, (-1, 1))
    return (x * np.exp(-1j * angle)).astype(np.complex64)


def coarse_cfo(
    x: Complex,
    template: Complex,
    sfreq: float,
    *,
    span: float = 200e3,
    step: float = 1e3,
    window: int = 50,
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Find start and rough offset by the best of many hypotheses.

    Parameters
    ----------
    x : ndarray of complex64, shape (burst, time)
        At least as long as the template.
    template : ndarray of complex64, shape (m,)
    sfreq : float
        Hz.
    span, step : float
        Offsets from -span to span are tried, Hz.
    window : int
        Starts 0 to `window` are allowed.

    Returns
    -------
    start : ndarray of int, shape (burst,)
    cfo : ndarray, shape (burst,)
    score : ndarray, shape (burst,)
        Normalised correlation, 0 to 1.

    Raises
    ------
    InputError
        Where bursts are shorter than the template.
    """
    n, m = x.shape[1], len(template)
    if n < m:
        raise InputError(f"bursts of {n} samples are shorter than the preamble of {m}")
    starts = min(window, n - m) + 1
    size = 1 << (n + m - 1).bit_length()
    spectrum = np.fft.fft(x, size)
    energy = np.cumsum(np.pad(np.abs(x) ** 2, ((0, 0), (1, 0))), axis=1)
    length = np.sqrt(energy[:, m : m + starts] - energy[:, :starts])
    norm = np.maximum(length * np.linalg.norm(template), 1e-12)
    best = np.zeros(len(x))
    start, cfo = np.zeros(len(x), np.intp), np.zeros(len(x))
    for offset in np.arange(-span, span + step / 2, step):
        moved = template * np.exp(2j * np.pi * offset / sfreq * np.arange(m))
        found = np.fft.ifft(spectrum * np.conj(np.fft.fft(moved, size)))[:, :starts]
        score = np.abs(found) / norm
        place = score.argmax(1)
        top = score[np.arange(len(x)), place]
        better = top > best
        best[better], start[better], cfo[better] = top[better], place[better], offset
    return start, cfo, best


def fine_cfo(x: Complex, period: int, sfreq: float, *, lag: int = 3) -> Floats:
    """Estimate the offset by the turn between equal symbols that lie `lag` periods apart.

    ``sfreq * angle(mean(conj(s[k]) s[k + lag])) / (2 pi lag period)``, unambiguous to half of
    ``sfreq / (lag period)``.

    Parameters
    ----------
    x : ndarray of complex64, shape (burst, time)
        Begins with the preamble; at least ``2 * lag + 1`` periods.
    period : int
        Samples of a symbol.
    sfreq : float
        Hz.
    lag : int
        Periods. The first symbol, in which transmitters settle, is left out.

    Returns
    -------
    ndarray, shape (burst,)
        Hz.

    Examples
    --------
    >>> x = np.exp(2j * np.pi * 500 / 4e6 * np.arange(512))[None].astype("complex64")
    >>> round(float(fine_cfo(x, 64, 4e6)[0]))
    500
    """
    if x.shape[1] < (2 * lag + 1) * period:
        raise InputError(
            f"a fine offset with a lag of {lag} needs {(2 * lag + 1) * period} samples, "
            f"found {x.shape[1]}"
        )
    early, late = (x[:, k * period : (k + lag) * period] for k in (1, 1 + lag))
    turn = np.angle((np.conj(early) * late).mean(1))
    return np.asarray(sfreq * turn / (2 * np.pi * lag * period), float)


def phase_offset(x: Complex, template: Complex) -> Floats:
    """Return the phase of bursts against the template, rad."""
    m = len(template)
    return np.asarray(np.angle((x[:, :m] * np.conj(template)).mean(1)), float)


def synchronise(
    x: Complex,
    template: Complex,
    period: int,
    sfreq: float,
    *,
    span: float = 200e3,
    window: int = 50,
    smallest: float = 0.0,
) -> tuple[Complex, Sync]:
    """Align bursts with a preamble: start, carrier and phase.

    Parameters
    ----------
    x : ndarray of complex64, shape (burst, time)
    template : ndarray of complex64, shape (m,)
        The preamble.
    period : int
        Samples after which it repeats.
    sfreq, span, window
        As in `coarse_cfo`.
    smallest : float
        Bursts of a smaller correlation keep start, carrier and phase as they are: it is another
        signal.

    Returns
    -------
    aligned : ndarray of complex64, shape (burst, m)
    found : Sync
    """
    start, cfo, score = coarse_cfo(x, template, sfreq, span=span, window=window)
    known = score >= smallest
    start, cfo = np.where(known, start, 0), np.where(known, cfo, 0.0)
    m = len(template)
    cut = x[np.arange(len(x))[:, None], start[:, None] + np.arange(m)]
    rest = fine_cfo(turned(cut, cfo, sfreq), period, sfreq)
    cfo = np.where(known, cfo + rest, 0.0)
    straight = turned(cut, cfo, sfreq)
    phase = np.where(known, phase_offset(straight, template), 0.0)
    return (straight * np.exp(-1j * phase)[:, None]).astype(np.complex64), Sync(
        start, cfo, phase, score
    )
