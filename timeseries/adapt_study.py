"""The study of adaptation: many pairs of persons, one table of models, six columns of segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.data import as_signal, split_groups
from neuro.errors import DataError
from timeseries.adapt import (
    Pair,
    clustered_accuracy,
    draw_pairs,
    pair_order,
    pair_trials,
    segment_table,
)
from timeseries.adapt_report import Study, tell
from timeseries.series_study import identity

if TYPE_CHECKING:
    from neuro.stage import Context

__all__ = ["adapt", "score_pair", "stretches", "supervised"]


def adapt(data: xr.Dataset, settings: dict[str, Any], context: Context) -> pd.DataFrame:
    """Train on each source and its unlabelled target, score on other recordings of the target.

    Parameters
    ----------
    data : Dataset
        With ``subject``, ``recording`` and ``class`` on ``trial``.
    settings : dict
        ``n_pairs``, ``score_size``, ``raw``, ``note``, ``seed``, and under ``network`` parameters
        of DTS.
    context : Context

    Returns
    -------
    DataFrame
        One row for each pair and model.

    Raises
    ------
    DataError
        Where no pair can be scored.
    """
    seed = settings["seed"]
    asked = len(draw_pairs(data["subject"].values, settings["n_pairs"], seed))
    order = pair_order(data["subject"].values, seed)
    study = Study([], [], [], asked)
    for _ in context.progress(range(asked), "pairs"):
        pair, parts = _next(data, order, settings, context)
        if pair is None:
            context.warn(f"{len(study.pairs)} of {asked} pairs could be scored, no more are left")
            break
        right, table = score_pair(data, parts, settings, context)
        units, chance = stretches(data)[parts["score"]], _commonest(data, parts)
        context.scored(identity(data, parts["score"]))
        study.pairs.append(pair)
        study.tables.append(table)
        study.scores.append({
            model: clustered_accuracy(hits, units, n_unit="span", chance=chance)
            for model, hits in right.items()
        })  # fmt: skip
    if not study.pairs:
        raise DataError("no pair of persons could be scored; see the warnings")
    tell(study, settings, context)
    return study.table()


def _next(
    data: xr.Dataset, order: Iterator[Pair], settings: dict[str, Any], context: Context
) -> tuple[Pair | None, dict[str, NDArray[np.intp]]]:
    """Return the next pair of the seed's order that can be scored."""
    for pair in order:
        try:
            return pair, _parts(data, pair, settings, context)
        except DataError as error:
            context.warn(f"left out, the next pair of the seed's order in its place: {error}")
    return None, {}


def _parts(
    data: xr.Dataset, pair: Pair, settings: dict[str, Any], context: Context
) -> dict[str, NDArray[np.intp]]:
    """Return the trials of a pair, with recordings of the source held out for the probes.

    Classes that the source's training recordings lack can't be told and are left out.
    """
    size, seed = settings["score_size"], settings["seed"]
    who, label = data["subject"].values.astype(str), data["class"].values.astype(str)
    both = set(label[who == pair.source]) & set(label[who == pair.target]) - {""}
    _refuse_few(pair, both)
    rows = np.flatnonzero(np.isin(who, [pair.source, pair.target]) & np.isin(label, list(both)))
    found = pair_trials(data.isel(trial=rows), pair, score_size=size, random_state=seed)
    parts = {name: rows[own] for name, own in found.items()}
    recording = data["recording"].values[parts["source"]]
    if len(np.unique(recording)) < 2:
        raise DataError(f"{pair.source} has one recording, expected two or more as a source")
    train, held = split_groups(recording, recording, test_size=size, random_state=seed)
    parts = {**parts, "source": parts["source"][train], "held": parts["source"][held]}
    known = set(label[parts["source"]])
    absent = (set(label[np.isin(who, [pair.source, pair.target])]) - {""}) - known
    if absent:
        context.warn(
            f"{pair.source} to {pair.target}: left out, since the training recordings of "
            f"{pair.source} or those of {pair.target} lack them: {', '.join(sorted(absent))}"
        )
    _refuse_few(pair, known)
    return {name: own[np.isin(label[own], list(known))] for name, own in parts.items()}


def _refuse_few(pair: Pair, classes: set[str]) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{pair.source} to {pair.target}: both have the classes {sorted(classes)}, expected "
            "two or more"
        )


def score_pair(
    data: xr.Dataset,
    parts: dict[str, NDArray[np.intp]],
    settings: dict[str, Any],
    context: Context | None = None,
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, dict[str, float]]]:
    """Train every model on one pair.

    Parameters
    ----------
    data : Dataset
    parts : dict of ndarray
        Trials: ``source`` (labelled), ``held`` (of the source, for probes), ``adapt`` (target,
        labels hidden) and ``score``.
    settings : dict
        ``network``: parameters of `timeseries.dts.DTS`; ``raw`` ("statistics" or "samples") and
        ``seed``.
    context : Context, optional

    Returns
    -------
    right : dict of ndarray
        By model, which scored trials were right.
    segments : dict of dict
        The six columns, see `timeseries.adapt.segment_table`.
    """
    signal, label = as_signal(data), data["class"].values.astype(str)
    source, target, score = (parts[name] for name in ("source", "adapt", "score"))
    truth = label[score]
    network, seed = settings["network"], settings["seed"]

    def right(model: Any) -> NDArray[np.bool_]:
        where = ["target"] * len(score)
        return np.asarray(model.predict(signal.isel(trial=score), domain=where)) == truth

    dts = _dts(network, seed, signal, source, label[source], target)
    plain = {**network, "domain_weight": 0.0, "adversarial_weight": 0.0}
    unaligned = _dts(plain, seed, signal, source, label[source], target)
    alone = supervised(network, seed, signal, source, label[source])
    upper = supervised(network, seed, signal, target, label[target])
    found = {
        "dts": right(dts),
        "unaligned": right(unaligned),
        "source_only": right(alone),
        "supervised": right(upper),
    }
    features = _features(signal, source, target, settings)
    for name in ("vae", "pca", "raw"):
        model = _linear().fit(features[name](source), label[source])
        found[name] = model.predict(features[name](score)) == truth
    others = _others(data, source, target, label)
    model = _linear().fit(features["raw"](others), label[others])
    found["raw_everyone"] = model.predict(features["raw"](score)) == truth
    probed = np.concatenate([parts["held"], score])
    where = np.repeat(["source", "target"], [len(parts["held"]), len(score)])
    codes = {name: np.asarray(dts.segment(signal.isel(trial=probed), name, domain=where))
             for name in ("g_y", "g_d")}  # fmt: skip
    groups = stretches(data)[probed]
    return found, segment_table(codes, label[probed], where, groups, "target")


def stretches(data: xr.Dataset) -> NDArray[np.intp]:
    """Number the stretches of one recording and class: windows of one overlap.

    Examples
    --------
    >>> labels = {"recording": ("trial", list("aabb")), "class": ("trial", list("xyyy"))}
    >>> stretches(xr.Dataset(coords=labels))
    array([0, 1, 2, 2])
    """
    recording, label = data["recording"].values, data["class"].values
    new = (recording[1:] != recording[:-1]) | (label[1:] != label[:-1])
    return np.concatenate([[0], np.cumsum(new)]).astype(np.intp)


def _dts(
    network: dict[str, Any], seed: int, signal: xr.DataArray, source: Any, label: Any, target: Any
) -> Any:
    from timeseries.dts import DTS

    rows = np.concatenate([source, target])
    domain = np.repeat(["source", "target"], [len(source), len(target)])
    known = np.concatenate([label, np.full(len(target), "", label.dtype)])
    return DTS(random_state=seed, **network).fit(signal.isel(trial=rows), known, domain=domain)


def supervised(
    network: dict[str, Any], seed: int, signal: xr.DataArray, rows: Any, label: Any
) -> Any:
    """Train the network of DTS on labelled trials alone; two domains are named, and weigh nothing.

    Parameters
    ----------
    network : dict
        Parameters of `timeseries.dts.DTS`; the weights of domain and crossed heads become 0, and
        channels are standardised by all training trials.
    seed : int
    signal : DataArray (trial, channel, time)
    rows : ndarray of int
        Its training trials.
    label : ndarray of str, shape (row,)

    Returns
    -------
    DTS
    """
    from timeseries.dts import DTS

    settings = {
        **network, "domain_weight": 0.0, "adversarial_weight": 0.0, "standardise": "all",
    }  # fmt: skip
    halves = np.where(np.arange(len(rows)) % 2, "a", "b")
    return DTS(random_state=seed, **settings).fit(signal.isel(trial=rows), label, domain=halves)


def _others(data: xr.Dataset, source: Any, target: Any, label: Any) -> NDArray[np.intp]:
    """Return the labelled trials of everyone but the target, of the classes of the source."""
    who = data["subject"].values
    known = np.isin(label, np.unique(label[source]))
    return np.flatnonzero((who != who[target[0]]) & known)


def _features(
    signal: xr.DataArray, source: Any, target: Any, settings: dict[str, Any]
) -> dict[str, Callable[[Any], NDArray[Any]]]:
    """Return what a linear classifier sees, by model."""
    from timeseries.downstream import SeriesPCA, summary_features
    from timeseries.vae import SeriesVAE

    network, seed = settings["network"], settings["seed"]
    X, mask = signal.values, signal["mask"].values if "mask" in signal.coords else None
    n_latents = network.get("n_label_latents", 12) + network.get("n_domain_latents", 4)
    kept = {k: v for k, v in network.items() if k in _SHARED}
    vae = SeriesVAE(preset="vae", n_latents=n_latents, random_state=seed, **kept)
    vae.fit(signal.isel(trial=np.concatenate([source, target])))

    def at(rows: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        return X[rows], None if mask is None else mask[rows]

    pca, flat = (SeriesPCA(n, seed).fit(*at(source)) for n in (n_latents, None))
    samples = settings.get("raw", "statistics") == "samples"
    return {
        "vae": lambda rows: np.asarray(vae.transform(signal.isel(trial=rows))),
        "pca": lambda rows: pca.transform(*at(rows)),
        "raw": lambda rows: flat.transform(*at(rows)) if samples else summary_features(*at(rows)),
    }


_SHARED = (
    "network", "n_hidden", "max_epochs", "batch_size", "learning_rate", "sigma", "device",
)  # fmt: skip


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))


def _commonest(data: xr.Dataset, parts: dict[str, NDArray[np.intp]]) -> float:
    _, counts = np.unique(data["class"].values[parts["score"]].astype(str), return_counts=True)
    return float(counts.max() / counts.sum())
