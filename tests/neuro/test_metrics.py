"""Metrics against closed forms, NumPy references and scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

import neuro.metrics as metrics
from neuro.metrics import (
    balanced_accuracy,
    chance_level,
    class_hits,
    discriminate,
    kept_latents,
    kl_per_latent,
    latent_counts,
    variable_types,
    weighted_balanced_accuracy,
)


def test_kl_against_a_float64_reference_and_by_sampling():
    rng = np.random.default_rng(0)
    mean, sd = np.array([[0.7, -0.2]]), np.array([[0.5, 1.5]])
    kl = kl_per_latent(mean, sd**2)
    assert_allclose(kl, (np.log(1 / sd) + (sd**2 + mean**2) / 2 - 0.5)[0], rtol=1e-12)
    z = mean + sd * rng.standard_normal((200_000, 2))
    sampled = (-np.log(sd) - 0.5 * ((z - mean) / sd) ** 2 + 0.5 * z**2).mean(0)
    assert_allclose(kl, sampled, atol=0.02)
    assert_allclose(kl_per_latent(np.zeros((3, 2)), np.ones((3, 2))), 0)


def test_kl_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"found \(2,\) and \(2,\)"):
        kl_per_latent([0.0, 1.0], [1.0, 1.0])


@given(arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.floats(0, 3)))
def test_types_partition_the_latents(variance):
    types = variable_types(variance)
    assert types.shape == (variance.shape[1],)
    assert set(types) <= {"active", "mixed", "passive"}
    counts = latent_counts(np.zeros_like(variance), np.maximum(variance, 1e-6))
    assert counts["active"] + counts["mixed"] + counts["passive"] == variance.shape[1]


@pytest.mark.parametrize(
    ("variance", "kind"),
    [
        ([0.1, 0.1], "active"),
        ([0.11, 0.11], "mixed"),
        ([0.9, 0.9], "passive"),
        ([1.1, 1.1], "passive"),
        ([1.12, 1.12], "mixed"),
        ([0.0, 2.0], "mixed"),  # its mean is 1, but it is not steady
    ],
)
def test_types_at_their_thresholds(variance, kind):
    assert variable_types(np.array(variance)[:, None]).tolist() == [kind]


def test_latents_are_kept_by_kl():
    assert kept_latents([0.01, 0.011]).tolist() == [False, True]


@given(st.integers(0, 10_000))
def test_balanced_accuracy_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1, 2], rng.integers(0, 3, 20)])
    predicted = rng.integers(0, 3, (4, 23))
    expected = [balanced_accuracy_score(truth, row) for row in predicted]
    assert_allclose(balanced_accuracy(np.tile(truth, (4, 1)), predicted, 3), expected)
    hits, counts = class_hits(truth, predicted[0], rng.integers(0, 5, 23), 3)
    weights = np.ones((1, len(hits)))
    assert_allclose(weighted_balanced_accuracy(hits, counts, weights), expected[0])


def test_a_weight_counts_a_unit_that_often():
    truth, predicted = np.array([0, 1, 0, 1, 0]), np.array([0, 1, 1, 0, 0])
    units = np.array([0, 0, 1, 1, 2])
    hits, counts = class_hits(truth, predicted, units, 2)
    rows = np.concatenate([np.flatnonzero(units == u) for u in (0, 0, 2)])
    expected = balanced_accuracy_score(truth[rows], predicted[rows])
    assert_allclose(weighted_balanced_accuracy(hits, counts, [[2, 0, 1]]), expected)


def test_chance():
    assert chance_level(3) == pytest.approx(1 / 3)


def _problem(n_classes=3, d=6, n=90):
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(d, d))
    y = rng.integers(0, n_classes, n)
    X = rng.normal(size=(n, d)) @ mixing
    X[:, 0] += 2 * y
    return X, y, rng.normal(size=(30, d)) @ mixing


@pytest.mark.parametrize("n", [90, 5])
def test_discriminant_equals_the_plain_formula(n):
    """Also with fewer rows than features."""
    X, y, test = _problem(n=n)
    y[:3] = [0, 1, 2]
    probabilities = discriminate(X, y, test, 3, shrinkage=0.2)
    a, b = (X - X.mean(0)) / X.std(0), (test - X.mean(0)) / X.std(0)
    means = np.stack([a[y == k].mean(0) for k in range(3)])
    share = np.bincount(y, minlength=3) / len(y)
    total = a.T @ a / len(a)
    within = 0.8 * (total - (means.T * share) @ means) + 0.2 * np.trace(total) / 6 * np.eye(6)
    weights = np.linalg.solve(within, means.T)
    scores = b @ weights - 0.5 * np.einsum("kd,dk->k", means, weights)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert_allclose(probabilities, expected, rtol=1e-9)


def test_discriminant_without_shrinkage_predicts_as_scikit_learn():
    X, y, test = _problem(n=600)
    X, test = X[:, :3], test[:, :3]
    reference = LinearDiscriminantAnalysis(solver="lsqr", priors=np.ones(3) / 3).fit(X, y)
    ours = discriminate(X, y, test, 3, shrinkage=1e-3)
    assert_allclose(ours, reference.predict_proba(test), atol=0.05)
    assert (ours.argmax(1) == reference.predict(test)).mean() > 0.95


def test_all_labellings_at_once_equal_one_by_one():
    X, y, test = _problem()
    rng = np.random.default_rng(0)
    labellings = np.stack([rng.permutation(y) for _ in range(5)])
    together = discriminate(X, labellings, test, 3)
    for labels, probabilities in zip(labellings, together, strict=True):
        assert_allclose(discriminate(X, labels, test, 3), probabilities, rtol=1e-8)


def test_discriminant_treats_classes_alike_whatever_their_sizes():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-1, 1, (400, 1)), rng.normal(1, 1, (20, 1))])
    y = np.repeat([0, 1], [400, 20])
    test = rng.normal(size=(2000, 1))
    assert_allclose(discriminate(X, y, test, 2).argmax(1).mean(), 0.5, atol=0.06)


def test_shrinkage_is_tuned_on_groups():
    """Rows of a subject share an offset: only leaving subjects out shows that it is noise."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 30)
    y = np.tile([0, 1], 240)
    offsets = rng.normal(size=(32, 60)) * 2

    def draw(start):
        X = offsets[groups + start] + rng.normal(size=(480, 60))
        X[:, 0] += 1.5 * y
        return X

    train, test = draw(0), draw(16)
    accuracy = {
        name: np.mean(discriminate(train, y, test, 2, **settings).argmax(1) == y)
        for name, settings in {
            "tuned": {"groups": groups},
            "least": {"shrinkage": 0.05},
            "most": {"shrinkage": 0.95},
        }.items()
    }
    assert accuracy["tuned"] >= max(accuracy["least"], accuracy["most"]) - 0.03


def test_discriminant_edge_cases():
    X, y, test = _problem()
    assert_allclose(discriminate(X[:, :0], y, test[:, :0], 3), 1 / 3)
    absent = discriminate(X, np.minimum(y, 1), test, 3)
    assert_allclose(absent[:, 2], 0)
    assert_allclose(absent.sum(1), 1)
    constant = np.column_stack([X, np.ones(len(X))])
    assert np.isfinite(discriminate(constant, y, np.column_stack([test, np.ones(30)]), 3)).all()
    wide = np.random.default_rng(0).normal(size=(12, 200))
    assert np.isfinite(discriminate(wide, [0, 1] * 6, wide, 2)).all()
    assert np.isfinite(discriminate(wide, [0, 1] * 6, wide, 2, groups=[0] * 12)).all()


def test_every_public_name_is_found_late():
    assert set(metrics.__all__) == {name for name in metrics.__all__ if hasattr(metrics, name)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = metrics.nothing
    assert "neuro.metrics.latents" in sys.modules


def test_discriminate_has_an_answer_where_one_row_is_left_to_tune_on() -> None:
    probabilities = discriminate([[0.0, 1.0], [2.0, 0.5]], [0, 1], [[0.1, 1.0], [2.0, 0.4]], 2)
    assert np.isfinite(probabilities).all()
    assert probabilities.argmax(1).tolist() == [0, 1]
