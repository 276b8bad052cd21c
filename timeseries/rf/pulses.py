"""What a burst says rather than who says it: the widths of its pulses and gaps.

On-off keyed remotes and sensors send different words in different rhythms. A classifier on these
widths alone, which holds neither carrier nor waveform, shows how much of "which device" is content.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from timeseries.read import Capture

__all__ = ["EDGES", "N_WIDTHS", "envelope_widths", "pulse_widths"]

EDGES = np.geomspace(2e-5, 0.1, 25)
"""Of the bins of widths, s."""

N_WIDTHS = 2 * (len(EDGES) - 1) + 3

_SMOOTH = 2e-5  # s; noise inside a pulse must not end it
_LONGEST = 1 << 20  # samples of a burst that are looked at

Floats = NDArray[np.float64]


def pulse_widths(capture: Capture, bursts: pd.DataFrame) -> Floats:
    """Measure the pulses and gaps of whole bursts, however short the records cut from them are.

    Parameters
    ----------
    capture : Capture
    bursts : DataFrame
        ``start`` and ``stop``, in samples.

    Returns
    -------
    ndarray, shape (burst, 51)
        See `envelope_widths`.
    """
    spans = zip(bursts["start"].to_numpy(int), bursts["stop"].to_numpy(int), strict=True)
    rows = []
    for start, stop in spans:
        x = capture.samples(start, min(stop, start + _LONGEST))
        rows.append(envelope_widths(x - x.mean() if capture.real else x, capture.sfreq))
    return np.array(rows).reshape(-1, N_WIDTHS)


def envelope_widths(x: NDArray[np.complexfloating], sfreq: float) -> Floats:
    """Measure the pulses and gaps of one burst.

    A pulse is a stretch in which the envelope, averaged over 20 us, is above half of its 95 %
    quantile. A signal of steady amplitude is one pulse.

    Parameters
    ----------
    x : ndarray of complex, shape (time,)
    sfreq : float
        Hz.

    Returns
    -------
    ndarray, shape (51,)
        Shares of pulses, then of gaps, in 24 bins of width (20 us to 0.1 s, logarithmic); the
        logarithms of their number and of their mean widths (s).

    Examples
    --------
    >>> on_off = np.repeat([1, 0, 1, 0, 1], [100, 50, 100, 50, 100]).astype(complex)
    >>> found = envelope_widths(on_off, 1e5)
    >>> int((found[:24] > 0).sum()), round(10 ** found[-2] * 1e5)
    (1, 100)
    """
    from scipy.ndimage import uniform_filter1d

    power = uniform_filter1d(np.abs(x) ** 2, max(1, round(_SMOOTH * sfreq)), mode="nearest")
    loud = power > np.quantile(power, 0.95) / 4
    edges = np.flatnonzero(np.diff(loud, prepend=False, append=False)).reshape(-1, 2)
    pulses = (edges[:, 1] - edges[:, 0]) / sfreq
    gaps = (edges[1:, 0] - edges[:-1, 1]) / sfreq
    means = [np.log10(w.mean()) if len(w) else np.log10(EDGES[0]) for w in (pulses, gaps)]
    return np.concatenate([_shares(pulses), _shares(gaps), [np.log10(1 + len(pulses)), *means]])


def _shares(widths: Floats) -> Floats:
    counts = np.histogram(np.clip(widths, EDGES[0], EDGES[-1]), EDGES)[0]
    return np.asarray(counts / max(counts.sum(), 1), float)
