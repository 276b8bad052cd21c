"""Blocks of parcels as networks take them, and the contract that new blocks must fulfil."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fmri.brain_presets import BrainShape
from neuro.data import as_signal, open_dataset
from neuro.encoder import Encoder
from neuro.errors import ContractError, DataError
from neuro.standardize import Standardizer

__all__ = ["BlockEncoder", "Blocks", "blocks_of", "mask_of", "shape_of", "t_r_of"]

Floats = NDArray[np.float32]
PLACE, VOXEL = ("x", "y", "z"), ("i", "j", "k")


@dataclass(frozen=True)
class Blocks:
    """Trials as networks take them.

    Attributes
    ----------
    x : ndarray of float32, shape (trial, time, parcel)
        0 where the mask is False.
    mask : ndarray of bool, shape (trial, time)
    """

    x: Floats
    mask: NDArray[np.bool_]

    def take(self, rows: NDArray[np.intp]) -> Blocks:
        """Return some of the trials."""
        return Blocks(self.x[rows], self.mask[rows])


def mask_of(X: xr.DataArray) -> NDArray[np.bool_]:
    """Return which volumes were recorded, by the coordinates ``mask`` or ``length``; else all.

    Raises
    ------
    DataError
        Where a trial has none.
    """
    n, n_times = X.sizes["trial"], X.sizes["time"]
    if "mask" in X.coords and X["mask"].dims == ("trial", "time"):
        mask = X["mask"].values.astype(bool)
    elif "length" in X.coords and X["length"].dims == ("trial",):
        mask = np.arange(n_times) < X["length"].values.astype(int)[:, None]
    else:
        return np.ones((n, n_times), bool)
    empty = np.flatnonzero(~mask.any(1))
    if len(empty):
        raise DataError(
            f"{len(empty)} of {n} trials have no recorded volume, the first is trial {empty[0]}; "
            "drop them (mask or length says so)"
        )
    return mask


def t_r_of(X: xr.DataArray) -> float | None:
    """Return the repetition time in s: of the attributes, or the step of the coordinate time."""
    stated = X.attrs.get("t_r")
    if stated is not None:
        return float(stated)
    if "time" in X.coords and X.sizes["time"] > 1:
        step = np.diff(X["time"].values.astype(float))
        return float(np.median(step))
    return None


def shape_of(X: xr.DataArray, t_r: float | None) -> BrainShape:
    """Return what an encoder must know of the data."""
    coords = [
        np.column_stack([X[a].values for a in axes])
        if all(a in X.coords and X[a].dims == ("parcel",) for a in axes)
        else None
        for axes in (PLACE, VOXEL)
    ]
    places = None if coords[0] is None else coords[0].astype(np.float32)
    voxels = None if coords[1] is None else coords[1].astype(np.int64)
    return BrainShape(X.sizes["parcel"], 1.0 if t_r is None else t_r, places, voxels)


def blocks_of(X: xr.DataArray, scaler: Standardizer | None) -> Blocks:
    """Bring ``(trial, parcel, time)`` to the form of networks, standardised, 0 where masked."""
    mask = mask_of(X)
    values = np.asarray(X.values, np.float32)
    values = values if scaler is None else scaler.transform(values)
    x = np.ascontiguousarray(values.transpose(0, 2, 1), np.float32)
    x[~mask] = 0
    return Blocks(x, mask)


class BlockEncoder(Encoder):
    """Base of encoders of blocks ``(trial, parcel, time)`` of any length.

    Attributes
    ----------
    shape_ : BrainShape
        Number and places of parcels, repetition time.
    standardizer_ : Standardizer
        Mean and sd of every parcel over recorded volumes of training trials.
    """

    dims: ClassVar[tuple[str, ...]] = ("trial", "parcel", "time")
    shape_: BrainShape
    standardizer_: Standardizer
    t_r_: float | None

    def as_input(self, X: Any) -> Any:
        """Turn a path or Dataset into a DataArray that carries its mask and repetition time."""
        if isinstance(X, str | Path):
            X = open_dataset(X) if Path(X).is_dir() else self.read_recording(X)
        if isinstance(X, xr.Dataset):
            signal = as_signal(X)
            if "t_r" in X.attrs:
                signal = signal.assign_attrs(t_r=float(X.attrs["t_r"]))
            if "mask" in X and X["mask"].dims == ("trial", "time"):
                signal = signal.assign_coords(mask=(("trial", "time"), X["mask"].values))
            X = signal
        if isinstance(X, xr.DataArray) and set(X.dims) == set(self.dims):
            X = X.transpose(*self.dims)
        return X

    def align(self, X: Any, *, drop_extra: bool = True, fill: bool = False) -> xr.DataArray:
        """Return new blocks with the parcels of the training; blocks may have another length.

        Parameters
        ----------
        X : DataArray, Dataset or ndarray (trial, parcel, time)
        drop_extra : bool
            Leave out parcels that the encoder doesn't know.
        fill : bool
            Let parcels that are missing stand at their training mean.

        Raises
        ------
        ContractError
            Where parcels, repetition time or preprocessing differ; both sides are named.
        """
        check_is_fitted(self, "contract_")
        X = self._labelled(self.as_input(X), reset=False)
        found, known = t_r_of(X), self.t_r_
        if found is not None and known is not None and abs(found - known) > 0.01 * known:
            raise ContractError(
                f"the repetition time is {found:g} s, expected {known:g} s; resample the series "
                "to that of the training"
            )
        X = self._filled(X) if fill else X
        contract = replace(
            self.contract_, times=None, shape=(self.contract_.shape[0], X.sizes["time"])
        )
        return contract.match(X, align=drop_extra)

    def _filled(self, X: xr.DataArray) -> xr.DataArray:
        known = self.contract_.channels
        if known is None or "parcel" not in X.coords:
            return X
        there = set(X["parcel"].values.astype(str).tolist())
        gone = [n for n, name in enumerate(known) if name not in there]
        if not gone:
            return X
        if len(gone) == len(known):
            raise ContractError("none of the parcels is one of the training's; is the atlas it?")
        shape = (X.sizes["trial"], len(gone), X.sizes["time"])
        mean = np.broadcast_to(self.standardizer_.mean[gone][:, None], shape[1:])
        extra = xr.DataArray(
            np.broadcast_to(mean, shape), dims=self.dims,
            coords={"parcel": [known[n] for n in gone], "time": X["time"]}
            if "time" in X.coords else {"parcel": [known[n] for n in gone]},
        )  # fmt: skip
        own = [str(k) for k, c in X.coords.items() if "parcel" in c.dims and k != "parcel"]
        return xr.concat(
            [X.drop_vars(own), extra], "parcel", coords="minimal", compat="override",
            combine_attrs="override", join="override",
        ).transpose(*self.dims)  # fmt: skip

    def _blocks(self, X: Any) -> Blocks:
        """Return checked, standardised blocks."""
        return blocks_of(self.align(X), self.standardizer_)

    def _learn(self, X: xr.DataArray) -> None:
        """Learn what new data must look like from training trials."""
        self.start_fit(X)
        self.t_r_ = t_r_of(X)
        self.shape_ = shape_of(X, self.t_r_)

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        own = self.shape_
        return {
            **super().contract(),
            "t_r": self.t_r_,
            "places": None if own.places is None else own.places.tolist(),
            "voxels": None if own.voxels is None else own.voxels.tolist(),
        }

    def _restore_shape(self, stored: dict[str, Any]) -> None:
        self.t_r_ = stored["t_r"]
        places, voxels = stored["places"], stored["voxels"]
        self.shape_ = BrainShape(
            self.contract_.shape[0],
            1.0 if self.t_r_ is None else self.t_r_,
            None if places is None else np.asarray(places, np.float32),
            None if voxels is None else np.asarray(voxels, np.int64),
        )
