"""Validation in one form for every modality: folds, intervals over units, permutation, correction.

A *unit* is what a claim is about and what is resampled: a subject, an image, a device. Rows
(trials) of one unit are never split between training and test, and never count as independent.
Every stage describes a number by an `Estimate` and hands it over by `Estimate.record`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError

if TYPE_CHECKING:
    from neuro.stage import Context

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Estimate:
    """A number with what is needed to judge it; the fields are those of ``metrics.json``.

    Parameters
    ----------
    value : float or None
        The number; None where it can't be computed (the reason belongs in the report).
    low, high : float or None
        Ends of the 95 % interval over units.
    n : int or None
        How many units.
    n_unit : str or None
        What a unit is: ``"subject"``, ``"image"``, ``"device"``.
    chance : float or None
        The value of guessing.
    p, p_corrected : float or None
        Permutation p, and the same after correction over a family of tests.
    baseline : float or None
        The value of the method to beat.
    unit : str or None
        The physical unit, None for pure numbers.

    Examples
    --------
    >>> Estimate(0.7, 0.6, 0.8, n=20, n_unit="subject", chance=0.5).above(0.5)
    True
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    n_unit: str | None = None
    chance: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    baseline: float | None = None
    unit: str | None = None

    def above(self, reference: float) -> bool:
        """Tell whether the whole interval lies above `reference`."""
        return self.low is not None and self.low > reference

    def record(self, context: Context, name: str) -> None:
        """Contribute the number to the run's metrics under a dotted `name`."""
        fields = {key: _plain(entry) for key, entry in asdict(self).items()}
        context.metric(name, fields.pop("value"), **fields)


def _plain(entry: Any) -> Any:
    """Turn NumPy scalars into Python's, and what is not finite into None."""
    if isinstance(entry, np.generic):
        entry = entry.item()
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


# ------------------------------------------------------------------------------------- folds


def grouped_folds(
    groups: ArrayLike,
    y: ArrayLike | Sequence[ArrayLike] | None = None,
    *,
    n_splits: int | None = 5,
    random_state: int = 0,
) -> list[Fold]:
    """Split rows into folds that never share a group and are balanced over classes.

    Groups are dealt out rarest class first, each to the fold that has least of that class
    (iterative stratification, Sechidis et al. 2011), so that several labels can share one set
    of folds. With one label the number of groups of a class differs by at most one over folds.

    Parameters
    ----------
    groups : array_like of shape (n,)
        The group (subject, device) of each row.
    y : array_like of shape (n,), or a list of such, optional
        Labels to balance. They may vary inside a group (then its shares count). Missing labels
        ("" or NaN) are not balanced.
    n_splits : int or None
        Number of folds; None leaves out one group at a time.
    random_state : int
        Seed of the order in which equal groups are dealt out.

    Returns
    -------
    list of (train, test)
        Sorted row indices; each row is tested exactly once.

    Raises
    ------
    InputError
        With fewer groups than folds, or labels of another length.

    Examples
    --------
    >>> folds = grouped_folds(["a", "a", "b", "b"], n_splits=2)
    >>> sorted(test.tolist() for _, test in folds)
    [[0, 1], [2, 3]]
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    n_splits = len(names) if n_splits is None else n_splits
    if n_splits < 2 or len(names) < n_splits:
        raise InputError(
            f"{n_splits} folds were asked for, but there are {len(names)} groups: "
            f"set n_splits between 2 and {len(names)}"
        )
    mass = _class_mass(codes, len(names), _columns(y, len(codes)))
    fold_of = _deal(mass, n_splits, np.random.default_rng(random_state))
    row_fold = fold_of[codes]
    return [
        (np.flatnonzero(row_fold != fold), np.flatnonzero(row_fold == fold))
        for fold in range(n_splits)
    ]


def _columns(y: Any, n: int) -> list[NDArray[Any]]:
    if y is None:
        return []
    several = isinstance(y, list | tuple) and len(y) > 0 and np.ndim(y[0]) == 1
    columns = [np.asarray(column) for column in (y if several else [y])]
    for column in columns:
        if column.shape != (n,):
            raise InputError(f"labels have the shape {column.shape}, expected ({n},) as the groups")
    return columns


def is_missing(labels: ArrayLike) -> NDArray[np.bool_]:
    """Mark missing labels: empty text, None or NaN.

    Examples
    --------
    >>> is_missing(["yes", "", "no"]).tolist()
    [False, True, False]
    """
    labels = np.asarray(labels)
    if labels.dtype.kind == "f":
        return np.isnan(labels)
    return np.isin(labels.astype(str), ("", "nan", "None", "n/a"))


def _class_mass(
    codes: NDArray[np.intp], n_groups: int, columns: list[NDArray[Any]]
) -> NDArray[np.float64]:
    """Share of each group's rows that have each class: (groups, classes of all labels)."""
    size = np.bincount(codes, minlength=n_groups)
    shares = [
        np.bincount(codes[column == value], minlength=n_groups) / size
        for column in columns
        for value in np.unique(column[~is_missing(column)])
    ]
    return np.column_stack(shares) if shares else np.ones((n_groups, 1))


def _deal(mass: NDArray[np.float64], n_splits: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Deal groups out to folds, rarest remaining class first."""
    fold_of = np.full(len(mass), -1)
    held = np.zeros((n_splits, mass.shape[1]))
    size = np.zeros(n_splits)
    waiting = rng.permutation(len(mass))
    while len(waiting):
        left = mass[waiting].sum(0)
        target = int(np.argmin(np.where(left > 0, left, np.inf)))
        has = waiting[mass[waiting, target] > 0] if left[target] > 0 else waiting
        for group in has:
            other = held @ mass[group]
            fold = np.lexsort((rng.random(n_splits), other, size, held[:, target]))[0]
            fold_of[group] = fold
            held[fold] += mass[group]
            size[fold] += 1
        waiting = waiting[fold_of[waiting] < 0]
    for empty in np.flatnonzero(size == 0):
        # Many labels can leave a fold without a group: it takes one from the largest.
        largest = np.argmax(np.bincount(fold_of, minlength=n_splits))
        fold_of[np.flatnonzero(fold_of == largest)[0]] = empty
    return fold_of


# ----------------------------------------------------------------------------------- intervals


def bootstrap_weights(n_units: int, n_boot: int = 2000, random_state: int = 0) -> NDArray[np.int64]:
    """Draw how often each unit enters each bootstrap sample.

    Returns
    -------
    ndarray of shape (n_boot, n_units)
        Each row sums to `n_units`; a mean over the samples is ``weights @ values / n_units``.

    Examples
    --------
    >>> bootstrap_weights(4, n_boot=3).sum(axis=1).tolist()
    [4, 4, 4]
    """
    rng = np.random.default_rng(random_state)
    return rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_boot)


def nested_weights(
    units: ArrayLike, weights: ArrayLike, random_state: int = 0
) -> NDArray[np.int64]:
    """Resample the rows inside every unit that a bootstrap sample holds.

    Two or three units can agree by luck, and a bootstrap over units alone then gives an interval
    narrower than the error of their rows. This one is never narrower; it is cautious, as
    the spread of units holds the error of rows already.

    Parameters
    ----------
    units : array_like of int, shape (n,)
        The number of each row's unit.
    weights : array_like of int, shape (n_boot, n_units)
        From `bootstrap_weights`.
    random_state : int

    Returns
    -------
    ndarray of int, shape (n_boot, n)
        How often each row enters each sample; each unit drawn brings as many rows as it has.

    Examples
    --------
    >>> nested_weights([0, 0, 1], [[2, 0], [1, 1]]).sum(axis=1).tolist()
    [4, 3]
    """
    units, weights = np.asarray(units), np.asarray(weights)
    rng = np.random.default_rng([random_state, 1])
    found = np.zeros((len(weights), len(units)), dtype=np.int64)
    for number in range(weights.shape[1]):
        own = np.flatnonzero(units == number)
        if len(own):
            found[:, own] = rng.multinomial(
                weights[:, number] * len(own), np.full(len(own), 1 / len(own))
            )
    return found


def percentile_interval(
    samples: ArrayLike, *, level: float = 0.95, n_units: int | None = None
) -> tuple[float, float]:
    """Take the interval from bootstrap samples.

    Parameters
    ----------
    samples : array_like of shape (n_boot,)
        The statistic in each sample; NaN (a class without units) is left out.
    level : float
        Nominal coverage.
    n_units : int, optional
        Widens the interval for few units by the ratio of Student's t to the normal quantile
        and ``sqrt(n / (n - 1))`` (the expanded percentile interval of Hesterberg 2015).

    Returns
    -------
    low, high : float
        NaN where no sample is finite.
    """
    drawn = np.asarray(samples, dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size == 0:
        return math.nan, math.nan
    tail = _tail(level, n_units)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def exact_interval(
    value: float, n_units: int, *, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Take the interval of a share that is 1 or 0, for which a bootstrap gives no width.

    Parameters
    ----------
    value : float
        The share of right units: 1 or 0; for others there is no interval.
    n_units : int
        How many units, each right or wrong.
    level : float
        Coverage.

    Returns
    -------
    low, high : float, or None
        Of Clopper and Pearson (1934).

    Examples
    --------
    >>> low, high = exact_interval(1.0, 4)
    >>> round(low, 3), high
    (0.398, 1.0)
    """
    edge = ((1 - level) / 2) ** (1 / n_units)
    return {1.0: (edge, 1.0), 0.0: (0.0, 1 - edge)}.get(value, (None, None))


def _tail(level: float, n_units: int | None) -> float:
    tail = (1 - level) / 2
    if n_units is None or n_units < 2:
        return tail
    from scipy import stats

    wide = math.sqrt(n_units / (n_units - 1)) * stats.t.isf(tail, n_units - 1)
    return float(stats.norm.sf(wide))


def bootstrap_interval(
    values: ArrayLike,
    *,
    units: ArrayLike | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    statistic: Literal["mean", "median"] = "mean",
    random_state: int = 0,
) -> tuple[float, float]:
    """Bootstrap an interval over units.

    Parameters
    ----------
    values : array_like of shape (n,)
        One number per row; NaN is left out.
    units : array_like of shape (n,), optional
        The unit of each row; without it every row is a unit. Rows are averaged inside a unit
        first, so that a unit counts once however many rows it has.
    n_boot, level, random_state
        Number of samples, nominal coverage, seed.
    statistic : {"mean", "median"}
        Over units.

    Returns
    -------
    low, high : float
        NaN with fewer than two units.

    Examples
    --------
    >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> low < 3 < high
    True
    """
    values = unit_means(values, units)
    if len(values) < 2:
        return math.nan, math.nan
    if statistic == "median":
        rng = np.random.default_rng(random_state)
        drawn = rng.integers(len(values), size=(n_boot, len(values)))
        samples = np.median(values[drawn], axis=1)
    else:
        samples = bootstrap_weights(len(values), n_boot, random_state) @ values / len(values)
    return percentile_interval(samples, level=level, n_units=len(values))


def unit_means(values: ArrayLike, units: ArrayLike | None = None) -> NDArray[np.float64]:
    """Average finite rows inside each unit (sorted by unit); units without any are left out.

    Examples
    --------
    >>> unit_means([1.0, 3.0, 5.0], ["a", "a", "b"]).tolist()
    [2.0, 5.0]
    """
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    if units is None:
        return values[finite]
    _, codes = np.unique(np.asarray(units)[finite], return_inverse=True)
    if not len(codes):
        return np.empty(0)
    return np.bincount(codes, values[finite]) / np.bincount(codes)


def summarise(
    values: ArrayLike,
    *,
    units: ArrayLike | None = None,
    n_unit: str = "subject",
    n_boot: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
    **fields: Any,
) -> Estimate:
    """Describe one number per row by its mean over units and the interval.

    `fields` (``chance``, ``baseline``, ``unit``...) go into the `Estimate`.

    Examples
    --------
    >>> summarise([0.5, 0.7]).n
    2
    """
    means = unit_means(values, units)
    if len(means) == 0:
        return Estimate(n=0, n_unit=n_unit, **fields)
    low, high = bootstrap_interval(means, n_boot=n_boot, level=level, random_state=random_state)
    known = not math.isnan(low)
    return Estimate(
        value=float(means.mean()),
        low=low if known else None,
        high=high if known else None,
        n=len(means),
        n_unit=n_unit,
        **fields,
    )


def paired_difference(
    values: ArrayLike,
    reference: ArrayLike,
    *,
    units: ArrayLike | None = None,
    n_unit: str = "subject",
    n_boot: int = 2000,
    n_permutations: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
) -> Estimate:
    """Estimate ``values - reference`` over units, with a two-sided sign-flip p.

    Parameters
    ----------
    values, reference : array_like of shape (n,)
        Two methods on the same rows; a row where either is NaN is left out.
    units : array_like of shape (n,), optional
        The unit of each row.

    Returns
    -------
    Estimate
        The mean difference; `baseline` is the mean of `reference`.

    Examples
    --------
    >>> paired_difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]).value
    2.0
    """
    values, reference = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if values.shape != reference.shape:
        raise InputError(f"paired values differ in shape: {values.shape} and {reference.shape}")
    both = np.where(np.isfinite(values), reference, np.nan)
    difference = unit_means(values - reference, units)
    estimate = summarise(
        difference, n_unit=n_unit, n_boot=n_boot, level=level, random_state=random_state
    )
    if estimate.value is None:
        return estimate
    signs = np.random.default_rng(random_state).choice(
        (-1.0, 1.0), size=(n_permutations, len(difference))
    )
    null = signs @ difference / len(difference)
    p = permutation_p(abs(estimate.value), np.abs(null))
    return replace(estimate, p=float(p), baseline=float(unit_means(both, units).mean()))


# --------------------------------------------------------------------------------- permutation


def permute_labels(
    y: ArrayLike,
    groups: ArrayLike,
    n_permutations: int,
    *,
    within: bool = False,
    blocks: ArrayLike | None = None,
    random_state: int = 0,
) -> NDArray[np.intp]:
    """Shuffle labels as the design allows: between groups, or inside each group.

    Parameters
    ----------
    y : array_like of int, shape (n,)
        Class of each row.
    groups : array_like of shape (n,)
        Subject of each row. Between groups, all rows of a group must share a label.
    n_permutations : int
        How many shuffles.
    within : bool
        Shuffle rows inside each group (a condition); False deals whole groups' labels out anew
        (a diagnosis).
    blocks : array_like of shape (n,), optional
        Labels are exchanged only inside a block. With the fold as block the shuffled labels
        stay as balanced over folds as the real ones, which makes the test exact.
    random_state : int
        Seed.

    Returns
    -------
    ndarray of int, shape (n_permutations, n)

    Raises
    ------
    InputError
        Where labels vary inside a group and `within` is False.
    """
    y = np.asarray(y)
    _, first, codes = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    rng = np.random.default_rng(random_state)
    if within:
        return y[_shuffled_rows(codes, n_permutations, rng)]
    if np.any(y != y[first][codes]):
        raise InputError(
            "the label varies inside a group, so whole groups can't exchange it: use within=True"
        )
    block = np.zeros(len(first), dtype=int) if blocks is None else np.asarray(blocks)[first]
    return y[first][_shuffled_rows(block, n_permutations, rng)][:, codes]


def _shuffled_rows(
    blocks: ArrayLike, n_permutations: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Row indices shuffled inside blocks, (n_permutations, n)."""
    _, codes = np.unique(np.asarray(blocks), return_inverse=True)
    home = np.argsort(codes, kind="stable")
    # Sorting block number + a uniform draw shuffles every block of every permutation at once.
    drawn = np.argsort(codes + rng.random((n_permutations, len(codes))), axis=1)
    rows = np.empty_like(drawn)
    rows[:, home] = drawn
    return rows


def arrangements(y: ArrayLike, limit: int) -> NDArray[np.intp] | None:
    """List all other orders of a few labels, for an exact permutation test.

    Parameters
    ----------
    y : array_like of int, shape (n,)
    limit : int
        Most orders to list.

    Returns
    -------
    ndarray of int, shape (m, n), or None
        Every distinct order but `y` itself; None where there are more than `limit`, or none.

    Examples
    --------
    >>> arrangements([0, 0, 1], 10).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    y = np.asarray(y, dtype=np.intp)
    counts = np.unique(y, return_counts=True)[1]
    total = math.factorial(len(y)) // math.prod(math.factorial(int(count)) for count in counts)
    if not 1 < total <= limit + 1:
        return None
    orders = np.array(list(_orders(tuple(sorted(y.tolist())))), dtype=np.intp)
    return orders[(orders != y).any(1)]


def _orders(left: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the distinct orders of sorted labels."""
    if not left:
        yield ()
    for value in dict.fromkeys(left):
        place = left.index(value)
        for rest in _orders(left[:place] + left[place + 1 :]):
            yield (value, *rest)


def permutation_p(observed: ArrayLike, null: ArrayLike) -> Any:
    """Compute the permutation p of a statistic whose large values speak against the null.

    ``(1 + b) / (1 + n)`` with b the number of null values not below the observed one (Phipson
    and Smyth 2010): never 0, and valid for any number of permutations.

    Parameters
    ----------
    observed : array_like of shape (...)
    null : array_like of shape (n, ...)

    Returns
    -------
    float or ndarray of shape (...)

    Examples
    --------
    >>> permutation_p(3.0, [1.0, 2.0, 3.0])
    0.5
    """
    null, observed = np.asarray(null, dtype=float), np.asarray(observed, dtype=float)
    # Equal statistics may differ in the last bits when summed in another order.
    close = 1e-9 * np.maximum(np.abs(observed), 1e-12)
    p = (1 + np.sum(null >= observed - close, axis=0)) / (1 + len(null))
    return float(p) if np.ndim(p) == 0 else p


def shuffled_band(null: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Return mean, low and high of the scores under shuffled labels.

    Examples
    --------
    >>> shuffled_band([0.4, 0.5, 0.6])[0]
    0.5
    """
    null = np.asarray(null, dtype=float)
    low, high = percentile_interval(null, level=level)
    return float(np.mean(null)), low, high


def correct(
    p: ArrayLike, method: Literal["holm", "bh", "bonferroni"] = "holm"
) -> NDArray[np.float64]:
    """Correct p-values for multiple tests; NaN stays NaN and is not counted.

    Parameters
    ----------
    p : array_like of shape (n,)
    method : {"holm", "bh", "bonferroni"}
        Holm's step-down (family-wise error), Benjamini and Hochberg's step-up (false discovery
        rate), or plain Bonferroni.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> correct([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    if method not in _CORRECTIONS:
        raise InputError(f"correction '{method}' is not known: use holm, bh or bonferroni")
    corrected = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    order = np.argsort(p[known], kind="stable")
    fixed = np.empty(len(order))
    fixed[order] = np.minimum(_CORRECTIONS[method](p[known][order]), 1.0)
    corrected[known] = fixed
    return corrected


def _holm(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1))


def _benjamini_hochberg(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    raw = ordered * len(ordered) / np.arange(1, len(ordered) + 1)
    return np.minimum.accumulate(raw[::-1])[::-1]


_CORRECTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "holm": _holm,
    "bh": _benjamini_hochberg,
    "bonferroni": lambda ordered: ordered * len(ordered),
}


def correct_estimates(
    estimates: dict[Any, Estimate], method: Literal["holm", "bh", "bonferroni"] = "holm"
) -> dict[Any, Estimate]:
    """Fill in `p_corrected` of a family of estimates (one test per entry).

    Examples
    --------
    >>> correct_estimates({"a": Estimate(p=0.01), "b": Estimate(p=0.5)})["a"].p_corrected
    0.02
    """
    p = [math.nan if e.p is None else e.p for e in estimates.values()]
    corrected = correct(p, method)
    return {
        key: replace(estimate, p_corrected=None if math.isnan(fixed) else float(fixed))
        for (key, estimate), fixed in zip(estimates.items(), corrected, strict=True)
    }
