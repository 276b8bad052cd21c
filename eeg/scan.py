"""SCAN for clinical labels: from labels to signals and from signals to labels.

The latents of a frozen beta-VAE are tied to symbols. A symbol's posterior becomes narrow on the
latents that its labels fix and stays as wide as the prior on all others, so that it says which
latents carry a label, and what an event-related potential with that label looks like.

References
----------
Higgins et al., "SCAN: Learning hierarchical compositional visual concepts" (ICLR 2018).
Honke, Higgins et al., "Representation learning for improved interpretability and
classification accuracy of clinical factors from EEG" (2020).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from eeg.beta_vae import BetaVAE
from eeg.concepts import Concepts
from eeg.labels import read_labels
from eeg.pooling import Pooling, average
from eeg.symbols import Bins, Symbols
from neuro.encoder import DecodeOptions as BaseOptions
from neuro.encoder import Encoder
from neuro.errors import ContractError, DataError, InputError
from neuro.fitted_on import FittedOn
from neuro.packing import pack

if TYPE_CHECKING:
    import pandas as pd

    from neuro.nn.scan import Recombinator, SymbolNetwork

Floats = NDArray[np.float32]
Concept = Mapping[str, Any] | xr.Dataset | None
Column = NDArray[np.str_] | None

LEVELS = ("participant", "trial")


class ScanOptions(BaseOptions):
    """What ``neuro decode`` accepts beyond files, for SCAN."""

    level: Literal["participant", "trial"] = "participant"
    """Average a participant's trials before reading labels, or read every trial by itself."""

    rule: Literal["decoder", "kl"] = "decoder"
    """Read labels by the symbol decoder, or by the least KL divergence to a value's posterior."""


class SCAN(Encoder):
    """Symbol-concept association network over a frozen beta-VAE.

    The loss of a pair of a signal x and its symbol y (Higgins et al. 2018, eq. 4) is
    ``-E log p(y | z_y) + beta_y KL(q(z_y|y) || N(0, 1)) + lam KL(q(z_x|x) || q(z_y|y))``. The KL
    is the forward one, which covers all that the signals under a symbol do. The beta-VAE's
    posteriors are computed once. Pairs, not terms of the loss, are weighted so that the values of
    every label are met equally often.

    Where `level` is "participant", x is a participant: the mean of the latents over the
    participant's trials, shrunk by its reliability and brought to the scale of the prior. Where
    the trials are of several conditions, the code also has each latent's difference between them,
    so that a label may act on a difference wave alone (see `eeg.pooling.Pooling`).

    Parameters
    ----------
    encoder : BetaVAE
        Fitted; it is used as it is and never trained. A clone of SCAN shares it.
    beta_y, lam : float
        Weights of the two KL terms; `lam` should be much the larger.
    n_hidden : int
        Width of the symbol encoder and decoder.
    drop : float
        Share of training pairs of which only a random number of labels is shown, so that one
        label alone, and none, are no strangers.
    bins : int or mapping of str to int or sequence of float
        Bins of continuous labels at quantiles of the training participants; by label also their
        inner edges.
    level : {"participant", "trial"}
        What is paired with a symbol.
    within : sequence of str
        Labels that vary inside a participant (a condition); the units are then participant and
        value.
    contrast : str or None
        Coordinate of the trials whose values are contrasted inside participants; None, or a
        name that is in `within`, pools them.
    balance : bool
        Draw pairs so that classes are balanced.
    operators : bool
        Train the recombination operator too.
    operator_target : {"symbol", "signal"}
        Hold the operator's result against the posterior of the symbol it should give, or of a
        signal that has it.
    n_hidden_operator : int
    max_epochs, batch_size, learning_rate
        Of the training with Adam; an epoch draws 4096 pairs, whatever the cohort's size.
    device : str
        The networks are tiny: a CPU is as fast as a GPU.
    random_state : int, RandomState or None
    verbose : bool

    Attributes
    ----------
    encoder_ : BetaVAE
    encoder_hash_ : str
        Of the frozen encoder's parameters, weights and contract.
    symbols_ : Symbols
        Labels, values and bins.
    pooling_ : Pooling
    network_ : SymbolNetwork
    recombinator_ : Recombinator or None
    history_, operator_history_ : list of dict
        Losses per epoch.

    Examples
    --------
    >>> from eeg.simulate import simulate_cohort
    >>> data = simulate_cohort(8, 4, channels=("Fz", "Cz", "Pz"), sfreq=64.0, truth=False)
    >>> encoder = BetaVAE(n_latents=3, beta=1.0, max_epochs=1).fit(data.signal)
    >>> scan = SCAN(encoder, max_epochs=1, operators=False).fit(data, ["depressed", "old"])
    >>> scan.symbols_.names
    ['depressed=no', 'depressed=yes', 'old=no', 'old=yes']
    >>> scan.imagine({"depressed": "yes"}, n=5).signal.sizes["sample"]
    5
    """

    name: ClassVar[str] = "eeg-scan"
    parts: ClassVar[tuple[str, ...]] = ("encoder_",)
    DecodeOptions: ClassVar[type[BaseOptions]] = ScanOptions

    encoder_: BetaVAE
    symbols_: Symbols
    pooling_: Pooling
    network_: SymbolNetwork
    recombinator_: Recombinator | None
    operator_history_: list[dict[str, float]]

    def __init__(
        self,
        encoder: BetaVAE | None = None,
        beta_y: float = 1.0,
        lam: float = 10.0,
        n_hidden: int = 100,
        drop: float = 0.8,
        bins: Bins | Mapping[str, Bins] = 3,
        level: str = "participant",
        within: Sequence[str] = (),
        contrast: str | None = "condition",
        balance: bool = True,
        operators: bool = True,
        operator_target: str = "symbol",
        n_hidden_operator: int = 256,
        max_epochs: int = 40,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.beta_y = beta_y
        self.lam = lam
        self.n_hidden = n_hidden
        self.drop = drop
        self.bins = bins
        self.level = level
        self.within = within
        self.contrast = contrast
        self.balance = balance
        self.operators = operators
        self.operator_target = operator_target
        self.n_hidden_operator = n_hidden_operator
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self) -> SCAN:
        params = self.get_params(deep=False)
        return type(self)(
            **{k: v if k == "encoder" else clone(v, safe=False) for k, v in params.items()}
        )

    @property
    def n_latents(self) -> int:  # type: ignore[override]
        """Size of a trial's code: the encoder's."""
        return self.encoder_.n_latents

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
        """Tie symbols to the latents of trials.

        Parameters
        ----------
        X : as for the encoder
            Trials that match the encoder's contract.
        y : DataFrame, mapping, list of str, path or array-like, optional
            Labels, see `eeg.labels.read_labels`; by default those that X's attributes name.
        subject, session, condition : array-like, shape (trial,), optional
            By default the coordinates of `X`; for the condition the one that `contrast` names.
        scratch : path, optional
            A killed fit continues from it.
        progress : callable, optional
            As `Context.progress`.

        Returns
        -------
        SCAN

        Raises
        ------
        InputError
            Where a parameter is wrong or the labels are not there.
        ContractError
            Where `X` does not match the encoder.
        DataError
            Where a label is missing for all, the same for all, or contradicts itself.
        """
        encoder = self._frozen()
        self._check_parameters()
        self.encoder_ = encoder
        raw = encoder.as_input(X)
        signal = encoder.align(raw, drop_extra=False)
        who = _column(signal, "subject", subject), _column(signal, "session", session)
        mean, variance = (np.asarray(a) for a in encoder.transform(signal, return_variance=True))
        table = read_labels(y, raw, who[0], len(mean))
        own = FittedOn.of(np.ascontiguousarray(signal.values, np.float32), *who)
        what = self._conditions(signal, condition)
        self._learn(mean, variance, table, (who[0], what), own, scratch, progress)
        return self

    def remap(self, y: Any, X: Any = None, **params: Any) -> SCAN:
        """Tie the same latents to other labels; the encoder is not touched.

        Parameters
        ----------
        y : as in `fit`
        X : as in `fit`, optional
            By default the trials of this SCAN's own fit (not after loading, as an encoder's
            folder holds no recordings).
        **params
            Parameters that are to differ; `within`, and `bins` by label, speak of the old labels
            and are not carried over.

        Returns
        -------
        SCAN
            A new one; its `encoder_hash_` is this one's.
        """
        check_is_fitted(self, "symbols_")
        own: dict[str, Any] = {"within": ()} | ({"bins": 3} if isinstance(self.bins, dict) else {})
        other = clone(self).set_params(encoder=self.encoder_, **{**own, **params})
        if X is not None:
            return other.fit(X, y)
        if not hasattr(self, "codes_"):
            raise InputError("a loaded SCAN has no trials to learn new labels from; pass X")
        other._check_parameters()
        other.encoder_ = other._frozen()
        mean, variance, (subject, condition), raw = self.codes_
        table = read_labels(y, raw, subject, len(mean))
        other._learn(mean, variance, table, (subject, condition), self._own, None, None)
        return other

    def _learn(
        self, mean: Floats, variance: Floats, table: pd.DataFrame,
        columns: tuple[Column, Column], own: FittedOn, scratch: Any, progress: Any,
    ) -> None:  # fmt: skip
        """Fit to posteriors of trials; everything but the encoder."""
        from eeg.tying import tie

        self._take_contract(own)
        subject, condition = columns
        self.codes_ = mean, variance, columns, _coordinates(table, subject)
        condition = None if self.contrast in self.within else condition
        progress = progress or (_bar if self.verbose else None)
        found, self.history_, self.operator_history_ = tie(
            self, mean, variance, table, subject, condition, scratch, progress
        )
        self._take(found)

    def _take(self, found: Concepts) -> None:
        self._concepts = found
        self.symbols_, self.pooling_ = found.symbols, found.pooling
        self.network_, self.recombinator_ = found.network, found.recombinator

    def _conditions(self, X: Any, given: ArrayLike | None) -> Column:
        return None if self.contrast is None else _column(X, self.contrast, given)

    def _frozen(self) -> BetaVAE:
        if not isinstance(self.encoder, BetaVAE):
            raise InputError(
                f"encoder is {type(self.encoder).__name__}; expected a fitted BetaVAE "
                "(neuro.load(folder), or BetaVAE(...).fit(X))"
            )
        if not hasattr(self.encoder, "network_"):
            raise InputError("the encoder is not fitted; SCAN ties labels to a trained beta-VAE")
        return self.encoder

    def _take_contract(self, own: FittedOn) -> None:
        encoder = self.encoder_
        self.contract_, self.n_features_in_ = encoder.contract_, encoder.n_features_in_
        self._own = own
        # What the encoder was trained on is known to SCAN as well as its own trials.
        both = {
            name: sorted({*getattr(encoder.fitted_on_, name), *getattr(own, name)})
            for name in ("subjects", "sessions", "trials")
        }
        self.fitted_on_ = FittedOn(**both)
        self.encoder_hash_ = encoder_hash(encoder)

    def _check_parameters(self) -> None:
        choices = {"level": LEVELS, "operator_target": ("symbol", "signal")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )
        least = {
            "beta_y": 0.0, "lam": 0.0, "n_hidden": 1, "drop": 0.0, "n_hidden_operator": 1,
            "max_epochs": 0, "batch_size": 1, "learning_rate": 0.0,
        }  # fmt: skip
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected at least {low}")
        if self.drop > 1:
            raise InputError(f"drop is {self.drop!r}; expected a share, at most 1")

    # Signal to label ----------------------------------------------------------------------

    def transform(self, X: Any, return_variance: bool = False) -> Any:
        """Return the encoder's posterior means; see `BetaVAE.transform`."""
        check_is_fitted(self, "symbols_")
        X = self.as_input(X)
        mean, variance = self.encoder_.transform(X, return_variance=True)
        pair = tuple(self.wrap(np.asarray(a), X) for a in (mean, variance))
        return pair if return_variance else pair[0]

    def inverse_transform(self, Z: Any) -> Any:
        """Decode codes into signals in uV; see `BetaVAE.inverse_transform`."""
        check_is_fitted(self, "symbols_")
        return self.encoder_.inverse_transform(Z)

    def denoise(self, X: Any) -> Any:
        """Encode and decode; see `BetaVAE.denoise`."""
        check_is_fitted(self, "symbols_")
        return self.encoder_.denoise(X)

    def predict_proba(
        self,
        X: Any,
        *,
        level: str = "trial",
        rule: str = "decoder",
        subject: ArrayLike | None = None,
        condition: ArrayLike | None = None,
    ) -> Any:
        """Return the probability of every symbol.

        Parameters
        ----------
        X : as in `fit`
        level : {"trial", "participant"}
            Read every trial by itself, or average the latents of a participant's trials first.
        rule : {"decoder", "kl"}
            The symbol decoder at the posterior mean: the Bernoulli probabilities of a label's
            symbols, divided by their sum, so that they add up to 1 inside a label. Or by
            ``KL(q(z_x|x) || q(z_y|y))`` for each value y of a label alone: ``softmax(-KL)``.
        subject : array-like, shape (trial,), optional
            By default the coordinate of `X`; for ``level="participant"``.
        condition : array-like, shape (trial,), optional
            As in `fit`. Trials whose condition isn't known count for the level alone.

        Returns
        -------
        DataArray or ndarray, shape (trial, symbol) or (participant, symbol)
            An ndarray where `X` is one and `level` is "trial".
        """
        check_is_fitted(self, "symbols_")
        _choice("level", level, LEVELS)
        X = self.as_input(X)
        what = self._conditions(X, condition)
        mean, variance = (np.asarray(a) for a in self.encoder_.transform(X, return_variance=True))
        if level == "trial":
            values = self.read_codes(mean, variance, rule=rule, condition=what)
            return self._on_trials(values, X) if isinstance(X, xr.DataArray) else values
        who = _column(X, "subject", subject)
        if who is None:
            raise DataError("level='participant' needs to know whose the trials are: pass subject=")
        names, unit = np.unique(who, return_inverse=True)
        values = self.read_codes(mean, variance, unit=unit, rule=rule, condition=what)
        coords = {"participant": names, "symbol": self.symbols_.names}
        return xr.DataArray(values, dims=("participant", "symbol"), coords=coords)

    def predict(self, X: Any, **how: Any) -> Any:
        """Return the likeliest value of every label.

        Parameters
        ----------
        X, **how
            As for `predict_proba`.

        Returns
        -------
        DataArray or ndarray of str, shape (trial, label) or (participant, label)
        """
        found = self.predict_proba(X, **how)
        values = np.asarray(found)
        names = np.stack(
            [
                np.array(group.values)[values[:, self.symbols_.slices[group.label]].argmax(1)]
                for group in self.symbols_.groups
            ],
            axis=1,
        )
        if not isinstance(found, xr.DataArray):
            return names
        first = found.dims[0]
        coords = {k: c for k, c in found.coords.items() if c.dims == (first,)}
        coords["label"] = self.symbols_.labels
        return xr.DataArray(names, dims=(first, "label"), coords=coords)

    def read_codes(
        self,
        mean: ArrayLike,
        variance: ArrayLike,
        *,
        unit: ArrayLike | None = None,
        rule: str = "decoder",
        condition: ArrayLike | None = None,
    ) -> Floats:
        """Read symbols from posteriors that are known already.

        Parameters
        ----------
        mean, variance : array-like, shape (trial, latent)
            Of the encoder.
        unit : array-like of int, shape (trial,), optional
            Number of each trial's participant, from 0 without gaps; every trial by default.
        rule : {"decoder", "kl"}
        condition : array-like of str, shape (trial,), optional
            Not looked at where SCAN has no differences between conditions.

        Returns
        -------
        ndarray, shape (unit, symbol)
            Probabilities that add up to 1 inside each label.
        """
        mean, variance = np.asarray(mean), np.asarray(variance)
        numbers = np.arange(len(mean)) if unit is None else np.asarray(unit)
        return self._concepts.read(mean, variance, numbers, rule, condition)

    def _on_trials(self, values: Floats, X: xr.DataArray) -> xr.DataArray:
        coords = {k: c for k, c in X.coords.items() if c.dims == ("trial",)}
        coords["symbol"] = ("symbol", self.symbols_.names)
        return xr.DataArray(values, dims=("trial", "symbol"), coords=coords)

    # Label to signal ----------------------------------------------------------------------

    def imagine(
        self, labels: Concept = None, n: int = 16, random_state: int | None = 0
    ) -> xr.Dataset:
        """Decode signals that a set of labels describes.

        Parameters
        ----------
        labels : mapping of str to value, or Dataset, optional
            ``{"depressed": "yes", "age": 35}``, or what `combine` returned. None: no label.
        n : int
            Samples; they vary in what the labels leave open.
        random_state : int, optional

        Returns
        -------
        Dataset
            ``mean``, ``variance`` (code): the posterior, on the scale of the prior; ``erp``
            (channel, time), decoded from the posterior's mean, in uV; ``difference`` (channel,
            time): from the ERP without any label; ``codes`` (sample, latent) as the encoder has
            them and ``signal`` (sample, channel, time): the samples. Where conditions are
            contrasted, all but the posterior have the dimension ``condition`` before latents or
            channels.

        Raises
        ------
        InputError
            Where a label or value was never seen.
        """
        check_is_fitted(self, "symbols_")
        concept = self.concept(labels)
        mean, variance = concept["mean"].values, concept["variance"].values
        rng = np.random.default_rng(random_state)
        drawn = mean + rng.standard_normal((n, len(mean))) * np.sqrt(variance)
        codes = self.pooling_.to_latents(drawn)
        dims = ("sample", *("condition",)[: codes.ndim - 2], "latent")
        decoded = self._decoded(codes, "sample")
        return concept.assign(codes=(dims, codes), signal=decoded)

    def concept(self, labels: Concept = None) -> xr.Dataset:
        """Return the posterior of a set of labels and its decoded ERP, see `imagine`."""
        check_is_fitted(self, "symbols_")
        if isinstance(labels, xr.Dataset):
            return labels
        codes = self.symbols_.ask(labels or {})
        mean, log_variance = self._concepts.posterior(codes[None])
        return self._concept(mean[0], log_variance[0])

    def combine(self, first: Concept, operator: str, second: Concept) -> xr.Dataset:
        """Recombine two concepts by the trained operator.

        Parameters
        ----------
        first, second : mapping of str to value, or Dataset
            Labels, or what `combine` returned.
        operator : {"and", "in common", "ignore"}

        Returns
        -------
        Dataset
            As `concept`: ``mean``, ``variance``, ``erp`` and ``difference``.
        """
        check_is_fitted(self, "symbols_")
        from eeg.recombine import operator_number, recombine, refuse_contradiction

        number = operator_number(operator)
        if self.recombinator_ is None:
            raise InputError("this SCAN was fitted with operators=False; fit it with True")
        asked = [
            self.symbols_.ask(c or {}) for c in (first, second) if not isinstance(c, xr.Dataset)
        ]
        if number == 0 and len(asked) == 2:
            refuse_contradiction(asked[0], asked[1], self.symbols_)
        one, two = (
            (c["mean"].values, np.log(c["variance"].values))
            for c in (self.concept(first), self.concept(second))
        )
        return self._concept(*recombine(self.recombinator_, number, one, two))

    def _concept(self, mean: Floats, log_variance: Floats) -> xr.Dataset:
        nothing = self._concepts.posterior(self.symbols_.ask({})[None])[0]
        codes = self.pooling_.to_latents(np.concatenate([mean[None], nothing]))
        erp, plain = self._decoded(codes, "trial")
        values = {
            "mean": ("code", mean),
            "variance": ("code", np.exp(log_variance)),
            "erp": erp,
            "difference": (erp - plain).assign_attrs(erp.attrs),
        }
        return xr.Dataset(values)

    def _decoded(self, codes: Floats, dim: str) -> xr.DataArray:
        """Decode codes (dim, latent) or (dim, condition, latent), in uV."""
        Z = xr.DataArray(codes.reshape(-1, codes.shape[-1]), dims=("trial", "latent"))
        found = self.encoder_.inverse_transform(Z)
        if codes.ndim == 2:
            return found.rename({} if dim == "trial" else {"trial": dim})
        parts = [found[k :: codes.shape[1]].rename(trial=dim) for k in range(codes.shape[1])]
        names = xr.DataArray(list(self.pooling_.conditions), dims="condition", name="condition")
        together = xr.concat(parts, names).transpose(dim, "condition", ...)
        return together.assign_attrs(found.attrs)

    # What a latent says -------------------------------------------------------------------

    def interpret(self) -> xr.Dataset:
        """Say which latents carry which label.

        Returns
        -------
        Dataset
            ``mean``, ``variance`` (symbol, latent): posteriors of every symbol alone, on the
            scale of the prior. The coordinate ``part`` says whether an entry of ``latent`` is the
            latent's level or its difference between conditions. ``specificity`` (symbol, latent):
            ``KL(q(z_y|y) || N(0, 1))`` in nats, 0 where the symbol leaves a latent open.
            ``distance`` (label, latent):
            ``|mu(a) - mu(b)| / sqrt((s^2(a) + s^2(b)) / 2)``, the largest over the label's pairs
            of values. ``latent_of`` (label): the latent of the largest distance among those that
            the encoder keeps (KL above 0.01), and ``best`` its place along ``latent``. ``kept``
            (latent).
        """
        check_is_fitted(self, "symbols_")
        return self._concepts.interpret(np.asarray(self.encoder_.kept_))

    # The encoder contract -----------------------------------------------------------------

    def as_input(self, X: Any) -> Any:
        """Turn a path, `mne.Epochs` or a Dataset into a DataArray in uV."""
        return self.encoder_.as_input(X)

    def read_recording(self, path: str | Path, *, align: bool = False) -> xr.Dataset | xr.DataArray:
        """Read a recording, sent through the preprocessing of the encoder's training data."""
        return self.encoder_.read_recording(path, align=align)

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode one recording.

        Parameters
        ----------
        path : path
        options : ScanOptions, optional

        Returns
        -------
        Dataset
            Beside ``codes``: ``denoised`` (trial, channel, time) in uV and ``probability``
            (trial, symbol). At the level "participant" a trial bears the probabilities of its
            participant, and ``erp`` (participant, channel, time) is decoded from the mean code,
            where conditions are contrasted from that of each: (participant, condition, ...).
            A recording that doesn't name its subjects is taken to be of one.
        """
        options = options or ScanOptions()
        X = self.align(self.read_recording(path, align=options.align), drop_extra=options.align)
        seen = self.seen(X)
        mean, variance = (np.asarray(a) for a in self.encoder_.transform(X, return_variance=True))
        who = _column(X, "subject", None)
        names, unit = np.unique(
            np.full(len(mean), Path(path).name) if who is None else who, return_inverse=True
        )
        one = options.level == "participant"
        what = self._conditions(X, None)
        values = self.read_codes(
            mean, variance, unit=unit if one else None, rule=options.rule, condition=what
        )
        found = {
            "codes": self.wrap(mean, X),
            "probability": self._on_trials(values[unit] if one else values, X),
            "denoised": self._decoded(mean, "trial"),
        }
        if one:
            found["erp"] = self._mean_erp(mean, variance, unit, what).assign_coords(
                participant=names
            )
        attrs = {"kind": "codes", "encoder": self.name, "source": Path(path).name}
        return (
            xr.Dataset(found)
            .assign_coords(seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects))
            .assign_attrs(attrs, level=options.level, rule=options.rule)
        )

    def _mean_erp(
        self, mean: Floats, variance: Floats, unit: NDArray[np.intp], condition: Column
    ) -> xr.DataArray:
        """Decode the mean code of every participant, or of each of its conditions."""
        names = self.pooling_.conditions
        if not names or condition is None:
            codes = average(mean, variance, unit)[0]
        else:
            cell = unit * len(names) + np.searchsorted(names, condition)
            codes, _, n = average(mean, variance, cell, (unit.max() + 1) * len(names))
            codes = codes.reshape(-1, len(names), mean.shape[1])
        erp = self._decoded(codes.astype(np.float32), "participant")
        # A condition that a participant has no trials of has no ERP.
        return erp if codes.ndim == 2 else erp.where(n.reshape(-1, len(names))[..., None, None] > 0)

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights of the symbol networks and the scale of the codes."""
        return self._concepts.to_arrays()

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        self.encoder = self.encoder_
        self.encoder_hash_ = preprocessing["encoder_hash"]
        if encoder_hash(self.encoder_) != self.encoder_hash_:
            raise ContractError("the beta-VAE in this folder is not the one SCAN was fitted on")
        self.history_ = preprocessing["history"]
        self.operator_history_ = preprocessing["operator_history"]
        self._take(
            Concepts.from_arrays(
                arrays,
                Symbols.from_dict(preprocessing["symbols"]),
                preprocessing.get("conditions", ()),
                n_hidden=self.n_hidden,
                n_hidden_operator=self.n_hidden_operator if self.operators else None,
            )
        )

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(),
            "encoder_hash": self.encoder_hash_,
            "symbols": self.symbols_.to_dict(),
            "conditions": list(self.pooling_.conditions),
            "history": self.history_,
            "operator_history": self.operator_history_,
        }


def encoder_hash(encoder: Encoder) -> str:
    """Hash an encoder's parameters, weights and contract: equal for equal encoders anywhere."""
    config, arrays, preprocessing = pack(encoder)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([config, preprocessing], sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _column(X: Any, name: str, given: ArrayLike | None) -> Column:
    if given is None and isinstance(X, xr.DataArray) and name in X.coords:
        given = X[name].values if X[name].dims == ("trial",) else None
    if given is None:
        return None
    column = np.asarray(given).astype(str)
    if column.shape != (len(X),):
        raise DataError(
            f"'{name}' has the shape {column.shape}, expected one value for each of {len(X)} trials"
        )
    return column


def _coordinates(table: pd.DataFrame, subject: NDArray[np.str_] | None) -> xr.DataArray:
    """Keep labels where `read_labels` finds them by name, without any signal."""
    coords: dict[str, Any] = {name: ("trial", table[name].to_numpy()) for name in table.columns}
    if subject is not None:
        coords["subject"] = ("trial", subject)
    return xr.DataArray(np.zeros(len(table)), dims="trial", coords=coords)


def _choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}")


def _bar(items: Any, label: str, total: int | None = None) -> Iterator[Any]:
    from rich.progress import track

    return iter(track(items, label, total=total))
