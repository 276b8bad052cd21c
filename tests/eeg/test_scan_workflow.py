"""The SCAN workflows as a user runs them, in a short form: run, decode, re-map, bad input."""

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
from eeg import parts
from eeg.scan import encoder_hash
from eeg.simulate import simulate_cohort
from neuro.data import open_dataset, save_dataset
from neuro.errors import ContractError, DataError, InputError

N_SUBJECTS = 24
SHORT = {
    "recordings.simulate.n_subjects": N_SUBJECTS,
    "recordings.simulate.n_trials": 6,
    "train.test_size": 0.4,
    "test.test_size": 0.4,
    "candidates.sweep.beta": "[0.5, 1]",
    "candidates.sweep.seed": "[0, 1]",
    "candidates.max_epochs": 6,
    "candidates.n_latents": 4,
    "scan.max_epochs": 4,
    "evaluation.n_splits": 2,
    "evaluation.n_shuffles": 20,
    "evaluation.n_boot": 100,
}
LABELS = ("depressed", "old", "null")


def cli(*args: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "neuro.cli", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def sets(given: dict[str, object]) -> list[str]:
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


def metrics_of(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "metrics.json").read_text())


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    cli("run", "eeg-scan", "--out", out, *sets(SHORT))
    return out / "eeg-scan"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New labels: one participant is nobody's, one participant has none."""
    names = [f"sub-{i:02d}" for i in range(1, N_SUBJECTS)] + ["sub-77"]
    rows = pd.DataFrame({"participant_id": names})
    rows["handed"] = ["left", "right"] * (len(rows) // 2)
    rows["score"] = np.arange(len(rows)) % 12
    rows["empty"] = "n/a"
    path = tmp_path_factory.mktemp("labels") / "new_labels.tsv"
    rows.to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture(scope="module")
def remap(run: Path, table: Path) -> tuple[Path, str]:
    done = cli(
        "run", "eeg-remap", "--out", run.parent,
        *sets({"encoder": run / "encoder", "labels": table, "scan.max_epochs": 4}),
    )  # fmt: skip
    return run.parent / "eeg-remap", done.stdout + done.stderr


def test_metrics_have_the_names_that_are_promised(run: Path) -> None:
    wanted = {"udr.lasso.best", "udr.spearman.best", "remap.seconds"}
    for label in LABELS:
        wanted |= {f"scan.{label}.{name}" for name in ("latent", "distance", "specificity", "p")}
        for name in ("window", "erp", "pca", "autoencoder", "beta_vae", "scan", "shuffled"):
            wanted |= {f"classify.{label}.{name}.{m}" for m in ("balanced_accuracy", "auc")}
        for name in ("scan", "beta_vae", "window"):
            wanted |= {f"heldout.{label}.{name}.{m}" for m in ("balanced_accuracy", "auc")}
    wanted |= {"scan.and.r", "scan.ignore.r", "factor.lpp_gain.spearman"}
    wanted |= {"heldout.factor.lpp_gain.spearman", "erp.denoised.residual_r"}
    metrics = metrics_of(run)
    assert wanted <= set(metrics), wanted - set(metrics)
    latents = [metrics[f"scan.{label}.latent"]["value"] for label in LABELS]
    assert all(latent is None or 0 <= latent < 4 for latent in latents)


def test_nobody_is_on_both_sides(run: Path) -> None:
    train, test = (
        set(open_dataset(run / part).subject.values.tolist()) for part in ("train", "test")
    )
    assert not train & test
    assert len(train | test) == N_SUBJECTS
    assert len(test) == pytest.approx(0.4 * N_SUBJECTS, abs=2)
    for name in ("encoder", "scan"):
        encoder = neuro.load(run / name)
        data = neuro.data.as_signal(open_dataset(run / "epochs", load=True))
        seen = encoder.seen(data).subjects
        assert set(data.subject.values[seen].tolist()) == train


def test_report_shows_choice_map_and_imagined_labels_offline(run: Path) -> None:
    html = (run / "report.html").read_text()
    assert len(html) < 15e6
    for title in ("Model selection", "Labels and latents", "What a label looks like"):
        assert title in html
    assert "Higgins" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']https?://", html)


def test_scan_holds_the_chosen_encoder(run: Path) -> None:
    chosen, scan = neuro.load(run / "encoder"), neuro.load(run / "scan")
    assert scan.encoder_hash_ == encoder_hash(chosen)
    erp = scan.imagine({"depressed": "yes"}, n=3)
    assert erp.signal.sizes["sample"] == 3
    with pytest.raises(InputError, match=r"depresed.*did you mean 'depressed'"):
        scan.imagine({"depresed": "yes"})
    with pytest.raises(InputError, match=r"'maybe'.*'no', 'yes'"):
        scan.imagine({"depressed": "maybe"})


def test_new_files_decode_to_probabilities_and_denoised_erps(run: Path, tmp_path: Path) -> None:
    from eeg.preprocess import dataset_to_epochs

    data = open_dataset(run / "test", load=True)
    names = sorted(set(data.subject.values.tolist()))[:2]
    for name in names:
        part = data.isel(trial=np.flatnonzero(data.subject.values == name))
        dataset_to_epochs(part).save(tmp_path / f"{name}_epo.fif", verbose="error")
    out = tmp_path / "decoded"
    cli("decode", run / "scan", *sorted(tmp_path.glob("*_epo.fif")), "--out", out)
    rows = pd.read_csv(out / f"{names[0]}_epo.tsv", sep="\t")
    columns = [c for c in rows if "depressed=" in c]
    assert len(columns) == 2
    assert np.allclose(rows[columns].sum(axis=1), 1, atol=1e-6)
    assert rows[columns].nunique().max() == 1, "one probability for the participant"
    found = open_dataset(out / f"{names[0]}_epo.zarr")
    assert found["erp"].dims == ("participant", "condition", "channel", "time")
    assert found["condition"].values.tolist() != []
    assert np.isfinite(found["erp"]).all()
    assert found["denoised"].dims == ("trial", "channel", "time")
    assert not found["seen_subject"].values.any()


def test_remapping_leaves_the_encoder_alone(run: Path, remap: tuple[Path, str]) -> None:
    folder, _ = remap
    old, new = neuro.load(run / "encoder"), neuro.load(folder / "scan")
    assert new.encoder_hash_ == encoder_hash(old) == neuro.load(run / "scan").encoder_hash_
    weights = "model.safetensors"
    assert content(run / "encoder")[weights] == content(folder / "frozen")[weights]
    assert new.symbols_.labels == ["handed", "score"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["stages"]["frozen"]["files"]
    for text in ((folder / "report.html").read_text(), (folder / "methods.md").read_text()):
        assert new.encoder_hash_ in text
    metrics = metrics_of(folder)
    assert metrics["remap.seconds"]["unit"] == "s"
    assert {"scan.handed.latent", "heldout.handed.scan.balanced_accuracy"} <= set(metrics)


def test_remapping_tests_those_whom_the_encoder_never_saw(
    run: Path, remap: tuple[Path, str]
) -> None:
    for part in ("train", "test"):
        one, other = (open_dataset(folder / part) for folder in (run, remap[0]))
        assert set(one.subject.values.tolist()) == set(other.subject.values.tolist())


def test_unknown_participants_and_empty_labels_are_listed(remap: tuple[Path, str]) -> None:
    said = remap[1]
    assert re.search(rf"do not know the subjects \S*{N_SUBJECTS}", said)
    assert re.search(r"participants without trials: \S*77", said)
    assert "'empty' is left out" in said
    assert "missing for every participant" in said


def test_remapping_without_labels_says_how(run: Path) -> None:
    done = cli("run", "eeg-remap", "--out", run.parent, ok=False)
    assert done.returncode == 2
    assert "--set labels=" in done.stderr + done.stdout


def test_trials_of_another_montage_are_refused(run: Path, table: Path, tmp_path: Path) -> None:
    other = simulate_cohort(4, 2, channels=("Fz", "Cz"), sfreq=64.0, truth=False)
    save_dataset(other, tmp_path / "epochs")
    done = cli(
        "run", "eeg-remap", "--out", tmp_path / "runs", "--until", "trials",
        *sets({"encoder": run / "encoder", "labels": table, "epochs": tmp_path / "epochs"}),
        ok=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "channel" in done.stderr + done.stdout


def test_strangers_tables_and_names_in_use_are_refused(tmp_path: Path) -> None:
    data = simulate_cohort(4, 2, channels=("Fz", "Cz", "Pz"), sfreq=64.0, truth=False)
    strangers = pd.DataFrame({"participant_id": ["x", "y"], "ill": ["yes", "no"]})
    with pytest.raises(DataError, match="none of the participants"):
        parts.relabel(data, strangers)
    taken = pd.DataFrame({"participant_id": ["sub-01"], "condition": ["a"]})
    with pytest.warns(UserWarning, match="do not know"), pytest.raises(InputError, match="rename"):
        parts.relabel(data, taken)
    torn = pd.DataFrame({"participant_id": ["sub-01", "sub-01"], "ill": ["yes", "no"]})
    with pytest.raises(DataError, match=r"\b(sub-)?01\b"):
        parts.relabel(data, torn)


def test_relabelling_replaces_all_old_labels() -> None:
    data = simulate_cohort(4, 2, channels=("Fz", "Cz", "Pz"), sfreq=64.0, truth=False)
    names = sorted(set(data.subject.values.tolist()))
    fresh = parts.relabel(data, pd.DataFrame({"subject": names, "age": [20.0, 30, 40, None]}))
    assert fresh.attrs["labels"] == ["age"]
    assert "depressed" not in fresh.coords
    assert np.isnan(fresh.age.values[data.subject.values == names[3]]).all()
    assert (fresh.age.values[data.subject.values == names[1]] == 30).all()


@pytest.mark.parametrize("seed", range(5))
def test_split_is_a_partition_of_participants_balanced_over_labels(seed: int) -> None:
    data = simulate_cohort(40, 1, channels=("Fz", "Cz"), sfreq=32.0, truth=False, seed=seed)
    train, test = parts.split_participants(data, test_size=0.3, seed=seed)
    subject = data.subject.values
    assert not set(subject[train]) & set(subject[test])
    assert sorted([*train, *test]) == list(range(len(subject)))
    for label in ("depressed", "old", "null"):
        shares = [np.mean(data[label].values[rows] == "yes") for rows in (train, test)]
        assert abs(shares[0] - shares[1]) < 0.2


def test_overlap_and_known_people_are_refused(run: Path) -> None:
    train, test = (open_dataset(run / part) for part in ("train", "test"))
    parts.refuse_overlap(train, test)
    with pytest.raises(ContractError, match="in the training and in the test part"):
        parts.refuse_overlap(train, train)
    encoder = neuro.load(run / "encoder")
    parts.refuse_known(encoder, test)
    with pytest.raises(ContractError, match="training data"):
        parts.refuse_known(encoder, train)
    with pytest.raises(InputError, match="nobody is left"):
        parts.split_as_trained(train, encoder)
    assert parts.split_as_trained(test, encoder) is None


def test_labels_that_make_no_symbols_are_excluded_with_the_reason() -> None:
    data = simulate_cohort(12, 1, channels=("Fz", "Cz"), sfreq=32.0, truth=False)
    subject = data.subject.values
    columns = {"same": np.full(len(subject), "a"), "gone": np.full(len(subject), ""),
               "remark": subject, "old": data.old.values}  # fmt: skip
    data = data.assign_coords({k: ("trial", v) for k, v in columns.items()})
    names, excluded = parts.usable_labels(data.assign_attrs(labels=list(columns)))
    assert names == ["old"]
    reasons = {row["label"]: row["reason"] for row in excluded}
    assert "nothing to tell apart" in reasons["same"]
    assert "missing for every" in reasons["gone"]
    assert "12 different values" in reasons["remark"]
    with pytest.raises(InputError, match="no label ill"):
        parts.usable_labels(data, ["ill"])


def test_stacked_conditions_go_through_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "stacked.yaml").write_text(
        """
version: 1
name: stacked
stages:
  recordings: {use: eeg-recordings, simulate: {n_subjects: 12, n_trials: 3}}
  epochs: {use: eeg-epochs, each: "${recordings}", resample: 32}
  stacked: {use: eeg-stack, epochs: "${epochs}"}
  train: {use: eeg-part, epochs: "${stacked}", part: train, test_size: 0.5}
  test: {use: eeg-part, epochs: "${stacked}", part: test, test_size: 0.5}
  encoder: {use: eeg-beta-vae, epochs: "${train}", max_epochs: 2, n_latents: 2, network: mlp}
  scan: {use: eeg-scan, encoder: "${encoder}", epochs: "${train}", max_epochs: 1, n_shuffles: 20}
  heldout: {use: eeg-scan-test, train: "${train}", test: "${test}", scan: "${scan}", n_boot: 100}
"""
    )
    cli("run", tmp_path / "stacked.yaml", "--out", tmp_path / "runs")
    data = open_dataset(tmp_path / "runs" / "stacked" / "stacked")
    assert data.sizes["trial"] == 12 * 3
    assert {"Pz neutral", "Pz pleasant"} <= set(data.channel.values.tolist())
    assert {"scan.and.r", "scan.ignore.r"} <= set(metrics_of(tmp_path / "runs" / "stacked"))
