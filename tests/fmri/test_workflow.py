"""The shipped workflow end to end, in short, and the parts that a study is split into."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import neuro
from fmri.gallery import open_gallery
from fmri.images import digit_images
from fmri.parts import stimuli_of, trials_of, with_parts
from fmri.simulate import simulate
from neuro.cli import app
from neuro.data import open_dataset
from neuro.errors import DataError, InputError

SHORT = {
    "images.n_images": 120, "images.size": 8, "autoencoder.max_epochs": 3,
    "autoencoder.n_features": 4, "generator.max_epochs": 2, "reconstruction.n_boot": 100,
    "reconstruction.n_candidates": 2,
    "betas.simulate.n_voxels": 80, "betas.simulate.ceiling": 0.5, "encoder.max_epochs": 3,
    "encoder.prior_max_epochs": 2, "encoder.device": "cpu", "retrieval.n_boot": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    sets = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, ["run", "fmri-mindeye", "--out", str(out), *sets])
    assert done.exit_code == 0, done.output
    return out / "fmri-mindeye"


def test_retrieval_has_the_metrics_that_are_promised(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    for method in ("mindeye", "prior", "ridge", "shuffled"):
        for direction in ("image", "brain"):
            found = metrics[f"retrieval.{direction}.{method}.top1"]
            assert found["low"] <= found["value"] <= found["high"]
            assert found["chance"] == pytest.approx(1 / 24)
        if method != "shuffled":
            assert metrics[f"identify.{method}.pairwise"]["chance"] == 0.5
    assert metrics["identify.mindeye.pairwise"]["value"] > 0.7
    assert metrics["ceiling.median"]["value"] == pytest.approx(0.5, abs=0.2)
    assert metrics["voxels.kept"]["value"] == 80
    for name in ("", ".nearest", ".ridge", ".decoder", ".gallery", ".shuffled"):
        for metric in ("pixcorr", "ssim"):
            assert 0 < metrics[f"reconstruct{name}.{metric}"]["value"] <= 1
    own, others = (metrics[f"reconstruct{n}.pixcorr"]["value"] for n in ("", ".shuffled"))
    assert own > others
    assert metrics["reconstruct.clip"]["value"] is None  # its weights are missing: no number
    assert metrics["identify.reconstruction.pairwise"]["chance"] == 0.5
    text = (run / "report.html").read_text()
    for title in ("Pictures", "Targets", "Betas", "Training", "Retrieval", "Reconstructions"):
        assert title in text
    assert "weights of ViT-L-14-quickgelu missing" in text
    assert "Random weights" not in text


def test_pictures_of_the_workflow_fit_together(run: Path) -> None:
    images = open_dataset(run / "images", load=True)
    made = open_dataset(run / "reconstruction", load=True)
    assert sorted(made.stimulus.values) == sorted(stimuli_of(images, "test"))
    assert set(made.nearest.values) <= set(stimuli_of(images, "train"))
    gallery = open_gallery(run / "gallery")
    assert len(gallery) == 120
    encoder = neuro.load(run / "encoder")
    gallery.check(encoder.target_["fingerprint"])
    held = images.isel(trial=images.part.values == "test")
    for network in (encoder.decoder_, neuro.load(run / "generator")):
        network.refuse_seen(held)
        assert len(network.trained_on_) == 96


def test_no_trial_of_a_test_picture_was_trained_on(run: Path) -> None:
    betas, images = open_dataset(run / "betas", load=True), open_dataset(run / "images", load=True)
    encoder = neuro.load(run / "encoder")
    held = trials_of(betas, stimuli_of(images, "test"))
    assert not encoder.seen(held).trials.any()
    own = trials_of(betas, stimuli_of(images, "train"))
    assert encoder.seen(own).trials.all()
    assert encoder.transform(held).sizes["trial"] == held.sizes["trial"]


def test_parts_keep_the_categories_and_never_share_a_picture() -> None:
    images = with_parts(digit_images(digits=[6, 9]), 0.25, seed=3)
    train, test = stimuli_of(images, "train"), stimuli_of(images, "test")
    assert not set(train) & set(test)
    assert len(train) + len(test) == images.sizes["trial"]
    sixes = images["category"].values == "6"
    tested = images["part"].values == "test"
    assert tested[sixes].mean() == pytest.approx(tested[~sixes].mean(), abs=0.02)
    again = with_parts(digit_images(digits=[6, 9]), 0.25, seed=3)
    np.testing.assert_array_equal(images["part"], again["part"])
    with pytest.raises(InputError, match="leaves one part empty"):
        with_parts(images, 1e-6, seed=0)
    with pytest.raises(DataError, match="take them from fmri-images"):
        stimuli_of(digit_images(), "test")
    with pytest.raises(DataError, match="no trial shows"):
        trials_of(simulate(n_train=20, n_test=5, n_voxels=10).betas[0], np.array(["nothing"]))


MARKED = """
version: 1
name: marked
stages:
  images: {use: fmri-images, n_images: 60, size: 8}
  targets:
    use: fmri-targets
    images: ${images}
    provider: open_clip
    open_clip: {arch_file: tiny.json}
  gallery: {use: fmri-gallery, targets: "${targets}", images: "${images}"}
"""


def test_random_weights_stand_on_every_section_behind_them(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    vision = {"image_size": 16, "layers": 2, "width": 24, "patch_size": 8, "head_width": 8}
    (tmp_path / "tiny.json").write_text(json.dumps({"embed_dim": 12, "vision_cfg": vision}))
    (tmp_path / "marked.yaml").write_text(MARKED)
    words = ["run", str(tmp_path / "marked.yaml"), "--out", str(tmp_path / "runs")]
    for _ in range(2):  # computed, and from the cache
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        text = (tmp_path / "runs" / "marked" / "report.html").read_text()
        warning = 'role="alert">Random weights'
        assert text.count(warning) == 3  # summary, targets, gallery; not the pictures
        after = text[text.index("Embeddings pooled by") - 600 : text.index("Embeddings pooled by")]
        assert warning in after
