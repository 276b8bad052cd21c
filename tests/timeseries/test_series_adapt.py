"""Pairs of persons, the target's two parts, and fresh probes."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.errors import DataError, InputError
from timeseries.adapt import Pair, draw_pairs, pair_trials, segment_table
from timeseries.simulate import SeriesStudy, simulate_series


def test_pairs_are_fixed_by_the_seed():
    names = ["a", "b", "c", "d"]
    assert draw_pairs(names, 5, 3) == draw_pairs(names * 2, 5, 3)
    assert all(pair.source != pair.target for pair in draw_pairs(names, 12))
    with pytest.raises(InputError, match="12 pairs"):
        draw_pairs(names, 13)


def test_no_recording_is_adapted_to_and_scored():
    data = simulate_series(SeriesStudy(n_subjects=2, n_trials=40))
    data["recording"] = ("trial", np.repeat([f"r{k}" for k in range(20)], 4))
    parts = pair_trials(data, Pair("s01", "s02"))
    sides = [set(data["recording"].values[parts[name]]) for name in ("adapt", "score")]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert set(data["subject"].values[parts["source"]]) == {"s01"}


def test_a_class_that_the_source_lacks_is_refused():
    data = simulate_series(SeriesStudy(n_subjects=2, n_trials=30))
    data["class"] = ("trial", np.where(data["domain"] == 1, "new", "old"))
    with pytest.raises(DataError, match="classes that s01 lacks: new"):
        pair_trials(data, Pair("s01", "s02"))


def test_segments_tell_what_they_hold_and_nothing_else():
    rng = np.random.default_rng(0)
    y, domain = rng.integers(3, size=300), rng.integers(2, size=300)
    noise = 0.1 * rng.standard_normal((300, 3))
    segments = {"g_y": noise + np.eye(3)[y], "g_d": noise + domain[:, None]}
    table = segment_table(segments, y, domain, np.arange(300), target=1)
    assert table["g_y"]["Acc/C-T"] > 0.95
    assert table["g_y"]["AUC/C-S"] > 0.95
    assert table["g_d"]["Acc/D-S"] > 0.95
    assert table["g_d"]["Acc/C-T"] < 0.55
    both = (table["g_y"]["Acc/D-S"] + table["g_y"]["Acc/D-T"]) / 2
    assert both < 0.65
