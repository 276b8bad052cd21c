"""A small synthetic recording in MNE's own form: 16 electrodes, an EOG, events, a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

CHANNELS = ["Fp1", "Fp2", "F3", "Fz", "F4", "C3", "Cz", "C4", "P3", "Pz", "P4"]
CHANNELS += ["PO7", "PO8", "O1", "Oz", "O2"]


def synthetic_raw(
    *,
    sfreq: float = 200.0,
    seconds: float = 40.0,
    channels: list[str] | None = None,
    montage: bool = True,
    events: tuple[str, ...] = ("target", "standard"),
    blinks: float = 0.0,
    seed: int = 0,
) -> Any:
    """10 uV of noise; a 20 uV response at 0.3 s after each event, the first channels most."""
    import mne

    names = channels or CHANNELS
    rng = np.random.default_rng(seed)
    n = int(seconds * sfreq)
    # Sources shared by all channels, as volume conduction makes them, and some noise of each.
    mixing = rng.normal(size=(len(names), 4))
    data = 5e-6 * (mixing @ rng.normal(size=(4, n))) + 3e-6 * rng.normal(size=(len(names), n))
    onsets = np.arange(1.0, seconds - 1.5, 1.0)
    times = np.arange(n) / sfreq
    for onset in onsets:
        data += 20e-6 * np.exp(-0.5 * ((times - onset - 0.3) / 0.05) ** 2)
    eog = 5e-6 * rng.normal(size=(1, n))
    for blink in np.arange(2.2, seconds - 1, 4.0):
        wave = blinks * np.exp(-0.5 * ((times - blink) / 0.08) ** 2)
        eog[0] += wave
        data += np.linspace(0.8, 0.05, len(names))[:, None] * wave
    info = mne.create_info([*names, "EOG"], sfreq, ["eeg"] * len(names) + ["eog"])
    raw = mne.io.RawArray(np.vstack([data, eog]), info, verbose="error")
    if montage:
        raw.set_montage("standard_1005", on_missing="ignore", verbose="error")
    if events:
        texts = [events[i % len(events)] for i in range(len(onsets))]
        raw.set_annotations(mne.Annotations(onsets, 0.0, texts), verbose="error")
    return raw


@pytest.fixture
def make_raw() -> Callable[..., Any]:
    return synthetic_raw
