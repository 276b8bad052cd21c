"""Batches from several sources at once: paired, unlabelled, one per subject, one per member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """What training iterates over; `neuro.batches.Batches` is one."""

    def __len__(self) -> int:
        """Return the batches in an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; it must be a function of a seed and the epoch alone."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the epoch's batches."""


class Together:
    """Take one batch of every named source in each step; short sources start again.

    Paired and unlabelled sources are two names. Equal shares per subject are one source per
    subject with equal batch sizes.

    Parameters
    ----------
    sources : dict of str to Source

    Examples
    --------
    >>> import numpy as np
    >>> from neuro.batches import Batches
    >>> long = Batches({"x": np.arange(6.0)}, 2)
    >>> short = Batches({"x": np.arange(2.0)}, 2)
    >>> both = Together({"paired": long, "unlabelled": short})
    >>> len(both), [sorted(batch) for batch in both][0]
    (3, ['paired', 'unlabelled'])
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)
        self.epoch = 0

    def __len__(self) -> int:
        return max(len(source) for source in self.sources.values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; a source that starts again takes a new order each time."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        streams = {name: self._cycle(source) for name, source in self.sources.items()}
        for _ in range(len(self)):
            yield {name: next(stream) for name, stream in streams.items()}

    def _cycle(self, source: Source) -> Iterator[dict[str, Any]]:
        rounds = -(-len(self) // len(source))
        for turn in range(rounds):
            source.set_epoch(self.epoch * rounds + turn)
            yield from source


class Members:
    """Join the batches of S members along a new first axis.

    Each member has a source of its own, so that it sees what it would see alone. Where members
    have unequal rows, short ones are padded with zeros and ``weight (member, batch)`` marks the
    real rows; a member whose epoch is over has none.

    Parameters
    ----------
    sources : sequence of Source
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self.rows: list[int] | None = None

    @property
    def uneven(self) -> bool:
        """Whether some members make fewer steps in an epoch than others."""
        return len({len(source) for source in self.sources}) > 1

    def __len__(self) -> int:
        return max(len(source) for source in self.sources)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of every member."""
        for source in self.sources:
            source.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        streams = [iter(source) for source in self.sources]
        for _ in range(len(self)):
            yield self._join([next(stream, None) for stream in streams])

    def _join(self, batches: list[dict[str, Tensor] | None]) -> dict[str, Tensor]:
        full = next(batch for batch in batches if batch is not None)
        rows = [count_rows(batch) if batch else 0 for batch in batches]
        self.rows = rows if len(set(rows)) > 1 else None
        if self.rows is None:
            whole = [batch for batch in batches if batch is not None]
            return {name: torch.stack([batch[name] for batch in whole]) for name in full}
        joined = {name: _padded(batches, name, rows) for name in full}
        any_tensor = next(iter(full.values()))
        position = torch.arange(max(rows), device=any_tensor.device)
        limits = torch.tensor(rows, device=any_tensor.device)
        joined["weight"] = (position < limits[:, None]).to(torch.get_default_dtype())
        return joined


def _padded(batches: list[dict[str, Tensor] | None], name: str, rows: list[int]) -> Tensor:
    like = next(batch[name] for batch in batches if batch is not None)
    out = like.new_zeros((len(batches), max(rows), *like.shape[1:]))
    for member, batch in enumerate(batches):
        if batch is not None:
            out[member, : rows[member]] = batch[name]
    return out


def count_rows(batch: Mapping[str, Any]) -> int:
    """Return the rows of a batch: of its first tensor, the first source's where it has several."""
    first = next(iter(batch.values()))
    return count_rows(first) if isinstance(first, Mapping) else len(first)
