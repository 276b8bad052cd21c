"""From captures to a dataset of bursts: cut, filtered, resampled, centred, of unit power.

Every step is optional and recorded, so that an encoder replays it on new captures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError, InputError
from timeseries.read import Capture
from timeseries.rf.bursts import Detector, find_bursts
from timeseries.rf.pulses import pulse_widths
from timeseries.rf.simulate import burst_dataset
from timeseries.rf.sync import synchronise
from timeseries.rf.waveforms import zigbee_preamble

__all__ = [
    "Steps",
    "capture_bursts",
    "cut_bursts",
    "prepare",
    "prepare_dataset",
    "read_bursts",
    "unit_power",
]

Complex = NDArray[np.complex64]
_CLIPPED = 0.01  # share of samples at full scale from which a burst counts as clipped


@dataclass(frozen=True)
class Steps:
    """What is done to a burst, in this order.

    Attributes
    ----------
    n_samples : int
        Length of a record, at the final rate.
    shift : float
        The band is moved down by so many Hz.
    bandwidth : float or None
        Width of the band that is kept, Hz; None keeps all that the rate allows.
    sfreq : float or None
        Resample to so many Hz; None keeps the rate.
    remove_dc : bool
        Take the mean off each record.
    preamble : {None, "zigbee"}
        Align start, carrier and phase with a known preamble.
    keep_cfo : bool
        With a preamble: align the start only and keep the carrier's offset and phase, which tell
        devices apart.
    normalise : bool
        Divide each record by its root mean square.
    """

    n_samples: int = 512
    shift: float = 0.0
    bandwidth: float | None = None
    sfreq: float | None = None
    remove_dc: bool = False
    preamble: str | None = None
    keep_cfo: bool = True
    normalise: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        if self.n_samples < 16:
            raise InputError(f"n_samples is {self.n_samples}; expected at least 16")
        if self.preamble not in (None, "zigbee"):
            raise InputError(f"preamble {self.preamble!r} is not known; expected zigbee or null")


def capture_bursts(
    capture: Capture, detector: Detector | None, source: str = "auto", width: int = 512
) -> pd.DataFrame:
    """List the bursts of a capture: those that it marks, or those that stand out.

    Parameters
    ----------
    capture : Capture
    detector : Detector or None
    source : {"auto", "annotations", "energy", "windows"}
        ``auto`` takes the annotations where there are some; ``windows`` cuts the whole capture
        into windows that follow one another.
    width : int
        Of such a window, samples.

    Returns
    -------
    DataFrame
        ``start``, ``stop``, ``label``, ``snr`` (dB; NaN for annotations).
    """
    marked = len(capture.annotations) > 0
    if source == "annotations" and not marked:
        raise DataError(f"{capture.path}: has no annotations; use bursts: energy")
    if source == "annotations" or (source == "auto" and marked):
        return capture.annotations.assign(snr=np.nan)
    if source == "windows":
        start = np.arange(0, len(capture) - width + 1, width)
        return pd.DataFrame({"start": start, "stop": start + width, "label": "", "snr": np.nan})
    return find_bursts(capture, detector).assign(label="")


def cut_bursts(
    capture: Capture, bursts: pd.DataFrame, steps: Steps
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Cut bursts and prepare them.

    Parameters
    ----------
    capture : Capture
    bursts : DataFrame
        ``start`` and ``stop``.
    steps : Steps

    Returns
    -------
    signal : ndarray of float32, shape (trial, 2, n_samples)
        Bursts that are shorter are followed by zeros.
    found : dict
        ``length`` (samples that are no padding), ``clipped``, ``cfo`` (Hz, NaN without
        preamble), each of shape (trial,).
    """
    ratio = 1.0 if steps.sfreq is None else capture.sfreq / steps.sfreq
    extra = 64 if steps.preamble else 0  # the preamble may begin a little later
    wanted = int(np.ceil((steps.n_samples + extra) * ratio)) + (32 if ratio != 1 else 0)
    start = bursts["start"].to_numpy(int)
    count = np.minimum(bursts["stop"].to_numpy(int) - start, wanted)
    raw = np.zeros((len(start), wanted), np.complex64)
    for row, (first, n) in enumerate(zip(start, count, strict=True)):
        piece = capture.samples(first, first + n)
        raw[row, : len(piece)] = piece
    peak = np.maximum(np.abs(raw.real), np.abs(raw.imag))
    clipped = (peak >= 0.999).sum(1) > _CLIPPED * np.maximum(count, 1)
    if not np.abs(raw).any(axis=1).all():
        dead = int(np.flatnonzero(~np.abs(raw).any(axis=1))[0])
        raise DataError(f"{capture.path}: the burst at sample {start[dead]} is all zero")
    signal, cfo = prepare(raw, capture.sfreq, steps)
    length = np.minimum(np.floor(count / ratio), steps.n_samples).astype(int)
    return signal, {"length": length, "clipped": clipped, "cfo": cfo}


def prepare(
    x: Complex, sfreq: float, steps: Steps
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Apply the steps to bursts that were cut.

    Parameters
    ----------
    x : ndarray of complex64, shape (burst, time)
    sfreq : float
        Hz.
    steps : Steps

    Returns
    -------
    signal : ndarray of float32, shape (burst, 2, n_samples)
    cfo : ndarray, shape (burst,)
        Hz; NaN without a preamble.
    """
    x, rate = _band(x, sfreq, steps)
    cfo = np.full(len(x), np.nan)
    if steps.preamble:
        x, cfo = _aligned(x, rate, steps)
    x = _as_long(x, steps.n_samples)
    if steps.remove_dc:
        on = np.abs(x) > 0
        mean = x.sum(1, keepdims=True) / np.maximum(on.sum(1, keepdims=True), 1)
        x = np.where(on, x - mean, 0)
    if steps.normalise:
        x = unit_power(x)
    return np.stack([x.real, x.imag], 1).astype(np.float32), cfo


def unit_power(x: Complex) -> Complex:
    """Divide bursts by the root mean square of what is not padding."""
    power = np.abs(x) ** 2
    on = np.maximum((power > 0).sum(-1, keepdims=True), 1)
    scale = np.sqrt(power.sum(-1, keepdims=True) / on)
    return (x / np.maximum(scale, 1e-20)).astype(np.complex64)


def _band(x: Complex, sfreq: float, steps: Steps) -> tuple[Complex, float]:
    from scipy import signal

    if steps.shift:
        turn = np.exp(-2j * np.pi * steps.shift / sfreq * np.arange(x.shape[1]))
        x = (x * turn).astype(np.complex64)
    if steps.bandwidth is not None and steps.bandwidth < sfreq:
        taps = signal.firwin(65, steps.bandwidth / 2, fs=sfreq)
        x = signal.fftconvolve(x, taps[None], mode="same", axes=1).astype(np.complex64)
    if steps.sfreq is None or steps.sfreq == sfreq:
        return x, sfreq
    up, down = round(steps.sfreq), round(sfreq)
    common = gcd(up, down)
    if max(up, down) // common > 5000:
        raise InputError(
            f"{sfreq:g} Hz to {steps.sfreq:g} Hz is no simple ratio; choose another rate"
        )
    moved = signal.resample_poly(x, up // common, down // common, axis=1)
    return np.asarray(moved, np.complex64), float(steps.sfreq)


def _aligned(x: Complex, rate: float, steps: Steps) -> tuple[Complex, NDArray[np.float64]]:
    template = zigbee_preamble(rate)
    period = round(16e-6 * rate)
    aligned, found = synchronise(x, template, period, rate, smallest=0.3)
    if not steps.keep_cfo:
        return aligned, found.cfo
    place = found.start[:, None] + np.arange(x.shape[1])
    rows = np.arange(len(x))[:, None]
    inside = place < x.shape[1]
    moved = np.where(inside, x[rows, np.minimum(place, x.shape[1] - 1)], 0)
    return moved.astype(np.complex64), found.cfo


def _as_long(x: Complex, n: int) -> Complex:
    return x[:, :n] if x.shape[1] >= n else np.pad(x, ((0, 0), (0, n - x.shape[1])))


def prepare_dataset(data: xr.Dataset, steps: Steps) -> xr.Dataset:
    """Apply the steps to bursts that are a dataset already (simulated ones).

    Parameters
    ----------
    data : Dataset
        ``signal (trial, iq, time)``, ``sfreq`` in the attributes.
    steps : Steps

    Returns
    -------
    Dataset
    """
    values = data["signal"].values
    x = (values[:, 0] + 1j * values[:, 1]).astype(np.complex64)
    signal, cfo = prepare(x, float(data.attrs["sfreq"]), steps)
    table = pd.DataFrame({
        str(k): c.values for k, c in data.coords.items() if c.dims == ("trial",)
    })  # fmt: skip
    if steps.preamble:
        table["cfo_estimate"] = cfo
    attrs = _attrs(float(data.attrs["sfreq"]), steps, None, "auto")
    return burst_dataset(signal, table, {**data.attrs, **attrs})


def _attrs(sfreq: float, steps: Steps, detector: Detector | None, bursts: str) -> dict[str, Any]:
    history = {
        "steps": asdict(steps), "detector": None if detector is None else asdict(detector),
        "bursts": bursts,
    }  # fmt: skip
    return {
        "sfreq": steps.sfreq or sfreq,
        "units": "rms" if steps.normalise else "a.u.",
        "kind": "rf",
        "preprocessing": json.dumps(history),
    }


def read_bursts(
    captures: Sequence[Capture],
    labels: Sequence[dict[str, str]],
    steps: Steps,
    *,
    detector: Detector | None = None,
    bursts: str = "auto",
    progress: Callable[..., Iterator[Any]] | None = None,
) -> xr.Dataset:
    """Turn captures into one dataset of bursts.

    Parameters
    ----------
    captures : sequence of Capture
        Of one rate, unless `steps` resamples.
    labels : sequence of dict
        Of each capture: ``device`` ("" takes the burst's annotation), ``capture``, ``session``.
    steps : Steps
    detector : Detector, optional
    bursts : {"auto", "annotations", "energy", "windows"}
    progress : callable, optional

    Returns
    -------
    Dataset
        ``signal (trial, iq, time)``; on ``trial`` the labels, ``start`` (sample in the capture),
        ``length``, ``snr``, ``cfo``, ``clipped``; ``widths (trial, width)``, what the pulses and
        gaps of the whole burst are like (`timeseries.rf.pulses`).

    Raises
    ------
    InputError
        Where rates differ and nothing resamples.
    """
    rates = sorted({capture.sfreq for capture in captures})
    if len(rates) > 1 and steps.sfreq is None:
        raise InputError(
            f"captures have the rates {', '.join(f'{r:g}' for r in rates)} Hz; set sfreq to "
            "resample them to one"
        )
    signals, tables, widths = [], [], []
    pairs = list(zip(captures, labels, strict=True))
    for capture, label in progress(pairs, "captures", len(pairs)) if progress else pairs:
        ratio = 1.0 if steps.sfreq is None else capture.sfreq / steps.sfreq
        width = int(np.ceil(steps.n_samples * ratio))
        found = capture_bursts(capture, detector, bursts, width)
        signal, more = cut_bursts(capture, found, steps)
        table = pd.DataFrame({"start": found["start"].to_numpy(int), "snr": found["snr"], **more})
        device = label.get("device", "")
        table["device"] = device or found["label"].astype(str).to_numpy()
        for name in ("capture", "session"):
            table[name] = label.get(name, "")
        signals.append(signal)
        tables.append(table)
        widths.append(pulse_widths(capture, found))
    everything = pd.concat(tables, ignore_index=True)
    attrs = {**_attrs(rates[0], steps, detector, bursts), "capture_sfreq": rates[0]}
    data = burst_dataset(np.concatenate(signals), everything, attrs)
    return data.assign_coords(widths=(("trial", "width"), np.concatenate(widths)))
