"""Two runs: metrics side by side, differences paired by item and averaged inside units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neuro.errors import InputError
from neuro.runner.compare import differences, find_run, metrics


def make_run(folder: Path, score: Any, truth: Any, values: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    entries = {k: {"value": v, "low": None, "high": None} for k, v in (values or {}).items()}
    (folder / "metrics.json").write_text(json.dumps(entries))
    n = len(score)
    pd.DataFrame(
        {
            "item": [f"trial{i}" for i in range(n)],
            "unit": [f"s{i // 4}" for i in range(n)],
            "fold": 0,
            "target": "erp.denoised.r",
            "truth": truth,
            "score": score,
        }
    ).to_parquet(folder / "predictions.parquet")
    return folder


def test_scores_without_a_truth_are_subtracted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=40)
    first = make_run(tmp_path / "a", noise, None)
    second = make_run(tmp_path / "b", noise + 0.5, None)
    (found,) = differences(first, second)
    assert found.measure == "score"
    assert found.estimate.value == pytest.approx(0.5)
    assert found.estimate.n == 10  # units, not items
    assert (found.n_items, found.n_unpaired) == (40, 0)
    assert found.estimate.low == pytest.approx(0.5)
    assert found.estimate.high == pytest.approx(0.5)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = make_run(tmp_path / "a", rng.normal(size=40), None)
    second = make_run(tmp_path / "b", rng.normal(size=40), None)
    before = differences(first, second)
    path = second / "predictions.parquet"
    pd.read_parquet(path).sample(frac=1, random_state=1).to_parquet(path)
    assert differences(first, second) == before


def test_swapping_the_runs_turns_the_sign(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = make_run(tmp_path / "a", rng.normal(size=40), None)
    second = make_run(tmp_path / "b", rng.normal(size=40), None)
    (there,), (back,) = differences(first, second), differences(second, first)
    assert there.estimate.value == pytest.approx(-back.estimate.value)  # type: ignore[operator]


def test_classes_give_accuracy(tmp_path: Path) -> None:
    truth = ["face", "house"] * 8
    first = make_run(tmp_path / "a", ["face"] * 16, truth)
    second = make_run(tmp_path / "b", truth, truth)
    (found,) = differences(first, second)
    assert found.measure == "accuracy"
    assert found.estimate.value == pytest.approx(0.5)
    assert found.estimate.baseline == pytest.approx(0.5)


@pytest.mark.parametrize("classes", [("face", "house"), ("0", "1")])
def test_probabilities_of_the_truth_are_subtracted(tmp_path: Path, classes: tuple[str]) -> None:
    truth = list(classes) * 8
    first = make_run(tmp_path / "a", np.full(16, 0.5), truth)
    second = make_run(tmp_path / "b", np.full(16, 0.75), truth)
    (found,) = differences(first, second)
    assert (found.measure, found.estimate.value) == ("score", pytest.approx(0.25))


def test_a_numeric_truth_gives_the_error(tmp_path: Path) -> None:
    truth = np.arange(16.0)
    first = make_run(tmp_path / "a", truth + 3, truth)
    second = make_run(tmp_path / "b", truth - 1, truth)
    (found,) = differences(first, second)
    assert found.measure == "minus absolute error"
    assert found.estimate.value == pytest.approx(2)


def test_unpaired_items_are_counted_and_left_out(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", np.zeros(40), None)
    second = make_run(tmp_path / "b", np.ones(36), None)
    (found,) = differences(first, second)
    assert (found.n_items, found.n_unpaired) == (36, 4)


def test_members_of_a_sweep_are_compared_one_by_one(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, np.zeros(40), None) for name in "ab"]
    for folder, shift in zip(folders, (0.0, 1.0), strict=True):
        table = pd.read_parquet(folder / "predictions.parquet").assign(stage="evaluate")
        members = [table.assign(member=f"item=i,x,beta={b}", score=b + shift) for b in (1, 4)]
        plain = table.assign(member="item=rec1", stage="other", score=shift * 3)
        pd.concat([*members, plain]).to_parquet(folder / "predictions.parquet")
    found = {d.target: d.estimate.value for d in differences(*folders)}
    assert found == {
        "evaluate.erp.denoised.r[beta=1]": 1,
        "evaluate.erp.denoised.r[beta=4]": 1,
        "other.erp.denoised.r": 3,
    }


def test_metrics_side_by_side(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", [0.0], None, {"x": 1.0, "only": 2.0, "none": None})
    second = make_run(tmp_path / "b", [0.0], None, {"x": 1.5, "none": 1.0})
    found = {m.name: m.difference for m in metrics(first, second)}
    assert found == {"x": 0.5, "only": None, "none": None}


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", [0.0], None)
    second = make_run(tmp_path / "b", [0.0], None)
    table = pd.read_parquet(second / "predictions.parquet").assign(target="other")
    table.to_parquet(second / "predictions.parquet")
    with pytest.raises(InputError, match=r"no prediction in common.*erp\.denoised\.r.*other"):
        differences(first, second)


@pytest.mark.parametrize("content", [b"", b"PAR1 broken"])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    first = make_run(tmp_path / "a", [0.0], None)
    second = make_run(tmp_path / "b", [0.0], None)
    (second / "predictions.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"b/predictions\.parquet: no readable table"):
        differences(first, second)


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 1}', "null"])
def test_damaged_metrics_are_named(tmp_path: Path, content: str) -> None:
    first = make_run(tmp_path / "a", [0.0], None)
    (first / "metrics.json").write_text(content)
    with pytest.raises(InputError, match=r"a/metrics\.json: no readable metrics"):
        metrics(first, first)


def test_find_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "study", [0.0], None)
    assert find_run(str(folder), tmp_path) == folder
    assert find_run("study", tmp_path / "runs") == folder
    with pytest.raises(InputError, match=r"'stdy' is no run.*did you mean 'study'"):
        find_run("stdy", tmp_path / "runs")
    with pytest.raises(InputError, match="there are no runs in"):
        find_run("study", tmp_path / "nowhere")
