"""GLMsingle, where it is installed, fed with masked runs and read back as single trials."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

__all__ = ["glmsingle_betas", "onset_matrix"]


def onset_matrix(
    events: pd.DataFrame,
    conditions: Sequence[str],
    n_volumes: int,
    t_r: float,
    *,
    name: str = "run",
) -> NDArray[np.float64]:
    """Mark the onsets of conditions on the volumes of a run, as GLMsingle wants them.

    Parameters
    ----------
    events : DataFrame
        ``onset`` in s, ``stimulus``.
    conditions : sequence of str
        The columns, the same for all runs.
    n_volumes : int
    t_r : float
        s.

    Returns
    -------
    ndarray of shape (n_volumes, condition)

    Raises
    ------
    DataError
        Where two trials fall on one volume, or an onset is far off all volumes.

    Examples
    --------
    >>> events = pd.DataFrame({"onset": [0.0, 2.0], "stimulus": ["b", "a"]})
    >>> onset_matrix(events, ["a", "b"], 3, 2.0).tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """
    onsets = events["onset"].to_numpy(float) / t_r
    rows = np.rint(onsets).astype(int)
    off = np.abs(onsets - rows) * t_r
    if off.max() > 0.25 * t_r:
        n = int(np.argmax(off))
        raise DataError(
            f"{name}: the onset at {onsets[n] * t_r:g} s lies {off[n]:.2f} s off the next volume; "
            f"GLMsingle takes onsets on volumes (t_r {t_r:g} s): resample the series to a finer "
            "t_r, or take method 'lss'"
        )
    if len(np.unique(rows)) < len(rows) or rows.max() >= n_volumes:
        raise DataError(
            f"{name}: two trials fall on one volume, or one after the last; GLMsingle can't part "
            "them: resample the series to a finer t_r, or take method 'lss'"
        )
    matrix = np.zeros((n_volumes, len(conditions)))
    column = {condition: n for n, condition in enumerate(conditions)}
    for row, stimulus in zip(rows, events["stimulus"].astype(str), strict=True):
        matrix[row, column[stimulus]] = 1
    return matrix


def glmsingle_betas(
    runs: Sequence[NDArray[np.float32]],
    events: Sequence[pd.DataFrame],
    t_r: float,
    *,
    sessions: Sequence[int] | None = None,
    **options: Any,
) -> list[NDArray[np.float32]]:
    """Estimate single trials of all runs with GLMsingle (type D).

    Parameters
    ----------
    runs : sequence of ndarray, shape (time, voxel)
        Masked, of the same voxels.
    events : sequence of DataFrame
        ``onset``, ``duration`` in s and ``stimulus``, in the order of onsets.
    t_r : float
        s.
    sessions : sequence of int, optional
        Session of each run, from 1.
    **options
        Of ``GLM_single``: ``wantlibrary``, ``wantglmdenoise``, ``wantfracridge``, ``fracs`` ...

    Returns
    -------
    list of ndarray of float32, shape (trial, voxel)
        For each run, percent signal change.

    Raises
    ------
    InputError
        Where GLMsingle isn't installed.
    DataError
        Where no stimulus has two trials, or onsets don't fit on volumes.
    """
    solver = _solver()
    names = np.concatenate([e["stimulus"].astype(str).to_numpy() for e in events]).astype(str)
    conditions, counts = np.unique(names, return_counts=True)
    if counts.max() < 2:
        raise DataError(
            f"GLMsingle chooses its settings by repeats, but none of the {len(conditions)} stimuli "
            "has two trials; take method 'lss', or 'ridge' with one number for fracs"
        )
    design = [
        onset_matrix(table, conditions.tolist(), len(run), t_r, name=f"run {n}")
        for n, (run, table) in enumerate(zip(runs, events, strict=True))
    ]
    chosen = {"wantfileoutputs": [0, 0, 0, 0], "wantmemoryoutputs": [0, 0, 0, 1], **options}
    if sessions is not None:
        chosen["sessionindicator"] = np.asarray(sessions, int)[None]
    duration = float(np.median(np.concatenate([e["duration"].to_numpy(float) for e in events])))
    data = [np.ascontiguousarray(run.T) for run in runs]
    # Its default folders lie in the working directory and are emptied first: never those.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        found = solver(chosen).fit(
            design, data, duration, t_r, outputdir=f"{folder}/out", figuredir=f"{folder}/figures"
        )
    return _cut(found, data[0].shape[0], [len(e) for e in events])


def _solver() -> Any:
    try:
        from glmsingle.glmsingle import GLM_single
    except ImportError as error:
        raise InputError(
            "method 'glmsingle' needs GLMsingle, which isn't installed: pip install "
            "git+https://github.com/cvnlab/GLMsingle, or take method 'ridge' or 'lss'"
        ) from error
    return GLM_single


def _cut(found: Any, n_voxels: int, counts: Sequence[int]) -> list[NDArray[np.float32]]:
    betas = np.asarray(found["typed"]["betasmd"], np.float32).reshape(n_voxels, -1)
    if betas.shape[1] != sum(counts):
        raise DataError(f"GLMsingle gave {betas.shape[1]} trials, expected {sum(counts)}")
    return [np.ascontiguousarray(part.T) for part in np.split(betas, np.cumsum(counts)[:-1], 1)]
