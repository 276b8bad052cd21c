"""UDR against closed forms, the definition with scikit-learn and SciPy, and its laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso

from neuro.errors import InputError
from neuro.metrics.udr import latent_stability, match_latents, udr


def factorial(levels: int = 4, d: int = 3) -> np.ndarray:
    """Every combination of levels: columns whose correlations are exactly 0."""
    return np.array(list(itertools.product(range(levels), repeat=d)), dtype=float)


def entangled(n_models: int = 4, n: int = 400, d: int = 4) -> list[np.ndarray]:
    """Return random rotations of the same factors."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(n, d))
    return [sources @ np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(n_models)]


def plain_udr(latents, kl, method):
    """The definition, written out pair by pair."""
    n_models = len(latents)
    pairwise = np.zeros((n_models, n_models))
    z = [(x - x.mean(0)) / x.std(0) * (k > 0.01) for x, k in zip(latents, kl, strict=True)]
    for i, j in itertools.permutations(range(n_models), 2):
        if method == "lasso":
            model = Lasso(alpha=0.1, tol=1e-12, max_iter=100_000).fit(z[i], z[j])
            strength = np.abs(np.atleast_2d(model.coef_)).T
        else:
            strength = np.array(
                [[abs(spearmanr(a, b).statistic) for b in latents[j].T] for a in latents[i].T]
            )
        strength = strength[kl[i] > 0.01][:, kl[j] > 0.01]
        parts = []
        for axis in (0, 1):
            with np.errstate(invalid="ignore"):
                ratio = strength.max(axis) ** 2 / strength.sum(axis)
            parts.append(np.nan_to_num(ratio).mean())
        pairwise[i, j] = np.mean(parts)
    scores = [np.median(np.delete(pairwise[:, i], i)) for i in range(n_models)]
    return np.array(scores), pairwise


@pytest.mark.parametrize(("method", "expected"), [("spearman", 1.0), ("lasso", 0.9)])
@given(order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_copies_give_the_closed_form(method, expected, order, signs):
    z = factorial()
    copy = z[:, order] * signs
    scores, pairwise = udr([z, copy, z], [np.ones(3)] * 3, method=method)
    assert_allclose(scores, expected, atol=1e-9)
    assert_allclose(pairwise, expected * (1 - np.eye(3)), atol=1e-9)


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_equals_the_definition(method):
    latents = entangled()
    kl = [np.array([1.0, 0.5, 0.2, 0.005]), np.ones(4), np.full(4, 0.02), np.ones(4)]
    expected = plain_udr(latents, kl, method)
    scores, pairwise = udr(latents, kl, method=method)
    assert_allclose(pairwise, expected[1], atol=1e-6)
    assert_allclose(scores, expected[0], atol=1e-6)


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_unrelated_and_entangled_models_score_below_copies(method):
    rng = np.random.default_rng(1)
    unrelated = [rng.normal(size=(1000, 4)) for _ in range(4)]
    assert udr(unrelated, [np.ones(4)] * 4, method=method)[0].max() < 0.1
    assert udr(entangled(), [np.ones(4)] * 4, method=method)[0].max() < 0.7


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_collapsed_models_score_zero(method):
    z = factorial()
    scores, pairwise = udr([z, z, z], [np.zeros(3), np.ones(3), np.ones(3)], method=method)
    assert scores[0] == 0
    assert not pairwise[0].any()
    assert scores[1] == scores[2] > 0.4  # the median of one match and one collapsed model
    nothing, _ = udr([z * 0, z * 0], [np.ones(3)] * 2, method=method)  # KL from the variance alone
    assert nothing.tolist() == [0, 0]


def test_a_dropped_latent_is_as_good_as_absent():
    z = factorial()
    wide = np.column_stack([z, np.random.default_rng(0).normal(size=len(z))])
    kl = [np.ones(3), np.array([1, 1, 1, 0.0])]
    assert_allclose(udr([z, wide], kl, method="spearman")[0], 1)


def test_the_lasso_is_not_symmetric():
    z = factorial()
    mixed = np.column_stack([z[:, 0] + z[:, 1], z[:, 1], z[:, 2] + z[:, 0]])
    _, pairwise = udr([z, mixed], [np.ones(3)] * 2)
    assert abs(pairwise[0, 1] - pairwise[1, 0]) > 1e-3


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 12),
    d=st.integers(1, 5),
    method=st.sampled_from(["lasso", "spearman"]),
    scale=st.sampled_from([1e-200, 1.0, 1e200]),
)
def test_scores_are_always_numbers_between_0_and_1(seed, n, d, method, scale):
    rng = np.random.default_rng(seed)
    latents = [np.round(rng.normal(size=(n, d)), 1) * scale for _ in range(3)]
    latents[0][:, 0] = 0.3  # constant
    latents[1] = np.repeat(latents[1][:, :1], d, axis=1)  # duplicated
    kl = [rng.choice([0.0, 0.01, 0.02, 1.0], size=d) for _ in range(3)]
    scores, pairwise = udr(latents, kl, method=method)
    for values in (scores, pairwise):
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1


@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_the_order_of_latents_and_models_does_not_matter(seed, order):
    rng = np.random.default_rng(seed)
    latents = [rng.normal(size=(30, 4)) for _ in range(3)]
    kl = [rng.uniform(0, 0.05, 4) for _ in range(3)]
    scores, _ = udr(latents, kl)
    moved = [-latents[2][:, order], latents[0], latents[1]]
    again, _ = udr(moved, [kl[2][order], kl[0], kl[1]])
    assert_allclose(again, scores[[2, 0, 1]], atol=1e-6)


def test_latents_are_matched_with_their_sign():
    z = factorial()
    other = np.column_stack([z[:, 2], -(z[:, 0] ** 3), z[:, 1]])
    match = match_latents(z, other)
    assert match.index.tolist() == [1, 2, 0]
    assert match.sign.tolist() == [-1, 1, 1]
    assert_allclose(match.strength, 1)
    partly = match_latents(z, other, kl=[1, 0, 1], others_kl=[1, 1, 0])
    assert partly.index.tolist() == [1, -1, 0]
    assert partly.sign.tolist() == [-1, 0, 1]
    assert partly.strength[1] == 0


def test_two_latents_never_share_a_partner():
    z = factorial()
    doubled = np.column_stack([z[:, 0], z[:, 0], z[:, 1]])
    match = match_latents(doubled, z)
    assert sorted(match.index.tolist()) == [-1, 0, 1]


def test_stability_is_the_median_over_the_other_seeds():
    rng = np.random.default_rng(0)
    z = factorial()
    lost = np.column_stack([z[:, 1], rng.normal(size=len(z)), z[:, 2]])
    stability = latent_stability([z, z, -z, lost], [np.ones(3)] * 4)
    assert_allclose(stability[0], 1)
    assert stability[3][1] < 0.4
    assert_allclose(stability[3][[0, 2]], 1)


@pytest.mark.parametrize(
    ("latents", "kl", "message"),
    [
        ([np.ones((3, 2))], [np.ones(2)], "two models"),
        ([np.ones((3, 2))] * 2, [np.ones(2)], "1 KL vectors"),
        ([np.ones((3, 2)), np.ones((4, 2))], [np.ones(2)] * 2, "4 samples, model 0 3"),
        ([np.ones((3, 2)), np.ones((3, 3))], [np.ones(2)] * 2, r"KL of shape \(2,\)"),
        ([np.ones((3, 2)), np.full((3, 2), np.nan)], [np.ones(2)] * 2, "model 1 hold NaN"),
    ],
)
def test_bad_input_is_refused(latents, kl, message):
    with pytest.raises(InputError, match=message):
        udr(latents, kl)


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="'pearson'; expected one of lasso, spearman"):
        udr([np.ones((3, 2))] * 2, [np.ones(2)] * 2, method="pearson")
