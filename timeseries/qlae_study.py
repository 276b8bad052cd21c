"""What the stages of QLAE do: train, and score encoders against known factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuro.data import as_signal
from neuro.errors import InputError
from timeseries.dts_study import factors_of, names_of, rows_of

if TYPE_CHECKING:
    from neuro.stage import Context
    from timeseries.qlae import QLAE

SCORES = (
    "infom", "infoe", "infoc", "mig", "sap", "dci_d", "dci_c", "dci_i", "modularity", "tc",
)  # fmt: skip


def train(data: xr.Dataset, settings: dict[str, Any], context: Context, kind: str = "qlae") -> QLAE:
    """Train QLAE, or the InfoGAN of the same latents, and draw what it learned."""
    from neuro.report import Figure, Table
    from timeseries import dts_plots
    from timeseries.infogan import InfoGAN
    from timeseries.qlae import QLAE

    title, what, make = {
        "qlae": ("QLAE", "A quantised-latent autoencoder", QLAE),
        "infogan": (
            "InfoGAN",
            "An InfoGAN of quantised latents with a Wasserstein critic",
            InfoGAN,
        ),
    }[kind]
    model = make(random_state=settings.pop("seed"), **settings)
    own = as_signal(data.isel(trial=rows_of(data, "train")))
    model.fit(own, scratch=context.scratch, progress=context.progress)
    context.metric("active_units", float(model.kept_.sum()), unit="latents")
    context.metric("information", model.information_, unit="nat")
    used = [len(np.unique(column)) for column in np.asarray(model.codes(own)).T]
    rows = [
        {"latent": j, "entropy": model.kl_[j], "values used": used[j]}
        for j in range(model.n_latents)
    ]
    context.section(
        f"Training · {title}",
        Figure(
            dts_plots.history_figure(model, "loss", "entropy"),
            "Losses by epoch, and the entropy of each code.",
        ),
        Figure(
            dts_plots.traversal_figure(model, own),
            "The mean code decoded, one latent moved over five values of its codebook (blue to "
            "red), in the channel that moves most.",
        ),
        Table(rows, "What each latent tells, over the training series.", {"entropy": "nat"}),
    )
    context.method(
        f"{what} (Hsu et al. 2023; {model.network} networks, "
        f"{model.n_latents} latents of {model.n_values} values, weight decay "
        f"{model.weight_decay:g}) was trained on {len(own)} trials; statistics are theirs."
    )
    return model


def score(
    data: xr.Dataset, models: Sequence[Any], settings: dict[str, Any], context: Context
) -> pd.DataFrame:
    """Score the codes of held-out series, with intervals, and draw factors by latents."""
    from neuro.metrics import disentanglement_intervals
    from neuro.report import Figure, Table

    seed = settings["seed"]
    rows = np.random.default_rng(seed).permutation(rows_of(data, "test"))[: settings["n_most"]]
    own = data.isel(trial=np.sort(rows))
    known = known_factors(own, settings["factors"])
    names = names_of(models)
    coded = {n: codes_of(m, as_signal(own)) for n, m in zip(names, models, strict=True)}
    if settings["baselines"]:
        coded |= baselines(data, own, models[0].n_latents, seed)
    groups = own[settings["groups"]].values if settings["groups"] else None
    found, pictures = [], []
    for name in context.progress(list(coded), "scoring", len(coded)):
        codes = coded[name]
        readings = {"published": codes, "binned": binned(codes, settings["n_bins"])}
        for reading, values in readings.items():
            scores = disentanglement_intervals(
                values, known, groups=groups, n_boot=settings["n_boot"], scores=SCORES,
                random_state=seed,
            )  # fmt: skip
            for key, (value, low, high) in scores.items():
                told = f"disentangle.{name}.{key if reading == 'published' else f'binned.{key}'}"
                context.metric(told, value, low=low, high=high, n=len(codes), n_unit="series")
                found.append({"model": name, "codes": reading, "score": key, "value": value,
                              "low": low, "high": high})  # fmt: skip
        pictures.append(Figure(heat_map(codes, known), f"{name}: share of each factor's entropy."))
    table = pd.DataFrame(found)
    unit = settings["groups"] or "series"
    for reading in ("published", "binned"):
        own_rows = [row for row in found if row["codes"] == reading]
        caption = f"On {len(own)} held-out series; codes {reading}; 95 % intervals over {unit}."
        context.section(f"Disentanglement · {reading}", Table(wide(own_rows), caption))
    context.section("Factors by latents", *pictures)
    return table


def wide(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a row for each model, a column for each score: the value and its interval."""
    rows: dict[str, dict[str, str]] = {}
    for one in found:
        row = rows.setdefault(one["model"], {"model": one["model"]})
        row[one["score"]] = f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
    return list(rows.values())


def known_factors(data: xr.Dataset, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the factors named, or those that are marked, or class and subject where they vary."""
    marked = [str(n) for n, c in data.coords.items() if "factor" in c.attrs]
    plain = [n for n in ("class", "subject") if n in data.coords and _varies(data[n])]
    found = factors_of(data, names or marked or plain)
    if not found:
        raise InputError(
            "there is no known factor; name some coordinates as `factors`: "
            f"{sorted(map(str, data.coords))}"
        )
    return found


def _varies(coordinate: xr.DataArray) -> bool:
    return coordinate.dims == ("trial",) and len(np.unique(coordinate.values)) > 1


def codes_of(model: Any, signal: xr.DataArray) -> NDArray[Any]:
    """Return whole numbers of a quantised model, posterior means of others."""
    return np.asarray(model.codes(signal) if hasattr(model, "codes") else model.transform(signal))


def binned(codes: NDArray[Any], n_bins: int) -> NDArray[np.intp]:
    """Cut every latent into bins of equal population; equal values share a bin."""
    ordered = np.sort(codes, axis=0)
    ranks = [np.searchsorted(o, c) for o, c in zip(ordered.T, codes.T, strict=True)]
    return np.stack(ranks, axis=1) * n_bins // len(codes)


def baselines(
    data: xr.Dataset, own: xr.Dataset, n_latents: int, seed: int
) -> dict[str, NDArray[Any]]:
    """Code series by PCA, ICA and an untrained encoder, all fitted on the training part."""
    from sklearn.decomposition import PCA, FastICA

    from timeseries.vae import SeriesVAE

    training = as_signal(data.isel(trial=rows_of(data, "train")))
    signal = as_signal(own)
    flat, new = (np.asarray(s).reshape(len(s), -1) for s in (training, signal))
    n = min(n_latents, *flat.shape)
    ica = FastICA(n, whiten="unit-variance", random_state=seed, max_iter=500, tol=1e-3)
    untrained = SeriesVAE("ae", n_latents=n_latents, max_epochs=0, random_state=seed).fit(training)
    return {
        "pca": PCA(n, random_state=seed).fit(flat).transform(new),
        "ica": ica.fit(flat).transform(new),
        "untrained": np.asarray(untrained.transform(signal)),
    }


def heat_map(codes: NDArray[Any], known: dict[str, NDArray[Any]]) -> Any:
    """Draw the information of every factor and latent over the factor's entropy."""
    from neuro.draw import SEQUENTIAL, new_figure, tidy
    from neuro.metrics.factors import clean
    from neuro.metrics.mutual_information import information_matrix

    values, factors = clean(codes, known)
    information, entropies = information_matrix(
        values, factors, quantized=codes.dtype.kind in "biu"
    )
    figure = new_figure(6, 0.4 * len(factors) + 1)
    axes = figure.subplots()
    image = axes.imshow(information / entropies[:, None], SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(factors)), [f.name for f in factors])
    figure.colorbar(image)
    tidy(axes, "latent")
    return figure
