"""How the pictures of sixes and nines are predicted from voxels, fold by fold.

The voxels that the training pictures predict; MindEye from them to the tokens of an autoencoder;
the autoencoder's decoder back to pixels. Beside it two ridge regressions from the same voxels, to
the same tokens and to pixels, that show what each part of it adds. An autoencoder that was trained
on pictures of other people's digits only serves all folds.

References
----------
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from fmri.autoencoder import ImageAutoencoder
from fmri.baselines import TunedRidge
from fmri.digits import Predictor
from fmri.encoding import predicted_voxels
from fmri.images import images_dataset
from fmri.providers import AutoencoderTokens
from fmri.reconstruct import FromDecoder, reconstruct
from fmri.targets import compute_targets

__all__ = ["TokenMethods", "stroke_autoencoder"]

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]


def stroke_autoencoder(
    size: int,
    digits: Sequence[int],
    *,
    scratch: str | Path | None = None,
    progress: Callable[..., Iterator[Any]] | None = None,
    **params: Any,
) -> ImageAutoencoder:
    """Train an autoencoder on scikit-learn's digits, and on nothing of the study.

    Parameters
    ----------
    size : int
        Rows and columns of the study's pictures.
    digits : sequence of int
    scratch, progress
        Of `ImageAutoencoder.fit`.
    **params
        Of `ImageAutoencoder`.
    """
    from fmri.digit_strokes import stroke_digits

    strokes = stroke_digits(size, digits=digits)
    own = ImageAutoencoder(**params)
    names = strokes["stimulus"].values
    return own.fit(strokes, train_stimuli=names, scratch=scratch, progress=progress)


class TokenMethods:
    """Methods for `fmri.digits.cross_validate` that share voxels and tokens.

    Parameters
    ----------
    voxels : array_like of shape (n, voxel)
    pictures : array_like of shape (n, row, column)
        In [0, 1].
    autoencoder : ImageAutoencoder
        That has seen no test picture; checked by hash in every fold.
    threshold : float
        Of `fmri.encoding.predicted_voxels`, on the training rows of each fold.
    random_state : int
    **params
        Of `MindEye`.

    Attributes
    ----------
    n_voxels_ : dict of tuple of int to int
        Voxels that were kept, by the training rows of a fold.
    """

    def __init__(
        self,
        voxels: ArrayLike,
        pictures: ArrayLike,
        autoencoder: ImageAutoencoder,
        *,
        threshold: float = 0.3,
        random_state: int = 0,
        **params: Any,
    ) -> None:
        shown = np.asarray(pictures, dtype=np.float32)
        self.names = np.array([f"picture-{row:03d}" for row in range(len(shown))])
        self.pictures = shown
        self.images = images_dataset(shown[:, None], self.names)
        self.betas = xr.DataArray(
            np.asarray(voxels, dtype=np.float32),
            dims=("trial", "voxel"),
            coords={"stimulus": ("trial", self.names)},
        )
        self.autoencoder, self.provider = autoencoder, AutoencoderTokens(autoencoder)
        self.generator = FromDecoder(self.provider)
        self.threshold, self.random_state, self.params = threshold, random_state, params
        self.n_voxels_: dict[tuple[int, ...], int] = {}
        self._kept: dict[tuple[int, ...], NDArray[np.bool_]] = {}

    def methods(self) -> dict[str, Predictor]:
        """Return the methods by the names that metrics give them."""
        return {
            "mindeye": self.mindeye,
            "tokens_ridge": self.tokens_ridge,
            "selected_ridge": self.selected_ridge,
        }

    def mindeye(self, train: Rows, test: Rows) -> Floats:
        """Predict by MindEye to tokens, decoded."""
        from fmri.mindeye import MindEye

        known = self._known(train, test)
        betas = self._chosen(train)
        model = MindEye(prior=False, random_state=self.random_state, **self.params)
        model.fit(betas[train], known)
        return self._decoded(model.predict_tokens(betas[test], prior=False))

    def tokens_ridge(self, train: Rows, test: Rows) -> Floats:
        """Predict by a tuned ridge regression to tokens, decoded: MindEye without its network."""
        known = self._known(train, test)
        betas = self._chosen(train)
        ridge = TunedRidge(per_target=False).fit(betas[train].values, known["signal"].values)
        return self._decoded(ridge.predict_array(betas[test]))

    def selected_ridge(self, train: Rows, test: Rows) -> Floats:
        """Predict pixels by a tuned ridge regression from the chosen voxels."""
        betas = self._chosen(train).values
        return TunedRidge().fit(betas[train], self.pictures[train]).predict(betas[test])

    def _known(self, train: Rows, test: Rows) -> xr.Dataset:
        self.autoencoder.refuse_seen(self.images.isel(trial=test))
        return compute_targets(self.images.isel(trial=train), self.provider, dtype="float32")

    def _chosen(self, train: Rows) -> xr.DataArray:
        key = tuple(int(row) for row in train)
        if key not in self._kept:
            keep = predicted_voxels(
                self.betas.values[train],
                self.pictures[train],
                self.threshold,
                random_state=self.random_state,
            )
            self._kept[key], self.n_voxels_[key] = keep, int(keep.sum())
        return self.betas[:, self._kept[key]]

    def _decoded(self, tokens: xr.DataArray) -> Floats:
        return reconstruct(tokens, self.generator)["signal"].values[:, 0]
