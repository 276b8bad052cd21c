"""Real recordings: the blocks of Haxby et al. (2001), the digits of van Gerven et al. (2010)."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fmri.betas import betas
from fmri.read import read_digits69


@pytest.fixture(scope="module")
def haxby(neuro_data):
    root = neuro_data / "fmri-haxby2001" / "sub001"
    if not root.is_dir():
        pytest.skip("NEURO_DATA has no fmri-haxby2001")
    return root


@pytest.fixture(scope="module")
def blocks(haxby):
    runs = sorted(haxby.glob("run*"))
    return betas(
        [run / "bold_1slice.nii.gz" for run in runs],
        [run / "bold_events.tsv" for run in runs],
        mask=haxby / "masks" / "1slice_mask.nii.gz",
        method="window", tmin=5.0, tmax=2.5, until="offset", high_pass=None, subject="sub001",
    )  # fmt: skip


def test_haxby_blocks_are_what_scipy_and_a_loop_make(haxby, blocks):
    from scipy.signal import detrend

    inside = np.asarray(nibabel.load(haxby / "masks" / "1slice_mask.nii.gz").dataobj) != 0
    expected = []
    for run in sorted(haxby.glob("run*")):
        series = nibabel.load(run / "bold_1slice.nii.gz").get_fdata()[inside].T
        series = detrend(series, axis=0)
        series /= series.std(axis=0, ddof=1)
        times = 2.5 * np.arange(len(series))
        for event in pd.read_csv(run / "bold_events.tsv", sep="\t").itertuples():
            start, end = event.onset + 5, event.onset + event.duration + 2.5
            expected.append(series[(times >= start) & (times < end)].mean(0))
    assert dict(blocks.sizes) == {"trial": 72, "voxel": 530}
    assert_allclose(blocks["signal"].values, expected, atol=1e-4)
    assert blocks["run"].values[[0, -1]].tolist() == ["run-01", "run-09"]


def accuracy(X, y, run):
    from sklearn.linear_model import LogisticRegression

    right = np.empty(len(y), bool)
    for held in np.unique(run):
        test = run == held
        model = LogisticRegression(max_iter=2000).fit(X[~test], y[~test])
        right[test] = model.predict(X[test]) == y[test]
    return right.mean()


def test_haxby_categories_of_a_held_out_run(blocks):
    """The README states 0.569 of 72 blocks (standard error 0.058; chance 0.125).

    It does not say which of the two volumes on the window's edges count, and none of the four
    readings gives that figure: 0.625 (first one only, as here), 0.542, 0.486, 0.417. So this holds
    ours to what it is, within one and a half standard errors of the README's.
    """
    X, y, run = (blocks[k].values for k in ("signal", "condition", "run"))
    found = accuracy(X, y, run)
    assert found == pytest.approx(0.625, abs=0.03)
    assert abs(found - 0.569) < 0.087
    rng = np.random.default_rng(0)
    shuffled = y.copy()
    for name in np.unique(run):
        shuffled[run == name] = rng.permutation(y[run == name])
    assert accuracy(X, shuffled, run) < 0.3


@pytest.mark.parametrize("method", ["lsa", "lss", "ridge"])
def test_haxby_blocks_by_a_model(haxby, method):
    runs = sorted(haxby.glob("run*"))
    found = betas(
        [run / "bold_1slice.nii.gz" for run in runs],
        [run / "bold_events.tsv" for run in runs],
        mask=haxby / "masks" / "1slice_mask.nii.gz",
        method=method,
        confounds=[np.loadtxt(run / "bold_moest.txt") for run in runs],
    )
    values = found["signal"].values
    z = np.concatenate([(v - v.mean(0)) / v.std(0) for v in np.split(values, len(runs))])
    assert np.isfinite(values).all()
    assert accuracy(z, found["condition"].values, found["run"].values) > 0.3


def test_digits_are_upright_and_joined_by_stimulus(neuro_data):
    from scipy.io import loadmat

    path = neuro_data / "fmri-digits69" / "digit69_28x28.mat"
    if not path.is_file():
        pytest.skip("NEURO_DATA has no fmri-digits69")
    images, voxels = read_digits69(path)
    assert dict(images.sizes) == {"trial": 100, "channel": 1, "row": 28, "column": 28}
    assert dict(voxels.sizes) == {"trial": 100, "voxel": 3092}
    assert_array_equal(images["stimulus"], voxels["stimulus"])
    assert pd.Series(voxels["category"]).value_counts().to_dict() == {"six": 50, "nine": 50}
    table = loadmat(path)
    assert_allclose(voxels["signal"].values[:90], table["fmriTrn"], rtol=1e-6)
    first = table["stimTrn"][0].reshape(28, 28, order="F") / 255
    assert_allclose(images["signal"].values[0, 0], first, atol=1e-6)
    ink = images["signal"].mean("channel").groupby("category").mean("trial")
    top, bottom = ink.isel(row=slice(14)).sum("column"), ink.isel(row=slice(14, 28)).sum("column")
    # Upright, the ring of a nine is above and that of a six below.
    share = top.sum("row") / (top.sum("row") + bottom.sum("row"))
    assert share.sel(category="nine") > share.sel(category="six")
