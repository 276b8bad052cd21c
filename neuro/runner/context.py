"""What a stage reports while it runs; everything is kept with its result."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from neuro.errors import StageError
from neuro.runner.files import write_json
from neuro.runner.progress import Reporter

if TYPE_CHECKING:
    from neuro.report import Block

_T = TypeVar("_T")
_METRIC = re.compile(r"[\w+-]+(\.[\w+-]+)*")
COLUMNS = ("item", "unit", "fold", "target", "truth", "score")


class RunContext:
    """The `neuro.stage.Context` that the runner hands to a stage.

    Parameters
    ----------
    name : str
        The stage's name in the workflow.
    key : str
        The address of the result.
    folder : Path
        The result's folder while it is being made.
    scratch : Path
        Survives a kill; made when it is first asked for.
    n_jobs : int
        Cores the stage may use.
    members : dict
        For each list input, the parameters of its members.
    reporter : Reporter
        Where progress and warnings go.
    """

    def __init__(
        self,
        name: str,
        key: str,
        folder: Path,
        scratch: Path,
        n_jobs: int,
        members: dict[str, list[dict[str, Any]]],
        reporter: Reporter,
    ) -> None:
        self.name, self.key, self.n_jobs, self.members = name, key, n_jobs, members
        self._folder, self._scratch, self._reporter = folder, scratch, reporter
        self._metrics: dict[str, dict[str, Any]] = {}
        self._tables: list[Any] = []
        self._methods: list[tuple[str, tuple[str, ...]]] = []
        self._warnings: list[str] = []
        self._marks: list[str] = []
        self._scored: dict[str, int] = {}

    @property
    def scratch(self) -> Path:
        """A folder that survives a kill."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch

    def metric(
        self,
        name: str,
        value: float | None,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
        n_unit: str | None = None,
        chance: float | None = None,
        p: float | None = None,
        p_corrected: float | None = None,
        baseline: float | None = None,
        unit: str | None = None,
    ) -> None:
        """Record one number of ``metrics.json``.

        Raises
        ------
        StageError
            For a name that is not dotted words, a name used twice, a value that is no number, an
            interval upside down, or a p-value outside 0 to 1.
        """
        if not _METRIC.fullmatch(name):
            raise StageError(f"metric '{name}': the name must be words joined by dots")
        if name in self._metrics:
            raise StageError(f"metric '{name}' is recorded twice by '{self.name}'")
        bottom, top = _number(name, "low", low), _number(name, "high", high)
        if bottom is not None and top is not None and bottom > top:
            raise StageError(f"metric '{name}': low {low} is above high {high}")
        self._metrics[name] = {
            "value": _number(name, "value", value),
            "low": bottom,
            "high": top,
            "n": None if n is None else int(n),
            "n_unit": n_unit,
            "chance": _number(name, "chance", chance),
            "p": _probability(name, "p", p),
            "p_corrected": _probability(name, "p_corrected", p_corrected),
            "baseline": _number(name, "baseline", baseline),
            "unit": unit,
        }

    def predictions(self, table: Any) -> None:
        """Add rows to ``predictions.parquet``.

        Parameters
        ----------
        table : DataFrame, or anything that makes one
            With the columns item, unit, fold, target, truth, score; others may stand beside them.

        Raises
        ------
        StageError
            Where a column is missing.
        """
        import pandas as pd

        frame = pd.DataFrame(table)
        lacking = [name for name in COLUMNS if name not in frame.columns]
        if lacking:
            raise StageError(f"predictions of '{self.name}' lack the columns {lacking}")
        self._tables.append(frame)

    def section(self, title: str, *blocks: Block) -> None:
        """Add a section to the report; it is stored at once."""
        from neuro.report import write_section

        write_section(self._folder / "report", title, blocks)

    def method(self, sentence: str, *citations: str) -> None:
        """Add a sentence to the methods paragraph."""
        if (sentence, citations) not in self._methods:
            self._methods.append((sentence, citations))

    def warn(self, message: str) -> None:
        """Show a warning now and in the report."""
        if message not in self._warnings:
            self._warnings.append(message)
            self._reporter.warn(f"{self.name}: {message}")

    def mark(self, text: str) -> None:
        """Put a warning on every section of this stage and of those behind it."""
        if text not in self._marks:
            self._marks.append(text)
            self._reporter.warn(f"{self.name}: {text}")

    def scored(self, split: str) -> None:
        """Count one more scoring of a test split."""
        self._scored[split] = self._scored.get(split, 0) + 1

    def progress(self, items: Iterable[_T], label: str, total: int | None = None) -> Iterator[_T]:
        """Iterate with a bar."""
        return self._reporter.track(items, f"{self.name}: {label}", total)

    def finish(self) -> dict[str, int]:
        """Write what was reported into the result's folder; return the scorings."""
        write_json(self._folder / "metrics.json", self._metrics)
        notes = {
            "methods": [[sentence, list(cited)] for sentence, cited in self._methods],
            "warnings": self._warnings,
            "marks": self._marks,
            "scored": self._scored,
        }
        write_json(self._folder / "notes.json", notes)
        if self._tables:
            write_predictions(self._tables, self._folder / "predictions.parquet")
        return self._scored


def write_predictions(tables: list[Any], path: Path) -> None:
    """Write tables below one another as Parquet; a column of mixed kinds becomes text."""
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    for name in table.columns:
        if table[name].dtype == object:
            kinds = {type(value) for value in table[name] if value is not None}
            if len(kinds) > 1:
                table[name] = [None if value is None else str(value) for value in table[name]]
    table.to_parquet(path)


def _number(name: str, field: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not (
        isinstance(value, numbers.Real) or hasattr(value, "__float__")
    ):
        raise StageError(f"metric '{name}': {field} must be a number or None, found {value!r}")
    number = float(value)
    return number if math.isfinite(number) else None


def _probability(name: str, field: str, value: Any) -> float | None:
    number = _number(name, field, value)
    if number is not None and not 0 <= number <= 1:
        raise StageError(f"metric '{name}': {field} must be between 0 and 1, found {value!r}")
    return number
