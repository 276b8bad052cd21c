"""Targets: providers, the cache, fingerprints, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from fmri.images import digit_images, images_dataset
from fmri.providers import ArrayFile, AutoencoderTokens, CategoryAttributes, PixelPCA
from fmri.targets import (
    Provider,
    check_fingerprint,
    compute_targets,
    open_targets,
    refuse_leak,
    targets_dataset,
)
from neuro.batches import Batches
from neuro.data import open_dataset, save_dataset
from neuro.errors import ContractError, DataError, InputError


@pytest.fixture(scope="module")
def digits() -> xr.Dataset:
    return digit_images(digits=[6, 9])


@pytest.fixture
def pca(digits: xr.Dataset) -> PixelPCA:
    return PixelPCA(5).fit(digits, train_stimuli=digits.stimulus.values[:100])


class Counting(Provider):
    """Counts what it encodes; its weights are a number."""

    kind = "counting"
    random_weights = True
    scale = 2.0

    def __init__(self, weights: float = 1.0) -> None:
        self.weights, self.seen = weights, 0

    def fingerprint(self) -> dict[str, Any]:
        return {"provider": self.kind, "arch": "sum", "weights_hash": str(self.weights)}

    def encode(self, images: xr.Dataset) -> np.ndarray:
        self.seen += images.sizes["trial"]
        sums = images.signal.values.sum((1, 2, 3), keepdims=True)[..., 0]
        return sums * self.weights


def test_targets_are_keyed_by_stimulus_and_survive_the_disk(
    digits: xr.Dataset, tmp_path: Path
) -> None:
    targets = compute_targets(digits, Counting(), batch_size=50)
    assert targets.signal.shape == (361, 1, 1)
    assert targets.signal.dtype == np.float16
    assert targets.attrs["kind"] == "targets"
    assert (targets.attrs["random_weights"], targets.attrs["scale"]) == (1, 2.0)
    assert json.loads(targets.attrs["fingerprint"])["arch"] == "sum"
    save_dataset(targets, tmp_path / "t.zarr")
    assert open_dataset(tmp_path / "t.zarr", load=True).identical(targets)


def test_the_cache_is_computed_once_and_mapped(digits: xr.Dataset, tmp_path: Path) -> None:
    provider = Counting()
    first = compute_targets(digits, provider, cache=tmp_path / "c")
    again = compute_targets(digits, provider, cache=tmp_path / "c")
    assert provider.seen == 361
    assert first.identical(again)
    np.testing.assert_array_equal(again.signal, compute_targets(digits, provider).signal)
    assert Batches({"y": again.signal.values}, 4).mapped
    part = digits.isel(trial=[5, 2])
    np.testing.assert_array_equal(
        compute_targets(part, provider, cache=tmp_path / "c").signal, first.signal[[5, 2]]
    )
    assert open_targets(tmp_path / "c").sizes["trial"] == 361


def test_a_cache_of_another_provider_is_refused_naming_both(
    digits: xr.Dataset, tmp_path: Path
) -> None:
    compute_targets(digits, Counting(1.0), cache=tmp_path / "c")
    with pytest.raises(ContractError, match=r'weights_hash is "1\.0", expected "2\.0"'):
        compute_targets(digits, Counting(2.0), cache=tmp_path / "c")


def test_a_cache_of_other_images_is_refused(digits: xr.Dataset, tmp_path: Path) -> None:
    few = digits.isel(trial=slice(3))
    compute_targets(few, Counting(), cache=tmp_path / "c")
    with pytest.raises(DataError, match="lack 358 of 361 stimuli"):
        compute_targets(digits, Counting(), cache=tmp_path / "c")
    other = images_dataset(1 - few.signal.values, few.stimulus.values)
    with pytest.raises(ContractError, match="computed from another image of 'digit-0006'"):
        compute_targets(other, Counting(), cache=tmp_path / "c")


def test_a_damaged_cache_is_refused(digits: xr.Dataset, tmp_path: Path) -> None:
    compute_targets(digits, Counting(), cache=tmp_path / "c")
    values = (tmp_path / "c" / "targets.npy").read_bytes()
    (tmp_path / "c" / "targets.npy").write_bytes(values[:300])
    with pytest.raises(DataError, match=r"targets\.npy can't be read"):
        open_targets(tmp_path / "c")
    (tmp_path / "c" / "targets.json").write_text("{}")
    with pytest.raises(DataError, match=r"targets\.json can't be read"):
        open_targets(tmp_path / "c")
    with pytest.raises(DataError, match="is no cache of targets"):
        open_targets(tmp_path)


def test_nothing_half_written_where_encoding_fails(digits: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the target of 'digit-\d+' isn't finite in float16"):
        compute_targets(digits, Counting(1e5), cache=tmp_path / "c", batch_size=10)
    assert list(tmp_path.iterdir()) == []
    assert np.isfinite(compute_targets(digits, Counting(1e5), dtype="float32").signal).all()


def test_pixel_components_go_there_and_back(digits: xr.Dataset, pca: PixelPCA) -> None:
    targets = compute_targets(digits, pca, dtype="float32")
    back = pca.decode(targets.signal.values)
    assert back.shape == digits.signal.shape
    whole = PixelPCA(60).fit(digits, train_stimuli=digits.stimulus.values)
    assert whole.explained_ > 0.999
    np.testing.assert_allclose(whole.decode(whole.encode(digits)), digits.signal, atol=0.1)
    with pytest.raises(InputError, match="expected 1 to 9"):
        PixelPCA(50).fit(digits, train_stimuli=digits.stimulus.values[:10])
    with pytest.raises(InputError, match="isn't fitted"):
        PixelPCA().fingerprint()


def test_a_provider_trained_on_a_test_image_is_refused(digits: xr.Dataset, pca: PixelPCA) -> None:
    targets = compute_targets(digits, pca)
    refuse_leak(targets, digits.isel(trial=slice(100, None)))
    with pytest.raises(DataError, match=r"'pixel-pca'.*trained on 1 of 262 test images \(leak\)"):
        refuse_leak(targets, digits.isel(trial=slice(99, None)))
    twice = images_dataset(digits.signal.values[[0, 1, 2, 3, 0]], list("abcde"), duplicates="keep")
    with pytest.raises(DataError, match="a is the test image e"):
        PixelPCA(1).fit(twice, train_stimuli=list("abc"))


def test_the_fingerprint_tells_folds_apart(digits: xr.Dataset, pca: PixelPCA) -> None:
    other = PixelPCA(5).fit(digits, train_stimuli=digits.stimulus.values[1:101])
    with pytest.raises(ContractError, match="weights_hash is"):
        check_fingerprint(pca.fingerprint(), other.fingerprint())
    check_fingerprint(json.dumps(pca.fingerprint()), pca.fingerprint())


# Array files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["npz", "npz-each", "npy", "h5", "h5-each", "zarr"])
def test_array_files_are_looked_up_by_stimulus(tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    path = _write(tmp_path, form, ["a", "b", "c"], values)
    targets = compute_targets(["c", "a"], ArrayFile(path), dtype="float32")
    np.testing.assert_array_equal(targets.signal, values[[2, 0]])
    with pytest.raises(DataError, match="no embedding of 1 of 2 stimuli: x; it holds a, b, c"):
        compute_targets(["a", "x"], ArrayFile(path))


def _write(folder: Path, form: str, names: list[str], values: np.ndarray) -> Path:
    path = folder / f"e.{form.partition('-')[0]}"
    if form == "npz":
        np.savez(path, ids=names, embeddings=values)
    elif form == "npz-each":
        np.savez(path, **dict(zip(names, values, strict=True)))
    elif form == "npy":
        np.save(path, values)
        (folder / "e.ids.txt").write_text("\n".join(names))
    elif form == "zarr":
        coords = {"stimulus": ("trial", names)}
        save_dataset(xr.Dataset({"signal": (("trial", "token", "feature"), values)}, coords), path)
    else:
        with h5py.File(path, "w") as file:
            pairs = dict(zip(names, values, strict=True))
            for key, value in pairs.items() if "each" in form else ():
                file[key] = value
            if "each" not in form:
                file["ids"], file["embeddings"] = names, values
    return path


def test_saved_targets_keep_their_marks_through_a_file(digits: xr.Dataset, tmp_path: Path) -> None:
    save_dataset(compute_targets(digits, Counting()), tmp_path / "t.zarr")
    targets = compute_targets(digits, ArrayFile(tmp_path / "t.zarr"))
    assert (targets.attrs["random_weights"], targets.attrs["scale"]) == (1, 2.0)
    assert json.loads(targets.attrs["fingerprint"])["preprocessing"]["provider"] == "counting"


def test_bad_array_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match="names of its rows are missing"):
        ArrayFile(tmp_path / "e.npy")
    with pytest.raises(DataError, match=r"3 names \(2 different\) for 2 rows"):
        ArrayFile(tmp_path / "e.npy", ids=["a", "a", "b"])
    assert ArrayFile(tmp_path / "e.npy", ids=["a", "b"]).n_stimuli == 2
    np.savez(tmp_path / "e.npz", a=np.zeros(2), b=np.zeros(3))
    with pytest.raises(DataError, match="expected 'ids' and 'embeddings'"):
        ArrayFile(tmp_path / "e.npz")
    (tmp_path / "e.npz").write_bytes(b"PK broken")
    with pytest.raises(DataError, match="can't be read"):
        ArrayFile(tmp_path / "e.npz")
    with pytest.raises(DataError, match="no such file"):
        ArrayFile(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"expected \.npz"):
        ArrayFile(Path(__file__))


# Attributes ------------------------------------------------------------------------------------


def test_attributes_are_looked_up_by_category_and_name_their_source(tmp_path: Path) -> None:
    table = pd.DataFrame({"animate": [1, 0, 0], "size": [0.3, 10, 0.2]}, ["cat", "house", "cup"])
    provider = CategoryAttributes(table, source="a survey")
    names = xr.Dataset(
        coords={"stimulus": ("trial", ["s1", "s2"]), "category": ("trial", ["cup", "cat"])}
    )
    targets = compute_targets(names, provider, dtype="float32")
    assert targets.attrs["source"] == "a survey"
    assert targets.feature.values.tolist() == ["animate", "size"]
    np.testing.assert_allclose(provider.values.std(0), 1)
    np.testing.assert_allclose(targets.signal[0, 0], provider.values[2], rtol=1e-6)
    by_name = compute_targets(["house", "cat"], provider)
    assert by_name.signal.shape == (2, 1, 2)
    with pytest.raises(DataError, match="no category dog; it has cat, house, cup"):
        compute_targets(["dog"], provider)
    table.to_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="its source is missing"):
        CategoryAttributes(tmp_path / "t.csv")
    again = CategoryAttributes(tmp_path / "t.csv", source="elsewhere")
    assert again.fingerprint() == provider.fingerprint()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, None], "b": [1, 2]}, "1 cells hold no number, first in y"),
        ({"a": ["x", "y"], "b": [1, 2]}, "2 cells hold no number"),
        ({"a": [1, 1], "b": [2, 2]}, "two rows have one category or the same attributes"),
        ({"a": [1, 1], "b": [2, 3]}, "the attributes a are the same everywhere"),
    ],
)
def test_bad_tables_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CategoryAttributes(pd.DataFrame(columns, ["x", "y"]), source="here")


# The interface ---------------------------------------------------------------------------------


def test_what_needs_pixels_gets_them(digits: xr.Dataset, pca: PixelPCA) -> None:
    with pytest.raises(InputError, match="needs pixels"):
        compute_targets(["a"], pca)
    with pytest.raises(DataError, match="no coordinate 'stimulus'"):
        compute_targets(digits.drop_vars("stimulus"), pca)
    with pytest.raises(InputError, match="dtype 'int8'"):
        compute_targets(digits, pca, dtype="int8")
    with pytest.raises(ContractError, match=r"expected \(1, 8, 8\)"):
        compute_targets(digit_images(12, digits=[6]), pca)
    with pytest.raises(InputError, match="batch_size is 0"):
        compute_targets(digits, pca, batch_size=0)
    assert targets_dataset(np.zeros((1, 1, 5)), ["a"], pca).sizes["feature"] == 5


def test_an_unfitted_autoencoder_is_no_provider() -> None:
    from sklearn.exceptions import NotFittedError

    from fmri.autoencoder import ImageAutoencoder

    with pytest.raises(NotFittedError):
        AutoencoderTokens(ImageAutoencoder())
