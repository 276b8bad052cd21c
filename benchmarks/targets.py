"""Training steps per second: targets from the cache against images encoded in every step.

    python benchmarks/targets.py                # ViT-B/32 with random weights, 50 tokens x 512
    python benchmarks/targets.py --model wide   # 43.6 M parameters in place of the preset `small`

A retrieval-only model (8,000 voxels, the preset `small` of MindEye, SoftCLIP, AdamW) sees batches
of 32. One side reads half-precision targets from the memory-mapped cache; the other runs the
frozen image tower on the same images, as the published training loop does. Steps of both take
turns, in one process with as many threads as torch is given; weights start equal, so that the
losses must agree to half precision. Needs open_clip_torch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fmri.clip_targets import OpenCLIP
from fmri.images import images_dataset
from fmri.targets import compute_targets
from neuro.nn.brain import PRESETS, BrainNetwork, BrainSizes
from neuro.nn.contrastive import softclip

VOXELS, BATCH, SIDE = 8_000, 32, 224
MODELS = {"small": PRESETS["small"], "wide": BrainSizes(1024, n_projector=512)}


class Trainer:
    """The same small training loop, whatever its targets come from."""

    def __init__(self, shape: tuple[int, int], sizes: BrainSizes) -> None:
        torch.manual_seed(0)
        self.network = BrainNetwork({"a": VOXELS}, *shape, sizes)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4, fused=True)

    def step(self, voxels: torch.Tensor, target: torch.Tensor) -> float:
        torch.manual_seed(0)  # the same dropout on both sides
        code = self.network.code({"a": voxels})
        projected = self.network.project(code, self.network.tokens(code))
        loss = softclip(projected, target, 0.05)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def timed(step: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    return step(), time.perf_counter() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--arch", default="ViT-B-32")
    arguments.add_argument("--model", choices=list(MODELS), default="small")
    options = arguments.parse_args()
    rng = np.random.default_rng(0)
    n = 2 * BATCH
    pixels = rng.random((n, 3, SIDE, SIDE), dtype=np.float32)
    images = images_dataset(pixels, [f"image-{i}" for i in range(n)])
    voxels = torch.from_numpy(rng.standard_normal((n, VOXELS), dtype=np.float32))
    provider = OpenCLIP(options.arch, normalize="cls", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        cached = compute_targets(images, provider, cache=Path(folder) / "cache").signal.values
        ours, theirs = (Trainer(cached.shape[1:], MODELS[options.model]) for _ in range(2))
        seconds: dict[str, list[float]] = {"cached": [], "encoded": []}
        for number in range(options.steps + 1):
            rows = rng.permutation(n)[:BATCH]
            x = voxels[torch.from_numpy(rows)]

            def from_cache(rows: np.ndarray = rows, x: torch.Tensor = x) -> float:
                return ours.step(x, torch.from_numpy(cached[rows].astype(np.float32)))

            def encoded(rows: np.ndarray = rows, x: torch.Tensor = x) -> float:
                return theirs.step(x, torch.from_numpy(provider.encode_pixels(pixels[rows])))

            (a, fast), (b, slow) = timed(from_cache), timed(encoded)
            assert abs(a - b) < 1e-2 * abs(b), f"the losses differ: {a}, {b}"
            if number:  # the first is the warm-up
                seconds["cached"].append(fast)
                seconds["encoded"].append(slow)
    ratio = statistics.median(np.divide(seconds["encoded"], seconds["cached"]))
    size = sum(p.numel() for p in ours.network.parameters()) / 1e6
    print(f"{options.arch}, targets {cached.shape[1]} x {cached.shape[2]}, {size:.1f} M parameters")
    for name, values in seconds.items():
        print(f"{name}: {1 / statistics.median(values):.3f} steps/s")
    print(f"cached / encoded: {ratio:.1f} (median of {options.steps}; goal >= 10)")


if __name__ == "__main__":
    main()
