"""What lets an encoder decode new runs: its reading, the way back to pixels, ``neuro decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import xarray as xr
from sklearn.utils.validation import check_is_fitted

from fmri.brain_blocks import BlockEncoder
from fmri.brain_reading import Reading
from fmri.whole_brain_options import WholeBrainOptions
from neuro.encoder import DecodeOptions as BaseOptions
from neuro.errors import ContractError

if TYPE_CHECKING:
    from fmri.autoencoder import ImageAutoencoder
    from fmri.linear_decoder import LinearDecoder
    from fmri.providers import PixelPCA
    from neuro.report import Block

__all__ = ["DecodesRuns"]


class DecodesRuns(BlockEncoder):
    """The part of `fmri.whole_brain.WholeBrain` that meets files.

    Attributes
    ----------
    reading_ : Reading or None
    decoder_, pixels_ : ImageAutoencoder, LinearDecoder or None
    """

    optional_parts: ClassVar[tuple[str, ...]] = ("decoder_",)
    DecodeOptions: ClassVar[type[BaseOptions]] = WholeBrainOptions

    decoder_: ImageAutoencoder | None = None
    pixels_: LinearDecoder | None = None
    reading_: Reading | None = None
    target_: dict[str, Any]

    def attach_reading(self, reading: Reading) -> Self:
        """Let the way from runs to blocks be saved along, for `decode`."""
        self.reading_ = reading
        return self

    def attach_decoder(self, decoder: ImageAutoencoder | PixelPCA) -> Self:
        """Let the autoencoder or PCA of the targets be saved along, for pictures of new scans.

        Raises
        ------
        ContractError
            Where it is not that of the targets.
        """
        from fmri.linear_decoder import LinearDecoder
        from fmri.low_level import decodes_tokens
        from fmri.providers import PixelPCA

        check_is_fitted(self, "target_")
        if isinstance(decoder, PixelPCA):
            self.pixels_ = LinearDecoder.of(decoder, self.target_["fingerprint"])
        elif decodes_tokens(cast(Any, self), decoder):
            self.decoder_ = decoder
        else:
            raise ContractError("the autoencoder is not that of the targets; wire that one")
        return self

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode a run or a saved dataset of blocks; see `fmri.whole_brain_decode`."""
        from fmri.whole_brain_decode import decode_run

        return decode_run(cast(Any, self), path, options or WholeBrainOptions())

    def read_recording(self, path: str | Path, *, align: bool = False) -> xr.Dataset:
        """Read a run or a saved dataset as blocks."""
        from fmri.whole_brain_decode import read_blocks

        return read_blocks(cast(Any, self), path, WholeBrainOptions(align=align))[0]

    def check_decoding(self, options: Any) -> None:
        """Refuse a gallery of other targets before the first scan is read."""
        from fmri.decode import gallery_in

        if options.gallery is not None:
            gallery_in(options.gallery).check(self.target_["fingerprint"])

    def show_decoded(self, result: xr.Dataset, options: Any) -> list[Block]:
        """Return the blocks of a scan's page: trials beside retrieved and decoded pictures."""
        from fmri.sheet import scan_blocks

        return scan_blocks(result, options)

    def companions(self, path: str | Path) -> list[Path]:
        """Name the table of events that lies beside a run."""
        from fmri.whole_brain_decode import events_beside

        found = events_beside(path)
        return [] if found is None else [found]
