"""EEG: event-related recordings to disentangled codes (beta-VAE), read by clinicians.

Rooms in the order in which data flows: `read`, `preprocess`, `erp`, `beta_vae`, `scan`, `evaluate`,
`simulate`, and `stages`, which declares them to the runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eeg.beta_vae import BetaVAE
    from eeg.scan import SCAN

__all__ = ["SCAN", "BetaVAE"]


def __getattr__(name: str) -> Any:
    if name == "BetaVAE":
        from eeg.beta_vae import BetaVAE

        return BetaVAE
    if name == "SCAN":
        from eeg.scan import SCAN

        return SCAN
    raise AttributeError(f"module 'eeg' has no attribute '{name}'")
