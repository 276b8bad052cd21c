"""Evaluation: names, chance, baselines and ceilings are what the report says they are."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from fmri.baselines import TunedRidge, derangement, nearest_training, similarity_histogram
from fmri.ceilings import ceiling_estimate, repeat_retrieval, same_cluster_retrieval
from fmri.evaluate import (
    compare,
    cosine_to_truth,
    evaluate_identification,
    evaluate_retrieval,
    matched,
    retrieval_scores,
)
from fmri.mindeye import average_repeats
from fmri.simulate import simulate
from neuro.errors import ContractError, DataError, InputError
from neuro.metrics import compare_rows


@pytest.fixture(scope="module")
def study():
    return simulate(n_train=300, n_test=80, n_voxels=120, ceiling=0.3, session_offset=0, seed=1)


def rows_of(data, stimuli):
    return data.isel(trial=np.isin(data["stimulus"].values, stimuli))


def tokens_of(targets, stimuli):
    place = {name: row for row, name in enumerate(targets["stimulus"].values.tolist())}
    return targets["signal"].values[[place[name] for name in stimuli]]


@pytest.fixture(scope="module")
def ridge(study):
    train = rows_of(study.betas[0], study.train)
    names = train["stimulus"].values
    return TunedRidge().fit(train["signal"].values, tokens_of(study.targets, names), stimulus=names)


@pytest.fixture(scope="module")
def predicted(study, ridge):
    return average_repeats(ridge.predict_array(rows_of(study.betas[0], study.test)["signal"]))


def test_ridge_retrieves_well_above_shuffled_and_below_the_observer(study, predicted):
    found = evaluate_retrieval({"ridge": predicted}, study.targets, n=40)
    assert set(found) == {
        f"retrieval.{d}.{m}.{t}"
        for d in ("image", "brain")
        for m in ("ridge", "shuffled")
        for t in ("top1", "top1_of_40")
    }
    top1 = found["retrieval.image.ridge.top1"]
    assert top1.above(top1.chance)
    assert top1.chance == 1 / 80
    assert top1.n == 80
    assert top1.n_unit == "image"
    assert found["retrieval.image.ridge.top1_of_40"].value > top1.value
    shuffled = found["retrieval.image.shuffled.top1"]
    assert shuffled.value < 0.06
    assert top1.value <= study.brains[0].expected_top1(study.test, 3, draws=10) + 0.02


def test_the_published_number_is_left_out_where_there_are_too_few_images(study, predicted):
    found = evaluate_retrieval({"ridge": predicted}, study.targets)
    assert not any("of_300" in name for name in found)
    both = evaluate_retrieval({"ridge": [predicted, predicted]}, study.targets)
    assert both["retrieval.brain.ridge.top1"].n == 80  # images, however many subjects
    with pytest.raises(InputError, match="no method"):
        evaluate_retrieval({}, study.targets)


def test_centring_strengthens_what_shrinks_to_the_mean(study, predicted):
    mean = tokens_of(study.targets, study.train).mean(0)
    raw = evaluate_retrieval({"ridge": predicted}, study.targets)
    centred = evaluate_retrieval({"ridge": predicted}, study.targets, centre=mean)
    name = "retrieval.image.ridge.top1"
    assert centred[name].value > raw[name].value
    with pytest.raises(InputError, match="centre"):
        evaluate_retrieval({"ridge": predicted}, study.targets, centre=mean[:1])


def test_predictions_are_matched_by_stimulus_not_by_place(study, predicted):
    order = np.random.default_rng(0).permutation(study.targets.sizes["trial"])
    turned = evaluate_retrieval({"ridge": predicted}, study.targets.isel(trial=order), n=40)
    assert turned == evaluate_retrieval({"ridge": predicted}, study.targets, n=40)
    with pytest.raises(DataError, match="average the repeats"):
        matched(xr.concat([predicted, predicted], "trial"), study.targets)
    with pytest.raises(DataError, match="no target"):
        matched(predicted, rows_of(study.targets, study.train))
    with pytest.raises(ContractError, match="token, feature"):
        matched(predicted[:, :1], study.targets)


def test_identification_within_classes(study, predicted):
    _, truth, names = matched(predicted, study.targets)
    classes = np.where(np.arange(80) % 2, "odd", "even")
    shuffled = predicted.values[derangement(80)]
    found = evaluate_identification(
        {"ridge": predicted.values, "shuffled": shuffled}, truth, stimulus=names, classes=classes
    )
    assert found["identify.ridge.pairwise"].above(0.8)
    assert found["identify.ridge.within.odd"].n == 40
    assert not found["identify.shuffled.pairwise"].above(0.5)
    scores = retrieval_scores(compare_rows(predicted.values, truth))
    zero = compare(scores["image"], scores["image"], stimulus=names)
    assert zero.value == 0
    better = compare(scores["image"], np.zeros(80), stimulus=names)
    assert better.above(0)
    assert better.p < 0.01
    assert cosine_to_truth(predicted.values, truth).mean() > cosine_to_truth(shuffled, truth).mean()


def test_ridge_is_ridge(study, ridge):
    """Against scikit-learn at the chosen penalty, in the primal and the dual form."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    for n in (50, 200):
        X, noise = rng.standard_normal((n, 100)), rng.standard_normal((n, 2, 3))
        y = (X @ rng.standard_normal((100, 6))).reshape(n, 2, 3) + 5 * noise + 1
        own = TunedRidge(per_target=False).fit(X, y)
        assert own.dual_ == (n < 100)
        assert len(set(own.alphas_)) == 1
        scaled = (X - X.mean(0)) / X.std(0)
        theirs = Ridge(alpha=own.alphas_[0]).fit(scaled, y.reshape(n, -1))
        assert_allclose(own.predict(X).reshape(n, -1), theirs.predict(scaled), rtol=1e-2, atol=0.05)
    assert len(TunedRidge(alphas=(1.0,)).fit(X, y).alphas_) == 6
    with pytest.raises(InputError, match="positive"):
        TunedRidge(alphas=(0.0,)).fit(X, y)
    with pytest.raises(DataError, match="NaN"):
        ridge.fit(np.full((4, 2), np.nan), np.ones((4, 1)))
    with pytest.raises(DataError, match="same trials"):
        TunedRidge().fit(X, y[:-1])
    with pytest.raises(InputError, match="isn't fitted"):
        TunedRidge().predict(X)


def test_a_ridge_on_shuffled_pairs_finds_nothing(study):
    train, test = (rows_of(study.betas[0], part) for part in (study.train, study.test))
    names = train["stimulus"].values
    control = TunedRidge(shuffle=True).fit(
        train["signal"].values, tokens_of(study.targets, names), stimulus=names
    )
    predicted = average_repeats(control.predict_array(test["signal"]))
    found = evaluate_identification(
        {"shuffled": predicted.values}, tokens_of(study.targets, predicted["stimulus"].values)
    )
    assert abs(found["identify.shuffled.pairwise"].value - 0.5) < 0.1


def test_nearest_training_and_histogram(study):
    train, test = (tokens_of(study.targets, part) for part in (study.train, study.test))
    rows, scores = nearest_training(train[:5], train)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert_allclose(scores, 1, rtol=1e-5)
    histogram = similarity_histogram(test, train, bins=20)
    assert histogram.all_pairs.sum() == 80 * 300
    assert histogram.nearest.sum() == 80
    assert histogram.duplicates == 0
    leaky = similarity_histogram(np.concatenate([test, train[:3]]), train)
    assert leaky.duplicates == 3
    assert_array_equal(leaky.row[-3:], [0, 1, 2])


def test_distractors_of_the_same_cluster_are_harder(study, predicted):
    found = same_cluster_retrieval(
        predicted, study.targets, tokens_of(study.targets, study.train), n_clusters=4
    )
    _, truth, _ = matched(predicted, study.targets)
    everywhere = evaluate_identification({"m": predicted.values}, truth, similarity="cosine")
    within = found["retrieval.image.same_cluster.pairwise"]
    assert within.value < everywhere["identify.m.pairwise"].value
    assert found["retrieval.image.same_cluster.top1"].chance > 1 / 80
    with pytest.raises(InputError, match="n_clusters"):
        same_cluster_retrieval(predicted, study.targets, truth[:3], n_clusters=4)


def test_ceilings(study):
    betas = study.betas[0]
    found = repeat_retrieval(betas["signal"].values, betas["stimulus"].values)
    assert found["ceiling.repeats.top1"].n == 80  # training stimuli were shown once
    assert found["ceiling.repeats.pairwise"].above(0.7)
    with pytest.raises(DataError, match="two trials or more"):
        repeat_retrieval(np.ones((3, 2)), ["a", "b", "c"])
    kept = betas["true_ceiling"].values > 0.2
    voxels = ceiling_estimate(betas["true_ceiling"].values, kept)
    assert voxels["voxels.kept"].value == kept.sum()
    assert voxels["ceiling.median"].value > 0.2
    with pytest.raises(InputError, match="kept"):
        ceiling_estimate(betas["true_ceiling"].values, kept[:3])


def test_derangements_leave_nothing_in_place():
    for n in (2, 3, 50):
        assert not np.any(derangement(n, 1) == np.arange(n))
    with pytest.raises(InputError):
        derangement(1)
