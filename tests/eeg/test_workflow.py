"""The shipped workflow as a user runs it, in a short form; and on real recordings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import neuro
from neuro.data import open_dataset

SHORT = {
    "recordings.simulate.n_subjects": 8,
    "recordings.simulate.n_trials": 12,
    "encoder.max_epochs": 4,
    "encoder.n_latents": 4,
    "encoder.beta": 1,
    "evaluation.n_splits": 2,
    "evaluation.n_shuffles": 40,
    "evaluation.n_boot": 200,
}
FIELDS = {"value", "low", "high", "n", "n_unit", "chance", "p", "p_corrected", "baseline", "unit"}
PREDICTORS = ("denoised", "raw", "lowpass", "linear", "mean2", "mean5", "mean10")


def cli(*args: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "neuro.cli", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def sets(**changed: object) -> list[str]:
    given = {**SHORT, **{key.replace("__", "."): value for key, value in changed.items()}}
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    cli("run", "eeg-beta-vae", "--out", out, *sets())
    return out / "eeg-beta-vae"


def metrics_of(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "metrics.json").read_text())


def test_metrics_have_their_names_and_fields(run: Path) -> None:
    metrics = metrics_of(run)
    assert all(set(entry) == FIELDS for entry in metrics.values())
    wanted = {f"vae.{name}" for name in ("kl_active", "active", "mixed", "passive")}
    for predictor in (*PREDICTORS, "grand_average", "ceiling"):
        wanted |= {f"erp.{predictor}.{n}" for n in ("r", "residual_r", "mse_ratio")}
    for label in ("depressed", "old", "null", "condition"):
        for name in ("beta_vae", "window", "pca", "shuffled"):
            wanted.add(f"classify.{label}.{name}.balanced_accuracy")
            wanted.add(f"classify.{label}.{name}.single_trial.balanced_accuracy")
    assert wanted <= set(metrics)
    assert metrics["erp.grand_average.mse_ratio"]["value"] == pytest.approx(1.0)
    counts = [metrics[f"vae.{name}"]["value"] for name in ("active", "mixed", "passive")]
    assert sum(counts) == 4


def test_shuffled_band_holds_chance(run: Path) -> None:
    for name, entry in metrics_of(run).items():
        if ".shuffled." in name:
            assert entry["low"] <= entry["chance"] <= entry["high"], name


def test_every_subject_is_held_out_once(run: Path) -> None:
    table = pd.read_parquet(run / "predictions.parquet")
    rows = table[table.target == "erp.denoised.r"]
    assert sorted(rows.unit) == sorted(f"sub-{i:02d}" for i in range(1, 9))
    assert rows.fold.nunique() == 2


def test_report_is_whole_and_offline(run: Path) -> None:
    html = (run / "report.html").read_text()
    assert len(html) < 15e6
    for title in ("Recordings", "Preprocessing", "ERPs", "Training", "Latents", "ERP recovery"):
        assert title in html
    assert "@" in html
    assert "Higgins" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']https?://", html)


def test_encoder_of_a_run_is_a_copy_that_loads_and_transforms(run: Path) -> None:
    encoder = neuro.load(run / "encoder")
    assert not (run / "encoder").resolve().is_relative_to((run.parent / ".cache").resolve())
    data = open_dataset(run / "epochs", load=True)
    signal = neuro.data.as_signal(data)
    latents = encoder.transform(signal)
    assert latents.dims == ("trial", "latent")
    assert np.isfinite(latents).all()
    with pytest.raises(neuro.ContractError, match="training data"):
        neuro.encoder.refuse_if_fitted(encoder, signal)


def test_second_run_is_cached_and_changes_run_only_what_follows(run: Path) -> None:
    again = cli("run", "eeg-beta-vae", "--out", run.parent, *sets())
    assert again.stderr.count("cached") + again.stdout.count("cached") == 5
    plan = cli("plan", "eeg-beta-vae", "--out", run.parent, *sets(encoder__beta=2)).stdout
    lines = {line.split("\t")[0]: line for line in plan.splitlines()}
    assert "cached" in lines["epochs"]
    assert "1" in lines["encoder"]
    assert "beta" in lines["encoder"]
    assert "cached" not in lines["evaluation"]


def test_new_files_decode(run: Path, tmp_path: Path) -> None:
    from eeg.preprocess import dataset_to_epochs

    data = open_dataset(run / "epochs", load=True)
    for subject in ("sub-01", "sub-02"):
        part = data.isel(trial=np.flatnonzero(data.subject.values == subject))
        dataset_to_epochs(part).save(tmp_path / f"{subject}_epo.fif", verbose="error")
    (tmp_path / "broken_epo.fif").write_bytes(b"no recording")
    files = sorted(tmp_path.glob("*_epo.fif"))
    done = cli("decode", run / "encoder", *files, "--out", tmp_path / "decoded", ok=False)
    assert done.returncode == 1
    assert "broken_epo.fif" in done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "decoded" / "sub-01_epo.tsv", sep="\t")
    assert len(table) == 24
    again = cli("decode", run / "encoder", *files[1:], "--out", tmp_path / "decoded")
    assert "2" in again.stdout + again.stderr


def test_real_epochs_from_files_to_report(neuro_data: Path, tmp_path: Path) -> None:
    folder = neuro_data / "eeg-alcoholism"
    files = sorted(folder.glob("*_epo.fif"))[::3]
    listed = "[" + ", ".join(map(str, files)) + "]"
    cli(
        "run", "eeg-beta-vae", "--out", tmp_path, *sets(),
        "--set", f"recordings.files={listed}",
        "--set", f"recordings.participants={folder}/participants.tsv",
    )  # fmt: skip
    metrics = metrics_of(tmp_path / "eeg-beta-vae")
    assert metrics["erp.denoised.mse_ratio"]["value"] < metrics["erp.raw.mse_ratio"]["value"]
    assert metrics["classify.condition.beta_vae.single_trial.balanced_accuracy"]["chance"] == (
        pytest.approx(1 / 3)
    )
    encoder = neuro.load(tmp_path / "eeg-beta-vae" / "encoder")
    fresh = next(path for path in sorted(folder.glob("*_epo.fif")) if path not in files)
    assert encoder.transform(fresh).sizes["trial"] <= 30
    other = neuro_data / "eeg-eeglab-sample" / "eeglab_data.set"
    with pytest.raises(neuro.NeuroError, match="eeglab_data"):
        encoder.transform(other)


def test_continuous_csv_with_events_from_files_to_report(neuro_data: Path, tmp_path: Path) -> None:
    runs = neuro_data / "eeg-muse-p300"
    files = [runs / f"sub-0{s}_ses-0{n}_run-01_eeg.csv.gz" for s, n in ((1, 1), (2, 1), (3, 2))]
    listed = "[" + ", ".join(map(str, files)) + "]"
    cli(
        "run", "eeg-muse-p300", "--out", tmp_path, "--until", "evaluation", *sets(),
        "--set", f"recordings.files={listed}",
    )  # fmt: skip
    data = open_dataset(tmp_path / "eeg-muse-p300" / "epochs")
    assert data.channel.values.tolist() == ["TP9", "AF7", "AF8", "TP10"]
    assert set(data.condition.values.tolist()) == {"nontarget", "target"}
    metrics = metrics_of(tmp_path / "eeg-muse-p300")
    assert metrics["erp.denoised.r"]["n"] == 3


def test_a_channel_too_many_is_refused_or_dropped_when_asked(run: Path, tmp_path: Path) -> None:
    from eeg.preprocess import dataset_to_epochs

    data = open_dataset(run / "epochs", load=True)
    epochs = dataset_to_epochs(data.isel(trial=slice(0, 5)))
    more = epochs.copy().pick(["Cz"]).rename_channels({"Cz": "AFz"})
    path = tmp_path / "sub-99_epo.fif"
    epochs.add_channels([more], force_update_info=True).save(path, verbose="error")
    refused = cli("decode", run / "encoder", path, "--out", tmp_path / "a", ok=False)
    assert refused.returncode == 1
    assert "AFz" in refused.stdout + refused.stderr
    cli("decode", run / "encoder", path, "--out", tmp_path / "b", "--align")
    assert len(pd.read_csv(tmp_path / "b" / "sub-99_epo.tsv", sep="\t")) == 5
