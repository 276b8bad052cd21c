r"""A masked autoencoder over patches of parcels' series, as BrainLM.

A token is one parcel for a few volumes. It is embedded linearly, with a linear code of the
parcel's place in the brain and sines and cosines of its time. Part of the tokens is hidden from
the encoder, and a light decoder predicts them: ``loss = mean |z - z^|^2`` over the recorded
volumes of hidden patches. Attention is exact; BrainLM's landmarks approximate it for 5,000 tokens.

References
----------
Ortega Caro et al., "BrainLM: a foundation model for brain activity recordings" (ICLR 2024).
He et al., "Masked autoencoders are scalable vision learners" (CVPR 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmri.brain_encoders import Block, BrainEncoder
from neuro.errors import InputError

__all__ = ["MaskedEncoder", "MaskedSizes"]

_POOLS = ("cls", "mean", "parcel")


@dataclass(frozen=True)
class MaskedSizes:
    """Shape of a `MaskedEncoder`; the defaults are those of BrainLM's published configuration.

    Attributes
    ----------
    width, depth, n_heads : int
        Of the encoder.
    patch : int
        Volumes of a token.
    hidden : float
        Share of tokens that the pretext task hides.
    decoder_width, decoder_depth, decoder_heads : int
    dropout : float
    norm : {"pre", "post"}
    value_kernel : int
        See `fmri.brain_encoders.Block`; 65 in BrainLM's small networks.
    pool : {"cls", "mean", "parcel"}
        The learned first token; the mean of all, which masked prediction has trained; or (ours)
        the mean over patches, times a learned vector for each parcel, summed over parcels: which
        parcel a token is of is then not lost in the mean.
    place_scale : float
        What the places of parcels (mm) are divided by.
    """

    width: int = 256
    depth: int = 4
    n_heads: int = 4
    patch: int = 20
    hidden: float = 0.2
    decoder_width: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 4
    dropout: float = 0.1
    norm: str = "post"
    value_kernel: int = 65
    pool: str = "cls"
    place_scale: float = 1.0


class MaskedEncoder(BrainEncoder):
    """Masked autoencoder over ``(parcel, patch)`` tokens.

    Parameters
    ----------
    places : Tensor, shape (parcel, 3)
        Of the parcels, mm.
    sizes : MaskedSizes
    """

    kind: ClassVar[str] = "masked"
    places: Tensor

    def __init__(self, places: Tensor, sizes: MaskedSizes | None = None) -> None:
        super().__init__()
        own = self.sizes = sizes or MaskedSizes()
        if own.patch < 1 or not 0 < own.hidden < 1 or own.pool not in _POOLS:
            raise InputError(
                f"patch {own.patch}, hidden {own.hidden}, pool {own.pool!r}: expected a patch of "
                f"at least 1 volume, a share between 0 and 1, and one of {', '.join(_POOLS)}"
            )
        self.width = own.width
        self.register_buffer("places", places.float() / own.place_scale, persistent=False)
        self.embed, self.place = nn.Linear(own.patch, own.width), nn.Linear(3, own.width)
        self.cls_token = nn.Parameter(0.02 * torch.randn(own.width))
        self.blocks = _blocks(own.width, own.depth, own.n_heads, own)
        self.norm = nn.LayerNorm(own.width, 1e-12)
        if own.pool == "parcel":
            gates = torch.randn(len(places), own.width) / math.sqrt(len(places))
            self.gates = nn.Parameter(gates)
        self.decoder_embed = nn.Linear(own.width, own.decoder_width)
        self.decoder_place = nn.Linear(3, own.decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(own.decoder_width))
        self.decoder_blocks = _blocks(own.decoder_width, own.decoder_depth, own.decoder_heads, own)
        self.decoder_norm = nn.LayerNorm(own.decoder_width)
        self.decoder_out = nn.Linear(own.decoder_width, own.patch)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return what `MaskedSizes.pool` says, of the tokens after the last normalisation."""
        patches, shown = self._patches(x, mask)
        tokens, keys = self._embedded(patches).flatten(1, 2), self._keys(shown)
        if self.sizes.value_kernel and self.sizes.pool != "parcel":
            # A convolution must see the same neighbours however blocks are padded.
            order = (~keys).to(torch.uint8).argsort(dim=1, stable=True)
            tokens = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
            keys = keys.gather(1, order)
        states = self._encode(tokens, keys)
        if self.sizes.pool == "cls":
            return states[:, 0]
        weight = keys.to(states.dtype)[..., None]
        if self.sizes.pool == "parcel":
            parts = (states[:, 1:] * weight).unflatten(1, patches.shape[1:3]).sum(2)
            n_patches = shown.sum(1, keepdim=True)[..., None]
            return (parts / n_patches * self.gates).sum(1)
        return (states[:, 1:] * weight).sum(1) / weight.sum(1).clamp(min=1)

    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return one number for each token: those with the largest are hidden."""
        return (len(x), x.shape[2] * -(-x.shape[1] // self.sizes.patch))

    def hide(self, mask: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose what is hidden.

        Returns
        -------
        keys, hidden : Tensor of bool, shape (trial, parcel x patch)
            Tokens with a recorded volume, and those of them that are hidden: their share is
            `MaskedSizes.hidden`, rounded, and at least one stays seen.
        """
        keys = self._keys(self._recorded(mask).any(2))
        n = keys.sum(1, keepdim=True)
        n_kept = (n - (n * self.sizes.hidden).round().long().clamp(min=1)).clamp(min=1)
        rank = torch.where(keys, noise, 2.0).argsort(1).argsort(1)
        return keys, keys & (rank >= n_kept)

    def pretext(self, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Return the mean squared error of hidden patches, over their recorded volumes."""
        patches, _ = self._patches(x, mask)
        keys, hidden = self.hide(mask, noise)
        found = self.reconstruct(patches, keys, hidden)
        recorded = self._recorded(mask)[:, None].expand(-1, x.shape[2], -1, -1).flatten(1, 2)
        asked = (hidden[..., None] & recorded).to(found.dtype)
        return ((found - patches.flatten(1, 2)).square() * asked).sum() / asked.sum().clamp(min=1)

    def reconstruct(self, patches: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
        """Predict all patches from those that are not hidden.

        Parameters
        ----------
        patches : Tensor, shape (trial, parcel, patch, volume)
        keys, hidden : Tensor of bool, shape (trial, parcel x patch)

        Returns
        -------
        Tensor, shape (trial, parcel x patch, volume)
        """
        tokens, seen = self._embedded(patches).flatten(1, 2), keys & ~hidden
        # Seen tokens go to the front, so that the encoder works on no more than it must.
        order = (~seen).to(torch.uint8).argsort(dim=1, stable=True)
        n_seen = max(1, math.ceil(tokens.shape[1] * (1 - self.sizes.hidden)) + 1)
        order = order[:, : min(n_seen, tokens.shape[1])]
        shape = (-1, -1, tokens.shape[2])
        kept, known = tokens.gather(1, order[..., None].expand(*shape)), seen.gather(1, order)
        states = self.decoder_embed(self._encode(kept, known)[:, 1:])
        states = torch.where(known[..., None], states, self.mask_token.to(states.dtype))
        filled = self.mask_token.to(states.dtype).expand(len(tokens), tokens.shape[1], -1)
        x = filled.scatter(1, order[..., None].expand(-1, -1, states.shape[2]), states)
        x = x.unflatten(1, patches.shape[1:3]) + self.decoder_place(self.places)[:, None]
        x = (x + _time_code(patches.shape[2], x)).flatten(1, 2)
        for block in self.decoder_blocks:
            x = block(x, keys)
        return self.decoder_out(self.decoder_norm(x))

    def _recorded(self, mask: Tensor) -> Tensor:
        """Cut the mask into patches, shape (trial, patch, volume)."""
        missing = -mask.shape[1] % self.sizes.patch
        return F.pad(mask, (0, missing)).unflatten(1, (-1, self.sizes.patch))

    def _patches(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(trial, parcel, patch, volume)``, and which patches hold a recorded volume."""
        missing = -x.shape[1] % self.sizes.patch
        shown = torch.where(mask[..., None], x, 0.0)
        cut = F.pad(shown, (0, 0, 0, missing)).unflatten(1, (-1, self.sizes.patch))
        return cut.permute(0, 3, 1, 2), self._recorded(mask).any(2)

    def _keys(self, shown: Tensor) -> Tensor:
        return shown[:, None].expand(-1, len(self.places), -1).flatten(1)

    def _embedded(self, patches: Tensor) -> Tensor:
        x = self.embed(patches) + self.place(self.places)[:, None]
        x = x + _time_code(patches.shape[2], x)
        return F.dropout(x, self.sizes.dropout, self.training)

    def _encode(self, tokens: Tensor, keys: Tensor) -> Tensor:
        cls = self.cls_token.to(tokens.dtype).expand(len(tokens), 1, -1)
        x, keys = torch.cat([cls, tokens], 1), F.pad(keys, (1, 0), value=True)
        for block in self.blocks:
            x = block(x, keys)
        return self.norm(x)


def _blocks(width: int, depth: int, n_heads: int, sizes: MaskedSizes) -> nn.ModuleList:
    return nn.ModuleList(
        Block(width, n_heads, sizes.dropout, sizes.norm, sizes.value_kernel, 1e-12)
        for _ in range(depth)
    )


def _time_code(n: int, like: Tensor) -> Tensor:
    """Return sines and cosines of the patch's number, interleaved, shape (n, width)."""
    width = like.shape[-1]
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(1e4) / width))
    angles = torch.arange(n, device=like.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(like.dtype)
