"""A cohort of event-related recordings whose truth is known.

Each subject has *factors* (standard normal): amplitude and latency of the components P1, N1, P3
and LPP, the LPP's gain by condition, and nuisances (overall gain, alpha rhythm, noise level). A
*label* shifts the mean of one factor by a chosen effect size, or of none (a null label). Trials
jitter around the subject's components and carry correlated 1/f noise, an alpha rhythm and, on
request, blinks and bad channels.

A label with effect d (in standard deviations of its factor) on an otherwise normal factor can be
told at best with the balanced accuracy Phi(d / 2): 0.84 for d = 2, `bayes_accuracy`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import InputError

if TYPE_CHECKING:
    import mne
    import xarray as xr

Floats = NDArray[np.float32]

CHANNELS = (
    *("Fp1", "Fp2", "F3", "Fz", "F4", "C3", "Cz", "C4", "P3", "Pz", "P4"),
    *("PO7", "PO8", "O1", "Oz", "O2"),
)


@dataclass(frozen=True)
class Component:
    """One deflection of the event-related potential.

    Parameters
    ----------
    name : str
        Names the factors ``<name>_amplitude`` and ``<name>_latency``.
    latency, width : float
        Peak and Gaussian width, s.
    amplitude : float
        At the site of its maximum, uV.
    sites : tuple of str
        Electrodes above its sources.
    spread : float
        Gaussian width of the field over the scalp, m.
    latency_sd : float
        Between subjects, s: what one unit of the latency factor does.
    jitter : float
        Latency jitter between trials, s.
    gains : mapping of str to float
        Factor on the amplitude by condition (1 where absent).
    """

    name: str
    latency: float
    width: float
    amplitude: float
    sites: tuple[str, ...]
    spread: float = 0.05
    latency_sd: float = 0.01
    jitter: float = 0.01
    gains: Mapping[str, float] = field(default_factory=dict)


COMPONENTS = (
    Component("p1", 0.100, 0.018, 6.5, ("O1", "O2"), 0.040, 0.008, 0.006),
    Component("n1", 0.165, 0.024, -11.0, ("PO7", "PO8"), 0.045, 0.012, 0.008),
    Component("p3", 0.340, 0.055, 12.5, ("Pz",), 0.060, 0.040, 0.025),
    Component("lpp", 0.580, 0.110, 6.5, ("CPz",), 0.060, 0.040, 0.030, {"pleasant": 2.2}),
)


@dataclass(frozen=True)
class Label:
    """A subject-level label that shifts one factor.

    Parameters
    ----------
    factor : str or None
        The factor it acts on (see `factor_names`); None is a null label.
    effect : float
        Difference of the factor's mean between the two classes, in its standard deviations.
    values : tuple of str
        Names of the classes, without and with the effect.
    share : float
        Share of subjects in the second class.
    """

    factor: str | None = None
    effect: float = 0.0
    values: tuple[str, str] = ("no", "yes")
    share: float = 0.5


LABELS: dict[str, Label] = {
    "depressed": Label("lpp_gain", -2.0),
    "old": Label("p3_latency", 2.0),
    "null": Label(),
}
NUISANCE = ("gain", "alpha", "noise")
AMPLITUDE_SD = 0.40
GAIN_SD = 0.50


def factor_names(components: Sequence[Component] = COMPONENTS) -> list[str]:
    """Name every generative factor, in the order in which they are drawn.

    Examples
    --------
    >>> factor_names()[:3]
    ['p1_amplitude', 'p1_latency', 'n1_amplitude']
    """
    names = []
    for component in components:
        names += [f"{component.name}_amplitude", f"{component.name}_latency"]
        names += [f"{component.name}_gain"] if component.gains else []
    return names + list(NUISANCE)


def bayes_accuracy(effect: float) -> float:
    """Best balanced accuracy that a label's effect size allows: Phi(|d| / 2).

    Examples
    --------
    >>> round(bayes_accuracy(2.0), 2)
    0.84
    """
    return 0.5 * (1 + math.erf(abs(effect) / 2 / math.sqrt(2)))


def simulate_cohort(
    n_subjects: int = 30,
    n_trials: int = 40,
    *,
    conditions: Sequence[str] = ("neutral", "pleasant"),
    channels: Sequence[str] = CHANNELS,
    sfreq: float = 128.0,
    tmin: float = -0.2,
    tmax: float = 0.8,
    components: Sequence[Component] = COMPONENTS,
    labels: Mapping[str, Label] | None = None,
    amplitude_sd: float = AMPLITUDE_SD,
    noise: float = 8.0,
    exponent: float = 1.0,
    alpha: float = 3.0,
    blinks: float = 0.0,
    bad_channels: int = 0,
    missing: float = 0.0,
    truth: bool = True,
    seed: int = 0,
) -> xr.Dataset:
    """Simulate stimulus-locked trials of a cohort.

    Parameters
    ----------
    n_subjects, n_trials : int
        Subjects, and trials of each subject and condition.
    conditions : sequence of str
        Components with `gains` differ by condition.
    channels : sequence of str
        Names of the 10-05 system; positions and fields follow from them.
    sfreq, tmin, tmax : float
        Sampling rate (Hz) and window around the stimulus (s), `tmax` not included.
    components : sequence of Component
        The event-related potential.
    labels : mapping of str to Label, optional
        Subject-level labels; by default `LABELS`.
    amplitude_sd : float
        Between subjects, of the log amplitude of every component: what one unit of the amplitude
        factors does. Where amplitudes vary as much as latencies, several mixtures of the factors
        explain the same variance, and no method can tell the factors from their mixtures.
    noise : float
        Standard deviation of the 1/f noise, uV.
    exponent : float
        Its power falls with ``f ** -exponent``.
    alpha : float
        Amplitude of the 10 Hz rhythm, uV.
    blinks : float
        Share of trials with a blink of about 150 uV.
    bad_channels : int
        Channels of each subject with ten times the noise.
    missing : float
        Share of subjects whose labels are missing (""), for each label anew.
    truth : bool
        Whether to add the variable ``truth``, the noise-free ERP of the trial's subject and
        condition (the expectation over the jitter of trials).
    seed : int
        Same seed, same cohort, to the bit.

    Returns
    -------
    xarray.Dataset
        ``signal`` (trial, channel, time) in uV, not baseline-corrected, with subject,
        condition, one coordinate per label and ``factor_<name>`` on ``trial``.

    Raises
    ------
    InputError
        Where a channel is not in the 10-05 system or a label acts on an unknown factor.

    Examples
    --------
    >>> cohort = simulate_cohort(n_subjects=4, n_trials=3)
    >>> dict(cohort.signal.sizes)
    {'trial': 24, 'channel': 16, 'time': 128}
    """
    labels = LABELS if labels is None else labels
    _check(n_subjects, n_trials, components, labels)
    root = np.random.SeedSequence(seed)
    cohort_seed, *subject_seeds = root.spawn(n_subjects + 1)
    classes, factors = _draw_subjects(
        n_subjects, factor_names(components), labels, np.random.default_rng(cohort_seed)
    )
    scene = _Scene.build(channels, components, conditions, sfreq, tmin, tmax, amplitude_sd)
    signal = np.empty((n_subjects, len(conditions) * n_trials, *scene.shape), dtype=np.float32)
    erps = np.empty((n_subjects, len(conditions), *scene.shape), dtype=np.float32)
    order = np.empty(signal.shape[:2], dtype=int)
    for s, subject_seed in enumerate(subject_seeds):
        rng = np.random.default_rng(subject_seed)
        own = {name: float(value[s]) for name, value in factors.items()}
        order[s] = rng.permutation(np.repeat(np.arange(len(conditions)), n_trials))
        erps[s] = scene.erps(own)
        signal[s] = scene.trials(own, order[s], rng)
        signal[s] += scene.background(
            len(order[s]),
            rng,
            noise * math.exp(0.15 * own["noise"]),
            exponent,
            alpha * math.exp(0.4 * own["alpha"]),
            bad_channels,
        )
        if blinks:
            signal[s] += scene.blinks(len(order[s]), blinks, rng)
    table = _missing(classes, missing, np.random.default_rng([seed, 1]))
    settings = {
        "amplitude_sd": amplitude_sd,
        "noise": noise,
        "exponent": exponent,
        "alpha": alpha,
        "blinks": blinks,
        "bad_channels": bad_channels,
        "seed": seed,
    }
    return _dataset(signal, erps if truth else None, order, table, factors, scene, settings)


def simulate_epochs(**settings: Any) -> dict[str, mne.EpochsArray]:
    """Simulate as `simulate_cohort` and return one `mne.EpochsArray` (in volts) per subject.

    Conditions are the event names; labels and factors are columns of ``metadata``.

    Examples
    --------
    >>> epochs = simulate_epochs(n_subjects=2, n_trials=3)
    >>> list(epochs), len(epochs["sub-01"]["pleasant"])
    (['sub-01', 'sub-02'], 3)
    """
    import mne

    cohort = simulate_cohort(**{**settings, "truth": False})
    info = mne.create_info(cohort.channel.values.tolist(), cohort.attrs["sfreq"], "eeg")
    montage = mne.channels.make_dig_montage(positions_1005(), coord_frame="head")
    event_id = {name: i + 1 for i, name in enumerate(dict.fromkeys(cohort.condition.values))}
    epochs = {}
    for subject in dict.fromkeys(cohort.subject.values):
        part = cohort.isel(trial=np.flatnonzero(cohort.subject.values == subject))
        codes = [event_id[name] for name in part.condition.values]
        events = np.column_stack([np.arange(len(codes)), np.zeros(len(codes), int), codes])
        columns = [name for name in part.coords if part[name].dims == ("trial",)]
        epochs[str(subject)] = mne.EpochsArray(
            part.signal.values * 1e-6,
            info,
            events,
            tmin=float(part.time[0]),
            event_id=event_id,
            metadata=part[columns].to_dataframe()[columns].reset_index(drop=True),
            verbose="error",
        ).set_montage(montage, verbose="error")
    return epochs


def expected_erp(
    data: xr.Dataset,
    factors: Mapping[str, float],
    components: Sequence[Component] = COMPONENTS,
) -> xr.DataArray:
    """Return the noise-free ERP of somebody whose factors are known.

    Parameters
    ----------
    data : Dataset
        A simulated cohort: its channels, conditions, times and rate are taken.
    factors : mapping of str to float
        In standard deviations; those not named are 0, the mean of the population.
    components : sequence of Component
        As given to `simulate_cohort`.

    Returns
    -------
    DataArray (condition, channel, time)
        uV, the baseline at 0.

    Examples
    --------
    >>> cohort = simulate_cohort(n_subjects=2, n_trials=1)
    >>> turned = expected_erp(cohort, {"p3_amplitude": 1.0}) - expected_erp(cohort, {})
    >>> 0.2 < float(turned.time[turned.values.max((0, 1)).argmax()]) < 0.4
    True
    """
    import xarray as xr

    names = factor_names(components)
    unknown = sorted(set(factors) - set(names))
    if unknown:
        raise InputError(f"the factors {', '.join(unknown)} do not exist: use {', '.join(names)}")
    channels = [str(name) for name in data["channel"].values]
    conditions = list(dict.fromkeys(data["condition"].values.astype(str).tolist()))
    times = data["time"].values
    sfreq = float(data.attrs["sfreq"])
    settings = json.loads(data.attrs.get("simulated", "{}"))
    scene = _Scene.build(
        channels, components, conditions, sfreq, times[0], times[0] + len(times) / sfreq,
        settings.get("amplitude_sd", AMPLITUDE_SD),
    )  # fmt: skip
    return xr.DataArray(
        scene.erps({name: factors.get(name, 0.0) for name in names}),
        dims=("condition", "channel", "time"),
        coords={"condition": conditions, "channel": channels, "time": times},
        attrs={"units": "uV", "sfreq": sfreq},
    )


def positions_1005() -> dict[str, NDArray[np.float64]]:
    """Positions of the 10-05 system on MNE's template head, m."""
    import mne

    names = mne.channels.get_builtin_montages()
    # MNE 1.13 renamed the template.
    name = "colin27_1005" if "colin27_1005" in names else "standard_1005"
    return mne.channels.make_standard_montage(name).get_positions()["ch_pos"]


def _check(
    n_subjects: int, n_trials: int, components: Sequence[Component], labels: Mapping[str, Label]
) -> None:
    if n_subjects < 1 or n_trials < 1:
        raise InputError(
            f"a cohort of {n_subjects} subjects with {n_trials} trials was asked for: "
            "both must be at least 1"
        )
    known = factor_names(components)
    for name, label in labels.items():
        if label.factor is not None and label.factor not in known:
            raise InputError(
                f"label '{name}' acts on the factor '{label.factor}', which does not exist: "
                f"use one of {', '.join(known)}"
            )


def _draw_subjects(
    n: int, names: Sequence[str], labels: Mapping[str, Label], rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.str_]], dict[str, NDArray[np.float64]]]:
    """Draw classes (in exact shares) and factors; effects are split evenly around zero."""
    factors = {name: rng.standard_normal(n) for name in names}
    classes = {}
    for name, label in labels.items():
        has = rng.permutation(np.arange(n) < round(label.share * n))
        classes[name] = np.where(has, label.values[1], label.values[0])
        if label.factor is not None:
            factors[label.factor] = factors[label.factor] + label.effect * (has - 0.5)
    return classes, factors


def _missing(
    classes: dict[str, NDArray[np.str_]], share: float, rng: np.random.Generator
) -> dict[str, NDArray[np.str_]]:
    return {
        name: np.where(rng.random(len(column)) < share, "", column)
        for name, column in classes.items()
    }


@dataclass(frozen=True)
class _Scene:
    """What all subjects share: the head, the time axis and the components."""

    channels: tuple[str, ...]
    positions: NDArray[np.float64]  # (channel, 3), m
    components: Sequence[Component]
    fields: Floats  # (component, channel)
    eyes: Floats  # (channel,)
    mixing: Floats  # (channel, channel): spatial correlation of the noise
    gains: NDArray[np.float64]  # (condition, component)
    times: NDArray[np.float64]
    sfreq: float
    conditions: tuple[str, ...]
    amplitude_sd: float

    @classmethod
    def build(
        cls,
        channels: Sequence[str],
        components: Sequence[Component],
        conditions: Sequence[str],
        sfreq: float,
        tmin: float,
        tmax: float,
        amplitude_sd: float,
    ) -> _Scene:
        known = positions_1005()
        unknown = [name for name in channels if name not in known]
        if unknown:
            raise InputError(
                f"channels {unknown} are not in the 10-05 system: use names such as Fz, Cz, PO7"
            )
        positions = np.array([known[name] for name in channels])
        cap = np.array(list(known.values()))
        fields = [_field([known[s] for s in c.sites], c.spread, positions, cap) for c in components]
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        correlation = 0.8 * np.exp(-0.5 * (distance / 0.06) ** 2) + 0.2 * np.eye(len(channels))
        return cls(
            tuple(channels),
            positions,
            components,
            np.array(fields, dtype=np.float32),
            _field([known["Fp1"], known["Fp2"]], 0.04, positions, cap).astype(np.float32),
            np.linalg.cholesky(correlation).astype(np.float32),
            np.array([[c.gains.get(name, 1.0) for c in components] for name in conditions]),
            np.arange(round(tmin * sfreq), round(tmax * sfreq)) / sfreq,
            sfreq,
            tuple(conditions),
            amplitude_sd,
        )

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.channels), len(self.times)

    def subject(self, factors: Mapping[str, float]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return amplitudes (condition, component) in uV and latencies (component,) in s."""
        amplitude = np.array(
            [
                c.amplitude * math.exp(self.amplitude_sd * factors[f"{c.name}_amplitude"])
                for c in self.components
            ]
        ) * math.exp(0.15 * factors["gain"])
        own = np.array(
            [GAIN_SD * factors[f"{c.name}_gain"] if c.gains else 0.0 for c in self.components]
        )
        # The factor scales what a condition adds, so that the label moves the difference wave.
        gains = 1 + (self.gains - 1) * (1 + own)
        latency = np.array(
            [c.latency + c.latency_sd * factors[f"{c.name}_latency"] for c in self.components]
        )
        return amplitude * gains, latency

    def erps(self, factors: Mapping[str, float]) -> Floats:
        """Noise-free ERPs (condition, channel, time): the expectation over the trials' jitter."""
        amplitude, latency = self.subject(factors)
        width = np.array([c.width for c in self.components])
        wide = np.hypot(width, [c.jitter for c in self.components])
        waves = _gaussians(self.times, latency, wide) * (width / wide)[:, None]
        erps = np.einsum("kc,ct,ce->ket", amplitude, waves, self.fields, optimize=True)
        return erps.astype(np.float32)

    def trials(
        self, factors: Mapping[str, float], order: NDArray[np.intp], rng: np.random.Generator
    ) -> Floats:
        """Event-related part of each trial, (trial, channel, time)."""
        amplitude, latency = self.subject(factors)
        shape = (len(order), len(self.components))
        jitter = np.array([c.jitter for c in self.components])
        peaks = latency + jitter * rng.standard_normal(shape)
        height = amplitude[order] * (1 + 0.25 * rng.standard_normal(shape))
        width = np.array([c.width for c in self.components])
        waves = height[..., None] * _gaussians(self.times, peaks, width)
        return np.matmul(self.fields.T, waves.astype(np.float32))

    def background(
        self,
        n: int,
        rng: np.random.Generator,
        noise: float,
        exponent: float,
        alpha: float,
        bad_channels: int,
    ) -> Floats:
        """1/f noise, correlated over the scalp, with an occipital alpha rhythm, uV."""
        sources = pink_noise((n, *self.shape), exponent, rng)
        cloud = noise * np.matmul(self.mixing, sources)
        phase = rng.uniform(0, 2 * np.pi, (n, 1)).astype(np.float32)
        tempo = (10 + rng.standard_normal((n, 1))).astype(np.float32)
        height = alpha * rng.rayleigh(0.8, (n, 1)).astype(np.float32)
        rhythm = height * np.sin(2 * np.pi * tempo * self.times.astype(np.float32) + phase)
        behind = np.clip(-self.positions[:, 1] / 0.1, 0, 1).astype(np.float32)
        cloud += behind[:, None] * rhythm[:, None]
        bad = rng.permutation(len(self.channels))[:bad_channels]
        cloud[:, bad] += 10 * noise * pink_noise((n, len(bad), len(self.times)), 0.0, rng)
        return cloud

    def blinks(self, n: int, share: float, rng: np.random.Generator) -> Floats:
        """Blinks of some trials, (trial, channel, time), uV."""
        has = rng.random(n) < share
        onset = rng.uniform(self.times[0], self.times[-1], (n, 1))
        height = (has * rng.normal(150, 30, n))[:, None, None]
        wave = height * _gaussians(self.times, onset, np.array([0.08]))
        return np.matmul(self.eyes[:, None], wave.astype(np.float32))


def _field(
    sites: Sequence[NDArray[Any]], spread: float, positions: NDArray[Any], cap: NDArray[Any]
) -> NDArray[np.float64]:
    """Field of a source below each site, 1 at its maximum, against the mean of the whole cap."""

    def bump(points: NDArray[Any]) -> NDArray[Any]:
        distance = np.linalg.norm(points[:, None] - np.array(sites)[None], axis=-1)
        return np.exp(-0.5 * (distance / spread) ** 2).sum(1)

    # The mean over the cap, not over the picked channels: a field does not depend on the picks.
    level, top = bump(cap).mean(), bump(cap).max()
    return (bump(positions) - level) / (top - level)


def _gaussians(times: NDArray[Any], peaks: NDArray[Any], widths: NDArray[Any]) -> NDArray[Any]:
    """Gaussians (..., component, time) of height 1."""
    return np.exp(-0.5 * ((times - peaks[..., None]) / widths[:, None]) ** 2)


def pink_noise(shape: tuple[int, ...], exponent: float, rng: np.random.Generator) -> Floats:
    """Draw noise whose power falls with ``f ** -exponent`` along the last axis, of variance 1.

    Drawn at twice the length and cut, since what comes out of an FFT is periodic.

    Examples
    --------
    >>> pink_noise((2, 64), 1.0, np.random.default_rng(0)).shape
    (2, 64)
    """
    from scipy import fft

    n = 2 * shape[-1]
    weight = np.arange(n // 2 + 1, dtype=np.float32)
    weight[0] = 1.0
    weight = weight ** np.float32(-exponent / 2)
    weight[0] = 0.0
    # White noise of variance 1 has n in each bin: irfft(weight * spectrum) has this variance.
    weight *= math.sqrt(n**2 / (2 * np.sum(weight[1:-1] ** 2) + weight[-1] ** 2) / 2)
    parts = rng.standard_normal((2, *shape[:-1], n // 2 + 1), dtype=np.float32)
    spectrum = weight * (parts[0] + 1j * parts[1])
    return fft.irfft(spectrum, n=n, axis=-1)[..., : shape[-1]]


def _dataset(
    signal: Floats,
    erps: Floats | None,
    order: NDArray[np.intp],
    classes: Mapping[str, NDArray[np.str_]],
    factors: Mapping[str, NDArray[np.float64]],
    scene: _Scene,
    settings: Mapping[str, Any],
) -> xr.Dataset:
    import xarray as xr

    n_subjects, per_subject = order.shape
    who = np.repeat(np.arange(n_subjects), per_subject)
    digits = max(2, len(str(n_subjects)))
    names = np.array([f"sub-{i + 1:0{digits}d}" for i in range(n_subjects)])
    dims = ("trial", "channel", "time")
    variables = {"signal": (dims, signal.reshape(-1, *scene.shape))}
    if erps is not None:
        variables["truth"] = (dims, erps[who, order.ravel()])
    on_trial = {
        "subject": names[who],
        "session": np.full(len(who), "1"),
        "run": np.full(len(who), "1"),
        "recording": names[who],
        "condition": np.array(scene.conditions)[order.ravel()],
        **{name: column[who] for name, column in classes.items()},
        **{f"factor_{name}": values[who] for name, values in factors.items()},
    }
    coords: dict[str, Any] = {"channel": list(scene.channels), "time": scene.times}
    coords |= {name: ("trial", column) for name, column in on_trial.items()}
    placed = dict(zip(scene.channels, scene.positions.round(6).tolist(), strict=True))
    attrs = {
        "kind": "eeg",
        "units": "uV",
        "sfreq": float(scene.sfreq),
        "labels": list(classes),
        "item": "recording",
        "preprocessing": json.dumps([]),
        "quality": json.dumps([]),
        "positions": json.dumps(placed),
        "simulated": json.dumps(dict(settings)),
    }
    return xr.Dataset(variables, coords=coords, attrs=attrs)
