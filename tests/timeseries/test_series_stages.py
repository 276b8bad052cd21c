"""The stages of series, run as a workflow."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.errors import DataError
from timeseries import series_study
from timeseries.series_stages import SeriesParams, SpectraParams, SplitParams


class Quiet:
    """A context that keeps what it is told."""

    def __init__(self):
        self.warned, self.titles = [], []

    def method(self, sentence, *citations):
        pass

    def warn(self, message):
        self.warned.append(message)

    def section(self, title, *blocks):
        self.titles.append(title)

    def progress(self, items, label, total=None):
        return iter(items)


def test_a_split_never_divides_a_person():
    params = SeriesParams(simulate={"n_trials": 12})
    context = Quiet()
    data = series_study.read(params.model_dump(), context)
    done = series_study.split(data, SplitParams().model_dump(), context)
    sides = {p: set(done["subject"].values[done["part"].values == p]) for p in ("train", "test")}
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]
    assert context.titles == ["Series", "Split"]
    with pytest.raises(DataError, match="no coordinate 'person'"):
        series_study.split(data, SplitParams(group="person").model_dump(), context)


def test_a_class_that_one_part_lacks_is_told():
    data = series_study.read(SeriesParams(simulate={"n_trials": 6}).model_dump(), Quiet())
    names = np.where(data["subject"] == "s01", "odd", data["class"].values)
    context = Quiet()
    for seed in range(3):
        changed = data.assign_coords({"class": ("trial", names)})
        series_study.split(changed, SplitParams(seed=seed).model_dump(), context)
    assert any("odd" in warning for warning in context.warned)


def test_files_are_cut_and_what_is_left_out_is_told(tmp_path):
    values = np.ones((100, 2), np.float32)
    values[:20, 0] = np.nan
    values[30] = np.nan
    np.savez(tmp_path / "user01.npz", exp01=values)
    (tmp_path / "labels.csv").write_text("exp,user,activity,start,end\n1,1,1,1,60\n1,1,2,61,100\n")
    (tmp_path / "activity_labels.txt").write_text("1 WALK\n2 SIT\n")
    params = SeriesParams(
        files=[tmp_path / "user01.npz"], sfreq=10.0, windows={"length": 2.0, "overlap": 0.0}
    )
    assert [p.name for p in params.reads()] == ["labels.csv", "activity_labels.txt"]
    context = Quiet()
    data = series_study.read(params.model_dump(), context)
    assert data["class"].values.tolist() == ["WALK", "WALK", "SIT", "SIT"]
    assert [w.split(" ")[0] for w in context.warned[:1]] == ["1"]
    assert any("interpolated in 1" in w for w in context.warned)


def test_simulated_gaps_are_filled_or_refused():
    simulate = {"n_subjects": 1, "n_trials": 20, "missing": 0.1}
    data = series_study.read(SeriesParams(simulate=simulate).model_dump(), Quiet())
    assert np.isfinite(data["signal"].values).all()
    refused = SeriesParams(simulate=simulate, windows={"missing": "refuse"})
    with pytest.raises(DataError, match="simulated series miss samples"):
        series_study.read(refused.model_dump(), Quiet())


def test_a_stage_simulates_all_that_the_simulator_can():
    from dataclasses import fields

    from timeseries.series_stages import Simulation
    from timeseries.simulate import SeriesStudy

    assert set(Simulation.model_fields) == {field.name for field in fields(SeriesStudy)}


def test_spectra_are_a_stage_and_draw_an_example_of_each_class(tmp_path):
    rng = np.random.default_rng(0)
    index = {"start": [0, 4000, 6000], "length": [4000, 2000, 2500], "sample_rate": 8000}
    np.savez(tmp_path / "ann.npz", signal=rng.standard_normal(8500), digit=[3, 7, 3], **index)
    params = SeriesParams(files=[tmp_path / "ann.npz"], label="digit")
    context = Quiet()
    waves = series_study.read(params.model_dump(), context)
    for n_frames, masked in ((None, True), (20, False)):
        settings = SpectraParams(n_frames=n_frames).model_dump()
        data = series_study.spectra(waves, settings, context)
        assert ("mask" in data.coords) == masked
        assert data["class"].values.tolist() == ["3", "7", "3"]
    assert context.titles == ["Series", "Spectra", "Spectra"]
