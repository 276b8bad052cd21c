"""Reliability recovers what the simulation put in, and looks at training stimuli only."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from fmri.reliability import ncsnr, noise_ceiling, select_voxels, split_half
from fmri.sessions import apply_sessions, standardize_sessions
from neuro.errors import ContractError, DataError, InputError

NAMES = np.array([f"s{n:03d}" for n in range(300)])


def simulated(repeats=3, n_voxels=6, seed=0):
    """Voxels with a signal of sd 0, 0.5, 1 ... beside noise of sd 1."""
    rng = np.random.default_rng(seed)
    sd = np.arange(n_voxels) / 2
    signal = rng.normal(size=(len(NAMES), n_voxels)) * sd
    values = np.repeat(signal, repeats, axis=0)
    values = values + rng.normal(size=values.shape)
    coords = {"stimulus": ("trial", np.repeat(NAMES, repeats))}
    coords |= {a: ("voxel", np.arange(n_voxels) * (a == "i")) for a in "ijk"}
    attrs = {"affine": "null", "shape": "[6, 1, 1]"}
    return xr.Dataset({"signal": (("trial", "voxel"), values.astype("float32"))}, coords, attrs)


def test_ncsnr_recovers_the_ratio():
    assert_allclose(ncsnr(simulated(), NAMES), np.arange(6) / 2, atol=0.15)


def test_ncsnr_is_the_published_formula():
    data = simulated()
    x = data["signal"].values.astype(float).reshape(300, 3, 6)
    noise = x.var(1, ddof=1).mean(0)
    signal = np.maximum(x.reshape(-1, 6).var(0, ddof=1) - noise, 0)
    assert_allclose(ncsnr(data, NAMES), np.sqrt(signal / noise), rtol=1e-6)


def test_the_ceiling_is_the_correlation_with_the_truth_squared():
    snr = np.array([0.0, 0.5, 1.0, 2.0])
    assert_allclose(noise_ceiling(snr, 1), snr**2 / (snr**2 + 1))
    assert_allclose(noise_ceiling(1.0, [2, 2, 4]), 1 / (1 + np.mean([1 / 2, 1 / 2, 1 / 4])))
    with pytest.raises(InputError, match="repeats"):
        noise_ceiling(snr, 0)


@pytest.mark.parametrize("repeats", [2, 4])
def test_split_half_is_the_reliability_of_the_mean(repeats):
    found = split_half(simulated(repeats), NAMES, n_splits=20)
    expected = noise_ceiling(np.arange(6) / 2, repeats)
    assert_allclose(found, expected, atol=0.12)
    assert_array_equal(found, split_half(simulated(repeats), NAMES, n_splits=20))


def test_test_stimuli_are_never_looked_at():
    data = simulated()
    train = NAMES[:200]
    spoiled = data.copy(deep=True)
    test = ~np.isin(data["stimulus"].values, train)
    spoiled["signal"].values[test] = 1e6
    for measure in (ncsnr, split_half):
        assert_array_equal(measure(data, train), measure(spoiled, train))
    kept = [select_voxels(d, train, 0.4)["i"].values.tolist() for d in (data, spoiled)]
    assert kept[0] == kept[1] == [1, 2, 3, 4, 5]


def test_selection_keeps_places_and_says_so():
    data = simulated().assign_attrs(mask_hash="old")
    found = select_voxels(data, NAMES, 0.9, measure="split_half")
    assert found.attrs["mask_hash"] != "old"
    assert "voxels with split_half >= 0.9" in found.attrs["notes"][-1]
    assert (found["split_half"].values >= 0.9).all()
    best = select_voxels(data, NAMES, keep=3)
    assert best["i"].values.tolist() == [3, 4, 5]  # the signal grows with i
    assert "3 of 6 voxels with the largest ncsnr" in best.attrs["notes"][-1]
    assert select_voxels(data, NAMES, keep=99).sizes["voxel"] == 6
    with pytest.raises(DataError, match="the best has"):
        select_voxels(data, NAMES, 99)
    with pytest.raises(InputError, match="measure is 'r2'"):
        select_voxels(data, NAMES, measure="r2")


def test_fewer_than_two_repeats_are_refused():
    data = simulated(1)
    for measure in (ncsnr, split_half):
        with pytest.raises(DataError, match="needs two trials or more of a stimulus"):
            measure(data, NAMES)
    with pytest.raises(DataError, match="needs two trials"):
        ncsnr(simulated(), ["nothing"])
    with pytest.raises(DataError, match="2 with two trials are too few"):
        split_half(simulated(), NAMES[:2])


def test_unequal_repeats_and_constant_voxels():
    data = simulated().isel(trial=slice(1, None))
    data["signal"].values[:, 5] = 3.0
    found = ncsnr(data, NAMES)
    assert found[5] == 0
    assert_allclose(found[:5], np.arange(5) / 2, atol=0.15)
    assert split_half(data, NAMES)[5] == 0


def test_two_subjects_at_once_are_refused():
    data = simulated().assign_coords(subject=("trial", np.arange(900).astype(str)))
    with pytest.raises(InputError, match="one by one"):
        ncsnr(data, NAMES)


# Sessions ---------------------------------------------------------------------------------------


def sessions():
    data = simulated()
    session = np.tile(["a", "b", "c"], 300)
    gain = {"a": 1.0, "b": 5.0, "c": 0.2}
    values = data["signal"].values * [[gain[s]] for s in session] + [[ord(s)] for s in session]
    return data.assign(signal=(("trial", "voxel"), values.astype("float32"))).assign_coords(
        session=("trial", session)
    )


def test_sessions_are_scaled_by_their_training_trials():
    data, train = sessions(), NAMES[:200]
    found, stats = standardize_sessions(data, train)
    in_train = np.isin(data["stimulus"].values, train)
    for name in "abc":
        rows = in_train & (data["session"].values == name)
        assert_allclose(found["signal"].values[rows].mean(0), 0, atol=1e-4)
        assert_allclose(found["signal"].values[rows].std(0), 1, atol=1e-4)
    assert stats["n"].values.tolist() == [200, 200, 200]
    assert found.attrs["units"] == "z"
    spoiled = data.copy(deep=True)
    spoiled["signal"].values[~in_train] = 1e5
    assert stats.identical(standardize_sessions(spoiled, train)[1])


def test_statistics_scale_new_sessions_too():
    data = sessions()
    found, stats = standardize_sessions(data, NAMES)
    assert apply_sessions(data, stats).identical(found)
    new = apply_sessions(data.assign_coords(session=("trial", ["new"] * 900)), stats)
    assert new.attrs["pooled_sessions"] == ["new"]
    sd = np.sqrt((stats["sd"].values ** 2).mean(0))
    expected = (data["signal"].values - stats["mean"].values.mean(0)) / sd
    assert_allclose(new["signal"].values, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ContractError, match="align them first"):
        apply_sessions(data.isel(voxel=slice(3)), stats)


def test_a_session_without_training_trials_is_refused():
    data = sessions()
    only = data["stimulus"].values[data["session"].values == "a"]
    data = data.assign_coords(stimulus=("trial", np.arange(900).astype(str)))
    with pytest.raises(DataError, match="session 'a' has 0 training trials"):
        standardize_sessions(data, only)


def test_sessions_of_two_subjects_are_their_own():
    data = sessions().assign_coords(subject=("trial", np.repeat(["1", "2"], 450)))
    stats = standardize_sessions(data, NAMES)[1]
    assert stats["session"].values.tolist() == ["1/a", "1/b", "1/c", "2/a", "2/b", "2/c"]
