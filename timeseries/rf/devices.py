"""Radio devices: imperfections of the transmitter that are frozen for each device.

In the order of the chain: IQ imbalance, DC offset (leakage of the local oscillator), ripple of
the filter, nonlinearity of the power amplifier, clock and carrier frequency offset, phase noise.
The ranges are those of cheap transmitters. The same functions take NumPy arrays and torch tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeseries.rf.twin import constant, library

__all__ = ["Devices", "draw_devices", "drifted", "transmit"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

RIPPLE_TAPS = 5


@dataclass(frozen=True)
class Devices:
    """Parameters of several devices, one row each.

    Attributes
    ----------
    pa : ndarray of complex, shape (device, 2)
        Third and fifth order of the power amplifier: ``y = x (1 + a |x|^2 + b |x|^4)``.
    gain : ndarray, shape (device,)
        Ratio of the amplitudes of Q and I.
    skew : ndarray, shape (device,)
        Error of the right angle between them, rad.
    dc : ndarray of complex, shape (device,)
        Offset, relative to the root mean square of the signal.
    ripple : ndarray of complex, shape (device, 5)
        Impulse response of the transmit filter at the sampling rate.
    cfo : ndarray, shape (device,)
        Carrier frequency offset, Hz.
    clock : ndarray, shape (device,)
        Error of the sampling clock, relative.
    linewidth : ndarray, shape (device,)
        Of the phase noise (a Wiener process), Hz.
    """

    pa: Complexes
    gain: Floats
    skew: Floats
    dc: Complexes
    ripple: Complexes
    cfo: Floats
    clock: Floats
    linewidth: Floats

    def __len__(self) -> int:
        return len(self.gain)

    def __getitem__(self, rows: Any) -> Devices:
        return Devices(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw_devices(
    n_devices: int,
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    cfo_sd: float = 10e3,
) -> Devices:
    """Draw devices.

    Parameters
    ----------
    n_devices : int
    rng : numpy.random.Generator
    strength : float
        Multiplies the spread of all imperfections but the carrier's: 0.5 are better devices.
    cfo_sd : float
        Standard deviation of the carrier frequency offset over devices, Hz.

    Returns
    -------
    Devices

    Examples
    --------
    >>> len(draw_devices(4, np.random.default_rng(0)))
    4
    """
    n, s = n_devices, strength

    def normal(scale: float, *shape: int) -> Floats:
        return scale * s * rng.standard_normal((n, *shape))

    def turned(scale: float, *shape: int) -> Complexes:
        return normal(scale / np.sqrt(2), *shape) + 1j * normal(scale / np.sqrt(2), *shape)

    ripple = turned(0.06, RIPPLE_TAPS) * 0.6 ** np.abs(np.arange(RIPPLE_TAPS) - 1)
    ripple[:, 1] += 1  # one sample of precursor
    return Devices(
        pa=np.stack([-0.06 * s + turned(0.03), turned(0.008)], axis=1),
        gain=1 + normal(0.03),
        skew=normal(0.03),
        dc=turned(0.03),
        ripple=ripple,
        cfo=cfo_sd * rng.standard_normal(n),
        clock=normal(10e-6),
        linewidth=30.0 * np.exp(0.5 * rng.standard_normal(n)),
    )


def drifted(
    devices: Devices, rng: np.random.Generator, *, cfo_sd: float = 2e3, share: float = 0.1
) -> Devices:
    """Return the same devices in another session: another temperature, a slow drift.

    Parameters
    ----------
    devices : Devices
    rng : numpy.random.Generator
    cfo_sd : float
        Drift of the carrier, Hz.
    share : float
        Relative drift of gain, skew, offset and amplifier.

    Returns
    -------
    Devices
    """
    n = len(devices)

    def factor() -> Floats:
        return 1 + share * rng.standard_normal(n)

    return replace(
        devices,
        cfo=devices.cfo + cfo_sd * rng.standard_normal(n),
        gain=1 + (devices.gain - 1) * factor(),
        skew=devices.skew * factor(),
        dc=devices.dc * factor(),
        pa=devices.pa * factor()[:, None],
    )


def transmit(x: Any, devices: Devices, sfreq: float, rng: np.random.Generator) -> Any:
    """Send bursts, each by its device.

    Parameters
    ----------
    x : complex ndarray or Tensor, shape (burst, time)
        Unit power.
    devices : Devices
        One row for each burst (`devices[rows]`).
    sfreq : float
        Hz.
    rng : numpy.random.Generator
        Of carrier phase and phase noise.

    Returns
    -------
    complex ndarray or Tensor, shape (burst, time)
    """
    xp = library(x)
    y = _imbalanced(x, devices) + constant(devices.dc, x)[:, None]
    y = _filtered(y, devices.ripple)
    power = xp.abs(y) ** 2
    a, b = (constant(devices.pa[:, k], x)[:, None] for k in range(2))
    y = y * (1 + a * power + b * power**2)
    y = _clocked(y, devices.clock)
    return y * xp.exp(1j * constant(_phases(devices, x.shape[-1], sfreq, rng), x))


def _imbalanced(x: Any, devices: Devices) -> Any:
    turn = devices.gain * np.exp(1j * devices.skew)
    direct, image = constant((1 + turn) / 2, x)[:, None], constant((1 - turn) / 2, x)[:, None]
    return direct * x + image * x.conj()


def _filtered(x: Any, taps: Complexes) -> Any:
    """Convolve each burst with its taps; the first tap is one sample of precursor."""
    xp = library(x)
    size = x.shape[-1] + taps.shape[1]
    full = xp.fft.ifft(xp.fft.fft(x, n=size) * constant(np.fft.fft(taps, size), x))
    return full[..., 1 : x.shape[-1] + 1]


def _clocked(x: Any, clock: Floats) -> Any:
    """Stretch the time axis by the clock's error, to first order (it is far below a sample)."""
    xp = library(x)
    n = x.shape[-1]
    slope = xp.fft.ifft(xp.fft.fft(x) * constant(2j * np.pi * np.fft.fftfreq(n), x))
    return x + constant(clock[:, None] * np.arange(n), x) * slope


def _phases(devices: Devices, n: int, sfreq: float, rng: np.random.Generator) -> Floats:
    start = 2 * np.pi * rng.random((len(devices), 1))
    turn = 2 * np.pi * devices.cfo[:, None] / sfreq * np.arange(n)
    step = np.sqrt(2 * np.pi * devices.linewidth / sfreq)[:, None]
    return start + turn + np.cumsum(step * rng.standard_normal((len(devices), n)), axis=1)
