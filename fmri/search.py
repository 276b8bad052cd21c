"""The best k of millions: exact, in blocks of a memory-mapped matrix, or by an index of faiss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["build_index", "open_index", "top_k"]

Found = tuple[NDArray[np.float32], NDArray[np.int64]]

_BLOCK_BYTES = 32 << 20
_QUERIES = 2048  # at once
_STEP = (2048, 65536)  # candidates at once: what a processor's cache takes, what a GPU is busy with
_TRAIN_ROWS = 100_000  # of an approximate index


def top_k(
    queries: Any,
    candidates: Any,
    k: int = 16,
    *,
    device: str = "cpu",
    block: int | None = None,
    index: Any = None,
) -> Found:
    """Find the `k` candidates with the largest inner product with each query.

    Memory is bounded by a few blocks whatever the number of candidates; each block is read once
    for every 2,048 queries. With rows of unit length the inner product is the cosine.

    Parameters
    ----------
    queries : array_like of shape (n_query, feature)
    candidates : array_like of shape (n_candidate, feature)
        Any array that can be sliced by rows: a memory map, a Zarr array; half precision is
        converted block by block.
    k : int
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``; blocks are moved there one after another.
    block : int, optional
        Candidates at a time; by default 2,048, and 65,536 on a GPU.
    index : faiss.Index, optional
        Of `build_index`: asked instead of `candidates`.

    Returns
    -------
    scores : ndarray of float32, shape (n_query, k)
        Falling.
    rows : ndarray of int64, shape (n_query, k)
        Rows of `candidates`.

    Raises
    ------
    InputError
        Where `k` or `block` can't be.
    ContractError
        Where queries and candidates differ in their features.
    DataError
        Where a query is not finite.

    Examples
    --------
    >>> scores, rows = top_k(np.eye(3), np.eye(3) * [[1.0], [2.0], [3.0]], k=2)
    >>> rows[:, 0].tolist(), scores[:, 0].tolist()
    ([0, 1, 2], [1.0, 2.0, 3.0])
    """
    asked = np.ascontiguousarray(queries, dtype=np.float32)
    _check(asked, candidates, k, block)
    if index is not None:
        return _ask(index, asked, len(candidates), k)
    parts = [
        _scan(asked[first : first + _QUERIES], candidates, k, device, block)
        for first in range(0, len(asked), _QUERIES)
    ]
    if not parts:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    return np.concatenate([s for s, _ in parts]), np.concatenate([r for _, r in parts])


def _check(queries: NDArray[Any], candidates: Any, k: int, block: int | None) -> None:
    if queries.ndim != 2 or len(candidates.shape) != 2:
        raise InputError(
            f"queries {queries.shape} and candidates {tuple(candidates.shape)} must be (row, "
            "feature); pool the tokens first"
        )
    if queries.shape[1] != candidates.shape[1]:
        raise ContractError(
            f"the queries have {queries.shape[1]} features, expected {candidates.shape[1]} as the "
            "candidates"
        )
    if not 1 <= k <= candidates.shape[0]:
        raise InputError(f"k is {k}; expected 1 to {candidates.shape[0]}, the candidates there are")
    if block is not None and block < 1:
        raise InputError(f"block is {block}; expected 1 or more, or None")
    if not np.isfinite(queries).all():
        raise DataError("a query holds NaN or infinity")


def _scan(queries: NDArray[np.float32], candidates: Any, k: int, name: str, block: Any) -> Found:
    """Go through all candidates once, keeping the best k of each query."""
    import torch

    from neuro.device import device_of

    device = device_of(name)
    asked = torch.from_numpy(queries).to(device)
    n, width = candidates.shape
    step = min(block or _STEP[device.type == "cuda"], n)
    buffer = torch.empty((step, width), device=device)
    best = torch.full((len(queries), k), -torch.inf, device=device)
    rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=device)
    scores = torch.empty((len(queries), step), device=device)
    with torch.inference_mode():
        for first in range(0, n, step):
            part = torch.from_numpy(np.array(candidates[first : first + step]))
            buffer[: len(part)] = part.to(device)
            torch.mm(asked, buffer.T, out=scores)
            best, rows = _keep(best, rows, scores[:, : len(part)], first)
        best, rows = _settle(best, rows)
    return best.cpu().numpy(), rows.cpu().numpy()


def _keep(
    best: torch.Tensor, rows: torch.Tensor, scores: torch.Tensor, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge a block: after the first few, hardly any score enters, and only those are sorted."""
    import torch

    k, last = best.shape[1], best[:, -1:]
    if bool(torch.isinf(last).any()):
        new, columns = torch.topk(scores, min(k, scores.shape[1]), dim=1)
    else:
        query, column = (scores > last).nonzero(as_tuple=True)
        counts = torch.bincount(query, minlength=len(scores))
        shape = (len(scores), int(counts.max()))
        place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        new = torch.full(shape, -torch.inf, device=scores.device)
        columns = torch.zeros(shape, dtype=torch.int64, device=scores.device)
        new[query, place] = scores[query, column]
        columns[query, place] = column
    joined, order = torch.topk(torch.cat([best, new], 1), k, dim=1)
    return joined, torch.cat([rows, columns + first], 1).gather(1, order)


def _settle(best: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Order equal scores by row."""
    by_row, order = rows.sort(dim=1, stable=True)
    best = best.gather(1, order)
    best, order = best.sort(dim=1, descending=True, stable=True)
    return best, by_row.gather(1, order)


# faiss ----------------------------------------------------------------------------------------


def build_index(
    candidates: Any, description: str = "Flat", *, path: str | Path | None = None
) -> Any:
    """Build an index of faiss for inner products, block by block.

    Parameters
    ----------
    candidates : array_like of shape (n_candidate, feature)
    description : str
        For ``faiss.index_factory``: ``"Flat"`` is exact; ``"IVF1024,Flat"``, ``"HNSW32"`` or
        ``"IVF1024,PQ64"`` are approximate. What needs training is trained on at most 100,000
        rows, spread evenly.
    path : path, optional
        Write it there too.

    Returns
    -------
    faiss.Index

    Raises
    ------
    InputError
        Where faiss is not installed, or doesn't know the description.
    """
    faiss = _faiss()
    n, width = candidates.shape
    try:
        index = faiss.index_factory(int(width), description, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"faiss knows no index '{description}'; use Flat, IVF1024,Flat or HNSW32"
        ) from error
    if not index.is_trained:
        chosen = slice(None, None, -(-n // _TRAIN_ROWS))
        index.train(np.ascontiguousarray(candidates[chosen], dtype=np.float32))
    step = max(256, _BLOCK_BYTES // (4 * width))
    for first in range(0, n, step):
        index.add(np.ascontiguousarray(candidates[first : first + step], dtype=np.float32))
    if path is not None:
        faiss.write_index(index, str(path))
    return index


def open_index(path: str | Path) -> Any:
    """Open an index that `build_index` wrote.

    Raises
    ------
    DataError
        Where faiss can't read it.
    """
    faiss = _faiss()
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise DataError(f"{path}: no index that faiss can read; build it anew") from error


def _ask(index: Any, queries: NDArray[np.float32], n: int, k: int) -> Found:
    if (index.ntotal, index.d) != (n, queries.shape[1]):
        raise ContractError(
            f"the index holds {index.ntotal} rows of {index.d} features, expected {n} of "
            f"{queries.shape[1]}; build it anew from this gallery"
        )
    scores, rows = index.search(queries, k)
    return scores, rows


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "faiss is not installed: pip install faiss-cpu, or search without an index (exact, "
            "and about as fast)"
        ) from error
    return faiss
