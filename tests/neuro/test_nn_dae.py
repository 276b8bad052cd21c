"""The denoising autoencoder: its masks, what it learns, and its features as a beta-VAE's loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuro.batches import Batches
from neuro.ensemble import stack
from neuro.nn.beta_vae import BetaVAEObjective
from neuro.nn.dae import DAE, DAEObjective, FeatureError, feature_variance, random_mask
from neuro.nn.networks import ConvVAE
from neuro.nn.objective import State
from neuro.nn.vae import gaussian_kl
from neuro.training import train, train_together

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


def state(members: int = 1, training: bool = True) -> State:
    return State(10, [torch.Generator().manual_seed(m) for m in range(members)], training=training)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def structured(n: int, seed: int) -> np.ndarray:
    """Two sources mixed into 6 channels, and some noise; every channel has mean 0 and sd 1."""
    rng = np.random.default_rng(seed)
    times = np.arange(32) / 32
    phase, rate = rng.uniform(0, 2 * np.pi, (n, 2, 1)), np.array([[2.0], [3.0]])
    mixing = np.random.default_rng(9).normal(size=(6, 2))
    x = mixing @ np.sin(2 * np.pi * rate * times + phase) + 0.1 * rng.normal(size=(n, 6, 32))
    return ((x - x.mean((0, 2))[:, None]) / x.std((0, 2))[:, None]).astype("float32")


def vae(dae: DAE | None = None, *, beta: float = 4.0, seed: int = 0) -> BetaVAEObjective:
    features = None if dae is None else FeatureError(dae, torch.full((5,), 0.1))
    return BetaVAEObjective(ConvVAE(3, 20, 2, 16, seed), beta=beta, features=features).double()


# -- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.8])
def test_the_share_that_is_hidden_is_the_one_asked_for_everywhere(fraction):
    uniform = torch.rand(40_000, 5, generator=torch.Generator().manual_seed(0))
    shown = random_mask(uniform, 20, fraction)
    assert shown.shape == (40_000, 3, 20)
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    hidden = 1 - shown.mean(0)
    np.testing.assert_allclose(hidden, fraction, atol=0.015)


def test_what_is_hidden_is_whole_channels_or_one_stretch():
    uniform = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    shown = random_mask(uniform, 20, 0.25).bool()
    for mask, kind in zip(shown, uniform[:, 0], strict=True):
        own = [row for row in mask if not row.all()]
        if kind < 0.5:
            assert not any(row.any() for row in own)
        else:
            assert all(torch.equal(row, own[0]) for row in own)
            # Round the end, a stretch begins once and covers sqrt(0.25) of the 20 times.
            assert all((row & ~row.roll(1)).sum() == 1 and (~row).sum() == 10 for row in own)


# -- the autoencoder ---------------------------------------------------------------------------


def test_its_loss_against_numpy_reference():
    objective, x = DAEObjective(DAE(3, 20, 5), mask_fraction=0.3).double(), normal(7, 3, 20)
    for training in (True, False):
        loss = objective.step({"x": x}, state(training=training))["loss"]
        mask = torch.ones_like(x)
        if training:
            uniform = torch.special.ndtr(state().normal((1, 7, 5), x))
            mask = random_mask(uniform, 20, 0.3)[0]
        with torch.no_grad():
            output = objective.dae((x * mask)[None])[0].numpy()
        expected = 0.5 * ((output - x.numpy()) ** 2).sum((1, 2)).mean()
        assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_a_target_is_what_it_learns():
    objective, x = DAEObjective(DAE(3, 20, 5), mask_fraction=0.3).double(), normal(4, 3, 20)
    both = objective.step({"x": normal(4, 3, 20, seed=1), "target": x}, state())
    assert float(both["loss"]) == float(objective.step({"x": x}, state())["loss"])


def test_it_learns_to_fill_in_what_is_masked():
    objective = DAEObjective(DAE(6, 32, 20), mask_fraction=0.25, learning_rate=3e-3)
    train(objective, Batches({"x": structured(256, 0)}, 32, seed=0), max_epochs=20, device="cpu")
    fresh = torch.from_numpy(structured(100, 1))
    uniform = torch.rand(100, 8, generator=torch.Generator().manual_seed(2))
    mask = random_mask(uniform, 32, 0.25)
    with torch.no_grad():
        output = objective.dae((fresh * mask)[None])[0]
    hidden = mask == 0
    # Zero, the best guess of who sees nothing, has the error mean(x^2).
    assert ((output - fresh)[hidden] ** 2).mean() < 0.5 * (fresh[hidden] ** 2).mean()


def test_trained_together_as_if_one_by_one():
    def members() -> list[DAEObjective]:
        return [DAEObjective(DAE(6, 32, 4), mask_fraction=0.25).double() for _ in range(2)]

    def sources() -> list[Batches]:
        parts = structured(40, 0), structured(30, 1)  # unequal, so that rows are padded
        return [Batches({"x": part.astype(float)}, 16, seed=0) for part in parts]

    options = {"seeds": [0, 0], "batch_size": 16, "max_epochs": 3, "device": "cpu"}
    at_once, alone = members(), members()
    train_together(at_once, sources(), strategy="stacked", precision="64", **options)
    train_together(alone, sources(), strategy="loop", precision="64", **options)
    for one, other in zip(at_once, alone, strict=True):
        for name, tensor in one.state_dict().items():
            np.testing.assert_allclose(tensor, other.state_dict()[name], rtol=1e-7, atol=1e-9)


# -- its features as a loss --------------------------------------------------------------------


def test_the_loss_with_features_against_numpy_reference():
    dae, x = DAE(3, 20, 5, seed=1), normal(6, 3, 20)
    model = vae(dae)
    losses = model.step({"x": x}, state(training=False))
    with torch.no_grad():
        mean, log_variance = model.network.encode(x[None])
        output = model.network.decode(mean)
        j_output, j_x = (dae.features(t)[0].numpy() for t in (output, x[None]))
        kl = gaussian_kl(mean, log_variance).sum(-1).mean()
    error = 0.5 * 60 / 0.5 * ((j_output - j_x) ** 2).sum(1).mean()  # 60 values, variance 5 x 0.1
    assert float(losses["reconstruction"]) == pytest.approx(error, rel=1e-6)
    assert float(losses["loss"]) == pytest.approx(error + 4 * float(kl), rel=1e-6)


def test_the_mean_feature_is_as_wrong_as_a_flat_line():
    # Half the number of values, as by the squared error of standardised signals: beta's measure.
    dae, x = DAE(6, 32, 20).double(), torch.from_numpy(structured(300, 0)).double()
    batches = Batches({"x": x.numpy()}, 64)
    variance = feature_variance(dae, batches)
    error = FeatureError(dae, variance)
    with torch.no_grad():
        features = dae.features(x[None])
    deviation = (features - features.mean(1, keepdim=True)).square().sum(-1)
    np.testing.assert_allclose(variance, features[0].numpy().var(0), rtol=1e-10)
    assert float((error.scale * deviation / 2).mean()) == pytest.approx(6 * 32 / 2)
    assert float(x.square().sum((1, 2)).mean() / 2) == pytest.approx(6 * 32 / 2, rel=1e-3)


def test_features_that_tell_nothing_give_a_finite_loss():
    dae = DAE(3, 20, 5)
    error = FeatureError(dae, torch.zeros(5))
    assert torch.isfinite(error(torch.zeros(1, 4, 3, 20), torch.ones(1, 4, 3, 20))).all()


def test_the_autoencoder_is_frozen_and_the_decoder_learns_through_it():
    dae = DAE(3, 20, 5).double()
    model = vae(dae)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, Batches({"x": normal(32, 3, 20).numpy()}, 8), max_epochs=2, precision="64",
          device="cpu")  # fmt: skip
    moved = {name for name, tensor in model.state_dict().items() if (tensor != before[name]).any()}
    assert not any(name.startswith("features") for name in moved)
    assert {"network.up_2.weight", "network.down_1.weight"} <= moved
    assert all(p.grad is None for p in dae.parameters())


def test_a_stack_has_an_autoencoder_for_each_member():
    models = [vae(DAE(3, 20, 5, seed=m), beta=m, seed=m) for m in (1, 2)]
    x = torch.stack([normal(4, 3, 20, seed=m) for m in range(2)])
    joined = stack(models)
    found = joined.step({"x": x}, state(2))
    for m, model in enumerate(models):
        alone = State(10, [torch.Generator().manual_seed(m)])
        for name, value in model.step({"x": x[m]}, alone).items():
            assert float(found[name][m]) == pytest.approx(float(value), rel=1e-10)
    frozen = [name for name, p in joined.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.startswith("features.") for name in frozen)


def test_without_features_nothing_is_added():
    model = vae()
    assert all(name == "beta" or name.startswith("network.") for name in model.state_dict())
    assert "features" not in model.signature()
    assert "features" in vae(DAE(3, 20, 5)).signature()
