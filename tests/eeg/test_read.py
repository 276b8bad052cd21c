"""Reading: every format, tables of participants, and files that can't be read."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eeg.catalogue import catalogue_warnings, content_digest
from eeg.read import companions, find_recordings, load, read_recording
from eeg.steps import ColumnMap
from neuro.errors import DataError, InputError


def muse(path: Path, *, n: int = 2560, sfreq: float = 256.0, marker: str = "Marker0", **columns):
    rng = np.random.default_rng(0)
    table = {"timestamps": np.round(1e6 + np.arange(n) / sfreq, 3)}
    table |= {name: rng.normal(0, 20, n).round(3) for name in ("TP9", "AF7", "AF8", "TP10")}
    table |= {"Right AUX": rng.normal(0, 300, n), marker: np.zeros(n, int)}
    table[marker][256::256] = np.arange(len(table[marker][256::256])) % 2 + 1
    table |= columns
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def export(raw, path: Path) -> Path:
    if path.suffix == ".fif":
        raw.save(path, overwrite=True, verbose="error")
    elif path.suffix == ".set":
        raw.export(path, overwrite=True, verbose="error")
    else:
        raw.export(path, overwrite=True, verbose="error", physical_range="channelwise")
    return path


def test_importing_the_parameters_and_companions_loads_nothing_heavy():
    code = (
        "import sys, eeg.steps, eeg.companions; "
        "print([m for m in ('mne', 'torch', 'xarray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["a_eeg.fif", "a.edf", "a.set", "a.vhdr"])
def test_formats_give_the_same_signal(make_raw, tmp_path, name):
    raw = make_raw(seconds=6)
    path = tmp_path / name
    if path.suffix == ".vhdr":
        raw.export(path, overwrite=True, verbose="error")
    else:
        export(raw, path)
    read = read_recording(path)
    assert read.info["sfreq"] == 200
    found = read.get_data(picks=["Fz", "Oz"])
    np.testing.assert_allclose(
        found, raw.get_data(picks=["Fz", "Oz"])[:, : found.shape[1]], atol=2e-8
    )  # EDF has 16 bits


def test_epochs_of_fif_and_eeglab_are_recognised(make_raw, tmp_path):
    import mne

    raw = make_raw(seconds=10).pick("eeg")
    events, event_id = mne.events_from_annotations(raw, verbose="error")
    epochs = mne.Epochs(raw, events, event_id, 0, 0.5, baseline=None, preload=True, verbose="error")
    epochs.save(tmp_path / "named_like_raw_epo.fif", verbose="error")
    epochs.export(tmp_path / "a.set", verbose="error")
    for name in ("named_like_raw_epo.fif", "a.set"):
        read = read_recording(tmp_path / name)
        assert isinstance(read, mne.BaseEpochs)
        assert len(read) == len(epochs)
        np.testing.assert_allclose(read.get_data(), epochs.get_data(), atol=1e-9)


def test_epochs_of_fieldtrip_are_read(tmp_path):
    import mne
    from scipy.io import savemat

    times = np.arange(50) / 100
    trials = np.empty(3, object)
    stamps = np.empty(3, object)
    for i in range(3):
        trials[i], stamps[i] = np.random.default_rng(i).normal(size=(2, 50)), times
    labels = np.array(["Fz", "Pz"], object)
    data = {
        "trial": trials,
        "time": stamps,
        "label": labels,
        "fsample": 100.0,
        "trialinfo": np.array([[1], [2], [1]]),
    }
    savemat(tmp_path / "ft.mat", {"data": data})
    read = read_recording(tmp_path / "ft.mat")
    assert isinstance(read, mne.BaseEpochs)
    assert read.ch_names == ["Fz", "Pz"]
    assert read.get_data().shape == (3, 2, 50)


def test_a_csv_recording_by_its_columns(tmp_path):
    path = muse(tmp_path / "sub-01_eeg.csv")
    raw = read_recording(path, csv=ColumnMap(sfreq=256))
    assert raw.ch_names == ["TP9", "AF7", "AF8", "TP10", "Marker"]
    assert raw.get_channel_types() == ["eeg"] * 4 + ["stim"]
    np.testing.assert_allclose(raw.get_data("TP9")[0], pd.read_csv(path).TP9 * 1e-6)


def test_a_csv_recording_gzipped_in_millivolts_with_other_names(tmp_path):
    n = 512
    table = pd.DataFrame({"t": np.arange(n) / 128, "Cz": np.sin(np.arange(n)), "trigger": 0})
    table.to_csv(tmp_path / "a.tsv.gz", index=False, sep="\t")
    columns = ColumnMap(sfreq="128 Hz", time="t", marker=["trigger"], unit="mV")
    raw = read_recording(tmp_path / "a.tsv.gz", csv=columns)
    np.testing.assert_allclose(raw.get_data("Cz")[0], np.sin(np.arange(n)) * 1e-3)


def test_the_rate_of_a_csv_recording_is_never_guessed(tmp_path):
    path = muse(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv.*does not tell its sampling rate.*csv\.sfreq"):
        read_recording(path)
    with pytest.raises(DataError, match=r"says 500 Hz.*make 256 Hz"):
        read_recording(path, csv=ColumnMap(sfreq=500))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"channels": ["Cz"]}, r"expected the columns Cz.*found timestamps, TP9"),
        ({"time": "seconds"}, r"expected the columns seconds"),
        ({"channels": ["note"]}, r"columns note hold text.*csv\.ignore"),
    ],
)
def test_a_csv_recording_with_other_columns_says_which(tmp_path, columns, message):
    path = muse(tmp_path / "a.csv", note=["x"] * 2560)
    with pytest.raises(DataError, match=message):
        read_recording(path, csv=ColumnMap(sfreq=256, **columns))


def test_a_csv_recording_that_is_cut_short_or_empty(tmp_path):
    text = muse(tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text[:-40])
    with pytest.raises(DataError, match=r"last row.*cut short"):
        read_recording(tmp_path / "a.csv", csv=ColumnMap(sfreq=256))
    (tmp_path / "b.csv").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"b\.csv.*no samples"):
        read_recording(tmp_path / "b.csv", csv=ColumnMap(sfreq=256))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(text.encode())[:2000])
    with pytest.raises(DataError, match=r"c\.csv\.gz.*cut short"):
        read_recording(tmp_path / "c.csv.gz", csv=ColumnMap(sfreq=256))
    lines = text.splitlines()
    lines[0] = lines[0].replace("AF7", "TP9")
    (tmp_path / "d.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="'TP9' stands there twice"):
        read_recording(tmp_path / "d.csv", csv=ColumnMap(sfreq=256))


@pytest.mark.parametrize("name", ["a_eeg.fif", "a.edf", "a.set", "a_epo.fif"])
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5])
def test_a_file_cut_short_is_refused_by_name(make_raw, tmp_path, name, keep):
    import mne

    raw, path = make_raw(seconds=10), tmp_path / name
    if name == "a_epo.fif":
        events = mne.events_from_annotations(raw, verbose="error")[0]
        mne.Epochs(raw, events, preload=True, verbose="error").save(path, verbose="error")
    else:
        export(raw, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=rf"{name}.*(empty|cut short|damaged)") as caught:
        load(read_recording(path), path)
    assert "copy" in str(caught.value)


def test_a_recording_whose_header_does_not_count_its_records_is_read(neuro_data):
    raw = read_recording(neuro_data / "eeg-formats" / "test16.bdf")
    assert raw.n_times == 256 * 60


def test_a_missing_file_and_an_unknown_format(tmp_path):
    with pytest.raises(DataError, match=r"none\.edf: there is no such file"):
        read_recording(tmp_path / "none.edf")
    (tmp_path / "a.xyz").write_text("hello")
    with pytest.raises(DataError, match=r"a\.xyz.*can't be read"):
        read_recording(tmp_path / "a.xyz")


def test_channel_names_must_be_unique(make_raw, tmp_path):
    path = export(make_raw(seconds=4), tmp_path / "a.edf")
    content = bytearray(path.read_bytes())
    assert content[256:272].strip() == b"Fp1"
    content[272:288] = b"Fp1".ljust(16)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.edf: the channels Fp1 stand there more than once"):
        read_recording(path)


def test_companions_of_header_formats(neuro_data, make_raw, tmp_path):
    formats = neuro_data / "eeg-formats"
    assert {p.name for p in companions(formats / "test.vhdr")} == {"test.eeg", "test.vmrk"}
    assert companions(formats / "test.edf") == []
    sample = neuro_data / "eeg-eeglab-sample" / "eeglab_data.set"
    assert [p.name for p in companions(sample)] == ["eeglab_data.fdt"]


def test_the_digest_follows_companions_and_not_the_place(make_raw, tmp_path):
    raw = make_raw(seconds=4)
    raw.export(tmp_path / "a.vhdr", verbose="error")
    before = content_digest(tmp_path / "a.vhdr", companions(tmp_path / "a.vhdr"))
    shutil.copytree(tmp_path, tmp_path / "moved")
    moved = tmp_path / "moved" / "a.vhdr"
    assert content_digest(moved, companions(moved)) == before
    sample = bytearray(moved.with_suffix(".eeg").read_bytes())
    sample[100] ^= 1
    moved.with_suffix(".eeg").write_bytes(sample)
    assert content_digest(moved, companions(moved)) != before


# ------------------------------------------------------------------------------- catalogue


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_text(name)
    return [folder / name for name in names]


def test_names_and_participants_make_the_catalogue(tmp_path):
    files = touch(tmp_path, "sub-02_ses-1_run-2_eeg.edf", "sub-01_eeg.edf", "pilot.edf")
    table = tmp_path / "participants.tsv"
    table.write_text(
        "participant_id\tgroup\tage\nsub-01\tpatient\t30\n02\tn/a\tn/a\nsub-09\tx\t1\n"
    )
    found = find_recordings(files, table)
    assert found.recording.values.tolist() == ["pilot", "sub-01", "sub-02_ses-1_run-2"]
    assert found.subject.values.tolist() == ["pilot", "01", "02"]
    assert found.run.values.tolist() == ["", "", "2"]
    assert found.group.values.tolist() == ["", "patient", ""]
    np.testing.assert_array_equal(found.age.values, [np.nan, 30, np.nan])
    assert found.attrs["labels"] == ["group", "age"]
    text = " ".join(catalogue_warnings(found))
    assert "does not know the subjects pilot" in text
    assert "without recording: sub-09" in text


def test_what_does_not_fit_leaves_the_identity_of_other_recordings_alone(tmp_path):
    from neuro.data import item_digests

    files = touch(tmp_path, "sub-01.edf", "sub-02.edf")
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tgroup\nsub-01\ta\nsub-02\tb\n")
    whole = dict(item_digests(find_recordings(files, table)))
    part = dict(item_digests(find_recordings(files[:1], table)))
    assert part["sub-01"] == whole["sub-01"]
    table.write_text("participant_id\tgroup\nsub-01\ta\nsub-02\tCHANGED\n")
    changed = dict(item_digests(find_recordings(files, table)))
    assert changed["sub-01"] == whole["sub-01"]
    assert changed["sub-02"] != whole["sub-02"]


def test_participants_by_file_name(neuro_data):
    folder = neuro_data / "eeg-muse-p300"
    found = find_recordings(
        sorted(folder.glob("*.csv.gz")), folder / "files.tsv", labels=["n_marker2"]
    )
    assert found.sizes["trial"] == 26
    assert found.n_marker2.values[0] == 32
    assert sorted(set(found.session.values)) == ["01", "02", "03"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\tgroup\nsub-01\ta\n", "expected a column participant_id.*found name, group"),
        ("participant_id\tgroup\nsub-07\ta\n", "none of its participants.*sub-07.*01"),
        ("participant_id\tgroup\nsub-01\ta\n01\tb\n", "stands in two rows"),
        ("", "expected a table with a header row"),
    ],
)
def test_participants_that_do_not_fit(tmp_path, text, message):
    files = touch(tmp_path, "sub-01.edf")
    (tmp_path / "participants.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        find_recordings(files, tmp_path / "participants.tsv")


def test_an_unknown_label_lists_those_that_are_there(tmp_path):
    files = touch(tmp_path, "sub-01.edf")
    (tmp_path / "p.tsv").write_text("participant_id\tgroup\tage\nsub-01\ta\t3\n")
    with pytest.raises(InputError, match=r"no column grup; columns there: group, age"):
        find_recordings(files, tmp_path / "p.tsv", labels=["grup"])


def test_a_selection_that_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"no recording is left.*task=rest"):
        find_recordings(touch(tmp_path, "sub-01_task-odd.edf"), task="rest")
    with pytest.raises(InputError, match="either files or bids_root"):
        find_recordings()


def test_common_channels_are_those_of_every_recording(make_raw, tmp_path):
    names = make_raw(seconds=4).ch_names
    export(make_raw(seconds=4), tmp_path / "a_eeg.fif")
    export(make_raw(seconds=4).drop_channels(["Fz"]), tmp_path / "b_eeg.fif")
    found = find_recordings(sorted(tmp_path.glob("*.fif")), channels="common")
    common = json.loads(found["channels"].values[0])
    assert common == [name for name in names if name != "Fz"]


def test_a_bids_study(make_raw, tmp_path):
    import mne_bids

    for subject in ("01", "02"):
        raw = make_raw(seconds=12).pick("eeg")
        path = mne_bids.BIDSPath(subject=subject, task="odd", root=tmp_path, datatype="eeg")
        mne_bids.write_raw_bids(
            raw, path, allow_preload=True, format="BrainVision", verbose="error"
        )
    mne_bids.mark_channels(path, ch_names="Fz", status="bad", verbose="error")
    table = pd.read_csv(tmp_path / "participants.tsv", sep="\t")
    table["group"] = ["patient", "control"]
    table.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)

    found = find_recordings(bids_root=tmp_path, task="odd", labels=["group"])
    assert found.subject.values.tolist() == ["01", "02"]
    assert found.group.values.tolist() == ["patient", "control"]
    names = {p.name for p in companions(found.path.values[1])}
    assert {
        "sub-02_task-odd_channels.tsv",
        "sub-02_task-odd_events.tsv",
        "sub-02_task-odd_eeg.eeg",
    } <= names
    read = read_recording(found.path.values[1])
    assert read.info["bads"] == ["Fz"]
    assert set(read.annotations.description) == {"target", "standard"}
    with pytest.raises(InputError, match=r"no EEG recording of task 'rest'; tasks there: odd"):
        find_recordings(bids_root=tmp_path, task="rest")
