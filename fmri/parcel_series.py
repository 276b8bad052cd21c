"""Files to parcel time series: label images in one pass, probabilistic maps, surfaces.

A label image (Schaefer, any NIfTI of whole numbers) is applied volume by volume while the file is
read: the voxels of a volume are taken in the order of their parcels and summed run by run of that
order, which equals nilearn's ``NiftiLabelsMasker`` and never holds the file. Probabilistic maps
(DiFuMo) go through nilearn's ``NiftiMapsMasker``; CIFTI labels meet CIFTI series column by column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.mask import read_mask, resample_labels
from fmri.parcels import read_atlas_table
from fmri.signals import labels_of, name_of
from fmri.surfaces import is_surface, read_columns
from fmri.volumes import Volumes, load_image, open_volumes
from fmri.voxels import affine_of
from neuro.errors import DataError

__all__ = ["parcel_series", "voxel_series"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Series:
    """Values ``(time, parcel)``, which rows of the table they are, and what each is of."""

    values: Floats
    kept: NDArray[np.bool_]
    n_voxels: NDArray[np.int64]
    t_r: float | None
    notes: tuple[str, ...] = ()
    places: NDArray[np.float64] | None = None


def parcel_series(
    bold: Any,
    atlas: Any,
    table: str | Path | pd.DataFrame | None = None,
    *,
    t_r: float | None = None,
    min_found: float = 0.5,
    subject: str | None = None,
    session: str | None = None,
    run: str | None = None,
) -> xr.Dataset:
    """Average a run over the parcels of an atlas, straight from the file.

    Parameters
    ----------
    bold : path or nibabel image
        4-D NIfTI, or CIFTI ``.dtseries.nii`` with a CIFTI atlas.
    atlas : path or nibabel image
        3-D whole numbers (0 is outside), 4-D maps, or a CIFTI ``.dlabel.nii``. A label image of
        another grid is brought to that of the data by nearest neighbour, maps as nilearn does it.
    table : path or DataFrame, optional
        Names and networks (`fmri.parcels.read_atlas_table`). Of maps the rows are in their order.
    t_r : float, optional
        s, by default the header's.
    min_found : float
        Least share of parcels that must have a voxel in the data; with fewer the atlas is taken to
        be of another space.
    subject, session, run : str, optional
        By default those of the file's name.

    Returns
    -------
    Dataset
        ``signal (time, parcel)`` float32 in the units of the file, ``time`` in s, ``parcel``,
        ``network`` ("" where the table has none), ``value`` (in the label image), ``n_voxels``
        and, of volumes, the centres ``x``, ``y``, ``z`` in mm; parcels without a voxel are left
        out and named in ``attrs["missing_parcels"]``.

    Raises
    ------
    DataError
        Where a file can't be read, atlas and data don't overlap or too few parcels are found, the
        table doesn't fit, or the repetition time isn't known.
    """
    label = str(atlas) if isinstance(atlas, str | Path) else "the atlas"
    if is_surface(atlas):
        found, names = _from_cifti(bold, atlas, table, label)
    else:
        image = load_image(atlas, label)
        shape = [n for n in image.shape[3:] if n > 1]
        if len(image.shape) < 3 or len(shape) > 1:
            raise DataError(f"{label}: has the shape {image.shape}; expected labels or 4-D maps")
        if shape:
            names = _table(table, np.arange(shape[0]) + 1, label, by_order=True)
            found = _from_maps(bold, image)
        else:
            values = np.rint(np.asanyarray(image.dataobj)).astype(np.int32)
            values = values.reshape(values.shape[:3])
            names = _table(table, np.unique(values[values != 0]), label)
            found = _from_labels(bold, values, image.affine, names["index"].to_numpy(int), label)
    share = found.kept.mean()
    if share < min_found:
        gone = names["name"][~found.kept].astype(str).tolist()
        raise DataError(
            f"{label}: only {int(found.kept.sum())} of {len(names)} parcels have a voxel in "
            f"{name_of(bold)} (missing: {', '.join(gone[:5])}{' ...' if len(gone) > 5 else ''}); "
            "is the atlas of another space, or coarser data meant? Bring it to the space of the "
            f"data, or allow it with min_found (now {min_found:g})"
        )
    return _dataset(found, names, bold, t_r, labels_of(bold, subject, session, run))


def voxel_series(
    bold: Any, mask: Any, regions: dict[str, Any] | None = None, *, t_r: float | None = None,
    run: str | None = None, subject: str | None = None,
) -> xr.Dataset:  # fmt: skip
    """Take every voxel of coarse data for a parcel, and say which masks it lies in.

    Parameters
    ----------
    bold : path or nibabel image
    mask : path or nibabel image
        Which voxels.
    regions : mapping of str to path or image, optional
        Masks on the same grid, which may overlap: each becomes a coordinate ``in_<name>``.
    t_r, run, subject : optional
        As for `parcel_series`.

    Returns
    -------
    Dataset
        As of `parcel_series`, with ``i``, ``j``, ``k`` on ``parcel`` too; the network is the first
        region a voxel lies in, "none" outside of all.
    """
    from fmri.read import read_bold

    found = read_bold(bold, mask, t_r=t_r, run=run, subject=subject)
    ijk = tuple(found[axis].values for axis in "ijk")
    network = np.full(found.sizes["voxel"], "none", dtype=object)
    inside = {}
    for name, region in reversed(list((regions or {}).items())):
        other = read_mask(region)
        affine = np.asarray(other.affine, float)
        volumes = open_volumes(bold, name=name_of(bold))
        array = other.to_array().astype(np.uint8)
        inside[name] = resample_labels(array, affine, volumes.shape, volumes.affine)[ijk] > 0
        if not inside[name].any():
            raise DataError(f"the region '{name}' ({name_of(region)}) has no voxel in the mask")
        network[inside[name]] = name
    places = ["-".join(map(str, row)) for row in zip(*ijk, strict=True)]
    coords: dict[str, Any] = {
        "parcel": ("parcel", np.array(places)), "network": ("parcel", network.astype(str)),
        "n_voxels": ("parcel", np.ones(len(network), int)),
    }  # fmt: skip
    coords |= {f"in_{name}": ("parcel", one) for name, one in inside.items()}
    grid = affine_of(found)
    if grid is not None:
        coords |= _place_coords(np.column_stack(ijk) @ grid[:3, :3].T + grid[:3, 3])
    return found.rename(voxel="parcel").assign_coords(coords)


# Inside ---------------------------------------------------------------------------------------


def _table(table: Any, values: NDArray[Any], label: str, *, by_order: bool = False) -> pd.DataFrame:
    if table is None:
        return pd.DataFrame({"index": values, "name": values.astype(str), "network": ""})
    found = table if isinstance(table, pd.DataFrame) else read_atlas_table(table)
    if by_order and len(found) != len(values):
        raise DataError(f"{label}: holds {len(values)} maps, its table {len(found)} rows")
    unnamed = np.setdiff1d(values, found["index"].to_numpy(int))
    if not by_order and len(unnamed):
        raise DataError(
            f"{label}: {len(unnamed)} of its {len(values)} values are not in the table (the first "
            f"is {unnamed[0]}); is the table that of this atlas?"
        )
    return found.reset_index(drop=True)


def _from_labels(
    bold: Any, labels: NDArray[np.int32], affine: Any, wanted: NDArray[np.int64], label: str
) -> _Series:
    volumes = open_volumes(bold, name=name_of(bold))
    moved = resample_labels(labels, np.asarray(affine, float), volumes.shape, volumes.affine)
    place = np.full(int(max(labels.max(), wanted.max())) + 1, -1)
    place[wanted] = np.arange(len(wanted))
    unit = np.where(moved > 0, place[np.maximum(moved, 0)], -1).ravel(order="F")
    counts = np.bincount(unit[unit >= 0], minlength=len(wanted))
    if not counts.any():
        raise DataError(
            f"{label}: no parcel has a voxel in {name_of(bold)} (shape {volumes.shape}, affine "
            f"{volumes.affine.tolist()}; the atlas {labels.shape}, {np.asarray(affine).tolist()}): "
            "they are of different spaces"
        )
    # A stable sort keeps the voxels of a parcel in the order of the file.
    inside = np.flatnonzero(unit >= 0)
    flat = inside[np.argsort(unit[inside], kind="stable")]
    kept = counts > 0
    values, bad = _means(volumes, flat, counts[kept])
    notes = (f"{bad} values that are not finite were taken for 0",) if bad else ()
    inner = np.column_stack(np.unravel_index(inside, volumes.shape, order="F"))
    sums = [np.bincount(unit[inside], column, len(wanted))[kept] for column in inner.T]
    centres = np.column_stack(sums) / counts[kept, None]
    middle: NDArray[np.float64] = centres @ volumes.affine[:3, :3].T + volumes.affine[:3, 3]
    return _Series(values, kept, counts[kept], volumes.t_r, notes, middle)


def _means(
    volumes: Volumes, flat: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[Floats, int]:
    """Average runs of sorted voxels in every volume; sums are in double precision."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    out = np.empty((volumes.n, len(counts)), np.float64)
    row = np.empty(len(flat), volumes.dtype)
    bad = 0
    for number, volume in enumerate(volumes):
        np.take(volume, flat, out=row, mode="clip")
        np.add.reduceat(row, starts, dtype=np.float64, out=out[number])
        if volumes.dtype.kind == "f" and not np.isfinite(out[number]).all():
            gone = ~np.isfinite(row)
            bad += int(gone.sum())
            row[gone] = 0  # as nilearn has it
            np.add.reduceat(row, starts, dtype=np.float64, out=out[number])
    out /= counts
    return (out * volumes.slope + volumes.inter).astype(np.float32), bad


def _from_maps(bold: Any, image: Any) -> _Series:
    from nilearn.maskers import NiftiMapsMasker

    volumes = open_volumes(bold, name=name_of(bold))
    masker = NiftiMapsMasker(image, resampling_target="data", standardize=None)
    try:
        values = np.asarray(masker.fit_transform(load_image(bold, name_of(bold))), np.float32)
    except ValueError as error:
        raise DataError(f"the maps can't be laid on {name_of(bold)}: {error}") from error
    kept = np.abs(values).max(0) > 0
    if not kept.any():
        raise DataError(f"no map overlaps {name_of(bold)}: they are of different spaces")
    maps = np.asanyarray(image.dataobj)
    found = maps.astype(bool).sum((0, 1, 2))
    places = np.stack([_centre(maps[..., n], image.affine) for n in np.flatnonzero(kept)])
    return _Series(values[:, kept], kept, found[: len(kept)][kept], volumes.t_r, places=places)


def _centre(weights: NDArray[Any], affine: Any) -> NDArray[np.float64]:
    """Return the centre of mass of a map in mm."""
    ijk = np.argwhere(weights)
    mass = np.abs(weights[tuple(ijk.T)]).astype(np.float64)
    centre = mass @ ijk / mass.sum()
    return np.asarray(affine)[:3, :3] @ centre + np.asarray(affine)[:3, 3]


def _place_coords(places: NDArray[Any]) -> dict[str, Any]:
    return {axis: ("parcel", places[:, n].astype(np.float32)) for n, axis in enumerate("xyz")}


def _from_cifti(bold: Any, atlas: Any, table: Any, label: str) -> tuple[_Series, pd.DataFrame]:
    regions, series = read_columns(atlas), read_columns(bold)
    if not np.array_equal(regions.structure, series.structure):
        raise DataError(
            f"{label}: has {len(regions.ijk)} grayordinates, {name_of(bold)} {len(series.ijk)}, or "
            "their structures differ; both must be of one space (fs_LR 32k and 91k, for example)"
        )
    value = np.rint(regions.values[0]).astype(int)
    names = _table(_dlabel_table(atlas) if table is None else table, np.unique(value[value != 0]),
                   label)  # fmt: skip
    wanted = names["index"].to_numpy(int)
    sums = np.array([series.values[:, value == one].sum(1, dtype=float) for one in wanted])
    counts = np.array([(value == one).sum() for one in wanted])
    kept = counts > 0
    return _Series(
        (sums[kept] / counts[kept, None]).T.astype(np.float32), kept, counts[kept], series.t_r
    ), names


def _dlabel_table(atlas: Any) -> pd.DataFrame | None:
    """Read the names that a ``.dlabel.nii`` carries, with networks where they are Schaefer's."""
    from fmri.parcels import network_of

    axis = load_image(atlas, str(atlas)).header.get_axis(0)
    if not hasattr(axis, "label"):
        return None
    rows = [(key, text) for key, (text, _) in axis.label[0].items() if key != 0]
    found = pd.DataFrame(rows, columns=["index", "name"])
    return found.assign(network=[network_of(name) for name in found["name"]])


def _dataset(
    found: _Series, names: pd.DataFrame, bold: Any, t_r: float | None, where: dict[str, str]
) -> xr.Dataset:
    step = t_r if t_r is not None else found.t_r
    if step is None or step <= 0:
        raise DataError(f"{name_of(bold)}: the header has no repetition time; give t_r in s")
    table = names[found.kept]
    network = table["network"] if "network" in table else pd.Series([""] * len(table))
    coords = {
        "time": ("time", np.arange(len(found.values)) * step),
        "parcel": ("parcel", table["name"].to_numpy().astype(str)),
        "network": ("parcel", network.to_numpy().astype(str)),
        "value": ("parcel", table["index"].to_numpy(int)),
        "n_voxels": ("parcel", found.n_voxels),
    }
    if found.places is not None:
        coords |= _place_coords(found.places)
    attrs = {
        "kind": "bold", "units": "a.u.", "t_r": float(step), **where,
        "missing_parcels": names["name"][~found.kept].astype(str).tolist(),
        "notes": list(found.notes), "source": Path(name_of(bold)).name, "preprocessing": "[]",
    }  # fmt: skip
    return xr.Dataset({"signal": (("time", "parcel"), found.values)}, coords, attrs)
