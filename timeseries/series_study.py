"""The logic of the stages of series."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from neuro.data import split_groups
from neuro.errors import DataError

if TYPE_CHECKING:
    from neuro.report import Block
    from neuro.stage import Context


MOST_NAMED = 30  # groups, in a sentence


def read(settings: dict[str, Any], context: Context) -> xr.Dataset:
    """Read and cut series, or simulate them."""
    if settings["files"] is None:
        data = _simulated(settings, context)
    else:
        data = _from_files(settings, context)
    context.section("Series", *blocks(data))
    return data


def split(series: xr.Dataset, settings: dict[str, Any], context: Context) -> xr.Dataset:
    """Add the coordinate ``part`` (train, test); no group is in both."""
    group, seed = settings["group"], settings["seed"]
    if group not in series.coords or series[group].dims != ("trial",):
        raise DataError(f"there is no coordinate '{group}' on trials; found {list(series.coords)}")
    _, test = split_groups(series, group, test_size=settings["test_size"], random_state=seed)
    part = np.full(series.sizes["trial"], "train", dtype="<U5")
    part[test] = "test"
    _warn_absent(series["class"].values, part, context)
    held = sorted(set(map(str, series[group].values[test])))
    named = ", ".join(held) if len(held) <= MOST_NAMED else f"{len(held)} of them"
    context.method(f"Trials were split by {group}: {named} are the test part.")
    done = series.assign_coords(part=("trial", part))
    context.section("Split", counts(done, "part", "Trials by class and part."))
    return done


def spectra(series: xr.Dataset, settings: dict[str, Any], context: Context) -> xr.Dataset:
    """Put spectra in the place of waveforms, and draw an example of each class."""
    from timeseries.spectra import Spectra, spectra_dataset

    how = Spectra(**settings)
    data = spectra_dataset(series, how)
    context.method(
        f"Waveforms became {data.sizes['channel']} {how.kind} coefficients (dB) of frames of "
        f"{1000 * how.window:g} ms."
    )
    context.section("Spectra", _images(data, how.n_frames is None))
    return data


def _images(data: xr.Dataset, seconds: bool) -> Block:
    from neuro.draw import DIVERGING, new_figure, tidy
    from neuro.report import Figure

    labels, lengths = data["class"].values, np.full(data.sizes["trial"], data.sizes["time"])
    lengths = data["length"].values if "length" in data.coords else lengths
    classes = np.unique(labels)[:10]
    figure = new_figure(7, 1.6 * -(-len(classes) // 5) + 0.8)
    for k, name in enumerate(classes):
        row = int(np.argmax(labels == name))
        axes = figure.add_subplot(-(-len(classes) // 5), min(5, len(classes)), k + 1)
        end = float(data["time"].values[lengths[row] - 1])
        image = data["signal"].values[row, :, : lengths[row]]
        spread = np.abs(image[1:] if len(image) > 1 else image).max() or 1.0
        axes.imshow(
            image, aspect="auto", origin="lower", cmap=DIVERGING, vmin=-spread, vmax=spread,
            extent=(0, end, -0.5, len(image) - 0.5), interpolation="nearest",
        )  # fmt: skip
        tidy(axes, "", "" if k % 5 else "coefficient", str(name) or "no class")
    figure.supxlabel("time (s)" if seconds else "share of the series", fontsize=9)
    return Figure(figure, (
        "The first series of each class: coefficients (dB) by frame, red above 0, blue below, each "
        "panel on its own scale."
    ))  # fmt: skip


def identity(data: xr.Dataset, rows: Any) -> str:
    """Return what a test split is called where it is counted how often it was scored."""
    names = data["recording"].values[rows] if "recording" in data.coords else rows
    text = "\2".join(map(str, [*data["subject"].values[rows], *names]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _warn_absent(labels: Any, part: Any, context: Context) -> None:
    for a, b in (("test", "train"), ("train", "test")):
        absent = set(labels[part == b]) - set(labels[part == a]) - {""}
        if absent:
            names = ", ".join(sorted(map(str, absent)))
            context.warn(f"classes without a trial in the {a} part: {names}")


def _simulated(settings: dict[str, Any], context: Context) -> xr.Dataset:
    from timeseries.simulate import SeriesStudy, simulate_series

    data = simulate_series(SeriesStudy(**settings["simulate"]), settings["seed"])
    if settings["simulate"]["missing"]:
        data = _filled(data, settings["windows"]["missing"])
    context.method(
        f"{data.sizes['trial']} series of {len(np.unique(data['subject'].values))} simulated "
        "subjects have known, independent factors."
    )
    return data


def _filled(data: xr.Dataset, missing: str) -> xr.Dataset:
    from timeseries.recording import fill_missing

    signal = data["signal"].values.copy()
    rows = np.flatnonzero(np.isnan(signal).any((1, 2)))
    if len(rows) and missing == "refuse":
        raise DataError(
            f"{len(rows)} simulated series miss samples; set windows.missing: interpolate"
        )
    for row in rows:
        signal[row] = fill_missing(signal[row])
    return data.assign(signal=data["signal"].copy(data=signal))


def _from_files(settings: dict[str, Any], context: Context) -> xr.Dataset:
    from timeseries.read_series import Columns, read_series
    from timeseries.series_index import files_inside
    from timeseries.windows import Windows, cut_windows

    columns = Columns(**settings["columns"])
    paths = files_inside([Path(path) for path in settings["files"]])
    recordings = [
        recording
        for path in context.progress(paths, "files")
        for recording in read_series(
            path, sfreq=settings["sfreq"], columns=columns, label=settings["label"]
        )
    ]
    data = cut_windows(recordings, Windows(**settings["windows"]))
    for reason, n in data.attrs["excluded"].items():
        if n:
            context.warn(f"{n} windows or stretches were left out: {reason}")
    filled = int((data["missing"].values > 0).sum())
    if filled:
        context.warn(f"missing samples were interpolated in {filled} windows")
    context.method(f"{data.sizes['trial']} windows were cut from {len(recordings)} recordings.")
    return _only(data, settings["classes"])


def _only(data: xr.Dataset, classes: tuple[str, ...]) -> xr.Dataset:
    if not classes:
        return data
    absent = set(classes) - set(map(str, np.unique(data["class"].values)))
    if absent:
        raise DataError(
            f"no trial of the class {', '.join(sorted(absent))}; found "
            f"{', '.join(map(str, np.unique(data['class'].values)))}"
        )
    return data.isel(trial=np.isin(data["class"].values, classes))


def blocks(data: xr.Dataset) -> list[Block]:
    """Return example waveforms of each class, and counts by class and person."""
    from neuro.draw import new_figure, tidy
    from neuro.report import Figure

    labels = data["class"].values
    classes = np.unique(labels)[:12]
    n_columns = 1 if len(classes) < 4 else 2
    n_rows = -(-len(classes) // n_columns)
    figure = new_figure(9, 1.1 * n_rows + 0.6)
    grid = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).ravel()
    for k, name in enumerate(classes):
        row = int(np.argmax(labels == name))
        end = int(data["length"].values[row]) if "length" in data.coords else None
        first = data["signal"].isel(trial=row, time=slice(0, end))
        grid[k].plot(first["time"].values, first.values[:6].T, lw=0.8)
        tidy(grid[k], "time (s)" if k >= len(classes) - n_columns else "", "", str(name))
    for axes in grid[len(classes) :]:
        axes.axis("off")
    n_classes = len(np.unique(labels))
    which = "each class" if n_classes <= 12 else f"12 of {n_classes} classes"
    picture = Figure(figure, f"The first series of {which}; up to six channels.")
    return [picture, counts(data, "subject", "Trials by class and person.")]


def counts(data: xr.Dataset, by: str, caption: str) -> Block:
    """Return a table of trials by class and another coordinate."""
    from neuro.report import Table

    table = pd.crosstab(data[by].values, data["class"].values, rownames=[by], colnames=["class"])
    return Table(table.reset_index().to_dict("records"), caption)
