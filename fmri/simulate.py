"""Simulated brains that look at real small pictures, with a noise ceiling that is known.

``beta = gain(session, voxel) * (response(stimulus, voxel) + noise) + offset(session, voxel)``. The
noise-free responses are those of `fmri.responses`: linear in the target space, with a nonlinear
part, or of Gabor filters and pixels, so that the target space is not the truth. The noise has a
part that voxels share. Per-session z-scoring takes gains and offsets off again; what is left has
the single-trial noise ceiling ``1 / (1 + var(noise))`` of every voxel, kept as ``true_ceiling``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.images import digit_images, pick
from fmri.observer import Brain
from fmri.responses import clean_responses, random_tokens
from fmri.targets import Provider, compute_targets
from fmri.voxels import voxel_hash
from neuro.errors import DataError, InputError

__all__ = ["Brain", "RandomTokens", "Simulation", "simulate"]

Floats = NDArray[np.float64]

TRIAL_SECONDS, VOXEL_MM, PER_RUN = 4.0, 2.0, 60


@dataclass(frozen=True)
class Simulation:
    """What `simulate` returns.

    Attributes
    ----------
    betas : list of Dataset
        One for each subject, ``signal (trial, voxel)``.
    images, targets : Dataset
        Keyed by stimulus.
    train, test : ndarray of str
        Stimuli of the two parts; those of `test` are shared by all subjects.
    brains : list of Brain
        The truth.
    """

    betas: list[xr.Dataset]
    images: xr.Dataset
    targets: xr.Dataset
    train: NDArray[np.str_]
    test: NDArray[np.str_]
    brains: list[Brain]


class RandomTokens(Provider):
    """The default target space of `simulate`, for further pictures of a gallery too.

    Parameters
    ----------
    n_tokens, n_features : int
    seed : int
        Draws the weights.

    Examples
    --------
    >>> from fmri.images import digit_images
    >>> RandomTokens(4, 16).encode(digit_images(digits=[6])).shape
    (181, 4, 16)
    """

    kind: ClassVar[str] = "random-tokens"

    def __init__(self, n_tokens: int = 4, n_features: int = 16, seed: int = 0) -> None:
        self.n_tokens, self.n_features, self.seed = n_tokens, n_features, seed

    def fingerprint(self) -> dict[str, Any]:
        """Return shape and seed of the network."""
        return {
            "provider": self.kind,
            "arch": f"windows-{self.n_tokens}x{self.n_features}",
            "weights_hash": f"seed-{self.seed}",
            "layer": "tanh",
            "preprocessing": None,
        }

    def encode(self, images: xr.Dataset) -> Floats:
        """Pass a batch of images through the network."""
        return random_tokens(images["signal"].values, self.n_tokens, self.n_features, self.seed)


def simulate(
    images: xr.Dataset | None = None,
    targets: xr.Dataset | None = None,
    *,
    truth: str = "linear",
    n_subjects: int = 1,
    n_voxels: int | Sequence[int] = 400,
    n_train: int = 600,
    n_test: int = 100,
    test: ArrayLike | None = None,
    n_repeats: int = 1,
    n_test_repeats: int = 3,
    n_sessions: int = 4,
    ceiling: float = 0.15,
    dead: float = 0.1,
    nonlinear: float = 0.8,
    n_components: int = 16,
    n_tokens: int = 4,
    n_features: int = 16,
    session_gain: float = 0.2,
    session_offset: float = 0.5,
    shared_noise: float = 0.2,
    shared_training: bool = True,
    seed: int = 0,
) -> Simulation:
    """Simulate subjects that look at pictures.

    Parameters
    ----------
    images : Dataset, optional
        ``signal (trial, channel, row, column)``; by default scikit-learn's handwritten digits.
    targets : Dataset, optional
        The target space, keyed by stimulus; by default that of a fixed random network.
    truth : {"linear", "nonlinear", "gabor"}
        What drives the voxels; see `fmri.responses`.
    n_subjects : int
    n_voxels : int or sequence of int
        Of each subject.
    n_train, n_test : int
        Stimuli of a subject; the test ones are the same for all.
    test : array-like of str, optional
        The test stimuli by name, in place of `n_test` drawn ones.
    n_repeats, n_test_repeats : int
        Trials of a stimulus.
    n_sessions : int
    ceiling : float
        Mean single-trial noise ceiling of voxels with signal, a share in (0, 1).
    dead : float
        Share of voxels without signal.
    nonlinear, n_components
        See `fmri.responses.clean_responses`.
    n_tokens, n_features : int
        Of the default targets.
    session_gain : float
        Standard deviation of the log gain of a session and voxel.
    session_offset : float
        Standard deviation of the offset of a session and voxel.
    shared_noise : float
        Share of the noise's variance that voxels have in common, in [0, 1).
    shared_training : bool
        All subjects see the same training stimuli; else each sees its own, as in NSD.
    seed : int

    Returns
    -------
    Simulation

    Raises
    ------
    InputError
        Where a number is out of its range, or there are too few pictures.
    DataError
        Where a picture has no target.

    Examples
    --------
    >>> study = simulate(n_train=40, n_test=10, n_voxels=30)
    >>> dict(study.betas[0].sizes), len(study.test)
    ({'trial': 70, 'voxel': 30}, 10)
    """
    n_test = n_test if test is None else len(np.asarray(test))
    voxels = _voxel_counts(n_voxels, n_subjects)
    _check(locals())
    images = digit_images() if images is None else images
    if targets is None:
        provider = RandomTokens(n_tokens, n_features, seed)
        targets = compute_targets(images, provider, batch_size=4096, dtype="float32")
    rng = np.random.default_rng(seed)
    n_own = 1 if shared_training else n_subjects
    names = images["stimulus"].values.astype(str)
    train, test = _split(names, n_train, n_own, n_test, test, rng)
    kept = np.concatenate([test, *train])
    images, targets = pick(images, kept), pick(targets, kept, what="the targets")
    betas, brains = [], []
    for subject, count in enumerate(voxels):
        own = np.random.default_rng([seed, subject])
        responses = clean_responses(
            images["signal"].values, targets["signal"].values, count,
            truth=truth, nonlinear=nonlinear, n_components=n_components, rng=own,
        )  # fmt: skip
        brain = _brain(kept, responses, ceiling, dead, shared_noise, own)
        table = _trials(train[subject % n_own], test, n_repeats, n_test_repeats, n_sessions, own)
        signal = _measure(brain, table, session_gain, session_offset, own)
        betas.append(_dataset(signal, table, brain, f"sub-{subject + 1:02d}", truth, seed))
        brains.append(brain)
    return Simulation(betas, images, targets, np.concatenate(train), test, brains)


# Parts --------------------------------------------------------------------------------------


def _split(
    stimuli: NDArray[np.str_],
    n_train: int,
    n_own: int,
    n_test: int,
    test: ArrayLike | None,
    rng: np.random.Generator,
) -> tuple[list[NDArray[np.str_]], NDArray[np.str_]]:
    needed = n_test + n_own * n_train
    if needed > len(stimuli):
        raise InputError(
            f"{n_test} test and {n_own} x {n_train} training stimuli are asked for, but there are "
            f"{len(stimuli)} pictures: lower n_train or n_test, or set shared_training=True"
        )
    order = stimuli[rng.permutation(len(stimuli))]
    if test is not None:
        chosen = np.isin(order, np.asarray(test).astype(str))
        if chosen.sum() != n_test:
            raise DataError("test names a stimulus twice, or one that has no picture")
        order = np.concatenate([order[chosen], order[~chosen]])
    train = [order[n_test + i * n_train : n_test + (i + 1) * n_train] for i in range(n_own)]
    return train, order[:n_test]


# Voxels and trials ----------------------------------------------------------------------------


def _brain(
    stimuli: NDArray[np.str_],
    responses: Floats,
    ceiling: float,
    dead: float,
    shared: float,
    rng: np.random.Generator,
) -> Brain:
    """Draw the noise of every voxel so that the mean ceiling of live voxels is that asked for."""
    n = responses.shape[1]
    live = rng.permutation(n) >= round(dead * n)
    share = np.clip(rng.beta(6 * ceiling, 6 * (1 - ceiling), n), 0.003, 0.98)
    noise_sd = np.where(live, np.sqrt((1 - share) / share), 1.0)
    factors = rng.standard_normal((n, 3))
    factors /= np.linalg.norm(factors, axis=1, keepdims=True)
    loadings = np.sqrt(shared) * noise_sd[:, None] * factors
    return Brain(stimuli, responses * live, noise_sd, loadings)


def _trials(
    train: NDArray[np.str_],
    test: NDArray[np.str_],
    n_repeats: int,
    n_test_repeats: int,
    n_sessions: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """Lay the trials out over sessions and runs, in random order."""
    shown = np.concatenate([np.repeat(train, n_repeats), np.repeat(test, n_test_repeats)])
    shown = shown[rng.permutation(len(shown))]
    session = np.arange(len(shown)) * n_sessions // len(shown)
    within = np.arange(len(shown)) - np.searchsorted(session, session)
    seen: dict[str, int] = {}
    repeat = np.empty(len(shown), dtype=np.int64)
    for trial, name in enumerate(shown.tolist()):
        repeat[trial] = seen.get(name, 0)
        seen[name] = repeat[trial] + 1
    return {
        "stimulus": shown,
        "session_number": session,
        "session": np.char.mod("ses-%02d", session + 1),
        "run": np.char.mod("run-%02d", within // PER_RUN + 1),
        "repeat": repeat,
        "onset": (within % PER_RUN) * TRIAL_SECONDS,
    }


def _measure(
    brain: Brain,
    table: dict[str, NDArray[Any]],
    session_gain: float,
    session_offset: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    place = {name: row for row, name in enumerate(brain.stimuli.tolist())}
    rows = [place[name] for name in table["stimulus"].tolist()]
    n, n_voxels = len(rows), len(brain.noise_sd)
    own = np.sqrt(np.maximum(brain.noise_sd**2 - np.square(brain.loadings).sum(1), 0))
    signal = brain.responses[rows] + own * rng.standard_normal((n, n_voxels))
    signal += rng.standard_normal((n, brain.loadings.shape[1])) @ brain.loadings.T
    n_sessions = int(table["session_number"].max()) + 1
    gain = np.exp(session_gain * rng.standard_normal((n_sessions, n_voxels)))
    offset = session_offset * rng.standard_normal((n_sessions, n_voxels))
    session = table["session_number"]
    return (gain[session] * signal + offset[session]).astype(np.float32)


def _dataset(
    signal: NDArray[np.float32],
    table: dict[str, NDArray[Any]],
    brain: Brain,
    subject: str,
    truth: str,
    seed: int,
) -> xr.Dataset:
    shape, ijk, affine = _places(signal.shape[1])
    coords: dict[str, Any] = {name: ("voxel", ijk[:, axis]) for axis, name in enumerate("ijk")}
    coords["true_ceiling"] = ("voxel", brain.noise_ceiling())
    coords["subject"] = ("trial", np.full(len(signal), subject))
    coords["recording"] = (
        "trial",
        np.char.add(np.char.add(f"{subject}_", table["session"]), "_betas"),
    )
    for name in ("session", "run", "stimulus", "repeat", "onset"):
        coords[name] = ("trial", table[name])
    attrs = {
        "kind": "fmri",
        "units": "a.u.",
        "affine": json.dumps(affine.tolist()),
        "shape": json.dumps(list(shape)),
        "mask_hash": voxel_hash(ijk, shape, affine),
        "preprocessing": json.dumps([]),
        "labels": [],
        "item": "recording",
        "simulated": json.dumps({"truth": truth, "seed": seed}),
    }
    return xr.Dataset({"signal": (("trial", "voxel"), signal)}, coords, attrs)


def _places(n_voxels: int) -> tuple[tuple[int, int, int], NDArray[np.int64], Floats]:
    """Put voxels into a ball inside a cube, in the order of a mask."""
    side = int(np.ceil((6 * n_voxels / np.pi) ** (1 / 3))) + 3
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    distance = np.square(cells - (side - 1) / 2).sum(1)
    ijk = cells[np.sort(np.argsort(distance, kind="stable")[:n_voxels])]
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (side - 1) / 2
    return (side, side, side), ijk, affine


# Checks ---------------------------------------------------------------------------------------


def _voxel_counts(n_voxels: int | Sequence[int], n_subjects: int) -> list[int]:
    counts = [n_voxels] * n_subjects if isinstance(n_voxels, int) else [int(n) for n in n_voxels]
    if len(counts) != n_subjects or n_subjects < 1 or min(counts) < 1:
        raise InputError(
            f"n_voxels is {n_voxels} for {n_subjects} subjects; give a positive number, or one "
            "for each subject"
        )
    return counts


_RANGES = {
    "ceiling": (1e-6, 1 - 1e-6), "dead": (0.0, 0.99), "shared_noise": (0.0, 0.99),
    "session_gain": (0.0, np.inf), "session_offset": (0.0, np.inf), "n_train": (1, np.inf),
    "n_test": (1, np.inf), "n_repeats": (1, np.inf), "n_test_repeats": (1, np.inf),
    "n_sessions": (1, np.inf), "n_components": (2, np.inf), "n_tokens": (1, np.inf),
    "n_features": (1, np.inf),
}  # fmt: skip


def _check(given: dict[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        if not low <= given[name] <= high:
            raise InputError(f"{name} is {given[name]}; expected {low:g} to {high:g}")
