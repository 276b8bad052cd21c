"""The eight metrics of reconstructed pictures, as the MindEye papers compute them.

Pictures are brought to 256 x 256 and from there to the size of each metric. Pixel correlation and
structural similarity need nothing else; the six that compare features of a network need its
weights as a local file, and without it say so instead of giving a number.

References
----------
Scotti et al., "Reconstructing the Mind's Eye" (NeurIPS 2023), section 3.3.
Wang et al., "Image quality assessment" (IEEE TIP 2004), for SSIM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmri.metric_networks import NETWORKS, features, file_digest, resized
from neuro.errors import DataError, InputError
from neuro.metrics.retrieval import compare_rows, pairwise
from neuro.validation import Estimate, summarise

__all__ = [
    "METRICS",
    "ReconstructionScores",
    "correlation_distance",
    "evaluate_reconstruction",
    "pixel_correlation",
    "ssim",
    "two_way",
]

Floats = NDArray[np.float64]

COMMON, PIXEL = 256, 425
_AT_ONCE = 16  # pictures of 425 x 425
METRICS = {
    "pixcorr": "PixCorr", "ssim": "SSIM", "alexnet2": "AlexNet(2)", "alexnet5": "AlexNet(5)",
    "inception": "Inception", "clip": "CLIP", "effnet_b1": "EffNet-B", "swav": "SwAV",
}  # fmt: skip
"""Metrics and their names in the papers' tables, in their order."""
DISTANCES = ("effnet_b1", "swav")  # lower is better


@dataclass(frozen=True)
class ReconstructionScores:
    """The metrics of a set of reconstructions.

    Attributes
    ----------
    estimates : dict of str to Estimate
        ``reconstruct.<metric>``; value None where something is missing.
    missing : dict of str to str
        Metric, and what is missing for it.
    per_picture : dict of str to ndarray, shape (picture,)
    weights : dict of str to str
        Hash of each weight file that was used.
    """

    estimates: dict[str, Estimate]
    missing: dict[str, str]
    per_picture: dict[str, Floats]
    weights: dict[str, str]

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of a table: ``metric, value, interval, chance``, as text.

        A cell of a metric that can't be computed says what is missing.
        """
        return [self._row(metric) for metric in METRICS]

    def _row(self, metric: str) -> dict[str, str]:
        name = METRICS[metric] + (" (lower is better)" if metric in DISTANCES else "")
        estimate = self.estimates[f"reconstruct.{metric}"]
        if estimate.value is None:
            return {"metric": name, "value": self.missing[metric], "interval": "", "chance": ""}
        known = estimate.low is not None and estimate.high is not None
        return {
            "metric": name,
            "value": f"{estimate.value:.3f}",
            "interval": f"[{estimate.low:.3f}, {estimate.high:.3f}]" if known else "",
            "chance": "" if estimate.chance is None else f"{estimate.chance:g}",
        }


def evaluate_reconstruction(
    reconstructed: ArrayLike,
    real: ArrayLike,
    *,
    weights: Mapping[str, str | Path] | None = None,
    stimulus: ArrayLike | None = None,
    antialias: bool = False,
    batch_size: int = 32,
    device: str = "cpu",
    n_boot: int = 2000,
    random_state: int = 0,
) -> ReconstructionScores:
    """Compute the eight metrics, with intervals over images.

    Parameters
    ----------
    reconstructed, real : array_like of shape (picture, channel, row, column)
        In [0, 1], 1 or 3 channels, of any sizes, in the same order.
    weights : mapping of str to path, optional
        ``alexnet``, ``inception``, ``clip``, ``effnet_b1``, ``swav``: safetensors files.
    stimulus : array_like of str, shape (picture,), optional
        Units of the intervals (several subjects may have seen a picture).
    antialias : bool
        Of every resize; False as in the published numbers.
    batch_size, device
        Of the networks.
    n_boot, random_state
        Of the intervals.

    Returns
    -------
    ReconstructionScores

    Raises
    ------
    DataError
        Where the sets differ in number or hold values outside [0, 1].
    InputError
        Where `weights` names an unknown network.
    """
    seen, made = _pair(reconstructed, real, antialias)
    weights = dict(weights or {})
    unknown = sorted(set(weights) - set(NETWORKS))
    if unknown:
        raise InputError(f"weights of {', '.join(unknown)}; expected {', '.join(NETWORKS)}")
    scores = {"pixcorr": _by_block(_pixcorr, made, seen, antialias)}
    missing: dict[str, str] = {}
    try:
        scores["ssim"] = _by_block(_ssim, made, seen, antialias)
    except ImportError:
        missing["ssim"] = "scikit-image is not installed"
    for name, network in NETWORKS.items():
        if weights.get(name) is None:
            lack = f"weights of {network.arch} missing (weights: {name}: FILE.safetensors)"
            missing |= dict.fromkeys(network.layers, lack)
            continue
        scores |= _network(name, weights[name], made, seen, antialias, batch_size, device)
    if len(made) < 2:
        scores, missing = _without_two_way(scores, missing)
    settings = {"n_boot": n_boot, "random_state": random_state}
    return ReconstructionScores(
        _estimates(scores, stimulus, settings),
        missing,
        scores,
        {name: file_digest(path) for name, path in weights.items() if path is not None},
    )


def pixel_correlation(
    reconstructed: ArrayLike, real: ArrayLike, *, antialias: bool = False
) -> Floats:
    """Pearson correlation over all pixels and channels at 425 x 425, for each picture.

    Examples
    --------
    >>> picture = np.random.default_rng(0).random((1, 1, 8, 8))
    >>> pixel_correlation(picture, picture).round(3).tolist()
    [1.0]
    """
    seen, made = _pair(reconstructed, real, antialias)
    return _by_block(_pixcorr, made, seen, antialias)


def ssim(reconstructed: ArrayLike, real: ArrayLike, *, antialias: bool = False) -> Floats:
    """Structural similarity in grey at 425 x 425, for each picture.

    By scikit-image with Gaussian weights (sigma 1.5), without the sample covariance, data range 1.

    Examples
    --------
    >>> picture = np.random.default_rng(0).random((1, 3, 8, 8))
    >>> ssim(picture, picture).round(3).tolist()
    [1.0]
    """
    seen, made = _pair(reconstructed, real, antialias)
    return _by_block(_ssim, made, seen, antialias)


def two_way(reconstructed: ArrayLike, real: ArrayLike) -> Floats:
    """Two-way identification by features: share of wrong pictures less alike than the right one.

    Parameters
    ----------
    reconstructed, real : array_like of shape (picture, ...)
        Features.

    Returns
    -------
    ndarray of shape (picture,)
        Chance 0.5.
    """
    return pairwise(compare_rows(reconstructed, real, similarity="correlation"))


def correlation_distance(a: ArrayLike, b: ArrayLike) -> Floats:
    """One minus Pearson's correlation of each row of `a` with that of `b`.

    Examples
    --------
    >>> correlation_distance([[0.0, 1.0, 2.0]], [[2.0, 1.0, 0.0]]).round(6).tolist()
    [2.0]
    """
    return 1 - _row_correlation(np.asarray(a), np.asarray(b))


# Inside ---------------------------------------------------------------------------------------


def _pair(reconstructed: ArrayLike, real: ArrayLike, antialias: bool) -> tuple[Any, Any]:
    """Check both sets and bring them to the common size; real ones first."""
    made, seen = np.asarray(reconstructed), np.asarray(real)
    if len(made) != len(seen) or not len(made):
        raise DataError(f"{len(made)} reconstructions for {len(seen)} real pictures")
    for values, what in ((made, "reconstructions"), (seen, "real pictures")):
        if values.ndim != 4 or values.shape[1] not in (1, 3):
            raise DataError(
                f"the {what} have the shape {values.shape}, expected (picture, channel, row, "
                "column) with 1 or 3 channels"
            )
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and low >= -1e-3 and high <= 1 + 1e-3):
            raise DataError(f"the {what} go from {low:g} to {high:g}, expected [0, 1]; scale them")
    channels = max(made.shape[1], seen.shape[1])
    common = [
        resized(v, COMMON, antialias=antialias, channels=channels).numpy() for v in (seen, made)
    ]
    return common[0], common[1]


def _by_block(function: Any, made: Any, seen: Any, antialias: bool) -> Floats:
    """Apply a pixel metric to a few pictures at a time, at its size."""
    parts = []
    for first in range(0, len(made), _AT_ONCE):
        pair = [
            resized(v[first : first + _AT_ONCE], PIXEL, antialias=antialias).numpy()
            for v in (made, seen)
        ]
        parts.append(function(*pair))
    return np.concatenate(parts)


def _pixcorr(made: NDArray[Any], seen: NDArray[Any]) -> Floats:
    return _row_correlation(made.reshape(len(made), -1), seen.reshape(len(seen), -1))


def _ssim(made: NDArray[Any], seen: NDArray[Any]) -> Floats:
    from skimage.metrics import structural_similarity

    options: dict[str, Any] = {
        "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0,
    }  # fmt: skip
    pairs = zip(_grey(made), _grey(seen), strict=True)
    return np.array([structural_similarity(a, b, **options) for a, b in pairs])


def _grey(pictures: NDArray[Any]) -> NDArray[Any]:
    if pictures.shape[1] == 1:
        return pictures[:, 0]
    from skimage.color import rgb2gray

    return rgb2gray(np.moveaxis(pictures, 1, -1))


def _row_correlation(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Correlate rows; a flat one correlates with nothing (0)."""
    x, whole_x = _centred(a)
    y, whole_y = _centred(b)
    length = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    # What resizing and centring leave of a flat picture is rounding.
    known = (length[0] > 1e-5 * whole_x) & (length[1] > 1e-5 * whole_y)
    return np.where(
        known, np.einsum("if,if->i", x, y) / np.where(known, length[0] * length[1], 1.0), 0.0
    )


def _centred(values: NDArray[Any]) -> tuple[Floats, Floats]:
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return rows - rows.mean(1, keepdims=True), np.linalg.norm(rows, axis=1)


def _network(
    name: str, path: Any, made: Any, seen: Any, antialias: bool, batch_size: int, device: str
) -> dict[str, Floats]:
    sets = {"made": made, "seen": seen}
    found = features(name, path, sets, antialias=antialias, batch_size=batch_size, device=device)
    return {
        metric: correlation_distance(values["made"], values["seen"])
        if metric in DISTANCES
        else two_way(values["made"], values["seen"])
        if len(made) > 1
        else np.full(1, np.nan)
        for metric, values in found.items()
    }


def _without_two_way(
    scores: dict[str, Floats], missing: dict[str, str]
) -> tuple[dict[str, Floats], dict[str, str]]:
    lone = [m for m in scores if m not in ("pixcorr", "ssim", *DISTANCES)]
    kept = {m: values for m, values in scores.items() if m not in lone}
    return kept, missing | dict.fromkeys(lone, "two-way identification needs two pictures")


def _estimates(
    scores: dict[str, Floats], stimulus: ArrayLike | None, settings: dict[str, Any]
) -> dict[str, Estimate]:
    out = {}
    for metric in METRICS:
        if metric not in scores:
            out[f"reconstruct.{metric}"] = Estimate(n=0, n_unit="image")
            continue
        two = metric not in ("pixcorr", "ssim", *DISTANCES)
        out[f"reconstruct.{metric}"] = summarise(
            scores[metric], units=stimulus, n_unit="image", chance=0.5 if two else None, **settings
        )
    return out
