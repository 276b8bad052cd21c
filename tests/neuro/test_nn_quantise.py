"""The quantiser: nearest values, both gradients, memory, and what decays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuro.nn.quantise import LatentQuantiser, decayed


def code(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_values", [2, 3, 10])
def test_codebooks_begin_symmetric_and_evenly_spaced(n_values):
    books = LatentQuantiser(3, n_values).books
    assert torch.allclose(books, -books.flip(1), atol=1e-7)
    assert (books[:, 0] == -0.5).all()
    assert torch.allclose(books.diff(), torch.full((3, n_values - 1), 1 / (n_values - 1)))


@given(seed=st.integers(0, 1000), shared=st.booleans())
def test_each_dimension_takes_the_nearest_value_of_its_own_book(seed, shared):
    quantiser = LatentQuantiser(4, 5, shared=shared)
    with torch.no_grad():
        quantiser.codebooks.copy_(code(*quantiser.codebooks.shape, seed=seed))
    z = code(6, 4, seed=seed + 1)
    found = quantiser(z)
    for row in range(6):
        for j in range(4):
            book = quantiser.codebooks[0 if shared else j].detach()
            best = min(range(5), key=lambda v: abs(float(book[v] - z[row, j])))
            assert found.codes[row, j] == best
            assert found.values[row, j] == pytest.approx(float(book[best]), abs=1e-6)
    again = quantiser(quantiser.decode(found.codes))
    assert torch.equal(again.codes, found.codes)


def test_values_move_by_one_loss_and_codes_by_the_other():
    quantiser, z = LatentQuantiser(3, 4), code(8, 3).requires_grad_()
    found = quantiser(z)
    assert torch.autograd.grad(found.quantisation, z, allow_unused=True, retain_graph=True) == (
        None,
    )
    (moved,) = torch.autograd.grad(found.quantisation, quantiser.codebooks, retain_graph=True)
    assert moved.abs().sum() > 0
    (pulled,) = torch.autograd.grad(found.commitment, z, retain_graph=True)
    assert torch.allclose(pulled, 2 * (z - found.values) / z.numel())
    assert torch.autograd.grad(
        found.commitment, quantiser.codebooks, allow_unused=True, retain_graph=True
    ) == (None,)
    (straight,) = torch.autograd.grad(found.values.sum(), z, retain_graph=True)
    assert torch.equal(straight, torch.ones_like(z))


def test_18_latents_of_10_values_are_small():
    quantiser = LatentQuantiser(18, 10)
    assert sum(p.numel() * p.element_size() for p in quantiser.state_dict().values()) < 1_000
    with torch.profiler.profile(profile_memory=True) as told:
        quantiser(code(64, 18))
    assert sum(max(0, e.self_cpu_memory_usage) for e in told.events()) < 1_000_000


def test_drawn_codes_are_uniform():
    drawn = LatentQuantiser(2, 4).draw(4000, torch.Generator().manual_seed(0))
    shares = torch.stack([(drawn == v).float().mean(0) for v in range(4)])
    assert (shares - 0.25).abs().max() < 0.03


def test_only_weights_decay():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2), LatentQuantiser(2, 5))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(decayed(model, 0.1), lr=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        shrunk = name in ("0.weight", "2.weight")
        assert torch.allclose(p, before[name] * (0.95 if shrunk else 1.0)), name


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="3 latents of 1 values"):
        LatentQuantiser(3, 1)
