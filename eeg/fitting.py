"""From estimators and trials to trained beta-VAEs: splits, statistics, objectives, training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from eeg.beta_vae import _FREE, BetaVAE
from eeg.features import TrainingPart, feature_errors
from eeg.sampling import statistics, training_batches
from neuro.device import device_of
from neuro.errors import DataError
from neuro.nn.beta_vae import BetaVAEObjective
from neuro.sources import Source
from neuro.split import split_groups
from neuro.standardize import Standardizer

Ints = NDArray[np.int64]
Columns = dict[str, NDArray[np.str_] | None]


@dataclass
class _Data:
    """The training trials of one member, shared by members with the same subset."""

    values: NDArray[np.float32]
    columns: Columns
    fitted: dict[str, Any]  # attributes that `start_fit` learned from it
    kept: dict[Any, Any] = field(default_factory=dict)

    def scalers(
        self, estimator: BetaVAE, groups: Ints | None, train: Ints
    ) -> tuple[Standardizer, Standardizer | None]:
        """Return the statistics of inputs and, where they differ, of targets."""
        mode, n_average = estimator.train_on, estimator.n_average
        key = (mode, n_average, train.tobytes())
        if key not in self.kept and mode == "single":
            whole = len(train) == len(self.values)
            self.kept[key] = Standardizer.fit(self.values if whole else self.values[train]), None
        elif key not in self.kept:
            source = training_batches(
                self.values, groups, mode, estimator.batch_size, index=train, n_average=n_average
            )
            self.kept[key] = statistics(source)
        return self.kept[key]

    def standardized(self, scaler: Standardizer, precision: str) -> NDArray[np.floating]:
        """Return the trials standardised, once for every different statistics."""
        key = (scaler.mean.tobytes(), scaler.sd.tobytes(), precision)
        if key not in self.kept:
            dtype = np.float64 if precision == "64" else np.float32
            self.kept[key] = scaler.transform(self.values.astype(dtype, copy=False))
        return self.kept[key]


@dataclass
class _Member:
    """One model on its way: estimator, objective, batches, seed of its sampling, its trials."""

    estimator: BetaVAE
    objective: BetaVAEObjective
    batches: Source
    validation: Source | None
    seed: int
    part: TrainingPart


def fit_members(
    estimators: list[BetaVAE],
    X: Any,
    given: dict[str, Any],
    subsets: Sequence[Any] | None,
    scratch: str | Path | None,
    progress: Callable[..., Iterator[Any]] | None,
) -> None:
    """Fit every estimator in place; see `BetaVAE.fit_together`."""
    known: dict[bytes, _Data] = {}
    datas = [
        _data(estimator, X, given, None if subsets is None else subsets[number], known)
        for number, estimator in enumerate(estimators)
    ]
    kinds = [_kind(e, d.values.shape[1:]) for e, d in zip(estimators, datas, strict=True)]
    for number, kind in enumerate(dict.fromkeys(kinds)):
        chosen = [i for i, other in enumerate(kinds) if other == kind]
        folder = None if scratch is None else Path(scratch) / f"group-{number}"
        _fit_alike([estimators[i] for i in chosen], [datas[i] for i in chosen], folder, progress)


def _kind(estimator: BetaVAE, shape: tuple[int, ...]) -> str:
    """Return what members of one ensemble have in common."""
    params = {k: v for k, v in estimator.get_params().items() if k not in _FREE}
    return json.dumps([params, shape], default=str, sort_keys=True)


def _fit_alike(
    estimators: list[BetaVAE],
    datas: list[_Data],
    folder: Path | None,
    progress: Callable[..., Iterator[Any]] | None,
) -> None:
    from neuro.training import train_together

    first = estimators[0]
    device = device_of(first.device)
    members = [_member(e, d, device) for e, d in zip(estimators, datas, strict=True)]
    shared: dict[str, Any] = {
        "batch_size": first.batch_size,
        "device": device,
        "precision": first.precision,
        "compile": first.compile,
        "progress": progress or (_bar if first.verbose else None),
    }
    if first.feature_loss:
        errors = feature_errors(first, [m.part for m in members], folder, **shared)
        for member, error in zip(members, errors, strict=True):
            member.objective.features = error
    results = train_together(
        [m.objective for m in members],
        [m.batches for m in members],
        seeds=[m.seed for m in members],
        validation=[m.validation for m in members if m.validation is not None] or None,
        folder=folder,
        max_epochs=first.max_epochs,
        patience=first.patience,
        **shared,
    )
    for member, result in zip(members, results, strict=True):
        estimator = member.estimator
        estimator.history_, estimator.best_epoch_ = result.history[0], result.best_epoch[0]
        estimator.network_ = member.objective.network.float().cpu().eval()
        estimator._describe(*_posterior(estimator, member.batches))


def _data(
    estimator: BetaVAE, X: Any, given: dict[str, Any], subset: Any, known: dict[bytes, _Data]
) -> _Data:
    """Check a member's trials and learn the contract, once for every different subset."""
    rows = None if subset is None else np.asarray(subset)
    key = b"" if rows is None else rows.astype(np.int64).tobytes()
    if key not in known:
        chosen = X
        if rows is not None:
            chosen = X.isel(trial=rows) if isinstance(X, xr.DataArray) else np.asarray(X)[rows]
        own = {k: _rows(v, rows) for k, v in given.items()}
        values = estimator.start_fit(chosen, subject=own["subject"], session=own["session"])
        if len(values) == 0:
            raise DataError("there is no trial to train on")
        names = ("contract_", "fitted_on_", "n_features_in_", "feature_names_in_")
        fitted = {n: getattr(estimator, n) for n in names if hasattr(estimator, n)}
        fitted["positions_"] = getattr(X, "attrs", {}).get("positions")
        columns = {n: _column(chosen, n, own[n], len(values)) for n in ("subject", "condition")}
        known[key] = _Data(values, columns, fitted)
    for name, value in known[key].fitted.items():
        setattr(estimator, name, value)
    return known[key]


def _member(estimator: BetaVAE, data: _Data, device: torch.device) -> _Member:
    seed = estimator.random_state
    if not isinstance(seed, int | np.integer):
        seed = check_random_state(seed).randint(2**31)
    start, order, noise, split = map(int, np.random.SeedSequence(int(seed)).generate_state(4))
    train, held_out = _split(estimator, data, split)
    groups = _groups(data.columns)
    scaler, target = data.scalers(estimator, groups, train)
    estimator.standardizer_ = scaler
    estimator.target_standardizer_ = target or scaler
    values = data.standardized(scaler, estimator.precision)
    relative = None if target is None else _relative(target, scaler)

    def source(index: Ints, shuffle: bool = True, seed: int = order) -> Source:
        return training_batches(
            values, groups, estimator.train_on, estimator.batch_size,
            index=index, n_average=estimator.n_average, target=relative, seed=seed,
            device=device, shuffle=shuffle,
        )  # fmt: skip

    validation = source(held_out, False) if len(held_out) else None
    shape = (values.shape[1], values.shape[2])
    part = TrainingPart(lambda own: source(train, seed=own), shape, train.tobytes(), data.kept)
    return _Member(estimator, _objective(estimator, start), source(train), validation, noise, part)


def _objective(estimator: BetaVAE, seed: int) -> BetaVAEObjective:
    objective = BetaVAEObjective(
        estimator._new_network(seed),
        beta=float(estimator.beta),
        learning_rate=float(estimator.learning_rate),
        warmup_epochs=estimator.warmup_epochs,
        capacity=estimator.capacity,
    )
    return objective.double() if estimator.precision == "64" else objective


def _relative(target: Standardizer, scaler: Standardizer) -> Standardizer:
    """Return what standardises a target that was standardised as an input."""
    return Standardizer((target.mean - scaler.mean) / scaler.sd, target.sd / scaler.sd)


def _split(estimator: BetaVAE, data: _Data, seed: int) -> tuple[Ints, Ints]:
    """Keep whole subjects aside for validation (trials, where subjects are not known)."""
    n = len(data.values)
    if not estimator.validation_fraction:
        return np.arange(n), np.arange(0)
    subject = data.columns["subject"]
    groups = np.arange(n) if subject is None else subject
    if len(np.unique(groups)) < 2:
        raise DataError(
            f"validation_fraction={estimator.validation_fraction} keeps whole subjects aside, but "
            f"there is one only: {groups[0]}; set it to 0"
        )
    train, held_out = split_groups(
        np.empty(n), groups, test_size=estimator.validation_fraction, random_state=seed
    )
    return train.astype(np.int64), held_out.astype(np.int64)


def _groups(columns: Columns) -> Ints | None:
    """Number subject and condition of every trial together; None where subjects aren't known."""
    subject, condition = columns["subject"], columns["condition"]
    if subject is None:
        return None
    pairs = [subject, subject if condition is None else condition]
    return np.unique(np.stack(pairs), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _column(X: Any, name: str, given: Any, n: int) -> NDArray[np.str_] | None:
    if given is None and isinstance(X, xr.DataArray) and name in X.coords:
        given = X[name].values if X[name].dims == ("trial",) else None
    if given is None:
        return None
    column = np.asarray(given).astype(str)
    if column.shape != (n,):
        raise DataError(
            f"'{name}' has the shape {column.shape}, expected one value for each of {n} trials"
        )
    return column


def _rows(column: Any, rows: NDArray[Any] | None) -> Any:
    return column if column is None or rows is None else np.asarray(column)[rows]


def _posterior(estimator: BetaVAE, batches: Source) -> tuple[Any, Any]:
    """Return posterior means and variances of one epoch's training samples."""
    batches.set_epoch(0)
    pairs = [estimator._posterior(batch["x"].float().cpu().numpy()) for batch in batches]
    means, variances = zip(*pairs, strict=True)
    return np.concatenate(means), np.concatenate(variances)


def _bar(items: Any, label: str, total: int | None = None) -> Iterator[Any]:
    from rich.progress import track

    return iter(track(items, label, total=total))
