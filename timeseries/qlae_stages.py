"""The stages of quantised latents and of disentanglement scores; no logic, nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuro.stage import Context, Dataset, Encoder, Params, Table, stage


class QLAEParams(Params):
    """A quantised-latent autoencoder and its training."""

    n_latents: int = Field(12, ge=1)
    """Size of the code; the paper takes twice the number of factors."""
    n_values: int = Field(10, ge=2, le=256)
    """That each latent may take."""
    network: Literal["conv", "fcn", "tcn", "lstm", "gru", "mlp"] = "conv"
    """Of encoder and decoder."""
    n_hidden: int = Field(128, ge=1)
    """Width of the network."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled, of weights only; sweep 0.001, 0.01 and 0.1."""
    quantisation: float = Field(0.01, ge=0)
    """Weight of the loss that moves the values."""
    commitment: float = Field(0.01, ge=0)
    """Weight of the loss that moves the codes."""
    shared_codebook: bool = False
    """One codebook for all latents."""
    max_epochs: int = Field(50, ge=0)
    """Of training."""
    batch_size: int = Field(128, ge=1)
    """Series in a batch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of AdamW."""
    device: str = "auto"
    """Where to train; auto takes a GPU where there is one."""
    seed: int = 0
    """Of weights and order."""


@stage("ts-qlae", version=1)
def qlae(series: Dataset, params: QLAEParams, context: Context) -> Encoder:
    """Train QLAE on the training part (on all trials where there is no part).

    Any dataset of (trial, channel, time) will do: series, or the epochs of an EEG.
    """
    from timeseries import qlae_study

    return qlae_study.train(series, params.model_dump(), context)


class InfoGANParams(QLAEParams):
    """A generator driven by quantised latents, its encoder, and their training."""

    n_noise: int = Field(8, ge=0)
    """Normal numbers that the generator gets beside the latents."""
    information: float = Field(1.0, ge=0)
    """Weight of the latents' reconstruction."""
    penalty: float = Field(10.0, ge=0)
    """Of the critic's gradient."""
    n_critic: int = Field(5, ge=1)
    """Steps of the critic for one of the generator."""
    max_epochs: int = Field(100, ge=0)
    """Of training."""


@stage("ts-infogan", version=1)
def infogan(series: Dataset, params: InfoGANParams, context: Context) -> Encoder:
    """Train an InfoGAN of quantised latents on the training part (all trials without one).

    Its encoder reads codes off series; its generator draws new series of codes.
    """
    from timeseries import qlae_study

    return qlae_study.train(series, params.model_dump(), context, "infogan")


class DisentangleParams(Params):
    """How codes are scored against known factors."""

    factors: tuple[str, ...] = ()
    """Coordinates that hold them; those marked or named as factors where empty."""
    groups: str | None = None
    """Coordinate of subjects, sessions or runs that intervals keep whole."""
    n_boot: int = Field(50, ge=2)
    """Half-samples behind the intervals."""
    n_bins: int = Field(10, ge=2)
    """Of equal population, where all codes are binned alike."""
    n_most: int = Field(2000, ge=50)
    """Series scored."""
    baselines: bool = True
    """Add PCA, ICA and an untrained encoder of the first model's size."""
    seed: int = 0
    """Of the baselines and the scores."""


@stage("ts-disentangle", version=1)
def disentangle(
    series: Dataset, models: list[Encoder], params: DisentangleParams, context: Context
) -> Table:
    """Score encoders on the test part, as published and with all codes binned alike.

    As published: plug-in information of quantised codes, k-NN information of continuous ones.
    """
    from timeseries import qlae_study

    return qlae_study.score(series, models, params.model_dump(), context)
