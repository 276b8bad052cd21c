"""Channels standardised within each domain: what moves all series of a person alike goes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.data import Standardizer
from neuro.validation import is_missing
from timeseries.series_encoder import standardised

__all__ = ["DomainScaler"]

_FEWEST = 8
"""Series that a new domain must bring, to be standardised by its own."""


@dataclass
class DomainScaler:
    """Mean and standard deviation of every channel, of each domain and of all series.

    No label is read, so that an unlabelled target is standardised by itself. A domain that was not
    there in training takes the statistics of its own series where it brings eight or more, else
    those of all training series, as do series of no known domain.

    Attributes
    ----------
    pooled : Standardizer
        Of all training series.
    own : dict of Standardizer
        By the name of the domain.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 2, 16)).astype("float32")
    >>> X[20:] += 5
    >>> scaler = DomainScaler.fit(X, ["ann"] * 20 + ["bob"] * 20)
    >>> bool(abs(scaler.transform(X, ["ann"] * 20 + ["bob"] * 20)[20:].mean()) < 1e-5)
    True
    """

    pooled: Standardizer
    own: dict[str, Standardizer]

    @classmethod
    def fit(
        cls, values: NDArray[Any], domain: ArrayLike, real: NDArray[np.bool_] | None = None
    ) -> Self:
        """Estimate the statistics.

        Parameters
        ----------
        values : ndarray, shape (trial, channel, time)
        domain : array-like, shape (trial,)
            Names; a missing one ("", None or NaN) counts for the pooled statistics alone.
        real : ndarray of bool, shape (trial, time), optional
            True on real samples.
        """
        own = {name: _fit(values, real, rows) for name, rows in _groups(domain)}
        return cls(Standardizer.fit(values, real), own)

    def transform(
        self, values: NDArray[Any], domain: ArrayLike | None, real: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Standardise each series by its domain; padding becomes zero.

        Parameters
        ----------
        values : ndarray of float32, shape (trial, channel, time)
        domain : array-like, shape (trial,), or None
        real : ndarray of bool, shape (trial, time), optional
        """
        scaled = np.array(standardised(values, real, self.pooled))
        for name, rows in _groups(domain) if domain is not None else ():
            scaler = self.own.get(name)
            if scaler is None and len(rows) >= _FEWEST:
                scaler = _fit(values, real, rows)
            if scaler is not None:
                inside = None if real is None else real[rows]
                scaled[rows] = standardised(values[rows], inside, scaler)
        return scaled

    def inverse(self, scaled: NDArray[Any], domain: ArrayLike | None) -> NDArray[np.float32]:
        """Return series in the units of their domain; of all series where it is not known."""
        values = np.array(self.pooled.inverse(scaled), np.float32)
        for name, rows in _groups(domain) if domain is not None else ():
            if name in self.own:
                values[rows] = self.own[name].inverse(scaled[rows])
        return values

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """Return the domains' statistics as plain lists for JSON."""
        return {name: scaler.to_dict() for name, scaler in self.own.items()}

    @classmethod
    def from_dict(cls, pooled: Standardizer, stored: dict[str, dict[str, list[float]]]) -> Self:
        """Rebuild from `to_dict` and the pooled statistics."""
        return cls(pooled, {name: Standardizer.from_dict(own) for name, own in stored.items()})


def _fit(
    values: NDArray[Any], real: NDArray[np.bool_] | None, rows: NDArray[np.intp]
) -> Standardizer:
    return Standardizer.fit(values[rows], None if real is None else real[rows])


def _groups(domain: ArrayLike) -> list[tuple[str, NDArray[np.intp]]]:
    """Return each known name with the rows that bear it."""
    given = np.asarray(domain)
    known = np.flatnonzero(~is_missing(given))
    names = given[known].astype(str)
    return [(str(name), known[names == name]) for name in np.unique(names)]
