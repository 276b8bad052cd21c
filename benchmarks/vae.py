"""The VAE family beside pythae: step times, memory of the TC term, the pipeline's overhead.

    python benchmarks/vae.py step [--batch 512] [--rounds 15]   needs: pip install pythae
    python benchmarks/vae.py memory [--batch 4096] [--latents 64]
    python benchmarks/vae.py pipeline [--batch 128]

`step`: the same MLP and weights, 3 channels x 128, 16 latents, one thread, processor time of a
whole step with Adam, interleaved rounds; both losses on the same noise are printed first. By
minibatch weighted sampling, all terms from the draw, as in pythae.
`memory`: the peak of resident memory over one forward and backward of the blocked TC term less what
was resident just before, freed memory having been given back first (Linux with glibc).
`pipeline`: series/s of `SeriesVAE.fit`'s training against a bare loop on the same tensors.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

SHAPE, LATENTS, WIDTH, BETA = (3, 128), 16, 512, 4.0


def mlp() -> tuple[nn.Module, nn.Module]:
    """Return an encoder body and a decoder like pythae's default MLPs, without the sigmoid."""
    flat = SHAPE[0] * SHAPE[1]
    body = nn.Sequential(nn.Linear(flat, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2 * LATENTS))
    decoder = nn.Sequential(nn.Linear(LATENTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, flat))
    return body, decoder


class Net(nn.Module):
    """Ours: the same layers behind `encode` and `decode`."""

    n_latents = LATENTS

    def __init__(self) -> None:
        super().__init__()
        self.body, self.decoder = mlp()

    def encode(self, x: Any, mask: Any = None) -> Any:
        return self.body(x.flatten(1)).chunk(2, -1)

    def decode(self, z: Any) -> Any:
        return self.decoder(z).unflatten(-1, SHAPE)


def theirs(beta: float | None) -> Any:
    """Return pythae's beta-TCVAE, or its VAE for None, with the same layers."""
    from pythae.models import VAE, BetaTCVAE, BetaTCVAEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()[0]

        def forward(self, x: Any) -> Any:
            mean, log_variance = self.body(x.flatten(1)).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp()[1]

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.layers(z).unflatten(-1, SHAPE))

    sizes = {"input_dim": SHAPE, "latent_dim": LATENTS, "reconstruction_loss": "mse"}
    if beta is None:
        return VAE(VAEConfig(**sizes), Encoder(), Decoder())
    config = BetaTCVAEConfig(**sizes, alpha=1.0, beta=beta, gamma=1.0, use_mss=False)
    return BetaTCVAE(config, Encoder(), Decoder())


def ours(beta: float | None, batch: int) -> Any:
    from neuro.nn.vae_family import Penalty, VAEFamily

    penalty = Penalty() if beta is None else Penalty(b=beta, estimator="mws", analytic=False)
    return VAEFamily(Net(), penalty, n_samples=batch)  # type: ignore[arg-type]


def step(batch: int, rounds: int) -> None:
    """Time steps of both packages in turns."""
    from neuro.nn.objective import State

    torch.set_num_threads(1)
    x = torch.randn(batch, *SHAPE)
    state = State(1, [torch.Generator().manual_seed(0)], phase="vae")
    runs: dict[str, Any] = {}
    for name, beta in (("vae", None), ("beta-tc", BETA)):
        mine, other = ours(beta, batch), theirs(beta)
        other.encoder.body.load_state_dict(mine.network.body.state_dict())
        other.decoder.layers.load_state_dict(mine.network.decoder.state_dict())
        same_loss(name, mine, other, x)
        runs[f"ours {name}"] = stepper(mine, lambda m=mine: m.step({"x": x}, state)["loss"])
        runs[f"pythae {name}"] = stepper(other, lambda m=other: m({"data": x}).loss)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 2):
        for name, run in runs.items():
            start = time.process_time()
            for _ in range(5):
                run()
            if turn > 1:
                times[name].append((time.process_time() - start) * 200)
    for name, each in times.items():
        low, high = np.percentile(each, [25, 75])
        print(f"batch {batch}: {name} {median(each):.1f} ms ({low:.1f} to {high:.1f})")
    for name in ("vae", "beta-tc"):
        ratio = median(times[f"ours {name}"]) / median(times[f"pythae {name}"])
        print(f"batch {batch}: ours / pythae, {name}: {ratio:.2f}")


def same_loss(name: str, mine: Any, other: Any, x: Any) -> None:
    """Print both losses on the same noise."""
    noise = torch.randn(len(x), LATENTS)
    with torch.no_grad():
        mean, log_variance = mine.network.encode(x)
        z = mean + noise * (0.5 * log_variance).exp()
        from neuro.nn.objective import State

        parts = mine.penalties(z, mean, log_variance, State(1, []))
        loss = mine.reconstruction(z, x, None) + parts["penalty"]
        recon = other.decoder(z)["reconstruction"]
        extra = (z, len(x)) if name == "beta-tc" else (z,)
        reference = other.loss_function(recon, x, mean, log_variance, *extra)[0]
        if name == "vae":  # pythae's VAE has no factor 1/2 in its squared error
            error = 0.5 * (recon - x).square().sum((1, 2)).mean()
            with_half = other.loss_function(recon, x, mean, log_variance, z)
            reference = error + with_half[2]
    print(f"loss, {name}: ours {loss:.4f}, pythae {reference:.4f}")


def stepper(model: Any, loss: Any) -> Any:
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def run() -> None:
        adam.zero_grad()
        loss().backward()
        adam.step()

    return run


def memory(batch: int, latents: int) -> None:
    """Print the memory of one forward and backward of the TC term."""
    from neuro.nn.aggregate import decompose_kl

    torch.set_num_threads(1)
    inputs = [torch.randn(batch, latents, requires_grad=True) for _ in range(3)]
    small = [t[:64].detach().requires_grad_() for t in inputs]
    decompose_kl(*small, n_samples=10**5, estimator="mss").tc.mean().backward()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # nothing freed before is reused unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    start = time.process_time()
    decompose_kl(*inputs, n_samples=10**5, estimator="mss").tc.mean().backward()
    took = time.process_time() - start
    print(
        f"TC at {batch} x {latents}: {resident('VmHWM') - before:.0f} MB above the {before:.0f} MB "
        f"before; {took:.1f} s of processor time; one plain tensor of all pairs would take "
        f"{4 * batch**2 * latents / 1e6:.0f} MB"
    )


def resident(name: str) -> float:
    """Return a memory of this process from /proc, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def pipeline(batch: int, rounds: int) -> None:
    """Compare the training of the estimator with a bare loop over the same tensors."""
    from neuro.data import Batches
    from neuro.nn.objective import State
    from neuro.training import train

    torch.set_num_threads(1)
    n, epochs = 4096, 4
    values = np.random.default_rng(0).normal(size=(n, *SHAPE)).astype("f4")
    bare_times, ours_times = [], []
    for seed in range(rounds):
        model = ours(BETA, batch)
        tensor = torch.from_numpy(values)
        state = State(epochs, [torch.Generator().manual_seed(seed)], phase="vae")
        start = time.process_time()
        adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        for _ in range(epochs):
            order = torch.randperm(n)
            for at in order.split(batch):
                adam.zero_grad()
                model.step({"x": tensor[at]}, state)["loss"].backward()
                adam.step()
        bare_times.append(time.process_time() - start)
        model = ours(BETA, batch)
        start = time.process_time()
        train(model, Batches({"x": values}, batch, seed=seed), max_epochs=epochs, device="cpu")
        ours_times.append(time.process_time() - start)
    ratios = [b / o for b, o in zip(bare_times, ours_times, strict=True)]
    print(
        f"batch {batch}: {epochs * n / median(ours_times):.0f} series/s of the pipeline, "
        f"{median(ratios):.2f} of a bare loop ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["step", "memory", "pipeline"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--latents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    if given.what == "step":
        step(given.batch or 512, given.rounds)
    elif given.what == "memory":
        memory(given.batch or 4096, given.latents)
    else:
        pipeline(given.batch or 128, given.rounds)
