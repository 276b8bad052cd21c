"""Two runs side by side: their metrics, and paired differences of their predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from neuro.validation import Estimate

_ITEM = r"(?:^|,)item=.*?(?=,\w+=|$)"  # of a stage run for each item, which is a row's own
COLUMNS = ("item", "unit", "fold", "target", "truth", "score")


@dataclass(frozen=True)
class Metric:
    """One name of ``metrics.json`` in both runs; None where a run lacks it.

    Attributes
    ----------
    name : str
        The dotted name.
    first, second : dict or None
        ``{"value", "low", "high", ...}``.
    """

    name: str
    first: dict[str, Any] | None
    second: dict[str, Any] | None

    @property
    def difference(self) -> float | None:
        """Second minus first, None where either has no value."""
        values = [(side or {}).get("value") for side in (self.first, self.second)]
        return None if None in values else values[1] - values[0]  # type: ignore[operator]


@dataclass(frozen=True)
class Difference:
    """The paired difference of one target, second minus first.

    Attributes
    ----------
    target : str
        As in ``predictions.parquet``.
    measure : str
        What was compared: ``"score"``, ``"accuracy"`` or ``"minus absolute error"``.
    estimate : Estimate
        Mean over units with a bootstrap interval and a sign-flip p; `baseline` is the first
        run's mean.
    n_items : int
        Items in both runs.
    n_unpaired : int
        Items in only one of them; they don't count.
    """

    target: str
    measure: str
    estimate: Estimate
    n_items: int
    n_unpaired: int


def find_run(run: str | Path, out: Path = Path("runs")) -> Path:
    """Find a run's folder: a path, or a name under `out`.

    Raises
    ------
    InputError
        Where there is none, with the nearest name.
    """
    from neuro.runner.document import nearest

    for folder in (Path(run), out / run):
        if (folder / "metrics.json").is_file():
            return folder
    shown = sorted(p.parent.name for p in out.glob("*/metrics.json")) if out.is_dir() else []
    hint = nearest(str(run), shown) if shown else f"; there are no runs in {out}"
    raise InputError(f"'{run}' is no run (a folder with metrics.json){hint}")


def metrics(first: Path, second: Path) -> list[Metric]:
    """Put the metrics of two run folders side by side, in the order of names.

    Raises
    ------
    InputError
        Where a ``metrics.json`` can't be read.
    """
    one, two = _metrics(first), _metrics(second)
    return [Metric(name, one.get(name), two.get(name)) for name in sorted(one | two)]


def _metrics(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: entry for name, entry in found.items() if "value" in entry}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: no readable metrics ({error}); run the workflow again"
        ) from error


def differences(
    first: Path, second: Path, *, n_boot: int = 2000, random_state: int = 0
) -> list[Difference]:
    """Compare two runs item by item, averaged inside units, with intervals over units.

    What is compared follows from the target's rows. Without a truth the score is itself the
    result (a correlation, an error). A truth in words is compared with a predicted class
    (accuracy); where the score is a number, it is the probability given to the truth, and is
    compared as it stands. Of a numeric truth the absolute error counts, negated, so that more
    is better.

    Parameters
    ----------
    first, second : Path
        Run folders.
    n_boot : int
        Bootstrap samples.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    list of Difference
        One per target that both runs have.

    Raises
    ------
    InputError
        Where a run has no predictions or the runs share no item.
    """
    one, two = _predictions(first), _predictions(second)
    shared = sorted(set(one["target"]) & set(two["target"]))
    found = [
        _difference(
            target, one[one["target"] == target], two[two["target"] == target], n_boot, random_state
        )
        for target in shared
    ]
    found = [difference for difference in found if difference.n_items]
    if not found:
        raise InputError(
            f"{first} and {second} have no prediction in common, so nothing can be paired: "
            f"{_some(one)} against {_some(two)}"
        )
    return found


def _some(table: pd.DataFrame) -> str:
    targets = sorted(set(table["target"]))[:3]
    return f"{len(table)} rows on {', '.join(targets) or 'nothing'}"


def _predictions(folder: Path) -> pd.DataFrame:
    import pandas as pd

    path = folder / "predictions.parquet"
    if not path.is_file():
        raise InputError(f"{path} is missing: this run made no predictions to compare")
    try:
        table = pd.read_parquet(path)
    except Exception as error:
        raise InputError(f"{path}: no readable table ({error}); run the workflow again") from error
    if lacking := [name for name in COLUMNS if name not in table]:
        raise InputError(f"{path} lacks {lacking}; expected the columns {list(COLUMNS)}")
    return table.assign(target=_full_names(table))


def _full_names(table: pd.DataFrame) -> pd.Series[str]:
    """Name targets as in ``metrics.json``: with the member, and with the stage where it must."""
    names = table["target"].astype(str)
    if "stage" in table:
        stages = table.groupby(names)["stage"].transform("nunique")
        names = names.where(stages < 2, table["stage"].astype(str) + "." + names)
    if "member" in table:
        members = table["member"].fillna("").astype(str).str.replace(_ITEM, "", regex=True)
        names = names.where(members == "", names + "[" + members.str.strip(",") + "]")
    return names


def _difference(
    target: str, one: pd.DataFrame, two: pd.DataFrame, n_boot: int, random_state: int
) -> Difference:
    import pandas as pd

    from neuro.validation import paired_difference

    measure = _measure(pd.concat([one, two]))
    sides = [_per_item(table, measure) for table in (one, two)]
    both = sides[0].to_frame("first").join(sides[1].to_frame("second"), how="inner")
    unpaired = len(sides[0]) + len(sides[1]) - 2 * len(both)
    estimate = paired_difference(
        both["second"],
        both["first"],
        units=both.index.get_level_values("unit"),
        n_unit="unit",
        n_boot=n_boot,
        random_state=random_state,
    )
    return Difference(target, measure, estimate, len(both), unpaired)


def _measure(table: pd.DataFrame) -> str:
    import pandas as pd

    truth = table["truth"].replace("", None).dropna()
    if truth.empty:
        return "score"
    if not pd.api.types.is_numeric_dtype(table["score"]):
        return "accuracy"
    numbers = pd.to_numeric(truth, errors="coerce")
    if numbers.isna().any() or _looks_like_classes(truth, numbers, table["score"]):
        return "score"
    return "minus absolute error"


def _looks_like_classes(
    truth: pd.Series[Any], numbers: pd.Series[float], score: pd.Series[float]
) -> bool:
    """Tell whether a truth such as "0" or "1" is written as text, beside a probability."""
    from pandas.api.types import is_numeric_dtype

    whole = bool((numbers % 1 == 0).all())
    return not is_numeric_dtype(truth) and whole and bool(score.dropna().between(0, 1).all())


def _per_item(table: pd.DataFrame, measure: str) -> pd.Series[float]:
    """Return one value per (unit, item): repeated folds of an item are averaged."""
    import pandas as pd

    if measure == "accuracy":
        value = (table["truth"].astype(str) == table["score"].astype(str)).astype(float)
    elif measure == "minus absolute error":
        value = -(pd.to_numeric(table["truth"], errors="coerce") - table["score"]).abs()
    else:
        value = table["score"].astype(float)
    keys = [table["unit"].astype(str), table["item"].astype(str)]
    return value.groupby(keys).mean()
