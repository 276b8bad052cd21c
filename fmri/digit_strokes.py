"""scikit-learn's hand-written digits in the form of MNIST's, to learn the strokes of digits from.

Other people wrote them than those of the pictures of van Gerven et al. (2010), which are MNIST's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fmri.images import digit_images, images_dataset, resize
from neuro.errors import InputError

__all__ = ["stroke_digits"]

Floats = NDArray[np.float32]

_BOX = 20 / 28  # of MNIST: the digit's share of the side
_INK, _STEEPNESS = 0.45, 12.0  # where upsampled counts of ink turn into a stroke


def stroke_digits(size: int = 28, *, digits: Sequence[int] | None = None) -> xr.Dataset:
    """Return the 8 x 8 digits upsampled to strokes, in a box of 20 of 28 pixels.

    A pixel of theirs counts the ink of 4 x 4 dots. Upsampled it is a blur; a sigmoid makes edges
    of it again. As in MNIST the centre of the ink is brought to the centre of the picture.

    Parameters
    ----------
    size : int
        Rows and columns, 12 or more.
    digits : sequence of int, optional
        Those to take, all ten by default.

    Returns
    -------
    Dataset
        See `fmri.images.digit_images`.

    References
    ----------
    LeCun et al., "Gradient-based learning applied to document recognition" (1998), for the form.

    Examples
    --------
    >>> stroke_digits(digits=[6, 9])["signal"].shape
    (361, 1, 28, 28)
    """
    if size < 12:
        raise InputError(f"size is {size}; expected 12 or more, the digits have 8 pixels")
    found = digit_images(digits=digits)
    box = round(_BOX * size)
    grey = resize(found["signal"].values, box)[:, 0].astype(np.float64)
    strokes = 1 / (1 + np.exp(-_STEEPNESS * (grey - _INK)))
    before = (size - box) // 2
    wide = ((0, 0), *[(before, size - box - before)] * 2)
    centred = np.stack([_centred(picture) for picture in np.pad(strokes, wide)])
    return images_dataset(
        centred.astype(np.float32)[:, None],
        found["stimulus"].values,
        category=found["category"].values,
        duplicates="keep",
        source="scikit-learn's digits",
    )


def _centred(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import center_of_mass, shift

    middle = np.array(picture.shape) / 2
    return np.clip(shift(picture, middle - center_of_mass(picture), order=1), 0, 1)
