"""What encoders of series share: recordings are read and cut as the training data was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from neuro.encoder import DecodeOptions, Encoder
from neuro.errors import ContractError, DataError

__all__ = ["SeriesDecodeOptions", "SeriesEncoder", "mask_of", "standardised"]


class SeriesDecodeOptions(DecodeOptions):
    """What ``neuro decode`` takes for series."""

    sfreq: float | None = Field(None, gt=0)
    """Sampling rate in Hz, where the file doesn't tell it."""
    window: float | None = Field(None, gt=0)
    """Length of a window in s, for encoders that were fitted on an array without a history."""
    overlap: float | None = Field(None, ge=0, lt=1)
    """Share of a window that the next one repeats; by default that of the training data."""
    time: str = "time"
    """Column of time in tables."""
    variable: str | None = None
    """Column of the channel's name, in long tables."""
    value: str | None = None
    """Column of the value, in long tables."""
    recording: str | None = None
    """Column that tells the recordings of a table apart."""


class SeriesEncoder(Encoder):
    """Base of encoders of series ``(trial, channel, time)``.

    A subclass writes what every `Encoder` writes; this adds `read_recording`, so that
    ``neuro decode ENCODER new/*.csv`` works. In its ``fit``::

        values = self.start_fit(X, subject=subject)
        real = mask_of(X, mask)                         # None where all samples are real
        self.standardizer_ = Standardizer.fit(values, real)   # training parts only
        x = standardised(values, real, self.standardizer_)    # padding stays zero

    and in ``transform`` the last line on `check_input`'s values; the network takes ``(x, mask)``.
    A fitted `standardizer_` is written into the contract.
    """

    DecodeOptions = SeriesDecodeOptions

    def read_recording(
        self,
        path: str | Path,
        *,
        align: bool = False,
        options: SeriesDecodeOptions | None = None,
    ) -> xr.Dataset | xr.DataArray:
        """Read a file of series and cut it into windows as the training data was.

        Parameters
        ----------
        path : path
            See `timeseries.read_series.read_series`; a Zarr folder is a saved dataset.
        align : bool
            Unknown channels are dropped later, by `align`.
        options : SeriesDecodeOptions, optional

        Raises
        ------
        ContractError
            Where no window is known, or the file has another rate.
        """
        path = Path(path)
        if path.is_dir():
            return super().read_recording(path, align=align)
        return _replay(path, self.contract_, options or SeriesDecodeOptions())

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode the recordings of a file; see `Encoder.decode`."""
        options = options or SeriesDecodeOptions()
        X = self.as_input(self.read_recording(path, align=options.align, options=options))
        X = self.align(X, drop_extra=options.align)
        seen = self.seen(X)
        codes = self.transform(X).assign_coords(
            seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects)
        )
        attrs = {"kind": "codes", "encoder": self.name, "source": Path(path).name}
        return codes.to_dataset(name="codes").assign_attrs(attrs)


def mask_of(X: Any, mask: Any = None) -> NDArray[np.bool_] | None:
    """Return which samples are real: given, or X's coordinate ``mask``; None if all are.

    Raises
    ------
    DataError
        Where the mask doesn't fit, or a series has no real sample.
    """
    if mask is None and isinstance(X, xr.DataArray) and "mask" in X.coords:
        mask = X["mask"].values
    if mask is None:
        return None
    real = np.ascontiguousarray(mask, dtype=bool)
    if real.shape != (X.shape[0], X.shape[-1]):
        raise DataError(f"the mask is {real.shape}, expected {(X.shape[0], X.shape[-1])}")
    if not real.any(axis=1).all():
        n, first = int((~real.any(axis=1)).sum()), int(np.argmin(real.any(axis=1)))
        raise DataError(f"{n} series have no real sample, the first is trial {first}; drop them")
    return None if real.all() else real


def standardised(
    values: NDArray[np.float32], real: NDArray[np.bool_] | None, scaler: Any
) -> NDArray[np.float32]:
    """Standardise channels; padding becomes zero again."""
    scaled: NDArray[np.float32] = scaler.transform(values)
    return scaled if real is None else scaled * real[:, None]


def _replay(path: Path, contract: Any, options: SeriesDecodeOptions) -> xr.Dataset:
    from timeseries.read_series import Columns, read_series
    from timeseries.spectra import Spectra, spectra_dataset
    from timeseries.windows import Windows, cut_windows

    history = contract.steps if isinstance(contract.steps, dict) else {}
    known = history.get("windows")
    if known is None and options.window is None:
        raise ContractError(
            f"{path}: the encoder was fitted on an array without a history, so that it is not "
            "known how to cut windows; give --window SECONDS"
        )
    asked = {"length": options.window, "overlap": options.overlap}
    changed = {name: value for name, value in asked.items() if value is not None}
    windows = Windows(**{**(known or {}), **changed})
    columns = Columns(
        time=options.time, variable=options.variable, value=options.value,
        recording=options.recording,
    )  # fmt: skip
    spectra = dict(history.get("spectra") or {})
    known_rate = spectra.pop("sfreq", contract.sfreq)  # of the waveform, not of its frames
    rate = options.sfreq or known_rate
    recordings = read_series(path, sfreq=rate, columns=columns, label=None)
    rate = recordings[0].sfreq
    if known_rate and not np.isclose(rate, known_rate, rtol=1e-3):
        raise ContractError(
            f"{path}: sfreq is {rate:g} Hz, the encoder was trained at {known_rate:g} Hz; "
            "resample the file first"
        )
    found = cut_windows(recordings, windows)
    if spectra:
        found = spectra_dataset(found.assign_attrs(sfreq=known_rate), Spectra(**spectra))
    found = _padded(found, contract.shape[-1], path)
    if contract.times is not None:
        found = found.assign_coords(time=contract.times)
    history = {**history, "windows": known} if known else history
    return found.assign_attrs(preprocessing=json.dumps(history), sfreq=contract.sfreq or rate)


def _padded(data: xr.Dataset, n_samples: int, path: Path) -> xr.Dataset:
    """Pad trials to the length of the training data."""
    found = data.sizes["time"]
    if found > n_samples:
        raise ContractError(
            f"{path}: a series has {found} samples, the encoder takes up to {n_samples}; cut it "
            "into windows"
        )
    if found == n_samples:
        return data
    whole = np.ones((data.sizes["trial"], found), dtype=bool)
    mask = data["mask"].values if "mask" in data.coords else whole
    padded = data.drop_vars(["mask", "time"], errors="ignore")
    padded = padded.pad(time=(0, n_samples - found), constant_values=0)
    return padded.assign_coords(
        mask=(("trial", "time"), np.pad(mask, ((0, 0), (0, n_samples - found)))),
        length=("trial", mask.sum(axis=1)),
    )
