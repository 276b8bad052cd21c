"""Disentanglement metrics beside their usual forms, and the quantiser beside a vector quantiser.

    python benchmarks/metrics.py suite [--rows 10000] [--timed 7]
    python benchmarks/metrics.py quantise

`suite`: every score of `disentanglement` on latents of rising rotation, against DCI by
scikit-learn's gradient boosting and k-NN information by scikit-learn; one thread. The usual forms
are timed on one model, ours on the same one; the scores of DCI are compared over all models with
fewer rows. All factors are drawn alike: with ``--timed 1`` the usual forms are timed on one of
them, and the time multiplied.
`quantise`: forward and backward of both quantisers on the same codes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

LATENTS, FACTORS = 14, 7


def problem(rows: int, angle: float, seed: int = 0) -> tuple[Any, Any]:
    """Draw factors of ten classes, and latents of which pairs are rotated by an angle."""
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 10, (rows, FACTORS))
    z = np.hstack([s, s]) / 3 + 0.1 * rng.normal(size=(rows, LATENTS))
    c, n = np.cos(angle), np.sin(angle)
    for j in range(0, LATENTS - 1, 2):
        z[:, [j, j + 1]] = z[:, [j, j + 1]] @ [[c, -n], [n, c]]
    return z, s


def usual(z: Any, s: Any) -> float:
    """Return DCI's disentanglement by gradient boosting; compute k-NN information as well."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.feature_selection import mutual_info_classif

    from neuro.metrics.dci import disentanglement_of

    importances = []
    for y in s.T:
        mutual_info_classif(z, y, n_neighbors=10, random_state=0)
        model = GradientBoostingClassifier(random_state=0).fit(z, y)
        importances.append(model.feature_importances_)
    return disentanglement_of(np.stack(importances, axis=1))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time and the result."""
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def suite(rows: int, n_timed: int) -> None:
    """Print the times of both, and the rank correlation of their scores."""
    from scipy.stats import spearmanr

    from neuro.metrics import disentanglement

    z, s = problem(rows, 0.3)
    ours, _ = timed(lambda: disentanglement(z, s))
    theirs = timed(lambda: usual(z, s[:, :n_timed]))[0] * FACTORS / n_timed
    print(f"{rows} x {LATENTS} x {FACTORS}: ours {ours:.1f} s, usual {theirs:.1f} s of processor "
          f"time ({n_timed} of {FACTORS} factors timed), ratio {ours / theirs:.3f}", flush=True)  # fmt: skip  # noqa: E501
    angles = np.linspace(0, np.pi / 4, 6)
    few = [problem(max(500, rows // 10), angle) for angle in angles]
    pairs = [(disentanglement(*p, scores=["dci_d"])["dci_d"], usual(*p)) for p in few]
    print(f"rank correlation of dci_d: {spearmanr(*zip(*pairs, strict=True)).statistic:.2f}")


def repeat(step: Callable[[], None]) -> None:
    """Run a step 200 times."""
    for _ in range(200):
        step()


def quantise() -> None:
    """Print the time of a step of both quantisers."""
    import torch

    from neuro.nn.quantise import LatentQuantiser

    torch.set_num_threads(1)
    scalar = LatentQuantiser(12, 10)
    book = torch.randn(512, 64, requires_grad=True)
    z, vectors = torch.randn(128, 12, requires_grad=True), torch.randn(128, 64, requires_grad=True)

    def ours() -> None:
        found = scalar(z)
        (found.values.sum() + found.quantisation + found.commitment).backward()

    def vector() -> None:
        nearest = book[torch.cdist(vectors, book).argmin(1)]
        straight = vectors + (nearest - vectors).detach()
        losses = (nearest - vectors.detach()).square().mean()
        losses = losses + (vectors - nearest.detach()).square().mean()
        (straight.sum() + losses).backward()

    rounds: dict[str, list[float]] = {"scalar": [], "vector": []}
    for _ in range(7):
        for name, step in (("scalar", ours), ("vector", vector)):
            rounds[name].append(timed(partial(repeat, step))[0] * 5)
    print("ms a step, batch 128:", {k: round(median(v), 3) for k, v in rounds.items()},
          f"12 x 10 scalars / 512 x 64 vectors {median(rounds['scalar']) / median(rounds['vector']):.2f}")  # fmt: skip  # noqa: E501


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["suite", "quantise"])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--timed", type=int, default=FACTORS, choices=range(1, FACTORS + 1))
    given = parser.parse_args()
    if given.what == "suite":
        suite(given.rows, given.timed)
    else:
        quantise()


if __name__ == "__main__":
    main()
