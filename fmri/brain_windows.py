"""Unlabelled runs to windows for pretraining; runs that are tested on are left out by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.clean import clean_signals
from neuro.errors import DataError, InputError

__all__ = ["cut_windows"]


def cut_windows(
    runs: Sequence[xr.Dataset],
    window: int,
    *,
    stride: int | None = None,
    exclude: Iterable[str] = (),
    short: str = "error",
    clean: bool = True,
    confounds: Sequence[Any] | None = None,
    high_pass: float | None = None,
) -> xr.Dataset:
    """Cut runs into windows of equal length.

    Parameters
    ----------
    runs : sequence of Dataset
        ``signal (time, parcel)`` of `fmri.parcel_series`, with ``subject``, ``session`` and
        ``run`` in the attributes.
    window : int
        Volumes.
    stride : int, optional
        From one window to the next; by default `window`. The last one ends with the run.
    exclude : iterable of str
        Runs that are tested on: ``subject``, ``subject/run`` or ``subject/session/run``, as the
        attributes name them. Each must name a run.
    short : {"error", "skip"}
        Runs that are shorter than a window are an error, or left out and named in
        ``attrs["short_runs"]``.
    clean : bool
        Detrend and z-score every parcel in the run, as `fmri.cut_blocks` does.
    confounds : sequence, optional
        Of each run, ``(time, confound)`` or None: taken out in the same step. Motion is slow and
        in all parcels, so that a pretext task learns it before anything else.
    high_pass : float, optional
        Hz.

    Returns
    -------
    Dataset
        ``signal (trial, parcel, time)`` with ``subject``, ``session``, ``run`` and ``onset`` (s).

    Raises
    ------
    DataError
        Where a run is too short, holds NaN, has other parcels than the first, or none is left.
    InputError
        Where a name in `exclude` is no run's.
    """
    if window < 2 or (stride is not None and stride < 1) or short not in ("error", "skip"):
        raise InputError(
            f"window {window}, stride {stride}, short {short!r}: expected a window of at least 2 "
            "volumes, a stride of at least 1, and error or skip"
        )
    if confounds is not None and len(confounds) != len(runs):
        raise InputError(f"there are {len(confounds)} confounds for {len(runs)} runs")
    noise = dict(zip(map(id, runs), confounds or [None] * len(runs), strict=True))
    kept = _without(runs, list(exclude))
    too_short = [run for run in kept if run.sizes["time"] < window]
    if too_short and short == "error":
        run = too_short[0]
        raise DataError(
            f"{_name(run)}: has {run.sizes['time']} volumes, shorter than the window of {window}; "
            f"take a shorter window, or leave short runs out ({len(too_short)} of {len(kept)} are)"
        )
    kept = [run for run in kept if run.sizes["time"] >= window]
    if not kept:
        raise DataError("no run is left to pretrain on: all are excluded or too short")
    _check_alike(kept)
    parts, marks = [], []
    for run in kept:
        values, t_r = run["signal"].values, float(run.attrs["t_r"])
        if clean:
            values = clean_signals(
                values, t_r=t_r, detrend=True, high_pass=high_pass, confounds=noise[id(run)]
            )
        n, step = len(values), stride or window
        starts = np.unique([*range(0, n - window + 1, step), n - window])
        parts.append(np.stack([values[s : s + window].T for s in starts]).astype(np.float32))
        marks += [(*_parts_of(run), start * t_r) for start in starts.tolist()]
    return _windows(kept[0], np.concatenate(parts), marks).assign_attrs(
        short_runs=[_name(run) for run in too_short]
    )


# Inside ---------------------------------------------------------------------------------------


def _parts_of(run: xr.Dataset) -> tuple[str, str, str]:
    subject, session, name = (str(run.attrs.get(k) or "") for k in ("subject", "session", "run"))
    return subject, session, name


def _name(run: xr.Dataset) -> str:
    return "/".join(part for part in _parts_of(run) if part) or "a run"


def _without(runs: Sequence[xr.Dataset], exclude: list[str]) -> list[xr.Dataset]:
    """Leave runs out by their subject, subject/run or subject/session/run."""

    def names(run: xr.Dataset) -> set[str]:
        subject, _, name = _parts_of(run)
        return {subject, f"{subject}/{name}", _name(run)}

    known = set().union(*(names(run) for run in runs)) if runs else set()
    unknown = sorted(set(exclude) - known)
    if unknown:
        raise InputError(
            f"exclude names {', '.join(unknown[:5])}, but the runs are "
            f"{', '.join(_name(run) for run in list(runs)[:8])}; a wrong name would leak test data"
        )
    return [run for run in runs if not names(run) & set(exclude)]


def _check_alike(runs: list[xr.Dataset]) -> None:
    first = runs[0]
    for run in runs:
        same = run["parcel"].values.tolist() == first["parcel"].values.tolist()
        if not same or not np.isclose(run.attrs["t_r"], first.attrs["t_r"], rtol=0.01):
            raise DataError(
                f"{_name(run)} and {_name(first)} differ in their parcels "
                f"({run.sizes['parcel']}, {first.sizes['parcel']}) or repetition time "
                f"({run.attrs['t_r']}, {first.attrs['t_r']} s); pretrain on runs of one atlas"
            )
        if not np.isfinite(run["signal"].values).all():
            raise DataError(f"{_name(run)}: holds NaN or infinity; interpolate or drop the run")


def _windows(like: xr.Dataset, signal: NDArray[np.float32], marks: list[Any]) -> xr.Dataset:
    t_r, size = float(like.attrs["t_r"]), signal.shape[2]
    coords: dict[str, Any] = {str(k): c for k, c in like.coords.items() if c.dims == ("parcel",)}
    coords["time"] = ("time", np.arange(size) * t_r)
    columns = list(zip(*marks, strict=True))
    for name, column in zip(("subject", "session", "run", "onset"), columns, strict=True):
        coords[name] = ("trial", np.array(column))
    attrs = {"kind": "parcels", "units": like.attrs.get("units", "a.u."), "t_r": t_r}
    return xr.Dataset({"signal": (("trial", "parcel", "time"), signal)}, coords, attrs)
