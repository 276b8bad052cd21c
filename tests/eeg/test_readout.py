"""Classifiers and ROC areas against scikit-learn and plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from eeg.readout import CLASSIFIERS, _compact, fold_auc, linear_scores, weighted_auc
from neuro.errors import InputError


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_the_area_is_that_of_scikit_learn(seed, n_classes):
    rng = np.random.default_rng(seed)
    truth = np.arange(24) % n_classes
    scores = np.round(rng.dirichlet(np.ones(n_classes), 24), 1)  # with ties
    fold = np.zeros(24, dtype=int)
    found = fold_auc(truth, scores, fold)
    classes = [1] if n_classes == 2 else range(n_classes)
    expected = np.mean([roc_auc_score(truth == k, scores[:, k]) for k in classes])
    assert_allclose(found, expected)
    plain = weighted_auc(truth, scores, fold, np.arange(24), np.ones((1, 24)))
    assert_allclose(plain, [expected])


def test_only_pairs_of_one_fold_are_compared():
    truth, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    second = np.array([0.1, 0.2, 0.8, 0.9])  # right inside folds, not across
    scores = np.column_stack([1 - second, second])
    assert fold_auc(truth, scores, fold) == 1
    assert fold_auc(truth, scores, np.zeros(4, int)) < 1
    assert np.isnan(fold_auc(truth, scores, np.arange(4)))


def test_areas_of_many_labellings_and_of_drawn_units():
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=(5, 20))
    scores = rng.random((5, 20, 2))
    fold = np.arange(20) % 2
    each = [fold_auc(t, s, fold) for t, s in zip(truth, scores, strict=True)]
    assert_allclose(fold_auc(truth, scores, fold), each)
    draw = rng.integers(20, size=20)
    weights = np.bincount(draw, minlength=20)[None]
    again = fold_auc(truth[0][draw], scores[0][draw], fold[draw])
    assert_allclose(weighted_auc(truth[0], scores[0], fold, np.arange(20), weights), [again])


def test_rows_without_a_class_are_left_out_of_areas():
    rng = np.random.default_rng(2)
    truth, fold = rng.integers(3, size=(4, 24)), np.arange(24) % 2
    scores = rng.random((4, 24, 3))
    left = truth.copy()
    left[rng.random(truth.shape) < 0.3] = -1
    expected = [
        fold_auc(t[t >= 0], s[t >= 0], fold[t >= 0]) for t, s in zip(left, scores, strict=True)
    ]
    assert_allclose(fold_auc(left, scores, fold), expected)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers_find_separated_classes(classifier, n_classes):
    rng = np.random.default_rng(0)
    y = np.arange(30) % n_classes
    X = rng.normal(size=(30, 4)) + 6 * np.eye(4)[y]
    scores = linear_scores(classifier, X[:15], y[:15], X[15:], n_classes, np.arange(15))
    assert scores.shape == (15, n_classes)
    assert (scores.argmax(1) == y[15:]).mean() > 0.9


def test_the_span_of_the_training_rows_is_enough():
    rng = np.random.default_rng(0)
    train, test, y = rng.normal(size=(12, 50)), rng.normal(size=(5, 50)), np.arange(12) % 2
    small, small_test = _compact(train, test)
    assert small.shape == (12, 12)
    sd = train.std(0)
    plain = LogisticRegression(tol=1e-10, max_iter=10_000).fit((train - train.mean(0)) / sd, y)
    own = LogisticRegression(tol=1e-10, max_iter=10_000).fit(small, y)
    expected = plain.decision_function((test - train.mean(0)) / sd)
    assert_allclose(own.decision_function(small_test), expected, rtol=1e-3, atol=1e-4)


def test_a_class_never_seen_is_never_predicted_and_names_are_checked():
    y = np.array([0, 2] * 4)
    X = y[:, None] + np.linspace(0, 0.1, 8)[:, None]
    assert set(linear_scores("svm", X, y, X, 3, np.arange(8)).argmax(1)) == {0, 2}
    assert (linear_scores("svm", X, np.zeros(8, int), X, 2, np.arange(8)).argmax(1) == 0).all()
    assert (linear_scores("svm", X[:, :0], y, X[:, :0], 3, np.arange(8)).argmax(1) == 0).all()
    with pytest.raises(InputError, match="forest"):
        linear_scores("forest", X, y, X, 3, np.arange(8))
