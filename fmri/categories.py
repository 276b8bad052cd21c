"""Category decoding, one run left out: through a space of attributes, beside a linear classifier.

A regression maps voxels to the attributes of a category (animate, a face, man-made ...); the
category whose attributes are nearest is the answer. What is learned of one category helps others.
Beside it stand a linear classifier and the same regression on one column for each category: what
of the accuracy is the regression's is not the attributes'. The interval is over runs, since blocks
of one run share its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fmri.baselines import TunedRidge
from neuro.errors import DataError, InputError
from neuro.metrics.retrieval import compare_rows
from neuro.validation import Estimate, grouped_folds, paired_difference, summarise

__all__ = ["CategoryScores", "Regressor", "decode_categories", "nearest_category", "z_score_runs"]

Floats = NDArray[np.float32]
Regressor = Callable[[Floats, Floats, NDArray[np.str_], Floats], ArrayLike]
"""``predict(X_train, attributes_train, runs_train, X_test) -> attributes (trial, attribute)``."""

LINEAR_C = 1.0
BASELINES = ("linear", "onehot")
N_SHUFFLES = 10


@dataclass(frozen=True)
class CategoryScores:
    """Category decoding of every method.

    Attributes
    ----------
    estimates : dict of str to Estimate
        ``category.<method>.accuracy`` with intervals over runs and chance, and
        ``category.<method>.over_linear`` and ``.over_onehot``, the differences run by run.
    predicted : dict of str to ndarray of str, shape (trial,)
    truth, run : ndarray of str, shape (trial,)
    """

    estimates: dict[str, Estimate]
    predicted: dict[str, NDArray[np.str_]]
    truth: NDArray[np.str_]
    run: NDArray[np.str_]

    def confusion(self, method: str) -> pd.DataFrame:
        """Return shares of the answers, true categories as rows."""
        return pd.crosstab(
            pd.Series(self.truth, name="seen"),
            pd.Series(self.predicted[method], name="decoded"),
            normalize="index",
        ).reindex(columns=np.unique(self.truth), fill_value=0.0)


def decode_categories(
    X: ArrayLike,
    category: ArrayLike,
    run: ArrayLike,
    attributes: pd.DataFrame,
    *,
    methods: Mapping[str, Regressor] | None = None,
    n_boot: int = 2000,
    random_state: int = 0,
    progress: Callable[..., Iterator[Any]] | None = None,
) -> CategoryScores:
    """Decode categories of held-out runs.

    Parameters
    ----------
    X : array_like of shape (trial, voxel)
        Patterns without offsets of runs: of series that were standardised in each run, or see
        `z_score_runs`.
    category, run : array_like of str, shape (trial,)
    attributes : DataFrame
        Categories as rows, attributes as columns, for example
        ``fmri.providers.haxby_attributes().table``.
    methods : mapping of str to callable, optional
        Further regressions beside ``ridge`` (tuned inside the training runs), for example
        ``mindeye``; see `Regressor`.
    n_boot, random_state
        Of the intervals; the latter of the shuffles too.
    progress : callable, optional
        ``progress(iterable, label, total)``, as `Context.progress`.

    Returns
    -------
    CategoryScores
        Of ``linear`` (logistic regression on the voxels), ``onehot`` (the tuned ridge on one
        column for each category, no attributes), ``ridge`` (on attributes), `methods`, and
        ``shuffled``: the ridge on attributes when the categories of each training run were dealt
        out anew, the mean of ten such.

    Raises
    ------
    DataError
        Where a category has no attributes, X holds NaN, or there are fewer than three runs.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> category, run = np.tile(["face", "house"], 8), np.repeat(list("abcd"), 4)
    >>> X = rng.standard_normal((16, 5)) + 3 * (category == "face")[:, None]
    >>> table = pd.DataFrame({"animate": [1, 0], "place": [0, 1]}, ["face", "house"])
    >>> decode_categories(X, category, run, table).estimates["category.ridge.accuracy"].value
    1.0
    """
    values, names, runs = _checked(X, category, run, attributes)
    table = attributes.loc[np.unique(names).tolist()]
    regressors: dict[str, Regressor] = {"ridge": _ridge, **(methods or {})}
    predicted = {
        name: np.empty(len(names), dtype=names.dtype) for name in (*BASELINES, *regressors)
    }
    shuffled = np.zeros(len(names))
    rng = np.random.default_rng(random_state)
    folds = grouped_folds(runs, n_splits=None)
    for train, test in folds if progress is None else progress(folds, "runs", len(folds)):
        predicted["linear"][test] = _linear(values[train], names[train], values[test])
        predicted["onehot"][test] = _onehot(values[train], names[train], runs[train], values[test])
        scaled = _scaled(table.loc[np.unique(names[train]).tolist()], table)
        target = scaled.loc[names[train].tolist()].to_numpy(np.float32)
        for name, regressor in regressors.items():
            found = regressor(values[train], target, runs[train], values[test])
            predicted[name][test] = nearest_category(found, scaled)
        for _ in range(N_SHUFFLES):
            target = scaled.loc[_dealt(names[train], runs[train], rng)].to_numpy(np.float32)
            found = _ridge(values[train], target, runs[train], values[test])
            shuffled[test] += (nearest_category(found, scaled) == names[test]) / N_SHUFFLES
    settings: dict[str, Any] = {"n_boot": n_boot, "random_state": random_state}
    right = {name: (found == names).astype(float) for name, found in predicted.items()}
    estimates = _estimates({**right, "shuffled": shuffled}, names, runs, settings)
    return CategoryScores(estimates, predicted, names, runs)


def nearest_category(found: ArrayLike, attributes: pd.DataFrame) -> NDArray[np.str_]:
    """Name the category whose attributes point most nearly the way of the prediction (cosine).

    Parameters
    ----------
    found : array_like of shape (trial, attribute)
    attributes : DataFrame
        Categories as rows; both centred by the same means.

    Examples
    --------
    >>> table = pd.DataFrame({"animate": [1.0, -1.0]}, ["cat", "shoe"])
    >>> nearest_category([[0.3], [-2.0]], table).tolist()
    ['cat', 'shoe']
    """
    scores = compare_rows(np.asarray(found, dtype=np.float32), attributes.to_numpy(np.float32))
    return attributes.index.to_numpy().astype(str)[scores.argmax(1)]


def z_score_runs(X: ArrayLike, run: ArrayLike) -> Floats:
    """Standardise every voxel inside each run, which needs no label and no other run.

    Constant voxels become 0.

    Examples
    --------
    >>> z_score_runs([[1.0], [3.0], [10.0], [30.0]], ["a", "a", "b", "b"]).ravel().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """
    values, runs = np.array(X, dtype=np.float32), np.asarray(run)
    for one in np.unique(runs):
        part = values[runs == one]
        sd = part.std(0)
        values[runs == one] = np.where(sd > 0, part - part.mean(0), 0) / np.where(sd > 0, sd, 1)
    return values


# Inside ---------------------------------------------------------------------------------------


def _ridge(X: Floats, target: Floats, runs: NDArray[np.str_], new: Floats) -> Floats:
    n_splits = min(5, len(np.unique(runs)))
    # The inner folds leave out runs: blocks of one run are alike for other reasons.
    ridge = TunedRidge(n_splits=n_splits, per_target=False).fit(X, target, stimulus=runs)
    return ridge.predict(new)


def _linear(X: Floats, names: NDArray[np.str_], new: Floats) -> NDArray[np.str_]:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=LINEAR_C, max_iter=2000).fit(X, names).predict(new)


def _dealt(names: NDArray[np.str_], runs: NDArray[np.str_], rng: np.random.Generator) -> list[str]:
    """Shuffle the categories inside each run."""
    out = names.copy()
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        out[rows] = names[rng.permutation(rows)]
    return out.tolist()


def _onehot(
    X: Floats, names: NDArray[np.str_], runs: NDArray[np.str_], new: Floats
) -> NDArray[np.str_]:
    known, codes = np.unique(names, return_inverse=True)
    columns = np.eye(len(known), dtype=np.float32)[codes]
    return known[_ridge(X, columns, runs, new).argmax(1)]


def _scaled(known: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Standardise attributes by the training categories, without those that don't vary there."""
    sd = known.std(ddof=0)
    kept = sd.index[sd > 0]
    if not len(kept):
        raise DataError("no attribute differs between the categories of the training runs")
    return (table[kept] - known[kept].mean()) / sd[kept]


def _estimates(
    right: dict[str, NDArray[np.float64]],
    truth: NDArray[np.str_],
    runs: NDArray[np.str_],
    settings: dict[str, Any],
) -> dict[str, Estimate]:
    chance = 1 / len(np.unique(truth))
    out = {
        f"category.{name}.accuracy": summarise(
            hits, units=runs, n_unit="run", chance=chance, **settings
        )
        for name, hits in right.items()
    }
    for name, hits in right.items():
        for baseline in BASELINES if name not in (*BASELINES, "shuffled") else ():
            out[f"category.{name}.over_{baseline}"] = paired_difference(
                hits, right[baseline], units=runs, n_unit="run", **settings
            )
    return out


def _checked(
    X: ArrayLike, category: ArrayLike, run: ArrayLike, attributes: pd.DataFrame
) -> tuple[Floats, NDArray[np.str_], NDArray[np.str_]]:
    values = np.asarray(X, dtype=np.float32)
    names, runs = np.asarray(category).astype(str), np.asarray(run).astype(str)
    if values.ndim != 2 or names.shape != (len(values),) or runs.shape != (len(values),):
        raise InputError(
            f"X is {values.shape} with {names.shape} categories and {runs.shape} runs; expected "
            "(trial, voxel) and one of either for each trial"
        )
    if not np.isfinite(values).all():
        raise DataError("X holds NaN or infinity; leave such voxels out first")
    missing = sorted(set(names) - set(attributes.index.astype(str)))
    if missing:
        raise DataError(
            f"the table of attributes has no {', '.join(missing)}; it has "
            f"{', '.join(attributes.index.astype(str))}"
        )
    if len(np.unique(runs)) < 3:
        raise DataError(f"there are {len(np.unique(runs))} runs; leaving one out needs three")
    return values, names, runs
