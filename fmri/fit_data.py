"""Betas and targets of a fit: matched by stimulus, split, standardised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.subjects import Subject, VoxelContract, one_per_stimulus
from neuro.errors import DataError

if TYPE_CHECKING:
    from fmri.mindeye import MindEye

Ints = NDArray[np.int64]


@dataclass
class FitData:
    """Betas and targets of a fit, matched by stimulus."""

    subjects: list[Subject]
    contracts: list[VoxelContract]
    values: list[NDArray[np.float32]]
    rows: list[Ints]  # of each trial, in the targets
    train: list[Ints]
    held: list[Ints]
    targets: NDArray[Any]
    latents: NDArray[Any] | None
    trained: Ints  # rows of the targets that the training part shows


def match(
    estimator: MindEye,
    subjects: list[Subject],
    y: Any,
    low_level: xr.Dataset | None,
    *,
    hold_out: bool = True,
) -> FitData:
    """Find the target of every trial, keep stimuli aside and standardise the voxels.

    Parameters
    ----------
    estimator : MindEye
        Its `validation_fraction` and `random_state` choose the stimuli that are kept aside.
    subjects : list of Subject
    y : Dataset
        Targets by stimulus.
    low_level : Dataset or None
        Image latents by stimulus.
    hold_out : bool
        Keep stimuli aside, or train on all.

    Raises
    ------
    DataError
        Where a stimulus has no target, targets hold NaN, or too few trials are left.
    """
    stimuli = one_per_stimulus(subjects)
    targets, rows = _keyed(y, stimuli, "targets", ("token", "feature"))
    latents = None
    if low_level is not None:
        own, places = _keyed(low_level, stimuli, "image latents", ("channel", "row", "column"))
        # In the order of the targets, so that one number finds both.
        latents = np.zeros((len(targets), *own.shape[1:]), own.dtype)
        latents[rows] = own[places]
    held = _held_out(estimator, stimuli) if hold_out else np.zeros(len(stimuli), dtype=bool)
    number = {name: n for n, name in enumerate(stimuli)}
    index = [np.array([number[str(s)] for s in np.asarray(x.stimulus)]) for x in subjects]
    train = [np.flatnonzero(~held[i]).astype(np.int64) for i in index]
    for subject, own_train in zip(subjects, train, strict=True):
        if len(own_train) < 2:
            raise DataError(
                f"subject '{subject.name}' has {len(own_train)} training trials beside those kept "
                "for validation; give more trials, or set validation_fraction=0"
            )
    contracts = [VoxelContract.of(s, t) for s, t in zip(subjects, train, strict=True)]
    return FitData(
        subjects,
        contracts,
        [c.transform(s.values) for c, s in zip(contracts, subjects, strict=True)],
        [rows[i] for i in index],
        train,
        [np.flatnonzero(held[i]).astype(np.int64) for i in index],
        targets,
        latents,
        rows[~held],
    )


def _keyed(
    y: Any, stimuli: list[str], what: str, dims: tuple[str, ...]
) -> tuple[NDArray[Any], Ints]:
    """Return values as they are stored, and the row of every stimulus."""
    signal = y["signal"] if isinstance(y, xr.Dataset) and "signal" in y else y
    if not isinstance(signal, xr.DataArray) or signal.dims != ("trial", *dims):
        found = getattr(signal, "dims", type(signal).__name__)
        raise DataError(f"the {what} are {found}, expected ('trial', {', '.join(map(repr, dims))})")
    if "stimulus" not in signal.coords:
        raise DataError(f"the {what} have no coordinate 'stimulus', by which trials find theirs")
    names = [str(s) for s in signal["stimulus"].values]
    where = {name: row for row, name in enumerate(names)}
    if len(where) < len(names):
        raise DataError(f"the {what} name a stimulus twice; keep one row of each")
    missing = [name for name in stimuli if name not in where]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(stimuli)} stimuli have no {what}: {', '.join(missing[:8])}; "
            f"they are there for {len(names)}: {', '.join(names[:4])}, ..."
        )
    values, rows = signal.values, np.array([where[name] for name in stimuli], np.int64)
    for start in range(0, len(rows), 256):
        block = values[rows[start : start + 256]]
        if not np.isfinite(block).all():
            raise DataError(f"the {what} hold NaN or infinity; encode the pictures again")
    return values, rows


def _held_out(estimator: MindEye, stimuli: list[str]) -> NDArray[np.bool_]:
    """Keep stimuli aside, the same for all subjects."""
    held = np.zeros(len(stimuli), dtype=bool)
    if estimator.validation_fraction and len(stimuli) < 4:
        raise DataError(
            f"{len(stimuli)} stimuli are too few to keep some for validation; set "
            "validation_fraction=0"
        )
    if estimator.validation_fraction:
        count = min(max(2, round(estimator.validation_fraction * len(stimuli))), len(stimuli) - 2)
        rng = np.random.default_rng([estimator.random_state, 1])
        held[rng.permutation(len(stimuli))[:count]] = True
    return held


def stimulus_folds(data: FitData, n_folds: int, seed: int) -> list[NDArray[np.bool_]]:
    """Deal the training stimuli into folds; none where a subject would keep too few trials.

    Returns
    -------
    list of ndarray of bool, shape (row of the targets,)
        True for the stimuli of a fold.
    """
    n_folds = min(n_folds, len(data.trained) // 2)
    if n_folds < 2:
        return []
    order = np.random.default_rng([seed, 2]).permutation(len(data.trained))
    folds = []
    for number in range(n_folds):
        held = np.zeros(len(data.targets), dtype=bool)
        held[data.trained[order[number::n_folds]]] = True
        folds.append(held)
    enough = all(
        (~held[rows[train]]).sum() >= 2
        for held in folds
        for rows, train in zip(data.rows, data.train, strict=True)
    )
    return folds if enough else []


def without_stimuli(data: FitData, held: NDArray[np.bool_]) -> FitData:
    """Move the training trials of some stimuli to the part that is held back."""
    parts = [
        (train[~held[rows[train]]], train[held[rows[train]]])
        for rows, train in zip(data.rows, data.train, strict=True)
    ]
    return replace(
        data,
        train=[train for train, _ in parts],
        held=[own for _, own in parts],
        trained=data.trained[~held[data.trained]],
    )


def spread_of(targets: NDArray[Any]) -> float:
    """Return how far targets of unit length lie apart: ``1 - |mean|^2``, 1 where it is 0.

    Cosines between targets that share a large mean differ little; a contrastive temperature has
    to be smaller in proportion.

    Parameters
    ----------
    targets : ndarray, shape (stimulus, ...)

    Examples
    --------
    >>> spread_of(np.array([[1.0, 0.0], [-2.0, 0.0]])), spread_of(np.array([[3.0, 4.0]] * 2))
    (1.0, 0.001)
    """
    flat = targets.reshape(len(targets), -1).astype(np.float32)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return float(max(1 - np.square(flat.mean(0)).sum(), 1e-3))
