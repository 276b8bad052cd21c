"""Responses of one subject from a study's files: betas, fMRIPrep's derivatives, or plain runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from fmri.betas import betas
from fmri.derivatives import find_derivatives
from fmri.mask import Mask, intersect_masks, read_mask
from fmri.read_betas import read_betas, table_beside
from fmri.tables import entities, read_table, stimulus_column
from fmri.voxels import same_affine
from neuro.errors import DataError

if TYPE_CHECKING:
    from fmri.study_params import BetasParams

__all__ = ["companions", "read_responses"]

KEYS = {"subject": "sub", "session": "ses", "run": "run"}
"""Columns of tables, and what BIDS calls them in names of files."""


def read_responses(
    params: BetasParams, train: Callable[[Sequence[str]], ArrayLike] | None = None
) -> xr.Dataset:
    """Read or estimate the responses of one subject.

    Parameters
    ----------
    params : BetasParams
        With one of `files`, `derivatives` and `bold`.
    train : callable, optional
        Given the names of stimuli, returns those of training pictures; needed by a ridge that
        chooses among several fractions.

    Returns
    -------
    Dataset
        ``signal (trial, voxel)``; see `fmri.betas.betas` and `fmri.read.read_betas`.

    Raises
    ------
    DataError
        Where files, tables and events don't belong together, or are of several subjects.
    """
    if params.files is not None:
        return _from_files(params)
    runs = _runs(params)
    return _from_runs(runs, params, train)


def companions(params: BetasParams) -> list[Path]:
    """Name the files that are read besides those that the parameters name."""
    if params.files is not None:
        found = [] if params.trials is not None else map(table_beside, params.files)
        return [path for path in found if path is not None]
    runs = derivatives_runs(params)
    return list(dict.fromkeys(path for row in _rows(runs) for path in _read_of(row)))


def _read_of(row: dict[str, Any]) -> Iterator[Path]:
    """Name the files of a run, with their side-cars."""
    bold = row["bold"] if isinstance(row["bold"], tuple) else (row["bold"],)
    for path in (*bold, row["mask"], row["confounds"], row["events"]):
        if path is None:
            continue
        yield Path(path)
        sidecar = Path(path).with_name(f"{Path(path).name.split('.')[0]}.json")
        if sidecar.is_file():
            yield sidecar


# Betas that were estimated elsewhere ----------------------------------------------------------


def _from_files(params: BetasParams) -> xr.Dataset:
    files, tables = list(params.files or []), list(params.trials or [])
    kept = [n for n, file in enumerate(files) if _wanted(entities(file), params)]
    if not kept:
        raise DataError(
            f"none of the {len(files)} files of betas is of {_asked(params)}: "
            f"{', '.join(file.name for file in files[:4])}"
        )
    if len(tables) > 1 and len(tables) != len(files):
        raise DataError(
            f"{len(tables)} trial tables for {len(files)} files of betas; give one for each, or "
            "one in all"
        )
    if len(tables) == 1 and len(kept) < len(files):
        raise DataError(
            f"{tables[0]}: is the table of all {len(files)} files, but only {len(kept)} of them "
            f"are of {_asked(params)}; give a table for each file"
        )
    chosen = [files[n] for n in kept]
    trials: Any = [tables[n] for n in kept] if len(tables) > 1 else tables[0] if tables else None
    found = read_betas(
        chosen, trials, mask=_masks(params, []), labels=params.labels, scale=params.scale,
        units=params.units, variable=params.variable, axes=params.axes,
        stimulus=params.stimulus, subject=_label("sub", params.subject),
    )  # fmt: skip
    return _one_subject(_of_sessions(found, params))


def _of_sessions(data: xr.Dataset, params: BetasParams) -> xr.Dataset:
    """Keep the sessions that are asked for, where a table and not a file's name has them."""
    if params.sessions is None:
        return data
    wanted = {_bare(name) for name in params.sessions}
    rows = [n for n, name in enumerate(data["session"].values) if _bare(name) in wanted]
    if not rows:
        raise DataError(
            f"no trial is of the sessions {', '.join(params.sessions)}; found "
            f"{', '.join(np.unique(data['session'].values))}"
        )
    return data.isel(trial=rows)


def _one_subject(data: xr.Dataset) -> xr.Dataset:
    names = np.unique(data["subject"].values.astype(str)).tolist()
    if len(names) > 1:
        raise DataError(f"the betas are of {_several(names)}")
    return data


def _several(names: Sequence[str]) -> str:
    return (
        f"{len(names)} subjects ({', '.join(names[:6])}), whose voxels are their own; choose one "
        f"by subject: {_bare(names[0])}, or run once for each by sweep: {{subject: "
        f"[{', '.join(map(_bare, names[:3]))}]}}"
    )


# Runs -----------------------------------------------------------------------------------------


def derivatives_runs(params: BetasParams) -> pd.DataFrame:
    """Find the runs of fMRIPrep that are asked for; see `fmri.derivatives.find_derivatives`.

    Raises
    ------
    DataError
        Where there are none, or they are of several subjects, tasks or spaces.
    """
    found = find_derivatives(
        params.derivatives or "", subject=_plain(params.subject), task=params.task,
        space=params.space, kind=params.kind, events=params.bids_root,
    )  # fmt: skip
    if params.sessions is not None:
        wanted = {_bare(name) for name in params.sessions}
        kept = found["session"].map(_bare).isin(wanted)
        if not kept.any():
            raise DataError(
                f"{params.derivatives}: no run is of the sessions {', '.join(params.sessions)}; "
                f"found {', '.join(found['session'].unique())}"
            )
        found = found[kept].reset_index(drop=True)
    subjects, tasks = (found[name].dropna().unique().tolist() for name in ("subject", "task"))
    if len(subjects) > 1:
        raise DataError(f"{params.derivatives}: holds the runs of {_several(subjects)}")
    if len(tasks) > 1:
        raise DataError(
            f"{params.derivatives}: holds runs of the tasks {', '.join(tasks)}; choose one by task"
        )
    return found


def _runs(params: BetasParams) -> pd.DataFrame:
    """Return ``bold``, ``mask`` and ``events`` of every run."""
    if params.derivatives is not None:
        runs = derivatives_runs(params)
    else:
        files = [f for f in params.bold or [] if _wanted(entities(f), params)]
        if not files:
            raise DataError(
                f"none of the {len(params.bold or [])} runs is of {_asked(params)}; their names "
                "say sub- and ses-"
            )
        runs = pd.DataFrame([_plain_run(file, n) for n, file in enumerate(files)])
        subjects = runs["subject"].dropna().unique().tolist()
        if len(subjects) > 1:
            raise DataError(f"the runs are of {_several(subjects)}")
    if params.events is not None:
        runs["events"] = _event_tables(list(params.events), runs, params)
    bare = [_name(row) for row in _rows(runs) if row["events"] is None]
    if bare:
        raise DataError(
            f"{len(bare)} of {len(runs)} runs have no events, first {bare[0]}; expected a "
            f"*_events.tsv of its name in {params.bids_root or 'the BIDS folder (bids_root)'}, "
            "or a table given by events"
        )
    return runs


def _plain_run(file: Path, number: int) -> dict[str, Any]:
    found = entities(file)
    labels = {
        column: f"{key}-{found[key]}" if key in found else None for column, key in KEYS.items()
    }
    if labels["run"] is None:
        labels["run"] = f"run-{number + 1:02d}"
    return {**labels, "bold": file, "mask": None, "confounds": None, "events": None, "t_r": None}


def _rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in runs.to_dict("records")]


def _name(row: dict[str, Any]) -> str:
    bold = row["bold"][0] if isinstance(row["bold"], tuple) else row["bold"]
    return Path(bold).name


def _event_tables(files: list[Path], runs: pd.DataFrame, params: BetasParams) -> list[Any]:
    rows = _rows(runs)
    if len(files) == len(rows):
        for file, row in zip(files, rows, strict=True):
            _check_pair(file, row)
        return list(files)
    if params.bold is not None and len(files) == len(params.bold):
        kept = [n for n, f in enumerate(params.bold) if _wanted(entities(f), params)]
        return _event_tables([files[n] for n in kept], runs, params)
    if len(files) > 1:
        raise DataError(
            f"{len(files)} tables of events for {len(rows)} runs; give one for each in its order, "
            "or one with the column run"
        )
    table = read_table(files[0], "events")
    if "run" not in table:
        raise DataError(
            f"{files[0]}: is one table for {len(rows)} runs, but has no column run, only "
            f"{', '.join(map(str, table.columns))}"
        )
    return [_rows_of(table, row, files[0]) for row in rows]


def _check_pair(file: Path, row: dict[str, Any]) -> None:
    """Refuse events whose name says that they are of another run."""
    found = entities(file.name)
    for column, key in KEYS.items():
        mine, theirs = row.get(column), found.get(key)
        if mine is not None and theirs is not None and _bare(mine) != _bare(theirs):
            raise DataError(
                f"{file}: is of {key}-{theirs}, but comes with {_name(row)}; give events in the "
                "order of the runs"
            )


def _rows_of(table: pd.DataFrame, row: dict[str, Any], file: Path) -> pd.DataFrame:
    keep = np.ones(len(table), bool)
    for column in KEYS:
        if column in table and row.get(column) is not None:
            keep &= (table[column].map(_bare) == _bare(row[column])).to_numpy(bool)
    if not keep.any():
        raise DataError(f"{file}: has no row of {_name(row)}; see the columns {', '.join(KEYS)}")
    return table[keep].drop(columns=[c for c in KEYS if c in table]).reset_index(drop=True)


def _from_runs(
    runs: pd.DataFrame, params: BetasParams, train: Callable[[Sequence[str]], ArrayLike] | None
) -> xr.Dataset:
    how = params.response.model_dump()
    confounds: Any = None
    if params.confounds is not None:
        given = params.confounds.model_dump()
        confounds = {k: v for k, v in given.items() if v is not None}
    elif params.confounds_files is not None:
        confounds = list(params.confounds_files)
    names = None
    if how["method"] == "ridge" and isinstance(how["fracs"], list):
        names = None if train is None else train(_shown(runs, params.stimulus))
    subject = runs["subject"].iloc[0]
    return betas(
        runs["bold"].tolist(), runs["events"].tolist(), mask=_masks(params, _brains(runs)),
        labels=params.labels, confounds=confounds, stimulus=params.stimulus,
        trial_types=params.trial_types, train_stimuli=names, t_r=_repetition_time(runs, params),
        subject=_label("sub", params.subject) or subject,
        smoothing_fwhm=params.smoothing_fwhm, **how,
    )  # fmt: skip


def _shown(runs: pd.DataFrame, column: str | None) -> list[str]:
    found: set[str] = set()
    for events in runs["events"]:
        table = read_table(events, "events")
        found |= set(table[stimulus_column(table, column, "the events")].dropna().astype(str))
    return sorted(found)


def _brains(runs: pd.DataFrame) -> list[Mask]:
    """Read the brain masks of the runs, each once where they are alike."""
    masks = [read_mask(path) for path in runs["mask"].dropna()]
    return list({mask.hash: mask for mask in masks}.values())


def _masks(params: BetasParams, brains: list[Mask]) -> Any:
    """Return brain masks and regions, which are intersected; `labels` are of the regions."""
    own = [m for m in params.mask_img or [] if _of_subject(m, params.subject)]
    if params.mask_img and not own:
        raise DataError(
            f"none of the {len(params.mask_img)} masks is of subject {params.subject}: "
            f"{', '.join(m.name for m in params.mask_img[:4])}"
        )
    if params.kind != "volume" and params.derivatives is not None:
        return own[0] if own else None
    for brain in brains[1:]:
        if brain.shape != brains[0].shape or not same_affine(brain.affine, brains[0].affine):
            raise DataError(
                f"the brain masks of the runs have different grids ({brains[0].shape} and "
                f"{brain.shape}, or other affines); take a space that all runs share"
            )
    return [*_in_every(brains), *own] or None


def _in_every(brains: list[Mask]) -> list[Mask]:
    """Intersect the brain masks of the runs, and say what that takes away."""
    if len(brains) < 2:
        return brains
    common = intersect_masks(brains)
    most = max(map(len, brains))
    note = f"{len(common)} voxels are in the brain masks of all runs, of up to {most} of one run"
    return [replace(common, notes=(*common.notes, note))]


def _of_subject(path: Path, subject: str | None) -> bool:
    mine = entities(path.name).get("sub")
    return mine is None or subject is None or _bare(mine) == _bare(subject)


def _repetition_time(runs: pd.DataFrame, params: BetasParams) -> float | None:
    if params.t_r is not None:
        return params.t_r
    known = runs["t_r"].dropna().unique().tolist()
    if len(known) > 1:
        raise DataError(
            f"the side-cars of the runs have the repetition times {', '.join(map(str, known))} s; "
            "take runs of one (task, sessions), or give t_r"
        )
    return float(known[0]) if known else None


# Labels ---------------------------------------------------------------------------------------


def _bare(label: Any) -> Any:
    """Return a label without its key and leading zeros: "ses-01", "01" and 1 are one.

    >>> _bare("ses-01"), _bare(1.0), _bare("pre"), _bare(None)
    ('1', '1', 'pre', None)
    """
    if label is None:
        return None
    text = str(int(label)) if isinstance(label, float) and label == int(label) else str(label)
    text = text.rpartition("-")[2]
    return text.lstrip("0") or "0" if text.isdigit() else text


def _plain(subject: str | None) -> str | None:
    return None if subject is None else subject.removeprefix("sub-")


def _label(key: str, value: str | None) -> str | None:
    return None if value is None else value if value.startswith(f"{key}-") else f"{key}-{value}"


def _wanted(found: dict[str, str], params: BetasParams) -> bool:
    """Whether a file's name is of the subject and sessions asked for; a silent name is."""
    asked = {"sub": None if params.subject is None else [params.subject], "ses": params.sessions}
    return all(
        key not in found or values is None or _bare(found[key]) in map(_bare, values)
        for key, values in asked.items()
    )


def _asked(params: BetasParams) -> str:
    parts = []
    if params.subject is not None:
        parts.append(f"subject {params.subject}")
    if params.sessions is not None:
        parts.append(f"sessions {', '.join(params.sessions)}")
    return " and ".join(parts) or "this study"
