"""Held-out runs and sessions: nothing shared, numbers recomputed, nothing from nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from eeg.beta_vae import BetaVAE
from eeg.held_out import condition_plans, subject_plan, unit_names, units_scored
from eeg.readings import REPRESENTATIONS
from eeg.scan import SCAN
from eeg.within_evaluate import different_ways, evaluate_within, record
from eeg.within_report import condition_blocks, identity_blocks, rows_of
from neuro.errors import InputError
from neuro.report import write_section

N_TRIALS = 40  # of each run


def recordings(
    layout, *, effect: float = 0.0, trait: float = 0.0, n_trials: int = N_TRIALS, seed: int = 0
):
    """Trials of runs (subject, session, run): noise, a condition's wave, a subject's wave."""
    import xarray as xr

    rng = np.random.default_rng(seed)
    keys = np.repeat(np.array(layout), n_trials, axis=0)
    n, times = len(keys), np.arange(32) / 64
    condition = np.tile(["a", "b"], -(-n // 2))[:n]
    signal = rng.normal(0, 5, (n, 3, 32))
    # The wave's latency differs between subjects, as markers' delays do.
    shift = {who: 0.1 + 0.1 * i for i, who in enumerate(np.unique(keys[:, 0]))}
    wave = np.array([np.exp(-(((times - shift[who]) / 0.05) ** 2)) for who in keys[:, 0]])
    signal[:, 1] += effect * wave * (condition == "b")[:, None]
    signal[:, 2] += trait * wave
    signal += rng.normal(0, 1, (len(layout), 3, 1))[np.repeat(np.arange(len(layout)), n_trials)]
    coords = {
        name: ("trial", column)
        for name, column in zip(("subject", "session", "run"), keys.T, strict=True)
    }
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal.astype("float32"))},
        coords={
            "channel": ["x", "y", "z"],
            "time": times,
            "condition": ("trial", condition),
            **coords,
        },
        attrs={"units": "uV", "sfreq": 64.0, "labels": []},
    )


RUNS = [(s, e, r) for s in ("01", "02") for e in ("1", "2") for r in ("1", "2")]
RUNS += [("03", "1", "1"), ("03", "1", "2"), ("03", "1", "3")]


def evaluated(data, **changed):
    estimator = BetaVAE(
        n_latents=3, beta=0.5, network="mlp", n_hidden=16, max_epochs=5, learning_rate=3e-3,
        device="cpu",
    )  # fmt: skip
    scan = SCAN(max_epochs=2, level="trial", batch_size=256, learning_rate=3e-3)
    given = {"scan": scan, "n_shuffles": 39, "n_boot": 200, **changed}
    return evaluate_within(estimator, data, **given)


@pytest.fixture(scope="module")
def data():
    return recordings(RUNS, effect=8.0, trait=8.0)


@pytest.fixture(scope="module")
def result(data):
    return evaluated(data)


# --------------------------------------------------------------------------------------- folds

LAYOUTS = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from("12"), st.sampled_from("123")),
    min_size=2,
    max_size=12,
    unique=True,
)


@settings(max_examples=60, deadline=None)
@given(LAYOUTS)
def test_no_run_and_no_session_is_on_both_sides(layout):
    data = recordings(layout, n_trials=4)
    try:
        plans = condition_plans(data)[0]
    except InputError:
        plans = []
    with contextlib.suppress(InputError):
        plans += [subject_plan(data)]
    for plan in plans:
        own = {"run": ("subject", "session", "run"), "session": ("subject", "session")}[plan.unit]
        source = data.isel(trial=np.flatnonzero(data.subject == plan.name)) if plan.name else data
        columns = [source[name].values for name in own]
        units = np.array(["/".join(row) for row in zip(*columns, strict=True)])
        tests = [test for _, test in plan.folds]
        assert sorted(np.concatenate(tests)) == list(range(len(units)))
        for train, test in plan.folds:
            assert len(set(units[test])) == 1
            assert not set(units[train]) & set(units[test])
            assert len(train) + len(test) == len(units)


def test_plans_say_what_is_tested(data):
    plans, excluded = condition_plans(data)
    assert [plan.name for plan in plans] == ["01", "02", "03"]
    assert [len(plan.folds) for plan in plans] == [4, 4, 3]
    assert excluded == []
    assert unit_names(data, "run")[0] == "01/ses-1/run-1"
    plan = subject_plan(data)
    assert len(plan.folds) == 5
    assert units_scored(plan) == ["01/ses-1", "01/ses-2", "02/ses-1", "02/ses-2"]


# --------------------------------------------------------------------------------------- numbers


def test_everything_is_fitted_on_the_other_runs(result):
    for plan, fitted in zip(result.plans, result.fitted, strict=True):
        signal = plan.data.signal
        for (train, test), encoder, plain, scans in zip(
            plan.folds, fitted.encoders, fitted.autoencoders, fitted.scans, strict=True
        ):
            for own in (encoder, plain, *scans.values()):
                assert not own.seen(signal.isel(trial=test)).any.any()
                assert own.seen(signal.isel(trial=train)).any.all()
        assert [own.beta for own in fitted.autoencoders] == [0.0] * len(plan.folds)


def test_every_number_has_its_neighbours(result):
    named = result.by_name()
    wanted = [f"classify.{label}" for label in ("condition", "subject")]
    wanted += ["classify.subject.{}.single_trial", *(f"within.0{i}.condition" for i in (1, 2, 3))]
    for start in wanted:
        for name in (*REPRESENTATIONS, "shuffled"):
            for measure in ("balanced_accuracy", "auc"):
                key = start.format(name) if "{}" in start else f"{start}.{name}"
                estimate = named[f"{key}.{measure}"]
                assert 0 <= estimate.value <= 1
                assert estimate.low is None or estimate.low <= estimate.value <= estimate.high
                assert estimate.chance is not None
                assert estimate.n_unit in ("run", "session", "shuffle")
                assert name == "shuffled" or 0 < estimate.p <= estimate.p_corrected <= 1
    assert named["classify.condition.erp.auc"].n == 11
    assert named["classify.subject.erp.auc"].n == 4
    assert named["classify.subject.erp.balanced_accuracy"].chance == pytest.approx(1 / 3)


def test_numbers_of_conditions_are_those_of_the_predictions(result):
    rows = pd.DataFrame(result.condition.rows)
    for name in REPRESENTATIONS:
        own = rows[rows.target == f"classify.condition.{name}.single_trial"]
        assert len(own) == 11 * N_TRIALS
        assert (own.groupby("fold").unit.nunique() == 1).all()
        found = {}
        for who, part in own.groupby(own.unit.str[:2]):
            predicted = np.where(part.score > 0.5, part.truth, part.truth.map({"a": "b", "b": "a"}))
            accuracy = balanced_accuracy_score(part.truth, predicted)
            score = np.where(part.truth == "b", part.score, 1 - part.score)
            areas = [
                roc_auc_score(part.truth[part.fold == k] == "b", score[part.fold == k])
                for k in part.fold.unique()
            ]
            found[who] = accuracy, np.mean(areas)  # runs are of one size here
            key = ("condition", name, "single_trial")
            readings = result.by_subject[who]
            assert readings.accuracy[key].value == pytest.approx(accuracy)
            assert readings.auc[key].value == pytest.approx(found[who][1], abs=1e-6)
        mean = np.mean(list(found.values()), axis=0)
        pooled = result.condition.accuracy[key].value, result.condition.auc[key].value
        assert_allclose(pooled, mean, atol=1e-6)


def test_numbers_of_subjects_are_those_of_the_predictions(result):
    rows = pd.DataFrame(result.identity.rows)
    own = rows[rows.target == "classify.subject.window"]
    assert sorted(own.item) == ["01/ses-1", "01/ses-2", "02/ses-1", "02/ses-2"]
    assert (own.truth == own.item.str[:2]).all()
    assert own.fold.is_unique
    # With three classes more than one half is the largest, less than one third is not.
    sure = own[(own.score > 0.5) | (own.score < 1 / 3)]
    if len(sure) == len(own):
        right = (own.score > 0.5).groupby(own.truth).mean().mean()
        value = result.identity.accuracy[("subject", "window", "subject")].value
        assert value == pytest.approx(right)


def test_what_is_planted_within_runs_is_found(result):
    named = result.by_name()
    for name in ("window", "erp"):
        estimate = named[f"classify.condition.{name}.auc"]
        assert estimate.value > 0.75
        assert estimate.above(0.5)
        assert estimate.p == pytest.approx(1 / 40)
    assert named["within.02.condition.erp.auc"].value > 0.7
    single = named["classify.subject.erp.single_trial.balanced_accuracy"]
    assert single.value > 0.6
    assert single.p == pytest.approx(1 / different_ways([2, 2, 1]))


def test_nothing_is_found_where_nothing_is():
    found = evaluated(recordings(RUNS, seed=3), predict=["condition"])
    named = found.by_name()
    band = named["classify.condition.shuffled.auc"]
    assert band.low < 0.5 < band.high
    for name in REPRESENTATIONS:
        estimate = named[f"classify.condition.{name}.auc"]
        assert 0.4 < estimate.value < 0.6
        assert estimate.p > 0.02
    assert not found.identity.draws


def test_what_is_few_is_said(result):
    notes = " ".join(result.notes)
    assert "4 sessions were tested" in notes
    assert "not tested: 03" in notes
    assert "15 different ways to deal 5 sessions" in notes
    assert len(result.splits) == 2
    single = result.identity.accuracy[("subject", "erp", "single_trial")]
    assert single.high - single.low > 0.05


def test_a_p_of_sessions_is_a_share_of_the_different_ways(result):
    for (_, name, _), estimate in result.identity.accuracy.items():
        if name not in ("shuffled", "scan"):
            assert (estimate.p * 15) % 1 == pytest.approx(0, abs=1e-6) or (
                (estimate.p * 15) % 1 == pytest.approx(1, abs=1e-6)
            )


def test_report_and_table(result, tmp_path):
    blocks = condition_blocks(result) + identity_blocks(result.identity)
    text = write_section(tmp_path, "Within", blocks).read_text()
    assert "Condition in subject 02" in text
    frame = pd.DataFrame(rows_of(result))
    assert set(frame.subject) == {"", "01", "02", "03"}
    assert len(frame) == 7 * (1 + 3 + 2)


class _Context:
    def __init__(self):
        self.metrics, self.warnings, self.splits = {}, [], []

    def metric(self, name, value, **fields):
        assert name not in self.metrics
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
    assert "classify.condition.scan.auc" in context.metrics
    assert "within.01.condition.beta_vae.auc" in context.metrics
    assert "classify.subject.scan.single_trial.auc" in context.metrics
    assert context.warnings == result.notes
    assert "classify.condition.erp" in set(context.table.target)


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("layout", "predict", "said"),
    [
        ([("01", "1", "1"), ("02", "1", "1")], ["condition"], "01: 1 run; 02: 1 run"),
        ([("01", "1", "1"), ("02", "1", "1")], ["subject"], r"sessions \(01: 1, 02: 1\)"),
        ([("01", "1", "1"), ("01", "2", "1")], ["subject"], r"sessions \(01: 2\)"),
    ],
)
def test_too_few_are_refused_with_what_was_found(layout, predict, said):
    with pytest.raises(InputError, match=said) as caught:
        evaluated(recordings(layout, n_trials=4), predict=predict)
    assert "leave" in str(caught.value)


def test_unknown_runs_conditions_and_questions_are_refused(data):
    with pytest.raises(InputError, match=r"'run' of the trials is not among .*session"):
        evaluated(data.drop_vars("run"))
    empty = data.assign_coords(run=("trial", ["" for _ in data.run.values]))
    with pytest.raises(InputError, match="'run' of the trials is empty"):
        evaluated(empty)
    with pytest.raises(InputError, match="'session'"):
        evaluated(data.drop_vars("session"), predict=["subject"])
    with pytest.raises(InputError, match="found a, expected two"):
        evaluated(data.isel(trial=np.flatnonzero(data.condition == "a")), predict=["condition"])
    with pytest.raises(InputError, match="expected condition or subject"):
        evaluated(data, predict=["age"])


def test_a_subject_of_one_run_is_left_out_with_the_reason():
    layout = [("01", "1", "1"), ("01", "1", "2"), ("02", "1", "1")]
    plans, excluded = condition_plans(recordings(layout, n_trials=4))
    assert [plan.name for plan in plans] == ["01"]
    assert excluded == [{"subject": "02", "reason": "1 run"}]


# ------------------------------------------------------------------------------- real recordings


def test_real_runs_from_files_to_report(neuro_data, tmp_path):
    folder = neuro_data / "eeg-muse-n170"
    files = [*sorted(folder.glob("sub-01_*_eeg.csv.gz"))[:3], *folder.glob("sub-03_*run-01_*.gz")]
    changed = {
        "recordings.files": f"[{', '.join(map(str, files))}]",
        "encoder.max_epochs": 1,
        "encoder.n_latents": 4,
        "encoder.network": "mlp",
        "within.predict": "[condition]",
        "within.n_shuffles": 20,
        "within.n_boot": 100,
    }
    sets = [part for key, value in changed.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "neuro.cli", "run", "eeg-muse-n170", "--out", str(tmp_path), *sets],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "eeg-muse-n170"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["classify.condition.beta_vae.auc"]["n"] == 5
    assert metrics["within.03.condition.scan.auc"]["n"] == 2
    # The face's response of the first subject is in the recordings: it has to come through.
    found = metrics["within.01.condition.erp.auc"]
    assert found["value"] > 0.55
    assert found["p"] < 0.05
    html = (run / "report.html").read_text()
    assert "Condition in held-out runs" in html
    assert "Subject in held-out sessions" not in html


def test_a_fold_may_leave_one_person_for_scan():
    layout = [("01", "1", "1"), ("01", "2", "1"), ("02", "1", "1")]
    found = evaluated(recordings(layout, trait=8.0), predict=["subject"])
    assert [len(scans) for scans in found.fitted[0].scans].count(0) == 1
    assert found.identity.accuracy[("subject", "scan", "subject")].n == 2
    assert found.identity.auc[("subject", "erp", "subject")].value is None
    assert any("no ROC area" in note for note in found.notes)
