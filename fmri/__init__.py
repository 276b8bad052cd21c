"""fMRI: voxel betas to the seen picture (MindEye), by retrieval.

Rooms in the order in which data flows: `images`, `targets` and `providers`, `mindeye` with `prior`
and `low_level`, `retrieve`, `evaluate`, `simulate`, and `stages`, which declares them to the
runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmri.autoencoder import ImageAutoencoder
    from fmri.mindeye import MindEye

__all__ = ["ImageAutoencoder", "MindEye"]


def __getattr__(name: str) -> Any:
    if name == "MindEye":
        from fmri.mindeye import MindEye

        return MindEye
    if name == "ImageAutoencoder":
        from fmri.autoencoder import ImageAutoencoder

        return ImageAutoencoder
    raise AttributeError(f"module 'fmri' has no attribute '{name}'")
