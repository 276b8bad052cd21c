"""Self-supervised pretraining on unlabelled runs, and the encoder that comes of it.

Windows of runs (`fmri.brain_windows`) are given to the pretext task of the causal or the masked
encoder; labels play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from neuro.batches import Batches
from neuro.device import device_of
from neuro.errors import InputError
from neuro.nn.mindeye import one_cycle
from neuro.nn.objective import Objective, Phase, State
from neuro.standardize import Standardizer

__all__ = ["PretextObjective", "PretrainedBrain"]

MIN_BATCHES = 4  # of an epoch: few windows make smaller batches
_VALIDATED = 256  # windows at once


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
            Of `fmri.brain_windows.cut_windows`, or any blocks; labels play no part.
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
        index = np.flatnonzero(rows)
        most = max(2, len(index) // MIN_BATCHES) if training else _VALIDATED
        return Batches(
            {"x": blocks.x, "mask": blocks.mask}, min(self.batch_size, most), index=index,
            shuffle=training, seed=self.random_state, device=device_of(self.device),
        )  # fmt: skip


# Inside ---------------------------------------------------------------------------------------


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
