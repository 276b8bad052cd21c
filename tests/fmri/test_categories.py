"""Leave-run-out category decoding through attributes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from fmri.categories import decode_categories, nearest_category, z_score_runs
from fmri.category_study import mindeye_regressor
from fmri.providers import haxby_attributes
from neuro.cli import app
from neuro.errors import DataError, InputError

CATEGORIES = list(haxby_attributes().table.index)


def blocks(n_runs=6, signal=1.0, seed=0):
    """Voxels that are linear in the attributes, blocks in runs with an offset of their own."""
    rng = np.random.default_rng(seed)
    table = haxby_attributes().table
    category = np.tile(CATEGORIES, n_runs)
    run = np.repeat([f"run-{i}" for i in range(n_runs)], len(CATEGORIES))
    weights = rng.standard_normal((len(table.columns), 60))
    X = signal * table.loc[category].to_numpy() @ weights + 2 * rng.standard_normal((len(run), 60))
    X += 3 * rng.standard_normal((n_runs, 60))[np.unique(run, return_inverse=True)[1]]
    return z_score_runs(X, run), category, run, table


def test_categories_are_decoded_with_intervals_over_runs():
    X, category, run, table = blocks()
    scores = decode_categories(X, category, run, table)
    accuracy = scores.estimates["category.ridge.accuracy"]
    assert accuracy.above(accuracy.chance)
    assert accuracy.chance == 1 / 8
    assert (accuracy.n, accuracy.n_unit) == (6, "run")
    assert set(scores.estimates) == {
        "category.linear.accuracy",
        "category.onehot.accuracy",
        "category.ridge.accuracy",
        "category.shuffled.accuracy",
        "category.ridge.over_linear",
        "category.ridge.over_onehot",
    }
    shuffled = scores.estimates["category.shuffled.accuracy"]
    assert shuffled.value == pytest.approx(1 / 8, abs=0.08)
    assert_allclose(scores.confusion("ridge").sum(axis=1), 1)
    assert_allclose(
        np.diag(scores.confusion("ridge")).mean(), (scores.predicted["ridge"] == category).mean()
    )


def test_noise_is_at_chance():
    values = [
        decode_categories(*blocks(signal=0, seed=seed)).estimates["category.ridge.accuracy"].value
        for seed in range(3)
    ]
    assert np.mean(values) < 0.25


def test_a_method_sees_the_training_runs_only():
    X, category, run, table = blocks(n_runs=4)
    seen = []

    def method(X_train, attributes, runs, X_test):
        seen.append((set(runs), len(X_test), attributes.shape))
        return np.zeros((len(X_test), attributes.shape[1]))

    scores = decode_categories(X, category, run, table, methods={"mindeye": method})
    assert [len(runs) for runs, _, _ in seen] == [3] * 4
    assert {shape for _, _, shape in seen} == {(24, 12)}
    assert scores.estimates["category.mindeye.accuracy"].value == pytest.approx(1 / 8)


def test_what_can_t_be_decoded_is_refused():
    X, category, run, table = blocks(n_runs=3)
    with pytest.raises(DataError, match="no scissors"):
        decode_categories(X, category, run, table.drop("scissors"))
    with pytest.raises(DataError, match="needs three"):
        decode_categories(X[:16], category[:16], run[:16], table)
    with pytest.raises(DataError, match="NaN"):
        decode_categories(np.full_like(X, np.nan), category, run, table)
    with pytest.raises(InputError, match="each trial"):
        decode_categories(X, category[:-1], run, table)
    flat = pd.DataFrame({"same": 1.0}, index=CATEGORIES)
    with pytest.raises(DataError, match="no attribute differs"):
        decode_categories(X, category, run, flat)


def test_constant_voxels_become_zero():
    assert np.all(z_score_runs(np.full((4, 1), 7.0), list("aabb")) == 0)
    table = pd.DataFrame({"a": [1.0, -1.0], "b": [1.0, 1.0]}, ["x", "y"])
    assert nearest_category([[1.0, 1.0], [-1.0, 0.9]], table).tolist() == ["x", "y"]


def test_mindeye_finds_categories_through_attributes():
    """Its parts see training runs only, and blocks of one category share a target."""
    X, category, run, table = blocks(n_runs=4, signal=2.0)
    method = mindeye_regressor(n_members=1, max_epochs=2, device="cpu")
    scores = decode_categories(X, category, run, table, methods={"mindeye": method}, n_boot=100)
    accuracy = scores.estimates["category.mindeye.accuracy"]
    assert accuracy.above(accuracy.chance)


def test_haxby_from_images_to_numbers(neuro_data, tmp_path):
    """The shipped workflow on the real runs, with a short training."""
    if not (neuro_data / "fmri-haxby2001").is_dir():
        pytest.skip("NEURO_DATA has no fmri-haxby2001")
    sets = ("categories.max_epochs=1", "categories.n_members=1", "categories.n_boot=100")
    words = [word for text in sets for word in ("--set", text)]
    done = CliRunner().invoke(app, ["run", "fmri-haxby", "--out", str(tmp_path), *words])
    assert done.exit_code == 0, done.output
    run = tmp_path / "fmri-haxby"
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    assert metrics["category.linear.accuracy"]["value"] == pytest.approx(0.625, abs=0.03)
    for name in ("mindeye", "ridge", "onehot"):
        found = metrics[f"category.{name}.accuracy"]
        assert found["chance"] == 0.125
        assert found["n"] == 9
        assert found["low"] > 0.3
    assert metrics["category.shuffled.accuracy"]["value"] < 0.2
    assert metrics["voxels.kept"]["value"] == 530
    report = (run / "report.html").read_text()
    for text in ("MindEye to attributes", "shuffled labels", "rows sum to one", "animacy"):
        assert text in report
    answers = pd.read_parquet(run / "predictions.parquet")
    assert len(answers) == 72 * 4
