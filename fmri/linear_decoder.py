"""The way from principal components back to pixels, small enough to be saved with an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmri.targets import check_fingerprint

if TYPE_CHECKING:
    from fmri.providers import PixelPCA

PREFIX = "pixels."


@dataclass(frozen=True)
class LinearDecoder:
    """Pixels as a sum of components.

    Attributes
    ----------
    components : ndarray of float32, shape (component, pixel)
    mean : ndarray of float32, shape (pixel,)
    shape : ndarray of int, shape (3,)
        Channel, row, column.

    Examples
    --------
    >>> decoder = LinearDecoder(np.eye(2, 4), np.zeros(4), np.array([1, 2, 2]))
    >>> decoder.inverse_transform([[[0.5, 1.0]]]).ravel().tolist()
    [0.5, 1.0, 0.0, 0.0]
    """

    components: NDArray[Any]
    mean: NDArray[Any]
    shape: NDArray[Any]

    @classmethod
    def of(cls, provider: PixelPCA, fingerprint: Any) -> LinearDecoder:
        """Take it from the provider of the targets.

        Raises
        ------
        ContractError
            Where the targets are those of another provider.
        """
        check_fingerprint(provider.fingerprint(), fingerprint or {}, where="the decoder: ")
        pca = provider.pca_
        scale = np.sqrt(pca.explained_variance_)[:, None] if provider.whiten else 1.0
        return cls(
            (pca.components_ * scale).astype(np.float32),
            pca.mean_.astype(np.float32),
            np.array(provider.shape_, dtype=np.int64),
        )

    def inverse_transform(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Return pictures ``(trial, channel, row, column)`` in [0, 1] of scores."""
        flat = np.asarray(tokens, dtype=np.float32)
        pixels = flat.reshape(len(flat), -1) @ self.components + self.mean
        return pixels.clip(0, 1).reshape(-1, *self.shape.tolist()).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by prefixed names."""
        return {f"{PREFIX}{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> LinearDecoder | None:
        """Take them back; None where there are none."""
        own = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
        return cls(**own) if own else None
