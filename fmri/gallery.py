"""Galleries: the embeddings, tokens and pictures of many images, mapped into memory.

A folder of plain arrays: ``embeddings.npy`` (image, feature) in half precision and of unit length,
by which candidates are found; ``tokens.npy`` (image, token, feature), by which they are re-ranked;
``pictures.npy`` (image, channel, row, column) as uint8; names and fingerprint in JSON.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.targets import check_fingerprint
from neuro.artefact import listing
from neuro.data import open_dataset
from neuro.errors import ContractError, DataError, InputError

__all__ = [
    "POOLINGS",
    "Gallery",
    "Rows",
    "as_gallery",
    "gallery_dataset",
    "open_gallery",
    "pool_tokens",
    "without",
]

FACTS, EMBEDDINGS, TOKENS, PICTURES = (
    "gallery.json", "embeddings.npy", "tokens.npy", "pictures.npy",
)  # fmt: skip
POOLINGS = ("tokens", "first", "mean")
FORMAT = 1
ZARR = (".zmetadata", ".zgroup", "zarr.json")  # of a gallery that a stage handed on
_ANEW = "delete the folder and build the gallery anew"


@dataclass(frozen=True)
class Gallery:
    """An opened gallery; values are memory maps, or `Rows`: nothing is read before it is used.

    Attributes
    ----------
    folder : Path
    stimulus : ndarray of str, shape (image,)
    image_hash : ndarray of str, shape (image,), or None
    embeddings : memmap of float16, shape (image, feature)
        Of unit length.
    tokens : memmap of float16, shape (image, token, feature), or None
        Divided by the length over all tokens.
    pictures : memmap of uint8, shape (image, channel, row, column), or None
    pooling : str
        How embeddings were made of tokens; see `pool_tokens`.
    fingerprint : dict
        Of the targets.
    random_weights : bool
    token_shape : tuple of int
    """

    folder: Path
    stimulus: NDArray[np.str_]
    image_hash: NDArray[np.str_] | None
    embeddings: Any
    tokens: Any
    pictures: Any
    pooling: str
    fingerprint: dict[str, Any]
    random_weights: bool
    token_shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.stimulus)

    def check(self, fingerprint: Any) -> None:
        """Refuse queries of another target space.

        Raises
        ------
        ContractError
            Where the fingerprint differs (both sides are named), or is missing.
        """
        if fingerprint is None:
            raise ContractError(
                f"{self.folder}: the queries carry no fingerprint of their targets, so that they "
                "can't be compared with this gallery; pass fingerprint= of the targets that the "
                "encoder was trained on"
            )
        check_fingerprint(self.fingerprint, fingerprint, where=f"{self.folder}: ")

    def pool(self, tokens: NDArray[Any]) -> NDArray[np.float32]:
        """Turn query tokens into query embeddings as the gallery's own were made."""
        if tuple(tokens.shape[1:]) != self.token_shape:
            raise ContractError(
                f"{self.folder}: the queries have tokens of the shape {tokens.shape[1:]}, "
                f"expected {self.token_shape}"
            )
        return pool_tokens(tokens, self.pooling)

    def place(self, stimuli: Iterable[str]) -> NDArray[np.intp]:
        """Return the row of each stimulus, -1 where the gallery lacks it."""
        return np.array([self._rows.get(str(name), -1) for name in stimuli], dtype=np.intp)

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.stimulus.tolist())}


def pool_tokens(tokens: NDArray[Any], pooling: str = "tokens") -> NDArray[np.float32]:
    """Make one vector of unit length of the tokens of each image.

    Parameters
    ----------
    tokens : ndarray, shape (image, token, feature)
    pooling : {"tokens", "first", "mean"}
        All tokens one after another (MindEye's retrieval), the first one (the class token of
        CLIP), or their mean.

    Returns
    -------
    ndarray of float32, shape (image, feature)

    Examples
    --------
    >>> pool_tokens(np.array([[[3.0, 0.0], [0.0, 4.0]]])).tolist()
    [[0.6000000238418579, 0.0, 0.0, 0.800000011920929]]
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling is '{pooling}'; expected one of {', '.join(POOLINGS)}")
    values = np.asarray(tokens, dtype=np.float32)
    if values.ndim != 3:
        raise InputError(f"tokens have the shape {values.shape}, expected (image, token, feature)")
    picked = {
        "tokens": lambda: values,
        "first": lambda: values[:, 0],
        "mean": lambda: values.mean(1),
    }
    flat = picked[pooling]().reshape(len(values), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-12))


def open_gallery(folder: str | Path, *, fingerprint: Any = None) -> Gallery:
    """Open a gallery.

    Parameters
    ----------
    folder : path
        What `build_gallery` wrote.
    fingerprint : dict or JSON, optional
        Refuse a gallery of other targets.

    Raises
    ------
    DataError
        Where the folder is no gallery, or was damaged.
    ContractError
        Where it was made of other targets.
    """
    folder = Path(folder)
    if not (folder / FACTS).is_file() and any((folder / name).is_file() for name in ZARR):
        gallery = as_gallery(open_dataset(folder), folder)
    else:
        gallery = _open(folder, _facts(folder))
    if fingerprint is not None:
        gallery.check(fingerprint)
    return gallery


def gallery_dataset(gallery: Gallery) -> xr.Dataset:
    """Return a gallery as a dataset, the form in which a stage hands it on.

    Returns
    -------
    Dataset
        ``signal (trial, token, feature)`` float16, all tokens (or, where those were not kept, the
        embeddings as one token), and ``picture (trial, channel, row, column)`` uint8.
    """
    values = gallery.embeddings[:, None] if gallery.tokens is None else gallery.tokens
    variables: dict[str, Any] = {"signal": (("trial", "token", "feature"), values)}
    if gallery.pictures is not None:
        variables["picture"] = (("trial", "channel", "row", "column"), gallery.pictures)
    coords: dict[str, Any] = {"stimulus": ("trial", gallery.stimulus)}
    if gallery.image_hash is not None:
        coords["image_hash"] = ("trial", gallery.image_hash)
    attrs = {
        "kind": "gallery",
        "labels": [],
        "pooling": gallery.pooling,
        "token_shape": json.dumps(list(gallery.token_shape)),
        "fingerprint": json.dumps(gallery.fingerprint, sort_keys=True),
        "random_weights": int(gallery.random_weights),
    }
    return xr.Dataset(variables, coords, attrs)


def as_gallery(data: xr.Dataset, folder: str | Path = "the gallery") -> Gallery:
    """Use a dataset of `gallery_dataset` as a gallery; blocks are read when they are used.

    Raises
    ------
    DataError
        Where the dataset is no gallery.
    """
    if data.attrs.get("kind") != "gallery":
        raise DataError(
            f"{folder} is a dataset of the kind '{data.attrs.get('kind')}', expected 'gallery'"
        )
    shape = json.loads(data.attrs["token_shape"])
    values, pooling = Rows(data["signal"]), str(data.attrs["pooling"])
    whole = values if list(values.shape[1:]) == shape else None
    flat: Any = Rows(data["signal"], _pooled(pooling if whole is not None else None))
    return Gallery(
        Path(folder),
        data["stimulus"].values.astype(str),
        data["image_hash"].values.astype(str) if "image_hash" in data.coords else None,
        flat,
        whole,
        Rows(data["picture"]) if "picture" in data else None,
        pooling,
        json.loads(data.attrs["fingerprint"]),
        bool(data.attrs["random_weights"]),
        (int(shape[0]), int(shape[1])),
    )


def without(gallery: Gallery, hashes: Iterable[str]) -> tuple[Gallery, int]:
    """Leave pictures out by their hash; return the gallery and how many were left out.

    Raises
    ------
    DataError
        Where nothing is left.
    """
    if gallery.image_hash is None:
        return gallery, 0
    keep = np.flatnonzero(~np.isin(gallery.image_hash, list(hashes)))
    if len(keep) == len(gallery):
        return gallery, 0
    if not len(keep):
        raise DataError(f"{gallery.folder}: no picture is left without those of the test part")
    parts = {n: getattr(gallery, n) for n in ("embeddings", "tokens", "pictures")}
    own: dict[str, Any] = {n: None if v is None else v[keep] for n, v in parts.items()}
    left = replace(
        gallery, stimulus=gallery.stimulus[keep], image_hash=gallery.image_hash[keep], **own
    )
    return left, len(gallery) - len(keep)


class Rows:
    """Rows of an array on disk, read when they are asked for.

    Parameters
    ----------
    array : DataArray, first axis trial
        Lazily opened.
    function : callable, optional
        Applied to a block of rows.
    """

    def __init__(
        self, array: xr.DataArray, function: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    ) -> None:
        self.array, self.function = array, function or (lambda block: block)
        self.shape = (len(array), *self[:1].shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            return self.function(self.array.isel(trial=rows).values)
        wanted = np.asarray(rows)
        unique, back = np.unique(wanted, return_inverse=True)
        block = self.function(self.array.isel(trial=unique).values)
        return block[back.reshape(wanted.shape)]


# Inside ---------------------------------------------------------------------------------------


def _pooled(pooling: str | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    if pooling is None:  # the embeddings themselves, kept as one token
        return lambda block: block[:, 0]
    return lambda block: pool_tokens(block, pooling).astype(np.float16)


def _open(folder: Path, facts: dict[str, Any]) -> Gallery:
    n = len(facts["stimulus"])
    tokens, features = (int(size) for size in facts["token_shape"])
    flat = facts["pooling"] == "tokens"
    embeddings = _map(folder / EMBEDDINGS, (n, tokens * features if flat else features))
    shape, hashes = facts["picture_shape"], facts["image_hash"]
    if flat:
        whole: Any = embeddings.reshape(n, tokens, features)
    else:
        kept = (folder / TOKENS).is_file()
        whole = _map(folder / TOKENS, (n, tokens, features)) if kept else None
    return Gallery(
        folder,
        np.array(facts["stimulus"], dtype=str),
        None if hashes is None else np.array(hashes, dtype=str),
        embeddings,
        whole,
        None if shape is None else _map(folder / PICTURES, (n, *shape)),
        facts["pooling"],
        facts["fingerprint"],
        bool(facts["random_weights"]),
        (tokens, features),
    )


def _map(path: Path, shape: tuple[int, ...]) -> Any:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({error}); {_ANEW}") from error
    if values.shape != shape:
        raise DataError(f"{path} has the shape {values.shape}, expected {shape}; {_ANEW}")
    return values


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not path.is_file():
        raise DataError(f"{folder} is no gallery: {FACTS} is missing; {listing(folder)}")
    try:
        facts = json.loads(path.read_text())
        found = facts["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read ({error}); {_ANEW}") from error
    if found != FORMAT:
        raise ContractError(f"{path}: the format is {found}, this version reads {FORMAT}; {_ANEW}")
    return dict(facts)
