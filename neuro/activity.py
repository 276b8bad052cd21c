"""The part of every VAE's report on passive latents: mean against sampled representations.

References
----------
Bonheme and Grzes, "Be more active! Understanding the differences between mean and sampled
representations of variational autoencoders" (arXiv 2109.12679).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from neuro.blocks import Block, Figure, Table, Text
from neuro.draw import COLOURS, new_figure, tidy
from neuro.metrics.activity import Representation, compare_representations, gap_closed
from neuro.metrics.factors import Factors
from neuro.metrics.latents import latent_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

TITLE = "Active and passive latents"
_NAMES = {"tc": "total correlation, nats", "correlation": "mean |r|"}


def activity_blocks(
    mean: ArrayLike,
    variance: ArrayLike,
    factors: Factors | None = None,
    *,
    random_state: int = 0,
) -> list[Block]:
    """Draw and tabulate what dropping passive latents does.

    Parameters
    ----------
    mean, variance : array-like, shape (trial, latent)
        Of the posteriors.
    factors : optional
        Labels that both representations are probed for, as in `disentanglement`.
    random_state : int
        Of the sample.

    Returns
    -------
    list of Block
        For ``context.section(TITLE, *blocks)``.
    """
    found = compare_representations(mean, variance, factors, random_state=random_state)
    counts = latent_counts(mean, variance)
    rows = [
        {name: value for name, value in asdict(one).items() if value is not None} for one in found
    ]
    sentence = (
        f"{counts['active']} latents are active, {counts['mixed']} mixed and {counts['passive']} "
        f"passive by the posterior variance; {counts['kl_active']} have a KL above 0.01. "
    )
    if counts["passive"]:
        sentence += (
            "Dropping the passive ones closes "
            f"{gap_closed(found, 'tc'):.0%} of the gap between mean and sampled latents in total "
            f"correlation and {gap_closed(found, 'correlation'):.0%} in mean |r|."
        )
    else:
        sentence += "Without passive latents there is nothing to drop."
    return [
        Text(sentence),
        Figure(
            activity_figure(found),
            "Dependence of mean and sampled latents, with and without passive ones.",
            format="svg",
        ),
        Table(rows, "Mean and sampled latents.", units={"tc": "nats"}),
    ]


def activity_figure(found: Sequence[Representation]) -> MatplotlibFigure:
    """Draw total correlation and mean |r| of both representations as pairs of bars."""
    figure = new_figure(7, 2.8)
    for axes, (measure, label) in zip(figure.subplots(1, 2), _NAMES.items(), strict=True):
        for shift, (name, colour) in enumerate(zip(("mean", "sampled"), COLOURS, strict=False)):
            own = [f for f in found if f.representation == name]
            heights = [getattr(f, measure) for f in own]
            places = [place + (shift - 0.5) * 0.38 for place in range(len(own))]
            axes.bar(places, heights, 0.36, color=colour, label=name)
            axes.set_xticks(range(len(own)), [f.latents for f in own])
        tidy(axes, ylabel=label)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def report_activity(
    context: Any, mean: ArrayLike, variance: ArrayLike, factors: Factors | None = None
) -> None:
    """Add the section to a stage's report."""
    context.section(TITLE, *activity_blocks(mean, variance, factors))
