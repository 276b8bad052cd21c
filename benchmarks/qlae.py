"""QLAE beside other encoders on simulated series: InfoM and InfoE over seeds, equal tuning.

    python benchmarks/qlae.py [--folder runs/qlae-study] [--seeds 10 11 12 13 14]

Every model gets four settings on two development seeds (20, 21); the one with the largest mean
InfoM + InfoE as published is then trained once on every seed reported (``--seeds`` without a number
stops before that). No code has more than 14 latents, twice the factors. QLAE without weight decay,
and with one codebook for all latents, take QLAE's setting. Each training leaves a file in the
folder: a killed study continues, and a finished one prints its tables at once.

Scores are those of 4,000 series that no model saw: as published (plug-in information of quantised
codes, k-NN of continuous ones), and with the codes of all models in ten bins of equal population.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

DEVELOPMENT = (20, 21)
N_TRAIN, N_TEST = 16000, 4000
N_BINS = 10
SCORES = ("infom", "infoe", "infoc")
# As in the paper's sets of images, every factor takes a few values and, but for the colour of the
# faint noise, can be seen in every series.
WORLD: dict[str, Any] = {
    "n_subjects": 1, "n_classes": 3, "n_channels": 8, "n_samples": 64, "phase": 0.0,
    "frequency": (0.8, 2.0), "noise": 0.05, "levels": 6, "burst_width": 0.1, "burst_carrier": 0.0,
}  # fmt: skip
NETWORK: dict[str, Any] = {
    "network": "mlp", "n_hidden": 64, "max_epochs": 24, "learning_rate": 2e-3, "device": "cpu",
}  # fmt: skip
GRIDS: dict[str, list[dict[str, Any]]] = {
    "qlae": [
        {"n_latents": 14, "quantisation": 0.1, "commitment": 0.1, "weight_decay": w}
        for w in (0.1, 1.0, 2.0, 4.0)
    ],
    "ae": [
        {"n_latents": n, "learning_rate": r} for n, r in product((10, 14), (1e-3, 3e-3))
    ],
    "beta_vae": [{"n_latents": 14, "beta": b} for b in (0.03, 0.3, 1.0, 3.0)],
    "beta_tcvae": [
        {"n_latents": 14, "beta": b, "sigma": s} for b, s in product((4.0, 16.0), (0.3, 1.0))
    ],
    "ica": [{"n_latents": n, "fun": f} for n, f in product((7, 14), ("logcosh", "exp"))],
    "pca": [{"n_latents": n} for n in (7, 10, 12, 14)],
    "random": [{"n_latents": n, "network": k} for n, k in product((7, 14), ("mlp", "conv"))],
}  # fmt: skip
ABLATIONS: dict[str, dict[str, Any]] = {
    "qlae_no_decay": {"weight_decay": 0.0}, "qlae_shared": {"shared_codebook": True},
}  # fmt: skip


@cache
def world(seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """Return training series, unseen series and the factors of these."""
    from timeseries.dts_study import factors_of
    from timeseries.simulate import SeriesStudy, simulate_series

    data = simulate_series(SeriesStudy(n_trials=N_TRAIN + N_TEST, **WORLD), seed)
    signal = data["signal"].transpose("trial", "channel", "time").values
    known = {name: values[N_TRAIN:] for name, values in factors_of(data, ()).items()}
    return signal[:N_TRAIN], signal[N_TRAIN:], known


def codes(model: str, setting: dict[str, Any], train: Any, new: Any, seed: int) -> Any:
    """Train a model and code unseen series."""
    from sklearn.decomposition import PCA, FastICA

    from timeseries.qlae import QLAE
    from timeseries.vae import SeriesVAE

    flat, flat_new = (x.reshape(len(x), -1) for x in (train, new))
    if model == "pca":
        return PCA(setting["n_latents"], random_state=seed).fit(flat).transform(flat_new)
    if model == "ica":
        ica = FastICA(
            setting["n_latents"], fun=setting["fun"], whiten="unit-variance", max_iter=500,
            tol=1e-3, random_state=seed,
        )  # fmt: skip
        return ica.fit(flat).transform(flat_new)
    given: dict[str, Any] = NETWORK | setting | {"random_state": seed}
    if model.startswith("qlae"):
        return QLAE(**given).fit(train).codes(new)
    if model == "random":
        return SeriesVAE("ae", **given | {"max_epochs": 0}).fit(train).transform(new)
    return SeriesVAE(model.replace("_", "-"), **given).fit(train).transform(new)


def scored(folder: Path, model: str, setting: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the scores of a training, from its file where there is one."""
    from neuro.metrics import disentanglement
    from timeseries.qlae_study import binned

    told = json.dumps([model, setting, NETWORK, WORLD, N_TRAIN, N_TEST, seed], sort_keys=True)
    file = folder / f"{model}-{seed}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.json"
    if file.exists():
        return json.loads(file.read_text())
    train, new, known = world(seed)
    start = time.perf_counter()
    z = codes(model, setting, train, new, seed)
    took = time.perf_counter() - start
    found = {
        "model": model, "setting": setting, "seed": seed, "seconds": took,
        "published": disentanglement(z, known, scores=SCORES, random_state=seed),
        "binned": disentanglement(binned(z, N_BINS), known, scores=SCORES, random_state=seed),
    }  # fmt: skip
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(file)
    print(f"{model} seed {seed} {setting}: {took:.0f} s,",
          {k: round(v, 3) for k, v in found["published"].items()}, flush=True)  # fmt: skip
    return found


def chosen(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the best setting of every model over the development seeds, and print all."""
    best = {}
    for model, grid in GRIDS.items():
        goal = []
        for setting in grid:
            tried = [scored(folder, model, setting, seed) for seed in DEVELOPMENT]
            means = {s: float(np.mean([t["published"][s] for t in tried])) for s in SCORES}
            goal.append(means["infom"] + means["infoe"])
            print(f"tuning {model} {setting}:", {s: round(v, 3) for s, v in means.items()})
        best[model] = grid[int(np.argmax(goal))]
    return best | {name: best["qlae"] | change for name, change in ABLATIONS.items()}


def interval(values: Any) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval by Student's t over seeds."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return mean, mean - half, mean + half


def report(found: dict[str, list[dict[str, Any]]], best: dict[str, dict[str, Any]]) -> None:
    """Print the means, and QLAE less each other model, paired by seed."""
    for model, setting in best.items():
        print(f"{model}: {setting}")
    for reading in ("published", "binned"):
        print(
            f"\n{reading}\n| model | InfoM | InfoE | InfoC | QLAE − it, InfoM | QLAE − it, InfoE |"
        )
        print("| --- | --- | --- | --- | --- | --- |")
        columns = {m: {s: np.array([r[reading][s] for r in rows]) for s in SCORES}
                   for m, rows in found.items()}  # fmt: skip
        for model, own in columns.items():
            cells = [f"{own[s].mean():.3f}" for s in SCORES]
            for s in ("infom", "infoe"):
                mean, low, high = interval(columns["qlae"][s] - own[s])
                cells.append("" if model == "qlae" else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
            print(f"| {model} | {' | '.join(cells)} |")


def main(arguments: list[str] | None = None) -> None:
    """Tune, train on every seed, print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/qlae-study"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[10, 11, 12, 13, 14])
    given = parser.parse_args(arguments)
    if set(DEVELOPMENT) & set(given.seeds):
        parser.error(f"seeds {DEVELOPMENT} are for the choice of settings")
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)  # moments of latents that rest are tiny, and slow
    best = chosen(given.folder)
    if not given.seeds:
        return
    found = {
        model: [scored(given.folder, model, s, seed) for seed in given.seeds]
        for model, s in best.items()
    }
    report(found, best)


if __name__ == "__main__":
    main()
