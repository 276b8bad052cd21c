"""What all EEG figures share: colours, quiet axes, head maps, intervals over subjects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.draw import COLOURS, DIVERGING, tidy

if TYPE_CHECKING:
    import mne
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]


def time_axes(axes: Axes, times: ArrayLike, ylabel: str = "µV", title: str = "") -> Axes:
    """Make axes of a waveform: ms after the stimulus, zero lines drawn.

    Parameters
    ----------
    axes : matplotlib Axes
        Where to draw.
    times : array (time,)
        Seconds.
    """
    times = np.asarray(times) * 1e3
    axes.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
    if times[0] < 0 < times[-1]:
        axes.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
    axes.set_xlim(times[0], times[-1])
    return tidy(axes, "time (ms)", ylabel, title)


def interval(values: ArrayLike, n_boot: int = 500, seed: int = 0) -> tuple[Floats, Floats]:
    """Return the 95 % bootstrap interval of the mean over the first axis (subjects).

    Parameters
    ----------
    values : array (subject, ...)
        One value, or one waveform, per subject.

    Examples
    --------
    >>> low, high = interval([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> bool(low[0] < 2 < high[0]), bool(low[1] == high[1] == 5)
    (True, True)
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot) / n
    means = weights @ values.reshape(n, -1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def positions_of(data: xr.Dataset | xr.DataArray) -> dict[str, list[float]] | None:
    """Read the sensors' positions (m) from the attributes; None where they are not all known."""
    stored = data.attrs.get("positions")
    if not stored:
        return None
    known = json.loads(stored) if isinstance(stored, str) else dict(stored)
    names = [str(name) for name in data["channel"].values]
    found = {name: known[name] for name in names if known.get(name) is not None}
    return found if len(found) == len(names) >= 4 else None


def sensor_info(positions: Mapping[str, Sequence[float]]) -> mne.Info:
    """Make the measurement info by which MNE draws head maps.

    Parameters
    ----------
    positions : mapping of str to (x, y, z)
        Metres, in channel order.
    """
    import mne

    info = mne.create_info(list(positions), 1.0, "eeg", verbose="error")
    places = {name: np.asarray(place, dtype=float) for name, place in positions.items()}
    montage = mne.channels.make_dig_montage(places, coord_frame="head")
    info.set_montage(montage, verbose="error")
    return info


def head_sphere(positions: Mapping[str, Sequence[float]]) -> tuple[float, float, float, float]:
    """Fit the sphere whose outline stands for the head.

    The template positions of MNE are not centred on the origin; the outline must follow them.
    Few sensors do not fix a sphere: then MNE's usual head is taken.
    """
    points = np.array(list(positions.values()), dtype=float)
    if len(points) < 8:
        return 0.0, 0.0, 0.0, 0.095
    # |p - c|^2 = r^2 is linear in c and r^2 - |c|^2.
    design = np.column_stack([2 * points, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(design, (points**2).sum(1), rcond=None)
    centre = solution[:3]
    radius = float(np.sqrt(solution[3] + centre @ centre))
    if not 0.05 < radius < 0.2:
        return 0.0, 0.0, 0.0, 0.095
    return float(centre[0]), float(centre[1]), float(centre[2]), radius


def head_map(
    axes: Axes,
    values: ArrayLike,
    positions: Mapping[str, Sequence[float]],
    limit: float,
    title: str = "",
) -> Any:
    """Draw one value per sensor as a map of the head, symmetric around zero.

    Parameters
    ----------
    axes : matplotlib Axes
        Where to draw.
    values : array (channel,)
        In the order of `positions`.
    positions : mapping
        Channel to position (m).
    limit : float
        The colours run from ``-limit`` to ``limit``.

    Returns
    -------
    The image, for a colour bar.
    """
    import mne

    image, _ = mne.viz.plot_topomap(
        np.asarray(values, dtype=float),
        sensor_info(positions),
        axes=axes,
        show=False,
        cmap=DIVERGING,
        vlim=(-limit, limit),
        sphere=head_sphere(positions),
        contours=4,
        sensors=True,
    )
    axes.set_title(title, fontsize=9)
    return image


def colour_bar(figure: Figure, image: Any, axes: Any, label: str = "µV") -> None:
    """Add a colour bar beside axes."""
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=15, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Give each name its colour."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def peaks(power: ArrayLike, times: ArrayLike, n: int = 3, apart: float = 0.08) -> list[int]:
    """Find the times (indices) of the largest peaks after the stimulus, in order of time.

    Parameters
    ----------
    power : array (time,)
        Global field power or the like.
    times : array (time,)
        Seconds.
    n : int
        At most so many.
    apart : float
        Least distance between two, s.

    Examples
    --------
    >>> peaks([0, 1, 0, 0, 3, 0], [-0.1, 0.0, 0.1, 0.2, 0.3, 0.4], n=1)
    [4]
    """
    from scipy.signal import find_peaks

    power, times = np.asarray(power, dtype=float), np.asarray(times, dtype=float)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    padded = np.concatenate([[-np.inf], power, [-np.inf]])  # an end may be a peak
    found = find_peaks(padded, distance=max(1, round(apart / step)))[0] - 1
    after = [i for i in found if times[i] > 0] or [int(np.argmax(power))]
    return sorted(int(i) for i in sorted(after, key=lambda i: -power[i])[:n])
