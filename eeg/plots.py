"""The EEG part of a report: datasets, models and scores in, blocks of `neuro.report` out.

The stages hand these blocks to ``context.section``; the pictures themselves are in `eeg.figures`.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg import figures
from eeg.draw import Floats, positions_of
from neuro.report import Block, Figure, Table, Text, Warning

if TYPE_CHECKING:
    import xarray as xr

MAX_LABEL_CLASSES = 12
SENSORS = ("Fz", "Cz", "Pz", "Oz", "P3", "P4", "PO7", "PO8", "AF7", "AF8", "TP9", "TP10")
KEPT_KL = 0.01


# -- recordings and preprocessing --------------------------------------------------------------


def catalogue_blocks(catalogue: xr.Dataset) -> list[Block]:
    """Describe the recordings that were found: counts, labels, a table with one row each.

    Parameters
    ----------
    catalogue : xarray.Dataset
        One entry on ``trial`` per recording.
    """
    n, subjects = catalogue.sizes["trial"], set(catalogue["subject"].values.tolist())
    blocks: list[Block] = [Text(f"{n} recordings of {len(subjects)} subjects.")]
    blocks += _label_blocks(catalogue)
    labels = list(catalogue.attrs.get("labels", []))
    shown = ["recording", "subject", "session", "run", *labels]
    columns = {name: catalogue[name].values.tolist() for name in shown if name in catalogue.coords}
    filled = {k: v for k, v in columns.items() if any(entry not in ("", None) for entry in v)}
    rows = [dict(zip(filled, row, strict=True)) for row in zip(*filled.values(), strict=True)]
    return [*blocks, Table(rows, "Recordings.")]


def cohort_blocks(data: xr.Dataset) -> list[Block]:
    """Describe trials: how many of whom, labels, conditions, channels and where they sit.

    Parameters
    ----------
    data : xarray.Dataset
        ``signal`` (trial, channel, time).
    """
    n_trials, n_channels = data.sizes["trial"], data.sizes["channel"]
    times = data["time"].values
    subjects = dict.fromkeys(data["subject"].values.astype(str).tolist())
    blocks: list[Block] = [
        Text(
            f"{n_trials:,} trials of {len(subjects)} subjects, {n_channels} channels, "
            f"{times[0] * 1e3:.0f} to {times[-1] * 1e3:.0f} ms around the stimulus at "
            f"{data.attrs.get('sfreq', float('nan')):g} Hz."
        )
    ]
    if "simulated" in data.attrs:
        blocks.append(
            Warning("These trials were simulated. They show that the workflow runs, not biology.")
        )
    blocks += [*_condition_blocks(data), *_label_blocks(data)]
    if (positions := positions_of(data)) is not None:
        blocks.append(Figure(figures.sensor_figure(positions), "Sensors, seen from above."))
    return blocks


def _condition_blocks(data: xr.Dataset) -> list[Block]:
    if "condition" not in data.coords:
        return []
    subject = data["subject"].values.astype(str)
    condition = data["condition"].values.astype(str)
    rows = []
    for name in dict.fromkeys(condition.tolist()):
        counts = list(Counter(subject[condition == name].tolist()).values())
        least, most = min(counts), max(counts)
        row = {"condition": name, "trials": sum(counts), "subjects": len(counts)}
        rows.append({**row, "fewest per subject": least, "most per subject": most})
    return [Table(rows, "Trials per condition.")]


def _label_blocks(data: xr.Dataset) -> list[Block]:
    """Count the subjects (not the trials) of every class of every label."""
    subject = data["subject"].values.astype(str)
    _, first = np.unique(subject, return_index=True)
    rows = []
    for label in (name for name in data.attrs.get("labels", []) if name in data.coords):
        values = data[label].values[first].tolist()
        known = [value for value in values if value == value and value not in ("", None)]
        rows.append(
            {"label": label, "subjects": _classes(known), "missing": len(values) - len(known)}
        )
    return [Table(rows, "Labels, counted in subjects.")] if rows else []


def _classes(values: Sequence[Any]) -> str:
    counts = Counter(values)
    if len(counts) > MAX_LABEL_CLASSES:
        if all(isinstance(value, int | float) for value in values):
            return f"{min(values):g} to {max(values):g} (median {np.median(values):g})"
        return f"{len(counts)} classes"
    named = {f"{c:g}" if isinstance(c, float) else str(c): n for c, n in counts.items()}
    return ", ".join(f"{name}: {n}" for name, n in sorted(named.items()))


def quality_blocks(data: xr.Dataset | Sequence[Mapping[str, Any]]) -> list[Block]:
    """Show what preprocessing did to each recording: channels, components, epochs, and why.

    Parameters
    ----------
    data : xarray.Dataset or sequence of mapping
        A dataset with the attribute ``quality``, or that list itself.
    """
    rows = _quality(data)
    if not rows:
        return [Text("No figures of preprocessing come with these trials.")]
    blocks: list[Block] = [Table([_quality_row(row) for row in rows], "Each recording.")]
    blocks += [_drops(rows)] if any(_kept(row) or row.get("dropped") for row in rows) else []
    bad = [
        {"recording": row.get("recording", ""), "channel": channel, "reason": reason}
        for row in rows
        for channel, reason in dict(row.get("bad_channels") or {}).items()
    ]
    blocks += [Table(bad, "Bad channels and why.")] if bad else []
    return blocks + _grouped(rows, "skipped") + _grouped(rows, "warnings")


def _quality(data: Any) -> list[Mapping[str, Any]]:
    stored = data.attrs.get("quality", "[]") if hasattr(data, "attrs") else data
    rows = json.loads(stored) if isinstance(stored, str) else stored
    return [row for row in rows if row.get("recording")]


def _kept(row: Mapping[str, Any]) -> int:
    return int(sum((row.get("epochs") or {}).get("after", {}).values()))


def _quality_row(row: Mapping[str, Any]) -> dict[str, Any]:
    before = int(sum((row.get("epochs") or {}).get("before", {}).values()))
    shown = {
        "recording": row.get("recording"),
        "subject": row.get("subject"),
        "channels": row.get("n_channels"),
        "rate (Hz)": row.get("sfreq"),
        "bad channels": len(row.get("bad_channels") or {}),
        "interpolated": len(row.get("interpolated") or []),
        "components removed": _components(row.get("ica")),
        "epochs found": before or None,
        "epochs kept": _kept(row) if before else None,
    }
    return {key: value for key, value in shown.items() if value is not None}


def _components(ica: Mapping[str, Any] | None) -> str | None:
    """Say how many independent components were removed, and what they were taken for."""
    if not ica:
        return None
    counts = Counter(part["type"] for part in ica.get("removed", []))
    return ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "none"


def _drops(rows: Sequence[Mapping[str, Any]]) -> Figure:
    totals = Counter[str]()
    for row in rows:
        totals.update(dict(row.get("dropped") or {}))
    reasons = [name for name, _ in totals.most_common(5)]
    dropped = {r: [int((row.get("dropped") or {}).get(r, 0)) for row in rows] for r in reasons}
    if len(totals) > len(reasons):
        all_dropped = [sum((row.get("dropped") or {}).values()) for row in rows]
        named = [sum(counts) for counts in zip(*dropped.values(), strict=True)]
        dropped["other"] = [a - b for a, b in zip(all_dropped, named, strict=True)]
    names = [str(row["recording"]) for row in rows]
    figure = figures.drops_figure(names, [_kept(row) for row in rows], dropped)
    return Figure(figure, "Epochs kept, and dropped by reason.")


def _grouped(rows: Sequence[Mapping[str, Any]], key: str) -> list[Block]:
    """Say once what was skipped or warned of in many recordings."""
    found: dict[str, list[str]] = {}
    for row in rows:
        entries = row.get(key) or {}
        texts = (
            [f"{k}: {v}" for k, v in entries.items()] if isinstance(entries, Mapping) else entries
        )
        for text in texts:
            found.setdefault(text, []).append(str(row["recording"]))
    word = "Skipped" if key == "skipped" else "Warning"
    return [
        Warning(f"{word} in {len(names)} of {len(rows)} recordings: {text} ({_some(names)})")
        for text, names in found.items()
    ]


def _some(names: Sequence[str], n: int = 5) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


# -- ERPs --------------------------------------------------------------------------------------


def erp_blocks(data: xr.Dataset, channels: Sequence[str] | None = None) -> list[Block]:
    """Show the grand average of each condition with maps, and chosen sensors with intervals.

    Parameters
    ----------
    data : xarray.Dataset
        Trials with ``subject`` and ``condition``, µV.
    channels : sequence of str, optional
        Sensors shown one by one; by default the midline and what else the cap offers.
    """
    from eeg.cohort import Cohort

    cohort = Cohort.of(data)
    names = [str(name) for name in data["channel"].values]
    shape = (len(cohort.subjects), len(cohort.conditions), len(names), data.sizes["time"])
    erps = cohort.mean().reshape(shape)
    times, conditions = cohort.times, cohort.conditions.tolist()
    averages = _nanmean(erps)
    chosen = [name for name in channels or _sensors(names, averages) if name in names]
    grand = figures.butterfly_figure(averages, times, conditions, positions_of(data))
    own = figures.sensors_figure(
        erps[:, :, [names.index(name) for name in chosen]], times, conditions, chosen
    )
    note = "Mean over the subjects' ERPs."
    return [
        Figure(grand, f"{note} Every sensor, the field power and maps at its peaks."),
        Figure(own, f"{note} Shaded: 95 % bootstrap interval over subjects."),
    ]


def _nanmean(erps: Floats) -> Floats:
    """Average over subjects that have the condition; every condition has one at least."""
    known = ~np.isnan(erps)
    return np.where(known, erps, 0).sum(axis=0, dtype=float) / np.maximum(known.sum(axis=0), 1)


def _sensors(names: Sequence[str], averages: Floats, n: int = 6) -> list[str]:
    """Choose the sensors one looks at first; then those with the largest deflections."""
    usual = [name for name in SENSORS if name in names]
    largest = np.argsort(-np.abs(averages).max(axis=(0, 2)), kind="stable")
    rest = [names[i] for i in largest if names[i] not in usual]
    return (usual + rest)[: min(n, len(names))]


# -- the model ---------------------------------------------------------------------------------


def training_blocks(
    history: Sequence[Mapping[str, Any]],
    kl: Floats | None = None,
    types: Sequence[str] | None = None,
) -> list[Block]:
    """Show the training curves and what every latent carries, with a warning where it is little.

    Parameters
    ----------
    history : sequence of mapping
        One mapping of loss terms per epoch.
    kl : array (latent,), optional
        Nats.
    types : sequence of str, optional
        ``"active"``, ``"mixed"`` or ``"passive"`` for each latent.
    """
    blocks: list[Block] = []
    if history:
        blocks.append(Figure(figures.training_figure(history), "Loss terms over the epochs."))
    if kl is None:
        return blocks
    caption = (
        "KL of each latent to its prior; dashed: the line above which it is kept. Colours: "
        "active, mixed and passive by the posterior variance (Bonheme and Grzes)."
    )
    blocks.append(Figure(figures.kl_figure(kl, types), caption))
    return blocks + _collapse_warnings(np.asarray(kl), types)


def _collapse_warnings(kl: Floats, types: Sequence[str] | None) -> list[Block]:
    if not (kl > KEPT_KL).any():
        return [Warning("No latent carries information (posterior collapse): lower beta.")]
    if types is not None and "passive" not in list(types):
        text = "No latent is passive: beta may be too small for the latents to be selective."
        return [Warning(text)]
    return []


def traversal_blocks(traversal: xr.DataArray, kept: Sequence[bool] | None = None) -> list[Block]:
    """Show what turning each kept latent does to the waveform.

    Parameters
    ----------
    traversal : xarray.DataArray (latent, value, channel, time)
        Decoded signals, µV; the attribute ``positions`` gives maps.
    kept : sequence of bool, optional
        Which latents to show; all by default.
    """
    if kept is not None:
        traversal = traversal.isel(latent=np.flatnonzero(np.asarray(kept)))
    if not traversal.sizes["latent"]:
        return [Warning("No latent is kept, so there is nothing to turn.")]
    figure = figures.traversal_figure(
        traversal.values,
        traversal["value"].values,
        traversal["time"].values,
        [str(name) for name in traversal["channel"].values],
        traversal["latent"].values.tolist(),
        positions_of(traversal),
    )
    caption = (
        "Latent traversals. Left: the sensor that changes most, for each value of the latent "
        "(others at their reference). Middle: the highest minus the lowest value at all sensors. "
        "Right: that difference where it is largest."
    )
    return [Figure(figure, caption)]


# -- scores ------------------------------------------------------------------------------------


def recovery_blocks(
    estimates: Mapping[str, Any], notes: Sequence[str] = (), highlight: str = "denoised"
) -> list[Block]:
    """Compare the predictors of a subject's ERP.

    Parameters
    ----------
    estimates : mapping
        ``"<predictor>.<number>"`` to an estimate (a mapping or dataclass with value, low, high),
        numbers ``r``, ``residual_r`` and ``mse_ratio``.
    notes : sequence of str
        What could not be computed and why.
    highlight : str
        The predictor drawn in the second colour.
    """
    titles = {
        "r": "correlation r",
        "residual_r": "residual correlation",
        "mse_ratio": "error / error of grand average",
    }
    panels: dict[str, dict[str, dict[str, Any]]] = {title: {} for title in titles.values()}
    for name, estimate in estimates.items():
        predictor, _, number = name.rpartition(".")
        if number in titles and not predictor.endswith("_pooled"):
            panels[titles[number]][predictor] = _fields(estimate)
    marks = {titles["mse_ratio"]: {"grand average": 1.0}, titles["residual_r"]: {"nothing": 0.0}}
    for number in ("r", "residual_r"):
        ceiling = panels[titles[number]].get("ceiling", {}).get("value")
        if ceiling is not None:
            marks.setdefault(titles[number], {})["ceiling"] = ceiling
    panels = {title: panel for title, panel in panels.items() if panel}
    figure = figures.intervals_figure(
        panels, marks=marks, highlight=[highlight], log=[titles["mse_ratio"]]
    )
    caption = (
        "One trial (or a few) against the ERP of the same held-out subject. Residual: after the "
        "training grand average was subtracted; plain r rewards a model that always answers with "
        "the grand average. Lines: 95 % intervals over subjects."
    )
    return [Figure(figure, caption), *(Warning(note) for note in notes)]


def denoised_blocks(
    examples: Sequence[Mapping[str, Any]],
    times: Floats,
    channels: Sequence[str],
    channel: str | None = None,
) -> list[Block]:
    """Show held-out single trials, denoised, beside the subject's ERP.

    Parameters
    ----------
    examples : sequence of mapping
        subject, condition, and raw, denoised, target, grand_average as (channel, time), µV.
    times : array (time,)
        s.
    channels : sequence of str
        Names of the sensors.
    channel : str, optional
        The sensor shown; by default the one with the largest ERP over all examples.
    """
    if not examples:
        return []
    target = np.stack([np.asarray(example["target"]) for example in examples])
    largest = int(np.abs(target).mean(axis=(0, 2)).argmax())
    sensor = list(channels).index(channel) if channel and channel in channels else largest
    waves = {
        key: np.stack([np.asarray(example[key])[sensor] for example in examples])
        for key in ("raw", "denoised", "target", "grand_average")
    }
    titles = [f"{e['subject']} · {e['condition']} · {channels[sensor]}" for e in examples]
    figure = figures.denoised_figure(
        waves["raw"], waves["denoised"], waves["target"], times, titles, waves["grand_average"]
    )
    return [Figure(figure, "Single trials of held-out subjects; the one of median correlation.")]


def classification_blocks(estimates: Mapping[str, Any]) -> list[Block]:
    """Compare the representations on every label, with chance and the band of shuffled labels.

    Parameters
    ----------
    estimates : mapping
        ``"<label>.<representation>[.single_trial].balanced_accuracy"`` to an estimate. The
        representation ``shuffled`` gives the band.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, estimate in estimates.items():
        label, _, rest = name.removesuffix(".balanced_accuracy").partition(".")
        representation, _, single = rest.partition(".")
        title = f"{label} · single trials" if single else f"{label} · per subject"
        found.setdefault(title, {})[representation] = _fields(estimate)
    if not found:
        return []
    rows = [_class_row(t, r, e) for t, panel in found.items() for r, e in panel.items()]
    marks, bands = _chance(found)
    panels = {t: {r: e for r, e in p.items() if r != "shuffled"} for t, p in found.items()}
    figure = figures.intervals_figure(panels, marks=marks, bands=bands, highlight=["beta_vae"])
    caption = (
        "Balanced accuracy on held-out subjects with 95 % intervals; dashed: chance; grey: where "
        "95 % of the values fall when the labels are shuffled."
    )
    return [Figure(figure, caption), Table(rows, "Balanced accuracy.")]


def _chance(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[dict, dict]:
    marks, bands = {}, {}
    for title, panel in found.items():
        known = [e["chance"] for e in panel.values() if e.get("chance") is not None]
        if known:
            marks[title] = {"chance": known[0]}
        shuffled = panel.get("shuffled", {})
        if shuffled.get("low") is not None and shuffled.get("high") is not None:
            bands[title] = (shuffled["low"], shuffled["high"])
    return marks, bands


def _class_row(title: str, representation: str, estimate: Mapping[str, Any]) -> dict[str, Any]:
    label, _, level = title.partition(" · ")
    fields = {key: estimate.get(key) for key in ("value", "low", "high", "chance", "p")}
    corrected = {"p corrected": estimate.get("p_corrected"), "n": estimate.get("n")}
    return {"label": label, "level": level, "representation": representation} | fields | corrected


def _fields(estimate: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(estimate) and not isinstance(estimate, type):
        return dataclasses.asdict(estimate)
    return dict(estimate)
