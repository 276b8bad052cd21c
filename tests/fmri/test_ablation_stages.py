"""The stages of ablation, imagery and zero-shot: from planted data, and from real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from fmri import ablation_stages
from neuro.blocks import read_sections
from neuro.cli import app
from neuro.errors import DataError, InputError
from neuro.runner.context import RunContext
from neuro.runner.progress import Reporter

INFORMATION = {"Vis": 1.0, "Default": 0.6, "Cont": 0.3, "Limbic": 0.0}
CATEGORIES = list("abcdef")


def brain(imagery: float = 1.0, seed: int = 0) -> xr.Dataset:
    """Trials of items in six categories, and imagery of items that were never seen."""
    rng = np.random.default_rng(seed)
    n_items, n_features, n_imagined = 120, 6, 8
    centre = rng.standard_normal((6, n_features))
    category = np.arange(n_items + n_imagined) % 6
    table = centre[category] + 0.7 * rng.standard_normal((len(category), n_features))
    item = np.concatenate([np.arange(n_items).repeat(2), np.arange(n_items, len(table)).repeat(3)])
    kind = np.where(item < n_items, "perception", "imagery")
    network = np.repeat(list(INFORMATION), 8)
    gain = np.repeat(list(INFORMATION.values()), 8)
    size = np.where(item < n_items, 1.0, imagery)[:, None]
    seen = size * gain * (table[item] @ rng.standard_normal((n_features, 32)))
    signal = seen[:, :, None] + 3 * rng.standard_normal((len(item), 32, 4))
    names = np.array([f"item-{n:03d}" for n in range(len(table))])
    return xr.Dataset(
        {
            "signal": (("trial", "parcel", "time"), signal.astype(np.float32)),
            "target": (("stimulus", "dim"), table.astype(np.float32)),
            "information": ("truth", list(INFORMATION.values())),
        },
        {
            "stimulus": names, "truth": list(INFORMATION), "network": ("parcel", network),
            "item": ("trial", names[item]), "kind": ("trial", kind),
            "category": ("trial", np.array(CATEGORIES)[category[item]]),
            "run": ("trial", np.char.add("run-", (np.arange(len(item)) % 6).astype(str))),
        },
    )  # fmt: skip


@pytest.fixture
def call(tmp_path: Path) -> Any:
    """Run a stage with a real context; return its table, its metrics and its report."""

    def run(function: Any, data: xr.Dataset, encoder: Any = None, **params: Any) -> Any:
        folder = tmp_path / "stage"
        folder.mkdir(exist_ok=True)
        context = RunContext("stage", "key", folder, folder / "scratch", 1, {}, Reporter(False))
        inputs = {} if encoder is None else {"encoder": encoder}
        model = function.stage.params(**params)
        found = function(data, params=model, context=context, **inputs)
        context.finish()
        return found, json.loads((folder / "metrics.json").read_text()), folder

    return run


QUICK = {"n_random": 100, "n_random_retrained": 10, "n_boot": 200}


def test_ablation_is_reported(call):
    table, metrics, folder = call(ablation_stages.ablate, brain(), groups="item", **QUICK)
    assert set(table["how"]) == {"zero", "mean", "retrain"}
    assert metrics["ablation.truth.spearman"]["value"] >= 0.8
    assert metrics["ablation.Vis.drop"]["p_corrected"] < 0.05
    assert metrics["ablation.Limbic.drop"]["p"] > 0.05
    assert metrics["category.whole.accuracy"]["low"] > 1 / 6
    assert "category.whole.over_visual_only" in metrics
    text = report(folder)
    assert "More than random sets of as many parcels cost: Vis" in text


def report(folder: Path) -> str:
    return json.dumps([str(section) for section in read_sections(folder / "report")], default=str)


@pytest.mark.parametrize(("signal", "found"), [(1.0, True), (0.0, False)])
def test_imagery_is_reported(call, signal, found):
    table, metrics, folder = call(ablation_stages.imagery, brain(signal), n_permutations=999)
    assert (metrics["imagery.p"]["value"] <= 0.05) == found
    assert metrics["imagery.statistic"]["n"] == 8
    assert ("That does not show" in report(folder)) != found
    assert table["p"].iloc[0] == metrics["imagery.p"]["value"]


class Fitted:
    """An encoder of the kind that a stage is handed: takes a DataArray, gives embeddings."""

    def __init__(self, data: xr.Dataset, rows: np.ndarray) -> None:
        from sklearn.linear_model import Ridge

        at = {name: n for n, name in enumerate(data["stimulus"].values.tolist())}
        y = data["target"].values[[at[name] for name in data["item"].values[rows].tolist()]]
        self.model = Ridge(30.0).fit(data["signal"].values[rows].mean(2), y)

    def transform(self, X: xr.DataArray) -> xr.DataArray:
        assert X.dims == ("trial", "parcel", "time")
        assert "run" in X.coords
        return xr.DataArray(self.model.predict(X.values.mean(2)), dims=("trial", "feature"))


def test_a_fitted_encoder_is_ablated_on_its_test_part(call):
    data = brain()
    rows = np.flatnonzero(data["kind"].values == "perception")
    test = np.isin(data["item"].values, data["stimulus"].values[:40])
    encoder = Fitted(data, rows[~test[rows]])
    with pytest.raises(InputError, match="would tell nothing"):
        call(ablation_stages.ablate, data, encoder, groups="item", **QUICK)
    data = data.assign_coords(part=("trial", np.where(test, "test", "train")))
    table, metrics, _ = call(ablation_stages.ablate, data, encoder, groups="item", **QUICK)
    assert set(table["how"][table["model"] == "encoder"]) == {"zero", "mean"}
    assert set(table["how"][table["model"] == "linear"]) == {"retrain"}
    assert metrics["ablation.whole"]["n"] == 40
    drops = {name: metrics[f"ablation.{name}.drop"]["value"] for name in INFORMATION}
    assert max(drops, key=lambda name: drops[name]) == "Vis"
    assert metrics["ablation.Vis.drop"]["low"] > 0
    _, metrics, _ = call(ablation_stages.imagery, data, encoder, n_permutations=999)
    assert metrics["imagery.p"]["value"] <= 0.05


def test_categories_left_out_are_reported(call, tmp_path):
    data = brain()
    centre = pd.DataFrame(
        data["target"].values, data["stimulus"].values, [f"x{n}" for n in range(6)]
    )
    kinds = dict(zip(data["item"].values.tolist(), data["category"].values.tolist(), strict=True))
    means = centre.groupby([kinds[name] for name in centre.index]).mean().round(6)
    file = tmp_path / "attributes.csv"
    file.write_text("# source: a test\n" + means.rename_axis("category").to_csv())
    _, metrics, folder = call(
        ablation_stages.zero_shot, data, attributes=file, n_boot=200, n_permutations=200
    )
    assert metrics["zero_shot.pairwise"]["low"] > 0.5
    assert metrics["zero_shot.accuracy"]["chance"] == pytest.approx(1 / 6)
    assert metrics["category.linear.accuracy"]["value"] > 1 / 6
    assert "told apart above chance" in report(folder)


def test_padding_is_not_averaged(call):
    """Blocks padded to twice their length give the numbers of those that are not."""
    data = brain()
    length = np.full(data.sizes["trial"], 4)
    padded = data.pad(time=(0, 4), constant_values={"signal": 0.0})
    padded["signal"][::3, :, 2:] = 0
    length[::3] = 2
    padded["mask"] = ("trial", "time"), np.arange(8) < length[:, None]
    cut = padded.drop_vars("mask")
    settings = {**QUICK, "groups": "item", "how": ["zero"]}
    means = (padded["signal"].sum("time") / padded["mask"].sum("time")).expand_dims(time=1, axis=2)
    tables = [call(ablation_stages.ablate, one, **settings)[0] for one in
              (padded, data.drop_vars("signal").assign(signal=means), cut)]  # fmt: skip
    np.testing.assert_allclose(tables[0]["drop"], tables[1]["drop"], atol=1e-3)
    assert np.abs(tables[0]["drop"] - tables[2]["drop"]).max() > 1e-3


def test_what_is_missing_is_named(call):
    data = brain()
    with pytest.raises(DataError, match="no 'subject'"):
        call(ablation_stages.ablate, data, groups="subject", **QUICK)
    with pytest.raises(DataError, match="32 of 32 parcels have no network"):
        call(ablation_stages.ablate, data.assign_coords(network=("parcel", [""] * 32)), **QUICK)
    with pytest.raises(DataError, match="no trial is of the kind 'dream'"):
        call(ablation_stages.imagery, data, kind="dream")
    with pytest.raises(DataError, match="no 'target'"):
        call(ablation_stages.imagery, data.drop_vars("target"))
    with pytest.raises(InputError, match="has no a, b, c"):
        call(ablation_stages.zero_shot, data)


def test_the_whole_brain_of_haxby(neuro_data, tmp_path):
    """The shipped workflow on the real runs, with few random sets."""
    if not (neuro_data / "fmri-haxby2001").is_dir():
        pytest.skip("NEURO_DATA has no fmri-haxby2001")
    sets = ("ablation.n_random=20", "ablation.how=[zero]", "zero_shot.n_permutations=99")
    words = [word for text in sets for word in ("--set", text)]
    done = CliRunner().invoke(
        app, ["run", "fmri-haxby-whole-brain", "--out", str(tmp_path), *words]
    )
    assert done.exit_code == 0, done.output
    run = tmp_path / "fmri-haxby-whole-brain"
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    assert metrics["category.linear.accuracy"]["value"] == pytest.approx(0.278, abs=0.001)
    assert metrics["category.whole.accuracy"]["value"] == pytest.approx(0.278, abs=0.001)
    for name in ("gray", "white", "hoc", "vt"):
        assert metrics[f"ablation.{name}.drop"]["n"] == 9
    assert metrics["zero_shot.pairwise"]["low"] < 0.5 < metrics["zero_shot.pairwise"]["high"]
    assert "is not shown here" in (run / "report.html").read_text()
