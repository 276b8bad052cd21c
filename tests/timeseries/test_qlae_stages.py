"""The stages of QLAE: series and EEG by YAML alone, scores with intervals beside baselines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from neuro.cli import app
from neuro.errors import InputError
from neuro.metrics import disentanglement
from timeseries.dts_study import names_of
from timeseries.qlae import QLAE
from timeseries.qlae_study import SCORES, binned, known_factors
from timeseries.vae import SeriesVAE

EEG = """
version: 1
name: tiny
seed: 0
stages:
  recordings:
    use: eeg-recordings
    simulate: {n_subjects: 3, n_trials: 8}
  epochs:
    use: eeg-epochs
    each: ${recordings}
    h_freq: 30
    resample: 64
  encoder:
    use: ts-qlae
    series: ${epochs}
    n_latents: 3
    n_values: 4
    n_hidden: 16
    max_epochs: 2
    batch_size: 16
  gan:
    use: ts-infogan
    series: ${epochs}
    n_latents: 3
    n_values: 4
    n_hidden: 16
    n_critic: 1
    max_epochs: 2
    batch_size: 16
  scores:
    use: ts-disentangle
    series: ${epochs}
    models: ["${encoder}", "${gan}"]
    factors: [condition]
    n_boot: 4
"""


def test_qlae_runs_on_eeg_by_yaml_alone(tmp_path):
    (tmp_path / "tiny.yaml").write_text(EEG)
    told = CliRunner().invoke(
        app, ["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]
    )
    assert told.exit_code == 0, told.output
    metrics = json.loads((tmp_path / "run" / "tiny" / "metrics.json").read_text())
    text = json.dumps(metrics)
    for name in ("qlae", "infogan", "pca", "ica", "untrained"):
        assert f"disentangle.{name}.infom" in text
        assert f"disentangle.{name}.binned.infom" in text


def test_the_workflow_scores_every_model(tmp_path):
    models = ("encoder", "no_decay", "shared", "gan", "ae", "beta_vae", "beta_tcvae")
    settings = [
        "series.simulate.n_trials=250", "series.simulate.n_samples=16", "scores.n_boot=2",
        "series.simulate.n_channels=2", "scores.n_most=50",
        *(f"{m}.max_epochs=1" for m in models), *(f"{m}.n_latents=3" for m in models),
    ]  # fmt: skip
    flags = [part for one in settings for part in ("--set", one)]
    workflow = Path(__file__).parents[2] / "workflows" / "qlae.yaml"
    told = CliRunner().invoke(app, ["run", str(workflow), "--out", str(tmp_path), *flags])
    assert told.exit_code == 0, told.output
    text = (tmp_path / "qlae" / "metrics.json").read_text()
    for name in (
        "qlae", "qlae_no_decay", "qlae_shared", "infogan", "ae", "beta_vae", "beta_tcvae", "pca",
        "ica", "untrained",
    ):  # fmt: skip
        for score in SCORES:
            assert f"disentangle.{name}.{score}" in text


def test_bins_alike_change_no_score_of_information_of_even_codes():
    codes = np.tile(np.arange(4), (2, 50)).T
    assert set(binned(codes, 4).ravel()) == {0, 1, 2, 3}
    s = np.arange(200) % 4
    for name in ("infom", "infoc"):
        assert disentanglement(codes, s, scores=name) == disentanglement(
            binned(codes, 4), s, scores=name
        )


def test_models_are_named_by_what_sets_them_apart():
    models = [
        QLAE(), QLAE(weight_decay=0), QLAE(shared_codebook=True), SeriesVAE("ae"),
        SeriesVAE("beta-tcvae"),
    ]  # fmt: skip
    expected = ["qlae", "qlae_no_decay", "qlae_shared", "ae", "beta_tcvae"]
    assert names_of(models) == expected
    assert names_of([QLAE(), QLAE(network="mlp")]) == ["qlae_conv", "qlae_mlp"]
    assert names_of([QLAE(), QLAE()]) == ["qlae_conv_0", "qlae_conv_1"]


def test_factors_of_files_are_class_and_person():
    data = xr.Dataset(
        {"signal": (("trial", "channel", "time"), np.zeros((4, 1, 8)))},
        {"class": ("trial", ["a", "b", "a", "b"]), "subject": ("trial", ["s", "s", "s", "s"])},
    )
    assert list(known_factors(data, ())) == ["class"]
    with pytest.raises(InputError, match="no known factor"):
        known_factors(data.isel(trial=[0, 2]), ())
