"""How much of a person's ERP one trial gives back, on people the encoder never saw.

The target is the ERP of every second trial of a subject's condition; predictors see only the
other half. Three numbers are reported, since the grand average resembles everybody and plain
correlation therefore rewards a collapsed model: the correlation, the correlation after the
training grand average was subtracted from both sides, and the squared error relative to that of
the grand average. Cutoff and penalty of the two tuned baselines are chosen on training subjects
*separately for each number*, so that each baseline is at its best in every column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eeg.cohort import Cohort, Floats, Ints, average_rows, group_rows
from eeg.predictors import (
    RIDGES,
    Components,
    correlate,
    lowpass_matrices,
    ridge_paths,
    score,
)
from neuro.errors import DataError
from neuro.validation import Estimate, Fold, grouped_folds, paired_difference, summarise

NUMBERS = ("r", "residual_r", "mse_ratio")
AVERAGES = (2, 5, 10)
LEAST_TARGET = 5  # same-condition trials beyond the K averaged ones
PREDICTORS = (
    *("denoised", "raw", "lowpass", "linear"),
    *(f"mean{k}" for k in AVERAGES),
    *("grand_average", "ceiling"),
)
POOLED = tuple(name for name in PREDICTORS if name not in ("lowpass", "linear"))
REFERENCES = ("raw", "lowpass", "linear", "grand_average")
ROWS_AT_ONCE = 2048

Scores = NDArray[np.float64]  # (..., 3): r, residual r, squared error


@dataclass
class Recovery:
    """Single-trial recovery of the ERP.

    Parameters
    ----------
    estimates : dict of str to Estimate
        By ``"<predictor>.<number>"``; predictors on pooled conditions end in ``_pooled``.
    differences : dict of str to Estimate
        Paired over subjects, ``"denoised-raw.residual_r"`` and the like.
    per_subject : list of dict
        subject, fold, predictor and the three numbers.
    chosen : list of dict
        What was tuned in each fold for each number: the cutoff (Hz) and the penalty.
    examples : list of dict
        A held-out trial of typical correlation per condition of up to three subjects: raw,
        denoised, target and grand_average as (channel, time) arrays, uV.
    notes : list of str
        What could not be computed, and why.
    """

    estimates: dict[str, Estimate]
    differences: dict[str, Estimate]
    per_subject: list[dict[str, Any]]
    chosen: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """Rows for the report: a predictor with its three numbers and their intervals."""
        return _rows(self.estimates, "predictor")

    def difference_table(self) -> list[dict[str, Any]]:
        """Rows for the report: paired differences with intervals."""
        return _rows(self.differences, "difference")

    def predictions(self) -> list[dict[str, Any]]:
        """Rows of ``predictions.parquet``: one score per subject, predictor and number."""
        return [
            {
                "item": row["subject"],
                "unit": row["subject"],
                "fold": row["fold"],
                "target": f"erp.{row['predictor']}.{number}",
                "truth": None,
                "score": row[number],
            }
            for row in self.per_subject
            for number in NUMBERS
            if row[number] is not None
        ]


def _rows(estimates: dict[str, Estimate], head: str) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for key, estimate in estimates.items():
        name, number = key.rsplit(".", 1)
        row = rows.setdefault(name, {head: name, "n": estimate.n})
        row |= {
            number: estimate.value,
            f"{number}_low": estimate.low,
            f"{number}_high": estimate.high,
        }
    return list(rows.values())


def recover_erp(
    encoders: Sequence[Any],
    data: Any,
    folds: Sequence[Fold],
    *,
    n_boot: int = 2000,
    random_state: int = 0,
) -> Recovery:
    """Score single-trial recovery of the ERP on held-out subjects.

    Parameters
    ----------
    encoders : sequence of Encoder
        One per fold, fitted on its training trials only; ``denoise`` maps trials to trials.
    data : Dataset or DataArray
        Trials (trial, channel, time) in uV with ``subject`` and ``condition``.
    folds : sequence of (train, test)
        Subjects never shared; every subject tested once.
    n_boot, random_state
        Of the intervals over subjects.

    Returns
    -------
    Recovery

    Raises
    ------
    DataError
        Where no subject has two trials of a condition, so that there is nothing to predict.
    """
    cohort = Cohort.of(data)
    denoised = _denoise(encoders, cohort, folds)
    own = _Recoverer(cohort, denoised, PREDICTORS, random_state).run(folds)
    pooled = _Recoverer(Cohort.of(data, pooled=True), denoised, POOLED, random_state).run(folds)
    rows = own.per_subject("") + pooled.per_subject("_pooled")
    return Recovery(
        estimates=_estimates(rows, n_boot, random_state),
        differences=_differences(rows, n_boot, random_state),
        per_subject=rows,
        chosen=own.chosen,
        examples=own.examples(),
        notes=own.notes(),
    )


def _denoise(encoders: Sequence[Any], cohort: Cohort, folds: Sequence[Fold]) -> Floats:
    """Denoise every input trial by the encoder that never saw its subject."""
    denoised = np.full_like(cohort.X, np.nan)
    for encoder, (_, test) in zip(encoders, folds, strict=True):
        rows = test[~cohort.is_target[test]]
        if len(rows):
            output = np.asarray(encoder.denoise(cohort.signal.isel(trial=rows)))
            denoised[rows] = output.reshape(len(rows), -1)
    return denoised


class _Recoverer:
    """Scores of all predictors; a cell is filled in when its subject is tested."""

    def __init__(
        self, cohort: Cohort, denoised: Floats, predictors: Sequence[str], seed: int
    ) -> None:
        self.cohort, self.denoised, self.predictors, self.seed = cohort, denoised, predictors, seed
        self.inputs = np.flatnonzero(~cohort.is_target)
        self.halves = (cohort.mean(~cohort.is_target), cohort.mean(cohort.is_target))
        self.erp = cohort.mean()
        self.n_input = np.bincount(cohort.cell[self.inputs], minlength=cohort.n_cells)
        self.n_target = np.bincount(cohort.cell, minlength=cohort.n_cells) - self.n_input
        self.whole = self.n_target > 0
        if not self.whole.any():
            raise DataError(
                "no subject has two trials of one condition, so there is no ERP to recover: "
                "check which trials were dropped in preprocessing"
            )
        self.scores = {name: np.full((cohort.n_cells, 3), np.nan) for name in predictors}
        self.mse_grand = np.full(cohort.n_cells, np.nan)
        self.grand = np.full_like(self.erp, np.nan)
        self.fold_of = np.full(len(cohort.subjects), -1)
        self.chosen: list[dict[str, Any]] = []
        self.averages = {k: _averages_of(cohort, self._with_enough(k), k) for k in AVERAGES}

    @property
    def target(self) -> Floats:
        return self.halves[1]

    def _with_enough(self, k: int) -> Ints:
        """Input trials of the cells that have at least K + 5 trials."""
        enough = self.n_input + self.n_target >= k + LEAST_TARGET
        return self.inputs[enough[self.cohort.cell[self.inputs]]]

    def run(self, folds: Sequence[Fold]) -> _Recoverer:
        """Score every fold."""
        for number, (train, test) in enumerate(folds):
            fold = _Fold(self, train, test)
            subjects = np.unique(self.cohort.subject[test])
            self.fold_of[subjects] = number
            cells = fold.tested
            self.grand[cells] = fold.grand[cells]
            own_error = self.grand[cells] - self.target[cells]
            self.mse_grand[cells] = np.mean(own_error**2, axis=1)
            for name in self.predictors:
                self.scores[name][cells] = fold.predict(name)[cells]
            self.chosen += [{"fold": number, **row} for row in fold.chosen]
        return self

    def per_subject(self, suffix: str) -> list[dict[str, Any]]:
        """Average the cells of each subject; set the error against the grand average's."""
        rows = []
        shape = (len(self.cohort.subjects), len(self.cohort.conditions))
        for name in self.predictors:
            known = np.isfinite(self.scores[name][:, 0]).reshape(shape)
            weight = known / np.maximum(known.sum(1, keepdims=True), 1)
            filled = np.nan_to_num(self.scores[name]).reshape(*shape, 3)
            values = np.einsum("sc,sck->sk", weight, filled)
            grand = np.einsum("sc,sc->s", weight, np.nan_to_num(self.mse_grand).reshape(shape))
            values[:, 2] /= np.maximum(grand, 1e-12)
            if name == "ceiling":  # reliabilities so far: averaged before the root is taken
                values[:, :2] = np.sqrt(np.clip(values[:, :2], 0, 1))
            for s in np.flatnonzero(self.fold_of >= 0):
                numbers = values[s].tolist() if known[s].any() else [None] * 3
                rows.append(
                    {
                        "subject": str(self.cohort.subjects[s]),
                        "fold": int(self.fold_of[s]),
                        "predictor": name + suffix,
                        **dict(zip(NUMBERS, numbers, strict=True)),
                    }
                )
        return rows

    def notes(self) -> list[str]:
        """Say which cells and predictors are missing."""
        cohort = self.cohort
        notes = [
            f"{cohort.subjects[cell // len(cohort.conditions)]}, condition "
            f"'{cohort.conditions[cell % len(cohort.conditions)]}': fewer than two trials, "
            "left out of the recovery"
            for cell in np.flatnonzero(~self.whole)
        ]
        for k in AVERAGES:
            if not np.isfinite(self.scores[f"mean{k}"][:, 0]).any():
                notes.append(
                    f"mean{k} is null: no condition has {k + LEAST_TARGET} trials with {k} of them "
                    "outside the target's half"
                )
        return notes

    def examples(self, n_subjects: int = 3) -> list[dict[str, Any]]:
        """Pick the trial of median correlation in each cell of the first few subjects."""
        cohort, found = self.cohort, []
        cells = np.flatnonzero(self.whole & (self.fold_of[self._subject_of_cells()] >= 0))
        for cell in cells[: n_subjects * len(cohort.conditions)]:
            rows = self.inputs[cohort.cell[self.inputs] == cell]
            r = correlate(self.denoised[rows], np.tile(self.target[cell], (len(rows), 1)))
            row = rows[np.argsort(r)[len(r) // 2]]
            arrays = {
                "raw": cohort.X[row],
                "denoised": self.denoised[row],
                "target": self.target[cell],
                "grand_average": self.grand[cell],
            }
            found.append(
                {
                    "subject": str(cohort.subjects[cohort.subject[row]]),
                    "condition": str(cohort.conditions[cohort.condition[row]]),
                    **{k: v.reshape(cohort.signal.shape[1:]) for k, v in arrays.items()},
                }
            )
        return found

    def _subject_of_cells(self) -> Ints:
        return np.arange(self.cohort.n_cells) // len(self.cohort.conditions)


def _averages_of(cohort: Cohort, rows: Ints, size: int) -> tuple[Floats, Ints]:
    """Averages of K trials (n, d) and the cell of each."""
    used, codes, cells = group_rows(cohort, rows, size)
    return average_rows(cohort.X, used, codes, len(cells)), cells


class _Fold:
    """One fold: grand averages of its training subjects, and every predictor's scores by cell."""

    def __init__(self, parent: _Recoverer, train: Ints, test: Ints) -> None:
        self.parent, self.cohort = parent, parent.cohort
        self.train, self.test = train, test
        self.grand = self._grand_average()
        # A condition that no training subject has can't be predicted by the grand average.
        usable = parent.whole & np.isfinite(self.grand[:, 0])
        self.tested = np.intersect1d(self.cohort.cell[test], np.flatnonzero(usable))
        self.trained = np.intersect1d(self.cohort.cell[train], np.flatnonzero(usable))
        self.chosen: list[dict[str, Any]] = []

    def _grand_average(self) -> Floats:
        """Mean ERP of the training subjects, for each cell that of its condition, (cell, d)."""
        n_conditions = len(self.cohort.conditions)
        cells = np.unique(self.cohort.cell[self.train])
        mean = average_rows(self.parent.erp, cells, cells % n_conditions, n_conditions)
        return np.tile(mean, (len(self.cohort.subjects), 1))

    def predict(self, name: str) -> Scores:
        """Scores (cell, 3) of one predictor; cells without it are NaN."""
        if name.startswith("mean"):
            averages, cells = self.parent.averages[int(name.removeprefix("mean"))]
            own = np.isin(cells, self.tested)
            return self.by_cell(averages[own], cells[own])
        predictors: dict[str, Callable[[], Scores]] = {
            "denoised": lambda: self.trials(lambda rows: self.parent.denoised[rows]),
            "raw": lambda: self.trials(lambda rows: self.cohort.X[rows]),
            "lowpass": self.lowpass,
            "linear": self.linear,
            "grand_average": lambda: self.by_cell(self.grand[self.tested], self.tested),
            "ceiling": self.ceiling,
        }
        return predictors[name]()

    def by_cell(self, predicted: Floats, cell: Ints) -> Scores:
        """Score predictions and average them by cell, (cell, 3)."""
        scores = score(predicted, self.parent.target[cell], self.grand[cell])
        return _cell_means(scores, cell, self.cohort.n_cells)

    def trials(self, predict: Callable[[Ints], Floats], cells: Ints | None = None) -> Scores:
        """Score the prediction from each input trial of `cells` (by default the tested ones)."""
        cell = self.cohort.cell
        rows = self.parent.inputs
        rows = rows[np.isin(cell[rows], self.tested if cells is None else cells)]
        blocks = np.array_split(rows, len(rows) // ROWS_AT_ONCE + 1)
        scores = [
            score(predict(part), self.parent.target[cell[part]], self.grand[cell[part]])
            for part in blocks
        ]
        return _cell_means(np.concatenate(scores), cell[rows], self.cohort.n_cells)

    def lowpass(self) -> Scores:
        """The trial low-passed, at the cutoff that is best on training subjects."""
        shape = self.cohort.signal.shape[1:]

        def filtered(matrix: Floats) -> Callable[[Ints], Floats]:
            return lambda rows: (self.cohort.X[rows].reshape(-1, *shape) @ matrix).reshape(
                len(rows), -1
            )

        options = [
            (cutoff, self.trials(filtered(matrix), np.union1d(self.trained, self.tested)))
            for cutoff, matrix in lowpass_matrices(self.cohort)
        ]
        return self.best("cutoff", options, [scores for _, scores in options], self.trained)

    def linear(self) -> Scores:
        """The ridge from the trial, at the penalty best on a third of the training subjects."""
        cohort = self.cohort
        components = Components.fit(cohort, self.train, random_state=self.parent.seed)
        groups = cohort.subject[self.train]
        n_inner = min(3, len(np.unique(groups)))
        if n_inner < 2:
            return np.full((cohort.n_cells, 3), np.nan)
        fit, tune = grouped_folds(groups, n_splits=n_inner, random_state=self.parent.seed)[0]
        tuned_on = np.intersect1d(cohort.cell[self.train[tune]], self.trained)
        scores = np.zeros((len(cohort.X), components.axes.shape[0]), dtype=np.float32)
        rows = np.union1d(self.train, self.parent.inputs)
        scores[rows] = components.transform(cohort.X[rows])
        tuning = self._ridge(scores, self.train[fit], tuned_on)
        testing = self._ridge(scores, self.train, self.tested)
        return self.best("ridge", list(zip(RIDGES, tuning, strict=True)), testing, tuned_on)

    def _ridge(self, scores: Floats, rows: Ints, cells: Ints) -> list[Scores]:
        cohort = self.cohort
        paths = ridge_paths(
            scores[rows], self.parent.halves, cohort.cell[rows], cohort.is_target[rows]
        )
        return [
            self.trials(lambda part, i=i, w=w: scores[part] @ w + i, cells)  # type: ignore[misc]
            for i, w in paths
        ]

    def best(
        self,
        name: str,
        tuning: Sequence[tuple[float, Scores]],
        testing: Sequence[Scores],
        cells: Ints,
    ) -> Scores:
        """Choose the option for each number by its mean over the training `cells`."""
        quality = np.array([np.nanmean(scores[cells], axis=0) for _, scores in tuning])
        quality[:, 2] *= -1  # an error: less is better
        chosen = quality.argmax(0)
        self.chosen += [
            {"tuned": name, "number": number, "value": float(tuning[option][0])}
            for number, option in zip(NUMBERS, chosen, strict=True)
        ]
        return np.column_stack([testing[option][:, k] for k, option in enumerate(chosen)])

    def ceiling(self) -> Scores:
        """What a noise-free prediction would reach, from the two halves' agreement.

        Returns the *reliability* of the target half in the place of both correlations (the
        ceiling is its root) and the noise variance of the target half in that of the error.
        """
        cells, parent = self.tested, self.parent
        scores = score(parent.halves[0][cells], parent.target[cells], self.grand[cells])
        n_input, n_target = parent.n_input[cells], parent.n_target[cells]
        # Spearman-Brown from the length of the two halves' (geometric) mean to the target's.
        length = (n_target / np.sqrt(n_input * n_target))[:, None]
        agreement = scores[:, :2]
        filled = np.full((self.cohort.n_cells, 3), np.nan)
        filled[cells, :2] = length * agreement / (1 + (length - 1) * agreement)
        filled[cells, 2] = scores[:, 2] * n_input / (n_input + n_target)
        return filled


def _cell_means(scores: Scores, cell: Ints, n_cells: int) -> Scores:
    counts = np.bincount(cell, minlength=n_cells)
    sums = np.column_stack([np.bincount(cell, column, minlength=n_cells) for column in scores.T])
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def _column(rows: Iterable[dict[str, Any]], predictor: str, number: str) -> NDArray[np.float64]:
    values = [row[number] for row in rows if row["predictor"] == predictor]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _estimates(rows: list[dict[str, Any]], n_boot: int, random_state: int) -> dict[str, Estimate]:
    """Mean and interval over subjects; the low-pass is the baseline, p is against it."""
    estimates = {}
    for name in dict.fromkeys(row["predictor"] for row in rows):
        for number in NUMBERS:
            values = _column(rows, name, number)
            estimates[f"{name}.{number}"] = summarise(
                values, n_boot=n_boot, random_state=random_state
            )
    for number in NUMBERS:
        baseline = estimates[f"lowpass.{number}"].value
        estimates[f"denoised.{number}"] = replace(
            estimates[f"denoised.{number}"], baseline=baseline
        )
    return estimates


def _differences(rows: list[dict[str, Any]], n_boot: int, random_state: int) -> dict[str, Estimate]:
    return {
        f"denoised-{reference}.{number}": paired_difference(
            _column(rows, "denoised", number),
            _column(rows, reference, number),
            n_boot=n_boot,
            random_state=random_state,
        )
        for reference in REFERENCES
        for number in NUMBERS
    }
