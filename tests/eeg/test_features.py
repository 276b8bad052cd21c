"""``feature_loss="dae"``: the estimator, the ensemble, the stage, the disk."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError
from sklearn.base import clone

import eeg.features
import neuro
from eeg import BetaVAE, methods
from eeg.stages import BetaVAEParams, _estimator, beta_vae
from neuro.bibtex import BIBTEX
from neuro.errors import InputError
from neuro.nn.dae import DAEObjective
from neuro.packing import pack, unpack

QUICK = {
    "n_latents": 3, "n_hidden": 16, "max_epochs": 2, "beta": 0.5, "batch_size": 16,
    "feature_loss": "dae", "n_features": 8, "dae_max_epochs": 3,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings(
    "ignore:no latent carries", "ignore:none of .* is passive", "ignore:the denoising autoencoder"
)


def cohort(n_subjects: int = 4, n_trials: int = 10, seed: int = 0) -> xr.DataArray:
    """A subject's own bump in noise: (trial, 3 channels, 32 times) in uV."""
    rng = np.random.default_rng(seed)
    subject = np.repeat([f"s{i}" for i in range(n_subjects)], n_trials)
    peak = np.repeat(rng.uniform(10, 20, n_subjects), n_trials)
    bump = 10 * np.exp(-0.5 * ((np.arange(32) - peak[:, None]) / 3) ** 2)
    signal = bump[:, None] * np.array([[1.0], [0.5], [-0.5]])
    signal = signal + 10 * rng.normal(size=(len(subject), 3, 32))
    return xr.DataArray(
        signal.astype("float32"),
        dims=("trial", "channel", "time"),
        coords={
            "channel": ["Fz", "Cz", "Pz"],
            "time": np.arange(32) / 100,
            "subject": ("trial", subject),
            "condition": ("trial", np.tile(["a", "b"], len(subject) // 2)),
        },
        attrs={"units": "uV", "sfreq": 100.0},
    )


def quick(**settings) -> BetaVAE:
    return BetaVAE(**(QUICK | settings))


@pytest.fixture
def trained(monkeypatch) -> list[DAEObjective]:
    """Every denoising autoencoder whose training was begun."""
    made: list[DAEObjective] = []
    original = eeg.features._objective

    def noted(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(eeg.features, "_objective", noted)
    return made


@pytest.mark.parametrize("mode", ["single", "erp", "bootstrap", "single-to-erp"])
def test_every_mode_learns(mode):
    X = cohort()
    encoder = quick(train_on=mode, dae_max_epochs=10, max_epochs=15, learning_rate=3e-3).fit(X)
    losses = [row["loss"] for row in encoder.history_]
    assert losses[-1] < 0.98 * losses[0]
    assert encoder.transform(X).shape == (40, 3)
    assert encoder.denoise(X).shape == X.shape


def test_it_changes_what_is_learned_and_off_its_settings_do_nothing():
    X = cohort()
    off = quick(feature_loss=None).fit(X).transform(X)
    assert not np.allclose(quick().fit(X).transform(X), off)
    other = quick(feature_loss=None, n_features=3, mask_fraction=0.5, dae_max_epochs=1)
    np.testing.assert_array_equal(other.fit(X).transform(X), off)


@pytest.mark.parametrize("mode", ["single", "single-to-erp"])
def test_together_as_if_one_by_one(mode, trained):
    X = cohort(5, 10)
    settings = [{"beta": 0.5}, {"beta": 4.0}, {"random_state": 3}, {"learning_rate": 1e-2}]
    members = [quick(precision="64", train_on=mode, **s) for s in settings]
    BetaVAE.fit_together(members, X)
    assert len(trained) == 1  # one for all, since all have the same trials
    for member in members:
        alone = clone(member).fit(X)
        np.testing.assert_allclose(member.transform(X), alone.transform(X), rtol=1e-4, atol=1e-5)
        assert member.history_[-1]["loss"] == pytest.approx(alone.history_[-1]["loss"], rel=1e-6)


def test_folds_have_autoencoders_of_their_own(trained):
    X = cohort(6, 10)
    X[:20] *= 5
    subsets = [np.arange(20, 60), np.arange(50), np.arange(50)]
    members = [quick(precision="64", beta=b) for b in (0.5, 0.5, 4.0)]
    BetaVAE.fit_together(members, X, subsets=subsets)
    assert len(trained) == 2
    for member, subset in zip(members, subsets, strict=True):
        alone = clone(member).fit(X[subset])
        np.testing.assert_allclose(member.transform(X), alone.transform(X), rtol=1e-4, atol=1e-5)


def test_models_of_other_kinds_share_it_and_those_with_other_trials_do_not(trained):
    X = cohort()
    BetaVAE.fit_together([quick(), quick(n_latents=2), quick(network="mlp")], X)
    assert len(trained) == 1
    # Who keeps other subjects aside has other trials to train on.
    BetaVAE.fit_together([quick(validation_fraction=0.5, random_state=s) for s in range(2)], X)
    assert len(trained) == 3


def test_held_out_subjects_have_no_influence():
    X = cohort(6, 10)
    changed = X.copy()
    first = quick(validation_fraction=0.3).fit(X)
    kept_aside = set(X.subject.values) - _trained_on(X)
    changed[np.isin(X.subject.values, list(kept_aside))] *= 3
    again = quick(validation_fraction=0.3).fit(changed)
    for name, tensor in first.network_.state_dict().items():
        assert torch.equal(tensor, again.network_.state_dict()[name])


def _trained_on(X: xr.DataArray) -> set[str]:
    """The subjects that the split of a fit with random_state 0 leaves for training."""
    from eeg.fitting import _Data, _split

    split = int(np.random.SeedSequence(0).generate_state(4)[3])
    data = _Data(X.values, {"subject": X.subject.values, "condition": None}, {})
    train, _ = _split(quick(validation_fraction=0.3), data, split)
    return set(X.subject.values[train])


@pytest.mark.parametrize("stop", [2, 8])
def test_a_killed_fit_continues(tmp_path, stop):
    X = cohort()
    settings = {"dae_max_epochs": 5, "max_epochs": 6}
    whole = quick(**settings).fit(X)
    seen: list[str] = []

    def killed(items, label, total):
        for item in items:
            seen.append(label)
            if len(seen) > stop:
                raise TimeoutError
            yield item

    with pytest.raises(TimeoutError):
        quick(**settings).fit(X, scratch=tmp_path, progress=killed)
    assert seen[0] == "denoising autoencoder: training"
    assert list(tmp_path.glob("group-0/dae/member-0/checkpoint.safetensors"))
    left: list[str] = []
    again = quick(**settings).fit(
        X,
        scratch=tmp_path,
        progress=lambda items, label, _: (left.append(label) or i for i in items),
    )
    assert len(left) < 11
    assert left.count("training") == (6 if stop == 2 else len(left))
    np.testing.assert_array_equal(again.transform(X), whole.transform(X))
    assert again.history_ == whole.history_


def test_an_autoencoder_that_explains_nothing_says_so():
    with pytest.warns(UserWarning, match=r"explains nothing.*flat line 48; raise dae_max_epochs"):
        quick(dae_max_epochs=1).fit(cohort())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feature_loss": "vgg"}, "feature_loss is 'vgg'; expected one of None, dae"),
        ({"n_features": 0}, "n_features is 0; expected at least 1"),
        ({"dae_max_epochs": 0}, "dae_max_epochs is 0; expected at least 1"),
        ({"mask_fraction": 0.0}, "mask_fraction is 0.0; expected between 0 and 1"),
        ({"mask_fraction": 1.0}, "mask_fraction is 1.0; expected between 0 and 1"),
    ],
)
def test_wrong_parameters_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        quick(**settings).fit(cohort())


# -- on disk -----------------------------------------------------------------------------------


def test_it_is_not_saved_and_not_needed(tmp_path):
    X = cohort()
    encoder = quick().fit(X)
    assert set(encoder.state_dict_arrays()) == set(
        quick(feature_loss=None).fit(X).state_dict_arrays()
    )
    encoder.save(tmp_path / "encoder")
    loaded = neuro.load(tmp_path / "encoder")
    assert loaded.get_params() == encoder.get_params()
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))
    np.testing.assert_array_equal(loaded.denoise(X), encoder.denoise(X))


def test_an_encoder_saved_before_there_was_a_choice_loads():
    X = cohort()
    encoder = quick(feature_loss=None).fit(X)
    config, arrays, preprocessing = pack(encoder)
    for name in ("feature_loss", "n_features", "mask_fraction", "dae_max_epochs"):
        del config["params"][name]
    loaded = unpack(config, arrays, preprocessing)
    assert loaded.feature_loss is None
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))


# -- the stage ---------------------------------------------------------------------------------


def test_the_stage_takes_it_and_is_off_by_default():
    assert BetaVAEParams().feature_loss is None
    defaults = BetaVAE().get_params()
    for name in ("feature_loss", "n_features", "mask_fraction", "dae_max_epochs"):
        assert getattr(BetaVAEParams(), name) == defaults[name]
    assert _estimator(BetaVAEParams(feature_loss="dae", n_features=7)).n_features == 7
    for wrong in ({"feature_loss": "vgg"}, {"mask_fraction": 1}, {"dae_max_epochs": 0}):
        with pytest.raises(ValidationError):
            BetaVAEParams(**wrong)


def test_the_stage_trains_and_says_what_was_done(tmp_path):
    said: list[tuple[str, tuple[str, ...]]] = []
    context = SimpleNamespace(
        scratch=tmp_path,
        progress=lambda items, *_: iter(items),
        method=lambda text, *cited: said.append((text, cited)),
        metric=lambda *_, **__: None,
        section=lambda *_: None,
    )
    encoder = beta_vae(cohort().to_dataset(name="signal"), BetaVAEParams(**QUICK), context)
    assert encoder.feature_loss == "dae"
    (sentence,) = [s for s in said if "denoising autoencoder" in s[0]]
    assert "8 features" in sentence[0]
    assert "the 25% of each trial" in sentence[0]
    assert set(sentence[1]) <= set(BIBTEX)
    assert not any(
        "denoising" in text for text, _ in methods.training(quick(feature_loss=None).fit(cohort()))
    )
