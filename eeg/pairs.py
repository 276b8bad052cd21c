"""Pairs of signal and symbol to train SCAN with, drawn so that classes are balanced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eeg.symbols import MISSING, Symbols
from neuro.nn.scan import OPERATORS

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

DRAWS = 4096  # pairs in an epoch: the same training for small and large cohorts


def balanced_weights(codes: Ints, rounds: int = 50) -> Floats:
    """Weigh units so that the values of every label are equally frequent.

    Iterative proportional fitting over the labels in turn; a unit whose label is missing keeps
    its weight there.

    Parameters
    ----------
    codes : ndarray of int, shape (unit, label)

    Returns
    -------
    ndarray, shape (unit,)
        With mean 1.

    Examples
    --------
    >>> balanced_weights(np.array([[0], [0], [0], [1]])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    weight = np.ones(len(codes))
    for _ in range(rounds):
        for column in codes.T:
            known = column != MISSING
            mass = np.bincount(column[known], weights=weight[known])
            present = mass > 0
            level = mass.sum() / max(present.sum(), 1)
            factor = np.divide(level, mass, out=np.ones_like(mass), where=present)
            weight[known] *= factor[column[known]]
    return weight / weight.mean()


class Pairs:
    """Batches of signal posteriors with their symbols, some labels dropped at random.

    Parameters
    ----------
    mean, variance : ndarray, shape (unit, latent)
    codes : ndarray of int, shape (unit, label)
    symbols : Symbols
    weight : ndarray, shape (unit,)
        Units are drawn in proportion to it.
    drop : float
        Share of pairs of which a random number of labels (none to all) is kept, so that symbols
        of one label, and of none, are met in training.
    batch_size, seed
        What is drawn is a function of the seed and the epoch.
    device : str
    """

    def __init__(
        self,
        mean: Floats,
        variance: Floats,
        codes: Ints,
        symbols: Symbols,
        weight: Floats,
        *,
        drop: float,
        batch_size: int,
        seed: int,
        device: Any = "cpu",
    ) -> None:
        self.mean = mean.astype(np.float32)
        self.log_variance = np.log(variance).astype(np.float32)
        self.codes, self.symbols = codes, symbols
        self.share = weight / weight.sum()
        self.drop, self.batch_size, self.seed, self.device = drop, batch_size, seed, device
        self.epoch = 0

    def __len__(self) -> int:
        return -(-DRAWS // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws the next iteration takes."""
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import torch

        rng = np.random.default_rng([self.seed, self.epoch])
        n = len(self) * self.batch_size
        units = rng.choice(len(self.codes), n, p=self.share)
        arrays = self._symbols(self.codes[units], rng)
        arrays |= {"mean": self.mean[units], "log_variance": self.log_variance[units]}
        tensors = {name: torch.from_numpy(a).to(self.device) for name, a in arrays.items()}
        for start in range(0, n, self.batch_size):
            yield {name: t[start : start + self.batch_size] for name, t in tensors.items()}

    def _symbols(self, codes: Ints, rng: np.random.Generator) -> dict[str, Any]:
        kept = np.where(_keep(codes.shape, self.drop, rng), codes, MISSING)
        vectors, mask = self.symbols.k_hot(kept)
        return {"symbols": vectors, "mask": mask}


class Recombinations(Pairs):
    """Batches of two concepts, an operator, and what it gives: a part of a unit's own labels.

    With T labels of the unit, and foreign values from another unit: AND joins two parts of T;
    IN COMMON meets T in two concepts that have foreign labels beside it; IGNORE takes foreign
    labels away from T and them. The unit's signal is therefore one that the result describes.
    """

    def _symbols(self, codes: Ints, rng: np.random.Generator) -> dict[str, Any]:
        operator = rng.integers(len(OPERATORS), size=len(codes))
        foreign = self.codes[rng.choice(len(self.codes), len(codes), p=self.share)]
        chosen = _keep(codes.shape, 1.0, rng)
        result = np.where(chosen, codes, MISSING)
        extra = np.where(chosen, MISSING, foreign)
        sizes = np.array([len(group.values) for group in self.symbols.groups])
        other = np.where(extra == MISSING, MISSING, (extra + 1) % sizes)
        role = rng.integers(3, size=codes.shape)  # of each label, see below
        first, second = _operands(operator[:, None], role, result, extra, other)
        vectors = {"first": first, "second": second, "result": result}
        arrays = {name: self.symbols.k_hot(c)[0] for name, c in vectors.items()}
        return {**arrays, "operator": np.eye(len(OPERATORS), dtype=np.float32)[operator]}


def _keep(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keep a random number of labels, from none to all, in a share of the rows."""
    rank = rng.random(shape).argsort(axis=1)
    number = rng.integers(0, shape[1] + 1, size=(shape[0], 1))
    return (rank < number) | (rng.random((shape[0], 1)) >= share)


def _operands(
    operator: Ints, role: Ints, result: Ints, extra: Ints, other: Ints
) -> tuple[Ints, Ints]:
    """Return two concepts that the operator makes the result of, both (row, label).

    Parameters
    ----------
    operator : ndarray of int, shape (row, 1)
    role : ndarray of int, shape (row, label)
    result, extra, other : ndarray of int, shape (row, label)
        Labels of the result; foreign ones for the rest; other values of these.
    """
    chosen = result != MISSING
    both, common = operator == 0, operator == 1
    # AND: each label of the result stands in the first concept, the second, or both.
    and_first, and_second = (
        np.where(role != 1, result, MISSING),
        np.where(role != 0, result, MISSING),
    )
    # IN COMMON: what stands in one concept only, or in both with different values, is not.
    common_first = np.where(chosen, result, np.where(role != 1, extra, MISSING))
    common_second = np.where(
        chosen, result, np.select([role == 1, role == 2], [extra, other], MISSING)
    )
    # IGNORE: the second concept is what the first has beside the result, or has not at all.
    ignore_first = np.where(chosen, result, np.where(role == 2, extra, MISSING))
    ignore_second = np.where(role == 0, MISSING, extra)
    first = np.select([both, common], [and_first, common_first], ignore_first)
    second = np.select([both, common], [and_second, common_second], ignore_second)
    return first, second
