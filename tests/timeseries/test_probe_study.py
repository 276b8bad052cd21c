"""Downstream probes: what they find, and the stage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from neuro.cli import app
from timeseries.adapt import Pair
from timeseries.adapt_study import _parts, stretches
from timeseries.probe_study import anomaly_scores, spoiled
from timeseries.vae import SeriesVAE

WORKFLOW = """
version: 1
name: probes
seed: 0
stages:
  series: {use: ts-series, simulate: {n_subjects: 4, n_trials: 30, n_classes: 2, n_samples: 32}}
  split: {use: ts-split, series: "${series}"}
  models: {use: ts-vae, series: "${split}", max_epochs: 1, n_hidden: 8, sweep: {preset: [ae, vae]}}
  probes:
    use: ts-downstream
    series: "${split}"
    models: "${models}"
    network: {max_epochs: 1, n_hidden: 8}
"""


def test_the_stage_probes_encoders_beside_plain_features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probes.yaml").write_text(WORKFLOW)
    result = CliRunner().invoke(app, ["run", "probes.yaml"])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "runs" / "probes" / "metrics.json").read_text()
    for model in ("ae", "vae", "pca", "raw", "supervised"):
        for task in ("linear", "knn"):
            assert f"probe.{model}.{task}.accuracy" in text
    assert json.loads(text)
    assert "anomaly.ae.auc" in text
    assert "anomaly.pca.auc" in text


def test_spoiled_series_are_anomalies_to_a_model_of_whole_ones():
    class Mean:
        """Reconstructs the mean of what it was given first."""

        def transform(self, X):
            return np.zeros((len(X), 1))

        def inverse_transform(self, codes):
            return np.ones((len(codes), 1, 40))

    whole = xr.DataArray(np.ones((5, 1, 40)), dims=("trial", "channel", "time"))
    bad = whole.copy(data=spoiled(whole.values, 1))
    assert anomaly_scores(Mean(), whole).max() == 0
    assert anomaly_scores(Mean(), bad) == pytest.approx(np.full(5, 9 * 4 / 40))
    mask = np.arange(40) < np.array([[40], [20], [20], [10], [10]])
    padded = whole.copy(data=whole.values * mask[:, None])
    padded = padded.assign_coords(mask=(("trial", "time"), mask))
    assert anomaly_scores(Mean(), padded).max() == 0


def test_an_encoder_of_series_stands_in_a_pipeline():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2, 32)).astype("float32")
    y = np.arange(40) % 2
    X[y == 1] += 3
    chain = make_pipeline(
        SeriesVAE(preset="ae", n_latents=4, n_hidden=8, max_epochs=5, random_state=0),
        StandardScaler(), LogisticRegression(),
    )  # fmt: skip
    assert chain.fit(X, y).score(X, y) > 0.9


def test_classes_that_the_source_lacks_are_left_out_and_named():
    label = list("xxyy" * 2 + "xyxz" * 2)
    data = xr.Dataset(
        {"signal": (("trial", "channel", "time"), np.zeros((16, 1, 4)))},
        coords={
            "subject": ("trial", ["a"] * 8 + ["b"] * 8), "class": ("trial", label),
            "recording": ("trial", np.repeat(["a1", "a2", "b1", "b2"], 4)),
        },
    )  # fmt: skip
    told = []

    class Context:
        warn = staticmethod(told.append)

    parts = _parts(data, Pair("a", "b"), {"score_size": 0.5, "seed": 0}, Context)
    kept = np.concatenate(list(parts.values()))
    assert "z" not in {label[k] for k in kept}
    assert told[0].endswith("z")
    recordings = {name: set(data["recording"].values[rows]) for name, rows in parts.items()}
    assert not recordings["adapt"] & recordings["score"]
    assert not recordings["source"] & recordings["held"]
    assert len(set(stretches(data))) == 12
