"""An encoder as JSON and named arrays, and back: the class comes from what is installed."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.contract import Contract
from neuro.errors import ContractError, InputError
from neuro.fitted_on import FittedOn
from neuro.standardize import Standardizer

if TYPE_CHECKING:
    from neuro.encoder import Encoder

GROUP = "neuro.encoders"
_NESTED = "$encoder"  # marks a parameter that is itself an encoder
_LIBRARIES = ("neuro-representations", "numpy", "torch", "scikit-learn", "xarray", "safetensors")

Packed = tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Any]]


def encoder_class(name: str) -> type[Encoder]:
    """Return the class that an installed package registered under a name.

    Parameters
    ----------
    name : str
        Of an entry point in the group ``neuro.encoders``.

    Raises
    ------
    ContractError
        Where no package has it, or the one that has it can't be imported.
    """
    from neuro.encoder import Encoder

    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if name not in points:
        raise ContractError(
            f"no installed package has the encoder '{name}'; known: "
            f"{', '.join(sorted(points)) or 'none'}; pip install the package that has it"
        )
    try:
        found = points[name].load()
    except Exception as error:  # a plugin's own code may fail in any way
        raise ContractError(
            f"the encoder '{name}' can't be imported from {points[name].value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Encoder)):
        raise ContractError(f"'{name}' ({points[name].value}) is no neuro.Encoder")
    return found


def pack(encoder: Encoder) -> Packed:
    """Take a fitted encoder apart.

    Returns
    -------
    config : dict
        Registered name, parameters, fitted sizes and the names of the parts.
    arrays : dict of str to ndarray
        Those of a part carry its name before a ``/``.
    preprocessing : dict
        The contract, and those of the parts under ``parts``.
    """
    if not encoder.name:
        raise InputError(f"{type(encoder).__name__} has no registered name; set the class's `name`")
    params = encoder.get_params(deep=False)
    config: dict[str, Any] = {
        "encoder": encoder.name,
        "params": {k: _to_json(v, k) for k, v in params.items()},
        "fitted": {"n_features_in": int(encoder.n_features_in_)},
    }
    if hasattr(encoder, "feature_names_in_"):
        config["fitted"]["feature_names_in"] = [str(n) for n in encoder.feature_names_in_]
    arrays = {k: np.asarray(v) for k, v in encoder.state_dict_arrays().items()}
    preprocessing = encoder.contract()
    there = [p for p in encoder.optional_parts if getattr(encoder, p, None) is not None]
    for part in (*encoder.parts, *there):
        inner = pack(getattr(encoder, part))
        config.setdefault("parts", {})[part] = inner[0]
        arrays.update({f"{part}/{k}": v for k, v in inner[1].items()})
        preprocessing.setdefault("parts", {})[part] = inner[2]
    return config, arrays, preprocessing


def unpack(
    config: dict[str, Any], arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
) -> Encoder:
    """Put an encoder together again; strict about names and shapes.

    Raises
    ------
    ContractError
        Where a parameter or an array is missing or unknown, by name.
    """
    encoder = _unfitted(config)
    try:
        _restore(encoder, config, preprocessing)
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(f"preprocessing.json lacks or misstates {error}") from error
    parts = config.get("parts", {})
    if set(parts) - set(encoder.optional_parts) != set(encoder.parts):
        raise ContractError(f"the parts are {sorted(parts)}, expected {sorted(encoder.parts)}")
    for part, inner in parts.items():
        own = {k.removeprefix(f"{part}/"): v for k, v in arrays.items() if _is_of(part, k)}
        setattr(encoder, part, unpack(inner, own, preprocessing.get("parts", {}).get(part, {})))
    rest = {k: v for k, v in arrays.items() if not any(_is_of(part, k) for part in parts)}
    _load_strictly(encoder, rest, preprocessing)
    return encoder


def libraries() -> dict[str, str]:
    """Return the versions of Python and of what an encoder is made with."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain_card(encoder: Encoder) -> str:
    """Write a model card from what the encoder itself knows."""
    contract, fitted = encoder.contract_, encoder.fitted_on_
    channels = ", ".join(contract.channels) if contract.channels else "not named"
    return f"""# {encoder.name}

An encoder of trials `({", ".join(contract.dims[1:])})` = {contract.shape} into
{encoder._n_features_out} latents. Load it with `neuro.load(folder)`.

## Data

- fitted on {len(fitted.trials)} trials of {len(fitted.subjects) or "unnamed"} subjects
- channels: {channels}
- units: {contract.units or "not stated"}; sampling rate: {contract.sfreq or "not stated"} Hz

## Metrics

None were handed to the model card.

## Intended use

Research on recordings like those above. New data must match `preprocessing.json`. Not for
clinical decisions.
"""


def _is_of(part: str, key: str) -> bool:
    return key.startswith(f"{part}/")


def _unfitted(config: dict[str, Any]) -> Encoder:
    cls = encoder_class(str(config["encoder"]))
    params = {k: _from_json(v) for k, v in config["params"].items()}
    known = cls._get_param_names()
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ContractError(
            f"'{cls.name}' has no parameter {', '.join(unknown)}; known: {', '.join(known)}; "
            "install the version of its package that wrote the folder"
        )
    return cls(**params)


def _restore(encoder: Encoder, config: dict[str, Any], preprocessing: dict[str, Any]) -> None:
    encoder.contract_ = Contract.from_dict(preprocessing)
    encoder.fitted_on_ = FittedOn.from_dict(preprocessing["fitted_on"])
    encoder.n_features_in_ = int(config["fitted"]["n_features_in"])
    if "feature_names_in" in config["fitted"]:
        encoder.feature_names_in_ = np.array(config["fitted"]["feature_names_in"], dtype=object)
    statistics = preprocessing.get("standardisation")
    if isinstance(statistics, dict) and set(statistics) == {"mean", "sd"}:
        encoder.standardizer_ = Standardizer.from_dict(statistics)


def _load_strictly(
    encoder: Encoder, arrays: dict[str, NDArray[Any]], preprocessing: dict[str, Any]
) -> None:
    try:
        encoder.load_state_arrays(arrays, preprocessing)
    except KeyError as error:
        raise ContractError(
            f"model.safetensors has no array {error} that '{encoder.name}' needs; "
            f"found {sorted(arrays)}"
        ) from error
    expected = {k: np.shape(v) for k, v in encoder.state_dict_arrays().items()}
    found = {k: v.shape for k, v in arrays.items()}
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise ContractError(
            f"model.safetensors: missing arrays {missing}, unknown arrays {unknown} for "
            f"'{encoder.name}'"
        )
    wrong = [f"{k} {found[k]} for {expected[k]}" for k in found if found[k] != expected[k]]
    if wrong:
        raise ContractError(f"model.safetensors: other shapes than expected: {', '.join(wrong)}")


def _to_json(value: Any, name: str) -> Any:
    from neuro.encoder import Encoder

    if isinstance(value, Encoder):
        inner = value.get_params(deep=False)
        return {_NESTED: value.name, "params": {k: _to_json(v, k) for k, v in inner.items()}}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_to_json(v, name) for v in value]
    if isinstance(value, dict):
        return {str(k): _to_json(v, name) for k, v in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"the parameter '{name}' is {type(value).__name__}, which JSON can't hold; give a number, "
        "a text or a list (random_state: a whole number)"
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {_NESTED, "params"}:
        return _unfitted({"encoder": value[_NESTED], "params": value["params"]})
    return value
