"""The fMRI stages, declared to the runner; no logic, and nothing heavy at module level."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fmri.study_params import BetasParams
from neuro.stage import Context, Dataset, Encoder, File, Folder, Params, Table, stage


class ImagesParams(Params):
    """Which pictures were seen, and how they are split."""

    folder: Folder | None = None
    """Folder of picture files; null takes scikit-learn's real digits."""
    digits: list[int] | None = None
    """With folder null: which of the digits 0 to 9; all by default."""
    size: int = Field(16, ge=8, le=256)
    """Rows and columns that the pictures are brought to."""
    n_images: int | None = Field(None, ge=10)
    """At most so many of the digits, drawn by the seed."""
    test_size: float = Field(0.2, gt=0, lt=1)
    """Share of the pictures that nothing is trained on."""
    seed: int = 0
    """Seed of draw and split."""


@stage("fmri-images", version=1)
def images(params: ImagesParams, context: Context) -> Dataset:
    """Read the stimulus pictures and split them once: every later stage keeps to this split.

    The coordinate `part` says which pictures are for training; no trial of a test picture, and
    no network trained on test pictures, is used in training. Same pictures under two names are
    refused.
    """
    from fmri import parts, plots

    found = parts.study_images(params.model_dump())
    context.section("Pictures", *plots.image_blocks(found))
    context.method(*parts.images_sentence(found))
    return found


class OpenCLIPParams(BaseModel):
    """A CLIP image tower, by open_clip; without weights they are random, and marked so."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    arch: str | None = None
    """As open_clip names it (ViT-L-14-quickgelu); not needed where the folder or hub says it."""
    arch_file: File | None = None
    """A JSON file with embed_dim and vision_cfg, in place of arch."""
    weights: File | None = None
    """A .safetensors file."""
    folder: Folder | None = None
    """A folder with open_clip_config.json and open_clip_model.safetensors."""
    hub: str | None = None
    """hub:owner/name, or a tag of open_clip (laion2b_s32b_b82k): downloaded."""
    layer: Literal["tokens", "patches", "pooled", "penultimate"] = "tokens"
    """All tokens, projected; patches alone; the image embedding; tokens before the last block."""
    normalize: Literal["none", "cls", "l2"] = "none"
    """Divide tokens by the norm of CLS, each by its own, or not."""
    generator: str | None = None
    """Sets layer and normalize to what it was trained with: versatile-diffusion, ip-adapter ..."""
    quick_gelu: bool | None = None
    """The network's activation; by default as the architecture says."""


class TargetsParams(Params):
    """What the brain is mapped to."""

    provider: Literal["autoencoder", "pca", "open_clip", "array", "attributes"] = "autoencoder"
    """What embeds a picture: a small autoencoder or components of the training pictures, a CLIP
    tower, embeddings in a file keyed by stimulus, or a table of attributes of its category."""
    n_features: int = Field(8, ge=1)
    """Features of a token (autoencoder trained here), or components (pca)."""
    max_epochs: int = Field(40, ge=1)
    """Of an autoencoder trained here."""
    open_clip: OpenCLIPParams = OpenCLIPParams()
    """With provider open_clip."""
    file: File | None = None
    """Embeddings (array: .npz, .npy, .h5, Zarr), or categories by attributes (attributes: CSV)."""
    source: str = ""
    """Where a table of attributes comes from; the table may say it in a first line # source: ..."""
    standardize: bool = True
    """Give every attribute mean 0 and variance 1."""
    seed: int = 0
    """Of an autoencoder trained here."""

    def reads(self) -> list[Path]:
        """Name the file of the rows' names beside an array."""
        names = None if self.file is None else self.file.with_suffix(".ids.txt")
        return [names] if names is not None and names.is_file() else []


@stage("fmri-targets", version=2)
def targets(
    images: Dataset, params: TargetsParams, context: Context, autoencoder: Encoder | None = None
) -> Dataset:
    """Embed every picture; what is trained for it sees the training pictures only, by hash.

    An autoencoder of a stage of its own (fmri-autoencoder) can be used by other stages too: for
    the gallery, the low-level branch and pictures decoded from a brain.
    """
    from fmri import plots, study_targets

    found, shown = study_targets.study_targets(images, params.model_dump(), context, autoencoder)
    context.section("Targets", *plots.target_blocks(found, shown))
    context.method(*plots.target_sentence(found))
    return found


@stage("fmri-betas", version=2)
def betas(
    params: BetasParams,
    context: Context,
    images: Dataset | None = None,
    targets: Dataset | None = None,
) -> Dataset:
    """Read, estimate or simulate one subject's single-trial responses to the pictures.

    From betas, from fMRIPrep's derivatives with events, or from plain runs with events; with none
    of these a subject is simulated, whose voxels are driven by the targets. Sessions are z-scored
    and the reliability of voxels is estimated by the trials of training pictures; without
    `images` neither is done. Several subjects are members of a sweep over `subject`.
    """
    from fmri import study_betas

    return study_betas.record(context, params, images, targets)


class MindEyeParams(Params):
    """The model and its training; null takes what the preset has."""

    preset: Literal["small", "mindeye1", "mindeye2"] = "small"
    """Shapes and training: for a CPU, or those of the papers."""
    loss: Literal["bimixco+softclip", "bimixco", "softclip", "infonce"] | None = None
    """The contrastive term."""
    head: Literal["separate", "shared"] = "separate"
    """Retrieve by a projector of its own, or by the backbone's tokens."""
    prior: bool = True
    """Train the diffusion prior."""
    low_level: bool = False
    """Train the low-level branch too: to latents of the autoencoder that is wired, or of vae."""
    vae: Folder | None = None
    """A folder of a pretrained AutoencoderKL (diffusers) whose latents it is trained to."""
    vae_size: int | None = Field(None, ge=32)
    """Pixels that pictures are brought to for vae; by default its own."""
    n_blocks: int | None = Field(None, ge=0)
    """Depth of the backbone."""
    n_hidden: int | None = Field(None, ge=1)
    """Width of the backbone."""
    max_epochs: int | None = Field(None, ge=0)
    """Of the backbone."""
    prior_max_epochs: int | None = Field(None, ge=0)
    """Of the prior."""
    batch_size: int | None = Field(None, ge=2)
    """Trials in a batch."""
    learning_rate: float | None = Field(None, gt=0)
    """Of AdamW."""
    device: str = "auto"
    """Where to train; auto takes a GPU where there is one."""
    seed: int = 0
    """Of weights, order, noise and of the stimuli that choose the checkpoint."""


@stage("fmri-mindeye", version=3)
def mindeye(
    betas: Dataset | list[Dataset],
    targets: Dataset,
    images: Dataset,
    params: MindEyeParams,
    context: Context,
    autoencoder: Encoder | None = None,
) -> Encoder:
    """Train MindEye on the trials of training pictures; some of these choose the checkpoint.

    The test pictures play no part. Repeats of a picture are single trials in training. Betas of a
    sweep over `subject` train one model of all subjects, each with a first layer of its own. The
    autoencoder of the targets or latents, where it is wired, is saved along, so that new scans
    can be decoded to pictures.
    """
    from fmri import parts, plots
    from fmri.low_level import image_latents
    from fmri.mindeye import MindEye
    from fmri.study_targets import decoder_of
    from neuro.report import Figure

    settings = params.model_dump()
    low_level = None
    where = autoencoder, settings.pop("vae"), settings.pop("vae_size")
    if settings.pop("low_level"):
        low_level = image_latents(images, *where)
    model: MindEye = MindEye(random_state=settings.pop("seed"), **settings)
    own = parts.trials_of(betas, parts.stimuli_of(images, "train"))
    model.fit(own, targets, low_level=low_level, scratch=context.scratch, progress=context.progress)
    decoder = decoder_of(targets, images, autoencoder)
    if decoder is not None:
        model.attach_decoder(decoder)
    blocks = [Figure(plots.history_figure(model.history_), "Losses of the backbone by epoch.")]
    if model.prior_history_:
        figure = plots.history_figure(model.prior_history_, "prior")
        blocks.append(Figure(figure, "Losses of the diffusion prior."))
    context.section("Training", *blocks)
    context.method(
        f"MindEye (preset {params.preset}) was trained on {parts.count_trials(own)}.",
        "scotti2023",
    )
    return model


class RetrieveParams(Params):
    """How retrieval is scored."""

    n_candidates: int = Field(300, ge=2)
    """Candidates of the published protocol, at most all test pictures."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of test pictures behind the intervals."""
    seed: int = 0
    """Seed of bootstrap, shuffles and the prior's noise."""


@stage("fmri-retrieve", version=1)
def retrieve(
    betas: Dataset | list[Dataset],
    targets: Dataset,
    images: Dataset,
    encoder: Encoder,
    params: RetrieveParams,
    context: Context,
) -> Table:
    """Find the seen picture among the test pictures, and the brain among brains.

    Beside MindEye stand its diffusion prior, a ridge regression tuned inside the training part,
    and shuffled pairs; outputs are averaged over the repeats of a picture. Several subjects are
    scored one by one; intervals are over pictures, whose subjects are averaged.
    """
    from fmri import scores

    return scores.record(context, encoder, betas, targets, images, params.model_dump())
