"""The eight metrics: as published, or a cell that says what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fmri.image_metrics import (
    METRICS,
    correlation_distance,
    evaluate_reconstruction,
    pixel_correlation,
    ssim,
    two_way,
)
from fmri.metric_networks import NETWORKS, features, resized
from neuro.errors import ContractError, DataError, InputError


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    real = rng.random((6, 3, 32, 32)).astype(np.float32)
    made = np.clip(real + 0.2 * rng.standard_normal(real.shape), 0, 1).astype(np.float32)
    return made, real


@pytest.fixture(scope="module")
def effnet(tmp_path_factory):
    from safetensors.torch import save_file
    from torchvision import models

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "effnet.safetensors"
    save_file(models.efficientnet_b1(weights=None).state_dict(), path)
    return path


def test_pixel_metrics_follow_the_published_steps(pictures):
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    made, real = pictures
    big = [resized(resized(v, 256).numpy(), 425).numpy().astype(float) for v in pictures]
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*big, strict=True)]
    assert_allclose(pixel_correlation(made, real), expected, rtol=1e-6)
    grey = [rgb2gray(np.moveaxis(v, 1, -1)) for v in big]
    expected = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        for a, b in zip(*grey, strict=True)
    ]
    assert_allclose(ssim(made, real), expected, rtol=1e-4)


@pytest.mark.parametrize("antialias", [False, True])
def test_resizing_is_torchvisions(pictures, antialias):
    from torchvision.transforms.v2 import Resize

    x = torch.from_numpy(pictures[0])
    for size in (20, 425):
        theirs = Resize((size, size), antialias=antialias)(x)
        assert_allclose(resized(pictures[0], size, antialias=antialias), theirs, atol=1e-5)


def test_two_way_is_the_published_loop():
    rng = np.random.default_rng(1)
    real = rng.standard_normal((8, 30))
    made = real + 1.5 * rng.standard_normal((8, 30))
    r = np.corrcoef(real, made)[:8, 8:]
    expected = (r < np.diag(r)).sum(0) / 7
    assert_allclose(two_way(made, real), expected)
    assert_allclose(correlation_distance(made, real), 1 - np.diag(r))


def test_without_weights_cells_say_what_is_missing(pictures):
    scores = evaluate_reconstruction(*pictures)
    rows = {row["metric"]: row for row in scores.rows()}
    assert len(rows) == 8
    assert rows["PixCorr"]["value"].startswith("0.")
    assert scores.estimates["reconstruct.pixcorr"].n == 6
    for metric in ("alexnet2", "alexnet5", "inception", "clip", "effnet_b1", "swav"):
        assert scores.estimates[f"reconstruct.{metric}"].value is None
        assert "weights of" in scores.missing[metric]
    assert "weights of ViT-L-14-quickgelu missing" in rows["CLIP"]["value"]
    assert set(scores.per_picture) == {"pixcorr", "ssim"}
    assert list(METRICS) == [name.split(".")[1] for name in scores.estimates]


def test_a_network_is_loaded_from_its_file(pictures, effnet):
    made, real = pictures
    small = (made[:3], real[:3])
    scores = evaluate_reconstruction(*small, weights={"effnet_b1": effnet})
    found = scores.estimates["reconstruct.effnet_b1"]
    assert 0 < found.value < 2
    assert found.chance is None
    assert len(scores.weights["effnet_b1"]) == 32
    same = features("effnet_b1", effnet, {"a": real[:2], "b": real[:2]}, batch_size=1)
    assert same["effnet_b1"]["a"].shape == (2, 1280)
    assert_allclose(same["effnet_b1"]["a"], same["effnet_b1"]["b"])


def test_features_are_those_of_torchvisions_extractor(pictures, effnet):
    from safetensors.torch import load_file
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    model = models.efficientnet_b1(weights=None).eval()
    model.load_state_dict(load_file(effnet))
    network = NETWORKS["effnet_b1"]
    x = resized(pictures[1][:1], 255)
    x = (x - torch.tensor(network.mean)[:, None, None]) / torch.tensor(network.std)[:, None, None]
    with torch.inference_mode():
        theirs = create_feature_extractor(model, ["avgpool"])(x)["avgpool"].flatten(1)
    ours = features("effnet_b1", effnet, {"a": pictures[1][:1]})["effnet_b1"]["a"]
    assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_layers_are_there():
    """Every layer that is read exists in its network; built without memory."""
    from torchvision import models

    for network in NETWORKS.values():
        if network.arch.startswith("ViT"):
            continue
        options = {"init_weights": False} if "inception" in network.arch else {}
        with torch.device("meta"):
            model = getattr(models, network.arch)(weights=None, **options)
        for layer in network.layers.values():
            assert model.get_submodule(layer) is not None


def test_weights_of_another_network_are_refused(pictures, effnet, tmp_path):
    with pytest.raises(ContractError, match="not the weights of resnet50"):
        evaluate_reconstruction(*pictures, weights={"swav": effnet})
    with pytest.raises(InputError, match="weights of vgg"):
        evaluate_reconstruction(*pictures, weights={"vgg": effnet})
    with pytest.raises(DataError, match="no such weight file"):
        evaluate_reconstruction(*pictures, weights={"swav": tmp_path / "none.safetensors"})
    pickle = tmp_path / "swav.pth"
    pickle.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(DataError, match="pickles"):
        evaluate_reconstruction(*pictures, weights={"swav": pickle})


def test_swavs_own_file_layout_is_read(tmp_path):
    from safetensors.torch import save_file
    from torchvision import models

    from fmri.metric_networks import _load

    state = models.resnet50(weights=None).state_dict()
    own = {f"module.{k}": v for k, v in state.items() if not k.startswith("fc.")}
    own["module.prototypes.weight"] = torch.zeros(3, 4)
    save_file(own, tmp_path / "swav.safetensors")
    model = _load(NETWORKS["swav"], tmp_path / "swav.safetensors")
    assert torch.equal(model.conv1.weight, state["conv1.weight"])


def test_pictures_that_can_t_be_are_refused(pictures):
    made, real = pictures
    with pytest.raises(DataError, match="6 real"):
        evaluate_reconstruction(made[:3], real)
    with pytest.raises(DataError, match=r"expected \[0, 1\]"):
        ssim(made * 255, real)
    with pytest.raises(DataError, match="channels"):
        ssim(made[:, 0], real[:, 0])
    with pytest.raises(DataError, match=r"expected \[0, 1\]"):
        ssim(np.full_like(made, np.nan), real)


def test_a_flat_reconstruction_correlates_with_nothing(pictures):
    flat = np.full_like(pictures[0], 0.5)
    assert_allclose(pixel_correlation(flat, pictures[1]), 0)


def test_grey_and_colour_pictures_meet(pictures):
    made, real = pictures
    assert pixel_correlation(made[:, :1], real).shape == (6,)
