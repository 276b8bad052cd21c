"""Labels as symbols: coding, bins, masks, and tables that contradict themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from eeg.labels import read_labels, refuse_contradictions
from eeg.symbols import MISSING, Symbols, is_missing
from neuro.errors import DataError, InputError

SUBJECT = np.array(["a", "a", "b", "c"])


def symbols() -> Symbols:
    return Symbols.learn(
        pd.DataFrame(
            {
                "depressed": ["yes", "no", "n/a", "no"],
                "dose": [1.0, 2.0, 1.0, np.nan],
                "age": [20.0, 30.0, 40.0, 50.0],
            }
        ),
        bins={"age": [30.0, 45.0]},
    )


def test_one_symbol_for_each_value_and_bin():
    assert symbols().names == [
        "depressed=no", "depressed=yes", "dose=1", "dose=2",
        "age=below 30", "age=30 to 45", "age=45 or more",
    ]  # fmt: skip


def test_missing_labels_are_masked_and_zero():
    table = pd.DataFrame({"depressed": ["", "yes"], "dose": [2.0, np.nan], "age": [np.nan, 45.0]})
    vectors, mask = symbols().k_hot(symbols().codes(table))
    np.testing.assert_array_equal(vectors, [[0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(mask, [[0, 0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 1, 1]])
    assert (vectors <= mask).all()


@given(st.lists(st.tuples(st.sampled_from(["yes", "no", ""]), st.floats(-100, 200)), min_size=1))
def test_a_known_label_has_exactly_one_symbol(rows):
    known = symbols()
    table = pd.DataFrame(rows, columns=["depressed", "age"]).assign(dose=1)
    vectors, mask = known.k_hot(known.codes(table))
    for label, part in known.slices.items():
        np.testing.assert_array_equal(
            vectors[:, part].sum(1), ~is_missing(table[label].to_numpy()), err_msg=label
        )
        np.testing.assert_array_equal(mask[:, part].max(1), vectors[:, part].sum(1))


def test_quantile_bins_hold_equal_shares():
    ages = np.random.default_rng(0).permutation(np.arange(300.0))
    group = Symbols.learn({"age": ages}, bins=3).groups[0]
    np.testing.assert_allclose(group.edges, np.quantile(ages, [1 / 3, 2 / 3]))
    np.testing.assert_array_equal(np.bincount(group.codes(ages)), [100, 100, 100])


def test_few_numbers_are_values_not_bins():
    assert Symbols.learn({"sex": [1, 2, 2, 1]}).groups[0].values == ("1", "2")
    assert Symbols.learn({"site": [1.0, 2.0, 3.0]}).groups[0].values == ("1", "2", "3")


def test_a_crowded_minimum_leaves_no_bin_empty():
    group = Symbols.learn({"score": [0.0] * 50 + list(range(1, 20))}, bins=4).groups[0]
    counts = np.bincount(group.codes([0.0] * 50 + list(range(1, 20))))
    assert (counts > 0).all()
    assert len(counts) == len(group.values)


def test_asking_by_value_number_and_bin():
    known = symbols()
    assert known.ask({"age": 35}).tolist() == [MISSING, MISSING, 1]
    assert known.ask({"age": "45 or more", "dose": 2, "depressed": "no"}).tolist() == [0, 1, 2]
    assert known.ask({}).tolist() == [MISSING] * 3


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"depresed": "yes"}, ["depresed", "did you mean 'depressed'", "dose"]),
        ({"depressed": "maybe"}, ["maybe", "'no'", "'yes'"]),
        ({"depressed": ""}, ["depressed", "'no'", "'yes'"]),
        ({"age": "young"}, ["young", "below 30", "a number"]),
        ({"age": float("nan")}, ["age", "below 30"]),
        ({"dose": 3}, ["3", "'1'", "'2'"]),
    ],
)
def test_an_unseen_symbol_is_refused_by_name(asked, words):
    with pytest.raises(InputError) as error:
        symbols().ask(asked)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("table", "bins", "words"),
    [
        ({"d": ["", "n/a"]}, 3, ["'d'", "missing for every"]),
        ({"d": ["yes", "yes"]}, 3, ["'d'", "'yes'", "all of 2"]),
        ({"a": [1.0, 2, 3, 4]}, {"b": 2}, ["b", "no label"]),
        ({"a": [1.0, 2, 3, 4]}, {"a": [3, 2]}, ["'a'", "rising"]),
        ({"a": [1.0, 2, 3, 4]}, {"a": [9.0]}, ["'a'", "9 or more"]),
        ({"a": [1.0, 2, 3, 4]}, {"a": 1}, ["'a'", "at least 2"]),
        ({"a": ["x", "y", "z"]}, {"a": 2}, ["'a'", "numbers"]),
        ({}, 3, ["no label"]),
    ],
)
def test_labels_that_cannot_be_learned(table, bins, words):
    with pytest.raises(InputError) as error:
        Symbols.learn(table, bins)
    assert all(word in str(error.value) for word in words)


def test_symbols_survive_json():
    import json

    again = Symbols.from_dict(json.loads(json.dumps(symbols().to_dict())))
    assert again.groups == symbols().groups


# Tables ------------------------------------------------------------------------------------


def trials(**coords) -> xr.DataArray:
    return xr.DataArray(
        np.zeros(4),
        dims="trial",
        coords={"subject": ("trial", SUBJECT), **{k: ("trial", v) for k, v in coords.items()}},
        attrs={"labels": list(coords)},
    )


def test_labels_from_coordinates():
    X = trials(sex=["f", "f", "m", "m"], age=[1.0, 1, 2, 3])
    assert list(read_labels(None, X, SUBJECT, 4)) == ["sex", "age"]
    assert list(read_labels(["age"], X, SUBJECT, 4)["age"]) == [1, 1, 2, 3]
    assert list(read_labels(np.array(["u", "u", "v", "v"]), X, SUBJECT, 4)) == ["label"]
    with pytest.raises(InputError, match=r"no label iq; .*subject, sex, age"):
        read_labels("iq", X, SUBJECT, 4)
    with pytest.raises(InputError, match="no labels"):
        read_labels(None, np.zeros(4), SUBJECT, 4)
    with pytest.raises(InputError, match=r"\(3,\).*each of 4"):
        read_labels({"sex": np.array(["f", "m", "m"])}, X, SUBJECT, 4)


@pytest.mark.parametrize("form", ["column", "index", "file"])
def test_labels_of_participants_are_joined(form, tmp_path):
    table = pd.DataFrame({"participant_id": ["sub-c", "sub-a", "sub-b"], "age": [3.0, 1, np.nan]})
    given = {"column": table, "index": table.set_index("participant_id"), "file": None}[form]
    if form == "file":
        given = tmp_path / "labels.tsv"
        table.to_csv(given, sep="\t", index=False, na_rep="n/a")
    found = read_labels(given, trials(), SUBJECT, 4)
    np.testing.assert_array_equal(found["age"], [1, 1, np.nan, 3])


def test_unmatched_participants_are_listed():
    table = pd.DataFrame({"subject": ["a", "b", "zoe"], "sex": ["f", "m", "f"]})
    with pytest.warns(UserWarning, match="participants|subjects") as caught:
        found = read_labels(table, trials(), SUBJECT, 4)
    text = " ".join(str(w.message) for w in caught)
    assert "do not know the subjects c" in text
    assert "without trials: zoe" in text
    assert is_missing(found["sex"].to_numpy()).tolist() == [False, False, False, True]
    with pytest.raises(DataError, match="none of the participants"):
        read_labels(table.assign(subject=["x", "y", "z"]), trials(), SUBJECT, 4)


def test_contradictions_are_refused_with_both_values():
    table = pd.DataFrame({"sex": ["f", "m", "m", "f"], "condition": ["u", "v", "u", "u"]})
    with pytest.raises(DataError, match=r"'sex'.*'a' is both 'f' and 'm'"):
        refuse_contradictions(table, SUBJECT, within=["condition"])
    with pytest.raises(DataError, match=r"'condition'.*'a'"):
        refuse_contradictions(table.assign(sex="f"), SUBJECT)
    refuse_contradictions(table.assign(sex=["f", "", "m", ""]), SUBJECT, within=["condition"])
    twice = pd.DataFrame({"subject": ["a", "a", "b", "c", "b"], "sex": ["f", "m", "f", "f", "f"]})
    with pytest.raises(DataError, match=r"'sex'.*'f' and 'm'"):
        read_labels(twice, trials(), SUBJECT, 4)
