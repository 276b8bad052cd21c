"""Small networks over images, and what they minimise: a convolutional VAE.

References
----------
Kingma and Welling, "Auto-encoding variational Bayes" (ICLR 2014).
Higgins et al., "beta-VAE: Learning basic visual concepts with a constrained variational
framework" (ICLR 2017).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn.objective import Objective, Phase, State
from neuro.nn.vae import beta_objective, gaussian_kl, gaussian_reconstruction, ramp, sample
from neuro.sources import Source

_GROUP = 8  # channels in a group of GroupNorm


def grid_sizes(size: tuple[int, int], largest: int = 4) -> list[tuple[int, int]]:
    """Halve rows and columns, rounded up, until neither is above `largest`.

    Examples
    --------
    >>> grid_sizes((28, 28))
    [(28, 28), (14, 14), (7, 7), (4, 4)]
    """
    sizes = [size]
    while max(sizes[-1]) > largest:
        rows, columns = sizes[-1]
        sizes.append((-(-rows // 2), -(-columns // 2)))
    return sizes


class ImageVAE(nn.Module):
    """Strided convolutions down to a small grid of latents, and back to pixels.

    Parameters
    ----------
    n_channels : int
        1 or 3.
    size : (int, int)
        Rows and columns, 8 to 64.
    n_features : int
        Latents at each place of the grid.
    width : int
        Channels at full size, a multiple of 8; doubled from the first halving on.
    grid : int
        Largest side of the grid.

    Examples
    --------
    >>> network = ImageVAE(1, (28, 28), n_features=8)
    >>> mean, log_variance = network.encode(torch.zeros(2, 1, 28, 28))
    >>> mean.shape, network.decode(mean).shape
    (torch.Size([2, 8, 4, 4]), torch.Size([2, 1, 28, 28]))
    """

    def __init__(
        self,
        n_channels: int,
        size: tuple[int, int],
        n_features: int = 8,
        width: int = 16,
        grid: int = 4,
    ) -> None:
        super().__init__()
        self.sizes = grid_sizes(size, grid)
        widths = [width, *[2 * width] * (len(self.sizes) - 1)]
        self.into = nn.Conv2d(n_channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(_norm(a), nn.SiLU(), nn.Conv2d(a, b, 3, stride=2, padding=1))
            for a, b in itertools.pairwise(widths)
        )
        self.middle = _Residual(widths[-1])
        self.posterior = nn.Conv2d(widths[-1], 2 * n_features, 1)
        self.outof = nn.Conv2d(n_features, widths[-1], 3, padding=1)
        self.spread = _Residual(widths[-1])
        back = widths[::-1]
        self.up = nn.ModuleList(
            nn.Sequential(_norm(a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
            for a, b in itertools.pairwise(back)
        )
        self.output = nn.Sequential(
            _norm(width), nn.SiLU(), nn.Conv2d(width, n_channels, 3, padding=1)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(batch, channel, row, column)`` to mean and log variance on the grid."""
        h = self.into(x)
        for layer in self.down:
            h = layer(h)
        mean, log_variance = self.posterior(self.middle(h)).chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)

    def decode(self, z: Tensor) -> Tensor:
        """Map ``(batch, feature, grid row, grid column)`` to pixels, not clipped."""
        h = self.spread(self.outof(z))
        for layer, size in zip(self.up, self.sizes[-2::-1], strict=True):
            h = layer(F.interpolate(h, size=size, mode="bilinear", align_corners=False))
        return self.output(h)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            _norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, width // _GROUP), width)


def random_affine(x: Tensor, degrees: float, shift: float, zoom: float) -> Tensor:
    """Turn, move and scale each image by chance; what comes in from outside repeats the border.

    Parameters
    ----------
    x : Tensor, shape (batch, channel, row, column)
    degrees, shift, zoom : float
        Half widths of the uniform distributions: degrees, share of the side, share of the size.

    Returns
    -------
    Tensor, as `x`
    """
    u = torch.rand(4, len(x), device=x.device) * 2 - 1
    angle, scale = u[0] * math.radians(degrees), 1 + u[1] * zoom
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([cos, -sin, 2 * shift * u[2], sin, cos, 2 * shift * u[3]], 1)
    field = F.affine_grid(theta.reshape(-1, 2, 3).to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, field, padding_mode="border", align_corners=False)


class ImageVAEObjective(Objective):
    r"""``sum (x - x_hat)^2 / (2 sigma^2) + beta KL`` of an `ImageVAE` (Higgins et al. 2017, eq. 4).

    Summed over pixels and latents, averaged over the batch.

    Parameters
    ----------
    network : ImageVAE
    beta : float
    sigma : float
        Standard deviation of the pixels' noise; pixels are in [0, 1].
    learning_rate : float
        Of Adam; it falls to 0 by a half cosine.
    warmup_epochs : int
        In which beta rises from 0.
    augment : bool
        Turn by up to 10 degrees, move by 6 %, scale by 10 %.
    """

    def __init__(
        self,
        network: ImageVAE,
        *,
        beta: float,
        sigma: float,
        learning_rate: float,
        warmup_epochs: int = 0,
        augment: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.beta, self.sigma, self.learning_rate = beta, sigma, learning_rate
        self.warmup_epochs, self.augment = warmup_epochs, augment

    def phases(self) -> list[Phase]:
        """Return the one optimiser, Adam."""
        rate = self.learning_rate
        make = lambda parameters, _: torch.optim.Adam(parameters, rate, fused=True)
        return [Phase("vae", make, clip_norm=100.0, schedule=half_cosine)]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss``, ``reconstruction`` and ``kl`` of ``x (batch, channel, row, column)``."""
        x = batch["x"]
        if self.augment and state.training:
            x = random_affine(x, 10, 0.06, 0.1)
        mean, log_variance = self.network.encode(x)
        noise = torch.randn_like(mean) if state.training else torch.zeros_like(mean)
        output = self.network.decode(sample(mean, log_variance, noise))
        reconstruction = gaussian_reconstruction(output, x, sigma=self.sigma).sum(-1)
        kl = gaussian_kl(mean, log_variance).flatten(1).sum(-1)
        weight = ramp(state.epoch, self.warmup_epochs) if state.training else 1.0
        loss = beta_objective(reconstruction, kl, weight * self.beta).mean()
        return {
            "loss": loss,
            "reconstruction": reconstruction.detach().mean(),
            "kl": kl.detach().mean(),
        }

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        names = ("beta", "sigma", "learning_rate", "warmup_epochs", "augment")
        return {name: getattr(self, name) for name in names}


def half_cosine(fraction: float) -> float:
    """Fall from 1 to 0 by a half cosine.

    Examples
    --------
    >>> half_cosine(0.0), round(half_cosine(0.5), 6), half_cosine(1.0)
    (1.0, 0.5, 0.0)
    """
    return 0.5 * (1 + math.cos(math.pi * fraction))


class Repeated:
    """A source several times over: epochs of a few images would cost more than their steps.

    Parameters
    ----------
    source : Source
    times : int
    """

    def __init__(self, source: Source, times: int) -> None:
        self.source, self.times, self.epoch = source, times, 0

    def __len__(self) -> int:
        return self.times * len(self.source)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; every pass within it has an order of its own."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for turn in range(self.times):
            self.source.set_epoch(self.epoch * self.times + turn)
            yield from self.source
