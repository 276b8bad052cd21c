"""Parts of a study: training and test participants, their labels, and the trials of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eeg.symbols import MISSING, Bins, Symbols
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    from eeg.beta_vae import BetaVAE
    from eeg.scan import SCAN

Ints = NDArray[np.intp]
MOST_VALUES = 10  # of a label that is text: more are names or remarks, not classes
SHARES = 20  # parts that participants are dealt to; a test part is some of them


def split_participants(
    data: xr.Dataset,
    *,
    test_size: float = 0.3,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[Ints, Ints]:
    """Split trials into training and test participants, balanced over all labels at once.

    Parameters
    ----------
    data : Dataset
        Trials with the coordinate ``subject``.
    test_size : float
        Share of the participants in the test part.
    labels : sequence of str, optional
        Labels to balance, numbers by terciles; by default those that the attribute names.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    train, test : ndarray of int
        Sorted trial numbers; no participant is on both sides.

    Raises
    ------
    InputError
        Where there are no participants, too few, or `test_size` is no share.
    """
    from neuro.validation import grouped_folds

    subject = subjects_of(data)
    people = np.unique(subject)
    if not 0 < test_size < 1:
        raise InputError(f"test_size is {test_size}; expected a share between 0 and 1")
    n_test = round(test_size * len(people))
    if not 0 < n_test < len(people):
        raise InputError(
            f"test_size {test_size} of {len(people)} participants leaves one part empty; give "
            "more participants or another share"
        )
    n_parts = min(SHARES, len(people))
    n_taken = min(max(round(test_size * n_parts), 1), n_parts - 1)
    columns = _balanced_columns(data, labels)
    folds = grouped_folds(subject, columns or None, n_splits=n_parts, random_state=seed)
    test = np.sort(np.concatenate([fold for _, fold in folds[:n_taken]]))
    return np.setdiff1d(np.arange(len(subject)), test), test


def split_as_trained(data: xr.Dataset, encoder: Any) -> tuple[Ints, Ints] | None:
    """Split trials into participants that an encoder was trained on, and all others.

    Returns
    -------
    tuple of ndarray of int, or None
        None where it was trained on none of them, so that any split will do.

    Raises
    ------
    InputError
        Where it was trained on all of them, so that nobody is left for a test.
    """
    from neuro.fitted_on import FittedOn

    subject = subjects_of(data)
    fitted: FittedOn = encoder.fitted_on_
    seen = fitted.seen(np.zeros((len(subject), 1), np.float32), subject).subjects
    if seen.all():
        raise InputError(
            f"the encoder was trained on all {len(np.unique(subject))} participants, so that "
            "nobody is left for a test; add participants that it never saw"
        )
    return (np.flatnonzero(seen), np.flatnonzero(~seen)) if seen.any() else None


def refuse_overlap(train: xr.Dataset, test: xr.Dataset) -> None:
    """Refuse parts that share a participant.

    Raises
    ------
    ContractError
        Naming the participants.
    """
    both = sorted({*subjects_of(train).tolist()} & {*subjects_of(test).tolist()})
    if both:
        raise ContractError(
            f"{len(both)} participants are in the training and in the test part "
            f"({', '.join(both[:5])}{' ...' if len(both) > 5 else ''}); take both parts from one "
            "dataset, with the same test_size, labels and seed"
        )


def usable_labels(
    data: xr.Dataset, labels: Sequence[str] | None = None, bins: Bins | dict[str, Bins] = 3
) -> tuple[list[str], list[dict[str, str]]]:
    """Sort labels into those that symbols can be made of, and the others with the reason.

    Parameters
    ----------
    data : Dataset
    labels : sequence of str, optional
        By default those that the attribute ``labels`` names.
    bins : as for `Symbols.learn`

    Returns
    -------
    names : list of str
    excluded : list of dict
        label and reason.

    Raises
    ------
    InputError
        Where a label that was asked for isn't there.
    """
    known = [str(name) for name in data.attrs.get("labels", []) if name in data.coords]
    names = known if labels is None else list(labels)
    absent = [name for name in names if name not in data.coords]
    if absent:
        raise InputError(
            f"the trials have no label {', '.join(absent)}; their labels are "
            f"{', '.join(known) or 'none'}"
        )
    first = np.unique(subjects_of(data), return_index=True)[1]
    reasons = {}
    for name in names:
        per_label = {name: bins[name]} if isinstance(bins, dict) and name in bins else None
        try:
            own = bins if isinstance(bins, int) else per_label or 3
            found = Symbols.learn({name: _values(data, name, first)}, own)
        except DataError as error:
            reasons[name] = str(error)
            continue
        if len(found) > MOST_VALUES:
            reasons[name] = f"{len(found)} different values: sort them into {MOST_VALUES} or fewer"
    kept = [name for name in names if name not in reasons]
    return kept, [{"label": name, "reason": reason} for name, reason in reasons.items()]


def relabel(data: xr.Dataset, labels: Any) -> xr.Dataset:
    """Put labels of participants in the place of those that the trials bear.

    Parameters
    ----------
    data : Dataset
    labels : path or DataFrame
        A table with the column ``participant_id``, see `eeg.labels.read_labels`.

    Returns
    -------
    Dataset
        A participant that the table doesn't know has missing labels.

    Raises
    ------
    InputError, DataError
        As `eeg.labels.read_labels`; also where a column has the name of something else.

    Warns
    -----
    UserWarning
        Listing the participants of the table without trials, and the reverse.
    """
    from eeg.labels import read_labels

    subject = subjects_of(data)
    table = read_labels(labels, data["signal"], subject, len(subject))
    old = [name for name in data.attrs.get("labels", []) if name in data.coords]
    fresh = data.drop_vars(old)
    taken = [name for name in table.columns if name in fresh.variables or name in fresh.dims]
    if taken:
        raise InputError(
            f"the table's columns {', '.join(taken)} have names that the trials use for something "
            "else; rename them"
        )
    columns = {str(name): ("trial", _plain(table[name])) for name in table.columns}
    return fresh.assign_coords(columns).assign_attrs(labels=list(columns))


def trials_beside(encoder: Path) -> Path:
    """Return the folder ``epochs`` that lies beside an encoder in the folder of a run.

    Raises
    ------
    InputError
        Where there is none.
    """
    found = encoder.parent / "epochs"
    if not found.is_dir():
        raise InputError(
            f"there are no trials beside {encoder} (expected {found}): give epochs= a dataset, or "
            "files= recordings"
        )
    return found


def read_trials(encoder: BetaVAE, files: Sequence[Path]) -> xr.Dataset:
    """Read recordings, sent through the preprocessing of an encoder's training data."""
    from neuro.data import concat

    read = [encoder.read_recording(path) for path in files]
    parts = [d if isinstance(d, xr.Dataset) else d.to_dataset(name="signal") for d in read]
    return concat(parts)


def subjects_of(data: xr.Dataset) -> NDArray[np.str_]:
    """Return the participant of every trial.

    Raises
    ------
    InputError
        Where the trials don't tell it.
    """
    if "subject" not in data.coords:
        raise InputError(
            "the trials have no coordinate 'subject', so that participants can't be told apart"
        )
    return data["subject"].values.astype(str)


def _balanced_columns(data: xr.Dataset, labels: Sequence[str] | None) -> list[NDArray[np.str_]]:
    names, _ = usable_labels(data, labels)
    rows = np.arange(data.sizes["trial"])
    columns = []
    for name in names:
        table = {name: _values(data, name, rows)}
        codes = Symbols.learn(table).groups[0].codes(table[name])
        columns.append(np.where(codes == MISSING, "", codes.astype(str)))
    return columns


def _values(data: xr.Dataset, name: str, rows: Ints) -> NDArray[Any]:
    return np.asarray(data[name].values)[rows]


def _plain(column: Any) -> NDArray[Any]:
    """Write a column as numbers with NaN, or as text with ""."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if is_numeric_dtype(column) and not is_bool_dtype(column):
        return np.asarray(column.to_numpy(dtype=float))
    return np.array(["" if v != v or v is None else str(v) for v in column.tolist()], dtype=str)


def load_beta_vae(folder: Path) -> BetaVAE:
    """Load the beta-VAE of a folder: itself, or the one that a SCAN there was fitted on.

    Raises
    ------
    ContractError
        Where the folder holds another kind of encoder, or none.
    """
    from eeg.beta_vae import BetaVAE
    from eeg.scan import SCAN
    from neuro.encoder import load

    found = load(folder)
    found = found.encoder_ if isinstance(found, SCAN) else found
    if not isinstance(found, BetaVAE):
        raise ContractError(f"{folder} holds the encoder '{found.name}'; expected '{BetaVAE.name}'")
    return found


def expect_scan(encoder: Any) -> SCAN:
    """Return the encoder if it is a SCAN.

    Raises
    ------
    InputError
    """
    from eeg.scan import SCAN

    if not isinstance(encoder, SCAN):
        raise InputError(f"the encoder is '{encoder.name}'; expected '{SCAN.name}'")
    return encoder


def refuse_known(encoder: Any, test: xr.Dataset) -> None:
    """Refuse test participants that an encoder was trained on.

    Raises
    ------
    ContractError
    """
    from neuro.data import as_signal
    from neuro.encoder import refuse_if_fitted

    refuse_if_fitted(encoder, as_signal(test))
