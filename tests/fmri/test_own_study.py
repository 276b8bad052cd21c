"""A study of one's own: fMRIPrep's derivatives, events and a folder of pictures to retrieval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from fmri.images import read_images
from fmri.parts import stimuli_of, with_parts
from fmri.stages import betas as betas_stage
from fmri.study_params import BetasParams
from neuro.cli import app
from neuro.data import open_dataset
from neuro.errors import DataError, InputError

N_PICTURES, T_R, GAP, SHAPE = 24, 2.0, 6.0, (6, 5, 3)
AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
RUNS = (("01", "1"), ("01", "2"), ("02", "1"))


def write_pictures(folder: Path) -> np.ndarray:
    """Blobs of three numbers each: where they are and how wide."""
    rng = np.random.default_rng(5)
    features = rng.uniform(-1, 1, (N_PICTURES, 3))
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    folder.mkdir(parents=True)
    for n, (a, b, c) in enumerate(features):
        blob = np.exp(-((x - a) ** 2 + (y - b) ** 2) / (0.3 + 0.25 * c))
        Image.fromarray(np.rint(blob * 255).astype(np.uint8)).save(folder / f"blob-{n:02d}.png")
    return features


def write_run(root: Path, session: str, run: str, features: np.ndarray, subject: str = "01"):
    """One run of fMRIPrep with its mask, confounds and raw events; voxels follow the features."""
    from nilearn.glm.first_level import compute_regressor

    rng = np.random.default_rng([int(session), int(run), int(subject)])
    weights = np.random.default_rng(int(subject)).normal(0, 6, (3, *SHAPE))
    order, n_volumes = rng.permutation(N_PICTURES), int(N_PICTURES * GAP / T_R) + 8
    onsets = 4 + GAP * np.arange(N_PICTURES)
    times, values = T_R * np.arange(n_volumes), rng.normal(1000, 4, (*SHAPE, n_volumes))
    for onset, number in zip(onsets, order, strict=True):
        shape = compute_regressor(np.array([[onset], [1.0], [1.0]]), "spm", times)[0][:, 0]
        values += np.tensordot(features[number], weights, 1)[..., None] * 8 * shape
    label = f"sub-{subject}_ses-{session}_task-see_run-{run}"
    func = Path(f"sub-{subject}", f"ses-{session}", "func")
    folder, raw = root / "derivatives" / "fmriprep" / func, root / func
    folder.mkdir(parents=True, exist_ok=True)
    raw.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.rint(values).astype(np.int16), AFFINE)
    image.header.set_zooms((3, 3, 3, T_R))
    nibabel.save(image, folder / f"{label}_space-T1w_desc-preproc_bold.nii.gz")
    inside = np.ones(SHAPE, np.uint8)
    inside[0, :, int(session) - 1] = 0  # another corner is lost in each session
    mask = nibabel.Nifti1Image(inside, AFFINE)
    nibabel.save(mask, folder / f"{label}_space-T1w_desc-brain_mask.nii.gz")
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    confounds = pd.DataFrame(rng.normal(size=(n_volumes, 6)), columns=names)
    stem = folder / f"{label}_desc-confounds_timeseries"
    confounds.to_csv(f"{stem}.tsv", sep="\t", index=False)
    Path(f"{stem}.json").write_text("{}")
    events = pd.DataFrame({"onset": onsets, "duration": 1.0, "trial_type": "picture"})
    events["stim_file"] = [f"pictures/blob-{n:02d}.png" for n in order]
    fixation = pd.DataFrame(
        {"onset": [1.0], "duration": [2.0], "trial_type": ["fixation"], "stim_file": [None]}
    )
    table = pd.concat([fixation, events])
    table.to_csv(raw / f"{label}_events.tsv", sep="\t", index=False, na_rep="n/a")


def write_study(root: Path) -> Path:
    features = write_pictures(root / "pictures")
    for session, run in RUNS:
        write_run(root, session, run, features)
    region = np.zeros(SHAPE, np.int16)
    region[1:, 1:] = 1
    region[1:, 3:] = 2
    nibabel.save(nibabel.Nifti1Image(region, AFFINE), root / "sub-01_regions.nii.gz")
    return root


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("own") / "ds")


WORKFLOW = """
version: 1
name: own
seed: 1
stages:
  images: {use: fmri-images, folder: ds/pictures, size: 16, test_size: 0.25}
  targets: {use: fmri-targets, images: "${images}", provider: pca, n_features: 3}
  betas:
    use: fmri-betas
    images: ${images}
    derivatives: ds/derivatives/fmriprep
    subject: "01"
    task: see
    space: T1w
    bids_root: ds
    mask_img: ds/sub-*_regions.nii.gz
    labels: [1, 2]
    trial_types: [picture]
    confounds: {strategy: [motion], motion: basic}
    response: {method: lss, high_pass: 0.01}
    select: {keep: 40}
  encoder:
    use: fmri-mindeye
    betas: ${betas}
    targets: ${targets}
    images: ${images}
    max_epochs: 2
    prior: false
    device: cpu
  retrieval:
    use: fmri-retrieve
    betas: ${betas}
    targets: ${targets}
    images: ${images}
    encoder: ${encoder}
    n_boot: 100
"""


def run_workflow(folder: Path, text: str = WORKFLOW, name: str = "own") -> Path:
    (folder / "own.yaml").write_text(text)
    words = ["run", str(folder / "own.yaml"), "--out", str(folder / "runs")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return folder / "runs" / name


@pytest.fixture(scope="module")
def run(study: Path) -> Path:
    return run_workflow(study.parent)


def test_an_own_study_goes_from_images_to_numbers(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    assert metrics["voxels.kept"]["value"] == 40
    assert metrics["ceiling.median"]["value"] > 0.5
    for method in ("mindeye", "ridge"):
        found = metrics[f"retrieval.image.{method}.top1"]
        assert found["value"] > 0.6
        assert found["chance"] == pytest.approx(1 / 6)
    text = (run / "report.html").read_text()
    for words in ("Noise ceiling of one trial on slices", "in the brain masks of all runs",
                  "of train pictures", "fMRIPrep"):  # fmt: skip
        assert words in text


def test_sessions_are_z_scored_by_training_trials(run: Path, study: Path) -> None:
    betas, images = (open_dataset(run / name, load=True) for name in ("betas", "images"))
    assert betas.sizes["trial"] == len(RUNS) * N_PICTURES
    assert betas.attrs["units"] == "z"
    assert {"ncsnr", "noise_ceiling", "split_half"} <= set(betas.coords)
    train = np.isin(betas["stimulus"].values, stimuli_of(images, "train"))
    for session in ("ses-01", "ses-02"):
        rows = (betas["session"].values == session) & train
        assert_allclose(betas["signal"].values[rows].mean(0), 0, atol=1e-5)
        assert_allclose(betas["signal"].values[rows].std(0), 1, atol=1e-4)
    assert betas["i"].values.min() >= 1  # of the regions and of every session's brain
    assert betas["run"].values[[0, -1]].tolist() == ["run-1", "run-1"]


def test_only_files_that_are_read_count(run: Path, study: Path) -> None:
    """Another space, or a subject that isn't asked for, doesn't make results old."""
    func = study / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func"
    (func / "sub-01_ses-01_task-see_run-1_space-MNI_boldref.nii.gz").write_bytes(b"other")
    done = CliRunner().invoke(app, ["plan", str(study.parent / "own.yaml"), "--out",
                                    str(study.parent / "runs")])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert " run " not in done.output
    events = study / "sub-01" / "ses-02" / "func" / "sub-01_ses-02_task-see_run-1_events.tsv"
    text = events.read_text()
    try:
        events.write_text(text + "1.5\t1.0\tfixation\tn/a\n")
        done = CliRunner().invoke(app, ["plan", str(study.parent / "own.yaml"), "--out",
                                        str(study.parent / "runs")])  # fmt: skip
        assert "events.tsv" in done.output
    finally:
        events.write_text(text)


# The stage by itself --------------------------------------------------------------------------


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


def stage(study: Path, images: Any = "all", **fields: Any) -> tuple[Any, Told]:
    context = Told()
    given: dict[str, Any] = {
        "derivatives": study / "derivatives" / "fmriprep", "bids_root": study,
        "trial_types": ["picture"],
    }  # fmt: skip
    params = BetasParams(**({} if {"files", "bold"} & set(fields) else given), **fields)
    if isinstance(images, str):
        images = with_parts(read_images(study / "pictures"), 0.25, seed=1)
    return betas_stage(params, context, images=images), context  # type: ignore[arg-type]


def bold_files(study: Path) -> list[Path]:
    return sorted((study / "derivatives").rglob("*_bold.nii.gz"))


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A copy of the study that a test may break."""
    return Path(shutil.copytree(study, tmp_path / "ds"))


def test_plain_runs_with_one_table_of_events_are_the_same(study: Path, tmp_path: Path) -> None:
    ours, _ = stage(study, mask_img=[study / "sub-01_regions.nii.gz"])
    rows = []
    for file in sorted(study.glob("sub-01/*/func/*_events.tsv")):
        session, run = file.name.split("_")[1], file.name.split("_")[3]
        rows.append(pd.read_csv(file, sep="\t").assign(session=session[-1], run=run))
    pd.concat(rows).to_csv(tmp_path / "events.csv", index=False, na_rep="n/a")
    found, _ = stage(
        study, bold=bold_files(study), events=[tmp_path / "events.csv"],
        mask_img=[study / "sub-01_regions.nii.gz", *(study / "derivatives").rglob("*_mask.nii.gz")],
        trial_types=["picture"],
    )  # fmt: skip
    assert_array_equal(found["stimulus"], ours["stimulus"])
    assert_allclose(found["signal"].values, ours["signal"].values, atol=1e-4)


def test_betas_of_files_are_prepared_alike(study: Path, tmp_path: Path) -> None:
    """Betas of two subjects: one is asked for, or they are refused with what to do."""
    raw, _ = stage(study, standardize=None)
    assert raw.attrs["units"] == "psc"
    whole, _ = stage(study)
    names = raw["stimulus"].values
    for subject in ("01", "02"):
        np.save(tmp_path / f"sub-{subject}_betas.npy", raw["signal"].values)
        table = pd.DataFrame({"image": names, "session": raw["session"].values})
        table.to_csv(tmp_path / f"sub-{subject}_trials.tsv", sep="\t", index=False)
    files = sorted(tmp_path.glob("*_betas.npy"))
    assert BetasParams(files=files).reads() == sorted(tmp_path.glob("*_trials.tsv"))
    found, _ = stage(study, files=files, subject="02")
    assert set(found["subject"].values) == {"sub-02"}
    assert_allclose(found["signal"].values, whole["signal"].values, atol=1e-4)
    with pytest.raises(DataError, match=r"2 subjects .*sweep: \{subject: \[01, 02\]\}|sweep"):
        stage(study, files=files)
    with pytest.raises(DataError, match="none of the 2 files of betas is of subject 03"):
        stage(study, files=files, subject="03")


def test_voxels_may_be_regions_and_runs_smoothed(study: Path) -> None:
    found, told = stage(study, atlas=study / "sub-01_regions.nii.gz", smoothing_fwhm=4.0)
    assert found["signal"].dims == ("trial", "voxel")
    assert found["parcel"].values.tolist() == ["1", "2"]
    assert "averaged over 2 regions" in told.text
    assert "smoothed by 4 mm" in told.text


def test_without_pictures_responses_stay_as_estimated(study: Path) -> None:
    found, told = stage(study, images=None)
    assert found.attrs["units"] == "psc"
    assert "ceiling.median" not in told.metrics
    assert "no pictures" in told.text
    assert "z-scored" not in told.text
    with pytest.raises(InputError, match="give 'images'"):
        stage(study, images=None, select={"keep": 5})
    with pytest.raises(InputError, match="looks at pictures"):
        betas_stage(BetasParams(), Told())  # type: ignore[arg-type]


def test_a_ridge_chooses_its_fraction_by_training_pictures(study: Path) -> None:
    found, _ = stage(study, response={"method": "ridge", "fracs": [0.3, 1.0]})
    assert set(found["fraction"].values) <= {0.3, 1.0}


def test_fewer_than_two_repeats_are_stated_and_forbid_a_choice(study: Path) -> None:
    one, told = stage(study, sessions=["02"])
    assert one.sizes["trial"] == N_PICTURES
    assert "reliability needs two trials" in told.text
    assert told.metrics.keys() == {"voxels.kept"}
    with pytest.raises(DataError, match="reliability needs two trials"):
        stage(study, sessions=["02"], select={"threshold": 0.1})


def test_a_stimulus_without_picture_is_named_and_a_picture_without_trial_listed(copy: Path) -> None:
    (copy / "pictures" / "blob-03.png").unlink()
    with pytest.raises(DataError, match=r"3 of 72 trials show one of 1 stimuli that have no pict"):
        stage(copy)
    write_pictures(copy / "more")
    (copy / "more" / "blob-00.png").rename(copy / "more" / "unseen.png")
    shutil.copy(copy / "pictures" / "blob-00.png", copy / "more" / "blob-00.png")
    picture = np.eye(16, dtype=np.uint8) * 255
    Image.fromarray(picture).save(copy / "more" / "unseen.png")
    images = with_parts(read_images(copy / "more"), 0.25, seed=1)
    _, told = stage(copy, images=images)
    assert "1 pictures have no trial: unseen" in told.text


def test_a_run_cut_short_or_of_three_dimensions(copy: Path) -> None:
    first, second, _ = bold_files(copy)
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"run-1.*cut short"):
        stage(copy)
    first.write_bytes(whole)
    image = nibabel.load(second)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine), second)
    with pytest.raises(DataError, match=r"run-2.*is 3-D.*expected a 4-D"):
        stage(copy)


def test_another_grid_is_refused(copy: Path) -> None:
    last = bold_files(copy)[-1]
    image = nibabel.load(last)
    other = nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-3.0, 3, 3.5, 1]), image.header)
    other.set_sform(np.diag([-3.0, 3, 3.5, 1]))
    nibabel.save(other, last)
    with pytest.raises(DataError, match="affine"):
        stage(copy)


def test_a_mask_beside_the_data_is_refused(copy: Path) -> None:
    far = AFFINE.copy()
    far[:3, 3] = 500
    mask = nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), far)
    nibabel.save(mask, copy / "far.nii.gz")
    with pytest.raises(DataError, match="no voxel of the data"):
        stage(copy, mask_img=[copy / "far.nii.gz"])
    with pytest.raises(DataError, match="none of the 3 runs is of subject 02"):
        stage(copy, bold=bold_files(copy), events=sorted(copy.glob("sub-01/*/func/*_events.tsv")),
              mask_img=[copy / "sub-01_regions.nii.gz"], subject="02")  # fmt: skip


def test_nan_and_constant_voxels_are_counted_and_warned_of(copy: Path) -> None:
    for file in bold_files(copy):
        image = nibabel.load(file)
        values = image.get_fdata(dtype=np.float32)
        values[1, :, 0, 3], values[2, 0, 0] = np.nan, 7.0
        image.header.set_data_dtype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, AFFINE, image.header), file)
    found, told = stage(copy)
    assert found.attrs["excluded"] == {"nan": 5, "constant": 1}
    assert told.warnings
    assert "constant" in told.warnings[0]


def test_an_event_outside_of_the_run_or_no_events(copy: Path) -> None:
    events = sorted(copy.glob("sub-01/*/func/*_events.tsv"))
    text = events[1].read_text()
    events[1].write_text(text + "900\t1\tpicture\tblob-00.png\n")
    with pytest.raises(DataError, match=r"begins at 900 s, outside of the run"):
        stage(copy)
    events[1].unlink()
    with pytest.raises(DataError, match="1 of 3 runs have no events"):
        stage(copy)
    with pytest.raises(DataError, match="2 tables of events for 3 runs"):
        stage(copy, events=[events[0], events[2]])
    with pytest.raises(DataError, match="give events in the order of the runs"):
        stage(copy, events=[events[2], events[0], events[0]])


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


def test_workflow_of_this_test_is_yaml() -> None:
    assert yaml.safe_load(WORKFLOW)["name"] == "own"
