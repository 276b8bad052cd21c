"""The device to compute on."""

from __future__ import annotations

import torch

from neuro.errors import InputError


def device_of(device: str = "auto", *, fallback: bool = False) -> torch.device:
    """Return the device asked for; a GPU where there is one, with ``"auto"``.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    fallback : bool
        Take the CPU where the device asked for isn't there (an encoder that was trained on
        another machine), instead of refusing.

    Raises
    ------
    InputError
        Where the device isn't there, or is none of those.

    Examples
    --------
    >>> device_of("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device '{device}' is none of auto, cpu, cuda, cuda:N, mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if there.get(wanted.type, False):
        return wanted
    if fallback:
        return torch.device("cpu")
    raise InputError(f"device '{device}' isn't there; use auto or cpu")
