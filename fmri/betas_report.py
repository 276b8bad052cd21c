"""What the report says of single-trial responses: counts, losses, reliability on slices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.images import some
from neuro.draw import COLOURS, SEQUENTIAL, new_figure, tidy
from neuro.report import Block, Figure, Table, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from fmri.study_betas import Prepared
    from fmri.study_params import BetasParams

__all__ = ["blocks", "map_figure", "sentences", "warnings"]

SLICES = 6
_NAMES = {
    "noise_ceiling": "noise ceiling of one trial",
    "ncsnr": "ncsnr",
    "split_half": "split-half reliability",
}


def blocks(found: Prepared, images: xr.Dataset | None) -> list[Block]:
    """Count trials and voxels, say what was lost, and show how reliable the voxels are.

    Parameters
    ----------
    found : Prepared
    images : Dataset, optional
        With the parts of the study.
    """
    out: list[Block] = [
        Table(_trials(found.data, images), "Single-trial responses."),
        Table(_voxels(found), "Voxels: read, left out and kept."),
    ]
    notes = [str(note) for note in found.whole.attrs.get("notes", [])]
    if found.unseen:
        notes.append(f"{len(found.unseen)} pictures have no trial: {some(found.unseen)}")
    if found.unknown:
        notes.append(found.unknown)
    if notes:
        out.append(Text(". ".join(note.rstrip(".") for note in notes) + "."))
    if found.reliability:
        out += _reliability(found)
    return out


def warnings(found: Prepared) -> list[str]:
    """Say what a reader must not miss."""
    out = []
    excluded = found.whole.attrs.get("excluded", {})
    lost, kept = sum(excluded.values()), found.whole.sizes["voxel"]
    if lost > 0.05 * (lost + kept):
        out.append(
            f"{excluded['nan']} voxels with NaN and {excluded['constant']} constant ones of "
            f"{lost + kept} were left out; is the mask that of these data?"
        )
    if "ncsnr" in found.reliability and not (found.reliability["ncsnr"] > 0).any():
        out.append("no voxel is reliable over repeats of the training pictures")
    return out


def sentences(found: Prepared, params: BetasParams) -> list[tuple[str, tuple[str, ...]]]:
    """Describe how the responses were made, with citations."""
    out: list[tuple[str, tuple[str, ...]]] = [_origin(params)]
    if found.standardized:
        out.append(("Every session was z-scored by its trials of training pictures.", ()))
    if params.select is not None:
        rule = (
            f"the {params.select.keep} largest"
            if params.select.keep
            else f"at least {params.select.threshold:g}"
        )
        text = f"{int(found.kept.sum())} of {len(found.kept)} voxels were kept by"
        out.append((f"{text} {params.select.measure} ({rule}) on training pictures.", ("nsd",)))
    return out


def _origin(params: BetasParams) -> tuple[str, tuple[str, ...]]:
    if params.source == "simulate":
        text = "The responses are those of a simulated subject whose truth is known."
        return text, ()
    if params.source == "files":
        return "Single-trial responses that were estimated elsewhere were read.", ()
    how = params.response
    by = {
        "window": f"the mean from {how.tmin:g} s after its onset to {how.tmax:g} s after its "
        f"{'end' if how.until == 'offset' else 'onset'}",
        "lsa": "one linear model of all trials",
        "lss": "least squares separate, each trial against the sum of the others",
        "ridge": "fractional ridge regression",
        "glmsingle": "GLMsingle",
    }[how.method]
    prepared, width = params.source == "derivatives", params.smoothing_fwhm
    first = "Preprocessed runs of fMRIPrep were" if prepared else "Runs were"
    smooth = f"smoothed by {width:g} mm" if width else "not smoothed"
    cited: tuple[str, ...] = ("fmriprep",) if prepared else ()
    cited += ("mumford2012",) if how.method in ("lsa", "lss") else ()
    return f"{first} {smooth}; a trial's response is {by}.", cited


# Tables ---------------------------------------------------------------------------------------


def _trials(data: xr.Dataset, images: xr.Dataset | None) -> list[dict[str, Any]]:
    names = data["stimulus"].values.astype(str)
    part = None
    if images is not None:
        place = dict(zip(images["stimulus"].values, images["part"].values, strict=True))
        part = np.array([place[name] for name in names.tolist()])
    who = data["subject"].values.astype(str)
    rows = []
    for session in dict.fromkeys(data["session"].values.tolist()):
        own = data["session"].values == session
        row: dict[str, Any] = {
            "subject": ", ".join(np.unique(who[own])),
            "session": str(session),
            "runs": len(np.unique(data["run"].values[own])) if "run" in data.coords else 1,
            "trials": int(own.sum()),
            "stimuli": len(np.unique(names[own])),
        }
        if part is not None:
            row |= {f"of {p} pictures": int((part[own] == p).sum()) for p in ("train", "test")}
        rows.append(row)
    return rows


def _voxels(found: Prepared) -> list[dict[str, Any]]:
    excluded = found.whole.attrs.get("excluded", {})
    what = "regions" if "parcel" in found.data.coords else "voxels"
    row: dict[str, Any] = {
        f"{what} read": found.whole.sizes["voxel"],
        "left out: NaN": int(excluded.get("nan", 0)),
        "left out: constant": int(excluded.get("constant", 0)),
        "kept": int(found.kept.sum()),
    }
    return [row]


# Figures --------------------------------------------------------------------------------------


def _reliability(found: Prepared) -> list[Block]:
    rows = [
        {
            "measure": _NAMES[name],
            "median of all": float(np.median(values)),
            "median of kept": float(np.median(values[found.kept])),
            "best": float(values.max()),
        }
        for name, values in found.reliability.items()
    ]
    out: list[Block] = [
        Table(rows, "Reliability over repeats of training pictures."),
        Figure(_histogram(found), "The share of one trial's variance that the picture explains."),
    ]
    drawn = map_figure(found.whole, found.reliability["noise_ceiling"])
    if drawn is not None:
        caption = "Noise ceiling of one trial on slices, of all voxels, from training pictures."
        out.append(Figure(drawn, caption))
    if drawn is not None and not found.kept.all():
        drawn = map_figure(found.whole, found.kept.astype(float))
        out.append(Figure(drawn, "The voxels that were kept."))
    return out


def _histogram(found: Prepared) -> MatplotlibFigure:
    figure = new_figure(4.5, 2.6)
    axes = tidy(figure.subplots(), _NAMES["noise_ceiling"], "voxels", "Reliability")
    values = found.reliability["noise_ceiling"]
    edges = np.linspace(0, max(float(values.max()), 1e-3), 31).tolist()
    axes.hist(values, edges, color=COLOURS[0], label="all", alpha=0.5)
    if not found.kept.all():
        axes.hist(values[found.kept], edges, color=COLOURS[1], label="kept")
        axes.legend(fontsize=7, frameon=False)
    return figure


def map_figure(data: xr.Dataset, values: NDArray[Any]) -> MatplotlibFigure | None:
    """Draw a value of every voxel on slices, by nilearn.

    Parameters
    ----------
    data : Dataset
        With ``i j k``, ``shape`` and ``affine``.
    values : ndarray of shape (voxel,)

    Returns
    -------
    Figure or None
        None where the voxels have no places in space.
    """
    affine = json.loads(data.attrs.get("affine", "null"))
    if affine is None or not all(name in data.coords for name in "ijk"):
        return None
    import nibabel
    from nilearn.plotting import plot_img

    places = tuple(data[name].values for name in "ijk")
    shape, matrix = json.loads(data.attrs["shape"]), np.asarray(affine)
    volume, inside = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    volume[places], inside[places] = values, 1
    slices = np.unique(data["k"].values)
    chosen = slices[np.linspace(0, len(slices) - 1, min(SLICES, len(slices))).astype(int)]
    middle = np.array([[data["i"].values.mean(), data["j"].values.mean(), k, 1] for k in chosen])
    heights = (matrix @ middle.T)[2]
    figure = new_figure(1.5 * len(chosen) + 1.2, 1.7)
    figure.set_layout_engine("none")
    plot_img(
        nibabel.Nifti1Image(volume, matrix), transparency=nibabel.Nifti1Image(inside, matrix),
        display_mode="z", cut_coords=heights.tolist(), figure=figure, cmap=SEQUENTIAL, vmin=0,
        vmax=float(max(values.max(), 1e-3)), colorbar=True, black_bg=False, bg_img=None,
    )  # fmt: skip
    return figure
