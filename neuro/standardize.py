"""Standardisation fitted on the training part only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096  # trials reduced at once: float64 accumulation without a float64 copy of the data


@dataclass
class Standardizer:
    """Mean and standard deviation of every channel over trials and time.

    Attributes
    ----------
    mean, sd : ndarray of float32, shape (channel,)
        In the units of the signal. A constant channel has ``sd`` 1, so that it becomes zero.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(5, 3, (50, 2, 20)).astype("float32")
    >>> scaler = Standardizer.fit(X)
    >>> Z = scaler.transform(X)
    >>> bool(abs(Z.mean()) < 1e-5), bool(abs(Z.std() - 1) < 1e-3)
    (True, True)
    >>> bool(np.allclose(scaler.inverse(Z), X, atol=1e-4))
    True
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def fit(cls, X: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> Standardizer:
        """Estimate the statistics.

        Parameters
        ----------
        X : ndarray, shape (trial, channel, ...)
            The training trials; may be memory-mapped.
        mask : ndarray of bool, shape (trial, time), optional
            True where a sample is real and not padding.

        Returns
        -------
        Standardizer
        """
        total, moment, count = _moments(X, None, mask)
        mean = total / max(count, 1)
        # A second pass about the mean: sums of squares alone lose an offset's digits.
        _, moment, _ = _moments(X, mean, mask)
        sd = np.sqrt(moment / max(count, 1))
        floor = 1e-7 * np.maximum(1.0, np.abs(mean))
        return cls(mean.astype(np.float32), np.where(sd > floor, sd, 1.0).astype(np.float32))

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return ``(X - mean) / sd``, in the dtype of a floating `X` (else float32)."""
        mean, sd = self._like(X)
        return (X - mean) / sd

    def inverse(self, Z: NDArray[Any]) -> NDArray[Any]:
        """Return ``Z * sd + mean``, in the units of the signal."""
        mean, sd = self._like(Z)
        return Z * sd + mean

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists for JSON; `from_dict` gives back the same bits."""
        return {"mean": self.mean.tolist(), "sd": self.sd.tolist()}

    @classmethod
    def from_dict(cls, stored: dict[str, list[float]]) -> Standardizer:
        """Rebuild from `to_dict`."""
        return cls(*(np.asarray(stored[name], dtype=np.float32) for name in ("mean", "sd")))

    def _like(self, X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        shape = (-1,) + (1,) * (X.ndim - 2)
        dtype = X.dtype if np.issubdtype(X.dtype, np.floating) else np.float32
        return self.mean.reshape(shape).astype(dtype), self.sd.reshape(shape).astype(dtype)


def _moments(
    X: NDArray[Any], mean: NDArray[np.float64] | None, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Sum and sum of squares of every channel about `mean`, and the samples counted."""
    axes = (0, *range(2, X.ndim))
    total, moment = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    count = 0
    for start in range(0, len(X), _BLOCK):
        block = np.asarray(X[start : start + _BLOCK], dtype=np.float64)
        if mean is not None:
            block -= mean.reshape((-1,) + (1,) * (X.ndim - 2))
        if mask is not None:
            keep = mask[start : start + _BLOCK]
            block *= keep[:, None, :]
            count += int(keep.sum())
        else:
            count += block.size // max(X.shape[1], 1)
        total += block.sum(axes)
        moment += np.square(block).sum(axes)
    return total, moment, count
