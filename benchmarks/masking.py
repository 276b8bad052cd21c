"""Mask, detrend and z-score a 4-D file: `fmri.read` and `fmri.clean` beside nilearn's NiftiMasker.

    python benchmarks/masking.py [--shape 80 96 72 200] [--repeats 3] [--folder FOLDER]

Both read the same int16 ``.nii.gz`` of a simulated brain and give the same array, which is checked.
Each measurement is a process of its own: the seconds are those of the work, without imports; the
memory is the largest resident size of the process, and the same less that after the imports.
Prints the median of the paired ratios. isal is used where it is installed.
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


def simulate(folder: Path, shape: tuple[int, ...]) -> None:
    """Write a brain of about a third of the box, drifting, with noise; 0 outside."""
    import nibabel

    rng = np.random.default_rng(0)
    grid = np.indices(shape[:3])
    radius = sum(((x - n / 2) / (0.42 * n)) ** 2 for x, n in zip(grid, shape[:3], strict=True))
    inside = radius < 1
    base = (800 + 400 * np.exp(-radius)) * inside
    values = np.zeros(shape, np.int16)
    for t in range(shape[3]):
        values[..., t] = (base + rng.normal(0.05 * t, 12, shape[:3])) * inside
    image = nibabel.Nifti1Image(values, np.diag([2.5, 2.5, 2.5, 1]))
    image.header.set_zooms((2.5, 2.5, 2.5, 2.0))
    nibabel.save(image, folder / "bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), image.affine), folder / "mask.nii.gz")


def ours(folder: Path) -> tuple[Any, float]:
    from fmri.clean import clean
    from fmri.read import read_bold

    before = peak()
    found = clean(read_bold(folder / "bold.nii.gz", folder / "mask.nii.gz"), copy=False)
    return found["signal"].values, before


def nilearn(folder: Path) -> tuple[Any, float]:
    from nilearn.maskers import NiftiMasker

    before = peak()
    masker = NiftiMasker(
        folder / "mask.nii.gz", detrend=True, standardize="zscore_sample", dtype="float32"
    )
    return masker.fit_transform(folder / "bold.nii.gz"), before


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(side: str, folder: Path) -> None:
    """Run one side in this process; a first small call pays for what is imported late."""
    call = {"ours": ours, "nilearn": nilearn}[side]
    call(folder / "small")
    start = time.perf_counter()
    values, before = call(folder)
    seconds = time.perf_counter() - start
    np.save(folder / f"{side}.npy", values[:, :: max(1, values.shape[1] // 5000)])
    print(json.dumps({"seconds": seconds, "peak": peak(), "before": before}))


def in_a_process(side: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=4, default=(80, 96, 72, 200))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--side", choices=(*SIDES, "simulate"))
    options = parser.parse_args()
    if options.side == "simulate":
        simulate(options.folder / "small", SMALL)
        simulate(options.folder, tuple(options.shape))
        return
    if options.side:
        measure(options.side, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        (folder / "small").mkdir(parents=True, exist_ok=True)
        # In a process of its own: a child's largest size begins with that of its parent.
        shape = map(str, options.shape)
        command = [sys.executable, __file__, "--side", "simulate", "--folder", str(folder)]
        subprocess.run([*command, "--shape", *shape], check=True)
        runs = []
        for number in range(options.repeats):
            # In turns and in both orders, so that neither profits from a quiet machine.
            order = SIDES if number % 2 else SIDES[::-1]
            runs.append({side: in_a_process(side, folder) for side in order})
        mine, peer = (np.load(folder / f"{side}.npy") for side in SIDES)
        np.testing.assert_allclose(mine, peer, atol=2e-3)
        report(runs, options, float(np.abs(mine - peer).max()))


def report(runs: list[dict[str, dict[str, float]]], options: Any, difference: float) -> None:
    def median(side: str, key: str) -> float:
        return float(np.median([run[side][key] for run in runs]))

    ratios = [run["nilearn"]["seconds"] / run["ours"]["seconds"] for run in runs]
    memory = [run["ours"]["peak"] / run["nilearn"]["peak"] for run in runs]
    grown = [
        (run["ours"]["peak"] - run["ours"]["before"])
        / (run["nilearn"]["peak"] - run["nilearn"]["before"])
        for run in runs
    ]
    try:
        import isal

        codec = f"isal {isal.__version__}"
    except ImportError:
        codec = "zlib"
    print(
        json.dumps(
            {
                "shape": list(options.shape), "codec": codec,
                "ours_s": round(median("ours", "seconds"), 3),
                "nilearn_s": round(median("nilearn", "seconds"), 3),
                "times_faster": round(float(np.median(ratios)), 2),
                "ours_peak_mb": round(median("ours", "peak")),
                "nilearn_peak_mb": round(median("nilearn", "peak")),
                "memory_ratio": round(float(np.median(memory)), 3),
                "memory_ratio_without_imports": round(float(np.median(grown)), 3),
                "max_difference": difference, "repeats": options.repeats, "cores": os.cpu_count(),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
