"""A whole sweep, 6 betas x 5 seeds with its ranking, as one ensemble against one model by one.

The cohort is the simulator's, in the shape of Honke et al. (2020): three sites in two conditions
side by side, 256 samples. Both ways train the same models on the same ERPs and rank them (UDR),
and take turns.

    python benchmarks/sweep.py [--batch-size 16] [--max-epochs 2] [--rounds 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings

import torch

from eeg.beta_vae import BetaVAE
from eeg.select import select
from eeg.simulate import simulate_cohort
from eeg.stack import stack_conditions
from neuro.data import as_signal

BETAS, SEEDS = (0.5, 1, 2, 4, 8, 16), range(5)


def members(batch_size: int, max_epochs: int, device: str) -> list[BetaVAE]:
    return [
        BetaVAE(
            n_latents=10, beta=beta, random_state=seed, train_on="erp", batch_size=batch_size,
            max_epochs=max_epochs, device=device,
        )
        for beta, seed in itertools.product(BETAS, SEEDS)
    ]  # fmt: skip


def together(models: list[BetaVAE], data) -> None:
    BetaVAE.fit_together(models, as_signal(data))
    select(models, data)


def one_by_one(models: list[BetaVAE], data) -> None:
    for model in models:
        model.fit(as_signal(data))
    select(models, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine; 1 thread")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    given.threads = 1 if given.cpu_time else given.threads
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    data = stack_conditions(
        simulate_cohort(
            given.subjects, 10, channels=("Fz", "Cz", "Pz"), sfreq=250.0, tmin=-0.248, tmax=0.776,
            truth=False,
        )
    )  # fmt: skip
    ways = {"ensemble": together, "one by one": one_by_one}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():  # what is loaded and compiled once is not the sweep's
        run(members(given.batch_size, 1, given.device)[:2], data)
    for _ in range(given.rounds):
        for name, run in ways.items():
            models = members(given.batch_size, given.max_epochs, given.device)
            start = clock()
            run(models, data)
            times[name].append(clock() - start)
    pairs = zip(times["one by one"], times["ensemble"], strict=True)
    print(
        f"{len(BETAS) * len(SEEDS)} models of {data.sizes['channel']} x {data.sizes['time']}, "
        f"batch {given.batch_size}: ensemble {statistics.median(times['ensemble']):.1f} s, one by "
        f"one {statistics.median(times['one by one']):.1f} s, "
        f"x{statistics.median(a / b for a, b in pairs):.2f}"
    )


if __name__ == "__main__":
    main()
