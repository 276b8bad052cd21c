"""The beta-VAE of event-related potentials: disentangled codes, denoised single trials.

References
----------
Higgins et al., "beta-VAE: Learning basic visual concepts with a constrained variational
framework" (ICLR 2017).
Honke, Higgins et al., "Representation learning for improved interpretability and
classification accuracy of clinical factors from EEG" (2020).
Higgins et al., "SCAN: Learning hierarchical compositional visual concepts" (ICLR 2018).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from neuro.encoder import Encoder
from neuro.errors import ContractError, DataError, InputError
from neuro.metrics.latents import kept_latents, kl_per_latent, variable_types
from neuro.standardize import Standardizer

if TYPE_CHECKING:
    from torch import Tensor

    from neuro.nn.networks import MLPVAE, ConvVAE

Floats = NDArray[np.float32]

FEATURE_LOSSES = (None, "dae")
TRAIN_ON = ("single", "erp", "bootstrap", "single-to-erp")
_FREE = ("beta", "learning_rate", "random_state")  # what members of an ensemble may differ in
_BATCH = 512  # trials encoded or decoded at once
_SMALLEST = 0.05  # uV; the standard deviation of scalp EEG is 2 to 50


class BetaVAE(Encoder):
    """Beta-VAE over ``(channel, time)``: microvolts in, microvolts out.

    Signals are standardised per channel by statistics of the training data. The loss is in
    per-sample units: the squared error is summed over channels and time, the KL over latents,
    and only the batch is averaged, so that `beta` means the same at every batch size. The useful
    range grows with the size of the input and its noise; sweep it widely (1, 4, 16, 64, 256).

    Parameters
    ----------
    n_latents : int
        Size of the code.
    beta : float
        Weight of the KL term (Higgins et al. 2017, eq. 4); 0 is a plain autoencoder.
    network : {"conv", "mlp"}
        1-D convolutions over time, or fully connected layers.
    n_hidden : int
        Width of the dense layer next to the code.
    train_on : {"single", "erp", "bootstrap", "single-to-erp"}
        Single trials; ERPs of each subject and condition; averages of k random trials of a
        subject and condition, k uniform in ``1..n_average``; one trial in and the subject's ERP
        of its condition, without that trial, out.
    n_average : int
        For ``"bootstrap"``.
    warmup_epochs : int
        Epochs in which beta rises from 0 (with `capacity`: in which the capacity does; half of
        all epochs where it is 0).
    capacity : float, optional
        Drive the KL to so many nats, with weight `beta`, instead of pressing it to 0 (Burgess
        et al. 2018, eq. 8).
    feature_loss : {None, "dae"}
        What the reconstruction is judged by: the squared error of the signal, or that of the
        features of a denoising autoencoder (Higgins et al. 2018, eq. 2; see `neuro.nn.dae`). It
        is trained first, on the same trials with parts masked, and then frozen. It depends on
        the training trials alone and not on `random_state`, so that models which differ in beta
        or seed are trained with one loss. It is not needed to encode or decode, and not saved.
        Meant for the codes: the decoder is held only where the features look, so that denoised
        trials are less faithful.
    n_features : int
        Size of that autoencoder's code.
    mask_fraction : float
        Share of the values that it has to fill in: blocks of channels and times, whole channels.
    dae_max_epochs : int
        Of its training.
    max_epochs, batch_size, learning_rate
        Of the training with Adam; an epoch has as many samples as there are trials.
    validation_fraction : float
        Share of subjects (of trials, where subjects are not known) kept out of training to
        watch the loss.
    patience : int, optional
        Stop after so many epochs without a better loss, and take the best epoch.
    precision : {"32", "64", "bf16-mixed", "16-mixed"}
    device : str
        ``"auto"`` takes a GPU where there is one.
    compile : bool
        Use `torch.compile`.
    random_state : int, RandomState or None
        Of initial weights, order, sampling and split.
    verbose : bool
        Show a bar over epochs.

    Attributes
    ----------
    kl_ : ndarray, shape (n_latents,)
        Mean KL of each latent over the training samples, in nats.
    kept_ : ndarray of bool, shape (n_latents,)
        KL above 0.01: the latents for classifiers.
    types_ : ndarray of str, shape (n_latents,)
        active, mixed or passive by the posterior variance (Bonheme and Grzes).
    counts_ : dict of str to int
        Of ``kl_active``, ``active``, ``mixed`` and ``passive`` latents.
    history_ : list of dict
        Per epoch: ``loss``, ``reconstruction``, ``kl`` and the same as ``val_...``.
    best_epoch_ : int
        The epoch whose weights were kept.
    standardizer_, target_standardizer_ : Standardizer
        Of the input and of the output (they differ for ``"single-to-erp"`` only).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(0, 10, (40, 3, 50)).astype("float32")
    >>> encoder = BetaVAE(n_latents=2, beta=0.1, max_epochs=2, random_state=0).fit(X)
    >>> encoder.transform(X).shape, encoder.denoise(X).shape
    ((40, 2), (40, 3, 50))
    """

    name: ClassVar[str] = "eeg-beta-vae"

    def __init__(
        self,
        n_latents: int = 10,
        beta: float = 4.0,
        network: str = "conv",
        n_hidden: int = 128,
        train_on: str = "single",
        n_average: int = 10,
        warmup_epochs: int = 0,
        capacity: float | None = None,
        feature_loss: str | None = None,
        n_features: int = 100,
        mask_fraction: float = 0.25,
        dae_max_epochs: int = 50,
        max_epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        precision: str = "32",
        device: str = "auto",
        compile: bool = False,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.n_latents = n_latents
        self.beta = beta
        self.network = network
        self.n_hidden = n_hidden
        self.train_on = train_on
        self.n_average = n_average
        self.warmup_epochs = warmup_epochs
        self.capacity = capacity
        self.feature_loss = feature_loss
        self.n_features = n_features
        self.mask_fraction = mask_fraction
        self.dae_max_epochs = dae_max_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.precision = precision
        self.device = device
        self.compile = compile
        self.random_state = random_state
        self.verbose = verbose

    # Fitting ------------------------------------------------------------------------------

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        *,
        subject: ArrayLike | None = None,
        session: ArrayLike | None = None,
        condition: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Train on trials.

        Parameters
        ----------
        X : DataArray (trial, channel, time) in uV, ndarray, mne.Epochs or path to epochs
            An ndarray is taken to be in uV; ``(trial, time)`` is one channel.
        y : ignored
        subject, session, condition : array-like, shape (trial,), optional
            By default the coordinates of `X`.
        scratch : path, optional
            Checkpoints and the log go here; a killed fit continues from it.
        progress : callable, optional
            ``progress(iterable, label, total)``, as `Context.progress`.

        Returns
        -------
        BetaVAE

        Raises
        ------
        InputError
            Where a parameter is wrong.
        DataError
            Where the data holds NaN, isn't in uV, or lacks the subjects that `train_on` needs.
        StageError
            Where training diverges.
        """
        self.fit_together(
            [self], X, y,
            subject=subject, session=session, condition=condition,
            scratch=scratch, progress=progress,
        )  # fmt: skip
        return self

    @classmethod
    def fit_together(
        cls,
        estimators: Sequence[Self],
        X: Any,
        y: Any = None,
        *,
        subsets: Sequence[ArrayLike] | None = None,
        subject: ArrayLike | None = None,
        session: ArrayLike | None = None,
        condition: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> list[Self]:
        """Fit several encoders, at once where that is faster, as if one by one.

        Those that differ only in `beta`, `learning_rate`, `random_state` and their subset are
        trained as one ensemble; others follow one another.

        Parameters
        ----------
        estimators : sequence of BetaVAE
            Fitted in place.
        X, y, subject, session, condition, scratch, progress
            As in `fit`.
        subsets : sequence of array-like of int, optional
            The training trials of each member (the folds of a cross-validation); statistics
            are those of its own trials.

        Returns
        -------
        list of BetaVAE
        """
        from eeg.fitting import fit_members

        if subsets is not None and len(subsets) != len(estimators):
            raise InputError(f"{len(subsets)} subsets for {len(estimators)} encoders")
        for estimator in estimators:
            estimator._check_parameters()
        signal = estimators[0]._training_signal(X) if estimators else X
        given = {"subject": subject, "session": session, "condition": condition}
        fit_members(list(estimators), signal, given, subsets, scratch, progress)
        return list(estimators)

    def _check_parameters(self) -> None:
        from neuro.nn.networks import NETWORKS

        known = {"network": tuple(NETWORKS), "train_on": TRAIN_ON, "feature_loss": FEATURE_LOSSES}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(map(str, choices))}"
                )
        least = {
            "n_latents": 1, "n_hidden": 1, "n_average": 1, "batch_size": 1, "max_epochs": 0,
            "n_features": 1, "dae_max_epochs": 1,
            "warmup_epochs": 0, "beta": 0.0, "learning_rate": 0.0, "validation_fraction": 0.0,
            **({} if self.capacity is None else {"capacity": 0.0}),
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if not value >= low:
                raise InputError(f"{name} is {value!r}; expected at least {low}")
        if self.validation_fraction >= 1:
            raise InputError(f"validation_fraction is {self.validation_fraction}; expected below 1")
        if not 0 < self.mask_fraction < 1:
            raise InputError(f"mask_fraction is {self.mask_fraction}; expected between 0 and 1")

    def _training_signal(self, X: Any) -> Any:
        """Return training data as a checked DataArray in uV, or a plain array as it is."""
        if isinstance(X, str | Path) and not Path(X).is_dir():
            from eeg.read import read_recording

            X = read_recording(Path(X))
            if not _is_epochs(X):
                raise DataError(
                    "a continuous recording has no trials to train on; cut it into epochs first "
                    "(eeg.preprocess, or the stage eeg-epochs)"
                )
        if _is_epochs(X):
            from eeg.convert import epochs_to_dataset

            X = epochs_to_dataset(X)
        elif isinstance(X, str | Path):
            from neuro.data import open_dataset

            X = open_dataset(X)
        X = Encoder.as_input(self, X)
        if isinstance(X, xr.DataArray):
            _check_microvolts(X)
        return X

    # Using --------------------------------------------------------------------------------

    def transform(self, X: Any, return_variance: bool = False) -> Any:
        """Return the posterior means.

        Parameters
        ----------
        X : as in `fit`
        return_variance : bool
            Return the posterior variances too (0 for an autoencoder).

        Returns
        -------
        DataArray or ndarray, shape (trial, latent); or a pair of them

        Raises
        ------
        ContractError
            Where `X` does not match the training data; both sides are named.
        """
        check_is_fitted(self, "contract_")
        X = self.as_input(X)
        mean, variance = self._encode(self.check_input(X))
        if not return_variance:
            return self.wrap(mean, X)
        return self.wrap(mean, X), self.wrap(variance, X)

    def inverse_transform(self, Z: ArrayLike | xr.DataArray) -> Any:
        """Decode codes into signals in uV.

        Parameters
        ----------
        Z : DataArray or array-like, shape (trial, latent)

        Returns
        -------
        DataArray (trial, channel, time) or ndarray
            ``(trial, time)`` where the encoder was fitted on an array of one channel.
        """
        check_is_fitted(self, "contract_")
        values = np.asarray(Z, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != self.n_latents:
            raise ContractError(
                f"codes have the shape {values.shape}, expected (trial, {self.n_latents})"
            )
        signal = self._decode(values)
        if not isinstance(Z, xr.DataArray):
            return self._plain(signal)
        coords = {k: c for k, c in Z.coords.items() if c.dims == ("trial",)}
        return self._signal(signal, ("trial",), coords)

    def denoise(self, X: Any) -> Any:
        """Encode and decode: what of a trial the code keeps, in uV.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        DataArray or ndarray, shape as `X`
        """
        check_is_fitted(self, "contract_")
        X = self.as_input(X)
        signal = self._decode(self._encode(self.check_input(X))[0])
        if not isinstance(X, xr.DataArray):
            return signal.reshape(np.shape(X))
        coords = {k: c for k, c in X.coords.items() if c.dims == ("trial",)}
        return self._signal(signal, ("trial",), coords)

    def traverse(
        self,
        latent: int | Sequence[int] | None = None,
        values: ArrayLike = (-2.0, -4 / 3, -2 / 3, 0.0, 2 / 3, 4 / 3, 2.0),
        reference: ArrayLike | None = None,
    ) -> xr.DataArray:
        """Turn one latent at a time and decode.

        Parameters
        ----------
        latent : int or sequence of int, optional
            All by default.
        values : array-like, shape (value,)
            In standard deviations of the prior.
        reference : array-like, shape (n_latents,), optional
            Where the other latents stay; 0 by default.

        Returns
        -------
        DataArray (latent, value, channel, time)
            In uV.
        """
        check_is_fitted(self, "contract_")
        latents = np.arange(self.n_latents) if latent is None else np.atleast_1d(latent)
        if latents.min() < 0 or latents.max() >= self.n_latents:
            raise InputError(f"latent {latent} is none of 0 to {self.n_latents - 1}")
        values = np.asarray(values, dtype=np.float32)
        base = np.zeros(self.n_latents) if reference is None else np.asarray(reference)
        if base.shape != (self.n_latents,):
            raise InputError(f"reference has the shape {base.shape}, expected ({self.n_latents},)")
        codes = np.tile(base.astype(np.float32), (len(latents), len(values), 1))
        codes[np.arange(len(latents))[:, None], np.arange(len(values)), latents[:, None]] = values
        signal = self._decode(codes.reshape(-1, self.n_latents))
        signal = signal.reshape(len(latents), len(values), *signal.shape[1:])
        return self._signal(signal, ("latent", "value"), {"latent": latents, "value": values})

    # The encoder contract -----------------------------------------------------------------

    def as_input(self, X: Any) -> Any:
        """Turn a path, `mne.Epochs` or a Dataset into a DataArray in uV."""
        if _is_epochs(X):
            from eeg.preprocess import replay

            X = replay(X, self.contract_.steps) if self.contract_.steps else _converted(X)
        X = super().as_input(X)
        if isinstance(X, xr.DataArray):
            _check_units(X)
        return X

    @staticmethod
    def companions(path: str | Path) -> list[Path]:
        """Return the further files that a recording is made of, see `eeg.companions`."""
        from eeg.companions import companions

        return companions(path)

    def read_recording(self, path: str | Path, *, align: bool = False) -> xr.Dataset | xr.DataArray:
        """Read a recording, sent through the preprocessing of the training data.

        Parameters
        ----------
        path : path
            Raw data are replayed through the recorded steps; ready-made epochs must have the
            recorded history. A Zarr folder is a saved dataset.
        align : bool
            Leave out EEG channels that the training data did not have.
        """
        path = Path(path)
        if path.is_dir() and path.suffix.lower() not in (".mff", ".ds"):
            return super().read_recording(path)
        if self.contract_.steps is None:
            raise ContractError(
                f"{path}: the encoder was fitted on an array without a history, so that it is not "
                "known how to preprocess a recording; pass the trials to transform"
            )
        from eeg.preprocess import replay

        return replay(path, self.contract_.steps, align=align)

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights and the KL of every latent."""
        weights = {f"network.{k}": t.numpy() for k, t in self.network_.state_dict().items()}
        return {**weights, "kl": self.kl_}

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        import torch

        self.standardizer_ = Standardizer.from_dict(preprocessing["standardisation"])
        self.target_standardizer_ = Standardizer.from_dict(preprocessing["output_standardisation"])
        self.positions_ = preprocessing["positions"]
        self.history_, self.best_epoch_ = preprocessing["history"], preprocessing["best_epoch"]
        self.counts_, self.types_ = preprocessing["counts"], np.array(preprocessing["types"])
        self.kl_ = arrays["kl"]
        self.kept_ = kept_latents(self.kl_)
        weights = {
            name.removeprefix("network."): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith("network.")
        }
        network = self._new_network(0)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ContractError(f"the weights are not those of this network: {error}") from error
        self.network_ = network.eval()

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(),
            "output_standardisation": self.target_standardizer_.to_dict(),
            "positions": self.positions_,
            "history": self.history_,
            "best_epoch": self.best_epoch_,
            "counts": self.counts_,
            "types": self.types_.tolist(),
        }

    # Inside -------------------------------------------------------------------------------

    def _new_network(self, seed: int) -> ConvVAE | MLPVAE:
        from neuro.nn.networks import NETWORKS

        n_channels, n_times = self.contract_.shape
        kind = NETWORKS[self.network]
        return kind(n_channels, n_times, self.n_latents, self.n_hidden, seed)

    def _describe(self, mean: Floats, variance: Floats) -> None:
        """Learn what every latent carries, and warn where it is too little or too much."""
        # An autoencoder has no variance; how far its means go is told in the same unit.
        self.kl_ = kl_per_latent(mean, variance if self.beta else np.ones_like(mean))
        self.kept_ = kept_latents(self.kl_)
        self.types_ = variable_types(variance)
        counts = {str(t): int((self.types_ == t).sum()) for t in ("active", "mixed", "passive")}
        self.counts_ = {"kl_active": int(self.kept_.sum()), **counts}
        if not self.beta:
            return
        if not self.kept_.any():
            warnings.warn(
                f"no latent carries information (posterior collapse) at beta = {self.beta:g}: "
                "lower beta, or train longer",
                stacklevel=2,
            )
        elif not self.counts_["passive"]:
            warnings.warn(
                f"none of {self.n_latents} latents is passive at beta = {self.beta:g}: beta may "
                "be too small for latents to be selective; raise it, or add latents",
                stacklevel=2,
            )

    def _encode(self, X: Floats) -> tuple[Floats, Floats]:
        """Return posterior means and variances of trials in uV."""
        return self._posterior(self.standardizer_.transform(X).astype(np.float32, copy=False))

    def _posterior(self, X: Floats) -> tuple[Floats, Floats]:
        mean, log_variance = self._in_batches(lambda x: self.network_.encode(x), X)
        return mean, np.exp(log_variance) if self.beta else np.zeros_like(mean)

    def _decode(self, Z: Floats) -> Floats:
        """Return signals in uV."""
        (signal,) = self._in_batches(lambda z: (self.network_.decode(z),), Z)
        return self.target_standardizer_.inverse(signal)

    def _in_batches(
        self, function: Callable[[Tensor], Sequence[Tensor]], X: Floats
    ) -> list[Floats]:
        import torch

        from neuro.device import device_of

        device = device_of(self.device, fallback=True)
        self.network_.to(device)
        try:
            with torch.inference_mode():
                parts = [
                    [out[0].cpu() for out in function(torch.from_numpy(block).to(device)[None])]
                    for block in np.split(X, range(_BATCH, len(X), _BATCH))
                ]
        finally:
            self.network_.cpu()
        return [torch.cat(part).numpy() for part in zip(*parts, strict=True)]

    def _plain(self, signal: Floats) -> Floats:
        flat_at_fit = self.contract_.shape[0] == 1 and self.n_features_in_ != 1
        return signal[:, 0] if flat_at_fit else signal

    def _signal(
        self, signal: Floats, dims: tuple[str, ...], coords: dict[Any, Any]
    ) -> xr.DataArray:
        contract = self.contract_
        known = {"channel": contract.channels, "time": contract.times}
        coords = coords | {name: values for name, values in known.items() if values is not None}
        n_channels, n_times = contract.shape
        coords.setdefault("channel", [str(c) for c in range(n_channels)])
        coords.setdefault("time", np.arange(n_times) / (contract.sfreq or 1.0))
        attrs = {"units": "uV", "sfreq": contract.sfreq, "positions": self.positions_}
        attrs = {name: value for name, value in attrs.items() if value is not None}
        return xr.DataArray(signal, dims=(*dims, "channel", "time"), coords=coords, attrs=attrs)


def _is_epochs(X: Any) -> bool:
    mne = sys.modules.get("mne")  # whoever holds epochs has imported it
    return mne is not None and isinstance(X, mne.BaseEpochs)


def _converted(epochs: Any) -> xr.Dataset:
    from eeg.convert import epochs_to_dataset

    return epochs_to_dataset(epochs)


def _check_units(X: xr.DataArray) -> None:
    units = X.attrs.get("units")
    if units not in (None, "uV", "µV"):
        factor = {"V": "1e6", "mV": "1e3", "nV": "1e-3"}.get(str(units))
        what = f"multiply by {factor} and set attrs['units'] = 'uV'" if factor else "convert them"
        raise ContractError(f"the units are '{units}', expected uV: {what}")


def _check_microvolts(X: xr.DataArray) -> None:
    _check_units(X)
    some = np.asarray(X[:: max(1, X.sizes["trial"] // 200)].values, dtype=float)
    typical = float(np.median(some.std(axis=-1))) if some.size else 1.0
    if 0 < typical < _SMALLEST:
        raise DataError(
            f"the typical standard deviation is {typical:.3g}, expected microvolts (2 to 50 for "
            "scalp EEG): this looks like volts; multiply by 1e6"
        )
