"""The stages of whole-brain decoding on a small simulated brain, and the shipped workflow."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fmri import ablation_stages
from fmri import whole_brain_stages as stages
from fmri.brain_series import blocks_in, windows_in
from fmri.brain_study import score_ablation
from fmri.few_labels import draw_few
from fmri.simulate_whole_brain import simulate_whole_brain
from fmri.simulate_whole_brain_export import export_runs
from neuro.cli import app
from neuro.errors import DataError

SMALL = {"n_other": 20, "n_trials": 24, "n_train_runs": 6, "n_test_runs": 2,
         "n_unlabelled_runs": 2, "n_rest_runs": 1, "n_imagery_runs": 1, "n_prompts": 6}  # fmt: skip


@pytest.fixture(scope="module")
def data(call, tmp_path_factory):
    return call(tmp_path_factory.mktemp("series"), stages.series, simulate=SMALL)[0]


@pytest.fixture(scope="module")
def pretrained(call, data, tmp_path_factory):
    return call(tmp_path_factory.mktemp("pre"), stages.pretrain, data, max_epochs=2)


@pytest.fixture(scope="module")
def encoder(call, data, pretrained, tmp_path_factory):
    inputs = {"pretrained": pretrained[0]}
    return call(tmp_path_factory.mktemp("align"), stages.align, data, inputs=inputs,
                max_epochs=30)[0]  # fmt: skip


def test_pretraining_sees_windows_alone(data, pretrained):
    model, metrics = pretrained
    assert metrics["pretrain.loss"]["value"] > 0
    windows = int(np.isin(data["kind"].values, ["unlabelled", "rest"]).sum())
    assert model.fitted_on_ is not None
    assert not model.seen(blocks_in(data)).trials.any()
    assert model.seen(blocks_in(data, ("unlabelled", "rest"))).trials.sum() == windows
    with pytest.raises(DataError, match="nothing to pretrain on"):
        windows_in(blocks_in(data))


def test_decoding_is_scored_beside_linear_models_and_shuffles(call, data, encoder, tmp_path):
    table, metrics = call(tmp_path, stages.evaluate, data, encoder, n_shuffles=5, n_boot=200)
    for name in ("encoder", "linear", "shuffled"):
        assert metrics[f"category.{name}.accuracy"]["chance"] == pytest.approx(1 / 8)
    assert metrics["category.linear.accuracy"]["low"] > 1 / 8
    assert metrics["category.encoder.accuracy"]["value"] > 1 / 8
    shuffled = metrics["category.shuffled.accuracy"]
    assert shuffled["low"] < 1 / 8 + 0.05
    assert metrics["retrieval.encoder.pairwise"]["low"] > 0.5
    assert metrics["retrieval.shuffled.pairwise"]["low"] < 0.5
    assert metrics["retrieval.text.pairwise"]["value"] > 0.5
    assert metrics["category.encoder.4_way"]["chance"] == 0.25
    assert len(table) > 10
    seen = blocks_in(data)
    test = seen.isel(trial=np.flatnonzero(seen["part"].values == "test"))
    assert not encoder.seen(test).trials.any()


def test_without_a_split_every_run_is_decoded_by_one_that_did_not_see_it(
    call, data, encoder, pretrained, tmp_path, monkeypatch
):
    from fmri import brain_evaluation

    seen = data["kind"].values == "perception"
    keep = (seen & np.isin(data["run"].values, ["run-01", "run-02", "run-03"])) | np.isin(
        data["kind"].values, ["unlabelled"]
    )
    few = data.isel(trial=np.flatnonzero(keep)).drop_vars("part")
    trained, fit = [], brain_evaluation.refit

    def watch(*args):
        model = fit(*args)
        trained.append(model)
        return model

    monkeypatch.setattr(brain_evaluation, "refit", watch)
    inputs = {"pretrained": pretrained[0].set_params(max_epochs=1)}
    _, metrics = call(tmp_path, stages.evaluate, few, encoder.set_params(max_epochs=2),
                          inputs=inputs, n_boot=200, C=0.01)  # fmt: skip
    assert metrics["category.encoder.accuracy"]["n"] == 3
    assert metrics["category.encoder.accuracy"]["n_unit"] == "run"
    blocks = blocks_in(few, ("perception",))
    runs = blocks["run"].values
    unseen = [set(runs[~model.seen(blocks).trials]) for model in trained]
    assert sorted(map(list, unseen)) == [["run-01"], ["run-02"], ["run-03"]]
    assert all((~m.seen(blocks).trials).sum() == (runs == "run-01").sum() for m in trained)


def test_few_labels_are_few_and_balanced(data):
    few = draw_few(blocks_in(data, ("perception",)), 0.25, 0)
    assert set(few["part"].values) == {"train"}
    counts = np.unique(few["category"].values, return_counts=True)[1]
    assert counts.tolist() == [4] * 8  # a quarter of 144, by category
    with pytest.raises(DataError, match="training needs 8"):
        draw_few(blocks_in(data).isel(trial=slice(0, 12)), 0.01, 0)


def test_the_gain_of_pretraining_is_reported(call, data, encoder, pretrained, tmp_path):
    encoder = encoder.set_params(max_epochs=3)
    table, metrics = call(tmp_path, stages.few_labels, data, encoder, pretrained[0], n_draws=1,
                          share=0.5, n_boot=200)  # fmt: skip
    assert len(table) == 48
    gain = metrics["pretrain.gain"]
    expected = table.groupby("item")[["pretrained", "scratch"]].mean().mean()
    assert gain["value"] == pytest.approx(expected["pretrained"] - expected["scratch"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    whole = data.drop_vars("part")
    with pytest.raises(DataError, match="what is for training"):
        call(tmp_path / "no", stages.few_labels, whole, encoder, pretrained[0])
    table, metrics = call(tmp_path / "say", stages.few_labels, whole, encoder, pretrained[0],
                          optional=True)  # fmt: skip
    assert len(table) == 0
    assert "pretrain.gain" not in metrics


def test_imagery_follows_its_signal_and_repeats(call, data, encoder, tmp_path):
    _, metrics = call(tmp_path, ablation_stages.imagery, data, inputs={"encoder": encoder},
                      n_permutations=999)  # fmt: skip
    assert metrics["imagery.statistic"]["n"] == 6  # prompts, not their 24 trials
    seen = data.isel(trial=np.flatnonzero(data["kind"].values == "perception"))
    with pytest.raises(DataError, match="no trial is of the kind 'imagery'"):
        call(tmp_path / "none", ablation_stages.imagery, seen)
    table, metrics = call(tmp_path / "no", ablation_stages.imagery, seen, optional=True)
    assert len(table) == 0
    assert "imagery.p" not in metrics
    imagined = data["item"].values[data["kind"].values == "imagery"][0]
    lacking = data.sel(shown=data["shown"].values[data["shown"].values != imagined])
    with pytest.raises(DataError, match=f"no embedding: {imagined}"):
        call(tmp_path / "lack", ablation_stages.imagery, lacking, inputs={"encoder": encoder})


def test_networks_rank_as_planted_with_linear_models(call, data, tmp_path):
    table, metrics = call(tmp_path, ablation_stages.ablate, data, how=["zero"], groups="item",
                          n_random=60, n_boot=200, C=None)  # fmt: skip
    assert metrics["ablation.truth.spearman"]["value"] >= 0.8
    assert "ablation.none.drop" not in metrics
    assert metrics["category.whole.over_without_visual"]["value"] > 0
    assert score_ablation(table)["spearman"] == metrics["ablation.truth.spearman"]["value"]
    every = dict.fromkeys(["network"], ("parcel", ["none"] * data.sizes["parcel"]))
    with pytest.raises(DataError, match="are of the network none"):
        call(tmp_path / "all", ablation_stages.ablate, data.assign_coords(every))
    # An atlas may have a network of that name.
    table, metrics = call(tmp_path / "named", ablation_stages.ablate, data, how=["zero"],
                          no_network="", groups="item", n_random=20, n_boot=200)  # fmt: skip
    assert "none" in set(table["network"])


def study_tables(spearman: bool = True) -> list[pd.DataFrame]:
    drops = [0.3, 0.2, 0.0] if spearman else [0.0, 0.2, 0.3]
    return [
        pd.DataFrame({"how": "zero", "network": list("abc"), "drop": drops, "p": [0.01, 0.02, 0.5],
                      "random_low": -0.1, "random_high": 0.1, "information": [1.0, 0.5, 0.0]})
        for _ in range(3)
    ]  # fmt: skip


def test_brains_are_pooled(call, tmp_path):
    rng = np.random.default_rng(0)
    gains = []
    for gain in (0.1, 0.2, 0.3):
        right = rng.random(40)
        one = {m: right + (gain if m == "pretrained" else 0) for m in
               ("pretrained", "scratch", "linear")}  # fmt: skip
        gains.append(pd.DataFrame({"item": np.arange(40) // 2, **one,
                                   **{f"{k}_identified": v for k, v in one.items()}}))  # fmt: skip
    imagery = [pd.DataFrame({"statistic": [0.1], "p": [p]}) for p in (0.01, 0.02, 0.4)]
    _, metrics = call(tmp_path, stages.study, study_tables(), gains, imagery)
    assert metrics["study.spearman"]["value"] == 1
    assert metrics["study.null_inside"]["value"] == 1
    assert metrics["study.pretrain.gain"]["value"] == pytest.approx(0.2)
    assert metrics["study.pretrain.gain"]["n"] == 3
    assert metrics["study.imagery.significant"]["value"] == pytest.approx(2 / 3)
    assert score_ablation(study_tables(False)[0])["spearman"] == -1
    with pytest.raises(DataError, match="one of each"):
        call(tmp_path / "less", stages.study, study_tables(), gains[:2], imagery)


SETS = (
    "scans.simulate.n_other=20", "scans.simulate.n_trials=16", "scans.simulate.n_train_runs=4",
    "scans.simulate.n_test_runs=2", "scans.simulate.n_unlabelled_runs=1",
    "scans.simulate.n_rest_runs=1", "scans.simulate.n_imagery_runs=1",
    "scans.simulate.n_prompts=6", "pretrained.max_epochs=1", "encoder.max_epochs=4",
    "evaluation.n_shuffles=2", "ablation.n_random=20", "ablation.n_random_retrained=5",
    "few_labels.n_draws=1", "few_labels.share=0.5", "zero_shot.n_permutations=99",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = [word for text in SETS for word in ("--set", text)]
    done = CliRunner().invoke(app, ["run", "fmri-whole-brain", "--out", str(folder), *words])
    assert done.exit_code == 0, done.output
    return folder / "fmri-whole-brain"


def test_the_shipped_workflow_writes_all_numbers(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics = metrics.get("metrics", metrics)
    names = [
        *(f"category.{k}.accuracy" for k in ("encoder", "linear", "shuffled", "whole",
                                             "visual_only", "without_visual")),
        "zero_shot.accuracy", "ablation.Vis.drop", "ablation.SomMot.drop", "ablation.random.drop",
        "ablation.truth.spearman", "imagery.statistic", "imagery.p", "pretrain.gain",
    ]  # fmt: skip
    assert not [name for name in names if name not in metrics]
    text = (run / "report.html").read_text()
    titles = ("A simulated brain", "Pretraining", "Alignment", "Decoding", "Few labels",
              "What networks contribute", "Imagery", "Categories that were left out")  # fmt: skip
    for words in titles:
        assert words in text, words


def test_the_encoder_of_the_run_decodes_new_runs(run, tmp_path):
    """What the workflow saved reads NIfTI runs of the same brain."""
    settings = {
        text.split("=")[0].rsplit(".", 1)[1]: int(text.split("=")[1])
        for text in SETS if text.startswith("scans.")
    }  # fmt: skip
    export_runs(simulate_whole_brain(seed=0, **settings), tmp_path / "new", kinds=["imagery"])
    words = ["decode", str(run / "encoder"), *map(str, (tmp_path / "new").glob("*_bold.nii.gz")),
             "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(next((tmp_path / "out").glob("sub-01*.tsv")), sep="\t")
    assert len(table) == 16
    assert set(table["item"]) <= {f"item-{n:04d}" for n in range(300)}
