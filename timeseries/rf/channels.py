"""What lies between a device and the receiver: multipath, drawn anew for every burst, and noise.

A channel is block-fading: it does not change within a burst. A tapped delay line of complex
Gaussian taps with a power delay profile is applied in the frequency domain, so that delays need
not fall on samples. The same functions take NumPy arrays and torch tensors.

References
----------
3GPP TR 38.901, tables 7.7.2-1 to 7.7.2-3 (TDL-A, -B, -C: no line of sight).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import InputError
from timeseries.rf.twin import constant, library, pad_fft

__all__ = ["PROFILES", "Profile", "Taps", "add_noise", "draw_taps", "pass_through", "profile"]

Floats = NDArray[np.float64]

_TDL = {
    "tdl-a": (
        "0 .3819 .4025 .5868 .4610 .5375 .6708 .5750 .7618 1.5375 1.8978 2.2242 2.1718 2.4942 "
        "2.5119 3.0582 4.0810 4.4579 4.5695 4.7966 5.0066 5.3043 9.6586",
        "-13.4 0 -2.2 -4 -6 -8.2 -9.9 -10.5 -7.5 -15.9 -6.6 -16.7 -12.4 -15.2 -10.8 -11.3 -12.7 "
        "-16.2 -18.3 -18.9 -16.6 -19.9 -29.7",
    ),
    "tdl-b": (
        "0 .1072 .2155 .2095 .2870 .2986 .3752 .5055 .3681 .3697 .5700 .5283 1.1021 1.2756 1.5474 "
        "1.7842 2.0169 2.8294 3.0219 3.6187 4.1067 4.2790 4.7834",
        "0 -2.2 -4 -3.2 -9.8 -1.2 -3.4 -5.2 -7.6 -3 -8.9 -9 -4.8 -5.7 -7.5 -1.9 -7.6 -12.2 -9.8 "
        "-11.4 -14.9 -9.2 -11.3",
    ),
    "tdl-c": (
        "0 .2099 .2219 .2329 .2176 .6366 .6448 .6560 .6584 .7935 .8213 .9336 1.2285 1.3083 2.1704 "
        "2.7105 4.2589 4.6003 5.4902 5.6077 6.3065 6.6374 7.0427 8.6523",
        "-4.4 -1.2 -3.5 -5.2 -2.5 0 -2.2 -3.9 -7.4 -7.1 -10.7 -11.1 -5.1 -6.8 -8.7 -13.2 -13.9 "
        "-13.9 -15.8 -17.1 -16 -15.7 -21.6 -22.8",
    ),
}
PROFILES = ("los", "rician", "exponential", *_TDL)
_EXPONENTIAL_TAPS = 16


@dataclass(frozen=True)
class Profile:
    """A power delay profile.

    Attributes
    ----------
    delays : ndarray, shape (tap,)
        s.
    powers : ndarray, shape (tap,)
        Mean power of each tap; they add up to 1 with the line of sight.
    line_of_sight : float
        Power of a steady first path (0: none; 1: nothing else).
    """

    delays: Floats
    powers: Floats
    line_of_sight: float = 0.0


def profile(kind: str, delay_spread: float = 1e-7, k_factor: float = 6.0) -> Profile:
    """Return a power delay profile.

    Parameters
    ----------
    kind : {"los", "rician", "exponential", "tdl-a", "tdl-b", "tdl-c"}
    delay_spread : float
        Root mean square, in s.
    k_factor : float
        Power of the line of sight over that of all else, in dB; for ``rician`` alone.

    Returns
    -------
    Profile

    Raises
    ------
    InputError
        Where the kind is unknown or the spread is not positive.

    Examples
    --------
    >>> a = profile("tdl-a", 1e-7)
    >>> len(a.delays), round(float(a.powers.sum()), 6)
    (23, 1.0)
    """
    if kind not in PROFILES:
        raise InputError(f"channel {kind!r} is none of {', '.join(PROFILES)}")
    if kind == "los":
        return Profile(np.zeros(1), np.zeros(1), 1.0)
    if delay_spread <= 0:
        raise InputError(f"delay_spread is {delay_spread:g} s; expected more than 0")
    if kind in _TDL:
        delays, decibels = (np.array(text.split(), float) for text in _TDL[kind])
        return Profile(delays * delay_spread, _normed(10 ** (decibels / 10)))
    delays = np.linspace(0, 5 * delay_spread, _EXPONENTIAL_TAPS)
    powers = _normed(np.exp(-delays / delay_spread))
    if kind == "exponential":
        return Profile(delays, powers)
    ratio = 10 ** (k_factor / 10)
    return Profile(delays, powers / (1 + ratio), ratio / (1 + ratio))


def _normed(powers: Floats) -> Floats:
    return powers / powers.sum()


@dataclass(frozen=True)
class Taps:
    """Channels of several bursts.

    Attributes
    ----------
    gains : ndarray of complex, shape (burst, tap)
    delays : ndarray, shape (tap,) or (burst, tap)
        s. Those that all bursts share are much quicker.
    """

    gains: Any
    delays: Any


def draw_taps(given: Profile, n_bursts: int, rng: np.random.Generator) -> Taps:
    """Draw the channel of every burst.

    Parameters
    ----------
    given : Profile
    n_bursts : int
    rng : numpy.random.Generator

    Returns
    -------
    Taps
        Taps are complex Gaussian of the profile's powers, which gives Rayleigh or, with a line
        of sight of random phase, Rician amplitudes.

    Examples
    --------
    >>> taps = draw_taps(profile("tdl-b"), 5, np.random.default_rng(0))
    >>> taps.gains.shape
    (5, 23)
    """
    shape = (n_bursts, len(given.delays))
    noise = rng.standard_normal((*shape, 2)) @ np.array([1, 1j])
    gains = noise * np.sqrt(given.powers / 2)
    gains[:, 0] += np.sqrt(given.line_of_sight) * np.exp(2j * np.pi * rng.random(n_bursts))
    return Taps(gains, given.delays)


def pass_through(x: Any, taps: Taps, sfreq: float) -> Any:
    """Send bursts through their channels.

    Parameters
    ----------
    x : complex ndarray or Tensor, shape (burst, time)
    taps : Taps
        Of NumPy arrays, which go to the device of `x`; or of tensors on it.
    sfreq : float
        Hz.

    Returns
    -------
    complex ndarray or Tensor, shape (burst, time)
        The linear convolution, cut to the burst's length.
    """
    xp = library(x)
    n = x.shape[-1]
    longest = int(np.ceil(float(taps.delays.max()) * sfreq)) + 1
    size = pad_fft(n, longest)
    frequencies = constant(np.fft.fftfreq(size, 1 / sfreq), x)
    gains, delays = constant(taps.gains, x), constant(taps.delays, x)
    if delays.ndim == 1:
        response = gains @ xp.exp(-2j * np.pi * delays[:, None] * frequencies)
    else:
        response = xp.zeros((len(gains), size), dtype=gains.dtype, **_device(x))
        for tap in range(gains.shape[1]):  # a burst x tap x frequency array would be large
            turn = -2 * np.pi * delays[:, tap, None] * frequencies
            response = response + gains[:, tap, None] * xp.exp(1j * turn)
    return xp.fft.ifft(xp.fft.fft(x, n=size) * response)[..., :n]


def add_noise(x: Any, snr: ArrayLike, rng: np.random.Generator) -> Any:
    """Add white Gaussian noise.

    Parameters
    ----------
    x : complex ndarray or Tensor, shape (burst, time)
    snr : float or array_like, shape (burst,)
        Signal to noise, dB, by the power that each burst has.
    rng : numpy.random.Generator

    Returns
    -------
    complex ndarray or Tensor, shape (burst, time)
    """
    xp = library(x)
    noise = constant(rng.standard_normal((*x.shape, 2)) @ np.array([1, 1j]) / np.sqrt(2), x)
    power = (xp.abs(x) ** 2).mean(-1)
    level = constant(10 ** (-np.asarray(snr, float) / 20), x) * power**0.5
    return x + level[..., None] * noise


def _device(x: Any) -> dict[str, Any]:
    return {} if library(x) is np else {"device": x.device}
