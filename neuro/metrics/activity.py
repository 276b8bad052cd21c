"""What passive latents do to the mean and to the sampled representation of a VAE.

References
----------
Bonheme and Grzes, "Be more active! Understanding the differences between mean and sampled
representations of variational autoencoders" (arXiv 2109.12679): passive latents are noise when
sampled, and so independent of all others, but their means may be correlated.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError
from neuro.metrics.dependence import mean_correlation, total_correlation
from neuro.metrics.factors import Factor, Factors, Flags, Floats, clean, halves
from neuro.metrics.latents import PASSIVE, variable_types


@dataclass(frozen=True)
class Representation:
    """One representation and its numbers.

    Parameters
    ----------
    representation : {"mean", "sampled"}
    latents : {"all", "without passive"}
    n_latents : int
    tc : float
        Total correlation as a Gaussian, nats.
    correlation : float
        Mean absolute correlation over pairs.
    probe : float, optional
        Mean over factors of a linear probe on the left-out third: balanced accuracy of classes,
        R^2 (not below 0) of continuous ones.
    """

    representation: str
    latents: str
    n_latents: int
    tc: float
    correlation: float
    probe: float | None = None


def compare_representations(
    mean: ArrayLike,
    variance: ArrayLike,
    factors: Factors | None = None,
    *,
    discrete: Flags = None,
    random_state: int = 0,
) -> list[Representation]:
    """Compare mean and sampled latents, with and without passive ones.

    Parameters
    ----------
    mean, variance : array_like of shape (n, d)
        Of the posteriors; variances, not log variances.
    factors, discrete
        As in `disentanglement`; with them each representation is probed.
    random_state : int
        Of the sample and the split.

    Returns
    -------
    list of Representation
        Four: mean and sampled of all latents, then without passive ones.

    Raises
    ------
    InputError
        Where mean and variance differ in shape, are not finite, or a variance is negative.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(500, 1))
    >>> mean = np.hstack([rng.normal(size=(500, 1)), 0.01 * shared, 0.01 * shared])
    >>> found = compare_representations(mean, np.tile([0.01, 1.0, 1.0], (500, 1)))
    >>> found[0].tc > 5, found[1].tc < 0.1, found[2].n_latents
    (True, True, 1)
    """
    mean, variance = np.asarray(mean, dtype=float), np.asarray(variance, dtype=float)
    if mean.shape != variance.shape or mean.ndim != 2:
        raise InputError(
            f"mean and variance are {mean.shape} and {variance.shape}; expected both (n, d)"
        )
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        raise InputError("mean and variance must be finite, and variances not below 0")
    noise = np.random.default_rng(random_state).normal(size=mean.shape)
    sampled = mean + np.sqrt(variance) * noise
    kept = variable_types(variance) != PASSIVE
    known = [] if factors is None else clean(mean, factors, discrete)[1]
    return [
        _measure(name, told, values[:, chosen], known, random_state)
        for told, chosen in (("all", np.ones_like(kept)), ("without passive", kept))
        for name, values in (("mean", mean), ("sampled", sampled))
    ]


def gap_closed(found: Sequence[Representation], measure: str = "tc") -> float:
    """Share of the gap between mean and sampled that goes when passive latents are dropped.

    1 is all of it; negative where the gap grew; 0 where there was none.

    Parameters
    ----------
    found : sequence of Representation
        From `compare_representations`.
    measure : {"tc", "correlation", "probe"}
    """
    values = {(f.representation, f.latents): asdict(f)[measure] for f in found}
    before, after = (
        abs(values["mean", told] - values["sampled", told]) for told in ("all", "without passive")
    )
    return 1 - after / before if before > 0 else 0.0


def _measure(
    name: str, told: str, z: NDArray[np.float64], factors: Sequence[Factor], seed: int
) -> Representation:
    n = z.shape[1]
    tc, r = (total_correlation(z), mean_correlation(z)) if n else (0.0, 0.0)
    probe = float(np.mean([_probe(z, f, seed) for f in factors])) if factors else None
    return Representation(name, told, n, tc, r, probe)


def _probe(z: Floats, factor: Factor, seed: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import balanced_accuracy_score

    train, test = halves(factor, seed)
    if z.shape[1] == 0 or len(test) == 0:
        return 1 / factor.n_classes if factor.discrete else 0.0
    X = z[factor.rows]
    centre, scale = X[train].mean(0), X[train].std(0)
    X = (X - centre) / np.where(scale > 0, scale, 1.0)
    if not factor.discrete:
        truth = factor.values[test]
        error = np.sum((truth - Ridge().fit(X[train], factor.values[train]).predict(X[test])) ** 2)
        total = np.sum((truth - truth.mean()) ** 2)
        return max(0.0, 1 - float(error / total)) if total > 0 else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=200).fit(X[train], factor.classes[train])
    return float(balanced_accuracy_score(factor.classes[test], model.predict(X[test])))
