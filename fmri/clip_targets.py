"""Targets of CLIP's image tower, through open_clip, with local weights or from the hub.

References
----------
Radford et al., "Learning transferable visual models from natural language supervision"
(ICML 2021).
Scotti et al., "Reconstructing the mind's eye" (NeurIPS 2023) for the tokens and their norm.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from fmri.autoencoder import arrays_hash
from fmri.targets import Floats, Provider
from neuro.artefact import listing
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["GENERATORS", "OpenCLIP"]

LAYERS = ("tokens", "patches", "pooled", "penultimate")
NORMALIZE = ("none", "cls", "l2")

GENERATORS = {
    "versatile-diffusion": ("tokens", "cls"),
    "stable-unclip": ("pooled", "none"),
    "ip-adapter": ("pooled", "none"),
    "ip-adapter-plus": ("penultimate", "none"),
    "sdxl-unclip": ("patches", "none"),
}
"""Layer and normalisation that each generator was trained with."""

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_HUB = ("hub:", "hf-hub:")
_OPENAI_KEYS = {"input_resolution", "context_length", "vocab_size"}  # of its released archives
_GELU = {True: "QuickGELU", False: "GELU"}


class OpenCLIP(Provider):
    """Tokens of CLIP's image tower.

    Parameters
    ----------
    arch : str, optional
        As open_clip names it (``"ViT-L-14-quickgelu"``), or a JSON file with ``embed_dim`` and
        ``vision_cfg``. Left out where `weights` is a folder or hub id, which says it.
    weights : str or path, optional
        A ``.safetensors`` file; a folder with ``open_clip_config.json`` and
        ``open_clip_model.safetensors``; ``"hub:owner/name"``; or a tag of open_clip
        (``"laion2b_s32b_b82k"``). None is random weights, to try things: marked in everything
        that comes of it.
    layer : {"tokens", "patches", "pooled", "penultimate"}
        All tokens after the last norm and the projection (257 x 768 for ViT-L/14); patch tokens
        after the last norm, not projected (256 x 1664 for ViT-bigG/14); the image embedding, one
        token; all tokens before the last block.
    normalize : {"none", "cls", "l2"}
        Divide all tokens by the norm of the CLS token of the image, as Versatile Diffusion
        expects; every token by its own; or nothing.
    generator : str, optional
        One of `GENERATORS`: sets `layer` and `normalize` to what it was trained with.
    quick_gelu : bool, optional
        Whether the network's activation is QuickGELU; by default as `arch` says.
    device : str
    random_state : int
        Of random weights.
    revision : str, optional
        Of a hub id.

    Raises
    ------
    ContractError
        Where the weights are those of another architecture, or of another activation: OpenAI's
        networks use QuickGELU and, loaded into a plain architecture, silently give other features.
    InputError
        Where open_clip is missing or doesn't know `arch`.
    DataError
        Where there is no such file, or it isn't safetensors (other formats hold pickles).
    """

    kind: ClassVar[str] = "open_clip"

    def __init__(
        self,
        arch: str | Path | None = None,
        weights: str | Path | None = None,
        *,
        layer: str = "tokens",
        normalize: str = "none",
        generator: str | None = None,
        quick_gelu: bool | None = None,
        device: str = "auto",
        random_state: int = 0,
        revision: str | None = None,
    ) -> None:
        self.layer, self.normalize = _form(layer, normalize, generator)
        file, stated, preprocess = find_weights(weights, arch, revision)
        self.arch, config = architecture_of(arch, stated)
        state = {} if file is None else read_weights(file)
        self.quick_gelu = activation_of(
            self.arch, bool(config.get("quick_gelu", False)), quick_gelu, file, stated, state
        )
        self.preprocess = {**_PLAIN, **preprocess, "size": config["vision_cfg"]["image_size"]}
        self.random_weights = file is None
        self.visual = _build(config, self.quick_gelu, random_state)
        if file is not None:
            _load(self.visual, state, file, self.arch)
        self.digest = _file_hash(file) if file is not None else _state_hash(self.visual)
        self.scale = self._scale(config["embed_dim"])
        self.device = device

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, weights, layer, normalisation and preprocessing."""
        return {
            "provider": self.kind,
            "arch": self.arch,
            "weights_hash": ("random-" if self.random_weights else "") + self.digest,
            "layer": f"{self.layer}/{self.normalize}",
            "preprocessing": {**self.preprocess, "quick_gelu": self.quick_gelu},
        }

    def encode(self, images: xr.Dataset) -> Floats:
        """Encode a batch of images of any size; grey ones become three equal channels."""
        return self.encode_pixels(images["signal"].values)

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Encode pixels in [0, 1], ``(image, channel, row, column)``."""
        import torch

        from neuro.device import device_of

        target = device_of(self.device, fallback=True)
        self.visual.to(target)
        with torch.inference_mode():
            x = torch.from_numpy(np.array(pixels, dtype=np.float32, order="C")).to(target)
            tokens = self._normalized(self._tokens(self._prepared(x)).float())
        return tokens.cpu().numpy()

    # Inside -------------------------------------------------------------------------------

    def _prepared(self, x: torch.Tensor) -> torch.Tensor:
        """Resample the shorter side, cut the middle, standardise: as open_clip's own transform."""
        import torch.nn.functional as F

        size = self.preprocess["size"]
        rows, columns = (size, size) if isinstance(size, int) else size
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        new = (rows, columns)
        if self.preprocess["resize_mode"] != "squash":
            factor = max(rows / x.shape[2], columns / x.shape[3])
            new = (max(round(x.shape[2] * factor), rows), max(round(x.shape[3] * factor), columns))
        mode = self.preprocess["interpolation"]
        if x.shape[2:] != new:
            x = F.interpolate(x, new, mode=mode, antialias=True, align_corners=False).clamp(0, 1)
        top, left = (new[0] - rows) // 2, (new[1] - columns) // 2
        x = x[..., top : top + rows, left : left + columns]
        mean, std = (x.new_tensor(self.preprocess[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
        return (x - mean) / std

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        if self.layer == "pooled":
            out = self.visual(x)
            return (out[0] if isinstance(out, tuple) else out)[:, None]
        transformer = getattr(self.visual, "transformer", None)
        if transformer is None or getattr(self.visual, "attn_pool", None) is not None:
            raise InputError(
                f"'{self.arch}' is no plain vision transformer and has no layer '{self.layer}'; "
                "use layer='pooled'"
            )
        if self.layer == "penultimate":
            return self._caught(transformer.resblocks[-2], x)
        tokens = self.visual.ln_post(self._caught(transformer, x))
        if self.layer == "patches":
            return tokens[:, 1:]
        return tokens if self.visual.proj is None else tokens @ self.visual.proj

    def _caught(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        """Run the tower and return what a module of it gave."""
        seen: list[Any] = []
        hook = module.register_forward_hook(lambda _module, _args, out: seen.append(out))
        try:
            self.visual(x)
        finally:
            hook.remove()
        return seen[0]

    def _normalized(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.normalize == "none":
            return tokens
        norm = tokens.norm(dim=-1, keepdim=True)
        return tokens / (norm[:, :1] if self.normalize == "cls" else norm)

    def _scale(self, embed_dim: int) -> float:
        if self.normalize == "none":
            return 1.0
        width = (
            embed_dim if self.layer in ("tokens", "pooled") else self.visual.ln_post.weight.numel()
        )
        return float(np.sqrt(width))


_PLAIN: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],  # of CLIP's own training images
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def _form(layer: str, normalize: str, generator: str | None) -> tuple[str, str]:
    if generator is not None:
        if generator not in GENERATORS:
            raise InputError(
                f"generator is {generator!r}; expected one of {', '.join(sorted(GENERATORS))}"
            )
        layer, normalize = GENERATORS[generator]
    if layer not in LAYERS or normalize not in NORMALIZE:
        raise InputError(
            f"layer is {layer!r} and normalize {normalize!r}; expected one of "
            f"{', '.join(LAYERS)} and of {', '.join(NORMALIZE)}"
        )
    if normalize == "cls" and layer == "patches":
        raise InputError("layer 'patches' has no CLS token to normalise by; use 'tokens'")
    return layer, normalize


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise InputError('open_clip is missing: pip install "open_clip_torch"') from error
    except RuntimeError as error:  # torchvision of another build: its operators don't exist
        raise InputError(
            f"open_clip can't be imported ({error}); torch and torchvision are of different "
            "builds, install both from one index: pip install torch torchvision"
        ) from error
    return open_clip


def find_weights(
    weights: str | Path | None, arch: str | Path | None, revision: str | None
) -> tuple[Path | None, dict[str, Any], dict[str, Any]]:
    """Return the weights file, the architecture stated beside it, and the preprocessing."""
    if weights is None:
        return None, {}, {}
    text, path = str(weights), Path(weights)
    for prefix in _HUB:
        if text.startswith(prefix):
            return _from_folder(_download(text.removeprefix(prefix), revision))
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return path, {}, {}
    return _from_tag(text, arch, revision)


def _from_folder(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    file, config = folder / _WEIGHTS, folder / _CONFIG
    if not file.is_file() or not config.is_file():
        raise DataError(f"{folder}: expected {_CONFIG} and {_WEIGHTS}; {listing(folder)}")
    stated = json.loads(config.read_text())
    preprocess = {k: v for k, v in stated.get("preprocess_cfg", {}).items() if k in _PLAIN}
    return file, stated["model_cfg"], preprocess


def _from_tag(
    tag: str, arch: str | Path | None, revision: str | None
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    found = _open_clip().get_pretrained_cfg(str(arch), tag) if arch is not None else {}
    if not found:
        tags = _open_clip().list_pretrained_tags_by_model(str(arch)) if arch is not None else []
        raise DataError(
            f"{tag}: no such file or folder of weights, and no tag of open_clip for {arch!r} "
            f"({', '.join(tags) or 'it has none'})"
        )
    if not found.get("hf_hub"):
        raise DataError(f"{tag}: open_clip has no safetensors of it on the hub; convert a copy")
    folder = _download(found["hf_hub"].rstrip("/"), revision)
    file, _, _ = _from_folder(folder)
    preprocess = {k: _listed(v) for k, v in found.items() if k in _PLAIN}
    return file, {"quick_gelu": bool(found.get("quick_gelu", False))}, preprocess


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=[_CONFIG, _WEIGHTS])
    except Exception as error:  # the hub has many ways to fail
        raise DataError(f"hub:{name}: can't be downloaded ({error})") from error
    return Path(folder)


def architecture_of(arch: str | Path | None, stated: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if arch is None:
        if "vision_cfg" not in stated:
            raise InputError("arch is missing: name open_clip's architecture of these weights")
        return "stated by the weights", stated
    if str(arch).endswith(".json"):
        path = Path(arch)
        if not path.is_file():
            raise DataError(f"{path}: no such architecture file; {listing(path.parent)}")
        config = json.loads(path.read_text())
        if not {"embed_dim", "vision_cfg"} <= set(config):
            raise DataError(f"{path}: expected embed_dim and vision_cfg, found {sorted(config)}")
        return path.stem, config
    config = _open_clip().get_model_config(str(arch))
    if config is None:
        start = str(arch)[:4].lower()
        near = [name for name in _open_clip().list_models() if name.lower().startswith(start)]
        raise InputError(f"open_clip knows no '{arch}'; near: {', '.join(near[:12]) or 'none'}")
    return str(arch), config


def activation_of(
    arch: str,
    plain: bool,
    asked: bool | None,
    file: Path | None,
    stated: dict[str, Any],
    state: dict[str, Any],
) -> bool:
    """Decide between GELU and QuickGELU; weights of one in a network of the other are refused."""
    chosen = plain if asked is None else asked
    if file is None:
        return chosen
    known, reason = _trained_with(file, stated, state)
    if known is None:
        _warn_of_twin(arch, chosen, asked, file)
        return chosen
    if known != chosen:
        twin = f"{arch}-quickgelu" if known else arch.removesuffix("-quickgelu")
        raise ContractError(
            f"{file.name}: {reason}, so that the weights were trained with {_GELU[known]}, but "
            f"'{arch}' computes {_GELU[chosen]}: the features would silently be others. Use "
            f"arch='{twin}' or quick_gelu={known}"
        )
    return chosen


def _trained_with(
    file: Path, stated: dict[str, Any], state: dict[str, Any]
) -> tuple[bool | None, str]:
    if stated:
        return bool(stated.get("quick_gelu", False)), "its configuration says so"
    if set(state) & _OPENAI_KEYS:
        return True, "it is an export of OpenAI's archive"
    if "openai" in f"{file.parent.name}/{file.name}".lower():
        return True, "its name says that it is OpenAI's"
    return None, ""


def _warn_of_twin(arch: str, chosen: bool, asked: bool | None, file: Path) -> None:
    twin = f"{arch}-quickgelu"
    if asked is None and not chosen and twin in _open_clip().list_models():
        warnings.warn(
            f"{file.name} doesn't say whether it was trained with GELU or QuickGELU; '{arch}' "
            f"takes GELU. For OpenAI's weights use arch='{twin}'; quick_gelu=False silences this",
            stacklevel=4,
        )


def read_weights(file: Path) -> dict[str, Any]:
    if file.suffix != ".safetensors":
        raise DataError(
            f"{file}: weights are read from .safetensors only, other formats hold pickles; "
            "convert the file (safetensors.torch.save_file) once, where you trust it"
        )
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:  # safetensors has an exception of its own
        raise DataError(f"{file}: the weights can't be read ({error}); copy it again") from error


def _build(config: dict[str, Any], quick_gelu: bool, seed: int) -> Any:
    """Build the image tower alone: the text tower of a large model is gigabytes."""
    import torch

    _open_clip()
    from open_clip.model import _build_vision_tower

    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        try:
            visual = _build_vision_tower(config["embed_dim"], vision, quick_gelu)
        except (TypeError, RuntimeError, ValueError) as error:
            raise InputError(f"the image tower can't be built: {error}") from error
    return visual.eval().requires_grad_(False)


def _load(visual: Any, state: dict[str, Any], file: Path, arch: str) -> None:
    own = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    expected = visual.state_dict()
    missing, unknown = set(expected) - set(own), set(own) - set(expected)
    wrong = [k for k in set(own) & set(expected) if own[k].shape != expected[k].shape]
    if missing or unknown or wrong:
        first = sorted(wrong or missing or unknown)[0]
        sides = [tuple(d[first].shape) if first in d else "absent" for d in (own, expected)]
        raise ContractError(
            f"{file} isn't of the architecture '{arch}': {len(missing)} arrays missing, "
            f"{len(unknown)} unknown, {len(wrong)} of another shape; first {first}: {sides[0]} in "
            f"the file, expected {sides[1]}"
        )
    visual.load_state_dict({k: v.float() for k, v in own.items()})


def _file_hash(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _state_hash(visual: Any) -> str:
    return arrays_hash({k: v.numpy() for k, v in visual.state_dict().items()})


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
