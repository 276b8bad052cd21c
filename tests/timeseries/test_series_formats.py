"""Round trips of further formats, folders, and bad files: each names the file and what to do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import neuro
from neuro.errors import DataError
from timeseries.read_series import Columns, from_arrays, read_series
from timeseries.series_index import files_inside
from timeseries.windows import Windows, cut_windows


def _dataset(n=40):
    signal = np.random.default_rng(0).standard_normal((3, 2, n)).astype("float32")
    return xr.Dataset(
        {"signal": (("trial", "channel", "time"), signal)},
        coords={
            "channel": ["a", "b"], "time": np.arange(n) / 10,
            "subject": ("trial", ["s1", "s1", "s2"]), "class": ("trial", ["u", "v", "u"]),
        },
    )  # fmt: skip


def _write(data, path, engine):
    if engine == "zarr":
        neuro.save_dataset(data, path)
    else:
        data.to_netcdf(path, engine=engine)


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf", "zarr"])
def test_netcdf_and_zarr_come_back_as_they_were(tmp_path, engine):
    if engine == "h5netcdf":
        pytest.importorskip("h5netcdf")
    data = _dataset()
    data["signal"][1, 0, 3] = np.nan
    path = tmp_path / ("x.zarr" if engine == "zarr" else "x.nc")
    _write(data, path, engine)
    found = read_series(path)
    for recording, row in zip(found, data["signal"].values, strict=True):
        assert np.array_equal(recording.signal, row, equal_nan=True)
        assert recording.channels == ("a", "b")
        assert recording.sfreq == 10.0
    assert [r.subject for r in found] == ["s1", "s1", "s2"]
    assert [r.spans[0].label for r in found] == ["u", "v", "u"]
    one = data.isel(trial=0, drop=True).transpose("time", "channel")
    _write(one, tmp_path / f"one{path.suffix}", engine)
    assert np.array_equal(read_series(tmp_path / f"one{path.suffix}")[0].signal, found[0].signal)


def test_a_padded_dataset_comes_back_without_its_padding(tmp_path):
    data = cut_windows(from_arrays([np.ones((2, 9)), np.ones((2, 5))], sfreq=10.0), Windows())
    neuro.save_dataset(data, tmp_path / "x.zarr")
    found = read_series(tmp_path / "x.zarr")
    assert [r.signal.shape for r in found] == [(2, 9), (2, 5)]
    assert cut_windows(found, Windows())["mask"].equals(data["mask"])


def test_folders_of_sounds_and_of_mixed_files(tmp_path):
    from scipy.io import wavfile

    for word in ("yes", "no"):
        (tmp_path / word).mkdir()
        for k in range(2):
            wavfile.write(tmp_path / word / f"{k}.wav", 8000, np.full(9 + k, 128 + 64, np.uint8))
    sounds = [r for path in files_inside([tmp_path]) for r in read_series(path)]
    assert [r.spans[0].label for r in sounds] == ["no", "no", "yes", "yes"]
    assert sounds[0].signal.tolist() == [[0.5] * 9]
    data = cut_windows(sounds, Windows())
    assert data["length"].values.tolist() == [9, 10, 9, 10]
    neuro.save_dataset(_dataset(), tmp_path / "more.zarr")
    (tmp_path / "labels.csv").write_text("exp\n")
    names = [path.name for path in files_inside([tmp_path])]
    assert names == ["more.zarr", "0.wav", "1.wav", "0.wav", "1.wav"]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="a folder without series"):
        files_inside([tmp_path / "none"])


def test_a_long_table_of_several_recordings_with_holes(tmp_path):
    rows = [
        {"t": t / 5, "who": who, "take": take, "name": name, "v": t, "what": "sit"}
        for who, take in (("ann", 1), ("bob", 2)) for t in range(6) for name in "ab"
        if not (take == 2 and name == "b" and t == 3)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    columns = Columns(
        time="t", variable="name", value="v", recording="take", subject="who", label="what"
    )
    first, second = read_series(tmp_path / "x.parquet", columns=columns)
    assert (first.subject, second.subject, second.spans[0].label) == ("ann", "bob", "sit")
    assert np.isnan(second.signal[1, 3])
    assert np.isfinite(first.signal).all()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "time,a,b\n0,1,2\n0.1,1,2,3\n", "Expected 3 fields in line 3, saw 4"),
        ("a.csv", "", "table can't be read"),
        ("a.csv", "time,a\n0,1\n0.1,x\n", "no numeric column beside time; .* text: a"),
        ("a.csv", "time,a\n0,1\n,2\n", "finite times"),
        ("a.ts", "@data\n1,2:3,4,5\n", "case 1 have \\[2, 3\\] samples"),
        ("a.ts", "1,2\n", "expected a @data line"),
        ("a.nc", "no", "not a nc that can be read"),
        ("a.parquet", "no", "table can't be read"),
        ("a.wav", "no", "not a WAV file"),
        ("a.npz", "no", "npz of plain arrays"),
        ("a.mp3", "no", "series are read from .ts"),
    ],
)
def test_bad_files_name_themselves(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_series(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_netcdf4_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    import h5py

    path = tmp_path / "x.nc"
    with h5py.File(path, "w") as file:
        file["signal"] = np.ones(3)
    monkeypatch.setattr(xr, "open_dataset", _no_engine)
    with pytest.raises(DataError, match="h5netcdf"):
        read_series(path)


def _no_engine(path):
    raise ValueError("did not find a match")


@pytest.mark.parametrize(
    ("times", "message"), [([0, 0.1, 0.1], "occurs twice"), ([0, 0.2, 0.1], "runs backwards")]
)
def test_times_of_netcdf_that_are_no_grid_are_refused(tmp_path, times, message):
    data = _dataset(3).assign_coords(time=times)
    data.to_netcdf(tmp_path / "x.nc", engine="scipy")
    with pytest.raises(DataError, match=message):
        read_series(tmp_path / "x.nc")


def test_a_long_table_with_a_time_twice_names_the_channel(tmp_path):
    text = "time,variable,value\n0,a,1\n0,b,1\n0.1,a,1\n0.1,b,1\n0.1,b,2\n"
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=r"0\.1 occurs twice for 'b'"):
        read_series(tmp_path / "x.csv", columns=Columns(variable="variable", value="value"))


def test_arrays_of_unlike_channel_counts_are_refused(tmp_path):
    cases = from_arrays([np.ones((2, 9)), np.ones((3, 9))])
    with pytest.raises(DataError, match="case-1: found 3 channels"):
        cut_windows(cases, Windows())
    np.savez(tmp_path / "x.npz", exp1=np.ones((9, 2)), exp2=np.ones((9, 3)))
    with pytest.raises(DataError, match="x-exp2: found 3 channels"):
        cut_windows(read_series(tmp_path / "x.npz", sfreq=1.0), Windows())
