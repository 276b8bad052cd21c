"""MindEye: from voxels to the embedding of the seen picture, for retrieval and reconstruction.

References
----------
Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
diffusion priors" (NeurIPS 2023).
Scotti et al., "MindEye2: Shared-subject models enable fMRI-to-image with 1 hour of data" (ICML
2024).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fmri.decode_options import MindEyeOptions
from fmri.mindeye_options import check_parameters
from fmri.pictured import DecodesPictures, brief
from fmri.repeats import average_repeats
from fmri.subjects import Subject, VoxelContract, as_subjects
from neuro.encoder import DecodeOptions as BaseOptions
from neuro.errors import ContractError, InputError
from neuro.fitted_on import FittedOn, Seen
from neuro.items import trial_hashes

if TYPE_CHECKING:
    from fmri.model import Model

__all__ = ["MindEye", "MindEyeOptions", "average_repeats", "fingerprint_of"]

Floats = NDArray[np.float32]


class MindEye(DecodesPictures):
    """MindEye over betas ``(trial, voxel)``; its code is the tokens of an image embedding.

    Voxels are standardised by statistics of the training trials. Stimuli, never single trials,
    are kept out to choose the checkpoint; a test set plays no part. Repeats of a stimulus are
    single trials in training; at test, average outputs by `average_repeats`.

    The presets ``mindeye1`` and ``mindeye2`` have the shapes and the training of the papers.
    ``small`` is ours, for a thousand trials on a CPU: its linear path starts as a ridge
    regression to the targets (fitted on its training stimuli alone), its residual blocks start at
    zero, its contrastive temperature is warmer and goes with the spread of the targets, and the
    starting point is kept where training doesn't better it. Its prior is trained after its
    backbone, on what backbones of four folds gave for stimuli that they never saw.

    Parameters
    ----------
    preset : {"small", "mindeye1", "mindeye2"}
    loss : {"bimixco+softclip", "bimixco", "softclip", "infonce"}, optional
        The contrastive term; None takes the preset's.
    head : {"separate", "shared"}
        Retrieve by a projector of its own, or by the backbone's tokens.
    prior : bool
        Train the diffusion prior.
    n_blocks, n_hidden : int, optional
        Depth and width of the backbone.
    rank : int, optional
        Of the token head; the papers' heads are full.
    input_dropout : float, optional
        Of voxels.
    warm_start : bool, optional
        Start from a ridge regression (``first="linear"`` presets).
    low_level_weight : float
        Of the low-level branch, where `fit` is given image latents.
    max_epochs, prior_max_epochs, batch_size, learning_rate : optional
        Of the training; None takes the preset's. A batch has equal shares of each subject.
    weight_decay : float
        Of AdamW; none on biases and normalisations.
    validation_fraction : float
        Share of the stimuli that choose the checkpoint; 0 takes the last epoch. ``small`` lets
        four folds choose, each a quarter of the stimuli, and then trains on all.
    patience : int, optional
        Stop after so many epochs without a better one.
    sampler : {"ddim", "ddpm", "mean"}
        Of the prior; DDIM has trailing steps; ``"mean"`` is its estimate of the mean.
    steps : int
        Of the sampler, of 100.
    guidance : float
        Of the prior; 1, the papers' value, is none.
    precision : {"32", "bf16-mixed", "16-mixed"}
    device : str
        ``"auto"`` takes a GPU where there is one.
    compile : bool
        Compile backbone and prior with `torch.compile`.
    random_state : int
        Of initial weights, order, noise and split.
    verbose : bool
        Show a bar over epochs.

    Attributes
    ----------
    subjects_ : list of VoxelContract
        Voxels and statistics of every subject.
    target_ : dict
        ``fingerprint``, ``shape``, ``scale`` and ``random_weights`` of the targets.
    history_, prior_history_ : list of dict
        Losses per epoch.
    best_epoch_ : int
        0 where the start was best.
    alpha_ : dict of str to float
        Penalty of the warm start by subject.
    decoder_ : ImageAutoencoder or None
        The way from tokens, or from the low-level latent, back to pixels; see `attach_decoder`.
    pixels_ : LinearDecoder or None
        The same for targets that are principal components.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> names = [f"s{n}" for n in range(40)]
    >>> values = rng.normal(size=(40, 2, 4)).astype("float16")
    >>> tokens = xr.Dataset({"signal": (("trial", "token", "feature"), values)},
    ...                     coords={"stimulus": ("trial", names)})
    >>> X = xr.DataArray(rng.normal(size=(40, 6)), dims=("trial", "voxel"),
    ...                  coords={"stimulus": ("trial", names)})
    >>> model = MindEye(max_epochs=1, prior=False).fit(X, tokens)
    >>> model.transform(X).dims
    ('trial', 'token', 'feature')
    """

    name: ClassVar[str] = "fmri-mindeye"
    dims: ClassVar[tuple[str, ...]] = ("trial", "voxel")
    DecodeOptions: ClassVar[type[BaseOptions]] = MindEyeOptions

    model_: Model
    subjects_: list[VoxelContract]
    target_: dict[str, Any]
    history_: list[dict[str, float]]
    prior_history_: list[dict[str, float]]

    def __init__(
        self,
        preset: str = "small",
        loss: str | None = None,
        head: str = "separate",
        prior: bool = True,
        n_blocks: int | None = None,
        n_hidden: int | None = None,
        rank: int | None = None,
        input_dropout: float | None = None,
        warm_start: bool | None = None,
        low_level_weight: float = 0.5,
        max_epochs: int | None = None,
        prior_max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float = 1e-2,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        sampler: str = "ddim",
        steps: int = 20,
        guidance: float = 1.0,
        precision: str = "32",
        device: str = "auto",
        compile: bool = False,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.preset = preset
        self.loss = loss
        self.head = head
        self.prior = prior
        self.n_blocks = n_blocks
        self.n_hidden = n_hidden
        self.rank = rank
        self.input_dropout = input_dropout
        self.warm_start = warm_start
        self.low_level_weight = low_level_weight
        self.max_epochs = max_epochs
        self.prior_max_epochs = prior_max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.sampler = sampler
        self.steps = steps
        self.guidance = guidance
        self.precision = precision
        self.device = device
        self.compile = compile
        self.random_state = random_state
        self.verbose = verbose

    @property
    def n_latents(self) -> int:  # type: ignore[override]
        """Size of a trial's code: tokens times features."""
        return int(np.prod(self.target_["shape"]))

    # Fitting ------------------------------------------------------------------------------

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        *,
        low_level: xr.Dataset | None = None,
        stimulus: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Train on the betas of one or several subjects.

        Parameters
        ----------
        X : DataArray or Dataset (trial, voxel), ndarray, path, or a list of such
            Coordinates on ``trial``: ``stimulus`` and, with several subjects, ``subject``; on
            ``voxel``: ``i``, ``j``, ``k``. Subjects with different voxels are a list.
        y : Dataset
            Targets: ``signal`` (trial, token, feature) with the coordinate ``stimulus``; may hold
            more stimuli than are needed, and may be memory-mapped.
        low_level : Dataset, optional
            Image latents ``signal`` (trial, channel, row, column) with ``stimulus``: trains the
            low-level branch too.
        stimulus : array-like of str, optional
            Where one dataset has no such coordinate.
        scratch : path, optional
            Checkpoints and the log go here; a killed fit continues from it.
        progress : callable, optional
            As `Context.progress`.

        Returns
        -------
        MindEye

        Raises
        ------
        InputError
            Where a parameter is wrong.
        DataError
            Where betas or targets can't be used: a stimulus without target, NaN, no stimulus.
        StageError
            Where training diverges.
        """
        from fmri.fitting import fit_model

        check_parameters(self)
        subjects = as_subjects(X, stimulus)
        fit_model(self, subjects, y, low_level, scratch, progress)
        self._remember(subjects, low_level)
        return self

    def fine_tune(
        self,
        X: Any,
        y: Any,
        *,
        low_level: xr.Dataset | None = None,
        stimulus: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
        **params: Any,
    ) -> MindEye:
        """Fit new subjects, starting from everything but the first layers.

        Parameters
        ----------
        X, y, low_level, stimulus, scratch, progress
            As in `fit`; the targets must be of the same kind.
        **params
            Parameters of training that are to differ. With less than some 200 stimuli too few are
            kept aside to choose a checkpoint: ``validation_fraction=0`` does better then.

        Returns
        -------
        MindEye
            A new one, for the new subjects; this one is left as it is.

        Raises
        ------
        ContractError
            Where the targets have another fingerprint or shape.
        """
        from fmri.fitting import fit_model

        check_is_fitted(self, "model_")
        self.check_targets(y)
        other = clone(self).set_params(**params)
        check_parameters(other)
        subjects = as_subjects(X, stimulus)
        fit_model(other, subjects, y, low_level, scratch, progress, start=self.model_)
        other._remember(subjects, low_level)
        other.decoder_, other.pixels_ = self.decoder_, self.pixels_
        return other

    def _remember(self, subjects: list[Subject], low_level: xr.Dataset | None) -> None:
        made_by = None if low_level is None else fingerprint_of(low_level)
        self.target_["latent_fingerprint"] = made_by
        own = [FittedOn.of(s.values, *_who(s)) for s in subjects]
        self.fitted_on_ = FittedOn(
            **{
                name: sorted({h for one in own for h in getattr(one, name)})
                for name in ("subjects", "sessions", "trials")
            }
        )

    # Using --------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Return the projector's output, of unit length: the space of retrieval.

        Parameters
        ----------
        X : as in `fit`
            A list gives a list.

        Returns
        -------
        DataArray (trial, token, feature)
            An ndarray for an ndarray. Compare it with targets by the cosine over all tokens.

        Raises
        ------
        ContractError
            Where voxels, affine or subject differ from the training data; both sides are named.
        """
        if isinstance(X, list | tuple):
            return [self.transform(one) for one in X]
        found = self._by_subject(X, lambda model, s, _: model.embed(s, self.device), "retrieval")
        length = np.sqrt(np.square(found.values).sum((1, 2), keepdims=True))
        return self._as_given(found.copy(data=found.values / np.maximum(length, 1e-12)), X)

    def predict_tokens(
        self,
        X: Any,
        prior: bool | None = None,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        n_samples: int = 1,
        random_state: int | None = None,
    ) -> Any:
        """Predict the tokens in the space of the targets, for reconstruction.

        Parameters
        ----------
        X : as in `transform`
        prior : bool, optional
            A sample of the diffusion prior, or the backbone's own tokens; by default the prior
            where there is one.
        sampler, steps, guidance : optional
            By default the estimator's. ``sampler="mean"`` is nearest to the truth on average, a
            sample looks more like a real image's tokens.
        n_samples : int
            Samples that are averaged.
        random_state : int, optional
            A trial's noise follows from it and the trial's own content, whatever else is decoded.

        Returns
        -------
        DataArray (trial, token, feature) or ndarray
        """
        check_is_fitted(self, "model_")
        use = self.prior if prior is None else prior
        if use and self.model_.prior is None:
            raise InputError("this MindEye was fitted with prior=False; pass prior=False here too")
        if isinstance(X, list | tuple):
            given: dict[str, Any] = {
                "sampler": sampler, "steps": steps, "guidance": guidance,
                "n_samples": n_samples, "random_state": random_state,
            }  # fmt: skip
            return [self.predict_tokens(one, prior, **given) for one in X]
        options = self._sampling(sampler, steps, guidance, n_samples, random_state)

        def predict(model: Model, values: tuple[str, Floats], keys: list[str]) -> Floats:
            if not use:
                return model.tokens(values, self.device)
            return model.sample(values, keys, self.device, **options)

        return self._as_given(self._by_subject(X, predict, "targets"), X)

    def predict_low_level(self, X: Any) -> Any:
        """Predict the image latent, the start of an image-to-image reconstruction.

        Returns
        -------
        DataArray (trial, channel, row, column) or ndarray
        """
        check_is_fitted(self, "model_")
        if self.model_.latent is None:
            raise InputError("this MindEye has no low-level branch; pass low_level= to fit")
        found = self._by_subject(
            X, lambda model, s, _: model.low_level(s, self.device), "latents",
            ("channel", "row", "column"),
        )  # fmt: skip
        return self._as_given(found, X)

    def check_targets(self, y: xr.Dataset) -> None:
        """Refuse targets (a gallery, new training data) of another kind.

        Raises
        ------
        ContractError
            Where fingerprint or shape differ; both sides are in the message.
        """
        check_is_fitted(self, "target_")
        shape = list(y["signal"].shape[1:])
        if shape != list(self.target_["shape"]):
            raise ContractError(
                f"the targets have the shape {tuple(shape)} (token, feature), expected "
                f"{tuple(self.target_['shape'])}"
            )
        found, expected = fingerprint_of(y), self.target_["fingerprint"]
        if found != expected:
            raise ContractError(
                f"the targets have the fingerprint {brief(found)}, expected {brief(expected)}; "
                "encode the pictures with the provider the model was fitted to"
            )

    # The encoder contract -----------------------------------------------------------------

    def align(self, X: Any, *, drop_extra: bool = True) -> xr.DataArray:
        """Return new data as a DataArray, once it is known to match; see `transform`."""
        check_is_fitted(self, "model_")
        for subject in as_subjects(X):
            self._contract_of(subject).check(subject)
        return self.as_input(X)

    def as_input(self, X: Any) -> Any:
        """Turn a path or a Dataset into a DataArray; an array gets its axes' names."""
        X = super().as_input(X)
        return X if isinstance(X, xr.DataArray) else xr.DataArray(np.asarray(X), dims=self.dims)

    def seen(self, X: Any) -> Seen:
        """Tell which trials, subjects and sessions of `X` were trained on."""
        subjects = as_subjects(X)
        parts = [self.fitted_on_.seen(s.values, *_who(s)) for s in subjects]
        order = np.argsort(np.concatenate([s.rows for s in subjects]))
        return Seen(*(np.concatenate(column)[order] for column in zip(*parts, strict=True)))

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode one file of betas.

        Returns
        -------
        Dataset
            ``codes`` and ``tokens`` (trial, token, feature), ``latents`` where there is a
            low-level branch, and with a gallery ``retrieved`` and ``similarity`` (trial, rank).
        """
        from fmri.decode import decode_betas

        return decode_betas(self, path, options or MindEyeOptions())

    def companions(self, path: str | Path) -> list[Path]:
        """Name the trial table that lies beside a file of betas."""
        from fmri.read_betas import table_beside

        found = table_beside(path)
        return [] if found is None else [found]

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(),
            "subjects": [subject.to_dict() for subject in self.subjects_],
            "targets": self.target_,
            "history": self.history_,
            "prior_history": self.prior_history_,
            "best_epoch": self.best_epoch_,
            "alpha": self.alpha_,
        }

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all weights, and voxels and statistics of every subject."""
        arrays = self.model_.to_arrays()
        for number, subject in enumerate(self.subjects_):
            arrays |= {f"subjects.{number}.{k}": v for k, v in subject.to_arrays().items()}
        return arrays if self.pixels_ is None else arrays | self.pixels_.to_arrays()

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        from fmri.linear_decoder import LinearDecoder
        from fmri.recipes import empty_model

        self.history_ = preprocessing["history"]
        self.prior_history_ = preprocessing["prior_history"]
        self.best_epoch_, self.alpha_ = preprocessing["best_epoch"], preprocessing["alpha"]
        self.target_ = preprocessing["targets"]
        self.subjects_ = [
            VoxelContract.from_parts(
                stored,
                {
                    name.removeprefix(f"subjects.{number}."): array
                    for name, array in arrays.items()
                    if name.startswith(f"subjects.{number}.")
                },
            )
            for number, stored in enumerate(preprocessing["subjects"])
        ]
        self.model_ = empty_model(self)
        self.model_.load_arrays(arrays)
        self.pixels_ = LinearDecoder.from_arrays(arrays)

    # Inside -------------------------------------------------------------------------------

    def _contract_of(self, subject: Subject) -> VoxelContract:
        known = {contract.name: contract for contract in self.subjects_}
        if subject.name in known:
            return known[subject.name]
        if len(known) == 1 and (not subject.name or "" in known):
            return self.subjects_[0]
        raise ContractError(
            f"subject '{subject.name}' is none of those trained on: "
            f"{', '.join(map(repr, known))}; fine_tune on some of its trials first"
        )

    def _by_subject(
        self,
        X: Any,
        function: Callable[[Any, tuple[str, Floats], list[str]], Floats],
        space: str,
        dims: Sequence[str] = ("token", "feature"),
    ) -> xr.DataArray:
        check_is_fitted(self, "model_")
        parts, rows = [], []
        for subject in as_subjects(X):
            contract = self._contract_of(subject)
            contract.check(subject)
            values = contract.transform(subject.values)
            parts.append(function(self.model_, (contract.name, values), trial_hashes(values)))
            rows.append(subject.rows)
        values = np.concatenate(parts)[np.argsort(np.concatenate(rows))]
        given = self.as_input(X)
        coords = {k: c for k, c in given.coords.items() if c.dims == ("trial",)}
        attrs = {"encoder": self.name, "space": space}
        if space != "latents" and self.target_["fingerprint"] is not None:
            attrs["fingerprint"] = json.dumps(self.target_["fingerprint"])  # for galleries
        return xr.DataArray(values, dims=("trial", *dims), coords=coords, attrs=attrs)

    @staticmethod
    def _as_given(found: xr.DataArray, X: Any) -> Any:
        plain = not isinstance(X, xr.DataArray | xr.Dataset | str | Path)
        return found.values if plain else found


def fingerprint_of(y: xr.Dataset) -> Any:
    """Return the fingerprint of targets as JSON values; None where they have none."""
    stored = y.attrs.get("fingerprint")
    return json.loads(stored) if isinstance(stored, str) else stored


def _who(subject: Subject) -> tuple[Any, Any]:
    if not subject.name:
        return None, None
    return np.full(len(subject.values), subject.name), subject.session
