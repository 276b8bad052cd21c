"""InfoGAN: its losses, codes of real and drawn series, saving, masks, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import neuro
from neuro.errors import InputError
from neuro.nn.infogan import InfoGANObjective, QuantisedGAN, gradient_penalty
from neuro.nn.objective import State
from timeseries.infogan import InfoGAN

SMALL = {"network": "mlp", "n_hidden": 16, "batch_size": 32, "device": "cpu", "random_state": 0}


class Slope(nn.Module):
    """A critic whose gradient norm is known."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x, mask=None):
        return self.size * x[:, 0, :1]


@pytest.mark.parametrize("size", [0.0, 1.0, 3.0])
def test_the_penalty_is_the_squared_distance_of_the_slope_from_one(size):
    x, share = torch.randn(6, 2, 5), torch.rand(6, 1, 1)
    found = gradient_penalty(Slope(size), x, torch.zeros_like(x), share)
    assert float(found) == pytest.approx((size - 1) ** 2, abs=1e-5)


def test_each_turn_moves_its_own_networks_and_the_generator_its_codebooks():
    objective = InfoGANObjective(QuantisedGAN("conv", 2, 32, 3, 4, 16))
    state, x = State(1, [torch.Generator().manual_seed(0)]), torch.randn(8, 2, 32)
    phases = {phase.name: phase for phase in objective.phases()}
    assert phases["critic"].times == 5
    for name, phase in phases.items():
        state.phase = name
        objective.zero_grad()
        own = [p for n, p in objective.named_parameters() if n.startswith(phase.parameters)]
        found = torch.autograd.grad(objective.step({"x": x}, state)["loss"], own, allow_unused=True)
        moved = {id(p) for p, g in zip(own, found, strict=True) if g is not None and g.abs().any()}
        network = objective.network
        expected = {id(network.quantiser.codebooks)} if name == "generator" else set()
        assert expected <= moved
        assert len(moved) >= len(own) - 1  # the critic's last bias cancels


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    height, level = rng.uniform(0.5, 2, (320, 1)), rng.uniform(-2, 2, (320, 1))
    wave = np.sin(2 * np.pi * 3 * np.arange(32) / 32)
    return (height * wave + level)[:, None].astype("float32")


@pytest.fixture(scope="module")
def gan(data):
    return InfoGAN(
        n_latents=2, n_values=6, n_noise=2, max_epochs=60, weight_decay=0.01, **SMALL
    ).fit(data)


def test_codes_of_drawn_series_are_read_off_and_series_resemble_the_real_ones(gan, data):
    series, codes = gan.draw(400, random_state=1)
    assert codes.dtype == np.uint8
    read = gan.codes(series)
    assert np.mean(np.abs(read.astype(int) - codes) <= 1) > 0.8
    assert np.allclose(series.mean(0), data.mean(0), atol=0.6)
    assert 0.5 < series.std() / data.std() < 1.5


def test_real_series_get_codes_that_tell_the_height_of_their_wave(gan, data):
    """Untrained codes don't (at most 0.3). Whether they tell the level depends on the seed."""
    values = gan.transform(data)
    inputs = np.hstack([values, np.ones((len(values), 1))])
    height = data.std(axis=(1, 2))
    fitted = inputs @ np.linalg.lstsq(inputs, height, rcond=None)[0]
    assert 1 - np.var(height - fitted) / np.var(height) > 0.6


def test_saved_and_loaded_it_gives_the_same_codes_and_series(gan, data, tmp_path):
    gan.save(tmp_path / "encoder")
    again = neuro.load(tmp_path / "encoder")
    assert np.array_equal(again.codes(data), gan.codes(data))
    assert np.array_equal(again.draw(3)[0], gan.draw(3)[0])


@pytest.mark.parametrize("network", ["lstm", "conv"])
def test_padding_does_not_change_a_code(network, data):
    mask = np.ones((len(data), 32), bool)
    mask[:, 28:] = False
    settings = SMALL | {"network": network}
    model = InfoGAN(n_latents=2, max_epochs=1, n_critic=1, **settings).fit(data, mask=mask)
    other = data.copy()
    other[..., 28:] = 99.0
    assert np.array_equal(model.codes(other, mask=mask), model.codes(data, mask=mask))


def test_wrong_parameters_are_refused(gan, data):
    with pytest.raises(InputError, match="n_critic is 0; expected at least 1"):
        InfoGAN(n_critic=0).fit(data)
    with pytest.raises(InputError, match="n is 0"):
        gan.draw(0)
