"""The study of adaptation: many pairs of persons, one table of models, six columns of segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.data import as_signal, split_groups
from neuro.errors import DataError
from neuro.validation import paired_difference, summarise
from timeseries.adapt import Pair, draw_pairs, pair_trials, segment_table

if TYPE_CHECKING:
    from neuro.stage import Context

__all__ = ["MODELS", "adapt", "score_pair", "stretches"]

MODELS = ("dts", "unaligned", "source_only", "supervised", "vae", "pca", "raw")
_SEGMENTS = {"class": "C", "domain": "D"}


def adapt(data: xr.Dataset, settings: dict[str, Any], context: Context) -> pd.DataFrame:
    """Train on each source and its unlabelled target, score on other recordings of the target.

    Parameters
    ----------
    data : Dataset
        With ``subject``, ``recording`` and ``class`` on ``trial``.
    settings : dict
        ``n_pairs``, ``score_size``, ``seed``, and under ``network`` parameters of DTS.
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
    pairs = draw_pairs(data["subject"].values, settings["n_pairs"], seed)
    found: list[dict[str, Any]] = []
    tables: list[dict[str, dict[str, float]]] = []
    for pair in context.progress(pairs, "pairs"):
        try:
            parts = _parts(data, pair, settings, context)
        except DataError as error:
            context.warn(f"left out: {error}")
            continue
        right, table = score_pair(data, parts, settings["network"], seed, context)
        tables.append(table)
        _tell_pair(pair, right, data, parts, context)
        found += [
            {"source": pair.source, "target": pair.target, "model": model, "n": len(hits),
             "accuracy": float(hits.mean()), "chance": _commonest(data, parts)}
            for model, hits in right.items()
        ]  # fmt: skip
    if not found:
        raise DataError("no pair of persons could be scored; see the warnings")
    scores = pd.DataFrame(found)
    _tell(scores, tables, len(pairs), context)
    return scores


def _parts(
    data: xr.Dataset, pair: Pair, settings: dict[str, Any], context: Context
) -> dict[str, NDArray[np.intp]]:
    """Return the trials of a pair, with recordings of the source held out for the probes.

    Classes that the source's training recordings lack can't be told and are left out.
    """
    size, seed = settings["score_size"], settings["seed"]
    who, label = data["subject"].values.astype(str), data["class"].values.astype(str)
    both = set(label[who == pair.source]) & set(label[who == pair.target]) - {""}
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
    return {name: own[np.isin(label[own], list(known))] for name, own in parts.items()}


def score_pair(
    data: xr.Dataset,
    parts: dict[str, NDArray[np.intp]],
    network: dict[str, Any],
    seed: int,
    context: Context | None = None,
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, dict[str, float]]]:
    """Train every model on one pair.

    Parameters
    ----------
    data : Dataset
    parts : dict of ndarray
        Trials: ``source`` (labelled), ``held`` (of the source, for probes), ``adapt`` (target,
        labels hidden) and ``score``.
    network : dict
        Parameters of `timeseries.dts.DTS`.
    seed : int
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

    def right(model: Any) -> NDArray[np.bool_]:
        return np.asarray(model.predict(signal.isel(trial=score))) == truth

    dts = _dts(network, seed, signal, source, label[source], target)
    plain = {**network, "domain_weight": 0.0, "adversarial_weight": 0.0}
    unaligned = _dts(plain, seed, signal, source, label[source], target)
    alone = _alone(network, seed, signal, source, label[source])
    upper = _alone(network, seed, signal, target, label[target])
    found = {
        "dts": right(dts),
        "unaligned": right(unaligned),
        "source_only": right(alone),
        "supervised": right(upper),
    }
    for name, features in _features(signal, source, target, network, seed).items():
        model = _linear().fit(features(source), label[source])
        found[name] = model.predict(features(score)) == truth
    probed = np.concatenate([parts["held"], score])
    where = np.repeat(["source", "target"], [len(parts["held"]), len(score)])
    codes = {name: np.asarray(dts.segment(signal.isel(trial=probed), name))
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


def _alone(network: dict[str, Any], seed: int, signal: xr.DataArray, rows: Any, label: Any) -> Any:
    """Train the same network on one labelled person; two domains are named, and weigh nothing."""
    from timeseries.dts import DTS

    settings = {**network, "domain_weight": 0.0, "adversarial_weight": 0.0}
    halves = np.where(np.arange(len(rows)) % 2, "a", "b")
    return DTS(random_state=seed, **settings).fit(signal.isel(trial=rows), label, domain=halves)


def _features(
    signal: xr.DataArray, source: Any, target: Any, network: dict[str, Any], seed: int
) -> dict[str, Callable[[Any], NDArray[Any]]]:
    """Return what a linear classifier sees, by model."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from timeseries.downstream import summary_features
    from timeseries.vae import SeriesVAE

    values = signal.values
    mask = signal["mask"].values if "mask" in signal.coords else None
    n_latents = network.get("n_label_latents", 12) + network.get("n_domain_latents", 4)
    kept = {k: v for k, v in network.items() if k in _SHARED}
    vae = SeriesVAE(preset="vae", n_latents=n_latents, random_state=seed, **kept)
    vae.fit(signal.isel(trial=np.concatenate([source, target])))
    flat = values.reshape(len(values), -1)
    pca = make_pipeline(
        StandardScaler(), PCA(min(n_latents, len(source), flat.shape[1]), random_state=seed)
    )
    pca.fit(flat[source])
    plain = summary_features(values, mask)
    return {
        "vae": lambda rows: np.asarray(vae.transform(signal.isel(trial=rows))),
        "pca": lambda rows: np.asarray(pca.transform(flat[rows])),
        "raw": lambda rows: plain[rows],
    }


_SHARED = ("network", "n_hidden", "max_epochs", "batch_size", "learning_rate", "device")


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))


def _commonest(data: xr.Dataset, parts: dict[str, NDArray[np.intp]]) -> float:
    _, counts = np.unique(data["class"].values[parts["score"]].astype(str), return_counts=True)
    return float(counts.max() / counts.sum())


def _tell_pair(
    pair: Pair, right: dict[str, NDArray[np.bool_]], data: xr.Dataset, parts: Any, context: Context
) -> None:
    units = stretches(data)[parts["score"]]
    for model, hits in right.items():
        estimate = summarise(
            hits.astype(float), units=units, n_unit="stretch", chance=_commonest(data, parts)
        )
        estimate.record(context, f"adapt.{pair.source}-{pair.target}.{model}.accuracy")


def _tell(
    scores: pd.DataFrame, tables: list[dict[str, dict[str, float]]], asked: int, context: Context
) -> None:
    from neuro.report import Table, Text

    chance = float(scores.groupby(["source", "target"])["chance"].first().mean())
    wide = scores.pivot(index=["source", "target"], columns="model", values="accuracy")[
        list(MODELS)
    ]
    rows = []
    for model in MODELS:
        estimate = summarise(wide[model].to_numpy(), n_unit="pair", chance=chance)
        estimate.record(context, f"adapt.mean.{model}.accuracy")
        gain = paired_difference(
            wide[model].to_numpy(), wide["source_only"].to_numpy(), n_unit="pair"
        )
        if model != "dts":
            paired_difference(wide["dts"].to_numpy(), wide[model].to_numpy(), n_unit="pair").record(
                context, f"adapt.difference.dts.{model}"
            )
        rows.append({"model": model, "accuracy": estimate.value, "low": estimate.low,
                     "high": estimate.high, "minus source_only": gain.value,
                     "from": gain.low, "to": gain.high})  # fmt: skip
    context.section(
        "From a labelled person to an unlabelled one",
        Text(
            f"{len(wide)} of {asked} pairs, drawn by the seed before any training, were scored, "
            "each on recordings of the target that nothing was adapted to. No label of the "
            "target was used, but by 'supervised', which is trained on the target's own labels of "
            "the part that others adapt to and is an upper reference. 'dts', 'unaligned' (the same "
            "without domain and crossed heads: what the heads are worth) and 'vae' see and "
            "standardise by source and unlabelled target together, all others by what they were "
            "trained on. 'raw' are simple statistics of each channel. A person may be in several "
            "pairs, so that intervals over pairs are rather too narrow."
        ),
        Table(rows, f"Accuracy, mean over pairs; chance (commonest class) {chance:.3f}."),
        Table(wide.reset_index().to_dict("records"), "Accuracy of every pair."),
    )
    _tell_segments(tables, context)


def _tell_segments(tables: list[dict[str, dict[str, float]]], context: Context) -> None:
    from neuro.report import Table

    rows = []
    for segment in ("g_y", "g_d"):
        each = pd.DataFrame([table[segment] for table in tables])
        rows.append({"segment": segment, **each.mean().to_dict()})
        for what, letter in _SEGMENTS.items():
            both = each[[f"Acc/{letter}-S", f"Acc/{letter}-T"]].mean(axis=1)
            estimate = summarise(both.to_numpy(), n_unit="pair")
            estimate.record(context, f"segment.{segment}.{what}.accuracy")
    context.section("What each segment tells", Table(rows, (
        "Fresh linear probes, five-fold over stretches, on trials that DTS was not trained on; "
        "mean over pairs. D domain, C class, S source, T target."
    )))  # fmt: skip
