"""The simulated whole brain: simple estimators find what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor
from numpy.testing import assert_allclose

from fmri.simulate_whole_brain import INFORMATION, simulate_whole_brain
from neuro.errors import InputError

QUICK = {"n_other": 18, "n_train_runs": 6, "n_test_runs": 1, "n_unlabelled_runs": 4,
         "n_rest_runs": 2, "n_imagery_runs": 4, "delay": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return simulate_whole_brain(seed=3, **QUICK)


def regressors(run, latent):
    """The events of a run times their latents, convolved by nilearn, ``(time, latent)``."""
    times = run.series["time"].values
    columns = []
    for own in latent.T:
        condition = np.array([run.events["onset"], run.events["duration"], own])
        columns.append(compute_regressor(condition, "glover", times, oversampling=20)[0][:, 0])
    return np.column_stack(columns)


def fitted_weights(study, part, confounds=True):
    """Ordinary least squares over the runs of a part: weights by latent and parcel."""
    X, y = [], []
    for run in study.runs:
        if run.series.attrs["part"] != part:
            continue
        latent = study.items["latent"].sel(item=run.events["item"].to_numpy()).values
        nuisance = [np.vander(np.linspace(-1, 1, run.series.sizes["time"]), 3)]
        nuisance += [run.confounds] if confounds else []
        basis = np.linalg.qr(np.column_stack(nuisance))[0]
        parts = regressors(run, latent), run.series["signal"].values
        own, series = (p - basis @ (basis.T @ p) for p in parts)
        X.append(own)
        y.append(series)
    return np.linalg.lstsq(np.concatenate(X), np.concatenate(y), rcond=None)[0]


def test_gains_of_networks_are_found(study):
    found = np.linalg.norm(fitted_weights(study, "train"), axis=0)
    network = study.runs[0].series["network"].values
    means = {name: found[network == name].mean() for name in [*INFORMATION, "none"]}
    ranked = sorted(INFORMATION, key=lambda name: -means[name])
    assert ranked[:5] == list(INFORMATION)[:5]
    assert abs(means["SomMot"] - means["none"]) < 0.1 * means["Vis"]
    assert np.all(study.truth.weights[:, np.isin(network, ["SomMot", "none"])] == 0)
    assert study.items["information"].values.tolist() == list(INFORMATION.values())


def test_weights_are_found_and_shared_by_imagery(study):
    seen = (study.runs[0].series["network"] == "Vis").values
    truth = study.truth.weights[:, seen].ravel()
    slopes = {}
    for part in ("train", "imagery"):
        found = fitted_weights(study, part)[:, seen].ravel()
        slopes[part] = (found @ truth) / (truth @ truth)
        assert np.corrcoef(found, truth)[0, 1] > (0.95 if part == "train" else 0.6)
    assert_allclose(slopes["imagery"] / slopes["train"], 0.5, atol=0.12)


def test_the_response_is_that_of_nilearn():
    """A brain without background: the mean response to an event has Glover's form."""
    study = simulate_whole_brain(
        {"Vis": 1.0, "Default": 0.0}, n_other=0, n_parcels=4, n_train_runs=1, n_test_runs=0,
        n_unlabelled_runs=0, n_rest_runs=0, n_imagery_runs=0, noise=1e-6, motion=0.0, drift=0.0,
        background=0.0, delay=0.0,
    )  # fmt: skip
    run = study.runs[0]
    latent = study.items["latent"].sel(item=run.events["item"].to_numpy()).values
    expected = regressors(run, latent) @ study.truth.weights[:, :4]
    found = run.series["signal"].values[:, :4]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995
    assert np.abs(run.series["signal"].values[:, 4:]).max() < 1e-4


def test_unlabelled_runs_share_the_patterns(study):
    """What the labelled runs know of the brain lies among what varies most in unlabelled ones."""
    series = np.concatenate([r.series["signal"].values - r.confounds @ np.linalg.lstsq(
        r.confounds, r.series["signal"].values, rcond=None)[0] for r in study.runs
        if r.series.attrs["kind"] == "unlabelled"])  # fmt: skip
    axes = np.linalg.svd(series - series.mean(0), full_matrices=False)[2][:20]
    known = np.linalg.svd(study.truth.weights, full_matrices=False)[2][:4]
    other = np.random.default_rng(0).standard_normal((4, axes.shape[1]))
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    assert np.square(known @ axes.T).sum(1).mean() > 0.8
    assert np.square(other @ axes.T).sum(1).mean() < 0.5
    for run in study.runs:
        assert len(run.events) == (40 if run.series.attrs["kind"] in ("perception", "imagery")
                                   else 0)  # fmt: skip


def test_motion_goes_with_its_estimates(study):
    run = study.runs[0]
    y = run.series["signal"].values - run.series["signal"].values.mean(0)
    left = y - run.confounds @ np.linalg.lstsq(run.confounds, y, rcond=None)[0]
    assert left.var() < 0.85 * y.var()


def test_items_of_parts_do_not_overlap(study):
    shown = {}
    for run in study.runs:
        shown.setdefault(run.series.attrs["part"], []).extend(run.events["item"])
    assert not set(shown["train"]) & (set(shown["test"]) | set(shown["imagery"]))
    assert not set(shown["test"]) & set(shown["imagery"])
    assert len(set(shown["imagery"])) == 16
    assert len(shown["imagery"]) == 160
    assert len(set(shown["test"])) == 20
    counts = np.unique(study.items["category"].values, return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_seeds_repeat(study):
    again = simulate_whole_brain(seed=3, **QUICK)
    for mine, other in zip(study.runs, again.runs, strict=True):
        assert mine.series.identical(other.series)
        assert mine.events.equals(other.events)
    assert again.items.identical(study.items)
    other = simulate_whole_brain(seed=4, **QUICK)
    assert not np.allclose(other.truth.weights, study.truth.weights)


def test_what_can_not_be_simulated_is_said():
    with pytest.raises(InputError, match="imagery is -1"):
        simulate_whole_brain(imagery=-1)
    with pytest.raises(InputError, match="two or more names"):
        simulate_whole_brain({"Vis": 1.0, "none": 0.2})
    with pytest.raises(InputError, match="no run to simulate"):
        simulate_whole_brain(n_train_runs=0, n_test_runs=0, n_unlabelled_runs=0, n_rest_runs=0)
