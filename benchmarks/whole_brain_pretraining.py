"""Pretraining a whole-brain encoder: our path against a plain PyTorch loop with the same model.

Both train the same network on the same windows with the same batches, optimiser, clipping and
threads, and take turns, so that a busy machine slows both; the median of the ratios is shown.
A token is one volume of a window (causal), or one patch of a parcel (masked). Where there is a
GPU, bfloat16 with torch.compile is held against eager single precision too.

    python benchmarks/whole_brain_pretraining.py [--threads 2] [--rounds 7] [--cpu-time]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch

from fmri.brain_encoders import BrainEncoder
from fmri.brain_presets import BrainShape, make_encoder, sizes_of
from fmri.brain_pretraining import PretextObjective, Rates
from neuro.batches import Batches
from neuro.nn.mindeye import one_cycle
from neuro.training import train

clock = time.perf_counter  # or the processor's time, see --cpu-time
RATES = Rates()

# encoder, preset, parcels, volumes of a window, windows, batch, epochs
CPU = [
    ("causal", "small", 100, 40, 512, 64, 3),
    ("masked", "small", 100, 16, 128, 32, 2),
    ("causal", "paper", 1024, 40, 128, 16, 2),
]
GPU = [
    ("causal", "paper", 1024, 100, 7680, 192, 4),
    ("masked", "paper", 424, 200, 512, 32, 4),
]


def model(kind: str, preset: str, parcels: int) -> BrainEncoder:
    torch.manual_seed(0)
    places = np.random.default_rng(0).normal(0, 40, (parcels, 3)).astype(np.float32)
    return make_encoder(kind, sizes_of(kind, preset), BrainShape(parcels, 2.0, places))


def sync(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ours(
    encoder: BrainEncoder, x: np.ndarray, batch: int, epochs: int, device: str,
    precision: str = "32", compiled: bool = False,
) -> float:  # fmt: skip
    mask = np.ones(x.shape[:2], bool)
    source = Batches({"x": x, "mask": mask}, batch, seed=0, device=device)
    objective = PretextObjective(encoder, RATES)
    sync(device)
    start = clock()
    train(
        objective, source, max_epochs=epochs, device=device, precision=precision, compile=compiled
    )
    sync(device)
    return clock() - start


def plain(encoder: BrainEncoder, x: np.ndarray, batch: int, epochs: int, device: str) -> float:
    encoder = encoder.to(device).train()
    every = list(encoder.parameters())
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": RATES.weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATES.learning_rate, fused=True)
    data = torch.from_numpy(x).to(device)
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=device)
    steps, done = epochs * -(-len(x) // batch), 0
    sync(device)
    start = clock()
    for _ in range(epochs):
        for rows in torch.randperm(len(data), device=device).split(batch):
            values, shown = data[rows], mask[rows]
            noise = torch.rand(encoder.noise_shape(values), device=device)
            loss = encoder.pretext(values, shown, noise)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = RATES.learning_rate * one_cycle(done / steps, RATES.rise)
            optimizer.step()
            done += 1
    sync(device)
    return clock() - start


def tokens(kind: str, encoder: BrainEncoder, parcels: int, volumes: int, n: int) -> int:
    if kind == "causal":
        return n * volumes
    return n * encoder.noise_shape(torch.zeros(1, volumes, parcels))[1]


def compare(case: tuple, rounds: int, device: str) -> None:
    kind, preset, parcels, volumes, n, batch, epochs = case
    x = np.random.default_rng(1).standard_normal((n, volumes, parcels), dtype=np.float32)
    speeds: dict[str, list[float]] = {"plain": [], "ours": []}
    paths = {"plain": plain, "ours": ours}
    if device == "cuda":
        paths["compiled bf16"] = lambda *a: ours(*a, precision="bf16-mixed", compiled=True)
        speeds["compiled bf16"] = []
    for number in range(rounds + 1):  # the first warms up
        order = list(paths) if number % 2 else list(paths)[::-1]
        for name in order:
            encoder = model(kind, preset, parcels)
            seconds = paths[name](encoder, x, batch, epochs, device)
            if number:
                speeds[name].append(epochs * tokens(kind, encoder, parcels, volumes, n) / seconds)
    shown = ", ".join(f"{k} {statistics.median(v):,.0f}" for k, v in speeds.items())
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["plain"], strict=True)]
    line = f"{kind} {preset} ({parcels} parcels x {volumes} volumes, batch {batch}): {shown} "
    line += f"tokens/s; ours / plain {statistics.median(ratios):.3f}"
    if device == "cuda":
        gain = [a / b for a, b in zip(speeds["compiled bf16"], speeds["ours"], strict=True)]
        line += f"; compiled bf16 / eager {statistics.median(gain):.2f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: for a machine that is shared"
    )
    parser.add_argument("--only", help="cases that begin so, as 'causal small'")
    args = parser.parse_args()
    if args.cpu_time:
        globals()["clock"] = time.process_time
    torch.set_num_threads(args.threads)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    timed = "processor time" if args.cpu_time else "wall clock"
    print(f"{device}, {timed}, {args.threads} threads, median of {args.rounds} interleaved rounds")
    for case in GPU if device == "cuda" else CPU:
        if not args.only or f"{case[0]} {case[1]}".startswith(args.only):
            compare(case, args.rounds, device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
