"""Decode new runs with a fitted whole-brain encoder, for ``neuro decode``.

A run is brought to the atlas and the blocks of the training. Where a table of events lies beside
it (``*_events.tsv``) there is a block for each event; without one the run is cut into windows of
the training's length, one after another.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from fmri.brain_windows import cut_windows
from fmri.tables import read_table
from neuro.data import open_dataset
from neuro.errors import ContractError, DataError
from neuro.fitted_on import Seen

if TYPE_CHECKING:
    from fmri.brain_reading import Reading
    from fmri.whole_brain import WholeBrain
    from fmri.whole_brain_options import WholeBrainOptions

__all__ = ["decode_run", "events_beside", "read_blocks"]


def decode_run(model: WholeBrain, path: str | Path, options: WholeBrainOptions) -> xr.Dataset:
    """Decode a run, or a saved dataset of blocks.

    Parameters
    ----------
    model : WholeBrain
    path : path
        4-D NIfTI, CIFTI series, or a folder of blocks.
    options : WholeBrainOptions

    Returns
    -------
    Dataset
        ``codes (trial, latent)``, ``embedding (trial, dimension)`` of unit length,
        ``category_decoded`` where the training named categories, ``tokens`` with a prior,
        ``retrieved`` and ``similarity`` with a gallery, ``reconstruction`` where the encoder holds
        the decoder of its targets. In the attributes ``n_missing`` (parcels at their training
        mean) and ``note``.

    Raises
    ------
    ContractError
        Where parcels are missing and `align` is off, or the repetition time is another.
    DataError
        Where the run is shorter than a block, holds NaN, or doesn't overlap with the atlas.
    """
    from fmri.decode import retrieve

    data, how = read_blocks(model, path, options)
    X, missing = _aligned(model, data, options)
    # Tokens have features of their own.
    embedding = model.predict(X).rename(feature="dimension")
    found: dict[str, Any] = {"codes": model.transform(X), "embedding": embedding}
    if model.categories_:
        found["category_decoded"] = model.predict_category(X)
    if options.gallery is not None:
        codes = model.embed(X)
        found |= retrieve(model, codes, options.gallery, options.top_k)
    if model.networks_.prior is not None:
        found["tokens"] = model.predict_tokens(X, options.prior, steps=options.steps)
        found |= _pictures(model, found["tokens"], options)
    seen = _seen(model, X)
    parts = [how]
    if missing:
        parts.append(f"{missing} of {X.sizes['parcel']} parcels missing, at the training mean")
    if seen.sessions.any():
        parts.append("of a session that was trained on")
    return (
        xr.Dataset(found)
        .assign_coords(seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects))
        .assign_attrs(
            kind="codes", encoder=model.name, source=Path(path).name, n_missing=missing,
            note="; ".join(parts), random_weights=int(model.target_["random_weights"]),
        )
    )  # fmt: skip


def read_blocks(
    model: WholeBrain, path: str | Path, options: WholeBrainOptions
) -> tuple[xr.Dataset, str]:
    """Read a run as the training's were, and say how it was cut."""
    path = Path(path)
    if path.is_dir():
        data = open_dataset(path, load=True)
        return data, f"{data.sizes['trial']} blocks"
    reading = _reading(model, path)
    series = reading.series(path, atlas=options.atlas)
    confounds = None
    if options.confounds is not None:
        confounds = read_table(options.confounds, "confounds")
    notes = "" if confounds is not None or not reading.rules["confounds"] else (
        "; confounds were taken out in training and not here (--confounds FILE)"
    )  # fmt: skip
    events = options.events or events_beside(path)
    if events is not None:
        data = reading.blocks(series, events, confounds)
        return data, f"{data.sizes['trial']} blocks of {Path(events).name}{notes}"
    window = model.contract_.shape[1]
    if series.sizes["time"] < window:
        raise DataError(
            f"{path.name}: has {series.sizes['time']} volumes, shorter than the window of {window} "
            "of the training; there is no *_events.tsv beside it either"
        )
    data = cut_windows(
        [series], window, stride=options.stride, high_pass=reading.rules["high_pass"]
    )
    data.attrs.pop("short_runs")
    return data, f"{data.sizes['trial']} windows of {window} volumes, no events{notes}"


def events_beside(path: str | Path) -> Path | None:
    """Return the BIDS events beside a run, also of one in another space; None without.

    Examples
    --------
    >>> events_beside("sub-01_task-see_run-1_space-MNI_bold.nii.gz") is None
    True
    """
    path = Path(path)
    stem = path.name.split(".")[0].removesuffix("_bold")
    parts = [part for part in stem.split("_") if part.split("-")[0] not in ("space", "desc", "res")]
    for name in dict.fromkeys([stem, "_".join(parts)]):
        table = path.with_name(f"{name}_events.tsv")
        if table.is_file():
            return table
    return None


# Inside ---------------------------------------------------------------------------------------


def _reading(model: WholeBrain, path: Path) -> Reading:
    if model.reading_ is None:
        raise ContractError(
            f"{path.name}: this encoder doesn't know how runs become blocks; it was fitted to "
            "blocks without a reading. Cut the run yourself and decode the saved dataset, or "
            "attach_reading(Reading.of(atlas, ...)) and save it again"
        )
    return model.reading_


def _aligned(
    model: WholeBrain, data: xr.Dataset, options: WholeBrainOptions
) -> tuple[xr.DataArray, int]:
    X = model.as_input(data)
    known = model.contract_.channels or []
    there = set(X["parcel"].values.astype(str).tolist()) if "parcel" in X.coords else set(known)
    missing = len(set(known) - there)
    if missing and not options.align:
        raise ContractError(
            f"{missing} of {len(known)} parcels have no voxel in the scan: "
            f"{', '.join(sorted(set(known) - there)[:5])}; --align lets them stand at their "
            "training mean"
        )
    return model.align(X, fill=options.align, drop_extra=True), missing


def _seen(model: WholeBrain, X: xr.DataArray) -> Seen:
    columns = {
        name: X[name].values.astype(str) if name in X.coords else None
        for name in ("subject", "session")
    }
    values = np.ascontiguousarray(X.values, dtype=np.float32)
    return model.fitted_on_.seen(values, **columns)


def _pictures(
    model: WholeBrain, tokens: xr.DataArray, options: WholeBrainOptions
) -> dict[str, xr.DataArray]:
    """Decode tokens to pictures where the decoder of the targets was saved along."""
    if not options.pictures or (model.pixels_ is None and model.decoder_ is None):
        return {}
    decoder = model.pixels_ if model.pixels_ is not None else model.decoder_
    pixels = np.asarray(decoder.inverse_transform(tokens.values), np.float32)  # type: ignore[union-attr]
    return {"reconstruction": xr.DataArray(pixels, dims=("trial", "channel", "row", "column"))}
