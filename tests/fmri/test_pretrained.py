"""Pretrained generators: tiny random pipelines on disk, through the real loading code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from fmri.pretrained import Pretrained, _shortened, load_pretrained
from fmri.reconstruct import Generator, load_generator, reconstruct
from neuro.errors import ContractError, DataError, InputError

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

WIDTH, SIDE = 16, 32  # of embeddings; of pictures in pixels

KINDS = ("stable-unclip", "versatile-diffusion", "sdxl")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: save(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def generators(saved: dict[str, Path]) -> dict[str, Pretrained]:
    unet = diffusers.UNet2DConditionModel.from_pretrained(saved["sdxl"] / "unet")
    adapter = save_adapter(unet, saved["sdxl"].parent / "adapter")
    extra: dict[str, Any] = {"sdxl": {"ip_adapter": adapter}}
    return {
        kind: load_pretrained(path, device="cpu", steps=4, **extra.get(kind, {}))
        for kind, path in saved.items()
    }


@pytest.fixture(params=KINDS)
def generator(request: pytest.FixtureRequest, generators: dict[str, Pretrained]) -> Pretrained:
    return generators[request.param]


def _tokens(generator: Pretrained, n: int = 3) -> np.ndarray:
    shape = (n, *generator.token_shape_)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_pictures_have_the_size_of_the_pipeline(generator: Pretrained) -> None:
    assert isinstance(generator, Generator)
    pictures = generator.generate(_tokens(generator), [1, 2, 3])
    assert pictures.shape == (3, *generator.image_shape_) == (3, 3, SIDE, SIDE)
    assert pictures.dtype == np.float32
    assert 0 <= pictures.min() < pictures.max() <= 1


def test_a_trial_does_not_depend_on_its_batch(generator: Pretrained) -> None:
    tokens = _tokens(generator)
    together = generator.generate(tokens, [1, 2, 3])
    alone = generator.generate(tokens[1:2], [2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4)
    other = tokens.copy()
    other[0] *= -3
    changed = np.abs(generator.generate(other, [1, 2, 3]) - together).mean((1, 2, 3))
    assert changed[0] > 1e-3  # its own tokens matter
    np.testing.assert_allclose(changed[1:], 0, atol=1e-4)  # those of others don't


def test_seeds_matter(generator: Pretrained) -> None:
    tokens = _tokens(generator, 1)
    first, second = generator.generate(tokens, [1]), generator.generate(tokens, [2])
    assert np.abs(first - second).mean() > 1e-3


def test_a_start_is_followed_the_more_the_weaker(generator: Pretrained) -> None:
    tokens = _tokens(generator)
    start = np.random.default_rng(1).random((3, 3, SIDE, SIDE), dtype=np.float32)
    clean = generator._encoded(start).detach()
    distance = []
    for strength in (0.25, 0.5, 1.0):
        with _shortened(generator.pipe.scheduler, 4, strength):
            begun = generator._latents([1, 2, 3], start, 4).detach()
        distance.append(float((begun / begun.std() - clean / clean.std()).square().mean()))
        assert generator.generate(tokens, [1, 2, 3], start=start, strength=strength).shape[0] == 3
    assert distance[0] < distance[1] < distance[2]
    with pytest.raises(InputError, match="at least one step"):
        generator.generate(tokens, [1, 2, 3], start=start, strength=0.1)


def test_the_shortened_schedule_is_that_of_image_to_image(saved: dict[str, Path]) -> None:
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(saved["sdxl"])
    pipe.scheduler.set_timesteps(20)
    expected, _ = pipe.get_timesteps(20, 0.85, "cpu")
    scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    with _shortened(scheduler, 20, 0.85):
        scheduler.set_timesteps(20)
        assert scheduler.timesteps.tolist() == expected.tolist()
    scheduler.set_timesteps(20)
    assert len(scheduler.timesteps) == 20


def test_the_stage_reconstructs_by_a_pretrained_pipeline(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    from fmri.images import digit_images
    from fmri.mindeye import MindEye
    from fmri.parts import stimuli_of, with_parts
    from fmri.picture_stages import ReconstructParams, reconstruct
    from fmri.simulate import simulate
    from neuro.runner.context import RunContext
    from neuro.runner.progress import Reporter

    images = with_parts(digit_images(digits=[6, 9]).isel(trial=slice(0, 40)), 0.1, seed=0)
    test = stimuli_of(images, "test")
    study = simulate(images, n_train=36, test=test, n_voxels=20, n_tokens=1, n_features=WIDTH)
    encoder = MindEye(max_epochs=1, prior=False, device="cpu").fit(study.betas[0], study.targets)
    params = ReconstructParams(
        by=["pretrained"], tokens="backbone", steps=2, n_candidates=4, n_boot=100, device="cpu",
        pretrained={"folder": saved["stable-unclip"]},
    )  # fmt: skip
    context = RunContext("r", "key", tmp_path, tmp_path / "s", 1, {}, Reporter(False))
    made = reconstruct(
        betas=study.betas[0], targets=study.targets, images=images, encoder=encoder,
        params=params, context=context,
    )  # fmt: skip
    context.finish()
    assert made.signal.shape == (len(test), 3, SIDE, SIDE)
    assert "stable-unclip" in made.attrs["generator"]
    notes = json.loads((tmp_path / "notes.json").read_text())
    assert "nothing can choose among candidates" in notes["warnings"][0]  # targets embed no picture
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["reconstruct.ridge.pixcorr"]["value"] is not None  # by the same pipeline


def test_tokens_of_another_space_are_refused(generator: Pretrained) -> None:
    with pytest.raises(ContractError, match=r"the tokens have the shape \(2, 3\).*expects"):
        generator.generate(np.zeros((1, 2, 3), np.float32), [0])


def test_reconstruct_goes_through_a_pipeline(generators: dict[str, Pretrained]) -> None:
    generator = generators["versatile-diffusion"]
    names = ("trial", "token", "feature")
    stimulus = {"stimulus": ("trial", list("abc"))}
    tokens = xr.DataArray(_tokens(generator), dims=names, coords=stimulus)
    start = np.full((3, 1, 8, 8), 0.5, dtype=np.float32)  # grey, small: brought to its size
    made = reconstruct(tokens, generator, start=start, strength=0.5, batch_size=2)
    assert made.signal.shape == (3, 3, SIDE, SIDE)
    alone = reconstruct(tokens[2:], generator, start=start[2:], strength=0.5)
    np.testing.assert_allclose(made.signal[2:], alone.signal, atol=1e-4)
    assert json.loads(made.attrs["generator"])["name"].startswith("versatile-diffusion:")


def test_sdxl_needs_an_adapter(saved: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no IP-Adapter"):
        load_pretrained(saved["sdxl"], device="cpu")
    with pytest.raises(DataError, match="safetensors only"):
        load_pretrained(saved["sdxl"], device="cpu", ip_adapter=("x", "y", "z.bin"))
    with pytest.raises(DataError, match="no IP-Adapter of it"):
        load_pretrained(
            saved["sdxl"], device="cpu", ip_adapter=(saved["sdxl"], "y", "z.safetensors")
        )


def test_damaged_and_foreign_folders_are_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model_index\.json missing"):
        load_generator(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyPipeline"}))
    with pytest.raises(InputError, match="is a KandinskyPipeline; expected one of StableUnCLIP"):
        load_generator(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(DataError, match="names no class"):
        load_generator(tmp_path)
    broken = shutil.copytree(saved["versatile-diffusion"], tmp_path / "broken")
    weights = next((broken / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="can't be loaded"):
        load_generator(broken, device="cpu")
    weights.unlink()
    with pytest.raises(DataError, match="can't be loaded"):
        load_generator(broken, device="cpu")
    with pytest.raises(InputError, match="dtype is 'int8'"):
        load_pretrained(saved["sdxl"], dtype="int8")


# The pipelines ---------------------------------------------------------------------------------


def save(kind: str, folder: Path) -> Path:
    """Save a pipeline of a kind and return its folder."""
    torch.manual_seed(0)
    {"stable-unclip": _unclip, "versatile-diffusion": _versatile, "sdxl": _sdxl}[kind](folder)
    return folder


def save_adapter(unet: Any, folder: Path) -> tuple[Path, str, str]:
    """Save a random IP-Adapter for a U-Net, in the layout of the released ones."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    cross = unet.config.cross_attention_dim
    state = {
        "image_proj.proj.weight": torch.randn(4 * cross, WIDTH) * 0.1,
        "image_proj.proj.bias": torch.zeros(4 * cross),
        "image_proj.norm.weight": torch.ones(cross),
        "image_proj.norm.bias": torch.zeros(cross),
    }
    own = [(n, m) for n, m in unet.named_modules() if n.endswith("attn2")]
    names = [n.removesuffix(".processor") for n in unet.attn_processors]
    modules = dict(own)
    for number, name in enumerate(names):
        if name in modules:
            wide = modules[name].to_k.out_features
            for key in ("to_k_ip", "to_v_ip"):
                state[f"ip_adapter.{number}.{key}.weight"] = torch.randn(wide, cross) * 0.3
    (folder / "models").mkdir(parents=True)
    save_file(state, folder / "models" / "adapter.safetensors")
    return folder, "models", "adapter.safetensors"


def _unclip(folder: Path) -> None:
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    unet = _unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH)
    diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=_processor(), image_encoder=_vision(), tokenizer=_tokenizer(folder),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        text_encoder=_text(), unet=unet, vae=_vae(),
        scheduler=diffusers.DDIMScheduler(timestep_spacing="trailing"),
    ).save_pretrained(folder)  # fmt: skip


def _versatile(folder: Path) -> None:
    diffusers.VersatileDiffusionImageVariationPipeline(
        image_feature_extractor=_processor(), image_encoder=_vision(), image_unet=_unet(),
        vae=_vae(), scheduler=diffusers.DDIMScheduler(timestep_spacing="trailing"),
    ).save_pretrained(folder)  # fmt: skip


def _sdxl(folder: Path) -> None:
    unet = _unet(
        cross=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH, use_linear_projection=True,
    )  # fmt: skip
    tokenizer = _tokenizer(folder)
    diffusers.StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=_text(), text_encoder_2=_text(projected=True),
        tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet, image_encoder=None,
        feature_extractor=None, scheduler=diffusers.EulerDiscreteScheduler(),
    ).save_pretrained(folder)  # fmt: skip


def _unet(cross: int = WIDTH, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=cross, **more,
    )  # fmt: skip


def _vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _vision() -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, projection_dim=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, image_size=16, patch_size=8,
    )  # fmt: skip
    return transformers.CLIPVisionModelWithProjection(config)


def _text(*, projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=32, projection_dim=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, vocab_size=6, max_position_embeddings=8, bos_token_id=0,
        eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(
        config
    )


def _processor() -> Any:
    return transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )


def _tokenizer(folder: Path) -> Any:
    words = folder.parent / f"{folder.name}-words"
    words.mkdir(parents=True)
    vocabulary = {
        "<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b": 3, "a": 4, "ab": 5,
    }  # fmt: skip
    (words / "vocab.json").write_text(json.dumps(vocabulary))
    (words / "merges.txt").write_text("#version: 0.2\na b\n")
    (words / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 8}))
    return transformers.CLIPTokenizer.from_pretrained(words)
