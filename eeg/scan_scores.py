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

    from eeg.repeats import Fitted
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


def record_truth(
    context: Context, scan: SCAN, train: xr.Dataset, test: xr.Dataset, *, n_boot: int, seed: int
) -> None:
    """Hold a simulated cohort's factors and difference waves against latents and concepts.

    The best latent of a factor is chosen on training participants and scored on test ones.
    """
    from eeg import scan_plots
    from eeg.repeats import Fitted
    from eeg.scan_evaluate import record_concepts
    from eeg.truth import match_factors, recombined
    from neuro.data import as_signal, concat

    if not any(str(name).startswith("factor_") for name in test.coords):
        return
    both, n = concat([train, test]), train.sizes["trial"]
    rows = np.arange(both.sizes["trial"])
    pair = scan.encoder_.transform(as_signal(both), return_variance=True)
    codes = (np.asarray(pair[0]), np.asarray(pair[1]))
    fitted = Fitted([(rows[:n], rows[n:])], [scan.encoder_], [], [codes])
    matches = match_factors(fitted, both, n_boot=n_boot, random_state=seed)
    for match in matches:
        match.estimate.record(context, f"heldout.factor.{match.name}.spearman")
    blocks = scan_plots.factor_blocks(matches)
    found = recombined(scan, both) if scan.recombinator_ is not None else None
    if found is not None:
        record_concepts(context, concepts=found)
        times, channels = both["time"].values, both["channel"].values.tolist()
        blocks += scan_plots.recombined_blocks(found, times, channels)
    context.section("Against the simulator's truth", *blocks)


def cross_validate(
    context: Context, encoder: Any, scan: SCAN, data: xr.Dataset, settings: dict[str, Any]
) -> pd.DataFrame:
    """Refit everything in folds over participants, and hand what is found over to a run."""
    import pandas as pd

    from eeg import methods, scan_evaluate, scan_plots

    how = {k: v for k, v in settings.items() if k != "seed"}
    how["random_state"] = settings["seed"]
    found = scan_evaluate.evaluate_scan(
        encoder, data, scan=scan, scratch=context.scratch, progress=context.progress, **how
    )
    scan_evaluate.record(context, found)
    n_people = len(set(subjects_of(data).tolist()))
    numbers = settings["n_splits"], settings["n_shuffles"], settings["n_boot"]
    for sentence, citations in methods.evaluation(n_people, *numbers):
        context.method(sentence, *citations)
    readings = found.readings
    context.section("Labels", *scan_plots.readings_blocks(readings, found.excluded))
    if found.regimes.rows:
        context.section("Regimes", *scan_plots.regimes_blocks(found.regimes))
    if found.factors:
        context.section("Factors", *scan_plots.factor_blocks(found.factors))
    _record_recovery(context, data, found.repeats[0], settings)
    return pd.DataFrame([{"label": n, **row} for n in readings.labels for row in readings.table(n)])


def _record_recovery(
    context: Context, data: xr.Dataset, fitted: Fitted, settings: dict[str, Any]
) -> None:
    """Say how well single trials of held-out participants give their ERP."""
    from eeg import plots
    from eeg.recovery import NUMBERS, PREDICTORS, recover_erp
    from neuro.data import as_signal
    from neuro.report import Table

    found = recover_erp(
        fitted.encoders, as_signal(data), fitted.folds, n_boot=settings["n_boot"],
        random_state=settings["seed"],
    )  # fmt: skip
    for name in (f"{predictor}.{number}" for predictor in PREDICTORS for number in NUMBERS):
        found.estimates[name].record(context, f"erp.{name}")
    times, channels = data["time"].values, data["channel"].values.tolist()
    shown = plots.denoised_blocks(found.examples, times, channels)
    context.section("Denoised single trials", *shown)
    paired = Table(found.difference_table(), "Paired differences over participants.")
    context.section("ERP recovery", *plots.recovery_blocks(found.estimates, found.notes), paired)


def _side(scan: SCAN, data: xr.Dataset) -> dict[str, Any]:
    """Average a part's features over the trials of every participant."""
    from eeg.erp import window_features
    from neuro.data import as_signal

    signal = as_signal(data)
    people, first, unit = np.unique(subjects_of(data), return_index=True, return_inverse=True)
    mean, variance = (np.asarray(a) for a in scan.encoder_.transform(signal, return_variance=True))
    windows = np.asarray(window_features(signal)).reshape(len(mean), -1)
    names = data["condition"].values.astype(str) if "condition" in data.coords else None
    condition = np.zeros(len(mean), dtype=np.intp)
    if names is not None:
        condition = np.unique(names, return_inverse=True)[1]
    return {
        "data": data.isel(trial=first),
        "scan": scan.read_codes(mean, variance, unit=unit, condition=names),
        "beta_vae": _rows(mean[:, np.asarray(scan.encoder_.kept_)], unit, condition),
        "window": _rows(windows, unit, condition),
        "people": people,
    }


def _rows(values: NDArray[Any], unit: NDArray[np.intp], condition: NDArray[np.intp]) -> Floats:
    """Average over a participant's trials: the level, and each condition's deviation from it."""
    n = unit.max() + 1
    parts = [_means(values, unit, condition == k, n) for k in np.unique(condition)]
    level = np.nanmean(parts, axis=0)
    return np.concatenate([level, *(np.nan_to_num(part - level) for part in parts[:-1])], axis=1)


def _means(
    values: NDArray[Any], unit: NDArray[np.intp], chosen: NDArray[np.bool_], n: int
) -> Floats:
    sums, counts = np.zeros((n, values.shape[1])), np.bincount(unit[chosen], minlength=n)
    np.add.at(sums, unit[chosen], values[chosen])
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


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
    from neuro.validation import bootstrap_weights, exact_interval, percentile_interval

    known = truth != MISSING
    y, p = truth[known], np.asarray(probability, dtype=float)[known]
    n_classes = p.shape[1]
    hits, counts = class_hits(y, p.argmax(1), np.arange(len(y)), n_classes)
    samples = weighted_balanced_accuracy(hits, counts, bootstrap_weights(len(y), n_boot, seed))
    whole = weighted_balanced_accuracy(hits, counts, np.ones((1, len(y))))
    low, high = percentile_interval(samples)
    ends = (low, high) if low < high else exact_interval(float(whole[0]), len(y))
    one = p[:, 1] if n_classes == 2 else p / p.sum(1, keepdims=True)
    auc = roc_auc_score(
        y, one, multi_class="ovr", labels=None if n_classes == 2 else range(n_classes)
    )
    return {
        "balanced_accuracy": float(whole[0]), "low": ends[0], "high": ends[1], "auc": float(auc),
        "chance": chance_level(n_classes), "n": len(y),
    }  # fmt: skip
