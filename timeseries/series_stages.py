"""The stages of series, declared to the runner; no logic, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from neuro.stage import Context, Dataset, Encoder, Files, Params, Table, stage


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Simulation(_Part):
    """Series whose factors are known; see `timeseries.simulate.SeriesStudy`."""

    n_subjects: int = Field(6, ge=1)
    """Domains."""
    n_trials: int = Field(100, ge=1)
    """Series of a subject."""
    n_classes: int = Field(4, ge=2, le=6)
    """Shapes of the wave."""
    n_channels: int = Field(3, ge=1)
    """Of a series."""
    n_samples: int = Field(128, ge=16)
    """Of a series."""
    sfreq: float = Field(50.0, gt=0)
    """Hz."""
    frequency: tuple[float, float] = (1.5, 4.0)
    """Range of the wave's frequency, Hz."""
    phase: float = Field(1.0, ge=0)
    """Waves begin anywhere within so many cycles; 0 leaves no factor of the wave unnamed."""
    noise: float = Field(0.2, ge=0)
    """Standard deviation; that of a wave is about 1."""
    shift: float = Field(1.0, ge=0)
    """How far subjects differ."""
    mixing: float = Field(1.0, ge=0)
    """How much of that their mixing of the components into channels differs."""
    shortest: float = Field(1.0, ge=0.25, le=1)
    """Lengths are drawn from this share of n_samples up to all of it."""
    missing: float = Field(0.0, ge=0, le=0.5)
    """Share of the samples that is missing, in gaps; filled as `windows.missing` says."""
    levels: int = Field(0, ge=0)
    """Continuous factors take so many evenly spaced values, and are discrete; 0: any."""
    burst_width: float = Field(0.05, gt=0, le=0.5)
    """Of the burst's bell, as a share of the series."""
    burst_carrier: float = Field(0.2, ge=0, le=0.5)
    """Of the wave under that bell, as a share of sfreq; 0 leaves the bell alone."""


class ColumnNames(_Part):
    """Which column of a table holds what; see `timeseries.read_series.Columns`."""

    time: str = "time"
    """Seconds, or dates."""
    values: tuple[str, ...] = ()
    """Channels of a wide table; by default every numeric column without another role."""
    variable: str | None = None
    """Column of the channel's name, in a long table."""
    value: str | None = None
    """Column of the value, in a long table."""
    recording: str | None = None
    """Column that tells recordings apart."""
    subject: str | None = None
    """Column of the person."""
    label: str | None = None
    """Column of the class."""


class Cutting(_Part):
    """How recordings become trials; see `timeseries.windows.Windows`."""

    length: float | None = Field(None, gt=0)
    """Of a window in s; null takes labelled stretches whole."""
    overlap: float = Field(0.5, ge=0, lt=1)
    """Share of a window that the next one repeats."""
    cross: bool = False
    """Let windows run over borders of labels."""
    missing: Literal["interpolate", "refuse"] = "interpolate"
    """What happens to missing samples."""
    max_missing: float = Field(0.5, ge=0, lt=1)
    """Windows that miss a larger share are left out."""


class SeriesParams(Params):
    """Which series, and how they are cut."""

    files: Files | None = None
    """.ts, CSV, Parquet, NPZ, NetCDF or WAV, or a folder of them; null is the simulator."""
    simulate: Simulation = Simulation()
    """The simulated study, with files null."""
    sfreq: float | None = Field(None, gt=0)
    """Sampling rate in Hz, where the files don't tell it."""
    columns: ColumnNames = ColumnNames()
    """Of tables."""
    label: str = "class"
    """Name of the array of classes in an indexed NPZ."""
    windows: Cutting = Cutting()
    """With files."""
    classes: tuple[str, ...] = ()
    """Keep these alone; empty keeps all."""
    seed: int = 0
    """Of the simulator."""

    def reads(self) -> list[Path]:
        """Tables of labels beside NPZ files."""
        from timeseries.series_index import files_inside, tables_beside

        return tables_beside(files_inside([Path(path) for path in self.files or []]))


@stage("ts-series", version=1)
def series(params: SeriesParams, context: Context) -> Dataset:
    """Read series and cut them into windows; or simulate series whose factors are known."""
    from timeseries import series_study

    return series_study.read(params.model_dump(), context)


class SpectraParams(Params):
    """Frames of a waveform; see `timeseries.spectra.Spectra`."""

    kind: Literal["cepstra", "log-mel"] = "cepstra"
    """Cepstra are the cosine transform of the log-mel powers."""
    window: float = Field(0.032, gt=0)
    """Of a frame, s."""
    hop: float = Field(0.016, gt=0)
    """Between the beginnings of frames, s; without n_frames."""
    n_frames: int | None = Field(None, ge=1)
    """Frames spread evenly over each series; null sets one every hop, and carries a mask."""
    n_bands: int = Field(26, ge=1)
    """Of the mel scale."""
    n_coefficients: int = Field(14, ge=1)
    """Cepstra kept."""
    centre: bool = False
    """Take each coefficient's mean over its own series away."""
    floor: float = -100.0
    """Powers below it are raised to it, dB."""


@stage("ts-spectra", version=1)
def spectra(series: Dataset, params: SpectraParams, context: Context) -> Dataset:
    """Turn waveforms into mel spectra or cepstra: a channel for each coefficient, in dB."""
    from timeseries import series_study

    return series_study.spectra(series, params.model_dump(), context)


class SplitParams(Params):
    """What is held out, always whole persons."""

    group: str = "subject"
    """Coordinate that a split never divides: the person, speaker or session."""
    test_size: float = Field(0.25, gt=0, lt=1)
    """Share of the groups in the test part."""
    seed: int = 0
    """Of which groups are held out."""


@stage("ts-split", version=1)
def split(series: Dataset, params: SplitParams, context: Context) -> Dataset:
    """Say of every trial whether it serves for training or test; groups stay whole."""
    from timeseries import series_study

    return series_study.split(series, params.model_dump(), context)


class Network(_Part):
    """Networks and training that all models of a comparison share; see `timeseries.dts.DTS`."""

    network: Literal["conv", "fcn", "tcn", "lstm", "gru", "mlp"] = "fcn"
    """Of encoder and decoder."""
    n_hidden: int = Field(64, ge=1)
    """Width."""
    encoders: Literal["separate", "shared"] = "separate"
    """Whether each segment has an encoder of its own."""
    standardise: Literal["all", "domain"] = "domain"
    """Whether DTS standardises by source and target together, or each by itself."""
    sigma: float = Field(1.0, gt=0)
    """Width of the Gaussian likelihood, in standard deviations of the series."""
    n_label_latents: int = Field(12, ge=1)
    """Of the segment for the class."""
    n_domain_latents: int = Field(4, ge=1)
    """Of the segment for the domain."""
    alpha: float = Field(1.5, ge=0)
    """Reward of mutual information."""
    beta: float = Field(2.0, ge=0)
    """Weight of total correlation and dimension-wise KL."""
    label_weight: float = Field(100.0, ge=0)
    """Of the class, nats per series."""
    domain_weight: float = Field(50.0, ge=0)
    """Of the domain, nats per series."""
    adversarial_weight: float = Field(20.0, ge=0)
    """Of both crossed heads."""
    max_epochs: int = Field(40, ge=0)
    """Of training."""
    batch_size: int = Field(100, ge=2)
    """Series in a batch."""
    learning_rate: float = Field(2e-3, gt=0)
    """Of Adam."""


class AdaptParams(Params):
    """Pairs of persons, drawn before anything is trained."""

    n_pairs: int = Field(5, ge=1)
    """Ordered pairs of source and target; persons recur as late as they can."""
    score_size: float = Field(0.5, gt=0, lt=1)
    """Share of a target's recordings that are scored; the rest is adapted to, without labels."""
    network: Network = Network()
    """Of DTS and of the networks beside it."""
    raw: Literal["statistics", "samples"] = "statistics"
    """What the linear model without an encoder sees: simple statistics of each channel, or all."""
    note: str = ""
    """What a reader should know of the set; printed above the table."""
    seed: int = 0
    """Of pairs, parts and networks."""


@stage("ts-adapt", version=5)
def adapt(series: Dataset, params: AdaptParams, context: Context) -> Table:
    """Adapt from labelled to unlabelled persons: DTS beside networks and linear models."""
    from timeseries import adapt_study

    return adapt_study.adapt(series, params.model_dump(), context)


class DownstreamParams(Params):
    """What codes are probed for."""

    label: str = "class"
    """Coordinate to tell."""
    group: str = "subject"
    """Unit of the intervals."""
    n_components: int = Field(16, ge=1)
    """Of PCA, beside the encoders."""
    network: Network | None = None
    """Of a network that is trained on the labels of the training part, beside; null trains none."""
    seed: int = 0
    """Of clusters and anomalies."""


@stage("ts-downstream", version=3)
def downstream(
    series: Dataset, models: list[Encoder], params: DownstreamParams, context: Context
) -> Table:
    """Probe encoders: linear, k-NN, clusters, anomalies; beside PCA and plain features."""
    from timeseries import probe_study

    return probe_study.downstream(series, models, params.model_dump(), context)
