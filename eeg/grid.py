"""Decoded signals as they travel with an interactive figure: few bytes, sensors laid flat."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from eeg.draw import Floats, head_sphere, positions_of
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import xarray as xr

    from eeg.beta_vae import BetaVAE

MAX_CHARACTERS = 1_000_000  # of the signals in base64


@dataclass
class Grid:
    """Decoded signals as 16-bit numbers, with what is needed to draw them."""

    text: str  # base64 of int16, little-endian, (sensor, state, layer, time)
    shape: tuple[int, ...]
    scale: list[float]  # uV per step, by sensor
    names: list[str]
    places: list[list[float]] | None
    times: list[float]
    axis: str
    note: str

    @classmethod
    def of(
        cls,
        encoder: BetaVAE,
        decoded: xr.DataArray,
        signals: Floats,
        sensors: Sequence[str] | None,
    ) -> Grid:
        """Take the coordinates of `decoded` and `signals` (state, layer, channel, time)."""
        if not np.isfinite(signals).all():
            raise DataError("the decoder gives values that are not finite: its training diverged")
        names = [str(name) for name in decoded["channel"].values]
        positions = positions_of(decoded)
        places = None if positions is None else flat_positions(positions)
        kept = _kept_sensors(names, signals, places, sensors)
        text, scale = quantise(signals[:, :, kept].transpose(2, 0, 1, 3))
        # An encoder of plain arrays knows neither times nor a rate: its axis can only count.
        known = encoder.contract_.times is not None or encoder.contract_.sfreq is not None
        times = decoded["time"].values * (1e3 if known else 1)
        left = len(names) - len(kept)
        return cls(
            text=text,
            shape=(len(kept), *signals.shape[:2], signals.shape[3]),
            scale=scale,
            names=[names[i] for i in kept],
            places=None if places is None else [np.round(places[i], 4).tolist() for i in kept],
            times=[round(float(t), 4) for t in times],
            axis="time (ms)" if known else "sample",
            note=f"{len(kept)} of {len(names)} sensors are shown. " if left else "",
        )


def quantise(signals: ArrayLike) -> tuple[str, list[float]]:
    """Pack signals as 16-bit numbers, each sensor on its own scale.

    Parameters
    ----------
    signals : array (sensor, ...)
        uV.

    Returns
    -------
    str
        Base64 of little-endian int16.
    list of float
        uV per step of each sensor; a value is off by half a step at most.

    Examples
    --------
    >>> text, scale = quantise([[0.0, 32767.0], [-1.0, 0.5]])
    >>> scale[0], np.frombuffer(base64.b64decode(text), "<i2").tolist()
    (1.0, [0, 32767, -32767, 16384])
    """
    signals = np.asarray(signals, dtype=float)
    flat = signals.reshape(len(signals), -1)
    scale = np.abs(flat).max(axis=1) / 32767
    steps = np.rint(flat / np.where(scale > 0, scale, 1)[:, None]).astype("<i2")
    return base64.b64encode(steps.tobytes()).decode("ascii"), scale.tolist()


def flat_positions(positions: Mapping[str, Sequence[float]]) -> Floats:
    """Lay the head flat as seen from above: the equator becomes the unit circle, the nose is up.

    Parameters
    ----------
    positions : mapping of str to (x, y, z)
        Metres.

    Returns
    -------
    ndarray, shape (sensor, 2)

    Examples
    --------
    >>> places = {"Cz": (0, 0, 0.1), "Fpz": (0, 0.1, 0), "T8": (0.1, 0, 0)}
    >>> flat_positions(places).round(1).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    points = np.array(list(positions.values()), dtype=float)
    centre = head_sphere(positions)[:3]
    x, y, z = (points - centre).T
    angle = np.arctan2(np.hypot(x, y), z) / (np.pi / 2)
    direction = np.arctan2(y, x)
    return np.column_stack([angle * np.cos(direction), angle * np.sin(direction)])


def _kept_sensors(
    names: Sequence[str], signals: Floats, places: Floats | None, sensors: Sequence[str] | None
) -> list[int]:
    """Choose the sensors that fit, in the order of the montage."""
    n_states, n_layers, _, n_times = signals.shape
    room = max(1, int(MAX_CHARACTERS * 3 / 4 / (2 * n_states * n_layers * n_times)))
    if sensors is not None:
        unknown = [name for name in sensors if name not in names]
        if unknown or not sensors:
            known = ", ".join(names)
            raise InputError(f"there is no sensor {', '.join(unknown)}; the sensors are {known}")
        return [names.index(name) for name in dict.fromkeys(sensors)][:room]
    if len(names) <= room:
        return list(range(len(names)))
    change = np.ptp(signals[:, 0], axis=0).max(axis=-1)
    if places is None:
        return sorted(np.argsort(-change, kind="stable")[:room].tolist())
    return sorted(spread(places, int(change.argmax()), room))


def spread(places: Floats, first: int, n: int) -> list[int]:
    """Choose points far from one another, so that a few sensors still cover the head."""
    chosen = [first]
    gap = np.linalg.norm(places - places[first], axis=1)
    while len(chosen) < n:
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, np.linalg.norm(places - places[chosen[-1]], axis=1))
    return chosen
