"""Files of images: folders of pictures, and arrays in NumPy, MATLAB and HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmri.images import pair, refuse_twice, some
from neuro.artefact import listing
from neuro.errors import DataError, InputError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_MODES = {1: "L", 3: "RGB"}


def read_folder(
    folder: Path,
    stimuli: Sequence[str] | NDArray[Any] | None,
    size: int | tuple[int, int] | None,
    channels: int | None,
) -> tuple[list[str], NDArray[Any], list[str] | None]:
    """Read a folder of pictures: their names, pixels (uint8) and sub-folders, if all are in one."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    by_name: dict[str, Path] = {}
    for path in found:
        for name in {path.stem, path.name, path.relative_to(folder).as_posix()}:
            by_name.setdefault(name, path)
    if stimuli is None:
        refuse_twice(np.array([p.stem for p in found], dtype=str), f"{folder}: ")
    names = [p.stem for p in found] if stimuli is None else [str(s) for s in stimuli]
    missing = [name for name in names if name not in by_name]
    if missing or not names:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} stimulus images are missing: "
            f"{some(missing)}; {listing(folder)}; expected {', '.join(_SUFFIXES[:3])} ... named "
            "by the stimulus"
        )
    files = [by_name[name] for name in names]
    parents = [p.parent.name if p.parent != folder else "" for p in files]
    return names, _read_pictures(files, size, channels), parents if all(parents) else None


def _read_pictures(
    files: list[Path], size: int | tuple[int, int] | None, channels: int | None
) -> NDArray[np.uint8]:
    first = _read_picture(files[0], None)
    channels = channels or (3 if first.ndim == 3 else 1)
    if channels not in _MODES:
        raise InputError(f"channels is {channels}; expected 1 or 3")
    shape = pair(size) if size is not None else first.shape[:2]
    out = np.empty((len(files), channels, *shape), dtype=np.uint8)
    for row, file in zip(out, files, strict=True):
        picture = _read_picture(file, _MODES[channels], None if size is None else shape)
        if picture.shape[:2] != shape:
            raise DataError(
                f"{file}: the picture has {picture.shape[:2]} rows and columns, {files[0].name} "
                f"has {shape}; pass size=... to resample all"
            )
        row[:] = np.moveaxis(np.atleast_3d(picture), -1, 0)
    return out


def _read_picture(
    file: Path, mode: str | None, shape: tuple[int, ...] | None = None
) -> NDArray[np.uint8]:
    """Read one picture; transparency is laid on white, 16-bit grey is scaled."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            opened.load()
            picture = _flat(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: the picture can't be read, it is corrupt or cut short ({error}); "
            "copy it again"
        ) from error
    picture = picture.convert(mode or ("L" if picture.mode in ("L", "1") else "RGB"))
    if shape is not None and picture.size != (shape[1], shape[0]):
        picture = picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _flat(picture: Any) -> Any:
    from PIL import Image

    if picture.mode.startswith("I"):
        deep = np.asarray(picture, dtype=np.float64)
        return Image.fromarray((deep / (65535 if deep.max() > 255 else 255) * 255).astype(np.uint8))
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
    return picture.copy()


def read_array(
    path: Path, key: str | Sequence[str] | None, shape: tuple[int, int] | None, order: str
) -> NDArray[Any]:
    """Read the images of an array file, unflattened where `shape` is given; see `read_images`."""
    arrays = _variables(path, key)
    keys = [key] if isinstance(key, str) else list(key or [])
    if not keys:
        if len(arrays) != 1:
            raise DataError(f"{path} holds {', '.join(sorted(arrays))}; name one by key=")
        keys = list(arrays)
    missing = [k for k in keys if k not in arrays]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}; it holds {', '.join(sorted(arrays))}")
    pixels = np.concatenate([arrays[k] for k in keys])
    if shape is None:
        return pixels
    if pixels.ndim != 2 or pixels.shape[1] != shape[0] * shape[1]:
        raise DataError(
            f"{path}: {'+'.join(keys)} has the shape {pixels.shape}, expected (image, "
            f"{shape[0] * shape[1]}) for pictures of {shape}"
        )
    if order not in ("C", "F"):
        raise InputError(f"order is {order!r}; expected 'C' (row by row) or 'F' (column by column)")
    return pixels.reshape(-1, *shape) if order == "C" else _by_columns(pixels, shape)


def _by_columns(pixels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    return pixels.reshape(-1, shape[1], shape[0]).transpose(0, 2, 1)


def _variables(path: Path, key: str | Sequence[str] | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; no format is unpickled."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return {str(key or path.stem): np.load(path, mmap_mode="r", allow_pickle=False)}
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as opened:
                return {name: opened[name] for name in opened.files}
        if suffix in (".h5", ".hdf5"):
            return _hdf5(path)
        if suffix == ".mat":
            return _matlab(path)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(f"{path}: the array file can't be read ({error}); copy it again") from error
    raise DataError(f"{path}: expected a folder of pictures, .npy, .npz, .mat or .h5")


def _matlab(path: Path) -> dict[str, NDArray[Any]]:
    import scipy.io

    try:
        found = scipy.io.loadmat(path)
    except NotImplementedError:  # v7.3 is HDF5, its axes reversed
        return {k: v.T for k, v in _hdf5(path).items()}
    return {
        k: v
        for k, v in found.items()
        if not k.startswith("__") and isinstance(v, np.ndarray) and v.dtype.kind in "fiub"
    }


def _hdf5(path: Path) -> dict[str, NDArray[Any]]:
    import h5py

    with h5py.File(path) as opened:
        return {
            name: np.asarray(item[()])
            for name, item in opened.items()
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub"
        }
