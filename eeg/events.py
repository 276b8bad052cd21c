"""Which samples of a recording are events, and under which condition they go."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eeg.steps import Event, Steps
from neuro.errors import DataError

if TYPE_CHECKING:
    import mne

Samples = dict[str, NDArray[np.int64]]


def find_events(raw: mne.io.BaseRaw, steps: Steps, name: str) -> tuple[NDArray[np.int64], dict]:
    """Find the events of every condition.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Continuous recording.
    steps : Steps
        With ``event_id``.
    name : str
        The recording, for messages.

    Returns
    -------
    events : ndarray, shape (n_events, 3)
        As `mne.Epochs` takes them.
    event_id : dict of str to int
        Condition to code.

    Raises
    ------
    DataError
        Where a wanted event is not in the recording; those that are there are listed.
    """
    marked, coded = _annotated(raw), _coded(raw)
    wanted = _wanted(steps.event_id, marked or coded)
    there = ", ".join(f"{k} ({len(v)})" for k, v in {**coded, **marked}.items()) or "none at all"
    if not wanted:
        raise DataError(
            f"{name}: no event found, neither annotations nor pulses of a stimulus channel; "
            "trials need events (a BIDS study keeps them in *_events.tsv)"
        )
    event_id = {condition: code for code, condition in enumerate(wanted, start=1)}
    blocks = []
    for condition, sources in wanted.items():
        samples = [marked.get(source, coded.get(source)) for source in sources]
        missing = [source for source, at in zip(sources, samples, strict=True) if at is None]
        if missing:
            raise DataError(
                f"{name}: no event '{', '.join(missing)}' (condition '{condition}'); events "
                f"there: {there}. Correct event_id"
            )
        at = np.concatenate([found for found in samples if found is not None])
        code = np.full_like(at, event_id[condition])
        blocks.append(np.column_stack([at, np.zeros_like(at), code]))
    events = np.concatenate(blocks)
    return events[np.argsort(events[:, 0], kind="stable")], event_id


def select_events(epochs: mne.BaseEpochs, steps: Steps, name: str) -> mne.BaseEpochs:
    """Keep and rename the conditions of ready-made epochs.

    Raises
    ------
    DataError
        Where a wanted condition is not there; those that are there are listed.
    """
    if steps.event_id is None:
        return epochs
    codes = {str(code): code for code in epochs.event_id.values()} | epochs.event_id
    event_id, events = {}, epochs.events
    there = ", ".join(f"{k} ({code})" for k, code in epochs.event_id.items())
    keep = np.zeros(len(epochs), bool)
    for new, (condition, sources) in enumerate(_wanted(steps.event_id, {}).items(), start=1):
        missing = [source for source in sources if source not in codes]
        if missing:
            raise DataError(
                f"{name}: no event '{', '.join(missing)}' (condition '{condition}') among its "
                f"epochs; events there: {there}. Correct event_id"
            )
        rows = np.isin(epochs.events[:, 2], [codes[source] for source in sources])
        keep |= rows
        events = np.where(rows[:, None] & [False, False, True], -new, events)
        event_id[condition] = new
    epochs = epochs[keep]
    epochs.events = np.abs(events[keep])
    epochs.event_id = event_id
    return epochs


def condition_names(epochs: mne.BaseEpochs) -> NDArray[np.str_]:
    """Return every epoch's condition, the name of its event."""
    names = {code: name for name, code in epochs.event_id.items()}
    return np.asarray([names.get(code, str(code)) for code in epochs.events[:, 2]], dtype=str)


def count(epochs: mne.BaseEpochs) -> dict[str, int]:
    """Return the number of epochs of every condition."""
    counts = Counter(condition_names(epochs).tolist())
    return {name: counts.get(name, 0) for name in epochs.event_id}


def _wanted(event_id: dict[str, Event] | list[str] | None, found: Samples) -> dict[str, list[str]]:
    if event_id is None:
        return {name: [name] for name in found}
    if isinstance(event_id, list):
        return {name: [name] for name in event_id}
    return {
        name: [str(value) for value in (source if isinstance(source, list) else [source])]
        for name, source in event_id.items()
    }


def _annotated(raw: mne.io.BaseRaw) -> Samples:
    """Samples of each annotation that is neither a bad span nor an edge."""
    import mne

    texts = sorted(set(raw.annotations.description.tolist()))
    codes = {
        text: code
        for code, text in enumerate(texts, start=1)
        if not text.lower().startswith(("bad", "edge"))
    }
    if not codes:
        return {}
    events, codes = mne.events_from_annotations(raw, event_id=codes, verbose="error")
    return {name: events[events[:, 2] == code, 0] for name, code in codes.items()}


def _coded(raw: mne.io.BaseRaw) -> Samples:
    """Samples of each code of the stimulus channels."""
    import mne

    stim = [
        n for n, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind == "stim"
    ]
    if not stim:
        return {}
    # One sample is enough for an event: markers of a CSV recording last no longer.
    events = mne.find_events(raw, stim, shortest_event=1, verbose="error")
    return {str(code): events[events[:, 2] == code, 0] for code in np.unique(events[:, 2])}
