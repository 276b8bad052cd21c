"""The sixes and nines: the file, and pictures predicted from the real brain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fmri.digit_study import mindeye_predictor
from fmri.digits import cross_validate, evaluate_pictures
from fmri.read_digits import digit_pairs
from neuro.errors import DataError


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.mat"
    savemat(path, {"fmriTrn": np.zeros((2, 3))})
    with pytest.raises(DataError, match="holds no fmriTest"):
        digit_pairs(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read as a MATLAB 5 file"):
        digit_pairs(path)


def test_the_pictures_are_upright_and_predicted_from_other_trials(neuro_data: Path) -> None:
    voxels, pictures, classes = digit_pairs(neuro_data / "fmri-digits69" / "digit69_28x28.mat")
    assert voxels.shape == (100, 3092)
    assert pictures.shape == (100, 28, 28)
    assert (classes == "six").sum() == 50
    # The loop of a nine is in the upper half of an upright picture, that of a six in the lower.
    upper = pictures[:, :14].sum((1, 2)) > pictures[:, 14:].sum((1, 2))
    assert upper[classes == "nine"].mean() > upper[classes == "six"].mean()
    method = mindeye_predictor(
        voxels, pictures, n_components=10, random_state=0, max_epochs=2, device="cpu"
    )
    found = cross_validate(voxels, pictures, classes, methods={"mindeye": method}, n_splits=3)
    scores = evaluate_pictures(found, pictures, classes, reconstruction="mindeye", n_boot=100)
    assert scores["identify.mindeye.pairwise"].low > 0.75
    assert scores["identify.reconstruction.within.six"].low > 0.5
    assert scores["reconstruct.class_accuracy"].value >= 0.9
    assert scores["identify.shuffled.pairwise"].value < 0.65
