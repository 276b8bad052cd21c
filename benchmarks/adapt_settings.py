"""Settings of networks on ts-fsdd, compared within speakers alone: no other speaker is looked at.

Run with ``NEURO_DATA=... python benchmarks/adapt_settings.py``. A network is trained on half of a
speaker's clips and scored on the other half, for each speaker by itself (seed 100). The setting
with the best mean is that of ``benchmarks/adapt_fsdd.yaml``. Every speaker is a target of some pair
there, so that the choice is also shown without each of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xarray as xr

from neuro.data import as_signal, split_groups
from timeseries.adapt_study import supervised
from timeseries.read_series import read_series
from timeseries.spectra import Spectra, spectra_dataset
from timeseries.windows import Windows, cut_windows

SEED = 100
FRAMES = {"20 frames": Spectra(n_frames=20), "a frame each 16 ms": Spectra()}
SETTINGS = (
    ("20 frames", "conv", 40, 20.0), ("20 frames", "conv", 80, 20.0),
    ("20 frames", "conv", 80, 100.0), ("20 frames", "conv", 160, 100.0),
    ("20 frames", "gru", 80, 100.0), ("20 frames", "tcn", 80, 100.0),
    ("20 frames", "mlp", 80, 100.0), ("a frame each 16 ms", "conv", 80, 100.0),
)  # fmt: skip


def score(data: xr.Dataset, network: dict[str, object]) -> dict[str, float]:
    """Return by speaker the accuracy on the other half of its clips."""
    signal, label = as_signal(data), data["class"].values.astype(str)
    speaker, found = data["subject"].values, {}
    for name in np.unique(speaker):
        rows = np.flatnonzero(speaker == name)
        clips = data["recording"].values[rows]
        train, test = (
            rows[part] for part in split_groups(clips, clips, test_size=0.5, random_state=SEED)
        )
        model = supervised(network, SEED, signal, train, label[train])
        found[str(name)] = float((model.predict(signal.isel(trial=test)) == label[test]).mean())
    return found


def main() -> None:
    """Print every setting."""
    folder = Path(os.environ["NEURO_DATA"]) / "ts-fsdd"
    clips = [r for path in sorted(folder.glob("*.npz")) for r in read_series(path, label="digit")]
    waves = cut_windows(clips, Windows())
    sets = {name: spectra_dataset(waves, how) for name, how in FRAMES.items()}
    every: dict[str, dict[str, float]] = {}
    for frames, network, epochs, weight in SETTINGS:
        settings = {
            "network": network, "max_epochs": epochs, "label_weight": weight, "n_hidden": 64,
            "batch_size": 64,
        }  # fmt: skip
        title = f"{frames}, {network}, {epochs} epochs, class {weight:g}"
        every[title] = score(sets[frames], settings)
        print(f"{title}: {np.mean(list(every[title].values())):.3f}", every[title], flush=True)
    for name in every[title]:
        means = {
            title: float(np.mean([value for who, value in scores.items() if who != name]))
            for title, scores in every.items()
        }
        best = [title for title, mean in means.items() if mean > max(means.values()) - 1e-9]
        print(f"best without {name}: {'; '.join(best)} ({max(means.values()):.3f})")


if __name__ == "__main__":
    main()
