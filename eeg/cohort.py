"""Trials of several subjects as flat arrays, cut in halves, with an encoder fitted per fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DataError
from neuro.validation import Fold

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Cohort:
    """What recovery and classification both need to know about the trials.

    A *cell* is one condition of one subject: number ``subject * n_conditions + condition``.

    Parameters
    ----------
    signal : DataArray
        The trials (trial, channel, time), uV.
    X : ndarray of float32, shape (n, channels * times)
        The same, flat.
    subjects, conditions : ndarray of str
        Names, sorted.
    subject, condition, cell : ndarray of int, shape (n,)
        Numbers of each trial.
    is_target : ndarray of bool, shape (n,)
        Every second trial of a cell: the half that targets are made of. The other half is what
        predictors may see.
    """

    signal: xr.DataArray
    X: Floats
    subjects: NDArray[np.str_]
    conditions: NDArray[np.str_]
    subject: Ints
    condition: Ints
    cell: Ints
    is_target: NDArray[np.bool_]

    @classmethod
    def of(cls, data: xr.Dataset | xr.DataArray, *, pooled: bool = False) -> Cohort:
        """Take the trials of a dataset; `pooled` treats a subject's conditions as one.

        The halves are the same either way: they are cut inside each condition.

        Raises
        ------
        DataError
            Where the trials have no subjects, or hold NaN.
        """
        signal: Any = data["signal"] if hasattr(data, "data_vars") else data
        if "subject" not in signal.coords:
            raise DataError(
                "the trials have no coordinate 'subject', so people can't be held out: "
                "give a participants.tsv or a dataset with subjects"
            )
        signal = signal.transpose("trial", "channel", "time")
        X = np.ascontiguousarray(signal.values, dtype=np.float32).reshape(signal.sizes["trial"], -1)
        if not np.isfinite(X).all():
            raise DataError("the trials hold NaN or infinite values: drop them in preprocessing")
        subjects, subject = np.unique(signal["subject"].values.astype(str), return_inverse=True)
        conditions, condition = np.unique(_conditions(signal), return_inverse=True)
        cell = subject * len(conditions) + condition
        is_target = _rank(cell) % 2 == 1
        if pooled:
            conditions, condition, cell = np.array(["pooled"]), np.zeros_like(condition), subject
        return cls(signal, X, subjects, conditions, subject, condition, cell, is_target)

    @property
    def n_cells(self) -> int:
        """Number of cells, also those without trials."""
        return len(self.subjects) * len(self.conditions)

    @property
    def times(self) -> NDArray[np.float64]:
        """Times of the samples, s."""
        return np.asarray(self.signal["time"].values, dtype=float)

    @property
    def sfreq(self) -> float:
        """Sampling rate, Hz: the attribute, or what the times say."""
        written = self.signal.attrs.get("sfreq")
        return float(written) if written else float(1 / np.median(np.diff(self.times)))

    def mean(self, mask: NDArray[np.bool_] | None = None) -> Floats:
        """Mean trial of each cell over the rows of `mask`, (cell, channels * times); else NaN."""
        rows = np.arange(len(self.X)) if mask is None else np.flatnonzero(mask)
        return average_rows(self.X, rows, self.cell[rows], self.n_cells)


def _conditions(signal: xr.DataArray) -> NDArray[np.str_]:
    if "condition" in signal.coords:
        return signal["condition"].values.astype(str)
    return np.full(signal.sizes["trial"], "all")


def _rank(codes: Ints) -> Ints:
    """Number the rows inside each code, in the order they come."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(len(codes), dtype=np.intp)
    rank[order] = np.arange(len(codes)) - starts
    return rank


def average_rows(X: Floats, rows: Ints, codes: Ints, n_codes: int) -> Floats:
    """Average ``X[rows]`` by code with one sparse product; codes without rows give NaN."""
    from scipy import sparse

    counts = np.bincount(codes, minlength=n_codes)
    weight = (1 / np.maximum(counts, 1)).astype(np.float32)
    averager = sparse.csr_matrix((weight[codes], (codes, rows)), shape=(n_codes, len(X)))
    means = np.asarray(averager @ X, dtype=np.float32)
    means[counts == 0] = np.nan
    return means


def group_rows(cohort: Cohort, rows: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """Cut each cell's rows into as many disjoint groups of `size` as there are.

    Returns
    -------
    rows, codes, cells : ndarray of int
        The rows used, their group, and each group's cell. Conditions alternate inside a pooled
        cell, so that a group is a fair mixture.
    """
    cell = cohort.cell[rows]
    # The rank inside subject and original condition orders pooled cells by turns.
    names = _conditions(cohort.signal)[rows]
    turn = _rank(
        np.unique(
            [f"{s}\0{c}" for s, c in zip(cohort.subject[rows], names, strict=True)],
            return_inverse=True,
        )[1]
    )
    order = np.lexsort((turn, cell))
    rows, cell = rows[order], cell[order]
    rank, counts = _rank(cell), np.bincount(cell, minlength=cohort.n_cells)
    used = rank < counts[cell] // size * size
    rows, cell, rank = rows[used], cell[used], rank[used]
    pairs = np.column_stack([cell, rank // size])
    groups, codes = np.unique(pairs, axis=0, return_inverse=True)
    return rows, np.ravel(codes), groups[:, 0] if len(groups) else np.empty(0, dtype=np.intp)


def fit_folds(
    estimator: Any,
    signal: xr.DataArray,
    folds: Sequence[Fold],
    *,
    scratch: Path | None = None,
    progress: Any = None,
) -> list[Any]:
    """Fit one unfitted copy of an encoder per fold, on the fold's training trials alone.

    Encoders that offer ``fit_together`` are trained as one ensemble.

    Parameters
    ----------
    estimator : Encoder
        Only its parameters are used; a fitted one is not changed.
    signal : DataArray
        Trials (trial, channel, time) with their coordinates.
    folds : sequence of (train, test)
    scratch : path, optional
        Where an ensemble keeps its checkpoints.
    progress : callable, optional
        ``progress(items, label, total)``, see `neuro.stage.Context`.

    Returns
    -------
    list of Encoder
    """
    from sklearn.base import clone

    members = [clone(estimator) for _ in folds]
    together = getattr(type(estimator), "fit_together", None)
    if together is not None:
        subsets = [train for train, _ in folds]
        return list(together(members, signal, subsets=subsets, scratch=scratch, progress=progress))
    pairs: Iterable[Any] = list(zip(members, folds, strict=True))
    if progress is not None:
        pairs = progress(pairs, "folds", len(members))
    return [member.fit(signal.isel(trial=train)) for member, (train, _) in pairs]
