"""Stages that are a whole study: of a published set, or of a sweep. Declared only; no logic."""

from __future__ import annotations

from pydantic import Field

from neuro.stage import Context, Dataset, Encoder, File, Params, Table, stage


class DigitsParams(Params):
    """The pairs of a seen digit and its voxel pattern, and how they are cross-validated."""

    file: File
    """digit69_28x28.mat."""
    n_components: int = Field(20, ge=2)
    """Principal components of the training pictures that MindEye is trained to."""
    max_epochs: int = Field(40, ge=0)
    """Of MindEye."""
    n_splits: int = Field(10, ge=2)
    """Folds over the pictures."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of pictures behind the intervals."""
    seed: int = 0
    """Seed of folds, weights and bootstrap."""


@stage("fmri-digits", version=1)
def digits(params: DigitsParams, context: Context) -> Table:
    """Predict every seen digit from the brain by models that never saw it; identify it.

    Beside MindEye stand a ridge regression to pixels tuned inside the training folds, the
    training picture nearest to its prediction, and shuffled pairs.
    """
    from fmri import digit_study

    return digit_study.record(context, params.file, params.model_dump())


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
