"""Mel spectra and cepstra: units, padding, and the same frames for new recordings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neuro.data import as_signal
from neuro.errors import DataError, InputError
from timeseries.read_series import from_arrays, read_series
from timeseries.spectra import Spectra, mel_bands, spectra_dataset, spectral_frames
from timeseries.vae import SeriesVAE
from timeseries.windows import Windows, cut_windows

RATE = 8000.0


def _sine(hertz, amplitude=0.5, n=4000):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(n) / RATE))[None, None]


def test_the_bands_of_a_sine_hold_its_mean_square():
    frames, _ = spectral_frames(_sine(1200.0), RATE, Spectra("log-mel"))
    power = (10 ** (frames[0, 0] / 10)).sum(0)
    assert np.allclose(10 * np.log10(power), 10 * np.log10(0.5**2 / 2), atol=0.1)


def test_the_loudest_band_is_that_of_the_sine():
    hertz = np.fft.rfftfreq(256, 1 / RATE)
    for tone in (300.0, 1000.0, 3000.0):
        frames, _ = spectral_frames(_sine(tone), RATE, Spectra("log-mel"))
        loudest = frames[0, 0, :, 0].argmax()
        band = mel_bands(256, RATE)[loudest]
        assert abs(hertz[band.argmax()] - tone) < 0.15 * tone


def test_cepstra_are_the_cosine_transform_of_the_log_powers():
    from scipy.fft import dct

    X = np.random.default_rng(0).standard_normal((3, 2, 2000))
    levels, _ = spectral_frames(X, RATE, Spectra("log-mel"))
    found, _ = spectral_frames(X, RATE, Spectra(n_coefficients=5))
    assert np.allclose(found, dct(levels, axis=2, norm="ortho")[:, :, :5], atol=1e-3)


@pytest.mark.parametrize("n_frames", [None, 12])
@pytest.mark.parametrize("centre", [False, True])
def test_padding_changes_no_frame(n_frames, centre):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4, 1, 3000))
    length = np.array([3000, 2000, 700, 100])
    how = Spectra(n_frames=n_frames, centre=centre)
    junk = np.concatenate([X, rng.standard_normal((4, 1, 900))], axis=-1)
    frames, counts = spectral_frames(X, RATE, how, length)
    again, same = spectral_frames(junk, RATE, how, length)
    assert counts.tolist() == same.tolist()
    assert np.array_equal(frames, again)
    for row, n in enumerate(length):
        alone, own = spectral_frames(X[row : row + 1, :, :n], RATE, how)
        assert own[0] == counts[row]
        assert np.allclose(frames[row, ..., : own[0]], alone[0], atol=1e-5)
        assert not frames[row, ..., own[0] :].any()


def test_masks_of_unequal_length_are_carried_into_frames_and_codes():
    rng = np.random.default_rng(1)
    sounds = [rng.standard_normal((1, n)) for n in (4000, 2500, 1500) for _ in range(6)]
    waves = cut_windows(from_arrays(sounds, sfreq=RATE), Windows())
    data = spectra_dataset(waves, Spectra())
    assert data["mask"].values.sum(1).tolist() == data["length"].values.tolist()
    assert len(np.unique(data["length"].values)) == 3
    assert data.sizes["channel"] == 14
    even = spectra_dataset(waves, Spectra(n_frames=5))
    assert not {"length", "mask"} & set(even.coords)
    assert even.sizes["time"] == 5
    vae = SeriesVAE(n_latents=2, n_hidden=8, max_epochs=1, random_state=0).fit(as_signal(data))
    short = data.isel(trial=data["length"].values < 25)
    spoiled = short.copy(deep=True)
    spoiled["signal"].values[..., 25:] = 9.0
    codes = [np.asarray(vae.transform(as_signal(d))) for d in (short, spoiled)]
    assert np.allclose(*codes)


def test_a_new_waveform_is_decoded_through_the_same_frames(tmp_path):
    rng = np.random.default_rng(2)
    n = 1200
    table = pd.DataFrame({"time": np.arange(n) / 1000, "x": rng.standard_normal(n)})
    table.to_csv(tmp_path / "new.csv", index=False)
    waves = cut_windows(read_series(tmp_path / "new.csv"), Windows(0.3))
    data = spectra_dataset(waves, Spectra(n_coefficients=4))
    vae = SeriesVAE(n_latents=2, n_hidden=8, max_epochs=1, random_state=0).fit(as_signal(data))
    codes = vae.decode(tmp_path / "new.csv")["codes"]
    assert np.allclose(codes, vae.transform(as_signal(data)), atol=1e-5)
    assert codes["seen_trial"].all()


def test_several_waveforms_are_told_apart_by_name():
    data = cut_windows(from_arrays(np.ones((2, 2, 900)), sfreq=RATE), Windows())
    found = spectra_dataset(data, Spectra(n_coefficients=2))
    assert found["channel"].values.tolist() == ["x1 cep0", "x1 cep1", "x2 cep0", "x2 cep1"]


def test_frames_that_cannot_be_made_are_refused():
    with pytest.raises(InputError, match="n_coefficients is 30"):
        Spectra(n_coefficients=30)
    with pytest.raises(DataError, match="four samples"):
        spectral_frames(np.ones((1, 1, 50)), 50.0)
