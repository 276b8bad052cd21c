"""The encoder contract, proven on small NumPy encoders registered by an entry point."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import neuro
from neuro.data import as_signal, save_dataset
from neuro.encoder import Encoder, encoder_class, load, refuse_if_fitted
from neuro.errors import ContractError, DataError, InputError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Put the package of small encoders, entry points and all, on the path."""
    monkeypatch.syspath_prepend(HERE / "tiny")
    import tiny_encoders

    yield tiny_encoders
    sys.modules.pop("tiny_encoders", None)


def dataset(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), rng.normal(size=(n, 3, 10)).astype("f4"))},
        coords={
            "channel": ["Fz", "Cz", "Pz"],
            "time": np.arange(10) / 100 - 0.02,
            "subject": ("trial", [f"s{i // 4}" for i in range(n)]),
            "session": ("trial", [f"{i % 4 // 2}" for i in range(n)]),
            "condition": ("trial", ["a", "b"] * (n // 2)),
        },
        attrs={
            "kind": "eeg",
            "units": "uV",
            "sfreq": 100.0,
            "preprocessing": json.dumps({"l_freq": 0.1, "reference": "average"}),
        },
    )


@pytest.fixture
def signal():
    return as_signal(dataset())


@pytest.fixture
def fitted(tiny, signal):
    return tiny.TinyPCA(n_latents=2).fit(signal)


# scikit-learn -----------------------------------------------------------------------------


def test_scikit_learns_own_checks(tiny):
    """Run every check of scikit-learn's; none is excluded."""
    results = check_estimator(tiny.TinyPCA(), on_skip=None)
    passed = [r for r in results if r["status"] == "passed"]
    skipped = [r["check_name"] for r in results if r["status"] == "skipped"]
    assert len(passed) >= 40
    assert skipped in ([], ["check_array_api_input"])  # it asks for SCIPY_ARRAY_API


def test_clone_and_parameters(tiny):
    encoder = clone(tiny.TinyPCA(n_latents=3, whiten=True))
    assert encoder.get_params() == {"n_latents": 3, "whiten": True}


def test_cross_validation_and_pipeline_take_a_dataarray(tiny, signal):
    pipeline = make_pipeline(tiny.TinyPCA(n_latents=4), LogisticRegression())
    scores = cross_val_score(
        pipeline, signal, signal.condition.values, groups=signal.subject.values, cv=GroupKFold(3)
    )
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_feature_names_and_set_output(tiny, signal):
    encoder = tiny.TinyPCA(n_latents=2).fit(signal)
    assert encoder.get_feature_names_out().tolist() == ["tinypca0", "tinypca1"]
    encoder.set_output(transform="pandas")
    for X in (signal, signal.values):
        frame = encoder.transform(X)
        assert list(frame.columns) == ["tinypca0", "tinypca1"]
        assert len(frame) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X[:, :5], "X has 5 features, but TinyPCA is expecting 6"),
        (lambda X: np.where(X[0, 0] == X, np.nan, X), "contains NaN"),
        (lambda X: np.where(X[0, 0] == X, np.inf, X), "contains infinity"),
        (lambda X: np.full(X.shape, "Fz"), "could not convert string"),
        (lambda X: X[0], "Expected 2D array, got 1D"),
    ],
)
def test_plain_arrays_get_the_usual_errors(tiny, change, message):
    X = np.random.default_rng(0).normal(size=(8, 6))
    encoder = tiny.TinyPCA().fit(X)
    with pytest.raises(ValueError, match=message):
        encoder.transform(change(X))


def test_sparse_input_is_refused(tiny):
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match=r"[Ss]parse"):
        tiny.TinyPCA().fit(csr_array(np.eye(5)))


# Input and output -------------------------------------------------------------------------


def test_a_dataarray_gives_a_dataarray_with_its_trials(fitted, signal):
    codes = fitted.transform(signal)
    assert codes.dims == ("trial", "latent")
    assert codes.subject.identical(signal.subject.drop_vars([]))
    assert codes.latent.values.tolist() == [0, 1]
    plain = fitted.transform(signal.values)
    assert isinstance(plain, np.ndarray)
    np.testing.assert_array_equal(plain, codes)


def test_two_axes_are_one_channel(tiny, signal):
    flat = signal.values[:, 0]
    plain = tiny.TinyPCA().fit(flat)
    assert plain.contract_.shape == (1, 10)
    np.testing.assert_array_equal(plain.transform(flat), plain.transform(flat[:, None]))
    labelled = tiny.TinyPCA().fit(signal[:, 0].drop_vars("channel"))
    assert labelled.transform(signal[:, 0].drop_vars("channel")).shape == (12, 1)
    for same in (flat, flat[:, None], signal[:, [0]]):
        np.testing.assert_array_equal(labelled.transform(same), plain.transform(flat))


def test_a_dataset_and_a_path_are_read(fitted, signal, tmp_path):
    save_dataset(dataset(), tmp_path / "d.zarr")
    expected = fitted.transform(signal)
    assert fitted.transform(dataset()).equals(expected)
    assert fitted.transform(tmp_path / "d.zarr").equals(expected)
    with pytest.raises(DataError, match=r"x\.fif: TinyPCA reads saved datasets"):
        fitted.transform("x.fif")


def test_channels_are_matched_by_name(fitted, signal):
    shuffled = signal.isel(channel=[2, 0, 1])
    np.testing.assert_array_equal(fitted.transform(shuffled), fitted.transform(signal))


def extra_channel(X):
    return xr.concat([X, X.isel(channel=[0]).assign_coords(channel=["Oz"])], dim="channel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda X: X.sel(channel=["Fz", "Pz"]),
            "channels missing: Cz; found Fz, Pz, expected Fz, Cz, Pz",
        ),
        (extra_channel, "doesn't know: Oz; found Fz, Cz, Pz, Oz.*align=True drops"),
        (lambda X: X.assign_coords(channel=["Fz", "Cz", "Cz"]), "named twice: Cz"),
        (lambda X: X.assign_attrs(sfreq=128.0), "sfreq is 128.0 Hz, expected 100.0 Hz; resample"),
        (lambda X: X.assign_attrs(units="V"), "units is V, expected uV; convert"),
        (
            lambda X: X.isel(time=slice(5)),
            r"time axis is -0.02 to 0.02 s in 5 samples, expected -0.02 to 0.07 s in 10",
        ),
        (lambda X: X.assign_coords(time=X.time + 0.01), "time axis is -0.01 to 0.08"),
        (
            lambda X: X.assign_attrs(preprocessing='{"l_freq": 1.0, "reference": "average"}'),
            "another way: l_freq is 1.0, expected 0.1; decode the raw",
        ),
        (lambda X: X.rename(time="voxel"), r"the dims are .*'voxel'.*, expected"),
        (lambda X: X.transpose("channel", "trial", "time"), "first axis is 'channel'"),
        (lambda X: X.drop_vars("time").isel(time=slice(5)), r"shape \(3, 5\), expected \(3, 10\)"),
    ],
)
def test_data_outside_the_contract_is_refused_with_both_sides(fitted, signal, change, message):
    with pytest.raises(ContractError, match=message):
        fitted.transform(change(signal))


def test_align_drops_unknown_channels_only(fitted, signal):
    wide = extra_channel(signal)
    np.testing.assert_array_equal(fitted.check_input(wide, align=True), signal.values)
    assert fitted.transform(fitted.align(wide)).equals(fitted.transform(signal))
    with pytest.raises(ContractError, match="missing: Pz"):
        fitted.align(wide.sel(channel=["Fz", "Cz", "Oz"]))


def test_a_plain_array_is_checked_by_shape_alone(fitted, signal):
    with pytest.raises(ContractError, match=r"shape \(3, 9\), expected \(3, 10\)"):
        fitted.transform(signal.values[:, :, :9])
    with pytest.raises(ValueError, match="X has 2 features"):
        fitted.transform(signal.values[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X.where(X.subject != "s1"), "subject s1, channel Fz"),
        (lambda X: X.isel(trial=[]), "no trial"),
        (lambda X: X.astype(complex), "complex128, expected real"),
        (lambda X: X.assign_coords(channel=["Fz", "Cz", "Cz"]), "named twice: Cz; rename"),
    ],
)
def test_training_data_is_checked(tiny, signal, change, message):
    with pytest.raises(DataError, match=message):
        tiny.TinyPCA().fit(change(signal))


# What it was fitted on --------------------------------------------------------------------


def test_seen_tells_trials_subjects_and_sessions(tiny, signal):
    encoder = tiny.TinyPCA().fit(signal[:6])  # s0 whole, s1's first session
    seen = encoder.seen(signal)
    assert seen.trials.tolist() == [True] * 6 + [False] * 6
    assert seen.subjects.tolist() == [True] * 8 + [False] * 4
    assert seen.sessions.tolist() == [True] * 6 + [False] * 6
    assert encoder.seen(signal.isel(channel=[2, 1, 0])).trials.tolist() == seen.trials.tolist()
    assert not encoder.seen(signal.values).subjects.any()  # nobody is named
    assert encoder.seen(signal.values).trials.sum() == 6


def test_subjects_may_come_by_keyword(tiny, signal):
    encoder = tiny.TinyPCA().fit(signal.values, subject=["p"] * 12)
    assert encoder.seen(signal.assign_coords(subject=("trial", ["p"] * 12))).subjects.all()
    with pytest.raises(DataError, match=r"'subject' has the shape \(1,\)"):
        tiny.TinyPCA().fit(signal, subject=["p"])


def test_an_unnamed_subject_is_nobody(tiny, signal):
    unnamed = signal.assign_coords(subject=("trial", [""] * 12))
    assert not tiny.TinyPCA().fit(unnamed).seen(unnamed).subjects.any()


def test_scoring_on_training_data_is_refused_unless_asked(tiny, signal):
    encoder = tiny.TinyPCA().fit(signal[:6])
    refuse_if_fitted(encoder, signal[8:])
    with pytest.raises(ContractError, match="0 of 2 trials, and the subjects of 2"):
        refuse_if_fitted(encoder, signal[6:8])
    refuse_if_fitted(encoder, signal, allow=True)


def test_decode_flags_what_was_trained_on(tiny, signal, tmp_path):
    encoder = tiny.TinyPCA(n_latents=2).fit(signal[:6])
    save_dataset(dataset(), tmp_path / "d.zarr")
    decoded = encoder.decode(tmp_path / "d.zarr")
    assert decoded.codes.dims == ("trial", "latent")
    assert decoded.seen_trial.values.sum() == 6
    assert decoded.seen_subject.values.sum() == 8
    save_dataset(decoded, tmp_path / "decoded.zarr")
    assert decoded.attrs["source"] == "d.zarr"


def test_decode_aligns_when_asked(fitted, tmp_path):
    wide = extra_channel(dataset().signal).to_dataset().assign_attrs(dataset().attrs)
    save_dataset(wide, tmp_path / "wide.zarr")
    with pytest.raises(ContractError, match="doesn't know: Oz"):
        fitted.decode(tmp_path / "wide.zarr")
    options = fitted.DecodeOptions(align=True)
    assert fitted.decode(tmp_path / "wide.zarr", options).sizes["trial"] == 12


# On disk ----------------------------------------------------------------------------------


def test_the_round_trip_is_exact(fitted, signal, tmp_path):
    fitted.save(tmp_path / "e")
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessing.json",
    ]
    back = neuro.load(tmp_path / "e")
    assert back.transform(signal).identical(fitted.transform(signal))
    assert back.get_params() == fitted.get_params()
    assert back.contract() == fitted.contract()
    assert back.contract_ == fitted.contract_
    back.save(tmp_path / "again")
    for path in (tmp_path / "e").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_an_encoder_of_frames_keeps_their_names(tiny, tmp_path):
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 3)), columns=["a", "b", "c"])
    tiny.TinyPCA().fit(frame).save(tmp_path / "e")
    back = load(tmp_path / "e")
    assert back.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        back.transform(frame[["b", "a", "c"]])


def test_an_encoder_of_two_parts(tiny, signal, tmp_path):
    encoder = tiny.TinyPrior(base=tiny.TinyPCA(n_latents=2, whiten=True)).fit(signal)
    encoder.save(tmp_path / "e")
    keys = load_file(tmp_path / "e" / "model.safetensors").keys()
    assert set(keys) == {"prior", "base_/mean", "base_/components", "base_/scale"}
    back = load(tmp_path / "e")
    assert back.base.get_params() == {"n_latents": 2, "whiten": True}
    assert back.transform(signal).identical(encoder.transform(signal))


def test_a_link_is_followed_and_an_old_encoder_replaced(fitted, signal, tmp_path):
    fitted.save(tmp_path / "store" / "e")
    (tmp_path / "link").symlink_to(tmp_path / "store" / "e")
    clone(fitted).set_params(n_latents=1).fit(signal).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "link").n_latents == 1
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["e"]


def test_a_folder_of_other_things_is_not_replaced(fitted, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"has no config\.json.*thesis\.tex"):
        fitted.save(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_failed_save_leaves_the_old_encoder(fitted, signal, tmp_path, monkeypatch):
    fitted.save(tmp_path / "e")
    before = {p.name: p.read_bytes() for p in (tmp_path / "e").iterdir()}

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        clone(fitted).set_params(n_latents=1).fit(signal).save(tmp_path / "e")
    assert {p.name: p.read_bytes() for p in (tmp_path / "e").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_the_card_is_written(fitted, tmp_path):
    fitted.save(tmp_path / "e")
    text = (tmp_path / "e" / "README.md").read_text()
    assert "12 trials of 3 subjects" in text
    assert "Fz, Cz, Pz" in text
    fitted.save(tmp_path / "e", card="# Mine\n")
    assert (tmp_path / "e" / "README.md").read_text() == "# Mine\n"
    load(tmp_path / "e")


def test_what_json_cannot_hold_is_refused(tiny, signal, tmp_path):
    encoder = tiny.TinyPCA(whiten=np.random.RandomState(0)).fit(signal)
    with pytest.raises(InputError, match="parameter 'whiten' is RandomState"):
        encoder.save(tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessing.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "empty"])
def test_damaged_files_are_named(fitted, tmp_path, name, damage):
    fitted.save(tmp_path / "e")
    path = tmp_path / "e" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        wrong = {
            "cut": content[: len(content) // 2],
            "changed": content.replace(b"1", b"2"),
            "empty": b"",
        }
        path.write_bytes(wrong[damage])
    with pytest.raises(ContractError, match=name):
        load(tmp_path / "e")


def resign(folder, **changes):
    """Change an encoder folder as somebody would who can compute checksums."""
    from neuro.artefact import CONFIG, PREPROCESSING, WEIGHTS, _config_sha, _sha

    config = {**json.loads((folder / CONFIG).read_text()), **changes}
    for name in (WEIGHTS, PREPROCESSING):
        config["checksums"][name] = _sha((folder / name).read_bytes())
    config["checksums"][CONFIG] = _config_sha(config)
    (folder / CONFIG).write_text(json.dumps(config))


def test_loading_is_strict_about_arrays(fitted, tmp_path):
    fitted.save(tmp_path / "e")
    weights = tmp_path / "e" / "model.safetensors"
    arrays = load_file(weights)
    cases = {
        "unknown arrays \\['payload'\\]": {**arrays, "payload": np.zeros(2)},
        "no array 'scale'": {k: v for k, v in arrays.items() if k != "scale"},
    }
    for message, changed in cases.items():
        save_file(changed, weights)
        resign(tmp_path / "e")
        with pytest.raises(ContractError, match=message):
            load(tmp_path / "e")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "the format is 2, this version reads 1; install"),
        ({"encoder": "nobody"}, "no installed package has the encoder 'nobody'; known: .*tiny-pca"),
        ({"encoder": "os:system"}, "no installed package has the encoder 'os:system'"),
        ({"encoder": "broken"}, "can't be imported from tiny_encoders_broken:Nothing"),
        ({"params": {"n_latents": 2, "dropout": 1}}, "no parameter dropout; known: n_latents"),
        ({"parts": {"base_": {}}}, r"the parts are \['base_'\], expected \[\]"),
    ],
)
def test_what_the_config_must_say(fitted, tmp_path, changes, message):
    fitted.save(tmp_path / "e")
    resign(tmp_path / "e", **changes)
    with pytest.raises(ContractError, match=message):
        load(tmp_path / "e")


def test_a_folder_that_is_no_encoder_says_what_it_is(fitted, tmp_path):
    fitted.save(tmp_path / "run" / "encoder")
    (tmp_path / "run" / "report.html").write_text("x")
    with pytest.raises(ContractError, match=r"holds encoder/, report\.html; did you mean .*run"):
        load(tmp_path / "run")
    with pytest.raises(ContractError, match="no such encoder folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ContractError, match="is a file"):
        load(tmp_path / "run" / "report.html")


def test_a_pickle_in_the_folder_is_never_touched(fitted, tmp_path):
    fitted.save(tmp_path / "e")
    (tmp_path / "e" / "model.pt").write_bytes(b"not even a pickle")
    assert isinstance(load(tmp_path / "e"), Encoder)
    (tmp_path / "e" / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ContractError, match="changed or cut short"):
        load(tmp_path / "e")


def test_what_is_not_fitted_or_not_registered_is_not_saved(tiny, signal, tmp_path):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        tiny.TinyPCA().save(tmp_path / "e")

    class Nameless(tiny.TinyPCA):
        name = ""

    with pytest.raises(InputError, match="Nameless has no registered name"):
        Nameless().fit(signal).save(tmp_path / "e")
    assert encoder_class("tiny-pca") is tiny.TinyPCA


def test_folders_of_format_1_stay_loadable():
    """The folder in the repository was written by the first version; it is never rewritten."""
    folder = HERE / "fixtures" / "encoder-format-1"
    encoder = load(folder)
    expected = json.loads((HERE / "fixtures" / "encoder-format-1.codes.json").read_text())
    trials = np.sin(np.arange(24, dtype=np.float32)).reshape(4, 2, 3)
    X = xr.DataArray(
        trials,
        dims=("trial", "channel", "time"),
        coords={"channel": ["Fz", "Cz"], "time": [0.0, 0.01, 0.02]},
        attrs={"units": "uV", "sfreq": 100.0},
    )
    np.testing.assert_allclose(encoder.transform(X), expected, rtol=1e-5, atol=1e-6)
    assert encoder.contract_.channels == ["Fz", "Cz"]
    assert encoder.seen(X).trials.all()
