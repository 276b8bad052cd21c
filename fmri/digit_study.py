"""Pictures from a brain: the pairs of van Gerven et al. (2010), predicted by MindEye."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.digits import CrossValidated, Predictor, cross_validate, evaluate_pictures
from fmri.read_digits import digit_pairs

if TYPE_CHECKING:
    import pandas as pd

    from neuro.stage import Context

Floats = NDArray[np.float32]


def mindeye_predictor(
    voxels: Floats, pictures: Floats, *, n_components: int, random_state: int, **params: Any
) -> Predictor:
    """Return a method for `fmri.digits.cross_validate`: MindEye to components of the pictures.

    Components, network and the stimuli that choose its checkpoint are of the training rows alone.
    """
    from fmri.images import images_dataset
    from fmri.mindeye import MindEye
    from fmri.providers import PixelPCA
    from fmri.targets import compute_targets

    names = np.array([f"picture-{row:03d}" for row in range(len(pictures))])
    images = images_dataset(pictures[:, None], names)
    betas = xr.DataArray(voxels, dims=("trial", "voxel"), coords={"stimulus": ("trial", names)})

    def predict(train: NDArray[np.intp], test: NDArray[np.intp]) -> Floats:
        components = PixelPCA(n_components).fit(images, train_stimuli=names[train])
        known = compute_targets(images.isel(trial=train), components, dtype="float32")
        model = MindEye(random_state=random_state, prior=False, **params)
        model.fit(betas[train], known)
        tokens = model.predict_tokens(betas[test], prior=False)
        return np.asarray(components.decode(tokens.values), dtype=np.float32)[:, 0]

    return predict


def record(context: Context, path: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Cross-validate, hand the numbers over to a run and return them as a table."""
    import pandas as pd

    from fmri.plots import grid_figure
    from neuro.report import Figure, Table, Text

    voxels, pictures, classes = digit_pairs(path)
    seed, params = settings["seed"], {"max_epochs": settings["max_epochs"], "device": "cpu"}
    method = mindeye_predictor(
        voxels, pictures, n_components=settings["n_components"], random_state=seed, **params
    )
    found = cross_validate(
        voxels, pictures, classes, methods={"mindeye": method}, n_splits=settings["n_splits"],
        random_state=seed, progress=context.progress,
    )  # fmt: skip
    estimates = evaluate_pictures(
        found, pictures, classes, reconstruction="mindeye", n_boot=settings["n_boot"],
        random_state=seed,
    )  # fmt: skip
    for name, estimate in estimates.items():
        estimate.record(context, name)
    context.scored(f"digits69-{settings['n_splits']}-{seed}")
    rows = [
        {"measure": k, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance}
        for k, e in estimates.items()
    ]
    intro = (
        f"{len(pictures)} pictures; each was predicted by models that never saw it. Most of the "
        "identification is the class; the figures within sixes and within nines are those to read."
    )
    context.section(
        "Pictures from a brain", Text(intro), _grid(found, pictures, grid_figure, Figure),
        Table(rows, "Identification (chance 0.5) with 95 % intervals over pictures."),
    )  # fmt: skip
    context.method(
        f"Pictures were predicted in {settings['n_splits']} folds by MindEye to "
        f"{settings['n_components']} principal components of the training pictures, beside a "
        "ridge regression to pixels whose penalty was tuned inside the training folds.",
        "scotti2023",
    )
    return pd.DataFrame(rows)


def _grid(found: CrossValidated, pictures: Floats, draw: Any, figure: Any) -> Any:
    some = np.linspace(0, len(pictures) - 1, 12).astype(int)
    rows = {"seen": pictures, **{n: found.pictures[n] for n in ("mindeye", "ridge", "nearest")}}
    drawn = draw([values[some][:, None] for values in rows.values()], list(rows))
    return figure(
        drawn,
        "Seen pictures, what MindEye and the ridge make of the brain, and the training picture "
        "nearest to the ridge's: a reconstruction must beat it.",
    )
