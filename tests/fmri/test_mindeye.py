"""MindEye on simulated voxels: retrieval, prior, new subjects, contracts, saving."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr

import neuro.packing
from fmri.low_level import latent_dataset, low_level_latents
from fmri.mindeye import MindEye, average_repeats
from fmri.subjects import as_subjects
from fmri.warm_start import ALPHAS, components, ridge
from neuro import load
from neuro.errors import ContractError, DataError, InputError

T, F = 4, 12
AFFINE = json.dumps(np.diag([2.0, 2.0, 2.0, 1.0]).tolist())


def names(n, start=0):
    return [f"image{number:04d}" for number in range(start, start + n)]


def target_values(n=240, seed=0):
    """Tokens with a few strong directions, as embeddings have."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 12)) * np.arange(1, 13) ** -0.3
    mixing = np.random.default_rng(99).normal(size=(12, T * F)) / np.sqrt(12)
    return (np.tanh(latent @ mixing) + 0.2 * rng.normal(size=(n, T * F))).reshape(n, T, F)


def targets(values, **attrs):
    return xr.Dataset(
        {"signal": (("trial", "token", "feature"), values.astype(np.float16))},
        coords={"stimulus": ("trial", names(len(values)))},
        attrs={"fingerprint": json.dumps({"provider": "simulated"}), "kind": "targets"} | attrs,
    )


def betas(values, rows, subject="s1", n_voxels=150, noise=1.5, seed=1, kind="linear"):
    """Voxels driven by the tokens of the images `rows`."""
    rng = np.random.default_rng(seed)
    flat = values.reshape(len(values), -1)
    gain = rng.normal(size=(flat.shape[1], n_voxels)) / np.sqrt(flat.shape[1]) * 2
    clean = flat @ gain
    if kind == "nonlinear":
        other = flat @ (rng.normal(size=gain.shape) / np.sqrt(flat.shape[1]) * 2)
        clean = 0.6 * clean + 0.8 * np.abs(other)
    clean /= clean.std()
    signal = clean[rows] + noise * np.random.default_rng([seed, 7]).normal(
        size=(len(rows), n_voxels)
    )
    repeat = [int((rows[:n] == row).sum()) for n, row in enumerate(rows)]
    places = np.arange(n_voxels)
    return xr.Dataset(
        {"signal": (("trial", "voxel"), signal.astype(np.float32))},
        coords={
            "subject": ("trial", [subject] * len(rows)),
            "session": ("trial", ["1"] * len(rows)),
            "stimulus": ("trial", np.array(names(len(values)))[rows]),
            "repeat": ("trial", repeat),
            "i": ("voxel", places % 10), "j": ("voxel", places // 10), "k": ("voxel", 0 * places),
        },
        attrs={"kind": "fmri", "units": "psc", "affine": AFFINE},
    )  # fmt: skip


def top1(Z, values):
    """Brain to image and image to brain, all candidates."""
    a, b = np.asarray(Z).reshape(len(Z), -1), values.reshape(len(values), -1)
    score = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    right = np.arange(len(score))
    return (score.argmax(1) == right).mean(), (score.argmax(0) == right).mean()


def cosine(A, B):
    a, b = np.asarray(A).reshape(len(A), -1), np.asarray(B).reshape(len(B), -1)
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()


QUICK = {"device": "cpu", "n_hidden": 48, "max_epochs": 12, "prior": False, "batch_size": 100}


@pytest.fixture(scope="module")
def study():
    values = target_values()
    train = np.repeat(np.arange(180), 2)
    test = np.repeat(np.arange(180, 240), 2)
    return values, betas(values, train), betas(values, test)


@pytest.fixture(scope="module")
def fitted(study):
    values, train, _ = study
    options = QUICK | {"prior": True, "prior_max_epochs": 10}
    return MindEye(**options).fit(train, targets(values))


def test_held_out_retrieval_is_far_above_chance_and_shuffled(study, fitted):
    values, train, test = study
    Z = average_repeats(fitted.transform(test))
    there, back = top1(Z, values[180:])
    assert min(there, back) > 0.4  # chance is 1 / 60
    shuffled = targets(values[np.random.default_rng(0).permutation(240)])
    other = MindEye(**QUICK).fit(train, shuffled)
    wrong = top1(average_repeats(other.transform(test)), values[180:])
    assert max(wrong) < 0.15
    np.testing.assert_allclose(np.square(Z.values).sum((1, 2)), 1, rtol=1e-5)
    assert Z.n_repeats.values.tolist() == [2] * 60
    assert "repeat" not in Z.coords


def test_outputs_keep_coordinates_and_kind(study, fitted):
    _, _, test = study
    Z = fitted.transform(test)
    assert Z.dims == ("trial", "token", "feature")
    assert Z.shape == (120, T, F)
    assert Z.stimulus.values.tolist() == test.stimulus.values.tolist()
    plain = fitted.transform(test.signal.values)
    assert isinstance(plain, np.ndarray)
    np.testing.assert_allclose(plain, Z.values, atol=1e-6)
    assert fitted.n_latents == T * F


def test_repeats_are_single_and_splits_are_by_stimulus(study):
    from fmri.fit_data import match

    values, train, _ = study
    data = match(MindEye(**QUICK), as_subjects(train), targets(values), None)
    rows = data.rows[0]
    assert len(data.train[0]) + len(data.held[0]) == 360
    assert not set(rows[data.train[0]]) & set(rows[data.held[0]])
    assert set(data.trained) == set(rows[data.train[0]])
    np.testing.assert_allclose(data.values[0][data.train[0]].mean(0), 0, atol=1e-4)
    assert data.targets.dtype == np.float16


def test_the_prior_follows_the_brain_and_a_trial_is_its_own(study, fitted):
    values, _, test = study
    options = {"steps": 5, "random_state": 1}
    whole = fitted.predict_tokens(test, **options)
    part = fitted.predict_tokens(test.isel(trial=[7, 3]), **options)
    np.testing.assert_allclose(part.values, whole.values[[7, 3]], atol=2e-3)
    true = values[180:][np.repeat(np.arange(60), 2)] - values[:180].mean(0)
    mean = fitted.predict_tokens(test, steps=1).values - values[:180].mean(0)
    assert cosine(mean, true) > 0.5
    assert cosine(mean, np.roll(true, 10, axis=0)) < 0.2
    backbone = fitted.predict_tokens(test, prior=False)
    assert backbone.attrs["space"] == "targets"


def test_seeds_repeat_and_differ(study):
    values, train, test = study
    options = QUICK | {"max_epochs": 3, "prior": True, "prior_max_epochs": 2}
    models = [
        MindEye(**options, random_state=seed).fit(train, targets(values)) for seed in (3, 3, 4)
    ]
    codes = [model.predict_tokens(test, steps=3).values for model in models]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.allclose(codes[0], codes[2], atol=1e-3)


def test_saved_and_loaded_it_gives_the_same(study, fitted, tmp_path, monkeypatch):
    _, _, test = study
    monkeypatch.setattr(neuro.packing, "encoder_class", lambda name: MindEye)
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(test), fitted.transform(test))
    np.testing.assert_array_equal(
        again.predict_tokens(test, steps=3), fitted.predict_tokens(test, steps=3)
    )
    assert again.target_ == fitted.target_
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessing.json",
    ]  # fmt: skip
    seen = again.seen(test)
    assert not seen.trials.any()
    assert seen.subjects.all()


def test_other_voxels_are_refused_with_both_sides(study, fitted):
    _, _, test = study
    with pytest.raises(ContractError, match="found 149 voxels, expected 150"):
        fitted.transform(test.isel(voxel=slice(1, None)))
    moved = test.assign_coords(k=("voxel", np.r_[5, np.zeros(149, int)]))
    with pytest.raises(ContractError, match=r"is at \(0, 0, 5\), expected \(0, 0, 0\); 149 are"):
        fitted.transform(moved)
    other = json.dumps(np.diag([3.0, 3.0, 3.0, 1.0]).tolist())
    with pytest.raises(ContractError, match=r"affine is .*3\.0.*expected .*2\.0"):
        fitted.transform(test.assign_attrs(affine=other))
    with pytest.raises(ContractError, match="units are 'z', expected 'psc'"):
        fitted.transform(test.assign_attrs(units="z"))
    with pytest.raises(ContractError, match="subject 's9' is none of those trained on: 's1'"):
        fitted.transform(test.assign_coords(subject=("trial", ["s9"] * 120)))
    with pytest.raises(ContractError, match="dims"):
        fitted.transform(test.signal.T)


def test_other_targets_are_refused_with_both_sides(study, fitted):
    values, train, _ = study
    other = targets(values, fingerprint=json.dumps({"provider": "other"}))
    with pytest.raises(ContractError, match=r"\"other\".*expected .*\"simulated\""):
        fitted.fine_tune(train, other)
    with pytest.raises(ContractError, match=r"shape \(4, 6\).*expected \(4, 12\)"):
        fitted.check_targets(targets(values[:, :, :6]))
    fitted.check_targets(targets(values))


def test_subjects_with_different_voxels_share_a_backbone(study):
    values, train, test = study
    rows = np.repeat(np.arange(180), 2)
    second = betas(values, rows[:200], "s2", n_voxels=110, seed=5)
    model = MindEye(**QUICK).fit([train, second], targets(values))
    assert [s.n_voxels for s in model.subjects_] == [150, 110]
    held = betas(values, np.arange(180, 240), "s2", n_voxels=110, seed=5)
    own, other = model.transform([held, test])
    assert top1(own, values[180:])[0] > 0.15
    assert top1(average_repeats(other), values[180:])[0] > 0.35


def test_a_new_subject_needs_few_trials():
    [(train, _), (other, test)], y = simulated("nonlinear", 0, n_subjects=2)
    few = other.isel(trial=slice(0, None, 10))
    options = {"device": "cpu", "prior": False}
    model = MindEye(**options).fit(train, y)
    tuned, scratch = model.fine_tune(few, y), MindEye(**options).fit(few, y)
    scores = []
    for one in (tuned, scratch):
        Z = average_repeats(one.transform(test))
        scores.append(hits(Z, of_stimuli(y, Z)).mean())
    assert scores[0] > scores[1]
    assert [s.name for s in model.subjects_] != [s.name for s in tuned.subjects_]


def test_the_low_level_branch_learns_the_latent(study):
    values, train, test = study
    flat = values.reshape(240, -1)
    maps = np.random.default_rng(4).normal(size=(T * F, 2 * 4 * 4)) / np.sqrt(T * F)
    latents = (flat @ maps).reshape(240, 2, 4, 4)
    model = MindEye(**QUICK | {"max_epochs": 25}, low_level_weight=2.0).fit(
        train, targets(values), low_level=latent_dataset(latents, names(240))
    )
    found = low_level_latents(model, test)
    assert found.dims == ("trial", "channel", "row", "column")
    true = latents[180:] - latents[:180].mean(0)
    assert cosine(found.values - latents[:180].mean(0), true) > 0.4
    assert {"low_level", "nce", "anchor"} <= set(model.history_[0])
    with pytest.raises(InputError, match="no low-level branch"):
        MindEye(**QUICK | {"max_epochs": 1}).fit(train, targets(values)).predict_low_level(test)


@pytest.mark.parametrize("loss", ["bimixco+softclip", "bimixco", "softclip", "infonce"])
@pytest.mark.parametrize(("preset", "head"), [("mindeye1", "separate"), ("mindeye2", "shared")])
def test_every_ablation_trains(study, loss, preset, head):
    values, train, test = study
    model = MindEye(
        preset, loss, head, prior=False, n_hidden=16, n_blocks=1, rank=8, max_epochs=3,
        batch_size=60, device="cpu",
    )  # fmt: skip
    model.fit(train, targets(values))
    assert model.transform(test).shape == (120, T, F)
    assert len(model.history_) == 3


def test_the_papers_presets_train_the_prior_with_the_backbone(study):
    values, train, _ = study
    options = {"n_hidden": 16, "n_blocks": 1, "max_epochs": 2, "batch_size": 60, "device": "cpu"}
    model = MindEye("mindeye1", **options).fit(train, targets(values, scale=3.0))
    assert {"prior", "nce", "val_selection"} <= set(model.history_[0])
    assert model.model_.scale.factor.item() == 3.0
    assert model.prior_history_ == []


def test_a_killed_fit_continues(study, tmp_path):
    values, train, test = study
    options = QUICK | {"max_epochs": 3}
    whole = MindEye(**options).fit(train, targets(values))
    first = MindEye(**options).fit(train, targets(values), scratch=tmp_path)
    again = MindEye(**options).fit(train, targets(values), scratch=tmp_path)
    for model in (first, again):
        np.testing.assert_array_equal(model.transform(test), whole.transform(test))


def test_memory_mapped_half_precision_targets(study, tmp_path):
    values, train, test = study
    path = tmp_path / "targets.npy"
    np.save(path, values.astype(np.float16))
    mapped = np.load(path, mmap_mode="r")
    y = targets(values).copy()
    y["signal"] = (("trial", "token", "feature"), mapped)
    options = QUICK | {"max_epochs": 2}
    found = [MindEye(**options).fit(train, t).transform(test).values for t in (y, targets(values))]
    np.testing.assert_array_equal(*found)


def test_training_that_does_not_fit_into_memory_is_told(study, monkeypatch):
    import psutil

    values, train, _ = study
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.warns(UserWarning, match=r"needs about .* GB, 0\.0 GB are free"):
        MindEye(**QUICK | {"max_epochs": 0}).fit(train, targets(values))


def test_bad_data_is_refused_by_name(study):
    values, train, _ = study
    y = targets(values)
    with pytest.raises(DataError, match="60 of 180 stimuli have no targets: image0000"):
        MindEye(**QUICK).fit(train, y.isel(trial=slice(60, None)))
    with pytest.raises(DataError, match="no coordinate 'stimulus'"):
        MindEye(**QUICK).fit(train.drop_vars("stimulus"), y)
    with pytest.raises(DataError, match="a stimulus twice"):
        MindEye(**QUICK).fit(train, xr.concat([y, y], "trial"))
    broken = train.copy(deep=True)
    broken.signal[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN or infinity in 1 of 360 trials"):
        MindEye(**QUICK).fit(broken, y)
    with pytest.raises(DataError, match="in two of the datasets: 's1'"):
        MindEye(**QUICK).fit([train, train], y)
    with pytest.raises(InputError, match="preset is 'large'; expected one of small"):
        MindEye("large").fit(train, y)
    with pytest.raises(InputError, match="input_dropout is 1"):
        MindEye(input_dropout=1.0).fit(train, y)


def test_the_warm_start_is_a_ridge_regression():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 6)).astype("f4"), rng.normal(size=(40, 3)).astype("f4")
    for design in (X, X.T.copy()[:, :6].repeat(9, 1)):
        best, smooth, alpha = ridge(design, Y[: len(design)], np.arange(len(design)))
        for found, penalty in ((best, alpha), (smooth, 10 * alpha)):
            gram = design.T @ design + penalty * np.eye(design.shape[1])
            exact = np.linalg.solve(gram, design.T @ Y[: len(design)])
            np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-5)
        assert alpha in ALPHAS
    found = components(Y, 3)
    np.testing.assert_allclose(found.scores @ found.basis + found.offset, Y, atol=1e-5)


def hits(Z, true):
    a, b = np.asarray(Z).reshape(len(Z), -1), true.reshape(len(true), -1)
    score = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    right = np.arange(len(score))
    return np.stack([score.argmax(1) == right, score.argmax(0) == right]).astype(float)


def simulated(truth, seed, n_subjects=1):
    """Betas z-scored by session: (training, test) of every subject, and the targets."""
    pytest.importorskip("himalaya")
    from fmri.sessions import standardize_sessions
    from fmri.simulate import simulate

    study = simulate(truth=truth, seed=seed, n_subjects=n_subjects, n_test=200)
    parts = []
    for one in study.betas:
        data, _ = standardize_sessions(one, study.train)
        names = data.stimulus.values.astype(str)
        parts.append([data.isel(trial=np.isin(names, part)) for part in (study.train, study.test)])
    return parts, study.targets


def of_stimuli(y, data):
    where = {name: row for row, name in enumerate(y.stimulus.values.astype(str))}
    return y.signal.values.astype("f4")[[where[str(s)] for s in data.stimulus.values]]


def test_torch_is_left_as_it_was(study):
    values, train, _ = study
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    MindEye(**QUICK | {"max_epochs": 1}).fit(train, targets(values))
    assert torch.equal(torch.rand(3), expected)


def test_decoding_a_saved_dataset_with_a_gallery(study, fitted, tmp_path):
    from fmri.gallery_build import build_gallery
    from neuro.data import save_dataset

    values, _, test = study
    save_dataset(test, tmp_path / "test.zarr")
    gallery = targets(values).isel(trial=slice(180, 240))
    build_gallery(gallery, tmp_path / "gallery")
    options = fitted.DecodeOptions(gallery=tmp_path / "gallery", top_k=3, steps=2)
    found = fitted.decode(tmp_path / "test.zarr", options)
    assert found.retrieved.shape == found.similarity.shape == (120, 3)
    right = (found.retrieved.values == test.stimulus.values[:, None]).any(1).mean()
    assert right > 0.4  # chance is 1 / 20
    assert (np.diff(found.similarity.values, axis=1) <= 0).all()
    np.testing.assert_array_equal(found.codes, fitted.transform(test))
    assert found.tokens.shape == (120, T, F)
    assert found.attrs["overlap"] == 1.0
    assert not found.seen_trial.any()
    other = gallery.assign_attrs(fingerprint=json.dumps({"provider": "other"}))
    build_gallery(other, tmp_path / "other")
    with pytest.raises(ContractError, match="other"):
        fitted.decode(tmp_path / "test.zarr", fitted.DecodeOptions(gallery=tmp_path / "other"))
