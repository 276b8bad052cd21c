"""Our preprocessing beside a script of bare MNE calls, on the eeglab sample.

    NEURO_DATA=... python benchmarks/preprocess.py [--repeats 15] [--ica]

Both read the same file, apply the same steps and end with the same array, which is checked. The
bare script does only what a careful user would write; ours adds checks, figures and the dataset.
Prints the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import mne
import numpy as np

from eeg.preprocess import Steps, preprocess

EOG = {"EOG1": "eog", "EOG2": "eog"}


def bare(path: Path, ica: bool) -> Any:
    raw = mne.io.read_raw(path, verbose="error")
    raw.set_channel_types(EOG, on_unit_change="ignore", verbose="error")
    raw.load_data(verbose="error")
    spans, flat = mne.preprocessing.annotate_amplitude(
        raw, flat=1e-7, bad_percent=50, min_duration=1.0, picks="eeg", verbose="error"
    )
    if len(spans):
        raw.set_annotations(raw.annotations + spans)
    raw.info["bads"] += flat
    raw.info["bads"] += mne.preprocessing.find_bad_channels_lof(raw, picks="eeg", verbose="error")
    raw.filter(0.5, 30, picks=["eeg", "eog"], verbose="error")
    if ica:
        copy = raw.copy().filter(1.0, None, picks=["eeg", "eog"], verbose="error")
        model = mne.preprocessing.ICA(0.999, random_state=0, verbose="error")
        model.fit(copy, picks="eeg", verbose="error")
        model.exclude = model.find_bads_eog(copy, verbose="error")[0]
        model.apply(raw, verbose="error")
    raw.interpolate_bads(verbose="error")
    raw.set_eeg_reference("average", verbose="error")
    events, event_id = mne.events_from_annotations(raw, event_id={"square": 1}, verbose="error")
    epochs = mne.Epochs(
        raw, events, event_id, -0.2, 0.8, baseline=(None, 0), preload=True, verbose="error"
    )
    epochs.drop_bad(reject={"eeg": 150e-6}, verbose="error")
    return (epochs.get_data("eeg", copy=False) * 1e6).astype(np.float32)


def ours(path: Path, ica: bool) -> Any:
    steps = Steps(
        channel_types=EOG,
        l_freq=0.5,
        h_freq=30,
        ica={"find": ["eog"]} if ica else None,
        reference="average",
        event_id=["square"],
        reject=150e-6,
    )
    return preprocess(path, steps)[0]["signal"].values


def timed(call: Any, *args: Any) -> float:
    start = time.perf_counter()
    call(*args)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--ica", action="store_true")
    options = parser.parse_args()
    path = Path(os.environ["NEURO_DATA"]) / "eeg-eeglab-sample" / "eeglab_data.set"
    np.testing.assert_allclose(ours(path, options.ica), bare(path, options.ica), atol=1e-3)
    pairs = []
    for number in range(options.repeats):
        # In turns and in both orders, so that neither profits from a warm cache or a quiet machine.
        order = (ours, bare) if number % 2 else (bare, ours)
        seconds = {call.__name__: timed(call, path, options.ica) for call in order}
        pairs.append((seconds["ours"], seconds["bare"]))
    mine, plain = np.array(pairs).T
    print(
        json.dumps(
            {
                "ica": options.ica,
                "ours_s": round(float(np.median(mine)), 4),
                "bare_s": round(float(np.median(plain)), 4),
                "ratio": round(float(np.median(mine / plain)), 3),
                "repeats": options.repeats,
                "mne": mne.__version__,
                "machine": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
