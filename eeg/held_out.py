"""What is held out together where one person's data are split: a run, or a session.

A plan gives trials whose coordinate ``subject`` names that unit. To everything that is fitted and
scored on them the unit is then what a participant is elsewhere: it is held out whole, resampled
in the intervals, left out where shrinkage is tuned, and an encoder that learns from averages
averages inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eeg.classify import Target, target_of
from neuro.errors import InputError
from neuro.validation import Fold, grouped_folds

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"run": ("subject", "session", "run"), "session": ("subject", "session")}


@dataclass(frozen=True)
class Plan:
    """One question about held-out runs or sessions, ready for fitting.

    Parameters
    ----------
    name : str
        Whose trials these are; "" where they are everybody's.
    data : Dataset
        Trials; their coordinate ``subject`` names the unit.
    unit : str
        run or session.
    target : Target
    folds : list of (train, test)
        Each unit is tested once, and shares no trial with its training part.
    """

    name: str
    data: xr.Dataset
    unit: str
    target: Target
    folds: list[Fold]


def unit_names(data: xr.Dataset, unit: str) -> NDArray[np.str_]:
    """Name the run or the session that each trial belongs to.

    Parameters
    ----------
    data : Dataset
        Trials with the coordinates subject, session and, for runs, run.
    unit : {"run", "session"}

    Returns
    -------
    ndarray of str, shape (trial,)
        Such as ``01/ses-01/run-02``; a part that is empty everywhere is left out.

    Raises
    ------
    InputError
        Where trials don't say whose they are or which run (session) they are of.
    """
    for name in ("subject", unit):
        if name not in data.coords or (data[name].values.astype(str) == "").any():
            there = ", ".join(str(k) for k, c in data.coords.items() if c.dims == ("trial",))
            state = "is empty in some trials" if name in data.coords else f"is not among {there}"
            raise InputError(
                f"a {unit} can't be held out: the coordinate '{name}' of the trials {state}; name "
                f"the recordings like sub-01_ses-01_run-01_eeg.edf, or leave out what needs it"
            )
    used = [name for name in UNITS[unit] if name in data.coords]
    columns = [data[name].values.astype(str) for name in used]
    parts = [
        [value if name == "subject" else f"{name[:3]}-{value}" for value in column]
        for name, column in zip(used, columns, strict=True)
        if (column != "").any()
    ]
    return np.array(["/".join(row) for row in zip(*parts, strict=True)])


def condition_plans(data: xr.Dataset) -> tuple[list[Plan], list[dict[str, str]]]:
    """Hold each run of each subject out of that subject's other runs, to predict the condition.

    Parameters
    ----------
    data : Dataset
        Trials of any number of subjects.

    Returns
    -------
    plans : list of Plan
        One per subject.
    excluded : list of dict
        Subjects that can't be tested: subject and reason.

    Raises
    ------
    InputError
        Where runs are not known, there is one condition, or no subject can be tested; what was
        found is named.
    """
    names = unit_names(data, "run")
    subjects = data["subject"].values.astype(str)
    if "condition" not in data.coords or len(np.unique(data["condition"].values)) < 2:
        found = sorted(set(data["condition"].values.tolist())) if "condition" in data.coords else []
        raise InputError(
            f"the condition can't be predicted: found {', '.join(found) or 'none'}, expected two "
            "or more; set event_id, or leave 'condition' out of predict"
        )
    classes = np.unique(data["condition"].values.astype(str))
    plans, excluded = [], []
    for who in np.unique(subjects):
        own = np.flatnonzero(subjects == who)
        reason = _why_not(names[own], data["condition"].values[own].astype(str), classes)
        if reason:
            excluded.append({"subject": str(who), "reason": reason})
        else:
            plans.append(_plan(str(who), data.isel(trial=own), names[own], "run", "condition"))
    if not plans:
        told = "; ".join(f"{entry['subject']}: {entry['reason']}" for entry in excluded)
        raise InputError(
            f"no subject's runs can be held out ({told}): give two runs or more of a subject, or "
            "leave 'condition' out of predict"
        )
    return plans, excluded


def _why_not(
    runs: NDArray[np.str_], condition: NDArray[np.str_], classes: NDArray[np.str_]
) -> str | None:
    n_runs = len(np.unique(runs))
    if n_runs < 2:
        return "1 run"
    for name in classes:
        n_with = len(np.unique(runs[condition == name]))
        if n_with < 2:
            return f"{n_runs} runs, of which {n_with} with trials of '{name}'"
    return None


def subject_plan(data: xr.Dataset) -> Plan:
    """Hold each session out, to predict whose it is.

    Parameters
    ----------
    data : Dataset
        Trials of several subjects.

    Returns
    -------
    Plan
        The label is called ``subject``. A subject of one session is among the classes wherever
        that session is in training, and never tested.

    Raises
    ------
    InputError
        Where sessions are not known, there is one subject, or nobody has two sessions.
    """
    names = unit_names(data, "session")
    subjects = data["subject"].values.astype(str)
    counts = {str(who): len(np.unique(names[subjects == who])) for who in np.unique(subjects)}
    if len(counts) < 2 or max(counts.values()) < 2:
        told = ", ".join(f"{who}: {n}" for who, n in counts.items())
        raise InputError(
            "a subject can't be recognised in another session: expected two subjects or more, one "
            f"of them with two sessions; found sessions ({told}). Add recordings, or leave "
            "'subject' out of predict"
        )
    return _plan("", data, names, "session", "subject")


def _plan(name: str, data: xr.Dataset, units: NDArray[np.str_], unit: str, label: str) -> Plan:
    codes = np.unique(units, return_inverse=True)[1]
    target = target_of(label, data[label].values.astype(str), codes)
    folds = grouped_folds(units, n_splits=None)
    return Plan(name, data.assign_coords(subject=("trial", units)), unit, target, folds)


def units_scored(plan: Plan) -> Sequence[str]:
    """Name the units that can be tested: those whose class another unit has too."""
    units, first = np.unique(plan.data["subject"].values, return_index=True)
    if plan.target.within:
        return [str(unit) for unit in units]
    codes = plan.target.codes[first]
    return [str(unit) for unit, code in zip(units, codes, strict=True) if (codes == code).sum() > 1]
