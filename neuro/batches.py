"""Batches: whole-batch slices of contiguous arrays, on the device that trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError

if TYPE_CHECKING:
    import torch

_RESIDENT_SHARE = 0.5  # of the free GPU memory: the rest is for the network
_SHARD_BYTES = 8 << 20
_SHARDS_HELD = 8  # shards mixed in memory at once: a batch must not hold one subject only


class Batches:
    """Iterate over mini-batches, without a Python call per sample.

    Arrays in memory are gathered a whole batch at a time. On a GPU they are resident where they
    fit, and pass through pinned buffers where they don't. A memory-mapped array is read in
    contiguous shards in random order; a few shards are held at once and shuffled together.

    Parameters
    ----------
    arrays : dict of str to ndarray or memmap
        Equal lengths; numbers without NaN (float32 for signals).
    batch_size : int
        Trials in a batch.
    index : array-like of int, optional
        The trials to use (a training part), each once per epoch; all of them by default.
    shuffle : bool
        A new order in every epoch, else the order of `index`.
    seed : int
        The order is a function of `seed` and the epoch alone, the same on every device.
    device : str or torch.device
        Where the batches are wanted.
    drop_last : bool
        Leave out a smaller last batch.
    resident : bool, optional
        Keep the arrays on the GPU; by default where they take less than half the free memory.
    shard_bytes : int
        Size of a shard of memory-mapped arrays.

    Raises
    ------
    InputError
        Where lengths differ, an index lies outside, or an array holds no numbers.

    Examples
    --------
    >>> import numpy as np
    >>> batches = Batches({"x": np.arange(10, dtype="float32")}, 4, seed=1)
    >>> [len(batch["x"]) for batch in batches], len(batches)
    ([4, 4, 2], 3)
    >>> batches.set_epoch(1)  # another order, the same at every call
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        batch_size: int,
        *,
        index: ArrayLike | None = None,
        shuffle: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        drop_last: bool = False,
        resident: bool | None = None,
        shard_bytes: int = _SHARD_BYTES,
    ) -> None:
        import torch

        self.n_rows = _common_length(arrays)
        self.batch_size = _positive(batch_size)
        self.index = _checked_index(index, self.n_rows)
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.device = torch.device(device)
        self.epoch = 0
        self.mapped = any(_is_mapped(array) for array in arrays.values())
        row_bytes = sum(a.nbytes for a in arrays.values()) // max(self.n_rows, 1)
        self.shard_rows = max(1, shard_bytes // max(row_bytes, 1))
        self.arrays = dict(arrays)
        if resident is None:
            resident = not self.mapped and _fits(row_bytes * self.n_rows, self.device)
        self.resident = resident and self.device.type != "cpu"
        self._tensors: dict[str, torch.Tensor] = {}
        if self.resident or not self.mapped:
            self._tensors = {name: _as_tensor(array) for name, array in arrays.items()}
        if self.resident:
            self._tensors = {name: t.to(self.device) for name, t in self._tensors.items()}

    def __len__(self) -> int:
        whole = len(self.index) / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self.epoch = int(epoch)

    def order(self) -> NDArray[np.int64]:
        """Return the trial numbers of this epoch in the order in which they come."""
        if not self.shuffle:
            return self.index
        rng = np.random.default_rng([self.seed, self.epoch])
        if self._sharded:
            return np.concatenate([*self._windows(rng), self.index[:0]])
        return rng.permutation(self.index)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        import torch

        if self._sharded:
            yield from self._from_shards()
            return
        order = torch.from_numpy(self.order())
        if self.resident:
            order = order.to(self.device)
        send = self._sender()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield send(self._tensors, order[start : start + self.batch_size])

    @property
    def _sharded(self) -> bool:
        return self.mapped and not self.resident

    def _sender(self) -> Any:
        if self.device.type == "cuda" and not self.resident:
            return _Pinned(self.device)
        return lambda tensors, rows: _to(_gather(tensors, rows), self.device)

    def _windows(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Shuffled trial numbers, a few shards at a time."""
        shard = self.index // self.shard_rows
        members = np.argsort(shard, kind="stable")
        bounds = np.flatnonzero(np.diff(shard[members])) + 1
        shards = np.split(self.index[members], bounds)
        order = rng.permutation(len(shards))
        for start in range(0, len(order), _SHARDS_HELD):
            held = [shards[i] for i in order[start : start + _SHARDS_HELD]]
            yield rng.permutation(np.concatenate(held))

    def _plain_windows(self) -> Iterator[NDArray[np.int64]]:
        step = self.shard_rows * _SHARDS_HELD
        for start in range(0, len(self.index), step):
            yield self.index[start : start + step]

    def _from_shards(self) -> Iterator[dict[str, torch.Tensor]]:
        import torch

        send = self._sender()
        rng = np.random.default_rng([self.seed, self.epoch])
        left: dict[str, torch.Tensor] = {}
        for rows in self._windows(rng) if self.shuffle else self._plain_windows():
            held, position = self._read(rows)
            if left:
                # The tail of the last window opens this one's first batch.
                position = np.concatenate(
                    [np.arange(_rows(held), _rows(held) + _rows(left)), position]
                )
                held = {name: torch.cat([held[name], left[name]]) for name in held}
            whole = len(position) // self.batch_size * self.batch_size
            order = torch.from_numpy(position)
            for start in range(0, whole, self.batch_size):
                yield send(held, order[start : start + self.batch_size])
            left = _gather(held, order[whole:]) if whole < len(position) else {}
        if left and not self.drop_last:
            yield send(left, torch.arange(_rows(left)))

    def _read(self, rows: NDArray[np.int64]) -> tuple[dict[str, torch.Tensor], NDArray[np.int64]]:
        """Read trials in contiguous pieces; return them and where each of `rows` lies."""
        unique, position = np.unique(rows, return_inverse=True)
        pieces = np.split(unique, np.flatnonzero(np.diff(unique) > 1) + 1)
        held = {
            name: _as_tensor(np.concatenate([array[p[0] : p[-1] + 1] for p in pieces]))
            for name, array in self.arrays.items()
        }
        return held, position.astype(np.int64)


class _Pinned:
    """Two page-locked buffers in turn: one is filled while the other is being copied."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.slots: list[dict[str, torch.Tensor]] = [{}, {}]
        self.events: list[Any] = [None, None]
        self.turn = 0

    def __call__(
        self, tensors: dict[str, torch.Tensor], rows: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        import torch

        self.turn = 1 - self.turn
        if self.events[self.turn] is not None:
            self.events[self.turn].synchronize()
        slot = self.slots[self.turn]
        batch = {}
        for name, tensor in tensors.items():
            shape = (len(rows), *tensor.shape[1:])
            if name not in slot or len(slot[name]) < len(rows):
                slot[name] = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
            buffer = slot[name][: len(rows)]
            torch.index_select(tensor, 0, rows, out=buffer)
            batch[name] = buffer.to(self.device, non_blocking=True)
        self.events[self.turn] = torch.cuda.Event()
        self.events[self.turn].record()
        return batch


def _gather(tensors: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    if rows.device.type != "cpu":
        return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}
    import torch

    # Memory bounds this copy, so one thread is enough; on a busy machine torch's threads would
    # wait for one another, up to a hundred times longer.
    chosen = rows.numpy()
    return {
        name: torch.from_numpy(tensor.numpy().take(chosen, axis=0))
        for name, tensor in tensors.items()
    }


def _to(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _rows(batch: dict[str, torch.Tensor]) -> int:
    return len(next(iter(batch.values())))


def _as_tensor(array: NDArray[Any]) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        # A read-only array is fine: batches are copies, nothing is ever written to it.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.ascontiguousarray(array))


def _is_mapped(array: NDArray[Any]) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base  # type: ignore[assignment]
    return False


def _fits(n_bytes: int, device: torch.device) -> bool:
    import torch

    if device.type != "cuda":
        return device.type != "cpu"
    return n_bytes < _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def _common_length(arrays: Mapping[str, NDArray[Any]]) -> int:
    if not arrays:
        raise InputError("batches need at least one array")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or not array.ndim:
            raise InputError(
                f"'{name}' is {type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}; "
                "expected a NumPy array of numbers, first axis trial"
            )
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the arrays have different numbers of trials: {lengths}")
    n_rows = next(iter(lengths.values()))
    if n_rows == 0:
        raise DataError("there is no trial to make batches of")
    return n_rows


def _positive(batch_size: int) -> int:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1")
    return int(batch_size)


def _checked_index(index: ArrayLike | None, n_rows: int) -> NDArray[np.int64]:
    if index is None:
        return np.arange(n_rows, dtype=np.int64)
    rows = np.asarray(index)
    if rows.dtype == bool and rows.shape == (n_rows,):
        rows = np.flatnonzero(rows)
    rows = rows.astype(np.int64)
    if rows.ndim != 1 or (rows.size and not 0 <= rows.min() <= rows.max() < n_rows):
        raise InputError(f"index must hold trial numbers between 0 and {n_rows - 1}")
    return rows
