"""What a stage reports is checked when it is reported, and kept with its result."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pandas as pd
import pytest

from neuro.errors import StageError
from neuro.runner.context import RunContext
from neuro.runner.progress import Reporter


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def context(tmp_path, stream):
    (tmp_path / "result").mkdir()
    reporter = Reporter(stream=stream)
    return RunContext("stage", "key", tmp_path / "result", tmp_path / "scratch", 1, {}, reporter)


def test_a_metric_keeps_all_fields_and_numbers_only(context, tmp_path):
    context.metric("a.b", np.float32(0.5), low=0, high=1, n=np.int64(3), n_unit="subject", p=0.01)
    context.metric("a.c", math.nan)
    context.metric("a.d", None)
    context.finish()
    found = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert found["a.b"]["value"] == 0.5
    assert found["a.b"]["n"] == 3
    assert found["a.c"]["value"] is None
    assert found["a.d"]["p"] is None


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("a b", {"value": 1}, "words joined by dots"),
        ("", {"value": 1}, "words joined by dots"),
        ("a", {"value": "1"}, "value must be a number"),
        ("a", {"value": True}, "value must be a number"),
        ("a", {"value": 1, "low": 2, "high": 1}, "low 2 is above high 1"),
        ("a", {"value": 1, "p": 1.5}, "p must be between 0 and 1"),
    ],
)
def test_a_wrong_metric_is_refused(context, name, fields, says):
    with pytest.raises(StageError, match=says):
        context.metric(name, **fields)


def test_a_metric_is_recorded_once(context):
    context.metric("a", 1)
    with pytest.raises(StageError, match="recorded twice"):
        context.metric("a", 2)


def rows(**changed):
    columns = {"item": ["i"], "unit": ["u"], "fold": [0], "target": ["t"], "truth": [1.0]}
    return pd.DataFrame({**columns, "score": [0.5], **changed})


def test_predictions_of_mixed_kinds_are_written(context, tmp_path):
    context.predictions(rows())
    context.predictions(rows(truth=["face"], score=["house"]))
    context.finish()
    table = pd.read_parquet(tmp_path / "result" / "predictions.parquet")
    assert table["truth"].tolist() == ["1.0", "face"]


def test_predictions_need_their_columns(context):
    with pytest.raises(StageError, match=r"lack the columns \['score'\]"):
        context.predictions(rows().drop(columns="score"))


def test_sections_methods_warnings_and_scorings_are_kept(context, tmp_path, stream):
    from neuro.report import read_sections

    context.section("Title", "a text")
    context.method("It was done.", "doe2020")
    context.method("It was done.", "doe2020")
    for _ in range(2):
        context.warn("look out")
        context.scored("split")
    assert context.finish() == {"split": 2}
    notes = json.loads((tmp_path / "result" / "notes.json").read_text())
    assert notes["methods"] == [["It was done.", ["doe2020"]]]
    assert notes["warnings"] == ["look out"]
    assert stream.getvalue() == "Warning: stage: look out\n"
    assert read_sections(tmp_path / "result" / "report")[0].title == "Title"


def test_scratch_is_made_when_asked_for(context, tmp_path):
    assert not (tmp_path / "scratch").exists()
    assert context.scratch.is_dir()


@pytest.mark.parametrize("show", [True, False])
def test_progress_gives_every_item(show, monkeypatch, stream):
    monkeypatch.setattr("neuro.runner.progress._QUIET_S", 0)
    reporter = Reporter(show, stream)
    assert list(reporter.track(iter("abc"), "letters", 3)) == list("abc")
    assert ("letters 2/3" in stream.getvalue()) == show
    assert "\r" not in stream.getvalue()


def test_bars_within_bars_at_a_terminal(stream):
    stream.isatty = lambda: True
    reporter = Reporter(True, stream)
    seen = []
    for item in reporter.track("ab", "outer"):
        for inner in reporter.track("cd", "inner"):
            reporter.line(f"at {item}{inner}")
            seen.append(item + inner)
    assert seen == ["ac", "ad", "bc", "bd"]
    assert "at bd" in stream.getvalue()


def test_warnings_of_a_stage_become_the_runs() -> None:
    import warnings

    from neuro.runner.work import _warnings_to

    told: list[str] = []
    context = type("Context", (), {"warn": lambda self, text: told.append(text)})()
    with _warnings_to(context):
        warnings.warn("beta may be too small", stacklevel=1)
        warnings.warn("beta may be too small", stacklevel=1)
        warnings.warn("old name", DeprecationWarning, stacklevel=1)
    assert told == ["beta may be too small"]
