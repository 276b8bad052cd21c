"""Pictures of an ablation and of a test of pairings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.draw import COLOURS, DIVERGING, GREY, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from fmri.imagery import PairingTest
    from fmri.network_ablation import Ablation

__all__ = ["drop_figure", "map_figure", "null_figure"]


def drop_figure(found: Ablation) -> MatplotlibFigure:
    """Draw what each network costs as bars with intervals, before the band of random sets."""
    names = sorted(found.estimates, key=lambda name: -(found.estimates[name].value or 0))
    figure = new_figure(6.0, 0.42 * len(names) + 1.1)
    axes = tidy(figure.subplots(), "drop of the score (whole - ablated)")
    for place, name in enumerate(names):
        one, band = found.estimates[name], found.bands[name]
        if np.isfinite(band).all():
            axes.barh(place, band[1] - band[0], left=band[0], height=0.9, color=GREY, alpha=0.3)
        axes.barh(place, one.value or 0, height=0.5, color=COLOURS[0])
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color="black", lw=1.5)
        if one.p_corrected is not None and one.p_corrected <= 0.05:
            axes.annotate("*", (max(one.high or 0, one.value or 0), place), va="center")
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(names)), [f"{n} ({found.sizes[n]})" for n in names])
    axes.invert_yaxis()
    return figure


def null_figure(found: PairingTest) -> MatplotlibFigure:
    """Draw the statistic among those of other pairings."""
    figure = new_figure(5.0, 2.6)
    axes = tidy(figure.subplots(), "mean cosine with the paired prompt", "pairings")
    axes.hist(found.null, bins=40, color=GREY)
    axes.axvline(found.statistic.value or 0, color=COLOURS[1], lw=2)
    return figure


def map_figure(
    found: Ablation, data: xr.Dataset, groups: dict[str, NDArray[np.bool_]], atlas: Any = None
) -> MatplotlibFigure | None:
    """Draw the drop of each parcel's network in slices of the brain.

    Returns
    -------
    Figure or None
        None where neither an atlas is given nor parcels are voxels with places.
    """
    values = np.zeros(data.sizes["parcel"])
    for name, inside in groups.items():
        values[inside] = found.estimates[name].value or 0.0
    volume = _volume(values, data, atlas)
    if volume is None:
        return None
    filled = np.isfinite(volume).sum((0, 1))
    levels = np.flatnonzero(filled)
    chosen = levels[np.unique(np.linspace(0, len(levels) - 1, 6).astype(int))]
    figure = new_figure(1.5 * len(chosen) + 1, 2.2)
    limit = max(float(np.abs(values).max()), 1e-9)
    panels = np.atleast_1d(figure.subplots(1, len(chosen)))
    for axes, level in zip(panels, chosen, strict=True):
        shown = axes.imshow(
            volume[:, :, level].T, origin="lower", cmap=DIVERGING, vmin=-limit, vmax=limit
        )
        axes.set_title(f"k = {level}", fontsize=8)
        axes.set_axis_off()
    figure.colorbar(shown, ax=panels.tolist(), label="drop", shrink=0.8)
    return figure


def _volume(values: NDArray[Any], data: xr.Dataset, atlas: Any) -> NDArray[Any] | None:
    """Lay values of parcels into a volume, NaN outside."""
    if all(axis in data.coords for axis in "ijk"):
        ijk = np.column_stack([data[axis].values for axis in "ijk"]).astype(int)
        volume = np.full(ijk.max(0) + 1, np.nan)
        volume[tuple(ijk.T)] = values
        return volume
    if atlas is None or "value" not in data.coords:
        return None
    from fmri.volumes import load_image

    labels = np.rint(np.asanyarray(load_image(atlas, str(atlas)).dataobj)).astype(int)
    if labels.ndim != 3:
        return None
    table = np.full(int(labels.max()) + 1, np.nan)
    index = data["value"].values.astype(int)
    fits = index < len(table)
    table[index[fits]] = values[fits]
    table[0] = np.nan
    found: NDArray[Any] = table[np.maximum(labels, 0)]
    return found
