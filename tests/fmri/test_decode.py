"""New scans through the real command: alignment, missing voxels, other grids, galleries."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import Result
from typer.testing import CliRunner

from fmri.autoencoder import ImageAutoencoder
from fmri.gallery_build import build_gallery
from fmri.images import pick
from fmri.mindeye import MindEye
from fmri.parts import trials_of
from fmri.providers import AutoencoderTokens
from fmri.sessions import standardize_sessions
from fmri.simulate import simulate
from fmri.simulate_export import export_nifti
from fmri.targets import compute_targets
from neuro.cli import app
from neuro.data import open_dataset, save_dataset


@dataclass
class Lab:
    """A trained encoder, a gallery, and a session of betas that it has not seen."""

    encoder: Path
    gallery: Path
    scan: Path
    images: xr.Dataset
    model: MindEye


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    study = simulate(n_train=150, n_test=30, n_voxels=120, ceiling=0.6, n_sessions=4, seed=3)
    decoder = ImageAutoencoder(n_features=4, width=8, max_epochs=12, device="cpu")
    decoder.fit(study.images, train_stimuli=study.train)
    targets = compute_targets(study.images, AutoencoderTokens(decoder))
    betas = standardize_sessions(study.betas[0], study.train)[0]
    known = betas.isel(trial=betas["session"].values != "ses-04")
    model = MindEye(max_epochs=3, prior=False, device="cpu")
    latents = decoder.latent_dataset(study.images)
    model.fit(trials_of(known, study.train), targets, low_level=latents).attach_decoder(decoder)
    model.save(folder / "encoder")
    build_gallery(targets, folder / "gallery", images=study.images)
    export_nifti(study, folder / "study")
    scan = folder / "study" / "sub-01" / "ses-04" / "sub-01_ses-04_betas.nii.gz"
    return Lab(folder / "encoder", folder / "gallery", scan, study.images, model)


def decode(lab: Lab, out: Path, *scans: Path, more: tuple[str, ...] = ()) -> Result:
    words = ["decode", str(lab.encoder), *map(str, scans), "--out", str(out), *more]
    if "--gallery" not in more:
        words += ["--gallery", str(lab.gallery)]
    return CliRunner().invoke(app, words)


def changed(lab: Lab, folder: Path, name: str, change: object) -> Path:
    """Write the scan anew, with its trial table, after a change of image data and affine."""
    image = nibabel.load(lab.scan)
    values, affine = change(image.get_fdata(dtype=np.float32), image.affine)  # type: ignore[operator]
    path = folder / f"{name}_betas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    shutil.copy(
        str(lab.scan).replace("_betas.nii.gz", "_trials.tsv"), folder / f"{name}_trials.tsv"
    )
    return path


def without_some(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lose six voxels; two rows of nothing come before the first: the grid is shifted."""
    there = np.argwhere(values[..., 0] != 0)
    values[tuple(there[:6].T)] = 0
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, 0] * 2
    return np.pad(values, ((2, 0), (0, 0), (0, 0), (0, 0))), moved


def test_a_scan_is_decoded_by_the_command(lab: Lab, tmp_path: Path) -> None:
    done = decode(lab, tmp_path / "out", lab.scan)
    assert done.exit_code == 0, done.output
    found = open_dataset(tmp_path / "out" / "sub-01_ses-04_betas.zarr", load=True)
    right = (found.retrieved.values == found.stimulus.values[:, None]).any(1).mean()
    assert right > 0.3  # five of 180 by chance: 0.03
    assert found.reconstruction.shape == (found.sizes["trial"], 1, 8, 8)
    seen = pick(lab.images, found.stimulus.values).signal.values
    a, b = (v.reshape(len(v), -1) - v.mean(0).ravel() for v in (found.reconstruction.values, seen))
    own = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])
    other = np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, np.roll(b, 1, 0), strict=True)])
    assert own > other + 0.1
    assert "120 of 120 voxels" in found.attrs["note"]
    assert "z-scored by its own trials" in done.output
    again = decode(lab, tmp_path / "out", lab.scan)
    assert "0 decoded, 1 skipped" in again.output


def test_shifted_and_missing_voxels_are_aligned_and_counted(lab: Lab, tmp_path: Path) -> None:
    scan = changed(lab, tmp_path, "shifted", without_some)
    refused = decode(lab, tmp_path / "out", scan)
    assert refused.exit_code == 1
    assert "114 voxels, expected 120" in refused.output
    assert "--align" in refused.output
    done = decode(lab, tmp_path / "out", scan, more=("--align",))
    assert done.exit_code == 0, done.output
    assert "114 of 120 voxels (95.0%); 6 missing, at the training mean" in done.output
    assert "grid shifted by (2, 0, 0)" in done.output
    found = open_dataset(tmp_path / "out" / "shifted_betas.zarr", load=True)
    assert found.attrs["n_missing"] == 6
    index = pd.read_csv(tmp_path / "out" / "decoded.tsv", sep="\t")
    assert "6 missing" in index["note"][0]
    whole = decode(lab, tmp_path / "whole", lab.scan)
    assert whole.exit_code == 0
    plain = open_dataset(tmp_path / "whole" / "sub-01_ses-04_betas.zarr", load=True)
    cosine = (plain.codes.values * found.codes.values).sum((1, 2))
    assert np.median(cosine) > 0.9  # six voxels of 120 change little


def half_a_voxel_off(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved = affine.copy()
    moved[0, 3] += 0.7
    return values, moved


def test_another_grid_is_refused_even_with_align(lab: Lab, tmp_path: Path) -> None:
    scan = changed(lab, tmp_path, "other", half_a_voxel_off)
    refused = decode(lab, tmp_path / "out", scan)
    assert refused.exit_code == 1
    assert "the affine is" in refused.output
    aligned = decode(lab, tmp_path / "out", scan, more=("--align",))
    assert aligned.exit_code == 1
    assert "resample the images to the training grid" in aligned.output


def test_a_gallery_of_other_targets_is_refused_before_anything(lab: Lab, tmp_path: Path) -> None:
    study = simulate(n_train=20, n_test=5, n_voxels=10)
    build_gallery(study.targets, tmp_path / "other", images=study.images)
    done = decode(lab, tmp_path / "out", lab.scan, more=("--gallery", str(tmp_path / "other")))
    assert done.exit_code == 2
    assert "fingerprint" in done.output
    assert not (tmp_path / "out").exists()
    nothing = decode(lab, tmp_path / "out", lab.scan, more=("--gallery", str(tmp_path)))
    assert nothing.exit_code == 2
    assert "is no gallery" in nothing.output


def test_a_bad_scan_is_reported_and_the_sheet_shows_the_others(lab: Lab, tmp_path: Path) -> None:
    bad = tmp_path / "cut_betas.nii.gz"
    bad.write_bytes(lab.scan.read_bytes()[:2000])
    few = changed(lab, tmp_path, "few", lambda v, a: (v[..., :4], a))
    table = pd.read_csv(tmp_path / "few_trials.tsv", sep="\t")
    table[:4].to_csv(tmp_path / "few_trials.tsv", sep="\t", index=False)
    done = decode(lab, tmp_path / "out", bad, few, lab.scan)
    assert done.exit_code == 1
    assert "1 decoded, 0 skipped (done before), 2 failed" in done.output
    assert "too few to be z-scored by itself" in done.output
    assert "cut_betas.nii.gz" in done.output
    sheet = (tmp_path / "out" / "contact_sheet.html").read_text()
    assert sheet.count("<h2>") == 1
    assert sheet.count("<tr><td>") == 8
    images = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)"', sheet)
    assert len(images) == 8 * (1 + 1 + 5)  # seen, decoded, five retrieved
    assert "cut_betas" in sheet
    assert not re.findall(r'(?:src|href)="(?!data:)', sheet)  # nothing from outside


def test_random_weights_are_marked_on_the_sheet(lab: Lab, tmp_path: Path) -> None:
    shutil.copytree(lab.encoder, tmp_path / "encoder")
    file = tmp_path / "encoder" / "preprocessing.json"
    stored = json.loads(file.read_text())
    stored["targets"]["random_weights"] = True
    from neuro.artefact import read_encoder, write_encoder

    config, arrays, _ = read_encoder(lab.encoder)
    shutil.rmtree(tmp_path / "encoder")
    write_encoder(tmp_path / "encoder", config, arrays, stored, "card")
    marked = Lab(tmp_path / "encoder", lab.gallery, lab.scan, lab.images, lab.model)
    assert decode(marked, tmp_path / "out", lab.scan).exit_code == 0
    for name in ("contact_sheet.html", "sub-01_ses-04_betas.html"):
        assert "Random weights" in (tmp_path / "out" / name).read_text()


def test_a_saved_gallery_dataset_gives_what_its_folder_gives(lab: Lab, tmp_path: Path) -> None:
    from fmri.gallery import gallery_dataset, open_gallery

    save_dataset(gallery_dataset(open_gallery(lab.gallery)), tmp_path / "gallery")
    for number, gallery in enumerate((lab.gallery, tmp_path / "gallery")):
        done = decode(lab, tmp_path / str(number), lab.scan, more=("--gallery", str(gallery)))
        assert done.exit_code == 0, done.output
    one, other = (
        open_dataset(tmp_path / n / "sub-01_ses-04_betas.zarr", load=True) for n in ("0", "1")
    )
    assert (one.retrieved.values[:, 0] == other.retrieved.values[:, 0]).all()
