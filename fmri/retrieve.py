"""Retrieve: from a brain to the images of a gallery, and from an image to the brains.

A gallery picture can serve as a reconstruction: candidates are found by one embedding and the best
sixteen re-ranked by all tokens, the path that MindEye takes through LAION, on a local gallery.

References
----------
Scotti et al., "Reconstructing the Mind's Eye" (NeurIPS 2023), section 3.2 and appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.gallery import Gallery, pool_tokens
from fmri.images import some
from fmri.search import top_k
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Retrieved", "best_pictures", "picture_grid", "rerank", "retrieve", "retrieve_both"]

Tokens = xr.DataArray | NDArray[Any]


@dataclass(frozen=True)
class Retrieved:
    """The best candidates of each query, best first.

    Attributes
    ----------
    query : ndarray of str, shape (query,)
        The stimulus that was seen, or the number of the query where that isn't known.
    found : ndarray of str, shape (query, k)
        Names of the candidates.
    rows : ndarray of int, shape (query, k)
        Their rows in the gallery.
    scores : ndarray of float32, shape (query, k)
        Cosines, falling.
    direction : {"image", "brain"}
        What was retrieved.
    """

    query: NDArray[np.str_]
    found: NDArray[np.str_]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    direction: str = "image"

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether a candidate is the right one, (query, k)."""
        return self.found == self.query[:, None]

    def table(self) -> pd.DataFrame:
        """Return a row for each query and candidate: ``query, rank, found, score, right``."""
        import pandas as pd

        n, k = self.found.shape
        return pd.DataFrame(
            {
                "query": np.repeat(self.query, k),
                "rank": np.tile(np.arange(1, k + 1), n),
                "found": self.found.ravel(),
                "score": self.scores.ravel(),
                "right": self.right.ravel(),
            }
        )

    def take(self, order: NDArray[np.intp], scores: NDArray[np.float32]) -> Self:
        """Return the candidates in another order, ``order (query, k)``, with new scores."""
        return type(self)(
            self.query,
            np.take_along_axis(self.found, order, 1),
            np.take_along_axis(self.rows, order, 1),
            np.take_along_axis(scores, order, 1),
            self.direction,
        )


def retrieve(
    predicted: Tokens,
    gallery: Gallery,
    k: int = 16,
    *,
    fingerprint: Any = None,
    device: str = "cpu",
    block: int | None = None,
    index: Any = None,
) -> Retrieved:
    """Retrieve images of a gallery from predicted tokens.

    Parameters
    ----------
    predicted : DataArray or ndarray (trial, token, feature)
        In the space of the targets, or of retrieval; the tokens are pooled as the gallery's. An
        array (trial, feature) is compared with the embeddings as it is.
    gallery : Gallery
    k : int
    fingerprint : dict or JSON, optional
        Of the targets that the encoder was trained on; by default the attribute ``fingerprint``
        of `predicted`.
    device, block, index
        See `fmri.search.top_k`.

    Returns
    -------
    Retrieved

    Raises
    ------
    ContractError
        Where the gallery was made of other targets, or the fingerprint isn't known.

    Examples
    --------
    >>> import tempfile
    >>> from fmri.gallery_build import build_gallery
    >>> from fmri.simulate import simulate
    >>> study = simulate(n_train=20, n_test=5, n_voxels=10)
    >>> seen = study.targets.signal.isel(trial=[3, 4])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gallery = build_gallery(study.targets, f"{folder}/gallery")
    ...     found = retrieve(seen, gallery, 2, fingerprint=study.targets.attrs["fingerprint"])
    >>> found.rows[:, 0].tolist(), found.right[:, 0].tolist()
    ([3, 4], [True, True])
    """
    _check(predicted, gallery, fingerprint)
    values = np.asarray(predicted, dtype=np.float32)
    asked = gallery.pool(values) if values.ndim == 3 else _unit(values)
    scores, rows = top_k(asked, gallery.embeddings, k, device=device, block=block, index=index)
    return Retrieved(_names(predicted), gallery.stimulus[rows], rows, scores)


def rerank(
    found: Retrieved, predicted: Tokens, gallery: Gallery, *, fingerprint: Any = None
) -> Retrieved:
    """Re-rank candidates by the cosine over all tokens (second-order selection).

    Parameters
    ----------
    found : Retrieved
        Of `retrieve`, by a coarser embedding, possibly of another model.
    predicted : DataArray or ndarray (trial, token, feature)
        One for each query, in the same order.
    gallery : Gallery
        With tokens.
    fingerprint : dict or JSON, optional
        As in `retrieve`.

    Returns
    -------
    Retrieved

    Raises
    ------
    InputError
        Where the gallery has no tokens, or the queries aren't as many.
    """
    _check(predicted, gallery, fingerprint)
    if gallery.tokens is None:
        raise InputError(
            f"{gallery.folder} keeps no tokens to re-rank by; build it with keep_tokens=True"
        )
    if len(predicted) != len(found.query):
        raise InputError(f"{len(predicted)} predictions for {len(found.query)} queries")
    asked = pool_tokens(_three(predicted, gallery))
    scores = np.empty(found.rows.shape, np.float32)
    for query, rows in enumerate(found.rows):  # a query's k rows at a time: bounded memory
        near = pool_tokens(gallery.tokens[rows])
        scores[query] = near @ asked[query]
    return found.take(np.argsort(-scores, axis=1, kind="stable"), scores)


def retrieve_both(
    predicted: xr.DataArray, targets: xr.Dataset, k: int = 16, *, device: str = "cpu"
) -> tuple[Retrieved, Retrieved]:
    """Retrieve in both directions among the trials of a test set.

    Parameters
    ----------
    predicted : DataArray (trial, token, feature)
        One trial per stimulus (see `fmri.mindeye.average_repeats`), with ``stimulus``.
    targets : Dataset
        Of at least these stimuli; others are no candidates.
    k : int
        At most the number of trials.

    Returns
    -------
    image, brain : Retrieved
        From each brain the images, from each image the brains.
    """
    from fmri.evaluate import matched

    brain, image, names = matched(predicted, targets)
    k = min(k, len(names))
    pooled = pool_tokens(brain), pool_tokens(image)
    found = []
    for direction, (asked, held) in {"image": pooled, "brain": pooled[::-1]}.items():
        scores, rows = top_k(asked, held, k, device=device)
        found.append(Retrieved(names, names[rows], rows, scores, direction))
    return found[0], found[1]


def picture_grid(
    found: Retrieved, gallery: Gallery, images: xr.Dataset | None = None, *, n: int = 5
) -> xr.Dataset:
    """Gather the pictures of a grid: the seen one, then the best `n`.

    Parameters
    ----------
    found : Retrieved
    gallery : Gallery
        With pictures.
    images : Dataset, optional
        The seen images, keyed by stimulus; without them the grid has no seen column. Those of a
        query that they lack are blank, named ``""``.
    n : int

    Returns
    -------
    Dataset
        ``picture (query, place, channel, row, column)`` float32 in [0, 1], ``name``, ``score``
        (NaN for the seen one) and ``right`` (query, place).

    Raises
    ------
    DataError
        Where the gallery has no pictures.
    ContractError
        Where the seen images have another size.
    """
    pictures = _pictures(gallery)
    rows = found.rows[:, :n]
    parts: list[Any] = [pictures[rows].astype(np.float32) / 255]
    names, scores = [found.found[:, :n]], [found.scores[:, :n]]
    if images is not None:
        seen, known = _seen(found.query, images, pictures.shape[1:])
        parts.insert(0, seen[:, None])
        names.insert(0, known[:, None])
        scores.insert(0, np.full((len(known), 1), np.nan, np.float32))
    named = np.concatenate(names, 1)
    place = ["seen"] * (images is not None) + [str(rank + 1) for rank in range(rows.shape[1])]
    dims = ("query", "place")
    return xr.Dataset(
        {
            "picture": ((*dims, "channel", "row", "column"), np.concatenate(parts, 1)),
            "name": (dims, named),
            "score": (dims, np.concatenate(scores, 1)),
            "right": (dims, named == found.query[:, None]),
        },
        {"query": found.query, "place": place},
    )


def best_pictures(found: Retrieved, gallery: Gallery) -> xr.DataArray:
    """Take the best candidate's picture as the reconstruction.

    Returns
    -------
    DataArray (trial, channel, row, column)
        float32 in [0, 1], with ``stimulus`` (the query) and ``gallery`` (what was taken).
    """
    pictures = _pictures(gallery)[found.rows[:, 0]].astype(np.float32) / 255
    return xr.DataArray(
        pictures,
        dims=("trial", "channel", "row", "column"),
        coords={"stimulus": ("trial", found.query), "gallery": ("trial", found.found[:, 0])},
    )


# Inside ---------------------------------------------------------------------------------------


def _check(predicted: Tokens, gallery: Gallery, fingerprint: Any) -> None:
    if fingerprint is None and isinstance(predicted, xr.DataArray):
        fingerprint = predicted.attrs.get("fingerprint")
    gallery.check(fingerprint)


def _three(predicted: Tokens, gallery: Gallery) -> NDArray[np.float32]:
    values = np.asarray(predicted, dtype=np.float32)
    if values.shape[1:] != gallery.token_shape:
        raise ContractError(
            f"{gallery.folder}: the predictions have the shape {values.shape[1:]}, expected "
            f"{gallery.token_shape}"
        )
    return values


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-12))


def _names(predicted: Tokens) -> NDArray[np.str_]:
    if isinstance(predicted, xr.DataArray) and "stimulus" in predicted.coords:
        return predicted["stimulus"].values.astype(str)
    return np.arange(len(predicted)).astype(str)


def _pictures(gallery: Gallery) -> NDArray[np.uint8]:
    if gallery.pictures is None:
        raise DataError(f"{gallery.folder} holds no pictures; build it with images=")
    return gallery.pictures


def _seen(
    query: NDArray[np.str_], images: xr.Dataset, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    if images["signal"].shape[1:] != shape:
        raise ContractError(
            f"the seen images are {images['signal'].shape[1:]}, the gallery's {shape} (channel, "
            "row, column); resample them first"
        )
    place = {name: row for row, name in enumerate(images["stimulus"].values.tolist())}
    rows = [place.get(name, -1) for name in query.tolist()]
    if max(rows, default=-1) < 0:
        raise DataError(f"the seen images lack all stimuli of the queries: {some(query.tolist())}")
    pictures = images["signal"].values[rows]
    unknown = np.array(rows) < 0
    pictures = np.where(unknown[:, None, None, None], np.float32(1), pictures)
    return pictures, np.where(unknown, "", query)
