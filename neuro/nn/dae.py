r"""The denoising autoencoder whose features stand in for the signal in a beta-VAE's loss.

Training goes in two steps. A denoising autoencoder D learns to fill in inputs of which parts are
masked; then it is frozen, and the beta-VAE is trained with the error of its features J,

``L_x = E ||J(x_hat) - J(x)||^2 + beta KL(q(z|x) || N(0, 1))``,

to be minimised: Higgins et al. 2018, eq. 2 (negated). The paper contradicts itself on J: section 4
speaks of the features of the autoencoder's encoder, appendix A.1 of its reconstructions. Here, as
in the replications of the paper, J is the encoder.

Where J does not look, nothing holds the decoder: what it gives back in signal space is less
faithful than under the squared error of the signal. The loss is meant for the codes.

References
----------
Higgins et al., "SCAN: Learning hierarchical compositional visual concepts" (ICLR 2018).
Vincent et al., "Extracting and composing robust features with denoising autoencoders" (ICML 2008).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuro.nn.beta_vae import average_over, stack_pays, with_members
from neuro.nn.networks import ConvVAE
from neuro.nn.objective import Objective, Phase, State
from neuro.nn.vae import gaussian_reconstruction

_LEAST = 1e-8  # variance of features that tell nothing: constant data give a finite loss


class DAE(nn.Module):
    """Autoencoder with bounded features: the networks of `ConvVAE`, of which the mean is used.

    Parameters
    ----------
    n_channels, n_times : int
    n_features : int
        Size of the code J.
    seed : int
        Of the initial weights.

    Examples
    --------
    >>> dae = DAE(3, 50, n_features=10)
    >>> x = torch.zeros(1, 8, 3, 50)  # (member, batch, channel, time)
    >>> dae.features(x).shape, dae(x).shape
    (torch.Size([1, 8, 10]), torch.Size([1, 8, 3, 50]))
    """

    def __init__(self, n_channels: int, n_times: int, n_features: int = 100, seed: int = 0) -> None:
        super().__init__()
        self.network = ConvVAE(n_channels, n_times, n_features, seed=seed)

    def features(self, x: Tensor) -> Tensor:
        """Map ``(member, batch, channel, time)`` to J, ``(member, batch, feature)`` in -1..1."""
        return torch.tanh(self.network.encode(x)[0])

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``(member, batch, channel, time)``."""
        return self.network.decode(self.features(x))


def random_mask(uniform: Tensor, n_times: int, fraction: float) -> Tensor:
    """Choose what an input shows: a block of channels and times is hidden, or whole channels.

    One half of the samples lose whole channels, each with the probability `fraction`. In the
    other half a channel is hit with the probability ``sqrt(fraction)``, and what is hit loses the
    same stretch of ``sqrt(fraction)`` of the time axis. Either way `fraction` of all values is
    hidden in the mean, everywhere equally often: a stretch goes on round the end.

    Parameters
    ----------
    uniform : Tensor, shape (..., 2 + channel)
        Random numbers between 0 and 1: the kind, the start, and one for each channel.
    n_times : int
    fraction : float
        Between 0 and 1.

    Returns
    -------
    Tensor, shape (..., channel, time)
        In the dtype of `uniform`: 1 where a value is shown, 0 where it is hidden.

    Examples
    --------
    >>> random_mask(torch.tensor([[0.9, 0.5, 0.1, 0.8]]), 4, 0.25).tolist()
    [[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]]
    """
    kind, start, channel = uniform[..., :1], uniform[..., 1:2], uniform[..., 2:]
    whole, side = kind < 0.5, math.sqrt(fraction)
    hit = channel < torch.where(whole, fraction, side)
    position = torch.arange(n_times, dtype=uniform.dtype, device=uniform.device) / n_times
    inside = ((position - start) % 1 < side) | whole
    return (~(hit[..., :, None] & inside[..., None, :])).to(uniform.dtype)


class DAEObjective(Objective):
    r"""What the denoising autoencoder minimises: ``1/2 ||D(m x) - x||^2`` (Vincent et al. 2008).

    ``m`` hides another part of every sample in every epoch (`random_mask`). Hidden values are 0,
    the mean of standardised signals. The error is that of all values, hidden and shown; it is
    summed over channels and time and averaged over the batch only.

    Parameters
    ----------
    dae : DAE
    mask_fraction : float
        Share of values that are hidden.
    learning_rate : float
        Of Adam.

    Examples
    --------
    >>> objective = DAEObjective(DAE(3, 50, 10), mask_fraction=0.25)
    >>> state = State(max_epochs=1, generators=[torch.Generator().manual_seed(0)])
    >>> sorted(objective.step({"x": torch.zeros(8, 3, 50)}, state))
    ['loss']
    """

    stackable: ClassVar[bool] = True

    def __init__(self, dae: DAE, *, mask_fraction: float, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.dae = dae
        self.mask_fraction, self.learning_rate = mask_fraction, learning_rate

    def phases(self) -> list[Phase]:
        """Return the one optimiser, Adam."""
        rate = self.learning_rate
        return [Phase("dae", lambda parameters, _: torch.optim.Adam(parameters, rate, fused=True))]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss``, shape ``(member,)``; without masks where `state` is not of training.

        Parameters
        ----------
        batch : dict
            ``x`` and optionally ``target``: ``([member,] batch, channel, time)``, standardised.
            A target is what the beta-VAE gives back, and so what is learned here. ``weight
            (member, batch)`` where members have unequal rows.
        state : State
        """
        clean = with_members(batch.get("target", batch["x"]))
        shown = clean * self._mask(clean, state) if state.training else clean
        error = gaussian_reconstruction(self.dae(shown).to(clean.dtype), clean)
        return {"loss": average_over(batch.get("weight"))(error)}

    def _mask(self, clean: Tensor, state: State) -> Tensor:
        members, batch, n_channels, n_times = clean.shape
        normal = state.normal((members, batch, 2 + n_channels), clean)
        return random_mask(torch.special.ndtr(normal), n_times, self.mask_fraction)

    def prefers_stack(self, device: torch.device, batch_size: int) -> bool:
        """Say yes on a GPU, and on a CPU where members and batches are small."""
        return stack_pays(self, self.dae.network, device, batch_size)

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        return {"mask_fraction": self.mask_fraction, "learning_rate": self.learning_rate}


class FeatureError(nn.Module):
    r"""Error of a frozen autoencoder's features, in place of the signal's squared error.

    ``1/2 c ||J(x_hat) - J(x)||^2`` with ``c = n_values / sum_f var(J_f)``: the first term of
    Higgins et al. 2018, eq. 2, times a constant. Features have no unit of their own. With the
    variance over the training data in the divisor, an output that knows nothing but the mean
    feature has the error ``n_values / 2``, as a flat line has by the squared error of
    standardised signals. So `beta` weighs a nat against the same total as without it. One
    constant serves all features: were each divided by its own variance, those that hardly vary
    would rule the loss.

    Parameters
    ----------
    dae : DAE
        Trained; it is frozen here.
    variance : Tensor, shape (feature,)
        Of every feature over the training data; see `feature_variance`.
    settings : dict, optional
        JSON by which one training of the autoencoder is known from another.

    Examples
    --------
    >>> error = FeatureError(DAE(3, 50, 10), torch.full((10,), 0.1))
    >>> x = torch.ones(1, 8, 3, 50)
    >>> error(x, x).shape, error(x, x).sum().item()
    (torch.Size([1, 8]), 0.0)
    """

    scale: Tensor

    def __init__(
        self, dae: DAE, variance: Tensor, *, settings: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.dae = dae.requires_grad_(False)
        self.settings = settings or {}
        n_values = dae.network.n_channels * dae.network.n_times
        scale = n_values / variance.sum().clamp(min=_LEAST)
        self.register_buffer("scale", scale.reshape(1, 1).to(next(dae.parameters())))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Map two signals ``(member, batch, channel, time)`` to ``(member, batch)``."""
        with torch.no_grad():
            wanted = self.dae.features(target)
        difference = (self.dae.features(output) - wanted).to(output.dtype)
        return self.scale * difference.square().sum(-1) / 2


def feature_variance(dae: DAE, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    """Return the variance of every feature over the samples of some batches.

    Parameters
    ----------
    dae : DAE
        Of one member.
    batches : iterable of dict
        ``x`` and optionally ``target``, ``(batch, channel, time)``, as in `DAEObjective.step`.

    Returns
    -------
    Tensor of float64, shape (feature,)
    """
    parts = []
    with torch.no_grad():
        for batch in batches:
            clean = with_members(batch.get("target", batch["x"]))
            parts.append(dae.features(clean)[0].double())
    return torch.cat(parts).var(0, correction=0)
