"""Retrieval of test pictures by MindEye, its prior, tuned ridge regressions and shuffled pairs."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.evaluate import DIRECTIONS, compare, evaluate_retrieval, matched, retrieval_scores
from fmri.images import pick
from fmri.parts import stimuli_of, trials_of
from neuro.metrics.retrieval import compare_rows, pairwise
from neuro.validation import Estimate, summarise

if TYPE_CHECKING:
    import pandas as pd

    from fmri.mindeye import MindEye
    from neuro.report import Block
    from neuro.stage import Context

RIDGES = ("ridge", "ridge_centred")
SHOWN = 8  # test pictures in the gallery of the report

Names = NDArray[np.str_]


def record(
    context: Context, encoder: Any, betas: xr.Dataset | list[xr.Dataset], targets: xr.Dataset,
    images: xr.Dataset, settings: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Score retrieval, hand the numbers over to a run and return them as a table."""
    import pandas as pd

    subjects = betas if isinstance(betas, list) else [betas]
    train, test = (stimuli_of(images, part) for part in ("train", "test"))
    found, truth = predictions(encoder, subjects, targets, train, test, settings["seed"])
    how = {"n_boot": settings["n_boot"], "random_state": settings["seed"]}
    n = min(settings["n_candidates"], len(test))
    estimates = _estimates(found, truth, n, how)
    if len(subjects) == 1:
        estimates |= _further(found, targets, subjects[0], train, test, how)
    for name, estimate in estimates.items():
        estimate.record(context, name)
    context.scored(hashlib.sha256("\2".join(sorted(test)).encode()).hexdigest()[:16])
    context.section("Retrieval", *_blocks(found, truth, images, estimates, n, how))
    context.method(
        "Retrieval was scored on pictures that nothing was trained on, beside ridge regressions "
        "whose penalties were tuned on training pictures.",
        "scotti2023",
    )
    return pd.DataFrame(_rows(estimates))


def predictions(
    encoder: MindEye, betas: list[xr.Dataset], targets: xr.Dataset, train: Names, test: Names,
    seed: int,
) -> tuple[dict[str, list[xr.DataArray]], dict[str, xr.Dataset]]:  # fmt: skip
    """Predict the target of every test picture from each subject, averaged over its repeats.

    Returns
    -------
    found : dict of str to list of DataArray (trial, token, feature)
        By method, one for each subject. ``ridge_centred``: the training pictures' mean was taken
        off, as it was off its targets; the cosine then sees what differs between pictures alone.
    truth : dict of str to Dataset
        The targets that each method is held against.
    """
    from fmri.mindeye import average_repeats

    own, held = trials_of(betas, train), trials_of(betas, test)
    found = {"mindeye": [average_repeats(encoder.transform(one)) for one in held]}
    if encoder.prior:
        found["prior"] = [
            average_repeats(encoder.predict_tokens(one, random_state=seed)) for one in held
        ]
    shown = np.unique(np.concatenate([one["stimulus"].values.astype(str) for one in own]))
    known = np.asarray(pick(targets, shown)["signal"].values, dtype=np.float32)
    found["ridge"] = [_ridge(a, b, known, shown, seed) for a, b in zip(own, held, strict=True)]
    mean = known.mean(0)
    found["ridge_centred"] = [one.copy(data=one.values - mean) for one in found["ridge"]]
    centred = targets.assign(signal=targets["signal"].astype(np.float32) - mean)
    truth = dict.fromkeys(found, targets) | {"ridge_centred": centred}
    return found, truth


def _ridge(
    own: xr.Dataset, held: xr.Dataset, known: NDArray[np.float32], shown: Names, seed: int
) -> xr.DataArray:
    from fmri.baselines import TunedRidge
    from fmri.mindeye import average_repeats

    names = own["stimulus"].values.astype(str)
    aimed = known[np.searchsorted(shown, names)]
    ridge = TunedRidge(random_state=seed).fit(own["signal"].values, aimed, stimulus=names)
    return average_repeats(ridge.predict_array(held["signal"]))


def _estimates(
    found: dict[str, list[xr.DataArray]], truth: dict[str, xr.Dataset], n: int, how: dict[str, Any]
) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    plain = {name: parts for name, parts in found.items() if name != "ridge_centred"}
    for group in (plain, {"ridge_centred": found["ridge_centred"]}):
        aim = truth[next(iter(group))]
        own = evaluate_retrieval(group, aim, n=n, **how)
        for name, parts in group.items():
            own[f"identify.{name}.pairwise"] = _identified(parts, aim, how)
        estimates |= {k: e for k, e in own.items() if k not in estimates}
    return estimates


def _identified(parts: list[xr.DataArray], aim: xr.Dataset, how: dict[str, Any]) -> Estimate:
    values, units = [], []
    for part in parts:
        brain, image, names = matched(part, aim)
        values.append(pairwise(compare_rows(brain, image)))
        units.append(names)
    return summarise(
        np.concatenate(values), units=np.concatenate(units), n_unit="image", chance=0.5, **how
    )


def _further(
    found: dict[str, list[xr.DataArray]], targets: xr.Dataset, betas: xr.Dataset,
    train: Names, test: Names, how: dict[str, Any],
) -> dict[str, Estimate]:  # fmt: skip
    """Give what guards against easy success: hard distractors, and a ceiling by repeats."""
    from fmri.ceilings import repeat_retrieval, same_cluster_retrieval
    from neuro.errors import DataError

    known = np.asarray(pick(targets, train)["signal"].values, dtype=np.float32)
    clusters = min(10, len(known) // 2)
    out = same_cluster_retrieval(found["mindeye"][0], targets, known, n_clusters=clusters, **how)
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
    found: dict[str, list[xr.DataArray]], truth: dict[str, xr.Dataset], images: xr.Dataset,
    estimates: dict[str, Estimate], n: int, how: dict[str, Any],
) -> list[Block]:  # fmt: skip
    from fmri.plots import similarity_figure
    from neuro.report import Figure, Table, Text

    brain, image, names = matched(found["mindeye"][0], truth["mindeye"])
    several = len(found["mindeye"]) > 1
    intro = (
        f"{len(names)} test pictures; nothing was trained on them. “image”: from the brain to the "
        f"picture; “brain”: from the picture to the brain. Top 1 of all, and the exact expectation "
        f"of the published protocol of {n} drawn candidates. Intervals are over pictures. "
        "ridge_centred: the same ridge with the mean training target taken off both sides."
    )
    if several:
        intro += " Subjects are scored one by one and averaged; the gallery is of the first."
    kept = pick(truth["mindeye"], stimuli_of(images, "train"))["signal"].values
    blocks: list[Block] = [
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
    if several:
        blocks.insert(2, Table(_by_subject(found, truth), "Top 1 of all, subject by subject."))
    return blocks


def _scores(part: xr.DataArray, aim: xr.Dataset) -> tuple[dict[str, Any], Names]:
    brain, image, names = matched(part, aim)
    return retrieval_scores(compare_rows(brain, image)), names


def _by_subject(
    found: dict[str, list[xr.DataArray]], truth: dict[str, xr.Dataset]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(found["mindeye"]):
        row: dict[str, Any] = {"subject": str(one["subject"].values[0]), "pictures": len(one)}
        for name in found:
            scores, _ = _scores(found[name][number], truth[name])
            row |= {f"{name} {d}": float(np.mean(values)) for d, values in scores.items()}
        rows.append(row)
    return rows


def _gains(
    found: dict[str, list[xr.DataArray]], truth: dict[str, xr.Dataset], how: dict[str, Any]
) -> list[dict[str, Any]]:
    scores: dict[str, dict[str, Any]] = {}
    units: Names = np.array([], dtype=str)
    for name, parts in found.items():
        own = [_scores(part, truth[name]) for part in parts]
        units = np.concatenate([names for _, names in own])
        scores[name] = {d: np.concatenate([values[d] for values, _ in own]) for d in DIRECTIONS}
    rows = []
    for name in (n for n in ("mindeye", "prior") if n in scores):
        for reference in RIDGES:
            for direction in DIRECTIONS:
                gain = compare(
                    scores[name][direction], scores[reference][direction], stimulus=units, **how
                )
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
