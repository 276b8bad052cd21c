"""Batches: every trial once per epoch, whatever the array, order, shard or batch size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.data import Batches
from neuro.errors import DataError, InputError


def rows(batches):
    return np.concatenate([batch["x"].numpy() for batch in batches]).astype(int)


def mapped(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    size=st.integers(1, 70),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    shard=st.sampled_from([None, 4, 40, 4000]),
    part=st.floats(0, 1),
)
def test_every_trial_comes_once(tmp_path_factory, n, size, seed, epoch, shuffle, shard, part):
    array = np.arange(n, dtype=np.float32)
    index = np.random.default_rng(seed).permutation(n)[: max(1, int(part * n))]
    if shard:
        array = mapped(tmp_path_factory.mktemp("mapped"), array)
    batches = Batches(
        {"x": array}, size, index=index, seed=seed, shuffle=shuffle, shard_bytes=shard or 8
    )
    batches.set_epoch(epoch)
    found = rows(batches)
    assert sorted(found) == sorted(index)
    sizes = [len(batch["x"]) for batch in batches]
    assert len(sizes) == len(batches)
    assert set(sizes[:-1]) <= {size}
    assert rows(batches).tolist() == found.tolist() == batches.order().tolist()
    if not shuffle:
        assert found.tolist() == index.tolist()


def test_order_follows_seed_and_epoch():
    def order(seed, epoch):
        batches = Batches({"x": np.arange(100, dtype=np.float32)}, 10, seed=seed)
        batches.set_epoch(epoch)
        return rows(batches).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("shard_bytes", [None, 64])
def test_drop_last_leaves_out_the_smaller_batch(tmp_path, shard_bytes):
    array = np.arange(23, dtype=np.float32)
    array = mapped(tmp_path, array) if shard_bytes else array
    batches = Batches({"x": array}, 10, drop_last=True, shard_bytes=shard_bytes or 64)
    assert [len(batch["x"]) for batch in batches] == [10, 10]
    assert len(batches) == 2


def test_arrays_stay_together_and_keep_their_types(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32)
    y = np.arange(50)
    for source in (x, mapped(tmp_path, x)):
        for batch in Batches({"x": source, "y": y}, 7, shard_bytes=200):
            assert batch["x"].dtype == torch.float32
            assert batch["y"].dtype == torch.int64
            assert batch["x"].is_contiguous()
            np.testing.assert_array_equal(batch["x"], x[batch["y"].numpy()])


def test_a_mapped_array_is_mixed_across_shards(tmp_path):
    array = mapped(tmp_path, np.arange(1000, dtype=np.float32))
    first = next(iter(Batches({"x": array}, 50, shard_bytes=40)))["x"].numpy()
    assert len(set(first // 10)) > 4  # rows of several shards of ten
    assert first.max() - first.min() > 200


def test_batches_are_copies():
    source = np.zeros((4, 2), dtype=np.float32)
    for batch in Batches({"x": source}, 2):
        batch["x"] += 1
    assert source.sum() == 0


def test_read_only_arrays_raise_no_warning(recwarn):
    source = np.zeros((4, 2), dtype=np.float32)
    source.setflags(write=False)
    assert len(list(Batches({"x": source}, 2))) == 2
    assert not recwarn.list


def test_a_boolean_index_and_repeats():
    array = np.arange(6, dtype=np.float32)
    keep = array > 3
    assert sorted(rows(Batches({"x": array}, 2, index=keep))) == [4, 5]
    assert sorted(rows(Batches({"x": array}, 2, index=[1, 1, 2]))) == [1, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "at least one"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, r"\{'x': 3, 'y': 4\}"),
        ({"x": np.array(["a"])}, "array of numbers"),
        ({"x": [1.0]}, "'x' is list"),
    ],
)
def test_bad_arrays_are_named(arrays, message):
    with pytest.raises(InputError, match=message):
        Batches(arrays, 2)


def test_bad_sizes_and_indices():
    x = {"x": np.zeros(3, dtype=np.float32)}
    with pytest.raises(InputError, match="batch_size is 0"):
        Batches(x, 0)
    with pytest.raises(InputError, match="between 0 and 2"):
        Batches(x, 1, index=[3])
    with pytest.raises(DataError, match="no trial"):
        Batches({"x": np.zeros((0, 2), dtype=np.float32)}, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", [True, False, None])
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_gpu_gets_the_same_batches(tmp_path, resident, on_disk):
    x = np.random.default_rng(0).normal(size=(1000, 3, 40)).astype(np.float32)
    source = mapped(tmp_path, x) if on_disk else x
    if on_disk and resident:
        expected = list(Batches({"x": x}, 64))
    else:
        expected = list(Batches({"x": source}, 64, shard_bytes=5000))
    found = list(Batches({"x": source}, 64, device="cuda", resident=resident, shard_bytes=5000))
    for a, b in zip(found, expected, strict=True):
        assert a["x"].is_cuda
        assert torch.equal(a["x"].cpu(), b["x"])
