"""Mean against sampled latents of VAEs on simulated series, with and without passive latents.

    python benchmarks/activity.py [--seeds 0 1 2 3 4] [--beta 1] [--figure activity.svg]

The main finding of Bonheme and Grzes ("Be more active!", arXiv 2109.12679): the means of passive
latents depend on one another, their samples do not; dropping them closes most of the gap.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from neuro.activity import activity_figure
from neuro.metrics.activity import compare_representations, gap_closed
from neuro.metrics.latents import latent_counts


def main() -> None:
    """Train a VAE on each seed; print the measures and how much of the gap is closed."""
    from timeseries.simulate import SeriesStudy, simulate_series
    from timeseries.vae import SeriesVAE

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--latents", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--figure", type=Path, help="of the first seed")
    given = parser.parse_args()
    closed = []
    for seed in given.seeds:
        data = simulate_series(
            SeriesStudy(n_subjects=1, n_trials=6000, n_channels=2, n_samples=64, phase=0), seed
        )
        signal = data["signal"].transpose("trial", "channel", "time").values
        vae = SeriesVAE(
            "beta-vae", n_latents=given.latents, beta=given.beta, network="mlp", n_hidden=64,
            learning_rate=3e-3, max_epochs=given.epochs, device="cpu", random_state=seed,
        ).fit(signal[:4000])  # fmt: skip
        mean, variance = vae.posterior(signal[4000:])
        found = compare_representations(mean, variance, random_state=seed)
        counts = latent_counts(mean, variance)
        told = ", ".join(
            f"{f.representation}/{f.latents} tc {f.tc:.2f} |r| {f.correlation:.3f}" for f in found
        )
        closed.append([gap_closed(found, "tc"), gap_closed(found, "correlation")])
        print(f"seed {seed}: {counts['active']} active, {counts['mixed']} mixed, "
              f"{counts['passive']} passive; {told}; closed tc {closed[-1][0]:.0%}, "
              f"|r| {closed[-1][1]:.0%}", flush=True)  # fmt: skip
        if given.figure and seed == given.seeds[0]:
            activity_figure(found).savefig(given.figure, bbox_inches="tight")
    print("mean closed: tc {:.0%}, |r| {:.0%}".format(*np.mean(closed, axis=0)))


if __name__ == "__main__":
    main()
