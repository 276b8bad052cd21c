"""What an installation must keep to: quick imports, shipped workflows, types."""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "xarray", "pandas", "exca", "mne", "pytorch_lightning", "sklearn", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after `code`."""
    listing = f"import sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(out.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import neuro",
        "import eeg, fmri, timeseries",
        "import eeg.stages",
        "import neuro.cli",
        "from neuro.runner.schema import load_workflow; load_workflow('eeg-beta-vae')",
    ],
)
def test_import_pulls_in_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


@pytest.mark.parametrize("package", ["neuro", "eeg", "fmri", "timeseries"])
def test_packages_are_typed(package: str) -> None:
    assert importlib.resources.files(package).joinpath("py.typed").is_file()
