"""Simulated cohorts: latents beat a component's mean amplitude where labels act on latencies.

The hand-made baseline is the canonical one, the mean amplitude of the late positive potential at
Pz (level, and difference between conditions). Effects of two standard deviations allow a balanced
accuracy of 0.84. The default run has three small cohorts; the slow one ten of 300 participants.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eeg.beta_vae import BetaVAE
from eeg.interpret import shuffled_p
from eeg.readings import read_labels_of
from eeg.repeats import fit_repeats
from eeg.scan import SCAN
from eeg.simulate import Label, bayes_accuracy, simulate_cohort
from eeg.truth import match_factors
from neuro.validation import paired_difference

LABELS = {
    "depressed": Label("lpp_gain", -2.0),
    "old": Label("p3_latency", 2.0),
    "slow": Label("n1_latency", 2.0),
}
OWN = ("beta_vae", "scan")
N_NULLS = 40


def _cohort(n_subjects, seed):
    data = simulate_cohort(
        n_subjects, 20, channels=("Fz", "Cz", "Pz", "PO7", "PO8"), sfreq=64.0, noise=4.0,
        labels=LABELS, truth=False, seed=seed,
    )  # fmt: skip
    return data.assign(signal=data.signal - data.signal.sel(time=slice(None, 0)).mean("time"))


def _run(n_subjects, seed, max_epochs):
    """Readings, factors, and p of null labels (over latents; over latents and labels)."""
    data = _cohort(n_subjects, seed)
    estimator = BetaVAE(
        n_latents=10, beta=1.0, network="mlp", n_hidden=64, train_on="bootstrap",
        max_epochs=max_epochs, learning_rate=2e-3, device="cpu",
    )  # fmt: skip
    repeats = fit_repeats(
        estimator, data, labels=list(LABELS), scan=SCAN(max_epochs=15), n_splits=3,
        autoencoder=False,
    )  # fmt: skip
    readings = read_labels_of(
        repeats, data, list(LABELS), representations=("window", "erp", *OWN), levels=["subject"],
        windows={"lpp": (0.3, 0.7)}, groups={"Pz": ["Pz"]}, n_shuffles=0, n_boot=20,
    )  # fmt: skip
    fitted = repeats[0]
    unit = np.unique(data.subject.values, return_inverse=True)[1]
    sums = np.zeros((n_subjects, 10))
    np.add.at(sums, unit, fitted.codes[0][0])
    nulls = np.random.default_rng([seed, 7]).integers(2, size=(n_subjects, N_NULLS))
    kept = np.asarray(fitted.encoders[0].kept_)
    return readings, match_factors(fitted, data, n_boot=20), shuffled_p(sums, nulls, kept, 199)


def _right(readings, label, name):
    rows = pd.DataFrame(readings.rows)
    rows = rows[rows.target == f"classify.{label}.{name}"].sort_values("item")
    return (rows.score > 0.5).to_numpy(dtype=float)


def _difference(runs, label, name, reference):
    """Participants of all cohorts: how much more often one is right than the other."""
    sides = [
        np.concatenate([_right(readings, label, which) for readings, _, _ in runs])
        for which in (name, reference)
    ]
    return paired_difference(*sides)


def _check_nulls(runs):
    alone = sum(int((p_label.min(1) <= 0.05).sum()) for _, _, (_, p_label) in runs)
    family = sum(int((p <= 0.05).any()) for _, _, (p, _) in runs)
    low, high = stats.binom.interval(0.99, N_NULLS * len(runs), 0.05)
    assert low <= alone <= high, alone
    assert family <= stats.binom.ppf(0.995, len(runs), 0.05), family


def _mean(runs, label, name):
    found = [readings.accuracy[(label, name, "subject")].value for readings, _, _ in runs]
    return float(np.mean(found))


@pytest.fixture(scope="module")
def short():
    return [_run(120, seed, 6) for seed in range(3)]


def test_latents_beat_the_window_where_labels_act_on_latencies(short):
    for label in ("old", "slow"):
        assert _difference(short, label, "beta_vae", "window").low > 0
        assert _mean(short, label, "beta_vae") - _mean(short, label, "window") >= 0.05
    assert bayes_accuracy(2.0) + 0.05 > _mean(short, "slow", "beta_vae")


def test_latents_do_not_lose_elsewhere(short):
    for label in LABELS:
        # Not worse than 0.02 below, as far as three small cohorts can tell.
        assert _difference(short, label, "beta_vae", "window").high > -0.02
        assert _difference(short, label, "beta_vae", "erp").high > -0.02


def test_scan_reads_what_acts_on_both_conditions(short):
    assert _mean(short, "slow", "scan") > 0.6
    assert _mean(short, "old", "scan") > 0.6


def test_null_labels_are_named_at_their_rate(short):
    _check_nulls(short)


@pytest.mark.slow
def test_ten_cohorts_of_300():
    runs = [_run(300, 100 + seed, 10) for seed in range(10)]
    beaten = 0
    for label in LABELS:
        sides = [
            np.array([r.accuracy[(label, name, "subject")].value for r, _, _ in runs])
            for name in ("beta_vae", "window", "erp")
        ]
        against = paired_difference(sides[0], sides[1], n_unit="cohort")
        assert against.value >= -0.02, label
        beaten += bool(against.value >= 0.05 and against.low > 0)
        assert np.mean(sides[0] - sides[2]) >= -0.02, label
    assert beaten >= 2
    _check_nulls(runs)
