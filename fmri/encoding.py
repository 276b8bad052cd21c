"""Encoding models: how well what was seen predicts each voxel, for a choice of voxels.

Where no picture is repeated, so that reliability can't be measured, a voxel that the training
pictures predict is one that responds to them.

References
----------
Naselaris, Kay, Nishimoto and Gallant, "Encoding and decoding in fMRI" (NeuroImage 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

__all__ = ["ALPHAS", "encoding_accuracy", "predicted_voxels"]

Floats = NDArray[np.float64]

ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 4, 9))


def encoding_accuracy(
    voxels: ArrayLike,
    pictures: ArrayLike,
    *,
    n_components: int = 15,
    alphas: Sequence[float] = ALPHAS,
    n_splits: int = 5,
    random_state: int = 0,
) -> Floats:
    """Correlate each voxel with its cross-validated prediction from the pictures.

    Ridge regression on principal components of the pictures, with one penalty for all voxels:
    the one whose predictions correlate best on average.

    Parameters
    ----------
    voxels : array_like of shape (trial, voxel)
        Of training trials only, one per picture.
    pictures : array_like of shape (trial, ...)
        What was seen: pixels or features.
    n_components : int
        At most the number of trials less those of a fold.
    alphas : sequence of float
    n_splits : int
    random_state : int

    Returns
    -------
    ndarray of shape (voxel,)
        0 for a voxel that doesn't vary.

    Raises
    ------
    DataError
        Where the numbers of trials differ.
    InputError
        Where there are too few trials for the folds or the components.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> seen = rng.standard_normal((60, 4))
    >>> voxels = np.column_stack([seen[:, 0], rng.standard_normal(60)])
    >>> encoding_accuracy(voxels, seen, n_components=4).round(1).tolist()[0]
    1.0
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict

    X = np.asarray(voxels, dtype=np.float64)
    seen = np.asarray(pictures, dtype=np.float64).reshape(len(np.asarray(pictures)), -1)
    if X.ndim != 2 or len(X) != len(seen):
        raise DataError(f"voxels are {X.shape} for {len(seen)} pictures; expected (trial, voxel)")
    if not 2 <= n_splits <= len(X) or not 1 <= n_components <= min(seen.shape[1], len(X) - 1):
        raise InputError(
            f"n_splits is {n_splits} and n_components {n_components} for {len(X)} trials of "
            f"{seen.shape[1]} pixels; expected fewer than trials and no more than pixels"
        )
    scores = PCA(n_components, svd_solver="full").fit_transform(seen)
    folds = KFold(n_splits, shuffle=True, random_state=random_state)
    standard = (X - X.mean(0)) / np.where(X.std(0) > 0, X.std(0), 1.0)
    found = [
        _correlation(cross_val_predict(Ridge(alpha), scores, standard, cv=folds), standard)
        for alpha in alphas
    ]
    return max(found, key=lambda r: float(r.mean()))


def predicted_voxels(
    voxels: ArrayLike,
    pictures: ArrayLike,
    threshold: float = 0.3,
    *,
    n_components: int = 15,
    random_state: int = 0,
) -> NDArray[np.bool_]:
    """Choose the voxels that training pictures predict.

    Parameters
    ----------
    voxels, pictures, n_components, random_state
        As in `encoding_accuracy`.
    threshold : float
        Least correlation.

    Returns
    -------
    ndarray of bool, shape (voxel,)

    Raises
    ------
    DataError
        Where no voxel reaches the threshold.
    """
    accuracy = encoding_accuracy(
        voxels, pictures, n_components=n_components, random_state=random_state
    )
    keep = accuracy >= threshold
    if not keep.any():
        raise DataError(
            f"no voxel is predicted from the {len(np.asarray(pictures))} training pictures with a "
            f"correlation >= {threshold:g}; the best has {accuracy.max():.3f}. Lower the threshold"
        )
    return keep


def _correlation(a: Floats, b: Floats) -> Floats:
    x, y = a - a.mean(0), b - b.mean(0)
    size = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    return np.where(size > 0, (x * y).sum(0) / np.where(size > 0, size, 1.0), 0.0)
