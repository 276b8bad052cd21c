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


def _correlations(latents: ArrayLike) -> Floats:
    values = np.asarray(latents, dtype=float)
    if values.ndim != 2:
        raise InputError(f"the latents have the shape {values.shape}, expected (n, d)")
    values = values[np.isfinite(values).all(1)]
    if len(values) < 2:
        raise InputError(f"{len(values)} rows are finite; expected two at least")
    z = standardized(values)
    z = z[:, z.any(0)]
    return np.clip(z.T @ z / len(z), -1.0, 1.0)
