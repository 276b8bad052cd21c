"""The code of a participant: from the latents of trials to what symbols are tied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import ContractError

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

_LEAST = 1e-3  # smallest share of variance that is taken to lie between participants
_UNKNOWN = -1


@dataclass
class Pooling:
    """From the codes of trials to the code of their participant, on the scale of the prior.

    A participant's code has a part for the *level* of every latent, the mean over the conditions,
    and one for every further condition's *difference* from the first: what a difference wave is
    for amplitudes. A label that acts on the difference alone is so no less visible than one that
    acts on the level. Without conditions there is the level only.

    Every part is shrunk toward the cohort's mean by its reliability ``B / (B + W n)``, with the
    posterior variance ``B (1 - B / (B + W n))``: the posterior under ``N(mean, B)`` between
    participants and ``N(0, W)`` between the trials of one, where n is what averaging leaves of
    W (``1/n1 + 1/n2`` for a difference). Divided by the cohort's spread, the codes of all
    participants together are N(0, 1), so that a latent about which a symbol says nothing is
    N(0, 1) too; a difference that a participant has no trials for is N(0, 1) as well. A latent
    that the encoder doesn't keep (KL below 0.01) is N(0, 1) for everybody: dividing by its tiny
    spread would make an echo of the others of it. Where no participant has two trials of a
    condition (ERPs, or single trials as units of their own), the encoder's posterior is taken as
    it is.

    Attributes
    ----------
    mean, between, within : ndarray, shape (part * latent,)
        `within` is 0 where no unit has two trials of a condition.
    scale : ndarray, shape (part * latent,)
        The cohort's spread.
    kept : ndarray of bool, shape (part * latent,)
    conditions : tuple of str
        Two or more, in the order of the parts, or none.
    """

    mean: Floats
    between: Floats
    within: Floats
    scale: Floats
    kept: NDArray[np.bool_]
    conditions: tuple[str, ...] = ()

    @property
    def n_latents(self) -> int:
        """Latents of the encoder: the length of one part."""
        return len(self.mean) // max(1, len(self.conditions))

    @property
    def parts(self) -> list[str]:
        """Names of the parts: "level", and "<condition> - <first condition>"."""
        return ["level", *(f"{name} - {self.conditions[0]}" for name in self.conditions[1:])]

    @classmethod
    def identity(cls, n_latents: int) -> Pooling:
        """Leave posteriors of single trials as they are."""
        zeros, ones = np.zeros(n_latents), np.ones(n_latents)
        return cls(zeros, ones, zeros, ones, np.ones(n_latents, dtype=bool))

    @classmethod
    def learn(
        cls, mean: Floats, variance: Floats, unit: Ints, weight: Floats, kept: NDArray[np.bool_],
        condition: ArrayLike | None = None,
    ) -> Pooling:  # fmt: skip
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
        condition : array-like of str, shape (trial,), optional
            With one condition alone there are no differences.
        """
        kept = kept if kept.any() else ~kept
        names = () if condition is None else tuple(sorted(set(np.asarray(condition).astype(str))))
        names = names if len(names) > 1 else ()
        cells = _Cells.of(mean, variance, unit, _numbers(condition, names), max(1, len(names)))
        centers = cells.centers(weight)
        values, spread, noise = cells.parts(centers)
        total = _weighted(values**2, noise, weight)
        center = _to_parts(centers)
        every = np.tile(kept, len(center))
        if cells.n.max() == 1:
            scale = np.sqrt(total + _weighted(spread, noise, weight)).ravel()
            zero = np.zeros_like(scale)
            return cls(center.ravel(), total.ravel(), zero, np.maximum(scale, 1e-6), every, names)
        within = np.broadcast_to(cells.within(mean), total.shape)
        loss = _weighted(np.broadcast_to(noise[..., None], values.shape), noise, weight)
        between = np.maximum(total - within * loss, _LEAST * total + 1e-12)
        scale = np.sqrt(between)
        return cls(center.ravel(), between.ravel(), within.ravel(), scale.ravel(), every, names)

    def pool(
        self, mean: Floats, variance: Floats, unit: Ints, condition: ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return the posterior of every unit on the scale of the prior, (unit, part * latent) each.

        Raises
        ------
        ContractError
            Where a condition was never seen.
        """
        numbers = _numbers(condition, self.conditions)
        cells = _Cells.of(mean, variance, unit, numbers, max(1, len(self.conditions)))
        values, spread, noise = cells.parts(self._centers())
        shape = (len(values), -1)
        found, noise = values.reshape(shape), np.repeat(noise, mean.shape[1], axis=1)
        missing = np.isinf(noise)
        if not self.within.any():
            center, left = found, spread.reshape(shape)
        else:
            trust = self.between / (self.between + self.within * np.where(missing, 0, noise))
            center, left = trust * found, self.between * (1 - trust)
        known = self.kept & ~missing
        center = np.where(known, center / self.scale, 0)
        variances = np.where(known, np.maximum(left / self.scale**2, 1e-6), 1)
        return center.astype(np.float32), variances.astype(np.float32)

    def to_latents(self, scaled: Floats) -> Floats:
        """Return codes as the beta-VAE has them: (code, latent), or (code, condition, latent)."""
        codes = self.mean + scaled * self.scale
        if not self.conditions:
            return codes.astype(np.float32)
        parts = codes.reshape(len(codes), len(self.conditions), -1)
        shifts = np.concatenate([np.zeros_like(parts[:, :1]), parts[:, 1:]], axis=1)
        codes = parts[:, :1] - shifts.mean(1, keepdims=True) + shifts
        return codes.astype(np.float32)

    def _centers(self) -> Floats:
        """Return the cohort's mean of every condition, (condition, latent)."""
        return self.to_latents(np.zeros((1, len(self.mean)))).reshape(-1, self.n_latents)


@dataclass
class _Cells:
    """Averages over the trials of each unit and condition; the last column: condition unknown."""

    mean: Floats  # (unit, condition + 1, latent)
    variance: Floats
    n: Ints  # (unit, condition + 1)
    cell: Ints  # (trial,)

    @classmethod
    def of(cls, mean: Floats, variance: Floats, unit: Ints, number: Ints, size: int) -> _Cells:
        cell = np.asarray(unit) * (size + 1) + np.where(number == _UNKNOWN, size, number)
        means, variances, n = average(mean, variance, cell, (int(np.max(unit)) + 1) * (size + 1))
        shape = (-1, size + 1, mean.shape[1])
        return cls(means.reshape(shape), variances.reshape(shape), n.reshape(-1, size + 1), cell)

    def centers(self, weight: Floats) -> Floats:
        """Return the cohort's mean of every condition, (condition, latent)."""
        share = weight[:, None] * (self.n[:, :-1] > 0)
        share = share / np.maximum(share.sum(0), 1e-12)
        return np.einsum("uc,ucl->cl", share, self.mean[:, :-1])

    def within(self, mean: Floats) -> Floats:
        """Return the variance between trials of one unit and condition, (latent,)."""
        deviation = (mean.astype(np.float64) - self.mean.reshape(-1, mean.shape[1])[self.cell]) ** 2
        return deviation.sum(0) / max(len(mean) - int((self.n > 0).sum()), 1)

    def parts(self, centers: Floats) -> tuple[Floats, Floats, Floats]:
        """Return deviations from the cohort's mean, their posterior variance, and the noise left.

        Returns
        -------
        values, spread : ndarray, shape (unit, part, latent)
        noise : ndarray, shape (unit, part)
            Share of the variance of a trial that averaging leaves; infinite without trials.
        """
        centers = np.concatenate([centers, centers.mean(0, keepdims=True)])
        has = self.n > 0
        each = np.where(has, 1 / np.maximum(self.n, 1), 0)
        own = np.where(has[..., None], self.mean - centers, 0)
        spread = self.variance * each[..., None]
        n = has.sum(1, keepdims=True)
        values, spreads = [own.sum(1) / n], [spread.sum(1) / n**2]
        noises = [each.sum(1) / n[:, 0] ** 2]
        for k in range(1, self.n.shape[1] - 1):
            both = has[:, 0] & has[:, k]
            values.append(np.where(both[:, None], own[:, k] - own[:, 0], 0))
            spreads.append(spread[:, k] + spread[:, 0])
            noises.append(np.where(both, each[:, k] + each[:, 0], np.inf))
        return np.stack(values, 1), np.stack(spreads, 1), np.stack(noises, 1)


def _to_parts(centers: Floats) -> Floats:
    """Return level and differences of conditions, (part, latent) from (condition, latent)."""
    return np.concatenate([centers.mean(0, keepdims=True), centers[1:] - centers[:1]])


def _weighted(values: Floats, noise: Floats, weight: Floats) -> Floats:
    """Average over the units that have the part, (part, latent)."""
    share = weight[:, None] * np.isfinite(noise)
    share = share / np.maximum(share.sum(0), 1e-12)
    return np.einsum("up,upl->pl", share, np.where(np.isfinite(values), values, 0))


def _numbers(condition: ArrayLike | None, names: Sequence[str]) -> Ints | NDArray[np.intp]:
    """Number conditions by name; without any, all are the first or, of several, unknown."""
    if not names:
        return np.zeros(1, dtype=np.intp)
    if condition is None:
        return np.full(1, _UNKNOWN)
    found = np.asarray(condition).astype(str)
    strange = sorted(set(found) - set(names))
    if strange:
        raise ContractError(
            f"the trials have the condition {', '.join(strange)}; SCAN was fitted on "
            f"{', '.join(names)}. Keep the trials of these conditions, or rename them"
        )
    return np.array([names.index(name) for name in found])


def average(
    mean: Floats, variance: Floats, unit: Ints, size: int = 0
) -> tuple[Floats, Floats, Ints]:
    """Average posterior means and variances over the trials of every unit, and count them."""
    n = np.bincount(unit, minlength=size)
    sums = [np.zeros((len(n), mean.shape[1])) for _ in range(2)]
    for total, values in zip(sums, (mean, variance), strict=True):
        np.add.at(total, unit, values)
    n_or_one = np.maximum(n, 1)[:, None]
    return sums[0] / n_or_one, sums[1] / n_or_one, n
