"""How each preset of MindEye is trained, and the networks that its parameters ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fmri.model import Model
from neuro.nn.brain import BrainNetwork, BrainSizes, sizes_of
from neuro.nn.mindeye import PriorScale, Weights
from neuro.nn.prior import PRIORS, PriorNetwork

if TYPE_CHECKING:
    from fmri.mindeye import MindEye


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained.

    Attributes
    ----------
    max_epochs, batch_size, prior_max_epochs : int
    weights : Weights
    prior_batch_size, prior_learning_rate
        Where the prior is trained after the backbone.
    cross_fit : int
        Folds over the stimuli; 0 is one validation part. They choose the epoch together, the
        backbone is then trained on all stimuli up to there, and the prior learns from what they
        gave for stimuli that they never saw, as at test (`staged`).
    tuning : float
        Factor of the learning rate where training starts from another subject's networks.
    relative : bool
        Temperatures are multiplied by the spread of the targets (see `spread_of`).
    rise : float
        Epochs in which the learning rate rises.
    staged : bool
        The backbone first, then the prior on its outputs; else both at once.
    centre : bool
        The prior works on centred targets of unit variance, not on ``scale * targets``.
    warm_start : bool
    min_batches : int
        In an epoch: few trials make smaller batches, not fewer steps.
    """

    max_epochs: int
    batch_size: int
    weights: Weights
    prior_max_epochs: int = 0
    prior_batch_size: int = 100
    prior_learning_rate: float = 1e-3
    cross_fit: int = 0
    rise: float = 2.0
    staged: bool = False
    centre: bool = False
    warm_start: bool = False
    min_batches: int = 1
    tuning: float = 1.0
    relative: bool = False


RECIPES: dict[str, Recipe] = {
    "mindeye1": Recipe(240, 32, Weights()),
    "mindeye2": Recipe(150, 24, Weights()),
    "small": Recipe(
        60,
        300,
        Weights(
            loss="softclip",
            anchor=1.0,
            bimixco_temperature=0.25,
            softclip_temperatures=(0.25, 0.25),
            learning_rate=1e-3,
        ),
        prior_max_epochs=60,
        prior_learning_rate=2e-3,
        cross_fit=4,
        rise=6.0,
        staged=True,
        centre=True,
        warm_start=True,
        min_batches=4,
        tuning=0.2,
        relative=True,
    ),
}


def recipe_of(estimator: MindEye) -> Recipe:
    """Return the preset's recipe with the estimator's own parameters in it."""
    known = RECIPES[estimator.preset]
    weights: dict[str, Any] = {
        "loss": estimator.loss,
        "learning_rate": estimator.learning_rate,
        "weight_decay": estimator.weight_decay,
        "low_level": estimator.low_level_weight,
    }
    own = {
        name: getattr(estimator, name)
        for name in ("max_epochs", "prior_max_epochs", "batch_size", "warm_start")
    }
    return replace(
        known,
        weights=replace(known.weights, **{k: v for k, v in weights.items() if v is not None}),
        **{k: v for k, v in own.items() if v is not None},
    )


def sizes_for(estimator: MindEye) -> BrainSizes:
    """Return the preset's sizes with the estimator's own parameters in them."""
    changes = {n: getattr(estimator, n) for n in ("n_blocks", "n_hidden", "rank", "input_dropout")}
    shared = {"projector": "none"} if estimator.head == "shared" else {}
    return sizes_of(estimator.preset, **changes, **shared)


def empty_model(estimator: MindEye) -> Model:
    """Return networks of the fitted shape, to be loaded into."""
    shape, latent = estimator.target_["shape"], estimator.target_["latent"]
    n_voxels = {c.name: c.n_voxels for c in estimator.subjects_}
    return new_networks(estimator, n_voxels, shape, latent)


def new_networks(
    estimator: MindEye, n_voxels: dict[str, int], shape: list[int], latent: list[int] | None
) -> Model:
    """Return networks with random weights, and a scale that leaves tokens alone.

    Parameters
    ----------
    estimator : MindEye
    n_voxels : dict of str to int
        Of each subject.
    shape : list of int
        ``[token, feature]`` of the targets.
    latent : list of int, or None
        ``[channel, row, column]`` of the image latents.
    """
    low = None if latent is None else (latent[0], latent[1], latent[2])
    network = BrainNetwork(n_voxels, shape[0], shape[1], sizes_for(estimator), low)
    prior = PriorNetwork(shape[0], shape[1], PRIORS[estimator.preset]) if estimator.prior else None
    # Not centred, the offset is 0, but it is stored in the same shape.
    scale = PriorScale(torch.zeros(shape[0], shape[1]), torch.ones(()))
    return Model(network, prior, scale)
