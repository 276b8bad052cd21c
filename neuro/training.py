"""Training: the one place that knows Lightning.

An `Objective` brings its losses and optimisers, `Batches` bring the data; `train` runs them on
any device and precision, writes a log and a checkpoint per epoch, stops early and continues
after a kill. `train_together` trains several models at once where that is faster.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from neuro.course import Course, Log, Sums
from neuro.device import device_of
from neuro.ensemble import (
    MemberOptimizer,
    plain_optimizers,
    stack,
    unstack,
)
from neuro.errors import InputError
from neuro.nn.objective import Objective, Phase, State
from neuro.sources import Members, Source, Together

__all__ = ["Objective", "Phase", "Result", "State", "device_of", "train", "train_together"]

Progress = Callable[..., Iterator[Any]]
Bar = Callable[[range], Iterator[int]]

_WINDOW = 16  # batches per Lightning step: its bookkeeping costs as much as a small network's step
# "64" leaves the numbers to the objective, which is in double precision itself.
_PRECISIONS = {"32": "32-true", "64": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}


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
    label: str = "training",
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
    label : str
        For the bar.

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
    run = Course(
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
            _fit(run, target, precision, None if progress is None else _bar(progress, label))
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
                label=f"training {m + 1} of {len(objectives)}"
                if m or objectives[1:]
                else "training",
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
        label=f"training {len(objectives)} at once",
        **options,
    )
    unstack(joined.cpu(), [objective.cpu() for objective in objectives])
    return [
        Result([history], [best], result.resumed_from)
        for history, best in zip(result.history, result.best_epoch, strict=True)
    ]


class _Module(pl.LightningModule):
    """The thin layer between a `Course` and Lightning's loop."""

    def __init__(self, run: Course, start_bar: Bar | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = run.objective
        self.run = run
        self.start_bar = start_bar
        self.bar: Iterator[Any] | None = None
        self.total_steps = max(1, run.state.max_epochs * len(run.source))

    def configure_optimizers(self) -> Any:
        return self.run.optimizers

    def train_dataloader(self) -> Any:
        n = len(self.run.source)
        return [min(_WINDOW, n - start) for start in range(0, n, _WINDOW)]

    def on_train_start(self) -> None:
        state = self.run.state
        if self.start_bar is not None:
            self.bar = self.start_bar(range(state.epoch, state.max_epochs))

    def on_train_epoch_start(self) -> None:
        if self.bar is not None:
            next(self.bar, None)
        self.run.source.set_epoch(self.run.state.epoch)
        self.stream = iter(self.run.source)
        self.sums = Sums(self.run.members)
        self.objective.train()

    def training_step(self, n_batches: int, index: int) -> None:
        optimizers = self._steppers()
        for batch in itertools.islice(self.stream, n_batches):
            self.run.state.rows = getattr(self.run.source, "rows", None)
            self._turns(batch, optimizers)
            self.run.state.step += 1
        self.sums.flush()

    def _steppers(self) -> list[Any]:
        """Return the optimisers: Lightning's wrappers where they scale or synchronise something.

        On one device in full precision they do neither, and cost 3 % of a small network's step.
        """
        self.bare = self.trainer.world_size == 1 and self.trainer.precision == "32-true"
        if self.bare:
            return self.run.optimizers
        wrapped = self.optimizers(use_pl_optimizer=True)
        return wrapped if isinstance(wrapped, list) else [wrapped]

    def _turns(self, batch: dict[str, Any], optimizers: list[Any]) -> None:
        run, state = self.run, self.run.state
        alone = len(run.phases) == 1
        for number, (phase, optimizer) in enumerate(zip(run.phases, optimizers, strict=True)):
            state.phase = phase.name
            with contextlib.nullcontext() if alone else _only(self.objective, run.moved[number]):
                for _ in range(phase.times):
                    losses = self.objective.step(batch, state)
                    for parameter in run.moved[number]:
                        parameter.grad = None
                    loss = losses["loss"].sum()
                    loss.backward() if self.bare else self.manual_backward(loss)
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
        sums = Sums(self.run.members)
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


def _fit(run: Course, device: torch.device, precision: str, bar: Bar | None) -> None:
    module = _Module(run, bar)
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


def _bar(progress: Progress, label: str) -> Bar:
    return lambda epochs: iter(progress(epochs, label, len(epochs)))


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt: Lightning turns it into an exit and mutes the signal."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise  # a SIGTERM stays what it is
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
    if precision == "16-mixed" and any(p.clip_norm is not None for p in objective.phases()):
        raise InputError(
            "gradients of precision '16-mixed' are scaled and can't be clipped; use bf16"
        )
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
