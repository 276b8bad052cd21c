"""From betas and targets to a trained MindEye: splits, statistics, start, training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from fmri.fit_data import FitData, Ints, match
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
    model, found = _once(estimator, subjects, y, low_level, scratch, progress, start, None)
    chosen = found.best_epoch, found.prior_best_epoch
    if recipe.refit and estimator.validation_fraction:
        folder = None if scratch is None else Path(scratch) / "refit"
        model, _ = _once(estimator, subjects, y, low_level, folder, progress, start, chosen)
    estimator.model_ = model
    estimator.history_, estimator.prior_history_ = found.history, found.prior_history
    estimator.best_epoch_ = found.best_epoch


@dataclass
class _Found:
    """Logs of a training, and the epochs that were best."""

    history: list[dict[str, float]]
    best_epoch: int
    prior_history: list[dict[str, float]]
    prior_best_epoch: int


def _once(
    estimator: MindEye,
    subjects: list[Subject],
    y: Any,
    low_level: xr.Dataset | None,
    scratch: str | Path | None,
    progress: Callable[..., Iterator[Any]] | None,
    start: Model | None,
    chosen: tuple[int, int] | None,
) -> tuple[Model, _Found]:
    """Train with a validation part, or on everything for the epochs that were chosen."""
    data = match(estimator, subjects, y, low_level, hold_out=chosen is None)
    _learn_contracts(estimator, data, y)
    seeds = [int(s) for s in np.random.SeedSequence(estimator.random_state).generate_state(4)]
    with torch.random.fork_rng([]):
        torch.manual_seed(seeds[0])
        model = _new_model(estimator, data, start)
        start_layers(estimator, model, data, start, seeds[1])
    if chosen is None:
        _warn_of_memory(estimator, model, data)
    found = _train(estimator, model, data, seeds, scratch, progress, chosen)
    if model.start is not None:
        model.start.codes = code_map(estimator, model, data, seeds[1])
    return model, found


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


def _train(
    estimator: MindEye,
    model: Model,
    data: FitData,
    seeds: list[int],
    scratch: str | Path | None,
    progress: Callable[..., Iterator[Any]] | None,
    chosen: tuple[int, int] | None,
) -> _Found:
    recipe = recipe_of(estimator)
    staged = recipe.staged and model.prior is not None
    device = device_of(estimator.device)
    banks = [None if v is None else _bank(v, device) for v in (data.targets, data.latents)]
    run = _Run(estimator, model, data, recipe, banks, device, seeds, scratch, progress)
    stage = "joint" if model.prior is not None and not recipe.staged else "brain"
    only, prior_only = chosen or (None, None)
    history, best = run.go(stage, recipe.max_epochs, only)
    later = run.go("prior", recipe.prior_max_epochs, prior_only) if staged else ([], 0)
    return _Found(history, best, *later)


@dataclass
class _Run:
    """What the stages of one training share."""

    estimator: MindEye
    model: Model
    data: FitData
    recipe: Recipe
    banks: list[Any]
    device: torch.device
    seeds: list[int]
    scratch: str | Path | None
    progress: Callable[..., Iterator[Any]] | None

    def go(
        self, stage: str, max_epochs: int, only: int | None = None
    ) -> tuple[list[dict[str, float]], int]:
        """Train one stage, or its first epochs only; return its log and the epoch kept."""
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
        validation = self._sources(self.data.held, stage, False)
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
            label={"joint": "training", "brain": "backbone", "prior": "prior"}[stage],
        )
        history, best = result.history[0], result.best_epoch[0]
        objective.cpu().eval()
        values = [row["val_selection"] for row in history if "val_selection" in row]
        if before is not None and min(values, default=before) >= before:
            objective.load_state_dict(first)
            best = 0
        return history, best

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
