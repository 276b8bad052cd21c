"""Mel spectra and cepstra of series: what networks read of sound and other fast signals.

A trial ``(channel, time)`` becomes ``(coefficient, frame)``: short stretches under a Hann window,
their power in bands that are even on the mel scale, in dB, and on request its cosine transform.

References
----------
Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word
recognition" (IEEE ASSP 1980): the cepstra. O'Shaughnessy (1987): the mel scale used here,
``2595 log10(1 + f / 700)``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

__all__ = ["Spectra", "mel_bands", "spectra_dataset", "spectral_frames"]

_BLOCK = 256  # trials at once: the frames of all would be many times the signal


@dataclass(frozen=True)
class Spectra:
    """How a waveform becomes frames of coefficients.

    Attributes
    ----------
    kind : "cepstra" or "log-mel"
        Cepstra are the orthonormal cosine transform of the log-mel powers of a frame.
    window : float
        Of a frame, s.
    hop : float
        Between the beginnings of frames, s; without `n_frames`.
    n_frames : int or None
        Frames spread evenly over each series, so that time is a share of its length; None sets one
        every `hop`, and series of unequal length carry a mask.
    n_bands : int
        Of the mel scale, from 0 Hz to half the rate.
    n_coefficients : int
        Cepstra kept, from the 0th (loudness) on.
    centre : bool
        Take each coefficient's mean over the frames of its own series away: a constant colouring
        (a microphone, a voice's average) goes.
    floor : float
        Powers below it are raised to it, dB.
    """

    kind: Literal["cepstra", "log-mel"] = "cepstra"
    window: float = 0.032
    hop: float = 0.016
    n_frames: int | None = None
    n_bands: int = 26
    n_coefficients: int = 14
    centre: bool = False
    floor: float = -100.0

    def __post_init__(self) -> None:
        """Refuse frames that can't be made."""
        if self.kind not in ("cepstra", "log-mel"):
            raise InputError(f"kind is '{self.kind}', expected 'cepstra' or 'log-mel'")
        if self.window <= 0 or self.hop <= 0:
            raise InputError(f"window and hop are {self.window} and {self.hop} s, expected > 0")
        if self.n_frames is not None and self.n_frames < 1:
            raise InputError(f"n_frames is {self.n_frames}, expected 1 or more, or none")
        if not 1 <= self.n_coefficients <= self.n_bands:
            raise InputError(
                f"n_coefficients is {self.n_coefficients}, expected 1 to n_bands ({self.n_bands})"
            )

    @property
    def names(self) -> list[str]:
        """Of the coefficients: mel0 ..., or cep0 ..."""
        if self.kind == "log-mel":
            return [f"mel{k}" for k in range(self.n_bands)]
        return [f"cep{k}" for k in range(self.n_coefficients)]


def spectral_frames(
    X: NDArray[Any], sfreq: float, how: Spectra | None = None, length: ArrayLike | None = None
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the coefficients of every frame.

    Parameters
    ----------
    X : ndarray, shape (trial, channel, time)
        Padding, if any, is at the end.
    sfreq : float
        Hz.
    how : Spectra, optional
    length : array-like of int, shape (trial,), optional
        Real samples of each trial; all without it. A frame covers real samples alone; a series
        that is shorter than one window gives one frame, filled up with zeros.

    Returns
    -------
    frames : ndarray of float32, shape (trial, channel, coefficient, frame)
        In dB of the mean square of the signal in a band (a sine of amplitude a has
        ``10 log10(a^2 / 2)`` over its bands together); cepstra in dB times the norm of the
        transform. Zero beyond a series' frames.
    n_frames : ndarray of int, shape (trial,)

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(2, 1, 4000))
    >>> frames, n = spectral_frames(X, 8000.0, Spectra(), [4000, 2000])
    >>> frames.shape, n.tolist()
    ((2, 1, 14, 30), [30, 14])
    """
    how = how or Spectra()
    X = np.asarray(X)
    size, hop = round(how.window * sfreq), max(1, round(how.hop * sfreq))
    if X.ndim != 3 or size < 4:
        raise DataError(
            f"spectra take (trial, channel, time) and windows of four samples or more, found "
            f"{X.shape} and {size} samples ({how.window} s at {sfreq:g} Hz)"
        )
    real = np.full(len(X), X.shape[-1]) if length is None else np.asarray(length, dtype=np.intp)
    X = np.where(np.arange(X.shape[-1]) < real[:, None, None], X, 0)
    X = np.pad(X, ((0, 0), (0, 0), (0, max(0, size - X.shape[-1]))))
    starts, counts = _starts(np.maximum(real - size, 0), hop, how.n_frames)
    bands = mel_bands(size, sfreq, how.n_bands)
    blocks = [
        _coefficients(X[rows], starts[rows], bands, sfreq, how)
        for rows in (slice(k, k + _BLOCK) for k in range(0, len(X), _BLOCK))
    ]
    shape = (0, X.shape[1], len(how.names), starts.shape[1])
    frames = np.concatenate(blocks) if blocks else np.zeros(shape)
    inside = (np.arange(starts.shape[1]) < counts[:, None])[:, None, None]
    if how.centre:
        frames = frames - frames.mean(-1, keepdims=True, where=inside)
    return np.where(inside, frames, 0).astype(np.float32), counts


def _starts(
    last: NDArray[np.intp], hop: int, n_frames: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first sample of every frame ``(trial, frame)``, and how many are real."""
    if n_frames is not None:
        share = np.linspace(0, 1, n_frames)
        return np.rint(last[:, None] * share).astype(np.intp), np.full(len(last), n_frames)
    counts = 1 + last // hop
    starts = hop * np.arange(counts.max(initial=1))
    return np.minimum(starts, last[:, None] // hop * hop), counts


def _coefficients(
    X: NDArray[Any], starts: NDArray[np.intp], bands: NDArray[np.float64], sfreq: float,
    how: Spectra,
) -> NDArray[np.float64]:  # fmt: skip
    from scipy.fft import dct, rfft
    from scipy.signal import get_window

    size = round(how.window * sfreq)
    window = get_window("hann", size)
    at = (starts[..., None] + np.arange(size)).reshape(len(X), 1, -1)
    cut = np.take_along_axis(X, np.broadcast_to(at, (*X.shape[:2], at.shape[-1])), -1)
    cut = cut.reshape(*X.shape[:2], starts.shape[1], size)
    # One-sided: what lies at negative frequencies counts twice, but at 0 and half the rate.
    weight = np.full(bands.shape[1], 2.0)
    weight[0] = 1
    if size % 2 == 0:
        weight[-1] = 1
    power = weight * np.abs(rfft(cut * window, axis=-1)) ** 2 / (size * np.square(window).sum())
    level = 10 * np.log10(np.maximum(power @ bands.T, 10 ** (how.floor / 10)))
    if how.kind == "cepstra":
        level = np.asarray(dct(level, norm="ortho", axis=-1))[..., : how.n_coefficients]
    return np.asarray(np.moveaxis(level, -1, -2))


def mel_bands(size: int, sfreq: float, n_bands: int = 26) -> NDArray[np.float64]:
    """Return triangles ``(band, frequency)`` that are even on the mel scale.

    Parameters
    ----------
    size : int
        Samples of a window.
    sfreq : float
        Hz.
    n_bands : int

    Returns
    -------
    ndarray, shape (n_bands, size // 2 + 1)
        Weights from 0 to 1. A band that lies between two frequencies of the transform takes the
        nearest, so that none is empty.

    Examples
    --------
    >>> bands = mel_bands(256, 8000.0)
    >>> bands.shape, bool((bands.max(1) > 0).all())
    ((26, 129), True)
    """
    hertz = np.fft.rfftfreq(size, 1 / sfreq)
    top = 2595 * np.log10(1 + sfreq / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, n_bands + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bands = np.clip(
        np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, 1
    )
    for empty in np.flatnonzero(bands.max(1) == 0):
        bands[empty, np.abs(hertz - middle[empty]).argmin()] = 1
    return bands


def spectra_dataset(data: xr.Dataset, how: Spectra) -> xr.Dataset:
    """Put spectra in the place of waveforms.

    Parameters
    ----------
    data : Dataset
        ``signal (trial, channel, time)``, ``length (trial)`` or ``mask (trial, time)`` where
        lengths differ.
    how : Spectra

    Returns
    -------
    Dataset
        ``signal (trial, channel, time)`` of coefficients by frame: a channel is a coefficient
        (``x1 cep3`` where there are several waveforms). ``time`` is a frame's middle in s, or with
        `n_frames` its share of the series; ``length`` and ``mask`` count frames. Coordinates on
        ``trial`` stay, and ``preprocessing`` has the step, so that new waveforms are decoded alike.
    """
    signal, sfreq = data["signal"], float(data.attrs["sfreq"])
    length = _length(data)
    frames, counts = spectral_frames(signal.values, sfreq, how, length)
    n_trials, n_channels, _, n_frames = frames.shape
    given = map(str, signal["channel"].values)
    names = how.names if n_channels == 1 else [f"{c} {n}" for c in given for n in how.names]
    if how.n_frames is None:
        hop = max(1, round(how.hop * sfreq)) / sfreq
        rate, time = 1 / hop, how.window / 2 + hop * np.arange(n_frames)
    else:
        rate, time = float(n_frames), (np.arange(n_frames) + 0.5) / n_frames
    kept = {
        str(n): c.variable for n, c in data.coords.items() if c.dims == ("trial",) and n != "length"
    }
    coords: dict[str, Any] = {**kept, "channel": names, "time": time}
    if len(set(counts.tolist())) > 1:
        coords["length"] = ("trial", counts)
        coords["mask"] = (("trial", "time"), np.arange(n_frames) < counts[:, None])
    steps = json.loads(data.attrs.get("preprocessing") or "{}")
    steps["spectra"] = {**asdict(how), "sfreq": sfreq}
    attrs = {**data.attrs, "sfreq": rate, "units": "dB", "preprocessing": json.dumps(steps)}
    values = frames.reshape(n_trials, -1, n_frames)
    return xr.Dataset({"signal": (("trial", "channel", "time"), values)}, coords, attrs)


def _length(data: xr.Dataset) -> NDArray[np.intp] | None:
    if "length" in data.coords:
        return np.asarray(data["length"].values)
    return np.asarray(data["mask"].values.sum(1)) if "mask" in data.coords else None
