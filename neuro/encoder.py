"""The encoder contract: a scikit-learn estimator that knows its input and can be saved.

A subclass sets `name`, keeps its parameters in ``__init__``, and writes `fit`, `transform`,
`state_dict_arrays` and `load_state_arrays`. `start_fit`, `check_input` and `wrap` do the rest::

    class PCAEncoder(Encoder):
        name = "my-pca"

        def __init__(self, n_latents=2):
            self.n_latents = n_latents

        def fit(self, X, y=None, *, subject=None, session=None):
            X = self.start_fit(X, subject=subject, session=session)  # (trial, channel, time)
            ...
            return self

        def transform(self, X):
            X = self.as_input(X)  # read a path once
            Z = self.check_input(X).reshape(len(X), -1) @ self.components_.T
            return self.wrap(Z, X)  # a DataArray for a DataArray
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from neuro.artefact import read_encoder, write_encoder
from neuro.contract import Contract, label_axes, refuse_duplicates
from neuro.data import as_signal, check_finite, open_dataset
from neuro.errors import ContractError, DataError
from neuro.fitted_on import FittedOn, Seen
from neuro.packing import encoder_class, libraries, pack, plain_card, unpack

__all__ = ["DecodeOptions", "Encoder", "encoder_class", "load", "refuse_if_fitted"]


class DecodeOptions(BaseModel):
    """What ``neuro decode`` accepts beyond files; encoders extend it by fields of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    align: bool = False
    """Drop channels that the encoder doesn't know, instead of refusing the recording."""


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of all encoders.

    Attributes
    ----------
    name : str
        The registered name: the entry point of the group ``neuro.encoders``.
    dims : tuple of str
        Axes of the input; a plain array of one axis less is one channel.
    parts : tuple of str
        Fitted attributes that are encoders themselves; they are saved and loaded along.
    optional_parts : tuple of str
        The same for such that may be None or missing.
    DecodeOptions : type
        The options model of `decode`.
    contract_ : Contract
        What new data must look like (after `start_fit`).
    fitted_on_ : FittedOn
        Hashes of the subjects, sessions and trials of the training data.
    n_features_in_ : int
        Size of the input's second axis as given.

    Examples
    --------
    >>> class Peak(Encoder):
    ...     n_latents = 1
    ...     def fit(self, X, y=None, **coords):
    ...         self.start_fit(X, **coords)
    ...         return self
    ...     def transform(self, X):
    ...         X = self.as_input(X)
    ...         return self.wrap(self.check_input(X).max(axis=(1, 2))[:, None], X)
    >>> X = xr.DataArray(np.eye(3).reshape(3, 1, 3), dims=("trial", "channel", "time"),
    ...                  coords={"subject": ("trial", ["a", "a", "b"])}, attrs={"sfreq": 100.0})
    >>> peak = Peak().fit(X[:2])
    >>> peak.transform(X).sizes["latent"], peak.seen(X).subjects.tolist()
    (1, [True, True, False])
    >>> peak.transform(X.assign_attrs(sfreq=128.0))
    Traceback (most recent call last):
    neuro.errors.ContractError: sfreq is 128.0 Hz, expected 100.0 Hz; resample the recording first
    """

    name: ClassVar[str] = ""
    dims: ClassVar[tuple[str, ...]] = ("trial", "channel", "time")
    parts: ClassVar[tuple[str, ...]] = ()
    optional_parts: ClassVar[tuple[str, ...]] = ()
    DecodeOptions: ClassVar[type[BaseModel]] = DecodeOptions
    n_latents: int

    contract_: Contract
    fitted_on_: FittedOn
    n_features_in_: int

    # What a subclass writes ---------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, **fit_coords: Any) -> Self:
        """Fit to trials; subjects and the like come from `X`'s coordinates or keywords."""
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def transform(self, X: Any) -> Any:
        """Return the codes ``(trial, latent)``: a DataArray for one, else an ndarray."""
        raise NotImplementedError(f"{type(self).__name__} has no transform")

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return every fitted array by name, for ``model.safetensors``."""
        raise NotImplementedError(f"{type(self).__name__} has no state_dict_arrays")

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave; parameters are set already."""
        raise NotImplementedError(f"{type(self).__name__} has no load_state_arrays")

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``; extend it by entries of your own."""
        check_is_fitted(self, "contract_")
        scaler = getattr(self, "standardizer_", None)
        return {
            **self.contract_.to_dict(),
            "standardisation": scaler.to_dict() if scaler else None,
            "fitted_on": self.fitted_on_.to_dict(),
        }

    def read_recording(self, path: str | Path, *, align: bool = False) -> xr.Dataset | xr.DataArray:
        """Read one recording for `decode`; a modality replays its preprocessing here.

        The base reads saved datasets only. With `align`, channels that the encoder doesn't know
        are no reason to refuse the recording.
        """
        path = Path(path)
        if path.is_dir():
            return open_dataset(path)
        raise DataError(f"{path}: {type(self).__name__} reads saved datasets (a Zarr folder) only")

    def as_input(self, X: Any) -> Any:
        """Turn a path or a Dataset into a DataArray; a modality adds what its field uses."""
        if isinstance(X, str | Path):
            X = self.read_recording(X)
        return as_signal(X) if isinstance(X, xr.Dataset) else X

    # What it calls ------------------------------------------------------------------------

    def start_fit(
        self,
        X: Any,
        *,
        subject: ArrayLike | None = None,
        session: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Validate training data; learn `contract_`, `fitted_on_` and `n_features_in_`.

        Parameters
        ----------
        X : DataArray, ndarray or what the field uses
        subject, session : array-like, shape (trial,), optional
            By default the coordinates of `X`.

        Returns
        -------
        ndarray of float32, shape as `dims`

        Raises
        ------
        DataError, ValueError
            Where the data holds NaN or infinity, or isn't numeric.
        """
        labelled = self._labelled(self.as_input(X), reset=True)
        refuse_duplicates(labelled)
        self.contract_ = Contract.of(labelled)
        values = _float32(labelled)
        self.fitted_on_ = FittedOn.of(values, **_who(labelled, subject, session))
        return values

    def check_input(self, X: Any, *, align: bool = False) -> NDArray[np.float32]:
        """Check new data against the contract.

        Parameters
        ----------
        X : DataArray, ndarray or what the field uses
            Channels of a DataArray are put in the order of training by their names; a plain
            array is checked by its shape only.
        align : bool
            Drop unknown channels instead of refusing them.

        Returns
        -------
        ndarray of float32, shape as `dims`

        Raises
        ------
        ContractError
            Where channels, times, units, rate or preprocessing differ; both sides are named.
        """
        return _float32(self.align(X, drop_extra=align))

    def align(self, X: Any, *, drop_extra: bool = True) -> xr.DataArray:
        """Return new data as a DataArray that fulfils the contract; see `check_input`."""
        check_is_fitted(self, "contract_")
        return self.contract_.match(self._labelled(self.as_input(X), reset=False), align=drop_extra)

    def wrap(self, latents: NDArray[Any], X: Any) -> Any:
        """Return codes in the kind of `X`: coordinates on ``trial`` carried over, or plain."""
        X = self.as_input(X)
        if not isinstance(X, xr.DataArray):
            return latents
        coords = {name: c for name, c in X.coords.items() if c.dims == ("trial",)}
        names = {"latent": np.arange(latents.shape[1])}
        attrs = {"encoder": self.name}
        return xr.DataArray(
            latents, dims=("trial", "latent"), coords={**coords, **names}, attrs=attrs
        )

    # What all have ------------------------------------------------------------------------

    def seen(self, X: Any) -> Seen:
        """Tell which trials, subjects and sessions of `X` were trained on."""
        X = self.align(X)
        return self.fitted_on_.seen(_float32(X), **_who(X, None, None))

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode one recording.

        Parameters
        ----------
        path : path
        options : DecodeOptions, optional
            Of this encoder's own model.

        Returns
        -------
        Dataset
            ``codes (trial, latent)`` with the trials' coordinates and ``seen_trial``,
            ``seen_subject``: True where the encoder was trained on it.
        """
        options = options or self.DecodeOptions()
        X = self.align(self.read_recording(path, align=options.align), drop_extra=options.align)
        seen = self.fitted_on_.seen(_float32(X), **_who(X, None, None))
        codes = self.transform(X).assign_coords(
            seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects)
        )
        attrs = {"kind": "codes", "encoder": self.name, "source": Path(path).name}
        return codes.to_dataset(name="codes").assign_attrs(attrs)

    def check_decoding(self, options: Any) -> None:
        """Refuse options that no recording could be decoded with, before the first is read."""

    def save(self, folder: str | Path, card: str | None = None) -> None:
        """Save as a folder: JSON and safetensors, no code and no pickle.

        Parameters
        ----------
        folder : path
            Appears whole or not at all; an older encoder there is replaced.
        card : str, optional
            The model card (Markdown: data, metrics, intended use); a plain one by default.

        Raises
        ------
        InputError
            Where a parameter can't be written as JSON, or the folder holds something else.
        """
        check_is_fitted(self, "contract_")
        config, arrays, preprocessing = pack(self)
        config = {**config, "libraries": libraries()}
        write_encoder(folder, config, arrays, preprocessing, card or plain_card(self))

    @property
    def _n_features_out(self) -> int:
        return int(self.n_latents)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _labelled(self, X: Any, *, reset: bool) -> xr.DataArray:
        """Return the input as a checked DataArray with the axes of `dims`."""
        if not isinstance(X, xr.DataArray):
            X = X if reset else self._as_at_fit(X)
            plain = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True)
            return label_axes(plain, self.dims)
        if X.dims[:1] != ("trial",):
            raise ContractError(f"the first axis is '{X.dims[0]}', expected 'trial' ({X.dims})")
        if X.dtype.kind not in "fiub":
            raise DataError(f"the signal is {X.dtype}, expected real numbers")
        if X.sizes["trial"] == 0:
            raise DataError("there is no trial in the data")
        if X.ndim == len(self.dims) - 1 and X.dims[-1] == self.dims[-1]:
            X = X.expand_dims({self.dims[1]: 1}, axis=1)
        check_finite(X)
        if reset:
            self.n_features_in_ = X.shape[1]
            self.__dict__.pop("feature_names_in_", None)
        return X

    def _as_at_fit(self, X: Any) -> Any:
        """Give one channel the number of axes it had at fit, so that its features count alike."""
        if not isinstance(X, np.ndarray) or self.contract_.shape[0] != 1:
            return X
        flat_at_fit = self.n_features_in_ == self.contract_.shape[-1]
        if flat_at_fit and X.ndim == len(self.dims) and X.shape[1] == 1:
            return X[:, 0]
        if not flat_at_fit and X.ndim == len(self.dims) - 1:
            return X[:, None]
        return X


def _float32(X: xr.DataArray) -> NDArray[np.float32]:
    return np.ascontiguousarray(X.values, dtype=np.float32)


def _who(X: xr.DataArray, subject: ArrayLike | None, session: ArrayLike | None) -> dict[str, Any]:
    """Return subjects and sessions, given or from the coordinates on ``trial``."""
    given: dict[str, Any] = {"subject": subject, "session": session}
    for name, value in given.items():
        if value is None and name in X.coords and X[name].dims == ("trial",):
            value = X[name].values
        if value is not None and np.shape(value) != (X.sizes["trial"],):
            raise DataError(
                f"'{name}' has the shape {np.shape(value)}, expected one value for each of "
                f"{X.sizes['trial']} trials"
            )
        given[name] = value
    return given


def refuse_if_fitted(encoder: Encoder, X: Any, *, allow: bool = False) -> None:
    """Refuse to score an encoder on what it was trained on.

    Parameters
    ----------
    encoder : Encoder
        Fitted.
    X : DataArray, ndarray or what the field uses
    allow : bool
        Score on it nevertheless.

    Raises
    ------
    ContractError
        Where a trial or a subject of `X` was in the training data.
    """
    if allow:
        return
    seen = encoder.seen(X)
    if seen.any.any():
        raise ContractError(
            f"{int(seen.trials.sum())} of {len(seen.trials)} trials, and the subjects of "
            f"{int(seen.subjects.sum())}, were in the training data of '{encoder.name}'; score "
            "on held-out subjects, or pass allow=True where this is meant"
        )


def load(folder: str | Path) -> Encoder:
    """Load an encoder.

    Parameters
    ----------
    folder : path
        What `Encoder.save` wrote; links are followed.

    Returns
    -------
    Encoder
        Of the installed class that is registered under the name in ``config.json``; nothing in
        the folder is run.

    Raises
    ------
    ContractError
        Where the folder is no encoder, was damaged or changed, or no installed package knows it.

    Examples
    --------
    >>> load("no/such/encoder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    neuro.errors.ContractError: no/such/encoder: no such encoder folder; ...
    """
    folder = Path(folder)
    config, arrays, preprocessing = read_encoder(folder)
    try:
        return unpack(config, arrays, preprocessing)
    except ContractError as error:
        raise ContractError(f"{folder}: {error}") from error
