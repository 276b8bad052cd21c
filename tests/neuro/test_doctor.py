"""The doctor answers most where things are broken."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from neuro import doctor


def test_examine_covers_everything(tmp_path: Path) -> None:
    whats = [finding.what for finding in doctor.examine(tmp_path, tmp_path / "cache")]
    for what in ("python", "neuro", "dependencies", "cores", "memory", "runs", "cache"):
        assert what in whats
    assert "NEURO_DATA" in whats
    assert any(what.startswith("gpu") for what in whats)
    assert any(what.startswith("stages ") for what in whats)


def test_no_data_folder_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEURO_DATA", raising=False)
    (found,) = doctor.data_folder()
    assert found.status == "note"
    assert "export NEURO_DATA" in found.advice


def test_a_wrong_data_folder_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEURO_DATA", str(tmp_path / "nowhere"))
    (found,) = doctor.data_folder()
    assert found.status == "missing"
    assert "nowhere" in found.found


def test_the_data_folder_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "eeg-a").mkdir()
    monkeypatch.setenv("NEURO_DATA", str(tmp_path))
    (found,) = doctor.data_folder()
    assert (found.status, "1 data sets" in found.found) == ("ok", True)


def test_a_file_in_the_way_of_the_cache(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    (found,) = doctor.disk("cache", blocked / "cache")
    assert found.status == "missing"
    assert "NEURO_CACHE" in found.advice


def test_low_disk_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK", 1e30)
    (found,) = doctor.disk("runs", tmp_path)
    assert (found.status, "neuro clean" in found.advice) == ("note", True)


def test_old_and_absent_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-package>=1", "rich>=13", "autoreject>=1; extra == 'x'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    found = {f.what: f for f in doctor.versions()}
    assert found["numpy"].status == "missing"
    assert "expected >=999" in found["numpy"].found
    assert "not installed" in found["no-such-package"].found
    assert "rich" in found["dependencies"].found
    assert "autoreject" not in found


def test_an_absent_extra_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["no-such-package; extra == 'autoreject'"]
    )
    found = {f.what: f for f in doctor.extras()}["extra autoreject"]
    assert (found.status, "[autoreject]" in found.advice) == ("note", True)


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("toy", "no_such_module.stages", "neuro.stages")
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: [point])
    monkeypatch.setattr(doctor, "hidden_by", lambda point: None)
    found = next(doctor.entry_points())
    assert (found.what, found.status) == ("stages toy", "missing")
    assert "no_such_module" in found.found


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("libcuda is odd")

    monkeypatch.setattr(doctor, "devices", broken)
    found = [f for f in doctor.examine(tmp_path, tmp_path) if "libcuda is odd" in f.found]
    assert [f.status for f in found] == ["missing"]


def test_a_file_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "eeg.py").write_text("")
    code = "from neuro.doctor import entry_points; print(*entry_points(), sep='\\n')"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"hidden by {tmp_path / 'eeg.py'}" in answer.stdout
    assert "rename it" in answer.stdout
