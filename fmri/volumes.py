"""4-D images volume by volume: never whole, never in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmri.streams import open_stream
from fmri.voxels import Affine
from neuro.errors import DataError

__all__ = ["Volumes", "load_image", "open_volumes", "read_voxels"]

Floats = NDArray[np.float32]

_COMPRESSED = (".gz", ".bz2", ".zst")
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


@dataclass(frozen=True)
class Volumes:
    """A series of volumes, opened and not read yet.

    Iterating gives one volume after another as a flat array, the first axis fastest, in the
    numbers of the file (before `slope` and `inter`). The array is used again for the next one.

    Attributes
    ----------
    name : str
        For messages.
    shape : tuple of int
        Of a volume.
    n : int
        Volumes.
    affine : ndarray of shape (4, 4)
    t_r : float or None
        Repetition time in s, None where the header does not tell.
    slope, inter : float
        ``value = number * slope + inter``.
    dtype : dtype
        Of the file.
    offset : int
        Bytes before the first volume.
    source : Path or ndarray
        The file, or what is in memory.
    """

    name: str
    shape: tuple[int, int, int]
    n: int
    affine: Affine
    t_r: float | None
    slope: float
    inter: float
    dtype: np.dtype[Any]
    offset: int
    source: Any

    @property
    def size(self) -> int:
        """Voxels of a volume."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[NDArray[Any]]:
        if not isinstance(self.source, Path):
            return (self.source[..., t].ravel(order="F") for t in range(self.n))
        if self.source.name.lower().endswith(_COMPRESSED):
            return self._stream()
        return iter(self._map())

    def _map(self) -> NDArray[Any]:
        found = (self.source.stat().st_size - self.offset) // (self.size * self.dtype.itemsize)
        if found < self.n:
            raise self._cut_short(max(int(found), 0))
        return np.memmap(
            self.source, self.dtype, mode="r", offset=self.offset, shape=(self.n, self.size)
        )

    def _stream(self) -> Iterator[NDArray[Any]]:
        buffer = np.empty(self.size, self.dtype)
        with open_stream(self.source) as stream:
            self._fill(stream, memoryview(bytearray(self.offset)), 0)
            for number in range(self.n):
                self._fill(stream, memoryview(buffer.view(np.uint8).data), number)
                yield buffer
            self._finish(stream)

    def _fill(self, stream: Any, target: memoryview, number: int) -> None:
        try:
            found = stream.readinto(target)
        except EOFError:
            found = -1
        if found < len(target):
            raise self._cut_short(number)

    def _finish(self, stream: Any) -> None:
        """Read on past the last volume, so that the codec compares its checksum."""
        try:
            stream.readinto(memoryview(bytearray(1)))
        except EOFError:
            raise self._cut_short(self.n) from None

    def _cut_short(self, whole: int) -> DataError:
        return DataError(
            f"{self.name}: the header promises {self.n} volumes of {self.shape}, the file ends "
            f"after {whole} of them: it was cut short; copy it again from its source"
        )


def open_volumes(source: Any, *, name: str | None = None) -> Volumes:
    """Open a 4-D image.

    Parameters
    ----------
    source : path or nibabel image
        NIfTI-1 or -2 (``.nii``, ``.nii.gz``, pairs), or another volume format of nibabel.
    name : str, optional
        For messages, by default the path.

    Returns
    -------
    Volumes

    Raises
    ------
    DataError
        Where the file is missing or can't be read, isn't 4-D or holds no real numbers.
    """
    label = name or (str(source) if isinstance(source, str | Path) else "the image")
    image = load_image(source, label)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) != 4:
        raise DataError(
            f"{label}: is {len(shape)}-D, shape {shape}; expected a 4-D image with one volume for "
            "each time point or trial. Join single volumes first (nilearn.image.concat_imgs)"
        )
    if image.affine is None or not np.isfinite(image.affine).all():
        raise DataError(f"{label}: the header has no valid affine; set its sform or qform")
    return _volumes(image, (shape[0], shape[1], shape[2]), shape[3], label)


def load_image(source: Any, label: str) -> Any:
    """Return the nibabel image of a path, or the image itself; values are not read.

    Raises
    ------
    DataError
        Where the file is missing, cut short or of no known format.
    """
    import nibabel

    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.exists():
        raise DataError(f"{label}: there is no such file; check the path")
    try:
        return nibabel.load(path)
    except Exception as error:
        raise DataError(
            f"{label}: can't be read as an image ({path.stat().st_size} bytes): {error}. Expected "
            "a complete NIfTI, GIFTI or CIFTI file; if it is one, it is cut short or damaged: copy "
            "it again from its source"
        ) from error


def _volumes(image: Any, shape: tuple[int, int, int], n: int, label: str) -> Volumes:
    proxy, affine = image.dataobj, np.asarray(image.affine, float)
    dtype, t_r = np.dtype(proxy.dtype), _repetition_time(image.header)
    if dtype.kind not in "iufb":
        raise DataError(f"{label}: holds {dtype} values, expected real numbers")
    if not hasattr(proxy, "slope"):
        values = np.asarray(proxy).reshape(*shape, n)
        return Volumes(label, shape, n, affine, t_r, 1.0, 0.0, dtype, 0, values)
    file = image.file_map.get("image") or next(iter(image.file_map.values()))
    return Volumes(
        label, shape, n, affine, t_r, float(proxy.slope), float(proxy.inter), dtype,
        int(proxy.offset), Path(file.filename),
    )  # fmt: skip


def _repetition_time(header: Any) -> float | None:
    zooms = header.get_zooms()
    unit = header.get_xyzt_units()[1] if hasattr(header, "get_xyzt_units") else "sec"
    if len(zooms) < 4 or not zooms[-1] > 0:
        return None
    # Without a unit it is seconds in practice, unless the number is none that a scanner has.
    guess = 1e-3 if zooms[-1] >= 100 else 1.0
    return round(float(zooms[-1]) * _SECONDS.get(unit, guess), 6)


def read_voxels(
    volumes: Volumes, flat: NDArray[np.int64] | None, smoothing_fwhm: float | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Read some voxels of every volume, in one pass.

    Parameters
    ----------
    volumes : Volumes
    flat : ndarray of int, shape (voxel,), or None
        Positions in a volume, the first axis fastest. None takes the voxels that are finite and
        not 0 in the first volume.
    smoothing_fwhm : float, optional
        mm; each volume is smoothed whole, before voxels are taken.

    Returns
    -------
    values : ndarray of float32, shape (volume, voxel)
        Scaled by slope and intercept. Beyond it, memory is that of one volume.
    flat : ndarray of int

    Raises
    ------
    DataError
        Where the file is cut short, or no voxel is left.
    """
    out: Floats | None = None
    for number, volume in enumerate(volumes):
        if flat is None:
            flat = _nonzero(volume, volumes)
        if out is None:
            out = np.empty((volumes.n, len(flat)), np.float32)
            row = np.empty(len(flat), volumes.dtype if smoothing_fwhm is None else np.float32)
        if smoothing_fwhm is not None:
            volume = _smoothed(volume, volumes, smoothing_fwhm)
        # Positions are known to lie inside, and "clip" is six times as fast as checking that.
        np.take(volume, flat, out=row, mode="clip")
        out[number] = row
    if out is None or flat is None:
        raise DataError(f"{volumes.name}: holds no volume")
    if smoothing_fwhm is not None:  # scaled before
        return out, flat
    if volumes.slope != 1:
        out *= np.float32(volumes.slope)
    if volumes.inter:
        out += np.float32(volumes.inter)
    return out, flat


def _smoothed(volume: NDArray[Any], volumes: Volumes, fwhm: float) -> Floats:
    import nibabel
    from nilearn.image import smooth_img

    whole = volume.reshape(volumes.shape, order="F") * np.float32(volumes.slope)
    whole = (whole + np.float32(volumes.inter)).astype(np.float32, copy=False)
    found = smooth_img(nibabel.Nifti1Image(whole, volumes.affine), fwhm)
    return np.asarray(found.dataobj, np.float32).ravel(order="F")


def _nonzero(volume: NDArray[Any], volumes: Volumes) -> NDArray[np.int64]:
    """Positions in the order of a mask."""
    inside = np.isfinite(volume) & (volume * volumes.slope + volumes.inter != 0)
    ijk = np.argwhere(inside.reshape(volumes.shape, order="F"))
    if not len(ijk):
        raise DataError(
            f"{volumes.name}: the first volume is 0 or NaN everywhere; give a mask, or drop it"
        )
    return np.asarray(np.ravel_multi_index(tuple(ijk.T), volumes.shape, order="F"), np.int64)
