"""What the study of adaptation tells: metrics by pair and model, and the report's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from timeseries.adapt import Pair, pair_estimate

if TYPE_CHECKING:
    from neuro.stage import Context
    from neuro.validation import Estimate

__all__ = ["MODELS", "Study", "tell"]

MODELS = ("dts", "unaligned", "source_only", "supervised", "vae", "pca", "raw", "raw_everyone")
_SEGMENTS = {"class": "C", "domain": "D"}


@dataclass
class Study:
    """What was found.

    Attributes
    ----------
    pairs : list of Pair
        Scored, in the seed's order.
    tables : list of dict
        Six columns by segment, one for each pair.
    scores : list of dict
        Accuracy by model, with an interval over spans of one recording and class.
    asked : int
        Pairs asked for.
    """

    pairs: list[Pair]
    tables: list[dict[str, dict[str, float]]]
    scores: list[dict[str, Estimate]]
    asked: int

    def table(self) -> pd.DataFrame:
        """Return one row for each pair and model."""
        return pd.DataFrame(
            {"source": pair.source, "target": pair.target, "model": model,
             "accuracy": found.value, "low": found.low, "high": found.high, "n": found.n,
             "chance": found.chance}
            for pair, scores in zip(self.pairs, self.scores, strict=True)
            for model, found in scores.items()
        )  # fmt: skip


def tell(study: Study, settings: dict[str, Any], context: Context) -> None:
    """Record the metrics over pairs and write the report's sections."""
    from neuro.report import Table, Text

    scores = study.table()
    chance = float(scores.groupby(["source", "target"])["chance"].first().mean())
    wide = scores.pivot(index=["source", "target"], columns="model", values="accuracy")
    wide = wide[list(MODELS)].loc[[(pair.source, pair.target) for pair in study.pairs]]
    rows = [_row(model, wide, study, chance, context) for model in MODELS]
    note = [Text(settings["note"])] if settings.get("note") else []
    context.section(
        "From a labelled person to an unlabelled one",
        Text(_explanation(study, settings)),
        *note,
        Table(rows, f"Accuracy, mean over pairs; chance (commonest class) {chance:.3f}."),
        Table(wide.reset_index().to_dict("records"), "Accuracy of every pair."),
    )
    _tell_segments(study, context)
    context.method(
        f"DTS (Li et al. 2022) was trained on the labelled series of one person and the unlabelled "
        f"ones of another, for {len(study.pairs)} pairs, and scored on other recordings of the "
        "second."
    )
    for pair, each in zip(study.pairs, study.scores, strict=True):
        for model, found in each.items():
            found.record(context, f"adapt.{pair.source}-{pair.target}.{model}.accuracy")


def _row(
    model: str, wide: pd.DataFrame, study: Study, chance: float, context: Context
) -> dict[str, Any]:
    own, pairs = wide[model].to_numpy(), study.pairs
    estimate = pair_estimate(own, pairs, chance=chance)
    estimate.record(context, f"adapt.mean.{model}.accuracy")
    gain = pair_estimate(own, pairs, wide["source_only"].to_numpy())
    if model != "dts":
        above = pair_estimate(wide["dts"].to_numpy(), pairs, own)
        above.record(context, f"adapt.difference.dts.{model}")
    return {
        "model": model, "accuracy": estimate.value, "low": estimate.low, "high": estimate.high,
        "minus source_only": gain.value, "from": gain.low, "to": gain.high,
    }  # fmt: skip


def _explanation(study: Study, settings: dict[str, Any]) -> str:
    names = {name for pair in study.pairs for name in (pair.source, pair.target)}
    if len(names) == 2 * len(study.pairs):
        unit = "No person is in two pairs, and intervals are over pairs."
    else:
        unit = (
            f"The pairs share {len(names)} persons; intervals are over persons, drawn with "
            "replacement, each pair weighing as often as both of its persons were drawn."
        )
    how = {
        "all": "their standardisation was fitted on source and unlabelled target together",
        "domain": "that of 'dts' and 'unaligned' was fitted on the source and on the unlabelled "
        "target, on each for itself, that of 'vae' on both together",
    }[settings.get("network", {}).get("standardise", "all")]
    what = "all standardised samples" if settings.get("raw") == "samples" else "simple statistics"
    return (
        f"{len(study.pairs)} of {study.asked} pairs, drawn by the seed before any training, were "
        "scored, each on recordings of the target that nothing was adapted to. No label of the "
        "target was used, but by 'supervised', which is trained on the target's own labels of "
        "the part that others adapt to and is an upper reference; classes that one of the two "
        "lacks are left out of both parts: the set is known. 'dts', 'unaligned' (the same without "
        f"domain and crossed heads: what the heads are worth) and 'vae' see both; {how}. For "
        "'source_only', 'pca' and 'raw' it was fitted on the source's training part alone; never "
        "on scored recordings. "
        f"'raw' is {what} of each channel, 'raw_everyone' the same from the labelled series of "
        "everyone but the target: where it is near 1, the set is near its ceiling for a linear "
        f"model, and adaptation can show little beyond it. {unit}"
    )


def _tell_segments(study: Study, context: Context) -> None:
    from neuro.report import Table

    rows, each_pair = [], []
    for segment in ("g_y", "g_d"):
        each = pd.DataFrame([table[segment] for table in study.tables])
        rows.append({"segment": segment, **each.mean().to_dict()})
        for what, letter in _SEGMENTS.items():
            both = each[[f"Acc/{letter}-S", f"Acc/{letter}-T"]].mean(axis=1)
            estimate = pair_estimate(both.to_numpy(), study.pairs)
            estimate.record(context, f"segment.{segment}.{what}.accuracy")
        each_pair += [
            {"segment": segment, "source": pair.source, "target": pair.target, **table[segment]}
            for pair, table in zip(study.pairs, study.tables, strict=True)
        ]
    context.section(
        "What each segment tells",
        Table(rows, (
            "Fresh linear probes on trials that DTS was not trained on, cross-validated over spans "
            "with classes and domains balanced; mean over pairs. D domain, C class, S source, T "
            "target; AUC of one class against the rest. The domain is one of two; wanted: g_y high "
            "on C and low on D, g_d the reverse."
        )),
        Table(each_pair, "The same of every pair."),
    )  # fmt: skip
