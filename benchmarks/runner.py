"""The runner's own time: cached reruns, plans and help, as whole processes; first run and memory.

python benchmarks/runner.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(*args: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "neuro.cli", *args], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as out:
        run = ("run", "eeg-beta-vae", "--out", out)
        first = seconds(*run)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"shipped workflow, first run: {first:.0f} s (goal <= 300), {peak:.2f} GB (goal < 3)")
        for name, args, goal in (
            ("all-cached rerun", run, 2.0),
            ("neuro plan", ("plan", "eeg-beta-vae", "--out", out), 2.0),
            ("neuro --help", ("--help",), 0.5),
        ):
            times = [seconds(*args) for _ in range(repeats + 1)][1:]
            low, high = min(times), max(times)
            median = statistics.median(times)
            print(f"{name}: {median:.2f} s ({low:.2f} to {high:.2f}; goal < {goal:g} s)")


if __name__ == "__main__":
    main()
