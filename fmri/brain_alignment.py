r"""Alignment of brains with pictures and texts: two contrastive terms, each with a temperature.

``loss = mean over the modalities there of InfoNCE(g_m(f(x)), z_m; 1 / s_m)``, symmetric in both
directions, with ``s_m = exp(a_m)``, ``a_m`` learned from ``ln(1 / 0.07)`` on and kept below
``ln 100`` as in CLIP. Blocks are augmented in training: a share of the entries is set to 0 and the
recorded volumes are shuffled.

References
----------
Wang et al., "Decoding visual experience and mapping semantics through whole-brain analysis using
fMRI foundation models" (2024), contrastive fine-tuning.
Radford et al., "Learning transferable visual models from natural language supervision" (2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmri.brain_encoders import BrainEncoder
from neuro.nn.contrastive import gather, info_nce
from neuro.nn.mindeye import Bank, PriorScale, one_cycle
from neuro.nn.objective import Objective, Phase, State
from neuro.nn.prior import PriorNetwork, add_noise

__all__ = ["AlignedBrain", "AlignmentObjective", "AlignmentSettings", "augment"]

FIRST_SCALE, LARGEST_SCALE = math.log(1 / 0.07), math.log(100)


@dataclass(frozen=True)
class AlignmentSettings:
    """Rates and augmentation.

    Attributes
    ----------
    learning_rate, weight_decay : float
        Of AdamW; no decay of biases, normalisations and temperatures.
    encoder_rate : float
        Learning rate of the encoder as a share of that of the heads; 0 leaves it as it is.
    sparse : float
        Share of the entries that is set to 0 in training.
    shuffle : bool
        Shuffle the recorded volumes of a block in training.
    rise : float
        Share of the steps in which the learning rate rises; 1 keeps it constant, as the paper.
    prior_weight, anchor_weight : float
        Of the prior's loss, and of the mean squared error of the tokens that it starts from.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    encoder_rate: float = 1.0
    sparse: float = 0.2
    shuffle: bool = True
    rise: float = 0.1
    prior_weight: float = 30.0
    anchor_weight: float = 1.0


class AlignedBrain(nn.Module):
    """An encoder with a linear head and a temperature for every modality.

    Parameters
    ----------
    encoder : BrainEncoder
    n_features : dict of str to int
        Of the embeddings, by modality ("image", "text").

    Examples
    --------
    >>> from fmri.brain_encoders import LinearEncoder
    >>> brain = AlignedBrain(LinearEncoder(5, 8), {"image": 3})
    >>> x, mask = torch.zeros(2, 4, 5), torch.ones(2, 4, dtype=torch.bool)
    >>> brain.project(brain.encoder(x, mask), "image").shape
    torch.Size([2, 3])
    >>> round(brain.temperature("image").item(), 2)
    0.07
    """

    def __init__(self, encoder: BrainEncoder, n_features: dict[str, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({k: nn.Linear(encoder.width, n) for k, n in n_features.items()})
        self.log_scale = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(FIRST_SCALE)) for name in n_features}
        )

    def project(self, pooled: Tensor, modality: str) -> Tensor:
        """Map ``(trial, width)`` to the space of a modality, ``(trial, feature)``."""
        return self.heads[modality](pooled)

    def temperature(self, modality: str) -> Tensor:
        """Return ``1 / s``, with its gradient."""
        return torch.exp(-self.log_scale[modality])

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scales between 1 and 100."""
        for value in self.log_scale.values():
            value.clamp_(0.0, LARGEST_SCALE)


def augment(
    x: Tensor, mask: Tensor, generator: torch.Generator, *, sparse: float = 0.2,
    shuffle: bool = True,
) -> Tensor:  # fmt: skip
    """Set a share of the entries to 0 and shuffle the recorded volumes of each block.

    Parameters
    ----------
    x : Tensor, shape (trial, time, parcel)
    mask : Tensor of bool, shape (trial, time)
        Volumes that were not recorded stay where they are.
    generator : torch.Generator
        On the device of `x`.

    Returns
    -------
    Tensor, shape (trial, time, parcel)
    """
    if sparse:
        drawn = torch.rand(x.shape, generator=generator, device=x.device)
        x = torch.where(drawn < sparse, 0.0, x)
    if shuffle:
        drawn = torch.rand(mask.shape, generator=generator, device=x.device)
        # The recorded places in order, and the recorded places in random order.
        place = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        drawn_order = torch.where(mask, drawn, 2.0).argsort(dim=1, stable=True)
        order = torch.empty_like(place).scatter_(1, place, drawn_order)
        x = x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))
    return x


class AlignmentObjective(Objective):
    """The contrastive terms of a batch ``x, mask, row``.

    Parameters
    ----------
    brain : AlignedBrain
    targets : dict of str to Bank
        Embeddings by modality; ``row`` numbers their rows.
    settings : AlignmentSettings
    prompts : SoftPrompts, optional
        Makes the texts' embeddings in place of a bank "text".
    """

    def __init__(
        self, brain: AlignedBrain, targets: dict[str, Bank],
        settings: AlignmentSettings | None = None, prompts: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.brain, self.targets, self.prompts = brain, targets, prompts
        self.settings = settings or AlignmentSettings()

    def phases(self) -> list[Phase]:
        """Return the one optimiser."""
        moved = ("brain.heads.", "brain.log_scale.", "prompts.")
        slow = {id(p) for p in self.brain.encoder.parameters()}
        return [Phase("align", _adamw(self.settings, slow),
                      () if self.settings.encoder_rate else moved,
                      schedule=_schedule(self.settings))]  # fmt: skip

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss`` and the term of each modality."""
        x, mask, row, own = batch["x"], batch["mask"], batch["row"], self.settings
        if state.training:
            self.brain.clamp()
            x = augment(x, mask, state.generators[0], sparse=own.sparse, shuffle=own.shuffle)
        pooled = self.brain.encoder(x, mask)
        losses = {name: self._term(name, pooled, row) for name in self.brain.heads}
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}

    def _term(self, name: str, pooled: Tensor, row: Tensor) -> Tensor:
        if name == "text" and self.prompts is not None:
            target = self.prompts(row, pooled)
        else:
            target = self.targets[name](row)
        found = self.brain.project(pooled, name)
        with torch.autocast(pooled.device.type, enabled=False):
            x, y = gather(found.float()), gather(target.float())
            return info_nce(x, y, self.brain.temperature(name), gather(row))

    def compile_networks(self) -> None:
        """Compile the encoder."""
        self.brain.encoder.compile()

    def signature(self) -> dict[str, Any]:
        """Return the settings."""
        return {**asdict(self.settings), "prompts": self.prompts is not None}


class TokensObjective(Objective):
    """The diffusion prior on the pooled feature, and the tokens that it is given.

    ``loss = w_prior |p(z_t, t, c) - z|^2 + w_anchor |c - z|^2`` with ``c = W f(x) + b`` reshaped
    to tokens, all in the prior's scale. Encoder, tokens and prior are trained together, or the
    encoder is left as it is.

    Parameters
    ----------
    brain : AlignedBrain
    tokens : Linear
        From the pooled feature to all tokens.
    prior : PriorNetwork
    scale : PriorScale
    kept_signal : Tensor, shape (time,)
    targets : Bank
        ``(row, token, feature)``.
    settings : AlignmentSettings
    frozen : bool
        Leave the encoder as it is.
    """

    kept_signal: Tensor

    def __init__(
        self, brain: AlignedBrain, tokens: nn.Linear, prior: PriorNetwork, scale: PriorScale,
        kept_signal: Tensor, targets: Bank, settings: AlignmentSettings, *, frozen: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.brain, self.tokens, self.prior, self.scale = brain, tokens, prior, scale
        self.register_buffer("kept_signal", kept_signal, persistent=False)
        self.targets, self.settings, self.frozen = targets, settings, frozen

    def phases(self) -> list[Phase]:
        """Return the one optimiser."""
        moved = ("tokens.", "prior.") + (() if self.frozen else ("brain.encoder.",))
        return [Phase("prior", _adamw(self.settings), moved, schedule=_schedule(self.settings))]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss``, ``prior`` and ``anchor``."""
        own = self.settings
        clean = self.scale(self.targets(batch["row"]))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            pooled = self.brain.encoder(batch["x"], batch["mask"])
        tokens = self.tokens(pooled).view_as(clean)
        generator = (
            state.generators[0] if state.training
            else torch.Generator(clean.device).manual_seed(0)
        )  # fmt: skip
        n, device = len(clean), clean.device
        time = torch.randint(len(self.kept_signal), (n,), generator=generator, device=device)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noisy = add_noise(clean, noise, self.kept_signal[time])
        keep = torch.rand(2, n, generator=generator, device=device)
        keep_brain, keep_image = keep >= self.prior.sizes.condition_dropout
        kept = {"keep_brain": keep_brain, "keep_image": keep_image} if state.training else {}
        found = self.prior(noisy, time, tokens, **kept)
        losses = {"prior": F.mse_loss(found.float(), clean),
                  "anchor": F.mse_loss(tokens.float(), clean)}  # fmt: skip
        total = own.prior_weight * losses["prior"] + own.anchor_weight * losses["anchor"]
        return {"loss": total, **losses}

    def compile_networks(self) -> None:
        """Compile the prior."""
        self.prior.compile()

    def signature(self) -> dict[str, Any]:
        """Return the settings."""
        return {**asdict(self.settings), "frozen": self.frozen}


def _adamw(settings: AlignmentSettings, slow: set[int] | frozenset[int] = frozenset()) -> Any:
    """Make AdamW: no decay of vectors, and the parameters named slow at their own rate."""

    def make(parameters: Iterable[nn.Parameter], _: int) -> torch.optim.Optimizer:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for one in parameters:
            groups.setdefault((one.ndim > 1, id(one) in slow), []).append(one)
        own = settings.learning_rate
        return torch.optim.AdamW(
            [
                {"params": params, "weight_decay": settings.weight_decay if decays else 0.0,
                 "lr": own * (settings.encoder_rate if is_slow else 1.0)}
                for (decays, is_slow), params in groups.items()
            ],
            lr=own,
        )  # fmt: skip

    return make


def _schedule(settings: AlignmentSettings) -> Any:
    return None if settings.rise >= 1 else lambda done: one_cycle(done, settings.rise)
