"""Single-trial betas by fractional ridge regression, the fraction chosen from repeats.

References
----------
Rokem and Kay, "Fractional ridge regression: a fast, interpretable reparameterization of ridge
regression" (2020). Prince et al., "Improving the accuracy of single-trial fMRI response estimates
using GLMsingle" (2022): one fraction for each voxel, by cross-validation over repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmri.design import Design
from fmri.glm import orthonormal, without
from neuro.errors import DataError, InputError

__all__ = ["choose_fraction", "ridge"]

Floats = NDArray[np.float64]

_CHUNK = 4096  # voxels


def ridge(series: NDArray[Any], design: Design, fracs: Sequence[float]) -> NDArray[np.float32]:
    """Estimate all trials of a run in one model whose betas are shrunk.

    Parameters
    ----------
    series : ndarray of shape (time, voxel)
        The volumes that the design keeps.
    design : Design
        Its nuisance is taken out before and not shrunk.
    fracs : sequence of float
        Lengths of the vector of betas as shares of the one without shrinkage, in (0, 1].

    Returns
    -------
    ndarray of float32, shape (fraction, trial, voxel)

    Raises
    ------
    InputError
        Where a fraction is outside of (0, 1], or fracridge isn't installed.
    """
    wanted = np.asarray(fracs, float)
    if not len(wanted) or wanted.min() <= 0 or wanted.max() > 1:
        raise InputError(f"fracs are {list(fracs)}; expected shares above 0, at most 1")
    fit = _fracridge()
    order = np.argsort(wanted)
    basis = orthonormal(design.nuisance)
    x = without(design.trials, basis)
    out = np.empty((len(wanted), x.shape[1], series.shape[1]), np.float32)
    for start in range(0, series.shape[1], _CHUNK):
        y = without(series[:, start : start + _CHUNK].astype(np.float64), basis)
        found = fit(x, y, fracs=wanted[order], jit=False)[0]
        found = np.reshape(found, (x.shape[1], len(wanted), y.shape[1]))
        out[order, :, start : start + _CHUNK] = found.transpose(1, 0, 2)
    return out


def _fracridge() -> Any:
    try:
        from fracridge import fracridge
    except ImportError as error:
        raise InputError(
            "method 'ridge' needs fracridge, which isn't installed: pip install fracridge, or take "
            "method 'lss' or 'lsa'"
        ) from error
    return fracridge


def choose_fraction(
    shrunk: NDArray[np.float32], plain: NDArray[np.float32], stimulus: ArrayLike, train: ArrayLike
) -> NDArray[np.int64]:
    """Choose for each voxel the fraction that best predicts other trials of the same stimulus.

    The error of a fraction is the squared distance of a trial's shrunk beta from the unshrunk
    betas of the stimulus's other trials, summed over training trials.

    Parameters
    ----------
    shrunk : ndarray of shape (fraction, trial, voxel)
    plain : ndarray of shape (trial, voxel)
        Without shrinkage.
    stimulus : array_like of str, shape (trial,)
    train : array_like of bool, shape (trial,)
        Trials that may be looked at.

    Returns
    -------
    ndarray of int, shape (voxel,)

    Raises
    ------
    DataError
        Where no training stimulus has two trials.

    Examples
    --------
    >>> plain = np.array([[1.0], [-1.0]])  # noise only: the smallest fraction is best
    >>> choose_fraction(np.stack([plain / 10, plain]), plain, ["a", "a"], [True, True]).tolist()
    [0]
    """
    use = np.asarray(train, bool)
    names, unit, count = np.unique(
        np.asarray(stimulus).astype(str)[use], return_inverse=True, return_counts=True
    )
    if not len(names) or count.max() < 2:
        raise DataError(
            f"the fraction of the ridge is chosen by repeats, but none of the {len(names)} "
            "training stimuli has two trials; give one number for fracs, or take method 'lss'"
        )
    rows = np.flatnonzero(use)[count[unit] > 1]
    unit = unit[count[unit] > 1]
    held = plain[rows].astype(np.float64)
    sums, squares = (_grouped(v, unit, len(names)) for v in (held, held**2))
    others, weight = sums[unit] - held, (count[unit] - 1)[:, None]
    errors = []
    for one in shrunk:
        b = one[rows].astype(np.float64)
        errors.append((weight * b**2 - 2 * b * others + squares[unit] - held**2).sum(0))
    return np.argmin(errors, axis=0)


def _grouped(values: Floats, unit: NDArray[np.int64], n: int) -> Floats:
    out = np.zeros((n, values.shape[1]))
    np.add.at(out, unit, values)
    return out
