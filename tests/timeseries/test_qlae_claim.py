"""The study of QLAE beside other encoders: it goes on where it was killed; what it claims."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "qlae.py"


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("qlae_study_script", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shrink(study, monkeypatch, epochs):
    monkeypatch.setattr(study, "N_TRAIN", 1000)
    monkeypatch.setattr(study, "N_TEST", 500)
    monkeypatch.setattr(study, "DEVELOPMENT", (20,))
    monkeypatch.setattr(study, "NETWORK", study.NETWORK | {"max_epochs": epochs})
    monkeypatch.setattr(study, "GRIDS", {m: grid[3:4] for m, grid in study.GRIDS.items()})


def test_a_short_study_prints_every_model_and_trains_nothing_twice(
    study, monkeypatch, tmp_path, capsys
):
    shrink(study, monkeypatch, epochs=2)
    study.main(["--folder", str(tmp_path), "--seeds", "23", "24"])
    told = capsys.readouterr().out
    for model in ("ae", "beta_vae", "beta_tcvae", "ica", "pca", "random", "qlae_shared"):
        assert told.count(f"| {model} | ") == 2
    assert len(list(tmp_path.glob("*.json"))) == 7 + 2 * 9
    monkeypatch.setattr(study, "codes", lambda *a: pytest.fail("trained again"))
    study.main(["--folder", str(tmp_path), "--seeds", "23", "24"])
    with pytest.raises(SystemExit):
        study.main(["--folder", str(tmp_path), "--seeds", "20"])


def scores_beside_an_autoencoder(study, folder):
    settings = {m: study.GRIDS[m][3] for m in ("qlae", "ae")}
    return [study.scored(folder, model, one, 20) for model, one in settings.items()]


def test_quantised_latents_are_more_modular_and_explicit_than_an_autoencoders_in_short(
    study, monkeypatch, tmp_path
):
    monkeypatch.setattr(study, "N_TRAIN", 3000)
    monkeypatch.setattr(study, "N_TEST", 1000)
    monkeypatch.setattr(study, "NETWORK", study.NETWORK | {"max_epochs": 30})
    qlae, other = scores_beside_an_autoencoder(study, tmp_path)
    for score in ("infom", "infoe"):  # binned alike they need the length of the study
        assert qlae["published"][score] > other["published"][score]


@pytest.mark.slow
def test_quantised_latents_are_more_modular_and_explicit_than_an_autoencoders(study, tmp_path):
    qlae, other = scores_beside_an_autoencoder(study, tmp_path)
    for reading in ("published", "binned"):
        for score in ("infom", "infoe"):
            assert qlae[reading][score] > other[reading][score] + 0.1
