"""Name a category that was never trained on, through what is known of it (attributes).

All trials of a category are left out, and all trials of the test run; a regression from the brain
to attributes learns from the rest and its answer is held against the attributes of the categories.

References
----------
Palatucci et al., "Zero-shot learning with semantic output codes" (2009). Mitchell et al.,
"Predicting human brain activity associated with the meanings of nouns" (2008): leave two out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fmri.categories import Regressor
from neuro.errors import DataError, InputError
from neuro.validation import Estimate, permutation_p, summarise

__all__ = ["ZeroShot", "dual_ridge", "zero_shot"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ZeroShot:
    """How well categories were named that were not trained on.

    Attributes
    ----------
    estimates : dict of str to Estimate
        ``zero_shot.accuracy``: the left-out category among all; ``zero_shot.pairwise``: two left
        out, which is which. Intervals over categories; `chance` of the first is 1 / categories,
        of the second 0.5. With the linear model `p` is that of attributes dealt out anew to
        categories, and `baseline` their mean.
    predicted : ndarray of str, shape (trial,)
        The first question's answers.
    null : ndarray of shape (n_permutations, 2), or None
    """

    estimates: dict[str, Estimate]
    predicted: NDArray[np.str_]
    null: NDArray[np.float64] | None


def dual_ridge(X: Floats, new: Floats, penalty: float = 1.0) -> Floats:
    """Return what turns training targets into predictions of a ridge regression.

    The penalty is relative to the mean eigenvalue of the kernel, and fixed: the answer is then
    linear in the targets, so that a thousand shuffled targets cost one product.

    Parameters
    ----------
    X, new : ndarray of shape (trial, feature)
    penalty : float

    Returns
    -------
    ndarray of shape (new trial, trial)
        For targets that are centred over the training trials.

    Examples
    --------
    >>> X = np.eye(3, dtype=np.float32)
    >>> dual_ridge(X, X[:1]).shape
    (1, 3)
    """
    mean, sd = X.mean(0), X.std(0)
    safe = np.where(sd > 0, sd, 1)
    rows, asked = (X - mean) / safe, (new - mean) / safe
    kernel = rows @ rows.T
    shrink = penalty * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    return np.asarray(np.linalg.solve(kernel + shrink, rows @ asked.T).T, np.float32)


def zero_shot(
    X: ArrayLike,
    category: ArrayLike,
    run: ArrayLike,
    attributes: pd.DataFrame,
    *,
    regressor: Regressor | None = None,
    n_permutations: int = 1000,
    n_boot: int = 2000,
    random_state: int = 0,
) -> ZeroShot:
    """Leave out one category (and one run) at a time, and two at a time.

    Parameters
    ----------
    X : array_like of shape (trial, feature)
    category, run : array_like of str, shape (trial,)
    attributes : DataFrame
        Categories as rows. They are standardised over the categories that were trained on.
    regressor : callable, optional
        Another model than `dual_ridge`; without a p then, since each shuffle would train anew.
    n_permutations : int
        Shuffles of the attributes' rows among categories.
    n_boot, random_state

    Returns
    -------
    ZeroShot

    Raises
    ------
    DataError
        Where a category has no attributes, or there are fewer than four categories or two runs.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame(rng.standard_normal((6, 3)), list("abcdef"), list("xyz"))
    >>> category, run = np.tile(list("abcdef"), 4), np.repeat(list("1234"), 6)
    >>> X = table.loc[category].to_numpy() @ rng.standard_normal((3, 20))
    >>> zero_shot(X, category, run, table, n_permutations=99).estimates["zero_shot.pairwise"].value
    1.0
    """
    values, names, runs, table = _checked(X, category, run, attributes)
    known = np.array(table.index.astype(str))
    code = np.searchsorted(known, names)
    orders = _orders(len(known), 0 if regressor else n_permutations, random_state)
    base = table.to_numpy(np.float32)[orders]
    hits, pairs = np.zeros((2, len(orders), len(values)))
    predicted = np.empty(len(values), dtype=known.dtype)
    for left, train, test in _parts(code, runs, len(known)):
        scaled = _scaled(base, np.unique(code[train]))
        found = _answers(values, scaled[:, code[train]], runs, train, test, regressor)
        alike = _cosines(found, scaled)
        if len(left) == 1:
            answer = alike.argmax(2)
            hits[:, test] = answer == left[0]
            predicted[test] = known[answer[0]]
        else:
            other = np.where(code[test] == left[0], left[1], left[0])
            rows = np.arange(len(test))
            gap = alike[:, rows, code[test]] - alike[:, rows, other]
            pairs[:, test] += ((gap > 0) + 0.5 * (gap == 0)) / (len(known) - 1)
    estimates = _estimates(hits, pairs, names, len(known), n_boot, random_state)
    null = np.column_stack([_means(hits, code), _means(pairs, code)])[1:]
    return ZeroShot(estimates, predicted, None if regressor else null)


# Inside ---------------------------------------------------------------------------------------


def _orders(n: int, n_permutations: int, seed: int) -> NDArray[np.intp]:
    """The true order of categories first, then shuffles."""
    rng = np.random.default_rng(seed)
    shuffles = [rng.permutation(n) for _ in range(n_permutations)]
    return np.array([np.arange(n), *shuffles], dtype=np.intp)


def _parts(
    code: NDArray[np.intp], runs: NDArray[np.str_], n: int
) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the categories left out, training trials and test trials."""
    for size in (1, 2):
        for left in itertools.combinations(range(n), size):
            out = np.isin(code, left)
            for one in np.unique(runs[out]):
                yield (
                    left,
                    np.flatnonzero((runs != one) & ~out),
                    np.flatnonzero((runs == one) & out),
                )


def _answers(
    values: Floats,
    target: Floats,
    runs: NDArray[np.str_],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    regressor: Regressor | None,
) -> Floats:
    """Predict attributes for every shuffle, shape (shuffle, trial, attribute)."""
    if regressor is not None:
        raw = regressor(values[train], target[0], runs[train], values[test])
        return np.asarray(raw, np.float32)[None]
    middle = target.mean(1, keepdims=True)
    return np.asarray(dual_ridge(values[train], values[test]) @ (target - middle) + middle)


def _cosines(found: Floats, scaled: Floats) -> Floats:
    """Compare predictions with every category, shape (shuffle, trial, category)."""
    one, other = (
        part / np.maximum(np.linalg.norm(part, axis=2, keepdims=True), 1e-12)
        for part in (found, scaled)
    )
    return np.asarray(one @ other.transpose(0, 2, 1))


def _scaled(values: Floats, trained: NDArray[np.intp]) -> Floats:
    """Standardise by the categories trained on; what doesn't vary there is 0."""
    known = values[:, trained]
    middle, sd = known.mean(1, keepdims=True), known.std(1, keepdims=True)
    return np.where(sd > 0, (values - middle) / np.where(sd > 0, sd, 1), 0).astype(np.float32)


def _means(scores: NDArray[np.float64], code: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean over categories of each shuffle."""
    columns = [scores[:, code == one].mean(1) for one in np.unique(code)]
    return np.asarray(np.mean(columns, axis=0))


def _estimates(
    hits: NDArray[np.float64],
    pairs: NDArray[np.float64],
    names: NDArray[np.str_],
    n: int,
    n_boot: int,
    seed: int,
) -> dict[str, Estimate]:
    code = np.unique(names, return_inverse=True)[1]
    out = {}
    for name, scores, chance in (("accuracy", hits, 1 / n), ("pairwise", pairs, 0.5)):
        found = summarise(
            scores[0], units=names, n_unit="category", chance=chance, n_boot=n_boot,
            random_state=seed,
        )  # fmt: skip
        if len(scores) > 1:
            means = _means(scores, code)
            p = float(permutation_p(means[0], means[1:]))
            found = replace(found, p=p, baseline=float(means[1:].mean()))
        out[f"zero_shot.{name}"] = found
    return out


def _checked(
    X: ArrayLike, category: ArrayLike, run: ArrayLike, attributes: pd.DataFrame
) -> tuple[Floats, NDArray[np.str_], NDArray[np.str_], pd.DataFrame]:
    values = np.asarray(X, np.float32)
    names, runs = np.asarray(category).astype(str), np.asarray(run).astype(str)
    if values.ndim != 2 or names.shape != (len(values),) or runs.shape != names.shape:
        raise InputError(
            f"X is {values.shape} with {names.shape} categories and {runs.shape} runs; expected "
            "(trial, feature) and one of either for each trial"
        )
    missing = sorted(set(names) - set(attributes.index.astype(str)))
    if missing:
        raise DataError(
            f"the table of attributes has no {', '.join(missing)}; it has "
            f"{', '.join(attributes.index.astype(str))}"
        )
    known = np.unique(names)
    if len(known) < 4 or len(np.unique(runs)) < 2:
        raise DataError(
            f"{len(known)} categories in {len(np.unique(runs))} runs; leaving two categories and a "
            "run out needs four and two"
        )
    return values, names, runs, attributes.loc[known.tolist()]
