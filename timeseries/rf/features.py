"""Hand-made features of a burst: carrier, IQ imbalance, offset, amplitude and spectrum.

The baseline that a fingerprint network must beat, and a fingerprint in its own right: it has the
same two methods (`fit`, `transform`).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError

__all__ = ["FEATURES", "Discriminant", "HandFeatures", "burst_features"]

N_BANDS = 32
FEATURES = ("cfo", "image", "image_phase", "dc_i", "dc_q", "papr", "kurtosis")


def burst_features(signal: ArrayLike, sfreq: float) -> NDArray[np.float64]:
    """Measure bursts.

    Parameters
    ----------
    signal : array_like, shape (trial, 2, time)
    sfreq : float
        Hz.

    Returns
    -------
    ndarray, shape (trial, 7 + 32)
        Carrier offset (kHz, by what a signal that repeats itself turns by from one repetition to
        the next, else from sample to sample), the image that IQ imbalance leaves (size and phase
        of ``E[x^2] / E|x|^2``), DC offset, peak to average power (dB), kurtosis of the amplitude,
        log power in 32 bands (dB).

    Examples
    --------
    >>> burst_features(np.random.default_rng(0).normal(size=(3, 2, 256)), 4e6).shape
    (3, 39)
    """
    values = np.asarray(signal, float)
    x = values[:, 0] + 1j * values[:, 1]
    power = np.maximum((np.abs(x) ** 2).mean(1), 1e-20)
    step = _phase_step(x)
    image = (x**2).mean(1) / power
    dc = x.mean(1) / np.sqrt(power)
    peak = np.abs(x).max(1) ** 2 / power
    kurtosis = (np.abs(x) ** 4).mean(1) / power**2
    spectrum = np.abs(np.fft.fftshift(np.fft.fft(x * np.hanning(x.shape[1])), axes=1)) ** 2
    bands = np.stack([part.mean(1) for part in np.array_split(spectrum, N_BANDS, axis=1)], 1)
    level = 10 * np.log10(np.maximum(bands / bands.sum(1, keepdims=True), 1e-12))
    return np.column_stack([
        step * sfreq / (2 * np.pi) / 1e3, np.abs(image), np.angle(image), dc.real, dc.imag,
        10 * np.log10(np.maximum(peak, 1e-12)), kurtosis, level,
    ])  # fmt: skip


def _phase_step(x: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """Return the mean phase that a burst turns by in a sample, from its own repetitions."""
    n = x.shape[1]
    spectrum = np.abs(np.fft.fft(x, 2 * n)) ** 2
    like = np.fft.ifft(spectrum)[:, :n] / np.arange(n, 0, -1)
    like /= np.maximum(np.abs(like[:, :1]), 1e-20)
    inner = np.abs(like[:, n // 16 : n // 2])
    best = inner.max(1)
    # The first of the lags that are about as good: the offset is least ambiguous there.
    lag = (inner >= 0.95 * best[:, None]).argmax(1) + n // 16
    lag = np.where(best > 0.5, lag, 1)
    return np.asarray(np.angle(like[np.arange(len(x)), lag]) / lag, float)


class Discriminant:
    """The directions in which devices differ most for their own spread: a linear classifier.

    Attributes
    ----------
    classes_ : ndarray of str
        The training devices.
    """

    def fit(self, features: ArrayLike, device: ArrayLike) -> Self:
        """Learn from features ``(trial, feature)`` of named devices."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        names = np.unique(np.asarray(device, str))
        if len(names) < 2:
            raise DataError("one device only: there is nothing to tell apart")
        # The eigen solver gives the projection in which devices differ most for their spread.
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
        self.model_: Any = make_pipeline(StandardScaler(), lda)
        self.model_.fit(np.asarray(features, float), np.asarray(device, str))
        self.classes_ = self.model_.classes_
        return self

    def transform(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the discriminant scores: (trial, component)."""
        return np.asarray(self.model_.transform(np.asarray(features, float)), float)

    def predict(self, features: ArrayLike) -> NDArray[np.str_]:
        """Return the training device of each trial."""
        return np.asarray(self.model_.predict(np.asarray(features, float)), str)


class HandFeatures(Discriminant):
    """Hand-made features of bursts, whitened by the spread inside training devices.

    Parameters
    ----------
    sfreq : float
        Hz.
    """

    def __init__(self, sfreq: float) -> None:
        self.sfreq = sfreq

    def fit(self, signal: ArrayLike, device: ArrayLike) -> Self:
        """Learn mean, whitening and classifier from bursts ``(trial, 2, time)``."""
        return super().fit(burst_features(signal, self.sfreq), device)

    def transform(self, signal: ArrayLike) -> NDArray[np.float64]:
        """Return the discriminant scores of bursts: (trial, component)."""
        return super().transform(burst_features(signal, self.sfreq))

    def predict(self, signal: ArrayLike) -> NDArray[np.str_]:
        """Return the training device of each burst."""
        return super().predict(burst_features(signal, self.sfreq))
