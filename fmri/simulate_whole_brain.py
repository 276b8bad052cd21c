r"""Simulated whole brains: parcels of several networks, of which it is known what they say.

The BOLD series of parcel p in network k is

``y_p(t) = g_k sum_e s_e (h * b)(t - o_e - d_p) (z_e w_p) + background_p(t) + motion_p(t) +
drift_p(t) + noise_p(t)``

with the latent ``z_e`` of the item of event e, a unit vector ``w_p``, the strength ``s_e`` of the
event (1 when seen, less when imagined), a delay ``d_p`` and Glover's response h of a boxcar b. The
gain ``g_k`` is what the network is given, ``information`` in the data and the truth of an ablation:
0 in the null network. All networks have the same number of parcels.

Most parcels belong to no network ("none") and say nothing, as much of subcortical grey and white
matter in an atlas of the whole brain. Where nearly all parcels inform, random sets of parcels cost
more than a network that says nothing, and that network lies below their band.

The background is activity of a few sources that no stimulus drives, all over the brain and slow as
the haemodynamic response.
Unlabelled runs hold events of items that are used nowhere else (natural viewing without a record
of what was shown), rest runs the background alone. All runs share weights, delays and patterns of
the background: this is what a network can learn without labels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import InputError

__all__ = ["INFORMATION", "BrainStudy", "BrainTruth", "Run", "simulate_whole_brain"]

Floats = NDArray[np.float64]
Shown = tuple[str, str, NDArray[np.int64]]

INFORMATION = {
    "Vis": 1.0, "Default": 0.7, "DorsAttn": 0.5, "Cont": 0.35, "SalVentAttn": 0.24,
    "Limbic": 0.15, "SomMot": 0.0,
}  # fmt: skip
"""Gains by network, named as in Schaefer's atlas: after the visual network the default one, as
Wang et al. (2024) report; the somatomotor one is the null network."""

T_R, EVENT, TRIAL, FREE = 2.0, 2.0, 10.0, 4.0  # s: FREE from one unlabelled event to the next
TAIL = 6  # volumes behind the last trial
PARCEL_MM = 8.0
N_BACKGROUND, N_MOTION = 8, 6
TEST_REPEATS = 2
FINE = 0.1  # s: grid of the haemodynamic response


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes
    ----------
    series : Dataset
        ``signal (time, parcel)`` as of `fmri.parcel_series`; ``kind`` in the attributes is
        perception, imagery, unlabelled or rest, ``part`` is train, test, or the kind.
    events : DataFrame
        ``onset`` and ``duration`` (s), ``item``, ``category``; without rows where nothing is known.
    confounds : ndarray of shape (time, 6)
        Estimates of the motion.
    """

    series: xr.Dataset
    events: pd.DataFrame
    confounds: NDArray[np.float32]


@dataclass(frozen=True)
class BrainTruth:
    """What the brain is made of.

    Attributes
    ----------
    weights : ndarray of shape (latent, parcel)
        Gain included; 0 where a parcel says nothing.
    delay : ndarray of shape (parcel,)
        s.
    background, motion : ndarray of shape (source, parcel)
    """

    weights: Floats
    delay: Floats
    background: Floats
    motion: Floats


@dataclass(frozen=True)
class BrainStudy:
    """What `simulate_whole_brain` returns.

    Attributes
    ----------
    runs : list of Run
    items : Dataset
        ``target (item, feature)``: of pictures; ``text_target (item, word)``: of their texts;
        ``latent (item, latent)``; ``category (item)``; ``attribute_table (named, attribute)``:
        what is known of categories; ``information (truth)``.
    truth : BrainTruth
    """

    runs: list[Run]
    items: xr.Dataset
    truth: BrainTruth


def simulate_whole_brain(
    networks: Mapping[str, float] | None = None,
    *,
    seen: xr.Dataset | None = None,
    n_parcels: int = 6,
    n_other: int = 118,
    n_latents: int = 8,
    n_features: int = 32,
    n_words: int = 16,
    n_categories: int = 8,
    n_trials: int = 40,
    n_train_runs: int = 12,
    n_test_runs: int = 4,
    n_unlabelled_runs: int = 20,
    n_rest_runs: int = 4,
    n_imagery_runs: int = 2,
    n_prompts: int = 16,
    n_test_repeats: int = TEST_REPEATS,
    strength: float = 4.0,
    imagery: float = 0.5,
    background: float = 0.4,
    noise: float = 1.0,
    motion: float = 1.0,
    drift: float = 1.0,
    delay: float = 0.4,
    category_share: float = 0.5,
    seed: int = 0,
) -> BrainStudy:
    """Simulate the runs of one person.

    Parameters
    ----------
    networks : mapping of str to float, optional
        Gain of every network, not negative; by default `INFORMATION`.
    seen : Dataset, optional
        What is seen in place of items that are drawn: ``latent (item, latent)`` and ``category
        (item)`` by name, those of training runs first, then of test runs, then what is imagined.
        Unlabelled runs show further ones, which are drawn.
    n_parcels : int
        Of every network.
    n_other : int
        Parcels of no network, which say nothing.
    n_latents : int
        Dimensions that parcels are driven by.
    n_features, n_words : int
        Of the embeddings of pictures and texts: unit vectors, linear in the latents, with a small
        part of their own.
    n_categories : int
    n_trials : int
        Events of a labelled run, one every 10 s.
    n_train_runs, n_test_runs, n_unlabelled_runs, n_rest_runs, n_imagery_runs : int
    n_prompts : int
        Items that are imagined; they are seen in no run.
    n_test_repeats : int
        How often a test item is shown; training items are shown once.
    strength : float
        Peak of the response of a parcel of gain 1 to a latent of one standard deviation.
    imagery : float
        Strength of what is imagined, as a share of what is seen; 0 is a null.
    background, noise, motion, drift : float
        Standard deviations of these parts.
    delay : float
        s, standard deviation of parcels' delays.
    category_share : float
        Share of the latents' variance that is the category's, in [0, 1].
    seed : int

    Returns
    -------
    BrainStudy

    Raises
    ------
    InputError
        Where a number is out of its range.

    Examples
    --------
    >>> study = simulate_whole_brain(n_trials=8, n_train_runs=2, n_test_runs=1, n_other=8,
    ...                              n_unlabelled_runs=1, n_rest_runs=1, n_imagery_runs=1,
    ...                              n_prompts=4)
    >>> [run.series.attrs["kind"] for run in study.runs]
    ['perception', 'perception', 'perception', 'imagery', 'unlabelled', 'rest']
    >>> study.runs[0].series.sizes["parcel"], len(study.runs[0].events)
    (50, 8)
    """
    gains = dict(INFORMATION if networks is None else networks)
    if seen is not None:
        n_latents, n_categories = seen.sizes["latent"], len(np.unique(seen["category"]))
    settings = {k: v for k, v in locals().items() if k not in ("networks", "gains", "seen")}
    _check(settings, gains)
    rng = np.random.default_rng(seed)
    network = np.array([*np.repeat(list(gains), n_parcels), *["none"] * n_other])
    truth = _brain(gains, n_parcels, n_other, n_latents, delay, rng)
    plan, n_items = _plan(settings, rng)
    items = _items(n_items, settings, gains, rng, seen)
    cells = grid_cells(len(network))
    amounts = {"perception": strength, "imagery": strength * imagery, "unlabelled": strength,
               "rest": 0.0}  # fmt: skip
    runs = []
    for number, (part, kind, shown) in enumerate(plan):
        onsets = _onsets(kind, len(shown), rng)
        latent = items["latent"].values[shown]
        values, confounds = _measure(truth, latent, onsets, amounts[kind], settings, rng)
        known = shown if kind in ("perception", "imagery") else shown[:0]
        series = _series(values, network, cells, number, kind, part)
        runs.append(Run(series, _events(items, known, onsets), confounds))
    return BrainStudy(runs, items, truth)


# The brain ------------------------------------------------------------------------------------


def _brain(
    gains: dict[str, float], n: int, n_other: int, n_latents: int, delay: float,
    rng: np.random.Generator,
) -> BrainTruth:  # fmt: skip
    """Draw patterns: in each network as different from one another as can be."""
    blocks = [np.asarray(gain * _spread(n_latents, n, rng)) for gain in gains.values()]
    weights = np.concatenate([*blocks, np.zeros((n_latents, n_other))], 1)
    total = weights.shape[1]
    # Neighbours (of one network, or of as many parcels of none) load alike on the background.
    group = np.arange(total) // n
    common = rng.standard_normal((N_BACKGROUND, group[-1] + 1))[:, group]
    patterns = np.sqrt(0.7) * common + np.sqrt(0.3) * rng.standard_normal((N_BACKGROUND, total))
    patterns /= np.linalg.norm(patterns, axis=0)
    movement = rng.standard_normal((N_MOTION, total)) / np.sqrt(N_MOTION)
    delays = np.asarray(delay * rng.standard_normal(total))
    return BrainTruth(weights, delays, np.asarray(patterns), np.asarray(movement))


def _spread(n_latents: int, n: int, rng: np.random.Generator) -> Floats:
    """Return unit columns, orthogonal in runs of as many as there are latents."""
    parts = [np.linalg.qr(rng.standard_normal((n_latents, n_latents)))[0]
             for _ in range(-(-n // n_latents))]  # fmt: skip
    return np.asarray(np.concatenate(parts, 1)[:, :n], np.float64)


def grid_cells(n: int) -> NDArray[np.int64]:
    """Fill a cube of cells from the back to the front, so that networks are slabs.

    Returns
    -------
    ndarray of int, shape (n, 3)
    """
    side = int(np.ceil(round(n ** (1 / 3), 9)))
    cells = np.stack(np.unravel_index(np.arange(side**3), (side,) * 3), 1)[:n]
    return cells[:, [1, 0, 2]]


def _items(
    n: int, settings: dict[str, Any], gains: dict[str, float], rng: np.random.Generator,
    seen: xr.Dataset | None,
) -> xr.Dataset:  # fmt: skip
    """Draw latents by category, or take those given first, and make two views of them."""
    kinds, d = settings["n_categories"], settings["n_latents"]
    share = settings["category_share"]
    centres = rng.standard_normal((kinds, d))
    code = np.arange(n) % kinds
    latent = np.sqrt(share) * centres[code] + np.sqrt(1 - share) * rng.standard_normal((n, d))
    categories = np.array([f"category-{k + 1}" for k in range(kinds)])
    names = np.array([f"item-{k:04d}" for k in range(n)])
    if seen is not None:
        categories, code, names = _given(seen, code, names)
        latent[: seen.sizes["item"]] = seen["latent"].values
        centres = np.stack([latent[code == k].mean(0) for k in range(kinds)])
    views = {}
    for name, size in (("target", settings["n_features"]), ("text_target", settings["n_words"])):
        view = latent @ rng.standard_normal((d, size)) / np.sqrt(d)
        # A text says less of the single picture than the picture does.
        own = 0.1 if name == "target" else 0.5
        view = view + own * rng.standard_normal(view.shape)
        views[name] = view / np.linalg.norm(view, axis=1, keepdims=True)
    return xr.Dataset(
        {
            "target": (("item", "feature"), views["target"].astype(np.float32)),
            "text_target": (("item", "word"), views["text_target"].astype(np.float32)),
            "latent": (("item", "latent"), latent),
            "attribute_table": (("named", "attribute"), centres.astype(np.float32)),
            "information": ("truth", np.array(list(gains.values()), float)),
        },
        {"item": names, "category": ("item", categories[code]), "named": categories,
         "truth": list(gains)},
    )  # fmt: skip


def _given(
    seen: xr.Dataset, code: NDArray[np.int64], names: NDArray[np.str_]
) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.str_]]:
    """Put categories and names of given items in front of those that are drawn."""
    n = seen.sizes["item"]
    if n > len(names):
        raise InputError(f"{n} items are given and {len(names)} are shown; give no more")
    known, own = np.unique(seen["category"].values.astype(str), return_inverse=True)
    own_names = seen["item"].values.astype(str)
    return known, np.concatenate([own, code[n:]]), np.concatenate([own_names, names[n:]])


# Runs -----------------------------------------------------------------------------------------


def _plan(settings: dict[str, Any], rng: np.random.Generator) -> tuple[list[Shown], int]:
    """Say what each run shows, ``(part, kind, items)``, and how many items there are."""
    n, taken = settings["n_trials"], 0
    out: list[Shown] = []
    free = round(n * TRIAL / FREE)
    for part, kind, n_runs, size, repeats in (
        ("train", "perception", settings["n_train_runs"], n, 1),
        ("test", "perception", settings["n_test_runs"], n, settings["n_test_repeats"]),
        ("imagery", "imagery", settings["n_imagery_runs"], n, 0),
        ("unlabelled", "unlabelled", settings["n_unlabelled_runs"], free, 1),
        ("rest", "rest", settings["n_rest_runs"], 0, 1),
    ):
        total = n_runs * size
        own = min(settings["n_prompts"], total) if kind == "imagery" else -(-total // repeats)
        # A repeat comes after all others have been shown, in a new order.
        rounds = [taken + rng.permutation(own) for _ in range(-(-total // max(own, 1)))]
        every = np.concatenate([*rounds, np.zeros(0, np.int64)])[:total]
        out += [(part, kind, every[k * size : (k + 1) * size]) for k in range(n_runs)]
        taken += own
    return out, taken


def _onsets(kind: str, n: int, rng: np.random.Generator) -> Floats:
    """Labelled events come every 10 s, on a volume; others whenever."""
    if kind == "unlabelled":
        return np.asarray(FREE * (np.arange(n) + rng.random(n)), np.float64)
    return TRIAL * np.arange(n, dtype=np.float64)


def _measure(
    truth: BrainTruth, latent: Floats, onsets: Floats, amount: float, settings: dict[str, Any],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Make the series ``(time, parcel)`` of a run, and the estimates of its motion."""
    n = round(settings["n_trials"] * TRIAL / T_R) + TAIL
    response, slope = _design(n, onsets)
    drive = latent @ truth.weights
    # A delay to first order: h(t - d) = h(t) - d h'(t).
    signal = amount * (response @ drive - slope @ (drive * truth.delay))
    slow = _slow(n, len(truth.background), rng)
    signal += settings["background"] * (slow @ truth.background)
    moved = np.cumsum(rng.standard_normal((n, N_MOTION)), 0)
    moved += 8 * (rng.random((n, 1)) < 0.02) * rng.standard_normal((n, N_MOTION))
    moved = (moved - moved.mean(0)) / moved.std(0)
    signal += settings["motion"] * (moved @ truth.motion)
    ramp = np.linspace(-1, 1, n)
    shapes = np.stack([ramp, ramp**2 - 1 / 3], 1) * np.sqrt(3)
    signal += settings["drift"] * (shapes @ rng.standard_normal((2, signal.shape[1]))) / np.sqrt(2)
    signal += settings["noise"] * rng.standard_normal(signal.shape)
    return signal.astype(np.float32), moved.astype(np.float32)


def _design(n: int, onsets: Floats) -> tuple[Floats, Floats]:
    """Sample the response to each event and its slope, ``(time, event)``; its peak is 1."""
    fine, course = _response()
    since = np.arange(n)[:, None] * T_R - onsets
    slope = np.gradient(course, FINE)
    found = [np.interp(since, fine, one, left=0.0, right=0.0) for one in (course, slope)]
    return found[0], found[1]


@functools.cache
def _response() -> tuple[Floats, Floats]:
    """Return Glover's response to an event on a fine grid of times in s."""
    from nilearn.glm.first_level import glover_hrf

    kernel = glover_hrf(FINE, oversampling=1, time_length=32.0)
    course = np.convolve(kernel, np.ones(round(EVENT / FINE)))
    return FINE * np.arange(len(course), dtype=np.float64), np.asarray(
        course / course.max(), np.float64
    )


def _slow(n: int, count: int, rng: np.random.Generator) -> Floats:
    """Draw activity as slow as the response, of variance 1, ``(time, source)``."""
    from scipy.signal import fftconvolve

    fine, course = _response()
    kernel = np.interp(np.arange(0, fine[-1], T_R), fine, course)
    drawn = rng.standard_normal((n + len(kernel), count))
    found = fftconvolve(drawn, kernel[:, None], axes=0)[len(kernel) : len(kernel) + n]
    return np.asarray(found / np.linalg.norm(kernel))


def _series(
    values: NDArray[np.float32], network: NDArray[np.str_], cells: NDArray[np.int64], number: int,
    kind: str, part: str,
) -> xr.Dataset:  # fmt: skip
    names = [f"{name}_{k + 1:03d}" for k, name in enumerate(network.tolist())]
    places = (cells - (cells.max(0) / 2)) * PARCEL_MM
    coords: dict[str, Any] = {
        "time": np.arange(len(values)) * T_R, "parcel": np.array(names),
        "network": ("parcel", network), "value": ("parcel", np.arange(1, len(names) + 1)),
        **{axis: ("parcel", places[:, k].astype(np.float32)) for k, axis in enumerate("xyz")},
    }  # fmt: skip
    attrs = {
        "kind": kind, "part": part, "units": "a.u.", "t_r": T_R, "subject": "sub-01",
        "run": f"run-{number + 1:02d}", "missing_parcels": [],
        "source": f"simulated run {number + 1}",
    }  # fmt: skip
    return xr.Dataset({"signal": (("time", "parcel"), values)}, coords, attrs)


def _events(items: xr.Dataset, shown: NDArray[np.int64], onsets: Floats) -> pd.DataFrame:
    return pd.DataFrame(
        {"onset": onsets[: len(shown)], "duration": EVENT,
         "item": items["item"].values[shown], "category": items["category"].values[shown]}
    )  # fmt: skip


# Checks ---------------------------------------------------------------------------------------


_RANGES = {
    "n_parcels": (1, 10_000), "n_other": (0, 100_000), "n_latents": (2, 1000),
    "n_features": (2, 10_000), "n_words": (2, 10_000), "n_categories": (2, 1000),
    "n_trials": (2, 10_000), "n_train_runs": (0, 1000), "n_test_runs": (0, 1000),
    "n_unlabelled_runs": (0, 10_000), "n_rest_runs": (0, 10_000), "n_imagery_runs": (0, 1000),
    "n_prompts": (2, 10_000), "n_test_repeats": (1, 1000), "strength": (0.0, np.inf),
    "imagery": (0.0, np.inf), "background": (0.0, np.inf), "noise": (1e-9, np.inf),
    "motion": (0.0, np.inf), "drift": (0.0, np.inf), "delay": (0.0, 2.0),
    "category_share": (0.0, 1.0),
}  # fmt: skip


def _check(given: dict[str, Any], gains: dict[str, float]) -> None:
    for name, (low, high) in _RANGES.items():
        if not low <= given[name] <= high:
            raise InputError(f"{name} is {given[name]}; expected {low:g} to {high:g}")
    bad = [name for name, gain in gains.items() if not 0 <= gain < np.inf or name in ("", "none")]
    if bad or len(gains) < 2:
        raise InputError(
            f"networks is {gains}; expected two or more names with gains that are not negative "
            "('none' is the word for parcels of no network)"
        )
    if not sum(given[f"n_{kind}_runs"] for kind in ("train", "test", "unlabelled", "rest")):
        raise InputError("there is no run to simulate: all numbers of runs are 0")
