"""What is done to a study's responses before a model sees them, and what the report says of it.

Names of pictures are checked, sessions z-scored, the reliability of voxels estimated and voxels
chosen by it; all statistics are of the trials of training pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.ceilings import ceiling_estimate
from fmri.images import some
from fmri.parts import stimuli_of
from fmri.reliability import ncsnr, noise_ceiling, select_voxels, split_half
from fmri.sessions import standardize_sessions
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from fmri.study_params import BetasParams
    from neuro.stage import Context

__all__ = ["Prepared", "pictured", "prepare", "record", "voxel_reliability"]

Names = NDArray[np.str_]


@dataclass
class Prepared:
    """Responses that a model can be trained on.

    Attributes
    ----------
    data : Dataset (trial, voxel)
        Of the kept voxels, with their reliability as coordinates.
    whole : Dataset
        Of all voxels.
    kept : ndarray of bool, shape (voxel,)
        Which of the voxels of `whole` those are.
    reliability : dict of str to ndarray, shape (voxel,)
        ``ncsnr``, ``noise_ceiling`` (of one trial) and ``split_half``, of all voxels; what could
        not be estimated is missing.
    unknown : str
        Why nothing or not all of it could be.
    standardized : bool
        Whether sessions were z-scored by training trials.
    unseen : list of str
        Pictures without a trial.
    """

    data: xr.Dataset
    whole: xr.Dataset
    kept: NDArray[np.bool_]
    reliability: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    unknown: str = ""
    unseen: list[str] = field(default_factory=list)
    standardized: bool = False


def record(
    context: Context, params: BetasParams, images: xr.Dataset | None, targets: xr.Dataset | None
) -> xr.Dataset:
    """Read or simulate the responses of a subject, prepare them, and report to a run."""
    from fmri import betas_report

    data = _responses(params, images, targets)
    found = prepare(data, images, params)
    ceiling = found.reliability.get("noise_ceiling")
    of = np.full(len(found.kept), np.nan) if ceiling is None else ceiling
    for name, estimate in ceiling_estimate(of, found.kept).items():
        if estimate.value is not None:
            estimate.record(context, name)
    for message in betas_report.warnings(found):
        context.warn(message)
    for sentence, citations in betas_report.sentences(found, params):
        context.method(sentence, *citations)
    context.section("Betas", *betas_report.blocks(found, images))
    return found.data


def _responses(
    params: BetasParams, images: xr.Dataset | None, targets: xr.Dataset | None
) -> xr.Dataset:
    if params.source == "simulate":
        if images is None or targets is None:
            raise InputError(
                "the simulated subject looks at pictures: give 'images' and 'targets', or real "
                "responses by one of 'files', 'derivatives' and 'bold'"
            )
        return simulated(images, targets, {**params.simulate.model_dump(), "seed": params.seed})
    from fmri.study_sources import read_responses

    def train(names: Sequence[str]) -> list[str]:
        if images is None:
            raise InputError("several fracs are chosen from by training pictures: give 'images'")
        known, chosen = _known(images), set(stimuli_of(images, "train").tolist())
        return [name for name in names if _picture(name, known) in chosen]

    return read_responses(params, train)


def simulated(images: xr.Dataset, targets: xr.Dataset, settings: dict[str, Any]) -> xr.Dataset:
    """Simulate the responses of one subject to the pictures of a study.

    Parameters
    ----------
    images, targets : Dataset
    settings : dict
        Of `fmri.study_params.Simulation`, and ``seed``.
    """
    from fmri.simulate import simulate

    train, test = (stimuli_of(images, part) for part in ("train", "test"))
    return simulate(images, targets, n_train=len(train), test=test, **settings).betas[0]


def prepare(data: xr.Dataset, images: xr.Dataset | None, params: BetasParams) -> Prepared:
    """Bring the responses of one subject into the form that models take.

    Parameters
    ----------
    data : Dataset (trial, voxel)
    images : Dataset, optional
        With the parts of the study. Without it nothing is known of training and test, and the
        responses stay as they are.
    params : BetasParams

    Returns
    -------
    Prepared

    Raises
    ------
    DataError
        Where a trial's stimulus has no picture, a session has too few training trials, or voxels
        are to be chosen by repeats that there are none of.
    """
    if params.atlas is not None:
        data = _parcels(data, params)
    if images is None:
        return _without_pictures(data, params)
    data = pictured(data, images)
    train = stimuli_of(images, "train")
    if params.standardize is not None:
        data, _ = standardize_sessions(data, train)
    reliability, unknown = voxel_reliability(data, train, params.seed)
    whole, kept = data, np.ones(data.sizes["voxel"], bool)
    if params.select is not None:
        data, kept = _selected(data, train, params)
    values = {name: ("voxel", found[kept]) for name, found in reliability.items()}
    shown = set(data["stimulus"].values.tolist())
    unseen = [name for name in images["stimulus"].values.tolist() if name not in shown]
    standardized = params.standardize is not None
    data = data.assign_coords(values)
    return Prepared(data, whole, kept, reliability, unknown, unseen, standardized)


def _without_pictures(data: xr.Dataset, params: BetasParams) -> Prepared:
    if params.select is not None:
        raise InputError(
            "voxels are chosen by repeats of training pictures: give 'images', or leave 'select' "
            "away and choose voxels by mask_img"
        )
    why = (
        "The stage was given no pictures, so that it knows no training part: the responses are as "
        "they were estimated, and no reliability is shown."
    )
    return Prepared(data, data, np.ones(data.sizes["voxel"], bool), unknown=why)


def _parcels(data: xr.Dataset, params: BetasParams) -> xr.Dataset:
    """Average voxels over the regions of an atlas, which then stand in their place."""
    from fmri.parcels import parcellate

    found = parcellate(data, params.atlas, params.atlas_table).rename(parcel="voxel")
    found = found.assign_coords(parcel=("voxel", found["voxel"].values)).drop_vars("voxel")
    missing = found.attrs.pop("missing_parcels")
    notes = [
        *data.attrs.get("notes", []),
        f"voxels were averaged over {found.sizes['voxel']} regions",
    ]
    if missing:
        notes.append(f"{len(missing)} regions have no voxel in the data: {some(missing)}")
    return found.assign_attrs(notes=notes, affine="null")


def _selected(
    data: xr.Dataset, train: Names, params: BetasParams
) -> tuple[xr.Dataset, NDArray[np.bool_]]:
    select = params.select
    assert select is not None  # noqa: S101 - for the type checker
    numbered = data.assign_coords(number=("voxel", np.arange(data.sizes["voxel"])))
    extra = {"random_state": params.seed} if select.measure == "split_half" else {}
    found = select_voxels(
        numbered, train, select.threshold, keep=select.keep, measure=select.measure, **extra
    )
    kept = np.zeros(data.sizes["voxel"], bool)
    kept[found["number"].values] = True
    return found.drop_vars("number"), kept


def voxel_reliability(
    data: xr.Dataset, train: Names, random_state: int = 0
) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Estimate the reliability of every voxel from the training pictures.

    Parameters
    ----------
    data : Dataset (trial, voxel)
        Of one subject, z-scored by session.
    train : array of str
        Training pictures; trials of others are not looked at.
    random_state : int
        Of the split halves.

    Returns
    -------
    found : dict of str to ndarray, shape (voxel,)
        ``ncsnr``, ``noise_ceiling`` of one trial, and ``split_half`` where three pictures were
        seen twice.
    unknown : str
        What could not be estimated, and why; empty where all could.
    """
    try:
        snr = ncsnr(data, train)
    except DataError as error:
        return {}, f"The reliability of voxels is not known: {error}."
    found = {"ncsnr": snr, "noise_ceiling": noise_ceiling(snr)}
    try:
        found["split_half"] = split_half(data, train, random_state=random_state)
    except DataError as error:
        return found, f"Split halves were not compared: {error}."
    return found, ""


# Pictures -------------------------------------------------------------------------------------


def pictured(data: xr.Dataset, images: xr.Dataset) -> xr.Dataset:
    """Name every trial's stimulus as its picture is named.

    Tables name pictures by file ("faces/anna.png"), with or without its ending; a picture's name
    is that of its file without it.

    Parameters
    ----------
    data : Dataset
        With ``stimulus`` on ``trial``.
    images : Dataset

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        Where stimuli have no picture; they are listed.
    """
    known = _known(images)
    names = data["stimulus"].values.astype(str)
    found = {name: _picture(name, known) for name in np.unique(names).tolist()}
    missing = [name for name, picture in found.items() if picture is None]
    if missing:
        n = int(np.isin(names, missing).sum())
        raise DataError(
            f"{n} of {len(names)} trials show one of {len(missing)} stimuli that have no picture: "
            f"{some(missing)}; the {len(known)} pictures are {some(sorted(known))}. Name pictures "
            "as the column of the table does (stimulus), or leave such events out (trial_types)"
        )
    return data.assign_coords(stimulus=("trial", np.array([found[n] for n in names.tolist()])))


def _known(images: xr.Dataset) -> set[str]:
    return set(images["stimulus"].values.astype(str).tolist())


def _picture(name: str, known: set[str]) -> str | None:
    path = PurePath(name.replace("\\", "/"))
    return next((n for n in (name, path.name, path.stem) if n in known), None)
