"""DTS on simulated domains: the short form of the claim, and the claim itself (slow)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

FILE = Path(__file__).parents[2] / "benchmarks" / "dts.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("dts_bench", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_segments_hold_what_they_should_in_short(bench):
    settings = {**bench.SETTINGS, "max_epochs": 20, "n_hidden": 32, "batch_size": 50}
    found = bench.one(200, settings, n_trials=300, shift=1.5)
    assert found["g_d.domain"] > found["g_y.domain"] + 0.1
    assert found["g_y.class"] > found["g_d.class"] + 0.1
    assert all(0 <= value <= 1 for value in found.values())


def test_a_study_is_not_continued_with_other_settings(bench, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(bench, "one", lambda *of: calls.append(of) or {"dts.target": 0.5, **{
        f"{name}.target": 0.4 for name in ("source_only", "source_own", "unaligned")
    }, **{f"{g}.{w}": 0.5 for g in ("g_y", "g_d") for w in ("class", "domain")}})  # fmt: skip
    arguments = ["dts.py", "--seeds", "1", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    bench.main()
    bench.main()
    assert len(calls) == 2
    monkeypatch.setattr("sys.argv", [*arguments, "--set", "sigma=2"])
    with pytest.raises(SystemExit, match="other settings"):
        bench.main()


@pytest.mark.slow
def test_dts_is_above_source_only_training(bench):
    """Seeds that no setting was chosen on; both directions of each pair of subjects."""
    rows = [bench.one(seed, bench.SETTINGS, n_trials=800, shift=1.5) for seed in range(10, 15)]
    gain = np.array([row["dts.target"] - row["source_only.target"] for row in rows])
    assert gain.mean() - stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain) > 0
    heads = np.array([row["dts.target"] - row["unaligned.target"] for row in rows])
    assert heads.mean() - stats.t.ppf(0.975, len(heads) - 1) * stats.sem(heads) > 0
