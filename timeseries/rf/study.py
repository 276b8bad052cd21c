"""The logic of the RF stages: bursts in, split, trained, scored, enrolled and probed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from neuro.stage import Context
    from neuro.validation import Estimate
    from timeseries.rf.drrff import DRRFF
    from timeseries.rf.evaluate import Fingerprints, Scores
    from timeseries.rf.plots import Before

CITATION = "xie2023"
_README = 6000  # characters of what comes with captures
_FEW_STEPS = 200  # of training


# Bursts ---------------------------------------------------------------------------------------


def bursts(settings: dict[str, Any], context: Context) -> xr.Dataset:
    """Read the bursts of captures, or simulate a study."""
    from timeseries.rf import plots
    from timeseries.rf.preprocess import Steps, prepare_dataset
    from timeseries.rf.simulate import Study, simulate_bursts

    own = {field.name for field in fields(Steps)}
    steps = Steps(**{k: v for k, v in settings.items() if k in own})
    if settings["files"] is None:
        simulated = Study(**settings["simulate"])
        received = simulate_bursts(simulated, settings["seed"])
        found = prepare_dataset(received, steps)
        before = _simulated_before(received)
        context.method(
            f"Bursts of {simulated.n_known} known, {simulated.n_validation} validation and "
            f"{simulated.n_unknown} unknown devices were simulated; training bursts came through "
            f"the channel '{simulated.train_channel}' only."
        )
    else:
        found, before = _read(settings, steps, context)
        _caveats(settings, context)
    context.section("Bursts", *plots.bursts_blocks(found, before))
    return found


def _simulated_before(data: xr.Dataset) -> Before:
    def before(row: int) -> tuple[Any, float]:
        i, q = data["signal"].values[row]
        return i + 1j * q, float(data.attrs["sfreq"])

    return before


def _caveats(settings: dict[str, Any], context: Context) -> None:
    """Show what the workflow says of its captures, and what lies beside them."""
    from neuro.report import Text
    from timeseries.companions import readmes

    for caveat in settings["caveats"]:
        context.mark(caveat)
    for readme in readmes([Path(path) for path in settings["files"]]):
        text = readme.read_text(encoding="utf-8", errors="replace")
        more = f"\n\n... ({len(text)} characters in all)" if len(text) > _README else ""
        context.section(f"What {readme.name} says of the captures", Text(text[:_README] + more))
        context.warn(f"{readme.name} beside the captures is in the report; read it first")


def _read(settings: dict[str, Any], steps: Any, context: Context) -> tuple[xr.Dataset, Before]:
    from timeseries.read import read_capture
    from timeseries.rf.bursts import Detector
    from timeseries.rf.preprocess import read_bursts

    paths = [Path(path) for path in settings["files"]]
    labels = [_label(path, settings["pattern"]) for path in paths]
    captures = [
        read_capture(
            path, sfreq=settings["capture_sfreq"], centre=settings["centre"],
            datatype=settings["datatype"],
        )
        for path in paths
    ]  # fmt: skip
    for note in sorted({note for capture in captures for note in capture.notes}):
        n = sum(note in capture.notes for capture in captures)
        context.warn(f"{n} of {len(captures)} captures: {note}")
    found = read_bursts(
        captures, labels, steps, detector=Detector(**settings["detect"]),
        bursts=settings["bursts"], progress=context.progress,
    )  # fmt: skip
    unnamed = np.unique(found["capture"].values[found["device"].values == ""])
    if len(unnamed):
        raise DataError(
            f"{len(unnamed)} captures say nothing of their device ({', '.join(unnamed[:3])} ...); "
            "give a pattern with the group 'device'"
        )
    if found["clipped"].values.any():
        context.warn(f"{int(found['clipped'].values.sum())} bursts are clipped by the receiver")
    context.method(
        f"{found.sizes['trial']} bursts of {len(np.unique(found['device'].values))} devices were "
        f"cut from {len(captures)} captures."
    )
    by_name = {label["capture"]: capture for label, capture in zip(labels, captures, strict=True)}

    def before(row: int) -> tuple[Any, float]:
        one = found.isel(trial=row)
        capture, start = by_name[str(one["capture"].values)], int(one["start"])
        width = int(np.ceil(steps.n_samples * capture.sfreq / found.attrs["sfreq"]))
        return capture.samples(start, start + width), capture.sfreq

    return found, before


def _label(path: Path, pattern: str | None) -> dict[str, str]:
    label = {"device": "", "session": "", "capture": path.name.split(".")[0]}
    if pattern is None:
        return label
    try:
        match = re.search(pattern, path.name)
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is no regular expression ({error})") from error
    if match is None or "device" not in match.groupdict():
        raise InputError(
            f"{path.name}: pattern {pattern!r} finds no group 'device'; write it as (?P<device>...)"
        )
    return {**label, **{k: v for k, v in match.groupdict().items() if v is not None}}


def split(data: xr.Dataset, settings: dict[str, Any], context: Context) -> xr.Dataset:
    """Say of every burst what it serves for."""
    from neuro.report import Table, Text, Warning
    from timeseries.rf.split import split_bursts

    simulated = "part" in data.coords
    seed = settings.pop("seed")
    found = split_bursts(data, random_state=seed, **settings)
    table = pd.DataFrame({k: found[k].values for k in ("group", "part", "device", "capture")})
    counts = table.groupby(["group", "part"]).agg(
        devices=("device", "nunique"), captures=("capture", "nunique"), bursts=("device", "size")
    )
    blocks: list[Any] = [Table(counts.reset_index().to_dict("records"), "What serves for what.")]
    if not simulated:
        blocks.append(Text(
            "Captures, not bursts, are split: bursts of one capture share receiver and place. No "
            "capture is known to come through another channel, so that nothing here tests that."
        ))  # fmt: skip
    if found.attrs.get("confounded"):
        blocks.append(Warning(
            "Every device was captured once: device, content and session are confounded. No figure "
            "below is evidence that a *device* is recognised."
        ))  # fmt: skip
        context.warn("each device was captured once: device and session are confounded")
    context.section("Split", *blocks)
    return found


# Training -------------------------------------------------------------------------------------


def train(data: xr.Dataset, settings: dict[str, Any], context: Context) -> DRRFF:
    """Train one extractor."""
    from neuro.report import Figure
    from timeseries.rf import plots
    from timeseries.rf.drrff import DRRFF

    rows = np.flatnonzero(data["part"].values.astype(str) == "train")
    if not len(rows):
        raise DataError("no burst serves for training")
    own = data.isel(trial=rows)
    model = DRRFF(random_state=settings.pop("seed"), **settings)
    model.fit(own["signal"].assign_attrs(own.attrs), scratch=context.scratch,
              progress=context.progress)  # fmt: skip
    _warn_of_few_steps(model, len(rows), context)
    figure = plots.history_figure(model.history_)
    context.section(
        f"Training · {model_name(model)}", Figure(figure, "Losses by epoch; see the methods.")
    )
    kind = "with" if model.disentangle else "without"
    context.method(
        f"A fingerprint extractor was trained on {len(rows)} bursts of {len(model.classes_)} "
        f"devices {kind} disentangling (augmentation: {model.augmentation}).",
        CITATION,
    )
    return model


def _warn_of_few_steps(model: DRRFF, n_bursts: int, context: Context) -> None:
    from timeseries.rf.drrff import PRESETS

    size, epochs = (
        int(PRESETS[model.preset][name] if (own := getattr(model, name)) is None else own)
        for name in ("batch_size", "max_epochs")
    )
    steps = epochs * max(1, n_bursts // size)
    if steps < _FEW_STEPS:
        context.warn(
            f"{n_bursts} bursts in batches of {size} make {steps} training steps in {epochs} "
            "epochs: networks hardly learn in so few; lower batch_size, raise max_epochs"
        )


def model_name(model: DRRFF) -> str:
    """Return the short name of a model by its augmentation and whether it disentangles."""
    plain = {"none": "rff"}.get(model.augmentation, model.augmentation)
    if model.disentangle and model.lam > 0:
        return f"dr_{plain}"
    return {"rff": "ml_rff"}.get(plain, plain)


# Scores ---------------------------------------------------------------------------------------


def score(
    data: xr.Dataset, models: Sequence[Any], settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Score extractors beside hand-made features and return the table of all numbers."""
    from timeseries.rf.evaluate import evaluate
    from timeseries.rf.plots import estimate_rows
    from timeseries.rf.score_plots import score_blocks

    methods = fingerprints(data, models)
    found = evaluate(
        data, methods, references=_references(methods), n_boot=settings["n_boot"],
        random_state=settings["seed"], progress=context.progress,
    )  # fmt: skip
    for name, estimate in found.estimates.items():
        estimate.record(context, name)
    _count_scoring([data], context)
    context.section("Which device, and is it known?", *score_blocks(found, methods, data))
    context.method(
        "Fingerprints were compared by their cosine over all pairs of bursts; thresholds were set "
        "on validation devices; intervals are over devices."
    )
    return pd.DataFrame(estimate_rows(found.estimates))


def _references(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what each model is compared with, beside ML-RFF.

    Disentangling is held against plain augmentation and, on top of one, against it and without it.
    """
    found: dict[str, tuple[str, ...]] = {"pulses": ("features",)}
    for name in names:
        if name == "dr_rff":
            found[name] = ("awgn", "fir", "awgn_fir")
        elif name.startswith("dr_"):
            found[name] = (name.removeprefix("dr_"), "dr_rff")
    return found


def _count_scoring(datasets: Sequence[xr.Dataset], context: Context) -> None:
    digest = hashlib.sha256()
    for data in datasets:
        tested = np.unique(data["device"].values[data["part"].values == "test"])
        digest.update("\2".join(map(str, tested)).encode())
    context.scored(digest.hexdigest()[:16])


def fingerprints(data: xr.Dataset, models: Sequence[Any]) -> dict[str, Fingerprints]:
    """Send all bursts through every model, hand-made features, and pulse widths of captures."""
    from timeseries.rf.evaluate import Fingerprints
    from timeseries.rf.features import Discriminant, HandFeatures

    signal = data["signal"].assign_attrs(data.attrs)
    found = {}
    for model in models:
        name = model_name(model)
        if name in found:
            raise InputError(f"two models are both '{name}'; score one seed at a time")
        found[name] = Fingerprints(np.asarray(model.transform(signal)), model.predict(signal))
    train = np.flatnonzero(data["part"].values.astype(str) == "train")
    hand = HandFeatures(float(data.attrs["sfreq"])).fit(
        signal.values[train], data["device"].values[train]
    )
    found["features"] = Fingerprints(hand.transform(signal.values), hand.predict(signal.values))
    if "widths" in data.coords:
        widths = data["widths"].values
        content = Discriminant().fit(widths[train], data["device"].values[train])
        found["pulses"] = Fingerprints(content.transform(widths), content.predict(widths))
    return found


def enrolled(data: xr.Dataset, encoder: Any, context: Context) -> xr.Dataset:
    """Enrol the known devices; the threshold is that of the validation devices."""
    from neuro.report import Text
    from timeseries.rf.evaluate import enrol_groups

    codes = np.asarray(encoder.transform(data["signal"].assign_attrs(data.attrs)))
    groups = enrol_groups(codes, data)
    if "known" not in groups:
        raise DataError("no burst of a known device serves for enrolment")
    found = groups["known"]
    if "validation" not in groups:
        context.warn("there are no validation devices: no threshold, nothing is 'never seen'")
    text = f"{len(found.devices)} devices are enrolled; " + (
        "without validation devices there is no threshold, and every burst goes to its nearest "
        "device." if np.isnan(found.threshold) else
        f"a burst counts as a device's from a cosine of {found.threshold:.3f} on."
    )  # fmt: skip
    context.section("Enrolment", Text(text))
    return found.to_dataset(encoder.name)


def probed(
    data: xr.Dataset, encoder: Any, settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Probe what leaks, and show what swapping does."""
    from timeseries.rf import plots
    from timeseries.rf.probe import probe

    found = probe(
        encoder, data, max_epochs=settings["max_epochs"], random_state=settings["seed"],
        progress=context.progress,
    )  # fmt: skip
    for name, estimate in found.items():
        estimate.record(context, name)
    context.section("What is device, what is channel", *plots.probe_blocks(found, encoder, data))
    return pd.DataFrame(plots.estimate_rows(found))


# Over seeds -----------------------------------------------------------------------------------


def pooled(
    datasets: Sequence[xr.Dataset], models: Sequence[Any], probes: Sequence[pd.DataFrame],
    settings: dict[str, Any], context: Context,
) -> pd.DataFrame:  # fmt: skip
    """Score the models of every seed on its own devices, and pool over seeds."""
    from timeseries.rf.evaluate import evaluate
    from timeseries.rf.plots import estimate_rows
    from timeseries.rf.pool import members_by_seed, pool_probes, pool_scores

    labels = context.members["bursts"]
    members = members_by_seed(labels, context.members["models"])
    seed, scores = settings["seed"], []
    places = list(range(len(datasets)))
    for place in context.progress(places, "seeds", len(places)):
        methods = fingerprints(datasets[place], [models[k] for k in members[place]])
        scores.append(
            evaluate(
                datasets[place], methods, n_boot=settings["n_boot"],
                random_state=1000 * seed + place,
            )
        )  # fmt: skip
    found = pool_scores(scores, _references(methods), seed)
    leaks = pool_probes(probes, seed) if probes else {}
    for name, estimate in {**found.estimates, **leaks}.items():
        estimate.record(context, name)
    for key, estimate in found.differences.items():
        estimate.record(context, "difference." + ".".join(key))
    _count_scoring(datasets, context)
    _report_pooled(found, scores, leaks, labels, context)
    return pd.DataFrame(estimate_rows(found.estimates))


def _report_pooled(
    found: Scores, scores: Sequence[Scores], leaks: dict[str, Estimate],
    labels: Sequence[dict[str, Any]], context: Context,
) -> None:  # fmt: skip
    from neuro.report import Table
    from timeseries.rf.plots import estimate_rows
    from timeseries.rf.score_plots import score_blocks, seed_rows

    over = f"{len(scores)} seeds and the devices of each"
    context.section("Over all seeds", *score_blocks(found, over=over))
    if leaks:
        context.section("What is device, what is channel", Table(
            estimate_rows(leaks), "Fresh classifiers; intervals over seeds."
        ))  # fmt: skip
    context.section("Seed by seed", Table(seed_rows(scores, labels), "EER of all pairs."))
    context.method(
        f"Devices, channels and models were drawn anew for {len(scores)} seeds; scores were "
        "averaged over seeds, with intervals by a bootstrap of seeds and of devices inside each, "
        "widened for few seeds."
    )
