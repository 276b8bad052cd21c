"""What lets an encoder decode new runs: its reading, the way back to pixels, ``neuro decode``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, cast

import xarray as xr

from fmri.brain_blocks import BlockEncoder
from fmri.brain_reading import Reading
from fmri.pictured import DecodesPictures
from fmri.whole_brain_options import WholeBrainOptions
from neuro.encoder import DecodeOptions as BaseOptions

__all__ = ["DecodesRuns"]


class DecodesRuns(DecodesPictures, BlockEncoder):
    """The part of `fmri.whole_brain.WholeBrain` that meets files.

    Attributes
    ----------
    reading_ : Reading or None
    """

    DecodeOptions: ClassVar[type[BaseOptions]] = WholeBrainOptions

    reading_: Reading | None = None

    def attach_reading(self, reading: Reading) -> Self:
        """Let the way from runs to blocks be saved along, for `decode`."""
        self.reading_ = reading
        return self

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode a run or a saved dataset of blocks; see `fmri.whole_brain_decode`."""
        from fmri.whole_brain_decode import decode_run

        return decode_run(cast(Any, self), path, options or WholeBrainOptions())

    def read_recording(self, path: str | Path, *, align: bool = False) -> xr.Dataset:
        """Read a run or a saved dataset as blocks."""
        from fmri.whole_brain_decode import read_blocks

        return read_blocks(cast(Any, self), path, WholeBrainOptions(align=align))[0]

    def companions(self, path: str | Path) -> list[Path]:
        """Name the table of events that lies beside a run."""
        from fmri.whole_brain_decode import events_beside

        found = events_beside(path)
        return [] if found is None else [found]
