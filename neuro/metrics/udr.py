"""Unsupervised disentanglement ranking (UDR): models that agree over seeds, without labels.

Disentangled models of one setting agree up to order, sign and choice of latents; entangled ones
do not. Each model is scored by how one-to-one its latents correspond to those of the other seeds.

References
----------
Duan et al., "Unsupervised model selection for variational disentangled representation learning"
(ICLR 2020, arXiv 1905.12614). The pooled mean of the paper's eq. (3) and the mean of two means
used here (as in the authors' disentanglement_lib) differ where two models keep different numbers
of latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError
from neuro.metrics.latents import kept_latents

Floats = NDArray[np.float64]
Method = Literal["lasso", "spearman"]
METHODS: tuple[Method, ...] = ("lasso", "spearman")
ALPHA = 0.1
_SWEEPS = 2000
_TOLERANCE = 1e-8
_UNRELATED = 1e-9  # a correlation that is rounding


def udr(
    latents: Sequence[ArrayLike],
    kl: Sequence[ArrayLike],
    *,
    method: Method = "lasso",
    alpha: float = ALPHA,
) -> tuple[Floats, Floats]:
    r"""Score the seeds of one hyper-parameter setting by their agreement with one another.

    With ``R[a, b]`` the strength between latent a of model i and latent b of model j, over the
    latents with KL > 0.01, ``D_ij`` is the mean of
    ``mean_b (max_a R)^2 / sum_a R`` and ``mean_a (max_b R)^2 / sum_b R``; the score of i is the
    median of ``D_ji`` over the other models j.

    Parameters
    ----------
    latents : sequence of array_like, each of shape (n, d)
        Posterior means of the same n samples by every model, in the same order. The models may
        differ in d.
    kl : sequence of array_like, each of shape (d,)
        Mean KL per latent, from `kl_per_latent`.
    method : {"lasso", "spearman"}
        ``R`` from the absolute coefficients of a Lasso of the latents of j on those of i (UDR_L,
        not symmetric), or absolute rank correlations (UDR_S).
    alpha : float
        Penalty of the Lasso.

    Returns
    -------
    scores : ndarray of shape (n_models,)
        Between 0 and 1. A model that kept no latent gets 0.
    pairwise : ndarray of shape (n_models, n_models)
        ``D_ij``; 0 on the diagonal.

    Raises
    ------
    InputError
        With fewer than two models, other numbers of samples, or values that are not finite.

    Notes
    -----
    Identical models (also permuted or with signs flipped) with uncorrelated latents score 1 by
    Spearman and ``1 - alpha`` by Lasso, whose penalty shrinks the coefficient.

    Examples
    --------
    >>> a = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    >>> b = [[1.0, 0.0], [0.0, 0.0], [1.0, -1.0], [0.0, -1.0]]
    >>> udr([a, b], [[1.0, 1.0]] * 2, method="spearman")[0].tolist()
    [1.0, 1.0]
    >>> udr([a, b], [[1.0, 1.0]] * 2)[0].round(6).tolist()
    [0.9, 0.9]
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    models, kept = _checked(latents, kl)
    if method == "lasso":
        values = _stack([_standardized(model) for model in models], kept)
        strength = _lasso(values, alpha)
    else:
        values = _stack([_standardized(_ranks(model)) for model in models], kept)
        strength = np.abs(_correlations(values))
    pairwise = _one_to_one(strength, kept)
    return _medians(pairwise), pairwise


@dataclass(frozen=True)
class Match:
    """Which latent of another model corresponds to each latent of a model.

    Parameters
    ----------
    index : ndarray of int, shape (d,)
        The other model's latent; -1 where there is none.
    sign : ndarray of int, shape (d,)
        1, or -1 where the two run against one another; 0 where there is none.
    strength : ndarray of shape (d,)
        Absolute rank correlation of the pair; 0 where there is none.
    """

    index: NDArray[np.intp]
    sign: NDArray[np.intp]
    strength: Floats


def match_latents(
    latents: ArrayLike,
    others: ArrayLike,
    kl: ArrayLike | None = None,
    others_kl: ArrayLike | None = None,
) -> Match:
    """Pair the latents of two models one to one so that their rank correlations are largest.

    Parameters
    ----------
    latents : array_like of shape (n, d)
    others : array_like of shape (n, e)
        The same samples by the other model.
    kl, others_kl : array_like of shape (d,) and (e,), optional
        Latents with KL <= 0.01 are left without a partner; by default all are used.

    Returns
    -------
    Match

    Examples
    --------
    >>> match = match_latents([[0, 5], [1, 3], [2, 9]], [[5, 0], [3, -1], [9, -2]])
    >>> match.index.tolist(), match.sign.tolist()
    ([1, 0], [-1, 1])
    """
    from scipy.optimize import linear_sum_assignment

    ones = [np.ones(np.shape(z)[1]) if np.ndim(z) == 2 else np.ones(0) for z in (latents, others)]
    weights = [one if k is None else k for one, k in zip(ones, (kl, others_kl), strict=True)]
    models, kept = _checked([latents, others], weights)
    a, b = (_standardized(_ranks(model)) for model in models)
    rho = (a.T @ b / len(a)) * kept[0][:, None] * kept[1]
    rows, columns = linear_sum_assignment(-np.abs(rho))
    paired = np.abs(rho[rows, columns]) > _UNRELATED
    rows, columns = rows[paired], columns[paired]
    d = len(kept[0])
    match = Match(np.full(d, -1, dtype=np.intp), np.zeros(d, dtype=np.intp), np.zeros(d))
    match.index[rows], match.sign[rows] = columns, np.sign(rho[rows, columns]).astype(np.intp)
    match.strength[rows] = np.minimum(np.abs(rho[rows, columns]), 1.0)
    return match


def latent_stability(latents: Sequence[ArrayLike], kl: Sequence[ArrayLike]) -> list[Floats]:
    """Tell for every latent of every seed how well the other seeds found it too.

    Parameters
    ----------
    latents, kl
        As in `udr`.

    Returns
    -------
    list of ndarray, each of shape (d,)
        Median over the other models of the absolute rank correlation with the matched latent.

    Examples
    --------
    >>> z = [[0.0, 0.3], [1.0, 0.1], [2.0, 0.2]]
    >>> latent_stability([z, z], [[1.0, 0.0], [1.0, 0.0]])[0].tolist()
    [1.0, 0.0]
    """
    models, _ = _checked(latents, kl)
    return [
        np.median(
            [
                match_latents(model, other, kl[i], kl[j]).strength
                for j, other in enumerate(models)
                if j != i
            ],
            axis=0,
        )
        for i, model in enumerate(models)
    ]


# ------------------------------------------------------------------------------------- inside


def _checked(
    latents: Sequence[ArrayLike], kl: Sequence[ArrayLike]
) -> tuple[list[Floats], list[NDArray[np.bool_]]]:
    models = [np.asarray(model, dtype=float) for model in latents]
    if len(models) < 2 or len(models) != len(kl):
        raise InputError(
            f"{len(models)} models and {len(kl)} KL vectors were given; expected two models (seeds "
            "of one setting) at least, and one vector for each"
        )
    kept = [kept_latents(k) for k in kl]
    for i, (model, keep) in enumerate(zip(models, kept, strict=True)):
        if model.ndim != 2 or keep.shape != model.shape[1:] or len(model) < 2:
            raise InputError(
                f"model {i} has latents of shape {model.shape} and KL of shape {keep.shape}; "
                "expected (n, d) with n >= 2, and (d,)"
            )
        if len(model) != len(models[0]):
            raise InputError(
                f"model {i} encoded {len(model)} samples, model 0 {len(models[0])}; "
                "all must encode the same samples"
            )
        if not np.isfinite(model[:, keep]).all():
            raise InputError(f"the latents of model {i} hold NaN or infinite values")
    return [np.where(k, z, 0.0) for z, k in zip(models, kept, strict=True)], kept


def _standardized(values: Floats) -> Floats:
    """Zero mean and unit variance per column; a constant column becomes 0."""
    values = values / np.maximum(np.abs(values).max(0), np.finfo(float).tiny)
    centred = values - values.mean(0)
    sd = centred.std(0)
    # Of a constant column rounding alone is left, and that must not be blown up to noise.
    return np.where(sd > 1e-12, centred / np.where(sd > 1e-12, sd, 1.0), 0.0)


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return rankdata(values, axis=0)


def _stack(models: list[Floats], kept: list[NDArray[np.bool_]]) -> Floats:
    """Put models (padded with zeros to the widest) into one array (model, n, d)."""
    width = max(k.size for k in kept)
    stacked = np.zeros((len(models), len(models[0]), width))
    for row, model, keep in zip(stacked, models, kept, strict=True):
        row[:, : keep.size] = model * keep
    return stacked


def _correlations(values: Floats) -> Floats:
    """Correlate all latents of all models at once: (i, j, latent of i, latent of j)."""
    n_models, n, d = values.shape
    flat = values.transpose(1, 0, 2).reshape(n, -1)
    return (flat.T @ flat / n).reshape(n_models, d, n_models, d).transpose(0, 2, 1, 3)


def _lasso(values: Floats, alpha: float) -> Floats:
    """Coefficients ``|w|`` of every pair: (i, j, latent of i, latent of j).

    Minimises ``|Z_j - Z_i W|^2 / 2n + alpha |W|_1`` by coordinate descent on the Gram matrices,
    for all pairs at once.
    """
    n_models, _, d = values.shape
    cross = _correlations(values)
    gram = cross[np.arange(n_models), np.arange(n_models)]  # (i, d, d)
    scale = np.diagonal(gram, axis1=1, axis2=2)  # 1, or 0 where a latent was dropped
    target = cross.transpose(0, 2, 1, 3).reshape(n_models, d, -1)  # (i, d, j * d)
    weights = np.zeros_like(target)
    for _ in range(_SWEEPS):
        change = 0.0
        for k in range(d):
            own = scale[:, k, None]
            rest = np.einsum("il,ilm->im", gram[:, k], weights) - own * weights[:, k]
            part = target[:, k] - rest
            shrunk = np.sign(part) * np.maximum(np.abs(part) - alpha, 0.0)
            new = np.where(own > 0, shrunk / np.where(own > 0, own, 1.0), 0.0)
            change = max(change, float(np.abs(new - weights[:, k]).max(initial=0.0)))
            weights[:, k] = new
        if change < _TOLERANCE:
            break
    return np.abs(weights).reshape(n_models, d, n_models, d).transpose(0, 2, 1, 3)


def _one_to_one(strength: Floats, kept: list[NDArray[np.bool_]]) -> Floats:
    n_models = len(strength)
    pairwise = np.zeros((n_models, n_models))
    for i in range(n_models):
        for j in range(n_models):
            if i != j:
                rows, columns = np.flatnonzero(kept[i]), np.flatnonzero(kept[j])
                pairwise[i, j] = _agreement(strength[i, j][np.ix_(rows, columns)])
    return pairwise


def _agreement(strength: Floats) -> float:
    if strength.size == 0:
        return 0.0
    largest_sum = [(strength.max(axis), strength.sum(axis)) for axis in (0, 1)]
    means = [
        np.mean(np.where(total > 0, largest**2 / np.where(total > 0, total, 1.0), 0.0))
        for largest, total in largest_sum
    ]
    return min(0.5 * float(means[0] + means[1]), 1.0)


def _medians(pairwise: Floats) -> Floats:
    others = ~np.eye(len(pairwise), dtype=bool)
    return np.array([np.median(pairwise[others[:, i], i]) for i in range(len(pairwise))])
