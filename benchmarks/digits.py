"""fmri-digits on the half of the pictures that no setting was chosen on.

    NEURO_DATA=... python benchmarks/digits.py

The workflow's settings were chosen by cross-validation in which only every second picture of each
class was scored. Here the other half is: predicted in the ten folds of the workflow, identified
among all 100 pictures and among the 50 of the class.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fmri.digit_study import METHODS, token_methods
from fmri.digits import cross_validate
from fmri.evaluate import compare
from fmri.read_digits import digit_pairs
from fmri.study_stages import DigitsParams
from neuro.metrics.retrieval import compare_rows, pairwise, pairwise_within
from neuro.validation import summarise


def main() -> None:
    """Print identification of the untouched half."""
    file = Path(os.environ["NEURO_DATA"]) / "fmri-digits69" / "digit69_28x28.mat"
    settings = DigitsParams(file=file).model_dump()
    voxels, pictures, classes = digit_pairs(file)
    methods = token_methods(voxels, pictures, settings).methods()
    found = cross_validate(voxels, pictures, classes, methods=methods)
    untouched = np.zeros(len(pictures), bool)
    for name in np.unique(classes):
        untouched[np.flatnonzero(classes == name)[1::2]] = True
    masks = {"all": untouched, **{k: untouched & (classes == k) for k in ("six", "nine")}}
    values = {}
    for method in METHODS:
        scores = compare_rows(found.pictures[method], pictures, similarity="correlation")
        within = pairwise_within(scores, classes)
        values[method] = {"all": pairwise(scores), "six": within, "nine": within}
        show(method, [summarise(values[method][k][rows]) for k, rows in masks.items()])
    for method in ("ridge", "tokens_ridge"):
        pairs = [(values["mindeye"][k][r], values[method][k][r]) for k, r in masks.items()]
        show(f"mindeye - {method}", [compare(*pair) for pair in pairs])


def show(name: str, estimates: list) -> None:
    """Print one line: all, within sixes, within nines."""
    cells = [f"{e.value:6.3f} [{e.low:6.3f}, {e.high:6.3f}]" for e in estimates]
    print(f"{name:24s}", *cells, sep="  ")


if __name__ == "__main__":
    main()
