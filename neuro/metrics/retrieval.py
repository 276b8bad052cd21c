"""Retrieval and identification: which of many candidates belongs to a prediction.

Everything rests on one matrix of similarities and, for every query, on two counts: how many wrong
candidates lie *ahead* of the right one and how many are *tied* with it. A published protocol that
draws its candidates at random (300 candidates, 30 draws) has a closed expectation: of ``n - 1``
wrong candidates drawn out of ``N - 1``, the number that lie ahead is hypergeometric, so that
``P(right one among the first k) = P(Hypergeometric(N - 1, ahead, n - 1) < k)``.

Ties. ``ties="shared"`` (the default) takes the expectation over a random order of the tied
candidates: half credit between two, chance for a prediction that says nothing. ``ties="worst"``
puts all tied candidates ahead.

References
----------
Scotti et al., "Reconstructing the Mind's Eye" (NeurIPS 2023): retrieval among 300 candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError
from neuro.metrics.similarity import BLOCK_BYTES, Similarity, blocks, compare_rows

__all__ = [
    "Ahead",
    "compare_rows",
    "count_ahead",
    "count_ahead_blocks",
    "drawn_top_k",
    "exact_top_k",
    "n_way_top_k",
    "pairwise",
    "pairwise_within",
    "ranks",
]

Ties = Literal["shared", "worst"]
Ahead = tuple[NDArray[np.intp], NDArray[np.intp]]


# ------------------------------------------------------------------------------------- counting


def count_ahead(scores: ArrayLike, right: ArrayLike | None = None) -> Ahead:
    """Count the wrong candidates that are ahead of the right one, and those tied with it.

    Parameters
    ----------
    scores : array_like of shape (n_query, n_candidate)
        Larger is more alike.
    right : array_like of int, shape (n_query,), optional
        Column of the right candidate of each query; by default that of its own row.

    Returns
    -------
    ahead, tied : ndarray of int, shape (n_query,)

    Raises
    ------
    InputError
        Where there is no right candidate for a query.
    DataError
        Where a score is NaN.

    Examples
    --------
    >>> ahead, tied = count_ahead([[0.5, 0.5, 0.9], [0.1, 0.7, 0.2], [0.0, 0.0, 0.0]])
    >>> ahead.tolist(), tied.tolist()
    ([1, 0, 0], [1, 0, 2])
    """
    scores = np.asarray(scores)
    own = _own(scores, right)
    ahead = np.empty(len(scores), np.intp)
    tied = np.empty(len(scores), np.intp)
    for rows in blocks(len(scores), scores.shape[1], BLOCK_BYTES):
        ahead[rows] = np.count_nonzero(scores[rows] > own[rows, None], axis=1)
        tied[rows] = np.count_nonzero(scores[rows] == own[rows, None], axis=1) - 1
    return ahead, tied


def _own(scores: NDArray[Any], right: ArrayLike | None) -> NDArray[Any]:
    """Score of the right candidate of each query; refuses what has none."""
    if scores.ndim != 2:
        raise InputError(f"scores have the shape {scores.shape}, expected (query, candidate)")
    if right is None and scores.shape[0] > scores.shape[1]:
        raise InputError(
            f"{scores.shape[0]} queries have {scores.shape[1]} candidates: name the right one of "
            "each query by 'right'"
        )
    columns = np.arange(len(scores)) if right is None else np.asarray(right)
    if columns.shape != (len(scores),) or np.any((columns < 0) | (columns >= scores.shape[1])):
        raise InputError(
            f"'right' must name one of {scores.shape[1]} candidates for each of {len(scores)} "
            "queries"
        )
    if np.isnan(scores).any():
        raise DataError("a similarity is NaN; retrieval needs finite numbers")
    return scores[np.arange(len(scores)), columns]


def count_ahead_blocks(
    queries: Any,
    candidates: Any,
    right: ArrayLike | None = None,
    *,
    similarity: Similarity = "cosine",
    block: int = 4096,
) -> Ahead:
    """Count as `count_ahead` without holding the whole matrix of similarities.

    Parameters
    ----------
    queries : array_like of shape (n_query, ...)
    candidates : array_like of shape (n_candidate, ...)
        May be a memory map; blocks of its rows are read one after another, twice.
    right : array_like of int, shape (n_query,), optional
    similarity : {"cosine", "correlation", "dot"}
    block : int
        Candidates at a time.

    Returns
    -------
    ahead, tied : ndarray of int, shape (n_query,)

    Examples
    --------
    >>> count_ahead_blocks(np.eye(3), np.eye(3), block=2)[0].tolist()
    [0, 0, 0]
    """
    right = np.arange(len(queries)) if right is None else np.asarray(right)
    if len(right) != len(queries) or np.any((right < 0) | (right >= len(candidates))):
        raise InputError(f"'right' must name one of {len(candidates)} candidates for each query")
    own = np.full(len(queries), np.nan, np.float32)
    # The right one's score comes from the same product as all others, so that ties are ties.
    for rows, scores in _row_blocks(queries, candidates, similarity, block):
        here = np.flatnonzero((right >= rows.start) & (right < rows.stop))
        own[here] = scores[here, right[here] - rows.start]
    ahead, tied = np.zeros(len(queries), np.intp), np.full(len(queries), -1, np.intp)
    for _, scores in _row_blocks(queries, candidates, similarity, block):
        ahead += np.count_nonzero(scores > own[:, None], axis=1)
        tied += np.count_nonzero(scores == own[:, None], axis=1)
    return ahead, tied


def _row_blocks(
    queries: Any, candidates: Any, similarity: Similarity, block: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for start in range(0, len(candidates), block):
        rows = slice(start, min(start + block, len(candidates)))
        yield rows, compare_rows(queries, candidates[rows], similarity=similarity)


def ranks(scores: ArrayLike, right: ArrayLike | None = None) -> NDArray[np.float64]:
    """Rank the right candidate, 1 the best; tied candidates share the mean of their ranks.

    Examples
    --------
    >>> ranks([[0.5, 0.5, 0.9]], [0]).tolist()
    [2.5]
    """
    ahead, tied = count_ahead(scores, right)
    return 1.0 + ahead + tied / 2


# -------------------------------------------------------------------------------------- retrieval


def exact_top_k(
    ahead: ArrayLike,
    tied: ArrayLike | None = None,
    *,
    n_candidates: int,
    n: int | None = None,
    k: int = 1,
    ties: Ties = "shared",
) -> NDArray[np.float64]:
    """Probability that the right one is among the best `k` of `n` drawn candidates.

    The right candidate and ``n - 1`` of the ``n_candidates - 1`` wrong ones are drawn without
    replacement. The mean over queries is the expectation of the published protocol; no draw is
    made.

    Parameters
    ----------
    ahead, tied : array_like of int, shape (n_query,)
        From `count_ahead`.
    n_candidates : int
        All candidates N, the right one included.
    n : int, optional
        Candidates of a draw; all of them by default.
    k : int
    ties : {"shared", "worst"}
        See the top of the module.

    Returns
    -------
    ndarray of shape (n_query,)

    Raises
    ------
    InputError
        Where `n` is larger than `n_candidates`, or `k` is not in 1..n.

    Examples
    --------
    >>> exact_top_k([0, 1, 3], n_candidates=4, n=2).round(3).tolist()
    [1.0, 0.667, 0.0]
    >>> float(exact_top_k([0], [3], n_candidates=4)[0])  # all tied: chance
    0.25
    """
    first: NDArray[np.intp] = np.asarray(ahead, dtype=np.intp)
    same = np.zeros_like(first) if tied is None else np.asarray(tied, dtype=np.intp)
    n = n_candidates if n is None else n
    _check_draw(n, k, n_candidates)
    if ties not in ("shared", "worst"):
        raise InputError(f"ties '{ties}' is not known: use shared or worst")
    if np.any(first < 0) or np.any(same < 0) or np.any(first + same >= n_candidates):
        raise InputError(f"more candidates are ahead than there are ({n_candidates} candidates)")
    if ties == "worst":
        first, same = first + same, np.zeros_like(same)
    # P(top k) by the number ahead, then its mean over the places that a random order may give.
    table = _top_k_table(int((first + same).max(initial=0)), n_candidates, n, k)
    total = np.concatenate([[0.0], np.cumsum(table)])
    mean = (total[first + same + 1] - total[first]) / (same + 1)
    return np.where(same == 0, table[first], mean)


def _top_k_table(most: int, n_candidates: int, n: int, k: int) -> NDArray[np.float64]:
    from scipy.stats import hypergeom

    return np.asarray(
        hypergeom.cdf(k - 1, n_candidates - 1, np.arange(most + 1), n - 1), dtype=float
    )


def _check_draw(n: int, k: int, n_candidates: int) -> None:
    if not 1 <= n <= n_candidates:
        raise InputError(f"{n} candidates can't be drawn from {n_candidates}: lower n")
    if not 1 <= k <= n:
        raise InputError(f"k is {k}, expected a number from 1 to n = {n}")


def drawn_top_k(
    scores: ArrayLike,
    *,
    n: int = 300,
    k: int = 1,
    draws: int = 30,
    random_state: int = 0,
    ties: Ties = "shared",
) -> NDArray[np.float64]:
    """Retrieval by the published protocol: repeated random draws of items.

    `n` items are drawn; their queries are held against their candidates. Expectation over draws:
    the mean of `exact_top_k`. Kept for comparison; it needs `scores` to be square.

    Parameters
    ----------
    scores : array_like of shape (n_item, n_item)
        The right candidate of a row is that on the diagonal; transpose for the other direction.
    n, k, draws : int
    random_state : int
    ties : {"shared", "worst"}

    Returns
    -------
    ndarray of shape (draws,)
        Accuracy of each draw.

    Examples
    --------
    >>> drawn_top_k(np.eye(5), n=3, draws=2).tolist()
    [1.0, 1.0]
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise InputError(f"scores have the shape {scores.shape}, expected a square matrix")
    _check_draw(n, k, len(scores))
    rng = np.random.default_rng(random_state)
    accuracy = np.empty(draws)
    for draw in range(draws):
        items = rng.choice(len(scores), n, replace=False)
        ahead, tied = count_ahead(scores[np.ix_(items, items)])
        accuracy[draw] = exact_top_k(ahead, tied, n_candidates=n, k=k, ties=ties).mean()
    return accuracy


def n_way_top_k(
    scores: ArrayLike, labels: ArrayLike, *, n: int, k: int = 1, ties: Ties = "shared"
) -> NDArray[np.float64]:
    """n-way top-k classification in closed form.

    The right class and ``n - 1`` others drawn at random; the probability that the right one is
    among the best `k`.

    Parameters
    ----------
    scores : array_like of shape (n_item, n_class)
        Of a classifier, for example over 1,000 classes.
    labels : array_like of int, shape (n_item,)
        The right class.
    n, k : int
    ties : {"shared", "worst"}

    Returns
    -------
    ndarray of shape (n_item,)

    Examples
    --------
    >>> n_way_top_k([[0.5, 0.3, 0.2]], [1], n=2).tolist()
    [0.5]
    """
    scores = np.asarray(scores)
    ahead, tied = count_ahead(scores, labels)
    return exact_top_k(ahead, tied, n_candidates=scores.shape[1], n=n, k=k, ties=ties)


# --------------------------------------------------------------------------------- identification


def pairwise(
    scores: ArrayLike, right: ArrayLike | None = None, *, ties: Ties = "shared"
) -> NDArray[np.float64]:
    """Two-way identification: share of wrong candidates that the right one beats (chance 0.5).

    Parameters
    ----------
    scores : array_like of shape (n_query, n_candidate)
    right : array_like of int, shape (n_query,), optional
    ties : {"shared", "worst"}
        Half credit for a tie, or none.

    Returns
    -------
    ndarray of shape (n_query,)

    Examples
    --------
    >>> pairwise([[0.5, 0.5, 0.9], [0.1, 0.7, 0.2], [0.0, 0.0, 0.0]]).tolist()
    [0.25, 1.0, 0.5]
    """
    scores = np.asarray(scores)
    if scores.ndim == 2 and scores.shape[1] < 2:
        raise InputError("two-way identification needs two candidates or more")
    ahead, tied = count_ahead(scores, right)
    credit = 0.5 if ties == "shared" else 1.0
    return 1.0 - (ahead + credit * tied) / (scores.shape[1] - 1)


def pairwise_within(
    scores: ArrayLike, classes: ArrayLike, *, ties: Ties = "shared"
) -> NDArray[np.float64]:
    """Two-way identification among candidates of the item's own class only.

    Parameters
    ----------
    scores : array_like of shape (n_item, n_item)
    classes : array_like of shape (n_item,)
    ties : {"shared", "worst"}

    Returns
    -------
    ndarray of shape (n_item,)
        NaN where an item is the only one of its class.

    Examples
    --------
    >>> pairwise_within(np.eye(3), ["a", "a", "b"]).tolist()
    [1.0, 1.0, nan]
    """
    scores, classes = np.asarray(scores), np.asarray(classes)
    if scores.shape != (len(classes), len(classes)):
        raise InputError(
            f"scores have the shape {scores.shape}, expected ({len(classes)}, {len(classes)}) "
            "as there are classes"
        )
    share = np.full(len(classes), np.nan)
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        if len(members) > 1:
            share[members] = pairwise(scores[np.ix_(members, members)], ties=ties)
    return share
