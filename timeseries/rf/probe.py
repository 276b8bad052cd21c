"""What leaks, by classifiers that took no part in training; and what swapping does.

A background that says nothing of the device leaves a *fresh* classifier at chance, and a
fingerprint that says nothing of the channel does too. The same fresh classifier on the bursts
themselves shows that it could have found the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuro.errors import DataError
from neuro.validation import Estimate, summarise
from timeseries.rf.drrff import DRRFF

__all__ = ["probe"]

Floats = NDArray[np.float32]


def probe(
    encoder: DRRFF,
    data: xr.Dataset,
    *,
    max_epochs: int = 30,
    random_state: int = 0,
    progress: Callable[..., Iterator[Any]] | None = None,
) -> dict[str, Estimate]:
    """Probe backgrounds and fingerprints for what should not be in them.

    Parameters
    ----------
    encoder : DRRFF
        Trained with `disentangle`.
    data : Dataset
        Split bursts; classifiers are trained on the training bursts of known devices and scored
        on their test bursts in the channel and session of the training.
    max_epochs : int
        Of the fresh classifiers.
    random_state : int
    progress : callable, optional

    Returns
    -------
    dict of str to Estimate
        ``leak.background.device``: accuracy of the device from the background (chance 1 / K);
        ``leak.burst.device``: from the burst itself; ``leak.fingerprint.channel``: of the channel
        (as trained, or unseen) from the fingerprint, tested on other devices than trained on;
        ``swap.device``: how often a signal of device A with the background of B passes for A;
        ``swap.background``: how often it passes for B. Intervals are over devices.
    """
    part, group = (data[k].values.astype(str) for k in ("part", "group"))
    unseen, later = data["unseen"].values, data["later"].values
    train = np.flatnonzero((part == "train") & (group == "known"))
    test = np.flatnonzero((part == "test") & (group == "known") & ~unseen & ~later)
    if not len(train) or not len(test):
        raise DataError("probes need training and test bursts of known devices")
    signal, device = data["signal"], data["device"].values.astype(str)
    seen, held = signal.isel(trial=train), signal.isel(trial=test)
    rng = np.random.default_rng(random_state)
    donors = rng.permutation(len(test))
    options: dict[str, Any] = {
        "max_epochs": max_epochs,
        "random_state": random_state,
        "device": encoder.device,
    }

    def fresh(values: Floats) -> DRRFF:
        return DRRFF(disentangle=False, **options).fit(
            _unit(values), device[train], progress=progress
        )

    def hits(classifier: DRRFF, values: Floats, truth: Any) -> Estimate:
        right = (classifier.predict(_unit(values)) == truth).astype(float)
        return summarise(
            right, units=device[test], n_unit="device", chance=1 / len(classifier.classes_),
            random_state=random_state,
        )  # fmt: skip

    on_bursts = fresh(seen.values)
    on_backgrounds = fresh(encoder.background(seen))
    made = encoder.swap(held, held.isel(trial=donors))
    others = device[test] != device[test][donors]  # a swap with oneself shows nothing
    return {
        "leak.burst.device": hits(on_bursts, held.values, device[test]),
        "leak.background.device": hits(on_backgrounds, encoder.background(held), device[test]),
        **_channel_leak(encoder, data, random_state),
        **_swapped(on_bursts, made, device[test], device[test][donors], others, random_state),
    }


def _unit(values: Floats) -> Floats:
    import torch

    from timeseries.rf.augment import unit_power

    return np.asarray(unit_power(torch.from_numpy(np.ascontiguousarray(values))))


def _swapped(
    classifier: DRRFF, made: Floats, ours: Any, theirs: Any, others: Any, seed: int
) -> dict[str, Estimate]:
    found = classifier.predict(_unit(made))[others]
    chance = 1 / len(classifier.classes_)
    return {
        f"swap.{name}": summarise(
            (found == truth[others]).astype(float), units=ours[others], n_unit="device",
            chance=chance, random_state=seed,
        )
        for name, truth in (("device", ours), ("background", theirs))
    }  # fmt: skip


def _channel_leak(encoder: DRRFF, data: xr.Dataset, seed: int) -> dict[str, Estimate]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    part, later = data["part"].values.astype(str), data["later"].values
    rows = np.flatnonzero((part == "test") & ~later)
    unseen, device = data["unseen"].values[rows], data["device"].values.astype(str)[rows]
    if unseen.all() or not unseen.any():
        return {}
    codes = np.asarray(encoder.transform(data["signal"].isel(trial=rows)))
    codes = codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12)
    names = np.random.default_rng(seed).permutation(np.unique(device))
    first = np.isin(device, names[: len(names) // 2])
    right = np.zeros(len(rows))
    for train in (first, ~first):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(codes[train], unseen[train])
        right[~train] = model.predict(codes[~train]) == unseen[~train]
    found = summarise(right, units=device, n_unit="device", chance=0.5, random_state=seed)
    return {"leak.fingerprint.channel": found}
