"""Fields in words, and options parsed from a model the command line has never seen."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from neuro.errors import InputError
from neuro.options import describe, split_options
from neuro.stage import Files, Params
from neuro.units import Hertz, Volts


class Inner(Params):
    n_subjects: int = Field(30, ge=1)
    """How many."""


class Outer(Params):
    files: Files | None = None
    """Recordings to read."""
    reject: Volts | None = 1e-4
    h_freq: Hertz
    network: Literal["conv", "mlp"] = "conv"
    baseline: tuple[float | None, float | None] | None = (None, 0.0)
    simulate: Inner = Inner()
    events: dict[str, int] = Field(default_factory=dict)


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    batch_size: int = Field(64, gt=0)
    align: bool = False
    channels: list[str] | None = None
    label: str | None = None


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("files", "glob or list of files or null", "null"),
        ("reject", "number (V) or null", "0.0001"),
        ("h_freq", "number (Hz)", "required"),
        ("network", "conv or mlp", "conv"),
        ("baseline", "[number or null, number or null] or null", "[null, 0.0]"),
        ("simulate", "mapping", "(below)"),
        ("simulate.n_subjects", "integer ≥ 1", "30"),
        ("events", "mapping of text to integer", "{}"),
    ],
)
def test_describe(name: str, kind: str, default: str) -> None:
    field = {field.name: field for field in describe(Outer)}[name]
    assert (field.type, field.default) == (kind, default)


def test_describe_takes_the_docstring() -> None:
    docs = {field.name: field.doc for field in describe(Outer)}
    assert docs["files"] == "Recordings to read."
    assert docs["simulate.n_subjects"] == "How many."


@pytest.mark.parametrize(
    ("words", "files", "values"),
    [
        (["a", "b"], ["a", "b"], {}),
        (["a", "--batch-size", "8", "b"], ["a", "b"], {"batch_size": 8}),
        (["--batch_size=8", "a"], ["a"], {"batch_size": 8}),
        (["--align", "a"], ["a"], {"align": True}),
        (["--align", "false", "a"], ["a"], {"align": False}),
        (["--no-align"], [], {"align": False}),
        (["--channels", "[Cz, Pz]"], [], {"channels": ["Cz", "Pz"]}),
        (["--channels", "Cz", "--channels", "Pz"], [], {"channels": ["Cz", "Pz"]}),
        (["--channels", "null"], [], {"channels": None}),
        (["--label", "1"], [], {"label": "1"}),
    ],
)
def test_split_options(words: list[str], files: list[str], values: dict[str, object]) -> None:
    assert split_options(words, Options) == (files, Options(**values))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batchsize", "8"], "unknown option '--batchsize'.*did you mean 'batch-size'"),
        (["--ot", "x"], "unknown option '--ot'.*did you mean 'out'"),
        (["--batch-size"], "lacks its value \\(integer > 0\\)"),
        (["--batch-size", "many"], "'--batch-size': found 'many'.*expected integer"),
        (["--batch-size", "0"], "'--batch-size': found '0'"),
        (["--channels", "[a"], "'\\[a' is no YAML value"),
        (["-x"], "unknown option '-x'"),
    ],
)
def test_wrong_options(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_options(words, Options, own=("out",))


@given(
    st.integers(1, 10**6),
    st.booleans(),
    st.lists(st.text(st.characters(categories=["L"]), min_size=1), min_size=1),
)
def test_options_read_back_what_was_written(size: int, align: bool, files: list[str]) -> None:
    flag = "--align" if align else "--no-align"
    words, options = split_options([flag, *files[:1], f"--batch-size={size}", *files[1:]], Options)
    spoken = files[0].lower() in {"true", "yes", "on", "false", "no", "off"}
    if align and spoken:  # the documented reading of `--align no`
        assert words == files[1:]
    else:
        assert (words, options) == (files, Options(batch_size=size, align=align))
