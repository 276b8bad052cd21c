"""The networks of DR-RFF: extractor of the device, U-Nets of the background and of signals.

A record ``(iq, time)`` is folded into an image of 16 rows, so that a row of the ZigBee preamble is
half a symbol and equal places of neighbouring symbols lie one above the other.

References
----------
Xie et al., "Disentangled Representation Learning for RF Fingerprint Extraction under Unknown
Channel Statistics" (IEEE Trans. Commun. 2023).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "N_SKIPS",
    "ROWS",
    "CosineHead",
    "Extractor",
    "UNet",
    "columns",
    "fold",
    "frozen_statistics",
]

ROWS = 16
_STRIDES = (1, 1, 2, 1, 2, 2)
_LEVELS = (1, 2, 4, 8, 8)  # channels of the U-Net, in units of its first
N_SKIPS = len(_LEVELS) - 1


def columns(n_samples: int) -> int:
    """Return the columns of the image that a record is folded into: a multiple of 16."""
    return -(-n_samples // (ROWS * 16)) * 16


def fold(x: Tensor) -> Tensor:
    """Fold records ``(batch, iq, time)`` into ``(batch, iq, 16, column)``, zeros at the end."""
    n = x.shape[-1]
    width = columns(n)
    return F.pad(x, (0, ROWS * width - n)).unflatten(-1, (ROWS, width))


class Extractor(nn.Module):
    """F: six convolutions to a fingerprint, the last one over the whole image.

    Parameters
    ----------
    n_samples : int
        Of a record.
    width : int
        Channels of the first layer; each of six layers doubles them. 18 in the paper.
    n_latents : int
        Size of the fingerprint. 512 in the paper.
    """

    def __init__(self, n_samples: int, width: int, n_latents: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 2
        for number, stride in enumerate(_STRIDES):
            n_out = width * 2**number
            layers += [
                nn.Conv2d(n_in, n_out, 3, stride, 1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)
            ]  # fmt: skip
            n_in = n_out
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(n_in, n_latents, (ROWS // 8, columns(n_samples) // 8))

    def forward(self, x: Tensor) -> Tensor:
        """Map records ``(batch, 2, time)`` to fingerprints ``(batch, latent)``."""
        return self.last(self.layers(fold(x))).flatten(1)


class CosineHead(nn.Module):
    """The device of a fingerprint by the angle to one direction each.

    Parameters
    ----------
    n_latents, n_devices : int
    scale : float
        ``s`` of the logits ``s cos(theta)``.
    margin : float
        ``m``: the right device's logit is ``s cos(theta + m)`` in the loss.
    """

    def __init__(self, n_latents: int, n_devices: int, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_devices, n_latents))
        nn.init.xavier_uniform_(self.weight)
        self.scale, self.margin = scale, margin

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits ``(batch, device)``; with the truth `y`, its margin taken off."""
        cosine = F.normalize(z, dim=1) @ F.normalize(self.weight, dim=1).T
        if y is not None and self.margin:
            own = cosine.gather(1, y[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
            cosine = cosine.scatter(1, y[:, None], torch.cos(torch.acos(own) + self.margin))
        return self.scale * cosine


class UNet(nn.Module):
    """Q or G: a U-Net from signal to signal, with something added to its bottleneck.

    Parameters
    ----------
    n_samples : int
        Of a record.
    width : int
        Channels of the first level. 64 in the paper.
    n_latents : int
        Size of a code that a linear layer adds to the bottleneck; 0 adds standard normal noise
        instead.
    residual : bool
        Add the input to the output, and begin at the identity: small networks that are trained
        for few steps need not learn first to pass a signal through.
    n_skips : int
        How many of the four skip connections there are, from the coarsest on. In place of those
        that are left out stand learned maps, the same for all records (what a preamble has in
        common): with none, all that tells one record from another goes through the bottleneck.
    """

    def __init__(
        self, n_samples: int, width: int, n_latents: int = 0, *, residual: bool = False,
        n_skips: int = N_SKIPS,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual = residual
        sizes = [width * level for level in _LEVELS]
        self.first = _double(2, sizes[0])
        self.down = nn.ModuleList(_double(a, b) for a, b in itertools.pairwise(sizes))
        outs = [max(s // 2, width) for s in sizes[-2:0:-1]] + [width]
        self.up = nn.ModuleList()
        n_in = sizes[-1]
        for skip, out in zip(sizes[-2::-1], outs, strict=True):
            self.up.append(_double(n_in + skip, out, (n_in + skip) // 2))
            n_in = out
        self.out = nn.Conv2d(n_in, 2, 1)
        if residual:
            for parameter in self.out.parameters():
                nn.init.zeros_(parameter)
        self.maps = nn.ParameterList(
            torch.randn(1, size, ROWS >> level, columns(n_samples) >> level)
            for level, size in reversed(list(enumerate(sizes[: N_SKIPS - n_skips])))
        )
        self.shape = (sizes[-1], ROWS // 16, columns(n_samples) // 16)
        self.code = nn.Linear(n_latents, self.shape[0] * self.shape[1] * self.shape[2]) if (
            n_latents
        ) else None  # fmt: skip

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        """Map records ``(batch, 2, time)`` to records.

        Parameters
        ----------
        x : Tensor, shape (batch, 2, time)
        added : Tensor, shape (batch, latent) or (batch, *shape)
            The code, or the noise.
        """
        levels = [self.first(fold(x))]
        for layer in self.down:
            levels.append(layer(F.max_pool2d(levels[-1], 2)))
        h = levels.pop()
        h = h + (added if self.code is None else self.code(added).view(-1, *self.shape))
        levels[: len(self.maps)] = [m.expand(len(x), -1, -1, -1) for m in reversed(self.maps)]
        for layer in self.up:
            h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
            h = layer(torch.cat([levels.pop(), h], 1))
        made = self.out(h).flatten(2)[..., : x.shape[-1]]
        return x + made if self.residual else made


def _double(n_in: int, n_out: int, n_mid: int | None = None) -> nn.Sequential:
    n_mid = n_mid or n_out
    return nn.Sequential(
        nn.Conv2d(n_in, n_mid, 3, padding=1), nn.BatchNorm2d(n_mid), nn.ReLU(),
        nn.Conv2d(n_mid, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(),
    )  # fmt: skip


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Let a network use a batch's statistics without learning them.

    Signals that a generator made must not move the running means of the extractor.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
