"""What plain features of series tell without any encoder: the baselines of every result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError

__all__ = ["SeriesPCA", "grouped_accuracy", "summary_features"]


def summary_features(X: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Return simple statistics of every channel.

    Parameters
    ----------
    X : ndarray, shape (trial, channel, time)
    mask : ndarray of bool, shape (trial, time), optional
        True on real samples; NaN counts as missing too.

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
    X, inside = _real(X, mask)
    both = inside[..., 1:] & inside[..., :-1]
    step = np.diff(X, axis=-1)
    n_real = np.maximum(inside.sum(-1), 1)
    mean, square = X.sum(-1) / n_real, np.square(X).sum(-1) / n_real
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    n_steps = np.maximum(both.sum(-1), 1)
    low = X.min(-1, where=inside, initial=np.inf)
    high = X.max(-1, where=inside, initial=-np.inf)
    known = inside.any(-1)
    parts = [
        mean, sd, np.where(known, low, 0), np.where(known, high, 0),
        (np.abs(step) * both).sum(-1) / n_steps,
        np.sqrt(square), (np.square(step) * both).sum(-1) / n_steps / np.maximum(sd**2, 1e-12),
    ]  # fmt: skip
    return np.concatenate(parts, axis=1)


def _real(X: Any, mask: NDArray[np.bool_] | None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return series that are 0 where a sample is missing, and where it is not."""
    if mask is None and "mask" in getattr(X, "coords", ()):
        mask = X["mask"].values
    X = np.asarray(X, dtype=np.float64)
    inside = np.isfinite(X)
    if mask is not None:
        inside &= np.asarray(mask, bool)[:, None]
    return np.where(inside, X, 0), inside


class SeriesPCA:
    """Principal components of series that may be padded or miss samples.

    Channels are standardised by the real samples of the training series, and what is missing (the
    mask says so, or it is NaN) becomes 0, the mean: as the networks see it.

    Parameters
    ----------
    n_components : int or None
        At most; None standardises and flattens alone.
    random_state : int

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(8, 2, 10))
    >>> pca = SeriesPCA(3).fit(X)
    >>> pca.transform(X).shape, pca.inverse_transform(pca.transform(X)).shape
    ((8, 3), (8, 2, 10))
    """

    def __init__(self, n_components: int | None = 16, random_state: int = 0) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, mask: NDArray[np.bool_] | None = None) -> SeriesPCA:
        """Fit statistics and components.

        Parameters
        ----------
        X : ndarray or DataArray, shape (trial, channel, time)
        mask : ndarray of bool, shape (trial, time), optional
            True on real samples; by default the coordinate ``mask``, or all.
        """
        from sklearn.decomposition import PCA

        values, inside = _real(X, mask)
        n = np.maximum(inside.sum((0, 2)), 1)
        self.mean_ = values.sum((0, 2)) / n
        self.shape_ = values.shape[1:]
        spread = np.square(values - self.mean_[:, None]).sum((0, 2), where=inside) / n
        self.sd_ = np.where(spread > 1e-14, np.sqrt(spread), 1.0)
        if self.n_components is not None:
            flat = self._flat(X, mask)
            size = min(self.n_components, *flat.shape)
            self.pca_ = PCA(size, random_state=self.random_state).fit(flat)
        return self

    def transform(self, X: Any, mask: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """Return the components, ``(trial, component)``; ``(trial, channel * time)`` with None."""
        flat = self._flat(X, mask)
        return flat if self.n_components is None else np.asarray(self.pca_.transform(flat))

    def inverse_transform(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Return the series that components stand for, in their units: (trial, channel, time)."""
        flat = codes if self.n_components is None else self.pca_.inverse_transform(codes)
        scaled = np.asarray(flat).reshape(len(codes), *self.shape_)
        return np.asarray(scaled * self.sd_[:, None] + self.mean_[:, None])

    def _flat(self, X: Any, mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        values, inside = _real(X, mask)
        scaled = (values - self.mean_[:, None]) / self.sd_[:, None] * inside
        return np.asarray(scaled.reshape(len(values), -1))


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
