"""Many simulated brains pooled: ranks of networks, the null network, pretraining, imagery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fmri.network_ablation import truth_correlation
from neuro.errors import DataError
from neuro.validation import Estimate, paired_difference, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from neuro.stage import Context

__all__ = ["record", "score_ablation"]


def record(
    context: Context, ablations: Sequence[pd.DataFrame], gains: Sequence[pd.DataFrame],
    imagery: Sequence[pd.DataFrame], settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Pool what was found in every brain, hand over, return a row for each."""
    from neuro.report import Figure, Table, Text

    if not len(ablations) == len(gains) == len(imagery):
        raise DataError(
            f"{len(ablations)} ablations, {len(gains)} gains and {len(imagery)} tests of imagery "
            "were wired; expected one of each for every brain"
        )
    rows = [
        {"brain": number + 1, **score_ablation(one), **_gain(gain), "imagery_p": _first(test, "p")}
        for number, (one, gain, test) in enumerate(zip(ablations, gains, imagery, strict=True))
    ]
    table = pd.DataFrame(rows)
    how = {"n_unit": "brain", "n_boot": settings["n_boot"], "random_state": settings["seed"]}
    found: dict[str, Estimate] = {
        "study.spearman": summarise(table["spearman"], **how),
        "study.null_inside": summarise(table["null_inside"], **how),
        "study.pretrain.gain": paired_difference(table["pretrained"], table["scratch"], **how),
        "study.pretrain.gain_identified": paired_difference(
            table["pretrained_identified"], table["scratch_identified"], **how
        ),
        "study.pretrain.over_linear": paired_difference(table["pretrained"], table["linear"],
                                                        **how),
    }  # fmt: skip
    known = table["imagery_p"].dropna()
    if len(known):
        found["study.imagery.significant"] = summarise((known <= 0.05).astype(float), **how)
    for name, one in found.items():
        one.record(context, name)
    gain = found["study.pretrain.gain"]
    sure = gain.low is not None and gain.low > 0
    context.section(
        "All brains",
        Text(
            f"Over {len(table)} simulated brains the drops of networks rank as planted with a "
            f"Spearman correlation of {found['study.spearman'].value:.3f} on average (at least "
            f"{table['spearman'].min():.3f}); the null network lies in the band of random sets in "
            f"{int(table['null_inside'].sum())}. "
            + ("Pretraining raises decoding with few labels." if sure else
               "That pretraining raises decoding with few labels is not shown.")
        ),
        Table([{"what": n, "value": e.value, "low": e.low, "high": e.high, "p": e.p, "n": e.n}
               for n, e in found.items()], "95 % intervals over brains."),
        Table(table.round(4).to_dict("records"), "Each brain."),
        Figure(_figure(table), "Accuracy with few labels, a line for each brain."),
    )  # fmt: skip
    return table


def score_ablation(table: pd.DataFrame) -> dict[str, float]:
    """Rank drops against what was planted, and see whether null networks lie in their band.

    Parameters
    ----------
    table : DataFrame
        Of the stage brain-ablate, of simulated data: the first way of filling counts.
    """
    first = table[table["how"] == table["how"].iloc[0]]
    if first["information"].isna().all():
        raise DataError("the ablation knows no truth; brain-study pools simulated brains")
    drops = dict(zip(first["network"], first["drop"], strict=True))
    truth = dict(zip(first["network"], first["information"], strict=True))
    null = first[first["information"] == 0]
    inside = (null["drop"] >= null["random_low"]) & (null["drop"] <= null["random_high"])
    return {
        "spearman": truth_correlation(drops, truth),
        "null_inside": float(inside.mean()) if len(null) else float("nan"),
        "null_p": float(null["p"].min()) if len(null) else float("nan"),
    }


def _gain(table: pd.DataFrame) -> dict[str, float]:
    by_item = table.groupby("item").mean(numeric_only=True)
    names = ("pretrained", "scratch", "linear")
    return {
        key: float(by_item[key].mean()) for name in names for key in (name, f"{name}_identified")
    }


def _first(table: pd.DataFrame, column: str) -> float:
    return float(table[column].iloc[0]) if len(table) else float("nan")


def _figure(table: pd.DataFrame) -> MatplotlibFigure:
    from neuro.draw import COLOURS, new_figure, tidy

    names = ["scratch", "pretrained", "linear"]
    figure = new_figure(4.5, 3.0)
    axes = tidy(figure.subplots(), "", "accuracy")
    axes.plot(range(3), table[names].to_numpy().T, "o-", color=COLOURS[0], alpha=0.6)
    axes.set_xticks(range(3), names)
    axes.set_ylim(0, max(0.1, float(np.nanmax(table[names].to_numpy())) * 1.1))
    return figure
