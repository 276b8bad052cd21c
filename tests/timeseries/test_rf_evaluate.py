"""Splits, enrolment, crossed tests, probes; and the workflow from captures to a report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from neuro.cli import app
from neuro.errors import DataError, InputError
from neuro.report import Warning
from timeseries.rf.enrol import Enrolled, enrol, from_dataset, threshold_of
from timeseries.rf.evaluate import Fingerprints, crossed_tests, evaluate
from timeseries.rf.features import HandFeatures, burst_features
from timeseries.rf.pool import members_by_seed, pool_samples, pool_scores
from timeseries.rf.preprocess import Steps, prepare_dataset
from timeseries.rf.pulses import envelope_widths
from timeseries.rf.score_plots import score_blocks
from timeseries.rf.simulate import Study, simulate_bursts
from timeseries.rf.split import split_bursts

STUDY = Study(n_known=6, n_validation=4, n_unknown=5, n_train=6, n_enrol=3, n_test=6)


@pytest.fixture(scope="module")
def bursts():
    return prepare_dataset(simulate_bursts(STUDY, 0), Steps(n_samples=512))


def codes_of(bursts, noise, seed=0):
    """Fingerprints that know the device, with noise that is larger in unseen channels."""
    rng = np.random.default_rng(seed)
    names, number = np.unique(bursts["device"].values, return_inverse=True)
    scale = np.where(bursts["unseen"].values, 2 * noise, noise)[:, None]
    return rng.normal(size=(len(names), 16))[number] + scale * rng.normal(size=(len(number), 16))


# Splits ---------------------------------------------------------------------------------------


def captured(n_devices=4, n_captures=6, n_bursts=3):
    n = n_devices * n_captures * n_bursts
    device = np.repeat([f"d{k}" for k in range(n_devices)], n_captures * n_bursts)
    capture = np.repeat([f"c{k}" for k in range(n_devices * n_captures)], n_bursts)
    start = np.tile(np.arange(n_bursts) * 1000, n_devices * n_captures)
    coords = {"device": ("trial", device), "capture": ("trial", capture), "start": ("trial", start)}
    signal = np.random.default_rng(0).normal(size=(n, 2, 16)).astype("f4")
    return xr.Dataset({"signal": (("trial", "iq", "time"), signal)}, coords, {"sfreq": 1e3})


def test_captures_are_never_split():
    data = split_bursts(captured(), n_unknown=1, n_validation=1, random_state=3)
    capture, part = data["capture"].values, data["part"].values
    for name in np.unique(capture):
        assert len(set(part[capture == name])) == 1
    group = data["group"].values
    assert set(part[group == "known"]) == {"train", "enrol", "test"}
    for kind in ("unknown", "validation"):
        assert set(part[group == kind]) == {"enrol", "test"}
    assert data.attrs["confounded"] == 0


def test_unknown_devices_are_not_trained_on():
    data = split_bursts(captured(), n_unknown=2, random_state=0)
    rows = (data["part"].values == "train") & (data["group"].values != "known")
    assert not rows.any()


def test_a_device_with_one_capture_is_named():
    data = captured(n_captures=1)
    with pytest.raises(DataError, match="device 'd0' has 1 captures"):
        split_bursts(data)
    with pytest.raises(InputError, match="fewer than two to train on"):
        split_bursts(captured(), n_unknown=3)


def test_a_split_in_time_has_a_guard_and_says_what_is_confounded():
    data = captured(n_devices=2, n_captures=1, n_bursts=50)
    found = split_bursts(data, by="time", guard=2.0)
    assert found.attrs["confounded"] == 1
    seconds, part = found["start"].values / 1e3, found["part"].values
    own = found["device"].values == "d0"
    ends = {p: (seconds[own & (part == p)].min(), seconds[own & (part == p)].max())
            for p in ("train", "enrol", "test")}  # fmt: skip
    assert ends["enrol"][0] - ends["train"][1] >= 2
    assert ends["test"][0] - ends["enrol"][1] >= 2
    with pytest.raises(DataError, match="leaves no burst"):
        split_bursts(data, by="time", guard=100.0)


# Enrolment ------------------------------------------------------------------------------------


def test_the_threshold_is_that_of_equal_errors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 6))
    device = np.repeat([f"d{k}" for k in range(8)], 40)
    codes = centres[np.repeat(np.arange(8), 40)] + 0.6 * rng.normal(size=(320, 6))
    known = enrol(codes[::4], device[::4], 0.0)
    threshold = threshold_of(codes, device, known)
    scores, right = known.scores(codes), device[:, None] == known.devices
    missed, accepted = (scores[right] < threshold).mean(), (scores[~right] >= threshold).mean()
    assert missed == pytest.approx(accepted, abs=0.02)


def test_verdicts_tell_the_never_seen():
    known = Enrolled(np.eye(3), ["a", "b", "c"], 0.9)
    table = known.verdicts([[5, 0.1, 0], [1, 1, 1]])
    assert table["verdict"].tolist() == ["a", "never seen"]
    with pytest.raises(DataError, match="name of its device"):
        enrol(np.eye(2), ["a", ""], 0.5)


# Scores ---------------------------------------------------------------------------------------


def test_tests_are_crossed(bursts):
    tests = crossed_tests(bursts)
    assert len(tests) == 8
    rows = tests["unseen_channel.unknown.later_session"]
    assert bursts["unseen"].values[rows].all()
    assert bursts["later"].values[rows].all()
    assert set(bursts["group"].values[rows]) == {"unknown"}
    assert all(len(rows) == 6 * (6 if ".known." in t else 5) for t, rows in tests.items())
    with pytest.raises(DataError, match="rf-split"):
        crossed_tests(captured())


def test_good_fingerprints_score_well_and_bad_ones_are_at_chance(bursts):
    methods = {
        "ml_rff": Fingerprints(codes_of(bursts, 0.6), bursts["device"].values.astype(str)),
        "dr_rff": Fingerprints(codes_of(bursts, 0.1), bursts["device"].values.astype(str)),
        "noise": Fingerprints(np.random.default_rng(1).normal(size=(bursts.sizes["trial"], 16))),
    }
    found = evaluate(bursts, methods, n_boot=200)
    test = "unseen_channel.unknown.same_session"
    e = found.estimates
    assert e[f"open.{test}.dr_rff.eer"].value < 0.02
    assert e[f"open.{test}.noise.auc"].value == pytest.approx(0.5, abs=0.08)
    assert e[f"open.{test}.noise.eer"].value == pytest.approx(0.5, abs=0.08)
    assert e[f"verify.{test}.dr_rff.eer"].value < 0.02
    assert e["reject.unseen_channel.same_session.dr_rff.auroc"].value > 0.95
    assert e["reject.unseen_channel.same_session.noise.auroc"].value == pytest.approx(0.5, abs=0.2)
    assert e["closed.same_channel.known.same_session.ml_rff.accuracy"].value == 1
    gain = found.differences[test, "dr_rff", "ml_rff", "eer"]
    assert gain.high < 0
    assert gain.low <= gain.value <= gain.high
    for name, one in e.items():
        assert one.low <= one.value + 1e-3, name
        assert one.value - 1e-3 <= one.high, name
    rejected, accepted = found.accepted[test, "dr_rff"]
    assert rejected < 0.1
    assert accepted < 0.1


def test_hand_made_features_find_the_carrier_and_tell_devices():
    data = prepare_dataset(simulate_bursts(STUDY, 1), Steps(n_samples=512))
    features = burst_features(data["signal"].values, data.attrs["sfreq"])
    assert np.isfinite(features).all()
    plain = ~data["unseen"].values
    assert np.corrcoef(features[plain, 0], data["cfo"].values[plain] / 1e3)[0, 1] > 0.9
    own = plain & ~data["later"].values & (data["group"].values == "known")
    rows = [np.flatnonzero((data["part"].values == p) & own) for p in ("train", "test")]
    hand = HandFeatures(4e6).fit(data["signal"].values[rows[0]], data["device"].values[rows[0]])
    right = hand.predict(data["signal"].values[rows[1]]) == data["device"].values[rows[1]]
    assert right.mean() > 0.5  # chance 1/6
    with pytest.raises(DataError, match="one device"):
        hand.fit(data["signal"].values[:3], ["a"] * 3)


# The workflow ---------------------------------------------------------------------------------

TINY = [
    "--set", "captures.simulate={n_known: 4, n_validation: 3, n_unknown: 3, n_train: 6, n_test: 4}",
    "--set", "models.max_epochs=1", "--set", "encoder.max_epochs=1",
    "--set", "leakage.max_epochs=1", "--set", "evaluation.n_boot=100",
]  # fmt: skip


def run(folder, *words):
    return CliRunner().invoke(app, ["run", "rf-fingerprint", "--out", str(folder), *words])


def test_the_workflow_runs_on_its_simulator(tmp_path):
    done = run(tmp_path / "runs", *TINY)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "rf-fingerprint"
    metrics = json.loads((folder / "metrics.json").read_text())
    for model in ("dr_rff", "ml_rff", "awgn", "fir", "awgn_fir", "dr_awgn_fir", "features"):
        assert f"open.unseen_channel.unknown.later_session.{model}.eer" in metrics
        assert f"closed.same_channel.known.same_session.{model}.accuracy" in metrics
    for name in ("leak.background.device", "leak.fingerprint.channel", "swap.device"):
        assert metrics[name]["chance"] > 0
    assert (folder / "enrolled").exists()


def test_the_workflow_runs_on_real_captures(tmp_path, neuro_data):
    if not (neuro_data / "rf-433mhz").exists():
        pytest.skip("NEURO_DATA has no rf-433mhz")
    done = run(
        tmp_path / "runs", "--set", f"captures.files={neuro_data}/rf-433mhz/*.sigmf-meta",
        *TINY[2:],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "runs" / "rf-fingerprint" / "metrics.json").read_text())
    assert "open.same_channel.unknown.same_session.dr_rff.eer" in metrics
    content = metrics["closed.same_channel.known.same_session.pulses.accuracy"]
    assert content["value"] > 2 * content["chance"]  # this set's devices send different things
    assert not any("unseen_channel" in name for name in metrics)


def test_an_envelope_needs_its_rate_and_is_labelled_confounded(tmp_path, neuro_data):
    if not (neuro_data / "rf-cotag").exists():
        pytest.skip("NEURO_DATA has no rf-cotag")
    words = ["run", "rf-cotag", "--out", str(tmp_path / "runs"), "--until", "split"]
    assert CliRunner().invoke(app, words).exit_code != 0
    done = CliRunner().invoke(app, [*words, "--set", "captures.capture_sfreq=125e3"])
    assert done.exit_code == 0, done.output
    assert "confounded" in (tmp_path / "runs" / "rf-cotag" / "report.html").read_text()


# Over seeds -----------------------------------------------------------------------------------


def test_pooled_scores_pair_models_and_vary_over_seeds(bursts):
    scores = []
    for seed in range(3):
        methods = {
            "ml_rff": Fingerprints(codes_of(bursts, 0.6, seed)),
            "dr_rff": Fingerprints(codes_of(bursts, 0.3, seed)),
        }
        scores.append(evaluate(bursts, methods, n_boot=200, random_state=seed))
    found = pool_scores(scores, {})
    name = "open.unseen_channel.unknown.same_session.dr_rff.eer"
    values = [one.estimates[name].value for one in scores]
    assert found.estimates[name].value == pytest.approx(np.mean(values))
    assert found.estimates[name].n == 3
    assert found.estimates[name].n_unit == "seed"
    gain = found.differences["unseen_channel.unknown.same_session", "dr_rff", "ml_rff", "eer"]
    assert gain.high < 0
    with pytest.raises(InputError, match="can't be pooled"):
        pool_scores(scores[:1], {})
    fewer = evaluate(bursts, {"ml_rff": Fingerprints(codes_of(bursts, 0.6))}, n_boot=200)
    with pytest.raises(InputError, match="not scored alike"):
        pool_scores([scores[0], fewer], {})


def test_a_pooled_interval_is_no_narrower_than_seeds_or_devices_make_it():
    rng = np.random.default_rng(0)
    one_world = [rng.normal(0, 1, 4000) for _ in range(5)]  # devices vary, seeds agree
    assert pool_samples(one_world).std() == pytest.approx(1 / np.sqrt(5), rel=0.1)
    worlds = [np.full(4000, value) for value in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert pool_samples(worlds).std() == pytest.approx(np.sqrt(2 / 5), rel=0.1)


def test_models_are_found_by_the_seed_of_their_bursts():
    with pytest.raises(InputError, match="no model was trained"):
        members_by_seed([{"seed": 0}, {"seed": 2}], [{"seed": 0}])
    with pytest.raises(InputError, match="whose"):
        members_by_seed([{}, {}], [{"seed": 0}])


def test_without_validation_devices_there_is_no_threshold(bursts):
    rows = np.flatnonzero(bursts["group"].values != "validation")
    data = bursts.isel(trial=rows)
    methods = {"ml_rff": Fingerprints(codes_of(data, 0.6))}
    found = evaluate(data, methods, n_boot=100)
    assert not found.accepted
    texts = [b.text for b in score_blocks(found, methods, data) if isinstance(b, Warning)]
    assert any("no threshold" in text for text in texts)
    known = found.enrolled["ml_rff"]
    again = from_dataset(known.to_dataset("rf-drrff"), 16)
    assert np.isnan(again.threshold)
    assert "never seen" not in set(again.verdicts(methods["ml_rff"].codes)["verdict"])


def study(folder, *words):
    tiny = "{n_known: 3, n_validation: 2, n_unknown: 3, n_train: 4, n_test: 3, n_sessions: 1}"
    settings = ["captures.simulate=" + tiny, "captures.sweep.seed=[0, 1]", "study.n_boot=100",
                "leakage.max_epochs=1", *(f"{s}.max_epochs=1" for s in STAGES), *words]  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    words = ["run", "rf-fingerprint-study", "--out", str(folder / "runs")]
    return CliRunner().invoke(app, [*words, "--cache", str(folder / "cache"), *sets])


STAGES = ("plain", "dr_rff", "dr_awgn_fir")


def test_the_study_pools_seeds_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    import timeseries.rf.study as logic

    trained = []
    train, broken = logic.train, {"after": 5}

    def counted(data, settings, context):
        if len(trained) == broken["after"]:
            raise KeyboardInterrupt
        trained.append(context.key)
        return train(data, settings, context)

    monkeypatch.setattr(logic, "train", counted)
    assert study(tmp_path).exit_code != 0
    assert len(trained) == 5
    broken["after"] = None
    done = study(tmp_path)
    assert done.exit_code == 0, done.output
    assert len(trained) == len(set(trained)) == 12  # six models of two seeds, none of them twice
    metrics = json.loads((tmp_path / "runs" / "rf-fingerprint-study" / "metrics.json").read_text())
    test = "unseen_channel.unknown.same_session"
    for model in ("dr_rff", "ml_rff", "awgn", "fir", "awgn_fir", "dr_awgn_fir", "features"):
        assert metrics[f"open.{test}.{model}.eer"]["n"] == 2
    assert f"difference.{test}.dr_rff.ml_rff.eer" in metrics
    assert f"difference.{test}.dr_awgn_fir.awgn_fir.auc" in metrics
    assert metrics["study.leak.background.device"]["n"] == 2


# Content only ---------------------------------------------------------------------------------


def test_pulse_widths_know_the_rhythm_and_not_the_carrier():
    rng = np.random.default_rng(0)
    rhythm = np.repeat([1, 0, 1, 0, 1, 0, 1], [125, 250, 125, 500, 125, 250, 125])  # at 250 kHz

    def sent(envelope, cfo):
        n = np.arange(len(envelope))
        noise = 0.03 * rng.normal(size=(len(n), 2)) @ np.array([1, 1j])
        return envelope * np.exp(2j * np.pi * cfo / 250e3 * n) + noise

    one, two = (envelope_widths(sent(rhythm, cfo), 250e3) for cfo in (2e3, 30e3))
    np.testing.assert_allclose(one, two, atol=0.02)
    assert 10 ** one[-2] == pytest.approx(5e-4, rel=0.05)  # pulses of 125 samples
    other = envelope_widths(sent(np.repeat(rhythm, 2), 2e3), 250e3)
    assert np.abs(other - one).max() > 0.5
    steady = envelope_widths(sent(np.ones(1000), 2e3), 250e3)
    assert steady[-3] == pytest.approx(np.log10(2))  # one pulse, no gap
