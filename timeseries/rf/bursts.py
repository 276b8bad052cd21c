"""Find bursts by their energy, in one pass over captures of any length.

The power is averaged in windows. A burst begins where it rises above the upper threshold and
lasts as long as it stays above the lower one; short gaps are bridged. Thresholds lie above the
noise floor, a low quantile of window powers from all over the capture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuro.errors import DataError, InputError
from timeseries.read import Capture, forget_pages

__all__ = ["Detector", "find_bursts", "window_powers"]

_BLOCK = 1 << 21  # samples read at once
_PROBES = 64  # pieces of the capture that tell the floor
_PROBE_WINDOWS = 256


@dataclass(frozen=True)
class Detector:
    """How bursts are told from noise.

    Attributes
    ----------
    window : float
        Over which the power is averaged, s.
    on, off : float
        A burst begins at so many dB above the floor and ends below so many.
    gap : float
        Silences up to so long do not end a burst, s.
    shortest : float
        Shorter bursts are left out, s.
    quantile : float
        Of the window powers: the noise floor. Raise it where most of a capture is silence, lower
        it where most is bursts.
    """

    window: float = 1e-4
    on: float = 10.0
    off: float = 6.0
    gap: float = 1e-3
    shortest: float = 0.0
    quantile: float = 0.1

    def __post_init__(self) -> None:
        """Refuse thresholds in the wrong order."""
        if not 0 < self.off <= self.on:
            raise InputError(f"on is {self.on} dB and off {self.off}; expected 0 < off <= on")
        if self.window <= 0 or self.gap < 0 or not 0 <= self.quantile <= 1:
            raise InputError("window must be above 0, gap not below, quantile between 0 and 1")


def find_bursts(capture: Capture, detector: Detector | None = None) -> pd.DataFrame:
    """Find the bursts of a capture.

    Parameters
    ----------
    capture : Capture
    detector : Detector, optional

    Returns
    -------
    DataFrame
        ``start`` and ``stop`` in samples, ``snr`` in dB (power above the floor over the floor).
        Memory does not depend on the capture's length, but for its bursts.

    Raises
    ------
    DataError
        Where the capture is all zero, or has no burst.
    """
    detector = detector or Detector()
    window = max(1, round(detector.window * capture.sfreq))
    if len(capture) < window:
        raise DataError(
            f"{capture.path}: {len(capture)} samples are less than one window of {window}"
        )
    floor = _floor(capture, window, detector.quantile)
    runs = _Runs(floor, detector, max(0, round(detector.gap * capture.sfreq / window)))
    step = max(1, _BLOCK // window) * window
    whole = len(capture) // window * window
    for start in range(0, whole, step):
        runs.add(window_powers(capture, start, min(start + step, whole), window))
        forget_pages(capture.values)
    found = runs.table(window, len(capture))
    found = found[found["stop"] - found["start"] >= detector.shortest * capture.sfreq]
    if not len(found):
        raise DataError(
            f"{capture.path}: no burst rises {detector.on:g} dB above the floor of "
            f"{10 * np.log10(floor):.1f} dB; lower `on`, or look at the capture"
        )
    return found.reset_index(drop=True)


def window_powers(capture: Capture, start: int, stop: int, window: int) -> NDArray[np.float32]:
    """Return the mean power of windows that follow one another.

    Parameters
    ----------
    capture : Capture
    start, stop : int
        Samples, a whole number of windows apart.
    window : int
        Samples.

    Returns
    -------
    ndarray of float32, shape ((stop - start) / window,)
    """
    raw = np.asarray(capture.values[start:stop])
    kind = capture.datatype
    if raw.dtype.itemsize == 1:  # a table of 256 squares is quicker than arithmetic
        values = np.arange(256, dtype=np.uint8).view(raw.dtype).astype(np.float32)
        squares = ((values - np.float32(kind.offset)) / np.float32(kind.scale)) ** 2
        power = squares[raw.view(np.uint8)]
    elif np.iscomplexobj(raw):
        power = np.square(raw.real) + np.square(raw.imag)
    else:
        power = ((raw - np.float32(kind.offset)) / np.float32(kind.scale)).astype(np.float32) ** 2
    per_sample = 2 if power.ndim == 2 else 1
    found: NDArray[np.float32] = power.reshape(-1, window * per_sample).sum(1, dtype=np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{capture.path}: samples {start} to {stop} hold NaN or infinity")
    return found / np.float32(window)


def _floor(capture: Capture, window: int, quantile: float) -> float:
    n = len(capture) // window
    width = min(_PROBE_WINDOWS, n)
    starts = np.unique(np.linspace(0, n - width, min(_PROBES, -(-n // width))).astype(int))
    powers = np.concatenate(
        [window_powers(capture, s * window, (s + width) * window, window) for s in starts]
    )
    forget_pages(capture.values)
    if not powers.any():
        raise DataError(f"{capture.path}: all samples are zero")
    # A gated receiver writes exact zeros between bursts; they are no noise.
    return float(np.quantile(powers[powers > 0], quantile))


class _Runs:
    """Runs of loud windows, carried over from block to block."""

    def __init__(self, floor: float, detector: Detector, gap: int) -> None:
        self.floor, self.gap = floor, gap
        self.on, self.off = (floor * 10 ** (d / 10) for d in (detector.on, detector.off))
        self.windows = 0
        self.rows: list[list[float]] = []  # first window, past the last, peak, sum of powers

    def add(self, powers: NDArray[np.float32]) -> None:
        loud = powers > self.off
        edges = np.flatnonzero(np.diff(loud, prepend=False, append=False)).reshape(-1, 2)
        if len(edges):
            # Runs of one block are joined across short gaps all at once, then with the last one.
            new = np.concatenate([[True], edges[1:, 0] - edges[:-1, 1] > self.gap])
            first = np.flatnonzero(new)
            start, stop = edges[first, 0], edges[np.append(first[1:], len(edges)) - 1, 1]
            pieces = np.stack([start, stop], axis=1).ravel()[
                : -1 if stop[-1] == len(powers) else None
            ]
            peak = np.maximum.reduceat(powers, pieces)[::2]
            total = np.add.reduceat(powers, pieces, dtype=np.float64)[::2]
            rows = np.stack([start + self.windows, stop + self.windows, peak, total], axis=1)
            self._join(rows.tolist())
        self.windows += len(powers)

    def _join(self, rows: list[list[float]]) -> None:
        if self.rows and rows[0][0] - self.rows[-1][1] <= self.gap:
            last, (_, stop, peak, total) = self.rows[-1], rows[0]
            last[1:] = [stop, max(last[2], peak), last[3] + total]
            rows = rows[1:]
        if rows:
            self._drop_quiet()
            self.rows += [row for row in rows[:-1] if row[2] >= self.on]
            self.rows.append(rows[-1])  # the next block may go on with it

    def _drop_quiet(self) -> None:
        """Forget the last run where it is over and never rose above the upper threshold."""
        if self.rows and self.rows[-1][2] < self.on:
            self.rows.pop()

    def table(self, window: int, n_samples: int) -> pd.DataFrame:
        self._drop_quiet()
        rows = np.array(self.rows, float).reshape(-1, 4)
        length = np.maximum(rows[:, 1] - rows[:, 0], 1)
        excess = np.maximum(rows[:, 3] / length - self.floor, 1e-30)
        return pd.DataFrame({
            "start": (rows[:, 0] * window).astype(int),
            "stop": np.minimum(rows[:, 1] * window, n_samples).astype(int),
            "snr": 10 * np.log10(excess / self.floor),
        })  # fmt: skip
