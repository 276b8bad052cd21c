"""The pieces of a study: pictures split once, their targets, and the trials of either part."""

from __future__ import annotations

from typing import Any, overload

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


@overload
def trials_of(betas: xr.Dataset, stimuli: NDArray[np.str_]) -> xr.Dataset: ...


@overload
def trials_of(betas: list[xr.Dataset], stimuli: NDArray[np.str_]) -> list[xr.Dataset]: ...


def trials_of(
    betas: xr.Dataset | list[xr.Dataset], stimuli: NDArray[np.str_]
) -> xr.Dataset | list[xr.Dataset]:
    """Return the trials in which given pictures were seen; of each subject, where they are a list.

    Raises
    ------
    DataError
        Where there is none.
    """
    if isinstance(betas, list):
        return [trials_of(one, stimuli) for one in betas]
    rows = np.flatnonzero(np.isin(betas["stimulus"].values.astype(str), stimuli))
    if not len(rows):
        raise DataError("no trial shows any of these pictures: check the names of the stimuli")
    return betas.isel(trial=rows)


def count_trials(betas: xr.Dataset | list[xr.Dataset]) -> str:
    """Say how many trials there are, and of how many subjects where there are several."""
    if not isinstance(betas, list):
        return f"{betas.sizes['trial']} single trials"
    total = sum(one.sizes["trial"] for one in betas)
    return f"{total} single trials of {len(betas)} subject{'s' if len(betas) > 1 else ''}"


def images_sentence(images: xr.Dataset) -> tuple[str, ...]:
    """Say how many pictures there are, for the methods paragraph."""
    n_train, n_test = (len(stimuli_of(images, part)) for part in PARTS)
    return (
        f"{n_train} pictures served for training; {n_test} were kept for the test, and nothing "
        "was trained on them.",
    )
