"""How each kind of result lies in its folder: Zarr, encoder folder, or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuro.errors import StageError

FILES = {"dataset": "data.zarr", "encoder": "encoder", "table": "table.parquet"}


def save(value: Any, returns: str, folder: Path) -> None:
    """Write a result into a folder.

    Raises
    ------
    StageError
        Where the value is not of the kind that the stage declares.
    """
    path = folder / FILES[returns]
    if returns == "dataset":
        import xarray as xr

        from neuro.data import save_dataset

        _check(value, xr.Dataset, "an xarray.Dataset")
        save_dataset(value, path)
    elif returns == "encoder":
        from neuro.encoder import Encoder

        _check(value, Encoder, "a neuro.Encoder")
        value.save(path)
    else:
        import pandas as pd

        _check(value, pd.DataFrame, "a pandas.DataFrame")
        value.to_parquet(path)


def _check(value: Any, kind: type, name: str) -> None:
    if not isinstance(value, kind):
        raise StageError(f"the stage returned {type(value).__name__}; it declares {name}")


def load(folder: Path, returns: str) -> Any:
    """Open a result; a dataset lazily."""
    path = folder / FILES[returns]
    if returns == "dataset":
        from neuro.data import open_dataset

        return open_dataset(path)
    if returns == "encoder":
        from neuro.encoder import load as load_encoder

        return load_encoder(path)
    import pandas as pd

    return pd.read_parquet(path)


def describe(folder: Path, returns: str) -> dict[str, Any]:
    """Return what the manifest notes of a result that has just been saved.

    The items of a dataset are noted where it names what an item is; where every trial is one
    they are found when a stage asks for them.
    """
    if returns != "dataset":
        return {}
    data = load(folder, returns)
    return {"items": items(data)} if "item" in data.attrs else {}


def items(data: Any) -> list[tuple[str, str]]:
    """Return the items of a dataset, each with the digest of its content."""
    from neuro.data import item_digests

    return item_digests(data)


def select(data: Any, item: str) -> Any:
    """Return one item of a dataset."""
    from neuro.data import select_item

    return select_item(data, item)


def join(values: list[Any], returns: str) -> Any:
    """Put the results of all items together: datasets along trial, tables below one another."""
    if returns == "dataset":
        from neuro.data import concat

        return concat(values)
    import pandas as pd

    return pd.concat(values, ignore_index=True)
