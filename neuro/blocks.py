"""The blocks of a report: figures, tables, texts, warnings and markup, stored beside a result.

A stage hands blocks to ``context.section``; they are written at once, figures as PNG or SVG and
the rest as JSON, so that a cached stage still reports and nothing needs a pickle to be read.

>>> import tempfile
>>> folder = tempfile.mkdtemp()
>>> blocks = [Text("Two were kept."), Table([{"subject": "s1", "n": 2}])]
>>> _ = write_section(folder, "Trials", blocks)
>>> read_sections(folder)[0].title
'Trials'
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from neuro.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as MatplotlibFigure

DPI = 100
SUFFIXES = (".png", ".svg")


@dataclass
class Figure:
    """A picture with its caption.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or Path
        A figure (written and then cleared, so that a long run does not keep it in memory), or a
        ``.png`` or ``.svg`` file.
    caption : str
        What it shows, in one or two sentences.
    format : {"png", "svg"}
        PNG stays small whatever is drawn; SVG suits a few lines and stays sharp.
    """

    figure: MatplotlibFigure | Path | Any
    caption: str = ""
    format: Literal["png", "svg"] = "png"


@dataclass
class Table:
    """A table; numbers are shown rounded and stored as they are.

    Parameters
    ----------
    rows : pandas.DataFrame or sequence of mapping
        One mapping of column to value per row. The index of a frame is left out unless named.
    caption : str
        What it shows.
    units : mapping of str to str
        Units by column, shown in the header.
    """

    rows: pd.DataFrame | Sequence[Mapping[str, Any]] | Any
    caption: str = ""
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Text:
    """A paragraph of plain text; empty lines part paragraphs. Markup in it is shown, not run."""

    text: str


@dataclass
class Warning:
    """A paragraph set apart as a warning."""

    text: str


@dataclass
class Html:
    """Markup of the author's own, for instance an interactive figure.

    Parameters
    ----------
    html : str
        The markup. It must hold all it needs: the report loads nothing from outside.
    height : int
        Height of its frame in pixels.
    sandbox : bool
        True puts it in a frame of its own in which scripts run but cannot reach the report.
        False writes it into the page as it is: only for static markup whose texts are escaped.
    """

    html: str
    height: int = 480
    sandbox: bool = True


Block: TypeAlias = Figure | Table | Text | Warning | Html


@dataclass
class Section:
    """A titled list of blocks, as read back from a result's folder."""

    title: str
    blocks: list[Block]


def write_section(folder: Path | str, title: str, blocks: Iterable[Block | str]) -> Path:
    """Store one section of a report after those already in the folder.

    Parameters
    ----------
    folder : path
        The folder of the result's report; it is created where it is missing.
    title : str
        The section's title.
    blocks : iterable of Block or str
        A bare string counts as `Text`.

    Returns
    -------
    Path
        The section's JSON file; figures lie beside it.

    Raises
    ------
    TypeError
        For a block of an unknown type.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"section-{len(list(folder.glob('section-*.json'))):03d}"
    stored = [_store(block, folder, f"{stem}-{i:02d}") for i, block in enumerate(blocks)]
    path = folder / f"{stem}.json"
    text = json.dumps({"title": str(title), "blocks": stored}, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_sections(folder: Path | str) -> list[Section]:
    """Read the sections stored in a folder, in the order in which they were written.

    Parameters
    ----------
    folder : path
        The folder given to `write_section`; one that does not exist holds no section.

    Raises
    ------
    neuro.InputError
        Where a stored section cannot be read.
    """
    return [_read_section(path) for path in sorted(Path(folder).glob("section-*.json"))]


def _read_section(path: Path) -> Section:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        blocks = [_restore(block, path.parent) for block in stored["blocks"]]
        return Section(stored["title"], blocks)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a stored report section ({error}); expected JSON with 'title' and "
            "'blocks'. Run the stage again with --force."
        ) from error


def _store(block: Block | str, folder: Path, stem: str) -> dict[str, Any]:
    match block:
        case str():
            return {"type": "text", "text": block}
        case Text():
            return {"type": "text", "text": str(block.text)}
        case Warning():
            return {"type": "warning", "text": str(block.text)}
        case Table():
            rows = [{str(k): _plain(v) for k, v in row.items()} for row in _rows(block.rows)]
            columns = list(dict.fromkeys(key for row in rows for key in row))
            table = {"columns": columns, "rows": [[r.get(c) for c in columns] for r in rows]}
            return {"type": "table", "caption": block.caption, "units": dict(block.units), **table}
        case Html():
            fields = {"height": int(block.height), "sandbox": bool(block.sandbox)}
            return {"type": "html", "html": block.html, **fields}
        case Figure():
            name = _store_figure(block, folder, stem)
            return {"type": "figure", "caption": block.caption, "file": name}
    raise TypeError(
        f"a report block must be a Figure, Table, Text, Warning, Html or str, not {type(block)!r}"
    )


def _restore(stored: Mapping[str, Any], folder: Path) -> Block:
    match stored["type"]:
        case "text":
            return Text(stored["text"])
        case "warning":
            return Warning(stored["text"])
        case "table":
            rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["rows"]]
            return Table(rows, stored["caption"], stored["units"])
        case "html":
            return Html(stored["html"], stored["height"], stored["sandbox"])
        case "figure":
            path = folder / Path(stored["file"]).name
            return Figure(path, stored["caption"], "svg" if path.suffix == ".svg" else "png")
    raise ValueError(f"unknown block type {stored['type']!r}")


def _store_figure(block: Figure, folder: Path, stem: str) -> str:
    if isinstance(block.figure, str | Path):
        source = Path(block.figure)
        if source.suffix not in SUFFIXES:
            raise InputError(f"{source}: a figure file must be .png or .svg, not '{source.suffix}'")
        path = folder / f"{stem}{source.suffix}"
        path.write_bytes(source.read_bytes())
        return path.name
    path = folder / f"{stem}.{block.format}"
    path.write_bytes(render_figure(block.figure, block.format))
    _close(block.figure)
    return path.name


def render_figure(figure: Any, format: Literal["png", "svg"] = "png") -> bytes:
    """Draw a matplotlib figure as a compact PNG (256 colours) or as SVG."""
    buffer = io.BytesIO()
    # No date and no random ids: the same figure gives the same bytes.
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    figure.savefig(buffer, format=format, dpi=DPI, metadata=metadata)
    return buffer.getvalue() if format == "svg" else _compact(buffer)


def _compact(buffer: io.BytesIO) -> bytes:
    from PIL import Image

    with Image.open(buffer) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, format="png", optimize=True)
    return out.getvalue() if out.tell() < buffer.getbuffer().nbytes else buffer.getvalue()


def _close(figure: Any) -> None:
    """Free a figure; one that pyplot manages (MNE draws such) must be closed there."""
    figure.clear()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)


def _rows(rows: Any) -> list[Mapping[str, Any]]:
    if not hasattr(rows, "to_dict"):
        return list(rows)
    frame = rows.reset_index() if any(name is not None for name in rows.index.names) else rows
    return list(frame.to_dict("records"))


def _plain(value: Any) -> Any:
    """Make a table's cell fit for JSON; what is not a number (NaN, NaT, None) becomes null."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = str(value)
    return None if text in ("NaT", "<NA>") else text
