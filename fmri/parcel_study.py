"""Runs to parcel blocks, as a stage of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from fmri.parcel_blocks import cut_blocks, join_blocks
from fmri.parcel_series import parcel_series, voxel_series
from fmri.tables import entities
from neuro.errors import InputError

if TYPE_CHECKING:
    from fmri.ablation_stages import ParcelsParams
    from neuro.stage import Context

__all__ = ["record"]


def record(context: Context, params: ParcelsParams) -> xr.Dataset:
    """Read all runs, cut and join their blocks, and say what came of it."""
    from neuro.report import Table, Text

    if len(params.bold) != len(params.events):
        raise InputError(
            f"{len(params.bold)} runs (bold) and {len(params.events)} tables of events; give one "
            "for each"
        )
    pairs = list(zip(sorted(params.bold), sorted(params.events), strict=True))
    parts = []
    for number, (bold, events) in enumerate(context.progress(pairs, "runs", len(pairs))):
        series = _series(params, bold, number)
        parts.append(
            cut_blocks(series, events, tmin=params.tmin, tmax=params.tmax, until=params.until,
                       stimulus=params.stimulus, high_pass=params.high_pass)
        )  # fmt: skip
    found = join_blocks(parts)
    sizes = found["network"].to_series().value_counts()
    gone = found.attrs["missing_parcels"]
    if gone:
        context.warn(f"{len(gone)} parcels have no voxel in a run: {', '.join(gone[:5])}")
    context.section(
        "Parcels",
        Text(
            f"{found.sizes['trial']} blocks of {found.sizes['parcel']} parcels and up to "
            f"{found.sizes['time']} volumes, from {len(parts)} runs."
        ),
        Table([{"network": name or "(not known)", "parcels": int(n)} for name, n in sizes.items()]),
    )
    context.method("Series were averaged over parcels, detrended and z-scored in each run.")
    return found


def _series(params: ParcelsParams, bold: Path, number: int) -> xr.Dataset:
    run = None if "run" in entities(bold) else f"run-{number + 1:02d}"
    common: dict[str, Any] = {"t_r": params.t_r, "run": run, "subject": params.subject}
    if params.atlas is not None:
        return parcel_series(bold, params.atlas, params.atlas_table, **common)
    if params.mask_img is None:
        raise InputError("give an atlas, or with data of few voxels a mask_img and no atlas")
    regions = {
        path.name.split(".")[0].removeprefix(params.prefix): path for path in params.regions or []
    }
    return voxel_series(bold, params.mask_img, regions, **common)
