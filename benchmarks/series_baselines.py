"""Plain features on the two real sets of series: a person or a speaker left out in turn.

Run with ``NEURO_DATA=... python benchmarks/series_baselines.py``. Features are standardised on the
training persons only; no value of the held-out one is used.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from timeseries.downstream import grouped_accuracy, summary_features
from timeseries.read_series import read_series
from timeseries.spectra import Spectra, spectral_frames
from timeseries.windows import Windows, cut_windows

ACTIVITIES = (
    "WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING",
)  # fmt: skip


def hapt(folder: Path) -> None:
    """Six activities by person, windows of 2.56 s with half overlap."""
    recordings = [r for path in sorted(folder.glob("*.npz")) for r in read_series(path, sfreq=50.0)]
    data = cut_windows(recordings, Windows(2.56))
    data = data.isel(trial=np.isin(data["class"].values, ACTIVITIES))
    X, y, person = data["signal"].values, data["class"].values, data["subject"].values
    show("ts-hapt, summary features", grouped_accuracy(summary_features(X), y, person))
    every = X[..., ::4].reshape(len(X), -1)
    show("ts-hapt, every 4th sample", grouped_accuracy(every, y, person))


def fsdd(folder: Path) -> None:
    """Ten digits by speaker, whole clips."""
    paths = sorted(folder.glob("*.npz"))
    data = cut_windows([r for p in paths for r in read_series(p, label="digit")], Windows())
    X, y, speaker = data["signal"].values, data["class"].values, data["subject"].values
    for centre in (False, True):
        how = Spectra(n_frames=20, centre=centre)
        frames, _ = spectral_frames(X, data.attrs["sfreq"], how, data["length"].values)
        title = f"ts-fsdd, cepstra{', centred' if centre else ''}"
        show(title, grouped_accuracy(frames.reshape(len(X), -1), y, speaker))
    plain = summary_features(X, data["mask"].values)
    show("ts-fsdd, summary features", grouped_accuracy(plain, y, speaker))


def show(title: str, scores: dict[str, float]) -> None:
    """Print the mean and every group."""
    groups = "  ".join(f"{name} {score:.3f}" for name, score in scores.items())
    print(f"{title}: mean {np.mean(list(scores.values())):.3f}\n  {groups}", flush=True)


if __name__ == "__main__":
    root = Path(os.environ["NEURO_DATA"])
    fsdd(root / "ts-fsdd")
    hapt(root / "ts-hapt")
