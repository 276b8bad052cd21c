"""What pretraining is worth where few trials are labelled, as a run reports it.

The same network learns the same few trials twice: from scratch and from weights pretrained
without labels. Both have the parameters of one encoder, and the same items of the few trials
choose the epoch of both. Nothing of a test run enters either. Beside them stand linear models of
the same few trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.brain_series import blocks_in
from fmri.trial_columns import column_of, embedding_rows, item_of, mean_blocks
from neuro.errors import DataError
from neuro.validation import Estimate, paired_difference, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from neuro.stage import Context

__all__ = ["draw_few", "record", "score_few"]

METHODS = ("pretrained", "scratch", "linear")


def record(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any], encoder: Any, pretrained: Any
) -> pd.DataFrame:
    """Train on few labels with and without pretraining, hand over, return scores by trial."""
    from neuro.report import Figure, Table, Text

    if settings["optional"] and "part" not in data.coords:
        context.section("Few labels", Text("The data bring no split, so this was not measured."))
        return pd.DataFrame({"item": []})
    blocks = blocks_in(data, ("perception",)) if "kind" in data.coords else data.load()
    table = score_few(blocks, encoder, pretrained, settings, context.progress)
    how = {"units": table["item"].to_numpy(), "n_unit": "item", "n_boot": settings["n_boot"],
           "random_state": settings["seed"]}  # fmt: skip
    chance = 1 / len(np.unique(column_of(blocks, "category")))
    found = {
        f"few_labels.{name}.accuracy": summarise(table[name].to_numpy(), chance=chance, **how)
        for name in METHODS
    }
    gain = paired_difference(table["pretrained"].to_numpy(), table["scratch"].to_numpy(), **how)
    found["pretrain.gain"] = gain
    for other, name in (("scratch", "pretrain.gain_identified"), ("linear", None)):
        left, right = ("pretrained_identified", f"{other}_identified") if name else (
            "pretrained", other)  # fmt: skip
        key = name or f"pretrain.over_{other}"
        found[key] = paired_difference(table[left].to_numpy(), table[right].to_numpy(), **how)
    for name, one in found.items():
        one.record(context, name)
    n = int(table["n_labelled"].iloc[0])
    context.section(
        "Few labels",
        Text(
            f"With {n} labelled trials (a share of {settings['share']:g}) the category is named in "
            f"{found['few_labels.pretrained.accuracy'].value:.3f} of test trials from pretrained "
            f"weights, in {found['few_labels.scratch.accuracy'].value:.3f} from scratch and in "
            f"{found['few_labels.linear.accuracy'].value:.3f} by a linear model (chance "
            f"{chance:.3f}). " + _verdict(gain)
        ),
        Table(_rows(found), f"{settings['n_draws']} draws of the labelled trials; 95 % intervals "
              "over test items."),
        Figure(_figure(found, chance), "Accuracy of the category with intervals; dashed: chance."),
    )  # fmt: skip
    context.scored(f"few-labels-{len(table)}")
    context.method(
        "The gain of pretraining was measured with few labelled trials, beside the same network "
        "from scratch on the same trials."
    )
    return table


def score_few(
    blocks: xr.Dataset, encoder: Any, pretrained: Any, settings: Mapping[str, Any],
    progress: Any = None,
) -> pd.DataFrame:  # fmt: skip
    """Train on draws of few labelled trials and score the test part.

    Returns
    -------
    DataFrame
        A row for each test trial: ``item``; by method the share of draws with the right category,
        and the share of other items that the own embedding beats (``_identified``).
    """
    from sklearn.base import clone

    test = blocks.isel(trial=np.flatnonzero(_part(blocks) == "test"))
    names = column_of(test, item_of(test))
    total: dict[str, Any] = {}
    jobs = range(settings["n_draws"])
    n_labelled = 0
    for draw in jobs if progress is None else progress(jobs, "draws", len(jobs)):
        few = draw_few(blocks, settings["share"], [settings["seed"], draw])
        n_labelled = few.sizes["trial"]
        answers = {"linear": _linear(few, test, settings["seed"])}
        for method, start in (("scratch", None), ("pretrained", pretrained)):
            model = clone(encoder).set_params(random_state=settings["seed"] + draw)
            if "text" not in encoder.networks_.brain.heads:
                few = few.drop_vars("text_target", errors="ignore")
            model.fit(few, pretrained=start)
            answers[method] = (np.asarray(model.predict_category(test)), np.asarray(
                model.predict(test)))  # fmt: skip
        for method, (named, embedding) in answers.items():
            for key, values in _scores(test, names, named, embedding, method).items():
                total[key] = total.get(key, 0.0) + values / len(jobs)
    return pd.DataFrame({"item": names, **total, "n_labelled": n_labelled})


def draw_few(blocks: xr.Dataset, share: float, seed: Any) -> xr.Dataset:
    """Keep a share of the training trials, as many of each category as can be.

    Raises
    ------
    DataError
        Where the data bring no split, or fewer than eight trials are left.
    """
    rng = np.random.default_rng(seed)
    category = column_of(blocks, "category")
    rows = np.flatnonzero(_part(blocks) == "train")
    known = np.unique(category[rows])
    n = max(1, round(share * len(rows) / len(known)))
    kept = np.concatenate([
        rng.permutation(rows[category[rows] == one])[:n] for one in known
    ])  # fmt: skip
    if len(kept) < 8:
        raise DataError(
            f"a share of {share:g} of {len(rows)} training trials is {len(kept)}; training needs 8"
        )
    return blocks.isel(trial=np.sort(kept))


# Inside ---------------------------------------------------------------------------------------


def _part(blocks: xr.Dataset) -> NDArray[np.str_]:
    if "part" not in blocks.coords:
        raise DataError("the data don't say by 'part' what is for training; give test_runs")
    return column_of(blocks, "part")


def _linear(few: xr.Dataset, test: xr.Dataset, seed: int) -> tuple[Any, Any]:
    from fmri.baselines import TunedRidge
    from fmri.network_scores import logistic

    X, new = (mean_blocks(one)[:, :, 0] for one in (few, test))
    names = column_of(few, item_of(few))
    model, _ = logistic(X, column_of(few, "category"), names)
    ridge = TunedRidge(n_splits=3, per_target=False)
    ridge.fit(X, embedding_rows(few, names), stimulus=names)
    return model.predict(new), np.asarray(ridge.predict(new))


def _scores(
    test: xr.Dataset, names: NDArray[np.str_], named: Any, embedding: Any, method: str
) -> dict[str, NDArray[np.float64]]:
    from fmri.network_scores import identified

    hits = (np.asarray(named).astype(str) == column_of(test, "category")).astype(float)
    share = identified(embedding, embedding_rows(test, names), names)
    return {method: hits, f"{method}_identified": share}


def _verdict(gain: Estimate) -> str:
    if gain.low is not None and gain.low > 0:
        return f"Pretraining gains {gain.value:.3f}, and the interval excludes 0."
    if gain.high is not None and gain.high < 0:
        return f"Pretraining costs {-(gain.value or 0):.3f}, and the interval excludes 0."
    return "That pretraining gains anything is not shown here."


def _rows(found: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    return [
        {"what": name, "value": e.value, "low": e.low, "high": e.high, "p": e.p, "n": e.n}
        for name, e in found.items()
    ]


def _figure(found: Mapping[str, Estimate], chance: float) -> MatplotlibFigure:
    from neuro.draw import COLOURS, GREY, new_figure, tidy

    figure = new_figure(5.0, 2.0)
    axes = tidy(figure.subplots(), "accuracy")
    for place, name in enumerate(METHODS):
        one = found[f"few_labels.{name}.accuracy"]
        axes.barh(place, one.value or 0, height=0.5, color=COLOURS[place])
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color="black", lw=1.5)
    axes.axvline(chance, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(METHODS)), METHODS)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    return figure
