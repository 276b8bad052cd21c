"""Splits that keep a group (a subject, a device) on one side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


def split_groups(
    data: xr.Dataset | xr.DataArray | ArrayLike,
    groups: str | ArrayLike = "subject",
    *,
    test_size: float = 0.2,
    stratify: str | ArrayLike | None = None,
    random_state: int | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split trials so that no group is on both sides.

    Parameters
    ----------
    data : Dataset, DataArray or array-like, length trial
        What is split.
    groups : str or array-like, shape (trial,)
        The group of every trial, or the name of a coordinate of `data`.
    test_size : float
        The share of groups (with `stratify`: about the share of trials) in the test part.
    stratify : str or array-like, shape (trial,), optional
        Labels whose shares both parts keep as far as whole groups allow; a missing label counts
        as a class of its own.
    random_state : int, optional
        The seed.

    Returns
    -------
    train, test : ndarray of int
        Sorted trial numbers.

    Raises
    ------
    InputError
        Where there are fewer than two groups or `test_size` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> subject = np.repeat(["a", "b", "c", "d"], 5)
    >>> train, test = split_groups(np.zeros(20), subject, test_size=0.25, random_state=0)
    >>> set(subject[train]) & set(subject[test]), len(test)
    (set(), 5)
    """
    from sklearn.model_selection import GroupShuffleSplit

    if not 0 < test_size < 1:
        raise InputError(f"test_size is {test_size}; expected a share between 0 and 1")
    names = _column(data, groups)
    n_groups = len(np.unique(names))
    if n_groups < 2:
        raise InputError(
            f"found {n_groups} group(s) in {len(names)} trials; a split needs at least two "
            "groups, since a group is never divided"
        )
    if stratify is not None:
        return _stratified(names, _column(data, stratify), test_size, random_state)
    n_test = min(max(round(test_size * n_groups), 1), n_groups - 1)
    splitter = GroupShuffleSplit(1, test_size=n_test, random_state=random_state)
    train, test = next(splitter.split(names, groups=names))
    return np.sort(train), np.sort(test)


def _column(data: Any, column: str | ArrayLike) -> NDArray[np.str_]:
    """Return one value per trial as text."""
    if isinstance(column, str):
        if column not in getattr(data, "coords", ()):
            raise InputError(
                f"no coordinate '{column}' to split by; found "
                f"{sorted(map(str, getattr(data, 'coords', ())))}"
            )
        column = data[column].values
    values = np.asarray(column).astype(str)
    n_trials = data.sizes["trial"] if hasattr(data, "sizes") else len(data)
    if values.shape != (n_trials,):
        raise InputError(f"expected one value for each of {n_trials} trials, got {values.shape}")
    return values


def _stratified(
    groups: NDArray[np.str_], labels: NDArray[np.str_], test_size: float, seed: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    from sklearn.model_selection import StratifiedGroupKFold

    pairs = np.unique(np.stack([labels, groups]), axis=1)
    rarest = np.unique(pairs[0], return_counts=True)[1].min()
    # Several small folds make up the test part, so that its share can be close to test_size.
    n_folds = int(np.clip(rarest, 2, 10))
    n_test = min(max(round(test_size * n_folds), 1), n_folds - 1)
    if np.unique(labels, return_counts=True)[1].max() < n_folds:
        raise InputError(
            f"can't stratify {len(labels)} trials by {len(set(pairs[0].tolist()))} labels that "
            "occur once each; leave `stratify` out or join labels"
        )
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = [test for _, test in splitter.split(groups, labels, groups)][:n_test]
    test = np.sort(np.concatenate(folds))
    return np.setdiff1d(np.arange(len(groups)), test), test
