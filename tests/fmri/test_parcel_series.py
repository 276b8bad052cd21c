"""Atlases to parcel series and blocks: against nilearn, and what is refused."""

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from fmri.parcel_blocks import cut_blocks, join_blocks
from fmri.parcel_series import parcel_series, voxel_series
from neuro.errors import DataError

AFFINE = np.diag([3.0, 3, 3, 1])
SHAPE = (6, 5, 4)


@pytest.fixture
def atlas():
    rng = np.random.default_rng(0)
    return nibabel.Nifti1Image(rng.integers(0, 5, SHAPE).astype(np.int16), AFFINE)


@pytest.fixture
def bold(tmp_path):
    rng = np.random.default_rng(1)
    image = nibabel.Nifti1Image(rng.integers(0, 2000, (*SHAPE, 40)).astype(np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 3.0)
    image.header.set_zooms((3, 3, 3, 2.0))
    nibabel.save(image, tmp_path / "sub-02_run-3_bold.nii.gz")
    return tmp_path / "sub-02_run-3_bold.nii.gz"


def table(networks=("Vis", "Vis", "Default", "Limbic")):
    return pd.DataFrame({"index": [1, 2, 3, 4], "name": list("abcd"), "network": networks})


def series(n=40, t_r=2.0, **attrs):
    import xarray as xr

    rng = np.random.default_rng(2)
    return xr.Dataset(
        {"signal": (("time", "parcel"), rng.standard_normal((n, 3)).astype(np.float32))},
        {"parcel": list("abc"), "network": ("parcel", ["Vis", "Vis", "Default"])},
        {"t_r": t_r, "run": "run-1", "subject": "01", "source": "x.nii", **attrs},
    )


EVENTS = pd.DataFrame({"onset": [4.0, 40.0], "duration": [10.0, 20.0], "trial_type": ["a", "b"]})


@pytest.mark.parametrize("gaps", [False, True])
def test_labels_equal_nilearns_masker(bold, atlas, gaps):
    from nilearn.maskers import NiftiLabelsMasker

    image = nibabel.load(bold)
    if gaps:
        values = image.get_fdata(dtype=np.float32)
        values[2, 2, 2, 5:9] = np.nan
        image = nibabel.Nifti1Image(values, AFFINE)
    found = parcel_series(image if gaps else bold, atlas, table(), t_r=2.0)
    peer = NiftiLabelsMasker(atlas, standardize=None).fit_transform(image)
    assert_allclose(found["signal"].values, peer, rtol=1e-5)
    assert found["network"].values.tolist() == ["Vis", "Vis", "Default", "Limbic"]
    assert bool(found.attrs["notes"]) == gaps
    if not gaps:
        assert (found.attrs["subject"], found.attrs["run"]) == ("sub-02", "run-3")
        assert parcel_series(bold, atlas).attrs["t_r"] == 2.0


def test_maps_equal_nilearns_masker(bold):
    from nilearn.maskers import NiftiMapsMasker

    rng = np.random.default_rng(0)
    maps = nibabel.Nifti1Image(rng.random((*SHAPE, 4)).astype(np.float32), AFFINE)
    peer = NiftiMapsMasker(maps, standardize=None).fit_transform(nibabel.load(bold))
    found = parcel_series(bold, maps, table())
    assert_allclose(found["signal"].values, peer, rtol=1e-4)
    assert found["parcel"].values.tolist() == list("abcd")
    with pytest.raises(DataError, match="4 maps, its table 2 rows"):
        parcel_series(bold, maps, table()[:2])


def test_cifti_labels(tmp_path):
    from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis, SeriesAxis

    models = BrainModelAxis.from_mask(np.ones(6, bool), "CortexLeft")
    names = {0: ("???", (0, 0, 0, 0)), 1: ("7Networks_LH_Vis_1", (1, 0, 0, 1)), 2: ("x", (0,) * 4)}
    labels, values = np.array([[1, 1, 0, 2, 2, 2]], float), np.arange(24.0).reshape(4, 6)
    Cifti2Image(labels, (LabelAxis(["l"], [names]), models)).to_filename(tmp_path / "a.dlabel.nii")
    Cifti2Image(values, (SeriesAxis(0, 2, 4), models)).to_filename(tmp_path / "b.dtseries.nii")
    found = parcel_series(tmp_path / "b.dtseries.nii", tmp_path / "a.dlabel.nii")
    assert_allclose(found["signal"].values[0], [0.5, 4.0])
    assert found["network"].values.tolist() == ["Vis", ""]


def test_atlases_that_do_not_fit(bold, atlas):
    labels = np.asarray(atlas.dataobj)
    away = np.array(AFFINE)
    away[:3, 3] = 500
    with pytest.raises(DataError, match="different spaces"):
        parcel_series(bold, nibabel.Nifti1Image(labels, away))
    more = pd.DataFrame({"index": range(1, 10), "name": list("abcdefghi")})
    with pytest.raises(DataError, match="only 4 of 9 parcels"):
        parcel_series(bold, atlas, more)
    five = pd.DataFrame({"index": range(1, 6), "name": list("abcde")})
    assert parcel_series(bold, atlas, five).attrs["missing_parcels"] == ["e"]
    with pytest.raises(DataError, match="2 of its 4 values are not in the table"):
        parcel_series(bold, atlas, table()[:2])


def test_voxels_as_parcels(bold, atlas):
    inside = nibabel.Nifti1Image((np.asarray(atlas.dataobj) > 0).astype(np.uint8), AFFINE)
    one = nibabel.Nifti1Image((np.asarray(atlas.dataobj) == 1).astype(np.uint8), AFFINE)
    found = voxel_series(bold, inside, {"first": one, "all": inside})
    n = int((np.asarray(atlas.dataobj) == 1).sum())
    assert found["in_first"].values.sum() == n == (found["network"] == "first").sum()
    assert found["in_all"].values.all()


def test_blocks_are_cut_and_padded():
    data = series()
    found = cut_blocks(data, EVENTS, tmin=4, tmax=4, until="offset", clean=False)
    assert found["length"].values.tolist() == [5, 10]  # volumes 4 to 8, and 22 to 31
    assert_allclose(found["signal"].values[0, :, :5], data["signal"].values[4:9].T)
    assert not found["signal"].values[0, :, 5:].any()
    assert found["mask"].values.sum(1).tolist() == [5, 10]
    joined = join_blocks([found, cut_blocks(data, EVENTS, tmax=30).assign_attrs(run="run-2")])
    assert dict(joined.sizes) == {"trial": 4, "parcel": 3, "time": 15}
    assert joined["mask"].dtype == bool
    assert joined["network"].values.tolist() == ["Vis", "Vis", "Default"]
    assert np.isfinite(joined["signal"].values).all()


def test_blocks_that_do_not_fit():
    with pytest.raises(DataError, match=r"8 volumes .* shorter than the window of 10"):
        cut_blocks(series(8), EVENTS[:1], tmax=20)
    with pytest.raises(DataError, match="more than n_times = 3"):
        cut_blocks(series(), EVENTS, tmax=20, n_times=3)
    with pytest.raises(DataError, match="nothing of it was recorded"):
        cut_blocks(series(), EVENTS.assign(onset=[4.0, 79.0]), tmin=4)
    one = cut_blocks(series(), EVENTS)
    with pytest.raises(DataError, match="no parcel is in all"):
        join_blocks([one, one.assign_coords(parcel=list("xyz"))])
