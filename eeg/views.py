"""What a concept of several conditions can be looked at as: each condition, or a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from eeg.scan import SCAN


def views(scan: SCAN) -> list[str]:
    """Name what there is to see: conditions, then differences from the first; or "" alone."""
    conditions = list(scan.pooling_.conditions)
    return [*conditions, *scan.pooling_.parts[1:]] if conditions else [""]


def view(decoded: xr.DataArray, name: str) -> xr.DataArray:
    """Take one of `views` from decoded signals.

    Parameters
    ----------
    decoded : DataArray (..., condition, channel, time)
        From `SCAN.imagine`; without conditions it is returned as it is.
    name : str

    Returns
    -------
    DataArray (..., channel, time)
        A difference wave is the second condition's signal minus the first one's.

    Raises
    ------
    InputError
        Where there is no such view.

    Examples
    --------
    >>> import xarray as xr
    >>> waves = xr.DataArray([[1.0], [3.0]], {"condition": ["a", "b"]}, ("condition", "time"))
    >>> view(waves, "b - a").values
    array([2.])
    """
    if "condition" not in decoded.dims:
        return decoded
    known = [str(c) for c in decoded["condition"].values]
    if name in known:
        return decoded.sel(condition=name, drop=True)
    for other in known[1:]:
        if name == f"{other} - {known[0]}":
            return decoded.sel(condition=other, drop=True) - decoded.sel(
                condition=known[0], drop=True
            )
    raise InputError(
        f"there is no '{name}' to look at; use {', '.join(known)}, or a difference from {known[0]}"
    )
