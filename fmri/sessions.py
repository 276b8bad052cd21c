"""Standardise sessions, by the statistics of training trials only."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import ContractError, DataError
from neuro.standardize import Standardizer

__all__ = ["apply_sessions", "standardize_sessions"]


def _keys(data: xr.Dataset) -> NDArray[np.str_]:
    """Name the session of each trial; the same name of two subjects is two sessions."""
    session = data["session"].values.astype(str)
    if "subject" not in data.coords:
        return session
    return np.char.add(np.char.add(data["subject"].values.astype(str), "/"), session)


def standardize_sessions(
    data: xr.Dataset, train_stimuli: ArrayLike
) -> tuple[xr.Dataset, xr.Dataset]:
    """Z-score every voxel in every session by the session's training trials.

    Parameters
    ----------
    data : Dataset (trial, voxel)
        With ``session`` and ``stimulus``.
    train_stimuli : array_like of str
        Trials of other stimuli are scaled but never looked at.

    Returns
    -------
    data : Dataset
        ``units`` "z". A voxel that is constant over the training trials of a session is 0 there.
    stats : Dataset
        ``mean`` and ``sd`` (session, voxel) float32 and ``n`` (session,), the trials they are of;
        for `apply_sessions`.

    Raises
    ------
    DataError
        Where a session has fewer than two training trials.

    Examples
    --------
    >>> data = xr.Dataset({"signal": (("trial", "voxel"), [[1.0], [3.0], [9.0]])}, coords={
    ...     "session": ("trial", ["1", "1", "1"]), "stimulus": ("trial", ["a", "b", "test"])})
    >>> z, stats = standardize_sessions(data, ["a", "b"])
    >>> z.signal.values.ravel().tolist(), stats["mean"].item()
    ([-1.0, 1.0, 7.0], 2.0)
    """
    keys = _keys(data)
    train = np.isin(data["stimulus"].values.astype(str), np.asarray(train_stimuli).astype(str))
    values = data["signal"].values
    names, fitted, counts = np.unique(keys), [], []
    for name in names:
        rows = np.flatnonzero((keys == name) & train)
        if len(rows) < 2:
            raise DataError(
                f"session '{name}' has {len(rows)} training trials of {(keys == name).sum()}, too "
                "few for a z-score; split so that every session has training stimuli, or scale it "
                "with the statistics of others (apply_sessions)"
            )
        fitted.append(Standardizer.fit(values[rows]))
        counts.append(len(rows))
    stats = xr.Dataset(
        {
            "mean": (("session", "voxel"), np.stack([s.mean for s in fitted])),
            "sd": (("session", "voxel"), np.stack([s.sd for s in fitted])),
            "n": ("session", np.array(counts)),
        },
        coords={"session": names},
    )
    return apply_sessions(data, stats), stats


def apply_sessions(data: xr.Dataset, stats: xr.Dataset) -> xr.Dataset:
    """Scale trials with statistics that `standardize_sessions` returned.

    Parameters
    ----------
    data : Dataset (trial, voxel)
    stats : Dataset
        A session that it does not know gets the statistics pooled over those it knows: mean of
        the means, root mean square of the deviations.

    Returns
    -------
    Dataset
        ``pooled_sessions`` in the attributes names the sessions that weren't known.

    Raises
    ------
    ContractError
        Where the number of voxels differs.
    """
    if data.sizes["voxel"] != stats.sizes["voxel"]:
        raise ContractError(
            f"the data have {data.sizes['voxel']} voxels, the statistics "
            f"{stats.sizes['voxel']}; align them first (fmri.mask.align_voxels)"
        )
    keys, known = _keys(data), stats["session"].values.astype(str).tolist()
    values = np.array(data["signal"].values, np.float32)
    pooled = Standardizer(
        stats["mean"].values.mean(0), np.sqrt(np.square(stats["sd"].values).mean(0))
    )
    unknown = []
    for name in np.unique(keys).tolist():
        scaler = pooled
        if name in known:
            row = stats.isel(session=known.index(name))
            scaler = Standardizer(row["mean"].values, row["sd"].values)
        else:
            unknown.append(name)
        rows = keys == name
        values[rows] = scaler.transform(values[rows])
    found = data.assign(signal=(data["signal"].dims, values)).assign_attrs(units="z")
    return found.assign_attrs(pooled_sessions=unknown) if unknown else found
