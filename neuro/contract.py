"""What new data must look like for an encoder, and how data that differs is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import ContractError, DataError


@dataclass
class Contract:
    """Axes, units, rate and preprocessing of the data an encoder was fitted on.

    What was not known at fit (a plain array has no channel names) is None and not compared,
    nor is what new data doesn't tell.

    Attributes
    ----------
    dims : tuple of str
        ``("trial", "channel", "time")`` or the like.
    shape : tuple of int
        Of one trial.
    channels : list of str or None
        Names along the second axis.
    times : list of float or None
        Seconds along the last axis of three.
    units : str or None
    sfreq : float or None
        Hz.
    steps : object
        The replayable preprocessing steps (JSON), or None.

    Examples
    --------
    >>> import xarray as xr
    >>> X = xr.DataArray([[1.0, 2.0]], dims=("trial", "channel"), coords={"channel": ["Fz", "Cz"]})
    >>> contract = Contract.of(X)
    >>> contract.match(X[:, ::-1]).channel.values.tolist()
    ['Fz', 'Cz']
    >>> contract.match(X[:, :1])
    Traceback (most recent call last):
    neuro.errors.ContractError: channels missing: Cz; found Fz, expected Fz, Cz
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    channels: list[str] | None = None
    times: list[float] | None = None
    units: str | None = None
    sfreq: float | None = None
    steps: Any = None

    @classmethod
    def of(cls, X: xr.DataArray) -> Contract:
        """Read the contract off training data, dims first ``trial``."""
        return cls(
            dims=tuple(map(str, X.dims)),
            shape=X.shape[1:],
            channels=_channels(X),
            times=_times(X),
            units=X.attrs.get("units"),
            sfreq=X.attrs.get("sfreq"),
            steps=_steps(X),
        )

    def match(self, X: xr.DataArray, *, align: bool = False) -> xr.DataArray:
        """Return new data with the channels in the order of the training data.

        Parameters
        ----------
        X : DataArray
            Dims as in training.
        align : bool
            Drop channels that the encoder doesn't know, instead of refusing them.

        Raises
        ------
        ContractError
            Where something differs; both sides are in the message.
        """
        if tuple(map(str, X.dims)) != self.dims:
            raise ContractError(f"the dims are {tuple(X.dims)}, expected {self.dims}")
        self._check_value("units", X.attrs.get("units"), "convert the data first")
        self._check_value("sfreq", X.attrs.get("sfreq"), "resample the recording first", "Hz")
        X = self._by_name(X, align)
        self._check_times(X)
        self._check_steps(X)
        if X.shape[1:] != self.shape:
            raise ContractError(
                f"a trial has the shape {X.shape[1:]}, expected {self.shape} "
                f"({', '.join(self.dims[1:])})"
            )
        return X

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "dims": list(self.dims),
            "shape": list(self.shape),
            "channels": self.channels,
            "times": self.times,
            "units": self.units,
            "sfreq": self.sfreq,
            "steps": self.steps,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Contract:
        """Rebuild from `to_dict`; further entries are left alone."""
        known = {name: stored[name] for name in cls.__dataclass_fields__}
        known["dims"], known["shape"] = tuple(stored["dims"]), tuple(stored["shape"])
        return cls(**known)

    def _check_value(self, name: str, found: Any, advice: str, unit: str = "") -> None:
        expected = getattr(self, name)
        if found is None or expected is None:
            return
        same = np.isclose(found, expected, rtol=1e-6) if unit else found == expected
        if not same:
            raise ContractError(
                f"{name} is {found}{unit and ' ' + unit}, expected {expected}"
                f"{unit and ' ' + unit}; {advice}"
            )

    def _by_name(self, X: xr.DataArray, align: bool) -> xr.DataArray:
        found = _channels(X)
        if found is None or self.channels is None:
            return X
        if len(set(found)) != len(found):
            raise ContractError(f"channels named twice: {_twice(found)}")
        dim = self.dims[1]
        missing = [name for name in self.channels if name not in set(found)]
        extra = [name for name in found if name not in set(self.channels)]
        sides = f"found {_listed(found)}, expected {_listed(self.channels)}"
        if missing:
            raise ContractError(f"{dim}s missing: {_listed(missing)}; {sides}")
        if extra and not align:
            raise ContractError(
                f"{dim}s the encoder doesn't know: {_listed(extra)}; {sides}; align=True drops them"
            )
        return X if found == self.channels else X.sel({dim: self.channels})

    def _check_times(self, X: xr.DataArray) -> None:
        found = _times(X)
        if found is None or self.times is None:
            return
        # A hundredth of a sample: rounding in file formats is no other window.
        step = (self.times[-1] - self.times[0]) / max(len(self.times) - 1, 1)
        if len(found) != len(self.times) or not np.allclose(
            found, self.times, rtol=0, atol=max(abs(step), 1e-9) / 100
        ):
            raise ContractError(
                f"the time axis is {_span(found)}, expected {_span(self.times)}; cut and "
                "resample the epochs to the same window"
            )

    def _check_steps(self, X: xr.DataArray) -> None:
        found = _steps(X)
        if found is None or self.steps is None or found == self.steps:
            return
        raise ContractError(
            f"the data was preprocessed in another way: {_difference(found, self.steps)}; "
            "decode the raw recordings, or preprocess them with the same parameters"
        )


def label_axes(X: NDArray[Any], dims: tuple[str, ...]) -> xr.DataArray:
    """Name the axes of a plain array; ``(trial, time)`` becomes one channel."""
    if X.ndim == len(dims) - 1:
        X = X[:, None]
    if X.ndim != len(dims):
        raise ContractError(
            f"the array has {X.ndim} axes {X.shape}, expected {len(dims)}: {', '.join(dims)}"
        )
    return xr.DataArray(X, dims=dims)


def _channels(X: xr.DataArray) -> list[str] | None:
    if X.ndim < 2 or X.dims[1] not in X.coords or X[X.dims[1]].dtype.kind not in "UOT":
        return None
    return [str(name) for name in X[X.dims[1]].values]


def _times(X: xr.DataArray) -> list[float] | None:
    if X.ndim < 3 or X.dims[-1] not in X.coords or X[X.dims[-1]].dtype.kind not in "fiu":
        return None
    return [float(t) for t in X[X.dims[-1]].values]


def _steps(X: xr.DataArray) -> Any:
    stored = X.attrs.get("preprocessing")
    if not isinstance(stored, str):
        return stored
    try:
        return json.loads(stored)
    except ValueError as error:
        raise DataError(f"attribute 'preprocessing' is no JSON: {stored[:80]!r}") from error


def refuse_duplicates(X: xr.DataArray) -> None:
    """Refuse training data in which two channels bear one name."""
    names = _channels(X)
    if names and len(set(names)) != len(names):
        raise DataError(f"channels named twice: {_twice(names)}; rename or drop one of each")


def _twice(names: list[str]) -> str:
    return _listed(sorted({name for name in names if names.count(name) > 1}))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:70])
    return f"{shown} ... ({len(names)})" if len(names) > 70 else shown


def _span(times: list[float]) -> str:
    if not times:
        return "empty"
    return f"{times[0]:g} to {times[-1]:g} s in {len(times)} samples"


def _difference(found: Any, expected: Any) -> str:
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return f"found {json.dumps(found)[:200]}, expected {json.dumps(expected)[:200]}"
    keys = [k for k in {**expected, **found} if found.get(k) != expected.get(k)]
    return "; ".join(
        f"{k} is {json.dumps(found.get(k))[:120]}, expected {json.dumps(expected.get(k))[:120]}"
        for k in keys[:8]
    )
