"""Scores of single latents: MIG, SAP, modularity and explicitness.

References
----------
Chen et al., "Isolating sources of disentanglement in variational autoencoders" (NeurIPS 2018).
Kumar, Sattigeri and Balakrishnan, "Variational inference of disentangled latent concepts from
unlabeled observations" (ICLR 2018).
Ridgeway and Mozer, "Learning deep disentangled embeddings with the F-statistic loss" (NeurIPS
2018).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from neuro.metrics.factors import Factor, Floats, halves, standardized


def mig_of(information: Floats, entropies: Floats) -> float:
    """Mutual information gap: mean over factors of (first - second latent) over the entropy.

    Parameters
    ----------
    information : ndarray of shape (k, d)
        From `information_matrix`.
    entropies : ndarray of shape (k,)

    Examples
    --------
    >>> import numpy as np
    >>> mig_of(np.array([[0.6, 0.1], [0.2, 0.2]]), np.array([1.0, 1.0]))
    0.25
    """
    return float(np.mean(_gap(information, 0.0) / entropies))


def modularity_of(information: Floats) -> float:
    """Mean over latents of one minus the squared information of all factors but the first.

    A latent without information counts 0. With one factor it is the share of latents that
    inform of it.

    Parameters
    ----------
    information : ndarray of shape (k, d)

    Examples
    --------
    >>> import numpy as np
    >>> modularity_of(np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 0.0]]))
    0.3333333333333333
    """
    k, d = information.shape
    if d == 0:
        return 0.0
    largest = information.max(0)
    rest = (information**2).sum(0) - largest**2
    spread = rest / np.where(largest > 0, largest**2 * max(k - 1, 1), 1.0)
    return float(np.mean(np.where(largest > 0, np.clip(1 - spread, 0.0, 1.0), 0.0)))


def sap_of(latents: Floats, factors: Sequence[Factor], *, random_state: int = 0) -> float:
    """Separated attribute predictability: mean gap between the two most predictive latents.

    Continuous factors: squared correlation. Classes: balanced accuracy on the left-out third of
    thresholds midway between the class means (in place of a linear SVM, which in one dimension
    can't predict a class that lies between two others).
    """
    X = standardized(latents)
    gaps = []
    for factor in factors:
        own = X[factor.rows]
        if factor.discrete:
            scores, floor = _threshold_accuracy(own, factor, random_state), 1 / factor.n_classes
        else:
            scores, floor = _squared_correlation(own, factor.values), 0.0
        gaps.append(_gap(scores[None], floor)[0])
    return float(np.mean(gaps))


def explicitness_of(latents: Floats, factors: Sequence[Factor], *, random_state: int = 0) -> float:
    """Mean over factors and classes of the ROC AUC of a logistic regression on all latents.

    Scored on the left-out third; 0.5 is chance. Continuous factors are cut into bins.
    """
    X = standardized(latents)
    return float(np.mean([_mean_auc(X[f.rows], f, random_state) for f in factors]))


# ------------------------------------------------------------------------------------- inside


def _gap(scores: Floats, floor: float) -> Floats:
    """Difference of the two largest entries of each row; a missing second one is the floor."""
    padded = np.concatenate([scores, np.full((len(scores), 1), floor)], axis=1)
    ordered = np.sort(padded if scores.shape[1] < 2 else scores, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _squared_correlation(X: Floats, y: Floats) -> Floats:
    return np.clip((standardized(X).T @ y / len(y)) ** 2, 0.0, 1.0)


def _threshold_accuracy(X: Floats, factor: Factor, random_state: int) -> Floats:
    """Balanced accuracy (d,) of the nearest class mean along each latent alone."""
    train, test = halves(factor, random_state)
    if len(test) == 0:
        return np.full(X.shape[1], 1 / factor.n_classes)
    members = factor.classes[train][:, None] == np.arange(factor.n_classes)
    means = members.T @ X[train] / np.maximum(members.sum(0), 1)[:, None]
    accuracy = np.empty(X.shape[1])
    truth = factor.classes[test]
    sizes = np.bincount(truth, minlength=factor.n_classes)
    for j, z in enumerate(X[test].T):
        right = np.abs(z[:, None] - means[:, j]).argmin(1) == truth
        hits = np.bincount(truth, right, minlength=factor.n_classes)
        accuracy[j] = np.mean(hits[sizes > 0] / sizes[sizes > 0])
    return accuracy


def _mean_auc(X: Floats, factor: Factor, random_state: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    train, test = halves(factor, random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=200).fit(X[train], factor.classes[train])
    truth = factor.classes[test]
    scored = [c for c in range(factor.n_classes) if 0 < np.sum(truth == c) < len(truth)]
    if not scored:
        return 0.5
    probability = model.predict_proba(X[test])
    return float(np.mean([roc_auc_score(truth == c, probability[:, c]) for c in scored]))
