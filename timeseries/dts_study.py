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


def simulate(settings: dict[str, Any], context: Context) -> xr.Dataset:
    """Simulate series and mark the parts."""
    from neuro.report import Text
    from timeseries.simulate import SeriesStudy, simulate_series

    seed, held = settings.pop("seed"), settings.pop("test_size")
    data = simulate_series(SeriesStudy(**settings), seed)
    subject = data["subject"].values
    rng = np.random.default_rng(seed)
    part = np.full(len(subject), "train", "<U5")
    for name in np.unique(subject):
        rows = rng.permutation(np.flatnonzero(subject == name))
        part[rows[: max(1, round(held * len(rows)))]] = "test"
    context.section("Series", Text(
        f"{len(subject)} series of {len(np.unique(subject))} subjects were simulated, each a "
        f"recording of its own; {int((part == 'test').sum())} of them are held out."
    ))  # fmt: skip
    return data.assign_coords(part=("trial", part))


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
    model = DTS(random_state=settings.pop("seed"), **settings)
    model.fit(own, y, domain=domain, scratch=context.scratch, progress=context.progress)
    _report(model, own, factors or tuple(names.values()), f"DTS · {model.network}", context)
    hidden = "" if target is None else f" The classes of '{target}' were hidden from it."
    context.method(
        f"DTS (Li et al. 2022) was trained on {len(own)} series of {len(model.domains_)} "
        f"domains.{hidden} The series were standardised by all of these together."
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
        Figure(dts_plots.traversal_figure(model, own), "The first channel of the mean code "
               "decoded, one latent (or a segment, along its main axis) moved from -2 to 2."),
    ]  # fmt: skip
    if known:
        figure = dts_plots.information_figure(model, own, known)
        blocks.append(Figure(figure, "Share of each factor's entropy that a latent tells."))
    context.section(f"Training · {title}", *blocks)
    if model.objective_.penalty.stochastic:
        report_activity(context, *model.posterior(own), known or None)


def factors_of(data: xr.Dataset | xr.DataArray, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the known factors by name: those named, or all that are marked as factors."""
    if not names:
        names = [str(n) for n, coord in data.coords.items() if "factor" in coord.attrs]
    missing = [name for name in names if name not in data.coords]
    if missing:
        raise InputError(f"no coordinates {missing}; found {sorted(map(str, data.coords))}")
    return {name: data[name].values for name in names}


def compare(
    data: xr.Dataset, models: Sequence[Any], settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Score encoders on the test part, and set mutual information beside active units."""
    from neuro.metrics import disentanglement
    from neuro.report import Table, Text

    rows = rows_of(data, "test")
    rng = np.random.default_rng(settings["seed"])
    own = as_signal(data.isel(trial=np.sort(rng.permutation(rows)[: settings["n_most"]])))
    known = factors_of(own, settings["factors"])
    found = []
    for name, model in zip(names_of(models, context.members.get("models")), models, strict=True):
        row: dict[str, Any] = {
            "model": name, "information": model.information_,
            "active_units": int(model.kept_.sum()), "latents": len(model.kl_),
        }  # fmt: skip
        if known:
            scores = disentanglement(
                np.asarray(model.transform(own)), known, random_state=settings["seed"]
            )
            for score, value in scores.items():
                context.metric(f"disentangle.{name}.{score}", value, n=len(own), n_unit="series")
            row |= scores
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
        table = [{k: v for k, v in row.items() if k not in first[1:]} for row in found]
        caption = f"On {len(own)} held-out series, against {', '.join(known)}."
        context.section("Disentanglement", Table(table, caption))
    return pd.DataFrame(found)


def names_of(models: Sequence[Any], members: Sequence[Any] | None = None) -> list[str]:
    """Name encoders for a table: the member of the family, with its network where both vary."""
    plain = [str(getattr(m, "preset", m.name.removeprefix("ts-"))) for m in models]
    names = [
        f"{name}-{model.network}" if plain.count(name) > 1 else name
        for name, model in zip(plain, models, strict=True)
    ]
    return [f"{n}-{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]
