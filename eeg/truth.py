"""Whether latents and concepts are true: against the factors and effects of a simulated cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.validation import Estimate, bootstrap_weights, percentile_interval

if TYPE_CHECKING:
    import xarray as xr

    from eeg.repeats import Fitted
    from eeg.scan import SCAN
    from eeg.simulate import Component, Label

Floats = NDArray[np.float64]


@dataclass
class FactorMatch:
    """The latents found for one factor of a simulated cohort.

    Parameters
    ----------
    name : str
    estimate : Estimate
        Absolute rank correlation on held-out participants, mean over folds; its sign is that of
        the training participants.
    latents : list of str
        By fold: the latent chosen on training participants, ``3`` for its mean over trials,
        ``3 (difference)`` for its difference between conditions.
    """

    name: str
    estimate: Estimate
    latents: list[str] = field(default_factory=list)


def match_factors(
    fitted: Fitted, data: xr.Dataset, *, n_boot: int = 500, random_state: int = 0
) -> list[FactorMatch]:
    """Choose the best latent of every factor on training participants; score it on test ones.

    Parameters
    ----------
    fitted : Fitted
        Encoders of folds, from `eeg.repeats.fit_repeats`.
    data : Dataset
        A simulated cohort, with coordinates ``factor_<name>`` on trials.
    n_boot, random_state : int

    Returns
    -------
    list of FactorMatch
        Empty where the data have no factors.
    """
    from scipy.stats import rankdata

    names = [str(name) for name in data.coords if str(name).startswith("factor_")]
    people, first, unit = np.unique(
        data["subject"].values.astype(str), return_index=True, return_inverse=True
    )
    truth = np.stack([data[name].values[first] for name in names], axis=1) if names else None
    if truth is None:
        return []
    condition = data["condition"].values if "condition" in data.coords else None
    signed = np.full((len(fitted.folds), len(names)), np.nan)
    chosen: list[list[str]] = [[] for _ in names]
    draws = bootstrap_weights(len(people), n_boot, random_state).astype(float)
    samples = np.full((len(fitted.folds), len(names), n_boot), np.nan)
    for number, (_, test) in enumerate(fitted.folds):
        held = np.isin(np.arange(len(people)), unit[test])
        kept = np.asarray(fitted.encoders[number].kept_)
        codes, titles = _summaries(fitted.codes[number][0], unit, condition, kept)
        if not codes.shape[1]:
            continue
        fit = _rank_correlation(codes[~held], truth[~held])  # (code, factor)
        best = np.abs(fit).argmax(0)
        for k in range(len(names)):
            sign = np.sign(fit[best[k], k])
            a, b = rankdata(sign * codes[held, best[k]]), rankdata(truth[held, k])
            signed[number, k] = _weighted_correlation(a, b, np.ones((1, held.sum())))[0]
            samples[number, k] = _weighted_correlation(a, b, draws[:, held])
            chosen[k].append(titles[best[k]])
    found = []
    for k, name in enumerate(names):
        known = np.isfinite(signed[:, k])
        value = float(signed[known, k].mean()) if known.any() else None
        low, high = percentile_interval(samples[known, k].mean(0)) if known.any() else (None, None)
        n = len(np.unique(np.concatenate([unit[test] for _, test in fitted.folds])))
        estimate = Estimate(value, low, high, n=n, n_unit="subject", chance=0.0)
        found.append(FactorMatch(name.removeprefix("factor_"), estimate, chosen[k]))
    return found


def _summaries(
    mean: NDArray[Any], unit: NDArray[np.intp], condition: Any, kept: NDArray[np.bool_]
) -> tuple[Floats, list[str]]:
    """Return each participant's mean codes and their differences between conditions."""
    codes = mean[:, kept].astype(float)
    names = [str(k) for k in np.flatnonzero(kept)]
    numbers = (
        np.zeros(len(unit)) if condition is None else np.unique(condition, return_inverse=True)[1]
    )
    parts = []
    for k in np.unique(numbers):
        own = numbers == k
        n = np.bincount(unit[own], minlength=unit.max() + 1)
        sums = np.zeros((unit.max() + 1, codes.shape[1]))
        np.add.at(sums, unit[own], codes[own])
        parts.append(sums / np.maximum(n, 1)[:, None])
    differences = [part - parts[0] for part in parts[1:]]
    titles = names + [f"{name} (difference)" for _ in differences for name in names]
    return np.concatenate([np.mean(parts, axis=0), *differences], axis=1), titles


def _rank_correlation(a: Floats, b: Floats) -> Floats:
    """Spearman's rho of all columns with all columns."""
    from scipy.stats import rankdata

    ranks = [rankdata(x, axis=0) for x in (a, b)]
    centred = [r - r.mean(0) for r in ranks]
    scaled = [r / np.maximum(np.linalg.norm(r, axis=0), 1e-12) for r in centred]
    return scaled[0].T @ scaled[1]


def _weighted_correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Correlate two columns of ranks in samples where rows have weights, (sample,)."""
    total = np.maximum(weights.sum(1), 1)
    mean_a, mean_b = weights @ a / total, weights @ b / total
    cross = weights @ (a * b) / total - mean_a * mean_b
    spread = (weights @ a**2 / total - mean_a**2) * (weights @ b**2 / total - mean_b**2)
    return cross / np.sqrt(np.maximum(spread, 1e-12))


@dataclass
class Recombined:
    """Difference waves of concepts beside the simulator's truth.

    Parameters
    ----------
    waves : dict of str to (decoded, truth), each of shape (condition, channel, time)
        By what was asked for; uV. Of one condition where SCAN pools them.
    r : dict of str to float
        Correlation over conditions, channels and times.
    conditions : tuple of str
        ("",) where there are none.
    """

    waves: dict[str, tuple[NDArray[Any], NDArray[Any]]]
    r: dict[str, float]
    conditions: tuple[str, ...] = ("",)

    @property
    def and_r(self) -> float:
        """Correlation of what AND gives."""
        return next(r for name, r in self.r.items() if " AND " in name)

    @property
    def ignore_r(self) -> float:
        """Mean correlation of what IGNORE leaves, for either label ignored."""
        return float(np.mean([r for name, r in self.r.items() if " IGNORE " in name]))


def recombined(
    scan: SCAN,
    data: xr.Dataset,
    labels: Mapping[str, Label] | None = None,
    components: Sequence[Component] | None = None,
) -> Recombined | None:
    """Hold AND and IGNORE of two labels against the simulator's truth, as difference waves.

    Parameters
    ----------
    scan : SCAN
        Fitted to the labels, with operators.
    data : Dataset
        The simulated cohort.
    labels : mapping of str to Label, optional
        As given to the simulator. The first two that act on a factor are taken.
    components : sequence of Component, optional
        As given to the simulator.

    Returns
    -------
    Recombined or None
        None where fewer than two labels act on a factor.
    """
    from eeg.simulate import COMPONENTS, LABELS

    labels = LABELS if labels is None else labels
    acting = [name for name in scan.symbols_.labels if name in labels and labels[name].factor]
    if len(acting) < 2:
        return None
    first, second = acting[:2]
    one, other = ({name: labels[name].values[1]} for name in (first, second))
    both = {**one, **other}
    asked = {
        _title(one): (scan.concept(one), (first,)),
        _title(other): (scan.concept(other), (second,)),
        f"{_title(one)} AND {_title(other)}": (scan.combine(one, "and", other), (first, second)),
        f"({_title(both)}) IGNORE {_title(other)}": (
            scan.combine(both, "ignore", other),
            (first,),
        ),
        f"({_title(both)}) IGNORE {_title(one)}": (
            scan.combine(both, "ignore", one),
            (second,),
        ),
    }
    parts = COMPONENTS if components is None else components
    apart = bool(scan.pooling_.conditions)
    plain = _expected(data, {}, parts, apart)
    waves = {}
    for title, (concept, names) in asked.items():
        shifts: dict[str, float] = {}
        for name in names:
            factor = str(labels[name].factor)
            shifts[factor] = shifts.get(factor, 0.0) + labels[name].effect / 2
        truth = _expected(data, shifts, parts, apart) - plain
        decoded = np.asarray(concept["difference"])
        waves[title] = (decoded.reshape(truth.shape), truth)
    r = {title: float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for title, (a, b) in waves.items()}
    return Recombined(waves, r, scan.pooling_.conditions or ("",))


def _expected(
    data: xr.Dataset, factors: Mapping[str, float], components: Sequence[Component], apart: bool
) -> NDArray[Any]:
    """Return the true ERP (condition, channel, time), of one condition unless `apart`.

    It is the conditions' mean, or stacked along the channels where the data are.
    """
    import xarray as xr

    from eeg.simulate import expected_erp

    stacked = [str(name) for name in data.attrs.get("stacked", ())]
    if not stacked:
        every = expected_erp(data, factors, components).sortby("condition").values
        return every if apart else every.mean(0, keepdims=True)
    names = [str(name) for name in data["channel"].values[: data.sizes["channel"] // len(stacked)]]
    coords = {
        "channel": [name.removesuffix(f" {stacked[0]}") for name in names],
        "condition": ("trial", stacked),
        "time": data["time"].values,
    }
    erp = expected_erp(xr.Dataset(coords=coords, attrs=data.attrs), factors, components)
    return erp.values.reshape(1, -1, data.sizes["time"])


def _title(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
