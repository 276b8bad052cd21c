"""Training: same seed same weights, kills continue, members equal lone models, turns alternate."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from neuro.batches import Batches
from neuro.checkpoint import NAME
from neuro.errors import InputError, StageError, StoreError
from neuro.nn.beta_vae import BetaVAEObjective
from neuro.nn.networks import ConvVAE
from neuro.sources import Members, Together
from neuro.training import Objective, Phase, State, train, train_together

QUICK = {"max_epochs": 3, "device": "cpu"}


def data(n: int = 48, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2, 16)).astype(dtype)


def vae(seed: int = 0, beta: float = 1.0, rate: float = 1e-2) -> BetaVAEObjective:
    return BetaVAEObjective(ConvVAE(2, 16, 2, 8, seed), beta=beta, learning_rate=rate)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


class Line(Objective):
    """A straight line fitted by gradient descent, with dropout from PyTorch's own generator."""

    def __init__(self, rate: float = 0.05, dropout: float = 0.0) -> None:
        super().__init__()
        self.rate = rate
        self.line = nn.Linear(1, 1)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)
        self.dropout = nn.Dropout(dropout)

    def phases(self) -> list[Phase]:
        return [Phase("line", lambda p, _: torch.optim.SGD(p, lr=self.rate))]

    def step(self, batch, state):
        return {"loss": (self.line(self.dropout(batch["x"])) - batch["y"]).square().mean()}


def line_data(n: int = 32, **settings) -> Batches:
    x = np.linspace(-1, 1, n, dtype="float32")[:, None]
    return Batches({"x": x, "y": 2 * x + 1}, 8, **settings)


def test_it_learns_and_logs_every_epoch(tmp_path):
    model = Line()
    result = train(model, line_data(), max_epochs=60, folder=tmp_path, device="cpu")
    assert model.line.weight.item() == pytest.approx(2, abs=0.02)
    assert model.line.bias.item() == pytest.approx(1, abs=0.02)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 61))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in result.history[0]]
    assert result.history[0][-1]["loss"] < 1e-3 < result.history[0][0]["loss"]


def test_the_logged_loss_is_the_mean_over_rows_not_batches():
    # Batches of 8, 8 and 4: with a still model the mean is that of the 20 rows.
    result = train(Line(rate=0.0), line_data(20), max_epochs=1, device="cpu")
    y = 2 * np.linspace(-1, 1, 20) + 1
    assert result.history[0][0]["loss"] == pytest.approx((y**2).mean(), rel=1e-6)


def test_same_seed_same_weights_and_the_callers_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models = [Line(dropout=0.5) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.weight, 0.3)
        torch.manual_seed(5)
        train(model, line_data(), seed=seed, **QUICK)
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


def test_sampling_follows_the_seed():
    models = [vae(), vae(), vae()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, Batches({"x": data()}, 16), seed=seed, **QUICK)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


class Stop(Exception):
    pass


class Interrupted(Batches):
    """Raises in the middle of an epoch."""

    def __init__(self, *args, at: int, error: type[BaseException] = Stop, **settings) -> None:
        super().__init__(*args, **settings)
        self.at, self.error = at, error

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if self.epoch == self.at and number == 1:
                raise self.error
            yield batch


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, dropout):
    x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    arrays = {"x": x, "y": 2 * x + 1}
    whole, broken = Line(dropout=dropout), Line(dropout=dropout)
    expected = train(whole, Batches(arrays, 8), max_epochs=6, seed=3, device="cpu")
    with pytest.raises(Stop):
        train(
            broken,
            Interrupted(arrays, 8, at=1),
            max_epochs=6,
            seed=3,
            device="cpu",
            folder=tmp_path,
        )
    again = Line(dropout=dropout)
    result = train(again, Batches(arrays, 8), max_epochs=6, seed=3, device="cpu", folder=tmp_path)
    assert result.resumed_from == 1
    assert torch.equal(weights(whole), weights(again))
    assert result.history == expected.history


def test_an_interrupted_ensemble_ends_with_the_same_weights(tmp_path):
    def run(sources, folder=None):
        models = [vae(seed=m, rate=r) for m, r in enumerate((1e-2, 1e-3))]
        results = train_together(
            models, sources, seeds=[4, 5], batch_size=16, strategy="stacked", folder=folder,
            patience=2, device="cpu", max_epochs=6,
        )  # fmt: skip
        return models, results

    sources = [Batches({"x": data(n)}, 16, seed=n) for n in (48, 70)]
    expected, expected_results = run(sources)
    broken = [sources[0], Interrupted({"x": data(70)}, 16, seed=70, at=1)]
    with pytest.raises(Stop):
        run(broken, tmp_path)
    models, results = run(sources, tmp_path)
    assert results[0].resumed_from == 1
    for model, other in zip(models, expected, strict=True):
        assert torch.equal(weights(model), weights(other))
    assert [r.history for r in results] == [r.history for r in expected_results]


SCRIPT = """
    import sys, time, torch
    sys.path.insert(0, {here!r})
    from test_training import Batches, data, vae, train, weights

    class Slow(Batches):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep({pause})
                yield batch

    torch.set_num_threads(1)
    model = vae()
    result = train(model, Slow({{"x": data()}}, 16), max_epochs=25, seed=9, folder={folder!r},
                   device="cpu")
    torch.set_printoptions(precision=17)
    print("from", result.resumed_from)
    print(weights(model).tolist())
"""


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    def command(folder, pause):
        here = str(__import__("pathlib").Path(__file__).parent)
        code = textwrap.dedent(SCRIPT.format(here=here, folder=str(folder), pause=pause))
        return [sys.executable, "-c", code]

    whole = subprocess.run(
        command(tmp_path / "whole", 0), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    process = subprocess.Popen(command(tmp_path / "killed", 0.02), stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / NAME
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = subprocess.run(
        command(tmp_path / "killed", 0), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert int(again[0].split()[1]) >= 1
    assert again[1] == whole[1]


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = vae()
    train(first, Batches({"x": data()}, 16), folder=tmp_path, **QUICK)
    again = vae()
    result = train(again, Batches({"x": data()}, 16), folder=tmp_path, **QUICK)
    assert result.resumed_from == 3
    assert torch.equal(weights(first), weights(again))
    assert len(result.history[0]) == 3


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_checkpoint_that_cannot_be_used_is_said_and_left(tmp_path, damage):
    train(vae(), Batches({"x": data()}, 16), folder=tmp_path, **QUICK)
    if damage == "cut":
        (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:200])
    beta = 1.0 if damage == "cut" else 2.0
    with pytest.warns(UserWarning, match="anew"):
        result = train(vae(beta=beta), Batches({"x": data()}, 16), folder=tmp_path, **QUICK)
    assert result.resumed_from == 0


def test_a_checkpoint_holds_no_pickle(tmp_path):
    train(vae(), Batches({"x": data()}, 16), folder=tmp_path, **QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "history.csv"]
    header = int.from_bytes((tmp_path / NAME).read_bytes()[:8], "little")
    assert (tmp_path / NAME).read_bytes()[8:9] == b"{"
    assert header < 100_000


def test_ctrl_c_is_a_keyboard_interrupt_and_signals_work_afterwards():
    before = signal.getsignal(signal.SIGINT)
    source = Interrupted({"x": data()}, 16, at=1, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(vae(), source, **QUICK)
    assert signal.getsignal(signal.SIGINT) == before


def test_nan_is_refused_with_the_last_good_values_and_advice():
    x = data()
    with pytest.raises(StageError, match=r"diverged in epoch \d+.*learning rate \(now 1e\+30\)"):
        train(vae(rate=1e30), Batches({"x": x}, 16), **QUICK)

    class Late(Line):
        def step(self, batch, state):
            losses = super().step(batch, state)
            return {"loss": losses["loss"] * (float("nan") if state.epoch == 2 else 1)}

    with pytest.raises(StageError, match=r"epoch 3: loss is nan. Last good values: \{'epoch': 2"):
        train(Late(), line_data(), **QUICK)


class Scripted(Objective):
    """Its validation loss follows a script; its weight counts the epochs."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses = losses
        self.weight = nn.Parameter(torch.zeros(()))

    def phases(self) -> list[Phase]:
        return [Phase("count", lambda p, _: torch.optim.SGD(p, lr=1.0))]

    def step(self, batch, state):
        if not state.training:
            return {"loss": torch.tensor(self.losses[state.epoch])}
        return {"loss": -self.weight}  # one up in each step


def one_batch() -> Batches:
    return Batches({"x": np.zeros(4, "float32")}, 4)


def test_early_stopping_takes_the_best_epoch():
    model = Scripted([5, 4, 3, 3.5, 3.2, 1, 0])
    result = train(
        model, one_batch(), validation=one_batch(), max_epochs=7, patience=2, device="cpu"
    )
    assert result.best_epoch == [3]
    assert model.weight.item() == 3
    assert [row["epoch"] for row in result.history[0]] == [1, 2, 3, 4, 5]
    assert result.history[0][3]["val_loss"] == 3.5


def test_without_patience_the_last_epoch_counts():
    model = Scripted([5, 4, 3, 3.5, 3.2, 6, 7])
    result = train(model, one_batch(), validation=one_batch(), max_epochs=7, device="cpu")
    assert result.best_epoch == [7]
    assert model.weight.item() == 7


class Duel(Objective):
    """Two players that move in turn, and a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(1, 1), nn.Linear(1, 1)
        self.still = nn.Linear(1, 1).requires_grad_(False)
        self.seen: list[tuple[str, bool, bool]] = []

    def phases(self) -> list[Phase]:
        def make(parameters, _):
            return torch.optim.SGD(parameters, lr=0.1)

        return [Phase("left", make, ("left.",), times=2), Phase("right", make, ("right.",))]

    def step(self, batch, state):
        grads = (self.left.weight.requires_grad, self.right.weight.requires_grad)
        self.seen.append((state.phase, *grads))
        x = self.still(batch["x"])
        return {"loss": (self.left(x) * self.right(x)).square().mean(), "own": x.mean()}


def test_alternating_phases_freeze_one_another():
    model = Duel()
    still = model.still.weight.clone()
    result = train(model, Batches({"x": np.ones((4, 1), "float32")}, 4), max_epochs=1, device="cpu")
    assert model.seen == [("left", True, False)] * 2 + [("right", False, True)]
    assert torch.equal(model.still.weight, still)
    assert not model.still.weight.requires_grad
    assert model.left.weight.requires_grad
    assert model.right.weight.requires_grad
    assert set(result.history[0][0]) == {
        "epoch", "left_loss", "left_own", "right_loss", "right_own",
    }  # fmt: skip


def test_alternating_training_continues_with_both_optimisers(tmp_path):
    class Momentum(Duel):
        def phases(self):
            def make(parameters, _):
                return torch.optim.Adam(parameters, lr=0.05)

            return [Phase("left", make, ("left.",)), Phase("right", make, ("right.",))]

    def run(source, folder=None):
        torch.manual_seed(0)
        model = Momentum()
        train(model, source, max_epochs=4, folder=folder, device="cpu")
        return model

    arrays = {"x": np.linspace(0, 1, 8, dtype="float32")[:, None]}
    whole = run(Batches(arrays, 4))
    with pytest.raises(Stop):
        run(Interrupted(arrays, 4, at=1), tmp_path)
    assert torch.equal(weights(run(Batches(arrays, 4), tmp_path)), weights(whole))


def test_schedule_and_clipping():
    class Scheduled(Line):
        def phases(self):
            return [
                Phase(
                    "line",
                    lambda p, _: torch.optim.SGD(p, lr=1.0),
                    clip_norm=0.5,
                    schedule=lambda fraction: 1.0 if fraction < 0.5 else 0.0,
                )
            ]

    model = Scheduled()
    train(model, line_data(8), max_epochs=4, device="cpu")  # one step an epoch: two of them move
    moved = weights(model).norm().item()
    assert 0.5 < moved <= 1.0 + 1e-6


def test_several_sources_are_cycled_to_the_longest():
    long = Batches({"x": np.arange(6.0)}, 1, seed=1)
    short = Batches({"x": np.arange(2.0)}, 1, seed=1)
    both = Together({"paired": long, "unlabelled": short})
    seen = []
    for epoch in (0, 1):
        both.set_epoch(epoch)
        rows = [(b["paired"]["x"].item(), b["unlabelled"]["x"].item()) for b in both]
        assert sorted(p for p, _ in rows) == list(range(6))
        assert sorted(u for _, u in rows) == [0, 0, 0, 1, 1, 1]
        seen.append([u for _, u in rows])
    orders = {tuple(part[i : i + 2]) for part in seen for i in (0, 2, 4)}
    assert orders == {(0, 1), (1, 0)}  # a new order each time it starts again


def test_training_takes_named_sources():
    class Both(Line):
        def step(self, batch, state):
            return {
                "loss": super().step(batch["paired"], state)["loss"],
                "unlabelled": batch["unlabelled"]["x"].mean(),
            }

    result = train(Both(), {"paired": line_data(), "unlabelled": line_data(8)}, **QUICK)
    assert set(result.history[0][0]) == {"epoch", "loss", "unlabelled"}


# -- ensembles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["alike", "rates", "uneven"])
def test_members_equal_models_trained_alone(case):
    # 20 and more steps in float64; members differ in beta, seed and data.
    sizes = (40, 56, 33) if case == "uneven" else (40, 40, 40)
    rates = (1e-2, 1e-3, 3e-3) if case == "rates" else (1e-2,) * 3
    betas, seeds = (0.0, 1.0, 5.0), [11, 12, 13]

    def run(strategy):
        models = [vae(m, betas[m], rates[m]).double() for m in range(3)]
        sources = [Batches({"x": data(n, n, "float64")}, 8, seed=m) for m, n in enumerate(sizes)]
        results = train_together(
            models, sources, seeds=seeds, batch_size=8, strategy=strategy, precision="64",
            max_epochs=5, device="cpu",
        )  # fmt: skip
        return models, results

    alone, alone_results = run("loop")
    joined, joined_results = run("stacked")
    for m in range(3):
        torch.testing.assert_close(weights(joined[m]), weights(alone[m]), rtol=1e-6, atol=1e-9)
        for row, expected in zip(
            joined_results[m].history[0], alone_results[m].history[0], strict=True
        ):
            assert row == pytest.approx(expected, rel=1e-6)
    assert not torch.allclose(weights(joined[0])[1:], weights(joined[1])[1:])


def test_members_stop_by_themselves():
    def run(strategy):
        models = [vae(m, 1.0, rate).double() for m, rate in enumerate((0.1, 1e-3))]
        x = data(40, 1, "float64")
        sources = [Batches({"x": x[:24]}, 8, seed=m) for m in range(2)]
        held_out = [Batches({"x": x[24:]}, 8, shuffle=False) for _ in range(2)]
        results = train_together(
            models, sources, seeds=[1, 2], batch_size=8, strategy=strategy, precision="64",
            validation=held_out, patience=2, max_epochs=15, device="cpu",
        )  # fmt: skip
        return models, results

    alone, alone_results = run("loop")
    joined, joined_results = run("stacked")
    for m in range(2):
        assert joined_results[m].best_epoch == alone_results[m].best_epoch
        assert len(joined_results[m].history[0]) == len(alone_results[m].history[0])
        torch.testing.assert_close(weights(joined[m]), weights(alone[m]), rtol=1e-6, atol=1e-9)
    lengths = {len(result.history[0]) for result in alone_results}
    assert len(lengths) == 2  # or the test shows nothing


def test_uneven_members_are_padded_and_marked():
    source = Members([Batches({"x": np.ones(n, "float32")}, 4) for n in (4, 7)])
    first, second = list(source)
    assert source.uneven
    assert "weight" not in first
    assert second["x"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert second["weight"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_the_strategy_follows_size_and_device():
    small = BetaVAEObjective(ConvVAE(6, 256, 10), beta=1.0)
    large = BetaVAEObjective(ConvVAE(64, 128, 10), beta=1.0)
    cpu = torch.device("cpu")
    assert small.prefers_stack(cpu, 16)
    assert not large.prefers_stack(cpu, 64)
    assert large.prefers_stack(torch.device("cuda"), 64)


def test_models_of_another_size_are_not_joined():
    models = [vae(), BetaVAEObjective(ConvVAE(2, 32, 2, 8), beta=1.0)]
    sources = [Batches({"x": data()}, 16)] * 2
    with pytest.raises(InputError, match="one network size"):
        train_together(models, sources, seeds=[0, 1], batch_size=16, strategy="stacked", **QUICK)


# -- settings ----------------------------------------------------------------------------------


def test_progress_is_told_of_every_epoch():
    told = []

    def progress(items, label, total=None):
        assert (label, total) == ("training", 3)
        for item in items:
            told.append(item)
            yield item
        told.append("end")

    train(vae(), Batches({"x": data()}, 16), progress=progress, **QUICK)
    assert told == [0, 1, 2, "end"]


def test_half_precision_is_close_to_full():
    models = [vae(), vae()]
    losses = [
        train(model, Batches({"x": data()}, 16), precision=precision, **QUICK).history[0][-1][
            "loss"
        ]
        for model, precision in zip(models, ("32", "bf16-mixed"), strict=True)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(p.dtype == torch.float32 for p in models[1].parameters())


def test_compiling_changes_no_weight(monkeypatch):
    compiled = []

    def compile_it(function):
        compiled.append(function.__name__)
        return lambda *args: function(*args)

    monkeypatch.setattr(torch, "compile", compile_it)
    models = [vae(), vae()]
    for model, wanted in zip(models, (False, True), strict=True):
        train(model, Batches({"x": data()}, 16), compile=wanted, **QUICK)
    assert compiled == ["encode", "decode"]
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_tensorboard_is_optional(tmp_path):
    pytest.importorskip("tensorboard")
    train(vae(), Batches({"x": data()}, 16), folder=tmp_path, tensorboard=True, **QUICK)
    assert list((tmp_path / "tensorboard").glob("events*"))
    with pytest.raises(InputError, match="folder"):
        train(vae(), Batches({"x": data()}, 16), tensorboard=True, **QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": -1}, "max_epochs is -1"),
        ({"precision": "8"}, "precision '8' is none of"),
        ({"precision": "16-mixed"}, "needs a GPU"),
        ({"patience": 0}, "patience is 0"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"seed": [1, 2]}, "2 seeds for 1 members"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        train(vae(), Batches({"x": data()}, 16), **(QUICK | settings))


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="taken"):
        train(vae(), Batches({"x": data()}, 16), folder=tmp_path / "taken", **QUICK)


def test_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="no batch"):
        train(vae(), Batches({"x": data(3)}, 16, drop_last=True), **QUICK)

    class Idle(Line):
        def phases(self):
            return [Phase("x", lambda p, _: torch.optim.SGD(p, lr=1), ("nothing.",))]

    with pytest.raises(InputError, match="moves no parameter"):
        train(Idle(), line_data(), **QUICK)


def test_state_draws_what_a_member_draws_alone():
    like = torch.zeros(1)
    together = State(1, [torch.Generator().manual_seed(m) for m in (1, 2)], rows=[3, 0])
    alone = State(1, [torch.Generator().manual_seed(1)])
    drawn = together.normal((2, 5, 4), like)
    assert torch.equal(drawn[0, :3], alone.normal((1, 3, 4), like)[0])
    assert not drawn[0, 3:].any()
    assert not drawn[1].any()
