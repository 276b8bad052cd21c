"""Retrieval of test pictures by MindEye, its prior, tuned ridge regressions and shuffled pairs."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.evaluate import (
    DIRECTIONS,
    compare,
    evaluate_identification,
    evaluate_retrieval,
    matched,
    retrieval_scores,
)
from fmri.images import pick
from fmri.parts import stimuli_of, trials_of
from neuro.metrics.retrieval import compare_rows
from neuro.validation import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from fmri.mindeye import MindEye
    from neuro.report import Block
    from neuro.stage import Context

RIDGES = ("ridge", "ridge_centred")
SHOWN = 8  # test pictures in the gallery of the report

Names = NDArray[np.str_]


def record(
    context: Context, encoder: Any, betas: xr.Dataset, targets: xr.Dataset, images: xr.Dataset,
    settings: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Score retrieval, hand the numbers over to a run and return them as a table."""
    import pandas as pd

    train, test = (stimuli_of(images, part) for part in ("train", "test"))
    found, truth = predictions(encoder, betas, targets, train, test, settings["seed"])
    how = {"n_boot": settings["n_boot"], "random_state": settings["seed"]}
    n = min(settings["n_candidates"], len(test))
    estimates = _estimates(found, truth, n, how)
    for name, estimate in estimates.items():
        estimate.record(context, name)
    for name, estimate in _further(encoder, found, targets, betas, train, test, how).items():
        estimate.record(context, name)
        estimates[name] = estimate
    context.scored(hashlib.sha256("\2".join(sorted(test)).encode()).hexdigest()[:16])
    context.section("Retrieval", *_blocks(found, truth, images, estimates, n, how))
    context.method(
        "Retrieval was scored on pictures that nothing was trained on, beside ridge regressions "
        "whose penalties were tuned on training pictures.",
        "scotti2023",
    )
    return pd.DataFrame(_rows(estimates))


def predictions(
    encoder: MindEye, betas: xr.Dataset, targets: xr.Dataset, train: Names, test: Names, seed: int
) -> tuple[dict[str, xr.DataArray], dict[str, xr.Dataset]]:
    """Predict the target of every test picture, averaged over its repeats.

    Returns
    -------
    found : dict of str to DataArray (trial, token, feature)
        By method. ``ridge_centred``: the training pictures' mean was taken off, as it was off
        its targets; the cosine then sees what differs between pictures alone.
    truth : dict of str to Dataset
        The targets that each method is held against.
    """
    from fmri.baselines import TunedRidge
    from fmri.mindeye import average_repeats

    own, held = trials_of(betas, train), trials_of(betas, test)
    found = {"mindeye": average_repeats(encoder.transform(held))}
    if encoder.prior:
        found["prior"] = average_repeats(encoder.predict_tokens(held, random_state=seed))
    names = own["stimulus"].values.astype(str)
    known = np.asarray(pick(targets, np.unique(names))["signal"].values, dtype=np.float32)
    aimed = known[np.searchsorted(np.unique(names), names)]
    ridge = TunedRidge(random_state=seed).fit(own["signal"].values, aimed, stimulus=names)
    found["ridge"] = average_repeats(ridge.predict_array(held["signal"]))
    mean = known.mean(0)
    found["ridge_centred"] = found["ridge"].copy(data=found["ridge"].values - mean)
    centred = targets.assign(signal=targets["signal"].astype(np.float32) - mean)
    truth = dict.fromkeys(found, targets) | {"ridge_centred": centred}
    return found, truth


def _estimates(
    found: dict[str, xr.DataArray], truth: dict[str, xr.Dataset], n: int, how: dict[str, Any]
) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    plain = {name: part for name, part in found.items() if name != "ridge_centred"}
    for group in (plain, {"ridge_centred": found["ridge_centred"]}):
        aim = truth[next(iter(group))]
        own = evaluate_retrieval(group, aim, n=n, **how)
        pairs = {name: matched(part, aim) for name, part in group.items()}
        for name, (predicted, target, stimulus) in pairs.items():
            own |= evaluate_identification(
                {name: predicted}, target, stimulus=stimulus, similarity="cosine", **how
            )
        estimates |= {k: e for k, e in own.items() if k not in estimates}
    return estimates


def _further(
    encoder: Any, found: dict[str, xr.DataArray], targets: xr.Dataset, betas: xr.Dataset,
    train: Names, test: Names, how: dict[str, Any],
) -> dict[str, Estimate]:  # fmt: skip
    """Give what guards against easy success: hard distractors, and a ceiling by repeats."""
    from fmri.ceilings import repeat_retrieval, same_cluster_retrieval
    from neuro.errors import DataError

    known = np.asarray(pick(targets, train)["signal"].values, dtype=np.float32)
    out = same_cluster_retrieval(found["mindeye"], targets, known, **how)
    held = trials_of(betas, test)
    with contextlib.suppress(DataError):  # where no test picture was seen twice
        out |= repeat_retrieval(held["signal"].values, held["stimulus"].values, **how)
    return out


def _rows(estimates: dict[str, Estimate]) -> list[dict[str, Any]]:
    return [
        {"measure": name, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance,
         "n": e.n}
        for name, e in estimates.items()
    ]  # fmt: skip


def _blocks(
    found: dict[str, xr.DataArray], truth: dict[str, xr.Dataset], images: xr.Dataset,
    estimates: dict[str, Estimate], n: int, how: dict[str, Any],
) -> list[Block]:  # fmt: skip
    from fmri.plots import similarity_figure
    from neuro.report import Figure, Table, Text

    brain, image, names = matched(found["mindeye"], truth["mindeye"])
    intro = (
        f"{len(names)} test pictures; nothing was trained on them. “image”: from the brain to the "
        f"picture; “brain”: from the picture to the brain. Top 1 of all, and the exact expectation "
        f"of the published protocol of {n} drawn candidates. Intervals are over pictures. "
        "ridge_centred: the same ridge with the mean training target taken off both sides."
    )
    kept = pick(truth["mindeye"], stimuli_of(images, "train"))["signal"].values
    return [
        Text(intro),
        Table(_rows(estimates), "Retrieval and identification, with chance and 95 % intervals."),
        Table(_gains(found, truth, how), "Paired differences over pictures, top 1 of all."),
        _gallery(names, compare_rows(brain, image), images),
        Figure(
            similarity_figure(image, np.asarray(kept, dtype=np.float32)),
            "How like the test pictures' targets are to the training ones: where most have a near "
            "twin, knowing the kind of picture passes for reading the picture.",
        ),
    ]


def _gains(
    found: dict[str, xr.DataArray], truth: dict[str, xr.Dataset], how: dict[str, Any]
) -> list[dict[str, Any]]:
    scores = {}
    for name, part in found.items():
        brain, image, _ = matched(part, truth[name])
        scores[name] = retrieval_scores(compare_rows(brain, image))
    rows = []
    for name in (n for n in ("mindeye", "prior") if n in scores):
        for reference in RIDGES:
            for direction in DIRECTIONS:
                gain = compare(scores[name][direction], scores[reference][direction], **how)
                rows.append(
                    {"difference": f"{name} - {reference}", "direction": direction,
                     "value": gain.value, "low": gain.low, "high": gain.high, "p": gain.p}
                )  # fmt: skip
    return rows


def _gallery(names: Names, scores: NDArray[Any], images: xr.Dataset) -> Block:
    from fmri.plots import retrieval_figure
    from neuro.report import Figure

    pixels = pick(images, names)["signal"].values
    some = np.linspace(0, len(names) - 1, min(SHOWN, len(names))).astype(int)
    best = np.argsort(-scores[some], axis=1, kind="stable")[:, :5]
    figure = retrieval_figure(pixels[some], pixels[best], best == some[:, None])
    return Figure(figure, "Seen pictures and the five that are nearest; framed: the right one.")
