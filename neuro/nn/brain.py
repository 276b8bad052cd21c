r"""From voxels to the tokens of an image embedding: the networks of MindEye.

A linear first layer of each subject's own, a residual backbone that all subjects share, a head to
``(token, feature)``, and a projector to the space in which pictures are retrieved. `PRESETS` holds
three sizes: ``mindeye1`` and ``mindeye2`` have the shapes of the papers, ``small`` is ours.

References
----------
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023).
Scotti et al., "MindEye2: Shared-subject models enable fMRI-to-image with 1 hour of data" (ICML
2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BrainSizes:
    """Shape of a `BrainNetwork`.

    Attributes
    ----------
    n_hidden : int
        Width of the backbone.
    n_blocks : int
        Residual blocks.
    first : {"mlp", "linear"}
        MindEye1's first layer has a normalisation, a GELU and dropout; MindEye2's is linear.
    block : {"post", "pre"}
        ``x + Dropout(GELU(LN(Linear(x))))`` as in MindEye1, or MindEye2's effective block
        ``x + Linear(Dropout(GELU(Linear(LN(x)))))``.
    input_dropout, first_dropout, block_dropout : float
        Of voxels, after the first layer, in the blocks.
    rank : int, optional
        Of the token head; None is one full matrix.
    projector : {"mlp", "head", "none"}
        An MLP on every token (MindEye), a second head on the backbone's code (ours), or the
        backbone's tokens themselves.
    n_projector : int
        Width of the MLP.
    zero_blocks : bool
        Start the blocks at zero, so that the network starts as a linear map (``block="pre"``).
    """

    n_hidden: int
    n_blocks: int = 4
    first: str = "linear"
    block: str = "pre"
    input_dropout: float = 0.0
    first_dropout: float = 0.5
    block_dropout: float = 0.15
    rank: int | None = None
    projector: str = "mlp"
    n_projector: int = 2048
    zero_blocks: bool = False


PRESETS: dict[str, BrainSizes] = {
    "mindeye1": BrainSizes(4096, first="mlp", block="post"),
    "mindeye2": BrainSizes(4096),
    "small": BrainSizes(
        256,
        n_blocks=2,
        input_dropout=0.3,
        block_dropout=0.3,
        projector="head",
        zero_blocks=True,
    ),
}


class Block(nn.Module):
    """One residual block of the backbone; see `BrainSizes`."""

    def __init__(self, sizes: BrainSizes) -> None:
        super().__init__()
        n, drop = sizes.n_hidden, nn.Dropout(sizes.block_dropout)
        if sizes.block == "post":
            self.inner = nn.Sequential(nn.Linear(n, n), nn.LayerNorm(n), nn.GELU(), drop)
            return
        last = nn.Linear(n, n)
        if sizes.zero_blocks:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.inner = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, n), nn.GELU(), drop, last)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, n_hidden)`` to the same."""
        return x + self.inner(x)


class TokenHead(nn.Module):
    """Linear map of the backbone's code to tokens, full or of low rank.

    Parameters
    ----------
    n_hidden, n_tokens, n_features : int
    rank : int, optional
        At a rank r the head has ``r (n_hidden + n_tokens n_features)`` weights; the papers' heads
        are full and hold most of their parameters.

    Examples
    --------
    >>> TokenHead(16, 4, 8)(torch.zeros(2, 16)).shape
    torch.Size([2, 4, 8])
    """

    def __init__(
        self, n_hidden: int, n_tokens: int, n_features: int, rank: int | None = None
    ) -> None:
        super().__init__()
        self.shape = (n_tokens, n_features)
        size = n_tokens * n_features
        self.low: nn.Module = nn.Identity() if rank is None else nn.Linear(n_hidden, rank, False)
        self.linear = nn.Linear(n_hidden if rank is None else rank, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, n_hidden)`` to ``(batch, token, feature)``."""
        return self.linear(self.low(x)).unflatten(1, self.shape)


def token_projector(n_features: int, width: int) -> nn.Sequential:
    """Return MindEye's projector: three linear layers on every token, shared by the tokens."""
    return nn.Sequential(
        nn.LayerNorm(n_features), nn.GELU(), nn.Linear(n_features, width),
        nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width),
        nn.LayerNorm(width), nn.GELU(), nn.Linear(width, n_features),
    )  # fmt: skip


class BrainNetwork(nn.Module):
    """Voxels of one or several subjects to the tokens of an image embedding.

    Parameters
    ----------
    n_voxels : dict of str to int
        Voxels of every subject; each has a linear first layer of its own.
    n_tokens, n_features : int
        Of the image embedding.
    sizes : BrainSizes
    low_level : tuple of int, optional
        ``(channel, row, column)`` of an image latent, for the low-level branch.

    Examples
    --------
    >>> sizes = BrainSizes(16, n_blocks=1, n_projector=8)
    >>> network = BrainNetwork({"a": 30, "b": 20}, 4, 8, sizes)
    >>> code = network.code({"a": torch.zeros(2, 30), "b": torch.zeros(2, 20)})
    >>> tokens = network.tokens(code)
    >>> code.shape, tokens.shape, network.project(code, tokens).shape
    (torch.Size([4, 16]), torch.Size([4, 4, 8]), torch.Size([4, 4, 8]))
    """

    def __init__(
        self,
        n_voxels: Mapping[str, int],
        n_tokens: int,
        n_features: int,
        sizes: BrainSizes,
        low_level: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        n = sizes.n_hidden
        self.sizes, self.subjects = sizes, list(n_voxels)
        self.drop = nn.Dropout(sizes.input_dropout)
        self.first = nn.ModuleList(nn.Linear(v, n) for v in n_voxels.values())
        self.open: nn.Module = nn.Identity()
        if sizes.first == "mlp":
            self.open = nn.Sequential(nn.LayerNorm(n), nn.GELU(), nn.Dropout(sizes.first_dropout))
        self.blocks = nn.Sequential(*(Block(sizes) for _ in range(sizes.n_blocks)))
        self.head = TokenHead(n, n_tokens, n_features, sizes.rank)
        self.projector: nn.Module = nn.Identity()
        if sizes.projector == "mlp":
            self.projector = token_projector(n_features, sizes.n_projector)
        elif sizes.projector == "head":
            self.projector = TokenHead(n, n_tokens, n_features, sizes.rank)
        self.low_level = None if low_level is None else LowLevelBranch(n, low_level)

    def code(self, x: Mapping[str, Tensor]) -> Tensor:
        """Map voxels by subject to the backbone's code.

        Parameters
        ----------
        x : dict of str to Tensor, shape (batch, voxel)
            Standardised. Equal shares of each subject make a mixed batch.

        Returns
        -------
        Tensor, shape (rows of all subjects, n_hidden)
            In the order of the mapping.
        """
        parts = [self.first[self.subjects.index(s)](self.drop(v)) for s, v in x.items()]
        return self.blocks(self.open(torch.cat(parts)))

    def tokens(self, code: Tensor) -> Tensor:
        """Map codes to the backbone's tokens ``(batch, token, feature)``, the prior's input."""
        return self.head(code)

    def project(self, code: Tensor, tokens: Tensor) -> Tensor:
        """Return tokens in the space of retrieval, not normalised."""
        return self.projector(code if self.sizes.projector == "head" else tokens)

    @torch.no_grad()
    def start_linear(self, maps: Mapping[str, Tensor], basis: Tensor, offset: Tensor) -> None:
        """Start as a given linear map ``x -> (x A) B + offset`` (our addition to MindEye).

        The first k units of the code carry ``x A``; the heads read them by B and nothing else.
        Blocks that start at zero leave it so.

        Parameters
        ----------
        maps : dict of str to Tensor, shape (voxel, k)
            A of each subject.
        basis : Tensor, shape (k, token * feature)
            B, k not above the code's width, nor above the rank of the heads.
        offset : Tensor, shape (token * feature,)
        """
        k = len(basis)
        for subject, own in maps.items():
            layer = self.first[self.subjects.index(subject)]
            assert isinstance(layer, nn.Linear)  # noqa: S101 - for the type checker
            layer.weight[:k] = own.T
            layer.bias[:k] = 0
        for head in (self.head, self.projector):
            if not isinstance(head, TokenHead):
                continue
            if isinstance(head.low, nn.Linear):
                head.low.weight.zero_()
                head.low.weight[:k, :k] = torch.eye(k)
            head.linear.weight.zero_()
            head.linear.weight[:, :k] = basis.T
            head.linear.bias.copy_(offset)


class LowLevelBranch(nn.Module):
    """From the backbone's code to the latent of an image autoencoder, by a small decoder.

    A linear layer to a map of 64 channels at a quarter of the latent's side (at least one cell),
    GroupNorm, and two upsampling residual convolutions. An auxiliary projector (1x1 convolutions)
    on the map is compared with the latent itself, averaged over the cells of the map; MindEye
    compares it with the features of a pretrained network.

    Parameters
    ----------
    n_hidden : int
    shape : tuple of int
        ``(channel, row, column)`` of the latent.
    n_channels : int
        Of the map.

    Examples
    --------
    >>> branch = LowLevelBranch(16, (4, 8, 8))
    >>> latent, auxiliary = branch(torch.zeros(2, 16))
    >>> latent.shape, auxiliary.shape, branch.auxiliary_target(latent).shape
    (torch.Size([2, 4, 8, 8]), torch.Size([2, 4, 2, 2]), torch.Size([2, 4, 2, 2]))
    """

    def __init__(self, n_hidden: int, shape: tuple[int, int, int], n_channels: int = 64) -> None:
        super().__init__()
        self.shape = shape
        self.grid = (max(1, -(-shape[1] // 4)), max(1, -(-shape[2] // 4)))
        self.linear = nn.Linear(n_hidden, n_channels * self.grid[0] * self.grid[1])
        self.drop = nn.Dropout(0.3)
        self.norm = nn.GroupNorm(1, n_channels)
        self.ups = nn.ModuleList(_Convolutions(n_channels) for _ in range(2))
        self.out = nn.Conv2d(n_channels, shape[0], 3, padding=1)
        self.projector = nn.Sequential(
            nn.Conv2d(n_channels, 128, 1), nn.GELU(), nn.Conv2d(128, shape[0], 1)
        )

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent ``(batch, channel, row, column)`` and the auxiliary map."""
        grid = self.drop(self.linear(code)).unflatten(1, (-1, *self.grid))
        grid = self.norm(grid)
        x = grid
        for number, layer in enumerate(self.ups):
            last = number == len(self.ups) - 1
            size = self.shape[1:] if last else (self.grid[0] * 2, self.grid[1] * 2)
            x = layer(nn.functional.interpolate(x, size=size, mode="nearest"))
        return self.out(x), self.projector(grid)

    def auxiliary_target(self, latent: Tensor) -> Tensor:
        """Average a latent over the cells of the map."""
        return nn.functional.adaptive_avg_pool2d(latent, self.grid)


class _Convolutions(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(8, n), nn.SiLU(), nn.Conv2d(n, n, 3, padding=1),
            nn.GroupNorm(8, n), nn.SiLU(), nn.Conv2d(n, n, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def sizes_of(preset: str, **changes: Any) -> BrainSizes:
    """Return a preset with some of its entries changed; None leaves an entry as it is."""
    return replace(PRESETS[preset], **{k: v for k, v in changes.items() if v is not None})


def count_parameters(module: nn.Module) -> int:
    """Count parameters; modules on the meta device have them without memory."""
    return sum(p.numel() for p in module.parameters())
