"""Evaluation: nothing leaks, ceilings agree with the truth, null labels stay at chance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, TransformerMixin

from eeg.classify import classify, usable_labels
from eeg.cohort import Cohort, average_rows, fit_folds, group_rows
from eeg.evaluate import Evaluation, evaluate, make_folds, record
from eeg.predictors import Components, correlate, lowpass_matrices, ridge_paths, score
from eeg.recovery import NUMBERS, PREDICTORS, recover_erp
from eeg.simulate import Label, simulate_cohort
from neuro.errors import DataError, InputError


class Denoiser(TransformerMixin, BaseEstimator):
    """Components of the training ERPs, with Wiener gains: a linear stand-in for an encoder."""

    def __init__(self, n_latents=6):
        self.n_latents = n_latents

    def fit(self, X, y=None):
        self.subjects_ = set(X["subject"].values.tolist())
        cohort = Cohort.of(X)
        erps = cohort.mean()
        erps = erps[np.isfinite(erps[:, 0])]
        self.mean_ = erps.mean(0)
        self.axes_ = np.linalg.svd(erps - self.mean_, full_matrices=False)[2][: self.n_latents]
        own, trials = (erps - self.mean_) @ self.axes_.T, (cohort.X - self.mean_) @ self.axes_.T
        self.gain_ = own.var(0) / trials.var(0)
        self.kept_ = np.ones(len(self.axes_), dtype=bool)
        self.counts_ = {"kl_active": 6, "active": 1, "mixed": 2, "passive": 3}
        return self

    def transform(self, X):
        return (np.asarray(X).reshape(len(X), -1) - self.mean_) @ self.axes_.T

    def denoise(self, X):
        flat = self.transform(X) * self.gain_ @ self.axes_ + self.mean_
        return flat.reshape(np.shape(X))


class Collapsed(Denoiser):
    """Answers with the mean, whatever it is shown, and keeps no latent."""

    def fit(self, X, y=None):
        super().fit(X)
        self.gain_ = np.zeros_like(self.gain_)
        self.kept_[:] = False
        return self


def _cohort(n_subjects=20, n_trials=20, **settings):
    data = simulate_cohort(n_subjects, n_trials, **settings)
    before = data.signal.sel(time=slice(None, 0)).mean("time")
    return data.assign(signal=data.signal - before)


@pytest.fixture(scope="module")
def cohort():
    return _cohort(
        channels=("Fz", "Cz", "Pz", "PO7", "PO8", "Oz"),
        labels={"old": Label("p3_latency", 8.0), "null": Label()},
        noise=5.0,
        seed=2,
    )


@pytest.fixture(scope="module")
def result(cohort):
    return evaluate(Denoiser(), cohort, n_splits=4, n_shuffles=99)


# ---------------------------------------------------------------------------------- the halves


def test_halves_are_disjoint_fixed_and_even(cohort):
    own = Cohort.of(cohort)
    for cell in range(own.n_cells):
        n_target = own.is_target[own.cell == cell].sum()
        assert n_target == 10
    assert (Cohort.of(cohort, pooled=True).is_target == own.is_target).all()


def test_means_are_means(cohort):
    own = Cohort.of(cohort)
    subject, condition = own.subjects[3], own.conditions[1]
    mask = (cohort.subject == subject) & (cohort.condition == condition)
    expected = cohort.signal.values[mask.values].mean(0).ravel()
    assert_allclose(own.mean()[3 * 2 + 1], expected, rtol=1e-4, atol=1e-4)
    empty = average_rows(own.X, np.array([0]), np.array([1]), 2)
    assert np.isnan(empty[0]).all()
    assert_allclose(empty[1], own.X[0])


@pytest.mark.parametrize("pooled", [False, True])
def test_groups_of_k_are_disjoint_and_inside_their_cell(cohort, pooled):
    own = Cohort.of(cohort, pooled=pooled)
    inputs = np.flatnonzero(~own.is_target)
    rows, codes, cells = group_rows(own, inputs, 5)
    assert len(np.unique(rows)) == len(rows)
    assert set(rows) <= set(inputs)
    assert np.bincount(codes).tolist() == [5] * len(cells)
    assert (own.cell[rows] == cells[codes]).all()
    if pooled:  # conditions take turns
        pleasant = cohort.condition.values[rows] == "pleasant"
        assert set(np.bincount(codes, pleasant)) <= {2.0, 3.0}


def test_a_cohort_needs_subjects_and_finite_values(cohort):
    with pytest.raises(DataError, match="no coordinate 'subject'"):
        Cohort.of(cohort.drop_vars("subject"))
    with pytest.raises(DataError, match="NaN"):
        Cohort.of(cohort.assign(signal=cohort.signal.where(cohort.time > 0)))


# ---------------------------------------------------------------------------------- predictors


def test_correlation_is_numpys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 40))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    assert_allclose(correlate(a, b), expected)
    assert correlate(np.ones((1, 4)), b[:1, :4]).tolist() == [0.0]


def test_the_three_numbers():
    rng = np.random.default_rng(0)
    target, grand, own = rng.normal(size=(3, 2, 30))
    numbers = score(grand + 2 * (target - grand), target, grand)
    assert_allclose(numbers[:, 1], 1.0)
    assert_allclose(numbers[:, 2], np.mean((target - grand) ** 2, axis=1))
    assert score(grand, target, grand)[:, 1].tolist() == [0.0, 0.0]
    assert_allclose(score(own, target, grand)[:, 0], correlate(own, target))


def test_lowpass_by_matrix_keeps_slow_and_removes_fast(cohort):
    own = Cohort.of(cohort)
    for cutoff, matrix in lowpass_matrices(own):
        slow, fast = (np.sin(2 * np.pi * f * own.times) for f in (cutoff / 4, cutoff * 2))
        middle = slice(32, 96)
        if cutoff >= 4:
            assert_allclose((slow @ matrix)[middle], slow[middle], atol=0.1)
        if cutoff <= 20:
            assert np.abs((fast @ matrix)[middle]).max() < 0.25


def test_components_are_the_principal_ones(cohort):
    own = Cohort.of(cohort)
    rows = np.arange(300)
    found = Components.fit(own, rows, 3)
    X = own.X[rows] - own.X[rows].mean(0)
    X = X / np.repeat(X.reshape(300, 6, -1).std((0, 2)), 128)
    expected = np.linalg.svd(X, full_matrices=False)[2][:3]
    assert_allclose(np.abs(found.axes @ expected.T), np.eye(3), atol=0.02)
    assert_allclose(found.transform(own.X[rows]).mean(0), 0, atol=1e-2)


def test_ridge_is_scikit_learns(cohort):
    from sklearn.linear_model import Ridge

    own = Cohort.of(cohort)
    rng = np.random.default_rng(0)
    scores = rng.normal(1.0, 1.0, size=(len(own.X), 4)).astype(np.float32)
    halves = (own.mean(~own.is_target), own.mean(own.is_target))
    ((intercept, weights),) = ridge_paths(scores, halves, own.cell, own.is_target, ridges=(0.5,))
    other = np.where(own.is_target[:, None], halves[0][own.cell], halves[1][own.cell])
    centred = scores - scores.mean(0)
    level = np.trace(centred.T @ centred) / 4
    reference = Ridge(alpha=0.5 * level).fit(scores, other)
    assert_allclose(weights, reference.coef_.T, atol=1e-3)
    assert_allclose(intercept, reference.intercept_, atol=1e-2)


# ------------------------------------------------------------------------------------ recovery


def test_every_subject_is_tested_once_by_an_encoder_that_never_saw_it(cohort, result):
    subjects = cohort.subject.values
    for encoder, (train, test) in zip(result.encoders, result.folds, strict=True):
        assert encoder.subjects_ == set(subjects[train])
        assert not encoder.subjects_ & set(subjects[test])
    tested = np.concatenate([test for _, test in result.folds])
    assert sorted(tested) == list(range(len(subjects)))


def test_all_predictors_and_numbers_are_there(result):
    names = {f"{p}.{number}" for p in PREDICTORS for number in NUMBERS}
    assert names <= set(result.recovery.estimates)
    for name in names:
        estimate = result.recovery.estimates[name]
        assert estimate.n == 20
        assert estimate.low <= estimate.value <= estimate.high
    grand = result.recovery.estimates
    assert grand["grand_average.residual_r"].value == 0
    assert_allclose(grand["grand_average.mse_ratio"].value, 1)
    assert grand["denoised.r"].baseline == grand["lowpass.r"].value
    assert {row["predictor"] for row in result.recovery.table()} > set(PREDICTORS)


def test_averages_improve_with_k_and_stay_below_the_ceiling(result):
    for number in ("r", "residual_r"):
        values = [
            result.recovery.estimates[f"{name}.{number}"].value
            for name in ("raw", "mean2", "mean5", "mean10", "ceiling")
        ]
        assert values == sorted(values)
        pooled = [result.recovery.estimates[f"{n}_pooled.{number}"].value for n in ("raw", "mean5")]
        assert pooled == sorted(pooled)


def test_the_ceiling_is_what_the_truth_reaches(cohort, result):
    own = Cohort.of(cohort)
    truth = Cohort.of(cohort.truth).mean()
    before = cohort.time.values <= 0
    wave = truth.reshape(len(truth), 6, -1)
    truth = (wave - wave[..., before].mean(-1, keepdims=True)).reshape(len(truth), -1)
    reached = correlate(truth, own.mean(own.is_target)).mean()
    assert_allclose(result.recovery.estimates["ceiling.r"].value, reached, atol=0.04)


def test_the_denoiser_beats_raw_and_lowpass_by_an_interval(result):
    differences = result.recovery.differences
    for reference in ("raw", "lowpass"):
        assert differences[f"denoised-{reference}.r"].low > 0
        assert differences[f"denoised-{reference}.mse_ratio"].high < 0
    assert result.recovery.estimates["denoised.residual_r"].low > 0


def test_a_collapsed_model_shows_as_the_grand_average(cohort):
    result = evaluate(Collapsed(), cohort, n_splits=4, n_shuffles=19)
    estimates = result.recovery.estimates
    assert estimates["denoised.r"].value > estimates["raw.r"].value + 0.2
    assert estimates["denoised.residual_r"].value < 0.15
    for key, estimate in result.classification.estimates.items():
        if key[1] == "beta_vae":
            assert estimate.value == 0.5
    context = _Context()
    record(context, result)
    assert any("collapse" in warning for warning in context.warnings)


def test_targets_do_not_depend_on_what_predictors_see(cohort):
    """Destroying the input half changes the raw predictor, not grand average against target."""
    own = Cohort.of(cohort)
    folds = make_folds(cohort, n_splits=4)
    spoilt = cohort.signal.copy()
    spoilt.values[~own.is_target] = np.random.default_rng(0).normal(
        size=spoilt.values[~own.is_target].shape
    )
    encoders = fit_folds(Denoiser(), cohort.signal, folds)
    before = recover_erp(encoders, cohort.signal, folds, n_boot=50).estimates
    after = recover_erp(encoders, spoilt, folds, n_boot=50).estimates
    assert abs(after["raw.r"].value) < 0.03 < before["raw.r"].value
    assert abs(after["mean10.r"].value) < 0.03


def test_averages_without_enough_trials_are_null_and_said():
    data = _cohort(8, 12, channels=("Cz", "Pz"), labels={})
    result = evaluate(Denoiser(2), data, n_splits=2, n_shuffles=19, n_boot=50)
    assert result.recovery.estimates["mean5.r"].value is not None
    assert result.recovery.estimates["mean10.r"].value is None
    assert result.recovery.estimates["mean10_pooled.r"].value is not None
    assert any(note.startswith("mean10 is null") for note in result.recovery.notes)
    short = _cohort(6, 9, channels=("Cz", "Pz"), labels={})
    found = evaluate(Denoiser(2), short, n_splits=2, n_shuffles=19, n_boot=50).recovery
    assert found.estimates["mean5.r"].value is None


def test_a_subject_without_a_condition_is_left_out_of_it_and_said(cohort):
    first = cohort.subject.values[0]
    drop = (cohort.subject.values == first) & (cohort.condition.values == "pleasant")
    data = cohort.isel(trial=np.flatnonzero(~drop))
    result = evaluate(Denoiser(), data, n_splits=4, n_shuffles=19, n_boot=50)
    assert result.recovery.estimates["denoised.r"].n == 20
    assert any(first in note and "pleasant" in note for note in result.recovery.notes)
    assert np.isfinite(result.classification.estimates["old", "window", "subject"].value)


def test_one_trial_each_leaves_nothing_to_recover():
    data = _cohort(6, 1, channels=("Cz", "Pz"), labels={})
    with pytest.raises(DataError, match="no ERP to recover"):
        evaluate(Denoiser(2), data, n_splits=2)


def test_examples_are_held_out_trials_ready_to_draw(cohort, result):
    examples = result.recovery.examples
    assert len(examples) == 6
    for example in examples:
        assert all(example[k].shape == (6, 128) for k in ("raw", "denoised", "target"))
        assert np.isfinite(example["denoised"]).all()


# -------------------------------------------------------------------------------- classification


def test_a_strong_label_is_read_and_a_null_label_is_not(result):
    estimates = result.classification.estimates
    for level in ("subject", "single_trial"):
        assert estimates["condition", "beta_vae", level].p <= 0.05
        control = estimates["null", "shuffled", level]
        assert control.low < 0.5 < control.high
        assert control.n == 99
    assert estimates["old", "beta_vae", "subject"].low > 0.5
    assert estimates["null", "beta_vae", "subject"].p > 0.02
    assert estimates["old", "window", "subject"].chance == 0.5
    for key, estimate in estimates.items():
        if key[1] != "shuffled":
            assert estimate.p_corrected >= estimate.p
            assert estimate.n == 20


def test_rows_of_predictions(cohort, result):
    rows = result.classification.predictions()
    assert set(rows[0]) == {"item", "unit", "fold", "target", "truth", "score"}
    subject_rows = [r for r in rows if r["target"] == "classify.old.beta_vae"]
    assert sorted(r["item"] for r in subject_rows) == sorted(set(cohort.subject.values.tolist()))
    single = [r for r in rows if r["target"] == "classify.condition.pca.single_trial"]
    assert len(single) == len({r["item"] for r in single}) == cohort.sizes["trial"]
    assert all(0 <= r["score"] <= 1 for r in rows)
    assert json.dumps(rows[:10])


def test_labels_that_cannot_be_scored_are_excluded_with_the_reason(cohort):
    subject = np.unique(cohort.subject.values, return_inverse=True)[1]
    data = cohort.assign_coords(
        one=("trial", np.full(len(subject), "same")),
        rare=("trial", np.where(subject < 2, "a", "b")),
        empty=("trial", np.full(len(subject), "")),
        age=("trial", 20.0 + subject),
        sparse=("trial", np.where(subject % 5 == 0, "", np.where(subject % 2, "x", "y"))),
    )
    names = ["one", "rare", "empty", "age", "sparse", "nowhere"]
    targets, excluded = usable_labels(data, names, 4)
    assert [target.name for target in targets] == ["sparse"]
    reasons = {entry["label"]: entry["reason"] for entry in excluded}
    assert reasons["one"] == "only one class: 'same'"
    assert reasons["rare"] == "class 'a' has 2 subjects, fewer than the 4 folds"
    assert "missing" in reasons["empty"]
    assert "20 different values" in reasons["age"]
    assert "no such coordinate" in reasons["nowhere"]
    result = evaluate(Denoiser(), data, labels=names, n_splits=4, n_shuffles=19, n_boot=50)
    assert result.classification.estimates["sparse", "pca", "subject"].n == 16
    context = _Context()
    record(context, result)
    assert any("'rare' is not predicted" in warning for warning in context.warnings)


def test_p_is_uniform_for_null_labels():
    """Many null labels on one cohort: p-values below 0.1 are about as frequent as they claim."""
    labels = {f"null{i}": Label() for i in range(40)}
    data = _cohort(24, 4, channels=("Cz", "Pz", "Oz"), labels=labels, seed=5)
    folds = make_folds(data, [], n_splits=3)
    encoders = fit_folds(Denoiser(3), data.signal, folds)
    found = classify(encoders, data, folds, list(labels), n_shuffles=59, n_boot=10)
    p = np.array([e.p for k, e in found.estimates.items() if k[1:] == ("window", "subject")])
    assert np.mean(p <= 0.1) <= 0.25
    assert_allclose(p.mean(), 0.5, atol=0.15)


def test_folds_are_balanced_over_labels(cohort):
    subjects, old = cohort.subject.values, cohort["old"].values
    for train, test in make_folds(cohort, n_splits=5):
        assert not set(subjects[train]) & set(subjects[test])
        yes = len(np.unique(subjects[test][old[test] == "yes"]))
        assert yes == 2


def test_more_folds_than_subjects_are_refused(cohort):
    with pytest.raises(InputError, match="21 folds were asked for, but there are 20 groups"):
        evaluate(Denoiser(), cohort, n_splits=21)
    with pytest.raises(InputError, match="no coordinate 'subject'"):
        make_folds(cohort.drop_vars("subject"))


# ---------------------------------------------------------------------------------------- record


class _Context:
    def __init__(self) -> None:
        self.metrics: dict[str, dict] = {}
        self.warnings: list[str] = []
        self.splits: list[str] = []

    def metric(self, name, value, **fields):
        assert name not in self.metrics
        self.metrics[name] = {"value": value, **fields}

    def predictions(self, table):
        self.table = table

    def warn(self, message):
        self.warnings.append(message)

    def scored(self, split):
        self.splits.append(split)


def test_record_hands_over_the_names_of_the_project(result: Evaluation):
    context = _Context()
    record(context, result)
    expected = {f"erp.{p}.{number}" for p in PREDICTORS for number in NUMBERS}
    expected |= {
        f"classify.{label}.{name}{tail}.balanced_accuracy"
        for label in ("old", "null", "condition")
        for name in ("beta_vae", "window", "pca", "shuffled")
        for tail in ("", ".single_trial")
    }
    expected |= {f"vae.{name}" for name in ("kl_active", "active", "mixed", "passive")}
    assert set(context.metrics) == expected
    json.dumps(context.metrics, allow_nan=False)
    assert list(context.table.columns) == ["item", "unit", "fold", "target", "truth", "score"]
    assert context.table["score"].notna().all()
    assert context.splits == [result.split]


def test_same_seed_same_numbers(cohort, result):
    again = evaluate(Denoiser(), cohort, n_splits=4, n_shuffles=99)
    assert again.recovery.estimates == result.recovery.estimates
    assert again.classification.estimates == result.classification.estimates
    assert again.split == result.split


def test_the_real_condition_is_read_by_a_linear_model(neuro_data):
    """The recordings' own sanity figure: 0.589 by a linear model, leaving one subject out."""
    import mne

    from neuro.metrics import discriminate
    from neuro.validation import grouped_folds

    features, condition, subject = [], [], []
    for file in sorted((neuro_data / "eeg-alcoholism").glob("*_epo.fif")):
        epochs = mne.read_epochs(file, verbose="error").set_eeg_reference(
            "average", verbose="error"
        )
        x = epochs.get_data(picks="eeg", units="uV")
        features.append(x.reshape(*x.shape[:2], 32, 8).mean(-1).reshape(len(x), -1))
        condition += epochs.events[:, 2].tolist()
        subject += [file.name] * len(x)
    X, y = np.concatenate(features), np.array(condition) - 1
    predicted = np.zeros_like(y)
    for train, test in grouped_folds(subject, n_splits=None):
        predicted[test] = discriminate(
            X[train], y[train], X[test], 3, groups=np.array(subject)[train]
        ).argmax(1)
    assert 0.53 < np.mean(predicted == y) < 0.65
