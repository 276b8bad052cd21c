"""From a recording to clean, stimulus-locked trials in uV, every step by MNE's own functions.

The order is that of the MNE-BIDS pipeline with bad EEG channels added: types and montage, bad
channels, filters, ICA or regression, interpolation and reference, epochs, baseline, sampling
rate, rejection. Every step is optional and leaves its figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from eeg import clean, trials
from eeg.contract import check_contract, same_history
from eeg.convert import (
    dataset_to_epochs,
    eeg_names,
    epochs_to_dataset,
    history,
    make_record,
    microvolts,
)
from eeg.events import count, find_events, select_events
from eeg.prepare import describe, known, prepare
from eeg.quality import Quality
from eeg.read import read_recording
from eeg.steps import Steps
from neuro.errors import ContractError, DataError

if TYPE_CHECKING:
    import mne
    import xarray as xr

    Recording: TypeAlias = mne.io.BaseRaw | mne.BaseEpochs

__all__ = [
    "Steps",
    "dataset_to_epochs",
    "epochs_to_dataset",
    "preprocess",
    "preprocess_dataset",
    "replay",
]

_ARTEFACTS = ("lof", "flat_channel", "reject", "flat", "autoreject")


def preprocess(
    source: Path | str | Recording | xr.Dataset, steps: Steps
) -> tuple[xr.Dataset, dict[str, Any]]:
    """Turn one recording into trials.

    Parameters
    ----------
    source : path, mne.io.BaseRaw, mne.BaseEpochs or xarray.Dataset
        A file, a recording in memory (it is copied), one row of a catalogue, or one item of a
        dataset that holds trials already.
    steps : Steps
        What to do.

    Returns
    -------
    data : xarray.Dataset
        ``signal`` float32 (trial, channel, time) in uV. No trial may be left: the data are empty
        then, and ``quality["warnings"]`` says so.
    quality : dict
        Figures of the recording, see `eeg.quality.Quality`.

    Raises
    ------
    DataError
        Where the recording can't be used; the message names it and what to do.
    """
    import mne
    import xarray as xr

    if isinstance(source, xr.Dataset):
        if "signal" in source:
            return preprocess_dataset(source, steps)
        coords, path, channels = _row(source)
    elif isinstance(source, mne.io.BaseRaw | mne.BaseEpochs):
        quality = Quality(recording="", subject="", file="")
        return _run(source.copy(), steps, quality, {})
    else:
        path, channels = Path(source), None
        coords = coords_of(path)
    quality = Quality(recording=coords["recording"], subject=coords["subject"], file=path.name)
    inst = read_recording(path, csv=steps.csv, quality=quality)
    return _run(inst, steps, quality, coords, channels, str(path))


def replay(
    source: Path | str | Recording | xr.Dataset,
    record: Mapping[str, Any] | str,
    *,
    align: bool = False,
) -> xr.Dataset:
    """Make the trials of new data as those of the training data were made.

    Parameters
    ----------
    source : path, mne.io.BaseRaw, mne.BaseEpochs or xarray.Dataset
        A continuous recording is sent through the recorded steps. Ready-made epochs are sent
        through them if the training data were ready-made epochs with the same facts (rate,
        window, filters, reference, channels), and taken as they are if they carry the very same
        history (written by `dataset_to_epochs`).
    record : mapping or str
        ``preprocessing`` of the training data.
    align : bool
        Leave out EEG channels that the training data did not have.

    Returns
    -------
    xarray.Dataset
        As from `preprocess`.

    Raises
    ------
    ContractError
        Where the history or the facts differ; both sides are named.
    DataError
        Where no trial is left, or the recording can't be used.
    """
    import xarray as xr

    record = dict((json.loads(record) if isinstance(record, str) else record) or {})
    if isinstance(source, xr.Dataset):
        return same_history(source, record)
    if "steps" not in record:
        raise ContractError(
            "the training data carry no history of how they were made, so that a recording can't "
            "be made like them; train on the result of eeg.preprocess (the stage eeg-epochs)"
        )
    steps = Steps.model_validate(record["steps"])
    path = Path(source) if isinstance(source, str | Path) else None
    name = "recording" if path is None else str(path)
    coords = {} if path is None else coords_of(path)
    quality = Quality(**({"recording": "", "subject": "", "file": ""} | _figures_of(coords, path)))
    inst = _opened(source, steps, quality)
    if history(inst) == record:
        return epochs_to_dataset(inst, record=record, quality=quality, **coords)
    check_contract(inst, record, name, align=align)
    channels = record["input"]["channels"] if align else None
    data, _ = _run(inst, steps, quality, coords, channels, name)
    if not data.sizes["trial"]:
        raise DataError(
            f"{name}: no trial is left of {sum(quality['events'].values())}; dropped: "
            f"{quality['dropped']}. Look at the recording, or at the training data's 'reject'"
        )
    return data


def _opened(source: Path | str | Recording, steps: Steps, quality: Quality) -> Recording:
    if isinstance(source, str | Path):
        return read_recording(source, csv=steps.csv, quality=quality)
    return source.copy()


def _figures_of(coords: Mapping[str, Any], path: Path | None) -> dict[str, str]:
    return (
        {}
        if path is None
        else {k: coords[k] for k in ("recording", "subject")} | {"file": path.name}
    )


def coords_of(path: Path) -> dict[str, Any]:
    """Return subject, session, run and recording as a file's name tells them."""
    from eeg.catalogue import entities, stem

    parts = entities(path)
    return {
        "recording": stem(path),
        "subject": parts.get("sub", stem(path)),
        "session": parts.get("ses", ""),
        "run": parts.get("run", ""),
    }


def _row(row: xr.Dataset) -> tuple[dict[str, Any], Path, list[str] | None]:
    if row.sizes["trial"] != 1:
        raise DataError(
            f"expected one recording, found a catalogue of {row.sizes['trial']}; "
            "give preprocess one of its rows, or the stage each: ${recordings}"
        )
    names = ["recording", "subject", "session", "run", *row.attrs.get("labels", [])]
    coords = {name: row[name].values[0].item() for name in names}
    channels = json.loads(str(row["channels"].values[0])) if "channels" in row.coords else None
    return coords, Path(str(row["path"].values[0])), channels


def _run(
    inst: Recording,
    steps: Steps,
    quality: Quality,
    coords: dict[str, Any],
    channels: list[str] | None = None,
    name: str = "recording",
) -> tuple[xr.Dataset, dict[str, Any]]:
    epochs, record = _process(inst, steps, quality, channels, name)
    return _result(epochs, record, steps, quality, coords), dict(quality)


def _process(
    inst: Recording,
    steps: Steps,
    quality: Quality,
    channels: list[str] | None = None,
    name: str = "recording",
    check: bool = True,
) -> tuple[mne.BaseEpochs, dict[str, Any]]:
    """Apply all steps to `inst` in place; `name` stands for the recording in messages."""
    import mne

    describe(inst, steps, quality, name)
    with quality.listen():
        prepare(inst, steps, channels, name)
    raw = isinstance(inst, mne.io.BaseRaw)
    quality["kind"] = "raw" if raw else "epochs"
    record = make_record(inst, steps)
    make = _from_raw if raw else _from_epochs
    epochs = make(inst, steps, quality, name)
    with quality.listen():
        epochs = trials.finish(epochs, steps, quality, name, check=check)
    return epochs, record


def _result(
    epochs: mne.BaseEpochs,
    record: dict[str, Any],
    steps: Steps,
    quality: Quality,
    coords: dict[str, Any],
) -> xr.Dataset:
    data = epochs_to_dataset(epochs, record=record, metadata=steps.metadata, **coords)
    quality["sfreq"] = float(data.attrs["sfreq"])
    quality["n_channels"] = data.sizes["channel"]
    data.attrs["quality"] = json.dumps([quality])
    return data


def _from_raw(raw: mne.io.BaseRaw, steps: Steps, quality: Quality, name: str) -> mne.BaseEpochs:
    import mne

    clean.find_bads(raw, steps, quality, name)
    events, event_id = find_events(raw, steps, name)
    with quality.listen():
        trials.filter_recording(raw, steps, quality)
        if steps.ica is not None:
            clean.remove_components(raw, steps.ica, quality)
        _mend(raw, steps, quality, name)
        tmin = -0.2 if steps.tmin is None else steps.tmin
        tmax = 0.8 if steps.tmax is None else steps.tmax
        epochs = mne.Epochs(
            raw,
            events,
            event_id,
            tmin,
            tmax,
            baseline=None,
            picks=clean.signal_types(raw),
            preload=True,
            detrend=steps.detrend,
            proj=False,
            event_repeated="drop",
            on_outside="ignore",
            verbose="error",
        )
    codes = {code: condition for condition, code in event_id.items()}
    quality["events"] = {c: int((events[:, 2] == code).sum()) for code, c in codes.items()}
    quality["epochs"]["before"] = dict(quality["events"])
    trials.count_drops(epochs, ((),) * len(epochs.drop_log), quality)
    quality.did("epoch")
    return epochs


def _from_epochs(
    epochs: mne.BaseEpochs, steps: Steps, quality: Quality, name: str
) -> mne.BaseEpochs:
    epochs = select_events(epochs, steps, name)
    quality["events"] = count(epochs)
    quality["epochs"]["before"] = dict(quality["events"])
    before = epochs.drop_log
    clean.find_bads(epochs, steps, quality, name)
    trials.count_drops(epochs, before, quality)
    if not len(epochs):
        return trials.cut_epochs(epochs, steps, name)
    with quality.listen():
        trials.filter_recording(epochs, steps, quality)
        if steps.ica is not None:
            quality.skip("ica", "needs a continuous recording")
        _mend(epochs, steps, quality, name)
        return trials.cut_epochs(epochs, steps, name)


def _mend(inst: Recording, steps: Steps, quality: Quality, name: str) -> None:
    """Regression, interpolation, reference: alike for recordings and epochs."""
    if steps.regress_eog:
        clean.regress_eog(inst, quality)
    if steps.interpolate:
        clean.interpolate(inst, quality, name)
    else:
        clean.refuse_unfixed(quality, name, "interpolate is off")
    if steps.reference is None:
        return
    wanted = [] if steps.reference == "average" else list(steps.reference)
    known(inst, wanted, "reference", name)
    if steps.reference == "average" and len(eeg_names(inst)) < clean.FEW_CHANNELS:
        quality["warnings"].append(
            f"the average of {len(eeg_names(inst))} channels is a poor reference"
        )
    inst.set_eeg_reference(steps.reference, projection=False, ch_type="eeg", verbose="error")
    quality.did("reference")


def preprocess_dataset(data: xr.Dataset, steps: Steps) -> tuple[xr.Dataset, dict[str, Any]]:
    """Apply the steps to trials that are in memory already, such as a simulated recording.

    Parameters
    ----------
    data : xarray.Dataset
        One item of a dataset: ``signal`` in uV; a noise-free ``truth`` beside it goes through
        the linear steps, so that it stays comparable.
    steps : Steps
        Those that apply to epochs are applied.

    Returns
    -------
    data : xarray.Dataset
        Trial coordinates are kept.
    quality : dict
        Figures.
    """
    first = {k: str(data[k].values[0]) for k in ("recording", "subject") if k in data.coords}
    quality = Quality(file="", **({"recording": "", "subject": ""} | first))
    name = first.get("recording", "dataset")
    epochs, record = _process(dataset_to_epochs(data), steps, quality, name=name)
    result = _result(epochs, record, steps, quality, {})
    kept = epochs.selection
    names = [k for k, v in data.coords.items() if v.dims == ("trial",) and k != "condition"]
    result = result.assign_coords({k: ("trial", data[k].values[kept]) for k in names})
    if "truth" in data:
        result["truth"] = (("trial", "channel", "time"), _truth(data, steps)[kept])
    own = {k: v for k, v in data.attrs.items() if k not in result.attrs}
    result.attrs |= own | {"labels": [*data.attrs.get("labels", []), *steps.metadata]}
    return result, dict(quality)


def _truth(data: xr.Dataset, steps: Steps) -> Any:
    """Send the truth through the steps that neither look for artefacts nor drop trials."""
    calm = steps.model_copy(update=dict.fromkeys(_ARTEFACTS) | {"bads": [], "regress_eog": False})
    epochs = dataset_to_epochs(data, "truth")
    epochs, _ = _process(epochs, calm, Quality(), check=False)
    return microvolts(epochs, eeg_names(epochs))
