"""The protocol of fmri-digits69, on pictures made up here and on the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from fmri.digits import cross_validate, evaluate_pictures, picture_folds, read_class
from fmri.images import digit_images
from neuro.errors import DataError, InputError


@pytest.fixture(scope="module")
def pairs():
    images = digit_images(digits=[6, 9]).isel(trial=slice(0, 80))
    pictures = images["signal"].values
    rng = np.random.default_rng(0)
    voxels = pictures.reshape(80, -1) @ rng.standard_normal((64, 150))
    return voxels + 4 * rng.standard_normal(voxels.shape), pictures, images["category"].values


def mean_of_training(pictures):
    return lambda train, test: np.repeat(pictures[train].mean(0)[None], len(test), 0)


def test_every_picture_is_predicted_by_a_model_that_never_saw_it(pairs):
    voxels, pictures, classes = pairs
    seen = []

    def spy(train, test):
        seen.append((set(train), set(test)))
        return pictures[test]

    found = cross_validate(voxels, pictures, classes, methods={"spy": spy}, n_splits=5)
    assert all(not train & test for train, test in seen)
    assert sorted(row for _, test in seen for row in test) == list(range(80))
    assert np.array_equal(found.pictures["spy"], pictures)
    assert (found.fold[found.nearest] != found.fold).all()
    counts = [np.bincount(classes[test] == "6") for _, test in picture_folds(classes, 5)]
    assert np.ptp([c[0] for c in counts]) <= 1


def test_identification_beside_its_baselines(pairs):
    voxels, pictures, classes = pairs
    methods = {"prototype": mean_of_training(pictures)}
    found = cross_validate(voxels, pictures, classes, methods=methods, n_splits=5)
    scores = evaluate_pictures(found, pictures, classes, reconstruction="ridge")
    assert scores["identify.ridge.pairwise"].above(0.8)
    assert scores["identify.ridge.within.6"].above(0.6)
    assert abs(scores["identify.shuffled.pairwise"].value - 0.5) < 0.12
    assert scores["identify.reconstruction.within.9"] == scores["identify.ridge.within.9"]
    assert scores["reconstruct.class_accuracy"].value > 0.9
    assert scores["identify.prototype.over_ridge.pairwise"].high < 0
    assert "identify.prototype.over_ridge.within.6" in scores
    assert "identify.nearest.pairwise" in scores


def test_a_class_is_read_by_a_classifier_of_training_stimuli(pairs):
    _, pictures, classes = pairs
    pale = 0.2 * pictures[60:] + 0.5
    assert (read_class(pictures[:60], classes[:60], pale) == classes[60:]).mean() > 0.9


def test_methods_that_return_something_else_are_named(pairs):
    voxels, pictures, classes = pairs
    with pytest.raises(InputError, match="'short' gave pictures"):
        cross_validate(voxels, pictures, classes, methods={"short": lambda a, b: pictures[b][:1]})
    with pytest.raises(DataError, match="NaN"):
        cross_validate(
            voxels, pictures, classes, methods={"nan": lambda a, b: np.nan * pictures[b]}
        )
    with pytest.raises(DataError, match="patterns"):
        cross_validate(voxels[:-1], pictures, classes)
    found = cross_validate(voxels, pictures, classes, n_splits=4)
    with pytest.raises(InputError, match="no method 'magic'"):
        evaluate_pictures(found, pictures, classes, reconstruction="magic")


def test_the_real_digits_give_the_known_figures(neuro_data):
    from fmri.images import read_images

    file = neuro_data / "fmri-digits69" / "digit69_28x28.mat"
    if not file.is_file():
        pytest.skip("fmri-digits69 is not there")
    from scipy.io import loadmat

    images = read_images(file, key=["stimTrn", "stimTest"], shape=(28, 28), order="F")
    stored = loadmat(file)
    voxels = np.concatenate([stored["fmriTrn"], stored["fmriTest"]])
    labels = np.concatenate([stored["labelTrn"], stored["labelTest"]]).ravel()
    classes = np.where(labels == 1, "six", "nine")
    found = cross_validate(voxels, images["signal"].values, classes)
    scores = evaluate_pictures(found, images["signal"].values, classes, reconstruction="ridge")
    assert scores["identify.ridge.pairwise"].value == pytest.approx(0.91, abs=0.03)
    assert scores["identify.ridge.within.six"].value == pytest.approx(0.81, abs=0.04)
    assert scores["identify.ridge.within.nine"].value == pytest.approx(0.86, abs=0.04)
    assert scores["reconstruct.class_accuracy"].value >= 0.9
    assert scores["identify.shuffled.pairwise"].value < 0.6
