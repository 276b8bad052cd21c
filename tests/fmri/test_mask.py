"""Masks go to the data, voxels are found by coordinate, regions are averaged."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from fmri.mask import Mask, align_voxels, intersect_masks, read_mask, resample_mask
from fmri.parcels import parcellate, read_atlas_table
from fmri.read import read_bold
from fmri.voxels import rows_of, voxel_hash
from neuro.errors import ContractError, DataError, InputError

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def ball(shape, seed=0):
    return (np.random.default_rng(seed).random(shape) > 0.5).astype(np.uint8)


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (1.2, -0.7, 2.1)])
def test_the_mask_is_resampled_as_nilearn_does(shift):
    from nilearn.image import resample_img

    fine = np.kron(ball((5, 6, 4)), np.ones((3, 3, 3))).astype(np.uint8)
    affine = np.diag([0.7, 0.7, 0.7, 1.0])
    affine[:3, 3] = shift
    found = resample_mask(Mask.of(fine, affine), (6, 7, 5), AFFINE)
    peer = resample_img(
        nibabel.Nifti1Image(fine, affine), AFFINE, (6, 7, 5), interpolation="nearest",
        force_resample=True, copy_header=True,
    )  # fmt: skip
    assert_array_equal(found.to_array(), np.asarray(peer.dataobj) > 0)
    assert "resampled from (15, 18, 12) to (6, 7, 5)" in found.notes[0]


def test_the_data_stay_on_their_grid_and_the_note_is_kept(tmp_path):
    values = np.random.default_rng(0).normal(100, 5, (4, 4, 4, 6))
    mask = nibabel.Nifti1Image(np.ones((16, 16, 16), np.uint8), np.diag([0.5, 0.5, 0.5, 1]))
    bold = read_bold(nibabel.Nifti1Image(values, AFFINE), mask, t_r=1.0)
    assert bold.attrs["shape"] == "[4, 4, 4]"
    assert bold.sizes["voxel"] == 64
    assert "resampled" in bold.attrs["notes"][0]


def test_a_mask_of_another_space_is_refused():
    away = AFFINE.copy()
    away[:3, 3] = 500
    with pytest.raises(DataError, match=r"no voxel of the data .* lies in the mask"):
        resample_mask(Mask.of(np.ones((3, 3, 3)), away), (4, 4, 4), AFFINE)


def test_masks_that_are_none(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE)
    with pytest.raises(DataError, match="no voxel has a value but 0"):
        read_mask(image)
    image = nibabel.Nifti1Image(np.ones((2, 2, 2, 3), np.uint8), AFFINE)
    with pytest.raises(DataError, match="a mask is 3-D"):
        read_mask(image)
    with pytest.raises(DataError, match=r"any of the labels \[9\]; found 0, 1"):
        read_mask(nibabel.Nifti1Image(np.array([[[0, 1]]], np.uint8), AFFINE), labels=[9])
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="can't be read as a mask"):
        read_mask(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="empty list"):
        read_mask([])


def test_sessions_and_regions_are_intersected():
    one, two = (Mask.of(ball((4, 4, 4), seed), AFFINE) for seed in (0, 1))
    both = intersect_masks([one, two])
    assert_array_equal(both.to_array(), one.to_array() & two.to_array())
    assert read_mask([one, two]).hash == both.hash
    other = Mask.of(1 - one.to_array().astype(int), AFFINE)
    with pytest.raises(DataError, match="no voxel in common"):
        intersect_masks([one, other])


def test_the_hash_tells_order_grid_and_affine():
    ijk = np.argwhere(ball((3, 3, 3)))
    base = voxel_hash(ijk, (3, 3, 3), AFFINE)
    assert base == voxel_hash(ijk.astype(np.int32), (3, 3, 3), AFFINE + 1e-9)
    assert base != voxel_hash(ijk[::-1], (3, 3, 3), AFFINE)
    assert base != voxel_hash(ijk, (3, 3, 4), AFFINE)
    assert base != voxel_hash(ijk, (3, 3, 3), 2 * AFFINE)


def test_rows_equal_a_dictionary():
    rng = np.random.default_rng(0)
    found = np.unique(rng.integers(-3, 9, (200, 3)), axis=0)
    wanted = rng.integers(-5, 12, (100, 3))
    where = {tuple(v): n for n, v in enumerate(found.tolist())}
    assert rows_of(wanted, found).tolist() == [where.get(tuple(v), -1) for v in wanted.tolist()]
    assert rows_of(wanted, found[:0]).tolist() == [-1] * 100


def betas(ijk, affine=AFFINE, seed=0):
    values = np.random.default_rng(seed).normal(size=(5, len(ijk))).astype(np.float32)
    return xr.Dataset(
        {"signal": (("trial", "voxel"), values)},
        coords={a: ("voxel", ijk[:, n]) for n, a in enumerate("ijk")},
        attrs={"affine": str(affine.tolist()), "shape": "[9, 9, 9]"},
    )


def test_alignment_by_coordinate_counts_and_fills():
    ijk = np.argwhere(np.ones((3, 3, 3)))
    data = betas(ijk[::-1])
    wanted = np.vstack([ijk[:10], [[8, 8, 8], [7, 7, 7]]])
    fill = np.arange(12.0)
    values, overlap = align_voxels(data, *wanted.T, AFFINE.tolist(), fill=fill)
    assert (overlap.found, overlap.expected, overlap.missing) == (10, 12, 2)
    assert float(overlap) == pytest.approx(10 / 12)
    assert_array_equal(values[:, :10], data["signal"].values[:, ::-1][:, :10])
    assert_array_equal(values[:, 10:], np.tile([10.0, 11.0], (5, 1)))
    assert np.isnan(align_voxels(data, *wanted.T, AFFINE)[0][:, 10:]).all()
    assert values.dtype == np.float32


def test_alignment_refuses_other_spaces():
    data = betas(np.argwhere(np.ones((3, 3, 3))))
    with pytest.raises(ContractError, match="the data have the affine"):
        align_voxels(data, [0], [0], [0], 3 * AFFINE)
    with pytest.raises(ContractError, match="none of the 1 expected voxels"):
        align_voxels(data, [8], [8], [8], AFFINE)


def test_parcels_equal_nilearns_labels_masker(tmp_path):
    from nilearn.maskers import NiftiLabelsMasker

    rng = np.random.default_rng(0)
    atlas = nibabel.Nifti1Image(rng.integers(0, 4, (5, 5, 5)).astype(np.int16), AFFINE)
    image = nibabel.Nifti1Image(rng.normal(100, 5, (5, 5, 5, 8)).astype(np.float32), AFFINE)
    (tmp_path / "names.txt").write_text(
        "1\t7Networks_LH_Vis_1\t0 0 0 0\n2\t7Networks_RH_Default_PFC_1\t0 0 0 0\n3\tx\t0 0 0 0\n"
        "7\tgone\t0 0 0 0\n"
    )
    bold = read_bold(image, nibabel.Nifti1Image(np.ones((5, 5, 5), np.uint8), AFFINE), t_r=1.0)
    found = parcellate(bold, atlas, tmp_path / "names.txt")
    peer = NiftiLabelsMasker(atlas, standardize=None).fit_transform(image)
    assert_allclose(found["signal"].values, peer, rtol=1e-5)
    assert found["network"].values.tolist() == ["Vis", "Default", ""]
    assert found.attrs["missing_parcels"] == ["gone"]
    assert found["n_voxels"].values.sum() == (np.asarray(atlas.dataobj) > 0).sum()
    assert parcellate(bold, atlas)["parcel"].values.tolist() == ["1", "2", "3"]


def test_atlas_tables(tmp_path):
    table = pd.DataFrame(
        {"Component": [1, 2], "Difumo_names": ["a", "b"], "Yeo_networks7": ["V", "D"]}
    )
    table.to_csv(tmp_path / "difumo.csv", index=False)
    assert read_atlas_table(tmp_path / "difumo.csv")["network"].tolist() == ["V", "D"]
    pd.DataFrame({"value": [1, 1], "name": ["a", "b"]}).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(DataError, match="stands there twice"):
        read_atlas_table(tmp_path / "twice.csv")
    pd.DataFrame({"x": [1]}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(DataError, match="expected an index"):
        read_atlas_table(tmp_path / "other.csv")
    with pytest.raises(DataError, match="no such file"):
        read_atlas_table(tmp_path / "none.csv")
