"""Quantities in YAML: bare numbers are SI, text may carry its unit (``100 uV``, ``4 ms``)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_PREFIX = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}
_QUANTITY = re.compile(r"^\s*([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*([a-zA-Zµ]*)\s*$")


def parse_quantity(value: object, unit: str) -> object:
    """Turn ``"100 uV"`` into ``1e-4``; numbers and None pass through.

    Parameters
    ----------
    value : object
        A number (already in SI) or a text with an optional prefix and unit.
    unit : str
        The SI unit expected: ``"V"``, ``"s"`` or ``"Hz"``.

    Returns
    -------
    object
        The number in SI units, or `value` itself where it is no text.

    Raises
    ------
    ValueError
        Where the text is no number or carries another unit.

    Examples
    --------
    >>> parse_quantity("100 uV", "V")
    0.0001
    >>> parse_quantity("250 Hz", "Hz")
    250.0
    """
    if not isinstance(value, str):
        return value
    match = _QUANTITY.match(value)
    if match is None:
        raise ValueError(f"expected a number, or a number with its unit such as '100 u{unit}'")
    number, written = float(match[1]), match[2]
    if not written:
        return number
    prefix = written.removesuffix(unit)
    if prefix == written or prefix not in _PREFIX:
        raise ValueError(
            f"'{value}' has the unit '{written}', expected {unit} (or m{unit}, u{unit})"
        )
    return float(f"{number * _PREFIX[prefix]:.12g}")


def _quantity(unit: str) -> BeforeValidator:
    return BeforeValidator(lambda value: parse_quantity(value, unit))


Volts = Annotated[float, _quantity("V")]
Seconds = Annotated[float, _quantity("s")]
Hertz = Annotated[float, _quantity("Hz")]
