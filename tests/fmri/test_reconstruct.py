"""Reconstruction: the built-in generator, the interface, candidates, seeds and leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neuro.packing
from fmri.autoencoder import ImageAutoencoder
from fmri.diffusion_decoder import DiffusionDecoder, skipped_steps
from fmri.diffusion_networks import ConditionalUNet, as_predicted, make_scheduler
from fmri.images import digit_images, images_dataset, read_images, refuse_seen
from fmri.providers import AutoencoderTokens, CategoryAttributes, PixelPCA, haxby_attributes
from fmri.reconstruct import FromDecoder, Generator, load_generator, reconstruct
from fmri.seeds import trial_keys, trial_seeds
from fmri.targets import compute_targets
from neuro.data import open_dataset, save_dataset
from neuro.errors import ContractError, DataError, InputError


@pytest.fixture(scope="module")
def digits() -> xr.Dataset:
    return digit_images(digits=[6, 9])


@pytest.fixture(scope="module")
def train(digits: xr.Dataset) -> np.ndarray:
    return digits.stimulus.values[:300]


@pytest.fixture(scope="module")
def pca(digits: xr.Dataset, train: np.ndarray) -> PixelPCA:
    return PixelPCA(12).fit(digits, train_stimuli=train)


@pytest.fixture(scope="module")
def targets(digits: xr.Dataset, pca: PixelPCA) -> xr.Dataset:
    return compute_targets(digits, pca)


@pytest.fixture(scope="module")
def decoder(digits: xr.Dataset, targets: xr.Dataset, train: np.ndarray) -> DiffusionDecoder:
    small = DiffusionDecoder(12, width=8, reliability=0.9, max_epochs=25, steps=5, device="cpu")
    return small.fit(targets, digits, train_stimuli=train)


@pytest.fixture
def tokens(targets: xr.Dataset) -> xr.DataArray:
    return targets.signal[300:310].astype("float32").assign_attrs(targets.attrs)


class Painter:
    """Paints the seed and what it is given, to see what arrives."""

    name, image_shape_, random_weights = "painter", (1, 4, 4), True

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(self, tokens: Any, seeds: Any, *, start: Any = None, **options: Any) -> Any:
        self.batches.append(len(tokens))
        self.options = options
        out = np.zeros((len(tokens), 1, 4, 4), dtype=np.float32)
        out[:, 0, 0] = np.array([[s % 997 / 997] for s in seeds])
        if start is not None:
            out[:, 0, 1:] = start[:, 0, 1:]
        return out


def _tokens(n: int, **coords: Any) -> xr.DataArray:
    values = np.arange(n, dtype=np.float32).reshape(n, 1, 1)
    named = {k: ("trial", v) for k, v in coords.items()}
    return xr.DataArray(values, dims=("trial", "token", "feature"), coords=named)


# Seeds -----------------------------------------------------------------------------------------


def test_a_trial_is_known_by_its_coordinates_not_its_place() -> None:
    names = _tokens(3, stimulus=["a", "b", "a"], repeat=[0, 0, 1])
    keys = trial_keys(names)
    assert len(set(keys)) == 3
    assert trial_keys(names[[2, 0]]) == [keys[2], keys[0]]
    plain = trial_keys(_tokens(3))
    assert plain[1:] == trial_keys(_tokens(3)[1:])
    assert trial_seeds(keys, 0) != trial_seeds(keys, 1)
    assert trial_seeds(keys, 0) != trial_seeds(keys, 0, candidate=1)


# The interface ---------------------------------------------------------------------------------


def test_batches_and_order_do_not_matter() -> None:
    tokens = _tokens(5, stimulus=list("abcde"))
    whole = reconstruct(tokens, Painter(), batch_size=5)
    painter = Painter()
    assert whole.identical(reconstruct(tokens, painter, batch_size=2))
    assert painter.batches == [2, 2, 1]
    back = reconstruct(tokens[::-1], Painter())
    np.testing.assert_array_equal(back.signal[::-1], whole.signal)
    assert whole.attrs["kind"] == "reconstructions"
    assert whole.attrs["random_weights"] == 1
    other = reconstruct(tokens, Painter(), random_state=1)
    assert not np.allclose(other.signal, whole.signal)


def test_the_candidate_closest_to_the_wanted_embedding_is_taken(tmp_path: Path) -> None:
    tokens = _tokens(4, stimulus=list("abcd"))
    embed = lambda images: np.stack([images[:, 0, 0, 0], 1 - images[:, 0, 0, 0]], 1)
    wanted = np.tile([[1.0, 0.0]], (4, 1))
    made = reconstruct(
        tokens, Painter(), n_candidates=6, embed=embed, wanted=wanted, keep_candidates=True
    )
    assert made.candidates.shape == (4, 6, 1, 4, 4)
    best = made.candidates.values[:, :, 0, 0, 0].argmax(1)
    np.testing.assert_array_equal(made.chosen, best)
    np.testing.assert_array_equal(made.signal, made.candidates.values[np.arange(4), best])
    first = reconstruct(tokens, Painter()).signal
    np.testing.assert_array_equal(first, made.candidates[:, 0])
    save_dataset(made, tmp_path / "made.zarr")
    assert open_dataset(tmp_path / "made.zarr", load=True).identical(made)


def test_a_start_is_brought_to_the_generators_size() -> None:
    start = np.full((2, 3, 9, 9), 0.25, dtype=np.float32)
    made = reconstruct(_tokens(2), Painter(), start=start, strength=0.5)
    np.testing.assert_allclose(made.signal[:, 0, 1:], 0.25, atol=1e-5)
    assert json.loads(made.attrs["generator"])["strength"] == 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_candidates": 2}, InputError, "several candidates need a way to choose"),
        ({"n_candidates": 0}, InputError, "n_candidates is 0"),
        ({"start": np.zeros((3, 1, 4, 4))}, ContractError, r"start has the shape \(3, 1, 4, 4\)"),
        ({"embed": lambda x: x[:, 0, 0], "wanted": np.ones((2, 7))}, ContractError, "4, 7"),
        ({"embed": lambda x: x, "wanted": np.ones((3, 7))}, ContractError, "3 wanted embeddings"),
    ],
)
def test_wrong_input_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reconstruct(_tokens(2), Painter(), **options)


def test_bad_tokens_are_refused(targets: xr.Dataset, pca: PixelPCA) -> None:
    with pytest.raises(DataError, match="NaN or infinity"):
        reconstruct(_tokens(2) * np.nan, Painter())
    with pytest.raises(ContractError, match="expected trial token feature"):
        reconstruct(_tokens(2)[:, 0], Painter())
    with pytest.raises(DataError, match="no trial"):
        reconstruct(_tokens(2)[:0], Painter())
    other = targets.assign_attrs(fingerprint=json.dumps({"provider": "else"}))
    with pytest.raises(
        ContractError, match=r"generator 'pixel-pca-decoder': .*another fingerprint"
    ):
        reconstruct(other, FromDecoder(pca))


def test_a_providers_decoder_is_a_generator(
    digits: xr.Dataset, targets: xr.Dataset, pca: PixelPCA
) -> None:
    generator = FromDecoder(pca)
    assert isinstance(generator, Generator)
    made = reconstruct(targets.isel(trial=slice(300, None)), generator)
    assert made.signal.shape == (61, 1, 8, 8)
    truth = digits.signal.values[300:]
    assert np.corrcoef(made.signal.values.ravel(), truth.ravel())[0, 1] > 0.9
    with pytest.raises(InputError, match="takes no start"):
        reconstruct(targets, generator, start=digits.signal)
    with pytest.raises(InputError, match="no way back to pixels"):
        FromDecoder(haxby_attributes())
    assert isinstance(haxby_attributes(), CategoryAttributes)


# The diffusion decoder -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 30, 33), (3, 64, 48)])
def test_the_network_takes_any_size(shape: tuple[int, int, int]) -> None:
    network = ConditionalUNet(shape[0], shape[1:], n_components=3, width=8)
    t = torch.tensor([0, 999])
    assert network(torch.randn(2, *shape), t, torch.randn(2, 3)).shape == (2, *shape)


def test_without_its_condition_the_network_does_not_see_it() -> None:
    torch.manual_seed(0)
    network = ConditionalUNet(1, (8, 8), n_components=3, width=8)
    network.weight.normal_()
    x, t, keep = torch.randn(2, 1, 8, 8), torch.tensor([10, 10]), torch.tensor([True, False])
    with torch.no_grad():
        a, b = (network(x, t, torch.full((2, 3), v), keep) for v in (0.0, 1.0))
    assert (a[0] - b[0]).abs().max() > 1e-4
    torch.testing.assert_close(a[1], b[1])


def test_predicted_conditions_have_the_moments_of_a_regression() -> None:
    torch.manual_seed(0)
    c, noise = torch.randn(2, 200_000, 1)
    m = as_predicted(c, torch.tensor(0.3), noise)
    assert float(m.var()) == pytest.approx(0.3, abs=0.01)
    assert float((m * c).mean()) == pytest.approx(0.3, abs=0.01)
    slope = (m * c).mean() / m.square().mean()
    assert float(slope) == pytest.approx(1, abs=0.03)  # it is E[c | brain]


def test_sampling_starts_at_the_last_time() -> None:
    scheduler: Any = make_scheduler()
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999
    assert len(scheduler.timesteps) == 20
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    assert skipped_steps(20, 0.85) == 3


def test_pictures_show_what_the_tokens_say(
    decoder: DiffusionDecoder, digits: xr.Dataset, targets: xr.Dataset
) -> None:
    part = targets.isel(trial=slice(300, None))
    made = reconstruct(part, decoder, batch_size=32).signal.values.reshape(61, -1)
    truth = digits.signal.values[300:].reshape(61, -1)
    both = np.corrcoef(made, truth)[:61, 61:]
    assert (both < np.diag(both)[:, None]).mean() > 0.9  # chance 0.5
    assert decoder.history_[-1]["loss"] < 0.7 * decoder.history_[0]["loss"]


def test_a_trial_does_not_depend_on_its_batch(
    decoder: DiffusionDecoder, tokens: xr.DataArray
) -> None:
    together = reconstruct(tokens, decoder, batch_size=10)
    alone = reconstruct(tokens[7:8], decoder)
    np.testing.assert_allclose(together.signal[7:8], alone.signal, atol=1e-4)
    np.testing.assert_allclose(decoder.transform(tokens), together.signal, atol=1e-4)


def test_a_weak_start_is_kept(decoder: DiffusionDecoder, tokens: xr.DataArray) -> None:
    start = digit_images(digits=[6]).signal.values[:10]
    distance = [
        float(np.abs(reconstruct(tokens, decoder, start=start, strength=s).signal - start).mean())
        for s in (0.2, 1.0)
    ]
    assert distance[0] < 0.7 * distance[1]


def test_it_learns_how_reliable_predictions_are(
    digits: xr.Dataset, targets: xr.Dataset, train: np.ndarray
) -> None:
    from fmri.images import pick

    rng = np.random.default_rng(0)
    known = pick(targets, train, what="targets").astype("float32")
    values = known.signal.values
    noisy = known.copy()
    noisy["signal"] = known.signal.copy(data=values * 0.5)
    noisy.signal[:, 0, 6:] = rng.standard_normal((300, 6))
    decoder = DiffusionDecoder(12, width=8, max_epochs=0, device="cpu")
    decoder.fit(targets, digits, train_stimuli=train, predicted=noisy)
    np.testing.assert_allclose(decoder.reliability_[:6], 0.98, atol=1e-3)
    np.testing.assert_allclose(decoder.slope_[:6], 2, atol=0.01)
    assert decoder.reliability_[6:].max() < 0.1
    with pytest.raises(DataError, match="no training stimuli"):
        decoder.fit(targets, digits, train_stimuli=train[:100], predicted=noisy)


def test_extra_images_join_but_test_images_do_not(
    digits: xr.Dataset, pca: PixelPCA, targets: xr.Dataset, decoder: DiffusionDecoder
) -> None:
    study = digits.isel(trial=slice(40))
    own = compute_targets(study, pca)
    zeros = digit_images(digits=[0])
    small = DiffusionDecoder(6, width=8, max_epochs=1, device="cpu")
    extra = (compute_targets(zeros, pca), zeros)
    small.fit(own, study, train_stimuli=study.stimulus.values[:30], extra=extra)
    assert len(small.trained_on_) == 30 + zeros.sizes["trial"]
    with pytest.raises(DataError, match="is the test image"):
        small.fit(own, study, train_stimuli=study.stimulus.values[:30], extra=(targets, digits))
    twice = images_dataset(study.signal.values[[0, 1, 2, 0]], list("abcd"), duplicates="keep")
    with pytest.raises(DataError, match="a is the test image d"):
        small.fit(compute_targets(twice, pca), twice, train_stimuli=list("abc"))
    with pytest.raises(DataError, match=r"'fmri-diffusion-decoder' was trained on 300 of 361"):
        decoder.refuse_seen(digits)
    with pytest.raises(InputError, match="train_stimuli is missing"):
        small.fit(own, study)
    with pytest.raises(InputError, match="two Datasets"):
        small.fit(own)
    with pytest.raises(DataError, match="the targets lack"):
        small.fit(own.isel(trial=slice(5)), study, train_stimuli=study.stimulus.values[:30])


def test_saved_and_loaded_it_gives_the_same(
    decoder: DiffusionDecoder,
    tokens: xr.DataArray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neuro.packing, "encoder_class", lambda name: DiffusionDecoder)
    decoder.save(tmp_path / "generator")
    again = load_generator(tmp_path / "generator")
    assert reconstruct(tokens, again).identical(reconstruct(tokens, decoder))
    changed = json.dumps({**json.loads(tokens.attrs["fingerprint"]), "layer": "x"})
    with pytest.raises(ContractError, match="another fingerprint"):
        reconstruct(tokens.assign_attrs(fingerprint=changed), again)
    with pytest.raises(ContractError, match=r"tokens have the shape"):
        again.generate(np.zeros((1, 3, 3)), [0])


def test_wrong_parameters_are_refused(targets: xr.Dataset, digits: xr.Dataset) -> None:
    for settings, message in (
        ({"width": 10}, "a multiple of 8"),
        ({"strength": 0}, "strength is 0"),
        ({"dropout": 1}, "dropout is 1"),
        ({"steps": 0}, "steps is 0"),
    ):
        with pytest.raises(InputError, match=message):
            DiffusionDecoder(**settings).fit(targets, digits, train_stimuli=["digit-0006"])


# From a brain ----------------------------------------------------------------------------------


def _study(neuro_data: Path) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """Return images, voxels and labels of fmri-digits69."""
    import scipy.io

    path = neuro_data / "fmri-digits69" / "digit69_28x28.mat"
    images = read_images(path, key=["stimTrn", "stimTest"], shape=(28, 28), order="F")
    table = scipy.io.loadmat(path)
    voxels = np.concatenate([table["fmriTrn"], table["fmriTest"]]).astype(np.float64)
    return images, voxels, np.concatenate([table["labelTrn"], table["labelTest"]]).ravel()


def _pairwise(made: np.ndarray, truth: np.ndarray) -> float:
    n = len(made)
    both = np.corrcoef(made.reshape(n, -1), truth.reshape(n, -1))[:n, n:]
    return float((both < np.diag(both)[:, None]).sum() / (n * (n - 1)))


def _predicted(voxels: np.ndarray, tokens: np.ndarray, train: np.ndarray, test: np.ndarray) -> Any:
    from sklearn.linear_model import RidgeCV

    centre, spread = voxels[train].mean(0), voxels[train].std(0) + 1e-9
    model = RidgeCV(np.logspace(1, 5, 9)).fit(
        (voxels[train] - centre) / spread, tokens[train].reshape(len(train), -1)
    )
    out = model.predict((voxels[test] - centre) / spread)
    return out.reshape(len(test), *tokens.shape[1:])


def test_no_digit_picture_is_a_picture_of_the_study(neuro_data: Path) -> None:
    images, _, _ = _study(neuro_data)
    for size in (8, 28):
        refuse_seen(digit_images(size).image_hash.values, images, what="digits")


@pytest.mark.slow
@pytest.mark.parametrize("n_folds", [10])
def test_pictures_from_a_brain(neuro_data: Path, n_folds: int) -> None:
    """Ridge to the autoencoder's tokens, decoded: above pixels within each class."""
    images, voxels, label = _study(neuro_data)
    extra, truth = digit_images(28, digits=[6, 9]), images.signal.values
    folds = np.array_split(np.random.default_rng(0).permutation(100), n_folds)
    made, plain = np.zeros_like(truth), np.zeros_like(truth)
    for test in folds:
        train = np.setdiff1d(np.arange(100), test)
        vae = ImageAutoencoder(device="cpu")
        vae.fit(images, train_stimuli=images.stimulus.values[train], extra=extra)
        provider = AutoencoderTokens(vae)
        tokens = compute_targets(images, provider, dtype="float32").signal.values
        made[test] = provider.decode(_predicted(voxels, tokens, train, test))
        plain[test] = _predicted(voxels, truth, train, test)
    for chosen in (label > 0, label == 1, label == 2):
        assert _pairwise(made[chosen], truth[chosen]) > _pairwise(plain[chosen], truth[chosen])
