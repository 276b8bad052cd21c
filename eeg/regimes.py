"""Encoders of single trials, of ERPs and of averages, each tested on single trials and on ERPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eeg.classify import Target, Task, usable_labels
from eeg.cohort import Cohort, Floats, Ints, average_rows
from eeg.predictors import score
from neuro.metrics import balanced_accuracy
from neuro.validation import Fold

REGIMES = ("single", "erp", "bootstrap")
TESTS = ("single trials", "ERPs")


@dataclass
class Regimes:
    """Every way of training against every way of testing.

    Parameters
    ----------
    rows : list of dict
        trained_on, tested_on, latents (mean number kept), residual_r (of the recovered ERP,
        after the training grand average was taken away), and balanced accuracy by label.
    notes : list of str
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare_regimes(
    estimator: Any,
    data: Any,
    folds: Sequence[Fold],
    labels: Sequence[str] | None = None,
    *,
    regimes: Sequence[str] = REGIMES,
    fitted: Mapping[str, Sequence[Any]] | None = None,
    random_state: int = 0,
    scratch: Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> Regimes:
    """Train encoders in several regimes and test each on single trials and on ERPs.

    Parameters
    ----------
    estimator : BetaVAE
        Its other parameters are kept.
    data : Dataset
    folds : sequence of (train, test)
    labels : sequence of str, optional
    regimes : sequence of str
        Values of `train_on`.
    fitted : mapping of str to sequence of BetaVAE, optional
        Encoders of the folds that are there already, by regime.
    random_state, scratch, progress
        As in `eeg.evaluate.evaluate`.

    Returns
    -------
    Regimes
    """
    from eeg.evaluate import _signal

    given = dict(fitted or {})
    signal = _signal(data)
    missing = [name for name in regimes if name not in given]
    members = [_copy(estimator, name, random_state) for name in missing for _ in folds]
    subsets = [train for _ in missing for train, _ in folds]
    if members:
        type(estimator).fit_together(
            members, signal, subsets=subsets, scratch=scratch, progress=progress
        )
    for number, name in enumerate(missing):
        given[name] = members[number * len(folds) : (number + 1) * len(folds)]
    cohorts = {"single trials": Cohort.of(data), "ERPs": Cohort.of(_averaged(data))}
    result = Regimes()
    for name in regimes:
        for kind, cohort in cohorts.items():
            result.rows.append(
                {
                    "trained_on": name,
                    "tested_on": kind,
                    "latents": float(np.mean([np.sum(e.kept_) for e in given[name]])),
                    "residual_r": _recovery(given[name], cohorts["single trials"], folds, kind),
                    **_accuracies(given[name], data, cohort, folds, labels, kind, random_state),
                }
            )
    return result


def _copy(estimator: Any, train_on: str, seed: int) -> Any:
    from sklearn.base import clone

    return clone(estimator).set_params(train_on=train_on, random_state=seed)


def _averaged(data: Any) -> Any:
    from eeg.erp import erps
    from neuro.data import as_signal

    return as_signal(erps(data))


def _accuracies(
    encoders: Sequence[Any], data: Any, cohort: Cohort, folds: Sequence[Fold],
    labels: Sequence[str] | None, kind: str, seed: int,
) -> dict[str, float]:  # fmt: skip
    """Balanced accuracy of the discriminant on the latents, by label."""
    features = [
        np.asarray(e.transform(cohort.signal), dtype=float)[:, np.asarray(e.kept_)]
        for e in encoders
    ]
    fold_of = _fold_of(data, cohort, folds)
    found = {}
    for target in usable_labels(data, labels, len(folds))[0]:
        own = target if kind == "single trials" else _of_erps(target, data, cohort)
        level = "single_trial" if kind == "single trials" else "subject"
        task = Task(cohort, own, level, fold_of, 0, seed)
        predicted, _ = task.predict(features)
        value = balanced_accuracy(task.labellings[0], predicted[0], len(own.classes))
        found[target.name] = float(value)
    return found


def _fold_of(data: Any, cohort: Cohort, folds: Sequence[Fold]) -> Ints:
    """Return the fold that tests each row of `cohort`."""
    subjects = data["subject"].values.astype(str)
    fold = {who: n for n, (_, test) in enumerate(folds) for who in set(subjects[test].tolist())}
    return np.array([fold[str(who)] for who in cohort.subjects])[cohort.subject]


def _of_erps(target: Target, data: Any, cohort: Cohort) -> Target:
    """Give every ERP the label of its trials, -1 where they differ."""
    trials = Cohort.of(data)
    known: dict[tuple[str, str], set[int]] = {}
    keys = zip(trials.subjects[trials.subject], trials.conditions[trials.condition], strict=True)
    for key, code in zip(keys, target.codes.tolist(), strict=True):
        known.setdefault((str(key[0]), str(key[1])), set()).add(code)
    rows = zip(cohort.subjects[cohort.subject], cohort.conditions[cohort.condition], strict=True)
    sets = [known[(str(a), str(b))] for a, b in rows]
    codes = np.array([next(iter(s)) if len(s) == 1 else -1 for s in sets], dtype=np.intp)
    return Target(target.name, target.classes, codes, target.within)


def _recovery(encoders: Sequence[Any], cohort: Cohort, folds: Sequence[Fold], kind: str) -> float:
    """Mean residual correlation of what is decoded with the ERP of the other half of the trials."""
    inputs, target = cohort.mean(~cohort.is_target), cohort.mean(cohort.is_target)
    n_conditions = len(cohort.conditions)
    condition = np.arange(cohort.n_cells) % n_conditions
    whole = np.isfinite(inputs[:, 0]) & np.isfinite(target[:, 0])
    erps = cohort.mean()
    values = np.full(cohort.n_cells, np.nan)
    for encoder, (train, test) in zip(encoders, folds, strict=True):
        cells = np.unique(cohort.cell[train])
        grand = average_rows(erps, cells, condition[cells], n_conditions)
        grand = grand[condition]
        tested = np.intersect1d(np.unique(cohort.cell[test]), np.flatnonzero(whole))
        if kind == "ERPs":
            cell, shown = tested, inputs[tested]
        else:
            rows = test[~cohort.is_target[test] & np.isin(cohort.cell[test], tested)]
            cell, shown = cohort.cell[rows], cohort.X[rows]
        decoded = _denoise(encoder, cohort, shown)
        r = score(decoded, target[cell], grand[cell])[:, 1]
        sums = np.bincount(cell, r, minlength=cohort.n_cells)
        counts = np.bincount(cell, minlength=cohort.n_cells)
        values[tested] = sums[tested] / np.maximum(counts[tested], 1)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _denoise(encoder: Any, cohort: Cohort, flat: Floats) -> Floats:
    import xarray as xr

    shape = cohort.signal.shape[1:]
    trials = xr.DataArray(
        flat.reshape(-1, *shape),
        dims=("trial", "channel", "time"),
        coords={name: cohort.signal[name].values for name in ("channel", "time")},
        attrs=cohort.signal.attrs,
    )
    return np.asarray(encoder.denoise(trials)).reshape(len(flat), -1)
