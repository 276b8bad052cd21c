"""Stages of whole-brain tests: parcels, ablation, imagery, zero-shot. Declared only; no logic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fmri.parcel_params import ParcelCutting
from neuro.stage import Context, Dataset, Encoder, File, Files, Params, Table, stage


class ParcelsParams(ParcelCutting):
    """Runs, their events, and the atlas."""

    bold: Files
    """4-D NIfTI, or CIFTI series with a CIFTI atlas; one file for each run."""
    events: Files
    """BIDS events of each run, in the same order."""
    confounds_files: Files | None = None
    """A table of confounds for each run, in the same order; they are taken out with the trend."""


@stage("brain-parcels", version=2)
def parcels(params: ParcelsParams, context: Context) -> Dataset:
    """Average runs over the parcels of an atlas and cut a block for each event.

    Series are detrended and z-scored in each run; blocks of unlike length are padded with 0 and
    carry a mask. Networks of parcels come from the atlas's table.
    """
    from fmri import parcel_study

    return parcel_study.record(context, params)


class AblateParams(Params):
    """What is taken away, and what it is compared with."""

    how: tuple[Literal["zero", "mean", "retrain"], ...] = ("zero", "mean", "retrain")
    """Fill a network with 0 or its training mean at test, or train without it; the first is that
    of the metrics."""
    score: Literal["category", "target"] = "target"
    """Share of right categories, or the cosine to the own embedding less that to the others."""
    groups: str = "run"
    """Coordinate of the trials that is left out as a whole and that intervals are over: run, item,
    subject. Where the data bring a split (part), that is used."""
    visual: str = "Vis"
    """The network that the whole brain is compared with."""
    time: Literal["mean", "all"] = "mean"
    """Whether linear models see the mean over a block or every time point."""
    n_random: int = Field(200, ge=20)
    """Random sets of parcels for each size of a network."""
    n_random_retrained: int = Field(50, ge=5)
    """The same with retraining, of which each is a model."""
    C: float | None = Field(1.0, gt=0)
    """Inverse penalty of the logistic regressions; null chooses it inside the training trials."""
    no_network: str = "none"
    """The word for parcels of no network, which are not taken away by themselves; '' where the
    atlas has a network of this name."""
    leave_out: tuple[str, ...] = ("imagery", "rest", "unlabelled")
    """Kinds of trials that are not used."""
    atlas: File | None = None
    """Label image for a brain map."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples behind the intervals."""
    seed: int = 0
    """Of random sets and intervals."""


@stage("brain-ablate", version=2)
def ablate(
    data: Dataset, params: AblateParams, context: Context, encoder: Encoder | None = None
) -> Table:
    """Take away one network after another, each beside random sets of as many parcels.

    Without an encoder linear models are trained, on the training trials of each fold; retraining
    is done with linear models in any case. An encoder is scored on the test part of the data; where
    they have none, one with its parameters is trained in each fold, from scratch. The whole brain
    is compared with the visual network alone and with everything but it.
    """
    from fmri import ablation_study

    return ablation_study.record_ablation(context, data, params.model_dump(), encoder)


class ImageryParams(Params):
    """Which trials were imagined, and how pairings are permuted."""

    kind: str = "imagery"
    """The kind of the trials."""
    leave_out: tuple[str, ...] = ("rest", "unlabelled")
    """Kinds of trials that a linear model is not trained on."""
    optional: bool = False
    """Say so where nothing was imagined, instead of refusing the data."""
    blocks: str | None = None
    """Coordinate (run, subject): only prompts that came in the same blocks change places."""
    n_permutations: int = Field(9999, ge=99)
    """Random pairings; where there are fewer, all are listed."""
    seed: int = 0
    """Of the pairings."""


@stage("brain-imagery", version=2)
def imagery(
    data: Dataset, params: ImageryParams, context: Context, encoder: Encoder | None = None
) -> Table:
    """Test whether what was imagined is decoded: permute the pairing with the prompts.

    Without an encoder a ridge regression is trained on what was seen, without the items that were
    imagined.
    """
    from fmri import ablation_study

    return ablation_study.record_imagery(context, data.load(), params.model_dump(), encoder)


class ZeroShotParams(Params):
    """What is known of categories."""

    attributes: File | None = None
    """CSV of categories as rows, with a first line # source: ...; null is what the data bring along
    (attribute_table), or the table of the eight categories of Haxby et al. that ships with fmri."""
    leave_out: tuple[str, ...] = ("imagery", "rest", "unlabelled")
    """Kinds of trials that are not used."""
    usual: bool = True
    """Decode categories with all of them in training too."""
    n_permutations: int = Field(1000, ge=99)
    """Shuffles of the attributes among categories."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples behind the intervals."""
    seed: int = 0
    """Of shuffles and intervals."""


@stage("brain-zero-shot", version=2)
def zero_shot(data: Dataset, params: ZeroShotParams, context: Context) -> Table:
    """Name categories that were left out of training, through a table of attributes.

    Beside it stands decoding with all categories in training: logistic regression, ridges, and
    shuffled labels, one run left out at a time.
    """
    from fmri import ablation_study

    return ablation_study.record_zero_shot(context, data, params.model_dump())
