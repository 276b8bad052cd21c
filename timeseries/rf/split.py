"""Who is trained on and who is tested: devices known or not, captures (or times) apart.

Bursts of one capture share receiver, place and minute; they are never split between training and
test. Where a device was captured once only, its capture is cut in time, with a guard between the
parts, and the dataset says that device and session are confounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

__all__ = ["split_bursts"]


def split_bursts(
    data: xr.Dataset,
    *,
    by: str = "capture",
    n_unknown: int = 0,
    n_validation: int = 0,
    test_size: float = 0.3,
    enrol_size: float = 0.2,
    guard: float = 0.0,
    random_state: int = 0,
) -> xr.Dataset:
    """Say of every burst what it serves for.

    Parameters
    ----------
    data : Dataset
        Bursts with ``device``, and ``capture`` or ``start``.
    by : {"capture", "time"}
        Whole captures go to one part; or the first stretch of each capture to training, the last
        to the test.
    n_unknown, n_validation : int
        Devices held out of training for open-set tests, and to set thresholds on; drawn by the
        seed.
    test_size, enrol_size : float
        Shares of a device's captures (of its time) for test and enrolment; at least one capture.
    guard : float
        With ``time``: so many seconds between parts are left out.
    random_state : int

    Returns
    -------
    Dataset
        With ``part`` (train, enrol, test), ``group``, ``unseen`` and ``later`` (False), and
        ``confounded`` in the attributes where each device has one capture.

    Raises
    ------
    DataError
        Where a device has too few captures to be split; it is named.
    InputError
        Where too few devices are left to train on.
    """
    if "part" in data.coords:
        return data
    if by not in ("capture", "time"):
        raise InputError(f"by is {by!r}; expected capture or time")
    device = data["device"].values.astype(str)
    names = np.unique(device)
    if len(names) - n_unknown - n_validation < 2:
        raise InputError(
            f"{len(names)} devices less {n_unknown} unknown and {n_validation} validation ones "
            "leave fewer than two to train on"
        )
    order = np.random.default_rng(random_state).permutation(names)
    unknown, validation = order[:n_unknown], order[n_unknown : n_unknown + n_validation]
    group = np.where(
        np.isin(device, unknown), "unknown", np.where(np.isin(device, validation), "validation",
                                                      "known"),
    )  # fmt: skip
    cut = _by_capture if by == "capture" else _by_time
    part = cut(data, device, group, test_size, enrol_size, guard, random_state)
    n = len(device)
    flags: dict[str, Any] = {name: ("trial", np.zeros(n, bool)) for name in ("unseen", "later")}
    found = data.assign_coords({"part": ("trial", part), "group": ("trial", group), **flags})
    captures = data["capture"].values.astype(str)
    single = all(len(np.unique(captures[device == name])) == 1 for name in names)
    found = found.assign_attrs(confounded=int(single))
    return found.isel(trial=np.flatnonzero(part != ""))


def _by_capture(
    data: xr.Dataset, device: Any, group: Any, test: float, enrol: float, guard: float, seed: int
) -> NDArray[np.str_]:
    capture = data["capture"].values.astype(str)
    rng = np.random.default_rng([seed, 1])
    part = np.full(len(device), "train", dtype="<U5")
    for name in np.unique(device):
        own = np.unique(capture[device == name])
        known = group[device == name][0] == "known"
        least = 3 if known else 2
        if len(own) < least:
            raise DataError(
                f"device '{name}' has {len(own)} captures; {least} are needed to split them into "
                f"{'training, ' if known else ''}enrolment and test: leave it out, or split by time"
            )
        own = rng.permutation(own)
        n_enrol = max(1, round(enrol * len(own)))
        n_test = max(1, round(test * len(own))) if known else len(own) - n_enrol
        n_enrol = min(n_enrol, len(own) - n_test - (1 if known else 0))
        for label, chosen in (
            ("test", own[:n_test]), ("enrol", own[n_test : n_test + n_enrol]),
        ):  # fmt: skip
            part[(device == name) & np.isin(capture, chosen)] = label
    return part


def _by_time(
    data: xr.Dataset, device: Any, group: Any, test: float, enrol: float, guard: float, seed: int
) -> NDArray[np.str_]:
    if "start" not in data.coords:
        raise DataError("bursts have no coordinate 'start'; a split by time needs it")
    capture, start = data["capture"].values.astype(str), data["start"].values
    rate = float(data.attrs.get("capture_sfreq", data.attrs["sfreq"]))
    part = np.full(len(device), "", dtype="<U5")
    for name in np.unique(capture):
        own = np.flatnonzero(capture == name)
        seconds = start[own] / rate
        whole = seconds.max() - seconds.min()
        known = group[own[0]] == "known"
        ends = (1 - test - enrol, 1 - test) if known else (0.0, enrol)
        place = seconds - seconds.min()
        part[own[place < ends[0] * whole]] = "train"
        inner = (place >= ends[0] * whole + (guard if known else 0)) & (place < ends[1] * whole)
        part[own[inner]] = "enrol"
        part[own[place >= ends[1] * whole + guard]] = "test"
        found = set(part[own])
        missing = [
            p for p in ("train", "enrol", "test") if p not in found and (known or p != "train")
        ]
        if missing:
            raise DataError(
                f"capture '{name}' of {whole:.3g} s leaves no burst for {', '.join(missing)} with "
                f"a guard of {guard:g} s"
            )
    return part
