"""Event-related potentials: averages per subject and condition, and what is read off them.

Everything is vectorised over trials. Datasets in, datasets out; units stay uV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import xarray as xr

Windows = Mapping[str, tuple[float, float]]

WINDOWS: Windows = {
    "n1": (0.13, 0.20),
    "p2": (0.20, 0.26),
    "n2": (0.22, 0.30),
    "p3": (0.30, 0.50),
    "lpp": (0.40, 0.80),
}
"""Usual windows of the visual components, s after stimulus onset."""


def erps(data: xr.Dataset, windows: Windows | None = None) -> xr.Dataset:
    """Average the trials of every subject and condition.

    Parameters
    ----------
    data : xarray.Dataset
        ``signal`` (trial, channel, time), with ``subject`` and ``condition``.
    windows : mapping of str to (float, float), optional
        Windows of the standardised measurement error, s.

    Returns
    -------
    xarray.Dataset
        One ``trial`` per subject and condition, in sorted order: ``signal``, float32; ``sme``
        (trial, window, channel), see `measurement_error`; the coordinates ``subject``,
        ``condition``, ``n_trials``, and every label that does not vary within a subject and
        condition.

    Raises
    ------
    DataError
        Where there is no trial.
    """
    import xarray as xr

    cell, first = _cells(data)
    signal = _group_means(data["signal"].values, cell, len(first))
    kept = {
        name: ("trial", coord.values[first])
        for name, coord in data.coords.items()
        if coord.dims == ("trial",) and _constant(coord.values, cell, first)
    }
    sme = measurement_error(data, windows)
    attrs = {k: v for k, v in data.attrs.items() if k != "item"}
    attrs["labels"] = [name for name in attrs.get("labels", []) if name in kept]
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal), "sme": sme},
        coords={
            "channel": data["channel"].values,
            "time": data["time"].values,
            **kept,
            "n_trials": ("trial", np.bincount(cell)),
        },
        attrs=attrs,
    )


def grand_average(averages: xr.Dataset) -> xr.Dataset:
    """Average ERPs over subjects, each subject counting once.

    Parameters
    ----------
    averages : xarray.Dataset
        From `erps` (or `difference`).

    Returns
    -------
    xarray.Dataset
        One ``trial`` per condition, with ``sem``, the standard error over subjects (NaN where
        there is one), and the coordinate ``n_subjects``.
    """
    import xarray as xr

    names, code = np.unique(averages["condition"].values, return_inverse=True)
    values = averages["signal"].values
    n = np.bincount(code)
    mean = _group_means(values, code, len(names))
    square = _group_means((values - mean[code]) ** 2, code, len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        sem = np.sqrt(square / (n - 1)[:, None, None]).astype(np.float32)
    dims = ("trial", "channel", "time")
    return xr.Dataset(
        {"signal": (dims, mean), "sem": (dims, sem)},
        coords={
            "channel": averages["channel"].values,
            "time": averages["time"].values,
            "condition": ("trial", names),
            "n_subjects": ("trial", n),
        },
        attrs={k: v for k, v in averages.attrs.items() if k not in ("item", "labels")},
    )


def difference(averages: xr.Dataset, condition: str, minus: str) -> xr.Dataset:
    """Subtract one condition's ERP from another's, subject by subject.

    Parameters
    ----------
    averages : xarray.Dataset
        From `erps`.
    condition, minus : str
        The difference wave is `condition` minus `minus`.

    Returns
    -------
    xarray.Dataset
        One ``trial`` per subject that has both, with the condition ``"a - b"``.

    Raises
    ------
    InputError
        Where a condition is not there; those that are there are listed.
    DataError
        Where no subject has both.
    """
    conditions, subjects = averages["condition"].values, averages["subject"].values
    for name in (condition, minus):
        if name not in conditions:
            there = ", ".join(map(str, np.unique(conditions)))
            raise InputError(f"no condition '{name}'; conditions there: {there}")
    at = [
        {subject: row for row, subject in enumerate(subjects) if conditions[row] == name}
        for name in (condition, minus)
    ]
    both = [subject for subject in at[0] if subject in at[1]]
    if not both:
        raise DataError(f"no subject has trials of both '{condition}' and '{minus}'")
    left = averages.isel(trial=[at[0][s] for s in both])
    right = averages.isel(trial=[at[1][s] for s in both])
    wave = left.drop_vars(["n_trials", "sme"], errors="ignore")
    wave["signal"] = left["signal"].copy(data=left["signal"].values - right["signal"].values)
    return wave.assign_coords(condition=("trial", [f"{condition} - {minus}"] * len(both)))


def bootstrap_averages(
    data: xr.Dataset, k: int, n: int = 1, *, random_state: int = 0
) -> xr.Dataset:
    """Average `k` random trials of one subject and condition, `n` times for each of them.

    Parameters
    ----------
    data : xarray.Dataset
        Single trials.
    k : int
        Trials per average, drawn without replacement; all of them where there are fewer.
    n : int
        Averages per subject and condition.
    random_state : int
        Seed.

    Returns
    -------
    xarray.Dataset
        ``signal`` (trial, channel, time), float32, with ``subject``, ``condition`` and
        ``n_trials``, the number of trials in each average.
    """
    import xarray as xr

    if k < 1 or n < 1:
        raise InputError(f"k and n must be at least 1, found k={k}, n={n}")
    cell, first = _cells(data)
    rows, group, sizes = _draws(cell, len(first), k, n, np.random.default_rng(random_state))
    signal = _group_means(data["signal"].values[rows], group, n * len(first))
    source = np.repeat(first, n)
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": data["channel"].values,
            "time": data["time"].values,
            "subject": ("trial", data["subject"].values[source]),
            "condition": ("trial", data["condition"].values[source]),
            "n_trials": ("trial", sizes),
        },
        attrs={k: v for k, v in data.attrs.items() if k not in ("item", "labels")},
    )


def window_features(
    signal: xr.DataArray,
    windows: Windows | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> xr.DataArray:
    """Mean amplitude in each component's window.

    Parameters
    ----------
    signal : xarray.DataArray
        (trial, channel, time), trials or ERPs.
    windows : mapping of str to (float, float), optional
        Start and end in s, both included. By default `WINDOWS`, clipped to the epoch; one that
        lies outside is left out.
    groups : mapping of str to sequence of str, optional
        Channels to average, by name; by default every channel stands for itself.

    Returns
    -------
    xarray.DataArray
        (trial, window, channel) in the units of `signal`; with `groups`, ``channel`` holds their
        names.

    Raises
    ------
    InputError
        Where a window that was asked for lies outside the epoch, or a channel is not there.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> signal = xr.DataArray(np.arange(10.0)[None, None], dims=("trial", "channel", "time"),
    ...                       coords={"channel": ["Pz"], "time": np.arange(10) / 10})
    >>> round(window_features(signal, {"p3": (0.3, 0.5)}).item(), 6)
    4.0
    """
    import xarray as xr

    chosen = _clipped(windows, signal["time"].values)
    weights = np.stack([mask / mask.sum() for mask in chosen.values()], axis=1)
    values = signal.values @ weights.astype(signal.dtype)  # (trial, channel, window)
    names = [str(name) for name in signal["channel"].values]
    if groups is not None:
        values = np.einsum("gc,tcw->tgw", _membership(groups, names), values)
        names = list(groups)
    coords: dict[Any, Any] = {
        name: coord for name, coord in signal.coords.items() if coord.dims == ("trial",)
    }
    return xr.DataArray(
        values.transpose(0, 2, 1),
        dims=("trial", "window", "channel"),
        coords=coords | {"window": list(chosen), "channel": names},
        attrs={"units": signal.attrs.get("units", "uV")},
    )


def measurement_error(data: xr.Dataset, windows: Windows | None = None) -> xr.DataArray:
    """Return the standardised measurement error of each ERP's window amplitudes.

    The standard error of the mean over the trials of a subject and condition of their mean
    amplitude in a window (Luck et al. 2021, Psychophysiology 58:e13793, analytic SME).

    Parameters
    ----------
    data : xarray.Dataset
        Single trials.
    windows : mapping, optional
        As in `window_features`.

    Returns
    -------
    xarray.DataArray
        (trial, window, channel) in uV, one ``trial`` per subject and condition; NaN where it has
        a single trial.
    """
    cell, first = _cells(data)
    features = window_features(data["signal"], windows)
    values = features.values
    n = np.bincount(cell)[:, None, None]
    centred = (values - _group_means(values, cell, len(first))[cell]) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(_group_means(centred, cell, len(first)) / (n - 1))
    plain = features.drop_vars([k for k, v in features.coords.items() if v.dims == ("trial",)])
    return plain.isel(trial=first).copy(data=error)


def _cells(data: xr.Dataset) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the subject-condition pairs, sorted; return each trial's, and each pair's first."""
    if not data.sizes["trial"]:
        raise DataError("there is no trial to average; the quality figures tell what was dropped")
    _, subject = np.unique(data["subject"].values, return_inverse=True)
    _, condition = np.unique(data["condition"].values, return_inverse=True)
    pair = subject * (condition.max() + 1) + condition
    _, first, cell = np.unique(pair, return_index=True, return_inverse=True)
    return cell, first


def _group_means(
    values: NDArray[Any], group: NDArray[np.intp], n_groups: int
) -> NDArray[np.float32]:
    """Mean of the rows of each group (none empty), summed in float64."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(n_groups))
    sums = np.add.reduceat(values[order], starts, axis=0, dtype=np.float64)
    counts = np.bincount(group, minlength=n_groups).reshape(-1, *[1] * (values.ndim - 1))
    return (sums / counts).astype(np.float32)


def _draws(
    cell: NDArray[np.intp], n_cells: int, k: int, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Rows to average, the average each belongs to, and the size of every average."""
    rows, sizes = [], []
    for number in range(n_cells):
        members = np.flatnonzero(cell == number)
        size = min(k, len(members))
        ranks = rng.random((n, len(members))).argsort(axis=1)[:, :size]
        rows.append(members[ranks].ravel())
        sizes.append(np.full(n, size))
    lengths = np.concatenate(sizes)
    return np.concatenate(rows), np.repeat(np.arange(len(lengths)), lengths), lengths


def _constant(values: NDArray[Any], cell: NDArray[np.intp], first: NDArray[np.intp]) -> bool:
    expected = values[first][cell]
    same = values == expected
    if values.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(expected)
    return bool(same.all())


def _clipped(windows: Windows | None, times: NDArray[np.floating]) -> dict[str, NDArray[Any]]:
    slack = 1e-9
    masks = {
        name: (times >= start - slack) & (times <= stop + slack)
        for name, (start, stop) in (windows or WINDOWS).items()
    }
    empty = [name for name, mask in masks.items() if not mask.any()]
    if len(empty) == len(masks) or (windows and empty):
        raise InputError(
            f"the windows {', '.join(empty)} hold no sample of the epoch from {times[0]:g} to "
            f"{times[-1]:g} s; give windows inside it"
        )
    return {name: mask for name, mask in masks.items() if mask.any()}


def _membership(groups: Mapping[str, Sequence[str]], names: list[str]) -> NDArray[np.float32]:
    weights = np.zeros((len(groups), len(names)), np.float32)
    for row, (group, members) in enumerate(groups.items()):
        missing = [name for name in members if name not in names]
        if missing or not members:
            raise InputError(
                f"the group '{group}' names {', '.join(missing) or 'no channel'}; channels there: "
                f"{', '.join(names)}"
            )
        weights[row, [names.index(name) for name in members]] = 1 / len(members)
    return weights
