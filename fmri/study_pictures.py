"""Pictures of a study's test trials, by each generator that a workflow names, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.baselines import TunedRidge, derangement, nearest_training
from fmri.gallery import as_gallery, without
from fmri.images import pick, resize, with_channels
from fmri.mindeye import average_repeats
from fmri.parts import stimuli_of, trials_of
from fmri.reconstruct import FromDecoder, reconstruct
from fmri.retrieve import best_pictures, rerank, retrieve
from fmri.study_targets import embedder, provider_again
from fmri.targets import Provider
from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    from fmri.mindeye import MindEye
    from fmri.whole_brain import WholeBrain
    from neuro.stage import Context

__all__ = ["Brain", "baselines", "brain_of", "made_by", "study_trials"]

Floats = NDArray[np.float32]

_NEAR = 16  # gallery pictures that are re-ranked by all tokens


@dataclass
class Brain:
    """What the brain says of the test pictures, and what pictures can be made with.

    Attributes
    ----------
    tokens : DataArray (trial, token, feature)
        One trial for each test picture and subject.
    wanted : DataArray (trial, token, feature)
        Of the retrieval branch.
    start : DataArray (trial, channel, row, column), or None
        Low-level pictures.
    provider : Provider or None
        Of the targets, where it can embed other pictures.
    images, held : Dataset
        Of the study, and of its test part.
    """

    tokens: xr.DataArray
    wanted: xr.DataArray
    start: xr.DataArray | None
    provider: Provider | None
    images: xr.Dataset
    held: xr.Dataset

    @property
    def seen(self) -> Floats:
        """The seen picture of each trial."""
        return pick(self.images, self.tokens["stimulus"].values)["signal"].values

    @property
    def decodes(self) -> bool:
        """Whether there is a way from tokens to pixels."""
        return hasattr(self.provider, "decode")


def study_trials(
    encoder: Any, data: xr.Dataset, test: NDArray[np.str_]
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return what an encoder takes, and the same trials as betas for linear models.

    Blocks of a whole-brain encoder are named by what was seen, and averaged over their volumes.

    Raises
    ------
    DataError
        Where an encoder of blocks was trained on trials of the test pictures.
    """
    if "time" not in encoder.dims:
        return data, data
    from fmri.brain_series import blocks_in
    from fmri.trial_columns import column_of, item_of, mean_blocks

    blocks = blocks_in(data, ("perception",))
    blocks = blocks.assign_coords(stimulus=("trial", column_of(blocks, item_of(blocks))))
    # Without parts an encoder is trained on all trials.
    trained = column_of(blocks, "part") == "train" if "part" in blocks.coords else True
    leaked = blocks["stimulus"].values[np.isin(blocks["stimulus"].values, test) & trained]
    if len(leaked):
        raise DataError(
            f"{len(leaked)} trials of test pictures are trained on, the first shows '{leaked[0]}'; "
            "test pictures must be seen in the runs of test_runs only"
        )
    coords = {str(k): c for k, c in blocks.coords.items() if c.dims == ("trial",)}
    betas = xr.Dataset({"signal": (("trial", "voxel"), mean_blocks(blocks)[:, :, 0])}, coords)
    return blocks, betas


def brain_of(
    encoder: MindEye | WholeBrain,
    betas: xr.Dataset,
    targets: xr.Dataset,
    images: xr.Dataset,
    settings: Mapping[str, Any],
    autoencoder: Any,
) -> Brain:
    """Predict tokens, retrieval codes and low-level pictures of the test part, over repeats."""
    from fmri.low_level import KLLatents, low_level_pictures

    held = trials_of(betas, stimuli_of(images, "test"))
    autoencoder = autoencoder if autoencoder is not None else encoder.decoder_
    by_prior = settings["tokens"] == "prior" and encoder.prior
    start = None
    own = getattr(encoder, "model_", None)  # of MindEye; a whole-brain encoder has no low level
    if settings["img2img"] and own is not None and own.latent is not None:
        folder = settings["vae"]
        vae = None if folder is None else KLLatents(folder, size=settings["vae_size"])
        start = low_level_pictures(encoder, held, autoencoder, vae)
    tokens = encoder.predict_tokens(held, by_prior, random_state=settings["seed"])
    return Brain(
        average_repeats(tokens), average_repeats(encoder.embed(held)), start,
        _provider(targets, images, autoencoder), images,
        pick(images, stimuli_of(images, "test")),
    )  # fmt: skip


def made_by(
    kind: str,
    brain: Brain,
    settings: Mapping[str, Any],
    sources: Mapping[str, Any],
    context: Context,
    tokens: xr.DataArray | None = None,
) -> xr.Dataset:
    """Make a picture of every trial by one kind of generator.

    Parameters
    ----------
    kind : {"decoder", "diffusion", "pretrained", "gallery"}
    brain : Brain
    settings : mapping
        Of `fmri.picture_stages.ReconstructParams`.
    sources : mapping
        ``generator`` and ``gallery``, where they are wired.
    context : Context
    tokens : DataArray, optional
        Of another method, in place of the brain's; then nothing else of the brain's is used.

    Returns
    -------
    Dataset
        See `fmri.reconstruct.reconstruct`.

    Raises
    ------
    InputError
        Where what it needs is not wired or not named.
    """
    if kind == "gallery":
        return _of_gallery(brain, sources["gallery"], context)
    generator = _generator(kind, brain, settings, sources)
    plain = tokens is not None
    options: dict[str, Any] = {
        "batch_size": settings["batch_size"], "random_state": settings["seed"],
        "progress": context.progress,
    }  # fmt: skip
    if kind != "decoder":
        options |= {name: settings[name] for name in ("steps", "guidance")}
        if brain.start is not None and not plain:
            options |= {"start": brain.start, "strength": settings["strength"]}
        if not plain:
            options |= _choice(brain, settings, context)
    return reconstruct(brain.tokens if tokens is None else tokens, generator, **options)


def baselines(
    main: xr.Dataset,
    kind: str,
    brain: Brain,
    betas: xr.Dataset,
    targets: xr.Dataset,
    settings: Mapping[str, Any],
    sources: Mapping[str, Any],
    context: Context,
) -> tuple[dict[str, Floats], NDArray[np.str_]]:
    """Make what a reconstruction must beat.

    Returns
    -------
    pictures : dict of str to ndarray (trial, channel, row, column)
        ``nearest``: the training picture whose target is nearest to the predicted tokens;
        ``ridge``: the tokens of a tuned ridge regression, decoded, or by the same generator;
        ``shuffled``: the reconstructions, each given to another picture.
    nearest : ndarray of str, shape (trial,)
        The names of the nearest training pictures.
    """
    train = stimuli_of(brain.images, "train")
    known = pick(targets, train, what="the targets")["signal"].values.astype(np.float32)
    names = train[nearest_training(brain.tokens.values, known)[0]]
    out = {"nearest": pick(brain.images, names)["signal"].values}
    by = "decoder" if brain.decodes else kind
    if by != "gallery":
        tokens = _ridge_tokens(betas, targets, train, brain, settings["seed"])
        out["ridge"] = made_by(by, brain, settings, sources, context, tokens)["signal"].values
    values = main["signal"].values
    if len(values) > 1:
        out["shuffled"] = values[derangement(len(values), settings["seed"])]
    return out, names


def alike(pictures: Floats, images: xr.Dataset) -> Floats:
    """Bring pictures to channels and size of the study's."""
    channels, rows, columns = images["signal"].shape[1:]
    return resize(with_channels(pictures, channels), (rows, columns)).astype(np.float32)


# Inside ---------------------------------------------------------------------------------------


def _provider(targets: xr.Dataset, images: xr.Dataset, autoencoder: Any) -> Provider | None:
    if "made_by" not in targets.attrs:
        return None
    try:
        return provider_again(targets, images, autoencoder)
    except InputError:  # an autoencoder that was not kept
        return None


def _generator(
    kind: str, brain: Brain, settings: Mapping[str, Any], sources: Mapping[str, Any]
) -> Any:
    if kind == "decoder":
        if not brain.decodes:
            raise InputError(
                "by: decoder needs targets with a way back to pixels: pca, or an autoencoder of a "
                "stage of its own that is wired here or to the encoder as autoencoder:"
            )
        return FromDecoder(brain.provider)
    if kind == "diffusion":
        if sources["generator"] is None:
            raise InputError("by: diffusion needs generator: wired to a stage fmri-generator")
        sources["generator"].refuse_seen(brain.held)
        return sources["generator"]
    return _pretrained(settings["pretrained"], settings["device"])


def _pretrained(own: Mapping[str, Any], device: str) -> Any:
    from fmri.pretrained import load_pretrained

    where = own["folder"] or own["hub"]
    if where is None:
        raise InputError("by: pretrained needs pretrained: folder: or hub:")
    adapter = None
    if own["ip_adapter"] is not None:
        adapter = own["ip_adapter"], own["ip_adapter_subfolder"], own["ip_adapter_file"]
    options = {name: own[name] for name in ("dtype", "revision", "prompt")}
    return load_pretrained(where, ip_adapter=adapter, device=device, **options)


def _choice(brain: Brain, settings: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Say how one of several candidates is chosen; one is made where nothing can choose."""
    n = settings["n_candidates"]
    if n == 1:
        return {}
    if brain.provider is None or not brain.provider.needs_pixels:
        context.warn(
            f"n_candidates is {n}, but the targets can't embed a picture that was made, so that "
            "nothing can choose among candidates; one is made"
        )
        return {}
    return {"n_candidates": n, "embed": embedder(brain.provider), "wanted": brain.wanted}


def _of_gallery(brain: Brain, gallery: xr.Dataset | None, context: Context) -> xr.Dataset:
    if gallery is None:
        raise InputError("by: gallery needs gallery: wired to a stage fmri-gallery")
    left, n_out = without(as_gallery(gallery), brain.held["image_hash"].values.tolist())
    if n_out:
        context.method(f"{n_out} test pictures were taken out of the gallery first.")
    found = retrieve(brain.tokens, left, min(_NEAR, len(left)))
    best = best_pictures(rerank(found, brain.wanted, left), left)
    coords = {name: c for name, c in brain.tokens.coords.items() if c.dims == ("trial",)}
    out = xr.Dataset({"signal": best.assign_coords(coords)})
    attrs = {
        "kind": "reconstructions", "units": "1", "generator": '{"name": "gallery picture"}',
        "random_weights": int(left.random_weights),
    }  # fmt: skip
    return out.assign_attrs(attrs)


def _ridge_tokens(
    betas: xr.Dataset, targets: xr.Dataset, train: NDArray[np.str_], brain: Brain, seed: int
) -> xr.DataArray:
    own = trials_of(betas, train)
    names = own["stimulus"].values.astype(str)
    aimed = pick(targets, names, what="the targets")["signal"].values.astype(np.float32)
    ridge = TunedRidge(random_state=seed).fit(own["signal"].values, aimed, stimulus=names)
    held = trials_of(betas, brain.held["stimulus"].values.astype(str))
    found = average_repeats(ridge.predict_array(held["signal"]))
    marks = {"fingerprint": targets.attrs["fingerprint"]}
    return found.assign_attrs(marks)
