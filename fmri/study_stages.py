"""Stages that are a whole study of a published set, declared to the runner; no logic."""

from __future__ import annotations

from pydantic import Field

from neuro.stage import Context, File, Params, Table, stage


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


@stage("fmri-digits", version=2)
def digits(params: DigitsParams, context: Context) -> Table:
    """Reconstruct every seen digit from the brain by models that never saw it; identify it.

    MindEye predicts the tokens of an autoencoder of other people's digits, whose decoder makes
    pictures of them. Beside it stand ridge regressions to the same tokens and to pixels, tuned
    inside the training folds, the nearest training picture, and shuffled pairs.
    """
    from fmri import digit_study

    return digit_study.record(context, params.file, params.model_dump())
