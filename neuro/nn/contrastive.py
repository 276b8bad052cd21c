r"""Contrastive losses between two sets of embeddings: InfoNCE, BiMixCo, SoftCLIP.

Rows are flattened and divided by their length first, so that the similarity is the cosine. Every
loss is the mean of both directions. Where training runs over several processes, the rows of all
of them are candidates (`gather`).

References
----------
van den Oord et al., "Representation learning with contrastive predictive coding" (2018).
Kim et al., "MixCo: Mix-up contrastive learning for visual representation" (2020).
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BIMIXCO_TEMPERATURE = 0.006
SOFTCLIP_TEMPERATURES = (0.004, 0.0075)


class Mix(NamedTuple):
    """How the rows of a batch were mixed: ``x~_i = weight_i x_i + (1 - weight_i) x_partner(i)``.

    Attributes
    ----------
    weight : Tensor, shape (batch,)
        1 where a row was left alone.
    partner : Tensor of int64, shape (batch,)
    """

    weight: Tensor
    partner: Tensor


def normalize(x: Tensor) -> Tensor:
    """Flatten ``(batch, ...)`` to ``(batch, value)`` and divide rows by their length."""
    return F.normalize(x.flatten(1), dim=1)


def gather(x: Tensor) -> Tensor:
    """Join the rows of all processes, with gradients; the identity where there is one only.

    Parameters
    ----------
    x : Tensor, shape (batch, ...)
        As many rows in every process.

    Returns
    -------
    Tensor, shape (process * batch, ...)
        In the order of the ranks. The gradient of a row sums what all processes ask of it.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    if distributed.get_world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x.contiguous()))


def gather_mix(mix: Mix) -> Mix:
    """Join the mixing of all processes; partners are numbered among the joined rows."""
    weight = gather(mix.weight)
    if len(weight) == len(mix.weight):
        return mix
    offset = torch.distributed.get_rank() * len(mix.weight)
    # As floats: row numbers stay far below 2^24, and the collective is one for both.
    partner = gather((mix.partner + offset).to(weight.dtype))
    return Mix(weight, partner.round().long())


def cross_entropy(similarity: Tensor, targets: Tensor) -> Tensor:
    r"""Symmetric cross-entropy against soft targets.

    Half of ``-mean_i sum_j W_ij log softmax_row(S)_ij`` and half of the same with both
    transposed.

    Parameters
    ----------
    similarity, targets : Tensor, shape (row, column)
        Logits S and targets W.

    Returns
    -------
    Tensor, shape ()
    """
    rows = -(targets * similarity.log_softmax(1)).sum(1).mean()
    columns = -(targets.T * similarity.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def info_nce(
    x: Tensor, target: Tensor, temperature: float | Tensor, group: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, eq. 4, in both directions).

    Parameters
    ----------
    x, target : Tensor, shape (batch, ...)
        Row i of one belongs to row i of the other.
    temperature : float or Tensor, shape ()
        A learned one keeps its gradient.
    group : Tensor, shape (batch,), optional
        See `share_mass`.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> x = torch.eye(4)
    >>> round(info_nce(x, x, 1.0).item(), 4)  # log(e + 3) - 1
    0.7437
    """
    similarity = _similarity(x, target, temperature)
    targets = torch.eye(len(x), dtype=similarity.dtype, device=x.device)
    return cross_entropy(similarity, targets if group is None else share_mass(targets, group))


def mixco_targets(mix: Mix) -> Tensor:
    """Return the target matrix of mixed rows (Scotti et al. 2023, eq. 1).

    ``W_ii += weight_i`` and ``W_i,partner(i) += 1 - weight_i``. They are added, not written, so
    that a row which is its own partner keeps its whole mass.

    Returns
    -------
    Tensor, shape (batch, batch)
        Rows sum to 1.

    Examples
    --------
    >>> mixco_targets(Mix(torch.tensor([0.25, 0.5]), torch.tensor([1, 1]))).tolist()
    [[0.25, 0.75], [0.0, 1.0]]
    """
    targets = torch.diag(mix.weight)
    return targets.scatter_add(1, mix.partner[:, None], (1 - mix.weight)[:, None])


def share_mass(targets: Tensor, group: Tensor) -> Tensor:
    """Spread each target over the rows that show the same stimulus (our addition).

    Where repeats of a stimulus meet in a batch they are no wrong candidates for one another.

    Parameters
    ----------
    targets : Tensor, shape (row, column)
    group : Tensor, shape (column,)
        The stimulus of every row.

    Returns
    -------
    Tensor, shape (row, column)
        Rows keep their sums; the same as `targets` where every stimulus is there once.

    Examples
    --------
    >>> share_mass(torch.eye(3), torch.tensor([7, 8, 7])).tolist()
    [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]
    """
    same = (group[:, None] == group).to(targets.dtype)
    return targets @ (same / same.sum(1, keepdim=True))


def bimixco(
    x: Tensor,
    target: Tensor,
    mix: Mix,
    temperature: float = BIMIXCO_TEMPERATURE,
    group: Tensor | None = None,
) -> Tensor:
    """Bidirectional MixCo (Scotti et al. 2023, eq. 1).

    Parameters
    ----------
    x : Tensor, shape (batch, ...)
        Embeddings of mixed inputs.
    target : Tensor, shape (batch, ...)
        Embeddings of the targets, not mixed.
    mix : Mix
    temperature : float
        0.006 in the paper's code.
    group : Tensor, shape (batch,), optional
        See `share_mass`.

    Returns
    -------
    Tensor, shape ()
        `info_nce` where every weight is 1.
    """
    similarity = _similarity(x, target, temperature)
    targets = mixco_targets(mix).to(similarity.dtype)
    return cross_entropy(similarity, targets if group is None else share_mass(targets, group))


def softclip(x: Tensor, target: Tensor, temperature: float) -> Tensor:
    """SoftCLIP: targets are the similarities among the targets themselves.

    Scotti et al. 2023, eq. 2: cross-entropy between ``softmax(T T' / t)`` and
    ``softmax(X T' / t)``, in both directions.

    Parameters
    ----------
    x, target : Tensor, shape (batch, ...)
    temperature : float
        See `softclip_temperature`.

    Returns
    -------
    Tensor, shape ()
        With distinct targets it tends to `info_nce` as the temperature of the soft targets goes
        to 0.
    """
    return cross_entropy(
        _similarity(x, target, temperature),
        _similarity(target, target, temperature).softmax(1).detach(),
    )


def softclip_temperature(
    fraction: float, temperatures: tuple[float, float] = SOFTCLIP_TEMPERATURES
) -> float:
    """Return the temperature after a fraction of the SoftCLIP epochs: a half cosine.

    Parameters
    ----------
    fraction : float
        0 at the first of these epochs, 1 at the last.
    temperatures : pair of float
        First and last; 0.004 and 0.0075 in the paper's code.

    Examples
    --------
    >>> [round(softclip_temperature(f), 5) for f in (0.0, 0.5, 1.0)]
    [0.004, 0.00575, 0.0075]
    """
    first, last = temperatures
    fraction = min(max(fraction, 0.0), 1.0)
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


def draw_mix(
    n_rows: int,
    generator: torch.Generator,
    *,
    concentration: float = 0.15,
    probability: float = 0.5,
) -> Mix:
    """Draw how a batch is mixed: a random partner each, ``weight ~ Beta(0.15, 0.15)``.

    Parameters
    ----------
    n_rows : int
    generator : torch.Generator
        All random numbers come from it; its device is that of the result.
    concentration : float
        Both parameters of the beta distribution.
    probability : float
        Share of rows that are mixed; the weight of the others is 1.

    Returns
    -------
    Mix
    """
    device = generator.device
    partner = torch.randperm(n_rows, generator=generator, device=device)
    alpha = torch.full((2, n_rows), concentration, dtype=torch.float64, device=device)
    # In logarithms, since Gamma(0.15) is below the smallest number now and then.
    first, second = _log_gamma(alpha, generator)
    weight = torch.sigmoid(first - second).float()
    mixed = torch.rand(n_rows, generator=generator, device=device) < probability
    return Mix(torch.where(mixed, weight, 1.0), partner)


def apply_mix(x: Tensor, mix: Mix) -> Tensor:
    """Mix the rows of ``(batch, ...)``."""
    weight = mix.weight.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return weight * x + (1 - weight) * x[mix.partner]


def _log_gamma(alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ``log Gamma(alpha)`` for alpha < 1: Gamma(alpha + 1) times U^(1 / alpha)."""
    drawn = torch._standard_gamma(alpha + 1, generator=generator)
    uniform = torch.rand(alpha.shape, generator=generator, dtype=alpha.dtype, device=alpha.device)
    return drawn.log() + uniform.clamp(min=1e-300).log() / alpha


def _similarity(x: Tensor, target: Tensor, temperature: float | Tensor) -> Tensor:
    return normalize(x) @ normalize(target).T / temperature
