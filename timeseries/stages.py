"""The stages of RF captures and time series, declared to the runner; no logic, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from neuro.stage import Context, Dataset, Encoder, Files, Params, Table, stage


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Simulation(_Part):
    """Devices, channels and bursts whose truth is known; see `timeseries.rf.simulate.Study`."""

    n_known: int = Field(30, ge=2)
    """Devices that are trained on."""
    n_validation: int = Field(10, ge=2)
    """Devices that thresholds are set on."""
    n_unknown: int = Field(24, ge=2)
    """Devices that nothing has seen before the test."""
    n_train: int = Field(40, ge=1)
    """Training bursts of a device in each session."""
    n_enrol: int = Field(5, ge=1)
    """Bursts of a device for enrolment."""
    n_test: int = Field(20, ge=1)
    """Bursts of a device in each test."""
    n_sessions: int = Field(2, ge=1)
    """Training sessions; a later one, after drift, follows."""
    waveform: Literal["zigbee", "oqpsk", "bpsk", "qpsk", "ook", "fsk"] = "zigbee"
    """What is sent: the preamble of ZigBee, or random content."""
    n_samples: int = Field(512, ge=64)
    """Of a burst."""
    sfreq: float = Field(4e6, gt=0)
    """Hz."""
    train_channel: str = "los"
    """los, rician, exponential, tdl-a, tdl-b or tdl-c."""
    test_channels: tuple[str, ...] = ("tdl-a", "tdl-b", "tdl-c", "exponential")
    """Channels that only the test has."""
    delay_spread: tuple[float, float] = (3e-8, 1e-7)
    """Range of their root mean square delay spread, s."""
    timing: float = Field(1.0, ge=0)
    """Bursts begin anywhere within so many samples."""
    snr: tuple[float, float] = (15.0, 30.0)
    """Range of the signal-to-noise ratio, dB."""
    strength: float = Field(1.0, gt=0)
    """Spread of the devices' imperfections."""
    cfo_sd: float = Field(10e3, ge=0)
    """Spread of their carrier frequencies, Hz."""
    drift: float = Field(0.1, ge=0)
    """Relative drift of a device between sessions."""
    cfo_drift: float = Field(2e3, ge=0)
    """Drift of the carrier between sessions, Hz."""


class Detection(_Part):
    """How bursts are told from noise; see `timeseries.rf.bursts.Detector`."""

    window: float = Field(1e-4, gt=0)
    """Over which the power is averaged, s."""
    on: float = Field(10.0, gt=0)
    """A burst begins at so many dB above the floor ..."""
    off: float = Field(6.0, gt=0)
    """... and ends below so many."""
    gap: float = Field(1e-3, ge=0)
    """Silences up to so long do not end a burst, s."""
    shortest: float = Field(0.0, ge=0)
    """Shorter bursts are left out, s."""
    quantile: float = Field(0.1, ge=0, le=1)
    """Of window powers: the noise floor."""


class BurstsParams(Params):
    """Which captures, and what is done to their bursts."""

    files: Files | None = None
    """SigMF, raw IQ, .npy, HDF5 or WAV; null is the simulator."""
    simulate: Simulation = Simulation()
    """The simulated study, with files null."""
    capture_sfreq: float | None = Field(None, gt=0)
    """Sampling rate of the files in Hz, where they don't tell it."""
    centre: float | None = None
    """Centre frequency of the files in Hz, where they don't tell it."""
    datatype: str | None = None
    """SigMF's name of the type of raw samples, where the suffix doesn't tell it."""
    pattern: str | None = None
    """Regular expression on file names with the groups device, session; by default the labels of
    the annotations name devices."""
    bursts: Literal["auto", "annotations", "energy", "windows"] = "auto"
    """Where bursts come from: the file's annotations (auto: where there are some), their energy,
    or windows that follow one another (a transmitter that never pauses)."""
    detect: Detection = Detection()
    """Of bursts by energy."""
    n_samples: int = Field(512, ge=16)
    """Length of a record."""
    shift: float = 0.0
    """Move the band down by so many Hz."""
    bandwidth: float | None = Field(None, gt=0)
    """Keep a band of so many Hz."""
    sfreq: float | None = Field(None, gt=0)
    """Resample to so many Hz."""
    remove_dc: bool = False
    """Take the mean off each record."""
    preamble: Literal["zigbee"] | None = None
    """Align bursts with a known preamble."""
    keep_cfo: bool = True
    """With a preamble, align the start alone: the carrier's offset tells devices apart."""
    normalise: bool = True
    """Bring records to unit power."""
    caveats: tuple[str, ...] = ()
    """What a reader must know of these captures; it stands above every section of the report. A
    README.md beside them is shown as well."""
    seed: int = 0
    """Of the simulator."""

    def reads(self) -> list[Path]:
        """Samples beside SigMF metadata, and the README of the captures."""
        from timeseries.companions import data_files, readmes

        files = self.files or []
        return [*data_files(files), *readmes(files)]


@stage("rf-bursts", version=2)
def bursts(params: BurstsParams, context: Context) -> Dataset:
    """Read captures, find their bursts and prepare them; or simulate a study of devices."""
    from timeseries.rf import study

    return study.bursts(params.model_dump(), context)


class SplitParams(Params):
    """What is held out; without effect on simulated bursts, which are split already."""

    by: Literal["capture", "time"] = "capture"
    """Whole captures, or the last stretch of each (where a device has one capture only)."""
    n_unknown: int = Field(0, ge=0)
    """Devices kept out of training for the open-set test."""
    n_validation: int = Field(0, ge=0)
    """Devices kept out of training that thresholds are set on."""
    test_size: float = Field(0.3, gt=0, lt=1)
    """Share of a device's captures for the test."""
    enrol_size: float = Field(0.2, gt=0, lt=1)
    """Share of a device's captures for enrolment."""
    guard: float = Field(0.0, ge=0)
    """Left out between the parts of a capture, s."""
    seed: int = 0
    """Of which devices and captures are held out."""


@stage("rf-split", version=1)
def split(bursts: Dataset, params: SplitParams, context: Context) -> Dataset:
    """Say of every burst whether it serves for training, enrolment or test."""
    from timeseries.rf import study

    return study.split(bursts, params.model_dump(), context)


class DRRFFParams(Params):
    """The fingerprint network and its training; null takes what the preset has."""

    preset: Literal["small", "paper"] = "small"
    """Sizes: for a CPU, or those of the paper."""
    disentangle: bool = True
    """False trains the extractor alone (ML-RFF)."""
    augmentation: Literal[
        "none", "awgn", "fir", "awgn_fir", "channel", "awgn_channel", "rician", "exponential",
        "tdl-a", "tdl-b", "tdl-c",
    ] = "none"  # fmt: skip
    """Disturb training bursts by noise, by random filters, or both; or send each through a channel
    drawn anew from all profiles or from one. A channel that is trained on is no unseen one."""
    lam: float = Field(0.5, ge=0, lt=1)
    """Share of shuffled signals in the extractor's loss."""
    alpha: float | None = Field(None, ge=0)
    """Weight of the term that takes the device out of backgrounds; the preset's where null."""
    epsilon: float = Field(0.0, ge=0)
    """Below so much knowledge of the device that term rests."""
    beta: float | None = Field(None, ge=0)
    """Weight of the fingerprint that made signals must have; the preset's where null."""
    n_skips: int | None = Field(None, ge=0, le=4)
    """Ours: skip connections of the background's network. With none (small) the device does not
    pass, nor does content: set 4 for bursts that are not one preamble."""
    carrier: bool | None = None
    """Ours: backgrounds lose the carrier, made signals get that of the fingerprint; the preset's
    where null."""
    cross: float = Field(0.0, ge=0)
    """Ours: weight of the fingerprint that a signal made of two bursts must have."""
    fresh: float = Field(0.0, ge=0)
    """Ours: weight of a second classifier that hunts for the device in backgrounds."""
    scale: float = Field(10.0, gt=0)
    """Of the cosine softmax."""
    margin: float = Field(0.0, ge=0)
    """Of the cosine softmax, rad."""
    n_latents: int | None = Field(None, ge=1)
    """Size of the fingerprint."""
    width: int | None = Field(None, ge=1)
    """Channels of the extractor's first layer."""
    unet_width: int | None = Field(None, ge=1)
    """Channels of the first level of the two U-Nets."""
    max_epochs: int | None = Field(None, ge=0)
    """Of training."""
    batch_size: int | None = Field(None, ge=2)
    """Bursts in a batch."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam."""
    qg_learning_rate: float | None = Field(None, gt=0)
    """For the networks of background and signal; the preset's where null."""
    device: str = "auto"
    """Where to train; auto takes a GPU where there is one."""
    seed: int = 0
    """Of weights, order and noise."""


@stage("rf-drrff", version=2)
def drrff(bursts: Dataset, params: DRRFFParams, context: Context) -> Encoder:
    """Train a fingerprint extractor on the training bursts of known devices.

    With `disentangle` the background of a burst is pulled apart from its fingerprint (DR-RFF).
    """
    from timeseries.rf import study

    return study.train(bursts, params.model_dump(), context)


class EvaluateParams(Params):
    """How fingerprints are scored."""

    n_boot: int = Field(1000, ge=100)
    """Bootstrap samples of devices behind the intervals."""
    seed: int = 0
    """Of the bootstrap."""


@stage("rf-evaluate", version=2)
def evaluate(
    bursts: Dataset, models: list[Encoder], params: EvaluateParams, context: Context
) -> Table:
    """Score extractors: closed set, open set, verification, rejection of unknown devices.

    Crossed over the channel (as trained, unseen), the devices (known, unknown) and the session
    (same, later), beside hand-made features.
    """
    from timeseries.rf import study

    return study.score(bursts, models, params.model_dump(), context)


@stage("rf-enrol", version=2)
def enrol(bursts: Dataset, encoder: Encoder, params: Params, context: Context) -> Dataset:
    """Enrol the known devices, with a threshold set on validation devices.

    For ``neuro decode ENCODER FILES --enrolled``.
    """
    from timeseries.rf import study

    return study.enrolled(bursts, encoder, context)


@stage("rf-study", version=1)
def study(
    bursts: list[Dataset],
    models: list[Encoder],
    params: EvaluateParams,
    context: Context,
    probes: list[Table] | None = None,
) -> Table:
    """Score extractors as rf-evaluate does on several simulated worlds, and pool over them.

    `bursts` is a sweep over seeds, `models` were trained with each: ${bursts}. Intervals are over
    seeds and the devices of each; differences between models are paired.
    """
    from timeseries.rf import study as logic

    return logic.pooled(bursts, models, probes or [], params.model_dump(), context)


class ProbeParams(Params):
    """Of the fresh classifiers."""

    max_epochs: int = Field(30, ge=0)
    """Of their training."""
    seed: int = 0
    """Of their weights."""


@stage("rf-probe", version=1)
def probe(bursts: Dataset, encoder: Encoder, params: ProbeParams, context: Context) -> Table:
    """Probe for what leaks: the device from backgrounds, the channel from fingerprints; swap."""
    from timeseries.rf import study

    return study.probed(bursts, encoder, params.model_dump(), context)
