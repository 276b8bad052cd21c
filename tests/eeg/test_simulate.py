"""The simulated cohort against the truth that it claims."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from eeg.predictors import correlate
from eeg.simulate import (
    CHANNELS,
    Component,
    Label,
    bayes_accuracy,
    factor_names,
    pink_noise,
    simulate_cohort,
    simulate_epochs,
)
from neuro.errors import InputError


@pytest.fixture(scope="module")
def cohort():
    return simulate_cohort(n_subjects=12, n_trials=20, seed=1)


def test_it_is_a_dataset_of_the_project(cohort):
    assert dict(cohort.signal.sizes) == {"trial": 12 * 40, "channel": 16, "time": 128}
    assert cohort.signal.dtype == np.float32
    assert cohort.channel.values.tolist() == list(CHANNELS)
    assert cohort.attrs["kind"] == "eeg"
    assert cohort.attrs["units"] == "uV"
    assert cohort.attrs["labels"] == ["depressed", "old", "null"]
    assert {"subject", "session", "run", "recording", "condition"} <= set(cohort.coords)
    assert set(json.loads(cohort.attrs["positions"])) == set(CHANNELS)
    assert_allclose(np.diff(cohort.time.values), 1 / cohort.attrs["sfreq"])
    assert 0.0 in cohort.time.values
    assert json.dumps(cohort.attrs)
    assert {f"factor_{name}" for name in factor_names()} <= set(cohort.coords)


def test_same_seed_same_cohort_to_the_bit(cohort):
    xr.testing.assert_identical(cohort, simulate_cohort(n_subjects=12, n_trials=20, seed=1))
    assert not cohort.equals(simulate_cohort(n_subjects=12, n_trials=20, seed=2))


def test_conditions_are_balanced_and_mixed(cohort):
    for _, part in cohort.groupby("subject"):
        names, counts = np.unique(part.condition.values, return_counts=True)
        assert names.tolist() == ["neutral", "pleasant"]
        assert counts.tolist() == [20, 20]
        assert len(set(part.condition.values[:20])) == 2


def test_the_mean_over_many_trials_is_the_truth():
    data = simulate_cohort(n_subjects=1, n_trials=4000, noise=4, seed=0)
    for _, part in data.groupby("condition"):
        error = part.signal.mean("trial") - part.truth[0]
        assert float(np.abs(error).max()) < 0.6
        assert float(np.abs(part.truth[0]).max()) > 3


def test_single_trials_resemble_the_erp_as_real_ones_do(cohort):
    before = cohort.signal.sel(time=slice(None, 0)).mean("time")
    signal = (cohort.signal - before).values.reshape(480, -1)
    r = correlate(signal, cohort.truth.values.reshape(480, -1))
    assert 0.2 < r.mean() < 0.35


def test_components_are_where_and_when_they_should_be():
    data = simulate_cohort(n_subjects=40, n_trials=1, seed=0)
    wave = data.truth.where(data.condition == "pleasant", drop=True).mean("trial")
    n1 = wave.sel(channel="PO7", time=slice(0.12, 0.22))
    assert float(n1.min()) < -4
    assert_allclose(float(n1.time[int(n1.values.argmin())]), 0.165, atol=0.02)
    p3 = wave.sel(time=slice(0.28, 0.42)).mean("time")
    assert str(p3.channel[int(p3.values.argmax())].values) == "Pz"


def test_the_lpp_differs_by_condition(cohort):
    late = cohort.truth.sel(channel="Pz", time=slice(0.5, 0.7)).mean("time")
    means = late.groupby("condition").mean()
    assert float(means.sel(condition="pleasant")) > 1.5 * float(means.sel(condition="neutral"))


def test_labels_act_on_their_factor_alone():
    data = simulate_cohort(n_subjects=300, n_trials=1, channels=["Pz"], tmax=0.0)
    first = data.isel(trial=np.unique(data.subject.values, return_index=True)[1])
    for label, factor, effect in (
        ("depressed", "lpp_gain", -2.0),
        ("old", "p3_latency", 2.0),
        ("null", None, 0.0),
    ):
        yes = first[label].values == "yes"
        assert yes.sum() == 150
        for name in factor_names():
            values = first[f"factor_{name}"].values
            shift = values[yes].mean() - values[~yes].mean()
            acts = name == factor
            # Other labels' effects add variance to their own factor by chance of the draw.
            assert_allclose(shift, effect if acts else 0.0, atol=0.45)


def test_a_latency_factor_moves_the_peak():
    label = {"late": Label("p3_latency", 6.0)}
    data = simulate_cohort(n_subjects=20, n_trials=1, labels=label, seed=3)
    wave = data.truth.sel(channel="Pz").where(data.condition == "neutral", drop=True)
    peak = wave.sel(time=slice(0.2, 0.55)).idxmax("time").values
    late = wave["late"].values == "yes"
    assert peak[late].mean() - peak[~late].mean() > 0.1


def test_best_possible_accuracy():
    assert bayes_accuracy(0.0) == 0.5
    assert bayes_accuracy(-2.0) == bayes_accuracy(2.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=100_000)
    assert_allclose(bayes_accuracy(2.0), np.mean(x + 1 > 0), atol=0.005)


def test_pink_noise_falls_with_frequency_and_has_variance_one():
    noise = pink_noise((2000, 256), 1.0, np.random.default_rng(0))
    assert_allclose(noise.var(), 1.0, rtol=0.05)
    power = (np.abs(np.fft.rfft(noise * np.hanning(256), axis=1)) ** 2).mean(0)
    f = np.arange(len(power))
    slope = np.polyfit(np.log(f[4:100]), np.log(power[4:100]), 1)[0]
    assert_allclose(slope, -1.0, atol=0.1)


def test_options_do_what_they_say():
    plain = simulate_cohort(n_subjects=3, n_trials=10, seed=0)
    blinked = simulate_cohort(n_subjects=3, n_trials=10, blinks=1.0, seed=0)
    gain = np.abs(blinked.signal - plain.signal).max("time").mean("trial")
    assert float(gain.sel(channel="Fp1")) > 80
    assert float(gain.sel(channel="Oz")) < 0.2 * float(gain.sel(channel="Fp1"))
    bad = simulate_cohort(n_subjects=3, n_trials=10, bad_channels=2, seed=0)
    for _, part in bad.groupby("subject"):
        assert int((part.signal.std(("trial", "time")) > 40).sum()) == 2
    sparse = simulate_cohort(n_subjects=40, n_trials=1, missing=0.5, seed=0)
    assert 0.2 < np.mean(sparse["old"].values == "") < 0.8
    assert "truth" not in simulate_cohort(n_subjects=1, n_trials=1, truth=False)


def test_a_field_does_not_depend_on_the_channels_picked():
    all_channels = simulate_cohort(n_subjects=2, n_trials=1)
    few = simulate_cohort(n_subjects=2, n_trials=1, channels=["Pz", "Oz"])
    assert_allclose(all_channels.truth.sel(channel=["Pz", "Oz"]).values, few.truth.values)


def test_own_components_and_conditions():
    component = Component("n2", 0.25, 0.03, -4.0, ("FCz",), gains={"rare": 2.0})
    data = simulate_cohort(
        2, 5, conditions=("rare", "often"), components=[component], labels={}, sfreq=250, tmax=0.5
    )
    assert data.signal.sizes["time"] == 175
    assert data.attrs["labels"] == []
    assert "factor_n2_gain" in data.coords


def test_as_epochs_in_volts():
    epochs = simulate_epochs(n_subjects=2, n_trials=3, seed=5)
    data = simulate_cohort(n_subjects=2, n_trials=3, seed=5)
    one = epochs["sub-02"]
    expected = data.signal.values[data.subject.values == "sub-02"]
    assert_allclose(one.get_data(units="uV"), expected, atol=1e-3)
    assert len(one["pleasant"]) == 3
    assert_allclose(one.times, data.time.values, atol=1e-9)
    assert {"old", "factor_p3_latency"} <= set(one.metadata)
    assert one.get_montage() is not None


def test_bad_wishes_are_refused():
    with pytest.raises(InputError, match="'XX1'"):
        simulate_cohort(2, 2, channels=["Fz", "XX1"])
    with pytest.raises(InputError, match="'p4_latency', which does not exist"):
        simulate_cohort(2, 2, labels={"old": Label("p4_latency", 1.0)})
    with pytest.raises(InputError, match="at least 1"):
        simulate_cohort(0, 2)
