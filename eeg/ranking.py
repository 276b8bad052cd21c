"""The report of the model selection: rankings by setting, and how stable each latent is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.select import COUNTS, Candidate, Selection, described
from neuro.draw import COLOURS, GREY, new_figure, tidy
from neuro.metrics.latents import KL_KEPT
from neuro.metrics.udr import METHODS
from neuro.report import Block, Figure, Table, Text, Warning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

NAMES = {"lasso": "UDR (Lasso)", "spearman": "UDR (Spearman)"}
MARK = "chosen"


def selection_blocks(selection: Selection) -> list[Block]:
    """Show which model was chosen, the whole ranking, and how stable the chosen latents are.

    Parameters
    ----------
    selection : Selection
        From `eeg.select.select`.
    """
    best = selection.best
    blocks: list[Block] = [
        Text(
            f"Chosen: {described(best.setting, best.seed)}, by {NAMES[selection.method]} "
            f"{best.udr[selection.method]:.2f}, among {len(selection.candidates)} models of "
            f"{len(selection.groups())} settings. No label was looked at: a model ranks high where "
            "the other seeds of its setting found the same latents, up to order and sign. Only "
            f"models that explain at least {selection.floor:.2f} of the variance could be chosen: "
            "few latents agree easily."
        ),
        *(Warning(note) for note in selection.notes),
        Figure(
            udr_figure(selection),
            "Agreement over seeds and latents kept, for every setting. Dots: one seed each; line: "
            "median; ring: the chosen model. Few kept latents agree more easily than many.",
        ),
        Table(_setting_rows(selection), "Each setting: medians over its seeds."),
        Table(_model_rows(selection), "Each model."),
    ]
    if best.stability is not None:
        caption = (
            "Latents of the chosen model. Stability: median over the other seeds of the absolute "
            "rank correlation with the latent that was matched to it one to one."
        )
        blocks.append(Table(_latent_rows(best), caption, units={"KL": "nats"}))
    return blocks


def method_sentence(selection: Selection) -> tuple[str, ...]:
    """Describe the selection in one sentence for the methods paragraph, with its citations."""
    group = next(g for g in selection.groups() if selection.chosen in g)
    return (
        f"The encoder was chosen without labels by unsupervised disentanglement ranking "
        f"({selection.method} version) among {len(selection.candidates)} models of "
        f"{len(selection.groups())} settings, {len(group)} seeds of the chosen one "
        f"({described(selection.best.setting)}).",
        "duan2020",
    )


def _setting_rows(selection: Selection) -> list[dict[str, Any]]:
    rows = []
    for group in selection.groups():
        members = [selection.candidates[i] for i in group]
        ranked = [m for m in members if m.udr]
        scores = {
            NAMES[k]: float(np.median([m.udr[k] for m in ranked])) if ranked else None
            for k in METHODS
        }
        mark = MARK if selection.chosen in group else ""
        setting = members[0].setting or {"setting": described({})}
        rows.append({"": mark, **setting, "seeds": len(group), **scores, **_medians(members)})
    return rows


def _model_rows(selection: Selection) -> list[dict[str, Any]]:
    return [
        {
            "": MARK if i == selection.chosen else "",
            **model.setting,
            "seed": model.seed,
            **{NAMES[k]: model.udr.get(k) for k in METHODS},
            **_medians([model]),
        }
        for i, model in enumerate(selection.candidates)
    ]


def _medians(models: Sequence[Candidate]) -> dict[str, Any]:
    names = dict(zip(COUNTS, ("KL > 0.01", "active", "mixed", "passive"), strict=True))
    counts = {shown: float(np.median([m.counts[k] for m in models])) for k, shown in names.items()}
    explained = float(np.median([m.reconstruction for m in models]))
    return {**counts, "variance explained": explained}


def _latent_rows(model: Candidate) -> list[dict[str, Any]]:
    stability = np.zeros(len(model.kl)) if model.stability is None else model.stability
    order = np.argsort(-model.kl, kind="stable")
    return [
        {
            "latent": int(k),
            "KL": float(model.kl[k]),
            "kept": "yes" if model.kl[k] > KL_KEPT else "no",
            "type": str(model.types[k]),
            "stability": float(stability[k]),
        }
        for k in order
    ]


def udr_figure(selection: Selection) -> MatplotlibFigure:
    """Draw both versions of the ranking and the latents kept, against the settings.

    Parameters
    ----------
    selection : Selection
        From `eeg.select.select`. Settings that differ in one number (beta) are ordered by it.
    """
    name, groups = _axis([c.setting for c in selection.candidates], selection.groups())
    figure = new_figure(10, 3.2)
    panels = figure.subplots(1, len(METHODS) + 1)
    for axes, method in zip(panels, METHODS, strict=False):
        values = [[selection.candidates[i].udr.get(method) for i in g] for _, g in groups]
        _dots(axes, values, _place(groups, selection.chosen))
        axes.set_ylim(-0.03, 1.03)
        decides = " · decides" if method == selection.method else ""
        tidy(axes, name, "agreement over seeds", f"{NAMES[method]}{decides}")
    kept = [[selection.candidates[i].counts["kl_active"] for i in g] for _, g in groups]
    _dots(panels[-1], kept, _place(groups, selection.chosen))
    panels[-1].axhline(selection.best.kl.size, color=GREY, lw=0.8, ls=":")
    panels[-1].set_ylim(-0.5, selection.best.kl.size + 0.5)
    tidy(panels[-1], name, "latents", "Latents kept (KL > 0.01)")
    texts = [text for text, _ in groups]
    for axes in panels:
        long = max(len(text) for text in texts) > 6
        axes.set_xticks(range(len(texts)), texts, rotation=90 if long else 0, fontsize=8)
        axes.set_xlim(-0.6, len(texts) - 0.4)
    return figure


def _dots(axes: Axes, values: Sequence[Sequence[Any]], chosen: tuple[int, int]) -> None:
    """Draw each setting's seeds side by side around its place, and their median."""
    for x, column in enumerate(values):
        known = [(j, v) for j, v in enumerate(column) if v is not None]
        if not known:
            axes.text(x, 0.5, "one seed", fontsize=7, color=GREY, ha="center", rotation=90)
            continue
        places = {j: x + 0.5 * ((j + 0.5) / len(column) - 0.5) for j, _ in known}
        axes.plot([places[j] for j, _ in known], [v for _, v in known], "o", ms=4,
                  color=COLOURS[0], alpha=0.8)  # fmt: skip
        middle = float(np.median([v for _, v in known]))
        axes.plot([x - 0.32, x + 0.32], [middle, middle], color="black", lw=1.2)
        if x == chosen[0]:
            axes.plot([places[chosen[1]]], [column[chosen[1]]], "o", ms=11, mfc="none",
                      mec=COLOURS[1], mew=1.8)  # fmt: skip
    axes.grid(axis="y", color="#eeeeee", zorder=0)


def _axis(
    settings: Sequence[Mapping[str, Any]], groups: Sequence[list[int]]
) -> tuple[str, list[tuple[str, list[int]]]]:
    """Name the axis, and write each setting short; order by a single number."""
    names = list(settings[0])
    if len(names) == 1 and all(isinstance(s.get(names[0]), int | float) for s in settings):
        order = sorted(groups, key=lambda g: settings[g[0]][names[0]])
        return names[0], [(f"{settings[g[0]][names[0]]:g}", list(g)) for g in order]
    return "", [(described(settings[g[0]]), list(g)) for g in groups]


def _place(groups: Sequence[tuple[str, list[int]]], chosen: int) -> tuple[int, int]:
    return next((x, g.index(chosen)) for x, (_, g) in enumerate(groups) if chosen in g)
