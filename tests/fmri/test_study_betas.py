"""The stage fmri-betas by itself: its sources, and what may be wrong with a study's files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pydantic import ValidationError

from fmri.images import read_images
from fmri.parts import with_parts
from fmri.stages import betas as betas_stage
from fmri.study_params import BetasParams
from neuro.errors import DataError, InputError

N_PICTURES, SHAPE = 24, (6, 5, 3)
AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])


class Told:
    """A context that remembers what it was told."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.text = ""

    def metric(self, name: str, value: Any, **_: Any) -> None:
        self.metrics[name] = value

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def method(self, sentence: str, *_: str) -> None:
        self.text += sentence

    def section(self, title: str, *blocks: Any) -> None:
        self.text += " ".join(str(getattr(b, "text", getattr(b, "rows", ""))) for b in blocks)


def stage(own_study: Path, images: Any = "all", **fields: Any) -> tuple[Any, Told]:
    context = Told()
    given: dict[str, Any] = {
        "derivatives": own_study / "derivatives" / "fmriprep", "bids_root": own_study,
        "trial_types": ["picture"],
    }  # fmt: skip
    params = BetasParams(**({} if {"files", "bold"} & set(fields) else given), **fields)
    if isinstance(images, str):
        images = with_parts(read_images(own_study / "pictures"), 0.25, seed=1)
    return betas_stage(params, context, images=images), context  # type: ignore[arg-type]


def bold_files(own_study: Path) -> list[Path]:
    return sorted((own_study / "derivatives").rglob("*_bold.nii.gz"))


def test_plain_runs_with_one_table_of_events_are_the_same(own_study: Path, tmp_path: Path) -> None:
    motion = {"strategy": ["motion"], "motion": "basic"}
    ours, _ = stage(own_study, mask_img=[own_study / "sub-01_regions.nii.gz"], confounds=motion)
    rows = []
    for file in sorted(own_study.glob("sub-01/*/func/*_events.tsv")):
        session, run = file.name.split("_")[1], file.name.split("_")[3]
        rows.append(pd.read_csv(file, sep="\t").assign(session=session[-1], run=run))
    pd.concat(rows).to_csv(tmp_path / "events.csv", index=False, na_rep="n/a")
    found, _ = stage(
        own_study, bold=bold_files(own_study), events=[tmp_path / "events.csv"],
        mask_img=[own_study / "sub-01_regions.nii.gz", *own_study.rglob("*_mask.nii.gz")],
        trial_types=["picture"],
        confounds_files=sorted((own_study / "derivatives").rglob("*_timeseries.tsv")),
    )  # fmt: skip
    assert_array_equal(found["stimulus"], ours["stimulus"])
    assert_allclose(found["signal"].values, ours["signal"].values, atol=1e-4)


def test_betas_of_files_are_prepared_alike(own_study: Path, tmp_path: Path) -> None:
    """Betas of two subjects: one is asked for, or they are refused with what to do."""
    raw, _ = stage(own_study, standardize=None)
    assert raw.attrs["units"] == "psc"
    whole, _ = stage(own_study)
    names = raw["stimulus"].values
    for subject in ("01", "02"):
        np.save(tmp_path / f"sub-{subject}_betas.npy", raw["signal"].values)
        table = pd.DataFrame({"image": names, "session": raw["session"].values})
        table.to_csv(tmp_path / f"sub-{subject}_trials.tsv", sep="\t", index=False)
    files = sorted(tmp_path.glob("*_betas.npy"))
    assert BetasParams(files=files).reads() == sorted(tmp_path.glob("*_trials.tsv"))
    found, _ = stage(own_study, files=files, subject="02")
    assert set(found["subject"].values) == {"sub-02"}
    assert_allclose(found["signal"].values, whole["signal"].values, atol=1e-4)
    with pytest.raises(DataError, match=r"2 subjects .*sweep: \{subject: \[01, 02\]\}|sweep"):
        stage(own_study, files=files)
    with pytest.raises(DataError, match="none of the 2 files of betas is of subject 03"):
        stage(own_study, files=files, subject="03")


def test_voxels_may_be_regions_and_runs_smoothed(own_study: Path) -> None:
    found, told = stage(own_study, atlas=own_study / "sub-01_regions.nii.gz", smoothing_fwhm=4.0)
    assert found["signal"].dims == ("trial", "voxel")
    assert found["parcel"].values.tolist() == ["1", "2"]
    assert "averaged over 2 regions" in told.text
    assert "smoothed by 4 mm" in told.text


def test_without_pictures_responses_stay_as_estimated(own_study: Path) -> None:
    found, told = stage(own_study, images=None)
    assert found.attrs["units"] == "psc"
    assert "ceiling.median" not in told.metrics
    assert "no pictures" in told.text
    assert "z-scored" not in told.text
    with pytest.raises(InputError, match="give 'images'"):
        stage(own_study, images=None, select={"keep": 5})
    with pytest.raises(InputError, match="looks at pictures"):
        betas_stage(BetasParams(), Told())  # type: ignore[arg-type]


def test_a_ridge_chooses_its_fraction_by_training_pictures(own_study: Path) -> None:
    found, _ = stage(own_study, response={"method": "ridge", "fracs": [0.3, 1.0]})
    assert set(found["fraction"].values) <= {0.3, 1.0}


def test_scrubbed_volumes_are_left_out(own_copy: Path) -> None:
    plain, _ = stage(own_copy, standardize=None)
    for number, file in enumerate(sorted((own_copy / "derivatives").rglob("*_timeseries.tsv"))):
        table = pd.read_csv(file, sep="\t")
        table["framewise_displacement"], table["std_dvars"] = 0.1, 1.0
        table.loc[20, "framewise_displacement"] = 3.0 if number == 0 else 0.1
        table.to_csv(file, sep="\t", index=False)
    found, _ = stage(
        own_copy,
        standardize=None,
        confounds={"strategy": ["scrub"], "fd_threshold": 1.0, "scrub": 0},
    )
    same = np.isclose(found["signal"].values, plain["signal"].values, atol=1e-4).all(1)
    assert not same[:N_PICTURES].any()
    assert same[N_PICTURES:].all()
    with pytest.raises(DataError, match="can't be read with the strategy"):
        stage(own_copy, confounds={"strategy": ["wm_csf"]})


def test_fewer_than_two_repeats_are_stated_and_forbid_a_choice(own_study: Path) -> None:
    one, told = stage(own_study, sessions=["02"])
    assert one.sizes["trial"] == N_PICTURES
    assert "reliability needs two trials" in told.text
    assert told.metrics.keys() == {"voxels.kept"}
    with pytest.raises(DataError, match="reliability needs two trials"):
        stage(own_study, sessions=["02"], select={"threshold": 0.1})


def test_a_stimulus_without_picture_is_named_and_a_picture_without_trial_listed(
    own_study: Path, own_copy: Path
) -> None:
    (own_copy / "pictures" / "blob-03.png").unlink()
    with pytest.raises(DataError, match=r"3 of 72 trials show one of 1 stimuli that have no pict"):
        stage(own_copy)
    shutil.copytree(own_study / "pictures", own_copy / "more")
    picture = np.eye(16, dtype=np.uint8) * 255
    Image.fromarray(picture).save(own_copy / "more" / "unseen.png")
    images = with_parts(read_images(own_copy / "more"), 0.25, seed=1)
    _, told = stage(own_copy, images=images)
    assert "1 pictures have no trial: unseen" in told.text


def test_a_run_cut_short_or_of_three_dimensions(own_copy: Path) -> None:
    first, second, _ = bold_files(own_copy)
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"run-1.*cut short"):
        stage(own_copy)
    first.write_bytes(whole)
    image = nibabel.load(second)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine), second)
    with pytest.raises(DataError, match=r"run-2.*is 3-D.*expected a 4-D"):
        stage(own_copy)


def test_another_grid_is_refused(own_copy: Path) -> None:
    last = bold_files(own_copy)[-1]
    image = nibabel.load(last)
    other = nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-3.0, 3, 3.5, 1]), image.header)
    other.set_sform(np.diag([-3.0, 3, 3.5, 1]))
    nibabel.save(other, last)
    with pytest.raises(DataError, match="affine"):
        stage(own_copy)


def test_a_mask_beside_the_data_is_refused(own_copy: Path) -> None:
    far = AFFINE.copy()
    far[:3, 3] = 500
    mask = nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), far)
    nibabel.save(mask, own_copy / "far.nii.gz")
    with pytest.raises(DataError, match="no voxel of the data"):
        stage(own_copy, mask_img=[own_copy / "far.nii.gz"])
    with pytest.raises(DataError, match="none of the 3 runs is of subject 02"):
        stage(own_copy, bold=bold_files(own_copy), events=[own_copy / "any.tsv"], subject="02")


def test_nan_and_constant_voxels_are_counted_and_warned_of(own_copy: Path) -> None:
    for file in bold_files(own_copy):
        image = nibabel.load(file)
        values = image.get_fdata(dtype=np.float32)
        values[1, :, 0, 3], values[2, 0, 0] = np.nan, 7.0
        image.header.set_data_dtype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, AFFINE, image.header), file)
    found, told = stage(own_copy)
    assert found.attrs["excluded"] == {"nan": 5, "constant": 1}
    assert told.warnings
    assert "constant" in told.warnings[0]


def test_an_event_outside_of_the_run_or_no_events(own_copy: Path) -> None:
    events = sorted(own_copy.glob("sub-01/*/func/*_events.tsv"))
    text = events[1].read_text()
    events[1].write_text(text + "900\t1\tpicture\tblob-00.png\n")
    with pytest.raises(DataError, match=r"begins at 900 s, outside of the run"):
        stage(own_copy)
    events[1].unlink()
    with pytest.raises(DataError, match="1 of 3 runs have no events"):
        stage(own_copy)
    with pytest.raises(DataError, match="2 tables of events for 3 runs"):
        stage(own_copy, events=[events[0], events[2]])
    with pytest.raises(DataError, match="give events in the order of the runs"):
        stage(own_copy, events=[events[2], events[0], events[0]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"files": ["a"], "bold": ["b"], "events": ["c"]}, "one source of responses, found files"),
        ({"files": ["a"], "task": "see"}, "'task' goes with 'derivatives', not with 'files'"),
        ({"trials": ["a"]}, "'trials' goes with 'files', not with the simulator"),
        ({"bold": ["a"]}, "'bold' needs 'events'"),
        ({"files": ["a"], "select": {}}, "either 'threshold' or 'keep'"),
        ({"files": ["a"], "atlas_table": "a"}, "goes with 'atlas'"),
    ],
)
def test_parameters_that_contradict_one_another(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BetasParams(**fields)
