"""DTS on simulated domains: accuracy on the unlabelled target, and what each segment tells.

    python benchmarks/dts.py [--seeds 0 1 2 3 4] [--out runs/dts-domains] [--alpha 1.5 ...]

For each seed two subjects are simulated; one is the labelled source, the other the target, whose
classes nothing sees before the test. Half of each is trained on, the other half scored.
`source_only` is the same network and penalty without target, domain and crossed heads. Probes are
fresh logistic regressions, fitted on the training half. One JSON per seed is kept in the folder,
so that a killed run continues. Choose settings on other seeds (from 100 on) than those reported.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


def one(seed: int, settings: dict[str, Any], n_trials: int) -> dict[str, float]:
    """Train and score one pair of subjects."""
    import torch

    from timeseries.dts import DTS
    from timeseries.simulate import SeriesStudy, simulate_series

    torch.set_num_threads(1)
    data = simulate_series(SeriesStudy(n_subjects=2, n_trials=n_trials, n_samples=64), seed)
    label, domain = data["class"].values.astype(str), data["domain"].values
    train = np.arange(len(label)) % 2 == 0
    target = domain == 1
    signal = data["signal"].values
    dts = DTS(random_state=seed, **settings)
    known = np.where(target, "", label)
    dts.fit(signal[train], known[train], domain=domain[train])
    alone = DTS(random_state=seed, **{**settings, "adversarial_weight": 0.0, "domain_weight": 0.0})
    rows = train & ~target
    halves = np.where(np.arange(rows.sum()) % 2, "a", "b")  # two names are needed; they weigh 0
    alone.fit(signal[rows], label[rows], domain=halves)
    found = {}
    for name, model in (("dts", dts), ("source_only", alone)):
        for place, which in (("target", target), ("source", ~target)):
            at = ~train & which
            found[f"{name}.{place}"] = float((model.predict(signal[at]) == label[at]).mean())
    for segment in ("g_y", "g_d"):
        codes = dts.segment(signal, segment)
        for what, truth in (("class", label), ("domain", domain)):
            found[f"{segment}.{what}"] = probe(codes, truth, train)
    return found


def probe(codes: Any, truth: Any, train: Any) -> float:
    """Return the accuracy of a fresh logistic regression on the other half."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(model.fit(codes[train], truth[train]).score(codes[~train], truth[~train]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/dts-domains"))
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--set", nargs="*", default=[], help="parameters of DTS, name=value")
    given = parser.parse_args()
    settings = {k: json.loads(v) for k, v in (pair.split("=") for pair in given.set)}
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in given.seeds:
        path = given.out / f"seed-{seed}.json"
        if not path.exists():
            found = one(seed, settings, given.trials)
            path.write_text(json.dumps({"settings": settings, "found": found}))
        stored = json.loads(path.read_text())
        if stored["settings"] != settings:
            raise SystemExit(f"{path} is of other settings; give another --out")
        rows.append(stored["found"])
        print(seed, {k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    summary(rows)


def summary(rows: list[dict[str, float]]) -> None:
    """Print means with t intervals over seeds."""
    from scipy import stats

    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    table["dts - source_only, target"] = table["dts.target"] - table["source_only.target"]
    for name, values in table.items():
        half = 0.0
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        print(
            f"{name}: {values.mean():.3f} [{values.mean() - half:.3f}, {values.mean() + half:.3f}]"
        )


if __name__ == "__main__":
    main()
