"""Balanced accuracy over labellings and over bootstrap samples, all at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def chance_level(n_classes: int) -> float:
    """Balanced accuracy of guessing: one over the number of classes.

    Examples
    --------
    >>> chance_level(4)
    0.25
    """
    return 1 / n_classes


def balanced_accuracy(
    truth: ArrayLike, predicted: ArrayLike, n_classes: int
) -> NDArray[np.float64]:
    """Average the recall over the classes that occur, for every labelling.

    Parameters
    ----------
    truth, predicted : array_like of int, shape (..., n)
        Classes 0..n_classes-1; leading axes are labellings (permutations).
    n_classes : int

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> float(balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0], 2))
    0.5
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    right = truth == predicted
    recalls = []
    for k in range(n_classes):
        has = truth == k
        count = has.sum(-1)
        hits = (right & has).sum(-1)
        recalls.append(np.where(count > 0, hits / np.maximum(count, 1), np.nan))
    return _mean_over_classes(np.stack(recalls, axis=-1))


def class_hits(
    truth: ArrayLike, predicted: ArrayLike, units: ArrayLike, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count right answers and rows of each unit and class.

    Parameters
    ----------
    truth, predicted : array_like of int, shape (n,)
    units : array_like of shape (n,)
        The subject of each row.
    n_classes : int

    Returns
    -------
    hits, counts : ndarray of shape (n_units, n_classes)
        What `weighted_balanced_accuracy` needs to bootstrap over units.

    Examples
    --------
    >>> hits, counts = class_hits([0, 1, 1], [0, 1, 0], ["a", "a", "b"], 2)
    >>> hits.tolist(), counts.tolist()
    ([[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]])
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    names, codes = np.unique(np.asarray(units), return_inverse=True)
    cell, shape = codes * n_classes + truth, (len(names), n_classes)
    counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    right = (truth == predicted).astype(float)
    hits = np.bincount(cell, right, minlength=shape[0] * shape[1]).reshape(shape)
    return hits.astype(np.float64), counts.astype(np.float64)


def weighted_balanced_accuracy(
    hits: ArrayLike, counts: ArrayLike, weights: ArrayLike
) -> NDArray[np.float64]:
    """Compute the balanced accuracy of each bootstrap sample over units.

    Parameters
    ----------
    hits, counts : array_like of shape (n_units, n_classes)
        From `class_hits`.
    weights : array_like of shape (n_boot, n_units)
        From `neuro.validation.bootstrap_weights`.

    Returns
    -------
    ndarray of shape (n_boot,)
        Over the classes that occur in the sample.

    Examples
    --------
    >>> weighted_balanced_accuracy([[1.0, 0.0]], [[1.0, 1.0]], [[1]]).tolist()
    [0.5]
    """
    drawn = np.asarray(weights, dtype=float)
    right, total = drawn @ np.asarray(hits), drawn @ np.asarray(counts)
    return _mean_over_classes(np.where(total > 0, right / np.maximum(total, 1e-12), np.nan))


def _mean_over_classes(recalls: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(recalls)
    total = np.where(known, recalls, 0.0).sum(-1)
    return total / np.maximum(known.sum(-1), 1)
