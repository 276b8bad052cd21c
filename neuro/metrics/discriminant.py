"""Linear discriminant with tuned shrinkage, in closed form for hundreds of labellings at once.

A label-shuffled control needs the same classifier on the same features under hundreds of
labellings. The within-class covariance of a labelling is the total covariance minus a matrix of
rank K (the class means), so that one eigendecomposition serves all labellings and all degrees of
shrinkage by Woodbury's identity.

References
----------
Blankertz et al., "Single-trial analysis and classification of ERP components" (NeuroImage 2011):
shrinkage LDA for ERPs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHRINKAGES = (0.05, 0.2, 0.5, 0.8, 0.95)
N_INNER = 4
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def discriminate(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    n_classes: int,
    *,
    groups: ArrayLike | None = None,
    shrinkage: float | None = None,
) -> Floats:
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
    groups : array_like of shape (n,), optional
        The subject of each training row; by default every row is its own.
    shrinkage : float, optional
        Share of the scaled identity in the covariance. By default chosen for each labelling by
        its likelihood on left-out groups of the training rows: the closed forms for independent
        rows (Ledoit and Wolf) shrink too little where trials come from few people.

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
    train, test = np.asarray(train, dtype=float), np.asarray(test, dtype=float)
    labels = np.asarray(labels)
    several = np.atleast_2d(labels)
    if train.shape[1] == 0:
        probabilities = np.full((len(several), len(test), n_classes), 1 / n_classes)
    else:
        probabilities = np.empty((len(several), len(test), n_classes))
        if shrinkage is None:
            chosen = _tuned(
                train,
                several,
                n_classes,
                np.arange(len(train))
                if groups is None
                else np.unique(np.asarray(groups), return_inverse=True)[1],
            )
        else:
            chosen = np.full(len(several), shrinkage)
        for value in np.unique(chosen):
            own = chosen == value
            model = _Model.fit(train, several[own], n_classes)
            probabilities[own] = _softmax(model.scores(test, float(value)))
    return probabilities if labels.ndim == 2 else probabilities[0]


def _tuned(train: Floats, labels: Ints, n_classes: int, groups: Ints) -> Floats:
    """Shrinkage of each labelling: the one most likely on left-out groups, (n_labellings,)."""
    n_groups = int(groups.max()) + 1
    n_inner = min(N_INNER, n_groups)
    if n_inner < 2:
        return np.full(len(labels), SHRINKAGES[len(SHRINKAGES) // 2])
    part = np.random.default_rng(0).permutation(n_groups)[groups] % n_inner
    likelihood = np.zeros((len(SHRINKAGES), len(labels)))
    for number in range(n_inner):
        out = part == number
        model = _Model.fit(train[~out], labels[:, ~out], n_classes)
        for row, shrinkage in enumerate(SHRINKAGES):
            likelihood[row] += _log_likelihood(model.scores(train[out], shrinkage), labels[:, out])
    return np.array(SHRINKAGES)[likelihood.argmax(0)]


def _log_likelihood(scores: Floats, labels: Ints) -> Floats:
    """Summed log probability of the labels; a class that could not be learned costs 1e-6."""
    top = scores.max(-1)
    norm = top + np.log(np.exp(scores - top[..., None]).sum(-1))
    own = np.take_along_axis(scores, labels[..., None], -1)[..., 0]
    return np.maximum(own - norm, np.log(1e-6)).sum(-1)


@dataclass(frozen=True)
class _Model:
    """Training statistics of all labellings in the eigenbasis of the total covariance."""

    mean: Floats  # (d,)
    scale: Floats  # (d,)
    axes: Floats  # (d, q)
    spectrum: Floats  # (q,)
    level: float  # mean eigenvalue over all d
    means: Floats  # (labelling, class, q)
    shares: Floats  # (labelling, class)

    @classmethod
    def fit(cls, train: Floats, labels: Ints, n_classes: int) -> _Model:
        mean, scale = train.mean(0), train.std(0)
        scale = np.where(scale > 1e-12, scale, 1.0)
        X = (train - mean) / scale
        axes, spectrum = _eigen(X)
        members = (labels[:, None] == np.arange(n_classes)[:, None]).astype(float)
        counts = members.sum(-1)
        sums = (members.reshape(-1, len(X)) @ (X @ axes)).reshape(*counts.shape, -1)
        means = sums / np.maximum(counts, 1)[..., None]
        level = max(float(spectrum.sum()) / X.shape[1], 1e-12)
        return cls(mean, scale, axes, spectrum, level, means, counts / len(X))

    def scores(self, test: Floats, shrinkage: float) -> Floats:
        """Discriminant scores (labelling, m, class).

        With A the shrunk total covariance, M the means and C the shares times (1 - shrinkage),
        the within-class covariance is ``A - M' C M``, hence its inverse times ``M'`` is
        ``A^-1 M' (I - C G)^-1`` with ``G = M A^-1 M'``.
        """
        solved = self.means / ((1 - shrinkage) * self.spectrum + shrinkage * self.level)
        gram = np.einsum("pkq,pjq->pkj", self.means, solved)
        n_classes = gram.shape[-1]
        inner = np.eye(n_classes) - (1 - shrinkage) * self.shares[..., None] * gram
        weights = np.einsum("pkq,pkj->pjq", solved, np.linalg.inv(inner))
        offset = 0.5 * np.einsum("pkq,pkq->pk", self.means, weights)
        rotated = ((test - self.mean) / self.scale) @ self.axes
        scores = weights @ rotated.T - offset[..., None]
        scores[self.shares == 0] = -np.inf
        return scores.transpose(0, 2, 1)


def _eigen(X: Floats) -> tuple[Floats, Floats]:
    """Eigenvectors (d, q) and eigenvalues (q,) of ``X'X / n``; q = min(n, d)."""
    n, d = X.shape
    if d <= n:
        values, axes = np.linalg.eigh(X.T @ X / n)
        return axes, np.maximum(values, 0.0)
    # Class means lie in the span of the rows, so nothing outside of it matters.
    values, rows = np.linalg.eigh(X @ X.T)
    kept = values > 1e-9 * max(values.max(), 1e-12)
    return X.T @ (rows[:, kept] / np.sqrt(values[kept])), values[kept] / n


def _softmax(scores: Floats) -> Floats:
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)
