"""How reliable voxels are over repeats of a stimulus; always of the stimuli that are named.

References
----------
Allen et al., "A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial
intelligence" (2022): the noise ceiling signal-to-noise ratio (ncsnr).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

__all__ = ["MEASURES", "ncsnr", "noise_ceiling", "select_voxels", "split_half"]

Floats = NDArray[np.float64]

_CHUNK = 4096  # voxels in double precision at once


def _repeated(data: xr.Dataset, stimuli: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return trials of the stimuli that have two or more, and the number of each one's stimulus."""
    wanted = np.asarray(stimuli).astype(str)
    shown = data["stimulus"].values.astype(str)
    subject = data["subject"].values.astype(str) if "subject" in data.coords else np.array([""])
    if len(np.unique(subject)) > 1:
        raise InputError(
            f"reliability is of one subject, found {np.unique(subject).tolist()}; pass them one by "
            "one"
        )
    rows = np.flatnonzero(np.isin(shown, wanted))
    names, unit, count = np.unique(shown[rows], return_inverse=True, return_counts=True)
    keep = count[unit] >= 2 if len(rows) else np.zeros(0, bool)
    if not keep.any():
        raise DataError(
            f"reliability needs two trials or more of a stimulus; the {len(names)} of "
            f"{len(np.unique(wanted))} named stimuli that are in the data have one each"
        )
    return rows[keep], np.unique(unit[keep], return_inverse=True)[1]


def _sums(values: Floats, unit: NDArray[np.int64]) -> Floats:
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(unit[order]) > 0])
    return np.add.reduceat(values[order], starts, axis=0)


def _by_chunk(
    data: xr.Dataset, rows: NDArray[np.int64], measure: Callable[[Floats], Floats]
) -> Floats:
    signal = data["signal"]
    n = signal.sizes["voxel"]
    out = np.empty(n)
    for start in range(0, n, _CHUNK):
        block = signal.isel(voxel=slice(start, start + _CHUNK)).values[rows]
        out[start : start + _CHUNK] = measure(block.astype(np.float64))
    return out


def ncsnr(data: xr.Dataset, stimuli: ArrayLike) -> Floats:
    """Estimate the standard deviation of the signal over that of the noise of a single trial.

    The noise variance is the mean over stimuli of the variance over repeats (ddof 1); the signal
    variance is what is left of the variance of all trials.

    Parameters
    ----------
    data : Dataset (trial, voxel)
        Of one subject, z-scored by session (`fmri.sessions.standardize_sessions`).
    stimuli : array_like of str
        The training stimuli; others are not looked at. Those with one trial don't count.

    Returns
    -------
    ndarray of shape (voxel,)
        0 where there is no signal.

    Raises
    ------
    DataError
        Where no stimulus has two trials.

    Examples
    --------
    >>> data = xr.Dataset({"signal": (("trial", "voxel"), [[1.0], [1.2], [-1.0], [-1.2]])},
    ...                   coords={"stimulus": ("trial", list("aabb"))})
    >>> ncsnr(data, ["a", "b"]).round(2).tolist()
    [8.96]
    """
    rows, unit = _repeated(data, stimuli)
    count = np.bincount(unit)[:, None]

    def measure(x: Floats) -> Floats:
        centred = x - (_sums(x, unit) / count)[unit]
        noise = (_sums(centred**2, unit) / (count - 1)).mean(0)
        signal = np.maximum(x.var(axis=0, ddof=1) - noise, 0)
        return np.where(noise > 0, np.sqrt(signal / np.where(noise > 0, noise, 1)), 0.0)

    return _by_chunk(data, rows, measure)


def noise_ceiling(snr: ArrayLike, repeats: ArrayLike = 1) -> Floats:
    """Turn ncsnr into the share of variance that a perfect model explains.

    ``ncsnr^2 / (ncsnr^2 + mean(1 / n))`` for the mean of n trials (Allen et al. 2022).

    Parameters
    ----------
    snr : array_like
        Of `ncsnr`.
    repeats : int or array_like of int
        Trials that are averaged; one number for each stimulus where they differ.

    Returns
    -------
    ndarray
        In [0, 1).

    Examples
    --------
    >>> noise_ceiling([1.0, 0.0], 3).tolist(), noise_ceiling(1.0, [1, 3]).round(3).tolist()
    ([0.75, 0.0], 0.6)
    """
    n = np.asarray(repeats, dtype=float)
    if not n.size or n.min() < 1:
        raise InputError(f"repeats is {repeats!r}; expected 1 or more")
    square = np.square(np.asarray(snr, dtype=float))
    return np.asarray(square / (square + np.mean(1 / n)))


def split_half(
    data: xr.Dataset, stimuli: ArrayLike, *, n_splits: int = 10, random_state: int = 0
) -> Floats:
    """Correlate the two halves of the repeats over stimuli, corrected for their length.

    Each split deals the repeats of every stimulus to two halves at random (one is left out where
    their number is odd). The mean correlation r over splits becomes ``2 r / (1 + r)``
    (Spearman-Brown).

    Parameters
    ----------
    data : Dataset (trial, voxel)
        Of one subject.
    stimuli : array_like of str
        The training stimuli.
    n_splits : int
    random_state : int

    Returns
    -------
    ndarray of shape (voxel,)
        Reliability of the mean over all repeats; 0 for a voxel that doesn't vary.

    Raises
    ------
    DataError
        Where fewer than three stimuli have two trials.

    Examples
    --------
    >>> x = np.repeat(np.arange(4.0), 2)[:, None]
    >>> data = xr.Dataset({"signal": (("trial", "voxel"), x)},
    ...                   coords={"stimulus": ("trial", np.repeat(list("abcd"), 2))})
    >>> split_half(data, list("abcd")).round(3).tolist()
    [1.0]
    """
    rows, unit = _repeated(data, stimuli)
    if unit.max() < 2:
        raise DataError(
            f"split-half reliability correlates over stimuli; {unit.max() + 1} with two trials are "
            "too few, expected three or more"
        )
    rng = np.random.default_rng(random_state)
    halves = [_deal(unit, rng) for _ in range(n_splits)]

    def measure(x: Floats) -> Floats:
        r = np.mean([_correlation(*(_mean(x, unit, h) for h in half)) for half in halves], axis=0)
        return 2 * r / np.maximum(1 + r, 1e-6)

    return _by_chunk(data, rows, measure)


def _deal(
    unit: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = rng.permutation(len(unit))
    order = order[np.argsort(unit[order], kind="stable")]
    count = np.bincount(unit)
    place = np.arange(len(unit)) - np.repeat(np.cumsum(count) - count, count)
    half = np.repeat(count // 2, count)
    return order[place < half], order[(place >= half) & (place < 2 * half)]


def _mean(x: Floats, unit: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
    return _sums(x[rows], unit[rows]) / np.bincount(unit[rows])[:, None]


def _correlation(one: Floats, other: Floats) -> Floats:
    a, b = one - one.mean(0), other - other.mean(0)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(size > 0, (a * b).sum(0) / np.where(size > 0, size, 1), 0.0)


MEASURES: dict[str, Callable[..., Floats]] = {"ncsnr": ncsnr, "split_half": split_half}


def select_voxels(
    data: xr.Dataset,
    stimuli: ArrayLike,
    threshold: float | None = 0.15,
    *,
    keep: int | None = None,
    measure: str = "ncsnr",
    **settings: Any,
) -> xr.Dataset:
    """Keep the voxels that are reliable over repeats of the training stimuli.

    Parameters
    ----------
    data : Dataset (trial, voxel)
        Of one subject.
    stimuli : array_like of str
        The training stimuli; no trial of another one is looked at.
    threshold : float
        Least value; 0.15 of ncsnr is usual for whole-cortex NSD. Not used with `keep`.
    keep : int, optional
        So many of the most reliable voxels, or all where there are fewer.
    measure : {"ncsnr", "split_half"}
    **settings
        Of the measure.

    Returns
    -------
    Dataset
        With the measure as a coordinate on ``voxel`` and another ``mask_hash``.

    Raises
    ------
    DataError
        Where no voxel reaches the threshold, or no stimulus has two trials.
    """
    from fmri.voxels import affine_of, places, voxel_hash

    if measure not in MEASURES:
        raise InputError(f"measure is '{measure}'; expected one of {', '.join(MEASURES)}")
    if keep is None and threshold is None:
        raise InputError("give a threshold, or how many voxels to keep")
    values = MEASURES[measure](data, stimuli, **settings)
    if keep is not None:
        chosen, rule = _best(values, keep), f"the largest {measure}"
    else:
        chosen, rule = values >= (threshold or 0.0), f"{measure} >= {threshold:g}"
    if not chosen.any():
        raise DataError(
            f"no voxel has {rule} on the {len(np.unique(stimuli))} training stimuli; the best has "
            f"{values.max():.3f}. Lower the threshold"
        )
    found = data.assign_coords({measure: ("voxel", values)}).isel(voxel=chosen)
    note = f"{chosen.sum()} of {len(chosen)} voxels with {rule} on training stimuli"
    attrs: dict[str, Any] = {"notes": [*data.attrs.get("notes", []), note]}
    if all(name in data.coords for name in "ijk"):
        import json

        shape = json.loads(data.attrs.get("shape", "[]"))
        attrs["mask_hash"] = voxel_hash(places(found), shape, affine_of(data))
    return found.assign_attrs(attrs)


def _best(values: Floats, keep: int) -> NDArray[np.bool_]:
    if keep < 1:
        raise InputError(f"keep is {keep}; expected at least 1")
    chosen = np.zeros(len(values), bool)
    chosen[np.argsort(-values, kind="stable")[:keep]] = True
    return chosen
