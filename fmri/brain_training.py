"""Pretraining and alignment of a whole-brain encoder, as stages of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from fmri.brain_series import blocks_in, windows_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from fmri.brain_pretraining import PretrainedBrain
    from fmri.whole_brain import WholeBrain
    from neuro.stage import Context

__all__ = ["curve_figure", "record_alignment", "record_pretraining"]

NAMES = {
    "causal": "a causal transformer, which predicts a volume from those before it",
    "masked": "a masked autoencoder over parcels and time",
    "volumetric": "a convolutional network on volumes",
    "linear": "a linear map of the mean volume",
}
CITED = {"causal": ("thomas2022",), "masked": ("ortegacaro2024",)}


def record_pretraining(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any]
) -> PretrainedBrain:
    """Pretrain on the windows of the data, and report the course of the loss."""
    from fmri.brain_pretraining import PretrainedBrain
    from neuro.report import Figure, Text

    windows = windows_in(data, settings["kinds"])
    fields = {k: v for k, v in settings.items() if k not in ("kinds", "seed") and v is not None}
    model = PretrainedBrain(**fields, random_state=settings["seed"])
    model.fit(windows, scratch=context.scratch, progress=context.progress)
    best = model.history_[max(model.best_epoch_ - 1, 0)]
    first = model.history_[0]
    for key, name in (("loss", "pretrain.loss"), ("val_loss", "pretrain.validation_loss")):
        if key in best:
            context.metric(name, best[key], baseline=first[key])
    context.section(
        "Pretraining",
        Text(
            f"{NAMES[model.encoder].capitalize()}, was trained on {windows.sizes['trial']} windows "
            f"of {windows.sizes['time']} volumes without labels; epoch {model.best_epoch_} of "
            f"{len(model.history_)} was best on runs kept aside."
        ),
        Figure(curve_figure(model.history_, model.best_epoch_), "The self-supervised loss."),
    )
    context.method(
        f"The encoder ({NAMES[model.encoder]}) was pretrained on windows without labels, none of "
        "a test run.", *CITED.get(model.encoder, ()),
    )  # fmt: skip
    return model


def record_alignment(
    context: Context, data: xr.Dataset, settings: Mapping[str, Any], pretrained: Any = None,
    targets: xr.Dataset | None = None, autoencoder: Any = None,
) -> WholeBrain:  # fmt: skip
    """Align an encoder with embeddings, and report the course of the loss."""
    from fmri.whole_brain import WholeBrain
    from neuro.report import Figure, Text

    blocks = blocks_in(data, ("perception",)) if "kind" in data.coords else data.load()
    if not settings["text"] and "text_target" in blocks:
        blocks = blocks.drop_vars("text_target")
    fields = {k: v for k, v in settings.items() if k not in ("text", "seed")}
    model = WholeBrain(**fields, random_state=settings["seed"])
    model.fit(blocks, targets, pretrained=pretrained, scratch=context.scratch,
              progress=context.progress)  # fmt: skip
    if autoencoder is not None:
        model.attach_decoder(autoencoder)
    n = int((blocks["part"] == "train").sum()) if "part" in blocks.coords else blocks.sizes["trial"]
    views = "pictures and texts" if "text_target" in blocks else "items"
    context.section(
        "Alignment",
        Text(
            f"{NAMES[model.encoder].capitalize()}, was aligned with the embeddings of {views} on "
            f"{n} trials, from {'scratch' if pretrained is None else 'pretrained weights'}; epoch "
            f"{model.best_epoch_} of {len(model.history_)} was taken."
        ),
        Figure(curve_figure(model.history_, model.best_epoch_), "The contrastive loss."),
    )
    context.method(
        "The encoder was aligned with the embeddings by contrastive losses with a learned "
        "temperature each.", "wang2024wave",
    )  # fmt: skip
    if model.target_["random_weights"]:
        context.mark("The targets come of a network with random weights.")
    return model


def curve_figure(history: list[dict[str, float]], best: int) -> MatplotlibFigure:
    """Draw losses by epoch, of training and of what was kept aside."""
    from neuro.draw import COLOURS, GREY, new_figure, tidy

    figure = new_figure(5.0, 2.6)
    axes = tidy(figure.subplots(), "epoch", "loss")
    epochs = [entry["epoch"] for entry in history]
    for colour, (key, label) in zip(
        COLOURS, (("loss", "training"), ("val_loss", "kept aside")), strict=False
    ):
        if all(key in entry for entry in history):
            axes.plot(epochs, [entry[key] for entry in history], color=colour, label=label)
    if best:
        axes.axvline(best, color=GREY, ls="--", lw=1)
    axes.legend(frameon=False, fontsize=8)
    return figure
