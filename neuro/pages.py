"""The pages of a report that are not a stage's own: summary, metrics, methods, provenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from neuro.bibtex import BIBTEX, bibtex, reference
from neuro.blocks import Warning
from neuro.markup import (
    block_html,
    duration,
    memory,
    metrics_html,
    pre_html,
    quantity,
    table_html,
    text_html,
)

HEADLINES = 16


@dataclass
class StageReport:
    """What the report shows of one stage of a run.

    Parameters
    ----------
    name : str
        The stage's name in the workflow.
    use : str
        The registered stage it uses.
    status : str
        For instance ``"run"``, ``"cached"`` or ``"failed"``.
    reason : str
        Why it ran.
    duration : float, optional
        Seconds that the result took (also when it was cached).
    peak_memory : float, optional
        Bytes.
    folders : mapping of str to Path
        The folders given to `write_section`, by a label: ``""`` for the stage itself, the item's
        or member's name under ``each`` and ``sweep``.
    methods : sequence of (str, sequence of str)
        Sentences with the citation keys of `BIBTEX` (or whole BibTeX entries).
    warnings : sequence of str
        What the stage warned of.
    marks : sequence of str
        What holds for all that comes of this stage or of one before it; on top of each section.
    """

    name: str
    use: str = ""
    status: str = ""
    reason: str = ""
    duration: float | None = None
    peak_memory: float | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    methods: Sequence[tuple[str, Sequence[str]]] = ()
    warnings: Sequence[str] = ()
    marks: Sequence[str] = ()


@dataclass
class Content:
    """All that a report shows besides the sections of its stages."""

    title: str
    stages: list[StageReport]
    metrics: dict[str, Mapping[str, Any]]
    scored: dict[str, int]
    workflow: str
    provenance: dict[str, Any]
    description: str


# -- the summary on top ------------------------------------------------------------------------


def opening(content: Content) -> Iterator[tuple[str, str]]:
    """Yield title and HTML of what stands on top."""
    yield "Summary", _summary(content)
    if content.metrics:
        yield "All metrics", _all_metrics(content.metrics)


def _summary(content: Content) -> str:
    parts = [text_html(content.description), _warnings(content.stages)]
    if content.metrics:
        headline = _headline(content.metrics)
        caption = (
            "Headline numbers. Dot and line: value and 95 % interval; dashed orange: chance; "
            "grey: baseline. All numbers are under “All metrics”."
        )
        parts.append(metrics_html(headline, caption))
    parts.append(table_html([_stage_row(s) for s in content.stages], "What was run."))
    parts.append(_scored(content.scored))
    return "".join(parts)


def _headline(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Choose a few of every quantity, first what stands beside a chance level or a baseline."""

    def lacking(name: str) -> int:
        return sum(metrics[name].get(f) is None for f in ("low", "baseline", "chance"))

    quantities: dict[tuple[str, str], list[str]] = {}
    known = [name for name, metric in metrics.items() if metric.get("value") is not None]
    for name in sorted(known, key=lambda name: (lacking(name), name.count("."))):
        quantities.setdefault((name.partition(".")[0], quantity(name)), []).append(name)
    turns = zip_longest(*quantities.values())  # one of each quantity, then the next of each
    chosen = [name for turn in turns for name in turn if name is not None][:HEADLINES]
    return {name: metrics[name] for name in known if name in chosen}


def _stage_row(stage: StageReport) -> dict[str, str]:
    row = {
        "stage": stage.name,
        "uses": stage.use,
        "status": stage.status,
        "why": stage.reason,
        "time": duration(stage.duration),
        "peak memory": memory(stage.peak_memory),
    }
    return {key: value for key, value in row.items() if value or key != "why"}


def _warnings(stages: Sequence[StageReport]) -> str:
    marks = dict.fromkeys(text for s in stages for text in s.marks)
    texts = dict.fromkeys(f"{s.name}: {text}" for s in stages for text in s.warnings)
    return "".join(block_html(Warning(text)) for text in [*marks, *texts])


def _scored(scored: Mapping[str, int]) -> str:
    if not scored:
        return ""
    rows = [{"test split": name, "times scored": count} for name, count in scored.items()]
    caption = (
        "How often each test split has been scored so far, over all runs on this cache. The more "
        "often one has chosen by it, the less a test split says about new data."
    )
    return table_html(rows, caption)


def _all_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, metric in metrics.items():
        groups.setdefault(name.partition(".")[0], {})[name] = metric
    caption = (
        "Intervals are 95 %; “baseline” and “chance” are what the value is to be held against."
    )
    tables = [f"<h5>{escape(g)}</h5>{_with_members_folded(m)}" for g, m in groups.items()]
    return f'<p class="neuro-caption">{caption}</p>{"".join(tables)}'


def _with_members_folded(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Write a table of metrics; those of the members of a sweep, which are many, fold away."""
    members = {name: m for name, m in metrics.items() if name.endswith("]")}
    own = {name: m for name, m in metrics.items() if name not in members}
    folded = f"<details><summary>{len(members)} of single members</summary>"
    folded += f"{metrics_html(members)}</details>"
    return (metrics_html(own) if own else "") + (folded if members else "")


# -- methods and provenance at the end ---------------------------------------------------------


def closing(content: Content) -> Iterator[tuple[str, str]]:
    """Yield title and HTML of what stands at the end."""
    methods = [method for stage in content.stages for method in stage.methods]
    if methods:
        yield "Methods and citations", _methods(methods)
    if content.workflow or content.provenance:
        yield "Provenance", _provenance(content)


def _methods(methods: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Write the sentences of what was run with numbered references and their BibTeX."""
    sentences: dict[str, list[str]] = {}
    for sentence, keys in methods:
        known = sentences.setdefault(sentence.strip(), [])
        known.extend(key for key in keys if key not in known)
    order = list(dict.fromkeys(key for keys in sentences.values() for key in keys))
    paragraph = " ".join(_sentence(s, keys, order) for s, keys in sentences.items())
    items = "".join(f"<li>{escape(_reference(key))}</li>" for key in order)
    entries = "\n\n".join(key if _is_entry(key) else bibtex(key) for key in order if _known(key))
    note = "Written from the stages that this run used; check it before you publish it."
    return (
        f'<p class="neuro-caption">{note}</p><p class="neuro-text">{paragraph}</p>'
        f"<ol>{items}</ol>{pre_html(entries, 'BibTeX') if entries else ''}"
    )


def _sentence(sentence: str, keys: Sequence[str], order: Sequence[str]) -> str:
    if not keys:
        return escape(sentence)
    numbers = ", ".join(str(n) for n in sorted(order.index(key) + 1 for key in keys))
    stem = sentence if sentence.endswith(" al.") else sentence.removesuffix(".")
    return escape(f"{stem} [{numbers}]{'.' if sentence.endswith('.') else ''}")


def _is_entry(key: str) -> bool:
    return key.lstrip().startswith("@")


def _known(key: str) -> bool:
    return key in BIBTEX or _is_entry(key)


def _reference(key: str) -> str:
    if key in BIBTEX:
        return reference(key)
    found = re.search(r"title\s*=\s*[{\"](.+?)[}\"]\s*,?\s*$", key, re.MULTILINE)
    if _is_entry(key) and found:
        return found.group(1).replace("{", "").replace("}", "")
    return key if _is_entry(key) else f"{key} (no entry is known for this key)"


def _provenance(content: Content) -> str:
    groups = {k: v for k, v in content.provenance.items() if isinstance(v, Mapping | list)}
    scalars = [
        {"field": key, "value": _shown(value)}
        for key, value in content.provenance.items()
        if key not in groups
    ]
    parts = [table_html(scalars)] if scalars else []
    for name, group in groups.items():
        rows = [{"field": key, "value": _shown(value)} for key, value in _flat(group)]
        summary = f"<summary>{escape(name)} ({len(rows)})</summary>"
        parts.append(f"<details>{summary}{table_html(rows)}</details>")
    if content.workflow:
        parts.append(pre_html(content.workflow, "resolved workflow (YAML)"))
    return "".join(parts)


def _flat(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    pairs = group.items() if isinstance(group, Mapping) else enumerate(group)
    for key, value in pairs:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) or (isinstance(value, list) and value):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
