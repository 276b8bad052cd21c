"""The report of what is predicted in held-out runs and sessions: tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.figures import intervals_figure
from eeg.readings import Key, Readings
from eeg.scan_plots import OWN
from neuro.report import Block, Figure, Table, Text
from neuro.validation import Estimate, shuffled_band

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from eeg.scan import SCAN
    from eeg.within_evaluate import WithinEvaluation
    from neuro.stage import Context

Rows = list[dict[str, Any]]


def evaluate(
    context: Context, encoder: Any, scan: SCAN | None, data: xr.Dataset, settings: dict[str, Any]
) -> pd.DataFrame:
    """Hold runs and sessions out, and hand what is found over to a run."""
    import pandas as pd

    from eeg import methods, within_evaluate

    how = {k: v for k, v in settings.items() if k != "seed"}
    found = within_evaluate.evaluate_within(
        encoder,
        data,
        scan=scan,
        random_state=settings["seed"],
        scratch=context.scratch,
        progress=context.progress,
        **how,
    )
    within_evaluate.record(context, found)
    numbers = settings["n_shuffles"], settings["n_boot"]
    for sentence, citations in methods.within(found.plans, encoder.train_on, *numbers):
        context.method(sentence, *citations)
    if found.by_subject:
        context.section("Condition in held-out runs", *condition_blocks(found))
    if found.identity.draws:
        context.section("Subject in held-out sessions", *identity_blocks(found.identity))
    return pd.DataFrame(rows_of(found))


def rows_of(found: WithinEvaluation) -> Rows:
    """Lay every estimate out as rows: label, subject ("" for all), level, representation."""
    parts = [("", found.condition), *found.by_subject.items(), ("", found.identity)]
    return [
        {"label": label, "subject": who, "level": level, **row}
        for who, readings in parts
        for label, level in dict.fromkeys((key[0], key[2]) for key in readings.accuracy)
        for row in table(readings, label, level)
    ]


def table(readings: Readings, label: str, level: str) -> Rows:
    """Rows of one label at one level, one per representation, beside chance and shuffled band."""
    keys = [key for key in readings.accuracy if key[0] == label and key[2] == level]
    rows = []
    for key in keys:
        own, area = readings.accuracy[key], readings.auc.get(key, Estimate())
        mean, sd = readings.spread.get(key, (None, None))
        band, area_band = _bands(readings, key)
        rows.append(
            {
                "representation": key[1],
                "balanced_accuracy": own.value,
                "low": own.low,
                "high": own.high,
                "chance": own.chance,
                "shuffled low": band[0],
                "shuffled high": band[1],
                "p": own.p,
                "p_corrected": own.p_corrected,
                "fold mean": mean,
                "fold sd": sd,
                "auc": area.value,
                "auc low": area.low,
                "auc high": area.high,
                "auc shuffled low": area_band[0],
                "auc shuffled high": area_band[1],
                "auc p": area.p,
                "auc p_corrected": area.p_corrected,
                "n": own.n,
                "of": own.n_unit,
            }
        )
    # Last stands what it is measured against.
    return sorted(rows, key=lambda row: row["representation"] == "shuffled")


def _bands(readings: Readings, key: Key) -> list[tuple[float | None, float | None]]:
    """Where 95 % of the balanced accuracies and of the areas of shuffled labels fall."""
    found: list[tuple[float | None, float | None]] = []
    draws = readings.draws.get(key)
    for null in (draws.accuracy[1:], draws.auc[1:]) if draws else (np.empty(0), np.empty(0)):
        known = null[np.isfinite(null)]
        found.append(shuffled_band(known)[1:] if len(known) else (None, None))
    return found


def shown(rows: Rows) -> Rows:
    """Put value and interval into one column each, so that a table fits a page."""
    return [
        {
            "representation": row["representation"].replace("_", " "),
            "balanced accuracy": _with_interval(row["balanced_accuracy"], row["low"], row["high"]),
            "shuffled": _range(row["shuffled low"], row["shuffled high"]),
            "p": row["p_corrected"],
            "over folds": _spread(row["fold mean"], row["fold sd"]),
            "AUC": _with_interval(row["auc"], row["auc low"], row["auc high"]),
            "AUC shuffled": _range(row["auc shuffled low"], row["auc shuffled high"]),
            "p (AUC)": row["auc p_corrected"],
        }
        for row in rows
    ]


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    return "–" if value is None else f"{value:.3f} {_range(low, high)}".strip()


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _spread(mean: float | None, sd: float | None) -> str:
    return "" if mean is None or sd is None else f"{mean:.2f} ± {sd:.2f}"


def _block(rows: Rows, caption: str) -> Table:
    first = rows[0]
    told = f"n = {first['n']} {first['of']}s; chance {first['chance']:.3g}, of the area 0.5."
    return Table(shown(rows), f"{caption} {told}")


def condition_blocks(found: WithinEvaluation) -> list[Block]:
    """Show how well the condition of single trials is told in runs nobody was fitted on."""
    n = len(found.by_subject)
    blocks: list[Block] = [
        Text(
            "Inside each subject one run after another was held out, and everything was fitted to "
            "the subject's other runs: encoder, autoencoder, components, SCAN, classifier and "
            "statistics. Single trials were classified by a linear discriminant whose shrinkage is "
            "tuned on left-out training runs; SCAN reads them by itself. Areas compare trials of "
            "one run. Intervals come from resampled runs (of fewer than six, from their trials "
            "too), p and the shuffled band from labels shuffled inside runs. The means over "
            "subjects speak of these subjects only."
        ),
        Figure(
            _figure({"all subjects": found.condition, **found.by_subject}, "single_trial", "auc"),
            "ROC area on single trials of held-out runs with 95 % intervals over runs; dashed: "
            "chance; grey: where 95 % of the values fall when the labels are shuffled.",
        ),
    ]
    rows = table(found.condition, "condition", "single_trial")
    blocks.append(_block(rows, f"Condition: means over {n} subjects, each counting once."))
    for who, readings in found.by_subject.items():
        own = table(readings, "condition", "single_trial")
        blocks.append(_block(own, f"Condition in subject {who} (p corrected over subjects, Holm)."))
    return blocks


def identity_blocks(readings: Readings) -> list[Block]:
    """Show how well a session tells whose it is."""
    levels = {"subject": "average of a session", "single_trial": "single trials"}
    panels = {"session averages": "subject", "single trials": "single_trial"}
    return [
        Text(
            "One session after another was held out. The classes are the subjects that have "
            "another session; subjects with one session only are among the classes and are not "
            "tested. A session's row holds the mean over its trials and the conditions' deviations "
            "from it. Areas compare held-out sessions with one another, whose scores come from "
            "different fits. p and the shuffled band come from dealing the sessions out to "
            "subjects anew (for SCAN, the truth of the held-out ones). The balanced accuracy is "
            "the mean recall of the tested subjects; chance is one over the number of classes."
        ),
        Figure(
            intervals_figure(
                **_panels({title: (readings, level) for title, level in panels.items()}, "accuracy")
            ),
            "Balanced accuracy on held-out sessions with 95 % intervals over sessions; dashed: "
            "chance; grey: where 95 % of the values fall when sessions are dealt out anew.",
        ),
        *[
            _block(table(readings, "subject", level), f"Subject: {told}.")
            for level, told in levels.items()
        ],
    ]


def _figure(parts: Mapping[str, Readings], level: str, measure: str) -> Any:
    return intervals_figure(**_panels({who: (r, level) for who, r in parts.items()}, measure))


def _panels(parts: Mapping[str, tuple[Readings, str]], measure: str) -> dict[str, Any]:
    """Arguments of `intervals_figure`: one panel per part."""
    panels: dict[str, Any] = {title: {} for title in parts}
    marks: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for title, (readings, level) in parts.items():
        for (_, name, own), estimate in getattr(readings, measure).items():
            if own != level:
                continue
            if name == "shuffled":
                bands[title] = (estimate.low, estimate.high)
                continue
            panels[title][name] = asdict(estimate)
            marks[title] = {"chance": estimate.chance}
    return {"panels": panels, "marks": marks, "bands": bands, "highlight": OWN}
