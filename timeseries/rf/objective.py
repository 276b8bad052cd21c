"""The losses of DR-RFF: fingerprint and background pulled apart by two alternating steps.

Names as in the paper: F extracts the fingerprint z of the device, Q the background of a burst
(itself a signal), G makes a signal from both.

References
----------
Xie et al., "Disentangled Representation Learning for RF Fingerprint Extraction under Unknown
Channel Statistics" (IEEE Trans. Commun. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn.objective import Objective, Phase, State
from timeseries.rf.augment import augment
from timeseries.rf.carrier import phase_step, turned_by
from timeseries.rf.networks import N_SKIPS, CosineHead, Extractor, UNet, frozen_statistics

__all__ = ["DRRFF", "Sizes", "Weights"]


@dataclass(frozen=True)
class Sizes:
    """Of the networks.

    For `residual` and `n_skips` (of Q) see `timeseries.rf.networks.UNet`, for `carrier` `DRRFF`.
    """

    n_samples: int
    n_devices: int
    n_latents: int
    width: int
    unet_width: int
    residual: bool = False
    carrier: bool = False
    n_skips: int = N_SKIPS


@dataclass(frozen=True)
class Weights:
    """Of the terms: names as in the paper.

    Attributes
    ----------
    lam : float
        Share of the shuffled signals in the loss of F; 0 trains F alone (ML-RFF).
    alpha : float
        Of the background's adversarial term, beside its squared error.
    epsilon : float
        Below so much knowledge of the device the adversarial term rests.
    beta : float
        Of the fingerprint that the made signal must have.
    cross : float
        Ours: of the fingerprint that a signal made of *two* bursts must have. Without it G may
        find what it needs in a background that only seems empty, and pass the fingerprint by.
    fresh : float
        Ours: of a second classifier that learns to tell devices from backgrounds while Q learns
        to leave it at chance; 0 leaves it out, as in the paper.
    """

    lam: float = 0.5
    alpha: float = 10.0
    epsilon: float = 0.0
    beta: float = 10.0
    cross: float = 0.0
    fresh: float = 0.0


class DRRFF(Objective):
    """F with its head, and Q and G where fingerprint and background are pulled apart.

    Squared errors are means over a record, as in the paper, since its weights belong to them.

    With ``sizes.carrier`` (ours) Q takes the carrier off a burst before its U-Net, and G puts on
    the carrier that the fingerprint tells. The carrier multiplies a signal, ``x = exp(jwn) s``,
    which small convolutions cannot do or undo: left in the backgrounds, it would teach F that the
    carrier says nothing about the device, since shuffled signals bear the device of the
    fingerprint. G is then scored on the signal without its carrier, and its carrier by itself.

    Where Q lacks skip connections (ours), phase and level of the background are those of the burst
    by least squares: the bottleneck need not hold them, and has no room for the device.

    Parameters
    ----------
    sizes : Sizes
    weights : Weights
    augmentation : str
        See `timeseries.rf.augment.augment`; applied to every batch before all else.
    scale, margin : float
        Of the head.
    learning_rate, qg_learning_rate : float
        Of Adam, for F and for Q and G.
    """

    monitor = "f_loss"

    def __init__(
        self, sizes: Sizes, weights: Weights, *, augmentation: str = "none", scale: float = 10.0,
        margin: float = 0.0, learning_rate: float = 1e-3, qg_learning_rate: float = 1e-3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weights, self.augmentation = weights, augmentation
        self.rates = {"f": learning_rate, "fresh": learning_rate, "qg": qg_learning_rate}
        self.f = Extractor(sizes.n_samples, sizes.width, sizes.n_latents)
        self.head = CosineHead(sizes.n_latents, sizes.n_devices, scale, margin)
        self.q: UNet | None = None
        self.g: UNet | None = None
        self.carrier = _Carrier(sizes.n_latents) if weights.lam > 0 and sizes.carrier else None
        self.fresh: nn.Sequential | None = None
        if weights.lam > 0:
            self.fitted = sizes.n_skips < N_SKIPS
            self.q = UNet(
                sizes.n_samples, sizes.unet_width, residual=sizes.residual and not self.fitted,
                n_skips=sizes.n_skips,
            )  # fmt: skip
            self.g = UNet(
                sizes.n_samples, sizes.unet_width, sizes.n_latents, residual=sizes.residual
            )
            if weights.fresh > 0:
                self.fresh = nn.Sequential(
                    Extractor(sizes.n_samples, sizes.width, sizes.n_latents),
                    CosineHead(sizes.n_latents, sizes.n_devices, scale, 0.0),
                )

        self.to(memory_format=torch.channels_last)

    def phases(self) -> list[Phase]:
        """Return the turns: Q and G, the second classifier where there is one, F and its head."""
        turns = [Phase("f", self._adam("f", 0.990), ("f.", "head."))]
        if self.fresh is not None:
            turns.insert(0, Phase("fresh", self._adam("fresh", 0.990), ("fresh.",)))
        if self.q is not None:
            own = ("q.", "g.") if self.carrier is None else ("q.", "g.", "carrier.")
            turns.insert(0, Phase("qg", self._adam("qg", 0.999), own))
        return turns

    def _adam(self, phase: str, beta2: float) -> Any:
        return lambda parameters, member: torch.optim.Adam(
            parameters, lr=self.rates[phase], betas=(0.9, beta2)
        )

    def step(self, batch: dict[str, Tensor], state: State) -> dict[str, Tensor]:
        """Return the losses of whose turn it is; in validation those of F on plain bursts."""
        x, y = batch["x"], batch["y"]
        if not state.training:
            return {"loss": F.cross_entropy(self.head(self.f(x)), y)}
        x = augment(x, self.augmentation, state.generators[0])
        if state.phase == "qg":
            return self._qg(x, y, state)
        if state.phase == "fresh":
            with torch.no_grad():
                background = self.background(x, state)
            return {"loss": F.cross_entropy(self._fresh(background), y)}
        return self._f(x, y, state)

    def background(self, x: Tensor, state: State | None = None) -> Tensor:
        """Return the background signals of records; with a state, noise of its generator."""
        return self._background(self._still(x), state)

    def _still(self, x: Tensor) -> Tensor:
        """Take the carrier off, where that is Q's task."""
        return x if self.carrier is None else _turn(x, -_step(x))

    def _background(self, x: Tensor, state: State | None) -> Tensor:
        assert self.q is not None  # noqa: S101 - for the type checker
        shape = (len(x), *self.q.shape)
        noise = x.new_zeros(shape) if state is None else state.normal((1, *shape), x)[0]
        found: Tensor = self.q(x, noise)
        return _fitted(found, x) if self.fitted else found

    def make(self, background: Tensor, z: Tensor) -> Tensor:
        """Return signals of given backgrounds and fingerprints."""
        assert self.g is not None  # noqa: S101 - for the type checker
        return self._moving(self.g(background, z), z)

    def _moving(self, made: Tensor, z: Tensor) -> Tensor:
        """Put the carrier on, where that is G's task."""
        return made if self.carrier is None else _turn(made, self.carrier(z))

    def _qg(self, x: Tensor, y: Tensor, state: State) -> dict[str, Tensor]:
        weights = self.weights
        still = self._still(x)
        background = self._background(still, state)
        with frozen_statistics(self.f):
            z = self.f(x).detach()
            known = self._knowledge(self.head(self.f(background)), y)
            assert self.g is not None  # noqa: S101
            made = self.g(background, z)
            cycle = F.mse_loss(self.f(self._moving(made, z)), z)
            swapped = z.new_zeros(())
            if weights.cross > 0:
                donors = _donors(len(x), state, x)
                swapped = F.mse_loss(self.f(self.make(background[donors], z)), z)
        near, again = F.mse_loss(background, still), F.mse_loss(made, still)
        loss = weights.alpha * known.clamp(min=weights.epsilon) + near + again
        loss = loss + weights.beta * cycle + weights.cross * swapped
        terms = {"known": known, "near": near, "again": again, "cycle": cycle}
        if weights.cross > 0:
            terms["swapped"] = swapped
        if self.fresh is not None:
            with frozen_statistics(self.fresh):
                found = F.log_softmax(self._fresh(background), 1)
            # At chance every device is as likely as any other.
            terms["found"] = -found.mean() - math.log(found.shape[1])
            loss = loss + weights.fresh * terms["found"]
        if self.carrier is not None:
            terms["carrier"] = self.carrier.error(z, _step(x))
            loss = loss + terms["carrier"]
        return {"loss": loss, **terms}

    def _fresh(self, background: Tensor) -> Tensor:
        assert self.fresh is not None  # noqa: S101
        logits: Tensor = self.fresh(background)
        return logits

    def _f(self, x: Tensor, y: Tensor, state: State) -> dict[str, Tensor]:
        z = self.f(x)
        plain = F.cross_entropy(self.head(z, y), y)
        if self.q is None:
            return {"loss": plain}
        with torch.no_grad():
            donors = _donors(len(x), state, x)
            made = self.make(self.background(x[donors], state), z)
        # The made signal is of the device that gave the fingerprint, not of the background's.
        shuffled = F.cross_entropy(self.head(self.f(made), y), y)
        lam = self.weights.lam
        return {"loss": (1 - lam) * plain + lam * shuffled, "plain": plain, "shuffled": shuffled}

    @staticmethod
    def _knowledge(logits: Tensor, y: Tensor) -> Tensor:
        """``E[log p(y | background)] - log(1 / K)``: 0 where the background says nothing."""
        return math.log(logits.shape[1]) - F.cross_entropy(logits, y)

    def signature(self) -> dict[str, Any]:
        """Return what a checkpoint is known by."""
        return {"weights": vars(self.weights), "augmentation": self.augmentation}


class _Carrier(nn.Module):
    """The carrier that a fingerprint tells, in rad per sample."""

    unit = 0.1

    def __init__(self, n_latents: int, n_hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(n_latents, affine=False), nn.Linear(n_latents, n_hidden), nn.ReLU(),
            nn.Linear(n_hidden, 1),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """Map fingerprints ``(batch, latent)`` to steps ``(batch,)``."""
        step: Tensor = self.unit * self.layers(z)[:, 0]
        return step

    def error(self, z: Tensor, step: Tensor) -> Tensor:
        """Return the squared error over the variance of the batch: 1 where nothing is known."""
        spread = step.var(unbiased=False).clamp(min=1e-8)
        return (self(z) - step).square().mean() / spread


def _fitted(found: Tensor, x: Tensor) -> Tensor:
    """Give signals the phase and level with which they come nearest to records."""
    own, other = torch.complex(found[:, 0], found[:, 1]), torch.complex(x[:, 0], x[:, 1])
    power = own.abs().square().sum(1, keepdim=True)
    own = own * (own.conj() * other).sum(1, keepdim=True) / (power + 1e-6)
    return torch.stack([own.real, own.imag], 1)


def _step(x: Tensor) -> Tensor:
    with torch.no_grad():
        step: Tensor = phase_step(torch.complex(x[:, 0], x[:, 1]))
    return step


def _turn(x: Tensor, step: Tensor) -> Tensor:
    turned = turned_by(torch.complex(x[:, 0], x[:, 1]), step.to(x.dtype))
    return torch.stack([turned.real, turned.imag], 1)


def _donors(n: int, state: State, like: Tensor) -> Tensor:
    """Draw whose background goes with each fingerprint."""
    return torch.randperm(n, generator=state.generators[0], device=like.device)
