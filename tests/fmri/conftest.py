"""A made-up study: pictures, and fMRIPrep's derivatives of a brain that follows them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

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


@pytest.fixture(scope="session")
def own_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subject 01 in two sessions of two runs and one, 24 pictures in each run."""
    return write_study(tmp_path_factory.mktemp("own") / "ds")


@pytest.fixture
def own_copy(own_study: Path, tmp_path: Path) -> Path:
    """A copy of the study that a test may break."""
    return Path(shutil.copytree(own_study, tmp_path / "ds"))


@pytest.fixture
def add_subject() -> Callable[[Path, str], None]:
    """Add the same runs of another subject to a copy of the study."""

    def add(root: Path, subject: str) -> None:
        features = write_pictures(root.parent / "again")
        for session, run in RUNS:
            write_run(root, session, run, features, subject)

    return add


@pytest.fixture(scope="session")
def call():
    """Run a stage with a real context; it returns the result and the metrics."""
    import json

    from neuro.runner.context import RunContext
    from neuro.runner.progress import Reporter

    def run(folder, function, *data, inputs=None, **params):
        folder.mkdir(exist_ok=True)
        context = RunContext("stage", "key", folder, folder / "scratch", 1, {}, Reporter(False))
        model = function.stage.params(**params)
        found = function(*data, **(inputs or {}), params=model, context=context)
        context.finish()
        return found, json.loads((folder / "metrics.json").read_text())

    return run
