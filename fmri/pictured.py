"""What encoders that aim at tokens of pictures share: the way back to pixels, and decoding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.utils.validation import check_is_fitted

from neuro.encoder import Encoder
from neuro.errors import ContractError

if TYPE_CHECKING:
    import xarray as xr

    from fmri.autoencoder import ImageAutoencoder
    from fmri.linear_decoder import LinearDecoder
    from fmri.providers import PixelPCA
    from neuro.report import Block

__all__ = ["DecodesPictures", "brief"]


class DecodesPictures(Encoder):
    """Base of encoders whose tokens can become pictures.

    Attributes
    ----------
    target_ : dict
        ``fingerprint`` of the targets among other facts.
    decoder_, pixels_ : ImageAutoencoder, LinearDecoder or None
        The way from tokens, or from the low-level latent, back to pixels.
    """

    optional_parts: ClassVar[tuple[str, ...]] = ("decoder_",)

    decoder_: ImageAutoencoder | None = None
    pixels_: LinearDecoder | None = None
    target_: dict[str, Any]
    sampler: str
    steps: int
    guidance: float
    random_state: int

    def attach_decoder(self, decoder: ImageAutoencoder | PixelPCA) -> Self:
        """Let the autoencoder or PCA of the targets, or that of the latents, be saved along.

        New scans are then decoded to pictures without anything but this folder.

        Raises
        ------
        ContractError
            Where it is neither that of the targets nor that of the latents.
        """
        from fmri.linear_decoder import LinearDecoder
        from fmri.low_level import decodes_latents, decodes_tokens
        from fmri.providers import PixelPCA

        check_is_fitted(self, "target_")
        if isinstance(decoder, PixelPCA):
            self.pixels_ = LinearDecoder.of(decoder, self.target_["fingerprint"])
            return self
        if not (decodes_tokens(self, decoder) or decodes_latents(self, decoder)):
            raise ContractError(
                f"the autoencoder (weights {decoder.weights_hash()}) is neither that of the "
                f"targets, {brief(self.target_['fingerprint'])}, nor that of the image latents; "
                "wire the one that made them"
            )
        self.decoder_ = decoder
        return self

    def embed(self, X: Any) -> Any:
        """Return what pictures are retrieved by, in the space of the targets: here the code."""
        return self.transform(X)

    def check_decoding(self, options: Any) -> None:
        """Refuse a gallery of other targets before the first scan is read."""
        from fmri.decode import gallery_in

        if options.gallery is not None:
            gallery_in(options.gallery).check(self.target_["fingerprint"])

    def show_decoded(self, result: xr.Dataset, options: Any) -> list[Block]:
        """Return the blocks of a scan's page: trials beside retrieved and decoded pictures."""
        from fmri.sheet import scan_blocks

        return scan_blocks(result, options)

    def _sampling(
        self, sampler: str | None, steps: int | None, guidance: float | None, n_samples: int,
        random_state: int | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return how tokens are sampled: as asked, else by the estimator's parameters."""
        return {
            "sampler": sampler or self.sampler,
            "steps": self.steps if steps is None else steps,
            "guidance": self.guidance if guidance is None else guidance,
            "random_state": self.random_state if random_state is None else random_state,
            "n_samples": n_samples,
        }


def brief(fingerprint: Any) -> str:
    """Return a fingerprint as text for a message."""
    return json.dumps(fingerprint, sort_keys=True)[:300]
