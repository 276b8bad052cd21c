"""Self-supervised pretraining on unlabelled runs, and the encoder that comes of it.

Runs are detrended and z-scored, cut into windows and given to the pretext task of the causal or
the masked encoder. Runs (or whole subjects) that will be tested on are named and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from fmri.brain_blocks import BlockEncoder, Blocks, blocks_of, mask_of
from fmri.brain_encoders import BrainEncoder
from fmri.brain_network import load_arrays, pooled_of, to_arrays
from fmri.brain_presets import as_dict, make_encoder, sizes_of
from fmri.clean import clean_signals
from neuro.batches import Batches
from neuro.device import device_of
from neuro.errors import DataError, InputError
from neuro.nn.mindeye import one_cycle
from neuro.nn.objective import Objective, Phase, State
from neuro.standardize import Standardizer

__all__ = ["PretextObjective", "PretrainedBrain", "cut_windows"]


def cut_windows(
    runs: Sequence[xr.Dataset],
    window: int,
    *,
    stride: int | None = None,
    exclude: Iterable[str] = (),
    short: str = "error",
    clean: bool = True,
    high_pass: float | None = None,
) -> xr.Dataset:
    """Cut runs into windows of equal length.

    Parameters
    ----------
    runs : sequence of Dataset
        ``signal (time, parcel)`` of `fmri.parcel_series`, with ``subject``, ``session`` and
        ``run`` in the attributes.
    window : int
        Volumes.
    stride : int, optional
        From one window to the next; by default `window`. The last one ends with the run.
    exclude : iterable of str
        Runs that are tested on: ``subject``, ``subject/run`` or ``subject/session/run``, as the
        attributes name them. Each must name a run.
    short : {"error", "skip"}
        Runs that are shorter than a window are an error, or left out and named in
        ``attrs["short_runs"]``.
    clean : bool
        Detrend and z-score every parcel in the run, as `fmri.cut_blocks` does.
    high_pass : float, optional
        Hz.

    Returns
    -------
    Dataset
        ``signal (trial, parcel, time)`` with ``subject``, ``session``, ``run`` and ``onset`` (s).

    Raises
    ------
    DataError
        Where a run is too short, holds NaN, has other parcels than the first, or none is left.
    InputError
        Where a name in `exclude` is no run's.
    """
    if window < 2 or (stride is not None and stride < 1) or short not in ("error", "skip"):
        raise InputError(
            f"window {window}, stride {stride}, short {short!r}: expected a window of at least 2 "
            "volumes, a stride of at least 1, and error or skip"
        )
    kept = _without(runs, list(exclude))
    too_short = [run for run in kept if run.sizes["time"] < window]
    if too_short and short == "error":
        run = too_short[0]
        raise DataError(
            f"{_name(run)}: has {run.sizes['time']} volumes, shorter than the window of {window}; "
            f"take a shorter window, or leave short runs out ({len(too_short)} of {len(kept)} are)"
        )
    kept = [run for run in kept if run.sizes["time"] >= window]
    if not kept:
        raise DataError("no run is left to pretrain on: all are excluded or too short")
    _check_alike(kept)
    parts, marks = [], []
    for run in kept:
        values, t_r = run["signal"].values, float(run.attrs["t_r"])
        if clean:
            values = clean_signals(values, t_r=t_r, detrend=True, high_pass=high_pass)
        n, step = len(values), stride or window
        starts = np.unique([*range(0, n - window + 1, step), n - window])
        parts.append(np.stack([values[s : s + window].T for s in starts]).astype(np.float32))
        marks += [(*_parts_of(run), start * t_r) for start in starts.tolist()]
    return _windows(kept[0], np.concatenate(parts), marks).assign_attrs(
        short_runs=[_name(run) for run in too_short]
    )


@dataclass(frozen=True)
class Rates:
    """Optimiser of pretraining: AdamW on a one-cycle schedule."""

    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    rise: float = 0.1


class Pretext(nn.Module):
    """The pretext loss as a module of its own, which can be compiled."""

    def __init__(self, encoder: BrainEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Return the loss."""
        return self.encoder.pretext(x, mask, noise)


class PretextObjective(Objective):
    """The self-supervised loss of a batch ``x, mask``.

    Parameters
    ----------
    encoder : BrainEncoder
        Causal or masked.
    rates : Rates
    """

    def __init__(self, encoder: BrainEncoder, rates: Rates | None = None) -> None:
        super().__init__()
        self.pretext, self.rates = Pretext(encoder), rates or Rates()

    def phases(self) -> list[Phase]:
        """Return the one optimiser."""
        own = self.rates

        def make(parameters: Iterable[nn.Parameter], _: int) -> torch.optim.Optimizer:
            every = list(parameters)
            groups = [
                {"params": [p for p in every if p.ndim > 1], "weight_decay": own.weight_decay},
                {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
            ]
            fused = bool(every) and every[0].device.type in ("cpu", "cuda")
            return torch.optim.AdamW(groups, lr=own.learning_rate, fused=fused)

        return [Phase("pretext", make, clip_norm=1.0,
                      schedule=lambda done: one_cycle(done, own.rise))]  # fmt: skip

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss``; what is hidden is drawn anew, and the same in every validation."""
        x, mask = batch["x"], batch["mask"]
        generator = (
            state.generators[0] if state.training else torch.Generator(x.device).manual_seed(0)
        )
        shape = self.pretext.encoder.noise_shape(x)
        noise = torch.rand(shape, generator=generator, device=x.device)
        return {"loss": self.pretext(x, mask, noise)}

    def signature(self) -> dict[str, Any]:
        """Return the rates."""
        return dict(vars(self.rates))


class PretrainedBrain(BlockEncoder):
    """A whole-brain encoder that was pretrained on windows of unlabelled runs.

    Parameters
    ----------
    encoder : {"causal", "masked"}
    preset : {"small", "paper"}
    sizes : dict, optional
        Changes to the preset, see `fmri.brain_presets`.
    max_epochs, batch_size : int
        The paper's batch is 192.
    learning_rate, weight_decay : float
        Of AdamW, on a one-cycle schedule.
    validation_fraction : float
        Share of the runs (of the windows, where there is one run) whose loss chooses the epoch.
    patience : int, optional
        Stop after so many epochs without a better one.
    precision : {"32", "bf16-mixed", "16-mixed"}
    device : str
    compile : bool
    random_state : int

    Attributes
    ----------
    network_ : BrainEncoder
    history_ : list of dict
        Losses per epoch.
    best_epoch_ : int
    """

    name: ClassVar[str] = "fmri-brain-pretrained"
    network_: BrainEncoder
    history_: list[dict[str, float]]
    best_epoch_: int

    def __init__(
        self,
        encoder: str = "causal",
        preset: str = "small",
        sizes: dict[str, Any] | None = None,
        max_epochs: int = 40,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        precision: str = "32",
        device: str = "auto",
        compile: bool = False,
        random_state: int = 0,
    ) -> None:
        self.encoder = encoder
        self.preset = preset
        self.sizes = sizes
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.precision = precision
        self.device = device
        self.compile = compile
        self.random_state = random_state

    @property
    def n_latents(self) -> int:  # type: ignore[override]
        """Size of the pooled vector."""
        return self.network_.width

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        *,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Pretrain on windows.

        Parameters
        ----------
        X : Dataset or DataArray (trial, parcel, time)
            Of `cut_windows`, or any blocks; labels play no part.
        y : None
        scratch : path, optional
            A killed fit continues from it.
        progress : callable, optional
            As `Context.progress`.

        Raises
        ------
        InputError
            Where the encoder has no self-supervised task, or a size is wrong.
        DataError
            Where the data hold NaN, or places of parcels are needed and not known.
        """
        from neuro.training import train

        if self.encoder not in ("causal", "masked"):
            raise InputError(
                f"encoder is {self.encoder!r}; 'causal' and 'masked' have a self-supervised task"
            )
        X = self.as_input(X)
        self._learn(X)
        held = _held_runs(X, self.validation_fraction, self.random_state)
        values, mask = np.asarray(X.values, np.float32), mask_of(X)
        self.standardizer_ = Standardizer.fit(values[~held], mask[~held])
        blocks = blocks_of(X, self.standardizer_)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.random_state)
            self.network_ = self._new_network()
        objective = PretextObjective(self.network_, Rates(self.learning_rate, self.weight_decay))
        result = train(
            objective, self._batches(blocks, ~held, True), max_epochs=self.max_epochs,
            seed=self.random_state,
            validation=self._batches(blocks, held, False) if held.any() else None,
            patience=(self.patience or self.max_epochs) if held.any() else None,
            folder=None if scratch is None else Path(scratch) / "pretext",
            precision=self.precision, device=self.device, compile=self.compile,
            progress=progress, label="pretraining",
        )  # fmt: skip
        objective.cpu().eval()
        self.history_, self.best_epoch_ = result.history[0], result.best_epoch[0]
        return self

    def transform(self, X: Any) -> Any:
        """Return pooled vectors ``(trial, latent)``."""
        return self.wrap(pooled_of(self.network_, self._blocks(X), self.device), X)

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all weights."""
        return to_arrays({"network": self.network_})

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(), "history": self.history_, "best_epoch": self.best_epoch_,
            "sizes": as_dict(sizes_of(self.encoder, self.preset, self.sizes)),
        }  # fmt: skip

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        self._restore_shape(preprocessing)
        self.history_, self.best_epoch_ = preprocessing["history"], preprocessing["best_epoch"]
        self.network_ = self._new_network()
        load_arrays({"network": self.network_}, arrays)

    def _new_network(self) -> BrainEncoder:
        sizes = sizes_of(self.encoder, self.preset, self.sizes)
        return make_encoder(self.encoder, sizes, self.shape_)

    def _batches(self, blocks: Blocks, rows: NDArray[np.bool_], training: bool) -> Batches:
        return Batches(
            {"x": blocks.x, "mask": blocks.mask}, self.batch_size, index=np.flatnonzero(rows),
            shuffle=training, seed=self.random_state, device=device_of(self.device),
        )  # fmt: skip


# Inside ---------------------------------------------------------------------------------------


def _parts_of(run: xr.Dataset) -> tuple[str, str, str]:
    subject, session, name = (str(run.attrs.get(k) or "") for k in ("subject", "session", "run"))
    return subject, session, name


def _name(run: xr.Dataset) -> str:
    return "/".join(part for part in _parts_of(run) if part) or "a run"


def _without(runs: Sequence[xr.Dataset], exclude: list[str]) -> list[xr.Dataset]:
    """Leave runs out by their subject, subject/run or subject/session/run."""

    def names(run: xr.Dataset) -> set[str]:
        subject, _, name = _parts_of(run)
        return {subject, f"{subject}/{name}", _name(run)}

    known = set().union(*(names(run) for run in runs)) if runs else set()
    unknown = sorted(set(exclude) - known)
    if unknown:
        raise InputError(
            f"exclude names {', '.join(unknown[:5])}, but the runs are "
            f"{', '.join(_name(run) for run in list(runs)[:8])}; a wrong name would leak test data"
        )
    return [run for run in runs if not names(run) & set(exclude)]


def _check_alike(runs: list[xr.Dataset]) -> None:
    first = runs[0]
    for run in runs:
        same = run["parcel"].values.tolist() == first["parcel"].values.tolist()
        if not same or not np.isclose(run.attrs["t_r"], first.attrs["t_r"], rtol=0.01):
            raise DataError(
                f"{_name(run)} and {_name(first)} differ in their parcels "
                f"({run.sizes['parcel']}, {first.sizes['parcel']}) or repetition time "
                f"({run.attrs['t_r']}, {first.attrs['t_r']} s); pretrain on runs of one atlas"
            )
        if not np.isfinite(run["signal"].values).all():
            raise DataError(f"{_name(run)}: holds NaN or infinity; interpolate or drop the run")


def _windows(like: xr.Dataset, signal: NDArray[np.float32], marks: list[Any]) -> xr.Dataset:
    t_r, size = float(like.attrs["t_r"]), signal.shape[2]
    coords: dict[str, Any] = {str(k): c for k, c in like.coords.items() if c.dims == ("parcel",)}
    coords["time"] = ("time", np.arange(size) * t_r)
    columns = list(zip(*marks, strict=True))
    for name, column in zip(("subject", "session", "run", "onset"), columns, strict=True):
        coords[name] = ("trial", np.array(column))
    attrs = {"kind": "parcels", "units": like.attrs.get("units", "a.u."), "t_r": t_r}
    return xr.Dataset({"signal": (("trial", "parcel", "time"), signal)}, coords, attrs)


def _held_runs(X: xr.DataArray, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Keep whole runs aside, since windows of one run are alike."""
    n = X.sizes["trial"]
    names = [X[k].values.astype(str) for k in ("subject", "session", "run")
             if k in X.coords and X[k].dims == ("trial",)]  # fmt: skip
    groups = np.array(["/".join(row) for row in zip(*names, strict=True)] or [""] * n)
    known = np.unique(groups)
    if len(known) < 2:
        groups, known = np.arange(n).astype(str), np.arange(n).astype(str)
    if not fraction or len(known) < 2:
        return np.zeros(n, bool)
    count = min(max(1, round(fraction * len(known))), len(known) - 1)
    chosen = np.random.default_rng([seed, 1]).permutation(known)[:count]
    return np.isin(groups, chosen)
