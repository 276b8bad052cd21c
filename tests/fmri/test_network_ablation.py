"""Ablation of networks: the planted order comes back, and size alone counts for nothing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fmri.network_ablation import ablate, blank, compare_sets, network_groups, truth_correlation
from fmri.network_scores import (
    category_trainer,
    estimator_trainer,
    fitted_trainer,
    identified,
    target_trainer,
)
from neuro.errors import DataError, InputError

INFORMATION = {
    "Vis": 1.0,
    "DorsAttn": 0.7,
    "Default": 0.5,
    "Cont": 0.35,
    "SomMot": 0.2,
    "Limbic": 0,
}


def planted(seed, n_items=160, n_parcels=12, n_times=4, n_features=8, noise=4.0):
    """Networks of unlike information on a latent of each item; noise is the same everywhere."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n_items, n_features))
    network = np.repeat(list(INFORMATION), n_parcels)
    gain = np.repeat(list(INFORMATION.values()), n_parcels)
    weights = rng.standard_normal((n_features, len(network))) / np.sqrt(n_features)
    signal = (gain * (latent @ weights))[:, :, None] * np.ones(n_times)
    signal = signal + noise * rng.standard_normal(signal.shape)
    train, test = np.arange(n_items * 3 // 4), np.arange(n_items * 3 // 4, n_items)
    return signal.astype(np.float32), latent, network, [(train, test)], np.arange(n_items)


def run(seed, how="zero", n_random=199, score="contrast", **sizes):
    X, latent, network, folds, item = planted(seed, **sizes)
    train = target_trainer(latent, item.astype(str), score=score)
    return ablate(
        X, network_groups(network), train, folds, item, how=how, n_random=n_random, n_unit="item"
    )


def correlation(found):
    return truth_correlation({k: e.value for k, e in found.estimates.items()}, INFORMATION)


def test_networks_are_ranked_as_planted():
    found = run(0, n_items=400)
    assert correlation(found) >= 0.9
    assert found.estimates["Vis"].p_corrected < 0.05
    assert found.estimates["Limbic"].p_corrected > 0.2
    assert found.estimates["Limbic"].value < found.bands["Limbic"][1] < found.estimates["Vis"].value
    assert set(found.table["network"]) == set(INFORMATION)
    assert found.random.low < found.random.value < found.random.high


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zero", "mean", "retrain"])
def test_ranks_over_seeds(how):
    n_random = 20 if how == "retrain" else 200
    found = [run(seed, how, n_random=n_random, n_items=600) for seed in range(6)]
    ranks = [correlation(one) for one in found]
    mean = {k: np.mean([one.estimates[k].value for one in found]).round(3) for k in INFORMATION}
    print(f"{how}: Spearman {np.round(ranks, 2)}; mean drops {mean}")
    assert np.mean(ranks) >= 0.9
    assert min(ranks) >= 0.8
    assert all(one.estimates["Limbic"].value < one.bands["Limbic"][1] for one in found)


def null_among_many(seed, n_random=199):
    """A brain of which most says nothing, as of whole-brain atlases: one network in twelve does."""
    X, latent, network, folds, item = planted(seed, n_items=240)
    rng = np.random.default_rng([seed, 1])
    rest = 4 * rng.standard_normal((len(X), 84, X.shape[2])).astype(np.float32)
    keep = (network == "Vis") | (network == "Limbic")
    X = np.concatenate([X[:, keep], rest], axis=1)
    groups = network_groups([*network[keep], *["other"] * 84])
    del groups["other"]
    train = target_trainer(latent, item.astype(str))
    return ablate(X, groups, train, folds, item, n_random=n_random, n_unit="item")


def test_a_null_network_lies_inside_the_band_of_random_parcels():
    found = null_among_many(0)
    assert found.inside("Limbic")
    assert not found.inside("Vis")


@pytest.mark.slow
def test_null_networks_lie_inside_the_band_over_seeds():
    found = [null_among_many(seed) for seed in range(20)]
    print(
        f"null network inside the band in {sum(one.inside('Limbic') for one in found)} of 20, the "
        f"informative one in {sum(one.inside('Vis') for one in found)}"
    )
    assert np.mean([one.inside("Limbic") for one in found]) >= 0.8
    assert np.mean([one.estimates["Limbic"].p <= 0.05 for one in found]) <= 0.15
    assert not any(one.inside("Vis") for one in found)


def test_filling():
    X = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    out = blank(X, np.array([False, True, False]), X.mean(0))
    assert_allclose(out[:, 1], np.broadcast_to(X.mean(0)[1], (2, 2)))
    assert_allclose(out[:, [0, 2]], X[:, [0, 2]])


def test_filling_by_the_mean_and_by_zero_differ_where_the_data_have_an_offset():
    X, latent, network, folds, item = planted(1)
    train = target_trainer(latent, item.astype(str))
    settings = {"n_random": 2, "n_unit": "item"}
    groups = network_groups(network)
    zero, mean, moved = (
        ablate(x, groups, train, folds, item, how=how, **settings).estimates["Limbic"].value
        for x, how in ((X, "zero"), (X + 50, "mean"), (X + 50, "zero"))
    )
    assert abs(zero) < 0.05
    assert abs(mean) < 0.05
    assert abs(moved) > abs(mean)


def test_the_whole_brain_against_the_visual_network():
    rng = np.random.default_rng(0)
    category, runs = np.tile(list("abcd"), 30), np.repeat(np.arange(10), 12)
    code = np.tile(np.arange(4), 30)
    X = rng.standard_normal((120, 24, 3)).astype(np.float32)
    means = rng.standard_normal((4, 8))
    X[:, :8] += means[code][:, :, None]
    X[:, 8:16] += means[code][:, ::-1, None] * 0.7
    visual = np.arange(24) < 8
    folds = [(np.flatnonzero(runs != one), np.flatnonzero(runs == one)) for one in range(10)]
    found = compare_sets(X, visual, category_trainer(category), folds, runs, chance=0.25)
    assert found["whole.accuracy"].above(0.25)
    assert found["without_visual.accuracy"].above(0.25)
    gain = found["whole.over_without_visual"]
    assert gain.low > 0
    assert gain.p_corrected >= gain.p
    assert gain.n == 10


def test_any_estimator_can_be_ablated():
    from sklearn.linear_model import Ridge

    X, latent, network, folds, item = planted(0, noise=3.0)
    rows, groups = folds[0][0], {"Vis": network == "Vis"}

    def flat(x, rows):
        return x.reshape(len(x), -1)

    names = item.astype(str)
    made = estimator_trainer(lambda: Ridge(300), latent, names, wrap=flat)
    fixed = fitted_trainer(
        Ridge(300).fit(flat(X[rows], rows), latent[rows]), latent, names, wrap=flat
    )
    one, other = (ablate(X, groups, t, folds, item, n_random=3) for t in (made, fixed))
    assert_allclose(one.scores["Vis"], other.scores["Vis"])
    assert one.estimates["Vis"].value > 0.05


def test_identification_counts_ties_by_half_and_no_repeats():
    target = np.eye(3)[[0, 0, 1, 2]]
    assert identified(target, target, list("aabc")).tolist() == [1, 1, 1, 1]
    assert identified(np.ones((4, 3)), target, list("aabc")).tolist() == [0.5] * 4


def test_bad_input():
    with pytest.raises(DataError, match="2 of 3 parcels have no network"):
        network_groups(["", "Vis", "nan"])
    with pytest.raises(DataError, match="all 2 parcels are of the network Vis"):
        network_groups(["Vis", "Vis"])
    X, latent, network, folds, item = planted(0, n_items=20)
    train = target_trainer(latent, item.astype(str))
    with pytest.raises(InputError, match="'all' marks 72 of 72"):
        ablate(X, {"all": network != ""}, train, folds, item)
    with pytest.raises(InputError, match="one unit a"):
        ablate(X, {"Vis": network == "Vis"}, train, folds, item[:3])
    with pytest.raises(DataError, match="ranks need three"):
        truth_correlation({"a": 1.0}, {"a": 1.0})
