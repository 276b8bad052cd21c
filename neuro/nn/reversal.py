"""Gradient reversal, for adversarial heads without alternating phases.

References
----------
Ganin and Lempitsky, "Unsupervised domain adaptation by backpropagation" (ICML 2015).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float | Tensor) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float | Tensor = 1.0) -> Tensor:
    """Return `x` itself; its gradient is multiplied by ``-strength``.

    Parameters
    ----------
    x : Tensor
    strength : float or Tensor
        A tensor must broadcast with `x`, such as one strength for each row.

    Examples
    --------
    >>> x = torch.ones(2, requires_grad=True)
    >>> reverse_gradient(x, 0.5).sum().backward()
    >>> x.grad.tolist()
    [-0.5, -0.5]
    """
    return _Reverse.apply(x, strength)


def reversal_ramp(fraction: float, gamma: float = 10.0) -> float:
    """Rise from 0 to 1: ``2 / (1 + exp(-gamma p)) - 1`` (Ganin and Lempitsky 2015, eq. 14).

    Parameters
    ----------
    fraction : float
        Of training done; below 0 counts as 0, above 1 as 1.
    gamma : float

    Examples
    --------
    >>> reversal_ramp(0.0), round(reversal_ramp(1.0), 3)
    (0.0, 1.0)
    """
    return 2 / (1 + math.exp(-gamma * min(max(fraction, 0.0), 1.0))) - 1
