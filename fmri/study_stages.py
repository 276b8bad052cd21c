"""Stages that are a whole study: of a published set, or of a sweep. Declared only; no logic."""

from __future__ import annotations

from pydantic import Field

from neuro.stage import Context, Dataset, Encoder, File, Params, Table, stage


class DigitsParams(Params):
    """The pairs of a seen digit and its voxel pattern, and how they are cross-validated."""

    file: File
    """digit69_28x28.mat."""
    digits: list[int] = Field([6, 9], min_length=1)
    """Which of scikit-learn's hand-written digits the autoencoder is trained on."""
    n_features: int = Field(8, ge=1)
    """Features of each of the autoencoder's 16 tokens."""
    beta: float = Field(0.5, ge=0)
    """Weight of the autoencoder's KL term."""
    autoencoder_max_epochs: int = Field(60, ge=0)
    """Of the autoencoder."""
    threshold: float = Field(0.3, ge=-1, le=1)
    """Least correlation of a voxel with its prediction from the training pictures."""
    max_epochs: int = Field(40, ge=0)
    """Of MindEye."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the training pictures that choose MindEye's epoch; 0 takes the last one."""
    n_splits: int = Field(10, ge=2)
    """Folds over the pictures."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of pictures behind the intervals."""
    seed: int = 0
    """Seed of folds, weights and bootstrap."""


@stage("fmri-digits", version=3)
def digits(params: DigitsParams, context: Context) -> Table:
    """Reconstruct every seen digit from the brain by models that never saw it; identify it.

    MindEye predicts the tokens of an autoencoder of other people's digits, whose decoder makes
    pictures of them. Beside it stand ridge regressions to the same tokens and to pixels, tuned
    inside the training folds, the nearest training picture, and shuffled pairs.
    """
    from fmri import digit_study

    return digit_study.record(context, params.file, params.model_dump())


class HaxbyParams(Params):
    """Which category a held-out run shows, through attributes of categories."""

    category: str = "condition"
    """Column of the responses that names the category; condition is the events' trial_type."""
    attributes: File | None = None
    """CSV of categories as rows and numbers as columns, with a first line # source: ...; null is
    the table for the eight categories of Haxby et al. that ships with fmri."""
    n_members: int = Field(3, ge=1)
    """MindEyes of other seeds and validation blocks, whose outputs are averaged."""
    max_epochs: int | None = Field(None, ge=0)
    """Of MindEye; null takes what the preset small has."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of runs behind the intervals."""
    seed: int = 0
    """Seed of weights, shuffles and bootstrap."""


@stage("fmri-haxby", version=2)
def haxby(betas: Dataset, params: HaxbyParams, context: Context) -> Table:
    """Decode the category of every block of a run by models that saw the other runs only.

    MindEye is trained to the attributes of the categories; the category whose attributes are
    nearest is the answer. Beside it stand logistic regression, a ridge regression on attributes,
    one on a column for each category, both tuned inside the training runs, and shuffled labels.
    """
    from fmri import category_study

    return category_study.record(context, betas.load(), params.model_dump())


class AblationsParams(Params):
    """How the variants are compared."""

    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of test pictures behind the intervals."""
    seed: int = 0
    """Seed of bootstrap and the prior's noise."""


@stage("fmri-ablations", version=1)
def ablations(
    members: list[Encoder],
    betas: Dataset,
    targets: Dataset,
    images: Dataset,
    params: AblationsParams,
    context: Context,
) -> Table:
    """Compare the members of a sweep over MindEye on the same test pictures.

    Gives every variant's retrieval in both directions and the cosine of its tokens to the true
    embedding, and the effect of each swept setting with everything else averaged.
    """
    from fmri import ablations as study

    return study.record(context, members, betas, targets, images, params.model_dump())
