"""The examples in the docstrings of the installed packages run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("neuro", "eeg", "fmri", "timeseries")


def modules() -> list[str]:
    """Every module of the packages, by its dotted name."""
    found = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        found += [module.name for module in pkgutil.walk_packages(path, f"{package}.")]
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
