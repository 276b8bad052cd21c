"""Stages of a plugin: each shows one thing that the runner must carry."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from neuro.errors import DataError
from neuro.stage import Context, Dataset, Encoder, File, Files, Params, Table, stage
from neuro.units import Volts


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    n_bursts: int = 4
    n_times: int = 16


class BurstsParams(Params):
    files: Files | None = None
    """Text files, one device each; without them bursts are simulated."""
    n_devices: int = 3
    """Simulated devices."""
    shape: Shape = Shape()
    """Size of what is simulated."""
    noise: Volts = 0.1
    """Noise of the simulated bursts."""
    seed: int = 0
    """Seed of the simulation."""

    def reads(self) -> list[Path]:
        """Name the side-cars."""
        return [p for f in self.files or [] if (p := f.with_suffix(".side")).exists()]


def simulated(name: str, shape: Shape, noise: float, seed: int) -> Dataset:
    import numpy as np
    import xarray as xr

    number = sum(map(ord, name))
    rng = np.random.default_rng([seed, number])
    signal = rng.normal(size=(shape.n_bursts, 2, shape.n_times)) * noise + number % 7
    return xr.Dataset(
        {"signal": (("trial", "iq", "time"), signal.astype(np.float32))},
        coords={
            "iq": ["i", "q"],
            "time": np.arange(shape.n_times) / 10.0,
            "subject": ("trial", [name] * shape.n_bursts),
            "recording": ("trial", [name] * shape.n_bursts),
        },
        attrs={"kind": "rf", "units": "V", "sfreq": 10.0, "item": "recording", "labels": []},
    )


@stage("toy-bursts", version=1)
def bursts(params: BurstsParams, context: Context) -> Dataset:
    """Simulate bursts of radio devices, or take one device for each file."""
    from neuro.data import concat

    if params.files is None:
        names = [f"device{i}" for i in range(params.n_devices)]
        parts = [simulated(n, params.shape, params.noise, params.seed) for n in names]
    else:
        parts = [
            simulated(f.stem, params.shape, params.noise, len(f.read_text())) for f in params.files
        ]
    context.method("Bursts were simulated.")
    context.section("Bursts", f"{len(parts)} devices")
    return concat(parts)


class ScaleParams(Params):
    factor: float = 2.0
    """What the signal is multiplied by."""
    kill_on: str | None = None
    """The item at which the process dies."""
    fail_on: str | None = None
    """The item that can't be scaled."""
    trace: str | None = None
    """A file to which every call adds a line."""
    wait: float = 0.0
    """Seconds to take."""
    keep: int | None = None
    """Keep the first trials only."""


def traced(params: ScaleParams, text: str) -> None:
    if params.trace:
        with Path(params.trace).open("a") as file:
            file.write(f"{text}\n")
    time.sleep(params.wait)


@stage("toy-scale", version=1)
def scale(data: Dataset, params: ScaleParams, context: Context) -> Dataset:
    """Multiply the signal; made for `each:`."""
    items = sorted(set(data.recording.values.tolist()))
    traced(params, ",".join(items))
    if params.kill_on in items:
        os.kill(os.getpid(), signal.SIGKILL)
    if params.fail_on in items:
        raise DataError(f"{params.fail_on} can't be scaled; leave it out")
    context.metric(f"scaled.{items[0]}.mean", float(data.signal.mean()))
    return data.assign(signal=data.signal * params.factor).isel(trial=slice(params.keep))


class ReadParams(Params):
    file: File
    """The file of one device."""


@stage("toy-read", version=1)
def read(params: ReadParams, context: Context) -> Dataset:
    """Read one file; made for `each:` over files."""
    return simulated(params.file.stem, Shape(), 0.1, len(params.file.read_text()))


class TrainParams(Params):
    gain: float = 1.0
    """Gain of the first part."""
    seed: int = 0
    """Seed."""
    trace: str | None = None
    """A file to which every call adds a line."""
    die: Literal["no", "kill", "interrupt"] = "no"
    """End the process in the middle."""


def _train_together(inputs, params, contexts):
    if params[0].trace:
        with Path(params[0].trace).open("a") as file:
            file.write(f"together {len(params)}\n")
    return [_train_one(inputs["bursts"], p, c) for p, c in zip(params, contexts, strict=True)]


def _train_one(bursts, params, context):
    from toy_plugin.encoder import TwoPart

    (context.scratch / "checkpoint").write_text("half")
    if params.die != "no":
        os.kill(os.getpid(), signal.SIGKILL if params.die == "kill" else signal.SIGINT)
        time.sleep(5)
    return TwoPart(params.gain, params.seed).fit(bursts.signal)


@stage("toy-train", version=1, together=_train_together)
def train(bursts: Dataset, params: TrainParams, context: Context) -> Encoder:
    """Fit the two-part encoder; made for `sweep:`."""
    return _train_one(bursts, params, context)


class HiddenParams(Params):
    source: str
    """A file that is read behind the runner's back."""


@stage("toy-hidden", version=1)
def hidden(params: HiddenParams, context: Context) -> Dataset:
    """Depend on something that is not declared."""
    return simulated("device", Shape(), 0.1, int(Path(params.source).read_text()))


class CompareParams(Params):
    scored: str = "devices"
    """Identity of the test split."""


@stage("toy-compare", version=1)
def compare(
    bursts: Dataset, encoders: list[Encoder], params: CompareParams, context: Context
) -> Table:
    """Compare the members of a sweep: a stage of two inputs, one of them a list."""
    import numpy as np
    import pandas as pd

    rows = []
    for encoder, member in zip(encoders, context.members["encoders"], strict=True):
        codes = np.asarray(encoder.transform(bursts.signal))
        rows.append({**member, "spread": float(codes.std())})
    context.metric("toy.spread", rows[0]["spread"], low=0.0, n=len(rows), n_unit="member")
    context.predictions(
        pd.DataFrame(
            {
                "item": [f"trial{i}" for i in range(bursts.sizes["trial"])],
                "unit": bursts.subject.values.tolist(),
                "fold": 0,
                "target": "power",
                "truth": 1.0,
                "score": codes[:, 0].astype(float),
            }
        )
    )
    context.scored(params.scored)
    context.warn("toys are no science")
    return pd.DataFrame(rows)


@stage("toy-spread", version=1)
def spread(bursts: Dataset, encoder: Encoder, params: CompareParams, context: Context) -> Table:
    """Describe one encoder: takes one value, so a sweep needs `each:`."""
    import numpy as np
    import pandas as pd

    value = float(np.asarray(encoder.transform(bursts.signal)).std())
    context.metric("toy.one.spread", value)
    return pd.DataFrame({"spread": [value]})
