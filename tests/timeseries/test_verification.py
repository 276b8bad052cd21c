"""AUC and EER over all pairs against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from neuro.errors import DataError, InputError
from neuro.metrics.verification import (
    auc_eer,
    count_source_pairs,
    resampled,
    score_auc_eer,
    verify_pairs,
)


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 15, 300)
    codes = rng.normal(size=(15, 8))[source] + rng.normal(size=(300, 8))
    return codes, source


def full(codes, source):
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    i, j = np.triu_indices(len(unit), 1)
    return (1 - unit @ unit.T)[i, j], source[i] != source[j]


def test_all_pairs_equal_the_full_matrix(records):
    codes, source = records
    distance, different = full(codes, source)
    found = verify_pairs(codes, source, block_rows=64)
    assert found.auc == pytest.approx(roc_auc_score(different, distance), abs=1e-6)
    fpr, tpr, _ = roc_curve(different, distance)
    eer = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    assert found.eer == pytest.approx(eer, abs=1e-6)
    assert found.n_same + found.n_different == 300 * 299 // 2
    rejected = distance >= found.threshold
    assert rejected[~different].mean() == pytest.approx(eer, abs=1e-3)
    assert 1 - rejected[different].mean() == pytest.approx(eer, abs=1e-3)


def test_blocks_and_the_length_of_codes_do_not_matter(records):
    codes, source = records
    one = verify_pairs(codes, source)
    two = verify_pairs(codes * np.linspace(1, 9, 300)[:, None], source, block_rows=37)
    assert one.auc == pytest.approx(two.auc, abs=1e-6)
    assert one.eer == pytest.approx(two.eer, abs=1e-5)


def test_every_source_once_is_the_plain_score(records):
    codes, source = records
    auc, eer = resampled(count_source_pairs(codes, source), np.ones((1, 15)))
    whole = verify_pairs(codes, source)
    assert auc[0] == pytest.approx(whole.auc, abs=1e-4)
    assert eer[0] == pytest.approx(whole.eer, abs=1e-3)


def test_copies_of_a_source_make_no_pairs(records):
    codes, source = records
    weights = np.random.default_rng(1).multinomial(15, np.full(15, 1 / 15))
    rows, copy = [], []
    for name in range(15):
        for number in range(weights[name]):
            own = np.flatnonzero(source == name)
            rows.append(own)
            copy.append(np.full(len(own), number))
    rows, copy = np.concatenate(rows), np.concatenate(copy)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    i, j = np.triu_indices(len(rows), 1)
    a, b = source[rows[i]], source[rows[j]]
    kept = (a != b) | (copy[i] == copy[j])
    distance = (1 - unit @ unit.T)[rows[i], rows[j]]
    brute = roc_auc_score((a != b)[kept], distance[kept])
    auc, _ = resampled(count_source_pairs(codes, source), weights[None])
    assert auc[0] == pytest.approx(brute, abs=1e-4)


def test_a_sample_of_one_source_has_no_score(records):
    weights = np.zeros((1, 15))
    weights[0, 3] = 15
    auc, eer = resampled(count_source_pairs(*records), weights)
    assert np.isnan(auc[0])
    assert np.isnan(eer[0])


def test_ties_count_half():
    auc, eer, _ = auc_eer(np.array([0, 10, 0]), np.array([0, 20, 0]))
    assert auc == pytest.approx(0.5)
    assert eer == pytest.approx(0.5)


def test_plain_scores_equal_scikit_learn():
    rng = np.random.default_rng(2)
    scores, positive = np.round(rng.normal(size=200), 1), rng.random(200) < 0.3
    scores[positive] += 0.7
    auc, eer, threshold = score_auc_eer(scores, positive)
    assert auc == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    missed, accepted = (
        (scores[positive] < threshold).mean(),
        (scores[~positive] >= threshold).mean(),
    )
    assert min(missed, accepted) - 0.05 <= eer <= max(missed, accepted) + 0.05


def test_the_threshold_of_separate_scores_lies_between_them():
    assert score_auc_eer([0.1, 0.2, 0.8, 0.9], [False, False, True, True])[2] == 0.5


def test_bad_input_is_named():
    with pytest.raises(DataError, match="no pair of the same source"):
        verify_pairs(np.eye(3), ["a", "b", "c"])
    with pytest.raises(DataError, match="no pair of different source"):
        verify_pairs(np.eye(3), ["a", "a", "a"])
    with pytest.raises(DataError, match="NaN"):
        verify_pairs([[np.nan, 1], [0, 1]], ["a", "a"])
    with pytest.raises(InputError, match="don't belong together"):
        verify_pairs(np.eye(3), ["a", "b"])
    with pytest.raises(DataError, match="one class"):
        score_auc_eer([1, 2], [True, True])
