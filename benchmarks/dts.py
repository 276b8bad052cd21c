"""DTS on simulated domains: accuracy on the unlabelled target, and what each segment tells.

    python benchmarks/dts.py [--seeds 10 11 ...] [--out runs/dts-domains] [--set sigma=1 ...]

For each seed two subjects are simulated, and each is once the labelled source and once the
target, whose classes nothing sees before the test. Half of each is trained on, the other half
scored.

- ``source_only``: the same network and penalty on the source alone, for as many steps, without
  heads for the domain; the target is standardised as the source was.
- ``source_own``: the same model, but source and target are each standardised by themselves.
- ``unaligned``: DTS on source and target without domain and crossed heads.

Probes are fresh logistic regressions on both subjects' training halves. One JSON per seed is kept
in the folder, so that a killed run continues. Choose settings on other seeds (from 100 on) than
those reported.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS: dict[str, Any] = {
    "network": "fcn", "n_hidden": 64, "standardise": "domain", "sigma": 1.0, "alpha": 1.5,
    "beta": 2.0, "label_weight": 100.0, "domain_weight": 50.0, "adversarial_weight": 60.0,
    "max_epochs": 40, "batch_size": 100, "learning_rate": 2e-3,
}  # fmt: skip
"""Of DTS; ``--set`` changes them."""

PLAIN = {"domain_weight": 0.0, "adversarial_weight": 0.0}


def one(seed: int, settings: dict[str, Any], n_trials: int, shift: float) -> dict[str, float]:
    """Train and score both directions of one pair of subjects; return their means."""
    import torch

    from timeseries.simulate import SeriesStudy, simulate_series

    torch.set_num_threads(1)
    study = SeriesStudy(
        n_subjects=2, n_trials=n_trials, n_samples=64, n_classes=3, shift=shift, mixing=0.5
    )
    data = simulate_series(study, seed)
    ways = [_direction(data, target, settings, seed) for target in (0, 1)]
    return {name: float(np.mean([way[name] for way in ways])) for name in ways[0]}


def _direction(data: Any, target: int, settings: dict[str, Any], seed: int) -> dict[str, float]:
    from timeseries.dts import DTS

    X, y = data["signal"].values, data["class"].values.astype(str)
    is_target = data["domain"].values == target
    domain = np.where(is_target, "target", "source")
    train = np.arange(len(y)) % 2 == 0
    source, known = train & ~is_target, np.where(is_target, "", y)

    def fit(rows: Any, place: Any, **changed: Any) -> Any:
        model = DTS(random_state=seed, **{**settings, **changed})
        return model.fit(X[rows], known[rows], domain=place)

    halves = np.where(np.arange(source.sum()) % 2, "a", "b")  # two names are needed; they weigh 0
    longer = {**PLAIN, "max_epochs": 2 * settings["max_epochs"]}
    models = {
        "dts": (fit(train, domain[train]), domain),
        "unaligned": (fit(train, domain[train], **PLAIN), domain),
        "source_only": (fit(source, halves, **longer, standardise="all"), domain),
        "source_own": (fit(source, halves, **longer, standardise="domain"), domain),
    }
    found = {}
    for name, (model, place) in models.items():
        right = model.predict(X, domain=place) == y
        found[f"{name}.target"] = float(right[~train & is_target].mean())
        found[f"{name}.source"] = float(right[~train & ~is_target].mean())
    for segment in ("g_y", "g_d"):
        codes = models["dts"][0].segment(X, segment, domain=domain)
        for what, truth in (("class", y), ("domain", domain)):
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
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 20)))
    parser.add_argument("--out", type=Path, default=Path("runs/dts-domains"))
    parser.add_argument("--trials", type=int, default=800, help="series of a subject")
    parser.add_argument("--shift", type=float, default=1.5, help="how far subjects differ")
    parser.add_argument("--set", nargs="*", default=[], help="parameters of DTS, name=value")
    given = parser.parse_args()
    settings = {**SETTINGS, **{k: json.loads(v) for k, v in (p.split("=") for p in given.set)}}
    world = {"trials": given.trials, "shift": given.shift}
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in given.seeds:
        path = given.out / f"seed-{seed}.json"
        if not path.exists():
            found = one(seed, settings, given.trials, given.shift)
            path.write_text(json.dumps({"settings": {**settings, **world}, "found": found}))
        stored = json.loads(path.read_text())
        if stored["settings"] != {**settings, **world}:
            raise SystemExit(f"{path} is of other settings; give another --out")
        rows.append(stored["found"])
        print(seed, {k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    summary(rows)


def summary(rows: list[dict[str, float]]) -> None:
    """Print means with t intervals over seeds, and DTS's differences to the others."""
    from scipy import stats

    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for other in ("source_only", "source_own", "unaligned"):
        table[f"dts - {other}, target"] = table["dts.target"] - table[f"{other}.target"]
    table["g_y - g_d, class"] = table["g_y.class"] - table["g_d.class"]
    table["g_d - g_y, domain"] = table["g_d.domain"] - table["g_y.domain"]
    for name, values in table.items():
        half = 0.0
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        print(
            f"{name}: {values.mean():.3f} [{values.mean() - half:.3f}, {values.mean() + half:.3f}]"
        )


if __name__ == "__main__":
    main()
