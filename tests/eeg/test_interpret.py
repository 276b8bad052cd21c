"""Naming latents: shuffled labels stay unnamed, planted effects are found, truth is truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from eeg.beta_vae import BetaVAE
from eeg.interpret import interpret, participant_codes, seed_stability, shuffled_p
from eeg.repeats import Fitted
from eeg.scan import SCAN
from eeg.scan_plots import factor_blocks, interpretation_blocks, recombined_blocks
from eeg.simulate import Label, expected_erp, simulate_cohort
from eeg.stack import stack_conditions
from eeg.symbols import MISSING
from eeg.truth import match_factors, recombined
from neuro.data import as_signal
from neuro.errors import DataError, InputError
from neuro.report import write_section

LABELS = {"old": Label("p3_latency", 4.0), "strong": Label("lpp_amplitude", 4.0), "null": Label()}


@pytest.fixture(scope="module")
def cohort():
    data = simulate_cohort(
        40, 8, channels=("Fz", "Cz", "Pz"), sfreq=64.0, noise=2.0, labels=LABELS, seed=3
    )
    return data.assign(signal=data.signal - data.signal.sel(time=slice(None, 0)).mean("time"))


@pytest.fixture(scope="module")
def encoders(cohort):
    members = [
        BetaVAE(
            n_latents=5, beta=1.0, network="mlp", n_hidden=32, train_on="bootstrap",
            max_epochs=25, learning_rate=2e-3, device="cpu", random_state=seed,
        )
        for seed in range(2)
    ]  # fmt: skip
    return BetaVAE.fit_together(members, as_signal(cohort))


@pytest.fixture(scope="module")
def scan(cohort, encoders):
    return SCAN(encoders[0], max_epochs=15, n_hidden_operator=64).fit(cohort, list(LABELS))


def test_the_statistic_is_the_largest_welch_t():
    rng = np.random.default_rng(0)
    codes, values = rng.normal(size=(30, 3)), np.arange(30)[:, None] % 2
    values[:3] = MISSING
    codes[values[:, 0] == 1, 1] += 3
    p, p_label = shuffled_p(codes, values, np.array([True, True, False]), 199)
    assert p[0, 1] == p_label[0, 1] == 1 / 200
    assert (p[:, 2] == 1).all()
    from eeg.interpret import _largest_t

    sides = [codes[values[:, 0] == k] for k in (0, 1)]
    expected = np.abs(stats.ttest_ind(*sides, equal_var=False).statistic)
    assert_allclose(_largest_t(codes, values[None, :, 0])[0], expected, rtol=1e-6)


def test_null_labels_are_significant_as_often_as_they_should():
    """400 null labels of 20 cohorts, over latents; and cohorts with any, over latents x labels."""
    rng = np.random.default_rng(1)
    alone, family = 0, 0
    for cohort in range(20):
        codes = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))  # correlated latents
        values = (rng.random((60, 20)) < 0.4).astype(int)
        values[rng.random(values.shape) < 0.1] = MISSING
        p, p_label = shuffled_p(codes, values, np.ones(6, bool), 199, random_state=cohort)
        alone += int((p_label.min(1) <= 0.05).sum())
        family += int((p <= 0.05).any())
    low, high = stats.binom.interval(0.99, 400, 0.05)
    assert low <= alone <= high
    assert family <= stats.binom.ppf(0.995, 20, 0.05)


def test_no_kept_latent_means_no_finding():
    p, _ = shuffled_p(np.ones((6, 2)), np.arange(6)[:, None] % 2, np.zeros(2, bool), 19)
    assert (p == 1).all()


def test_planted_labels_are_named_and_null_ones_not(cohort, encoders, scan):
    signal = as_signal(cohort)
    found = interpret(scan, signal, siblings=encoders[1:], n_shuffles=299)
    readings = {reading.label: reading for reading in found.readings}
    assert readings["null"].latent is None
    assert readings["null"].why_not
    assert readings["strong"].p <= 0.05
    assert readings["old"].p <= 0.05
    for reading in readings.values():
        if reading.latent is not None:
            assert reading.stability >= 0.7
            assert found.found["kept"].values[reading.latent]
    names = found.by_name()
    assert {f"{x}.{y}" for x in LABELS for y in ("latent", "distance", "specificity", "p")} == set(
        names
    )
    assert names["null.latent"].value is None
    unstable = interpret(scan, signal, stability=np.zeros(5), n_shuffles=49)
    assert all(reading.latent is None for reading in unstable.readings)
    assert "not stable" in unstable.readings[0].why_not


def test_stability_with_itself_is_one(cohort, encoders):
    strength = seed_stability(encoders[0], [encoders[0]], as_signal(cohort))
    assert_allclose(strength, encoders[0].kept_.astype(float))


def test_codes_of_participants_need_subjects_and_one_value_of_a_label(cohort, scan):
    signal = as_signal(cohort)
    codes, values = participant_codes(scan, signal)
    assert codes.shape == (40, 10)  # level and difference of five latents
    assert values.shape == (40, 3)
    with pytest.raises(InputError, match="participants"):
        participant_codes(scan, signal.drop_vars("subject"))
    mixed = signal["old"].values.copy()
    mixed[0] = {"no": "yes", "yes": "no"}[mixed[0]]
    with pytest.raises(DataError, match="both"):
        participant_codes(scan, signal.assign_coords(old=("trial", mixed)))


def test_factors_are_matched_on_training_and_scored_on_test_participants(cohort, encoders):
    subjects = cohort["subject"].values
    held = np.isin(subjects, np.unique(subjects)[::2])
    folds = [(np.flatnonzero(~held), np.flatnonzero(held))]
    truth = np.stack([cohort[f"factor_{n}"].values for n in ("p3_latency", "gain")], axis=1)
    noise = np.random.default_rng(0).normal(size=(len(subjects), 3))
    codes = np.concatenate([noise, -truth], axis=1).astype(np.float32)
    fitted = Fitted(folds, encoders[:1], [], [(codes, np.ones_like(codes))])
    found = {match.name: match for match in match_factors(fitted, cohort, n_boot=50)}
    assert found["p3_latency"].estimate.value == pytest.approx(1.0)
    assert found["p3_latency"].latents == ["3"]
    assert found["gain"].latents == ["4"]
    assert abs(found["alpha"].estimate.value) < 0.7
    # What a latent does on test participants is not used to choose it.
    spoilt = codes.copy()
    spoilt[held] = np.random.default_rng(1).normal(size=spoilt[held].shape)
    fitted.codes = [(spoilt, np.ones_like(spoilt))]
    again = {match.name: match for match in match_factors(fitted, cohort, n_boot=50)}
    assert again["p3_latency"].latents == ["3"]
    assert again["p3_latency"].estimate.value < 0.8
    plain = cohort.drop_vars([str(c) for c in cohort.coords if str(c).startswith("factor_")])
    assert match_factors(fitted, plain) == []


def test_the_expected_erp_is_what_the_cohort_has(cohort):
    who = cohort.isel(trial=0)
    names = [str(c) for c in cohort.coords if str(c).startswith("factor_")]
    factors = {name.removeprefix("factor_"): float(who[name]) for name in names}
    expected = expected_erp(cohort, factors).sel(condition=str(who["condition"].values))
    assert_allclose(expected, who["truth"], atol=1e-4)
    with pytest.raises(InputError, match="height"):
        expected_erp(cohort, {"height": 1.0})


def test_recombined_concepts_resemble_the_truth(cohort, scan):
    found = recombined(scan, cohort, LABELS)
    assert found is not None
    assert found.r["strong=yes"] > 0.7
    assert found.and_r > 0.5
    assert found.ignore_r > 0.3
    assert recombined(scan, cohort, {"null": Label(), "old": LABELS["old"]}) is None


def test_the_truth_of_stacked_conditions_is_stacked(cohort):
    from eeg.simulate import COMPONENTS
    from eeg.truth import _expected

    stacked = stack_conditions(cohort)
    erp = _expected(stacked, {"lpp_amplitude": 1.0}, COMPONENTS, apart=False)[0]
    plain = expected_erp(cohort, {"lpp_amplitude": 1.0})
    for number, name in enumerate(("neutral", "pleasant")):
        assert_allclose(erp[3 * number : 3 * number + 3], plain.sel(condition=name))


def test_blocks_are_written(cohort, encoders, scan, tmp_path):
    found = interpret(scan, as_signal(cohort), n_shuffles=19)
    concepts = recombined(scan, cohort, LABELS)
    blocks = interpretation_blocks(found)
    blocks += recombined_blocks(concepts, cohort.time.values, cohort.channel.values.tolist())
    assert factor_blocks([]) == []
    section = write_section(tmp_path, "Labels", blocks)
    text = section.read_text()
    assert "Only one seed" in text
    assert "IGNORE" in text
