"""The toy plugin of tests/plugin, found through its entry points, and a study to run it in."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

from neuro.runner import registry

settings.register_profile("unhurried", deadline=None)  # machines of servers are shared
settings.load_profile("unhurried")

PLUGIN = Path(__file__).parents[1] / "plugin"

TOY = """\
version: 1
name: toy
seed: 3
stages:
  bursts:
    use: toy-bursts
  scaled:
    use: toy-scale
    each: ${bursts}
    factor: 2
  encoder:
    use: toy-train
    bursts: ${scaled}
    sweep:
      gain: [1, 2]
  table:
    use: toy-compare
    bursts: ${scaled}
    encoders: ${encoder}
  spread:
    use: toy-spread
    each: ${encoder}
    bursts: ${scaled}
"""


@dataclass
class Study:
    """A folder with a workflow of toy stages."""

    folder: Path
    text: str = TOY
    settings: dict = field(default_factory=dict)

    @property
    def path(self) -> Path:
        path = self.folder / "toy.yaml"
        path.write_text(self.text)
        return path

    @property
    def out(self) -> Path:
        return self.folder / "runs"

    @property
    def store(self):
        from neuro.runner.store import Store

        return Store(self.out / ".cache")

    def load(self, *sets: str):
        from neuro.runner.schema import load_workflow

        return load_workflow(self.path, sets)

    def plan(self, *sets: str, **kwargs) -> dict[str, tuple[str, str]]:
        from neuro.runner.plan import make_plan

        steps = make_plan(self.load(*sets), self.store, **kwargs).steps
        return {step.name: (step.status, step.reason) for step in steps}

    def run(self, *sets: str, **kwargs) -> Path:
        from neuro.runner.run import run

        settings = {"out": self.out, "progress": False, "cache": self.out / ".cache", **kwargs}
        return run(self.path, sets=sets, **settings)


@pytest.fixture
def plugin(monkeypatch):
    """Put the toy plugin where Python finds its entry points, here and in subprocesses."""
    monkeypatch.setattr(sys, "path", [str(PLUGIN), *sys.path])
    both = os.pathsep.join(p for p in (str(PLUGIN), os.environ.get("PYTHONPATH")) if p)
    monkeypatch.setenv("PYTHONPATH", both)
    monkeypatch.delenv("NEURO_CACHE", raising=False)
    registry.forget()
    yield
    registry.forget()


@pytest.fixture
def study(tmp_path, plugin) -> Study:
    """Return a fresh study of toy stages."""
    return Study(tmp_path)
