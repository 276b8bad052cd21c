"""Random numbers of a trial: a function of its identity, never of its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_IDENTITY = ("recording", "subject", "session", "run", "stimulus", "repeat", "onset")


def trial_keys(tokens: xr.DataArray | NDArray[Any]) -> list[str]:
    """Name every trial by its coordinates; by its values where it has none.

    Parameters
    ----------
    tokens : DataArray or ndarray, first axis trial
        With some of ``recording, subject, session, run, stimulus, repeat, onset``.

    Returns
    -------
    list of str

    Examples
    --------
    >>> trial_keys(xr.DataArray([[0.0], [0.0]], dims=("trial", "x"),
    ...                         coords={"stimulus": ("trial", ["a", "b"])}))
    ['a', 'b']
    """
    if isinstance(tokens, xr.DataArray):
        names = [n for n in _IDENTITY if n in tokens.coords and tokens[n].dims == ("trial",)]
        if names:
            columns = [tokens[n].values.tolist() for n in names]
            return ["\0".join(map(str, row)) for row in zip(*columns, strict=True)]
    rows = np.ascontiguousarray(np.asarray(tokens), dtype=np.float32)
    return [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows]


def trial_seeds(keys: Sequence[str], random_state: int, candidate: int = 0) -> list[int]:
    """Return a seed for each trial.

    Parameters
    ----------
    keys : sequence of str
    random_state : int
    candidate : int
        Which of several images of one trial.

    Examples
    --------
    >>> trial_seeds(["a", "b"], 0) == [*trial_seeds(["a"], 0), *trial_seeds(["b"], 0)]
    True
    """
    texts = [f"{key}\0{random_state}\0{candidate}".encode() for key in keys]
    digests = [hashlib.blake2b(text, digest_size=8).digest() for text in texts]
    return [int.from_bytes(digest, "little") >> 1 for digest in digests]


def trial_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Draw each trial's standard normal noise on the CPU: the same on every device.

    Returns
    -------
    Tensor, shape (trial, *shape)
    """
    import torch

    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(rows)
