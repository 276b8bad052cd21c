"""The EEG stages, declared to the runner; no logic, and nothing heavy at module level."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eeg.steps import ColumnMap, Steps
from neuro.stage import Context, Dataset, Encoder, File, Files, Folder, Params, Table, stage
from neuro.units import Hertz, Seconds

if TYPE_CHECKING:
    import xarray as xr

    from eeg.beta_vae import BetaVAE

    Inputs = dict[str, Any]


class Cohort(BaseModel):
    """The simulated cohort that stands in where no recordings are given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    n_subjects: int = Field(30, ge=2)
    """Subjects."""
    n_trials: int = Field(40, ge=2)
    """Trials of each subject and condition."""
    sfreq: Hertz = Field(128.0, gt=0)
    """Sampling rate."""
    tmin: Seconds = -0.2
    """Start of a trial."""
    tmax: Seconds = 0.8
    """End of a trial, not included."""
    amplitude_sd: float = Field(0.4, ge=0)
    """Between subjects, of the log amplitude of every component."""
    noise: float = Field(8.0, ge=0)
    """Standard deviation of the 1/f noise (uV)."""
    alpha: float = Field(3.0, ge=0)
    """Amplitude of the 10 Hz rhythm (uV)."""
    blinks: float = Field(0.0, ge=0, le=1)
    """Share of trials with a blink."""
    bad_channels: int = Field(0, ge=0)
    """Channels of each subject with ten times the noise."""
    missing: float = Field(0.0, ge=0, le=1)
    """Share of subjects whose labels are missing."""


class RecordingsParams(Params):
    """What to read."""

    files: Files | None = None
    """Recordings: a glob or a list. With neither files nor bids_root, a cohort is simulated."""
    participants: File | None = None
    """Table with a column participant_id; its other columns become labels."""
    bids_root: Folder | None = None
    """A BIDS study, in place of files."""
    task: str | None = None
    """Keep this task."""
    session: str | None = None
    """Keep this session."""
    run: str | None = None
    """Keep this run."""
    labels: list[str] | None = None
    """Columns of participants to keep; all of them by default."""
    channels: Literal["same", "common"] = "same"
    """common: read all headers and keep the channels that every recording has."""
    csv: ColumnMap | None = None
    """Layout of CSV recordings, needed here only for channels: common."""
    simulate: Cohort = Cohort()
    """The simulated cohort."""
    seed: int = 0
    """Seed of the simulated cohort."""

    @model_validator(mode="after")
    def _one_source(self) -> RecordingsParams:
        if self.files is not None and self.bids_root is not None:
            raise ValueError("give either 'files' or 'bids_root', not both")
        return self

    def reads(self) -> list[Path]:
        """Sample files and side-cars that belong to the recordings."""
        from eeg.companions import companions

        return [found for file in self.files or [] for found in companions(file)]


@stage("eeg-recordings", version=1)
def recordings(params: RecordingsParams, context: Context) -> Dataset:
    """List the recordings of a study with their labels, or simulate a cohort.

    Gives a catalogue (one item per recording; eeg-epochs reads the signals) or, where neither
    files nor bids_root is set, the trials of a simulated cohort whose truth is known.
    """
    from eeg import plots
    from eeg.catalogue import catalogue_warnings, find_recordings
    from eeg.simulate import simulate_cohort

    if params.files is None and params.bids_root is None:
        cohort = simulate_cohort(**params.simulate.model_dump(), seed=params.seed)
        context.method("The recordings are a simulated cohort whose generative factors are known.")
        context.section("Recordings", *plots.cohort_blocks(cohort))
        return cohort
    chosen = params.model_dump(exclude={"simulate", "seed", "files", "csv"})
    found = find_recordings(params.files, csv=params.csv, **chosen)
    for warning in catalogue_warnings(found):
        context.warn(warning)
    context.section("Recordings", *plots.catalogue_blocks(found))
    return found


class EpochsParams(Steps):
    """Everything that happens between a recording and its clean, stimulus-locked trials."""


@stage("eeg-epochs", version=1)
def epochs(recordings: Dataset, params: EpochsParams, context: Context) -> Dataset:
    """Read one recording and turn it into clean, stimulus-locked trials in uV.

    Meant for `each: ${recordings}`. The order of the steps is that of the fields; each is
    optional and leaves its figures in the report. A recording with no trial left is reported.
    """
    from eeg.preprocess import preprocess

    steps = Steps.model_validate(params.model_dump())
    data, quality = preprocess(recordings, steps)
    for warning in quality.get("warnings", []):
        context.warn(f"{quality.get('recording') or 'recording'}: {warning}")
    return data


class ErpsParams(Params):
    """What to show of the ERPs."""

    sensors: list[str] | None = None
    """Sensors to draw; by default those with the strongest response."""


@stage("eeg-erps", version=1)
def erps(epochs: Dataset, params: ErpsParams, context: Context) -> Dataset:
    """Average the trials of every subject and condition; report what preprocessing did.

    Gives the ERPs as a dataset of one trial per subject and condition, with the number of
    averaged trials and the standardised measurement error.
    """
    from eeg import methods, plots
    from eeg.erp import erps as average

    for sentence, citations in methods.preprocessing(epochs):
        context.method(sentence, *citations)
    context.section("Preprocessing", *plots.quality_blocks(epochs))
    context.section("ERPs", *plots.erp_blocks(epochs, params.sensors))
    return average(epochs)


class BetaVAEParams(Params):
    """The network and its training."""

    n_latents: int = Field(10, ge=1)
    """Size of the code."""
    beta: float = Field(4.0, ge=0)
    """Weight of the KL term, in per-sample units; 0 is a plain autoencoder."""
    network: Literal["conv", "mlp"] = "conv"
    """1-D convolutions over time, or fully connected layers."""
    n_hidden: int = Field(128, ge=1)
    """Width of the dense layer next to the code."""
    train_on: Literal["single", "erp", "bootstrap", "single-to-erp"] = "single"
    """single trials; ERPs; averages of 1..n_average trials of one subject and condition; or
    one trial in, the subject's ERP without it out."""
    n_average: int = Field(10, ge=1)
    """Most trials in a bootstrapped average."""
    warmup_epochs: int = Field(0, ge=0)
    """Epochs over which beta rises from 0."""
    capacity: float | None = Field(None, ge=0)
    """Nats to which the KL is driven (Burgess et al. 2018), in place of pressing it to 0."""
    feature_loss: Literal["dae"] | None = None
    """dae: judge the reconstruction by the features of a denoising autoencoder, trained first on
    masked trials and then frozen (Higgins et al. 2018, eq. 2), in place of the signal's error."""
    n_features: int = Field(100, ge=1)
    """Size of the denoising autoencoder's code."""
    mask_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of a trial's values that the denoising autoencoder has to fill in."""
    dae_max_epochs: int = Field(50, ge=1)
    """Epochs of the denoising autoencoder's training."""
    max_epochs: int = Field(50, ge=1)
    """Epochs of training."""
    batch_size: int = Field(64, ge=1)
    """Trials in a batch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of subjects kept aside to watch for over-fitting."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better validation loss."""
    precision: Literal["32", "64", "bf16-mixed", "16-mixed"] = "32"
    """Numbers of the training."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    compile: bool = False
    """Compile the network; pays on long trainings."""
    seed: int = 0
    """Seed of the start, the order of trials and the sampling."""


def _estimator(params: BetaVAEParams) -> BetaVAE:

    from eeg.beta_vae import BetaVAE

    settings = params.model_dump()
    return BetaVAE(random_state=settings.pop("seed"), **settings)


def _train_together(
    inputs: Inputs, params: list[BetaVAEParams], contexts: list[Context]
) -> list[BetaVAE]:
    """Train the members of a sweep as one ensemble."""

    from eeg.beta_vae import BetaVAE
    from neuro.data import as_signal

    signal = as_signal(inputs["epochs"])
    fitted = BetaVAE.fit_together(
        [_estimator(p) for p in params],
        signal,
        scratch=contexts[0].scratch,
        progress=contexts[0].progress,
    )
    for context, encoder in zip(contexts, fitted, strict=True):
        _report_encoder(context, encoder, signal)
    return fitted


def _report_encoder(context: Context, encoder: BetaVAE, signal: xr.DataArray) -> None:
    from eeg import methods, plots
    from neuro.activity import report_activity

    for sentence, citations in methods.training(encoder):
        context.method(sentence, *citations)
    for name, value in encoder.counts_.items():
        context.metric(f"vae.{name}", value, unit="latents")
    context.section(
        "Training", *plots.training_blocks(encoder.history_, encoder.kl_, encoder.types_.tolist())
    )
    context.section("Latents", *plots.traversal_blocks(encoder.traverse(), encoder.kept_.tolist()))
    if encoder.beta:
        mean, variance = encoder.transform(signal, return_variance=True)
        report_activity(context, mean.values, variance.values)


@stage("eeg-beta-vae", version=2, together=_train_together)
def beta_vae(epochs: Dataset, params: BetaVAEParams, context: Context) -> Encoder:
    """Train a beta-VAE on all trials: the encoder to import and to decode with."""
    return _train_together({"epochs": epochs}, [params], [context])[0]


class EvaluateParams(Params):
    """How the encoder is put to the test."""

    labels: list[str] | None = None
    """Labels to predict; by default those of the recordings, and the condition."""
    n_splits: int = Field(5, ge=2)
    """Folds over subjects; every subject is held out once."""
    n_shuffles: int = Field(200, ge=20)
    """Label shuffles behind the chance band and the p-values."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of subjects behind the intervals."""
    seed: int = 0
    """Seed of folds, shuffles and bootstrap."""


@stage("eeg-evaluate", version=1)
def evaluate(epochs: Dataset, encoder: Encoder, params: EvaluateParams, context: Context) -> Table:
    """Evaluate on people that the encoder never saw: ERP recovery and label prediction.

    The encoder and every statistic are refitted in each fold; the given encoder lends its
    parameters. Gives the table of predictors with their numbers and intervals.
    """
    import pandas as pd

    from eeg import evaluate as room
    from eeg import methods, plots
    from neuro.report import Table as Block

    settings = params.model_dump()
    result = room.evaluate(
        encoder,
        epochs,
        random_state=settings.pop("seed"),
        scratch=context.scratch,
        progress=context.progress,
        **settings,
    )
    room.record(context, result)
    n_subjects = len(set(epochs["subject"].values.tolist()))
    said = methods.evaluation(n_subjects, len(result.folds), params.n_shuffles, params.n_boot)
    for sentence, citations in said:
        context.method(sentence, *citations)
    found = result.recovery
    context.section(
        "Denoised single trials",
        *plots.denoised_blocks(
            found.examples, epochs["time"].values, epochs["channel"].values.tolist()
        ),
    )
    paired = Block(found.difference_table(), "Paired differences over subjects.")
    context.section("ERP recovery", *plots.recovery_blocks(found.estimates, found.notes), paired)
    context.section("Labels", *plots.classification_blocks(result.classification.by_name()))
    return pd.DataFrame(found.table())


class SelectParams(Params):
    """How one model of a sweep is chosen."""

    method: Literal["lasso", "spearman"] = "lasso"
    """Version of the ranking that decides; both are reported."""
    least_explained: float = Field(0.9, ge=0, le=1)
    """Share of the best model's explained variance that a model must reach to be chosen."""
    n_points: int = Field(1000, ge=10)
    """Trials on which the models are compared."""
    seed: int = 0
    """Seed of the draw of those trials."""


@stage("eeg-select", version=2)
def select(
    members: list[Encoder], epochs: Dataset, params: SelectParams, context: Context
) -> Encoder:
    """Choose the encoder of a sweep whose latents its sibling seeds found too; no label is used.

    Meant for a sweep over beta and seed (five seeds or more). The unsupervised disentanglement
    ranking compares the seeds of every setting; gives the encoder that ranks highest.
    """
    from eeg import ranking
    from eeg import select as room

    found = room.select(
        members,
        epochs,
        settings=context.members["members"],
        method=params.method,
        least_explained=params.least_explained,
        n_points=params.n_points,
        random_state=params.seed,
        progress=context.progress,
    )
    room.record(context, found)
    context.method(*ranking.method_sentence(found))
    context.section("Model selection", *ranking.selection_blocks(found))
    return members[found.chosen]
