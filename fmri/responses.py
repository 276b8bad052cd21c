"""Noise-free responses of simulated voxels: what a voxel would say of a picture.

Three truths. ``"linear"``: voxels are weighted sums of the leading components of the target space.
``"nonlinear"``: every second component reaches the voxels multiplied by its neighbour (a gain
field), so that no linear map brings it back. ``"gabor"``: voxels pool the energy of Gabor filters
and pixels (the forward model of Kay et al. 2008); the target space is then not the truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError

__all__ = ["TRUTHS", "clean_responses", "gabor_bank", "gabor_energy", "random_tokens"]

Floats = NDArray[np.float64]

TRUTHS = ("linear", "nonlinear", "gabor")


def clean_responses(
    pixels: ArrayLike,
    tokens: ArrayLike,
    n_voxels: int,
    *,
    truth: str = "linear",
    nonlinear: float = 0.8,
    n_components: int = 16,
    rng: np.random.Generator,
) -> Floats:
    """Draw voxels and return their responses to every stimulus, of mean 0 and variance 1.

    Parameters
    ----------
    pixels : array_like of shape (stimulus, channel, row, column)
    tokens : array_like of shape (stimulus, ...)
        The target space.
    n_voxels : int
    truth : {"linear", "nonlinear", "gabor"}
    nonlinear : float
        Share of the variance of every second component that is multiplied by its neighbour.
    n_components : int
        Leading components of the target space that drive the voxels.
    rng : Generator

    Returns
    -------
    ndarray of shape (stimulus, n_voxels)

    Raises
    ------
    InputError
        Where the truth isn't known, or `nonlinear` lies outside [0, 1].
    """
    if truth not in TRUTHS:
        raise InputError(f"truth is '{truth}'; expected one of {', '.join(TRUTHS)}")
    if not 0 <= nonlinear <= 1:
        raise InputError(f"nonlinear is {nonlinear}; expected a share from 0 to 1")
    if truth == "gabor":
        return _pooled(np.asarray(pixels), n_voxels, rng)
    hidden = _components(np.asarray(tokens), n_components)
    if truth == "nonlinear":
        hidden = _gain_fields(hidden, nonlinear)
    return _standard(hidden @ rng.standard_normal((hidden.shape[1], n_voxels)))


def _components(tokens: NDArray[Any], n: int) -> Floats:
    """Leading principal components, whitened."""
    flat = tokens.reshape(len(tokens), -1).astype(np.float64)
    left, size, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    n = min(n, int(np.sum(size > 1e-6 * size[0])))
    return _standard(left[:, :n])


def _gain_fields(hidden: Floats, share: float) -> Floats:
    """Multiply every second component by the squashed one before it."""
    out = hidden.copy()
    gate = np.tanh(2 * hidden[:, 0:-1:2])
    product = _standard(hidden[:, 1::2] * gate)
    out[:, 1::2] = np.sqrt(1 - share) * hidden[:, 1::2] + np.sqrt(share) * product
    return _standard(out)


def _pooled(pixels: NDArray[Any], n_voxels: int, rng: np.random.Generator) -> Floats:
    """Pool Gabor energies near a voxel's place, and pixels, with random weights."""
    grey = pixels.astype(np.float64).mean(1)
    energy, places = gabor_energy(grey)
    rows, columns = np.mgrid[: grey.shape[1], : grey.shape[2]]
    size = np.array(grey.shape[1:])
    at = np.column_stack([rows.ravel(), columns.ravel()]) / size
    centre = rng.uniform(0.1, 0.9, (n_voxels, 2))
    features = [_live(energy), _live(grey.reshape(len(grey), -1))]
    response = np.zeros((len(grey), n_voxels))
    for values, where in zip(features, (places, at), strict=True):
        near = np.exp(-0.5 * ((where[:, None] - centre) ** 2).sum(-1) / 0.15**2)
        response += _standard(values @ (near * rng.standard_normal(near.shape)))
    return _standard(response)


def _live(values: Floats) -> Floats:
    """Standardise; what never changes (a dark corner) is 0, not noise."""
    sd = values.std(0)
    live = sd > 1e-3 * sd.max()
    return np.where(live, (values - values.mean(0)) / np.where(live, sd, 1.0), 0.0)


def gabor_bank(
    shape: tuple[int, int],
    *,
    n_places: int = 4,
    n_orientations: int = 4,
    cycles: tuple[float, ...] = (1.5, 3.0),
) -> tuple[Floats, Floats, Floats]:
    """Gabor filters in quadrature on a grid of places.

    Parameters
    ----------
    shape : (row, column)
        Of the pictures.
    n_places : int
        Along either side.
    n_orientations : int
    cycles : tuple of float
        Spatial frequencies, cycles per picture.

    Returns
    -------
    even, odd : ndarray of shape (filter, row * column)
        Without a mean, of unit length.
    places : ndarray of shape (filter, 2)
        Centres, as shares of rows and columns.

    Examples
    --------
    >>> even, odd, places = gabor_bank((8, 8))
    >>> even.shape, places.shape
    ((128, 64), (128, 2))
    """
    steps = (np.arange(n_places) + 0.5) / n_places
    angles = np.pi * np.arange(n_orientations) / n_orientations
    grid = np.meshgrid(steps, steps, angles, cycles, indexing="ij")
    y0, x0, angle, frequency = (part.ravel()[:, None] for part in grid)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = (rows.ravel() + 0.5) / shape[0] - y0, (columns.ravel() + 0.5) / shape[1] - x0
    window = np.exp(-0.5 * (x**2 + y**2) * (2.5 * frequency) ** 2)
    phase = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
    even, odd = (_filters(window, wave) for wave in (np.cos(phase), np.sin(phase)))
    return even, odd, np.column_stack([y0[:, 0], x0[:, 0]])


def _filters(window: Floats, wave: Floats) -> Floats:
    """Take the mean off under the window, and scale to unit length."""
    mean = (window * wave).sum(1, keepdims=True) / window.sum(1, keepdims=True)
    out = window * (wave - mean)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def gabor_energy(pictures: ArrayLike, **settings: Any) -> tuple[Floats, Floats]:
    """Energy of the Gabor filters of `gabor_bank`: the length of the quadrature pair's answer.

    Parameters
    ----------
    pictures : array_like of shape (picture, row, column)
    **settings
        Of `gabor_bank`.

    Returns
    -------
    energy : ndarray of shape (picture, filter)
    places : ndarray of shape (filter, 2)

    Examples
    --------
    >>> gabor_energy(np.ones((2, 8, 8)))[0].max().round(9)  # an even picture has no edge
    np.float64(0.0)
    """
    values = np.asarray(pictures, dtype=np.float64)
    even, odd, places = gabor_bank((values.shape[1], values.shape[2]), **settings)
    flat = values.reshape(len(values), -1)
    return np.hypot(flat @ even.T, flat @ odd.T), places


def random_tokens(pixels: ArrayLike, n_tokens: int, n_features: int, seed: int = 0) -> Floats:
    """Tokens of a fixed random network: soft windows on a grid, random weights, tanh.

    Parameters
    ----------
    pixels : array_like of shape (picture, channel, row, column)
        In [0, 1].
    n_tokens : int
        The first square number of windows that suffices is laid out, the rest is left away.
    n_features : int
    seed : int

    Returns
    -------
    ndarray of shape (picture, n_tokens, n_features)
        In (-1, 1).

    Examples
    --------
    >>> random_tokens(np.ones((3, 1, 8, 8)), 4, 5).shape
    (3, 4, 5)
    """
    values = np.asarray(pixels, dtype=np.float64)
    side = int(np.ceil(np.sqrt(n_tokens)))
    rows, columns = np.mgrid[: values.shape[2], : values.shape[3]]
    y, x = (rows + 0.5) / values.shape[2], (columns + 0.5) / values.shape[3]
    rng = np.random.default_rng(seed)
    tokens = np.empty((len(values), n_tokens, n_features))
    for token in range(n_tokens):
        row, column = (token // side + 0.5) / side, (token % side + 0.5) / side
        window = np.exp(-0.5 * ((y - row) ** 2 + (x - column) ** 2) * (1.5 * side) ** 2)
        seen = (values * window).reshape(len(values), -1)
        weights = rng.standard_normal((seen.shape[1], n_features))
        weights *= 2.0 / np.sqrt(np.square(window).sum() * values.shape[1])
        tokens[:, token] = np.tanh(seen @ weights + 0.3 * rng.standard_normal(n_features))
    return tokens


def _standard(values: Floats) -> Floats:
    centred = values - values.mean(0)
    sd = centred.std(0)
    return centred / np.where(sd > 0, sd, 1.0)
