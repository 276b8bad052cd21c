"""All disentanglement metrics by one call: arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from neuro.errors import InputError
from neuro.metrics.dci import dci_of
from neuro.metrics.dependence import neighbour_total_correlation, total_correlation
from neuro.metrics.factors import Factor, Factors, Flags, Floats, clean
from neuro.metrics.gaps import explicitness_of, mig_of, modularity_of, sap_of
from neuro.metrics.infomec import infomec_of
from neuro.metrics.interventions import beta_vae_of, factor_vae_of
from neuro.metrics.mutual_information import N_NEIGHBORS, information_matrix

SCORES = (
    "infom", "infoe", "infoc", "mig", "sap", "dci_d", "dci_c", "dci_i", "modularity",
    "explicitness", "beta_vae", "factor_vae", "tc", "tc_knn",
)  # fmt: skip


def disentanglement(
    latents: ArrayLike,
    factors: Factors,
    *,
    discrete: Flags = None,
    quantized: bool | None = None,
    scores: Iterable[str] = SCORES,
    n_neighbors: int = N_NEIGHBORS,
    n_bins: int = 20,
    random_state: int = 0,
) -> dict[str, float]:
    """Score latents against known factors.

    Parameters
    ----------
    latents : array_like of shape (n, d)
        Posterior means, or codes.
    factors : array_like of shape (n,) or (n, k), or mapping of name to (n,)
        The truth: numbers or text; a mapping or table may mix them. NaN, None and "" are missing.
    discrete : bool or sequence of k bool, optional
        Which factors are classes. By default text, booleans, and whole numbers with at most 20
        distinct values are.
    quantized : bool, optional
        The latents take few values, which are counted instead of binned. By default where the
        array holds integers.
    scores : iterable of str
        Those to compute, see below; all by default.
    n_neighbors : int
        For the information of continuous latents in InfoMEC.
    n_bins : int
        Bins of equal population that stand for a continuous factor where classes are needed.
    random_state : int
        Of the split (two thirds to fit, a third to score) in SAP, DCI and explicitness, and of
        the rows drawn in the beta-VAE and FactorVAE metrics and tc_knn.

    Returns
    -------
    dict of str to float
        Always finite, and higher is better except for tc and tc_knn:

        - ``infom``, ``infoe``, ``infoc``: InfoMEC (Hsu et al. 2023), 0 to 1;
        - ``mig``: mutual information gap (Chen et al. 2018), latents in 20 bins, 0 to 1;
        - ``sap``: separated attribute predictability (Kumar et al. 2018), 0 to 1;
        - ``dci_d``, ``dci_c``, ``dci_i``: disentanglement, completeness, informativeness
          (Eastwood and Williams 2018) by histogram-based boosted trees, 0 to 1;
        - ``modularity``, ``explicitness``: Ridgeway and Mozer (2018), 0 to 1 and (chance) 0.5 to 1;
        - ``beta_vae``, ``factor_vae``: the metrics of Higgins et al. (2017) and of Kim and Mnih
          (2018) on groups of the rows given, (chance) one over the number of factors to 1;
        - ``tc``, ``tc_knn``: total correlation of the latents, as a Gaussian and by nearest
          neighbours (of 2,000 rows at most), in nats.

    Raises
    ------
    InputError
        Where lengths differ, fewer than four rows are finite, no factor varies, or a score is
        unknown.

    Warns
    -----
    UserWarning
        Naming the factors that were left out, and why.

    Notes
    -----
    A row with a latent that is not finite is left out; a missing factor leaves out the row for
    that factor alone. Constant latents count as telling nothing.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).integers(0, 4, (500, 2))
    >>> found = disentanglement(z, z, scores=["infom", "mig", "dci_d"])
    >>> all(value > 0.95 for value in found.values())
    True
    """
    wanted = list(dict.fromkeys([scores] if isinstance(scores, str) else scores))
    if unknown := [name for name in wanted if name not in SCORES]:
        raise InputError(f"unknown scores {unknown}; expected some of {', '.join(SCORES)}")
    if quantized is None:
        quantized = np.asarray(latents).dtype.kind in "biu"
    values, known = clean(latents, factors, discrete, n_bins)
    found: dict[str, float] = {}
    for names, compute in _FAMILIES.items():
        if any(name in wanted for name in names):
            results = compute(
                values, known, quantized=quantized, n_neighbors=n_neighbors, seed=random_state
            )
            found.update(zip(names, results, strict=True))
    return {name: float(found[name]) for name in wanted}


def _infomec(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    found = infomec_of(
        z, factors, quantized=settings["quantized"], n_neighbors=settings["n_neighbors"]
    )
    return found.infom, found.infoe, found.infoc


def _binned(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    information, entropies = information_matrix(z, factors, quantized=settings["quantized"])
    return mig_of(information, entropies), modularity_of(information[:, np.ptp(z, axis=0) > 0])


def _sap(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    return (sap_of(z, factors, random_state=settings["seed"]),)


def _dci(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    found = dci_of(z, factors, random_state=settings["seed"])
    return found.disentanglement, found.completeness, found.informativeness


def _explicitness(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    return (explicitness_of(z, factors, random_state=settings["seed"]),)


def _beta_vae(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    return (beta_vae_of(z, factors, random_state=settings["seed"]),)


def _factor_vae(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    return (factor_vae_of(z, factors, random_state=settings["seed"]),)


def _tc_knn(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    return (neighbour_total_correlation(z, random_state=settings["seed"]),)


def _tc(z: Floats, factors: list[Factor], **settings: Any) -> tuple[float, ...]:
    return (total_correlation(z),)


_FAMILIES: dict[tuple[str, ...], Callable[..., tuple[float, ...]]] = {
    ("infom", "infoe", "infoc"): _infomec,
    ("mig", "modularity"): _binned,
    ("sap",): _sap,
    ("dci_d", "dci_c", "dci_i"): _dci,
    ("explicitness",): _explicitness,
    ("beta_vae",): _beta_vae,
    ("factor_vae",): _factor_vae,
    ("tc",): _tc,
    ("tc_knn",): _tc_knn,
}
