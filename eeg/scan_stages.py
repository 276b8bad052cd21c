"""The stages around SCAN, declared to the runner; no logic, and nothing heavy at module level."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from neuro.stage import Context, Dataset, Encoder, File, Files, Folder, Params, Table, stage
from neuro.units import Seconds


class PartParams(Params):
    """How participants are split."""

    part: Literal["train", "test"]
    """Which part to give."""
    test_size: float = Field(0.3, gt=0, lt=1)
    """Share of the participants in the test part."""
    labels: list[str] | None = None
    """Labels that both parts are balanced over; by default all labels of the trials."""
    seed: int = 0
    """Seed of the split; the same for both parts."""


@stage("eeg-part", version=1)
def part(
    epochs: Dataset, params: PartParams, context: Context, encoder: Encoder | None = None
) -> Dataset:
    """Give the training or the test participants of a dataset: trials of one part of the people.

    Two stages with the same settings, but for `part`, give the two sides of one split. With an
    encoder, the training part is whom it was trained on and the test part everybody else.
    """
    from eeg import parts

    found = None if encoder is None else parts.split_as_trained(epochs, encoder)
    train, test = found or parts.split_participants(
        epochs, test_size=params.test_size, labels=params.labels, seed=params.seed
    )
    chosen = epochs.isel(trial=train if params.part == "train" else test)
    n_people = len(set(parts.subjects_of(chosen).tolist()))
    role = "train the encoder and SCAN" if params.part == "train" else "score them"
    context.method(f"{n_people} participants served to {role}.")
    return chosen


class StackParams(Params):
    """Which conditions stand side by side."""

    conditions: list[str] | None = None
    """Conditions in the order of stacking; by default all, sorted."""
    seed: int = 0
    """Seed of the pairing of trials."""


@stage("eeg-stack", version=1)
def stack(epochs: Dataset, params: StackParams, context: Context) -> Dataset:
    """Put trials of several conditions side by side, as further channels of one sample.

    What a condition adds (a difference wave) can then be carried by one latent. Recordings that
    are decoded later must be stacked likewise: an encoder of stacked trials refuses plain ones.
    """
    from eeg.stack import stack_conditions

    stacked = stack_conditions(epochs, params.conditions, random_state=params.seed)
    names = stacked.attrs["stacked"]
    context.method(
        f"One trial of each condition ({', '.join(names)}) of a participant made one sample; "
        "trials were paired at random.",
        "honke2020",
    )
    return stacked


class ScanParams(Params):
    """SCAN and its training."""

    labels: list[str] | None = None
    """Labels to map; by default all labels of the trials."""
    within: list[str] = Field(default_factory=list)
    """Labels that vary inside a participant (a condition)."""
    contrast: str | None = "condition"
    """Coordinate whose differences inside participants may carry labels; null pools its values."""
    bins: int | dict[str, int | list[float]] = 3
    """Bins of continuous labels (at quantiles), or by label their number or inner edges."""
    beta_y: float = Field(1.0, ge=0)
    """Weight of the KL of a symbol's posterior to the prior."""
    lam: float = Field(10.0, ge=0)
    """Weight of the forward KL from the signal's posterior to the symbol's; much the larger."""
    n_hidden: int = Field(100, ge=1)
    """Width of the symbol encoder and decoder."""
    drop: float = Field(0.8, ge=0, le=1)
    """Share of training pairs that show only some of their labels."""
    level: Literal["participant", "trial"] = "participant"
    """What is paired with labels: a participant's mean latents, or every trial."""
    balance: bool = True
    """Draw pairs so that the values of every label are met equally often."""
    operators: bool = True
    """Train AND, IN COMMON and IGNORE too."""
    operator_target: Literal["symbol", "signal"] = "symbol"
    """What the operator's result is held against."""
    max_epochs: int = Field(40, ge=1)
    """Epochs of 4096 pairs."""
    batch_size: int = Field(64, ge=1)
    """Pairs in a batch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam."""
    n_shuffles: int = Field(1000, ge=20)
    """Shuffles of the participants' labels behind the p-values."""
    seed: int = 0
    """Seed of the start, of pairs, of sampling and of shuffles."""


@stage("eeg-scan", version=2)
def scan(
    encoder: Encoder,
    epochs: Dataset,
    params: ScanParams,
    context: Context,
    siblings: list[Encoder] | None = None,
) -> Encoder:
    """Map labels onto the latents of a frozen beta-VAE: from labels to signals, and back.

    The encoder is used as it is and never trained, so that mapping other labels takes seconds
    (`remap.seconds`). Labels that no symbols can be made of are left out with the reason. With
    the members of its sweep as `siblings`, a latent is named only if other seeds found it too.
    """
    from eeg import scan_report

    settings = params.model_dump()
    fitted, named, excluded, seconds = scan_report.fit_scan(
        encoder,
        epochs,
        siblings=siblings or (),
        random_state=settings.pop("seed"),
        scratch=context.scratch,
        progress=context.progress,
        **settings,
    )
    scan_report.record(context, fitted, named, excluded, seconds)
    return fitted


class RelabelParams(Params):
    """The labels to put on."""

    labels: File
    """Table (.tsv or .csv) with the column participant_id; its other columns are the labels."""


@stage("eeg-relabel", version=1)
def relabel(epochs: Dataset, params: RelabelParams, context: Context) -> Dataset:
    """Put the labels of a table in the place of those that the trials bear.

    Participants that the table doesn't know, and those of the table without trials, are listed.
    """
    from eeg import parts, scan_report

    fresh = parts.relabel(epochs, params.labels)
    context.section("Labels", *scan_report.label_blocks(fresh))
    return fresh


class TrialsParams(Params):
    """Where the trials are that an encoder is to see."""

    encoder: Folder
    """The encoder's folder."""
    epochs: Folder | None = None
    """Trials (a dataset folder); by default the `epochs` beside the encoder in its run's folder."""
    files: Files | None = None
    """Recordings in their place; they go through the preprocessing of the encoder's training."""

    @model_validator(mode="after")
    def _one_source(self) -> TrialsParams:
        if self.files is not None and self.epochs is not None:
            raise ValueError("give either 'epochs' or 'files', not both")
        return self

    def reads(self) -> list[Path]:
        """Companions of the recordings, or the dataset beside the encoder."""
        from eeg.companions import companions
        from eeg.parts import trials_beside

        if self.files is None:
            return [] if self.epochs is not None else [trials_beside(self.encoder)]
        return [found for file in self.files for found in companions(file)]


@stage("eeg-trials", version=1)
def trials(params: TrialsParams, context: Context) -> Dataset:
    """Open the trials of an earlier run, or read recordings as an encoder's training data were."""
    from eeg import parts
    from neuro.data import as_signal, open_dataset

    encoder = parts.load_beta_vae(params.encoder)
    if params.files is not None:
        data = parts.read_trials(encoder, params.files)
    else:
        data = open_dataset(params.epochs or parts.trials_beside(params.encoder))
    # One trial says whether all fit: a wrong montage is refused before anything is computed.
    encoder.align(as_signal(data.isel(trial=slice(0, 1))), drop_extra=False)
    return data


class EncoderParams(Params):
    """Which encoder."""

    encoder: Folder
    """Folder of a beta-VAE, or of a SCAN, whose beta-VAE is then taken."""


@stage("eeg-encoder", version=1)
def encoder(params: EncoderParams, context: Context) -> Encoder:
    """Take an encoder from a folder as it is; its hash is in the report."""
    from eeg import parts
    from eeg.scan import encoder_hash
    from neuro.report import Text

    found = parts.load_beta_vae(params.encoder)
    context.section("Encoder", Text(f"From {params.encoder}, hash {encoder_hash(found)}."))
    return found


class TestParams(Params):
    """How SCAN is put to the test as it is."""

    labels: list[str] | None = None
    """Labels to score; by default those that SCAN knows."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of participants behind the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""


@stage("eeg-scan-test", version=2)
def scan_test(
    train: Dataset, test: Dataset, scan: Encoder, params: TestParams, context: Context
) -> Table:
    """Score a SCAN as it is on participants that neither it nor the encoder ever saw.

    Beside it stand discriminants of its latents and of window features, fitted to the training
    participants. Nothing is trained again; a participant known from the training is refused.
    Where the cohort is simulated, latents and recombined labels are held against its truth.
    """
    from eeg import parts, scan_scores

    parts.refuse_overlap(train, test)
    parts.refuse_known(scan, test)
    settings: dict[str, Any] = {"n_boot": params.n_boot, "random_state": params.seed}
    fitted = parts.expect_scan(scan)
    rows = scan_scores.score(fitted, train, test, labels=params.labels, **settings)
    context.scored(scan_scores.identity(test))
    table = scan_scores.record(context, rows)
    scan_scores.record_truth(context, fitted, train, test, n_boot=params.n_boot, seed=params.seed)
    return table


class ScanEvaluateParams(Params):
    """How the whole method is put to the test."""

    labels: list[str] | None = None
    """Labels to predict; by default those of the recordings, and the condition."""
    bins: int = Field(3, ge=2)
    """Classes of a continuous label."""
    windows: dict[str, tuple[Seconds, Seconds]] | None = None
    """Time windows of the hand-made features by name; by default the standard components."""
    groups: dict[str, list[str]] | None = None
    """Groups of channels that the hand-made features average; by default every channel alone."""
    regimes: list[Literal["single", "erp", "bootstrap", "single-to-erp"]] = Field(
        default_factory=list
    )
    """Ways of training to compare, each tested on single trials and on ERPs; takes a while."""
    n_splits: int = Field(5, ge=2)
    """Folds over participants; every participant is held out once in each repeat."""
    n_repeats: int = Field(1, ge=1)
    """Repeats with other folds and initial weights."""
    n_shuffles: int = Field(200, ge=20)
    """Label shuffles behind the chance band and the p-values."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of participants behind the intervals."""
    seed: int = 0
    """Seed of folds, shuffles and bootstrap."""


@stage("eeg-scan-evaluate", version=2)
def scan_evaluate(
    epochs: Dataset, encoder: Encoder, scan: Encoder, params: ScanEvaluateParams, context: Context
) -> Table:
    """Compare SCAN, latents and hand-made features on held-out participants, refitting in folds.

    Then the ERP that one trial gives, and where asked for every way of training against every way
    of testing. The encoder and SCAN lend their parameters; both, the autoencoder (beta = 0), the
    principal components and every statistic are refitted in each fold.
    """
    from eeg import parts, scan_scores

    return scan_scores.cross_validate(
        context, encoder, parts.expect_scan(scan), epochs, params.model_dump()
    )


class WithinEvaluateParams(Params):
    """What is predicted where runs and sessions are held out."""

    predict: list[Literal["condition", "subject"]] = Field(["condition", "subject"], min_length=1)
    """condition: of single trials, holding each run of a subject out of the subject's others.
    subject: whose a session is, holding each session out."""
    windows: dict[str, tuple[Seconds, Seconds]] | None = None
    """Time windows of the hand-made features by name; by default the standard components."""
    groups: dict[str, list[str]] | None = None
    """Groups of channels that the hand-made features average; by default every channel alone."""
    n_shuffles: int = Field(200, ge=20)
    """Label shuffles behind the chance band and the p-values."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples of runs (sessions) behind the intervals."""
    seed: int = 0
    """Seed of training, shuffles and bootstrap."""


@stage("eeg-within-evaluate", version=1)
def within_evaluate(
    epochs: Dataset,
    encoder: Encoder,
    params: WithinEvaluateParams,
    context: Context,
    scan: Encoder | None = None,
) -> Table:
    """Predict the condition in held-out runs of a subject, and the subject in held-out sessions.

    For recordings of few people with several runs or sessions each, named like
    sub-01_ses-01_run-01. The encoder (and SCAN) lend their parameters; they, the autoencoder
    (beta = 0), the principal components and every statistic are refitted in each fold. Intervals
    are over runs (sessions): they speak of these people, not of others.
    """
    from eeg import parts, within_report

    lent = None if scan is None else parts.expect_scan(scan)
    return within_report.evaluate(context, encoder, lent, epochs, params.model_dump())
