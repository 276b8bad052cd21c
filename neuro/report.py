"""One self-contained HTML file per run, on `mne.Report`.

What a stage hands to ``context.section`` is stored with its result (`neuro.blocks`); here the
stored sections of a run are put together with its metrics, warnings, methods and provenance.
The file loads nothing from outside (a content policy in it forbids that) and can be e-mailed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.bibtex import BIBTEX
from neuro.blocks import (
    Block,
    Figure,
    Html,
    Section,
    Table,
    Text,
    Warning,
    read_sections,
    write_section,
)
from neuro.markup import POLICY_TAG, STYLE, block_html, text_html
from neuro.pages import Content, StageReport, closing, opening

if TYPE_CHECKING:
    import mne

__all__ = [
    "BIBTEX",
    "Block",
    "Figure",
    "Html",
    "Section",
    "StageReport",
    "Table",
    "Text",
    "Warning",
    "build_report",
    "read_sections",
    "write_section",
]

FORMAT = 2  # raise it whenever the same content is written differently
MAX_BYTES = 14_000_000  # of figures and the rest; mne's own scripts take another 1 MB
MAX_PARTS = 24  # items or sweep members of one stage whose sections are shown
FEW_PARTS = 3  # beyond so many, items and members are folded away
VOLATILE = {"created", "started", "finished", "duration", "peak_memory", "status", "reason"}


def build_report(
    path: Path | str,
    *,
    title: str,
    stages: Sequence[StageReport],
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    scored: Mapping[str, int] | None = None,
    workflow: str = "",
    provenance: Mapping[str, Any] | None = None,
    description: str = "",
    reuse: Path | None = None,
) -> Path:
    """Put the report of a run together as one HTML file that needs nothing else.

    Parameters
    ----------
    path : path
        The file to write; it appears in one rename.
    title : str
        The workflow's name.
    stages : sequence of StageReport
        In the order in which the report shows them.
    metrics : mapping, optional
        The content of ``metrics.json``.
    scored : mapping of str to int, optional
        How often each test split has been scored, by the split's identity.
    workflow : str
        The resolved workflow as YAML.
    provenance : mapping, optional
        Versions, git state, seeds, fingerprints: nested mappings of plain values.
    description : str
        A sentence or two for the top.
    reuse : Path, optional
        An earlier report: where it shows the same content it is copied instead of drawn anew,
        which spares a fully cached run the import of MNE.

    Returns
    -------
    Path
        The file.

    Notes
    -----
    Figures beyond 14 MB in all, and the sections of more than 24 items or members of one stage,
    are left out with a note that says where they lie.
    """
    path = Path(path)
    content = Content(
        title, list(stages), dict(metrics or {}), dict(scored or {}), workflow,
        dict(provenance or {}), description,
    )  # fmt: skip
    sections = [_stage_sections(stage) for stage in content.stages]
    digest = _digest(content, sections)
    if reuse is not None and _digest_of(reuse) == digest:
        return _copy(reuse, path)
    report = _new_report(title, digest)
    for section_title, html in opening(content):
        report.add_html(html, section_title, tags=("summary",))
    shown = _within_budget(sections)
    for stage, parts in zip(content.stages, sections, strict=True):
        _add_stage(report, stage, parts, shown)
    for section_title, html in closing(content):
        report.add_html(html, section_title, tags=("provenance",))
    return _save(report, path)


_Parts = list[tuple[str, Section]]  # label of the item or member, section


def _stage_sections(stage: StageReport) -> _Parts:
    return [
        (label, section)
        for label, folder in stage.folders.items()
        for section in read_sections(folder)
    ]


# -- stages ------------------------------------------------------------------------------------


def _within_budget(sections: Sequence[_Parts]) -> set[Path]:
    """Choose the figures that fit, whole stages before the items of mapped ones."""
    shown: set[Path] = set()
    left = MAX_BYTES
    for parts in sorted(sections, key=lambda parts: len({label for label, _ in parts}) > 1):
        for _, section in parts:
            for figure in _figure_files(section):
                size = figure.stat().st_size * 4 // 3 if figure.exists() else MAX_BYTES + 1
                if size <= left:
                    left -= size
                    shown.add(figure)
    return shown


def _figure_files(section: Section) -> list[Path]:
    figures = (block.figure for block in section.blocks if isinstance(block, Figure))
    return [figure for figure in figures if isinstance(figure, Path)]


def _add_stage(report: mne.Report, stage: StageReport, parts: _Parts, shown: set[Path]) -> None:
    labels = list(dict.fromkeys(label for label, _ in parts))
    kept = set(labels[:MAX_PARTS])
    tag = re.sub(r"[^\w-]", "-", stage.name) or "stage"
    where = {"section": stage.name, "tags": (tag,)}
    if len(labels) > FEW_PARTS:
        html = "".join(_folded(label, parts, shown) for label in labels if label in kept)
        html = _marks(stage) + html
        report.add_html(html, f"{len(labels)} items or members, one by one", **where)
    for label, section in parts if len(labels) <= FEW_PARTS else ():
        title = f"{section.title} · {label}" if label else section.title
        report.add_html(_marks(stage) + _section_html(section, shown), title, **where)
    if len(labels) > MAX_PARTS:
        left = [label for label in labels if label not in kept]
        text = f"Not shown here, but stored with their results: {', '.join(left)}."
        report.add_html(text_html(text), f"{len(left)} more", **where)


def _marks(stage: StageReport) -> str:
    return "".join(block_html(Warning(text)) for text in stage.marks)


def _folded(label: str, parts: _Parts, shown: set[Path]) -> str:
    """Fold one of many items away under its name: a sweep must not bury what came of it."""
    own = (
        f"<h5>{escape(section.title)}</h5>{_section_html(section, shown)}"
        for name, section in parts
        if name == label
    )
    return f"<details><summary>{escape(label or 'all')}</summary>{''.join(own)}</details>"


def _section_html(section: Section, shown: set[Path]) -> str:
    return "".join(_shown_block(block, shown) for block in section.blocks)


def _shown_block(block: Block, shown: set[Path]) -> str:
    if isinstance(block, Figure) and block.figure not in shown:
        where = f"left out to keep this file small, or missing: {block.figure}"
        return block_html(Warning(f"Figure {where}\n{block.caption}"))
    return block_html(block)


# -- the file ----------------------------------------------------------------------------------


def _new_report(title: str, digest: str) -> mne.Report:
    import mne

    report = mne.Report(title=title, image_format="png", verbose="error")
    head = f"<!-- {_mark(digest)} -->{POLICY_TAG}<style>{STYLE}</style>"
    report.include = head + report.include
    return report


def _save(report: mne.Report, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
        draft = Path(folder) / "report.html"
        report.save(draft, open_browser=False, verbose="error")
        os.replace(draft, path)
    return path


def _copy(source: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
        draft = Path(shutil.copyfile(source, Path(folder) / "report.html"))
        os.replace(draft, path)
    return path


def _mark(digest: str) -> str:
    return f"neuro-report sha256:{digest}"


def _digest_of(path: Path) -> str | None:
    """Read the digest that a report carries near its top."""
    try:
        with path.open("rb") as file:
            head = file.read(2000).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(_mark(r"([0-9a-f]{64})"), head)
    return found.group(1) if found else None


def _digest(content: Content, sections: Sequence[_Parts]) -> str:
    """Hash all that the report shows, apart from when and how long it ran."""
    fields = {key: value for key, value in vars(content).items() if key != "stages"}
    stages = [{k: v for k, v in vars(stage).items() if k != "folders"} for stage in content.stages]
    blocks = [[(label, s.title, [vars(b) for b in s.blocks]) for label, s in p] for p in sections]
    text = json.dumps([FORMAT, _steady(fields), _steady(stages), blocks], default=str)
    digest = hashlib.sha256(text.encode())
    for parts in sections:
        for figure in (f for _, section in parts for f in _figure_files(section) if f.exists()):
            digest.update(figure.read_bytes())
    return digest.hexdigest()


def _steady(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _steady(v) for k, v in value.items() if k not in VOLATILE}
    return [_steady(v) for v in value] if isinstance(value, list | tuple) else value
