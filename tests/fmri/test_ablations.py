"""The shipped sweep over MindEye in short, and the effects that it reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fmri.ablations import Member, effects
from neuro.cli import app
from neuro.errors import DataError

pytest.importorskip("diffusers")

SHORT = {
    "images.n_images": 100, "images.size": 8, "autoencoder.max_epochs": 2,
    "autoencoder.n_features": 4, "betas.simulate.n_voxels": 60, "betas.simulate.ceiling": 0.5,
    "variants.max_epochs": 2, "variants.prior_max_epochs": 1, "variants.device": "cpu",
    "variants.sweep.loss": "[bimixco, infonce]", "variants.sweep.head": "[shared]",
    "variants.sweep.n_blocks": "[0]", "comparison.n_boot": 100, "encoder.max_epochs": 1,
    "encoder.prior_max_epochs": 1, "generator.max_epochs": 1, "pictures.n_boot": 100,
}  # fmt: skip


def test_the_shipped_sweep_compares_its_members(tmp_path: Path) -> None:
    sets = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, ["run", "fmri-mindeye-ablations", "--out", str(tmp_path), *sets])
    assert done.exit_code == 0, done.output
    run = tmp_path / "fmri-mindeye-ablations"
    metrics = json.loads((run / "metrics.json").read_text())
    labels = [
        f"loss_{loss}-head_shared-prior_{prior}-n_blocks_0"
        for loss in ("bimixco", "infonce") for prior in (True, False)
    ]  # fmt: skip
    for label in labels:
        for direction in ("image", "brain"):
            assert metrics[f"retrieval.{direction}.{label}.top1"]["chance"] == 1 / 50
        assert (f"cosine.prior.{label}" in metrics) == ("True" in label)
    assert "Each setting beside its first value" in (run / "report.html").read_text()


def test_an_effect_is_paired_and_averages_what_else_was_swept() -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(size=50)  # what makes a picture easy is taken off by the pairing
    members = [
        Member({"loss": loss, "depth": depth}, {"image": picture + 0.2 * (loss == "b") + depth})
        for loss in "ab" for depth in (0, 1)
    ]  # fmt: skip
    found = {(e["setting"], e["value"]): e for e in effects(members, n_boot=100)}
    assert set(found) == {("loss", "b"), ("depth", 1)}
    assert found["loss", "b"]["low"] == pytest.approx(0.2)
    assert found["depth", 1]["difference"] == pytest.approx(1.0)
    with pytest.raises(DataError, match="no members"):
        effects([])
