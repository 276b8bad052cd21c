"""Build a gallery of images from their targets and pictures, block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.gallery import (
    EMBEDDINGS,
    FACTS,
    FORMAT,
    PICTURES,
    POOLINGS,
    TOKENS,
    Gallery,
    open_gallery,
    pool_tokens,
)
from fmri.images import some
from fmri.targets import check_fingerprint
from neuro.artefact import new_folder
from neuro.errors import ContractError, DataError, InputError

__all__ = ["build_gallery"]

Part = tuple[xr.Dataset, xr.Dataset | None]


def build_gallery(
    targets: xr.Dataset | Iterable[Part],
    folder: str | Path,
    *,
    images: xr.Dataset | None = None,
    pooling: str = "tokens",
    keep_tokens: bool = False,
    block: int = 4096,
    progress: Callable[..., Iterator[Any]] | None = None,
) -> Gallery:
    """Build a gallery of the targets of images, block by block.

    Parameters
    ----------
    targets : Dataset, or iterable of (targets, images)
        ``signal (trial, token, feature)`` keyed by ``stimulus``; lazily opened ones are read in
        blocks. Several parts make one gallery; their images may be None.
    folder : path
        Appears whole or not at all; an older gallery there is replaced.
    images : Dataset, optional
        The pictures, in any order; with them a gallery picture can serve as a reconstruction.
    pooling : {"tokens", "first", "mean"}
        See `pool_tokens`.
    keep_tokens : bool
        Keep all tokens too, for re-ranking. With pooling "tokens" the embeddings are the tokens
        already and nothing is written twice.
    block : int
        Images in memory at once.
    progress : callable, optional
        ``progress(iterable, label, total)``, as `Context.progress`.

    Returns
    -------
    Gallery
        Opened.

    Raises
    ------
    ContractError
        Where parts have different fingerprints, shapes or kinds of pictures.
    DataError
        Where a stimulus comes twice, a picture is missing, or a target is not finite.

    Examples
    --------
    >>> import tempfile
    >>> from fmri.simulate import simulate
    >>> study = simulate(n_train=20, n_test=5, n_voxels=10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(build_gallery(study.targets, f"{folder}/gallery", images=study.images))
    25
    """
    if block < 1 or pooling not in POOLINGS:
        raise InputError(
            f"block is {block}, pooling '{pooling}'; expected at least 1, and one of "
            f"{', '.join(POOLINGS)}"
        )
    parts: list[Part] = [(targets, images)] if isinstance(targets, xr.Dataset) else list(targets)
    facts = _common(parts)
    with new_folder(folder, mark=FACTS) as temporary:
        keep = keep_tokens and pooling != "tokens"
        _write(temporary, parts, facts, pooling, keep, block, progress)
        facts |= {"format": FORMAT, "pooling": pooling}
        (temporary / FACTS).write_text(json.dumps(facts))
    return open_gallery(folder)


# Inside ---------------------------------------------------------------------------------------


def _common(parts: list[Part]) -> dict[str, Any]:
    """What all parts must agree on; refuses parts that don't."""
    if not parts or not sum(targets.sizes["trial"] for targets, _ in parts):
        raise DataError("there is no target to build a gallery of")
    for number, (targets, _) in enumerate(parts):
        if targets.attrs.get("fingerprint") is None:
            raise ContractError(
                f"part {number} of the gallery has targets without a fingerprint; make them by "
                "fmri.targets.compute_targets"
            )
        where = f"part {number} of the gallery: "
        first = parts[0][0]
        check_fingerprint(targets.attrs["fingerprint"], first.attrs["fingerprint"], where=where)
        if targets["signal"].shape[1:] != first["signal"].shape[1:]:
            raise ContractError(
                f"{where}targets of the shape {targets['signal'].shape[1:]}, expected "
                f"{first['signal'].shape[1:]}"
            )
    names = np.concatenate([targets["stimulus"].values.astype(str) for targets, _ in parts])
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"stimuli are in the gallery twice: {some(unique[counts > 1].tolist())}")
    return {
        "stimulus": names.tolist(),
        "image_hash": _hashes(parts),
        "token_shape": list(parts[0][0]["signal"].shape[1:]),
        "picture_shape": _picture_shape([images for _, images in parts]),
        "fingerprint": json.loads(parts[0][0].attrs["fingerprint"]),
        "random_weights": int(any(t.attrs.get("random_weights", 0) for t, _ in parts)),
    }


def _picture_shape(images: list[xr.Dataset | None]) -> list[int] | None:
    shapes = {None if one is None else tuple(one["signal"].shape[1:]) for one in images}
    if len(shapes) > 1:
        raise ContractError(
            f"the parts have pictures of the shapes {sorted(map(str, shapes))}; expected the same "
            "(channel, row, column) in all, or no pictures at all"
        )
    shape = shapes.pop()
    return None if shape is None else list(shape)


def _hashes(parts: list[Part]) -> list[str] | None:
    found: list[str] = []
    for targets, images in parts:
        if images is None or "image_hash" not in images.coords:
            return None
        found += images["image_hash"].values[_picture_rows(targets, images)].tolist()
    return found


def _picture_rows(targets: xr.Dataset, images: xr.Dataset) -> NDArray[np.intp]:
    place = {name: row for row, name in enumerate(images["stimulus"].values.tolist())}
    names = targets["stimulus"].values.tolist()
    missing = [name for name in names if name not in place]
    if missing:
        raise DataError(f"the gallery lacks the pictures of {some(missing)}; pass all or none")
    return np.array([place[name] for name in names], dtype=np.intp)


def _write(
    folder: Path,
    parts: list[Part],
    facts: dict[str, Any],
    pooling: str,
    keep: bool,
    block: int,
    progress: Callable[..., Iterator[Any]] | None,
) -> None:
    n = len(facts["stimulus"])
    tokens, features = facts["token_shape"]
    width = tokens * features if pooling == "tokens" else features
    embeddings = _new(folder / EMBEDDINGS, (n, width), "float16")
    whole = _new(folder / TOKENS, (n, tokens, features), "float16") if keep else None
    shape = facts["picture_shape"]
    pictures = None if shape is None else _new(folder / PICTURES, (n, *shape), "uint8")
    lookup = [None if one is None else _picture_rows(t, one) for t, one in parts]
    blocks: Any = list(_blocks(parts, block))
    for start, part, rows in progress(blocks, "gallery", len(blocks)) if progress else blocks:
        (targets, images), places = parts[part], lookup[part]
        values = _finite(targets.isel(trial=rows))
        here = slice(start, start + len(values))
        embeddings[here] = pool_tokens(values, pooling)
        if whole is not None:
            whole[here] = pool_tokens(values).reshape(values.shape)
        if pictures is not None and images is not None and places is not None:
            pictures[here] = np.rint(images["signal"].isel(trial=places[rows]).values * 255)
    for mapped in (embeddings, whole, pictures):
        if mapped is not None:
            mapped.flush()


def _blocks(parts: list[Part], block: int) -> Iterator[tuple[int, int, slice]]:
    start = 0
    for number, (targets, _) in enumerate(parts):
        n = targets.sizes["trial"]
        for first in range(0, n, block):
            rows = slice(first, min(first + block, n))
            yield start + first, number, rows
        start += n


def _finite(targets: xr.Dataset) -> NDArray[np.float32]:
    values = targets["signal"].values.astype(np.float32)
    bad = ~np.isfinite(values).all((1, 2))
    if bad.any():
        names = targets["stimulus"].values[bad].tolist()
        raise DataError(f"the targets of {some(names)} hold NaN or infinity; compute them anew")
    return values


def _new(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
