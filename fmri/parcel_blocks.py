"""Parcel series to trials: blocks cut by events, cleaned in their run, padded with a mask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.clean import clean_signals
from fmri.tables import read_events, stimulus_column
from neuro.errors import DataError, InputError

__all__ = ["cut_blocks", "join_blocks"]

Floats = NDArray[np.float32]


def cut_blocks(
    series: xr.Dataset,
    events: Any,
    *,
    tmin: float = 0.0,
    tmax: float = 10.0,
    until: str = "onset",
    n_times: int | None = None,
    stimulus: str | None = None,
    clean: bool = True,
    confounds: Any = None,
    high_pass: float | None = None,
) -> xr.Dataset:
    """Cut a run into one block of volumes for each event.

    Parameters
    ----------
    series : Dataset
        ``signal (time, parcel)`` of `fmri.parcel_series`.
    events : path or DataFrame
        ``onset``, ``duration`` in s and what was shown.
    tmin, tmax : float
        From onset + `tmin` (included) to `until` + `tmax` (not included), s.
    until : {"onset", "offset"}
        What the end of a block is counted from.
    n_times : int, optional
        Length that blocks are padded to with 0; by default that of the longest.
    stimulus : str, optional
        Column of the events; by default the first of stimulus, stim_file, ..., trial_type.
    clean : bool
        Detrend and z-score every parcel in the run first.
    confounds : array_like of shape (time, confound), optional
        Taken out in the same step.
    high_pass : float, optional
        Hz.

    Returns
    -------
    Dataset
        ``signal (trial, parcel, time)`` float32, ``mask (trial, time)`` true where there are data,
        ``length (trial)``, and ``item``, ``category``, ``run``, ``subject``, ``onset`` on trial.

    Raises
    ------
    DataError
        Where the run is shorter than a block, or blocks are longer than `n_times`.
    """
    if until not in ("onset", "offset"):
        raise InputError(f"until is '{until}'; expected onset or offset")
    values, t_r = series["signal"].values, float(series.attrs["t_r"])
    where = f"run {series.attrs.get('run', '')} ({series.attrs.get('source', 'series')})"
    table = read_events(events, len(values), t_r, name=f"events of {where}")
    column = stimulus_column(table, stimulus, f"events of {where}")
    table = table[table[column].notna()].reset_index(drop=True)
    spans = _spans(table, tmin, tmax, until, t_r)
    _check(spans, len(values), t_r, where, n_times)
    if clean:
        values = clean_signals(
            values, t_r=t_r, detrend=True, standardize="zscore_sample", high_pass=high_pass,
            confounds=confounds,
        )  # fmt: skip
    lengths = np.minimum(spans[:, 1], len(values)) - spans[:, 0]
    size = n_times or int(lengths.max())
    signal = np.zeros((len(spans), values.shape[1], size), np.float32)
    for row, (start, _) in enumerate(spans):
        signal[row, :, : lengths[row]] = values[start : start + lengths[row]].T
    return _dataset(series, table, column, signal, lengths, t_r)


def join_blocks(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the blocks of runs together: parcels that all have, times padded to the longest.

    Raises
    ------
    DataError
        Where no parcel is in all runs.
    """
    if not parts:
        raise InputError("no run was given")
    common = [set(part["parcel"].values.tolist()) for part in parts]
    kept = [name for name in parts[0]["parcel"].values.tolist() if all(name in c for c in common)]
    if not kept:
        raise DataError(f"no parcel is in all of the {len(parts)} runs; are they of one atlas?")
    size = max(part.sizes["time"] for part in parts)
    numbers = [np.searchsorted(part["parcel"].values, kept, sorter=_order(part)) for part in parts]
    same = [
        part.isel(parcel=_order(part)[rows]).pad(
            time=(0, size - part.sizes["time"]), constant_values={"signal": 0, "mask": False}
        ).assign_coords(time=np.arange(size) * float(part.attrs["t_r"]))
        for part, rows in zip(parts, numbers, strict=True)
    ]  # fmt: skip
    found = xr.concat(
        same, "trial", data_vars="minimal", coords="minimal", compat="override",
        join="override", combine_attrs="override",
    )  # fmt: skip
    missing = sorted({name for part in parts for name in part.attrs.get("missing_parcels", [])})
    return found.assign_attrs(missing_parcels=missing)


# Inside ---------------------------------------------------------------------------------------


def _order(part: xr.Dataset) -> NDArray[np.intp]:
    return np.argsort(part["parcel"].values)


def _spans(
    table: pd.DataFrame, tmin: float, tmax: float, until: str, t_r: float
) -> NDArray[np.int64]:
    """First volume of each block and the one behind its last."""
    onset = table["onset"].to_numpy(float)
    end = onset + (table["duration"].to_numpy(float) if until == "offset" else 0.0)
    # A volume taken a hair before the border for its rounding counts as on it.
    first = np.ceil(np.round((onset + tmin) / t_r, 6))
    last = np.ceil(np.round((end + tmax) / t_r, 6))
    return np.column_stack([first, last]).astype(np.int64)


def _check(spans: NDArray[np.int64], n: int, t_r: float, where: str, n_times: int | None) -> None:
    if not len(spans):
        raise DataError(f"{where}: has no event that says what was shown")
    window = int((spans[:, 1] - spans[:, 0]).max())
    if window > n:
        raise DataError(
            f"{where}: has {n} volumes ({n * t_r:g} s), shorter than the window of {window} "
            f"volumes ({window * t_r:g} s); shorten tmin to tmax, or leave the run out"
        )
    bad = (spans[:, 0] < 0) | (spans[:, 0] >= n) | (spans[:, 1] <= spans[:, 0])
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{where}: the block of event {row + 1} is volumes {spans[row, 0]} to {spans[row, 1]} "
            f"of a run of {n}; nothing of it was recorded. Check tmin, tmax and the onsets"
        )
    if n_times is not None and window > n_times:
        raise DataError(
            f"{where}: blocks are up to {window} volumes long, more than n_times = {n_times}"
        )


def _dataset(
    series: xr.Dataset,
    table: pd.DataFrame,
    column: str,
    signal: Floats,
    lengths: NDArray[np.int64],
    t_r: float,
) -> xr.Dataset:
    n, _, size = signal.shape
    names = table[column].astype(str).to_numpy().astype(str)
    kind = next((c for c in ("category", "trial_type") if c in table), column)
    coords: dict[str, Any] = {
        str(k): c for k, c in series.coords.items() if c.dims == ("parcel",)
    } | {
        "time": ("time", np.arange(size) * t_r), "item": ("trial", names),
        "category": ("trial", table[kind].astype(str).to_numpy().astype(str)),
        "onset": ("trial", table["onset"].to_numpy(float)),
        "length": ("trial", lengths),
        **{key: ("trial", np.full(n, str(series.attrs.get(key, "")))) for key in
           ("subject", "session", "run")},
    }  # fmt: skip
    attrs = dict(series.attrs) | {"kind": "parcels", "preprocessing": json.dumps(["blocks"])}
    mask = np.arange(size) < lengths[:, None]
    return xr.Dataset(
        {"signal": (("trial", "parcel", "time"), signal), "mask": (("trial", "time"), mask)},
        coords, attrs,
    )  # fmt: skip
