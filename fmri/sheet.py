"""The page of one decoded scan: what was seen, what was retrieved, and the decoded picture."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.decode import gallery_in
from fmri.study_targets import MARK, has_random_weights
from neuro.report import Block, Html, Text, Warning

if TYPE_CHECKING:
    from fmri.gallery import Gallery

_SIDE = 96  # largest side of a picture in the file, pixels
_STYLE = (
    "<style>.fmri-scan td, .fmri-scan th {padding: .15rem .4rem; font-size: .75rem; "
    "vertical-align: top;} .fmri-scan img {height: 64px; image-rendering: pixelated; "
    "display: block; margin-bottom: 4px;} "
    ".fmri-scan .right img {outline: 3px solid #d55e00;}</style>"
)


def scan_blocks(result: xr.Dataset, options: Any) -> list[Block]:
    """Return the blocks of a scan's page.

    Parameters
    ----------
    result : Dataset
        Of `fmri.decode.decode_betas`.
    options : MindEyeOptions

    Returns
    -------
    list of Block
        A note of what was missing, then a row for each of some trials.
    """
    blocks: list[Block] = [Text(str(result.attrs["note"]))]
    if has_random_weights(result.attrs):
        blocks.insert(0, Warning(MARK))
    gallery = None if options.gallery is None else gallery_in(options.gallery)
    if gallery is not None and gallery.pictures is None:
        gallery = None
    n = result.sizes["trial"]
    some = np.linspace(0, n - 1, min(max(options.shown, 0), n)).astype(int)
    if len(some) and (gallery is not None or "reconstruction" in result):
        blocks.append(Html(_table(result.isel(trial=some), gallery), sandbox=False))
        blocks.append(Text(f"{len(some)} of {n} trials; framed: the seen picture."))
    return blocks


def _table(result: xr.Dataset, gallery: Gallery | None) -> str:
    names = _trial_names(result)
    columns = {"trial": [escape(name) for name in names]}
    if gallery is not None:
        names = [_picture_name(name, gallery) for name in names]
    if gallery is not None:
        columns["seen"] = _cells(gallery, names, known=True)
    if "reconstruction" in result:
        columns["decoded"] = [_image(p, "decoded") for p in result["reconstruction"].values]
    ranks: list[tuple[str, list[str], NDArray[np.bool_]]] = []
    if gallery is not None and "retrieved" in result:
        found, scores = result["retrieved"].values.astype(str), result["similarity"].values
        for rank in range(found.shape[1]):
            cells = _cells(gallery, found[:, rank].tolist())
            named = [
                f"{cell}{escape(name)}<br>{score:.2f}"
                for cell, name, score in zip(cells, found[:, rank], scores[:, rank], strict=True)
            ]
            ranks.append((f"{rank + 1}", named, found[:, rank] == np.array(names)))
    head = "".join(f"<th>{name}</th>" for name in [*columns, *(rank for rank, _, _ in ranks)])
    rows = []
    for row in range(len(names)):
        cells = [f"<td>{column[row]}</td>" for column in columns.values()]
        cells += [
            f"<td{' class=right' if right[row] else ''}>{column[row]}</td>"
            for _, column, right in ranks
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'{_STYLE}<table class="fmri-scan"><tr>{head}</tr>{"".join(rows)}</table>'


def _trial_names(result: xr.Dataset) -> list[str]:
    if "stimulus" in result.coords:
        return result["stimulus"].values.astype(str).tolist()
    return [f"trial {number}" for number in range(result.sizes["trial"])]


def _picture_name(name: str, gallery: Gallery) -> str:
    """Tables name pictures by file, with a folder or an ending; galleries do without."""
    path = PurePath(name.replace("\\", "/"))
    tried = [name, path.name, path.stem]
    return next((one for one in tried if gallery.place([one])[0] >= 0), name)


def _cells(gallery: Gallery, names: list[str], known: bool = False) -> list[str]:
    """Return the pictures of stimuli; nothing for those that the gallery lacks."""
    rows = gallery.place(names)
    there = np.flatnonzero(rows >= 0)
    pictures = gallery.pictures[rows[there]] if len(there) else []
    cells = ["not in the gallery" if known else ""] * len(names)
    for place, picture in zip(there.tolist(), pictures, strict=True):
        cells[place] = _image(picture, names[place])
    return cells


def _image(pixels: NDArray[Any], name: str) -> str:
    """Write a picture ``(channel, row, column)``, uint8 or in [0, 1], as an image tag."""
    from PIL import Image

    values = pixels if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 1) * 255)
    grey = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    image = Image.fromarray(np.ascontiguousarray(grey, dtype=np.uint8))
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(name, quote=True)}">'
