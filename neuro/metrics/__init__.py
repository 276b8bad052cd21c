"""Metrics on plain arrays; this package imports only numpy, scipy and scikit-learn."""

from __future__ import annotations

from typing import Any

_LATE = {
    "balanced_accuracy": "classification",
    "chance_level": "classification",
    "class_hits": "classification",
    "compare_representations": "activity",
    "compare_rows": "similarity",
    "count_ahead": "retrieval",
    "count_ahead_blocks": "retrieval",
    "discriminate": "discriminant",
    "disentanglement": "scores",
    "disentanglement_intervals": "intervals",
    "drawn_top_k": "retrieval",
    "exact_top_k": "retrieval",
    "gap_closed": "activity",
    "kept_latents": "latents",
    "kl_per_latent": "latents",
    "latent_counts": "latents",
    "latent_stability": "udr",
    "match_latents": "udr",
    "mean_correlation": "dependence",
    "n_way_top_k": "retrieval",
    "neighbour_total_correlation": "dependence",
    "pairwise": "retrieval",
    "pairwise_within": "retrieval",
    "ranks": "retrieval",
    "score_auc_eer": "verification",
    "total_correlation": "dependence",
    "variable_types": "latents",
    "verify_pairs": "verification",
    "weighted_balanced_accuracy": "classification",
}

__all__ = sorted(_LATE)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"neuro.metrics.{_LATE[name]}"), name)
    raise AttributeError(f"module 'neuro.metrics' has no attribute '{name}'")
