"""Names, types and positions of a recording's channels, before anything touches its signal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from eeg.quality import Quality
from eeg.read import load
from eeg.steps import Steps
from neuro.errors import DataError

if TYPE_CHECKING:
    import mne

    Recording: TypeAlias = mne.io.BaseRaw | mne.BaseEpochs

_KEPT = ("eeg", "eog", "ecg", "emg", "stim")


def describe(inst: Recording, steps: Steps, quality: Quality, name: str) -> None:
    """Note rate and duration; refuse filter edges that the rate does not allow."""
    import mne

    if isinstance(inst, mne.BaseEpochs) and not len(inst):
        raise DataError(f"{name}: holds no epochs; check how it was made")
    sfreq = float(inst.info["sfreq"])
    n = inst.n_times if isinstance(inst, mne.io.BaseRaw) else len(inst) * len(inst.times)
    quality["sfreq_in"], quality["duration"] = sfreq, round(float(n / sfreq), 3)
    for field in ("l_freq", "h_freq"):
        edge = getattr(steps, field)
        if edge is not None and edge >= sfreq / 2:
            raise DataError(
                f"{name}: sampled at {sfreq:g} Hz, so {field} must be below {sfreq / 2:g} Hz, "
                f"not {edge:g} Hz"
            )


def prepare(inst: Recording, steps: Steps, channels: list[str] | None, name: str) -> None:
    """Set names, types and positions; leave out what is no signal; load the data."""
    known(inst, steps.rename_channels, "rename_channels", name)
    if steps.rename_channels:
        inst.rename_channels(steps.rename_channels, verbose="error")
    known(inst, steps.channel_types, "channel_types", name)
    if steps.channel_types:
        inst.set_channel_types(steps.channel_types, on_unit_change="ignore", verbose="error")
    types = inst.get_channel_types()
    keep = [
        channel
        for channel, kind in zip(inst.ch_names, types, strict=True)
        if kind in _KEPT and (kind != "eeg" or channels is None or channel in channels)
    ]
    if "eeg" not in types:
        raise DataError(
            f"{name}: no EEG channel, only {', '.join(sorted(set(types)))} "
            f"({', '.join(inst.ch_names[:8])}); set channel_types"
        )
    if len(keep) < len(types):
        inst.pick(keep, verbose="error")
    load(inst, name)
    if steps.scale != 1.0:
        inst.apply_function(lambda x: x * steps.scale, picks="eeg", verbose="error")
    if steps.montage is not None:
        _set_montage(inst, steps.montage, name)


def known(inst: Recording, named: Iterable[str], field: str, name: str) -> None:
    """Refuse a parameter that names channels which the recording lacks."""
    missing = [channel for channel in named if channel not in inst.ch_names]
    if missing:
        raise DataError(
            f"{name}: {field} names {', '.join(missing)}; channels there: "
            f"{', '.join(inst.ch_names)}"
        )


def _set_montage(inst: Recording, montage: str, name: str) -> None:
    import mne

    try:
        template = mne.channels.make_standard_montage(montage)
    except ValueError as error:
        known = ", ".join(mne.channels.get_builtin_montages())
        raise DataError(f"montage '{montage}' is none of MNE's templates: {known}") from error
    # Channels that the template lacks keep no position; steps that need it say so.
    inst.set_montage(
        template, match_case=False, match_alias=True, on_missing="warn", verbose="warning"
    )
