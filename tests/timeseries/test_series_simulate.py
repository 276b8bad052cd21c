"""Simulated series: factors independent and visible, domains shift nuisances only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuro.errors import InputError
from timeseries.dts_study import factors_of
from timeseries.simulate import FACTORS, SeriesStudy, simulate_series


def test_same_seed_same_series_other_seed_other():
    study = SeriesStudy(n_subjects=2, n_trials=4)
    first, again, other = (simulate_series(study, seed) for seed in (1, 1, 2))
    assert first.identical(again)
    assert not np.allclose(first["signal"], other["signal"])


def test_factors_are_independent_of_each_other_and_of_the_subject():
    data = simulate_series(SeriesStudy(n_subjects=5, n_trials=400))
    table = np.stack([data[name].values for name in [*FACTORS, "domain"]])
    off = np.corrcoef(table)[~np.eye(len(table), dtype=bool)]
    assert np.abs(off).max() < 0.1
    assert {name: data[name].attrs["factor"] for name in FACTORS} == FACTORS


def test_frequency_and_trend_are_those_of_the_signal():
    quiet = SeriesStudy(n_subjects=1, n_trials=60, noise=0.0, shift=0.0, n_samples=512)
    data = simulate_series(quiet)
    sine = data.isel(trial=np.flatnonzero(data["class"].values == "sine"), channel=0)
    spectrum = np.abs(np.fft.rfft(sine["signal"].values - sine["signal"].values.mean(1)[:, None]))
    band = np.fft.rfftfreq(512, 1 / 50)
    spectrum[:, band < 1.2] = 0
    spectrum[:, band > 5] = 0
    peak = band[spectrum.argmax(axis=1)]
    assert np.abs(peak - sine["frequency"].values).max() < 0.15


def test_shift_moves_domains_and_zero_shift_does_not():
    def spread(shift: float) -> float:
        data = simulate_series(SeriesStudy(n_subjects=4, n_trials=50, shift=shift))
        return float(data["signal"].mean("time").groupby("domain").mean().std("domain").max())

    assert spread(1.0) > 5 * spread(0.0)


def test_unequal_lengths_are_padded_and_gaps_are_missing_values():
    study = SeriesStudy(n_subjects=2, n_trials=50, shortest=0.5, missing=0.1)
    data = simulate_series(study)
    padded = data["signal"].values.transpose(0, 2, 1)[~data["mask"].values]
    assert (padded == 0).all()
    inside = data["signal"].values[:, 0][data["mask"].values]
    assert 0.05 < np.isnan(inside).mean() < 0.15


def test_levels_put_every_factor_on_a_grid_of_independent_classes():
    data = simulate_series(SeriesStudy(n_subjects=1, n_trials=2000, levels=5))
    known = factors_of(data, ())
    assert list(known) == data.attrs["factors"]
    assert {name: len(np.unique(v)) for name, v in known.items()} == {
        "shape": 4, "order": 2, "trend": 5, "frequency": 5, "amplitude": 5, "burst": 5, "colour": 5,
    }  # fmt: skip
    assert all(values.dtype.kind == "i" for values in known.values())
    table = np.corrcoef(np.stack(list(known.values())))
    assert np.abs(table - np.eye(7)).max() < 0.1


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"n_classes": 9}, "n_classes"),
        ({"frequency": (1, 30)}, "frequency"),
        ({"missing": 2}, "mis"),
        ({"levels": 1}, "levels is 1"),
        ({"burst_width": 0}, "burst_width"),
    ],
)
def test_senseless_studies_are_refused(wrong, word):
    with pytest.raises(InputError, match=word):
        SeriesStudy(**wrong)


def test_without_phase_series_of_one_frequency_differ_in_size_alone():
    study = SeriesStudy(
        n_subjects=1, n_trials=40, n_classes=2, n_channels=1, frequency=(3.0, 3.0), phase=0.0,
        noise=0.0, shift=0.0,
    )  # fmt: skip
    data = simulate_series(study, 1)
    parts = np.linalg.matrix_rank(data["signal"].values[:, 0].astype(float), tol=1e-3)
    moving = simulate_series(replace(study, phase=1.0), 1)
    assert np.array_equal(moving["burst"], data["burst"])
    more = np.linalg.matrix_rank(moving["signal"].values[:, 0].astype(float), tol=1e-3)
    assert parts < more
