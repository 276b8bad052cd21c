"""A small image autoencoder: a study's images as a grid of latents, and back to pixels.

It serves twice. Its latents, place by place, are tokens that a brain can be mapped to without any
downloaded network; and as one map they are what the low-level branch predicts, with a decoder
that turns a prediction into a picture. The KL term keeps the latents smooth, so that a blurred
prediction decodes into a plausible image.

References
----------
Kingma and Welling, "Auto-encoding variational Bayes" (ICLR 2014).
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023), for the role of the latents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fmri.images import refuse_seen, training_images
from neuro.encoder import Encoder
from neuro.errors import ContractError, InputError

if TYPE_CHECKING:
    from fmri.image_networks import ImageVAE

__all__ = ["ImageAutoencoder"]

Floats = NDArray[np.float32]

_BATCH = 256  # images encoded or decoded at once
_SMALLEST, _LARGEST = 8, 64  # pixels of a side


class ImageAutoencoder(Encoder):
    """Convolutional VAE of images of 8 to 64 pixels with 1 or 3 channels.

    Parameters
    ----------
    n_features : int
        Latents at each place of the grid.
    grid : int
        Largest side of the grid; 28 x 28 pixels with 4 give 4 x 4 = 16 tokens.
    width : int
        Channels of the first layer, a multiple of 8.
    beta : float
        Weight of the KL term; 0 is close to a plain autoencoder.
    sigma : float
        Standard deviation of the pixels' noise (Kingma and Welling 2014, appendix C.2).
    study_weight : int
        How often the study's own images come for every time of the extra ones.
    augment : bool
        Turn, move and scale the training images a little.
    max_epochs, batch_size, learning_rate
        Of the training with Adam.
    precision, device : str
    random_state : int
        Of initial weights, order and sampling.

    Attributes
    ----------
    trained_on_ : list of str
        Hashes of the images of the training, see `fmri.images.image_hash`.
    grid_ : tuple of int
        Rows and columns of the grid.
    history_ : list of dict
        Per epoch: ``loss``, ``reconstruction`` and ``kl``.

    Examples
    --------
    >>> from fmri.images import digit_images
    >>> digits = digit_images(digits=[6, 9])
    >>> train = digits.stimulus.values[:64]
    >>> vae = ImageAutoencoder(n_features=2, width=8, max_epochs=1).fit(digits, train_stimuli=train)
    >>> vae.tokens(digits).shape, vae.inverse_transform(vae.latent(digits)).shape
    ((361, 16, 2), (361, 1, 8, 8))
    """

    name: ClassVar[str] = "fmri-image-autoencoder"
    dims: ClassVar[tuple[str, ...]] = ("trial", "channel", "row", "column")

    trained_on_: list[str]
    grid_: tuple[int, int]
    history_: list[dict[str, float]]
    network_: ImageVAE

    def __init__(
        self,
        n_features: int = 8,
        grid: int = 4,
        width: int = 16,
        beta: float = 2.0,
        sigma: float = 0.1,
        study_weight: int = 3,
        augment: bool = True,
        max_epochs: int = 40,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        precision: str = "32",
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.n_features = n_features
        self.grid = grid
        self.width = width
        self.beta = beta
        self.sigma = sigma
        self.study_weight = study_weight
        self.augment = augment
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.precision = precision
        self.device = device
        self.random_state = random_state

    @property
    def n_latents(self) -> int:  # type: ignore[override]
        """Latents of an image: places of the grid times features."""
        return self.grid_[0] * self.grid_[1] * self.n_features

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        *,
        train_stimuli: ArrayLike | None = None,
        extra: xr.Dataset | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Train on images.

        Parameters
        ----------
        X : images Dataset, or ndarray (image, channel, row, column) in [0, 1]
            With a Dataset, of the whole study: those not in `train_stimuli` are the test part.
        y : ignored
        train_stimuli : array-like of str
            Required for a Dataset.
        extra : Dataset, optional
            Further images to train on, for example `fmri.images.digit_images`.
        scratch : path, optional
            Checkpoints go here; a killed fit continues from it.
        progress : callable, optional
            ``progress(iterable, label, total)``, as `Context.progress`.

        Returns
        -------
        ImageAutoencoder

        Raises
        ------
        DataError
            Where a test image is among the training images, by hash.
        InputError
            Where a parameter is wrong, the size isn't supported, or `train_stimuli` is missing.
        """
        from fmri.image_networks import ImageVAEObjective
        from neuro.batches import Batches
        from neuro.device import device_of
        from neuro.training import train

        self._check_parameters()
        signal, index, self.trained_on_ = chosen_images(X, train_stimuli, extra, self.study_weight)
        values = self.start_fit(signal)
        self._check_size(values)
        self.network_ = self._new_network()
        objective = ImageVAEObjective(
            self.network_,
            beta=self.beta,
            sigma=self.sigma,
            learning_rate=self.learning_rate,
            warmup_epochs=max(1, self.max_epochs // 10),
            augment=self.augment,
        )
        target = device_of(self.device)
        source = Batches(
            {"x": values}, self.batch_size, index=index, seed=self.random_state, device=target
        )
        result = train(
            objective, source, max_epochs=self.max_epochs, seed=self.random_state, folder=scratch,
            precision=self.precision, device=target, progress=progress, label="image autoencoder",
        )  # fmt: skip
        self.history_ = result.history[0]
        self.network_.cpu().eval()
        return self

    def transform(self, X: Any) -> Any:
        """Return the posterior means, flattened.

        Returns
        -------
        DataArray or ndarray, shape (trial, latent)
            ``latent`` counts places of the grid row by row, and features within a place, so that
            it is `tokens` flattened.
        """
        X = self.as_input(X)
        return self.wrap(_as_tokens(self._encode(X)).reshape(len(X), -1), X)

    def tokens(self, X: Any) -> xr.DataArray:
        """Return the latents as tokens.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        DataArray (trial, token, feature)
            A token for every place of the grid, row by row.
        """
        X = self.as_input(X)
        return _carried(_as_tokens(self._encode(X)), ("trial", "token", "feature"), X)

    def latent(self, X: Any) -> xr.DataArray:
        """Return the latents as a map, for the low-level branch.

        Returns
        -------
        DataArray (trial, channel, row, column)
            ``channel`` counts features; rows and columns are those of the grid.
        """
        X = self.as_input(X)
        return _carried(self._encode(X), self.dims, X)

    def latent_dataset(self, images: xr.Dataset) -> xr.Dataset:
        """Return `latent` of images as a dataset keyed by ``stimulus``."""
        fingerprint = {"provider": "image-autoencoder", "weights_hash": self.weights_hash()}
        attrs = {"kind": "image-latents", "fingerprint": json.dumps(fingerprint)}
        latent = self.latent(images)
        return xr.Dataset({"signal": latent.drop_attrs()}, attrs=attrs)

    def inverse_transform(self, Z: Any) -> Any:
        """Decode latents into images.

        Parameters
        ----------
        Z : DataArray or ndarray
            Of `transform` (2 axes), `tokens` (3 axes) or `latent` (4 axes).

        Returns
        -------
        DataArray or ndarray (trial, channel, row, column)
            In [0, 1].

        Raises
        ------
        ContractError
            Where the shape is none of these.
        """
        check_is_fitted(self, "contract_")
        values = np.asarray(Z, dtype=np.float32)
        pixels = self._in_batches(self.network_.decode, self._as_map(values))[0].clip(0, 1)
        return _carried(pixels, self.dims, Z) if isinstance(Z, xr.DataArray) else pixels

    def refuse_seen(self, images: xr.Dataset) -> None:
        """Raise `DataError` where an image was in the training (a leak into the test part)."""
        refuse_seen(self.trained_on_, images, what=f"'{self.name}'")

    def weights_hash(self) -> str:
        """Digest the weights."""
        return arrays_hash(self.state_dict_arrays())

    # The encoder contract -----------------------------------------------------------------

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights."""
        return {f"network.{k}": t.numpy() for k, t in self.network_.state_dict().items()}

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        self.trained_on_ = list(preprocessing["trained_on"])
        self.history_ = preprocessing["history"]
        self.network_ = self._new_network()
        load_weights(self.network_, arrays, "network.")

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {**super().contract(), "trained_on": self.trained_on_, "history": self.history_}

    # Inside -------------------------------------------------------------------------------

    def _new_network(self) -> ImageVAE:
        import torch

        from fmri.image_networks import ImageVAE, grid_sizes

        n_channels, rows, columns = self.contract_.shape
        self.grid_ = grid_sizes((rows, columns), self.grid)[-1]
        with torch.random.fork_rng([]):
            torch.manual_seed(self.random_state)
            network = ImageVAE(n_channels, (rows, columns), self.n_features, self.width, self.grid)
        return network.eval()

    def _encode(self, X: Any) -> Floats:
        return self._in_batches(lambda x: self.network_.encode(x)[0], self.check_input(X))[0]

    def _in_batches(self, function: Callable[[Any], Any], values: Floats) -> list[Floats]:
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(values), _BATCH):
                block = np.array(values[start : start + _BATCH], order="C")
                parts.append(function(torch.from_numpy(block)).numpy())
        return [np.concatenate(parts)]

    def _as_map(self, values: Floats) -> Floats:
        rows, columns = self.grid_
        shapes = {
            2: (self.n_latents,),
            3: (rows * columns, self.n_features),
            4: (self.n_features, rows, columns),
        }
        if values.shape[1:] != shapes.get(values.ndim) or not len(values):
            raise ContractError(
                f"latents have the shape {values.shape}, expected (trial, latent), (trial, token, "
                f"feature) or (trial, channel, row, column) = (n, *{list(shapes.values())})"
            )
        if values.ndim == 4:
            return values
        places = values.reshape(len(values), rows, columns, self.n_features)
        return np.ascontiguousarray(places.transpose(0, 3, 1, 2))

    def _check_parameters(self) -> None:
        least = {
            "n_features": 1, "grid": 1, "beta": 0, "study_weight": 1, "max_epochs": 0,
            "batch_size": 1, "learning_rate": 0,
        }  # fmt: skip
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected at least {low}")
        if self.sigma <= 0:
            raise InputError(f"sigma is {self.sigma}; expected above 0 (pixels are in [0, 1])")
        if self.width < 8 or self.width % 8:
            raise InputError(f"width is {self.width}; expected a multiple of 8")

    def _check_size(self, values: Floats) -> None:
        _, channels, rows, columns = values.shape
        sides = (rows, columns)
        if channels not in (1, 3) or min(sides) < _SMALLEST or max(sides) > _LARGEST:
            raise InputError(
                f"images are {channels} x {rows} x {columns}; expected 1 or 3 channels of "
                f"{_SMALLEST} to {_LARGEST} pixels a side; resample them (fmri.images.resize)"
            )


# Shared with the generator -------------------------------------------------------------------


def chosen_images(
    X: Any, train_stimuli: ArrayLike | None, extra: xr.Dataset | None, study_weight: int
) -> tuple[Any, NDArray[np.int64], list[str]]:
    """Return training images, the rows of an epoch, and the images' hashes.

    Raises
    ------
    InputError
        Where images have names and it isn't said which may be trained on.
    """
    from fmri.images import image_hash
    from neuro.data import as_signal

    if not isinstance(X, xr.Dataset):
        if extra is not None or train_stimuli is not None:
            raise InputError("train_stimuli and extra need images with names: pass a Dataset")
        values = np.asarray(X, dtype=np.float32)
        shown = values[:, None] if values.ndim == 3 else values
        return X, np.arange(len(values)), [image_hash(v) for v in shown]
    if train_stimuli is None:
        raise InputError(
            "train_stimuli is missing: name the stimuli that may be trained on, so that the test "
            "images stay out"
        )
    chosen = training_images(X, train_stimuli, extra=extra)
    n_study = np.size(np.asarray(train_stimuli))
    own = np.tile(np.arange(n_study), study_weight if extra is not None else 1)
    rows = np.concatenate([own, np.arange(n_study, chosen.sizes["trial"])])
    return as_signal(chosen), rows.astype(np.int64), chosen["image_hash"].values.tolist()


def arrays_hash(arrays: dict[str, NDArray[Any]]) -> str:
    """Digest named arrays: names, types, shapes and values."""
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def load_weights(network: Any, arrays: dict[str, NDArray[Any]], prefix: str) -> None:
    """Put arrays into a network, strictly.

    Raises
    ------
    ContractError
        Where names or shapes are those of another network.
    """
    import torch

    weights = {
        name.removeprefix(prefix): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ContractError(f"the weights are not those of this network: {error}") from error
    network.eval()


def _as_tokens(latent: Floats) -> Floats:
    return np.ascontiguousarray(latent.transpose(0, 2, 3, 1)).reshape(
        len(latent), -1, latent.shape[1]
    )


def _carried(values: NDArray[Any], dims: tuple[str, ...], like: Any) -> xr.DataArray:
    """Return values as a DataArray with the trial coordinates of `like`, if it has any."""
    coords = {}
    if isinstance(like, xr.DataArray):
        coords = {name: c for name, c in like.coords.items() if c.dims == ("trial",)}
    return xr.DataArray(values, dims=dims, coords=coords)
