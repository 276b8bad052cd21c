"""The command line as a user meets it: through the installed script, in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

TINY = Path(__file__).parent / "tiny"
TOY = Path(__file__).parents[1] / "plugin"
SCRIPT = Path(sysconfig.get_path("scripts")) / "neuro"
COMMANDS = (
    "run",
    "plan",
    "check",
    "stages",
    "schema",
    "decode",
    "report",
    "new",
    "doctor",
    "compare",
    "clean",
)
HEAVY = {"torch", "mne", "xarray", "pandas", "numpy", "sklearn", "exca", "matplotlib", "pydantic"}


def environment(*paths: Path) -> dict[str, str]:
    quiet = {"NO_COLOR": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    kept = {k: v for k, v in os.environ.items() if k not in ("NEURO_CACHE", "PYTHONPATH")}
    return {**kept, **quiet, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def neuro(*words: object, cwd: Path, paths: tuple[Path, ...] = (TINY,)) -> tuple[int, str, str]:
    """Run the command line; return exit code, stdout and stderr. No traceback may be in them."""
    answer = subprocess.run(
        [SCRIPT, *map(str, words)],
        cwd=cwd,
        env=environment(*paths),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "--debug" not in words:
        assert "Traceback (" not in answer.stderr + answer.stdout
    return answer.returncode, answer.stdout, answer.stderr


# ---------------------------------------------------------------------------------------- help


def test_help_names_every_command(tmp_path: Path) -> None:
    code, out, _ = neuro("--help", cwd=tmp_path)
    assert code == 0
    for command in COMMANDS:
        assert f" {command} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str, tmp_path: Path) -> None:
    code, out, _ = neuro(command, "--help", cwd=tmp_path)
    assert code == 0
    assert f"Example: neuro {command}" in out


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, neuro.cli\n"
        "sys.argv = ['neuro', '--help']\n"
        "try: neuro.cli.main()\n"
        "except SystemExit: pass\n"
        f"print('LOADED', {HEAVY!r} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "LOADED set()"


def test_version(tmp_path: Path) -> None:
    import neuro as package

    assert neuro("--version", cwd=tmp_path) == (0, f"neuro {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu", "x"], "'run'"),
        (["check", "x", "--sett", "a=1"], "--set"),
        (["run"], "NAME|PATH"),
        (["run", "x", "--cluster", "cloud"], "slurm"),
        (["run", "x", "-j", "many"], "integer"),
        (["check", "egg-beta-vae"], "did you mean 'eeg-beta-vae'"),
        (["check", "no/such.yaml"], "no workflow file 'no/such.yaml'"),
        (["stages", "eeg-recording"], "did you mean 'eeg-recordings'"),
        (["new", "my.yaml", "--from", "egg-beta-vae"], "did you mean 'eeg-beta-vae'"),
        (["new", "my.txt", "--from", "eeg-beta-vae"], "must end in .yaml"),
        (["compare", "one", "two"], "'one' is no run"),
        (["report", "one"], "'one' is no run"),
        (["decode"], "name an encoder's folder"),
        (["decode", "no/encoder", "x.fif", "--out", "d"], "no/encoder"),
    ],
)
def test_wrong_input_ends_with_2_and_a_hint(words: list[str], hint: str, tmp_path: Path) -> None:
    code, _, err = neuro(*words, cwd=tmp_path)
    assert code == 2
    assert hint in err


# ------------------------------------------------------------------- check, stages, schema, new


def test_check_names_the_place_and_the_nearest_field(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "version: 1\nstages:\n  recordings:\n    use: eeg-recordings\n    filles: null\n"
    )
    code, out, err = neuro("check", "w.yaml", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "w.yaml:5:5" in err
    assert "did you mean 'files'" in err


def test_check_applies_sets(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("version: 1\nstages:\n  recordings: {use: eeg-recordings}\n")
    assert neuro("check", "w.yaml", cwd=tmp_path)[:2] == (0, "w.yaml: ok, 1 stage\n")
    code, _, err = neuro("check", "w.yaml", "--set", "recordings.seed=x", cwd=tmp_path)
    assert code == 2
    assert "recordings.seed" in err


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    for words in (["check", "gone.yaml", "--debug"], ["--debug", "check", "gone.yaml"]):
        code, _, err = neuro(*words, cwd=tmp_path)
        assert code == 2
        assert "Traceback" in err
        assert "InputError" in err


def test_stages_lists_and_explains(tmp_path: Path) -> None:
    code, out, _ = neuro("stages", cwd=tmp_path)
    assert code == 0
    assert any(line.startswith("eeg-recordings\t") for line in out.splitlines())
    code, out, _ = neuro("stages", "eeg-recordings", cwd=tmp_path)
    assert code == 0
    assert "eeg-recordings (version 1) -> dataset" in out
    assert "simulate.n_subjects\tinteger ≥ 2\t30\t" in out


def test_schema_to_stdout_and_to_a_file(tmp_path: Path) -> None:
    code, out, _ = neuro("schema", cwd=tmp_path)
    assert code == 0
    assert "stages" in json.loads(out)["properties"]
    assert neuro("schema", "deep/s.json", cwd=tmp_path)[:2] == (0, "deep/s.json\n")
    assert json.loads((tmp_path / "deep/s.json").read_text()) == json.loads(out)


def test_new_is_checked_named_and_never_overwrites(tmp_path: Path) -> None:
    words = ("new", "my study.yaml", "--from", "eeg-beta-vae")
    code, out, _ = neuro(*words, cwd=tmp_path)
    assert code == 0
    assert "neuro check" in out
    text = (tmp_path / "my study.yaml").read_text()
    assert "How to edit" in text
    assert "\nname: my-study" in text
    assert neuro("check", "my study.yaml", cwd=tmp_path)[0] == 0
    code, _, err = neuro(*words, cwd=tmp_path)
    assert code == 2
    assert "not overwritten" in err
    assert (tmp_path / "my study.yaml").read_text() == text


# -------------------------------------------------------------------------------------- doctor


def test_doctor_names_what_is_broken(tmp_path: Path) -> None:
    code, out, _ = neuro("doctor", cwd=tmp_path)
    assert code == 1  # the tiny plugin declares an encoder that can't be imported
    assert "missing\tencoder broken\t" in out
    assert "encoder broken" in out.splitlines()[-1]


# -------------------------------------------------------------------------------------- decode


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit the tiny encoder on subject s0 and save it; recordings of s0 and s1 lie beside it."""
    folder = tmp_path_factory.mktemp("decode")
    code = f"""
import numpy as np, xarray as xr
from neuro.data import save_dataset
from tiny_encoders import TinyPCA
def recording(seed):
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {{"signal": (("trial", "channel", "time"), rng.normal(size=(5, 2, 8)).astype("float32"))}},
        coords={{"channel": ["Cz", "Pz"], "time": np.arange(8) / 100,
                "subject": ("trial", [f"s{{seed}}"] * 5)}},
        attrs={{"units": "uV", "sfreq": 100.0}})
for seed in (0, 1, 2):
    save_dataset(recording(seed), {str(folder)!r} + f"/new/s{{seed}}.zarr")
save_dataset(recording(3).isel(channel=[0]), {str(folder)!r} + "/bad/narrow.zarr")
from neuro.data import as_signal
TinyPCA(n_latents=2).fit(as_signal(recording(0))).save({str(folder)!r} + "/encoder")
"""
    subprocess.run([sys.executable, "-c", code], env=environment(TINY), check=True)
    return folder / "encoder"


def test_decode(encoder: Path, tmp_path: Path) -> None:
    home = encoder.parent
    out = tmp_path / "out"
    files = [home / f"new/s{seed}.zarr" for seed in (0, 1)]
    code, said, err = neuro("decode", encoder, *files, "--out", out, cwd=home)
    assert code == 0
    assert said.startswith("2 decoded, 0 skipped")
    assert "trained on 5 of its 5 trials" in err
    assert "s1" not in err
    index = pd.read_csv(out / "decoded.tsv", sep="\t").set_index("name")
    assert index.n_seen_trials.to_dict() == {"s0": 5, "s1": 0}
    table = pd.read_csv(out / "s1.tsv", sep="\t")
    assert table.subject.tolist() == ["s1"] * 5
    codes = xr.open_zarr(out / "s1.zarr", chunks=None).codes.values
    np.testing.assert_allclose(table[table.columns[-2:]], codes, rtol=1e-6)
    # one more recording, by a quoted glob: only that one is new
    code, said, _ = neuro("decode", encoder, "new/*.zarr", "--out", out, cwd=home)
    assert (code, said.startswith("1 decoded, 2 skipped")) == (0, True)


def test_decode_goes_on_after_a_bad_file(encoder: Path, tmp_path: Path) -> None:
    home = encoder.parent
    (tmp_path / "broken.zarr").mkdir()
    files = [home / "bad/narrow.zarr", tmp_path / "broken.zarr", home / "new/s1.zarr"]
    code, said, err = neuro("decode", encoder, *files, "--out", tmp_path / "out", cwd=home)
    assert code == 1
    assert said.startswith("1 decoded, 0 skipped (done before), 2 failed")
    assert "narrow.zarr" in err
    assert "broken.zarr" in err


def test_decode_takes_the_encoders_options(encoder: Path, tmp_path: Path) -> None:
    for word in ("--options", "--help"):
        code, said, _ = neuro("decode", encoder, word, cwd=tmp_path)
        assert code == 0
        assert "--align\ttrue or false\tfalse" in said
    file = encoder.parent / "new/s1.zarr"
    words = ("decode", encoder, "--align", file, "--out", "out")
    assert neuro(*words, cwd=tmp_path)[0] == 0
    index = pd.read_csv(tmp_path / "out/decoded.tsv", sep="\t")
    assert json.loads(index.options[0])["align"] is True


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["new/*.zarr", "--out", "{out}", "--aling"], "did you mean 'align'"),
        (["new/*.zarr"], "--out DIR"),
        (["gone.fif", "--out", "{out}"], "no such file: 'gone.fif'"),
    ],
)
def test_decode_refuses_before_it_starts(
    words: list[str], hint: str, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    filled = [word.format(out=out) for word in words]
    code, _, err = neuro("decode", encoder, *filled, cwd=encoder.parent)
    assert code == 2
    assert hint in err
    assert not out.exists()


# ---------------------------------------------------------- run, plan, report, compare, clean

STUDY = """\
version: 1
name: study
stages:
  bursts: {use: toy-bursts}
  scaled: {use: toy-scale, each: "${bursts}"}
  train: {use: toy-train, bursts: "${scaled}", sweep: {gain: [1.0, 2.0]}}
  table: {use: toy-compare, bursts: "${scaled}", encoders: "${train}"}
"""


def toy(*words: object, cwd: Path) -> tuple[int, str, str]:
    return neuro(*words, cwd=cwd, paths=(TOY,))


def statuses(out: str) -> dict[str, str]:
    lines = [line.split("\t") for line in out.splitlines()[1:]]
    return {line[0]: line[2] for line in lines}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy study ran once."""
    home = tmp_path_factory.mktemp("study")
    (home / "study.yaml").write_text(STUDY)
    code, out, err = toy("run", "study.yaml", cwd=home)
    assert (code, out) == (0, "runs/study/report.html\n"), err
    assert "toys are no science" in err
    return home


def test_run_leaves_everything_in_the_run_folder(study: Path) -> None:
    run = study / "runs/study"
    for name in ("resolved.yaml", "provenance.json", "metrics.json", "predictions.parquet"):
        assert (run / name).is_file()
    assert "toys are no science" in (run / "report.html").read_text()
    assert "toy.spread" in json.loads((run / "metrics.json").read_text())


def test_plan_tells_the_reason(study: Path) -> None:
    code, out, _ = toy("plan", "study.yaml", cwd=study)
    assert code == 0
    assert set(statuses(out).values()) == {"cached"}
    code, out, _ = toy("plan", "study.yaml", "--set", "scaled.factor=3", cwd=study)
    assert statuses(out)["bursts"] == "cached"
    assert statuses(out)["scaled"] == "run"
    assert "factor: 2.0 → 3.0" in out
    code, out, _ = toy("plan", "study.yaml", "--force", "table", "--until", "table", cwd=study)
    assert "table\ttoy-compare\trun\t1 of 1\tforced" in out
    code, _, err = toy("plan", "study.yaml", "--until", "tabel", cwd=study)
    assert (code, "did you mean 'table'" in err) == (2, True)


def test_a_failed_stage_ends_with_1(study: Path, tmp_path: Path) -> None:
    words = ("run", study / "study.yaml", "--set", "scaled.fail_on=device1")
    code, out, err = toy(*words, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert "device1 can't be scaled; leave it out" in err
    assert "Tracebacks are in" in err
    code, out, _ = toy("plan", *words[1:], cwd=tmp_path)
    assert "failed last time" in out


def test_wrong_input_of_run_ends_with_2(study: Path, tmp_path: Path) -> None:
    file = study / "study.yaml"
    assert toy("run", file, "-j", "0", cwd=tmp_path)[0] == 2
    assert toy("run", file, "--set", "scaled.factr=1", cwd=tmp_path)[0] == 2
    (tmp_path / "blocked").write_text("")
    for option in ("--cache", "--out"):
        code, _, err = toy("run", file, option, "blocked", cwd=tmp_path)
        assert code == 2
        assert "blocked" in err


def heed_ctrl_c() -> None:
    """Undo what a shell did that runs the tests in the background: it has Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_with_130_and_one_line(study: Path, tmp_path: Path) -> None:
    words = ["run", study / "study.yaml", "--set", "scaled.wait=60"]
    command = [str(SCRIPT), *map(str, words), "--set", f"scaled.trace={tmp_path / 'trace'}"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(TOY), stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    for _ in range(300):
        if (tmp_path / "trace").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.rstrip().splitlines()[-1].startswith("Interrupted.")
    assert "Traceback (" not in err


def test_report_is_built_again(study: Path) -> None:
    report = study / "runs/study/report.html"
    report.unlink()
    code, out, _ = toy("report", "study", cwd=study)
    assert (code, out) == (0, "runs/study/report.html\n")
    assert "toys are no science" in report.read_text()


def test_the_encoder_of_a_run_decodes_by_its_own_options(study: Path, tmp_path: Path) -> None:
    encoder = study / "runs/study/train/gain=1.0"
    code, out, _ = toy("decode", encoder, "--options", cwd=study)
    assert code == 0
    assert "--scale\tnumber\t1.0\tFactor on the codes." in out
    words = ("decode", encoder, "runs/study/scaled", "--out", tmp_path / "out", "--scale", "2")
    code, out, err = toy(*words, cwd=study)
    assert code == 0, err
    assert "the encoder was trained on 12 of its 12 trials" in err


def test_compare(study: Path, tmp_path: Path) -> None:
    words = ("--set", "name=other", "--set", "train.sweep.gain=[1.0, 4.0]")
    assert toy("run", "study.yaml", *words, cwd=study)[0] == 0
    code, out, _ = toy("compare", "study", "runs/other", cwd=study)
    assert code == 0
    assert "toy.spread\t" in out
    (line,) = [line for line in out.splitlines() if line.startswith("power\tminus absolute error")]
    assert line.split("\t")[-2:] == ["3", "12"]  # devices, trials
    (study / "runs/other/predictions.parquet").unlink()
    code, out, err = toy("compare", "study", "other", cwd=study)
    assert (code, "No paired differences" in err) == (0, True)


def test_clean_shows_before_it_removes(study: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    for factor in (2.0, 3.0):
        words = ("run", "study.yaml", "--until", "scaled", "--set", f"scaled.factor={factor}")
        assert toy(*words, cwd=tmp_path)[0] == 0
    assert "4 results, " in toy("clean", "--unused", cwd=tmp_path)[1]
    code, out, _ = toy("clean", cwd=tmp_path)
    assert code == 0
    assert "toy-scale\t8\t" in out  # 3 items and their join, twice
    assert "4 results removed" in toy("clean", "--unused", "--yes", cwd=tmp_path)[1]
    _, out, _ = toy("plan", "study.yaml", "--until", "scaled", *words[-2:], cwd=tmp_path)
    assert set(statuses(out).values()) == {"cached"}
    assert toy("clean", "--yes", cwd=tmp_path)[0] == 2
    assert "5 results removed" in toy("clean", "--all", "--yes", cwd=tmp_path)[1]
