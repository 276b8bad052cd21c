"""The test of pairings: exact where it can be, honest without signal, true to repeats."""

import itertools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import kstest

from fmri.imagery import pairing_test
from fmri.zero_shot import zero_shot
from neuro.errors import DataError, InputError


def imagined(seed, signal, n_prompts=12, n_repeats=3, n_features=16, shared=1.0):
    """Repeats of a prompt share an answer of their own, which has nothing to do with the prompt."""
    rng = np.random.default_rng(seed)
    prompts = rng.standard_normal((n_prompts, n_features)) + 1
    code = np.repeat(np.arange(n_prompts), n_repeats)
    own = shared * rng.standard_normal((n_prompts, n_features))
    decoded = signal * prompts[code] + own[code] + rng.standard_normal((len(code), n_features)) + 1
    return decoded, prompts, code.astype(str), np.arange(n_prompts).astype(str)


def test_a_small_set_is_enumerated():
    rng = np.random.default_rng(0)
    decoded, prompts = rng.standard_normal((2, 4, 3))
    names = np.array(list("abcd"))
    found = pairing_test(decoded, prompts, names, names)
    rows = decoded / np.linalg.norm(decoded, axis=1, keepdims=True)
    own = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    every = [(rows * own[list(o)]).sum(1).mean() for o in itertools.permutations(range(4))]
    assert found.exact
    assert len(found.null) == 23
    assert_allclose(found.statistic.value, every[0])
    assert_allclose(found.p, np.mean(np.array(every) >= every[0] - 1e-12))


def test_signal_is_found():
    found = pairing_test(*imagined(0, 0.5), n_permutations=999)
    assert found.p == 0.001
    assert found.statistic.low > found.statistic.chance
    assert found.statistic.n == 12


def uniform(n, **settings):
    p = []
    for seed in range(n):
        decoded, prompts, names, known = imagined(seed, 0.0)
        blocks = None
        if settings.get("blocks"):
            blocks = np.tile(["a", "b", "c"], 12)
            decoded = decoded + 3 * np.eye(16)[np.tile([0, 1, 2], 12)]
        p.append(pairing_test(decoded, prompts, names, known, blocks=blocks, n_permutations=199,
                              random_state=seed).p)  # fmt: skip
    return np.array(p)


@pytest.mark.parametrize("blocks", [False, True])
def test_p_is_uniform_without_signal(blocks):
    p = uniform(100, blocks=blocks)
    assert np.mean(p <= 0.05) <= 0.12  # 95 % of binomials of 100 at 0.05 are below
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_p_is_uniform_over_many_runs():
    p = uniform(1000)
    print(f"KS p {kstest(p, 'uniform').pvalue:.3f}, p <= 0.05 in {np.mean(p <= 0.05):.3f} of 1000")
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs(np.mean(p <= 0.05) - 0.05) < 0.02


def test_dealing_out_single_trials_would_lie():
    """Why whole prompts change places: repeats that agree are no independent evidence."""
    honest, naive = [], []
    for seed in range(60):
        decoded, prompts, names, known = imagined(seed, 0.0, n_repeats=8, shared=3.0)
        honest.append(pairing_test(decoded, prompts, names, known, n_permutations=99).p)
        rows = decoded / np.linalg.norm(decoded, axis=1, keepdims=True)
        table = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
        own = np.array(names, int)
        rng = np.random.default_rng(seed)
        null = [(rows * table[rng.permutation(own)]).sum(1).mean() for _ in range(99)]
        naive.append((1 + np.sum(null >= (rows * table[own]).sum(1).mean())) / 100)
    assert np.mean(np.array(honest) <= 0.05) <= 0.15
    assert np.mean(np.array(naive) <= 0.05) > 0.2


def test_prompts_of_different_blocks_do_not_change_places():
    """Two people of unlike signals and unlike prompts: between them there is only a bias."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        person = np.repeat([0, 1], 4)
        bias = 3 * np.eye(8)[person]
        decoded, prompts = (bias + rng.standard_normal((8, 8)) for _ in range(2))
        names = np.arange(8).astype(str)
        found = pairing_test(decoded, prompts, names, names, blocks=person)
        assert len(found.null) == 24 * 24 - 1
        p.append((found.p, pairing_test(decoded, prompts, names, names, n_permutations=99).p))
    within, between = np.array(p).T
    assert np.mean(within <= 0.05) <= 0.15
    assert np.mean(between <= 0.05) > 0.5


def test_prompts_that_do_not_fit():
    decoded, prompts, names, known = imagined(0, 0.5)
    with pytest.raises(DataError, match="1 prompts of the trials have no embedding: 11"):
        pairing_test(decoded, prompts[:11], names, known[:11])
    with pytest.raises(DataError, match="comes twice"):
        pairing_test(decoded, prompts, names, ["0", *known[1:11], "0"])
    with pytest.raises(DataError, match="no two of the 12 prompts"):
        pairing_test(decoded, prompts, names, known, blocks=names)
    with pytest.raises(InputError, match="16 features, prompts 4"):
        pairing_test(decoded, prompts[:, :4], names, known)
    with pytest.raises(DataError, match="decoded: row 0 is 0"):
        pairing_test(decoded * 0, prompts, names, known)


def test_one_embedding_under_two_names_is_one_prompt():
    decoded, prompts, names, known = imagined(0, 0.5, n_prompts=3, n_repeats=1)
    prompts[2] = prompts[1]
    found = pairing_test(decoded, prompts, names, known)
    assert len(found.null) == 1
    assert found.statistic.n == 2


def attributes(seed, n=6, m=4):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.standard_normal((n, m)), [f"c{i}" for i in range(n)])
    category = np.tile(table.index, 5)
    return table, category, np.repeat(list("12345"), n), rng


def test_a_category_is_named_without_training_on_it():
    table, category, run, rng = attributes(0)
    X = table.loc[category].to_numpy() @ rng.standard_normal((4, 30))
    found = zero_shot(X + 0.3 * rng.standard_normal(X.shape), category, run, table)
    pairwise, first = (found.estimates[f"zero_shot.{k}"] for k in ("pairwise", "accuracy"))
    assert pairwise.above(0.5)
    assert pairwise.p < 0.05
    assert first.value > 1 / 6
    assert first.n_unit == "category"


def test_zero_shot_finds_nothing_in_categories_without_attributes():
    p = []
    for seed in range(40):
        table, category, run, rng = attributes(seed)
        code = np.unique(category, return_inverse=True)[1]
        X = rng.standard_normal((6, 30))[code] + rng.standard_normal((30, 30))
        found = zero_shot(X, category, run, table, n_permutations=99, n_boot=10)
        p.append(found.estimates["zero_shot.pairwise"].p)
    assert np.mean(np.array(p) <= 0.05) <= 0.15


def test_zero_shot_bad_input():
    table, category, run, rng = attributes(0)
    X = rng.standard_normal((30, 4))
    with pytest.raises(DataError, match="no c5"):
        zero_shot(X, category, run, table.drop("c5"))
    with pytest.raises(DataError, match="1 runs"):
        zero_shot(X, category, np.ones(30), table)
