"""Write a simulated study as a lab would have it: NIfTI betas, trial tables, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.artefact import new_folder
from neuro.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

    from fmri.simulate import Simulation

__all__ = ["export_nifti"]

MARK = "simulated.json"
COLUMNS = ("run", "onset", "stimulus", "repeat")


def export_nifti(study: Simulation, folder: str | Path) -> list[Path]:
    """Write ``sub-01/ses-01/sub-01_ses-01_betas.nii.gz`` and the like.

    Parameters
    ----------
    study : Simulation
    folder : path
        Appears whole or not at all; an older study there is replaced. Beside the betas
        (row, column, slice, trial; float32, 0 outside of the mask) lie ``_trials.tsv`` with run,
        onset in s, stimulus and repeat of each volume, ``sub-01_mask.nii.gz``, the pictures in
        ``stimuli/`` and the stimuli of either part in ``simulated.json``.

    Returns
    -------
    list of Path
        The files of betas.

    Raises
    ------
    InputError
        Where something else lies in the folder.
    """
    with new_folder(folder, mark=MARK) as temporary:
        files = [path for betas in study.betas for path in _write_subject(betas, temporary)]
        _write_pictures(study.images, temporary / "stimuli")
        parts = {"train": study.train.tolist(), "test": study.test.tolist()}
        (temporary / MARK).write_text(json.dumps(parts))
        relative = [path.relative_to(temporary) for path in files]
    return [Path(folder) / path for path in relative]


def _write_subject(betas: xr.Dataset, folder: Path) -> list[Path]:
    subject = str(betas["subject"].values[0])
    _save(np.ones((1, betas.sizes["voxel"]), np.uint8), betas, folder / subject / subject, "mask")
    files = []
    for session in dict.fromkeys(betas["session"].values.tolist()):
        part = betas.isel(trial=betas["session"].values == session)
        stem = folder / subject / session / f"{subject}_{session}"
        files.append(_save(part["signal"].values, betas, stem, "betas"))
        table = part[list(COLUMNS)].to_dataframe()[list(COLUMNS)]
        table.to_csv(f"{stem}_trials.tsv", sep="\t", index=False)
    return files


def _save(values: NDArray[Any], betas: xr.Dataset, stem: Path, what: str) -> Path:
    import nibabel

    shape = tuple(json.loads(betas.attrs["shape"]))
    volume = np.zeros((*shape, len(values)), values.dtype)
    volume[betas["i"].values, betas["j"].values, betas["k"].values] = values.T
    path = stem.with_name(f"{stem.name}_{what}.nii.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.array(json.loads(betas.attrs["affine"]))
    image = nibabel.Nifti1Image(volume[..., 0] if what == "mask" else volume, affine)
    nibabel.save(image, path)
    return path


def _write_pictures(images: xr.Dataset, folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    pixels = np.rint(images["signal"].values * 255).astype(np.uint8)
    for name, picture in zip(images["stimulus"].values.tolist(), pixels, strict=True):
        if Path(name).name != name:
            raise DataError(f"the stimulus '{name}' can't be a file's name; rename it")
        grey = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
        Image.fromarray(grey).save(folder / f"{name}.png")
