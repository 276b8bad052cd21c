"""Latents and factors made fit to be compared: what is missing, constant, text or continuous.

The policy, one for all disentanglement metrics:

- a row with a latent that is NaN or infinite is left out of everything;
- a missing factor (NaN, None, "") leaves the row out for that factor alone;
- a factor that is constant, or that names nearly every row, is left out with a warning, and it is
  an error where none remains;
- a latent without variance stays, as one that tells nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Factors = ArrayLike | Mapping[str, ArrayLike]
Flags = bool | Sequence[bool] | None

LEAST_ROWS = 4
MOST_LEVELS = 20  # whole numbers with more distinct values are taken as continuous


@dataclass(frozen=True)
class Factor:
    """One generative factor over the rows where it is known.

    Parameters
    ----------
    name : str
    discrete : bool
    rows : ndarray of int, shape (n_known,)
        Rows of the latents.
    values : ndarray of shape (n_known,)
        Class numbers where discrete, else the standardised values.
    classes : ndarray of int, shape (n_known,)
        0..n_classes-1: the classes, or the bins of equal population of a continuous factor.
    """

    name: str
    discrete: bool
    rows: Ints
    values: Floats
    classes: Ints

    @property
    def n_classes(self) -> int:
        """How many classes or bins."""
        return int(self.classes.max()) + 1


def clean(
    latents: ArrayLike, factors: Factors, discrete: Flags = None, n_bins: int = 20
) -> tuple[Floats, list[Factor]]:
    """Check latents and factors, and bring them into one form.

    Parameters
    ----------
    latents : array_like of shape (n, d)
    factors : array_like of shape (n,) or (n, k), or mapping of name to (n,)
        Numbers or text; a mapping (or table) may mix them.
    discrete : bool or sequence of k bool, optional
        Which factors are classes. By default text, booleans, and whole numbers with at most 20
        distinct values are.
    n_bins : int
        Bins of equal population that stand for a continuous factor where classes are needed;
        fewer where there are fewer than ten rows for each.

    Returns
    -------
    latents : ndarray of shape (n_kept, d)
        Divided by a power of two, so that squares of any finite input are finite.
    factors : list of Factor

    Raises
    ------
    InputError
        For shapes that don't fit, too few rows, or no factor that varies.
    """
    values = _matrix(latents)
    columns = factor_columns(factors)
    lengths = {name: len(column) for name, column in columns.items() if len(column) != len(values)}
    if lengths:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(
            f"the latents have {len(values)} rows, but {told}; expected one value for every row"
        )
    finite = np.isfinite(values).all(1)
    if finite.sum() < LEAST_ROWS:
        raise InputError(
            f"{int(finite.sum())} of {len(values)} rows have finite latents; expected at least "
            f"{LEAST_ROWS}"
        )
    flags = _flags(discrete, list(columns))
    found = [
        _factor(name, column[finite], flag, n_bins)
        for (name, column), flag in zip(columns.items(), flags, strict=True)
    ]
    usable = [factor for factor in found if isinstance(factor, Factor)]
    excluded = [reason for reason in found if isinstance(reason, str)]
    if not usable:
        raise InputError(f"no factor can be used: {'; '.join(excluded) or 'there is none'}")
    if excluded:
        warnings.warn(f"left out: {'; '.join(excluded)}", stacklevel=3)
    return _scaled(values[finite]), usable


def halves(factor: Factor, random_state: int = 0) -> tuple[Ints, Ints]:
    """Split the known rows of a factor into two thirds to fit and a third to score.

    Every class is split alike, and no class is missing from the first part.

    Returns
    -------
    train, test : ndarray of int
        Positions in ``factor.rows``.
    """
    rng = np.random.default_rng(random_state)
    order = rng.permutation(len(factor.rows))
    order = order[np.argsort(factor.classes[order], kind="stable")]
    sizes = np.bincount(factor.classes)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    fitted = place < np.maximum(1, (2 * np.repeat(sizes, sizes)) // 3)
    return np.sort(order[fitted]), np.sort(order[~fitted])


def standardized(values: Floats) -> Floats:
    """Give columns zero mean and unit variance; a constant column becomes 0."""
    values = values / np.maximum(np.abs(values).max(0), np.finfo(float).tiny)
    centred = values - values.mean(0)
    sd = centred.std(0)
    # Of a constant column only rounding is left, which must not be blown up to noise.
    return np.where(sd > 1e-12, centred / np.where(sd > 1e-12, sd, 1.0), 0.0)


# ------------------------------------------------------------------------------------- inside


def _matrix(latents: ArrayLike) -> Floats:
    try:
        values = np.asarray(latents, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"the latents are no numbers: {error}") from error
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"the latents have the shape {values.shape}, expected (n, d)")
    return values


def factor_columns(factors: Factors) -> dict[str, NDArray[Any]]:
    """Return the values of each factor by its name, as given."""
    if hasattr(factors, "items"):
        columns = {str(name): np.asarray(column) for name, column in factors.items()}
    else:
        table = np.asarray(factors)
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2:
            raise InputError(f"the factors have the shape {table.shape}, expected (n, k)")
        columns = {f"factor {k}": column for k, column in enumerate(table.T)}
    wrong = [f"{name} {column.shape}" for name, column in columns.items() if column.ndim != 1]
    if wrong:
        raise InputError(f"a factor must have one value per row; found {', '.join(wrong)}")
    return columns


def _flags(discrete: Flags, names: list[str]) -> list[bool | None]:
    if discrete is None or isinstance(discrete, bool | np.bool_):
        return [None if discrete is None else bool(discrete)] * len(names)
    flags = [bool(flag) for flag in discrete]
    if len(flags) != len(names):
        raise InputError(f"discrete has {len(flags)} entries for {len(names)} factors")
    return list(flags)


def _factor(name: str, column: NDArray[Any], discrete: bool | None, n_bins: int) -> Factor | str:
    """Return the factor, or why it can't be used."""
    numbers = _numbers(column)
    if discrete is False and numbers is None:
        raise InputError(f"{name} is text, so it can't be continuous")
    known = _known(column) if numbers is None else np.isfinite(numbers)
    rows = np.flatnonzero(known)
    if len(rows) < LEAST_ROWS:
        return f"{name} is known in {len(rows)} rows"
    values = column[rows].astype(str) if numbers is None else numbers[rows]
    levels, codes = np.unique(values, return_inverse=True)
    codes = codes.reshape(-1).astype(np.intp)
    if len(levels) < 2:
        return f"{name} is constant"
    if discrete is None:
        discrete = numbers is None or _few_whole(column, levels)
    if not discrete:
        return Factor(name, False, rows, standardized(values[:, None])[:, 0], _bins(values, n_bins))
    if 2 * len(levels) > len(rows):
        return f"{name} has {len(levels)} classes in {len(rows)} rows"
    return Factor(name, True, rows, codes.astype(float), codes)


def _numbers(column: NDArray[Any]) -> Floats | None:
    """Return the column as floats, or None where it is text."""
    if column.dtype.kind in "US":
        return None
    try:
        return np.array([np.nan if v is None else v for v in column], dtype=float)
    except (TypeError, ValueError):
        return None


def _known(column: NDArray[Any]) -> NDArray[np.bool_]:
    return np.array([v is not None and v == v and str(v) != "" for v in column.tolist()], bool)


def _few_whole(column: NDArray[Any], levels: Floats) -> bool:
    if column.dtype.kind == "b":
        return True
    return len(levels) <= MOST_LEVELS and bool(np.all(levels == np.round(levels)))


def _bins(values: Floats, n_bins: int) -> Ints:
    """Number bins of equal population; equal values share a bin."""
    n_bins = max(2, min(n_bins, len(values) // 10))
    ranks = np.searchsorted(np.sort(values), values)
    codes = ranks * n_bins // len(values)
    if codes.max() == codes.min():  # nearly all values are equal
        codes = (values > values.min()).astype(np.intp)
    return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.intp)


def _scaled(values: Floats) -> Floats:
    largest = float(np.abs(values).max())
    return values if largest == 0 else np.ldexp(values, -int(np.frexp(largest)[1]))
