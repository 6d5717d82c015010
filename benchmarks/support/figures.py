"""Figures of rounds: medians, ratios round by round, and tables for people."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

TABLE_WIDTH: Final = 118
"""Written to a file, a table is as wide as on a good terminal."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Subject over base, the median of the ratios of single rounds, beside what performance.md section 7 asks.

    ``goal`` and ``floor`` are information: ``better`` says whether a higher or a lower ratio is the better one.
    """

    row: str
    text: str
    median: float
    lowest: float
    highest: float
    goal: float | None = None
    floor: float | None = None
    better: Literal["higher", "lower"] = "higher"

    @property
    def verdict(self) -> str:
        """Where the median stands between floor and goal."""
        if self.goal is None or self.floor is None:
            return ""
        sign = 1 if self.better == "higher" else -1
        if sign * self.median >= sign * self.goal:
            return "goal met"
        return "above floor" if sign * self.median >= sign * self.floor else "BELOW FLOOR"


def median_of(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(figures[name] for figures in rounds)


def ratio_of(
    rounds: Sequence[Mapping[str, float]],
    of: Callable[[Mapping[str, float]], float],
    *,
    text: str,
    row: str = "",
    goal: float | None = None,
    floor: float | None = None,
    better: Literal["higher", "lower"] = "higher",
) -> Ratio:
    """The median of ``of`` over rounds, so that a slow minute of the machine weighs on subject and base alike."""
    ratios = [of(figures) for figures in rounds]
    return Ratio(row, text, statistics.median(ratios), min(ratios), max(ratios), goal, floor, better)


def machine() -> str:
    """What this ran on, in one line."""
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> None:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    Console(width=max(console.width, TABLE_WIDTH)).print(table, markup=False)


def print_ratios(ratios: Sequence[Ratio], *, caption: str) -> None:
    """Ratios with their spread, and goal and floor where the reference names some."""
    rows = [
        [
            ratio.text,
            ratio.row,
            f"{ratio.median:.3g}",
            f"{ratio.lowest:.3g} to {ratio.highest:.3g}",
            *("" if bound is None else f"{bound:g}" for bound in (ratio.goal, ratio.floor)),
            ratio.verdict,
        ]
        for ratio in ratios
    ]
    columns = ["ratio of subject to base", "row", "median", "spread", "goal", "floor", ""]
    print_table("Against ceilings of the same run", columns, rows, caption=caption)


def print_json(document: Mapping[str, Any], ratios: Sequence[Ratio]) -> None:
    """Everything measured, for machines."""
    listed = [
        {
            "row": ratio.row,
            "ratio": ratio.text,
            "median": ratio.median,
            "lowest": ratio.lowest,
            "highest": ratio.highest,
            "goal": ratio.goal,
            "floor": ratio.floor,
            "verdict": ratio.verdict,
        }
        for ratio in ratios
    ]
    print(json.dumps({**document, "machine": machine(), "ratios": listed}, indent=2))
