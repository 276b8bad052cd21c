"""RF: all-pairs scores in blocks, channels beside sionna, bursts of a large capture, paper steps.

    python benchmarks/rf.py pairs [--records 50000] [--latents 512]
    python benchmarks/rf.py channel [--bursts 256]         needs: pip install sionna-no-rt
    python benchmarks/rf.py read [--gigabytes 1]
    python benchmarks/rf.py paper [--steps 20]             needs a GPU
    python benchmarks/rf.py adsb                           needs NEURO_DATA

`pairs`: exact AUC and EER of all pairs without their matrix, against the matrix on 5,000 records.
`channel`: ours is block-fading (a channel does not change within a burst of 128 us); sionna's is
time-varying, at a speed of 0 here, so that both give the same statistics; only the time differs.
`read`: one process reads a cu8 capture and finds its bursts; its peak memory is printed.
`paper`: steps/s of the paper's sizes in bf16, channels-last, compiled, against eager fp32.
`adsb`: how many Mode S replies of a real capture lie in a burst that was found. All are of one
aircraft, so that nothing is said of devices.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np


def peak() -> float:
    """Return the largest resident size of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pairs(records: int, latents: int) -> None:
    """Score all pairs of many fingerprints, and of a few by the full matrix."""
    from neuro.metrics.verification import verify_pairs

    rng = np.random.default_rng(0)
    source = rng.integers(0, 50, records)
    codes = rng.normal(size=(50, latents)).astype("f4")[source]
    codes += 3 * rng.standard_normal(codes.shape, dtype="f4")
    start, before = time.process_time(), peak()
    found = verify_pairs(codes, source)
    seconds = time.process_time() - start
    print(
        f"{records} x {latents}: {found.n_same + found.n_different:.3g} pairs in {seconds:.0f} s "
        f"of processor time, peak memory {peak():.0f} MB ({before:.0f} MB before); the full matrix "
        f"would take {8 * records**2 / 1e9:.0f} GB"
    )
    few = slice(0, 5000)
    auc, eer = full_matrix(codes[few], source[few])
    ours = verify_pairs(codes[few], source[few])
    print(f"on 5000: difference of AUC {ours.auc - auc:.1e}, of EER {ours.eer - eer:.1e}")


def full_matrix(codes: Any, source: Any) -> tuple[float, float]:
    """Return AUC and EER by the matrix of all distances and scikit-learn."""
    from scipy.optimize import brentq
    from sklearn.metrics import roc_auc_score, roc_curve

    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    i, j = np.triu_indices(len(unit), 1)
    distance, different = (1 - unit @ unit.T)[i, j], source[i] != source[j]
    fpr, tpr, _ = roc_curve(different, distance)
    eer = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    return float(roc_auc_score(different, distance)), float(eer)


def channel(bursts: int) -> None:
    """Send the same bursts through TDL-A, here and by sionna."""
    import torch
    from sionna.phy.channel import TimeChannel
    from sionna.phy.channel.tr38901 import TDL

    from timeseries.rf.channels import draw_taps, pass_through, profile
    from timeseries.rf.waveforms import waveforms

    torch.set_num_threads(1)
    sfreq, n, spread = 10e6, 1280, 1e-7
    rng = np.random.default_rng(0)
    x = waveforms("zigbee", bursts, n, sfreq, rng)
    model = TDL("A", spread, 2.4e9, min_speed=0.0, max_speed=0.0)
    theirs = TimeChannel(model, sfreq, n)
    sent = torch.from_numpy(x)[:, None, None]
    seconds: dict[str, list[float]] = {"ours": [], "sionna": []}
    power = {}
    for _ in range(5):
        start = time.process_time()
        made = pass_through(x, draw_taps(profile("tdl-a", spread), bursts, rng), sfreq)
        seconds["ours"].append(time.process_time() - start)
        start = time.process_time()
        other = theirs(sent)
        seconds["sionna"].append(time.process_time() - start)
        power = {"ours": (np.abs(made) ** 2).mean(), "sionna": float(other.abs().square().mean())}
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["sionna"], strict=True)]
    print(
        f"{bursts} bursts of {n}: ours {1e3 * median(seconds['ours']):.1f} ms, sionna "
        f"{1e3 * median(seconds['sionna']):.0f} ms, ratio {median(ratios):.0f} "
        f"({min(ratios):.0f} to {max(ratios):.0f}); mean power {power}"
    )


def read(gigabytes: float) -> None:
    """Write a capture, then read it and find its bursts in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "capture.cu8"
        rng = np.random.default_rng(0)
        block = np.clip(rng.normal(127.5, 3, 1 << 22), 0, 255).astype("u1")
        loud = np.clip(rng.normal(127.5, 60, 1 << 16), 0, 255).astype("u1")
        block[1 << 20 : (1 << 20) + (1 << 16)] = loud
        with path.open("wb") as file:
            for _ in range(round(gigabytes * 1e9) // len(block)):
                file.write(block.tobytes())
        code = (
            "import sys; sys.argv = ['rf.py', 'found', sys.argv[1]]; "
            f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import rf; rf.main()"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def found(path: str) -> None:
    """Find the bursts of a capture; print speed and memory."""
    from timeseries.read import read_capture
    from timeseries.rf.bursts import find_bursts

    capture = read_capture(path, sfreq=2e6)
    np.asarray(capture.values[:: 1 << 14])  # the page cache is warm: the disk is not measured
    before, start = peak(), time.process_time()
    table = find_bursts(capture)
    seconds = time.process_time() - start
    print(
        f"{len(capture) / 1e6:.0f} MS, {len(table)} bursts: {len(capture) / 1e6 / seconds:.0f} "
        f"MS/s of one core; peak memory {peak():.0f} MB, {before:.0f} MB of it before (mapped "
        "pages of the file count as they are read)"
    )


def paper(steps: int) -> None:
    """Time steps of the paper's sizes on a GPU, plain and quick."""
    import torch

    from timeseries.rf.objective import DRRFF, Sizes, Weights

    if not torch.cuda.is_available():
        raise SystemExit("needs a GPU")
    rates = {
        name: steps / paper_seconds(steps, quick, DRRFF(Sizes(1280, 54, 512, 18, 64), Weights()))
        for name, quick in (("eager fp32", False), ("bf16, compiled", True))
    }
    print(", ".join(f"{name}: {rate:.2f} steps/s" for name, rate in rates.items()))
    print(f"ratio {rates['bf16, compiled'] / rates['eager fp32']:.2f}; "
          f"{torch.cuda.get_device_name()}")  # fmt: skip


def paper_seconds(steps: int, quick: bool, model: Any) -> float:
    """Return the seconds of so many alternating steps at batch 256."""
    import torch

    from neuro.nn.objective import State

    device = torch.device("cuda")
    model = model.to(device)
    if not quick:
        model = model.to(memory_format=torch.contiguous_format)
    else:
        model.compile_networks()
    batch = {"x": torch.randn(256, 2, 1280, device=device),
             "y": torch.randint(0, 54, (256,), device=device)}  # fmt: skip
    state = State(1, [torch.Generator(device).manual_seed(0)])
    parts = [
        (p.name, p.make([w for n, w in model.named_parameters() if n.startswith(p.parameters)], 0))
        for p in model.phases()
    ]

    def step() -> None:
        for name, optimizer in parts:
            state.phase = name
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=quick):
                loss = model.step(batch, state)["loss"]
            loss.backward()
            optimizer.step()

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def adsb() -> None:
    """Find the bursts of rf-adsb; print the recall of its frames, and what chance would give."""
    import os

    import pandas as pd
    from scipy.stats import binomtest

    from timeseries.read import read_capture
    from timeseries.rf.bursts import Detector, find_bursts

    if "NEURO_DATA" not in os.environ:
        raise SystemExit("needs NEURO_DATA, the folder of real recordings")
    folder = Path(os.environ["NEURO_DATA"]) / "rf-adsb"
    frames = pd.read_csv(folder / "frames.tsv", sep="\t")
    capture = read_capture(folder / "modes1.sigmf-meta")
    detector = Detector(window=8e-6, on=6, off=4, gap=1.2e-5, shortest=4e-5, quantile=0.3)
    bursts = find_bursts(capture, detector)
    start, stop = bursts["start"].to_numpy(), bursts["stop"].to_numpy()
    # A frame: a preamble of 8 us and a bit a us, at 2 MS/s.
    first = frames["sample_start"].to_numpy()
    last = first + 2 * (8 + frames["n_bits"].to_numpy())
    shares = np.clip(
        np.minimum(stop, last[:, None]) - np.maximum(start, first[:, None]), 0, None
    ).max(1) / (last - first)  # fmt: skip
    within = ((start <= last[:, None]) & (stop >= first[:, None])).any(0)
    share = (stop - start).sum() / len(capture)
    for name, least in (("half", 0.5), ("nine tenths", 0.9)):
        hits = int((shares >= least).sum())
        interval = binomtest(hits, len(frames)).proportion_ci(method="exact")
        print(
            f"{name} of the frame in one burst: recall {hits / len(frames):.3f} "
            f"[{interval.low:.3f}, {interval.high:.3f}] of {len(frames)} frames"
        )
    print(
        f"{len(bursts)} bursts cover {share:.3f} of the capture, which is the recall of any moment "
        f"drawn at random; {int(within.sum())} of them hold a listed frame (the others may be "
        "replies whose checksum failed)"
    )


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("pairs", "channel", "read", "paper", "adsb", "found"))
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--bursts", type=int, default=256)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    jobs = {
        "pairs": lambda: pairs(given.records, given.latents),
        "channel": lambda: channel(given.bursts),
        "read": lambda: read(given.gigabytes),
        "paper": lambda: paper(given.steps),
        "adsb": adsb,
        "found": lambda: found(given.path),
    }
    jobs[given.what]()


if __name__ == "__main__":
    main()
