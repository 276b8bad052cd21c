"""Lines and bars: a bar at a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TextIO, TypeVar

_T = TypeVar("_T")
_QUIET_S = 5.0  # plain lines come no more often than this


class Reporter:
    """Where progress goes.

    Parameters
    ----------
    show : bool
        False keeps quiet, except for warnings.
    stream : file, optional
        Standard error by default.
    """

    def __init__(self, show: bool = True, stream: TextIO | None = None) -> None:
        self.show = show
        self.stream = stream or sys.stderr
        self._bars: Any = None
        self._open = 0

    def line(self, text: str) -> None:
        """Print one line."""
        if not self.show:
            return
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning, also where progress is not shown."""
        shown, self.show = self.show, True
        self.line(f"Warning: {text}")
        self.show = shown

    def track(self, items: Iterable[_T], label: str, total: int | None = None) -> Iterator[_T]:
        """Iterate and show how far it is."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if not self.show:
            return iter(items)
        at_terminal = hasattr(self.stream, "isatty") and self.stream.isatty()
        return self._bar(items, label, total) if at_terminal else self._plain(items, label, total)

    def _plain(self, items: Iterable[_T], label: str, total: int | None) -> Iterator[_T]:
        last = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - last >= _QUIET_S:
                self.line(f"  {label} {done}/{total}" if total else f"  {label} {done}")
                last = time.monotonic()
            yield item

    def _bar(self, items: Iterable[_T], label: str, total: int | None) -> Iterator[_T]:
        bars = self._start()
        task = bars.add_task(label, total=total)
        try:
            for item in items:
                yield item
                bars.advance(task)
        finally:
            bars.remove_task(task)
            self._stop()

    def _start(self) -> Any:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(file=self.stream),
                transient=True,
            )
            self._bars.start()
        self._open += 1
        return self._bars

    def _stop(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._bars.stop()
            self._bars = None


def duration_text(seconds: float) -> str:
    """Write a duration.

    >>> duration_text(0.42), duration_text(75), duration_text(3700)
    ('0.4 s', '1 min 15 s', '1 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
