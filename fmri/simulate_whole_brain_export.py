"""Write a simulated whole brain as a lab would have it: NIfTI runs, events, confounds, an atlas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from neuro.artefact import new_folder

if TYPE_CHECKING:
    from fmri.brain_reading import Reading
    from fmri.simulate_whole_brain import BrainStudy, Run

__all__ = ["atlas_of", "export_runs", "reading_of"]

MARK = "simulated.json"
VOXELS, BASE = 2, 1000.0  # voxels along the side of a parcel; level of the signal


def atlas_of(study: BrainStudy) -> tuple[Any, pd.DataFrame]:
    """Return the label image, each parcel a cube of voxels, and its table.

    Returns
    -------
    image : Nifti1Image
    table : DataFrame
        ``index``, ``name``, ``network``.
    """
    import nibabel

    series = study.runs[0].series
    values, affine = _painted(study, series["value"].values.astype(np.int32))
    table = pd.DataFrame({"index": series["value"].values, "name": series["parcel"].values,
                          "network": series["network"].values})  # fmt: skip
    return nibabel.Nifti1Image(values, affine), table


def reading_of(study: BrainStudy, **rules: Any) -> Reading:
    """Return how runs of this brain are read, with `fmri.brain_reading.Reading.of`'s rules."""
    from fmri.brain_reading import Reading

    return Reading.of(*atlas_of(study), **rules)


def export_runs(study: BrainStudy, folder: str | Path, *, kinds: Any = None) -> list[Path]:
    """Write ``sub-01_task-perception_run-01_bold.nii.gz`` and the like.

    Parameters
    ----------
    study : BrainStudy
    folder : path
        Appears whole or not at all. Beside each run lie its ``_events.tsv`` (where anything is
        known) and ``_confounds.tsv``; ``atlas.nii.gz`` and ``atlas.tsv`` are of all, and
        ``embeddings.npz`` and ``texts.npz`` hold the embeddings of items.
    kinds : collection of str, optional
        Kinds of runs; by default all.

    Returns
    -------
    list of Path
        The runs.
    """
    import nibabel

    with new_folder(folder, mark=MARK) as temporary:
        image, table = atlas_of(study)
        nibabel.save(image, temporary / "atlas.nii.gz")
        table.to_csv(temporary / "atlas.tsv", sep="\t", index=False)
        names = study.items["item"].values.astype(str)
        for name, view in (("embeddings", "target"), ("texts", "text_target")):
            np.savez(temporary / f"{name}.npz", ids=names, embeddings=study.items[view].values)
        chosen = [r for r in study.runs if kinds is None or r.series.attrs["kind"] in kinds]
        written = [_write(study, run, temporary) for run in chosen]
        parts = {r.series.attrs["run"]: r.series.attrs["part"] for r in chosen}
        (temporary / MARK).write_text(json.dumps(parts))
        relative = [path.relative_to(temporary) for path in written]
    return [Path(folder) / path for path in relative]


def _write(study: BrainStudy, run: Run, folder: Path) -> Path:
    import nibabel

    attrs = run.series.attrs
    stem = f"{attrs['subject']}_task-{attrs['kind']}_{attrs['run']}"
    values, affine = _painted(study, BASE + run.series["signal"].values.T.astype(np.float32))
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], float(attrs["t_r"])))
    path = folder / f"{stem}_bold.nii.gz"
    nibabel.save(image, path)
    if len(run.events):
        run.events.to_csv(folder / f"{stem}_events.tsv", sep="\t", index=False)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    confounds = pd.DataFrame(run.confounds, columns=names)
    confounds.to_csv(folder / f"{stem}_confounds.tsv", sep="\t", index=False)
    return path


def _painted(study: BrainStudy, values: Any) -> tuple[Any, Any]:
    """Lay ``(parcel, ...)`` into a volume with a margin of one voxel, 0 outside."""
    from fmri.simulate_whole_brain import PARCEL_MM, grid_cells

    n = len(values)
    cells = grid_cells(n)
    size = int(cells.max()) + 1
    grid = np.zeros((size,) * 3 + values.shape[1:], values.dtype)
    grid[tuple(cells.T)] = values
    for axis in range(3):
        grid = np.repeat(grid, VOXELS, axis)
    grid = np.pad(grid, [(1, 1)] * 3 + [(0, 0)] * (values.ndim - 1))
    step = PARCEL_MM / VOXELS
    affine = np.diag([step, step, step, 1.0])
    # The middle of a cell's voxels lies where the series says that the parcel does.
    affine[:3, 3] = -cells.max(0) / 2 * PARCEL_MM - step * (1 + (VOXELS - 1) / 2)
    return grid, affine
