"""Decode one file of betas with a fitted MindEye, for ``neuro decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.subjects import VoxelContract, as_subjects
from neuro.data import open_dataset
from neuro.errors import ContractError

if TYPE_CHECKING:
    from fmri.mindeye import MindEye, MindEyeOptions


def decode_betas(model: MindEye, path: str | Path, options: MindEyeOptions) -> xr.Dataset:
    """Decode a recording.

    Parameters
    ----------
    model : MindEye
    path : path
        NIfTI betas, an array file, or a saved dataset.
    options : MindEyeOptions
        With `align`, voxels are found by coordinate; those that the recording lacks get the
        training mean and are counted.

    Returns
    -------
    Dataset
        ``codes`` (trial, token, feature) of unit length, ``tokens`` in the space of the targets,
        ``latents`` where there is a low-level branch, ``retrieved`` and ``similarity`` (trial,
        rank) with a gallery; ``overlap`` in the attributes.
    """
    X, overlap = aligned(model, read(path), align=options.align)
    seen = model.seen(X)
    found = {
        "codes": model.transform(X),
        "tokens": model.predict_tokens(
            X, options.prior and model.model_.prior is not None, steps=options.steps
        ),
    }
    if model.model_.latent is not None:
        found["latents"] = model.predict_low_level(X)
    if options.gallery is not None:
        found |= retrieve(model, found["codes"], options.gallery, options.top_k)
    return (
        xr.Dataset(found)
        .assign_coords(seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects))
        .assign_attrs(
            kind="codes", encoder=model.name, source=Path(path).name, overlap=overlap,
            random_weights=int(model.target_["random_weights"]),
        )
    )  # fmt: skip


def read(path: str | Path) -> xr.Dataset:
    """Read betas: a saved dataset, or what `fmri.read.read_betas` reads."""
    if Path(path).is_dir():
        return open_dataset(path)
    from fmri.read import read_betas

    return read_betas(path)


def aligned(model: MindEye, data: xr.Dataset, *, align: bool) -> tuple[xr.Dataset, float]:
    """Return data with the voxels of the training, and the share of them that it had."""
    contract = _contract(model, data)
    try:
        for subject in as_subjects(data):
            contract.check(subject)
        return data, 1.0
    except ContractError:
        if not align or contract.ijk is None:
            raise
    from fmri.mask import align_voxels

    i, j, k = contract.ijk.T
    values, overlap = align_voxels(data, i, j, k, contract.affine)
    values = np.asarray(values, np.float32)
    # A missing voxel says nothing: it stands at its training mean.
    values = np.where(np.isfinite(values), values, contract.scaler.mean).astype(np.float32)
    return _with_voxels(data, values, contract), float(overlap)


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
    from fmri.gallery import as_gallery, open_gallery
    from fmri.retrieve import retrieve as search

    is_dataset = (folder / ".zgroup").exists() or (folder / "zarr.json").exists()
    gallery = as_gallery(open_dataset(folder), folder) if is_dataset else open_gallery(folder)
    k = min(top_k, len(gallery.stimulus))
    found = search(codes, gallery, k, fingerprint=model.target_["fingerprint"])
    coords = {"rank": np.arange(1, k + 1)}
    values = {"retrieved": found.found, "similarity": found.scores}
    return {n: xr.DataArray(v, dims=("trial", "rank"), coords=coords) for n, v in values.items()}
