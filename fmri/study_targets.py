"""The targets of a study: a provider from the settings of a workflow, and the same one again.

`study_targets` notes in ``attrs["made_by"]`` how its provider was made, so that `provider_again`
can embed further pictures (of a gallery, of a generator) in the very same space; its fingerprint
is compared before anything is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.images import pick, resize, with_channels
from fmri.parts import stimuli_of
from fmri.targets import Provider, check_fingerprint, compute_targets, refuse_leak
from neuro.errors import ContractError, InputError

if TYPE_CHECKING:
    from fmri.autoencoder import ImageAutoencoder
    from neuro.stage import Context

__all__ = [
    "MARK",
    "decoder_of",
    "embedder",
    "has_random_weights",
    "provider_again",
    "study_targets",
]

MARK = (
    "Random weights: the targets come of a network that was never trained. Good for trying "
    "things; the figures and pictures here mean nothing."
)
_SHOWN = 12  # test pictures that are decoded for the report


def study_targets(
    images: xr.Dataset,
    settings: Mapping[str, Any],
    context: Context,
    autoencoder: ImageAutoencoder | None = None,
) -> tuple[xr.Dataset, dict[str, Any]]:
    """Embed all pictures of a study; what is trained for it sees the training part only.

    Parameters
    ----------
    images : Dataset
        With ``part``.
    settings : mapping
        Of `fmri.stages.TargetsParams`.
    context : Context
    autoencoder : ImageAutoencoder, optional
        In place of one that is trained here.

    Returns
    -------
    targets : Dataset
    shown : dict
        Where there is a way back to pixels ``decoded`` and ``images`` (image, channel, row,
        column), pictures of the test part; else empty.

    Raises
    ------
    DataError
        Where a provider was trained on test pictures, or a stimulus has no target.
    InputError
        Where settings don't go together.
    """
    provider, made_by = _provider(images, settings, context, autoencoder)
    cache = Path(context.scratch) / "targets" if provider.kind == "open_clip" else None
    found = compute_targets(images, provider, cache=cache, progress=context.progress)
    refuse_leak(found, pick(images, stimuli_of(images, "test")))
    if has_random_weights(found.attrs):
        context.mark(MARK)
    found = found.assign_attrs(made_by=json.dumps(made_by, sort_keys=True))
    return found, _decoded(images, found, provider)


def has_random_weights(attrs: Mapping[Any, Any]) -> bool:
    """Say whether targets, or what was made of them, came of random weights."""
    return bool(int(attrs.get("random_weights", 0)))


def provider_again(
    targets: xr.Dataset, images: xr.Dataset, autoencoder: ImageAutoencoder | None = None
) -> Provider:
    """Make the provider of a study's targets again, to embed other pictures with it.

    Parameters
    ----------
    targets : Dataset
        Of `study_targets`.
    images : Dataset
        Of the study: principal components are fitted to its training part again.
    autoencoder : ImageAutoencoder, optional
        Where the targets are its tokens.

    Returns
    -------
    Provider

    Raises
    ------
    InputError
        Where it can't be made again: an autoencoder that was not kept.
    ContractError
        Where the one that was made has another fingerprint than the targets.
    """
    how = json.loads(targets.attrs.get("made_by", "{}"))
    provider = _again(how, images, autoencoder)
    check_fingerprint(
        provider.fingerprint(), targets.attrs["fingerprint"], where="the provider made again: "
    )
    return provider


def decoder_of(
    targets: xr.Dataset, images: xr.Dataset, autoencoder: ImageAutoencoder | None
) -> Any:
    """Return what a MindEye can keep to decode new scans to pictures; None where there is none."""
    how = json.loads(targets.attrs.get("made_by", "{}"))
    return provider_again(targets, images) if how.get("provider") == "pca" else autoencoder


def embedder(provider: Provider) -> Any:
    """Return a function from pictures ``(n, channel, row, column)`` to their tokens.

    Pictures of another size are resampled to what the provider was made for.
    """
    size = (provider.fingerprint()["preprocessing"] or {}).get("size")

    def embed(pictures: NDArray[Any]) -> NDArray[Any]:
        if isinstance(size, list) and len(size) == 3:
            pictures = resize(with_channels(pictures, size[0]), (size[1], size[2]))
        dims = ("trial", "channel", "row", "column")
        return provider.encode(xr.Dataset({"signal": (dims, np.asarray(pictures, np.float32))}))

    return embed


# Inside ---------------------------------------------------------------------------------------


def _provider(
    images: xr.Dataset,
    settings: Mapping[str, Any],
    context: Context,
    autoencoder: ImageAutoencoder | None,
) -> tuple[Provider, dict[str, Any]]:
    kind = settings["provider"]
    if autoencoder is not None and kind != "autoencoder":
        raise InputError(f"provider is '{kind}', but an autoencoder is wired to the targets")
    if kind == "autoencoder":
        return _autoencoder(images, settings, context, autoencoder)
    how = _made_by(settings, images)
    return _again(how, images, None), how


def _made_by(settings: Mapping[str, Any], images: xr.Dataset) -> dict[str, Any]:
    kind = settings["provider"]
    if kind == "pca":
        return {"provider": kind, "n_components": settings["n_features"]}
    if kind == "open_clip":
        own = dict(settings["open_clip"])
        file = own.pop("arch_file")
        own |= {} if file is None else {"arch": str(file)}
        given = [own.pop(name) for name in ("weights", "folder", "hub")]
        named = [str(value) for value in given if value is not None]
        if len(named) > 1:
            raise InputError(f"weights, folder and hub are alternatives; found {', '.join(named)}")
        return {"provider": kind, **own, "weights": named[0] if named else None}
    if settings["file"] is None:
        raise InputError(f"provider '{kind}' needs file: where the {_FILES[kind]} are")
    file = {"provider": kind, "file": str(settings["file"])}
    if kind == "array":
        return file
    return {**file, "source": settings["source"], "standardize": settings["standardize"]}


_FILES = {"array": "embeddings", "attributes": "attributes of the categories"}


def _again(
    how: Mapping[str, Any], images: xr.Dataset, autoencoder: ImageAutoencoder | None
) -> Provider:
    from threadpoolctl import threadpool_limits

    from fmri.providers import ArrayFile, AutoencoderTokens, CategoryAttributes, PixelPCA

    own = {name: value for name, value in how.items() if name != "provider"}
    match how.get("provider"):
        case "autoencoder" if autoencoder is not None:
            return AutoencoderTokens(autoencoder)
        case "autoencoder":
            raise InputError(
                "the autoencoder of the targets was not kept: train it in a stage of its own (use: "
                "fmri-autoencoder) and wire it to the targets and here as autoencoder:"
            )
        case "pca":
            with threadpool_limits(1):  # the same bits, however many cores a stage has
                return PixelPCA(own["n_components"]).fit(
                    images, train_stimuli=stimuli_of(images, "train")
                )
        case "open_clip":
            from fmri.clip_targets import OpenCLIP

            return OpenCLIP(**own)
        case "array":
            return ArrayFile(own["file"])
        case "attributes":
            file = own.pop("file")
            return CategoryAttributes(file, **own)
    raise ContractError(
        "the targets don't say how they were made, so that no further picture can be embedded; "
        "take them from fmri-targets"
    )


def _autoencoder(
    images: xr.Dataset,
    settings: Mapping[str, Any],
    context: Context,
    autoencoder: ImageAutoencoder | None,
) -> tuple[Provider, dict[str, Any]]:
    from fmri.autoencoder import ImageAutoencoder
    from fmri.providers import AutoencoderTokens

    if autoencoder is None:
        network = ImageAutoencoder(
            n_features=settings["n_features"], max_epochs=settings["max_epochs"],
            random_state=settings["seed"],
        )  # fmt: skip
        autoencoder = network.fit(
            images, train_stimuli=stimuli_of(images, "train"), progress=context.progress,
            scratch=Path(context.scratch) / "autoencoder",
        )  # fmt: skip
    return AutoencoderTokens(autoencoder), {"provider": "autoencoder"}


def _decoded(images: xr.Dataset, targets: xr.Dataset, provider: Any) -> dict[str, Any]:
    if not hasattr(provider, "decode"):
        return {}
    held = stimuli_of(images, "test")[:_SHOWN]
    tokens = pick(targets, held)["signal"].values.astype(np.float32)
    return {
        "images": pick(images, held)["signal"].values,
        "decoded": np.asarray(provider.decode(tokens)),
    }
