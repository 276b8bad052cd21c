"""Read the pairs of a seen digit and its voxel pattern of van Gerven et al. (2010).

References
----------
van Gerven, de Lange and Heskes, "Neural decoding with hierarchical generative models" (2010).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fmri.images import images_dataset
from fmri.signals import grid_attrs, place_coords, usable
from fmri.trials import betas_dataset, with_labels
from neuro.errors import DataError

__all__ = ["CLASSES", "digit_pairs", "read_digits69"]

Floats = NDArray[np.float32]

CLASSES = {1: "six", 2: "nine"}
_VARIABLES = ("fmriTrn", "fmriTest", "stimTrn", "stimTest", "labelTrn", "labelTest")


def read_digits69(path: str | Path) -> tuple[xr.Dataset, xr.Dataset]:
    """Read the 100 pairs of a seen digit and its voxel pattern (van Gerven et al. 2010).

    Parameters
    ----------
    path : path
        ``digit69_28x28.mat``.

    Returns
    -------
    images, betas : Dataset
        Joined by ``stimulus`` (``digit-000`` ... in the order of training, then test set of the
        file); ``category`` is "six" or "nine". Images are upright: the file has them column by
        column. Voxels have no positions.

    Raises
    ------
    DataError
        Where it is another file.
    """
    voxels, pictures, classes = digit_pairs(path)
    names = np.array([f"digit-{n:03d}" for n in range(len(pictures))])
    images = images_dataset(pictures[:, None], names, category=classes, source=str(path))
    table = pd.DataFrame({"stimulus": names, "category": classes, "condition": classes})
    table = with_labels(table, {"subject": "sub-01", "session": "ses-01", "run": "run-01"})
    ijk = np.zeros((voxels.shape[1], 3), np.int64)
    ijk[:, 0] = np.arange(len(ijk))
    values, ijk, excluded = usable(voxels, ijk, str(path))
    grid = {"affine": None, "shape": [voxels.shape[1], 1, 1], "notes": []}
    attrs = {**grid_attrs(ijk, grid), "excluded": excluded}
    betas = betas_dataset(
        values, table, coords=place_coords(ijk, grid), attrs=attrs, units="a.u.", steps={}
    )
    return images, betas


def digit_pairs(path: str | Path) -> tuple[Floats, Floats, NDArray[np.str_]]:
    """Read the 100 pairs of a voxel pattern and a seen picture.

    Parameters
    ----------
    path : path
        ``digit69_28x28.mat`` (MATLAB 5).

    Returns
    -------
    voxels : ndarray of float32, shape (100, 3092)
    pictures : ndarray of float32, shape (100, 28, 28)
        Upright (the file stores them column by column), in [0, 1].
    classes : ndarray of str
        "six" or "nine".

    Raises
    ------
    DataError
        Where the file is no such file.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        table = loadmat(path)
    except (OSError, ValueError, NotImplementedError, MatReadError) as error:
        raise DataError(f"{path}: can't be read as a MATLAB 5 file ({error})") from error
    missing = [name for name in _VARIABLES if name not in table]
    if missing:
        raise DataError(
            f"{path}: holds no {', '.join(missing)}; expected {', '.join(_VARIABLES)} as in "
            "digit69_28x28.mat"
        )
    voxels, flat, labels = (
        np.concatenate([table[f"{kind}Trn"], table[f"{kind}Test"]])
        for kind in ("fmri", "stim", "label")
    )
    upright = flat.reshape(-1, 28, 28).transpose(0, 2, 1)
    pictures = (upright / 255).astype(np.float32)
    classes = np.array([CLASSES.get(int(k), str(k)) for k in labels.ravel()], dtype=str)
    if not np.isfinite(voxels).all():
        raise DataError(f"{path}: the voxel patterns hold NaN or infinity")
    return voxels.astype(np.float32), pictures, classes
