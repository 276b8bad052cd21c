"""Figures of latent series models: losses and KL, traversals, factors by latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.draw import COLOURS, SEQUENTIAL, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from timeseries.latent_model import LatentModel

_MOST = 16  # latents drawn


def latent_names(model: LatentModel) -> list[str]:
    """Return the names of the latents, short."""
    names = [str(name) for name in model.get_feature_names_out()]
    return [name.removeprefix(type(model).__name__.lower()) for name in names]


def history_figure(model: LatentModel, unit: str = "nat per series", measure: str = "KL") -> Figure:
    """Draw the losses by epoch in their unit, and the KL (or what else) of each latent."""
    figure = new_figure(9, 3)
    left, right = figure.subplots(1, 2)
    rows = model.history_
    shown = [k for k in (rows[0] if rows else {}) if k != "epoch" and not k.endswith("loss")]
    for colour, name in zip(COLOURS, shown, strict=False):
        values = [row[name] for row in rows]
        left.plot([row["epoch"] for row in rows], values, color=colour, label=name, lw=1)
    if shown:
        left.set_yscale("symlog")
        left.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    tidy(left, "epoch", unit, "terms of the loss")
    order = np.argsort(model.kl_)[::-1]
    names = latent_names(model)
    colours = [COLOURS[0] if kept else "#888888" for kept in model.kept_[order]]
    right.bar(range(len(order)), model.kl_[order], color=colours)
    right.set_xticks(range(len(order)), [names[i] for i in order], rotation=90)
    kept = int(model.kept_.sum())
    tidy(right, "latent", f"{measure} (nat)", f"{kept} of {len(order)} active")
    return figure


def traversal_figure(model: LatentModel, data: xr.DataArray) -> Figure:
    """Draw the waveforms of the channel that varies most as latents, and segments, are moved.

    Latents of a quantised model take values of their codebooks, from the least to the largest.
    """
    order = [int(i) for i in np.argsort(model.kl_)[::-1][:_MOST]]
    names = latent_names(model)
    panels: list[tuple[str, Any]] = [(names[i], i) for i in order]
    if model.name == "ts-dts":
        panels = [("g_y", "g_y"), ("g_d", "g_d"), *panels][:_MOST]
    n_rows = -(-len(panels) // 4)
    figure = new_figure(10, 1.7 * n_rows)
    all_axes = figure.subplots(n_rows, 4, sharex=True, sharey=True, squeeze=False).ravel()
    some = data[: min(len(data), 500)]
    moved = [model.traverse(some, which, _points(model, which)) for _, which in panels]
    channel = int(np.argmax(np.sum([waves.var(0).sum(-1) for waves in moved], axis=0)))
    time = data["time"].values if "time" in data.coords else np.arange(data.shape[-1])
    for axes, (name, _), waves in zip(all_axes, panels, moved, strict=False):
        for step, wave in enumerate(waves):
            axes.plot(time, wave[channel], lw=1, color=_shade(step / (len(waves) - 1)))
        tidy(axes, title=name)
    for axes in all_axes[len(panels) :]:
        axes.axis("off")
    named = str(data["channel"].values[channel]) if "channel" in data.coords else str(channel)
    figure.supxlabel("time (s)" if "time" in data.coords else "sample", fontsize=9)
    figure.supylabel(f"channel {named}", fontsize=9)
    return figure


def _points(model: LatentModel, which: Any) -> NDArray[Any]:
    if not hasattr(model, "codebooks_"):
        return np.linspace(-2, 2, 5)
    values = np.sort(model.codebooks_[which])
    return values[np.linspace(0, len(values) - 1, 5).round().astype(int)]


def _shade(share: float) -> Any:
    from matplotlib import colormaps

    return colormaps["coolwarm"](share)


def information_figure(
    model: LatentModel, data: xr.DataArray, factors: Mapping[str, NDArray[Any]]
) -> Figure:
    """Draw the information of factors and latents, as a share of the factor's entropy."""
    from neuro.metrics.factors import clean
    from neuro.metrics.mutual_information import information_matrix

    values, known = clean(np.asarray(model.transform(data)), factors, None, 20)
    found, entropies = information_matrix(values, known)
    share = found / np.maximum(entropies, 1e-12)[:, None]
    figure = new_figure(1.5 + 0.4 * share.shape[1], 1.2 + 0.35 * len(share))
    axes = figure.subplots()
    image = axes.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(known)), [factor.name for factor in known])
    axes.set_xticks(range(share.shape[1]), latent_names(model), rotation=90)
    figure.colorbar(image, ax=axes, label="I / H")
    tidy(axes, "latent", "factor")
    return figure
