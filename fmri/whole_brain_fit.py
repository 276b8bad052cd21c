"""From blocks and targets to a trained whole-brain encoder: splits, statistics, training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from fmri.brain_alignment import (
    AlignedBrain,
    AlignmentObjective,
    AlignmentSettings,
    TokensObjective,
)
from fmri.brain_blocks import Blocks, blocks_of, mask_of
from fmri.brain_network import pooled_of
from fmri.brain_presets import BrainShape, make_encoder
from fmri.brain_prompts import PromptLearner, SoftPrompts, embed_texts
from fmri.brain_targets import Aim, item_column
from neuro.batches import Batches
from neuro.device import device_of
from neuro.errors import DataError, InputError
from neuro.nn.mindeye import Bank, PriorScale
from neuro.nn.prior import PRIORS, PriorNetwork
from neuro.standardize import Standardizer

if TYPE_CHECKING:
    from fmri.whole_brain import WholeBrain

Bools = NDArray[np.bool_]

PAPER_STEPS, MIN_BATCHES = 50_000, 4


@dataclass(frozen=True)
class Recipe:
    """Length and rates of training.

    Attributes
    ----------
    max_epochs : int or None
        None: as many as make the paper's 50,000 steps.
    batch_size : int
    learning_rate, weight_decay, rise : float
    encoder_rate : float
        Of a pretrained encoder, as a share.
    prior : str
        Preset of the prior's network.
    prior_learning_rate : float
    joint : bool
        The encoder is trained along with the prior.
    """

    max_epochs: int | None
    batch_size: int
    learning_rate: float
    encoder_rate: float
    rise: float
    prior: str
    prior_learning_rate: float
    joint: bool


RECIPES = {
    "paper": Recipe(None, 16, 1e-5, 1.0, 1.0, "mindeye1", 1e-5, True),
    "small": Recipe(100, 64, 1e-3, 0.1, 0.1, "small", 1e-3, False),
}


@dataclass
class Networks:
    """What is fitted, as modules by name.

    Attributes
    ----------
    brain : AlignedBrain
    tokens : Linear or None
    prior : PriorNetwork or None
    scale : PriorScale or None
    prompts : PromptLearner or None
    """

    brain: AlignedBrain
    tokens: nn.Linear | None = None
    prior: PriorNetwork | None = None
    scale: PriorScale | None = None
    prompts: PromptLearner | None = None

    def modules(self) -> dict[str, nn.Module]:
        """Return those that are there and are saved."""
        found = {"brain": self.brain, "tokens": self.tokens, "prior": self.prior,
                 "scale": self.scale, "prompts": self.prompts}  # fmt: skip
        return {k: v for k, v in found.items() if v is not None}


def training_trials(X: xr.DataArray) -> NDArray[np.intp]:
    """Return the trials that may be trained on: of the part "train", where parts are named."""
    if "part" not in X.coords or X["part"].dims != ("trial",):
        return np.arange(X.sizes["trial"])
    rows = np.flatnonzero(X["part"].values.astype(str) == "train")
    if len(rows) < 4:
        raise DataError(
            f"{len(rows)} of {X.sizes['trial']} trials are of the part 'train' (the parts are "
            f"{', '.join(np.unique(X['part'].values.astype(str)))}); too few to be trained on"
        )
    return rows


def held_out(own: WholeBrain, X: xr.DataArray, aim: Aim) -> Bools:
    """Keep whole items (runs, subjects) aside to choose the epoch.

    Raises
    ------
    DataError
        Where there are too few of them.
    """
    n = X.sizes["trial"]
    if not own.validation_fraction:
        return np.zeros(n, bool)
    if own.hold_out == "item":
        items = item_column(X)
        groups = aim.names[aim.rows] if items is None else items
    elif own.hold_out in X.coords and X[own.hold_out].dims == ("trial",):
        groups = X[own.hold_out].values.astype(str)
    else:
        raise InputError(f"hold_out is {own.hold_out!r}, which is no coordinate of the trials")
    known = np.unique(groups)
    if len(known) < 4:
        raise DataError(
            f"{len(known)} {own.hold_out}s are too few to keep some for validation; set "
            "hold_out to another coordinate, or validation_fraction=0"
        )
    count = min(max(1, round(own.validation_fraction * len(known))), len(known) - 2)
    rng = np.random.default_rng([own.random_state, 1])
    return np.isin(groups, rng.permutation(known)[:count])


def new_networks(own: WholeBrain, shape: BrainShape, facts: dict[str, Any]) -> Networks:
    """Make networks with new weights: sizes of the preset, heads of the targets' shapes."""
    n_tokens, n_features = facts["shape"]
    heads = {"image": n_tokens * n_features}
    if facts.get("text"):
        heads["text"] = int(facts["text"])
    brain = AlignedBrain(make_encoder(own.encoder, own.sizes_of_encoder(), shape), heads)
    found = Networks(brain)
    if own.prior:
        recipe = RECIPES[own.preset]
        found.tokens = nn.Linear(brain.encoder.width, n_tokens * n_features)
        found.prior = PriorNetwork(n_tokens, n_features, PRIORS[recipe.prior])
        found.scale = PriorScale(torch.zeros(n_tokens, n_features), torch.tensor(1.0))
    asked = facts.get("prompts")
    if asked and asked["n_context"]:
        found.prompts = PromptLearner(
            asked["n_context"], asked["width"], brain.encoder.width, asked["condition"]
        )
    return found


def fit_whole_brain(
    own: WholeBrain,
    X: xr.DataArray,
    aim: Aim,
    start: nn.Module | None,
    standardizer: Standardizer | None,
    prompts: SoftPrompts | None,
    scratch: str | Path | None,
    progress: Callable[..., Iterator[Any]] | None,
) -> None:
    """Fit an estimator in place on training trials.

    Parameters
    ----------
    own : WholeBrain
        It knows the contract and the facts of the targets already.
    X : DataArray (trial, parcel, time)
    aim : Aim
    start : BrainEncoder, optional
        Pretrained, of the same shape.
    standardizer : Standardizer, optional
        That of the pretraining; by default it is fitted on the training trials.
    prompts : SoftPrompts, optional
    scratch, progress
        As for `WholeBrain.fit`.
    """
    held = held_out(own, X, aim)
    own.standardizer_ = standardizer or Standardizer.fit(
        np.asarray(X.values[~held], np.float32), mask_of(X)[~held]
    )
    blocks = blocks_of(X, own.standardizer_)
    seeds = [int(s) for s in np.random.SeedSequence(own.random_state).generate_state(3)]
    with torch.random.fork_rng([]):
        torch.manual_seed(seeds[0])
        nets = new_networks(own, own.shape_, own.target_)
    if prompts is not None:
        aim, prompts = _with_prompts(nets, aim, prompts)
    if start is not None:
        nets.brain.encoder.load_state_dict(start.state_dict())
    run = _Run(own, nets, blocks, aim, held, seeds, scratch, progress, prompts, start is not None)
    own.history_, own.best_epoch_ = run.align()
    if nets.prompts is not None:
        _learn_usual(nets, blocks, held, own.device)
    own.prior_history_ = run.decode() if own.prior else []
    own.networks_ = nets


def _with_prompts(nets: Networks, aim: Aim, prompts: SoftPrompts) -> tuple[Aim, SoftPrompts | None]:
    """Begin with new context vectors; without any, texts are embedded once."""
    if not prompts.n_context:
        return replace(aim, text=embed_texts(prompts.tower, aim.words or [])), None
    prompts.learn(aim.words, nets.prompts)
    return aim, prompts


def _learn_usual(nets: Networks, blocks: Blocks, held: Bools, device: str) -> None:
    """Keep the mean context over training trials, for texts without a brain."""
    own = nets.prompts
    assert own is not None  # noqa: S101 - for the type checker
    pooled = pooled_of(nets.brain.encoder, blocks.take(np.flatnonzero(~held)), device)
    with torch.inference_mode():
        own.cpu().usual.copy_(own(torch.from_numpy(pooled)).mean(0))


@dataclass
class _Run:
    own: WholeBrain
    nets: Networks
    blocks: Blocks
    aim: Aim
    held: Bools
    seeds: list[int]
    scratch: str | Path | None
    progress: Callable[..., Iterator[Any]] | None
    prompts: SoftPrompts | None = None
    pretrained: bool = False

    def align(self) -> tuple[list[dict[str, float]], int]:
        """Train encoder, heads and temperatures."""
        own, recipe = self.own, RECIPES[self.own.preset]
        slower = recipe.encoder_rate if own.encoder_rate is None else own.encoder_rate
        settings = AlignmentSettings(
            own.learning_rate or recipe.learning_rate, own.weight_decay,
            slower if self.pretrained else 1.0, own.sparse, own.shuffle, recipe.rise,
        )  # fmt: skip
        banks = {"image": Bank(torch.from_numpy(self.aim.image.reshape(len(self.aim.image), -1)))}
        if self.aim.text is not None:
            banks["text"] = Bank(torch.from_numpy(self.aim.text))
        objective = AlignmentObjective(self.nets.brain, banks, settings, self.prompts)
        history, best = self._train(objective, own.max_epochs or recipe.max_epochs, "align", 1)
        return history, best

    def decode(self) -> list[dict[str, float]]:
        """Train the tokens and the prior on the pooled feature."""
        from fmri.prior import kept_signal

        own, nets, recipe = self.own, self.nets, RECIPES[self.own.preset]
        assert nets.tokens is not None  # noqa: S101 - for the type checker
        assert nets.prior is not None  # noqa: S101
        seen = np.unique(self.aim.rows[~self.held])
        nets.scale = _scale(self.aim.image[seen], own.preset, self.aim.facts["scale"])
        settings = AlignmentSettings(
            recipe.prior_learning_rate, own.weight_decay, rise=recipe.rise,
            anchor_weight=0.0 if own.preset == "paper" else 1.0,
        )  # fmt: skip
        objective = TokensObjective(
            nets.brain, nets.tokens, nets.prior, nets.scale, kept_signal(),
            Bank(torch.from_numpy(self.aim.image)), settings, frozen=not recipe.joint,
        )  # fmt: skip
        history, _ = self._train(objective, own.prior_max_epochs or recipe.max_epochs, "prior", 2)
        return history

    def _train(
        self, objective: Any, max_epochs: int | None, stage: str, seed: int
    ) -> tuple[list[dict[str, float]], int]:
        from neuro.training import train

        own = self.own
        source = self._batches(~self.held, True)
        epochs = max_epochs or math.ceil(PAPER_STEPS / len(source))
        validation = self._batches(self.held, False) if self.held.any() else None
        result = train(
            objective, source, max_epochs=epochs, seed=self.seeds[seed], validation=validation,
            patience=None if validation is None else own.patience or epochs,
            folder=None if self.scratch is None else Path(self.scratch) / stage,
            precision=own.precision, device=own.device, compile=own.compile,
            progress=self.progress, label={"align": "alignment"}.get(stage, stage),
        )  # fmt: skip
        objective.cpu().eval()
        return result.history[0], result.best_epoch[0]

    def _batches(self, rows: Bools, training: bool) -> Batches:
        own, index = self.own, np.flatnonzero(rows)
        wanted = own.batch_size or RECIPES[own.preset].batch_size
        # Few trials make smaller batches, so that an epoch is more than a step or two.
        most = max(2, len(index) // MIN_BATCHES)
        size = min(wanted, most) if training else min(1024, len(index))
        return Batches(
            {"x": self.blocks.x, "mask": self.blocks.mask, "row": self.aim.rows}, size,
            index=index, shuffle=training, seed=self.seeds[1], device=device_of(own.device),
            drop_last=training,
        )  # fmt: skip


def _scale(tokens: NDArray[np.float32], preset: str, scale: float) -> PriorScale:
    """Bring tokens to unit variance for the prior; the paper multiplies by a constant."""
    if preset == "paper":
        return PriorScale(torch.zeros(tokens.shape[1:]), torch.tensor(float(scale)))
    mean = tokens.mean(0)
    sd = float(np.sqrt(np.square(tokens - mean).mean()))
    return PriorScale(torch.from_numpy(mean), torch.tensor(1.0 / max(sd, 1e-8)))
