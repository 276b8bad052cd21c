"""Pairs of persons, the target's two parts, and fresh probes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from neuro.errors import DataError, InputError
from neuro.validation import summarise
from timeseries.adapt import (
    Pair,
    draw_pairs,
    pair_estimate,
    pair_order,
    pair_trials,
    segment_table,
)
from timeseries.adapt_report import MODELS
from timeseries.adapt_study import adapt
from timeseries.downstream import SeriesPCA, summary_features
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


def test_a_code_of_the_class_alone_does_not_tell_the_domain_the_wrong_way_round():
    rng = np.random.default_rng(0)
    y, domain = np.repeat(np.arange(6), 80), np.tile(np.repeat([0, 1], 40), 6)
    spans = np.arange(480) // 20  # two for each class and domain
    codes = np.eye(6)[y] + 0.1 * rng.standard_normal((480, 6))
    row = segment_table({"g": codes}, y, domain, spans, target=1)["g"]
    assert abs((row["Acc/D-S"] + row["Acc/D-T"]) / 2 - 0.5) < 0.1
    assert list(row) == ["Acc/D-S", "Acc/D-T", "Acc/C-S", "Acc/C-T", "AUC/C-S", "AUC/C-T"]
    with pytest.raises(DataError, match="two or more recordings"):
        segment_table({"g": codes}, y, domain, np.zeros(480), target=1)


def test_one_stretch_of_each_class_and_domain_is_probed_too():
    rng = np.random.default_rng(0)
    y, domain, spans = np.tile([0, 1], 20), np.repeat([0, 1], 20), np.tile([0, 1], 20)
    spans = spans + 2 * domain
    codes = y[:, None] + 0.1 * rng.standard_normal((40, 2))
    row = segment_table({"g": codes}, y, domain, spans, target=1)["g"]
    assert row["Acc/C-S"] == row["Acc/C-T"] == 1
    alone = segment_table({"g": codes}, y, domain, domain, target=1)["g"]
    assert np.isfinite(list(alone.values())).all()


def test_persons_recur_as_late_as_they_can():
    names = [f"p{k:02}" for k in range(20)]
    first = draw_pairs(names, 10, 0)
    assert {name for pair in first for name in (pair.source, pair.target)} == set(names)
    assert len(set(pair_order(names[:4], 3))) == 12


def test_intervals_over_persons_where_they_recur_and_over_pairs_where_not():
    rng = np.random.default_rng(0)
    alone = [Pair(f"a{k}", f"b{k}") for k in range(8)]
    values = rng.normal(0.7, 0.1, 8)
    found = pair_estimate(values, alone, values - 0.1)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.p < 0.05
    assert pair_estimate(values, alone).low == summarise(values, n_unit="pair").low
    # A level that belongs to the target person: pairs with one target are one observation.
    level = dict(zip("abcdef", rng.normal(0.6, 0.2, 6), strict=True))
    pairs = list(pair_order(list("abcdef")))
    shared = np.array([level[pair.target] for pair in pairs])
    by_person, by_pair = pair_estimate(shared, pairs), summarise(shared, n_unit="pair")
    assert by_person.high - by_person.low > 1.3 * (by_pair.high - by_pair.low)
    assert by_person.value == pytest.approx(by_pair.value)
    assert pair_estimate(shared, pairs, shared - 0.1).p is None


def test_pca_and_statistics_see_neither_padding_nor_holes():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 2, 20)).cumsum(-1)
    mask = np.arange(20) < rng.integers(12, 21, 30)[:, None]
    X = np.where(mask[:, None], X, 0)
    junk = np.where(mask[:, None], X, 1e3)
    wider = np.concatenate([X, np.full((30, 2, 7), np.nan)], axis=-1)
    wide_mask = np.pad(mask, ((0, 0), (0, 7)))
    plain = SeriesPCA(4).fit(X, mask).transform(X, mask)
    for other, own in ((junk, mask), (wider, wide_mask)):
        codes = SeriesPCA(4).fit(other, own).transform(other, own)
        assert np.allclose(np.abs(codes), np.abs(plain), atol=1e-6)
        assert np.allclose(summary_features(other, own), summary_features(X, mask))
    assert not np.allclose(np.abs(SeriesPCA(4).fit(junk).transform(junk)), np.abs(plain))
    whole = SeriesPCA(30).fit(X, mask)
    again = whole.inverse_transform(whole.transform(X, mask))
    assert np.allclose((again - X) * mask[:, None], 0, atol=1e-6)
    holes = X.copy()
    holes[3, 1, 2:5] = np.nan
    assert np.isfinite(SeriesPCA(4).fit(holes, mask).transform(holes, mask)).all()
    assert np.isfinite(summary_features(holes, mask)).all()


def test_a_pair_that_cannot_be_scored_is_replaced_by_the_next_of_the_order(monkeypatch):
    data = simulate_series(SeriesStudy(n_subjects=4, n_trials=12, n_classes=2, n_samples=16))
    pairs = list(pair_order(data["subject"].values))
    lonely = pairs[0].target  # one recording cannot be both adapted to and scored
    names = np.where(data["subject"] == lonely, "only", data["recording"].values)
    label = np.resize(["u", "v"], len(names))
    data = data.assign_coords({"recording": ("trial", names), "class": ("trial", label)})
    told, metrics = [], {}
    monkeypatch.setattr("timeseries.adapt_study.score_pair", _perfect)
    table = adapt(data, {"n_pairs": 3, "score_size": 0.5, "seed": 0}, _context(told, metrics))
    scored = list(dict.fromkeys(zip(table["source"], table["target"], strict=True)))
    possible = [(p.source, p.target) for p in pairs if lonely not in (p.source, p.target)]
    assert scored == possible[:3]
    assert "the next pair of the seed's order" in told[0]
    for pair in scored:
        for model in MODELS:
            assert metrics[f"adapt.{pair[0]}-{pair[1]}.{model}.accuracy"] == 1
    assert {f"segment.{s}.{w}.accuracy" for s in ("g_y", "g_d") for w in ("class", "domain")} <= {
        *metrics
    }


def test_too_few_pairs_are_told_and_none_is_an_error(monkeypatch):
    data = simulate_series(SeriesStudy(n_subjects=2, n_trials=12, n_classes=2, n_samples=16))
    monkeypatch.setattr("timeseries.adapt_study.score_pair", _perfect)
    told = []
    one = data.assign_coords(recording=("trial", data["subject"].values))
    with pytest.raises(DataError, match="no pair of persons"):
        adapt(one, {"n_pairs": 2, "score_size": 0.5, "seed": 0}, _context(told, {}))
    assert told[-1] == "0 of 2 pairs could be scored, no more are left"
    absent = data.assign_coords({"class": ("trial", np.where(data["domain"] == 1, "u", "v"))})
    with pytest.raises(DataError, match="no pair of persons"):
        adapt(absent, {"n_pairs": 2, "score_size": 0.5, "seed": 0}, _context(told, {}))
    assert any("expected two or more" in line for line in told)


def _perfect(data, parts, settings, context):
    columns = ("Acc/D-S", "Acc/D-T", "Acc/C-S", "Acc/C-T", "AUC/C-S", "AUC/C-T")
    right = {model: np.ones(len(parts["score"]), bool) for model in MODELS}
    return right, {segment: dict.fromkeys(columns, 0.5) for segment in ("g_y", "g_d")}


def _context(told, metrics):
    return SimpleNamespace(
        warn=told.append, section=lambda *a: None, progress=lambda items, label: iter(items),
        metric=lambda name, value, **_: metrics.update({name: value}), scored=lambda name: None,
        method=lambda text: None,
    )  # fmt: skip
