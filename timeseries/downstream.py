"""What plain features of series tell without any encoder: the baselines of every result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError

__all__ = ["cepstra", "grouped_accuracy", "summary_features"]


def summary_features(X: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Return simple statistics of every channel.

    Parameters
    ----------
    X : ndarray, shape (trial, channel, time)
    mask : ndarray of bool, shape (trial, time), optional
        True on real samples.

    Returns
    -------
    ndarray, shape (trial, 7 * channel)
        Mean, standard deviation, least, greatest, mean absolute step, root mean square and the
        share of power above the mean's first difference.

    Examples
    --------
    >>> summary_features(np.ones((4, 2, 10))).shape
    (4, 14)
    """
    X = np.asarray(X, dtype=np.float64)
    real = np.ones((len(X), X.shape[-1]), bool) if mask is None else np.asarray(mask, bool)
    inside = np.broadcast_to(real[:, None], X.shape)
    both = inside[..., 1:] & inside[..., :-1]
    step = np.diff(X, axis=-1)
    mean, square = X.mean(-1, where=inside), np.square(X).mean(-1, where=inside)
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    n_steps = np.maximum(both.sum(-1), 1)
    parts = [
        mean, sd, X.min(-1, where=inside, initial=np.inf),
        X.max(-1, where=inside, initial=-np.inf), (np.abs(step) * both).sum(-1) / n_steps,
        np.sqrt(square), (np.square(step) * both).sum(-1) / n_steps / np.maximum(sd**2, 1e-12),
    ]  # fmt: skip
    return np.concatenate(parts, axis=1)


def cepstra(
    X: NDArray[Any],
    sfreq: float,
    length: ArrayLike | None = None,
    *,
    n_coefficients: int = 14,
    n_frames: int = 20,
    window: float = 0.032,
) -> NDArray[Any]:
    """Return cepstra of frames spread evenly over each sound.

    Parameters
    ----------
    X : ndarray, shape (trial, 1, time)
    sfreq : float
        Hz.
    length : array-like, shape (trial,), optional
        Real samples of each trial.
    n_coefficients, n_frames : int
    window : float
        Of a frame, s.

    Returns
    -------
    ndarray, shape (trial, n_frames * n_coefficients)
        Of the log power in 26 bands that are even on the mel scale.
    """
    from scipy.fft import dct

    size = round(window * sfreq)
    real = np.full(len(X), X.shape[-1]) if length is None else np.asarray(length)
    if X.shape[1] != 1 or X.shape[-1] < size:
        raise DataError(f"cepstra take one channel of {size} or more samples, found {X.shape}")
    last = np.maximum(real - size, 0)
    first = np.rint(last[:, None] * np.linspace(0, 1, n_frames)).astype(int)
    at = first[..., None] + np.arange(size)
    frames = np.take_along_axis(X[:, 0], at.reshape(len(X), -1), 1).reshape(at.shape)
    power = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
    log = np.log(power @ _mel_bands(size, sfreq).T + 1e-8)
    return np.asarray(dct(log, norm="ortho")[..., :n_coefficients].reshape(len(X), -1))


def _mel_bands(size: int, sfreq: float, n_bands: int = 26) -> NDArray[np.float64]:
    """Return triangles ``(band, frequency)``, even on the mel scale."""
    hertz = np.fft.rfftfreq(size, 1 / sfreq)
    top = 2595 * np.log10(1 + sfreq / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, n_bands + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.clip(
        np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, 1
    )


def grouped_accuracy(features: NDArray[Any], y: ArrayLike, groups: ArrayLike) -> dict[str, float]:
    """Leave each group out in turn: accuracy of a logistic regression on it.

    Parameters
    ----------
    features : ndarray, shape (trial, feature)
    y, groups : array-like, shape (trial,)
        Class, and person or speaker. Features are standardised on the other groups only.

    Returns
    -------
    dict
        Accuracy by group.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y, groups = np.asarray(y), np.asarray(groups)
    if len(np.unique(groups)) < 2:
        raise DataError("one group alone can't be left out; give trials of two or more")
    scores = {}
    for group in np.unique(groups):
        held = groups == group
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        scores[str(group)] = float(
            model.fit(features[~held], y[~held]).score(features[held], y[held])
        )
    return scores
