"""The denoising autoencoders of ``feature_loss="dae"``: one for every different training part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neuro.nn.dae import DAE, DAEObjective, FeatureError, feature_variance
from neuro.sources import Source

if TYPE_CHECKING:
    from eeg.beta_vae import BetaVAE

# Not the encoder's: the loss is then the same for all seeds, and whoever is trained beside it.
SEED = 0


@dataclass
class TrainingPart:
    """What a denoising autoencoder learns from.

    Attributes
    ----------
    batches : callable
        ``batches(seed)`` returns what the encoder is trained on, in an order of its own.
    shape : tuple of int
        Channels and times.
    key : bytes
        Tells training parts of the same data apart.
    kept : dict
        The autoencoders of this data that are trained already.
    """

    batches: Callable[[int], Source]
    shape: tuple[int, int]
    key: bytes
    kept: dict[Any, Any] = field(repr=False)


def feature_errors(
    estimator: BetaVAE,
    parts: list[TrainingPart],
    folder: Path | None,
    *,
    progress: Callable[..., Iterator[Any]] | None,
    **options: Any,
) -> list[FeatureError]:
    """Return the frozen features of every training part; train those that are missing, together.

    Parameters
    ----------
    estimator : BetaVAE
        Has the settings; all members agree in them.
    parts : list of TrainingPart
        Of every member. Equal ones share an autoencoder.
    folder : path, optional
        Checkpoints go to ``dae`` in it; a killed training continues from there.
    progress : callable, optional
    **options
        Of `neuro.training.train_together`.

    Returns
    -------
    list of FeatureError

    Warns
    -----
    UserWarning
        Where an autoencoder explains nothing.
    """
    keys = [_key(estimator, part) for part in parts]
    distinct = {(id(p.kept), k): p for p, k in zip(parts, keys, strict=True) if k not in p.kept}
    found = _train(
        estimator, list(distinct.values()), None if folder is None else folder / "dae",
        progress=_named(progress), **options,
    )  # fmt: skip
    for ((_, key), part), error in zip(distinct.items(), found, strict=True):
        part.kept[key] = error
    # Those of another group may still be where that one was trained.
    return [part.kept[key].cpu() for part, key in zip(parts, keys, strict=True)]


def _key(estimator: BetaVAE, part: TrainingPart) -> tuple[Any, ...]:
    return (
        "dae", part.key, estimator.train_on, estimator.n_average, estimator.batch_size,
        estimator.precision, estimator.n_features, estimator.mask_fraction,
        estimator.dae_max_epochs,
    )  # fmt: skip


def _train(
    estimator: BetaVAE, parts: list[TrainingPart], folder: Path | None, **options: Any
) -> list[FeatureError]:
    from neuro.training import train_together

    if not parts:
        return []
    objectives = [_objective(estimator, part) for part in parts]
    sources = [part.batches(SEED) for part in parts]
    results = train_together(
        objectives,
        sources,
        seeds=[SEED] * len(parts),
        folder=folder,
        max_epochs=estimator.dae_max_epochs,
        **options,
    )
    for result, part in zip(results, parts, strict=True):
        _warn(result.history[0][-1]["loss"], part.shape)
    return [
        _frozen(estimator, objective.dae.to(options["device"]), source)
        for objective, source in zip(objectives, sources, strict=True)
    ]


def _objective(estimator: BetaVAE, part: TrainingPart) -> DAEObjective:
    dae = DAE(*part.shape, estimator.n_features, seed=SEED)
    objective = DAEObjective(dae, mask_fraction=float(estimator.mask_fraction))
    return objective.double() if estimator.precision == "64" else objective


def _frozen(estimator: BetaVAE, dae: DAE, source: Source) -> FeatureError:
    source.set_epoch(0)
    settings = {
        "mask_fraction": float(estimator.mask_fraction),
        "max_epochs": estimator.dae_max_epochs,
    }
    with torch.no_grad():
        return FeatureError(dae, feature_variance(dae, source), settings=settings)


def _warn(loss: float, shape: tuple[int, int]) -> None:
    flat = shape[0] * shape[1] / 2  # half the squared length of a standardised trial
    if loss >= flat:
        warnings.warn(
            f"the denoising autoencoder of feature_loss='dae' explains nothing: its error is "
            f"{loss:.4g}, that of a flat line {flat:g}; raise dae_max_epochs, or give it more "
            "trials",
            stacklevel=2,
        )


def _named(
    progress: Callable[..., Iterator[Any]] | None,
) -> Callable[..., Iterator[Any]] | None:
    """Let the bar say what is being trained."""
    if progress is None:
        return None
    return lambda items, label, total: progress(items, f"denoising autoencoder: {label}", total)
