"""Average voxels over the regions of a local atlas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.mask import resample_labels
from fmri.volumes import load_image
from fmri.voxels import affine_of, places
from neuro.errors import DataError

__all__ = ["network_of", "parcellate", "read_atlas_table"]

_INDEX = ("index", "component", "label_id", "id", "value", "roi id")
_NAME = ("name", "label", "region", "roi name", "difumo_names")
_NETWORK = ("network", "yeo_networks7", "yeo_networks17", "hemisphere_network")
_SCHAEFER = re.compile(r"^(?:7|17)Networks_[LR]H_([A-Za-z]+)")


def read_atlas_table(path: str | Path) -> pd.DataFrame:
    """Read the names of an atlas: ``.tsv``, ``.csv``, or the ``.txt`` of Schaefer or FreeSurfer.

    Parameters
    ----------
    path : path
        With a header, columns for the value in the image (``index``), ``name`` and, where it is
        known, ``network``. Without one, rows of a value, a name and anything else.

    Returns
    -------
    DataFrame
        ``index``, ``name`` and ``network`` ("" where it isn't known).

    Raises
    ------
    DataError
        Where there are no such columns, or a value comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; an atlas's names come in a local table")
    separator = "," if path.suffix.lower() == ".csv" else (r"\s+" if _is_plain(path) else "\t")
    header = None if _is_plain(path) else 0
    table = pd.read_csv(path, sep=separator, header=header, engine="python", comment="#")
    if header is None:
        found = pd.DataFrame({"index": table[0], "name": table[1].astype(str)})
    else:
        lower = {str(c).strip().lower(): c for c in table.columns}
        index, name = (next((lower[c] for c in k if c in lower), None) for k in (_INDEX, _NAME))
        if index is None or name is None:
            raise DataError(
                f"{path}: has the columns {', '.join(map(str, table.columns))}; expected an index "
                f"({', '.join(_INDEX)}) and a name ({', '.join(_NAME)})"
            )
        found = pd.DataFrame({"index": table[index], "name": table[name].astype(str)})
        network = next((lower[c] for c in _NETWORK if c in lower), None)
        if network is not None:
            found["network"] = table[network].astype(str)
    if "network" not in found:
        found["network"] = [network_of(name) for name in found["name"]]
    if found["index"].duplicated().any():
        raise DataError(f"{path}: the value {found['index'][found['index'].duplicated()].iloc[0]} "
                        "stands there twice")  # fmt: skip
    return found


def _is_plain(path: Path) -> bool:
    """A table without a header begins with a number."""
    with path.open() as file:
        first = next((line for line in file if line.strip() and line[0] != "#"), "")
    return first.split()[0].isdigit() if first.split() else False


def network_of(name: str) -> str:
    """Read the network out of Schaefer's name of a parcel, "" where it isn't one.

    Examples
    --------
    >>> network_of("7Networks_LH_Vis_1"), network_of("Brainstem")
    ('Vis', '')
    """
    match = _SCHAEFER.match(name)
    return match[1] if match else ""


def parcellate(
    data: xr.Dataset, atlas: Any, table: str | Path | pd.DataFrame | None = None
) -> xr.Dataset:
    """Average the voxels of every region.

    Parameters
    ----------
    data : Dataset
        ``signal (time, voxel)`` or ``(trial, voxel)`` with places and affine.
    atlas : path or nibabel image
        3-D, whole numbers, 0 outside. Brought to the grid of the data by nearest neighbour.
    table : path or DataFrame, optional
        Names, see `read_atlas_table`; by default those are the values.

    Returns
    -------
    Dataset
        ``signal (..., parcel)`` with the coordinates ``parcel`` (names), ``network``, and
        ``n_voxels`` that each mean is of. Regions without a voxel in the data are left out and
        named in ``attrs["missing_parcels"]``.

    Raises
    ------
    DataError
        Where the data have no affine, or no region has a voxel in them.
    """
    affine = affine_of(data)
    if affine is None:
        raise DataError("the data have no affine, so an atlas can't be laid on them")
    label = str(atlas) if isinstance(atlas, str | Path) else "the atlas"
    image = load_image(atlas, label)
    volume = np.asanyarray(image.dataobj)
    volume = volume[..., 0] if volume.ndim == 4 and volume.shape[3] == 1 else volume
    if volume.ndim != 3:
        raise DataError(f"{label}: is {volume.ndim}-D; expected a 3-D atlas of whole numbers")
    values = resample_labels(
        np.rint(volume).astype(np.int32), np.asarray(image.affine, float),
        json.loads(data.attrs["shape"]), affine,
    )[tuple(places(data).T)]  # fmt: skip
    names = _names(table, np.unique(volume[volume != 0]))
    return _averaged(data, values, names, label)


def _names(table: Any, found: NDArray[Any]) -> pd.DataFrame:
    if table is None:
        index = np.rint(found).astype(int)
        return pd.DataFrame({"index": index, "name": index.astype(str), "network": ""})
    return table if isinstance(table, pd.DataFrame) else read_atlas_table(table)


def _averaged(
    data: xr.Dataset, values: NDArray[Any], names: pd.DataFrame, label: str
) -> xr.Dataset:
    from scipy.sparse import csr_matrix

    wanted = names["index"].to_numpy(int)
    column = {value: n for n, value in enumerate(wanted.tolist())}
    unit = np.array([column.get(value, -1) for value in values.tolist()])
    counts = np.bincount(unit[unit >= 0], minlength=len(wanted))
    if not counts.any():
        raise DataError(f"{label}: no region has a voxel in the data; is it of another space?")
    inside = np.flatnonzero(unit >= 0)
    weights = csr_matrix(
        ((1 / counts[unit[inside]]).astype(np.float32), (inside, unit[inside])),
        shape=(len(unit), len(wanted)),
    )
    signal = data["signal"]
    dim = str(signal.dims[0])
    kept = counts > 0
    means = np.asarray((weights.T @ signal.values.T).T, np.float32)[:, kept]
    coords = {str(k): c for k, c in data.coords.items() if c.dims == (dim,)}
    table = names[kept]
    network = table["network"].astype(str).to_numpy() if "network" in table else [""] * kept.sum()
    coords |= {
        "parcel": ("parcel", table["name"].astype(str).to_numpy().astype(str)),
        "network": ("parcel", np.asarray(network, dtype=str)), "n_voxels": ("parcel", counts[kept]),
    }  # fmt: skip
    attrs = {k: v for k, v in data.attrs.items() if k not in ("mask_hash", "shape", "affine")}
    attrs["missing_parcels"] = names["name"][~kept].astype(str).tolist()
    return xr.Dataset({"signal": ((dim, "parcel"), np.ascontiguousarray(means))}, coords, attrs)
