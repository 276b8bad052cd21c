"""The regressors of a run: one for each trial, and everything else as nuisance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fmri.clean import check_confounds, sample_indices
from neuro.errors import DataError, InputError

__all__ = ["Design", "trial_design"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """The regressors of a run.

    Attributes
    ----------
    trials : ndarray of shape (time, trial)
        One for each trial.
    nuisance : ndarray of shape (time, n)
        Events that are no trials, drift, confounds and the constant.
    kept : ndarray of int, shape (time,)
        Volumes of the run.
    """

    trials: Floats
    nuisance: Floats
    kept: NDArray[np.int64]


def trial_design(
    events: pd.DataFrame,
    n_volumes: int,
    t_r: float,
    *,
    is_trial: ArrayLike | None = None,
    hrf_model: str = "spm",
    drift_model: str | None = "cosine",
    high_pass: float | None = 0.01,
    confounds: Any = None,
    sample_mask: ArrayLike | None = None,
    slice_time_ref: float = 0.0,
) -> Design:
    """Build the regressors of a run with nilearn's haemodynamic models and drifts.

    Parameters
    ----------
    events : DataFrame
        ``onset``, ``duration`` in s, and ``trial_type`` for events that are no trials.
    n_volumes : int
    t_r : float
        s.
    is_trial : array_like of bool, optional
        Which events are trials; the others are modelled by their ``trial_type``.
    hrf_model : str
        Of one regressor for each trial: "spm", "glover" or a function, see nilearn.
    drift_model : {"cosine", "polynomial", None}
    high_pass : float or None
        Hz, of the cosines; None takes a linear trend.
    confounds : DataFrame or array_like of shape (n_volumes, n), optional
    sample_mask : array_like, optional
        Volumes that are kept.
    slice_time_ref : float
        When in a repetition a volume is taken: 0 its start, 0.5 its middle.

    Returns
    -------
    Design

    Raises
    ------
    InputError
        Where the model gives several regressors for a trial.
    DataError
        Where no event is a trial.
    """
    from nilearn.glm.first_level import make_first_level_design_matrix

    trial = np.ones(len(events), bool) if is_trial is None else np.asarray(is_trial, bool)
    if not trial.any():
        raise DataError(f"none of the {len(events)} events is a trial; check trial_types")
    names = np.char.add("trial-", np.arange(len(events)).astype(str))
    if "trial_type" in events:
        other = np.char.add("other-", events["trial_type"].astype(str).to_numpy().astype(str))
    else:
        other = np.full(len(events), "other-")
    kinds = np.where(trial, names, other)
    times = (np.arange(n_volumes) + slice_time_ref) * t_r
    if drift_model == "cosine" and high_pass is None:
        drift_model = "polynomial"
    matrix = make_first_level_design_matrix(
        times, events[["onset", "duration"]].assign(trial_type=kinds),
        hrf_model=hrf_model, drift_model=drift_model, high_pass=high_pass or 0.01,
    )  # fmt: skip
    return _split(matrix, names[trial], confounds, sample_indices(n_volumes, sample_mask))


def _split(
    matrix: pd.DataFrame, names: NDArray[np.str_], confounds: Any, kept: NDArray[np.int64]
) -> Design:
    wanted = names.tolist()
    rest = [column for column in matrix.columns if column not in set(wanted)]
    if any(str(column).startswith("trial-") for column in rest) or not set(wanted) <= {
        *matrix.columns
    }:
        raise InputError(
            "hrf_model gives several regressors for a trial (derivatives, FIR); a single response "
            "needs one: take 'spm' or 'glover'"
        )
    nuisance = matrix[rest].to_numpy(float)
    if confounds is not None:
        nuisance = np.column_stack([nuisance, check_confounds(confounds, len(matrix))])
    return Design(matrix[wanted].to_numpy(float)[kept], nuisance[kept], kept)
