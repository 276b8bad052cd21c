"""Detrend, filter, regress confounds out and standardise, all in one projection.

Everything that is taken out of the series is a column of one matrix: the mean, a linear trend,
cosines below and above the band, and the confounds. It is made orthonormal once and projected
away. Cleaning in turns brings back what an earlier turn had removed (Lindquist et al. 2019,
"Modular preprocessing pipelines can reintroduce artifacts into fMRI data").
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

__all__ = ["STANDARDIZE", "clean", "clean_signals", "cosines", "nuisance_basis", "project_out"]

Floats = NDArray[np.float64]

STANDARDIZE = ("zscore_sample", "psc", None)
_SCALES: dict[Any, str | None] = {True: "zscore_sample", False: None}
_CHUNK = 4096  # voxels cleaned at once
_RANK = 1e-10


def cosines(n: int, t_r: float, high_pass: float | None, low_pass: float | None) -> Floats:
    """Return the cosines (DCT-II) outside of a pass band.

    Parameters
    ----------
    n : int
        Volumes.
    t_r : float
        s.
    high_pass, low_pass : float or None
        Hz. The slow ones are those of nilearn's ``filter="cosine"``, up to `high_pass`; the fast
        ones are those above `low_pass`.

    Returns
    -------
    ndarray of shape (n, n_cosines)

    Examples
    --------
    >>> cosines(100, 2.0, 0.01, None).shape, cosines(100, 2.0, None, 0.2).shape
    ((100, 4), (100, 19))
    """
    order = np.arange(1, n)
    slow = order <= np.floor(2 * n * t_r * high_pass + 1e-9) if high_pass else order < 0
    fast = order > 2 * n * t_r * low_pass + 1e-9 if low_pass else order < 0
    kept = order[slow | fast]
    return np.sqrt(2 / n) * np.cos(np.pi / n * (np.arange(n)[:, None] + 0.5) * kept)


def nuisance_basis(
    n: int,
    t_r: float,
    *,
    detrend: bool = True,
    high_pass: float | None = None,
    low_pass: float | None = None,
    confounds: ArrayLike | None = None,
    sample_mask: ArrayLike | None = None,
) -> Floats:
    """Return an orthonormal basis of everything that is taken out; its first column is constant.

    Parameters
    ----------
    n : int
        Volumes of the run.
    t_r : float
        s.
    detrend : bool
        Take a linear trend out, over the volumes that are kept.
    high_pass, low_pass : float, optional
        Hz; see `cosines`.
    confounds : array_like or DataFrame of shape (n, n_confounds), optional
    sample_mask : array_like of int or bool, optional
        Volumes that are kept; frequencies are those of the whole run.

    Returns
    -------
    ndarray of shape (n kept, rank)

    Raises
    ------
    DataError
        Where confounds have another length or NaN, or leave nothing of the series.

    Examples
    --------
    >>> basis = nuisance_basis(50, 2.0, high_pass=0.01)
    >>> basis.shape, bool(np.allclose(basis.T @ basis, np.eye(basis.shape[1])))
    ((50, 4), True)
    """
    from scipy.linalg import qr

    kept = sample_indices(n, sample_mask)
    parts = [cosines(n, t_r, high_pass, low_pass)[kept]]
    if detrend:
        parts.append(np.arange(len(kept), dtype=float)[:, None])
    if confounds is not None:
        parts.append(check_confounds(confounds, n)[kept])
    found = np.column_stack(parts)
    found = found - found.mean(axis=0)
    norm = np.linalg.norm(found, axis=0)
    found = found[:, norm > _RANK * max(float(norm.max(initial=0)), 1e-300)]
    found /= np.linalg.norm(found, axis=0)
    constant = np.full((len(kept), 1), len(kept) ** -0.5)
    if not found.shape[1]:
        return constant
    q, r, _ = qr(found, mode="economic", pivoting=True)
    basis = np.column_stack([constant, q[:, np.abs(np.diag(r)) > _RANK]])
    if basis.shape[1] >= len(kept):
        raise DataError(
            f"{basis.shape[1]} regressors (trend, filter, confounds) leave nothing of {len(kept)} "
            "volumes; take fewer confounds or a wider band"
        )
    return basis


def sample_indices(n: int, sample_mask: ArrayLike | None) -> NDArray[np.int64]:
    """Return the numbers of the volumes that are kept.

    Raises
    ------
    DataError
        Where none is, or one lies outside of the run.
    """
    if sample_mask is None:
        return np.arange(n)
    given = np.asarray(sample_mask)
    if given.dtype == bool and len(given) != n:
        raise DataError(f"the sample mask has {len(given)} values for {n} volumes")
    kept = np.flatnonzero(given) if given.dtype == bool else given.astype(np.int64)
    if not len(kept):
        raise DataError(f"scrubbing leaves none of the {n} volumes; raise fd_threshold or drop it")
    if kept.min() < 0 or kept.max() >= n:
        raise DataError(f"the sample mask names volume {kept.max()} of {n}")
    return kept


def check_confounds(confounds: ArrayLike, n: int) -> Floats:
    """Return confounds as numbers, shape (n, n_confounds).

    Raises
    ------
    DataError
        Where they have another length than the run, or NaN.
    """
    names = [str(c) for c in getattr(confounds, "columns", [])]
    values = np.asarray(confounds, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if len(values) != n:
        raise DataError(
            f"the confounds have {len(values)} rows, the run {n} volumes; is this the table of "
            "another run?"
        )
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        which = [names[c] if names else str(c) for c in np.flatnonzero(bad)[:5]]
        raise DataError(
            f"the confounds {', '.join(which)} hold NaN (derivatives have no first value): read "
            "them with fmri.read.read_confounds, or fill the first row with 0"
        )
    return values


def project_out(values: NDArray[Any], basis: Floats, *, scale: str | None = None) -> NDArray[Any]:
    """Take a basis out of series, in place and in chunks of voxels.

    Parameters
    ----------
    values : ndarray of float, shape (time, voxel)
        Overwritten.
    basis : ndarray of shape (time, rank)
        Orthonormal, its first column constant (`nuisance_basis`).
    scale : {"zscore_sample", "psc", None}
        Divide by the standard deviation (ddof 1), or by the mean, times 100. None keeps units.

    Returns
    -------
    ndarray
        `values`, of mean 0. What then has no variance (or, for "psc", no mean) is 0.

    Examples
    --------
    >>> x = np.array([[1.0], [2.0], [6.0]])
    >>> project_out(x, nuisance_basis(3, 1.0, detrend=False), scale="psc").ravel().round(2).tolist()
    [-66.67, -33.33, 100.0]
    """
    rest = np.ascontiguousarray(basis[:, 1:], dtype=values.dtype)
    for start in range(0, values.shape[1], _CHUNK):
        block = values[:, start : start + _CHUNK]
        mean = block.mean(axis=0, dtype=np.float64)
        spread = np.abs(block).max(axis=0)
        block -= mean.astype(values.dtype)
        if rest.shape[1]:
            block -= rest @ (rest.T @ block)
        if scale == "zscore_sample":
            _divide(block, _sd(block), spread)
        elif scale == "psc":
            _divide(block, np.abs(mean) / 100, spread / 100)
    return values


def _sd(block: NDArray[Any]) -> Floats:
    squares = np.einsum("tv,tv->v", block, block)
    sd: Floats = np.sqrt(squares / max(len(block) - 1, 1))
    return sd


def _divide(block: NDArray[Any], by: Floats, spread: NDArray[Any]) -> None:
    """Divide by what is no rounding error of the series; the others become 0."""
    real = by > 2 * np.finfo(block.dtype).eps * spread
    factor = np.where(real, 1 / np.where(real, by, 1), 0)
    block *= factor.astype(block.dtype)


def clean_signals(
    values: NDArray[Any],
    *,
    t_r: float = 1.0,
    detrend: bool = True,
    standardize: str | bool | None = "zscore_sample",
    high_pass: float | None = None,
    low_pass: float | None = None,
    confounds: ArrayLike | None = None,
    sample_mask: ArrayLike | None = None,
    copy: bool = True,
) -> NDArray[Any]:
    """Clean series as `nilearn.signal.clean` does, in one projection.

    Equal to nilearn's for ``filter="cosine"`` (and for none) in all of these arguments, within
    single precision. `low_pass` has no peer there: it takes out the cosines above it, where
    nilearn has a Butterworth filter. And where a confound correlates above 0.9 with a cosine,
    nilearn leaves all cosines out; here the filter stays.

    Parameters
    ----------
    values : ndarray of float, shape (time, voxel)
    t_r : float
        s.
    detrend : bool
    standardize : {"zscore_sample", "psc", True, False, None}
        True is "zscore_sample".
    high_pass, low_pass : float, optional
        Hz.
    confounds : array_like or DataFrame, shape (time, n_confounds), optional
    sample_mask : array_like of int or bool, optional
        Volumes to keep.
    copy : bool
        False works in `values` itself, which then needs no second copy of it.

    Returns
    -------
    ndarray of shape (time kept, voxel)
        Without `detrend` and `standardize`, the mean stays.

    Raises
    ------
    InputError
        Where `standardize` isn't known.
    DataError
        As `nuisance_basis`.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(100, 5, (40, 3)).astype("float32")
    >>> clean_signals(x, high_pass=0.05).std(axis=0, ddof=1).round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    scale = _SCALES.get(standardize, standardize)
    if scale not in STANDARDIZE:
        raise InputError(f"standardize is {standardize!r}; expected 'zscore_sample', 'psc' or None")
    basis = nuisance_basis(
        len(values), t_r, detrend=detrend, high_pass=high_pass, low_pass=low_pass,
        confounds=confounds, sample_mask=sample_mask,
    )  # fmt: skip
    if sample_mask is not None:
        values = values[sample_indices(len(values), sample_mask)]
    elif copy or not np.issubdtype(values.dtype, np.floating):
        values = np.array(values, np.result_type(values.dtype, np.float32), order="C")
    if detrend or scale is not None:
        return project_out(values, basis, scale=scale)
    mean = values.mean(axis=0, dtype=np.float64).astype(values.dtype)
    values = project_out(values, basis)
    values += mean
    return values


def clean(bold: xr.Dataset, *, copy: bool = True, **choices: Any) -> xr.Dataset:
    """Clean a run that `fmri.read.read_bold` read.

    Parameters
    ----------
    bold : Dataset
    copy : bool
        False overwrites the values of `bold`.
    **choices
        Of `clean_signals`, without ``t_r``.

    Returns
    -------
    Dataset
        With the times that are kept; ``units`` are "z", "psc" or as before, and the steps stand in
        ``preprocessing``.
    """
    t_r, n = float(bold.attrs["t_r"]), bold.sizes["time"]
    values = clean_signals(bold["signal"].values, t_r=t_r, copy=copy, **choices)
    kept = sample_indices(n, choices.get("sample_mask"))
    scale = choices.get("standardize", "zscore_sample")
    units = {"zscore_sample": "z", True: "z", "psc": "psc"}.get(scale, bold.attrs["units"])
    step: dict[str, Any] = {
        k: choices[k] for k in ("detrend", "high_pass", "low_pass") if k in choices
    }
    confounds = choices.get("confounds")
    step |= {
        "standardize": scale, "kept": len(kept), "volumes": n,
        "confounds": 0 if confounds is None else int(np.asarray(confounds).reshape(n, -1).shape[1]),
    }  # fmt: skip
    steps = [*json.loads(bold.attrs.get("preprocessing", "[]")), {"clean": step}]
    rest = bold.drop_vars("signal").isel(time=kept)
    found = rest.assign(signal=(("time", "voxel"), values))
    return found.assign_attrs(units=units, preprocessing=json.dumps(steps))
