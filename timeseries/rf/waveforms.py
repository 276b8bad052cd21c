"""What devices send: baseband waveforms of unit power, the content drawn per burst.

Waveforms are complex baseband at the receiver's sampling rate. The ZigBee preamble is the same in
every burst and serves as the template for synchronisation; the others carry random content.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from neuro.errors import InputError

__all__ = ["CHIP_RATE", "WAVEFORMS", "oqpsk", "waveforms", "zigbee_preamble"]

Complex = NDArray[np.complex64]

CHIP_RATE = 2e6
"""Chips per second of ZigBee at 2.4 GHz (IEEE 802.15.4)."""

_ZERO = "11011001110000110101001000101110"  # the chips of symbol 0
_SYMBOLS = 8  # zeros in the preamble


def zigbee_preamble(sfreq: float, n_symbols: int = _SYMBOLS) -> Complex:
    """Return the preamble of ZigBee: zeros as O-QPSK with half-sine pulses.

    Parameters
    ----------
    sfreq : float
        Sampling rate in Hz, a whole multiple of the chip rate of 2 MHz.
    n_symbols : int
        Symbols of 16 us.

    Returns
    -------
    ndarray of complex64, shape (n_symbols * 16 us * sfreq,)
        Of unit power. The half chip by which the quadrature branch lags runs over the end and is
        cut off.

    Raises
    ------
    InputError
        Where the rate is no multiple of the chip rate.

    Examples
    --------
    >>> zigbee_preamble(4e6).shape
    (512,)
    """
    chips = np.array([int(bit) for bit in _ZERO * n_symbols])
    return oqpsk(chips[None], sfreq)[0]


def oqpsk(chips: NDArray[np.integer], sfreq: float) -> Complex:
    """Modulate chips by O-QPSK with half-sine pulses (IEEE 802.15.4, 2.4 GHz).

    Parameters
    ----------
    chips : ndarray of 0 and 1, shape (burst, chip)
        Even ones go to I, odd ones to Q.
    sfreq : float
        Sampling rate in Hz.

    Returns
    -------
    ndarray of complex64, shape (burst, chip * sfreq / 2 MHz)
    """
    per_chip = sfreq / CHIP_RATE
    if per_chip < 1 or per_chip != round(per_chip):
        raise InputError(
            f"sfreq is {sfreq:g} Hz; ZigBee needs a whole multiple of its chip rate, 2 MHz"
        )
    step = round(per_chip)
    pulse = np.sin(np.pi * np.arange(2 * step) / (2 * step))
    n = chips.shape[1] * step
    found = np.zeros((len(chips), n + step), np.complex64)
    for branch, unit in ((0, 1), (1, 1j)):
        levels = 2.0 * chips[:, branch::2] - 1
        shaped = (levels[:, :, None] * pulse).reshape(len(chips), -1)
        found[:, branch * step : branch * step + shaped.shape[1]] += unit * shaped
    return _unit_power(found[:, :n])


def waveforms(
    kind: str, n_bursts: int, n_samples: int, sfreq: float, rng: np.random.Generator
) -> Complex:
    """Draw what is sent in each burst.

    Parameters
    ----------
    kind : {"zigbee", "oqpsk", "bpsk", "qpsk", "ook", "fsk"}
        ``zigbee`` is the preamble, the same in every burst; the others have random content.
    n_bursts, n_samples : int
    sfreq : float
        Hz.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of complex64, shape (n_bursts, n_samples)
        Unit power.

    Raises
    ------
    InputError
        Where the kind is unknown or the rate doesn't suit it.

    Examples
    --------
    >>> waveforms("qpsk", 3, 256, 4e6, np.random.default_rng(0)).shape
    (3, 256)
    """
    if kind not in WAVEFORMS:
        raise InputError(f"waveform {kind!r} is none of {', '.join(WAVEFORMS)}")
    return WAVEFORMS[kind](n_bursts, n_samples, sfreq, rng)


def _zigbee(n: int, length: int, sfreq: float, rng: np.random.Generator) -> Complex:
    symbols = -(-length // round(32 * max(sfreq / CHIP_RATE, 1)))
    return np.repeat(zigbee_preamble(sfreq, symbols)[None, :length], n, axis=0)


def _random_oqpsk(n: int, length: int, sfreq: float, rng: np.random.Generator) -> Complex:
    chips = 2 * -(-length // (2 * round(max(sfreq / CHIP_RATE, 1))))
    return oqpsk(rng.integers(0, 2, (n, chips)), sfreq)[:, :length]


def _psk(order: int) -> Callable[[int, int, float, np.random.Generator], Complex]:
    def draw(n: int, length: int, sfreq: float, rng: np.random.Generator) -> Complex:
        step, span = 4, 8  # samples and length of the pulse in symbols
        symbols = np.exp(2j * np.pi * (rng.integers(0, order, (n, length // step + span)) + 0.5)
                         / order)  # fmt: skip
        spread = np.zeros((n, symbols.shape[1] * step), complex)
        spread[:, ::step] = symbols
        pulse = _root_raised_cosine(step, span, 0.35)
        found = np.fft.ifft(np.fft.fft(spread, axis=1) * np.fft.fft(pulse, spread.shape[1]), axis=1)
        return _unit_power(found[:, span * step // 2 :][:, :length])

    return draw


def _root_raised_cosine(step: int, span: int, rolloff: float) -> NDArray[np.float64]:
    t = np.arange(-span * step / 2, span * step / 2 + 1) / step
    inner = np.sin(np.pi * t * (1 - rolloff)) + 4 * rolloff * t * np.cos(np.pi * t * (1 + rolloff))
    outer = np.pi * t * (1 - (4 * rolloff * t) ** 2)
    safe = np.where(np.abs(outer) > 1e-9, outer, 1)
    pulse = np.where(np.abs(outer) > 1e-9, inner / safe, 1 + rolloff * (4 / np.pi - 1))
    return pulse / np.sqrt((pulse**2).sum())


def _ook(n: int, length: int, sfreq: float, rng: np.random.Generator) -> Complex:
    step = 16
    bits = rng.integers(0, 2, (n, -(-length // step)))
    bits[:, 0] = 1  # a burst that begins with silence would begin later
    gate = np.repeat(bits, step, axis=1)[:, :length].astype(float)
    ramp = np.hanning(7)[1:-1]
    soft = np.apply_along_axis(np.convolve, 1, gate, ramp / ramp.sum(), mode="same")
    return _unit_power(soft)


def _fsk(n: int, length: int, sfreq: float, rng: np.random.Generator) -> Complex:
    step, index = 16, 1.0  # samples of a symbol; phase it turns by, in half turns
    levels = 2.0 * rng.integers(0, 2, (n, -(-length // step))) - 1
    rate = np.repeat(levels, step, axis=1)[:, :length] * np.pi * index / step
    return np.exp(1j * np.cumsum(rate, axis=1)).astype(np.complex64)


WAVEFORMS: dict[str, Callable[[int, int, float, np.random.Generator], Complex]] = {
    "zigbee": _zigbee,
    "oqpsk": _random_oqpsk,
    "bpsk": _psk(2),
    "qpsk": _psk(4),
    "ook": _ook,
    "fsk": _fsk,
}


def _unit_power(x: NDArray[np.complexfloating] | NDArray[np.floating]) -> Complex:
    power = np.sqrt((np.abs(x) ** 2).mean(axis=-1, keepdims=True))
    return (x / np.maximum(power, 1e-12)).astype(np.complex64)
