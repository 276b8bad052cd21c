"""One budget of cores: processes times threads never exceed them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def let_threads_sleep() -> None:
    """Ask OpenMP for threads that sleep while they wait; to be called before torch is loaded.

    By default they spin. Where another process wants their core too, a spinning thread holds up
    the one that it waits for, and small layers take many times as long. What the user has set
    stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(n_jobs: int, n_tasks: int, cpus: int | None, n_cores: int) -> tuple[int, int]:
    """Divide the cores of this machine.

    Parameters
    ----------
    n_jobs, n_tasks : int
        Processes wanted, and tasks there are.
    cpus : int or None
        Cores that each task asks for.
    n_cores : int
        Cores there are.

    Returns
    -------
    tuple of int
        Processes, and threads for each; their product never exceeds the cores.

    Examples
    --------
    >>> share(4, 10, None, 2)
    (2, 1)
    >>> share(2, 1, None, 8)
    (1, 8)
    """
    workers = max(1, min(n_jobs, n_tasks, n_cores // min(cpus or 1, n_cores)))
    return workers, min(cpus or n_cores, max(1, n_cores // workers))


@contextlib.contextmanager
def thread_variables(threads: int) -> Iterator[None]:
    """Give local processes their share of the cores; libraries read it when they are loaded."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update({name: _fewer(before[name], threads) for name in THREAD_VARIABLES})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _fewer(given: str | None, threads: int) -> str:
    return str(min(int(given), threads)) if given and given.isdigit() else str(threads)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Keep torch to its share of the cores; it is not imported for that."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else None
    if torch is not None and before is not None and before > count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch is not None and before is not None:
            torch.set_num_threads(before)
