"""DR-RFF: fingerprints of radio devices, disentangled from the channel.

References
----------
Xie, Xu, Yu, Hu, Ng, Swindlehurst, "Disentangled Representation Learning for RF Fingerprint
Extraction under Unknown Channel Statistics" (IEEE Trans. Commun. 2023).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from neuro.encoder import DecodeOptions, Encoder
from neuro.errors import ContractError, DataError, InputError

if TYPE_CHECKING:
    from timeseries.rf.objective import DRRFF as Objective

Floats = NDArray[np.float32]

PRESETS: dict[str, dict[str, float]] = {
    "small": {
        "n_latents": 64, "width": 4, "unet_width": 4, "n_skips": 0, "max_epochs": 20,
        "batch_size": 128, "alpha": 1.0, "beta": 0.1, "qg_learning_rate": 4e-3, "residual": True,
        "carrier": True,
    },
    "paper": {
        "n_latents": 512, "width": 18, "unet_width": 64, "n_skips": 4, "max_epochs": 50,
        "batch_size": 256, "alpha": 10.0, "beta": 10.0, "qg_learning_rate": 1e-3,
        "residual": False, "carrier": False,
    },
}  # fmt: skip
"""Sizes, training and weights: of the paper (for a GPU), and ours for a CPU.

The small G adds its output to its input, and Q and G leave the carrier to a formula: in a few
hundred steps small U-Nets learn neither to pass a signal through nor to turn it. The small Q has no
skip connections, so that a fresh classifier finds no device in its backgrounds; that is meant for
bursts of the same content (a preamble): for other content set ``n_skips`` to 4."""

_BATCH = 256


class RFDecodeOptions(DecodeOptions):
    """What ``neuro decode`` takes for captures."""

    enrolled: Path | None = None
    """Dataset of enrolled devices (of rf-enrol): each burst gets a verdict."""
    sfreq: float | None = Field(None, gt=0)
    """Sampling rate in Hz, where the file doesn't tell it."""
    datatype: str | None = None
    """SigMF's name of the type of raw samples (cf32_le, ci16_le, cu8, ...)."""
    resample: bool = False
    """Resample captures of another rate, instead of refusing them."""


class DRRFF(Encoder):
    """Fingerprint of the device that sent a burst, held apart from the burst's background.

    Bursts go in at unit power. F extracts the fingerprint; while it is trained, Q learns the
    background of a burst, itself a signal in which F finds no device, and G makes signals from
    both. Signals with the fingerprint of one burst and the background of another must still be
    of the first one's device.

    Parameters
    ----------
    preset : {"small", "paper"}
        Sizes and length of training, where the parameters below are None.
    disentangle : bool
        False trains F alone (ML-RFF, the maximum-likelihood extractor).
    augmentation : {"none", "awgn", "fir", "awgn_fir"}
        Of the training bursts, see `timeseries.rf.augment`.
    lam, alpha, epsilon, beta : float
        Weights of the paper, see `timeseries.rf.objective.Weights`; alpha and beta are the preset's
        where they are None.
    n_skips : int, optional
        Skip connections of Q, 0 to 4; the preset's where None.
    carrier : bool, optional
        Ours: Q takes the carrier off, G puts on that of the fingerprint, see
        `timeseries.rf.objective.DRRFF`; the preset's where None.
    cross, fresh : float
        Ours: weights of the fingerprint that a signal made of two bursts must have, and of a
        second classifier that hunts for the device in backgrounds.
    scale, margin : float
        Of the cosine softmax; a margin of 0.5 is ArcFace's.
    n_latents, width, unet_width : int, optional
        Size of the fingerprint, channels of the first layer of F and of Q and G.
    max_epochs, batch_size : int, optional
    learning_rate, qg_learning_rate : float
        Of Adam, for F and for Q and G; the latter is the preset's where it is None.
    precision : {"32", "bf16-mixed"}
    device : str
        Where to compute; ``"auto"`` takes a GPU where there is one.
    compile : bool
        Use `torch.compile`.
    random_state : int, RandomState or None

    Attributes
    ----------
    classes_ : ndarray of str
        The training devices.
    history_ : list of dict
        Losses by epoch: ``qg_...`` and ``f_...``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(8, 2, 256)).astype("float32")
    >>> rff = DRRFF(n_latents=8, width=1, unet_width=1, max_epochs=1, random_state=0)
    >>> rff.fit(X, ["a", "b"] * 4).transform(X).shape
    (8, 8)
    """

    name: ClassVar[str] = "rf-drrff"
    dims: ClassVar[tuple[str, ...]] = ("trial", "iq", "time")
    DecodeOptions = RFDecodeOptions

    def __init__(
        self,
        preset: str = "small",
        disentangle: bool = True,
        augmentation: str = "none",
        lam: float = 0.5,
        alpha: float | None = None,
        epsilon: float = 0.0,
        beta: float | None = None,
        n_skips: int | None = None,
        carrier: bool | None = None,
        cross: float = 0.0,
        fresh: float = 0.0,
        scale: float = 10.0,
        margin: float = 0.0,
        n_latents: int | None = None,
        width: int | None = None,
        unet_width: int | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 1e-3,
        qg_learning_rate: float | None = None,
        precision: str = "32",
        device: str = "auto",
        compile: bool = False,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.preset = preset
        self.disentangle = disentangle
        self.augmentation = augmentation
        self.lam = lam
        self.alpha = alpha
        self.epsilon = epsilon
        self.beta = beta
        self.n_skips = n_skips
        self.carrier = carrier
        self.cross = cross
        self.fresh = fresh
        self.scale = scale
        self.margin = margin
        self.n_latents = n_latents  # type: ignore[assignment]
        self.width = width
        self.unet_width = unet_width
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.qg_learning_rate = qg_learning_rate
        self.precision = precision
        self.device = device
        self.compile = compile
        self.random_state = random_state

    # Fitting ------------------------------------------------------------------------------

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        session: ArrayLike | None = None,
        scratch: str | Path | None = None,
        progress: Callable[..., Iterator[Any]] | None = None,
    ) -> Self:
        """Train on bursts of known devices.

        Parameters
        ----------
        X : DataArray (trial, iq, time) or ndarray
            Bursts of unit power.
        y : array-like of str, shape (trial,), optional
            The device of each burst; by default the coordinate ``device``.
        session : array-like, optional
        scratch : path, optional
            Checkpoints go here; a killed fit continues from it.
        progress : callable, optional

        Returns
        -------
        DRRFF

        Raises
        ------
        InputError
            Where a parameter is wrong.
        DataError
            Where there are fewer than two devices, a burst bears no name, or holds NaN.
        """
        import torch

        from neuro.batches import Batches
        from neuro.device import device_of
        from neuro.training import train

        self._check_parameters()
        X = self.as_input(X)
        names = self._devices(X, y)
        values = self.start_fit(X, subject=names, session=session)
        _check_power(values)
        self.classes_, number = np.unique(names, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"all bursts are of device '{self.classes_[0]}'; expected two or more")
        seed = self._seed()
        device = device_of(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            objective = self._objective()
        batches = Batches(
            {"x": values, "y": number.astype(np.int64)}, self._size("batch_size"), seed=seed,
            device=device, drop_last=len(values) > self._size("batch_size"),
        )  # fmt: skip
        result = train(
            objective, batches, max_epochs=self._size("max_epochs"), seed=seed, folder=scratch,
            device=device, precision=self.precision, compile=self.compile, progress=progress,
        )  # fmt: skip
        self.objective_ = objective.float().cpu().eval()
        self.history_ = result.history[0]
        return self

    def _devices(self, X: Any, y: ArrayLike | None) -> NDArray[np.str_]:
        if y is None and isinstance(X, xr.DataArray) and "device" in X.coords:
            y = X["device"].values
        if y is None:
            raise InputError("the devices are not known: pass y, or a coordinate 'device'")
        names = np.asarray(y).astype(str)
        if names.shape != (len(X),):
            raise InputError(f"{names.shape} devices for {len(X)} bursts")
        if (names == "").any():
            raise DataError(f"{int((names == '').sum())} bursts bear no device's name")
        return names

    def _seed(self) -> int:
        seed = self.random_state
        return seed if isinstance(seed, int) else int(check_random_state(seed).randint(2**31))

    def _check_parameters(self) -> None:
        from timeseries.rf.augment import AUGMENTATIONS

        for name, known in (("preset", tuple(PRESETS)), ("augmentation", AUGMENTATIONS)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )
        if self.n_skips is not None and not 0 <= self.n_skips <= 4:
            raise InputError(f"n_skips is {self.n_skips}; expected 0 to 4")
        if not 0 <= self.lam < 1:
            raise InputError(f"lam is {self.lam}; expected 0 <= lam < 1")

    def _size(self, name: str) -> int:
        return int(self._setting(name))

    def _setting(self, name: str) -> float:
        own = getattr(self, name)
        return float(PRESETS[self.preset][name] if own is None else own)

    def _objective(self) -> Objective:
        from timeseries.rf.objective import DRRFF as Objective
        from timeseries.rf.objective import Sizes, Weights

        sizes = Sizes(
            self.contract_.shape[-1], len(self.classes_), self._size("n_latents"),
            self._size("width"), self._size("unet_width"),
            bool(PRESETS[self.preset]["residual"]), bool(self._setting("carrier")),
            self._size("n_skips"),
        )  # fmt: skip
        lam = self.lam if self.disentangle else 0.0
        weights = Weights(
            lam, self._setting("alpha"), self.epsilon, self._setting("beta"), self.cross, self.fresh
        )
        return Objective(
            sizes, weights, augmentation=self.augmentation, scale=self.scale, margin=self.margin,
            learning_rate=self.learning_rate, qg_learning_rate=self._setting("qg_learning_rate"),
        )  # fmt: skip

    # Using --------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Return fingerprints.

        Parameters
        ----------
        X : DataArray (trial, iq, time), ndarray or path

        Returns
        -------
        DataArray or ndarray, shape (trial, latent)
            Compared by their angle: the length says nothing.
        """
        check_is_fitted(self, "contract_")
        X = self.as_input(X)
        return self.wrap(self._batched(self.objective_.f, self.check_input(X)), X)

    def predict(self, X: Any) -> NDArray[np.str_]:
        """Return the training device that each burst is most like."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])

    def predict_proba(self, X: Any) -> Floats:
        """Return the probabilities of the training devices: (trial, device)."""
        check_is_fitted(self, "contract_")
        own = self.objective_

        def probabilities(x: Any) -> Any:
            return own.head(own.f(x)).softmax(1)

        return self._batched(probabilities, self.check_input(self.as_input(X)))

    def background(self, X: Any) -> Floats:
        """Return the background signals of bursts: (trial, iq, time), the device taken out."""
        self._need_both()
        return self._batched(self.objective_.background, self.check_input(self.as_input(X)))

    def swap(self, device_of: Any, background_of: Any) -> Floats:
        """Make signals of the devices of some bursts with the backgrounds of others.

        Parameters
        ----------
        device_of, background_of : DataArray or ndarray (trial, iq, time)
            As many bursts.

        Returns
        -------
        ndarray of float32, shape (trial, iq, time)
        """
        self._need_both()
        own, ours = self.objective_, self.check_input(self.as_input(device_of))
        others = self.check_input(self.as_input(background_of))
        if len(ours) != len(others):
            raise InputError(f"{len(ours)} devices for {len(others)} backgrounds")
        both = np.concatenate([ours, others], axis=1)
        return self._batched(lambda x: own.make(own.background(x[:, 2:]), own.f(x[:, :2])), both)

    def _need_both(self) -> None:
        check_is_fitted(self, "contract_")
        if self.objective_.q is None:
            raise InputError("this encoder was trained without disentangling: it has no Q and G")

    def _batched(self, function: Callable[[Any], Any], X: Floats) -> Floats:
        import torch

        from neuro.device import device_of

        device = device_of(self.device, fallback=True)
        self.objective_.to(device)
        try:
            with torch.inference_mode():
                parts = [
                    function(torch.from_numpy(np.ascontiguousarray(block)).to(device)).cpu()
                    for block in np.split(X, range(_BATCH, len(X), _BATCH))
                ]
        finally:
            self.objective_.cpu()
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    # The encoder contract -----------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return self._size("n_latents")

    def read_recording(
        self, path: str | Path, *, align: bool = False, options: RFDecodeOptions | None = None
    ) -> xr.Dataset:
        """Read a capture and send its bursts through the preprocessing of the training data.

        Parameters
        ----------
        path : path
            A capture, see `timeseries.read.read_capture`; a Zarr folder is a saved dataset.
        align : bool
            Without effect: a burst has two channels, I and Q.
        options : RFDecodeOptions, optional
        """
        from timeseries.rf.replay import replay

        path = Path(path)
        if path.is_dir():
            return super().read_recording(path)  # type: ignore[return-value]
        return replay(path, self.contract_, options or RFDecodeOptions())

    @staticmethod
    def companions(path: str | Path) -> list[Path]:
        """Return the data file of SigMF metadata, or the reverse."""
        path = Path(path)
        other = {".sigmf-meta": ".sigmf-data", ".sigmf-data": ".sigmf-meta"}.get(path.suffix)
        beside = path.with_suffix(other) if other else path
        return [beside] if other and beside.exists() else []

    def decode(self, path: str | Path, options: Any = None) -> xr.Dataset:
        """Decode a capture: fingerprints, and with enrolled devices a verdict for each burst.

        Returns
        -------
        Dataset
            ``codes (trial, latent)``; with `enrolled` also ``verdict``, ``nearest``, ``score``
            and ``runner_up`` on ``trial``.
        """
        from neuro.data import open_dataset
        from timeseries.rf.enrol import from_dataset

        options = options or RFDecodeOptions()
        known = None
        if options.enrolled is not None:
            known = from_dataset(open_dataset(options.enrolled), self._size("n_latents"))
        X = self.align(self.read_recording(path, options=options))
        seen = self.seen(X)
        codes = self.transform(X)
        found = codes.assign_coords(
            seen_trial=("trial", seen.trials), seen_subject=("trial", seen.subjects)
        ).to_dataset(name="codes")
        if known is not None:
            table = known.verdicts(codes.values)
            found = found.assign({
                str(k): ("trial", np.asarray(v, str if k in ("verdict", "nearest") else float))
                for k, v in table.items()
            })  # fmt: skip
        return found.assign_attrs(kind="codes", encoder=self.name, source=Path(path).name)

    def state_dict_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights of F and its head, and of Q and G where they are."""
        weights = self.objective_.state_dict()
        return {k: v.numpy() for k, v in weights.items() if not k.startswith("fresh.")}

    def load_state_arrays(
        self, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
    ) -> None:
        """Take back what `state_dict_arrays` and `contract` gave."""
        import torch

        self.classes_ = np.array(preprocessing["devices"], str)
        self.history_ = preprocessing["history"]
        objective = self._objective()
        objective.fresh = None  # it served training only
        try:
            objective.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
        except RuntimeError as error:
            raise ContractError(f"the weights are not those of this network: {error}") from error
        self.objective_ = objective.eval()

    def contract(self) -> dict[str, Any]:
        """Return the JSON of ``preprocessing.json``."""
        return {
            **super().contract(), "devices": self.classes_.tolist(),
            "history": json.loads(json.dumps(self.history_)),
        }  # fmt: skip


def _check_power(values: Floats) -> None:
    power = np.square(values).sum(1)
    on = np.maximum((power > 0).sum(1), 1)
    typical = float(np.median(power.sum(1) / on))
    if not 0.2 < typical < 5:
        raise DataError(
            f"bursts have the mean power {typical:.3g}; expected about 1: divide each by its root "
            "mean square (rf-bursts does)"
        )
