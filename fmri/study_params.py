"""The parameters of single-trial responses: where they come from; quick to import, no nilearn.

Names and meanings are those of nilearn and fMRIPrep. Bare numbers are SI (seconds, hertz), widths
of smoothing are mm; ``null`` skips a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuro.stage import File, Files, Params, Tree
from neuro.units import Hertz, Seconds

__all__ = ["BetasParams", "ConfoundsModel", "ResponseModel", "Selection", "Simulation"]

Columns = Literal["basic", "power2", "derivatives", "full"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Simulation(_Part):
    """A simulated subject whose truth is known."""

    truth: Literal["linear", "nonlinear", "gabor"] = "nonlinear"
    """What drives the voxels: the targets, with a nonlinear part, or Gabor filters and pixels."""
    n_voxels: int = Field(800, ge=10)
    """Voxels."""
    n_repeats: int = Field(2, ge=1)
    """Trials of a training picture."""
    n_test_repeats: int = Field(3, ge=1)
    """Trials of a test picture."""
    n_sessions: int = Field(4, ge=1)
    """Sessions; each has gains and offsets of its own."""
    ceiling: float = Field(0.3, gt=0, lt=1)
    """Mean share of a single trial's variance that the picture explains."""


class ConfoundsModel(_Part):
    """Confounds of fMRIPrep, as `nilearn.interfaces.fmriprep.load_confounds` takes them.

    null is the default of nilearn.
    """

    strategy: list[
        Literal[
            "motion", "high_pass", "wm_csf", "global_signal", "compcor", "ica_aroma", "scrub",
            "non_steady_state",
        ]
    ] = Field(["motion", "high_pass", "wm_csf"], min_length=1)  # fmt: skip
    """What is taken out; scrub leaves volumes out."""
    motion: Columns | None = None
    """Six parameters, with their squares, derivatives, or all 24."""
    wm_csf: Columns | None = None
    """Means of white matter and CSF."""
    global_signal: Columns | None = None
    """Mean of the brain."""
    compcor: Literal["anat_combined", "anat_separated", "temporal"] | None = None
    """Which components."""
    n_compcor: int | Literal["all"] | None = None
    """How many."""
    scrub: int | None = Field(None, ge=0)
    """Shortest run of volumes that is kept."""
    fd_threshold: float | None = Field(None, ge=0)
    """Framewise displacement (mm) above which a volume is left out."""
    std_dvars_threshold: float | None = Field(None, ge=0)
    """Standardised DVARS above which a volume is left out."""


class ResponseModel(_Part):
    """How the response to a trial is estimated from a run; see `fmri.estimate.Response`."""

    method: Literal["window", "lsa", "lss", "ridge", "glmsingle"] = "lss"
    """Mean of a window (blocks, slow designs); one model of all trials; each trial against the
    rest (fast designs); fractional ridge; GLMsingle where it is installed."""
    tmin: Seconds = 4.0
    """window: start after the onset."""
    tmax: Seconds = 10.0
    """window: end, not included, counted from `until`."""
    until: Literal["onset", "offset"] = "onset"
    """window: whether tmax counts from the onset or the end of the event."""
    detrend: bool = True
    """window: take a linear trend out."""
    standardize: Literal["zscore_sample", "psc"] | None = "zscore_sample"
    """window: of each run's series."""
    high_pass: Hertz | None = Field(0.01, gt=0)
    """Slower drifts are taken out, in one projection with trend and confounds."""
    low_pass: Hertz | None = Field(None, gt=0)
    """window: faster changes are taken out."""
    hrf_model: str = "spm"
    """Models: spm, glover, or another of nilearn's with one regressor."""
    others: Literal["one", "condition"] = "one"
    """lss: the other trials as one regressor, or one for each trial_type."""
    scale: Literal["psc"] | None = "psc"
    """Models: percent of each voxel's mean, or the scanner's units."""
    slice_time_ref: float = Field(0.0, ge=0, le=1)
    """When in a repetition a volume was taken; 0.5 for fMRIPrep's slice timing correction."""
    fracs: float | list[float] = 0.5
    """ridge: one fraction, or several of which repeats of training pictures choose."""
    glmsingle: dict[str, Any] = {}
    """Options of GLM_single."""


class Selection(_Part):
    """Voxels that are kept by their reliability over repeats of the training pictures."""

    measure: Literal["ncsnr", "split_half"] = "ncsnr"
    """Noise ceiling signal-to-noise ratio, or correlation of two halves of the repeats."""
    threshold: float | None = None
    """Least value; 0.15 of ncsnr is usual for whole cortex."""
    keep: int | None = Field(None, ge=1)
    """So many of the most reliable ones."""

    @model_validator(mode="after")
    def _one_rule(self) -> Selection:
        if (self.threshold is None) == (self.keep is None):
            raise ValueError("give either 'threshold' or 'keep'")
        return self


SOURCES = ("files", "derivatives", "bold")
_RUNS = ("derivatives", "bold")
BELONGS = {
    **dict.fromkeys(("trials", "scale", "units", "variable", "axes"), ("files",)),
    **dict.fromkeys(("task", "space", "kind", "bids_root", "confounds"), ("derivatives",)),
    **dict.fromkeys(("confounds_files",), ("bold",)),
    **dict.fromkeys(("events", "trial_types", "t_r", "smoothing_fwhm", "response"), _RUNS),
    **dict.fromkeys(("stimulus", "subject", "sessions", "mask_img", "labels"), SOURCES),
}


class BetasParams(Params):
    """Where the single-trial responses come from, and what is done to them."""

    files: Files | None = None
    """Betas of one file for each session: NIfTI, CIFTI, GIFTI, .npy, .mat, HDF5. With none of
    files, derivatives and bold, a subject is simulated."""
    trials: Files | None = None
    """files: table of the trials, one in all or one for each file; by default X_trials.tsv beside
    X_betas.nii.gz."""
    scale: float = 1.0
    """files: the numbers are multiplied by it; 0.0033333 (1/300) for int16 betas of the NSD."""
    units: str | None = None
    """files: their units."""
    variable: str | None = None
    """files: name in a MATLAB or HDF5 file."""
    axes: str | None = None
    """files: order of an array's axes in the letters t v, or i j k t."""
    derivatives: Tree | None = None
    """Folder of fMRIPrep's derivatives, with sub-* in it."""
    task: str | None = None
    """derivatives: keep this task."""
    space: str | None = None
    """derivatives: keep this space, for example T1w."""
    kind: Literal["volume", "surface", "cifti"] = "volume"
    """derivatives: .nii.gz, .func.gii or .dtseries.nii."""
    bids_root: Tree | None = None
    """derivatives: the BIDS folder with _events.tsv; by default the folders above."""
    confounds: ConfoundsModel | None = None
    """derivatives: what is taken out besides drifts; null takes nothing."""
    bold: Files | None = None
    """Runs of BOLD images without fMRIPrep, in the order of their events."""
    confounds_files: Files | None = None
    """bold: a table of confounds for each run."""
    events: Files | None = None
    """Table of events for each run in its order, or one with the columns run (and session)."""
    trial_types: list[str] | None = None
    """Which trial_type are trials; others are regressors of their own, or left away."""
    t_r: Seconds | None = Field(None, gt=0)
    """Repetition time, by default the header's."""
    smoothing_fwhm: float | None = Field(None, gt=0)
    """Width (mm) of a Gaussian that smooths the runs first; none is best for patterns."""
    response: ResponseModel = ResponseModel()
    """How a trial's response is estimated from a run."""
    stimulus: str | None = None
    """Column that names the picture; by default the first there is of stimulus, stimulus_id,
    stim_file, image, image_id and trial_type."""
    subject: str | None = None
    """Label of the subject; several have voxels of their own: sweep over this."""
    sessions: list[str] | None = None
    """Labels of the sessions to keep."""
    mask_img: Files | None = None
    """Masks or regions, intersected; one with sub- in its name counts for that subject."""
    labels: list[int] | None = None
    """Values of mask_img that are inside; by default all but 0."""
    standardize: Literal["session"] | None = "session"
    """Z-score every session by its trials of training pictures."""
    select: Selection | None = None
    """Keep reliable voxels; null keeps all."""
    atlas: File | None = None
    """Average the voxels of every region of this atlas image; null keeps voxels."""
    atlas_table: File | None = None
    """Names of the atlas's regions."""
    simulate: Simulation = Simulation()
    """The simulated subject, used where none of files, derivatives and bold is given."""
    seed: int = 0
    """Seed of the simulation, and of split halves."""

    @property
    def source(self) -> str:
        """Return which of the sources is given, "simulate" for none."""
        return next((name for name in SOURCES if getattr(self, name) is not None), "simulate")

    @model_validator(mode="after")
    def _one_source(self) -> BetasParams:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"give one source of responses, found {' and '.join(given)}: 'files' are betas, "
                "'derivatives' a folder of fMRIPrep, 'bold' runs of other preprocessing"
            )
        strange = [
            name for name, of in BELONGS.items() if self.source not in of and self._is_set(name)
        ]
        if strange:
            raise ValueError(
                f"{_named(strange)} with {_named(BELONGS[strange[0]], 'or')}, not with "
                f"{'the simulator' if self.source == 'simulate' else repr(self.source)}"
            )
        if self.source == "bold" and self.events is None:
            raise ValueError("'bold' needs 'events', a table for each run")
        if self.atlas_table is not None and self.atlas is None:
            raise ValueError("'atlas_table' goes with 'atlas'")
        return self

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].get_default())

    def reads(self) -> list[Path]:
        """Name the tables beside betas, and what is used of a tree of fMRIPrep."""
        if self.source not in ("files", "derivatives"):
            return []
        from fmri.study_sources import companions

        return companions(self)


def _named(names: Iterable[str], word: str = "and") -> str:
    quoted = [f"'{name}'" for name in names]
    text = f" {word} ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
    return text if word == "or" else f"{text} {'goes' if len(quoted) == 1 else 'go'}"
