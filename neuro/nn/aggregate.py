r"""Densities of the aggregate posterior: total correlation and its neighbours in blocked memory.

The aggregate posterior ``q(z) = E_x q(z|x)`` and the product of its marginals are estimated from
a minibatch (Chen et al. 2018, appendix C). Written plainly that is a tensor of batch x batch x
latent with several copies for the gradient; here blocks of rows that fit the cache are computed,
thrown away and computed again in the backward pass, with the same result.

References
----------
Chen, Li, Grosse and Duvenaud, "Isolating sources of disentanglement in variational
autoencoders" (NeurIPS 2018).
Hoffman and Johnson, "ELBO surgery" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Estimator = Literal["mws", "mss"]
_BLOCK_BYTES = 1 << 20  # of one block of rows x batch x latent: stays in a core's cache
_LOG_2PI = math.log(2 * math.pi)


def gaussian_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log density of diagonal Gaussians, per latent; shapes broadcast."""
    return -0.5 * ((z - mean).square() * (-log_variance).exp() + log_variance + _LOG_2PI)


def log_weights(
    n_batch: int, n_samples: int, estimator: Estimator, rows: slice | None = None
) -> Tensor:
    """Log of the weight of row j's posterior in the estimate of ``q(z_i)``.

    Parameters
    ----------
    n_batch : int
        B.
    n_samples : int
        N, of the training data.
    estimator : {"mws", "mss"}
        Minibatch weighted sampling: ``1 / (B N)`` (Chen et al. 2018, appendix C.1); stratified:
        ``1/N`` for the sample's own posterior, ``1/M`` for others, the last of them
        ``(N - M) / (N M)``, with ``M = B - 1`` (C.2).
    rows : slice, optional
        Of i; all by default.

    Returns
    -------
    Tensor of float64, shape (rows, B) or (1, 1)

    Notes
    -----
    The authors' code strides a flat view by B, which puts the weight of the own posterior into
    column 0; here it is on the diagonal, as in the paper.

    Examples
    --------
    >>> log_weights(4, 9, "mss").exp().sum(1).round(decimals=9).tolist()  # together 1
    [1.0, 1.0, 1.0, 1.0]
    """
    if estimator == "mws" or n_batch < 3:
        return torch.full((1, 1), -math.log(n_batch * n_samples), dtype=torch.float64)
    chosen = torch.arange(n_batch)[rows or slice(None)]
    m, n = n_batch - 1, max(n_samples, n_batch)
    weights = torch.full((len(chosen), n_batch), -math.log(m), dtype=torch.float64)
    at = torch.arange(len(chosen))
    weights[at, chosen] = -math.log(n)
    weights[at, (chosen + 1) % n_batch] = math.log((n - m) / (n * m))
    return weights


def log_aggregate_plain(
    z: Tensor, mean: Tensor, log_variance: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """``log q(z_i)`` and ``sum_d log q(z_id)`` in one piece: the reference form.

    Parameters
    ----------
    z, mean, log_variance : Tensor, shape (batch, latent)
    weights : Tensor, shape (batch, batch) or (1, 1)
        From `log_weights`.

    Returns
    -------
    log_q, log_product : Tensor, shape (batch,)
    """
    pairs = gaussian_log_density(z[:, None], mean[None], log_variance[None])
    log_q = torch.logsumexp(pairs.sum(-1) + weights, 1)
    return log_q, torch.logsumexp(pairs + weights[..., None], 1).sum(-1)


def log_aggregate(
    z: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    *,
    n_samples: int,
    estimator: Estimator = "mws",
    block_bytes: int = _BLOCK_BYTES,
) -> tuple[Tensor, Tensor]:
    """``log q(z_i)`` and ``sum_d log q(z_id)``, block by block.

    Parameters
    ----------
    z, mean, log_variance : Tensor, shape (batch, latent)
    n_samples : int
        Of the training data.
    estimator : {"mws", "mss"}
        See `log_weights`.
    block_bytes : int
        Size of one block's tensors; about eight are alive at once.

    Returns
    -------
    log_q, log_product : Tensor, shape (batch,)
        As of `log_aggregate_plain`.
    """
    return _Aggregate.apply(z, mean, log_variance, n_samples, estimator, block_bytes)


class _Aggregate(torch.autograd.Function):
    """The blocked form with its gradient; the blocks are (latent, rows, batch)."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, mean: Tensor, log_variance: Tensor, n: int, estimator: Estimator,
        block_bytes: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        rows = _Rows(z, mean, log_variance, n, estimator, block_bytes)
        log_q, log_each = z.new_empty(len(z)), z.new_empty(z.shape[1], len(z))
        for at in rows.blocks():
            _, pairs = rows.pairs(at)
            weights = rows.weights(at)
            log_q[at] = torch.logsumexp(pairs.sum(0).add_(weights), 1)
            log_each[:, at] = _logsumexp_(pairs.add_(weights))
        ctx.save_for_backward(z, mean, log_variance, log_q, log_each)
        ctx.settings = (n, estimator, block_bytes)
        return log_q, log_each.sum(0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z, mean, log_variance, log_q, log_each = ctx.saved_tensors
        rows = _Rows(z, mean, log_variance, *ctx.settings)
        dz = torch.empty_like(rows.z)
        first, second, total = (torch.zeros_like(rows.z) for _ in range(3))
        for at in rows.blocks():
            difference, pairs = rows.pairs(at)
            weights = rows.weights(at)
            joint = (pairs.sum(0).add_(weights).sub_(log_q[at, None])).exp_()
            joint.mul_(grads[0][at, None])
            share = pairs.add_(weights).sub_(log_each[:, at, None]).exp_()
            share.mul_(grads[1][at, None]).add_(joint)
            total += share.sum(1)
            share.mul_(difference)
            first += share.sum(1)
            dz[:, at] = -torch.bmm(share, rows.precision[..., None]).squeeze(-1)
            second += share.mul_(difference).sum(1)
        d_mean = first * rows.precision
        d_log_variance = 0.5 * (second * rows.precision - total)
        return dz.mT, d_mean.mT, d_log_variance.mT, None, None, None


class _Rows:
    """Blocks of rows of all pairs."""

    def __init__(
        self, z: Tensor, mean: Tensor, log_variance: Tensor, n_samples: int, estimator: Estimator,
        block_bytes: int,
    ) -> None:  # fmt: skip
        self.z, self.mean = z.mT.contiguous(), mean.mT.contiguous()
        self.precision = (-log_variance.mT).exp().contiguous()
        self.half = -0.5 * self.precision
        self.offset = -0.5 * (log_variance.mT + _LOG_2PI)
        self.n_samples, self.estimator = n_samples, estimator
        each = z.shape[1] * len(z) * z.element_size()
        self.step = max(1, min(len(z), block_bytes // max(each, 1)))

    def blocks(self) -> Iterator[slice]:
        n = self.z.shape[1]
        return (slice(start, min(start + self.step, n)) for start in range(0, n, self.step))

    def pairs(self, at: slice) -> tuple[Tensor, Tensor]:
        """Return differences and log densities, (latent, rows, batch)."""
        difference = self.z[:, at, None] - self.mean[:, None]
        pairs = (difference * difference).mul_(self.half[:, None]).add_(self.offset[:, None])
        return difference, pairs

    def weights(self, at: slice) -> Tensor:
        return log_weights(self.z.shape[1], self.n_samples, self.estimator, at).to(self.z)


def _logsumexp_(x: Tensor) -> Tensor:
    """Return the log-sum-exp over the last axis, using up `x`."""
    top = x.amax(-1, keepdim=True)
    return x.sub_(top).exp_().sum(-1).log_().add_(top.squeeze(-1))


@dataclass
class KLTerms:
    """The KL of a batch in three terms, per sample, in nats.

    Attributes
    ----------
    mi : Tensor, shape (batch,)
        ``I_q(x; z)``.
    tc : Tensor, shape (batch,)
        ``KL(q(z) || prod_d q(z_d))``, the total correlation.
    dwkl : Tensor, shape (batch,)
        ``sum_d KL(q(z_d) || p(z_d))``.
    """

    mi: Tensor
    tc: Tensor
    dwkl: Tensor


def decompose_kl(
    z: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    *,
    n_samples: int,
    estimator: Estimator = "mws",
    analytic: bool = True,
    block_bytes: int = _BLOCK_BYTES,
) -> KLTerms:
    r"""Split ``KL(q(z|x) || p(z))`` into MI + TC + DWKL (Chen et al. 2018, eq. 2).

    Parameters
    ----------
    z, mean, log_variance : Tensor, shape (batch, latent)
        `z` is drawn from the posteriors.
    n_samples : int
        Of the training data.
    estimator : {"mws", "mss"}
        See `log_weights`. The weights of MWS add up to ``1/N``: where all posteriors overlap, MI
        is too high by ``log N``, TC by ``(D - 1) log N``, and DWKL too low by ``D log N``. These
        are constants in training; take MSS where the values themselves are of interest.
    analytic : bool
        Take the entropy of ``q(z|x)`` and the cross entropy with the prior in closed form, so
        that the three add up to the closed KL; else all from the draw, as in the authors' code.
    block_bytes : int
        See `log_aggregate`.

    Returns
    -------
    KLTerms
    """
    log_q, log_product = log_aggregate(
        z, mean, log_variance, n_samples=n_samples, estimator=estimator, block_bytes=block_bytes
    )
    if analytic:
        own = -0.5 * (log_variance + 1 + _LOG_2PI).sum(-1)
        prior = -0.5 * (mean.square() + log_variance.exp() + _LOG_2PI).sum(-1)
    else:
        own = gaussian_log_density(z, mean, log_variance).sum(-1)
        prior = -0.5 * (z.square() + _LOG_2PI).sum(-1)
    return KLTerms(own - log_q, log_q - log_product, log_product - prior)
