"""Training: the one place that knows Lightning.

An `Objective` brings its losses and optimisers, `Batches` bring the data; `train` runs them on
any device and precision, writes a log and a checkpoint per epoch, stops early and continues
after a kill. `train_together` trains several models at once where that is faster.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from neuro.checkpoint import (
    load_optimizers,
    optimizer_tensors,
    part,
    read_checkpoint,
    write_checkpoint,
)
from neuro.device import device_of
from neuro.ensemble import (
    MemberOptimizer,
    make_optimizer,
    member_state,
    plain_optimizers,
    stack,
    unstack,
)
from neuro.errors import InputError, StageError
from neuro.nn.objective import Objective, Phase, State
from neuro.sources import Members, Source, Together, count_rows

__all__ = ["Objective", "Phase", "Result", "State", "device_of", "train", "train_together"]

Progress = Callable[..., Iterator[Any]]
Log = list[dict[str, float]]

_WINDOW = 16  # batches per Lightning step: its bookkeeping costs as much as a small network's step
# "64" leaves the numbers to the objective, which is in double precision itself.
_PRECISIONS = {"32": "32-true", "64": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}
_CHECKPOINT_SHARE = 0.05  # of the time at most goes into writing checkpoints


@dataclass
class Result:
    """What training leaves beside the trained objective.

    Attributes
    ----------
    history : list of list of dict
        Per member, one row per epoch: ``epoch`` (from 1) and the mean of every loss, those of
        the validation data as ``val_...``.
    best_epoch : list of int
        Per member, the epoch whose weights were kept: the last one, or with `patience` the best.
    resumed_from : int
        Epochs that were already done in the folder.
    """

    history: list[Log]
    best_epoch: list[int]
    resumed_from: int = 0


def train(
    objective: Objective,
    batches: Source | Mapping[str, Source],
    *,
    max_epochs: int,
    seed: int | Sequence[int] = 0,
    validation: Source | Mapping[str, Source] | None = None,
    patience: int | None = None,
    folder: str | Path | None = None,
    precision: str = "32",
    device: str | torch.device = "auto",
    compile: bool = False,
    deterministic: bool = True,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train an objective in place.

    Parameters
    ----------
    objective : Objective
    batches : Source or dict of Source
        Several named sources are cycled to the longest, see `Together`.
    max_epochs : int
    seed : int or sequence of int
        One per member. All random numbers follow from it; the caller's are left alone.
    validation : Source or dict of Source, optional
        Its losses are logged as ``val_...`` and watched by `patience`.
    patience : int, optional
        Stop after so many epochs without a better ``val_loss`` (``loss`` without validation),
        and take the best epoch's weights. Each member of a stack stops by itself.
    folder : path, optional
        ``history.csv`` and a checkpoint go here; a killed training continues from it.
    precision : {"32", "64", "bf16-mixed", "16-mixed"}
        ``"64"`` where objective and batches are in double precision.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    compile : bool
        Compile the networks with `torch.compile`.
    deterministic : bool
        Take cuDNN's deterministic algorithms.
    tensorboard : bool
        Log for TensorBoard too (the extra ``tensorboard``).
    progress : callable, optional
        ``progress(iterable, label, total)`` iterates with a bar, as `Context.progress`.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        Where a setting is wrong or there is nothing to train on.
    StageError
        Where the loss is no longer a number.
    """
    target = device if isinstance(device, torch.device) else device_of(device)
    seeds = [seed] * objective.members if isinstance(seed, int) else [int(s) for s in seed]
    _check(max_epochs, precision, patience, seeds, objective, target)
    run = _Run(
        objective=objective.to(target),
        source=_source(batches),
        validation=None if validation is None else _source(validation),
        state=State(max_epochs, [torch.Generator(target).manual_seed(s) for s in seeds]),
        patience=patience,
        folder=None if folder is None else Path(folder),
        signature={"seeds": seeds, "model": objective.signature()},
        loggers=_loggers(folder, tensorboard),
    )
    with _own_random_numbers(target, seeds[0]), _quiet(), _cudnn(deterministic):
        if compile:
            objective.compile_networks()
        run.restore()
        if not run.over:
            _fit(run, target, precision, progress)
        run.take_best()
    return Result(run.history, run.best_epoch, run.resumed_from)


def train_together(
    objectives: Sequence[Objective],
    batches: Sequence[Source],
    *,
    seeds: Sequence[int],
    batch_size: int,
    validation: Sequence[Source] | None = None,
    folder: str | Path | None = None,
    strategy: str = "auto",
    device: str | torch.device = "auto",
    **options: Any,
) -> list[Result]:
    """Train several objectives, at once where that is faster; the results are the same.

    Parameters
    ----------
    objectives, batches, seeds : sequences of equal length
        The members, each with its own data and seed.
    batch_size : int
        For the choice of the strategy.
    validation : sequence of Source, optional
    folder : path, optional
        As in `train`; members get folders of their own where they are trained one by one.
    strategy : {"auto", "stacked", "loop"}
        ``"auto"`` follows `Objective.prefers_stack`.
    device : str
    **options
        Of `train`.

    Returns
    -------
    list of Result
    """
    if not len(objectives) == len(batches) == len(seeds):
        raise InputError("every member needs an objective, a source of batches and a seed")
    if strategy not in ("auto", "stacked", "loop"):
        raise InputError(f"strategy '{strategy}' is none of auto, stacked, loop")
    target = device if isinstance(device, torch.device) else device_of(device)
    first = objectives[0]
    at_once = strategy == "stacked" or (
        strategy == "auto" and len(objectives) > 1 and first.prefers_stack(target, batch_size)
    )
    if not at_once:
        return [
            train(
                objective,
                batches[m],
                seed=seeds[m],
                validation=validation[m] if validation else None,
                folder=None if folder is None else Path(folder) / f"member-{m}",
                device=target,
                **options,
            )
            for m, objective in enumerate(objectives)
        ]
    joined = stack(objectives)
    result = train(
        joined,
        Members(batches),
        seed=seeds,
        validation=Members(validation) if validation else None,
        folder=folder,
        device=target,
        **options,
    )
    unstack(joined.cpu(), [objective.cpu() for objective in objectives])
    return [
        Result([history], [best], result.resumed_from)
        for history, best in zip(result.history, result.best_epoch, strict=True)
    ]


@dataclass
class _Run:
    """A training's whole state: what a checkpoint holds, and what an epoch changes."""

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
        return self.objective.members

    @property
    def over(self) -> bool:
        return self.state.epoch >= self.state.max_epochs or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether every member has waited long enough for a better epoch."""
        done = self.state.epoch
        return self.patience is not None and all(
            0 < epoch <= done - self.patience for epoch in self.best_epoch
        )

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
            waited = self.state.epoch - self.best_epoch[member] > self.patience
            if row[watched] < self.best_value[member] and not (self.best_epoch[member] and waited):
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


class _Module(pl.LightningModule):
    """The thin layer between a `_Run` and Lightning's loop."""

    def __init__(self, run: _Run, progress: Progress | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = run.objective
        self.run = run
        self.progress = progress
        self.bar: Iterator[Any] | None = None
        self.total_steps = max(1, run.state.max_epochs * len(run.source))

    def configure_optimizers(self) -> Any:
        return self.run.optimizers

    def train_dataloader(self) -> Any:
        n = len(self.run.source)
        return [min(_WINDOW, n - start) for start in range(0, n, _WINDOW)]

    def on_train_start(self) -> None:
        state = self.run.state
        if self.progress is not None:
            epochs = range(state.epoch, state.max_epochs)
            self.bar = iter(self.progress(epochs, "training", len(epochs)))

    def on_train_epoch_start(self) -> None:
        if self.bar is not None:
            next(self.bar, None)
        self.run.source.set_epoch(self.run.state.epoch)
        self.stream = iter(self.run.source)
        self.sums = _Sums(self.run.members)
        self.objective.train()

    def training_step(self, n_batches: int, index: int) -> None:
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for batch in itertools.islice(self.stream, n_batches):
            self.run.state.rows = getattr(self.run.source, "rows", None)
            self._turns(batch, optimizers)
            self.run.state.step += 1
        self.sums.flush()

    def _turns(self, batch: dict[str, Any], optimizers: list[Any]) -> None:
        run, state = self.run, self.run.state
        alone = len(run.phases) == 1
        for number, (phase, optimizer) in enumerate(zip(run.phases, optimizers, strict=True)):
            state.phase = phase.name
            with contextlib.nullcontext() if alone else _only(self.objective, run.moved[number]):
                for _ in range(phase.times):
                    losses = self.objective.step(batch, state)
                    optimizer.zero_grad(set_to_none=True)
                    self.manual_backward(losses["loss"].sum())
                    self._move(phase, optimizer, number)
            self.sums.add("" if alone else f"{phase.name}_", losses, batch, state.rows)

    def _move(self, phase: Phase, optimizer: Any, number: int) -> None:
        run = self.run
        if phase.clip_norm is not None:
            _clip(run.moved[number], phase.clip_norm, run.members)
        if phase.schedule is not None:
            factor = phase.schedule(run.state.step / self.total_steps)
            _set_rates(run.optimizers[number], run.base_rates[number], factor)
        plain = run.optimizers[number]
        if isinstance(plain, MemberOptimizer):
            rows = run.state.rows
            plain.active = None if rows is None else [r > 0 for r in rows]
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        rows = self.sums.means()
        if self.run.validation is not None:
            for row, extra in zip(rows, self._validate(self.run.validation), strict=True):
                row.update({f"val_{name}": value for name, value in extra.items()})
        self.run.end_epoch(rows)
        if self.run.over:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        if self.bar is not None:
            next(self.bar, None)  # lets a full bar end itself
            close = getattr(self.bar, "close", None)
            if close is not None:
                close()

    def _validate(self, source: Source) -> list[dict[str, float]]:
        state = self.run.state
        sums = _Sums(self.run.members)
        self.objective.eval()
        state.training = False
        source.set_epoch(0)
        try:
            with torch.no_grad(), self.trainer.precision_plugin.val_step_context():
                for batch in source:
                    state.rows = getattr(source, "rows", None)
                    sums.add("", self.objective.step(batch, state), batch, state.rows)
        finally:
            state.training = True
        return sums.means()


class _Sums:
    """Means of losses over an epoch, without waiting for the device in every step."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.waiting: dict[str, list[tuple[Tensor, Any]]] = {}
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(
        self, prefix: str, losses: dict[str, Tensor], batch: dict[str, Any], rows: list[int] | None
    ) -> None:
        """Remember the losses of one batch; they are means over its rows."""
        count: Any = rows or (batch_rows(batch, self.members))
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


def batch_rows(batch: dict[str, Any], members: int) -> int:
    """Return the rows of a batch of one model or of a stack."""
    first = next(iter(batch.values()))
    return count_rows(batch) if members == 1 or isinstance(first, dict) else first.shape[1]


def _spread(count: int | list[int], members: int) -> list[int]:
    return count if isinstance(count, list) else [count] * members


def _fit(run: _Run, device: torch.device, precision: str, progress: Progress | None) -> None:
    module = _Module(run, progress)
    trainer = pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if device.index is not None else 1,
        precision=_PRECISIONS[precision],  # type: ignore[arg-type]
        max_epochs=run.state.max_epochs - run.state.epoch,
        default_root_dir=run.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    with _interrupts():
        trainer.fit(module)
    run.objective.eval()


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt: Lightning turns it into an exit and mutes the signal."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Seed PyTorch's generators for the training, and give the caller's state back."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about loops that are meant to be as they are."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        logger.setLevel(level)


def _cudnn(deterministic: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=deterministic)


@contextlib.contextmanager
def _only(objective: Objective, moved: list[torch.nn.Parameter]) -> Iterator[None]:
    """Freeze every parameter but those of a phase."""
    keep = {id(p) for p in moved}
    frozen = [p for p in objective.parameters() if p.requires_grad and id(p) not in keep]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


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


def _clip(parameters: list[torch.nn.Parameter], limit: float, members: int) -> None:
    grads = [p.grad for p in parameters if p.grad is not None]
    if members == 1:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        return
    # Every member has a norm of its own, or one would slow the others.
    norms = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    factor = (limit / (norms + 1e-6)).clamp(max=1)
    for grad in grads:
        grad.mul_(factor.reshape(-1, *[1] * (grad.ndim - 1)))


def _set_rates(optimizer: torch.optim.Optimizer, base: list[float], factor: float) -> None:
    groups = [group for one in plain_optimizers(optimizer) for group in one.param_groups]
    for group, rate in zip(groups, base, strict=True):
        group["lr"] = rate * factor


def _source(batches: Source | Mapping[str, Source]) -> Source:
    source = Together(batches) if isinstance(batches, Mapping) else batches
    if len(source) == 0:
        raise InputError("there is no batch to train on: too few trials for the batch size")
    return source


def _check(
    max_epochs: int,
    precision: str,
    patience: int | None,
    seeds: list[int],
    objective: Objective,
    device: torch.device,
) -> None:
    if max_epochs < 0:
        raise InputError(f"max_epochs is {max_epochs}; expected 0 or more")
    if precision not in _PRECISIONS:
        raise InputError(f"precision '{precision}' is none of {', '.join(_PRECISIONS)}")
    if precision == "16-mixed" and device.type == "cpu":
        raise InputError("precision '16-mixed' needs a GPU; use '32' or 'bf16-mixed' on a CPU")
    if patience is not None and patience < 1:
        raise InputError(f"patience is {patience}; expected at least 1, or None")
    if len(seeds) != objective.members:
        raise InputError(f"{len(seeds)} seeds for {objective.members} members")


def _loggers(folder: str | Path | None, tensorboard: bool) -> list[Any]:
    if not tensorboard:
        return []
    if folder is None:
        raise InputError("tensorboard=True needs a folder to log to")
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        return [TensorBoardLogger(folder, name="tensorboard", version="")]
    except ModuleNotFoundError as error:
        raise InputError('TensorBoard is missing: pip install "tensorboard"') from error


def _make_folder(folder: Path) -> None:
    from neuro.errors import StoreError

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
    rows: Iterable[dict[str, Any]] = (
        history[0]
        if len(history) == 1
        else [{"member": m, **row} for m, log in enumerate(history) for row in log]
    )
    rows = list(rows)
    temporary = folder / f".history.csv.{os.getpid()}"
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, folder / "history.csv")
