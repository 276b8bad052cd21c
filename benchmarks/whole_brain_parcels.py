"""Parcellate a 4-D file: `fmri.parcel_series` beside nilearn's NiftiLabelsMasker.

    python benchmarks/whole_brain_parcels.py [--shape 80 96 72 200] [--parcels 400] [--repeats 3]
        [--suffix .nii.gz] [--folder FOLDER]

Both average the same int16 file of a simulated brain over the same label image, and the arrays are
compared. Each measurement is a process of its own: the seconds are those of the work, without
imports; the memory is the largest resident size. Prints the median of the paired ratios. isal is
used where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("ours", "nilearn")
SMALL = (8, 8, 8, 10)


def simulate(folder: Path, shape: tuple[int, ...], n_parcels: int, suffix: str) -> None:
    """Write a brain of about a third of the box in compact parcels, with noise; 0 outside."""
    import nibabel
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    grid = np.indices(shape[:3])
    radius = sum(((x - n / 2) / (0.42 * n)) ** 2 for x, n in zip(grid, shape[:3], strict=True))
    inside = radius < 1
    at = np.argwhere(inside)
    seeds = at[rng.choice(len(at), min(n_parcels, len(at) // 4), replace=False)]
    labels = np.zeros(shape[:3], np.int16)
    labels[inside] = cKDTree(seeds).query(at)[1] + 1
    base = (800 + 400 * np.exp(-radius)) * inside
    values = np.zeros(shape, np.int16)
    for t in range(shape[3]):
        values[..., t] = (base + rng.normal(0.05 * t, 12, shape[:3])) * inside
    image = nibabel.Nifti1Image(values, np.diag([2.5, 2.5, 2.5, 1]))
    image.header.set_zooms((2.5, 2.5, 2.5, 2.0))
    nibabel.save(image, folder / f"bold{suffix}")
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), folder / "atlas.nii.gz")


def ours(folder: Path, suffix: str) -> Any:
    from fmri.parcel_series import parcel_series

    return parcel_series(folder / f"bold{suffix}", folder / "atlas.nii.gz")["signal"].values


def nilearn(folder: Path, suffix: str) -> Any:
    from nilearn.maskers import NiftiLabelsMasker

    masker = NiftiLabelsMasker(folder / "atlas.nii.gz", standardize=None, dtype="float32")
    return masker.fit_transform(folder / f"bold{suffix}")


def measure(side: str, folder: Path, suffix: str) -> None:
    """Run one side in this process; a first small call pays for what is imported late."""
    call = {"ours": ours, "nilearn": nilearn}[side]
    call(folder / "small", suffix)
    start = time.perf_counter()
    values = call(folder, suffix)
    seconds = time.perf_counter() - start
    np.save(folder / f"{side}.npy", values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def in_a_process(side: str, folder: Path, suffix: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--suffix", suffix], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=4, default=(80, 96, 72, 200))
    parser.add_argument("--parcels", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--suffix", choices=(".nii", ".nii.gz"), default=".nii.gz")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.folder, options.suffix)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        (folder / "small").mkdir(parents=True, exist_ok=True)
        simulate(folder / "small", SMALL, 8, options.suffix)
        simulate(folder, tuple(options.shape), options.parcels, options.suffix)
        runs = []
        for number in range(options.repeats):
            # In turns and in both orders, so that neither profits from a quiet machine.
            order = SIDES if number % 2 else SIDES[::-1]
            runs.append({side: in_a_process(side, folder, options.suffix) for side in order})
        mine, peer = (np.load(folder / f"{side}.npy") for side in SIDES)
        np.testing.assert_allclose(mine, peer, rtol=1e-5)
        report(runs, options, float(np.abs(mine - peer).max()))


def report(runs: list[dict[str, dict[str, float]]], options: Any, difference: float) -> None:
    def median(side: str, key: str) -> float:
        return float(np.median([run[side][key] for run in runs]))

    ratios = [run["nilearn"]["seconds"] / run["ours"]["seconds"] for run in runs]
    try:
        import isal

        codec = f"isal {isal.__version__}"
    except ImportError:
        codec = "zlib"
    print(
        json.dumps(
            {
                "shape": list(options.shape), "parcels": options.parcels,
                "suffix": options.suffix, "codec": codec,
                "ours_s": round(median("ours", "seconds"), 3),
                "nilearn_s": round(median("nilearn", "seconds"), 3),
                "times_faster": round(float(np.median(ratios)), 2),
                "ours_peak_mb": round(median("ours", "peak")),
                "nilearn_peak_mb": round(median("nilearn", "peak")),
                "max_difference": difference, "repeats": options.repeats, "cores": os.cpu_count(),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
