"""Stages come from entry points alone; a broken package is named and harms nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neuro.errors import InputError
from neuro.runner import registry


def add_package(folder, name: str, code: str, module: str | None = None) -> None:
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[neuro.stages]\n{name} = {module or name}\n")


@pytest.fixture
def packages(tmp_path, plugin, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def test_the_plugin_is_found(plugin):
    assert {"toy-bursts", "toy-train", "eeg-epochs"} <= set(registry.stages())
    assert registry.get_stage("toy-train").together is not None
    assert registry.encoders()["toy-two-part"].load().__name__ == "TwoPart"


def test_a_broken_package_is_named_and_the_others_work(packages):
    add_package(packages, "broken_one", "import nothing_of_this_name\n")
    registry.forget()
    assert "toy-bursts" in registry.stages()
    (reason,) = registry.broken().values()
    assert "nothing_of_this_name" in reason
    with pytest.raises(InputError, match=r"broken_one.*nothing_of_this_name"):
        registry.get_stage("unknown-stage")


def test_a_name_declared_twice_keeps_the_first_and_names_the_other(packages):
    add_package(
        packages,
        "zz_twice",
        "from neuro.stage import *\nfrom neuro.stage import stage, Params, Context, Dataset\n"
        "@stage('toy-bursts', version=9)\n"
        "def mine(params: Params, context: Context) -> Dataset:\n    'Mine.'\n",
    )
    registry.forget()
    assert registry.get_stage("toy-bursts").version == 1
    assert "already declared" in next(iter(registry.broken().values()))


def test_a_file_that_hides_a_package_of_ours_is_named(tmp_path):
    (tmp_path / "eeg.py").write_text("x = 1\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from neuro.errors import InputError\n"
        "from neuro.runner.registry import stages\n"
        "try:\n    stages()\nexcept InputError as error:\n    print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert f"{tmp_path / 'eeg.py'} hides the package 'eeg'" in told.stdout
    assert "rename your file" in told.stdout
