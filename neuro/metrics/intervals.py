"""Intervals of disentanglement scores over rows or groups of rows.

References
----------
Politis, Romano and Wolf, "Subsampling" (1999). Half of the units without replacement, because
the copies that a bootstrap with replacement draws are neighbours at no distance and stand on both
sides of a split: they would raise every k-nearest-neighbour and every held-out score. A statistic
of half the units, drawn so, varies about that of all as that of all does about the truth.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError
from neuro.metrics.factors import Factors, Flags, clean, factor_columns
from neuro.metrics.scores import disentanglement

LEAST_GROUPS = 4
UNBOUNDED = ("tc", "tc_knn")


def disentanglement_intervals(
    latents: ArrayLike,
    factors: Factors,
    *,
    groups: ArrayLike | None = None,
    n_boot: int = 100,
    level: float = 0.95,
    discrete: Flags = None,
    random_state: int = 0,
    **settings: Any,
) -> dict[str, tuple[float, float, float]]:
    """Score latents, with intervals from half-samples.

    Parameters
    ----------
    latents, factors, discrete
        As in `disentanglement`.
    groups : array_like of shape (n,), optional
        Subjects, sessions or runs, kept whole; by default each row is its own.
    n_boot : int
        Half-samples.
    level : float
        Of the interval.
    random_state : int
        Of the half-samples and the scores.
    **settings
        As in `disentanglement`.

    Returns
    -------
    dict of str to (value, low, high)
        The value of all rows, and that value plus the quantiles of the half-samples about their
        mean; bounded scores stay in 0 to 1.

    Raises
    ------
    InputError
        As `disentanglement`; for fewer than four groups, or where half the half-samples lack a
        factor.

    Examples
    --------
    >>> z = np.random.default_rng(0).integers(0, 4, (400, 2))
    >>> value, low, high = disentanglement_intervals(z, z, scores="mig", n_boot=20)["mig"]
    >>> low <= value <= high
    True
    """
    if n_boot < 2 or not 0 < level < 1:
        raise InputError(f"n_boot is {n_boot} (2 at least), level {level} (between 0 and 1)")
    values = np.asarray(latents)
    settings |= {"quantized": settings.get("quantized", values.dtype.kind in "biu")}
    score = {"random_state": random_state, **settings}
    point = disentanglement(values, factors, discrete=discrete, **score)
    members = np.arange(len(values)) if groups is None else _members(groups, len(values))
    n_groups = int(members.max()) + 1
    if n_groups < LEAST_GROUPS:
        raise InputError(f"{n_groups} groups; an interval needs {LEAST_GROUPS} at least")
    kinds, known = _usable(values, factors, discrete)
    rng = np.random.default_rng(random_state)
    drawn = []
    for _ in range(n_boot):
        chosen = np.isin(members, rng.permutation(n_groups)[: n_groups // 2])
        part = {name: column[chosen] for name, column in known.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                drawn.append(disentanglement(values[chosen], part, discrete=kinds, **score))
            except (InputError, UserWarning):  # a factor is constant or too rare in this half
                continue
    if 2 * len(drawn) < n_boot:
        raise InputError(
            f"{n_boot - len(drawn)} of {n_boot} half-samples lack a factor; give more rows or "
            "groups, or leave rare factors out"
        )
    return {name: _interval(name, value, drawn, level) for name, value in point.items()}


# ------------------------------------------------------------------------------------- inside


def _members(groups: ArrayLike, n: int) -> NDArray[np.intp]:
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputError(f"groups have the shape {labels.shape}, expected ({n},)")
    return np.unique(labels.astype(str), return_inverse=True)[1].reshape(-1)


def _usable(values: Any, factors: Factors, discrete: Flags) -> tuple[list[bool], dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # told once, by the scores of all rows
        used = clean(values, factors, discrete)[1]
    given = factor_columns(factors)
    return [f.discrete for f in used], {f.name: given[f.name] for f in used}


def _interval(
    name: str, value: float, drawn: list[dict[str, float]], level: float
) -> tuple[float, float, float]:
    halves = np.array([d[name] for d in drawn])
    tails = np.quantile(halves - halves.mean(), [(1 - level) / 2, (1 + level) / 2])
    bounds = (0.0, np.inf if name in UNBOUNDED else 1.0)
    low, high = np.clip(value + tails, *bounds)
    return value, float(low), float(high)
