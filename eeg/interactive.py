"""Figures of a report that one can move: turn a latent, or choose labels, and watch the ERP.

Everything is decoded beforehand and travels with the figure; nothing is computed by a server, and
no value between two decoded ones is made up. The script is ``explorer.js``, in a frame that can
reach neither the report nor the network.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.grid import Grid
from eeg.views import view as shown
from eeg.views import views
from neuro.errors import InputError
from neuro.report import Block, Html, Text, Warning

if TYPE_CHECKING:
    from eeg.beta_vae import BetaVAE
    from eeg.scan import SCAN

MAX_LATENTS = 10
MAX_STATES = 81  # sets of labels
HEIGHT = 600  # pixels, and more where there are many controls
ROW = 64
REACH = 2.0  # standard deviations of the prior to either side
BAND = (10, 90)  # percentiles of the samples

__all__ = ["explorer_blocks", "label_explorer", "latent_explorer"]


# -- latents -----------------------------------------------------------------------------------


def latent_explorer(
    encoder: BetaVAE,
    names: Mapping[int, str] | None = None,
    sensors: Sequence[str] | None = None,
    n_values: int = 9,
) -> Html:
    """Make a figure in which one drags a latent and watches the ERP.

    One latent moves at a time while the others stay at the prior's mean: only so is every curve
    what the decoder gives. The kept latents are offered, the most informative (KL) first, at
    most ten.

    Parameters
    ----------
    encoder : BetaVAE
        Fitted.
    names : mapping of int to str, optional
        What a latent stands for, for instance ``{3: "depressed"}``.
    sensors : sequence of str, optional
        Sensors to offer; by default all, as far as they fit in 1 MB.
    n_values : int
        Values of each latent from -2 to 2 standard deviations of the prior (of the codes, for an
        autoencoder, which has no prior); odd, so that the reference is one of them.

    Returns
    -------
    Html
        The figure; signals are rounded to 1/65534 of each sensor's range.

    Raises
    ------
    InputError
        Where `n_values` is even or below 3, a sensor is unknown, or no latent is kept.
    DataError
        Where the decoder gives values that are not finite.
    """
    if n_values < 3 or n_values % 2 == 0:
        raise InputError(f"n_values is {n_values}; expected an odd number of 3 or more")
    latents = _most_informative(encoder)
    if not latents:
        raise InputError("no latent is kept (KL above 0.01 nats), so there is nothing to turn")
    values = np.linspace(-REACH, REACH, n_values)
    turned = [encoder.traverse(i, values * _spread_of(encoder, i))[0] for i in latents]
    waves = np.concatenate([one.values[:, None] for one in turned])
    grid = Grid.of(encoder, turned[0], waves, sensors)
    sliders = [_slider(encoder, latent, (names or {}).get(latent)) for latent in latents]
    return _figure(
        "latents",
        grid,
        rows=len(sliders),
        reference=n_values // 2,
        sliders=sliders,
        values=[round(float(v), 6) for v in values],
        unit="SD",
        note=_latent_note(encoder, len(latents)) + grid.note,
    )


def explorer_blocks(
    encoder: BetaVAE, names: Mapping[int, str] | None = None, sensors: Sequence[str] | None = None
) -> list[Block]:
    """Return `latent_explorer` with its introduction, or say why there is none."""
    if not _most_informative(encoder):
        return [Warning("No latent is kept, so there is nothing to turn.")]
    return [
        Text("Turn a latent and watch the event-related potential that it stands for."),
        latent_explorer(encoder, names, sensors),
    ]


def _most_informative(encoder: BetaVAE) -> list[int]:
    order = np.argsort(-encoder.kl_, kind="stable")
    return [int(latent) for latent in order if encoder.kept_[latent]][:MAX_LATENTS]


def _spread_of(encoder: BetaVAE, latent: int) -> float:
    """Return one step of a slider's unit: for an autoencoder the root mean square of its codes."""
    return 1.0 if encoder.beta else float(np.sqrt(2 * encoder.kl_[latent]))


def _slider(encoder: BetaVAE, latent: int, name: str | None) -> dict[str, str]:
    detail = f"KL {encoder.kl_[latent]:.2f} nats, {encoder.types_[latent]}"
    return {"label": f"latent {latent}", "name": name or "", "detail": detail}


def _latent_note(encoder: BetaVAE, n_shown: int) -> str:
    n_kept = int(encoder.kept_.sum())
    shown = f"The {n_shown} most informative of {n_kept} kept latents" if n_kept > n_shown else (
        f"All {n_kept} kept latents" if n_kept > 1 else "The one kept latent"
    )  # fmt: skip
    scale = f"in standard deviations of the {'prior' if encoder.beta else 'training codes'}"
    return (
        f"{shown}, most informative first, {scale}. One latent moves at a time and the others "
        "return to the reference (0), so that every curve is exactly what the decoder gives; "
        "the effects of several latents do not simply add up. "
    )


# -- labels ------------------------------------------------------------------------------------


def label_explorer(
    scan: SCAN,
    labels: Sequence[str] | None = None,
    sensors: Sequence[str] | None = None,
    n_samples: int = 64,
    random_state: int = 0,
    view: str | None = None,
) -> Html:
    """Make a figure in which one chooses labels and sees the ERP that they describe.

    Parameters
    ----------
    scan : SCAN
        Fitted.
    labels : sequence of str, optional
        Labels to offer; all by default.
    sensors : sequence of str, optional
        As in `latent_explorer`.
    n_samples : int
        Samples behind the band, which spans 10 % to 90 % of them at every time.
    random_state : int
        Of the samples.
    view : str, optional
        Where conditions are contrasted, what to show: a condition or a difference of two, one of
        `eeg.views.views`; by default the first condition.

    Returns
    -------
    Html
        So many labels can be combined as give at most 81 sets.

    Raises
    ------
    InputError
        Where a label or sensor is unknown.
    """
    groups = [g for g in scan.symbols_.groups if labels is None or g.label in labels]
    unknown = sorted(set(labels or ()) - set(scan.symbols_.labels))
    if unknown or not groups:
        known = ", ".join(scan.symbols_.labels)
        raise InputError(f"there is no label {', '.join(unknown)}; the labels are {known}")
    depth = _depth([len(g.values) for g in groups])
    states = _states([len(g.values) for g in groups], depth)
    layers = []
    view = views(scan)[0] if view is None else view
    for state in states:
        asked = {groups[g].label: groups[g].values[v] for g, v in state}
        found = scan.imagine(asked, n=n_samples, random_state=random_state)
        erp, samples = (shown(found[part], view).values for part in ("erp", "signal"))
        layers.append(np.stack([erp, *np.percentile(samples, BAND, axis=0)]))
    decoded = scan.encoder_.traverse(0, [0.0])  # for its coordinates
    grid = Grid.of(scan.encoder_, decoded, np.stack(layers), sensors)
    return _figure(
        "labels",
        grid,
        rows=len(groups),
        reference=0,
        groups=[{"label": g.label, "values": list(g.values)} for g in groups],
        states={_key(state): i for i, state in enumerate(states)},
        depth=depth,
        note=_label_note(depth, len(groups), n_samples) + grid.note,
    )


_State = tuple[tuple[int, int], ...]  # number of the label, number of its value


def _states(sizes: Sequence[int], depth: int) -> list[_State]:
    """List the sets of at most `depth` labels, the empty one first.

    >>> _states([2, 1], 1)
    [(), ((0, 0),), ((0, 1),), ((1, 0),)]
    """
    return [
        tuple(zip(chosen, values, strict=True))
        for n in range(depth + 1)
        for chosen in itertools.combinations(range(len(sizes)), n)
        for values in itertools.product(*(range(sizes[g]) for g in chosen))
    ]


def _depth(sizes: Sequence[int]) -> int:
    """Return how many labels may be combined.

    >>> _depth([2, 2, 2]), _depth([3] * 8), _depth([90])
    (3, 1, 1)
    """
    fits = (d for d in range(len(sizes), 1, -1) if _n_states(sizes, d) <= MAX_STATES)
    return next(fits, 1)


def _n_states(sizes: Sequence[int], depth: int) -> int:
    choices = (itertools.combinations(sizes, n) for n in range(depth + 1))
    return sum(math.prod(chosen) for sets in choices for chosen in sets)


def _key(state: _State) -> str:
    return ",".join(f"{group}:{value}" for group, value in state)


def _label_note(depth: int, n_groups: int, n_samples: int) -> str:
    some = f"Up to {depth} labels can be combined. " if depth < n_groups else ""
    return (
        f"{some}The curve is decoded from the centre of what the labels describe; the band spans "
        f"{BAND[0]} % to {BAND[1]} % of {n_samples} samples that vary in what the labels leave "
        "open. The reference is decoded without any label. "
    )


# -- the figure --------------------------------------------------------------------------------


def _figure(
    kind: str, grid: Grid, *, reference: int, note: str, rows: int, **controls: Any
) -> Html:
    data = {
        "kind": kind,
        "reference": reference,
        "sensors": grid.names,
        "places": grid.places,
        "times": grid.times,
        "axis": grid.axis,
        "shape": grid.shape,
        "scale": grid.scale,
        "note": f"{note}Positive is up; µV.",
        **controls,
        "signals": grid.text,
    }
    # The script writes every text as text; here only the end of the script element matters.
    stored = json.dumps(data).replace("<", "\\u003c")
    style, script = (_beside(f"explorer.{kind}") for kind in ("css", "js"))
    html = (
        f'<style>{style}</style><main id="explorer"><noscript>This figure needs JavaScript.'
        f'</noscript></main><script type="application/json" id="data">{stored}</script>'
        f"<script>{script}</script>"
    )
    return Html(html, height=max(HEIGHT, 120 + ROW * rows))


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
