"""The built-in generator of a study: trained on its training pictures and their targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from fmri.images import pick
from fmri.parts import stimuli_of, trials_of
from fmri.plots import grid_figure, history_blocks
from neuro.report import Figure

if TYPE_CHECKING:
    from fmri.diffusion_decoder import DiffusionDecoder
    from neuro.stage import Context

_FOLDS = 5
_SHOWN = 12


def study_generator(
    targets: xr.Dataset,
    images: xr.Dataset,
    settings: Mapping[str, Any],
    context: Context,
    betas: xr.Dataset | None = None,
) -> DiffusionDecoder:
    """Train a diffusion decoder on the training pictures; the test pictures are refused by hash.

    Parameters
    ----------
    targets, images : Dataset
        Of the study.
    settings : mapping
        Of `fmri.picture_stages.GeneratorParams`.
    context : Context
    betas : Dataset, optional
        With them the generator learns from cross-validated predictions of the training pictures
        how reliable each component of the targets is.

    Returns
    -------
    DiffusionDecoder
    """
    from fmri.diffusion_decoder import DiffusionDecoder

    own = dict(settings)
    model = DiffusionDecoder(random_state=own.pop("seed"), **own)
    train = stimuli_of(images, "train")
    predicted = (
        None if betas is None else cross_predicted(betas, targets, train, model.random_state)
    )
    model.fit(
        targets, images, train_stimuli=train, predicted=predicted,
        scratch=Path(context.scratch) / "generator", progress=context.progress,
    )  # fmt: skip
    held = pick(images, stimuli_of(images, "test"))
    model.refuse_seen(held)
    some = held["stimulus"].values[:_SHOWN]
    made = model.transform(pick(targets, some)["signal"].astype(np.float32))
    rows = [pick(images, some)["signal"].values, made.values]
    caption = (
        "Pictures of the test part, and what the generator makes of their true targets; from a "
        "brain it can only be worse."
    )
    if model.random_weights:
        context.mark("Random weights: the generator was never trained; its pictures mean nothing.")
    context.section(
        "Generator",
        *history_blocks(model.history_, "the generator"),
        Figure(grid_figure(rows, ["picture", "from its target"]), caption),
    )
    context.method(
        f"A diffusion decoder was trained on the {len(train)} training pictures; none of the test "
        "pictures was among them, by hash."
    )
    return model


def cross_predicted(
    betas: xr.Dataset, targets: xr.Dataset, train: Any, random_state: int
) -> xr.Dataset:
    """Predict the targets of training pictures by ridge regressions that had not seen them.

    Returns
    -------
    Dataset
        ``signal (trial, token, feature)`` keyed by ``stimulus``, one for each picture.
    """
    from fmri.baselines import TunedRidge
    from fmri.mindeye import average_repeats
    from neuro.validation import grouped_folds

    data = trials_of(betas, train)
    names = data["stimulus"].values.astype(str)
    aimed = pick(targets, names, what="the targets")["signal"].values.astype(np.float32)
    values = data["signal"].values
    found = np.empty_like(aimed)
    for own, held in grouped_folds(names, n_splits=_FOLDS, random_state=random_state):
        ridge = TunedRidge(per_target=False).fit(values[own], aimed[own], stimulus=names[own])
        found[held] = ridge.predict(values[held])
    array = xr.DataArray(
        found, dims=("trial", "token", "feature"), coords={"stimulus": ("trial", names)}
    )
    return average_repeats(array, by=["stimulus"]).to_dataset(name="signal")
