"""QLAE: codes of series in which every latent takes one of a few values.

References
----------
Hsu, Dorrell, Whittington, Wu and Finn, "Disentanglement via latent quantization" (NeurIPS 2023,
arXiv 2305.18378). The paper has images; the networks here are those of series.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import DataError, InputError
from neuro.metrics.latents import kept_latents
from timeseries.latent_model import Floats, LatentModel, Progress

if TYPE_CHECKING:
    from neuro.nn.quantise import QLAEObjective

MOST_VALUES = 256  # a code is one byte


class QLAE(LatentModel):
    """A quantised-latent autoencoder of series.

    Parameters
    ----------
    n_latents : int
        The paper takes twice the number of factors.
    n_values : int
        Of each latent; 256 at most.
    network : {"conv", "fcn", "tcn", "lstm", "gru", "mlp"}
    n_hidden : int
    weight_decay : float
        Decoupled, of weights only. The paper takes 0.1 on three data sets and 0.001 on a fourth:
        sweep it.
    quantisation, commitment : float
        Weights of the losses that move the values towards the codes, and the codes towards them.
    shared_codebook : bool
        One codebook for all latents.
    max_epochs, batch_size : int
    learning_rate : float
        Of AdamW.
    device : str
    random_state : int, RandomState or None

    Attributes
    ----------
    kl_ : ndarray, shape (n_latents,)
        Entropy of each latent's codes over the training series, in nats: what a code without
        noise tells. A latent is kept above 0.01, and is active if it varies, else passive.
    information_ : float
        Entropy of whole codes over the training series, in nats.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(20, 2, 32)).astype("float32")
    >>> qlae = QLAE(n_latents=3, max_epochs=1, random_state=0).fit(X)
    >>> qlae.codes(X).dtype, qlae.inverse_transform(qlae.transform(X)).shape
    (dtype('uint8'), (20, 2, 32))
    """

    name: ClassVar[str] = "ts-qlae"

    def __init__(
        self,
        n_latents: int = 12,
        n_values: int = 10,
        network: str = "conv",
        n_hidden: int = 128,
        weight_decay: float = 0.1,
        quantisation: float = 0.01,
        commitment: float = 0.01,
        shared_codebook: bool = False,
        max_epochs: int = 50,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.n_latents = n_latents
        self.n_values = n_values
        self.network = network
        self.n_hidden = n_hidden
        self.weight_decay = weight_decay
        self.quantisation = quantisation
        self.commitment = commitment
        self.shared_codebook = shared_codebook
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = device
        self.random_state = random_state

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        *,
        mask: ArrayLike | None = None,
        subject: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Train on series.

        Parameters
        ----------
        X : DataArray (trial, channel, time) or ndarray
            ``(trial, time)`` is one channel.
        y : ignored
        mask : array-like of bool, shape (trial, time), optional
            True on real samples; by default the coordinate ``mask``, or all.
        subject : array-like, optional
            By default the coordinate.
        scratch : path, optional
            Checkpoints go here; a killed fit continues from it.
        progress : callable, optional

        Returns
        -------
        QLAE

        Raises
        ------
        InputError
            Where a parameter is wrong.
        DataError
            Where the data holds NaN, or a series has no real sample.
        """
        self._check_parameters()
        self._fit_series(X, mask, {}, subject, scratch, progress)
        return self

    def codes(self, X: Any, mask: ArrayLike | None = None) -> Any:
        """Return which of its values each latent takes.

        Parameters
        ----------
        X, mask : as in `transform`

        Returns
        -------
        DataArray or ndarray of uint8, shape (trial, latent)
        """
        return self.wrap(self.codes_of(self.transform(X, mask)), X)

    def codes_of(self, values: ArrayLike) -> NDArray[np.uint8]:
        """Return the codes of the values that `transform` gave, ``(trial, latent)``."""
        z = self._checked(values)
        return self._batched(self.objective_.network.quantiser.encode, z).astype(np.uint8)

    def values_of(self, codes: ArrayLike) -> Floats:
        """Return the values that codes stand for, ``(trial, latent)``.

        Raises
        ------
        DataError
            Where a code is none of 0 to ``n_values - 1``.
        """
        found = self._checked(codes)
        whole = found.astype(np.int64)
        if (
            (whole != found).any()
            or whole.min(initial=0) < 0
            or whole.max(initial=0) >= self.n_values
        ):
            raise DataError(f"codes must be whole numbers from 0 to {self.n_values - 1}")
        return self._batched(self.objective_.network.quantiser.decode, whole)

    @property
    def codebooks_(self) -> Floats:
        """The values of each latent, ``(n_latents, n_values)``."""
        return np.array(self.objective_.network.quantiser.books.detach().numpy())

    # Inside -------------------------------------------------------------------------------

    def _checked(self, values: ArrayLike) -> Floats:
        z = np.asarray(values, np.float32)
        if z.ndim != 2 or z.shape[1] != self.n_latents:
            raise DataError(f"codes are {z.shape}; expected (trial, {self.n_latents})")
        return z

    def _check_parameters(self) -> None:
        from neuro.nn.sequences import KINDS

        if self.network not in KINDS:
            raise InputError(f"network is {self.network!r}; expected one of {', '.join(KINDS)}")
        self._check_least(
            n_latents=1, n_values=2, n_hidden=1, weight_decay=0, quantisation=0, commitment=0,
            max_epochs=0, batch_size=1,
        )  # fmt: skip
        if self.n_values > MOST_VALUES:
            raise InputError(f"n_values is {self.n_values}; expected at most {MOST_VALUES}")

    def _objective(self) -> QLAEObjective:  # type: ignore[override]
        from neuro.nn.quantise import QLAEObjective, QuantisedAutoencoder

        n_channels, n_times = self.contract_.shape
        network = QuantisedAutoencoder(
            self.network, n_channels, n_times, self.n_latents, self.n_values, self.n_hidden,
            shared=self.shared_codebook,
        )  # fmt: skip
        return QLAEObjective(
            network, quantisation=self.quantisation, commitment=self.commitment,
            weight_decay=self.weight_decay, learning_rate=self.learning_rate,
        )  # fmt: skip

    def _posterior(self, values: Floats, real: NDArray[np.bool_] | None) -> tuple[Floats, Floats]:
        network = self.objective_.network
        inputs = (values,) if real is None else (values, real)

        def quantised(*parts: Any) -> Any:
            quantiser = network.quantiser
            return quantiser.decode(quantiser.encode(network.encoder(*parts)))

        mean = self._batched(quantised, *inputs)
        return mean, np.zeros_like(mean)

    def _measure(self, values: Floats, real: NDArray[np.bool_] | None) -> None:
        codes = self.codes_of(self._posterior(values, real)[0])
        self.kl_ = np.array([_entropy(column) for column in codes.T])
        self.kept_ = kept_latents(self.kl_)
        self.types_ = np.where(np.ptp(codes, axis=0) > 0, "active", "passive")
        self.information_ = _entropy(codes)


def _entropy(codes: NDArray[np.uint8]) -> float:
    share = np.unique(codes, axis=0, return_counts=True)[1] / len(codes)
    return float(-np.sum(share * np.log(share)))
