"""One formula for NumPy and torch: the few calls that both libraries name differently."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["constant", "library", "pad_fft"]


def library(x: Any) -> ModuleType:
    """Return the library that an array belongs to: `numpy`, or `torch` for a tensor."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def constant(values: Any, like: Any) -> Any:
    """Return values as an array of the library and on the device of another one.

    Precision follows `like`: single with single, complex values stay complex. A tensor that lies
    there already is returned as it is.
    """
    if library(values) is not np:
        return values
    double = str(like.dtype).endswith(("64", "128")) and "complex64" not in str(like.dtype)
    values = np.asarray(values)
    kind = ("complex128" if double else "complex64") if np.iscomplexobj(values) else (
        "float64" if double else "float32"
    )  # fmt: skip
    values = values.astype(kind)
    xp = library(like)
    return values if xp is np else xp.as_tensor(values, device=like.device)


def pad_fft(n_samples: int, n_extra: int) -> int:
    """Return a quick FFT length for a linear convolution that is `n_extra` longer."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(n_samples + n_extra))
