"""How the command line speaks: tables, one-line errors, exit codes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from neuro.errors import NeuroError, StageError

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_R = TypeVar("_R")


class Settings:
    """What the command line was started with."""

    debug = False


def say(text: str) -> None:
    """Print plain text, whatever brackets are in it."""
    print(text)


def complain(text: str, prefix: str = "Error: ") -> None:
    """Print a message to stderr."""
    print(f"{prefix}{text}", file=sys.stderr)


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    styles: Callable[[Sequence[object]], str | None] = lambda row: None,
    numbers: Sequence[str] = (),
) -> None:
    """Print a table; in a pipe or a file, tab-separated lines.

    Parameters
    ----------
    headers : sequence of str
        The columns.
    rows : iterable of sequences
        Cells; they are shown as they are, markup in them has no effect.
    title : str, optional
        Printed above.
    styles : callable, optional
        Gives a row's style.
    numbers : sequence of str
        Headers of the columns to align right.
    """
    if not sys.stdout.isatty():
        for line in (headers, *rows):
            print(*(str(cell).replace("\t", " ") for cell in line), sep="\t")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False)
    for header in headers:
        # Long words such as keys and paths go on in the next line rather than being cut.
        align = "right" if header in numbers else "left"
        shown.add_column(header, overflow="fold", justify=align)  # type: ignore[arg-type]
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row), style=styles(row))
    Console(highlight=False).print(shown)


def exit_code(error: BaseException) -> int:
    """Return what an error means for the shell: 2 for the user's input, 1 for all else."""
    if isinstance(error, StageError) or not isinstance(error, NeuroError):
        return FAILED
    return WRONG_INPUT


def guarded(command: _F) -> _F:
    """Make a command end with a readable message and the right exit code.

    Nobody sees a traceback unless ``--debug`` was given.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            complain(
                "Interrupted. What was finished is kept; the same command goes on from there.",
                prefix="",
            )
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            _explain(error)
            raise typer.Exit(exit_code(error)) from None

    return run  # type: ignore[return-value]


def _explain(error: Exception) -> None:
    if Settings.debug:
        import traceback

        traceback.print_exc()
    elif isinstance(error, NeuroError | OSError):
        complain("\n".join([str(error), *getattr(error, "__notes__", ())]))
    else:
        complain(
            f"unexpected {type(error).__name__}: {error}\n"
            "This is a fault of the program or of a plugin, not of your input; `--debug` shows "
            "where it happened."
        )


def counted(
    items: Sequence[_T],
    work: Callable[[Sequence[_T], Callable[[object], None]], _R],
    label: str,
) -> _R:
    """Do a piece of work with a bar that moves whenever it says so; no bar off a terminal.

    Parameters
    ----------
    items : sequence
        What is worked on.
    work : callable
        ``work(items, told)``; calls ``told(anything)`` once per item.
    label : str
        Shown before the bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    silent = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=silent, transient=True) as bar:
        task = bar.add_task(label, total=len(items))
        return work(items, lambda told: bar.advance(task))


def short(path: Path) -> str:
    """Write a path relative to the working directory where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def number(value: float | None) -> str:
    """Write a number in four digits, a missing one as a dash.

    Examples
    --------
    >>> number(0.123456), number(None), number(12)
    ('0.1235', '-', '12')
    """
    return "-" if value is None else f"{value:.4g}"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval.

    Examples
    --------
    >>> interval(0.1, 0.25)
    '[0.1, 0.25]'
    """
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def size(n_bytes: float) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> size(1_500_000)
    '1.5 MB'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes:.0f} B"
