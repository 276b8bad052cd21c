"""Waveforms, devices and channels: known statistics, and NumPy and torch that agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuro.errors import InputError
from timeseries.rf.augment import _faded, augment
from timeseries.rf.channels import PROFILES, add_noise, draw_taps, pass_through, profile
from timeseries.rf.devices import draw_devices, drifted, transmit
from timeseries.rf.drrff import DRRFF
from timeseries.rf.simulate import Study, simulate_bursts
from timeseries.rf.waveforms import WAVEFORMS, oqpsk, waveforms, zigbee_preamble

SFREQ = 4e6


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_preamble_repeats_every_symbol_and_has_a_steady_envelope():
    x = zigbee_preamble(SFREQ)
    assert len(x) == 8 * 64
    np.testing.assert_allclose(x[64:128], x[128:192], atol=1e-6)
    inner = np.abs(x[4:-4])
    assert inner.std() / inner.mean() < 0.05  # O-QPSK with half-sine pulses is MSK


def test_oqpsk_reads_back_as_its_chips():
    chips = rng(1).integers(0, 2, (3, 64))
    x = oqpsk(chips, 10e6)
    step = 5
    peak_i = x[:, step :: 2 * step].real[:, :32]
    peak_q = x[:, 2 * step :: 2 * step].imag[:, :31]
    np.testing.assert_array_equal(peak_i > 0, chips[:, ::2] > 0)
    np.testing.assert_array_equal(peak_q > 0, chips[:, 1::2][:, :31] > 0)


@pytest.mark.parametrize("kind", WAVEFORMS)
def test_waveforms_have_unit_power_and_follow_the_seed(kind):
    one, two = (waveforms(kind, 5, 512, SFREQ, rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose((np.abs(one) ** 2).mean(1), 1, rtol=0.1)
    different = waveforms(kind, 2, 512, SFREQ, rng(4))
    assert np.allclose(different[0], different[1]) == (kind == "zigbee")


def test_profiles_have_unit_power_and_the_spread_that_was_asked_for():
    for kind in PROFILES[2:]:
        found = profile(kind, 2e-7)
        assert found.powers.sum() == pytest.approx(1)
        mean = (found.powers * found.delays).sum()
        spread = np.sqrt((found.powers * (found.delays - mean) ** 2).sum())
        assert spread == pytest.approx(2e-7, rel=0.08)  # the exponential one is cut at 5 spreads


def test_taps_are_rayleigh_or_rician():
    taps = draw_taps(profile("exponential", 1e-7), 20_000, rng()).gains
    np.testing.assert_allclose((np.abs(taps) ** 2).sum(1).mean(), 1, rtol=0.02)
    power = np.abs(taps[:, 0]) ** 2
    assert power.std() / power.mean() == pytest.approx(1, abs=0.05)  # exponential
    rician = draw_taps(profile("rician", 1e-7, k_factor=10), 20_000, rng()).gains
    steady = np.abs(rician[:, 0]) ** 2
    assert steady.std() / steady.mean() < 0.5


def test_a_whole_sample_of_delay_is_a_shift():
    from timeseries.rf.channels import Taps

    x = waveforms("qpsk", 2, 256, SFREQ, rng())
    found = pass_through(x, Taps(np.ones((2, 1)), np.full((2, 1), 3 / SFREQ)), SFREQ)
    np.testing.assert_allclose(found[:, 3:], x[:, :-3], atol=1e-5)
    np.testing.assert_allclose(found[:, :3], 0, atol=1e-5)


def test_two_taps_equal_the_convolution():
    from timeseries.rf.channels import Taps

    x = waveforms("qpsk", 1, 256, SFREQ, rng())
    gains = np.array([[0.8, 0.3 - 0.4j]])
    found = pass_through(x, Taps(gains, np.array([[0, 5 / SFREQ]])), SFREQ)
    shared = pass_through(x, Taps(gains, np.array([0, 5 / SFREQ])), SFREQ)
    np.testing.assert_allclose(shared, found, atol=1e-5)
    kernel = np.zeros(6, complex)
    kernel[[0, 5]] = gains[0]
    np.testing.assert_allclose(found[0], np.convolve(x[0], kernel)[:256], atol=1e-5)


def test_the_noise_has_the_level_that_was_asked_for():
    x = waveforms("oqpsk", 40, 4096, SFREQ, rng())
    noise = add_noise(x, np.full(40, 10.0), rng(1)) - x
    level = 10 * np.log10((np.abs(x) ** 2).mean(1) / (np.abs(noise) ** 2).mean(1))
    np.testing.assert_allclose(level, 10, atol=0.5)


def test_numpy_and_torch_agree():
    x = waveforms("zigbee", 6, 512, SFREQ, rng()).astype(np.complex128)
    devices = draw_devices(6, rng(1))
    taps = draw_taps(profile("tdl-a", 2e-7), 6, rng(2))
    chain = []
    for values in (x, torch.from_numpy(x)):
        y = transmit(values, devices, SFREQ, rng(3))
        y = pass_through(y, taps, SFREQ)
        chain.append(np.asarray(add_noise(y, np.linspace(5, 30, 6), rng(4))))
    np.testing.assert_allclose(chain[0], chain[1], atol=1e-10)


def test_devices_are_frozen_and_drift_a_little():
    devices = draw_devices(50, rng())
    later = drifted(devices, rng(1), cfo_sd=500.0, share=0.1)
    assert np.corrcoef(devices.gain, later.gain)[0, 1] > 0.95
    assert 200 < np.std(later.cfo - devices.cfo) < 1000
    np.testing.assert_array_equal(devices.ripple, later.ripple)
    x = waveforms("zigbee", 2, 512, SFREQ, rng())
    same = devices[np.array([7, 7])]
    one, two = transmit(x, same, SFREQ, rng(2))
    # Only the carrier's phase and its noise differ between two bursts of one device.
    np.testing.assert_allclose(np.abs(one), np.abs(two), atol=1e-3)


def test_an_ideal_device_sends_what_it_is_given():
    ideal = draw_devices(1, rng(), strength=1e-9, cfo_sd=0.0)
    x = waveforms("qpsk", 1, 512, SFREQ, rng())
    y = transmit(x, ideal, SFREQ, rng(5))
    np.testing.assert_allclose(np.abs(y), np.abs(x), atol=1e-4)


def test_a_study_is_split_by_device_session_and_channel():
    study = Study(n_known=4, n_validation=3, n_unknown=2, n_train=2, n_enrol=1, n_test=2)
    data = simulate_bursts(study, 5)
    part, group = data["part"].values, data["group"].values
    assert set(group[part == "train"]) == {"known"}
    assert not data["unseen"].values[part != "test"].any()
    assert not data["later"].values[part != "test"].any()
    assert set(data["channel"].values[data["unseen"].values]) <= set(study.test_channels)
    captures = {p: set(data["capture"].values[part == p]) for p in ("train", "enrol", "test")}
    assert not captures["train"] & captures["test"]
    again = simulate_bursts(study, 5)
    np.testing.assert_array_equal(again["signal"].values, data["signal"].values)
    other = simulate_bursts(study, 6)
    assert not np.array_equal(other["cfo"].values, data["cfo"].values)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="none of"):
        waveforms("am", 1, 64, SFREQ, rng())
    with pytest.raises(InputError, match="2 MHz"):
        zigbee_preamble(3e6)
    with pytest.raises(InputError, match="none of los"):
        profile("urban")
    with pytest.raises(InputError, match="more than 0"):
        profile("tdl-a", 0.0)
    with pytest.raises(InputError, match="at least two"):
        Study(n_unknown=1)


# Channels inside the training loop ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["channel", "awgn_channel", "rician", "tdl-b"])
def test_channels_are_drawn_in_torch_for_every_burst(kind):
    x = torch.randn((64, 2, 256), generator=torch.Generator().manual_seed(0))
    one, again = (augment(x, kind, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, augment(x, kind, torch.Generator().manual_seed(2)))
    power = one.square().sum(1).mean(-1)
    torch.testing.assert_close(power, torch.ones(64))
    same = x[:1].expand(64, -1, -1)
    drawn = augment(same, kind, torch.Generator().manual_seed(1))
    assert (drawn - drawn[:1]).abs().amax((1, 2))[1:].min() > 1e-3


def test_channels_drawn_in_torch_have_the_statistics_of_the_profile():
    # A burst of one sample gives the channel itself.
    x = torch.zeros((4000, 2, 64))
    x[:, 0, 0] = 1.0
    found = _faded(x, ("tdl-a",), torch.Generator().manual_seed(0), (2.0, 2.0))
    taps = draw_taps(profile("tdl-a", 2.0), 4000, rng())
    theirs = pass_through(x[:, 0].numpy() + 0j, taps, 1.0)
    ours = found.square().sum(1).mean(0)[:10].numpy()
    np.testing.assert_allclose(ours, (np.abs(theirs) ** 2).mean(0)[:10], rtol=0.15, atol=0.005)


def test_training_runs_through_drawn_channels(monkeypatch):
    import timeseries.rf.objective as objective

    kinds = []
    monkeypatch.setattr(
        objective,
        "augment",
        lambda x, kind, g: kinds.append((kind, type(x))) or augment(x, kind, g),
    )
    X = np.random.default_rng(0).normal(size=(12, 2, 128)).astype("f4")
    rff = DRRFF(n_latents=4, width=1, unet_width=1, max_epochs=1, augmentation="channel")
    codes = rff.fit(X, ["a", "b"] * 6).transform(X)
    assert kinds
    assert set(kinds) == {("channel", torch.Tensor)}
    assert np.isfinite(codes).all()
