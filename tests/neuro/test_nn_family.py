"""The VAE family: every member is the objective it is named after, and its terms are right."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from neuro.nn.aggregate import (
    decompose_kl,
    gaussian_log_density,
    log_aggregate,
    log_aggregate_plain,
    log_weights,
)
from neuro.nn.objective import State
from neuro.nn.reversal import reverse_gradient
from neuro.nn.sequences import SequenceVAE
from neuro.nn.vae import gaussian_kl
from neuro.nn.vae_family import (
    Penalty,
    VAEFamily,
    density_ratio_tc,
    make_discriminator,
    maximum_mean_discrepancy,
    ratio_loss,
)

D = torch.float64


def posteriors(n=24, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    mean, z = (torch.randn(n, d, generator=g, dtype=D) for _ in range(2))
    log_variance = torch.randn(n, d, generator=g, dtype=D) - 1
    return mean + z * (0.5 * log_variance).exp(), mean, log_variance


def loss_of(penalty, seed=0, n_samples=100):
    torch.manual_seed(0)
    family = VAEFamily(
        SequenceVAE("mlp", 2, 16, 4, n_hidden=8), penalty, n_samples=n_samples
    ).double()
    x = torch.randn(24, 2, 16, dtype=D)
    state = State(1, [torch.Generator().manual_seed(seed)], phase="vae")
    losses = family.step({"x": x}, state)
    gradient = torch.autograd.grad(losses["loss"], list(family.network.parameters()))
    return losses, gradient


# The estimate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["mws", "mss"])
@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 20])
def test_blocks_equal_the_plain_form_with_their_gradients(estimator, block_bytes):
    inputs = [t.requires_grad_() for t in posteriors()]
    blocked = log_aggregate(*inputs, n_samples=90, estimator=estimator, block_bytes=block_bytes)
    plain = log_aggregate_plain(*inputs, log_weights(24, 90, estimator))
    weights = torch.randn(2, 24, dtype=D)
    grads = [
        torch.autograd.grad((weights[0] * q + weights[1] * p).sum(), inputs)
        for q, p in (blocked, plain)
    ]
    for ours, theirs in zip((*blocked, *grads[0]), (*plain, *grads[1]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_narrow_posteriors_keep_their_digits_in_single_precision():
    z, mean, _ = posteriors()
    log_variance = torch.full_like(mean, -14.0)
    z = mean + 1e-3 * (z - mean)
    single = [t.float() for t in (z, mean, log_variance)]
    exact = [t.double() for t in single]
    ours = log_aggregate(*single, n_samples=24, estimator="mss")
    for a, b in zip(ours, log_aggregate_plain(*exact, log_weights(24, 24, "mss")), strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["mws", "mss"])
def test_the_three_terms_are_the_kl(estimator):
    z, mean, log_variance = posteriors()
    terms = decompose_kl(z, mean, log_variance, n_samples=90, estimator=estimator)
    total = (terms.mi + terms.tc + terms.dwkl).mean()
    assert total.item() == pytest.approx(gaussian_kl(mean, log_variance).sum(-1).mean().item())
    drawn = decompose_kl(z, mean, log_variance, n_samples=90, estimator=estimator, analytic=False)
    own = gaussian_log_density(z, mean, log_variance).sum(-1)
    prior = gaussian_log_density(z, torch.zeros_like(z), torch.zeros_like(z)).sum(-1)
    assert (drawn.mi + drawn.tc + drawn.dwkl).sub(own - prior).abs().max() < 1e-5


def test_stratified_weights_are_the_paper_s():
    weights = log_weights(5, 50, "mss").exp()
    assert torch.allclose(weights.diagonal(), torch.tensor(1 / 50, dtype=D))
    assert torch.allclose(weights.sum(1), torch.ones(5, dtype=D))
    assert torch.equal(log_weights(5, 50, "mss", slice(2, 4)).exp(), weights[2:4])


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_total_correlation_of_gaussians(rho):
    """Against -1/2 log(1 - r^2), r the correlation of the codes that were drawn."""
    g = torch.Generator().manual_seed(0)
    n, width = 512, 0.5
    white = torch.randn(n, 2, generator=g, dtype=D)
    scale = math.sqrt(1 - width**2)
    mean = scale * torch.stack(
        [white[:, 0], rho * white[:, 0] + math.sqrt(1 - rho**2) * white[:, 1]], 1
    )
    log_variance = torch.full_like(mean, 2 * math.log(width))
    z = mean + width * torch.randn(n, 2, generator=g, dtype=D)
    found = decompose_kl(z, mean, log_variance, n_samples=n, estimator="mss").tc.mean()
    held = rho * scale**2  # the correlation of z: noise of the posteriors is independent
    assert found.item() == pytest.approx(-0.5 * math.log(1 - held**2), abs=0.04)


# Members ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["mws", "mss"])
def test_the_vae_is_a_member(estimator):
    """a = 0, b = c = 1 by the three terms, forced by an a of 1e-13, is the closed form."""
    by_terms, gradient = loss_of(Penalty(a=1e-13, estimator=estimator))
    closed, expected = loss_of(Penalty())
    assert "tc" in by_terms
    assert "tc" not in closed
    assert by_terms["loss"].item() == pytest.approx(closed["loss"].item(), abs=1e-5)
    assert by_terms["kl"].item() == pytest.approx(
        (by_terms["loss"] - by_terms["reconstruction"]).item(), abs=1e-5
    )
    assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(gradient, expected, strict=True))


@pytest.mark.parametrize("beta", [0.03, 0.1, 0.7, 3.0])
def test_any_beta_takes_the_closed_form(beta):
    assert Penalty(a=1 - beta, b=beta, c=beta).one_weight


def test_beta_members():
    plain = loss_of(Penalty())[0]
    beta = loss_of(Penalty(a=-3.0, b=4.0, c=4.0))[0]
    tc = loss_of(Penalty(b=4.0))[0]
    assert (beta["loss"] - plain["loss"]).item() == pytest.approx(3 * plain["kl"].item())
    assert (tc["loss"] - plain["loss"]).item() == pytest.approx(3 * tc["tc"].item())


def test_beta_tcvae_as_written_by_its_authors():
    """All from the draw, MWS, no closed form: as in pythae and the authors' code."""
    torch.manual_seed(0)
    z, mean, log_variance = posteriors()
    pairs = gaussian_log_density(z[:, None], mean[None], log_variance[None])
    log_bn = math.log(24 * 90)
    log_q = pairs.sum(-1).logsumexp(1) - log_bn
    log_product = (pairs.logsumexp(1) - log_bn).sum(-1)
    own = gaussian_log_density(z, mean, log_variance).sum(-1)
    prior = gaussian_log_density(z, torch.zeros_like(z), torch.zeros_like(z)).sum(-1)
    theirs = (own - log_q) + 6 * (log_q - log_product) + (log_product - prior)
    ours = decompose_kl(z, mean, log_variance, n_samples=90, analytic=False)
    assert (ours.mi + 6 * ours.tc + ours.dwkl - theirs).abs().max() < 1e-10


def test_equation_7_as_restated_collapses():
    """At a = 2b it is a plain VAE to the last digit; beyond, it falls without bound."""
    z, mean, log_variance = posteriors()

    def equation_7(a, b, spread=1.0):
        codes = spread * mean
        drawn = codes + z - mean
        t = decompose_kl(drawn, codes, log_variance, n_samples=24, estimator="mss")
        kl = (t.mi + t.tc + t.dwkl).mean()
        aggregate = (t.tc + t.dwkl).mean()
        return kl + b * t.tc.mean() + b * t.dwkl.mean() - (a - b) * aggregate

    vae = gaussian_kl(mean, log_variance).sum(-1).mean()
    assert equation_7(10, 5).item() == pytest.approx(vae.item(), abs=1e-10)
    falls = [equation_7(12, 5, spread).item() for spread in (10, 100, 1000)]
    assert falls[2] < 50 * falls[1] < 50 * 50 * falls[0] < 0


def test_the_reward_for_information_is_bounded():
    """Ours does not fall as codes spread: MI is capped at log B, the rest is penalised."""
    family = VAEFamily(SequenceVAE("mlp", 1, 8, 4, 8), Penalty(a=5.0, b=2.0, c=2.0), n_samples=24)
    z, mean, log_variance = posteriors()
    state = State(1, [torch.Generator().manual_seed(0)])
    values = [
        family.penalties(s * mean + z - mean, s * mean, log_variance, state)["penalty"].item()
        for s in (1, 10, 100, 1000)
    ]
    assert min(values) > -5 * math.log(24)
    assert values[-1] > values[1]


def test_the_density_ratio_finds_correlation():
    torch.manual_seed(0)
    net = make_discriminator(2, width=32)
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    white = torch.randn(2000, 2)
    z = torch.stack([white[:, 0], 0.9 * white[:, 0] + math.sqrt(0.19) * white[:, 1]], 1)
    for _ in range(150):
        adam.zero_grad()
        ratio_loss(net, z).backward()
        adam.step()
    assert density_ratio_tc(net, z).item() == pytest.approx(-0.5 * math.log(0.19), rel=0.3)
    assert density_ratio_tc(net, torch.randn(2000, 2)).item() < 0


def test_phases_of_factor_vae_move_their_own_parts():
    family = VAEFamily(SequenceVAE("mlp", 1, 8, 3, 8), Penalty(ratio=5.0), n_samples=9)
    assert [p.parameters for p in family.phases()] == [("network.",), ("discriminator.",)]
    x = torch.randn(9, 1, 8)
    state = State(1, [torch.Generator().manual_seed(0)], phase="ratio")
    family.step({"x": x}, state)["loss"].backward()
    assert all(p.grad is None for p in family.network.parameters())
    assert "tc" in family.step({"x": x}, State(1, state.generators, phase="vae"))


def test_mmd_is_zero_for_the_prior_and_grows():
    torch.manual_seed(0)
    prior, other = torch.randn(400, 3), torch.randn(400, 3)
    assert abs(maximum_mean_discrepancy(prior, other).item()) < 0.02
    assert maximum_mean_discrepancy(other + 1, prior).item() > 0.1


def test_padding_is_not_reconstructed():
    family = VAEFamily(SequenceVAE("conv", 1, 16, 3, 8), n_samples=4)
    x = torch.randn(4, 1, 16)
    mask = torch.arange(16) < torch.tensor([16, 9, 5, 3])[:, None]
    found = [
        family.step(
            {"x": torch.where(mask[:, None], x, torch.tensor(v)), "mask": mask},
            State(1, [torch.Generator().manual_seed(0)]),
        )["loss"]
        for v in (0.0, 50.0)
    ]
    assert torch.equal(*found)


def test_reversal_changes_the_gradient_only():
    x = torch.randn(3, requires_grad=True)
    y = reverse_gradient(x, 2.0)
    assert torch.equal(x, y)
    y.square().sum().backward()
    assert torch.allclose(x.grad, -4 * x)


class _Weak(nn.Module):
    """A decoder that gains little by its latents: under a plain VAE they vanish."""

    n_latents = 4

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(16, 8)
        self.out = nn.Linear(4, 16)

    def encode(self, x, mask=None):
        return self.into(x.flatten(1)).chunk(2, -1)

    def decode(self, z):
        return self.out(z)[:, None]


def test_rewarded_information_revives_vanished_latents():
    active = {}
    for a in (0.0, 2.0):
        torch.manual_seed(0)
        x = 0.1 * torch.randn(256, 1, 16)
        family = VAEFamily(_Weak(), Penalty(a=a, b=1.0, c=1.0), n_samples=256)
        adam = torch.optim.Adam(family.parameters(), 1e-2)
        state = State(1, [torch.Generator().manual_seed(0)], phase="vae")
        for _ in range(200):
            adam.zero_grad()
            losses = family.step({"x": x}, state)
            losses["loss"].backward()
            adam.step()
        mean, log_variance = family.network.encode(x)
        active[a] = int((gaussian_kl(mean, log_variance).mean(0) > 0.01).sum())
    assert active[0.0] == 0
    assert active[2.0] >= 2
