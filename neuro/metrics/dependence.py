"""How much latents depend on one another, whatever they encode.

References
----------
Bonheme and Grzes, "Be more active! Understanding the differences between mean and sampled
representations of variational autoencoders" (arXiv 2109.12679): both numbers, of the mean and of
the sampled representation, with and without passive latents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuro.errors import InputError
from neuro.metrics.factors import Floats, standardized

LEAST_EIGENVALUE = 1e-9  # keeps the total correlation of copied latents finite


def total_correlation(latents: ArrayLike) -> float:
    """Total correlation of a Gaussian with the latents' correlations: ``-log det R / 2``, in nats.

    Latents without variance are left out. Eigenvalues below 1e-9 count as 1e-9, so that a latent
    that others determine adds about 10 nats and not infinity.

    Parameters
    ----------
    latents : array_like of shape (n, d)
        Rows that are not finite are left out.

    Returns
    -------
    float
        0 at least; 0 for fewer than two latents.

    Examples
    --------
    >>> round(total_correlation([[0, 0], [0, 1], [1, 0], [1, 1]]), 6)
    0.0
    """
    correlation = _correlations(latents)
    if len(correlation) < 2:
        return 0.0
    spectrum = np.maximum(np.linalg.eigvalsh(correlation), LEAST_EIGENVALUE)
    return max(0.0, float(-0.5 * np.sum(np.log(spectrum))))


def neighbour_total_correlation(
    latents: ArrayLike, *, n_neighbors: int = 5, max_rows: int = 2000, random_state: int = 0
) -> float:
    """Total correlation by nearest neighbours, in nats: dependence of any form, not only linear.

    The estimator of Gao et al. (2017) for several variables, which also holds where values
    repeat. It falls short where dimensions are many for the rows; compare models of equal size.

    Parameters
    ----------
    latents : array_like of shape (n, d)
        Rows that are not finite, and latents without variance, are left out.
    n_neighbors : int
    max_rows : int
        More rows are drawn from at random.
    random_state : int
        Of that draw.

    Returns
    -------
    float
        0 at least; 0 for fewer than two latents.

    References
    ----------
    Gao, Kannan, Oh and Viswanath, "Estimating mutual information for discrete-continuous
    mixtures" (NeurIPS 2017).

    Examples
    --------
    >>> x = np.linspace(-1, 1, 200)
    >>> z = np.column_stack([x, x**2])
    >>> total_correlation(z) < 1e-6, neighbour_total_correlation(z) > 1
    (True, True)
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    z = _varying(latents)
    if z.shape[1] < 2:
        return 0.0
    if len(z) > max_rows:
        z = z[np.random.default_rng(random_state).choice(len(z), max_rows, replace=False)]
    n, d = z.shape
    tree = cKDTree(z)
    k = min(n_neighbors, n - 1)
    radius = tree.query(z, k=k + 1, p=np.inf)[0][:, -1]
    # The rounding of a difference must not drop the neighbour that set the radius.
    reach = radius * (1 + 1e-12) + 1e-12
    equal = tree.query_ball_point(z, 1e-12, p=np.inf, return_length=True) - 1
    near = digamma(np.where(radius <= 1e-12, np.maximum(equal, k), k))
    inside = np.zeros(n)
    for column in z.T:
        ordered = np.sort(column)
        upto = np.searchsorted(ordered, column + reach, side="right")
        inside += np.log(upto - np.searchsorted(ordered, column - reach, side="left"))
    return max(0.0, float(np.mean(near - inside) + (d - 1) * np.log(n)))


def mean_correlation(latents: ArrayLike) -> float:
    """Mean absolute correlation over pairs of latents; those without variance are left out.

    Examples
    --------
    >>> round(mean_correlation([[0, 0], [1, -1], [2, -2]]), 6)
    1.0
    """
    correlation = np.abs(_correlations(latents))
    pairs = correlation[np.triu_indices(len(correlation), 1)]
    return float(pairs.mean()) if pairs.size else 0.0


def _varying(latents: ArrayLike) -> Floats:
    """Return the finite rows, standardised, without the latents that don't vary."""
    values = np.asarray(latents, dtype=float)
    if values.ndim != 2:
        raise InputError(f"the latents have the shape {values.shape}, expected (n, d)")
    values = values[np.isfinite(values).all(1)]
    if len(values) < 2:
        raise InputError(f"{len(values)} rows are finite; expected two at least")
    z = standardized(values)
    return z[:, z.any(0)]


def _correlations(latents: ArrayLike) -> Floats:
    z = _varying(latents)
    return np.clip(z.T @ z / len(z), -1.0, 1.0)
