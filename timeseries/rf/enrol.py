"""Enrolment: a few bursts of each device make its template; new bursts are verified against them.

The score of a burst against a device is the cosine of their fingerprints. A burst whose best
score lies below the threshold is of a device never seen.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.errors import ContractError, DataError
from neuro.metrics.similarity import compare_rows
from neuro.metrics.verification import score_auc_eer

__all__ = ["NEVER_SEEN", "Enrolled", "enrol", "from_dataset", "threshold_of"]

NEVER_SEEN = "never seen"


class Enrolled:
    """Templates of devices, and the threshold of their scores.

    Parameters
    ----------
    templates : ndarray, shape (device, latent)
        Unit length.
    devices : sequence of str
    threshold : float
        Smallest cosine at which a burst counts as a device's. NaN is none: every burst then goes
        to its nearest device, and nothing is called never seen.

    Examples
    --------
    >>> two = Enrolled(np.eye(2), ["a", "b"], 0.8)
    >>> two.verdicts([[2.0, 0.1], [1.0, 1.0]])["verdict"].tolist()
    ['a', 'never seen']
    """

    def __init__(self, templates: ArrayLike, devices: ArrayLike, threshold: float) -> None:
        self.templates = np.asarray(templates, np.float32)
        self.devices = np.asarray(devices, str)
        self.threshold = float(threshold)

    def scores(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Return the cosine of every burst with every template: (burst, device)."""
        codes = np.asarray(codes, np.float32)
        if codes.shape[1] != self.templates.shape[1]:
            raise ContractError(
                f"fingerprints have {codes.shape[1]} values, those enrolled "
                f"{self.templates.shape[1]}: they are of another encoder"
            )
        return compare_rows(codes, self.templates)

    def verdicts(self, codes: ArrayLike) -> pd.DataFrame:
        """Say of every burst which device it is of, or that it was never seen.

        Returns
        -------
        DataFrame
            ``verdict``, ``nearest`` (device), ``score``, ``runner_up`` (the second-best score).
        """
        scores = self.scores(codes)
        best = scores.argmax(1)
        top = scores[np.arange(len(scores)), best]
        ordered = np.sort(scores, axis=1)
        second = ordered[:, -2] if scores.shape[1] > 1 else np.full(len(scores), -1.0)
        nearest = self.devices[best]
        verdict = np.where(top < self.threshold, NEVER_SEEN, nearest)
        return pd.DataFrame({
            "verdict": verdict, "nearest": nearest, "score": top, "runner_up": second,
        })  # fmt: skip

    def to_dataset(self, encoder: str) -> xr.Dataset:
        """Return the templates as a dataset, for ``neuro decode --enrolled``."""
        attrs: dict[str, str | float] = {"kind": "enrolled", "encoder": encoder}
        if not math.isnan(self.threshold):
            attrs["threshold"] = self.threshold
        return xr.Dataset(
            {"signal": (("trial", "latent"), self.templates)},
            {"device": ("trial", self.devices)},
            attrs,
        )


def enrol(codes: ArrayLike, device: ArrayLike, threshold: float) -> Enrolled:
    """Make the template of each device: the mean direction of its fingerprints.

    Parameters
    ----------
    codes : array_like, shape (burst, latent)
    device : array_like of str, shape (burst,)
    threshold : float
        See `threshold_of`.

    Returns
    -------
    Enrolled

    Raises
    ------
    DataError
        Where a burst bears no name, or there is none.
    """
    names, number = np.unique(np.asarray(device, str), return_inverse=True)
    if not len(names) or "" in names:
        raise DataError("every burst to enrol needs the name of its device")
    values = np.asarray(codes, np.float64)
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    total = np.zeros((len(names), values.shape[1]))
    np.add.at(total, number, unit)
    length = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return Enrolled(total / length, names, threshold)


def threshold_of(codes: ArrayLike, device: ArrayLike, enrolled: Enrolled) -> float:
    """Return the score at which as many wrong devices are accepted as right ones rejected.

    Parameters
    ----------
    codes : array_like, shape (burst, latent)
        Of *validation* devices, which are neither trained on nor tested, other bursts than those
        enrolled.
    device : array_like of str, shape (burst,)
    enrolled : Enrolled
        Of the same devices.

    Returns
    -------
    float
    """
    scores = enrolled.scores(codes)
    right = np.asarray(device, str)[:, None] == enrolled.devices
    return score_auc_eer(scores.ravel(), right.ravel())[2]


def from_dataset(data: xr.Dataset, latents: int) -> Enrolled:
    """Read templates that `Enrolled.to_dataset` made.

    Raises
    ------
    ContractError
        Where it is something else, or of an encoder of another size.
    """
    if data.attrs.get("kind") != "enrolled":
        raise ContractError("this dataset holds no enrolled devices; make it by rf-enrol")
    if data["signal"].shape[1] != latents:
        raise ContractError(
            f"enrolled fingerprints have {data['signal'].shape[1]} values, the encoder gives "
            f"{latents}: they are of another encoder"
        )
    threshold = data.attrs.get("threshold", math.nan)
    return Enrolled(data["signal"].values, data["device"].values, threshold)
