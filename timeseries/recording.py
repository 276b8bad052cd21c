"""One recording of a series: its samples, their rate, and what is known of whom and what."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DataError

__all__ = ["Recording", "Span", "fill_missing", "regular_rate"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """A stretch of one label: samples `start` to `stop` (not included)."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True)
class Recording:
    """Samples of several channels at one rate.

    Attributes
    ----------
    signal : ndarray of float32, shape (channel, time)
        NaN where a sample is missing.
    sfreq : float
        Hz.
    channels : tuple of str
    name : str
        Which recording it is.
    subject : str
        Who; the recording's name where it isn't known.
    spans : tuple of Span
        Labelled stretches; none means one stretch without a label.
    """

    signal: NDArray[np.float32]
    sfreq: float
    channels: tuple[str, ...]
    name: str
    subject: str = ""
    spans: tuple[Span, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse shapes that disagree, and spans outside the samples."""
        if self.signal.ndim != 2 or len(self.signal) != len(self.channels):
            raise DataError(
                f"{self.name}: the signal has the shape {self.signal.shape}, expected "
                f"({len(self.channels)}, time) for the channels {list(self.channels)}"
            )
        for span in self.spans:
            if not 0 <= span.start < span.stop <= self.signal.shape[1]:
                raise DataError(
                    f"{self.name}: the label '{span.label}' spans samples {span.start} to "
                    f"{span.stop}, the recording has {self.signal.shape[1]}"
                )


def regular_rate(times: NDArray[np.generic], where: str) -> float:
    """Return the rate of time stamps in Hz, or say why they have none.

    Parameters
    ----------
    times : ndarray, shape (time,)
        Seconds, or dates.
    where : str
        Named in errors.

    Raises
    ------
    DataError
        Where stamps are missing, repeat, run backwards or are not evenly spaced (to 5 %).

    Examples
    --------
    >>> regular_rate(np.arange(5) / 50, "a.csv")
    50.0
    >>> regular_rate(np.array([0.0, 0.1, 0.1]), "a.csv")
    Traceback (most recent call last):
    neuro.errors.DataError: a.csv: the time 0.1 occurs twice (row 3); drop one of the two rows
    """
    if times.dtype.kind == "M":
        if np.isnat(times).any():
            raise DataError(f"{where}: a time is missing; drop such rows")
        times = (times - times[0]) / np.timedelta64(1, "s")
    stamps = np.asarray(times, dtype=np.float64)
    if len(stamps) < 2 or not np.isfinite(stamps).all():
        raise DataError(f"{where}: expected two or more finite times, found {len(stamps)} rows")
    step = np.diff(stamps)
    if (step == 0).any():
        row = int(np.argmax(step == 0)) + 1
        raise DataError(
            f"{where}: the time {stamps[row]:g} occurs twice (row {row + 1}); drop one of the "
            "two rows"
        )
    if (step < 0).any():
        row = int(np.argmax(step < 0)) + 1
        raise DataError(
            f"{where}: time runs backwards at row {row + 1} ({stamps[row - 1]:g} to "
            f"{stamps[row]:g}); sort the rows, or tell recordings apart by an id column"
        )
    usual = float(np.median(step))
    if np.abs(step - usual).max() > 0.05 * usual:
        row = int(np.argmax(np.abs(step - usual))) + 1
        raise DataError(
            f"{where}: times are not evenly spaced (usually {usual:g} s, {step[row - 1]:g} s "
            f"before row {row + 1}); resample the file first"
        )
    return float(round(len(step) / float(stamps[-1] - stamps[0]), 6))


def fill_missing(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interpolate missing samples of each channel linearly; ends repeat the nearest sample.

    Parameters
    ----------
    signal : ndarray, shape (channel, time)
        A channel without any sample stays NaN.

    Examples
    --------
    >>> fill_missing(np.array([[0.0, np.nan, 2.0, np.nan]], np.float32)).tolist()
    [[0.0, 1.0, 2.0, 2.0]]
    """
    missing = ~np.isfinite(signal)
    if not missing.any():
        return signal
    filled, place = signal.copy(), np.arange(signal.shape[1])
    for row, gap in zip(filled, missing, strict=True):
        if gap.any() and not gap.all():
            row[gap] = np.interp(place[gap], place[~gap], row[~gap])
    return filled
