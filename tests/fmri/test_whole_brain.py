"""The whole-brain encoder: fit, saving, new runs from files, what is refused."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import neuro
from fmri.brain_reading import Reading
from fmri.parcel_blocks import join_blocks
from fmri.whole_brain import WholeBrain, WholeBrainOptions
from neuro.errors import ContractError, DataError, InputError

P, T, ITEMS = 12, 4, 60
AFFINE = np.diag([4.0, 4, 4, 1])


def blocks(n=180, noise=0.5, seed=0):
    """Parcels that follow the embedding of the item."""
    rng = np.random.default_rng([5, 1])
    table, weights = rng.normal(size=(ITEMS, 5)), rng.normal(size=(5, P))
    kinds, rows = (table[:, 0] > 0) + 2 * (table[:, 1] > 0), np.arange(n) % ITEMS
    rng = np.random.default_rng(seed)
    course = np.array([0.4, 1.0, 0.8, 0.3])
    signal = (table[rows] @ weights)[..., None] * course + rng.normal(0, noise, (n, P, T))
    length = np.where(rows % 5 == 0, T - 1, T)
    signal[length == T - 1, :, -1] = 0
    return xr.Dataset(
        {
            "signal": (("trial", "parcel", "time"), signal.astype(np.float32)),
            "target": (("name", "feature"), table.astype(np.float32)),
            "text_target": (("name", "word"), table[:, ::-1][:, :4].astype(np.float32)),
        },
        {
            "item": ("trial", [f"item-{n}" for n in rows]),
            "name": [f"item-{n}" for n in range(ITEMS)],
            "category": ("trial", [f"c{n}" for n in kinds[rows]]),
            "part": ("trial", np.where(rows < 45, "train", "test")),
            "length": ("trial", length),
            "parcel": [f"p{n}" for n in range(P)],
            "network": ("parcel", ["Vis", "Default"] * (P // 2)),
            "time": np.arange(T) * 2.0,
            **{axis: ("parcel", rng.normal(0, 40, P)) for axis in "xyz"},
        },
        {"t_r": 2.0, "units": "a.u."},
    )


@pytest.fixture(scope="module")
def fitted():
    return WholeBrain("linear", max_epochs=30, prior=True, prior_max_epochs=2).fit(blocks())


def test_items_that_were_never_seen_are_found(fitted):
    data = blocks(seed=7)
    test = data.isel(trial=np.flatnonzero(data["part"] == "test"))
    found = fitted.predict(test)
    target = data["target"].values / np.linalg.norm(data["target"].values, axis=1, keepdims=True)
    best = (found.values @ target.T).argmax(1)
    assert (data["name"].values[best] == test["item"].values).mean() > 0.4  # of 60
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found.dims == ("trial", "feature")
    assert fitted.predict_text(test).shape == (len(test.trial), 4)
    assert fitted.predict_tokens(test).dims == ("trial", "token", "feature")
    assert fitted.embed(test).shape == (len(test.trial), 1, 5)
    assert set(fitted.predict_category(test).values) <= {"c0", "c1", "c2", "c3"}


@pytest.mark.parametrize("encoder", ["causal", "masked", "volumetric", "linear"])
def test_saved_encoders_predict_the_same(encoder, tmp_path):
    data = blocks()
    model = WholeBrain(encoder, max_epochs=1, prior=encoder == "linear", prior_max_epochs=1)
    model.fit(data)
    model.save(tmp_path / "encoder")
    other = neuro.load(tmp_path / "encoder")
    for name in ("transform", "predict", "predict_text", "predict_category"):
        mine, theirs = getattr(model, name)(data), getattr(other, name)(data)
        assert np.array_equal(mine, theirs), name
    assert other.seen(data).trials.tolist() == (data["part"].values == "train").tolist()


def test_blocks_of_another_length_and_order_are_read_alike(fitted):
    data = blocks()
    longer = data.pad(time=(0, 3), constant_values={"signal": 0}).assign_coords(
        time=np.arange(T + 3) * 2.0
    )
    np.testing.assert_allclose(fitted.predict(longer), fitted.predict(data), atol=1e-5)
    turned = data.isel(parcel=slice(None, None, -1))
    np.testing.assert_allclose(fitted.predict(turned), fitted.predict(data), atol=1e-5)


def test_the_form_that_ablations_use_keeps_lengths(fitted):
    data = blocks()
    signal = data["signal"].transpose("trial", "parcel", "time")
    np.testing.assert_allclose(fitted.predict(signal), fitted.predict(data), atol=1e-6)


def test_categories_alone_are_targets():
    data = blocks()
    model = WholeBrain("linear", max_epochs=60).fit(
        data.drop_vars(["target", "text_target", "category"]), data["category"].values
    )
    seen = data.isel(trial=np.flatnonzero(data["part"] == "train"))
    assert (model.predict_category(seen).values == seen["category"].values).mean() > 0.7
    assert model.categories_ == ["c0", "c1", "c2", "c3"]


def test_what_can_not_be_used_is_said(fitted):
    data = blocks()
    with pytest.raises(DataError, match=r"1 of 45 items have no target: item-3"):
        WholeBrain("linear").fit(data, data["target"].drop_sel(name="item-3"))
    with pytest.raises(DataError, match=r"1 of 45 items have no text: item-0"):
        WholeBrain("linear").fit(data, text=data["text_target"][1:])
    with pytest.raises(InputError, match="prompts="):
        WholeBrain("linear").fit(data, text={f"item-{n}": "a thing" for n in range(ITEMS)})
    with pytest.raises(ContractError, match=r"2.5 s, expected 2 s"):
        fitted.predict(data.assign_attrs(t_r=2.5))
    with pytest.raises(ContractError, match="parcels missing: p11"):
        fitted.predict(data.isel(parcel=slice(0, P - 1)))
    broken = data.copy(deep=True)
    broken["signal"][3, 2, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        fitted.predict(broken)
    empty = data.assign_coords(length=("trial", np.zeros(180, int)))
    with pytest.raises(DataError, match="no recorded volume"):
        fitted.predict(empty)
    with pytest.raises(InputError, match="one of causal, masked"):
        WholeBrain("transformer").fit(data)
    few = data.assign_coords(item=("trial", np.array(["item-0", "item-1"])[np.arange(180) % 2]))
    with pytest.raises(DataError, match="2 items are too few"):
        WholeBrain("linear").fit(few)


# New runs -------------------------------------------------------------------------------------


def atlas_image(shape=(6, 6, 4), affine=AFFINE):
    values = (np.arange(np.prod(shape)) % (P + 1)).reshape(shape).astype(np.int16)
    return nibabel.Nifti1Image(values, affine)


def write_run(folder, run, n=40, affine=AFFINE, t_r=2.0, events=True, shape=(6, 6, 4)):
    rng = np.random.default_rng(run)
    image = nibabel.Nifti1Image(rng.normal(1000, 20, (*shape, n)).astype(np.float32), affine)
    image.header.set_zooms((4, 4, 4, t_r))
    path = folder / f"sub-01_task-see_run-{run}_bold.nii.gz"
    nibabel.save(image, path)
    if events:
        rows = {"onset": 4.0 + 8 * np.arange(8), "duration": 2.0,
                "stimulus": [f"item-{n}" for n in range(8)]}  # fmt: skip
        table = folder / f"sub-01_task-see_run-{run}_events.tsv"
        pd.DataFrame(rows).to_csv(table, sep="\t", index=False)
    return path


@pytest.fixture
def reader(tmp_path):
    names = pd.DataFrame({"index": range(1, P + 1), "name": [f"p{n}" for n in range(P)],
                          "network": ["Vis", "Default"] * (P // 2)})  # fmt: skip
    reading = Reading.of(atlas_image(), names, tmin=2.0, tmax=10.0)
    paths = [write_run(tmp_path, run) for run in (1, 2)]
    data = join_blocks([
        reading.blocks(reading.series(path), str(path).replace("bold.nii.gz", "events.tsv"))
        for path in paths
    ])  # fmt: skip
    table = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    data = data.assign(target=(("name", "feature"), table)).assign_coords(
        name=[f"item-{n}" for n in range(8)]
    )
    model = WholeBrain("masked", max_epochs=1).fit(reading.into(data))
    model.save(tmp_path / "encoder")
    return neuro.load(tmp_path / "encoder"), data, tmp_path


def test_new_runs_are_read_as_those_of_the_training(reader):
    model, data, folder = reader
    known = model.decode(folder / "sub-01_task-see_run-1_bold.nii.gz")
    np.testing.assert_allclose(known["embedding"], model.predict(data)[:8], atol=1e-5)
    assert known["seen_trial"].values.all()
    assert known.attrs["note"].startswith("8 blocks of sub-01_task-see_run-1_events.tsv")
    new = model.decode(write_run(folder, 5))
    assert not new["seen_trial"].values.any()
    assert new["embedding"].shape == (8, 3)
    assert new["codes"].sizes["latent"] == model.n_latents
    assert new["item"].values.tolist() == [f"item-{n}" for n in range(8)]
    assert model.companions(folder / "sub-01_task-see_run-5_bold.nii.gz")


def test_runs_without_events_are_cut_into_windows(reader):
    model, _, folder = reader
    path = write_run(folder, 6, n=21, events=False)
    found = model.decode(path)
    assert found["onset"].values.tolist() == [0.0, 8.0, 16.0, 24.0, 32.0, 34.0]
    assert "6 windows of 4 volumes, no events" in found.attrs["note"]
    with pytest.raises(DataError, match="3 volumes, shorter than the window of 4"):
        model.decode(write_run(folder, 7, n=3, events=False))


def test_runs_of_another_space_or_rate_are_refused(reader):
    model, _, folder = reader
    far = AFFINE.copy()
    far[:3, 3] = 900
    with pytest.raises(DataError, match="different spaces"):
        model.decode(write_run(folder, 8, affine=far))
    with pytest.raises(ContractError, match=r"3 s, expected 2 s"):
        model.decode(write_run(folder, 9, t_r=3.0, n=30))
    with pytest.raises(DataError, match="outside of the run of 3 volumes"):
        model.decode(write_run(folder, 10, n=3))


def test_missing_parcels_stand_at_their_mean_when_asked(reader):
    model, data, _ = reader
    less = data.drop_sel(parcel="p3")
    X = model.align(less, fill=True)
    assert X["parcel"].values.tolist() == data["parcel"].values.tolist()
    np.testing.assert_allclose(X.sel(parcel="p3"), model.standardizer_.mean[3], atol=1e-6)
    with pytest.raises(ContractError, match="p3"):
        model.align(less)


def test_decode_on_the_command_line(reader):
    from typer.testing import CliRunner

    from neuro.cli import app

    folder = reader[2]
    path = write_run(folder, 11)
    words = ["decode", str(folder / "encoder"), str(path), "--out", str(folder / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(folder / "out" / "sub-01_task-see_run-11_bold.tsv", sep="\t")
    assert len(table) == 8
    assert "item" in table


def test_atlases_that_are_not_kept_are_asked_for(tmp_path):
    maps = nibabel.Nifti1Image(np.random.default_rng(0).random((6, 6, 4, 3), np.float32), AFFINE)
    nibabel.save(maps, tmp_path / "maps.nii.gz")
    reading = Reading.of(tmp_path / "maps.nii.gz")
    assert reading.kind == "file"
    again = Reading.from_parts(json.loads(json.dumps(reading.to_dict())), None)
    path = write_run(tmp_path, 1)
    with pytest.raises(ContractError, match="--atlas"):
        again.series(path)
    series = again.series(path, atlas=tmp_path / "maps.nii.gz")
    assert series.sizes["parcel"] == 3
    assert {"x", "y", "z"} <= set(series.coords)
    assert WholeBrainOptions().events is None
