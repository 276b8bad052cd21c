"""Laws of folds, intervals, permutation and correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from neuro.errors import InputError
from neuro.validation import (
    Estimate,
    arrangements,
    bootstrap_interval,
    bootstrap_weights,
    correct,
    correct_estimates,
    exact_interval,
    grouped_folds,
    is_missing,
    nested_weights,
    paired_difference,
    percentile_interval,
    permutation_p,
    permute_labels,
    shuffled_band,
    summarise,
    unit_means,
)


@st.composite
def cohorts(draw):
    """Groups of unequal size with a label per group and one that varies inside groups."""
    n_groups = draw(st.integers(4, 25))
    sizes = draw(st.lists(st.integers(1, 6), min_size=n_groups, max_size=n_groups))
    classes = draw(st.lists(st.integers(0, 2), min_size=n_groups, max_size=n_groups))
    groups = np.repeat(np.arange(n_groups), sizes)
    label = np.repeat(classes, sizes)
    varying = np.array(draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups))))
    return groups, label, varying, draw(st.integers(2, 4)), draw(st.integers(0, 100))


@given(cohorts())
def test_folds_never_share_a_group_and_test_every_row_once(cohort):
    groups, label, varying, n_splits, seed = cohort
    folds = grouped_folds(groups, [label, varying], n_splits=n_splits, random_state=seed)
    assert len(folds) == n_splits
    for train, test in folds:
        assert len(test) > 0
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(len(groups)))
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested) == list(range(len(groups)))


@given(cohorts())
def test_one_label_is_balanced_over_folds(cohort):
    groups, label, _, n_splits, seed = cohort
    folds = grouped_folds(groups, label, n_splits=n_splits, random_state=seed)
    for value in np.unique(label):
        counts = [len(np.unique(groups[test][label[test] == value])) for _, test in folds]
        assert max(counts) - min(counts) <= 1
    sizes = [len(np.unique(groups[test])) for _, test in folds]
    assert max(sizes) - min(sizes) <= 1


def test_several_labels_share_folds_that_suit_them_all():
    rng = np.random.default_rng(0)
    groups = np.arange(60)
    labels = [rng.integers(0, 2, 60) for _ in range(3)]
    folds = grouped_folds(groups, labels, n_splits=5)
    for label in labels:
        shares = [label[test].mean() for _, test in folds]
        assert max(shares) - min(shares) < 0.35
        assert min(shares) > 0


def test_folds_are_deterministic_and_depend_on_the_seed():
    groups = np.arange(20)
    first, again, other = (grouped_folds(groups, random_state=seed) for seed in (0, 0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert any((a[1] != b[1]).any() for a, b in zip(first, other, strict=True))


def test_leave_one_group_out():
    folds = grouped_folds(["b", "a", "a", "c"], n_splits=None)
    assert sorted(test.tolist() for _, test in folds) == [[0], [1, 2], [3]]


def test_too_few_groups_and_wrong_lengths_are_refused():
    with pytest.raises(InputError, match="5 folds were asked for, but there are 3 groups"):
        grouped_folds(["a", "b", "c"], n_splits=5)
    with pytest.raises(InputError, match=r"expected \(3,\)"):
        grouped_folds(["a", "b", "c"], ["x"], n_splits=2)


def test_missing_labels():
    assert is_missing(["", "a", "nan", "n/a"]).tolist() == [True, False, True, True]
    assert is_missing([1.0, np.nan]).tolist() == [False, True]
    assert is_missing([1, 2]).tolist() == [False, False]


@pytest.mark.parametrize("n", [8, 12, 30])
def test_interval_covers_the_mean_at_about_its_level(n):
    rng = np.random.default_rng(n)
    hits = 0
    for seed in range(400):
        low, high = bootstrap_interval(rng.normal(3, 2, n), n_boot=500, random_state=seed)
        hits += low < 3 < high
    assert 0.92 <= hits / 400 <= 0.98


def test_interval_resamples_units_not_rows():
    rng = np.random.default_rng(0)
    level = rng.normal(size=10)
    rows, units = np.repeat(level, 50), np.repeat(np.arange(10), 50)
    assert_allclose(bootstrap_interval(rows, units=units), bootstrap_interval(level))
    low, high = bootstrap_interval(rows, units=units)
    naive = bootstrap_interval(rows)
    assert high - low > 3 * (naive[1] - naive[0])


def test_interval_edge_cases():
    assert np.isnan(bootstrap_interval([1.0])).all()
    assert bootstrap_interval([2.0, 2.0, np.nan]) == (2.0, 2.0)
    assert np.isnan(percentile_interval([np.nan])).all()
    low, high = bootstrap_interval(np.arange(9.0), statistic="median")
    assert low < 4 < high


def test_few_units_widen_the_interval():
    samples = np.random.default_rng(0).normal(size=5000)
    plain, few = percentile_interval(samples), percentile_interval(samples, n_units=6)
    assert few[0] < plain[0] < plain[1] < few[1]


def test_weights_reproduce_a_bootstrap_mean():
    weights = bootstrap_weights(7, n_boot=4000)
    values = np.arange(7.0)
    means = weights @ values / 7
    assert weights.sum(1).tolist() == [7] * 4000
    assert_allclose(means.mean(), 3.0, atol=0.05)
    assert_allclose(means.std(), values.std() / np.sqrt(7), rtol=0.05)


def test_unit_means_and_summary():
    assert unit_means([1.0, np.nan, 5.0], ["a", "a", "b"]).tolist() == [1.0, 5.0]
    estimate = summarise([1.0, 2.0, 3.0, 6.0], units=["a", "a", "b", "b"], chance=0.5, n_unit="dog")
    assert (estimate.value, estimate.n, estimate.n_unit, estimate.chance) == (3.0, 2, "dog", 0.5)
    nothing = summarise([np.nan, np.nan])
    assert (nothing.value, nothing.low, nothing.n) == (None, None, 0)
    assert summarise([1.0]).low is None


def test_paired_difference_sees_what_is_shared():
    rng = np.random.default_rng(0)
    level = rng.normal(0, 10, 25)
    better = paired_difference(level + 1 + rng.normal(0, 0.3, 25), level)
    assert better.above(0.7)
    assert better.p is not None
    assert better.p < 0.001
    assert_allclose(better.baseline, level.mean())
    with pytest.raises(InputError, match="differ in shape"):
        paired_difference([1.0], [1.0, 2.0])
    assert paired_difference([np.nan], [1.0]).value is None


def test_paired_p_is_uniform_under_the_null():
    rng = np.random.default_rng(1)
    p = [
        paired_difference(rng.normal(size=12), rng.normal(size=12), n_boot=10, n_permutations=199).p
        for _ in range(400)
    ]
    assert_allclose(np.mean(np.array(p) <= 0.05), 0.05, atol=0.035)
    assert_allclose(np.mean(p), 0.5, atol=0.06)


def test_permutation_p_is_exact_under_the_null():
    """With n null draws, p takes the values 1/(n+1)..1, all equally often."""
    rng = np.random.default_rng(0)
    null = rng.normal(size=(19, 20_000))
    p = permutation_p(rng.normal(size=20_000), null)
    counts = np.bincount(np.round(p * 20).astype(int), minlength=21)[1:]
    assert_allclose(counts / 20_000, 0.05, atol=0.008)


def test_permutation_p_counts_ties_against_us_and_is_never_zero():
    assert permutation_p(9.0, np.zeros(99)) == 0.01
    assert permutation_p(0.1 + 0.2, [0.3] * 9) == 1.0
    assert permutation_p(1.0, np.empty(0)) == 1.0


@given(cohorts())
@settings(max_examples=40)
def test_shuffles_keep_what_the_design_fixes(cohort):
    groups, label, varying, _, seed = cohort
    between = permute_labels(label, groups, 5, random_state=seed)
    _, first = np.unique(groups, return_index=True)
    for shuffled in between:
        assert all(len(np.unique(shuffled[groups == g])) == 1 for g in np.unique(groups))
        assert sorted(shuffled[first]) == sorted(label[first])
    within = permute_labels(varying.astype(int), groups, 5, within=True, random_state=seed)
    for shuffled in within:
        assert_allclose(np.bincount(groups, shuffled), np.bincount(groups, varying))


@given(cohorts())
@settings(max_examples=30)
def test_shuffles_inside_blocks_keep_each_fold_balanced(cohort):
    groups, label, _, _, seed = cohort
    block = groups % 3
    _, first = np.unique(groups, return_index=True)
    for shuffled in permute_labels(label, groups, 4, blocks=block, random_state=seed):
        for value in range(3):
            own = first[block[first] == value]
            assert sorted(shuffled[own]) == sorted(label[own])


def test_shuffles_reach_every_order_equally_often():
    shuffled = permute_labels([0, 1, 2], ["a", "b", "c"], 6000)
    _, counts = np.unique(shuffled, axis=0, return_counts=True)
    assert len(counts) == 6
    assert_allclose(counts / 6000, 1 / 6, atol=0.02)


def test_a_label_that_varies_cannot_be_dealt_out_to_groups():
    with pytest.raises(InputError, match="within=True"):
        permute_labels([0, 1], ["a", "a"], 3)


def test_corrections_on_known_cases():
    p = [0.01, 0.04, 0.03, 0.005, np.nan]
    assert_allclose(correct(p, "holm"), [0.03, 0.06, 0.06, 0.02, np.nan])
    assert_allclose(correct(p, "bh"), [0.02, 0.04, 0.04, 0.02, np.nan])
    assert_allclose(correct(p, "bonferroni"), [0.04, 0.16, 0.12, 0.02, np.nan])
    assert correct([]).tolist() == []
    with pytest.raises(InputError, match="'sidak' is not known"):
        correct(p, "sidak")


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_corrections_are_ordered(p):
    bh, holm, bonferroni = (correct(p, method) for method in ("bh", "holm", "bonferroni"))
    assert (np.asarray(p) <= bh + 1e-12).all()
    assert (bh <= holm + 1e-12).all()
    assert (holm <= bonferroni + 1e-12).all()
    assert (np.diff(holm[np.argsort(p, kind="stable")]) >= 0).all()


def test_estimates_are_corrected_as_a_family():
    family = correct_estimates({"a": Estimate(p=0.01), "b": Estimate(), "c": Estimate(p=0.04)})
    assert family["a"].p_corrected == 0.02
    assert family["b"].p_corrected is None
    assert family["c"].p_corrected == 0.04


def test_shuffled_band_contains_most_of_the_null():
    null = np.random.default_rng(0).normal(0.5, 0.1, 4000)
    mean, low, high = shuffled_band(null)
    assert_allclose(mean, 0.5, atol=0.01)
    assert_allclose(np.mean((null >= low) & (null <= high)), 0.95, atol=0.005)


@pytest.mark.parametrize(("y", "n"), [([0, 0, 1, 2, 2], 29), ([0, 1, 1], 2), ([1, 2, 0], 5)])
def test_other_orders_of_labels_are_listed_once(y, n):
    found = arrangements(y, 200)
    assert len(found) == n == len({tuple(row) for row in found.tolist()})
    assert y not in found.tolist()
    assert (np.sort(found, axis=1) == np.sort(y)).all()


def test_orders_that_are_too_many_or_none_are_not_listed():
    assert arrangements([0, 0, 1, 2, 2], 28) is None
    assert arrangements([1, 1], 10) is None


def test_rows_are_resampled_inside_the_units_that_were_drawn():
    units = np.repeat([0, 1, 2], [5, 3, 8])
    weights = bootstrap_weights(3, 500)
    found = nested_weights(units, weights)
    for number, size in enumerate((5, 3, 8)):
        assert (found[:, units == number].sum(1) == size * weights[:, number]).all()
    values = np.random.default_rng(0).normal(size=16)
    spread = (found @ values / found.sum(1)).std()
    plain = weights[:, units]
    assert spread > (plain @ values / plain.sum(1)).std()


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_exact_interval_is_that_of_clopper_and_pearson(n):
    expected = stats.binomtest(n, n).proportion_ci(method="exact")
    assert_allclose(exact_interval(1.0, n), expected)
    assert_allclose(exact_interval(0.0, n), (0, 1 - expected.low))
    assert exact_interval(0.5, n) == (None, None)


class _Context:
    def __init__(self) -> None:
        self.seen: dict[str, dict] = {}

    def metric(self, name, value, **fields):
        self.seen[name] = {"value": value, **fields}


def test_an_estimate_records_plain_numbers():
    context = _Context()
    Estimate(np.float64(0.5), float("nan"), n=np.int64(3), n_unit="subject").record(context, "a.b")
    entry = context.seen["a.b"]
    assert type(entry["value"]) is float
    assert type(entry["n"]) is int
    assert entry["low"] is None
    assert set(entry) == {
        *("value", "low", "high", "n", "n_unit", "chance", "p", "p_corrected", "baseline", "unit")
    }
