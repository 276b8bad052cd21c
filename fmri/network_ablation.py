"""What a network of the brain contributes: take it away from the input and see what is lost.

Two questions that are often mixed up. *Zero-fill at test* asks what a trained model relies on: its
input lacks the network's parcels (0, or their training mean), the model stays. *Retraining* asks
what the rest of the brain can do without them: the model is trained with the parcels blanked. A
larger network costs more for its size alone, so that each stands beside random sets of as many
parcels, drawn from the whole brain.

The model is any function: ``train(X, rows) -> score(X, rows)``, which gives one number a trial.

References
----------
Wang et al., "Decoding Visual Experience and Mapping Semantics through Whole-Brain Analysis Using
fMRI Foundation Models" (2024): the ablation by zero-fill. The random sets, the retraining beside
it and the paired comparisons are this module's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError
from neuro.validation import (
    Estimate,
    Fold,
    correct_estimates,
    paired_difference,
    percentile_interval,
    permutation_p,
    summarise,
)

__all__ = [
    "Ablation",
    "Scorer",
    "Trainer",
    "ablate",
    "blank",
    "compare_sets",
    "network_groups",
    "truth_correlation",
]

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
Groups = Mapping[str, NDArray[np.bool_]]
Scorer = Callable[[Floats, Rows], ArrayLike]
"""``score(X_test, rows) -> (trial,)``: larger is better; `rows` are numbers of trials."""
Trainer = Callable[[Floats, Rows], Scorer]
"""``train(X_train, rows) -> Scorer``; `rows` are numbers of trials in the whole data."""
Progress = Callable[..., Iterator[Any]]
Fill = Literal["zero", "mean"]


@dataclass(frozen=True)
class Ablation:
    """What every network costs.

    Attributes
    ----------
    estimates : dict of str to Estimate
        For each network the drop, whole minus ablated, with its interval over units; `p` is that
        of random sets of as many parcels losing as much (one-sided), `p_corrected` by Holm over
        networks, `baseline` the mean drop of these sets.
    random : Estimate
        Mean drop of the random sets of all sizes; the interval is the 95 % band of sets.
    bands : dict of str to (float, float)
        The band of random sets of the size of each network.
    whole : Estimate
        Score of the whole brain.
    scores : dict of str to ndarray of shape (trial,)
        Of every trial: ``whole`` and each network; NaN where a trial was in no test part.
    sizes : dict of str to int
        Parcels of each network.
    how : str
        ``zero``, ``mean`` or ``retrain``.
    """

    estimates: dict[str, Estimate]
    random: Estimate
    bands: dict[str, tuple[float, float]]
    whole: Estimate
    scores: dict[str, NDArray[np.float64]]
    sizes: dict[str, int]
    how: str

    @property
    def table(self) -> pd.DataFrame:
        """One row for each network."""
        return pd.DataFrame(
            [
                {
                    "how": self.how, "network": name, "parcels": self.sizes[name],
                    "drop": e.value, "low": e.low, "high": e.high, "random": e.baseline,
                    "random_low": self.bands[name][0], "random_high": self.bands[name][1],
                    "p": e.p, "p_corrected": e.p_corrected, "units": e.n,
                }
                for name, e in self.estimates.items()
            ]
        )  # fmt: skip

    def inside(self, name: str) -> bool:
        """Tell whether a network costs what random parcels cost: its drop lies in their band."""
        low, high = self.bands[name]
        value = self.estimates[name].value
        return value is not None and low <= value <= high


def network_groups(network: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """Turn the network of each parcel into sets of parcels.

    Parameters
    ----------
    network : array_like of str, shape (parcel,)

    Raises
    ------
    DataError
        Where parcels have no network, or all have one.

    Examples
    --------
    >>> {k: v.tolist() for k, v in network_groups(["Vis", "Default", "Vis"]).items()}
    {'Default': [False, True, False], 'Vis': [True, False, True]}
    """
    names = np.asarray(network).astype(str)
    gone = np.isin(names, ("", "nan", "None"))
    if gone.any():
        raise DataError(
            f"{int(gone.sum())} of {len(names)} parcels have no network (the first is parcel "
            f"{int(np.argmax(gone))}); give a table of the atlas with a column 'network', and "
            "'none' for parcels that belong to none"
        )
    known = np.unique(names)
    if len(known) < 2:
        raise DataError(f"all {len(names)} parcels are of the network {known[0]}; expected several")
    return {str(name): names == name for name in known}


def blank(X: Floats, parcels: NDArray[np.bool_], values: ArrayLike = 0.0) -> Floats:
    """Return the input without some parcels.

    Parameters
    ----------
    X : ndarray of shape (trial, parcel, time)
    parcels : ndarray of bool, shape (parcel,)
    values : float or array_like of shape (parcel, time)
        What stands in their place.

    Examples
    --------
    >>> blank(np.ones((1, 2, 1), np.float32), np.array([True, False])).ravel().tolist()
    [0.0, 1.0]
    """
    out = X.copy()
    out[:, parcels] = np.broadcast_to(np.asarray(values, np.float32), X.shape[1:])[parcels]
    return out


def ablate(
    X: ArrayLike,
    groups: Groups,
    train: Trainer,
    folds: Sequence[Fold],
    units: ArrayLike,
    *,
    how: Literal["zero", "mean", "retrain"] = "zero",
    n_random: int = 200,
    n_unit: str = "run",
    n_boot: int = 2000,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Ablation:
    """Take away one network after another, and random sets of as many parcels.

    Parameters
    ----------
    X : array_like of shape (trial, parcel, time)
    groups : mapping of str to ndarray of bool, shape (parcel,)
        Sets of parcels, see `network_groups`; they may overlap.
    train : callable
        ``train(X, rows) -> score(X, rows)``.
    folds : sequence of (train, test)
        Of whole groups of rows (`neuro.validation.grouped_folds`); one pair is a fixed split.
    units : array_like of shape (trial,)
        What intervals are over: run, item, subject.
    how : {"zero", "mean", "retrain"}
        Fill with 0 or the mean of the training part at test alone, or fill with 0 in training and
        test.
    n_random : int
        Random sets for each size; with retraining each is a model of its own. No p is smaller
        than ``1 / (n_random + 1)``.
    n_unit, n_boot, random_state
        Name of a unit, bootstrap samples, seed of sets and intervals.
    progress : callable, optional
        As `Context.progress`.

    Returns
    -------
    Ablation

    Raises
    ------
    InputError
        Where shapes don't fit, or a set holds no parcel or all.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.tile([-1.0, 1.0], 20)
    >>> X = rng.standard_normal((40, 4, 1)).astype(np.float32)
    >>> X[:, :2, 0] += 3 * y[:, None]
    >>> def train(X, rows):
    ...     return lambda new, rows: (np.sign(new[:, :2].sum((1, 2)) + 0.01) == y[rows]) * 1.0
    >>> sets = network_groups(["a", "a", "b", "b"])
    >>> halves = [(np.arange(20), np.arange(20, 40))]
    >>> found = ablate(X, sets, train, halves, np.arange(40), n_random=5)
    >>> found.estimates["a"].value > 0.3, found.estimates["b"].value
    (True, 0.0)
    """
    values, groups = _checked(X, groups, units)
    sets = _sets(groups, values.shape[1], n_random, random_state)
    scores = {key: np.full(len(values), np.nan) for key in ("whole", *sets)}
    jobs = [(fold, key) for fold in range(len(folds)) for key in sets]
    model: tuple[int, Scorer] | None = None
    for fold, key in jobs if progress is None else progress(jobs, f"ablation ({how})", len(jobs)):
        rows, test = (np.asarray(part) for part in folds[fold])
        if model is None or model[0] != fold:
            model = fold, train(values[rows], rows)
            scores["whole"][test] = model[1](values[test], test)
        fill = values[rows].mean(0) if how == "mean" else np.float32(0)
        scorer = train(blank(values[rows], sets[key]), rows) if how == "retrain" else model[1]
        scores[key][test] = scorer(blank(values[test], sets[key], fill), test)
    settings = {"n_unit": n_unit, "n_boot": n_boot, "random_state": random_state}
    return _summary(scores, groups, np.asarray(units), how, settings)


def compare_sets(
    X: ArrayLike,
    visual: NDArray[np.bool_],
    train: Trainer,
    folds: Sequence[Fold],
    units: ArrayLike,
    *,
    chance: float | None = None,
    n_unit: str = "run",
    n_boot: int = 2000,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Compare the whole brain with the visual network alone and with everything but it.

    Each of the three is trained for itself on its parcels (the others are 0).

    Parameters
    ----------
    X : array_like of shape (trial, parcel, time)
    visual : ndarray of bool, shape (parcel,)
    train, folds, units, n_unit, n_boot, random_state
        As for `ablate`; the scores are hits, 0 or 1.
    chance : float, optional

    Returns
    -------
    dict of str to Estimate
        ``<whole|visual_only|without_visual>.accuracy``, and the paired differences
        ``whole.over_visual_only``, ``whole.over_without_visual``,
        ``without_visual.over_visual_only`` with sign-flip p, by Holm over the three.
    """
    values, _ = _checked(X, {"visual": visual}, units)
    off = {"whole": np.zeros_like(visual), "visual_only": ~visual, "without_visual": visual}
    scores = {name: np.full(len(values), np.nan) for name in off}
    for rows, test in folds:
        for name, parcels in off.items():
            scorer = train(blank(values[rows], parcels), rows)
            scores[name][test] = scorer(blank(values[test], parcels), test)
    settings: dict[str, Any] = {
        "units": units, "n_unit": n_unit, "n_boot": n_boot, "random_state": random_state
    }  # fmt: skip
    out = {
        f"{name}.accuracy": summarise(score, chance=chance, **settings)
        for name, score in scores.items()
    }
    pairs = (("whole", "visual_only"), ("whole", "without_visual"),
             ("without_visual", "visual_only"))  # fmt: skip
    differences = {
        f"{one}.over_{other}": paired_difference(scores[one], scores[other], **settings)
        for one, other in pairs
    }
    return out | correct_estimates(differences)


def truth_correlation(drops: Mapping[str, float | None], truth: Mapping[str, float]) -> float:
    """Rank correlation (Spearman) of what networks cost with what they were given.

    Raises
    ------
    DataError
        Where fewer than three networks have both.

    Examples
    --------
    >>> round(truth_correlation({"a": 0.3, "b": 0.1, "c": 0.0}, {"a": 1, "b": 0.5, "c": 0}), 6)
    1.0
    """
    from scipy.stats import spearmanr

    both = [name for name in drops if name in truth and drops[name] is not None]
    if len(both) < 3:
        raise DataError(f"{len(both)} networks have a drop and a truth; ranks need three")
    found = spearmanr([drops[name] for name in both], [truth[name] for name in both])
    return float(found.statistic)


# Inside ---------------------------------------------------------------------------------------


def _checked(X: ArrayLike, groups: Groups, units: ArrayLike) -> tuple[Floats, Groups]:
    values = np.asarray(X, dtype=np.float32)
    if values.ndim != 3 or np.shape(units) != (len(values),):
        raise InputError(
            f"X is {values.shape} with units of shape {np.shape(units)}; expected (trial, parcel, "
            "time) and one unit a trial"
        )
    if not np.isfinite(values).all():
        raise DataError("X holds NaN or infinity; pad short trials with 0")
    found = {str(name): np.asarray(one, dtype=bool) for name, one in groups.items()}
    for name, one in found.items():
        if one.shape != (values.shape[1],) or one.all() or not one.any():
            raise InputError(
                f"'{name}' marks {int(one.sum())} of {one.size} parcels, the data have "
                f"{values.shape[1]}; a set holds some of them, not all"
            )
    return values, found


def _sets(groups: Groups, n: int, n_random: int, seed: int) -> dict[Any, NDArray[np.bool_]]:
    """Networks by name, and random sets by (size, number); the same in all folds."""
    out: dict[Any, NDArray[np.bool_]] = dict(groups)
    rng = np.random.default_rng([seed, 7])
    for size in sorted({int(one.sum()) for one in groups.values()}):
        for number in range(n_random):
            chosen = np.zeros(n, dtype=bool)
            chosen[rng.permutation(n)[:size]] = True
            out[size, number] = chosen
    return out


def _summary(
    scores: dict[Any, NDArray[np.float64]],
    groups: Groups,
    units: NDArray[Any],
    how: str,
    settings: dict[str, Any],
) -> Ablation:
    whole = scores["whole"]
    sizes = {name: int(one.sum()) for name, one in groups.items()}
    null = {
        size: np.array([
            summarise(whole - score, units=units, n_boot=1).value
            for key, score in scores.items() if isinstance(key, tuple) and key[0] == size
        ], dtype=float)
        for size in sorted(set(sizes.values()))
    }  # fmt: skip
    estimates, bands = {}, {}
    for name, size in sizes.items():
        drop = summarise(whole - scores[name], units=units, **settings)
        drawn = null[size]
        p = permutation_p(drop.value, drawn) if len(drawn) and drop.value is not None else None
        estimates[name] = replace(drop, p=p, baseline=float(drawn.mean()) if len(drawn) else None)
        bands[name] = percentile_interval(drawn)
    every = np.concatenate(list(null.values()))
    low, high = percentile_interval(every)
    random = Estimate(
        float(every.mean()) if len(every) else None, low, high, n=len(every), n_unit="random set"
    )
    kept = {key: score for key, score in scores.items() if not isinstance(key, tuple)}
    return Ablation(
        correct_estimates(estimates), random, bands, summarise(whole, units=units, **settings),
        kept, sizes, how,
    )  # fmt: skip
