"""Pictures from a brain: the pairs of van Gerven et al. (2010), cross-validated and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmri.digit_methods import TokenMethods, stroke_autoencoder
from fmri.digits import CrossValidated, cross_validate, evaluate_pictures
from fmri.read_digits import digit_pairs
from neuro.validation import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from neuro.report import Block
    from neuro.stage import Context

Floats = NDArray[np.float32]
Estimates = Mapping[str, Estimate]

METHODS = {
    "mindeye": "MindEye to tokens",
    "tokens_ridge": "ridge to tokens, same voxels and decoder",
    "selected_ridge": "ridge to pixels, same voxels",
    "ridge": "ridge to pixels, all voxels",
    "nearest": "nearest training picture",
    "shuffled": "ridge on shuffled pairs",
}
"""Methods and what they are, in the order of the tables."""

_SHOWN = ("mindeye", "tokens_ridge", "ridge", "nearest")


def record(context: Context, path: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Cross-validate, hand the numbers over to a run and return them as a table."""
    import pandas as pd

    voxels, pictures, classes = digit_pairs(path)
    own = token_methods(voxels, pictures, settings, context.progress)
    seed = settings["seed"]
    found = cross_validate(
        voxels, pictures, classes, methods=own.methods(), n_splits=settings["n_splits"],
        random_state=seed, progress=context.progress,
    )  # fmt: skip
    estimates = evaluate_pictures(
        found, pictures, classes, reconstruction="mindeye", n_boot=settings["n_boot"],
        random_state=seed,
    )  # fmt: skip
    kept = np.array(list(own.n_voxels_.values()))
    estimates["voxels.kept"] = Estimate(float(kept.mean()), n=len(kept), n_unit="fold")
    for name, estimate in estimates.items():
        estimate.record(context, name)
    context.scored(f"digits69-{settings['n_splits']}-{seed}")
    context.section(
        "Pictures from a brain", *picture_blocks(found, pictures, classes),
        *table_blocks(estimates, voxels.shape[1]),
    )  # fmt: skip
    context.method(_method(settings), "scotti2023")
    rows = [
        {"measure": k, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance}
        for k, e in estimates.items()
    ]
    return pd.DataFrame(rows)


def token_methods(
    voxels: Floats,
    pictures: Floats,
    settings: Mapping[str, Any],
    progress: Callable[..., Iterator[Any]] | None = None,
) -> TokenMethods:
    """Train the autoencoder and return the methods that share it.

    Parameters
    ----------
    voxels : ndarray of shape (n, voxel)
    pictures : ndarray of shape (n, row, column)
    settings : mapping
        The parameters of the stage ``fmri-digits``.
    progress : callable, optional
        As `Context.progress`.
    """
    seed = settings["seed"]
    autoencoder = stroke_autoencoder(
        pictures.shape[1],
        settings["digits"],
        n_features=settings["n_features"],
        beta=settings["beta"],
        max_epochs=settings["autoencoder_max_epochs"],
        device="cpu",
        random_state=seed,
        progress=progress,
    )
    return TokenMethods(
        voxels, pictures, autoencoder, threshold=settings["threshold"],
        random_state=seed, device="cpu", max_epochs=settings["max_epochs"],
        validation_fraction=settings["validation_fraction"],
    )  # fmt: skip


def picture_blocks(
    found: CrossValidated, pictures: Floats, classes: NDArray[np.str_]
) -> list[Block]:
    """Show seen pictures of each class with what the methods make of the brain.

    Parameters
    ----------
    found : CrossValidated
        With the methods of `TokenMethods`.
    pictures : ndarray of shape (n, row, column)
    classes : ndarray of str, shape (n,)
    """
    from fmri.plots import MOST, grid_figure
    from neuro.report import Figure, Text

    blocks: list[Block] = [
        Text(
            f"{len(pictures)} pictures; each was predicted by models that never saw it. A "
            "reconstruction always looks like a digit, since its decoder knows nothing else: that "
            "it is the right one is what the tables say. Most of the identification is the class, "
            "which a prototype meets too; the figures within a class are those to read."
        )
    ]
    names = ("seen", "MindEye", "tokens ridge", "pixel ridge", "nearest")
    for value in np.unique(classes):
        own = np.flatnonzero(classes == value)
        some = own[np.linspace(0, len(own) - 1, min(MOST, len(own))).astype(int)]
        rows = [pictures, *(found.pictures[name] for name in _SHOWN)]
        drawn = grid_figure([values[some][:, None] for values in rows], names)
        caption = (
            f"Class {value}, every {max(1, len(own) // MOST)}th picture, none chosen: seen, "
            "reconstructed by MindEye, by a ridge to the same tokens, by a ridge to pixels, and "
            "the training picture nearest to the latter, which a reconstruction must beat."
        )
        blocks.append(Figure(drawn, caption))
    return blocks


def table_blocks(estimates: Estimates, n_voxels: int) -> list[Block]:
    """Return the tables: identification, paired differences, likeness of the reconstruction.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        Of `fmri.digits.evaluate_pictures`, and ``voxels.kept``.
    n_voxels : int
        Before the choice.
    """
    from neuro.report import Table

    parts = _parts(estimates)
    identified = [
        {"method": text, **_cells(estimates, f"identify.{name}", parts)}
        for name, text in METHODS.items()
    ]
    others = [name for name in METHODS if f"identify.mindeye.over_{name}.pairwise" in estimates]
    differences = [
        {
            "MindEye minus": METHODS[name],
            **_cells(estimates, f"identify.mindeye.over_{name}", parts),
        }
        for name in others
    ]
    kept = estimates["voxels.kept"].value
    return [
        Table(identified, "Two-way identification by correlation of pixels, with 95 % intervals "
              "over pictures. Chance 0.5."),
        Table(differences, "Paired over pictures. Above 0: MindEye identifies better."),
        Table(_likeness(estimates), "The reconstruction. The class is read by a classifier of "
              "training pictures; chance is the larger class."),
        Table([{"voxels": n_voxels, "kept": f"{kept:.0f}"}], "Voxels that training pictures "
              "predict, mean over folds."),
    ]  # fmt: skip


def _parts(estimates: Estimates) -> list[str]:
    prefix = "identify.mindeye."
    names = [k.removeprefix(prefix) for k in estimates if k.startswith(prefix + "within.")]
    return ["pairwise", *sorted(names)]


def _cells(estimates: Estimates, key: str, parts: list[str]) -> dict[str, str]:
    head = {"pairwise": "all"}
    return {
        head.get(part, part.replace(".", " ")): _interval(estimates[f"{key}.{part}"])
        for part in parts
    }


def _likeness(estimates: Estimates) -> list[dict[str, str]]:
    texts = {"class_accuracy": "class read right", "pixcorr": "PixCorr", "ssim": "SSIM"}
    rows = []
    for name, text in texts.items():
        one = estimates[f"reconstruct.{name}"]
        rows.append(
            {
                "measure": text,
                "MindEye": _interval(one),
                "ridge to pixels": "" if one.baseline is None else f"{one.baseline:.3f}",
                "chance": "" if one.chance is None else f"{one.chance:g}",
            }
        )
    return rows


def _interval(one: Estimate) -> str:
    if one.value is None:
        return "not known"
    ends = "" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{ends}"


def _method(settings: Mapping[str, Any]) -> str:
    return (
        f"Pictures were predicted in {settings['n_splits']} folds. In each, the voxels were kept "
        "whose cross-validated prediction from the training pictures correlated with them by "
        f"{settings['threshold']:g} or more; MindEye was trained "
        "from these to the tokens of a variational autoencoder of scikit-learn's "
        "hand-written digits, which was trained on none of the study's pictures, and its "
        "predictions were decoded by it. Beside it stand ridge regressions to the same tokens and "
        "to pixels whose penalties were tuned inside the training folds."
    )
