"""Loss terms against float64 references; networks of every shape; stacks equal their members."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.ensemble import stack
from neuro.nn.beta_vae import BetaVAEObjective
from neuro.nn.networks import NETWORKS
from neuro.nn.objective import State
from neuro.nn.vae import (
    beta_objective,
    capacity_objective,
    gaussian_kl,
    gaussian_reconstruction,
    ramp,
    sample,
)


def state(members: int = 1, epoch: int = 0, max_epochs: int = 10, training: bool = True) -> State:
    generators = [torch.Generator().manual_seed(m) for m in range(members)]
    return State(max_epochs, generators, epoch=epoch, training=training)


def objective(
    beta: float = 4.0, *, seed: int = 0, kind: str = "conv", **settings
) -> BetaVAEObjective:
    network = NETWORKS[kind](3, 20, 2, 16, seed)
    return BetaVAEObjective(network, beta=beta, **settings).double()


pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


def batch(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 20, dtype=torch.float64, generator=generator)


def test_kl_against_numpy_reference():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 7, 4))
    expected = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1)
    got = gaussian_kl(torch.from_numpy(mean), torch.from_numpy(log_variance))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-14)


def test_kl_is_that_of_the_forward_direction():
    # KL(N(1, 4) || N(0, 1)) = log(1/2) + (4 + 1) / 2 - 1/2; the other way round it is 0.4431...
    got = gaussian_kl(torch.tensor(1.0).double(), torch.tensor(4.0).double().log())
    assert float(got) == pytest.approx(np.log(0.5) + 2.5 - 0.5, rel=1e-12)
    assert float(got) != pytest.approx(np.log(2) + 2 / 8 - 0.5, rel=0.1)


def test_reconstruction_against_numpy_reference():
    rng = np.random.default_rng(1)
    output, target = rng.normal(size=(2, 5, 3, 8))
    mask = rng.integers(0, 2, (5, 1, 8)).astype(float)
    expected = ((output - target) ** 2 * mask).sum((1, 2)) / (2 * 0.5**2)
    got = gaussian_reconstruction(
        torch.from_numpy(output), torch.from_numpy(target), sigma=0.5, mask=torch.from_numpy(mask)
    )
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13)


def test_objectives_against_numpy_reference():
    rng = np.random.default_rng(2)
    recon, kl = rng.uniform(0, 10, (2, 6))
    tensors = torch.from_numpy(recon), torch.from_numpy(kl)
    np.testing.assert_allclose(beta_objective(*tensors, 3.0).numpy(), recon + 3 * kl)
    for capacity in (0.0, 4.0, 25.0):
        got = capacity_objective(*tensors, 7.0, capacity).mean()
        assert float(got) == pytest.approx(recon.mean() + 7 * abs(kl.mean() - capacity))


def test_sample_has_the_moments_of_the_posterior():
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    drawn = sample(torch.tensor([2.0]), torch.tensor([9.0]).log(), noise)
    assert drawn.mean().item() == pytest.approx(2, abs=0.03)
    assert drawn.std().item() == pytest.approx(3, abs=0.03)


@given(st.integers(0, 50), st.integers(0, 30), st.floats(0.1, 100))
def test_ramp_rises_from_zero_to_its_end(epoch, n_epochs, final):
    value = ramp(epoch, n_epochs, final)
    assert 0 <= value <= final
    assert value == pytest.approx(final) if epoch >= n_epochs else value < final


@pytest.mark.parametrize("beta", [0.0, 4.0])
def test_loss_does_not_depend_on_the_batch_size(beta):
    # The same 128 samples as one batch and as four: loss per sample, not per batch or element.
    model, x = objective(beta), batch(128)
    whole = model.step({"x": x}, state(training=False))
    parts = [model.step({"x": part}, state(training=False)) for part in x.split(32)]
    for name, value in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean()
        assert float(value) == pytest.approx(float(mean), rel=1e-12)


def test_loss_is_the_sum_of_its_golden_terms():
    model, x = objective(4.0), batch(5)
    losses = model.step({"x": x}, state(training=False))
    with torch.no_grad():
        mean, log_variance = model.network.encode(x[None])
        output = model.network.decode(mean)
    mu, lv, out = (t[0].numpy() for t in (mean, log_variance, output))
    recon = 0.5 * ((out - x.numpy()) ** 2).sum((1, 2)).mean()
    kl = 0.5 * (mu**2 + np.exp(lv) - lv - 1).sum(1).mean()
    assert float(losses["reconstruction"]) == pytest.approx(recon, rel=1e-12)
    assert float(losses["kl"]) == pytest.approx(kl, rel=1e-12)
    assert float(losses["loss"]) == pytest.approx(recon + 4 * kl, rel=1e-12)


def test_beta_zero_decodes_the_mean_and_ignores_the_variance():
    model, x = objective(0.0), batch(6)
    first = model.step({"x": x}, state())
    with torch.no_grad():
        model.network.posterior.bias[..., 2:] += 3  # the log variances
    second = model.step({"x": x}, state())
    assert float(first["loss"]) == float(second["loss"]) == float(first["reconstruction"])
    assert float(second["kl"]) == float(first["kl"])  # or a drifting variance would overflow
    second["loss"].sum().backward()
    assert not model.network.posterior.weight.grad[..., 2:].any()


def test_beta_above_zero_samples():
    model, x = objective(1.0), batch(6)
    drawn, mean = model.step({"x": x}, state()), model.step({"x": x}, state(training=False))
    assert float(drawn["reconstruction"]) != float(mean["reconstruction"])


def test_warm_up_raises_beta_in_training_only():
    model, x = objective(8.0, warmup_epochs=4), batch(6)
    weights = []
    for epoch in (0, 1, 4, 9):
        losses = model.step({"x": x}, state(epoch=epoch))
        weights.append(float((losses["loss"] - losses["reconstruction"]) / losses["kl"]))
    assert weights == pytest.approx([0, 2, 8, 8], abs=1e-9)
    held_out = model.step({"x": x}, state(epoch=0, training=False))
    assert float(held_out["loss"]) == pytest.approx(
        float(held_out["reconstruction"] + 8 * held_out["kl"])
    )


def test_capacity_rises_to_its_end_in_half_of_the_epochs():
    model, x = objective(5.0, capacity=6.0), batch(6)
    for epoch, capacity in ((0, 0.0), (2, 2.4), (5, 6.0), (9, 6.0)):
        losses = model.step({"x": x}, state(epoch=epoch, max_epochs=10))
        expected = losses["reconstruction"] + 5 * (losses["kl"] - capacity).abs()
        assert float(losses["loss"]) == pytest.approx(float(expected), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(NETWORKS)),
    n_channels=st.integers(1, 5),
    n_times=st.integers(1, 70),
    n_latents=st.integers(1, 4),
    members=st.integers(1, 3),
)
def test_networks_take_any_shape(kind, n_channels, n_times, n_latents, members):
    models = [
        BetaVAEObjective(NETWORKS[kind](n_channels, n_times, n_latents, 8, m), beta=1.0)
        for m in range(members)
    ]
    network = (stack(models) if members > 1 else models[0]).network
    mean, log_variance = network.encode(torch.zeros(members, 2, n_channels, n_times))
    assert mean.shape == log_variance.shape == (members, 2, n_latents)
    assert network.decode(mean).shape == (members, 2, n_channels, n_times)


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_initial_weights_follow_the_seed_alone(kind):
    torch.manual_seed(1)
    first = objective(seed=3, kind=kind).state_dict()
    torch.manual_seed(2)
    again, other = (
        objective(seed=3, kind=kind).state_dict(),
        objective(seed=4, kind=kind).state_dict(),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_initial_weights_are_those_of_torch_layers():
    linear = objective().network.into
    assert linear.weight.abs().max() <= 1 / np.sqrt(linear.weight.shape[1])
    ours = objective().network.up_1.weight[0]
    theirs = torch.nn.ConvTranspose1d(64, 32, 8, 4, 2).weight
    assert ours.shape == theirs.shape
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_a_stack_computes_what_its_members_compute(kind):
    models = [objective(beta, seed=m, kind=kind) for m, beta in enumerate((0.0, 1.0, 9.0))]
    x = torch.stack([batch(4, seed=m) for m in range(3)])
    joined = stack(models).step({"x": x}, state(3))
    for m, model in enumerate(models):
        alone = State(10, [torch.Generator().manual_seed(m)])
        for name, value in model.step({"x": x[m]}, alone).items():
            assert float(joined[name][m]) == pytest.approx(float(value), rel=1e-10)
