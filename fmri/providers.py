"""Providers of targets that need no downloaded network.

An array file keyed by stimulus, an image autoencoder, principal components of pixels, and a table
of category attributes. Those of CLIP are in `fmri.clip_targets`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fmri.autoencoder import ImageAutoencoder, arrays_hash
from fmri.images import some, training_images
from fmri.targets import Floats, Provider
from neuro.artefact import listing
from neuro.data import open_dataset
from neuro.errors import ContractError, DataError, InputError

__all__ = [
    "ArrayFile",
    "AutoencoderTokens",
    "CategoryAttributes",
    "PixelPCA",
    "haxby_attributes",
]

_SOURCE = "source"  # the row of a table of attributes, or the key, that says where it comes from


class ArrayFile(Provider):
    """Embeddings that were computed elsewhere, in a file keyed by stimulus.

    Parameters
    ----------
    path : path
        ``.npz`` with ``ids`` and ``embeddings`` or one array for each stimulus; ``.npy`` with
        `ids`; HDF5 with the same two, or one data set for each stimulus; a Zarr folder that
        `neuro.data.save_dataset` wrote.
    ids : sequence of str or path, optional
        Names of the rows, or a text file with one on a line; for ``.npy`` by default
        ``<name>.ids.txt`` beside it.
    scale : float
        See `Provider`.
    layer : str
        What the embeddings are, for the fingerprint.

    Raises
    ------
    DataError
        Where the file can't be read or its names don't fit its rows.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/e.npz", ids=["a", "b"], embeddings=np.ones((2, 3, 4)))
    ...     ArrayFile(f"{folder}/e.npz").n_stimuli
    2
    """

    kind: ClassVar[str] = "array-file"
    needs_pixels: ClassVar[bool] = False

    def __init__(
        self,
        path: str | Path,
        *,
        ids: Sequence[str] | str | Path | None = None,
        scale: float = 1.0,
        layer: str = "",
    ) -> None:
        self.path, self.scale, self.layer = Path(path), float(scale), layer
        names, self.values, stored = _read_embeddings(self.path, ids)
        self.random_weights = bool(stored.get("random_weights", False))
        self.trained_on = json.loads(stored.get("trained_on", "[]"))
        if "scale" in stored and scale == 1.0:
            self.scale = float(stored["scale"])
        self.inner = stored.get("fingerprint")
        self.place = {name: row for row, name in enumerate(names)}
        if len(self.place) != len(names) or len(names) != len(self.values):
            raise DataError(
                f"{self.path}: {len(names)} names ({len(self.place)} different) for "
                f"{len(self.values)} rows; every row needs its own name"
            )
        self.digest = _content_hash(self.path)

    @property
    def n_stimuli(self) -> int:
        """Stimuli in the file."""
        return len(self.place)

    def fingerprint(self) -> dict[str, Any]:
        """Return the file's content hash as that of the weights."""
        return {
            "provider": self.kind,
            "arch": self.path.suffix.lstrip(".") or "zarr",
            "weights_hash": self.digest,
            "layer": self.layer,
            "preprocessing": None if self.inner is None else json.loads(self.inner),
        }

    def encode(self, images: xr.Dataset) -> Floats:
        """Look the stimuli up; a missing one is an error."""
        names = images["stimulus"].values.tolist()
        missing = [name for name in names if name not in self.place]
        if missing:
            raise DataError(
                f"{self.path}: no embedding of {len(missing)} of {len(names)} stimuli: "
                f"{some(missing)}; it holds {some(list(self.place))}"
            )
        values = np.asarray(self.values[[self.place[name] for name in names]])
        return values[:, None] if values.ndim == 2 else values


class AutoencoderTokens(Provider):
    """Tokens of a fitted `ImageAutoencoder`: one for each place of its grid.

    Parameters
    ----------
    autoencoder : ImageAutoencoder
        Trained on the training stimuli of this fold.
    """

    kind: ClassVar[str] = "image-autoencoder"

    def __init__(self, autoencoder: ImageAutoencoder) -> None:
        check_is_fitted(autoencoder, "contract_")
        self.autoencoder = autoencoder
        self.trained_on = autoencoder.trained_on_
        self.random_weights = not autoencoder.history_  # no epoch was asked for

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture and weights of the autoencoder."""
        own = self.autoencoder
        return {
            "provider": self.kind,
            "arch": f"vae-{'x'.join(map(str, own.grid_))}x{own.n_features}-width{own.width}",
            "weights_hash": own.weights_hash(),
            "layer": "posterior mean",
            "preprocessing": {"size": list(own.contract_.shape)},
        }

    def encode(self, images: xr.Dataset) -> Floats:
        """Encode a batch of images."""
        return self.autoencoder.tokens(images).values

    def decode(self, tokens: Floats) -> NDArray[np.float32]:
        """Turn tokens back into pixels in [0, 1], ``(trial, channel, row, column)``."""
        return self.autoencoder.inverse_transform(np.asarray(tokens, dtype=np.float32))


class PixelPCA(Provider):
    """Principal components of the pixels, one token; no network at all.

    Parameters
    ----------
    n_components : int
    whiten : bool
        Give every component unit variance; the small ones then weigh as much as the large.

    Attributes
    ----------
    explained_ : float
        Share of the training images' variance.
    """

    kind: ClassVar[str] = "pixel-pca"

    def __init__(self, n_components: int = 20, *, whiten: bool = False) -> None:
        self.n_components, self.whiten = n_components, whiten

    def fit(
        self, images: xr.Dataset, *, train_stimuli: ArrayLike, extra: xr.Dataset | None = None
    ) -> Self:
        """Fit to the training images; see `fmri.images.training_images` for what is refused."""
        from sklearn.decomposition import PCA

        chosen = training_images(images, train_stimuli, extra=extra)
        values = chosen["signal"].values
        if not 1 <= self.n_components < min(len(values), values[0].size):
            raise InputError(
                f"n_components is {self.n_components}; expected 1 to "
                f"{min(len(values), values[0].size) - 1} for {len(values)} images"
            )
        pca = PCA(self.n_components, whiten=self.whiten, svd_solver="full")
        pca.fit(values.reshape(len(values), -1).astype(np.float64))
        self.pca_, self.shape_ = pca, values.shape[1:]
        self.explained_ = float(pca.explained_variance_ratio_.sum())
        self.scale = 1.0 if self.whiten else float(1 / np.sqrt(pca.explained_variance_.mean()))
        self.trained_on = chosen["image_hash"].values.tolist()
        return self

    def fingerprint(self) -> dict[str, Any]:
        """Return size and content of the components."""
        self._check_fitted()
        arrays = {"components": self.pca_.components_, "mean": self.pca_.mean_}
        return {
            "provider": self.kind,
            "arch": f"pca-{self.n_components}{'-whiten' if self.whiten else ''}",
            "weights_hash": arrays_hash(arrays),
            "layer": "scores",
            "preprocessing": {"size": list(self.shape_)},
        }

    def _check_fitted(self) -> None:
        if not hasattr(self, "pca_"):
            raise InputError("PixelPCA isn't fitted; call fit(images, train_stimuli=...) first")

    def encode(self, images: xr.Dataset) -> Floats:
        """Project a batch of images."""
        self._check_fitted()
        values = images["signal"].values
        if values.shape[1:] != self.shape_:
            raise ContractError(
                f"the images are {values.shape[1:]}, expected {self.shape_} (channel, row, column)"
            )
        return self.pca_.transform(values.reshape(len(values), -1).astype(np.float64))[:, None]

    def decode(self, tokens: Floats) -> NDArray[np.float32]:
        """Turn scores back into pixels in [0, 1], ``(trial, channel, row, column)``."""
        self._check_fitted()
        flat = np.asarray(tokens, dtype=np.float64).reshape(len(tokens), -1)
        pixels = self.pca_.inverse_transform(flat).reshape(-1, *self.shape_)
        return np.clip(pixels, 0, 1).astype(np.float32)


class CategoryAttributes(Provider):
    """A table of what is known of each category: animate, man-made, its size ...

    Categories that were never trained on can be named through it, since they share attributes
    with those that were.

    Parameters
    ----------
    table : DataFrame or path to a CSV
        Categories as rows (first column of a CSV), attributes as columns, numbers.
    source : str
        Where the table comes from; goes into the report. A CSV may say it in a first line
        ``# source: ...``.
    standardize : bool
        Give every attribute mean 0 and variance 1 over the categories of the table.

    Raises
    ------
    DataError
        Where the table has no source, text or gaps in its cells, or two equal rows: such
        categories could not be told apart.
    """

    kind: ClassVar[str] = "category-attributes"
    needs_pixels: ClassVar[bool] = False

    def __init__(
        self, table: pd.DataFrame | str | Path, *, source: str = "", standardize: bool = True
    ) -> None:
        where = "the table" if isinstance(table, pd.DataFrame) else str(table)
        if not isinstance(table, pd.DataFrame):
            table, stated = _read_table(Path(table))
            source = source or stated
        if not source:
            raise DataError(f"{where}: its source is missing; say where the attributes come from")
        self.table, self.source, self.standardize = (
            _checked_table(table, where),
            source,
            standardize,
        )
        values = self.table.to_numpy(dtype=np.float64)
        if standardize:
            values = (values - values.mean(0)) / values.std(0)
        self.values = values

    def fingerprint(self) -> dict[str, Any]:
        """Return the content of the table."""
        rows = "\n".join(self.table.index.astype(str)).encode()
        columns = "\n".join(self.table.columns.astype(str)).encode()
        digest = hashlib.blake2b(rows + b"\0" + columns, digest_size=16)
        digest.update(self.table.to_numpy(dtype=np.float64).tobytes())
        return {
            "provider": self.kind,
            "arch": f"table-{len(self.table)}x{len(self.table.columns)}",
            "weights_hash": digest.hexdigest(),
            "layer": "attributes",
            "preprocessing": {"standardize": self.standardize},
        }

    def attributes(self) -> dict[str, Any]:
        """Return the source."""
        return {"source": self.source}

    def feature_names(self) -> list[str]:
        """Return the attributes' names."""
        return [str(name) for name in self.table.columns]

    def encode(self, images: xr.Dataset) -> Floats:
        """Look up each stimulus's category; without one, the stimulus's name is its category."""
        key = "category" if "category" in images.coords else "stimulus"
        place = {str(name): row for row, name in enumerate(self.table.index)}
        names = images[key].values.tolist()
        missing = sorted({name for name in names if name not in place})
        if missing:
            raise DataError(
                f"the table of attributes has no category {some(missing)}; it has "
                f"{some(list(place))}"
            )
        return self.values[[place[name] for name in names]][:, None]


def haxby_attributes() -> CategoryAttributes:
    """Return the attributes of the eight categories of Haxby et al. 2001 that ship with `fmri`.

    Examples
    --------
    >>> haxby_attributes().table.shape
    (8, 12)
    """
    return CategoryAttributes(Path(__file__).parent / "haxby_attributes.csv")


# Reading --------------------------------------------------------------------------------------


def _read_embeddings(
    path: Path, ids: Sequence[str] | str | Path | None
) -> tuple[list[str], NDArray[Any], dict[str, Any]]:
    if not path.exists():
        raise DataError(f"{path}: no such file of embeddings; {listing(path.parent)}")
    suffix = path.suffix.lower()
    if path.is_dir():
        data = open_dataset(path)
        if "signal" not in data or "stimulus" not in data.coords:
            raise DataError(f"{path}: expected 'signal' with a coordinate 'stimulus'")
        return data["stimulus"].values.tolist(), data["signal"].values, dict(data.attrs)
    try:
        if suffix == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            return _row_names(path, ids), values, {}
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as opened:
                return *_from_arrays(path, {k: opened[k] for k in opened.files}), {}
        if suffix in (".h5", ".hdf5"):
            return *_from_arrays(path, _read_hdf5(path)), {}
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: the embeddings can't be read ({error})") from error
    raise DataError(f"{path}: expected .npz, .npy, .h5 or a Zarr folder of embeddings")


def _read_hdf5(path: Path) -> dict[str, NDArray[Any]]:
    import h5py

    with h5py.File(path) as opened:
        return {
            name: item.asstr()[()] if item.dtype.kind == "O" else item[()]
            for name, item in opened.items()
            if isinstance(item, h5py.Dataset)
        }


def _from_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> tuple[list[str], NDArray[Any]]:
    names = next((k for k in ("ids", "stimulus", "stimuli") if k in arrays), None)
    values = next((k for k in ("embeddings", "signal", "targets") if k in arrays), None)
    if names is not None and values is not None:
        return np.asarray(arrays[names]).astype(str).tolist(), arrays[values]
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or any(a.dtype.kind not in "fiu" for a in arrays.values()):
        raise DataError(
            f"{path} holds {some(sorted(arrays))}; expected 'ids' and 'embeddings', or one array "
            "of one shape for each stimulus"
        )
    return list(arrays), np.stack(list(arrays.values()))


def _row_names(path: Path, ids: Sequence[str] | str | Path | None) -> list[str]:
    if ids is not None and not isinstance(ids, str | Path):
        return [str(name) for name in ids]
    file = path.with_suffix(".ids.txt") if ids is None else Path(ids)
    if not file.is_file():
        raise DataError(f"{path}: the names of its rows are missing; pass ids=, or write {file}")
    return [line for line in file.read_text().splitlines() if line]


def _content_hash(path: Path) -> str:
    """Digest a file, or every file of a folder with its name."""
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read_table(path: Path) -> tuple[pd.DataFrame, str]:
    if not path.is_file():
        raise DataError(f"{path}: no such table of attributes; {listing(path.parent)}")
    first = path.read_text().partition("\n")[0]
    stated = first.partition("source:")[2].strip() if first.startswith("#") else ""
    try:
        return pd.read_csv(path, index_col=0, comment="#"), stated
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: the table can't be read ({error})") from error


def _checked_table(table: pd.DataFrame, where: str) -> pd.DataFrame:
    table = table.set_axis(table.index.astype(str))
    numbers = table.apply(pd.to_numeric, errors="coerce")
    gaps = numbers.isna().to_numpy()
    if numbers.empty or gaps.any():
        cell = "" if numbers.empty else f", first in {table.index[gaps.any(1)][0]}"
        raise DataError(f"{where}: {int(gaps.sum())} cells hold no number{cell}; fill them")
    if table.index.has_duplicates or numbers.duplicated().any():
        raise DataError(
            f"{where}: two rows have one category or the same attributes; add an attribute that "
            "tells them apart"
        )
    flat = [str(c) for c in numbers.columns[numbers.nunique() < 2]]
    if flat:
        raise DataError(f"{where}: the attributes {some(flat)} are the same everywhere; drop them")
    return numbers
