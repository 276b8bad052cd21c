"""The low-level branch: from voxels to the latent of an image autoencoder.

The branch shares MindEye's backbone (as MindEye2's does) and is trained with it where
`MindEye.fit` is given image latents: L1 on the latent and 0.1 times an auxiliary contrastive
term on the small map that the decoder starts from. Decoded by the autoencoder the latent gives
the blurry picture from which an image-to-image reconstruction starts.

References
----------
Scotti et al., "Reconstructing the mind's eye" (NeurIPS 2023), section 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from neuro.errors import DataError

if TYPE_CHECKING:
    from fmri.mindeye import MindEye


def latent_dataset(latents: ArrayLike, stimulus: ArrayLike, **attrs: Any) -> xr.Dataset:
    """Return image latents as `MindEye.fit` wants them.

    Parameters
    ----------
    latents : array-like, shape (stimulus, channel, row, column)
    stimulus : array-like of str, shape (stimulus,)
    **attrs
        JSON values that say what made them (``fingerprint``, ``scale``).

    Returns
    -------
    Dataset
        ``signal`` (trial, channel, row, column) with the coordinate ``stimulus``.

    Raises
    ------
    DataError
        Where the shapes don't fit.

    Examples
    --------
    >>> latent_dataset(np.zeros((2, 4, 8, 8)), ["a", "b"]).signal.shape
    (2, 4, 8, 8)
    """
    values, names = np.asarray(latents, np.float32), np.asarray(stimulus).astype(str)
    if values.ndim != 4 or names.shape != values.shape[:1]:
        raise DataError(
            f"the image latents have the shape {values.shape} for {names.shape} stimuli, "
            "expected (stimulus, channel, row, column)"
        )
    return xr.Dataset(
        {"signal": (("trial", "channel", "row", "column"), values)},
        coords={"stimulus": ("trial", names)},
        attrs={"kind": "latents", **attrs},
    )


def low_level_latents(model: MindEye, X: Any, *, average: bool = True) -> xr.DataArray:
    """Predict image latents, averaged over the repeats of a stimulus.

    Parameters
    ----------
    model : MindEye
        Fitted with `low_level`.
    X : as for `MindEye.transform`
        One dataset.
    average : bool
        Average repeats, where trials name their stimulus.

    Returns
    -------
    DataArray (trial, channel, row, column)
        In the scale of the latents that the model was fitted to.
    """
    from fmri.mindeye import average_repeats

    found = model.predict_low_level(X)
    if average and isinstance(found, xr.DataArray) and "stimulus" in found.coords:
        return average_repeats(found)
    return found
