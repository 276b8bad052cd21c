"""Pairs of signal and symbol to train SCAN with, drawn so that classes are balanced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eeg.symbols import MISSING, Symbols
from neuro.nn.scan import OPERATORS

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

DRAWS = 4096  # pairs in an epoch: the same training for small and large cohorts
_LEAST = 1e-3  # smallest share of variance that is taken to lie between participants


@dataclass
class Pooling:
    """From the codes of trials to the code of their participant, on the scale of the prior.

    A participant's code is the mean over trials, shrunk toward the cohort's mean by its
    reliability ``B / (B + W / n)``, with the posterior variance ``B W / (n B + W)``: the
    posterior under ``N(mean, B)`` between participants and ``N(0, W)`` between the trials of
    one. Divided by the cohort's spread, the codes of all participants together are N(0, 1), so
    that a latent about which a symbol says nothing is N(0, 1) too. A latent that the encoder
    doesn't keep (KL below 0.01) is N(0, 1) for everybody: dividing by its tiny spread would make
    an echo of the others of it. Where no participant has two trials (ERPs, or
    single trials as units of their own), the encoder's posterior is taken as it is.

    Attributes
    ----------
    mean, between, within : ndarray, shape (latent,)
        `within` is 0 where no unit has two trials.
    scale : ndarray, shape (latent,)
        The cohort's spread.
    kept : ndarray of bool, shape (latent,)
    """

    mean: Floats
    between: Floats
    within: Floats
    scale: Floats
    kept: NDArray[np.bool_]

    @classmethod
    def identity(cls, n_latents: int) -> Pooling:
        """Leave posteriors of single trials as they are."""
        zeros, ones = np.zeros(n_latents), np.ones(n_latents)
        return cls(zeros, ones, zeros, ones, np.ones(n_latents, dtype=bool))

    @classmethod
    def learn(
        cls, mean: Floats, variance: Floats, unit: Ints, weight: Floats, kept: NDArray[np.bool_]
    ) -> Pooling:
        """Learn the spread between and within units.

        Parameters
        ----------
        mean, variance : ndarray, shape (trial, latent)
            Posteriors.
        unit : ndarray of int, shape (trial,)
            From 0, without gaps.
        weight : ndarray, shape (unit,)
            Weights of the units in the cohort.
        kept : ndarray of bool, shape (latent,)
            All are kept where none would be.
        """
        kept = kept if kept.any() else ~kept
        averages, spread, n = average(mean, variance, unit)
        share = weight / weight.sum()
        center = share @ averages
        total = share @ (averages - center) ** 2
        if n.max() == 1:
            scale = np.sqrt(total + share @ spread)
            return cls(center, total, np.zeros_like(total), np.maximum(scale, 1e-6), kept)
        deviation = (mean.astype(np.float64) - averages[unit]) ** 2
        within = deviation.sum(0) / max(len(unit) - len(n), 1)
        between = np.maximum(total - within * (share @ (1 / n)), _LEAST * total + 1e-12)
        return cls(center, between, within, np.sqrt(between), kept)

    def pool(self, mean: Floats, variance: Floats, unit: Ints) -> tuple[Floats, Floats]:
        """Return the posterior of every unit on the scale of the prior, (unit, latent) each."""
        averages, spread, n = average(mean, variance, unit)
        if not self.within.any():
            found, left = averages - self.mean, spread / n[:, None]
        else:
            noise = self.within / n[:, None]
            trust = self.between / (self.between + noise)
            found, left = trust * (averages - self.mean), trust * noise
        center = np.where(self.kept, found / self.scale, 0)
        variances = np.where(self.kept, np.maximum(left / self.scale**2, 1e-6), 1)
        return center.astype(np.float32), variances.astype(np.float32)

    def to_latents(self, scaled: Floats) -> Floats:
        """Return codes as the beta-VAE has them."""
        return (self.mean + scaled * self.scale).astype(np.float32)


def average(mean: Floats, variance: Floats, unit: Ints) -> tuple[Floats, Floats, Ints]:
    """Average posterior means and variances over the trials of every unit, and count them."""
    n = np.bincount(unit)
    sums = [np.zeros((len(n), mean.shape[1])) for _ in range(2)]
    for total, values in zip(sums, (mean, variance), strict=True):
        np.add.at(total, unit, values)
    return sums[0] / n[:, None], sums[1] / n[:, None], n


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
