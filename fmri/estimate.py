"""One run to single-trial responses, by the method that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.clean import clean_signals, sample_indices
from fmri.design import Design, trial_design
from fmri.glm import lsa, lss, window_mean
from fmri.ridge import choose_fraction, ridge
from neuro.errors import DataError, InputError

__all__ = ["METHODS", "Response", "estimate", "with_fractions"]

METHODS = ("window", "lsa", "lss", "ridge", "glmsingle")
OTHERS = ("one", "condition")


@dataclass(frozen=True)
class Response:
    """How a trial's response is estimated.

    Attributes
    ----------
    method : {"window", "lsa", "lss", "ridge", "glmsingle"}
    tmin, tmax : float
        Window: from onset + `tmin` (included) to `until` + `tmax` (not included), s.
    until : {"onset", "offset"}
        Window: what its end is counted from.
    detrend : bool
        Window: take a linear trend out.
    standardize : {"zscore_sample", "psc", None}
        Window: of the series.
    high_pass : float or None
        Hz; cosines in the cleaning or the model. None leaves a linear trend.
    low_pass : float or None
        Hz; window only.
    hrf_model : str
        Models: "spm", "glover" or what else nilearn has of one regressor.
    others : {"one", "condition"}
        LSS: the other trials as one regressor, or as one for each trial_type.
    scale : {"psc", None}
        Models: betas in percent of each voxel's mean, or in the units of the scanner.
    slice_time_ref : float
        When in a repetition a volume is taken, 0 to 1.
    fracs : float or sequence of float
        Ridge: one fraction for all voxels, or several of which every voxel gets the one that
        repeats of training stimuli choose.
    glmsingle : mapping
        Options of ``GLM_single``.
    """

    method: str = "window"
    tmin: float = 4.0
    tmax: float = 10.0
    until: str = "onset"
    detrend: bool = True
    standardize: str | None = "zscore_sample"
    high_pass: float | None = 0.01
    low_pass: float | None = None
    hrf_model: str = "spm"
    others: str = "one"
    scale: str | None = "psc"
    slice_time_ref: float = 0.0
    fracs: float | Sequence[float] = 0.5
    glmsingle: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("others", OTHERS), ("scale", ("psc", None))):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(map(str, known))}"
                )

    @property
    def units(self) -> str:
        """Units of the betas."""
        if self.method == "window":
            return {"zscore_sample": "z", "psc": "psc"}.get(str(self.standardize), "a.u.")
        return "psc" if self.method == "glmsingle" or self.scale == "psc" else "beta"


def estimate(
    series: xr.Dataset, events: pd.DataFrame, confounds: Any, sample: Any, how: Response
) -> xr.Dataset:
    """Return ``signal (trial, voxel)`` of a run; the series may be overwritten."""
    values, t_r = series["signal"].values, float(series.attrs["t_r"])
    n = len(values)
    trials = events[events["is_trial"]]
    found: dict[str, Any] = {}
    if how.method == "window":
        cleaned = clean_signals(
            values, t_r=t_r, detrend=how.detrend, standardize=how.standardize,
            high_pass=how.high_pass, low_pass=how.low_pass, confounds=confounds,
            sample_mask=sample, copy=False,
        )  # fmt: skip
        times = np.asarray((sample_indices(n, sample) + how.slice_time_ref) * t_r, float)
        signal = window_mean(cleaned, times, trials, tmin=how.tmin, tmax=how.tmax, until=how.until)
    else:
        design = trial_design(
            events, n, t_r, is_trial=events["is_trial"], hrf_model=how.hrf_model,
            high_pass=how.high_pass, confounds=confounds, sample_mask=sample,
            slice_time_ref=how.slice_time_ref,
        )  # fmt: skip
        kept = values[design.kept] if len(design.kept) < n else values
        signal = _model(kept, design, trials, how, found)
    parts = {"signal": (("trial", "voxel"), signal), **found}
    coords = {str(k): c for k, c in series.coords.items() if c.dims == ("voxel",)}
    return xr.Dataset(parts, coords, series.attrs)


def _model(
    values: NDArray[Any], design: Design, trials: pd.DataFrame, how: Response, found: dict[str, Any]
) -> NDArray[Any]:
    factor = _factor(values, how.scale)
    if how.method == "lsa":
        return lsa(values, design.trials, design.nuisance) * factor
    if how.method == "lss":
        kinds = None
        if how.others == "condition":
            if "trial_type" not in trials:
                raise DataError("LSS by condition needs the column trial_type in the events")
            kinds = trials["trial_type"].astype(str).to_numpy()
        return lss(values, design.trials, design.nuisance, kinds) * factor
    fracs = np.atleast_1d(np.asarray(how.fracs, float)).tolist()
    if len(fracs) == 1:
        return ridge(values, design, fracs)[0] * factor
    shrunk = ridge(values, design, fracs) * factor
    found["shrunk"] = (("fraction", "trial", "voxel"), shrunk)
    return ridge(values, design, [1.0])[0] * factor


def _factor(values: NDArray[Any], scale: str | None) -> NDArray[np.float32]:
    """Return what turns betas into percent of the mean of each voxel."""
    if scale is None:
        return np.ones(values.shape[1], np.float32)
    mean = values.mean(axis=0, dtype=np.float64)
    sd = values.std(axis=0)
    if np.median(np.abs(mean)) < np.median(sd):
        raise DataError(
            "the series have no mean to be a percentage of (they were demeaned before); pass "
            "scale=None"
        )
    safe = np.abs(mean) > 1e-6 * np.median(np.abs(mean))
    return np.where(safe, 100 / np.where(safe, np.abs(mean), 1), 0).astype(np.float32)


def with_fractions(
    parts: list[xr.Dataset], names: NDArray[Any], train_stimuli: ArrayLike | None, how: Response
) -> list[xr.Dataset]:
    """Give every voxel the fraction that repeats of training stimuli choose."""
    if train_stimuli is None:
        raise InputError(
            "several fracs are chosen from by repeats of the training stimuli; name those with "
            "train_stimuli, or give one number for fracs"
        )
    train = np.isin(names.astype(str), np.asarray(train_stimuli).astype(str))
    shrunk = np.concatenate([p["shrunk"].values for p in parts], axis=1)
    plain = np.concatenate([p["signal"].values for p in parts])
    best = choose_fraction(shrunk, plain, names, train)
    fracs = np.asarray(how.fracs, float)[best]
    out = []
    for part in parts:
        signal = np.take_along_axis(part["shrunk"].values, best[None, None], axis=0)[0]
        chosen = part.drop_vars("shrunk").assign(signal=(("trial", "voxel"), signal))
        out.append(chosen.assign_coords(fraction=("voxel", fracs)))
    return out
