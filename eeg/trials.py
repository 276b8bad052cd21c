"""Filters, and what is done to trials once they are cut: baseline, rate, window, rejection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.clean import signal_types
from eeg.convert import check_magnitude, eeg_names, microvolts, positions
from eeg.events import count
from eeg.quality import Quality
from eeg.steps import Steps
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import mne

_FEW_FOR_LOCAL = 20  # autoreject interpolates trial by trial; its author asks for more than 30


def filter_recording(inst: mne.io.BaseRaw | mne.BaseEpochs, steps: Steps, quality: Quality) -> None:
    """Notch and band-pass, in place; on epochs only a low-pass that fits into them."""
    import mne

    types = signal_types(inst)
    l_freq = steps.l_freq
    if not isinstance(inst, mne.io.BaseRaw):
        if steps.notch is not None:
            quality.skip("notch", "needs a continuous recording")
        if l_freq is not None and not _fits(inst, l_freq):
            quality.skip("l_freq", "the trials are shorter than a high-pass of that edge")
            l_freq = None
    elif steps.notch is not None:
        inst.notch_filter(steps.notch, picks=types, verbose="error")
        quality.did("notch")
    if l_freq is None and steps.h_freq is None:
        return
    inst.filter(l_freq, steps.h_freq, picks=types, verbose="warning")
    quality.did("filter")


def _fits(epochs: mne.BaseEpochs, l_freq: float) -> bool:
    # MNE's default: a Hamming window of 3.3 / transition width, which is at most the edge.
    width = min(max(0.25 * l_freq, 2.0), l_freq)
    return 3.3 / width <= epochs.tmax - epochs.tmin


def cut_epochs(epochs: mne.BaseEpochs, steps: Steps, name: str) -> mne.BaseEpochs:
    """Crop ready-made epochs to the wanted window.

    Raises
    ------
    DataError
        Where they do not reach so far.
    """
    if steps.tmin is None and steps.tmax is None:
        return epochs
    return _crop(epochs, steps.tmin, steps.tmax, "tmin, tmax", name)


def finish(
    epochs: mne.BaseEpochs, steps: Steps, quality: Quality, name: str, *, check: bool = True
) -> mne.BaseEpochs:
    """Baseline, sampling rate, window, channels, rejection.

    Parameters
    ----------
    epochs : mne.BaseEpochs
        Loaded; changed in place.
    steps : Steps
        Parameters.
    quality : Quality
        Takes the figures.
    name : str
        The recording, for messages.
    check : bool
        Refuse amplitudes of another unit.

    Returns
    -------
    mne.BaseEpochs
    """
    if not len(epochs):
        return _finish_none(epochs, steps, quality, name)
    _baseline(epochs, steps, quality)
    epochs = _rate(epochs, steps, quality)
    if steps.crop is not None:
        epochs = _crop(epochs, *steps.crop, "crop", name)
        quality.did("crop")
    if steps.picks is not None:
        epochs = _pick(epochs, steps.picks, name)
    if check:
        check_magnitude(microvolts(epochs, eeg_names(epochs), _some(epochs)), name)
    before = epochs.drop_log
    epochs = _reject(epochs, steps, quality)
    count_drops(epochs, before, quality)
    quality["epochs"]["after"] = count(epochs)
    if not len(epochs):
        quality["warnings"].append("no trial is left")
    return epochs


def _finish_none(
    epochs: mne.BaseEpochs, steps: Steps, quality: Quality, name: str
) -> mne.BaseEpochs:
    """Give no trials the rate, window and channels of the others, which MNE does not do."""
    import mne

    stand_in = mne.EpochsArray(
        np.zeros((1, len(epochs.ch_names), len(epochs.times))),
        epochs.info,
        [[0, 0, min(epochs.event_id.values())]],
        tmin=epochs.tmin,
        event_id=epochs.event_id,
        on_missing="ignore",
        verbose="error",
    )
    calm = steps.model_copy(update=dict.fromkeys(("reject", "flat", "autoreject")))
    finished = finish(stand_in, calm, Quality(), name, check=False).drop([0], verbose="error")
    if epochs.metadata is not None:
        with mne.use_log_level("error"):
            finished.metadata = epochs.metadata
    quality["epochs"]["after"] = count(finished)
    quality["warnings"].append("no trial is left")
    return finished


def _some(epochs: mne.BaseEpochs) -> slice:
    return slice(None, None, -(-len(epochs) // 20) or 1)


def _baseline(epochs: mne.BaseEpochs, steps: Steps, quality: Quality) -> None:
    if steps.baseline is None:
        return
    start, stop = steps.baseline
    first, last = epochs.tmin, epochs.tmax
    # A window of a single sample, as where a trial starts at 0 s, is no baseline.
    if max(first, first if start is None else start) >= min(last, last if stop is None else stop):
        quality.skip("baseline", f"trials start at {first:g} s, none of it lies in the window")
        return
    start = None if start is None else max(start, first)
    stop = None if stop is None else min(stop, last)
    epochs.apply_baseline((start, stop), verbose="error")
    quality.did("baseline")


def _rate(epochs: mne.BaseEpochs, steps: Steps, quality: Quality) -> mne.BaseEpochs:
    decim, sfreq = steps.decim, float(epochs.info["sfreq"])
    if steps.resample is not None and abs(sfreq - steps.resample) > 1e-9:
        ratio = sfreq / steps.resample
        # MNE's rule: below a third of the new rate nothing can fold back.
        clean = epochs.info["lowpass"] <= steps.resample / 2.5
        if abs(ratio - round(ratio)) > 1e-9 or not clean:
            quality.did(f"resample ({sfreq:g} to {steps.resample:g} Hz)")
            return epochs.resample(steps.resample, verbose="error")
        decim = round(ratio)
    if decim is not None and decim > 1:
        epochs.decimate(decim, verbose="warning")
        quality.did(f"decimate (every {decim}. sample of {sfreq:g} Hz)")
    return epochs


def _crop(
    epochs: mne.BaseEpochs, tmin: float | None, tmax: float | None, field: str, name: str
) -> mne.BaseEpochs:
    slack = 0.5 / float(epochs.info["sfreq"])
    early = tmin is not None and tmin < epochs.tmin - slack
    late = tmax is not None and tmax > epochs.tmax + slack
    if early or late:
        raise DataError(
            f"{name}: its trials reach from {epochs.tmin:g} to {epochs.tmax:g} s, {field} asks for "
            f"{tmin} to {tmax} s; ask for less, or cut longer trials"
        )
    return epochs.crop(
        None if tmin is None else max(tmin, epochs.tmin),
        None if tmax is None else min(tmax, epochs.tmax),
        verbose="error",
    )


def _pick(epochs: mne.BaseEpochs, picks: Sequence[str], name: str) -> mne.BaseEpochs:
    missing = [channel for channel in picks if channel not in eeg_names(epochs)]
    if missing:
        raise DataError(
            f"{name}: picks names {', '.join(missing)}; EEG channels there: "
            f"{', '.join(eeg_names(epochs))}"
        )
    types = epochs.get_channel_types()
    other = [c for c, kind in zip(epochs.ch_names, types, strict=True) if kind != "eeg"]
    return epochs.pick([*picks, *other], verbose="error").reorder_channels([*picks, *other])


def _reject(epochs: mne.BaseEpochs, steps: Steps, quality: Quality) -> mne.BaseEpochs:
    for field in ("flat", "reject"):
        limits = _limits(epochs, getattr(steps, field), field, quality)
        if limits and len(epochs):
            epochs.drop_bad(**{"reject": None, "flat": None, field: limits}, verbose="error")
            quality.did(field)
    if steps.autoreject is not None and len(epochs):
        epochs = _autoreject(epochs, steps.autoreject, quality)
    return epochs


def _limits(
    epochs: mne.BaseEpochs, limits: float | dict[str, float] | None, field: str, quality: Quality
) -> dict[str, float]:
    if limits is None:
        return {}
    wanted = limits if isinstance(limits, dict) else {"eeg": limits}
    types = set(epochs.get_channel_types())
    for kind in set(wanted) - types:
        quality.skip(f"{field}.{kind}", f"there is no {kind} channel")
    return {kind: limit for kind, limit in wanted.items() if kind in types}


def _autoreject(epochs: mne.BaseEpochs, mode: str, quality: Quality) -> mne.BaseEpochs:
    try:
        import autoreject
    except ImportError as error:
        raise InputError(
            "autoreject: the package 'autoreject' is not installed; "
            "pip install 'neuro-representations[autoreject]', or use reject"
        ) from error
    import mne

    names = eeg_names(epochs)
    if mode == "local" and (len(names) < _FEW_FOR_LOCAL or not positions(epochs.info, names)):
        why = f"{len(names)} channels, or no positions; global thresholds instead"
        quality.skip("autoreject.local", why)
        mode = "global"
    if mode == "global":
        limits = autoreject.get_rejection_threshold(
            epochs, ch_types="eeg", random_state=0, verbose=False
        )
        epochs.drop_bad(reject=limits, verbose="error")
        quality["autoreject"] = {kind: float(limit) for kind, limit in limits.items()}
    else:
        model = autoreject.AutoReject(picks="eeg", random_state=0, n_jobs=1, verbose=False)
        with mne.use_log_level("error"):
            epochs, log = model.fit_transform(epochs, return_log=True)
        quality["autoreject"] = {"repaired": int((log.labels == 2).sum())}
    quality.did(f"autoreject ({mode})")
    return epochs


def count_drops(epochs: mne.BaseEpochs, before: Sequence[Any], quality: Quality) -> None:
    """Add the trials dropped since `before` (an earlier drop log) to the figures, with reasons.

    Amplitude thresholds are counted as ``amplitude``, and by channel in ``dropped_channels``.
    """
    reasons: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    for old, new in zip(before, epochs.drop_log, strict=True):
        if not new or new == old or "IGNORED" in new:
            continue
        named = [reason for reason in new if reason in epochs.ch_names]
        channels.update(named)
        reasons["amplitude" if named else new[0]] += 1
    quality.drop(reasons)
    total = Counter(quality.get("dropped_channels", {})) + channels
    quality["dropped_channels"] = dict(total.most_common())
