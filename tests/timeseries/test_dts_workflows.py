"""dts.yaml and vae-zoo.yaml from end to end, at sizes that say nothing of their quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuro.cli import app
from neuro.metrics.scores import SCORES

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def run(name, folder, monkeypatch, *settings):
    monkeypatch.chdir(folder)
    flags = [part for one in settings for part in ("--set", one)]
    result = CliRunner().invoke(app, ["run", str(WORKFLOWS / f"{name}.yaml"), *flags])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "runs" / name / "metrics.json").read_text())


def test_dts(tmp_path, monkeypatch):
    metrics = run(
        "dts", tmp_path, monkeypatch, "series.n_trials=30", "series.n_samples=32",
        "encoder.max_epochs=1", "vanishing.max_epochs=1", "vanishing.n_hidden=8",
    )  # fmt: skip
    text = json.dumps(metrics)
    for segment in ("g_y", "g_d"):
        for what in ("class", "domain"):
            assert f"segment.{segment}.{what}.accuracy" in text
    assert "adapt.target.dts.accuracy" in text
    report = (tmp_path / "runs" / "dts" / "report.html").read_text()
    assert "KL vanishing" in report
    assert "Acc/D-S" in report


def test_vae_zoo(tmp_path, monkeypatch):
    metrics = run(
        "vae-zoo", tmp_path, monkeypatch, "series.n_trials=60", "series.n_samples=32",
        "models.max_epochs=1", "models.n_latents=4", "table.n_most=30",
    )  # fmt: skip
    text = json.dumps(metrics)
    for model in ("ae", "vae", "beta-vae", "beta-tcvae", "factor-vae", "info-vae", "dts"):
        for score in SCORES:
            assert f"disentangle.{model}.{score}" in text


@pytest.mark.parametrize("name", ["dts", "vae-zoo"])
def test_they_are_valid(name):
    result = CliRunner().invoke(app, ["check", str(WORKFLOWS / f"{name}.yaml")])
    assert result.exit_code == 0, result.output
