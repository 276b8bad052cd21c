"""Stimulus images: reading, hashes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from fmri.images import (
    digit_images,
    image_hash,
    images_dataset,
    pick,
    read_images,
    refuse_seen,
    resize,
    training_images,
)
from neuro.data import open_dataset, save_dataset
from neuro.errors import ContractError, DataError, InputError


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 6, 8), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"pic{i}.png")
    return tmp_path


def test_a_folder_of_pictures_is_read_exactly(folder: Path, pixels: np.ndarray) -> None:
    data = read_images(folder)
    assert data.stimulus.values.tolist() == [f"pic{i}" for i in range(5)]
    np.testing.assert_array_equal(np.rint(data.signal.values[:, 0] * 255), pixels)
    assert data.image_hash.values[0] == image_hash(pixels[0][None])
    assert read_images(folder, stimuli=["pic3.png"]).sizes["trial"] == 1


def test_a_dataset_of_images_survives_the_disk(folder: Path, tmp_path: Path) -> None:
    data = read_images(folder)
    save_dataset(data, tmp_path / "images.zarr")
    assert open_dataset(tmp_path / "images.zarr", load=True).identical(data)


def test_sub_folders_are_categories_and_colour_becomes_grey(tmp_path: Path) -> None:
    for i, kind in enumerate(("cat", "house")):
        (tmp_path / kind).mkdir()
        colour = np.zeros((4, 4, 3), dtype=np.uint8)
        colour[..., i] = 255
        Image.fromarray(colour).save(tmp_path / kind / f"{kind}1.jpg", quality=100, subsampling=0)
    data = read_images(tmp_path)
    assert data.sizes["channel"] == 3
    assert data.category.values.tolist() == ["cat", "house"]
    grey = read_images(tmp_path, channels=1)
    np.testing.assert_allclose(grey.signal.values.mean((1, 2, 3)), [0.299, 0.587], atol=0.01)


def test_missing_corrupt_and_unequal_pictures_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 2 stimulus images are missing: nothere"):
        read_images(folder, stimuli=["pic1", "nothere"])
    whole = (folder / "pic2.png").read_bytes()
    (folder / "pic2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"pic2\.png: the picture can't be read.*cut short"):
        read_images(folder)
    Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(folder / "pic2.png")
    with pytest.raises(DataError, match=r"pic2\.png: the picture has \(3, 3\).*size="):
        read_images(folder)
    assert read_images(folder, size=4).signal.shape == (5, 1, 4, 4)
    with pytest.raises(DataError, match="no such folder"):
        read_images(folder / "none")


def test_one_image_under_two_names_is_refused_or_stated(folder: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[0]).save(folder / "copy.png")
    with pytest.raises(DataError, match="the same image under two names: copy = pic0"):
        read_images(folder)
    data = read_images(folder, duplicates="keep")
    assert json.loads(data.attrs["duplicates"]) == [["copy", "pic0"]]
    with pytest.raises(InputError, match="duplicates is 'drop'"):
        read_images(folder, duplicates="drop")


def test_one_name_for_two_images_is_refused(folder: Path, pixels: np.ndarray) -> None:
    (folder / "b").mkdir()
    Image.fromarray(255 - pixels[0]).save(folder / "b" / "pic0.png")
    with pytest.raises(DataError, match="named twice: pic0"):
        read_images(folder)


@pytest.mark.parametrize("suffix", ["npy", "npz", "mat", "h5"])
def test_array_files_are_read(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"stim.{suffix}"
    _write_array(path, pixels)
    data = read_images(path, stimuli=list("abcde"))
    np.testing.assert_array_equal(np.rint(data.signal.values[:, 0] * 255), pixels)


def _write_array(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".npz":
        np.savez(path, stim=pixels)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"stim": pixels, "note": "text"})
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file["stim"] = pixels


def test_columns_first_and_wrong_shapes(tmp_path: Path, pixels: np.ndarray) -> None:
    scipy.io.savemat(
        tmp_path / "s.mat",
        {"a": pixels[:3].transpose(0, 2, 1).reshape(3, -1), "b": pixels[3:].reshape(2, -1)},
    )
    data = read_images(tmp_path / "s.mat", key="a", shape=(6, 8), order="F")
    np.testing.assert_array_equal(np.rint(data.signal.values[:, 0] * 255), pixels[:3])
    both = read_images(tmp_path / "s.mat", key=["a", "b"], shape=(6, 8))
    assert both.sizes["trial"] == 5
    with pytest.raises(DataError, match=r"holds a, b; name one by key="):
        read_images(tmp_path / "s.mat")
    with pytest.raises(DataError, match=r"expected \(image, 35\)"):
        read_images(tmp_path / "s.mat", key="a", shape=(5, 7))
    with pytest.raises(DataError, match="has no c; it holds a, b"):
        read_images(tmp_path / "s.mat", key="c")


def test_pickles_and_cut_files_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    np.save(tmp_path / "o.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="can't be read"):
        read_images(tmp_path / "o.npy")
    np.save(tmp_path / "p.npy", pixels)
    (tmp_path / "p.npy").write_bytes((tmp_path / "p.npy").read_bytes()[:100])
    with pytest.raises(DataError, match="can't be read"):
        read_images(tmp_path / "p.npy")


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="from 0 to 16, expected uint8"):
        images_dataset(np.array([[[0.0, 16.0]]]), ["a"])
    with pytest.raises(DataError, match="without NaN"):
        images_dataset(np.array([[[0.0, np.nan]]]), ["a"])


def test_digits_come_with_the_library() -> None:
    data = digit_images(digits=[6, 9])
    assert data.signal.shape == (361, 1, 8, 8)
    assert set(data.category.values) == {"6", "9"}
    assert digit_images(28, digits=[6]).signal.shape[-2:] == (28, 28)
    with pytest.raises(InputError, match="some of 0 to 9"):
        digit_images(digits=[11])


def test_resampling_keeps_a_flat_picture_flat() -> None:
    flat = np.full((2, 1, 9, 9), 0.25, dtype=np.float32)
    np.testing.assert_allclose(resize(flat, (5, 12)), 0.25, atol=1e-6)


def test_a_test_image_among_the_training_images_is_refused(pixels: np.ndarray) -> None:
    pixels[4] = pixels[0]
    data = images_dataset(pixels, list("abcde"), duplicates="keep")
    with pytest.raises(DataError, match=r"1 test image is among .*leak.*: a is the test image e"):
        training_images(data, ["a", "b"])
    assert training_images(data, ["a", "e", "b"]).stimulus.values.tolist() == ["a", "e", "b"]
    extra = images_dataset(pixels[2:3], ["other"])
    with pytest.raises(DataError, match="other is the test image c"):
        training_images(data, ["a", "e"], extra=extra)
    joined = training_images(data, ["a", "e", "c"], extra=extra)
    assert joined.stimulus.values.tolist() == ["a", "e", "c", "other"]
    with pytest.raises(DataError, match="lack 1 of 1 stimuli: z"):
        training_images(data, ["z"])
    with pytest.raises(ContractError, match="resample them first"):
        training_images(data, ["a", "e"], extra=digit_images())
    with pytest.raises(DataError, match=r"the generator was trained on 1 of 2 test images"):
        refuse_seen(data.image_hash.values[:1], data.isel(trial=[0, 1]), what="the generator")
    assert pick(data, ["d", "a"]).stimulus.values.tolist() == ["d", "a"]
