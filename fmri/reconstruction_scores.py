"""Reconstructed pictures of a study: made, scored beside their baselines, and shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.digits import read_class
from fmri.evaluate import evaluate_identification
from fmri.image_metrics import (
    ReconstructionScores,
    evaluate_reconstruction,
    pixel_correlation,
    ssim,
)
from fmri.images import pick
from fmri.parts import stimuli_of
from fmri.plots import reconstruction_figure, similarity_figure
from fmri.study_pictures import Brain, alike, baselines, brain_of, made_by, study_trials
from neuro.report import Figure, Table, Text
from neuro.validation import Estimate, summarise

if TYPE_CHECKING:
    from fmri.mindeye import MindEye
    from fmri.whole_brain import WholeBrain
    from neuro.stage import Context

Floats = NDArray[np.float32]

_WITHIN = ("reconstruction", "reconstruction_nearest")  # identified within classes too

CAVEAT = (
    "Read with care. A generator makes a plausible picture of anything, of noise too: that a "
    "reconstruction looks good says little, that it is like the seen picture and not like others "
    "says more. Where test pictures have near twins in training (see the histogram), putting out "
    "the nearest training picture passes for reconstructing: a reconstruction must beat it, and "
    "identification within a class says more than over all pictures (Shirakawa et al. 2024)."
)


def record(
    context: Context,
    encoder: MindEye | WholeBrain,
    betas: xr.Dataset,
    targets: xr.Dataset,
    images: xr.Dataset,
    settings: Mapping[str, Any],
    sources: Mapping[str, Any],
) -> xr.Dataset:
    """Make the pictures, hand numbers and figures over to a run and return the pictures.

    Returns
    -------
    Dataset
        Of the first generator, see `fmri.reconstruct.reconstruct`; the coordinate ``nearest``
        names each trial's nearest training picture.
    """
    trials, betas = study_trials(encoder, betas, stimuli_of(images, "test"))
    brain = brain_of(encoder, trials, targets, images, settings, sources["autoencoder"])
    kinds = list(dict.fromkeys(settings["by"]))
    made = {kind: made_by(kind, brain, settings, sources, context) for kind in kinds}
    main = made[kinds[0]]
    beside, nearest = baselines(main, kinds[0], brain, betas, targets, settings, sources, context)
    others = {kind: made[kind]["signal"].values for kind in kinds[1:]} | beside
    scores = _evaluate(main["signal"].values, brain, settings)
    estimates = {**scores.estimates, **_further(main, others, brain, settings)}
    for name, estimate in estimates.items():
        estimate.record(context, name)
    test = sorted(brain.held["stimulus"].values.astype(str))
    context.scored(hashlib.sha256("\2".join(test).encode()).hexdigest()[:16])
    _report(context, kinds, main, others, brain, targets, scores, estimates)
    return main.assign_coords(nearest=("trial", nearest))


def _evaluate(pictures: Floats, brain: Brain, settings: Mapping[str, Any]) -> ReconstructionScores:
    weights = {k: v for k, v in settings["weights"].items() if v is not None}
    return evaluate_reconstruction(
        pictures, brain.seen, weights=weights, stimulus=brain.tokens["stimulus"].values,
        n_boot=settings["n_boot"], random_state=settings["seed"], device=settings["device"],
    )  # fmt: skip


def _further(
    main: xr.Dataset, others: Mapping[str, Floats], brain: Brain, settings: Mapping[str, Any]
) -> dict[str, Estimate]:
    """Score what stands beside the reconstructions; identify them; read their class."""
    units = brain.tokens["stimulus"].values.astype(str)
    how: dict[str, Any] = {"n_boot": settings["n_boot"], "random_state": settings["seed"]}
    out = {}
    for name, pictures in others.items():
        for metric, function in (("pixcorr", pixel_correlation), ("ssim", ssim)):
            values = function(pictures, brain.seen)
            out[f"reconstruct.{name}.{metric}"] = summarise(
                values, units=units, n_unit="image", **how
            )
    named = {"reconstruction": main["signal"].values}
    named |= {f"reconstruction_{name}": pictures for name, pictures in others.items()}
    small = {name: alike(pictures, brain.images) for name, pictures in named.items()}
    classes = _classes(brain, units)
    if len(units) > 1:
        close = {name: small.pop(name) for name in _WITHIN}
        for group, labels in ((close, classes), (small, None)):
            out |= evaluate_identification(group, brain.seen, stimulus=units, classes=labels, **how)
        small = close | small
    return out | _class_read(small, brain, units, classes, how)


def _classes(brain: Brain, units: NDArray[np.str_]) -> NDArray[np.str_] | None:
    """Return the categories of trials, where each has at least two pictures."""
    if "category" not in brain.images.coords:
        return None
    classes = pick(brain.images, units)["category"].values.astype(str)
    counts = np.unique(classes, return_counts=True)[1]
    return classes if counts.min() > 1 and len(counts) > 1 else None


def _class_read(
    small: Mapping[str, Floats],
    brain: Brain,
    units: NDArray[np.str_],
    classes: NDArray[np.str_] | None,
    how: dict[str, Any],
) -> dict[str, Estimate]:
    if classes is None:
        return {}
    training = pick(brain.images, stimuli_of(brain.images, "train"))
    known = training["category"].values.astype(str)
    chance = float(np.unique(classes, return_counts=True)[1].max() / len(classes))
    shown = {**small, "seen": brain.seen}
    read = read_class(training["signal"].values, known, np.concatenate(list(shown.values())))
    out = {}
    for name, found in zip(shown, np.split(read, len(shown)), strict=True):
        ending = name.removeprefix("reconstruction").removeprefix("_")
        key = f"reconstruct.{ending}.class_accuracy" if ending else "reconstruct.class_accuracy"
        out[key] = summarise(found == classes, units=units, n_unit="image", chance=chance, **how)
    return out


# Report ---------------------------------------------------------------------------------------


def _report(
    context: Context,
    kinds: list[str],
    main: xr.Dataset,
    others: Mapping[str, Floats],
    brain: Brain,
    targets: xr.Dataset,
    scores: ReconstructionScores,
    estimates: Mapping[str, Estimate],
) -> None:
    names = {"nearest": "nearest training picture", "ridge": "ridge"}
    columns: dict[str, Any] = {"seen": brain.seen, kinds[0]: main["signal"].values}
    if brain.start is not None:
        columns["low level"] = brain.start.values
    columns |= {names.get(k, k): v for k, v in others.items() if k != "shuffled"}
    n = len(brain.seen)
    some = np.linspace(0, n - 1, min(10, n)).astype(int)
    train = pick(targets, stimuli_of(brain.images, "train"))["signal"].values
    test = pick(targets, brain.held["stimulus"].values)["signal"].values
    context.section(
        "Reconstructions",
        Text(CAVEAT),
        Figure(
            reconstruction_figure({k: v[some] for k, v in columns.items()}),
            f"Seen pictures of the test part, and what was made of the brain: {kinds[0]}"
            f"{' from the low-level picture' if brain.start is not None else ''}, beside the rest.",
        ),
        Table(scores.rows(), f"Reconstructions ({kinds[0]}), 95 % intervals over pictures."),
        Table(_compared(estimates, list(others)), "The same beside the baselines."),
        Figure(
            similarity_figure(np.asarray(test, np.float32), np.asarray(train, np.float32)),
            "How like the test pictures' targets are to the training ones.",
        ),
    )
    context.method(
        f"Pictures were made of the test part by {' and '.join(kinds)}, of outputs averaged over "
        "repeats, and scored beside the nearest training picture, a decoded ridge regression and "
        "shuffled pairs.",
        "scotti2023",
        "shirakawa2024",
    )


def _compared(estimates: Mapping[str, Estimate], others: list[str]) -> list[dict[str, Any]]:
    rows = []
    for name in ("", *others, "seen"):
        middle = f".{name}" if name else ""
        under = f"_{name}" if name else ""
        keys = {
            "pixcorr": f"reconstruct{middle}.pixcorr",
            "ssim": f"reconstruct{middle}.ssim",
            "identified (chance 0.5)": f"identify.reconstruction{under}.pairwise",
            "class read": f"reconstruct{middle}.class_accuracy",
        }
        known = {label: _cell(estimates[key]) for label, key in keys.items() if key in estimates}
        if known:
            rows.append({"pictures": name or "reconstruction", **known})
    return rows


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
