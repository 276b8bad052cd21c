"""Captures of every format, and those that are damaged."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from scipy.io import wavfile

from neuro.errors import DataError, InputError
from timeseries.read import read_capture

IQ = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 2)).astype("float32")
COMPLEX = IQ.view(np.complex64)[:, 0]


def sigmf_pair(folder, kind="ci16_le", values=None, **more):
    values = np.round(IQ * 2**15).astype("<i2") if values is None else values
    (folder / "x.sigmf-data").write_bytes(values.tobytes())
    meta = {
        "global": {"core:datatype": kind, "core:sample_rate": 1e6, "core:version": "1.0.0", **more},
        "captures": [{"core:sample_start": 0, "core:frequency": 433.92e6}],
        "annotations": [{"core:sample_start": 10, "core:sample_count": 90, "core:label": "tx"}],
    }
    (folder / "x.sigmf-meta").write_text(json.dumps(meta))
    return folder / "x.sigmf-meta"


@pytest.mark.parametrize(
    ("suffix", "values", "tolerance"),
    [
        ("cf32", IQ.astype("<f4"), 1e-7),
        ("cfile", IQ.astype("<f4"), 1e-7),
        ("ci16", np.round(IQ * 2**15).astype("<i2"), 1e-4),
        ("cs8", np.round(IQ * 2**7).astype("i1"), 1e-2),
        ("cu8", np.round(IQ * 127.5 + 127.5).astype("u1"), 1e-2),
    ],
)
def test_raw_files_give_what_was_written(tmp_path, suffix, values, tolerance):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(values.tobytes())
    capture = read_capture(path, sfreq=1e6)
    np.testing.assert_allclose(capture.samples(100, 300), COMPLEX[100:300], atol=tolerance)
    assert len(capture) == 1000
    assert np.isnan(capture.centre)
    assert "centre frequency" in capture.notes[0]


def test_arrays_hdf5_and_wav(tmp_path):
    np.save(tmp_path / "a.npy", COMPLEX)
    np.save(tmp_path / "b.npy", IQ)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["iq"] = COMPLEX
    wavfile.write(tmp_path / "d.wav", 48_000, np.round(IQ * 2**15).astype("int16"))
    for name in ("a.npy", "b.npy", "c.h5"):
        found = read_capture(tmp_path / name, sfreq=2e6).samples()
        np.testing.assert_allclose(found, COMPLEX, atol=1e-7)
    wav = read_capture(tmp_path / "d.wav")
    assert wav.sfreq == 48_000
    np.testing.assert_allclose(wav.samples(), COMPLEX, atol=1e-4)


def test_a_real_envelope_is_read_as_one(tmp_path):
    np.save(tmp_path / "e.npy", np.array([-128, 0, 64], np.int8))
    capture = read_capture(tmp_path / "e.npy", sfreq=125e3)
    assert capture.real
    np.testing.assert_allclose(capture.samples(), [-1, 0, 0.5])
    assert any("envelope" in note for note in capture.notes)


def test_sigmf_brings_rate_frequency_and_annotations(tmp_path):
    capture = read_capture(sigmf_pair(tmp_path))
    assert (capture.sfreq, capture.centre) == (1e6, 433.92e6)
    assert capture.annotations.to_dict("records") == [{"start": 10, "stop": 100, "label": "tx"}]
    np.testing.assert_allclose(capture.samples(), COMPLEX, atol=1e-4)
    assert isinstance(capture.values.base, np.memmap) or isinstance(capture.values, np.memmap)


def test_a_sigmf_archive_is_read_like_the_pair(tmp_path):
    import sigmf

    sigmf.fromfile(sigmf_pair(tmp_path)).archive(str(tmp_path / "y"))
    found = read_capture(next(tmp_path.glob("y*.sigmf")))
    np.testing.assert_allclose(found.samples(), COMPLEX, atol=1e-4)


@pytest.mark.parametrize("kind", ["cf32_le", "ci16_be", "cu8"])
@pytest.mark.parametrize("packed", [None, "", "gz"])
def test_sigmf_samples_are_mapped_whatever_their_type_and_packing(tmp_path, kind, packed):
    import sigmf

    stored = {"cf32_le": IQ.astype("<f4"), "ci16_be": np.round(IQ * 2**15).astype(">i2"),
              "cu8": np.round(IQ * 127.5 + 127.5).astype("u1")}[kind]  # fmt: skip
    path = sigmf_pair(tmp_path, kind, stored)
    if packed is not None:
        sigmf.fromfile(path).archive(str(tmp_path / "y"), compression=packed or None)
        path = next(tmp_path.glob("y*"))
    capture = read_capture(path)
    assert len(capture) == 1000
    assert capture.values.shape == (1000, 2)
    assert isinstance(capture.values, np.memmap) or packed == "gz"
    atol = {"cf32_le": 1e-7, "ci16_be": 1e-4, "cu8": 1e-2}[kind]
    np.testing.assert_allclose(capture.samples(100, 300), COMPLEX[100:300], atol=atol)


def test_damaged_sigmf_is_named(tmp_path):
    meta = sigmf_pair(tmp_path, **{"core:sha512": "0" * 128})
    with pytest.raises(DataError, match=r"x\.sigmf-meta.*hash"):
        read_capture(meta)
    assert len(read_capture(meta, check=False)) == 1000
    meta = sigmf_pair(tmp_path)
    (tmp_path / "x.sigmf-data").write_bytes(IQ.tobytes()[:4001])
    with pytest.raises(DataError, match=r"x\.sigmf-meta"):
        read_capture(meta)
    (tmp_path / "x.sigmf-data").unlink()
    with pytest.raises(DataError, match=r"x\.sigmf-meta"):
        read_capture(meta)
    with pytest.raises(DataError, match="xy8"):
        read_capture(sigmf_pair(tmp_path, kind="xy8"))
    meta.write_text("{")
    with pytest.raises(DataError, match=r"x\.sigmf-meta"):
        read_capture(meta)


def test_an_annotation_beyond_the_end_is_refused(tmp_path):
    meta = sigmf_pair(tmp_path, values=np.round(IQ[:50] * 2**15).astype("<i2"))
    with pytest.raises(DataError, match=r"x\.sigmf-meta.*annotation"):
        read_capture(meta)


def test_what_a_file_does_not_say_is_not_guessed(tmp_path):
    path = tmp_path / "x.cu8"
    path.write_bytes(bytes(10))
    with pytest.raises(InputError, match="give sfreq"):
        read_capture(path)
    with pytest.raises(InputError, match="in the file"):
        read_capture(sigmf_pair(tmp_path), sfreq=5e6)
    with pytest.raises(InputError, match="datatype"):
        read_capture(path, sfreq=1e6, datatype="cu9")
    other = tmp_path / "x.dat"
    other.write_bytes(bytes(10))
    with pytest.raises(InputError, match="say its datatype"):
        read_capture(other, sfreq=1e6)
    assert len(read_capture(other, sfreq=1e6, datatype="cu8")) == 5


def test_lengths_shapes_and_nan_are_checked(tmp_path):
    odd = tmp_path / "odd.ci16"
    odd.write_bytes(bytes(11))
    with pytest.raises(DataError, match="no whole number"):
        read_capture(odd, sfreq=1e6)
    (tmp_path / "empty.cu8").touch()
    with pytest.raises(DataError, match="empty"):
        read_capture(tmp_path / "empty.cu8", sfreq=1e6)
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    with pytest.raises(DataError, match="expected complex"):
        read_capture(tmp_path / "x.npy", sfreq=1e6)
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="can't be read"):
        read_capture(tmp_path / "o.npy", sfreq=1e6)
    bad = IQ.copy()
    bad[5, 0] = np.nan
    bad.tofile(tmp_path / "nan.cf32")
    with pytest.raises(DataError, match="NaN"):
        read_capture(tmp_path / "nan.cf32", sfreq=1e6).samples()
    with pytest.raises(DataError, match="no such file"):
        read_capture(tmp_path / "nothing.cu8", sfreq=1e6)
