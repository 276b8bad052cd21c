r"""A ridge regression as the start of a network's linear path (our addition to MindEye).

The targets are written in their own principal components; each subject's voxels are regressed on
the scores, with one penalty that a cross-validation inside the training stimuli chooses. The
network starts as that linear map and learns from there what a linear map and a squared error
leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ALPHAS = tuple(10.0**power for power in np.arange(-1, 7.5, 0.5))
SMOOTHER = 10.0
_MANY = 2500  # trials above which one held-out part, not five, chooses the penalty


@dataclass
class Components:
    """Principal components of targets: ``targets = scores basis + offset``.

    Attributes
    ----------
    scores : ndarray, shape (stimulus, k)
    basis : ndarray, shape (k, value)
    offset : ndarray, shape (value,)
    """

    scores: Floats
    basis: Floats
    offset: Floats


def components(targets: NDArray[np.floating], k: int, seed: int = 0) -> Components:
    """Return the first k principal components of ``(stimulus, value)``.

    Examples
    --------
    >>> found = components(np.random.default_rng(0).normal(size=(9, 4)), 4)
    >>> found.scores.shape, found.basis.shape
    ((9, 4), (4, 4))
    """
    values = np.asarray(targets, np.float32)
    offset = values.mean(0)
    centred = values - offset
    k = max(1, min(k, *centred.shape))
    if min(centred.shape) <= 2000:
        u, s, v = np.linalg.svd(centred, full_matrices=False)
    else:
        from sklearn.utils.extmath import randomized_svd

        u, s, v = randomized_svd(centred, k, random_state=seed)
    return Components((u[:, :k] * s[:k]).astype(np.float32), v[:k].astype(np.float32), offset)


def ridge(
    X: Floats, Y: Floats, groups: NDArray[np.int64], seed: int = 0
) -> tuple[Floats, Floats, float]:
    """Regress centred scores on standardised voxels.

    Parameters
    ----------
    X : ndarray, shape (trial, voxel)
    Y : ndarray, shape (trial, k)
    groups : ndarray of int, shape (trial,)
        Stimuli; none is on both sides of a fold.
    seed : int

    Returns
    -------
    weights : ndarray of float32, shape (voxel, k)
        At the penalty that the cross-validation chose.
    smooth : ndarray of float32, shape (voxel, k)
        At ten times that penalty. On simulated betas a network that starts from a map shrunk
        like this ends with better retrieval in both directions: contrastive training sharpens
        what is too smooth, but doesn't smooth what is too sharp.
    alpha : float
        The penalty, of `ALPHAS`.
    """
    folds = _folds(groups, seed)
    errors = np.zeros(len(ALPHAS))
    for held in folds:
        errors += _errors(X[~held], Y[~held], X[held], Y[held])
    alpha = float(ALPHAS[int(errors.argmin())])
    weights, smooth = _solve(X, Y, [alpha, SMOOTHER * alpha])
    return weights.astype(np.float32), smooth.astype(np.float32), alpha


def _folds(groups: NDArray[np.int64], seed: int) -> list[NDArray[np.bool_]]:
    names = np.unique(groups)
    n_folds = min(5, len(names))
    if n_folds < 2:
        return []
    order = np.random.default_rng(seed).permutation(len(names)) % n_folds
    fold = order[np.searchsorted(names, groups)]
    return [fold == number for number in range(1 if len(groups) > _MANY else n_folds)]


def _errors(X: Floats, Y: Floats, held_X: Floats, held_Y: Floats) -> NDArray[np.float64]:
    solved = _solve(X, Y, ALPHAS)
    return np.array([np.square(held_X @ w - held_Y).sum() for w in solved])


def _solve(X: Floats, Y: Floats, alphas: tuple[float, ...] | list[float]) -> list[Floats]:
    """Solve for several penalties with one eigendecomposition, of the smaller side."""
    dual = len(X) <= X.shape[1]
    gram = np.asarray(X @ X.T if dual else X.T @ X, np.float64)
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0)
    right = vectors.T @ (Y if dual else X.T @ Y)
    solved = [vectors @ (right / (values + alpha)[:, None]) for alpha in alphas]
    return [X.T @ s.astype(np.float32) if dual else s.astype(np.float32) for s in solved]
