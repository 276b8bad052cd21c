"""The parameters of whole-brain stages; quick to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fmri.parcel_params import ParcelCutting
from neuro.stage import File, Files, Params

__all__ = [
    "AlignParams", "BrainSimulation", "EvaluateParams", "FewLabelsParams", "PretrainParams",
    "SeriesParams", "StudyParams",
]  # fmt: skip


class BrainSimulation(BaseModel):
    """A simulated brain whose networks are known; see `fmri.simulate_whole_brain`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    networks: dict[str, float] | None = None
    """Gain of every network, which is what it knows of the stimulus; 0 is a null network. null
    takes seven networks, from the visual one (1) to the somatomotor one (0)."""
    n_parcels: int = Field(6, ge=1)
    """Of every network."""
    n_other: int = Field(118, ge=0)
    """Parcels of no network, which say nothing."""
    n_latents: int = Field(8, ge=2)
    """Dimensions that parcels are driven by."""
    n_trials: int = Field(40, ge=2)
    """Of a run."""
    n_train_runs: int = Field(12, ge=1)
    """Runs to train on."""
    n_test_runs: int = Field(4, ge=1)
    """Runs that nothing is trained on, of other items."""
    n_unlabelled_runs: int = Field(20, ge=0)
    """Runs of which it isn't known what was shown."""
    n_rest_runs: int = Field(4, ge=0)
    """Runs without a stimulus."""
    n_imagery_runs: int = Field(2, ge=0)
    """Runs in which prompts are imagined."""
    n_prompts: int = Field(16, ge=2)
    """Prompts that are imagined, each several times."""
    strength: float = Field(4.0, ge=0)
    """Peak of the response of a parcel of gain 1 to a latent of one standard deviation."""
    imagery: float = Field(0.5, ge=0)
    """Strength of what is imagined, as a share of what is seen; 0 is a null."""
    background: float = Field(0.4, ge=0)
    """Standard deviation of activity that no stimulus drives."""
    noise: float = Field(1.0, gt=0)
    """Standard deviation of a parcel's own noise."""


class SeriesParams(ParcelCutting):
    """Runs and what is known of them; without files a brain is simulated."""

    files: Files | None = None
    """4-D NIfTI or CIFTI runs with events; null is the simulator."""
    events: Files | None = None
    """BIDS events of each run, in the same order; null takes those that lie beside the runs."""
    confounds_files: Files | None = None
    """A table of confounds for each run, in the same order; they are taken out with the trend."""
    unlabelled: Files | None = None
    """Further runs, of which nothing is known, for pretraining."""
    test_runs: list[str] | None = None
    """Names of the runs that nothing is trained on; null leaves out one run after another."""
    imagery_runs: list[str] = Field([])
    """Names of the runs in which items were imagined."""
    embeddings: File | None = None
    """Embeddings by item (.npz, .h5, .npy, Zarr); null takes attributes of categories."""
    text_embeddings: File | None = None
    """Embeddings of texts, by item."""
    attributes: File | None = None
    """CSV of categories as rows, with a first line # source: ...; null takes the table of the
    eight categories of Haxby et al. where it fits, else one column for each category."""
    tmin: float = 2.0
    """A block begins at the onset + tmin, s."""
    tmax: float = 12.0
    """A block ends before until + tmax, s."""
    window: int = Field(12, ge=2)
    """Volumes of a window to pretrain on."""
    stride: int | None = Field(6, ge=1)
    """Volumes from one window to the next; null is the window."""
    simulate: BrainSimulation = BrainSimulation()
    """The simulated brain, with files null."""
    seed: int = 0
    """Of the simulation."""

    def events_files(self) -> list[Path]:
        """Return the events of each run: those given, or those beside the runs."""
        from fmri.brain_series import events_of

        return list(self.events) if self.events else [events_of(f) for f in self.files or []]

    def reads(self) -> list[Path]:
        """Name the events beside the runs."""
        from fmri.brain_series import find_events

        found = [] if self.events else [find_events(f) for f in self.files or []]
        return [path for path in found if path is not None]


class _Training(Params):
    encoder: Literal["causal", "masked", "volumetric", "linear"] = "causal"
    """A transformer over volumes, a masked autoencoder over parcels, a network on volumes, or a
    linear map."""
    preset: Literal["small", "paper"] = "small"
    """Sizes and rates: ours for some hundred trials on a CPU, or the paper's."""
    sizes: dict[str, Any] | None = None
    """Changes to the preset's sizes; see fmri.brain_presets."""
    max_epochs: int | None = Field(None, ge=1)
    """null takes the preset's."""
    batch_size: int | None = Field(None, ge=2)
    """null takes the preset's."""
    learning_rate: float | None = Field(None, gt=0)
    """null takes the preset's."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better one."""
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    """Of the arithmetic."""
    device: str = "auto"
    """cpu, cuda, or what there is."""
    seed: int = 0
    """Of weights and batches."""


class PretrainParams(_Training):
    """What is pretrained, and how."""

    encoder: Literal["causal", "masked"] = "causal"
    """A transformer that predicts the next volume, or a masked autoencoder over parcels."""
    kinds: tuple[str, ...] = ("unlabelled", "rest")
    """Kinds of trials to pretrain on: windows of unlabelled runs and of training runs, of rest."""


class AlignParams(_Training):
    """What is trained, and how."""

    prior: bool = False
    """Train a diffusion prior on the pooled feature too."""
    text: bool = True
    """Align with texts too, where the data bring their embeddings."""
    encoder_rate: float | None = Field(None, ge=0, le=1)
    """Learning rate of a pretrained encoder as a share of that of the heads: 1 tunes all alike, 0
    leaves it as it is; null takes the preset's."""
    sparse: float = Field(0.2, ge=0, lt=1)
    """Share of the entries that is set to 0 in training."""
    shuffle: bool = True
    """Shuffle the volumes of a block in training."""
    hold_out: str = "item"
    """What is kept aside as a whole to choose the epoch: item, or a coordinate of the trials."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Share that is kept aside; 0 takes the last epoch."""


class EvaluateParams(Params):
    """How decoding is scored."""

    groups: str = "run"
    """Coordinate of the trials that is left out as a whole where the data bring no split."""
    units: str | None = None
    """Coordinate that intervals are over: item, run, subject; null is item with a split, else
    groups."""
    C: float | None = Field(None, gt=0)
    """Inverse penalty of the logistic regression; null tunes it inside the training trials."""
    n_candidates: int = Field(50, ge=2)
    """Of retrieval, at most as many as there are test items."""
    n_way: int = Field(4, ge=2)
    """Categories to choose among in n-way classification."""
    n_shuffles: int = Field(10, ge=1)
    """Trainings on shuffled categories."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples behind the intervals."""
    seed: int = 0
    """Of shuffles and intervals."""


class FewLabelsParams(Params):
    """How few labels, and how often."""

    share: float = Field(0.125, gt=0, le=1)
    """Of the training trials' labels that is kept, by category."""
    n_draws: int = Field(3, ge=1)
    """Draws of these trials, each with a training from scratch and one from the pretrained
    weights."""
    optional: bool = False
    """Say so where the data bring no split, instead of refusing them."""
    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples behind the intervals."""
    seed: int = 0
    """Of the draws; the trainings take the number of the draw."""


class StudyParams(Params):
    """How seeds are pooled."""

    n_boot: int = Field(2000, ge=100)
    """Bootstrap samples behind the intervals over seeds."""
    seed: int = 0
    """Of the intervals."""
