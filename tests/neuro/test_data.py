"""Datasets: exact on disk, joined only where they agree, items digested by content."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.data import (
    Standardizer,
    as_signal,
    check_finite,
    concat,
    item_digests,
    map_to_file,
    open_dataset,
    save_dataset,
    select_item,
    split_groups,
    stack_trials,
    trial_hashes,
)
from neuro.errors import DataError, InputError


def cohort(n=6, channels=("Fz", "Cz"), n_times=8, seed=0, **attrs):
    rng = np.random.default_rng(seed)
    recording = [f"r{i // 2}" for i in range(n)]
    return xr.Dataset(
        {
            "signal": (
                ("trial", "channel", "time"),
                rng.normal(size=(n, len(channels), n_times)).astype(np.float32),
            )
        },
        coords={
            "channel": list(channels),
            "time": np.arange(n_times) / 100,
            "recording": ("trial", recording),
            "subject": ("trial", [f"sub-{r}" for r in recording]),
            "path": ("trial", [f"/old/{r}.fif" for r in recording]),
            "group": ("trial", ["alc", ""] * (n // 2)),
            "age": ("trial", [31.0, np.nan] * (n // 2)),
        },
        attrs={
            "kind": "eeg",
            "units": "uV",
            "sfreq": 100.0,
            "labels": ["group", "age"],
            "item": "recording",
            "preprocessing": json.dumps({"l_freq": 0.1}),
            "quality": json.dumps([{"recording": r} for r in dict.fromkeys(recording)]),
            **attrs,
        },
    )


# On disk ----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(texts, min_size=1, max_size=6),
    as_object=st.booleans(),
    attr=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | texts
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_save_then_open_is_exact(tmp_path_factory, names, as_object, attr, seed):
    folder = tmp_path_factory.mktemp("data") / "d.zarr"
    rng = np.random.default_rng(seed)
    n = len(names)
    signal = rng.normal(size=(n, 2, 3)).astype(np.float32)
    signal[0, 0, 0] = np.nan
    data = xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": ["a", "ü"],
            "subject": ("trial", np.array(names, dtype=object if as_object else str)),
            "length": ("trial", rng.integers(0, 9, n)),
            "mask": (("trial", "time"), rng.random((n, 3)) > 0.5),
        },
        attrs={"note": attr},
    )
    save_dataset(data, folder)
    back = open_dataset(folder, load=True)
    assert back.subject.values.tolist() == names
    assert back.signal.dtype == np.float32
    assert back.mask.dtype == bool
    assert back.assign_coords(subject=data.subject).identical(data)


def test_saving_warns_of_nothing_and_needs_no_pickle(tmp_path, recwarn):
    save_dataset(cohort(), tmp_path / "d.zarr")
    data = xr.open_zarr(tmp_path / "d.zarr")  # as anybody would
    assert data.signal.shape == (6, 2, 8)
    assert data.group.values.tolist() == ["alc", ""] * 3
    assert not [w for w in recwarn.list if "pickle" in str(w.message) or "zarr" in str(w.message)]
    for path in (tmp_path / "d.zarr").rglob(".zarray"):
        assert "pickle" not in path.read_text()
        assert json.loads(path.read_text())["dtype"] != "|O"


def test_opening_is_lazy_and_saving_again_is_exact(tmp_path):
    save_dataset(cohort(), tmp_path / "a.zarr")
    lazy = open_dataset(tmp_path / "a.zarr")
    assert not lazy.signal.variable._in_memory
    save_dataset(lazy, tmp_path / "b.zarr")
    assert open_dataset(tmp_path / "b.zarr").identical(cohort())
    save_dataset(lazy.isel(trial=slice(0, 2)), tmp_path / "b.zarr")  # replaces
    assert open_dataset(tmp_path / "b.zarr").sizes["trial"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_an_empty_dataset_can_be_kept(tmp_path):
    save_dataset(cohort().isel(trial=[]), tmp_path / "d.zarr")
    assert open_dataset(tmp_path / "d.zarr").sizes["trial"] == 0


def test_what_needs_a_pickle_is_refused(tmp_path):
    with pytest.raises(DataError, match="'thing' holds dict"):
        save_dataset(cohort().assign_coords(thing=("trial", [{}] * 6)), tmp_path / "d")
    with pytest.raises(DataError, match="attribute 'made'"):
        save_dataset(cohort(made={1, 2}), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_damage_is_named(tmp_path):
    folder = tmp_path / "d.zarr"
    with pytest.raises(DataError, match="no such dataset folder"):
        open_dataset(folder)
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds notes\.txt"):
        open_dataset(folder)
    save_dataset(cohort(), folder)
    (folder / "signal" / "0.0.0").unlink()
    with pytest.raises(DataError, match="'signal' has 0 of 1 chunks"):
        open_dataset(folder)
    save_dataset(cohort(), folder)
    chunk = folder / "signal" / "0.0.0"
    whole = chunk.read_bytes()
    for damaged in (whole[:50], whole[:-20] + bytes(20)):
        chunk.write_bytes(damaged)
        with pytest.raises(DataError, match="can't be read"):
            open_dataset(folder, load=True)


def test_all_zero_data_has_all_its_chunks(tmp_path):
    save_dataset(cohort() * 0, tmp_path / "d.zarr")
    assert float(open_dataset(tmp_path / "d.zarr").signal.max()) == 0


# Items ------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), chosen=st.sampled_from(["r0", "r1", "r2"]))
def test_digests_follow_content_alone(seed, chosen):
    data = cohort()
    before = dict(item_digests(data))
    # Elsewhere on disk, and the other items' trials in another order between this one's.
    order = np.random.default_rng(seed).permutation(6)
    own = data.recording.values[order] == chosen
    order[own] = np.sort(order[own])
    moved = data.isel(trial=order).assign_coords(path=("trial", [f"/new/{i}" for i in range(6)]))
    assert dict(item_digests(moved))[chosen] == before[chosen]
    # One value of one trial changes its item's digest, and no other's.
    trial = seed % 6
    changed = data.copy(deep=True)
    changed.signal[trial, 0, 0] += 1
    after = dict(item_digests(changed))
    assert {k for k in after if after[k] != before[k]} == {str(data.recording.values[trial])}


def test_a_new_item_leaves_the_others_alone():
    data = cohort(8)
    wide = data.assign_coords(
        subject=("trial", [*data.subject.values[:6].tolist(), *["a-much-longer-name"] * 2]),
        visits=("trial", [1.0, 2, 3, 4, 5, 6, np.nan, np.nan]),
    )
    small = wide.isel(trial=slice(6))
    small = small.assign_coords(
        subject=("trial", small.subject.values.astype("<U6")),
        visits=("trial", small.visits.values.astype(int)),
    )
    small.attrs["quality"] = json.dumps(json.loads(data.attrs["quality"])[:3])
    assert item_digests(wide)[:3] == item_digests(small)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.assign_coords(subject=("trial", ["x"] * 6)),
        lambda d: d.assign_coords(time=d.time + 1),
        lambda d: d.assign_coords(channel=["Fz", "Pz"]),
        lambda d: d.assign_attrs(units="V"),
        lambda d: d.rename(age="years"),
        lambda d: d.astype(np.float64),
        lambda d: d.drop_vars("group"),
        lambda d: d.isel(trial=[1, 0, 3, 2, 5, 4]),
        lambda d: d.isel(trial=[0, 2, 4]),
    ],
)
def test_every_change_a_stage_could_see_changes_the_digest(change):
    before, after = dict(item_digests(cohort())), dict(item_digests(change(cohort())))
    assert all(after[item] != before[item] for item in before)


def test_digests_are_the_same_from_disk_and_name_what_select_gives(tmp_path):
    data = cohort()
    save_dataset(data, tmp_path / "d.zarr")
    lazy = open_dataset(tmp_path / "d.zarr")
    assert item_digests(lazy) == item_digests(data)
    part = select_item(lazy, "r1")
    assert part.recording.values.tolist() == ["r1", "r1"]
    assert json.loads(part.attrs["quality"]) == [{"recording": "r1"}]
    assert item_digests(part) == [item_digests(data)[1]]
    with pytest.raises(InputError, match="no item 'r9'"):
        select_item(data, "r9")


def test_without_an_item_coordinate_every_trial_is_one():
    data = cohort(4)
    del data.attrs["item"]
    assert [name for name, _ in item_digests(data)] == ["0", "1", "2", "3"]
    assert select_item(data, "2").sizes["trial"] == 1
    with pytest.raises(InputError, match="items are 'burst'"):
        item_digests(data.assign_attrs(item="burst"))


def test_a_catalogue_has_items_without_a_signal():
    catalogue = cohort().drop_vars(["signal", "channel", "time"]).isel(trial=[0, 2, 4])
    assert [name for name, _ in item_digests(catalogue)] == ["r0", "r1", "r2"]
    with pytest.raises(DataError, match="no variable 'signal'"):
        as_signal(catalogue)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_items_joined_again_are_the_dataset(seed):
    data = cohort(8, seed=seed)
    parts = [select_item(data, name) for name, _ in item_digests(data)]
    assert concat(parts).identical(data)


# Joining ----------------------------------------------------------------------------------


def test_concat_puts_channels_in_order_and_fills_labels():
    one, two = cohort(4), cohort(2, channels=("Cz", "Fz"), seed=1)
    two = two.drop_vars(["group", "age"]).assign_coords(visit=("trial", [1, 2]))
    two.attrs["labels"] = ["visit"]
    both = concat([one, two])
    assert both.channel.values.tolist() == ["Fz", "Cz"]
    np.testing.assert_array_equal(both.signal[4:, 0], two.signal[:, 1])
    assert both.group.values.tolist() == ["alc", "", "alc", "", "", ""]
    assert np.isnan(both.age.values[4:]).all()
    assert both.visit.values[4:].tolist() == [1, 2]
    assert both.attrs["labels"] == ["group", "age", "visit"]
    assert len(json.loads(both.attrs["quality"])) == 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (cohort(channels=("Fz", "Pz")), r"only in the first: \['Cz'\].*in the second: \['Pz'\]"),
        (cohort(channels=("Fz",)), "2 against 1 channels"),
        (cohort(sfreq=128.0), "'sfreq' is 100.0 against 128.0"),
        (cohort(units="V"), "'units' is 'uV' against 'V'"),
        (cohort(n_times=9), r"'time' is 0 to 0.07 \(8\) against 0 to 0.08 \(9\)"),
        (cohort(preprocessing="{}"), "'preprocessing' is"),
    ],
)
def test_concat_names_both_sides_of_a_difference(other, message):
    other = other.assign_coords(recording=("trial", ["other"] * 6))
    with pytest.raises(DataError, match=message) as caught:
        concat([cohort(), other])
    assert "recording r0, r1, r2" in str(caught.value)
    assert "recording other" in str(caught.value)


# Splits, statistics, checks ---------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 8), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
    test_size=st.floats(0.05, 0.95),
    stratify=st.booleans(),
    seed=st.integers(0, 20),
)
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_splits_never_share_a_group(groups, test_size, stratify, seed):
    groups = np.array(groups)
    labels = groups % 2 if stratify else None
    if stratify and max(np.bincount(labels)) < 2:
        with pytest.raises(InputError, match="occur once each"):
            split_groups(groups, groups, stratify=labels)
        return
    train, test = split_groups(
        groups, groups, test_size=test_size, stratify=labels, random_state=seed
    )
    assert not set(groups[train]) & set(groups[test])
    assert sorted([*train, *test]) == list(range(len(groups)))
    assert len(train)
    assert len(test)
    again = split_groups(groups, groups, test_size=test_size, stratify=labels, random_state=seed)
    assert np.array_equal(again[0], train)


def test_stratified_split_keeps_the_shares():
    subject = np.repeat([f"s{i}" for i in range(40)], 5)
    label = np.repeat(["a", "a", "a", "b"] * 10, 5)
    data = xr.Dataset(coords={"subject": ("trial", subject), "group": ("trial", label)})
    train, test = split_groups(data, test_size=0.2, stratify="group", random_state=0)
    assert len(test) / 200 == pytest.approx(0.2, abs=0.03)
    assert (label[test] == "b").mean() == pytest.approx(0.25, abs=0.05)
    assert len(train) + len(test) == 200


def test_splits_refuse_what_they_cannot_do():
    with pytest.raises(InputError, match=r"found 1 group\(s\)"):
        split_groups(np.zeros(3), ["a", "a", "a"])
    with pytest.raises(InputError, match=r"test_size is 1\.5"):
        split_groups(np.zeros(2), ["a", "b"], test_size=1.5)
    with pytest.raises(InputError, match="no coordinate 'site'"):
        split_groups(cohort(), "site")
    with pytest.raises(InputError, match="each of 3 trials"):
        split_groups(np.zeros(3), ["a", "b"])


def test_standardizer_matches_numpy_and_survives_json():
    X = np.random.default_rng(0).normal(1e4, 3, (100, 3, 50)).astype(np.float32)
    X[:, 2] = 7
    scaler = Standardizer.fit(X)
    np.testing.assert_allclose(scaler.mean, X.mean((0, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scaler.sd[:2], X[:, :2].std((0, 2), dtype=np.float64), rtol=1e-5)
    assert scaler.sd[2] == 1
    Z = scaler.transform(X)
    assert Z.dtype == np.float32
    assert np.abs(Z[:, 2]).max() == 0
    np.testing.assert_allclose(scaler.inverse(Z), X, rtol=1e-6)
    back = Standardizer.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert back.mean.tobytes() == scaler.mean.tobytes()
    assert back.sd.tobytes() == scaler.sd.tobytes()


def test_standardizer_leaves_padding_out():
    rng = np.random.default_rng(0)
    lengths = [5, 9, 7]
    series = [rng.normal(4, 2, (2, n)) for n in lengths]
    data = stack_trials(series, sfreq=10.0, channels=["a", "b"])
    scaler = Standardizer.fit(data.signal.values, data.mask.values)
    joined = np.concatenate(series, axis=1)
    np.testing.assert_allclose(scaler.mean, joined.mean(1), rtol=1e-5)
    np.testing.assert_allclose(scaler.sd, joined.std(1), rtol=1e-5)


def test_unequal_series_are_padded_and_masked(tmp_path):
    data = stack_trials(
        [np.ones((1, 2)), np.ones((1, 4))], sfreq=4.0, channels=["a"], subject=["x", "y"]
    )
    assert data.mask.values.tolist() == [[True, True, False, False], [True] * 4]
    assert data.signal.values[0, 0].tolist() == [1, 1, 0, 0]
    save_dataset(data, tmp_path / "d.zarr")
    assert open_dataset(tmp_path / "d.zarr").identical(data)
    equal = stack_trials([np.ones((1, 2))] * 2, sfreq=4.0, channels=["a"])
    assert "mask" not in equal.coords
    with pytest.raises(DataError, match=r"trial 1 has the shape \(2, 3\)"):
        stack_trials([np.ones((1, 3)), np.ones((2, 3))], sfreq=1.0, channels=["a"])


def test_nan_is_refused_with_its_place():
    signal = as_signal(cohort())
    check_finite(signal)
    signal[3, 1, 2] = np.inf
    with pytest.raises(DataError, match="trial 3, recording r1, subject sub-r1, channel Cz"):
        check_finite(signal)


def test_as_signal_carries_what_encoders_check():
    signal = as_signal(cohort())
    assert (signal.units, signal.sfreq) == ("uV", 100.0)
    assert json.loads(signal.preprocessing) == {"l_freq": 0.1}
    assert "subject" in signal.coords


def test_a_signal_maps_to_a_file(tmp_path):
    save_dataset(cohort(), tmp_path / "d.zarr")
    mapped = map_to_file(as_signal(open_dataset(tmp_path / "d.zarr")), tmp_path / "x.npy")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, cohort().signal)


def test_trial_hashes_follow_rows():
    X = cohort().signal.values
    assert trial_hashes(X[::-1]) == trial_hashes(X)[::-1]
    assert len(set(trial_hashes(X))) == len(X)
