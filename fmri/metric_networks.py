"""The frozen networks of the reconstruction metrics, from local weight files.

A file holds the state dict of torchvision's (for CLIP: open_clip's) network as safetensors; other
formats hold pickles and are not opened. From torchvision, once, where there is a network::

    from safetensors.torch import save_file
    save_file(torchvision.models.alexnet(weights="DEFAULT").state_dict(), "alexnet.safetensors")
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.artefact import listing
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["NETWORKS", "Network", "features", "file_digest", "resized"]

Floats = NDArray[np.float32]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Network:
    """A network of the metrics.

    Attributes
    ----------
    arch : str
        As torchvision or open_clip names it.
    size : int
        Side of the input, pixels.
    layers : mapping of str to str
        Metric and the layer that it reads.
    mean, std : tuple of float
        Of the input's channels.
    ignore : tuple of str
        Beginnings of names that the file may hold or lack: layers behind the one that is read.
    """

    arch: str
    size: int
    layers: Mapping[str, str]
    mean: tuple[float, ...] = _IMAGENET[0]
    std: tuple[float, ...] = _IMAGENET[1]
    ignore: tuple[str, ...] = ()


NETWORKS: dict[str, Network] = {
    "alexnet": Network("alexnet", 256, {"alexnet2": "features.4", "alexnet5": "features.11"}),
    "inception": Network(
        "inception_v3", 342, {"inception": "avgpool"}, ignore=("fc.", "AuxLogits.")
    ),
    "clip": Network("ViT-L-14-quickgelu", 224, {"clip": ""}, *_CLIP),
    "effnet_b1": Network("efficientnet_b1", 255, {"effnet_b1": "avgpool"}, ignore=("classifier.",)),
    "swav": Network(
        "resnet50", 224, {"swav": "avgpool"}, ignore=("fc.", "projection_head.", "prototypes.")
    ),
}
"""Networks by the name of their weight file's key, as in MindEye's evaluation."""


def features(
    name: str,
    weights: str | Path,
    pictures: Mapping[str, NDArray[Any]],
    *,
    antialias: bool = False,
    batch_size: int = 32,
    device: str = "cpu",
) -> dict[str, dict[str, Floats]]:
    """Compute the features of a network for several sets of pictures.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    weights : path
        A ``.safetensors`` file.
    pictures : mapping of str to ndarray (picture, channel, row, column)
        In [0, 1]; grey ones become three equal channels.
    antialias : bool
        Of the resize.
    batch_size : int
    device : str

    Returns
    -------
    dict of str to dict of str to ndarray of float32, shape (picture, feature)
        By metric, then by set.

    Raises
    ------
    InputError
        Where the network isn't known or its library is missing.
    DataError
        Where the file is missing or isn't safetensors.
    ContractError
        Where it holds the weights of another architecture.
    """
    if name not in NETWORKS:
        raise InputError(f"there is no network '{name}'; expected one of {', '.join(NETWORKS)}")
    import torch

    from neuro.device import device_of

    network, target = NETWORKS[name], device_of(device)
    model = _load(network, Path(weights)).to(target).eval()
    taken = _watch(model, network)
    out: dict[str, dict[str, Floats]] = {metric: {} for metric in network.layers}
    for kind, whole in pictures.items():
        parts: dict[str, list[Floats]] = {metric: [] for metric in network.layers}
        for batch in _batches(whole, batch_size):
            with torch.inference_mode():
                result = model(_normalised(batch, network, antialias).to(target))
            for metric, layer in network.layers.items():
                value = taken[layer] if layer else result
                parts[metric].append(value.flatten(1).float().cpu().numpy())
        for metric, values in parts.items():
            out[metric][kind] = np.concatenate(values)
    return out


def resized(
    pictures: NDArray[Any], size: int, *, antialias: bool = False, channels: int | None = None
) -> torch.Tensor:
    """Resize pictures to a square, bilinearly, as torchvision's ``Resize`` does for tensors.

    `antialias` is pinned: its default changed between the versions of torchvision with which the
    published numbers were made and those of today. False is what those had.

    Parameters
    ----------
    pictures : ndarray, shape (picture, channel, row, column)
    size : int
    antialias : bool
    channels : int, optional
        3 turns grey into colour.

    Returns
    -------
    Tensor of float32, shape (picture, channel, size, size)
    """
    import torch

    x = torch.from_numpy(np.array(pictures, dtype=np.float32, order="C"))
    if channels == 3 and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if tuple(x.shape[2:]) == (size, size):
        return x
    return torch.nn.functional.interpolate(
        x, (size, size), mode="bilinear", align_corners=False, antialias=antialias
    )


def file_digest(path: str | Path) -> str:
    """Return 16 bytes of BLAKE2b of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# Inside ---------------------------------------------------------------------------------------


def _batches(pictures: NDArray[Any], batch_size: int) -> Iterator[NDArray[Any]]:
    for first in range(0, len(pictures), batch_size):
        yield pictures[first : first + batch_size]


def _normalised(batch: NDArray[Any], network: Network, antialias: bool) -> torch.Tensor:
    import torch

    x = resized(batch, network.size, antialias=antialias, channels=3)
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.mean, network.std))
    return (x - mean) / std


def _watch(model: Any, network: Network) -> dict[str, torch.Tensor]:
    """Keep what the layers give out, at each pass."""
    taken: dict[str, torch.Tensor] = {}
    for layer in network.layers.values():
        if layer:
            model.get_submodule(layer).register_forward_hook(
                # The layer after it may work in place.
                lambda _m, _i, out, layer=layer: taken.__setitem__(layer, out.clone())
            )
    return taken


def _load(network: Network, path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: no such weight file of {network.arch}; {listing(path.parent)}")
    if network.arch.startswith("ViT"):
        from fmri.clip_targets import OpenCLIP

        return OpenCLIP(network.arch, path, layer="pooled", device="cpu").visual
    model = _empty(network.arch)
    state = _state(path)
    expected = set(model.state_dict())
    wrong = sorted(
        f"{key} is {'missing' if key in expected else 'not known'}"
        for key in expected.symmetric_difference(state)
        if not key.startswith(network.ignore)
    )
    wrong += _other_shapes(model, state, network)
    if wrong:
        raise ContractError(
            f"{path}: these are not the weights of {network.arch}: {'; '.join(wrong[:4])} "
            f"({len(wrong)} in all); give the file of that network"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)
    return model


def _other_shapes(model: Any, state: dict[str, Any], network: Network) -> list[str]:
    return [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in model.state_dict().items()
        if key in state and not key.startswith(network.ignore) and state[key].shape != value.shape
    ]


def _empty(arch: str) -> Any:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"torchvision can't be imported ({error}): install a build that fits your torch, for "
            f"{arch} of the reconstruction metrics"
        ) from error
    # transform_input: how torchvision's own Inception weights were evaluated.
    options = {"init_weights": False, "transform_input": True} if "inception" in arch else {}
    return getattr(models, arch)(weights=None, **options)


def _state(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path}: no safetensors file ({error}); other formats hold pickles and are not "
            "opened: save the network's state dict by safetensors.torch.save_file"
        ) from error
    return {key.removeprefix("module."): value for key, value in state.items()}
