"""A study of one's own: fMRIPrep's derivatives, events and a folder of pictures to retrieval."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import neuro
import neuro.stage as neuro_stage
from fmri.parts import stimuli_of
from fmri.study_params import BetasParams
from neuro.cli import app
from neuro.data import open_dataset
from neuro.errors import DataError, InputError
from neuro.runner.describe import heading
from neuro.runner.registry import get_stage
from neuro.runner.schema import load_workflow

WORKFLOW = """
version: 1
name: own
seed: 1
stages:
  images: {use: fmri-images, folder: ds/pictures, size: 16, test_size: 0.25}
  targets: {use: fmri-targets, images: "${images}", provider: pca, n_features: 3}
  betas:
    use: fmri-betas
    images: ${images}
    derivatives: ds/derivatives/fmriprep
    subject: "01"
    task: see
    space: T1w
    bids_root: ds
    mask_img: ds/sub-*_regions.nii.gz
    labels: [1, 2]
    trial_types: [picture]
    confounds: {strategy: [motion], motion: basic}
    response: {method: lss, high_pass: 0.01}
    select: {keep: 40}
  encoder:
    use: fmri-mindeye
    betas: ${betas}
    targets: ${targets}
    images: ${images}
    max_epochs: 10
    prior: false
    device: cpu
  retrieval:
    use: fmri-retrieve
    betas: ${betas}
    targets: ${targets}
    images: ${images}
    encoder: ${encoder}
    n_boot: 100
"""


def run_workflow(folder: Path, text: str = WORKFLOW, name: str = "own") -> Path:
    (folder / "own.yaml").write_text(text)
    words = ["run", str(folder / "own.yaml"), "--out", str(folder / "runs")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return folder / "runs" / name


@pytest.fixture(scope="module")
def run(own_study: Path) -> Path:
    return run_workflow(own_study.parent)


def test_an_own_study_goes_from_images_to_numbers(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    assert metrics["voxels.kept"]["value"] == 40
    assert metrics["ceiling.median"]["value"] > 0.5
    for method in ("mindeye", "ridge"):
        found = metrics[f"retrieval.image.{method}.top1"]
        assert found["value"] > 0.6
        assert found["chance"] == pytest.approx(1 / 6)
    text = (run / "report.html").read_text()
    for words in ("Noise ceiling of one trial on slices", "in the brain masks of all runs",
                  "of train pictures", "fMRIPrep"):  # fmt: skip
        assert words in text


def test_sessions_are_z_scored_by_training_trials(run: Path, own_study: Path) -> None:
    betas, images = (open_dataset(run / name, load=True) for name in ("betas", "images"))
    assert betas.sizes["trial"] == 3 * 24
    assert betas.attrs["units"] == "z"
    assert {"ncsnr", "noise_ceiling", "split_half"} <= set(betas.coords)
    train = np.isin(betas["stimulus"].values, stimuli_of(images, "train"))
    for session in ("ses-01", "ses-02"):
        rows = (betas["session"].values == session) & train
        assert_allclose(betas["signal"].values[rows].mean(0), 0, atol=1e-5)
        assert_allclose(betas["signal"].values[rows].std(0), 1, atol=1e-4)
    assert betas["i"].values.min() >= 1  # of the regions and of every session's brain
    assert betas["run"].values[[0, -1]].tolist() == ["run-1", "run-1"]


def test_only_files_that_are_read_count(run: Path, own_study: Path) -> None:
    """Another space, or a subject that isn't asked for, doesn't make results old."""
    func = own_study / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func"
    (func / "sub-01_ses-01_task-see_run-1_space-MNI_boldref.nii.gz").write_bytes(b"other")
    done = CliRunner().invoke(app, ["plan", str(own_study.parent / "own.yaml"), "--out",
                                    str(own_study.parent / "runs")])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert " run " not in done.output
    events = own_study / "sub-01" / "ses-02" / "func" / "sub-01_ses-02_task-see_run-1_events.tsv"
    text = events.read_text()
    try:
        events.write_text(text + "1.5\t1.0\tfixation\tn/a\n")
        done = CliRunner().invoke(app, ["plan", str(own_study.parent / "own.yaml"), "--out",
                                        str(own_study.parent / "runs")])  # fmt: skip
        assert "events.tsv" in done.output
    finally:
        events.write_text(text)


TWO = WORKFLOW.replace('subject: "01"', 'sweep: {subject: ["01", "02"]}').replace(
    "    mask_img: ds/sub-*_regions.nii.gz\n    labels: [1, 2]\n", ""
)
EACH = """
  alone:
    use: fmri-mindeye
    each: ${betas}
    targets: ${targets}
    images: ${images}
  scored:
    use: fmri-retrieve
    each: ${alone}
    betas: ${betas}
    targets: ${targets}
    images: ${images}
"""


def test_two_subjects_train_one_model_or_one_each(
    own_copy: Path, add_subject: Callable[[Path, str], None]
) -> None:
    add_subject(own_copy, "02")
    run = run_workflow(own_copy.parent, TWO)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    found = metrics["retrieval.image.mindeye.top1"]
    assert found["value"] > 0.5
    assert found["n"] == 6  # pictures, not subjects times pictures
    report = (run / "report.html").read_text()
    assert "Top 1 of all, subject by subject" in report
    encoder = neuro.load(run / "encoder")
    assert [one.name for one in encoder.subjects_] == ["sub-01", "sub-02"]
    with pytest.raises(DataError, match="runs of 2 subjects"):
        BetasParams(derivatives=own_copy / "derivatives" / "fmriprep").reads()
    (own_copy.parent / "each.yaml").write_text(TWO + EACH)
    nodes = load_workflow(str(own_copy.parent / "each.yaml")).nodes
    assert nodes["encoder"].wires["betas"].many
    assert nodes["scored"].wires["betas"].aligned


def test_the_workflow_of_the_documentation_holds(own_copy: Path) -> None:
    """The YAML of docs/fmri.md, on this study: it is valid, and what it names is found."""
    page = (Path(__file__).parents[2] / "docs" / "fmri.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0]
    (own_copy / "rois").mkdir()
    shutil.copy(own_copy / "sub-01_regions.nii.gz", own_copy / "rois" / "sub-01_visual.nii.gz")
    (own_copy / "my-study.yaml").write_text(text)
    with pytest.raises(InputError, match=r"no preprocessed run was found .*task=viewing"):
        BetasParams(derivatives=own_copy / "derivatives", task="viewing").reads()
    nodes = load_workflow(str(own_copy / "my-study.yaml")).nodes
    assert list(nodes) == ["images", "targets", "betas", "encoder", "retrieval"]
    params = nodes["betas"].members[0].params
    assert params.source == "derivatives"  # type: ignore[attr-defined]
    sets = ["betas.task=see", "betas.confounds={strategy: [motion], motion: basic}",
            "targets.n_features=3", "images.test_size=0.25", "encoder.max_epochs=0",
            "encoder.prior=false", "images.size=16"]  # fmt: skip
    words = [word for one in sets for word in ("--set", one)]
    done = CliRunner().invoke(
        app, ["run", str(own_copy / "my-study.yaml"), "--out", str(own_copy / "runs"), *words]
    )
    assert done.exit_code == 0, done.output


def test_an_input_may_be_one_or_a_list() -> None:
    found = neuro_stage.stage("demo-either", version=1)(_either).stage.inputs
    assert (found["betas"].many, found["betas"].either, found["betas"].required) == (
        False, True, True,
    )  # fmt: skip
    assert not found["images"].either
    help_text = heading(get_stage("fmri-mindeye"))
    assert "betas: ${...}  dataset, or list of datasets, the members of a sweep" in help_text


def test_every_field_of_the_stages_is_explained() -> None:
    for name in ("fmri-betas", "fmri-haxby"):
        done = CliRunner().invoke(app, ["stages", name])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["stages", "fmri-betas"])
    assert "derivatives" in done.output


def _either(
    betas: neuro_stage.Dataset | list[neuro_stage.Dataset],
    images: neuro_stage.Dataset,
    params: BetasParams,
    context: neuro_stage.Context,
) -> neuro_stage.Table:
    raise NotImplementedError
