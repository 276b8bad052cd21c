"""fMRIPrep trees: runs with their mask, confounds and events, found without an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmri.surfaces import is_surface
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["find_derivatives", "read_confounds"]

STRATEGY = ("motion", "high_pass", "wm_csf")
_KINDS = {"nii.gz": "volume", "nii": "volume", "func.gii": "surface", "dtseries.nii": "cifti"}
_KEYS = ("sub", "ses", "task", "acq", "dir", "run")  # what a run's companions share


def find_derivatives(
    root: str | Path,
    *,
    subject: str | None = None,
    session: str | None = None,
    task: str | None = None,
    space: str | None = None,
    kind: str = "volume",
    events: str | Path | None = None,
) -> pd.DataFrame:
    """Find the preprocessed runs of an fMRIPrep tree and what belongs to them.

    The names of files are matched by nilearn's BIDS interface; nothing is indexed before.

    Parameters
    ----------
    root : path
        The derivatives folder, with ``sub-*`` in it.
    subject, session, task, space : str, optional
        Labels without ``sub-`` and the like. Where runs are in several spaces, `space` is needed.
    kind : {"volume", "surface", "cifti"}
        ``.nii.gz``, ``.func.gii`` (a pair for each run) or ``.dtseries.nii``.
    events : path, optional
        The BIDS folder with ``_events.tsv``; by default `root` and the folders above it that
        hold one of a run.

    Returns
    -------
    DataFrame
        One row for each run, in the order of names: ``subject`` ("sub-01"), ``session``, ``run``,
        ``task``, ``space``, ``bold`` (a path, two for surfaces), ``mask``, ``confounds``,
        ``events`` (paths or None) and ``t_r`` (s, from the side-car, else None).

    Raises
    ------
    DataError
        Where nothing is found, or runs are there in several spaces.
    """
    from nilearn.interfaces.bids import get_bids_files

    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; give that with the sub-* of fMRIPrep")
    if kind not in {*_KINDS.values()}:
        raise InputError(f"kind is '{kind}'; expected volume, surface or cifti")
    wanted = {"ses": session, "task": task, "space": space}
    filters = [(key, value) for key, value in wanted.items() if value is not None]
    found = [
        path
        for ending, what in _KINDS.items()
        if what == kind
        for path in get_bids_files(
            folder, file_tag="bold", file_type=ending, sub_label=subject or "*",
            modality_folder="func", filters=filters,
        )
    ]  # fmt: skip
    runs = _grouped(found)
    if not runs:
        asked = ", ".join(f"{k}={v}" for k, v in filters) or "no filter"
        raise DataError(
            f"{folder}: no preprocessed run was found (kind {kind}, subject {subject or 'any'}, "
            f"{asked}); expected sub-*/[ses-*/]func/*_desc-preproc_bold.nii.gz and the like"
        )
    _one_space(runs, folder)
    return pd.DataFrame([_row(run, folder, events) for run in runs])


def _grouped(paths: Sequence[str]) -> list[list[Path]]:
    """Join the hemispheres of a run; leave single echoes out."""
    runs: dict[tuple[Any, ...], list[Path]] = {}
    for path in sorted(map(Path, dict.fromkeys(map(str, paths)))):
        labels = _labels(path)
        # Volumes are there in other states too; surfaces and grayordinates are final.
        raw = labels.get("desc") != "preproc" and not is_surface(path)
        if raw or "echo" in labels:
            continue
        runs.setdefault((*(labels.get(k) for k in _KEYS), labels.get("space")), []).append(path)
    return list(runs.values())


def _labels(path: Path) -> dict[str, str | None]:
    """Return all entities of a file name (nilearn's parser changed its form between versions)."""
    parts = [part.partition("-") for part in path.name.split("_")[:-1]]
    return {key: value or None for key, _, value in parts}


def _one_space(runs: list[list[Path]], folder: Path) -> None:
    spaces = {str(_labels(run[0]).get("space") or "native") for run in runs}
    if len(spaces) > 1:
        raise DataError(
            f"{folder}: runs are there in the spaces {', '.join(sorted(spaces))}; choose one with "
            "space=..."
        )


def _row(run: list[Path], folder: Path, events: str | Path | None) -> dict[str, Any]:
    first, labels = run[0], _labels(run[0])
    confounds = _companions(first, labels, "*_timeseries.tsv", ("desc-confounds",)) or (
        _companions(first, labels, "*_regressors.tsv", ("desc-confounds",))
    )
    space = f"space-{labels['space']}" if labels.get("space") else ""
    masks = _companions(
        first, labels, "*_mask.nii*", ("desc-brain", space), without_space=not space
    )
    return {
        "subject": f"sub-{labels['sub']}",
        "session": f"ses-{labels['ses']}" if labels.get("ses") else "ses-01",
        "run": f"run-{labels['run']}" if labels.get("run") else "run-01",
        "task": labels.get("task"), "space": labels.get("space") or "native",
        "bold": first if len(run) == 1 else tuple(run),
        "mask": masks, "confounds": confounds, "events": _events(first, labels, folder, events),
        "t_r": _side_car(first),
    }  # fmt: skip


def _stem(labels: Mapping[str, str | None]) -> list[str]:
    return [f"{key}-{labels[key]}" for key in _KEYS if labels.get(key)]


def _companions(
    bold: Path,
    labels: Mapping[str, str | None],
    pattern: str,
    parts: Sequence[str],
    *,
    without_space: bool = False,
) -> Path | None:
    """Return the first file beside a run that has its labels and `parts`."""
    needed = {*_stem(labels), *filter(None, parts)}
    for path in sorted(bold.parent.glob(pattern)):
        name = path.name.split(".")[0].split("_")
        if needed <= set(name) and not (without_space and any(p[:6] == "space-" for p in name)):
            extra = {p.split("-")[0] for p in name[:-1]} & set(_KEYS)
            if extra == {p.split("-")[0] for p in _stem(labels)}:
                return path
    return None


def _events(
    bold: Path, labels: Mapping[str, str | None], folder: Path, given: str | Path | None
) -> Path | None:
    name = "_".join([*_stem(labels), "events.tsv"])
    within = bold.parent.relative_to(folder)
    roots = [Path(given)] if given is not None else [folder, *folder.resolve().parents[:3]]
    for root in roots:
        for place in (root / within / name, root / name):
            if place.is_file():
                return place
    return None


def _side_car(bold: Path) -> float | None:
    path = bold.with_name(bold.name.split(".")[0] + ".json")
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text()).get("RepetitionTime")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: is no valid JSON side-car ({error})") from error
    return None if found is None else float(found)


def read_confounds(
    bold: Any, strategy: Sequence[str] = STRATEGY, **settings: Any
) -> tuple[pd.DataFrame | None, NDArray[np.int64] | None]:
    """Read fMRIPrep's confounds of a run, with the volumes that scrubbing keeps.

    Parameters
    ----------
    bold : path
        The preprocessed run; confounds are found beside it.
    strategy : sequence of str
        Of `nilearn.interfaces.fmriprep.load_confounds`: "motion", "high_pass", "wm_csf",
        "global_signal", "compcor", "ica_aroma", "scrub", "non_steady_state". With "compcor" take
        "high_pass" too.
    **settings
        Of the same function: ``fd_threshold`` (mm), ``scrub`` (volumes), ``n_compcor`` ...

    Returns
    -------
    confounds : DataFrame or None
        One row for each volume of the run, scrubbed ones too.
    sample_mask : ndarray of int, or None
        Volumes that are kept; None keeps all.

    Raises
    ------
    DataError
        Where the confounds are missing or don't have what the strategy needs.
    """
    from nilearn.interfaces.fmriprep import load_confounds

    files = [str(p) for p in bold] if isinstance(bold, list | tuple) else str(bold)
    if isinstance(files, list) and len(files) == 1:
        files = files[0]
    try:
        # A pair of hemispheres has one table; nilearn wants the pair as one item of a list.
        found, kept = load_confounds(
            [files] if isinstance(files, list) else files, strategy=tuple(strategy), **settings
        )
    except (ValueError, OSError, KeyError) as error:
        raise DataError(
            f"{bold}: the confounds can't be read with the strategy {list(strategy)}: {error}"
        ) from error
    if isinstance(found, list):
        found, kept = found[0], kept[0] if isinstance(kept, list) else kept
    sample = None if kept is None else np.asarray(kept, dtype=np.int64)
    return found, sample
