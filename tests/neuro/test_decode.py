"""Decoding many recordings: one result each, resumable, one bad file does not stop the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pydantic import BaseModel

import neuro
from neuro.decode import (
    Outcome,
    Row,
    complaints,
    content_digest,
    decode,
    expand,
    folder_digest,
    read_index,
    stem,
    summary,
    to_table,
)
from neuro.errors import DataError, InputError
from neuro.runner.fingerprint import Fingerprints


class Options(BaseModel):
    scale: float = 1.0


class Doubler:
    """Reads one number per line; two latents of it. What was decoded is counted."""

    DecodeOptions = Options

    def __init__(self, trained_on: tuple[float, ...] = ()) -> None:
        self.trained_on = trained_on
        self.decoded: list[str] = []

    def companions(self, path: Path) -> list[Path]:
        return [side] if (side := path.with_suffix(".events")).exists() else []

    def decode(self, path: Path, options: Options) -> xr.Dataset:
        self.decoded.append(path.name)
        try:
            x = np.array([float(line) for line in path.read_text().split()]) * options.scale
        except ValueError as error:
            raise DataError(f"{path}: expected numbers, found words; write it again") from error
        known = np.isin(x, self.trained_on)
        return xr.Dataset(
            {
                "latents": (("trial", "latent"), np.stack([x, 2 * x], 1)),
                "denoised": (("trial", "channel", "time"), np.zeros((len(x), 1, 3))),
            },
            coords={
                "subject": ("trial", ["s1"] * len(x)),
                "latent": ["z0", "z1"],
                "seen_trial": ("trial", known),
                "seen_subject": ("trial", np.full(len(x), known.any())),
            },
        )


def write(path: Path, text: str = "1 2 3") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run(encoder: Any, files: list[Path], out: Path, **options: Any) -> list[Outcome]:
    return decode(encoder, files, out, Options(**options), identity="e1")


def test_one_result_per_recording(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt"), write(tmp_path / "b.txt", "4")]
    told: list[Outcome] = []
    encoder: Any = Doubler()
    out = tmp_path / "out"
    outcomes = decode(encoder, files, out, Options(), identity="e1", told=told.append)
    assert told == outcomes
    assert [o.row.status for o in outcomes] == ["done", "done"]
    assert [o.row.n_trials for o in outcomes] == [3, 1]
    data = neuro.open_dataset(out / "a.zarr", load=True)
    np.testing.assert_array_equal(data.latents, [[1, 2], [2, 4], [3, 6]])
    table = pd.read_csv(out / "a.tsv", sep="\t")
    assert list(table) == [
        "trial",
        "subject",
        "seen_trial",
        "seen_subject",
        "z0",
        "z1",
    ]
    np.testing.assert_array_equal(table[["z0", "z1"]], data.latents)
    index = pd.read_csv(out / "decoded.tsv", sep="\t")
    assert list(index["name"]) == ["a", "b"]
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == [
        "a.tsv", "a.zarr", "b.tsv", "b.zarr", "decoded.tsv",
    ]  # fmt: skip


def test_what_is_done_is_skipped(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt"), write(tmp_path / "b.txt")]
    encoder = Doubler()
    run(encoder, files[:1], tmp_path / "out")
    outcomes = run(encoder, files, tmp_path / "out")
    assert encoder.decoded == ["a.txt", "b.txt"]
    assert [o.skipped for o in outcomes] == [True, False]


@pytest.mark.parametrize("change", ["content", "companion", "options", "encoder", "lost", "part"])
def test_what_changed_is_decoded_anew(tmp_path: Path, change: str) -> None:
    file, out = write(tmp_path / "a.txt"), tmp_path / "out"
    encoder: Any = Doubler()
    run(encoder, [file], out)
    options, identity = Options(), "e1"
    if change == "content":
        write(file, "1 2 4")
    elif change == "companion":
        write(tmp_path / "a.events", "1")
    elif change == "options":
        options = Options(scale=2)
    elif change == "encoder":
        identity = "e2"
    elif change == "lost":
        (out / "decoded.tsv").unlink()
    else:
        (out / "a.tsv").unlink()
    (outcome,) = decode(encoder, [file], out, options, identity=identity)
    assert not outcome.skipped
    assert encoder.decoded == ["a.txt", "a.txt"]


def test_a_bad_file_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt", "x y"), write(tmp_path / "b.txt")]
    outcomes = run(Doubler(), files, tmp_path / "out")
    assert [o.row.status for o in outcomes] == ["failed", "done"]
    assert "expected numbers" in read_index(tmp_path / "out")["a"].error
    assert "a.txt" in complaints(outcomes)[0]
    assert summary(outcomes, tmp_path).startswith("1 decoded, 0 skipped (done before), 1 failed")


def test_a_failed_file_is_tried_again(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "x")
    run(Doubler(), [file], tmp_path / "out")
    write(file, "1")
    (outcome,) = run(Doubler(), [file], tmp_path / "out")
    assert (outcome.row.status, outcome.row.error) == ("done", "")
    assert read_index(tmp_path / "out")["a"] == outcome.row


def test_no_old_result_passes_for_that_of_a_file_now_bad(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt")
    run(Doubler(), [file], tmp_path / "out")
    write(file, "x")
    run(Doubler(), [file], tmp_path / "out")
    assert not (tmp_path / "out" / "a.zarr").exists()
    assert not (tmp_path / "out" / "a.tsv").exists()


def test_files_of_one_name_keep_apart(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{s}/eeg.txt", text) for s, text in (("s1", "1"), ("s2", "2"))]
    out = tmp_path / "out"
    for _ in range(2):  # together, and again from the index
        names = [o.row.name for o in run(Doubler(), files, out)]
        assert names == ["eeg", "s2_eeg"]
    assert pd.read_csv(out / "s2_eeg.tsv", sep="\t")["z0"].tolist() == [2]
    assert [o.row.name for o in run(Doubler(), files[1:], out)] == ["s2_eeg"]


def test_another_file_of_that_name_does_not_replace_a_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(Doubler(), [write(tmp_path / "s1/eeg.txt", "1")], out)
    (second,) = run(Doubler(), [write(tmp_path / "s2/eeg.txt", "2")], out)
    (third,) = run(Doubler(), [write(tmp_path / "more/s2/eeg.txt", "3")], out)
    assert [second.row.name, third.row.name] == ["s2_eeg", "s2_eeg-2"]
    assert pd.read_csv(out / "eeg.tsv", sep="\t")["z0"].tolist() == [1]


def test_a_moved_file_is_not_decoded_again(tmp_path: Path) -> None:
    file, encoder = write(tmp_path / "old/a.txt"), Doubler()
    run(encoder, [file], tmp_path / "out")
    (tmp_path / "old").rename(tmp_path / "new")
    (outcome,) = run(encoder, [tmp_path / "new/a.txt"], tmp_path / "out")
    assert outcome.skipped


def test_what_the_encoder_was_trained_on_is_flagged(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt"), write(tmp_path / "b.txt", "9")]
    outcomes = run(Doubler(trained_on=(1.0, 2.0)), files, tmp_path / "out")
    assert [o.row.n_seen_trials for o in outcomes] == [2, 0]
    (warning,) = complaints(outcomes)
    assert "trained on 2 of its 3 trials" in warning
    (again, _) = run(Doubler(), files, tmp_path / "out")
    assert again.row.n_seen_trials == 2


def test_a_file_that_can_not_be_read_is_reported(tmp_path: Path) -> None:
    (outcome,) = run(Doubler(), [tmp_path / "gone.txt"], tmp_path / "out")
    assert outcome.row.status == "failed"
    assert "gone.txt" in outcome.row.error


def test_errors_stay_on_one_line_of_the_index(tmp_path: Path) -> None:
    class Shouting(Doubler):
        def decode(self, path: Path, options: Options) -> xr.Dataset:
            raise RuntimeError("first\tline\nsecond")

    run(Shouting(), [write(tmp_path / "a.txt")], tmp_path / "out")
    assert read_index(tmp_path / "out")["a"].error == "RuntimeError: first line second"


def test_a_kill_leaves_no_half_result(tmp_path: Path) -> None:
    out, file = tmp_path / "out", write(tmp_path / "a.txt")

    class Interrupted(Doubler):
        def decode(self, path: Path, options: Options) -> xr.Dataset:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), [file], out)
    assert [p.name for p in out.iterdir() if p.name[0] != "."] == []
    assert [o.row.status for o in run(Doubler(), [file], out)] == ["done"]


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    file, out = write(tmp_path / "a.txt"), tmp_path / "out"

    class Nested(Doubler):
        def decode(self, path: Path, options: Options) -> xr.Dataset:
            code = (
                "from pathlib import Path; from neuro.decode import decode\n"
                f"decode(None, [], Path({str(out)!r}), None, identity='')"
            )
            answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            raise RuntimeError(answer.stderr)

    (outcome,) = run(Nested(), [file], out)
    assert "another `neuro decode` is writing" in outcome.row.error


def test_a_file_in_the_way_of_the_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't make this folder"):
        run(Doubler(), [], write(tmp_path / "out"))


def test_a_foreign_index_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "out/decoded.tsv", "name\tmine\na\tb\n")
    with pytest.raises(InputError, match="no index of decoded recordings"):
        run(Doubler(), [write(tmp_path / "a.txt")], tmp_path / "out")


def test_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("new/a.txt", "new/deep/b.txt", "[odd].txt"):
        write(tmp_path / name)
    assert expand(["new/*.txt"]) == [Path("new/a.txt")]
    assert expand(["new/**/*.txt"]) == [Path("new/a.txt"), Path("new/deep/b.txt")]
    assert expand(["new/a.txt", "new/*.txt"]) == [Path("new/a.txt")]
    assert expand(["[odd].txt"]) == [Path("[odd].txt")]  # a name that looks like a glob
    with pytest.raises(InputError, match=r"no such file: 'gone\.txt'"):
        expand(["gone.txt"])
    with pytest.raises(InputError, match=r"no file matches '\*.fif'"):
        expand(["*.fif"])
    with pytest.raises(InputError, match="no files given"):
        expand([])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.fif", "a"), ("a_epo.fif.gz", "a_epo"), ("s.1.edf", "s.1"), ("x", "x"), ("b.nii.gz", "b")],
)
def test_stem(name: str, expected: str) -> None:
    assert stem(Path("folder") / name) == expected


def test_content_digest(tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return content_digest([path], Fingerprints(None))

    one, two = write(tmp_path / "x/a.txt"), write(tmp_path / "y/a.txt")
    assert digest(one) == digest(two)
    write(two, "other")
    assert digest(one) != digest(two)
    before = digest(tmp_path / "x")
    write(tmp_path / "x/more.txt")
    assert digest(tmp_path / "x") != before


def test_folder_digest_leaves_the_model_card_out(tmp_path: Path) -> None:
    write(tmp_path / "config.json", "{}")
    before = folder_digest(tmp_path)
    write(tmp_path / "README.md", "card")
    assert folder_digest(tmp_path) == before
    write(tmp_path / "model.safetensors", "weights")
    assert folder_digest(tmp_path) != before


def test_to_table_names_columns(tmp_path: Path) -> None:
    data = xr.Dataset(
        {
            "mean": (("trial", "latent"), np.zeros((2, 2))),
            "variance": (("trial", "latent"), np.ones((2, 2))),
            "score": ("trial", [0.5, 0.6]),
        }
    )
    assert list(to_table(data)) == [
        "trial", "mean_latent0", "mean_latent1", "variance_latent0", "variance_latent1", "score",
    ]  # fmt: skip


def test_index_survives_a_round_trip(tmp_path: Path) -> None:
    from neuro.decode import write_index

    row = Row('a "b"', "/x/ü.txt", "done", 3, 1, True, "d", "e", '{"k": "v"}', "")
    write_index(tmp_path, {row.name: row})
    assert read_index(tmp_path) == {row.name: row}
