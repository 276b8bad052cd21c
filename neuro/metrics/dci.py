"""DCI: disentanglement, completeness and informativeness by the importances of boosted trees.

References
----------
Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
representations" (ICLR 2018). The importances here are the summed gains of scikit-learn's
histogram-based boosted trees; scores of another regressor (forests, gradient boosting, Lasso)
rank models alike but are not the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuro.metrics.factors import Factor, Floats, halves, standardized

N_ITERATIONS = 50
LEARNING_RATE = 0.2
MAX_LEAVES = 8


@dataclass(frozen=True)
class DCI:
    """The three numbers and the importances.

    Parameters
    ----------
    disentanglement : float
        Each latent is important for one factor: one minus the entropy of its importances (base
        k), averaged over latents by their importance.
    completeness : float
        Each factor needs one latent: one minus the entropy over latents (base d), averaged over
        factors.
    informativeness : float
        Mean over factors of the score on the left-out third: accuracy of classes, R^2 (not below
        0) of continuous ones.
    importances : ndarray of shape (d, k)
        Share of each latent in predicting each factor; columns sum to 1, or are 0 where nothing
        could be learned.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importances: Floats


def dci_of(latents: Floats, factors: Sequence[Factor], *, random_state: int = 0) -> DCI:
    """Compute DCI of what `neuro.metrics.factors.clean` returned."""
    X = standardized(latents)
    fitted = [_fit(X[factor.rows], factor, random_state) for factor in factors]
    importances = np.stack([gains for gains, _ in fitted], axis=1)
    return DCI(
        disentanglement=disentanglement_of(importances),
        completeness=disentanglement_of(importances.T),
        informativeness=float(np.mean([score for _, score in fitted])),
        importances=importances,
    )


def disentanglement_of(importances: Floats) -> float:
    """One minus the entropy of each row, averaged with the row sums as weights.

    Examples
    --------
    >>> import numpy as np
    >>> disentanglement_of(np.array([[2.0, 0.0], [1.0, 1.0]]))
    0.5
    >>> disentanglement_of(np.zeros((3, 2)))
    0.0
    """
    weight = importances.sum(1)
    n = importances.shape[1]
    if not weight.sum() > 0:
        return 0.0
    share = importances / np.where(weight > 0, weight, 1.0)[:, None]
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1)
    pure = 1 - entropy / np.log(n) if n > 1 else np.ones(len(weight))
    return float(np.clip(np.sum(pure * weight) / weight.sum(), 0.0, 1.0))


def _fit(X: Floats, factor: Factor, random_state: int) -> tuple[Floats, float]:
    """Return the normalised gains (d,) and the score on the left-out part."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    train, test = halves(factor, random_state)
    settings: dict[str, Any] = {
        "max_iter": N_ITERATIONS,
        "learning_rate": LEARNING_RATE,
        "max_leaf_nodes": MAX_LEAVES,
        "min_samples_leaf": int(np.clip(len(train) // (4 * factor.n_classes), 1, 20)),
        "early_stopping": False,
        "random_state": random_state,
    }
    if factor.discrete:
        model: Any = HistGradientBoostingClassifier(**settings).fit(X[train], factor.classes[train])
        correct = model.predict(X[test]) == factor.classes[test]
        score = float(correct.mean()) if len(test) else 0.0
    else:
        model = HistGradientBoostingRegressor(**settings).fit(X[train], factor.values[train])
        score = _r_squared(factor.values[test], model.predict(X[test]))
    gains = _gains(model, X.shape[1])
    total = gains.sum()
    return (gains / total if total > 0 else gains), score


def _gains(model: Any, n_features: int) -> Floats:
    """Sum the gains of all splits by feature.

    scikit-learn offers no importances for these models; its trees keep the gain of every split.
    """
    gains = np.zeros(n_features)
    for trees in model._predictors:
        for tree in trees:
            splits = tree.nodes[tree.nodes["is_leaf"] == 0]
            np.add.at(gains, splits["feature_idx"].astype(np.intp), splits["gain"])
    return np.maximum(np.nan_to_num(gains), 0.0)


def _r_squared(truth: Floats, predicted: Floats) -> float:
    total = np.sum((truth - truth.mean()) ** 2) if len(truth) else 0.0
    return 0.0 if total <= 0 else max(0.0, 1 - float(np.sum((truth - predicted) ** 2) / total))
