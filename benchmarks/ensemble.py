"""Training S beta-VAEs at once against one after another, and the choice `train_together` makes.

Both ways train the same models; they take turns, so that a busy machine slows both. The median
of the ratios loop / stacked is shown, and with it the ratio of what "auto" picks.

    python benchmarks/ensemble.py [--threads 2] [--rounds 5] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from neuro.batches import Batches
from neuro.nn.beta_vae import BetaVAEObjective
from neuro.nn.networks import NETWORKS
from neuro.training import train_together

clock = time.perf_counter

# network, channels, times, members, batch size; the first is the paper's shape
SHAPES = [
    ("conv", 6, 256, 12, 16),
    ("conv", 6, 256, 12, 64),
    ("conv", 64, 128, 5, 64),
    ("conv", 64, 128, 12, 16),
    ("conv", 4, 256, 5, 64),
    ("mlp", 6, 256, 12, 16),
    ("mlp", 64, 128, 5, 64),
]


def fit(x: np.ndarray, kind: str, members: int, batch_size: int, way: str, device: str) -> float:
    c, t = x.shape[1:]
    objectives = [
        BetaVAEObjective(NETWORKS[kind](c, t, 10, seed=m), beta=4.0) for m in range(members)
    ]
    batches = [Batches({"x": x}, batch_size, seed=m, device=device) for m in range(members)]
    start = clock()
    train_together(
        objectives,
        batches,
        seeds=range(members),
        batch_size=batch_size,
        strategy=way,
        device=device,
        max_epochs=2,
    )
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="batches per epoch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine; 1 thread")
    given = parser.parse_args()
    if given.cpu_time:
        global clock
        clock, given.threads = time.process_time, 1
    torch.set_num_threads(given.threads)
    for kind, c, t, members, batch_size in SHAPES:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((given.steps * batch_size, c, t), dtype=np.float32)
        times: dict[str, list[float]] = {"loop": [], "stacked": []}
        for way in times:
            fit(x[: 4 * batch_size], kind, 2, batch_size, way, given.device)
        for _ in range(given.rounds):
            for way, values in times.items():
                values.append(fit(x, kind, members, batch_size, way, given.device))
        pairs = zip(times["loop"], times["stacked"], strict=True)
        ratio = statistics.median(loop / stacked for loop, stacked in pairs)
        objective = BetaVAEObjective(NETWORKS[kind](c, t, 10), beta=4.0)
        stack = objective.prefers_stack(torch.device(given.device), batch_size)
        print(
            f"{kind:4s} {c}x{t}, {members} members, batch {batch_size}: "
            f"loop {statistics.median(times['loop']):.2f} s, stacked x{ratio:.2f}; "
            f"auto: {'stacked' if stack else 'loop'} x{ratio if stack else 1.0:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
