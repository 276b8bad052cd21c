"""What predicts a person's ERP from single trials without an encoder: filters, ridge, averages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eeg.cohort import Cohort, Floats, Ints

CUTOFFS = (2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)
RIDGES = tuple(10.0 ** np.arange(-2.0, 4.0))  # times the mean variance of the components
N_COMPONENTS = 200


def correlate(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Correlate row by row; a constant row correlates 0 with everything.

    Parameters
    ----------
    a, b : ndarray of shape (n, d)

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> correlate(np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.0, 6.0]])).round(6).tolist()
    [1.0]
    """
    a = a - a.mean(1, keepdims=True)
    b = b - b.mean(1, keepdims=True)
    norm = np.sqrt(_inner(a, a) * _inner(b, b))
    return np.where(norm > 1e-12, _inner(a, b) / np.maximum(norm, 1e-12), 0.0)


def _inner(a: Floats, b: Floats) -> NDArray[np.float64]:
    return np.einsum("ij,ij->i", a, b).astype(np.float64)


def score(predicted: Floats, target: Floats, grand: Floats) -> NDArray[np.float64]:
    """Compute correlation, residual correlation and mean squared error, row by row.

    Parameters
    ----------
    predicted, target, grand : ndarray of shape (n, d)
        Prediction, the subject's ERP, and the training subjects' grand average, uV.

    Returns
    -------
    ndarray of shape (n, 3)
    """
    difference = predicted - target
    return np.column_stack(
        [
            correlate(predicted, target),
            correlate(predicted - grand, target - grand),
            _inner(difference, difference) / predicted.shape[1],
        ]
    )


def lowpass_matrices(cohort: Cohort) -> Iterator[tuple[float, Floats]]:
    """Yield each cutoff (Hz) below the Nyquist frequency and its filter.

    Yields
    ------
    cutoff : float
    filter : ndarray of shape (time, time)
        ``trials @ filter`` is the zero-phase Butterworth low-pass (order 4, forwards and
        backwards): filtering is linear, so filtering the unit vectors once is enough.
    """
    from scipy import signal

    n_times = len(cohort.times)
    for cutoff in CUTOFFS:
        if cutoff < 0.45 * cohort.sfreq:
            sos = signal.butter(4, cutoff, fs=cohort.sfreq, output="sos")
            padding = min(n_times - 1, round(cohort.sfreq / cutoff))
            filtered = signal.sosfiltfilt(sos, np.eye(n_times), axis=-1, padlen=padding)
            yield cutoff, filtered.astype(np.float32)


@dataclass(frozen=True)
class Components:
    """Principal components of training trials, each channel scaled by its standard deviation.

    Parameters
    ----------
    mean, scale : ndarray of shape (d,)
    axes : ndarray of shape (n_components, d)
        By falling variance.
    """

    mean: Floats
    scale: Floats
    axes: Floats

    @classmethod
    def fit(
        cls, cohort: Cohort, rows: Ints, n_components: int = N_COMPONENTS, random_state: int = 0
    ) -> Components:
        """Fit on the training `rows`; randomised, since only the first components matter."""
        from sklearn.utils.extmath import randomized_svd

        X = cohort.X[rows]
        mean = X.mean(0)
        X -= mean  # fancy indexing made a copy
        sd = X.reshape(len(X), *cohort.signal.shape[1:]).std((0, 2))
        scale = np.repeat(np.where(sd > 0, sd, 1), cohort.signal.shape[2]).astype(np.float32)
        X /= scale
        n_components = max(1, min(n_components, len(rows) - 1, X.shape[1]))
        _, _, axes = randomized_svd(X, n_components, n_iter=2, random_state=random_state)
        return cls(mean, scale, axes.astype(np.float32))

    def transform(self, X: Floats) -> Floats:
        """Scores (n, n_components) of trials (n, d)."""
        return np.matmul((X - self.mean) / self.scale, self.axes.T, dtype=np.float32)


def ridge_paths(
    scores: Floats,
    halves: tuple[Floats, Floats],
    cell: Ints,
    is_target: NDArray[np.bool_],
    ridges: tuple[float, ...] = RIDGES,
) -> Iterator[tuple[Floats, Floats]]:
    """Solve the ridge from a trial's components to the ERP of the half that it is not in.

    Parameters
    ----------
    scores : ndarray of shape (n, q)
        Components of the training trials.
    halves : tuple of ndarray of shape (n_cells, d)
        ERPs of the input half and of the target half of each cell.
    cell : ndarray of int, shape (n,)
        Cell of each trial.
    is_target : ndarray of bool, shape (n,)
        Half of each trial.
    ridges : tuple of float
        Penalties, in units of the components' mean variance.

    Yields
    ------
    intercept : ndarray of shape (d,)
    weights : ndarray of shape (q, d)
        One pair per penalty: the prediction is ``scores @ weights + intercept``.
    """
    n_cells = len(halves[0])
    # A trial's target is the other half; equal rows share it, so only sums per cell are needed.
    code = cell + n_cells * is_target
    table = np.concatenate([halves[1], halves[0]])
    used = np.isfinite(table[code, 0])
    scores, code = scores[used], code[used]
    counts = np.bincount(code, minlength=2 * n_cells).astype(np.float32)
    table = np.where(counts[:, None] > 0, table, 0)
    center = scores.mean(0)
    sums = np.zeros((2 * n_cells, scores.shape[1]), dtype=np.float32)
    np.add.at(sums, code, scores - center)
    mean = counts @ table / counts.sum()
    cross = sums.T @ (table - mean)
    values, vectors = np.linalg.eigh((scores - center).T @ (scores - center))
    rotated, level = vectors.T @ cross, float(values.mean())
    for ridge in ridges:
        weights = vectors @ (rotated / (values[:, None] + ridge * level))
        yield (mean - center @ weights).astype(np.float32), weights.astype(np.float32)
