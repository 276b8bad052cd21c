"""What latents and SCAN are worth inside a person: the condition in a held-out run, and whose a
held-out session is.

Conditions: inside each subject one run after another is held out; encoder, autoencoder, principal
components, SCAN, classifier and statistics are fitted to that subject's other runs. Identity: one
session after another is held out of everybody's, and the encoder doesn't know which of the others
belong together. Numbers over subjects are means over these very subjects; what is resampled is
runs (sessions).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.held_out import Plan, condition_plans, subject_plan, units_scored
from eeg.readings import (
    Draws,
    Key,
    Reader,
    Readings,
    add_estimates,
    read_targets,
)
from eeg.repeats import Fitted, fit_targets
from neuro.errors import InputError
from neuro.validation import Estimate, correct_estimates

if TYPE_CHECKING:
    import xarray as xr

    from eeg.scan import SCAN
    from neuro.stage import Context

QUESTIONS = ("condition", "subject")
FEW = 6  # units below which trials are resampled inside them, and the interval is called rough
_TESTED = "single_trial"  # the level of conditions


@dataclass
class WithinEvaluation:
    """Everything that `evaluate_within` found.

    Parameters
    ----------
    condition : Readings
        Means over subjects; empty where it was not asked for.
    by_subject : dict of str to Readings
        The condition in each subject.
    identity : Readings
        Whose a held-out session is; empty where it was not asked for.
    plans : list of Plan
        What was held out from what.
    fitted : list of Fitted
        What was fitted, one per plan.
    notes : list of str
        What a reader must know.
    splits : list of str
        Identity of the test split of each question.
    """

    condition: Readings = field(default_factory=Readings)
    by_subject: dict[str, Readings] = field(default_factory=dict)
    identity: Readings = field(default_factory=Readings)
    plans: list[Plan] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)

    def by_name(self) -> dict[str, Estimate]:
        """Estimates by their name in ``metrics.json``."""
        # Conditions are read from single trials only, so that their name needs no level.
        named = {
            f"classify.{name.replace('.single_trial', '')}": estimate
            for name, estimate in self.condition.by_name().items()
        }
        for who, readings in self.by_subject.items():
            for name, estimate in readings.by_name().items():
                short = name.replace(".single_trial", "")
                named[f"within.{re.sub(r'[^A-Za-z0-9_]', '_', who)}.{short}"] = estimate
        named |= {f"classify.{k}": e for k, e in self.identity.by_name().items()}
        return named


def evaluate_within(
    estimator: Any,
    data: xr.Dataset,
    *,
    predict: Sequence[str] = QUESTIONS,
    scan: SCAN | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    random_state: int = 0,
    scratch: Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> WithinEvaluation:
    """Predict the condition in held-out runs, and the subject in held-out sessions.

    Parameters
    ----------
    estimator : BetaVAE
        Its parameters are used for unfitted copies; itself it is not changed.
    data : Dataset
        Trials ``signal`` (trial, channel, time) in uV with ``subject``, ``session``, ``run`` and
        ``condition``.
    predict : sequence of {"condition", "subject"}
    scan : SCAN, optional
        Its parameters; by default it is tied to single trials, since these are what is read.
    windows, groups : mapping, optional
        The hand-made features, see `eeg.erp.window_features`.
    n_shuffles, n_boot, random_state
        Label shuffles, bootstrap samples, seed.
    scratch, progress
        As in `eeg.evaluate.evaluate`.

    Returns
    -------
    WithinEvaluation

    Raises
    ------
    InputError
        Where runs (sessions) are not known or there are too few; what was found is named.
    """
    unknown = sorted(set(predict) - set(QUESTIONS))
    if unknown or not predict:
        raise InputError(
            f"predict is {', '.join(predict) or 'empty'}; expected {' or '.join(QUESTIONS)}"
        )
    # Both are planned before anything is trained: what can't be tested is said at once.
    found = condition_plans(data) if "condition" in predict else ([], [])
    identity = subject_plan(data) if "subject" in predict else None
    settings: dict[str, Any] = {
        "scan": scan, "windows": windows, "groups": groups, "n_shuffles": n_shuffles,
        "n_boot": n_boot, "progress": progress,
    }  # fmt: skip
    result = WithinEvaluation()
    result.notes += [f"{e['subject']} is not tested by runs: {e['reason']}" for e in found[1]]
    for number, plan in enumerate(found[0]):
        # Seeds of their own: bootstrap and shuffles of different subjects are independent.
        own = _evaluate(result, estimator, plan, random_state + number, scratch, settings)
        result.by_subject[plan.name] = own
    if result.by_subject:
        result.condition = average(list(result.by_subject.values()), "run")
        result.by_subject = _corrected(result.by_subject)
        result.splits.append("+".join(_split(plan) for plan in found[0]))
    if identity is not None:
        result.identity = _evaluate(result, estimator, identity, random_state, scratch, settings)
        result.splits.append(_split(identity))
    result.notes += _notes(result)
    return result


def _evaluate(
    result: WithinEvaluation, estimator: Any, plan: Plan, seed: int, scratch: Path | None,
    settings: Mapping[str, Any],
) -> Readings:  # fmt: skip
    from eeg.scan import SCAN

    scan = settings["scan"] or SCAN(level="trial", batch_size=256, learning_rate=0.003)
    folder = None if scratch is None else Path(scratch) / f"plan-{len(result.plans)}"
    fitted = fit_targets(
        estimator, plan.data, [plan.target], [plan.folds], seeds=[seed], scan=scan,
        scratch=folder, progress=settings["progress"],
    )  # fmt: skip
    result.plans.append(plan)
    result.fitted += fitted
    levels = (_TESTED,) if plan.target.within else ("subject", "single_trial")
    return read_targets(
        fitted,
        plan.data,
        [plan.target],
        reader=Reader(plan.unit, levels, (), identity=not plan.target.within, few=FEW),
        levels=levels,
        random_state=seed,
        **{name: value for name, value in settings.items() if name != "scan"},
    )


def average(parts: Sequence[Readings], unit: str) -> Readings:
    """Average readings over subjects, each counting once.

    Parameters
    ----------
    parts : sequence of Readings
        One per subject, with shuffles and bootstrap samples that are independent.
    unit : str
        What was resampled inside subjects.

    Returns
    -------
    Readings
        The intervals are those of a bootstrap stratified by subject; they speak of these
        subjects, not of others.
    """
    result = Readings()
    for key in parts[0].draws:
        draws = _averaged([part.draws[key] for part in parts])
        add_estimates(result, key, draws, unit=unit, n_strata=len(parts))
    n_folds = 0
    for part in parts:
        result.rows += [{**row, "fold": row["fold"] + n_folds} for row in part.rows]
        n_folds += 1 + max(row["fold"] for row in part.rows)
    result.accuracy, result.auc = (correct_each(e) for e in (result.accuracy, result.auc))
    return result


def _averaged(draws: Sequence[Draws]) -> Draws:
    return Draws(
        accuracy=np.mean([d.accuracy for d in draws], axis=0),
        accuracy_samples=np.mean([_widened(d, "accuracy") for d in draws], axis=0),
        auc=np.mean([d.auc for d in draws], axis=0),
        auc_samples=np.mean([_widened(d, "auc") for d in draws], axis=0),
        folds=[value for d in draws for value in d.folds],
        n=sum(d.n for d in draws),
        chance=draws[0].chance,
    )


def _widened(draws: Draws, measure: str) -> Any:
    """Bootstrap samples with the variance that a sample of n says the population has."""
    value, samples = getattr(draws, measure)[0], getattr(draws, f"{measure}_samples")
    return value + (samples - value) * np.sqrt(draws.n / max(draws.n - 1, 1))


def correct_each(estimates: dict[Key, Estimate]) -> dict[Key, Estimate]:
    """Correct p of labels, each representation and level by itself (one label: nothing to do)."""
    return {key: correct_estimates({key: e})[key] for key, e in estimates.items()}


def _corrected(by_subject: Mapping[str, Readings]) -> dict[str, Readings]:
    """Correct p over subjects (Holm), each representation by itself."""
    fixed = {who: replace(readings) for who, readings in by_subject.items()}
    for measure in ("accuracy", "auc"):
        found = {who: dict(getattr(readings, measure)) for who, readings in by_subject.items()}
        for key in next(iter(found.values())):
            family = correct_estimates({who: own[key] for who, own in found.items()})
            for who, estimate in family.items():
                found[who][key] = estimate
        for who, own in found.items():
            setattr(fixed[who], measure, own)
    return fixed


def _split(plan: Plan) -> str:
    from eeg.evaluate import _identity

    return _identity(plan.data, plan.folds)


def _notes(result: WithinEvaluation) -> list[str]:
    notes = []
    for plan in result.plans:
        tested = units_scored(plan)
        if len(tested) < FEW:
            whose = f" of {plan.name}" if plan.name else ""
            notes.append(
                f"{len(tested)} {plan.unit}s{whose} were tested: so few say little, and their "
                "interval is a rough one"
            )
    if result.identity.draws:
        notes += _identity_notes(result)
    if any(not np.any(e.kept_) for own in result.fitted for e in own.encoders):
        notes.append("the encoder kept no latent in some folds (collapse): lower beta")
    return notes


def _identity_notes(result: WithinEvaluation) -> list[str]:
    plan, notes = result.plans[-1], []
    codes = plan.target.codes[np.unique(plan.data["subject"].values, return_index=True)[1]]
    sizes = np.bincount(codes)
    alone = plan.target.classes[sizes < 2].tolist()
    if alone:
        notes.append(f"one session only, among the classes but not tested: {', '.join(alone)}")
    if (sizes > 1).sum() < 2:
        notes.append("one subject can be tested, so there is no ROC area of sessions")
    n_ways = different_ways(sizes.tolist())
    if n_ways < 100:
        notes.append(
            f"there are {n_ways} different ways to deal {len(codes)} sessions out to subjects: p "
            f"of what is refitted to them (all but SCAN) can't fall below {1 / n_ways:.2g}"
        )
    return notes


def different_ways(sizes: Sequence[int]) -> int:
    """Count the ways to deal sessions out to subjects of so many sessions each.

    Subjects with as many sessions may change names: the score stays the same.

    Examples
    --------
    >>> different_ways([2, 1, 2])
    15
    """
    ways = math.factorial(int(sum(sizes)))
    for size in sizes:
        ways //= math.factorial(int(size))
    for n in Counter(map(int, sizes)).values():
        ways //= math.factorial(n)
    return ways


def record(context: Context, result: WithinEvaluation) -> None:
    """Hand metrics, predictions and warnings over to a run.

    Parameters
    ----------
    context : Context
    result : WithinEvaluation
    """
    import pandas as pd

    for name, estimate in result.by_name().items():
        estimate.record(context, name)
    rows = [
        {**row, "target": row["target"].removesuffix(".single_trial")}
        for row in result.condition.rows
    ]
    context.predictions(pd.DataFrame(rows + result.identity.rows))
    for note in result.notes:
        context.warn(note)
    for split in result.splits:
        context.scored(split)
