"""Read runs and betas: NIfTI, GIFTI, CIFTI, arrays; every voxel keeps its place.

A run is a Dataset ``signal (time, voxel)`` of kind "bold", betas are ``signal (trial, voxel)`` of
kind "fmri", both float32. Constant voxels and such with NaN are left out and counted in
``attrs["excluded"]``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from fmri.arrays import read_array, read_variables
from fmri.derivatives import find_derivatives, read_confounds
from fmri.read_betas import NSD_SCALE, read_betas
from fmri.read_digits import read_digits69
from fmri.signals import grid_attrs, labels_of, name_of, place_coords, read_signal, usable
from fmri.trials import betas_dataset
from neuro.errors import DataError

__all__ = [
    "NSD_SCALE",
    "betas_dataset",
    "find_derivatives",
    "read_array",
    "read_betas",
    "read_bold",
    "read_confounds",
    "read_digits69",
    "read_variables",
]


def read_bold(
    path: Any,
    mask: Any = None,
    *,
    labels: Sequence[int] | None = None,
    t_r: float | None = None,
    subject: str | None = None,
    session: str | None = None,
    run: str | None = None,
    smoothing_fwhm: float | None = None,
) -> xr.Dataset:
    """Read a run of BOLD images in one pass.

    Parameters
    ----------
    path : path, nibabel image, or sequence of two paths
        4-D NIfTI-1/2; a CIFTI ``.dtseries.nii``; GIFTI, one hemisphere or both.
    mask : path, nibabel image, Mask, list of those, optional
        Which voxels to keep; resampled to the data (nearest neighbour) where its grid differs.
        Without it, voxels that are not 0 in the first volume. For surfaces one value for each
        column, or a file of the same surface.
    labels : sequence of int, optional
        Values of the mask that are inside (regions of an atlas); by default all but 0.
    t_r : float, optional
        Repetition time in s, by default the header's.
    subject, session, run : str, optional
        By default those of the file name: ``sub-01``, ``ses-02``, ``run-3``.
    smoothing_fwhm : float, optional
        Width (mm) of a Gaussian over each whole volume, before the mask; as
        `nilearn.image.smooth_img` has it. Only for volumes.

    Returns
    -------
    Dataset
        ``signal (time, voxel)`` float32 in the scanner's units, ``time`` in s from the first
        volume, ``i``, ``j``, ``k``; ``affine``, ``shape``, ``mask_hash``, ``excluded`` and
        ``notes`` in the attributes. A run of n volumes and v voxels takes 4 n v bytes.

    Raises
    ------
    DataError
        Where the file can't be read, is cut short or isn't 4-D, where no voxel is left, or the
        repetition time isn't known.
    """
    values, ijk, grid, seconds = read_signal(path, mask, labels, smoothing_fwhm)
    values, ijk, excluded = usable(values, ijk, name_of(path))
    step = t_r if t_r is not None else seconds
    if step is None or step <= 0:
        raise DataError(f"{name_of(path)}: the header has no repetition time; give t_r in s")
    where = labels_of(path, subject, session, run)
    attrs = {
        "kind": "bold", "units": "a.u.", "t_r": float(step), **where, **grid_attrs(ijk, grid),
        "excluded": excluded, "source": Path(name_of(path)).name,
        "preprocessing": json.dumps([]),
    }  # fmt: skip
    coords = {"time": ("time", np.arange(len(values)) * step), **place_coords(ijk, grid)}
    return xr.Dataset({"signal": (("time", "voxel"), values)}, coords, attrs)
