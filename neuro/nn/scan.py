r"""Symbols and signals in one latent space: the networks and losses of SCAN.

Every layer has a leading axis ``member``, as in `neuro.nn.layers`. Terms are summed over what is
inside a sample (latents, symbols) and averaged over the batch only.

References
----------
Higgins et al., "SCAN: Learning hierarchical compositional visual concepts" (ICLR 2018).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn.layers import Linear
from neuro.nn.objective import Objective, Phase, State
from neuro.nn.vae import gaussian_kl, sample

OPERATORS = ("and", "in common", "ignore")

Posterior = tuple[Tensor, Tensor]  # mean and log variance


def forward_kl(first: Posterior, second: Posterior) -> Tensor:
    r"""KL divergence ``KL(first || second)`` of diagonal Gaussians, per latent.

    ``0.5 [log(s2^2 / s1^2) + s1^2 / s2^2 + (m1 - m2)^2 / s2^2 - 1]``. With the signal's posterior
    first and the symbol's second it covers modes: a symbol becomes wide on every latent that
    varies freely under it, and narrow on those that it fixes (Higgins et al. 2018, eq. 4).

    Parameters
    ----------
    first, second : pair of Tensor, shape (..., latent)
        Mean and log variance.

    Returns
    -------
    Tensor, shape (..., latent)
        In nats.

    Examples
    --------
    >>> narrow = torch.zeros(1), torch.zeros(1)
    >>> wide = torch.zeros(1), torch.ones(1)
    >>> forward_kl(narrow, narrow).item(), forward_kl(narrow, wide) == forward_kl(wide, narrow)
    (0.0, tensor([False]))
    """
    (m1, v1), (m2, v2) = first, second
    return 0.5 * (v2 - v1 + (v1 - v2).exp() + (m1 - m2).square() * (-v2).exp() - 1)


def symbol_cross_entropy(logits: Tensor, symbols: Tensor, mask: Tensor) -> Tensor:
    """Bernoulli negative log likelihood of the known symbols, summed over them.

    Parameters
    ----------
    logits, symbols, mask : Tensor, shape (..., symbol)
        `mask` is 1 where the symbol's label is known; where it is 0, `symbols` has no influence.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> known = torch.tensor([[1.0, 0.0]])
    >>> round(symbol_cross_entropy(torch.zeros(1, 2), torch.ones(1, 2), known).item(), 3)
    0.693
    """
    loss = F.binary_cross_entropy_with_logits(logits, symbols, reduction="none")
    return (loss * mask).sum(-1)


class SymbolNetwork(nn.Module):
    """Encoder and decoder of k-hot symbols, one hidden layer each way.

    Parameters
    ----------
    n_symbols, n_latents, n_hidden : int
    seed : int
        Of the initial weights.

    Examples
    --------
    >>> network = SymbolNetwork(5, n_latents=3)
    >>> mean, log_variance = network.encode(torch.zeros(1, 8, 5))
    >>> mean.shape, network.decode(mean).shape
    (torch.Size([1, 8, 3]), torch.Size([1, 8, 5]))
    """

    def __init__(self, n_symbols: int, n_latents: int, n_hidden: int = 100, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.into = Linear(n_symbols, n_hidden, g)
        self.posterior = Linear(n_hidden, 2 * n_latents, g)
        self.outof = Linear(n_latents, n_hidden, g)
        self.symbols = Linear(n_hidden, n_symbols, g)

    def encode(self, symbols: Tensor) -> Posterior:
        """Map ``(member, batch, symbol)`` to mean and log variance of the posterior."""
        mean, log_variance = self.posterior(F.relu(self.into(symbols))).chunk(2, -1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Map ``(member, batch, latent)`` to the logits of all symbols."""
        return self.symbols(F.relu(self.outof(z)))


class Recombinator(nn.Module):
    """The operators AND, IN COMMON and IGNORE: one convolution of width 1 over the latents.

    Four channels in (means and log variances of two concepts), six out (mean and log variance
    for each operator), of which the operator chooses two.

    Parameters
    ----------
    n_hidden : int
    seed : int
        Of the initial weights.

    Examples
    --------
    >>> one = torch.zeros(1, 8, 3), torch.zeros(1, 8, 3)
    >>> Recombinator(16)(one, one, F.one_hot(torch.zeros(1, 8).long(), 3).float())[0].shape
    torch.Size([1, 8, 3])
    """

    def __init__(self, n_hidden: int = 256, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.hidden = Linear(4, n_hidden, g)
        self.output = Linear(n_hidden, 2 * len(OPERATORS), g)

    def forward(self, first: Posterior, second: Posterior, operator: Tensor) -> Posterior:
        """Combine two concepts.

        Parameters
        ----------
        first, second : pair of Tensor, shape (member, batch, latent)
        operator : Tensor, shape (member, batch, 3)
            One-hot, in the order of `OPERATORS`.

        Returns
        -------
        mean, log_variance : Tensor, shape (member, batch, latent)
        """
        members, batch, latents = first[0].shape
        channels = torch.stack([first[0], second[0], first[1], second[1]], -1)
        h = F.relu(self.hidden(channels.reshape(members, batch * latents, 4)))
        out = self.output(h).reshape(members, batch, latents, len(OPERATORS), 2)
        mean, log_variance = (out * operator[:, :, None, :, None]).sum(-2).unbind(-1)
        return mean, log_variance


class SCANObjective(Objective):
    """What SCAN minimises, beside a frozen beta-VAE (Higgins et al. 2018, eq. 4, negated).

    ``-E log p(y | z_y) + beta_y KL(q(z_y|y) || N(0, 1)) + lam KL(q(z_x|x) || q(z_y|y))``

    Parameters
    ----------
    network : SymbolNetwork
    beta_y, lam : float
        Weights of the two KL terms.
    learning_rate : float
        Of Adam.
    """

    stackable: ClassVar[bool] = True
    beta_y: Tensor
    lam: Tensor

    def __init__(
        self, network: SymbolNetwork, *, beta_y: float, lam: float, learning_rate: float = 1e-3
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.register_buffer("beta_y", torch.full((1, 1), float(beta_y)))
        self.register_buffer("lam", torch.full((1, 1), float(lam)))

    def phases(self) -> list[Phase]:
        """Return the one optimiser, Adam."""
        return [Phase("scan", _adam(self))]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return the loss of a batch and its three terms.

        Parameters
        ----------
        batch : dict
            ``mean``, ``log_variance`` ``([member,] batch, latent)`` of the signals; ``symbols``,
            ``mask`` ``([member,] batch, symbol)``: k-hot, and 1 where the label is known.
            Symbols of unknown labels must be 0.
        state : State
        """
        signal = _members(batch["mean"]), _members(batch["log_variance"])
        symbols, mask = _members(batch["symbols"]), _members(batch["mask"])
        mean, log_variance = self.network.encode(symbols)
        noise = state.normal(tuple(mean.shape), mean) if state.training else mean.new_zeros(())
        logits = self.network.decode(sample(mean, log_variance, noise))
        entropy = symbol_cross_entropy(logits, symbols, mask)
        prior = gaussian_kl(mean, log_variance).sum(-1)
        relation = forward_kl(signal, (mean, log_variance)).sum(-1)
        loss = entropy + self.beta_y * prior + self.lam * relation
        terms = {"loss": loss, "symbols": entropy, "kl_prior": prior, "kl_signal": relation}
        average = _average(batch.get("weight"))
        return {name: average(term) for name, term in terms.items()}

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        return {
            "beta_y": self.beta_y.flatten().tolist(),
            "lam": self.lam.flatten().tolist(),
            "learning_rate": [o.learning_rate for o in self.each or [self]],
        }


class RecombinatorObjective(Objective):
    """What the recombination operator minimises, beside a frozen SCAN (Higgins et al. 2018, eq. 5).

    ``KL(target || q(z_r | q(z_1|y_1), q(z_2|y_2), r))``, where the target is the posterior of the
    symbol that the operator should give, or of a signal that this symbol describes.

    Parameters
    ----------
    recombinator : Recombinator
    network : SymbolNetwork
        Frozen here.
    target : {"symbol", "signal"}
    learning_rate : float
        Of Adam.
    """

    stackable: ClassVar[bool] = True

    def __init__(
        self,
        recombinator: Recombinator,
        network: SymbolNetwork,
        *,
        target: str = "symbol",
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.recombinator = recombinator
        self.network = network.requires_grad_(False)
        self.target = target
        self.learning_rate = learning_rate

    def phases(self) -> list[Phase]:
        """Return the one optimiser, Adam."""
        return [Phase("recombinator", _adam(self), parameters=("recombinator",))]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return the loss of a batch.

        Parameters
        ----------
        batch : dict
            ``first``, ``second``, ``result`` ``([member,] batch, symbol)``; ``operator
            ([member,] batch, 3)``, one-hot; ``mean``, ``log_variance`` of signals that `result`
            describes.
        state : State
        """
        with torch.no_grad():
            first, second, result = (
                self.network.encode(_members(batch[name])) for name in ("first", "second", "result")
            )
        if self.target == "signal":
            result = _members(batch["mean"]), _members(batch["log_variance"])
        found = self.recombinator(first, second, _members(batch["operator"]))
        loss = forward_kl(result, found).sum(-1)
        return {"loss": _average(batch.get("weight"))(loss)}

    def signature(self) -> dict[str, Any]:
        """Return what distinguishes this training from another of the same shape."""
        each = self.each or [self]
        return {"target": self.target, "learning_rate": [o.learning_rate for o in each]}


def _adam(objective: Any) -> Any:
    def make(parameters: Any, member: int) -> torch.optim.Optimizer:
        one = objective.each[member] if objective.each else objective
        return torch.optim.Adam(parameters, lr=one.learning_rate, fused=True)

    return make


def _members(x: Tensor) -> Tensor:
    return x[None] if x.ndim == 2 else x


def _average(weight: Tensor | None) -> Any:
    if weight is None:
        return lambda values: values.mean(-1)
    rows = weight.sum(-1).clamp(min=1)
    return lambda values: (values * weight).sum(-1) / rows
