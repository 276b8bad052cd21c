"""Scores of a whole-brain encoder beside linear models and shuffled labels, as a run reports them.

Where the data say what is for training (``part``), the encoder at hand is scored. Where they don't,
one run after another is left out: an encoder with the same parameters is trained on the others,
from weights that were pretrained without that run, so that no number is of trials that its encoder
saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.brain_series import WINDOWS, blocks_in
from fmri.trial_columns import column_of, embedding_rows, folds_of, item_of, mean_blocks
from neuro.errors import DataError, InputError
from neuro.metrics.retrieval import compare_rows, count_ahead, exact_top_k, n_way_top_k, pairwise
from neuro.validation import Estimate, paired_difference, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from neuro.stage import Context

__all__ = ["Decoded", "decode_folds", "record", "refit"]

Floats = NDArray[np.float32]
TITLES = {"encoder": "encoder", "linear": "linear model", "shuffled": "shuffled labels"}


@dataclass(frozen=True)
class Decoded:
    """What was decoded of each trial that was tested.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        The trials.
    category : dict of str to ndarray of float, shape (n,)
        By method: 1 where the category is right (a share, for shuffles).
    named : ndarray of str, shape (n,)
        The category that the encoder gave; empty without categories.
    embedding : dict of str to ndarray of shape (n, feature)
        By method; ``text`` is the encoder's embedding of the text.
    """

    rows: NDArray[np.intp]
    category: dict[str, NDArray[np.float64]]
    named: NDArray[np.str_]
    embedding: dict[str, Floats]


def record(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any], encoder: Any,
    pretrained: Any = None,
) -> pd.DataFrame:  # fmt: skip
    """Score, hand over, and return the table."""
    from neuro.report import Figure, Table, Text

    blocks = blocks_in(data, ("perception",)) if "kind" in data.coords else data.load()
    units, n_unit = _units(blocks, settings)
    found = decode_folds(context, data, blocks, settings, encoder, pretrained)
    how = {"units": units[found.rows], "n_unit": n_unit, "n_boot": settings["n_boot"],
           "random_state": settings["seed"]}  # fmt: skip
    category = _category_estimates(blocks, found, how)
    retrieval = _retrieval_estimates(blocks, found, settings)
    for name, one in {**category, **retrieval}.items():
        one.record(context, name)
    split = "part" in blocks.coords
    tested = (
        "trials of test items, which nothing was trained on" if split else
        f"{settings['groups']}s, each decoded by models that never saw it"
    )  # fmt: skip
    rows = _rows({**category, **retrieval})
    context.section(
        "Decoding",
        Text(_in_words(category, retrieval, encoder.encoder) + f" Scored on {tested}."),
        Table(rows, f"95 % intervals over {n_unit}s; retrieval over items, repeats averaged."),
        Figure(_figure(category), "Accuracy of the category with intervals; dashed: chance."),
        *_confusion(blocks, found),
    )
    context.predictions(_predictions(blocks, found, units))
    context.scored(f"brain-{len(blocks['trial'])}-{len(found.rows)}")
    context.method(
        "Categories and embeddings were decoded beside a logistic and a ridge regression on mean "
        "volumes, tuned inside the training trials, and regressions on shuffled labels.",
        "wang2024wave",
    )
    return pd.DataFrame(rows)


def decode_folds(
    context: Context, data: xr.Dataset, blocks: xr.Dataset, settings: Mapping[str, Any],
    encoder: Any, pretrained: Any = None,
) -> Decoded:  # fmt: skip
    """Decode the test part by the encoder at hand, or every run by one that didn't see it."""
    groups = column_of(blocks, settings["groups"])
    folds = folds_of(blocks, groups)
    split = "part" in blocks.coords
    parts = []
    for train, test in folds if split else context.progress(folds, "runs", len(folds)):
        model = encoder
        if not split:
            model = refit(encoder, pretrained, data, blocks, train, groups[test])
        parts.append(_decode(model, blocks, train, test, settings))
    joined: dict[str, dict[str, Any]] = {"category": {}, "embedding": {}}
    for kind, one in joined.items():
        for name in getattr(parts[0], kind):
            one[name] = np.concatenate([getattr(part, kind)[name] for part in parts])
    return Decoded(np.concatenate([p.rows for p in parts]), joined["category"],
                   np.concatenate([p.named for p in parts]), joined["embedding"])  # fmt: skip


def refit(
    encoder: Any, pretrained: Any, data: xr.Dataset, blocks: xr.Dataset, train: NDArray[np.intp],
    left_out: NDArray[np.str_],
) -> Any:  # fmt: skip
    """Train an encoder with the same parameters on some trials.

    Parameters
    ----------
    encoder, pretrained : WholeBrain, PretrainedBrain or None
        Whose parameters are taken, not the weights.
    data : Dataset
        With windows to pretrain on.
    blocks : Dataset
    train : ndarray of int
        Trials of `blocks`.
    left_out : ndarray of str
        Runs whose windows are left out of pretraining.
    """
    from sklearn.base import clone

    start = None
    if pretrained is not None:
        windows = blocks_in(data, WINDOWS)
        kept = ~np.isin(column_of(windows, "run"), np.unique(left_out))
        start = clone(pretrained).fit(windows.isel(trial=np.flatnonzero(kept)))
    part = blocks.isel(trial=train)
    if "text" not in encoder.networks_.brain.heads and "text_target" in part:
        part = part.drop_vars("text_target")
    return clone(encoder).fit(part.drop_vars("part", errors="ignore"), pretrained=start)


# Inside ---------------------------------------------------------------------------------------


def _units(blocks: xr.Dataset, settings: Mapping[str, Any]) -> tuple[NDArray[np.str_], str]:
    split = "part" in blocks.coords
    name = settings["units"] or ("item" if split else settings["groups"])
    return column_of(blocks, item_of(blocks) if name == "item" else name), name


def _decode(
    model: Any, blocks: xr.Dataset, train: NDArray[np.intp], test: NDArray[np.intp],
    settings: Mapping[str, Any],
) -> Decoded:  # fmt: skip
    from fmri.baselines import TunedRidge

    X = mean_blocks(blocks)[:, :, 0]
    new = blocks.isel(trial=test)
    names = column_of(blocks, item_of(blocks))
    target = embedding_rows(blocks, names)
    ridges = {}
    for name, shuffle in (("linear", False), ("shuffled", True)):
        ridge = TunedRidge(n_splits=3, per_target=False, shuffle=shuffle,
                           random_state=settings["seed"])  # fmt: skip
        try:
            ridge.fit(X[train], target[train], stimulus=names[train])
            ridges[name] = np.asarray(ridge.predict(X[test]), np.float32)
        except InputError:  # too few items to deal them out anew
            continue
    embedding = {"encoder": np.asarray(model.predict(new), np.float32), **ridges}
    if "text_target" in blocks and "text" in model.networks_.brain.heads:
        embedding["text"] = np.asarray(model.predict_text(new), np.float32)
    if not model.categories_ or "category" not in blocks.coords:
        return Decoded(test, {}, np.full(len(test), ""), embedding)
    category = column_of(blocks, "category")
    named = np.asarray(model.predict_category(new)).astype(str)
    hits = {"encoder": (named == category[test]).astype(float)}
    groups = column_of(blocks, settings["groups"])
    hits |= _linear_hits(X, category, groups, train, test, settings)
    return Decoded(test, hits, named, embedding)


def _linear_hits(
    X: Floats, category: NDArray[np.str_], groups: NDArray[np.str_], train: NDArray[np.intp],
    test: NDArray[np.intp], settings: Mapping[str, Any],
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """Logistic regression, and the same on labels shuffled inside each run."""
    from fmri.network_scores import logistic
    from neuro.validation import permute_labels

    known, code = np.unique(category, return_inverse=True)
    model, C = logistic(X[train], category[train], groups[train], settings["C"])
    right = (model.predict(X[test]) == category[test]).astype(float)
    rng_labels = permute_labels(code[train], groups[train], settings["n_shuffles"], within=True,
                                random_state=settings["seed"])  # fmt: skip
    shuffled = np.zeros(len(test))
    for one in rng_labels:
        other, _ = logistic(X[train], known[one], groups[train], C)
        shuffled += (other.predict(X[test]) == category[test]) / len(rng_labels)
    return {"linear": right, "shuffled": shuffled}


def _category_estimates(
    blocks: xr.Dataset, found: Decoded, how: dict[str, Any]
) -> dict[str, Estimate]:
    if not found.category:
        return {}
    chance = 1 / len(np.unique(column_of(blocks, "category")))
    out = {
        f"category.{name}.accuracy": summarise(hits, chance=chance, **how)
        for name, hits in found.category.items()
    }
    for other in ("linear", "shuffled"):
        out[f"category.encoder.over_{other}"] = paired_difference(
            found.category["encoder"], found.category[other], **how
        )
    return out


def _retrieval_estimates(
    blocks: xr.Dataset, found: Decoded, settings: Mapping[str, Any]
) -> dict[str, Estimate]:
    """Retrieval of test items, repeats averaged, in closed form; n-way classification."""
    names = column_of(blocks, item_of(blocks))[found.rows]
    items, code = np.unique(names, return_inverse=True)
    if len(items) < 2:
        raise DataError("all trials that are tested are of one item; retrieval needs two")
    how: dict[str, Any] = {"n_unit": "item", "n_boot": settings["n_boot"],
                           "random_state": settings["seed"]}  # fmt: skip
    n = min(settings["n_candidates"], len(items))
    out = {}
    for method, answer in found.embedding.items():
        mean = np.stack([answer[code == k].mean(0) for k in range(len(items))])
        truth = embedding_rows(blocks, items, "text_target" if method == "text" else "target")
        scores = compare_rows(mean, truth)
        for direction, square in (("image", scores), ("brain", scores.T)):
            top = exact_top_k(*count_ahead(square), n_candidates=len(items), n=n)
            out[f"retrieval.{method}.{direction}.top1"] = summarise(top, chance=1 / n, **how)
        out[f"retrieval.{method}.pairwise"] = summarise(pairwise(scores), chance=0.5, **how)
    return out | _n_way(blocks, found, items, code, settings, how)


def _n_way(
    blocks: xr.Dataset, found: Decoded, items: NDArray[np.str_], code: NDArray[np.intp],
    settings: Mapping[str, Any], how: dict[str, Any],
) -> dict[str, Estimate]:  # fmt: skip
    """Classify by the mean embedding of the training items of each category."""
    if not found.category:
        return {}
    category = column_of(blocks, "category")
    known = np.unique(category)
    n = min(settings["n_way"], len(known))
    names = column_of(blocks, item_of(blocks))
    train = ~np.isin(names, items) if "part" in blocks.coords else np.ones(len(names), bool)
    target = embedding_rows(blocks, names)
    means = np.stack([target[train & (category == one)].mean(0) for one in known])
    place = {name: row for row, name in enumerate(known.tolist())}
    right = np.array([place[c] for c in category[found.rows].tolist()])
    out = {}
    for method in ("encoder", "linear", "shuffled"):
        if method in found.embedding:
            scores = compare_rows(found.embedding[method], means)
            hits = n_way_top_k(scores, right, n=n)
            out[f"category.{method}.{n}_way"] = summarise(hits, units=code, chance=1 / n, **how)
    return out


def _in_words(category: dict[str, Estimate], retrieval: dict[str, Estimate], encoder: str) -> str:
    text = ""
    if category:
        own, linear = (category[f"category.{k}.accuracy"] for k in ("encoder", "linear"))
        gain = category["category.encoder.over_linear"]
        text = (
            f"The encoder ({encoder}) names the category in {own.value:.3f} of trials "
            f"(chance {own.chance:.3f}), the linear model in {linear.value:.3f}. "
        )
        if not own.above(own.chance or 0):
            text += "That the encoder decodes anything is not shown. "
        if gain.low is not None and gain.low > 0:
            text += "It is better than the linear model. "
        elif gain.high is not None and gain.high < 0:
            text += "The linear model is better. "
        else:
            text += "Which of the two is better is not shown here. "
    pair = retrieval["retrieval.encoder.pairwise"]
    text += f"Of two items the right one is found in {pair.value:.3f} (chance 0.5)."
    return text


def _rows(estimates: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    return [
        {"what": name, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance,
         "baseline": e.baseline, "p": e.p, "n": e.n, "unit": e.n_unit}
        for name, e in estimates.items()
    ]  # fmt: skip


def _figure(category: dict[str, Estimate]) -> MatplotlibFigure:
    from neuro.draw import COLOURS, GREY, new_figure, tidy

    rows = [(t, category.get(f"category.{k}.accuracy")) for k, t in TITLES.items()]
    figure = new_figure(5.5, 2.0)
    axes = tidy(figure.subplots(), "accuracy")
    for place, (_, one) in enumerate(rows):
        if one is None or one.value is None:
            continue
        axes.barh(place, one.value, height=0.5, color=COLOURS[0])
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color="black", lw=1.5)
        axes.axvline(one.chance or 0, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    return figure


def _confusion(blocks: xr.Dataset, found: Decoded) -> list[Any]:
    from fmri.category_study import confusion_figure
    from neuro.report import Figure

    if not found.category:
        return []
    truth = column_of(blocks, "category")[found.rows]
    shares = pd.crosstab(
        pd.Series(truth, name="seen"), pd.Series(found.named, name="decoded"), normalize="index"
    ).reindex(columns=np.unique(truth), fill_value=0.0)
    return [Figure(confusion_figure(shares, "encoder"), "What was decoded; rows sum to one.")]


def _predictions(blocks: xr.Dataset, found: Decoded, units: NDArray[np.str_]) -> pd.DataFrame:
    names = column_of(blocks, item_of(blocks))[found.rows]
    truth = column_of(blocks, "category")[found.rows] if found.category else names
    return pd.concat([
        pd.DataFrame({"item": names, "unit": units[found.rows], "fold": "test", "target": method,
                      "truth": truth, "score": hits})
        for method, hits in found.category.items()
    ]) if found.category else pd.DataFrame(
        {"item": names, "unit": units[found.rows], "fold": "test", "target": "encoder",
         "truth": truth, "score": np.nan}
    )  # fmt: skip
