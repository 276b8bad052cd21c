"""What retrieval can reach, and what it is worth: ceilings and distractors of the same cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.evaluate import DIRECTIONS, matched, retrieval_scores
from neuro.errors import DataError, InputError
from neuro.metrics.retrieval import (
    compare_rows,
    count_ahead,
    exact_top_k,
    pairwise,
    pairwise_within,
)
from neuro.validation import Estimate, summarise

__all__ = ["ceiling_estimate", "repeat_retrieval", "same_cluster_retrieval"]

Floats = NDArray[np.float64]


def same_cluster_retrieval(
    predicted: xr.DataArray,
    targets: xr.Dataset | xr.DataArray,
    train_targets: ArrayLike,
    *,
    n_clusters: int = 10,
    n_boot: int = 2000,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Evaluate retrieval among distractors of the image's own cluster.

    What is left when knowing the kind of picture no longer helps. Clusters are those of k-means
    on the training targets.

    Parameters
    ----------
    predicted : DataArray (trial, token, feature)
    targets : Dataset or DataArray
    train_targets : array_like of shape (n, ...)
        Of training stimuli.
    n_clusters : int
        At most; clusters with one test image are left out.

    Returns
    -------
    dict of str to Estimate
        ``retrieval.<image|brain>.same_cluster.top1`` and ``.pairwise`` (image only), with the
        chance level of the clusters' sizes.
    """
    from sklearn.cluster import KMeans

    brain, image, names = matched(predicted, targets)
    train = np.asarray(train_targets, dtype=np.float32).reshape(len(np.asarray(train_targets)), -1)
    if len(train) < n_clusters:
        raise InputError(
            f"{n_clusters} clusters of {len(train)} training targets: lower n_clusters"
        )
    means = KMeans(n_clusters, n_init=4, random_state=random_state).fit(_unit(train))
    cluster = means.predict(_unit(image.reshape(len(image), -1)))
    scores = compare_rows(brain, image)
    fields: dict[str, Any] = {"n_unit": "image", "n_boot": n_boot, "random_state": random_state}
    within, chance = _within_clusters(scores, cluster)
    out = {
        f"retrieval.{direction}.same_cluster.top1": replace(
            summarise(values, units=names, **fields), chance=chance
        )
        for direction, values in within.items()
    }
    pairs = summarise(pairwise_within(scores, cluster), units=names, chance=0.5, **fields)
    return {**out, "retrieval.image.same_cluster.pairwise": pairs}


def _within_clusters(
    scores: NDArray[Any], cluster: NDArray[Any]
) -> tuple[dict[str, Floats], float | None]:
    found = {direction: np.full(len(cluster), np.nan) for direction in DIRECTIONS}
    chance = np.full(len(cluster), np.nan)
    for value in np.unique(cluster):
        members = np.flatnonzero(cluster == value)
        if len(members) < 2:
            continue
        for direction, hits in retrieval_scores(scores[np.ix_(members, members)]).items():
            found[direction][members] = hits
        chance[members] = 1 / len(members)
    return found, None if np.isnan(chance).all() else float(np.nanmean(chance))


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def repeat_retrieval(
    voxels: ArrayLike, stimulus: ArrayLike, *, n_boot: int = 2000, random_state: int = 0
) -> dict[str, Estimate]:
    """Ceiling by repeats: find a pattern's image by other trials of the same image.

    The repeats of each stimulus are dealt into two halves; the mean of one half is held against
    those of the other halves. No decoder is involved: where this is at chance, retrieval has
    nothing to work with.

    Parameters
    ----------
    voxels : array_like of shape (trial, voxel)
        Betas of one subject, z-scored by session.
    stimulus : array_like of str, shape (trial,)
        Those with one trial only are left out.

    Returns
    -------
    dict of str to Estimate
        ``ceiling.repeats.top1`` and ``ceiling.repeats.pairwise``.

    Raises
    ------
    DataError
        Where fewer than two stimuli have two trials.
    """
    values, names = np.asarray(voxels, dtype=np.float32), np.asarray(stimulus).astype(str)
    unique, counts = np.unique(names, return_counts=True)
    kept = unique[counts > 1]
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(unique)} stimuli have two trials or more; a ceiling by repeats "
            "needs two such stimuli"
        )
    rng = np.random.default_rng(random_state)
    halves = np.empty((2, len(kept), values.shape[1]), np.float32)
    for row, name in enumerate(kept):
        trials = rng.permutation(np.flatnonzero(names == name))
        halves[0, row] = values[trials[::2]].mean(0)
        halves[1, row] = values[trials[1::2]].mean(0)
    scores = compare_rows(halves[0], halves[1], similarity="correlation")
    fields: dict[str, Any] = {"n_unit": "image", "n_boot": n_boot, "random_state": random_state}
    top1 = exact_top_k(*count_ahead(scores), n_candidates=len(kept))
    return {
        "ceiling.repeats.top1": summarise(top1, units=kept, chance=1 / len(kept), **fields),
        "ceiling.repeats.pairwise": summarise(pairwise(scores), units=kept, chance=0.5, **fields),
    }


def ceiling_estimate(ceiling: ArrayLike, kept: ArrayLike | None = None) -> dict[str, Estimate]:
    """Describe the noise ceiling of voxels.

    Parameters
    ----------
    ceiling : array_like of shape (voxel,)
        Explainable share of the variance, 0 to 1.
    kept : array_like of bool, shape (voxel,), optional
        The selected voxels; all by default.

    Returns
    -------
    dict of str to Estimate
        ``ceiling.median`` of the kept voxels, and ``voxels.kept``, their number.
    """
    values = np.asarray(ceiling, dtype=float)
    chosen = np.ones(len(values), bool) if kept is None else np.asarray(kept, dtype=bool)
    if chosen.shape != values.shape:
        raise InputError(f"'kept' has the shape {chosen.shape}, expected {values.shape}")
    finite = values[chosen & np.isfinite(values)]
    median = float(np.median(finite)) if len(finite) else None
    n = int(chosen.sum())
    return {
        "ceiling.median": Estimate(value=median, n=len(finite), n_unit="voxel"),
        "voxels.kept": Estimate(value=float(n), n=len(values), n_unit="voxel"),
    }
