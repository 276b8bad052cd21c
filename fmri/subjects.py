"""The voxels of subjects: taken from datasets, compared by coordinate, standardised.

Subjects have different voxels, so that a study is a list of them, never one padded array.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.data import as_signal, check_finite, open_dataset
from neuro.errors import ContractError, DataError, InputError
from neuro.standardize import Standardizer

Floats = NDArray[np.float32]
UNNAMED = ""


@dataclass
class Subject:
    """Trials of one subject.

    Attributes
    ----------
    name : str
        ``""`` where the data doesn't say.
    values : ndarray of float32, shape (trial, voxel)
    rows : ndarray of int
        Where the trials stand in the data that they came from.
    stimulus, session : ndarray of str, shape (trial,), or None
    ijk : ndarray of int, shape (voxel, 3), or None
    affine, units, mask_hash : str or None
    """

    name: str
    values: Floats
    rows: NDArray[np.int64]
    stimulus: NDArray[np.str_] | None = None
    session: NDArray[np.str_] | None = None
    ijk: NDArray[np.int64] | None = None
    affine: str | None = None
    units: str | None = None
    mask_hash: str | None = None


@dataclass
class VoxelContract:
    """What new data of a subject must look like.

    Attributes
    ----------
    name : str
    ijk : ndarray of int, shape (voxel, 3), or None
    affine, units, mask_hash : str or None
    scaler : Standardizer
        Per voxel, of the training trials.

    Examples
    --------
    >>> X = xr.DataArray(np.eye(3, 2, dtype="float32"), dims=("trial", "voxel"),
    ...                  coords={n: ("voxel", [0, 1]) for n in "ijk"})
    >>> (subject,) = as_subjects(X)
    >>> contract = VoxelContract.of(subject)
    >>> (other,) = as_subjects(X.assign_coords(i=("voxel", [0, 2])))
    >>> contract.check(other)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    neuro.errors.ContractError: the voxels of the data are not those ...
    """

    name: str
    ijk: NDArray[np.int64] | None
    affine: str | None
    units: str | None
    mask_hash: str | None
    scaler: Standardizer

    @classmethod
    def of(cls, subject: Subject, train: NDArray[Any] | None = None) -> VoxelContract:
        """Learn it from a subject, the statistics from its trials `train` only."""
        values = subject.values if train is None else subject.values[train]
        return cls(
            subject.name, subject.ijk, subject.affine, subject.units, subject.mask_hash,
            Standardizer.fit(values),
        )  # fmt: skip

    @property
    def n_voxels(self) -> int:
        """Voxels of the subject."""
        return len(self.scaler.mean)

    def check(self, subject: Subject) -> None:
        """Refuse voxels, affine or units that differ, with both sides in the message."""
        who = f"subject '{self.name}'" if self.name else "the training data"
        found, expected = subject.values.shape[1], self.n_voxels
        advice = "align them by coordinate with fmri.mask.align_voxels, or fit on these voxels"
        if found != expected:
            raise ContractError(f"found {found} voxels, expected {expected} of {who}; {advice}")
        if subject.ijk is not None and self.ijk is not None:
            self._check_places(subject.ijk, who, advice)
        if None not in (subject.affine, self.affine) and not _same_affine(
            subject.affine, self.affine
        ):
            raise ContractError(
                f"the affine is {subject.affine}, expected {self.affine} of {who}; {advice}"
            )
        if None not in (subject.units, self.units) and subject.units != self.units:
            raise ContractError(
                f"the units are '{subject.units}', expected '{self.units}' of {who}; estimate "
                "the betas in the same way"
            )

    def _check_places(self, found: NDArray[np.int64], who: str, advice: str) -> None:
        assert self.ijk is not None  # noqa: S101 - for the type checker
        wrong = np.flatnonzero((found != self.ijk).any(axis=1))
        if len(wrong):
            first = int(wrong[0])
            shared = len({*map(tuple, found.tolist())} & {*map(tuple, self.ijk.tolist())})
            raise ContractError(
                f"the voxels of the data are not those of {who}: {len(wrong)} of {len(found)} "
                f"differ, the first, number {first}, is at {tuple(found[first].tolist())}, "
                f"expected {tuple(self.ijk[first].tolist())}; {shared} are in both; {advice}"
            )

    def transform(self, values: Floats) -> Floats:
        """Standardise ``(trial, voxel)``."""
        return self.scaler.transform(values).astype(np.float32, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what is not an array, as JSON."""
        return {
            "name": self.name, "affine": self.affine, "units": self.units,
            "mask_hash": self.mask_hash, "has_ijk": self.ijk is not None,
        }  # fmt: skip

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return ``mean``, ``sd`` and, where known, ``ijk``."""
        arrays: dict[str, NDArray[Any]] = {"mean": self.scaler.mean, "sd": self.scaler.sd}
        return arrays if self.ijk is None else {**arrays, "ijk": self.ijk}

    @classmethod
    def from_parts(cls, stored: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> VoxelContract:
        """Rebuild from `to_dict` and `to_arrays`."""
        return cls(
            stored["name"],
            arrays["ijk"] if stored["has_ijk"] else None,
            stored["affine"],
            stored["units"],
            stored["mask_hash"],
            Standardizer(arrays["mean"], arrays["sd"]),
        )


def as_subjects(X: Any, stimulus: ArrayLike | None = None) -> list[Subject]:
    """Take apart what a user gives.

    Parameters
    ----------
    X : Dataset, DataArray (trial, voxel), ndarray, path of a saved dataset, or a list of such
        Several subjects with the same voxels may share one; others are a list.
    stimulus : array-like of str, shape (trial,), optional
        By default the coordinate; for one dataset only.

    Returns
    -------
    list of Subject
        In the order in which they come.

    Raises
    ------
    DataError
        Where there is no trial, something is no number, or a subject is in two datasets.
    """
    if isinstance(X, list | tuple):
        if stimulus is not None:
            raise InputError("stimulus is for one dataset; name it as a coordinate in a list")
        found = [subject for one in X for subject in as_subjects(one)]
        names = [subject.name for subject in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(
                f"subjects that are in two of the datasets: {', '.join(map(repr, twice))}; give "
                "each dataset its own coordinate 'subject', or join its sessions first"
            )
        return found
    signal = _labelled(X)
    given = _column(signal, "stimulus", stimulus)
    whose = _column(signal, "subject")
    if whose is None:
        return [_subject(signal, UNNAMED, np.arange(len(signal)), given)]
    return [
        _subject(signal, str(name), np.flatnonzero(whose == name), given)
        for name in dict.fromkeys(whose.tolist())
    ]


def _labelled(X: Any) -> xr.DataArray:
    if isinstance(X, str | Path):
        X = open_dataset(X)
    if isinstance(X, xr.Dataset):
        X = as_signal(X).assign_attrs(X.attrs)
    if not isinstance(X, xr.DataArray):
        X = xr.DataArray(np.asarray(X), dims=("trial", "voxel")[: np.ndim(X)])
    if X.dims != ("trial", "voxel"):
        raise ContractError(f"the dims are {tuple(X.dims)}, expected ('trial', 'voxel')")
    if X.dtype.kind not in "fiub":
        raise DataError(f"the signal is {X.dtype}, expected real numbers")
    if 0 in X.shape:
        raise DataError(f"there is no trial or voxel in the data: its shape is {X.shape}")
    check_finite(X, name="the betas")
    return X


def _subject(
    X: xr.DataArray, name: str, rows: NDArray[np.int64], stimulus: NDArray[np.str_] | None
) -> Subject:
    session = _column(X, "session")
    places = [X[n].values for n in "ijk" if n in X.coords and X[n].dims == ("voxel",)]
    values = X.values if len(rows) == len(X) else X.values[rows]
    affine = X.attrs.get("affine")
    return Subject(
        name,
        np.ascontiguousarray(values, np.float32),
        rows.astype(np.int64),
        None if stimulus is None else stimulus[rows],
        None if session is None else session[rows],
        np.stack(places, 1).astype(np.int64) if len(places) == 3 else None,
        affine if affine is None or isinstance(affine, str) else json.dumps(affine),
        X.attrs.get("units"),
        X.attrs.get("mask_hash"),
    )


def _column(X: xr.DataArray, name: str, given: ArrayLike | None = None) -> NDArray[np.str_] | None:
    if given is None and name in X.coords and X[name].dims == ("trial",):
        given = X[name].values
    if given is None:
        return None
    column = np.asarray(given).astype(str)
    if column.shape != (len(X),):
        raise DataError(
            f"'{name}' has the shape {column.shape}, expected one value for each of {len(X)} trials"
        )
    return column


def _same_affine(one: str | None, other: str | None) -> bool:
    a, b = json.loads(one or "null"), json.loads(other or "null")
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, atol=1e-4))


def one_per_stimulus(subjects: Sequence[Subject]) -> list[str]:
    """Return every stimulus once, sorted; all subjects must name theirs."""
    for subject in subjects:
        if subject.stimulus is None:
            who = f"of subject '{subject.name}' " if subject.name else ""
            raise DataError(
                f"the trials {who}have no coordinate 'stimulus', by which targets are found; add "
                "it, or pass stimulus="
            )
    return sorted({str(s) for subject in subjects for s in np.asarray(subject.stimulus)})
