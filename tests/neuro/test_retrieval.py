"""Retrieval: the closed forms equal brute force over all subsets; ties are fair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from neuro.errors import DataError, InputError
from neuro.metrics import (
    compare_rows,
    count_ahead,
    count_ahead_blocks,
    drawn_top_k,
    exact_top_k,
    n_way_top_k,
    pairwise,
    pairwise_within,
    ranks,
)


def tie_credit(row: np.ndarray, right: int, others: tuple[int, ...], k: int, ties: str) -> float:
    """Chance that the right one is among the first k of {right} + others, written out."""
    ahead = sum(row[j] > row[right] for j in others)
    tied = sum(row[j] == row[right] for j in others)
    if ties == "worst":
        return float(ahead + tied < k)
    return float(np.mean([ahead + place < k for place in range(tied + 1)]))


@given(st.integers(0, 200), st.integers(2, 7), st.booleans(), st.sampled_from(["shared", "worst"]))
@settings(max_examples=60, deadline=None)
def test_exact_top_k_is_the_mean_over_all_subsets(seed, size, coarse, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (size, size)) if coarse else rng.standard_normal((size, size))
    ahead, tied = count_ahead(scores)
    n = int(rng.integers(1, size + 1))
    k = int(rng.integers(1, n + 1))
    exact = exact_top_k(ahead, tied, n_candidates=size, n=n, k=k, ties=ties)
    for i in range(size):
        wrong = [j for j in range(size) if j != i]
        brute = [tie_credit(scores[i], i, s, k, ties) for s in combinations(wrong, n - 1)]
        assert exact[i] == pytest.approx(np.mean(brute), abs=1e-12)


def test_exact_is_the_expectation_of_the_drawn_protocol():
    rng = np.random.default_rng(0)
    scores = np.eye(120) * 2.2 + rng.standard_normal((120, 120))
    exact = exact_top_k(*count_ahead(scores), n_candidates=120, n=40).mean()
    drawn = drawn_top_k(scores, n=40, draws=400)
    assert abs(drawn.mean() - exact) < 3 * drawn.std() / np.sqrt(400)


def test_a_prediction_that_says_nothing_is_at_chance():
    scores = np.zeros((50, 50))
    ahead, tied = count_ahead(scores)
    assert_allclose(exact_top_k(ahead, tied, n_candidates=50, n=10), 0.1)
    assert_allclose(exact_top_k(ahead, tied, n_candidates=50, n=10, ties="worst"), 0.0)
    assert_allclose(pairwise(scores), 0.5)
    assert_allclose(pairwise(scores, ties="worst"), 0.0)
    assert_allclose(ranks(scores), 25.5)


def test_pairwise_is_the_loop():
    scores = np.random.default_rng(1).integers(0, 4, (12, 12)).astype(float)
    loop = [
        np.mean([(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in range(12) if j != i])
        for i, s in enumerate(scores)
    ]
    assert_allclose(pairwise(scores), loop)


def test_within_counts_only_the_own_class():
    scores = np.random.default_rng(2).standard_normal((9, 9))
    classes = np.array(list("aaaabbbbc"))
    within = pairwise_within(scores, classes)
    assert_allclose(within[:4], pairwise(scores[:4, :4]))
    assert np.isnan(within[8])
    with pytest.raises(InputError, match="as there are classes"):
        pairwise_within(scores, classes[:-1])


def test_several_queries_may_share_a_candidate():
    scores = np.array([[3.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    assert count_ahead(scores, [0, 0, 1])[0].tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="'right'"):
        count_ahead(scores)
    with pytest.raises(InputError, match="2 candidates"):
        count_ahead(scores, [0, 0, 2])


@pytest.mark.parametrize("similarity", ["cosine", "correlation", "dot"])
def test_compare_rows_in_blocks(similarity, tmp_path):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((5, 3, 40)) + 1, rng.standard_normal((7, 3, 40)) + 1
    np.save(tmp_path / "b.npy", b.astype(np.float32))
    mapped = np.load(tmp_path / "b.npy", mmap_mode="r")
    found = compare_rows(a, mapped, similarity=similarity, block_bytes=900)
    a, b = a.reshape(5, -1), b.reshape(7, -1)
    expected = np.corrcoef(a, b)[:5, 5:] if similarity == "correlation" else a @ b.T
    if similarity == "cosine":
        expected /= np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


def test_rows_without_direction_are_tied_with_all():
    rows = np.vstack([np.full(100, 0.1), np.random.default_rng(0).standard_normal(100)])
    assert_array_equal(compare_rows(rows, rows, similarity="correlation")[0], 0)
    assert_array_equal(compare_rows(np.zeros((1, 100)), rows)[0], 0)


def test_counting_in_blocks_is_counting():
    rng = np.random.default_rng(4)
    candidates = rng.standard_normal((90, 16)).astype(np.float16)
    right = rng.integers(0, 90, 20)
    queries = candidates[right].astype(np.float32) + rng.standard_normal((20, 16))
    whole = count_ahead(compare_rows(queries, candidates), right)
    for found, expected in zip(
        count_ahead_blocks(queries, candidates, right, block=13), whole, strict=True
    ):
        assert_array_equal(found, expected)


def test_n_way_is_the_mean_over_drawn_classes():
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((4, 6))
    labels = np.array([0, 5, 2, 2])
    exact = n_way_top_k(scores, labels, n=3, k=2)
    for i, label in enumerate(labels):
        wrong = [c for c in range(6) if c != label]
        brute = [tie_credit(scores[i], label, s, 2, "shared") for s in combinations(wrong, 2)]
        assert exact[i] == pytest.approx(np.mean(brute))


def test_wrong_questions_are_refused():
    with pytest.raises(InputError, match="can't be drawn"):
        exact_top_k([0], n_candidates=5, n=6)
    with pytest.raises(InputError, match="k is 0"):
        exact_top_k([0], n_candidates=5, k=0)
    with pytest.raises(InputError, match="more candidates"):
        exact_top_k([5], n_candidates=5)
    with pytest.raises(InputError, match="ties"):
        exact_top_k([0], n_candidates=5, ties="kind")
    with pytest.raises(InputError, match="same space"):
        compare_rows(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(DataError, match="NaN"):
        compare_rows(np.full((2, 3), np.nan), np.ones((2, 3)))
    with pytest.raises(DataError, match="NaN"):
        count_ahead(np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="square"):
        drawn_top_k(np.ones((2, 3)), n=2)
