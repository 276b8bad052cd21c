"""Training the shipped beta-VAE: our path against a bare PyTorch loop and pythae's trainer.

All train the same network on the same data with the same batch size, optimiser and threads.
The three take turns, so that a busy machine slows all of them; medians of the ratios are shown.

    python benchmarks/training.py [--threads 2] [--rounds 7] [--shapes 16x128 6x256]

pythae is compared where it can be imported (`pip install pythae`, in an environment of its own).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time

import numpy as np
import torch

from neuro.batches import Batches
from neuro.nn.beta_vae import BetaVAEObjective
from neuro.nn.networks import NETWORKS
from neuro.nn.vae import gaussian_kl, gaussian_reconstruction, sample
from neuro.training import train

clock = time.perf_counter
LATENTS, BETA, RATE = 10, 4.0, 1e-3


def data(shape: tuple[int, int], n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, *shape), dtype=np.float32)


def ours(x: np.ndarray, kind: str, batch_size: int, epochs: int) -> float:
    c, t = x.shape[1:]
    network = NETWORKS[kind](c, t, LATENTS)
    objective = BetaVAEObjective(network, beta=BETA, learning_rate=RATE)
    batches = Batches({"x": x}, batch_size, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        train(objective, batches, max_epochs=epochs, folder=folder, device="cpu")
        return clock() - start


def bare(x: np.ndarray, kind: str, batch_size: int, epochs: int) -> float:
    c, t = x.shape[1:]
    network = NETWORKS[kind](c, t, LATENTS)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    tensor = torch.from_numpy(x)
    start = clock()
    for _ in range(epochs):
        order = torch.randperm(len(tensor))
        for rows in order.split(batch_size):
            batch = tensor[rows][None]
            mean, log_variance = network.encode(batch)
            z = sample(mean, log_variance, torch.randn_like(mean))
            recon = gaussian_reconstruction(network.decode(z), batch).mean()
            loss = recon + BETA * gaussian_kl(mean, log_variance).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return clock() - start


def pythae_trainer(x: np.ndarray, kind: str, batch_size: int, epochs: int) -> float:
    from pythae.data.datasets import BaseDataset
    from pythae.models import BetaVAE, BetaVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.CRITICAL)
    c, t = x.shape[1:]
    network = NETWORKS[kind](c, t, LATENTS)

    class Encode(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, batch: torch.Tensor) -> ModelOutput:
            mean, log_variance = self.network.encode(batch[None])
            return ModelOutput(embedding=mean[0], log_covariance=log_variance[0])

    class Decode(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.held = [network]  # its parameters are the encoder's already

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.held[0].decode(z[None])[0])

    config = BetaVAEConfig(input_dim=(c, t), latent_dim=LATENTS, beta=BETA)
    model = BetaVAE(config, encoder=Encode(), decoder=Decode())
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        trainer = BaseTrainer(
            model,
            BaseDataset(torch.from_numpy(x), torch.ones(len(x))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=batch_size,
                learning_rate=RATE,
                optimizer_cls="Adam",
                no_cuda=True,
            ),
        )
        start = clock()
        trainer.train()
        return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=2400)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--shapes", nargs="+", default=["16x128", "6x256", "64x128"])
    parser.add_argument("--networks", nargs="+", default=["conv", "mlp"])
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine; 1 thread")
    given = parser.parse_args()
    if given.cpu_time:
        global clock
        clock, given.threads = time.process_time, 1
    torch.set_num_threads(given.threads)
    paths = {"ours": ours, "bare": bare}
    with contextlib.suppress(ImportError):
        import pythae  # noqa: F401

        paths["pythae"] = pythae_trainer
    for shape in given.shapes:
        x = data(tuple(map(int, shape.split("x"))), given.samples)
        for kind in given.networks:
            compare(paths, x, kind, given)


def compare(paths: dict, x: np.ndarray, kind: str, given: argparse.Namespace) -> None:
    times: dict[str, list[float]] = {name: [] for name in paths}
    for run in paths.values():  # warm-up
        run(x[:256], kind, given.batch_size, 1)
    for _ in range(given.rounds):
        for name, run in paths.items():
            times[name].append(run(x, kind, given.batch_size, given.epochs))
    n = len(x) * given.epochs
    shape = "x".join(map(str, x.shape[1:]))
    print(f"{shape} {kind}, batch {given.batch_size}, {given.threads} threads")
    for name, values in times.items():
        rate = n / statistics.median(values)
        line = f"  {name:7s} {rate:9.0f} samples/s"
        if name != "ours":
            ratio = statistics.median(b / a for a, b in zip(times["ours"], values, strict=True))
            line += f"   ours / {name} = {ratio:.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
