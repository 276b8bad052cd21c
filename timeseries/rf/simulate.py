"""A study of radio devices whose truth is known: who sent what, through which channel.

Devices are *known* (trained on), *validation* (thresholds are set on them) or *unknown* (never
seen). Training bursts come through the training channel alone; test bursts come through it and
through channels that were never seen, in a training session and in a later one, in which the
devices have drifted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import InputError
from timeseries.rf.channels import Taps, add_noise, draw_taps, pass_through, profile
from timeseries.rf.devices import Devices, draw_devices, drifted, transmit
from timeseries.rf.waveforms import waveforms

__all__ = ["GROUPS", "Study", "burst_dataset", "simulate_bursts"]

GROUPS = ("known", "validation", "unknown")
_BLOCK = 4096  # bursts simulated at once


@dataclass(frozen=True)
class Study:
    """What is simulated.

    Attributes
    ----------
    n_known, n_validation, n_unknown : int
        Devices.
    n_train, n_enrol, n_test : int
        Bursts of a device: for training in each session, for enrolment, and in each test.
    n_sessions : int
        Training sessions; one later session follows.
    waveform : str
        See `timeseries.rf.waveforms.waveforms`.
    n_samples : int
        Of a burst.
    sfreq : float
        Hz.
    train_channel : str
        Of training, enrolment and validation bursts.
    test_channels : tuple of str
        Unseen ones; each burst of a test draws one of them.
    delay_spread : tuple of two floats
        Range of the root mean square delay spread, s; drawn for each burst.
    timing : float
        Bursts begin anywhere within so many samples: a receiver's clock runs on its own.
    snr : tuple of two floats
        Range of the signal-to-noise ratio, dB; drawn for each burst.
    strength, cfo_sd : float
        See `timeseries.rf.devices.draw_devices`.
    drift, cfo_drift : float
        Relative drift of a session, and that of the carrier in Hz.
    """

    n_known: int = 30
    n_validation: int = 10
    n_unknown: int = 24
    n_train: int = 40
    n_enrol: int = 5
    n_test: int = 20
    n_sessions: int = 2
    waveform: str = "zigbee"
    n_samples: int = 512
    sfreq: float = 4e6
    train_channel: str = "los"
    test_channels: tuple[str, ...] = ("tdl-a", "tdl-b", "tdl-c", "exponential")
    delay_spread: tuple[float, float] = (3e-8, 1e-7)
    timing: float = 1.0
    snr: tuple[float, float] = (15.0, 30.0)
    strength: float = 1.0
    cfo_sd: float = 10e3
    drift: float = 0.1
    cfo_drift: float = 2e3

    def __post_init__(self) -> None:
        """Refuse studies that can't be split."""
        if self.n_known < 2 or self.n_unknown < 2 or self.n_validation < 2:
            raise InputError("a study needs at least two known, validation and unknown devices")
        if min(self.n_train, self.n_enrol, self.n_test, self.n_sessions) < 1:
            raise InputError("n_train, n_enrol, n_test and n_sessions must be at least 1")


def simulate_bursts(study: Study, random_state: int = 0) -> xr.Dataset:
    """Simulate the bursts of a study as the receiver sees them.

    Parameters
    ----------
    study : Study
    random_state : int
        Seed of devices, content, channels and noise.

    Returns
    -------
    Dataset
        ``signal (trial, iq, time)`` float32; on ``trial``: ``device``, ``group`` (known,
        validation, unknown), ``part`` (train, enrol, test), ``session``, ``later`` (drifted
        since training), ``capture``, ``channel``, ``unseen`` (channel statistics not in the
        training), ``snr`` (dB), ``cfo`` (the true one, Hz).

    Examples
    --------
    >>> small = Study(n_known=2, n_validation=2, n_unknown=2, n_train=1, n_enrol=1, n_test=1)
    >>> simulate_bursts(small).sizes["trial"]
    34
    """
    rng = np.random.default_rng(random_state)
    n = study.n_known + study.n_validation + study.n_unknown
    first = draw_devices(n, rng, strength=study.strength, cfo_sd=study.cfo_sd)
    sessions = [first] + [
        drifted(first, rng, cfo_sd=study.cfo_drift, share=study.drift)
        for _ in range(study.n_sessions)
    ]
    table = _plan(study, rng)
    signal = np.empty((len(table), 2, study.n_samples), np.float32)
    for start in range(0, len(table), _BLOCK):
        rows = table.iloc[start : start + _BLOCK]
        signal[start : start + _BLOCK] = _received(rows, sessions, study, rng)
    table["cfo"] = [sessions[s].cfo[d] for s, d in zip(table["number"], table["row"], strict=True)]
    attrs = {
        "sfreq": study.sfreq, "units": "a.u.", "waveform": study.waveform, "kind": "rf",
        "source": "simulated", "preprocessing": json.dumps([]),
    }  # fmt: skip
    return burst_dataset(signal, table.drop(columns=["row", "number"]), attrs)


def burst_dataset(
    signal: NDArray[np.float32], table: pd.DataFrame, attrs: dict[str, object]
) -> xr.Dataset:
    """Put bursts and what is known of them into a dataset.

    Parameters
    ----------
    signal : ndarray of float32, shape (trial, 2, time)
    table : DataFrame
        One row for each burst; columns become coordinates.
    attrs : dict
        At least ``sfreq`` in Hz.

    Returns
    -------
    Dataset
    """
    coords = {
        name: ("trial", column.to_numpy() if column.dtype.kind in "bif" else column.to_numpy(str))
        for name, column in table.items()
    }
    axes = {"iq": ["i", "q"], "time": np.arange(signal.shape[2]) / float(str(attrs["sfreq"]))}
    return xr.Dataset({"signal": (("trial", "iq", "time"), signal)}, {**coords, **axes}, attrs)


def _plan(study: Study, rng: np.random.Generator) -> pd.DataFrame:
    """List every burst: its device, session, part and channel."""
    sizes = (study.n_known, study.n_validation, study.n_unknown)
    group = np.repeat(GROUPS, sizes)
    blocks = []

    def add(devices: NDArray[np.intp], part: str, n: int, session: int, unseen: bool) -> None:
        row = np.repeat(devices, n)
        channel = rng.choice(study.test_channels, len(row)) if unseen else study.train_channel
        blocks.append(pd.DataFrame({
            "row": row, "number": session, "device": [f"device-{d:03d}" for d in row],
            "group": group[row], "part": part, "session": f"session-{session + 1}",
            "later": session == study.n_sessions, "channel": channel, "unseen": unseen,
            "capture": [f"{part}-{session + 1}-{'ab'[unseen]}-{d:03d}" for d in row],
        }))  # fmt: skip

    everyone, last = np.arange(sum(sizes)), study.n_sessions - 1
    for session in range(study.n_sessions):
        add(everyone[: study.n_known], "train", study.n_train, session, False)
    add(everyone, "enrol", study.n_enrol, last, False)
    for session in (last, study.n_sessions):
        for unseen in (False, True):
            add(everyone, "test", study.n_test, session, unseen)
    table = pd.concat(blocks, ignore_index=True)
    table["snr"] = rng.uniform(*study.snr, len(table))
    return table


def _received(
    rows: pd.DataFrame, sessions: Sequence[Devices], study: Study, rng: np.random.Generator
) -> NDArray[np.float32]:
    sent = waveforms(study.waveform, len(rows), study.n_samples, study.sfreq, rng)
    number, row = rows["number"].to_numpy(), rows["row"].to_numpy()
    channel = rows["channel"].to_numpy().astype(str)
    found = np.empty_like(sent)
    for session in np.unique(number):
        own = number == session
        found[own] = transmit(sent[own], sessions[session][row[own]], study.sfreq, rng)
    for kind in np.unique(channel):
        own = np.flatnonzero(channel == kind)
        found[own] = _faded(found[own], kind, study, rng)
    found = add_noise(found, rows["snr"].to_numpy(), rng)
    return np.stack([found.real, found.imag], axis=1).astype(np.float32)


def _faded(
    x: NDArray[np.complex64], kind: str, study: Study, rng: np.random.Generator
) -> NDArray[np.complex64]:
    taps = draw_taps(profile(kind, 1.0), len(x), rng)
    spread = rng.uniform(*study.delay_spread, (len(x), 1))
    start = rng.uniform(0, study.timing / study.sfreq, (len(x), 1))
    faded: NDArray[np.complex64] = pass_through(
        x, Taps(taps.gains, taps.delays * spread + start), study.sfreq
    )
    return faded
