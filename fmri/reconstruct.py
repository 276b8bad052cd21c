"""Reconstruct: predicted targets to pictures, by any generator, in batches.

A generator is the built-in `fmri.diffusion_decoder.DiffusionDecoder`, the decoder of a provider
(`FromDecoder`), or a pretrained pipeline (`fmri.pretrained.load_pretrained`). `reconstruct` seeds
every trial by its identity, so that a picture doesn't depend on what else was decoded.

References
----------
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023): image-to-image start, and the choice among candidates by the
retrieval embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.images import resize, some, with_channels
from fmri.seeds import trial_keys, trial_seeds
from fmri.targets import check_fingerprint
from neuro.data import as_signal
from neuro.errors import ContractError, DataError, InputError

__all__ = ["FromDecoder", "Generator", "load_generator", "reconstruct"]

Floats = NDArray[np.float32]
Embed = Callable[[Floats], NDArray[Any]]

_EMBED = 256  # candidates embedded at once


@runtime_checkable
class Generator(Protocol):
    """What makes pictures of tokens.

    Attributes
    ----------
    name : str
    image_shape_ : tuple of int
        Channel, row, column of its pictures.
    random_weights : bool
        It was never trained: reports say so on every page.
    """

    name: Any
    image_shape_: Any
    random_weights: Any

    def generate(
        self,
        tokens: NDArray[Any],
        seeds: Sequence[int],
        *,
        start: Floats | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Floats:
        """Make pictures of tokens.

        Parameters
        ----------
        tokens : ndarray, shape (trial, token, feature)
        seeds : sequence of int, length trial
            All random numbers of a trial follow from its seed.
        start : ndarray, shape (trial, channel, row, column), optional
            In [0, 1]: noise is put on these pictures, in place of pure noise (image to image).
        strength : float, optional
            Share of the way that is gone from a start: 1 ignores it.
        steps : int, optional
            Of the whole way.
        guidance : float, optional
            Weight of the condition; 1: no guidance.

        Returns
        -------
        ndarray, shape (trial, channel, row, column)
            In [0, 1].
        """


class FromDecoder:
    """The deterministic generator: a provider's own way back to pixels.

    Parameters
    ----------
    provider : Provider
        With `decode`: `AutoencoderTokens` or `PixelPCA`.
    """

    random_weights = False

    def __init__(self, provider: Any) -> None:
        if not hasattr(provider, "decode"):
            raise InputError(
                f"the provider '{provider.kind}' has no way back to pixels; use a diffusion decoder"
            )
        self.provider, self.name = provider, f"{provider.kind}-decoder"
        self.target_ = provider.fingerprint()
        self.image_shape_ = tuple(self.target_["preprocessing"]["size"])

    def generate(
        self,
        tokens: NDArray[Any],
        seeds: Sequence[int],
        *,
        start: Floats | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Floats:
        """Decode; the same picture for every seed. A start is refused: nothing is sampled."""
        if start is not None:
            raise InputError(f"'{self.name}' samples nothing and takes no start")
        return self.provider.decode(tokens)


def reconstruct(
    tokens: xr.DataArray | xr.Dataset,
    generator: Generator,
    *,
    start: xr.DataArray | xr.Dataset | NDArray[Any] | None = None,
    strength: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    n_candidates: int = 1,
    embed: Embed | None = None,
    wanted: xr.DataArray | NDArray[Any] | None = None,
    keep_candidates: bool = False,
    batch_size: int = 16,
    random_state: int = 0,
    progress: Callable[..., Iterator[Any]] | None = None,
) -> xr.Dataset:
    """Make a picture of every trial's predicted tokens.

    Parameters
    ----------
    tokens : DataArray or Dataset (trial, token, feature)
        Predictions in the space of the targets. A ``fingerprint`` among the attributes is
        compared with that of the generator's training.
    generator : Generator
    start : DataArray, Dataset or ndarray (trial, channel, row, column), optional
        Low-level pictures in [0, 1] of the same trials, resampled to the generator's size.
    strength, steps, guidance
        See `Generator.generate`; by default as the generator was made.
    n_candidates : int
        Pictures of each trial, of which the one is taken whose embedding is closest to `wanted`.
    embed : callable, optional
        Turns pictures ``(n, channel, row, column)`` into embeddings ``(n, ...)``, for example
        `OpenCLIP.encode_pixels`.
    wanted : DataArray or ndarray (trial, ...), optional
        What the retrieval branch gave for each trial: `MindEye.transform`.
    keep_candidates : bool
        Return all candidates too.
    batch_size : int
        Pictures generated at once.
    random_state : int
        A trial's noise follows from it and from the trial's coordinates (recording, subject,
        session, run, stimulus, repeat, onset), not from its place or batch.
    progress : callable, optional
        ``progress(iterable, label, total)``, as `Context.progress`.

    Returns
    -------
    Dataset
        ``signal (trial, channel, row, column)`` float32 in [0, 1] with the coordinates of
        `tokens`; with candidates ``score (trial, candidate)``, the cosines, ``chosen (trial)`` and,
        where asked for, ``candidates (trial, candidate, channel, row, column)``. Attributes
        ``kind="reconstructions"``, ``generator`` (JSON), ``random_weights``.

    Raises
    ------
    ContractError
        Where the tokens are of another space than the generator's, or shapes don't fit.
    InputError
        Where several candidates come without a way to choose.
    """
    signal = _with_marks(tokens) if isinstance(tokens, xr.Dataset) else tokens
    _check(signal, generator, n_candidates, embed, wanted, batch_size)
    values = np.asarray(signal.values, dtype=np.float32)
    keys = trial_keys(signal)
    begin = _start(start, len(values), tuple(generator.image_shape_))
    options: dict[str, Any] = {"strength": strength, "steps": steps, "guidance": guidance}
    seeds = np.array([trial_seeds(keys, random_state, k) for k in range(n_candidates)]).T
    found = _Found(keep_candidates)
    size = max(1, batch_size // n_candidates)  # trials at once: all candidates of a trial together
    blocks: Any = range(0, len(values), size)
    for low in progress(blocks, "reconstructions", len(blocks)) if progress else blocks:
        rows = np.arange(low, min(low + size, len(values)))
        trial = np.repeat(rows, n_candidates)
        own = seeds[rows].ravel().tolist()
        parts = [
            generator.generate(
                values[trial[part]],
                own[part],
                start=None if begin is None else begin[trial[part]],
                **options,
            )
            for part in (slice(i, i + batch_size) for i in range(0, len(trial), batch_size))
        ]
        made = np.concatenate(parts)
        found.add(
            made.reshape(len(rows), n_candidates, *made.shape[1:]), embed,
            None if wanted is None else np.asarray(wanted[rows], dtype=np.float64),
        )  # fmt: skip
    return _dataset(found, signal, generator, {
        **{k: v for k, v in options.items() if v is not None},
        "n_candidates": n_candidates, "random_state": random_state, "start": start is not None,
    })  # fmt: skip


def load_generator(path: str | Path, **options: Any) -> Generator:
    """Load a generator: one that was saved here, or a pretrained pipeline.

    Parameters
    ----------
    path : path or hub id
        What `DiffusionDecoder.save` wrote, else see `fmri.pretrained.load_pretrained`.
    **options
        Of `load_pretrained`.

    Returns
    -------
    Generator
    """
    from neuro.artefact import CONFIG, WEIGHTS

    folder = Path(path)
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        from neuro.encoder import load

        loaded = load(folder)
        if not isinstance(loaded, Generator):
            raise ContractError(f"{folder} holds '{loaded.name}', which is no generator")
        return loaded
    from fmri.pretrained import load_pretrained

    return load_pretrained(path, **options)


# Inside ---------------------------------------------------------------------------------------


def _with_marks(tokens: xr.Dataset) -> xr.DataArray:
    marks = {k: tokens.attrs[k] for k in ("fingerprint", "random_weights") if k in tokens.attrs}
    return as_signal(tokens).assign_attrs(marks)


def _check(
    signal: xr.DataArray,
    generator: Generator,
    n_candidates: int,
    embed: Embed | None,
    wanted: Any,
    batch_size: int,
) -> None:
    if signal.dims != ("trial", "token", "feature"):
        raise ContractError(f"the tokens have the dims {signal.dims}, expected trial token feature")
    if signal.sizes["trial"] == 0:
        raise DataError("there is no trial to reconstruct")
    if not np.isfinite(signal.values).all():
        raise DataError("the tokens hold NaN or infinity; look at the predictions first")
    if n_candidates < 1 or batch_size < 1:
        raise InputError(
            f"n_candidates is {n_candidates} and batch_size {batch_size}; expected at least 1"
        )
    if n_candidates > 1 and (embed is None or wanted is None):
        raise InputError(
            "several candidates need a way to choose: embed= turns pictures into embeddings, "
            "wanted= is what the retrieval branch gave for each trial"
        )
    if wanted is not None and len(wanted) != signal.sizes["trial"]:
        raise ContractError(f"{len(wanted)} wanted embeddings for {signal.sizes['trial']} trials")
    found, expected = signal.attrs.get("fingerprint"), getattr(generator, "target_", None)
    if found and expected:
        check_fingerprint(found, expected, where=f"generator '{generator.name}': ")


def _start(start: Any, n: int, shape: tuple[int, ...]) -> Floats | None:
    if start is None:
        return None
    signal = as_signal(start) if isinstance(start, xr.Dataset) else start
    values = np.asarray(signal, dtype=np.float32)
    if values.ndim != 4 or len(values) != n:
        raise ContractError(
            f"the start has the shape {values.shape}, expected ({n}, channel, row, column)"
        )
    pictures = with_channels(np.clip(values, 0, 1), shape[0])
    return np.ascontiguousarray(resize(pictures, (shape[1], shape[2])), dtype=np.float32)


class _Found:
    """The best candidates, gathered block by block; the others are let go unless they are kept."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.pictures: list[Floats] = []
        self.scores: list[NDArray[np.float32]] = []
        self.candidates: list[Floats] = []

    def add(self, images: Floats, embed: Embed | None, wanted: NDArray[Any] | None) -> None:
        best = np.zeros(len(images), dtype=np.int64)
        if embed is not None and wanted is not None:
            scores = _cosines(images, embed, wanted)
            best = scores.argmax(1)
            self.scores.append(scores.astype(np.float32))
        self.pictures.append(images[np.arange(len(images)), best])
        if self.keep:
            self.candidates.append(images)


def _dataset(
    found: _Found, signal: xr.DataArray, generator: Generator, settings: dict[str, Any]
) -> xr.Dataset:
    coords = {name: c for name, c in signal.coords.items() if c.dims == ("trial",)}
    dims = ("trial", "channel", "row", "column")
    variables: dict[str, Any] = {"signal": (dims, np.concatenate(found.pictures))}
    if found.scores:
        scores = np.concatenate(found.scores)
        variables["score"] = (("trial", "candidate"), scores)
        variables["chosen"] = ("trial", scores.argmax(1))
    if found.keep:
        candidates = np.concatenate(found.candidates)
        variables["candidates"] = (("trial", "candidate", *dims[1:]), candidates)
    attrs = {
        "kind": "reconstructions",
        "units": "1",
        "generator": json.dumps({"name": str(generator.name), **settings}, sort_keys=True),
        "random_weights": int(generator.random_weights or signal.attrs.get("random_weights", 0)),
    }
    return xr.Dataset(variables, coords, attrs)


def _cosines(images: Floats, embed: Embed, wanted: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of every candidate's embedding to its trial's wanted one."""
    n, k = images.shape[:2]
    flat = images.reshape(n * k, *images.shape[2:])
    parts = [np.asarray(embed(flat[i : i + _EMBED])) for i in range(0, n * k, _EMBED)]
    found = np.concatenate(parts).reshape(n, k, -1).astype(np.float64)
    aim = wanted.reshape(n, -1)
    if found.shape[2] != aim.shape[1]:
        sizes = some([str(found.shape[2]), str(aim.shape[1])])
        raise ContractError(
            f"the embedding of a picture and the wanted one have other sizes: {sizes}; embed with "
            "the provider that the retrieval branch was trained on"
        )
    norm = np.linalg.norm(found, axis=2) * np.linalg.norm(aim, axis=1)[:, None]
    return np.einsum("nkf,nf->nk", found, aim) / np.maximum(norm, 1e-12)
