"""Several models side by side: their parameters joined along a leading axis ``member``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuro.errors import InputError
from neuro.nn.objective import MakeOptimizer, Objective

O = TypeVar("O", bound=Objective)  # noqa: E741


def stack(objectives: Sequence[O]) -> O:
    """Join objectives of one class and one shape into one of many members.

    Parameters
    ----------
    objectives : sequence of Objective
        `stackable`; they may differ in the values of parameters and buffers, and in what their
        optimisers are made with.

    Returns
    -------
    Objective
        Its losses have shape ``(member,)``; the given objectives are left as they are.

    Raises
    ------
    InputError
        Where they can't be joined.
    """
    first = objectives[0]
    states = [objective.state_dict(keep_vars=False) for objective in objectives]
    if any(type(o) is not type(first) or not o.stackable for o in objectives) or any(
        _shapes(state) != _shapes(states[0]) for state in states
    ):
        raise InputError(
            "only stackable objectives of one class and one network size can be trained at once; "
            "found " + ", ".join(sorted({type(o).__name__ for o in objectives}))
        )
    joined = copy.deepcopy(first)
    _replace(joined, {name: torch.cat([s[name] for s in states]) for name in states[0]})
    joined.members = sum(objective.members for objective in objectives)
    joined.each = list(objectives)
    return joined


def unstack(joined: Objective, objectives: Sequence[Objective]) -> None:
    """Copy the members' parameters and buffers back into the objectives that were joined."""
    state = joined.state_dict()
    for member, objective in enumerate(objectives):
        part = {name: tensor[member : member + 1] for name, tensor in state.items()}
        objective.load_state_dict(part)


class MemberOptimizer(torch.optim.Optimizer):
    """One optimiser per member on views of the joined parameters, stepped together.

    Members may have different learning rates, and one whose epoch is over stands still: its
    moments and step count are those of training it alone.

    Parameters
    ----------
    parameters : list of Parameter, shape (member, ...)
    make : callable
        As in `Phase`.
    members : int
    """

    def __init__(self, parameters: list[nn.Parameter], make: MakeOptimizer, members: int) -> None:
        self.joined = parameters
        self.views = [[nn.Parameter(p.detach()[m]) for p in parameters] for m in range(members)]
        self.inner = [make(views, member) for member, views in enumerate(self.views)]
        self.active: list[bool] | None = None
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every active member."""
        result = closure() if closure is not None else None
        for member, optimizer in enumerate(self.inner):
            if self.active is not None and not self.active[member]:
                continue
            for view, joined in zip(self.views[member], self.joined, strict=True):
                view.grad = None if joined.grad is None else joined.grad[member]
            optimizer.step()
        return result


def make_optimizer(
    parameters: list[nn.Parameter], make: MakeOptimizer, members: int, *, uneven: bool
) -> torch.optim.Optimizer:
    """Make one optimiser for all members where that is the same thing, else one for each."""
    if members == 1:
        return make(parameters, 0)
    settings = [make(parameters, member).defaults for member in range(members)]
    if not uneven and all(setting == settings[0] for setting in settings):
        return make(parameters, 0)
    return MemberOptimizer(parameters, make, members)


def plain_optimizers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Return the optimisers that hold the state: the members', or the one itself."""
    return optimizer.inner if isinstance(optimizer, MemberOptimizer) else [optimizer]


def member_state(state: dict[str, Tensor], member: int, members: int) -> dict[str, Tensor]:
    """Return views of one member's part of a state."""
    return state if members == 1 else {name: t[member] for name, t in state.items()}


def _shapes(state: dict[str, Tensor]) -> dict[str, Any]:
    return {name: (tuple(t.shape), t.dtype) for name, t in state.items()}


def _replace(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if leaf in owner._parameters:
            old = owner._parameters[leaf]
            grad = old is not None and old.requires_grad
            setattr(owner, leaf, nn.Parameter(tensor.clone(), requires_grad=grad))
        else:
            setattr(owner, leaf, tensor.clone())
