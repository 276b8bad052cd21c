r"""The diffusion prior's noise schedule and samplers, from `diffusers`.

The schedule is the cosine one (Nichol and Dhariwal 2021, eq. 17), the network predicts the clean
tokens. Sampling is ancestral (DDPM, as MindEye1) or DDIM with trailing steps (99, 94, ..., 4 for
20 of 100: it starts where the noise is pure). A trial's random numbers are its own, so that its
sample does not depend on what it is decoded with.

References
----------
Ho et al., "Denoising diffusion probabilistic models" (NeurIPS 2020).
Nichol and Dhariwal, "Improved denoising diffusion probabilistic models" (ICML 2021).
Song et al., "Denoising diffusion implicit models" (ICLR 2021).
Scotti et al., "Reconstructing the mind's eye" (NeurIPS 2023).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuro.errors import InputError

if TYPE_CHECKING:
    from neuro.nn.prior import PriorNetwork

SAMPLERS = ("ddim", "ddpm")
MEAN = "mean"
N_TIMES = 100


def make_scheduler(sampler: str = "ddpm", n_times: int = N_TIMES) -> Any:
    """Return the scheduler of `diffusers`.

    Parameters
    ----------
    sampler : {"ddim", "ddpm"}
    n_times : int
        Training steps of the noise.

    Returns
    -------
    diffusers.DDIMScheduler or diffusers.DDPMScheduler

    Raises
    ------
    InputError
        Where the sampler is unknown, or `diffusers` is not installed.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler is {sampler!r}; expected one of {', '.join(SAMPLERS)}")
    try:
        from diffusers import DDIMScheduler, DDPMScheduler
    except ImportError as error:
        raise InputError(
            f'the diffusion prior needs diffusers ({error}): pip install "diffusers>=0.30"'
        ) from error
    shared: dict[str, Any] = {
        "num_train_timesteps": n_times,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "sample",
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }
    if sampler == "ddim":
        return DDIMScheduler(**shared, set_alpha_to_one=True)
    return DDPMScheduler(**shared, variance_type="fixed_small")


def kept_signal(n_times: int = N_TIMES) -> Tensor:
    """Return ``a_bar(t)``, the share of the signal's variance left at each time.

    Returns
    -------
    Tensor of float32, shape (n_times,)

    Examples
    --------
    >>> a = kept_signal()
    >>> bool(a[0] > 0.999), bool(a[-1] < 1e-5)
    (True, True)
    """
    return make_scheduler("ddpm", n_times).alphas_cumprod.float()


def sample(
    network: PriorNetwork,
    brain: Tensor,
    *,
    keys: Sequence[str],
    sampler: str = "ddim",
    steps: int = 20,
    guidance: float = 1.0,
    random_state: int = 0,
    n_times: int = N_TIMES,
    n_samples: int = 1,
) -> Tensor:
    """Draw the tokens of images from the prior.

    Parameters
    ----------
    network : PriorNetwork
        In evaluation mode.
    brain : Tensor, shape (trial, token, feature)
        The condition.
    keys : sequence of str, length trial
        A trial's noise is a function of its key and `random_state`.
    sampler : {"ddim", "ddpm", "mean"}
        ``"mean"`` is no sample: the network's estimate of the mean (`PriorNetwork.mean`), which
        lies nearest to the truth on average; steps, guidance and noise play no part.
    steps : int
        Of `n_times`.
    guidance : float
        1: none.
    random_state : int
    n_times : int
        Of the training.
    n_samples : int
        Samples of each trial that are averaged.

    Returns
    -------
    Tensor, shape (trial, token, feature)
        In the scale in which the prior was trained.
    """
    if not 1 <= steps <= n_times:
        raise InputError(f"steps is {steps}; expected 1 to {n_times}")
    if sampler == MEAN:
        return network.mean(brain, n_times - 1)
    total = torch.zeros_like(brain)
    for number in range(n_samples):
        generators = [_generator(key, random_state, number) for key in keys]
        total += _one(network, brain, generators, sampler, steps, guidance, n_times)
    return total / n_samples


def _one(
    network: PriorNetwork,
    brain: Tensor,
    generators: list[torch.Generator],
    sampler: str,
    steps: int,
    guidance: float,
    n_times: int,
) -> Tensor:
    scheduler = make_scheduler(sampler, n_times)
    scheduler.set_timesteps(steps, device=brain.device)
    x = _noise(generators, brain)
    for t in scheduler.timesteps:
        predicted = network.guided(x, t.expand(len(x)), brain, guidance)
        # With a list of generators diffusers draws every row's noise from its own.
        own = {"generator": generators} if sampler == "ddpm" else {}
        x = scheduler.step(predicted.float(), t, x, **own).prev_sample
    return x


def _noise(generators: list[torch.Generator], like: Tensor) -> Tensor:
    """Draw each trial's start on the CPU, so that it is the same on every device."""
    shape = like.shape[1:]
    return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(like.device)


def _generator(key: str, random_state: int, number: int) -> torch.Generator:
    text = f"{key}\0{random_state}\0{number}".encode()
    seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(seed)
