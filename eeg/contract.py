"""Whether new data were made as the training data were: both sides are named where not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eeg.convert import make_record
from eeg.steps import Steps
from neuro.errors import ContractError

if TYPE_CHECKING:
    import mne
    import xarray as xr

_RAW_HINT = (
    "give the continuous recording, which is sent through the recorded steps, or epochs made by "
    "them and saved with eeg.preprocess.dataset_to_epochs, which carry their history"
)


def same_history(data: xr.Dataset, record: Mapping[str, Any]) -> xr.Dataset:
    """Return a dataset whose history is the recorded one.

    Raises
    ------
    ContractError
        Where it is another one.
    """
    found = json.loads(data.attrs.get("preprocessing") or "null")
    if found != dict(record):
        raise ContractError(
            "the dataset was preprocessed in another way than the training data: "
            f"{difference(found, record)}; send the recordings through the same steps"
        )
    return data


def check_contract(
    inst: mne.io.BaseRaw | mne.BaseEpochs,
    record: Mapping[str, Any],
    name: str,
    *,
    align: bool = False,
) -> None:
    """Refuse a recording that the recorded steps can't turn into comparable trials.

    Parameters
    ----------
    inst : mne.io.BaseRaw or mne.BaseEpochs
        As read.
    record : mapping
        The training data's.
    name : str
        The recording, for messages.
    align : bool
        Let it have further EEG channels.

    Raises
    ------
    ContractError
        Where kind, channels, rate, window, filters or reference differ.
    """
    import mne

    steps = Steps.model_validate(record["steps"])
    kind = "raw" if isinstance(inst, mne.io.BaseRaw) else "epochs"
    expected = record["input"]
    if kind != expected["kind"]:
        words = {"raw": "continuous recordings", "epochs": "ready-made epochs"}
        hint = _RAW_HINT if kind == "epochs" else "cut it into epochs as those were"
        raise ContractError(
            f"{name}: holds {words[kind]}, the training data were {words[expected['kind']]}; {hint}"
        )
    _check_channels(_resolved_names(inst, steps), expected["channels"], steps, name, align)
    if kind == "raw":
        return _check_rate(inst, steps, expected["sfreq_out"], name)
    found = make_record(inst, steps)["input"]
    unlike = [key for key in expected if key != "channels" and expected[key] != found.get(key)]
    if unlike:
        sides = "; ".join(f"{key}: {found.get(key)} here, {expected[key]} there" for key in unlike)
        raise ContractError(
            f"{name}: its epochs were made in another way than the training data's ({sides}); "
            "make them alike"
        )


def _resolved_names(inst: mne.io.BaseRaw | mne.BaseEpochs, steps: Steps) -> list[str]:
    """Names of the EEG channels once the steps have renamed and typed them."""
    new = dict(steps.rename_channels)
    typed = {new.get(name, name): kind for name, kind in steps.channel_types.items()}
    types = dict(zip(inst.ch_names, inst.get_channel_types(), strict=True))
    renamed: dict[str, str] = {str(new.get(name, name)): kind for name, kind in types.items()}
    renamed |= typed
    return [name for name, kind in renamed.items() if kind == "eeg"]


def _check_channels(
    found: list[str], expected: list[str], steps: Steps, name: str, align: bool
) -> None:
    missing = sorted(set(expected) - set(found))
    picked = steps.picks is not None and steps.reference != "average"
    extra = [] if align or picked else sorted(set(found) - set(expected))
    if not missing and not extra:
        return
    raise ContractError(
        f"{name}: its EEG channels are not those of the training data: missing here "
        f"{', '.join(missing) or 'none'}; only here {', '.join(extra) or 'none'} "
        f"({len(found)} here, {len(expected)} there). Rename them, or leave out what is too much "
        "by align"
    )


def _check_rate(raw: mne.io.BaseRaw, steps: Steps, expected: float, name: str) -> None:
    """Another rate is no obstacle where the steps resample to the same one."""
    sfreq = float(raw.info["sfreq"])
    out = make_record(raw, steps)["input"]["sfreq_out"]
    if abs(out - expected) > 1e-3:
        raise ContractError(
            f"{name}: sampled at {sfreq:g} Hz, its trials would have {out:g} Hz, the training "
            f"data's have {expected:g} Hz; resample the recording first"
        )


def difference(found: Any, expected: Any, path: str = "") -> str:
    """Say where two records differ first.

    >>> difference({"steps": {"h_freq": 30}}, {"steps": {"h_freq": 40}})
    'steps.h_freq is 30 here, 40 there'
    """
    if isinstance(found, dict) and isinstance(expected, Mapping):
        for key in [*expected, *found]:
            if found.get(key) != expected.get(key):
                return difference(found.get(key), expected.get(key), f"{path}.{key}".strip("."))
    return f"{path or 'the record'} is {found} here, {expected} there"
