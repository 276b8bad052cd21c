r"""A volumetric encoder: a convolution over the brain's volume and a residual MLP.

``Conv3d(1 -> 8, kernel 4, stride 4) -> adaptive max-pool 8 x 8 x 8 -> GELU -> Linear -> LayerNorm
-> 4 residual blocks (Linear, GELU, LayerNorm, Dropout 0.15) -> Linear``, as in the later code of
Wang et al. on whole-volume betas.

It takes what the other encoders take: parcels' series are averaged over their recorded volumes
and *painted* on a grid. Where every voxel of coarse data is a parcel, the grid is that of the
scan; parcels of an atlas are painted on a coarse grid by their places, each cell with the nearest
parcel within reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fmri.brain_encoders import BrainEncoder, mean_volume
from neuro.errors import InputError

__all__ = ["VolumeSizes", "VolumetricEncoder", "paint"]

_MOST_CELLS = 4_000_000


@dataclass(frozen=True)
class VolumeSizes:
    """Shape of a `VolumetricEncoder`; the defaults are those of Wang et al.'s code.

    Attributes
    ----------
    width : int
        Of the pooled vector.
    n_hidden, n_blocks : int
        Of the MLP.
    n_channels, kernel : int
        Of the convolution, whose stride is its kernel.
    pool : int
        Cells along each axis after pooling.
    dropout : float
    """

    width: int = 768
    n_hidden: int = 4096
    n_blocks: int = 4
    n_channels: int = 8
    kernel: int = 4
    pool: int = 8
    dropout: float = 0.15


def paint(places: NDArray[np.floating], spacing: float | None = None) -> NDArray[np.int64]:
    """Say which parcel each cell of a grid shows.

    Parameters
    ----------
    places : ndarray, shape (parcel, 3)
        Indices of voxels (whole numbers, `spacing` None) or places in mm.
    spacing : float, optional
        Edge of a cell, mm. A cell takes the nearest parcel within twice the usual distance
        between neighbouring parcels, and at least the cell that a parcel lies in.

    Returns
    -------
    ndarray of int64, shape (i, j, k)
        Numbers of parcels, -1 where there is none.

    Raises
    ------
    InputError
        Where two voxels are the same, or the grid would be too large.

    Examples
    --------
    >>> paint(np.array([[4, 4, 4], [4, 5, 4]])).tolist()
    [[[0], [1]]]
    """
    places = np.asarray(places, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] != 3 or not np.isfinite(places).all():
        raise InputError(f"places have the shape {places.shape}; expected (parcel, 3), finite")
    low = places.min(0)
    cell = np.rint((places - low) / (spacing or 1.0)).astype(np.int64)
    shape = cell.max(0) + 1
    if np.prod(shape) > _MOST_CELLS:
        raise InputError(f"the grid would have {shape.tolist()} cells; take a larger spacing")
    grid = np.full(shape, -1, dtype=np.int64)
    if spacing is None:
        grid[tuple(cell.T)] = np.arange(len(places))
        if (grid >= 0).sum() < len(places):
            raise InputError("two parcels are the same voxel; places in mm need a spacing")
        return grid
    from scipy.spatial import cKDTree

    tree = cKDTree(places)
    reach = 2 * np.median(tree.query(places, k=min(2, len(places)))[0][..., -1])
    corners = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance, nearest = tree.query(corners.reshape(-1, 3) * spacing + low)
    grid = np.where(distance <= max(reach, spacing), nearest, -1).reshape(shape)
    taken = np.full(shape, -1, dtype=np.int64)
    taken[tuple(cell.T)] = np.arange(len(places))
    return np.where(taken >= 0, taken, grid)


class VolumetricEncoder(BrainEncoder):
    """Convolution and residual MLP over parcels painted on a grid.

    Parameters
    ----------
    grid : Tensor of int64, shape (i, j, k)
        Of `paint`.
    sizes : VolumeSizes
    """

    kind: ClassVar[str] = "volumetric"
    grid: Tensor

    def __init__(self, grid: Tensor, sizes: VolumeSizes | None = None) -> None:
        super().__init__()
        own = self.sizes = sizes or VolumeSizes()
        self.width = own.width
        self.register_buffer("grid", grid.long(), persistent=False)
        self.conv = nn.Conv3d(1, own.n_channels, own.kernel, own.kernel)
        self.first = nn.Linear(own.n_channels * own.pool**3, own.n_hidden)
        self.first_norm = nn.LayerNorm(own.n_hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(own.n_hidden, own.n_hidden), nn.GELU(), nn.LayerNorm(own.n_hidden),
                nn.Dropout(own.dropout),
            )
            for _ in range(own.n_blocks)
        )  # fmt: skip
        self.out = nn.Linear(own.n_hidden, own.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Paint the mean volume and encode it."""
        return self.encode_volumes(self.painted(mean_volume(x, mask)))

    def painted(self, values: Tensor) -> Tensor:
        """Lay ``(trial, parcel)`` on the grid, 0 outside, shape (trial, 1, i, j, k)."""
        cells = F.pad(values, (0, 1))[:, self.grid.flatten()]  # -1 is the 0 behind the last
        return cells.unflatten(1, (1, *self.grid.shape))

    def encode_volumes(self, volumes: Tensor) -> Tensor:
        """Encode volumes as they are, shape (trial, 1, i, j, k)."""
        kernel = self.sizes.kernel
        short = [max(0, kernel - n) for n in reversed(volumes.shape[2:])]
        x = F.pad(volumes, [side for n in short for side in (0, n)])
        x = F.gelu(F.adaptive_max_pool3d(self.conv(x), self.sizes.pool)).flatten(1)
        x = self.first_norm(self.first(x))
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)
