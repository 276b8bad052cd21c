"""Similarities between the rows of two arrays, in blocks of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

__all__ = ["BLOCK_BYTES", "Similarity", "blocks", "compare_rows"]

Similarity = Literal["cosine", "correlation", "dot"]

BLOCK_BYTES = 64 << 20


def compare_rows(
    a: Any,
    b: Any,
    *,
    similarity: Similarity = "cosine",
    block_bytes: int = BLOCK_BYTES,
) -> NDArray[np.float32]:
    """Compare every row of `a` with every row of `b`.

    Axes after the first are flattened. The sum runs over blocks of features, so that nothing of
    the size of the input is copied: a memory-mapped half-precision matrix is read once.

    Parameters
    ----------
    a : array_like of shape (n, ...)
    b : array_like of shape (m, ...)
        As many features as `a`.
    similarity : {"cosine", "correlation", "dot"}
        Pearson's correlation is the cosine of rows whose mean was taken off. A row without
        length has the similarity 0 to everything, that is, it is tied with all.
    block_bytes : int
        Working memory for the blocks.

    Returns
    -------
    ndarray of float32, shape (n, m)

    Raises
    ------
    InputError
        Where the numbers of features differ, or the similarity isn't known.
    DataError
        Where a row holds NaN or infinity.

    Examples
    --------
    >>> compare_rows([[1.0, 0.0]], [[2.0, 0.0], [0.0, 3.0]]).tolist()
    [[1.0, 0.0]]
    """
    if similarity not in ("cosine", "correlation", "dot"):
        raise InputError(f"similarity '{similarity}' is not known: use cosine, correlation or dot")
    a, b = _flat(a), _flat(b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"rows of {a.shape[1]} features can't be compared with rows of {b.shape[1]}; "
            "both must come from the same space"
        )
    centre = similarity == "correlation"
    moments = [_moments(part, block_bytes) if centre else (None, 0.0) for part in (a, b)]
    product = np.zeros((len(a), len(b)), np.float32)
    squares = [np.zeros(len(a)), np.zeros(len(b))]
    for columns in blocks(a.shape[1], 4 * (len(a) + len(b)), block_bytes):
        left, right = _take(a, columns, moments[0][0]), _take(b, columns, moments[1][0])
        product += left @ right.T
        squares[0] += np.einsum("if,if->i", left, left)
        squares[1] += np.einsum("if,if->i", right, right)
    if not (np.isfinite(squares[0]).all() and np.isfinite(squares[1]).all()):
        raise DataError("a row holds NaN or infinity; retrieval needs finite numbers")
    if similarity != "dot":
        product *= _inverse(squares[0], moments[0][1])[:, None]
        product *= _inverse(squares[1], moments[1][1])
    return product


def _flat(values: Any) -> Any:
    """Flatten all axes after the first; a memory map stays one."""
    values = values if hasattr(values, "reshape") else np.asarray(values)
    if values.ndim < 2:
        raise InputError(f"one row per item was expected, found an array of shape {values.shape}")
    return values if values.ndim == 2 else values.reshape(len(values), -1)


def blocks(n: int, bytes_each: int, block_bytes: int) -> Iterator[slice]:
    """Cut ``0..n`` into slices whose items, of `bytes_each`, fill about `block_bytes`."""
    step = max(1, block_bytes // max(bytes_each, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _take(values: Any, columns: slice, means: NDArray[np.float64] | None) -> NDArray[np.float32]:
    block = np.asarray(values[:, columns], dtype=np.float32)
    return block if means is None else block - means[:, None].astype(np.float32)


def _moments(values: Any, block_bytes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and squared length of every row."""
    total, squares = np.zeros(len(values)), np.zeros(len(values))
    for columns in blocks(values.shape[1], 4 * len(values), block_bytes):
        block = np.asarray(values[:, columns], dtype=np.float32)
        total += block.sum(1, dtype=np.float64)
        squares += np.einsum("if,if->i", block, block)
    return total / values.shape[1], squares


def _inverse(
    squares: NDArray[np.float64], uncentred: NDArray[np.float64] | float
) -> NDArray[np.float32]:
    # What is left of a constant row after centring is rounding, not a direction.
    flat = squares <= 1e-12 * uncentred
    return np.where(flat, 0.0, 1 / np.sqrt(np.where(flat, 1.0, squares))).astype(np.float32)
