"""What figures of all modalities share: colours, quiet axes, figures unknown to pyplot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito: told apart with every common colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
GREY = "#888888"
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
MAX_WIDTH = 10.0  # inches


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that pyplot does not know, so that drawing is safe in threads."""
    from matplotlib.figure import Figure

    return Figure(figsize=(min(width, MAX_WIDTH), height), layout="constrained")


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> Axes:
    """Name the axes and take away what says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    return axes
