"""Single-trial responses: all trials in one model (LSA), each against the rest (LSS), windows.

LSS fits one model for each trial: its regressor, the sum of all other trials (or one sum for each
condition) and the nuisance. The loop is not needed. By the theorem of Frisch, Waugh and Lovell
the coefficient of a regressor is that of what is left of it when all others are taken out; for
every trial that is one row of a matrix, and the betas of all trials and voxels are one product.

References
----------
Mumford et al., "Deconvolving BOLD activation in event-related designs for multivoxel pattern
classification analyses" (2012): LSA and LSS. Turner et al., "Spatiotemporal activity estimation
for multivoxel pattern analysis with rapid event-related designs" (2012): LSS by condition.
Abdulrahman and Henson, "Effect of trial-to-trial variability on optimal event-related fMRI
design" (2016): when which is better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

__all__ = [
    "apply",
    "lsa",
    "lsa_projector",
    "lss",
    "lss_projector",
    "orthonormal",
    "window_mean",
    "without",
]

Floats = NDArray[np.float64]

_CHUNK = 8192  # voxels in a product
_SMALL = 1e-7  # of a regressor's length: less than this is none


def orthonormal(columns: Floats) -> Floats:
    """Return a basis of the columns' space."""
    from scipy.linalg import qr

    norm = np.linalg.norm(columns, axis=0)
    columns = columns[:, norm > 0] / norm[norm > 0]
    if not columns.shape[1]:
        return np.zeros((len(columns), 0))
    q, r, _ = qr(columns, mode="economic", pivoting=True)
    basis: Floats = q[:, np.abs(np.diag(r)) > 1e-10]
    return basis


def without(columns: Floats, basis: Floats) -> Floats:
    """Take a basis out, twice, so that nothing of it is left in double precision."""
    for _ in range(2):
        columns = columns - basis @ (basis.T @ columns)
    return columns


def lss_projector(
    trials: ArrayLike, nuisance: ArrayLike | None = None, conditions: ArrayLike | None = None
) -> Floats:
    """Return the matrix that makes LSS betas of a time series.

    Parameters
    ----------
    trials : array_like of shape (time, trial)
        A regressor for each trial.
    nuisance : array_like of shape (time, n), optional
        Drift, confounds and the constant.
    conditions : array_like of shape (trial,), optional
        With it, the other trials are one regressor for each condition; else one in all.

    Returns
    -------
    ndarray of shape (trial, time)
        ``betas = projector @ series``.

    Raises
    ------
    DataError
        Where nothing of a trial's regressor is left beside the others.

    Examples
    --------
    >>> lss_projector(np.eye(3)).round(3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    x = np.asarray(trials, dtype=np.float64)
    basis = orthonormal(np.asarray(nuisance, float)) if nuisance is not None else x[:, :0]
    rest = without(x, basis)
    kinds = np.zeros(x.shape[1], int) if conditions is None else _codes(conditions, x.shape[1])
    sums = rest @ (kinds[:, None] == np.arange(kinds.max() + 1))
    rows = np.empty((x.shape[1], len(x)))
    for n, kind in enumerate(kinds):
        others = sums.copy()
        others[:, kind] -= rest[:, n]
        rows[n] = without(rest[:, n : n + 1], _others_basis(others, rest))[:, 0]
    return _rows(rows, x)


def _codes(conditions: ArrayLike, n: int) -> NDArray[np.int64]:
    found = np.unique(np.asarray(conditions).astype(str), return_inverse=True)[1]
    if len(found) != n:
        raise InputError(f"{len(found)} conditions for {n} trials; give one for each")
    return np.asarray(found, dtype=np.int64)


def _others_basis(others: Floats, rest: Floats) -> Floats:
    """Return a basis of the other trials; what remains of a lone trial's sum is rounding."""
    norm = np.linalg.norm(others, axis=0)
    return orthonormal(others[:, norm > 1e-10 * np.linalg.norm(rest)])


def _rows(rows: Floats, x: Floats) -> Floats:
    """Scale what is left of each regressor so that it gives coefficients."""
    squares = (rows**2).sum(1)
    lost = squares <= _SMALL**2 * max(float((x**2).sum(0).max()), 1e-300)
    if lost.any():
        n = int(np.argmax(lost))
        raise DataError(
            f"trial {n} (of {int(lost.sum())} such) can't be told from the other trials and the "
            "nuisance: two trials at one onset, an onset at the very end of the run, or scrubbed "
            "volumes; drop it, or lower the number of confounds"
        )
    return rows / squares[:, None]


def lsa_projector(trials: ArrayLike, nuisance: ArrayLike | None = None) -> Floats:
    """Return the matrix that makes LSA betas of a time series: all trials in one model.

    Parameters
    ----------
    trials : array_like of shape (time, trial)
    nuisance : array_like of shape (time, n), optional

    Returns
    -------
    ndarray of shape (trial, time)

    Raises
    ------
    DataError
        Where the regressors depend on one another.

    Examples
    --------
    >>> (lsa_projector([[1.0, 1.0], [0.0, 1.0]]) @ [5.0, 2.0]).round(3).tolist()
    [3.0, 2.0]
    """
    x = np.asarray(trials, dtype=np.float64)
    basis = orthonormal(np.asarray(nuisance, float)) if nuisance is not None else x[:, :0]
    rest = without(x, basis)
    left, size, right = np.linalg.svd(rest, full_matrices=False)
    if x.shape[1] > len(x) or size[-1] <= _SMALL * size[0]:
        raise DataError(
            f"the regressors of {x.shape[1]} trials in {len(x)} volumes depend on one another "
            f"({basis.shape[1]} of nuisance): one model can't part them; use LSS or ridge"
        )
    projector: Floats = (right.T / size) @ left.T
    return projector


def apply(projector: Floats, series: NDArray[Any], *, centred: bool = True) -> NDArray[Any]:
    """Multiply in chunks of voxels, in the precision of the series.

    Parameters
    ----------
    projector : ndarray of shape (trial, time)
    series : ndarray of float, shape (time, voxel)
    centred : bool
        Take the mean off first: exact where the nuisance has a constant, and it keeps the digits
        of single precision.

    Returns
    -------
    ndarray of shape (trial, voxel)
    """
    series = series if np.issubdtype(series.dtype, np.floating) else series.astype(np.float32)
    matrix = np.ascontiguousarray(projector, dtype=series.dtype)
    out = np.empty((len(matrix), series.shape[1]), series.dtype)
    for start in range(0, series.shape[1], _CHUNK):
        block = series[:, start : start + _CHUNK]
        if centred:
            block = block - block.mean(axis=0, dtype=np.float64).astype(series.dtype)
        np.matmul(matrix, block, out=out[:, start : start + _CHUNK])
    return out


def _has_constant(nuisance: ArrayLike | None, n: int) -> bool:
    if nuisance is None:
        return False
    basis = orthonormal(np.asarray(nuisance, float))
    one = np.full(n, n**-0.5)
    return bool(np.linalg.norm(one - basis @ (basis.T @ one)) < 1e-9)


def lss(
    series: NDArray[Any],
    trials: ArrayLike,
    nuisance: ArrayLike | None = None,
    conditions: ArrayLike | None = None,
) -> NDArray[Any]:
    """Estimate each trial against the sum of all others, in closed form.

    Equal to one ordinary least squares model for each trial, as in nilearn's examples, to 1e-10
    in double precision.

    Parameters
    ----------
    series : ndarray of shape (time, voxel)
        float64 stays so, all else is float32.
    trials, nuisance, conditions
        Of `lss_projector`.

    Returns
    -------
    ndarray of shape (trial, voxel)

    Raises
    ------
    DataError
        As `lss_projector`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, drift = rng.standard_normal((60, 4)), np.ones((60, 1))
    >>> lss(x @ np.eye(4)[:, :2], x, drift).shape
    (4, 2)
    """
    projector = lss_projector(trials, nuisance, conditions)
    return apply(projector, series, centred=_has_constant(nuisance, len(series)))


def lsa(series: NDArray[Any], trials: ArrayLike, nuisance: ArrayLike | None = None) -> NDArray[Any]:
    """Estimate all trials in one model.

    Parameters
    ----------
    series : ndarray of shape (time, voxel)
    trials, nuisance
        Of `lsa_projector`.

    Returns
    -------
    ndarray of shape (trial, voxel)

    Raises
    ------
    DataError
        As `lsa_projector`.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((30, 4))
    >>> lsa(x @ np.eye(4), x).round(6).diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    projector = lsa_projector(trials, nuisance)
    return apply(projector, series, centred=_has_constant(nuisance, len(series)))


def window_mean(
    series: NDArray[Any],
    times: Floats,
    events: pd.DataFrame,
    *,
    tmin: float,
    tmax: float,
    until: str = "onset",
) -> NDArray[Any]:
    """Average the volumes of a window after each onset.

    Parameters
    ----------
    series : ndarray of shape (time, voxel)
    times : ndarray of shape (time,)
        Of the volumes, s.
    events : DataFrame
        ``onset`` and ``duration``, s.
    tmin, tmax : float
        From onset + `tmin` (included) to `until` + `tmax` (not included), s.
    until : {"onset", "offset"}
        The end of the window is counted from the onset or the end of the event.

    Returns
    -------
    ndarray of shape (trial, voxel)

    Raises
    ------
    InputError
        Where `until` isn't known.
    DataError
        Where no volume lies in a window.

    Examples
    --------
    >>> events = pd.DataFrame({"onset": [0.0], "duration": [4.0]})
    >>> window_mean(np.arange(8.0)[:, None], np.arange(8.0), events, tmin=2, tmax=1,
    ...             until="offset").tolist()
    [[3.0]]
    """
    if until not in ("onset", "offset"):
        raise InputError(f"until is '{until}'; expected 'onset' or 'offset'")
    start = events["onset"].to_numpy(float) + tmin
    end = events["onset"].to_numpy(float) + tmax
    if until == "offset":
        end = end + events["duration"].to_numpy(float)
    # A microsecond of tolerance: onset + duration is seldom exact in binary.
    inside = (times >= start[:, None] - 1e-6) & (times < end[:, None] - 1e-6)
    counts = inside.sum(axis=1)
    if not counts.all():
        n = int(np.argmin(counts))
        raise DataError(
            f"the event at {events['onset'].iloc[n]:g} s has no volume between {start[n]:g} and "
            f"{end[n]:g} s (the run ends at {times[-1]:g} s; scrubbed volumes don't count); "
            f"{int((counts == 0).sum())} of {len(events)} have none. Widen the window or drop them"
        )
    return apply(inside / counts[:, None], series, centred=False)
