"""Print the tables of runs and sessions held out, from a run of eeg-muse-p300 or eeg-muse-n170.

neuro run eeg-muse-n170
python benchmarks/within.py runs/eeg-muse-n170
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from eeg.within_report import shown


def main() -> None:
    """Print one Markdown table per question and subject."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder, which holds within.parquet")
    table = pd.read_parquet(parser.parse_args().run / "within.parquet")
    for (label, who, level), part in table.groupby(["label", "subject", "level"], sort=False):
        whose = f" of {who}" if who else ""
        n, of, chance = part[["n", "of", "chance"]].iloc[0]
        print(f"\n{label}{whose}, {level}: {n} {of}s, chance {chance:.3g}\n")
        rows: list[dict[str, Any]] = (
            part.astype(object).where(part.notna(), None).to_dict("records")
        )
        print(_markdown(shown(rows)))


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
