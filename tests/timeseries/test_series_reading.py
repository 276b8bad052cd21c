"""Reading series and cutting them: every form, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from neuro.data import as_signal
from neuro.errors import ContractError, DataError
from timeseries.downstream import grouped_accuracy, summary_features
from timeseries.read_series import Columns, from_arrays, read_series
from timeseries.recording import Recording, Span
from timeseries.series_encoder import SeriesEncoder, mask_of
from timeseries.windows import Windows, cut_windows


class Mean(SeriesEncoder):
    """Mean of every channel."""

    name = "mean"
    n_latents = 2

    def fit(self, X, y=None):
        self.start_fit(X)
        return self

    def transform(self, X):
        X = self.as_input(X)
        return self.wrap(self.check_input(X).mean(-1), X)


def _recording(n=100, spans=(), name="r"):
    signal = np.arange(2 * n, dtype=np.float32).reshape(2, n)
    return Recording(signal, 10.0, ("a", "b"), name, "s1", spans)


def _table(n=40):
    return pd.DataFrame({"time": np.arange(n) / 10, "a": np.arange(n) * 1.0, "b": np.ones(n)})


def test_ts_of_unequal_length_and_missing_values(tmp_path):
    path = tmp_path / "x.ts"
    path.write_text("@classLabel true u v\n@data\n1,?,3:4,5,6:u\n1,2:3,4:v\n")
    first, second = read_series(path)
    assert np.isnan(first.signal[0, 1])
    assert second.signal.tolist() == [[1, 2], [3, 4]]
    data = cut_windows([first, second], Windows())
    assert data["signal"].values[0, 0].tolist() == [1, 2, 3]
    assert data["mask"].values.tolist() == [[True] * 3, [True, True, False]]
    assert data["class"].values.tolist() == ["u", "v"]


def test_ts_with_inconsistent_channels_names_the_case(tmp_path):
    path = tmp_path / "x.ts"
    path.write_text("@classLabel true u\n@data\n1,2:3,4:u\n1,2:u\n")
    with pytest.raises(DataError, match="case 2 has 1 channels, expected 2"):
        read_series(path)


def test_wide_and_long_tables_and_parquet_give_the_same(tmp_path):
    wide = _table()
    wide.to_csv(tmp_path / "wide.csv", index=False)
    wide.to_parquet(tmp_path / "wide.parquet")
    wide.melt("time").to_csv(tmp_path / "long.csv", index=False)
    one = read_series(tmp_path / "wide.csv")[0]
    two = read_series(tmp_path / "wide.parquet")[0]
    columns = Columns(variable="variable", value="value")
    three = read_series(tmp_path / "long.csv", columns=columns)[0]
    for other in (two, three):
        assert np.array_equal(one.signal, other.signal)
        assert one.channels == other.channels
    assert one.sfreq == three.sfreq == 10.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(time=t["time"].where(t.index != 5, t["time"][4])), "occurs twice"),
        (lambda t: t.iloc[[0, 2, 1, *range(3, 40)]], "runs backwards"),
        (lambda t: t.drop(index=range(5, 9)), "not evenly spaced"),
        (lambda t: t.rename(columns={"time": "when"}), "no column time"),
    ],
)
def test_times_that_are_no_grid_are_refused(tmp_path, change, message):
    change(_table()).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match=message):
        read_series(tmp_path / "x.csv")


def test_indexed_npz_netcdf_and_wav(tmp_path):
    from scipy.io import wavfile

    index = {"start": [0, 30], "length": [30, 20], "digit": [3, 7], "sample_rate": 100}
    np.savez(tmp_path / "ann.npz", signal=np.full(50, 16384, np.int16), **index)
    found = read_series(tmp_path / "ann.npz", label="digit")
    assert [r.signal.shape[1] for r in found] == [30, 20]
    assert found[0].signal.max() == 0.5
    assert [r.spans[0].label for r in found] == ["3", "7"]
    assert found[0].subject == "ann"
    assert len(read_series(tmp_path / "ann.npz", label=None)) == 2
    (tmp_path / "yes").mkdir()
    wavfile.write(tmp_path / "yes" / "a.wav", 8000, np.full((9, 2), 16384, np.int16))
    sound = read_series(tmp_path / "yes" / "a.wav")[0]
    assert sound.signal.shape == (2, 9)
    assert sound.spans[0].label == "yes"


def test_windows_stay_within_labels_unless_asked():
    recording = _recording(spans=(Span(0, 45, "u"), Span(45, 100, "v")))
    data = cut_windows([recording], Windows(2.0, overlap=0.5))
    ends = data["start"].values + 20
    assert not ((data["start"].values < 45) & (ends > 45)).any()
    crossed = cut_windows([recording], Windows(2.0, overlap=0.5, cross=True))
    assert crossed.sizes["trial"] == 9
    assert data.sizes["trial"] < 9


def test_all_missing_windows_are_left_out_and_counted_or_refused():
    recording = _recording()
    recording.signal[0, 20:40] = np.nan
    data = cut_windows([recording], Windows(2.0, overlap=0.0))
    assert data.attrs["excluded"]["all missing"] == 1
    assert data.sizes["trial"] == 4
    assert np.isfinite(data["signal"]).all()
    with pytest.raises(DataError, match="20 samples are missing"):
        cut_windows([recording], Windows(2.0, overlap=0.0, missing="refuse"))


def test_other_channels_or_rates_are_refused():
    other = Recording(np.ones((1, 9), np.float32), 10.0, ("a",), "odd")
    with pytest.raises(DataError, match="odd: found 1 channels"):
        cut_windows([_recording(), other], Windows())


def test_a_new_file_is_cut_as_the_training_data_was(tmp_path):
    _table().to_csv(tmp_path / "new.csv", index=False)
    train = cut_windows(read_series(tmp_path / "new.csv"), Windows(1.0, overlap=0.5))
    encoder = Mean().fit(as_signal(train))
    codes = encoder.decode(tmp_path / "new.csv")["codes"]
    assert np.allclose(codes, train["signal"].mean("time"))
    assert codes["seen_trial"].all()
    plain = Mean().fit(train["signal"].values)
    with pytest.raises(ContractError, match="--window"):
        plain.decode(tmp_path / "new.csv")


def test_a_whole_series_is_padded_to_the_length_of_training(tmp_path):
    train = cut_windows(from_arrays([np.ones((2, 50)), np.ones((2, 30))], sfreq=10.0), Windows())
    encoder = Mean().fit(as_signal(train.assign_coords(channel=["a", "b"])))
    _table(40).to_csv(tmp_path / "new.csv", index=False)
    read = encoder.read_recording(tmp_path / "new.csv")
    assert read.sizes["time"] == 50
    assert mask_of(as_signal(read)).sum() == 40
    _table(60).to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(ContractError, match="60 samples"):
        encoder.decode(tmp_path / "long.csv")


def test_a_mask_without_a_real_sample_is_refused():
    with pytest.raises(DataError, match="no real sample"):
        mask_of(xr.DataArray(np.ones((1, 1, 3))), np.zeros((1, 3)))


def test_padding_does_not_change_features():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5, 1, 400))
    padded = np.concatenate([X, np.zeros((5, 1, 100))], axis=-1)
    mask = np.arange(500) < np.full((5, 1), 400)
    assert np.allclose(summary_features(X), summary_features(padded, mask))


def test_grouped_accuracy_finds_what_holds_across_groups_only():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=200), np.repeat(np.arange(4), 50)
    noise = rng.standard_normal((200, 3))
    assert min(grouped_accuracy(noise + 8 * y[:, None], y, groups).values()) > 0.95
    assert np.mean(list(grouped_accuracy(noise, y, groups).values())) < 0.65
