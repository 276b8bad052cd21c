"""InfoMEC: modularity, explicitness and compactness of latents by information.

References
----------
Hsu, Dorrell, Whittington, Wu and Finn, "Disentanglement via latent quantization" (NeurIPS 2023,
arXiv 2305.18378), in the form of ratios.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.metrics.factors import Factor, Factors, Flags, Floats, clean, standardized
from neuro.metrics.mutual_information import N_NEIGHBORS, information_matrix

ACTIVE_SHARE = 1 / 20  # of the widest range


@dataclass(frozen=True)
class InfoMEC:
    """The three numbers and what they are made of.

    Parameters
    ----------
    infom, infoe, infoc : float
        Modularity (each latent informs of one factor), explicitness (factors can be read off
        linearly), compactness (each factor is in one latent); 0 is none.
    nmi : ndarray of shape (k, d)
        Information of factor and latent over the factor's entropy.
    active : ndarray of bool, shape (d,)
        Latents whose range is above a twentieth of the widest (quantised: above 0).
    factors : list of str
        Names of the rows of `nmi`.
    """

    infom: float
    infoe: float
    infoc: float
    nmi: Floats
    active: NDArray[np.bool_]
    factors: list[str]


def infomec(
    latents: ArrayLike,
    factors: Factors,
    *,
    discrete: Flags = None,
    quantized: bool = False,
    n_neighbors: int = N_NEIGHBORS,
    n_bins: int = 20,
) -> InfoMEC:
    r"""Compute InfoM, InfoE and InfoC.

    With ``NMI_ij = I(s_i; z_j) / H(s_i)`` over the k factors and the d active latents,
    ``InfoM = (mean_j [max_i NMI_ij / sum_i NMI_ij] - 1/k) / (1 - 1/k)`` and
    ``InfoC = (mean_i [max_j NMI_ij / sum_j NMI_ij] - 1/d) / (1 - 1/d)``;
    ``InfoE = mean_i (H_V(s_i) - H_V(s_i | z)) / H_V(s_i)`` where V is logistic regression with
    balanced classes and no penalty (of a continuous factor: R^2 of linear regression).

    Parameters
    ----------
    latents : array_like of shape (n, d)
    factors, discrete, n_bins
        As in `neuro.metrics.disentanglement`; continuous factors are cut into bins of equal
        population for the information.
    quantized : bool
        The latents are codes: information by counting, one-hot latents in the regression.
    n_neighbors : int
        For continuous latents.

    Returns
    -------
    InfoMEC

    Raises
    ------
    InputError
        As `neuro.metrics.factors.clean`.

    Notes
    -----
    Where the definition divides by zero: an active latent (a factor) without information counts
    as spread evenly, that is 0; with one factor, InfoM is 1 if any active latent informs of it;
    with one active latent, InfoC is the share of factors it informs of. InfoE is not below 0.
    Ratios of estimates that are all noise are large: read InfoM and InfoC beside InfoE, for
    latents that tell nothing have an InfoE of 0 and may have any InfoM.

    Examples
    --------
    >>> z = [[a, b] for a in range(3) for b in range(3)] * 20
    >>> found = infomec(z, z, quantized=True)
    >>> round(found.infom, 6), round(found.infoe, 2), round(found.infoc, 6)
    (1.0, 1.0, 1.0)
    """
    values, known = clean(latents, factors, discrete, n_bins)
    return infomec_of(values, known, quantized=quantized, n_neighbors=n_neighbors)


def infomec_of(
    latents: Floats,
    factors: Sequence[Factor],
    *,
    quantized: bool = False,
    n_neighbors: int = N_NEIGHBORS,
) -> InfoMEC:
    """Compute `infomec` of what `neuro.metrics.factors.clean` returned."""
    active = active_latents(latents, quantized)
    information, entropies = information_matrix(
        latents, factors, quantized=quantized, n_neighbors=n_neighbors
    )
    nmi = information / entropies[:, None]
    regressors = _one_hot(latents) if quantized else standardized(latents)
    explicit = [_explicitness(regressors[factor.rows], factor) for factor in factors]
    return InfoMEC(
        infom=concentration(nmi[:, active].T),
        infoe=float(np.mean(explicit)),
        infoc=concentration(nmi[:, active]),
        nmi=nmi,
        active=active,
        factors=[factor.name for factor in factors],
    )


def active_latents(latents: Floats, quantized: bool = False) -> NDArray[np.bool_]:
    """Mark the latents that vary: range above a twentieth of the widest (quantised: above 0)."""
    ranges = np.ptp(latents, axis=0)
    return ranges > (0.0 if quantized else float(ranges.max()) * ACTIVE_SHARE)


def concentration(strength: Floats) -> float:
    """Mean over rows of largest entry over sum, rescaled so that an even row gives 0.

    Examples
    --------
    >>> import numpy as np
    >>> concentration(np.array([[1.0, 0.0], [0.5, 0.5]]))
    0.5
    """
    n_rows, n = strength.shape
    if n_rows == 0 or n == 0:
        return 0.0
    total = strength.sum(1)
    if n == 1:
        informed = total > 0
        return float(informed.mean())
    share = np.where(total > 0, strength.max(1) / np.where(total > 0, total, 1.0), 1 / n)
    return float(np.clip((share.mean() - 1 / n) / (1 - 1 / n), 0.0, 1.0))


def _one_hot(latents: Floats) -> Floats:
    columns = [(z[:, None] == np.unique(z)).astype(float) for z in latents.T]
    return np.concatenate(columns, axis=1)


def _explicitness(X: Floats, factor: Factor) -> float:
    """Predictive information of a linear model on its own training rows, over the entropy."""
    if not X.any():
        return 0.0
    if not factor.discrete:
        return _r_squared(X, factor.values)
    # Balanced classes make a model without inputs answer 1 / K: its loss is log K.
    marginal = np.log(factor.n_classes)
    return float(np.clip((marginal - _log_loss(X, factor.classes)) / marginal, 0.0, 1.0))


def _r_squared(X: Floats, y: Floats) -> float:
    from sklearn.linear_model import LinearRegression

    return float(np.clip(LinearRegression().fit(X, y).score(X, y), 0.0, 1.0))


def _log_loss(X: Floats, classes: NDArray[np.intp]) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # An infinite C is no penalty, in old and new versions of scikit-learn alike.
    model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100, tol=1e-4)
    with warnings.catch_warnings():
        # The definition stops after 100 iterations; separable classes never converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        probability = model.fit(X, classes).predict_proba(X)
    own = probability[np.arange(len(X)), classes]
    return float(-np.mean(np.log(np.maximum(own, 1e-15))))
