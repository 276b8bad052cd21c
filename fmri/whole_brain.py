"""Whole-brain decoding: from blocks of parcels' series to embeddings of pictures and texts.

References
----------
Wang et al., "Decoding visual experience and mapping semantics through whole-brain analysis using
fMRI foundation models" (2024).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fmri.brain_decoding import DecodesRuns
from fmri.brain_network import apply_in_batches, load_arrays, to_arrays
from fmri.brain_presets import as_dict, make_encoder, sizes_of
from fmri.brain_reading import Reading
from fmri.brain_targets import Aim, match_aim, targets_in, text_size
from fmri.whole_brain_options import WholeBrainOptions
from neuro.errors import ContractError, InputError
from neuro.items import trial_hashes

if TYPE_CHECKING:
    from fmri.brain_prompts import TextTower
    from fmri.whole_brain_fit import Networks

__all__ = ["WholeBrain", "WholeBrainOptions"]

Floats = NDArray[np.float32]


class WholeBrain(DecodesRuns):
    """Decode what is seen from parcels of the whole brain.

    The code (`transform`) is the encoder's pooled vector; `predict` gives the embedding of the
    picture, `predict_text` that of the text, `predict_category` the category whose mean embedding
    is nearest, `predict_tokens` what a generator makes a picture of.

    Parameters
    ----------
    encoder : {"causal", "masked", "volumetric", "linear"}
    preset : {"small", "paper"}
        Sizes and rates: ours for some hundred trials on a CPU, or the paper's (batches of 16,
        learning rate 1e-5, 50,000 steps).
    sizes : dict, optional
        Changes to the preset's sizes, see `fmri.brain_presets`.
    pretrained : path, optional
        Folder of a `PretrainedBrain`, whose sizes are then taken; or a ``.safetensors`` file of
        another project (`fmri.brain_weights`), of the sizes given here.
    prior : bool
        Train a diffusion prior on the pooled vector, for tokens of pictures.
    sparse : float
        Share of the entries that is set to 0 in training.
    shuffle : bool
        Shuffle the volumes of a block in training.
    max_epochs, prior_max_epochs, batch_size, learning_rate : optional
        None takes the preset's.
    weight_decay : float
        Of AdamW.
    encoder_rate : float, optional
        Learning rate of a pretrained encoder as a share of that of the heads: 1 tunes all alike, 0
        leaves the encoder as it is; None takes the preset's (0.1; the paper's is 1).
    validation_fraction : float
        Share of the groups that is kept aside to choose the epoch; 0 takes the last one.
    hold_out : str
        What is kept aside as a whole: "item", or a coordinate of the trials (run, subject).
    patience : int, optional
        Stop after so many epochs without a better one.
    sampler : {"ddim", "ddpm", "mean"}
    steps : int
    guidance : float
        Of the prior.
    precision : {"32", "bf16-mixed", "16-mixed"}
    device : str
    compile : bool
    random_state : int

    Attributes
    ----------
    target_ : dict
        ``fingerprint``, ``shape``, ``scale``, ``random_weights``, ``kind`` of the targets, and
        the size of the texts' embeddings.
    categories_ : list of str
        Those that trials of the training name; empty where they name none.
    history_, prior_history_ : list of dict
        Losses per epoch.
    best_epoch_ : int
    reading_ : Reading or None
        How runs become blocks, where the training's dataset said so; see `attach_reading`.
    decoder_, pixels_ : ImageAutoencoder, LinearDecoder or None
        The way from tokens back to pixels; see `attach_decoder`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = xr.DataArray(rng.normal(size=(24, 5, 3)), dims=("trial", "parcel", "time"),
    ...                  coords={"item": ("trial", [f"i{n % 12}" for n in range(24)])})
    >>> y = xr.DataArray(rng.normal(size=(12, 4)), dims=("item", "feature"),
    ...                  coords={"item": [f"i{n}" for n in range(12)]})
    >>> model = WholeBrain("linear", max_epochs=1).fit(X, y)
    >>> model.predict(X).dims, model.transform(X).dims
    (('trial', 'feature'), ('trial', 'latent'))
    """

    name: ClassVar[str] = "fmri-whole-brain"
    networks_: Networks
    target_: dict[str, Any]
    categories_: list[str]
    prototypes_: Floats
    history_: list[dict[str, float]]
    prior_history_: list[dict[str, float]]
    best_epoch_: int
    sizes_: dict[str, Any]

    def __init__(
        self,
        encoder: str = "causal",
        preset: str = "small",
        sizes: dict[str, Any] | None = None,
        pretrained: str | Path | None = None,
        prior: bool = False,
        sparse: float = 0.2,
        shuffle: bool = True,
        max_epochs: int | None = None,
        prior_max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float = 0.03,
        encoder_rate: float | None = None,
        validation_fraction: float = 0.1,
        hold_out: str = "item",
        patience: int | None = None,
        sampler: str = "ddim",
        steps: int = 20,
        guidance: float = 1.0,
        precision: str = "32",
        device: str = "auto",
        compile: bool = False,
        random_state: int = 0,
    ) -> None:
        self.encoder = encoder
        self.preset = preset
        self.sizes = sizes
        self.pretrained = pretrained
        self.prior = prior
        self.sparse = sparse
        self.shuffle = shuffle
        self.max_epochs = max_epochs
        self.prior_max_epochs = prior_max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.encoder_rate = encoder_rate
        self.validation_fraction = validation_fraction
        self.hold_out = hold_out
        self.patience = patience
        self.sampler = sampler
        self.steps = steps
        self.guidance = guidance
        self.precision = precision
        self.device = device
        self.compile = compile
        self.random_state = random_state

    @property
    def n_latents(self) -> int:  # type: ignore[override]
        """Size of the pooled vector."""
        return self.networks_.brain.encoder.width

    def sizes_of_encoder(self) -> Any:
        """Return the sizes of the encoder: the fitted ones, else those of the parameters."""
        fitted = getattr(self, "sizes_", None)
        return sizes_of(self.encoder, self.preset, self.sizes if fitted is None else fitted)

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        *,
        text: Any = None,
        pretrained: Any = None,
        prompts: Any = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Train on blocks; of data with a coordinate ``part``, on its trials "train" alone.

        Parameters
        ----------
        X : Dataset or DataArray (trial, parcel, time)
            ``signal``, ``mask`` or ``length``; ``item`` or ``stimulus`` on trial. A Dataset may
            bring the targets along: ``target (item, feature)``, ``text_target (item, feature)``.
        y : Dataset, DataArray or array_like, optional
            See `fmri.brain_targets.match_aim`.
        text : optional
            Embeddings of texts, or texts by item with `prompts`.
        pretrained : PretrainedBrain, optional
            In place of the folder.
        prompts : SoftPrompts, optional
            Text tower with soft prompts, see `fmri.brain_prompts`.
        scratch : path, optional
            A killed fit continues from it.
        progress : callable, optional
            As `Context.progress`.

        Raises
        ------
        InputError
            Where a parameter is wrong.
        DataError
            Where blocks or targets can't be used: an item without target or text, NaN.
        ContractError
            Where a pretrained encoder is of other parcels or another kind.
        """
        from fmri.whole_brain_fit import fit_whole_brain, training_trials

        y, text = targets_in(X, y, text)
        self.reading_ = Reading.within(X) if isinstance(X, xr.Dataset) else None
        X = self.as_input(X)
        rows = training_trials(X) if isinstance(X, xr.DataArray) else np.arange(len(X))
        if isinstance(y, np.ndarray | list):
            y = np.asarray(y)[rows] if len(y) == len(X) else y
        X = X.isel(trial=rows) if isinstance(X, xr.DataArray) else X
        self.__dict__.pop("sizes_", None)
        start = self._start(pretrained)
        X = X if start is None else start.align(X)
        self._learn(X if isinstance(X, xr.DataArray) else self._labelled(X, reset=True))
        X = X if isinstance(X, xr.DataArray) else self._labelled(X, reset=False)
        aim = match_aim(X, y, text)
        self.target_ = {**aim.facts, "text": text_size(aim, prompts)}
        if prompts is not None:
            self.target_["prompts"] = prompts.facts()
        self.sizes_ = as_dict(self._start_sizes(start))
        self._learn_categories(X, aim)
        encoder = self._foreign(pretrained) if start is None else start.network_
        scaler = None if start is None else start.standardizer_
        fit_whole_brain(self, X, aim, encoder, scaler, prompts, scratch, progress)
        return self

    # Using --------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Return pooled vectors ``(trial, latent)``."""
        return self.wrap(self._apply(X, None), X)

    def predict(self, X: Any) -> Any:
        """Return embeddings of pictures, of unit length: DataArray (trial, feature) or ndarray.

        Raises
        ------
        ContractError
            Where parcels, repetition time or preprocessing differ from the training's.
        """
        return self._wrapped(_unit(self._apply(X, "image")), X, ("feature",))

    def predict_text(self, X: Any) -> Any:
        """Return embeddings of texts, of unit length: DataArray (trial, feature) or ndarray."""
        check_is_fitted(self, "networks_")
        if "text" not in self.networks_.brain.heads:
            raise InputError("this encoder was fitted without texts; give fit text=")
        return self._wrapped(_unit(self._apply(X, "text")), X, ("feature",))

    def embed_texts(self, texts: Sequence[str], tower: TextTower) -> Floats:
        """Embed texts with the prompts that were learned, for comparison with `predict_text`.

        Parameters
        ----------
        texts : sequence of str
        tower : TextTower
            That of the training.

        Returns
        -------
        ndarray of float32, shape (text, feature)
            Of unit length.
        """
        from fmri.brain_prompts import embed_texts

        check_is_fitted(self, "networks_")
        return _unit(embed_texts(tower, texts, self.networks_.prompts, self.device))

    def embed(self, X: Any) -> Any:
        """Return `predict` as tokens ``(trial, token, feature)``, for `fmri.retrieve`."""
        found = _unit(self._apply(X, "image"))
        return self._wrapped(found.reshape(-1, *self.target_["shape"]), X, ("token", "feature"))

    def predict_category(self, X: Any) -> Any:
        """Return the category whose mean embedding is nearest: DataArray (trial,) or ndarray."""
        check_is_fitted(self, "networks_")
        if not self.categories_:
            raise InputError("no trial of the training named a category")
        alike = _unit(self._apply(X, "image")) @ _unit(self.prototypes_).T
        return self._wrapped(np.array(self.categories_)[alike.argmax(1)], X, ())

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
        """Predict tokens in the space of the targets, for `fmri.reconstruct`.

        Parameters
        ----------
        X : as in `fit`
        prior : bool
            A sample of the prior, or what it is given.
        sampler, steps, guidance, n_samples, random_state : optional
            As `fmri.prior.sample`; by default the estimator's.

        Returns
        -------
        DataArray (trial, token, feature) or ndarray
        """
        from fmri.prior import sample

        check_is_fitted(self, "networks_")
        nets = self.networks_
        if nets.prior is None or nets.tokens is None or nets.scale is None:
            raise InputError("this encoder has no tokens; fit it with prior=True")
        brain, tokens, network, scale = nets.brain, nets.tokens, nets.prior, nets.scale
        blocks = self._blocks(X)
        keys = trial_hashes(blocks.x)
        options = self._sampling(sampler, steps, guidance, n_samples, random_state)

        def function(x: Any, mask: Any, rows: slice) -> Any:
            given = tokens(brain.encoder(x, mask)).unflatten(1, self.target_["shape"])
            if prior is False:
                return scale.inverse(given)
            return scale.inverse(sample(network, given, keys=keys[rows], **options))

        found = apply_in_batches([brain, tokens, network, scale], blocks, self.device, function)
        return self._wrapped(found, X, ("token", "feature"))

    # The encoder contract -----------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(),
            "targets": self.target_,
            "sizes": self.sizes_,
            "categories": self.categories_,
            "history": self.history_,
            "prior_history": self.prior_history_,
            "best_epoch": self.best_epoch_,
            "reading": None if self.reading_ is None else self.reading_.to_dict(),
        }

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all weights, the categories' embeddings and the atlas."""
        arrays = to_arrays(self.networks_.modules()) | {"prototypes": self.prototypes_}
        if self.reading_ is not None and self.reading_.labels is not None:
            arrays["atlas"] = self.reading_.labels
        return arrays if self.pixels_ is None else arrays | self.pixels_.to_arrays()

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        from fmri.linear_decoder import LinearDecoder
        from fmri.whole_brain_fit import new_networks

        self._restore_shape(preprocessing)
        self.target_, self.sizes_ = preprocessing["targets"], preprocessing["sizes"]
        self.categories_ = preprocessing["categories"]
        self.history_, self.best_epoch_ = preprocessing["history"], preprocessing["best_epoch"]
        self.prior_history_ = preprocessing["prior_history"]
        self.prototypes_ = arrays["prototypes"]
        self.networks_ = new_networks(self, self.shape_, self.target_)
        load_arrays(self.networks_.modules(), arrays)
        stored = preprocessing["reading"]
        if stored is not None:
            self.reading_ = Reading.from_parts(stored, arrays.get("atlas"))
        self.pixels_ = LinearDecoder.from_arrays(arrays)

    # Inside -------------------------------------------------------------------------------

    def _apply(self, X: Any, modality: str | None) -> Floats:
        check_is_fitted(self, "networks_")
        brain = self.networks_.brain

        def function(x: Any, mask: Any, _: slice) -> Any:
            pooled = brain.encoder(x, mask)
            return pooled if modality is None else brain.project(pooled, modality)

        return apply_in_batches([brain], self._blocks(X), self.device, function)

    def _wrapped(self, values: NDArray[Any], X: Any, dims: tuple[str, ...]) -> Any:
        X = self.as_input(X)
        if not isinstance(X, xr.DataArray):
            return values
        coords = {k: c for k, c in X.coords.items() if c.dims == ("trial",)}
        attrs = {"encoder": self.name, "random_weights": int(self.target_["random_weights"])}
        if self.target_["fingerprint"] is not None:
            attrs["fingerprint"] = json.dumps(self.target_["fingerprint"])  # for galleries
        return xr.DataArray(values, dims=("trial", *dims), coords=coords, attrs=attrs)

    def _start(self, pretrained: Any) -> Any:
        """Return the pretrained encoder, or None."""
        from fmri.brain_pretraining import PretrainedBrain
        from neuro.encoder import load

        if pretrained is None and self.pretrained is not None and not self._is_file():
            pretrained = load(self.pretrained)
        if pretrained is None:
            return None
        if not isinstance(pretrained, PretrainedBrain):
            raise ContractError(
                f"'{getattr(pretrained, 'name', type(pretrained).__name__)}' is no pretrained "
                "whole-brain encoder; give the folder of a PretrainedBrain"
            )
        if pretrained.encoder != self.encoder:
            raise ContractError(
                f"the pretrained encoder is '{pretrained.encoder}', this one '{self.encoder}'"
            )
        return pretrained

    def _is_file(self) -> bool:
        return Path(str(self.pretrained)).suffix == ".safetensors"

    def _foreign(self, pretrained: Any) -> Any:
        """Return an encoder with the weights of another project, or None."""
        from fmri.brain_weights import load_foreign

        if pretrained is not None or self.pretrained is None:
            return None
        encoder = make_encoder(self.encoder, self.sizes_of_encoder(), self.shape_)
        load_foreign(encoder, self.pretrained)
        return encoder

    def _start_sizes(self, start: Any) -> Any:
        if start is None:
            return sizes_of(self.encoder, self.preset, self.sizes)
        found = sizes_of(start.encoder, start.preset, start.sizes)
        wrong = {k: v for k, v in (self.sizes or {}).items() if getattr(found, k, None) != v}
        if wrong:
            raise ContractError(f"the pretrained encoder has other sizes than {wrong}")
        return found

    def _learn_categories(self, X: xr.DataArray, aim: Aim) -> None:
        """Keep the mean embedding of each category that trials name, or that they aim at."""
        flat = _unit(aim.image.reshape(len(aim.image), -1))
        if aim.facts["kind"] == "categories":
            self.categories_, self.prototypes_ = aim.names.tolist(), flat
            return
        self.categories_, self.prototypes_ = [], np.zeros((0, flat.shape[1]), np.float32)
        if "category" in X.coords and X["category"].dims == ("trial",):
            category = X["category"].values.astype(str)
            names = np.unique(category)
            rows = [np.unique(aim.rows[category == name]) for name in names]
            self.categories_ = names.tolist()
            self.prototypes_ = np.stack([flat[own].mean(0) for own in rows])


def _unit(values: Floats) -> Floats:
    length = np.sqrt(np.square(values).sum(-1, keepdims=True))
    return np.asarray(values / np.maximum(length, 1e-12), np.float32)
