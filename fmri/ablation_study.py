"""Ablation of networks, imagery and zero-shot categories as a run reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri import ablation_plots
from fmri.network_ablation import Ablation, Trainer, ablate, compare_sets, network_groups
from fmri.network_ablation import truth_correlation as spearman
from fmri.network_scores import category_trainer, features, fitted_trainer, target_trainer
from neuro.errors import DataError, InputError
from neuro.validation import Estimate, Fold, grouped_folds

if TYPE_CHECKING:
    from neuro.stage import Context

__all__ = ["embeddings", "record_ablation", "record_imagery", "record_zero_shot"]

HOW = {
    "zero": "0 at test", "mean": "the training mean at test", "retrain": "0 in training and test"
}  # fmt: skip


def record_ablation(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any], encoder: Any = None
) -> pd.DataFrame:
    """Ablate every network, compare with the visual one, hand over, return the table.

    Parameters
    ----------
    context : Context
    data : Dataset
        ``signal (trial, parcel, time)``, ``network (parcel)`` or sets of parcels ``in_<name>``.
    settings : mapping
        Of `fmri.ablation_stages.AblateParams`.
    encoder : object, optional
        A fitted encoder, which is filled at test only; without it linear models.
    """
    from neuro.report import Figure, Table, Text

    data = _seen(data, settings["leave_out"])
    X = data["signal"].transpose("trial", "parcel", "time").values
    groups, n_unit = parcel_sets(data), settings["groups"]
    units = _column(data, n_unit)
    folds, train = _folds(data, units, encoder), _trainer(data, settings, encoder)
    common = {"n_unit": n_unit, "n_boot": settings["n_boot"], "random_state": settings["seed"]}
    found = []
    for how in settings["how"]:
        if encoder is not None and how == "retrain":
            context.warn("retraining is not done with a fitted encoder: leave the encoder away")
            continue
        n = settings["n_random_retrained" if how == "retrain" else "n_random"]
        found.append(
            ablate(X, groups, train, folds, units, how=how, n_random=n, progress=context.progress,
                   **common)
        )  # fmt: skip
    if not found:
        raise InputError("there is no ablation to do: 'how' holds none for this model")
    _record(context, found[0], data)
    table = pd.concat([one.table for one in found], ignore_index=True)
    whole = found[0].whole
    context.section(
        "What networks contribute",
        Text(_in_words(found[0], whole)),
        Table(table, "Drop of the score when a network is taken away, with 95 % intervals over "
              f"{n_unit}s; the band of random sets of as many parcels; p that random sets cost as "
              "much, corrected by Holm over networks."),
        *(Figure(ablation_plots.drop_figure(one), f"Networks filled with {HOW[one.how]}: points "
                 "with 95 % intervals; grey: 95 % of random sets of as many parcels.")
          for one in found),
        *_map_blocks(found[0], data, groups, settings["atlas"]),
    )  # fmt: skip
    context.method(
        "Each network's parcels were replaced by "
        f"{', '.join(HOW[one.how] for one in found)}, and compared with "
        f"{settings['n_random']} random sets of as many parcels.", "wang2024wave",
    )  # fmt: skip
    _compare(context, X, data, groups, folds, units, settings, common)
    context.scored(f"ablation-{len(X)}-{X.shape[1]}")
    return table


def parcel_sets(data: xr.Dataset) -> dict[str, NDArray[np.bool_]]:
    """Sets of parcels: the masks ``in_<name>`` where there are some, else networks."""
    masks = {
        str(name).removeprefix("in_"): data[name].values.astype(bool)
        for name in data.coords
        if str(name).startswith("in_")
    }
    if masks:
        return {name: one for name, one in masks.items() if one.any() and not one.all()}
    if "network" not in data.coords:
        raise DataError("the parcels have no network; give the table of the atlas when reading")
    groups = network_groups(data["network"].values)
    groups.pop("none", None)
    return groups


def embeddings(data: xr.Dataset) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Return the embeddings of the items, and their names.

    Raises
    ------
    DataError
        Where the data hold no ``target`` by item.
    """
    if "target" not in data or data["target"].ndim != 2:
        raise DataError("the data hold no 'target' (item, feature): an embedding of each item")
    target = data["target"]
    return target.values.astype(np.float32), _labels(data, str(target.dims[0]))


def record_imagery(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any], encoder: Any = None
) -> pd.DataFrame:
    """Decode the imagery trials and test their pairing with the prompts."""
    from fmri.imagery import pairing_test
    from neuro.report import Figure, Text

    table, known = embeddings(data)
    column = _item_column(data)
    kind = _column(data, "kind")
    imagery, seen = kind == settings["kind"], ~np.isin(kind, [settings["kind"], "rest"])
    if not imagery.any():
        raise DataError(
            f"no trial is of the kind '{settings['kind']}'; there are {', '.join(np.unique(kind))}"
        )
    X = data["signal"].transpose("trial", "parcel", "time").values.astype(np.float32)
    names = _column(data, column)
    decoded = _decoded(data, X, names, seen, imagery, (table, known), encoder)
    blocks = None if settings["blocks"] is None else _column(data, settings["blocks"])[imagery]
    found = pairing_test(
        decoded, table, names[imagery], known, blocks=blocks,
        n_permutations=settings["n_permutations"], random_state=settings["seed"],
    )  # fmt: skip
    found.statistic.record(context, "imagery.statistic")
    context.metric("imagery.p", found.p, n=found.statistic.n, n_unit="prompt")
    sure = found.p <= 0.05
    context.section(
        "Imagery",
        Text(
            f"{int(imagery.sum())} trials of {found.statistic.n} prompts: the mean cosine with the "
            f"own prompt is {found.statistic.value:.3f} (other pairings "
            f"{found.statistic.chance:.3f}), p = {found.p:.4f} "
            f"({'all' if found.exact else 'random'} {len(found.null)} other pairings). "
            + ("What was imagined is decoded above chance." if sure else
               "That does not show that what was imagined can be decoded.")
        ),
        Figure(ablation_plots.null_figure(found), "The statistic (line) among other pairings."),
    )  # fmt: skip
    context.method(
        "The pairing of decoded embeddings with prompts was permuted, whole prompts with all "
        "their repeats.", "wang2024wave",
    )  # fmt: skip
    return pd.DataFrame({"statistic": [found.statistic.value], "p": [found.p]})


def record_zero_shot(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Name categories that were left out of training, and decode categories with all of them."""
    from fmri.categories import decode_categories
    from fmri.providers import CategoryAttributes, haxby_attributes
    from fmri.zero_shot import zero_shot
    from neuro.report import Table, Text

    file = settings["attributes"]
    known = haxby_attributes() if file is None else CategoryAttributes(file)
    data = _seen(data, settings["leave_out"])
    X = features(data["signal"].transpose("trial", "parcel", "time").values)
    category, run = _column(data, "category"), _column(data, "run")
    common = {"n_boot": settings["n_boot"], "random_state": settings["seed"]}
    left = zero_shot(X, category, run, known.table, n_permutations=settings["n_permutations"],
                     **common)  # fmt: skip
    usual = decode_categories(X, category, run, known.table, progress=context.progress, **common)
    estimates = {**left.estimates, **usual.estimates}
    for name, one in estimates.items():
        one.record(context, name)
    rows = _estimate_rows(estimates)
    first = left.estimates["zero_shot.accuracy"]
    pairwise = left.estimates["zero_shot.pairwise"]
    context.section(
        "Categories that were left out",
        Text(
            f"A left-out category is named among all {len(np.unique(category))} in "
            f"{first.value:.3f} of its trials ({_p(first)}; attributes dealt out anew "
            f"{_number(first.baseline)}), and told from another left-out one in "
            f"{pairwise.value:.3f} ({_p(pairwise)}; chance 0.5). {_verdict(pairwise)} Among all "
            "categories the chance of guessing is not reached by itself: a model leans towards "
            f"the categories it was trained on. Attributes: {known.source}."
        ),
        Table(rows, "95 % intervals over categories (zero_shot) and runs (category)."),
    )
    context.method("Categories were left out of training and named by their attributes.",
                   "haxby2001")  # fmt: skip
    return pd.DataFrame(rows)


# Inside ---------------------------------------------------------------------------------------


def _labels(data: xr.Dataset, dim: str) -> NDArray[np.str_]:
    """Return the names along a dimension: of the coordinate of its name, or the only other one."""
    own = {str(k): c for k, c in data.coords.items() if c.dims == (dim,)}
    found = own.get(dim, next(iter(own.values()), None))
    return np.asarray(np.arange(data.sizes[dim]) if found is None else found.values).astype(str)


def _seen(data: xr.Dataset, leave_out: Any) -> xr.Dataset:
    if "kind" not in data.coords:
        return data.load()
    keep = ~np.isin(data["kind"].values.astype(str), list(leave_out))
    return data.isel(trial=np.flatnonzero(keep)).load()


def _column(data: xr.Dataset, name: str) -> NDArray[np.str_]:
    if name not in data.coords or data[name].dims != ("trial",):
        own = [str(k) for k, c in data.coords.items() if c.dims == ("trial",)]
        raise DataError(f"the trials have no '{name}', only {', '.join(own)}")
    values = data[name].values.astype(str)
    if name == "run":
        for outer in ("session", "subject"):  # run-1 of two sessions are two runs
            if outer in data.coords and data[outer].dims == ("trial",):
                values = np.char.add(np.char.add(data[outer].values.astype(str), "/"), values)
    return np.asarray(values)


def _item_column(data: xr.Dataset) -> str:
    return next(
        (k for k in ("item", "stimulus") if k in data.coords and data[k].dims == ("trial",)), "item"
    )


def _folds(data: xr.Dataset, units: NDArray[np.str_], encoder: Any) -> list[Fold]:
    """Take the split that the data bring (part), else leave out one unit, or a fifth of many."""
    if "part" in data.coords and data["part"].dims == ("trial",):
        part = data["part"].values.astype(str)
        test = part == "test"
        if test.any() and not test.all():
            return [(np.flatnonzero(part == "train"), np.flatnonzero(test))]
    if encoder is not None:
        raise InputError(
            "the data don't say by 'part' which trials the encoder was not trained on (train, "
            "test); scores of trials that it was trained on would tell nothing"
        )
    n = len(np.unique(units))
    return grouped_folds(units, n_splits=None if n <= 12 else 5)


def _targets(data: xr.Dataset) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Return the embedding of every trial's item, and the item."""
    table, known = embeddings(data)
    names = _column(data, _item_column(data))
    missing = sorted(set(names) - set(known))
    if missing:
        raise DataError(f"{len(missing)} items have no embedding, the first is '{missing[0]}'")
    at = {name: n for n, name in enumerate(known.tolist())}
    return table[[at[name] for name in names.tolist()]], names


def _trainer(data: xr.Dataset, settings: Mapping[str, Any], encoder: Any) -> Trainer:
    if encoder is not None:
        target, names = _targets(data)
        signal = data["signal"].transpose("trial", "parcel", "time")
        return fitted_trainer(
            encoder, target, names, wrap=lambda X, rows: signal.isel(trial=rows).copy(data=X)
        )
    if settings["score"] == "category":
        return category_trainer(_column(data, "category"), time=settings["time"])
    target, names = _targets(data)
    return target_trainer(target, names, time=settings["time"])


def _record(context: Context, found: Ablation, data: xr.Dataset) -> None:
    for name, estimate in found.estimates.items():
        estimate.record(context, f"ablation.{name}.drop")
    found.random.record(context, "ablation.random.drop")
    found.whole.record(context, "ablation.whole")
    if "information" not in data:
        return
    truth = data["information"]
    names = _labels(data, str(truth.dims[0])).tolist()
    known = dict(zip(names, truth.values.astype(float).tolist(), strict=True))
    if not set(found.estimates) & set(known):
        context.warn(f"the truth is of {', '.join(names[:5])}, which are no networks of the data")
        return
    value = spearman({k: e.value for k, e in found.estimates.items()}, known)
    context.metric("ablation.truth.spearman", value, n=len(found.estimates), n_unit="network")


def _compare(
    context: Context,
    X: NDArray[np.float32],
    data: xr.Dataset,
    groups: dict[str, NDArray[np.bool_]],
    folds: list[Fold],
    units: NDArray[np.str_],
    settings: Mapping[str, Any],
    common: dict[str, Any],
) -> None:
    """Compare the whole brain with the visual network alone and without it, by category."""
    from neuro.report import Table, Text

    visual = settings["visual"]
    if visual not in groups or "category" not in data.coords:
        context.warn(
            f"no comparison with the visual network: '{visual}' is not among "
            f"{', '.join(groups)}, or trials have no category"
        )
        return
    category = _column(data, "category")
    found = compare_sets(
        X, groups[visual], category_trainer(category, time=settings["time"]), folds, units,
        chance=1 / len(np.unique(category)), **common,
    )  # fmt: skip
    for name, estimate in found.items():
        estimate.record(context, f"category.{name}")
    gain = found["whole.over_visual_only"]
    context.section(
        "The whole brain and the visual network",
        Text(
            f"The whole brain decodes the category in {found['whole.accuracy'].value:.3f} of "
            f"trials, the network '{visual}' alone ({int(groups[visual].sum())} parcels) in "
            f"{found['visual_only.accuracy'].value:.3f}, everything but it in "
            f"{found['without_visual.accuracy'].value:.3f}. "
            + ("The whole brain is better than the visual network." if (gain.low or 0) > 0 else
               "That the whole brain is better than the visual network is not shown here.")
        ),
        Table(_estimate_rows(found), "Each of the three was trained for itself; differences are "
              "paired, p by sign flips, corrected by Holm over the three."),
    )  # fmt: skip


def _map_blocks(
    found: Ablation, data: xr.Dataset, groups: dict[str, NDArray[np.bool_]], atlas: Any
) -> list[Any]:
    from neuro.report import Figure

    figure = ablation_plots.map_figure(found, data, groups, atlas)
    return [] if figure is None else [Figure(figure, "Drop of the network of each parcel.")]


def _decoded(
    data: xr.Dataset,
    X: NDArray[np.float32],
    names: NDArray[np.str_],
    seen: NDArray[np.bool_],
    imagery: NDArray[np.bool_],
    targets: tuple[NDArray[np.float32], NDArray[np.str_]],
    encoder: Any,
) -> NDArray[np.float32]:
    if encoder is not None:
        answer = getattr(encoder, "predict", None) or encoder.transform
        signal = data["signal"].transpose("trial", "parcel", "time")
        found = np.asarray(answer(signal.isel(trial=np.flatnonzero(imagery))), np.float32)
        return found.reshape(len(found), -1)
    from fmri.baselines import TunedRidge

    table, known = targets
    at = {name: n for n, name in enumerate(known.tolist())}
    # What is imagined must not have been trained on, else a prompt's own answer is learned.
    rows = np.flatnonzero(seen & ~np.isin(names, np.unique(names[imagery])))
    if len(rows) < 10:
        raise DataError(
            f"{len(rows)} trials show other items than those imagined; a linear model needs 10 to "
            "be trained on, or wire an encoder"
        )
    wanted = table[[at[name] for name in names[rows].tolist()]]
    model = TunedRidge(n_splits=3, per_target=False)
    model.fit(features(X[rows]), wanted, stimulus=names[rows])
    return np.asarray(model.predict(features(X[imagery])), np.float32)


def _in_words(found: Ablation, whole: Estimate) -> str:
    sure = [k for k, e in found.estimates.items() if (e.p_corrected or 1) <= 0.05]
    text = f"With the whole brain the score is {_number(whole.value)}"
    text += f" [{_number(whole.low)}, {_number(whole.high)}]. "
    if not sure:
        return text + (
            "No network costs more than random sets of as many parcels do, after correction: "
            "these data don't tell networks apart."
        )
    return text + f"More than random sets of as many parcels cost: {', '.join(sorted(sure))}."


def _estimate_rows(estimates: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    return [
        {"what": name, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance,
         "baseline": e.baseline, "p": e.p, "p_corrected": e.p_corrected, "n": e.n,
         "unit": e.n_unit}
        for name, e in estimates.items()
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _p(estimate: Estimate) -> str:
    return f"p = {_number(estimate.p)}"


def _verdict(estimate: Estimate) -> str:
    if estimate.p is not None and estimate.p <= 0.05:
        return "Categories that were never trained on are told apart above chance."
    return "That categories can be named without training on them is not shown here."
