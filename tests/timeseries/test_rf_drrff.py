"""DR-RFF: sizes of the paper, every loss term, the label of shuffled signals, saving, decoding."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import neuro
from neuro.cli import app
from neuro.data import save_dataset
from neuro.errors import ContractError, DataError, InputError
from neuro.nn.objective import State
from timeseries.rf.augment import augment, unit_power
from timeseries.rf.carrier import phase_step
from timeseries.rf.drrff import DRRFF
from timeseries.rf.networks import CosineHead, Extractor, UNet, fold, frozen_statistics
from timeseries.rf.objective import DRRFF as Objective
from timeseries.rf.objective import Sizes, Weights
from timeseries.rf.preprocess import Steps, prepare_dataset
from timeseries.rf.simulate import Study, simulate_bursts

SMALL = {"n_latents": 8, "width": 1, "unet_width": 1, "batch_size": 16, "device": "cpu"}
STUDY = Study(n_known=4, n_validation=2, n_unknown=2, n_train=8, n_enrol=2, n_test=4, n_samples=256)


@pytest.fixture(scope="module")
def bursts():
    return prepare_dataset(simulate_bursts(STUDY, 0), Steps(n_samples=256))


@pytest.fixture(scope="module")
def training(bursts):
    own = bursts.isel(trial=np.flatnonzero(bursts["part"].values == "train"))
    return own["signal"].assign_attrs(own.attrs)


@pytest.fixture(scope="module")
def model(training):
    return DRRFF(max_epochs=2, random_state=0, **SMALL).fit(training)


# Networks -------------------------------------------------------------------------------------


def test_the_paper_s_sizes():
    with torch.device("meta"):
        f, head = Extractor(1280, 18, 512), CosineHead(512, 54, 10.0, 0.0)
        q, g = UNet(1280, 64), UNet(1280, 64, 512)
    count = [sum(p.numel() for p in m.parameters()) for m in (f, head, q, g)]
    assert count[0] + count[1] == 7_918_838
    assert count[2] == 17_266_882
    assert count[3] == 18_580_162
    assert q.shape == (512, 1, 5)


def test_folding_keeps_the_samples_in_rows():
    x = torch.arange(2 * 512.0).reshape(1, 2, 512)
    image = fold(x)
    assert image.shape == (1, 2, 16, 32)
    assert torch.equal(image[0, 0, 1], torch.arange(32.0, 64.0))
    assert fold(torch.zeros(1, 2, 300)).shape == (1, 2, 16, 32)


def test_unets_keep_the_length_and_begin_at_the_identity():
    x = torch.randn(2, 2, 300)
    net = UNet(300, 2, residual=True).eval()
    assert torch.equal(net(x, torch.randn(2, *net.shape)), x)
    plain = UNet(300, 2, 8).eval()
    assert plain(x, torch.randn(2, 8)).shape == x.shape


def test_the_margin_lowers_the_right_logit_only():
    head = CosineHead(8, 3, 10.0, 0.5)
    z, y = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
    free, held = head(z), head(z, y)
    wrong = torch.ones_like(free, dtype=torch.bool).scatter(1, y[:, None], False)
    assert torch.allclose(free[wrong], held[wrong])
    angle = torch.acos((free / 10).gather(1, y[:, None]).clamp(-1, 1))
    assert torch.allclose(held.gather(1, y[:, None]), 10 * torch.cos(angle + 0.5), atol=1e-3)


def test_made_signals_do_not_move_running_means():
    net = Extractor(256, 1, 4).train()
    before = net.layers[1].running_mean.clone()
    with frozen_statistics(net):
        net(torch.randn(4, 2, 256) + 5)
    assert torch.equal(net.layers[1].running_mean, before)
    net(torch.randn(4, 2, 256) + 5)
    assert not torch.equal(net.layers[1].running_mean, before)


# Losses ---------------------------------------------------------------------------------------


def objective(**weights):
    torch.manual_seed(0)
    return Objective(Sizes(256, 3, 8, 1, 1), Weights(**weights)).double()


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, 256, generator=generator, dtype=torch.float64)
    return {"x": unit_power(x), "y": torch.tensor([0, 1, 2] * (n // 3))}


def state(phase, seed=0):
    return State(1, [torch.Generator().manual_seed(seed)], phase=phase)


def test_every_term_of_q_and_g_equals_its_formula():
    model, data = objective(alpha=7.0, beta=3.0), batch()
    found = model.step(data, state("qg"))
    with frozen_statistics(model.f):
        noise = state("").normal((1, 6, *model.q.shape), data["x"])[0]
        background = model.q(data["x"], noise)
        logits = model.head(model.f(background))
        own = torch.log_softmax(logits, 1)[torch.arange(6), data["y"]]
        known = own.mean() - math.log(1 / 3)
        z = model.f(data["x"])
        made = model.g(background, z)
        cycle = ((model.f(made) - z) ** 2).mean()
    near, again = ((background - data["x"]) ** 2).mean(), ((made - data["x"]) ** 2).mean()
    expected = 7 * max(0.0, known.item()) + near + again + 3 * cycle
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert found["known"].item() == pytest.approx(known.item(), rel=1e-9)


def test_the_adversarial_term_rests_below_epsilon():
    model, data = objective(alpha=1e3, beta=0.0, epsilon=5.0), batch()
    loss = model.step(data, state("qg"))["loss"]
    assert loss.item() == pytest.approx(
        5e3 + sum(model.step(data, state("qg"))[k].item() for k in ("near", "again")), rel=1e-9
    )


def test_shuffled_signals_bear_the_device_of_the_fingerprint():
    model, data = objective(lam=0.5), batch()
    seen = {}
    model.make = lambda background, z: seen.setdefault("made", background + z.mean() * 0)
    found = model.step(data, state("f"))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(data["y"], data["y"][order])
    logits = model.head(model.f(seen["made"]))
    right = torch.nn.functional.cross_entropy(logits, data["y"])
    assert found["shuffled"].item() == pytest.approx(right.item(), rel=1e-6)
    total = 0.5 * found["plain"] + 0.5 * found["shuffled"]
    assert found["loss"].item() == pytest.approx(total.item())


def test_the_carrier_goes_with_the_fingerprint():
    model = ours()
    x = unit_power(tone(6, step=0.05))
    other = unit_power(tone(6, step=-0.03))
    with torch.no_grad():
        background = model.background(x)
        assert phase_step(as_complex(background)).abs().max() < 0.02  # taken off
        model.carrier.layers[-1].weight.zero_()
        model.carrier.layers[-1].bias.fill_(-0.3)  # in units of 0.1 rad per sample
        made = model.make(model._still(x), model.f(other))
    assert torch.allclose(phase_step(as_complex(made)), torch.tensor(-0.03).double(), atol=2e-3)


def test_the_carrier_is_learned_from_the_fingerprint():
    model, data = ours(), batch()
    found = model.step(data, state("qg"))
    z, step = model.f(data["x"]), phase_step(as_complex(data["x"]))
    expected = ((model.carrier(z) - step) ** 2).mean() / step.var(unbiased=False)
    assert found["carrier"].item() == pytest.approx(expected.item(), rel=1e-6)
    found["loss"].backward()
    assert model.carrier.layers[-1].weight.grad.abs().sum() > 0


def test_backgrounds_without_skips_have_the_phase_and_level_of_their_burst():
    model, data = ours(), batch()
    with torch.no_grad():
        still = model._still(data["x"])
        found, own = as_complex(model.background(data["x"])), as_complex(still)
    # By least squares: what is left is at right angles to the background.
    left = ((own - found) * found.conj()).sum(1).abs()
    assert left.max() < 1e-4 * found.abs().square().sum(1).max()


def test_without_skips_a_burst_is_told_by_the_bottleneck_alone():
    net = UNet(256, 4, n_skips=0).eval()
    assert [tuple(m.shape[1:]) for m in net.maps] == [
        (32, 2, 2), (16, 4, 4), (8, 8, 8), (4, 16, 16),
    ]  # fmt: skip
    x, fixed = torch.randn(2, 2, 256), torch.zeros(2, *net.shape)
    net.down[-1].register_forward_hook(lambda *_: torch.zeros(2, *net.shape))
    made = net(x, fixed)
    assert torch.equal(made[0], made[1])
    kept = UNet(256, 4).eval()
    kept.down[-1].register_forward_hook(lambda *_: torch.zeros(2, *net.shape))
    assert not torch.equal(*kept(x, fixed))


def ours():
    torch.manual_seed(0)
    return Objective(Sizes(256, 3, 8, 1, 1, True, True, 0), Weights()).double()


def tone(n, step):
    generator = torch.Generator().manual_seed(2)
    part = torch.randn(n, 64, generator=generator, dtype=torch.complex128)
    x = part.repeat(1, 4) * torch.exp(1j * step * torch.arange(256))
    return torch.stack([x.real, x.imag], 1)


def as_complex(x):
    return torch.complex(x[:, 0], x[:, 1])


def test_each_turn_moves_its_own_networks():
    model, data = objective(fresh=1.0), batch()
    names = {"qg": {"q", "g"}, "fresh": {"fresh"}, "f": {"f", "head"}}
    assert [p.name for p in model.phases()] == ["qg", "fresh", "f"]
    for phase in model.phases():
        assert {prefix.rstrip(".") for prefix in phase.parameters} == names[phase.name]
        model.zero_grad()
        model.step(data, state(phase.name))["loss"].backward()
        for prefix in phase.parameters:
            grads = [p.grad for n, p in model.named_parameters() if n.startswith(prefix)]
            assert any(g is not None and g.abs().sum() > 0 for g in grads), (phase.name, prefix)


def test_without_lambda_the_extractor_is_alone():
    model = objective(lam=0.0)
    assert model.q is None
    assert [p.name for p in model.phases()] == ["f"]


@pytest.mark.parametrize("kind", ["none", "awgn", "fir", "awgn_fir"])
def test_augmentation_keeps_unit_power(kind):
    x = unit_power(torch.randn(400, 2, 128))
    generator = torch.Generator().manual_seed(0)
    found = augment(x, kind, generator, snr=(10.0, 10.0))
    assert torch.allclose(found.square().sum(1).mean(1), torch.ones(400), atol=1e-4)
    if kind == "none":
        assert torch.equal(found, x)
    if kind == "awgn":
        # At 10 dB the signal keeps 10/11 of the power.
        share = (found * x).sum((1, 2)) / x.square().sum((1, 2))
        assert share.mean().item() == pytest.approx(math.sqrt(10 / 11), abs=0.01)


# The encoder ----------------------------------------------------------------------------------


def test_training_is_repeatable(model, training):
    again = DRRFF(max_epochs=2, random_state=0, **SMALL).fit(training)
    np.testing.assert_array_equal(again.transform(training), model.transform(training))
    assert {"qg_loss", "f_plain", "f_shuffled"} <= set(model.history_[0])


def test_fingerprints_and_devices(model, training):
    codes = model.transform(training)
    assert codes.dims == ("trial", "latent")
    assert codes.shape == (len(training), 8)
    proba = model.predict_proba(training)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert set(model.predict(training)) <= set(model.classes_)
    assert model.background(training[:3]).shape == (3, 2, 256)
    assert model.swap(training[:3], training[3:6]).shape == (3, 2, 256)


def test_saved_and_loaded_it_is_the_same(model, training, tmp_path):
    model.save(tmp_path / "encoder")
    again = neuro.load(tmp_path / "encoder")
    np.testing.assert_array_equal(again.transform(training), model.transform(training))
    np.testing.assert_array_equal(again.background(training), model.background(training))
    assert list(again.classes_) == list(model.classes_)


def test_alone_it_has_no_background(training):
    alone = DRRFF(disentangle=False, max_epochs=1, **SMALL).fit(training)
    with pytest.raises(InputError, match="no Q and G"):
        alone.background(training)


def test_bad_training_data_are_refused(training):
    new = DRRFF(max_epochs=0, **SMALL)
    with pytest.raises(InputError, match="devices are not known"):
        new.fit(training.values)
    with pytest.raises(DataError, match="two or more"):
        new.fit(training.values, ["a"] * len(training))
    with pytest.raises(DataError, match="no device's name"):
        new.fit(training.values, [""] * len(training))
    with pytest.raises(DataError, match="mean power"):
        new.fit(training * 100)
    spoilt = training.copy(data=np.where(training > 1, np.nan, training))
    with pytest.raises(DataError, match="NaN"):
        new.fit(spoilt)
    with pytest.raises(InputError, match="augmentation"):
        DRRFF(augmentation="rain").fit(training)


def test_another_rate_is_refused(model, training):
    with pytest.raises(ContractError, match="sfreq"):
        model.transform(training.assign_attrs(sfreq=5e6))


# Decoding -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(model, bursts, tmp_path_factory):
    from timeseries.rf.evaluate import enrol_groups

    folder = tmp_path_factory.mktemp("lab")
    model.save(folder / "encoder")
    codes = np.asarray(model.transform(bursts["signal"].assign_attrs(bursts.attrs)))
    known = enrol_groups(codes, bursts)["known"]
    save_dataset(known.to_dataset(model.name), folder / "enrolled")
    rng = np.random.default_rng(0)
    for number in range(2):
        row = np.flatnonzero(bursts["part"].values == "test")[number]
        x = bursts["signal"].values[row]
        values = rng.normal(0, 0.003, (20_000, 2))
        for start in (4_000, 12_000):
            values[start : start + 256] += 0.3 * x.T
        values.astype("<f4").tofile(folder / f"scan{number}.cf32")
    return folder


def decode(lab, out, *words):
    files = [str(lab / f"scan{n}.cf32") for n in range(2)]
    return CliRunner().invoke(
        app, ["decode", str(lab / "encoder"), *files, "--out", str(out), *words]
    )


def test_captures_are_verified(lab, tmp_path):
    done = decode(lab, tmp_path / "out", "--sfreq", "4e6", "--enrolled", str(lab / "enrolled"))
    assert done.exit_code == 0, done.output
    table = (tmp_path / "out" / "scan0.tsv").read_text().splitlines()
    assert len(table) == 3  # two bursts
    for column in ("verdict", "nearest", "score"):
        assert column in table[0].split("\t")
    again = decode(lab, tmp_path / "out", "--sfreq", "4e6", "--enrolled", str(lab / "enrolled"))
    assert "2 skipped" in again.output


def test_captures_of_another_rate_are_resampled_only_when_asked(lab, tmp_path):
    unknown = decode(lab, tmp_path / "a")
    assert unknown.exit_code == 1
    assert "give sfreq" in unknown.output
    other = decode(lab, tmp_path / "b", "--sfreq", "8e6")
    assert other.exit_code == 1
    assert "8e+06 Hz, the encoder was trained at 4e+06 Hz" in other.output
    asked = decode(lab, tmp_path / "c", "--sfreq", "8e6", "--resample", "true")
    assert asked.exit_code == 0, asked.output


def test_foreign_enrolments_are_refused(lab, bursts, tmp_path):
    save_dataset(bursts.isel(trial=slice(0, 2)), tmp_path / "no")
    done = decode(lab, tmp_path / "out", "--sfreq", "4e6", "--enrolled", str(tmp_path / "no"))
    assert done.exit_code == 1
    assert "no enrolled devices" in done.output
    other = xr.Dataset(
        {"signal": (("trial", "latent"), np.eye(3, dtype="f4"))},
        {"device": ("trial", list("abc"))},
        {"kind": "enrolled", "threshold": 0.5, "encoder": "rf-drrff"},
    )
    save_dataset(other, tmp_path / "three")
    done = decode(lab, tmp_path / "o2", "--sfreq", "4e6", "--enrolled", str(tmp_path / "three"))
    assert "another encoder" in done.output
    assert json.loads((lab / "encoder" / "config.json").read_text())["encoder"] == "rf-drrff"
