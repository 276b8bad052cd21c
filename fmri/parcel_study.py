"""Runs to parcel blocks, as a stage of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from fmri.brain_reading import Reading
from fmri.parcel_blocks import cut_blocks, join_blocks
from fmri.parcel_series import parcel_series, voxel_series
from fmri.tables import entities, read_table
from neuro.errors import InputError

if TYPE_CHECKING:
    from fmri.ablation_stages import ParcelsParams
    from neuro.stage import Context

__all__ = ["ReadRun", "join_runs", "read_runs", "read_series", "record"]


def record(context: Context, params: ParcelsParams) -> xr.Dataset:
    """Read all runs, cut and join their blocks, and say what came of it."""
    return join_runs(context, params, [run.blocks for run in read_runs(context, params)])


@dataclass(frozen=True)
class ReadRun:
    """A run as it was read.

    Attributes
    ----------
    series : Dataset
        ``signal (time, parcel)``.
    blocks : Dataset
        ``signal (trial, parcel, time)``.
    confounds : DataFrame or None
    """

    series: xr.Dataset
    blocks: xr.Dataset
    confounds: pd.DataFrame | None


def read_runs(context: Context, params: ParcelsParams) -> list[ReadRun]:
    """Read runs and cut a block for each event."""
    found = []
    jobs = _runs(params)
    for number, (bold, events, noise) in enumerate(context.progress(jobs, "runs", len(jobs))):
        series = read_series(params, bold, number)
        confounds = None if noise is None else read_table(noise, "confounds")
        blocks = cut_blocks(
            series, events, tmin=params.tmin, tmax=params.tmax, until=params.until,
            stimulus=params.stimulus, high_pass=params.high_pass, confounds=confounds,
        )  # fmt: skip
        found.append(ReadRun(series, blocks, confounds))
    return found


def join_runs(context: Context, params: ParcelsParams, parts: list[xr.Dataset]) -> xr.Dataset:
    """Join the blocks of runs, keep how they were read, and say what came of it."""
    from neuro.report import Table, Text

    found = _reading(params).into(join_blocks(parts))
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


def _reading(params: ParcelsParams) -> Reading:
    """Keep with the blocks how they came about, so that an encoder can read new runs alike."""
    rules = {k: getattr(params, k) for k in ("tmin", "tmax", "until", "high_pass", "stimulus",
                                             "t_r")}  # fmt: skip
    rules["confounds"] = params.confounds_files is not None
    if params.atlas is None:
        return Reading.of(mask_img=params.mask_img, **rules)
    return Reading.of(params.atlas, params.atlas_table, **rules)


def _runs(params: ParcelsParams) -> list[tuple[Path, Path, Path | None]]:
    """Pair runs with their events and confounds; names that name runs must agree."""
    none: list[Path | None] = [None] * len(params.bold)
    noise = list(params.confounds_files or none)
    if not len(params.bold) == len(params.events) == len(noise):
        raise InputError(
            f"{len(params.bold)} runs (bold), {len(params.events)} tables of events"
            + (f", {len(noise)} of confounds" if params.confounds_files else "")
            + "; give one for each run"
        )
    found = list(zip(params.bold, params.events, noise, strict=True))
    for bold, *others in found:
        for other in filter(None, others):
            mine, theirs = entities(bold), entities(other)
            differ = [k for k in ("sub", "ses", "run") if mine.get(k) != theirs.get(k)
                      and k in mine and k in theirs]  # fmt: skip
            if differ:
                raise InputError(
                    f"{bold} is paired with {other}, of another {', '.join(differ)}; give files "
                    "in the same order"
                )
    return found


def read_series(params: ParcelsParams, bold: Path, number: int) -> xr.Dataset:
    """Read a run as parcels or, without an atlas, as voxels; it is named by its number."""
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
