"""InfoGAN with quantised latents: codes of series, and new series by codes.

References
----------
Hsu, Dorrell, Whittington, Wu and Finn, "Disentanglement via latent quantization" (NeurIPS 2023,
arXiv 2305.18378), whose second model has the latents of QLAE; Chen et al., "InfoGAN" (NeurIPS
2016); Gulrajani et al. 2017 for the critic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from neuro.errors import InputError
from timeseries.latent_model import Floats
from timeseries.qlae import QLAE

if TYPE_CHECKING:
    from neuro.nn.infogan import InfoGANObjective


class InfoGAN(QLAE):
    """A generator of series driven by quantised latents, and an encoder that reads them off.

    The encoder learns from drawn series alone; it is then applied to real ones.

    Parameters
    ----------
    n_latents, n_values, network, n_hidden, weight_decay, quantisation, commitment
        As in `QLAE`; the decay is of generator and encoder.
    shared_codebook : bool
        One codebook for all latents.
    n_noise : int
        Normal numbers that the generator gets beside the latents.
    information : float
        Weight of the latents' reconstruction.
    penalty : float
        Of the critic's gradient.
    n_critic : int
        Steps of the critic for one of the generator.
    max_epochs, batch_size : int
    learning_rate : float
    device : str
    random_state : int, RandomState or None

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(20, 2, 32)).astype("float32")
    >>> gan = InfoGAN(n_latents=3, max_epochs=1, random_state=0).fit(X)
    >>> series, codes = gan.draw(5)
    >>> gan.codes(X).shape, series.shape, codes.shape
    ((20, 3), (5, 2, 32), (5, 3))
    """

    name: ClassVar[str] = "ts-infogan"

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
        n_noise: int = 8,
        information: float = 1.0,
        penalty: float = 10.0,
        n_critic: int = 5,
        max_epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            n_latents, n_values, network, n_hidden, weight_decay, quantisation, commitment,
            shared_codebook, max_epochs, batch_size, learning_rate, device, random_state,
        )  # fmt: skip
        self.n_noise = n_noise
        self.information = information
        self.penalty = penalty
        self.n_critic = n_critic

    def draw(self, n: int, random_state: int | None = None) -> tuple[Floats, NDArray[np.uint8]]:
        """Draw new series of uniform codes.

        Parameters
        ----------
        n : int
        random_state : int, optional
            By default that of the model.

        Returns
        -------
        series : ndarray of float32, shape (n, channel, time)
            In the units of the training series.
        codes : ndarray of uint8, shape (n, latent)

        Raises
        ------
        InputError
            Where `n` is below 1.
        """
        check_is_fitted(self, "contract_")
        if n < 1:
            raise InputError(f"n is {n}; expected at least 1")
        rng = np.random.default_rng(self._seed() if random_state is None else random_state)
        codes = rng.integers(self.n_values, size=(n, self.n_latents)).astype(np.uint8)
        noise = rng.standard_normal((n, self.n_noise), np.float32)
        signal = self._batched(self.objective_.network.decode, self.values_of(codes), noise)
        return np.asarray(self.standardizer_.inverse(signal), np.float32), codes

    # Inside -------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_least(n_noise=0, information=0, penalty=0, n_critic=1)

    def _objective(self) -> InfoGANObjective:  # type: ignore[override]
        from neuro.nn.infogan import InfoGANObjective, QuantisedGAN

        n_channels, n_times = self.contract_.shape
        network = QuantisedGAN(
            self.network, n_channels, n_times, self.n_latents, self.n_values, self.n_hidden,
            n_noise=self.n_noise, shared=self.shared_codebook,
        )  # fmt: skip
        return InfoGANObjective(
            network, information=self.information, quantisation=self.quantisation,
            commitment=self.commitment, penalty=self.penalty, n_critic=self.n_critic,
            weight_decay=self.weight_decay, learning_rate=self.learning_rate,
        )  # fmt: skip
