"""From runs and events to single-trial responses.

Five methods. ``window``: the cleaned series averaged over a window after each onset. ``lsa``: all
trials in one linear model. ``lss``: each trial against the sum of the others. ``ridge``: LSA with
fractional ridge regression. ``glmsingle``: GLMsingle, where it is installed. Fast designs need
LSS, ridge or GLMsingle; blocks are best served by a window.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from fmri.derivatives import read_confounds
from fmri.design import trial_design
from fmri.estimate import METHODS, Response, estimate, with_fractions
from fmri.glm import lsa, lsa_projector, lss, lss_projector
from fmri.glmsingle import glmsingle_betas
from fmri.parcels import parcellate
from fmri.read import read_bold
from fmri.reliability import ncsnr, noise_ceiling, select_voxels, split_half
from fmri.sessions import apply_sessions, standardize_sessions
from fmri.tables import as_names, entities, read_events, read_table, stimulus_column
from fmri.trials import join_trials, with_labels
from fmri.voxels import common_voxels
from neuro.errors import DataError, InputError

__all__ = [
    "METHODS",
    "Response",
    "apply_sessions",
    "betas",
    "lsa",
    "lsa_projector",
    "lss",
    "lss_projector",
    "ncsnr",
    "noise_ceiling",
    "parcellate",
    "select_voxels",
    "split_half",
    "standardize_sessions",
    "trial_design",
]


def betas(
    bold: Any,
    events: Any,
    *,
    method: str = "window",
    mask: Any = None,
    labels: Sequence[int] | None = None,
    confounds: Any = None,
    sample_masks: Sequence[ArrayLike | None] | None = None,
    stimulus: str | None = None,
    trial_types: Sequence[str] | None = None,
    train_stimuli: ArrayLike | None = None,
    t_r: float | None = None,
    subject: str | None = None,
    session: str | None = None,
    smoothing_fwhm: float | None = None,
    **response: Any,
) -> xr.Dataset:
    """Estimate the response to every trial of one subject.

    Runs are read and estimated one after another, so that memory holds one run and the betas
    (GLMsingle needs all runs at once).

    Parameters
    ----------
    bold : path, nibabel image or Dataset, or list of those
        Runs; a tuple is a pair of hemispheres. Datasets are those of `fmri.read.read_bold`, not
        cleaned before: the model and the cleaning take drift and confounds out in one go.
    events : path or DataFrame, or list of those
        ``onset`` and ``duration`` in s, and what was shown, of every run.
    method : {"window", "lsa", "lss", "ridge", "glmsingle"}
    mask, labels
        Of `fmri.read.read_bold`; a list of masks (of sessions, or brain and region) is
        intersected.
    confounds : mapping or list, optional
        A mapping with the ``strategy`` and settings of `fmri.read.read_confounds`, for runs of
        fMRIPrep (with "scrub" volumes are left out too); or a table, array or path for every run.
    sample_masks : list of array_like or None, optional
        Volumes of each run that are kept.
    stimulus : str, optional
        Column of the events that says which stimulus was shown; by default the first there is of
        stimulus, stimulus_id, stim_file, image, image_id and trial_type.
    trial_types : sequence of str, optional
        Which ``trial_type`` are trials. Others (responses, fixation) are regressors of their own
        in a model, and are left away by a window.
    train_stimuli : array_like of str, optional
        For ``fracs`` of several values: the stimuli that choose. Needed there.
    t_r : float, optional
        s, by default the header's.
    subject, session : str, optional
        By default those of the file names.
    smoothing_fwhm : float, optional
        mm, of `fmri.read.read_bold`; for runs that are files or images.
    **response
        Of `Response`.

    Returns
    -------
    Dataset
        ``signal (trial, voxel)`` float32, of the voxels that all runs have. What was left out is
        counted in ``excluded`` and told in ``notes``.

    Raises
    ------
    DataError
        Where a file, table or event is not usable, or runs are of different grids.
    InputError
        Where a choice isn't known or a library is missing.

    Examples
    --------
    >>> import nibabel
    >>> image = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(2, 2, 1, 50)), np.eye(4))
    >>> events = pd.DataFrame({"onset": [0.0, 20.0], "duration": 2.0, "trial_type": ["a", "b"]})
    >>> found = betas(image, events, t_r=1.0, method="lss", scale=None)
    >>> dict(found.sizes), found["stimulus"].values.tolist()
    ({'trial': 2, 'voxel': 4}, ['a', 'b'])
    """
    how = Response(method=method, **response)
    runs, tables = _as_list(bold), _as_list(events)
    if len(runs) != len(tables) or not runs:
        raise InputError(f"{len(runs)} runs and {len(tables)} tables of events; give one for each")
    extra = _per_run(confounds, len(runs), "confounds")
    kept = _per_run(sample_masks, len(runs), "sample_masks")
    reader = _Reader(mask, labels, t_r, subject, session, stimulus, trial_types, smoothing_fwhm)
    if how.method == "glmsingle":
        return _all_runs(runs, tables, extra, kept, reader, how)
    parts, rows = [], []
    for n, (run, table) in enumerate(zip(runs, tables, strict=True)):
        series = reader.series(run, n)
        shown = reader.events(table, series)
        noise, sample = _noise(run, extra[n], kept[n])
        parts.append(estimate(series, shown, noise, sample, how))
        rows.append(reader.rows(shown, series))
    names = np.concatenate([row["stimulus"].to_numpy() for row in rows])
    if "shrunk" in parts[0]:
        parts = with_fractions(common_voxels(parts), names, train_stimuli, how)
    return join_trials(parts, rows, how.units, _steps(how, confounds, smoothing_fwhm))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _per_run(value: Any, n: int, name: str) -> list[Any]:
    if value is None or isinstance(value, Mapping):
        return [value] * n
    found = list(value) if isinstance(value, list | tuple) else [value]
    if len(found) != n:
        raise InputError(f"{name} has {len(found)} entries for {n} runs; give one for each")
    return found


def _steps(how: Response, confounds: Any, smoothing_fwhm: float | None) -> dict[str, Any]:
    step = {**asdict(how), "smoothing_fwhm": smoothing_fwhm}
    step["fracs"] = np.asarray(how.fracs, float).tolist()
    step["glmsingle"] = dict(how.glmsingle or {})
    step["hrf_model"] = getattr(how.hrf_model, "__name__", how.hrf_model)
    if isinstance(confounds, Mapping):
        step["confounds"] = {k: v if np.isscalar(v) else list(v) for k, v in confounds.items()}
    else:
        step["confounds"] = confounds is not None
    return {"betas": step}


@dataclass(frozen=True)
class _Reader:
    """Reads a run and what was shown in it."""

    mask: Any
    labels: Sequence[int] | None
    t_r: float | None
    subject: str | None
    session: str | None
    stimulus: str | None
    trial_types: Sequence[str] | None
    smoothing_fwhm: float | None

    def series(self, run: Any, number: int) -> xr.Dataset:
        if isinstance(run, xr.Dataset):
            if run.attrs.get("kind") != "bold":
                raise InputError(
                    f"run {number} is a dataset of kind '{run.attrs.get('kind')}'; expected 'bold' "
                    "(fmri.read.read_bold)"
                )
            if json.loads(run.attrs.get("preprocessing", "[]")):
                raise InputError(
                    f"run {number} was cleaned already; pass it as read_bold returns it: cleaning "
                    "in turns brings back what was removed"
                )
            return run.copy(deep=True)
        first = run[0] if isinstance(run, tuple) else run
        name = None if "run" in entities(first) else f"run-{number + 1:02d}"
        return read_bold(
            run, self.mask, labels=self.labels, t_r=self.t_r, subject=self.subject,
            session=self.session, run=name, smoothing_fwhm=self.smoothing_fwhm,
        )  # fmt: skip

    def events(self, table: Any, series: xr.Dataset) -> pd.DataFrame:
        name = str(table) if isinstance(table, str | Path) else f"events of {series.attrs['run']}"
        found = read_events(table, series.sizes["time"], float(series.attrs["t_r"]), name=name)
        column = stimulus_column(found, self.stimulus, name)
        trial = found[column].notna().to_numpy(bool)
        if self.trial_types is not None:
            if "trial_type" not in found:
                raise DataError(f"{name}: has no column trial_type to choose trials by")
            wanted = found["trial_type"].astype(str).isin(list(map(str, self.trial_types)))
            trial = trial & wanted.to_numpy(bool)
        if not trial.any():
            raise DataError(f"{name}: none of the {len(found)} events is a trial")
        shown = np.full(len(found), "", dtype=object)
        shown[trial] = as_names(found[column][trial])
        return found.assign(stimulus=shown.astype(str), is_trial=trial)

    def rows(self, events: pd.DataFrame, series: xr.Dataset) -> pd.DataFrame:
        found = events[events["is_trial"]].reset_index(drop=True)
        if "trial_type" in found and "condition" not in found:
            found = found.assign(condition=found["trial_type"].astype(str))
        given = {key: str(series.attrs[key]) for key in ("subject", "session", "run")}
        table = with_labels(found.drop(columns=[k for k in given if k in found]), given)
        return table.assign(recording="_".join(given.values()))


def _noise(run: Any, confounds: Any, sample: Any) -> tuple[Any, Any]:
    """Return the confounds and the volumes kept of a run."""
    if isinstance(confounds, Mapping):
        if not isinstance(run, str | Path | tuple):
            raise InputError(
                "confounds by strategy are found beside a file of fMRIPrep; for a dataset or image "
                "pass the tables (fmri.read.read_confounds)"
            )
        found, kept = read_confounds(run, **confounds)
        return found, kept if sample is None else sample
    if isinstance(confounds, str | Path):
        confounds = read_table(confounds, "confounds")
    return confounds, sample


def _all_runs(
    runs: list[Any],
    tables: list[Any],
    confounds: list[Any],
    samples: list[Any],
    reader: _Reader,
    how: Response,
) -> xr.Dataset:
    """Estimate with GLMsingle, which sees all runs at once."""
    series = [reader.series(run, n) for n, run in enumerate(runs)]
    shown = [reader.events(t, s) for t, s in zip(tables, series, strict=True)]
    noise = [_noise(r, c, s) for r, c, s in zip(runs, confounds, samples, strict=True)]
    if any(kept is not None for _, kept in noise):
        raise InputError("GLMsingle can't leave volumes out; don't scrub, or take another method")
    options = dict(how.glmsingle or {})
    if all(table is not None for table, _ in noise):
        options["extra_regressors"] = [np.asarray(table, float) for table, _ in noise]
    common = common_voxels(series)
    rows = [reader.rows(e, s) for e, s in zip(shown, series, strict=True)]
    sessions = np.unique([s.attrs["session"] for s in series], return_inverse=True)[1] + 1
    found = glmsingle_betas(
        [part["signal"].values for part in common],
        rows,
        float(series[0].attrs["t_r"]),
        sessions=sessions.tolist(),
        **options,
    )
    parts = [
        part.drop_vars(["signal", "time"]).assign(signal=(("trial", "voxel"), values))
        for part, values in zip(common, found, strict=True)
    ]
    steps = _steps(how, confounds[0], reader.smoothing_fwhm)
    return join_trials(parts, rows, how.units, steps)
