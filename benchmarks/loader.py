"""Batches of windows per second: ours against braindecode's eager dataset.

6,000 windows of 32 channels x 256 samples from 20 recordings, batch 64, shuffled, no workers.
Needs braindecode (``pip install braindecode`` in an environment of its own):

    python benchmarks/loader.py
"""

from __future__ import annotations

import statistics
import time

import mne
import numpy as np
import pandas as pd
from braindecode.datasets import create_from_X_y
from torch.utils.data import DataLoader

from neuro.batches import Batches

RECORDINGS, PER_RECORDING, CHANNELS, TIMES, BATCH = 20, 300, 32, 256, 64


def windows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((RECORDINGS * PER_RECORDING, CHANNELS, TIMES), dtype=np.float32)


def braindecode_loader(signal: np.ndarray) -> DataLoader:
    """The eager form: windows cut from recordings that are held in memory."""
    joined = [
        np.concatenate(list(part), axis=1) for part in np.split(signal.astype(float), RECORDINGS)
    ]
    dataset = create_from_X_y(
        joined,
        [0] * RECORDINGS,
        drop_last_window=False,
        sfreq=256.0,
        ch_names=[f"E{i}" for i in range(CHANNELS)],
        window_size_samples=TIMES,
        window_stride_samples=TIMES,
    )
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0)


def rate(loader: object) -> float:
    start = time.perf_counter()
    n = 0
    for batch in loader:  # type: ignore[attr-defined]
        n += len(batch["x"] if isinstance(batch, dict) else batch[0])
    return n / (time.perf_counter() - start)


def main() -> None:
    mne.set_log_level("error")
    signal = windows()
    theirs = braindecode_loader(signal)
    ours = Batches({"x": signal}, BATCH, seed=0)
    rows = []
    for repeat in range(6):
        ours.set_epoch(repeat)
        rows.append({"ours": rate(ours), "braindecode": rate(theirs)})
    table = pd.DataFrame(rows[1:])  # the first is the warm-up
    ratio = statistics.median(table.ours / table.braindecode)
    print(table.median().round(0).to_string())
    print(f"ours / braindecode eager: {ratio:.1f} (median of {len(table)}; goal >= 10)")


if __name__ == "__main__":
    main()
