"""The logic of the RF stages: bursts in, split, trained, scored, enrolled and probed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from neuro.stage import Context
    from timeseries.rf.drrff import DRRFF
    from timeseries.rf.evaluate import Fingerprints

CITATION = "xie2023"
NAMES = {
    (False, "none"): "ml_rff", (False, "awgn"): "awgn", (False, "fir"): "fir",
    (False, "awgn_fir"): "awgn_fir", (True, "none"): "dr_rff", (True, "awgn"): "dr_awgn",
    (True, "fir"): "dr_fir", (True, "awgn_fir"): "dr_awgn_fir",
}  # fmt: skip
"""How a model is called by whether it disentangles and how it augments."""


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
        found = prepare_dataset(simulate_bursts(simulated, settings["seed"]), steps)
        context.method(
            f"Bursts of {simulated.n_known} known, {simulated.n_validation} validation and "
            f"{simulated.n_unknown} unknown devices were simulated; training bursts came through "
            f"the channel '{simulated.train_channel}' only."
        )
    else:
        found = _read(settings, steps, context)
    context.section("Bursts", *plots.bursts_blocks(found))
    return found


def _read(settings: dict[str, Any], steps: Any, context: Context) -> xr.Dataset:
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
    return found


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


def model_name(model: DRRFF) -> str:
    """Return the short name of a model, see `NAMES`."""
    return NAMES[bool(model.disentangle and model.lam > 0), model.augmentation]


# Scores ---------------------------------------------------------------------------------------


def score(
    data: xr.Dataset, models: Sequence[Any], settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Score extractors beside hand-made features and return the table of all numbers."""
    from timeseries.rf import plots
    from timeseries.rf.evaluate import evaluate

    methods = fingerprints(data, models)
    references = {f"dr_{k}": k for k in ("awgn", "fir", "awgn_fir")} | {"dr_rff": "awgn_fir"}
    found = evaluate(
        data, methods, references=references, n_boot=settings["n_boot"],
        random_state=settings["seed"], progress=context.progress,
    )  # fmt: skip
    for name, estimate in found.estimates.items():
        estimate.record(context, name)
    tested = np.unique(data["device"].values[data["part"].values == "test"])
    context.scored(hashlib.sha256("\2".join(map(str, tested)).encode()).hexdigest()[:16])
    context.section("Which device, and is it known?", *plots.score_blocks(found, data))
    context.method(
        "Fingerprints were compared by their cosine over all pairs of bursts; thresholds were set "
        "on validation devices; intervals are over devices."
    )
    return pd.DataFrame(plots.estimate_rows(found.estimates))


def fingerprints(data: xr.Dataset, models: Sequence[Any]) -> dict[str, Fingerprints]:
    """Send all bursts through every model, and through hand-made features."""
    from timeseries.rf.evaluate import Fingerprints
    from timeseries.rf.features import HandFeatures

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
        context.warn("there is no validation device: the threshold is 0, and means nothing")
    text = (
        f"{len(found.devices)} devices are enrolled; a burst counts as a device's from a cosine of "
        f"{found.threshold:.3f} on."
    )
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
