"""What an encoder is worth on people it never saw: ERP recovery and label classification.

One set of folds serves everything: subjects are held out in groups balanced over all labels at
once, the encoder and every statistic are refitted on each fold's training subjects, every subject
is tested exactly once, and intervals are over subjects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.classify import Classification, classify, label_names, usable_labels
from eeg.cohort import fit_folds
from eeg.recovery import NUMBERS, PREDICTORS, Recovery, recover_erp
from neuro.errors import InputError
from neuro.validation import Fold, grouped_folds

if TYPE_CHECKING:
    from neuro.stage import Context

__all__ = [
    "Classification",
    "Evaluation",
    "Recovery",
    "classify",
    "evaluate",
    "fit_folds",
    "make_folds",
    "record",
    "recover_erp",
]

COUNTS = ("kl_active", "active", "mixed", "passive")


@dataclass
class Evaluation:
    """Everything that `evaluate` found.

    Parameters
    ----------
    recovery : Recovery
    classification : Classification
    folds : list of (train, test)
    encoders : list of Encoder
        Fitted, one per fold.
    counts : dict of str to float
        kl_active, active, mixed, passive: means over folds. Empty where the encoder counts
        nothing, or where the given one is fitted: then the stage that trained it tells.
    split : str
        Identity of the test split: who is tested together.
    """

    recovery: Recovery
    classification: Classification
    folds: list[Fold]
    encoders: list[Any]
    counts: dict[str, float]
    split: str


def evaluate(
    estimator: Any,
    data: Any,
    *,
    labels: Sequence[str] | None = None,
    n_splits: int = 5,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    random_state: int = 0,
    scratch: Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> Evaluation:
    """Evaluate an encoder by grouped cross-validation.

    Parameters
    ----------
    estimator : Encoder
        Its parameters are used for unfitted copies, one per fold; itself it is not changed.
    data : Dataset
        Trials ``signal`` (trial, channel, time) in uV with ``subject``, ``condition``, labels.
    labels : sequence of str, optional
        What to predict; by default the dataset's labels and the condition.
    n_splits : int
        Folds over subjects.
    n_shuffles, n_boot, random_state
        Label shuffles, bootstrap samples, seed.
    scratch : path, optional
        Where training keeps its checkpoints.
    progress : callable, optional
        ``progress(items, label, total)``.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        With fewer subjects than folds.
    DataError
        Where trials have no subject, or no subject has two trials of a condition.

    See Also
    --------
    record : hand the numbers over to a run.
    """
    folds = make_folds(data, labels, n_splits=n_splits, random_state=random_state)
    signal = _signal(data)
    encoders = fit_folds(estimator, signal, folds, scratch=scratch, progress=progress)
    settings: dict[str, Any] = {"n_boot": n_boot, "random_state": random_state}
    return Evaluation(
        recovery=recover_erp(encoders, signal, folds, **settings),
        classification=classify(
            encoders,
            signal,
            folds,
            label_names(data) if labels is None else labels,
            n_shuffles=n_shuffles,
            **settings,
        ),
        folds=folds,
        encoders=encoders,
        counts=_counts(estimator, encoders),
        split=_identity(data, folds),
    )


def make_folds(
    data: Any, labels: Sequence[str] | None = None, *, n_splits: int = 5, random_state: int = 0
) -> list[Fold]:
    """Hold subjects out in groups balanced over all usable subject-level labels at once.

    Raises
    ------
    InputError
        Where there are no subjects, or fewer than folds.
    """
    if "subject" not in data.coords:
        raise InputError("the trials have no coordinate 'subject', so people can't be held out")
    targets, _ = usable_labels(data, labels, n_splits)
    columns = [
        np.where(target.codes < 0, "", target.classes[target.codes])
        for target in targets
        if not target.within
    ]
    subjects = data["subject"].values.astype(str)
    return grouped_folds(subjects, columns or None, n_splits=n_splits, random_state=random_state)


def _signal(data: Any) -> Any:
    if not hasattr(data, "data_vars"):
        return data
    from neuro.data import as_signal

    return as_signal(data)


def _counts(estimator: Any, encoders: Sequence[Any]) -> dict[str, float]:
    found = [encoder.counts_ for encoder in encoders if hasattr(encoder, "counts_")]
    if not found or hasattr(estimator, "counts_"):
        return {}
    return {name: float(np.mean([counts[name] for counts in found])) for name in COUNTS}


def _identity(data: Any, folds: Sequence[Fold]) -> str:
    subjects = data["subject"].values.astype(str)
    parts = sorted("\1".join(sorted(set(subjects[test].tolist()))) for _, test in folds)
    return hashlib.sha256("\2".join(parts).encode()).hexdigest()[:16]


def record(context: Context, result: Evaluation) -> None:
    """Hand metrics, predictions and warnings over to a run.

    Parameters
    ----------
    context : Context
        The stage's context.
    result : Evaluation
    """
    import pandas as pd

    for predictor in PREDICTORS:
        for number in NUMBERS:
            result.recovery.estimates[f"{predictor}.{number}"].record(
                context, f"erp.{predictor}.{number}"
            )
    for name, estimate in result.classification.by_name().items():
        estimate.record(context, f"classify.{name}")
    for name, value in result.counts.items():
        context.metric(f"vae.{name}", value, unit="latents")
    rows = result.recovery.predictions() + result.classification.predictions()
    context.predictions(pd.DataFrame(rows))
    for note in result.recovery.notes:
        context.warn(note)
    for entry in result.classification.excluded:
        context.warn(f"label '{entry['label']}' is not predicted: {entry['reason']}")
    if any(entry["kept"] == 0 for entry in result.classification.latents):
        context.warn("the encoder kept no latent in some folds (collapse): lower beta")
    context.scored(result.split)
