"""Pretrained generators through diffusers, from a local folder or the hub.

Stable unCLIP takes an image embedding, Versatile Diffusion the tokens of ViT-L/14, and Stable
Diffusion (XL) with an IP-Adapter the embeddings that the adapter was trained on. All three can
start from a low-level picture.

References
----------
Ramesh et al., "Hierarchical text-conditional image generation with CLIP latents" (2022).
Xu et al., "Versatile Diffusion: text, images and variations all in one diffusion model"
(ICCV 2023).
Ye et al., "IP-Adapter: text compatible image prompt adapter for text-to-image diffusion models"
(2023).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fmri.diffusion_decoder import skipped_steps
from fmri.seeds import trial_noise
from neuro.artefact import listing
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["IPAdapter", "Pretrained", "StableUnCLIP", "VersatileDiffusion", "load_pretrained"]

Floats = NDArray[np.float32]

_INDEX = "model_index.json"


class Pretrained:
    """A pipeline of diffusers behind the interface of `fmri.reconstruct.Generator`.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    source : str
        Folder or hub id, for messages and the report.
    device : str
    prompt : str
        Text that goes with every picture, where the pipeline reads one.
    strength, steps, guidance
        Defaults of `generate`.

    Attributes
    ----------
    token_shape_ : tuple of int
        Tokens and features that it expects.
    image_shape_ : tuple of int
    """

    kind: ClassVar[str] = ""
    pipeline: ClassVar[tuple[str, ...]] = ()
    random_weights = False

    def __init__(
        self,
        pipe: Any,
        source: str,
        *,
        device: str = "auto",
        prompt: str = "",
        strength: float = 0.85,
        steps: int = 20,
        guidance: float = 3.5,
    ) -> None:
        from neuro.device import device_of

        self.pipe, self.name, self.prompt = (
            pipe.to(device_of(device)),
            f"{self.kind}:{source}",
            prompt,
        )
        self.strength, self.steps, self.guidance = strength, steps, guidance
        pipe.set_progress_bar_config(disable=True)
        self.factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        side = self.unet.config.sample_size * self.factor
        self.image_shape_ = (3, side, side)
        self.token_shape_ = self._token_shape()

    @property
    def unet(self) -> Any:
        """The denoising network."""
        return self.pipe.unet

    def generate(
        self,
        tokens: NDArray[Any],
        seeds: Sequence[int],
        *,
        start: Floats | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Floats:
        """Make pictures of tokens; see `fmri.reconstruct.Generator.generate`."""
        import torch

        if tokens.shape[1:] != self.token_shape_:
            raise ContractError(
                f"the tokens have the shape {tokens.shape[1:]}, '{self.name}' expects "
                f"{self.token_shape_} (token, feature); compute the targets for this generator "
                "(fmri.clip_targets.GENERATORS)"
            )
        steps = self.steps if steps is None else steps
        strength = 1.0 if start is None else self.strength if strength is None else strength
        guidance = self.guidance if guidance is None else guidance
        condition = torch.from_numpy(np.array(tokens, dtype=np.float32, order="C"))
        with torch.inference_mode(), _shortened(self.pipe.scheduler, steps, strength):
            latents = self._latents(seeds, start, steps)
            pictures = self._call(
                condition.to(self._like), seeds, latents=latents, num_inference_steps=steps,
                guidance_scale=guidance, output_type="np",
            )  # fmt: skip
        return np.moveaxis(np.asarray(pictures, dtype=np.float32), -1, 1).clip(0, 1)

    # What a pipeline differs in ----------------------------------------------------------

    def _token_shape(self) -> tuple[int, int]:
        raise NotImplementedError

    def _call(self, condition: torch.Tensor, seeds: Sequence[int], **options: Any) -> Any:
        raise NotImplementedError

    # Inside -------------------------------------------------------------------------------

    @property
    def _like(self) -> torch.Tensor:
        return next(self.unet.parameters())

    def _latents(self, seeds: Sequence[int], start: Floats | None, steps: int) -> torch.Tensor:
        """Return noise, or the start's latents with the noise of the first step left on them."""
        _, rows, columns = self.image_shape_
        shape = (self.unet.config.in_channels, rows // self.factor, columns // self.factor)
        noise = trial_noise(seeds, shape).to(self._like)
        if start is None:
            return noise
        scheduler = self.pipe.scheduler
        scheduler.set_timesteps(steps, device=noise.device)
        first = scheduler.timesteps[:1].repeat(len(noise))
        noisy = scheduler.add_noise(self._encoded(start), noise, first)
        # The pipeline multiplies what it is given by this.
        return noisy / scheduler.init_noise_sigma

    def _encoded(self, start: Floats) -> torch.Tensor:
        import torch

        vae = self.pipe.vae
        x = torch.from_numpy(np.ascontiguousarray(start)).to(next(vae.parameters())) * 2 - 1
        return (vae.encode(x).latent_dist.mode() * vae.config.scaling_factor).to(self._like)

    def _generators(self, seeds: Sequence[int]) -> list[torch.Generator]:
        import torch

        return [torch.Generator().manual_seed(seed) for seed in seeds]


class StableUnCLIP(Pretrained):
    """Stable unCLIP: an image embedding (one token) to a picture."""

    kind = "stable-unclip"
    pipeline = ("StableUnCLIPImg2ImgPipeline",)

    def _token_shape(self) -> tuple[int, int]:
        return 1, int(self.pipe.image_encoder.config.projection_dim)

    def _call(self, condition: torch.Tensor, seeds: Sequence[int], **options: Any) -> Any:
        return self.pipe(
            prompt=[self.prompt] * len(condition), image_embeds=condition[:, 0],
            generator=self._generators(seeds), **options,
        ).images  # fmt: skip


class VersatileDiffusion(Pretrained):
    """Versatile Diffusion, image branch: 257 tokens of ViT-L/14, divided by the norm of CLS."""

    kind = "versatile-diffusion"
    pipeline = ("VersatileDiffusionImageVariationPipeline", "VersatileDiffusionPipeline")

    @property
    def unet(self) -> Any:
        """The denoising network of the image branch."""
        return self.pipe.image_unet

    def _token_shape(self) -> tuple[int, int]:
        config = self.pipe.image_encoder.config
        return (config.image_size // config.patch_size) ** 2 + 1, int(config.projection_dim)

    def _call(self, condition: torch.Tensor, seeds: Sequence[int], **options: Any) -> Any:
        import torch

        encode = self.pipe._encode_prompt
        tokens = condition / condition[:, :1].norm(dim=-1, keepdim=True)

        def given(_prompt: Any, device: Any, _n: int, guided: bool, _negative: Any) -> Any:
            if not guided:
                return tokens
            grey = encode([np.zeros((512, 512, 3)) + 0.5], device, 1, False, None)
            return torch.cat([grey.to(tokens).expand_as(tokens), tokens])

        with _replaced(self.pipe, "_encode_prompt", given):
            pictures = [None] * len(condition)  # their embeddings are given
            return self.pipe(image=pictures, generator=self._generators(seeds), **options).images


class IPAdapter(Pretrained):
    """Stable Diffusion or SDXL with an IP-Adapter: the adapter's image embeddings to a picture."""

    kind = "ip-adapter"
    pipeline = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")

    def _token_shape(self) -> tuple[int, int]:
        projection = getattr(self.unet, "encoder_hid_proj", None)
        if projection is None:
            raise InputError(
                f"'{self.name}' has no IP-Adapter, so that it takes no image embeddings; pass "
                "ip_adapter=(folder or hub id, sub-folder, file)"
            )
        layer = projection.image_projection_layers[0]
        if hasattr(layer, "image_embeds"):
            return 1, int(layer.image_embeds.in_features)
        return self._plus_tokens(), int(layer.proj_in.in_features)

    def _plus_tokens(self) -> int:
        encoder = getattr(self.pipe, "image_encoder", None)
        if encoder is None:
            return 257  # ViT-H/14, of which the released adapters are
        return int(encoder.config.image_size // encoder.config.patch_size) ** 2 + 1

    def _call(self, condition: torch.Tensor, seeds: Sequence[int], **options: Any) -> Any:
        import torch

        # One picture per trial; tokens of a "plus" adapter keep an axis of their own.
        embedded = condition if condition.shape[1] == 1 else condition[:, None]
        if options["guidance_scale"] > 1:
            embedded = torch.cat([torch.zeros_like(embedded), embedded])
        # The pipeline would repeat the embeddings by the number of prompts and so mix up trials.
        with _replaced(self.pipe, "prepare_ip_adapter_image_embeds", lambda *_: [embedded]):
            return self.pipe(
                prompt=[self.prompt] * len(condition), ip_adapter_image_embeds=[embedded],
                generator=self._generators(seeds), **options,
            ).images  # fmt: skip


_KINDS: tuple[type[Pretrained], ...] = (StableUnCLIP, VersatileDiffusion, IPAdapter)


def load_pretrained(
    path: str | Path,
    *,
    ip_adapter: tuple[str | Path, str, str] | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    **options: Any,
) -> Pretrained:
    """Load a pretrained pipeline; its class is read from its ``model_index.json``.

    Parameters
    ----------
    path : path or str
        A folder that diffusers saved, or a hub id ``owner/name``. Only safetensors are read.
    ip_adapter : (folder or hub id, sub-folder, file), optional
        For Stable Diffusion and SDXL.
    dtype : {"float32", "float16", "bfloat16"}
    revision : str, optional
        Of a hub id.
    **options
        Of `Pretrained`: ``device, prompt, strength, steps, guidance``.

    Returns
    -------
    Pretrained

    Raises
    ------
    DataError
        Where the folder is no pipeline, a part is missing or damaged, or the hub isn't reached.
    InputError
        Where the pipeline takes no image embeddings, or diffusers is missing.
    """
    import torch

    if dtype not in ("float32", "float16", "bfloat16"):
        raise InputError(f"dtype is {dtype!r}; expected float32, float16 or bfloat16")
    found = _class_of(path, revision)
    kind = next((k for k in _KINDS if found in k.pipeline), None)
    if kind is None:
        known = ", ".join(name for k in _KINDS for name in k.pipeline)
        raise InputError(f"{path} is a {found}; expected one of {known}")
    pipe = _pipeline(kind, found, path, revision, getattr(torch, dtype))
    if ip_adapter is not None:
        _add_adapter(pipe, kind, ip_adapter)
    return kind(pipe, Path(path).name, **options)


def _class_of(path: str | Path, revision: str | None) -> str:
    folder = Path(path)
    file = folder / _INDEX
    if not folder.exists() and len(folder.parts) == 2 and not folder.is_absolute():
        from huggingface_hub import hf_hub_download

        try:
            file = Path(hf_hub_download(folder.as_posix(), _INDEX, revision=revision))
        except Exception as error:  # the hub has many ways to fail
            raise DataError(
                f"{path}: no such folder, and the hub gives no pipeline of that name ({error})"
            ) from error
    if not file.is_file():
        raise DataError(f"{path} is no pipeline: {_INDEX} missing; {listing(folder)}")
    try:
        return str(json.loads(file.read_text())["_class_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} names no class ({error}); copy the pipeline again") from error


def _pipeline(
    kind: type[Pretrained], found: str, path: str | Path, revision: str | None, dtype: Any
) -> Any:
    try:
        import diffusers

        # Versatile Diffusion's folder holds more than its image branch needs.
        cls = getattr(diffusers, kind.pipeline[0] if kind is VersatileDiffusion else found)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{found} is not in the installed diffusers ({error}); install a version that has it"
        ) from error
    local = Path(path).is_dir()
    try:
        return cls.from_pretrained(
            str(path), revision=revision, torch_dtype=dtype, use_safetensors=True,
            local_files_only=local,
        )  # fmt: skip
    except Exception as error:  # every part has its own ways to fail
        raise DataError(
            f"{path}: the {found} can't be loaded ({error}); copy or download it again, with its "
            "weights as safetensors"
        ) from error


def _add_adapter(pipe: Any, kind: type[Pretrained], adapter: tuple[str | Path, str, str]) -> None:
    if kind is not IPAdapter:
        raise InputError(f"an IP-Adapter goes with Stable Diffusion or SDXL, not '{kind.kind}'")
    folder, subfolder, file = adapter
    if not file.endswith(".safetensors"):
        raise DataError(f"{file}: an IP-Adapter is read from .safetensors only")
    try:
        pipe.load_ip_adapter(
            str(folder), subfolder=subfolder, weight_name=file, image_encoder_folder=None,
            local_files_only=Path(folder).is_dir(),
        )  # fmt: skip
    except Exception as error:  # as above
        raise DataError(f"{folder}/{subfolder}/{file}: no IP-Adapter of it ({error})") from error


@contextmanager
def _replaced(pipe: Any, method: str, by: Any) -> Iterator[None]:
    """Let a pipeline take embeddings where it would encode pictures."""
    setattr(pipe, method, by)
    try:
        yield
    finally:
        delattr(pipe, method)


@contextmanager
def _shortened(scheduler: Any, steps: int, strength: float) -> Iterator[None]:
    """Let a scheduler leave out its first steps, as an image-to-image start needs.

    The pipelines for embeddings have no `strength`; they take the timesteps that the scheduler
    gives them.
    """
    skip = skipped_steps(steps, strength) * getattr(scheduler, "order", 1)
    whole = scheduler.set_timesteps

    def shortened(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[skip:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skip)

    scheduler.set_timesteps = shortened
    try:
        yield
    finally:
        del scheduler.set_timesteps
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
