"""dts.yaml and vae-zoo.yaml from end to end, at sizes that say nothing of their quality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import neuro
from neuro.cli import app
from neuro.metrics.scores import SCORES
from timeseries.adapt_report import MODELS

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def run(name, folder, monkeypatch, *settings):
    monkeypatch.chdir(folder)
    flags = [part for one in settings for part in ("--set", one)]
    result = CliRunner().invoke(app, ["run", str(WORKFLOWS / f"{name}.yaml"), *flags])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "runs" / name / "metrics.json").read_text())


SMALL = (
    "encoder.max_epochs=1", "encoder.n_hidden=8", "vanishing.max_epochs=1", "vanishing.n_hidden=8",
    "adaptation.network.max_epochs=1", "adaptation.network.n_hidden=8", "adaptation.n_pairs=2",
    "probes.network.max_epochs=1", "probes.network.n_hidden=8",
)  # fmt: skip


def test_dts(tmp_path, monkeypatch):
    metrics = run(
        "dts", tmp_path, monkeypatch, "series.simulate.n_trials=30", "series.simulate.n_samples=32",
        "series.simulate.n_subjects=3", *SMALL,
    )  # fmt: skip
    text = json.dumps(metrics)
    for segment in ("g_y", "g_d"):
        for what in ("class", "domain"):
            assert f"segment.{segment}.{what}.accuracy" in text
    for model in MODELS:
        assert f"adapt.mean.{model}.accuracy" in text
    for model in ("vae", "beta_tcvae", "dts_fcn", "dts_lstm", "pca", "raw", "supervised"):
        for task in ("linear", "knn"):
            assert f"probe.{model}.{task}.accuracy" in text
    assert "disentangle.dts_fcn.infom" in text
    report = (tmp_path / "runs" / "dts" / "report.html").read_text()
    assert "KL vanishing" in report
    assert "Acc/D-S" in report


def test_dts_from_a_folder_of_files_to_the_codes_of_new_ones(tmp_path, monkeypatch):
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for who in "abc":
        for take in range(2):
            n = 160
            table = pd.DataFrame({
                "time": np.arange(n) / 25, "x": rng.normal(size=n), "y": rng.normal(size=n),
                "who": who, "what": np.repeat(["sit", "walk"], n // 2), "take": f"{who}{take}",
            })  # fmt: skip
            table.to_csv(folder / f"{who}{take}.csv", index=False)
    columns = "{subject: who, label: what, recording: take}"
    run("dts", tmp_path, monkeypatch, f"series.files={folder}", f"series.columns={columns}",
        "series.windows.length=0.64", *SMALL)  # fmt: skip
    new = tmp_path / "new.csv"
    table.drop(columns=["who", "what", "take"]).to_csv(new, index=False)
    result = CliRunner().invoke(app, ["decode", "runs/dts/encoder", str(new), "--out", "codes"])
    assert result.exit_code == 0, result.output
    encoder = neuro.load(tmp_path / "runs" / "dts" / "encoder")
    values = table[["x", "y"]].to_numpy(np.float32).T
    # 16 samples a window and 8 between two; a new file has no labels that windows could not cross.
    windows = np.stack([values[:, k : k + 16] for k in range(0, n - 15, 8)])
    found = neuro.open_dataset(tmp_path / "codes" / "new.zarr", load=True)["codes"]
    assert found.shape == (19, 16)
    assert found["latent"].values[[0, -1]].tolist() == ["g_y0", "g_d3"]
    # A new person of eight windows or more is standardised by these.
    expected = encoder.transform(windows, domain=["new"] * len(windows))
    assert np.allclose(found.values, expected, atol=1e-5)
    assert np.ptp(found.values, axis=0).min() > 0


def test_vae_zoo(tmp_path, monkeypatch):
    metrics = run(
        "vae-zoo", tmp_path, monkeypatch, "series.simulate.n_trials=120",
        "series.simulate.n_samples=32", "models.max_epochs=1", "models.n_latents=4",
        "table.n_most=30", "table.n_boot=2",
    )  # fmt: skip
    text = json.dumps(metrics)
    for model in ("ae", "vae", "beta_vae", "beta_tcvae", "factor_vae", "info_vae", "dts"):
        for score in SCORES:
            assert f"disentangle.{model}.{score}" in text


@pytest.mark.parametrize("name", ["dts", "vae-zoo"])
def test_they_are_valid(name):
    result = CliRunner().invoke(app, ["check", str(WORKFLOWS / f"{name}.yaml")])
    assert result.exit_code == 0, result.output
