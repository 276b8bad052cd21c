"""Report blocks of the RF stages: bursts, training, scores, probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.draw import COLOURS, GREY, new_figure, tidy
from neuro.report import Block, Figure, Table, Text, Warning
from neuro.validation import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from timeseries.rf.drrff import DRRFF
    from timeseries.rf.evaluate import Scores

Complex = NDArray[np.complex64]
_SHOWN = 4  # devices in a figure
_KEPT = 12  # curves in a figure


def estimate_rows(estimates: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Return estimates as rows of a table."""
    return [
        {"measure": k, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance, "n": e.n}
        for k, e in estimates.items()
    ]


def bursts_blocks(data: xr.Dataset) -> list[Block]:
    """Count bursts and show some: in time, as a constellation, as a spectrum."""
    device = data["device"].values.astype(str)
    names = np.unique(device)
    capture = data["capture"].values.astype(str)
    rows = [
        {"device": name, "bursts": int((device == name).sum()),
         "captures": len(np.unique(capture[device == name])),
         "median SNR": float(np.median(data["snr"].values[device == name]))}
        for name in names[:40]
    ]  # fmt: skip
    some = [int(np.flatnonzero(device == name)[0]) for name in names[:_SHOWN]]
    values = data["signal"].values[some]
    x = (values[:, 0] + 1j * values[:, 1]).astype(np.complex64)
    figure = bursts_figure(x, names[:_SHOWN].tolist(), data.attrs["sfreq"])
    more = f" (40 of {len(names)} devices)" if len(names) > 40 else ""
    return [
        Text(f"{len(device)} bursts of {data.sizes['time']} samples at "
             f"{data.attrs['sfreq'] / 1e6:g} MS/s."),
        Figure(figure, "The first burst of some devices, after preprocessing."),
        Table(rows, f"Bursts by device{more}.", {"median SNR": "dB"}),
    ]  # fmt: skip


def bursts_figure(x: Complex, names: Sequence[str], sfreq: float) -> MatplotlibFigure:
    """Draw bursts: I and Q over time, the constellation, the spectrum."""
    figure = new_figure(9, 1.9 * len(x))
    grid = figure.subplots(len(x), 3, width_ratios=(2, 1, 1.4), squeeze=False)
    time = np.arange(x.shape[1]) / sfreq * 1e6
    for row, (burst, name) in enumerate(zip(x, names, strict=True)):
        last = row == len(x) - 1
        axes = tidy(grid[row, 0], "time (us)" if last else "", "amplitude", str(name))
        axes.plot(time, burst.real, lw=0.6, color=COLOURS[0], label="I")
        axes.plot(time, burst.imag, lw=0.6, color=COLOURS[1], label="Q")
        if row == 0:
            axes.legend(fontsize=7, frameon=False, ncols=2)
        axes = tidy(grid[row, 1], "I" if last else "", "Q")
        axes.plot(burst.real, burst.imag, ".", ms=1.5, color=COLOURS[0], alpha=0.5)
        axes.set_aspect("equal", "datalim")
        axes = tidy(grid[row, 2], "frequency (kHz)" if last else "", "power (dB)")
        axes.plot(*_spectrum(burst[None], sfreq), lw=0.8, color=COLOURS[2])
    return figure


def _spectrum(x: Complex, sfreq: float) -> tuple[NDArray[Any], NDArray[Any]]:
    power = (np.abs(np.fft.fft(x * np.hanning(x.shape[1]), axis=1)) ** 2).mean(0)
    order = np.fft.fftshift(np.arange(len(power)))
    frequency = np.fft.fftshift(np.fft.fftfreq(len(power), 1 / sfreq)) / 1e3
    return frequency, 10 * np.log10(np.maximum(power[order] / power.max(), 1e-8))


def history_figure(history: Sequence[Mapping[str, float]]) -> MatplotlibFigure:
    """Draw every loss over epochs."""
    table = pd.DataFrame(list(history)).set_index("epoch") if history else pd.DataFrame()
    names = [n for n in table.columns if not n.endswith("_loss") or len(table.columns) < 3]
    figure = new_figure(7, 2.8)
    axes = tidy(figure.subplots(), "epoch", "loss")
    for number, name in enumerate(names):
        axes.plot(table.index, table[name], color=COLOURS[number % len(COLOURS)], label=name)
    if names:
        axes.legend(fontsize=7, frameon=False, ncols=3)
    return figure


# Scores ---------------------------------------------------------------------------------------


def score_blocks(found: Scores, data: xr.Dataset) -> list[Block]:
    """Show the crossed table, ROC curves, paired differences and thresholds."""
    tests = list(dict.fromkeys(test for test, _ in found.roc))
    models = list(dict.fromkeys(model for _, model in found.roc))
    intro = (
        "Rows cross the channel (same: statistics of the training; unseen: others), the devices "
        "and the session (later: after drift). EER and AUC are over all pairs of bursts, chance "
        "0.5 each; lower EER is better. Intervals (95 %) are over devices."
    )
    return [
        Text(intro),
        Table(_crossed(found, tests, models, "open", "eer"), "Open set: EER of all pairs."),
        Table(_crossed(found, tests, models, "open", "auc"), "Open set: AUC of all pairs."),
        Table(_differences(found), "Paired differences of the EER: below 0 the model is better."),
        Figure(roc_figure(found, tests, models), "ROC of all pairs (positive: different devices)."),
        Table(_closed(found), "Closed set: accuracy over the training devices."),
        Table(_verified(found), "After enrolment: equal error rate, and errors at the threshold "
              "that validation devices set."),
        Table(_rejected(found), "Known or never seen: AUROC of the best score."),
        Figure(
            plane_figure(found, data),
            "Enrolled devices by their templates in the plane in which they differ most.",
        ),
    ]  # fmt: skip


def _cell(e: Estimate | None) -> str:
    if e is None or e.value is None:
        return ""
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" if e.low is not None else f"{e.value:.3f}"


def _crossed(
    found: Scores, tests: Sequence[str], models: Sequence[str], family: str, measure: str
) -> list[dict[str, Any]]:
    return [
        {"test": test, **{
            m: _cell(found.estimates.get(f"{family}.{test}.{m}.{measure}")) for m in models
        }}
        for test in tests
    ]  # fmt: skip


def _differences(found: Scores) -> list[dict[str, Any]]:
    return [
        {"test": test, "model": model, "less": reference, "difference": e.value, "low": e.low,
         "high": e.high}
        for (test, model, reference), e in found.differences.items()
    ]  # fmt: skip


def _closed(found: Scores) -> list[dict[str, Any]]:
    return estimate_rows({k: e for k, e in found.estimates.items() if k.startswith("closed.")})


def _rejected(found: Scores) -> list[dict[str, Any]]:
    return estimate_rows({k: e for k, e in found.estimates.items() if k.startswith("reject.")})


def _verified(found: Scores) -> list[dict[str, Any]]:
    return [
        {"test": test, "model": model, "EER": _cell(found.estimates[f"verify.{test}.{model}.eer"]),
         "right rejected": rejected, "wrong accepted": accepted}
        for (test, model), (rejected, accepted) in found.accepted.items()
    ]  # fmt: skip


def roc_figure(found: Scores, tests: Sequence[str], models: Sequence[str]) -> MatplotlibFigure:
    """Draw the ROC of every test, all models in one panel."""
    columns = min(4, len(tests))
    rows = -(-len(tests) // columns)
    figure = new_figure(2.6 * columns, 2.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(tests) :]:
        axes.set_axis_off()
    for axes, test in zip(grid, tests, strict=False):
        tidy(axes, "false positives", "true positives", test.replace(".", "\n"))
        axes.plot([0, 1], [1, 0], ":", color=GREY, lw=0.8)
        for number, model in enumerate(models[:_KEPT]):
            x, y = found.roc[test, model]
            axes.plot(x, y, lw=1.1, color=COLOURS[number % len(COLOURS)], label=model,
                      ls="-" if number < len(COLOURS) else "--")  # fmt: skip
        axes.title.set_fontsize(7)
    grid[0].legend(fontsize=6, frameon=False)
    return figure


def plane_figure(found: Scores, data: xr.Dataset) -> MatplotlibFigure:
    """Draw the templates of known devices in their principal plane, one panel a model."""
    models = [m for m in found.enrolled if found.enrolled[m].templates.shape[1] > 1]
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure = new_figure(2.5 * columns, 2.5 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(models) :]:
        axes.set_axis_off()
    for axes, model in zip(grid, models, strict=False):
        known = found.enrolled[model]
        centred = known.templates - known.templates.mean(0)
        place = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        tidy(axes, title=model)
        axes.plot(place[:, 0], place[:, 1], "o", ms=4, color=COLOURS[0], alpha=0.7)
    return figure


# Probes ---------------------------------------------------------------------------------------


def probe_blocks(found: Mapping[str, Estimate], encoder: DRRFF, data: xr.Dataset) -> list[Block]:
    """Show what leaks, and signals with swapped backgrounds."""
    blocks: list[Block] = [
        Table(estimate_rows(found), "Fresh classifiers, trained on training bursts, scored on test "
              "bursts of known devices. The one on bursts shows what could have been found."),
        Figure(
            swap_figure(encoder, data),
            "Device A, device B, the background of B, and the signal made of the fingerprint of A "
            "and the background of B.",
        ),
    ]  # fmt: skip
    leak, chance = found["leak.background.device"].value, found["leak.background.device"].chance
    if leak is not None and chance is not None and leak > 2 * chance:
        blocks.insert(0, Warning(
            f"A fresh classifier finds the device in the background in {leak:.0%} of bursts, more "
            f"than twice chance ({chance:.1%}): the two are not fully apart."
        ))  # fmt: skip
    return blocks


def swap_figure(encoder: DRRFF, data: xr.Dataset) -> MatplotlibFigure:
    """Draw spectra and constellations of a swap."""
    part, group = (data[k].values.astype(str) for k in ("part", "group"))
    rows = np.flatnonzero((part == "test") & (group == "known"))
    device, unseen = data["device"].values[rows], data["unseen"].values[rows]
    first = rows[0]
    other = np.flatnonzero((device != device[0]) & (unseen if unseen.any() else True))
    second = rows[other[-1]] if len(other) else rows[-1]
    a, b = (data["signal"].isel(trial=[row]) for row in (first, second))
    signals = {
        "device A": a.values, "device B": b.values, "background of B": encoder.background(b),
        "A in B's background": encoder.swap(a, b),
    }  # fmt: skip
    x = np.concatenate([v[:, 0] + 1j * v[:, 1] for v in signals.values()])
    return bursts_figure(x, list(signals), float(data.attrs["sfreq"]))
