"""How well every representation tells the classes of every label, with chance and intervals.

The balanced accuracy and the ROC area of a representation are those of a discriminant whose
shrinkage is tuned inside the training participants, because the same discriminant is refitted on
hundreds of shuffled labels; logistic regression and a support vector machine stand beside it.
SCAN reads labels by itself; its null distribution shuffles the truth of held-out participants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eeg.classify import LEVELS, Features, Target, Task, amplitudes, usable_labels
from eeg.cohort import Cohort, Ints
from eeg.predictors import Components
from eeg.readout import CLASSIFIERS, cross_scores, fold_auc, weighted_auc
from eeg.repeats import Fitted
from neuro.metrics import (
    balanced_accuracy,
    chance_level,
    class_hits,
    weighted_balanced_accuracy,
)
from neuro.validation import (
    Estimate,
    bootstrap_weights,
    correct_estimates,
    exact_interval,
    nested_weights,
    percentile_interval,
    permutation_p,
    shuffled_band,
)

REPRESENTATIONS = ("window", "erp", "pca", "autoencoder", "beta_vae", "scan")
MEASURES = ("balanced_accuracy", "auc")
WHOLE_TRIALS = 200  # components that stand for a whole single trial
Key = tuple[str, str, str]  # label, representation, level


@dataclass(frozen=True)
class Draws:
    """What an estimate was made of: enough to average it with those of other subjects.

    Parameters
    ----------
    accuracy, auc : ndarray of shape (1 + n_shuffles,)
        With the real labels and with shuffled ones; the area is NaN where it isn't asked for.
    accuracy_samples, auc_samples : ndarray of shape (n_boot,)
        Bootstrap samples over units.
    folds : list of float
        Balanced accuracy of every fold.
    n, chance
        Units with scored rows, and the balanced accuracy of guessing.
    """

    accuracy: NDArray[np.float64]
    accuracy_samples: NDArray[np.float64]
    auc: NDArray[np.float64]
    auc_samples: NDArray[np.float64]
    folds: list[float]
    n: int
    chance: float


@dataclass
class Readings:
    """How well each representation tells the classes of each label on held-out participants.

    Parameters
    ----------
    accuracy, auc : dict of (label, representation, level) to Estimate
        Means over repeats, intervals over participants. `auc` at the level of participants only.
    spread : dict of (label, representation, level) to (mean, sd)
        Of the balanced accuracy over folds and repeats.
    beside : dict of (label, representation, classifier) to {measure: value}
        Logistic regression and support vector machine, participants.
    bands : dict of the keys to (mean, low, high)
        Balanced accuracy under shuffled labels.
    rows : list of dict
        Predictions of the first repeat.
    draws : dict of the keys to Draws
    """

    accuracy: dict[Key, Estimate] = field(default_factory=dict)
    auc: dict[Key, Estimate] = field(default_factory=dict)
    spread: dict[Key, tuple[float, float]] = field(default_factory=dict)
    beside: dict[Key, dict[str, float]] = field(default_factory=dict)
    bands: dict[Key, tuple[float, float, float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    draws: dict[Key, Draws] = field(default_factory=dict)

    def by_name(self) -> dict[str, Estimate]:
        """Estimates by their name in ``metrics.json``, without the leading ``classify.``."""
        named = {}
        for measure, found in zip(MEASURES, (self.accuracy, self.auc), strict=True):
            for (label, representation, level), estimate in found.items():
                single = ".single_trial" if level == "single_trial" else ""
                named[f"{label}.{representation}{single}.{measure}"] = estimate
        return named

    def table(self, label: str, level: str = "subject") -> list[dict[str, Any]]:
        """Rows of one label for the report, one per representation."""
        rows = []
        for key, estimate in self.accuracy.items():
            if key[0] != label or key[2] != level:
                continue
            area = self.auc.get(key, Estimate())
            mean, sd = self.spread.get(key, (None, None))
            beside = {
                f"{name} {measure}": self.beside.get((label, key[1], name), {}).get(measure)
                for name in CLASSIFIERS
                for measure in MEASURES
                if level == "subject"
            }
            rows.append(
                {
                    "representation": key[1],
                    "balanced_accuracy": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "fold mean": mean,
                    "fold sd": sd,
                    "chance": estimate.chance,
                    "p": estimate.p,
                    "p_corrected": estimate.p_corrected,
                    **({"auc": area.value} if level == "subject" else {}),
                    **beside,
                    "n": estimate.n,
                }
            )
        return rows

    @property
    def labels(self) -> list[str]:
        """The labels that were read."""
        return list(dict.fromkeys(key[0] for key in self.accuracy))


def read_labels_of(
    repeats: Sequence[Fitted],
    data: Any,
    labels: Sequence[str] | None = None,
    *,
    representations: Sequence[str] = REPRESENTATIONS,
    levels: Sequence[str] = LEVELS,
    windows: Mapping[str, tuple[float, float]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    random_state: int = 0,
    progress: Callable[..., Any] | None = None,
) -> Readings:
    """Read every usable label from every representation on held-out participants.

    Parameters
    ----------
    repeats : sequence of Fitted
        From `eeg.repeats.fit_repeats`.
    data : Dataset
        The trials they were fitted on.
    labels : sequence of str, optional
    representations, levels : sequence of str
        Which to read; an autoencoder only where one was fitted.
    windows, groups : mapping, optional
        The hand-made features, see `eeg.erp.window_features`.
    n_shuffles, n_boot, random_state, progress
        As in `eeg.evaluate.evaluate`.

    Returns
    -------
    Readings
    """
    return read_targets(
        repeats,
        data,
        usable_labels(data, labels, len(repeats[0].folds))[0],
        representations=representations,
        levels=levels,
        windows=windows,
        groups=groups,
        n_shuffles=n_shuffles,
        n_boot=n_boot,
        random_state=random_state,
        progress=progress,
    )


@dataclass(frozen=True)
class Reader:
    """How held-out rows are scored.

    Parameters
    ----------
    unit : str
        What one value of the coordinate ``subject`` is.
    areas : sequence of str
        Levels at which ROC areas are computed.
    classifiers : sequence of str
        Those beside the discriminant, at the level of units.
    identity : bool
        See `eeg.classify.Task`.
    few : int
        Fewer units than these don't show their spread: rows are resampled inside units too.
    """

    unit: str = "subject"
    areas: Sequence[str] = ("subject",)
    classifiers: Sequence[str] = CLASSIFIERS
    identity: bool = False
    few: int = 0


def read_targets(
    repeats: Sequence[Fitted],
    data: Any,
    targets: Sequence[Target],
    *,
    reader: Reader | None = None,
    representations: Sequence[str] = REPRESENTATIONS,
    levels: Sequence[str] = LEVELS,
    windows: Mapping[str, tuple[float, float]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    random_state: int = 0,
    progress: Callable[..., Any] | None = None,
) -> Readings:
    """Read as `read_labels_of` does, where the targets are known.

    Parameters
    ----------
    targets : sequence of Target
    reader : Reader, optional
        By default whole subjects are held out.
    repeats, data, representations, levels, windows, groups
        As in `read_labels_of`.
    n_shuffles, n_boot, random_state, progress
        As in `eeg.evaluate.evaluate`.

    Returns
    -------
    Readings
    """
    reader = reader or Reader()
    cohort = Cohort.of(data)
    features = [_Features(cohort, own, windows, groups, random_state) for own in repeats]
    jobs = [(target, level) for target in targets for level in levels]
    result = Readings()
    for target, level in jobs if progress is None else progress(jobs, "labels", len(jobs)):
        tasks: list[Task] = []
        for own in repeats:
            again = tasks[0].labellings if tasks else None
            shuffles: Any = (n_shuffles, random_state, again, reader.identity)
            tasks.append(Task(cohort, target, level, own.fold_of, *shuffles))
        for name in representations:
            if name == "autoencoder" and not repeats[0].autoencoders:
                continue
            found = [
                _Reading.of(task, name, own, fitted, reader)
                for task, own, fitted in zip(tasks, features, repeats, strict=True)
            ]
            _add(result, tasks, found, name, n_boot, random_state, reader)
    result.accuracy = _corrected(result.accuracy)
    result.auc = _corrected(result.auc)
    return result


class _Features:
    """Features of all trials in every fold of one repeat, made when they are first asked for."""

    def __init__(
        self, cohort: Cohort, fitted: Fitted, windows: Any, groups: Any, seed: int
    ) -> None:
        self.cohort, self.fitted, self.seed = cohort, fitted, seed
        self.windows, self.groups = windows, groups
        self.known: dict[tuple[str, str], list[Features]] = {}

    def get(self, name: str, level: str) -> list[Features]:
        key = (name, level if name == "erp" else "")
        if key not in self.known:
            self.known[key] = self._make(name, level)
        return self.known[key]

    def _make(self, name: str, level: str) -> list[Features]:
        cohort, fitted = self.cohort, self.fitted
        if name == "window":
            return [amplitudes(cohort, self.windows, self.groups)] * len(fitted.folds)
        if name == "erp" and level == "subject":
            return [cohort.X] * len(fitted.folds)  # type: ignore[list-item]
        kept = [np.asarray(encoder.kept_) for encoder in fitted.encoders]
        if name == "beta_vae":
            return [
                mean[:, k].astype(float) for (mean, _), k in zip(fitted.codes, kept, strict=True)
            ]
        if name == "autoencoder":
            return [
                np.asarray(e.transform(cohort.signal), dtype=float) for e in fitted.autoencoders
            ]
        sizes = [WHOLE_TRIALS if name == "erp" else max(1, int(k.sum())) for k in kept]
        return [
            Components.fit(cohort, train, size, random_state=self.seed)
            .transform(cohort.X)
            .astype(float)
            for (train, _), size in zip(fitted.folds, sizes, strict=True)
        ]


@dataclass(frozen=True)
class _Reading:
    """Held-out scores of one representation in one repeat."""

    accuracy: NDArray[np.float64]  # (labelling,)
    auc: NDArray[np.float64]  # (labelling,)
    predicted: Ints  # (row,), real labels
    scores: NDArray[np.float64]  # (row, class), real labels
    per_fold: list[float]
    beside: dict[str, dict[str, float]]

    @classmethod
    def of(
        cls, task: Task, name: str, features: _Features, fitted: Fitted, reader: Reader
    ) -> _Reading:
        beside: dict[str, dict[str, float]] = {}
        areas, people = task.level in reader.areas, task.level == "subject"
        if name == "scan":
            # The predictions stay; the truth of the held-out rows is shuffled against them.
            scores = np.broadcast_to(_scan_scores(task, fitted), _shape(task))
        else:
            own = features.get(name, task.level)
            scores = task.probabilities(own)
            for classifier in reader.classifiers if people else ():
                beside[classifier] = _measures(task, cross_scores(task, own, classifier))
        predicted = scores.argmax(-1)
        n = len(task.target.classes)
        return cls(
            balanced_accuracy(task.scored, predicted, n),
            fold_auc(task.scored, scores, task.compared) if areas else np.full(1, np.nan),
            predicted[0],
            np.asarray(scores[0]),
            _per_fold(task, predicted[0]),
            beside,
        )


def _shape(task: Task) -> tuple[int, int, int]:
    return (*task.labellings.shape, len(task.target.classes))


def _measures(task: Task, scores: NDArray[np.float64]) -> dict[str, float]:
    truth, n = task.scored[0], len(task.target.classes)
    found = (
        balanced_accuracy(truth, scores.argmax(-1), n),
        fold_auc(truth, scores, task.compared),
    )
    return {name: float(value) for name, value in zip(MEASURES, found, strict=True)}


def _per_fold(task: Task, predicted: Ints) -> list[float]:
    truth, n = task.scored[0], len(task.target.classes)
    known = truth >= 0
    parts = [known & (task.fold == number) for number in np.unique(task.fold[known])]
    return [float(balanced_accuracy(truth[own], predicted[own], n)) for own in parts]


def _scan_scores(task: Task, fitted: Fitted) -> NDArray[np.float64]:
    """SCAN's own probabilities of the task's rows, (row, class)."""
    name, classes = task.target.name, task.target.classes.tolist()
    found = np.zeros((len(task.fold), len(classes)))
    for number, (scans, (mean, variance)) in enumerate(
        zip(fitted.scans, fitted.codes, strict=True)
    ):
        rows = np.flatnonzero(task.fold == number)
        if not len(rows):
            continue
        if name not in scans:
            found[rows] = 1 / len(classes)
            continue
        chosen = task.fold[task.unit] == number
        trials = task.trials[chosen]
        unit = np.searchsorted(rows, task.unit[chosen])
        scan = scans[name]
        condition = task.condition_names[chosen]
        symbols = scan.read_codes(mean[trials], variance[trials], unit=unit, condition=condition)
        group = scan.symbols_.groups[scan.symbols_.labels.index(name)]
        columns = [classes.index(value) for value in group.values]
        found[np.ix_(rows, columns)] = symbols[:, scan.symbols_.slices[name]]
    return found


def _add(
    result: Readings, tasks: Sequence[Task], found: Sequence[_Reading], name: str, n_boot: int,
    seed: int, reader: Reader,
) -> None:  # fmt: skip
    task = tasks[0]
    key = (task.target.name, name, task.level)
    draws = _drawn(tasks, found, n_boot, seed, reader)
    add_estimates(result, key, draws, unit=reader.unit)
    result.rows += _predictions(task, name, found[0])
    for classifier in found[0].beside:
        result.beside[(key[0], name, classifier)] = {
            measure: float(np.mean([own.beside[classifier][measure] for own in found]))
            for measure in MEASURES
        }


def _drawn(
    tasks: Sequence[Task], found: Sequence[_Reading], n_boot: int, seed: int, reader: Reader
) -> Draws:
    """Average over repeats, and resample the units."""
    task, n_classes = tasks[0], len(tasks[0].target.classes)
    known = task.scored[0] >= 0
    truth, units = task.scored[0][known], np.unique(task.subject[known], return_inverse=True)[1]
    n = int(units.max()) + 1
    weights = bootstrap_weights(n, n_boot, seed)
    if n < reader.few:
        weights, units = nested_weights(units, weights, seed), np.arange(len(units))
    hits, counts = zip(
        *(class_hits(truth, own.predicted[known], units, n_classes) for own in found), strict=True
    )
    drawn = [
        weighted_auc(truth, own.scores[known], again.compared[known], units, weights)
        for again, own in zip(tasks, found, strict=True)
        if task.level in reader.areas
    ]
    return Draws(
        accuracy=np.mean([own.accuracy for own in found], axis=0),
        accuracy_samples=weighted_balanced_accuracy(np.mean(hits, axis=0), counts[0], weights),
        auc=np.mean([own.auc for own in found], axis=0),
        auc_samples=np.mean(drawn, axis=0) if drawn else np.empty(0),
        folds=[value for own in found for value in own.per_fold],
        n=n,
        chance=chance_level(n_classes),
    )


def add_estimates(
    result: Readings, key: Key, draws: Draws, *, unit: str = "subject", n_strata: int = 1
) -> None:
    """Turn draws into estimates and put them into the result, with the shuffled control.

    Parameters
    ----------
    result : Readings
    key : tuple of str
    draws : Draws
    unit : str
        What was resampled.
    n_strata : int
        Groups inside which it was (subjects whose runs were resampled).
    """
    n_free = draws.n - n_strata + 1
    settings: Any = {"n": draws.n, "unit": unit, "n_free": n_free}
    result.draws[key] = draws
    accuracy = _estimate(draws.accuracy, draws.accuracy_samples, draws.chance, **settings)
    if accuracy.value is not None and accuracy.low is None:
        low, high = exact_interval(accuracy.value, draws.n)
        accuracy = replace(accuracy, low=low, high=high)
    result.accuracy[key] = accuracy
    sd = float(np.std(draws.folds, ddof=1)) if len(draws.folds) > 1 else math.nan
    result.spread[key] = (float(np.mean(draws.folds)), sd)
    shuffled = len(draws.accuracy) > 1
    result.bands[key] = shuffled_band(draws.accuracy[1:]) if shuffled else (math.nan,) * 3
    if key[1] == "beta_vae":
        _add_control(result, key, len(draws.accuracy) - 1, draws.chance)
    if not len(draws.auc_samples):
        return
    result.auc[key] = _estimate(draws.auc, draws.auc_samples, 0.5, **settings)
    shuffles = _known(draws.auc[1:])
    if key[1] == "beta_vae" and len(shuffles):
        result.auc[(key[0], "shuffled", key[2])] = Estimate(
            *shuffled_band(shuffles), n=len(shuffles), n_unit="shuffle", chance=0.5
        )


def _estimate(
    values: NDArray[np.float64], samples: NDArray[np.float64], chance: float, n: int, unit: str,
    n_free: int,
) -> Estimate:  # fmt: skip
    if not np.isfinite(values[0]):
        return Estimate(n=n, n_unit=unit, chance=chance)
    low, high = percentile_interval(samples, n_units=n_free)
    # Samples that are all alike know nothing of the spread.
    known = low < high
    null = _known(values[1:])
    return Estimate(
        value=float(values[0]),
        low=max(0.0, low) if known else None,
        high=min(1.0, high) if known else None,
        n=n,
        n_unit=unit,
        chance=chance,
        p=permutation_p(values[0], null) if len(null) else None,
    )


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out shuffles in which no two classes were held out together."""
    return values[np.isfinite(values)]


def _add_control(result: Readings, key: Key, n: int, chance: float) -> None:
    control = (key[0], "shuffled", key[2])
    result.bands[control] = result.bands[key]
    result.accuracy[control] = Estimate(*result.bands[key], n=n, n_unit="shuffle", chance=chance)


def _predictions(task: Task, name: str, found: _Reading) -> list[dict[str, Any]]:
    tail = ".single_trial" if task.level == "single_trial" else ""
    truth = task.scored[0]
    given = np.take_along_axis(found.scores, truth[:, None], 1)[:, 0]
    known = truth >= 0
    columns = zip(*(a[known] for a in (task.names, task.who, task.fold, truth, given)), strict=True)
    return [
        {
            "item": str(item),
            "unit": str(unit),
            "fold": int(fold),
            "target": f"classify.{task.target.name}.{name}{tail}",
            "truth": str(task.target.classes[true]),
            "score": float(score),
        }
        for item, unit, fold, true, score in columns
    ]


def _corrected(estimates: dict[Key, Estimate]) -> dict[Key, Estimate]:
    """Correct p over labels (Holm), separately for each representation and level."""
    fixed: dict[Key, Estimate] = {}
    for family in dict.fromkeys(key[1:] for key in estimates):
        fixed |= correct_estimates({k: e for k, e in estimates.items() if k[1:] == family})
    return {key: fixed[key] for key in estimates}
