"""Shared fixtures: where the real recordings are, and quiet threads under xdist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(scope="session")
def neuro_data() -> Path:
    """The folder of real recordings; tests that ask for it are skipped where it is not set."""
    folder = os.environ.get("NEURO_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NEURO_DATA names no folder of real recordings")
    return Path(folder)
