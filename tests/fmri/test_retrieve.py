"""Galleries and retrieval: exact in blocks, refused where spaces differ, re-ranked by tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from fmri.gallery import as_gallery, gallery_dataset, open_gallery, pool_tokens
from fmri.gallery_build import build_gallery
from fmri.images import digit_images
from fmri.retrieve import best_pictures, picture_grid, rerank, retrieve, retrieve_both
from fmri.search import build_index, open_index, top_k
from fmri.simulate import RandomTokens
from fmri.targets import compute_targets
from neuro.data import save_dataset
from neuro.errors import ContractError, DataError, InputError


@pytest.fixture(scope="module")
def images():
    return digit_images(digits=[6, 9])


@pytest.fixture(scope="module")
def targets(images):
    return compute_targets(images, RandomTokens(4, 16), batch_size=1000)


@pytest.fixture
def gallery(images, targets, tmp_path):
    return build_gallery(targets, tmp_path / "gallery", images=images, block=50)


def noisy(targets, rows, sd=0.2, seed=0):
    signal = targets["signal"].isel(trial=rows).astype("float32")
    return signal + sd * np.random.default_rng(seed).standard_normal(signal.shape).astype("f4")


def brute(queries, candidates, k):
    scores = queries.astype(np.float32) @ candidates.astype(np.float32).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.parametrize("block", [None, 7, 16, 1000])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_top_k_in_blocks_is_the_sorted_matrix(block, k, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "m.npy", rng.standard_normal((100, 12)).astype(np.float16))
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    queries = rng.standard_normal((9, 12)).astype(np.float32)
    scores, rows = top_k(queries, mapped, k, block=block)
    expected, order = brute(queries, np.asarray(mapped), k)
    assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert_array_equal(rows, order)


def test_falling_and_rising_candidates_both_work():
    """The order of candidates decides how often a block changes the best ones."""
    line = np.linspace(0.1, 1, 3000, dtype=np.float32)[:, None]
    for candidates in (line, line[::-1].copy()):
        scores, rows = top_k(np.ones((2, 1)), candidates, 4, block=64)
        expected, order = brute(np.ones((2, 1)), candidates, 4)
        assert_array_equal(rows, order)
        assert_allclose(scores, expected)


def test_faiss_flat_finds_the_same(tmp_path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    candidates = rng.standard_normal((400, 16)).astype(np.float16)
    queries = rng.standard_normal((5, 16)).astype(np.float32)
    build_index(candidates, path=tmp_path / "index.faiss")
    index = open_index(tmp_path / "index.faiss")
    ours, theirs = (top_k(queries, candidates, 6, index=i) for i in (None, index))
    assert_array_equal(ours[1], theirs[1])
    assert_allclose(ours[0], theirs[0], rtol=1e-4)
    near = build_index(candidates, "IVF4,Flat")
    assert top_k(queries, candidates, 1, index=near)[1].shape == (5, 1)
    with pytest.raises(ContractError, match="index holds"):
        top_k(queries, candidates[:10], 6, index=index)
    with pytest.raises(InputError, match="faiss knows no index"):
        build_index(candidates, "Magic7")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no index"):
        open_index(tmp_path / "broken")


@pytest.mark.parametrize(
    ("k", "queries", "error"),
    [(0, np.ones((1, 3)), InputError), (6, np.ones((1, 3)), InputError),
     (1, np.ones((1, 4)), ContractError), (1, np.full((1, 3), np.nan), DataError),
     (1, np.ones(3), InputError)],
)  # fmt: skip
def test_searches_that_can_t_be_are_refused(k, queries, error):
    with pytest.raises(error):
        top_k(queries, np.ones((5, 3)), k)


def test_a_gallery_holds_what_it_was_made_of(gallery, targets, images):
    assert len(gallery) == images.sizes["trial"]
    assert gallery.embeddings.dtype == np.float16
    assert isinstance(gallery.embeddings, np.memmap)
    assert_allclose(gallery.embeddings, pool_tokens(targets["signal"].values), atol=1e-3)
    assert_array_equal(gallery.pictures, np.rint(images["signal"].values * 255))
    assert_array_equal(gallery.image_hash, images["image_hash"].values)
    assert gallery.tokens.shape == (361, 4, 16)


def test_retrieval_finds_the_seen_image_and_grids_it(gallery, targets, images):
    seen = noisy(targets, slice(10, 20))
    found = retrieve(seen, gallery, 6, fingerprint=targets.attrs["fingerprint"])
    assert found.right[:, 0].mean() >= 0.8
    assert (np.diff(found.scores, axis=1) <= 1e-6).all()
    table = found.table()
    assert list(table.columns) == ["query", "rank", "found", "score", "right"]
    assert len(table) == 60
    grid = picture_grid(found, gallery, images, n=5)
    assert grid["picture"].shape == (10, 6, 1, 8, 8)
    assert grid["place"].values.tolist() == ["seen", "1", "2", "3", "4", "5"]
    assert_allclose(grid["picture"].values[:, 0], images["signal"].values[10:20])
    best = best_pictures(found, gallery)
    assert_allclose(best.values[0], gallery.pictures[found.rows[0, 0]] / np.float32(255))
    assert best["stimulus"].values.tolist() == found.query.tolist()


def test_other_spaces_are_refused(gallery, targets, tmp_path):
    seen = noisy(targets, slice(0, 3))
    with pytest.raises(ContractError, match="no fingerprint"):
        retrieve(seen.drop_attrs(), gallery)
    other = json.dumps(RandomTokens(4, 16, seed=9).fingerprint())
    with pytest.raises(ContractError, match=r"weights_hash is .*seed-0.*expected .*seed-9"):
        retrieve(seen, gallery, fingerprint=other)
    with pytest.raises(ContractError, match="weights_hash"):
        open_gallery(gallery.folder, fingerprint=other)
    with pytest.raises(ContractError, match="tokens of the shape"):
        retrieve(seen[:, :2], gallery, fingerprint=targets.attrs["fingerprint"])


def test_re_ranking_puts_the_candidates_in_the_order_of_all_tokens(images, targets, tmp_path):
    gallery = build_gallery(
        targets, tmp_path / "g", images=images, pooling="mean", keep_tokens=True
    )
    fingerprint = targets.attrs["fingerprint"]
    seen = noisy(targets, slice(0, 40), 0.6)
    coarse = retrieve(seen, gallery, 16, fingerprint=fingerprint)
    fine = rerank(coarse, seen, gallery, fingerprint=fingerprint)
    asked, held = pool_tokens(seen.values), pool_tokens(targets["signal"].values)
    for query in range(40):
        assert set(fine.rows[query]) == set(coarse.rows[query])
        expected = held[fine.rows[query]] @ asked[query]
        assert_allclose(fine.scores[query], expected, atol=2e-3)
        assert (np.diff(fine.scores[query]) <= 0).all()
    assert fine.right[:, 0].mean() > coarse.right[:, 0].mean()
    bare = build_gallery(targets, tmp_path / "bare", pooling="first")
    with pytest.raises(InputError, match="keep_tokens"):
        rerank(coarse, seen, bare, fingerprint=fingerprint)
    with pytest.raises(DataError, match="no pictures"):
        best_pictures(coarse, bare)


def test_both_directions(targets):
    seen = noisy(targets, slice(0, 30))
    image, brain = retrieve_both(seen, targets, 5)
    assert image.right[:, 0].mean() > 0.8
    assert brain.right[:, 0].mean() > 0.8
    assert (image.direction, brain.direction) == ("image", "brain")


def test_parts_make_one_gallery(images, targets, tmp_path):
    cut = [slice(0, 100), slice(100, 361)]
    parts = [(targets.isel(trial=rows), images.isel(trial=rows)) for rows in cut]
    joined = build_gallery(parts, tmp_path / "parts", block=64)
    whole = build_gallery(targets, tmp_path / "whole", images=images)
    assert_array_equal(joined.embeddings, whole.embeddings)
    assert_array_equal(joined.pictures, whole.pictures)
    with pytest.raises(DataError, match="twice"):
        build_gallery([parts[0], parts[0]], tmp_path / "twice")
    other = compute_targets(images.isel(trial=cut[1]), RandomTokens(4, 16, seed=1))
    with pytest.raises(ContractError, match="part 1"):
        build_gallery([parts[0], (other, None)], tmp_path / "mixed")
    with pytest.raises(DataError, match="lacks the pictures"):
        build_gallery(targets, tmp_path / "few", images=parts[0][1])
    bad = targets.copy(deep=True)
    bad["signal"][5] = np.nan
    with pytest.raises(DataError, match="NaN"):
        build_gallery(bad, tmp_path / "nan")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "whole"]  # nothing half-written


def test_a_gallery_travels_as_a_dataset(gallery, targets, tmp_path):
    data = gallery_dataset(gallery)
    save_dataset(data, tmp_path / "stage")
    for again in (as_gallery(data), open_gallery(tmp_path / "stage")):
        assert_allclose(again.embeddings, gallery.embeddings, atol=1e-3)
        assert_array_equal(again.pictures, gallery.pictures)
        assert again.fingerprint == gallery.fingerprint
    first = build_gallery(targets, tmp_path / "first", pooling="first")
    again = as_gallery(gallery_dataset(first))
    assert again.tokens is None
    assert_array_equal(again.embeddings, first.embeddings)
    with pytest.raises(DataError, match="expected 'gallery'"):
        as_gallery(targets)


def test_damage_is_named(gallery, tmp_path):
    with pytest.raises(DataError, match="no gallery"):
        open_gallery(tmp_path)
    np.save(gallery.folder / "embeddings.npy", np.zeros((3, 3), np.float16))
    with pytest.raises(DataError, match="shape"):
        open_gallery(gallery.folder)
    (gallery.folder / "gallery.json").write_text("{")
    with pytest.raises(DataError, match="can't be read"):
        open_gallery(gallery.folder)


def test_a_lazily_opened_target_set_is_read_in_blocks(targets, tmp_path):
    save_dataset(targets, tmp_path / "targets.zarr")
    lazy = xr.open_zarr(tmp_path / "targets.zarr", chunks=None)
    gallery = build_gallery(lazy, tmp_path / "gallery", block=100)
    assert_allclose(gallery.embeddings, pool_tokens(targets["signal"].values), atol=1e-3)
