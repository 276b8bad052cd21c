"""Choose one encoder of a sweep without any label: unsupervised disentanglement ranking.

The seeds of every setting are compared with one another; the model that agrees best with its
siblings is chosen. Both versions of the ranking are reported, whichever one decides.

References
----------
Duan et al., "Unsupervised model selection for variational disentangled representation learning"
(ICLR 2020).
Honke, Higgins et al., "Representation learning for improved interpretability and
classification accuracy of clinical factors from EEG" (2020), who choose their beta-VAE so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import InputError
from neuro.metrics.latents import kept_latents, kl_per_latent, latent_counts, variable_types
from neuro.metrics.udr import METHODS, Method, latent_stability, udr

if TYPE_CHECKING:
    from neuro.stage import Context

Floats = NDArray[np.float64]
SEED = "seed"
COUNTS = ("kl_active", "active", "mixed", "passive")
ENOUGH_SEEDS = 5
FEW_POINTS = 50


@dataclass
class Candidate:
    """One encoder of the sweep, seen through the same trials as all others.

    Parameters
    ----------
    setting : dict
        Its parameters, but for the seed.
    seed : int or None
    mean : ndarray of shape (n_points, n_latents)
        Posterior means.
    kl : ndarray of shape (n_latents,)
        Mean KL of each latent, in nats.
    types : ndarray of str, shape (n_latents,)
        active, mixed or passive.
    counts : dict of str to int
        Of kl_active, active, mixed and passive latents.
    reconstruction : float
        Share of the trials' variance that the reconstruction explains.
    udr : dict of str to float
        Score by version; empty where no other seed has the same setting.
    stability : ndarray of shape (n_latents,) or None
        Of each latent: median over the other seeds of the matched absolute rank correlation.
    """

    setting: dict[str, Any]
    seed: Any
    mean: Floats
    kl: Floats
    types: NDArray[np.str_]
    counts: dict[str, int]
    reconstruction: float
    udr: dict[str, float]
    stability: Floats | None = None


@dataclass
class Selection:
    """What `select` found.

    Parameters
    ----------
    candidates : list of Candidate
        In the order of the encoders.
    chosen : int
        Which of them is chosen.
    method : {"lasso", "spearman"}
        The version that decided.
    notes : list of str
        What a reader must know before trusting the choice.
    floor : float
        Share of the variance that a model had to explain to be chosen.
    """

    candidates: list[Candidate]
    chosen: int
    method: Method
    notes: list[str]
    floor: float

    @property
    def best(self) -> Candidate:
        """The chosen one."""
        return self.candidates[self.chosen]

    def groups(self) -> list[list[int]]:
        """Return the indices of the seeds of every setting, in the order of the sweep."""
        return _groups([candidate.setting for candidate in self.candidates])


def select(
    encoders: Sequence[Any],
    data: Any,
    *,
    settings: Sequence[Mapping[str, Any]] | None = None,
    method: Method = "lasso",
    least_explained: float = 0.9,
    n_points: int = 1000,
    random_state: int = 0,
    progress: Callable[..., Any] | None = None,
) -> Selection:
    """Rank encoders by how well the seeds of each setting agree, and choose the best one.

    Parameters
    ----------
    encoders : sequence of BetaVAE
        Fitted; several seeds of each setting.
    data : Dataset or DataArray (trial, channel, time)
        Trials in uV, those that the encoders were trained on. No label is looked at.
    settings : sequence of mapping, optional
        What each encoder differs in, with its ``seed`` (the members of a sweep). By default the
        parameters of the encoders.
    method : {"lasso", "spearman"}
        The version that decides.
    least_explained : float
        A model is chosen only if it explains this share of the variance that the best one of the
        sweep explains: the few latents that a large beta leaves agree easily, and say little.
    n_points : int
        Trials that the encoders are compared on, drawn at random. Encoders trained on ERPs are
        compared on ERPs: single trials are new to them, and noise would pass for information.
    random_state : int
        Seed of that draw.
    progress : callable, optional
        ``progress(items, label, total)``.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        Where no setting has two seeds, or an encoder has no posterior variance.
    """
    given = _settings(encoders) if settings is None else [dict(s) for s in settings]
    if len(given) != len(encoders):
        raise InputError(f"{len(encoders)} encoders, but {len(given)} settings")
    seeds = [s.pop(SEED, None) for s in given]
    groups = _groups(given)
    if not any(len(group) > 1 for group in groups):
        raise InputError(
            f"{len(encoders)} encoders have {len(groups)} different settings, so that no two "
            f"seeds can be compared: add '{SEED}: [0, 1, 2, 3, 4]' to the sweep"
        )
    kinds = [_sees(encoder, data) for encoder in encoders]
    points = {kind: _points(data, kind, n_points, random_state) for kind in dict.fromkeys(kinds)}
    rows = list(zip(encoders, given, seeds, kinds, strict=True))
    shown = rows if progress is None else progress(rows, "encode", len(rows))
    candidates = [
        _candidate(encoder, setting, seed, points[kind]) for encoder, setting, seed, kind in shown
    ]
    for group in groups:
        _compare([candidates[i] for i in group])
    most = max(c.reconstruction for c in candidates)
    floor = min(most, least_explained * most)
    fit = [i for i, c in enumerate(candidates) if c.reconstruction >= floor and c.udr]
    chosen = max(fit or range(len(candidates)), key=lambda i: _merit(candidates[i], method))
    notes = _notes(candidates, groups, chosen, method)
    if not fit:
        notes.append(
            f"no model with a ranking explains {least_explained:g} of what the best one does: the "
            "choice is by the ranking alone; train more seeds of the smaller betas"
        )
    return Selection(candidates, chosen, method, notes, floor)


def record(context: Context, selection: Selection) -> None:
    """Hand the numbers and the warnings over to a run."""
    for method in METHODS:
        known = [c.udr[method] for c in selection.candidates if c.udr]
        context.metric(f"udr.{method}.best", max(known), n=len(known), n_unit="model")
    for note in selection.notes:
        context.warn(note)


def described(setting: Mapping[str, Any], seed: Any = None) -> str:
    """Write a setting out.

    Examples
    --------
    >>> described({"beta": 4}, 1), described({})
    ('beta = 4, seed = 1', 'the only setting')
    """
    pairs = {**setting, **({} if seed is None else {SEED: seed})}
    return ", ".join(f"{name} = {value}" for name, value in pairs.items()) or "the only setting"


# ------------------------------------------------------------------------------------- inside


def _settings(encoders: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what the encoders differ in, by their own parameters."""
    params = [dict(encoder.get_params(deep=False)) for encoder in encoders]
    for own in params:
        own[SEED] = own.pop("random_state", None)
    names = (
        [k for k in params[0] if any(p.get(k) != params[0][k] for p in params)] if params else []
    )
    return [{k: own.get(k) for k in {**dict.fromkeys(names), SEED: None}} for own in params]


def _groups(settings: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for i, setting in enumerate(settings):
        found.setdefault(json.dumps(setting, sort_keys=True, default=str), []).append(i)
    return list(found.values())


def _sees(encoder: Any, data: Any) -> str:
    """Tell what the encoder was trained on: "erp" or "trial"."""
    of_people = "subject" in data.coords and "condition" in data.coords
    return "erp" if getattr(encoder, "train_on", "") == "erp" and of_people else "trial"


def _points(data: Any, kind: str, n_points: int, seed: int) -> Any:
    if kind == "erp":
        data = _erps(data)
    n = data.sizes["trial"]
    if n < 2:
        raise InputError(f"{n} {kind}s are too few to compare encoders on")
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:n_points])
    chosen = data.isel(trial=rows)
    if not hasattr(chosen, "data_vars"):
        return chosen
    from neuro.data import as_signal

    return as_signal(chosen)


def _erps(data: Any) -> Any:
    from eeg.erp import erps

    if not hasattr(data, "data_vars"):
        data = data.to_dataset(name="signal").assign_attrs(data.attrs)
    return erps(data)


def _candidate(encoder: Any, setting: dict[str, Any], seed: Any, signal: Any) -> Candidate:
    try:
        mean, variance = encoder.transform(signal, return_variance=True)
    except TypeError as error:
        raise InputError(
            f"{type(encoder).__name__} ({described(setting, seed)}) has no posterior variance; "
            "only variational encoders can be ranked"
        ) from error
    mean, variance = np.asarray(mean, dtype=float), np.asarray(variance, dtype=float)
    return Candidate(
        setting,
        seed,
        mean,
        kl=kl_per_latent(mean, variance),
        types=variable_types(variance),
        counts=latent_counts(mean, variance),
        reconstruction=_explained(signal, encoder.denoise(signal)),
        udr={},
    )


def _explained(signal: Any, reconstructed: Any) -> float:
    """One minus the squared error over that of the mean over trials, channel by channel equal."""
    x, y = np.asarray(signal, dtype=float), np.asarray(reconstructed, dtype=float)
    total = ((x - x.mean(0)) ** 2).mean((0, 2))
    error = ((x - y) ** 2).mean((0, 2))
    alive = total > 0
    return float(1 - np.mean(error[alive] / total[alive])) if alive.any() else 0.0


def _compare(siblings: Sequence[Candidate]) -> None:
    if len(siblings) < 2:
        return
    latents, kl = [c.mean for c in siblings], [c.kl for c in siblings]
    scores = {method: udr(latents, kl, method=method)[0] for method in METHODS}
    stability = latent_stability(latents, kl)
    for i, candidate in enumerate(siblings):
        candidate.udr = {method: float(values[i]) for method, values in scores.items()}
        candidate.stability = stability[i]


def _merit(candidate: Candidate, method: Method) -> tuple[float, float]:
    """Order of preference: the ranking; among equals (all collapsed) the reconstruction."""
    return candidate.udr.get(method, -1.0), candidate.reconstruction


def _notes(
    candidates: Sequence[Candidate], groups: Sequence[Sequence[int]], chosen: int, method: Method
) -> list[str]:
    best, notes = candidates[chosen], []
    alone = [described(candidates[g[0]].setting) for g in groups if len(g) == 1]
    if alone:
        notes.append(f"not ranked, because only one seed was trained: {'; '.join(alone)}")
    if len(best.mean) < FEW_POINTS:
        notes.append(f"the models were compared on {len(best.mean)} points only")
    most = max(len(g) for g in groups)
    if most < ENOUGH_SEEDS:
        notes.append(f"{most} seeds of a setting make an uncertain ranking; train 5 or more")
    n_kept = int(kept_latents(best.kl).sum())
    if best.udr[method] == 0:
        notes.append("every ranked model collapsed (no latent with KL above 0.01): lower beta")
    elif n_kept < 2:
        notes.append(
            f"the chosen model ({described(best.setting, best.seed)}) kept one latent only; a "
            "single latent agrees easily over seeds: extend the sweep to lower beta"
        )
    return notes
