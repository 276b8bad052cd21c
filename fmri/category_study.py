"""Which category a held-out run shows: MindEye to attributes, beside linear methods, for a report.

References
----------
Haxby et al., "Distributed and overlapping representations of faces and objects in ventral temporal
cortex" (2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.categories import CategoryScores, Regressor, decode_categories
from fmri.providers import CategoryAttributes, haxby_attributes
from neuro.draw import SEQUENTIAL, new_figure
from neuro.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from neuro.stage import Context

__all__ = ["confusion_figure", "mindeye_regressor", "record"]

Floats = NDArray[np.float32]

NAMES = {
    "mindeye": "MindEye to attributes",
    "ridge": "ridge to attributes",
    "onehot": "ridge to one column a category",
    "linear": "logistic regression",
    "shuffled": "ridge to attributes, shuffled labels",
}


def mindeye_regressor(*, n_members: int = 3, random_state: int = 0, **params: Any) -> Regressor:
    """Return a method for `fmri.categories.decode_categories`: MindEye to category attributes.

    Every block is a stimulus of its own, so that some blocks of the training runs can choose the
    checkpoint; the blocks of a category share a target, which SoftCLIP's soft labels allow for.

    Parameters
    ----------
    n_members : int
        MindEyes of other seeds, and so of other validation blocks, whose outputs are averaged.
    random_state : int
        Of the first; the others follow.
    **params
        Of `fmri.mindeye.MindEye`.
    """
    from fmri.mindeye import MindEye

    def predict(X: Floats, target: Floats, runs: NDArray[np.str_], new: Floats) -> Floats:
        names = np.array([f"block-{row:04d}" for row in range(len(X))])
        betas = xr.DataArray(X, dims=("trial", "voxel"), coords={"stimulus": ("trial", names)})
        tokens = xr.Dataset(
            {"signal": (("trial", "token", "feature"), target[:, None])},
            coords={"stimulus": ("trial", names)},
        )
        total = np.zeros((len(new), target.shape[1]), np.float32)
        for member in range(n_members):
            model = MindEye(prior=False, random_state=random_state + member, **params)
            total += np.asarray(model.fit(betas, tokens).transform(new))[:, 0]
        return total / np.float32(n_members)

    return predict


def record(context: Context, betas: xr.Dataset, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Decode categories of held-out runs, hand the numbers over to a run, return them as a table.

    Parameters
    ----------
    context : Context
    betas : Dataset (trial, voxel)
        Of one subject, with ``run`` and the column of categories.
    settings : mapping
        Of `fmri.study_stages.HaxbyParams`.
    """
    from neuro.report import Figure, Table, Text

    X, category, run = _parts(betas, settings["category"])
    table = _attributes(settings["attributes"])
    method = mindeye_regressor(
        n_members=settings["n_members"], random_state=settings["seed"], device="cpu",
        max_epochs=settings["max_epochs"],
    )  # fmt: skip
    found = decode_categories(
        X, category, run, table.table, methods={"mindeye": method}, n_boot=settings["n_boot"],
        random_state=settings["seed"], progress=context.progress,
    )  # fmt: skip
    for name, estimate in found.estimates.items():
        estimate.record(context, name)
    context.scored(f"categories-{betas.attrs.get('mask_hash', '')}-{len(np.unique(run))}")
    context.predictions(_predictions(found, betas))
    rows, gains = _rows(found)
    n, n_runs = len(np.unique(category)), len(np.unique(run))
    context.section(
        "Categories",
        Text(
            f"{len(X)} blocks of {n} categories in {n_runs} runs. Every run was decoded by models "
            "that saw the other runs only; what a method chooses, it chooses inside these. "
            f"Attributes: {table.source}."
        ),
        Table(rows, f"Accuracy; chance {1 / n:.3f}; 95 % intervals over runs."),
        Table(gains, "Differences run by run, with 95 % intervals."),
        Figure(_accuracy_figure(rows, 1 / n), "Accuracy with intervals; dashed: chance."),
        *(
            Figure(
                confusion_figure(found.confusion(name), NAMES.get(name, name)),
                f"What was decoded ({NAMES.get(name, name)}); rows sum to one.",
            )
            for name in ("mindeye", "linear")
        ),
    )
    context.method(
        f"Categories of held-out runs were decoded by MindEye (preset small, mean of "
        f"{settings['n_members']} seeds) to {table.table.shape[1]} attributes of a category, "
        "beside ridge regressions tuned inside the training runs and logistic regression.",
        "haxby2001", "scotti2023",
    )  # fmt: skip
    return pd.DataFrame([*rows, *gains])


def _parts(betas: xr.Dataset, column: str) -> tuple[Floats, NDArray[np.str_], NDArray[np.str_]]:
    missing = [name for name in (column, "run") if name not in betas.coords]
    if missing:
        raise DataError(
            f"the responses have no {' and no '.join(missing)}, only "
            f"{', '.join(map(str, betas.coords))}; take them from fmri-betas with events"
        )
    run = betas["run"].values.astype(str)
    if "session" in betas.coords:  # run-1 of two sessions are two runs
        run = np.char.add(np.char.add(betas["session"].values.astype(str), "/"), run)
    return betas["signal"].values, betas[column].values.astype(str), run


def _attributes(file: Any) -> CategoryAttributes:
    return haxby_attributes() if file is None else CategoryAttributes(file)


def _rows(found: CategoryScores) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows, gains = [], []
    for name in NAMES:
        estimate = found.estimates[f"category.{name}.accuracy"]
        rows.append(
            {"method": NAMES[name], "accuracy": estimate.value, "low": estimate.low,
             "high": estimate.high, "chance": estimate.chance, "runs": estimate.n}
        )  # fmt: skip
        for baseline in ("linear", "onehot"):
            gain = found.estimates.get(f"category.{name}.over_{baseline}")
            if gain is not None:
                rule = f"{NAMES[name]} - {NAMES[baseline]}"
                gains.append(
                    {"difference": rule, "accuracy": gain.value, "low": gain.low,
                     "high": gain.high, "p": gain.p}
                )  # fmt: skip
    return rows, gains


def _predictions(found: CategoryScores, betas: xr.Dataset) -> pd.DataFrame:
    who = betas["subject"].values.astype(str) if "subject" in betas.coords else ""
    parts = [
        pd.DataFrame(
            {"item": np.arange(len(found.truth)), "unit": found.run, "fold": found.run,
             "target": name, "truth": found.truth, "score": (answer == found.truth).astype(float),
             "predicted": answer, "subject": who}
        )
        for name, answer in found.predicted.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _accuracy_figure(rows: list[dict[str, Any]], chance: float) -> MatplotlibFigure:
    from neuro.draw import COLOURS, GREY, tidy

    figure = new_figure(6.0, 0.45 * len(rows) + 0.9)
    axes = tidy(figure.subplots(), "accuracy")
    for place, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [place, place], color=COLOURS[0], lw=2)
        axes.plot(row["accuracy"], place, "o", color=COLOURS[0])
    axes.axvline(chance, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    return figure


def confusion_figure(shares: pd.DataFrame, title: str = "") -> MatplotlibFigure:
    """Draw shares of the answers, true categories as rows.

    Parameters
    ----------
    shares : DataFrame
        Of `CategoryScores.confusion`.
    title : str
    """
    from neuro.draw import tidy

    n = len(shares)
    figure = new_figure(0.45 * n + 2.2, 0.4 * n + 1.5)
    axes = tidy(figure.subplots(), "decoded", "seen", title)
    axes.imshow(shares.to_numpy(), cmap=SEQUENTIAL, vmin=0, vmax=1)
    for row, column in np.ndindex(shares.shape):
        value = float(shares.to_numpy()[row, column])
        if value:
            colour = "black" if value > 0.5 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                      color=colour)  # fmt: skip
    axes.set_xticks(range(shares.shape[1]), shares.columns.astype(str), rotation=45, ha="right")
    axes.set_yticks(range(n), shares.index.astype(str))
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure
