"""The stages that make and gather pictures, declared to the runner; no logic."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from neuro.stage import Context, Dataset, Encoder, File, Folder, Params, stage


class AutoencoderParams(Params):
    """A small variational autoencoder of pictures of 8 to 64 pixels."""

    n_features: int = Field(8, ge=1)
    """Latents at each place of its grid."""
    grid: int = Field(4, ge=1)
    """Largest side of the grid: 4 gives up to 16 tokens."""
    width: int = Field(16, ge=8, multiple_of=8)
    """Channels of its first layer."""
    max_epochs: int = Field(40, ge=0)
    """Of its training."""
    device: str = "auto"
    """Where to train; auto takes a GPU where there is one."""
    seed: int = 0
    """Of weights, order and sampling."""


@stage("fmri-autoencoder", version=1)
def autoencoder(images: Dataset, params: AutoencoderParams, context: Context) -> Encoder:
    """Train a small autoencoder on the training pictures; test pictures are refused by hash.

    Its latents can be the targets, the second target of the low-level branch, and a way from a
    brain back to pixels.
    """
    from fmri import plots
    from fmri.autoencoder import ImageAutoencoder
    from fmri.parts import stimuli_of

    settings = params.model_dump()
    model = ImageAutoencoder(random_state=settings.pop("seed"), **settings)
    train = stimuli_of(images, "train")
    model.fit(
        images, train_stimuli=train, scratch=context.scratch / "fit", progress=context.progress
    )
    if not model.history_:
        context.mark("Random weights: the autoencoder was never trained.")
    context.section("Autoencoder", *plots.history_blocks(model.history_, "the autoencoder"))
    context.method(f"An autoencoder was trained on the {len(train)} training pictures.")
    return model


class GalleryParams(Params):
    """Which pictures a brain can be compared with."""

    folder: Folder | None = None
    """A folder of picture files, embedded as the targets were; null takes the study's own."""
    part: Literal["train", "test", "all", "none"] | None = None
    """Of the study's own pictures; null: all without a folder, none with one."""
    pooling: Literal["tokens", "first", "mean"] = "tokens"
    """By what pictures are found: all tokens, the class token, or the mean of tokens."""


@stage("fmri-gallery", version=1)
def gallery(
    targets: Dataset,
    images: Dataset,
    params: GalleryParams,
    context: Context,
    autoencoder: Encoder | None = None,
) -> Dataset:
    """Gather pictures with their embeddings, for retrieval and `neuro decode --gallery`.

    Pictures that were embedded in another way than the targets are refused.
    """
    from fmri.study_gallery import study_gallery

    return study_gallery(targets, images, params.model_dump(), context, autoencoder)


class GeneratorParams(Params):
    """The built-in diffusion decoder of pictures of 8 to 64 pixels."""

    n_components: int = Field(40, ge=1)
    """Principal components of the targets that it is conditioned on."""
    width: int = Field(24, ge=8, multiple_of=8)
    """Channels of its first level."""
    reliability: float = Field(0.5, gt=0, le=1)
    """Share of a component's variance that predictions explain, where betas are not wired."""
    strength: float = Field(0.5, gt=0, le=1)
    """Share of the way that is gone from a low-level picture; 1 ignores it."""
    steps: int = Field(20, ge=1)
    """Of the whole way."""
    guidance: float = Field(1.0, ge=0)
    """Weight of the condition; 1 is none."""
    max_epochs: int = Field(40, ge=0)
    """Of its training."""
    device: str = "auto"
    """Where to train; auto takes a GPU where there is one."""
    seed: int = 0
    """Of weights, order and noise."""


@stage("fmri-generator", version=1)
def generator(
    targets: Dataset,
    images: Dataset,
    params: GeneratorParams,
    context: Context,
    betas: Dataset | None = None,
) -> Encoder:
    """Train the built-in diffusion decoder on the training pictures, checked by hash.

    With betas it learns from cross-validated predictions of the training pictures how far each
    component of the targets can be relied on.
    """
    from fmri.study_generator import study_generator

    return study_generator(targets, images, params.model_dump(), context, betas)


class PretrainedParams(BaseModel):
    """A pretrained pipeline of diffusers: Stable unCLIP, Versatile Diffusion, or IP-Adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    folder: Folder | None = None
    """What diffusers saved; only safetensors are read."""
    hub: str | None = None
    """owner/name: downloaded."""
    revision: str | None = None
    """Of the hub."""
    ip_adapter: str | None = None
    """Folder or hub id of an IP-Adapter, for Stable Diffusion and SDXL."""
    ip_adapter_subfolder: str = ""
    """Where in it."""
    ip_adapter_file: str = "ip-adapter.safetensors"
    """Its file."""
    prompt: str = ""
    """Text that goes with every picture."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the weights."""


class MetricWeights(BaseModel):
    """Weights of the networks of the metrics; without a file its cell says what is missing."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    alexnet: File | None = None
    """AlexNet (.safetensors)."""
    inception: File | None = None
    """Inception v3."""
    clip: File | None = None
    """CLIP ViT-L/14."""
    effnet_b1: File | None = None
    """EfficientNet-B1."""
    swav: File | None = None
    """SwAV, ResNet-50."""


class ReconstructParams(Params):
    """How pictures are made of a brain, and how they are scored."""

    by: list[Literal["diffusion", "decoder", "gallery", "pretrained"]] = Field(
        ["decoder"], min_length=1
    )
    """Generators; the first one's pictures are the result and carry the metrics: the built-in
    diffusion decoder that is wired, the decoder of the targets, the best gallery picture, or
    a pretrained pipeline."""
    tokens: Literal["prior", "backbone"] = "prior"
    """What the pictures are made of: a sample of the prior, or the backbone's tokens."""
    img2img: bool = True
    """Start from the low-level picture, where the encoder has that branch."""
    n_candidates: int = Field(4, ge=1)
    """Pictures made of each trial; the retrieval branch chooses one."""
    strength: float | None = Field(None, gt=0, le=1)
    """Of img2img; by default the generator's."""
    steps: int | None = Field(None, ge=1)
    """By default the generator's."""
    guidance: float | None = None
    """By default the generator's."""
    batch_size: int = Field(64, ge=1)
    """Pictures made at once."""
    pretrained: PretrainedParams = PretrainedParams()
    """With by: pretrained."""
    vae: Folder | None = None
    """The AutoencoderKL of the low-level branch, where it was trained to one."""
    vae_size: int | None = Field(None, ge=32)
    """As in the encoder."""
    weights: MetricWeights = MetricWeights()
    """Of the networks of the metrics."""
    device: str = "auto"
    """Of pretrained pipelines and networks of the metrics."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of test pictures behind the intervals."""
    seed: int = 0
    """A trial's noise follows from it and the trial, whatever else is decoded."""


@stage("fmri-reconstruct", version=1)
def reconstruct(
    betas: Dataset,
    targets: Dataset,
    images: Dataset,
    encoder: Encoder,
    params: ReconstructParams,
    context: Context,
    autoencoder: Encoder | None = None,
    generator: Encoder | None = None,
    gallery: Dataset | None = None,
) -> Dataset:
    """Make a picture of what was seen in every test trial, averaged over repeats, and score it.

    Beside it stand the nearest training picture, the decoded tokens of a tuned ridge regression
    and the same pictures given to others. Test pictures in the gallery are left out.
    """
    from fmri import reconstruction_scores

    sources = {"autoencoder": autoencoder, "generator": generator, "gallery": gallery}
    return reconstruction_scores.record(
        context, encoder, betas, targets, images, params.model_dump(), sources
    )
