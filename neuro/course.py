"""The course of a training: its log, its best weights, its checkpoints; nothing of Lightning."""

from __future__ import annotations

import csv
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuro.checkpoint import (
    load_optimizers,
    optimizer_tensors,
    part,
    read_checkpoint,
    write_checkpoint,
)
from neuro.ensemble import make_optimizer, member_state, plain_optimizers
from neuro.errors import InputError, StageError, StoreError
from neuro.nn.objective import Objective, Phase, State
from neuro.sources import Source, count_rows

Log = list[dict[str, float]]

_CHECKPOINT_SHARE = 0.02  # of the time at most goes into writing checkpoints


@dataclass
class Course:
    """A training's whole state: what a checkpoint holds, and what an epoch changes.

    Attributes
    ----------
    objective : Objective
        On its device.
    source, validation : Source
    state : State
    patience : int or None
    folder : Path or None
        Of the log and the checkpoint.
    signature : dict
        JSON by which a checkpoint is known to be of this training.
    loggers : list
        Of Lightning's kind.
    """

    objective: Objective
    source: Source
    validation: Source | None
    state: State
    patience: int | None
    folder: Path | None
    signature: dict[str, Any]
    loggers: list[Any]
    phases: list[Phase] = field(init=False)
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    history: list[Log] = field(init=False)
    best: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    best_epoch: list[int] = field(init=False)
    best_value: list[float] = field(init=False)
    resumed_from: int = 0
    spent_writing: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        members = self.members
        self.phases = self.objective.phases()
        self.moved = [_parameters(self.objective, phase) for phase in self.phases]
        uneven = bool(getattr(self.source, "uneven", False))
        self.optimizers = [
            make_optimizer(parameters, phase.make, members, uneven=uneven)
            for phase, parameters in zip(self.phases, self.moved, strict=True)
        ]
        self.base_rates = [
            [group["lr"] for one in plain_optimizers(o) for group in one.param_groups]
            for o in self.optimizers
        ]
        self.history = [[] for _ in range(members)]
        self.best_epoch = [0] * members
        self.best_value = [math.inf] * members
        self.signature = {
            **self.signature,
            "phases": [phase.name for phase in self.phases],
            "steps": len(self.source),
            "tensors": {k: list(t.shape) for k, t in self.objective.state_dict().items()},
        }

    @property
    def members(self) -> int:
        """Models trained side by side."""
        return self.objective.members

    @property
    def over(self) -> bool:
        """Whether there is no epoch left to do."""
        return self.state.epoch >= self.state.max_epochs or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether every member has waited long enough for a better epoch."""
        return all(self._waited(member, self.state.epoch) for member in range(self.members))

    def _waited(self, member: int, epoch: int) -> bool:
        best = self.best_epoch[member]
        return self.patience is not None and 0 < best <= epoch - self.patience

    def end_epoch(self, rows: list[dict[str, float]]) -> None:
        """Log an epoch, keep the best weights, write the checkpoint."""
        self.state.epoch += 1
        self._refuse_nan(rows)
        for history, row in zip(self.history, rows, strict=True):
            history.append({"epoch": self.state.epoch, **row})
        self._keep_best(rows)
        for logger in self.loggers:
            logger.log_metrics(_flat(rows), step=self.state.epoch)
        if self.folder is not None:
            _write_csv(self.folder, self.history)
            self._checkpoint(self.folder)

    def _keep_best(self, rows: list[dict[str, float]]) -> None:
        if self.patience is None:
            self.best_epoch = [self.state.epoch] * self.members
            return
        name = self.objective.monitor
        watched = f"val_{name}" if self.validation is not None else name
        state = self.objective.state_dict()
        for member, row in enumerate(rows):
            stopped = self._waited(member, self.state.epoch - 1)
            if row[watched] < self.best_value[member] and not stopped:
                self.best_value[member] = row[watched]
                self.best_epoch[member] = self.state.epoch
                mine = member_state(state, member, self.members)
                self.best[member] = {k: t.detach().clone() for k, t in mine.items()}

    def take_best(self) -> None:
        """Put the best epoch's weights into the objective; cut what came after a member's stop."""
        state = self.objective.state_dict()
        with torch.no_grad():
            for member, best in self.best.items():
                for name, tensor in member_state(state, member, self.members).items():
                    tensor.copy_(best[name])
        if self.patience is not None:
            for member, history in enumerate(self.history):
                del history[self.best_epoch[member] + self.patience :]

    def _refuse_nan(self, rows: list[dict[str, float]]) -> None:
        for member, row in enumerate(rows):
            if self._waited(member, self.state.epoch - 1):
                continue  # it has its best weights already
            bad = {name: value for name, value in row.items() if not math.isfinite(value)}
            if not bad:
                continue
            last = self.history[member][-1:] or [{}]
            which = f" of member {member}" if self.members > 1 else ""
            rates = sorted({rate for group in self.base_rates for rate in group})
            raise StageError(
                f"training{which} diverged in epoch {self.state.epoch}: "
                + ", ".join(f"{name} is {value}" for name, value in bad.items())
                + f". Last good values: {last[0] or 'none, this was the first epoch'}. Try a lower "
                f"learning rate (now {', '.join(f'{r:g}' for r in rates)}), precision '32', or "
                "look for extreme values in the data"
            )

    def _checkpoint(self, folder: Path) -> None:
        # Every epoch, except where epochs are so short that writing would cost more than they do.
        spent, allowed = self.spent_writing, time.monotonic() - self.started
        last = self.over
        if spent > _CHECKPOINT_SHARE * allowed and not last and self.state.epoch > 1:
            return
        began = time.monotonic()
        tensors = {f"model/{k}": t for k, t in self.objective.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizers)
        tensors |= {f"rng/{m}": g.get_state() for m, g in enumerate(self.state.generators)}
        tensors["global_rng/cpu"] = torch.get_rng_state()
        if self.state.generators[0].device.type == "cuda":
            tensors["global_rng/cuda"] = torch.cuda.get_rng_state(self.state.generators[0].device)
        for member, best in self.best.items():
            tensors |= {f"best/{member}/{k}": t for k, t in best.items()}
        write_checkpoint(
            folder,
            tensors,
            {
                "signature": self.signature,
                "epoch": self.state.epoch,
                "step": self.state.step,
                "history": self.history,
                "best_epoch": self.best_epoch,
                "best_value": self.best_value,
            },
        )
        self.spent_writing += time.monotonic() - began

    def restore(self) -> None:
        """Continue from the folder's checkpoint, where it has one of this training."""
        if self.folder is None:
            return
        _make_folder(self.folder)
        found = read_checkpoint(self.folder, self.signature)
        if found is None:
            return
        tensors, stored = found
        self.objective.load_state_dict(part(tensors, "model"))
        load_optimizers(self.optimizers, tensors)
        for member, generator in enumerate(self.state.generators):
            generator.set_state(tensors[f"rng/{member}"])
        torch.set_rng_state(tensors["global_rng/cpu"])
        if "global_rng/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["global_rng/cuda"])
        for member in range(self.members):
            best = part(tensors, f"best/{member}")
            if best:
                self.best[member] = best
        self.history, self.best_value = stored["history"], stored["best_value"]
        self.best_epoch = stored["best_epoch"]
        self.state.epoch = self.resumed_from = stored["epoch"]
        self.state.step = stored["step"]


class Sums:
    """Means of losses over an epoch, without waiting for the device in every step.

    Parameters
    ----------
    members : int
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self.waiting: dict[str, list[tuple[Tensor, Any]]] = {}
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(
        self, prefix: str, losses: dict[str, Tensor], batch: dict[str, Any], rows: list[int] | None
    ) -> None:
        """Remember the losses of one batch; they are means over its rows."""
        count: Any = rows or (_batch_rows(batch, self.members))
        for name, value in losses.items():
            self.waiting.setdefault(prefix + name, []).append((value.detach(), count))

    def flush(self) -> None:
        """Add up what was remembered."""
        for name, entries in self.waiting.items():
            values = torch.stack([value.double().expand(self.members) for value, _ in entries])
            counts = torch.tensor([_spread(c, self.members) for _, c in entries]).to(values)
            self.totals[name] = self.totals.get(name, 0) + (values * counts).sum(0)
            self.counts[name] = self.counts.get(name, 0) + counts.sum(0)
        self.waiting = {}

    def means(self) -> list[dict[str, float]]:
        """Return the means, one dict per member."""
        self.flush()
        means = {n: (self.totals[n] / self.counts[n]).tolist() for n in self.totals}
        return [
            {n: values[member] for n, values in means.items()} for member in range(self.members)
        ]


def _batch_rows(batch: dict[str, Any], members: int) -> int:
    """Return the rows of a batch of one model or of a stack."""
    first = next(iter(batch.values()))
    return count_rows(batch) if members == 1 or isinstance(first, dict) else first.shape[1]


def _spread(count: int | list[int], members: int) -> list[int]:
    return count if isinstance(count, list) else [count] * members


def _parameters(objective: Objective, phase: Phase) -> list[torch.nn.Parameter]:
    named = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    if phase.parameters:
        named = [(name, p) for name, p in named if name.startswith(phase.parameters)]
    if not named:
        known = sorted({name.split(".")[0] for name, _ in objective.named_parameters()})
        raise InputError(
            f"phase '{phase.name}' moves no parameter: {phase.parameters or 'all'} of {known}"
        )
    return [p for _, p in named]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: can't write here ({error})") from error


def _flat(rows: list[dict[str, float]]) -> dict[str, float]:
    if len(rows) == 1:
        return rows[0]
    return {f"{name}/{m}": value for m, row in enumerate(rows) for name, value in row.items()}


def _write_csv(folder: Path, history: list[Log]) -> None:
    """Write ``history.csv`` anew, so that a continued training has every epoch once."""
    rows: Log = list(history[0])
    if len(history) > 1:
        rows = [{"member": m, **row} for m, log in enumerate(history) for row in log]
    temporary = folder / f".history.csv.{os.getpid()}"
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, folder / "history.csv")
