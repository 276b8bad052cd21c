"""DTS as an objective: individual factors, and group segments by crossed gradient reversal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.nn.objective import State
from neuro.nn.reversal import reversal_ramp, reverse_gradient
from neuro.nn.sequences import SequenceVAE
from neuro.nn.vae_family import Penalty, VAEFamily


@dataclass(frozen=True)
class Heads:
    """Weights and schedule of the classifiers on the segments.

    Attributes
    ----------
    label, domain : float
        Weights of the class from g_y and the domain from g_d, in nats per series.
    adversarial : float
        Weight of both crossed heads.
    start, length : float
        Shares of training after which reversal begins, and over which it rises to 1.
    hidden : int
        Width of the heads' one hidden layer.
    """

    label: float = 20.0
    domain: float = 20.0
    adversarial: float = 20.0
    start: float = 0.1
    length: float = 0.4
    hidden: int = 64


class DTSObjective(VAEFamily):
    """The individual-factor objective with heads on both segments (Li et al. 2022, sec. 4).

    Parameters
    ----------
    network : SequenceVAE
        Its first `n_label_latents` latents are g_y, the others g_d.
    penalty : Penalty
    n_label_latents, n_classes, n_domains : int
    heads : Heads
    **options
        Of `VAEFamily`.
    """

    def __init__(
        self,
        network: SequenceVAE,
        penalty: Penalty,
        *,
        n_label_latents: int,
        n_classes: int,
        n_domains: int,
        heads: Heads | None = None,
        **options: Any,
    ) -> None:
        super().__init__(network, penalty, **options)
        self.heads = heads or Heads()
        self.sizes = [n_label_latents, network.n_latents - n_label_latents]
        label, domain = self.sizes
        hidden = self.heads.hidden
        self.label_head = make_head(label, n_classes, hidden)
        self.domain_head = make_head(domain, n_domains, hidden)
        self.label_from_domain = make_head(domain, n_classes, hidden)
        self.domain_from_label = make_head(label, n_domains, hidden)

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return ``loss`` with its parts.

        Parameters
        ----------
        batch : dict
            ``x``, ``mask`` as of `VAEFamily`; ``y`` and ``domain``, class numbers, -1 where
            unknown.
        state : State
        """
        x, mask = batch["x"], batch.get("mask")
        mean, log_variance = self.network.encode(x, mask)
        z = self.draw(mean, log_variance, state)
        reconstruction = self.reconstruction(z, x, mask)
        losses = self.penalties(z, mean, log_variance, state)
        heads = self._heads(z, batch["y"], batch["domain"], self._strength(state))
        loss = reconstruction + losses.pop("penalty") + heads.pop("heads")
        return {"loss": loss, "reconstruction": reconstruction.detach(), **losses, **heads}

    def _strength(self, state: State) -> float:
        done = (state.epoch + 1) / state.max_epochs
        return reversal_ramp((done - self.heads.start) / max(self.heads.length, 1e-6))

    def _heads(self, z: Tensor, y: Tensor, domain: Tensor, strength: float) -> dict[str, Tensor]:
        g_y, g_d = z.split(self.sizes, 1)
        label = known_cross_entropy(self.label_head(g_y), y)
        place = known_cross_entropy(self.domain_head(g_d), domain)
        leaks = crossed_cross_entropy(self.domain_from_label, g_y, domain, strength)
        leaks = leaks + crossed_cross_entropy(self.label_from_domain, g_d, y, strength)
        w = self.heads
        return {
            "heads": w.label * label + w.domain * place + w.adversarial * leaks,
            "label": label.detach(), "domain": place.detach(), "leaks": leaks.detach(),
        }  # fmt: skip

    def signature(self) -> dict[str, Any]:
        """Return the hyper-parameters."""
        return {**super().signature(), "heads": asdict(self.heads)}


def make_head(n_in: int, n_out: int, hidden: int) -> nn.Module:
    """Build a classifier with one hidden layer."""
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, n_out))


def crossed_cross_entropy(
    head: nn.Module, codes: Tensor, labels: Tensor, strength: float
) -> Tensor:
    """Cross entropy that `head` lessens and the codes raise, but for rows that fool it already.

    A row fools the head where the label's share of the batch would be a better guess. Without that
    bound the codes gain by running ever further to the wrong side.
    """
    with torch.no_grad():
        known = labels >= 0
        counts = torch.bincount(labels[known])
        share = counts / counts.sum()
        own = F.cross_entropy(head(codes), labels.clamp(min=0), reduction="none")
        tells = own < -share[labels.clamp(min=0)].log()
    reversed_codes = reverse_gradient(codes, strength * tells[:, None].to(codes.dtype))
    return known_cross_entropy(head(reversed_codes), labels)


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the rows whose label is known (not -1); 0 where none is.

    Examples
    --------
    >>> import torch
    >>> known_cross_entropy(torch.zeros(3, 2), torch.tensor([0, -1, 1])).item()
    0.6931471824645996
    >>> known_cross_entropy(torch.zeros(1, 2), torch.tensor([-1])).item()
    0.0
    """
    total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)
