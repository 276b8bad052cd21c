"""The pieces of a study: pictures split once, their targets, and betas of either part."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

PARTS = ("train", "test")


def study_images(settings: dict[str, Any]) -> xr.Dataset:
    """Read the pictures of a study and say of each which part it is in.

    Parameters
    ----------
    settings : dict
        Of `fmri.stages.ImagesParams`.

    Returns
    -------
    Dataset
        Images with the coordinate ``part`` on ``trial``.
    """
    from fmri.images import digit_images, read_images

    size, seed = settings["size"], settings["seed"]
    if settings["folder"] is None:
        found = digit_images(size, digits=settings["digits"])
        found = _drawn(found, settings["n_images"], seed)
    else:
        found = read_images(settings["folder"], size=size)
    return with_parts(found, settings["test_size"], seed)


def _drawn(images: xr.Dataset, n_images: int | None, seed: int) -> xr.Dataset:
    n = images.sizes["trial"]
    if n_images is None or n_images >= n:
        return images
    rows = np.random.default_rng(seed).permutation(n)[:n_images]
    return images.isel(trial=np.sort(rows))


def with_parts(images: xr.Dataset, test_size: float, seed: int) -> xr.Dataset:
    """Put a share of the pictures, the same of each category, into the test part.

    Parameters
    ----------
    images : Dataset
    test_size : float
    seed : int

    Returns
    -------
    Dataset
        With the coordinate ``part``: "train" or "test".

    Raises
    ------
    InputError
        Where a part would be empty.
    """
    from sklearn.model_selection import train_test_split

    n = images.sizes["trial"]
    if not 0 < round(test_size * n) < n:
        raise InputError(f"test_size {test_size} of {n} pictures leaves one part empty")
    category = images["category"].values if "category" in images.coords else None
    enough = category is not None and np.unique(category, return_counts=True)[1].min() >= 2
    test = train_test_split(
        np.arange(n), test_size=test_size, random_state=seed, stratify=category if enough else None
    )[1]
    part = np.where(np.isin(np.arange(n), test), "test", "train")
    return images.assign_coords(part=("trial", part))


def stimuli_of(images: xr.Dataset, part: str) -> NDArray[np.str_]:
    """Return the names of the pictures of one part.

    Raises
    ------
    DataError
        Where the pictures have no parts.
    """
    if "part" not in images.coords:
        raise DataError("the pictures have no coordinate 'part': take them from fmri-images")
    return images["stimulus"].values[images["part"].values == part].astype(str)


def trials_of(betas: xr.Dataset, stimuli: NDArray[np.str_]) -> xr.Dataset:
    """Return the trials in which given pictures were seen."""
    rows = np.flatnonzero(np.isin(betas["stimulus"].values.astype(str), stimuli))
    if not len(rows):
        raise DataError("no trial shows any of these pictures: check the names of the stimuli")
    return betas.isel(trial=rows)


def images_sentence(images: xr.Dataset) -> tuple[str, ...]:
    """Say how many pictures there are, for the methods paragraph."""
    n_train, n_test = (len(stimuli_of(images, part)) for part in PARTS)
    return (
        f"{n_train} pictures served for training; {n_test} were kept for the test, and nothing "
        "was trained on them.",
    )


# Betas and retrieval --------------------------------------------------------------------------


def study_betas(images: xr.Dataset, targets: xr.Dataset, settings: dict[str, Any]) -> xr.Dataset:
    """Simulate the responses of one subject to the pictures of a study, z-scored by session.

    Parameters
    ----------
    images, targets : Dataset
    settings : dict
        Of `fmri.stages.Simulation`, and ``seed``.

    Returns
    -------
    Dataset
        Betas; the statistics of the z-scores are those of training trials.
    """
    from fmri.simulate import simulate

    train, test = (stimuli_of(images, part) for part in PARTS)
    found = simulate(images, targets, n_train=len(train), test=test, **settings)
    betas = found.betas[0]
    return z_scored(betas, train)


def z_scored(betas: xr.Dataset, train_stimuli: NDArray[np.str_]) -> xr.Dataset:
    """Take mean and spread of every session off, as its training trials have them.

    Raises
    ------
    DataError
        Where a session has fewer than two training trials.
    """
    values = betas["signal"].values.astype(np.float32, copy=True)
    session = betas["session"].values.astype(str)
    training = np.isin(betas["stimulus"].values.astype(str), train_stimuli)
    for name in np.unique(session):
        own = session == name
        rows = own & training
        if rows.sum() < 2:
            raise DataError(
                f"session '{name}' has {rows.sum()} training trials, too few for a z-score"
            )
        mean, sd = values[rows].mean(0), values[rows].std(0)
        values[own] = (values[own] - mean) / np.where(sd > 0, sd, 1)
    found = betas.assign(signal=(betas["signal"].dims, values))
    return found.assign_attrs(units="z")


def ceiling_of(betas: xr.Dataset, stimuli: NDArray[np.str_]) -> NDArray[np.float64] | None:
    """Return the single-trial noise ceiling of every voxel, None without repeats.

    The signal's share of the variance: that of all trials less that between repeats.
    """
    data = trials_of(betas, stimuli)
    names, unit, count = np.unique(data["stimulus"].values, return_inverse=True, return_counts=True)
    if count.max() < 2:
        return None
    rows = count[unit] > 1
    values, unit = data["signal"].values[rows].astype(float), unit[rows]
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, unit, values)
    deviation = values - (sums / np.maximum(count, 1)[:, None])[unit]
    noise = (deviation**2).sum(0) / max(len(unit) - len(np.unique(unit)), 1)
    total = values.var(0, ddof=1)
    return np.clip(1 - noise / np.maximum(total, 1e-12), 0, 1)
