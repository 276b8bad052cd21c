"""How well fingerprints tell devices apart: crossed over channel, device and session.

Every test has three sides: the channel (as in training, or statistics never seen), the devices
(trained on, or unknown) and the session (of the training, or later, after drift). Intervals are
over devices; methods are compared on the same resampled devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError
from neuro.metrics.verification import (
    auc_eer,
    count_source_pairs,
    resampled,
    score_auc_eer,
    verify_pairs,
)
from neuro.validation import Estimate, bootstrap_weights, percentile_interval, summarise
from timeseries.rf.enrol import Enrolled, enrol, threshold_of

__all__ = ["Fingerprints", "Scores", "crossed_tests", "enrol_groups", "evaluate"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

N_BINS = 4096  # of scores in a bootstrap


@dataclass(frozen=True)
class Fingerprints:
    """What one method makes of all bursts.

    Attributes
    ----------
    codes : ndarray, shape (trial, latent)
    predicted : ndarray of str, shape (trial,), or None
        The training device that each burst is given to.
    """

    codes: NDArray[np.floating]
    predicted: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Scores:
    """Results of every method.

    Attributes
    ----------
    estimates : dict of str to Estimate
        ``closed.<test>.<model>.accuracy``, ``open.<test>.<model>.auc`` and ``.eer``,
        ``verify.<test>.<model>.eer``, ``reject.<test>.<model>.auroc``, all with intervals over
        devices.
    differences : dict of (str, str, str) to Estimate
        By test, model and reference: the open EER of the model less that of the reference.
    enrolled : dict of str to Enrolled
        By model: the known devices, with the threshold set on validation devices.
    roc : dict of (str, str) to ndarray, shape (2, point)
        By test and model: false and true positive rates over all pairs ("different" is positive).
    accepted : dict of (str, str) to tuple of two floats
        By test and model, at the threshold: right bursts rejected, wrong ones accepted.
    """

    estimates: dict[str, Estimate]
    differences: dict[tuple[str, str, str], Estimate]
    enrolled: dict[str, Enrolled]
    roc: dict[tuple[str, str], Floats]
    accepted: dict[tuple[str, str], tuple[float, float]]


def crossed_tests(data: xr.Dataset) -> dict[str, Rows]:
    """Return the rows of every crossed test that the data has.

    Parameters
    ----------
    data : Dataset
        With ``part``, ``group``, ``unseen`` and ``later`` on ``trial``.

    Returns
    -------
    dict of str to ndarray of int
        ``<same|unseen>_channel.<known|unknown>.<same|later>_session``.

    Raises
    ------
    DataError
        Where there is nothing to test on.
    """
    names = ("part", "group", "unseen", "later")
    missing = [name for name in names if name not in data.coords]
    if missing:
        raise DataError(f"bursts have no coordinate {', '.join(missing)}; take them from rf-split")
    part, group, unseen, later = (data[name].values for name in names)
    found = {}
    for channel, of_channel in (("same", ~unseen), ("unseen", unseen)):
        for kind in ("known", "unknown"):
            for session, of_session in (("same", ~later), ("later", later)):
                rows = np.flatnonzero((part == "test") & (group == kind) & of_channel & of_session)
                if len(rows):
                    found[f"{channel}_channel.{kind}.{session}_session"] = rows
    if not found:
        raise DataError("no burst is of a test of known or unknown devices")
    return found


def evaluate(
    data: xr.Dataset,
    methods: Mapping[str, Fingerprints],
    *,
    references: Mapping[str, str] | None = None,
    n_boot: int = 1000,
    random_state: int = 0,
    progress: Callable[..., Iterator[Any]] | None = None,
) -> Scores:
    """Score methods on all tests.

    Parameters
    ----------
    data : Dataset
        Bursts with ``device``, ``part`` (train, enrol, test), ``group`` (known, validation,
        unknown), ``unseen``, ``later``.
    methods : mapping of str to Fingerprints
        Of the bursts of `data`.
    references : mapping of str to str, optional
        To which other method each is compared, beside ``ml_rff``.
    n_boot, random_state : int
    progress : callable, optional

    Returns
    -------
    Scores
    """
    tests = crossed_tests(data)
    device = data["device"].values.astype(str)
    out = Scores({}, {}, {}, {}, {})
    drawn: dict[tuple[str, str], Floats] = {}
    names = list(methods)
    for name in progress(names, "models", len(names)) if progress else names:
        codes = np.asarray(methods[name].codes, np.float32)
        known = enrol_groups(codes, data)
        out.enrolled[name] = known["known"]
        for test, rows in tests.items():
            own = device[rows]
            n = len(np.unique(own))
            weights = bootstrap_weights(n, n_boot, random_state).astype(float)
            drawn[test, name] = _open(out, test, name, codes[rows], own, weights)
            _closed(out, test, name, methods[name].predicted, rows, own, random_state)
            kind = test.split(".")[1]
            _verify(out, test, name, known[kind], codes[rows], own, weights)
        _reject(out, name, known, codes, device, tests, n_boot, random_state)
    _compare(out, drawn, references or {}, tests, device)
    return out


# Open set -------------------------------------------------------------------------------------


def _open(out: Scores, test: str, name: str, codes: Any, device: Any, weights: Floats) -> Floats:
    """Score all pairs; return the EER of every bootstrap sample."""
    n = len(np.unique(device))
    exact = verify_pairs(codes, device)
    pairs = count_source_pairs(codes, device, N_BINS)
    auc, eer = resampled(pairs, weights)
    for measure, value, samples, chance in (
        ("auc", exact.auc, auc, 0.5), ("eer", exact.eer, eer, 0.5),
    ):  # fmt: skip
        low, high = percentile_interval(samples, n_units=n)
        out.estimates[f"open.{test}.{name}.{measure}"] = Estimate(
            value, low, high, n=n, n_unit="device", chance=chance
        )
    out.roc[test, name] = _roc(pairs)
    return eer


def _roc(pairs: Floats) -> Floats:
    n = len(pairs)
    same = pairs[np.arange(n), np.arange(n)].sum(0)
    different = pairs.sum((0, 1)) - same
    rates = np.stack([np.cumsum(h[::-1]) / max(h.sum(), 1) for h in (same, different)])
    kept = np.flatnonzero(np.any(np.diff(rates, prepend=-1.0) > 0, axis=0))
    return np.concatenate([np.zeros((2, 1)), rates[:, kept]], axis=1)


def _closed(
    out: Scores, test: str, name: str, predicted: Any, rows: Rows, device: Any, seed: int
) -> None:
    if predicted is None or test.split(".")[1] != "known":
        return
    right = (np.asarray(predicted)[rows] == device).astype(float)
    n = len(np.unique(device))
    out.estimates[f"closed.{test}.{name}.accuracy"] = summarise(
        right, units=device, n_unit="device", chance=1 / n, random_state=seed
    )


# Enrolment ------------------------------------------------------------------------------------


def enrol_groups(codes: NDArray[np.floating], data: xr.Dataset) -> dict[str, Enrolled]:
    """Enrol the devices of every group, with the threshold that validation devices set.

    Parameters
    ----------
    codes : ndarray, shape (trial, latent)
        Of all bursts of `data`.
    data : Dataset
        Split bursts.

    Returns
    -------
    dict of str to Enrolled
        By group. Without validation devices the threshold is 0.
    """
    device, part, group = (data[k].values.astype(str) for k in ("device", "part", "group"))
    found = {
        kind: enrol(codes[rows], device[rows], 0.0)
        for kind in ("known", "validation", "unknown")
        if len(rows := np.flatnonzero((part == "enrol") & (group == kind)))
    }
    trial = np.flatnonzero((part == "test") & (group == "validation") & ~data["unseen"].values)
    if "validation" not in found or not len(trial):
        return found
    threshold = threshold_of(codes[trial], device[trial], found["validation"])
    return {k: Enrolled(one.templates, one.devices, threshold) for k, one in found.items()}


def _verify(
    out: Scores, test: str, name: str, known: Enrolled, codes: Any, device: Any, weights: Floats
) -> None:
    scores = known.scores(codes)
    right = device[:, None] == known.devices
    value = score_auc_eer(scores.ravel(), right.ravel())[1]
    _, eer = resampled(_template_pairs(scores, device, known), weights)
    n = weights.shape[1]
    low, high = percentile_interval(eer, n_units=n)
    out.estimates[f"verify.{test}.{name}.eer"] = Estimate(
        value, low, high, n=n, n_unit="device", chance=0.5
    )
    accepted = scores >= known.threshold
    out.accepted[test, name] = (
        float(1 - accepted[right].mean()), float(accepted[~right].mean())
    )  # fmt: skip


def _template_pairs(scores: Any, device: Any, known: Enrolled) -> Floats:
    """Count distances of bursts from templates by device: (device, device, bin), upper triangle."""
    names, number = np.unique(device, return_inverse=True)
    column = np.searchsorted(names, known.devices)
    inside = (column < len(names)) & (names[np.minimum(column, len(names) - 1)] == known.devices)
    column, scores = column[inside], scores[:, inside]
    bins = np.clip((1 - scores) * (N_BINS / 2), 0, N_BINS - 1).astype(int)
    low = np.minimum(number[:, None], column)
    high = np.maximum(number[:, None], column)
    cell = (low * len(names) + high) * N_BINS + bins
    counts = np.bincount(cell.ravel(), minlength=len(names) ** 2 * N_BINS)
    return counts.reshape(len(names), len(names), N_BINS).astype(float)


def _reject(
    out: Scores, name: str, known: dict[str, Enrolled], codes: Any, device: Any, tests: Any,
    n_boot: int, seed: int,
) -> None:  # fmt: skip
    """Tell bursts of enrolled devices from those of unknown ones by their best score."""
    for test, rows in tests.items():
        channel, kind, session = test.split(".")
        partner = f"{channel}.unknown.{session}"
        if kind != "known" or partner not in tests:
            continue
        best = [known["known"].scores(codes[r]).max(1) for r in (rows, tests[partner])]
        value = score_auc_eer(
            np.concatenate(best), np.repeat([True, False], [len(b) for b in best])
        )[0]
        samples = _reject_samples(best, [device[rows], device[tests[partner]]], n_boot, seed)
        n = len(np.unique(device[rows])) + len(np.unique(device[tests[partner]]))
        low, high = percentile_interval(samples, n_units=n)
        out.estimates[f"reject.{channel}.{session}.{name}.auroc"] = Estimate(
            value, low, high, n=n, n_unit="device", chance=0.5
        )


def _reject_samples(best: list[Any], devices: list[Any], n_boot: int, seed: int) -> Floats:
    histograms = []
    for offset, (scores, device) in enumerate(zip(best, devices, strict=True)):
        names, number = np.unique(device, return_inverse=True)
        bins = np.clip((1 - scores) * (N_BINS / 2), 0, N_BINS - 1).astype(int)
        counts = np.bincount(number * N_BINS + bins, minlength=len(names) * N_BINS)
        weights = bootstrap_weights(len(names), n_boot, seed + offset)
        histograms.append(weights @ counts.reshape(len(names), N_BINS).astype(float))
    return auc_eer(histograms[0], histograms[1])[0]


# Comparison -----------------------------------------------------------------------------------


def _compare(
    out: Scores, drawn: dict[tuple[str, str], Floats], references: Mapping[str, str],
    tests: dict[str, Rows], device: Any,
) -> None:  # fmt: skip
    models = list(dict.fromkeys(name for _, name in drawn))
    for test, rows in tests.items():
        n = len(np.unique(device[rows]))
        for name in models:
            against = dict.fromkeys(["ml_rff", references.get(name, "ml_rff")])
            for reference in against:
                if reference == name or (test, reference) not in drawn:
                    continue
                gain = drawn[test, name] - drawn[test, reference]
                low, high = percentile_interval(gain, n_units=n)
                base = out.estimates[f"open.{test}.{reference}.eer"].value
                value = out.estimates[f"open.{test}.{name}.eer"].value
                assert value is not None  # noqa: S101 - for the type checker
                assert base is not None  # noqa: S101
                out.differences[test, name, reference] = replace(
                    Estimate(value - base, low, high, n=n, n_unit="device"), baseline=base
                )
