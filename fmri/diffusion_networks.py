"""A small conditional diffusion network over pixels, and what it minimises.

References
----------
Ho, Jain and Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020).
Salimans and Ho, "Progressive distillation for fast sampling of diffusion models" (ICLR 2022),
for the target v.
Ho and Salimans, "Classifier-free diffusion guidance" (2022).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor, nn

from fmri.image_networks import half_cosine
from neuro.nn.objective import Objective, Phase, State

N_TIMES = 1000
_LEVELS = 2


def make_scheduler() -> DDIMScheduler:
    """Return the cosine schedule with DDIM; the first of n steps is at the last time."""
    return DDIMScheduler(
        num_train_timesteps=N_TIMES,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
        timestep_spacing="trailing",
    )


def patch_side(size: tuple[int, int]) -> int:
    """Return the side of the patches that the network sees as one place: few at full size.

    Examples
    --------
    >>> [patch_side((n, n)) for n in (8, 28, 64)]
    [1, 2, 4]
    """
    return 1 if min(size) < 16 else 2 if min(size) < 48 else 4


class ConditionalUNet(nn.Module):
    """U-Net that sees the noisy image, a linear picture of the condition, and the condition.

    The linear picture is what least squares makes of the condition. With few images it holds
    what the network could not learn: which stroke goes where.

    Parameters
    ----------
    n_channels : int
    size : (int, int)
        Rows and columns.
    n_components : int
        Size of the condition, with unit variance each.
    width : int
        Channels of the first level, a multiple of 8.

    Examples
    --------
    >>> network = ConditionalUNet(1, (28, 28), n_components=5, width=8)
    >>> x, c = torch.zeros(2, 1, 28, 28), torch.zeros(2, 5)
    >>> network(x, torch.tensor([0, 999]), c).shape
    torch.Size([2, 1, 28, 28])
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, n_channels: int, size: tuple[int, int], n_components: int, width: int = 32
    ) -> None:
        super().__init__()
        self.shape = (n_channels, *size)
        self.patch = patch_side(size)
        multiple = self.patch * 2 ** (_LEVELS - 1)
        self.padding = (-size[0] % multiple, -size[1] % multiple)
        flat = n_channels * self.patch**2
        build: Any = UNet2DModel
        self.unet = build(
            in_channels=2 * flat,
            out_channels=flat,
            down_block_types=("DownBlock2D",) * _LEVELS,
            up_block_types=("UpBlock2D",) * _LEVELS,
            block_out_channels=(width, 2 * width),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=16,
            class_embed_type="identity",
        )
        self.into = nn.Sequential(
            nn.Linear(n_components, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.null = nn.Parameter(torch.zeros(4 * width))
        n_pixels = n_channels * size[0] * size[1]
        self.register_buffer("weight", torch.zeros(n_components, n_pixels))
        self.register_buffer("bias", torch.zeros(n_pixels))

    def picture(self, c: Tensor) -> Tensor:
        """Return the linear picture of a condition, ``(batch, channel, row, column)``, -1..1."""
        return (c @ self.weight + self.bias).clamp(-1, 1).unflatten(1, self.shape)

    def forward(self, x: Tensor, t: Tensor, c: Tensor, keep: Tensor | None = None) -> Tensor:
        """Predict v.

        Parameters
        ----------
        x : Tensor, shape (batch, channel, row, column)
            Noisy images; clean ones are in -1..1.
        t : Tensor, shape (batch,)
        c : Tensor, shape (batch, component)
        keep : Tensor of bool, shape (batch,), optional
            False: without the condition.
        """
        embedded, picture = self.into(c), self.picture(c)
        if keep is not None:
            embedded = torch.where(keep[:, None], embedded, self.null)
            mean = self.bias.reshape(self.shape).clamp(-1, 1)
            picture = torch.where(keep[:, None, None, None], picture, mean)
        rows, columns = x.shape[-2:]
        joined = F.pad(torch.cat([x, picture], 1), (0, self.padding[1], 0, self.padding[0]))
        patches = F.pixel_unshuffle(joined, self.patch)
        v = self.unet(patches, t, class_labels=embedded).sample
        return F.pixel_shuffle(v, self.patch)[..., :rows, :columns]

    def guided(self, x: Tensor, t: Tensor, c: Tensor, guidance: float) -> Tensor:
        """Predict v with ``null + guidance (cond - null)``; 1 is one call."""
        if guidance == 1:
            return self(x, t, c)
        with_it = torch.ones(len(x), dtype=torch.bool, device=x.device)
        null = self(x, t, c, ~with_it)
        return null + guidance * (self(x, t, c) - null)


def as_predicted(c: Tensor, reliability: Tensor, noise: Tensor) -> Tensor:
    """Turn a true condition into one as a regression from brain data gives it.

    A linear prediction m of c that explains the share r of its variance is smaller than c and
    noisy: given c, its mean is ``r c`` and its variance ``r (1 - r)``. Trained on such, the
    network learns what may be left open by a prediction.

    Parameters
    ----------
    c, noise : Tensor, shape (batch, component)
        `c` of unit variance.
    reliability : Tensor that broadcasts
        r between 0 and 1.

    Examples
    --------
    >>> as_predicted(torch.ones(1, 2), torch.tensor([1.0, 0.5]), torch.zeros(1, 2)).tolist()
    [[1.0, 0.5]]
    """
    return reliability * c + (reliability * (1 - reliability)).sqrt() * noise


class DiffusionObjective(Objective):
    r"""``||v_hat - v||^2`` of the noised image (Salimans and Ho 2022, appendix D).

    Parameters
    ----------
    network : ConditionalUNet
    reliability : Tensor, shape (component,)
        Of the predictions that it will be given, see `as_predicted`; each sample takes a power of
        it between 1/2 and 2 by chance, and one in eight the true condition.
    dropout : float
        Share of samples without a condition.
    learning_rate : float
        Of AdamW; it falls to 0 by a half cosine.
    """

    reliability: Tensor
    kept: Tensor

    def __init__(
        self,
        network: ConditionalUNet,
        reliability: Tensor,
        *,
        dropout: float,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.dropout, self.learning_rate = dropout, learning_rate
        self.register_buffer("reliability", reliability)
        schedule: Any = make_scheduler()
        self.register_buffer("kept", schedule.alphas_cumprod.float())

    def phases(self) -> list[Phase]:
        """Return the one optimiser, AdamW."""
        rate = self.learning_rate
        make = lambda parameters, _: torch.optim.AdamW(parameters, rate, weight_decay=1e-2)
        return [Phase("unet", make, clip_norm=1.0, schedule=half_cosine)]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss`` of images ``x`` in 0..1 and conditions ``c``."""
        x, c = batch["x"] * 2 - 1, batch["c"]
        c = as_predicted(c, self._reliabilities(len(c)), torch.randn_like(c))
        t = torch.randint(N_TIMES, (len(x),), device=x.device)
        noise = torch.randn_like(x)
        kept = self.kept[t][:, None, None, None]
        noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
        wanted = kept.sqrt() * noise - (1 - kept).sqrt() * x
        keep = torch.rand(len(x), device=x.device) >= self.dropout
        error = (self.network(noisy, t, c, keep) - wanted).square()
        return {"loss": error.flatten(1).sum(1).mean()}

    def _reliabilities(self, n: int) -> Tensor:
        device = self.reliability.device
        power = torch.exp2(torch.rand(n, 1, device=device) * 2 - 1)
        clean = torch.rand(n, 1, device=device) < 1 / 8
        return torch.where(clean, 1.0, self.reliability**power)

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        return {
            "dropout": self.dropout,
            "learning_rate": self.learning_rate,
            "reliability": self.reliability.tolist(),
        }
