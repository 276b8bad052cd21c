"""Targets: what a brain is mapped to. Computed once per image, cached, known by a fingerprint.

A `Provider` turns images, or names of stimuli, into tokens `(stimulus, token, feature)`. Its
fingerprint says how: provider, architecture, weights, layer, preprocessing. A cache that was made
in another way is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.images import pick, refuse_seen
from neuro.artefact import listing, new_folder
from neuro.errors import ContractError, DataError, InputError

__all__ = [
    "Provider",
    "check_fingerprint",
    "compute_targets",
    "open_targets",
    "refuse_leak",
    "targets_dataset",
]

Floats = NDArray[np.floating[Any]]

VALUES, FACTS = "targets.npy", "targets.json"
_FORMAT = 1
_DTYPES = ("float16", "float32")


class Provider:
    """What makes targets; a subclass writes `fingerprint` and `encode`.

    Attributes
    ----------
    kind : str
        First word of the fingerprint.
    needs_pixels : bool
        False where the name or category of a stimulus is enough.
    random_weights : bool
        The network was never trained: reports say so on every page.
    scale : float
        What a diffusion prior multiplies targets by, so that a feature has about unit variance.
    trained_on : list of str
        Hashes of the images it was trained on; empty where it knows nothing of the study.
    """

    kind: ClassVar[str] = ""
    needs_pixels: ClassVar[bool] = True
    random_weights: bool = False
    scale: float = 1.0
    trained_on: Sequence[str] = ()

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON: ``provider, arch, weights_hash, layer, preprocessing``."""
        raise NotImplementedError(f"{type(self).__name__} has no fingerprint")

    def encode(self, images: xr.Dataset) -> Floats:
        """Return the targets of a batch of images, shape ``(trial, token, feature)``."""
        raise NotImplementedError(f"{type(self).__name__} has no encode")

    def attributes(self) -> dict[str, Any]:
        """Return further attributes of the dataset (JSON), for example a source."""
        return {}

    def feature_names(self) -> list[str] | None:
        """Return the names of the features, where they have any."""
        return None


def compute_targets(
    images: xr.Dataset | Sequence[str] | NDArray[Any],
    provider: Provider,
    *,
    cache: str | Path | None = None,
    batch_size: int = 32,
    dtype: str = "float16",
    progress: Callable[..., Iterator[Any]] | None = None,
) -> xr.Dataset:
    """Compute the targets of images, or take them from the cache.

    Parameters
    ----------
    images : Dataset
        With ``stimulus`` (and ``image_hash``) on ``trial``; names alone do for a provider that
        needs no pixels. Lazily opened images are read batch by batch.
    provider : Provider
    cache : path, optional
        A folder: made whole where it isn't there, else checked and mapped into memory.
    batch_size : int
        Images encoded at once.
    dtype : {"float16", "float32"}
    progress : callable, optional
        ``progress(iterable, label, total)``, as `Context.progress`.

    Returns
    -------
    Dataset
        ``signal (trial, token, feature)`` keyed by ``stimulus``; attributes ``kind="targets"``,
        ``fingerprint`` (JSON), ``random_weights`` (0 or 1) and ``scale``.

    Raises
    ------
    ContractError
        Where the cache was made by another provider, or of other images; both are named.
    DataError
        Where a stimulus has no target, or one isn't finite in `dtype`.

    Examples
    --------
    >>> from fmri.images import digit_images
    >>> from fmri.providers import PixelPCA
    >>> digits = digit_images(digits=[6, 9])
    >>> pca = PixelPCA(4).fit(digits, train_stimuli=digits.stimulus.values[:100])
    >>> compute_targets(digits, pca).signal.shape
    (361, 1, 4)
    """
    images = _keyed(images, provider)
    if batch_size < 1 or dtype not in _DTYPES:
        raise InputError(
            f"batch_size is {batch_size} and dtype {dtype!r}; expected at least 1 and one of "
            f"{', '.join(_DTYPES)}"
        )
    if cache is None:
        parts = list(_batches(images, provider, batch_size, dtype, progress))
        return targets_dataset(np.concatenate(parts), images["stimulus"].values, provider)
    if not Path(cache).exists():
        _write(Path(cache), images, provider, batch_size, dtype, progress)
    _refuse_other_images(Path(cache), images)
    return open_targets(cache, stimuli=images["stimulus"].values, provider=provider)


def open_targets(
    cache: str | Path, *, stimuli: ArrayLike | None = None, provider: Provider | None = None
) -> xr.Dataset:
    """Open a cache; values stay on disk, mapped into memory, until they are used.

    Parameters
    ----------
    cache : path
        What `compute_targets` wrote.
    stimuli : array-like of str, optional
        All by default, in the order of the cache. A stretch of it stays mapped; another order
        is copied.
    provider : Provider, optional
        Refuse a cache of another one.

    Returns
    -------
    Dataset
        See `compute_targets`.
    """
    folder = Path(cache)
    facts = _facts(folder)
    if provider is not None:
        check_fingerprint(facts["fingerprint"], provider.fingerprint(), where=f"{folder}: ")
    try:
        values = np.load(folder / VALUES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / VALUES} can't be read ({error}); {_ANEW}") from error
    if len(values) != len(facts["stimulus"]):
        raise DataError(f"{folder}: {len(values)} rows for {len(facts['stimulus'])} names; {_ANEW}")
    names = np.array(facts["stimulus"], dtype=str)
    rows = _rows(names, stimuli, folder)
    return _dataset(values[rows], names[rows], facts["attrs"], facts["feature_names"])


def targets_dataset(values: Floats, stimuli: ArrayLike, provider: Provider) -> xr.Dataset:
    """Put targets into a dataset with the attributes of their provider."""
    names = np.asarray(stimuli, dtype=str)
    return _dataset(values, names, _attrs(provider), provider.feature_names())


def check_fingerprint(found: Any, expected: Any, *, where: str = "") -> None:
    """Refuse targets of another provider, layer, weights or preprocessing.

    Parameters
    ----------
    found, expected : dict or JSON text

    Raises
    ------
    ContractError
        Naming what differs, on both sides.

    Examples
    --------
    >>> check_fingerprint({"arch": "ViT-L-14"}, {"arch": "ViT-H-14"})
    Traceback (most recent call last):
    neuro.errors.ContractError: the targets have another fingerprint: arch is "ViT-L-14", \
expected "ViT-H-14"; use another folder, or compute the targets anew
    """
    found, expected = _parsed(found), _parsed(expected)
    if found == expected:
        return
    keys = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    shown = {key: [json.dumps(d.get(key))[:200] for d in (found, expected)] for key in keys}
    sides = "; ".join(f"{key} is {a}, expected {b}" for key, (a, b) in shown.items())
    raise ContractError(
        f"{where}the targets have another fingerprint: {sides}; use another folder, or compute "
        "the targets anew"
    )


def refuse_leak(targets: xr.Dataset, test_images: xr.Dataset) -> None:
    """Refuse targets whose provider was trained on a test image.

    Raises
    ------
    DataError
        Naming the images.
    """
    trained_on = json.loads(targets.attrs.get("trained_on", "[]"))
    kind = _parsed(targets.attrs["fingerprint"]).get("provider")
    refuse_seen(trained_on, test_images, what=f"the provider '{kind}' of the targets")


# Inside ---------------------------------------------------------------------------------------

_ANEW = "delete the folder and compute the targets anew"


def _keyed(images: Any, provider: Provider) -> xr.Dataset:
    if isinstance(images, xr.Dataset):
        if "stimulus" not in images.coords:
            raise DataError("the images have no coordinate 'stimulus' on trial; name them")
        if provider.needs_pixels and "signal" not in images:
            raise DataError(f"the provider '{provider.kind}' needs pixels; pass the images")
        return images
    if provider.needs_pixels:
        raise InputError(f"the provider '{provider.kind}' needs pixels; pass the images' Dataset")
    return xr.Dataset(coords={"stimulus": ("trial", np.asarray(images, dtype=str))})


def _batches(
    images: xr.Dataset,
    provider: Provider,
    batch_size: int,
    dtype: str,
    progress: Callable[..., Iterator[Any]] | None,
) -> Iterator[Floats]:
    n = images.sizes["trial"]
    if n == 0:
        raise DataError("there is no image to compute a target of")
    starts: Any = range(0, n, batch_size)
    for start in progress(starts, f"targets: {provider.kind}", len(starts)) if progress else starts:
        batch = images.isel(trial=slice(start, start + batch_size))
        yield _in_dtype(np.asarray(provider.encode(batch)), dtype, batch)


def _in_dtype(values: Floats, dtype: str, batch: xr.Dataset) -> Floats:
    if values.ndim != 3 or len(values) != batch.sizes["trial"]:
        raise ContractError(
            f"the provider gave targets of the shape {values.shape} for {batch.sizes['trial']} "
            "images; expected (trial, token, feature)"
        )
    with np.errstate(over="ignore"):
        out = values.astype(dtype)
    bad = ~np.isfinite(out).reshape(len(out), -1).all(1)
    if bad.any():
        name = batch["stimulus"].values[int(np.argmax(bad))]
        raise DataError(
            f"the target of '{name}' isn't finite in {dtype} (largest value "
            f"{float(np.abs(values[bad]).max()):g}); use float32, or look at the image"
        )
    return out


def _write(
    folder: Path,
    images: xr.Dataset,
    provider: Provider,
    batch_size: int,
    dtype: str,
    progress: Callable[..., Iterator[Any]] | None,
) -> None:
    n, start = images.sizes["trial"], 0
    mapped: Any = None
    with new_folder(folder, mark=FACTS) as temporary:
        for part in _batches(images, provider, batch_size, dtype, progress):
            if mapped is None:
                mapped = np.lib.format.open_memmap(
                    temporary / VALUES, mode="w+", dtype=dtype, shape=(n, *part.shape[1:])
                )
            mapped[start : start + len(part)] = part
            start += len(part)
        mapped.flush()
        facts = {
            "format": _FORMAT,
            "fingerprint": provider.fingerprint(),
            "stimulus": images["stimulus"].values.tolist(),
            "image_hash": _hashes(images),
            "feature_names": provider.feature_names(),
            "attrs": _attrs(provider),
        }
        (temporary / FACTS).write_text(json.dumps(facts))


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not path.is_file():
        raise DataError(f"{folder} is no cache of targets: {FACTS} missing; {listing(folder)}")
    try:
        facts = json.loads(path.read_text())
        if facts["format"] != _FORMAT:
            raise ContractError(
                f"{path}: the format is {facts['format']}, this version reads {_FORMAT}; {_ANEW}"
            )
        return {k: facts[k] for k in ("fingerprint", "stimulus", "image_hash", "attrs")} | {
            "feature_names": facts.get("feature_names")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read ({error}); {_ANEW}") from error


def _refuse_other_images(folder: Path, images: xr.Dataset) -> None:
    facts = _facts(folder)
    hashes = _hashes(images)
    if hashes is None or facts["image_hash"] is None:
        return
    known = dict(zip(facts["stimulus"], facts["image_hash"], strict=True))
    names = images["stimulus"].values.tolist()
    for name, digest in zip(names, hashes, strict=True):
        if known.get(name, digest) != digest:
            raise ContractError(
                f"{folder} was computed from another image of '{name}' (hash {known[name]}, now "
                f"{digest}); {_ANEW}"
            )


def _rows(names: NDArray[Any], stimuli: ArrayLike | None, folder: Path) -> Any:
    if stimuli is None:
        return slice(None)
    wanted = np.atleast_1d(np.asarray(stimuli, dtype=str))
    table = xr.Dataset({"row": ("trial", np.arange(len(names)))}, {"stimulus": ("trial", names)})
    rows = pick(table, wanted, what=f"{folder}: the targets")["row"].values
    if len(rows) and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _dataset(
    values: Floats, names: NDArray[Any], attrs: dict[str, Any], features: list[str] | None
) -> xr.Dataset:
    coords: dict[str, Any] = {"stimulus": ("trial", names)}
    if features is not None:
        coords["feature"] = np.array(features, dtype=str)
    return xr.Dataset({"signal": (("trial", "token", "feature"), values)}, coords, dict(attrs))


def _attrs(provider: Provider) -> dict[str, Any]:
    attrs = {
        "kind": "targets",
        "fingerprint": json.dumps(provider.fingerprint(), sort_keys=True),
        "random_weights": int(provider.random_weights),
        "scale": float(provider.scale),
        **provider.attributes(),
    }
    if provider.trained_on:
        attrs["trained_on"] = json.dumps(list(provider.trained_on))
    return attrs


def _hashes(images: xr.Dataset) -> list[str] | None:
    return images["image_hash"].values.tolist() if "image_hash" in images.coords else None


def _parsed(fingerprint: Any) -> dict[str, Any]:
    return json.loads(fingerprint) if isinstance(fingerprint, str) else dict(fingerprint)
