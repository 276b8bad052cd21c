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
from fmri.network_scores import (
    category_trainer,
    estimator_trainer,
    features,
    fitted_trainer,
    naming_trainer,
    target_trainer,
)
from fmri.trial_columns import (
    block_values,
    column_of,
    embedding_rows,
    embedding_table,
    folds_of,
    item_of,
    labels_along,
    mean_blocks,
)
from neuro.errors import DataError, InputError
from neuro.validation import Estimate, Fold

if TYPE_CHECKING:
    from neuro.stage import Context

__all__ = ["parcel_sets", "record_ablation", "record_imagery", "record_zero_shot"]

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
    groups, n_unit = parcel_sets(data, settings["no_network"]), settings["groups"]
    units = column_of(data, n_unit)
    folds = _folds(data, units, encoder)
    common = {"n_unit": n_unit, "n_boot": settings["n_boot"], "random_state": settings["seed"]}
    found, models = [], []
    for how in settings["how"]:
        # A model for each of some hundred sets: retraining is for linear models.
        model = None if how == "retrain" else encoder
        averaged = model is None and settings["time"] == "mean"
        X = mean_blocks(data) if averaged else block_values(data)
        n = settings["n_random_retrained" if how == "retrain" else "n_random"]
        found.append(
            ablate(X, groups, _trainer(data, settings, model), folds, units, how=how, n_random=n,
                   progress=context.progress, **common)
        )  # fmt: skip
        models.append("linear" if model is None else "encoder")
    if not found:
        raise InputError("there is no ablation to do: 'how' names none")
    _record(context, found[0], data)
    tables = [one.table.assign(model=m) for one, m in zip(found, models, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    named = [f"{HOW[one.how]} ({m} model)" for one, m in zip(found, models, strict=True)]
    context.section(
        "What networks contribute",
        Text(_in_words(found[0], found[0].whole) + _apart(data, settings["no_network"])),
        Table(table, "Drop of the score when a network is taken away, with 95 % intervals over "
              f"{n_unit}s; the band of random sets of as many parcels; p that random sets cost as "
              "much, corrected by Holm over networks."),
        *(Figure(ablation_plots.drop_figure(one), f"Networks filled with {name}: points "
                 "with 95 % intervals; grey: 95 % of random sets of as many parcels.")
          for one, name in zip(found, named, strict=True)),
        *_map_blocks(found[0], data, groups, settings["atlas"]),
    )  # fmt: skip
    context.method(
        f"Each network's parcels were replaced by {', '.join(named)}, and compared with "
        f"{settings['n_random']} random sets of as many parcels.", "wang2024wave",
    )  # fmt: skip
    _compare(context, mean_blocks(data) if settings["time"] == "mean" else block_values(data),
             data, groups, folds, units, settings, common)  # fmt: skip
    context.scored(f"ablation-{data.sizes['trial']}-{data.sizes['parcel']}")
    table.attrs["inside"] = {name: found[0].inside(name) for name in groups}
    return table.assign(information=_information(data, table["network"]))


def parcel_sets(data: xr.Dataset, no_network: str = "none") -> dict[str, NDArray[np.bool_]]:
    """Sets of parcels: the masks ``in_<name>`` where there are some, else networks.

    Parameters
    ----------
    data : Dataset
    no_network : str
        The word for parcels of no network. They are part of the whole brain and of random sets and
        are not taken away by themselves; "" where the atlas has a network of this name.

    Raises
    ------
    DataError
        Where parcels have no network.
    """
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
    groups.pop(no_network, None)
    if not groups:
        raise DataError(f"all parcels are of no network ('{no_network}'); there is none to ablate")
    return groups


def record_imagery(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any], encoder: Any = None
) -> pd.DataFrame:
    """Decode the imagery trials and test their pairing with the prompts."""
    from fmri.imagery import pairing_test
    from neuro.report import Figure, Text

    table, known = embedding_table(data)
    column = item_of(data)
    kind = column_of(data, "kind")
    imagery = kind == settings["kind"]
    seen = ~np.isin(kind, [settings["kind"], *settings["leave_out"]])
    if not imagery.any() and settings["optional"]:
        context.section("Imagery", Text("Nothing was imagined in these runs; there is no test."))
        return pd.DataFrame({"statistic": [], "p": []})
    if not imagery.any():
        raise DataError(
            f"no trial is of the kind '{settings['kind']}'; there are {', '.join(np.unique(kind))}"
        )
    names = column_of(data, column)
    decoded = _decoded(data, names, seen, imagery, encoder)
    blocks = None if settings["blocks"] is None else column_of(data, settings["blocks"])[imagery]
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
    from fmri.zero_shot import zero_shot
    from neuro.report import Table, Text

    known = _attributes(data, settings["attributes"])
    data = _seen(data, settings["leave_out"])
    X = features(mean_blocks(data))
    category, run = column_of(data, "category"), column_of(data, "run")
    common = {"n_boot": settings["n_boot"], "random_state": settings["seed"]}
    left = zero_shot(X, category, run, known.table, n_permutations=settings["n_permutations"],
                     **common)  # fmt: skip
    estimates = dict(left.estimates)
    if settings["usual"]:
        usual = decode_categories(X, category, run, known.table, progress=context.progress,
                                  **common)  # fmt: skip
        estimates |= usual.estimates
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


def _attributes(data: xr.Dataset, file: Any) -> Any:
    """Take a table of attributes: of a file, of the data, or that of Haxby's categories."""
    from fmri.providers import CategoryAttributes, haxby_attributes

    if file is not None:
        return CategoryAttributes(file)
    if "attribute_table" not in data:
        return haxby_attributes()
    values, names = embedding_table(data, "attribute_table")
    columns = [f"attribute-{n + 1}" for n in range(values.shape[1])]
    source = str(data.attrs.get("attribute_source", "the data"))
    return CategoryAttributes(pd.DataFrame(values, names, columns), source=source)


def _seen(data: xr.Dataset, leave_out: Any) -> xr.Dataset:
    if "kind" not in data.coords:
        return data.load()
    keep = ~np.isin(data["kind"].values.astype(str), list(leave_out))
    found = data.isel(trial=np.flatnonzero(keep)).load()
    if not found.sizes["trial"]:
        raise DataError(f"all trials are of the kinds {', '.join(leave_out)}, which are left out")
    if "mask" in found:  # windows may be longer than what is left
        recorded = np.flatnonzero(found["mask"].values.any(0))
        found = found.isel(time=slice(0, int(recorded[-1]) + 1))
    return found


def _folds(data: xr.Dataset, units: NDArray[np.str_], encoder: Any) -> list[Fold]:
    """Take the split that the data bring (part), else leave out units and train anew."""
    split = "part" in data.coords and "test" in data["part"].values.astype(str)
    if encoder is not None and not split and not hasattr(encoder, "get_params"):
        raise InputError(
            "the data don't say by 'part' which trials the encoder was not trained on (train, "
            "test), and it can't be trained anew; scores of trials that it was trained on would "
            "tell nothing"
        )
    return folds_of(data, units)


def _trainer(data: xr.Dataset, settings: Mapping[str, Any], encoder: Any) -> Trainer:
    from sklearn.base import clone

    if encoder is None and settings["score"] == "category":
        return category_trainer(
            column_of(data, "category"), time=settings["time"], C=settings["C"],
            groups=column_of(data, settings["groups"]),
        )  # fmt: skip
    names = column_of(data, item_of(data))
    target = embedding_rows(data, names)
    if encoder is None:
        return target_trainer(target, names, time=settings["time"])
    signal = data["signal"].transpose("trial", "parcel", "time")
    if "mask" in data:
        signal = signal.assign_coords(mask=(("trial", "time"), data["mask"].values))

    def wrap(X: NDArray[np.float32], rows: NDArray[np.intp]) -> xr.DataArray:
        return signal.isel(trial=rows).copy(data=X)

    fitted = "part" in data.coords
    if settings["score"] == "category":
        make = (lambda X, y: encoder) if fitted else (lambda X, y: clone(encoder).fit(X, y))
        return naming_trainer(make, column_of(data, "category"), target, wrap=wrap)
    if fitted:
        return fitted_trainer(encoder, target, names, wrap=wrap)
    return estimator_trainer(lambda: clone(encoder), target, names, wrap=wrap)


def _apart(data: xr.Dataset, no_network: str) -> str:
    """Say how many parcels belong to no network."""
    if "network" not in data.coords or any(str(name).startswith("in_") for name in data.coords):
        return ""
    n = int((data["network"].values.astype(str) == no_network).sum())
    return f" {n} parcels of no network stay, and are drawn into random sets too." if n else ""


def _information(data: xr.Dataset, names: pd.Series) -> list[float]:
    """Return what was planted in each network; NaN where it isn't known."""
    if "information" not in data:
        return [float("nan")] * len(names)
    truth = data["information"]
    known = labels_along(data, str(truth.dims[0])).tolist()
    values = dict(zip(known, truth.values.astype(float).tolist(), strict=True))
    return [values.get(name, float("nan")) for name in names]


def _record(context: Context, found: Ablation, data: xr.Dataset) -> None:
    for name, estimate in found.estimates.items():
        estimate.record(context, f"ablation.{name}.drop")
    found.random.record(context, "ablation.random.drop")
    found.whole.record(context, "ablation.whole")
    if "information" not in data:
        return
    truth = data["information"]
    names = labels_along(data, str(truth.dims[0])).tolist()
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
    category = column_of(data, "category")
    found = compare_sets(
        X, groups[visual], category_trainer(
            category, time=settings["time"], C=settings["C"],
            groups=column_of(data, settings["groups"]),
        ), folds, units,
        chance=1 / len(np.unique(category)), **common,
    )  # fmt: skip
    for name, estimate in found.items():
        estimate.record(context, f"category.{name}")
    gain = found["whole.over_visual_only"]
    context.section(
        "The whole brain and the visual network",
        Text(
            "Logistic regressions: the whole brain decodes the category in "
            f"{found['whole.accuracy'].value:.3f} "
            f"of trials, the network '{visual}' alone ({int(groups[visual].sum())} parcels) in "
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
    names: NDArray[np.str_],
    seen: NDArray[np.bool_],
    imagery: NDArray[np.bool_],
    encoder: Any,
) -> NDArray[np.float32]:
    if encoder is not None:
        answer = getattr(encoder, "predict", None) or encoder.transform
        signal = data["signal"].transpose("trial", "parcel", "time")
        if "mask" in data:
            signal = signal.assign_coords(mask=(("trial", "time"), data["mask"].values))
        found = np.asarray(answer(signal.isel(trial=np.flatnonzero(imagery))), np.float32)
        return found.reshape(len(found), -1)
    from fmri.baselines import TunedRidge

    # What is imagined must not have been trained on, else a prompt's own answer is learned.
    part = data["part"].values.astype(str) if "part" in data.coords else None
    seen = seen if part is None else seen & (part != "test")
    rows = np.flatnonzero(seen & ~np.isin(names, np.unique(names[imagery])))
    if len(rows) < 10:
        raise DataError(
            f"{len(rows)} trials show other items than those imagined; a linear model needs 10 to "
            "be trained on, or wire an encoder"
        )
    X = mean_blocks(data)
    wanted = embedding_rows(data, names[rows])
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
