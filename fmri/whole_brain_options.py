"""What `neuro decode` accepts for a whole-brain encoder beside the files."""

from __future__ import annotations

from pathlib import Path

from neuro.encoder import DecodeOptions


class WholeBrainOptions(DecodeOptions):
    """What ``neuro decode`` accepts beyond files, for a whole-brain encoder."""

    align: bool = False
    """Let parcels that a scan lacks stand at their training mean."""

    events: Path | None = None
    """Table of events; by default the *_events.tsv beside a run, and without one windows of the
    training's length."""

    confounds: Path | None = None
    """Table of confounds that are taken out of the run."""

    atlas: Path | None = None
    """The atlas once more, where it is too large to be kept with the encoder (maps, CIFTI)."""

    stride: int | None = None
    """Volumes from one window to the next, without events; by default the window's length."""

    prior: bool = True
    """Return tokens of the diffusion prior, or what it is given."""

    steps: int = 20
    """Steps of the prior's sampler."""

    pictures: bool = True
    """Decode tokens to pictures, where the decoder of the targets was saved along."""

    shown: int = 8
    """Trials of each scan on its page and in the contact sheet."""

    gallery: Path | None = None
    """Folder of a gallery to retrieve pictures from."""

    top_k: int = 5
    """Pictures retrieved for each trial."""
