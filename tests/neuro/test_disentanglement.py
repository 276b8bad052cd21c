"""Disentanglement metrics: exact values of known cases, plain definitions, laws, any input."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score

from neuro.errors import InputError
from neuro.metrics import disentanglement, mean_correlation, total_correlation
from neuro.metrics.dci import dci_of, disentanglement_of
from neuro.metrics.factors import clean, halves
from neuro.metrics.infomec import infomec
from neuro.metrics.mutual_information import entropy, neighbour_information, plug_in_information
from neuro.metrics.scores import SCORES

BOUNDED = [name for name in SCORES if name not in ("tc", "tc_knn")]


def factorial(levels: int = 4, k: int = 3, repeats: int = 10) -> np.ndarray:
    """Every combination of levels equally often: factors that are exactly independent."""
    return np.array(list(itertools.product(range(levels), repeat=k)) * repeats)


# -- exact values ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_perfect_code_in_any_order(order):
    s = factorial()
    scores = disentanglement(s[:, order], s)
    names = [name for name in BOUNDED if name not in ("infoe", "sap")]
    for name in names:
        assert scores[name] == pytest.approx(1, abs=1e-6), name
    assert scores["infoe"] == pytest.approx(1, abs=1e-3)
    assert scores["tc"] == pytest.approx(0, abs=1e-9)
    assert scores["sap"] == pytest.approx(0.75, abs=0.1)  # the second latent guesses 1 of 4
    assert disentanglement(s[:, order], s, discrete=False)["sap"] == pytest.approx(1)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_code_rotated_by_45_degrees_tells_no_factor_from_another(discrete):
    s = factorial(4, 2, 20)
    rotated = np.column_stack([s[:, 0] + s[:, 1], s[:, 0] - s[:, 1]])
    scores = disentanglement(rotated, s, discrete=discrete)
    for name in ("infom", "infoc", "mig", "modularity"):
        assert scores[name] == pytest.approx(0, abs=1e-9), name
    assert scores["dci_d"] < 0.1
    assert scores["dci_c"] < 0.1
    assert scores["dci_i"] > 0.95
    assert scores["infoe"] > 0.95  # nothing is lost, and a linear model finds it
    if not discrete:
        assert scores["sap"] == pytest.approx(0, abs=1e-9)


def test_a_collapsed_code_tells_nothing():
    s = factorial()
    scores = disentanglement(np.full(s.shape, 0.3), s)
    chance = {"explicitness": 0.5, "beta_vae": 1 / 3, "factor_vae": 1 / 3}
    expected = dict.fromkeys(SCORES, 0.0) | chance | {"dci_i": scores["dci_i"]}
    assert scores == expected
    assert scores["dci_i"] < 0.35  # the accuracy of guessing one of four


def test_a_duplicated_code_is_modular_but_not_compact():
    s = factorial()
    scores = disentanglement(np.hstack([s, s]), s)
    assert scores["infom"] == pytest.approx(1)
    assert scores["modularity"] == pytest.approx(1)
    assert scores["dci_d"] == pytest.approx(1)
    assert scores["infoc"] == pytest.approx((1 / 2 - 1 / 6) / (1 - 1 / 6))
    assert scores["mig"] == pytest.approx(0, abs=1e-9)
    assert scores["sap"] == pytest.approx(0, abs=1e-9)
    assert 20 < scores["tc"] < 40  # three copies, each bounded


def test_one_code_for_all_factors_is_compact_but_not_modular():
    s = factorial(3, 2, 20)
    scores = disentanglement(s[:, :1] * 3 + s[:, 1:], s)
    assert scores["infom"] == pytest.approx(0, abs=1e-9)
    assert scores["infoc"] == 1
    assert scores["infoe"] == pytest.approx(1, abs=1e-2)  # one-hot codes are read off linearly
    assert scores["dci_d"] == pytest.approx(0, abs=1e-9)


def test_one_factor_and_one_latent_have_no_choice_to_make():
    s = factorial(4, 1, 20)
    scores = disentanglement(s, s)
    for name in ("infom", "infoc", "mig", "dci_d", "dci_c", "modularity"):
        assert scores[name] == pytest.approx(1), name
    assert disentanglement(s * 0, s)["infom"] == 0


def test_a_continuous_truth_is_recognised():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(1500, 3))
    perfect = disentanglement(s + 0.001 * rng.normal(size=s.shape), s)
    mixed = disentanglement(s @ np.linalg.qr(rng.normal(size=(3, 3)))[0] ** 3, s)
    noise = disentanglement(rng.normal(size=s.shape), s)
    for name in ("infom", "infoe", "infoc", "sap", "dci_d", "dci_c", "dci_i", "modularity"):
        assert perfect[name] > 0.95, name
    for name in ("infoc", "mig", "sap", "dci_d"):
        assert perfect[name] > mixed[name] + 0.02, name
    for name in ("infoe", "mig", "sap", "dci_i"):
        assert noise[name] < 0.05, name


# -- plain definitions -------------------------------------------------------------------------


def plain_infomec(latents, sources, quantized):
    """InfoMEC as its authors define it, entry by entry."""
    k, d = sources.shape[1], latents.shape[1]
    nmi = np.empty((k, d))
    if quantized:
        X = np.hstack([(z[:, None] == np.unique(z)).astype(float) for z in latents.T])
    else:
        X = (latents - latents.mean(0)) / latents.std(0)
    for i, j in itertools.product(range(k), range(d)):
        s, z = sources[:, i], latents[:, j]
        information = (
            mutual_info_score(s, z)
            if quantized
            else mutual_info_classif(X[:, [j]], s, n_neighbors=10, random_state=0)[0]
        )
        nmi[i, j] = information / mutual_info_score(s, s)
    ranges = np.ptp(latents, axis=0)
    active = ranges > (0 if quantized else ranges.max() / 20)
    nmi, d = nmi[:, active], active.sum()
    infom = (np.mean(nmi.max(0) / nmi.sum(0)) - 1 / k) / (1 - 1 / k)
    infoc = (np.mean(nmi.max(1) / nmi.sum(1)) - 1 / d) / (1 - 1 / d)
    explicit = []
    for s in sources.T:
        losses = []
        for inputs in (X, np.zeros_like(X)):
            model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                losses.append(log_loss(s, model.fit(inputs, s).predict_proba(inputs)))
        explicit.append((losses[1] - losses[0]) / losses[1])
    return infom, np.mean(explicit), infoc


@pytest.mark.parametrize("quantized", [True, False])
def test_infomec_equals_the_definition(quantized):
    rng = np.random.default_rng(0)
    s = np.column_stack([rng.integers(0, n, 1500) for n in (3, 5, 2)])
    mixing = rng.normal(size=(3, 5)) * [1, 1, 1, 1, 0.01]
    z = s @ mixing + 0.3 * rng.normal(size=(1500, 5)) * [1, 1, 1, 1, 0.01]
    z = np.round(z).astype(int) if quantized else z
    found = infomec(z, s, quantized=quantized)
    assert_allclose(
        [found.infom, found.infoe, found.infoc], plain_infomec(z, s, quantized), atol=1e-3
    )
    assert found.active.tolist() == [True] * 4 + [False]
    assert found.nmi.shape == (3, 5)
    named = infomec(z, {"a": s[:, 0], "b": s[:, 1]}, quantized=quantized)
    assert named.factors == ["a", "b"]


@given(seed=st.integers(0, 10_000), n=st.integers(80, 200), spread=st.floats(0, 10))
def test_neighbour_information_is_scikit_learns(seed, n, spread):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=n) + spread * y
    x = (x - x.mean()) / x.std()
    expected = mutual_info_classif(x[:, None], y, n_neighbors=10, random_state=0)[0]
    assert neighbour_information(x, y) == pytest.approx(expected, abs=1e-6)
    assert neighbour_information(-8 * x, y) == pytest.approx(expected, abs=1e-6)


def test_neighbour_information_of_repeated_values_counts_them():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 2000)
    assert neighbour_information(y, y) == pytest.approx(entropy(y), abs=0.01)
    half = rng.integers(0, 4, 2000)
    assert neighbour_information(half, y) < 0.01
    coarse = y // 2
    assert neighbour_information(coarse, y) == pytest.approx(np.log(2), abs=0.01)
    assert neighbour_information([1.0, 2.0, 3.0], [0, 1, 2]) == 0  # no class has two rows


def test_plug_in_information_is_scikit_learns():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 300), rng.integers(3, 9, 300)
    b[:100] = a[:100]
    assert plug_in_information(a, b) == pytest.approx(mutual_info_score(a, b))
    assert entropy(a) == pytest.approx(mutual_info_score(a, a))


def test_total_correlation_of_a_known_gaussian():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 2))
    z = np.linalg.qr(z - z.mean(0))[0]  # exactly uncorrelated
    r = 0.6
    pair = np.column_stack([z[:, 0], r * z[:, 0] + np.sqrt(1 - r**2) * z[:, 1]])
    assert total_correlation(pair * [1, 1000]) == pytest.approx(-0.5 * np.log(1 - r**2))
    assert mean_correlation(pair) == pytest.approx(r)
    assert total_correlation(z) == pytest.approx(0, abs=1e-9)
    with_constant = np.column_stack([pair, np.full(400, 0.1)])
    assert total_correlation(with_constant) == pytest.approx(total_correlation(pair))
    assert total_correlation(pair[:, :1]) == mean_correlation(pair[:, :1]) == 0


def test_dci_formulas_and_ranking_against_gradient_boosting():
    assert disentanglement_of(np.eye(3)) == 1
    assert disentanglement_of(np.ones((3, 4))) == pytest.approx(0)
    rng = np.random.default_rng(0)
    s = rng.normal(size=(500, 2))
    ours, theirs = [], []
    for angle in np.linspace(0, np.pi / 4, 6):
        c, n = np.cos(angle), np.sin(angle)
        z = s @ [[c, -n], [n, c]] + 0.05 * rng.normal(size=s.shape)
        ours.append(dci_of(*clean(z, s)).disentanglement)
        importances = [
            GradientBoostingRegressor(n_estimators=40, random_state=0)
            .fit(z, y)
            .feature_importances_
            for y in s.T
        ]
        theirs.append(disentanglement_of(np.stack(importances, axis=1)))
    assert spearmanr(ours, theirs).statistic > 0.9


# -- laws --------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    order=st.permutations(range(4)),
    factor_order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 4),
    scale=st.sampled_from([1e-150, 1 / 8, 1.0, 64.0, 1e150]),
)
def test_order_sign_and_scale_do_not_matter(seed, order, factor_order, signs, scale):
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 3, (90, 3))
    z = s @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(90, 4))
    names = ["infom", "infoc", "infoe", "sap", "tc"]
    moved = scale * (z * signs)[:, order]
    first = disentanglement(z, s, scores=names)
    again = disentanglement(moved, s[:, factor_order], scores=names)
    for name in names:
        assert again[name] == pytest.approx(first[name], abs=5e-3 if name == "infoe" else 1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(seed, rows):
    rng = np.random.default_rng(seed)
    s, z = rng.integers(0, 3, (40, 2)), rng.normal(size=(40, 3))
    order = list(range(40))
    rows.shuffle(order)
    names = ["infom", "infoc", "mig", "modularity", "tc"]
    first = disentanglement(z, s, scores=names)
    again = disentanglement(z[order], s[order], scores=names)
    assert again == pytest.approx(first, abs=1e-9)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_monotone_maps_of_a_factor_do_not_matter_for_information(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, 2))
    names = ["infom", "infoc", "mig", "modularity", "explicitness"]
    first = disentanglement(z, z, scores=names)
    assert disentanglement(z, np.exp(z), scores=names) == first


def test_the_same_seed_gives_the_same_scores():
    rng = np.random.default_rng(0)
    s, z = rng.integers(0, 3, (120, 2)), rng.normal(size=(120, 2))
    assert disentanglement(z, s, random_state=1) == disentanglement(z, s, random_state=1)
    assert disentanglement(z, s, random_state=1) != disentanglement(z, s, random_state=2)


# -- any input ---------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 2.0, np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-308, 5e-324]),
    st.floats(allow_nan=True, allow_infinity=True),
)
COLUMNS = {
    "numbers": CELLS,
    "classes": st.integers(0, 3),
    "text": st.sampled_from(["", "a", "b", "c"]),
    "truths": st.booleans(),
    "mixed": st.sampled_from([None, 1, 2.5, "", "x"]),
}


@st.composite
def problems(draw):
    n, d = draw(st.integers(1, 24)), draw(st.integers(1, 4))
    latents = np.array(
        draw(st.lists(st.lists(CELLS, min_size=d, max_size=d), min_size=n, max_size=n))
    )
    if draw(st.booleans()):  # mostly usable rows, so that the scores themselves are reached
        latents = np.round(np.nan_to_num(latents, nan=1, posinf=2, neginf=-2) % 7, 1)
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3))
    factors = {
        f"{i} {kind}": np.array(
            draw(st.lists(COLUMNS[kind], min_size=n, max_size=n)),
            dtype=object if kind == "mixed" else None,
        )
        for i, kind in enumerate(kinds)
    }
    return latents, factors, draw(st.booleans())


@settings(max_examples=100)
@given(problems())
def test_every_input_gives_numbers_or_a_clear_error(problem):
    latents, factors, quantized = problem
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "left out")
        try:
            scores = disentanglement(latents, factors, quantized=quantized)
        except InputError:
            event("refused")
            return
    event("scored")
    assert list(scores) == list(SCORES)
    assert all(np.isfinite(value) for value in scores.values()), scores
    assert all(0 <= scores[name] <= 1 + 1e-9 for name in BOUNDED), scores
    assert min(scores["tc"], scores["tc_knn"]) >= 0


# -- the policy --------------------------------------------------------------------------------


def test_missing_factors_leave_out_their_rows_only():
    rng = np.random.default_rng(0)
    s, z = factorial(3, 2, 20).astype(float), rng.normal(size=(180, 2))
    s[:60, 0] = np.nan
    values, factors = clean(z, s)
    assert [len(factor.rows) for factor in factors] == [120, 180]
    assert all(factor.discrete for factor in factors)
    z[100] = np.inf
    values, factors = clean(z, s)
    assert len(values) == 179
    assert [len(factor.rows) for factor in factors] == [119, 179]


def test_factors_that_cannot_be_used_are_named():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(30, 2))
    factors = {
        "good": z[:, 0],
        "flat": np.ones(30),
        "names": np.array([f"sub-{i}" for i in range(30)]),
        "rare": np.where(np.arange(30) < 3, np.arange(30.0), np.nan),
    }
    with pytest.warns(UserWarning, match="flat is constant; names has 30 classes in 30 rows; rare"):
        scores = disentanglement(z, factors, scores=["mig"])
    assert scores == disentanglement(z, {"good": z[:, 0]}, scores=["mig"])
    with pytest.raises(InputError, match="no factor can be used: flat is constant"):
        disentanglement(z, {"flat": np.ones(30)})
    with pytest.raises(InputError, match="no factor can be used: bare"):
        disentanglement(z, {"bare": np.full(30, np.nan)})


def test_a_latent_without_variance_is_no_part_of_what_others_tell():
    s = factorial(3, 2, 20)
    z = s + 0.1 * np.random.default_rng(0).normal(size=s.shape)
    with_flat = np.column_stack([z, np.full(len(z), 2.0)])
    names = ["infom", "infoe", "infoc", "modularity", "mig", "tc", "dci_d", "dci_c"]
    assert_allclose(
        list(disentanglement(with_flat, s, scores=names).values()),
        list(disentanglement(z, s, scores=names).values()),
        atol=1e-6,
    )


def test_what_counts_as_classes():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(90, 1))
    table = {
        "text": rng.choice(["a", "b"], 90),
        "few": rng.integers(0, 5, 90),
        "many": rng.integers(0, 60, 90),
        "real": rng.normal(size=90),
        "truth": rng.random(90) < 0.5,
    }
    kinds = {factor.name: factor.discrete for factor in clean(z, table)[1]}
    assert kinds == {"text": True, "few": True, "many": False, "real": False, "truth": True}
    told = clean(z, np.column_stack([table["few"], table["real"]]), discrete=[False, False])[1]
    assert [factor.discrete for factor in told] == [False, False]
    assert {factor.n_classes for factor in told} <= {5, 9}  # bins of ten rows at least


@given(seed=st.integers(0, 1000), n=st.integers(8, 60))
def test_halves_share_no_row_and_fit_every_class(seed, n):
    rng = np.random.default_rng(seed)
    classes = np.concatenate([[0, 0, 1, 1], rng.integers(0, 4, n)])
    ((factor),) = clean(rng.normal(size=(n + 4, 1)), classes, discrete=True)[1]
    train, test = halves(factor, seed)
    assert sorted([*train, *test]) == list(range(n + 4))
    assert set(factor.classes[train]) == set(factor.classes)
    assert len(test) > 0


@pytest.mark.parametrize(
    ("latents", "factors", "settings", "message"),
    [
        (np.ones((9, 2)), np.arange(8), {}, "9 rows, but factor 0 has 8"),
        (np.ones(9), np.arange(9), {}, r"shape \(9,\), expected \(n, d\)"),
        (np.ones((9, 2)), np.ones((9, 2, 2)), {}, "factors have the shape"),
        (np.ones((3, 2)), np.arange(3), {}, "3 of 3 rows have finite latents"),
        ([["a"]], [1], {}, "no numbers"),
        (np.ones((9, 2)), np.arange(9), {"scores": ["migg"]}, r"unknown scores \['migg'\]"),
        (np.ones((9, 2)), np.arange(9), {"discrete": [True, False]}, "2 entries for 1 factors"),
        (np.ones((4, 2)), list("aabb"), {"discrete": False}, "text, so it can't be continuous"),
        (np.ones((4, 2)), {}, {}, "there is none"),
        (np.ones((4, 2)), {"a": np.ones((4, 2))}, {}, "one value per row; found a"),
    ],
)
def test_bad_input_is_refused(latents, factors, settings, message):
    with pytest.raises(InputError, match=message):
        disentanglement(latents, factors, **settings)


def test_no_heavy_library_is_needed():
    code = (
        "import sys, numpy as np; from neuro.metrics import disentanglement;"
        "z = np.random.default_rng(0).integers(0, 3, (60, 2)); disentanglement(z, z);"
        "print([m for m in ('torch', 'xarray', 'mne') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
