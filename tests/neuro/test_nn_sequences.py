"""Sequence networks: padding never changes a code, and shapes are those asked for."""

from __future__ import annotations

import pytest
import torch

from neuro.nn.sequences import KINDS, SequenceVAE, make_decoder, make_encoder

LENGTHS = torch.tensor([50, 33, 16, 7])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_never_changes_a_code(kind):
    torch.manual_seed(0)
    encoder = make_encoder(kind, 3, 50, 6, n_hidden=16).double()
    x = torch.randn(4, 3, 50, dtype=torch.float64)
    mask = torch.arange(50) < LENGTHS[:, None]
    code = encoder(x, mask)
    garbage = torch.where(mask[:, None], x, 1e3 * torch.randn_like(x))
    assert torch.equal(encoder(garbage, mask), code)
    longer = torch.nn.functional.pad(garbage, (0, 30), value=7.0)
    wider = torch.nn.functional.pad(mask, (0, 30))
    assert torch.equal(encoder(longer, wider), code)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(x[row : row + 1, :, :length])
        assert torch.allclose(alone, code[row : row + 1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_real_sample_counts(kind):
    """Also the first, 50 samples before the last."""
    torch.manual_seed(0)
    encoder = make_encoder(kind, 1, 50, 2, n_hidden=16).double()
    x = torch.randn(1, 1, 50, dtype=torch.float64, requires_grad=True)
    encoder(x).square().sum().backward()
    assert (x.grad.abs() > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_decoders_move_with_every_latent_and_channel(kind):
    torch.manual_seed(0)
    decoder = make_decoder(kind, 4, 3, 50, n_hidden=16)
    z = torch.randn(2, 4, requires_grad=True)
    out = decoder(z)
    assert out.shape == (2, 3, 50)
    out.square().sum().backward()
    assert (z.grad.abs() > 0).all()


def test_a_wrong_mask_or_kind_is_named():
    network = SequenceVAE("conv", 2, 20, 3)
    with pytest.raises(ValueError, match="beyond the 32 time points"):
        network.encode(torch.ones(1, 2, 40))
    with pytest.raises(ValueError, match="does not fit"):
        network.encode(torch.ones(1, 2, 20), torch.ones(1, 19))
    with pytest.raises(ValueError, match="none of mlp, conv"):
        make_encoder("transformer", 1, 8, 2)
