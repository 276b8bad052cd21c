"""What the stages of the VAE family and DTS do: train, draw, compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.activity import report_activity
from neuro.data import as_signal
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from neuro.stage import Context
    from timeseries.dts import DTS
    from timeseries.latent_model import LatentModel
    from timeseries.vae import SeriesVAE


def rows_of(data: xr.Dataset, part: str) -> NDArray[np.intp]:
    """Return the trials of a part; all where the dataset has none."""
    if "part" not in data.coords:
        return np.arange(data.sizes["trial"])
    rows = np.flatnonzero(data["part"].values.astype(str) == part)
    if not len(rows):
        found = np.unique(data["part"].values.astype(str)).tolist()
        raise DataError(f"no series is of the part '{part}'; found {found}")
    return rows


def segments(
    data: xr.Dataset, encoder: Any, settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Fit fresh probes on the training part of both domains; score them on the test part."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from neuro.report import Table

    truth = {k: data[settings[k]].values.astype(str) for k in ("label", "domain")}
    if settings["target"] not in truth["domain"]:
        raise InputError(f"no series is of the domain '{settings['target']}'")
    train, test = rows_of(data, "train"), rows_of(data, "test")
    on_target = truth["domain"][test] == settings["target"]
    signal = as_signal(data)
    table = []
    for segment in ("g_y", "g_d"):
        codes = np.asarray(encoder.segment(signal, segment))
        row: dict[str, Any] = {"segment": segment}
        for name, letter, what in (("domain", "D", "domain"), ("label", "C", "class")):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            model.fit(codes[train], truth[name][train])
            right = model.predict(codes[test]) == truth[name][test]
            for place, at in (("S", ~on_target), ("T", on_target)):
                row[f"Acc/{letter}-{place}"] = float(right[at].mean())
            _, counts = np.unique(truth[name][test], return_counts=True)
            context.metric(
                f"segment.{segment}.{what}.accuracy", float(right.mean()), n=len(test),
                n_unit="series", chance=float(counts.max() / counts.sum()),
            )  # fmt: skip
            if name == "label":
                proba = model.predict_proba(codes[test])
                for place, at in (("S", ~on_target), ("T", on_target)):
                    row[f"AUC/C-{place}"] = _auc(truth[name][test][at], proba[at], model.classes_)
        table.append(row)
    right = encoder.predict(signal[test]) == truth["label"][test]
    context.metric("adapt.target.dts.accuracy", float(right[on_target].mean()),
                   n=int(on_target.sum()), n_unit="series",
                   chance=1 / len(encoder.classes_))  # fmt: skip
    context.section("What each segment tells", Table(table, (
        "Fresh linear probes, fitted on the training part of both domains (the target's classes "
        "too, to find what is there) and scored on the test part; D domain, C class, S source, "
        "T target."
    )))  # fmt: skip
    context.scored(settings["target"])
    return pd.DataFrame(table)


def _auc(truth: NDArray[Any], proba: NDArray[Any], classes: NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    each = [
        roc_auc_score(truth == name, proba[:, i])
        for i, name in enumerate(classes)
        if 0 < (truth == name).sum() < len(truth)
    ]
    return float(np.mean(each)) if each else float("nan")


def train_vae(data: xr.Dataset, settings: dict[str, Any], context: Context) -> SeriesVAE:
    """Train a member of the VAE family."""
    from timeseries.vae import SeriesVAE

    factors = settings.pop("factors")
    model = SeriesVAE(random_state=settings.pop("seed"), **settings)
    own = as_signal(data.isel(trial=rows_of(data, "train")))
    model.fit(own, scratch=context.scratch, progress=context.progress)
    _report(model, own, factors, f"{model.preset} · {model.network}", context)
    context.method(
        f"A {model.preset} ({model.network} networks, {model.n_latents} latents) was trained on "
        f"{len(own)} series; statistics are theirs."
    )
    return model


def train_dts(data: xr.Dataset, settings: dict[str, Any], context: Context) -> DTS:
    """Train DTS, with the classes of the target domain hidden."""
    from timeseries.dts import DTS

    names = {name: settings.pop(name) for name in ("label", "domain")}
    target, factors = settings.pop("target"), settings.pop("factors")
    for name in names.values():
        if name not in data.coords:
            raise InputError(
                f"there is no coordinate '{name}'; found {sorted(map(str, data.coords))}"
            )
    own = as_signal(data.isel(trial=rows_of(data, "train")))
    y, domain = (own[name].values.astype(str) for name in names.values())
    if target is not None:
        if target not in domain:
            raise InputError(f"no series is of the domain '{target}'; found {np.unique(domain)}")
        y = np.where(domain == target, "", y)
    model = DTS(random_state=settings.pop("seed"), domain_name=names["domain"], **settings)
    model.fit(own, y, domain=domain, scratch=context.scratch, progress=context.progress)
    _report(model, own, factors or tuple(names.values()), f"DTS · {model.network}", context)
    by = "all of these together" if model.standardise == "all" else "those of the same domain"
    hidden = "" if target is None else f" The classes of '{target}' were hidden from it."
    context.method(
        f"DTS (Li et al. 2022) was trained on {len(own)} series of {len(model.domains_)} "
        f"domains.{hidden} The series were standardised by {by}."
    )
    return model


def _report(
    model: LatentModel, own: xr.DataArray, factors: Sequence[str], title: str, context: Context
) -> None:
    from neuro.report import Figure
    from timeseries import dts_plots

    known = factors_of(own, factors)
    context.metric("active_units", float(model.kept_.sum()))
    context.metric("information", model.information_, unit="nat")
    blocks = [
        Figure(dts_plots.history_figure(model), "Losses by epoch, and the KL of each latent."),
        Figure(dts_plots.traversal_figure(model, own), "The mean code decoded, one latent (or a "
               "segment, along its main axis) moved from -2 (blue) to 2 (red), in the channel "
               "that moves most."),
    ]  # fmt: skip
    if known:
        figure = dts_plots.information_figure(model, own, known)
        blocks.append(Figure(figure, "Share of each factor's entropy that a latent tells."))
    context.section(f"Training · {title}", *blocks)
    if model.objective_.penalty.stochastic:
        report_activity(context, *model.posterior(own), known or None)


def factors_of(data: xr.Dataset | xr.DataArray, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the known factors by name: those named, or all that are marked as factors.

    Numbers of a factor that is marked as discrete become class numbers.
    """
    if not names:
        names = [str(n) for n, coord in data.coords.items() if "factor" in coord.attrs]
    missing = [name for name in names if name not in data.coords]
    if missing:
        raise InputError(f"no coordinates {missing}; found {sorted(map(str, data.coords))}")
    return {name: _classes(data[name]) for name in names}


def _classes(factor: xr.DataArray) -> NDArray[Any]:
    values = factor.values
    if values.dtype.kind == "f" and factor.attrs.get("factor") == "discrete":
        return np.unique(values, return_inverse=True)[1]
    return values


def compare(
    data: xr.Dataset, models: Sequence[Any], settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Score encoders on the test part, and set mutual information beside active units."""
    from neuro.report import Table, Text

    rows = rows_of(data, "test")
    rng = np.random.default_rng(settings["seed"])
    own = as_signal(data.isel(trial=np.sort(rng.permutation(rows)[: settings["n_most"]])))
    known = factors_of(own, settings["factors"])
    found: list[dict[str, Any]] = []
    shown: dict[str, dict[str, str]] = {}
    for name, model in zip(names_of(models), models, strict=True):
        row: dict[str, Any] = {
            "model": name, "information": model.information_,
            "active_units": int(model.kept_.sum()), "latents": len(model.kl_),
        }  # fmt: skip
        if known:
            codes = np.asarray(model.transform(own))
            for score, (value, low, high) in _scores(codes, known, settings).items():
                context.metric(
                    f"disentangle.{name}.{score}", value, low=low, high=high, n=len(own),
                    n_unit="series",
                )  # fmt: skip
                row[score] = value
                shown.setdefault(name, {"model": name})[score] = _cell(value, low, high)
        context.metric(f"latents.{name}.information", model.information_, unit="nat")
        context.metric(f"latents.{name}.active_units", float(row["active_units"]))
        found.append(row)
    first = ["model", "information", "active_units", "latents"]
    context.section(
        "KL vanishing",
        Text("Where the decoder does not listen to the code, no latent is active (KL above 0.01) "
             "and series and codes share no information. An autoencoder has no posterior: 0."),
        Table([{k: row[k] for k in first} for row in found],
              "Mutual information of series and codes, on training series, and active units.",
              {"information": "nat"}),
    )  # fmt: skip
    if known:
        caption = f"On {len(own)} held-out series, against {', '.join(known)}."
        if settings["n_boot"]:
            caption += " 95 % intervals over series."
        context.section("Disentanglement", Table(list(shown.values()), caption))
    return pd.DataFrame(found)


def _scores(
    codes: NDArray[Any], known: dict[str, NDArray[Any]], settings: dict[str, Any]
) -> dict[str, tuple[float, float | None, float | None]]:
    from neuro.metrics import disentanglement, disentanglement_intervals

    seed = settings["seed"]
    if not settings["n_boot"]:
        found = disentanglement(codes, known, random_state=seed)
        return {score: (value, None, None) for score, value in found.items()}
    return {**disentanglement_intervals(
        codes, known, n_boot=settings["n_boot"], random_state=seed
    )}  # fmt: skip


def _cell(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def names_of(models: Sequence[Any]) -> list[str]:
    """Name encoders for metrics: the model or its preset, what is ablated, then what sets it apart.

    Models that are still alike get their network, and then their number.
    """
    names = [_plain_name(model) for model in models]
    alike = [
        f"{name}_{model.network}" if names.count(name) > 1 and hasattr(model, "network") else name
        for name, model in zip(names, models, strict=True)
    ]
    return [f"{n}_{i}" if alike.count(n) > 1 else n for i, n in enumerate(alike)]


def _plain_name(model: Any) -> str:
    name = str(getattr(model, "preset", model.name.removeprefix("ts-"))).replace("-", "_")
    if getattr(model, "weight_decay", None) == 0:
        name += "_no_decay"
    return f"{name}_shared" if getattr(model, "shared_codebook", False) else name
