"""Groups that share a factor, dependence of any form, intervals, and passive latents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.errors import InputError
from neuro.metrics import (
    compare_representations,
    disentanglement,
    disentanglement_intervals,
    gap_closed,
    neighbour_total_correlation,
)


def independent(n: int = 600, k: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k))


def test_groups_that_share_a_factor_tell_codes_from_noise_and_rotation():
    s = independent()
    names = ["beta_vae", "factor_vae"]
    perfect = disentanglement(s, s, scores=names)
    noise = disentanglement(independent(seed=1), s, scores=names)
    rotation = np.linalg.qr(independent(3, 3, 5))[0]
    rotated = disentanglement(s @ rotation, s, scores=names)
    assert min(perfect.values()) > 0.98
    assert max(noise.values()) < 0.6
    assert rotated["beta_vae"] > 0.95  # its known blindness (Kim and Mnih 2018)
    assert disentanglement(s, s[:, :1], scores=names) == dict.fromkeys(names, 1.0)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([-64.0, 0.125, 1.0]))
def test_groups_do_not_depend_on_order_or_scale_of_latents(seed, scale):
    s = independent(120, 2, seed)
    z = np.hstack([s, independent(120, 1, seed + 1)])
    names = ["factor_vae", "tc_knn"]
    moved = disentanglement(scale * z[:, ::-1], s, scores=names)
    assert moved == pytest.approx(disentanglement(z, s, scores=names), abs=0.02)


def test_neighbour_total_correlation_of_known_cases():
    z = independent(2000, 2)
    assert neighbour_total_correlation(z) < 0.05
    r = 0.8
    z[:, 1] = r * z[:, 0] + np.sqrt(1 - r**2) * z[:, 1]
    assert neighbour_total_correlation(z) == pytest.approx(-0.5 * np.log(1 - r**2), abs=0.08)
    codes = np.random.default_rng(0).integers(0, 4, 2000)
    assert neighbour_total_correlation(np.column_stack([codes, codes])) == pytest.approx(
        np.log(4), abs=0.02
    )
    assert neighbour_total_correlation(z[:, :1]) == 0


def test_intervals_hold_the_value_and_widen_with_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 40)
    s = rng.integers(0, 3, (400, 2))
    shared = rng.normal(size=10)[groups]  # one group's noise is common to its rows
    z = s + np.column_stack([shared, rng.normal(size=400)])
    options = {"scores": ["mig", "tc"], "n_boot": 60}
    rows = disentanglement_intervals(z, s, **options)
    wide = disentanglement_intervals(z, s, groups=groups, **options)
    assert rows == disentanglement_intervals(z, s, **options)
    for found in (rows, wide):
        for value, low, high in found.values():
            assert low <= value <= high
    assert wide["mig"][0] == rows["mig"][0] == disentanglement(z, s, scores="mig")["mig"]
    assert wide["mig"][2] - wide["mig"][1] > rows["mig"][2] - rows["mig"][1]
    with pytest.raises(InputError, match="3 groups"):
        disentanglement_intervals(z, s, groups=groups % 3)
    with pytest.raises(InputError, match="groups have the shape"):
        disentanglement_intervals(z, s, groups=groups[:9])


def test_the_width_of_an_interval_is_the_spread_over_fresh_data():
    fresh, widths = [], []
    for seed in range(30):
        s = independent(300, 2, seed)
        z = s + 0.5 * independent(300, 2, seed + 100)
        value, low, high = disentanglement_intervals(z, s, scores="sap", n_boot=40)["sap"]
        fresh.append(value)
        widths.append(high - low)
    assert 0.6 < np.median(widths) / (3.92 * np.std(fresh)) < 1.7


def passive_case(n: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two active latents, and three passive ones whose tiny means copy them."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(n, 2))
    mean = np.hstack([s, 0.01 * s @ rng.normal(size=(2, 3))])
    return mean, np.broadcast_to([0.01, 0.01, 1.0, 1.0, 1.0], mean.shape), s


def test_dropping_passive_latents_closes_the_gap_of_mean_and_sample():
    mean, variance, s = passive_case()
    found = compare_representations(mean, variance, s)
    assert [(f.representation, f.latents, f.n_latents) for f in found] == [
        ("mean", "all", 5), ("sampled", "all", 5),
        ("mean", "without passive", 2), ("sampled", "without passive", 2),
    ]  # fmt: skip
    assert found[0].tc > 10 > 0.1 > found[1].tc
    assert gap_closed(found, "tc") > 0.99
    assert gap_closed(found, "correlation") > 0.9
    assert all(f.probe > 0.95 for f in found)
    assert all(f.probe is None for f in compare_representations(mean, variance))


def test_without_active_latents_there_is_nothing_to_read():
    mean, _, s = passive_case(200)
    found = compare_representations(mean, np.ones_like(mean), s > 0)
    assert [f.n_latents for f in found] == [5, 5, 0, 0]
    assert found[-1].probe == 0.5
    assert found[-1].tc == found[-1].correlation == 0


@pytest.mark.parametrize("spoil", [np.nan, -1.0])
def test_bad_posteriors_are_refused(spoil):
    with pytest.raises(InputError, match="finite"):
        compare_representations(np.ones((5, 2)), np.full((5, 2), spoil))
    with pytest.raises(InputError, match="expected both"):
        compare_representations(np.ones((5, 2)), np.ones((5, 3)))


def test_the_section_of_a_report_names_what_dropping_does():
    from neuro.activity import activity_blocks

    mean, variance, s = passive_case(400)
    text, figure, table = activity_blocks(mean, variance, s)
    assert "2 latents are active, 0 mixed and 3 passive" in text.text
    assert "closes 100% of the gap" in text.text
    assert len(figure.figure.axes) == 2
    assert [row["n_latents"] for row in table.rows] == [5, 5, 2, 2]
    (text, *_) = activity_blocks(mean[:, :2], variance[:, :2])
    assert "nothing to drop" in text.text
