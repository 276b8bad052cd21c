"""Read recordings of any format that MNE knows, and CSV tables by a column map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eeg.catalogue import find_recordings
from eeg.columns import is_csv, read_csv
from eeg.companions import bids_root_of, companions
from eeg.quality import Quality
from eeg.steps import ColumnMap
from neuro.errors import DataError, NeuroError

if TYPE_CHECKING:
    import mne

__all__ = ["bids_root_of", "companions", "find_recordings", "load", "read_recording"]

_RECORD = {".edf": "EDF", ".bdf": "BDF"}


def read_recording(
    path: Path | str, *, csv: ColumnMap | None = None, quality: Quality | None = None
) -> mne.io.BaseRaw | mne.BaseEpochs:
    """Read a recording: continuous, or ready-made epochs where the file holds those.

    Parameters
    ----------
    path : Path or str
        Anything `mne.io.read_raw` reads; epochs as ``.fif``, EEGLAB ``.set`` or FieldTrip
        ``.mat``; a CSV table; a file inside a BIDS study is read with its side-cars.
    csv : ColumnMap, optional
        Layout of a CSV table.
    quality : Quality, optional
        Takes the warnings of the reader.

    Returns
    -------
    mne.io.BaseRaw or mne.BaseEpochs
        In volts. Continuous data are not loaded yet, except from formats that can't wait.

    Raises
    ------
    DataError
        Where the file is missing, empty, cut short or of no known format.
    """
    path = Path(path)
    quality = Quality() if quality is None else quality
    _check_file(path)
    try:
        with quality.listen():
            recording = _read(path, csv or ColumnMap())
    except NeuroError:
        raise
    except Exception as error:
        raise DataError(_unreadable(path, error)) from error
    _check_names(path, recording)
    return recording


def load(recording: mne.io.BaseRaw | mne.BaseEpochs, name: Path | str) -> None:
    """Read the samples of a recording that was opened, in place.

    Raises
    ------
    DataError
        Where the file ends before its samples do.
    """
    import mne

    try:
        if isinstance(recording, mne.io.BaseRaw):
            recording.load_data(verbose="error")
        else:
            recording.load_data()
    except (ValueError, RuntimeError, OSError, EOFError) as error:
        raise DataError(_unreadable(Path(name), error)) from error


def _read(path: Path, csv: ColumnMap) -> mne.io.BaseRaw | mne.BaseEpochs:
    import mne

    if is_csv(path):
        return read_csv(path, csv)
    root, name = bids_root_of(path), path.name.lower()
    if name.endswith((".fif", ".fif.gz")):
        return _read_fif(path)
    if name.endswith(".set"):
        return _read_eeglab(path, root)
    if name.endswith(".mat"):
        return _read_fieldtrip(path)
    if root is not None:
        return _read_bids(path, root)
    return mne.io.read_raw(path, verbose="warning")


def _read_fif(path: Path) -> mne.io.BaseRaw | mne.BaseEpochs:
    import mne

    if mne.what(path) == "epochs":
        # proj=False: stored projectors are applied when asked for, not because they are there.
        return mne.read_epochs(path, proj=False, verbose="warning")
    return mne.io.read_raw(path, verbose="warning")


def _read_eeglab(path: Path, root: Path | None) -> mne.io.BaseRaw | mne.BaseEpochs:
    import mne

    try:
        return mne.io.read_raw(path, verbose="warning") if root is None else _read_bids(path, root)
    except TypeError:  # MNE's way to say that the file holds several trials
        return mne.read_epochs_eeglab(path, verbose="warning")


def _read_fieldtrip(path: Path) -> mne.io.BaseRaw | mne.BaseEpochs:
    import mne

    epochs = mne.read_epochs_fieldtrip(path, info=None)
    # FieldTrip keeps a continuous recording as one long trial.
    return epochs if len(epochs) > 1 else mne.io.read_raw_fieldtrip(path, info=None)


def _read_bids(path: Path, root: Path) -> mne.io.BaseRaw:
    import mne_bids

    bids_path = mne_bids.get_bids_path_from_fname(path, verbose="error")
    bids_path.update(root=root)
    return mne_bids.read_raw_bids(bids_path, verbose="warning")


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path")
    if path.is_dir():
        return
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    kind = _RECORD.get(path.suffix.lower())
    if kind is not None:
        _check_records(path, kind)


def _check_records(path: Path, kind: str) -> None:
    """Compare the length of an EDF or BDF file with what its header promises.

    MNE reads on with a warning; a recording that lacks its end has lost events, so it is refused.
    A header may say -1, which means that nobody counted.
    """
    with path.open("rb") as file:
        head = file.read(256)
        try:
            header, promised, n_signals = (
                int(head[start:stop]) for start, stop in ((184, 192), (236, 244), (252, 256))
            )
            file.seek(256 + n_signals * 216)
            per_record = sum(int(file.read(8)) for _ in range(n_signals))
        except ValueError as error:
            raise DataError(
                f"{path}: the {kind} header is damaged or cut short ({path.stat().st_size} bytes); "
                "copy the file again from its source"
            ) from error
    found = (path.stat().st_size - header) / (per_record * (3 if kind == "BDF" else 2))
    if promised != -1 and found < promised:
        raise DataError(
            f"{path}: the {kind} header promises {promised} data records, the file holds "
            f"{max(found, 0):.1f}: it was cut short; copy it again from its source"
        )


def _check_names(path: Path, recording: mne.io.BaseRaw | mne.BaseEpochs) -> None:
    # MNE renames doubled channels to NAME-0, NAME-1; which one is meant can't be known.
    names = recording.ch_names
    doubled = [name[:-2] for name in names if name.endswith("-0") and f"{name[:-2]}-1" in names]
    if doubled:
        raise DataError(
            f"{path}: the channels {', '.join(doubled)} stand there more than once; "
            "channel names must be unique: rename or remove them in the file"
        )


def _unreadable(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    size = f"{path.stat().st_size} bytes" if path.is_file() else "a folder"
    return (
        f"{path}: can't be read as a recording ({size}): {reason}. Expected a complete file of a "
        "format that mne.io.read_raw or mne.read_epochs reads, or a CSV table; if it is one, "
        "it is cut short or damaged: copy it again from its source"
    )
