"""Targets, galleries, generators and reconstructions as stages: what fits together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import neuro
from fmri import picture_stages, stages
from fmri.autoencoder import ImageAutoencoder
from fmri.gallery import as_gallery
from fmri.images import digit_images, images_dataset
from fmri.low_level import KLLatents, low_level_pictures
from fmri.mindeye import MindEye
from fmri.parts import stimuli_of, with_parts
from fmri.sessions import standardize_sessions
from fmri.simulate import simulate
from fmri.study_targets import MARK, embedder, provider_again
from neuro.blocks import read_sections
from neuro.data import save_dataset
from neuro.errors import ContractError, DataError, InputError
from neuro.runner.context import RunContext
from neuro.runner.progress import Reporter


class Stages:
    """Runs stage functions with a real context; remembers what they reported."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 0

    def __call__(self, function: Any, params: dict[str, Any], **inputs: Any) -> Any:
        self.n += 1
        own = self.folder / str(self.n)
        own.mkdir(parents=True)
        self.context = RunContext("stage", "key", own, own / "scratch", 1, {}, Reporter(False))
        model = function.stage.params(**params)
        found = function(**inputs, params=model, context=self.context)
        self.context.finish()
        return found

    @property
    def notes(self) -> dict[str, Any]:
        return json.loads((self.folder / str(self.n) / "notes.json").read_text())

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / str(self.n) / "metrics.json").read_text())

    @property
    def sections(self) -> list[Any]:
        return read_sections(self.folder / str(self.n) / "report")


@pytest.fixture
def run(tmp_path: Path) -> Stages:
    return Stages(tmp_path / "stages")


@pytest.fixture(scope="module")
def images() -> xr.Dataset:
    found = digit_images(digits=[6, 9]).isel(trial=slice(0, 100))
    return with_parts(found, 0.2, seed=0)


@pytest.fixture(scope="module")
def autoencoder(images: xr.Dataset) -> ImageAutoencoder:
    network = ImageAutoencoder(n_features=3, width=8, max_epochs=8, device="cpu")
    return network.fit(images, train_stimuli=stimuli_of(images, "train"))


def tiny_clip(folder: Path, seed: int | None = None) -> dict[str, Any]:
    """Write a tiny CLIP; with a seed its weights too."""
    config = {
        "embed_dim": 12, "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 12,
                                      "heads": 2, "layers": 1},
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 24, "patch_size": 8,
                       "head_width": 8},
    }  # fmt: skip
    (folder / "tiny.json").write_text(json.dumps(config))
    own: dict[str, Any] = {"arch_file": folder / "tiny.json", "normalize": "cls"}
    if seed is not None:
        open_clip = pytest.importorskip("open_clip")
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(seed)
        save_file(open_clip.CLIP(**config).state_dict(), folder / "tiny.safetensors")
        own["weights"] = folder / "tiny.safetensors"
    return {"provider": "open_clip", "open_clip": own}


@pytest.mark.parametrize("provider", ["pca", "open_clip", "array", "attributes", "autoencoder"])
def test_every_provider_is_made_again(
    provider: str, images: xr.Dataset, autoencoder: ImageAutoencoder, run: Stages, tmp_path: Path
) -> None:
    inputs: dict[str, Any] = {"images": images}
    if provider == "pca":
        params: dict[str, Any] = {"provider": provider, "n_features": 5}
    elif provider == "open_clip":
        pytest.importorskip("open_clip")
        params = tiny_clip(tmp_path, seed=0)
    elif provider == "array":
        values = np.random.default_rng(0).normal(size=(100, 2, 4))
        np.savez(tmp_path / "e.npz", ids=images.stimulus.values, embeddings=values)
        params = {"provider": provider, "file": tmp_path / "e.npz"}
    elif provider == "attributes":
        table = pd.DataFrame({"round": [1, 1], "tail up": [1, 0]}, index=["6", "9"])
        table["round"] = [2, 1]
        table.to_csv(tmp_path / "a.csv")
        params = {"provider": provider, "file": tmp_path / "a.csv", "source": "looked at"}
    else:
        params, inputs = {"provider": provider}, {**inputs, "autoencoder": autoencoder}
    found = run(stages.targets, params, **inputs)
    assert found.sizes["trial"] == 100
    assert not run.notes["marks"]
    again = provider_again(found, images, autoencoder)
    assert again.fingerprint() == json.loads(found.attrs["fingerprint"])
    encoded = again.encode(images.isel(trial=slice(0, 3)))
    np.testing.assert_allclose(encoded, found.signal.values[:3], atol=2e-2)
    if again.needs_pixels:  # pictures of another size are brought to the right one
        large = np.repeat(np.repeat(images.signal.values[:3], 3, 2), 3, 3)
        assert embedder(again)(large).shape == (3, *found.signal.shape[1:])


def test_random_weights_are_marked_for_all_that_follows(
    images: xr.Dataset, run: Stages, tmp_path: Path
) -> None:
    pytest.importorskip("open_clip")
    found = run(stages.targets, tiny_clip(tmp_path), images=images)
    assert run.notes["marks"] == [MARK]
    assert found.attrs["random_weights"] == 1


def test_wrong_settings_of_targets_are_refused(
    images: xr.Dataset, autoencoder: ImageAutoencoder, run: Stages, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="'array' needs file"):
        run(stages.targets, {"provider": "array"}, images=images)
    with pytest.raises(InputError, match="an autoencoder is wired"):
        run(stages.targets, {"provider": "pca"}, images=images, autoencoder=autoencoder)
    both = tiny_clip(tmp_path)
    both["open_clip"] |= {"hub": "hub:a/b", "folder": tmp_path}
    with pytest.raises(InputError, match="are alternatives"):
        run(stages.targets, both, images=images)
    other = with_parts(images, 0.2, seed=1)
    with pytest.raises(DataError, match="was trained on"):  # other pictures are the test part
        run(stages.targets, {}, images=other, autoencoder=autoencoder)


def test_a_folder_of_pictures_becomes_a_gallery(
    images: xr.Dataset, autoencoder: ImageAutoencoder, run: Stages, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.rint(images.signal.values[:7, 0] * 255).astype(np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).resize((24, 24)).save(folder / f"new-{number}.png")
    targets = run(stages.targets, {}, images=images, autoencoder=autoencoder)
    inputs = {"targets": targets, "images": images, "autoencoder": autoencoder}
    own = as_gallery(run(picture_stages.gallery, {"part": "train"}, **inputs))
    assert sorted(own.stimulus) == sorted(stimuli_of(images, "train"))
    found = as_gallery(run(picture_stages.gallery, {"folder": folder, "part": "test"}, **inputs))
    assert len(found) == 27
    own_codes = autoencoder.tokens(images).values[:7].reshape(7, -1)
    new = found.tokens[20:].reshape(7, -1).astype(np.float32)
    own_codes /= np.linalg.norm(own_codes, axis=1, keepdims=True)
    assert ((new @ own_codes.T).argmax(1) == np.arange(7)).all()  # in the same space
    other = ImageAutoencoder(n_features=3, width=8, max_epochs=1, device="cpu", random_state=7)
    other.fit(images, train_stimuli=stimuli_of(images, "train"))
    with pytest.raises(ContractError, match="weights_hash"):
        run(picture_stages.gallery, {"folder": folder}, **{**inputs, "autoencoder": other})
    with pytest.raises(InputError, match="was not kept"):
        run(picture_stages.gallery, {"folder": folder}, **{**inputs, "autoencoder": None})


@pytest.fixture(scope="module")
def study(images: xr.Dataset, autoencoder: ImageAutoencoder) -> dict[str, Any]:
    from fmri.providers import AutoencoderTokens
    from fmri.targets import compute_targets

    targets = compute_targets(images, AutoencoderTokens(autoencoder))
    targets = targets.assign_attrs(made_by='{"provider": "autoencoder"}')
    test = stimuli_of(images, "test")
    betas = simulate(images, targets, n_train=80, test=test, n_voxels=60, ceiling=0.6).betas[0]
    betas = standardize_sessions(betas, stimuli_of(images, "train"))[0]
    own = betas.isel(trial=np.isin(betas.stimulus.values, stimuli_of(images, "train")))
    encoder = MindEye(max_epochs=2, prior=False, device="cpu")
    encoder.fit(own, targets, low_level=autoencoder.latent_dataset(images))
    encoder.attach_decoder(autoencoder)
    return {"betas": betas, "targets": targets, "images": images, "encoder": encoder}


FAST = {"n_boot": 100, "tokens": "backbone"}


def test_a_generator_never_sees_a_test_picture(study: dict[str, Any], run: Stages) -> None:
    inputs = {name: study[name] for name in ("targets", "images", "betas")}
    params = {"max_epochs": 1, "width": 8, "n_components": 4, "device": "cpu"}
    model = run(picture_stages.generator, params, **inputs)
    assert len(model.trained_on_) == 80
    assert not np.allclose(model.reliability_, 0.5)  # learned from cross-validated predictions
    sources = {**study, "generator": model}
    made = run(
        picture_stages.reconstruct, {**FAST, "by": ["diffusion"], "n_candidates": 3}, **sources
    )
    assert made.score.shape == (20, 3)
    best = made.score.values[np.arange(20), made.chosen.values]
    np.testing.assert_array_equal(best, made.score.values.max(1))
    assert json.loads(made.attrs["generator"])["start"]  # from the low-level picture
    assert {"reconstruct.pixcorr", "reconstruct.ridge.ssim"} <= set(run.metrics)
    other = with_parts(study["images"], 0.2, seed=1)
    leaked = run(picture_stages.generator, params, targets=study["targets"], images=other)
    with pytest.raises(DataError, match="was trained on"):
        run(picture_stages.reconstruct, {**FAST, "by": ["diffusion"]}, **study, generator=leaked)


def test_components_are_saved_along_and_decode_new_scans(
    study: dict[str, Any], run: Stages, tmp_path: Path
) -> None:
    images, betas = study["images"], study["betas"]
    targets = run(stages.targets, {"provider": "pca", "n_features": 6}, images=images)
    params = {"max_epochs": 1, "prior": False, "device": "cpu"}
    model = run(stages.mindeye, params, betas=betas, targets=targets, images=images)
    model.save(tmp_path / "encoder")
    save_dataset(betas, tmp_path / "scan")
    found = neuro.load(tmp_path / "encoder").decode(tmp_path / "scan")
    expected = provider_again(targets, images).decode(found.tokens.values)
    np.testing.assert_allclose(found.reconstruction.values, expected, atol=1e-4)
    other = run(stages.targets, {"provider": "pca", "n_features": 5}, images=images)
    with pytest.raises(ContractError, match="the decoder"):
        model.attach_decoder(provider_again(other, images))


def test_a_gallery_picture_is_never_the_seen_one(study: dict[str, Any], run: Stages) -> None:
    inputs = {name: study[name] for name in ("targets", "images")}
    gallery = run(picture_stages.gallery, {"pooling": "mean"}, **inputs)
    assert gallery.sizes["trial"] == 100
    made = run(
        picture_stages.reconstruct, {**FAST, "by": ["gallery", "decoder"]}, **study, gallery=gallery
    )
    assert set(made.gallery.values) <= set(stimuli_of(study["images"], "train"))
    metrics = run.metrics
    assert metrics["reconstruct.decoder.pixcorr"]["value"] > 0.3
    assert metrics["reconstruct.class_accuracy"]["value"] > 0.7  # a six or a nine
    assert metrics["reconstruct.alexnet2"]["value"] is None
    (section,) = run.sections
    assert "Read with care" in section.blocks[0].text
    rows = {row["metric"]: row["value"] for row in section.blocks[2].rows}
    assert "missing" in rows["CLIP"]


def test_what_a_reconstruction_needs_is_named(study: dict[str, Any], run: Stages) -> None:
    for by, message in {
        "diffusion": "generator: wired", "gallery": "gallery: wired",
        "pretrained": "folder: or hub:",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message):
            run(picture_stages.reconstruct, {**FAST, "by": [by]}, **study)
    blind = MindEye(max_epochs=0, prior=False, device="cpu")
    own = study["betas"].isel(
        trial=np.isin(study["betas"].stimulus.values, stimuli_of(study["images"], "train"))
    )
    blind.fit(own, study["targets"])
    with pytest.raises(InputError, match="a way back to pixels"):
        run(picture_stages.reconstruct, FAST, **{**study, "encoder": blind})
    wrong = ImageAutoencoder(n_features=2, width=8, max_epochs=0, device="cpu")
    wrong.fit(study["images"], train_stimuli=stimuli_of(study["images"], "train"))
    with pytest.raises(ContractError, match="neither that of the targets"):
        blind.attach_decoder(wrong)


def test_the_low_level_branch_learns_latents_of_a_pretrained_autoencoder(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, latent_channels=2,
    )  # fmt: skip
    vae.save_pretrained(tmp_path / "vae")
    made = KLLatents(tmp_path / "vae", device="cpu")
    rng = np.random.default_rng(0)
    pictures = images_dataset(rng.random((30, 1, 8, 8)), [f"s{n}" for n in range(30)])
    latents = made.latent_dataset(pictures)
    assert latents.signal.shape == (30, 2, 8, 8)
    assert made.decode(latents.signal.values[:2]).shape == (2, 3, 16, 16)
    names = pictures.stimulus.values
    X = xr.DataArray(rng.normal(size=(30, 12)), dims=("trial", "voxel"),
                     coords={"stimulus": ("trial", names)})  # fmt: skip
    values = rng.normal(size=(30, 2, 3)).astype("float32")
    y = xr.Dataset({"signal": (("trial", "token", "feature"), values)},
                   coords={"stimulus": ("trial", names)})  # fmt: skip
    model = MindEye(max_epochs=1, prior=False, device="cpu").fit(X, y, low_level=latents)
    assert low_level_pictures(model, X, vae=made).shape == (30, 3, 16, 16)
    with pytest.raises(ContractError, match="autoencoder-kl"):
        low_level_pictures(model, X, vae=KLLatents(tmp_path / "vae", size=32, device="cpu"))
    with pytest.raises(DataError, match=r"config\.json missing"):
        KLLatents(tmp_path)
