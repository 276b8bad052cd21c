"""The gallery of a study: its own pictures, or a folder of others, in the space of its targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from fmri.gallery import gallery_dataset, open_gallery
from fmri.gallery_build import build_gallery
from fmri.images import pick, read_images
from fmri.parts import stimuli_of
from fmri.plots import grid_figure
from fmri.study_targets import provider_again
from fmri.targets import compute_targets
from neuro.errors import DataError, InputError
from neuro.report import Block, Figure, Table

if TYPE_CHECKING:
    from fmri.autoencoder import ImageAutoencoder
    from neuro.stage import Context

_SHOWN = 12

Part = tuple[xr.Dataset, xr.Dataset]


def study_gallery(
    targets: xr.Dataset,
    images: xr.Dataset,
    settings: Mapping[str, Any],
    context: Context,
    autoencoder: ImageAutoencoder | None = None,
) -> xr.Dataset:
    """Gather pictures and their embeddings as a dataset that `fmri.gallery.open_gallery` opens.

    Parameters
    ----------
    targets, images : Dataset
        Of the study.
    settings : mapping
        Of `fmri.picture_stages.GalleryParams`.
    context : Context
    autoencoder : ImageAutoencoder, optional
        Where the targets are its tokens and a folder of other pictures is to be embedded.

    Returns
    -------
    Dataset
        See `fmri.gallery.gallery_dataset`; its values lie on disk.

    Raises
    ------
    ContractError
        Where pictures were embedded in another way than the targets.
    DataError
        Where a name comes twice, or there is no picture.
    """
    folder, part = settings["folder"], settings["part"]
    part = part or ("none" if folder else "all")
    parts: list[Part] = [] if part == "none" else [_own(targets, images, part)]
    if folder is not None:
        parts.append(_of_folder(Path(folder), targets, images, autoencoder, context))
    if not parts:
        raise InputError("part is 'none' and there is no folder: the gallery would be empty")
    where = Path(context.scratch) / "gallery"
    build_gallery(
        parts, where, pooling=settings["pooling"], keep_tokens=True, progress=context.progress
    )
    found = gallery_dataset(open_gallery(where, fingerprint=targets.attrs["fingerprint"]))
    names = [] if part == "none" else [f"of the study ({part})"]
    names += [] if folder is None else [Path(folder).name]
    counts = {name: one.sizes["trial"] for name, (_, one) in zip(names, parts, strict=True)}
    context.section("Gallery", *_blocks(counts, found))
    return found


def _own(targets: xr.Dataset, images: xr.Dataset, part: str) -> Part:
    names = images["stimulus"].values if part == "all" else stimuli_of(images, part)
    return pick(targets, names, what="the targets"), pick(images, names)


def _of_folder(
    folder: Path,
    targets: xr.Dataset,
    images: xr.Dataset,
    autoencoder: ImageAutoencoder | None,
    context: Context,
) -> Part:
    channels, rows, columns = images["signal"].shape[1:]
    found = read_images(folder, size=(rows, columns), channels=channels, duplicates="keep")
    if not found.sizes["trial"]:
        raise DataError(f"{folder} holds no picture")
    provider = provider_again(targets, images, autoencoder)
    if not provider.needs_pixels and provider.kind == "category-attributes":
        raise InputError("a gallery by attributes of categories has no pictures of its own")
    cache = Path(context.scratch) / "targets"
    return compute_targets(found, provider, cache=cache, progress=context.progress), found


def _blocks(counts: Mapping[str, int], found: xr.Dataset) -> list[Block]:
    rows = [{"pictures": name, "number": count} for name, count in counts.items()]
    n = found.sizes["trial"]
    some = np.linspace(0, n - 1, min(_SHOWN, n)).astype(int)
    shown = found["picture"].values[some] / 255
    caption = f"Some of the {n:,} pictures that a brain is compared with."
    return [
        Table(rows, f"Embeddings pooled by: {found.attrs['pooling']}."),
        Figure(grid_figure([shown], ["gallery"]), caption),
    ]
