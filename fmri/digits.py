"""The protocol of fmri-digits69: pictures of sixes and nines identified from voxel patterns.

Ten folds over all pairs of a pattern and a picture. Every picture is predicted by a model that
never saw it; then each prediction is held against all pictures, and against those of its class.
Most of the identification is the class, so that the figures within classes are the ones to read.

References
----------
van Gerven, de Lange and Heskes, "Neural decoding with hierarchical generative models" (2010).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmri.baselines import TunedRidge, nearest_training
from fmri.evaluate import compare, evaluate_identification
from neuro.errors import DataError, InputError
from neuro.metrics.retrieval import compare_rows, pairwise, pairwise_within
from neuro.validation import Estimate, Fold, exact_interval, grouped_folds, summarise

__all__ = [
    "BASELINES",
    "CrossValidated",
    "Predictor",
    "cross_validate",
    "evaluate_pictures",
    "picture_folds",
    "read_class",
]

BASELINES = ("ridge", "nearest", "shuffled")
Floats = NDArray[np.float32]
Predictor = Callable[[NDArray[np.intp], NDArray[np.intp]], ArrayLike]
"""``predict(train, test) -> pictures (test, ...)`` from row indices; it must not look at test."""


@dataclass(frozen=True)
class CrossValidated:
    """Predictions of every picture by models that never saw it.

    Attributes
    ----------
    pictures : dict of str to ndarray of float32, shape (n, ...)
        By method: ``ridge``, ``nearest`` (the training picture nearest to the ridge's),
        ``shuffled`` (ridge on shuffled pairs), and those given.
    nearest : ndarray of int, shape (n,)
        Row of the nearest training picture.
    fold : ndarray of int, shape (n,)
    """

    pictures: dict[str, Floats]
    nearest: NDArray[np.intp]
    fold: NDArray[np.intp]


def picture_folds(classes: ArrayLike, n_splits: int = 10, random_state: int = 0) -> list[Fold]:
    """Split pictures into folds balanced over classes.

    Examples
    --------
    >>> [len(test) for _, test in picture_folds(["six"] * 5 + ["nine"] * 5, 5)]
    [2, 2, 2, 2, 2]
    """
    labels = np.asarray(classes).astype(str)
    return grouped_folds(
        np.arange(len(labels)), labels, n_splits=n_splits, random_state=random_state
    )


def cross_validate(
    voxels: ArrayLike,
    pictures: ArrayLike,
    classes: ArrayLike,
    *,
    methods: Mapping[str, Predictor] | None = None,
    n_splits: int = 10,
    random_state: int = 0,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> CrossValidated:
    """Predict every picture from its voxel pattern, fold by fold.

    Parameters
    ----------
    voxels : array_like of shape (n, voxel)
    pictures : array_like of shape (n, ...)
    classes : array_like of str, shape (n,)
    methods : mapping of str to callable, optional
        Beside the baselines; see `Predictor`. Everything that a method learns, an autoencoder or
        a generator too, it learns from the training rows it is given.
    n_splits, random_state
        Of `picture_folds`.
    progress : callable, optional
        As `Context.progress`.

    Returns
    -------
    CrossValidated
        The ridge's penalty is tuned inside the training rows of each fold, pixel by pixel.

    Raises
    ------
    InputError
        Where a method returns something else than a picture for each test row.
    """
    X, Y = np.asarray(voxels, dtype=np.float32), np.asarray(pictures, dtype=np.float32)
    if len(X) != len(Y) or len(Y) != len(np.asarray(classes)):
        raise DataError(f"{len(X)} patterns, {len(Y)} pictures, {len(np.asarray(classes))} classes")
    folds = picture_folds(classes, n_splits, random_state)
    names = ("ridge", "nearest", "shuffled", *(methods or {}))
    made = {name: np.empty(Y.shape, np.float32) for name in names}
    nearest, number = np.empty(len(Y), np.intp), np.empty(len(Y), np.intp)
    steps: Any = progress(folds, "folds", len(folds)) if progress else folds
    for fold, (train, test) in enumerate(steps):
        number[test] = fold
        made["ridge"][test] = TunedRidge().fit(X[train], Y[train]).predict(X[test])
        made["shuffled"][test] = (
            TunedRidge(shuffle=True, random_state=random_state + fold)
            .fit(X[train], Y[train])
            .predict(X[test])
        )
        near, _ = nearest_training(made["ridge"][test], Y[train], similarity="correlation")
        nearest[test] = train[near]
        made["nearest"][test] = Y[nearest[test]]
        for name, method in (methods or {}).items():
            made[name][test] = _predicted(name, method, train, test, Y.shape[1:])
    return CrossValidated(made, nearest, number)


def evaluate_pictures(
    found: CrossValidated,
    pictures: ArrayLike,
    classes: ArrayLike,
    *,
    reconstruction: str | None = None,
    n_boot: int = 2000,
    random_state: int = 0,
) -> dict[str, Estimate]:
    """Evaluate predicted pictures: identification of all methods, class of the reconstruction.

    Parameters
    ----------
    found : CrossValidated
    pictures : array_like of shape (n, ...)
    classes : array_like of str, shape (n,)
    reconstruction : str, optional
        The method whose pictures are the reconstructions.
    n_boot, random_state
        Of the intervals, over images.

    Returns
    -------
    dict of str to Estimate
        ``identify.<method>.pairwise`` and ``.within.<class>``, and for methods beside the
        baselines the paired difference ``identify.<method>.over_ridge...``. For the
        reconstruction also ``identify.reconstruction...``, the differences to the other methods
        ``...over_<other>...``, and ``reconstruct.class_accuracy``, ``.pixcorr`` and ``.ssim``,
        whose ``baseline`` is the ridge's.
    """
    Y, labels = np.asarray(pictures, dtype=np.float32), np.asarray(classes).astype(str)
    settings: dict[str, Any] = {"n_boot": n_boot, "random_state": random_state}
    methods = dict(found.pictures)
    if reconstruction is not None:
        if reconstruction not in methods:
            raise InputError(
                f"there is no method '{reconstruction}'; expected one of {', '.join(methods)}"
            )
        methods["reconstruction"] = methods[reconstruction]
    out = evaluate_identification(methods, Y, classes=labels, **settings)
    added = sorted(set(found.pictures) - set(BASELINES))
    for name in added:
        others = [m for m in added if m != name] if name == reconstruction else []
        for other in ("ridge", *others):
            out |= _over(name, other, found, Y, labels, settings)
    if reconstruction is not None:
        read = _classes_read(found, Y, labels, methods["reconstruction"])
        share = np.unique(labels, return_counts=True)[1].max() / len(labels)
        right = summarise(read == labels, n_unit="image", chance=float(share), **settings)
        if right.low == right.high:  # all right: a bootstrap gives no width
            low, high = exact_interval(float(right.value or 0), len(labels))
            right = replace(right, low=low, high=high)
        out["reconstruct.class_accuracy"] = right
        out |= _likeness(methods["reconstruction"], found.pictures["ridge"], Y, settings)
    return out


def read_class(
    training: ArrayLike, classes: ArrayLike, pictures: ArrayLike, *, random_state: int = 0
) -> NDArray[np.str_]:
    """Read the class off pictures by a classifier that knows the training stimuli only.

    Logistic regression on pixels, every picture brought to mean 0 and length 1 first, since a
    reconstruction is paler than a stimulus.

    Parameters
    ----------
    training : array_like of shape (m, ...)
        Stimuli, never reconstructions.
    classes : array_like of str, shape (m,)
    pictures : array_like of shape (n, ...)

    Returns
    -------
    ndarray of str, shape (n,)

    Examples
    --------
    >>> bars = np.array([np.eye(3)[[0]], np.eye(3)[[2]]] * 5)
    >>> read_class(bars, ["left", "right"] * 5, 0.3 * bars[:2] + 0.2).tolist()
    ['left', 'right']
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=100.0, max_iter=5000, random_state=random_state)
    model.fit(_even(training), np.asarray(classes).astype(str))
    return np.asarray(model.predict(_even(pictures))).astype(str)


# Inside ---------------------------------------------------------------------------------------


def _predicted(
    name: str,
    method: Predictor,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    shape: tuple[int, ...],
) -> Floats:
    made = np.asarray(method(train, test), dtype=np.float32)
    if made.shape != (len(test), *shape):
        raise InputError(
            f"the method '{name}' gave pictures of the shape {made.shape}, expected "
            f"{(len(test), *shape)}"
        )
    if not np.isfinite(made).all():
        raise DataError(f"the method '{name}' gave pictures with NaN or infinity")
    return made


def _over(
    name: str,
    other: str,
    found: CrossValidated,
    Y: Floats,
    labels: NDArray[np.str_],
    settings: dict[str, Any],
) -> dict[str, Estimate]:
    own, reference = (
        compare_rows(found.pictures[method], Y, similarity="correlation")
        for method in (name, other)
    )
    key = f"identify.{name}.over_{other}"
    out = {f"{key}.pairwise": compare(pairwise(own), pairwise(reference), **settings)}
    within = pairwise_within(own, labels), pairwise_within(reference, labels)
    for value in np.unique(labels):
        rows = labels == value
        out[f"{key}.within.{value}"] = compare(within[0][rows], within[1][rows], **settings)
    return out


def _likeness(
    made: Floats, ridge: Floats, Y: Floats, settings: dict[str, Any]
) -> dict[str, Estimate]:
    """Correlation of pixels and SSIM of the reconstructions, beside those of the ridge."""
    from fmri.image_metrics import evaluate_reconstruction

    def scored(pictures: Floats) -> dict[str, Estimate]:
        pair = [v if v.ndim == 4 else v[:, None] for v in (np.clip(pictures, 0, 1), Y)]
        return evaluate_reconstruction(*pair, **settings).estimates

    own, baseline = scored(made), scored(ridge)
    return {
        name: replace(own[name], baseline=baseline[name].value)
        for name in ("reconstruct.pixcorr", "reconstruct.ssim")
    }


def _classes_read(
    found: CrossValidated, Y: Floats, labels: NDArray[np.str_], made: Floats
) -> NDArray[np.str_]:
    read = np.empty_like(labels)
    for fold in np.unique(found.fold):
        test = found.fold == fold
        read[test] = read_class(Y[~test], labels[~test], made[test])
    return read


def _even(pictures: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(pictures, dtype=np.float64).reshape(len(np.asarray(pictures)), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
