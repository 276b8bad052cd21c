"""Report blocks of SCAN's evaluation: labels, regimes, factors, and what concepts decode to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from eeg.draw import time_axes
from eeg.figures import intervals_figure
from eeg.interpret import STABLE
from neuro.draw import COLOURS, new_figure
from neuro.report import Block, Figure, Table, Text, Warning

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from eeg.interpret import Interpretation
    from eeg.readings import Readings
    from eeg.regimes import Regimes
    from eeg.truth import FactorMatch, Recombined

OWN = ("beta_vae", "scan")
MOST_CHANNELS = 4


def readings_blocks(readings: Readings, excluded: Sequence[Mapping[str, str]] = ()) -> list[Block]:
    """Show how well each label is predicted, one table per label.

    Parameters
    ----------
    readings : Readings
        From `eeg.readings.read_labels_of`.
    excluded : sequence of mapping, optional
        label and reason.
    """
    blocks: list[Block] = [
        Warning(f"Not predicted: {entry['label']}, {entry['reason']}.") for entry in excluded
    ]
    if not readings.labels:
        return blocks
    blocks += [
        Text(
            "Participants were held out; encoder, components, SCAN and all statistics were fitted "
            "on training participants only. The balanced accuracy and the ROC area are those of a "
            "linear discriminant whose shrinkage is tuned inside the training participants; "
            "logistic regression and a linear support vector machine stand beside it. SCAN reads "
            "labels by itself. p: the same discriminant on shuffled labels (for SCAN, shuffled "
            "truth of held-out participants), corrected over labels (Holm). Areas compare "
            "participants of one fold."
        ),
        Figure(
            _readings_figure(readings),
            "Balanced accuracy on held-out participants with 95 % intervals; dashed: chance; "
            "grey: where 95 % of the values fall when the labels are shuffled.",
        ),
    ]
    for label in readings.labels:
        blocks.append(Table(readings.table(label), f"{label}: participants."))
        single = readings.table(label, "single_trial")
        if single:
            blocks.append(Table(single, f"{label}: single trials (discriminant and SCAN alone)."))
    return blocks


def _readings_figure(readings: Readings) -> MatplotlibFigure:
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    marks, bands = {}, {}
    for (label, name, level), estimate in readings.accuracy.items():
        if level != "subject":
            continue
        if name == "shuffled":
            if estimate.low is not None and estimate.high is not None:
                bands[label] = (estimate.low, estimate.high)
            continue
        panels.setdefault(label, {})[name] = asdict(estimate)
        if estimate.chance is not None:
            marks[label] = {"chance": estimate.chance}
    return intervals_figure(panels, marks=marks, bands=bands, highlight=OWN)


def regimes_blocks(regimes: Regimes) -> list[Block]:
    """Show every way of training against every way of testing."""
    if not regimes.rows:
        return []
    caption = (
        "Training regimes crossed with what is tested: balanced accuracy of a linear discriminant "
        "on the latents, by label, and the correlation of the decoded ERP with that of the other "
        "half of the trials after the training grand average was taken away (residual r)."
    )
    return [Table(regimes.rows, caption), *(Warning(note) for note in regimes.notes)]


def factor_blocks(factors: Sequence[FactorMatch]) -> list[Block]:
    """Show how well latents follow the generative factors of a simulated cohort."""
    if not factors:
        return []
    rows = [
        {
            "factor": match.name,
            "spearman": match.estimate.value,
            "low": match.estimate.low,
            "high": match.estimate.high,
            "latent (by fold)": ", ".join(match.latents),
        }
        for match in factors
    ]
    caption = (
        "The latent that follows each factor best on training participants, and its rank "
        "correlation with the factor on held-out ones."
    )
    return [Table(rows, caption)]


def interpretation_blocks(found: Interpretation) -> list[Block]:
    """Show which latents are named for which label, and what the others lack."""
    rows = [
        {
            "label": r.label,
            "latent": r.best,
            "of it": r.part,
            "named": "yes" if r.latent is not None else "no",
            "distance": r.distance,
            "specificity": r.specificity,
            "stability": r.stability,
            "p": r.p,
            "p (label alone)": r.p_label,
            "lacks": r.why_not,
        }
        for r in found.readings
    ]
    caption = (
        "The latent on which SCAN's posteriors of a label's values lie furthest apart (in their "
        "pooled standard deviations), and how far it is from the prior (nats). It is named for "
        "the label only if the encoder uses it (KL above 0.01), if the other seeds found it too "
        f"(absolute rank correlation of {STABLE:g} or more), and if participants differ on it "
        f"more than in {found.n_shuffles} shuffles of the labels (maximum over latents and labels)."
    )
    blocks: list[Block] = [Table(rows, caption, units={"specificity": "nats"})]
    if found.stability is None:
        blocks.append(Warning("Only one seed was trained: stability over seeds is not known."))
    return blocks


def recombined_blocks(found: Recombined, times: ArrayLike, channels: Sequence[str]) -> list[Block]:
    """Show what AND and IGNORE decode to, beside the simulator's truth.

    Parameters
    ----------
    found : Recombined
        From `eeg.truth.recombined`.
    times : array (time,)
        Seconds.
    channels : sequence of str
    """
    rows = [{"concept": title, "r": r} for title, r in found.r.items()]
    return [
        Figure(
            waves_figure(found, times, channels),
            "Difference waves: decoded with the labels minus decoded without any, and what the "
            "simulator's factors do. Their scale is SCAN's own: a posterior lies between the "
            "classes' means.",
        ),
        Table(rows, "Correlation of decoded and true waves; all conditions, channels, times."),
    ]


def waves_figure(found: Recombined, times: ArrayLike, channels: Sequence[str]) -> MatplotlibFigure:
    """Draw decoded and true waves: concepts in rows; strongest channels, by condition, in columns.

    Parameters
    ----------
    found : Recombined
    times : array (time,)
        Seconds.
    channels : sequence of str
    """
    n = len(found.conditions)
    power = np.sum([np.abs(truth).max(2) for _, truth in found.waves.values()], axis=0)
    strongest = np.sort(np.argsort(-power.max(0))[: max(1, MOST_CHANNELS // n)])
    shown = [(k, channel) for channel in strongest for k in range(n)]
    names = [f"{channels[channel]} {found.conditions[k]}".strip() for k, channel in shown]
    figure = new_figure(2.4 * len(shown) + 0.6, 1.7 * len(found.waves) + 0.4)
    grid = figure.subplots(len(found.waves), len(shown), squeeze=False, sharex=True, sharey="row")
    for panels, (title, waves) in zip(grid, found.waves.items(), strict=True):
        for axes, place, name in zip(panels, shown, names, strict=True):
            for wave, colour, side in zip(waves, (COLOURS[1], "black"), ("SCAN", "truth"),
                                          strict=True):  # fmt: skip
                axes.plot(np.asarray(times) * 1e3, wave[place], color=colour, lw=1.2, label=side)
            time_axes(axes, times, "µV", name)
        panels[0].set_title(f"{title}\n{names[0]}", fontsize=8, loc="left")
    grid[0, 0].legend(fontsize=7, frameon=False)
    return figure
