"""The start of first layers by ridge regressions: of a new model, and of a new subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fmri.fit_data import FitData, Ints
from fmri.model import Model, Start
from fmri.recipes import recipe_of
from fmri.warm_start import components, ridge

if TYPE_CHECKING:
    from fmri.mindeye import MindEye


def start_layers(
    estimator: MindEye, model: Model, data: FitData, start: Model | None, seed: int
) -> None:
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
    estimator: MindEye, data: FitData, basis: torch.Tensor, offset: torch.Tensor, seed: int
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
    data: FitData, rows: Ints, basis: torch.Tensor, offset: torch.Tensor
) -> NDArray[np.float32]:
    unique, back = np.unique(rows, return_inverse=True)
    flat = data.targets[unique].reshape(len(unique), -1).astype(np.float32)
    own = basis.numpy()
    return ((flat - offset.numpy()) @ own.T / np.square(own).sum(1))[back]


def _layers(model: Model) -> list[torch.nn.Linear]:
    return [layer for layer in model.network.first if isinstance(layer, torch.nn.Linear)]


def code_map(estimator: MindEye, model: Model, data: FitData, seed: int) -> torch.Tensor:
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
