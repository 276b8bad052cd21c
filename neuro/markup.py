"""Blocks, numbers and metrics as HTML; every text is escaped here.

>>> number(0.58912), number(1234.5), number(0.00002), number(None), number(3)
('0.589', '1,234', '2e-05', '–', '3')
>>> duration(200), memory(3.2e9)
('3 min 20 s', '3.20 GB')
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from neuro.blocks import Block, Figure, Html, Table, Text, Warning, render_figure

EMPTY = "–"
NBSP = "\u00a0"
MAX_ROWS = 200
MIME = {".png": "image/png", ".svg": "image/svg+xml"}

# Nothing is fetched, whatever a block holds: what is shown is what the file carries.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'"
)
POLICY_TAG = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'

STYLE = """
.neuro-table table {width: auto; font-size: .9rem; font-variant-numeric: tabular-nums;}
.neuro-table {overflow-x: auto; margin-bottom: 1.2rem;}
.neuro-table th {vertical-align: bottom; white-space: nowrap;}
.neuro-table td, .neuro-table th {padding: .2rem .8rem .2rem .3rem;}
.neuro-table td.number, .neuro-table th.number {text-align: right;}
.neuro-table td.text {overflow-wrap: break-word; max-width: 40rem;}
.neuro-caption, figcaption {color: #555; font-size: .9rem; max-width: 60rem; margin: .2rem 0;}
.neuro-figure {margin: 0 0 1.2rem 0;}
.neuro-figure img {max-width: 100%; height: auto;}
.neuro-text {max-width: 60rem; white-space: pre-line;}
.neuro-warning {max-width: 60rem; border-left: .3rem solid #b35900; background: #fff5e6;
  padding: .5rem .8rem; margin: 0 0 .8rem 0; white-space: pre-line;}
.neuro-frame {width: 100%; border: 1px solid #ddd;}
.neuro-pre {white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; background: #f7f7f7;
  padding: .6rem; max-height: 32rem; overflow: auto;}
.neuro-strip {vertical-align: middle;}
#content h5 {margin: 1rem 0 .4rem 0;}
"""


def number(value: Any) -> str:
    """Write a number as one reads it: three decimals, fewer for large ones, a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if 0 < size < 0.0005:
        return f"{value:.1g}"
    decimals = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{decimals}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Write a duration in s as minutes and hours where it is long."""
    if seconds is None:
        return EMPTY
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def memory(size: float | None) -> str:
    """Write a size in bytes as MB or GB."""
    if size is None:
        return EMPTY
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def block_html(block: Block) -> str:
    """Write a block as HTML.

    Parameters
    ----------
    block : Block
        One of the blocks of `neuro.blocks`; a figure's file must exist.
    """
    match block:
        case Text():
            return text_html(block.text)
        case Warning():
            return f'<div class="neuro-warning" role="alert">{escape(block.text)}</div>'
        case Table():
            return table_html(_stored_rows(block), block.caption, block.units)
        case Html():
            return _frame(block) if block.sandbox else block.html
        case Figure():
            return _figure(block)


def text_html(text: str) -> str:
    """Write plain text as paragraphs."""
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    return "".join(f'<p class="neuro-text">{escape(part)}</p>' for part in paragraphs)


def pre_html(text: str, summary: str | None = None) -> str:
    """Write text as it stands (a YAML file, BibTeX), folded away under a summary if given."""
    pre = f'<pre class="neuro-pre">{escape(text)}</pre>'
    if summary is None:
        return pre
    return f"<details><summary>{escape(summary)}</summary>{pre}</details>"


def table_html(
    rows: Sequence[Mapping[str, Any]],
    caption: str = "",
    units: Mapping[str, str] | None = None,
    *,
    raw: Sequence[str] = (),
) -> str:
    """Write rows as a table.

    Parameters
    ----------
    rows : sequence of mapping
        Column to value.
    caption : str
        Shown above the table.
    units : mapping, optional
        Units by column.
    raw : sequence of str
        Columns whose values are markup already (made by this module).
    """
    units = units or {}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {c for c in columns if c not in raw and _is_numeric([r.get(c) for r in rows])}
    head = "".join(_header(c, units.get(c), c in numeric) for c in columns)
    body = "".join(
        f"<tr>{''.join(_cell(row.get(c), c in numeric, c in raw) for c in columns)}</tr>"
        for row in rows[:MAX_ROWS]
    )
    left = len(rows) - MAX_ROWS
    note = f'<p class="neuro-caption">… and {left:,} more rows.</p>' if left > 0 else ""
    above = f'<p class="neuro-caption">{escape(caption)}</p>' if caption else ""
    return (
        f'{above}<div class="neuro-table"><table class="table table-sm table-hover">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}</div>"
    )


def _is_numeric(values: Sequence[Any]) -> bool:
    given = [v for v in values if v is not None]
    return bool(given) and all(isinstance(v, int | float) for v in given)


def _header(column: str, unit: str | None, numeric: bool) -> str:
    label = escape(f"{column} ({unit})" if unit else column)
    return f'<th scope="col"{" class=number" if numeric else ""}>{label}</th>'


def _cell(value: Any, numeric: bool, raw: bool) -> str:
    if raw:
        return f"<td>{value or ''}</td>"
    shown = number(value) if not isinstance(value, str) else value
    return f'<td class="{"number" if numeric else "text"}">{escape(shown)}</td>'


def _stored_rows(block: Table) -> list[Mapping[str, Any]]:
    rows: Any = block.rows  # read back from JSON, where a frame has become a list
    return list(rows)


def _figure(block: Figure) -> str:
    if isinstance(block.figure, Path):
        data, suffix = block.figure.read_bytes(), block.figure.suffix
    else:
        data, suffix = render_figure(block.figure, block.format), f".{block.format}"
    # As the source of an image even SVG can run no script.
    source = f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode('ascii')}"
    alt = escape(block.caption or "figure", quote=True)
    caption = f"<figcaption>{escape(block.caption)}</figcaption>" if block.caption else ""
    return f'<figure class="neuro-figure"><img src="{source}" alt="{alt}">{caption}</figure>'


def _frame(block: Html) -> str:
    page = f'<!DOCTYPE html><html><head><meta charset="UTF-8">{POLICY_TAG}</head><body>'
    inside = escape(f"{page}{block.html}</body></html>", quote=True)
    return (
        f'<iframe class="neuro-frame" sandbox="allow-scripts" style="height:{int(block.height)}px" '
        f'title="interactive figure" srcdoc="{inside}"></iframe>'
    )


def metrics_html(metrics: Mapping[str, Mapping[str, Any]], caption: str = "") -> str:
    """Write metrics as a table: value with interval, then baseline, chance and p beside it.

    Parameters
    ----------
    metrics : mapping
        Entries of ``metrics.json``: dotted name to its fields.
    caption : str
        Shown above the table.
    """
    ranges = _ranges(metrics)
    rows = [_metric_row(name, m, ranges[quantity(name)]) for name, m in metrics.items()]
    shown = [c for c in _COLUMNS if c in ("metric", "value") or any(r[c] for r in rows)]
    return table_html([{c: row[c] for c in shown} for row in rows], caption, raw=[""])


_COLUMNS = (
    *("metric", "value", "95 % interval", "unit", "", "baseline", "chance"),
    *("n", "p", "p corrected"),
)


def _given(value: float | None) -> str:
    return "" if value is None else number(value)


def _metric_row(
    name: str, metric: Mapping[str, Any], range_: tuple[float, float]
) -> dict[str, Any]:
    get = metric.get
    interval = ""
    if get("low") is not None and get("high") is not None:
        interval = f"{number(get('low'))}{NBSP}…{NBSP}{number(get('high'))}"
    return {
        "metric": name,
        "value": number(get("value")),
        "95 % interval": interval,
        "unit": get("unit") or "",
        "": _strip(metric, range_),
        "baseline": _given(get("baseline")),
        "chance": _given(get("chance")),
        "n": _units(get("n"), get("n_unit")),
        "p": _given(get("p")),
        "p corrected": _given(get("p_corrected")),
    }


def _units(n: int | None, unit: str | None) -> str:
    if n is None or not unit:
        return _given(n)
    if n != 1 and not unit.endswith("s"):
        unit = f"{unit[:-1]}ies" if unit.endswith("ry") else f"{unit}s"
    return f"{number(n)}{NBSP}{unit}"


def quantity(name: str) -> str:
    """Return what a metric measures: the last part of its name, without a sweep's parameters.

    >>> quantity("erp.denoised.residual_r[beta=0.5]")
    'residual_r'
    >>> quantity("identify.mindeye.within.six")
    'within'
    """
    words = name.partition("[")[0].split(".")
    return "within" if "within" in words[-2:-1] else words[-1]


def _ranges(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """One axis per quantity, so that the strips of one quantity can be compared by eye."""
    seen: dict[str, list[float]] = {}
    for name, metric in metrics.items():
        values = [metric.get(f) for f in ("value", "low", "high", "chance", "baseline")]
        seen.setdefault(quantity(name), []).extend(v for v in values if v is not None)
    return {q: (min(v), max(v)) if v else (0.0, 0.0) for q, v in seen.items()}


def _strip(metric: Mapping[str, Any], range_: tuple[float, float]) -> str:
    """Draw value (dot), interval (line), chance (dashed) and baseline (grey) on one small axis."""
    low, high = range_
    value = metric.get("value")
    if value is None or metric.get("low") is None or metric.get("high") is None or high <= low:
        return ""

    def x(v: float) -> str:
        return f"{6 + 108 * (v - low) / (high - low):.1f}"

    marks = [
        f'<line x1="{x(metric[field])}" x2="{x(metric[field])}" y1="1" y2="15" {style}/>'
        for field, style in (
            ("chance", 'stroke="#d55e00" stroke-dasharray="2,2"'),
            ("baseline", 'stroke="#777"'),
        )
        if metric.get(field) is not None
    ]
    return (
        '<svg class="neuro-strip" width="120" height="16" role="img" aria-label="interval">'
        f'{"".join(marks)}<line x1="{x(metric["low"])}" x2="{x(metric["high"])}" y1="8" y2="8" '
        'stroke="#0072b2" stroke-width="2"/>'
        f'<circle cx="{x(value)}" cy="8" r="3.2" fill="#0072b2"/></svg>'
    )
