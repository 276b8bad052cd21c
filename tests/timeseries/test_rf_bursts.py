"""Bursts found, cut and aligned: on made captures, and on real ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neuro.errors import DataError, InputError
from timeseries.read import Capture, Datatype, read_capture
from timeseries.rf import bursts as bursts_module
from timeseries.rf.bursts import Detector, find_bursts, window_powers
from timeseries.rf.preprocess import Steps, cut_bursts, prepare, read_bursts
from timeseries.rf.sync import coarse_cfo, fine_cfo, synchronise, turned
from timeseries.rf.waveforms import zigbee_preamble

SFREQ = 1e6
DETECTOR = Detector(window=2e-5, on=10, off=6, gap=1e-4)


def made(starts=(5_000, 20_000, 47_000), length=3_000, n=60_000, level=20.0, seed=0, kind="cf32"):
    """A capture of noise in which bursts lie at known places, `level` dB above it."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.01, (n, 2))
    for start in starts:
        values[start : start + length] += rng.normal(0, 0.01 * 10 ** (level / 20), (length, 2))
    if kind == "cu8":
        packed = np.clip(np.round(values * 127.5 + 127.5), 0, 255).astype("u1")
        return Capture("made", packed, SFREQ, datatype=Datatype("u1", 127.5, 127.5))
    return Capture("made", values.astype("<f4"), SFREQ)


def test_bursts_are_found_where_they_are():
    found = find_bursts(made(), DETECTOR)
    assert len(found) == 3
    np.testing.assert_allclose(found["start"], [5_000, 20_000, 47_000], atol=20)
    np.testing.assert_allclose(found["stop"] - found["start"], 3_000, atol=40)
    np.testing.assert_allclose(found["snr"], 20, atol=1.5)


@pytest.mark.parametrize("block", [20, 500, 3_000, 7_777])
def test_blocks_change_nothing(monkeypatch, block):
    whole = find_bursts(made(), DETECTOR)
    monkeypatch.setattr(bursts_module, "_BLOCK", block)
    pd.testing.assert_frame_equal(find_bursts(made(), DETECTOR), whole)


def test_gaps_are_bridged_and_quiet_rises_are_not_bursts():
    near = made(starts=(5_000, 8_060))  # 60 samples of silence
    assert len(find_bursts(near, DETECTOR)) == 1
    apart = made(starts=(5_000, 8_400))
    assert len(find_bursts(apart, DETECTOR)) == 2
    both = made(starts=(5_000,))
    both.values[30_000:33_000] *= 10 ** (7 / 20)
    high = Detector(window=2e-5, on=14, off=4, gap=1e-4)
    assert len(find_bursts(both, high)) == 1
    low = Detector(window=2e-5, on=5, off=4, gap=1e-4)
    assert len(find_bursts(both, low)) == 2
    with pytest.raises(DataError, match="no burst rises"):
        find_bursts(made(starts=()), DETECTOR)


def test_the_table_of_squares_equals_arithmetic():
    capture = made(kind="cu8")
    plain = Capture("made", capture.samples().view(np.float32).reshape(-1, 2), SFREQ)
    np.testing.assert_allclose(
        window_powers(capture, 0, 60_000, 100), window_powers(plain, 0, 60_000, 100), rtol=1e-4
    )


def test_silence_and_short_captures_are_named():
    with pytest.raises(DataError, match="all samples are zero"):
        find_bursts(Capture("z", np.zeros((1000, 2), "f4"), SFREQ), DETECTOR)
    with pytest.raises(DataError, match="less than one window"):
        find_bursts(Capture("s", np.ones((10, 2), "f4"), SFREQ), DETECTOR)
    with pytest.raises(InputError, match="off"):
        Detector(on=3, off=6)


def test_records_have_unit_power_and_short_bursts_are_padded():
    capture = made()
    bursts = pd.DataFrame({"start": [5_000, 20_000], "stop": [5_300, 23_000]})
    signal, found = cut_bursts(capture, bursts, Steps(n_samples=512))
    assert found["length"].tolist() == [300, 512]
    assert not signal[0, :, 300:].any()
    power = (signal**2).sum(1)
    np.testing.assert_allclose(power[0, :300].mean(), 1, rtol=1e-4)
    np.testing.assert_allclose(power[1].mean(), 1, rtol=1e-4)


def test_clipped_and_dead_bursts_are_noticed():
    values = np.full((1000, 2), 255, "u1")
    capture = Capture("c", values, SFREQ, datatype=Datatype("u1", 127.5, 127.5))
    bursts = pd.DataFrame({"start": [0], "stop": [600]})
    assert cut_bursts(capture, bursts, Steps(n_samples=256))[1]["clipped"].tolist() == [True]
    dead = Capture("d", np.zeros((1000, 2), "f4"), SFREQ)
    with pytest.raises(DataError, match="all zero"):
        cut_bursts(dead, bursts, Steps(n_samples=256))


def test_a_tone_is_moved_filtered_and_resampled():
    tone = np.exp(2j * np.pi * 100e3 / SFREQ * np.arange(4096))[None].astype(np.complex64)
    other = np.exp(2j * np.pi * -400e3 / SFREQ * np.arange(4096))[None].astype(np.complex64)
    steps = Steps(n_samples=512, shift=100e3, bandwidth=200e3, sfreq=250e3)
    found, _ = prepare(tone + other, SFREQ, steps)
    x = found[0, 0, 50:] + 1j * found[0, 1, 50:]
    assert np.abs(x.mean()) == pytest.approx(1, abs=0.03)  # at 0 Hz, the other one gone
    with pytest.raises(InputError, match="no simple ratio"):
        prepare(tone, 1e6 + 0.1 * 7, Steps(sfreq=999_983.0))


def test_the_offset_is_taken_off_what_is_not_padding():
    x = np.zeros((1, 600), np.complex64)
    x[0, :300] = np.random.default_rng(0).normal(size=300) + 3
    found, _ = prepare(x, SFREQ, Steps(n_samples=512, remove_dc=True))
    assert abs(found[0, 0, :300].mean()) < 1e-5
    assert not found[0, 0, 300:].any()


# Synchronisation ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent():
    """Preambles at known starts, with known offsets of carrier and phase, at 20 dB."""
    rng = np.random.default_rng(0)
    template = zigbee_preamble(4e6)
    n, start = 40, rng.integers(0, 50, 40)
    cfo, phase = rng.uniform(-150e3, 150e3, n), rng.uniform(-np.pi, np.pi, n)
    x = 0.07 * (rng.normal(size=(n, 600)) + 1j * rng.normal(size=(n, 600)))
    for row in range(n):
        turn = np.exp(1j * (2 * np.pi * cfo[row] / 4e6 * np.arange(512) + phase[row]))
        x[row, start[row] : start[row] + 512] += template * turn
    return x.astype(np.complex64), template, start, cfo, phase


def test_start_carrier_and_phase_are_recovered(sent):
    x, template, start, cfo, phase = sent
    aligned, found = synchronise(x, template, 64, 4e6)
    np.testing.assert_array_equal(found.start, start)
    assert np.abs(found.cfo - cfo).max() < 100  # Hz
    difference = np.angle(np.exp(1j * (found.phase - phase)))
    assert np.abs(difference).max() < 0.15
    assert (found.score > 0.9).all()
    np.testing.assert_allclose(np.abs((aligned * template.conj()).mean(1)), 1, atol=0.05)


def test_coarse_finds_the_nearest_hypothesis(sent):
    x, template, start, cfo, _ = sent
    place, rough, _ = coarse_cfo(x, template, 4e6)
    np.testing.assert_array_equal(place, start)
    assert np.abs(rough - cfo).max() <= 1e3


def test_fine_is_unambiguous_up_to_its_bound():
    bound = 4e6 / (2 * 3 * 64)
    cfo = np.array([-0.9, -0.3, 0.0, 0.5, 0.9]) * bound
    template = zigbee_preamble(4e6)
    x = np.stack([turned(template[None], np.array([-f]), 4e6)[0] for f in cfo])
    np.testing.assert_allclose(fine_cfo(x, 64, 4e6), cfo, atol=1)
    with pytest.raises(InputError, match="needs"):
        fine_cfo(x[:, :100], 64, 4e6)


def test_another_signal_is_left_as_it_is(sent):
    noise = np.random.default_rng(1).normal(size=(3, 600)).astype(np.complex64)
    _, found = synchronise(noise, sent[1], 64, 4e6, smallest=0.5)
    assert not found.cfo.any()
    assert not found.start.any()
    with pytest.raises(InputError, match="shorter than the preamble"):
        synchronise(noise[:, :100], sent[1], 64, 4e6)


# Real captures --------------------------------------------------------------------------------


def test_every_mode_s_reply_is_found(neuro_data):
    folder = neuro_data / "rf-adsb"
    if not folder.exists():
        pytest.skip("NEURO_DATA has no rf-adsb")
    frames = pd.read_csv(folder / "frames.tsv", sep="\t")
    detector = Detector(window=8e-6, on=6, off=4, gap=1.2e-5, shortest=4e-5, quantile=0.3)
    found = find_bursts(read_capture(folder / "modes1.sigmf-meta"), detector)
    middle = frames["sample_start"].to_numpy() + 80
    inside = (found["start"].to_numpy() <= middle[:, None]) & (
        found["stop"].to_numpy() >= middle[:, None]
    )
    assert inside.any(1).mean() > 0.98


def test_real_captures_become_one_dataset(neuro_data):
    folder = neuro_data / "rf-433mhz"
    if not folder.exists():
        pytest.skip("NEURO_DATA has no rf-433mhz")
    captures = [read_capture(path) for path in sorted(folder.glob("*.sigmf-meta"))[:6]]
    labels = [{"device": "", "capture": c.path.stem, "session": ""} for c in captures]
    data = read_bursts(captures, labels, Steps(n_samples=1024))
    assert data["signal"].dims == ("trial", "iq", "time")
    assert np.isfinite(data["signal"].values).all()
    assert set(data["device"].values) == {"auriol-z29536"}
    assert data.attrs["sfreq"] == 250e3


def test_rates_that_differ_are_refused_unless_resampled():
    one, two = made(), made()
    two = Capture("other", two.values, 2e6)
    labels = [{"device": "a"}, {"device": "b"}]
    with pytest.raises(InputError, match="set sfreq"):
        read_bursts([one, two], labels, Steps(), detector=DETECTOR, bursts="energy")
    found = read_bursts([one, two], labels, Steps(sfreq=5e5), detector=DETECTOR, bursts="energy")
    assert found.attrs["sfreq"] == 5e5
