"""What a decoder must beat: tuned ridge, the nearest training image, shuffled pairs.

And what it may merely repeat: how like the test targets are to the training ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError
from neuro.metrics.retrieval import compare_rows
from neuro.validation import grouped_folds

__all__ = [
    "ALPHAS",
    "SimilarityHistogram",
    "TunedRidge",
    "derangement",
    "nearest_training",
    "similarity_histogram",
]

Floats = NDArray[np.float32]

ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 13))
_TARGET_BYTES = 256 << 20
_TARGETS = 2048  # solved at once
_DUPLICATE = 0.9999  # cosine above which two targets are the same


class TunedRidge:
    """Ridge regression whose penalty is chosen inside the training data.

    The dual form (himalaya's `KernelRidgeCV`) where voxels outnumber trials, else the primal one
    (`RidgeCV`). Voxels are standardised and targets centred by the training trials; the folds never
    split the trials of a stimulus.

    Parameters
    ----------
    alphas : sequence of float
        Penalties to choose from.
    per_target : bool
        A penalty for each target, or one for all.
    n_splits : int
        Inner folds.
    shuffle : bool
        Give every stimulus the target of another one in training: the control that shows what
        the method finds in nothing.
    random_state : int

    Attributes
    ----------
    alphas_ : ndarray of shape (target,)
        The penalty chosen.
    dual_ : bool
        Whether the dual form was used.

    References
    ----------
    Dupre la Tour et al., "Feature-space selection with banded ridge regression" (2022).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((40, 60)), rng.standard_normal((60, 3))
    >>> ridge = TunedRidge().fit(X, X @ W)
    >>> ridge.predict(X).shape, ridge.dual_
    ((40, 3), True)
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        *,
        per_target: bool = True,
        n_splits: int = 5,
        shuffle: bool = False,
        random_state: int = 0,
    ) -> None:
        self.alphas, self.per_target, self.n_splits = tuple(alphas), per_target, n_splits
        self.shuffle, self.random_state = shuffle, random_state

    def fit(self, X: ArrayLike, y: ArrayLike, *, stimulus: ArrayLike | None = None) -> TunedRidge:
        """Fit to training trials.

        Parameters
        ----------
        X : array_like of shape (trial, voxel)
        y : array_like of shape (trial, ...)
            Pixels, tokens or attributes; axes after the first are kept for `predict`.
        stimulus : array_like of str, shape (trial,), optional
            By default every trial is a stimulus of its own.

        Raises
        ------
        DataError
            Where X or y hold NaN, or the lengths differ.
        InputError
            Where there are fewer stimuli than inner folds, or a penalty isn't positive.
        """
        voxels, target = _finite(X, "X"), _finite(y, "y")
        names = np.arange(len(voxels)) if stimulus is None else np.asarray(stimulus)
        self._check(voxels, target, names)
        if self.shuffle:
            target = _shuffled(target, names, self.random_state)
        self.shape_ = target.shape[1:]
        flat = target.reshape(len(target), -1)
        self.mean_, self.sd_ = voxels.mean(0), _sd(voxels)
        self.target_mean_ = flat.mean(0)
        folds = grouped_folds(names, n_splits=self.n_splits, random_state=self.random_state)
        self.dual_ = voxels.shape[1] > len(voxels)
        scaled = (voxels - self.mean_) / self.sd_
        fits = [
            self._fit_block(scaled, flat[:, part] - self.target_mean_[part], folds)
            for part in _target_blocks(*flat.shape)
        ]
        self.alphas_ = np.concatenate([alphas for alphas, _ in fits])
        self.weights_ = np.concatenate([weights for _, weights in fits], axis=1)
        self.train_ = scaled if self.dual_ else None
        return self

    def predict(self, X: ArrayLike) -> Floats:
        """Predict the targets of trials, ``(trial, ...)``."""
        if not hasattr(self, "weights_"):
            raise InputError("this ridge isn't fitted; call fit first")
        voxels = _finite(X, "X")
        if voxels.shape[1:] != self.mean_.shape:
            raise InputError(f"X has {voxels.shape[1:]} voxels, expected {self.mean_.shape}")
        scaled = (voxels - self.mean_) / self.sd_
        scaled = scaled if self.train_ is None else scaled @ self.train_.T
        return (scaled @ self.weights_ + self.target_mean_).reshape(len(voxels), *self.shape_)

    def predict_array(self, X: xr.DataArray) -> xr.DataArray:
        """Predict tokens ``(trial, token, feature)`` with the coordinates of the trials."""
        found = self.predict(X.values)
        if found.ndim != 3:
            raise InputError(f"targets of shape {self.shape_} are no (token, feature)")
        coords = {name: c for name, c in X.coords.items() if c.dims == ("trial",)}
        return xr.DataArray(found, dims=("trial", "token", "feature"), coords=coords)

    def _fit_block(self, scaled: Floats, target: Floats, folds: list[Any]) -> tuple[Floats, Floats]:
        """Return the penalties, and the weights: of trials in the dual form, else of voxels."""
        if self.dual_:
            from himalaya.kernel_ridge import KernelRidgeCV as Model
        else:
            from himalaya.ridge import RidgeCV as Model
        solver = {"local_alpha": self.per_target, "n_targets_batch": _TARGETS}
        model = Model(alphas=np.array(self.alphas), cv=folds, solver_params=solver)
        model.fit(scaled, target)
        weights = model.dual_coef_ if self.dual_ else model.coef_
        alphas = np.broadcast_to(model.best_alphas_, target.shape[1:])
        return alphas.astype(np.float32), np.asarray(weights, dtype=np.float32)

    def _check(self, X: Floats, y: Floats, names: NDArray[Any]) -> None:
        if X.ndim != 2 or y.ndim < 2 or not len(X) == len(y) == len(names):
            raise DataError(
                f"X is {X.shape}, y is {y.shape} with {len(names)} stimuli; expected (trial, "
                "voxel) and (trial, ...) of the same trials"
            )
        if not self.alphas or min(self.alphas) <= 0:
            raise InputError(f"alphas are {self.alphas}; expected positive numbers")


def _finite(values: ArrayLike, name: str) -> Floats:
    out = np.asarray(values, dtype=np.float32)
    if not np.isfinite(out).all():
        raise DataError(f"{name} holds NaN or infinity; leave such voxels or trials out first")
    return out


def _sd(values: Floats) -> Floats:
    sd = values.std(0)
    return np.where(sd > 0, sd, np.float32(1))


def _target_blocks(n_trials: int, n_targets: int) -> Iterator[slice]:
    step = max(1, _TARGET_BYTES // (4 * n_trials))
    for first in range(0, n_targets, step):
        yield slice(first, min(first + step, n_targets))


def _shuffled(target: Floats, names: NDArray[Any], random_state: int) -> Floats:
    """Deal the targets out anew between stimuli; trials of a stimulus keep a common one."""
    _, first, codes = np.unique(names, return_index=True, return_inverse=True)
    return target[first[derangement(len(first), random_state)]][codes]


def derangement(n: int, random_state: int = 0) -> NDArray[np.intp]:
    """Shuffle 0..n-1 so that nothing keeps its place.

    Raises
    ------
    InputError
        With fewer than two.

    Examples
    --------
    >>> bool((derangement(5) == np.arange(5)).any())
    False
    """
    if n < 2:
        raise InputError(f"{n} items can't be shuffled so that none keeps its place")
    rng = np.random.default_rng(random_state)
    while True:  # one shuffle in e is a derangement
        order = rng.permutation(n)
        if not np.any(order == np.arange(n)):
            return order


def nearest_training(
    predicted: ArrayLike, training: ArrayLike, *, similarity: str = "cosine"
) -> tuple[NDArray[np.intp], Floats]:
    """Find the training item that is most like each prediction.

    A reconstruction must beat it: the picture that stands there is one that was trained on.

    Parameters
    ----------
    predicted : array_like of shape (n, ...)
        Predicted targets; or voxels, against those of training.
    training : array_like of shape (m, ...)
    similarity : {"cosine", "correlation"}

    Returns
    -------
    rows : ndarray of int, shape (n,)
    scores : ndarray of float32, shape (n,)

    Examples
    --------
    >>> nearest_training([[1.0, 0.1]], [[0.0, 1.0], [2.0, 0.0]])[0].tolist()
    [1]
    """
    scores = compare_rows(predicted, training, similarity=similarity)  # type: ignore[arg-type]
    rows = scores.argmax(1)
    return rows, scores[np.arange(len(rows)), rows]


@dataclass(frozen=True)
class SimilarityHistogram:
    """How like test targets are to training ones.

    Attributes
    ----------
    edges : ndarray of shape (bin + 1,)
        Of the cosine.
    all_pairs : ndarray of int, shape (bin,)
        Test against training.
    nearest : ndarray of int, shape (bin,)
        Each test item's most similar training item.
    similarity : ndarray of float32, shape (test,)
        To the nearest training item.
    row : ndarray of int, shape (test,)
        Which one that is.
    duplicates : int
        Test items that are in training as good as whole.
    """

    edges: NDArray[np.float64]
    all_pairs: NDArray[np.int64]
    nearest: NDArray[np.int64]
    similarity: Floats
    row: NDArray[np.intp]
    duplicates: int


def similarity_histogram(
    test: ArrayLike, training: ArrayLike, *, bins: int = 40
) -> SimilarityHistogram:
    """Count cosines between test and training targets.

    Where most test items have a near twin in training, a decoder that tells apart kinds of
    pictures passes for one that reconstructs.

    Parameters
    ----------
    test, training : array_like of shape (n, ...) and (m, ...)
    bins : int

    Examples
    --------
    >>> found = similarity_histogram(np.eye(3)[:1], np.eye(3), bins=4)
    >>> found.all_pairs.tolist(), found.duplicates
    ([0, 0, 2, 1], 1)
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; expected 1 or more")
    scores = np.clip(compare_rows(test, training), -1, 1)
    rows = scores.argmax(1)
    top = scores[np.arange(len(rows)), rows]
    edges = np.linspace(-1, 1, bins + 1)
    return SimilarityHistogram(
        edges,
        np.histogram(scores, edges)[0],
        np.histogram(top, edges)[0],
        top,
        rows,
        int((top > _DUPLICATE).sum()),
    )
