"""From a labelled source person to an unlabelled target person: pairs, parts, probes.

Pairs are drawn by a seed before anything is trained. Of the target's recordings one part may be
adapted to, without labels, and the other is scored; windows of one recording are never in both.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, permutations
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.data import split_groups
from neuro.errors import DataError, InputError
from neuro.validation import Estimate, paired_difference, summarise

__all__ = [
    "Pair",
    "clustered_accuracy",
    "draw_pairs",
    "pair_estimate",
    "pair_order",
    "pair_trials",
    "segment_table",
]


@dataclass(frozen=True)
class Pair:
    """A source and a target person."""

    source: str
    target: str


def draw_pairs(subjects: ArrayLike, n_pairs: int = 5, random_state: int = 0) -> list[Pair]:
    """Draw distinct ordered pairs of persons: the first of `pair_order`.

    Parameters
    ----------
    subjects : array-like of str
        Of every trial, or once each.
    n_pairs : int
    random_state : int

    Raises
    ------
    InputError
        Where there are fewer pairs than asked for.

    Examples
    --------
    >>> len(set(draw_pairs(["a", "b", "c"], 6)))
    6
    """
    n = len(np.unique(np.asarray(subjects)))
    if not 1 <= n_pairs <= n * (n - 1):
        raise InputError(f"n_pairs is {n_pairs}; the persons make {n * (n - 1)} pairs")
    return list(islice(pair_order(subjects, random_state), n_pairs))


def pair_order(subjects: ArrayLike, random_state: int = 0) -> Iterator[Pair]:
    """Yield all ordered pairs of persons in an order that the seed alone decides.

    The pairs are shuffled; then, of those left, the first is taken whose persons were in the fewest
    pairs so far. With 20 persons no one recurs before the eleventh pair.

    Parameters
    ----------
    subjects : array-like of str
    random_state : int

    Examples
    --------
    >>> first, second, *_ = pair_order(["a", "b", "c", "d"])
    >>> {first.source, first.target} & {second.source, second.target}
    set()
    """
    every = list(permutations(map(str, np.unique(np.asarray(subjects))), 2))
    left = [every[k] for k in np.random.default_rng(random_state).permutation(len(every))]
    used: Counter[str] = Counter()
    while left:
        chosen = min(
            left,
            key=lambda pair: (max(map(used.__getitem__, pair)), sum(map(used.__getitem__, pair))),
        )
        left.remove(chosen)
        used.update(chosen)
        yield Pair(*chosen)


def pair_estimate(
    values: ArrayLike,
    pairs: Sequence[Pair],
    reference: ArrayLike | None = None,
    *,
    n_boot: int = 2000,
    random_state: int = 0,
    **fields: Any,
) -> Estimate:
    """Describe one number for each pair by its mean and a 95 % interval.

    Where a person is in several pairs, these are not independent: persons, not pairs, are then
    drawn with replacement, and a pair counts as often as its source times its target were drawn
    (the vertex bootstrap of Snijders and Borgatti 1999, without pairs of a person with themself);
    there is no p. Otherwise pairs are drawn.

    Parameters
    ----------
    values : array-like, shape (pair,)
    pairs : sequence of Pair
    reference : array-like, shape (pair,), optional
        Taken away; the p is that of flipped signs.
    n_boot, random_state : int
    **fields
        Of `Estimate`.

    Examples
    --------
    >>> pairs = [Pair("a", "b"), Pair("b", "c"), Pair("c", "a")]
    >>> found = pair_estimate([0.5, 0.7, 0.6], pairs)
    >>> round(found.value, 2), found.low < found.value < found.high
    (0.6, True)
    """
    own = np.asarray(values, dtype=float)
    if reference is None:
        found = summarise(own, n_unit="pair", random_state=random_state, **fields)
    else:
        found = paired_difference(own, reference, n_unit="pair", random_state=random_state)
        own = own - np.asarray(reference, dtype=float)
    names = [name for pair in pairs for name in (pair.source, pair.target)]
    persons, at = np.unique(names, return_inverse=True)
    if len(persons) == len(names) or found.value is None:
        return found
    rng = np.random.default_rng(random_state)
    drawn = rng.multinomial(len(persons), np.full(len(persons), 1 / len(persons)), n_boot)
    weight = drawn[:, at[::2]] * drawn[:, at[1::2]]
    weight = weight[weight.sum(1) > 0]
    low, high = np.percentile(weight @ own / weight.sum(1), [2.5, 97.5])
    return replace(found, low=float(low), high=float(high), p=None)


def clustered_accuracy(
    right: ArrayLike, units: ArrayLike, *, n_unit: str, n_boot: int = 2000, **fields: Any
) -> Estimate:
    """Return the share of trials that are right, with an interval over units of trials.

    Parameters
    ----------
    right : array-like of bool, shape (trial,)
    units : array-like, shape (trial,)
        Trials of one unit are not independent: units are drawn with replacement.
    n_unit : str
    n_boot : int
    **fields
        Of `Estimate`.

    Examples
    --------
    >>> found = clustered_accuracy([1, 1, 0, 1], [0, 0, 1, 2], n_unit="span")
    >>> found.value, found.n
    (0.75, 3)
    """
    own = np.asarray(right, dtype=float)
    _, at = np.unique(np.asarray(units), return_inverse=True)
    hits, sizes = np.bincount(at, own), np.bincount(at)
    value, n = float(own.mean()), len(sizes)
    if n < 2:
        return Estimate(value=value, n=n, n_unit=n_unit, **fields)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), n_boot)
    low, high = np.percentile(drawn @ hits / (drawn @ sizes), [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high), n=n, n_unit=n_unit, **fields)


def pair_trials(
    data: xr.Dataset, pair: Pair, *, score_size: float = 0.5, random_state: int = 0
) -> dict[str, NDArray[np.intp]]:
    """Return the trials of a pair: ``source``, ``adapt`` (unlabelled target) and ``score``.

    Parameters
    ----------
    data : Dataset
        With ``subject``, ``recording`` and ``class`` on ``trial``.
    pair : Pair
    score_size : float
        Share of the target's recordings that are scored.
    random_state : int

    Raises
    ------
    DataError
        Where the target has one recording only, or a class to score that the source lacks.
    """
    who = data["subject"].values.astype(str)
    source, target = (np.flatnonzero(who == name) for name in (pair.source, pair.target))
    recording = data["recording"].values[target]
    if len(source) == 0 or len(np.unique(recording)) < 2:
        raise DataError(
            f"{pair.source} to {pair.target}: {len(source)} source trials and "
            f"{len(np.unique(recording))} target recordings, expected some and at least two"
        )
    adapt, score = split_groups(
        recording, recording, test_size=score_size, random_state=random_state
    )
    labels = data["class"].values
    unknown = set(labels[target[score]]) - set(labels[source])
    if unknown:
        raise DataError(
            f"{pair.target} has classes that {pair.source} lacks: "
            f"{', '.join(sorted(map(str, unknown)))}; keep the classes that both have"
        )
    return {"source": source, "adapt": target[adapt], "score": target[score]}


def segment_table(
    segments: dict[str, NDArray[np.floating]],
    y: ArrayLike,
    domain: ArrayLike,
    groups: ArrayLike,
    target: object,
) -> dict[str, dict[str, float]]:
    """Probe each segment afresh for class and domain: the six-column table of DTS.

    Parameters
    ----------
    segments : dict of ndarray, shape (trial, latent)
        Such as ``g_y`` and ``g_d``, on trials that nothing was adapted to.
    y, domain : array-like, shape (trial,)
        Classes, and source or target. Labels of the target are used by the probes alone.
    groups : array-like, shape (trial,)
        Recordings, or stretches of them: cross-validation keeps them whole. Every fold holds out
        stretches of each class and domain alike, as many folds as the rarest of them has stretches
        (two to five): were a class held out of one domain alone, the class would give the domain
        away, the wrong way round.
    target : object
        The value of `domain` that is the target; all others are the source.

    Returns
    -------
    dict of dict
        By segment ``Acc/D-S``, ``Acc/D-T``, ``Acc/C-S``, ``Acc/C-T``, ``AUC/C-S``, ``AUC/C-T``.
        AUC is over one class against the rest, the mean of those with both sides; NaN if none.
    """
    y, domain = np.asarray(y).astype(str), np.asarray(domain)
    on_target = domain == target
    if on_target.all() or not on_target.any():
        raise DataError("a segment table needs trials of the source and of the target")
    folds = _folds(y, on_target, np.asarray(groups))
    table = {}
    for name, codes in segments.items():
        class_chance, classes = _probed(codes, y, folds)
        is_target, kinds = _probed(codes, on_target, folds)
        right_domain = kinds[is_target.argmax(1)] == on_target
        right_class = classes[class_chance.argmax(1)] == y
        sides = {"S": ~on_target, "T": on_target}
        table[name] = {
            **{f"Acc/D-{side}": float(right_domain[rows].mean()) for side, rows in sides.items()},
            **{f"Acc/C-{side}": float(right_class[rows].mean()) for side, rows in sides.items()},
            **{
                f"AUC/C-{side}": _auc(y[rows], class_chance[rows], classes)
                for side, rows in sides.items()
            },
        }
    return table


def _folds(
    y: NDArray[np.generic], on_target: NDArray[np.bool_], groups: NDArray[np.generic]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return training and test rows of folds that balance class by domain over whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < 2:
        raise DataError("probes need trials of two or more recordings")
    _, strata = np.unique(np.char.add(y.astype(str), on_target.astype(str)), return_inverse=True)
    each = [len(np.unique(groups[strata == k])) for k in range(strata.max() + 1)]
    folds = StratifiedGroupKFold(int(np.clip(min(each), 2, 5)))
    _, classes = np.unique(y, return_inverse=True)
    with warnings.catch_warnings():
        # A class with one stretch is missing from some fold: it is scored where it can be.
        warnings.filterwarnings("ignore", message="The least populated class")
        found = list(folds.split(strata, strata, groups))
        if any(len(np.unique(classes[train])) < 2 for train, _ in found):
            # So few stretches that a fold trained on one class: balance the classes alone.
            found = list(folds.split(classes, classes, groups))
    return found


def _probed(
    codes: NDArray[np.floating],
    y: NDArray[np.generic],
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    """Return class probabilities of held-out groups by a fresh logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(y)
    chance = np.zeros((len(y), len(classes)))
    for train, test in folds:
        known = np.unique(y[train])
        if len(known) == 1:
            chance[test, np.searchsorted(classes, known[0])] = 1
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        model.fit(codes[train], y[train])
        chance[np.ix_(test, np.searchsorted(classes, model.classes_))] = model.predict_proba(
            codes[test]
        )
    return chance, classes


def _auc(
    y: NDArray[np.generic], chance: NDArray[np.float64], classes: NDArray[np.generic]
) -> float:
    from sklearn.metrics import roc_auc_score

    some = [k for k, name in enumerate(classes) if 0 < (y == name).sum() < len(y)]
    scores = [float(roc_auc_score(y == classes[k], chance[:, k])) for k in some]
    return float(np.mean(scores)) if scores else float("nan")
