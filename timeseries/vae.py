"""The VAE family for series: one estimator, its members by name.

References
----------
Kingma and Welling 2014; Higgins et al. 2017 (beta-VAE); Chen et al. 2018 (beta-TCVAE); Kim and
Mnih 2018 (FactorVAE); Zhao, Song and Ermon 2019 (InfoVAE); Li et al. 2022 (DTS, individual
factors). The objective is in `neuro.nn.vae_family`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import ArrayLike

from neuro.errors import InputError
from timeseries.latent_model import LatentModel, Progress

if TYPE_CHECKING:
    from neuro.nn.vae_family import Penalty, VAEFamily

PRESETS = ("ae", "vae", "beta-vae", "beta-tcvae", "factor-vae", "info-vae", "dts")


class SeriesVAE(LatentModel):
    """A variational autoencoder of series, of any member of the family.

    Parameters
    ----------
    preset : {"ae", "vae", "beta-vae", "beta-tcvae", "factor-vae", "info-vae", "dts"}
        The member; ``"dts"`` is DTS without its group segments.
    n_latents : int
    network : {"conv", "fcn", "tcn", "lstm", "gru", "mlp"}
    n_hidden : int
    beta : float
        Weight of the KL (beta-VAE), of TC (beta-TCVAE), of the density ratio (FactorVAE's gamma),
        or of TC and DWKL (DTS).
    alpha : float
        InfoVAE's alpha, or the reward of mutual information in DTS.
    mmd : float
        InfoVAE's lambda: the discrepancy weighs ``alpha + lambda - 1``.
    estimator : {"mss", "mws"}
        Of the aggregate posterior.
    sigma : float
        Width of the Gaussian likelihood, in standard deviations of the series.
    warmup_epochs : int
        Epochs in which the penalty rises from 0.
    max_epochs, batch_size : int
    learning_rate : float
        Of Adam.
    clip_norm : float, optional
        Largest norm of the gradient.
    device : str
    random_state : int, RandomState or None

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 2, 32)).astype("float32")
    >>> vae = SeriesVAE("beta-tcvae", n_latents=3, max_epochs=1, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.inverse_transform(vae.sample(X)).shape
    ((20, 3), (20, 2, 32))
    """

    name: ClassVar[str] = "ts-vae"

    def __init__(
        self,
        preset: str = "vae",
        n_latents: int = 10,
        network: str = "conv",
        n_hidden: int = 128,
        beta: float = 4.0,
        alpha: float = 0.0,
        mmd: float = 10.0,
        estimator: str = "mss",
        sigma: float = 1.0,
        warmup_epochs: int = 0,
        max_epochs: int = 50,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        clip_norm: float | None = 5.0,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.preset = preset
        self.n_latents = n_latents
        self.network = network
        self.n_hidden = n_hidden
        self.beta = beta
        self.alpha = alpha
        self.mmd = mmd
        self.estimator = estimator
        self.sigma = sigma
        self.warmup_epochs = warmup_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
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
        SeriesVAE

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

    def _check_parameters(self) -> None:
        from neuro.nn.sequences import KINDS

        choices = {"preset": PRESETS, "network": KINDS, "estimator": ("mss", "mws")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )
        self._check_least(
            n_latents=1, n_hidden=1, beta=0, max_epochs=0, batch_size=2, warmup_epochs=0
        )

    def penalty(self) -> Penalty:
        """Return the weights that the preset stands for."""
        from neuro.nn.vae_family import Penalty

        beta, alpha = self.beta, self.alpha
        estimator: Any = self.estimator
        return {
            "ae": Penalty(stochastic=False),
            "vae": Penalty(),
            "beta-vae": Penalty(a=1 - beta, b=beta, c=beta),
            "beta-tcvae": Penalty(b=beta, estimator=estimator),
            "factor-vae": Penalty(ratio=beta),
            "info-vae": Penalty(a=alpha, b=1 - alpha, c=1 - alpha, mmd=alpha + self.mmd - 1),
            "dts": Penalty(a=alpha, b=beta, c=beta, estimator=estimator),
        }[self.preset]

    def _objective(self) -> VAEFamily:
        from neuro.nn.sequences import SequenceVAE
        from neuro.nn.vae_family import VAEFamily

        n_channels, n_times = self.contract_.shape
        network = SequenceVAE(self.network, n_channels, n_times, self.n_latents, self.n_hidden)
        return VAEFamily(
            network, self.penalty(), n_samples=self.n_train_, sigma=self.sigma,
            learning_rate=self.learning_rate, warmup_epochs=self.warmup_epochs,
            clip_norm=self.clip_norm,
        )  # fmt: skip
