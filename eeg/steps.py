"""The parameters of EEG reading and preprocessing; quick to import, no MNE.

Names and meanings are MNE's. Bare numbers are SI (volts, seconds, hertz); a quantity may carry
its unit (``100 uV``, ``4 ms``). ``null`` skips a step.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuro.stage import Params
from neuro.units import Hertz, Seconds, Volts

Event = int | str | list[int | str]
"""What marks an event: a stimulus code, an annotation's text, or several of them."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ColumnMap(_Part):
    """How a CSV recording is laid out: one row per sample, one column per channel.

    The defaults fit recordings of the Muse headband (``timestamps, TP9, AF7, AF8, TP10,
    Right AUX, Marker`` in microvolts); only the sampling rate has to be given.
    """

    sfreq: Hertz | None = Field(None, gt=0)
    """Sampling rate. It is never guessed: rounded timestamps would give a wrong one."""
    time: str | None = "timestamps"
    """Column of times in seconds, checked against `sfreq`; null where there is none."""
    channels: list[str] | None = None
    """Columns that are channels; null takes every column not named elsewhere."""
    ignore: list[str] = ["Right AUX"]
    """Columns to leave out (an input that nothing was connected to)."""
    marker: list[str] = ["Marker0", "Marker", "stim"]
    """Names of the marker column, the first one found is used; 0 in it means no event."""
    unit: Literal["V", "mV", "uV", "nV"] = "uV"
    """Unit of the channels."""
    separator: str | None = None
    """What separates the columns; null: a tab in ``.tsv``, a comma otherwise."""


class Ica(_Part):
    """Independent components that hold eye, heart or muscle activity are removed.

    The decomposition is fitted on a copy that is high-passed at `l_freq`, since slow drifts
    would take up components, and applied to the signal itself.
    """

    n_components: int | float | None = 0.999
    """How many components, or the share of variance that they explain (`mne.preprocessing.ICA`)."""
    method: Literal["fastica", "infomax", "picard"] = "fastica"
    """Algorithm; ``fastica`` is by far the quickest of the three."""
    max_iter: int | Literal["auto"] = "auto"
    """Most iterations."""
    l_freq: Hertz = 1.0
    """High-pass of the copy that the decomposition is fitted on."""
    decim: int | None = Field(None, ge=1)
    """Fit on every n-th sample."""
    find: list[Literal["eog", "ecg", "muscle"]] = ["eog", "ecg", "muscle"]
    """Which components to look for; what can't be looked for is skipped and said."""
    eog: list[str] = Field([])
    """Frontal EEG channels that stand in where no EOG was recorded, for example ``[Fp1, Fp2]``."""
    ecg: str | None = None
    """Channel that stands in where no ECG was recorded."""
    seed: int = 0
    """Seed of the decomposition's start."""


class Steps(Params):
    """Everything that happens between a recording and its clean, stimulus-locked trials.

    The steps run in the order of the fields. Ready-made epochs pass through those that apply to
    epochs; the others are skipped, and the recording's figures say so.
    """

    # Reading
    csv: ColumnMap = ColumnMap()
    """Layout of recordings that are CSV files."""
    scale: float = Field(1.0, gt=0)
    """Factor on the signal as read: ``1e-6`` for a file that holds microvolts but says volts."""
    rename_channels: dict[str, str] = Field({})
    """New names of channels, ``{old: new}``."""
    channel_types: dict[str, str] = Field({})
    """Types of channels that the file gets wrong, ``{EOG1: eog, Status: stim}``."""
    montage: str | None = None
    """Template positions by name (``standard_1005``); null keeps the file's own."""
    picks: list[str] | None = None
    """EEG channels to keep, in this order; null keeps all of them."""

    # Bad channels
    bads: list[str] = Field([])
    """Channels known to be bad, besides those marked in the recording."""
    flat_channel: Volts | None = Field(1e-7, ge=0)
    """A channel that stays within this for most of the recording is bad (peak-to-peak)."""
    lof: float | None = Field(1.5, gt=1)
    """Threshold of the local outlier factor beyond which a channel is bad."""

    # Frequencies
    notch: Hertz | list[Hertz] | None = None
    """Line frequency, or frequencies, to take out."""
    l_freq: Hertz | None = None
    """High-pass edge; not possible on ready-made epochs shorter than the filter."""
    h_freq: Hertz | None = None
    """Low-pass edge."""

    # Artefacts, reference
    ica: Ica | None = None
    """Remove components of eyes, heart and muscles; ``{}`` takes the defaults."""
    regress_eog: bool = False
    """Subtract what the EOG channels predict (the cheap alternative to `ica`)."""
    interpolate: bool = True
    """Replace bad channels by their neighbours, before an average reference is formed."""
    reference: Literal["average"] | list[str] | None = None
    """New reference; null keeps the one of the recording."""

    # Trials
    event_id: dict[str, Event] | list[str] | None = None
    """Conditions and what marks them, ``{face: 2, house: 1}``; null takes every event there is."""
    tmin: Seconds | None = None
    """Start of a trial; null: -0.2 s, or all of a ready-made epoch."""
    tmax: Seconds | None = None
    """End of a trial; null: 0.8 s, or all of a ready-made epoch."""
    baseline: tuple[Seconds | None, Seconds | None] | None = (None, 0.0)
    """Window whose mean is subtracted; skipped, and said, where no trial reaches back before 0."""
    detrend: Literal[0, 1] | None = None
    """Remove each trial's mean (0) or line (1)."""
    decim: int | None = Field(None, ge=1)
    """Keep every n-th sample."""
    resample: Hertz | None = Field(None, gt=0)
    """Sampling rate of the trials; by decimation where a low-pass allows it."""
    crop: tuple[Seconds | None, Seconds | None] | None = None
    """Final window, for trials that were cut longer so that filters have room."""
    reject: Volts | dict[str, Volts] | None = None
    """Drop trials with a larger peak-to-peak amplitude; one value (EEG) or one per type."""
    flat: Volts | dict[str, Volts] | None = None
    """Drop trials with a smaller peak-to-peak amplitude."""
    autoreject: Literal["global", "local"] | None = None
    """Let autoreject choose the thresholds, or repair and drop (needs the extra of that name)."""
    metadata: list[str] = Field([])
    """Columns of the epochs' metadata that become labels of their trials."""

    @model_validator(mode="after")
    def _consistent(self) -> Steps:
        if self.ica is not None and self.regress_eog:
            raise ValueError("give either 'ica' or 'regress_eog', not both")
        if self.decim is not None and self.resample is not None:
            raise ValueError("give either 'decim' or 'resample', not both")
        if None not in (self.l_freq, self.h_freq) and self.l_freq >= self.h_freq:  # type: ignore[operator]
            raise ValueError(f"l_freq {self.l_freq} Hz is not below h_freq {self.h_freq} Hz")
        if None not in (self.tmin, self.tmax) and self.tmin >= self.tmax:  # type: ignore[operator]
            raise ValueError(f"tmin {self.tmin} s is not before tmax {self.tmax} s")
        return self

    @classmethod
    def nothing(cls) -> Steps:
        """Return the steps that leave ready-made epochs as they are."""
        return cls(flat_channel=None, lof=None, interpolate=False, baseline=None)
