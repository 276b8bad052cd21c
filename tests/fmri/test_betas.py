"""From runs and events to trials: every method against what it stands for."""

from __future__ import annotations

import json
import sys
import types

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fmri.betas import betas
from fmri.design import trial_design
from fmri.glm import lsa, lsa_projector, lss, lss_projector, window_mean
from fmri.glmsingle import onset_matrix
from fmri.read import read_bold
from fmri.ridge import choose_fraction, ridge
from neuro.data import open_dataset, save_dataset
from neuro.errors import DataError, InputError

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
T_R, N = 2.0, 90


def events(n=8, seed=0, gap=18.0):
    rng = np.random.default_rng(seed)
    onsets = 4 + gap * np.arange(n) + rng.uniform(0, 4, n)
    kinds = np.array(["face", "house"])[np.arange(n) % 2]
    return pd.DataFrame({"onset": onsets, "duration": 1.0, "trial_type": kinds})


def image(n=N, seed=0, shape=(3, 3, 2)):
    values = np.random.default_rng(seed).normal(1000, 20, (*shape, n))
    return nibabel.Nifti1Image(values, AFFINE)


def nilearn_loop(img, table, others, confounds=None, sample=None):
    from nilearn.glm.first_level import FirstLevelModel

    mask = nibabel.Nifti1Image(np.ones(img.shape[:3], np.uint8), AFFINE)
    found = []
    for n in range(len(table)):
        kinds = table["trial_type"] if others == "condition" else pd.Series(["x"] * len(table))
        kinds = "other_" + kinds.astype(str)
        kinds[n] = "trial"
        model = FirstLevelModel(
            T_R, slice_time_ref=0.0, hrf_model="spm", drift_model="cosine", high_pass=0.01,
            mask_img=mask, noise_model="ols", signal_scaling=False, minimize_memory=True,
        )  # fmt: skip
        model.fit(img, table.assign(trial_type=kinds), confounds, sample_masks=sample)
        effect = model.compute_contrast("trial", output_type="effect_size")
        found.append(np.asarray(effect.dataobj)[np.ones(img.shape[:3], bool)])
    return np.stack(found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("others", ["one", "condition"])
@pytest.mark.parametrize("noisy", [False, True])
def test_lss_equals_nilearns_loop_in_double_precision(others, noisy):
    img, table = image(), events(gap=9.0)
    confounds = pd.DataFrame(np.random.default_rng(3).normal(size=(N, 3)), columns=list("abc"))
    confounds = confounds if noisy else None
    sample = np.setdiff1d(np.arange(N), [10, 11, 50]) if noisy else None
    series = img.get_fdata().reshape(-1, N).T
    design = trial_design(table, N, T_R, confounds=confounds, sample_mask=sample)
    kinds = table["trial_type"] if others == "condition" else None
    mine = lss(series[design.kept], design.trials, design.nuisance, kinds)
    peer = nilearn_loop(img, table, others, confounds, sample)
    assert_allclose(mine, peer, rtol=0, atol=1e-10)
    single = lss(series[design.kept].astype(np.float32), design.trials, design.nuisance, kinds)
    assert single.dtype == np.float32
    assert_allclose(single, peer, atol=2e-3)


def test_lss_equals_ordinary_least_squares_trial_by_trial():
    rng = np.random.default_rng(0)
    x, drift = rng.normal(size=(60, 7)), np.column_stack([np.ones(60), np.arange(60)])
    y = rng.normal(size=(60, 5)) + 100
    mine = lss(y, x, drift)
    for n in range(7):
        model = np.column_stack([x[:, n], x.sum(1) - x[:, n], drift])
        assert_allclose(mine[n], np.linalg.lstsq(model, y, rcond=None)[0][0], atol=1e-11)


def test_lsa_equals_ordinary_least_squares():
    rng = np.random.default_rng(0)
    x, drift, y = rng.normal(size=(60, 7)), np.ones((60, 1)), rng.normal(size=(60, 5))
    expected = np.linalg.lstsq(np.column_stack([x, drift]), y, rcond=None)[0][:7]
    assert_allclose(lsa(y, x, drift), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_trials_that_cannot_be_told_apart_are_named():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4))
    x[:, 2] = x[:, 1]
    with pytest.raises(DataError, match="depend on one another"):
        lsa_projector(x)
    x[:, 2] = 0
    with pytest.raises(DataError, match=r"trial 2 .* can't be told"):
        lss_projector(x, np.ones((40, 1)))
    # nilearn regularises such a matrix; what is left of the trial must still count as nothing.
    late = events().assign(onset=lambda t: t["onset"].where(t.index != 7, N * T_R - 0.5))
    design = trial_design(late, N, T_R)
    with pytest.raises(DataError, match=r"trial 7 .* end of the run"):
        lss_projector(design.trials, design.nuisance)


def test_known_responses_come_back():
    """Noise-free series: LSA exactly, in percent of the mean; ridge at fraction 1 too."""
    table = events()
    design = trial_design(table, N, T_R)
    truth = np.random.default_rng(0).normal(size=(8, 18))
    values = 500 + 5 * design.trials @ truth
    img = nibabel.Nifti1Image(values.T.reshape(3, 3, 2, N), AFFINE)
    bold = read_bold(img, t_r=T_R)
    found = betas(bold, table, method="lsa")
    mean = values.mean(0)
    assert_allclose(found["signal"].values, 500 * truth / mean, rtol=2e-3, atol=2e-3)
    assert found.attrs["units"] == "psc"
    whole = betas(bold, table, method="ridge", fracs=1.0, scale=None)
    assert_allclose(whole["signal"].values, 5 * truth, rtol=2e-3, atol=5e-3)
    assert betas(bold, table, method="lss", scale=None).attrs["units"] == "beta"


def test_a_window_is_the_mean_of_its_volumes():
    series = np.arange(20.0)[:, None]
    table = pd.DataFrame({"onset": [0.0, 10.0], "duration": [4.0, 8.0]})
    times = 2.0 * np.arange(20)
    found = window_mean(series, times, table, tmin=2, tmax=6)
    assert found.ravel().tolist() == [1.5, 6.5]  # 2, 4 s; 12, 14 s
    found = window_mean(series, times, table, tmin=2, tmax=2, until="offset")
    assert found.ravel().tolist() == [1.5, 7.5]
    with pytest.raises(DataError, match="the event at 0 s has no volume between 50 and 56"):
        window_mean(series, times, table, tmin=50, tmax=56)
    with pytest.raises(InputError, match="until is 'end'"):
        window_mean(series, times, table, tmin=0, tmax=1, until="end")


def test_runs_are_joined_with_labels_and_history(tmp_path):
    files, tables = [], []
    for n in range(2):
        files.append(tmp_path / f"sub-07_ses-0{n + 1}_task-see_bold.nii.gz")
        nibabel.save(image(seed=n), files[-1])
        tables.append(events(seed=n).assign(stim_file=[f"{k}.png" for k in range(8)]))
    found = betas(files, tables, method="window", t_r=T_R, tmin=4, tmax=8)
    assert dict(found.sizes) == {"trial": 16, "voxel": 18}
    assert found["subject"].values[0] == "sub-07"
    assert found["session"].values[[0, 15]].tolist() == ["ses-01", "ses-02"]
    assert found["run"].values[[0, 15]].tolist() == ["run-01", "run-02"]
    assert found["stimulus"].values[0] == "0.png"
    assert found["condition"].values[:2].tolist() == ["face", "house"]
    assert found["repeat"].values.tolist() == [0] * 8 + [1] * 8
    assert found.attrs["item"] == "recording"
    assert json.loads(found.attrs["preprocessing"])["betas"]["tmax"] == 8
    assert found.attrs["units"] == "z"
    save_dataset(found, tmp_path / "betas.zarr")
    assert open_dataset(tmp_path / "betas.zarr", load=True).identical(found)


def test_voxels_that_one_run_lacks_are_left_out():
    one, other = image(seed=0), image(seed=1)
    other.dataobj[0, 0, 0] = 7.0  # constant
    mask = nibabel.Nifti1Image(np.ones((3, 3, 2), np.uint8), AFFINE)
    found = betas([one, other], [events(), events()], method="lss", mask=mask, t_r=T_R)
    assert found.sizes["voxel"] == 17
    assert found.attrs["excluded"]["constant"] == 1
    assert "1 voxels that not all of the 2 files have" in found.attrs["notes"][-1]


def test_runs_of_two_grids_are_refused():
    other = nibabel.Nifti1Image(np.asarray(image().dataobj), 2 * AFFINE)
    with pytest.raises(DataError, match="run 1 has the affine"):
        betas([image(), other], [events(), events()], t_r=T_R)


def test_events_that_do_not_fit(tmp_path):
    table = events()
    table.loc[3, "onset"] = 500.0
    with pytest.raises(DataError, match=r"row 4 begins at 500 s, outside of the run of 90 volumes"):
        betas(image(), table, t_r=T_R)
    with pytest.raises(DataError, match="outside of the run"):
        betas(image(), events().assign(onset=-3.0), t_r=T_R)
    with pytest.raises(DataError, match="no column duration"):
        betas(image(), events().drop(columns="duration"), t_r=T_R)
    with pytest.raises(DataError, match="has no onset"):
        betas(image(), events().assign(onset="n/a"), t_r=T_R)
    with pytest.raises(DataError, match="none of the 8 events is a trial"):
        betas(image(), events(), t_r=T_R, trial_types=["cat"])
    with pytest.raises(InputError, match="1 runs and 2 tables"):
        betas(image(), [events(), events()], t_r=T_R)
    with pytest.raises(InputError, match="method is 'glm'"):
        betas(image(), events(), method="glm")


def test_events_that_are_no_trials_are_modelled_by_a_model():
    table = events()
    series = image().get_fdata().reshape(-1, N).T
    found = betas(image(), table, method="lsa", scale=None, t_r=T_R, trial_types=["face"])
    design = trial_design(table, N, T_R)
    faces = (table["trial_type"] == "face").to_numpy()
    nuisance = np.column_stack([design.nuisance, design.trials[:, ~faces].sum(1)])
    expected = lsa(series, design.trials[:, faces], nuisance)
    assert found.sizes["trial"] == 4
    assert_allclose(found["signal"].values, expected, atol=2e-2)


def test_cleaned_runs_and_other_datasets_are_refused():
    from fmri.clean import clean

    bold = read_bold(image(), t_r=T_R)
    with pytest.raises(InputError, match="was cleaned already"):
        betas(clean(bold), events())
    with pytest.raises(InputError, match="kind 'fmri'"):
        betas(bold.assign_attrs(kind="fmri"), events())
    before = bold["signal"].values.copy()
    betas(bold, events())
    assert_array_equal(bold["signal"].values, before)
    demeaned = bold.assign(signal=bold["signal"] - bold["signal"].mean("time"))
    with pytest.raises(DataError, match="pass scale=None"):
        betas(demeaned.assign_attrs(bold.attrs), events(), method="lss")


def test_confounds_reach_the_model_and_the_window():
    img, table = image(), events()
    noise = np.random.default_rng(5).normal(size=(N, 2))
    kept = np.setdiff1d(np.arange(N), [30, 31])
    for method in ("lss", "window"):
        plain = betas(img, table, method=method, t_r=T_R)
        clean = betas(img, table, method=method, t_r=T_R, confounds=[noise], sample_masks=[kept])
        assert not np.allclose(plain["signal"], clean["signal"], atol=1e-3)
    with pytest.raises(InputError, match="confounds has 2 entries for 1 runs"):
        betas(img, table, t_r=T_R, confounds=[noise, noise])
    with pytest.raises(InputError, match="found beside a file of fMRIPrep"):
        betas(img, table, t_r=T_R, confounds={"strategy": ["motion"]})


# Ridge ------------------------------------------------------------------------------------------


def test_ridge_has_the_lengths_asked_for():
    series = image().get_fdata().reshape(-1, N).T
    design = trial_design(events(gap=9.0), N, T_R)
    found = ridge(series, design, [1.0, 0.3])
    assert_allclose(found[0], lsa(series, design.trials, design.nuisance), atol=1e-3)
    share = np.linalg.norm(found[1], axis=0) / np.linalg.norm(found[0], axis=0)
    assert_allclose(share, 0.3, atol=0.02)
    with pytest.raises(InputError, match="fracs are"):
        ridge(series, design, [0.0, 1.0])


def test_repeats_choose_the_fraction():
    """A voxel of pure noise is shrunk, one that repeats itself is not."""
    rng = np.random.default_rng(0)
    names = np.repeat([f"s{n}" for n in range(20)], 2)
    signal = np.repeat(rng.normal(size=20), 2)
    plain = np.column_stack([signal + 0.05 * rng.normal(size=40), rng.normal(size=40)])
    fracs = np.array([0.1, 0.5, 1.0])
    shrunk = (fracs[:, None, None] * plain).astype(np.float32)
    best = choose_fraction(shrunk, plain.astype(np.float32), names, np.ones(40, bool))
    assert fracs[best].tolist() == [1.0, 0.1]
    with pytest.raises(DataError, match="none of the 20 training stimuli has two trials"):
        choose_fraction(shrunk, plain, names, np.arange(40) % 2 == 0)


def test_fractions_are_chosen_across_runs_by_training_stimuli_only():
    runs, tables = [image(seed=n) for n in range(2)], [events(seed=n) for n in range(2)]
    tables = [t.assign(stimulus=[f"s{k}" for k in range(8)]) for t in tables]
    with pytest.raises(InputError, match="name those with train_stimuli"):
        betas(runs, tables, method="ridge", fracs=[0.2, 1.0], t_r=T_R)
    train = ["s0", "s1", "s2", "s3"]
    found = betas(runs, tables, method="ridge", fracs=[0.2, 1.0], train_stimuli=train, t_r=T_R)
    assert set(np.unique(found["fraction"])) <= {0.2, 1.0}
    changed = [t.assign(stimulus=[*t["stimulus"][:4], "x", "y", "z", "w"]) for t in tables]
    other = betas(runs, changed, method="ridge", fracs=[0.2, 1.0], train_stimuli=train, t_r=T_R)
    assert_array_equal(found["fraction"], other["fraction"])


def test_without_fracridge_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fracridge", None)
    with pytest.raises(InputError, match="pip install fracridge"):
        betas(image(), events(), method="ridge", t_r=T_R)


# GLMsingle --------------------------------------------------------------------------------------


class FakeGLMsingle:
    """What the adapter relies on: the call, and betas (voxel, 1, 1, trial) in time order."""

    calls: list = []  # noqa: RUF012

    def __init__(self, params):
        self.params = params

    def fit(self, design, data, stimdur, tr, outputdir=None, figuredir=None):
        type(self).calls.append((self.params, design, data, stimdur, tr, outputdir))
        n = int(sum(d.sum() for d in design))
        values = np.arange(data[0].shape[0])[:, None] + 100 * np.arange(n)
        return {"typed": {"betasmd": values.reshape(len(values), 1, 1, n)}}


def test_glmsingle_is_fed_masked_runs_and_read_back(monkeypatch, tmp_path):
    module = types.ModuleType("glmsingle.glmsingle")
    module.GLM_single = FakeGLMsingle
    monkeypatch.setitem(sys.modules, "glmsingle", types.ModuleType("glmsingle"))
    monkeypatch.setitem(sys.modules, "glmsingle.glmsingle", module)
    monkeypatch.chdir(tmp_path)
    table = events().assign(onset=lambda t: 2 * np.round(t["onset"] / 2), stimulus=list("abcdabcd"))
    runs = [image(seed=0), image(seed=1)]
    found = betas(runs, [table, table], method="glmsingle", t_r=T_R, glmsingle={"n_pcs": 3})
    params, design, data, stimdur, tr, folder = FakeGLMsingle.calls[-1]
    assert params["n_pcs"] == 3
    assert params["sessionindicator"].tolist() == [[1, 1]]
    assert [d.shape for d in design] == [(N, 4)] * 2
    assert design[0].sum() == 8
    assert data[0].shape == (18, N)
    assert data[0].dtype == np.float32
    assert (stimdur, tr) == (1.0, T_R)
    assert str(tmp_path) not in folder
    assert not list(tmp_path.iterdir())
    assert_array_equal(found["signal"].values[9], 900 + np.arange(18))
    assert found.attrs["units"] == "psc"
    unique = table.assign(stimulus=list("abcdefgh"))
    with pytest.raises(DataError, match="none of the 8 stimuli has two trials"):
        betas(runs[:1], [unique], method="glmsingle", t_r=T_R)


def test_without_glmsingle_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "glmsingle", None)
    monkeypatch.setitem(sys.modules, "glmsingle.glmsingle", None)
    with pytest.raises(InputError, match="pip install git"):
        betas(image(), events(), method="glmsingle", t_r=T_R)


def test_onsets_off_the_volumes_are_refused():
    table = pd.DataFrame({"onset": [1.0], "stimulus": ["a"]})
    with pytest.raises(DataError, match=r"1\.00 s off the next volume"):
        onset_matrix(table, ["a"], 10, 2.0)
    table = pd.DataFrame({"onset": [2.0, 2.2], "stimulus": ["a", "b"]})
    with pytest.raises(DataError, match="two trials fall on one volume"):
        onset_matrix(table, ["a", "b"], 10, 2.0)
