"""Which labels can be read from the latents of people the encoder never saw, and by how much.

Latents are averaged over a subject's trials of each condition before the classifier (a subject's
row holds their mean and the conditions' deviations from it); single trials are a row of their
own. One closed-form classifier (a class-balanced discriminant, its shrinkage tuned on training
subjects for each labelling) serves the real labels and hundreds of shuffled ones, on the same
features and folds: the shuffled band is the honest chance level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eeg.cohort import Cohort, Ints
from eeg.predictors import Components
from neuro.metrics import (
    balanced_accuracy,
    chance_level,
    class_hits,
    discriminate,
    weighted_balanced_accuracy,
)
from neuro.validation import (
    Estimate,
    Fold,
    arrangements,
    bootstrap_weights,
    correct_estimates,
    is_missing,
    percentile_interval,
    permutation_p,
    permute_labels,
    shuffled_band,
)

REPRESENTATIONS = ("beta_vae", "window", "pca")
LEVELS = ("subject", "single_trial")
MOST_CLASSES = 10
Features = NDArray[np.float64]
Key = tuple[str, str, str]  # label, representation, level


@dataclass
class Classification:
    """How well labels are predicted on held-out subjects.

    Parameters
    ----------
    estimates : dict of (label, representation, level) to Estimate
        Balanced accuracy with its bootstrap interval over subjects, permutation p, and p
        corrected over labels (Holm). The representation ``shuffled`` is the label-shuffled
        control of the latents: mean and 95 % band.
    bands : dict of the same keys to (mean, low, high)
        The shuffled band of every representation.
    rows : list of dict
        Predictions: item, unit, fold, target, truth, score (the probability given to the truth).
    excluded : list of dict
        label and reason.
    latents : list of dict
        fold, and how many latents were kept out of how many.
    """

    estimates: dict[Key, Estimate]
    bands: dict[Key, tuple[float, float, float]]
    rows: list[dict[str, Any]]
    excluded: list[dict[str, str]] = field(default_factory=list)
    latents: list[dict[str, int]] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """Rows for the report: one per label, representation and level."""
        return [
            {
                "label": label,
                "representation": representation,
                "level": level,
                "balanced_accuracy": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "chance": estimate.chance,
                "shuffled": self.bands[key][0],
                "shuffled_low": self.bands[key][1],
                "shuffled_high": self.bands[key][2],
                "p": estimate.p,
                "p_corrected": estimate.p_corrected,
                "n": estimate.n,
            }
            for key, estimate in self.estimates.items()
            for label, representation, level in [key]
        ]

    def by_name(self) -> dict[str, Estimate]:
        """Estimates by their name in ``metrics.json``, without the leading ``classify.``."""
        return {
            f"{label}.{representation}"
            f"{'.single_trial' if level == 'single_trial' else ''}.balanced_accuracy": estimate
            for (label, representation, level), estimate in self.estimates.items()
        }

    def predictions(self) -> list[dict[str, Any]]:
        """Rows of ``predictions.parquet``."""
        return self.rows


@dataclass(frozen=True)
class Target:
    """One label, ready to be predicted.

    Parameters
    ----------
    name : str
    classes : ndarray of str
    codes : ndarray of int, shape (n,)
        Class of each trial, -1 where missing.
    within : bool
        Whether it varies inside subjects (a condition).
    """

    name: str
    classes: NDArray[np.str_]
    codes: Ints
    within: bool


def classify(
    encoders: Sequence[Any],
    data: Any,
    folds: Sequence[Fold],
    labels: Sequence[str] | None = None,
    *,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    random_state: int = 0,
) -> Classification:
    """Predict every label from latents, window features and principal components.

    Parameters
    ----------
    encoders : sequence of Encoder
        One per fold, fitted on its training trials only.
    data : Dataset or DataArray
        Trials (trial, channel, time) in uV with ``subject`` and the labels.
    folds : sequence of (train, test)
        Subjects never shared; every subject tested once.
    labels : sequence of str, optional
        Names of coordinates; by default the dataset's labels and the condition.
    n_shuffles, n_boot, random_state
        Shuffles of the labels, bootstrap samples over subjects, seed.

    Returns
    -------
    Classification
        A label that can't be scored is in `excluded` with the reason.
    """
    cohort = Cohort.of(data)
    targets, excluded = usable_labels(data, labels, len(folds))
    fold_of = np.empty(len(cohort.X), dtype=np.intp)
    for number, (_, test) in enumerate(folds):
        fold_of[test] = number
    features, latents = _all_features(encoders, cohort, folds, random_state)
    result = Classification({}, {}, [], excluded, latents)
    for target in targets:
        for level in LEVELS:
            task = Task(cohort, target, level, fold_of, n_shuffles, random_state)
            for name in REPRESENTATIONS:
                _add(result, task, name, features[name], n_boot, random_state)
    result.estimates = _corrected(result.estimates)
    return result


def label_names(data: Any) -> list[str]:
    """Name what can be predicted: the dataset's labels, and the condition where it varies."""
    names = [str(name) for name in data.attrs.get("labels", []) if name in data.coords]
    if "condition" in data.coords and len(np.unique(data["condition"].values)) > 1:
        names.append("condition")
    return list(dict.fromkeys(names))


def usable_labels(
    data: Any, labels: Sequence[str] | None, n_splits: int
) -> tuple[list[Target], list[dict[str, str]]]:
    """Sort labels into those that can be scored and those that can't, with the reason."""
    subjects = np.unique(data["subject"].values.astype(str), return_inverse=True)[1]
    targets, excluded = [], []
    for name in label_names(data) if labels is None else labels:
        if name not in data.coords:
            excluded.append({"label": name, "reason": "the dataset has no such coordinate"})
            continue
        target = target_of(name, data[name].values, subjects)
        reason = _why_not(target, subjects, n_splits)
        if reason:
            excluded.append({"label": name, "reason": reason})
        else:
            targets.append(target)
    return targets, excluded


def target_of(name: str, values: NDArray[Any], subjects: Ints) -> Target:
    """Number the classes of a label, and tell whether it varies inside subjects."""
    known = ~is_missing(values)
    codes = np.full(len(values), -1)
    classes, codes[known] = np.unique(values[known].astype(str), return_inverse=True)
    pairs = np.unique(np.column_stack([subjects[known], codes[known]]), axis=0)
    return Target(name, classes, codes, within=len(np.unique(pairs[:, 0])) < len(pairs))


def _why_not(target: Target, subjects: Ints, n_splits: int) -> str | None:
    n = len(target.classes)
    if n == 0:
        return "all values are missing"
    if n == 1:
        return f"only one class: '{target.classes[0]}'"
    counts = [len(np.unique(subjects[target.codes == k])) for k in range(n)]
    if n > MOST_CLASSES:
        return f"{n} different values: sort them into at most {MOST_CLASSES} classes"
    if min(counts) < n_splits:
        rare = target.classes[int(np.argmin(counts))]
        return f"class '{rare}' has {min(counts)} subjects, fewer than the {n_splits} folds"
    return None


# ------------------------------------------------------------------------------------ features


def _all_features(
    encoders: Sequence[Any], cohort: Cohort, folds: Sequence[Fold], seed: int
) -> tuple[dict[str, list[Features]], list[dict[str, int]]]:
    """Features of all trials for each fold, {representation: [(n, d) per fold]}."""
    windows = amplitudes(cohort)
    features: dict[str, list[Features]] = {name: [] for name in REPRESENTATIONS}
    latents = []
    for number, (encoder, (train, _)) in enumerate(zip(encoders, folds, strict=True)):
        codes = np.asarray(encoder.transform(cohort.signal), dtype=float)
        kept = np.asarray(getattr(encoder, "kept_", np.ones(codes.shape[1], dtype=bool)))
        size = max(1, int(kept.sum()))
        components = Components.fit(cohort, train, size, random_state=seed)
        features["beta_vae"].append(codes[:, kept])
        features["window"].append(windows)
        features["pca"].append(components.transform(cohort.X).astype(float))
        latents.append({"fold": number, "kept": int(kept.sum()), "of": len(kept)})
    return features, latents


def amplitudes(cohort: Cohort, windows: Any = None, groups: Any = None) -> Features:
    """Mean amplitudes (n, windows * channels); see `eeg.erp.window_features`."""
    from eeg.erp import window_features

    features = np.asarray(window_features(cohort.signal, windows, groups), dtype=float)
    return features.reshape(len(cohort.X), -1)


# ------------------------------------------------------------------------------------ one task


class Task:
    """One label at one level: which rows, their classes under all labellings, and their folds.

    Parameters
    ----------
    cohort : Cohort
    target : Target
    level : {"subject", "single_trial"}
    fold_of : ndarray of int, shape (n,)
        The fold that tests each trial.
    n_shuffles, seed : int
        Shuffles of the labels.
    labellings : ndarray of int, shape (1 + n_shuffles, row), optional
        The real labels and shuffles of another Task, to be used again on other folds.
    identity : bool
        The label says whose the rows are, and `subject` numbers that one's sessions: see
        `scored`, `compared` and `_dealt`.

    Attributes
    ----------
    scored : ndarray of int, shape (labelling, row)
        The labels, -1 where a row can't be scored. With `identity` those are the rows of a
        class that no other fold has: nothing is left to learn it from.
    compared : ndarray of int, shape (row,)
        Rows of one number are compared in ROC areas: those of one fold; with `identity`, where
        a fold holds one class, all of them.
    """

    def __init__(
        self,
        cohort: Cohort,
        target: Target,
        level: str,
        fold_of: Ints,
        n_shuffles: int,
        seed: int,
        labellings: Ints | None = None,
        identity: bool = False,
    ) -> None:
        self.target, self.level = target, level
        self.trials = np.flatnonzero(target.codes >= 0)
        self._known: tuple[Features, Features] | None = None
        codes, subject = target.codes[self.trials], cohort.subject[self.trials]
        self.condition = cohort.condition[self.trials]
        self.condition_names = cohort.conditions[self.condition]
        if level == "single_trial":
            self.unit = np.arange(len(self.trials))
        else:
            pair = subject * len(target.classes) + codes
            self.unit = np.unique(pair, return_inverse=True)[1]
        first = np.unique(self.unit, return_index=True)[1]
        self.subject, self.fold = subject[first], fold_of[self.trials][first]
        shuffled = _dealt if identity else self._shuffled
        self.labellings = (
            shuffled(codes[first], self.subject, n_shuffles, seed)
            if labellings is None
            else labellings
        )
        self.scored = learnable(self.labellings, self.fold) if identity else self.labellings
        self.compared = np.zeros_like(self.fold) if identity else self.fold
        self.who = cohort.subjects[self.subject]
        plain = level == "subject" and not target.within
        self.names = self.who if plain else self._items(self.who)

    def _shuffled(self, truth: Ints, subject: Ints, n_shuffles: int, seed: int) -> Ints:
        """Return the real labels and, below them, the shuffled ones."""
        shuffled = permute_labels(
            truth,
            subject,
            n_shuffles,
            within=self.target.within,
            blocks=_blocks(truth, subject, self.fold, self.target.within),
            random_state=seed,
        )
        return np.concatenate([truth[None], shuffled])

    def _items(self, names: NDArray[np.str_]) -> NDArray[np.str_]:
        if self.level == "subject":
            tails = self.target.classes[self.labellings[0]]
        else:
            tails = np.array([f"trial {row}" for row in self.trials])
        return np.array([f"{a}/{b}" for a, b in zip(names, tails, strict=True)])

    def rows(self, features: Features) -> Features:
        """Features of the task's rows: averaged over the trials of each unit.

        A subject's row holds the mean over conditions and, beside it, each condition's deviation
        from it: what a difference wave is for amplitudes (0 where the subject lacks it).
        """
        # Features that no fold changes come once per fold and classifier: averaged once.
        if self._known is None or self._known[0] is not features:
            self._known = (features, self._averaged(features))
        return self._known[1]

    def _averaged(self, features: Features) -> Features:
        features = features[self.trials]
        if self.level == "single_trial":
            return features
        if self.target.within:
            return _unit_means(features, self.unit, len(self.subject))
        means = np.stack(
            [
                _unit_means(features[own], self.unit[own], len(self.subject))
                for own in (self.condition == k for k in np.unique(self.condition))
            ]
        )
        level = np.nanmean(means, axis=0)
        return np.concatenate([level, *np.nan_to_num(means - level)[:-1]], axis=1)

    def predict(self, features: Sequence[Features]) -> tuple[Ints, NDArray[np.float64]]:
        """Cross-predict under all labellings.

        Returns
        -------
        predicted : ndarray of int, shape (labelling, row)
        score : ndarray of shape (row,)
            Probability given to the true class, real labels.
        """
        probabilities = self.probabilities(features)
        truth = self.labellings[0][:, None]
        return probabilities.argmax(-1), np.take_along_axis(probabilities[0], truth, 1)[:, 0]

    def probabilities(self, features: Sequence[Features]) -> NDArray[np.float64]:
        """Cross-predict under all labellings, (labelling, row, class)."""
        n_classes = len(self.target.classes)
        found = np.zeros((*self.labellings.shape, n_classes))
        for number, own in enumerate(features):
            test = self.fold == number
            if not test.any():
                continue
            rows = self.rows(own)
            found[:, test] = discriminate(
                rows[~test],
                self.labellings[:, ~test],
                rows[test],
                n_classes,
                groups=self.subject[~test],
            )
        return found


def _dealt(truth: Ints, unit: Ints, n_shuffles: int, seed: int) -> Ints:
    """Return the real labels and, below them, the units' labels dealt out anew.

    In all ways there are, where these are not more than `n_shuffles`: the test is exact then.
    """
    _, first, codes = np.unique(unit, return_index=True, return_inverse=True)
    every = arrangements(truth[first], n_shuffles)
    if every is None:
        return np.concatenate(
            [truth[None], permute_labels(truth, unit, n_shuffles, random_state=seed)]
        )
    return np.concatenate([truth[None], every[:, codes]])


def learnable(labellings: Ints, fold: Ints) -> Ints:
    """Put -1 in the place of a class that occurs in one fold only, in every labelling.

    Examples
    --------
    >>> learnable(np.array([[0, 0, 1, 2, 2]]), np.arange(5)).tolist()
    [[0, 0, -1, 2, 2]]
    """
    found = labellings.copy()
    for k in range(labellings.max() + 1):
        has = labellings == k
        n_folds = sum(has[:, fold == number].any(1).astype(int) for number in np.unique(fold))
        found[has & (np.asarray(n_folds) < 2)[:, None]] = -1
    return found


def _unit_means(features: Features, unit: Ints, n_units: int) -> Features:
    """Mean of each unit's rows, NaN where it has none."""
    from scipy import sparse

    counts = np.bincount(unit, minlength=n_units)
    weight = (1 / np.maximum(counts, 1))[unit].astype(features.dtype)
    shape = (n_units, len(unit))
    averager = sparse.csr_matrix((weight, (unit, np.arange(len(unit)))), shape=shape)
    means = np.asarray(averager @ features, dtype=float)
    means[counts == 0] = np.nan
    return means


def _blocks(truth: Ints, subject: Ints, fold: Ints, within: bool) -> Ints | None:
    """Exchange subjects' labels inside folds where that leaves enough different labellings.

    The folds were balanced on the real label; shuffles that keep this balance make the
    permutation test exact. With few subjects per fold there are too few of them.
    """
    if within:
        return None
    _, first = np.unique(subject, return_index=True)
    arrangements = 0.0
    for number in np.unique(fold[first]):
        counts = np.bincount(truth[first][fold[first] == number])
        arrangements += math.lgamma(counts.sum() + 1) - sum(math.lgamma(c + 1) for c in counts)
    return fold if arrangements > math.log(10_000) else None


def _add(
    result: Classification,
    task: Task,
    representation: str,
    features: Sequence[Features],
    n_boot: int,
    seed: int,
) -> None:
    """Score one representation of one task and put it into the result."""
    label, n_classes = task.target.name, len(task.target.classes)
    predicted, score = task.predict(features)
    scores = balanced_accuracy(task.labellings, predicted, n_classes)
    chance = chance_level(n_classes)
    hits, counts = class_hits(task.labellings[0], predicted[0], task.subject, n_classes)
    samples = weighted_balanced_accuracy(hits, counts, bootstrap_weights(len(hits), n_boot, seed))
    low, high = percentile_interval(samples, n_units=len(hits))
    key = (label, representation, task.level)
    result.estimates[key] = Estimate(
        value=float(scores[0]),
        low=max(0.0, low),
        high=min(1.0, high),
        n=len(hits),
        n_unit="subject",
        chance=chance,
        p=permutation_p(scores[0], scores[1:]) if len(scores) > 1 else None,
    )
    band = shuffled_band(scores[1:]) if len(scores) > 1 else (math.nan,) * 3
    result.bands[key] = band
    result.rows += _predictions(task, representation, score)
    if representation == "beta_vae":
        control = (label, "shuffled", task.level)
        result.bands[control] = band
        result.estimates[control] = Estimate(
            *band, n=len(scores) - 1, n_unit="shuffle", chance=chance
        )


def _predictions(
    task: Task, representation: str, score: NDArray[np.float64]
) -> list[dict[str, Any]]:
    tail = ".single_trial" if task.level == "single_trial" else ""
    target = f"classify.{task.target.name}.{representation}{tail}"
    truth = task.target.classes[task.labellings[0]]
    columns = zip(task.names, task.who, task.fold, truth, score, strict=True)
    return [
        {
            "item": str(item),
            "unit": str(unit),
            "fold": int(fold),
            "target": target,
            "truth": str(true),
            "score": float(value),
        }
        for item, unit, fold, true, value in columns
    ]


def _corrected(estimates: dict[Key, Estimate]) -> dict[Key, Estimate]:
    """Correct p over labels, separately for each representation and level."""
    fixed: dict[Key, Estimate] = {}
    for family in dict.fromkeys(key[1:] for key in estimates):
        fixed |= correct_estimates({k: e for k, e in estimates.items() if k[1:] == family})
    return {key: fixed[key] for key in estimates}
