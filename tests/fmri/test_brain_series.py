"""Series of runs to blocks, windows and embeddings: simulated, and read from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmri import whole_brain_stages as stages
from fmri.brain_series import blocks_in, windows_in
from fmri.simulate_whole_brain import simulate_whole_brain
from fmri.simulate_whole_brain_export import export_runs
from neuro.errors import DataError, InputError

SMALL = {
    "n_other": 8, "n_trials": 12, "n_train_runs": 3, "n_test_runs": 1, "n_unlabelled_runs": 1,
    "n_rest_runs": 1, "n_imagery_runs": 1, "n_prompts": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def simulated(call, tmp_path_factory):
    return call(tmp_path_factory.mktemp("stage"), stages.series, simulate=SMALL)[0]


def test_a_simulated_brain_has_blocks_windows_and_truth(simulated):
    kind = simulated["kind"].values.astype(str)
    assert set(kind) == {"perception", "imagery", "unlabelled", "rest"}
    blocks = blocks_in(simulated)
    assert blocks.sizes["time"] == 5
    assert blocks["mask"].values.all()
    assert set(blocks["part"].values) == {"train", "test", "imagery"}
    windows = windows_in(simulated)
    assert windows.sizes["time"] == 12
    assert set(windows["item"].values) == {""}
    assert set(blocks["item"].values) == set(simulated["shown"].values)
    assert simulated["information"].sizes["truth"] == 7
    for name in ("target", "text_target", "attribute_table", "atlas"):
        assert name in simulated


def test_no_window_is_of_a_test_or_imagery_run(simulated):
    blocks, windows = blocks_in(simulated), windows_in(simulated)
    held = np.isin(blocks["part"].values, ["test", "imagery"])
    assert not set(windows["run"].values) & set(blocks["run"].values[held])
    assert set(windows["run"].values) & set(blocks["run"].values[~held])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The simulated brain as files; the folder, and what was written."""
    study = simulate_whole_brain(seed=0, **SMALL)
    folder = tmp_path_factory.mktemp("lab") / "study"
    export_runs(study, folder)
    return folder, study


def files_of(folder: Path) -> dict[str, Any]:
    seen = sorted(folder.glob("*task-perception*_bold.nii.gz"))
    imagined = sorted(folder.glob("*task-imagery*_bold.nii.gz"))
    runs = [*seen, *imagined]
    return {
        "files": runs, "atlas": folder / "atlas.nii.gz", "atlas_table": folder / "atlas.tsv",
        "confounds_files": [str(r).replace("_bold.nii.gz", "_confounds.tsv") for r in runs],
        "unlabelled": sorted(folder.glob("*task-unlabelled*_bold.nii.gz")),
        "test_runs": ["run-04"], "imagery_runs": ["run-05"], "stimulus": "item",
        "embeddings": folder / "embeddings.npz", "text_embeddings": folder / "texts.npz",
    }  # fmt: skip


def test_files_give_what_the_simulation_gives(call, lab, simulated, tmp_path):
    """The way through NIfTI, atlas, events and confounds ends at the same blocks."""
    found, _ = call(tmp_path, stages.series, **files_of(lab[0]))
    mine, other = blocks_in(found), blocks_in(simulated)
    assert mine["parcel"].values.tolist() == other["parcel"].values.tolist()
    np.testing.assert_allclose(mine["signal"], other["signal"], atol=2e-3)
    for name in ("item", "category", "kind", "part"):
        assert mine[name].values.tolist() == other[name].values.tolist()
    for axis in "xyz":
        np.testing.assert_allclose(mine[axis], other[axis], atol=1e-3)
    np.testing.assert_allclose(found["target"], simulated["target"], atol=1e-6)
    assert not set(windows_in(found)["run"].values) & {"run-04", "run-05"}
    assert any(run.startswith("unlabelled-") for run in windows_in(found)["run"].values)


def test_events_beside_runs_are_found(lab, tmp_path):
    folder, _ = lab
    params = stages.series.stage.params(**files_of(folder))
    assert next(p.name for p in params.reads()).endswith("run-01_events.tsv")
    (tmp_path / "bold.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="give events"):
        stages.series.stage.params(files=[tmp_path / "bold.nii.gz"]).events_files()


def test_what_does_not_fit_is_said(call, lab, tmp_path):
    folder, study = lab
    good = files_of(folder)

    def fails(error: type[Exception], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            call(tmp_path / "bad", stages.series, **good | changes)

    fails(InputError, "name run-17; the runs are run-01, run-02", test_runs=["run-17"])
    fails(DataError, "shorter than the window", window=900)
    fails(DataError, "shorter than the window", tmax=900.0)
    import nibabel

    image = nibabel.load(good["atlas"])
    moved = image.affine.copy()
    moved[:3, 3] += 5000
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), moved), tmp_path / "far.nii.gz")
    fails(DataError, "different spaces", atlas=tmp_path / "far.nii.gz")
    few = pd.DataFrame({"index": np.arange(1, 200), "name": [f"p{n}" for n in range(1, 200)]})
    few.to_csv(tmp_path / "many.tsv", sep="\t", index=False)
    fails(DataError, "parcels", atlas_table=tmp_path / "many.tsv")
    names = study.items["item"].values.astype(str)
    shown = {name for run in study.runs for name in run.events["item"]}
    kept = np.array([name for name in names if name != sorted(shown)[0]])
    np.savez(tmp_path / "less.npz", ids=kept, embeddings=np.ones((len(kept), 3)))
    fails(DataError, "1 of .* items have no embedding", embeddings=tmp_path / "less.npz")
