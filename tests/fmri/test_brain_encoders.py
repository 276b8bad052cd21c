"""What the four whole-brain encoders promise: causality, padding, what is hidden, sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmri.brain_encoders import CausalEncoder, CausalSizes
from fmri.brain_masked import MaskedEncoder, MaskedSizes
from fmri.brain_presets import KINDS, BrainShape, make_encoder, sizes_of
from fmri.brain_volumes import VolumeSizes, VolumetricEncoder, paint
from neuro.errors import DataError, InputError

P, T = 11, 9


@pytest.fixture
def shape():
    places = np.random.default_rng(0).normal(0, 40, (P, 3)).astype(np.float32)
    return BrainShape(P, 2.0, places)


@pytest.fixture
def blocks():
    torch.manual_seed(0)
    mask = torch.ones(4, T, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, 3] = False  # a volume that was cut out of the middle
    return torch.randn(4, T, P), mask


def made(kind, shape, **sizes):
    torch.manual_seed(1)
    return make_encoder(kind, sizes_of(kind, "small", sizes), shape).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, shape, blocks):
    x, mask = blocks
    encoder = made(kind, shape)
    padded = F.pad(x, (0, 0, 0, 7), value=5.0)
    with torch.inference_mode():
        found = encoder(x, mask)
        longer = encoder(padded, F.pad(mask, (0, 7)))
        other = encoder(torch.where(mask[..., None], x, 99.0), mask)
    assert found.shape == (4, encoder.width)
    torch.testing.assert_close(longer, found, atol=1e-5, rtol=0)
    torch.testing.assert_close(other, found, atol=1e-5, rtol=0)
    assert (found[0] - found[3]).abs().max() > 1e-3


def test_paddings_of_brainlm_layers_change_nothing(shape, blocks):
    x, mask = blocks
    sizes = MaskedSizes(24, 2, 4, patch=2, decoder_width=16, decoder_depth=1, value_kernel=5)
    encoder = MaskedEncoder(torch.from_numpy(shape.places), sizes).eval()
    longer = encoder(F.pad(x, (0, 0, 0, 7)), F.pad(mask, (0, 7)))
    torch.testing.assert_close(longer, encoder(x, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("predicts", ["one", "all"])
def test_causal_model_never_sees_what_comes_after(shape, blocks, predicts):
    x, _ = blocks
    encoder, full = made("causal", shape, predicts=predicts), torch.ones(4, T, dtype=torch.bool)
    at = torch.full((4,), 5)
    later, earlier = x.clone(), x.clone()
    later[:, 5:] += 3  # the hidden volume and all after it
    earlier[:, 4] += 3
    first = encoder.predict(x, full, at)
    torch.testing.assert_close(encoder.predict(later, full, at), first, atol=0, rtol=0)
    assert (encoder.predict(earlier, full, at) - first).abs().max() > 1e-3


def test_causal_loss_is_the_absolute_difference_of_the_hidden_volume(shape, blocks):
    x, mask = blocks
    encoder = made("causal", shape, predicts="one")
    noise = torch.tensor([0.0, 0.99, 0.5, 0.3])
    places = [1, 5, 4, 3]  # among the recorded ones: 9, 6, 8, 9 volumes
    recorded = [x[n][mask[n]] for n in range(4)]
    truth = torch.stack([one[at] for one, at in zip(recorded, places, strict=True)])
    found = encoder.predict(x, mask, torch.tensor(places))
    expected = (found - truth).abs().mean()
    torch.testing.assert_close(encoder.pretext(x, mask, noise), expected)


def test_every_volume_predicts_the_next_recorded_one(shape, blocks):
    x, mask = blocks
    encoder = made("causal", shape)
    errors = []
    for n in range(4):
        recorded = x[n][mask[n]]
        for at in range(1, len(recorded)):
            found = encoder.predict(x[n : n + 1], mask[n : n + 1], torch.tensor([at]))[0]
            errors.append((found - recorded[at]).abs().mean())
    loss = encoder.pretext(x, mask, torch.rand(encoder.noise_shape(x)))
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    unseen = torch.where(mask[..., None], x, 99.0)
    torch.testing.assert_close(encoder.pretext(unseen, mask, torch.rand(0)), loss)
    alone = torch.arange(T) < 1
    assert encoder.pretext(x, alone.expand(4, -1), torch.rand(0)) == 0


def test_masked_loss_is_of_recorded_volumes_of_hidden_patches_only(shape, blocks):
    x, mask = blocks
    encoder = made("masked", shape)
    noise = torch.rand(encoder.noise_shape(x), generator=torch.Generator().manual_seed(0))
    keys, hidden = encoder.hide(mask, noise)
    n_patches, patch = 3, encoder.sizes.patch
    assert keys.sum(1).tolist() == [P * 3, P * 2, P * 3, P * 3]
    assert hidden.sum(1).tolist() == [round(n * 0.5) for n in keys.sum(1).tolist()]
    assert not (hidden & ~keys).any()
    patches, _ = encoder._patches(x, mask)
    found = encoder.reconstruct(patches, keys, hidden).unflatten(1, (P, n_patches)).flatten(2)
    error = (found[..., :T] - x.transpose(1, 2)).square()
    asked = hidden.unflatten(1, (P, n_patches)).repeat_interleave(patch, 2)[..., :T]
    asked = asked & mask[:, None]
    expected = error[asked].mean()
    torch.testing.assert_close(encoder.pretext(x, mask, noise), expected)
    # What is hidden is not seen: other values there give the same predictions.
    shown = x.transpose(1, 2).clone()
    shown[asked] += 7
    other, _ = encoder._patches(shown.transpose(1, 2), mask)
    torch.testing.assert_close(
        encoder.reconstruct(other, keys, hidden).unflatten(1, (P, n_patches)).flatten(2), found
    )


def test_a_cls_vector_behind_the_last_volume_is_read(shape, blocks):
    x, mask = blocks
    encoder = made("causal", shape, pool="cls")
    first = encoder(x, mask)
    padded = encoder(F.pad(x, (0, 0, 0, 7), value=5.0), F.pad(mask, (0, 7)))
    torch.testing.assert_close(padded, first, atol=1e-5, rtol=0)
    # It stands behind volume 6 of the second block and sees volume 5, not the padding.
    other = x.clone()
    other[1, 5] += 3
    moved = (encoder(other, mask) - first).abs().amax(1)
    assert moved[1] > 1e-3
    assert moved[[0, 2, 3]].max() == 0


def test_every_parameter_learns(shape, blocks):
    x, mask = blocks
    for kind in ("causal", "masked"):
        encoder = made(kind, shape).train()
        encoder.pretext(x, mask, torch.rand(encoder.noise_shape(x))).backward()
        encoder(x, mask).square().sum().backward()
        idle = [k for k, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
        unused = {"causal": [], "masked": ["cls_token"]}[kind]
        assert [k for k in idle if k not in unused] == []


def test_sizes_of_the_paper():
    with torch.device("meta"):
        model = CausalEncoder(1024, 2.0, CausalSizes())
    found = sum(parameter.numel() for parameter in model.parameters())
    w, parcels = 768, 1024
    embedding = parcels * w + w + 2 * w  # linear and LayerNorm
    learned = 2 * parcels  # mask and CLS
    tables = (1500 + 1) * w + 512 * w  # 300 s in steps of 0.2 s and one more; positions
    attention = w * 3 * w + 3 * w + w * w + w
    mlp = w * 4 * w + 4 * w + 4 * w * w + w
    layers = 4 * (attention + mlp + 2 * 2 * w) + 2 * w
    ends = w * w + w + w * parcels + parcels  # pooler; back to parcels
    assert found == embedding + learned + tables + layers + ends == 32_067_840


def test_volumes_of_the_paper():
    with torch.device("meta"):
        model = VolumetricEncoder(torch.zeros(40, 48, 40), VolumeSizes())
    found = sum(parameter.numel() for parameter in model.parameters())
    square = 4096 * 4096 + 4096 + 2 * 4096  # a layer and its LayerNorm
    assert found == 8 * 4**3 + 8 + 5 * square + 4096 * 768 + 768


def test_voxels_are_painted_where_they_are():
    ijk = np.array([[2, 5, 1], [3, 5, 1], [3, 6, 2]])
    grid = paint(ijk.astype(float))
    assert grid.shape == (2, 2, 2)
    encoder = VolumetricEncoder(torch.from_numpy(grid), VolumeSizes(8, 16, 1, 2, 2, 2))
    volume = encoder.painted(torch.tensor([[1.0, 2.0, 3.0]]))[0, 0]
    assert [volume[tuple(p)].item() for p in ijk - ijk.min(0)] == [1.0, 2.0, 3.0]
    assert volume.sum() == 6
    with pytest.raises(InputError, match="the same voxel"):
        paint(ijk[[0, 0, 1]].astype(float))


def test_what_can_not_be_is_said(shape):
    with pytest.raises(DataError, match="x, y, z"):
        make_encoder("masked", sizes_of("masked", "small"), BrainShape(P, 2.0))
    with pytest.raises(InputError, match="no size depht"):
        sizes_of("causal", "small", {"depht": 3})
    with pytest.raises(InputError, match="no self-supervised task"):
        made("linear", shape).noise_shape(torch.zeros(1, 2, P))
    with pytest.raises(InputError, match=r"301 volumes \(602 s\)"):
        made("causal", shape)(torch.zeros(1, 301, P), torch.ones(1, 301, dtype=torch.bool))
