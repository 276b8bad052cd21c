"""Stages that are a whole study of a published set, declared to the runner; no logic."""

from __future__ import annotations

from pydantic import Field

from neuro.stage import Context, File, Params, Table, stage


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
