"""From posteriors of trials and their labels to trained symbol networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from eeg.concepts import Concepts
from eeg.labels import refuse_contradictions
from eeg.pairs import Pairs, Recombinations, balanced_weights
from eeg.pooling import Pooling
from eeg.recombine import train_recombinator
from eeg.symbols import Symbols
from neuro.errors import DataError, InputError
from neuro.nn.scan import SCANObjective, SymbolNetwork
from neuro.training import train

if TYPE_CHECKING:
    import pandas as pd

    from eeg.scan import SCAN

Ints = NDArray[np.int64]
Subjects = NDArray[np.str_] | None
History = list[dict[str, float]]


def tie(
    scan: SCAN,
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
    table: pd.DataFrame,
    subject: Subjects,
    condition: Subjects,
    scratch: str | Path | None,
    progress: Any,
) -> tuple[Concepts, History, History]:
    """Train what SCAN learns beside its encoder.

    Parameters
    ----------
    scan : SCAN
        For its parameters.
    mean, variance : ndarray, shape (trial, latent)
        The encoder's posteriors.
    table : DataFrame
        Labels, a row per trial.
    subject, condition : ndarray of str, shape (trial,), optional
    scratch, progress
        As in `SCAN.fit`.

    Returns
    -------
    Concepts
    history, operator_history : list of dict
        Losses per epoch.
    """
    unit, rows = units(table, subject, scan.level, scan.within)
    symbols = Symbols.learn(_columns(table, subject, rows, scan.within), scan.bins)
    codes = symbols.codes(table.iloc[rows])
    weight = balanced_weights(codes) if scan.balance else np.ones(len(codes))
    kept = np.asarray(scan.encoder_.kept_)
    pooling = (
        Pooling.identity(mean.shape[1])
        if scan.level == "trial"
        else Pooling.learn(mean, variance, unit, weight, kept, condition)
    )
    pooled = pooling.pool(mean, variance, unit, condition)
    start, order, noise, operator = _seeds(scan.random_state, 4)
    source: dict[str, Any] = {
        "drop": scan.drop, "batch_size": scan.batch_size, "device": scan.device, "seed": order,
    }  # fmt: skip
    training: dict[str, Any] = {
        "max_epochs": scan.max_epochs, "device": scan.device, "progress": progress,
    }  # fmt: skip
    objective = SCANObjective(
        SymbolNetwork(len(symbols), len(pooling.mean), scan.n_hidden, start),
        beta_y=scan.beta_y,
        lam=scan.lam,
        learning_rate=scan.learning_rate,
    )
    pairs = Pairs(*pooled, codes, symbols, weight, **source)
    result = train(objective, pairs, seed=noise, folder=_folder(scratch, "scan"), **training)
    concepts = Concepts(symbols, pooling, objective.network.cpu().eval())
    history: History = []
    if scan.operators:
        triples = Recombinations(*pooled, codes, symbols, weight, **source)
        concepts.recombinator, history = train_recombinator(
            concepts.network,
            triples,
            n_hidden=scan.n_hidden_operator,
            target=scan.operator_target,
            seed=operator,
            folder=_folder(scratch, "operator"),
            learning_rate=scan.learning_rate,
            **training,
        )
        concepts.network.cpu()
    return concepts, result.history[0], history


def units(
    table: pd.DataFrame, subject: Subjects, level: str, within: Any = ()
) -> tuple[Ints, Ints]:
    """Number what is paired with a symbol: participants (by value of `within`), or trials.

    Returns
    -------
    unit : ndarray of int, shape (trial,)
    rows : ndarray of int, shape (unit,)
        The first trial of each.

    Raises
    ------
    DataError
        Where a label contradicts itself, or participants are not known.
    """
    unknown = [name for name in within if name not in table]
    if unknown:
        raise InputError(
            f"within names {', '.join(unknown)}; the labels are {', '.join(table.columns)}"
        )
    if subject is not None:
        refuse_contradictions(table, subject, within)
    if level == "trial":
        every = np.arange(len(table))
        return every, every
    if subject is None:
        raise DataError(
            "level='participant' needs to know whose the trials are: pass subject=, or "
            "level='trial'"
        )
    key = np.stack([subject, *(table[name].to_numpy().astype(str) for name in within)])
    _, first, unit = np.unique(key, axis=1, return_index=True, return_inverse=True)
    return unit.reshape(-1).astype(np.int64), first.astype(np.int64)


def _columns(table: pd.DataFrame, subject: Subjects, rows: Ints, within: Any) -> dict[str, Any]:
    """Return one value of each label per participant: who has more trials counts no more."""
    people = rows
    if subject is not None:
        people = rows[np.unique(subject[rows], return_index=True)[1]]
    return {str(name): table[name].to_numpy()[rows if name in within else people] for name in table}


def _seeds(seed: Any, n: int) -> list[int]:
    if not isinstance(seed, int | np.integer):
        seed = check_random_state(seed).randint(2**31)
    return [int(s) for s in np.random.SeedSequence(int(seed)).generate_state(n)]


def _folder(scratch: str | Path | None, name: str) -> Path | None:
    return None if scratch is None else Path(scratch) / name
