"""Readers: what comes out is what nibabel, scipy and h5py say; what is broken is named."""

from __future__ import annotations

import gzip
import json

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fmri.streams
from fmri.read import NSD_SCALE, find_derivatives, read_betas, read_bold, read_confounds
from fmri.tables import entities
from fmri.volumes import open_volumes
from neuro.data import open_dataset, save_dataset
from neuro.errors import ContractError, DataError, InputError

AFFINE = np.array([[-2.0, 0, 0, 60], [0, 2, 0, -30], [0, 0, 2, 5], [0, 0, 0, 1]])
SHAPE = (5, 4, 3)


def volume(n: int = 12, dtype: str = "int16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 1000, (*SHAPE, n)).astype(dtype)


def save(values, path, *, kind=nibabel.Nifti1Image, slope=None, t_r=2.0, units="sec"):
    image = kind(values, AFFINE)
    if values.ndim == 4:
        image.header.set_zooms((2, 2, 2, t_r))
        image.header.set_xyzt_units("mm", units)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


def mask_image(inside=None):
    inside = np.random.default_rng(1).random(SHAPE) > 0.4 if inside is None else inside
    return nibabel.Nifti1Image(inside.astype(np.uint8), AFFINE), np.asarray(inside, bool)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["sub-01_bold.nii", "sub-01_bold.nii.gz", "sub-01_bold.nii.bz2"])
@pytest.mark.parametrize("dtype", ["int16", ">i2", "float32", "uint8"])
def test_nifti_equals_nibabel(tmp_path, kind, name, dtype):
    values = (volume() % 250).astype(dtype)
    path = save(values, tmp_path / name, kind=kind)
    image, inside = mask_image()
    bold = read_bold(path, image)
    expected = nibabel.load(path).get_fdata()[inside].T
    assert bold["signal"].dtype == np.float32
    assert_array_equal(bold["signal"].values, expected.astype(np.float32))
    assert_array_equal(np.column_stack([bold[a] for a in "ijk"]), np.argwhere(inside))
    assert bold.attrs["t_r"] == 2.0
    assert_array_equal(bold["time"], 2.0 * np.arange(12))
    assert_allclose(json.loads(bold.attrs["affine"]), AFFINE)
    assert bold.attrs["subject"] == "sub-01"


def test_slope_and_intercept_of_the_header_are_applied(tmp_path):
    path = save(volume(), tmp_path / "a.nii.gz", slope=(0.5, 7.0))
    bold = read_bold(path, mask_image()[0])
    expected = nibabel.load(path).get_fdata()[mask_image()[1]].T
    assert_allclose(bold["signal"].values, expected, rtol=1e-6)


def test_smoothing_is_that_of_nilearn(tmp_path):
    from nilearn.image import smooth_img

    path = save(volume(), tmp_path / "a.nii.gz", slope=(0.5, 7.0))
    mask, inside = mask_image()
    found = read_bold(path, mask, smoothing_fwhm=4.0)["signal"].values
    expected = smooth_img(str(path), 4.0).get_fdata()[inside].T
    assert_allclose(found, expected, rtol=1e-5)
    (tmp_path / "hemi-L.func.gii").write_bytes(b"")
    with pytest.raises(InputError, match="no volume to smooth"):
        read_bold(tmp_path / "hemi-L.func.gii", smoothing_fwhm=4.0)


def test_times_in_milliseconds_and_missing_ones(tmp_path):
    path = save(volume(), tmp_path / "a.nii.gz", t_r=1500, units="msec")
    assert read_bold(path).attrs["t_r"] == 1.5
    path = save(volume(), tmp_path / "b.nii.gz", t_r=0)
    with pytest.raises(DataError, match="no repetition time"):
        read_bold(path)
    assert read_bold(path, t_r=3.0).attrs["t_r"] == 3.0


def test_memory_images_and_a_dataset_on_disk(tmp_path):
    image = nibabel.Nifti1Image(volume(), AFFINE)
    bold = read_bold(image, mask_image()[0], t_r=2.0)
    assert_array_equal(bold["signal"].values, volume()[mask_image()[1]].T)
    save_dataset(bold.rename(time="trial"), tmp_path / "bold.zarr")
    assert open_dataset(tmp_path / "bold.zarr").attrs["excluded"] == {"nan": 0, "constant": 0}


def test_a_gz_file_is_read_once_and_forwards(tmp_path, monkeypatch):
    """No seek, no second opening: reading one volume after another is not quadratic."""
    path = save(volume(), tmp_path / "a.nii.gz")
    opened = []

    class Counting(fmri.streams.GzipStream):
        def __init__(self, path):
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(fmri.streams, "GzipStream", Counting)
    read_bold(path)
    assert len(opened) == 1


def test_the_stream_knows_members_and_zeros_between_them(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, 3_000_000, dtype=np.uint8).tobytes()
    whole = gzip.compress(data[:1000]) + b"\0" * 5 + gzip.compress(data[1000:])
    (tmp_path / "a.gz").write_bytes(whole)
    buffer = bytearray(len(data) + 10)
    with fmri.streams.GzipStream(tmp_path / "a.gz") as stream:
        assert stream.readinto(memoryview(buffer)) == len(data)
    assert bytes(buffer[: len(data)]) == data


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_a_file_cut_short_is_refused_with_the_count(tmp_path, name):
    values = np.random.default_rng(0).integers(0, 30000, (20, 20, 20, 10)).astype(np.int16)
    path = save(values, tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"promises 10 volumes .* ends after 4 of them"):
        read_bold(path)


def test_a_file_that_lacks_its_last_bytes_or_has_wrong_ones(tmp_path):
    path = save(volume(), tmp_path / "a.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(DataError, match="cut short"):
        read_bold(path)
    path.write_bytes(whole[:-8] + b"\1\2\3\4" + whole[-4:])
    with pytest.raises(DataError, match="damaged"):
        read_bold(path)
    path.write_bytes(whole[:40])
    with pytest.raises(DataError, match="cut short or damaged"):
        read_bold(path)


def test_three_dimensions_a_missing_file_and_complex_numbers(tmp_path):
    path = save(volume()[..., 0], tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"is 3-D.*expected a 4-D"):
        read_bold(path)
    with pytest.raises(DataError, match="no such file"):
        read_bold(tmp_path / "none.nii.gz")
    image = nibabel.Nifti1Image(np.ones((2, 2, 2, 3), np.complex64), AFFINE)
    with pytest.raises(DataError, match="complex64 values, expected real"):
        open_volumes(image)


def test_nan_and_constant_voxels_are_left_out_and_counted(tmp_path):
    values = volume(dtype="float32")
    values[0, 0, 0, 3], values[1, 0, 0], values[2, 0, 0, 1] = np.nan, 5.0, np.inf
    bold = read_bold(save(values, tmp_path / "a.nii"), mask_image(np.ones(SHAPE))[0])
    assert bold.attrs["excluded"] == {"nan": 2, "constant": 1}
    assert bold.sizes["voxel"] == 57
    ijk = tuple(np.column_stack([bold[a] for a in "ijk"]).T)
    assert_array_equal(bold["signal"].values, values[ijk].T)
    values[:] = 3
    with pytest.raises(DataError, match="60 are constant; none is left"):
        read_bold(save(values, tmp_path / "b.nii"))


def test_gifti_hemispheres_lie_side_by_side_and_stay_apart(tmp_path):
    rng, files, sides = np.random.default_rng(0), [], []
    for side, name in (("L", "CortexLeft"), ("R", "CortexRight")):
        values = rng.normal(100, 5, (6, 10)).astype(np.float32)
        meta = nibabel.gifti.GiftiMetaData(AnatomicalStructurePrimary=name, TimeStep="2000")
        arrays = [
            nibabel.gifti.GiftiDataArray(row, "NIFTI_INTENT_TIME_SERIES", meta=meta)
            for row in values
        ]
        image = nibabel.gifti.GiftiImage(darrays=arrays, meta=meta)
        files.append(tmp_path / f"sub-02_hemi-{side}_bold.func.gii")
        nibabel.save(image, files[-1])
        sides.append(values)
    bold = read_bold(files)
    assert_array_equal(bold["signal"].values, np.hstack(sides))
    assert bold["i"].values.tolist() == [*range(10), *range(10)]
    assert bold["j"].values.tolist() == [0] * 10 + [1] * 10
    assert bold["structure"].values[[0, 10]].tolist() == ["CORTEX_LEFT", "CORTEX_RIGHT"]
    assert bold.attrs["t_r"] == 2.0
    assert bold.attrs["affine"] == "null"
    keep = np.arange(20) % 2 == 0
    assert read_bold(files, keep).sizes["voxel"] == 10
    with pytest.raises(ContractError, match="19 columns, expected 20"):
        read_bold(files, keep[:-1])
    both = read_betas(tuple(files))
    assert dict(both.sizes) == {"trial": 6, "voxel": 20}


def test_cifti_series_and_maps(tmp_path):
    cortex = nibabel.cifti2.BrainModelAxis.from_mask(np.arange(8) < 6, name="CortexLeft")
    grid = nibabel.cifti2.BrainModelAxis.from_mask(
        np.ones((2, 1, 1)), name="thalamus_left", affine=AFFINE
    )
    columns = cortex + grid
    values = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)
    series = nibabel.cifti2.SeriesAxis(0, 0.8, 7)
    image = nibabel.Cifti2Image(values, (series, columns))
    nibabel.save(image, tmp_path / "sub-03_bold.dtseries.nii")
    bold = read_bold(tmp_path / "sub-03_bold.dtseries.nii")
    assert_array_equal(bold["signal"].values, values)
    assert bold.attrs["t_r"] == 0.8
    assert bold["structure"].values[[0, 7]].tolist() == ["CORTEX_LEFT", "THALAMUS_LEFT"]
    maps = nibabel.cifti2.ScalarAxis([f"t{n}" for n in range(7)])
    nibabel.save(nibabel.Cifti2Image(values, (maps, columns)), tmp_path / "a.dscalar.nii")
    table = pd.DataFrame({"stimulus": list("abcdefg")})
    betas = read_betas(tmp_path / "a.dscalar.nii", table, labels=None)
    assert betas["stimulus"].values.tolist() == list("abcdefg")


# Betas and tables -----------------------------------------------------------------------------


def test_nsd_betas_are_scaled_and_sessions_intersected(tmp_path):
    files = []
    for session in (1, 2):
        values = volume(6, seed=session)
        if session == 2:
            values[0] = 0  # voxels without data in one session
        files.append(save(values, tmp_path / f"betas_session{session:02d}.nii.gz"))
    table = pd.DataFrame({"image_id": [3, 5, 3, 7, 9, 3] * 2, "run": [1, 1, 1, 2, 2, 2] * 2})
    table.to_csv(tmp_path / "trials.csv", index=False)
    mask, inside = mask_image()
    found = read_betas(files, tmp_path / "trials.csv", mask=mask, scale=NSD_SCALE)
    inside[0] = False
    expected = np.concatenate([nibabel.load(f).get_fdata()[inside].T / 300 for f in files])
    assert_allclose(found["signal"].values, expected, rtol=1e-6)
    assert found.attrs["units"] == "psc"
    assert found["stimulus"].values[:3].tolist() == ["3", "5", "3"]
    assert found["repeat"].values[[0, 2, 5, 6]].tolist() == [0, 1, 2, 3]
    assert found["session"].values[[0, -1]].tolist() == ["ses-01", "ses-02"]
    assert "not all of the 2 files have" in " ".join(found.attrs["notes"])
    save_dataset(found, tmp_path / "betas.zarr")
    assert open_dataset(tmp_path / "betas.zarr", load=True).identical(found)


@pytest.mark.parametrize("ending", ["npy", "mat", "h5", "v73.mat"])
def test_arrays_of_trials_and_voxels(tmp_path, ending):
    import h5py
    from scipy.io import savemat

    values = np.random.default_rng(0).normal(size=(5, 8))
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, values)
    elif ending == "mat":
        savemat(path, {"betas": values, "note": "text"})
    else:
        with h5py.File(path, "w") as file:
            file["betas"] = values.T if ending == "v73.mat" else values
    found = read_betas(path, pd.DataFrame({"stimulus": list("abcab"), "category": list("xyzxy")}))
    assert_allclose(found["signal"].values, values, rtol=1e-6)
    assert found["i"].values.tolist() == list(range(8))
    assert found.attrs["affine"] == "null"
    assert found.attrs["labels"] == ["category"]
    assert found["repeat"].values.tolist() == [0, 0, 0, 1, 1]


def test_matlab_itself_puts_512_bytes_before_hdf5(tmp_path):
    import h5py

    values = np.arange(12.0).reshape(3, 4)
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["group/betas"] = values.T
        file["other"] = np.ones(2)
    found = read_betas(tmp_path / "a.mat", variable="group/betas")
    assert_array_equal(found["signal"].values, values)
    with pytest.raises(DataError, match=r"holds the arrays .*say which"):
        read_betas(tmp_path / "a.mat")
    with pytest.raises(DataError, match="holds no array nothing, only"):
        read_betas(tmp_path / "a.mat", variable="nothing")


def test_four_dimensional_arrays_take_a_mask(tmp_path):
    import h5py

    values, (mask, inside) = volume(6), mask_image()
    np.save(tmp_path / "a.npy", values)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["betas"] = values.T  # as the NSD has them: trial, k, j, i
    for name in ("a.npy", "a.hdf5"):
        found = read_betas(tmp_path / name, mask=mask)
        assert_array_equal(found["signal"].values, values[inside].T)
        assert_allclose(json.loads(found.attrs["affine"]), AFFINE)
    with pytest.raises(DataError, match="the mask must be on its grid"):
        read_betas(tmp_path / "a.npy", mask=mask, axes="tijk")
    with pytest.raises(DataError, match="which the axes 'tv' don't fit"):
        read_betas(tmp_path / "a.npy", axes="tv")


def test_array_files_that_are_none(tmp_path):
    for name in ("a.npy", "a.mat", "a.h5"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 50)
        with pytest.raises(DataError, match="can't be read"):
            read_betas(tmp_path / name)
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without pickled objects"):
        read_betas(tmp_path / "b.npy")


def test_tables_that_do_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(4, 3)))
    with pytest.raises(DataError, match="3 rows for 4 trials"):
        read_betas(tmp_path / "a.npy", pd.DataFrame({"stimulus": list("abc")}))
    with pytest.raises(DataError, match="expected stimulus or stimulus_id"):
        read_betas(tmp_path / "a.npy", pd.DataFrame({"picture": list("abcd")}))
    with pytest.raises(DataError, match="row 2 has no stimulus"):
        read_betas(tmp_path / "a.npy", pd.DataFrame({"stimulus": ["a", None, "b", "c"]}))
    with pytest.raises(DataError, match="no such table"):
        read_betas(tmp_path / "a.npy", tmp_path / "none.tsv")


def test_betas_of_two_grids_are_refused(tmp_path):
    one = save(volume(4), tmp_path / "ses-1_betas.nii.gz")
    other = nibabel.Nifti1Image(volume(4), np.diag([3.0, 3, 3, 1]))
    nibabel.save(other, tmp_path / "ses-2_betas.nii.gz")
    with pytest.raises(DataError, match="run 1 has the affine"):
        read_betas([one, tmp_path / "ses-2_betas.nii.gz"])
    nibabel.save(nibabel.Nifti1Image(volume(4)[:4], AFFINE), tmp_path / "ses-3_betas.nii.gz")
    with pytest.raises(DataError, match="run 1 has the shape"):
        read_betas([one, tmp_path / "ses-3_betas.nii.gz"])


def test_an_exported_study_comes_back(tmp_path):
    from fmri.simulate import simulate
    from fmri.simulate_export import export_nifti

    study = simulate(n_train=12, n_test=6, n_voxels=30, n_sessions=2, seed=1)
    files = export_nifti(study, tmp_path / "study")
    found = read_betas(files, mask=tmp_path / "study" / "sub-01" / "sub-01_mask.nii.gz")
    betas = study.betas[0]
    order = np.lexsort([betas[a] for a in "kji"])
    assert_allclose(found["signal"].values, betas["signal"].values[:, order], rtol=1e-6)
    for name in ("stimulus", "session", "run", "repeat", "subject"):
        assert_array_equal(found[name].values, betas[name].values)


def test_entities_of_the_file_name_win():
    assert entities("sub-9/ses-1/sub-01_ses-02_bold.nii")["sub"] == "01"


# fMRIPrep ---------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path):
    """A small fMRIPrep tree with two sessions, confounds that scrub, and raw events."""
    root = tmp_path / "ds" / "derivatives" / "fmriprep"
    rng = np.random.default_rng(0)
    for session in ("01", "02"):
        folder = root / "sub-01" / f"ses-{session}" / "func"
        folder.mkdir(parents=True)
        stem = f"sub-01_ses-{session}_task-see_run-1"
        space = f"{stem}_space-T1w"
        save(volume(20), folder / f"{space}_desc-preproc_bold.nii.gz")
        save(volume(20)[..., 0], folder / f"{space}_boldref.nii.gz")
        (folder / f"{space}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
        nibabel.save(mask_image()[0], folder / f"{space}_desc-brain_mask.nii.gz")
        confounds(20, rng).to_csv(
            folder / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a"
        )
        (folder / f"{stem}_desc-confounds_timeseries.json").write_text("{}")
        raw = tmp_path / "ds" / "sub-01" / f"ses-{session}" / "func"
        raw.mkdir(parents=True)
        events = pd.DataFrame({"onset": [4.0, 16.0], "duration": 2.0, "trial_type": ["a", "b"]})
        events.to_csv(raw / f"{stem}_events.tsv", sep="\t", index=False)
    return root


def confounds(n, rng):
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    names += ["csf", "white_matter", "global_signal", "cosine00"]
    table = pd.DataFrame(rng.normal(size=(n, len(names))), columns=names)
    for name in names[:9]:
        table[f"{name}_derivative1"] = table[name].diff()
        table[f"{name}_power2"] = table[name] ** 2
        table[f"{name}_derivative1_power2"] = table[f"{name}_derivative1"] ** 2
    table["framewise_displacement"] = [np.nan, *([0.1] * (n - 1))]
    table.loc[7, "framewise_displacement"] = 3.0
    table["std_dvars"] = 1.0
    return table


def test_an_fmriprep_tree_is_found_with_its_companions(prepared):
    runs = find_derivatives(prepared)
    assert runs["session"].tolist() == ["ses-01", "ses-02"]
    assert runs["run"].tolist() == ["run-1", "run-1"]
    first = runs.iloc[0]
    assert first["bold"].name == "sub-01_ses-01_task-see_run-1_space-T1w_desc-preproc_bold.nii.gz"
    assert first["mask"].name.endswith("space-T1w_desc-brain_mask.nii.gz")
    assert first["confounds"].name.endswith("desc-confounds_timeseries.tsv")
    assert first["events"].parent.parts[-3:] == ("sub-01", "ses-01", "func")
    assert "ses-01" in first["events"].name
    assert first["t_r"] == 2.0
    assert len(find_derivatives(prepared, session="02")) == 1
    with pytest.raises(DataError, match="no preprocessed run was found"):
        find_derivatives(prepared, subject="99")
    with pytest.raises(DataError, match="no such folder"):
        find_derivatives(prepared / "none")


def test_several_spaces_need_a_choice(prepared):
    folder = prepared / "sub-01" / "ses-01" / "func"
    save(volume(20), folder / "sub-01_ses-01_task-see_run-1_space-MNI_desc-preproc_bold.nii.gz")
    with pytest.raises(DataError, match="spaces MNI, T1w; choose one"):
        find_derivatives(prepared)
    assert len(find_derivatives(prepared, space="T1w")) == 2
    assert find_derivatives(prepared, space="MNI")["mask"].tolist() == [None]


def test_confounds_and_scrubbing_of_fmriprep(prepared):
    run = find_derivatives(prepared).iloc[0]
    table, kept = read_confounds(run["bold"], ("motion", "wm_csf", "scrub"), scrub=0)
    assert len(table) == 20
    assert np.isfinite(table.to_numpy()).all()
    assert 7 not in kept
    assert {6, 8} <= set(kept.tolist())
    with pytest.raises(DataError, match="can't be read with the strategy"):
        read_confounds(run["bold"], ("ica_aroma",))
