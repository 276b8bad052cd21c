"""DTS: disentangled time series, with a segment for the class and one for the domain.

References
----------
Li, Chen, Zha, Du, Ni, Zhang, Chen and Hu, "Towards learning disentangled representations for time
series" (KDD 2022; arXiv 2105.08179).

Notes
-----
No code of the authors is public, and the full text was not at hand; equations are those that a
public re-implementation restates. What deviates:

- Eq. 7 (individual factors) collapses as restated, see `neuro.nn.vae_family`; the loss here is
  ``reconstruction + (1 - a) MI + b TC + c DWKL``, with the reward for MI capped.
- Eq. 8 (group segments) adds ``beta KL(q(z)||p)`` to be maximised, without a bound for beta > 1;
  here segments share the penalty above and are held apart by the four heads alone: the class from
  g_y, the domain from g_d, and through gradient reversal the domain from g_y, the class from g_d.
- The default network is convolutional; the paper's is ``network="lstm"``.
- ``standardise="domain"`` is ours: an offset or gain of a person's sensor goes before training, and
  the crossed heads are left what a mean and a standard deviation can't take away.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuro.data import Standardizer
from neuro.errors import DataError, InputError
from neuro.validation import is_missing
from timeseries.domain_scaler import DomainScaler
from timeseries.latent_model import Floats, LatentModel, Progress

if TYPE_CHECKING:
    from timeseries.dts_objective import DTSObjective

SEGMENTS = ("g_y", "g_d")


class DTS(LatentModel):
    """Codes of series in two segments: g_y tells the class and not the domain, g_d the reverse.

    Labelled series of a source domain and unlabelled ones of a target domain are trained on
    together; `predict` then classifies series of either.

    Parameters
    ----------
    n_label_latents, n_domain_latents : int
        Sizes of g_y and g_d.
    network : {"conv", "fcn", "tcn", "lstm", "gru", "mlp"}
    n_hidden : int
    encoders : {"separate", "shared"}
        Whether each segment has an encoder of its own.
    alpha : float
        Reward of mutual information: a of ``(1 - a) MI``.
    beta : float
        Weight of TC and DWKL: b and c.
    label_weight, domain_weight, adversarial_weight : float
        Of the heads, in nats per series, beside a reconstruction that is summed over a series.
    adversarial_start, adversarial_length : float
        Shares of training after which gradient reversal begins, and over which it rises.
    standardise : {"all", "domain"}
        Whether channels are standardised by all series, or by those of the same domain. In use,
        series are standardised by their domain where it is known; see `DomainScaler`.
    domain_name : str
        Coordinate of `X` that tells the domain, where it is not passed.
    estimator : {"mss", "mws"}
        Of the aggregate posterior.
    sigma : float
        Width of the Gaussian likelihood, in standard deviations of the series.
    max_epochs, batch_size : int
    learning_rate : float
    clip_norm : float, optional
    device : str
    random_state : int, RandomState or None

    Attributes
    ----------
    classes_, domains_ : ndarray of str
        As seen in training.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 2, 32)).astype("float32")
    >>> y = ["walk", "sit"] * 10 + [""] * 20  # the target is not labelled
    >>> dts = DTS(n_label_latents=3, n_domain_latents=2, max_epochs=1, random_state=0)
    >>> _ = dts.fit(X, y, domain=["ann"] * 20 + ["bob"] * 20)
    >>> dts.transform(X).shape, dts.segment(X, "g_d").shape, dts.predict(X[:1])[0] in y
    ((40, 5), (40, 2), True)
    """

    name: ClassVar[str] = "ts-dts"

    def __init__(
        self,
        n_label_latents: int = 12,
        n_domain_latents: int = 4,
        network: str = "fcn",
        n_hidden: int = 128,
        encoders: str = "separate",
        alpha: float = 1.5,
        beta: float = 2.0,
        label_weight: float = 100.0,
        domain_weight: float = 50.0,
        adversarial_weight: float = 20.0,
        adversarial_start: float = 0.1,
        adversarial_length: float = 0.4,
        standardise: str = "all",
        domain_name: str = "domain",
        estimator: str = "mss",
        sigma: float = 1.0,
        max_epochs: int = 60,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        clip_norm: float | None = 5.0,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.n_label_latents = n_label_latents
        self.n_domain_latents = n_domain_latents
        self.network = network
        self.n_hidden = n_hidden
        self.encoders = encoders
        self.alpha = alpha
        self.beta = beta
        self.label_weight = label_weight
        self.domain_weight = domain_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self.adversarial_length = adversarial_length
        self.standardise = standardise
        self.domain_name = domain_name
        self.estimator = estimator
        self.sigma = sigma
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
        self.device = device
        self.random_state = random_state

    # Fitting ------------------------------------------------------------------------------

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        domain: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        subject: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Train on labelled and unlabelled series of several domains.

        Parameters
        ----------
        X : DataArray (trial, channel, time) or ndarray
        y : array-like, shape (trial,), optional
            Classes; "", None or NaN is unlabelled. By default the coordinate ``label``.
        domain : array-like, shape (trial,), optional
            By default the coordinate `domain_name`.
        mask : array-like of bool, shape (trial, time), optional
            True on real samples; by default the coordinate ``mask``, or all.
        subject : array-like, optional
        scratch : path, optional
            Checkpoints go here; a killed fit continues from it.
        progress : callable, optional

        Returns
        -------
        DTS

        Raises
        ------
        InputError
            Where a parameter is wrong, or classes or domains are not given.
        DataError
            Where fewer than two classes or domains are known, or the data holds NaN.
        """
        self._check_parameters()
        X = self.as_input(X)
        self.classes_, labels = _numbers(_given(X, y, "label"), len(X), "classes")
        where = _given(X, domain, self.domain_name)
        self.domains_, places = _numbers(where, len(X), "domains")
        extra = {"y": labels, "domain": places}
        self._fit_series(X, mask, extra, subject, scratch, progress)
        return self

    def _check_parameters(self) -> None:
        from neuro.nn.sequences import KINDS

        choices = {
            "network": KINDS, "estimator": ("mss", "mws"), "standardise": ("all", "domain"),
            "encoders": ("separate", "shared"),
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )
        self._check_least(
            n_label_latents=1, n_domain_latents=1, alpha=0, beta=0, label_weight=0,
            domain_weight=0, adversarial_weight=0, max_epochs=0, batch_size=2,
        )  # fmt: skip

    def _fit_scaled(
        self, values: Floats, real: NDArray[np.bool_] | None, extra: dict[str, NDArray[Any]]
    ) -> Floats:
        scaled = super()._fit_scaled(values, real, extra)
        if self.standardise == "all":
            return scaled
        domain = np.where(extra["domain"] < 0, "", self.domains_[extra["domain"]])
        self.scaler_ = DomainScaler.fit(values, domain, real)
        return self.scaler_.transform(values, domain, real)

    def _scaled(self, values: Floats, real: NDArray[np.bool_] | None, X: Any) -> Floats:
        if self.standardise == "all":
            return super()._scaled(values, real, X)
        domain = X[self.domain_name].values if self.domain_name in X.coords else None
        return self.scaler_.transform(values, domain, real)

    def _objective(self) -> DTSObjective:
        from neuro.nn.sequences import SequenceVAE
        from neuro.nn.vae_family import Penalty
        from timeseries.dts_objective import DTSObjective, Heads

        n_channels, n_times = self.contract_.shape
        sizes = (self.n_label_latents, self.n_domain_latents)
        network = SequenceVAE(
            self.network, n_channels, n_times, self._n_features_out, self.n_hidden,
            segments=sizes if self.encoders == "separate" else (),
        )  # fmt: skip
        heads = Heads(
            self.label_weight, self.domain_weight, self.adversarial_weight,
            self.adversarial_start, self.adversarial_length,
        )  # fmt: skip
        estimator: Any = self.estimator
        return DTSObjective(
            network, Penalty(self.alpha, self.beta, self.beta, estimator),
            n_label_latents=self.n_label_latents, n_classes=len(self.classes_),
            n_domains=len(self.domains_), heads=heads, n_samples=self.n_train_, sigma=self.sigma,
            learning_rate=self.learning_rate, clip_norm=self.clip_norm,
        )  # fmt: skip

    # Using --------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return self.n_label_latents + self.n_domain_latents

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the latents: g_y0, g_y1, ..., g_d0, ..."""
        sizes = (self.n_label_latents, self.n_domain_latents)
        names = [f"{s}{i}" for s, n in zip(SEGMENTS, sizes, strict=True) for i in range(n)]
        return np.array(names, dtype=object)

    def transform(
        self, X: Any, mask: ArrayLike | None = None, domain: ArrayLike | None = None
    ) -> Any:
        """Return all latents, their posterior means.

        Parameters
        ----------
        X : DataArray (trial, channel, time), ndarray or path
        mask : array-like of bool, shape (trial, time), optional
        domain : array-like, shape (trial,), optional
            By default the coordinate `domain_name`, if there; only ``standardise="domain"`` asks.

        Returns
        -------
        DataArray or ndarray, shape (trial, latent)
            g_y before g_d.
        """
        codes = self.wrap(self.posterior(X, mask, domain)[0], X)
        if isinstance(codes, xr.DataArray):
            codes = codes.assign_coords(latent=self.get_feature_names_out().astype(str))
        return codes

    def posterior(
        self, X: Any, mask: ArrayLike | None = None, domain: ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return means and variances of the posteriors, ``(trial, latent)`` each."""
        if domain is not None:
            X = self.align(X, drop_extra=False)
            X = X.assign_coords({self.domain_name: ("trial", np.asarray(domain))})
        return super().posterior(X, mask)

    def latents_of(self, segment: str) -> NDArray[np.intp]:
        """Return the positions of a segment's latents."""
        if segment not in SEGMENTS:
            raise InputError(f"segment '{segment}' is none of {', '.join(SEGMENTS)}")
        at = np.arange(self._n_features_out)
        return at[: self.n_label_latents] if segment == "g_y" else at[self.n_label_latents :]

    def segment(
        self,
        X: Any,
        segment: str,
        mask: ArrayLike | None = None,
        domain: ArrayLike | None = None,
    ) -> Any:
        """Return the latents of one segment, ``"g_y"`` or ``"g_d"``: ``(trial, latent)``."""
        return self.transform(X, mask, domain)[:, self.latents_of(segment)]

    def predict_proba(
        self, X: Any, mask: ArrayLike | None = None, domain: ArrayLike | None = None
    ) -> Floats:
        """Return the probabilities of the classes, from g_y: ``(trial, class)``."""
        g_y = self.posterior(X, mask, domain)[0][:, self.latents_of("g_y")]
        return self._batched(lambda z: self.objective_.label_head(z).softmax(1), g_y)

    def predict(
        self, X: Any, mask: ArrayLike | None = None, domain: ArrayLike | None = None
    ) -> NDArray[np.str_]:
        """Return the class of each series, from g_y; parameters as of `transform`."""
        return np.asarray(self.classes_[self.predict_proba(X, mask, domain).argmax(1)])

    def inverse_transform(self, codes: Any, domain: ArrayLike | None = None) -> Floats:
        """Return the series that codes stand for.

        Parameters
        ----------
        codes : array-like, shape (trial, latent)
        domain : array-like, shape (trial,), optional
            With ``standardise="domain"``, whose units to return; those of all training series
            where it is not known. By default the coordinate `domain_name` of `codes`, if there.

        Returns
        -------
        ndarray of float32, shape (trial, channel, time)
        """
        signal = super().inverse_transform(codes)
        if self.standardise == "all":
            return signal
        if domain is None and self.domain_name in getattr(codes, "coords", ()):
            domain = codes[self.domain_name].values
        return self.scaler_.inverse(self.standardizer_.transform(signal), domain)

    def traverse(
        self, X: Any, segment: str | int, values: ArrayLike = (-2.0, -1.0, 0.0, 1.0, 2.0)
    ) -> Floats:
        """Decode the mean code of `X` with one latent moved, or a segment along its main axis.

        Parameters
        ----------
        X : as in `transform`
        segment : {"g_y", "g_d"} or int
            The segment, or the position of one latent.
        values : array-like of float
            Of the latent; of a segment in standard deviations along its first principal axis.

        Returns
        -------
        ndarray of float32, shape (value, channel, time)
        """
        if isinstance(segment, int | np.integer):
            return super().traverse(X, int(segment), values)
        at = self.latents_of(segment)
        codes = self.posterior(X)[0]
        centre = codes.mean(0)
        _, scale, axes = np.linalg.svd(codes[:, at] - centre[at], full_matrices=False)
        points = np.asarray(values, np.float32)
        moved = np.repeat(centre[None], len(points), axis=0)
        step = scale[0] / np.sqrt(max(len(codes) - 1, 1))
        moved[:, at] += points[:, None] * step * axes[0]
        return self.inverse_transform(moved)

    # The encoder contract -----------------------------------------------------------------

    def _restore(self, preprocessing: dict[str, Any]) -> None:
        super()._restore(preprocessing)
        self.classes_ = np.array(preprocessing["classes"], str)
        self.domains_ = np.array(preprocessing["domains"], str)
        if self.standardise == "domain":
            pooled = Standardizer.from_dict(preprocessing["standardisation"])
            self.scaler_ = DomainScaler.from_dict(pooled, preprocessing["domain_standardisation"])

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        own = (
            {"domain_standardisation": self.scaler_.to_dict()}
            if self.standardise == "domain"
            else {}
        )
        return {
            **super().contract(), **own, "classes": self.classes_.tolist(),
            "domains": self.domains_.tolist(),
        }  # fmt: skip


def _given(X: Any, values: ArrayLike | None, coord: str) -> ArrayLike:
    if values is not None:
        return values
    if isinstance(X, xr.DataArray) and coord in X.coords:
        return np.asarray(X[coord].values)
    where = "y" if coord == "label" else coord
    raise InputError(f"the {coord}s are not known: pass {where}, or a coordinate '{coord}'")


def _numbers(labels: ArrayLike, n: int, what: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the known names and, for each series, the number of its own; -1 where missing."""
    given = np.asarray(labels)
    if given.shape != (n,):
        raise InputError(f"the {what} have the shape {given.shape}; expected one for {n} series")
    known = ~is_missing(given)
    names, inverse = np.unique(given[known].astype(str), return_inverse=True)
    if len(names) < 2:
        raise DataError(f"the known {what} are {names.tolist()}; expected two or more")
    numbers = np.full(n, -1, np.int64)
    numbers[known] = inverse
    return names, numbers
