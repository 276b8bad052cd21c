r"""The terms of variational autoencoders with diagonal Gaussian posteriors.

Every term is summed over what is inside a sample (latents; channels and time) and left per
sample, so that only the batch is averaged and ``beta`` means the same at every batch size.
Leading axes are free: ``(batch, ...)`` for one model, ``(member, batch, ...)`` for an ensemble.

References
----------
Kingma and Welling, "Auto-encoding variational Bayes" (ICLR 2014).
Higgins et al., "beta-VAE: Learning basic visual concepts with a constrained variational
framework" (ICLR 2017).
Burgess et al., "Understanding disentangling in beta-VAE" (2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""KL divergence from the posterior to N(0, 1), per latent.

    ``0.5 (mu^2 + sigma^2 - log sigma^2 - 1)``: Kingma and Welling 2014, appendix B, without
    the sum over latents.

    Parameters
    ----------
    mean, log_variance : Tensor, shape (..., latent)

    Returns
    -------
    Tensor, shape (..., latent)
        In nats.

    Examples
    --------
    >>> gaussian_kl(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0])).tolist()
    [0.0, 2.0]
    """
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)


def gaussian_reconstruction(
    output: Tensor, target: Tensor, *, sigma: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    r"""Negative log likelihood of a Gaussian of fixed width, without its constant.

    ``sum_{channel, time} (target - output)^2 / (2 sigma^2)``: Kingma and Welling 2014,
    appendix C.2, with the variance fixed.

    Parameters
    ----------
    output, target : Tensor, shape (..., channel, time)
    sigma : float
        Standard deviation of the noise, in the units of `target`.
    mask : Tensor, shape (..., 1 or channel, time), optional
        1 where a sample is real, 0 where it is padding.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> gaussian_reconstruction(torch.zeros(2, 3, 4), torch.ones(2, 3, 4)).tolist()
    [6.0, 6.0]
    """
    error = F.mse_loss(output, target, reduction="none")
    if mask is not None:
        error = error * mask
    return error.sum((-2, -1)) / (2 * sigma**2)


def sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Draw from the posterior by the reparameterisation ``mu + sigma eps`` (K&W 2014, sec. 2.4).

    Parameters
    ----------
    mean, log_variance, noise : Tensor, shape (..., latent)

    Returns
    -------
    Tensor, shape (..., latent)
    """
    return mean + noise * torch.exp(0.5 * log_variance)


def beta_objective(reconstruction: Tensor, kl: Tensor, beta: Tensor | float) -> Tensor:
    """``reconstruction + beta KL``, to be minimised: Higgins et al. 2017, eq. 4 (negated).

    Parameters
    ----------
    reconstruction, kl : Tensor, shape (..., batch)
        Per sample, `kl` summed over latents.
    beta : float or Tensor that broadcasts

    Returns
    -------
    Tensor, shape (..., batch)
    """
    return reconstruction + beta * kl


def capacity_objective(
    reconstruction: Tensor, kl: Tensor, gamma: Tensor | float, capacity: Tensor | float
) -> Tensor:
    """``reconstruction + gamma |KL - C|``, to be minimised: Burgess et al. 2018, eq. 8 (negated).

    The capacity binds the batch's mean KL (its expectation over the data), not every sample's:
    ``|KL - C|`` is linear on either side of C, so the side is chosen by the mean.

    Parameters
    ----------
    reconstruction, kl : Tensor, shape (..., batch)
        Per sample, `kl` summed over latents.
    gamma : float or Tensor that broadcasts
        Weight of the constraint.
    capacity : float or Tensor that broadcasts
        C in nats.

    Returns
    -------
    Tensor, shape (..., batch)
        Its mean over the batch is ``mean(reconstruction) + gamma |mean(KL) - C|``.
    """
    side = torch.sign(kl.detach().mean(-1, keepdim=True) - capacity)
    return reconstruction + gamma * side * (kl - capacity)


def ramp(epoch: int, n_epochs: int, final: float = 1.0) -> float:
    """Rise linearly from 0 in epoch 0 to `final` in epoch `n_epochs`: warm-up and capacity.

    Examples
    --------
    >>> [ramp(epoch, 4) for epoch in (0, 1, 4, 9)], ramp(0, 0)
    ([0.0, 0.25, 1.0, 1.0], 1.0)
    """
    return final if n_epochs <= 0 else final * min(1.0, epoch / n_epochs)
