"""Preprocessing: each step against bare MNE, its figures, bad input, and replay."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from eeg.preprocess import (
    Steps,
    dataset_to_epochs,
    epochs_to_dataset,
    preprocess,
    preprocess_dataset,
    replay,
)
from eeg.read import find_recordings
from neuro.data import concat, open_dataset, save_dataset
from neuro.errors import ContractError, DataError, InputError

PLAIN = {"flat_channel": None, "lof": None, "interpolate": False, "baseline": None}


def save(raw, folder, name="sub-01_eeg.fif"):
    raw.save(folder / name, overwrite=True, verbose="error")
    return folder / name


def epoch(raw, **options):
    import mne

    events, event_id = mne.events_from_annotations(raw, verbose="error")
    chosen = {"tmin": -0.2, "tmax": 0.8, "baseline": None} | options
    return mne.Epochs(raw, events, event_id, preload=True, verbose="error", **chosen)


# ----------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ica": {}, "regress_eog": True}, "either 'ica' or 'regress_eog'"),
        ({"decim": 2, "resample": 100}, "either 'decim' or 'resample'"),
        ({"l_freq": 40, "h_freq": 30}, "40.0 Hz is not below h_freq 30.0 Hz"),
        ({"tmin": 0.5, "tmax": 0.1}, "not before tmax"),
        ({"reject": "100 Hz"}, "unit"),
        ({"hfreq": 30}, "hfreq"),
    ],
)
def test_parameters_that_contradict_one_another(fields, message):
    with pytest.raises(ValidationError, match=message):
        Steps(**fields)


def test_quantities_may_carry_their_unit():
    steps = Steps(reject={"eeg": "150 uV", "eog": 3e-4}, tmin="-100 ms", h_freq="30 Hz")
    assert steps.reject == {"eeg": 1.5e-4, "eog": 3e-4}
    assert (steps.tmin, steps.h_freq) == (-0.1, 30.0)


# ----------------------------------------------------------------------------- the chain


def test_the_chain_is_what_bare_mne_calls_give(make_raw):
    raw = make_raw()
    steps = Steps(
        l_freq=1, h_freq=30, notch=50, reference="average", reject="120 uV", resample=100, lof=None
    )
    data, quality = preprocess(raw, steps)

    bare = raw.copy().notch_filter(50, picks=["eeg", "eog"], verbose="error")
    bare.filter(1, 30, picks=["eeg", "eog"], verbose="error")
    bare.set_eeg_reference("average", verbose="error")
    epochs = epoch(bare).apply_baseline((None, 0), verbose="error").decimate(2, verbose="error")
    epochs.drop_bad(reject={"eeg": 120e-6}, verbose="error")
    np.testing.assert_allclose(data.signal, epochs.get_data("eeg") * 1e6, atol=1e-3)
    assert data.signal.dtype == np.float32
    assert data.attrs["units"] == "uV"
    assert data.attrs["sfreq"] == 100
    np.testing.assert_allclose(data.time, epochs.times, atol=1e-9)
    names = {code: name for name, code in epochs.event_id.items()}
    assert data.condition.values.tolist() == [names[code] for code in epochs.events[:, 2]]
    assert "EOG" not in data.channel
    assert set(json.loads(data.attrs["positions"])) == set(data.channel.values)
    assert quality["done"] == [
        "flat_channel",
        "notch",
        "filter",
        "reference",
        "epoch",
        "baseline",
        "decimate (every 2. sample of 200 Hz)",
        "reject",
    ]


def test_a_recording_in_memory_stays_as_it_was(make_raw):
    raw = make_raw()
    before = raw.get_data()
    preprocess(raw, Steps(h_freq=30, reference="average"))
    np.testing.assert_array_equal(raw.get_data(), before)


def test_figures_of_a_recording(make_raw, tmp_path):
    raw = make_raw()
    raw._data[3, 2100:2120] += 500e-6  # in one trial of Fz
    _, quality = preprocess(save(raw, tmp_path), Steps(reject="200 uV", lof=None))
    assert quality["sfreq_in"] == quality["sfreq"] == 200
    assert quality["n_channels"] == 16
    assert quality["duration"] == 40
    assert sum(quality["epochs"]["before"].values()) == 38
    assert sum(quality["epochs"]["after"].values()) == 37
    assert quality["dropped"] == {"amplitude": 1}
    assert quality["dropped_channels"] == {"Fz": 1}
    assert json.loads(json.dumps(quality)) == quality


def test_events_by_code_text_and_several_at_once(make_raw):
    import mne

    raw = make_raw(events=("a", "b", "c"))
    n = len(raw.annotations)
    data, quality = preprocess(raw, Steps(event_id={"ab": ["a", "b"], "c": "c"}))
    assert quality["events"]["ab"] + quality["events"]["c"] == n == data.sizes["trial"]
    stim = mne.io.RawArray(
        np.zeros((1, raw.n_times)), mne.create_info(["STI"], 200, "stim"), verbose="error"
    )
    stim._data[0, 400::400] = 7
    raw = raw.set_annotations(None).add_channels([stim], force_update_info=True)
    data, _ = preprocess(raw, Steps(event_id={"pulse": 7}))
    assert set(data.condition.values) == {"pulse"}
    assert set(preprocess(raw, Steps())[0].condition.values) == {"7"}


@pytest.mark.parametrize("event_id", [["targget"], {"hit": "targget"}, {"hit": 99}])
def test_an_event_that_is_not_there_lists_those_that_are(make_raw, tmp_path, event_id):
    raw = make_raw()
    path = save(raw, tmp_path)
    with pytest.raises(DataError, match=r"sub-01_eeg\.fif: no event .*standard \(19\).*event_id"):
        preprocess(path, Steps(event_id=event_id))
    epochs_path = tmp_path / "sub-01_epo.fif"
    epoch(raw).save(epochs_path, verbose="error")
    with pytest.raises(DataError, match=r"_epo\.fif: no event .*standard \(1\), target \(2\)"):
        preprocess(epochs_path, Steps(event_id=event_id))


def test_a_recording_without_any_event(make_raw):
    with pytest.raises(DataError, match="no event found"):
        preprocess(make_raw(events=()), Steps())


def test_trials_without_pre_stimulus_time_skip_the_baseline_and_say_so(make_raw):
    data, quality = preprocess(epoch(make_raw(), tmin=0.0), Steps())
    assert "baseline" in quality["skipped"]
    assert data.time.values[0] == 0
    _, quality = preprocess(make_raw(), Steps())
    assert "baseline" in quality["done"]


def test_a_window_beyond_ready_made_epochs_is_refused(make_raw):
    epochs = epoch(make_raw())
    data, _ = preprocess(epochs, Steps(tmin=-0.1, tmax=0.5))
    np.testing.assert_allclose(data.time.values[[0, -1]], [-0.1, 0.5])
    with pytest.raises(DataError, match=r"from -0\.2 to 0\.8 s.*asks for -0\.5"):
        preprocess(epochs, Steps(tmin=-0.5))


def test_steps_that_epochs_do_not_allow_are_skipped_and_said(make_raw):
    steps = Steps(ica={}, l_freq=0.5, h_freq=30, notch=50)
    _, quality = preprocess(epoch(make_raw()), steps)
    assert {"ica", "l_freq", "notch"} <= set(quality["skipped"])
    assert {"filter", "lof"} <= set(quality["done"])


def test_resampling_without_a_low_pass_does_not_fold_back(make_raw):
    raw = make_raw()
    times = raw.times
    raw._data[0] += 50e-6 * np.sin(2 * np.pi * 90 * times)
    data, quality = preprocess(raw, Steps(resample=100, lof=None))
    assert any("resample" in step for step in quality["done"])
    spectrum = np.abs(np.fft.rfft(data.signal[:, 0].values, axis=-1)).mean(axis=0)
    assert spectrum[10] < 2 * np.median(spectrum)  # 90 Hz would show at 10 Hz


def test_crop_detrend_and_picks(make_raw):
    data, _ = preprocess(
        make_raw(), Steps(crop=(-0.1, 0.5), picks=["Pz", "Fz"], detrend=0, decim=2, lof=None)
    )
    assert data.channel.values.tolist() == ["Pz", "Fz"]
    assert data.attrs["sfreq"] == 100
    np.testing.assert_allclose(data.time.values[[0, -1]], [-0.1, 0.5])
    with pytest.raises(DataError, match=r"picks names Qz.*EEG channels there: Fp1"):
        preprocess(make_raw(), Steps(picks=["Qz"]))


def test_names_types_and_positions_can_be_corrected(make_raw):
    raw = make_raw(montage=False).set_channel_types({"EOG": "eeg"}, verbose="error")
    raw.rename_channels({"Fz": "FZ", "Pz": "EEG Pz"})
    steps = Steps(
        channel_types={"EOG": "eog"}, rename_channels={"EEG Pz": "Pz"}, montage="standard_1005"
    )
    data, _ = preprocess(raw, steps)
    assert data.sizes["channel"] == 16
    assert set(json.loads(data.attrs["positions"])) == set(data.channel.values)
    with pytest.raises(DataError, match=r"channel_types names VEOG; channels there: Fp1"):
        preprocess(raw, Steps(channel_types={"VEOG": "eog"}))
    with pytest.raises(DataError, match="montage 'ten-twenty' is none of MNE's"):
        preprocess(raw, Steps(montage="ten-twenty"))


# ------------------------------------------------------------------------- bad channels


def test_bad_channels_are_found_with_the_reason_and_replaced(make_raw):
    raw = make_raw()
    good = raw.get_data("Cz")
    rng = np.random.default_rng(1)
    raw._data[raw.ch_names.index("Cz")] = 1e-5  # constant
    raw._data[raw.ch_names.index("F3")] += 80e-6 * rng.normal(size=raw.n_times)
    raw._data[raw.ch_names.index("Oz")] = np.nan
    raw.info["bads"] = ["O1"]
    data, quality = preprocess(raw, Steps(bads=["P3"]))
    bad = quality["bad_channels"]
    assert set(bad) == {"Cz", "F3", "Oz", "O1", "P3"}
    assert "flat" in bad["Cz"]
    assert "LOF" in bad["F3"]
    assert "NaN" in bad["Oz"]
    assert "file" in bad["O1"]
    assert set(quality["interpolated"]) == set(bad)
    assert np.isfinite(data.signal).all()
    assert data.signal.sel(channel="Cz").std() > 0.2 * good.std() * 1e6


def test_bad_channels_of_ready_made_epochs(make_raw):
    epochs = epoch(make_raw())
    epochs._data[:, 2] = 0.0
    epochs._data[:, 5] = np.nan
    epochs._data[3, 0, 10] = np.nan
    data, quality = preprocess(epochs, Steps())
    assert set(quality["interpolated"]) == {"F3", "C3"}
    assert quality["dropped"] == {"BAD_NAN": 1}
    assert np.isfinite(data.signal).all()


def test_gaps_are_bridged_and_their_trials_dropped(make_raw):
    raw = make_raw()
    raw._data[4, 2000:2010] = np.nan  # 10.0 s: the trial of the event at 10 s
    data, quality = preprocess(raw, Steps(h_freq=30, lof=None))
    assert quality["dropped"] == {"BAD_NAN": 1}
    assert any("gaps (NaN) in F4" in text for text in quality["warnings"])
    assert np.isfinite(data.signal).all()


def test_few_channels_skip_what_needs_many_and_say_so(make_raw):
    names = ["TP9", "AF7", "AF8", "TP10"]
    raw = make_raw(channels=names)
    raw._data[1] = 0.0
    data, quality = preprocess(raw, Steps(ica={}, reference="average"))
    assert {"lof", "ica", "interpolate"} <= set(quality["skipped"])
    assert data.channel.values.tolist() == names
    text = " ".join(quality["warnings"])
    assert "bad channels are kept as they are: AF7" in text
    assert "poor reference" in text
    raw._data[1] = np.nan
    with pytest.raises(DataError, match=r"AF7 hold no numbers.*3 good channels are too few"):
        preprocess(raw, Steps())


def test_channels_without_positions_are_not_interpolated(make_raw):
    raw = make_raw(montage=False)
    raw._data[2] = 0.0
    _, quality = preprocess(raw, Steps(lof=None))
    assert "set montage" in quality["skipped"]["interpolate"]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_recording_of_bad_channels_only(make_raw, tmp_path, value):
    raw = make_raw()
    raw._data[:16] = value
    with pytest.raises(DataError, match="all 16 EEG channels are bad") as caught:
        preprocess(save(raw, tmp_path), Steps())
    assert "sub-01_eeg.fif" in str(caught.value)


def test_channels_known_to_be_bad_must_be_there(make_raw):
    with pytest.raises(DataError, match="bads names Qz; channels there"):
        preprocess(make_raw(), Steps(bads=["Qz"]))


# --------------------------------------------------------------------------- artefacts


def frontal(data):
    return float(data.signal.sel(channel="Fp1").std())


@pytest.mark.parametrize(
    "fields", [{"ica": {"find": ["eog"], "n_components": 8}}, {"regress_eog": True}]
)
def test_blinks_are_removed(make_raw, fields):
    raw = make_raw(blinks=200e-6)
    clean, _ = preprocess(make_raw(), Steps(lof=None))
    dirty, _ = preprocess(raw, Steps(lof=None))
    mended, quality = preprocess(raw, Steps(lof=None, **fields))
    assert frontal(dirty) > 1.8 * frontal(clean)
    assert frontal(mended) < 1.25 * frontal(clean)
    if "ica" in fields:
        assert [c["type"] for c in quality["ica"]["removed"]] == ["eog"]
        assert quality["ica"]["n_components"] == 8


def test_ica_says_what_it_could_not_look_for(make_raw):
    raw = make_raw(montage=False).drop_channels("EOG")
    _, quality = preprocess(raw, Steps(ica={"n_components": 4}, lof=None))
    assert {"ica.eog", "ica.ecg", "ica.muscle"} <= set(quality["skipped"])
    assert quality["ica"]["removed"] == []


def test_regression_needs_an_eog_channel(make_raw):
    _, quality = preprocess(make_raw().drop_channels("EOG"), Steps(regress_eog=True))
    assert "no EOG channel" in quality["skipped"]["regress_eog"]


def test_a_recording_with_no_trial_left_is_empty_and_says_so(make_raw, tmp_path):
    path = save(make_raw(), tmp_path)
    data, quality = preprocess(path, Steps(reject="1 uV"))
    assert data.sizes == {"trial": 0, "channel": 16, "time": 201}
    assert "no trial is left" in quality["warnings"]
    assert set(quality["epochs"]["after"].values()) == {0}
    other, _ = preprocess(save(make_raw(seed=1), tmp_path, "sub-02_eeg.fif"), Steps())
    other.attrs["preprocessing"] = data.attrs["preprocessing"]
    both = concat([data, other])
    assert set(both.subject.values) == {"02"}
    assert len(json.loads(both.attrs["quality"])) == 2
    save_dataset(both, tmp_path / "x.zarr")
    assert open_dataset(tmp_path / "x.zarr").sizes == both.sizes


@pytest.mark.parametrize("rate", [{"resample": 90}, {"decim": 2}])
def test_a_recording_that_loses_all_trials_early_keeps_the_shape_of_the_others(make_raw, rate):
    import mne

    steps = Steps(
        h_freq=30, reference="average", crop=(0, 0.5), picks=["Pz", "Cz"], lof=None, **rate
    )
    expected, _ = preprocess(make_raw(), steps)
    bad = mne.Annotations(0, 40, "BAD_asleep")
    raw = make_raw()
    found, quality = preprocess(raw.set_annotations(raw.annotations + bad), steps)
    assert quality["dropped"] == {"BAD_asleep": 38}
    assert set(quality["epochs"]["after"]) == {"target", "standard"}
    epochs = epoch(make_raw())
    epochs._data[:, 3, 5] = np.nan
    gone, quality = preprocess(epochs, steps)
    assert quality["dropped"] == {"BAD_NAN": 38}
    for data in (found, gone):
        assert data.sizes["trial"] == 0
        assert data.channel.values.tolist() == ["Pz", "Cz"]
        np.testing.assert_array_equal(data.time, expected.time)


def test_bad_spans_are_no_events(make_raw):
    import mne

    raw = make_raw(events=())
    raw.set_annotations(mne.Annotations([1, 2], 0, ["BAD_blink", "EDGE boundary"]))
    with pytest.raises(DataError, match="no event found"):
        preprocess(raw, Steps())


def test_amplitude_limits_of_types_that_are_missing_are_said(make_raw):
    raw = make_raw(blinks=300e-6)
    _, quality = preprocess(raw, Steps(reject={"eog": "100 uV", "ecg": 1}, lof=None))
    assert quality["dropped_channels"] == {"EOG": quality["dropped"]["amplitude"]}
    assert "reject.ecg" in quality["skipped"]


def test_trials_that_are_too_quiet_are_dropped(make_raw):
    epochs = epoch(make_raw())
    epochs._data[[2, 5], 7] = 0.0
    _, quality = preprocess(epochs, Steps(flat="1 uV", **PLAIN))
    assert quality["dropped"] == {"amplitude": 2}
    assert quality["dropped_channels"] == {"C4": 2}


def test_autoreject_finds_the_threshold(make_raw):
    pytest.importorskip("autoreject")
    epochs = epoch(make_raw())
    epochs._data[[2, 5]] *= 30
    data, quality = preprocess(epochs, Steps(autoreject="local"))
    assert "autoreject.local" in quality["skipped"]  # 16 channels
    assert quality["dropped"]["amplitude"] >= 2
    assert 0 < quality["autoreject"]["eeg"] < 1e-3
    assert data.sizes["trial"] >= 30


def test_autoreject_that_is_not_installed_says_how_to_get_it(make_raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "autoreject", None)
    with pytest.raises(InputError, match=r"pip install 'neuro-representations\[autoreject\]'"):
        preprocess(make_raw(), Steps(autoreject="global"))


# -------------------------------------------------------------------------------- units


@pytest.mark.parametrize(("factor", "hint"), [(1e6, "1e-6"), (1e-6, "scale: 1e6")])
def test_amplitudes_of_another_unit_are_refused(make_raw, tmp_path, factor, hint):
    raw = make_raw().apply_function(lambda x: x * factor, picks="eeg", verbose="error")
    path = save(raw, tmp_path)
    with pytest.raises(DataError, match=rf"sub-01_eeg\.fif: the typical amplitude.*{hint}"):
        preprocess(path, Steps(flat_channel=None, reject="100 uV"))
    data, _ = preprocess(path, Steps(scale=1 / factor, lof=None))
    expected, _ = preprocess(make_raw(), Steps(lof=None))
    np.testing.assert_allclose(data.signal, expected.signal, rtol=1e-3, atol=1e-2)
    with pytest.raises(DataError, match="typical amplitude"):
        epochs_to_dataset(epoch(raw))


def test_a_filter_edge_must_be_below_the_nyquist_frequency(make_raw, tmp_path):
    with pytest.raises(DataError, match=r"sampled at 200 Hz, so h_freq must be below 100 Hz"):
        preprocess(save(make_raw(), tmp_path), Steps(h_freq=120))


# --------------------------------------------------------------------- several recordings


def test_another_rate_or_channel_set_is_refused_with_both_sides(make_raw, tmp_path):
    one, _ = preprocess(save(make_raw(), tmp_path), Steps())
    two, _ = preprocess(save(make_raw(sfreq=250), tmp_path, "sub-02_eeg.fif"), Steps())
    with pytest.raises(DataError, match=r"sub-01 and recording sub-02.*200.0 against 250.0"):
        concat([one, two])
    fewer = make_raw().drop_channels(["Fz"])
    three, _ = preprocess(save(fewer, tmp_path, "sub-03_eeg.fif"), Steps())
    with pytest.raises(DataError, match=r"sub-01 and recording sub-03.*Fz"):
        concat([one, three])


def test_channel_order_is_normalised_and_common_channels_are_enough(make_raw, tmp_path):
    raw = make_raw()
    save(raw, tmp_path)
    shuffled = raw.copy().reorder_channels(raw.ch_names[::-1])
    save(shuffled, tmp_path, "sub-02_eeg.fif")
    files = sorted(tmp_path.glob("*.fif"))
    one, two = (preprocess(path, Steps(lof=None))[0] for path in files)
    both = concat([one, two])
    np.testing.assert_array_equal(both.signal[: len(both.trial) // 2], both.signal[38:])
    save(raw.drop_channels(["Fz"]), tmp_path, "sub-02_eeg.fif")
    rows = find_recordings(files, channels="common")
    steps = Steps(reference="average")
    parts = [preprocess(rows.isel(trial=[i]), steps)[0] for i in range(2)]
    assert "Fz" not in concat(parts).channel


def test_labels_and_metadata_reach_the_trials(make_raw, tmp_path):
    import pandas as pd

    epochs = epoch(make_raw())
    epochs.metadata = pd.DataFrame({"age": np.arange(38.0), "side": ["l", "r"] * 19})
    epochs.save(tmp_path / "sub-01_ses-2_epo.fif", verbose="error")
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-01\tpatient\n")
    rows = find_recordings([tmp_path / "sub-01_ses-2_epo.fif"], tmp_path / "participants.tsv")
    data, _ = preprocess(rows, Steps(metadata=["side", "age"]))
    assert data.attrs["labels"] == ["group", "side", "age"]
    assert set(data.group.values) == {"patient"}
    assert data.side.values.tolist() == ["l", "r"] * 19
    assert set(data.session.values) == {"2"}
    with pytest.raises(DataError, match="no column colour; columns there: age, side"):
        preprocess(rows, Steps(metadata=["colour"]))


def test_a_simulated_recording_passes_with_its_truth():
    from eeg.simulate import simulate_cohort
    from neuro.data import select_item

    cohort = select_item(simulate_cohort(n_subjects=2, n_trials=10, seed=0), "sub-01")
    cohort.signal[4] *= 100
    steps = Steps(h_freq=30, reference="average", resample=64, reject="1 mV")
    data, quality = preprocess(cohort, steps)
    assert quality["dropped"] == {"amplitude": 1}
    assert data.sizes["trial"] == 19
    assert data.truth.shape == data.signal.shape
    kept = np.delete(np.arange(20), 4)
    np.testing.assert_array_equal(data.factor_gain, cohort.factor_gain[kept])
    assert data.condition.values.tolist() == cohort.condition.values[kept].tolist()
    whole, _ = preprocess_dataset(cohort.assign(signal=cohort.truth), steps)
    np.testing.assert_allclose(data.truth, whole.signal[kept], atol=1e-3)


# ------------------------------------------------------------------------------- replay


STEPS = {
    "l_freq": 1,
    "h_freq": 30,
    "reference": "average",
    "reject": "150 uV",
    "resample": 100,
    "event_id": ["target"],
}


def test_a_raw_recording_is_replayed(make_raw, tmp_path):
    trained, _ = preprocess(save(make_raw(), tmp_path), Steps(**STEPS))
    path = save(make_raw(seed=5), tmp_path, "sub-09_eeg.fif")
    expected, _ = preprocess(path, Steps(**STEPS))
    again = replay(path, trained.attrs["preprocessing"])
    np.testing.assert_array_equal(again.signal, expected.signal)
    assert again.attrs["preprocessing"] == trained.attrs["preprocessing"]
    assert set(again.subject.values) == {"09"}
    # Another rate does no harm: the steps resample.
    other = replay(
        save(make_raw(sfreq=400), tmp_path, "sub-10_eeg.fif"),
        json.loads(trained.attrs["preprocessing"]),
    )
    assert other.attrs["sfreq"] == 100


def test_epochs_that_carry_the_history_are_taken_as_they_are(make_raw, tmp_path):
    trained, _ = preprocess(save(make_raw(), tmp_path), Steps(**STEPS))
    path = tmp_path / "sub-01_epo.fif"
    dataset_to_epochs(trained).save(path, verbose="error")
    again = replay(path, trained.attrs["preprocessing"])
    np.testing.assert_allclose(again.signal, trained.signal, atol=1e-4)
    assert replay(trained, trained.attrs["preprocessing"]) is trained
    other, _ = preprocess(save(make_raw(), tmp_path), Steps(**STEPS | {"h_freq": 20}))
    with pytest.raises(ContractError, match=r"steps\.h_freq is 30\.0 here, 20\.0 there"):
        replay(trained, other.attrs["preprocessing"])
    with pytest.raises(ContractError, match="ready-made epochs, the training data were continu"):
        replay(path, other.attrs["preprocessing"])


def test_ready_made_epochs_must_have_the_same_facts(make_raw, tmp_path):
    raw = make_raw()
    trained, _ = preprocess(epoch(raw), Steps(h_freq=30, metadata=[]))
    record = trained.attrs["preprocessing"]
    same = tmp_path / "sub-02_epo.fif"
    epoch(make_raw(seed=3)).save(same, verbose="error")
    expected, _ = preprocess(same, Steps(h_freq=30))
    np.testing.assert_array_equal(replay(same, record).signal, expected.signal)
    for change, message in [
        (epoch(raw.copy().filter(None, 40, verbose="error")), r"lowpass: 40\.0 here, 100\.0 there"),
        (epoch(raw, tmin=-0.1), r"tmin: -0\.1 here, -0\.2 there"),
        (epoch(make_raw(sfreq=250)), r"sfreq: 250\.0 here, 200\.0 there"),
        (epoch(raw.copy().set_eeg_reference("average", verbose="error")), "rereferenced: True"),
        (epoch(raw.copy().drop_channels(["Fz"])), "missing here Fz; only here none"),
    ]:
        with pytest.raises(ContractError, match=message):
            replay(change, record)
    with pytest.raises(ContractError, match="continuous recordings, the training data were ready"):
        replay(raw, record)


def test_replay_refuses_other_channels_and_rates_or_aligns(make_raw):
    steps = Steps(reference="average", lof=None)
    trained, _ = preprocess(make_raw().drop_channels(["Fz"]), steps)
    record = trained.attrs["preprocessing"]
    with pytest.raises(ContractError, match=r"missing here none; only here Fz \(16 here, 15 there"):
        replay(make_raw(), record)
    aligned = replay(make_raw(), record, align=True)
    np.testing.assert_allclose(aligned.signal, trained.signal, atol=1e-4)
    with pytest.raises(ContractError, match="would have 250 Hz, the training data's have 200 Hz"):
        replay(make_raw(sfreq=250).drop_channels(["Fz"]), record)


def test_replay_of_a_recording_without_the_event_or_with_no_trial_left(make_raw, tmp_path):
    trained, _ = preprocess(make_raw(), Steps(**STEPS))
    record = trained.attrs["preprocessing"]
    with pytest.raises(DataError, match=r"no event 'target'.*events there: none at all"):
        replay(make_raw(events=()), record)
    loud = make_raw().apply_function(lambda x: 20 * x, picks="eeg", verbose="error")
    with pytest.raises(DataError, match=r"sub-03_eeg\.fif: no trial is left of 19.*amplitude"):
        replay(save(loud, tmp_path, "sub-03_eeg.fif"), record)


@pytest.mark.parametrize("record", ["[]", {}])
def test_training_data_without_history_can_not_be_replayed(make_raw, record):
    with pytest.raises(ContractError, match=r"carry no history.*eeg-epochs"):
        replay(make_raw(), record)


def test_epochs_of_mne_make_a_round_trip(make_raw):
    epochs = epoch(make_raw())
    data = epochs_to_dataset(epochs, subject="s1", group="patient", age=30.0)
    assert data.attrs["labels"] == ["group", "age"]
    back = dataset_to_epochs(data)
    np.testing.assert_allclose(back.get_data(), epochs.get_data("eeg"), atol=1e-11)
    np.testing.assert_allclose(back.times, epochs.times)
    assert back.event_id.keys() == epochs.event_id.keys()
    assert back.get_montage() is not None
    # Facts of epochs in memory are those of the same epochs from a file.
    record = data.attrs["preprocessing"]
    assert replay(epochs, record).signal.shape == data.signal.shape


# ---------------------------------------------------------------------- real recordings


def test_the_n1_of_the_alcoholism_recordings(neuro_data):
    folder = neuro_data / "eeg-alcoholism"
    rows = find_recordings(
        sorted(folder.glob("*_epo.fif")), folder / "participants.tsv", labels=["group"]
    )
    parts = [preprocess(rows.isel(trial=[i]), Steps(lof=None))[0] for i in range(12)]
    data = concat(parts)
    assert data.signal.shape == (360, 61, 256)
    small = np.abs(data.signal).max(dim=("channel", "time")) < 100
    # The README counts 58 beyond 100 uV on all 64 channels.
    assert 290 <= int(small.sum()) <= 310
    wanted = data.isel(trial=(small & (data.condition != "S2_nomatch")).values)
    erp = wanted.signal.groupby("subject").mean().mean("subject")
    n1 = erp.sel(channel=["PO7", "PO8", "O1", "O2"], time=slice(0.1, 0.25))
    peaks, at = n1.min("time").values, n1.time.values[n1.argmin("time").values]
    assert ((peaks > -12) & (peaks < -6.5)).all()
    assert ((at >= 0.155) & (at <= 0.19)).all()


def test_the_p3_of_the_eeglab_recording(neuro_data):
    steps = Steps(
        channel_types={"EOG1": "eog", "EOG2": "eog"},
        l_freq=1,
        h_freq=30,
        event_id=["square"],
        lof=None,
    )
    data, quality = preprocess(neuro_data / "eeg-eeglab-sample" / "eeglab_data.set", steps)
    assert data.signal.shape == (80, 30, 129)
    erp = data.signal.sel(channel="Pz", time=slice(0.2, 0.7)).mean("trial")
    assert float(erp.max()) == pytest.approx(26.9, abs=0.1)
    assert float(erp.time[int(erp.argmax("time"))]) == pytest.approx(0.429, abs=0.005)
    assert quality["events"] == {"square": 80}


def test_kept_trials_of_the_muse_recordings(neuro_data):
    steps = Steps(
        csv={"sfreq": 256},
        l_freq=1,
        h_freq=30,
        tmin=-0.1,
        tmax=0.8,
        event_id={"house": 1, "face": 2},
        reject="75 uV",
    )
    before = after = 0
    for path in sorted((neuro_data / "eeg-muse-n170").glob("sub-03_*.csv.gz")):
        _, quality = preprocess(path, steps)
        before += sum(quality["epochs"]["before"].values())
        after += sum(quality["epochs"]["after"].values())
    assert before == 390 + 199
    assert after == pytest.approx(276 + 157, abs=5)


def test_biosemi_triggers_are_events(neuro_data):
    path = neuro_data / "eeg-formats" / "test16.bdf"
    _, quality = preprocess(path, Steps(event_id={"pulse": 255}, l_freq=1, scale=1.0))
    assert quality["events"] == {"pulse": 40}
