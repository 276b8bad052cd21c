"""Read RF captures: SigMF, raw IQ files, arrays; samples stay on disk until they are asked for.

Raw files say nothing of themselves: the sampling rate must be given, and is never guessed. A
capture without a centre frequency gets NaN and a note.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuro.errors import DataError, InputError

__all__ = ["DATATYPES", "RAW_SUFFIXES", "Capture", "read_capture"]

Complex = NDArray[np.complex64]


@dataclass(frozen=True)
class Datatype:
    """How a number is stored: NumPy's type, what is taken off, what it is divided by."""

    dtype: str
    offset: float = 0.0
    scale: float = 1.0


DATATYPES = {
    "cf32_le": Datatype("<f4"),
    "cf32_be": Datatype(">f4"),
    "cf64_le": Datatype("<f8"),
    "cf64_be": Datatype(">f8"),
    "ci32_le": Datatype("<i4", 0, 2**31),
    "ci32_be": Datatype(">i4", 0, 2**31),
    "ci16_le": Datatype("<i2", 0, 2**15),
    "ci16_be": Datatype(">i2", 0, 2**15),
    "ci8": Datatype("i1", 0, 2**7),
    "cu16_le": Datatype("<u2", 2**15 - 0.5, 2**15 - 0.5),
    "cu16_be": Datatype(">u2", 2**15 - 0.5, 2**15 - 0.5),
    "cu8": Datatype("u1", 127.5, 127.5),
}
"""SigMF's names of complex types."""

RAW_SUFFIXES = {
    ".cf32": "cf32_le", ".fc32": "cf32_le", ".cfile": "cf32_le", ".raw": "cf32_le",
    ".ci16": "ci16_le", ".sc16": "ci16_le", ".cs16": "ci16_le",
    ".cs8": "ci8", ".ci8": "ci8", ".cu8": "cu8",
}  # fmt: skip
_SIGMF = (".sigmf-meta", ".sigmf-data", ".sigmf", ".sigmf.gz", ".sigmf.xz", ".sigmf.zip")


@dataclass(frozen=True)
class Capture:
    """A recording whose samples are read piece by piece.

    Attributes
    ----------
    path : Path
    values : array
        What lies on disk: numbers (sample, 2) for I and Q, complex (sample,), or real (sample,).
        Memory-mapped where the format allows it.
    sfreq : float
        Hz.
    centre : float
        Centre frequency, Hz; NaN where it isn't known.
    datatype : Datatype
        How `values` become numbers in -1 to 1.
    annotations : DataFrame
        ``start`` and ``stop`` (samples) and ``label`` of what the file marks.
    notes : tuple of str
        What a reader should know.
    """

    path: Path
    values: Any
    sfreq: float
    centre: float = math.nan
    datatype: Datatype = field(default_factory=lambda: Datatype("<f4"))
    annotations: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({"start": [], "stop": [], "label": []})
    )
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def real(self) -> bool:
        """Whether the samples are real: an envelope, not IQ."""
        return self.values.ndim == 1 and not np.iscomplexobj(self.values)

    def samples(self, start: int = 0, stop: int | None = None) -> Complex:
        """Return samples as complex numbers of full scale 1.

        Parameters
        ----------
        start, stop : int
            In samples.

        Raises
        ------
        DataError
            Where they hold NaN or infinity.
        """
        raw = np.asarray(self.values[start:stop])
        if np.iscomplexobj(raw):
            found = raw.astype(np.complex64)
        else:
            kind = self.datatype
            numbers = ((raw - np.float32(kind.offset)) / np.float32(kind.scale)).astype(np.float32)
            pairs = numbers if raw.ndim == 2 else np.stack([numbers, np.zeros_like(numbers)], 1)
            found = np.ascontiguousarray(pairs).view(np.complex64)[:, 0]
        if not np.isfinite(found.view(np.float32)).all():
            raise DataError(f"{self.path}: samples {start} to {start + len(raw)} hold NaN")
        return found


def forget_pages(values: Any) -> None:
    """Give back the memory that a mapped file has taken while it was read."""
    import mmap

    while values is not None and not isinstance(values, mmap.mmap):
        values = getattr(values, "base", None) if isinstance(values, np.ndarray) else None
    if values is not None:
        values.madvise(mmap.MADV_DONTNEED)


def read_capture(
    path: str | Path,
    *,
    sfreq: float | None = None,
    centre: float | None = None,
    datatype: str | None = None,
    key: str | None = None,
    check: bool = True,
) -> Capture:
    """Open a capture.

    Parameters
    ----------
    path : path
        SigMF (metadata, data or archive); raw IQ by its suffix (``.cf32 .fc32 .cfile .raw .ci16
        .sc16 .cs16 .cs8 .cu8``) or `datatype`; ``.npy``; HDF5; a WAV file of two channels.
    sfreq : float, optional
        Sampling rate in Hz: needed where the file doesn't tell it, and then it must agree.
    centre : float, optional
        Centre frequency in Hz.
    datatype : str, optional
        SigMF's name of the type of raw samples, one of `DATATYPES`; wins over the suffix.
    key : str, optional
        The dataset inside an HDF5 file.
    check : bool
        Compare SigMF's checksum, which reads the whole file once.

    Returns
    -------
    Capture

    Raises
    ------
    DataError
        Where the file can't be read, is cut short, fails its checksum or has an odd length.
    InputError
        Where the sampling rate isn't known, or the type.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "burst.cu8"
    ...     _ = file.write_bytes(bytes([255, 0, 0, 255]))
    ...     read_capture(file, sfreq=1e6).samples()
    array([ 1.-1.j, -1.+1.j], dtype=complex64)
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if datatype is not None and datatype not in DATATYPES:
        raise InputError(f"datatype {datatype!r} is none of {', '.join(DATATYPES)}")
    found = _reader(path, datatype)(path, datatype, key, check)
    values, own_rate, own_centre, kind, marks, notes = found
    rate = _rate(path, own_rate, sfreq)
    if not len(values):
        raise DataError(f"{path}: holds no sample")
    middle = centre if centre is not None else own_centre
    if middle is None:
        notes = (*notes, "the centre frequency is not known")
    if values.ndim == 1 and not np.iscomplexobj(values):
        notes = (*notes, "samples are real (an envelope), not IQ")
    return Capture(path, values, rate, math.nan if middle is None else middle, kind, marks, notes)


_Found = tuple[Any, float | None, float | None, Datatype, pd.DataFrame, tuple[str, ...]]
_Reader = Callable[[Path, str | None, str | None, bool], _Found]


def _reader(path: Path, datatype: str | None) -> _Reader:
    name = path.name.lower()
    if any(name.endswith(suffix) for suffix in _SIGMF):
        return _sigmf
    if datatype is not None:
        return _raw
    by_suffix: dict[str, _Reader] = {
        ".npy": _npy, ".h5": _hdf5, ".hdf5": _hdf5, ".wav": _wav,
        **dict.fromkeys(RAW_SUFFIXES, _raw),
    }  # fmt: skip
    if path.suffix.lower() not in by_suffix:
        raise InputError(
            f"{path}: no capture is known by '{path.suffix}'; expected SigMF, "
            f"{', '.join(by_suffix)}, or say its datatype"
        )
    return by_suffix[path.suffix.lower()]


def _rate(path: Path, own: float | None, given: float | None) -> float:
    if own is not None and given is not None and not math.isclose(own, given, rel_tol=1e-6):
        raise InputError(f"{path}: sfreq is {own:g} Hz in the file, {given:g} Hz was given")
    rate = own if own is not None else given
    if rate is None or not rate > 0:
        raise InputError(f"{path}: the file doesn't tell its sampling rate; give sfreq in Hz")
    return float(rate)


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({"start": np.empty(0, int), "stop": np.empty(0, int), "label": []})


# SigMF ----------------------------------------------------------------------------------------


def _sigmf(path: Path, datatype: str | None, key: str | None, check: bool) -> _Found:
    import warnings

    import sigmf
    from sigmf.error import SigMFError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a wrong length is only warned of
            handle = sigmf.fromfile(path, skip_checksum=not check, autoscale=False)
    except (SigMFError, OSError, ValueError, KeyError, UserWarning) as error:
        raise DataError(
            f"{path}: can't be read as SigMF: {' '.join(str(error).split())}"
        ) from error
    info = handle.get_global_info()
    kind = str(info.get("core:datatype"))
    if kind not in DATATYPES:
        raise DataError(f"{path}: datatype '{kind}' is none of {', '.join(DATATYPES)}")
    if info.get("core:num_channels", 1) != 1:
        raise DataError(f"{path}: has {info['core:num_channels']} channels; expected one")
    values = _mapped(path, handle, DATATYPES[kind].dtype)
    rates = [c.get("core:frequency") for c in handle.get_captures()]
    centre = next((float(f) for f in rates if f is not None), None)
    marks = handle.get_annotations()
    start = np.array([mark["core:sample_start"] for mark in marks], int)
    count = np.array([mark.get("core:sample_count", 0) for mark in marks], int)
    label = [str(mark.get("core:label", "")) for mark in marks]
    table = pd.DataFrame({"start": start, "stop": start + count, "label": label})
    over = table[(table["start"] < 0) | (table["stop"] > len(values))]
    if len(over):
        raise DataError(
            f"{path}: annotation {over.index[0]} covers samples {over['start'].iloc[0]} to "
            f"{over['stop'].iloc[0]}, the capture has {len(values)}"
        )
    rate = info.get("core:sample_rate")
    return values, None if rate is None else float(rate), centre, DATATYPES[kind], table, ()


def _mapped(path: Path, handle: Any, dtype: str) -> Any:
    """Map what the library found, I and Q apart; its own slices would copy to complex numbers."""
    if handle.data_file is None and handle.data_buffer is None:
        raise DataError(f"{path}: the metadata has no data file beside it")
    count, offset = 2 * handle.sample_count, handle.data_offset
    if handle.data_file is not None:
        flat: Any = np.memmap(handle.data_file, dtype, mode="r", offset=offset, shape=(count,))
    else:  # a compressed archive lies in memory
        flat = np.frombuffer(handle.data_buffer.getbuffer(), dtype, count, offset)
    return flat.reshape(-1, 2)


# Others ---------------------------------------------------------------------------------------


def _raw(path: Path, datatype: str | None, key: str | None, check: bool) -> _Found:
    kind = DATATYPES[datatype or RAW_SUFFIXES[path.suffix.lower()]]
    pair = 2 * np.dtype(kind.dtype).itemsize
    size = path.stat().st_size
    if size % pair:
        raise DataError(
            f"{path}: {size} bytes are no whole number of samples of {pair} bytes; the file is "
            "cut short, or its datatype is another"
        )
    if not size:
        raise DataError(f"{path}: is empty")
    values = np.memmap(path, kind.dtype, mode="r").reshape(-1, 2)
    return values, None, None, kind, _nothing(), ()


def _npy(path: Path, datatype: str | None, key: str | None, check: bool) -> _Found:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: can't be read as an array ({error})") from error
    return *_array(path, values), _nothing(), ()


def _array(path: Path, values: Any) -> tuple[Any, None, None, Datatype]:
    shape = values.shape
    if np.iscomplexobj(values) and values.ndim == 1:
        return values, None, None, Datatype(values.dtype.str)
    if values.dtype.kind not in "fiu" or not (values.ndim == 1 or shape[1:] == (2,)):
        raise DataError(
            f"{path}: an array {shape} of {values.dtype}; expected complex (sample,), numbers "
            "(sample, 2) for I and Q, or real (sample,)"
        )
    whole = {"i": 2.0 ** (8 * values.dtype.itemsize - 1), "u": 2.0 ** (8 * values.dtype.itemsize)}
    scale = whole.get(values.dtype.kind, 1.0)
    half = (scale - 1) / 2 if values.dtype.kind == "u" else 0.0
    return values, None, None, Datatype(values.dtype.str, half, half or scale)


def _hdf5(path: Path, datatype: str | None, key: str | None, check: bool) -> _Found:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: can't be read as HDF5 ({error})") from error
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    chosen = key or (names[0] if len(names) == 1 else None)
    if chosen is None or chosen not in file:
        raise InputError(f"{path}: holds {', '.join(names) or 'no dataset'}; say which by key")
    return *_array(path, file[chosen]), _nothing(), ()


def _wav(path: Path, datatype: str | None, key: str | None, check: bool) -> _Found:
    from scipy.io import wavfile

    try:
        rate, values = wavfile.read(path, mmap=True)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: can't be read as WAV ({error})") from error
    if values.ndim != 2 or values.shape[1] != 2:
        channels = 1 if values.ndim == 1 else values.shape[1]
        raise DataError(f"{path}: has {channels} channels; expected two, I and Q")
    return values, float(rate), None, _array(path, values)[3], _nothing(), ()
