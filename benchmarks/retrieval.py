"""Exact retrieval against the 30-draw loop, and top 16 of a large gallery against faiss-flat.

    python benchmarks/retrieval.py                         # 1,000 x 197,376, and 10^6 x 768
    python benchmarks/retrieval.py --images 300 --gallery 100000

The loop is the published one: each draw normalises 300 rows of either side and multiplies them;
embeddings are given to both. The gallery is a half-precision file; faiss holds it as float32 in
memory. Needs faiss-cpu for the second part. Both use as many threads as torch is given.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from fmri.search import top_k
from neuro.metrics import compare_rows, count_ahead, exact_top_k

FEATURES, WIDTH, QUERIES, K = 197_376, 768, 1000, 16


def embeddings(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions that retrieve well but not perfectly."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((n, FEATURES), dtype=np.float32)
    predicted = rng.standard_normal((n, FEATURES), dtype=np.float32)
    # The noise differs between images, so that some are found and others not.
    predicted += rng.uniform(0.002, 0.02, (n, 1)).astype(np.float32) * truth
    return predicted, truth


def drawn(predicted: np.ndarray, truth: np.ndarray, draws: int = 30, n: int = 300) -> np.ndarray:
    """Both directions by repeated draws, (draw, direction)."""
    rng = np.random.default_rng(1)
    out = []
    for _ in range(draws):
        rows = rng.choice(len(truth), n, replace=False)
        a, b = (part[rows] for part in (predicted, truth))
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        scores = a @ b.T
        own = np.arange(n)
        out.append([(scores.argmax(1) == own).mean(), (scores.argmax(0) == own).mean()])
    return np.array(out)


def exact(predicted: np.ndarray, truth: np.ndarray, n: int = 300) -> np.ndarray:
    scores = compare_rows(predicted, truth)
    sides = (scores, scores.T)
    return np.array([exact_top_k(*count_ahead(s), n_candidates=len(s), n=n).mean() for s in sides])


def compare_retrieval(images: int) -> None:
    predicted, truth = embeddings(images)
    n = min(300, images // 2)
    start = time.perf_counter()
    mean = exact(predicted, truth, n)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    loop = drawn(predicted, truth, n=n)
    theirs = time.perf_counter() - start
    error = loop.std(0, ddof=1) / np.sqrt(len(loop))
    print(f"retrieval of {images} x {FEATURES}, {n} candidates, image / brain:")
    print(f"  exact    {ours:6.1f} s  {mean.round(4)}")
    print(f"  30 draws {theirs:6.1f} s  {loop.mean(0).round(4)} (standard error {error.round(4)})")
    print(f"  ratio {theirs / ours:.1f} (goal >= 5)")


def write_gallery(path: Path, n: int) -> None:
    rng = np.random.default_rng(2)
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, WIDTH))
    for first in range(0, n, 16384):
        rows = rng.standard_normal((min(16384, n - first), WIDTH), dtype=np.float32)
        mapped[first : first + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mapped.flush()


def anonymous_mib() -> float:
    """Memory of the process that no file backs, MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def watched(work: object) -> tuple[float, float, object]:
    """Seconds, growth of the process's own memory at its peak (MiB), result."""
    import threading

    before, peak, stop = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], anonymous_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    result = work()  # type: ignore[operator]
    seconds = time.perf_counter() - start
    stop.set()
    thread.join()
    return seconds, max(peak[0] - before, 0.0), result


def compare_gallery(n: int, repeats: int) -> None:
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    queries = np.random.default_rng(3).standard_normal((QUERIES, WIDTH), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        write_gallery(path, n)
        mapped = np.load(path, mmap_mode="r")
        top_k(queries, mapped[:4096], K)  # warm up
        index = faiss.IndexFlatIP(WIDTH)
        for first in range(0, n, 65536):
            index.add(np.asarray(mapped[first : first + 65536], dtype=np.float32))
        held = index.ntotal * WIDTH * 4 / 2**20
        rows = []
        for _ in range(repeats):
            ours, growth, (scores, found) = watched(lambda: top_k(queries, mapped, K))
            theirs, _, (expected, right) = watched(lambda: index.search(queries, K))
            rows.append((ours, theirs, growth))
    ours, theirs, _ = np.median(rows, axis=0)
    growth = max(row[2] for row in rows)  # later repeats find the memory of the first
    print(f"top {K} of {QUERIES} queries over {n} x {WIDTH}, {torch.get_num_threads()} thread(s):")
    print(f"  blocks of the file {ours:6.1f} s, {growth:.0f} MiB of working memory")
    print(f"  faiss-flat         {theirs:6.1f} s, {held:.0f} MiB held")
    difference = np.abs(scores - expected).max()
    print(f"  same rows {np.mean(found == right):.4f}, scores within {difference:.1e}")
    print(f"  ratio {np.median([a / b for a, b, _ in rows]):.2f} (goal <= 1.3)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="0 leaves the first part out")
    parser.add_argument("--gallery", type=int, default=1_000_000, help="0 leaves the second out")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    if given.images:
        compare_retrieval(given.images)
    if given.gallery:
        compare_gallery(given.gallery, given.repeats)


if __name__ == "__main__":
    main()
