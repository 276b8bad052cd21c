"""Mutual information between one-dimensional latents and classes: plug-in and nearest neighbours.

References
----------
Ross, "Mutual information between discrete and continuous data sets" (PLoS ONE 2014).
Gao et al., "Estimating mutual information for discrete-continuous mixtures" (NeurIPS 2017): the
rule for values that occur often.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.metrics.factors import Factor, Floats, Ints

LATENT_BINS = 20
N_NEIGHBORS = 10


def entropy(codes: ArrayLike) -> float:
    """Plug-in entropy of class numbers, in nats.

    Examples
    --------
    >>> round(entropy([0, 1, 0, 1]), 4)
    0.6931
    """
    counts = np.unique(np.asarray(codes), return_counts=True)[1]
    share = counts / counts.sum()
    return float(-np.sum(share * np.log(share)))


def plug_in_information(codes: ArrayLike, classes: ArrayLike) -> float:
    """Mutual information of two columns of class numbers by their joint counts, in nats.

    Examples
    --------
    >>> round(plug_in_information([0, 0, 1, 1], [5, 5, 7, 7]), 4)
    0.6931
    """
    a, b = (np.unique(np.asarray(c), return_inverse=True)[1].reshape(-1) for c in (codes, classes))
    shape = int(a.max()) + 1, int(b.max()) + 1
    counts = np.bincount(a * shape[1] + b, minlength=shape[0] * shape[1])
    joint = counts.reshape(shape) / len(a)
    apart = joint.sum(1)[:, None] * joint.sum(0)
    full = joint > 0
    return max(0.0, float(np.sum(joint[full] * np.log(joint[full] / apart[full]))))


def neighbour_information(
    values: ArrayLike, classes: ArrayLike, n_neighbors: int = N_NEIGHBORS
) -> float:
    """Mutual information of a continuous column and classes by nearest neighbours, in nats.

    On values that are all different it is the estimator of
    ``sklearn.feature_selection.mutual_info_classif``, with exact distances. Where more than
    `n_neighbors` rows of a class have the same value, those rows are counted instead of being
    parted by random noise, so that the result has no seed.

    Parameters
    ----------
    values : array_like of shape (n,)
    classes : array_like of int, shape (n,)
        Classes with one row are left out.
    n_neighbors : int

    Returns
    -------
    float
        0 at least.
    """
    from scipy.special import digamma

    x, codes = np.asarray(values, dtype=float), np.asarray(classes)
    codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(codes)
    several = sizes[codes] > 1
    x, codes = x[several], codes[several]
    if len(x) == 0:
        return 0.0
    order = np.lexsort((x, codes))  # by class, then by value
    x, codes = x[order], codes[order]
    size = sizes[codes]
    radius, neighbours = _class_radius(x, size, n_neighbors)
    within = _strictly_within(x, radius)
    tied = radius == 0
    own = _equal_in_class(x, codes)
    neighbours = np.where(tied, own - 1, neighbours)
    within = np.where(tied, _equal(x) - 1, within)
    information = digamma(len(x)) + np.mean(digamma(neighbours) - digamma(size) - digamma(within))
    return max(0.0, float(information))


def latent_codes(latents: Floats, quantized: bool, n_bins: int = LATENT_BINS) -> Ints:
    """Number the values of each latent: its own where quantised, else bins of equal width.

    Returns
    -------
    ndarray of int, shape (n, d)
    """
    if quantized:
        codes = [np.unique(z, return_inverse=True)[1].reshape(-1) for z in latents.T]
        return np.stack(codes, axis=1).astype(np.intp)
    low, width = latents.min(0), np.ptp(latents, axis=0)
    share = (latents - low) / np.where(width > 0, width, 1.0)
    return np.minimum(share * n_bins, n_bins - 1).astype(np.intp)


def information_matrix(
    latents: Floats,
    factors: Sequence[Factor],
    *,
    quantized: bool = False,
    n_neighbors: int | None = None,
) -> tuple[Floats, Floats]:
    """Mutual information of every factor and latent, and the entropy of every factor.

    Parameters
    ----------
    latents : ndarray of shape (n, d)
    factors : sequence of Factor
        From `neuro.metrics.factors.clean`.
    quantized : bool
        The latents take few values: their own are counted.
    n_neighbors : int, optional
        Estimate continuous latents by so many nearest neighbours; by default by 20 bins.

    Returns
    -------
    information : ndarray of shape (k, d)
        In nats.
    entropies : ndarray of shape (k,)
    """
    codes = latent_codes(latents, quantized)
    information = np.zeros((len(factors), latents.shape[1]))
    for i, factor in enumerate(factors):
        for j in range(latents.shape[1]):
            if quantized or n_neighbors is None:
                value = plug_in_information(codes[factor.rows, j], factor.classes)
            else:
                value = neighbour_information(latents[factor.rows, j], factor.classes, n_neighbors)
            information[i, j] = value
    return information, np.array([entropy(factor.classes) for factor in factors])


# ------------------------------------------------------------------------------------- inside


def _class_radius(x: Floats, size: Ints, n_neighbors: int) -> tuple[Floats, Ints]:
    """Distance to the k-th neighbour of the same class, for x sorted inside each class.

    In one dimension the k neighbours and the point itself are k + 1 consecutive values, so that
    only k + 1 windows have to be looked at.
    """
    n = len(x)
    starts = np.arange(n) - _place_in_run(size)
    k = np.minimum(n_neighbors, size - 1)
    radius = np.full(n, np.inf)
    for back in range(int(k.max()) + 1):
        first = np.arange(n) - back
        last = first + k
        inside = (back <= k) & (first >= starts) & (last < starts + size)
        spread = np.maximum(x - x[np.maximum(first, 0)], x[np.minimum(last, n - 1)] - x)
        radius = np.where(inside, np.minimum(radius, spread), radius)
    return radius, k


def _place_in_run(size: Ints) -> Ints:
    """Position inside the class, for rows sorted by class with the class size in every row."""
    place = np.zeros(len(size), dtype=np.intp)
    start = 0
    while start < len(size):
        stop = start + int(size[start])
        place[start:stop] = np.arange(stop - start)
        start = stop
    return place


def _strictly_within(x: Floats, radius: Floats) -> Ints:
    """Count the values closer than the radius, the point itself included."""
    levels, counts = np.unique(x, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    low = np.searchsorted(levels, x - radius, side="right")
    high = np.searchsorted(levels, x + radius, side="left")
    last = len(levels) - 1
    # x - radius is rounded; the differences that made the radius were not. Mend the ends.
    for _ in range(3):
        low = low + ((low <= last) & (x - levels[np.minimum(low, last)] >= radius))
        low = low - ((low > 0) & (x - levels[np.maximum(low - 1, 0)] < radius))
        high = high - ((high > 0) & (levels[np.maximum(high - 1, 0)] - x >= radius))
        high = high + ((high <= last) & (levels[np.minimum(high, last)] - x < radius))
    return np.maximum(before[np.clip(high, 0, last + 1)] - before[np.clip(low, 0, last)], 1)


def _equal(x: NDArray[np.generic]) -> Ints:
    """Count, for every row, the rows of the same value."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return counts[inverse.reshape(-1)].astype(np.intp)


def _equal_in_class(x: Floats, codes: Ints) -> Ints:
    levels = np.unique(x, return_inverse=True)[1].reshape(-1)
    return _equal(codes * (int(levels.max()) + 1) + levels)
