"""Sentences of the methods paragraph, written from what was actually run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from eeg.held_out import Plan

Sentence = tuple[str, tuple[str, ...]]  # the text, and the keys of `neuro.bibtex` it cites


def preprocessing(data: xr.Dataset) -> list[Sentence]:
    """Describe how the trials were made, from the record that they carry.

    Parameters
    ----------
    data : xarray.Dataset
        Trials with the attribute ``preprocessing``.

    Returns
    -------
    list of (str, tuple of str)
        Sentences with their citation keys.
    """
    subjects = len(set(data["subject"].values.tolist()))
    said: list[Sentence] = [
        (
            f"{data.sizes['trial']:,} trials of {subjects} subjects "
            f"({data.sizes['channel']} channels, {data.attrs['sfreq']:g} Hz) were used.",
            (),
        )
    ]
    steps = _applied(data)
    if steps:
        texts = [_DONE[key].format(v=_shown(value)) for key, value in steps.items()]
        cited = [_CITED[key] for key in steps if key in _CITED]
        said.append((f"With MNE-Python, {_listed(texts)}.", ("mne", *cited)))
    return said


def _applied(data: xr.Dataset) -> dict[str, Any]:
    """Return the steps that were asked for and not skipped in every recording."""
    asked = json.loads(data.attrs.get("preprocessing") or "{}").get("steps", {})
    skipped = [set(q.get("skipped", {})) for q in json.loads(data.attrs.get("quality") or "[]")]
    everywhere = set.intersection(*skipped) if skipped else set()
    return {
        key: asked[key]
        for key in _DONE
        if asked.get(key) not in (None, False, []) and key not in everywhere
    }


_DONE = {
    "bads": "channels {v} were marked as bad",
    "lof": "bad channels were found by the local outlier factor (threshold {v})",
    "notch": "line noise was removed at {v} Hz",
    "l_freq": "the signal was high-pass filtered at {v} Hz",
    "h_freq": "the signal was low-pass filtered at {v} Hz",
    "ica": "independent components of eyes, heart and muscles were removed",
    "regress_eog": "EOG activity was regressed out",
    "reference": "the signal was re-referenced ({v})",
    "decim": "every {v}th sample was kept",
    "resample": "trials were sampled at {v} Hz",
    "reject": "trials beyond a peak-to-peak amplitude of {v} V were dropped",
    "flat": "trials below a peak-to-peak amplitude of {v} V were dropped",
    "autoreject": "trials were rejected by autoreject ({v})",
}
_CITED = {"lof": "lof", "autoreject": "autoreject"}


def training(encoder: Any) -> list[Sentence]:
    """Describe the encoder and its training."""
    kind = "beta-VAE" if encoder.beta else "autoencoder"
    on = {
        "single": "single trials",
        "erp": "ERPs",
        "bootstrap": f"averages of 1 to {encoder.n_average} random trials of a subject's condition",
        "single-to-erp": "single trials, with the subject's ERP without that trial as the target",
    }[encoder.train_on]
    text = (
        f"A {kind} ({encoder.network} network, {encoder.n_latents} latents, beta = "
        f"{encoder.beta:g} in per-sample units) was trained on {on} for at most "
        f"{encoder.max_epochs} epochs."
    )
    said: list[Sentence] = [
        (text, ("higgins2017", "kingma2014", "honke2020", "adam", "pytorch", "lightning"))
    ]
    if encoder.feature_loss:
        said.append((_feature_loss(encoder), ("higgins2018", "vincent2008")))
    counts = encoder.counts_
    kept = (
        f"{counts['kl_active']} latents had a KL above 0.01; by their posterior variance "
        f"{counts['active']} were active, {counts['mixed']} mixed and {counts['passive']} passive."
    )
    return [*said, (kept, ("bonheme2021",))]


def _feature_loss(encoder: Any) -> str:
    return (
        f"Its reconstructions were judged by {encoder.n_features} features of a denoising "
        f"autoencoder, which was trained first for {encoder.dae_max_epochs} epochs to fill in the "
        f"{encoder.mask_fraction:.0%} of each trial that were masked, and then frozen; the "
        "error was divided by the variance of the features over the training data."
    )


def evaluation(n_subjects: int, n_folds: int, n_shuffles: int, n_boot: int) -> list[Sentence]:
    """Describe the cross-validation."""
    return [
        (
            f"The encoder and all statistics were refitted in each of {n_folds} folds over "
            f"{n_subjects} subjects; every subject was held out once. Intervals are 95 % "
            f"bootstrap intervals over subjects ({n_boot} samples), p-values come from "
            f"{n_shuffles} label shuffles and are corrected over labels after Holm.",
            _TESTED,
        )
    ]


def within(plans: Sequence[Plan], train_on: str, n_shuffles: int, n_boot: int) -> list[Sentence]:
    """Describe the evaluation that holds runs and sessions out."""
    runs = [plan for plan in plans if plan.unit == "run"]
    said: list[Sentence] = []
    if runs:
        n_runs = sum(len(plan.folds) for plan in runs)
        said.append(
            (
                f"The condition of single trials was predicted inside each of {len(runs)} subjects "
                f"by holding one run out after another ({n_runs} runs); encoder, components, SCAN, "
                "classifier and statistics were fitted to the subject's other runs. Labels were "
                f"shuffled inside runs ({n_shuffles} times) and runs resampled inside subjects "
                f"({n_boot} times); means are over these subjects.",
                _TESTED,
            )
        )
    for plan in plans:
        if plan.unit == "session":
            said.append(
                (
                    f"Whose a session is was predicted by holding each of {len(plan.folds)} "
                    "sessions out; only subjects with another session were tested. The encoder "
                    "was not told which sessions belong together. Sessions were dealt out to "
                    "subjects anew for p, in all ways where there are few.",
                    _TESTED,
                )
            )
    if runs and train_on != "single":
        said.append(
            ("The encoder learned from averages of the training trials of each condition.", ())
        )
    return said


_TESTED = ("bootstrap", "permutation", "holm", "ledoit-wolf", "sklearn")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
