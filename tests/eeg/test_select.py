"""Choosing an encoder without labels: the right one among known ones, and what is told of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eeg.ranking import method_sentence, selection_blocks, udr_figure
from eeg.select import described, record, select
from eeg.simulate import simulate_cohort
from eeg.stages import select as stage
from neuro.bibtex import BIBTEX
from neuro.errors import InputError
from neuro.report import Figure, Table, Text, Warning, read_sections, write_section


class Linear:
    """Codes are a given linear map of the signal; each may be told to carry nothing."""

    def __init__(self, weights: np.ndarray, carries: float = 1.0, random_state: int = 0) -> None:
        self.weights, self.carries, self.random_state = weights, carries, random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"carries": self.carries, "random_state": self.random_state}

    def transform(self, X: Any, return_variance: bool = False) -> Any:
        z = self.carries * np.asarray(X).reshape(len(X), -1) @ self.weights
        variance = np.full(z.shape, 0.05 if self.carries else 1.0)
        return (z, variance) if return_variance else z

    def denoise(self, X: Any) -> np.ndarray:
        return np.asarray(X) * min(1.0, self.carries)


class Recorder:
    """What a stage tells its context."""

    def __init__(self, members: list[dict[str, Any]]) -> None:
        self.members = {"members": members}
        self.metrics: dict[str, float] = {}
        self.told: list[str] = []
        self.sections: dict[str, list[Any]] = {}
        self.sentences: list[tuple[str, ...]] = []

    def metric(self, name: str, value: float, **_: Any) -> None:
        self.metrics[name] = value

    def warn(self, message: str) -> None:
        self.told.append(message)

    def section(self, title: str, *blocks: Any) -> None:
        self.sections[title] = list(blocks)

    def method(self, *sentence: str) -> None:
        self.sentences.append(sentence)

    def progress(self, items: Any, label: str, total: int | None = None) -> Any:
        return iter(items)


@pytest.fixture
def signal() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(300, 2, 3))
    return xr.DataArray(values, dims=("trial", "channel", "time"))


def rotation(seed: int, d: int = 6) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0][:, :3]


def sweep() -> tuple[list[Linear], list[dict[str, Any]]]:
    """Return entangled (1), agreeing (4) and collapsed (16) models, three seeds of each."""
    agreeing = [np.eye(6)[:, [0, 1, 2]], np.eye(6)[:, [2, 0, 1]], -np.eye(6)[:, [1, 2, 0]]]
    weights = {1: [rotation(s) for s in range(3)], 4: agreeing, 16: agreeing}
    settings = [{"beta": b, "seed": s} for b, s in itertools.product(weights, range(3))]
    models = [
        Linear(weights[s["beta"]][s["seed"]], 0.0 if s["beta"] == 16 else 1.0, s["seed"])
        for s in settings
    ]
    return models, settings


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_the_models_that_agree_are_chosen(signal: xr.DataArray, method: Any) -> None:
    models, settings = sweep()
    found = select(models, signal, settings=settings, method=method)
    assert found.best.setting == {"beta": 4}
    scores = [c.udr[method] for c in found.candidates]
    assert min(scores[3:6]) > 0.8 > max(scores[:3])
    assert scores[6:] == [0, 0, 0]
    assert found.groups() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert found.best.stability is not None
    assert found.best.stability.min() > 0.99
    assert found.candidates[0].reconstruction == pytest.approx(1)
    assert found.candidates[6].reconstruction < 0.01


def test_models_that_explain_little_are_not_chosen(signal: xr.DataArray) -> None:
    models, settings = sweep()
    for model in models[3:6]:
        model.carries = 0.5  # agrees best, but reconstructs half of the signal
    found = select(models, signal, settings=settings, least_explained=0.9)
    assert found.best.setting == {"beta": 1}
    assert found.floor == pytest.approx(0.9)
    assert select(models, signal, settings=settings, least_explained=0.5).best.setting["beta"] == 4


def test_settings_come_from_the_encoders_where_not_given(signal: xr.DataArray) -> None:
    models, _ = sweep()
    found = select(models[3:], signal)
    assert [c.setting for c in found.candidates] == [{"carries": 1.0}] * 3 + [{"carries": 0.0}] * 3
    assert found.best.setting == {"carries": 1.0}


def test_the_points_are_drawn_by_the_seed(signal: xr.DataArray) -> None:
    models, settings = sweep()
    first, again, other = (
        select(models, signal, settings=settings, n_points=50, random_state=seed)
        for seed in (0, 0, 1)
    )
    assert first.candidates[0].mean.shape == (50, 3)
    np.testing.assert_array_equal(first.candidates[0].mean, again.candidates[0].mean)
    assert not np.array_equal(first.candidates[0].mean, other.candidates[0].mean)


def test_encoders_of_erps_are_compared_on_erps() -> None:
    cohort = simulate_cohort(n_subjects=5, n_trials=6, sfreq=32.0, seed=0)
    size = cohort.sizes["channel"] * cohort.sizes["time"]
    models = [Linear(np.eye(size)[:, :3], random_state=seed) for seed in range(4)]
    for model in models[:2]:
        model.train_on = "erp"  # type: ignore[attr-defined]
    settings = [{"train_on": t, "seed": s} for t in ("erp", "single") for s in (0, 1)]
    found = select(models, cohort, settings=settings)
    n_cells = 5 * len(set(cohort["condition"].values.tolist()))
    assert [len(c.mean) for c in found.candidates] == [n_cells] * 2 + [cohort.sizes["trial"]] * 2
    erp_only = select(models[:2], cohort, settings=settings[:2])
    assert any(f"compared on {n_cells} points only" in note for note in erp_only.notes)


def test_what_makes_a_choice_doubtful_is_told(signal: xr.DataArray) -> None:
    models, settings = sweep()
    alone = select(models[:4], signal, settings=settings[:4])
    assert alone.best.setting == {"beta": 1}
    assert not alone.candidates[3].udr
    assert any("only one seed was trained: beta = 4" in note for note in alone.notes)
    assert any("3 seeds of a setting" in note for note in alone.notes)
    collapsed = select(models[6:], signal, settings=settings[6:])
    assert any("every ranked model collapsed" in note for note in collapsed.notes)
    single = [Linear(m.weights[:, :1], random_state=m.random_state) for m in [models[3]] * 2]
    assert any("one latent only" in note for note in select(single, signal).notes)


def test_models_that_cannot_be_ranked_are_refused(signal: xr.DataArray) -> None:
    models, settings = sweep()
    with pytest.raises(InputError, match=r"no two seeds can be compared: add 'seed: \[0, 1"):
        select(models[::3], signal, settings=settings[::3])
    with pytest.raises(InputError, match="9 encoders, but 2 settings"):
        select(models, signal, settings=settings[:2])

    class Plain(Linear):
        def transform(self, X: Any) -> Any:  # type: ignore[override]
            return super().transform(X)

    with pytest.raises(InputError, match=r"Plain \(seed = 0\) has no posterior variance"):
        select([Plain(np.eye(6))] * 2, signal)


def test_the_report_shows_every_model_and_marks_the_chosen(signal: xr.DataArray, tmp_path) -> None:
    models, settings = sweep()
    found = select(models, signal, settings=settings)
    blocks = selection_blocks(found)
    per_setting, per_model, latents = (list(b.rows) for b in blocks if isinstance(b, Table))
    assert [row[""] for row in per_setting] == ["", "chosen", ""]
    assert [row["seeds"] for row in per_setting] == [3, 3, 3]
    assert per_setting[2]["UDR (Lasso)"] == 0
    assert per_setting[2]["passive"] == 3
    assert len(per_model) == 9
    assert sum(row[""] == "chosen" for row in per_model) == 1
    assert {row["kept"] for row in latents} == {"yes"}
    assert isinstance(blocks[0], Text)
    assert "beta = 4" in blocks[0].text
    assert any(isinstance(block, Warning) for block in blocks)
    write_section(tmp_path, "Model selection", blocks)
    (stored,) = read_sections(tmp_path)
    assert [type(block) for block in stored.blocks] == [type(block) for block in blocks]


def test_the_figure_has_a_panel_for_each_version(signal: xr.DataArray) -> None:
    models, settings = sweep()
    found = select(models[::-1], signal, settings=settings[::-1], method="spearman")
    panels = udr_figure(found).axes
    assert [p.get_title(loc="left") for p in panels] == [
        "UDR (Lasso)",
        "UDR (Spearman) · decides",
        "Latents kept (KL > 0.01)",
    ]
    assert [t.get_text() for t in panels[0].get_xticklabels()] == ["1", "4", "16"]
    alone = select(models[:4], signal, settings=settings[:4])
    assert any(text.get_text() == "one seed" for text in udr_figure(alone).axes[0].texts)
    two = [{**s, "n_latents": 3} for s in settings]
    ticks = udr_figure(select(models, signal, settings=two)).axes[0].get_xticklabels()
    assert ticks[0].get_text() == "beta = 1, n_latents = 3"


def test_a_setting_is_written_out() -> None:
    assert described({"beta": 4, "train_on": "erp"}, 2) == "beta = 4, train_on = erp, seed = 2"


def test_numbers_reach_the_run(signal: xr.DataArray) -> None:
    models, settings = sweep()
    found = select(models, signal, settings=settings)
    context: Any = Recorder(settings)
    record(context, found)
    assert context.metrics["udr.spearman.best"] > 0.95
    assert 0.85 < context.metrics["udr.lasso.best"] < 0.95
    assert context.told == found.notes
    sentence, *citations = method_sentence(found)
    assert "9 models of 3 settings" in sentence
    assert set(citations) <= set(BIBTEX)


def test_the_stage_chooses_among_trained_encoders() -> None:
    from eeg.beta_vae import BetaVAE

    cohort = simulate_cohort(n_subjects=4, n_trials=6, sfreq=64.0, seed=0)
    settings = [{"beta": b, "seed": s} for b in (0.1, 1000.0) for s in (0, 1)]
    members = [
        BetaVAE(
            n_latents=3, beta=s["beta"], network="mlp", n_hidden=16, max_epochs=15,
            random_state=s["seed"], device="cpu",
        )
        for s in settings
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="latent"):
        BetaVAE.fit_together(members, cohort)
    context: Any = Recorder(settings)
    params = stage.stage.params(n_points=40)
    chosen = stage(members, cohort, params=params, context=context)
    assert chosen in members[:2]
    assert set(context.metrics) == {"udr.lasso.best", "udr.spearman.best"}
    (blocks,) = context.sections.values()
    assert any(isinstance(block, Figure) for block in blocks)
    assert context.sentences
