"""The beta-VAE as an objective: what is minimised, and by which optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from neuro.nn.networks import MLPVAE, ConvVAE
from neuro.nn.objective import Objective, Phase, State
from neuro.nn.vae import (
    beta_objective,
    capacity_objective,
    gaussian_kl,
    gaussian_reconstruction,
    ramp,
    sample,
)

if TYPE_CHECKING:
    from neuro.nn.dae import FeatureError

# Floats in a member's parameters and in one batch of its input, beyond which a stack on a CPU
# leaves the cache and is slower than one member after another (benchmarks/ensemble.py).
_CPU_PARAMETERS = 500_000
_CPU_BATCH = 200_000


class BetaVAEObjective(Objective):
    """Beta-VAE with a Gaussian likelihood of unit width, on standardised signals.

    With ``beta = 0`` it is the plain autoencoder: the posterior mean is decoded, nothing is
    sampled, and the variance counts as 1.

    Parameters
    ----------
    network : ConvVAE or MLPVAE
    beta : float
        Weight of the KL term in per-sample units (Higgins et al. 2017, eq. 4); with `capacity`
        the weight of the constraint (Burgess et al. 2018, eq. 8).
    learning_rate : float
        Of Adam.
    warmup_epochs : int
        Epochs in which beta rises from 0; with `capacity`, in which the capacity does.
    capacity : float, optional
        Final capacity in nats.
    features : FeatureError, optional
        What the reconstruction is judged by, in place of the signal's squared error (Higgins et
        al. 2018, eq. 2).
    """

    stackable: ClassVar[bool] = True
    beta: Tensor

    def __init__(
        self,
        network: ConvVAE | MLPVAE,
        *,
        beta: float,
        learning_rate: float = 1e-3,
        warmup_epochs: int = 0,
        capacity: float | None = None,
        features: FeatureError | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.features = features
        self.learning_rate, self.warmup_epochs = learning_rate, warmup_epochs
        self.capacity = capacity
        self.compiled: dict[str, Any] = {}
        self.variational = beta > 0
        self.register_buffer("beta", torch.tensor([[float(beta)]]))

    def phases(self) -> list[Phase]:
        """Return one optimiser: Adam, one fused pass over the parameters."""
        return [Phase("vae", self._adam)]

    def _adam(self, parameters: Any, member: int) -> torch.optim.Optimizer:
        rate = self.each[member].learning_rate if self.each else self.learning_rate
        return torch.optim.Adam(parameters, lr=rate, fused=True)

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss``, ``reconstruction`` and ``kl``, shape ``(member,)``.

        Parameters
        ----------
        batch : dict
            ``x`` and optionally ``target``: ``([member,] batch, channel, time)``, standardised;
            ``weight (member, batch)`` where members have unequal rows.
        state : State
        """
        encode = self.compiled.get("encode", self.network.encode)
        decode = self.compiled.get("decode", self.network.decode)
        inputs = with_members(batch["x"])
        target = with_members(batch["target"]) if "target" in batch else inputs
        mean, log_variance = (t.to(inputs.dtype) for t in encode(inputs))
        variational = [one.variational for one in self.each or [self]]
        if not all(variational):
            # An autoencoder's variances are held by nothing: left alone, they overflow.
            log_variance = log_variance * (self.beta[..., None] > 0)
        z = mean
        if state.training and any(variational):
            noise = state.normal(tuple(mean.shape), mean)
            if not all(variational):
                noise = noise * (self.beta[..., None] > 0)
            z = sample(mean, log_variance, noise)
        output = decode(z).to(inputs.dtype)
        reconstruction = self._reconstruction(output, target)
        kl = gaussian_kl(mean, log_variance).sum(-1)
        loss = self._loss(reconstruction, kl, state)
        average = average_over(batch.get("weight"))
        return {
            "loss": average(loss),
            "reconstruction": average(reconstruction.detach()),
            "kl": average(kl.detach()),
        }

    def _reconstruction(self, output: Tensor, target: Tensor) -> Tensor:
        if self.features is None:
            return gaussian_reconstruction(output, target)
        return self.compiled.get("features", self.features)(output, target)

    def _loss(self, reconstruction: Tensor, kl: Tensor, state: State) -> Tensor:
        # Validation is scored by the final objective, or its epochs could not be compared.
        if self.capacity is not None:
            n_epochs = self.warmup_epochs or state.max_epochs // 2
            reached = ramp(state.epoch, n_epochs) if state.training else 1.0
            return capacity_objective(reconstruction, kl, self.beta, reached * self.capacity)
        weight = ramp(state.epoch, self.warmup_epochs) if state.training else 1.0
        return beta_objective(reconstruction, kl, weight * self.beta)

    def prefers_stack(self, device: torch.device, batch_size: int) -> bool:
        """Say yes on a GPU, and on a CPU where members and batches are small."""
        return stack_pays(self, self.network, device, batch_size)

    def compile_networks(self) -> None:
        """Compile encoder and decoder, for this training only: the network itself stays plain."""
        for name in ("encode", "decode"):
            self.compiled[name] = torch.compile(getattr(self.network, name))
        if self.features is not None:
            self.compiled["features"] = torch.compile(self.features)

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        each = self.each or [self]
        known = {
            "beta": self.beta.flatten().tolist(),
            "learning_rate": [o.learning_rate for o in each],
            "warmup_epochs": self.warmup_epochs,
            "capacity": self.capacity,
        }
        if self.features is not None:
            known["features"] = [o.features.settings for o in each]
        return known


def stack_pays(
    objective: Objective, network: nn.Module, device: torch.device, batch_size: int
) -> bool:
    """Say whether a stack is faster: on a GPU, and on a CPU where it stays in the cache."""
    if device.type != "cpu":
        return True
    if not isinstance(network, ConvVAE):
        return False
    parameters = sum(p.numel() for p in objective.parameters())
    floats = batch_size * network.n_channels * network.n_times
    return parameters <= _CPU_PARAMETERS and floats <= _CPU_BATCH


def with_members(x: Tensor) -> Tensor:
    """Give a batch of one model, ``(batch, channel, time)``, the axis of members."""
    return x[None] if x.ndim == 3 else x


def average_over(weight: Tensor | None) -> Any:
    """Return the mean over the batch, of the rows whose weight is 1 where there is a weight."""
    if weight is None:
        return lambda values: values.mean(-1)
    rows = weight.sum(-1).clamp(min=1)
    return lambda values: (values * weight).sum(-1) / rows
