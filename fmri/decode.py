"""Decode one file of betas with a fitted MindEye, for ``neuro decode``.

A new scan is brought to what the encoder was trained on: betas are z-scored by session where
those of the training were, voxels are found by their coordinates, and what a scan lacks stands at
its training mean and is counted.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.mask import Overlap, align_voxels
from fmri.sessions import standardize_sessions
from fmri.subjects import VoxelContract, as_subjects
from fmri.voxels import affine_of, as_affine, same_affine
from neuro.data import open_dataset
from neuro.errors import ContractError, DataError

if TYPE_CHECKING:
    from fmri.decode_options import MindEyeOptions
    from fmri.gallery import Gallery
    from fmri.mindeye import MindEye

Floats = NDArray[np.float32]

FEWEST = 10  # trials of a session that is z-scored by itself
_SLACK = 0.02  # voxels that two grids may be off one another
_IN_MEMORY = 256 << 20  # bytes of a gallery that is read once


def decode_betas(model: MindEye, path: str | Path, options: MindEyeOptions) -> xr.Dataset:
    """Decode a recording.

    Parameters
    ----------
    model : MindEye
    path : path
        NIfTI betas, an array file, or a saved dataset.
    options : MindEyeOptions

    Returns
    -------
    Dataset
        ``codes`` (trial, token, feature) of unit length, ``tokens`` in the space of the targets,
        ``latents`` where there is a low-level branch, ``retrieved`` and ``similarity`` (trial,
        rank) with a gallery, ``reconstruction`` (trial, channel, row, column) where the encoder
        holds the decoder of its targets. In the attributes ``overlap``, ``n_missing`` (voxels at
        their training mean) and ``note``.

    Raises
    ------
    ContractError
        Where voxels, affine, units or the gallery are not those of the training.
    DataError
        Where the file can't be read, or has too few trials to be z-scored.
    """
    data, scaled = _scaled(model, read(path), path, options.zscore)
    X, overlap, shift = aligned(model, data, align=options.align)
    seen = model.seen(X)
    tokens = model.predict_tokens(
        X, options.prior and model.model_.prior is not None, steps=options.steps
    )
    found = {"codes": model.transform(X), "tokens": tokens}
    if model.model_.latent is not None:
        grid = {name: f"latent_{name}" for name in ("channel", "row", "column")}
        found["latents"] = model.predict_low_level(X).rename(grid)
    if options.gallery is not None:
        found |= retrieve(model, found["codes"], options.gallery, options.top_k)
    if options.pictures:
        found |= _pictures(model, tokens, found.get("latents"))
    note = _note(overlap, shift, scaled, bool(seen.sessions.any()))
    return (
        xr.Dataset(found)
        .assign_coords(seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects))
        .assign_attrs(
            kind="codes", encoder=model.name, source=Path(path).name, overlap=float(overlap),
            n_missing=overlap.missing, note=note,
            random_weights=int(model.target_["random_weights"]),
        )
    )  # fmt: skip


def read(path: str | Path) -> xr.Dataset:
    """Read betas: a saved dataset, or what `fmri.read.read_betas` reads."""
    if Path(path).is_dir():
        return open_dataset(path)
    from fmri.read import read_betas

    return read_betas(path)


def aligned(
    model: MindEye, data: xr.Dataset, *, align: bool
) -> tuple[xr.Dataset, Overlap, list[int]]:
    """Bring data to the voxels of the training.

    Parameters
    ----------
    model : MindEye
    data : Dataset (trial, voxel)
    align : bool
        Find voxels by their coordinates in space. Grids that are shifted by whole voxels (another
        field of view) are followed; others are refused, since betas are not resampled here.

    Returns
    -------
    data : Dataset
    overlap : Overlap
    shift : list of int
        Of the grid, in voxels.

    Raises
    ------
    ContractError
        Where they differ and `align` is off, grids don't meet, or no voxel is found.
    """
    contract = _contract(model, data)
    try:
        for subject in as_subjects(data):
            contract.check(subject)
        return data, Overlap(contract.n_voxels, contract.n_voxels), [0, 0, 0]
    except ContractError as error:
        if contract.ijk is None:
            raise
        if not align:
            raise ContractError(
                f"{error}. In `neuro decode`, --align finds voxels by their coordinates"
            ) from error
    ijk = _places_in(data, contract)
    fill = contract.scaler.mean  # a missing voxel says nothing: it stands at its training mean
    i, j, k = ijk.T
    values, overlap = align_voxels(data, i, j, k, data.attrs.get("affine"), fill=fill)
    shift = (ijk[0] - contract.ijk[0]).tolist() if len(ijk) else [0, 0, 0]
    return _with_voxels(data, values, contract), overlap, shift


def _places_in(data: xr.Dataset, contract: VoxelContract) -> NDArray[np.int64]:
    """Return the expected voxels in the grid of the data; in space they stay where they are."""
    ijk = contract.ijk
    assert ijk is not None  # noqa: S101 - for the type checker
    mine, theirs = affine_of(data), as_affine(contract.affine)
    if mine is None or theirs is None or same_affine(mine, theirs):
        return ijk
    moved = np.column_stack([ijk, np.ones(len(ijk))]) @ (np.linalg.inv(mine) @ theirs).T[:, :3]
    whole = np.rint(moved)
    if np.abs(moved - whole).max() > _SLACK:
        raise ContractError(
            f"the affine is {mine.tolist()}, expected {theirs.tolist()}: the voxels of the scan "
            "don't lie on those of the training, so that they can't be found by coordinate; "
            "resample the images to the training grid first (nilearn.image.resample_img)"
        )
    return whole.astype(np.int64)


def _scaled(
    model: MindEye, data: xr.Dataset, path: str | Path, how: str
) -> tuple[xr.Dataset, bool]:
    """Z-score sessions by their own trials where the training's were z-scored."""
    if how == "none" or data.attrs.get("units") == "z" or _contract(model, data).units != "z":
        return data, False
    n = data.sizes["trial"]
    coords = {
        name: ("trial", np.full(n, "all") if name == "session" else np.arange(n).astype(str))
        for name in ("session", "stimulus")
        if name not in data.coords
    }
    named = data.assign_coords(coords)
    fewest = np.unique(named["session"].values.astype(str), return_counts=True)[1].min()
    if fewest < FEWEST:
        raise DataError(
            f"{Path(path).name}: the encoder was trained on betas that were z-scored by session, "
            f"and this scan has a session of {fewest} trials, too few to be z-scored by itself "
            f"(at least {FEWEST}); put the trials of a session into one file, or scale them and "
            "pass --zscore none with units 'z'"
        )
    found, _ = standardize_sessions(named, named["stimulus"].values)
    return found.drop_vars(list(coords)), True


def _note(overlap: Overlap, shift: list[int], scaled: bool, known: bool) -> str:
    parts = [f"{overlap} ({float(overlap):.1%})"]
    if overlap.missing:
        parts.append(f"{overlap.missing} missing, at the training mean")
    if any(shift):
        parts.append(f"grid shifted by {tuple(shift)}")
    if scaled:
        parts.append("z-scored by its own trials")
    if known:  # other z-scores hide from a comparison of contents that trials were trained on
        parts.append("of a session that was trained on")
    return "; ".join(parts)


def _pictures(
    model: MindEye, tokens: xr.DataArray, latents: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    """Decode tokens to pictures, or else latents, as the decoder is of the one or the other."""
    from fmri.low_level import decodes_tokens

    decoder = model.decoder_
    if model.pixels_ is not None:
        pixels = model.pixels_.inverse_transform(tokens.values)
    elif decoder is not None and decodes_tokens(model, decoder):
        pixels = np.asarray(decoder.inverse_transform(tokens.values), np.float32)
    elif decoder is not None and latents is not None:
        pixels = np.asarray(decoder.inverse_transform(latents.values), np.float32)
    else:
        return {}
    return {"reconstruction": xr.DataArray(pixels, dims=("trial", "channel", "row", "column"))}


def _contract(model: MindEye, data: xr.Dataset) -> VoxelContract:
    known = {contract.name: contract for contract in model.subjects_}
    if len(known) == 1:
        return model.subjects_[0]
    names = set(np.asarray(data["subject"].values).astype(str)) if "subject" in data else set()
    if len(names) != 1 or not names <= set(known):
        raise ContractError(
            f"the recording is of {sorted(names) or 'an unnamed subject'}; expected one of "
            f"{sorted(known)}"
        )
    return known[names.pop()]


def _with_voxels(
    data: xr.Dataset, values: NDArray[np.float32], contract: VoxelContract
) -> xr.Dataset:
    assert contract.ijk is not None  # noqa: S101 - for the type checker
    coords: dict[str, Any] = {str(k): c for k, c in data.coords.items() if c.dims == ("trial",)}
    coords |= {name: ("voxel", contract.ijk[:, n]) for n, name in enumerate("ijk")}
    attrs = {**data.attrs, "affine": contract.affine or "null"}
    return xr.Dataset({"signal": (("trial", "voxel"), values)}, coords=coords, attrs=attrs)


def retrieve(
    model: MindEye, codes: xr.DataArray, folder: Path, top_k: int
) -> dict[str, xr.DataArray]:
    """Find the pictures of a gallery nearest to each code; see `fmri.retrieve.retrieve`.

    Parameters
    ----------
    folder : Path
        Of a gallery, or of a saved gallery dataset.

    Raises
    ------
    ContractError
        Where the gallery was encoded by another provider than the training targets.
    DataError
        Where it is no gallery.
    """
    from fmri.retrieve import retrieve as search

    gallery = gallery_in(folder)
    k = min(top_k, len(gallery.stimulus))
    found = search(codes, gallery, k, fingerprint=model.target_["fingerprint"])
    coords = {"rank": np.arange(1, k + 1)}
    values = {"retrieved": found.found, "similarity": found.scores}
    return {n: xr.DataArray(v, dims=("trial", "rank"), coords=coords) for n, v in values.items()}


def gallery_in(folder: str | Path) -> Gallery:
    """Open a gallery, once for many scans."""
    folder = Path(folder)
    stamp = folder.stat().st_mtime_ns if folder.exists() else 0
    return _opened(folder, stamp)


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, stamp: int) -> Gallery:
    from fmri.gallery import ZARR, as_gallery, open_gallery

    if not any((folder / name).is_file() for name in ZARR):
        return open_gallery(folder)
    data = open_dataset(folder)
    return as_gallery(data.load() if data.nbytes <= _IN_MEMORY else data, folder)
