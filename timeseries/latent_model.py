"""What encoders of series with a Gaussian posterior share: fitting, codes, signals, saving."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from neuro.data import Standardizer
from neuro.errors import ContractError, DataError, InputError
from neuro.metrics.latents import kept_latents, kl_per_latent, variable_types
from timeseries.series_encoder import SeriesEncoder, mask_of, standardised

if TYPE_CHECKING:
    from neuro.nn.vae_family import VAEFamily

Floats = NDArray[np.float32]
Progress = Callable[..., Iterator[Any]]

_BATCH = 512


class LatentModel(SeriesEncoder):
    """Base of the VAE family and DTS; a subclass writes `_objective`, which `fit` trains.

    Attributes
    ----------
    kl_ : ndarray, shape (n_latents,)
        Mean KL of each latent over the training series, in nats.
    kept_ : ndarray of bool, shape (n_latents,)
        KL above 0.01: the active units.
    types_ : ndarray of str, shape (n_latents,)
        active, mixed or passive (Bonheme and Grzes).
    information_ : float
        Mutual information of series and codes over (at most 2,000) training series, in nats.
    history_ : list of dict
        Losses by epoch.
    standardizer_ : Standardizer
        Of the training series, real samples only.
    """

    network: str
    n_hidden: int
    sigma: float
    max_epochs: int
    batch_size: int
    device: str
    random_state: Any
    objective_: Any

    # Fitting ------------------------------------------------------------------------------

    def _objective(self) -> VAEFamily:
        raise NotImplementedError

    def _fit_series(
        self,
        X: Any,
        mask: ArrayLike | None,
        extra: dict[str, NDArray[Any]],
        subject: ArrayLike | None,
        scratch: str | Path | None,
        progress: Progress | None,
    ) -> None:
        """Standardise, train the objective, and measure its latents."""
        import torch

        from neuro.batches import Batches
        from neuro.device import device_of
        from neuro.training import train

        X = self.as_input(X)
        values = self.start_fit(X, subject=subject)
        real = mask_of(X, mask)
        self.n_train_ = len(values)
        arrays = {"x": self._fit_scaled(values, real, extra), **extra}
        seed, device = self._seed(), device_of(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            objective = self._objective()
        if real is not None:
            arrays["mask"] = real
        few = min(self.batch_size, len(values))
        batches = Batches(arrays, few, seed=seed, device=device, drop_last=True)
        result = train(
            objective, batches, max_epochs=self.max_epochs, seed=seed, folder=scratch,
            device=device, progress=progress,
        )  # fmt: skip
        self.objective_ = objective.float().cpu().eval()
        self.history_ = result.history[0]
        self._measure(arrays["x"], real)

    def _fit_scaled(
        self, values: Floats, real: NDArray[np.bool_] | None, extra: dict[str, NDArray[Any]]
    ) -> Floats:
        """Estimate the channels' statistics and standardise; `extra` holds labels, if any."""
        self.standardizer_ = Standardizer.fit(values, real)
        return standardised(values, real, self.standardizer_)

    def _scaled(self, values: Floats, real: NDArray[np.bool_] | None, X: Any) -> Floats:
        """Standardise the values of `X`; padding becomes zero."""
        return standardised(values, real, self.standardizer_)

    def _measure(self, values: Floats, real: NDArray[np.bool_] | None) -> None:
        mean, variance = self._posterior(values, real)
        self.kl_ = kl_per_latent(mean, np.maximum(variance, 1e-12))
        self.kept_ = kept_latents(self.kl_)
        self.types_ = variable_types(variance)
        self.information_ = information(mean, variance, self._seed())

    def _seed(self) -> int:
        seed = self.random_state
        return seed if isinstance(seed, int) else int(check_random_state(seed).randint(2**31))

    def _check_least(self, **least: float) -> None:
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected at least {low}")

    # Using --------------------------------------------------------------------------------

    def transform(self, X: Any, mask: ArrayLike | None = None) -> Any:
        """Return the posterior means.

        Parameters
        ----------
        X : DataArray (trial, channel, time), ndarray or path
        mask : array-like of bool, shape (trial, time), optional
            True on real samples; by default the coordinate ``mask``, or all.

        Returns
        -------
        DataArray or ndarray, shape (trial, latent)
        """
        return self.wrap(self.posterior(X, mask)[0], X)

    def posterior(self, X: Any, mask: ArrayLike | None = None) -> tuple[Floats, Floats]:
        """Return means and variances of the posteriors, ``(trial, latent)`` each."""
        check_is_fitted(self, "contract_")
        X = self.align(X, drop_extra=False)
        values = np.ascontiguousarray(X.values, np.float32)
        real = mask_of(X, mask)
        return self._posterior(self._scaled(values, real, X), real)

    def _posterior(self, values: Floats, real: NDArray[np.bool_] | None) -> tuple[Floats, Floats]:
        network = self.objective_.network
        inputs = (values,) if real is None else (values, real)
        both = self._batched(lambda *parts: network.encoder(*parts), *inputs)
        mean, log_variance = np.split(both, 2, axis=1)
        stochastic = self.objective_.penalty.stochastic
        return mean, np.exp(log_variance) if stochastic else np.zeros_like(mean)

    def sample(
        self, X: Any, mask: ArrayLike | None = None, random_state: int | None = None
    ) -> Floats:
        """Draw one code per series from its posterior: ``(trial, latent)``."""
        mean, variance = self.posterior(X, mask)
        rng = np.random.default_rng(self._seed() if random_state is None else random_state)
        noise = rng.standard_normal(mean.shape, np.float32)
        return np.asarray(mean + noise * np.sqrt(variance), np.float32)

    def inverse_transform(self, codes: Any) -> Floats:
        """Return the series that codes stand for, in the units of the training series.

        Parameters
        ----------
        codes : array-like, shape (trial, latent)

        Returns
        -------
        ndarray of float32, shape (trial, channel, time)
        """
        check_is_fitted(self, "contract_")
        z = np.asarray(codes, np.float32)
        if z.ndim != 2 or z.shape[1] != self._n_features_out:
            raise DataError(f"codes are {z.shape}; expected (trial, {self._n_features_out})")
        signal = self._batched(self.objective_.network.decode, z)
        return np.asarray(self.standardizer_.inverse(signal), np.float32)

    def traverse(
        self, X: Any, latent: int, values: ArrayLike = (-2.0, -1.0, 0.0, 1.0, 2.0)
    ) -> Floats:
        """Decode the mean code of `X` with one latent moved.

        Parameters
        ----------
        X : as in `transform`
        latent : int
        values : array-like of float
            Given to the latent.

        Returns
        -------
        ndarray of float32, shape (value, channel, time)
        """
        points = np.asarray(values, np.float32)
        codes = np.repeat(self.posterior(X)[0].mean(0, keepdims=True), len(points), axis=0)
        codes[:, latent] = points
        return self.inverse_transform(codes)

    def _batched(self, function: Callable[..., Any], *arrays: NDArray[Any]) -> Floats:
        import torch

        from neuro.device import device_of

        device = device_of(self.device, fallback=True)
        self.objective_.to(device)
        rows = range(0, len(arrays[0]), _BATCH)
        try:
            with torch.inference_mode():
                parts = [
                    function(
                        *(torch.as_tensor(a[start : start + _BATCH]).to(device) for a in arrays)
                    ).cpu()
                    for start in rows
                ]
        finally:
            self.objective_.cpu()
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    # The encoder contract -----------------------------------------------------------------

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights of all networks, and what was measured of the latents."""
        weights = {k: v.numpy() for k, v in self.objective_.state_dict().items()}
        return {**weights, "measured.kl": self.kl_, "measured.types": _codes(self.types_)}

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        import torch

        self._restore(preprocessing)
        self.standardizer_ = Standardizer.from_dict(preprocessing["standardisation"])
        rest = dict(arrays)
        self.kl_, types = rest.pop("measured.kl"), rest.pop("measured.types")
        self.types_ = np.array(_TYPES)[types]
        self.kept_ = kept_latents(self.kl_)
        objective = self._objective()
        try:
            objective.load_state_dict({k: torch.from_numpy(v) for k, v in rest.items()})
        except RuntimeError as error:
            raise ContractError(f"the weights are not those of this network: {error}") from error
        self.objective_ = objective.eval()

    def _restore(self, preprocessing: dict[str, Any]) -> None:
        self.n_train_ = int(preprocessing["n_train"])
        self.history_ = preprocessing["history"]
        self.information_ = float(preprocessing["information"])

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(), "n_train": self.n_train_, "information": self.information_,
            "history": json.loads(json.dumps(self.history_)),
        }  # fmt: skip


_TYPES = ("active", "mixed", "passive")


def _codes(types: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.array([_TYPES.index(kind) for kind in types], np.int64)


def information(mean: Floats, variance: Floats, seed: int = 0, n_most: int = 2000) -> float:
    """Mutual information of series and codes: the KL less that of the aggregate posterior.

    Estimated over all of (at most `n_most`) series at once: at most ``log n``. 0 for an
    autoencoder, whose posteriors have no width.
    """
    import torch

    from neuro.nn.aggregate import decompose_kl

    if not (variance > 0).all():
        return 0.0
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(mean))[:n_most]
    m, v = (torch.from_numpy(np.asarray(a[rows], np.float64)) for a in (mean, variance))
    z = m + v.sqrt() * torch.from_numpy(rng.standard_normal(m.shape))
    found = decompose_kl(z, m, v.log(), n_samples=1, estimator="mws", analytic=False)
    return float(found.mi.mean())
