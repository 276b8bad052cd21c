"""Report blocks of scores: tables crossed over channel and session, ROC, ordering, the plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.draw import COLOURS, GREY, new_figure, tidy
from neuro.report import Block, Figure, Table, Text, Warning
from neuro.validation import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from timeseries.rf.evaluate import Fingerprints, Scores

__all__ = [
    "crossed",
    "order_figure",
    "plane_figure",
    "roc_figure",
    "score_blocks",
    "seed_rows",
]

_KINDS = {"unknown": "devices never seen", "known": "training devices"}
_BANDED = 3  # curves of a panel whose intervals are shaded
_FEW = 6  # units of an interval
_CODED = 4  # panels of the plane
_DEVICES = 8  # in the plane

_INTRO = (
    "The channel is the same (statistics of the training) or unseen; the session that of the "
    "training or a later one (after drift). EER and AUC are over all pairs of bursts, chance 0.5 each; lower EER is "
    "better."
)


def score_blocks(
    found: Scores, methods: Mapping[str, Fingerprints] | None = None,
    data: xr.Dataset | None = None, *, over: str = "devices",
) -> list[Block]:  # fmt: skip
    """Show all scores: crossed tables, the ordering of the models, differences, ROC, the plane.

    Parameters
    ----------
    found : Scores
    methods, data : optional
        The fingerprints and their bursts, for the plane.
    over : str
        What the intervals are over.

    Returns
    -------
    list of Block
    """
    keys = [name.split(".") for name in found.estimates if name.startswith("open.")]
    tests = list(dict.fromkeys(".".join(key[1:4]) for key in keys))
    models = list(dict.fromkeys(key[4] for key in keys))
    least = min(one.n or 0 for name, one in found.estimates.items() if name.startswith("open."))
    rough = f" Over as few as {least} they are rough." if least < _FEW else ""
    blocks: list[Block] = [Text(f"{_INTRO} Intervals (95 %) are over {over}.{rough}")]
    if "pulses" in models:
        blocks.append(Text(
            "“pulses” knows the widths of pulses and gaps alone: what is sent, not who sends it. "
            "What other models have beyond it need not be the device: it may be the receiver, the "
            "place, or content that widths don't tell."
        ))  # fmt: skip
    figure = order_figure(found.estimates, tests, models)
    caption = "EER of all pairs, best model on top; dotted: chance."
    blocks.append(Figure(figure, caption))
    blocks += _tables(found, tests, models, "open", ("eer", "auc"), "Open set, all pairs")
    blocks += _difference_tables(found, tests)
    if found.roc:
        blocks.append(Figure(
            roc_figure(found, tests, models),
            "ROC of all pairs (positive: different devices). Bands: 95 % intervals over devices, "
            f"of the first {_BANDED} models. Dotted: where the error rates are equal.",
        ))  # fmt: skip
    blocks += _tables(found, tests, models, "closed", ("accuracy",), "Closed set, accuracy")
    blocks += _tables(found, tests, models, "verify", ("eer",), "After enrolment, EER")
    blocks += _error_tables(found, tests, models)
    rejected = _rejected(found, tests, models)
    if rejected:
        blocks.append(Table(rejected, "Known or never seen: AUROC of the best score (chance 0.5)."))
    if methods is not None and data is not None:
        blocks.append(Figure(
            plane_figure(methods, data),
            "Test bursts in the plane in which their fingerprints differ most (PCA of unit "
            "fingerprints); a colour is a device, crosses came through an unseen channel.",
        ))  # fmt: skip
    return blocks


# Tables ---------------------------------------------------------------------------------------


def crossed(
    tests: Sequence[str], rows: Sequence[str], kind: str, cell: Callable[[str, str], str]
) -> list[dict[str, Any]]:
    """Return a table of models by channel and session, for known or unknown devices.

    Examples
    --------
    >>> tests = ["same_channel.known.same_session", "same_channel.unknown.same_session"]
    >>> crossed(tests, ["ml_rff"], "known", lambda test, model: "0.1")
    [{'model': 'ml_rff', 'same channel': '0.1'}]
    """
    columns = {_label(test): test for test in tests if test.split(".")[1] == kind}
    found = [
        {"model": row, **{label: cell(test, row) for label, test in columns.items()}}
        for row in rows
    ]
    return [row for row in found if any(v for k, v in row.items() if k != "model")]


def _label(test: str) -> str:
    channel, _, session = test.split(".")
    return channel.replace("_", " ") + (", later" if session.startswith("later") else "")


def interval_text(e: Estimate | None, sign: str = "") -> str:
    """Write an estimate with its interval; nothing where there is none."""
    if e is None or e.value is None:
        return ""
    text = f"{e.value:{sign}.3f}"
    text = text if e.low is None else f"{text} [{e.low:{sign}.3f}, {e.high:{sign}.3f}]"
    return text.replace("-", "−")


def _tables(
    found: Scores, tests: Sequence[str], models: Sequence[str], family: str,
    measures: Sequence[str], title: str,
) -> list[Block]:  # fmt: skip
    blocks: list[Block] = []
    for measure in measures:
        for kind, words in _KINDS.items():
            rows = crossed(
                tests, models, kind,
                lambda test, m, measure=measure: interval_text(  # type: ignore[misc]
                    found.estimates.get(f"{family}.{test}.{m}.{measure}")
                ),
            )  # fmt: skip
            if rows:
                name = f" {measure.upper()}" if len(measures) > 1 else ""
                blocks.append(Table(rows, f"{title}{name}: {words}."))
    return blocks


def _difference_tables(found: Scores, tests: Sequence[str]) -> list[Block]:
    pairs = list(dict.fromkeys((m, r) for _, m, r, _ in found.differences))
    names = {f"{model} − {reference}": (model, reference) for model, reference in pairs}
    blocks: list[Block] = []
    for measure, better in (("eer", "Below"), ("auc", "Above")):
        for kind, words in _KINDS.items():
            rows = crossed(
                tests, list(names), kind,
                lambda test, row, measure=measure: interval_text(  # type: ignore[misc]
                    found.differences.get((test, *names[row], measure)), "+"
                ),
            )  # fmt: skip
            if rows:
                blocks.append(Table(
                    rows, f"Paired differences of the {measure.upper()} of all pairs: {words}. "
                    f"{better} 0 the first model is better."
                ))  # fmt: skip
    return blocks


def _error_tables(found: Scores, tests: Sequence[str], models: Sequence[str]) -> list[Block]:
    if not found.accepted:
        if not found.enrolled:
            return []
        return [Warning(
            "There are no validation devices, so that no threshold could be set: there are no "
            "errors at a threshold to show."
        )]  # fmt: skip

    def cell(test: str, model: str) -> str:
        errors = found.accepted.get((test, model))
        return "" if errors is None else f"{errors[0]:.3f} / {errors[1]:.3f}"

    return [
        Table(rows, "Errors at the threshold that validation devices set, right bursts rejected / "
              f"wrong ones accepted: {words}.")
        for kind, words in _KINDS.items()
        if (rows := crossed(tests, models, kind, cell))
    ]  # fmt: skip


def seed_rows(
    scores: Sequence[Scores], labels: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the open-set EER on devices never seen of every model, one row a test and seed."""
    rows = []
    for one, label in zip(scores, labels, strict=True):
        found: dict[str, dict[str, Any]] = {}
        for name, estimate in one.estimates.items():
            family, *test, model, measure = name.split(".")
            if (family, measure) == ("open", "eer") and test[1] == "unknown":
                found.setdefault(_label(".".join(test)), {})[model] = estimate.value
        rows += [{"test": test, **label, **values} for test, values in found.items()]
    return sorted(rows, key=lambda row: str(row["test"]))


def _rejected(found: Scores, tests: Sequence[str], models: Sequence[str]) -> list[dict[str, Any]]:
    def cell(test: str, model: str) -> str:
        channel, _, session = test.split(".")
        return interval_text(found.estimates.get(f"reject.{channel}.{session}.{model}.auroc"))

    return crossed(tests, models, "known", cell)


# Figures --------------------------------------------------------------------------------------


def _panels(n: int, width: float, height: float) -> tuple[MatplotlibFigure, list[Any]]:
    columns = min(4, n)
    rows = -(-n // columns)
    figure = new_figure(width * columns, height * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid[n:]:
        axes.set_axis_off()
    return figure, grid[:n]


def order_figure(
    estimates: Mapping[str, Estimate], tests: Sequence[str], models: Sequence[str]
) -> MatplotlibFigure:
    """Draw the EER of all models, sorted in every test, with intervals."""
    shown = [t for t in tests if t.split(".")[1] == "unknown"] or list(tests)
    figure, grid = _panels(len(shown), 2.5, 0.9 + 0.24 * len(models))
    for axes, test in zip(grid, shown, strict=True):
        found = {m: estimates[f"open.{test}.{m}.eer"] for m in models}
        order = sorted(found, key=lambda m, found=found: found[m].value, reverse=True)  # type: ignore[misc]
        tidy(axes, "EER", "", test.replace("_", " ").replace(".", "\n"))
        axes.title.set_fontsize(8)
        axes.axvline(0.5, color=GREY, lw=0.8, ls=":")
        for place, model in enumerate(order):
            e, colour = found[model], _colour(models, model)
            if e.low is not None:
                axes.plot([e.low, e.high], [place, place], color=colour, lw=1.4)
            axes.plot([e.value], [place], "o", ms=4, color=colour)
        axes.set_yticks(range(len(order)), order, fontsize=7)
        axes.set_xlim(left=0)
    return figure


def _colour(models: Sequence[str], model: str) -> str:
    return COLOURS[list(models).index(model) % len(COLOURS)]


def roc_figure(found: Scores, tests: Sequence[str], models: Sequence[str]) -> MatplotlibFigure:
    """Draw the ROC of every test, all models in one panel, the first ones with their intervals."""
    figure, grid = _panels(len(tests), 2.5, 2.7)
    for axes, test in zip(grid, tests, strict=True):
        tidy(axes, "false positives", "true positives", test.replace("_", " ").replace(".", "\n"))
        axes.title.set_fontsize(8)
        axes.plot([0, 1], [1, 0], ":", color=GREY, lw=0.8)
        for number, model in enumerate(models):
            colour, x = _colour(models, model), found.roc[test, model]
            axes.plot(
                *x, lw=1.1, color=colour, label=model, ls="-" if number < len(COLOURS) else "--"
            )
            if number < _BANDED:
                at, low, high = found.bands[test, model]
                axes.fill_between(at, low, high, color=colour, alpha=0.12, lw=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.01)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )  # fmt: skip
    return figure


def plane_figure(methods: Mapping[str, Fingerprints], data: xr.Dataset) -> MatplotlibFigure:
    """Draw test bursts by their fingerprints in two dimensions, one panel a method."""
    part, group = (data[k].values.astype(str) for k in ("part", "group"))
    test = (part == "test") & ~data["later"].values
    kind = "unknown" if (test & (group == "unknown")).any() else "known"
    device = data["device"].values.astype(str)
    own = test & (group == kind)
    names = np.unique(device[own])[:_DEVICES]
    rows = np.flatnonzero(own & np.isin(device, names))
    shown = _chosen(methods)
    figure, grid = _panels(len(shown), 2.5, 2.6)
    for axes, name in zip(grid, shown, strict=True):
        place = _plane(np.asarray(methods[name].codes)[rows])
        tidy(axes, title=name)
        axes.set_xticks([])
        axes.set_yticks([])
        for number, one in enumerate(names):
            for unseen, marker in ((False, "o"), (True, "x")):
                chosen = (device[rows] == one) & (data["unseen"].values[rows] == unseen)
                axes.plot(*place[chosen].T, marker, ms=3.5, color=COLOURS[number], alpha=0.7)
    return figure


def _chosen(methods: Mapping[str, Fingerprints]) -> list[str]:
    """Take the methods that are most worth a look, in this order."""
    wide = [name for name, one in methods.items() if np.asarray(one.codes).shape[1] > 1]
    first = [n for n in ("ml_rff", "dr_rff", "awgn_fir", "dr_awgn_fir", "pulses") if n in wide]
    return list(dict.fromkeys([*first, *wide]))[:_CODED]


def _plane(codes: NDArray[np.floating]) -> NDArray[np.float64]:
    unit = codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12)
    centred = unit - unit.mean(0)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T, float)
