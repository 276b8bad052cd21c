"""SCAN's losses against float64 NumPy, its masks, and the operator's shape of computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuro.nn.objective import State
from neuro.nn.scan import (
    OPERATORS,
    Recombinator,
    RecombinatorObjective,
    SCANObjective,
    SymbolNetwork,
    forward_kl,
    symbol_cross_entropy,
)

N, LATENTS, SYMBOLS = 7, 3, 5


def draws(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((N, SYMBOLS)) < 0.7).astype(float)
    return {
        "mean": rng.normal(size=(N, LATENTS)),
        "log_variance": rng.normal(size=(N, LATENTS)),
        "symbols": (rng.random((N, SYMBOLS)) < 0.5) * mask,
        "mask": mask,
    }


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def state(seed: int = 0) -> State:
    return State(1, [torch.Generator().manual_seed(seed)])


def numpy_kl(m1, v1, m2, v2):
    return 0.5 * (np.log(v2 / v1) + v1 / v2 + (m1 - m2) ** 2 / v2 - 1)


def linear(layer, x):
    return x @ layer.weight[0].detach().numpy() + layer.bias[0].detach().numpy()


def numpy_encode(network: SymbolNetwork, symbols):
    out = linear(network.posterior, np.maximum(linear(network.into, symbols), 0))
    return out[..., :LATENTS], out[..., LATENTS:]


def objective(**settings) -> SCANObjective:
    weights = {"beta_y": 0.75, "lam": 3.0, **settings}
    return SCANObjective(SymbolNetwork(SYMBOLS, LATENTS, 11, seed=1), **weights).double()


# The forward KL -----------------------------------------------------------------------------


def test_kl_is_the_closed_form_and_the_integral():
    one, two = (0.3, 0.5), (-0.4, 1.7)  # mean and variance
    found = forward_kl(*[(torch.tensor(m), torch.tensor(v).log()) for m, v in (one, two)]).item()
    z = np.linspace(-12, 12, 200_001)
    p, q = (np.exp(-((z - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) for m, v in (one, two))
    assert found == pytest.approx(float(numpy_kl(*one, *two)), rel=1e-6)
    assert found == pytest.approx(np.trapezoid(p * np.log(p / q), z), rel=1e-5)


def test_kl_has_a_direction():
    one, two = draws(0), draws(1)
    pair = [tuple(tensors(d)[k] for k in ("mean", "log_variance")) for d in (one, two)]
    there, back = forward_kl(*pair), forward_kl(*reversed(pair))
    expected = numpy_kl(
        one["mean"], np.exp(one["log_variance"]), two["mean"], np.exp(two["log_variance"])
    )
    np.testing.assert_allclose(there, expected, rtol=1e-12)
    assert not torch.isclose(there, back, rtol=0.05).any()
    assert (forward_kl(pair[0], pair[0]).abs() < 1e-12).all()


def test_the_forward_kl_covers_modes():
    """Two narrow signals under one symbol: its best posterior spans both."""
    signals = torch.tensor([[-2.0], [2.0]]), torch.full((2, 1), -4.0)
    mean, log_variance = (torch.zeros(1, 1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([mean, log_variance], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        forward_kl(signals, (mean, log_variance)).mean().backward()
        optimizer.step()
    assert mean.item() == pytest.approx(0, abs=1e-3)
    assert log_variance.exp().item() == pytest.approx(4 + np.exp(-4), rel=1e-2)


# The losses ---------------------------------------------------------------------------------


def test_cross_entropy_counts_known_symbols_only():
    arrays = draws()
    logits = np.random.default_rng(5).normal(size=(N, SYMBOLS))
    p = 1 / (1 + np.exp(-logits))
    y, mask = arrays["symbols"], arrays["mask"]
    expected = -(mask * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum(1)
    found = symbol_cross_entropy(*map(torch.from_numpy, (logits, y, mask)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_its_three_terms(training):
    arrays, scan, at = draws(), objective(), state()
    at.training = training
    mean, log_variance = numpy_encode(scan.network, arrays["symbols"])
    noise = state().normal((1, N, LATENTS), torch.zeros((), dtype=torch.float64))[0].numpy()
    z = mean + training * noise * np.exp(0.5 * log_variance)
    logits = linear(scan.network.symbols, np.maximum(linear(scan.network.outof, z), 0))
    p = 1 / (1 + np.exp(-logits))
    y, mask = arrays["symbols"], arrays["mask"]
    terms = {
        "symbols": -(mask * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum(1),
        "kl_prior": numpy_kl(mean, np.exp(log_variance), 0, 1).sum(1),
        "kl_signal": numpy_kl(
            arrays["mean"], np.exp(arrays["log_variance"]), mean, np.exp(log_variance)
        ).sum(1),
    }
    terms["loss"] = terms["symbols"] + 0.75 * terms["kl_prior"] + 3.0 * terms["kl_signal"]
    found = scan.step(tensors(arrays), at)
    for name, term in terms.items():
        np.testing.assert_allclose(found[name].detach(), [term.mean()], rtol=1e-10, err_msg=name)


def test_a_missing_label_has_no_gradient():
    arrays, scan = draws(), objective()
    arrays["symbols"][:, 2] = arrays["mask"][:, 2] = 0
    scan.step(tensors(arrays), state())["loss"].sum().backward()
    assert (scan.network.symbols.weight.grad[..., 2] == 0).all()
    assert (scan.network.symbols.bias.grad[..., 2] == 0).all()
    assert (scan.network.into.weight.grad[:, 2] == 0).all()
    assert (scan.network.symbols.bias.grad[..., 1] != 0).all()


def test_batch_size_does_not_change_the_balance():
    arrays, at = draws(), state()
    at.training = False
    doubled = {name: np.concatenate([a, a]) for name, a in arrays.items()}
    once, twice = (objective().step(tensors(d), at) for d in (arrays, doubled))
    for name, value in once.items():
        assert twice[name].item() == pytest.approx(value.item(), rel=1e-12)


def test_members_train_together_as_alone():
    from neuro.batches import Batches
    from neuro.training import train_together

    def members():
        return [
            SCANObjective(SymbolNetwork(SYMBOLS, LATENTS, 8, m), beta_y=1, lam=2.0 + m).double()
            for m in range(3)
        ]

    found = {}
    for strategy in ("loop", "stacked"):
        found[strategy] = members()
        train_together(
            found[strategy],
            [Batches(draws(m), 3, seed=m) for m in range(3)],
            seeds=[0, 1, 2], batch_size=3, strategy=strategy, max_epochs=4,
            device="cpu", precision="64",
        )  # fmt: skip
    for alone, beside in zip(found["loop"], found["stacked"], strict=True):
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(beside.state_dict()[name], tensor, rtol=1e-6, atol=1e-9)


# The operator -------------------------------------------------------------------------------


def one_hot(number: int, n: int = N) -> torch.Tensor:
    return torch.eye(3, dtype=torch.float64)[[number] * n]


def test_the_operator_treats_every_latent_alike():
    recombinator = Recombinator(9, seed=2).double()
    first, second = (
        tuple(torch.from_numpy(draws(s)[k])[None] for k in ("mean", "log_variance")) for s in (0, 1)
    )
    order = [2, 0, 1]
    plain = recombinator(first, second, one_hot(1)[None])
    moved = recombinator(
        tuple(t[..., order] for t in first), tuple(t[..., order] for t in second), one_hot(1)[None]
    )
    for a, b in zip(plain, moved, strict=True):
        torch.testing.assert_close(a[..., order], b)


def test_the_operator_chooses_two_of_six_channels():
    recombinator = Recombinator(9, seed=2).double()
    arrays = draws()
    pair = tuple(torch.from_numpy(arrays[k])[None] for k in ("mean", "log_variance"))
    channels = np.stack([arrays["mean"]] * 2 + [arrays["log_variance"]] * 2, -1)
    out = linear(recombinator.output, np.maximum(linear(recombinator.hidden, channels), 0))
    for number in range(len(OPERATORS)):
        mean, log_variance = recombinator(pair, pair, one_hot(number)[None])
        np.testing.assert_allclose(mean[0].detach(), out[..., 2 * number], rtol=1e-10)
        np.testing.assert_allclose(log_variance[0].detach(), out[..., 2 * number + 1], rtol=1e-10)


@pytest.mark.parametrize("target", ["symbol", "signal"])
def test_the_operator_is_held_against_its_target(target):
    network = SymbolNetwork(SYMBOLS, LATENTS, 11, seed=1).double()
    op = RecombinatorObjective(Recombinator(9, 2).double(), network, target=target)
    arrays = draws()
    concepts = {name: draws(s)["symbols"] for s, name in enumerate(("first", "second", "result"))}
    batch = tensors({**arrays, **concepts}) | {"operator": one_hot(2)}
    loss = op.step(batch, state())["loss"]
    posterior = {k: [torch.from_numpy(a)[None] for a in numpy_encode(network, c)]
                 for k, c in concepts.items()}  # fmt: skip
    with torch.no_grad():
        mean, log_variance = op.recombinator(
            tuple(posterior["first"]), tuple(posterior["second"]), one_hot(2)[None]
        )
    aim = [a.numpy()[0] for a in posterior["result"]]
    aim = aim if target == "symbol" else [arrays["mean"], arrays["log_variance"]]
    expected = numpy_kl(
        aim[0], np.exp(aim[1]), mean[0].numpy(), np.exp(log_variance[0].numpy())
    ).sum(1).mean()  # fmt: skip
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.sum().backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None for p in op.recombinator.parameters())
