r"""Whole-brain encoders: from a block of volumes ``(trial, time, parcel)`` to one vector.

All share one interface, `BrainEncoder`. Here are the shared block, the causal sequence model and
the linear one; `fmri.brain_masked` holds the masked autoencoder, `fmri.brain_volumes` the
volumetric network, and `fmri.brain_presets` makes any of them by name.

The causal model (Thomas et al. 2022) reads volumes as words: each is embedded linearly, the time
of the volume is looked up in a table of 0.2 s, and a GPT-2 transformer follows. Its pretext task
is to predict a volume from those before it: the volume at a random time is replaced by a learned
vector, all after it are hidden, and the mean absolute difference is minimised,
``loss = mean_i |x_i,m - x^_i,m|`` over the parcels of the masked volume m. To encode a block, a
learned CLS vector is put behind its last volume, where causal attention has seen all of it.

That asks one question of a window, and trains no state but that of the hidden volume. With
``predicts="all"`` (ours) every state predicts the volume behind it, ``loss = mean_t mean_i
|x_i,t+1 - x^_i,t+1|``: a window of n volumes asks n - 1 questions at the same cost, and every
state is trained, so that their mean is a code.

References
----------
Thomas, Ré, Poldrack, "Self-supervised learning of brain dynamics from broad neuroimaging data"
(NeurIPS 2022), sec. 3 (causal sequence modelling).
Wang et al., "Decoding visual experience and mapping semantics through whole-brain analysis using
fMRI foundation models" (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import InputError

__all__ = ["Block", "BrainEncoder", "CausalEncoder", "CausalSizes", "LinearEncoder"]

TIME_STEP, LONGEST = 0.2, 300.0  # s: of the table of times


class BrainEncoder(nn.Module):
    """What all whole-brain encoders have in common.

    Attributes
    ----------
    kind : str
        The name by which it is chosen.
    width : int
        Size of the pooled vector.
    """

    kind: ClassVar[str] = ""
    width: int

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode blocks.

        Parameters
        ----------
        x : Tensor, shape (trial, time, parcel)
            Standardised; what stands where the mask is False plays no part.
        mask : Tensor of bool, shape (trial, time)
            True where a volume was recorded; at least once in every trial.

        Returns
        -------
        Tensor, shape (trial, width)
        """
        raise NotImplementedError

    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return how many uniform random numbers `pretext` takes for `x`."""
        raise InputError(
            f"the '{self.kind}' encoder has no self-supervised task; pretrain 'causal' or 'masked'"
        )

    def pretext(self, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Return the loss of the self-supervised task.

        Parameters
        ----------
        x, mask : Tensor
            As for `forward`.
        noise : Tensor, shape `noise_shape`
            Uniform in [0, 1): what is hidden follows from it alone.

        Returns
        -------
        Tensor, shape ()
        """
        raise InputError(f"the '{self.kind}' encoder has no self-supervised task")


class Block(nn.Module):
    """A transformer layer on PyTorch's scaled-dot-product attention.

    Parameters
    ----------
    width, n_heads : int
    dropout : float
        Of attention and of both branches.
    norm : {"pre", "post"}
        Normalise what goes into a branch (GPT-2), or the sum with it (BERT, Nyströmformer).
    value_kernel : int
        Length of a convolution of the values along the sequence that is added to the attention,
        one kernel for each head (Nyströmformer); 0 is none.
    eps : float
        Of the normalisations.

    Examples
    --------
    >>> Block(8, 2)(torch.zeros(3, 5, 8), causal=True).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self, width: int, n_heads: int, dropout: float = 0.0, norm: str = "pre",
        value_kernel: int = 0, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % n_heads:
            raise InputError(f"a width of {width} can't be split over {n_heads} heads")
        self.n_heads, self.dropout, self.norm = n_heads, dropout, norm
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.value_conv = (
            nn.Conv2d(n_heads, n_heads, (value_kernel, 1), padding=(value_kernel // 2, 0),
                      groups=n_heads, bias=False)
            if value_kernel else None
        )  # fmt: skip

    def forward(self, x: Tensor, keys: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Mix a sequence.

        Parameters
        ----------
        x : Tensor, shape (batch, position, width)
        keys : Tensor of bool, shape (batch, position), optional
            False where a position must not be attended to.
        causal : bool
            Positions see only those before them and themselves.
        """
        if self.norm == "post":
            x = self.norm1(x + self._drop(self._attend(x, keys, causal)))
            return self.norm2(x + self._drop(self.narrow(F.gelu(self.widen(x)))))
        x = x + self._drop(self._attend(self.norm1(x), keys, causal))
        return x + self._drop(self.narrow(F.gelu(self.widen(self.norm2(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _attend(self, x: Tensor, keys: Tensor | None, causal: bool) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            q, k, v, None if keys is None else keys[:, None, None],
            dropout_p=self.dropout if self.training else 0.0, is_causal=causal,
        )  # fmt: skip
        if self.value_conv is not None:
            shown = v if keys is None else v * keys[:, None, :, None]
            mixed = mixed + self.value_conv(shown)
        return self.merge(mixed.transpose(1, 2).reshape(batch, length, width))


@dataclass(frozen=True)
class CausalSizes:
    """Shape of a `CausalEncoder`; the defaults are the paper's.

    Attributes
    ----------
    width, depth, n_heads : int
    dropout : float
    n_positions : int
        Longest sequence, CLS included.
    pool : {"cls", "mean"}
        The state at a CLS vector through a linear layer and tanh, as the paper; or (ours) the mean
        of the states at the recorded volumes.
    predicts : {"one", "all"}
        The pretext task: a hidden volume of each window, as the paper; or (ours) at every volume
        the next one, which trains the states that are averaged.
    """

    width: int = 768
    depth: int = 4
    n_heads: int = 12
    dropout: float = 0.1
    n_positions: int = 512
    pool: str = "cls"
    predicts: str = "one"


class CausalEncoder(BrainEncoder):
    """Causal sequence model over volumes, with next-time-point pretraining.

    Parameters
    ----------
    n_parcels : int
    t_r : float
        Repetition time, s.
    sizes : CausalSizes

    Notes
    -----
    Volumes that were not recorded, at the end or between others, are left out of the sequence;
    the table of times knows where the others stood.
    """

    kind: ClassVar[str] = "causal"

    def __init__(self, n_parcels: int, t_r: float, sizes: CausalSizes | None = None) -> None:
        super().__init__()
        own = self.sizes = sizes or CausalSizes()
        self.width, self.t_r, self.special = own.width, float(t_r), round(LONGEST / TIME_STEP)
        self.embed = nn.Linear(n_parcels, own.width)
        self.embed_norm = nn.LayerNorm(own.width)
        self.time = nn.Embedding(self.special + 1, own.width)  # the last is of learned vectors
        self.position = nn.Embedding(own.n_positions, own.width)
        if own.predicts == "one":
            self.mask_vector = nn.Parameter(torch.randn(n_parcels))
        self.blocks = nn.ModuleList(
            Block(own.width, own.n_heads, own.dropout) for _ in range(own.depth)
        )
        self.norm = nn.LayerNorm(own.width)
        if own.pool not in ("cls", "mean") or own.predicts not in ("one", "all"):
            raise InputError(
                f"pool is {own.pool!r} and predicts {own.predicts!r}; expected cls or mean, and "
                "one or all"
            )
        if own.pool == "cls":
            self.cls_vector = nn.Parameter(torch.randn(n_parcels))
            self.pooler = nn.Linear(own.width, own.width)
        self.unembed = nn.Linear(own.width, n_parcels)
        _start_as_gpt(self)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return ``tanh(W h + b)`` of the state at the CLS vector, or the mean of the states."""
        x, times, length = self._packed(x, mask)
        if self.sizes.pool == "mean":
            recorded = torch.arange(x.shape[1], device=x.device) < length[:, None]
            return mean_volume(self._states(x, times), recorded)
        at_end = torch.arange(x.shape[1] + 1, device=x.device) == length[:, None]
        x = torch.where(at_end[..., None], self.cls_vector, F.pad(x, (0, 0, 0, 1)))
        times = torch.where(at_end, self.special, F.pad(times, (0, 1)))
        states = self._states(x, times)
        last = states.gather(1, length[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return F.dropout(torch.tanh(self.pooler(last)), self.sizes.dropout, self.training)

    def predict(self, x: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Predict the volume at a place from those before it.

        Parameters
        ----------
        x, mask : Tensor
            As for `forward`.
        at : Tensor of int64, shape (trial,)
            The place among the recorded volumes, from 1 on.

        Returns
        -------
        Tensor, shape (trial, parcel)
        """
        x, times, _ = self._packed(x, mask)
        if self.sizes.predicts == "all":
            states, at = self._states(x, times), at - 1
        else:
            hidden = torch.arange(x.shape[1], device=x.device) == at[:, None]
            # What comes after the hidden volume can't be seen from it: attention is causal.
            states = self._states(torch.where(hidden[..., None], self.mask_vector, x), times)
        own = states.gather(1, at[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return self.unembed(own)

    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return one number for each trial, which says what volume is hidden; none for all."""
        return (len(x) if self.sizes.predicts == "one" else 0,)

    def pretext(self, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Return the mean absolute difference of the volumes that are predicted."""
        length = mask.sum(1)
        packed, times, _ = self._packed(x, mask)
        if self.sizes.predicts == "all":
            found, truth = self.unembed(self._states(packed, times)[:, :-1]), packed[:, 1:]
            # Recorded volumes with one before them: of a block of one volume nothing is asked.
            asked = torch.arange(1, packed.shape[1], device=x.device) < length[:, None]
        else:
            at = 1 + (noise * (length - 1)).long().clamp(max=(length - 2).clamp(min=0))
            at = at.clamp(max=x.shape[1] - 1)
            truth = packed.gather(1, at[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
            found, asked = self.predict(x, mask, at), length > 1
        off = (found - truth).abs().mean(-1) * asked
        return off.sum() / asked.sum().clamp(min=1)

    def _packed(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move recorded volumes to the front; return them, their times' rows and their number."""
        n_times = x.shape[1]
        if n_times * self.t_r > LONGEST or n_times >= self.sizes.n_positions:
            raise InputError(
                f"a block of {n_times} volumes ({n_times * self.t_r:g} s) is longer than the model "
                f"can read ({self.sizes.n_positions - 1} volumes, {LONGEST:g} s); cut shorter ones"
            )
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        moment = torch.arange(n_times, device=x.device) * self.t_r
        rows = (moment / TIME_STEP).round().long()
        x = x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))
        return x, rows[order], mask.sum(1)

    def _states(self, x: Tensor, times: Tensor) -> Tensor:
        drop = self.sizes.dropout
        x = F.dropout(self.embed_norm(self.embed(x)), drop, self.training) + self.time(times)
        x = x + self.position.weight[: x.shape[1]]
        x = F.dropout(x, drop, self.training)
        for block in self.blocks:
            x = block(x, causal=True)
        return self.norm(x)


class LinearEncoder(BrainEncoder):
    """A linear layer on the mean over the recorded volumes.

    Parameters
    ----------
    n_parcels, width : int
    """

    kind: ClassVar[str] = "linear"

    def __init__(self, n_parcels: int, width: int = 768) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(n_parcels, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return ``W mean_t(x_t) + b``."""
        return self.layer(mean_volume(x, mask))


def mean_volume(x: Tensor, mask: Tensor) -> Tensor:
    """Average recorded volumes.

    Parameters
    ----------
    x : Tensor, shape (trial, time, parcel)
    mask : Tensor of bool, shape (trial, time)

    Returns
    -------
    Tensor, shape (trial, parcel)
    """
    weight = mask.to(x.dtype)[..., None]
    return torch.where(mask[..., None], x, 0.0).sum(1) / weight.sum(1).clamp(min=1)


def _start_as_gpt(model: CausalEncoder) -> None:
    """Draw weights as GPT-2 does: sd 0.02, and less where branches meet the sum."""
    for name, parameter in model.named_parameters():
        if name.endswith(("mask_vector", "cls_vector")) or "norm" in name:
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
            continue
        meets = name.endswith(("merge.weight", "narrow.weight"))
        nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * model.sizes.depth) if meets else 1))
