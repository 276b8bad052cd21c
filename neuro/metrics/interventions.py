"""Scores of groups of rows that share a factor: the beta-VAE and FactorVAE metrics.

References
----------
Higgins et al., "beta-VAE: Learning basic visual concepts with a constrained variational
framework" (ICLR 2017), section 3.
Kim and Mnih, "Disentangling by factorising" (ICML 2018), section 2.

Both were defined for a generator that holds one factor fixed. Here the groups are drawn from the
rows given: those of one class, or of one bin of a continuous factor, so that a factor is held
within a bin, and the others vary as they do in the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from neuro.metrics.factors import Factor, Floats, Ints, standardized

N_TRAIN, N_TEST = 800, 400  # groups
GROUP_SIZE = 64  # rows, or pairs of rows


def beta_vae_of(latents: Floats, factors: Sequence[Factor], *, random_state: int = 0) -> float:
    """Accuracy of a linear classifier that tells which factor pairs of rows share.

    Its input is the mean absolute difference of the latents, standardised, over 64 pairs. Chance
    is one over the number of factors; a rotated code can score 1 (Kim and Mnih 2018).

    Examples
    --------
    >>> from neuro.metrics.factors import clean
    >>> z = np.random.default_rng(0).integers(0, 4, (500, 2))
    >>> beta_vae_of(*clean(z, z))
    1.0
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    X, truth, drawn = _groups(latents, factors, random_state, 2 * GROUP_SIZE)
    if len(factors) < 2 or not X.any():
        return 1 / len(factors)
    pairs = X[drawn].reshape(len(drawn), GROUP_SIZE, 2, X.shape[1])
    inputs = standardized(np.abs(pairs[:, :, 0] - pairs[:, :, 1]).mean(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=200).fit(inputs[:N_TRAIN], truth[:N_TRAIN])
    return float(np.mean(model.predict(inputs[N_TRAIN:]) == truth[N_TRAIN:]))


def factor_vae_of(latents: Floats, factors: Sequence[Factor], *, random_state: int = 0) -> float:
    """Accuracy of a majority vote for the factor by the latent that varies least in the group.

    The variance is relative to that over all rows; constant latents have no vote. Chance is one
    over the number of factors, the score where no latent varies.

    Examples
    --------
    >>> from neuro.metrics.factors import clean
    >>> z = np.random.default_rng(0).integers(0, 4, (500, 2))
    >>> factor_vae_of(*clean(z, z))
    1.0
    """
    X, truth, drawn = _groups(latents, factors, random_state, GROUP_SIZE)
    if len(factors) < 2 or not X.any():
        return 1 / len(factors)
    X = X[:, X.any(0)]  # of unit variance
    least = X[drawn].var(1).argmin(1)
    votes = np.zeros((X.shape[1], len(factors)))
    np.add.at(votes, (least[:N_TRAIN], truth[:N_TRAIN]), 1)
    return float(np.mean(votes.argmax(1)[least[N_TRAIN:]] == truth[N_TRAIN:]))


# ------------------------------------------------------------------------------------- inside


def _groups(
    latents: Floats, factors: Sequence[Factor], random_state: int, size: int
) -> tuple[Floats, Ints, Ints]:
    """Draw factors in equal parts, and rows that share a class of it.

    Returns
    -------
    latents : ndarray of shape (n, d)
        Standardised.
    truth : ndarray of int, shape (n_groups,)
    rows : ndarray of int, shape (n_groups, size)
    """
    rng = np.random.default_rng(random_state)
    # In equal parts on both sides, so that guessing scores chance exactly.
    parts = [rng.permutation(np.arange(n) % len(factors)) for n in (N_TRAIN, N_TEST)]
    truth = np.concatenate(parts).astype(np.intp)
    rows = np.empty((len(truth), size), dtype=np.intp)
    for i, factor in enumerate(factors):
        own = np.flatnonzero(truth == i)
        order = np.argsort(factor.classes, kind="stable")
        sizes = np.bincount(factor.classes, minlength=factor.n_classes)
        starts = np.cumsum(sizes) - sizes
        usable = np.flatnonzero(sizes > 1)
        usable = usable if len(usable) else np.flatnonzero(sizes)
        chosen = rng.choice(usable, len(own))
        within = rng.integers(0, sizes[chosen][:, None], (len(own), size))
        rows[own] = factor.rows[order[starts[chosen][:, None] + within]]
    return standardized(latents), truth, rows
