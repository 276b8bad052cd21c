"""Beta-VAE, autoencoder and SCAN, fitted anew on the training participants of every fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eeg.classify import Target, label_names, usable_labels
from eeg.cohort import Floats, Ints
from neuro.validation import Fold

if TYPE_CHECKING:
    import xarray as xr

    from eeg.scan import SCAN


@dataclass
class Fitted:
    """Everything that was fitted for one set of folds.

    Parameters
    ----------
    folds : list of (train, test)
    encoders, autoencoders : list of BetaVAE
        One per fold, fitted on its training trials; there may be no autoencoders.
    codes : list of (mean, variance), each of shape (trial, latent)
        Of all trials by each fold's encoder.
    scans : list of dict of str to SCAN
        By label, one dict per fold; a label of participants is not there where the training part
        has one class of it.
    """

    folds: list[Fold]
    encoders: list[Any]
    autoencoders: list[Any]
    codes: list[tuple[Floats, Floats]] = field(default_factory=list)
    scans: list[dict[str, SCAN]] = field(default_factory=list)

    @property
    def fold_of(self) -> Ints:
        """The fold that tests each trial."""
        fold_of = np.empty(sum(len(test) for _, test in self.folds), dtype=np.intp)
        for number, (_, test) in enumerate(self.folds):
            fold_of[test] = number
        return fold_of


def class_labels(data: xr.Dataset, labels: Sequence[str] | None = None, bins: int = 3) -> Any:
    """Cut continuous labels into classes at quantiles of the participants.

    Which classes there are is part of the question, not of an answer: the edges see the labels of
    all participants, and no signal.

    Parameters
    ----------
    data : Dataset
    labels : sequence of str, optional
        By default those of the dataset.
    bins : int

    Returns
    -------
    Dataset
        A continuous label is replaced by the name of its bin, "" where it is missing.
    """
    from eeg.symbols import Symbols, is_missing

    names = label_names(data) if labels is None else labels
    first = np.unique(data["subject"].values.astype(str), return_index=True)[1]
    for name in names:
        column = data[name].values if name in data.coords else np.array(["one"])
        known = column[first][~is_missing(column[first])] if name in data.coords else column
        if column.dtype.kind not in "fiu" or len(np.unique(known)) <= max(bins, 2):
            continue
        group = Symbols.learn({name: column[first]}, bins).groups[0]
        codes = group.codes(column)
        texts = np.where(codes < 0, "", np.array(group.values)[codes])
        data = data.assign_coords({name: ("trial", texts)})
    return data


def fit_repeats(
    estimator: Any,
    data: xr.Dataset,
    *,
    labels: Sequence[str] | None = None,
    scan: SCAN | None = None,
    autoencoder: bool = True,
    n_splits: int = 5,
    n_repeats: int = 1,
    random_state: int = 0,
    scratch: Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> list[Fitted]:
    """Fit beta-VAE, autoencoder and SCAN in every fold of every repeat.

    Parameters
    ----------
    estimator : BetaVAE
        Its parameters are used for unfitted copies. Members of all folds and repeats are trained
        as one ensemble.
    data : Dataset
        Trials with subjects and labels.
    labels : sequence of str, optional
    scan : SCAN, optional
        Its parameters; by default those of `SCAN`.
    autoencoder : bool
        Whether to train the network at beta 0 too.
    n_splits, n_repeats : int
        Each repeat has folds and initial weights of its own.
    random_state, scratch, progress
        As in `eeg.evaluate.evaluate`.

    Returns
    -------
    list of Fitted
    """
    from eeg.evaluate import make_folds

    seeds = [random_state + number for number in range(n_repeats)]
    folds = [make_folds(data, labels, n_splits=n_splits, random_state=s) for s in seeds]
    return fit_targets(
        estimator,
        data,
        usable_labels(data, labels, n_splits)[0],
        folds,
        seeds=seeds,
        scan=scan,
        autoencoder=autoencoder,
        scratch=scratch,
        progress=progress,
    )


def fit_targets(
    estimator: Any,
    data: xr.Dataset,
    targets: Sequence[Target],
    folds: Sequence[list[Fold]],
    *,
    seeds: Sequence[int] = (0,),
    scan: SCAN | None = None,
    autoencoder: bool = True,
    scratch: Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> list[Fitted]:
    """Fit as `fit_repeats` does, where targets and folds are known.

    Parameters
    ----------
    estimator, data, scan, autoencoder, scratch, progress
        As in `fit_repeats`.
    targets : sequence of Target
    folds, seeds : sequence
        One for each repeat.

    Returns
    -------
    list of Fitted
    """
    members, subsets = [], []
    for seed, own in zip(seeds, folds, strict=True):
        for beta in (estimator.beta, 0.0) if autoencoder else (estimator.beta,):
            members += [_copy(estimator, beta, seed) for _ in own]
            subsets += [train for train, _ in own]
    signal = _signal(data)
    type(estimator).fit_together(
        members, signal, subsets=subsets, scratch=scratch, progress=progress
    )
    found = []
    size = len(members) // len(folds)
    for number, own in enumerate(folds):
        mine = members[size * number : size * (number + 1)]
        fitted = Fitted(own, mine[: len(own)], mine[len(own) :])
        for encoder, (train, _) in zip(fitted.encoders, own, strict=True):
            pair = encoder.transform(signal, return_variance=True)
            fitted.codes.append((np.asarray(pair[0]), np.asarray(pair[1])))
            # Without the only session of somebody, one person may be left: nothing to tell apart.
            told = [t for t in targets if t.within or len(set(t.codes[train].tolist()) - {-1}) > 1]
            fitted.scans.append(fit_scans(encoder, signal.isel(trial=train), told, train, scan))
        found.append(fitted)
    return found


def _copy(estimator: Any, beta: float, seed: int) -> Any:
    from sklearn.base import clone

    return clone(estimator).set_params(beta=beta, random_state=seed)


def _signal(data: Any) -> Any:
    from neuro.data import as_signal

    return as_signal(data) if hasattr(data, "data_vars") else data


def fit_scans(
    encoder: Any, signal: Any, targets: Sequence[Target], rows: Ints, scan: SCAN | None = None
) -> dict[str, SCAN]:
    """Fit SCAN to the labels of participants, and once more to each label inside participants.

    Parameters
    ----------
    encoder : BetaVAE
        Fitted on no other participants than those of `signal`.
    signal : DataArray
        Training trials.
    targets : sequence of Target
        Of all trials.
    rows : ndarray of int
        Which of them the training trials are.
    scan : SCAN, optional

    Returns
    -------
    dict of str to SCAN
        By label; labels of participants share one.
    """
    from sklearn.base import clone

    from eeg.scan import SCAN

    plain = SCAN(operators=False) if scan is None else clone(scan).set_params(operators=False)
    names = [target.classes for target in targets]
    columns = {
        target.name: np.where(target.codes < 0, "", classes[target.codes])[rows]
        for target, classes in zip(targets, names, strict=True)
    }
    groups = [[t.name for t in targets if not t.within]]
    groups += [[t.name] for t in targets if t.within]
    within = {t.name for t in targets if t.within}
    found: dict[str, SCAN] = {}
    for group in groups:
        if group:
            own = clone(plain).set_params(
                encoder=encoder, within=[name for name in group if name in within]
            )
            own.fit(signal, {name: columns[name] for name in group})
            found |= dict.fromkeys(group, own)
    return found
