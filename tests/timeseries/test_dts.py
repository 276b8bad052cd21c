"""The VAE family and DTS as encoders: shapes, masks, saving, segments, adaptation in the small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import neuro
from neuro.errors import DataError, InputError
from neuro.nn.objective import State
from neuro.nn.sequences import SequenceVAE
from neuro.nn.vae_family import Penalty
from timeseries.dts import DTS
from timeseries.dts_objective import DTSObjective, Heads
from timeseries.latent_model import information
from timeseries.vae import PRESETS, SeriesVAE

SMALL = {"n_hidden": 16, "batch_size": 32, "device": "cpu", "random_state": 0}


def series(n=120, n_times=48, seed=0):
    """Two classes (slow, fast) in two domains, which differ by amplitude and an offset."""
    rng = np.random.default_rng(seed)
    label, domain = rng.integers(0, 2, n), rng.integers(0, 2, n)
    t = np.arange(n_times) / n_times
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    signal = np.sin(2 * np.pi * np.where(label, 5, 2)[:, None] * t + phase)
    signal = signal * np.where(domain, 1.5, 1.0)[:, None] + np.where(domain, 1.0, -1.0)[:, None]
    signal = signal + 0.1 * rng.normal(size=signal.shape)
    return xr.DataArray(
        signal[:, None].astype("float32"),
        dims=("trial", "channel", "time"),
        coords={
            "label": ("trial", np.array(["slow", "fast"])[label]),
            "domain": ("trial", np.array(["ann", "bob"])[domain]),
        },
    )


@pytest.fixture(scope="module")
def data():
    return series()


@pytest.fixture(scope="module")
def dts(data):
    y = np.where(data["domain"] == "bob", "", data["label"])
    model = DTS(4, 2, standardise="domain", max_epochs=40, **SMALL)
    return model.fit(data, y)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_and_comes_back(preset, data, tmp_path):
    model = SeriesVAE(preset, n_latents=3, max_epochs=2, **SMALL).fit(data)
    codes = model.transform(data)
    assert codes.dims == ("trial", "latent")
    assert np.isfinite([list(row.values()) for row in model.history_]).all()
    assert np.allclose(model.sample(data), codes) == (preset == "ae")
    assert model.inverse_transform(codes).shape == data.shape
    assert model.kl_.shape == model.kept_.shape == model.types_.shape == (3,)
    model.save(tmp_path / "encoder")
    again = neuro.load(tmp_path / "encoder")
    assert np.array_equal(again.transform(data), codes)
    assert np.array_equal(again.kl_, model.kl_)
    assert again.types_.tolist() == model.types_.tolist()


def test_inverse_transform_is_in_the_units_of_the_series(data):
    shifted = data * 50 + 1000
    model = SeriesVAE("ae", n_latents=6, max_epochs=60, **SMALL).fit(shifted)
    back = model.inverse_transform(model.transform(shifted))
    assert np.square(back - shifted.values).mean() < 0.5 * shifted.values.var()


def test_padding_changes_neither_codes_nor_training(data):
    length = np.random.default_rng(1).integers(20, 49, len(data))
    mask = np.arange(48) < length[:, None]
    found = []
    for padding in (0.0, 99.0):
        padded = data.where(mask[:, None], padding).assign_coords(mask=(("trial", "time"), mask))
        model = SeriesVAE("beta-tcvae", n_latents=3, max_epochs=2, **SMALL).fit(padded)
        found.append(model.transform(padded).values)
    assert np.array_equal(*found)


def test_a_series_without_a_real_sample_is_refused(data):
    mask = np.ones((len(data), 48), bool)
    mask[7] = False
    with pytest.raises(DataError, match="first is trial 7"):
        SeriesVAE(max_epochs=0, **SMALL).fit(data, mask=mask)


def test_information_of_separate_codes_is_log_n():
    mean = np.arange(50.0)[:, None] * [[100.0, 0.0]]
    assert information(mean, np.ones((50, 2))) == pytest.approx(np.log(50), abs=1e-6)
    assert information(0 * mean, np.ones((50, 2))) == pytest.approx(0, abs=1e-9)
    assert information(mean, np.zeros((50, 2))) == 0


# DTS --------------------------------------------------------------------------------------------


def test_segments_and_names(dts, data):
    names = dts.get_feature_names_out().tolist()
    assert names == ["g_y0", "g_y1", "g_y2", "g_y3", "g_d0", "g_d1"]
    codes = dts.transform(data)
    assert codes["latent"].values.tolist() == names
    assert np.array_equal(dts.segment(data, "g_d"), codes[:, 4:])
    assert dts.traverse(data, "g_y").shape == (5, 1, 48)
    assert dts.traverse(data, 5, [0.0]).shape == (1, 1, 48)
    with pytest.raises(InputError, match="none of g_y, g_d"):
        dts.segment(data, "g_z")


def test_the_unlabelled_target_is_classified(dts):
    test = series(seed=5)
    target = test[np.flatnonzero(test["domain"] == "bob")]
    assert (dts.predict(target) == target["label"].values).mean() > 0.8
    proba = dts.predict_proba(target)
    assert np.allclose(proba.sum(1), 1, atol=1e-5)


def test_dts_comes_back(dts, data, tmp_path):
    dts.save(tmp_path / "encoder")
    again = neuro.load(tmp_path / "encoder")
    assert np.array_equal(again.predict_proba(data), dts.predict_proba(data))
    assert again.domains_.tolist() == ["ann", "bob"]


def test_target_labels_are_not_read(data):
    """Labels that are missing as "", None or NaN are the same, and a target's never matter."""
    numbers = np.where(data["label"] == "fast", 1.0, 0.0)
    hidden = (data["domain"] == "bob").values
    a = np.where(hidden, "", numbers.astype(str))
    b = np.where(hidden, np.nan, numbers)
    models = [DTS(max_epochs=1, **SMALL).fit(data, y) for y in (a, b)]
    assert np.array_equal(*(m.transform(data) for m in models))


def test_bad_labels_are_named(data):
    with pytest.raises(DataError, match="known classes are"):
        DTS(**SMALL).fit(data, [""] * len(data))
    with pytest.raises(InputError, match="domains are not known"):
        DTS(**SMALL).fit(data.values, data["label"].values)
    with pytest.raises(InputError, match="network is 'cnn'"):
        DTS(network="cnn").fit(data)


def test_crossed_heads_push_the_encoder_the_other_way():
    """Reversal turns the gradient of the encoder, not that of the heads."""
    torch.manual_seed(0)
    network = SequenceVAE("mlp", 1, 8, 4, 8)
    weights = Heads(label=0.0, domain=0.0, adversarial=1.0)
    model = DTSObjective(
        network, Penalty(), n_label_latents=2, n_classes=2, n_domains=2, heads=weights, n_samples=6
    )
    z = torch.randn(6, 4, requires_grad=True)
    y, domain = torch.tensor([0, 1, 0, 1, 0, -1]), torch.tensor([0, 0, 0, 1, 1, 1])
    found = {}
    for strength in (-1.0, 1.0):
        model.zero_grad()
        loss = model._heads(z, y, domain, strength)["heads"]
        head = model.domain_from_label[0].weight
        found[strength] = torch.autograd.grad(loss, (z, head))
    assert torch.allclose(found[1.0][0], -found[-1.0][0])
    assert torch.allclose(found[1.0][1], found[-1.0][1])


def test_reversal_rises_with_training():
    network = SequenceVAE("mlp", 1, 8, 4, 8)
    model = DTSObjective(
        network, Penalty(), n_label_latents=2, n_classes=2, n_domains=2, n_samples=6
    )
    rises = [model._strength(State(100, epoch=e)) for e in (0, 8, 30, 99)]
    assert rises[0] == rises[1] == 0
    assert 0 < rises[2] < rises[3] <= 1
