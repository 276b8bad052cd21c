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

from fmri.mindeye import MindEye, fingerprint_of
from fmri.model import Model, Start
from fmri.subjects import Subject, VoxelContract, one_per_stimulus
from fmri.warm_start import components, ridge
from neuro.batches import Batches
from neuro.contract import Contract
from neuro.device import device_of
from neuro.errors import DataError, InputError
from neuro.nn.brain import BrainNetwork, BrainSizes, count_parameters, sizes_of
from neuro.nn.mindeye import Bank, MindEyeObjective, PriorScale, Weights
from neuro.nn.objective import State
from neuro.nn.prior import PRIORS, PriorNetwork
from neuro.sources import Together

Ints = NDArray[np.int64]

_VALIDATION_ROWS = 1024  # of a subject in one batch
_RESIDENT_SHARE = 0.5  # of the free GPU memory, for targets


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained.

    Attributes
    ----------
    max_epochs, batch_size, prior_max_epochs : int
    weights : Weights
    prior_batch_size, prior_learning_rate
        Where the prior is trained after the backbone.
    rise : float
        Epochs in which the learning rate rises.
    staged : bool
        The backbone first, then the prior on its outputs; else both at once.
    centre : bool
        The prior works on centred targets of unit variance, not on ``scale * targets``.
    warm_start : bool
    refit : bool
        Train again on all stimuli, for as many epochs as the validation part chose.
    min_batches : int
        In an epoch: few trials make smaller batches, not fewer steps.
    """

    max_epochs: int
    batch_size: int
    weights: Weights
    prior_max_epochs: int = 0
    prior_batch_size: int = 100
    prior_learning_rate: float = 1e-3
    rise: float = 2.0
    staged: bool = False
    centre: bool = False
    warm_start: bool = False
    refit: bool = False
    min_batches: int = 1


RECIPES: dict[str, Recipe] = {
    "mindeye1": Recipe(240, 32, Weights()),
    "mindeye2": Recipe(150, 24, Weights()),
    "small": Recipe(
        60,
        300,
        Weights(
            loss="softclip",
            anchor=1.0,
            bimixco_temperature=0.07,
            softclip_temperatures=(0.07, 0.07),
            learning_rate=5e-4,
        ),
        prior_max_epochs=20,
        rise=6.0,
        staged=True,
        centre=True,
        warm_start=True,
        refit=True,
        min_batches=4,
    ),
}


@dataclass
class _Data:
    """Betas and targets of a fit, matched by stimulus."""

    subjects: list[Subject]
    contracts: list[VoxelContract]
    values: list[NDArray[np.float32]]
    rows: list[Ints]  # of each trial, in the targets
    train: list[Ints]
    held: list[Ints]
    targets: NDArray[Any]
    latents: NDArray[Any] | None
    trained: Ints  # rows of the targets that the training part shows


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
    data = _match(estimator, subjects, y, low_level, hold_out=chosen is None)
    _learn_contracts(estimator, data, y)
    seeds = [int(s) for s in np.random.SeedSequence(estimator.random_state).generate_state(4)]
    with torch.random.fork_rng([]):
        torch.manual_seed(seeds[0])
        model = _new_model(estimator, data, start)
        _start(estimator, model, data, start, seeds[1])
    if chosen is None:
        _warn_of_memory(estimator, model, data)
    found = _train(estimator, model, data, seeds, scratch, progress, chosen)
    if model.start is not None:
        model.start.codes = _code_map(estimator, model, data, seeds[1])
    return model, found


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
    return _networks(estimator, n_voxels, shape, latent)


def _networks(
    estimator: MindEye, n_voxels: dict[str, int], shape: list[int], latent: list[int] | None
) -> Model:
    low = None if latent is None else (latent[0], latent[1], latent[2])
    network = BrainNetwork(n_voxels, shape[0], shape[1], sizes_for(estimator), low)
    prior = PriorNetwork(shape[0], shape[1], PRIORS[estimator.preset]) if estimator.prior else None
    # Not centred, the offset is 0, but it is stored in the same shape.
    scale = PriorScale(torch.zeros(shape[0], shape[1]), torch.ones(()))
    return Model(network, prior, scale)


# Data ---------------------------------------------------------------------------------------


def _match(
    estimator: MindEye,
    subjects: list[Subject],
    y: Any,
    low_level: xr.Dataset | None,
    *,
    hold_out: bool = True,
) -> _Data:
    stimuli = one_per_stimulus(subjects)
    targets, rows = _keyed(y, stimuli, "targets", ("token", "feature"))
    latents = None
    if low_level is not None:
        own, places = _keyed(low_level, stimuli, "image latents", ("channel", "row", "column"))
        # In the order of the targets, so that one number finds both.
        latents = np.zeros((len(targets), *own.shape[1:]), own.dtype)
        latents[rows] = own[places]
    held = _held_out(estimator, stimuli) if hold_out else np.zeros(len(stimuli), dtype=bool)
    number = {name: n for n, name in enumerate(stimuli)}
    index = [np.array([number[str(s)] for s in np.asarray(x.stimulus)]) for x in subjects]
    train = [np.flatnonzero(~held[i]).astype(np.int64) for i in index]
    for subject, own_train in zip(subjects, train, strict=True):
        if len(own_train) < 2:
            raise DataError(
                f"subject '{subject.name}' has {len(own_train)} training trials beside those kept "
                "for validation; give more trials, or set validation_fraction=0"
            )
    contracts = [VoxelContract.of(s, t) for s, t in zip(subjects, train, strict=True)]
    return _Data(
        subjects,
        contracts,
        [c.transform(s.values) for c, s in zip(contracts, subjects, strict=True)],
        [rows[i] for i in index],
        train,
        [np.flatnonzero(held[i]).astype(np.int64) for i in index],
        targets,
        latents,
        rows[~held],
    )


def _keyed(
    y: Any, stimuli: list[str], what: str, dims: tuple[str, ...]
) -> tuple[NDArray[Any], Ints]:
    """Return values as they are stored, and the row of every stimulus."""
    signal = y["signal"] if isinstance(y, xr.Dataset) and "signal" in y else y
    if not isinstance(signal, xr.DataArray) or signal.dims != ("trial", *dims):
        found = getattr(signal, "dims", type(signal).__name__)
        raise DataError(f"the {what} are {found}, expected ('trial', {', '.join(map(repr, dims))})")
    if "stimulus" not in signal.coords:
        raise DataError(f"the {what} have no coordinate 'stimulus', by which trials find theirs")
    names = [str(s) for s in signal["stimulus"].values]
    where = {name: row for row, name in enumerate(names)}
    if len(where) < len(names):
        raise DataError(f"the {what} name a stimulus twice; keep one row of each")
    missing = [name for name in stimuli if name not in where]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(stimuli)} stimuli have no {what}: {', '.join(missing[:8])}; "
            f"they are there for {len(names)}: {', '.join(names[:4])}, ..."
        )
    values, rows = signal.values, np.array([where[name] for name in stimuli], np.int64)
    for start in range(0, len(rows), 256):
        block = values[rows[start : start + 256]]
        if not np.isfinite(block).all():
            raise DataError(f"the {what} hold NaN or infinity; encode the pictures again")
    return values, rows


def _held_out(estimator: MindEye, stimuli: list[str]) -> NDArray[np.bool_]:
    """Keep stimuli aside, the same for all subjects."""
    held = np.zeros(len(stimuli), dtype=bool)
    if estimator.validation_fraction and len(stimuli) < 4:
        raise DataError(
            f"{len(stimuli)} stimuli are too few to keep some for validation; set "
            "validation_fraction=0"
        )
    if estimator.validation_fraction:
        count = min(max(2, round(estimator.validation_fraction * len(stimuli))), len(stimuli) - 2)
        rng = np.random.default_rng([estimator.random_state, 1])
        held[rng.permutation(len(stimuli))[:count]] = True
    return held


def _learn_contracts(estimator: MindEye, data: _Data, y: xr.Dataset) -> None:
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


def _new_model(estimator: MindEye, data: _Data, start: Model | None) -> Model:
    n_voxels = {c.name: c.n_voxels for c in data.contracts}
    model = _networks(estimator, n_voxels, estimator.target_["shape"], estimator.target_["latent"])
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


def _scale(estimator: MindEye, data: _Data) -> PriorScale:
    shape = data.targets.shape[1:]
    if not recipe_of(estimator).centre:
        return PriorScale(torch.zeros(shape), torch.tensor(float(estimator.target_["scale"])))
    values = data.targets[data.trained].astype(np.float32)
    mean = values.mean(0)
    sd = float(np.sqrt(np.square(values - mean).mean()))
    return PriorScale(torch.from_numpy(mean), torch.tensor(1.0 / max(sd, 1e-8)))


def _start(estimator: MindEye, model: Model, data: _Data, start: Model | None, seed: int) -> None:
    """Give the first layers their start by a ridge regression, where that is asked for."""
    estimator.alpha_ = {}
    sizes = model.network.sizes
    if not recipe_of(estimator).warm_start or sizes.first != "linear":
        return
    if start is None:
        k = min(sizes.n_hidden, sizes.rank or sizes.n_hidden)
        flat = data.targets[data.trained].reshape(len(data.trained), -1)
        found = components(flat, k, seed)
        # Codes of unit variance are what normalisations and the optimiser's steps expect.
        sd = float(np.sqrt(np.square(found.scores).mean()))
        basis, offset = torch.from_numpy(found.basis * sd), torch.from_numpy(found.offset)
        maps = _maps(estimator, data, basis, offset, seed)
        smooth = {name: own[1] for name, own in maps.items()}
        model.network.start_linear(smooth, basis, offset)
        model.start = Start(basis, offset, torch.zeros(len(basis) + 1, sizes.n_hidden))
    elif start.start is not None:
        known = start.start
        model.start = Start(known.basis, known.offset, known.codes)
        maps = _maps(estimator, data, known.basis, known.offset, seed)
        with torch.no_grad():
            for layer, (own, _) in zip(_layers(model), maps.values(), strict=True):
                layer.weight.copy_((own @ known.codes[:-1]).T)
                layer.bias.copy_(known.codes[-1])


def _maps(
    estimator: MindEye, data: _Data, basis: torch.Tensor, offset: torch.Tensor, seed: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Regress the scores of the targets on each subject's voxels: best and smoother maps."""
    maps = {}
    for number, contract in enumerate(data.contracts):
        train = data.train[number]
        rows = data.rows[number][train]
        scores = _scores(data, rows, basis, offset)
        best, smooth, alpha = ridge(data.values[number][train], scores, rows, seed)
        estimator.alpha_[contract.name] = alpha
        maps[contract.name] = torch.from_numpy(best), torch.from_numpy(smooth)
    return maps


def _scores(
    data: _Data, rows: Ints, basis: torch.Tensor, offset: torch.Tensor
) -> NDArray[np.float32]:
    unique, back = np.unique(rows, return_inverse=True)
    flat = data.targets[unique].reshape(len(unique), -1).astype(np.float32)
    own = basis.numpy()
    return ((flat - offset.numpy()) @ own.T / np.square(own).sum(1))[back]


def _layers(model: Model) -> list[torch.nn.Linear]:
    return [layer for layer in model.network.first if isinstance(layer, torch.nn.Linear)]


def _code_map(estimator: MindEye, model: Model, data: _Data, seed: int) -> torch.Tensor:
    """Regress what the trained first layers give on predicted scores, for new subjects.

    On the predicted scores, not the true ones: a new subject's are predicted, and shrunk, too.
    """
    assert model.start is not None  # noqa: S101 - for the type checker
    maps = _maps(estimator, data, model.start.basis, model.start.offset, seed)
    left, right = [], []
    with torch.inference_mode():
        for number, (layer, (own, _)) in enumerate(zip(_layers(model), maps.values(), strict=True)):
            x = torch.from_numpy(data.values[number][data.train[number]])
            left.append(np.c_[(x @ own).numpy(), np.ones(len(x), np.float32)])
            right.append(layer(x).numpy())
    scores, codes = np.concatenate(left).astype(np.float64), np.concatenate(right)
    gram = scores.T @ scores
    gram += 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram))
    return torch.from_numpy(np.linalg.solve(gram, scores.T @ codes).astype(np.float32))


# Training -----------------------------------------------------------------------------------


def _train(
    estimator: MindEye,
    model: Model,
    data: _Data,
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
    data: _Data
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


def _warn_of_memory(estimator: MindEye, model: Model, data: _Data) -> None:
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
