"""Runs to what whole-brain stages take: blocks of labelled runs, windows of others, embeddings.

One dataset holds both. ``kind`` says what a trial is (perception, imagery, unlabelled, rest),
``part`` what it is for: train, test, or the kind. Windows to pretrain on (kind unlabelled or rest)
have no item and no category; no window is cut from a test or imagery run, and each bears the name
of its run, so that it can be left out with that run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.brain_windows import cut_windows
from fmri.clean import clean_signals
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from fmri.whole_brain_params import SeriesParams
    from neuro.stage import Context

__all__ = ["WINDOWS", "blocks_in", "events_of", "find_events", "record", "windows_in"]

WINDOWS = ("unlabelled", "rest")
"""Kinds of trials that are windows without a label."""


def record(
    context: Context, params: SeriesParams, images: xr.Dataset | None = None,
    targets: xr.Dataset | None = None,
) -> xr.Dataset:  # fmt: skip
    """Read or simulate runs, hand over what is to be seen, return blocks and windows."""
    if params.files is None:
        found = _simulated(context, params, images, targets)
    else:
        found = _read(context, params, targets)
    _describe(context, found, simulated=params.files is None)
    return found


def blocks_in(data: xr.Dataset, kinds: Sequence[str] | None = None) -> xr.Dataset:
    """Take labelled blocks, cut to the longest of them.

    Parameters
    ----------
    data : Dataset
        Of `record`, or any with ``kind`` on trial.
    kinds : sequence of str, optional
        Which kinds; by default all but windows.
    """
    if "kind" not in data.coords:
        return data.load()
    kind = data["kind"].values.astype(str)
    keep = ~np.isin(kind, WINDOWS) if kinds is None else np.isin(kind, list(kinds))
    return _cut(data.isel(trial=np.flatnonzero(keep)).load())


def windows_in(data: xr.Dataset, kinds: Sequence[str] = WINDOWS) -> xr.Dataset:
    """Take windows without a label.

    Raises
    ------
    DataError
        Where there are none.
    """
    found = blocks_in(data, kinds)
    if "kind" not in data.coords or not found.sizes["trial"]:
        raise DataError(
            f"no trial is of the kind {' or '.join(kinds)}, so there is nothing to pretrain on; "
            "take data from brain-series"
        )
    return found


# Files ----------------------------------------------------------------------------------------


def find_events(run: Path) -> Path | None:
    """Find the events that lie beside a run: of its name, or the only ones in the folder."""
    stem = run.name.split(".")[0]
    own = run.parent / f"{stem.removesuffix('_bold')}_events.tsv"
    if own.is_file():
        return own
    every = sorted(run.parent.glob("*_events.tsv"))
    return every[0] if len(every) == 1 else None


def events_of(run: Path) -> Path:
    """Return the events that lie beside a run.

    Raises
    ------
    DataError
        Where there are none.
    """
    found = find_events(run)
    if found is None:
        raise DataError(
            f"{run}: there is no {run.name.split('.')[0].removesuffix('_bold')}_events.tsv beside "
            "it, nor only one *_events.tsv; give events"
        )
    return found


def _read(context: Context, params: SeriesParams, targets: xr.Dataset | None) -> xr.Dataset:
    from fmri.ablation_stages import ParcelsParams
    from fmri.parcel_study import join_runs, read_runs, read_series

    shared = set(ParcelsParams.model_fields) & set(type(params).model_fields)
    fields = {name: getattr(params, name) for name in shared}
    reading = ParcelsParams(**fields | {"bold": params.files, "events": params.events_files()})
    runs = read_runs(context, reading)
    blocks = join_runs(context, reading, [run.blocks for run in runs])
    blocks = _parted(blocks, params.test_runs, params.imagery_runs)
    tested = set(params.test_runs or []) | set(params.imagery_runs)
    free = [
        _cleaned(run.series, run.confounds, params.high_pass)
        for run in runs if run.series.attrs["run"] not in tested
    ]  # fmt: skip
    for number, file in enumerate(params.unlabelled or []):
        series = read_series(reading, file, number)
        named = series.assign_attrs(run=f"unlabelled-{series.attrs['run']}")
        free.append(_cleaned(named, None, params.high_pass))
    kept = blocks["parcel"].values.tolist()
    windows = cut_windows([one.sel(parcel=kept) for one in free], params.window,
                          stride=params.stride, clean=False)  # fmt: skip
    kind = np.full(windows.sizes["trial"], "unlabelled")
    found = _joined(blocks, windows.assign_coords(kind=("trial", kind), part=("trial", kind)))
    return _with_targets(context, found, params, targets)


def _parted(data: xr.Dataset, test: list[str] | None, imagery: list[str]) -> xr.Dataset:
    """Say which trials are for training; without test runs nothing is said."""
    run = data["run"].values.astype(str)
    unknown = sorted((set(test or []) | set(imagery)) - set(run.tolist()))
    if unknown:
        raise InputError(
            f"test_runs or imagery_runs name {', '.join(unknown)}; the runs are "
            f"{', '.join(np.unique(run))}"
        )
    imagined = np.isin(run, imagery)
    kind = np.where(imagined, "imagery", "perception")
    data = data.assign_coords(kind=("trial", kind))
    if test is None:
        return data
    part = np.where(imagined, "imagery", np.where(np.isin(run, test), "test", "train"))
    return data.assign_coords(part=("trial", part))


def _with_targets(
    context: Context, data: xr.Dataset, params: SeriesParams, targets: xr.Dataset | None
) -> xr.Dataset:
    """Give every item an embedding: wired, of a file, of its category's attributes, or a column."""
    from fmri.providers import CategoryAttributes, haxby_attributes

    blocks = blocks_in(data)
    items, first = np.unique(blocks["item"].values.astype(str), return_index=True)
    category = blocks["category"].values.astype(str)[first]
    known = haxby_attributes() if params.attributes is None else CategoryAttributes(
        params.attributes
    )  # fmt: skip
    lacking = sorted(set(category.tolist()) - set(known.table.index.astype(str)))
    if lacking and params.attributes is not None:
        raise DataError(f"{params.attributes}: has no row for {', '.join(lacking[:5])}")
    if not lacking:
        data = data.assign(
            attribute_table=(("named", "attribute"), known.table.to_numpy(np.float32))
        ).assign_coords(named=known.table.index.astype(str).to_numpy().astype(str))
        data = data.assign_attrs(attribute_source=known.source)
    if targets is not None:
        target = _flat(targets, items)
    elif params.embeddings is not None:
        target = _embeddings(params.embeddings, items)
    elif not lacking:
        place = {str(name): row for row, name in enumerate(known.table.index)}
        target = known.values[[place[name] for name in category.tolist()]]
    else:
        context.warn("there are no embeddings: the target is one column for each category")
        target = np.eye(len(np.unique(category)))[np.unique(category, return_inverse=True)[1]]
        target = target - target.mean(0)
    text = params.text_embeddings and _embeddings(params.text_embeddings, items)
    return _with_items(data, items, target, text)


def _embeddings(path: Path, items: NDArray[np.str_]) -> NDArray[Any]:
    from fmri.providers import ArrayFile

    found = ArrayFile(path)
    missing = [name for name in items.tolist() if name not in found.place]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(items)} items have no embedding: "
            f"{', '.join(missing[:5])}; it names {', '.join(list(found.place)[:5])} ..."
        )
    values = np.asarray(found.values)[[found.place[name] for name in items.tolist()]]
    return values.reshape(len(items), -1)


def _flat(targets: xr.Dataset, items: NDArray[np.str_]) -> NDArray[Any]:
    """Return the tokens of each item in one row."""
    from fmri.images import pick

    values = pick(targets, items, what="the targets")["signal"].values
    return np.asarray(values.reshape(len(items), -1), np.float32)


# Simulation -----------------------------------------------------------------------------------


def _simulated(
    context: Context, params: SeriesParams, images: xr.Dataset | None, targets: xr.Dataset | None
) -> xr.Dataset:
    from fmri.parcel_blocks import cut_blocks, join_blocks
    from fmri.simulate_whole_brain import simulate_whole_brain
    from fmri.simulate_whole_brain_export import reading_of

    pictures = None if images is None else _pictures(params, images, targets)
    study = simulate_whole_brain(seen=pictures, **params.simulate.model_dump(), seed=params.seed)
    rules: dict[str, Any] = {"tmin": params.tmin, "tmax": params.tmax, "until": params.until,
                             "stimulus": "item", "high_pass": params.high_pass}  # fmt: skip
    blocks, free, kinds = [], [], {}
    for run in study.runs:
        part, kind = run.series.attrs["part"], run.series.attrs["kind"]
        if len(run.events):
            own = cut_blocks(run.series, run.events, confounds=run.confounds, **rules)
            n = own.sizes["trial"]
            blocks.append(own.assign_coords(kind=("trial", [kind] * n), part=("trial", [part] * n)))
        if part in ("train", *WINDOWS):
            free.append(_cleaned(run.series, run.confounds, params.high_pass))
            kinds[run.series.attrs["run"]] = "rest" if kind == "rest" else "unlabelled"
    windows = cut_windows(free, params.window, stride=params.stride, clean=False)
    kind = np.array([kinds[run] for run in windows["run"].values.tolist()])
    found = _joined(
        reading_of(study, **rules, confounds=True).into(join_blocks(blocks)),
        windows.assign_coords(kind=("trial", kind), part=("trial", kind)),
    )
    items = study.items
    used, shown = items["item"].values.astype(str), blocks_in(found)["item"].values
    keep = np.isin(used, np.unique(shown))
    aim = items["target"].values[keep] if targets is None else _flat(targets, used[keep])
    found = _with_items(found, used[keep], aim, items["text_target"].values[keep])
    context.method(
        f"A brain of {found.sizes['parcel']} parcels was simulated, with "
        f"{len(items['truth'])} networks of known information about the stimulus."
    )
    return (
        found.assign(information=items["information"], attribute_table=items["attribute_table"])
        .assign_coords(truth=items["truth"], named=items["named"])
        .assign_attrs(attribute_source="the simulation")
    )


def _pictures(params: SeriesParams, images: xr.Dataset, targets: xr.Dataset | None) -> xr.Dataset:
    """Choose pictures for training, test and imagery; their targets drive the brain.

    The latents are the leading principal components of the targets, of variance 1 over training
    pictures.
    """
    from sklearn.decomposition import PCA

    from fmri.images import pick
    from fmri.parts import stimuli_of
    from fmri.simulate_whole_brain import TEST_REPEATS

    if targets is None or "category" not in images.coords:
        raise DataError("a brain that sees pictures needs their targets wired, and categories")
    own = params.simulate
    n_train, n_test = own.n_train_runs * own.n_trials, own.n_test_runs * own.n_trials
    n_test = -(-n_test // TEST_REPEATS) + (min(own.n_prompts, n_test) if own.n_imagery_runs else 0)
    chosen = [stimuli_of(images, part) for part in ("train", "test")]
    for part, names, n in zip(("training", "test"), chosen, (n_train, n_test), strict=True):
        if len(names) < n:
            raise DataError(
                f"the runs show {n} {part} pictures and there are {len(names)}; take more pictures "
                "or fewer runs or trials (simulate: n_trials)"
            )
    rng = np.random.default_rng([params.seed, 1])
    names = np.concatenate([
        rng.permutation(names)[:n] for names, n in zip(chosen, (n_train, n_test), strict=True)
    ])  # fmt: skip
    pca = PCA(own.n_latents, whiten=True, random_state=0).fit(_flat(targets, names[:n_train]))
    latent = pca.transform(_flat(targets, names))
    category = pick(images, names)["category"].values.astype(str)
    return xr.Dataset({"latent": (("item", "latent"), latent)},
                      {"item": names, "category": ("item", category)})  # fmt: skip


# Inside ---------------------------------------------------------------------------------------


def _cleaned(series: xr.Dataset, confounds: Any, high_pass: float | None) -> xr.Dataset:
    values = clean_signals(
        series["signal"].values, t_r=float(series.attrs["t_r"]), detrend=True,
        standardize="zscore_sample", high_pass=high_pass, confounds=confounds,
    )  # fmt: skip
    return series.assign(signal=(("time", "parcel"), np.asarray(values, np.float32)))


def _joined(blocks: xr.Dataset, windows: xr.Dataset) -> xr.Dataset:
    """Put blocks and windows together, padded to the longer; what windows lack is empty."""
    size = max(blocks.sizes["time"], windows.sizes["time"])
    parts = []
    for one in (blocks, windows):
        length = one["length"].values if "length" in one.coords else one.sizes["time"]
        mask = np.arange(size) < np.broadcast_to(length, one.sizes["trial"])[:, None]
        pad = [(0, 0), (0, 0), (0, size - one.sizes["time"])]
        parts.append((np.pad(one["signal"].transpose("trial", "parcel", "time").values, pad), mask))
    coords: dict[str, Any] = {
        str(k): c for k, c in blocks.coords.items() if c.dims == ("parcel",)
    } | {"time": np.arange(size) * float(blocks.attrs["t_r"])}
    n = windows.sizes["trial"]
    for name in ("item", "category", "subject", "session", "run", "kind", "part"):
        if name in blocks.coords:
            own = windows[name].values if name in windows.coords else np.full(n, "")
            coords[name] = ("trial", np.concatenate([blocks[name].values.astype(str), own]))
    for name in ("onset", "length"):
        own = windows[name].values if name in windows.coords else np.full(n, size)
        coords[name] = ("trial", np.concatenate([blocks[name].values, own]))
    variables: dict[str, Any] = {
        "signal": (("trial", "parcel", "time"), np.concatenate([p[0] for p in parts])),
        "mask": (("trial", "time"), np.concatenate([p[1] for p in parts])),
    }
    if "atlas" in blocks:
        variables["atlas"] = blocks["atlas"]
    return xr.Dataset(variables, coords, blocks.attrs)


def _with_items(
    data: xr.Dataset, items: NDArray[np.str_], target: ArrayLike, text: Any = None
) -> xr.Dataset:
    data = data.assign(target=(("shown", "feature"), np.asarray(target, np.float32)))
    if text is not None:
        data = data.assign(text_target=(("shown", "word"), np.asarray(text, np.float32)))
    return data.assign_coords(shown=items.astype(str))


def _cut(data: xr.Dataset) -> xr.Dataset:
    if "mask" not in data or not data.sizes["trial"]:
        return data
    recorded = np.flatnonzero(data["mask"].values.any(0))
    return data.isel(time=slice(0, int(recorded[-1]) + 1 if len(recorded) else None))


def _describe(context: Context, data: xr.Dataset, *, simulated: bool) -> None:
    from neuro.report import Table, Text

    trials = pd.DataFrame({"kind": data["kind"].values.astype(str)})
    trials["part"] = data["part"].values.astype(str) if "part" in data.coords else "(by folds)"
    trials["run"] = data["run"].values.astype(str)
    rows = [
        {"kind": kind, "part": part, "trials": len(own), "runs": own["run"].nunique()}
        for (kind, part), own in trials.groupby(["kind", "part"], sort=False)
    ]
    blocks: list[Any] = [
        Text(
            f"{data.sizes['parcel']} parcels, a volume every {float(data.attrs['t_r']):g} s. "
            "Trials of the kinds unlabelled and rest are windows without a label; none is of a "
            "test run."
        ),
        Table(rows),
    ]  # fmt: skip
    if "information" in data:
        network = pd.Series(data["network"].values.astype(str)).value_counts()
        rows = [
            {"network": name, "parcels": int(network.get(name, 0)), "information": float(value)}
            for name, value in zip(data["truth"].values.tolist(), data["information"].values,
                                   strict=True)
        ]  # fmt: skip
        rows.append({"network": "none", "parcels": int(network.get("none", 0)), "information": 0.0})
        blocks.append(Table(rows, "What was planted: the gain of each network."))
    context.section("A simulated brain" if simulated else "Runs", *blocks)
