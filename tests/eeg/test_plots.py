"""The EEG part of a report: what is drawn is what was given, and nothing needs to be complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from eeg import figures, plots
from eeg.draw import head_sphere, interval, peaks, positions_of, sensor_info
from eeg.simulate import positions_1005, simulate_cohort
from neuro.report import Figure, Table, Text, Warning, read_sections, write_section
from neuro.validation import Estimate


@pytest.fixture(scope="module")
def cohort() -> xr.Dataset:
    return simulate_cohort(n_subjects=4, n_trials=6, missing=0.3, seed=1)


def tables(blocks: list) -> dict[str, list[dict]]:
    return {block.caption: list(block.rows) for block in blocks if isinstance(block, Table)}


def warnings(blocks: list) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Warning)]


def drawn(blocks: list) -> list:
    return [block.figure for block in blocks if isinstance(block, Figure)]


def lines(axes) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]


# -- recordings and preprocessing --------------------------------------------------------------


def test_a_cohort_is_counted_in_subjects_and_trials(cohort: xr.Dataset) -> None:
    blocks = plots.cohort_blocks(cohort)
    assert "48 trials of 4 subjects, 16 channels" in blocks[0].text
    assert any("simulated" in text for text in warnings(blocks))
    conditions = tables(blocks)["Trials per condition."]
    assert [row["trials"] for row in conditions] == [24, 24]
    labels = tables(blocks)["Labels, counted in subjects."]
    assert {row["label"] for row in labels} == set(cohort.attrs["labels"])
    for row in labels:
        known = sum(int(part.split(": ")[1]) for part in row["subjects"].split(", ") if part)
        assert known + row["missing"] == 4
    assert len(drawn(blocks)) == 1


def test_numeric_labels_are_given_as_a_range(cohort: xr.Dataset) -> None:
    age = np.repeat([20.0, 30.0, np.nan, 50.0], 12)
    data = cohort.assign_coords(age=("trial", age)).assign_attrs(labels=["age"])
    (row,) = tables(plots.cohort_blocks(data))["Labels, counted in subjects."]
    assert (row["subjects"], row["missing"]) == ("20: 1, 30: 1, 50: 1", 1)
    many = xr.Dataset(
        coords={
            "subject": ("trial", [f"s{i}" for i in range(20)]),
            "age": ("trial", np.arange(20.0)),
        },
        attrs={"labels": ["age"]},
    )
    assert plots._label_blocks(many)[0].rows[0]["subjects"] == "0 to 19 (median 9.5)"


def test_a_catalogue_is_listed() -> None:
    coords = {name: ("trial", ["a", "b"]) for name in ("recording", "subject", "group", "path")}
    coords["session"] = ("trial", ["", ""])
    blocks = plots.catalogue_blocks(xr.Dataset(coords=coords, attrs={"labels": ["group"]}))
    assert blocks[0] == Text("2 recordings of 2 subjects.")
    rows = tables(blocks)["Recordings."]
    assert rows[1] == {"recording": "b", "subject": "b", "group": "b"}


QUALITY = [
    {
        "recording": f"r{i}",
        "subject": f"s{i}",
        "n_channels": 16,
        "bad_channels": {"Fz": "flat"} if i else {},
        "ica": {"removed": [{"component": c, "type": "eog"} for c in range(i)]},
        "epochs": {"before": {"a": 5, "b": 5}, "after": {"a": 4, "b": 3}},
        "dropped": {f"reason {k}": 1 for k in range(7)},
        "skipped": {"baseline": "no sample before 0 s"},
        "warnings": ["odd"] if i else [],
    }
    for i in range(3)
]


def test_quality_says_what_was_dropped_and_why(cohort: xr.Dataset) -> None:
    data = cohort.assign_attrs(quality=json.dumps([*QUALITY, {"recording": "", "warnings": ["x"]}]))
    blocks = plots.quality_blocks(data)
    first = tables(blocks)["Each recording."][0]
    assert (first["epochs found"], first["epochs kept"], first["bad channels"]) == (10, 7, 0)
    removed = [row["components removed"] for row in tables(blocks)["Each recording."]]
    assert removed == ["none", "1 eog", "2 eog"]
    bad = tables(blocks)["Bad channels and why."]
    assert bad[0] == {"recording": "r1", "channel": "Fz", "reason": "flat"}
    skipped, odd = warnings(blocks)
    assert skipped.startswith("Skipped in 3 of 3 recordings: baseline: no sample before 0 s")
    assert odd == "Warning in 2 of 3 recordings: odd (r1, r2)"
    (figure,) = drawn(blocks)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["kept", *(f"reason {k}" for k in range(5)), "other"]
    widths = [[bar.get_width() for bar in c] for c in figure.axes[0].containers]
    assert widths[0] == [7, 7, 7]
    assert widths[-1] == [2, 2, 2]


def test_without_quality_the_report_says_so(cohort: xr.Dataset) -> None:
    assert plots.quality_blocks(cohort.assign_attrs(quality="[]")) == [
        Text("No figures of preprocessing come with these trials.")
    ]


def test_of_many_recordings_the_worst_are_drawn() -> None:
    dropped = np.arange(100)
    figure = figures.drops_figure([f"r{i}" for i in range(100)], 100 - dropped, {"flat": dropped})
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [f"r{i}" for i in range(60, 100)]
    assert "40 of 100" in figure.axes[0].get_title(loc="left")


# -- ERPs --------------------------------------------------------------------------------------


def test_erps_are_means_over_subjects(cohort: xr.Dataset) -> None:
    uneven = cohort.isel(trial=np.r_[0:3, 12:48])  # the first subject has fewer trials
    grand, own = drawn(plots.erp_blocks(uneven, channels=["Pz", "Nowhere"]))
    condition = sorted(set(uneven.condition.values))[0]
    keep = uneven.condition.values == condition
    chosen = uneven.signal.isel(trial=np.flatnonzero(keep)).sel(channel="Pz")
    expected = chosen.groupby("subject").mean("trial").mean("subject").values
    pz = own.axes[0]
    assert pz.get_title(loc="left") == "Pz"
    assert any(len(y) == len(expected) and np.allclose(y, expected, atol=1e-4) for y in lines(pz))
    assert len([axes for axes in grand.axes if axes.images]) >= 2  # head maps


def test_without_positions_there_are_no_maps(cohort: xr.Dataset) -> None:
    attrs = {k: v for k, v in cohort.attrs.items() if k != "positions"}
    bare = cohort.copy()
    bare.attrs = attrs
    assert positions_of(bare) is None
    grand, _ = drawn(plots.erp_blocks(bare))
    assert not [axes for axes in grand.axes if axes.images]


def test_a_subject_without_a_condition_is_left_out_of_it(cohort: xr.Dataset) -> None:
    first = cohort.subject.values[0]
    gone = (cohort.subject.values == first) & (cohort.condition.values == "neutral")
    _, own = drawn(plots.erp_blocks(cohort.isel(trial=np.flatnonzero(~gone)), ["Pz"]))
    names = {text.get_text() for legend in own.legends for text in legend.get_texts()}
    assert names == {"neutral (n = 3)", "pleasant (n = 4)"}


def test_positions_need_every_channel(cohort: xr.Dataset) -> None:
    known = json.loads(cohort.attrs["positions"])
    assert list(positions_of(cohort) or {}) == cohort.channel.values.tolist()
    known.pop("Pz")
    assert positions_of(cohort.assign_attrs(positions=json.dumps(known))) is None


def test_head_outline_follows_the_sensors() -> None:
    positions = {k: v for k, v in positions_1005().items() if k in ("Fz", "Cz", "Pz", "Oz")}
    assert head_sphere(positions) == (0.0, 0.0, 0.0, 0.095)
    names = ("Fp1", "Fp2", "Fz", "Cz", "Pz", "Oz", "T7", "T8", "C3", "C4")
    ten = {name: positions_1005()[name] for name in names}
    moved = {name: np.add(place, (0.0, 0.01, 0.02)) for name, place in ten.items()}
    here, there = np.array(head_sphere(ten)), np.array(head_sphere(moved))
    assert np.allclose(there - here, [0.0, 0.01, 0.02, 0.0], atol=1e-9)
    assert 0.07 < here[3] < 0.12
    assert sensor_info(ten).ch_names == list(ten)


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((25, 400))
    low, high = interval(draws)
    assert 0.88 < np.mean((low < 0) & (high > 0)) < 0.98


def test_peaks_lie_after_the_stimulus_and_apart() -> None:
    times = np.arange(-0.2, 0.8, 0.01)
    power = np.zeros(100)
    power[[10, 40, 42, 60, 80]] = [9, 5, 4, 3, 2]
    assert peaks(power, times) == [40, 60, 80]
    assert peaks(np.zeros(3), [-0.3, -0.2, -0.1]) == [0]


# -- the model ---------------------------------------------------------------------------------


def test_training_terms_have_panels_and_validation_is_dashed() -> None:
    history = [{"epoch": i, "loss": 9.0 - i, "kl": i / 2, "val_loss": 8.0} for i in range(3)]
    history[1].pop("val_loss")
    figure = figures.training_figure(history)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "kl"]
    solid, dashed = figure.axes[0].lines
    assert lines(figure.axes[0])[0].tolist() == [9, 8, 7]
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert np.isnan(lines(figure.axes[0])[1]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("kl", "types", "expected"),
    [
        ([0.5, 0.02, 0.001], ["active", "mixed", "passive"], None),
        ([0.001, 0.0], ["passive", "passive"], "collapse"),
        ([0.5, 0.4], ["active", "mixed"], "too small"),
    ],
)
def test_collapse_and_too_small_a_beta_are_warned_of(
    kl: list[float], types: list[str], expected: str | None
) -> None:
    blocks = plots.training_blocks([{"epoch": 0, "loss": 1.0}], np.array(kl), types)
    assert len(drawn(blocks)) == 2
    told = warnings(blocks)
    assert len(told) == (expected is not None)
    assert expected is None or expected in told[0]
    n = sum(value > 0.01 for value in kl)
    title = drawn(blocks)[1].axes[0].get_title(loc="left")
    assert title.startswith(f"{n} of {len(kl)} latents kept")


def make_traversal(positions: str | None) -> xr.DataArray:
    times, channels = np.linspace(-0.1, 0.5, 31), ["Fz", "Cz", "Pz", "Oz", "P3"]
    values = np.linspace(-2, 2, 5)
    wave = np.exp(-0.5 * ((times - 0.3) / 0.05) ** 2)
    weights = np.array([[0, 0, 1, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 0.1]], dtype=float)
    waves = np.einsum("v,lc,t->lvct", values, weights, wave)
    coords = {"latent": [0, 1, 2], "value": values, "channel": channels, "time": times}
    attrs = {"positions": positions} if positions else {}
    return xr.DataArray(waves, dims=list(coords), coords=coords, attrs=attrs)


def test_traversals_show_the_sensor_that_changes_most() -> None:
    traversal = make_traversal(None)
    (figure,) = drawn(plots.traversal_blocks(traversal, kept=[True, True, False]))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "latent 0 · Pz"
    assert titles[2] == "latent 1 · Cz"
    assert max(y.max() for y in lines(figure.axes[2])) == pytest.approx(4.0)
    assert not [axes for axes in figure.axes if axes.images]


def test_traversals_have_maps_at_their_peak_where_positions_are_known() -> None:
    names = ("Fz", "Cz", "Pz", "Oz", "P3")
    known = json.dumps({name: list(map(float, positions_1005()[name])) for name in names})
    (figure,) = drawn(plots.traversal_blocks(make_traversal(known)))
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["300 ms"] * 3


def test_nothing_kept_is_said() -> None:
    blocks = plots.traversal_blocks(make_traversal(None), kept=[False] * 3)
    assert warnings(blocks) == ["No latent is kept, so there is nothing to turn."]


# -- scores ------------------------------------------------------------------------------------


def test_recovery_marks_ceiling_and_grand_average_and_shows_gaps() -> None:
    estimates = {
        "denoised.r": Estimate(0.6, 0.5, 0.7),
        "mean10.r": Estimate(None),
        "ceiling.r": Estimate(0.9, 0.8, 0.95),
        "denoised.mse_ratio": {"value": 0.8, "low": 0.7, "high": 0.9},
        "raw_pooled.r": Estimate(0.1),
        "raw.mse_ratio": Estimate(9.0, 8.0, 10.0),
    }
    blocks = plots.recovery_blocks(estimates, notes=["mean10: too few trials"])
    (figure,) = drawn(blocks)
    r, ratio = figure.axes
    assert [text.get_text() for text in r.texts] == ["not computed"] * 2  # mean10 and raw
    assert [label.get_text() for label in r.get_yticklabels()][:2] == ["denoised", "mean10"]
    assert [text.get_text() for text in r.get_legend().get_texts()] == ["ceiling"]
    assert [text.get_text() for text in ratio.get_legend().get_texts()] == ["grand average"]
    assert ratio.get_xscale() == "log"
    assert warnings(blocks) == ["mean10: too few trials"]


def test_denoised_trials_are_shown_at_the_sensor_of_the_largest_erp() -> None:
    times = np.linspace(0, 0.5, 20)
    quiet, loud = np.zeros(20), np.full(20, 3.0)
    example = {"subject": "s1", "condition": "a"}
    for i, key in enumerate(("raw", "denoised", "target", "grand_average")):
        example[key] = np.stack([quiet, loud + i])
    (figure,) = drawn(plots.denoised_blocks([example] * 2, times, ["Fz", "Pz"]))
    assert figure.axes[0].get_title(loc="left") == "s1 · a · Pz"
    levels = sorted({float(y[0]) for y in lines(figure.axes[0]) if len(y) == 20})
    assert levels == [3, 4, 5, 6]
    (figure,) = drawn(plots.denoised_blocks([example], times, ["Fz", "Pz"], channel="Fz"))
    assert figure.axes[0].get_title(loc="left") == "s1 · a · Fz"
    assert plots.denoised_blocks([], times, ["Fz"]) == []


def test_classification_stands_beside_chance_and_the_shuffled_band() -> None:
    estimates = {
        f"{label}.{name}{level}.balanced_accuracy": Estimate(
            value, value - 0.1, value + 0.1, n=12, n_unit="subject", chance=0.5, p=0.01
        )
        for label in ("group", "condition", "age")
        for level in ("", ".single_trial")
        for name, value in (("beta_vae", 0.7), ("pca", 0.6), ("shuffled", 0.5))
    }
    blocks = plots.classification_blocks(estimates)
    (figure,) = drawn(blocks)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown[:2]] == [
        "group · per subject",
        "group · single trials",
    ]
    assert len(shown) == 6
    assert {text.get_text() for text in shown[0].get_legend().get_texts()} == {
        "shuffled, 95 %",
        "chance",
    }
    rows = tables(blocks)["Balanced accuracy."]
    assert len(rows) == 18
    assert rows[0]["value"] == 0.7
    assert plots.classification_blocks({}) == []


def test_a_whole_section_can_be_stored(cohort: xr.Dataset, tmp_path: Path) -> None:
    blocks = [*plots.cohort_blocks(cohort), *plots.erp_blocks(cohort)]
    write_section(tmp_path, "Trials", blocks)
    (section,) = read_sections(tmp_path)
    assert [type(block) for block in section.blocks] == [type(block) for block in blocks]
    assert sum(path.stat().st_size for path in tmp_path.glob("*.png")) < 500_000
