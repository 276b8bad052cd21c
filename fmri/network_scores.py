"""Models behind an ablation: linear ones, and any fitted or unfitted estimator.

Each returns a `fmri.network_ablation.Trainer`: ``train(X, rows) -> score(X, rows)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmri.network_ablation import Scorer, Trainer
from neuro.errors import InputError
from neuro.metrics.retrieval import compare_rows
from neuro.validation import grouped_folds

__all__ = [
    "category_trainer",
    "contrast",
    "estimator_trainer",
    "features",
    "fitted_trainer",
    "identified",
    "logistic",
    "naming_trainer",
    "target_trainer",
]

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
Time = Literal["mean", "all"]
Score = Literal["identified", "contrast"]


def features(X: Floats, time: Time = "mean") -> Floats:
    """Bring ``(trial, parcel, time)`` to two dimensions: the mean over time, or all of it.

    Examples
    --------
    >>> features(np.ones((2, 3, 4), np.float32), "all").shape
    (2, 12)
    """
    return X.mean(2) if time == "mean" else X.reshape(len(X), -1)


def identified(predicted: ArrayLike, target: ArrayLike, names: ArrayLike) -> NDArray[np.float64]:
    """Two-way identification: of how many other items the own target is more alike (cosine).

    Parameters
    ----------
    predicted : array_like of shape (trial, feature)
    target : array_like of shape (trial, feature)
        That of each trial.
    names : array_like of str, shape (trial,)
        Its item; trials of one item are no candidates against one another.

    Returns
    -------
    ndarray of shape (trial,)
        From 0 to 1, chance 0.5.

    Examples
    --------
    >>> identified(np.eye(3), np.eye(3), ["a", "b", "c"]).tolist()
    [1.0, 1.0, 1.0]
    """
    alike, code = _similar(predicted, target, names)
    own = alike[np.arange(len(code)), code][:, None]
    ahead = (alike < own).sum(1) + ((alike == own).sum(1) - 1) / 2
    return np.asarray(ahead / (alike.shape[1] - 1), dtype=np.float64)


def contrast(predicted: ArrayLike, target: ArrayLike, names: ArrayLike) -> NDArray[np.float64]:
    """Cosine to the own target less the mean of that to the others: it has no ceiling.

    Parameters
    ----------
    predicted, target, names
        As for `identified`.

    Returns
    -------
    ndarray of shape (trial,)
        Chance 0.

    Examples
    --------
    >>> contrast(np.eye(3), np.eye(3), ["a", "b", "c"]).tolist()
    [1.0, 1.0, 1.0]
    """
    alike, code = _similar(predicted, target, names)
    own = alike[np.arange(len(code)), code].astype(np.float64)
    return own - (alike.sum(1, dtype=np.float64) - own) / (alike.shape[1] - 1)


def _similar(
    predicted: ArrayLike, target: ArrayLike, names: ArrayLike
) -> tuple[Floats, NDArray[np.intp]]:
    """Cosine of every trial to every item, and the number of its own."""
    _, first, code = np.unique(np.asarray(names), return_index=True, return_inverse=True)
    if len(first) < 2:
        raise InputError("all test trials are of one item; identification needs two")
    found = np.asarray(predicted, np.float32)
    truth = np.asarray(target, np.float32)[first]
    return np.asarray(compare_rows(found.reshape(len(found), -1), truth)), code


def category_trainer(
    category: ArrayLike, *, time: Time = "mean", C: float | None = 1.0,
    groups: ArrayLike | None = None,
) -> Trainer:  # fmt: skip
    """Logistic regression to the category; a trial scores 1 where it is right.

    Parameters
    ----------
    category : array_like of str, shape (trial,)
        Of all trials.
    time : {"mean", "all"}
        Whether the model sees the mean over time or every time point.
    C : float or None
        Inverse penalty, as in scikit-learn; None chooses it inside the training part.
    groups : array_like of shape (trial,), optional
        What inner folds never split.
    """
    names = np.asarray(category).astype(str)
    units = np.arange(len(names)) if groups is None else np.asarray(groups)

    def train(X: Floats, rows: Rows) -> Scorer:
        model, _ = logistic(features(X, time), names[rows], units[rows], C)
        return lambda new, test: (model.predict(features(new, time)) == names[test]).astype(float)

    return train


def logistic(
    X: Floats, names: NDArray[np.str_], groups: NDArray[Any], C: float | None = None
) -> tuple[Any, float]:
    """Fit a logistic regression, its penalty chosen in inner folds where none is given.

    Parameters
    ----------
    X : ndarray of shape (trial, feature)
    names : ndarray of str, shape (trial,)
    groups : ndarray of shape (trial,)
        Inner folds never split them.
    C : float, optional

    Returns
    -------
    model : LogisticRegression
    C : float
        What was given or chosen.

    Examples
    --------
    >>> X = np.array([[-1.0], [-2.0], [1.0], [2.0]] * 3)
    >>> names = np.array(list("aabb") * 3)
    >>> logistic(X, names, np.repeat([0, 1, 2], 4))[0].predict([[3.0]]).tolist()
    ['b']
    """
    from sklearn.linear_model import LogisticRegression

    def fit(rows: Any, c: float) -> Any:
        return LogisticRegression(C=c, max_iter=2000).fit(X[rows], names[rows])

    if C is None:
        n_splits = min(4, len(np.unique(groups)))
        folds = grouped_folds(groups, names, n_splits=n_splits) if n_splits > 1 else []
        hits = [
            sum(float((fit(rows, c).predict(X[test]) == names[test]).sum()) for rows, test in folds)
            for c in PENALTIES
        ]
        C = PENALTIES[int(np.argmax(hits))] if folds else 1.0
    return fit(slice(None), C), C


def target_trainer(
    target: ArrayLike,
    item: ArrayLike,
    *,
    score: Score = "contrast",
    time: Time = "mean",
    n_splits: int = 3,
) -> Trainer:
    """Ridge regression to an embedding, tuned inside the training part.

    Parameters
    ----------
    target : array_like of shape (trial, feature)
        The embedding of what each trial showed.
    item : array_like of str, shape (trial,)
        What was shown; inner folds never split an item.
    score : {"contrast", "identified"}
        See the functions; a share of items has a ceiling that hides what single networks cost.
    time : {"mean", "all"}
    n_splits : int
        Inner folds.
    """
    wanted, names = np.asarray(target, np.float32), np.asarray(item).astype(str)

    def train(X: Floats, rows: Rows) -> Scorer:
        from fmri.baselines import TunedRidge

        model = TunedRidge(n_splits=n_splits, per_target=False)
        model.fit(features(X, time), wanted[rows], stimulus=names[rows])
        return lambda new, test: _SCORES[score](
            model.predict(features(new, time)), wanted[test], names[test]
        )

    return train


def estimator_trainer(
    make: Callable[[], Any],
    target: ArrayLike,
    item: ArrayLike,
    *,
    score: Score = "contrast",
    wrap: Callable[[Floats, Rows], Any] | None = None,
    **fit: Any,
) -> Trainer:
    """Any estimator with ``fit(X, y)`` and ``transform(X)`` or ``predict(X)``.

    Parameters
    ----------
    make : callable
        Returns an estimator that is not fitted.
    target, item, score
        As for `target_trainer`.
    wrap : callable, optional
        ``wrap(X, rows)`` gives what the estimator takes (a DataArray with coordinates).
    **fit
        Further keywords of ``fit``.
    """
    wanted = np.asarray(target, np.float32)

    def train(X: Floats, rows: Rows) -> Scorer:
        model = make()
        model.fit(X if wrap is None else wrap(X, rows), wanted[rows], **fit)
        return fitted_trainer(model, target, item, score=score, wrap=wrap)(X, rows)

    return train


def fitted_trainer(
    model: Any,
    target: ArrayLike,
    item: ArrayLike,
    *,
    score: Score = "contrast",
    wrap: Callable[[Floats, Rows], Any] | None = None,
) -> Trainer:
    """Score a fitted encoder as it is: for filling at test; it can't be retrained.

    Parameters
    ----------
    model : object
        With ``predict(X)`` or ``transform(X)``, which give embeddings in the space of `target`.
    target, item, score, wrap
        As for `estimator_trainer`.
    """
    wanted, names = np.asarray(target, np.float32), np.asarray(item).astype(str)
    # A regression may have both; its transform is then not what it predicts.
    answer = getattr(model, "predict", None) or model.transform

    def judge(new: Floats, test: Rows) -> NDArray[np.float64]:
        found = answer(new if wrap is None else wrap(new, test))
        return _SCORES[score](found, wanted[test], names[test])

    return lambda X, rows: judge


def naming_trainer(
    make: Callable[[Any, Floats], Any],
    category: ArrayLike,
    target: ArrayLike,
    *,
    wrap: Callable[[Floats, Rows], Any],
) -> Trainer:
    """Score an encoder by the categories that it names (``predict_category``), 1 where right.

    Parameters
    ----------
    make : callable
        ``make(X, y)`` gives a fitted encoder: one that is there already, or a new one.
    category : array_like of str, shape (trial,)
    target : array_like of shape (trial, feature)
        What a new one is trained for.
    wrap : callable
        As for `estimator_trainer`.
    """
    names, wanted = np.asarray(category).astype(str), np.asarray(target, np.float32)

    def train(X: Floats, rows: Rows) -> Scorer:
        model = make(wrap(X, rows), wanted[rows])
        return lambda new, test: (
            np.asarray(model.predict_category(wrap(new, test))).astype(str) == names[test]
        ).astype(float)

    return train


PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
_SCORES = {"identified": identified, "contrast": contrast}
