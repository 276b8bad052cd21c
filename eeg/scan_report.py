"""Fit SCAN for a run, and report which latents carry which label and what a label looks like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eeg.draw import colour_bar, head_map, positions_of, time_axes
from eeg.parts import subjects_of, usable_labels
from eeg.scan_plots import interpretation_blocks
from eeg.symbols import is_missing
from eeg.views import view, views
from neuro.draw import COLOURS, SEQUENTIAL, new_figure, tidy
from neuro.errors import DataError, InputError
from neuro.report import Block, Figure, Table, Text, Warning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

    from eeg.interpret import Interpretation
    from eeg.scan import SCAN
    from neuro.stage import Context

Excluded = list[dict[str, str]]


def fit_scan(
    encoder: Any,
    data: xr.Dataset,
    *,
    labels: Sequence[str] | None = None,
    siblings: Sequence[Any] = (),
    n_shuffles: int = 1000,
    random_state: int = 0,
    **settings: Any,
) -> tuple[SCAN, Interpretation, Excluded, float]:
    """Map the usable labels onto the latents of a frozen encoder.

    Parameters
    ----------
    encoder : BetaVAE
    data : Dataset
        Trials of the training participants.
    labels : sequence of str, optional
        By default all labels of the trials.
    siblings : sequence of BetaVAE
        The members of the sweep that the encoder is from: those that differ from it in the seed
        alone say how stable its latents are.
    n_shuffles : int
        Shuffles of the participants' labels behind the p-values.
    random_state : int
    **settings
        Parameters of `SCAN`, and ``scratch`` and ``progress`` of its fit.

    Returns
    -------
    scan : SCAN
    named : Interpretation
        Which latents carry which label.
    excluded : list of dict
        label and reason.
    seconds : float
        From the trials to the named latents.

    Raises
    ------
    DataError
        Where no label is left.
    ContractError
        Where the trials don't match the encoder.
    """
    from eeg.interpret import interpret
    from eeg.scan import SCAN
    from neuro.data import as_signal

    started = time.monotonic()
    how = {name: settings.pop(name, None) for name in ("scratch", "progress")}
    bins = settings.get("bins", 3)
    names, excluded = usable_labels(data, labels, bins)
    names = list(dict.fromkeys([*names, *settings.get("within", ())]))
    if not names:
        why = "; ".join(f"{row['label']}: {row['reason']}" for row in excluded)
        raise DataError(f"there is no label to map ({why or 'the trials bear none'})")
    if isinstance(bins, dict):
        settings["bins"] = {name: own for name, own in bins.items() if name in names}
    signal = as_signal(data)
    fitted = SCAN(encoder, random_state=random_state, **settings).fit(signal, names, **how)
    named = interpret(
        fitted,
        signal,
        siblings=same_but_for_seed(encoder, siblings),
        n_shuffles=n_shuffles,
        random_state=random_state,
    )
    return fitted, named, excluded, time.monotonic() - started


def same_but_for_seed(encoder: Any, members: Sequence[Any]) -> list[Any]:
    """Keep the members of a sweep that differ from an encoder in the seed, and in it alone."""
    own = encoder.get_params(deep=False)
    seed = own.pop("random_state")
    others = [(member, member.get_params(deep=False)) for member in members]
    return [m for m, params in others if params.pop("random_state") != seed and params == own]


def record(
    context: Context, scan: SCAN, named: Interpretation, excluded: Excluded, seconds: float
) -> None:
    """Hand the numbers, the methods and the sections of a fitted SCAN over to a run."""
    for row in excluded:
        context.warn(f"the label '{row['label']}' is left out: {row['reason']}")
    for name, estimate in named.by_name().items():
        estimate.record(context, f"scan.{name}")
    context.metric("remap.seconds", round(seconds, 3), unit="s")
    context.method(
        f"SCAN mapped {len(scan.symbols_)} symbols of {len(scan.symbols_.labels)} labels onto the "
        f"latents of the frozen encoder (hash {scan.encoder_hash_}; beta_y = {scan.beta_y:g}, "
        f"lambda = {scan.lam:g}).",
        "higgins2018",
        "honke2020",
    )
    stable = "" if named.stability is None else ", found by other seeds"
    context.method(
        f"A latent was named for a label only if it was used (KL above 0.01){stable} and "
        f"significant under {named.n_shuffles} shuffles of the participants' labels (maximum "
        "statistic over latents and labels).",
        "permutation",
    )
    context.section("Labels and latents", *map_blocks(scan, named, excluded, seconds))
    context.section("What a label looks like", *imagined_blocks(scan))
    context.section("Latents in motion", *moving_blocks(scan, named))


def map_blocks(
    scan: SCAN, named: Interpretation, excluded: Excluded, seconds: float
) -> list[Block]:
    """Show the symbols and which latents carry each label."""
    blocks: list[Block] = [
        Text(
            f"The encoder (hash {scan.encoder_hash_}) was not trained again; mapping these labels "
            f"onto its latents took {seconds:.1f} s. A label is carried by the latents on which "
            "the posteriors of its values lie apart; a symbol leaves the others as open as the "
            "prior. This is what SCAN learned, not a test: that stands with the evaluation."
        ),
        Figure(
            map_figure(named.found),
            "Left: distance between the values of each label in standard deviations of their "
            "posteriors. Right: what each symbol says about each latent (KL to the prior, nats). "
            "Ring: the latent that stands for the label. Grey ticks: latents not kept.",
        ),
        *interpretation_blocks(named),
    ]
    if excluded:
        blocks.append(Table(excluded, "Labels left out."))
    return blocks


def map_figure(found: xr.Dataset) -> MatplotlibFigure:
    """Draw distance (label, latent) and specificity (symbol, latent) as heat maps."""
    labels, symbols = found["label"].values.tolist(), found["symbol"].values.tolist()
    figure = new_figure(10, 1.4 + 0.28 * len(symbols))
    panels = figure.subplots(1, 2)
    maps = (("distance", labels, "SD"), ("specificity", symbols, "nats"))
    for axes, (name, rows, unit) in zip(panels, maps, strict=True):
        image = axes.imshow(found[name].values, aspect="auto", cmap=SEQUENTIAL, vmin=0)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(found.sizes["latent"]), found["latent"].values)
        _name_parts(axes, found)
        tidy(axes, "latent", "", name)
        for tick, kept in zip(axes.get_xticklabels(), found["kept"].values, strict=True):
            tick.set_color("black" if kept else "#bbbbbb")
        figure.colorbar(image, ax=axes, shrink=0.8).set_label(unit, fontsize=8)
    for row, latent in enumerate(found["best"].values):
        panels[0].plot([latent], [row], "o", ms=11, mfc="none", mec=COLOURS[1], mew=1.8)
    return figure


def _name_parts(axes: Axes, found: xr.Dataset) -> None:
    """Part the latents' levels from their differences between conditions."""
    names = found["part"].values
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="white", lw=2)
    axes.set_xlabel("latent: " + " | ".join(names[starts]) if len(starts) > 1 else "latent")


def imagined_blocks(scan: SCAN, n: int = 64) -> list[Block]:
    """Show the ERP of every value of every label, and its difference from the other values."""
    return [
        Text(
            "ERPs decoded from labels: the line from the centre of what a label describes, the "
            "band from samples that vary in all that the label leaves open (10 to 90 %)."
        ),
        *(
            Figure(
                imagined_figure(scan, label, n),
                f"{label}: the ERP of each value at the sensor where the values differ most (where "
                "conditions are contrasted, of each condition, and the difference wave between "
                "them); what turning the label from its first to its last value does there; and "
                "its map when that is largest.",
            )
            for label in scan.symbols_.labels
        ),
    ]


def imagined_figure(scan: SCAN, label: str, n: int = 64) -> MatplotlibFigure:
    """Draw the imagined ERPs of one label at the sensor where its values differ most."""
    group = next(g for g in scan.symbols_.groups if g.label == label)
    found = {value: scan.imagine({label: value}, n=n) for value in group.values}
    one = next(iter(found.values()))
    seen = {name: [view(own["erp"], name) for own in found.values()] for name in views(scan)}
    change = {name: (waves[-1] - waves[0]).values for name, waves in seen.items()}
    largest = max(change, key=lambda name: np.abs(change[name]).max())
    sensor, instant = np.unravel_index(np.abs(change[largest]).argmax(), change[largest].shape)
    positions = positions_of(one["erp"])
    n_columns = len(seen) + 1 + bool(positions)
    figure = new_figure(3.0 * n_columns, 2.7)
    panels = list(figure.subplots(1, n_columns))
    times, channel = one["time"].values, str(one["channel"].values[sensor])
    for axes, name in zip(panels, seen, strict=False):
        time_axes(axes, times, title=f"{name} at {channel}".strip())
        for colour, (value, own) in zip(_shades(len(found)), found.items(), strict=True):
            samples = view(own["signal"], name).values[:, sensor]
            axes.fill_between(
                times * 1e3, *np.percentile(samples, (10, 90), axis=0), color=colour, alpha=0.15,
                lw=0,
            )  # fmt: skip
            wave = view(own["erp"], name).values[sensor]
            axes.plot(times * 1e3, wave, color=colour, label=f"{label}={value}")
    panels[0].legend(fontsize=7, frameon=False)
    turned = f"{group.values[-1]} minus {group.values[0]}"
    _changes(panels[len(seen)], change, times, int(sensor), turned)
    if positions:
        wave = change[largest]
        limit = float(np.abs(wave).max()) or 1.0
        title = f"{turned}, {times[instant] * 1e3:.0f} ms\n{largest}".strip()
        colour_bar(
            figure, head_map(panels[-1], wave[:, instant], positions, limit, title), panels[-1]
        )
    return figure


def _changes(
    axes: Axes, change: dict[str, NDArray[Any]], times: NDArray[Any], sensor: int, title: str
) -> None:
    """Draw what a label does to each view at one sensor."""
    time_axes(axes, times, title=title)
    for style, (name, wave) in zip(("-", "--", ":", "-."), change.items(), strict=False):
        axes.plot(times * 1e3, wave[sensor], color="black", ls=style, lw=1.2, label=name)
    if len(change) > 1:
        axes.legend(fontsize=7, frameon=False)


def moving_blocks(scan: SCAN, named: Interpretation) -> list[Block]:
    """Give the figures in which a reader moves latents and chooses labels."""
    from eeg.interactive import explorer_blocks, label_explorer

    names: dict[int, str] = {}
    for reading in named.readings:
        if (latent := reading.latent) is not None:
            both = [names[latent]] if latent in names else []
            names[latent] = ", ".join([*both, reading.label])
    blocks: list[Block] = []
    try:
        blocks += explorer_blocks(scan.encoder_, names)
        for name in views(scan):
            blocks += [Text(f"Choose labels: {name}.")] if name else []
            blocks.append(label_explorer(scan, view=name))
    except (InputError, DataError) as error:  # a figure is no reason to lose the fit
        blocks.append(Warning(f"The latents can't be shown in motion: {error}"))
    return blocks


def label_blocks(data: xr.Dataset) -> list[Block]:
    """Count the participants of every value of every label."""
    first = np.unique(subjects_of(data), return_index=True)[1]
    rows = []
    for name in data.attrs.get("labels", []):
        column = data[name].values[first]
        present = column[~is_missing(column)]
        values, counts = np.unique(present, return_counts=True)
        shown = [f"{v} ({c})" for v, c in zip(values, counts, strict=True)]
        many = f"{len(values)} different values"
        rows.append(
            {
                "label": name,
                "participants": len(present),
                "missing": len(column) - len(present),
                "values": ", ".join(shown) if len(values) <= 10 else many,
            }
        )
    return [Table(rows, f"Labels of {len(first)} participants.")]


def _shades(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]
