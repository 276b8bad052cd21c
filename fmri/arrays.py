"""Arrays of betas: ``.npy``, MATLAB (5 and 7.3) and HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import DataError

__all__ = ["ARRAYS", "is_array", "read_array", "read_variables"]

ARRAYS = (".npy", ".mat", ".h5", ".hdf5", ".hdf")
_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_array(path: Any) -> bool:
    """Say whether a file is an array file, by its name.

    Examples
    --------
    >>> is_array("betas.mat"), is_array("betas.nii.gz")
    (True, False)
    """
    return isinstance(path, str | Path) and Path(path).suffix.lower() in ARRAYS


def read_array(path: str | Path, variable: str | None = None) -> NDArray[Any]:
    """Read one numeric array.

    Parameters
    ----------
    path : path
        ``.npy`` is mapped into memory. A ``.mat`` of version 7.3 has its axes in MATLAB's order,
        not in that of the HDF5 file it is.
    variable : str, optional
        Name in a MATLAB or HDF5 file, groups with ``/``; needed where there are several arrays.

    Returns
    -------
    ndarray

    Raises
    ------
    DataError
        Where the file can't be read, or the variable isn't there or no array of numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.eye(2))
    ...     read_array(f"{folder}/a.npy").shape
    (2, 2)
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    if path.suffix.lower() == ".npy":
        return _numeric(_npy(path), path, path.stem)
    found = read_variables(path, None if variable is None else (variable,))
    if variable is None and len(found) != 1:
        raise DataError(
            f"{path}: holds the arrays {', '.join(found) or '(none)'}; say which with variable=..."
        )
    (name, values), *_ = found.items()
    return _numeric(values, path, name)


def _npy(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: can't be read as an array ({error}); expected a complete .npy file of "
            "numbers, without pickled objects"
        ) from error
    return found


def _numeric(values: NDArray[Any], path: Path, name: str) -> NDArray[Any]:
    if values.dtype.kind not in "iufb" or not values.size:
        raise DataError(
            f"{path}: '{name}' has the type {values.dtype} and shape {values.shape}; expected "
            "numbers"
        )
    return values


def read_variables(
    path: str | Path, names: tuple[str, ...] | None = None
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a MATLAB or HDF5 file by name; with `names` None all arrays of numbers.

    Raises
    ------
    DataError
        Where the file can't be read or lacks a name.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(520)
    # MATLAB 7.3 writes 512 bytes of its own before the HDF5 signature.
    is_hdf5 = head.startswith(_HDF5) or head[512:520] == _HDF5
    try:
        if is_hdf5:
            return _hdf5(path, names, matlab=path.suffix.lower() == ".mat")
        return _matlab(path, names)
    except DataError:
        raise
    except Exception as error:  # both libraries raise their own kinds
        kind = "HDF5" if is_hdf5 else "MATLAB 5"
        raise DataError(
            f"{path}: can't be read as a {kind} file ({path.stat().st_size} bytes): {error}; it is "
            "cut short, damaged or of another format"
        ) from error


def _matlab(path: Path, names: tuple[str, ...] | None) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat

    table = loadmat(path, variable_names=names)
    found = {k: v for k, v in table.items() if isinstance(v, np.ndarray) and k[:2] != "__"}
    if names is None:
        return {k: v for k, v in found.items() if v.dtype.kind in "iufb"}
    return _asked(found, names, path, lambda: [n for n, *_ in _whosmat(path)])


def _whosmat(path: Path) -> Any:
    from scipy.io import whosmat

    return whosmat(path)


def _hdf5(path: Path, names: tuple[str, ...] | None, *, matlab: bool) -> dict[str, NDArray[Any]]:
    import h5py

    with h5py.File(path, "r") as file:
        known: list[str] = []
        file.visititems(lambda n, item: known.append(n) if _is_numeric(item) else None)
        wanted = [n for n in known if not n.startswith("#")] if names is None else names
        found = {n: file[n][()] for n in wanted if n in known}
    if matlab:
        found = {n: v.T for n, v in found.items()}
    return _asked(found, tuple(wanted), path, lambda: known)


def _is_numeric(item: Any) -> bool:
    return getattr(getattr(item, "dtype", None), "kind", "O") in "iufb"


def _asked(
    found: dict[str, NDArray[Any]], names: tuple[str, ...], path: Path, known: Any
) -> dict[str, NDArray[Any]]:
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{path}: holds no array {', '.join(missing)}, only {', '.join(known()) or 'none'}"
        )
    return {name: found[name] for name in names}
