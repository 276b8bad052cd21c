"""Linear classifiers on features of participants, and how well held-out scores tell classes apart.

The discriminant of `neuro.metrics.discriminant` gives the numbers of a report, because it alone
can be refitted on hundreds of shuffled labellings; logistic regression and the linear support
vector machine stand beside it, their penalties chosen inside the training participants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eeg.classify import Features, Task
from eeg.cohort import Ints
from neuro.errors import InputError
from neuro.validation import grouped_folds

CLASSIFIERS = ("logistic", "svm")
PENALTIES = (1e-3, 1e-2, 1e-1)
N_INNER = 3
Floats = NDArray[np.float64]


def cross_scores(task: Task, features: Sequence[Features], classifier: str) -> Floats:
    """Score held-out rows by a classifier that was tuned and fitted on the training rows.

    Parameters
    ----------
    task : Task
    features : sequence of ndarray, each of shape (trial, d)
        One per fold.
    classifier : {"logistic", "svm"}

    Returns
    -------
    ndarray of shape (row, class)
        Probabilities, or distances from the hyperplanes.
    """
    truth, n_classes = task.labellings[0], len(task.target.classes)
    found = np.zeros((len(truth), n_classes))
    for number, own in enumerate(features):
        test = task.fold == number
        if test.any():
            rows = task.rows(own)
            found[test] = linear_scores(
                classifier, rows[~test], truth[~test], rows[test], n_classes, task.subject[~test]
            )
    return found


def linear_scores(
    classifier: str, train: Features, y: Ints, test: Features, n_classes: int, groups: Ints
) -> Floats:
    """Fit a class-balanced linear classifier and score test rows.

    Parameters
    ----------
    classifier : {"logistic", "svm"}
    train, test : ndarray of shape (n, d) and (m, d)
        Standardised by the training rows.
    y : ndarray of int, shape (n,)
    n_classes : int
    groups : ndarray of shape (n,)
        The participant of each training row: the penalty is chosen on left-out participants.

    Returns
    -------
    ndarray of shape (m, n_classes)
        A class without training rows has the least score.

    Examples
    --------
    >>> train, y = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    >>> linear_scores("svm", train, y, np.array([[0.0], [1.1]]), 2, np.arange(4)).argmax(1).tolist()
    [0, 1]
    """
    if classifier not in CLASSIFIERS:
        raise InputError(f"classifier is {classifier!r}; expected one of {', '.join(CLASSIFIERS)}")
    classes = np.unique(y)
    scores = np.full((len(test), n_classes), -1.0)
    if len(classes) < 2 or train.shape[1] == 0:
        scores[:, classes] = 0.0
        return scores
    train, test = _compact(train, test)
    model = _tuned(classifier, train, y, groups).fit(train, y)
    found = model.predict_proba(test) if classifier == "logistic" else model.decision_function(test)
    if found.ndim == 1:
        found = np.column_stack([-found, found])
    scores[:] = found.min() - 1
    scores[:, classes] = found
    return scores


def _compact(train: Features, test: Features) -> tuple[Features, Features]:
    """Standardise, and turn into the span of the training rows where features are more.

    Penalties on the length of the weights see no difference, since weights lie in that span.
    """
    mean, sd = train.mean(0), train.std(0)
    sd = np.where(sd > 1e-12, sd, 1.0)
    train, test = (train - mean) / sd, (test - mean) / sd
    if train.shape[1] <= len(train):
        return train, test
    axes = np.linalg.svd(train, full_matrices=False)[2]
    return train @ axes.T, test @ axes.T


def _model(classifier: str, penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if classifier == "logistic":
        return LogisticRegression(C=penalty, class_weight="balanced", solver="newton-cholesky")
    # The primal problem: its solver doesn't draw at random.
    return LinearSVC(C=penalty, class_weight="balanced", dual=False)


def _tuned(classifier: str, train: Features, y: Ints, groups: Ints) -> Any:
    members = [len(np.unique(groups[y == k])) for k in np.unique(y)]
    if min(members) < N_INNER:
        return _model(classifier, PENALTIES[1])
    folds = grouped_folds(groups, y, n_splits=N_INNER)
    right = np.zeros(len(PENALTIES))
    for fit, held in folds:
        if len(np.unique(y[fit])) < len(members):
            continue
        for number, penalty in enumerate(PENALTIES):
            predicted = _model(classifier, penalty).fit(train[fit], y[fit]).predict(train[held])
            right[number] += _balanced(y[held], predicted)
    return _model(classifier, PENALTIES[int(right.argmax())])


def _balanced(truth: Ints, predicted: Ints) -> float:
    return float(np.mean([np.mean(predicted[truth == k] == k) for k in np.unique(truth)]))


# ---------------------------------------------------------------------------------------- AUC


def fold_auc(truth: Ints, scores: Floats, fold: Ints) -> Floats:
    """Area under the ROC curve over pairs of rows that were held out together.

    Scores of different folds come from different classifiers, so only pairs inside a fold are
    compared. The mean over every class against the rest: of two classes too, since a probability
    near one may be rounded to a tie while the one near zero beside it is not.

    Parameters
    ----------
    truth : ndarray of int, shape (..., n)
        Leading axes are labellings; rows of class -1 are left out.
    scores : ndarray of shape (..., n, n_classes)
    fold : ndarray of int, shape (n,)

    Returns
    -------
    ndarray of shape (...)
        NaN where no fold holds two classes.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> float(fold_auc(np.array([0, 1, 0]), scores, np.zeros(3, int)))
    1.0
    """
    from scipy.stats import rankdata

    truth = np.asarray(truth)
    areas = []
    for k in range(scores.shape[-1]):
        won, pairs = np.zeros(truth.shape[:-1]), np.zeros(truth.shape[:-1])
        for number in np.unique(fold):
            own = fold == number
            known = truth[..., own] >= 0
            # Rows that are left out rank below all others.
            rank = rankdata(np.where(known, scores[..., own, k], -np.inf), axis=-1)
            has = truth[..., own] == k
            n_has, n_known = has.sum(-1), known.sum(-1)
            lowest = own.sum() - n_known
            won += (rank * has).sum(-1) - n_has * ((n_has + 1) / 2 + lowest)
            pairs += n_has * (n_known - n_has)
        areas.append(np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan))
    return _mean_known(np.stack(areas, axis=-1))


def weighted_auc(truth: Ints, scores: Floats, fold: Ints, units: Ints, weights: Ints) -> Floats:
    """`fold_auc` in bootstrap samples over units.

    Parameters
    ----------
    truth, scores, fold
        As in `fold_auc`, one labelling.
    units : ndarray of int, shape (n,)
        The number of each row's unit.
    weights : ndarray of shape (n_boot, n_units)
        From `neuro.validation.bootstrap_weights`.

    Returns
    -------
    ndarray of shape (n_boot,)
    """
    drawn = np.asarray(weights, dtype=float)[:, units]
    areas = []
    for k in range(scores.shape[-1]):
        won, pairs = np.zeros(len(drawn)), np.zeros(len(drawn))
        for number in np.unique(fold):
            has = np.flatnonzero((fold == number) & (truth == k))
            rest = np.flatnonzero((fold == number) & (truth != k))
            difference = scores[has, k][:, None] - scores[rest, k][None]
            right = (difference > 0) + 0.5 * (difference == 0)
            won += ((drawn[:, has] @ right) * drawn[:, rest]).sum(1)
            pairs += drawn[:, has].sum(1) * drawn[:, rest].sum(1)
        areas.append(np.where(pairs > 0, won / np.maximum(pairs, 1e-12), np.nan))
    return _mean_known(np.stack(areas, axis=-1))


def _mean_known(values: Floats) -> Floats:
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(-1)
    return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan)
