"""Metrics on plain arrays; this package imports only numpy, scipy and scikit-learn."""

from __future__ import annotations

from typing import Any

_LATE = {
    "balanced_accuracy": "classification",
    "chance_level": "classification",
    "class_hits": "classification",
    "discriminate": "discriminant",
    "disentanglement": "scores",
    "kept_latents": "latents",
    "kl_per_latent": "latents",
    "latent_counts": "latents",
    "latent_stability": "udr",
    "match_latents": "udr",
    "mean_correlation": "dependence",
    "total_correlation": "dependence",
    "variable_types": "latents",
    "weighted_balanced_accuracy": "classification",
}

__all__ = sorted(_LATE)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"neuro.metrics.{_LATE[name]}"), name)
    raise AttributeError(f"module 'neuro.metrics' has no attribute '{name}'")
