"""What a run was made with: versions, machine, state of the code."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import neuro

LIBRARIES = (
    "exca",
    "mne",
    "mne-bids",
    "numpy",
    "pandas",
    "pydantic",
    "pytorch-lightning",
    "scikit-learn",
    "scipy",
    "torch",
    "xarray",
    "zarr",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, this project and the libraries that results depend on."""
    found = {"python": platform.python_version(), "neuro": neuro.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what the run ran on."""
    from neuro.runner.cores import cores

    return {"platform": platform.platform(), "cores": cores(), "python": sys.executable}


def code_state(workflow: Path) -> dict[str, Any]:
    """Return the git state of the workflow's and of this project's folder, where there is one."""
    places = {"workflow": workflow.parent, "neuro": Path(neuro.__file__).parent}
    return {name: state for name, place in places.items() if (state := git_state(place))}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and cleanness of the repository that a folder is in, None outside of one."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return told.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
