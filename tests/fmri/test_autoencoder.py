"""The image autoencoder: shapes, learning, what it refuses, and the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import neuro.packing
from fmri.autoencoder import ImageAutoencoder
from fmri.image_networks import ImageVAE, ImageVAEObjective, random_affine
from fmri.images import digit_images, images_dataset
from fmri.providers import AutoencoderTokens
from fmri.targets import compute_targets
from neuro import load
from neuro.data import save_dataset
from neuro.errors import ContractError, DataError, InputError
from neuro.nn.objective import State


@pytest.fixture(scope="module")
def digits() -> xr.Dataset:
    return digit_images(digits=[6, 9])


@pytest.fixture(scope="module")
def fitted(digits: xr.Dataset) -> ImageAutoencoder:
    vae = ImageAutoencoder(n_features=4, width=8, max_epochs=50, device="cpu")
    return vae.fit(digits, train_stimuli=digits.stimulus.values[:200])


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((1, 8, 8), (4, 4)), ((3, 28, 28), (4, 4)), ((1, 33, 64), (3, 4)), ((3, 9, 14), (3, 4))],
)
def test_any_size_goes_down_to_a_grid_and_back(
    shape: tuple[int, int, int], grid: tuple[int, int]
) -> None:
    network = ImageVAE(shape[0], shape[1:], n_features=5, width=8)
    mean, log_variance = network.encode(torch.rand(2, *shape))
    assert mean.shape == log_variance.shape == (2, 5, *grid)
    assert network.decode(mean).shape == (2, *shape)


def test_the_loss_is_summed_inside_a_sample() -> None:
    network = ImageVAE(1, (8, 8), n_features=2, width=8)
    objective = ImageVAEObjective(network, beta=0.5, sigma=0.1, learning_rate=1e-3)
    x = torch.rand(4, 1, 8, 8)
    state = State(max_epochs=1, training=False)
    with torch.no_grad():
        losses = objective.step({"x": x}, state)
        doubled = objective.step({"x": torch.cat([x, x])}, state)
        error = (network.decode(network.encode(x)[0]) - x).square().sum() / (2 * 0.1**2) / 4
    torch.testing.assert_close(losses["reconstruction"], error)
    torch.testing.assert_close(losses["loss"], losses["reconstruction"] + 0.5 * losses["kl"])
    torch.testing.assert_close(losses["loss"], doubled["loss"])


def test_augmentation_moves_images_but_not_far() -> None:
    torch.manual_seed(0)
    x = torch.zeros(8, 1, 16, 16)
    x[:, :, 6:10, 6:10] = 1
    torch.testing.assert_close(random_affine(x, 0, 0, 0), x)
    moved = random_affine(x, 10, 0.06, 0.1)
    assert (moved - x).abs().max() > 0.1
    assert ((moved * x).sum((1, 2, 3)) / x.sum((1, 2, 3))).min() > 0.6


def test_it_learns_to_reconstruct_images_it_has_not_seen(
    fitted: ImageAutoencoder, digits: xr.Dataset
) -> None:
    test = digits.isel(trial=slice(200, None))
    pixels = test.signal.values
    back = fitted.inverse_transform(fitted.latent(test)).values
    mean = digits.signal.values[:200].mean(0)
    assert ((back - pixels) ** 2).mean() < 0.5 * ((mean - pixels) ** 2).mean()
    assert fitted.history_[-1]["loss"] < fitted.history_[0]["loss"]
    assert (back.min() >= 0, back.max() <= 1) == (True, True)


def test_tokens_latents_and_codes_are_one(fitted: ImageAutoencoder, digits: xr.Dataset) -> None:
    few = digits.isel(trial=slice(3))
    codes, tokens, latent = fitted.transform(few), fitted.tokens(few), fitted.latent(few)
    assert (codes.shape, tokens.shape, latent.shape) == ((3, 64), (3, 16, 4), (3, 4, 4, 4))
    np.testing.assert_array_equal(codes.values, tokens.values.reshape(3, -1))
    np.testing.assert_array_equal(tokens.values[:, 5], latent.values[:, :, 1, 1])
    pictures = [fitted.inverse_transform(z.values) for z in (codes, tokens, latent)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert codes.stimulus.values.tolist() == few.stimulus.values.tolist()
    dataset = fitted.latent_dataset(few)
    assert dataset.signal.dims == ("trial", "channel", "row", "column")
    with pytest.raises(ContractError, match=r"latents have the shape \(2, 7\)"):
        fitted.inverse_transform(np.zeros((2, 7)))


def test_it_is_a_provider_with_a_way_back(
    fitted: ImageAutoencoder, digits: xr.Dataset, tmp_path: Path
) -> None:
    provider = AutoencoderTokens(fitted)
    targets = compute_targets(digits, provider, cache=tmp_path / "c")
    assert targets.signal.shape == (361, 16, 4)
    back = provider.decode(targets.signal.values[:2])
    expected = fitted.inverse_transform(fitted.tokens(digits.isel(trial=slice(2)))).values
    np.testing.assert_allclose(back, expected, atol=0.02)  # half precision
    save_dataset(targets, tmp_path / "t.zarr")


def test_test_images_stay_out(fitted: ImageAutoencoder, digits: xr.Dataset) -> None:
    fitted.refuse_seen(digits.isel(trial=slice(200, None)))
    with pytest.raises(DataError, match=r"'fmri-image-autoencoder' was trained on 200 of 361"):
        fitted.refuse_seen(digits)
    twice = images_dataset(digits.signal.values[[0, 1, 0]], list("abc"), duplicates="keep")
    with pytest.raises(DataError, match="a is the test image c"):
        ImageAutoencoder().fit(twice, train_stimuli=["a", "b"])
    study = digits.isel(trial=slice(20))
    with pytest.raises(DataError, match=r"digit-\d+ is the test image"):
        ImageAutoencoder().fit(study, train_stimuli=study.stimulus.values[:10], extra=digits)
    with pytest.raises(InputError, match="train_stimuli is missing"):
        ImageAutoencoder().fit(digits)


def test_the_same_seed_gives_the_same_weights(digits: xr.Dataset) -> None:
    train = digits.stimulus.values[:40]
    settings = {"n_features": 2, "width": 8, "max_epochs": 2, "device": "cpu"}
    first, again = (ImageAutoencoder(**settings).fit(digits, train_stimuli=train) for _ in "ab")
    other = ImageAutoencoder(**settings, random_state=1).fit(digits, train_stimuli=train)
    assert first.weights_hash() == again.weights_hash() != other.weights_hash()


def test_saved_and_loaded_it_gives_the_same(
    fitted: ImageAutoencoder, digits: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuro.packing, "encoder_class", lambda name: ImageAutoencoder)
    fitted.save(tmp_path / "vae")
    again = load(tmp_path / "vae")
    few = digits.isel(trial=slice(3))
    assert isinstance(again, ImageAutoencoder)
    assert again.tokens(few).identical(fitted.tokens(few))
    assert again.trained_on_ == fitted.trained_on_
    with pytest.raises(ContractError, match=r"\(1, 12, 12\), expected \(1, 8, 8\)"):
        again.transform(digit_images(12, digits=[6]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 12}, "a multiple of 8"),
        ({"sigma": 0}, "expected above 0"),
        ({"beta": -1}, "beta is -1"),
        ({"max_epochs": -1}, "max_epochs is -1"),
    ],
)
def test_wrong_parameters_are_refused(
    settings: dict[str, float], message: str, digits: xr.Dataset
) -> None:
    with pytest.raises(InputError, match=message):
        ImageAutoencoder(**settings).fit(digits, train_stimuli=digits.stimulus.values[:9])


def test_images_that_are_too_large_are_refused() -> None:
    with pytest.raises(InputError, match="expected 1 or 3 channels of 8 to 64 pixels"):
        ImageAutoencoder().fit(np.zeros((2, 1, 8, 80), dtype=np.float32))


def test_plain_arrays_do_without_names() -> None:
    pixels = np.random.default_rng(0).random((12, 8, 8), dtype=np.float32)
    vae = ImageAutoencoder(n_features=2, width=8, max_epochs=1, device="cpu").fit(pixels)
    assert vae.transform(pixels).shape == (12, 32)
    assert len(vae.trained_on_) == 12
