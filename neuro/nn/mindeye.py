r"""What MindEye minimises: contrastive, prior and low-level terms over one backbone.

``loss = nce + w_prior prior + w_low (L1 + 0.1 auxiliary) + w_anchor anchor``

The contrastive term is BiMixCo in the first third of the epochs and SoftCLIP after it. The prior's
term is the mean squared error of the predicted clean tokens. The anchor, ours, is the mean squared
error of the backbone's own tokens; the presets of the papers have none.

In the BiMixCo third the voxels of two trials are mixed. The prior and the anchor are then held to
the targets mixed alike; the upstream code holds the prior to the unmixed target.

References
----------
Scotti et al., "Reconstructing the mind's eye" (NeurIPS 2023); "MindEye2" (ICML 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn import contrastive
from neuro.nn.brain import BrainNetwork
from neuro.nn.contrastive import Mix
from neuro.nn.objective import Objective, Phase, State
from neuro.nn.prior import PriorNetwork, add_noise

LOSSES = ("bimixco+softclip", "bimixco", "softclip", "infonce")
STAGES = ("joint", "brain", "prior")


@dataclass(frozen=True)
class Weights:
    """Weights, temperatures and rates of `MindEyeObjective`.

    Attributes
    ----------
    loss : {"bimixco+softclip", "bimixco", "softclip", "infonce"}
    nce, prior, low_level, auxiliary, anchor : float
        Weights of the terms; `auxiliary` is inside `low_level`.
    mix_fraction : float
        Share of the epochs with BiMixCo, where SoftCLIP follows.
    bimixco_temperature : float
    softclip_temperatures : pair of float
        First and last, see `neuro.nn.contrastive.softclip_temperature`.
    learning_rate : float
        The largest of the one-cycle schedule.
    weight_decay : float
        Of AdamW; none on biases and normalisations.
    """

    loss: str = "bimixco+softclip"
    nce: float = 1.0
    prior: float = 30.0
    low_level: float = 0.5
    auxiliary: float = 0.1
    anchor: float = 0.0
    mix_fraction: float = 1 / 3
    bimixco_temperature: float = contrastive.BIMIXCO_TEMPERATURE
    softclip_temperatures: tuple[float, float] = contrastive.SOFTCLIP_TEMPERATURES
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2

    def scaled(self, factor: float) -> Weights:
        """Return the same with all temperatures multiplied."""
        first, last = self.softclip_temperatures
        return replace(
            self,
            bimixco_temperature=self.bimixco_temperature * factor,
            softclip_temperatures=(first * factor, last * factor),
        )


class Bank:
    """Targets by stimulus, kept as they are stored and converted a batch at a time.

    Parameters
    ----------
    values : Tensor, shape (stimulus, ...)
        Half precision, over a memory map or not. It stays where it is: in memory, on the disk,
        or on a GPU.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, row: Tensor) -> Tensor:
        """Return the rows in single precision on the device of `row`."""
        found = self.values.index_select(0, row.to(self.values.device))
        return found.to(row.device).float()


class PriorScale(nn.Module):
    """Bring tokens to the scale in which the prior works: ``(tokens - offset) * factor``.

    MindEye1 multiplies by the square root of the number of features and takes no offset.
    """

    offset: Tensor
    factor: Tensor

    def __init__(self, offset: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("factor", factor)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale ``(batch, token, feature)``."""
        return (tokens - self.offset) * self.factor

    def inverse(self, scaled: Tensor) -> Tensor:
        """Undo it."""
        return scaled / self.factor + self.offset


class MindEyeObjective(Objective):
    """MindEye's losses and optimiser.

    Parameters
    ----------
    network : BrainNetwork
    prior : PriorNetwork or None
    scale : PriorScale
    kept_signal : Tensor, shape (time,)
        Of the noise schedule.
    targets, latents : Bank
        Tokens, and image latents for the low-level branch (None without).
    weights : Weights
    stage : {"joint", "brain", "prior"}
        Train everything at once as the papers do, or the backbone first and the prior after it.

    Attributes
    ----------
    rise : float
        Share of the schedule in which the learning rate rises.
    share : float
        Of the schedule that is run: a training that stops early, as one before it has shown to
        be best, goes the same way up to there.
    total_epochs : int, optional
        Of the whole schedule, where it is not run to its end.

    Notes
    -----
    A batch is ``{subject: {"x": (batch, voxel), "row": (batch,)}}``, row the number of the
    stimulus in the bank. In the stage ``"prior"`` a part may hold ``tokens``, what the prior is
    given in place of the network's own (of cross-fitted networks, say). While validating,
    ``selection`` is what chooses the checkpoint: InfoNCE at the last temperature and the prior's
    loss at fixed noise, the same in every epoch.
    """

    monitor = "selection"
    kept_signal: Tensor
    rise: float = 0.1
    share: float = 1.0
    total_epochs: int | None = None

    def __init__(
        self,
        network: BrainNetwork,
        prior: PriorNetwork | None,
        scale: PriorScale,
        kept_signal: Tensor,
        targets: Bank,
        latents: Bank | None = None,
        weights: Weights | None = None,
        stage: str = "joint",
    ) -> None:
        super().__init__()
        self.network, self.prior, self.scale = network, prior, scale
        self.register_buffer("kept_signal", kept_signal, persistent=False)
        self.targets, self.latents = targets, latents
        self.weights, self.stage = weights or Weights(), stage

    def phases(self) -> list[Phase]:
        """Return the one optimiser, AdamW on a one-cycle schedule."""
        moved = {"joint": (), "brain": ("network.",), "prior": ("prior.",)}[self.stage]
        own = self.weights

        def make(parameters: Iterable[nn.Parameter], _: int) -> torch.optim.Optimizer:
            every = list(parameters)
            groups = [
                {"params": [p for p in every if p.ndim > 1], "weight_decay": own.weight_decay},
                {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
            ]
            return torch.optim.AdamW(groups, lr=own.learning_rate)

        return [Phase("mindeye", make, moved, schedule=self._schedule)]

    def _schedule(self, fraction: float) -> float:
        return one_cycle(fraction * self.share, self.rise)

    def _epochs(self, state: State) -> int:
        return self.total_epochs or state.max_epochs

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss`` and its terms; see the class."""
        rows = torch.cat([part["row"] for part in batch.values()])
        target = self.targets(rows)
        voxels = {subject: part["x"] for subject, part in batch.items()}
        mix = self._mix(voxels, state)
        if self.stage == "prior" and all("tokens" in part for part in batch.values()):
            given = torch.cat([part["tokens"] for part in batch.values()])
            return self._total(self._prior_losses(given, target, state))
        if mix is not None:
            voxels = _mixed(voxels, mix)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage != "prior"):
            code = self.network.code(voxels)
            tokens = self.network.tokens(code)
        wanted = target if mix is None else contrastive.apply_mix(target, mix)
        losses: dict[str, Tensor] = {}
        if self.stage != "prior":
            losses |= self._brain_losses(code, tokens, target, wanted, mix, rows, state)
        if self.prior is not None and self.stage != "brain":
            losses |= self._prior_losses(tokens, wanted, state)
        return self._total(losses)

    def _total(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.weights
        parts = {
            "nce": own.nce, "prior": own.prior, "first": own.prior, "anchor": own.anchor,
            "low_level": own.low_level, "selection_nce": 0.0,
        }  # fmt: skip
        total = sum(parts[k] * v for k, v in losses.items() if parts[k])
        chosen = losses.pop("selection_nce", None)
        if chosen is not None or self.stage == "prior":
            first = 0.0 if chosen is None else own.nce * chosen
            rest = [own.prior * losses["prior"]] if "prior" in losses else []
            losses["selection"] = torch.as_tensor(first + sum(rest))
        return {"loss": torch.as_tensor(total), **losses}

    def _brain_losses(
        self, code: Tensor, tokens: Tensor, target: Tensor, wanted: Tensor,
        mix: Mix | None, rows: Tensor, state: State,
    ) -> dict[str, Tensor]:  # fmt: skip
        projected = self.network.project(code, tokens)
        losses = {}
        with torch.autocast(code.device.type, enabled=False):
            x, y = contrastive.gather(projected.float()), contrastive.gather(target)
            group = contrastive.gather(rows)
            losses["nce"] = self._nce(x, y, mix, group, state)
            if not state.training:
                last = self._selection_temperature()
                losses["selection_nce"] = contrastive.info_nce(x, y, last, group)
            if self.weights.anchor:
                losses["anchor"] = F.mse_loss(self.scale(tokens.float()), self.scale(wanted))
        if self.latents is not None and self.network.low_level is not None:
            latent = self.latents(rows)
            latent = latent if mix is None else contrastive.apply_mix(latent, mix)
            losses |= self._low_level(code, latent)
        return losses

    def _nce(self, x: Tensor, y: Tensor, mix: Mix | None, group: Tensor, state: State) -> Tensor:
        own = self.weights
        if mix is not None:
            joined = contrastive.gather_mix(mix)
            return contrastive.bimixco(x, y, joined, own.bimixco_temperature, group)
        if own.loss == "infonce" or own.loss == "bimixco":
            return contrastive.info_nce(x, y, own.bimixco_temperature, group)
        start = self._mix_epochs(state)
        left = max(1, self._epochs(state) - start - 1)
        fraction = (state.epoch - start) / left
        temperature = contrastive.softclip_temperature(fraction, own.softclip_temperatures)
        return contrastive.softclip(x, y, temperature)

    def _low_level(self, code: Tensor, latent: Tensor) -> dict[str, Tensor]:
        branch = self.network.low_level
        assert branch is not None  # noqa: S101 - for the type checker
        found, auxiliary = branch(code)
        with torch.autocast(code.device.type, enabled=False):
            l1 = F.l1_loss(found.float(), latent)
            pooled = branch.auxiliary_target(latent)
            extra = contrastive.softclip(
                contrastive.gather(auxiliary.float()), contrastive.gather(pooled), 0.2
            )
        return {"low_level": l1 + self.weights.auxiliary * extra}

    def _prior_losses(self, tokens: Tensor, wanted: Tensor, state: State) -> dict[str, Tensor]:
        assert self.prior is not None  # noqa: S101 - for the type checker
        generator = state.generators[0] if state.training else _fixed(tokens.device)
        n, n_times = len(tokens), len(self.kept_signal)
        clean = self.scale(wanted)
        time = torch.randint(n_times, (n,), generator=generator, device=tokens.device)
        noise = torch.randn(clean.shape, generator=generator, device=tokens.device)
        keep = (torch.rand(2, n, generator=generator, device=tokens.device)
                >= self.prior.sizes.condition_dropout)  # fmt: skip
        noisy = add_noise(clean, noise, self.kept_signal[time])
        kept = {"keep_brain": keep[0], "keep_image": keep[1]} if state.training else {}
        brain = self.scale(tokens)
        predicted = self.prior(noisy, time, brain, **kept)
        losses = {"prior": F.mse_loss(predicted.float(), clean)}
        if self.prior.first is not None:
            first = self.prior.first_estimate(brain)
            losses["first"] = F.mse_loss(first.float(), clean)
        return losses

    def _mix_epochs(self, state: State) -> int:
        if self.weights.loss == "bimixco":
            return self._epochs(state)
        if self.weights.loss != "bimixco+softclip":
            return 0
        return math.floor(self.weights.mix_fraction * self._epochs(state))

    def _mix(self, voxels: Mapping[str, Tensor], state: State) -> Mix | None:
        """Draw partners inside each subject, whose voxels are not another's."""
        if not state.training or state.epoch >= self._mix_epochs(state) or self.stage == "prior":
            return None
        mixes, start = [], 0
        for x in voxels.values():
            own = contrastive.draw_mix(len(x), state.generators[0])
            mixes.append(Mix(own.weight, own.partner + start))
            start += len(x)
        return Mix(torch.cat([m.weight for m in mixes]), torch.cat([m.partner for m in mixes]))

    def _selection_temperature(self) -> float:
        hard = self.weights.loss in ("bimixco", "infonce")
        return self.weights.bimixco_temperature if hard else self.weights.softclip_temperatures[1]

    def compile_networks(self) -> None:
        """Compile the backbone's blocks and the prior."""
        self.network.blocks.compile()
        if self.prior is not None:
            self.prior.compile()

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        own = asdict(self.weights)
        own["softclip_temperatures"] = list(own["softclip_temperatures"])
        return {**own, "stage": self.stage, "share": self.share}


def one_cycle(fraction: float, rise: float, start: float = 1 / 25, end: float = 1e-3) -> float:
    """Return the factor of the learning rate after a fraction of all steps.

    A half cosine up from `start` to 1 and one down to ``start * end``, as PyTorch's OneCycleLR;
    the optimiser's momentum is left alone.

    Parameters
    ----------
    fraction, rise : float
        Of all steps: done, and of the rise.

    Examples
    --------
    >>> [round(one_cycle(f, 0.1), 5) for f in (0.0, 0.1, 1.0)]
    [0.04, 1.0, 4e-05]
    """
    if fraction < rise:
        return 1 + (start - 1) * (1 + math.cos(math.pi * fraction / rise)) / 2
    last, done = start * end, (fraction - rise) / max(1 - rise, 1e-9)
    return last + (1 - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _mixed(voxels: Mapping[str, Tensor], mix: Mix) -> dict[str, Tensor]:
    out, start = {}, 0
    for subject, x in voxels.items():
        rows = slice(start, start + len(x))
        own = Mix(mix.weight[rows], mix.partner[rows] - start)
        out[subject] = contrastive.apply_mix(x, own)
        start += len(x)
    return out


def _fixed(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
