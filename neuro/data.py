"""Trial datasets: open, save, join, address by item, check.

A dataset is an `xarray.Dataset` whose first dimension is ``trial``. Its coordinates carry labels,
subjects and sessions; its attributes hold JSON-able values only (``kind``, ``units``, ``sfreq``,
``labels``, ``item`` ...). On disk it is Zarr, readable by plain `xarray.open_zarr`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.artefact import listing, new_folder
from neuro.batches import Batches
from neuro.errors import DataError
from neuro.items import item_digests, select_item, trial_hashes
from neuro.join import concat, plain_text
from neuro.split import split_groups
from neuro.standardize import Standardizer

__all__ = [
    "Batches",
    "Standardizer",
    "as_signal",
    "check_finite",
    "concat",
    "item_digests",
    "map_to_file",
    "open_dataset",
    "save_dataset",
    "select_item",
    "split_groups",
    "stack_trials",
    "trial_hashes",
]

_CHUNK_BYTES = 8 << 20
_MARK = "neuro_format"  # says that every chunk was written, so that a missing one is damage
_SIGNAL_ATTRS = ("kind", "units", "sfreq", "labels", "preprocessing", "positions")


def save_dataset(data: xr.Dataset, folder: str | Path) -> None:
    """Write a dataset as Zarr (format 2): JSON and plain arrays, no pickle.

    Parameters
    ----------
    data : Dataset
        Object-typed coordinates must hold text; a missing text is stored as ``""``.
    folder : path
        Appears whole or not at all; an older one is replaced.

    Raises
    ------
    DataError
        Where a variable or attribute can't be stored without a pickle; it is named.

    Examples
    --------
    >>> import tempfile, xarray as xr, numpy as np
    >>> data = xr.Dataset({"signal": (("trial", "channel"), np.eye(2, dtype="float32"))},
    ...                   coords={"subject": ("trial", ["s1", "s2"])}, attrs={"units": "uV"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_dataset(data, f"{folder}/data.zarr")
    ...     open_dataset(f"{folder}/data.zarr", load=True).identical(data)
    True
    """
    data = plain_text(data).drop_encoding()
    attrs = {str(name): _jsonable(value, str(name)) for name, value in data.attrs.items()}
    data.attrs = {**attrs, _MARK: 1}
    encoding = {name: _encoding(data[name]) for name in data.variables}
    with new_folder(folder) as temporary:
        data.to_zarr(
            temporary,
            mode="w",
            zarr_format=2,
            consolidated=True,
            encoding=encoding,
            write_empty_chunks=True,
        )


def open_dataset(folder: str | Path, *, load: bool = False) -> xr.Dataset:
    """Open a dataset; values are read when they are used.

    Parameters
    ----------
    folder : path
        What `save_dataset` wrote, or any Zarr that xarray reads.
    load : bool
        Read everything now.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        Where the folder is missing, is no dataset or has lost a part.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such dataset folder; {listing(folder.parent)}")
    try:
        data = xr.open_zarr(folder, chunks=None)
    except Exception as error:
        raise DataError(
            f"{folder}: expected a Zarr dataset, found {listing(folder)} ({error}); "
            "write it again with neuro.save_dataset"
        ) from error
    if data.attrs.pop(_MARK, None) is not None:
        _refuse_lost_chunks(folder)
    try:
        return data.load() if load else data
    except Exception as error:
        raise DataError(f"{folder}: a part of the dataset can't be read ({error})") from error


def _refuse_lost_chunks(folder: Path) -> None:
    import zarr

    for name, array in zarr.open_group(folder, mode="r").arrays():
        found, expected = array.nchunks_initialized, array.nchunks
        if found != expected:
            raise DataError(
                f"{folder}: '{name}' has {found} of {expected} chunks; the folder was damaged "
                "or copied in part, compute or copy it again"
            )


def _jsonable(value: Any, name: str) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"attribute '{name}' is {value!r} ({error}); attributes hold JSON values without NaN"
        ) from error
    return value


def _encoding(variable: xr.DataArray) -> dict[str, Any]:
    from numcodecs import Zstd

    shape = [max(n, 1) for n in variable.shape]
    # Zarr's default, Blosc, decodes a truncated chunk into garbage; this one carries a checksum.
    encoding: dict[str, Any] = {"compressors": (Zstd(level=1, checksum=True),)}
    if variable.ndim > 1 and variable.dims[0] == "trial":
        row = int(np.prod(shape[1:])) * variable.dtype.itemsize
        shape[0] = int(np.clip(_CHUNK_BYTES // max(row, 1), 1, shape[0]))
    if shape:
        encoding["chunks"] = tuple(shape)
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = None  # a NaN is a value here, not a hole
    return encoding


def as_signal(data: xr.Dataset) -> xr.DataArray:
    """Return ``data.signal`` with the attributes that encoders check.

    Parameters
    ----------
    data : Dataset
        With a variable ``signal``, dims first ``trial``.

    Returns
    -------
    DataArray
        ``units``, ``sfreq`` and ``preprocessing`` in its attributes, all coordinates kept.

    Raises
    ------
    DataError
        Where there is no ``signal`` (a catalogue of recordings, for example).

    Examples
    --------
    >>> import xarray as xr
    >>> as_signal(xr.Dataset({"signal": ("trial", [1.0])}, attrs={"units": "uV"})).units
    'uV'
    """
    if "signal" not in data:
        raise DataError(
            f"the dataset (kind '{data.attrs.get('kind')}') has no variable 'signal', only "
            f"{sorted(map(str, data.data_vars))}; preprocess the recordings first"
        )
    signal = data["signal"]
    extra = {name: data.attrs[name] for name in _SIGNAL_ATTRS if name in data.attrs}
    return signal.assign_attrs(extra)


def check_finite(X: xr.DataArray, *, name: str = "the signal") -> None:
    """Refuse NaN and infinity before they reach a network.

    Parameters
    ----------
    X : DataArray
        Dims first ``trial``.

    Raises
    ------
    DataError
        Naming the first such trial with its recording or subject, the channel, and how many.

    Examples
    --------
    >>> import xarray as xr
    >>> check_finite(xr.DataArray([[1.0, float("nan")]], dims=("trial", "channel"),
    ...              coords={"channel": ["Fz", "Cz"]}))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    neuro.errors.DataError: the signal holds NaN or infinity in 1 of 1 trials, first in ...
    """
    values = X.values
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    trial = int(np.argmax(bad))
    place = [f"trial {trial}"]
    for coord in ("recording", "subject"):
        if coord in X.coords and X[coord].dims == ("trial",):
            place.append(f"{coord} {X[coord].values[trial]}")
    if X.ndim > 1:
        rest = tuple(range(1, values.ndim - 1))  # all but the channels
        channel = int(np.argmax(~np.isfinite(values[trial]).all(axis=rest)))
        dim = X.dims[1]
        place.append(f"{dim} {X[dim].values[channel] if dim in X.coords else channel}")
    raise DataError(
        f"{name} holds NaN or infinity in {int(bad.sum())} of {len(bad)} trials, first in "
        f"{', '.join(place)}; drop or interpolate it"
    )


def stack_trials(
    trials: Sequence[NDArray[Any]],
    *,
    sfreq: float,
    channels: Sequence[str],
    tmin: float = 0.0,
    **coords: Any,
) -> xr.Dataset:
    """Stack series of unequal length: zero-padded, with ``length`` and ``mask``.

    Parameters
    ----------
    trials : sequence of ndarray, shape (channel, time)
    sfreq : float
        Hz.
    channels : sequence of str
    tmin : float
        Time of the first sample in s.
    **coords
        One value per trial each (``subject=...``).

    Returns
    -------
    Dataset
        ``signal`` float32 ``(trial, channel, time)``; where lengths differ, the coordinates
        ``length (trial)`` and ``mask (trial, time)``, True on real samples.

    Raises
    ------
    DataError
        Where a trial has another number of channels.

    Examples
    --------
    >>> import numpy as np
    >>> data = stack_trials([np.ones((1, 3)), np.ones((1, 2))], sfreq=10.0, channels=["a"])
    >>> data.length.values.tolist(), data.mask.values[1].tolist()
    ([3, 2], [True, True, False])
    """
    for number, trial in enumerate(trials):
        if trial.ndim != 2 or len(trial) != len(channels):
            raise DataError(
                f"trial {number} has the shape {trial.shape}, expected ({len(channels)}, time) "
                f"for the channels {list(channels)}"
            )
    length = np.array([trial.shape[1] for trial in trials], dtype=np.int64)
    signal = np.zeros((len(trials), len(channels), int(length.max(initial=0))), dtype=np.float32)
    for row, trial in zip(signal, trials, strict=True):
        row[:, : trial.shape[1]] = trial
    data = xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": np.asarray(channels, dtype=str),
            "time": tmin + np.arange(signal.shape[2]) / sfreq,
            **{name: ("trial", np.asarray(values)) for name, values in coords.items()},
        },
        attrs={"sfreq": float(sfreq)},
    )
    if len(set(length.tolist())) > 1:
        mask = np.arange(signal.shape[2]) < length[:, None]
        data = data.assign_coords(length=("trial", length), mask=(("trial", "time"), mask))
    return data


def map_to_file(signal: xr.DataArray, path: str | Path) -> np.memmap[Any, Any]:
    """Copy a signal to a ``.npy`` file, piece by piece, and map it into memory.

    Parameters
    ----------
    signal : DataArray
        Lazily opened or not, dims first ``trial``.
    path : path
        The file to write.

    Returns
    -------
    memmap
        Read-only, float32, for `Batches`.
    """
    shape = signal.shape
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    step = max(1, _CHUNK_BYTES // max(4 * int(np.prod(shape[1:])), 1))
    for start in range(0, shape[0], step):
        mapped[start : start + step] = signal.isel(trial=slice(start, start + step)).values
    mapped.flush()
    return np.load(path, mmap_mode="r")
