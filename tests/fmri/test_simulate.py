"""The simulator: its ceiling, gains and ideal observer are what they claim to be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fmri.responses import TRUTHS, clean_responses, gabor_bank
from fmri.simulate import RandomTokens, simulate
from fmri.simulate_export import export_nifti
from neuro.data import open_dataset, save_dataset
from neuro.errors import DataError, InputError


@pytest.fixture(scope="module")
def study():
    return simulate(n_train=60, n_test=40, n_voxels=80, n_test_repeats=12, ceiling=0.3, seed=3)


def test_a_study_has_the_shapes_and_labels_of_real_betas(study, tmp_path):
    betas = study.betas[0]
    assert dict(betas.sizes) == {"trial": 60 + 40 * 12, "voxel": 80}
    assert betas["signal"].dtype == np.float32
    assert betas.attrs["kind"] == "fmri"
    assert {"subject", "session", "run", "stimulus", "repeat", "onset"} <= set(betas.coords)
    assert len(np.unique(np.column_stack([betas[a].values for a in "ijk"]), axis=0)) == 80
    assert not set(study.train) & set(study.test)
    assert set(study.images["stimulus"].values) == {*study.train, *study.test}
    assert_array_equal(study.images["stimulus"].values, study.targets["stimulus"].values)
    counts = [(betas["stimulus"].values == name).sum() for name in study.test]
    assert set(counts) == {12}
    save_dataset(betas, tmp_path / "betas.zarr")
    assert open_dataset(tmp_path / "betas.zarr", load=True).identical(betas)


def test_the_ceiling_of_the_data_is_the_one_stated(study):
    """After per-session z-scoring, the reliability over repeats gives the true ceiling."""
    betas, brain = study.betas[0], study.brains[0]
    values = betas["signal"].values.astype(float)
    for session in np.unique(betas["session"].values):
        rows = betas["session"].values == session
        values[rows] = (values[rows] - values[rows].mean(0)) / values[rows].std(0)
    groups = np.stack([values[betas["stimulus"].values == name] for name in study.test])
    noise = groups.var(1, ddof=1).mean(0)
    total = groups.reshape(-1, 80).var(0)
    found, true = 1 - noise / total, brain.noise_ceiling()
    assert np.corrcoef(found, true)[0, 1] > 0.9
    assert_allclose(found.mean(), true.mean(), atol=0.05)
    assert_allclose(betas["true_ceiling"].values, true)
    assert (true == 0).sum() == 8  # the voxels without signal
    assert_allclose(brain.noise_ceiling(4), true * 4 / (1 + 3 * true))


def test_sessions_differ_by_gain_and_offset(study):
    betas = study.betas[0]
    sessions = betas["session"].values
    means = np.stack([betas["signal"].values[sessions == s].mean(0) for s in np.unique(sessions)])
    assert 0.3 < means.std(0).mean() < 0.7
    flat = simulate(n_train=60, n_test=5, n_voxels=80, session_gain=0, session_offset=0)
    signal, sessions = flat.betas[0]["signal"].values, flat.betas[0]["session"].values
    same = np.stack([signal[sessions == s].mean(0) for s in np.unique(sessions)])
    # What is left is sampling: a session of 19 trials.
    assert_allclose(same.std(0).mean(), signal.std() / np.sqrt(19), rtol=0.4)


def test_the_observer_scores_as_its_closed_form_says(study):
    """Maximum likelihood on fresh trials, against the expectation."""
    brain = study.brains[0]
    white = brain._white(study.test)
    rng = np.random.default_rng(0)
    wins = []
    for _ in range(40):
        seen = white + rng.standard_normal(white.shape)
        far = ((seen[:, None] - white) ** 2).sum(-1)
        wins.append((far > np.diag(far)[:, None]).sum() / (40 * 39))
    assert brain.expected_pairwise(study.test) == pytest.approx(np.mean(wins), abs=0.005)
    single, averaged = (brain.expected_top1(study.test, n, draws=20) for n in (1, 3))
    assert 1 / 40 < single < averaged <= 1
    assert brain.expected_top1(study.test, n=10, draws=20) > single
    with pytest.raises(DataError, match="never saw"):
        brain.expected_top1(["picture"])


def linear_fit(targets, responses):
    design = np.column_stack([np.ones(len(targets)), targets.reshape(len(targets), -1)])
    fitted = design @ np.linalg.lstsq(design, responses, rcond=None)[0]
    return 1 - np.square(responses - fitted).mean()


def test_only_the_linear_truth_is_linear_in_the_target_space():
    study = simulate(n_train=700, n_test=100, n_voxels=40, dead=0, seed=1)
    tokens = study.targets["signal"].values.astype(float)
    pixels = study.images["signal"].values
    explained = {
        truth: linear_fit(
            tokens, clean_responses(pixels, tokens, 40, truth=truth, rng=np.random.default_rng(0))
        )
        for truth in TRUTHS
    }
    assert explained["linear"] == pytest.approx(1, abs=1e-6)
    assert 0.5 < explained["nonlinear"] < 0.8
    assert 0.3 < explained["gabor"] < 0.9


def test_gabors_are_unit_length_and_blind_to_the_mean():
    even, odd, places = gabor_bank((16, 16))
    assert_allclose(np.linalg.norm(even, axis=1), 1)
    assert_allclose(even.sum(1), 0, atol=1e-9)
    assert_allclose(odd.sum(1), 0, atol=1e-9)
    assert places.min() > 0
    assert places.max() < 1


def test_subjects_share_the_test_part_and_may_have_training_of_their_own():
    study = simulate(
        n_subjects=2, n_voxels=[30, 50], n_train=50, n_test=10, shared_training=False, seed=2
    )
    seen = [set(b["stimulus"].values) for b in study.betas]
    assert [b.sizes["voxel"] for b in study.betas] == [30, 50]
    assert seen[0] & seen[1] == set(study.test)
    assert len(study.train) == 100


def test_seeds_repeat_and_differ():
    small = {"n_train": 20, "n_test": 5, "n_voxels": 10}
    first, again, other = (simulate(**small, seed=s).betas[0]["signal"].values for s in (1, 1, 2))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_own_images_and_targets_are_used():
    study = simulate(n_train=20, n_test=5, n_voxels=10)
    again = simulate(study.images, study.targets, n_train=15, n_test=5, n_voxels=10)
    assert set(again.train) <= {*study.train, *study.test}
    with pytest.raises(DataError, match="targets lack"):
        simulate(study.images, study.targets.isel(trial=slice(0, 3)), n_train=15, n_test=5)
    assert json.loads(study.targets.attrs["fingerprint"]) == RandomTokens(4, 16).fingerprint()


def test_export_reads_back_voxel_by_voxel(tmp_path):
    import nibabel
    import pandas as pd

    study = simulate(n_train=12, n_test=4, n_voxels=20, n_sessions=2)
    files = export_nifti(study, tmp_path / "study")
    assert [f.name for f in files] == ["sub-01_ses-01_betas.nii.gz", "sub-01_ses-02_betas.nii.gz"]
    betas = study.betas[0]
    image = nibabel.load(files[1])
    mask = nibabel.load(tmp_path / "study/sub-01/sub-01_mask.nii.gz")
    inside = np.asarray(mask.dataobj).astype(bool)
    values = np.asarray(image.dataobj)[inside].T
    part = betas.isel(trial=betas["session"].values == "ses-02")
    assert_array_equal(values, part["signal"].values)
    assert_allclose(image.affine, json.loads(betas.attrs["affine"]))
    table = pd.read_csv(files[1].with_name("sub-01_ses-02_trials.tsv"), sep="\t")
    assert table["stimulus"].tolist() == part["stimulus"].values.tolist()
    assert len(list((tmp_path / "study/stimuli").glob("*.png"))) == 16
    with pytest.raises(InputError):
        export_nifti(study, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"truth": "magic"}, "truth"),
        ({"ceiling": 1.5}, "ceiling"),
        ({"nonlinear": 2.0, "truth": "nonlinear"}, "nonlinear"),
        ({"n_voxels": [3, 3]}, "n_voxels"),
        ({"n_train": 5000}, "pictures"),
        ({"n_train": 900, "n_subjects": 2, "shared_training": False}, "pictures"),
    ],
)
def test_wrong_parameters_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        simulate(**{"n_train": 10, "n_test": 5, **wrong})
