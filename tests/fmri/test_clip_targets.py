"""CLIP's image tower: tokens as open_clip computes them, weights, and the QuickGELU trap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fmri.clip_targets import GENERATORS, OpenCLIP
from fmri.images import digit_images, images_dataset
from fmri.targets import compute_targets
from neuro.errors import ContractError, DataError, InputError

open_clip = pytest.importorskip("open_clip")

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 24, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 12, "heads": 2, "layers": 1},
}


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return path


def _model(seed: int = 0, **changes: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return open_clip.CLIP(**{**CONFIG, **changes}).eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "tiny.safetensors"
    path.parent.mkdir()
    save_file(_model().state_dict(), path)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)


def test_all_layers_are_those_of_open_clip(arch: Path, weights: Path, pixels: np.ndarray) -> None:
    model = _model()
    shape = (1, 3, 1, 1)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).reshape(shape)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).reshape(shape)
    x = (torch.from_numpy(pixels) - mean) / std
    model.visual.output_tokens = True
    with torch.no_grad():
        pooled, patches = (t.numpy() for t in model.visual(x))
        projected = patches @ model.visual.proj.numpy()
    made = {
        layer: OpenCLIP(arch, weights, layer=layer, device="cpu").encode_pixels(pixels)
        for layer in ("pooled", "patches", "tokens", "penultimate")
    }
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(made["pooled"][:, 0], pooled, **close)
    np.testing.assert_allclose(made["patches"], patches, **close)
    np.testing.assert_allclose(made["tokens"][:, 0], pooled, **close)
    np.testing.assert_allclose(made["tokens"][:, 1:], projected, **close)
    assert made["penultimate"].shape == (3, 5, 24)


def test_each_generator_gets_its_normalisation(
    arch: Path, weights: Path, pixels: np.ndarray
) -> None:
    plain = OpenCLIP(arch, weights, device="cpu").encode_pixels(pixels)
    provider = OpenCLIP(arch, weights, generator="versatile-diffusion", device="cpu")
    made = provider.encode_pixels(pixels)
    np.testing.assert_allclose(np.linalg.norm(made[:, 0], axis=-1), 1, rtol=1e-5)
    norm = np.linalg.norm(plain[:, :1], axis=-1, keepdims=True)
    np.testing.assert_allclose(made, plain / norm, rtol=1e-4, atol=1e-6)
    assert provider.scale == pytest.approx(np.sqrt(12))
    own = OpenCLIP(arch, weights, normalize="l2", device="cpu").encode_pixels(pixels)
    np.testing.assert_allclose(np.linalg.norm(own, axis=-1), 1, rtol=1e-5)
    assert OpenCLIP(arch, weights, generator="stable-unclip").scale == 1.0
    assert set(GENERATORS) >= {"versatile-diffusion", "stable-unclip", "ip-adapter"}
    with pytest.raises(InputError, match="generator is 'dalle'"):
        OpenCLIP(arch, weights, generator="dalle")
    with pytest.raises(InputError, match="no CLS token"):
        OpenCLIP(arch, weights, layer="patches", normalize="cls")
    with pytest.raises(InputError, match="layer is 'all'"):
        OpenCLIP(arch, weights, layer="all")


def test_preparing_is_open_clips_transform(arch: Path) -> None:
    from PIL import Image

    wide = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    transform = open_clip.image_transform(16, is_train=False)
    expected = transform(Image.fromarray(wide)).numpy()
    pixels = images_dataset(wide[None], ["wide"]).signal.values
    found = OpenCLIP(arch, device="cpu")._prepared(torch.from_numpy(pixels))[0].numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.05  # PIL rounds to whole levels of grey


def test_random_weights_are_marked_and_repeatable(arch: Path) -> None:
    digits = digit_images(digits=[6]).isel(trial=slice(4))
    first = compute_targets(digits, OpenCLIP(arch, device="cpu", random_state=3))
    again = compute_targets(digits, OpenCLIP(arch, device="cpu", random_state=3))
    assert first.attrs["random_weights"] == 1
    assert json.loads(first.attrs["fingerprint"])["weights_hash"].startswith("random-")
    assert first.identical(again)
    other = OpenCLIP(arch, device="cpu", random_state=4)
    assert other.fingerprint() != json.loads(first.attrs["fingerprint"])


def test_the_fingerprint_knows_weights_layer_and_preprocessing(arch: Path, weights: Path) -> None:
    provider = OpenCLIP(arch, weights, generator="versatile-diffusion")
    known = provider.fingerprint()
    assert not provider.random_weights
    assert (known["arch"], known["layer"]) == ("tiny", "tokens/cls")
    assert known["preprocessing"]["size"] == 16
    assert OpenCLIP(arch, weights, quick_gelu=True).fingerprint() != known
    state = _model(seed=1).state_dict()
    save_file(state, weights)
    assert OpenCLIP(arch, weights).fingerprint()["weights_hash"] != known["weights_hash"]


def test_openais_weights_in_a_plain_architecture_are_refused(arch: Path, tmp_path: Path) -> None:
    named = tmp_path / "ViT-L-14.openai.safetensors"
    save_file(_model(quick_gelu=True).state_dict(), named)
    with pytest.raises(ContractError, match=r"OpenAI's.*QuickGELU.*'tiny' computes GELU.*silently"):
        OpenCLIP(arch, named)
    export = tmp_path / "vit.safetensors"
    sizes = {"input_resolution": torch.tensor(16), "vocab_size": torch.tensor(20)}
    save_file({**_model().state_dict(), **sizes}, export)
    with pytest.raises(ContractError, match=r"arch='tiny-quickgelu' or quick_gelu=True"):
        OpenCLIP(arch, export)
    switched = OpenCLIP(arch, named, quick_gelu=True)
    assert switched.fingerprint()["preprocessing"]["quick_gelu"] is True


def test_quick_gelu_is_computed(arch: Path, weights: Path, pixels: np.ndarray) -> None:
    save_file(_model(quick_gelu=True).state_dict(), weights)
    quick = OpenCLIP(arch, weights, quick_gelu=True, layer="pooled", device="cpu")
    plain = OpenCLIP(arch, weights, layer="pooled", device="cpu")
    model = _model(quick_gelu=True)
    with torch.no_grad():
        expected = model.visual(quick._prepared(torch.from_numpy(pixels))).numpy()
    np.testing.assert_allclose(quick.encode_pixels(pixels)[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(plain.encode_pixels(pixels)[:, 0] - expected).max() > 1e-3


def test_a_file_that_does_not_say_its_activation_is_warned_of(tmp_path: Path) -> None:
    from fmri.clip_targets import _warn_of_twin

    with pytest.warns(UserWarning, match="arch='ViT-L-14-quickgelu'"):
        _warn_of_twin("ViT-L-14", False, None, tmp_path / "x.safetensors")


def test_a_folder_says_its_architecture(tmp_path: Path, weights: Path, pixels: np.ndarray) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights.rename(folder / "open_clip_model.safetensors")
    stated = {
        "model_cfg": {**CONFIG, "quick_gelu": True},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    provider = OpenCLIP(weights=folder, device="cpu")
    known = provider.fingerprint()["preprocessing"]
    assert (known["mean"], known["quick_gelu"]) == ([0.5] * 3, True)
    assert provider.encode_pixels(pixels).shape == (3, 5, 12)
    with pytest.raises(ContractError, match="its configuration says so"):
        OpenCLIP(weights=folder, quick_gelu=False)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(DataError, match=r"expected open_clip_config\.json"):
        OpenCLIP(weights=folder)


def test_weights_of_another_architecture_are_refused(
    arch: Path, weights: Path, tmp_path: Path
) -> None:
    wider = tmp_path / "wider.json"
    vision = {**CONFIG["vision_cfg"], "width": 32}  # type: ignore[dict-item]
    wider.write_text(json.dumps({**CONFIG, "vision_cfg": vision}))
    with pytest.raises(ContractError, match=r"isn't of the architecture 'wider'.*in the file"):
        OpenCLIP(wider, weights)
    (tmp_path / "w.bin").write_bytes(b"pickle")
    with pytest.raises(DataError, match=r"from \.safetensors only"):
        OpenCLIP(arch, tmp_path / "w.bin")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(DataError, match="can't be read"):
        OpenCLIP(arch, weights)
    with pytest.raises(DataError, match="no tag of open_clip"):
        OpenCLIP("ViT-B-32", "nosuchtag")
    with pytest.raises(InputError, match="open_clip knows no 'ViT-Z-99'; near: ViT-"):
        OpenCLIP("ViT-Z-99")
    with pytest.raises(InputError, match="arch is missing"):
        OpenCLIP(weights=weights)


def test_a_tag_of_openai_is_known_to_be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from fmri import clip_targets

    folder = Path("nowhere")
    monkeypatch.setattr(clip_targets, "_download", lambda *_: folder)
    monkeypatch.setattr(clip_targets, "_from_folder", lambda _: (folder / "x.safetensors", {}, {}))
    _, stated, preprocess = clip_targets._from_tag("openai", "ViT-L-14", None)
    assert stated == {"quick_gelu": True}
    assert preprocess["interpolation"] == "bicubic"
    with pytest.raises(ContractError, match="ViT-L-14-quickgelu"):
        clip_targets.activation_of("ViT-L-14", False, None, folder / "x.safetensors", stated, {})
