"""What MindEye must show on simulated subjects whose truth is known; intervals are over pictures.

The targets are taken relative to the training pictures' mean, which spares the cosine what all
pictures share: for a ridge regression this is the harder baseline. Everything was settled on
subjects of seeds 0 to 9 and 100 to 112; those below were looked at once. ``-m slow -s`` prints the
figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

from fmri.baselines import TunedRidge
from fmri.evaluate import DIRECTIONS, compare, cosine_to_truth, matched, retrieval_scores
from fmri.mindeye import MindEye, average_repeats
from fmri.parts import trials_of
from fmri.sessions import standardize_sessions
from fmri.simulate import simulate
from neuro.metrics.retrieval import compare_rows
from neuro.validation import Estimate

pytest.importorskip("himalaya")
pytest.importorskip("diffusers")

FRESH = (120, 121, 122)
FULL = {"n_train": 800, "n_test": 600}


@dataclass(frozen=True)
class Study:
    """Training and test trials of every subject, and centred targets."""

    train: list[xr.Dataset]
    test: list[xr.Dataset]
    targets: xr.Dataset


def study(truth: str, seed: int, share: int = 1, **size: Any) -> Study:
    """Simulate; of the last of several subjects every `share`-th training trial is there."""
    found = simulate(truth=truth, seed=seed, **size)
    own = found.targets["stimulus"].isin(found.train).values
    signal = found.targets["signal"].astype(np.float32)
    targets = found.targets.assign(signal=signal - signal.values[own].mean(0))
    train, test = [], []
    for number, betas in enumerate(found.betas):
        known = found.train
        if share > 1 and number == len(found.betas) - 1:
            known = trials_of(betas, found.train)["stimulus"].values[::share].astype(str)
        scaled, _ = standardize_sessions(betas, known)
        train.append(trials_of(scaled, known))
        test.append(trials_of(scaled, found.test))
    return Study(train, test, targets)


def hits(predicted: xr.DataArray, targets: xr.Dataset) -> dict[str, np.ndarray]:
    """Top 1 of all test pictures, in both directions."""
    brain, image, _ = matched(average_repeats(predicted), targets)
    return retrieval_scores(compare_rows(brain, image))


def cosines(predicted: xr.DataArray, targets: xr.Dataset) -> np.ndarray:
    return cosine_to_truth(*matched(average_repeats(predicted), targets)[:2])


def ridge(train: xr.Dataset, test: xr.Dataset, targets: xr.Dataset) -> xr.DataArray:
    names = targets["stimulus"].values.astype(str)
    order = np.argsort(names)
    rows = order[np.searchsorted(names[order], train["stimulus"].values.astype(str))]
    model = TunedRidge().fit(
        train["signal"].values, targets["signal"].values[rows], stimulus=train["stimulus"].values
    )
    return model.predict_array(test["signal"])


@lru_cache(maxsize=1)
def fitted(truth: str, seed: int, short: tuple[tuple[str, Any], ...]) -> Any:
    """Return MindEye, ridge predictions, test trials and targets of one subject."""
    one = study(truth, seed, **FULL)
    train, test = one.train[0], one.test[0]
    model = MindEye(device="cpu", **dict(short)).fit(train, one.targets)
    return model, ridge(train, test, one.targets), test, one.targets


def against_ridge(truth: str, seed: int, **short: Any) -> dict[str, Estimate]:
    model, linear, test, targets = fitted(truth, seed, tuple(short.items()))
    own, other = hits(model.transform(test), targets), hits(linear, targets)
    gains = {d: compare(own[d], other[d]) for d in DIRECTIONS}
    for d, gain in gains.items():
        say(truth, seed, f"{d}: MindEye {own[d].mean():.3f}, ridge {other[d].mean():.3f}", gain)
    return gains


def of_the_prior(truth: str, seed: int, **short: Any) -> Estimate:
    model, linear, test, targets = fitted(truth, seed, tuple(short.items()))
    backbone = cosines(model.predict_tokens(test, prior=False), targets)
    mean = cosines(model.predict_tokens(test, sampler="mean"), targets)
    found = {
        "mean - backbone": compare(mean, backbone),
        "mean - ridge": compare(mean, cosines(linear, targets)),
    }
    if not short:
        drawn = cosines(model.predict_tokens(test), targets)
        found["sample - backbone"] = compare(drawn, backbone)
    for name, gain in found.items():
        say(truth, seed, f"cosine, {name}; backbone {backbone.mean():.3f}", gain)
    return found["mean - backbone"]


def of_the_new_subject(seed: int, truth: str = "nonlinear") -> dict[str, np.ndarray]:
    """Return the differences of hits, picture by picture: fine-tuned less from scratch."""
    one = study(truth, seed, share=10, n_subjects=2, **FULL)
    options: dict[str, Any] = {"device": "cpu", "prior": False}
    few: dict[str, Any] = {"validation_fraction": 0}  # of a tenth, too few would choose
    first = MindEye(**options).fit(one.train[0], one.targets)
    tuned = first.fine_tune(one.train[1], one.targets, **few)
    scratch = MindEye(**options, **few).fit(one.train[1], one.targets)
    own, other = (hits(m.transform(one.test[1]), one.targets) for m in (tuned, scratch))
    for d in DIRECTIONS:
        what = f"{d}: tuned {own[d].mean():.3f}, scratch {other[d].mean():.3f}"
        say(truth, seed, what, compare(own[d], other[d]))
    return {d: own[d] - other[d] for d in DIRECTIONS}


def say(truth: str, seed: int, what: str, gain: Estimate) -> None:
    print(f"{truth} {seed} {what}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")


# In short, on a subject that the method was built with -----------------------------------------


def test_in_short_it_beats_ridge_in_both_directions_and_the_prior_helps() -> None:
    short = {"max_epochs": 40, "prior_max_epochs": 20}
    gains = against_ridge("nonlinear", 0, **short)
    assert all(gain.above(0) for gain in gains.values())
    assert of_the_prior("nonlinear", 0, **short).above(0)


def test_in_short_it_keeps_up_with_ridge_where_the_brain_is_linear() -> None:
    gains = against_ridge("linear", 0, max_epochs=20, prior=False)
    assert min(gain.value for gain in gains.values()) >= -0.02


# In full, on fresh subjects ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", FRESH)
def test_it_beats_ridge_where_the_brain_is_not_linear(seed: int) -> None:
    assert all(gain.above(0) for gain in against_ridge("nonlinear", seed).values())
    assert of_the_prior("nonlinear", seed).above(0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", FRESH)
def test_it_is_not_far_below_ridge_where_the_brain_is_linear(seed: int) -> None:
    assert min(gain.value for gain in against_ridge("linear", seed).values()) >= -0.02
    assert of_the_prior("linear", seed).above(0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", FRESH)
def test_it_keeps_up_where_the_targets_are_not_the_truth(seed: int) -> None:
    assert min(gain.value for gain in against_ridge("gabor", seed).values()) >= -0.02
    of_the_prior("gabor", seed)  # printed only: here it does not better the backbone


@pytest.mark.slow
def test_a_new_subject_with_a_tenth_of_the_trials_gains_from_another() -> None:
    gains = [of_the_new_subject(seed) for seed in FRESH]
    for d in DIRECTIONS:  # pictures of all subjects together; one subject alone is printed
        joined = np.concatenate([gain[d] for gain in gains])
        pooled = compare(joined, np.zeros(len(joined)))
        say("nonlinear", FRESH[0], f"and all others, {d}: tuned - scratch", pooled)
        assert pooled.above(0)
        assert all(gain[d].mean() > 0 for gain in gains)
