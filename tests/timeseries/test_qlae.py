"""QLAE: codes as bytes, their values and series, saving, masks, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import neuro
from neuro.errors import DataError, InputError
from timeseries.qlae import QLAE

SMALL = {"n_hidden": 16, "batch_size": 32, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    t = np.arange(48) / 48
    height, offset = rng.uniform(0.5, 2, (160, 1)), rng.uniform(-2, 2, (160, 1))
    signal = height * np.sin(2 * np.pi * 3 * t) + offset + 0.05 * rng.normal(size=(160, 48))
    return xr.DataArray(signal[:, None].astype("float32"), dims=("trial", "channel", "time"))


@pytest.fixture(scope="module")
def qlae(data):
    return QLAE(n_latents=4, n_values=6, max_epochs=120, weight_decay=0.01, **SMALL).fit(data)


def test_codes_are_bytes_and_name_the_values(qlae, data):
    codes, values = qlae.codes(data), qlae.transform(data)
    assert codes.dtype == np.uint8
    assert codes.dims == values.dims == ("trial", "latent")
    assert int(codes.max()) < 6
    assert np.array_equal(qlae.values_of(codes), values)
    assert np.array_equal(qlae.codes_of(values), codes)
    books = qlae.codebooks_
    assert all(np.isin(values[:, j], books[j]).all() for j in range(4))
    assert list(qlae.get_feature_names_out()) == [f"qlae{j}" for j in range(4)]


def test_it_learns_the_series_and_moves_its_codebooks(qlae, data):
    rebuilt = qlae.inverse_transform(qlae.transform(data))
    assert rebuilt.shape == data.shape
    assert np.mean((rebuilt - data.values) ** 2) < 0.2 * data.values.var()
    assert not np.allclose(qlae.codebooks_, np.linspace(-0.5, 0.5, 6))
    assert 0 < qlae.kl_.max() <= np.log(6) + 1e-9
    assert qlae.kl_.max() <= qlae.information_ <= np.log(len(data))


def test_saved_and_loaded_it_gives_the_same_codes(qlae, data, tmp_path):
    qlae.save(tmp_path / "encoder")
    again = neuro.load(tmp_path / "encoder")
    assert np.array_equal(again.codes(data), qlae.codes(data))
    assert again.types_.tolist() == qlae.types_.tolist()


@pytest.mark.parametrize("shared", [True, False])
def test_a_codebook_may_be_shared(shared, data):
    model = QLAE(n_latents=3, n_values=4, shared_codebook=shared, max_epochs=2, **SMALL).fit(data)
    assert np.all(model.codebooks_ == model.codebooks_[0]) == shared


def test_padding_does_not_change_a_code(data):
    mask = np.ones((160, 48), bool)
    mask[:, 40:] = False
    model = QLAE(n_latents=2, max_epochs=1, **SMALL).fit(data, mask=mask)
    other = data.copy()
    other[..., 40:] = 99.0
    assert np.array_equal(model.codes(other, mask=mask), model.codes(data, mask=mask))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_values": 1}, "n_values is 1; expected at least 2"),
        ({"n_values": 300}, "at most 256"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"network": "rnn"}, "network is 'rnn'"),
    ],
)
def test_wrong_parameters_are_refused(setting, message, data):
    with pytest.raises(InputError, match=message):
        QLAE(**setting).fit(data)


def test_wrong_codes_are_refused(qlae):
    with pytest.raises(DataError, match="from 0 to 5"):
        qlae.values_of(np.full((2, 4), 6))
    with pytest.raises(DataError, match=r"expected \(trial, 4\)"):
        qlae.values_of(np.zeros((2, 3)))
