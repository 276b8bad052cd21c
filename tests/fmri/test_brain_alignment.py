"""Alignment with pictures and texts: temperatures, augmentation, prompts, the pretext task."""

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr

import neuro
from fmri.brain_alignment import AlignedBrain, AlignmentObjective, augment
from fmri.brain_encoders import CausalEncoder, CausalSizes, LinearEncoder
from fmri.brain_pretraining import PretrainedBrain
from fmri.brain_prompts import PromptLearner, SoftPrompts, TextTower, embed_texts
from fmri.brain_windows import cut_windows
from fmri.whole_brain import WholeBrain
from neuro.errors import ContractError, DataError, InputError
from neuro.nn.contrastive import info_nce
from neuro.nn.mindeye import Bank
from neuro.nn.objective import State

CONFIG = {
    "embed_dim": 6,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "patch_size": 4, "head_width": 4},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return TextTower(path)


def batch(n=6, t=4, p=5):
    torch.manual_seed(0)
    return {"x": torch.randn(n, t, p), "mask": torch.ones(n, t, dtype=torch.bool),
            "row": torch.arange(n)}  # fmt: skip


def state():
    return State(1, [torch.Generator().manual_seed(0)])


def test_the_loss_is_the_mean_of_two_symmetric_terms():
    torch.manual_seed(0)
    brain = AlignedBrain(LinearEncoder(5, 8), {"image": 3, "text": 4})
    image, text = torch.randn(6, 3), torch.randn(6, 4)
    objective = AlignmentObjective(brain, {"image": Bank(image), "text": Bank(text)})
    data, quiet = batch(), State(1, training=False)
    found = objective.step(data, quiet)
    with torch.no_grad():
        pooled = brain.encoder(data["x"], data["mask"])
        own = [
            info_nce(brain.project(pooled, name), target, 0.07)
            for name, target in (("image", image), ("text", text))
        ]
    torch.testing.assert_close(found["loss"].detach(), sum(own) / 2)
    alone = AlignedBrain(LinearEncoder(5, 8), {"image": 3})
    only = AlignmentObjective(alone, {"image": Bank(image)})
    assert set(only.step(data, quiet)) == {"loss", "image"}


def test_temperatures_learn_and_stay_in_bounds():
    torch.manual_seed(0)
    brain = AlignedBrain(LinearEncoder(5, 8), {"image": 3, "text": 4})
    banks = {"image": Bank(torch.randn(6, 3)), "text": Bank(torch.randn(6, 4))}
    objective = AlignmentObjective(brain, banks)
    objective.step(batch(), state())["loss"].backward()
    gradients = {k: p.grad.item() for k, p in brain.log_scale.items()}
    assert all(gradients.values())
    assert gradients["image"] != gradients["text"]
    # By differences: the gradient of a learned temperature is that of the loss.
    with torch.no_grad():
        values = []
        for step in (1e-2, -1e-2):
            brain.log_scale["image"].fill_(math.log(1 / 0.07) + step)
            values.append(objective.step(batch(), state())["loss"].item())
        slope = (values[0] - values[1]) / 2e-2
    assert slope == pytest.approx(gradients["image"], rel=0.02)
    brain.log_scale["image"].data.fill_(9.0)
    objective.step(batch(), state())
    assert brain.temperature("image").item() == pytest.approx(0.01)


def test_augmentation_empties_a_fifth_and_moves_recorded_volumes_only():
    x = 1 + torch.arange(200 * 5 * 7, dtype=torch.float32).view(200, 5, 7)
    mask = torch.ones(200, 5, dtype=torch.bool)
    mask[:, 4] = False
    mask[0, 1] = False
    generator = torch.Generator().manual_seed(0)
    found = augment(x, mask, generator, sparse=0.2, shuffle=False)
    assert 0.18 < (found == 0).float().mean() < 0.22
    assert torch.equal(augment(x, mask, generator, sparse=0, shuffle=False), x)
    moved = augment(x, mask, generator, sparse=0, shuffle=True)
    assert torch.equal(moved[:, 4], x[:, 4])
    assert torch.equal(moved[0, 1], x[0, 1])
    assert torch.equal(moved.sort(1).values, x)
    assert 0.2 < (moved[1:, 0, 0] == x[1:, 0, 0]).float().mean() < 0.3  # one of four


def test_prompts_learn_through_the_frozen_tower(tower):
    torch.manual_seed(0)
    brain = AlignedBrain(LinearEncoder(5, 8), {"image": 3, "text": tower.n_features})
    prompts = SoftPrompts(tower, 3, "brain")
    words = ["bottle", "sink", "a dog", "two cats", "house", "tree"]
    prompts.learn(words, PromptLearner(3, tower.width, 8, "brain"))
    objective = AlignmentObjective(brain, {"image": Bank(torch.randn(6, 3))}, prompts=prompts)
    objective.step(batch(), state())["text"].backward()
    learned = dict(prompts.learned.named_parameters())
    assert set(learned) == {"base", "net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"}
    assert all(parameter.grad.abs().max() > 0 for parameter in learned.values())
    assert all(parameter.grad is None for parameter in tower.parameters())
    assert not any(name.startswith("prompts._held") for name in objective.state_dict())


def test_context_vectors_stand_between_start_and_words(tower):
    from open_clip.model import CLIP

    model = CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], CONFIG["text_cfg"]).eval()
    with torch.no_grad():
        for name, value in tower.network.state_dict().items():
            dict(model.named_parameters())[name].copy_(value)
        ids = tower.tokenize(["a dog", "sink"])
        torch.testing.assert_close(tower(ids), model.encode_text(ids))
        # The word embedding of "red" as context is the text with that word.
        red = tower.network.token_embedding(tower.tokenize(["red"])[:, 1:2]).expand(2, -1, -1)
        torch.testing.assert_close(
            tower(tower.tokenize(["dog", "sink"], 1), red),
            tower(tower.tokenize(["red dog", "red sink"])),
        )


def test_prompts_are_saved_and_texts_found(tower, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"i{n}" for n in range(20)]
    X = xr.DataArray(
        rng.normal(size=(40, 5, 3)).astype(np.float32),
        dims=("trial", "parcel", "time"),
        coords={"item": ("trial", names * 2)},
    )
    y = xr.DataArray(rng.normal(size=(20, 3)), dims=("name", "f"), coords={"name": names})
    text = {name: f"thing {n}" for n, name in enumerate(names)}
    model = WholeBrain("linear", max_epochs=2)
    model.fit(X, y, text=text, prompts=SoftPrompts(tower, 2, "brain"))
    model.save(tmp_path / "encoder")
    other = neuro.load(tmp_path / "encoder")
    assert np.array_equal(model.predict_text(X), other.predict_text(X))
    assert other.target_["prompts"]["random_weights"]
    found = other.embed_texts(["thing 3"], tower)
    np.testing.assert_array_equal(found, model.embed_texts(["thing 3"], tower))
    assert not np.allclose(found, embed_texts(tower, ["thing 3"]))
    plain = WholeBrain("linear", max_epochs=1).fit(X, y, text=text, prompts=SoftPrompts(tower, 0))
    assert plain.predict_text(X).shape == (40, 6)
    text.pop("i7")
    with pytest.raises(DataError, match="1 of 20 items have no text: i7"):
        WholeBrain("linear").fit(X, y, text=text, prompts=SoftPrompts(tower, 2))
    with pytest.raises(DataError, match="tokens; expected 1 to 8"):
        tower.tokenize(["one two three four five six seven eight nine"], 2)


# Pretraining ----------------------------------------------------------------------------------


def runs(n=6, length=40, parcels=8):
    """Series that follow themselves: x_t = 0.9 x_{t-1} + noise, mixed over parcels."""
    found = []
    for number in range(n):
        rng = np.random.default_rng(number)
        hidden = np.zeros((length, 3))
        for t in range(1, length):
            hidden[t] = 0.9 * hidden[t - 1] + rng.normal(size=3)
        mix = np.random.default_rng(99).normal(size=(3, parcels))
        values = hidden @ mix + 0.1 * rng.normal(size=(length, parcels))
        found.append(xr.Dataset(
            {"signal": (("time", "parcel"), values.astype(np.float32))},
            {"parcel": [f"p{k}" for k in range(parcels)], "time": np.arange(length) * 2.0,
             **{a: ("parcel", np.random.default_rng(k).normal(0, 40, parcels))
                for k, a in enumerate("xyz")}},
            {"t_r": 2.0, "subject": f"s{number % 2}", "run": f"r{number}"},
        ))  # fmt: skip
    return found


def test_windows_leave_out_what_is_tested_on():
    found = cut_windows(runs(), 15, stride=10, exclude=["s0/r2", "s1"])
    assert sorted(set(found["run"].values)) == ["r0", "r4"]
    assert found["onset"].values[:4].tolist() == [0.0, 20.0, 40.0, 50.0]
    assert found["signal"].dims == ("trial", "parcel", "time")
    with pytest.raises(InputError, match="exclude names s7"):
        cut_windows(runs(), 15, exclude=["s7"])
    with pytest.raises(DataError, match="s0/r0: has 40 volumes, shorter than the window of 41"):
        cut_windows(runs(), 41)
    mixed = [*runs(2), *runs(1, length=10)]
    assert cut_windows(mixed, 20, short="skip").attrs["short_runs"] == ["s0/r0"]
    broken = runs(2)
    broken[1]["signal"][3, 2] = np.nan
    with pytest.raises(DataError, match="s1/r1: holds NaN"):
        cut_windows(broken, 20)
    with pytest.raises(DataError, match="no run is left"):
        cut_windows(runs(2), 20, exclude=["s0", "s1"])


@pytest.mark.parametrize("encoder", ["causal", "masked"])
def test_pretraining_learns_saves_and_starts_another(encoder, tmp_path):
    data = cut_windows(runs(), 12, stride=4)
    model = PretrainedBrain(encoder, max_epochs=30, sizes={"depth": 1}, batch_size=16)
    model.fit(data)
    losses = [row["val_loss"] for row in model.history_]
    assert min(losses) < 0.9 * losses[0]
    model.save(tmp_path / "encoder")
    other = neuro.load(tmp_path / "encoder")
    assert np.array_equal(other.transform(data), model.transform(data))
    names = [f"i{n % 10}" for n in range(data.sizes["trial"])]
    blocks = data.assign_coords(item=("trial", names)).isel(parcel=slice(None, None, -1))
    y = np.random.default_rng(0).normal(size=(10, 4))[[int(n[1:]) for n in names]]
    tuned = WholeBrain(encoder, pretrained=tmp_path / "encoder", max_epochs=1,
                       learning_rate=1e-9).fit(blocks, y)  # fmt: skip
    assert tuned.sizes_["depth"] == 1
    name = "embed.weight"
    mine = tuned.networks_.brain.encoder.state_dict()[name]
    torch.testing.assert_close(mine, model.network_.state_dict()[name], atol=1e-6, rtol=0)
    # The encoder reads the scale that it was pretrained in, not that of a few labelled trials.
    for part in ("mean", "sd"):
        own, given = (getattr(one.standardizer_, part) for one in (tuned, model))
        assert np.array_equal(own, given)
    with pytest.raises(ContractError, match="this one 'linear'"):
        WholeBrain("linear", pretrained=tmp_path / "encoder").fit(blocks, y)
    fewer = blocks.isel(parcel=slice(0, 7))
    with pytest.raises(ContractError, match="parcels missing"):
        WholeBrain(encoder, pretrained=tmp_path / "encoder").fit(fewer, y)


def test_a_pretrained_encoder_learns_at_its_own_rate(tmp_path):
    data = cut_windows(runs(), 12, stride=4)
    start = PretrainedBrain(max_epochs=1, sizes={"dropout": 0.0}).fit(data)
    names = [f"i{n % 10}" for n in range(data.sizes["trial"])]
    y = np.random.default_rng(0).normal(size=(10, 4))[[int(n[1:]) for n in names]]
    blocks = data.assign_coords(item=("trial", names))
    own = {k: v.clone() for k, v in start.network_.state_dict().items()}

    def moved(rate, pretrained=start):
        model = WholeBrain(encoder_rate=rate, max_epochs=1, random_state=3,
                           validation_fraction=0).fit(blocks, y, pretrained=pretrained)  # fmt: skip
        found = model.networks_.brain.encoder.state_dict()
        return max(float((found[k] - own[k]).abs().max()) for k in own), model

    (kept, probe), (little, _), (much, _) = moved(0.0), moved(0.01), moved(1.0)
    assert kept == 0
    assert 0 < little < 0.1 * much
    assert moved(None)[0] == pytest.approx(moved(0.1)[0])
    scratch = [moved(rate, None)[1].predict(blocks) for rate in (None, 0.0)]
    np.testing.assert_array_equal(*scratch)  # without pretrained weights there is one rate
    assert probe.history_[0]["loss"] > 0


def test_what_has_no_pretext_task_is_refused():
    with pytest.raises(InputError, match="self-supervised"):
        PretrainedBrain("linear").fit(cut_windows(runs(2), 20))
    assert CausalEncoder(8, 2.0, CausalSizes(24, 1, 2)).noise_shape(torch.zeros(3, 4, 8)) == (3,)
