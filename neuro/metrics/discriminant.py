"""Linear discriminant with shrinkage, in closed form for thousands of labellings at once.

A label-shuffled control needs the same classifier on the same features under hundreds of
labellings. The pooled covariance of a labelling is the total covariance minus a matrix of rank K
(the class means), so that one factorisation serves all of them by Woodbury's identity.

References
----------
Blankertz et al., "Single-trial analysis and classification of ERP components" (NeuroImage 2011):
shrinkage LDA. Ledoit and Wolf (2004): how much to shrink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_SHRINKAGE = 1e-3


def discriminate(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    n_classes: int,
    *,
    shrinkage: float | None = None,
) -> NDArray[np.float64]:
    """Fit a class-balanced linear discriminant for every labelling and score test rows.

    Features are standardised by the training rows. Classes have equal priors, whatever their
    sizes. A class without training rows is never predicted.

    Parameters
    ----------
    train : array_like of shape (n, d)
    labels : array_like of int, shape (n,) or (n_labellings, n)
        Classes 0..n_classes-1.
    test : array_like of shape (m, d)
    n_classes : int
    shrinkage : float, optional
        Share of the scaled identity in the covariance; by default Ledoit and Wolf's, from the
        features alone, so that all labellings share it.

    Returns
    -------
    ndarray of shape (m, n_classes) or (n_labellings, m, n_classes)
        Posterior probabilities under equal priors.

    Examples
    --------
    >>> p = discriminate([[0.0], [0.1], [1.0], [1.1]], [0, 0, 1, 1], [[0.0], [1.1]], 2)
    >>> p.argmax(axis=1).tolist()
    [0, 1]
    """
    labels = np.asarray(labels)
    train, test = _standardise(np.asarray(train, dtype=float), np.asarray(test, dtype=float))
    several = np.atleast_2d(labels)
    if train.shape[1] == 0:
        flat = np.full((len(several), len(test), n_classes), 1 / n_classes)
        return flat if labels.ndim == 2 else flat[0]
    shrinkage = _ledoit_wolf(train) if shrinkage is None else shrinkage
    means, shares = _class_means(train, several, n_classes)
    weights = _directions(train, means, shares, max(shrinkage, LEAST_SHRINKAGE))
    offset = 0.5 * np.einsum("pkd,pdk->pk", means, weights)
    scores = np.einsum("md,pdk->pmk", test, weights, optimize=True) - offset[:, None]
    scores[np.broadcast_to((shares == 0)[:, None], scores.shape)] = -np.inf
    probabilities = _softmax(scores)
    return probabilities if labels.ndim == 2 else probabilities[0]


def _standardise(
    train: NDArray[np.float64], test: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, sd = train.mean(0), train.std(0)
    sd[sd == 0] = 1.0
    return (train - mean) / sd, (test - mean) / sd


def _ledoit_wolf(train: NDArray[np.float64]) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(train, assume_centered=True))


def _class_means(
    train: NDArray[np.float64], labels: NDArray[np.intp], n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class means (labelling, class, d) and shares (labelling, class)."""
    members = (labels[:, None] == np.arange(n_classes)[:, None]).astype(float)
    counts = members.sum(-1)
    sums = (members.reshape(-1, len(train)) @ train).reshape(*counts.shape, -1)
    return sums / np.maximum(counts, 1)[..., None], counts / len(train)


def _directions(
    train: NDArray[np.float64],
    means: NDArray[np.float64],
    shares: NDArray[np.float64],
    shrinkage: float,
) -> NDArray[np.float64]:
    """Inverse shrunk within-class covariance times the class means, (labelling, d, class).

    With A the shrunk total covariance, M the means and C the shares times (1 - shrinkage), the
    within-class one is ``A - M' C M``, hence ``(A - M' C M)^-1 M' = A^-1 M' (I - C G)^-1`` with
    ``G = M A^-1 M'``.
    """
    from scipy import linalg

    total = train.T @ train / len(train)
    level = np.trace(total) / len(total)
    shrunk = (1 - shrinkage) * total + shrinkage * level * np.eye(len(total))
    flat = means.reshape(-1, means.shape[-1])
    solved = linalg.cho_solve(linalg.cho_factor(shrunk), flat.T).T.reshape(means.shape)
    gram = np.einsum("pkd,pjd->pkj", means, solved)
    inner = np.eye(means.shape[1]) - (1 - shrinkage) * shares[..., None] * gram
    return np.einsum("pkd,pkj->pdj", solved, np.linalg.inv(inner), optimize=True)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)
