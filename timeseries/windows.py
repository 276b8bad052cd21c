"""Cut recordings into windows that never cross the border of a recording or a label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.data import stack_trials
from neuro.errors import DataError, InputError
from timeseries.recording import Recording, Span, fill_missing

__all__ = ["Windows", "cut_windows"]


@dataclass(frozen=True)
class Windows:
    """How recordings become trials.

    Attributes
    ----------
    length : float or None
        Of a window in s; None takes each labelled stretch (or recording) whole, zero-padded to
        the longest.
    overlap : float
        Share of a window that the next one repeats.
    cross : bool
        Let windows run over borders of labels (the label is then that of the window's middle).
    missing : "interpolate" or "refuse"
        Missing samples are filled in linearly, or any of them is an error. With interpolation a
        window in which a channel has no sample at all is left out, and counted.
    max_missing : float
        Windows that miss a larger share of their samples are left out, and counted.
    """

    length: float | None = None
    overlap: float = 0.5
    cross: bool = False
    missing: Literal["interpolate", "refuse"] = "interpolate"
    max_missing: float = 0.5

    def __post_init__(self) -> None:
        """Refuse windows that can't be cut."""
        if self.length is not None and self.length <= 0:
            raise InputError(f"the window's length is {self.length} s, expected more than 0")
        if not 0 <= self.overlap < 1 or not 0 <= self.max_missing < 1:
            raise InputError("overlap and max_missing must lie in [0, 1)")
        if self.missing not in ("interpolate", "refuse"):
            raise InputError(f"missing is '{self.missing}', expected 'interpolate' or 'refuse'")


def cut_windows(recordings: Sequence[Recording], windows: Windows) -> xr.Dataset:
    """Cut recordings into trials.

    Parameters
    ----------
    recordings : sequence of Recording
        Of the same channels and rate.
    windows : Windows

    Returns
    -------
    Dataset
        ``signal (trial, channel, time)`` with ``class`` ("" where there is none), ``subject``,
        ``domain``, ``recording``, ``start`` (sample) and ``missing`` (share) on ``trial``;
        ``length`` and ``mask`` where lengths differ. The attribute ``excluded`` counts the
        windows left out by reason, and ``preprocessing`` holds what `decode` replays.

    Raises
    ------
    DataError
        Where channels or rates differ, samples are missing that must not be, or nothing is left.
    """
    _refuse_mixed(recordings)
    trials: list[NDArray[np.float32]] = []
    rows: list[tuple[str, str, str, int, float]] = []
    excluded = {"too short": 0, "all missing": 0, "too much missing": 0}
    for recording in recordings:
        for start, stop, label in _places(recording, windows, excluded):
            piece = recording.signal[:, start:stop]
            absent = ~np.isfinite(piece)
            if absent.any() and windows.missing == "refuse":
                raise DataError(
                    f"{recording.name}: {int(absent.sum())} samples are missing between samples "
                    f"{start} and {stop}; set missing: interpolate, or mend the file"
                )
            reason = _reason(absent, windows)
            if reason:
                excluded[reason] += 1
                continue
            trials.append(fill_missing(piece))
            who = recording.subject or recording.name
            rows.append((label, who, recording.name, start, float(absent.mean())))
    if not trials:
        raise DataError(f"no window is left of {len(recordings)} recordings; left out: {excluded}")
    return _dataset(trials, rows, recordings[0], windows, excluded)


def _refuse_mixed(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise DataError("there is no recording")
    first = recordings[0]
    for other in recordings[1:]:
        if other.channels != first.channels:
            raise DataError(
                f"{other.name}: found {len(other.channels)} channels {list(other.channels)}, "
                f"expected {len(first.channels)} as in {first.name}: {list(first.channels)}"
            )
        if not np.isclose(other.sfreq, first.sfreq, rtol=1e-3):
            raise DataError(
                f"{other.name}: sfreq is {other.sfreq:g} Hz, expected {first.sfreq:g} Hz as in "
                f"{first.name}; resample one of them"
            )


def _places(
    recording: Recording, windows: Windows, excluded: dict[str, int]
) -> list[tuple[int, int, str]]:
    """Return start, stop and label of every window."""
    n_samples = recording.signal.shape[1]
    whole = (Span(0, n_samples, ""),)
    if windows.length is None:
        return [(span.start, span.stop, span.label) for span in recording.spans or whole]
    size = max(1, round(windows.length * recording.sfreq))
    step = max(1, round(size * (1 - windows.overlap)))
    found = []
    for span in whole if windows.cross else recording.spans or whole:
        starts = range(span.start, span.stop - size + 1, step)
        excluded["too short"] += not starts
        for start in starts:
            label = _label_at(recording, start + size // 2) if windows.cross else span.label
            found.append((start, start + size, label))
    return found


def _label_at(recording: Recording, sample: int) -> str:
    inside = (span.label for span in recording.spans if span.start <= sample < span.stop)
    return next(inside, "")


def _reason(absent: NDArray[np.bool_], windows: Windows) -> str | None:
    if absent.all(axis=1).any():
        return "all missing"
    return "too much missing" if absent.mean() > windows.max_missing else None


def _dataset(
    trials: list[NDArray[np.float32]],
    rows: list[tuple[str, str, str, int, float]],
    first: Recording,
    windows: Windows,
    excluded: dict[str, int],
) -> xr.Dataset:
    label, who, recording, start, missing = (np.array(column) for column in zip(*rows, strict=True))
    coords = {
        "subject": who, "recording": recording, "start": start, "missing": missing,
        "class": label, "domain": np.unique(who, return_inverse=True)[1],
    }  # fmt: skip
    data = stack_trials(trials, sfreq=first.sfreq, channels=first.channels)
    data = data.assign_coords({name: ("trial", values) for name, values in coords.items()})
    history = json.dumps({"windows": asdict(windows)})
    return data.assign_attrs(kind="series", preprocessing=history, excluded=excluded)
