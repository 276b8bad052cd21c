"""KL vanishing: what the codes of LSTM networks tell, by member of the VAE family.

    python benchmarks/vanishing.py [--seeds 0 1 2] [--epochs 30] [--alpha 2]

An LSTM decoder may ignore its code; the penalties of beta-VAE and beta-TCVAE make it worse, the
reward of mutual information in DTS (Li et al. 2022) is meant against it. For each member: mutual
information of series and codes over 2,000 training series (at most 7.6 nats), active units (KL
above 0.01), and the error of the reconstruction as a share of the variance of 1,000 new series.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

MEMBERS: dict[str, dict[str, Any]] = {"vae": {}, "beta-tcvae": {"beta": 4.0}, "dts": {"beta": 4.0}}


def main() -> None:
    """Train every member on every seed; print means and all values."""
    from timeseries.simulate import SeriesStudy, simulate_series
    from timeseries.vae import SeriesVAE

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--alpha", type=float, default=2.0, help="reward of information in dts")
    given = parser.parse_args()
    found: dict[str, list[tuple[float, int, float]]] = {name: [] for name in MEMBERS}
    for seed in given.seeds:
        data = simulate_series(SeriesStudy(n_subjects=6, n_trials=500, n_samples=64), seed)
        signal = data["signal"].transpose("trial", "channel", "time").values
        signal = signal[np.random.default_rng(seed).permutation(len(signal))]
        train, new = signal[:2000], signal[2000:]
        for name, settings in MEMBERS.items():
            vae = SeriesVAE(
                name, n_latents=16, network="lstm", n_hidden=64, max_epochs=given.epochs,
                alpha=given.alpha, device="cpu", random_state=seed, **settings,
            ).fit(train)  # fmt: skip
            rest = np.square(vae.inverse_transform(vae.transform(new)) - new).mean() / new.var()
            found[name].append((vae.information_, int(vae.kept_.sum()), float(rest)))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    print("| network | information, nat | active of 16 | error |\n| --- | --- | --- | --- |")
    for name, rows in found.items():
        information, active, rest = np.mean(rows, axis=0)
        print(f"| lstm {name} | {information:.2f} | {active:.1f} | {rest:.2f} |")


if __name__ == "__main__":
    main()
