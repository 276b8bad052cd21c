"""ERPs: averages against plain loops, windows, measurement error."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from eeg.erp import (
    WINDOWS,
    bootstrap_averages,
    difference,
    erps,
    grand_average,
    measurement_error,
    window_features,
)
from neuro.errors import DataError, InputError


def trials(subjects, conditions, *, seed=0, **coords):
    n = len(subjects)
    signal = np.random.default_rng(seed).normal(0, 10, (n, 3, 25)).astype(np.float32)
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": ["Fz", "Cz", "Pz"],
            "time": np.round(np.arange(25) / 25, 6),
            "subject": ("trial", np.asarray(subjects, dtype=str)),
            "condition": ("trial", np.asarray(conditions, dtype=str)),
            **{name: ("trial", values) for name, values in coords.items()},
        },
        attrs={"units": "uV", "sfreq": 25.0, "labels": list(coords), "item": "recording"},
    )


@pytest.fixture
def cohort():
    rng = np.random.default_rng(3)
    subjects, conditions = rng.choice(["a", "b", "c"], 60), rng.choice(["go", "stop"], 60)
    age = np.array([{"a": 20.0, "b": np.nan, "c": 40.0}[s] for s in subjects])
    return trials(subjects, conditions, age=age, accuracy=rng.normal(size=60))


def test_averages_of_every_subject_and_condition(cohort):
    found = erps(cohort)
    pairs = list(zip(found.subject.values, found.condition.values, strict=True))
    assert pairs == [(s, c) for s in "abc" for c in ("go", "stop")]
    for row, (subject, condition) in enumerate(pairs):
        mine = ((cohort.subject == subject) & (cohort.condition == condition)).values
        expected = cohort.signal.values[mine].astype(float).mean(axis=0)
        np.testing.assert_allclose(found.signal[row], expected, atol=1e-5)
        assert found.n_trials[row] == mine.sum()


def test_labels_that_vary_within_a_subject_are_left_out(cohort):
    found = erps(cohort)
    assert found.attrs["labels"] == ["age"]
    assert "accuracy" not in found.coords
    np.testing.assert_array_equal(found.age, [20, 20, np.nan, np.nan, 40, 40])
    assert "item" not in found.attrs


def test_nothing_to_average(cohort):
    with pytest.raises(DataError, match="no trial to average"):
        erps(cohort.isel(trial=[]))


def test_the_grand_average_counts_every_subject_once():
    data = trials(["a"] * 9 + ["b"], ["go"] * 10)
    found = grand_average(erps(data))
    means = [data.signal.values[:9].mean(axis=0), data.signal.values[9]]
    np.testing.assert_allclose(found.signal[0], np.mean(means, axis=0), atol=1e-5)
    np.testing.assert_allclose(found["sem"][0], np.std(means, axis=0, ddof=1) / 2**0.5, rtol=1e-4)
    assert found.n_subjects.values.tolist() == [2]
    assert np.isnan(grand_average(erps(data.isel(trial=[0, 1])))["sem"]).all()


def test_difference_waves_of_those_who_have_both():
    data = trials(list("aabbc"), ["go", "stop", "stop", "go", "go"])
    found = difference(erps(data), "go", "stop")
    assert found.subject.values.tolist() == ["a", "b"]
    assert set(found.condition.values) == {"go - stop"}
    np.testing.assert_allclose(
        found.signal[1], data.signal.values[3] - data.signal.values[2], atol=1e-5
    )
    with pytest.raises(InputError, match="no condition 'wait'; conditions there: go, stop"):
        difference(erps(data), "go", "wait")
    with pytest.raises(DataError, match="no subject has trials of both"):
        difference(erps(data.isel(trial=[0, 2])), "go", "stop")


@given(k=st.integers(1, 12), n=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_bootstrapped_averages_take_k_different_trials_of_one_cell(k, n, seed):
    subjects = ["a"] * 7 + ["b"] * 5
    data = trials(subjects, ["go"] * 12)
    # Trial i holds 2 ** i, so that the sum tells which trials an average is made of.
    data.signal[:] = (2.0 ** np.arange(12))[:, None, None]
    found = bootstrap_averages(data, k, n, random_state=seed)
    assert found.sizes["trial"] == 2 * n
    sums = np.rint(found.signal.values[:, 0, 0].astype(float) * found.n_trials.values).astype(int)
    for subject, size, total in zip(found.subject.values, found.n_trials.values, sums, strict=True):
        bits = {i for i in range(12) if total >> i & 1}
        assert len(bits) == size == min(k, subjects.count(subject))
        assert {subjects[i] for i in bits} == {subject}


def test_bootstrapped_averages_follow_the_seed_and_refuse_nonsense(cohort):
    one, two, other = (bootstrap_averages(cohort, 3, 2, random_state=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.signal, two.signal)
    assert not np.array_equal(one.signal, other.signal)
    with pytest.raises(InputError, match="k=0"):
        bootstrap_averages(cohort, 0)


def test_window_amplitudes_by_channel_and_by_group(cohort):
    windows = {"early": (0.08, 0.2), "late": (0.4, 0.8)}
    found = window_features(cohort.signal, windows)
    assert found.dims == ("trial", "window", "channel")
    late = cohort.signal.sel(time=slice(0.4, 0.8)).mean("time")
    np.testing.assert_allclose(found.sel(window="late"), late, atol=1e-4)
    grouped = window_features(cohort.signal, windows, {"front": ["Fz"], "back": ["Cz", "Pz"]})
    back = late.sel(channel=["Cz", "Pz"]).mean("channel")
    np.testing.assert_allclose(grouped.sel(window="late", channel="back"), back, atol=1e-4)
    with pytest.raises(InputError, match="group 'back' names Oz; channels there: Fz, Cz, Pz"):
        window_features(cohort.signal, windows, {"back": ["Oz"]})


def test_usual_windows_are_clipped_and_those_asked_for_are_not(cohort):
    assert list(window_features(cohort.signal)["window"].values) == list(WINDOWS)
    short = cohort.signal.sel(time=slice(0, 0.45))
    found = window_features(short)
    np.testing.assert_allclose(
        found.sel(window="lpp"), short.sel(time=slice(0.4, 0.45)).mean("time"), atol=1e-4
    )
    early = window_features(cohort.signal.sel(time=slice(0, 0.25)))
    assert "lpp" not in early["window"].values
    with pytest.raises(InputError, match=r"windows late hold no sample.*from 0 to 0\.96 s"):
        window_features(cohort.signal, {"early": (0.1, 0.2), "late": (2.0, 3.0)})


def test_the_measurement_error_is_the_standard_error_of_window_amplitudes(cohort):
    found = measurement_error(cohort, {"p3": (0.3, 0.5)})
    amplitude = cohort.signal.sel(time=slice(0.3, 0.5)).mean("time").values
    mine = ((cohort.subject == "a") & (cohort.condition == "go")).values
    expected = amplitude[mine].std(axis=0, ddof=1) / mine.sum() ** 0.5
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4)
    assert np.isnan(measurement_error(trials(["a"], ["go"]))).all()


def test_halving_the_trials_raises_the_measurement_error_by_root_two():
    whole = trials(["a"] * 4000, ["go"] * 4000)
    half = measurement_error(whole.isel(trial=slice(0, 2000)))
    ratio = float((half / measurement_error(whole)).mean())
    assert ratio == pytest.approx(2**0.5, rel=0.03)


def test_the_error_of_the_p3_of_the_eeglab_recording(neuro_data):
    from eeg.preprocess import Steps, preprocess

    steps = Steps(
        channel_types={"EOG1": "eog", "EOG2": "eog"}, l_freq=1, h_freq=30, event_id=["square"]
    )
    path = neuro_data / "eeg-eeglab-sample" / "eeglab_data.set"
    found = erps(preprocess(path, steps)[0])
    amplitude = window_features(found.signal, {"p3": (0.3, 0.5)}, {"Pz": ["Pz"]}).item()
    error = float(found.sme.sel(window="p3", channel="Pz")[0])
    assert amplitude > 10 * error > 0
