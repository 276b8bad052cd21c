"""What each part of MindEye is worth: the members of one sweep, and the effect of each setting.

Every member is scored on the same test pictures. A setting's effect is the paired difference over
pictures between the members that have one value and those that have another, averaged over all
that else was swept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.evaluate import DIRECTIONS, compare, cosine_to_truth, matched, retrieval_scores
from fmri.parts import stimuli_of, trials_of
from fmri.repeats import average_repeats
from neuro.errors import DataError
from neuro.metrics.retrieval import compare_rows
from neuro.validation import Estimate, summarise

if TYPE_CHECKING:
    import pandas as pd

    from fmri.mindeye import MindEye
    from neuro.report import Block
    from neuro.stage import Context

__all__ = ["Member", "effects", "record", "score_member"]

Floats = NDArray[np.float64]
Setting = dict[str, Any]

BACKBONE, PRIOR = "backbone", "prior"
MEASURES = (*DIRECTIONS, BACKBONE, PRIOR)


@dataclass(frozen=True)
class Member:
    """One model of the sweep, scored picture by picture.

    Attributes
    ----------
    setting : dict
        What was swept, as the workflow has it.
    values : dict of str to ndarray of shape (picture,)
        ``image`` and ``brain``: top 1 among all test pictures in both directions; ``backbone``
        and ``prior``: cosine to the true embedding of the backbone's tokens and of the prior's
        estimate of the mean (left out without a prior).
    """

    setting: Setting
    values: dict[str, Floats]

    @property
    def label(self) -> str:
        """The setting in one word for names of metrics, ``loss_infonce-head_shared``."""
        words = (f"{name}_{_word(value)}" for name, value in self.setting.items())
        return "-".join(words) or "all"


def record(
    context: Context, members: Sequence[Any], betas: xr.Dataset, targets: xr.Dataset,
    images: xr.Dataset, settings: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Score all members, hand the numbers over to a run and return them as a table."""
    import pandas as pd

    test = stimuli_of(images, "test")
    held = trials_of(betas, test)
    swept = context.members["members"]
    found = [
        score_member(encoder, setting, held, targets, settings["seed"])
        for encoder, setting in context.progress(
            list(zip(members, swept, strict=True)), "scoring", len(members)
        )
    ]
    how = {"n_boot": settings["n_boot"], "random_state": settings["seed"]}
    rows = [_row(context, member, 1 / len(test), how) for member in found]
    context.scored(hashlib.sha256("\2".join(sorted(test)).encode()).hexdigest()[:16])
    context.section("Ablations", *_blocks(rows, effects(found, **how), len(test)))
    context.method(
        f"{len(found)} variants of MindEye were trained alike and scored on the same pictures.",
        "scotti2023",
    )
    return pd.DataFrame(rows)


def score_member(
    encoder: MindEye, setting: Setting, held: xr.Dataset, targets: xr.Dataset, seed: int = 0
) -> Member:
    """Score one model on the trials of test pictures, outputs averaged over repeats.

    Parameters
    ----------
    encoder : MindEye
    setting : dict
    held : Dataset (trial, voxel)
        Trials of test pictures.
    targets : Dataset
    seed : int
        Of the prior's noise.

    Returns
    -------
    Member
    """
    brain, image, _ = matched(average_repeats(encoder.transform(held)), targets)
    values = dict(retrieval_scores(compare_rows(brain, image)))
    tokens = average_repeats(encoder.predict_tokens(held, prior=False))
    values[BACKBONE] = cosine_to_truth(*matched(tokens, targets)[:2])
    if encoder.prior:
        mean = average_repeats(encoder.predict_tokens(held, sampler="mean", random_state=seed))
        values[PRIOR] = cosine_to_truth(*matched(mean, targets)[:2])
    return Member(setting, values)


def effects(members: Sequence[Member], **how: Any) -> list[dict[str, Any]]:
    """Estimate what each swept setting does, beside its first value.

    Parameters
    ----------
    members : sequence of Member
    **how
        ``n_boot`` and ``random_state`` of the intervals over pictures.

    Returns
    -------
    list of dict
        ``setting``, ``value``, ``reference``, ``measure``, ``difference``, ``low``,
        ``high``, ``p``.

    Raises
    ------
    DataError
        Without members.

    Examples
    --------
    >>> one, two = np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0])
    >>> pair = [Member({"depth": n}, {"image": v}) for n, v in enumerate((one, two))]
    >>> [(e["value"], round(e["difference"], 3)) for e in effects(pair)]
    [(1, 0.333)]
    """
    if not members:
        raise DataError("the sweep has no members; give it lists of values")
    rows = []
    for name in members[0].setting:
        levels = list(dict.fromkeys(m.setting[name] for m in members))
        for measure in MEASURES:
            known = [m for m in members if measure in m.values]
            means = {
                level: np.mean([m.values[measure] for m in known if m.setting[name] == level], 0)
                for level in levels
                if any(m.setting[name] == level for m in known)
            }
            first, *others = means or [None]
            for level in others:
                e = compare(means[level], means[first], **how)
                rows.append(
                    {"setting": name, "value": level, "reference": first, "measure": measure,
                     "difference": e.value, "low": e.low, "high": e.high, "p": e.p}
                )  # fmt: skip
    return rows


def _row(context: Context, member: Member, chance: float, how: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {**member.setting}
    for measure, values in member.values.items():
        retrieval = measure in DIRECTIONS
        estimate: Estimate = summarise(
            values, n_unit="image", chance=chance if retrieval else None, **how
        )
        kind = f"retrieval.{measure}" if retrieval else f"cosine.{measure}"
        estimate.record(context, f"{kind}.{member.label}" + (".top1" if retrieval else ""))
        row |= {measure: estimate.value, f"{measure}_low": estimate.low,
                f"{measure}_high": estimate.high}  # fmt: skip
    return row


def _blocks(rows: list[dict[str, Any]], found: list[dict[str, Any]], n: int) -> list[Block]:
    from neuro.report import Table, Text

    intro = (
        f"{n} test pictures, the same for every variant; intervals are over pictures. “image” and "
        "“brain”: top 1 of all, from the brain to the picture and back. “backbone” and “prior”: "
        "cosine to the true embedding of the backbone's tokens and of the prior's estimate of the "
        "mean. One seed: a difference between trainings of other seeds is not in the intervals."
    )
    return [
        Text(intro),
        Table(rows, "Every variant."),
        Table(found, "Each setting beside its first value, all else averaged."),
    ]


def _word(value: Any) -> str:
    return "".join(c if c.isalnum() or c in "_+" else "_" for c in str(value))
