"""Interactive figures: what they carry is what the decoder gives, small, and harmless."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eeg.beta_vae import BetaVAE
from eeg.grid import MAX_CHARACTERS, flat_positions, quantise, spread
from eeg.interactive import MAX_STATES, explorer_blocks, label_explorer, latent_explorer
from eeg.scan import SCAN
from eeg.simulate import simulate_cohort
from eeg.views import view
from neuro.data import as_signal
from neuro.errors import DataError, InputError
from neuro.report import Html, Warning

EVIL = "</script><script>alert(1)</script>"


def payload(html: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def signals(data: dict[str, Any]) -> np.ndarray:
    """Unpack as the script does: (sensor, state, layer, time) in uV."""
    steps = np.frombuffer(base64.b64decode(data["signals"]), "<i2").reshape(data["shape"])
    return steps * np.array(data["scale"])[:, None, None, None]


@pytest.fixture(scope="module")
def cohort() -> xr.Dataset:
    return simulate_cohort(8, 6, channels=("Fz", "Cz", "Pz", "P3", "P4"), sfreq=64.0, truth=False)


@pytest.fixture(scope="module")
def encoder(cohort: xr.Dataset) -> BetaVAE:
    return BetaVAE(n_latents=4, beta=0.1, max_epochs=4).fit(as_signal(cohort))


@pytest.fixture(scope="module")
def scan(encoder: BetaVAE, cohort: xr.Dataset) -> SCAN:
    return SCAN(encoder, max_epochs=2, operators=False).fit(cohort, ["depressed", "old"])


def wide_encoder(n_channels: int, n_latents: int = 10) -> BetaVAE:
    """An encoder of 128 samples that was never trained: only sizes matter."""
    X = np.random.default_rng(0).normal(0, 10, (12, n_channels, 128)).astype(np.float32)
    found = BetaVAE(n_latents=n_latents, beta=1.0, network="mlp", max_epochs=0).fit(X)
    found.kl_ = np.linspace(1, 2, n_latents)
    found.kept_ = np.ones(n_latents, dtype=bool)
    return found


# -- latents -----------------------------------------------------------------------------------


def test_every_curve_is_what_the_decoder_gives(encoder: BetaVAE) -> None:
    data = payload(latent_explorer(encoder, n_values=5).html)
    latents = [int(slider["label"].removeprefix("latent ")) for slider in data["sliders"]]
    decoded = encoder.traverse(latents, data["values"]).values
    found = signals(data)[:, :, 0].transpose(1, 0, 2).reshape(decoded.shape)
    error = np.abs(found - decoded).max(axis=(0, 1, 3))
    assert (error <= 0.5001 * np.array(data["scale"]) + 1e-5).all()
    assert np.ptp(decoded, axis=1).max() > 100 * error.max()


def test_the_reference_is_the_middle_of_every_slider(encoder: BetaVAE) -> None:
    data = payload(latent_explorer(encoder).html)
    assert data["values"][data["reference"]] == 0
    states = signals(data).reshape(len(data["sensors"]), len(data["sliders"]), 9, -1)
    assert (states[:, :, data["reference"]] == states[:, :1, data["reference"]]).all()


def test_kept_latents_come_with_the_most_informative_first() -> None:
    encoder = wide_encoder(2, n_latents=14)
    encoder.kept_[13] = False
    data = payload(latent_explorer(encoder, {12: "depressed"}).html)
    assert [s["label"] for s in data["sliders"]] == [f"latent {i}" for i in range(12, 2, -1)]
    assert [s["name"] for s in data["sliders"]] == ["depressed", *[""] * 9]
    assert data["note"].startswith("The 10 most informative of 13 kept latents")


def test_an_autoencoder_is_turned_as_far_as_its_codes_go(cohort: xr.Dataset) -> None:
    X = as_signal(cohort)
    encoder = BetaVAE(n_latents=2, beta=0.0, max_epochs=4).fit(X)
    data = payload(latent_explorer(encoder, n_values=3).html)
    assert "standard deviations of the training codes" in data["note"]
    latent = int(data["sliders"][0]["label"][-1])
    size = float(np.sqrt((encoder.transform(X)[:, latent] ** 2).mean()))
    decoded = encoder.traverse(latent, [-2 * size, 0, 2 * size])[0]
    assert np.allclose(signals(data)[:, :3, 0].transpose(1, 0, 2), decoded, atol=0.02)


def test_times_are_in_ms_and_sensors_lie_on_the_head(encoder: BetaVAE) -> None:
    data = payload(latent_explorer(encoder).html)
    assert (data["axis"], data["times"][0], data["sensors"][1]) == ("time (ms)", -203.125, "Cz")
    places = dict(zip(data["sensors"], data["places"], strict=True))
    assert places["Fz"][1] > places["Cz"][1] > places["Pz"][1]
    assert places["P3"][0] < 0 < places["P4"][0]


def test_plain_arrays_have_samples_and_no_map() -> None:
    data = payload(latent_explorer(wide_encoder(2)).html)
    assert (data["axis"], data["places"], data["times"][:3]) == ("sample", None, [0, 1, 2])


def test_sensors_can_be_chosen(encoder: BetaVAE) -> None:
    data = payload(latent_explorer(encoder, sensors=["Pz", "Fz", "Pz"]).html)
    assert data["sensors"] == ["Pz", "Fz"]
    decoded = encoder.traverse(int(data["sliders"][0]["label"][-1]), data["values"])
    assert np.allclose(signals(data)[0, :9, 0], decoded.sel(channel="Pz")[0], atol=0.01)


def test_many_sensors_are_thinned_out_and_the_caption_says_so() -> None:
    html = latent_explorer(wide_encoder(64)).html
    data = payload(html)
    assert len(html) < MAX_CHARACTERS + 40_000
    assert 16 <= len(data["sensors"]) < 64
    assert f"{len(data['sensors'])} of 64 sensors are shown." in data["note"]
    few = payload(latent_explorer(wide_encoder(16)).html)
    assert len(few["sensors"]) == 16
    assert "sensors are shown" not in few["note"]


def test_thinned_sensors_still_cover_the_head() -> None:
    from eeg.simulate import positions_1005

    known = positions_1005()
    names = [name for name in known if len(name) <= 3][:60]
    places = flat_positions({name: known[name] for name in names})
    chosen = places[spread(places, 0, 16)]
    assert len(np.unique(chosen, axis=0)) == 16
    gaps = np.linalg.norm(places[:, None] - chosen[None], axis=-1).min(axis=1)
    assert gaps.max() < 0.5


def test_no_text_can_end_the_script_or_start_another(encoder: BetaVAE) -> None:
    plain, evil = (latent_explorer(encoder, dict.fromkeys(range(4), t)) for t in ("", EVIL))
    assert evil.sandbox
    assert evil.html.count("<script") == plain.html.count("<script")
    assert evil.html.count("</script") == plain.html.count("</script")
    assert payload(evil.html)["sliders"][0]["name"] == EVIL


def test_nothing_is_loaded_from_elsewhere(encoder: BetaVAE) -> None:
    html = latent_explorer(encoder).html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)|fetch\(|innerHTML|eval\(", html)


@pytest.mark.parametrize("n_values", [1, 2, 8])
def test_the_reference_must_be_a_value(encoder: BetaVAE, n_values: int) -> None:
    with pytest.raises(InputError, match=f"n_values is {n_values}; expected an odd number"):
        latent_explorer(encoder, n_values=n_values)


def test_unknown_sensors_are_named(encoder: BetaVAE) -> None:
    with pytest.raises(InputError, match="no sensor Oz, Q1; the sensors are Fz, Cz, Pz, P3, P4"):
        latent_explorer(encoder, sensors=["Fz", "Oz", "Q1"])


def test_a_collapsed_encoder_has_nothing_to_turn() -> None:
    encoder = wide_encoder(2)
    encoder.kept_[:] = False
    with pytest.raises(InputError, match="no latent is kept"):
        latent_explorer(encoder)
    (block,) = explorer_blocks(encoder)
    assert isinstance(block, Warning)


def test_a_diverged_decoder_is_refused() -> None:
    encoder = wide_encoder(2)
    encoder.target_standardizer_.mean = np.full_like(encoder.target_standardizer_.mean, np.nan)
    with pytest.raises(DataError, match="not finite"):
        latent_explorer(encoder)


def test_the_frame_grows_with_its_sliders() -> None:
    few, many = (latent_explorer(wide_encoder(2, n)).height for n in (2, 10))
    assert few < many
    assert isinstance(explorer_blocks(wide_encoder(2, 2))[-1], Html)


# -- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "pleasant", "pleasant - neutral"])
def test_every_set_of_labels_is_what_scan_imagines(scan: SCAN, name: str | None) -> None:
    data = payload(label_explorer(scan, n_samples=20, random_state=3, view=name).html)
    assert len(data["states"]) == 9
    assert data["states"][""] == data["reference"] == 0
    values = [group["values"] for group in data["groups"]]
    found = scan.imagine({"depressed": values[0][1], "old": values[1][0]}, 20, random_state=3)
    curve, low, high = signals(data)[:, data["states"]["0:1,1:0"]].transpose(1, 0, 2)
    erp, samples = (view(found[part], name or "neutral") for part in ("erp", "signal"))
    assert np.allclose(curve, erp, atol=0.01)
    assert np.allclose([low, high], np.percentile(samples, (10, 90), axis=0), atol=0.01)
    assert (low <= high).all()


def test_labels_can_be_chosen_and_unknown_ones_are_named(scan: SCAN) -> None:
    data = payload(label_explorer(scan, ["old"]).html)
    assert [group["label"] for group in data["groups"]] == ["old"]
    assert list(data["states"]) == ["", "0:0", "0:1"]
    with pytest.raises(InputError, match="no label blue; the labels are depressed, old"):
        label_explorer(scan, ["blue", "old"])


@given(st.lists(st.integers(2, 12), min_size=1, max_size=9))
def test_as_many_labels_combine_as_fit(sizes: list[int]) -> None:
    from eeg.interactive import _depth, _n_states, _states

    depth = _depth(sizes)
    states = _states(sizes, depth)
    assert len(states) == len(set(states)) == _n_states(sizes, depth)
    assert depth == 1 or len(states) <= MAX_STATES
    assert depth == len(sizes) or _n_states(sizes, depth + 1) > MAX_STATES


# -- numbers -----------------------------------------------------------------------------------


@given(arrays(np.float32, (3, 7), elements=st.floats(-(2.0**20), 2.0**20, width=32)))
def test_rounding_is_by_half_a_step_at_most(values: np.ndarray) -> None:
    text, scale = quantise(values)
    steps = np.frombuffer(base64.b64decode(text), "<i2").reshape(values.shape)
    assert np.abs(steps.astype(int)).max() <= 32767
    back = steps * np.array(scale)[:, None]
    assert (np.abs(back - values) <= 0.5001 * np.array(scale)[:, None]).all()
