"""The stages of the VAE family and DTS, declared to the runner; no logic, nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuro.stage import Context, Dataset, Encoder, Params, Table, stage

Network = Literal["conv", "fcn", "tcn", "lstm", "gru", "mlp"]


class _Training(Params):
    network: Network = "conv"
    """Of encoder and decoder."""
    n_hidden: int = Field(128, ge=1)
    """Width of the network."""
    estimator: Literal["mss", "mws"] = "mss"
    """Of the aggregate posterior: minibatch stratified or weighted sampling."""
    sigma: float = Field(1.0, gt=0)
    """Width of the Gaussian likelihood, in standard deviations of the series."""
    max_epochs: int = Field(50, ge=0)
    """Of training."""
    batch_size: int = Field(128, ge=2)
    """Series in a batch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam."""
    factors: tuple[str, ...] = ()
    """Coordinates that hold known factors, for the heat map; those marked as such where empty."""
    device: str = "auto"
    """Where to train; auto takes a GPU where there is one."""
    seed: int = 0
    """Of weights, order and noise."""


class VAEParams(_Training):
    """A member of the VAE family and its training."""

    preset: Literal["ae", "vae", "beta-vae", "beta-tcvae", "factor-vae", "info-vae", "dts"] = "vae"
    """The member; dts is DTS without its group segments."""
    n_latents: int = Field(10, ge=1)
    """Size of the code."""
    beta: float = Field(4.0, ge=0)
    """Weight of what the member penalises."""
    alpha: float = Field(0.0, ge=0)
    """InfoVAE's alpha, or the reward of mutual information in DTS."""
    mmd: float = Field(10.0, ge=0)
    """InfoVAE's lambda."""
    warmup_epochs: int = Field(0, ge=0)
    """Epochs in which the penalty rises from 0."""


@stage("ts-vae", version=1)
def vae(series: Dataset, params: VAEParams, context: Context) -> Encoder:
    """Train a VAE of series on the training part (of all series where there is no part)."""
    from timeseries import dts_study

    return dts_study.train_vae(series, params.model_dump(), context)


class DTSParams(_Training):
    """DTS and its training."""

    network: Network = "fcn"
    """Of encoder and decoder."""
    n_label_latents: int = Field(12, ge=1)
    """Size of g_y, the segment of the class."""
    n_domain_latents: int = Field(4, ge=1)
    """Size of g_d, the segment of the domain."""
    alpha: float = Field(1.5, ge=0)
    """Reward of mutual information."""
    beta: float = Field(2.0, ge=0)
    """Weight of total correlation and dimension-wise KL."""
    label_weight: float = Field(100.0, ge=0)
    """Of the class from g_y, in nats per series."""
    domain_weight: float = Field(50.0, ge=0)
    """Of the domain from g_d, in nats per series."""
    adversarial_weight: float = Field(20.0, ge=0)
    """Of the crossed heads behind gradient reversal, in nats per series."""
    encoders: Literal["separate", "shared"] = "separate"
    """Whether each segment has an encoder of its own."""
    standardise: Literal["all", "domain"] = "all"
    """Whether channels are standardised by all series, or by those of the same domain."""
    label: str = "class"
    """Coordinate that holds the class; empty where unknown."""
    domain: str = "subject"
    """Coordinate that holds the domain."""
    target: str | None = None
    """Domain whose classes are hidden from training; null hides none."""


@stage("ts-dts", version=2)
def dts(series: Dataset, params: DTSParams, context: Context) -> Encoder:
    """Train DTS: codes in a segment for the class and one for the domain.

    Classes of the target domain are never shown to it.
    """
    from timeseries import dts_study

    return dts_study.train_dts(series, params.model_dump(), context)


class CompareParams(Params):
    """Of the table of codes."""

    factors: tuple[str, ...] = ()
    """Coordinates that hold known factors; those that are marked as such where empty."""
    n_most: int = Field(2000, ge=10)
    """Series scored."""
    n_boot: int = Field(0, ge=0)
    """Half-samples behind intervals of the scores, two at least; 0 leaves intervals out."""
    seed: int = 0
    """Of the scores."""


@stage("ts-latents", version=1)
def latents(
    series: Dataset, models: list[Encoder], params: CompareParams, context: Context
) -> Table:
    """Compare encoders: information, active units, and all disentanglement metrics."""
    from timeseries import dts_study

    return dts_study.compare(series, models, params.model_dump(), context)


class SegmentsParams(Params):
    """Of the probes of segments."""

    label: str = "class"
    """Coordinate that holds the class."""
    domain: str = "subject"
    """Coordinate that holds the domain."""
    target: str
    """Domain whose classes were hidden from training."""


@stage("ts-segments", version=1)
def segments(series: Dataset, encoder: Encoder, params: SegmentsParams, context: Context) -> Table:
    """Probe what each segment of DTS tells: class and domain, on source and target."""
    from timeseries import dts_study

    return dts_study.segments(series, encoder, params.model_dump(), context)
