r"""The VAE family as one objective.

``loss = reconstruction + (1 - a) MI + b TC + c DWKL``, where MI + TC + DWKL is the KL of the
batch (Hoffman and Johnson 2016). Its members are settings:

=============  =======================  ========================================================
VAE            a = 0, b = c = 1         Kingma and Welling 2014
beta-VAE       1 - a = b = c = beta     Higgins et al. 2017
beta-TCVAE     a = 0, b = beta, c = 1   Chen et al. 2018, eq. 4
FactorVAE      VAE + gamma TC           Kim and Mnih 2018, eq. 2; TC by a density-ratio network
InfoVAE        1 - a = b = c, + MMD     Zhao, Song and Ermon 2019, eq. 6: weights 1 - alpha and
                                        alpha + lambda - 1
DTS            a > 0, b, c > 1          Li et al. 2022, individual factors
=============  =======================  ========================================================

Notes
-----
DTS's eq. 7, as restated publicly, is ``E[log p] - KL(q(z|x)||p) - b TC - b DWKL + (a - b)
KL(q(z)||p)``. Because TC + DWKL *is* ``KL(q(z)||p)``, in the estimate of a minibatch too, it
collapses to a VAE with ``(a - 2b) KL(q(z)||p)``: a plain VAE at a = 2b, and without a bound
beyond. The form here keeps what the paper's abstract asks for: more mutual information under a
heavier penalty on TC and DWKL. The reward for MI is capped at log B, which a batch can not exceed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn.aggregate import Estimator, decompose_kl
from neuro.nn.objective import Objective, Phase, State
from neuro.nn.sequences import SequenceVAE
from neuro.nn.vae import gaussian_kl, gaussian_reconstruction, ramp, sample


@dataclass(frozen=True)
class Penalty:
    """Weights of a member of the family.

    Attributes
    ----------
    a : float
        Mutual information is weighted by ``1 - a``; negative for a beta-VAE.
    b, c : float
        Of total correlation and of the dimension-wise KL.
    estimator : {"mws", "mss"}
        Of the aggregate posterior, see `neuro.nn.aggregate.log_weights`.
    analytic : bool
        Closed forms where there are some, see `neuro.nn.aggregate.decompose_kl`.
    ratio : float
        FactorVAE's gamma: weight of TC by a density-ratio network.
    mmd : float
        Weight of the maximum mean discrepancy between ``q(z)`` and the prior.
    stochastic : bool
        False decodes the posterior mean, without any penalty: the plain autoencoder.
    """

    a: float = 0.0
    b: float = 1.0
    c: float = 1.0
    estimator: Estimator = "mss"
    analytic: bool = True
    ratio: float = 0.0
    mmd: float = 0.0
    stochastic: bool = True

    @property
    def one_weight(self) -> bool:
        """Whether all three terms weigh alike, so that the closed KL serves."""
        # 1 - (1 - 0.1) is not 0.1, but as near as numbers of size 1 can be.
        weights = (1 - self.a, self.b, self.c)
        return max(weights) - min(weights) < 1e-15 and self.analytic


class VAEFamily(Objective):
    """A sequence VAE with any penalty of the family, and a Gaussian likelihood of fixed width.

    Parameters
    ----------
    network : SequenceVAE
        Anything with ``encode(x, mask)`` and ``decode(z)``.
    penalty : Penalty
    n_samples : int
        Training series.
    sigma : float
        Width of the likelihood, in the units of the (standardised) series.
    learning_rate : float
        Of Adam.
    warmup_epochs : int
        Epochs in which all penalties rise from 0.
    clip_norm : float, optional
        Largest norm of the gradient.
    """

    def __init__(
        self,
        network: SequenceVAE,
        penalty: Penalty | None = None,
        *,
        n_samples: int,
        sigma: float = 1.0,
        learning_rate: float = 1e-3,
        warmup_epochs: int = 0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.penalty = penalty or Penalty()
        self.n_samples, self.sigma = n_samples, sigma
        self.learning_rate, self.warmup_epochs = learning_rate, warmup_epochs
        self.clip_norm = clip_norm
        ratio = self.penalty.ratio > 0
        self.discriminator = make_discriminator(network.n_latents) if ratio else None

    def phases(self) -> list[Phase]:
        """Return Adam for the VAE, and FactorVAE's second one for the density ratio."""

        def adam(parameters: Any, member: int) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)

        def slow(parameters: Any, member: int) -> torch.optim.Optimizer:
            # Kim and Mnih 2018, appendix A.
            return torch.optim.Adam(parameters, lr=1e-4, betas=(0.5, 0.9))

        if self.discriminator is None:
            return [Phase("vae", adam, clip_norm=self.clip_norm)]
        vae = Phase("vae", adam, ("network.",), clip_norm=self.clip_norm)
        return [vae, Phase("ratio", slow, ("discriminator.",))]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss`` with its parts: a mean over the batch of sums inside a sample.

        Parameters
        ----------
        batch : dict
            ``x (batch, channel, time)``, standardised; optionally ``mask (batch, time)``.
        state : State
        """
        x, mask = batch["x"], batch.get("mask")
        mean, log_variance = self.network.encode(x, mask)
        z = self.draw(mean, log_variance, state)
        if state.phase == "ratio" and state.training:
            return {"loss": ratio_loss(self.ratio, z.detach(), state)}
        reconstruction = self.reconstruction(z, x, mask)
        losses = self.penalties(z, mean, log_variance, state)
        weight = ramp(state.epoch, self.warmup_epochs) if state.training else 1.0
        loss = reconstruction + weight * losses.pop("penalty")
        return {"loss": loss, "reconstruction": reconstruction.detach(), **losses}

    def draw(self, mean: Tensor, log_variance: Tensor, state: State) -> Tensor:
        """Draw from the posteriors in training; take their means in validation."""
        if not (self.penalty.stochastic and state.training):
            return mean
        return sample(mean, log_variance, state.normal((1, *mean.shape), mean)[0])

    def reconstruction(self, z: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the negative log likelihood of real samples, a mean over the batch."""
        seen = None if mask is None else mask[:, None].to(x.dtype)
        return gaussian_reconstruction(
            self.network.decode(z), x, sigma=self.sigma, mask=seen
        ).mean()

    @property
    def ratio(self) -> nn.Module:
        """The density-ratio network."""
        assert self.discriminator is not None  # noqa: S101
        return self.discriminator

    def penalties(
        self, z: Tensor, mean: Tensor, log_variance: Tensor, state: State
    ) -> dict[str, Tensor]:
        """Return ``penalty``, to be minimised, and what it is made of."""
        p = self.penalty
        kl = gaussian_kl(mean, log_variance).sum(-1).mean()
        if not p.stochastic:
            return {"penalty": torch.zeros_like(kl)}
        out = {"kl": kl.detach()}
        if p.one_weight:
            penalty = p.b * kl
        else:
            terms = decompose_kl(
                z, mean, log_variance, n_samples=self.n_samples, estimator=p.estimator,
                analytic=p.analytic,
            )  # fmt: skip
            mi, tc, dwkl = terms.mi.mean(), terms.tc.mean(), terms.dwkl.mean()
            penalty = mi + p.b * tc + p.c * dwkl - p.a * self._capped(mi, len(z))
            out.update(mi=mi.detach(), tc=tc.detach(), dwkl=dwkl.detach())
        if p.ratio:
            ratio = density_ratio_tc(self.ratio, z)
            penalty = penalty + p.ratio * ratio
            out["tc"] = ratio.detach()
        if p.mmd:
            like = state.normal((1, *z.shape), z)[0] if state.generators else torch.randn_like(z)
            mmd = maximum_mean_discrepancy(z, like)
            penalty = penalty + p.mmd * mmd
            out["mmd"] = mmd.detach()
        return {"penalty": penalty, **out}

    def _capped(self, mi: Tensor, n_batch: int) -> Tensor:
        """Return the MI that is rewarded: at most log B, what a batch can tell."""
        if self.penalty.a <= 0:
            return mi
        if self.penalty.estimator == "mws":
            mi = mi - math.log(self.n_samples)  # its weights add up to 1/N
        return mi.clamp(max=math.log(n_batch))

    def signature(self) -> dict[str, Any]:
        """Return the hyper-parameters."""
        return {
            "penalty": asdict(self.penalty), "sigma": self.sigma,
            "learning_rate": self.learning_rate, "warmup_epochs": self.warmup_epochs,
        }  # fmt: skip


def make_discriminator(n_latents: int, width: int = 128, depth: int = 3) -> nn.Module:
    """Build the density-ratio network: logits of "from q(z)" and "from the product".

    The paper's has five layers of 1,000, for images; this one suits a few latents.
    """
    layers: list[nn.Module] = []
    size = n_latents
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.LeakyReLU(0.2)]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, 2))


def density_ratio_tc(discriminator: nn.Module, z: Tensor) -> Tensor:
    """``E log D / (1 - D)``: Kim and Mnih 2018, eq. 3."""
    logits = discriminator(z)
    return (logits[:, 0] - logits[:, 1]).mean()


def permute_latents(z: Tensor, state: State | None = None) -> Tensor:
    """Shuffle each latent over the batch by itself: draws from the product of marginals.

    Parameters
    ----------
    z : Tensor, shape (batch, latent)
    state : State, optional
        Its first generator draws; PyTorch's own by default.
    """
    generator = state.generators[0] if state and state.generators else None
    keys = torch.rand(z.shape, generator=generator, dtype=z.dtype, device=z.device)
    return z.gather(0, keys.argsort(0))


def ratio_loss(discriminator: nn.Module, z: Tensor, state: State | None = None) -> Tensor:
    """Cross entropy of telling ``q(z)`` from permuted latents (Kim and Mnih 2018, algorithm 2)."""
    both = torch.cat([z, permute_latents(z, state)])
    labels = torch.zeros(len(both), dtype=torch.long, device=z.device)
    labels[len(z) :] = 1
    return F.cross_entropy(discriminator(both), labels)


def maximum_mean_discrepancy(z: Tensor, prior: Tensor) -> Tensor:
    """Unbiased squared MMD by inverse multiquadratics of several widths.

    ``k(x, y) = sum_s C / (C + |x - y|^2)`` with ``C = 2 D s``, ``s`` from 0.1 to 10: the kernel
    of Tolstikhin et al., "Wasserstein auto-encoders" (2018), appendix C.

    Parameters
    ----------
    z, prior : Tensor, shape (batch, latent)

    Returns
    -------
    Tensor, shape ()
        Near 0, and below at times, where both are of one distribution.
    """
    n = len(z)
    own = _kernel_sum(z, z, True) + _kernel_sum(prior, prior, True)
    return own / (n * (n - 1)) - 2 * _kernel_sum(z, prior, False) / n**2


def _kernel_sum(x: Tensor, y: Tensor, same: bool) -> Tensor:
    squared = (
        x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.mT
    ).clamp(min=0)  # fmt: skip
    if same:
        off = 1 - torch.eye(len(x), dtype=x.dtype, device=x.device)
    total = x.new_zeros(())
    for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        c = 2 * x.shape[1] * scale
        kernel = c / (c + squared)
        total = total + ((kernel * off).sum() if same else kernel.sum())
    return total
