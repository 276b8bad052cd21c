"""From the whole brain to pictures: a simulated brain that sees digits, the prior, a generator."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import neuro
from fmri import whole_brain_stages as stages
from fmri.brain_series import blocks_in
from fmri.images import digit_images
from fmri.parts import stimuli_of, with_parts
from fmri.simulate_whole_brain import simulate_whole_brain
from fmri.simulate_whole_brain_export import export_runs
from fmri.study_pictures import study_trials
from neuro.cli import app
from neuro.data import open_dataset
from neuro.errors import ContractError, DataError, InputError

BRAIN = {"n_parcels": 12, "n_other": 16, "n_trials": 20, "n_train_runs": 10, "n_test_runs": 2,
         "n_unlabelled_runs": 2, "n_rest_runs": 1, "n_imagery_runs": 0}  # fmt: skip
SETS = (
    "images.n_images=300", "autoencoder.max_epochs=15", "pretrained.max_epochs=2",
    "encoder.max_epochs=30", "evaluation.n_shuffles=2",
    *(f"scans.simulate.{name}={value}" for name, value in BRAIN.items()),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = [word for text in SETS for word in ("--set", text)]
    done = CliRunner().invoke(app, ["run", "fmri-whole-brain-pictures", "--out", str(folder),
                                    *words])  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder / "fmri-whole-brain-pictures"


def test_seen_pictures_are_reconstructed(run):
    metrics = json.loads((run / "metrics.json").read_text())
    found = metrics["identify.reconstruction.pairwise"]
    assert found["low"] > 0.7
    assert found["value"] > metrics["identify.reconstruction_shuffled.pairwise"]["value"] + 0.2
    assert metrics["reconstruct.pixcorr"]["value"] > metrics["reconstruct.shuffled.pixcorr"]["high"]
    assert metrics["reconstruct.ridge.pixcorr"]["value"] > 0
    assert "reconstruct" in (run / "report.html").read_text()


def test_the_brain_sees_pictures_of_its_part_only(run):
    scans, images = open_dataset(run / "scans"), open_dataset(run / "images")
    part = dict(zip(images["stimulus"].values.astype(str), images["part"].values, strict=True))
    blocks = blocks_in(scans)
    assert [part[item] for item in blocks["item"].values] == blocks["part"].values.tolist()
    assert len(np.unique(blocks["item"].values[blocks["part"].values == "train"])) == 200


def test_new_runs_become_pictures(run, tmp_path):
    study = simulate_whole_brain(seed=0, n_prompts=4, **BRAIN | {"n_imagery_runs": 1})
    export_runs(study, tmp_path / "new", kinds=["imagery"])
    path = next((tmp_path / "new").glob("*_bold.nii.gz"))
    encoder = neuro.load(run / "encoder")
    found = encoder.decode(path)
    assert found["reconstruction"].sizes["trial"] == 20
    assert found["reconstruction"].shape[-2:] == (16, 16)
    assert found["tokens"].dims == ("trial", "token", "feature")
    words = ["decode", str(run / "encoder"), str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output


def test_blocks_stand_beside_betas_for_linear_models(run):
    encoder, scans = neuro.load(run / "encoder"), open_dataset(run / "scans")
    test = stimuli_of(open_dataset(run / "images"), "test")
    blocks, betas = study_trials(encoder, scans, test)
    mask = blocks["mask"].values[:, None].astype(float)
    mean = (blocks["signal"].values * mask).sum(2) / mask.sum(2)
    np.testing.assert_allclose(betas["signal"].values, mean, atol=1e-5)
    assert betas["stimulus"].values.tolist() == blocks["item"].values.tolist()
    for leaking in (scans.drop_vars("part"), scans.assign_coords(
            part=("trial", np.full(scans.sizes["trial"], "train")))):  # fmt: skip
        with pytest.raises(DataError, match="trials of test pictures are trained on"):
            study_trials(encoder, leaking, test)


def test_what_does_not_fit_is_said(call, run, tmp_path):
    images, targets = (open_dataset(run / name) for name in ("images", "targets"))
    with pytest.raises(DataError, match="targets wired"):
        call(tmp_path / "1", stages.series, inputs={"images": images}, simulate=BRAIN)
    with pytest.raises(DataError, match="400 training pictures and there are 240"):
        call(tmp_path / "2", stages.series, inputs={"images": images, "targets": targets},
             simulate=BRAIN | {"n_train_runs": 20})  # fmt: skip
    other = neuro.load(run / "autoencoder").set_params(max_epochs=1)
    some = with_parts(digit_images(16).isel(trial=slice(0, 60)), 0.2, 0)
    other.fit(some, train_stimuli=stimuli_of(some, "train"))
    scans = open_dataset(run / "scans")
    with pytest.raises(ContractError, match="neither that of the targets"):
        call(tmp_path / "3", stages.align, scans, max_epochs=1,
             inputs={"targets": targets, "autoencoder": other})  # fmt: skip
    shown = images.rename(trial="item").assign_coords(item=images["stimulus"].values)
    shown["latent"] = (("item", "latent"), np.zeros((300, 3)))
    with pytest.raises(InputError, match="300 items are given"):
        simulate_whole_brain(seen=shown, n_train_runs=1, n_test_runs=0, n_unlabelled_runs=0,
                             n_imagery_runs=0)  # fmt: skip
