"""The table of labels: nothing leaks, every number has its neighbours, bad labels are stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from eeg.beta_vae import BetaVAE
from eeg.readings import REPRESENTATIONS, read_labels_of
from eeg.scan import SCAN
from eeg.scan_evaluate import class_labels, evaluate_scan, record, with_labels
from eeg.scan_plots import readings_blocks, regimes_blocks
from eeg.simulate import Label, simulate_cohort
from neuro.errors import DataError, InputError
from neuro.report import write_section

LABELS = {"old": Label("p3_latency", 5.0), "null": Label()}
N_SPLITS = 3


@pytest.fixture(scope="module")
def cohort():
    data = simulate_cohort(
        30,
        6,
        channels=("Fz", "Cz", "Pz"),
        sfreq=64.0,
        noise=3.0,
        labels=LABELS,
        truth=False,
        seed=1,
    )
    data = data.assign(signal=data.signal - data.signal.sel(time=slice(None, 0)).mean("time"))
    who = np.unique(data.subject.values, return_inverse=True)[1]
    age = np.where(who % 7 == 6, np.nan, 20.0 + who)
    lone = np.where(who < 2, "a", "b")
    coords = {"age": ("trial", age), "lone": ("trial", lone), "empty": ("trial", ["" for _ in who])}
    data = data.assign_coords(coords)
    data.attrs["labels"] = ["old", "null", "age", "lone", "empty"]
    return data


@pytest.fixture(scope="module")
def estimator():
    return BetaVAE(
        n_latents=4, beta=1.0, network="mlp", n_hidden=16, train_on="bootstrap",
        max_epochs=6, learning_rate=3e-3, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(cohort, estimator):
    return evaluate_scan(
        estimator,
        cohort,
        scan=SCAN(max_epochs=3),
        regimes=("single", "bootstrap"),
        n_splits=N_SPLITS,
        n_repeats=2,
        n_shuffles=29,
        n_boot=100,
    )


def test_every_label_has_every_representation(result):
    named = result.readings.by_name()
    assert result.readings.labels == ["old", "null", "age", "condition"]
    for label in result.readings.labels:
        for name in (*REPRESENTATIONS, "shuffled"):
            for measure in ("balanced_accuracy", "auc", "single_trial.balanced_accuracy"):
                estimate = named[f"{label}.{name}.{measure}"]
                assert 0 <= estimate.value <= 1
                assert estimate.low <= estimate.value <= estimate.high
                assert estimate.chance is not None
                assert name == "shuffled" or 0 < estimate.p <= estimate.p_corrected <= 1
    assert named["age.window.balanced_accuracy"].chance == pytest.approx(1 / 3)
    rows = result.readings.table("old")
    assert {"logistic auc", "svm balanced_accuracy", "fold sd", "auc"} <= set(rows[0])
    assert named["old.erp.balanced_accuracy"].value > 0.7
    assert named["old.erp.auc"].value > 0.75


def test_folds_share_no_participant_and_everything_is_fitted_on_training_ones(cohort, result):
    subjects = cohort.subject.values
    for own in result.repeats:
        for (train, test), encoder, scans in zip(own.folds, own.encoders, own.scans, strict=True):
            assert not set(subjects[train]) & set(subjects[test])
            held = cohort.signal.isel(trial=test)
            for fitted in (encoder, scans["old"], scans["condition"]):
                assert not fitted.seen(held).subjects.any()
            assert scans["old"].symbols_.labels == ["old", "null", "age"]
            assert list(scans["condition"].within) == ["condition"]
    first, second = (own.folds for own in result.repeats)
    assert any(set(a[1]) != set(b[1]) for a, b in zip(first, second, strict=True))
    assert [e.beta for e in result.repeats[0].autoencoders] == [0.0] * N_SPLITS


def test_the_numbers_are_those_of_the_predictions(cohort, result):
    found = read_labels_of(
        result.repeats[:1], cohort, ["old"], n_shuffles=0, n_boot=50, levels=["subject"]
    )
    rows = pd.DataFrame(found.rows)
    other = {"no": "yes", "yes": "no"}
    for name in REPRESENTATIONS:
        own = rows[rows.target == f"classify.old.{name}"]
        assert own.unit.is_unique
        assert len(own) == 30
        predicted = np.where(own.score > 0.5, own.truth, own.truth.map(other))
        expected = balanced_accuracy_score(own.truth, predicted)
        assert found.accuracy[("old", name, "subject")].value == pytest.approx(expected)
        per_fold = [
            balanced_accuracy_score(own.truth[own.fold == k], predicted[own.fold == k])
            for k in range(N_SPLITS)
        ]
        spread = np.mean(per_fold), np.std(per_fold, ddof=1)
        assert_allclose(found.spread[("old", name, "subject")], spread)
        areas = [
            (roc_auc_score(t == "yes", s), (t == "yes").sum() * (t == "no").sum())
            for k in range(N_SPLITS)
            for t in [own.truth[own.fold == k]]
            for s in [np.where(t == "yes", own.score[own.fold == k], 1 - own.score[own.fold == k])]
        ]
        expected = np.average([a for a, _ in areas], weights=[n for _, n in areas])
        assert found.auc[("old", name, "subject")].value == pytest.approx(expected, abs=1e-6)


def test_scan_reads_as_it_does_by_itself(cohort, result):
    own = result.repeats[0]
    test = own.folds[0][1]
    held = cohort.isel(trial=test).signal
    expected = own.scans[0]["old"].predict_proba(held, level="participant")
    rows = pd.DataFrame(result.readings.rows)
    rows = rows[(rows.target == "classify.old.scan") & (rows.fold == 0)].set_index("item")
    for who in expected.participant.values:
        truth = rows.truth[str(who)]
        assert_allclose(
            rows.score[str(who)],
            float(expected.sel(participant=who, symbol=f"old={truth}")),
            rtol=1e-4,
        )


def test_what_cannot_be_scored_is_stated(result):
    reasons = {entry["label"]: entry["reason"] for entry in result.excluded}
    assert set(reasons) == {"lone", "empty"}
    assert "2 subjects, fewer than the 3 folds" in reasons["lone"]
    assert "missing" in reasons["empty"]


def test_regimes_are_crossed(result, tmp_path):
    rows = result.regimes.rows
    assert [(row["trained_on"], row["tested_on"]) for row in rows] == [
        (a, b) for a in ("single", "bootstrap") for b in ("single trials", "ERPs")
    ]
    for row in rows:
        assert -1 <= row["residual_r"] <= 1
        assert 0 <= row["old"] <= 1
    assert rows[3]["old"] > 0.6
    blocks = readings_blocks(result.readings, result.excluded) + regimes_blocks(result.regimes)
    text = write_section(tmp_path, "Labels", blocks).read_text()
    assert "fewer than the 3 folds" in text


class _Context:
    def __init__(self):
        self.metrics, self.warnings, self.splits = {}, [], []

    def metric(self, name, value, **fields):
        self.metrics[name] = value

    def predictions(self, table):
        self.table = table

    def warn(self, message):
        self.warnings.append(message)

    def scored(self, split):
        self.splits.append(split)


def test_numbers_are_handed_over(result):
    context = _Context()
    record(context, result)
    assert "classify.old.scan.balanced_accuracy" in context.metrics
    assert "classify.old.beta_vae.single_trial.balanced_accuracy" in context.metrics
    assert "classify.null.shuffled.auc" in context.metrics
    assert "factor.p3_latency.spearman" in context.metrics
    assert any("lone" in message for message in context.warnings)
    assert len(context.splits) == 1
    assert set(context.table.columns) == {"item", "unit", "fold", "target", "truth", "score"}


# -------------------------------------------------------------------------------------- labels


def test_continuous_labels_become_classes(cohort):
    data = class_labels(cohort, bins=2)
    values = data.age.values
    known = ~np.isnan(cohort.age.values)
    assert (values[~known] == "").all()
    assert len(set(values[known])) == 2
    assert_array_equal(data.old.values, cohort.old.values)


def test_tables_of_participants_are_joined_and_strangers_listed(cohort):
    table = pd.DataFrame(
        {"participant_id": ["sub-01", "sub-02", "sub-99"], "well": ["y", "n", "y"]}
    )
    data, notes = with_labels(cohort, table)
    assert data.attrs["labels"] == ["well"]
    own = dict(zip(data.subject.values.tolist(), data.well.values.tolist(), strict=True))
    assert own["sub-01"] == "y"
    assert own["sub-02"] == "n"
    assert own["sub-03"] == ""
    told = " ".join(notes)
    assert "99" in told
    assert "03" in told


def test_contradictions_and_unknown_labels_are_refused(cohort, estimator):
    mixed = cohort.old.values.copy()
    mixed[0] = {"no": "yes", "yes": "no"}[mixed[0]]
    with pytest.raises(DataError, match="both"):
        with_labels(cohort.assign_coords(old=("trial", mixed)))
    table = pd.DataFrame({"participant_id": ["x", "y"], "well": ["y", "n"]})
    with pytest.raises(DataError, match="none of the participants"):
        with_labels(cohort, table)
    with pytest.raises(InputError, match="no label can be scored"):
        evaluate_scan(estimator, cohort, labels=["empty", "lone"], n_splits=3)
