"""What `neuro decode` accepts for MindEye beside the files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neuro.encoder import DecodeOptions


class MindEyeOptions(DecodeOptions):
    """What ``neuro decode`` accepts beyond files, for MindEye."""

    align: bool = False
    """Find voxels by their coordinates; those that a scan lacks stand at their training mean."""

    zscore: Literal["auto", "none"] = "auto"
    """Z-score a session by its own trials where the training's sessions were z-scored."""

    prior: bool = True
    """Return tokens of the diffusion prior, or the backbone's own."""

    pictures: bool = True
    """Decode tokens to pictures, where the decoder of the targets was saved along."""

    shown: int = 8
    """Trials of each scan on its page and in the contact sheet."""

    steps: int = 20
    """Steps of the prior's sampler."""

    gallery: Path | None = None
    """Folder of a gallery to retrieve pictures from."""

    top_k: int = 5
    """Pictures retrieved for each trial."""
