"""Report blocks of the fMRI stages: pictures, targets, training, retrieval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.draw import COLOURS, new_figure, tidy
from neuro.report import Block, Figure, Table, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

MOST = 12  # pictures in a row of a grid


def image_blocks(images: xr.Dataset) -> list[Block]:
    """Count the pictures of both parts and show some.

    Parameters
    ----------
    images : Dataset
        With the coordinate ``part``.
    """
    parts = images["part"].values
    names = images["category"].values if "category" in images.coords else np.full(len(parts), "all")
    rows = [
        {
            "category": str(c),
            **{p: int(((names == c) & (parts == p)).sum()) for p in ("train", "test")},
        }
        for c in np.unique(names)
    ]
    some = np.linspace(0, len(parts) - 1, min(MOST, len(parts))).astype(int)
    return [
        Table(rows, "Pictures by category and part; nothing is trained on the test part."),
        Figure(grid_figure([images["signal"].values[some]], ["pictures"]), "Some of the pictures."),
    ]


def target_blocks(targets: xr.Dataset, shown: Mapping[str, NDArray[Any]]) -> list[Block]:
    """Say what the targets are; show what they keep of pictures not trained on."""
    n_tokens, n_features = targets["signal"].shape[1:]
    made = json.loads(targets.attrs["fingerprint"])
    rows = [{"field": name, "value": _brief(value)} for name, value in made.items()]
    blocks: list[Block] = [
        Text(f"Every picture is {n_tokens} tokens of {n_features} features."),
        Table(rows, "Fingerprint: a gallery or a cache made in another way is refused."),
    ]
    if "source" in targets.attrs:
        blocks.append(Text(f"Source of the attributes: {targets.attrs['source']}."))
    if shown:
        figure = grid_figure([shown["images"], shown["decoded"]], ["picture", "from its target"])
        caption = (
            "Pictures of the test part, and what their targets are decoded to: no reconstruction "
            "from a brain can be better."
        )
        blocks.append(Figure(figure, caption))
    return blocks


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def target_sentence(targets: xr.Dataset) -> tuple[str, ...]:
    """Say what the brain was mapped to, for the methods paragraph, with citations."""
    made = json.loads(targets.attrs["fingerprint"])
    n_tokens, n_features = targets["signal"].shape[1:]
    what = {
        "image-autoencoder": "a small autoencoder of the training pictures",
        "pixel-pca": "the principal components of the training pictures",
        "open_clip": f"the CLIP image tower {made['arch']} ({made['layer']})",
        "array-file": "embeddings that were computed elsewhere",
        "category-attributes": f"a table of attributes ({targets.attrs.get('source', '')})",
    }.get(made["provider"], made["provider"])
    sentence = f"Every picture was embedded as {n_tokens} x {n_features} numbers by {what}."
    return (sentence, "radford2021") if made["provider"] == "open_clip" else (sentence,)


def history_figure(history: Sequence[Mapping[str, Any]], title: str = "") -> MatplotlibFigure:
    """Draw every loss term over the epochs; those of the validation part are dashed."""
    names = [k for k in (history[0] if history else {}) if k != "epoch"]
    plain = [k for k in names if not k.startswith("val_")]
    figure = new_figure(2.6 * max(1, len(plain)) + 0.4, 2.4)
    grid = figure.subplots(1, max(1, len(plain)), squeeze=False)[0]
    for axes, name in zip(grid, plain, strict=False):
        tidy(axes, "epoch", "", f"{title} {name}".strip())
        for key, style in ((name, "-"), (f"val_{name}", "--")):
            if key in names:
                values = [entry.get(key, np.nan) for entry in history]
                axes.plot(values, style, color=COLOURS[style == "--"], lw=1.3)
    return figure


def history_blocks(history: Sequence[Mapping[str, Any]], what: str) -> list[Block]:
    """Show the losses of a training, where it had an epoch."""
    if not history:
        return [Text(f"No epoch of {what} was asked for.")]
    return [Figure(history_figure(history), f"Losses of {what} by epoch.")]


def retrieval_figure(
    seen: ArrayLike, found: ArrayLike, right: ArrayLike, title: str = "seen | top 5"
) -> MatplotlibFigure:
    """Draw seen pictures with the ones retrieved for them; the right one is framed.

    Parameters
    ----------
    seen : array (trial, channel, row, column)
    found : array (trial, rank, channel, row, column)
    right : array of bool (trial, rank)
    """
    seen, found, right = np.asarray(seen), np.asarray(found), np.asarray(right)
    n, k = right.shape
    figure = new_figure(0.8 * (k + 1) + 0.3, 0.8 * n + 0.4)
    grid = figure.subplots(n, k + 1, squeeze=False)
    for row in range(n):
        _picture(grid[row, 0], seen[row])
        for rank in range(k):
            _picture(grid[row, rank + 1], found[row, rank], framed=bool(right[row, rank]))
    grid[0, 0].set_title(title, fontsize=8, loc="left")
    return figure


def reconstruction_figure(columns: Mapping[str, ArrayLike]) -> MatplotlibFigure:
    """Draw pictures in named columns, a trial in each row.

    Parameters
    ----------
    columns : mapping of str to array (trial, channel, row, column)
        In [0, 1]; columns may differ in size.
    """
    pictures = [np.asarray(column) for column in columns.values()]
    n = len(pictures[0])
    figure = new_figure(0.95 * len(pictures) + 0.2, 0.85 * n + 0.5)
    grid = figure.subplots(n, len(pictures), squeeze=False)
    for number, (name, column) in enumerate(zip(columns, pictures, strict=True)):
        for row in range(n):
            _picture(grid[row, number], column[row])
        grid[0, number].set_title(name.replace(" ", "\n", 1), fontsize=7)
    return figure


def grid_figure(rows: Sequence[ArrayLike], names: Sequence[str]) -> MatplotlibFigure:
    """Draw pictures in rows, the same number in each.

    Parameters
    ----------
    rows : sequence of array (image, channel, row, column)
        In [0, 1].
    names : sequence of str
        Of the rows.
    """
    n = min(MOST, *(len(np.asarray(row)) for row in rows))
    figure = new_figure(0.78 * n + 0.5, 0.85 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), n, squeeze=False)
    for panels, row, name in zip(grid, rows, names, strict=True):
        for axes, picture in zip(panels, np.asarray(row)[:n], strict=True):
            _picture(axes, picture)
        panels[0].set_title(name, fontsize=8, loc="left")
    return figure


def _picture(axes: Axes, pixels: ArrayLike, framed: bool = False) -> None:
    values = np.clip(np.moveaxis(np.asarray(pixels, dtype=float), 0, -1), 0, 1)
    axes.imshow(values[..., 0] if values.shape[-1] == 1 else values, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(framed)
        spine.set_color(COLOURS[1])
        spine.set_linewidth(2.5)


def similarity_figure(test: ArrayLike, training: ArrayLike) -> MatplotlibFigure:
    """Draw how like test targets are to training ones, all pairs and each one's nearest.

    Parameters
    ----------
    test, training : array (picture, ...)
    """
    from fmri.baselines import similarity_histogram

    found = similarity_histogram(test, training)
    figure = new_figure(5, 2.6)
    axes = tidy(figure.subplots(), "cosine of targets", "share", "test against training pictures")
    for counts, colour, label in (
        (found.all_pairs, COLOURS[0], "all pairs"),
        (found.nearest, COLOURS[1], "nearest training picture"),
    ):
        axes.stairs(counts / max(counts.sum(), 1), found.edges, color=colour, label=label)
    axes.legend(fontsize=7, frameon=False)
    return figure
