"""Every shipped workflow can be planned: fields, wires and lists fit the stages of today."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuro.cli import app

SHIPPED = sorted((Path(__file__).parents[1] / "workflows").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_workflows_fit_the_stages(path):
    if "env:NEURO_DATA" in path.read_text() and "NEURO_DATA" not in os.environ:
        pytest.skip("needs NEURO_DATA")
    result = CliRunner().invoke(app, ["check", str(path)])
    found = [line for line in result.output.splitlines() if "stages." in line]
    if path.stem == "eeg-remap":  # made to be given files
        found = [line for line in found if "expected a path" not in line]
    assert not found, result.output
