"""Between `mne.Epochs` and trial datasets in microvolts, with the history of how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eeg.events import condition_names
from eeg.steps import Steps
from neuro.errors import DataError

if TYPE_CHECKING:
    import mne
    import xarray as xr

# Robust standard deviation of a trial, uV: scalp EEG has 2 to 50.
SMALLEST, LARGEST = 0.01, 1000.0
_HISTORY = "neuro-preprocessing "  # marks our JSON in a FIF file's description


def epochs_to_dataset(
    epochs: mne.BaseEpochs,
    *,
    record: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
    metadata: Sequence[str] = (),
    **coords: Any,
) -> xr.Dataset:
    """Turn epochs into a dataset of their EEG channels.

    Parameters
    ----------
    epochs : mne.BaseEpochs
        In volts, as always in MNE.
    record : mapping, optional
        How the epochs were made; by default that nothing is known but the facts of their header.
    quality : mapping, optional
        Figures of the recording.
    metadata : sequence of str
        Columns of ``epochs.metadata`` that become labels.
    **coords
        One value for all trials each: ``subject``, ``session``, ``run``, ``recording`` and labels.

    Returns
    -------
    xarray.Dataset
        ``signal`` float32 (trial, channel, time) in uV.

    Raises
    ------
    DataError
        Where there is no EEG channel, a column is missing, or the amplitudes can't be volts.
    """
    import xarray as xr

    name = str(coords.get("recording") or "epochs")
    picks = eeg_names(epochs)
    if not picks:
        raise DataError(
            f"{name}: no EEG channel, only {sorted(set(epochs.get_channel_types()))}; "
            "set channel_types"
        )
    signal = microvolts(epochs, picks)
    if record is None:
        check_magnitude(signal, name)
    labels = {
        k: v for k, v in coords.items() if k not in ("subject", "session", "run", "recording")
    }
    columns = _own_columns(coords, len(epochs)) | _metadata(epochs, metadata, name)
    attrs: dict[str, Any] = {
        "kind": "eeg",
        "units": "uV",
        "sfreq": round(float(epochs.info["sfreq"]), 9),
        "labels": [*labels, *metadata],
        "item": "recording",
        "preprocessing": json.dumps(record or make_record(epochs, Steps.nothing()), sort_keys=True),
        "quality": json.dumps([dict(quality)] if quality else []),
    }
    places = positions(epochs.info, picks)
    if places:
        attrs["positions"] = json.dumps(places)
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": np.asarray(picks, dtype=str),
            "time": np.round(epochs.times, 9),
            "condition": ("trial", condition_names(epochs)),
            **columns,
        },
        attrs=attrs,
    )


def dataset_to_epochs(data: xr.Dataset, variable: str = "signal") -> mne.EpochsArray:
    """Turn a dataset into epochs; its history goes with them, into their saved FIF file too.

    Parameters
    ----------
    data : xarray.Dataset
        ``signal`` (trial, channel, time) in uV.
    variable : str
        The variable to take.

    Returns
    -------
    mne.EpochsArray
        In volts, with the trial coordinates as metadata.
    """
    import mne
    import pandas as pd

    names = [str(name) for name in data["channel"].values]
    info = mne.create_info(names, float(data.attrs["sfreq"]), "eeg", verbose="error")
    if data.attrs.get("preprocessing"):
        info["description"] = _HISTORY + data.attrs["preprocessing"]
    conditions = data["condition"].values.astype(str) if "condition" in data.coords else None
    if conditions is None:
        conditions = np.full(data.sizes["trial"], "trial")
    event_id = {name: code for code, name in enumerate(sorted(set(conditions)), start=1)}
    codes = np.array([event_id[name] for name in conditions], dtype=int)
    events = np.column_stack([np.arange(len(codes)), np.zeros_like(codes), codes])
    columns = {k: v.values for k, v in data.coords.items() if v.dims == ("trial",)}
    epochs = mne.EpochsArray(
        data[variable].values.astype(np.float64) * 1e-6,
        info,
        events.reshape(-1, 3),
        tmin=float(data["time"].values[0]),
        event_id=event_id or None,
        metadata=pd.DataFrame(columns) if columns else None,
        verbose="error",
    )
    places = json.loads(data.attrs.get("positions", "{}"))
    if places:
        montage = mne.channels.make_dig_montage(places, coord_frame="head")
        epochs.set_montage(montage, on_missing="ignore", verbose="error")
    return epochs


def make_record(inst: mne.BaseEpochs | mne.io.BaseRaw, steps: Steps) -> dict[str, Any]:
    """Return how trials are made: the resolved steps, and what they are applied to.

    Recordings that are treated alike have equal records, whatever the order of their channels.

    Parameters
    ----------
    inst : mne.BaseEpochs or mne.io.BaseRaw
        The recording before the steps.
    steps : Steps
        Resolved parameters.

    Returns
    -------
    dict
        JSON-able: ``version``, ``input`` (kind and facts) and ``steps``.
    """
    import mne

    raw = isinstance(inst, mne.io.BaseRaw)
    facts: dict[str, Any] = {"kind": "raw" if raw else "epochs", "channels": _needed(inst, steps)}
    if raw:
        sfreq = inst.info["sfreq"]
        out = steps.resample if steps.resample is not None else sfreq / (steps.decim or 1)
        facts["sfreq_out"] = _rounded(out)
    else:
        facts |= {
            "sfreq": _rounded(inst.info["sfreq"]),
            "tmin": _rounded(inst.tmin),
            "tmax": _rounded(inst.tmax),
            "highpass": _rounded(inst.info["highpass"]),
            "lowpass": _rounded(inst.info["lowpass"]),
            "rereferenced": bool(inst.info["custom_ref_applied"]),
            "baseline": None if inst.baseline is None else list(map(_rounded, inst.baseline)),
        }
    # Labels are no part of how a signal was made, and a new recording has none.
    dumped = steps.model_dump(mode="json", exclude={"metadata"})
    return {"version": 1, "input": facts, "steps": dumped}


def _needed(inst: mne.BaseEpochs | mne.io.BaseRaw, steps: Steps) -> list[str]:
    """Channels that the result depends on: all of them where an average or neighbours are used."""
    if steps.picks is None or steps.reference == "average":
        return sorted(eeg_names(inst))
    return sorted({*steps.picks, *(steps.reference or [])})


def history(epochs: mne.BaseEpochs | mne.io.BaseRaw) -> dict[str, Any] | None:
    """Return the record that `dataset_to_epochs` left in epochs, or None."""
    text = epochs.info["description"] or ""
    if not text.startswith(_HISTORY):
        return None
    found = json.loads(text.removeprefix(_HISTORY))
    return found if isinstance(found, dict) else None


def eeg_names(inst: mne.BaseEpochs | mne.io.BaseRaw) -> list[str]:
    """Return the names of the EEG channels, bad ones included."""
    types = inst.get_channel_types()
    return [name for name, kind in zip(inst.ch_names, types, strict=True) if kind == "eeg"]


def microvolts(
    epochs: mne.BaseEpochs, picks: Sequence[str], item: slice | None = None
) -> NDArray[np.float32]:
    """Return the signal (or some trials) in uV, float32, contiguous (trial, channel, time)."""
    data = epochs.get_data(picks=list(picks), item=item, copy=False, verbose="error")
    signal = np.empty(data.shape, np.float32)
    # One pass, no float64 copy in between.
    return np.multiply(data, 1e6, out=signal, casting="same_kind")


def check_magnitude(signal: NDArray[np.float32], name: str) -> None:
    """Refuse amplitudes that show another unit than was said.

    Parameters
    ----------
    signal : ndarray, shape (trial, channel, time)
        In uV.
    name : str
        The recording, for the message.

    Raises
    ------
    DataError
        Where the typical robust standard deviation is above 1 mV or below 0.01 uV.
    """
    # Twenty trials tell a unit; medians are slow.
    some = signal[:: -(-len(signal) // 20) or 1]
    if not some.size:
        return
    spread = np.abs(some - np.median(some, axis=-1, keepdims=True))
    typical = float(1.4826 * np.median(np.median(spread, axis=-1)))
    if SMALLEST <= typical <= LARGEST:
        return
    if typical > LARGEST:
        what = "values in microvolts (or millivolts) were taken for volts: set scale: 1e-6 (1e-3)"
    else:
        what = "values in volts were taken for microvolts: set scale: 1e6, or csv.unit: V"
    raise DataError(
        f"{name}: the typical amplitude is {typical:.3g} uV (robust standard deviation), expected "
        f"between {SMALLEST} and {LARGEST:g} uV; it looks as if {what}"
    )


def positions(info: mne.Info, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the places of electrodes in m (head frame); empty where any is unknown."""
    places = {}
    for name in names:
        place = info["chs"][info["ch_names"].index(name)]["loc"][:3]
        if not np.isfinite(place).all() or not place.any():
            return {}
        places[name] = [round(float(value), 6) for value in place]
    return places


def _own_columns(coords: Mapping[str, Any], n: int) -> dict[str, Any]:
    named = {"subject": "", "session": "", "run": "", "recording": ""} | dict(coords)
    return {
        name: ("trial", np.full(n, value if isinstance(value, float) else str(value)))
        for name, value in named.items()
    }


def _metadata(epochs: mne.BaseEpochs, wanted: Sequence[str], name: str) -> dict[str, Any]:
    table = epochs.metadata
    there = [] if table is None else list(map(str, table.columns))
    missing = [column for column in wanted if column not in there]
    if missing:
        raise DataError(
            f"{name}: its epochs' metadata have no column {', '.join(missing)}; columns there: "
            f"{', '.join(there) or 'none'}"
        )
    columns = {}
    for column in wanted:
        values = table[column]
        numeric = values.dtype.kind in "fiub"
        plain = values.to_numpy(float) if numeric else values.fillna("").astype(str).to_numpy(str)
        columns[column] = ("trial", plain)
    return columns


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
