"""The pictures of an EEG report, from plain arrays; every function returns a matplotlib figure.

Signals are in µV and times in seconds; they are shown in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from eeg.draw import Floats, colour_bar, colours_of, head_map, interval, peaks, time_axes
from neuro.draw import COLOURS, GREY, SEQUENTIAL, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Positions = Mapping[str, Sequence[float]]
MAX_BARS = 40
MAX_LATENTS = 8


def sensor_figure(positions: Positions) -> Figure:
    """Draw where the sensors sit."""
    import mne

    from eeg.draw import head_sphere, sensor_info

    figure = new_figure(3.6, 3.6)
    mne.viz.plot_sensors(
        sensor_info(positions),
        axes=figure.subplots(),
        show_names=len(positions) <= 70,
        sphere=head_sphere(positions),
        show=False,
        verbose="error",
    )
    return figure


def drops_figure(
    recordings: Sequence[str], kept: ArrayLike, dropped: Mapping[str, ArrayLike]
) -> Figure:
    """Draw kept and dropped epochs of each recording as stacked bars.

    Parameters
    ----------
    recordings : sequence of str
        Their names; beyond 40 only those that lost most are shown.
    kept : array (recording,)
        Epochs that stayed.
    dropped : mapping of str to array (recording,)
        Epochs dropped, by reason.
    """
    kept = np.asarray(kept, dtype=float)
    losses = {reason: np.asarray(counts, dtype=float) for reason, counts in dropped.items()}
    total = sum(losses.values(), np.zeros(len(kept)))
    chosen = np.sort(np.argsort(-total, kind="stable")[:MAX_BARS])
    figure = new_figure(8, 1.1 + 0.22 * len(chosen))
    axes = figure.subplots()
    left = np.zeros(len(chosen))
    parts = {"kept": kept, **losses}
    shades = ["#b8cfe0", *COLOURS[1:]]
    for i, (reason, counts) in enumerate(parts.items()):
        shade = shades[min(i, len(shades) - 1)]
        axes.barh(np.arange(len(chosen)), counts[chosen], left=left, color=shade, label=reason)
        left += counts[chosen]
    axes.set_yticks(np.arange(len(chosen)), [recordings[i] for i in chosen])
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    more = f" ({MAX_BARS} of {len(kept)} recordings)" if len(kept) > MAX_BARS else ""
    tidy(axes, "epochs", "", f"Epochs kept and dropped{more}")
    _legend_beside(axes)
    return figure


def butterfly_figure(
    averages: ArrayLike,
    times: ArrayLike,
    conditions: Sequence[str],
    positions: Positions | None = None,
) -> Figure:
    """Draw the grand average of each condition over all sensors, with maps at its peaks.

    Parameters
    ----------
    averages : array (condition, channel, time)
        µV.
    times : array (time,)
        s.
    conditions : sequence of str
        At most six are drawn.
    positions : mapping, optional
        Channel to position (m); without it no maps are drawn.
    """
    averages, times = np.asarray(averages, dtype=float)[:6], np.asarray(times)
    n_maps = 3 if positions else 0
    limit = float(np.abs(averages).max()) or 1.0
    figure = new_figure(3.5 + 1.7 * n_maps, 2.1 * len(averages) + 0.4)
    grid = figure.subplots(
        len(averages), 1 + n_maps, squeeze=False, width_ratios=[2.4, *[1] * n_maps]
    )
    image = None
    for row, average, name in zip(grid, averages, conditions, strict=False):
        power = average.std(axis=0)
        marks = peaks(power, times, n=n_maps) if n_maps else []
        _butterfly(row[0], average, power, times, name, marks)
        row[0].set_ylim(-1.08 * limit, 1.08 * limit)
        for axes, mark in zip(row[1:], marks, strict=False):
            image = head_map(
                axes, average[:, mark], positions or {}, limit, f"{times[mark] * 1e3:.0f} ms"
            )
        for axes in row[1 + len(marks) :]:
            axes.set_axis_off()
    if image is not None:
        colour_bar(figure, image, list(grid[:, 1:].ravel()))
    return figure


def _butterfly(
    axes: Axes, average: Floats, power: Floats, times: Floats, name: str, marks: Sequence[int]
) -> None:
    time_axes(axes, times, title=name)
    axes.plot(times * 1e3, average.T, color=COLOURS[0], lw=0.5, alpha=0.6)
    axes.plot([], [], color=COLOURS[0], lw=0.8, label="each sensor")
    axes.plot(times * 1e3, power, color=COLOURS[1], lw=1.5, label="field power (sd over sensors)")
    for mark in marks:
        axes.axvline(times[mark] * 1e3, color="#555555", lw=0.7, ls=":")
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)


def sensors_figure(
    erps: ArrayLike,
    times: ArrayLike,
    conditions: Sequence[str],
    channels: Sequence[str],
) -> Figure:
    """Draw chosen sensors: the conditions' means over subjects with 95 % intervals.

    Parameters
    ----------
    erps : array (subject, condition, channel, time)
        ERPs of each subject, µV; NaN where a subject has no trial of a condition.
    times : array (time,)
        s.
    conditions, channels : sequence of str
        Names along the second and third axis.
    """
    erps, times = np.asarray(erps, dtype=float), np.asarray(times)
    n_columns = min(3, len(channels))
    n_rows = -(-len(channels) // n_columns)
    figure = new_figure(3.3 * n_columns + 0.4, 2.3 * n_rows + 0.4)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    shades = colours_of(conditions)
    for c, axes in enumerate(grid.ravel()):
        if c >= len(channels):
            axes.set_axis_off()
            continue
        time_axes(axes, times, title=channels[c])
        for i, name in enumerate(conditions):
            own = erps[:, i, c]
            _band(axes, own[~np.isnan(own).any(axis=1)], times, shades[name], name)
    for axes in grid.ravel():
        axes.label_outer()
    handles, names = grid[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside upper right", ncols=6, fontsize=8, frameon=False)
    return figure


def _band(axes: Axes, values: Floats, times: Floats, colour: str, label: str) -> None:
    if not len(values):
        return
    label = f"{label} (n = {len(values)})"
    axes.plot(times * 1e3, values.mean(axis=0), color=colour, lw=1.4, label=label)
    if len(values) > 1:
        low, high = interval(values)
        axes.fill_between(times * 1e3, low, high, color=colour, alpha=0.2, lw=0)


def training_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each loss term over the epochs; terms of the validation part are dashed.

    Parameters
    ----------
    history : sequence of mapping
        One mapping per epoch, term to value; ``val_`` or ``validation_`` in front marks the
        validation part. Other entries (``epoch``, ``beta``) become panels of their own.
    """
    series = _series(history)
    panels = list(dict.fromkeys(_term(name) for name in series)) or ["loss"]
    figure = new_figure(2.9 * len(panels) + 0.4, 2.6)
    epochs = np.array([entry.get("epoch", i) for i, entry in enumerate(history)], dtype=float)
    for term, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        tidy(axes, "epoch", "nats per sample" if term != "beta" else "", term.replace("_", " "))
        for name in (name for name in series if _term(name) == term):
            held_out = name != term
            style = {"color": COLOURS[1], "ls": "--"} if held_out else {"color": COLOURS[0]}
            label = "validation" if held_out else "training"
            axes.plot(epochs, series[name], lw=1.4, label=label, **style)
        if any(name != _term(name) for name in series):
            axes.legend(fontsize=7, frameon=False)
    return figure


def _series(history: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """Collect the numeric terms by name; a missing entry is NaN (a gap in the line)."""
    names = dict.fromkeys(
        name
        for entry in history
        for name, value in entry.items()
        if isinstance(value, int | float) and name not in ("epoch", "seconds", "step")
    )
    return {
        name: np.array([entry.get(name, np.nan) for entry in history], dtype=float)
        for name in list(names)[:8]
    }


def _term(name: str) -> str:
    return name.removeprefix("validation_").removeprefix("val_")


TYPE_COLOURS = {"active": COLOURS[2], "mixed": COLOURS[4], "passive": "#bbbbbb"}


def kl_figure(kl: ArrayLike, types: Sequence[str] | None = None, threshold: float = 0.01) -> Figure:
    """Draw the KL of every latent with the line above which it is kept.

    Parameters
    ----------
    kl : array (latent,)
        Nats, averaged over samples.
    types : sequence of str, optional
        ``"active"``, ``"mixed"`` or ``"passive"`` for each latent.
    threshold : float
        Nats.
    """
    kl = np.asarray(kl, dtype=float)
    figure = new_figure(max(4.0, 0.38 * len(kl) + 2.2), 2.7)
    axes = figure.subplots()
    floor = threshold / 20  # a log axis has no zero
    shades = [TYPE_COLOURS.get(t, GREY) for t in types] if types is not None else COLOURS[0]
    axes.bar(np.arange(len(kl)), np.maximum(kl, floor), color=shades, bottom=0)
    axes.axhline(threshold, color="black", lw=0.9, ls="--")
    axes.set_yscale("log")
    axes.set_ylim(floor, max(kl.max() * 2, threshold * 4))
    axes.set_xticks(np.arange(len(kl)))
    kept = int((kl > threshold).sum())
    tidy(axes, "latent", "KL (nats)", f"{kept} of {len(kl)} latents kept (KL > {threshold:g})")
    for name in [n for n in TYPE_COLOURS if types is not None and n in types]:
        axes.bar([0], [0], color=TYPE_COLOURS[name], label=name)
    axes.plot([], [], color="black", lw=0.9, ls="--", label=f"{threshold:g} nats")
    _legend_beside(axes)
    return figure


def traversal_figure(
    waves: ArrayLike,
    values: ArrayLike,
    times: ArrayLike,
    channels: Sequence[str],
    latents: Sequence[int | str],
    positions: Positions | None = None,
) -> Figure:
    """Draw what turning each latent does to the waveform.

    One row per latent: the sensor that changes most, at every value of the latent; the difference
    of the last and the first value at all sensors; its map where it is largest.

    Parameters
    ----------
    waves : array (latent, value, channel, time)
        Decoded signals, µV.
    values : array (value,)
        Values of the latent, in standard deviations of the prior.
    times : array (time,)
        s.
    channels : sequence of str
        Names of the sensors.
    latents : sequence of int or str
        Names of the latents; the eight that change most are drawn.
    positions : mapping, optional
        Channel to position (m).
    """
    waves, values = np.asarray(waves, dtype=float), np.asarray(values, dtype=float)
    times = np.asarray(times)
    change = waves[:, -1] - waves[:, 0]
    order = np.sort(np.argsort(-np.abs(change).max(axis=(1, 2)), kind="stable")[:MAX_LATENTS])
    n_columns = 3 if positions else 2
    figure = new_figure(3.6 * 2 + (2 if positions else 0), 2.05 * len(order) + 0.4)
    grid = figure.subplots(
        len(order), n_columns, squeeze=False, width_ratios=[1.3, 1.3, 0.8][:n_columns]
    )
    for row, k in zip(grid, order, strict=True):
        sensor, instant = np.unravel_index(np.abs(change[k]).argmax(), change[k].shape)
        name = f"latent {latents[k]} · {channels[sensor]}"
        _turned(row[0], waves[k, :, sensor], values, times, name)
        _difference(row[1], change[k], times, int(sensor), (values[0], values[-1]))
        if positions:
            limit = float(np.abs(change[k]).max()) or 1.0
            title = f"{times[instant] * 1e3:.0f} ms"
            image = head_map(row[2], change[k][:, instant], positions, limit, title)
            colour_bar(figure, image, row[2])
    for axes in grid[:-1, :2].ravel():
        axes.set_xlabel("")
    return figure


def _turned(axes: Axes, waves: Floats, values: Floats, times: Floats, title: str) -> None:
    from matplotlib import colormaps

    shades = colormaps[SEQUENTIAL](np.linspace(0, 0.92, len(values)))
    time_axes(axes, times, title=title)
    for i, (wave, value) in enumerate(zip(waves, values, strict=True)):
        named = i in (0, len(values) // 2, len(values) - 1)
        label = f"z = {value:+.1f}" if named else None
        axes.plot(times * 1e3, wave, color=shades[i], lw=1.2, label=label)
    axes.legend(fontsize=7, frameon=False, loc="best")


def _difference(
    axes: Axes, change: Floats, times: Floats, sensor: int, ends: tuple[float, float]
) -> None:
    time_axes(axes, times, title=f"difference z = {ends[1]:+.1f} minus {ends[0]:+.1f}")
    axes.plot(times * 1e3, change.T, color=GREY, lw=0.5, alpha=0.7)
    axes.plot(times * 1e3, change[sensor], color=COLOURS[1], lw=1.5)


def denoised_figure(
    raw: ArrayLike,
    denoised: ArrayLike,
    erp: ArrayLike,
    times: ArrayLike,
    titles: Sequence[str],
    grand_average: ArrayLike | None = None,
) -> Figure:
    """Draw single trials, what the model makes of them and the ERP of the same subject.

    Parameters
    ----------
    raw, denoised : array (example, time)
        One trial at one sensor, before and after, µV.
    erp : array (example, time)
        That subject's ERP of that condition, from other trials.
    times : array (time,)
        s.
    titles : sequence of str
        For instance ``"sub-03 · target · Pz"``; at most nine examples are drawn.
    grand_average : array (example, time), optional
        The mean ERP of the training subjects.
    """
    times = np.asarray(times)
    n = min(9, len(titles))
    n_columns = min(3, n)
    n_rows = -(-n // n_columns)
    figure = new_figure(3.3 * n_columns + 0.3, 2.2 * n_rows + 0.5)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True)
    lines: list[tuple[str, ArrayLike | None, dict[str, Any]]] = [
        ("one trial, as recorded", raw, {"color": "#bbbbbb", "lw": 0.8}),
        ("ERP of the subject (other trials)", erp, {"color": "black", "lw": 1.3}),
        ("grand average", grand_average, {"color": COLOURS[4], "lw": 1.2, "ls": ":"}),
        ("the trial, denoised", denoised, {"color": COLOURS[0], "lw": 1.6}),
    ]
    for i, axes in enumerate(grid.ravel()):
        if i >= n:
            axes.set_axis_off()
            continue
        time_axes(axes, times, title=titles[i])
        for label, values, style in lines:
            if values is not None:
                axes.plot(times * 1e3, np.asarray(values)[i], label=label, **style)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    for axes in grid.ravel():
        axes.label_outer(remove_inner_ticks=False)
        axes.tick_params(labelleft=True)
    return figure


def intervals_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    marks: Mapping[str, Mapping[str, float]] | None = None,
    bands: Mapping[str, tuple[float, float]] | None = None,
    highlight: Sequence[str] = (),
    log: Sequence[str] = (),
) -> Figure:
    """Draw values with intervals, one panel per quantity and one row per method.

    Parameters
    ----------
    panels : mapping
        Panel title to method to ``{"value", "low", "high"}``; a missing value leaves its row
        empty, so that what could not be computed is seen to be missing.
    marks : mapping, optional
        Panel title to label to value: vertical lines (chance, a ceiling).
    bands : mapping, optional
        Panel title to (low, high): a shaded band (shuffled labels).
    highlight : sequence of str
        Methods drawn in the second colour.
    log : sequence of str
        Titles of the panels with a logarithmic axis (ratios).
    """
    methods = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    n_columns = max(1, min(4, len(panels)))
    n_rows = max(1, -(-len(panels) // n_columns))
    figure = new_figure(2.9 * n_columns + 1.4, n_rows * (0.3 * len(methods) + 1.5))
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, panel) in zip(grid, panels.items(), strict=False):
        for row, name in enumerate(methods):
            _point(axes, row, panel.get(name, {}), COLOURS[1] if name in highlight else COLOURS[0])
        if bands and title in bands:
            axes.axvspan(*bands[title], color="#dddddd", lw=0, zorder=0, label="shuffled, 95 %")
        for i, (label, value) in enumerate((marks or {}).get(title, {}).items()):
            axes.axvline(value, color="black", lw=1, ls=("--", ":", "-.")[i % 3], label=label)
        if title in log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.set_yticks(np.arange(len(methods)), [name.replace("_", " ") for name in methods])
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="x", color="#eeeeee", zorder=0)
        _legend_below(tidy(axes, "", "", title))
    return figure


def _point(axes: Axes, row: int, estimate: Mapping[str, Any], colour: str) -> None:
    value, low, high = (estimate.get(field) for field in ("value", "low", "high"))
    if value is None:
        axes.text(0.5, row, "not computed", transform=axes.get_yaxis_transform(),
                  fontsize=7, color=GREY, ha="center", va="center")  # fmt: skip
        return
    if low is not None and high is not None:
        axes.plot([low, high], [row, row], color=colour, lw=2, zorder=2)
    axes.plot([value], [row], "o", color=colour, ms=5, zorder=3)


def _legend_below(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2
        )


def _legend_beside(axes: Axes) -> None:
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
