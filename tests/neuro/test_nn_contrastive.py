"""Contrastive losses against plain float64 loops."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from neuro.nn.contrastive import (
    Mix,
    apply_mix,
    bimixco,
    draw_mix,
    gather,
    gather_mix,
    info_nce,
    mixco_targets,
    softclip,
    softclip_temperature,
)


def pair(n=7, shape=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, *shape, generator=generator, dtype=torch.float64)
    return x, y


def reference(x, y, weights, temperature):
    """Both directions written out, one pair of rows at a time."""
    a, b = (np.asarray(v).reshape(len(v), -1) for v in (x, y))
    a, b = (v / np.sqrt((v**2).sum(1))[:, None] for v in (a, b))
    total = 0.0
    for left, right, w in ((a, b, weights), (b, a, weights.T)):
        for i in range(len(left)):
            logits = np.array([left[i] @ right[j] / temperature for j in range(len(right))])
            logs = logits - (logits.max() + np.log(np.exp(logits - logits.max()).sum()))
            total -= (w[i] * logs).sum() / len(left) / 2
    return total


@pytest.mark.parametrize("temperature", [0.006, 0.1, 1.0])
def test_losses_equal_the_loops(temperature):
    x, y = pair()
    assert info_nce(x, y, temperature).item() == pytest.approx(
        reference(x, y, np.eye(7), temperature), rel=1e-12
    )
    flat = np.asarray(y).reshape(7, -1)
    flat = flat / np.linalg.norm(flat, axis=1)[:, None]
    soft = np.exp(flat @ flat.T / temperature - 1 / temperature)
    soft /= soft.sum(1)[:, None]
    assert softclip(x, y, temperature).item() == pytest.approx(
        reference(x, y, soft, temperature), rel=1e-12
    )
    weight = torch.tensor([0.2, 1.0, 0.5, 0.9, 0.1, 1.0, 0.3], dtype=torch.float64)
    partner = torch.tensor([3, 0, 2, 1, 6, 5, 4])
    targets = np.zeros((7, 7))
    for i in range(7):
        targets[i, i] += float(weight[i])
        targets[i, int(partner[i])] += 1 - float(weight[i])
    assert bimixco(x, y, Mix(weight, partner), temperature).item() == pytest.approx(
        reference(x, y, targets, temperature), rel=1e-12
    )


def test_bimixco_without_mixing_is_info_nce():
    x, y = pair()
    mix = Mix(torch.ones(7, dtype=torch.float64), torch.randperm(7))
    assert torch.equal(bimixco(x, y, mix), info_nce(x, y, 0.006))


def test_softclip_tends_to_info_nce():
    x, y = pair(shape=(40,))
    gaps = []
    for temperature in (0.5, 0.1, 0.02):
        target = info_nce(x, y, temperature)
        gaps.append(abs(softclip(x, y, temperature) - target).item() / target.item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-9


def test_target_rows_sum_to_one_with_fixed_points_too():
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        mix = draw_mix(32, generator)
        torch.testing.assert_close(mixco_targets(mix).sum(1), torch.ones(32))
    alone = Mix(torch.tensor([0.3, 0.4]), torch.tensor([0, 1]))
    assert torch.equal(mixco_targets(alone), torch.eye(2))


def test_the_mix_has_the_published_distribution():
    mix = draw_mix(40_000, torch.Generator().manual_seed(0))
    assert sorted(mix.partner.tolist()) == list(range(40_000))
    mixed = mix.weight[mix.weight < 1].double()
    assert abs(float((mix.weight == 1).float().mean()) - 0.5) < 0.25  # Beta itself rounds to 1
    assert torch.isfinite(mix.weight).all()
    wanted = torch.distributions.Beta(0.15, 0.15)
    inner = ((mixed > 0.1) & (mixed < 0.9)).sum() / 20_000
    torch.manual_seed(0)
    drawn = wanted.sample((200_000,))
    assert float(inner) == pytest.approx(
        float(((drawn > 0.1) & (drawn < 0.9)).float().mean()), abs=0.02
    )


def test_mixing_rows():
    x = torch.arange(6.0).reshape(3, 2)
    mixed = apply_mix(x, Mix(torch.tensor([1.0, 0.5, 0.25]), torch.tensor([2, 0, 1])))
    assert mixed.tolist() == [[0, 1], [1, 2], [2.5, 3.5]]


def test_temperature_schedule_is_a_half_cosine():
    values = [softclip_temperature(f) for f in np.linspace(0, 1, 11)]
    expected = 0.0075 - 0.0035 * (1 + np.cos(np.pi * np.linspace(0, 1, 11))) / 2
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert softclip_temperature(-1) == 0.004
    assert softclip_temperature(2) == 0.0075


def _rank(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    x, y = pair(8)
    mine = slice(4 * rank, 4 * rank + 4)
    own = x[mine].clone().requires_grad_()
    partner = torch.tensor([1, 0, 3, 2])
    weight = torch.full((4,), 0.25, dtype=torch.float64)
    mix = gather_mix(Mix(weight, partner))
    loss = bimixco(gather(own), gather(y[mine]), mix)
    loss.backward()
    save_file({"loss": loss.detach(), "grad": own.grad}, f"{folder}/{rank}.safetensors")
    dist.destroy_process_group()


def test_gathering_two_processes_equals_one(tmp_path):
    assert "RANK" not in os.environ
    # This file run as a script, so that the processes need nothing on their path but the package.
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    x, y = pair(8)
    x.requires_grad_()
    partner = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    loss = bimixco(x, y, Mix(torch.full((8,), 0.25, dtype=torch.float64), partner))
    loss.backward()
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
        # Every process has the whole loss, so their gradients add up to twice it; data-parallel
        # training takes the mean over processes.
        torch.testing.assert_close(found["grad"] / 2, x.grad[4 * rank : 4 * rank + 4])


def test_one_process_gathers_nothing():
    x = torch.ones(2, 3)
    assert gather(x) is x


if __name__ == "__main__":
    _rank(int(sys.argv[1]), sys.argv[2])
