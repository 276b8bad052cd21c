"""Stages of whole-brain decoding: series, pretraining, alignment, scores. Declared; no logic."""

from __future__ import annotations

from fmri.whole_brain_params import (
    AlignParams,
    EvaluateParams,
    FewLabelsParams,
    PretrainParams,
    SeriesParams,
    StudyParams,
)
from neuro.stage import Context, Dataset, Encoder, Table, stage


@stage("brain-series", version=1)
def series(
    params: SeriesParams, context: Context, images: Dataset | None = None,
    targets: Dataset | None = None,
) -> Dataset:  # fmt: skip
    """Read runs, or simulate a brain, and cut what is trained on: blocks of events, and windows.

    Series are averaged over the parcels of an atlas, detrended, freed of confounds and z-scored in
    each run. Windows without a label, for pretraining, are cut from unlabelled and training runs,
    never from a test run. Embeddings of items and texts come along: those of `targets`, where they
    are wired. With `images` the simulated brain sees pictures, by their targets.
    """
    from fmri import brain_series

    return brain_series.record(context, params, images, targets)


@stage("brain-pretrain", version=2)
def pretrain(data: Dataset, params: PretrainParams, context: Context) -> Encoder:
    """Train an encoder on windows without labels: it predicts the volumes or patches it can't see.

    Windows of test runs are none of the data; whole runs among the others choose the epoch.
    """
    from fmri import brain_training

    return brain_training.record_pretraining(context, data, params.model_dump())


@stage("brain-align", version=2)
def align(
    data: Dataset, params: AlignParams, context: Context, pretrained: Encoder | None = None,
    targets: Dataset | None = None, autoencoder: Encoder | None = None,
) -> Encoder:  # fmt: skip
    """Train an encoder to give the embedding of the picture, and of the text, by contrast.

    It starts from the pretrained weights where a pretrained encoder is wired. Whole items among
    the training trials choose the epoch. With `targets` the pictures' tokens are aimed at as they
    are, for reconstruction; their `autoencoder` is saved along.
    """
    from fmri import brain_training

    return brain_training.record_alignment(
        context, data, params.model_dump(), pretrained, targets, autoencoder
    )


@stage("brain-evaluate", version=2)
def evaluate(
    data: Dataset, encoder: Encoder, params: EvaluateParams, context: Context,
    pretrained: Encoder | None = None,
) -> Table:  # fmt: skip
    """Score categories and retrieval beside linear models and shuffled labels.

    Where the data bring a split, the encoder is scored on its test part. Where they don't, one run
    after another is left out, and an encoder with the same parameters is trained on the others,
    from weights that were pretrained without that run where a pretrained encoder is wired.
    """
    from fmri import brain_evaluation

    return brain_evaluation.record(context, data, params.model_dump(), encoder, pretrained)


@stage("brain-few-labels", version=2)
def few_labels(
    data: Dataset, encoder: Encoder, pretrained: Encoder, params: FewLabelsParams,
    context: Context,
) -> Table:  # fmt: skip
    """Say what pretraining is worth where few trials are labelled.

    The same network is trained on the same few trials twice, from scratch and from the pretrained
    weights; whole items among these trials choose the epoch of both.
    """
    from fmri import few_labels as work

    return work.record(context, data, params.model_dump(), encoder, pretrained)


@stage("brain-study", version=1)
def study(
    ablations: list[Table], gains: list[Table], imagery: list[Table], params: StudyParams,
    context: Context,
) -> Table:  # fmt: skip
    """Pool the ablation, the gain of pretraining and the test of imagery over simulated brains."""
    from fmri import brain_study

    return brain_study.record(context, ablations, gains, imagery, params.model_dump())
