"""What MindEye may be set to: choices and ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuro.errors import InputError

if TYPE_CHECKING:
    from fmri.mindeye import MindEye

CHOICES: dict[str, tuple[Any, ...]] = {
    "preset": ("small", "mindeye1", "mindeye2"),
    "loss": (None, "bimixco+softclip", "bimixco", "softclip", "infonce"),
    "head": ("separate", "shared"),
    "sampler": ("ddim", "ddpm", "mean"),
}


def check_parameters(estimator: MindEye) -> None:
    """Refuse values that no training can use, by name."""
    for name, known in CHOICES.items():
        if getattr(estimator, name) not in known:
            raise InputError(
                f"{name} is {getattr(estimator, name)!r}; expected one of "
                f"{', '.join(map(str, known))}"
            )
    least = {
        "n_blocks": 0, "n_hidden": 1, "rank": 1, "input_dropout": 0.0, "max_epochs": 0,
        "prior_max_epochs": 0, "batch_size": 2, "learning_rate": 0.0, "weight_decay": 0.0,
        "validation_fraction": 0.0, "low_level_weight": 0.0, "steps": 1,
    }  # fmt: skip
    for name, low in least.items():
        value = getattr(estimator, name)
        if value is not None and not value >= low:
            raise InputError(f"{name} is {value!r}; expected at least {low}")
    for name in ("validation_fraction", "input_dropout"):
        if (getattr(estimator, name) or 0.0) >= 1:
            raise InputError(f"{name} is {getattr(estimator, name)}; expected below 1")
    if estimator.steps > 100:
        raise InputError(f"steps is {estimator.steps}; expected at most 100")
