"""LSS betas: the closed form beside one nilearn FirstLevelModel for each trial.

    python benchmarks/lss.py [--trials 40] [--volumes 200] [--side 30] [--repeats 3]

Both fit ordinary least squares to the same runs in memory and give the same betas, which is
checked. The design is part of both sides. Prints the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from fmri.design import trial_design
from fmri.glm import lss

T_R = 2.0


def simulate(n: int, volumes: int, side: int) -> tuple[Any, Any, pd.DataFrame]:
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 20, (side, side, side, volumes)).astype(np.float64)
    mask = nibabel.Nifti1Image(np.ones((side,) * 3, np.uint8), np.eye(4))
    onsets = np.linspace(4, volumes * T_R - 24, n) + rng.uniform(0, 2, n)
    events = pd.DataFrame({"onset": onsets, "duration": 1.0, "trial_type": "picture"})
    return nibabel.Nifti1Image(values, np.eye(4)), mask, events


def ours(image: Any, mask: Any, events: pd.DataFrame) -> Any:
    inside = np.asarray(mask.dataobj) > 0
    series = np.ascontiguousarray(np.asarray(image.dataobj)[inside].T)
    design = trial_design(events, len(series), T_R)
    return lss(series, design.trials, design.nuisance)


def nilearn(image: Any, mask: Any, events: pd.DataFrame) -> Any:
    from nilearn.glm.first_level import FirstLevelModel

    inside = np.asarray(mask.dataobj) > 0
    found = []
    for n in range(len(events)):
        kinds = np.where(np.arange(len(events)) == n, "trial", "other")
        model = FirstLevelModel(
            T_R, slice_time_ref=0.0, hrf_model="spm", drift_model="cosine", high_pass=0.01,
            mask_img=mask, noise_model="ols", signal_scaling=False, minimize_memory=True,
        )  # fmt: skip
        model.fit(image, events.assign(trial_type=kinds))
        effect = model.compute_contrast("trial", output_type="effect_size")
        found.append(np.asarray(effect.dataobj)[inside])
    return np.stack(found)


def timed(call: Any, *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call(*args)
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--side", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    study = simulate(options.trials, options.volumes, options.side)
    ours(*simulate(3, 60, 3))  # what is imported late
    pairs, difference = [], 0.0
    for number in range(options.repeats):
        order = (ours, nilearn) if number % 2 else (nilearn, ours)
        results = {call.__name__: timed(call, *study) for call in order}
        pairs.append((results["nilearn"][0], results["ours"][0]))
        difference = float(np.abs(results["nilearn"][1] - results["ours"][1]).max())
    peer, mine = np.array(pairs).T
    print(
        json.dumps(
            {
                "trials": options.trials, "volumes": options.volumes, "voxels": options.side**3,
                "ours_s": round(float(np.median(mine)), 3),
                "nilearn_s": round(float(np.median(peer)), 3),
                "times_faster": round(float(np.median(peer / mine)), 1),
                "max_difference": difference, "repeats": options.repeats, "cores": os.cpu_count(),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
