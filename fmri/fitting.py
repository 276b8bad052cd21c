"""From betas and targets to a trained MindEye: splits, statistics, start, training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from fmri.fit_data import FitData, Ints, match, spread_of, stimulus_folds, without_stimuli
from fmri.fit_start import code_map, start_layers
from fmri.mindeye import MindEye, fingerprint_of
from fmri.model import Model
from fmri.recipes import Recipe, new_networks, recipe_of
from fmri.subjects import Subject
from neuro.batches import Batches
from neuro.contract import Contract
from neuro.device import device_of
from neuro.errors import InputError
from neuro.nn.brain import count_parameters
from neuro.nn.mindeye import Bank, MindEyeObjective, PriorScale
from neuro.nn.objective import State
from neuro.sources import Together

_VALIDATION_ROWS = 1024  # of a subject in one batch
_RESIDENT_SHARE = 0.5  # of the free GPU memory, for targets


def fit_model(
    estimator: MindEye,
    subjects: list[Subject],
    y: Any,
    low_level: xr.Dataset | None,
    scratch: str | Path | None,
    progress: Callable[..., Iterator[Any]] | None,
    start: Model | None = None,
) -> None:
    """Fit an estimator in place; with `start`, from another's networks."""
    recipe = recipe_of(estimator)
    data = match(estimator, subjects, y, low_level, hold_out=not recipe.cross_fit)
    _learn_contracts(estimator, data, y)
    seeds = [int(s) for s in np.random.SeedSequence(estimator.random_state).generate_state(4)]
    model = _started(estimator, data, start, seeds)
    _warn_of_memory(estimator, model, data)
    run = _Run.of(estimator, model, data, start, seeds, scratch, progress)
    joint = model.prior is not None and not recipe.staged
    asked = bool(estimator.validation_fraction) or model.prior is not None
    crossed = run.cross_fit() if recipe.cross_fit and asked else None
    log = run.go(
        "joint" if joint else "brain", run.recipe.max_epochs, crossed.best if crossed else None
    )
    if model.start is not None:
        model.start.codes = code_map(estimator, model, data, seeds[1])
    estimator.prior_history_ = []
    if model.prior is not None and recipe.staged:
        run.conditions = crossed.tokens if crossed else None
        estimator.prior_history_ = run.go("prior", run.recipe.prior_max_epochs).history
    estimator.model_ = model
    estimator.history_, estimator.best_epoch_ = (crossed or log).history, log.best


@dataclass
class _Log:
    """What a training leaves: losses by epoch, the epoch kept, how good the start was."""

    history: list[dict[str, float]]
    best: int
    before: float | None = None

    def curve(self) -> list[float]:
        """Return what chooses the epoch, from epoch 0, the start, on; empty where not known."""
        found = [row["val_selection"] for row in self.history if "val_selection" in row]
        return [math.inf if self.before is None else self.before, *found] if found else []


@dataclass
class _Crossed:
    """What backbones of several folds say together.

    Attributes
    ----------
    history : list of dict
        Losses by epoch, averaged over folds.
    best : int or None
        The epoch that is best over all folds, 0 for the start; None where nothing is to choose.
    tokens : list of ndarray (trial, token, feature)
        Of each subject's training trials, by backbones that never saw the stimulus.
    """

    history: list[dict[str, float]]
    best: int | None
    tokens: list[NDArray[np.float32]]


def _started(estimator: MindEye, data: FitData, start: Model | None, seeds: list[int]) -> Model:
    with torch.random.fork_rng([]):
        torch.manual_seed(seeds[0])
        model = _new_model(estimator, data, start)
        start_layers(estimator, model, data, start, seeds[1])
    return model


def _learn_contracts(estimator: MindEye, data: FitData, y: xr.Dataset) -> None:
    first = data.subjects[0]
    attrs = {} if first.units is None else {"units": first.units}
    estimator.contract_ = Contract.of(
        xr.DataArray(first.values[:1], dims=("trial", "voxel"), attrs=attrs)
    )
    estimator.n_features_in_ = first.values.shape[1]
    estimator.subjects_ = data.contracts
    estimator.target_ = {
        "fingerprint": fingerprint_of(y),
        "shape": list(data.targets.shape[1:]),
        "latent": None if data.latents is None else list(data.latents.shape[1:]),
        "scale": float(y.attrs.get("scale", 1.0)),
        "random_weights": bool(y.attrs.get("random_weights", 0)),
    }


# Networks -----------------------------------------------------------------------------------


def _new_model(estimator: MindEye, data: FitData, start: Model | None) -> Model:
    n_voxels = {c.name: c.n_voxels for c in data.contracts}
    model = new_networks(
        estimator, n_voxels, estimator.target_["shape"], estimator.target_["latent"]
    )
    if start is None:
        model.scale = _scale(estimator, data)
        return model
    model.scale.load_state_dict(start.scale.state_dict())
    shared = {k: v for k, v in start.network.state_dict().items() if not k.startswith("first.")}
    wanted = {k for k in model.network.state_dict() if not k.startswith("first.")}
    new_branch = {k for k in wanted - set(shared) if k.startswith("low_level.")}
    if set(shared) - {k for k in shared if k.startswith("low_level.")} != wanted - {
        k for k in wanted if k.startswith("low_level.")
    }:
        raise InputError("fine_tune can't change the size of the backbone; leave its parameters")
    shared = {k: v for k, v in shared.items() if k in wanted}
    own = {k: v for k, v in model.network.state_dict().items() if k.startswith("first.")}
    own |= {k: model.network.state_dict()[k] for k in new_branch}
    try:
        model.network.load_state_dict({**shared, **own})
    except RuntimeError as error:
        raise InputError(
            f"fine_tune can't change the size of the backbone; leave its parameters ({error})"
        ) from error
    if model.prior is not None and start.prior is not None:
        model.prior.load_state_dict(start.prior.state_dict())
    return model


def _scale(estimator: MindEye, data: FitData) -> PriorScale:
    shape = data.targets.shape[1:]
    if not recipe_of(estimator).centre:
        return PriorScale(torch.zeros(shape), torch.tensor(float(estimator.target_["scale"])))
    values = data.targets[data.trained].astype(np.float32)
    mean = values.mean(0)
    sd = float(np.sqrt(np.square(values - mean).mean()))
    return PriorScale(torch.from_numpy(mean), torch.tensor(1.0 / max(sd, 1e-8)))


# Training -----------------------------------------------------------------------------------


@dataclass
class _Run:
    """What the stages of one training share."""

    estimator: MindEye
    model: Model
    data: FitData
    begin: Model | None
    recipe: Recipe
    banks: list[Any]
    device: torch.device
    seeds: list[int]
    scratch: str | Path | None
    progress: Callable[..., Iterator[Any]] | None
    conditions: list[NDArray[np.float32]] | None = None

    @classmethod
    def of(
        cls,
        estimator: MindEye,
        model: Model,
        data: FitData,
        begin: Model | None,
        seeds: list[int],
        scratch: str | Path | None,
        progress: Callable[..., Iterator[Any]] | None,
    ) -> _Run:
        device = device_of(estimator.device)
        banks = [None if v is None else _bank(v, device) for v in (data.targets, data.latents)]
        recipe = recipe_of(estimator)
        if begin is not None and estimator.learning_rate is None:
            rate = recipe.tuning * recipe.weights.learning_rate
            recipe = replace(recipe, weights=replace(recipe.weights, learning_rate=rate))
        if recipe.relative:
            spread = spread_of(data.targets[data.trained])
            recipe = replace(recipe, weights=recipe.weights.scaled(spread))
        return cls(estimator, model, data, begin, recipe, banks, device, seeds, scratch, progress)

    def cross_fit(self) -> _Crossed | None:
        """Train backbones that never saw a fold of the stimuli; None where these are too few."""
        own, data = self.estimator, self.data
        folds = stimulus_folds(data, self.recipe.cross_fit, self.seeds[1])
        if not folds:
            return None
        shape, kept = data.targets.shape[1:], own.alpha_
        tokens = [np.zeros((len(v), *shape), np.float32) for v in data.values]
        logs = []
        for number, held in enumerate(folds):
            part = without_stimuli(data, held)
            model = _started(own, part, self.begin, self.seeds)
            folder = None if self.scratch is None else Path(self.scratch) / f"fold-{number}"
            inner = replace(self, model=model, data=part, scratch=folder)
            label = f"backbone, fold {number + 1} of {len(folds)}"
            logs.append(inner.go("brain", self.recipe.max_epochs, label=label))
            for values, out, rows, contract in zip(
                data.values, tokens, part.held, data.contracts, strict=True
            ):
                out[rows] = model.tokens((contract.name, values[rows]), own.device)
        own.alpha_ = kept
        return _Crossed(_mean_history(logs), _best_of(logs), tokens)

    def go(
        self, stage: str, max_epochs: int, only: int | None = None, label: str | None = None
    ) -> _Log:
        """Train one stage, or its first epochs only."""
        from fmri.prior import kept_signal
        from neuro.training import train

        own = self.estimator
        weights = self.recipe.weights
        if stage == "prior":
            weights = replace(weights, learning_rate=self.recipe.prior_learning_rate)
        kept = kept_signal() if self.model.prior is not None else torch.ones(1)
        prior = None if stage == "brain" else self.model.prior
        objective = MindEyeObjective(
            self.model.network,
            prior,
            self.model.scale,
            kept,
            self.banks[0],
            self.banks[1],
            weights,
            stage,
        )
        objective.rise = min(0.5, self.recipe.rise / max(max_epochs, 1))
        objective.total_epochs = max_epochs
        if only is not None:
            objective.share, max_epochs = only / max(max_epochs, 1), only
        chooses = own.validation_fraction and only is None
        validation = self._sources(self.data.held, stage, False) if chooses else None
        before = None
        if validation is not None and stage == "brain" and self.model.start is not None:
            before = self._selection(objective, validation)
            first = {k: v.clone() for k, v in objective.state_dict().items()}
        result = train(
            objective,
            self._sources(self.data.train, stage, True),
            max_epochs=max_epochs,
            seed=self.seeds[2 if stage != "prior" else 3],
            validation=validation,
            patience=None if validation is None else own.patience or max(max_epochs, 1),
            folder=None if self.scratch is None else Path(self.scratch) / stage,
            precision=own.precision,
            device=self.device,
            compile=own.compile,
            progress=self.progress or (_bar if own.verbose else None),
            label=label or {"joint": "training", "brain": "backbone", "prior": "prior"}[stage],
        )
        log = _Log(result.history[0], result.best_epoch[0], before)
        objective.cpu().eval()
        if before is not None and min(log.curve(), default=before) >= before:
            objective.load_state_dict(first)
            log.best = 0
        return log

    def _sources(self, parts: list[Ints], stage: str, training: bool) -> Any:
        """Return one source per subject with equal shares; None where there is nothing."""
        if not all(len(part) for part in parts):
            return None
        sources = {}
        whole = self.recipe.prior_batch_size if stage == "prior" else self.recipe.batch_size
        share = max(2, whole // len(parts))
        for number, part in enumerate(parts):
            arrays: dict[str, NDArray[Any]] = {
                "x": self.data.values[number],
                "row": self.data.rows[number],
            }
            if stage == "prior" and self.conditions is not None:
                arrays["tokens"] = self.conditions[number]
            most = max(2, len(part) // self.recipe.min_batches)
            size = min(share, most) if training else min(_VALIDATION_ROWS, len(part))
            sources[self.data.contracts[number].name] = Batches(
                arrays, size, index=part, shuffle=training, device=self.device,
                seed=self.seeds[1] + number, drop_last=training,
            )  # fmt: skip
        return Together(sources)

    def _selection(self, objective: MindEyeObjective, validation: Together) -> float:
        state = State(1, [torch.Generator(self.device).manual_seed(0)], training=False)
        objective.to(self.device).eval()
        validation.set_epoch(0)
        values = []
        with torch.inference_mode():
            for batch in validation:
                values.append(float(objective.step(batch, state)["selection"]))
        objective.train()
        return float(np.mean(values))


def _mean_history(logs: list[_Log]) -> list[dict[str, float]]:
    """Average losses over folds, for as many epochs as all of them ran."""
    rows = zip(*(log.history for log in logs), strict=False)
    return [{name: float(np.mean([r[name] for r in row])) for name in row[0]} for row in rows]


def _best_of(logs: list[_Log]) -> int | None:
    curves = [log.curve() for log in logs]
    least = min(len(curve) for curve in curves)
    return int(np.mean([curve[:least] for curve in curves], 0).argmin()) if least else None


def _bank(values: NDArray[Any], device: torch.device) -> Bank:
    with warnings.catch_warnings():
        # A read-only memory map is fine: nothing is ever written to it.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        tensor = torch.from_numpy(values)
    if device.type == "cuda" and values.nbytes < _RESIDENT_SHARE * torch.cuda.mem_get_info()[0]:
        tensor = tensor.to(device)
    return Bank(tensor)


def estimate_memory(estimator: MindEye, model: Model, n_bytes: int, batch_size: int) -> int:
    """Estimate the bytes that training takes at its peak.

    Weights, gradients and AdamW's two moments take 16 bytes per parameter, the best epoch's copy
    4 more; the data, and about ten copies of a batch's tokens, come on top.
    """
    modules = [m for m in (model.network, model.prior) if m is not None]
    n_parameters = sum(count_parameters(m) for m in modules)
    shape = estimator.target_["shape"]
    return 20 * n_parameters + n_bytes + 40 * batch_size * int(np.prod(shape))


def _warn_of_memory(estimator: MindEye, model: Model, data: FitData) -> None:
    import psutil

    device = device_of(estimator.device)
    n_bytes = 2 * sum(v.nbytes for v in data.values)
    needed = estimate_memory(estimator, model, n_bytes, recipe_of(estimator).batch_size)
    there = psutil.virtual_memory().available
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[0]
    if needed > there:
        warnings.warn(
            f"training needs about {needed / 1e9:.1f} GB, {there / 1e9:.1f} GB are free on "
            f"{device}; take a smaller n_hidden, a low-rank head (rank=64), or a smaller batch",
            stacklevel=4,
        )


def _bar(items: Any, label: str, total: int | None = None) -> Iterator[Any]:
    from rich.progress import track

    return iter(track(items, label, total=total))
