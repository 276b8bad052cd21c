"""Which latents carry which label, and whether what SCAN says of them is true.

A latent is *named* for a label only if the encoder uses it (KL above 0.01), other seeds found it
too, and participants' codes differ on it more than the largest difference, over all latents and
labels, that shuffled labels make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eeg.labels import read_labels, refuse_contradictions
from eeg.symbols import MISSING
from neuro.errors import InputError
from neuro.metrics.latents import kl_per_latent
from neuro.metrics.udr import match_latents
from neuro.validation import Estimate, permutation_p

if TYPE_CHECKING:
    import xarray as xr

    from eeg.scan import SCAN

STABLE = 0.7
"""Least absolute rank correlation with the matched latents of other seeds."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class Reading:
    """What SCAN says of one label.

    Parameters
    ----------
    label : str
    latent : int or None
        The latent named for it, None where there is none.
    best : int
        The latent of the largest distance among those kept, named or not.
    part : str
        What of `best` carries the label: its level, or its difference between conditions.
    distance : float
        Of `best`: between the posteriors of two values, in their pooled standard deviations.
    specificity : float
        Of `best`: the largest KL of a value's posterior from the prior, nats.
    stability : float or None
        Of `best`; None where only one seed was trained.
    p : float
        Of `best`: shuffled labels, maximum over latents and labels.
    p_label : float
        The same with the maximum over latents alone.
    why_not : str
        What `best` lacks, "" where it is named.
    """

    label: str
    latent: int | None
    best: int
    part: str
    distance: float
    specificity: float
    stability: float | None
    p: float
    p_label: float
    why_not: str = ""


@dataclass
class Interpretation:
    """What `interpret` found.

    Parameters
    ----------
    readings : list of Reading
        By label.
    found : Dataset
        From `SCAN.interpret`.
    stability : ndarray of shape (latent,) or None
    p : ndarray of shape (label, part * latent)
        Maximum over latents (their levels and differences) and labels.
    n_shuffles : int
    """

    readings: list[Reading]
    found: xr.Dataset
    stability: Floats | None
    p: Floats
    n_shuffles: int

    def by_name(self) -> dict[str, Estimate]:
        """Estimates by their name in ``metrics.json``, without the leading ``scan.``."""
        named = {}
        for reading in self.readings:
            for number in ("latent", "distance", "specificity", "p"):
                value = getattr(reading, number)
                named[f"{reading.label}.{number}"] = Estimate(value)
        return named


def interpret(
    scan: SCAN,
    signal: Any,
    y: Any = None,
    *,
    siblings: Sequence[Any] = (),
    stability: ArrayLike | None = None,
    n_shuffles: int = 1000,
    alpha: float = 0.05,
    random_state: int = 0,
) -> Interpretation:
    """Name the latents that carry labels.

    Parameters
    ----------
    scan : SCAN
        Fitted, at the level "participant". Labels that vary inside participants are passed over.
    signal : DataArray
        The trials it was fitted on.
    y : as in `SCAN.fit`, optional
        Labels; by default the coordinates of `signal` that SCAN's labels name.
    siblings : sequence of BetaVAE, optional
        Encoders that differ in their seed from SCAN's.
    stability : array-like of shape (latent,), optional
        Known already (`Candidate.stability`), in place of `siblings`.
    n_shuffles : int
        Shuffles of the participants' labels; a participant's labels stay together.
    alpha : float
        Level of the family of all labels.
    random_state : int

    Returns
    -------
    Interpretation
    """
    center, codes = participant_codes(scan, signal, y)
    found = scan.interpret()
    kept = np.asarray(found["kept"].values)
    if stability is None and siblings:
        stability = seed_stability(scan.encoder_, siblings, signal)
    n_parts = len(scan.pooling_.parts)
    steady = None if stability is None else np.tile(np.asarray(stability, float), n_parts)
    p, p_label = shuffled_p(center, codes, kept, n_shuffles, random_state)
    readings = [
        _reading(found, number, steady, p[number], p_label[number], alpha)
        for number, name in enumerate(scan.symbols_.labels)
        if name not in scan.within
    ]
    return Interpretation(readings, found, steady, p, n_shuffles)


def participant_codes(scan: SCAN, signal: Any, y: Any = None) -> tuple[Floats, Ints]:
    """Return the codes of participants as SCAN sees them, and their label values.

    Parameters
    ----------
    scan : SCAN
    signal : DataArray
        Trials with the coordinate ``subject``.
    y : as in `SCAN.fit`, optional

    Returns
    -------
    codes : ndarray of shape (participant, part * latent)
        On the scale of the prior.
    values : ndarray of int, shape (participant, label)
        `MISSING` where there is none, and for labels that vary inside participants.
    """
    if "subject" not in getattr(signal, "coords", {}):
        raise InputError("latents are named by participants, but the trials don't tell theirs")
    subject = signal["subject"].values.astype(str)
    _, first, unit = np.unique(subject, return_index=True, return_inverse=True)
    pair = scan.encoder_.transform(signal, return_variance=True)
    mean, variance = (np.asarray(a) for a in pair)
    condition = signal[scan.contrast].values if scan.contrast in signal.coords else None
    center, _ = scan.pooling_.pool(mean, variance, unit, condition)
    names = scan.symbols_.labels
    table = read_labels(names if y is None else y, signal, subject, len(subject))
    refuse_contradictions(table, subject, scan.within)
    values = scan.symbols_.codes(table.iloc[first])
    values[:, [name in scan.within for name in names]] = MISSING
    return center.astype(float), values


def seed_stability(encoder: Any, siblings: Sequence[Any], signal: Any) -> Floats:
    """Tell how well encoders of other seeds found the latents of one, on the same trials.

    Returns
    -------
    ndarray of shape (latent,)
        Median over the siblings of the absolute rank correlation with the matched latent.
    """
    own = [np.asarray(a) for a in encoder.transform(signal, return_variance=True)]
    strengths = []
    for sibling in siblings:
        other = [np.asarray(a) for a in sibling.transform(signal, return_variance=True)]
        match = match_latents(own[0], other[0], kl_per_latent(*own), kl_per_latent(*other))
        strengths.append(match.strength)
    return np.median(strengths, axis=0)


def shuffled_p(
    codes: Floats,
    values: Ints,
    kept: NDArray[np.bool_],
    n_shuffles: int = 1000,
    random_state: int = 0,
) -> tuple[Floats, Floats]:
    """Test every latent against every label with the maximum statistic.

    The statistic is the largest Welch t between two values of the label. Participants exchange
    their labels, all of one together, so that labels stay as correlated as they are.

    Parameters
    ----------
    codes : ndarray of shape (unit, latent)
    values : ndarray of int, shape (unit, label)
    kept : ndarray of bool, shape (latent,)
        Latents that are tested; the others have p = 1.
    n_shuffles, random_state : int

    Returns
    -------
    p : ndarray of shape (label, latent)
        Against the maximum over latents and labels: over the whole family at most `alpha` of
        null cohorts have any p below it.
    p_label : ndarray of shape (label, latent)
        Against the maximum over latents alone.
    """
    rng = np.random.default_rng(random_state)
    orders = np.argsort(rng.random((n_shuffles, len(codes))), axis=1)
    shape = (values.shape[1], codes.shape[1])
    p, p_label = np.ones(shape), np.ones(shape)
    if not kept.any():
        return p, p_label
    tested = codes[:, kept]
    rows = np.concatenate([np.arange(len(codes))[None], orders])
    t = np.stack([_largest_t(tested, values[:, k][rows]) for k in range(shape[0])], axis=1)
    over_latents = t[1:].max(2)  # (shuffle, label)
    for number in range(shape[0]):
        p_label[number, kept] = permutation_p(t[0, number], over_latents[:, number, None])
        p[number, kept] = permutation_p(t[0, number], over_latents.max(1)[:, None])
    return p, p_label


def _largest_t(codes: Floats, labellings: Ints) -> Floats:
    """Return the largest absolute t over pairs of values, (labelling, latent)."""
    present = [k for k in np.unique(labellings) if k != MISSING]
    moments = []
    for k in present:
        has = (labellings == k).astype(float)
        n = np.maximum(has.sum(1, keepdims=True), 1)
        mean = has @ codes / n
        variance = np.maximum(has @ codes**2 / n - mean**2, 1e-12) / np.maximum(n - 1, 1)
        moments.append((mean, variance))
    pairs = [np.abs(a[0] - b[0]) / np.sqrt(a[1] + b[1]) for a, b in combinations(moments, 2)]
    return np.max(pairs, axis=0) if pairs else np.zeros((len(labellings), codes.shape[1]))


def _reading(
    found: xr.Dataset, number: int, stability: Floats | None, p: Floats, p_label: Floats,
    alpha: float,
) -> Reading:  # fmt: skip
    label = str(found["label"].values[number])
    kept, distance = np.asarray(found["kept"].values), found["distance"].values[number]
    stable = np.ones(len(kept), bool) if stability is None else stability >= STABLE
    named = kept & stable & (p <= alpha)
    pool = named if named.any() else kept if kept.any() else np.ones(len(kept), bool)
    best = int(np.where(pool, distance, -1).argmax())
    lacks = {"not kept (KL)": kept[best], "not stable over seeds": stable[best]}
    lacks["not significant"] = p[best] <= alpha
    own = [str(name).startswith(f"{label}=") for name in found["symbol"].values]
    return Reading(
        label,
        int(found["latent"].values[best]) if named.any() else None,
        int(found["latent"].values[best]),
        str(found["part"].values[best]),
        float(distance[best]),
        float(found["specificity"].values[own, best].max()),
        None if stability is None else float(stability[best]),
        float(p[best]),
        float(p_label[best]),
        ", ".join(reason for reason, fine in lacks.items() if not fine),
    )
