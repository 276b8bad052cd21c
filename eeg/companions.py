"""The files that a recording is made of besides the one that names it; quick to import."""

from __future__ import annotations

import glob
import re
from pathlib import Path


def bids_root_of(path: Path) -> Path | None:
    """Return the BIDS study that a recording lies in, or None.

    A study is recognised by its ``dataset_description.json`` and the recording by its place,
    ``sub-*/[ses-*/]eeg/sub-*_eeg.*``.
    """
    if path.parent.name != "eeg" or not path.name.startswith("sub-"):
        return None
    for folder in list(path.parents)[1:4]:
        if (folder / "dataset_description.json").is_file():
            return folder
    return None


def companions(path: Path | str) -> list[Path]:
    """Return the further files that a recording is made of, as far as they exist.

    Header formats keep their samples beside them (``.vhdr`` names its ``.eeg`` and ``.vmrk``,
    ``.set`` its ``.fdt``), FIF files may be split, some formats are folders, and a BIDS
    recording has side-cars. A result that depends on the recording depends on all of them.
    """
    path = Path(path)
    name, found = path.name.lower(), set()
    if path.is_dir():
        found |= {file for file in path.rglob("*") if file.is_file()}
    elif name.endswith((".vhdr", ".ahdr")):
        found |= _named_by_header(path)
    elif name.endswith(".set"):
        found |= {path.with_suffix(".fdt")}
    elif name.endswith(".fif"):
        found |= set(path.parent.glob(f"{glob.escape(path.stem)}-[0-9]*.fif"))
        found |= set(path.parent.glob(f"{glob.escape(path.stem)}_split-*.fif"))
    elif not name.endswith((".edf", ".bdf", ".gdf", ".gz", ".csv", ".tsv", ".mat")):
        found |= set(path.parent.glob(f"{glob.escape(path.name.split('.')[0])}.*"))
    found |= _side_cars(path)
    return sorted(file for file in found if file.is_file() and file != path)


def _named_by_header(path: Path) -> set[Path]:
    text = path.read_text(encoding="utf-8", errors="replace")
    names = re.findall(r"^(?:DataFile|MarkerFile)\s*=\s*(.+?)\s*$", text, flags=re.MULTILINE)
    return {path.parent / name.replace("$b", path.stem) for name in names}


def _side_cars(path: Path) -> set[Path]:
    """BIDS files that `mne_bids.read_raw_bids` takes into account."""
    if bids_root_of(path) is None:
        return set()
    stem = re.sub(r"_eeg\..+$", "", path.name)
    entities = re.sub(r"_(task|run|acq)-[^_]+", "", stem)
    names = [f"{stem}_{kind}" for kind in ("events.tsv", "channels.tsv", "eeg.json")]
    found = {path.parent / name for name in names}
    for kind in ("electrodes.tsv", "coordsystem.json"):
        found |= set(path.parent.glob(f"{glob.escape(entities)}*_{kind}"))
    return found
