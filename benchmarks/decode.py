"""Batch decode: all trials of a scan at once against one by one; memory over many scans.

    python benchmarks/decode.py                # the ratio, and memory at 10 and 1,000 scans
    python benchmarks/decode.py --scans 10 200

A MindEye of the preset `small` (4,000 voxels, 16 tokens of 32, prior of 20 steps) decodes scans of
60 trials: retrieval codes, tokens of the prior, top 5 of a gallery of 2,000 pictures. One side
gives it whole scans, as `neuro decode` does; the other one trial per call, as the published
scripts do. Both take turns and must give the same codes. For memory the real `neuro.decode` runs
over NIfTI files in processes of their own; what is compared is their peak resident memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import xarray as xr

VOXELS, TRIALS, TOKENS, FEATURES, GALLERY = 4_000, 60, 16, 32, 2_000


def study(folder: Path) -> None:
    """Save an encoder and a gallery."""
    from fmri.gallery_build import build_gallery
    from fmri.images import images_dataset
    from fmri.mindeye import MindEye

    rng = np.random.default_rng(0)
    names = [f"picture-{n:04d}" for n in range(GALLERY)]
    values = rng.standard_normal((GALLERY, TOKENS, FEATURES)).astype(np.float16)
    targets = xr.Dataset(
        {"signal": (("trial", "token", "feature"), values)},
        {"stimulus": ("trial", names)},
        {"fingerprint": '{"provider": "benchmark"}', "scale": 1.0},
    )
    betas = dataset(rng, 200).assign_coords(stimulus=("trial", names[:200]))
    model = MindEye(max_epochs=1, prior_max_epochs=1, device="cpu").fit(betas, targets)
    model.save(folder / "encoder")
    pixels = rng.random((GALLERY, 1, 16, 16), dtype=np.float32)
    build_gallery(targets, folder / "gallery", images=images_dataset(pixels, names))


def places() -> dict[str, tuple[str, np.ndarray]]:
    grid = np.unravel_index(np.arange(VOXELS), (20, 20, 10))
    return {name: ("voxel", axis) for name, axis in zip("ijk", grid, strict=True)}


def dataset(rng: np.random.Generator, n: int) -> xr.Dataset:
    values = rng.standard_normal((n, VOXELS), dtype=np.float32)
    attrs = {"units": "beta", "affine": str(np.eye(4).tolist())}
    return xr.Dataset({"signal": (("trial", "voxel"), values)}, places(), attrs)


def write_scans(folder: Path, n: int) -> None:
    """Write one scan and links to it: the reader sees n files."""
    import nibabel

    rng = np.random.default_rng(1)
    volume = rng.standard_normal((20, 20, 10, TRIALS)).astype(np.float32)
    folder.mkdir()
    first = folder / "scan-0000_betas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), first)
    for number in range(1, n):
        os.link(first, folder / f"scan-{number:04d}_betas.nii.gz")


def ratio(folder: Path, rounds: int) -> None:
    import neuro
    from fmri.decode import retrieve

    model = neuro.load(folder / "encoder")
    scan = dataset(np.random.default_rng(2), TRIALS)

    def decoded(part: xr.Dataset) -> np.ndarray:
        codes = model.transform(part)
        model.predict_tokens(part)
        retrieve(model, codes, folder / "gallery", 5)
        return codes.values

    whole, single = [], []
    decoded(scan.isel(trial=[0]))
    for _ in range(rounds):
        start = time.perf_counter()
        together = decoded(scan)
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        alone = np.concatenate([decoded(scan.isel(trial=[n])) for n in range(TRIALS)])
        single.append(time.perf_counter() - start)
        assert np.abs(together - alone).max() < 1e-4
    print(f"a scan at once: {TRIALS / statistics.median(whole):.1f} trials/s")
    print(f"a trial at a time: {TRIALS / statistics.median(single):.1f} trials/s")
    print(f"ratio: {statistics.median(np.divide(single, whole)):.1f} (goal >= 3)")


def peak(folder: Path, n: int) -> None:
    """Decode n scans in this process; print the peak resident memory in MB."""
    import neuro
    from neuro import decode

    model = neuro.load(folder / "encoder")
    write_scans(folder / f"scans-{n}", n)
    files = sorted((folder / f"scans-{n}").iterdir())
    options = type(model).DecodeOptions(gallery=folder / "gallery", steps=2)
    start = time.perf_counter()
    found = decode.decode(model, files, folder / f"decoded-{n}", options, identity="benchmark")
    assert all(one.row.status == "done" for one in found), found[0].row.error
    seconds = time.perf_counter() - start
    now = psutil.Process().memory_info().rss / 1e6
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, now, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scans", type=int, nargs=2, default=(10, 1000))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(Path(options.peak[0]), int(options.peak[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study(folder)
        ratio(folder, options.rounds)
        peaks = []
        for n in options.scans:
            command = [sys.executable, __file__, "--peak", name, str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            size, now, seconds = (float(word) for word in done.stdout.split()[-3:])
            peaks.append(size)
            print(
                f"{n} scans of {TRIALS} trials: peak {size:.0f} MB, at the end {now:.0f} MB, "
                f"{seconds:.1f} s"
            )
        print(f"memory, {options.scans[1]} / {options.scans[0]} scans: {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
