"""What SCAN and the latents are worth beside hand-made features, on people nobody was fitted on.

Folds hold participants out. In each, the beta-VAE, the autoencoder (the same network at beta 0),
the principal components, SCAN and every statistic are fitted on its training participants alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.classify import label_names, usable_labels
from eeg.readings import Readings, read_labels_of
from eeg.regimes import Regimes, compare_regimes
from eeg.repeats import Fitted, class_labels, fit_repeats
from eeg.truth import FactorMatch, match_factors
from neuro.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from eeg.interpret import Interpretation
    from eeg.scan import SCAN
    from eeg.truth import Recombined
    from neuro.stage import Context

__all__ = [
    "Fitted",
    "Readings",
    "ScanEvaluation",
    "class_labels",
    "evaluate_scan",
    "fit_repeats",
    "read_labels_of",
    "record",
    "with_labels",
]


@dataclass
class ScanEvaluation:
    """Everything that `evaluate_scan` found.

    Parameters
    ----------
    readings : Readings
        The table of labels.
    regimes : Regimes
        Empty where it was not asked for.
    factors : list of FactorMatch
        Empty where the data are not simulated.
    excluded : list of dict
        label and reason.
    repeats : list of Fitted
        The folds and what was fitted in them.
    notes : list of str
        What a reader must know.
    split : str
        Identity of the test splits.
    """

    readings: Readings
    regimes: Regimes
    factors: list[FactorMatch]
    excluded: list[dict[str, str]]
    repeats: list[Fitted]
    notes: list[str] = field(default_factory=list)
    split: str = ""


def evaluate_scan(
    estimator: Any,
    data: xr.Dataset,
    y: Any = None,
    *,
    labels: Sequence[str] | None = None,
    scan: SCAN | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    bins: int = 3,
    regimes: Sequence[str] = (),
    n_splits: int = 5,
    n_repeats: int = 1,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    random_state: int = 0,
    scratch: Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> ScanEvaluation:
    """Evaluate latents and SCAN beside hand-made features by grouped cross-validation.

    Parameters
    ----------
    estimator : BetaVAE
        Its parameters are used for unfitted copies; itself it is not changed.
    data : Dataset
        Trials ``signal`` (trial, channel, time) in uV with ``subject`` and labels.
    y : table, path or mapping, optional
        Labels of participants in place of those of `data`, see `eeg.labels.read_labels`.
    labels : sequence of str, optional
        What to predict; by default all labels, and the condition where it varies.
    scan : SCAN, optional
        Its parameters.
    windows, groups : mapping, optional
        The hand-made features: time windows and groups of channels, see
        `eeg.erp.window_features`.
    bins : int
        Classes that a continuous label is cut into.
    regimes : sequence of str, optional
        Values of `train_on` to compare crosswise, see `eeg.regimes.compare_regimes`.
    n_splits, n_repeats : int
        Folds over participants; repeats with folds and initial weights of their own.
    n_shuffles, n_boot, random_state
        Label shuffles, bootstrap samples, seed.
    scratch : path, optional
        Where training keeps its checkpoints.
    progress : callable, optional
        ``progress(items, label, total)``.

    Returns
    -------
    ScanEvaluation
        A label that can't be scored is in `excluded` with the reason.

    Raises
    ------
    InputError
        With fewer participants than folds, or where no label can be scored.
    DataError
        Where a participant has two values of one label, or no participant has labels.
    """
    from eeg.evaluate import _identity

    data, notes = with_labels(data, y)
    data = class_labels(data, labels, bins)
    names = label_names(data) if labels is None else list(labels)
    targets, excluded = usable_labels(data, names, n_splits)
    if not targets:
        reasons = "; ".join(f"{entry['label']}: {entry['reason']}" for entry in excluded)
        raise InputError(f"no label can be scored: {reasons or 'there is none'}")
    names = [target.name for target in targets]
    seeded: dict[str, Any] = {"random_state": random_state, "progress": progress}
    repeats = fit_repeats(
        estimator,
        data,
        labels=names,
        scan=scan,
        n_splits=n_splits,
        n_repeats=n_repeats,
        scratch=None if scratch is None else Path(scratch) / "folds",
        **seeded,
    )
    first = repeats[0]
    crosswise = Regimes()
    if regimes:
        crosswise = compare_regimes(
            estimator,
            data,
            first.folds,
            names,
            regimes=regimes,
            fitted={estimator.train_on: first.encoders},
            scratch=None if scratch is None else Path(scratch) / "regimes",
            **seeded,
        )
    readings = read_labels_of(
        repeats,
        data,
        names,
        windows=windows,
        groups=groups,
        n_shuffles=n_shuffles,
        n_boot=n_boot,
        **seeded,
    )
    if any(not np.any(e.kept_) for own in repeats for e in own.encoders):
        notes.append("the encoder kept no latent in some folds (collapse): lower beta")
    split = "+".join(_identity(data, own.folds) for own in repeats)
    factors = match_factors(first, data, random_state=random_state)
    return ScanEvaluation(readings, crosswise, factors, excluded, repeats, notes, split)


def with_labels(data: xr.Dataset, y: Any = None) -> tuple[xr.Dataset, list[str]]:
    """Put labels of participants onto trials.

    Parameters
    ----------
    data : Dataset
    y : as in `eeg.labels.read_labels`, optional
        None keeps the labels of `data`.

    Returns
    -------
    data : Dataset
        Its attribute ``labels`` names the new ones.
    notes : list of str
        Participants of the table without trials, and the reverse.

    Raises
    ------
    DataError
        Where a participant has two values of one label; both are named. The condition may vary.
    """
    from eeg.labels import read_labels, refuse_contradictions

    subject = data["subject"].values.astype(str) if "subject" in data.coords else None
    if y is None:
        table = {name: data[name] for name in data.attrs.get("labels", []) if name in data.coords}
        if table and subject is not None:
            import pandas as pd

            frame = pd.DataFrame({name: column.values for name, column in table.items()})
            refuse_contradictions(frame, subject, ["condition"])
        return data, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = read_labels(y, data["signal"], subject, data.sizes["trial"])
    if subject is not None:
        refuse_contradictions(read, subject, ["condition"])
    columns = {str(name): ("trial", _plain(read[name])) for name in read.columns}
    data = data.assign_coords(columns)
    data.attrs = {**data.attrs, "labels": list(columns)}
    return data, [str(entry.message) for entry in caught]


def _plain(column: Any) -> Any:
    """Return numbers as numbers, and the rest as text in which a missing value is ""."""
    from eeg.symbols import is_missing

    values = column.to_numpy()
    if values.dtype.kind in "fiu":
        return values
    return np.where(is_missing(values), "", values.astype(str))


def record(
    context: Context,
    result: ScanEvaluation,
    interpretation: Interpretation | None = None,
    concepts: Recombined | None = None,
) -> None:
    """Hand metrics, predictions and warnings over to a run.

    Parameters
    ----------
    context : Context
    result : ScanEvaluation
    interpretation : Interpretation, optional
        From `eeg.interpret.interpret`.
    concepts : Recombined, optional
        From `eeg.truth.recombined`.
    """
    import pandas as pd

    for name, estimate in result.readings.by_name().items():
        estimate.record(context, f"classify.{name}")
    for match in result.factors:
        match.estimate.record(context, f"factor.{match.name}.spearman")
    context.predictions(pd.DataFrame(result.readings.rows))
    for note in [*result.notes, *result.regimes.notes]:
        context.warn(note)
    for entry in result.excluded:
        context.warn(f"label '{entry['label']}' is not predicted: {entry['reason']}")
    context.scored(result.split)
    record_concepts(context, interpretation, concepts)


def record_concepts(
    context: Context,
    interpretation: Interpretation | None = None,
    concepts: Recombined | None = None,
) -> None:
    """Hand over what the latents mean, see `record`."""
    if interpretation is not None:
        for name, estimate in interpretation.by_name().items():
            estimate.record(context, f"scan.{name}")
    if concepts is not None:
        context.metric("scan.and.r", concepts.and_r)
        context.metric("scan.ignore.r", concepts.ignore_r)
