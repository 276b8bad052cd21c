"""How well fingerprints tell devices apart: crossed over channel, device and session.

Every test has three sides: the channel (as in training, or statistics never seen), the devices
(trained on, or unknown) and the session (of the training, or later, after drift). Intervals are
over devices; methods are compared on the same resampled devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from neuro.validation import Estimate, bootstrap_weights, percentile_interval, unit_means
from timeseries.rf.enrol import Enrolled, enrol, threshold_of

__all__ = ["Fingerprints", "Scores", "compare", "crossed_tests", "enrol_groups", "evaluate"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

N_BINS = 4096  # of scores in a bootstrap
_BAND_BINS, _BAND_SAMPLES = 256, 200  # of the ROC's band


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
    differences : dict of (str, str, str, str) to Estimate
        By test, model, reference and measure (auc, eer): the open-set score of the model less
        that of the reference.
    samples : dict of str to ndarray, shape (n_boot,)
        The bootstrap samples behind each estimate; all models have the same devices in a sample.
    enrolled : dict of str to Enrolled
        By model: the known devices, with the threshold set on validation devices.
    roc : dict of (str, str) to ndarray, shape (2, point)
        By test and model: false and true positive rates over all pairs ("different" is positive).
    bands : dict of (str, str) to ndarray, shape (3, point)
        False positive rates, and the ends of the interval of the true positive rates there.
    accepted : dict of (str, str) to tuple of two floats
        By test and model, at the threshold: right bursts rejected, wrong ones accepted; empty
        without validation devices, which set it.
    """

    estimates: dict[str, Estimate] = field(default_factory=dict)
    differences: dict[tuple[str, str, str, str], Estimate] = field(default_factory=dict)
    samples: dict[str, Floats] = field(default_factory=dict)
    enrolled: dict[str, Enrolled] = field(default_factory=dict)
    roc: dict[tuple[str, str], Floats] = field(default_factory=dict)
    bands: dict[tuple[str, str], Floats] = field(default_factory=dict)
    accepted: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def add(
        self, name: str, value: float, samples: Floats, n: int, chance: float, unit: str = "device"
    ) -> None:
        """Put in an estimate with the interval of its bootstrap samples over `n` units."""
        low, high = percentile_interval(samples, n_units=n)
        known = np.isfinite([low, high]).all()
        self.samples[name] = samples
        self.estimates[name] = Estimate(
            value, low if known else None, high if known else None, n=n, n_unit=unit, chance=chance
        )


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
    references: Mapping[str, Sequence[str]] | None = None,
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
    references : mapping of str to sequence of str, optional
        To which other methods each is compared, beside ``ml_rff``.
    n_boot, random_state : int
    progress : callable, optional

    Returns
    -------
    Scores
    """
    tests = crossed_tests(data)
    device = data["device"].values.astype(str)
    out = Scores()
    names = list(methods)
    for name in progress(names, "models", len(names)) if progress else names:
        codes = np.asarray(methods[name].codes, np.float32)
        known = enrol_groups(codes, data)
        out.enrolled[name] = known["known"]
        for test, rows in tests.items():
            own = device[rows]
            n = len(np.unique(own))
            weights = bootstrap_weights(n, n_boot, random_state).astype(float)
            _open(out, test, name, codes[rows], own, weights)
            _closed(out, test, name, methods[name].predicted, rows, own, weights)
            kind = test.split(".")[1]
            _verify(out, test, name, known[kind], codes[rows], own, weights)
        _reject(out, name, known, codes, device, tests, n_boot, random_state)
    for test in tests:
        compare(out, test, names, references or {})
    return out


# Open set -------------------------------------------------------------------------------------


def _open(out: Scores, test: str, name: str, codes: Any, device: Any, weights: Floats) -> None:
    """Score all pairs."""
    n = weights.shape[1]
    exact = verify_pairs(codes, device)
    pairs = count_source_pairs(codes, device, N_BINS)
    auc, eer = resampled(pairs, weights)
    out.add(f"open.{test}.{name}.auc", exact.auc, auc, n, 0.5)
    out.add(f"open.{test}.{name}.eer", exact.eer, eer, n, 0.5)
    out.roc[test, name] = _roc(pairs)
    out.bands[test, name] = _band(pairs, weights)


def _band(pairs: Floats, weights: Floats) -> Floats:
    """Return the interval over devices of the ROC, from coarser counts and fewer samples."""
    n = len(pairs)
    coarse = pairs.reshape(n, n, _BAND_BINS, -1).sum(-1)
    few = weights[:_BAND_SAMPLES]
    first, second = np.triu_indices(n, 1)
    kinds = (
        few @ coarse[np.arange(n), np.arange(n)],
        (few[:, first] * few[:, second]) @ coarse[first, second],
    )
    at = np.linspace(0, 1, 41)
    kept = (kinds[0].sum(1) > 0) & (kinds[1].sum(1) > 0)
    rates = [np.cumsum(k[kept, ::-1], 1) / k[kept].sum(1, keepdims=True) for k in kinds]
    curves = [np.interp(at, [0, *x], [0, *y]) for x, y in zip(*rates, strict=True)]
    low, high = np.quantile(curves, [0.025, 0.975], axis=0) if curves else (at * 0, at * 0 + 1)
    return np.stack([at, low, high])


def _roc(pairs: Floats) -> Floats:
    n = len(pairs)
    same = pairs[np.arange(n), np.arange(n)].sum(0)
    different = pairs.sum((0, 1)) - same
    rates = np.stack([np.cumsum(h[::-1]) / max(h.sum(), 1) for h in (same, different)])
    kept = np.flatnonzero(np.any(np.diff(rates, prepend=-1.0) > 0, axis=0))
    return np.concatenate([np.zeros((2, 1)), rates[:, kept]], axis=1)


def _closed(
    out: Scores, test: str, name: str, predicted: Any, rows: Rows, device: Any, weights: Floats
) -> None:
    if predicted is None or test.split(".")[1] != "known":
        return
    means = unit_means((np.asarray(predicted)[rows] == device).astype(float), device)
    n = len(means)
    out.add(f"closed.{test}.{name}.accuracy", float(means.mean()), weights @ means / n, n, 1 / n)


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
        By group. Without validation devices the threshold is NaN: there is none.
    """
    device, part, group = (data[k].values.astype(str) for k in ("device", "part", "group"))
    found = {
        kind: enrol(codes[rows], device[rows], math.nan)
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
    out.add(f"verify.{test}.{name}.eer", value, eer, weights.shape[1], 0.5)
    if math.isnan(known.threshold):
        return
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
        out.add(f"reject.{channel}.{session}.{name}.auroc", value, samples, n, 0.5)


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


def compare(
    out: Scores, test: str, models: Sequence[str], references: Mapping[str, Sequence[str]],
    n_unit: str = "device",
) -> None:  # fmt: skip
    """Compare open-set scores of one test on the same bootstrap samples; fill in `differences`.

    Parameters
    ----------
    out : Scores
        With the estimates and samples of all models.
    test : str
    models : sequence of str
    references : mapping of str to sequence of str
        To which other models each is compared, beside ``ml_rff``.
    n_unit : str
        What the samples are over.
    """
    for name in models:
        for reference in dict.fromkeys(["ml_rff", *references.get(name, ())]):
            if reference == name or reference not in models:
                continue
            for measure in ("auc", "eer"):
                ours, theirs = (f"open.{test}.{m}.{measure}" for m in (name, reference))
                gain = out.samples[ours] - out.samples[theirs]
                one, base = out.estimates[ours], out.estimates[theirs]
                assert one.value is not None  # noqa: S101 - for the type checker
                assert base.value is not None  # noqa: S101
                low, high = percentile_interval(gain, n_units=one.n)
                out.differences[test, name, reference, measure] = Estimate(
                    one.value - base.value, low, high, n=one.n, n_unit=n_unit, chance=0.0,
                    baseline=base.value,
                )  # fmt: skip
