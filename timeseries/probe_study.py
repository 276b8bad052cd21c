"""What codes of series are good for: linear and k-NN probes, clusters, anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.data import as_signal
from neuro.errors import DataError, InputError
from neuro.validation import summarise
from timeseries.adapt_study import supervised
from timeseries.downstream import SeriesPCA, summary_features
from timeseries.series_study import identity

if TYPE_CHECKING:
    from neuro.stage import Context

__all__ = ["anomaly_scores", "downstream", "spoiled"]

TASKS = ("linear", "knn")


def downstream(
    data: xr.Dataset, models: Sequence[Any], settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Probe encoders beside plain features.

    Parameters
    ----------
    data : Dataset
        With ``part``: probes are fitted on its training part and scored on its test part.
    models : sequence of encoder
    settings : dict
        ``label``, ``group``, ``n_components``, ``network`` (of a supervised network beside; None
        trains none), ``seed``.
    context : Context

    Returns
    -------
    DataFrame
        One row for each model.
    """
    from timeseries.dts_study import names_of

    label = data[settings["label"]].values.astype(str)
    part = data["part"].values.astype(str) if "part" in data.coords else None
    if part is None or not {"train", "test"} <= set(part):
        raise DataError("probes need a training and a test part; put ts-split before")
    train, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
    if settings["group"] not in data.coords:
        raise InputError(f"there is no coordinate '{settings['group']}'")
    units = data[settings["group"]].values[test]
    names = names_of(models)
    pca = SeriesPCA(settings["n_components"], settings["seed"])
    pca.fit(as_signal(data.isel(trial=train)))
    every = _codes(data, {**dict(zip(names, models, strict=True)), "pca": pca}, train, settings)
    chance = float(np.unique(label[test], return_counts=True)[1].max() / len(test))
    rows = []
    for name, codes in every.items():
        row: dict[str, Any] = {"model": name}
        for task in TASKS:
            model = _probe(task).fit(codes[train], label[train])
            right = (model.predict(codes[test]) == label[test]).astype(float)
            found = summarise(right, units=units, n_unit=settings["group"], chance=chance)
            found.record(context, f"probe.{name}.{task}.accuracy")
            row[task] = found.value
        row |= _clusters(codes[test], label[test], settings["seed"])
        rows.append(row)
    for name, model in zip([*names, "pca"], [*models, pca], strict=True):
        area = _anomalies(model, as_signal(data.isel(trial=test)), settings["seed"])
        if area is not None:
            context.metric(f"anomaly.{name}.auc", area, chance=0.5, n=len(test), n_unit="series")
            next(row for row in rows if row["model"] == name)["anomaly AUC"] = area
    context.scored(identity(data, test))
    context.method(
        f"Linear and k-NN probes were fitted on {len(train)} series and scored on {len(test)} of "
        f"{len(np.unique(units))} other {settings['group']}s."
    )
    _tell(rows, chance, settings, context)
    return pd.DataFrame(rows)


def _codes(
    data: xr.Dataset, models: dict[str, Any], train: Any, settings: dict[str, Any]
) -> dict[str, NDArray[Any]]:
    signal = as_signal(data)
    mask = signal["mask"].values if "mask" in signal.coords else None
    codes = {name: np.asarray(model.transform(signal)) for name, model in models.items()}
    codes["raw"] = summary_features(signal.values, mask)
    if settings["network"] is not None:
        label = data[settings["label"]].values.astype(str)
        network = supervised(settings["network"], settings["seed"], signal, train, label[train])
        codes["supervised"] = np.asarray(network.segment(signal, "g_y"))
    return codes


def _probe(task: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kinds = {"linear": LogisticRegression(C=0.1, max_iter=500), "knn": KNeighborsClassifier(5)}
    return make_pipeline(StandardScaler(), kinds[task])


def _clusters(codes: NDArray[Any], label: NDArray[Any], seed: int) -> dict[str, float]:
    """Return how k-means with as many clusters as classes agrees with them."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    scale = np.maximum(codes.std(0), 1e-12)
    found = KMeans(len(np.unique(label)), n_init=5, random_state=seed).fit_predict(codes / scale)
    return {
        "clusters ARI": float(adjusted_rand_score(label, found)),
        "clusters NMI": float(normalized_mutual_info_score(label, found)),
    }


def spoiled(
    values: NDArray[Any], random_state: int = 0, length: NDArray[np.intp] | None = None
) -> NDArray[Any]:
    """Return series with a tenth of their samples, in one stretch, in reverse sign and doubled.

    Parameters
    ----------
    values : ndarray, shape (trial, channel, time)
    random_state : int
    length : ndarray of int, shape (trial,), optional
        Real samples of each; what follows is left as it is.

    Examples
    --------
    >>> x = np.ones((2, 1, 40))
    >>> (spoiled(x, length=np.array([40, 20])) != x).sum(-1).ravel().tolist()
    [4, 2]
    """
    n = np.full(len(values), values.shape[-1]) if length is None else length
    size = np.maximum(1, n // 10)
    start = np.random.default_rng(random_state).integers(0, n - size + 1)[:, None]
    place = np.arange(values.shape[-1])
    inside = (place >= start) & (place < start + size[:, None])
    return np.where(inside[:, None], -2 * values, values)


def anomaly_scores(
    model: Any, signal: xr.DataArray, scale: NDArray[Any] | float = 1.0
) -> NDArray[np.float64]:
    """Return the mean squared error of each series' reconstruction, over its real samples.

    Parameters
    ----------
    model : encoder with ``inverse_transform``
    signal : DataArray (trial, channel, time)
    scale : ndarray, shape (1, channel, 1)
        Errors are divided by it.

    Returns
    -------
    ndarray, shape (trial,)
    """
    again = np.asarray(model.inverse_transform(np.asarray(model.transform(signal))))
    error = ((again - signal.values) / scale) ** 2
    if "mask" not in signal.coords:
        return np.asarray(error.mean((1, 2)))
    real = signal["mask"].values
    return np.asarray((error.mean(1) * real).sum(1) / real.sum(1))


def _anomalies(model: Any, signal: xr.DataArray, seed: int) -> float | None:
    from sklearn.metrics import roc_auc_score

    if not hasattr(model, "inverse_transform"):
        return None
    scale = np.maximum(signal.values.std(axis=(0, 2), keepdims=True), 1e-12)
    length = signal["mask"].values.sum(1) if "mask" in signal.coords else None
    bad = signal.copy(data=spoiled(signal.values, seed, length).astype(np.float32))
    both = [anomaly_scores(model, series, scale) for series in (signal, bad)]
    truth = np.repeat([0, 1], len(signal))
    return float(roc_auc_score(truth, np.concatenate(both)))


def _tell(
    rows: list[dict[str, Any]], chance: float, settings: dict[str, Any], context: Context
) -> None:
    from neuro.report import Table

    context.section("What codes are good for", Table(rows, (
        f"Accuracy of '{settings['label']}' on the test part by probes fitted on the training part "
        f"(commonest class {chance:.3f}); agreement of k-means clusters with the classes; AUC of "
        "the reconstruction error between series and the same with a tenth of their samples "
        "reversed and doubled. 'raw' are simple statistics of each channel; 'supervised' is the "
        "code of a network that was trained on the labels of the training part, and a DTS among "
        "the encoders was shown these labels too."
    )))  # fmt: skip
