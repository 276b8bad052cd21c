"""Pages of decoded recordings, and the contact sheet over all of them: HTML that works offline.

An encoder that has something to show writes report blocks for a result (`show_decoded`). They
become ``<name>.html`` beside the result; the contact sheet puts all pages of a folder one after
another, straight from the files, so that memory does not grow with their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from neuro.blocks import Block
from neuro.markup import POLICY_TAG, STYLE, block_html, table_html

SHEET = "contact_sheet.html"
MAX_BYTES = 24_000_000  # of pages in a contact sheet; what is left out is linked
BEGIN, END = "<!-- page -->", "<!-- /page -->"

_LOOK = """
body {font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222;}
h1 {font-size: 1.4rem;} h2 {font-size: 1.05rem; margin: 1.6rem 0 .3rem 0;}
table {border-collapse: collapse;} th {text-align: left; font-weight: 600;}
"""


def write_page(path: Path, title: str, blocks: Sequence[Block]) -> None:
    """Write the page of one recording; it appears in one rename."""
    body = "".join(block_html(block) for block in blocks)
    _write(path, [_head(title), f"<h1>{escape(title)}</h1>", BEGIN, body, END, "</body></html>"])


def write_sheet(out: Path, rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Write the contact sheet of a folder of results.

    Parameters
    ----------
    out : Path
        The folder, with a ``<name>.html`` for each recording that has a page.
    rows : sequence of mapping
        The lines of the table on top; ``name`` is each recording's.
    title : str

    Returns
    -------
    Path
        The file.
    """
    path = out / SHEET
    _write(path, _sheet(out, rows, title))
    return path


def _sheet(out: Path, rows: Sequence[Mapping[str, Any]], title: str) -> Iterable[str]:
    yield _head(title)
    yield f"<h1>{escape(title)}</h1>{table_html(rows)}"
    left = MAX_BYTES
    for row in rows:
        page = out / f"{row['name']}.html"
        if not page.exists():
            continue
        yield f"<h2>{escape(str(row['name']))}</h2>"
        left -= page.stat().st_size
        if left > 0:
            yield _body(page)
        else:
            yield f'<p><a href="{quote(page.name)}">{escape(page.name)}</a></p>'
    yield "</body></html>"


def _body(page: Path) -> str:
    return page.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def _head(title: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8">{POLICY_TAG}'
        f"<title>{escape(title)}</title><style>{STYLE}{_LOOK}</style></head><body>"
    )


def _write(path: Path, parts: Iterable[str]) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as stream:
        for part in parts:
            stream.write(part)
    os.replace(fresh, path)
