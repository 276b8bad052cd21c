"""From a labelled source person to an unlabelled target person: pairs, parts, probes.

Pairs are drawn by a seed before anything is trained. Of the target's recordings one part may be
adapted to, without labels, and the other is scored; windows of one recording are never in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.data import split_groups
from neuro.errors import DataError, InputError

__all__ = ["Pair", "draw_pairs", "pair_trials", "segment_table"]


@dataclass(frozen=True)
class Pair:
    """A source and a target person."""

    source: str
    target: str


def draw_pairs(subjects: ArrayLike, n_pairs: int = 5, random_state: int = 0) -> list[Pair]:
    """Draw distinct ordered pairs of persons.

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
    every = list(permutations(map(str, np.unique(np.asarray(subjects))), 2))
    if not 1 <= n_pairs <= len(every):
        raise InputError(f"n_pairs is {n_pairs}; the persons make {len(every)} pairs")
    chosen = np.random.default_rng(random_state).permutation(len(every))[:n_pairs]
    return [Pair(*every[k]) for k in chosen]


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
        Recordings: five-fold cross-validation keeps them whole.
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
    table = {}
    for name, codes in segments.items():
        class_chance, classes = _probed(codes, y, groups)
        is_target, kinds = _probed(codes, on_target, groups)
        right_domain = kinds[is_target.argmax(1)] == on_target
        right_class = classes[class_chance.argmax(1)] == y
        row = {}
        for side, rows in (("S", ~on_target), ("T", on_target)):
            row[f"Acc/D-{side}"] = float(right_domain[rows].mean())
            row[f"Acc/C-{side}"] = float(right_class[rows].mean())
            row[f"AUC/C-{side}"] = _auc(y[rows], class_chance[rows], classes)
        table[name] = row
    return table


def _probed(
    codes: NDArray[np.floating], y: NDArray[np.generic], groups: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    """Return class probabilities of held-out recordings by a fresh logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(y)
    chance = np.zeros((len(y), len(classes)))
    folds = min(5, len(np.unique(np.asarray(groups))))
    if folds < 2:
        raise DataError("probes need trials of two or more recordings")
    for train, test in StratifiedGroupKFold(folds).split(codes, y, groups):
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
