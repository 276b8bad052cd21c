"""How much memory a stage takes at its peak."""

from __future__ import annotations

import threading
from types import TracebackType


class PeakMemory:
    """Watches the memory of this process while a block runs.

    Attributes
    ----------
    peak : int
        The largest resident size seen, in bytes.
    """

    def __init__(self, every: float = 0.1) -> None:
        self.peak = 0
        self._every = every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self._thread.start()
        return self

    def _look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._end.wait(self._every):
            self._look()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()
