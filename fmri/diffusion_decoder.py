"""The built-in generator: a small diffusion model from targets to a study's images.

It is trained on the images of the training part, and sees the targets as a regression from brain
data would give them: smaller than they are, and noisy. Started from a picture that an autoencoder
made of the same prediction, it sharpens that picture and keeps where things are.

References
----------
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fmri.autoencoder import chosen_images, load_weights
from fmri.images import pick, refuse_seen
from fmri.seeds import trial_keys, trial_noise, trial_seeds
from neuro.data import as_signal
from neuro.encoder import Encoder
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    from fmri.diffusion_networks import ConditionalUNet

__all__ = ["DiffusionDecoder"]

Floats = NDArray[np.float32]

_BATCH = 64  # images generated at once
_RIDGE = 0.02  # penalty of the linear picture, per image
_BOUNDS = (0.02, 0.98)  # of a reliability


class DiffusionDecoder(Encoder):
    """Small conditional diffusion model of images of 8 to 64 pixels.

    Parameters
    ----------
    n_components : int
        Principal components of the targets that it is conditioned on (fewer where there are
        fewer images).
    width : int
        Channels of the first level, a multiple of 8.
    reliability : float
        Share of a component's variance that predictions will explain, where `fit` is not given
        predictions to learn it from.
    study_weight : int
        How often the study's own images come for every time of the extra ones.
    dropout : float
        Share of samples without a condition, for guidance.
    strength, steps, guidance
        Defaults of `generate`: how much of the noise is put on a start, DDIM steps of the whole
        way, and the weight of the condition (1: no guidance).
    max_epochs, batch_size, learning_rate
        Of the training with AdamW.
    precision, device : str
    random_state : int

    Attributes
    ----------
    reliability_, slope_ : ndarray, shape (n_components_,)
        Of predictions of each component; the slope brings them to the size of a regression's.
    trained_on_ : list of str
        Hashes of the images of the training.
    target_ : dict
        Fingerprint of the targets.
    image_shape_ : tuple of int
        Channel, row, column.
    history_ : list of dict

    Notes
    -----
    The condition's last component says whether an image is the study's own (1) or an extra one
    (-1), so that extra images teach shapes without lending their look.
    """

    name: ClassVar[str] = "fmri-diffusion-decoder"
    dims: ClassVar[tuple[str, ...]] = ("trial", "token", "feature")
    network_: ConditionalUNet
    trained_on_: list[str]
    target_: dict[str, Any]
    image_shape_: tuple[int, int, int]

    def __init__(
        self,
        n_components: int = 40,
        width: int = 24,
        reliability: float = 0.5,
        study_weight: int = 3,
        dropout: float = 0.1,
        strength: float = 0.5,
        steps: int = 20,
        guidance: float = 1.0,
        max_epochs: int = 40,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        precision: str = "32",
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.width = width
        self.reliability = reliability
        self.study_weight = study_weight
        self.dropout = dropout
        self.strength = strength
        self.steps = steps
        self.guidance = guidance
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.precision = precision
        self.device = device
        self.random_state = random_state

    @property
    def n_latents(self) -> int:  # type: ignore[override]
        """Numbers in an image."""
        return int(np.prod(self.image_shape_))

    @property
    def random_weights(self) -> bool:
        """It was never trained: no epoch was asked for."""
        return not self.history_

    @property
    def defaults(self) -> dict[str, float]:
        """Defaults of `generate`."""
        return {"strength": self.strength, "steps": self.steps, "guidance": self.guidance}

    def fit(  # type: ignore[override]
        self,
        X: xr.Dataset,
        y: xr.Dataset | None = None,
        *,
        train_stimuli: ArrayLike | None = None,
        extra: tuple[xr.Dataset, xr.Dataset] | None = None,
        predicted: xr.Dataset | xr.DataArray | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Train on images and their targets.

        Parameters
        ----------
        X : targets Dataset
        y : images Dataset
            Of the whole study, keyed by ``stimulus`` as `X` is.
        train_stimuli : array-like of str
            All other images are the test part.
        extra : (targets, images), optional
            Further pairs, for example of `fmri.images.digit_images`.
        predicted : Dataset or DataArray (trial, token, feature), optional
            Predictions of training stimuli from brain data by models that had not seen them
            (cross-validated): from them it learns how reliable each component is.
        scratch : path, optional
            Checkpoints go here; a killed fit continues from it.
        progress : callable, optional

        Returns
        -------
        DiffusionDecoder

        Raises
        ------
        DataError
            Where a test image is among the training images, or an image has no target.
        InputError
            Where a parameter is wrong, or images or `train_stimuli` are missing.
        """
        self._check_parameters()
        if not isinstance(y, xr.Dataset) or not isinstance(X, xr.Dataset):
            raise InputError("fit needs two Datasets: fit(targets, images, train_stimuli=...)")
        images, index, self.trained_on_ = chosen_images(
            y, train_stimuli, None if extra is None else extra[1], self.study_weight
        )
        n_study = np.size(np.asarray(train_stimuli))
        tokens = self._training_tokens(X, images, n_study, extra)
        self.target_ = json.loads(X.attrs.get("fingerprint", "{}"))
        values = self.start_fit(tokens).reshape(len(tokens), -1)
        pixels = np.ascontiguousarray(images.values, dtype=np.float32)
        c = self._fit_components(values, predicted, np.asarray(train_stimuli, dtype=str))
        own = np.where(np.arange(len(c)) < n_study, 1, -1).astype(np.float32)
        self._train(np.column_stack([c, own]), pixels, index, scratch, progress)
        return self

    def generate(
        self,
        tokens: NDArray[Any],
        seeds: Sequence[int],
        *,
        start: Floats | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Floats:
        """Make images of tokens; see `fmri.reconstruct.Generator.generate`."""
        import torch

        from neuro.device import device_of

        check_is_fitted(self, "contract_")
        target = device_of(self.device, fallback=True)
        steps = self.steps if steps is None else steps
        guidance = self.guidance if guidance is None else guidance
        skip = 0 if start is None else skipped_steps(steps, self._strength(strength))
        c = np.column_stack([self._components(tokens), np.ones(len(tokens), np.float32)])
        noise = trial_noise(seeds, self.image_shape_)
        self.network_.to(target)
        try:
            with torch.inference_mode():
                blocks = [slice(i, i + _BATCH) for i in range(0, len(c), _BATCH)]
                parts = [
                    self._sample(
                        torch.from_numpy(np.ascontiguousarray(c[b])).to(target),
                        noise[b].to(target),
                        None if start is None else torch.from_numpy(start[b]).to(target),
                        steps, skip, guidance,
                    )
                    for b in blocks
                ]  # fmt: skip
        finally:
            self.network_.cpu()
        return np.concatenate(parts)

    def transform(self, X: Any) -> xr.DataArray:
        """Return an image of each trial's tokens, ``(trial, channel, row, column)`` in [0, 1]."""
        X = self.as_input(X)
        tokens = self.check_input(X)
        keys = trial_keys(X if isinstance(X, xr.DataArray) else tokens)
        images = self.generate(tokens, trial_seeds(keys, self.random_state))
        coords: dict[Any, Any] = {}
        if isinstance(X, xr.DataArray):
            coords = {name: c for name, c in X.coords.items() if c.dims == ("trial",)}
        return xr.DataArray(images, dims=("trial", "channel", "row", "column"), coords=coords)

    def refuse_seen(self, images: xr.Dataset) -> None:
        """Raise `DataError` where an image was in the training (a leak into the test part)."""
        refuse_seen(self.trained_on_, images, what=f"'{self.name}'")

    # The encoder contract -----------------------------------------------------------------

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return weights, components and reliabilities."""
        return {
            **{f"network.{k}": t.numpy() for k, t in self.network_.state_dict().items()},
            "components": self.components_,
            "mean": self.mean_,
            "reliability": self.reliability_,
            "slope": self.slope_,
        }

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        self.trained_on_ = list(preprocessing["trained_on"])
        self.target_, self.history_ = preprocessing["target"], preprocessing["history"]
        channels, rows, columns = preprocessing["image_shape"]
        self.image_shape_ = (int(channels), int(rows), int(columns))
        self.components_, self.mean_ = arrays["components"], arrays["mean"]
        self.reliability_, self.slope_ = arrays["reliability"], arrays["slope"]
        self.network_ = self._new_network()
        load_weights(self.network_, arrays, "network.")

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(),
            "target": self.target_,
            "image_shape": list(self.image_shape_),
            "trained_on": self.trained_on_,
            "history": self.history_,
        }

    # Inside -------------------------------------------------------------------------------

    def _training_tokens(
        self,
        targets: xr.Dataset,
        images: xr.DataArray,
        n_study: int,
        extra: tuple[xr.Dataset, xr.Dataset] | None,
    ) -> xr.DataArray:
        names = images["stimulus"].values
        parts = [as_signal(pick(targets, names[:n_study], what="the targets"))]
        if extra is not None:
            parts.append(as_signal(pick(extra[0], names[n_study:], what="the extra targets")))
            if parts[1].shape[1:] != parts[0].shape[1:]:
                raise ContractError(
                    f"the extra targets are {parts[1].shape[1:]}, the study's "
                    f"{parts[0].shape[1:]} (token, feature); use one provider"
                )
        values = np.concatenate([np.asarray(p.values, dtype=np.float32) for p in parts])
        return xr.DataArray(values, dims=self.dims)

    def _fit_components(
        self, values: Floats, predicted: xr.Dataset | xr.DataArray | None, train: NDArray[Any]
    ) -> Floats:
        from sklearn.decomposition import PCA

        n = min(self.n_components, len(values) - 1, values.shape[1])
        pca = PCA(n, svd_solver="auto", random_state=self.random_state).fit(values)
        spread = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
        self.components_ = (pca.components_ / spread[:, None]).astype(np.float32)
        self.mean_ = pca.mean_.astype(np.float32)
        self.slope_ = np.ones(n, dtype=np.float32)
        self.reliability_ = np.full(n, self.reliability, dtype=np.float32)
        c = self._components(values)
        if predicted is not None:
            self._calibrate(c[: len(train)], predicted, train)
        return c

    def _calibrate(
        self, true: Floats, predicted: xr.Dataset | xr.DataArray, train: NDArray[Any]
    ) -> None:
        """Regress the true components on predicted ones, each on its own."""
        signal = as_signal(predicted) if isinstance(predicted, xr.Dataset) else predicted
        place = {name: row for row, name in enumerate(train.tolist())}
        names = [str(s) for s in signal["stimulus"].values]
        outside = [name for name in names if name not in place]
        if outside or len(names) < 3:
            raise DataError(
                f"{len(outside)} of {len(names)} predictions are of stimuli that are no training "
                "stimuli; pass cross-validated predictions of at least 3 training stimuli"
            )
        wanted = true[[place[name] for name in names]]
        found = self._components(signal.values)
        wanted, found = wanted - wanted.mean(0), found - found.mean(0)
        both = (wanted * found).sum(0)
        power = np.maximum((found**2).sum(0), 1e-12)
        explained = np.maximum(both, 0) ** 2 / (power * np.maximum((wanted**2).sum(0), 1e-12))
        self.slope_ = np.clip(both / power, 0, 2).astype(np.float32)
        self.reliability_ = explained.clip(*_BOUNDS).astype(np.float32)

    def _components(self, tokens: NDArray[Any]) -> Floats:
        flat = np.asarray(tokens, dtype=np.float32).reshape(len(tokens), -1)
        if flat.shape[1] != len(self.mean_):
            raise ContractError(
                f"the tokens have the shape {np.shape(tokens)[1:]}, expected "
                f"{self.contract_.shape} (token, feature)"
            )
        return (flat - self.mean_) @ self.components_.T * self.slope_

    def _train(
        self,
        c: Floats,
        pixels: Floats,
        index: NDArray[np.int64],
        scratch: str | Path | None,
        progress: Callable[..., Iterator[Any]] | None,
    ) -> None:
        import torch

        from fmri.diffusion_networks import DiffusionObjective
        from neuro.batches import Batches
        from neuro.device import device_of
        from neuro.training import train

        self.image_shape_ = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        self.network_ = self._new_network()
        self._set_picture(c, pixels)
        reliable = torch.from_numpy(np.append(self.reliability_, np.float32(1)))
        objective = DiffusionObjective(
            self.network_, reliable, dropout=self.dropout, learning_rate=self.learning_rate
        )
        target = device_of(self.device)
        source = Batches(
            {"x": pixels, "c": c}, self.batch_size, index=index, seed=self.random_state,
            device=target,
        )  # fmt: skip
        result = train(
            objective, source, max_epochs=self.max_epochs, seed=self.random_state, folder=scratch,
            precision=self.precision, device=target, progress=progress, label="diffusion decoder",
        )  # fmt: skip
        self.history_ = result.history[0]
        self.network_.cpu().eval()

    def _set_picture(self, c: Floats, pixels: Floats) -> None:
        """Fit the linear picture by ridge regression, in closed form."""
        import torch

        flat = pixels.reshape(len(pixels), -1).astype(np.float64) * 2 - 1
        x = c.astype(np.float64)
        mean_x, mean_y = x.mean(0), flat.mean(0)
        gram = (x - mean_x).T @ (x - mean_x) + _RIDGE * len(x) * np.eye(x.shape[1])
        weight = np.linalg.solve(gram, (x - mean_x).T @ (flat - mean_y))
        bias = mean_y - mean_x @ weight
        self.network_.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
        self.network_.bias.copy_(torch.from_numpy(bias.astype(np.float32)))

    def _sample(
        self, c: Any, noise: Any, start: Any, steps: int, skip: int, guidance: float
    ) -> Floats:
        from fmri.diffusion_networks import make_scheduler

        scheduler: Any = make_scheduler()
        scheduler.set_timesteps(steps, device=c.device)
        times = scheduler.timesteps[skip:]
        x = noise if start is None else scheduler.add_noise(start * 2 - 1, noise, times[:1])
        for t in times:
            v = self.network_.guided(x, t.expand(len(x)), c, guidance)
            x = scheduler.step(v, t, x).prev_sample
        return ((x.clamp(-1, 1) + 1) / 2).cpu().numpy()

    def _strength(self, strength: float | None) -> float:
        return self.strength if strength is None else strength

    def _new_network(self) -> ConditionalUNet:
        import torch

        from fmri.diffusion_networks import ConditionalUNet

        channels, rows, columns = self.image_shape_
        with torch.random.fork_rng([]):
            torch.manual_seed(self.random_state)
            network = ConditionalUNet(
                channels, (rows, columns), len(self.components_) + 1, self.width
            )
        return network.eval()

    def _check_parameters(self) -> None:
        least = {"n_components": 1, "study_weight": 1, "steps": 1, "max_epochs": 0, "batch_size": 1}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected at least {low}")
        for name in ("reliability", "strength"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected above 0, at most 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; expected 0 to below 1")
        if self.width < 8 or self.width % 8:
            raise InputError(f"width is {self.width}; expected a multiple of 8")


def skipped_steps(steps: int, strength: float) -> int:
    """Return how many of the first steps an image-to-image start leaves out.

    Raises
    ------
    InputError
        Where no step would be left.

    Examples
    --------
    >>> skipped_steps(20, 0.85), skipped_steps(20, 1.0)
    (3, 0)
    """
    if steps < 1 or not 0 < strength <= 1 or int(steps * strength) < 1:
        raise InputError(
            f"steps is {steps} and strength {strength}; expected at least one step of the "
            "share `strength` (above 0, at most 1)"
        )
    return steps - int(steps * strength)
