"""Evaluate: retrieval and identification, with intervals over images.

Every function takes predictions keyed by stimulus and returns `neuro.validation.Estimate` objects
by the names of ``metrics.json``; ceilings and harder candidates are in `fmri.ceilings`. What is
resampled for an interval is the image: several subjects who saw one image are averaged first. The
candidates stay those of the whole test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.images import some
from neuro.errors import ContractError, DataError, InputError
from neuro.metrics.retrieval import (
    Ties,
    compare_rows,
    count_ahead,
    exact_top_k,
    pairwise,
    pairwise_within,
)
from neuro.validation import Estimate, paired_difference, summarise

__all__ = [
    "DIRECTIONS",
    "compare",
    "cosine_to_truth",
    "evaluate_identification",
    "evaluate_retrieval",
    "matched",
    "retrieval_scores",
]

Floats = NDArray[np.float64]
DIRECTIONS = ("image", "brain")
PUBLISHED = 300  # candidates of a draw, in MindEye's protocol


def matched(
    predicted: xr.DataArray, targets: xr.Dataset | xr.DataArray
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_]]:
    """Bring predictions and targets to the same stimuli, in the order of the predictions.

    Parameters
    ----------
    predicted : DataArray (trial, token, feature)
        One trial per stimulus, with ``stimulus``.
    targets : Dataset or DataArray
        ``(trial, token, feature)`` of these stimuli and perhaps others.

    Returns
    -------
    predicted, targets : ndarray of float32, shape (stimulus, token, feature)
    stimulus : ndarray of str

    Raises
    ------
    DataError
        Where a stimulus has no target, or several trials (average them first).
    ContractError
        Where tokens or features differ.
    """
    truth = targets["signal"] if isinstance(targets, xr.Dataset) else targets
    names = predicted["stimulus"].values.astype(str)
    if len(np.unique(names)) != len(names):
        raise DataError(
            f"{len(names)} predictions of {len(np.unique(names))} stimuli: average the repeats "
            "first, by fmri.mindeye.average_repeats, one subject at a time"
        )
    if predicted.shape[1:] != truth.shape[1:]:
        raise ContractError(
            f"the predictions have the shape {predicted.shape[1:]}, expected {truth.shape[1:]} "
            "(token, feature) as the targets"
        )
    place = {name: row for row, name in enumerate(truth["stimulus"].values.tolist())}
    missing = [name for name in names.tolist() if name not in place]
    if missing:
        raise DataError(f"there is no target of {len(missing)} stimuli: {some(missing)}")
    rows = [place[name] for name in names.tolist()]
    return (
        np.asarray(predicted.values, dtype=np.float32),
        np.asarray(truth.isel(trial=rows).values, dtype=np.float32),
        names,
    )


# Retrieval ------------------------------------------------------------------------------------


def retrieval_scores(
    scores: ArrayLike, *, n: int | None = None, k: int = 1, ties: Ties = "shared"
) -> dict[str, Floats]:
    """Expected top-k retrieval of every image, in both directions.

    Parameters
    ----------
    scores : array_like of shape (n, n)
        Rows: predictions from brains; columns: images.
    n : int, optional
        Candidates of a draw, by default all.
    k : int
    ties : {"shared", "worst"}

    Returns
    -------
    dict of str to ndarray of shape (n,)
        ``"image"``: from the brain to the image; ``"brain"``: from the image to the brain.
    """
    square = np.asarray(scores)
    sides = {"image": square, "brain": square.T}
    return {
        direction: exact_top_k(*count_ahead(side), n_candidates=len(side), n=n, k=k, ties=ties)
        for direction, side in sides.items()
    }


def evaluate_retrieval(
    predictions: Mapping[str, xr.DataArray | list[xr.DataArray]],
    targets: xr.Dataset | xr.DataArray,
    *,
    n: int = PUBLISHED,
    k: int = 1,
    ties: Ties = "shared",
    centre: ArrayLike | None = None,
    n_boot: int = 2000,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Evaluate retrieval of all methods, beside shuffled pairs and chance.

    Parameters
    ----------
    predictions : mapping of str to DataArray, or list of them
        Methods (``"mindeye"``, ``"prior"``, ``"ridge"``) with their predicted tokens, one trial
        per stimulus; a list holds one for each subject, who are averaged over by image.
    targets : Dataset or DataArray
    n : int
        Candidates of the published protocol; left out where there are fewer test images.
    k : int
    ties : {"shared", "worst"}
    centre : array_like of shape (token, feature), optional
        The training targets' mean: taken off predictions (in the space of the targets) and
        targets before the cosine. A regression that shrinks to the mean is held back by what all
        images share, far more so from brain to image than back; centred, it is the baseline to
        beat. Published figures are not centred.
    n_boot, random_state
        Of the intervals, over images.

    Returns
    -------
    dict of str to Estimate
        ``retrieval.<image|brain>.<method>.top1`` among all candidates and ``.top1_of_300``, the
        exact expectation of the draws. Method ``shuffled``: the first method's predictions given
        to other images, unless one of that name is among `predictions`.

    Examples
    --------
    >>> from fmri.simulate import simulate
    >>> targets = simulate(n_train=20, n_test=5, n_voxels=10).targets
    >>> found = evaluate_retrieval({"ridge": targets.signal}, targets, n=10)
    >>> found["retrieval.image.ridge.top1"].value, found["retrieval.brain.ridge.top1_of_10"].chance
    (1.0, 0.1)
    """
    several = _with_shuffled(_lists(predictions), random_state)
    settings: dict[str, Any] = {"n_boot": n_boot, "random_state": random_state}
    out: dict[str, Estimate] = {}
    for method, parts in several.items():
        for draw in (None, n):
            values = _retrieval_of(parts, targets, draw, k, ties, centre)
            for direction, (score, names, chance) in values.items():
                name = f"retrieval.{direction}.{method}.top{k}" + (f"_of_{n}" if draw else "")
                out[name] = summarise(score, units=names, n_unit="image", chance=chance, **settings)
    return out


def _retrieval_of(
    parts: list[xr.DataArray],
    targets: Any,
    n: int | None,
    k: int,
    ties: Ties,
    centre: ArrayLike | None,
) -> dict[str, tuple[Floats, NDArray[np.str_], float]]:
    found: dict[str, list[Any]] = {direction: [] for direction in DIRECTIONS}
    units, chances = [], []
    for part in parts:
        brain, image, names = matched(part, targets)
        if n is not None and n > len(names):
            return {}
        scores = retrieval_scores(_cosines(brain, image, centre), n=n, k=k, ties=ties)
        for direction in DIRECTIONS:
            found[direction].append(scores[direction])
        units.append(names)
        chances.append(k / (n or len(names)))
    names, chance = np.concatenate(units), float(np.mean(chances))
    return {d: (np.concatenate(values), names, chance) for d, values in found.items()}


def _cosines(
    brain: NDArray[np.float32], image: NDArray[np.float32], centre: ArrayLike | None
) -> NDArray[np.float32]:
    if centre is None:
        return compare_rows(brain, image)
    mean = np.asarray(centre, dtype=np.float32)
    if mean.shape != image.shape[1:]:
        raise InputError(f"centre has the shape {mean.shape}, expected {image.shape[1:]}")
    return compare_rows(brain - mean, image - mean)


def _lists(
    predictions: Mapping[str, xr.DataArray | list[xr.DataArray]],
) -> dict[str, list[xr.DataArray]]:
    if not predictions:
        raise InputError("there is no method to evaluate: pass for example {'mindeye': tokens}")
    return {
        name: list(part) if isinstance(part, list | tuple) else [part]
        for name, part in predictions.items()
    }


def _with_shuffled(
    several: dict[str, list[xr.DataArray]], random_state: int
) -> dict[str, list[xr.DataArray]]:
    from fmri.baselines import derangement

    if "shuffled" in several:
        return several
    first = next(iter(several.values()))
    shuffled = [
        part.copy(data=part.values[derangement(len(part), random_state)]) if len(part) > 1 else part
        for part in first
    ]
    return {**several, "shuffled": shuffled}


# Identification -------------------------------------------------------------------------------


def evaluate_identification(
    predictions: Mapping[str, ArrayLike],
    truth: ArrayLike,
    *,
    stimulus: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    similarity: str = "correlation",
    n_boot: int = 2000,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Evaluate two-way identification of pictures or patterns, overall and within classes.

    Parameters
    ----------
    predictions : mapping of str to array_like of shape (n, ...)
        Methods with one predicted picture (or token set) for each image.
    truth : array_like of shape (n, ...)
    stimulus : array_like of str, shape (n,), optional
        Units of the intervals; by default every row is one.
    classes : array_like of str, shape (n,), optional
    similarity : {"correlation", "cosine"}

    Returns
    -------
    dict of str to Estimate
        ``identify.<method>.pairwise`` and ``identify.<method>.within.<class>``, chance 0.5.
    """
    out: dict[str, Estimate] = {}
    for method, predicted in predictions.items():
        scores = compare_rows(predicted, truth, similarity=similarity)  # type: ignore[arg-type]
        fields: dict[str, Any] = {
            "n_unit": "image", "chance": 0.5, "n_boot": n_boot, "random_state": random_state,
        }  # fmt: skip
        out[f"identify.{method}.pairwise"] = summarise(pairwise(scores), units=stimulus, **fields)
        if classes is None:
            continue
        labels = np.asarray(classes).astype(str)
        within = pairwise_within(scores, labels)
        for value in np.unique(labels):
            rows = labels == value
            units = None if stimulus is None else np.asarray(stimulus)[rows]
            out[f"identify.{method}.within.{value}"] = summarise(
                within[rows], units=units, **fields
            )
    return out


def cosine_to_truth(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Cosine of every prediction to its own target, over all tokens.

    Examples
    --------
    >>> cosine_to_truth([[1.0, 0.0]], [[2.0, 0.0]]).tolist()
    [1.0]
    """
    a, b = (
        np.asarray(v, dtype=np.float64).reshape(len(np.asarray(v)), -1) for v in (predicted, truth)
    )
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("if,if->i", a, b) / np.maximum(length, 1e-30)


def compare(
    values: ArrayLike, reference: ArrayLike, *, stimulus: ArrayLike | None = None, **settings: Any
) -> Estimate:
    """Compare two methods image by image: the mean difference with its interval and p.

    Parameters
    ----------
    values, reference : array_like of shape (n,)
        For example of `retrieval_scores`, on the same images.
    stimulus : array_like of str, shape (n,), optional
    **settings
        Of `neuro.validation.paired_difference`.

    Examples
    --------
    >>> compare([1.0, 1.0, 0.5], [0.5, 0.0, 0.5]).value
    0.5
    """
    return paired_difference(values, reference, units=stimulus, n_unit="image", **settings)
