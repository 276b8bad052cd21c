"""The low-level branch: from voxels to the latent of an image autoencoder.

The branch shares MindEye's backbone (as MindEye2's does) and is trained with it where
`MindEye.fit` is given image latents: L1 on the latent and 0.1 times an auxiliary contrastive
term on the small map that the decoder starts from. Decoded by the autoencoder the latent gives
the blurry picture from which an image-to-image reconstruction starts.

The latents are those of the study's own autoencoder, or of a pretrained `AutoencoderKL`
(`KLLatents`), as in the paper.

References
----------
Scotti et al., "Reconstructing the mind's eye" (NeurIPS 2023), section 3.3.
Rombach et al., "High-resolution image synthesis with latent diffusion models" (CVPR 2022).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.images import resize, with_channels
from neuro.artefact import listing
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    from fmri.autoencoder import ImageAutoencoder
    from fmri.mindeye import MindEye
    from fmri.pictured import DecodesPictures

_BATCH = 8  # pictures of a pretrained autoencoder at once


def latent_dataset(latents: ArrayLike, stimulus: ArrayLike, **attrs: Any) -> xr.Dataset:
    """Return image latents as `MindEye.fit` wants them.

    Parameters
    ----------
    latents : array-like, shape (stimulus, channel, row, column)
    stimulus : array-like of str, shape (stimulus,)
    **attrs
        JSON values that say what made them (``fingerprint``, ``scale``).

    Returns
    -------
    Dataset
        ``signal`` (trial, channel, row, column) with the coordinate ``stimulus``.

    Raises
    ------
    DataError
        Where the shapes don't fit.

    Examples
    --------
    >>> latent_dataset(np.zeros((2, 4, 8, 8)), ["a", "b"]).signal.shape
    (2, 4, 8, 8)
    """
    values, names = np.asarray(latents, np.float32), np.asarray(stimulus).astype(str)
    if values.ndim != 4 or names.shape != values.shape[:1]:
        raise DataError(
            f"the image latents have the shape {values.shape} for {names.shape} stimuli, "
            "expected (stimulus, channel, row, column)"
        )
    return xr.Dataset(
        {"signal": (("trial", "channel", "row", "column"), values)},
        coords={"stimulus": ("trial", names)},
        attrs={"kind": "latents", **attrs},
    )


def low_level_latents(model: MindEye, X: Any, *, average: bool = True) -> xr.DataArray:
    """Predict image latents, averaged over the repeats of a stimulus.

    Parameters
    ----------
    model : MindEye
        Fitted with `low_level`.
    X : as for `MindEye.transform`
        One dataset.
    average : bool
        Average repeats, where trials name their stimulus.

    Returns
    -------
    DataArray (trial, channel, row, column)
        In the scale of the latents that the model was fitted to.
    """
    from fmri.mindeye import average_repeats

    found = model.predict_low_level(X)
    if average and isinstance(found, xr.DataArray) and "stimulus" in found.coords:
        return average_repeats(found)
    return found


class KLLatents:
    """Latents of a pretrained image autoencoder of latent diffusion, and back to pixels.

    Parameters
    ----------
    folder : path
        What diffusers saved of an ``AutoencoderKL``: ``config.json`` and safetensors.
    size : int, optional
        Pixels that pictures are brought to; by default the autoencoder's own.
    device : str

    Raises
    ------
    DataError
        Where there is no autoencoder, or its weights can't be read.
    """

    def __init__(
        self, folder: str | Path, *, size: int | None = None, device: str = "auto"
    ) -> None:
        from diffusers import AutoencoderKL

        from fmri.autoencoder import arrays_hash
        from neuro.device import device_of

        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder} is no AutoencoderKL: config.json missing; {listing(folder)}")
        try:
            vae: Any = AutoencoderKL.from_pretrained(
                folder, use_safetensors=True, local_files_only=True
            )
        except Exception as error:  # every part has its own ways to fail
            raise DataError(
                f"{folder}: the AutoencoderKL can't be loaded ({error}); copy it again, with its "
                "weights as safetensors"
            ) from error
        self.size = int(size or vae.config.sample_size)
        weights = {name: value.numpy() for name, value in vae.state_dict().items()}
        self.digest = arrays_hash(weights)
        self.device = device_of(device, fallback=True)
        self.vae = vae.to(self.device).eval().requires_grad_(False)

    def fingerprint(self) -> dict[str, Any]:
        """Return weights and size."""
        return {"provider": "autoencoder-kl", "weights_hash": self.digest, "size": self.size}

    def latent_dataset(self, images: xr.Dataset) -> xr.Dataset:
        """Return the latents (mode of the posterior, scaled) of pictures, keyed by stimulus."""
        import torch

        pixels = resize(with_channels(images["signal"].values, 3), self.size)
        parts = []
        with torch.inference_mode():
            for first in range(0, len(pixels), _BATCH):
                block = np.ascontiguousarray(pixels[first : first + _BATCH], dtype=np.float32)
                x = torch.from_numpy(block).to(self.device) * 2 - 1
                mode = self.vae.encode(x).latent_dist.mode() * self.vae.config.scaling_factor
                parts.append(mode.cpu().numpy())
        names = images["stimulus"].values
        return latent_dataset(
            np.concatenate(parts), names, fingerprint=json.dumps(self.fingerprint())
        )

    def decode(self, latents: ArrayLike) -> NDArray[np.float32]:
        """Return pictures ``(trial, 3, row, column)`` in [0, 1] of latents."""
        import torch

        values = np.asarray(latents, dtype=np.float32) / self.vae.config.scaling_factor
        parts = []
        with torch.inference_mode():
            for first in range(0, len(values), _BATCH):
                z = torch.from_numpy(values[first : first + _BATCH]).to(self.device)
                parts.append((self.vae.decode(z).sample / 2 + 0.5).clamp(0, 1).cpu().numpy())
        return np.concatenate(parts)


def image_latents(
    images: xr.Dataset,
    autoencoder: ImageAutoencoder | None,
    vae: str | Path | None,
    size: int | None = None,
) -> xr.Dataset:
    """Return the second target of MindEye: latents of the study's autoencoder or a pretrained one.

    Raises
    ------
    InputError
        Where neither is given.
    DataError
        Where the autoencoder was trained on a test picture.
    """
    from fmri.images import pick
    from fmri.parts import stimuli_of

    if vae is not None:
        return KLLatents(vae, size=size).latent_dataset(images)
    if autoencoder is None:
        raise InputError(
            "the low-level branch needs image latents: wire autoencoder: to a stage "
            "fmri-autoencoder, or name the folder of an AutoencoderKL as vae:"
        )
    autoencoder.refuse_seen(pick(images, stimuli_of(images, "test")))
    return autoencoder.latent_dataset(images)


def decodes_tokens(model: DecodesPictures, decoder: ImageAutoencoder) -> bool:
    """Say whether an autoencoder is the one whose tokens an encoder predicts."""
    made_by = model.target_["fingerprint"] or {}
    return (
        made_by.get("provider") == "image-autoencoder"
        and made_by.get("weights_hash") == decoder.weights_hash()
    )


def decodes_latents(model: DecodesPictures, decoder: ImageAutoencoder) -> bool:
    """Say whether an autoencoder is the one whose latents a MindEye predicts."""
    made_by = model.target_.get("latent_fingerprint") or {}
    return bool(made_by.get("weights_hash") == decoder.weights_hash())


def low_level_pictures(
    model: MindEye,
    X: Any,
    autoencoder: ImageAutoencoder | None = None,
    vae: KLLatents | None = None,
) -> xr.DataArray:
    """Predict the low-level pictures, averaged over repeats: starts of an image-to-image way.

    Returns
    -------
    DataArray (trial, channel, row, column)
        In [0, 1].

    Raises
    ------
    ContractError
        Where neither autoencoder made the latents that the branch was trained to.
    """
    expected = model.target_.get("latent_fingerprint")
    latents = low_level_latents(model, X)
    if autoencoder is not None and decodes_latents(model, autoencoder):
        pictures = np.asarray(autoencoder.inverse_transform(latents.values))
    elif vae is not None and vae.fingerprint() == expected:
        pictures = vae.decode(latents.values)
    else:
        raise ContractError(
            f"the low-level branch predicts latents of {json.dumps(expected)}; give that "
            "autoencoder to decode them"
        )
    coords = {name: c for name, c in latents.coords.items() if c.dims == ("trial",)}
    return xr.DataArray(pictures, dims=("trial", "channel", "row", "column"), coords=coords)
