"""Pool the scores of several simulated worlds: intervals over worlds, and devices inside each.

Every seed draws its own devices, content and channels, and trains its own models. A bootstrap
sample draws seeds, and for each seed drawn, devices of it anew; all models share what was drawn,
so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuro.errors import InputError
from neuro.validation import Estimate, summarise
from timeseries.rf.evaluate import Scores, compare

__all__ = ["members_by_seed", "pool_probes", "pool_samples", "pool_scores"]

Floats = NDArray[np.float64]


def pool_scores(
    scores: Sequence[Scores], references: Mapping[str, Sequence[str]], random_state: int = 0
) -> Scores:
    """Average scores over seeds.

    Parameters
    ----------
    scores : sequence of Scores
        Of one seed each, with equally many bootstrap samples.
    references : mapping of str to sequence of str
        To which other models each is compared, beside ``ml_rff``.
    random_state : int
        Of which seeds are drawn.

    Returns
    -------
    Scores
        ``estimates``, ``samples`` and ``differences``, whose unit is the seed.

    Raises
    ------
    InputError
        Where there are fewer than two seeds, or they were not scored alike.
    """
    if len(scores) < 2:
        raise InputError(f"{len(scores)} seed can't be pooled; sweep over two or more")
    names = list(scores[0].estimates)
    for number, one in enumerate(scores):
        if list(one.estimates) != names:
            other = sorted(set(names) ^ set(one.estimates))
            raise InputError(
                f"seeds were not scored alike: {', '.join(other[:3])} ... is missing in one of "
                f"the members 1 and {number + 1}; train the same models on every seed"
            )
    out = Scores()
    for name in names:
        values = [one.estimates[name].value for one in scores]
        samples = pool_samples([one.samples[name] for one in scores], random_state)
        out.add(
            name, float(np.mean(np.array(values, float))), samples, len(scores),
            scores[0].estimates[name].chance or 0.0, "seed",
        )  # fmt: skip
    keys = [name.split(".") for name in names if name.startswith("open.")]
    models = list(dict.fromkeys(key[4] for key in keys))
    for test in dict.fromkeys(".".join(key[1:4]) for key in keys):
        compare(out, test, models, references, "seed")
    return out


def pool_samples(samples: Sequence[Floats], random_state: int = 0) -> Floats:
    """Draw seeds, and for each a bootstrap sample of its devices; return the means.

    Parameters
    ----------
    samples : sequence of ndarray, shape (n_boot,)
        Of each seed, over its devices.
    random_state : int

    Returns
    -------
    ndarray, shape (n_boot,)
        A seed that is drawn twice enters with two samples of its devices.

    Examples
    --------
    >>> np.ptp(pool_samples([np.full(100, 1.0), np.full(100, 3.0)])) == 2
    True
    """
    table = np.stack(samples)
    n, n_boot = table.shape
    rng = np.random.default_rng([random_state, n])
    seed = rng.integers(n, size=(n, n_boot))
    drawn = rng.permuted(np.tile(np.arange(n_boot), (n, 1)), axis=1)
    return np.asarray(np.nanmean(table[seed, drawn], axis=0), float)


def pool_probes(tables: Sequence[pd.DataFrame], random_state: int = 0) -> dict[str, Estimate]:
    """Average the probes of several seeds, with intervals over seeds."""
    every = pd.concat(tables)
    return {
        str(measure): summarise(
            rows["value"], n_unit="seed", chance=float(rows["chance"].iloc[0]),
            random_state=random_state,
        )
        for measure, rows in every.groupby("measure", sort=False)
    }  # fmt: skip


def members_by_seed(
    bursts: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]
) -> list[list[int]]:
    """Find the models of each burst dataset by the parameters that both were swept over.

    Parameters
    ----------
    bursts, models : sequence of mapping
        The swept parameters of every member.

    Returns
    -------
    list of list of int
        For each dataset the places of its models.

    Raises
    ------
    InputError
        Where a dataset has no model, or a model belongs to several.

    Examples
    --------
    >>> swept = [{"seed": s, "disentangle": d} for s in (0, 1) for d in (False, True)]
    >>> members_by_seed([{"seed": 0}, {"seed": 1}], swept)
    [[0, 1], [2, 3]]
    """
    found = [
        [k for k, own in enumerate(models) if all(own.get(n) == v for n, v in label.items())]
        for label in bursts
    ]
    for label, own in zip(bursts, found, strict=True):
        if not own:
            raise InputError(
                f"no model was trained on the bursts with {dict(label)}; write each: ${{bursts}} "
                "at the stages that train"
            )
    if sum(map(len, found)) > len(models):
        raise InputError("sweep the bursts over seeds: it isn't clear which models are whose")
    return found
