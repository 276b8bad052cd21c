"""Report blocks of the RF stages: bursts, training, probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.draw import COLOURS, new_figure, tidy
from neuro.report import Block, Figure, Table, Text, Warning
from neuro.validation import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from timeseries.rf.drrff import DRRFF

Complex = NDArray[np.complex64]
Before = Callable[[int], tuple[Complex, float]]
_SHOWN = 3  # devices in a figure


def estimate_rows(estimates: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Return estimates as rows of a table."""
    return [
        {"measure": k, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance, "n": e.n}
        for k, e in estimates.items()
    ]


def bursts_blocks(data: xr.Dataset, before: Before | None = None) -> list[Block]:
    """Count bursts and show some: in time, as a constellation, as a spectrum.

    Parameters
    ----------
    data : Dataset
    before : callable, optional
        Gives a burst by its row before preprocessing: its samples and their rate in Hz.
    """
    device = data["device"].values.astype(str)
    names = np.unique(device)
    capture = data["capture"].values.astype(str)
    rows = [
        {"device": name, "bursts": int((device == name).sum()),
         "captures": len(np.unique(capture[device == name])),
         "median SNR": float(np.median(data["snr"].values[device == name]))}
        for name in names[:40]
    ]  # fmt: skip
    if not np.isfinite([row["median SNR"] for row in rows]).any():  # bursts by annotation have none
        rows = [{k: v for k, v in row.items() if k != "median SNR"} for row in rows]
    some = [int(np.flatnonzero(device == name)[0]) for name in names[:_SHOWN]]
    values = data["signal"].values[some]
    x = (values[:, 0] + 1j * values[:, 1]).astype(np.complex64)
    rate = float(data.attrs["sfreq"])
    if before is None:
        shown = {f"{name}": (burst, rate) for name, burst in zip(names, x, strict=False)}
        text = "The first burst of some devices, after preprocessing."
    else:
        text = "The first burst of some devices, before preprocessing and after."
        shown = {}
        for name, row, burst in zip(names, some, x, strict=False):
            raw, raw_rate = before(row)
            shown[f"{name}, as received"] = (raw, raw_rate)
            shown[f"{name}, after preprocessing"] = (burst, rate)
    figure = bursts_figure(shown)
    more = f" (40 of {len(names)} devices)" if len(names) > 40 else ""
    return [
        Text(f"{len(device)} bursts of {data.sizes['time']} samples at "
             f"{data.attrs['sfreq'] / 1e6:g} MS/s."),
        Figure(figure, text),
        Table(rows, f"Bursts by device{more}.", {"median SNR": "dB"}),
    ]  # fmt: skip


def bursts_figure(bursts: Mapping[str, tuple[Complex, float]]) -> MatplotlibFigure:
    """Draw bursts with their rates (Hz): I and Q over time, the constellation, the spectrum."""
    figure = new_figure(9, 1.9 * len(bursts))
    grid = figure.subplots(len(bursts), 3, width_ratios=(2, 1, 1.4), squeeze=False)
    for row, (name, (burst, sfreq)) in enumerate(bursts.items()):
        last = row == len(bursts) - 1
        time = np.arange(len(burst)) / sfreq * 1e6
        axes = tidy(grid[row, 0], "time (us)" if last else "", "amplitude", name)
        axes.plot(time, burst.real, lw=0.6, color=COLOURS[0], label="I")
        axes.plot(time, burst.imag, lw=0.6, color=COLOURS[1], label="Q")
        axes.set_xlim(time[0], time[-1])
        if row == 0:
            axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower right",
                        bbox_to_anchor=(1, 1), borderaxespad=0)  # fmt: skip
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
    rate = float(data.attrs["sfreq"])
    return bursts_figure({k: (v[0, 0] + 1j * v[0, 1], rate) for k, v in signals.items()})
