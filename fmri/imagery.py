"""Is what was imagined decoded? A permutation of the pairing of decoded embeddings with prompts.

The statistic is the mean cosine of a decoded embedding and the embedding of its own prompt (text or
picture); under the null hypothesis the brain knows nothing of the prompt, and any other pairing of
prompts is as likely (``p = (1 + #{null >= observed}) / (1 + B)``).

A prompt that was imagined several times must not be dealt out trial by trial: its trials share
what a person makes of that prompt. So whole prompts change places, with all their trials. With
blocks (runs, subjects) only prompts that came in the same blocks change places, so that drifts of
runs and differences between people can't pass for decoding; where every block had every prompt,
that is no restriction.

References
----------
Wang et al. (2024): the imagination test, whose code and data are not public; the form here is that
of a permutation test of pairings. Phipson and Smyth (2010): p is never 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError
from neuro.validation import Estimate, permutation_p, summarise

__all__ = ["PairingTest", "pairing_test"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairingTest:
    """The outcome of a test of pairings.

    Attributes
    ----------
    statistic : Estimate
        Mean cosine of a trial with its own prompt, interval over prompts, chance as under the
        null, `p`.
    null : ndarray of shape (n,)
        The statistic of the other pairings.
    exact : bool
        Whether these are all there are.
    """

    statistic: Estimate
    null: Floats
    exact: bool

    @property
    def p(self) -> float:
        """One-sided p."""
        return float(permutation_p(self.statistic.value or 0.0, self.null))


@dataclass(frozen=True)
class _Block:
    """Summed cosines ``[own prompt, prompt paired with]`` of prompts that may change places."""

    sums: Floats

    def pairings(self) -> int:
        return math.factorial(len(self.sums))


def pairing_test(
    decoded: ArrayLike,
    prompts: ArrayLike,
    names: ArrayLike,
    prompt_names: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    n_permutations: int = 9999,
    random_state: int = 0,
) -> PairingTest:
    """Test whether decoded embeddings belong to their prompts.

    Parameters
    ----------
    decoded : array_like of shape (trial, feature)
        What was decoded from the brain.
    prompts : array_like of shape (prompt, feature)
        Embeddings of the prompts.
    names : array_like of str, shape (trial,)
        Which prompt each trial was of; one may come several times.
    prompt_names : array_like of str, shape (prompt,)
        Names of the rows of `prompts`. Rows of one embedding under two names count as one prompt.
    blocks : array_like of shape (trial,), optional
        Prompts change places with such as came in the same blocks; by default with all.
    n_permutations : int
        Random pairings; where there are no more than these, all are listed and p is exact.
    random_state : int

    Returns
    -------
    PairingTest

    Raises
    ------
    DataError
        Where a trial's prompt has no embedding, a row is 0 or not finite, or no two prompts came in
        the same blocks.

    Examples
    --------
    >>> prompts = np.eye(4)
    >>> found = pairing_test(prompts, prompts, list("abcd"), list("abcd"))
    >>> found.p == 1 / 24, found.exact
    (True, True)
    """
    rows, own = _units(decoded, "decoded"), np.asarray(names).astype(str)
    table, known = _units(prompts, "prompts"), np.asarray(prompt_names).astype(str)
    _check(rows, table, own, known)
    table, code = _merged(table, known, own)
    cosines = rows @ table.T
    parts = _blocks(cosines, code, blocks)
    null, exact = _null(parts, n_permutations, random_state)
    matched = cosines[np.arange(len(code)), code]
    observed = float(matched.mean())
    null = null / len(code)
    about = summarise(matched, units=code, n_unit="prompt", random_state=random_state)
    estimate = replace(
        about, value=observed, chance=float(null.mean()), p=float(permutation_p(observed, null))
    )
    return PairingTest(estimate, null, exact)


def _units(values: ArrayLike, what: str) -> Floats:
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 2:
        raise InputError(f"{what} has the shape {rows.shape}; expected (row, feature)")
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~np.isfinite(size[:, 0]) | (size[:, 0] == 0)
    if bad.any():
        raise DataError(f"{what}: row {int(np.argmax(bad))} is 0 or not finite")
    return rows / size


def _check(rows: Floats, table: Floats, own: NDArray[np.str_], known: NDArray[np.str_]) -> None:
    if rows.shape[1] != table.shape[1]:
        raise InputError(
            f"decoded embeddings have {rows.shape[1]} features, prompts {table.shape[1]}; both "
            "must be of one space"
        )
    if own.shape != (len(rows),) or known.shape != (len(table),):
        raise InputError(
            f"{len(rows)} trials with {own.size} names, {len(table)} prompts with {known.size}; "
            "expected one name for each"
        )
    if len(np.unique(known)) < len(known):
        raise DataError("a prompt's name comes twice among the embeddings; name each once")
    missing = sorted(set(own) - set(known))
    if missing:
        raise DataError(
            f"{len(missing)} prompts of the trials have no embedding: {', '.join(missing[:5])}; "
            f"there are embeddings of {', '.join(known[:5])}{' ...' if len(known) > 5 else ''}"
        )


def _merged(
    table: Floats, known: NDArray[np.str_], own: NDArray[np.str_]
) -> tuple[Floats, NDArray[np.intp]]:
    """Number the prompts that were used, those of one embedding alike."""
    used, code = np.unique(own, return_inverse=True)
    at = {name: row for row, name in enumerate(known.tolist())}
    rows = table[[at[name] for name in used.tolist()]]
    _, first, alike = np.unique(np.round(rows, 9), axis=0, return_index=True, return_inverse=True)
    return rows[first], np.ravel(alike)[code]


def _blocks(cosines: Floats, code: NDArray[np.intp], blocks: ArrayLike | None) -> list[_Block]:
    where = np.zeros(len(code), dtype=int) if blocks is None else np.asarray(blocks)
    if where.shape != code.shape:
        raise InputError(f"blocks has the shape {where.shape} for {len(code)} trials")
    place = np.unique(where, return_inverse=True)[1]
    came = np.zeros((code.max() + 1, place.max() + 1), dtype=bool)
    came[code, place] = True
    alike = np.ravel(np.unique(came, axis=0, return_inverse=True)[1])
    parts = []
    for one in np.unique(alike):
        own = np.flatnonzero(alike == one)
        sums = [cosines[code == prompt][:, own].sum(0) for prompt in own]
        parts.append(_Block(np.array(sums)))
    if all(part.pairings() == 1 for part in parts):
        raise DataError(
            f"no two of the {len(parts)} prompts came in the same blocks, so no pairing can be "
            "changed; leave blocks away, or take such that hold several prompts"
        )
    return parts


def _null(parts: list[_Block], n: int, seed: int) -> tuple[Floats, bool]:
    """Sums of cosines of other pairings: all but the true one, or a random draw."""
    if math.prod(part.pairings() for part in parts) <= n + 1:
        total = np.zeros(1)
        for part in parts:  # the true pairing is the first of each, so the first of all
            orders = np.array(list(itertools.permutations(range(len(part.sums)))))
            found = part.sums[np.arange(len(part.sums)), orders].sum(1)
            total = (total[:, None] + found).ravel()
        return total[1:], True
    rng = np.random.default_rng(seed)
    total = np.zeros(n)
    for part in parts:
        orders = rng.permuted(np.tile(np.arange(len(part.sums)), (n, 1)), axis=1)
        total += part.sums[np.arange(len(part.sums)), orders].sum(1)
    return total, False
