"""What a diagonal Gaussian posterior carries: KL per latent; active, mixed and passive latents.

References
----------
Bonheme and Grzes, "Be more active! Understanding the differences between mean and sampled
representations of variational autoencoders" (arXiv 2109.12679): the thresholds.
Duan et al., "Unsupervised model selection for variational disentangled representation
learning" (ICLR 2020): latents are kept by KL > 0.01.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

KL_KEPT = 0.01
ACTIVE, MIXED, PASSIVE = "active", "mixed", "passive"


def kl_per_latent(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    r"""Average the KL divergence from the posterior to N(0, 1), per latent.

    ``mean_n 0.5 (mu^2 + sigma^2 - log sigma^2 - 1)``, in nats.

    Parameters
    ----------
    mean, variance : array_like of shape (n, n_latents)
        Posterior means and variances (not log variances) of n samples.

    Returns
    -------
    ndarray of shape (n_latents,)

    Examples
    --------
    >>> kl_per_latent([[0.0, 1.0]], [[1.0, 1.0]]).tolist()
    [0.0, 0.5]
    """
    mean, variance = _pair(mean, variance)
    return 0.5 * np.mean(mean**2 + variance - np.log(variance) - 1, axis=0)


def kept_latents(kl: ArrayLike, threshold: float = KL_KEPT) -> NDArray[np.bool_]:
    """Mark the latents that downstream classifiers may use: KL above the threshold.

    Examples
    --------
    >>> kept_latents([0.5, 0.001]).tolist()
    [True, False]
    """
    return np.asarray(kl, dtype=float) > threshold


def variable_types(
    variance: ArrayLike, *, mean_threshold: float = 0.1, variance_threshold: float = 0.1
) -> NDArray[np.str_]:
    """Sort latents into active, mixed and passive by the posterior variance alone.

    Active: ``Var[v] < 0.1`` and ``E[v] <= 0.1``. Passive: ``Var[v] < 0.1`` and
    ``0.9 <= E[v] <= 1.1``. Mixed: everything else, so that the three always partition.

    Parameters
    ----------
    variance : array_like of shape (n, n_latents)
        Posterior variances of n samples.
    mean_threshold, variance_threshold : float
        The two thresholds.

    Returns
    -------
    ndarray of str, shape (n_latents,)

    Examples
    --------
    >>> variable_types([[0.01, 1.0, 0.5], [0.02, 1.0, 0.6]]).tolist()
    ['active', 'passive', 'mixed']
    """
    variance = np.asarray(variance, dtype=float)
    steady = variance.var(axis=0) < variance_threshold
    level = variance.mean(axis=0)
    active = steady & (level <= mean_threshold)
    passive = steady & (level >= 1 - mean_threshold) & (level <= 1 + mean_threshold)
    return np.where(active, ACTIVE, np.where(passive, PASSIVE, MIXED))


def latent_counts(mean: ArrayLike, variance: ArrayLike) -> dict[str, int]:
    """Count latents by KL and by type: the keys are kl_active, active, mixed and passive.

    Examples
    --------
    >>> latent_counts([[0.0, 2.0], [0.0, -2.0]], [[1.0, 0.01], [1.0, 0.01]])
    {'kl_active': 1, 'active': 1, 'mixed': 0, 'passive': 1}
    """
    types = variable_types(variance)
    counts = {kind: int(np.sum(types == kind)) for kind in (ACTIVE, MIXED, PASSIVE)}
    return {"kl_active": int(kept_latents(kl_per_latent(mean, variance)).sum()), **counts}


def _pair(mean: ArrayLike, variance: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, variance = np.asarray(mean, dtype=float), np.asarray(variance, dtype=float)
    if mean.shape != variance.shape or mean.ndim != 2:
        raise ValueError(
            f"mean and variance must both be (n, n_latents), found {mean.shape} and "
            f"{variance.shape}"
        )
    return mean, variance
