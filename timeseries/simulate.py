"""Series whose factors are known and independent, seen through domains that shift nuisances.

A series is a sum of components: a trend, a periodic wave, a burst, two events in one of two orders
and coloured noise. The wave's shape is the class. A subject (the domain) mixes and scales the
channels, shifts the pace of the wave and raises or lowers the noise: none of it tells the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import InputError

__all__ = ["FACTORS", "SHAPES", "SeriesStudy", "simulate_series"]

SHAPES = ("sine", "square", "saw", "triangle", "pulse", "doubled")
"""Shapes of the wave, in the order in which classes take them."""

FACTORS = {
    "shape": "discrete",
    "order": "discrete",
    "trend": "continuous",
    "frequency": "continuous",
    "amplitude": "continuous",
    "burst": "continuous",
    "colour": "continuous",
}
"""Kind of each factor by the name of its coordinate."""


@dataclass(frozen=True)
class SeriesStudy:
    """What is simulated.

    Attributes
    ----------
    n_subjects : int
        Domains; each has its own channels' mixing, gain, pace and noise.
    n_trials : int
        Series of a subject.
    n_classes : int
        Shapes of the wave, 2 to 6.
    n_channels, n_samples : int
        Size of a series.
    sfreq : float
        Hz.
    frequency : tuple of two floats
        Range of the wave's frequency, Hz, before a subject's pace.
    phase : float
        Waves begin anywhere within so many cycles; 0 leaves no factor of the wave unnamed.
    noise : float
        Standard deviation of the noise; that of a wave is about 1.
    shift : float
        How far subjects differ; 0 makes them alike.
    mixing : float
        How much of that their mixing of the components into channels differs; with 0 subjects
        differ in offset, gain, pace and noise alone.
    shortest : float
        Lengths are drawn from this share of `n_samples` up to all of it; 1 is equal length.
    missing : float
        Share of the samples that are NaN, in gaps of one to eight samples over all channels.
    levels : int
        Factors that are continuous take so many evenly spaced values, as those of image sets do,
        and are discrete then; 0 draws them anywhere.
    burst_width : float
        Of the burst's bell, as a share of the series.
    burst_carrier : float
        Of the wave under that bell, as a share of `sfreq`; 0 leaves the bell alone.
    """

    n_subjects: int = 6
    n_trials: int = 100
    n_classes: int = 4
    n_channels: int = 3
    n_samples: int = 128
    sfreq: float = 50.0
    frequency: tuple[float, float] = (1.5, 4.0)
    phase: float = 1.0
    noise: float = 0.2
    shift: float = 1.0
    mixing: float = 1.0
    shortest: float = 1.0
    missing: float = 0.0
    levels: int = 0
    burst_width: float = 0.05
    burst_carrier: float = 0.2

    def __post_init__(self) -> None:
        """Refuse studies that make no sense."""
        if min(self.n_subjects, self.n_trials, self.n_channels) < 1 or self.n_samples < 16:
            raise InputError(
                "n_subjects, n_trials and n_channels must be at least 1, n_samples at least 16"
            )
        if not 2 <= self.n_classes <= len(SHAPES):
            raise InputError(
                f"n_classes is {self.n_classes}, expected 2 to {len(SHAPES)}: {', '.join(SHAPES)}"
            )
        low, high = self.frequency
        if not 0 < low <= high < self.sfreq / 4:
            raise InputError(
                f"frequency is {self.frequency}, expected a range above 0 and below a quarter of "
                f"sfreq ({self.sfreq / 4} Hz)"
            )
        if not 0.25 <= self.shortest <= 1 or not 0 <= self.missing <= 0.5:
            raise InputError("shortest must lie in [0.25, 1] and missing in [0, 0.5]")
        if min(self.phase, self.noise, self.shift, self.mixing) < 0:
            raise InputError("phase, noise, shift and mixing must not be negative")
        if self.levels < 0 or self.levels == 1:
            raise InputError(f"levels is {self.levels}, expected 0 or at least 2")
        if not 0 < self.burst_width <= 0.5 or not 0 <= self.burst_carrier <= 0.5:
            raise InputError("burst_width must lie in (0, 0.5] and burst_carrier in [0, 0.5]")


def simulate_series(study: SeriesStudy, random_state: int = 0) -> xr.Dataset:
    """Simulate the series of a study.

    Parameters
    ----------
    study : SeriesStudy
    random_state : int
        Seed of subjects, factors and noise.

    Returns
    -------
    Dataset
        ``signal (trial, channel, time)`` float32; on ``trial`` the factors of `FACTORS`, whose
        attribute ``factor`` is "discrete" (with `levels` always) or "continuous", and
        ``subject``, ``domain`` (its number), ``class`` (the name of the shape) and ``recording``;
        ``length (trial)`` and ``mask (trial, time)`` where lengths differ. The attribute
        ``factors`` lists the factors' names.

    Examples
    --------
    >>> data = simulate_series(SeriesStudy(n_subjects=2, n_trials=5))
    >>> dict(data.sizes), data["frequency"].attrs["factor"]
    ({'trial': 10, 'channel': 3, 'time': 128}, 'continuous')
    """
    rng = np.random.default_rng(random_state)
    n = study.n_subjects * study.n_trials
    domain = np.repeat(np.arange(study.n_subjects), study.n_trials)
    factors = _draw_factors(study, n, rng)
    low = round(study.shortest * study.n_samples)
    length = rng.integers(low, study.n_samples + 1, n)
    pace = np.exp(0.15 * study.shift * rng.standard_normal(study.n_subjects))[domain]
    parts = _components(study, factors, length, pace, rng)
    signal = _as_seen(study, parts, domain, rng)
    inside = np.arange(study.n_samples) < length[:, None]
    signal *= inside[:, None]
    if study.missing:
        signal = np.where(_gaps(study, n, rng)[:, None] & inside[:, None], np.nan, signal)
    return _dataset(study, signal.astype(np.float32), factors, domain, length)


def _draw_factors(
    study: SeriesStudy, n: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """Draw every factor independently of all others and of the subject."""

    def within(low: float, high: float) -> NDArray[np.float64]:
        if not study.levels:
            return rng.uniform(low, high, n)
        return np.linspace(low, high, study.levels)[rng.integers(study.levels, size=n)]

    return {
        "shape": rng.integers(study.n_classes, size=n),
        "order": rng.integers(2, size=n),
        "trend": within(-1.5, 1.5),
        "frequency": within(*study.frequency),
        "amplitude": within(0.6, 1.8),
        "burst": within(0.1, 0.9),
        "colour": within(0.0, 2.0),
    }


def _components(
    study: SeriesStudy,
    factors: dict[str, NDArray[np.float64] | NDArray[np.int64]],
    length: NDArray[np.int64],
    pace: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return wave, trend, burst and events ``(trial, 4, time)`` and the noise behind them."""
    n = len(length)
    time = np.arange(study.n_samples) / study.sfreq
    place = np.arange(study.n_samples) / length[:, None]  # 0 to 1 within a series
    start = study.phase * rng.uniform(size=(n, 1))
    phase = start + (factors["frequency"] * pace)[:, None] * time
    wave = factors["amplitude"][:, None] * _waves(phase, factors["shape"])
    trend = factors["trend"][:, None] * (place - 0.5)
    burst = _bump(place - factors["burst"][:, None], study.burst_width) * np.cos(
        2 * np.pi * study.burst_carrier * study.sfreq * time
    )
    first = np.where(factors["order"] == 0, 0.3, 0.7)[:, None]
    events = _bump(place - first, 0.04) - _bump(place - (1 - first), 0.04)
    noise = study.noise * _coloured(n, study.n_channels, study.n_samples, factors["colour"], rng)
    return np.concatenate([np.stack([wave, trend, 2 * burst, 2 * events], axis=1), noise], axis=1)


def _bump(x: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * (x / width) ** 2)


def _waves(phase: NDArray[np.float64], shape: NDArray[Any]) -> NDArray[np.float64]:
    """Return waves of unit standard deviation by phase in cycles, shape ``(trial, time)``."""
    angle, turn = 2 * np.pi * phase, phase % 1.0
    kinds = [
        np.sqrt(2) * np.sin(angle),
        np.where(turn < 0.5, 1.0, -1.0),
        np.sqrt(12) * (turn - 0.5),
        np.sqrt(12) * (2 * np.abs(turn - 0.5) - 0.5),
        np.where(turn < 0.2, 2.0, -0.5),
        np.sin(angle) + np.sin(2 * angle),
    ]
    return np.choose(shape[:, None], kinds)


def _coloured(
    n: int, channels: int, samples: int, colour: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return noise of unit power whose spectrum falls as frequency to the minus `colour`."""
    frequency = np.fft.rfftfreq(samples)
    frequency[0] = np.inf  # no constant part
    gain = frequency ** (-colour[:, None] / 2)
    spectrum = np.fft.rfft(rng.standard_normal((n, channels, samples))) * gain[:, None]
    noise = np.fft.irfft(spectrum, samples)
    return np.asarray(noise / noise.std(axis=-1, keepdims=True))


def _as_seen(
    study: SeriesStudy,
    parts: NDArray[np.float64],
    domain: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Mix the components into the channels of each subject and add its noise and offset."""
    shape = (study.n_subjects, study.n_channels, 4)
    common = rng.uniform(0.4, 1.0, shape[1:]) * rng.choice([-1.0, 1.0], shape[1:])
    mixing = common + 0.35 * study.mixing * study.shift * rng.standard_normal(shape)
    offset = 0.5 * study.shift * rng.standard_normal(shape[:2])
    level = np.exp(0.3 * study.shift * rng.standard_normal(study.n_subjects))
    gain = np.exp(0.2 * study.shift * rng.standard_normal(study.n_subjects))
    clean = np.matmul(mixing[domain], parts[:, :4])
    noisy = clean + level[domain, None, None] * parts[:, 4:]
    return np.asarray(gain[domain, None, None] * noisy + offset[domain][:, :, None])


def _gaps(study: SeriesStudy, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return where samples are missing: runs of one to eight, about the asked share of all."""
    size = rng.integers(1, 9, (n, study.n_samples))
    starts = rng.uniform(size=size.shape) < study.missing / 4.5
    back = np.arange(8)
    reach = np.zeros((8, n, study.n_samples), dtype=bool)
    for k in back:
        reach[k, :, k:] = (starts & (size > k))[:, : study.n_samples - k]
    return np.asarray(reach.any(axis=0))


def _dataset(
    study: SeriesStudy,
    signal: NDArray[np.float32],
    factors: dict[str, NDArray[np.float64] | NDArray[np.int64]],
    domain: NDArray[np.int64],
    length: NDArray[np.int64],
) -> xr.Dataset:
    names = np.array([f"s{k + 1:02d}" for k in range(study.n_subjects)])
    kinds = dict.fromkeys(FACTORS, "discrete") if study.levels else FACTORS
    coords = {name: ("trial", value, {"factor": kinds[name]}) for name, value in factors.items()}
    data = xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": [f"x{k + 1}" for k in range(study.n_channels)],
            "time": np.arange(study.n_samples) / study.sfreq,
            **coords,
            "subject": ("trial", names[domain]),
            "domain": ("trial", domain),
            "class": ("trial", np.array(SHAPES)[factors["shape"]]),
            "recording": ("trial", [f"simulated-{k}" for k in range(len(signal))]),
        },
        attrs={
            "kind": "series", "source": "simulated", "sfreq": float(study.sfreq), "units": "a.u.",
            "factors": list(FACTORS),
        },
    )  # fmt: skip
    if (length != length[0]).any():
        mask = np.arange(study.n_samples) < length[:, None]
        data = data.assign_coords(length=("trial", length), mask=(("trial", "time"), mask))
    return data
