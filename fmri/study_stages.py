"""Stages that are a whole study of a published set, declared to the runner; no logic."""

from __future__ import annotations

from pydantic import Field

from neuro.stage import Context, Dataset, File, Params, Table, stage


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


@stage("fmri-haxby", version=1)
def haxby(betas: Dataset, params: HaxbyParams, context: Context) -> Table:
    """Decode the category of every block of a run by models that saw the other runs only.

    MindEye is trained to the attributes of the categories; the category whose attributes are
    nearest is the answer. Beside it stand logistic regression, a ridge regression on attributes,
    one on a column for each category, both tuned inside the training runs, and shuffled labels.
    """
    from fmri import category_study

    return category_study.record(context, betas.load(), params.model_dump())
