"""Verification: do two records come from the same source? AUC and EER over all pairs.

The score of a pair is the cosine distance of its codes; "different source" is the positive class.
All pairs of n records are an n x n matrix (20 GB for 50,000 records in double precision); here
they are counted block by block into a fine histogram, whose bins are about as wide as the rounding
error of a distance in single precision, so that nothing is lost by binning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

__all__ = [
    "Verification",
    "auc_eer",
    "count_source_pairs",
    "resampled",
    "score_auc_eer",
    "verify_pairs",
]

BINS = 1 << 24  # of the distances 0 to 2: 1.2e-7 each
_ROWS = 4096  # records compared at once
_FEW = 1500  # records whose distances are sorted, which is quicker than going through all bins

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Verification:
    """What the pairs of records show.

    Attributes
    ----------
    auc : float
        Probability that a pair of different sources is farther apart than one of the same.
    eer : float
        The rate at which as many same pairs are rejected as different ones accepted.
    threshold : float
        The distance at which that happens.
    n_same, n_different : int
        Pairs.
    """

    auc: float
    eer: float
    threshold: float
    n_same: int
    n_different: int


def verify_pairs(codes: ArrayLike, source: ArrayLike, *, block_rows: int = _ROWS) -> Verification:
    """Score all pairs of records.

    Parameters
    ----------
    codes : array_like of shape (record, latent)
    source : array_like, shape (record,)
        The device of each record.
    block_rows : int
        Records compared at once: memory is ``12 * block_rows ** 2`` bytes and 0.6 GB.

    Returns
    -------
    Verification

    Raises
    ------
    DataError
        Where there is no pair of one kind, or codes hold NaN.

    Examples
    --------
    >>> found = verify_pairs([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], ["a", "a", "b", "b"])
    >>> found.auc, found.eer, found.n_same, found.n_different
    (1.0, 0.0, 2, 4)
    """
    unit, names, number = _checked(codes, source)
    if len(unit) <= min(_FEW, block_rows):
        return _sorted_pairs(unit, names, number)
    same, different = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for rows, columns in _blocks(len(unit), block_rows):
        bins = _bins(unit[rows], unit[columns], BINS)
        alike = number[rows][:, None] == number[columns]
        wanted = _upper(rows, columns)
        for counts, chosen in ((same, alike), (different, ~alike)):
            np.add(counts, np.bincount(bins[chosen & wanted], minlength=BINS), out=counts)
    _check_kinds(len(unit), len(names), bool(same.any()), bool(different.any()))
    auc, eer, place = auc_eer(same, different)
    return Verification(
        float(auc), float(eer), float(place) * 2 / BINS, int(same.sum()),
        int(different.sum()),
    )  # fmt: skip


def _check_kinds(n_records: int, n_sources: int, same: bool, different: bool) -> None:
    if not same or not different:
        raise DataError(
            f"{n_records} records of {n_sources} sources make no pair of "
            f"{'different' if same else 'the same'} source; nothing to verify"
        )


def _sorted_pairs(unit: Any, names: Any, number: Any) -> Verification:
    first, second = np.triu_indices(len(unit), 1)
    different = number[first] != number[second]
    _check_kinds(len(unit), len(names), not different.all(), bool(different.any()))
    distance = np.maximum(1 - unit @ unit.T, 0)[first, second]
    auc, eer, threshold = score_auc_eer(distance, different)
    n_different = int(different.sum())
    return Verification(auc, eer, threshold, len(first) - n_different, n_different)


def count_source_pairs(codes: ArrayLike, source: ArrayLike, n_bins: int = 4096) -> Counts:
    """Count the distances of records between every two sources, for a bootstrap over sources.

    Parameters
    ----------
    codes : array_like of shape (record, latent)
    source : array_like, shape (record,)
    n_bins : int
        Of the distances 0 to 2.

    Returns
    -------
    ndarray of float, shape (source, source, n_bins)
        Pairs of distinct records, each counted once: upper triangle, sources in sorted order.
    """
    unit, names, number = _checked(codes, source)
    found = np.zeros(len(names) ** 2 * n_bins)
    for rows, columns in _blocks(len(unit), _ROWS):
        wanted = _upper(rows, columns)
        low = np.minimum(number[rows][:, None], number[columns])
        high = np.maximum(number[rows][:, None], number[columns])
        cell = (low * len(names) + high) * n_bins + _bins(unit[rows], unit[columns], n_bins)
        found += np.bincount(cell[wanted], minlength=len(found))
    return found.reshape(len(names), len(names), n_bins)


def resampled(pairs: Counts, weights: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AUC and EER of bootstrap samples over sources.

    A source drawn twice enters with two copies; pairs between copies of one source are left out,
    since a record is no evidence about itself.

    Parameters
    ----------
    pairs : ndarray, shape (source, source, bin)
        From `count_source_pairs`.
    weights : array_like, shape (n_boot, source)
        How often each source enters a sample.

    Returns
    -------
    auc, eer : ndarray, shape (n_boot,)
        NaN where a sample has one source only.
    """
    drawn = np.asarray(weights, float)
    n = len(pairs)
    first, second = np.triu_indices(n, 1)
    same = drawn @ pairs[np.arange(n), np.arange(n)]
    auc, eer = np.full(len(drawn), np.nan), np.full(len(drawn), np.nan)
    between = pairs[first, second]
    for start in range(0, len(drawn), 64):  # sample x bin arrays of a few MB
        rows = slice(start, start + 64)
        different = (drawn[rows][:, first] * drawn[rows][:, second]) @ between
        known = (different.sum(1) > 0) & (same[rows].sum(1) > 0)
        found = auc_eer(same[rows][known], different[known])
        auc[rows][known], eer[rows][known] = found[0], found[1]
    return auc, eer


def auc_eer(
    same: NDArray[np.number], different: NDArray[np.number]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute AUC and EER from histograms of distances.

    Parameters
    ----------
    same, different : ndarray, shape (..., bin)
        Pairs of the same source and of different ones by distance. Pairs in one bin are tied.

    Returns
    -------
    auc, eer : ndarray, shape (...)
        The EER is the root of ``1 - x - TPR(x)`` on the ROC, whose points are joined by lines.
    place : ndarray, shape (...)
        The bin of that point.

    Examples
    --------
    >>> auc, eer, place = auc_eer(np.array([3, 1, 0]), np.array([0, 1, 3]))
    >>> float(auc), float(eer)
    (0.96875, 0.125)
    """
    # Rejection at or above each bin: from none (past the last) to all (the first).
    reject_same = _from_above(same)
    reject_different = _from_above(different)
    fpr, tpr = reject_same / reject_same[..., :1], reject_different / reject_different[..., :1]
    steps = -np.diff(fpr, axis=-1)
    auc = (steps * (tpr[..., :-1] + tpr[..., 1:]) / 2).sum(-1)
    gap = fpr + tpr - 1  # falls from 1 to -1
    last = np.maximum((gap >= 0).sum(-1) - 1, 0)
    ahead, behind = (np.take_along_axis(gap, k[..., None], -1)[..., 0] for k in (last, last + 1))
    share = ahead / np.maximum(ahead - behind, 1e-300)
    edges = [np.take_along_axis(fpr, k[..., None], -1)[..., 0] for k in (last, last + 1)]
    return auc, edges[0] + share * (edges[1] - edges[0]), last + share


def score_auc_eer(scores: ArrayLike, positive: ArrayLike) -> tuple[float, float, float]:
    """Compute AUC, EER and its threshold of plain scores, exactly.

    Parameters
    ----------
    scores : array_like of shape (n,)
        Larger speaks for the positive class.
    positive : array_like of bool, shape (n,)

    Returns
    -------
    auc, eer, threshold : float

    Raises
    ------
    DataError
        Where one class is missing.

    Examples
    --------
    >>> score_auc_eer([0.1, 0.4, 0.35, 0.8], [False, False, True, True])[:2]
    (0.75, 0.5)
    """
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise DataError("scores of one class only have no AUC: both are needed")
    values, place = np.unique(scores, return_inverse=True)
    n = len(values)
    auc, eer, at = auc_eer(
        np.bincount(place[~positive], minlength=n), np.bincount(place[positive], minlength=n)
    )
    # Edge k calls value k and all above it positive: the threshold lies between k - 1 and k.
    edge = round(float(at))
    low, high = values[min(max(edge - 1, 0), n - 1)], values[min(edge, n - 1)]
    return float(auc), float(eer), float((low + high) / 2)


def _from_above(counts: NDArray[np.number]) -> NDArray[np.float64]:
    total = np.cumsum(counts[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1]
    return np.concatenate([total, np.zeros((*total.shape[:-1], 1))], axis=-1)


def _checked(
    codes: ArrayLike, source: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.str_], NDArray[np.intp]]:
    values = np.asarray(codes, np.float32)
    names, number = np.unique(np.asarray(source), return_inverse=True)
    if values.ndim != 2 or len(values) != len(number):
        raise InputError(
            f"codes of the shape {values.shape} and {len(number)} sources don't belong together; "
            "expected (record, latent) and one source for each record"
        )
    if not np.isfinite(values).all():
        raise DataError("codes hold NaN or infinity")
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, 1e-30), names, number


def _blocks(n: int, step: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, n, step):
        for left in range(top, n, step):
            yield slice(top, min(top + step, n)), slice(left, min(left + step, n))


def _upper(rows: slice, columns: slice) -> NDArray[np.bool_]:
    return np.arange(rows.start, rows.stop)[:, None] < np.arange(columns.start, columns.stop)


def _bins(a: NDArray[np.float32], b: NDArray[np.float32], n_bins: int) -> NDArray[np.int32]:
    distance = 1 - a @ b.T
    return np.clip(distance * np.float32(n_bins / 2), 0, n_bins - 1).astype(np.int32)
