"""Send a new capture through the preprocessing that an encoder was trained with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from neuro.contract import Contract
from neuro.errors import ContractError
from timeseries.read import read_capture
from timeseries.rf.bursts import Detector
from timeseries.rf.preprocess import Steps, read_bursts

if TYPE_CHECKING:
    from timeseries.rf.drrff import RFDecodeOptions

__all__ = ["replay"]


def replay(path: Path, contract: Contract, options: RFDecodeOptions) -> xr.Dataset:
    """Read the bursts of a capture as the training bursts were.

    Parameters
    ----------
    path : Path
    contract : Contract
        Of the encoder.
    options : RFDecodeOptions

    Returns
    -------
    Dataset
        ``signal (trial, iq, time)``.

    Raises
    ------
    ContractError
        Where the history is not known, or the capture has another rate and `resample` is off.
    """
    if not isinstance(contract.steps, dict) or "steps" not in contract.steps:
        raise ContractError(
            f"{path}: the encoder was fitted on an array without a history, so that it is not "
            "known how to cut bursts; pass them to transform"
        )
    history: dict[str, Any] = contract.steps
    capture = read_capture(path, sfreq=options.sfreq, datatype=options.datatype)
    steps = Steps(**history["steps"])
    detector = None if history["detector"] is None else Detector(**history["detector"])
    if steps.sfreq is None and contract.sfreq and not np.isclose(capture.sfreq, contract.sfreq):
        if not options.resample:
            raise ContractError(
                f"{path}: sfreq is {capture.sfreq:g} Hz, the encoder was trained at "
                f"{contract.sfreq:g} Hz; --resample brings it to that"
            )
        steps = replace(steps, sfreq=contract.sfreq)
    label = {"device": "", "capture": path.stem, "session": ""}
    found = read_bursts([capture], [label], steps, detector=detector, bursts=history["bursts"])
    found = found.rename(device="label")  # what a file says of itself is no proof
    return found.assign_attrs(preprocessing=json.dumps(history))
