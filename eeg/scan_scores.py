"""How well SCAN predicts the labels of participants that nobody trained on, beside baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eeg.parts import subjects_of
from eeg.symbols import MISSING
from neuro.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from eeg.scan import SCAN
    from neuro.stage import Context

Floats = NDArray[np.float64]


def score(
    scan: SCAN,
    train: xr.Dataset,
    test: xr.Dataset,
    *,
    labels: Sequence[str] | None = None,
    n_boot: int = 2000,
    random_state: int = 0,
) -> list[dict[str, Any]]:
    """Predict the labels of the test participants by SCAN, by its latents and by windows.

    Returns
    -------
    list of dict
        label, predictor, balanced_accuracy with low and high (bootstrap over participants), auc,
        chance, n; or label and ``reason`` where it can't be scored.
    """
    unknown = sorted(set(labels or ()) - set(scan.symbols_.labels))
    if unknown:
        raise InputError(
            f"SCAN never saw the label {', '.join(unknown)}; it knows "
            f"{', '.join(scan.symbols_.labels)}"
        )
    sides = [_side(scan, data) for data in (train, test)]
    rows: list[dict[str, Any]] = []
    for label in labels or scan.symbols_.labels:
        rows += _label_rows(scan, label, sides[0], sides[1], n_boot, random_state)
    return rows


def record(context: Context, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Hand the numbers over to a run and return them as a table."""
    import pandas as pd

    from neuro.report import Table

    for row in rows:
        if "reason" in row:
            context.warn(f"the label '{row['label']}' can't be scored: {row['reason']}")
            continue
        name = f"heldout.{row['label']}.{row['predictor']}"
        own = {k: row[k] for k in ("low", "high", "chance", "n")}
        context.metric(f"{name}.balanced_accuracy", row["balanced_accuracy"], **own,
                       n_unit="participant")  # fmt: skip
        context.metric(f"{name}.auc", row["auc"], n=row["n"], n_unit="participant", chance=0.5)
    context.method(
        f"The encoder and SCAN were scored as they are on {max(row.get('n', 0) for row in rows)} "
        "participants that neither had seen; intervals are 95 % bootstrap intervals over "
        "participants.",
        "bootstrap",
    )
    frame = pd.DataFrame(rows)
    context.section("Labels of held-out participants", Table(frame, "Held-out participants."))
    return frame


def identity(test: xr.Dataset) -> str:
    """Name a test part by its participants, so that its scorings can be counted."""
    people = "\2".join(sorted(set(subjects_of(test).tolist())))
    return hashlib.sha256(people.encode()).hexdigest()[:16]


def cross_validate(
    context: Context, encoder: Any, scan: SCAN, data: xr.Dataset, settings: dict[str, Any]
) -> pd.DataFrame:
    """Refit everything in folds over participants, and hand what is found over to a run."""
    import pandas as pd

    from eeg.classify import label_names, usable_labels
    from eeg.scan_evaluate import class_labels, fit_repeats, read_labels_of
    from neuro.report import Table

    labels = label_names(data) if settings["labels"] is None else settings["labels"]
    data = class_labels(data, labels, settings["bins"])
    n_splits, seed = settings["n_splits"], settings["seed"]
    for row in usable_labels(data, labels, n_splits)[1]:
        context.warn(f"the label '{row['label']}' is left out: {row['reason']}")
    repeats = fit_repeats(
        encoder, data, labels=labels, scan=scan, n_splits=n_splits, random_state=seed,
        n_repeats=settings["n_repeats"], scratch=context.scratch, progress=context.progress,
    )  # fmt: skip
    found = read_labels_of(
        repeats, data, labels, n_shuffles=settings["n_shuffles"], n_boot=settings["n_boot"],
        random_state=seed, progress=context.progress,
    )  # fmt: skip
    for name, estimate in found.by_name().items():
        estimate.record(context, f"classify.{name}")
    context.predictions(pd.DataFrame(found.rows))
    for level in ("subject", "single_trial"):
        tables = [Table(found.table(label, level), label) for label in found.labels]
        context.section(f"Labels, {level.replace('_', ' ')}", *tables)
    rows = [{"label": n, **row} for n in found.labels for row in found.table(n)]
    return pd.DataFrame(rows)


def _side(scan: SCAN, data: xr.Dataset) -> dict[str, Any]:
    """Average a part's features over the trials of every participant."""
    from eeg.erp import window_features
    from neuro.data import as_signal

    signal = as_signal(data)
    people, first, unit = np.unique(subjects_of(data), return_index=True, return_inverse=True)
    mean, variance = (np.asarray(a) for a in scan.encoder_.transform(signal, return_variance=True))
    windows = np.asarray(window_features(signal)).reshape(len(mean), -1)
    return {
        "data": data.isel(trial=first),
        "scan": scan.read_codes(mean, variance, unit=unit),
        "beta_vae": _means(mean[:, np.asarray(scan.encoder_.kept_)], unit),
        "window": _means(windows, unit),
        "people": people,
    }


def _means(values: NDArray[Any], unit: NDArray[np.intp]) -> Floats:
    sums = np.zeros((unit.max() + 1, values.shape[1]))
    np.add.at(sums, unit, values)
    return sums / np.bincount(unit)[:, None]


def _label_rows(
    scan: SCAN, label: str, train: dict[str, Any], test: dict[str, Any], n_boot: int, seed: int
) -> list[dict[str, Any]]:
    group = next(g for g in scan.symbols_.groups if g.label == label)
    if any(label not in side["data"].coords for side in (train, test)):
        return [{"label": label, "reason": "the trials have no such label"}]
    codes, truth = (group.codes(side["data"][label].values) for side in (train, test))
    counts = np.bincount(truth[truth != MISSING], minlength=len(group.values))
    if (counts < 2).any():
        rare = group.values[int(counts.argmin())]
        return [{"label": label, "reason": f"{counts.min()} test participants are '{rare}'"}]
    rows = []
    for name in ("scan", "beta_vae", "window"):
        part = scan.symbols_.slices[label]
        probability = (
            test["scan"][:, part] if name == "scan" else _discriminated(name, train, test, codes)
        )
        rows.append(
            {"label": label, "predictor": name, **_numbers(truth, probability, n_boot, seed)}
        )
    return rows


def _discriminated(
    name: str, train: dict[str, Any], test: dict[str, Any], codes: NDArray[np.int64]
) -> Floats:
    from neuro.metrics import discriminate

    known = codes != MISSING
    X, y = train[name][known], codes[known]
    if not X.shape[1]:
        return np.full((len(test[name]), codes.max() + 1), 1 / (codes.max() + 1))
    groups = np.arange(len(X))
    return discriminate(X, y[None], test[name], codes.max() + 1, groups=groups)[0]


def _numbers(
    truth: NDArray[np.int64], probability: Floats, n_boot: int, seed: int
) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    from neuro.metrics import chance_level, class_hits, weighted_balanced_accuracy
    from neuro.validation import bootstrap_weights, percentile_interval

    known = truth != MISSING
    y, p = truth[known], np.asarray(probability, dtype=float)[known]
    n_classes = p.shape[1]
    hits, counts = class_hits(y, p.argmax(1), np.arange(len(y)), n_classes)
    samples = weighted_balanced_accuracy(hits, counts, bootstrap_weights(len(y), n_boot, seed))
    whole = weighted_balanced_accuracy(hits, counts, np.ones((1, len(y))))
    low, high = percentile_interval(samples)
    one = p[:, 1] if n_classes == 2 else p / p.sum(1, keepdims=True)
    auc = roc_auc_score(
        y, one, multi_class="ovr", labels=None if n_classes == 2 else range(n_classes)
    )
    return {
        "balanced_accuracy": float(whole[0]), "low": low, "high": high, "auc": float(auc),
        "chance": chance_level(n_classes), "n": len(y),
    }  # fmt: skip
