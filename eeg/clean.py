"""Bad channels, eye, heart and muscle activity: found and mended by MNE, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eeg.convert import eeg_names, positions
from eeg.quality import Quality
from eeg.steps import Ica, Steps
from neuro.errors import DataError

if TYPE_CHECKING:
    import mne

    Recording: TypeAlias = mne.io.BaseRaw | mne.BaseEpochs

FEW_CHANNELS = 10
"""Below this, outliers among channels, spatial components and interpolation mean nothing."""

# The largest z-score among n values is (n - 1) / sqrt(n): a threshold of 3 needs many of them.
_FEW_COMPONENTS = 20


def find_bads(inst: Recording, steps: Steps, quality: Quality, name: str) -> None:
    """Mark bad channels in ``inst.info["bads"]`` and note why.

    Channels marked in the file or named by the user, channels without numbers, flat ones, and
    outliers of the local outlier factor.

    Raises
    ------
    DataError
        Where a channel named bad is not there, or no good channel is left.
    """
    eeg = eeg_names(inst)
    unknown = [channel for channel in steps.bads if channel not in inst.ch_names]
    if unknown:
        raise DataError(
            f"{name}: bads names {', '.join(unknown)}; channels there: {', '.join(eeg)}"
        )
    quality.bad([c for c in inst.info["bads"] if c in eeg], "marked in the file")
    quality.bad(steps.bads, "named in bads")
    inst.info["bads"] = list(dict.fromkeys([*inst.info["bads"], *steps.bads]))
    _mark(inst, _without_numbers(inst, eeg, quality), "no numbers (NaN)", quality)
    _refuse_all_bad(inst, quality, name)
    if steps.flat_channel is not None:
        limit = f"flat (within {steps.flat_channel * 1e6:g} uV)"
        _mark(inst, _flat(inst, steps.flat_channel, quality), limit, quality)
        quality.did("flat_channel")
    good = _refuse_all_bad(inst, quality, name)
    if steps.lof is not None:
        _outliers(inst, steps.lof, good, quality)
    n_bad, n = len(quality["bad_channels"]), len(eeg)
    if n_bad > n / 4:
        quality["warnings"].append(
            f"{n_bad} of {n} channels are bad: check the recording, channel_types and lof"
        )


def _refuse_all_bad(inst: Recording, quality: Quality, name: str) -> list[str]:
    eeg = eeg_names(inst)
    good = [channel for channel in eeg if channel not in inst.info["bads"]]
    if not good:
        reasons = "; ".join(f"{k}: {v}" for k, v in list(quality["bad_channels"].items())[:5])
        raise DataError(
            f"{name}: all {len(eeg)} EEG channels are bad ({reasons}); expected at least one with "
            "a signal: check the recording"
        )
    return good


def _mark(inst: Recording, channels: list[str], reason: str, quality: Quality) -> None:
    quality.bad(channels, reason)
    inst.info["bads"] = list(dict.fromkeys([*inst.info["bads"], *channels]))


def _without_numbers(inst: Recording, eeg: list[str], quality: Quality) -> list[str]:
    """Find channels of NaN only; bridge shorter gaps, which trials must not touch."""
    import mne

    raw = isinstance(inst, mne.io.BaseRaw)
    whole = inst.get_data(picks=eeg) if raw else inst.get_data(picks=eeg, copy=False)
    if np.isfinite(whole).all():
        return []
    empty, gaps = [], []
    for channel in eeg:
        missing = ~np.isfinite(inst.get_data(picks=[channel]))
        if missing.all():
            empty.append(channel)
        elif missing.any():
            gaps.append(channel)
    if gaps and raw:
        found = mne.preprocessing.annotate_nan(inst.copy().pick(gaps), verbose="error")
        inst.set_annotations(inst.annotations + found, verbose="error")
        quality["warnings"].append(f"gaps (NaN) in {', '.join(gaps)}: trials there are dropped")
    elif gaps:
        bad = ~np.isfinite(inst.get_data(picks=gaps)).all(axis=(1, 2))
        inst.drop(bad, reason="BAD_NAN", verbose="error")
        if bad.all():
            return []
    if empty or gaps:
        inst.apply_function(_bridge, picks=[*empty, *gaps], verbose="error")
    return empty


def _bridge(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros_like(values)
    at = np.arange(len(values))
    return np.interp(at, at[known], values[known])


def _flat(inst: Recording, limit: float, quality: Quality) -> list[str]:
    import mne

    if isinstance(inst, mne.io.BaseRaw):
        # A second without a change: a slow signal may well stand still for a few samples.
        spans, flat = mne.preprocessing.annotate_amplitude(
            inst, flat=limit, bad_percent=50, min_duration=1.0, picks="eeg", verbose="error"
        )
        if len(spans):
            inst.set_annotations(inst.annotations + spans, verbose="error")
        return list(flat)
    data = inst.get_data(picks="eeg", copy=False, verbose="error")
    names = [name for name in eeg_names(inst) if name not in inst.info["bads"]]
    share = (np.ptp(data, axis=-1) <= limit).mean(axis=0) if len(data) else np.zeros(len(names))
    return [name for name, part in zip(names, share, strict=True) if part > 0.5]


def _outliers(marked: Recording, threshold: float, good: list[str], quality: Quality) -> None:
    import mne

    inst = marked
    if len(good) < FEW_CHANNELS:
        return quality.skip("lof", f"{len(good)} channels are too few, {FEW_CHANNELS} needed")
    if not isinstance(inst, mne.io.BaseRaw):  # what MNE asks for; the order is of no account
        joined = np.concatenate(inst.get_data(copy=False), axis=-1)
        inst = mne.io.RawArray(joined, inst.info, verbose="error")
    found, scores = mne.preprocessing.find_bad_channels_lof(
        inst,
        # With nearly all channels as neighbours an outlier is everyone's neighbour, and hides.
        n_neighbors=min(20, 2 * len(good) // 3),
        picks="eeg",
        threshold=threshold,
        return_scores=True,
        verbose="error",
    )
    by_name = dict(zip(good, np.abs(scores), strict=True))
    for channel in found:
        reason = f"outlier (LOF {by_name[channel]:.2f}, threshold {threshold:g})"
        _mark(marked, [channel], reason, quality)
    return quality.did("lof")


def interpolate(inst: Recording, quality: Quality, name: str) -> None:
    """Replace bad EEG channels by what their neighbours predict.

    Raises
    ------
    DataError
        Where a channel without numbers can't be replaced.
    """
    bads = [channel for channel in eeg_names(inst) if channel in inst.info["bads"]]
    if not bads:
        return
    good = [channel for channel in eeg_names(inst) if channel not in bads]
    why = None
    if len(good) < FEW_CHANNELS:
        why = f"{len(good)} good channels are too few, {FEW_CHANNELS} needed"
    elif not positions(inst.info, [*good, *bads]):
        why = "not every channel has a position; set montage"
    if why is None:
        inst.interpolate_bads(reset_bads=True, verbose="error")
        quality["interpolated"] = bads
        quality.did("interpolate")
        return
    quality.skip("interpolate", why)
    refuse_unfixed(quality, name, why)


def refuse_unfixed(quality: Quality, name: str, why: str) -> None:
    """Refuse a recording that keeps a channel without numbers; say which bad ones it keeps."""
    kept = {k: v for k, v in quality["bad_channels"].items() if k not in quality["interpolated"]}
    empty = [channel for channel, reason in kept.items() if "NaN" in reason]
    if empty:
        raise DataError(
            f"{name}: the channels {', '.join(empty)} hold no numbers (NaN) and can't be "
            f"interpolated ({why}); leave them out by picks"
        )
    if kept:
        quality["warnings"].append(f"bad channels are kept as they are: {', '.join(kept)} ({why})")


def remove_components(raw: mne.io.BaseRaw, ica: Ica, quality: Quality) -> None:
    """Fit ICA on a high-passed copy; subtract components of eyes, heart and muscles."""
    from mne.preprocessing import ICA

    good = [channel for channel in eeg_names(raw) if channel not in raw.info["bads"]]
    if len(good) < FEW_CHANNELS:
        return quality.skip("ica", f"{len(good)} channels are too few, {FEW_CHANNELS} needed")
    copy = raw
    if raw.info["highpass"] < ica.l_freq:
        copy = raw.copy().filter(ica.l_freq, None, picks=signal_types(raw), verbose="error")
    fit_params = {"extended": True} if ica.method != "fastica" else None
    model = ICA(
        ica.n_components,
        method=ica.method,
        max_iter=ica.max_iter,
        random_state=ica.seed,
        fit_params=fit_params,
        verbose="error",
    )
    with quality.listen():
        model.fit(copy, picks="eeg", decim=ica.decim, verbose="warning")
        found = _artefacts(model, copy, ica, quality)
    model.exclude = sorted(found)
    model.apply(raw, verbose="error")
    quality["ica"] = {
        "method": ica.method,
        "n_components": int(model.n_components_),
        "n_iter": int(model.n_iter_),
        "removed": [{"component": int(k), "type": found[k]} for k in sorted(found)],
    }
    return quality.did("ica")


def _artefacts(model: Any, raw: mne.io.BaseRaw, ica: Ica, quality: Quality) -> dict[int, str]:
    types = raw.get_channel_types()
    found: dict[int, str] = {}
    source: Any
    for kind in ica.find:
        if kind == "eog":
            source = None if "eog" in types else [c for c in ica.eog if c in raw.ch_names]
            missing = source == []
            why = "no EOG channel; name frontal ones in ica.eog"
        elif kind == "ecg":
            source = None if "ecg" in types else ica.ecg
            missing, why = "ecg" not in types and ica.ecg is None, "no ECG channel"
        else:
            source, missing = None, not positions(raw.info, model.ch_names)
            why = "not every channel has a position; set montage"
        if missing:
            quality.skip(f"ica.{kind}", why)
            continue
        find = getattr(model, f"find_bads_{kind}")
        options = {} if kind == "muscle" else {"ch_name": source}
        if kind == "eog" and model.n_components_ < _FEW_COMPONENTS:
            options |= {"measure": "correlation", "threshold": 0.5}
        for component in find(raw, **options, verbose="error")[0]:
            found.setdefault(int(component), kind)
    return found


def regress_eog(inst: Recording, quality: Quality) -> None:
    """Subtract what the EOG channels predict from every EEG channel."""
    from mne.preprocessing import EOGRegression

    if "eog" not in inst.get_channel_types():
        return quality.skip("regress_eog", "no EOG channel; set channel_types")
    if not inst.info["custom_ref_applied"]:
        inst.set_eeg_reference([], verbose="error")  # says that the recorded reference is meant
    EOGRegression(picks="eeg", picks_artifact="eog", proj=False).fit(inst).apply(inst, copy=False)
    return quality.did("regress_eog")


def signal_types(inst: Recording) -> list[str]:
    """Return the types of the channels that hold signals, as far as there are such channels."""
    types = set(inst.get_channel_types())
    return [kind for kind in ("eeg", "eog", "ecg") if kind in types]
