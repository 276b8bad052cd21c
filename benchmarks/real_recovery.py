"""Single-trial ERP recovery on eeg-alcoholism, settings chosen inside the training subjects.

Every outer fold chooses among a grid by the residual correlation on inner folds of its own training
subjects, refits, and is scored once on its held-out subjects. Needs a finished run of the workflow
(for its trials):

    neuro run eeg-beta-vae --until epochs --out OUT --set recordings.files=... \
        --set recordings.participants=...
    python benchmarks/real_recovery.py OUT/eeg-beta-vae/epochs
"""

from __future__ import annotations

import argparse
import warnings
from itertools import product

import numpy as np
import pandas as pd
import xarray as xr

import eeg
from eeg.cohort import fit_folds
from eeg.evaluate import make_folds
from eeg.recovery import recover_erp
from neuro.data import as_signal, open_dataset
from neuro.validation import grouped_folds

GRID = [
    dict(zip(("train_on", "beta", "n_latents"), values, strict=True))
    for values in product(("single-to-erp", "bootstrap", "erp"), (1.0, 8.0), (10, 40))
]


def vae(settings: dict, max_epochs: int) -> eeg.BetaVAE:
    return eeg.BetaVAE(max_epochs=max_epochs, random_state=0, **settings)


def choose(signal: xr.DataArray, max_epochs: int) -> tuple[dict, list[float]]:
    """Return the settings of the highest residual correlation on inner folds."""
    folds = grouped_folds(signal["subject"].values, n_splits=3, random_state=1)
    found = []
    for settings in GRID:
        encoders = fit_folds(vae(settings, max_epochs), signal, folds)
        recovery = recover_erp(encoders, signal, folds, n_boot=100)
        found.append(float(recovery.estimates["denoised.residual_r"].value or 0))
    return GRID[int(np.argmax(found))], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("epochs")
    parser.add_argument("--max-epochs", type=int, default=60)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = open_dataset(args.epochs, load=True)
    signal = as_signal(data)
    folds, encoders = make_folds(data, ["group"], n_splits=5), []
    for train, _ in folds:
        settings, inner = choose(signal.isel(trial=train), args.max_epochs)
        print("chosen:", settings, "inner residual r:", np.round(inner, 3).tolist(), flush=True)
        encoders.append(vae(settings, args.max_epochs).fit(signal.isel(trial=train)))
    recovery = recover_erp(encoders, signal, folds)
    print(pd.DataFrame(recovery.table()).round(3).to_string())
    print(pd.DataFrame(recovery.difference_table()).round(3).to_string())


if __name__ == "__main__":
    main()
