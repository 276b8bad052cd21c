"""The recombination operator of SCAN: AND, IN COMMON and IGNORE between concepts.

A concept is a posterior over the latents: narrow on what it fixes, as wide as the prior on what
it leaves open. AND fixes what either fixes, IN COMMON what both fix, IGNORE what the first fixes
and the second doesn't (Higgins et al., "SCAN", ICLR 2018, section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eeg.symbols import MISSING, Symbols
from neuro.errors import InputError
from neuro.nn.scan import OPERATORS, Recombinator, RecombinatorObjective

if TYPE_CHECKING:
    from eeg.pairs import Recombinations
    from neuro.nn.scan import SymbolNetwork

Floats = NDArray[np.float32]


def train_recombinator(
    network: SymbolNetwork,
    pairs: Recombinations,
    *,
    n_hidden: int,
    target: str,
    seed: int,
    **training: Any,
) -> tuple[Recombinator, list[dict[str, float]]]:
    """Train the operator beside a frozen SCAN.

    Parameters
    ----------
    network : SymbolNetwork
        Trained.
    pairs : Recombinations
    n_hidden : int
    target : {"symbol", "signal"}
        What the result is held against: the posterior of its symbol, or of a signal with it.
    seed : int
    **training
        Of `neuro.training.train`, and ``learning_rate``.

    Returns
    -------
    Recombinator, list of dict
        The operator and its history.
    """
    from neuro.training import train

    objective = RecombinatorObjective(
        Recombinator(n_hidden, seed),
        network,
        target=target,
        learning_rate=training.pop("learning_rate"),
    )
    result = train(objective, pairs, seed=seed, **training)
    return objective.recombinator.cpu().eval(), result.history[0]


def operator_number(name: str) -> int:
    """Number an operator by its name.

    Examples
    --------
    >>> operator_number("IN COMMON"), operator_number("in_common")
    (1, 1)
    """
    plain = str(name).strip().lower().replace("_", " ").replace("-", " ")
    if plain not in OPERATORS:
        raise InputError(f"there is no operator '{name}'; use one of {', '.join(OPERATORS)}")
    return OPERATORS.index(plain)


def refuse_contradiction(first: NDArray[Any], second: NDArray[Any], symbols: Symbols) -> None:
    """Refuse AND of two values of one label, which nobody can have.

    Parameters
    ----------
    first, second : ndarray of int, shape (label,)
    symbols : Symbols
    """
    clash = np.flatnonzero((first != MISSING) & (second != MISSING) & (first != second))
    if len(clash):
        group = symbols.groups[clash[0]]
        raise InputError(
            f"'{group.label}' can't be both '{group.values[first[clash[0]]]}' and "
            f"'{group.values[second[clash[0]]]}'; a label has one value"
        )


def recombine(
    recombinator: Recombinator,
    operator: int,
    first: tuple[Floats, Floats],
    second: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:
    """Apply a trained operator to two posteriors (mean and log variance, shape (latent,))."""
    import torch

    one, two = (
        tuple(torch.from_numpy(np.asarray(part, dtype=np.float32))[None, None] for part in pair)
        for pair in (first, second)
    )
    which = torch.eye(len(OPERATORS))[operator][None, None]
    with torch.inference_mode():
        mean, log_variance = recombinator((one[0], one[1]), (two[0], two[1]), which)
    return mean[0, 0].numpy(), log_variance[0, 0].numpy()
