"""What plain features of series tell without any encoder: the baselines of every result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError

__all__ = ["grouped_accuracy", "summary_features"]


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
