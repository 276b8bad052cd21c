"""What a model gives to training: its losses, its optimisers, and nothing of how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

MakeOptimizer = Callable[[Iterable[nn.Parameter], int], torch.optim.Optimizer]


@dataclass
class Phase:
    """One optimiser's turn on every batch.

    Attributes
    ----------
    name : str
        Told to `Objective.step`.
    make : callable
        ``make(parameters, member)`` returns a `torch.optim.Optimizer`.
    parameters : tuple of str
        Prefixes of the names of the parameters it moves; all others are frozen in this turn.
        Empty: all that require gradients.
    times : int
        Steps on each batch.
    clip_norm : float, optional
        Largest norm of the gradient.
    schedule : callable, optional
        ``schedule(fraction)`` multiplies the learning rate; the fraction of all steps done is
        between 0 and 1.
    """

    name: str
    make: MakeOptimizer
    parameters: tuple[str, ...] = ()
    times: int = 1
    clip_norm: float | None = None
    schedule: Callable[[float], float] | None = None


@dataclass
class State:
    """Where training stands, and its random numbers.

    Attributes
    ----------
    epoch, max_epochs : int
        The epoch counts from 0.
    step : int
        Batches seen since training began.
    phase : str
        The optimiser whose turn it is.
    training : bool
        False while a validation loss is computed.
    generators : list of torch.Generator
        One per member.
    rows : list of int, optional
        Rows of each member in this batch, where they differ.
    """

    max_epochs: int
    generators: list[torch.Generator] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    phase: str = ""
    training: bool = True
    rows: list[int] | None = None

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw standard normal noise, each member from its own generator.

        Parameters
        ----------
        shape : tuple of int
            ``(member, batch, ...)``.
        like : Tensor
            Gives dtype and device.

        Returns
        -------
        Tensor
            The numbers that the member would draw if it were trained alone.
        """
        noise = torch.zeros if self.rows else torch.empty
        out = noise(shape, dtype=like.dtype, device=like.device)
        for member, generator in enumerate(self.generators):
            rows = self.rows[member] if self.rows else shape[1]
            if rows:
                out[member, :rows].normal_(generator=generator)
        return out


class Objective(nn.Module):
    """A model with its losses; it knows nothing of Lightning, files or estimators.

    Subclasses write `phases` and `step`. Where `stackable`, every parameter and buffer has a
    leading axis ``member`` and `step` returns losses of shape ``(member,)``, so that several
    models are trained at once by joining their parameters; all random numbers must then come
    from `State.normal`. Other objectives may use PyTorch's generator (dropout): training seeds
    it, stores it in checkpoints, and gives the caller's state back.

    Attributes
    ----------
    members : int
        Models held side by side.
    each : list of Objective
        The models that were joined, where it is a stack.
    monitor : str
        The loss that early stopping watches.
    """

    stackable: ClassVar[bool] = False
    members: int = 1
    each: list[Any] | tuple[()] = ()
    monitor: str = "loss"

    def phases(self) -> list[Phase]:
        """Return the optimisers in the order of their turns."""
        raise NotImplementedError

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Parameters
        ----------
        batch : dict
            Of tensors; with several named sources, of such dicts by name. For a stack
            ``(member, batch, ...)``, and where members have unequal rows a ``weight
            (member, batch)`` of ones and zeros.
        state : State

        Returns
        -------
        dict of str to Tensor
            ``loss`` is minimised, the others are logged. Shape () or ``(member,)``.
        """
        raise NotImplementedError

    def prefers_stack(self, device: torch.device, batch_size: int) -> bool:
        """Say whether training its members at once is faster than one after another."""
        return self.stackable

    def compile_networks(self) -> None:
        """Compile what is worth it with `torch.compile`; by default every child module."""
        for child in self.children():
            child.compile()

    def signature(self) -> dict[str, Any]:
        """Return the hyper-parameters (JSON) by which a checkpoint is known to be this one's."""
        return {}
