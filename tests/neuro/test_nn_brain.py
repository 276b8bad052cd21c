"""Shapes of MindEye's networks: counts on the meta device, linear start, shares of subjects."""

from __future__ import annotations

import pytest
import torch

from neuro.nn.brain import (
    PRESETS,
    BrainNetwork,
    BrainSizes,
    LowLevelBranch,
    TokenHead,
    count_parameters,
    sizes_of,
)


def on_meta(voxels, tokens, features, sizes):
    with torch.device("meta"):
        return BrainNetwork({"subj01": voxels}, tokens, features, sizes)


def test_mindeye1_has_the_published_parameters():
    network = on_meta(15_724, 257, 768, PRESETS["mindeye1"])
    assert count_parameters(network) == 947_579_904


def test_mindeye2_first_layers_have_the_published_parameters():
    network = on_meta(15_724, 256, 1664, PRESETS["mindeye2"])
    assert count_parameters(network.first) == 64_409_600
    light = on_meta(15_724, 256, 1664, sizes_of("mindeye2", n_hidden=1024))
    assert count_parameters(light.first) == 16_102_400


def test_a_low_rank_head_is_small():
    full, low = TokenHead(4096, 257, 768), TokenHead(4096, 257, 768, rank=64)
    assert count_parameters(full) == 4097 * 257 * 768
    assert count_parameters(low) == 64 * 4096 + 65 * 257 * 768


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_forward_and_backward(preset):
    network = BrainNetwork(
        {"a": 12, "b": 9}, 3, 5, sizes_of(preset, n_hidden=16, n_projector=8), (4, 8, 8)
    )
    code = network.code({"b": torch.randn(4, 9), "a": torch.randn(4, 12)})
    tokens = network.tokens(code)
    out = network.project(code, tokens)
    latent, auxiliary = network.low_level(code)
    assert tokens.shape == out.shape == (8, 3, 5)
    assert latent.shape == (8, 4, 8, 8)
    assert auxiliary.shape == (8, 4, 2, 2)
    (tokens.sum() + out.sum() + latent.sum() + auxiliary.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_mixed_rows_go_through_their_own_first_layer():
    network = BrainNetwork({"a": 12, "b": 9}, 3, 5, BrainSizes(16, n_projector=8)).eval()
    a, b = torch.randn(2, 12), torch.randn(2, 9)
    both = network.code({"b": b, "a": a})
    torch.testing.assert_close(both[:2], network.code({"b": b}))
    torch.testing.assert_close(both[2:], network.code({"a": a}))


@pytest.mark.parametrize("rank", [None, 8])
def test_the_linear_start_is_the_linear_map(rank):
    network = BrainNetwork({"a": 12}, 3, 5, sizes_of("small", n_hidden=16, rank=rank)).eval()
    maps, basis, offset = torch.randn(12, 6), torch.randn(6, 15), torch.randn(15)
    network.start_linear({"a": maps}, basis, offset)
    x = torch.randn(4, 12)
    code = network.code({"a": x})
    expected = x @ maps @ basis + offset
    torch.testing.assert_close(network.tokens(code).flatten(1), expected)
    torch.testing.assert_close(network.project(code, network.tokens(code)).flatten(1), expected)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 7, 5), (8, 1, 1)])
def test_low_level_latents_of_any_shape(shape):
    branch = LowLevelBranch(8, shape)
    latent, auxiliary = branch(torch.randn(2, 8))
    assert latent.shape == (2, *shape)
    assert auxiliary.shape == branch.auxiliary_target(latent).shape
