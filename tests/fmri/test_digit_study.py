"""The sixes and nines: the file, the methods, and pictures predicted from the real brain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from fmri.autoencoder import ImageAutoencoder
from fmri.digit_methods import TokenMethods, stroke_autoencoder
from fmri.digit_strokes import stroke_digits
from fmri.encoding import encoding_accuracy, predicted_voxels
from fmri.read_digits import digit_pairs
from neuro.cli import app
from neuro.errors import DataError, InputError

FILE = Path("fmri-digits69") / "digit69_28x28.mat"


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray]:
    """40 pictures and 60 voxels, of which the first 20 respond to what is seen."""
    pictures = stroke_digits(16, digits=[6, 9])["signal"].values[:40, 0]
    rng = np.random.default_rng(0)
    voxels = rng.standard_normal((40, 60))
    voxels[:, :20] += 0.5 * pictures.reshape(40, -1) @ rng.standard_normal((256, 20))
    return voxels, pictures


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.mat"
    savemat(path, {"fmriTrn": np.zeros((2, 3))})
    with pytest.raises(DataError, match="holds no fmriTest"):
        digit_pairs(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read as a MATLAB 5 file"):
        digit_pairs(path)


def test_the_pictures_are_upright(neuro_data: Path) -> None:
    voxels, pictures, classes = digit_pairs(neuro_data / FILE)
    assert voxels.shape == (100, 3092)
    assert pictures.shape == (100, 28, 28)
    assert (classes == "six").sum() == 50
    # The loop of a nine is in the upper half of an upright picture, that of a six in the lower.
    upper = pictures[:, :14].sum((1, 2)) > pictures[:, 14:].sum((1, 2))
    assert upper[classes == "nine"].mean() > upper[classes == "six"].mean()


def test_strokes_have_the_form_of_the_seen_digits(neuro_data: Path) -> None:
    _, pictures, _ = digit_pairs(neuro_data / FILE)
    strokes = stroke_digits(28, digits=[6, 9])["signal"].values[:, 0]
    rows = np.arange(28)
    middle = (strokes.sum(2) @ rows) / strokes.sum((1, 2))
    np.testing.assert_allclose(middle, 14, atol=0.3)
    high = [np.ptp(np.flatnonzero((p > 0.3).any(1))) + 1 for p in strokes]
    assert np.median(high) == pytest.approx(20, abs=1)
    grey = [((p > 0.2) & (p < 0.8)).sum() / (p > 0.2).sum() for p in (strokes, pictures)]
    assert grey[0] < 2 * grey[1]  # edges, not a blur
    with pytest.raises(InputError, match="expected 12 or more"):
        stroke_digits(8)


def test_voxels_are_chosen_that_pictures_predict(made: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, pictures = made
    accuracy = encoding_accuracy(voxels, pictures, n_components=8)
    assert np.median(accuracy[:20]) > 0.4
    assert abs(np.median(accuracy[20:])) < 0.2
    keep = predicted_voxels(voxels, pictures, 0.4, n_components=8)
    assert keep[:20].sum() > 10
    assert keep[20:].sum() < 6
    with pytest.raises(DataError, match="no voxel is predicted"):
        predicted_voxels(voxels, pictures, 0.999, n_components=8)
    with pytest.raises(InputError, match="fewer than trials"):
        encoding_accuracy(voxels, pictures, n_components=40)


def test_a_fold_looks_at_its_training_rows_only(made: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, pictures = made
    train, test = np.arange(32), np.arange(32, 40)
    vae = stroke_autoencoder(16, [1, 7], max_epochs=1, device="cpu")
    spoilt = voxels.copy()
    spoilt[test[1:]] = 1e3
    other = pictures.copy()
    other[test] = 1 - other[test]
    settings = {"threshold": 0.2, "max_epochs": 2, "device": "cpu"}
    one = TokenMethods(voxels, pictures, vae, **settings)
    two = TokenMethods(spoilt, other, vae, **settings)
    for name, method in one.methods().items():
        first = method(train, test)
        assert first.shape == (8, 16, 16)
        np.testing.assert_allclose(
            first[0], two.methods()[name](train, test)[0], atol=1e-5, err_msg=name
        )
    assert one.n_voxels_ == two.n_voxels_


def test_an_autoencoder_that_saw_a_test_picture_is_refused(
    made: tuple[np.ndarray, np.ndarray],
) -> None:
    voxels, pictures = made
    leaky = ImageAutoencoder(max_epochs=0, device="cpu").fit(pictures[:, None])
    methods = TokenMethods(voxels, pictures, leaky, max_epochs=1).methods()
    for name in ("mindeye", "tokens_ridge"):
        with pytest.raises(DataError, match=r"trained on 8 of 8 test images \(leak\)"):
            methods[name](np.arange(32), np.arange(32, 40))


def ran(out: Path, **settings: object) -> dict[str, dict[str, float]]:
    sets = [word for key, value in settings.items() for word in ("--set", f"digits.{key}={value}")]
    done = CliRunner().invoke(app, ["run", "fmri-digits", "--out", str(out), *sets])
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "fmri-digits" / "metrics.json").read_text())
    return metrics.get("metrics", metrics)


def test_the_workflow_in_short(neuro_data: Path, tmp_path: Path) -> None:
    found = ran(tmp_path, n_splits=2, autoencoder_max_epochs=12, max_epochs=2, n_boot=100)
    for method in ("mindeye", "tokens_ridge", "selected_ridge", "ridge", "nearest", "shuffled"):
        for part in ("pairwise", "within.six", "within.nine"):
            assert found[f"identify.{method}.{part}"]["chance"] == 0.5
    assert found["identify.mindeye.pairwise"]["low"] > 0.7
    assert found["identify.reconstruction.within.six"] == found["identify.mindeye.within.six"]
    assert found["identify.shuffled.pairwise"]["value"] < 0.65
    assert found["reconstruct.class_accuracy"]["value"] >= 0.8
    assert found["reconstruct.class_accuracy"]["low"] < 1
    assert 0 < found["reconstruct.pixcorr"]["value"] < 1
    assert found["reconstruct.ssim"]["baseline"] > 0
    assert 50 < found["voxels.kept"]["value"] < 3092
    text = (tmp_path / "fmri-digits" / "report.html").read_text()
    assert "MindEye minus" in text


@pytest.mark.slow
def test_reconstructions_of_real_digits_beat_the_ridge(neuro_data: Path, tmp_path: Path) -> None:
    found = ran(tmp_path)
    for part in ("pairwise", "within.six", "within.nine"):
        own, ridge = (found[f"identify.{m}.{part}"]["value"] for m in ("mindeye", "ridge"))
        assert own > ridge
        assert found[f"identify.reconstruction.{part}"]["low"] > 0.5
    assert found["reconstruct.class_accuracy"]["value"] >= 0.9
