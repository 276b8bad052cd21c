"""InfoGAN with quantised latents: a generator whose codes can be read off what it draws.

References
----------
Hsu, Dorrell, Whittington, Wu and Finn, "Disentanglement via latent quantization" (NeurIPS 2023,
arXiv 2305.18378): the latents, and an InfoGAN that reconstructs them.
Chen et al., "InfoGAN" (NeurIPS 2016). Gulrajani et al., "Improved training of Wasserstein GANs"
(NeurIPS 2017), eq. 3: the critic and its gradient penalty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuro.nn.objective import Objective, Phase, State
from neuro.nn.quantise import ClippedAdamW, LatentQuantiser, Quantised, decayed
from neuro.nn.sequences import make_decoder, make_encoder

BETAS = (0.5, 0.9)  # of Adam, as Gulrajani et al.


class QuantisedGAN(nn.Module):
    """A generator driven by quantised latents and noise, an encoder of its series, and a critic.

    Parameters
    ----------
    kind : {"mlp", "conv", "fcn", "tcn", "lstm", "gru"}
        Of generator and encoder. The critic is convolutional where this is recurrent: gradients
        of recurrent layers can't be penalised on a GPU.
    n_channels, n_times, n_latents, n_values, n_hidden : int
    n_noise : int
        Normal numbers beside the latents: what no code tells.
    shared : bool
        One codebook for all latents.

    Examples
    --------
    >>> network = QuantisedGAN("conv", 2, 32, n_latents=3, n_noise=4)
    >>> network.decode(torch.zeros(5, 3)).shape, network.critic(torch.zeros(5, 2, 32)).shape
    (torch.Size([5, 2, 32]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        kind: str,
        n_channels: int,
        n_times: int,
        n_latents: int,
        n_values: int = 10,
        n_hidden: int = 128,
        *,
        n_noise: int = 8,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.n_noise = n_noise
        self.encoder = make_encoder(kind, n_channels, n_times, n_latents, n_hidden)
        self.quantiser = LatentQuantiser(n_latents, n_values, shared=shared)
        self.decoder = make_decoder(kind, n_latents + n_noise, n_channels, n_times, n_hidden)
        judge = "conv" if kind in ("lstm", "gru") else kind
        self.critic = make_encoder(judge, n_channels, n_times, 1, n_hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Quantised:
        """Encode and quantise ``(batch, channel, time)``."""
        found: Quantised = self.quantiser(self.encoder(x, mask))
        return found

    def decode(self, values: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map ``(batch, latent)`` to ``(batch, channel, time)``; without noise, its mean."""
        if noise is None:
            noise = values.new_zeros(len(values), self.n_noise)
        out: Tensor = self.decoder(torch.cat([values, noise], -1))
        return out

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw values of uniform codes ``(n, latent)``, and series of them."""
        values = self.quantiser.decode(self.quantiser.draw(n, generator))
        noise = torch.randn(n, self.n_noise, generator=generator, device=values.device)
        return values, self.decode(values, noise.to(values.dtype))


def gradient_penalty(
    critic: nn.Module, real: Tensor, drawn: Tensor, share: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean squared distance from 1 of the critic's gradient norm between real and drawn series.

    Parameters
    ----------
    critic : Module
        ``critic(x, mask)`` maps ``(batch, channel, time)`` to ``(batch, 1)``.
    real, drawn : Tensor, shape (batch, channel, time)
    share : Tensor, shape (batch, 1, 1)
        Of the real series in each mixture, uniform in 0..1.
    mask : Tensor, shape (batch, time), optional

    Returns
    -------
    Tensor, scalar
    """
    between = (share * real + (1 - share) * drawn).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between, mask).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class InfoGANObjective(Objective):
    """Critic and generator in turn; the generator's codes must be read off by the encoder.

    The critic minimises ``D(drawn) - D(real) + penalty * gradient penalty``; generator, encoder
    and codebooks minimise ``-D(drawn) + information * |E(drawn) - values|^2`` and the two losses
    of the quantiser on the encoder's codes. All are means over entries.

    Parameters
    ----------
    network : QuantisedGAN
    information : float
        Weight of the reconstruction of the latents, in units of the even codebook's variance.
    quantisation, commitment : float
        Weights of the quantiser's losses.
    penalty : float
        Of the critic's gradient.
    n_critic : int
        Steps of the critic on each batch.
    weight_decay, learning_rate : float
        The decay is decoupled, of the weights of generator and encoder.
    """

    def __init__(
        self,
        network: QuantisedGAN,
        *,
        information: float = 1.0,
        quantisation: float = 0.01,
        commitment: float = 0.01,
        penalty: float = 10.0,
        n_critic: int = 5,
        weight_decay: float = 0.1,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.network = network
        self.information, self.penalty, self.n_critic = information, penalty, n_critic
        self.quantisation, self.commitment = quantisation, commitment
        self.weight_decay, self.learning_rate = weight_decay, learning_rate

    def phases(self) -> list[Phase]:
        """Return the critic's turn and the generator's."""
        network = self.network
        parts = nn.ModuleList([network.encoder, network.quantiser, network.decoder])

        def judge(parameters: Any, member: int) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=self.learning_rate, betas=BETAS)

        def make(parameters: Any, member: int) -> torch.optim.Optimizer:
            groups = decayed(parts, self.weight_decay)
            return ClippedAdamW(groups, lr=self.learning_rate, betas=BETAS)

        own = ("network.encoder", "network.quantiser", "network.decoder")
        return [
            Phase("critic", judge, ("network.critic",), times=self.n_critic),
            Phase("generator", make, own),
        ]

    def step(self, batch: dict[str, Any], state: State) -> dict[str, Tensor]:
        """Return the losses of the phase whose turn it is.

        Parameters
        ----------
        batch : dict
            ``x (batch, channel, time)``, standardised; optionally ``mask (batch, time)``.
        state : State
        """
        turn = self._judge if state.phase == "critic" else self._draw
        return turn(batch["x"], batch.get("mask"), state.generators[0])

    def _judge(self, x: Tensor, mask: Tensor | None, generator: Any) -> dict[str, Tensor]:
        critic = self.network.critic
        with torch.no_grad():
            _, drawn = self.network.draw(len(x), generator)
        distance = critic(x, mask).mean() - critic(drawn, mask).mean()
        share = torch.rand(len(x), 1, 1, generator=generator, device=x.device)
        penalty = gradient_penalty(critic, x, drawn, share.to(x.dtype), mask)
        loss = self.penalty * penalty - distance
        return {"loss": loss, "distance": distance.detach(), "penalty": penalty.detach()}

    def _draw(self, x: Tensor, mask: Tensor | None, generator: Any) -> dict[str, Tensor]:
        network = self.network
        values, drawn = network.draw(len(x), generator)
        z = network.encoder(drawn, mask)
        found = network.quantiser(z)
        spread = network.quantiser.books.detach().var(-1, unbiased=False).clamp(min=1e-12)
        latents = ((z - values.detach()).square() / spread).mean()
        loss = (
            self.information * latents
            - network.critic(drawn, mask).mean()
            + self.quantisation * found.quantisation
            + self.commitment * found.commitment
        )
        parts = {"latents": latents, "quantisation": found.quantisation}
        return {"loss": loss} | {name: value.detach() for name, value in parts.items()}

    def signature(self) -> dict[str, Any]:
        """Return the hyper-parameters."""
        return {
            "information": self.information, "quantisation": self.quantisation,
            "commitment": self.commitment, "penalty": self.penalty, "n_critic": self.n_critic,
            "weight_decay": self.weight_decay, "learning_rate": self.learning_rate,
            "shared": self.network.quantiser.shared, "n_noise": self.network.n_noise,
        }  # fmt: skip
