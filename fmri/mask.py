"""Masks: which voxels are kept, brought to the data's grid, and found again by coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.voxels import Affine, Places, affine_of, as_affine, places, rows_of, same_affine
from fmri.voxels import voxel_hash as digest
from neuro.errors import ContractError, DataError, InputError

__all__ = [
    "Mask",
    "Overlap",
    "align_voxels",
    "intersect_masks",
    "read_mask",
    "resample_labels",
    "resample_mask",
]


@dataclass(frozen=True)
class Mask:
    """A set of voxels of a grid.

    Attributes
    ----------
    ijk : ndarray of int, shape (voxel, 3)
        In the order of ``numpy.argwhere``, which is that of nilearn's maskers.
    shape : tuple of int
        Of the grid.
    affine : ndarray of shape (4, 4)
        From indices to mm.
    notes : tuple of str
        What was done to it, for reports.

    Examples
    --------
    >>> mask = Mask.of(np.eye(3)[:, :, None], np.eye(4))
    >>> len(mask), mask.ijk[1].tolist()
    (3, [1, 1, 0])
    """

    ijk: Places
    shape: tuple[int, ...]
    affine: Affine
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, inside: ArrayLike, affine: ArrayLike, notes: tuple[str, ...] = ()) -> Mask:
        """Make one from a 3-D array of which what isn't 0 is inside."""
        volume = np.asarray(inside)
        if volume.ndim != 3:
            raise DataError(f"a mask is a 3-D array, found the shape {volume.shape}")
        return cls(np.argwhere(volume), volume.shape, np.asarray(affine, float), notes)

    def __len__(self) -> int:
        return len(self.ijk)

    @property
    def hash(self) -> str:
        """Digest of voxels, grid and affine."""
        return digest(self.ijk, self.shape, self.affine)

    @property
    def flat(self) -> NDArray[np.int64]:
        """Positions in a volume as it lies in a NIfTI file, the first axis fastest."""
        return np.ravel_multi_index(tuple(self.ijk.T), self.shape, order="F")

    def to_array(self) -> NDArray[np.bool_]:
        """Return the volume, True inside."""
        volume = np.zeros(self.shape, dtype=bool)
        volume[tuple(self.ijk.T)] = True
        return volume


def read_mask(
    source: Any,
    *,
    labels: Sequence[int] | None = None,
    like: tuple[Sequence[int], Affine] | None = None,
) -> Mask:
    """Read a mask or a region of an atlas.

    Parameters
    ----------
    source : path, nibabel image, Mask, or list of those
        Several are intersected, on the grid of `like` (else of the first).
    labels : sequence of int, optional
        Values that are inside; by default all but 0.
    like : (shape, affine), optional
        Grid of the data. A mask on another grid is resampled to it by nearest neighbour, and says
        so in its notes; the data are never resampled to the mask.

    Returns
    -------
    Mask

    Raises
    ------
    DataError
        Where the file can't be read, isn't 3-D or has no voxel inside.

    Examples
    --------
    >>> import nibabel
    >>> image = nibabel.Nifti1Image(np.array([[[0, 1, 2]]], "int16"), np.eye(4))
    >>> read_mask(image, labels=[2]).ijk.tolist()
    [[0, 0, 2]]
    """
    if isinstance(source, list | tuple):
        if not source:
            raise InputError("mask is an empty list; give at least one mask, or None")
        return intersect_masks([read_mask(one, labels=labels, like=like) for one in source])
    mask = source if isinstance(source, Mask) else _load(source, labels)
    return mask if like is None else resample_mask(mask, *like)


def _load(source: Any, labels: Sequence[int] | None) -> Mask:
    import nibabel

    name = str(source) if isinstance(source, str | Path) else "the mask"
    try:
        image: Any = nibabel.load(source) if isinstance(source, str | Path) else source
        values = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except Exception as error:
        raise DataError(
            f"{name}: can't be read as a mask ({error}); expected a NIfTI image with 0 outside"
        ) from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise DataError(f"{name}: a mask is 3-D, found the shape {values.shape}")
    inside = np.isin(values, list(labels)) if labels is not None else np.nan_to_num(values) != 0
    if not inside.any():
        which = f"any of the labels {list(labels)}" if labels is not None else "a value but 0"
        raise DataError(f"{name}: no voxel has {which}; found {_few(np.unique(values))}")
    return Mask.of(inside, affine)


def _few(values: NDArray[Any]) -> str:
    return ", ".join(f"{v:g}" for v in values[:10]) + (" ..." if len(values) > 10 else "")


def resample_mask(mask: Mask, shape: Sequence[int], affine: ArrayLike) -> Mask:
    """Bring a mask to the grid of the data by nearest neighbour.

    Parameters
    ----------
    mask : Mask
    shape : sequence of int
    affine : array_like of shape (4, 4)

    Returns
    -------
    Mask
        The same one where the grids agree already; else with a note.

    Raises
    ------
    DataError
        Where no voxel of the data lies in the mask.

    Examples
    --------
    >>> fine = Mask.of(np.ones((4, 4, 4)), np.eye(4))
    >>> resample_mask(fine, (2, 2, 2), np.diag([2, 2, 2, 1])).notes
    ('mask resampled from (4, 4, 4) to (2, 2, 2) by nearest neighbour: 64 to 8 voxels',)
    """
    target = np.asarray(affine, float)
    size = tuple(int(n) for n in shape)
    if mask.shape == size and same_affine(mask.affine, target):
        return mask
    inside = resample_labels(mask.to_array().astype(np.uint8), mask.affine, size, target)
    found = Mask.of(inside, target)
    if not len(found):
        raise DataError(
            f"no voxel of the data (shape {size}, affine {target.tolist()}) lies in the mask "
            f"(shape {mask.shape}, {len(mask)} voxels, affine {mask.affine.tolist()}); the mask is "
            "of another space or subject"
        )
    note = (
        f"mask resampled from {mask.shape} to {size} by nearest neighbour: {len(mask)} to "
        f"{len(found)} voxels"
    )
    return replace(found, notes=(*mask.notes, note))


def resample_labels(
    values: NDArray[Any], affine: Affine, shape: Sequence[int], target: Affine
) -> NDArray[Any]:
    """Bring a volume of labels to another grid by nearest neighbour; 0 outside of it.

    Parameters
    ----------
    values : ndarray of int, shape (i, j, k)
    affine : ndarray of shape (4, 4)
        Of `values`.
    shape, target
        Of the grid wanted.

    Returns
    -------
    ndarray of shape `shape`
    """
    from scipy.ndimage import affine_transform

    size = tuple(int(n) for n in shape)
    if values.shape == size and same_affine(affine, target):
        return values
    step = np.linalg.solve(affine, target)
    found: NDArray[Any] = affine_transform(
        values, step[:3, :3], step[:3, 3], output_shape=size, order=0
    )
    return found


def intersect_masks(masks: Sequence[Mask]) -> Mask:
    """Return the voxels that all masks have, on the grid of the first.

    Parameters
    ----------
    masks : sequence of Mask
        Of sessions, or a brain mask and a region.

    Raises
    ------
    DataError
        Where they have no voxel in common.

    Examples
    --------
    >>> rows = [Mask.of(np.array([[[a, 1, b]]]), np.eye(4)) for a, b in ((0, 1), (1, 0))]
    >>> intersect_masks(rows).ijk.tolist()
    [[0, 0, 1]]
    """
    first, *rest = masks
    inside, notes = first.to_array(), list(first.notes)
    for mask in rest:
        other = resample_mask(mask, first.shape, first.affine)
        inside &= other.to_array()
        notes += other.notes
    if not inside.any():
        raise DataError(
            f"the {len(masks)} masks ({', '.join(str(len(m)) for m in masks)} voxels) have no "
            "voxel in common; check that they are of one subject and space"
        )
    return Mask.of(inside, first.affine, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class Overlap:
    """How many of the expected voxels a recording has.

    Attributes
    ----------
    found, expected : int

    Examples
    --------
    >>> overlap = Overlap(3, 4)
    >>> float(overlap), overlap.missing, str(overlap)
    (0.75, 1, '3 of 4 voxels')
    """

    found: int
    expected: int

    @property
    def missing(self) -> int:
        """Voxels that the recording lacks."""
        return self.expected - self.found

    def __float__(self) -> float:
        return self.found / max(self.expected, 1)

    def __str__(self) -> str:
        return f"{self.found} of {self.expected} voxels"


def align_voxels(
    data: xr.Dataset | xr.DataArray,
    i: ArrayLike,
    j: ArrayLike,
    k: ArrayLike,
    affine: ArrayLike | str | None = None,
    *,
    fill: ArrayLike = np.nan,
) -> tuple[NDArray[np.float32], Overlap]:
    """Find the voxels of a fitted model in new data by coordinate.

    Parameters
    ----------
    data : Dataset or DataArray (trial, voxel)
        With coordinates ``i``, ``j``, ``k``; the affine is in the attributes.
    i, j, k : array_like of int, shape (voxel,)
        Those expected.
    affine : array_like of shape (4, 4), its JSON, or None
        That of the expected voxels.
    fill : float or array_like of shape (voxel,)
        For voxels that the data lack: the training mean. NaN by default, so that they can't be
        taken for data.

    Returns
    -------
    values : ndarray of float32, shape (trial, voxel)
        In the expected order.
    overlap : Overlap
        The counts; ``float(overlap)`` is the share found.

    Raises
    ------
    ContractError
        Where affines differ or no voxel is found.

    Examples
    --------
    >>> data = xr.DataArray([[1.0, 2.0]], dims=("trial", "voxel"),
    ...                     coords={"i": ("voxel", [0, 1]), "j": ("voxel", [0, 0]),
    ...                             "k": ("voxel", [0, 0])})
    >>> values, overlap = align_voxels(data, [1, 7], [0, 0], [0, 0], fill=[0.5, 0.25])
    >>> values.tolist(), overlap.missing
    ([[2.0, 0.25]], 1)
    """
    signal = data["signal"] if isinstance(data, xr.Dataset) else data
    mine, theirs = affine_of(data), as_affine(affine)
    if mine is not None and theirs is not None and not same_affine(mine, theirs):
        raise ContractError(
            f"the data have the affine {mine.tolist()}, expected {theirs.tolist()}; resample the "
            "images to the grid of the training data (nilearn.image.resample_img)"
        )
    wanted = np.column_stack([np.asarray(a, dtype=np.int64) for a in (i, j, k)])
    rows = rows_of(wanted, places(data))
    overlap = Overlap(int((rows >= 0).sum()), len(wanted))
    if not overlap.found:
        raise ContractError(
            f"none of the {len(wanted)} expected voxels is among the {signal.sizes['voxel']} of "
            "the data; they are of another mask or subject"
        )
    values = signal.transpose("trial", "voxel").values[:, np.maximum(rows, 0)]
    values = values.astype(np.float32, copy=False)
    gone = rows < 0
    values[:, gone] = np.broadcast_to(np.asarray(fill, np.float32), (len(wanted),))[gone]
    return values, overlap
