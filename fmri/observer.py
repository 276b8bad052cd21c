"""What can be decoded at best: the observer who knows the truth about a simulated brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.stats import norm

from neuro.errors import DataError
from neuro.metrics.retrieval import count_ahead, exact_top_k

__all__ = ["Brain"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Brain:
    """The truth about one simulated subject.

    Attributes
    ----------
    stimuli : ndarray of str, shape (stimulus,)
    responses : ndarray of float64, shape (stimulus, voxel)
        Noise-free, variance 1 over the study's pictures; 0 in voxels without signal.
    noise_sd : ndarray of float64, shape (voxel,)
        Of one trial, in the units of `responses`.
    loadings : ndarray of float64, shape (voxel, factor)
        The part of the noise that voxels share, already counted in `noise_sd`.
    """

    stimuli: NDArray[np.str_]
    responses: Floats
    noise_sd: Floats
    loadings: Floats

    def noise_ceiling(self, n_repeats: int = 1) -> Floats:
        """Explainable share of the variance of the mean of `n_repeats` trials, per voxel."""
        signal = self.responses.var(0) > 0
        return np.where(signal, 1 / (1 + self.noise_sd**2 / n_repeats), 0.0)

    def expected_pairwise(self, stimuli: ArrayLike, n_repeats: int = 1) -> float:
        """Two-way identification by an observer who knows the truth, in closed form.

        Two patterns at the Mahalanobis distance d are told apart with probability
        ``Phi(sqrt(n_repeats) d / 2)``; no decoder that sees these voxels does better.
        """
        distance = np.sqrt(n_repeats) * _distances(self._white(stimuli))
        wrong = ~np.eye(len(distance), dtype=bool)
        return float(norm.cdf(distance / 2)[wrong].mean())

    def expected_top1(
        self,
        stimuli: ArrayLike,
        n_repeats: int = 1,
        *,
        n: int | None = None,
        draws: int = 50,
        random_state: int = 0,
    ) -> float:
        """Retrieval (top 1 of `n`, by default of all) by the observer who knows the truth.

        Noise is drawn `draws` times; the drawing of candidates is exact.
        """
        white = self._white(stimuli)
        length = np.square(white).sum(1) / 2
        rng = np.random.default_rng(random_state)
        hits = []
        for _ in range(draws):
            seen = white + rng.standard_normal(white.shape) / np.sqrt(n_repeats)
            ahead, tied = count_ahead(seen @ white.T - length)
            hits.append(exact_top_k(ahead, tied, n_candidates=len(white), n=n).mean())
        return float(np.mean(hits))

    def _white(self, stimuli: ArrayLike) -> Floats:
        """Responses in coordinates in which the noise of a trial is white, of variance 1."""
        place = {name: row for row, name in enumerate(self.stimuli.tolist())}
        missing = [str(s) for s in np.asarray(stimuli) if str(s) not in place]
        if missing:
            raise DataError(f"the simulated brain never saw {', '.join(missing[:5])}")
        rows = self.responses[[place[str(name)] for name in np.asarray(stimuli)]]
        own = self.noise_sd**2 - np.square(self.loadings).sum(1)
        lower = np.linalg.cholesky(np.diag(own) + self.loadings @ self.loadings.T)
        return solve_triangular(lower, rows.T, lower=True).T


def _distances(rows: Floats) -> Floats:
    square = np.square(rows).sum(1)
    return np.sqrt(np.maximum(square[:, None] + square - 2 * rows @ rows.T, 0))
