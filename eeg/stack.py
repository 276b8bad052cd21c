"""Conditions side by side: a trial of each condition of one subject, stacked along the channels.

What a condition adds (a difference wave) is then part of a single sample, so that one latent can
carry it. Honke et al. (2020) let their beta-VAE see neutral and pleasant trials together so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import xarray as xr


def stack_conditions(
    data: xr.Dataset, conditions: Sequence[str] | None = None, *, random_state: int = 0
) -> xr.Dataset:
    """Pair trials of the conditions at random inside each subject; stack them along channels.

    Parameters
    ----------
    data : Dataset
        Trials with ``subject`` and ``condition``.
    conditions : sequence of str, optional
        By default all, sorted.
    random_state : int
        Seed of the pairing. Every trial is used at most once; the surplus of a condition that
        has more is left out.

    Returns
    -------
    Dataset
        Channels ``"<channel> <condition>"``; as many trials of a subject as its rarest condition
        has. Coordinates are those of the first condition's trial; ``condition`` is the same for
        all. ERPs are stacked the same way (one trial of each condition).

    Raises
    ------
    InputError
        With fewer than two conditions, or one that isn't there.
    DataError
        Where no subject has all conditions.

    Warns
    -----
    UserWarning
        Naming the subjects that lack a condition; they are left out.

    Examples
    --------
    >>> from eeg.simulate import simulate_cohort
    >>> cohort = simulate_cohort(n_subjects=2, n_trials=3, channels=("Fz", "Pz"))
    >>> stacked = stack_conditions(cohort)
    >>> stacked.sizes["trial"], stacked.channel.values.tolist()
    (6, ['Fz neutral', 'Pz neutral', 'Fz pleasant', 'Pz pleasant'])
    """
    import xarray as xr

    found = data["condition"].values.astype(str)
    names = sorted(set(found)) if conditions is None else list(conditions)
    missing = [name for name in names if name not in found]
    if missing or len(names) < 2:
        raise InputError(
            f"conditions to stack are {', '.join(names)}; the trials have "
            f"{', '.join(sorted(set(found)))}, expected two of these or more"
        )
    rows = _paired(data["subject"].values.astype(str), found, names, random_state)
    first = data.isel(trial=rows[0])
    channels = [f"{channel} {name}" for name in names for channel in data["channel"].values]
    variables: dict[str, Any] = {
        str(name): (
            ("trial", "channel", "time"),
            np.concatenate([variable.values[own] for own in rows], axis=1),
        )
        for name, variable in data.data_vars.items()
        if variable.dims == ("trial", "channel", "time")
    }
    coords: dict[Any, Any] = {
        name: ("trial", coord.values)
        for name, coord in first.coords.items()
        if coord.dims == ("trial",) and name != "condition"
    }
    together = np.full(len(rows[0]), " + ".join(names))
    coords |= {"condition": ("trial", together), "channel": channels, "time": data["time"].values}
    attrs = {name: value for name, value in data.attrs.items() if name != "positions"}
    attrs["labels"] = [name for name in attrs.get("labels", []) if name != "condition"]
    return xr.Dataset(variables, coords=coords, attrs=attrs | {"stacked": names})


def _paired(
    subject: NDArray[np.str_], condition: NDArray[np.str_], names: Sequence[str], seed: int
) -> list[NDArray[np.intp]]:
    """Return rows of each condition, paired by their order."""
    rng = np.random.default_rng(seed)
    rows: list[list[NDArray[np.intp]]] = [[] for _ in names]
    lacking = []
    for who in np.unique(subject):
        own = [np.flatnonzero((subject == who) & (condition == name)) for name in names]
        n = min(len(part) for part in own)
        if n == 0:
            lacking.append(str(who))
            continue
        for part, mine in zip(own, rows, strict=True):
            mine.append(rng.permutation(part)[:n])
    if not rows[0]:
        raise DataError(f"no subject has all of the conditions {', '.join(names)}")
    if lacking:
        warnings.warn(
            f"left out, because a condition is missing: {', '.join(lacking)}", stacklevel=3
        )
    return [np.concatenate(part) for part in rows]
