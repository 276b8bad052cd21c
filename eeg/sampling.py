"""Training batches of EEG trials: single trials, ERPs, bootstrapped averages, trial to ERP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from neuro.batches import Batches
from neuro.errors import DataError, InputError
from neuro.standardize import Standardizer

if TYPE_CHECKING:
    from neuro.sources import Source

MODES = ("single", "erp", "bootstrap", "single-to-erp")
Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


class GroupBatches:
    """Batches made from the trials of one subject and condition; an epoch is one per trial.

    Parameters
    ----------
    X : ndarray, shape (trial, channel, time)
    groups : ndarray of int, shape (trial,)
        Number of the trial's subject and condition.
    mode : {"erp", "bootstrap", "single-to-erp"}
        ``erp``: the average of the trial's group. ``bootstrap``: the average of k random trials
        of the group, without repetition, k uniform in ``1..n_average``. ``single-to-erp``: the
        trial, and as the target the average of the group without it.
    batch_size : int
    n_average : int
        For ``bootstrap``.
    index : ndarray of int
        The trials to use; groups consist of these alone.
    target : Standardizer, optional
        Applied to the targets of ``single-to-erp``.
    seed : int
    device : str or torch.device
    shuffle : bool

    Raises
    ------
    DataError
        Where no group has a second trial, in ``single-to-erp``.

    Examples
    --------
    >>> X = np.arange(4, dtype="float32").reshape(4, 1, 1)
    >>> source = GroupBatches(X, np.array([0, 0, 1, 1]), "erp", 4, index=np.arange(4))
    >>> sorted(next(iter(source))["x"].flatten().tolist())
    [0.5, 0.5, 2.5, 2.5]
    """

    def __init__(
        self,
        X: Floats,
        groups: Ints,
        mode: str,
        batch_size: int,
        *,
        index: Ints,
        n_average: int = 1,
        target: Standardizer | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        shuffle: bool = True,
    ) -> None:
        if mode not in MODES[1:]:
            raise InputError(f"mode '{mode}' is none of {', '.join(MODES[1:])}")
        self.mode, self.batch_size, self.n_average = mode, batch_size, n_average
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0
        self.device = torch.device(device)
        self.shape = X.shape[1:]
        if mode == "single-to-erp":
            sizes = np.bincount(groups[index], minlength=groups.max() + 1)
            index = index[sizes[groups[index]] > 1]
            if not len(index):
                raise DataError(
                    "train_on='single-to-erp' needs subjects with at least two trials of a "
                    "condition: the target is their average without the trial itself"
                )
        self.index = index
        names, self.group = np.unique(groups[index], return_inverse=True)
        self.sizes = np.bincount(self.group, minlength=len(names))
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.table = torch.from_numpy(np.ascontiguousarray(X)).flatten(1).to(self.device)
        self.averages = self._averages()
        self.target = None
        if target is not None:
            numbers = (
                torch.from_numpy(n).to(self.table)[:, None] for n in (target.mean, target.sd)
            )
            self.target = tuple(numbers)

    def __len__(self) -> int:
        return -(-len(self.index) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; everything random follows from it and the seed."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.arange(len(self.index))
        if self.shuffle:
            order = rng.permutation(order)
        windows = self._windows(rng, order) if self.mode == "bootstrap" else None
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            if windows is None:
                yield self._plain(chosen)
            else:
                yield {"x": self._shaped(self._mean(*windows, start, start + len(chosen)))}

    def _plain(self, chosen: Ints) -> dict[str, Tensor]:
        group = torch.from_numpy(self.group[chosen]).to(self.device)
        average = self.averages.index_select(0, group)
        if self.mode == "erp":
            return {"x": self._shaped(average)}
        rows = torch.from_numpy(self.index[chosen]).to(self.device)
        trial = self.table.index_select(0, rows)
        n = torch.from_numpy(self.sizes[self.group[chosen]]).to(trial)[:, None]
        others = self._shaped(average + (average - trial) / (n - 1))  # the mean of the other n - 1
        if self.target is not None:
            mean, sd = self.target
            others = (others - mean) / sd
        return {"x": self._shaped(trial), "target": others}

    def _windows(self, rng: np.random.Generator, order: Ints) -> tuple[Ints, Ints]:
        """Return the trials of every average, one after another, and where each begins.

        Every group is put in a random order; an average takes k trials in a row from the place
        of its own trial on, round the end.
        """
        place = np.lexsort((rng.random(len(self.index)), self.group))
        rank = np.empty_like(place)
        rank[place] = np.arange(len(place))
        group = self.group[order]
        size = self.sizes[group]
        k = np.minimum(rng.integers(1, self.n_average + 1, len(order)), size)
        ends = np.cumsum(k)
        within = np.arange(ends[-1]) - np.repeat(ends - k, k)
        first = rank[order] - self.starts[group]
        position = (np.repeat(first, k) + within) % np.repeat(size, k)
        rows = self.index[place[np.repeat(self.starts[group], k) + position]]
        return rows, np.concatenate([[0], ends])

    def _mean(self, rows: Ints, bounds: Ints, start: int, stop: int) -> Tensor:
        """Average the gathered trials without copying them first."""
        low, high = bounds[start], bounds[stop]
        flat = torch.from_numpy(rows[low:high]).to(self.device)
        offsets = torch.from_numpy(bounds[start:stop] - low).to(self.device)
        return F.embedding_bag(flat, self.table, offsets, mode="mean")

    def _averages(self) -> Tensor:
        place = np.argsort(self.group, kind="stable")
        bounds = np.concatenate([self.starts, [len(place)]])
        return self._mean(self.index[place], bounds, 0, len(self.starts))

    def _per_channel(self, numbers: Floats) -> Tensor:
        return torch.from_numpy(numbers).to(self.table)[:, None]

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.unflatten(1, self.shape)


def training_batches(
    X: Floats,
    groups: Ints | None,
    mode: str,
    batch_size: int,
    *,
    index: Ints | None = None,
    n_average: int = 1,
    target: Standardizer | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    shuffle: bool = True,
) -> Source:
    """Return the batches of a training mode; see `GroupBatches` for all but single trials."""
    if mode == "single":
        return Batches({"x": X}, batch_size, index=index, seed=seed, device=device, shuffle=shuffle)
    if groups is None:
        raise DataError(
            f"train_on='{mode}' averages trials of one subject and condition, but the subjects "
            "are not known: give X a coordinate 'subject' on trial, or pass subject="
        )
    chosen = np.arange(len(X)) if index is None else np.asarray(index, dtype=np.int64)
    return GroupBatches(
        X, groups, mode, batch_size,
        index=chosen, n_average=n_average, target=target, seed=seed, device=device,
        shuffle=shuffle,
    )  # fmt: skip


def statistics(source: Source) -> tuple[Standardizer, Standardizer | None]:
    """Return mean and standard deviation per channel of the inputs, and of the targets if any.

    They are taken over one epoch, since an average of trials is smaller than a trial.

    Parameters
    ----------
    source : Source
        Yields ``x`` and perhaps ``target``: (batch, channel, time).
    """
    source.set_epoch(0)
    moments: dict[str, _Moments] = {}
    for batch in source:
        for name, tensor in batch.items():
            moments.setdefault(name, _Moments(tensor)).add(tensor)
    target = moments.get("target")
    return moments["x"].standardizer(), None if target is None else target.standardizer()


class _Moments:
    """Sums in double precision about the first batch's mean, so that an offset costs no digits."""

    def __init__(self, first: Tensor) -> None:
        self.shift = first.double().mean((0, 2))
        self.sums = torch.zeros(2, len(self.shift), dtype=torch.float64, device=first.device)
        self.count = 0

    def add(self, batch: Tensor) -> None:
        values = batch.double() - self.shift[:, None]
        self.sums += torch.stack([values.sum((0, 2)), values.square().sum((0, 2))])
        self.count += batch.shape[0] * batch.shape[2]

    def standardizer(self) -> Standardizer:
        offset, square = (self.sums / self.count).cpu().numpy()
        mean = self.shift.cpu().numpy() + offset
        sd = np.sqrt(np.maximum(square - offset**2, 0))
        floor = 1e-7 * np.maximum(1.0, np.abs(mean))
        return Standardizer(
            mean.astype(np.float32), np.where(sd > floor, sd, 1.0).astype(np.float32)
        )
