"""The fMRI stages, declared to the runner; no logic, and nothing heavy at module level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from neuro.stage import Context, Dataset, Files, Params, stage

if TYPE_CHECKING:
    pass


class ImagesParams(Params):
    """Which pictures were seen, and how they are split."""

    files: Files | None = None
    """Pictures: a folder's files, or one array file; null takes scikit-learn's real digits."""
    digits: list[int] | None = None
    """With files null: which of the digits 0 to 9; all by default."""
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


class TargetsParams(Params):
    """What the brain is mapped to."""

    provider: Literal["autoencoder", "pca"] = "autoencoder"
    """A small autoencoder trained on the training pictures, or their principal components."""
    n_features: int = Field(8, ge=1)
    """Features of a token (autoencoder), or components (pca)."""
    max_epochs: int = Field(60, ge=1)
    """Of the autoencoder."""
    seed: int = 0
    """Of the autoencoder."""


@stage("fmri-targets", version=1)
def targets(images: Dataset, params: TargetsParams, context: Context) -> Dataset:
    """Embed every picture; what is trained for it sees the training pictures only, by hash."""
    from fmri import parts, plots

    found, shown = parts.study_targets(images, params.model_dump(), context)
    context.section("Targets", *plots.target_blocks(found, shown))
    return found


class Simulation(BaseModel):
    """A simulated scanner session, whose truth is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    n_voxels: int = Field(600, ge=10)
    """Voxels."""
    n_repeats: int = Field(3, ge=1)
    """Times that every picture is seen."""
    n_sessions: int = Field(4, ge=1)
    """Sessions; each has gains of its own."""
    noise_ceiling: float = Field(0.5, gt=0, lt=1)
    """Share of a single trial's variance that the picture explains."""
    kind: Literal["linear", "nonlinear", "misspecified"] = "nonlinear"
    """Voxels follow the targets linearly, nonlinearly, or Gabor energy and pixels instead."""
