"""Stimulus images: read, hash, and keep those of the test part out of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.artefact import listing
from neuro.errors import ContractError, DataError, InputError

__all__ = [
    "digit_images",
    "image_hash",
    "images_dataset",
    "pick",
    "read_images",
    "refuse_seen",
    "resize",
    "training_images",
]

Floats = NDArray[np.float32]

DUPLICATES = ("error", "keep")
_CHANNELS = (1, 3)
_SHOWN = 5  # names in a message


def image_hash(pixels: NDArray[Any]) -> str:
    """Digest one image: its pixels as uint8, and its shape.

    Parameters
    ----------
    pixels : ndarray, shape (channel, row, column)
        uint8, or float in [0, 1].

    Returns
    -------
    str
        16 bytes of BLAKE2b in hex. Equal pictures of another size have another hash.

    Examples
    --------
    >>> image_hash(np.zeros((1, 2, 2))) == image_hash(np.zeros((1, 2, 2), dtype="uint8"))
    True
    """
    whole = pixels if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 1) * 255)
    digest = hashlib.blake2b(repr(tuple(pixels.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(whole, dtype=np.uint8).tobytes())
    return digest.hexdigest()


def images_dataset(
    pixels: NDArray[Any],
    stimulus: Sequence[str] | NDArray[Any],
    *,
    category: ArrayLike | None = None,
    duplicates: str = "error",
    source: str = "",
) -> xr.Dataset:
    """Put images into a dataset.

    Parameters
    ----------
    pixels : ndarray, shape (image, row, column) or (image, channel, row, column)
        uint8 or bool, or float in [0, 1]; 1 or 3 channels, also as the last axis.
    stimulus : sequence of str
        A name for every image.
    category : array-like of str, optional
    duplicates : {"error", "keep"}
        What to do where two names have one image: it must not be in the training and the test
        part. ``"keep"`` states the pairs in ``attrs["duplicates"]``.
    source : str
        Named in errors.

    Returns
    -------
    Dataset
        ``signal (trial, channel, row, column)`` float32 in [0, 1], coordinates ``stimulus``,
        ``image_hash`` and ``category``.

    Raises
    ------
    DataError
        Where a name comes twice, values lie outside [0, 1], or two names have one image.

    Examples
    --------
    >>> data = images_dataset(np.eye(2)[None], ["eye"])
    >>> dict(data.sizes), data.attrs["kind"]
    ({'trial': 1, 'channel': 1, 'row': 2, 'column': 2}, 'images')
    """
    where = f"{source}: " if source else ""
    names = np.asarray(stimulus, dtype=str)
    values = four_axes(np.asarray(pixels), where)
    if len(names) != len(values):
        raise DataError(f"{where}{len(names)} names for {len(values)} images; give one for each")
    refuse_twice(names, where)
    signal = unit_range(values, where)
    hashes = np.array([image_hash(image) for image in signal], dtype=str)
    pairs = _same(names, hashes)
    if duplicates not in DUPLICATES:
        raise InputError(f"duplicates is {duplicates!r}; expected one of {', '.join(DUPLICATES)}")
    if pairs and duplicates == "error":
        raise DataError(
            f"{where}the same image under two names: {some([' = '.join(p) for p in pairs])}; "
            "give it one name, or pass duplicates='keep' and split so that they stay together"
        )
    coords: dict[str, Any] = {"stimulus": ("trial", names), "image_hash": ("trial", hashes)}
    if category is not None:
        coords["category"] = ("trial", np.asarray(category, dtype=str))
    attrs = {"kind": "images", "units": "1", "labels": ["category"] if category is not None else []}
    if pairs:
        attrs["duplicates"] = json.dumps(pairs)
    return xr.Dataset({"signal": (("trial", "channel", "row", "column"), signal)}, coords, attrs)


def read_images(
    path: str | Path,
    *,
    stimuli: Sequence[str] | NDArray[Any] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    key: str | Sequence[str] | None = None,
    shape: tuple[int, int] | None = None,
    order: str = "C",
    category: ArrayLike | None = None,
    duplicates: str = "error",
) -> xr.Dataset:
    """Read stimulus images from a folder of pictures or from an array file.

    Parameters
    ----------
    path : path
        A folder (PNG, JPEG, BMP, TIFF ...; the name without its ending is the stimulus, a
        sub-folder its category), or an array: ``.npy``, ``.npz``, ``.mat`` (v5 and v7.3), HDF5.
    stimuli : sequence of str, optional
        From a folder: those to read, all by default. From an array: the names of its images in
        their order, ``image-0000`` ... by default.
    size : int or (row, column), optional
        Resample to it; pictures of unequal size need it.
    channels : {1, 3}, optional
        Grey or colour; by default as in the first picture.
    key : str or sequence of str, optional
        Variables of the array file, joined in this order; the only one by default.
    shape : (row, column), optional
        Of flattened images ``(image, pixel)``.
    order : {"C", "F"}
        How they were flattened: row by row, or column by column as MATLAB does.
    category : array-like of str, optional
    duplicates : {"error", "keep"}
        See `images_dataset`.

    Returns
    -------
    Dataset
        See `images_dataset`.

    Raises
    ------
    DataError
        Where a picture is missing, corrupt, of another size, or under two names.
    """
    from fmri.image_files import read_array, read_folder

    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such folder or file of images; {listing(path.parent)}")
    if path.is_dir():
        names, pixels, folders = read_folder(path, stimuli, size, channels)
        category = folders if category is None else category
    else:
        pixels = resize(four_axes(read_array(path, key, shape, order), f"{path}: "), size)
        pixels = with_channels(pixels, channels)
        names = [f"image-{i:04d}" for i in range(len(pixels))] if stimuli is None else list(stimuli)
    return images_dataset(pixels, names, category=category, duplicates=duplicates, source=str(path))


def digit_images(
    size: int = 8, *, digits: Sequence[int] | None = None, invert: bool = False
) -> xr.Dataset:
    """Return scikit-learn's 1,797 pictures of hand-written digits; they come with the library.

    Parameters
    ----------
    size : int
        Rows and columns: 8 as they are, or resampled to it.
    digits : sequence of int, optional
        Those to take, all ten by default.
    invert : bool
        Dark ink on a light ground.

    Returns
    -------
    Dataset
        Images ``digit-0000`` ... with the category ``"0"`` to ``"9"``.

    Examples
    --------
    >>> digit_images(digits=[6, 9]).sizes["trial"]
    361
    """
    from sklearn.datasets import load_digits

    table = load_digits()
    chosen = np.isin(table.target, list(range(10) if digits is None else digits))
    if not chosen.any():
        raise InputError(f"digits is {digits!r}; expected some of 0 to 9")
    pixels = resize((table.images[chosen] / 16).astype(np.float32)[:, None], size)
    names = [f"digit-{i:04d}" for i in np.flatnonzero(chosen)]
    return images_dataset(
        1 - pixels if invert else pixels,
        names,
        category=table.target[chosen].astype(str),
        duplicates="keep",
        source="scikit-learn's digits",
    )


def resize(pixels: NDArray[Any], size: int | tuple[int, int] | None) -> NDArray[Any]:
    """Resample images bicubically, with a filter against aliasing, clipped to their range.

    Parameters
    ----------
    pixels : ndarray, shape (image, channel, row, column)
        uint8, or float in [0, 1].
    size : int or (row, column), optional
        None leaves them as they are.

    Returns
    -------
    ndarray
        float32 in [0, 1] where it was resampled.
    """
    if size is None or pixels.shape[-2:] == pair(size):
        return pixels
    import torch
    import torch.nn.functional as F

    values = torch.from_numpy(np.array(unit_range(pixels, ""), order="C"))
    out = F.interpolate(values, pair(size), mode="bicubic", antialias=True, align_corners=False)
    return out.clamp(0, 1).numpy()


# Which images may be trained on ------------------------------------------------------------


def pick(data: xr.Dataset, stimuli: ArrayLike, *, what: str = "the images") -> xr.Dataset:
    """Select trials by stimulus, in the order given.

    Raises
    ------
    DataError
        Where a stimulus is not there; it is named.
    """
    wanted = [str(name) for name in np.atleast_1d(np.asarray(stimuli))]
    place = {name: i for i, name in enumerate(data["stimulus"].values.tolist())}
    missing = [name for name in wanted if name not in place]
    if missing:
        raise DataError(
            f"{what} lack {len(missing)} of {len(wanted)} stimuli: {some(missing)}; they hold "
            f"{len(place)}, {some(list(place))}; check the names"
        )
    return data.isel(trial=[place[name] for name in wanted])


def training_images(
    images: xr.Dataset, train_stimuli: ArrayLike, *, extra: xr.Dataset | None = None
) -> xr.Dataset:
    """Return the images that may be trained on; none of the others is among them, by hash.

    Parameters
    ----------
    images : Dataset
        Of the whole study.
    train_stimuli : array-like of str
        All other images are the test part.
    extra : Dataset, optional
        Further images, for example `digit_images`.

    Returns
    -------
    Dataset
        Training images first, then the extra ones.

    Raises
    ------
    DataError
        Where a test image is among them, under whatever name (a leak), or a name is unknown.
    ContractError
        Where the extra images have another size.

    Examples
    --------
    >>> data = images_dataset(np.stack([np.eye(2), np.eye(2)]), ["a", "b"], duplicates="keep")
    >>> training_images(data, ["a"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    neuro.errors.DataError: 1 test image is among the training images (leak): a is the test ...
    """
    train = pick(images, train_stimuli)
    refuse_twice(train["stimulus"].values, "train_stimuli: ")
    test = images.isel(trial=~np.isin(images["stimulus"].values, train["stimulus"].values))
    _refuse_leak(train, test)
    if extra is None:
        return train
    if extra["signal"].shape[1:] != train["signal"].shape[1:]:
        raise ContractError(
            f"the extra images are {extra['signal'].shape[1:]}, the study's are "
            f"{train['signal'].shape[1:]} (channel, row, column); resample them first"
        )
    _refuse_leak(extra, test)
    return _joined(train, extra)


def refuse_seen(trained_on: Sequence[str], images: xr.Dataset, *, what: str) -> None:
    """Refuse to test on images by which something was trained.

    Parameters
    ----------
    trained_on : sequence of str
        Image hashes.
    images : Dataset
        The test images.
    what : str
        Named in the error.

    Raises
    ------
    DataError
        Where an image of the two is the same.
    """
    seen = np.isin(images["image_hash"].values, list(trained_on))
    if seen.any():
        names = images["stimulus"].values[seen].tolist()
        raise DataError(
            f"{what} was trained on {int(seen.sum())} of {len(seen)} test images (leak): "
            f"{some(names)}; train it on the training stimuli of this fold only"
        )


def _refuse_leak(train: xr.Dataset, test: xr.Dataset) -> None:
    by_hash = dict(
        zip(test["image_hash"].values.tolist(), test["stimulus"].values.tolist(), strict=True)
    )
    leaks = [
        f"{name} is the test image {by_hash[digest]}"
        for name, digest in zip(
            train["stimulus"].values.tolist(), train["image_hash"].values.tolist(), strict=True
        )
        if digest in by_hash
    ]
    if leaks:
        many = "test image is" if len(leaks) == 1 else "test images are"
        raise DataError(
            f"{len(leaks)} {many} among the training images (leak): {some(leaks)}; "
            "put equal images on one side of the split"
        )


def _joined(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    keep = ["stimulus", "image_hash"]
    parts = [d[["signal"]].reset_coords(drop=True) for d in (first, second)]
    joined = xr.concat(parts, "trial")
    coords = {
        name: ("trial", np.concatenate([first[name].values, second[name].values])) for name in keep
    }
    return joined.assign_coords(coords).assign_attrs(first.attrs)


# Small checks --------------------------------------------------------------------------------


def four_axes(pixels: NDArray[Any], where: str) -> NDArray[Any]:
    """Bring images to ``(image, channel, row, column)``, or refuse them."""
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[1] not in _CHANNELS and pixels.shape[-1] in _CHANNELS:
        pixels = np.moveaxis(pixels, -1, 1)
    if pixels.ndim != 4 or pixels.shape[1] not in _CHANNELS or 0 in pixels.shape:
        raise DataError(
            f"{where}the images have the shape {pixels.shape}, expected (image, row, column) or "
            "(image, channel, row, column) with 1 or 3 channels; flattened ones need shape="
        )
    return pixels


def unit_range(values: NDArray[Any], where: str) -> Floats:
    """Return float32 in [0, 1], or refuse other ranges and NaN."""
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    signal = values.astype(np.float32)
    low, high = float(signal.min()), float(signal.max())
    if not (np.isfinite(signal).all() and low >= -1e-6 and high <= 1 + 1e-6):
        raise DataError(
            f"{where}pixels are {values.dtype} from {low:g} to {high:g}, expected uint8 or "
            "numbers in [0, 1] without NaN; scale them first"
        )
    return np.clip(signal, np.float32(0), np.float32(1)).astype(np.float32, copy=False)


def with_channels(pixels: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """Make images grey or three channels."""
    if channels is None or pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=1)
    if channels != 1:
        raise InputError(f"channels is {channels}; expected 1 or 3")
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as PIL's "L"
    return np.einsum("nchw,c->nhw", unit_range(pixels, ""), weights)[:, None]


def refuse_twice(names: NDArray[Any], where: str) -> None:
    """Refuse a name that comes twice."""
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        twice = unique[counts > 1].tolist()
        raise DataError(f"{where}stimuli named twice: {some(twice)}; every image needs its name")


def _same(names: NDArray[Any], hashes: NDArray[Any]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, digest in zip(names.tolist(), hashes.tolist(), strict=True):
        groups.setdefault(digest, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def some(names: Sequence[str]) -> str:
    """List a few names for a message."""
    return ", ".join(names[:_SHOWN]) + (f" ... ({len(names)})" if len(names) > _SHOWN else "")


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return ``(row, column)`` of a size."""
    pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if min(pair) < 1:
        raise InputError(f"size is {size}; expected positive numbers of rows and columns")
    return pair
