"""The prior's schedule and steps against the closed formulas; samples that are a trial's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fmri.prior import kept_signal, make_scheduler, sample
from neuro.errors import InputError
from neuro.nn.prior import PriorNetwork, PriorSizes, add_noise, guide

pytest.importorskip("diffusers")

N = 100


def closed_form(n=N, s=0.008, most=0.999):
    """Nichol and Dhariwal 2021, eq. 17, and the betas that follow from it."""

    def f(t):
        return math.cos((t / n + s) / (1 + s) * math.pi / 2) ** 2

    beta = np.array([min(1 - f(t + 1) / f(t), most) for t in range(n)])
    return beta, np.cumprod(1 - beta)


class Known(torch.nn.Module):
    """Predicts what it is told; counts its calls."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.times = answer, []

    def guided(self, noisy, time, brain, scale=1.0):
        self.times.append(int(time[0]))
        return self.answer


def test_the_schedule_is_the_closed_formula():
    beta, kept = closed_form()
    scheduler = make_scheduler("ddpm")
    np.testing.assert_allclose(scheduler.betas.numpy(), beta, atol=1e-6)
    np.testing.assert_allclose(kept_signal().numpy(), kept, atol=1e-6)


@pytest.mark.parametrize("t", [99, 60, 1, 0])
def test_an_ancestral_step_is_the_posterior(t):
    beta, kept = closed_form()
    generator = torch.Generator().manual_seed(0)
    x, clean = torch.randn(2, 3, 4, 5, generator=generator)
    found = make_scheduler("ddpm").step(
        clean, t, x, generator=[torch.Generator().manual_seed(row) for row in range(3)]
    )
    before = kept[t - 1] if t else 1.0
    mean = (
        beta[t] * math.sqrt(before) / (1 - kept[t]) * clean
        + (1 - before) * math.sqrt(1 - beta[t]) / (1 - kept[t]) * x
    )
    variance = beta[t] * (1 - before) / (1 - kept[t])
    noise = torch.stack(
        [torch.randn(4, 5, generator=torch.Generator().manual_seed(row)) for row in range(3)]
    )
    expected = mean + math.sqrt(variance) * noise
    torch.testing.assert_close(found.prev_sample, expected.float(), atol=2e-5, rtol=1e-4)


def test_trailing_ddim_starts_where_the_noise_is_pure():
    network = Known(torch.ones(2, 3, 4))
    out = sample(network, torch.zeros(2, 3, 4), keys=["a", "b"], steps=20)
    assert network.times == list(range(99, 0, -5))
    torch.testing.assert_close(out, torch.ones(2, 3, 4))


def test_all_steps_of_ddpm_end_at_the_prediction():
    network = Known(torch.ones(2, 3, 4))
    out = sample(network, torch.zeros(2, 3, 4), keys=["a", "b"], sampler="ddpm", steps=100)
    assert network.times == list(range(99, -1, -1))
    torch.testing.assert_close(out, torch.ones(2, 3, 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_trial_is_sampled_alike_in_any_company(sampler):
    torch.manual_seed(0)
    network = PriorNetwork(3, 8, PriorSizes(depth=1, n_heads=2)).eval()
    brain = torch.randn(4, 3, 8)
    with torch.inference_mode():
        options = {"sampler": sampler, "steps": 5, "random_state": 3}
        all_four = sample(network, brain, keys=list("abcd"), **options)
        two = sample(network, brain[[3, 1]], keys=["d", "b"], **options)
        other = sample(network, brain, keys=list("abcd"), **{**options, "random_state": 4})
    torch.testing.assert_close(two, all_four[[3, 1]], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(other, all_four, atol=1e-3)


def test_null_tokens_hide_what_they_stand_for():
    torch.manual_seed(0)
    network = PriorNetwork(3, 8, PriorSizes(depth=1, n_heads=2)).eval()
    noisy, time = torch.randn(2, 3, 8), torch.tensor([5, 90])
    one, two = torch.randn(2, 2, 3, 8)
    none = torch.zeros(2, dtype=torch.bool)
    hidden = [network(noisy, time, b, keep_brain=none) for b in (one, two)]
    torch.testing.assert_close(*hidden)
    assert not torch.allclose(network(noisy, time, one), network(noisy, time, two))
    blind = [network(x, time, one, keep_image=none) for x in (noisy, noisy + 1)]
    torch.testing.assert_close(*blind)
    torch.testing.assert_close(
        network.guided(noisy, time, one, 2.5),
        guide(network(noisy, time, one), hidden[0], 2.5),
    )


def test_every_position_reads_every_other():
    torch.manual_seed(0)
    network = PriorNetwork(3, 8, PriorSizes(depth=1, n_heads=2))
    noisy = torch.randn(1, 3, 8, requires_grad=True)
    network(noisy, torch.tensor([5]), torch.randn(1, 3, 8))[0, 0].sum().backward()
    assert (noisy.grad[0].abs().sum(1) > 0).all()


def test_noise_keeps_the_share_it_says():
    clean, noise = torch.full((2, 1, 1), 2.0), torch.full((2, 1, 1), 3.0)
    out = add_noise(clean, noise, torch.tensor([1.0, 0.64]))
    torch.testing.assert_close(out[:, 0, 0], torch.tensor([2.0, 0.8 * 2 + 0.6 * 3]))


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match="sampler is 'euler'"):
        make_scheduler("euler")
    with pytest.raises(InputError, match="steps is 101"):
        sample(Known(None), torch.zeros(1, 1, 1), keys=["a"], steps=101)
