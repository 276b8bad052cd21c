"""One projection equals nilearn's cleaning, and leaves nothing of what it takes out."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from fmri.clean import clean, clean_signals, cosines, nuisance_basis
from neuro.errors import DataError, InputError

N, T_R = 120, 2.0


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(0)
    return rng.normal(1000, 20, (N, 30)) + np.linspace(0, 50, N)[:, None]


@pytest.fixture(scope="module")
def confounds():
    found = np.random.default_rng(1).normal(size=(N, 6))
    found[:, 5] = 2 * found[:, 4]  # a column too many
    return found


CHOICES = list(
    itertools.product(
        ("zscore_sample", "psc", None), (True, False), (None, 0.01), (True, False), (True, False)
    )
)


@pytest.mark.parametrize(("standardize", "detrend", "high_pass", "noisy", "scrub"), CHOICES)
def test_equal_to_nilearn(series, confounds, standardize, detrend, high_pass, noisy, scrub):
    from nilearn import signal

    table = confounds if noisy else None
    kept = np.setdiff1d(np.arange(N), [0, 5, 40, 41, 90]) if scrub else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = signal.clean(
            series, detrend=detrend, standardize=standardize, confounds=table, t_r=T_R,
            filter="cosine" if high_pass else False, high_pass=high_pass, sample_mask=kept,
        )  # fmt: skip
    choices = {
        "t_r": T_R, "detrend": detrend, "standardize": standardize, "high_pass": high_pass,
        "confounds": table, "sample_mask": kept,
    }  # fmt: skip
    assert_allclose(clean_signals(series, **choices), peer, atol=1e-9)
    single = clean_signals(series.astype(np.float32), **choices)
    assert single.dtype == np.float32
    assert_allclose(single, peer, atol=1e-3)


def test_the_filter_stays_where_a_confound_looks_like_it(series):
    """nilearn then leaves all of its cosines out, and with them the filter."""
    slow = cosines(N, T_R, 0.01, None)
    found = clean_signals(series, t_r=T_R, high_pass=0.01, confounds=slow[:, :1])
    assert_allclose(slow.T @ found, 0, atol=1e-9)


def test_the_band_is_what_is_left(series):
    found = clean_signals(series, t_r=T_R, high_pass=0.02, low_pass=0.1)
    power = np.abs(np.fft.rfft(found, axis=0)) ** 2
    f = np.fft.rfftfreq(N, T_R)
    inside = (f > 0.015) & (f < 0.105)
    assert power[inside].sum() / power.sum() > 0.97
    stop = cosines(N, T_R, 0.02, 0.1)
    assert_allclose(stop.T @ found, 0, atol=1e-9)


def test_nothing_of_the_nuisance_is_left(series, confounds):
    found = clean_signals(series, t_r=T_R, high_pass=0.01, confounds=confounds)
    basis = nuisance_basis(N, T_R, high_pass=0.01, confounds=confounds)
    assert_allclose(basis.T @ found, 0, atol=1e-10)
    assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)


def test_in_place_needs_no_copy(series):
    values = series.astype(np.float32)
    assert clean_signals(values, copy=False) is values
    before = series.copy()
    clean_signals(series)
    assert_allclose(series, before)


def test_a_linear_voxel_becomes_zero_not_noise():
    values = np.column_stack([np.linspace(100, 200, 50), np.random.default_rng(0).normal(size=50)])
    found = clean_signals(values.astype(np.float32))
    assert (found[:, 0] == 0).all()
    assert found[:, 1].std(ddof=1) == pytest.approx(1, abs=1e-5)


def test_a_run_keeps_times_units_and_history(series):
    bold = xr.Dataset(
        {"signal": (("time", "voxel"), series.astype(np.float32))},
        coords={"time": T_R * np.arange(N)},
        attrs={"t_r": T_R, "units": "a.u.", "preprocessing": "[]"},
    )
    found = clean(bold, high_pass=0.01, sample_mask=np.arange(3, N))
    assert found["time"].values[0] == 6.0
    assert found.attrs["units"] == "z"
    assert '"kept": 117' in found.attrs["preprocessing"]
    assert clean(bold, standardize="psc").attrs["units"] == "psc"


def test_wrong_choices_are_named(series, confounds):
    with pytest.raises(InputError, match="standardize is 'robust'"):
        clean_signals(series, standardize="robust")
    with pytest.raises(DataError, match="100 rows, the run 120"):
        clean_signals(series, confounds=confounds[:100])
    table = pd.DataFrame({"fd": np.r_[np.nan, np.ones(N - 1)]})
    with pytest.raises(DataError, match="confounds fd hold NaN"):
        clean_signals(series, confounds=table)
    with pytest.raises(DataError, match="leave nothing of 120 volumes"):
        clean_signals(series, confounds=np.random.default_rng(0).normal(size=(N, N)))
    with pytest.raises(DataError, match="scrubbing leaves none"):
        clean_signals(series, sample_mask=[])
    with pytest.raises(DataError, match="names volume 500"):
        clean_signals(series, sample_mask=[1, 500])
